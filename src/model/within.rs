//! Places inside a text that a file writes in one way or another: a part of the text as it is meant becomes the part
//! of the file that says it, through JSON's escapes and YAML's quotes, folded lines and blocks.
//!
//! The whole text is walked along with what the file holds, so a place is right or there is none.

use std::iter::Peekable;
use std::ops::Range;

use super::At;

/// Where `range` of `text`, which stands at `at` of a file, is in the file.
pub(super) fn place(source: &str, at: At, text: &str, range: &Range<usize>) -> Option<At> {
    let start = usize::try_from(at.start).ok()?;
    let raw = source.get(start..usize::try_from(at.end).ok()?)?;
    let written = match raw.chars().next()? {
        '"' => (Style::Double, 1),
        '\'' => (Style::Single, 1),
        // A block of YAML; its first line is no part of the text.
        '|' | '>' => (Style::Verbatim, raw.find('\n')?.saturating_add(1)),
        _ => (Style::Verbatim, 0),
    };
    let found = [written, (Style::Verbatim, 0)].into_iter().find_map(|(style, from)| {
        let units = || Units { raw, style, at: from };
        align(units(), text, range).or_else(|| {
            // In a template, `[[` stands for `[`.
            let mut units = units();
            units.next().filter(|first| first.character == '[')?;
            align(units, text, range)
        })
    })?;
    let offset = |inner: usize| u32::try_from(start.saturating_add(inner)).ok();
    Some(At { file: at.file, start: offset(found.start)?, end: offset(found.end)? })
}

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// `"…"`, with escapes.
    Double,
    /// `'…'`, where `''` is a quote.
    Single,
    /// As it is.
    Verbatim,
}

/// One character of a text and where it is written.
#[derive(Clone, Copy, Debug)]
struct Unit {
    character: char,
    start: usize,
    end: usize,
}

/// The characters that a writing stands for. Line breaks and indents are left as they are; nothing comes behind an
/// escape that is not known.
struct Units<'a> {
    raw: &'a str,
    style: Style,
    at: usize,
}

impl Units<'_> {
    /// The character that an escape means, or `None` for a line break that is no part of the text; with the bytes
    /// behind the backslash.
    fn escape(rest: &str) -> Option<(Option<char>, usize)> {
        let kind = rest.chars().next()?;
        let hex = |from: usize, digits: usize| {
            u32::from_str_radix(rest.get(from..from.checked_add(digits)?)?, 16).ok()
        };
        let coded = |digits: usize| Some((Some(char::from_u32(hex(1, digits)?)?), digits.checked_add(1)?));
        let simple = |character: char| Some((Some(character), kind.len_utf8()));
        match kind {
            'n' => simple('\n'),
            't' | '\t' => simple('\t'),
            'r' => simple('\r'),
            'b' => simple('\u{8}'),
            'f' => simple('\u{c}'),
            '0' => simple('\0'),
            'a' => simple('\u{7}'),
            'v' => simple('\u{b}'),
            'e' => simple('\u{1b}'),
            'N' => simple('\u{85}'),
            '_' => simple('\u{a0}'),
            'L' => simple('\u{2028}'),
            'P' => simple('\u{2029}'),
            '"' | '/' | '\\' | ' ' => simple(kind),
            'x' => coded(2),
            'U' => coded(8),
            'u' => {
                let first = hex(1, 4)?;
                if !(0xD800..0xDC00).contains(&first) {
                    return coded(4);
                }
                let second = rest.get(5..7).filter(|mark| *mark == "\\u").and_then(|_| hex(7, 4))?;
                let second = second.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
                let code = 0x10000 + ((first - 0xD800) << 10) + second;
                Some((Some(char::from_u32(code)?), 11))
            }
            '\r' if rest.starts_with("\r\n") => Some((None, 2)),
            '\r' | '\n' => Some((None, 1)),
            _ => None,
        }
    }
}

impl Iterator for Units<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        loop {
            let start = self.at;
            let rest = self.raw.get(start..)?;
            let character = rest.chars().next()?;
            let (character, length) = match (self.style, character) {
                (Style::Double, '"') => return None,
                (Style::Double, '\\') => {
                    let (character, length) = Self::escape(rest.get(1..)?)?;
                    (character, length.checked_add(1)?)
                }
                (Style::Single, '\'') if rest.starts_with("''") => (Some('\''), 2),
                (Style::Single, '\'') => return None,
                (_, other) => (Some(other), other.len_utf8()),
            };
            self.at = start.checked_add(length)?;
            if let Some(character) = character {
                return Some(Unit { character, start, end: self.at });
            }
        }
    }
}

/// Walks text and writing together. White space may differ: YAML folds lines and takes indents away.
fn align(units: Units<'_>, text: &str, range: &Range<usize>) -> Option<Range<usize>> {
    let mut last = units.at;
    let mut units = units.peekable();
    let mut start = None;
    let mut end = 0;
    for (offset, character) in text.char_indices() {
        let unit = if is_white(character) {
            white(&mut units).unwrap_or(Unit { character, start: last, end: last })
        } else {
            while white(&mut units).is_some() {}
            units.next().filter(|unit| unit.character == character)?
        };
        last = unit.end;
        if offset >= range.start && start.is_none() {
            start = Some(unit.start);
        }
        if offset < range.end {
            end = unit.end;
        }
    }
    let start = start.unwrap_or(last);
    Some(start..end.max(start))
}

fn white(units: &mut Peekable<Units<'_>>) -> Option<Unit> {
    units.next_if(|unit| is_white(unit.character))
}

const fn is_white(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_rather_than_a_wrong_one() {
        let at = |end| At { file: 0, start: 0, end };
        assert_eq!(place("\"abc\"", at(5), "abd", &(0..1)), None);
        assert_eq!(place("\"a\\qc\"", at(6), "aqc", &(0..1)), None);
        assert_eq!(place("abc", at(9), "abc", &(0..1)), None);
        assert_eq!(place("", at(0), "a", &(0..1)), None);
        let escaped = place("\"[[a]\"", at(6), "[a]", &(1..2)).unwrap();
        assert_eq!((escaped.start, escaped.end), (3, 4));
        let behind = place("\"ab\"", at(4), "ab", &(2..2)).unwrap();
        assert_eq!((behind.start, behind.end), (3, 3));
    }
}
