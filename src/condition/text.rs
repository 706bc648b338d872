//! Comparing texts: ordinal, ignoring case, and `StringLike` (semantics, sections 3.4 and 9 row 16).
//!
//! Everything works on UTF-8 bytes and decodes as it goes, so that constants are used where they lie in a
//! program: a damaged one compares wrongly, it never panics. Each function says its cost to the [`Budget`].

use std::cmp::Ordering;

use super::evaluate::{Budget, EvalError};

/// What stands for bytes that are no UTF-8; only a damaged program has them.
const NO_CHARACTER: u32 = 0xFFFD;

/// One upper-case letter for one letter: Unicode's simple mapping, never a locale's, never a longer text.
///
/// The standard library has the full mapping. Where that yields several characters the simple mapping is the
/// character itself, but for the Greek letters with iota subscript, whose simple mapping is the letter with iota
/// adscript.
pub(super) fn upper(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_uppercase();
    }
    let mut mapped = character.to_uppercase();
    if let (Some(one), None) = (mapped.next(), mapped.next()) {
        return one;
    }
    let simple = match u32::from(character) {
        code @ (0x1F80..=0x1F87 | 0x1F90..=0x1F97 | 0x1FA0..=0x1FA7) => code + 8,
        code @ (0x1FB3 | 0x1FC3 | 0x1FF3) => code + 9,
        code => code,
    };
    char::from_u32(simple).unwrap_or(character)
}

/// The upper-case form that constants of `…IgnoreCase` operators are kept in.
pub(super) fn fold(text: &str) -> String {
    text.chars().map(upper).collect()
}

fn fold_code(code: u32) -> u32 {
    char::from_u32(code).map_or(code, |character| u32::from(upper(character)))
}

/// The first character and what stands behind it.
#[inline]
fn first(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (&lead, behind) = bytes.split_first()?;
    if lead < 0x80 {
        return Some((u32::from(lead), behind));
    }
    let (more, mut code) = match lead {
        0xC2..=0xDF => (1, u32::from(lead & 0x1F)),
        0xE0..=0xEF => (2, u32::from(lead & 0x0F)),
        0xF0..=0xF4 => (3, u32::from(lead & 0x07)),
        _ => return Some((NO_CHARACTER, behind)),
    };
    let Some((continuation, rest)) = behind.split_at_checked(more) else {
        return Some((NO_CHARACTER, behind));
    };
    for &byte in continuation {
        if byte & 0xC0 != 0x80 {
            return Some((NO_CHARACTER, behind));
        }
        code = code << 6 | u32::from(byte & 0x3F);
    }
    Some((code, rest))
}

/// Walks two texts as long as their characters agree when case is ignored, and gives what is left of both.
#[inline]
fn common<'l, 'r>(mut left: &'l [u8], mut right: &'r [u8]) -> (&'l [u8], &'r [u8]) {
    while let (Some((l, left_rest)), Some((r, right_rest))) = (first(left), first(right)) {
        if l != r && fold_code(l) != fold_code(r) {
            break;
        }
        (left, right) = (left_rest, right_rest);
    }
    (left, right)
}

/// Whether two texts are equal.
#[inline]
pub(super) fn equal(
    left: &[u8],
    right: &[u8],
    ignore_case: bool,
    budget: &mut Budget,
) -> Result<bool, EvalError> {
    if !ignore_case {
        if left.len() != right.len() {
            return Ok(false);
        }
        budget.bytes(left.len())?;
        return Ok(left == right);
    }
    // Most texts are ASCII and of one length then; the slow way decides only where a byte is not.
    budget.bytes(left.len().min(right.len()))?;
    if left.eq_ignore_ascii_case(right) {
        return Ok(true);
    }
    if left.is_ascii() && right.is_ascii() {
        return Ok(false);
    }
    budget.folds(left.len().min(right.len()))?;
    let (left, right) = common(left, right);
    Ok(left.is_empty() && right.is_empty())
}

/// Whether `left` begins with `right`.
#[inline]
pub(super) fn starts_with(
    left: &[u8],
    right: &[u8],
    ignore_case: bool,
    budget: &mut Budget,
) -> Result<bool, EvalError> {
    let length = left.len().min(right.len());
    if ignore_case {
        budget.folds(length)?;
        return Ok(common(left, right).1.is_empty());
    }
    budget.bytes(length)?;
    Ok(left.starts_with(right))
}

/// Whether `right` stands somewhere in `left`.
pub(super) fn contains(left: &[u8], right: &[u8], budget: &mut Budget) -> Result<bool, EvalError> {
    budget.bytes(left.len().saturating_add(right.len()))?;
    Ok(memchr::memmem::find(left, right).is_some())
}

/// Whether `left` ends in `right`.
pub(super) fn ends_with(left: &[u8], right: &[u8], budget: &mut Budget) -> Result<bool, EvalError> {
    budget.bytes(left.len().min(right.len()))?;
    Ok(left.ends_with(right))
}

/// Whether a name is one that is kept in ASCII lower case, letter case ignored: for identifiers (semantics, section 9,
/// row 16), which are long and compared often, so eight bytes at a time.
#[inline]
pub(super) fn is_name(given: &[u8], lower: &[u8]) -> bool {
    if given.len() != lower.len() {
        return false;
    }
    let (given, given_tail) = given.as_chunks::<8>();
    let (lower, lower_tail) = lower.as_chunks::<8>();
    given
        .iter()
        .zip(lower)
        .all(|(given, lower)| lower_eight(u64::from_le_bytes(*given)) == u64::from_le_bytes(*lower))
        && given_tail.iter().zip(lower_tail).all(|(given, lower)| given.to_ascii_lowercase() == *lower)
}

/// Eight bytes, upper-case ASCII letters among them made lower.
#[inline]
const fn lower_eight(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = bytes & (0x7F * EACH);
    // The top bit of each byte says: from `A` on; beyond `Z`; below 0x80.
    let from_a = low + (0x80 - b'A' as u64) * EACH;
    let beyond_z = low + (0x7F - b'Z' as u64) * EACH;
    let upper = (from_a ^ beyond_z) & !bytes & (0x80 * EACH);
    bytes | upper >> 2
}

/// The order that constant sets are sorted in. A set of an ignoring operator is folded already; its order is that
/// of its bytes, which in UTF-8 is that of its characters.
pub(super) fn order(left: &[u8], right: &[u8], ignore_case: bool) -> Ordering {
    if !ignore_case {
        return left.cmp(right);
    }
    let (left, right) = common(left, right);
    let next = |bytes| first(bytes).map(|(code, _)| fold_code(code));
    next(left).cmp(&next(right))
}

/// A character of a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `*`: any run of characters, none and `/` included.
    Run,
    /// `?`: one Unicode scalar value.
    One,
    /// Itself.
    Literal(u32),
}

/// The first token of a pattern. A backslash makes `*`, `?` and itself literal and is itself before anything else.
#[inline]
fn token(pattern: &[u8]) -> Option<(Token, &[u8])> {
    match pattern {
        [b'*', rest @ ..] => Some((Token::Run, rest)),
        [b'?', rest @ ..] => Some((Token::One, rest)),
        [b'\\', escaped @ (b'*' | b'?' | b'\\'), rest @ ..] => {
            Some((Token::Literal(u32::from(*escaped)), rest))
        }
        _ => first(pattern).map(|(code, rest)| (Token::Literal(code), rest)),
    }
}

/// Whether a pattern covers a text, anchored at both ends (semantics, sections 3.3 and 3.4).
///
/// When a run is met, everything behind it is tried from each later place in turn; only the last run has to be
/// remembered, for what an earlier one could still give, the later one can as well. No recursion; the budget bounds
/// the product of the two lengths.
pub(super) fn like(
    text: &[u8],
    pattern: &[u8],
    ignore_case: bool,
    budget: &mut Budget,
) -> Result<bool, EvalError> {
    let (mut text, mut pattern) = (text, pattern);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        budget.moves(1)?;
        let stepped = match (token(pattern), first(text)) {
            (Some((Token::Run, rest)), _) => {
                if rest.is_empty() {
                    return Ok(true);
                }
                retry = Some((text, rest));
                Some((text, rest))
            }
            (Some((Token::One, rest)), Some((_, behind))) => Some((behind, rest)),
            (Some((Token::Literal(wanted), rest)), Some((found, behind)))
                if wanted == found || ignore_case && fold_code(wanted) == fold_code(found) =>
            {
                Some((behind, rest))
            }
            (None, None) => return Ok(true),
            _ => None,
        };
        if let Some(next) = stepped {
            (text, pattern) = next;
            continue;
        }
        let Some((from, rest)) = retry else {
            return Ok(false);
        };
        let Some((_, behind)) = first(from) else {
            return Ok(false);
        };
        retry = Some((behind, rest));
        (text, pattern) = (behind, rest);
    }
}

/// A pattern that is really a simpler test.
pub(super) enum Simple {
    /// No wildcard.
    Equal(String),
    /// One run at the end.
    StartsWith(String),
}

/// Finds the simpler test that a pattern amounts to.
pub(super) fn simplify(pattern: &str) -> Option<Simple> {
    let mut rest = pattern.as_bytes();
    let mut literal = String::new();
    while let Some((token, behind)) = token(rest) {
        match token {
            Token::Literal(code) => literal.push(char::from_u32(code)?),
            Token::Run if behind.iter().all(|&byte| byte == b'*') => {
                return Some(Simple::StartsWith(literal));
            }
            Token::Run | Token::One => return None,
        }
        rest = behind;
    }
    Some(Simple::Equal(literal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, pattern: &str) -> bool {
        like(text.as_bytes(), pattern.as_bytes(), false, &mut Budget::default()).unwrap()
    }

    #[test]
    fn like_is_anchored_and_runs_cross_slashes() {
        for (text, pattern, expected) in [
            ("abcd", "a*c?", true),
            ("abcd", "a*c", false),
            ("logs/2024/01/x.txt", "logs/*.txt", true),
            ("axb", r"a\*b", false),
            ("a*b", r"a\*b", true),
            (r"a\b", r"a\b", true),
            (r"a\b", r"a\\b", true),
            (r"a\", r"a\", true),
            ("", "", true),
            ("", "*", true),
            ("", "?", false),
            ("a", "", false),
            ("aXbXc", "*X*X*", true),
            ("aXbc", "*X*X*", false),
            ("mississippi", "m*iss*ip?i", true),
            ("é", "?", true),
            ("𝄞", "?", true),
            ("e\u{301}", "?", false),
            ("a**", r"a\**", true),
            ("ab", "a**b", true),
        ] {
            assert_eq!(matches(text, pattern), expected, "{text} like {pattern}");
        }
    }

    #[test]
    fn like_stops_at_the_budget() {
        let text = "a".repeat(20_000);
        let pattern = format!("*{}b", "a".repeat(4_000));
        assert_eq!(
            like(text.as_bytes(), pattern.as_bytes(), false, &mut Budget::default()),
            Err(EvalError::BudgetExceeded)
        );
    }

    #[test]
    fn upper_is_one_to_one_and_settles_at_once() {
        for (from, to) in [
            ('ß', 'ß'),
            ('ŉ', 'ŉ'),
            ('ﬁ', 'ﬁ'),
            ('ı', 'I'),
            ('ſ', 'S'),
            ('µ', 'Μ'),
            ('ǆ', 'Ǆ'),
            ('ǅ', 'Ǆ'),
            ('ᾀ', 'ᾈ'),
            ('ᾈ', 'ᾈ'),
            ('ᾳ', 'ᾼ'),
            ('ῃ', 'ῌ'),
            ('ῳ', 'ῼ'),
            ('ς', 'Σ'),
            ('é', 'É'),
        ] {
            assert_eq!(upper(from), to, "{from}");
        }
        for character in '\0'..=char::MAX {
            assert_eq!(upper(upper(character)), upper(character), "{character}");
        }
    }

    #[test]
    fn ignoring_case() {
        let mut budget = Budget::default();
        let mut same = |l: &str, r: &str| equal(l.as_bytes(), r.as_bytes(), true, &mut budget).unwrap();
        assert!(same("Straße", "STRAßE"));
        assert!(!same("Straße", "STRASSE"));
        assert!(same("ΣΊΣΥΦΟΣ", "σίσυφος"));
        assert!(same("ſ", "s"), "of different lengths in UTF-8");
        assert!(!same("a", "ab"));
        assert!(!same("a[", "a{"));
        let mut budget = Budget::default();
        let mut begins =
            |l: &str, r: &str| starts_with(l.as_bytes(), r.as_bytes(), true, &mut budget).unwrap();
        assert!(begins("ÉCOLE", "éc"));
        assert!(begins("a", ""));
        assert!(!begins("a", "ab"));
    }

    #[test]
    fn names_are_compared_as_ascii() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                // In a chunk and in the tail.
                for length in [1, 8, 11] {
                    let (given, lower) = (vec![first; length], vec![second.to_ascii_lowercase(); length]);
                    assert_eq!(
                        is_name(&given, &lower),
                        given.eq_ignore_ascii_case(&lower),
                        "{first} {second}"
                    );
                }
            }
        }
        assert!(!is_name(b"ab", b"a"));
    }

    #[test]
    fn order_agrees_with_folding() {
        let words = ["", "a", "B", "b", "é", "É", "ſ", "s", "S", "z", "ß", "𐐨", "𐐀", "\u{FFFF}"];
        for l in words {
            for r in words {
                assert_eq!(order(l.as_bytes(), r.as_bytes(), true), fold(l).cmp(&fold(r)), "{l} {r}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        for bytes in [&[0xFF_u8][..], &[0xC3], &[0xE2, 0x82], &[0xF0, 0x41, 0x41, 0x41], &[0x80]] {
            let mut budget = Budget::default();
            assert!(!equal(bytes, b"x", true, &mut budget).unwrap());
            assert!(like(bytes, b"*", true, &mut budget).unwrap());
            assert!(!like(b"x", bytes, true, &mut budget).unwrap());
        }
    }
}
