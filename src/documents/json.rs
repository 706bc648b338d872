//! JSON to the value tree. The scanner is jsonc-parser's with all that is not JSON turned off; the grammar over
//! its tokens is here, because a policy file may hold several values and its nodes go to a flat tape.

use std::borrow::Cow;

use jsonc_parser::errors::ParseError;
use jsonc_parser::tokens::Token;
use jsonc_parser::{Scanner, ScannerOptions};

use super::tree::{Builder, Found, Syntax, Tree};

const OPTIONS: ScannerOptions = ScannerOptions {
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Behind a colon or a comma of an array.
    Value,
    /// Behind `[`.
    ValueOrClose,
    /// Behind a comma of an object.
    Key,
    /// Behind `{`.
    KeyOrClose,
    /// Behind a value inside a container.
    CommaOrClose,
    /// At the top: another value or the end.
    Top,
}

/// One value or several, one after another.
pub(super) fn parse(text: &str) -> Result<Tree, Syntax> {
    let mut builder = Builder::new();
    values(text, 0, text, &mut builder)?;
    let tree = builder.finish();
    if tree.roots().is_empty() {
        return Err(Syntax {
            help: Some("an export that failed leaves an empty file behind; `[]` says that there is nothing"),
            ..Syntax::new(0, 0, "the file is empty")
        });
    }
    Ok(tree)
}

/// One value a line; empty lines are fine. Every bad line is told, and the good ones are kept.
pub(super) fn parse_lines(text: &str) -> (Tree, Vec<Syntax>) {
    let mut builder = Builder::new();
    let mut problems = Vec::new();
    let mut offset = 0_usize;
    for line in text.split_inclusive('\n') {
        let before = builder.checkpoint();
        let read = values(line, offset, text, &mut builder).and_then(|()| {
            if builder.roots_since(&before) <= 1 {
                return Ok(());
            }
            let end = offset.saturating_add(line.trim_end().len());
            Err(Syntax::new(offset, end, "more than one value in this line"))
        });
        if let Err(problem) = read {
            builder.back_to(before);
            problems.push(problem);
        }
        offset = offset.saturating_add(line.len());
    }
    (builder.finish(), problems)
}

/// Reads `part`, which begins at `offset` of `text`.
fn values(part: &str, offset: usize, text: &str, builder: &mut Builder) -> Result<(), Syntax> {
    let mut scanner = Scanner::new(part, &OPTIONS);
    let mut wanted = Wanted::Top;
    loop {
        let token = scanner.scan().map_err(|error| scan_problem(&error, offset))?;
        let (start, end) =
            (scanner.token_start().saturating_add(offset), scanner.token_end().saturating_add(offset));
        let unexpected = |found: &str| Err(Syntax::new(start, end, format!("{found}, {}", wanted.words())));
        let Some(token) = token else {
            if wanted == Wanted::Top {
                return Ok(());
            }
            return Err(Syntax {
                help: Some("the file seems to be cut off"),
                ..Syntax::new(start, end, format!("the text ends, {}", wanted.words()))
            });
        };
        match token {
            Token::String(string) if matches!(wanted, Wanted::Key | Wanted::KeyOrClose) => {
                builder.string(start, end, found(part, &scanner, offset, string)?)?;
                let colon = scanner.scan().map_err(|error| scan_problem(&error, offset))?;
                if colon != Some(Token::Colon) {
                    let (start, end) = (scanner.token_start(), scanner.token_end());
                    return Err(Syntax::new(
                        start.saturating_add(offset),
                        end.saturating_add(offset),
                        "wanted `:` behind the property name",
                    ));
                }
                wanted = Wanted::Value;
                continue;
            }
            Token::Comma if wanted == Wanted::CommaOrClose => {
                wanted = match builder.in_object() {
                    Some(true) => Wanted::Key,
                    _ => Wanted::Value,
                };
                continue;
            }
            Token::CloseBrace if wanted.closes() && builder.in_object() == Some(true) => {
                builder.close(text, end)?;
            }
            Token::CloseBracket if wanted.closes() && builder.in_object() == Some(false) => {
                builder.close(text, end)?;
            }
            Token::CommentLine(_) | Token::CommentBlock(_) => {
                return Err(Syntax {
                    help: Some("JSON has no comments; YAML does"),
                    ..Syntax::new(start, end, "a comment")
                });
            }
            Token::Colon => return unexpected("found `:`"),
            Token::Comma => return unexpected("found `,`"),
            Token::CloseBrace => return unexpected("found `}`"),
            Token::CloseBracket => return unexpected("found `]`"),
            Token::Word(word) => return unexpected(&format!("found the bare word `{word}`")),
            _ if !wanted.takes_value() => return unexpected("found a value"),
            Token::OpenBrace => {
                builder.open_object(start)?;
                wanted = Wanted::KeyOrClose;
                continue;
            }
            Token::OpenBracket => {
                builder.open_array(start)?;
                wanted = Wanted::ValueOrClose;
                continue;
            }
            Token::String(string) => {
                builder.string(start, end, found(part, &scanner, offset, string)?)?;
            }
            Token::Boolean(value) => builder.boolean(start, end, value)?,
            Token::Number(_) => builder.number(start, end)?,
            Token::Null => builder.null(start, end)?,
        }
        wanted = if builder.depth() == 0 { Wanted::Top } else { Wanted::CommaOrClose };
    }
}

/// The scanner lets control characters stand in strings; JSON does not.
fn found(part: &str, scanner: &Scanner<'_>, offset: usize, string: Cow<'_, str>) -> Result<Found, Syntax> {
    let raw = part.get(scanner.token_start()..scanner.token_end()).unwrap_or_default();
    if let Some(at) = raw.bytes().position(|byte| byte < b' ') {
        let start = scanner.token_start().saturating_add(offset).saturating_add(at);
        return Err(Syntax {
            help: Some("write it as an escape such as `\\n`, or close the string"),
            ..Syntax::new(start, start.saturating_add(1), "a line break or control character inside a string")
        });
    }
    Ok(match string {
        Cow::Borrowed(_) => Found::Quoted,
        Cow::Owned(string) => Found::Owned(string.into_boxed_str()),
    })
}

fn scan_problem(error: &ParseError, offset: usize) -> Syntax {
    let range = error.range();
    let message = error.kind().to_string();
    let mut characters = message.chars();
    let lower = characters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(characters);
    Syntax::new(
        range.start.saturating_add(offset),
        range.end.saturating_add(offset),
        lower.collect::<String>().replace('\'', "`"),
    )
}

impl Wanted {
    const fn takes_value(self) -> bool {
        matches!(self, Self::Value | Self::ValueOrClose | Self::Top)
    }

    const fn closes(self) -> bool {
        matches!(self, Self::ValueOrClose | Self::KeyOrClose | Self::CommaOrClose)
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Value => "wanted a value",
            Self::ValueOrClose => "wanted a value or `]`",
            Self::Key => "wanted a property name in double quotes",
            Self::KeyOrClose => "wanted a property name in double quotes or `}`",
            Self::CommaOrClose => "wanted `,` or the closing bracket",
            Self::Top => "wanted an object or a list",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::{File, Kind, Value};
    use super::*;

    /// Prints a value in a form of its own, to compare with.
    fn print(value: Value<'_>) -> String {
        match value.kind() {
            Kind::Array => format!("[{}]", value.elements().map(print).collect::<Vec<_>>().join(",")),
            Kind::Object => {
                let entries = value.entries().map(|entry| format!("{}:{}", entry.name, print(entry.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
            _ => value.shown().unwrap().to_owned(),
        }
    }

    fn printed(text: &str) -> Vec<String> {
        let tree = parse(text).unwrap();
        let file = File { index: 0, text, tree: &tree };
        file.values().map(print).collect()
    }

    #[test]
    fn values_of_every_kind() {
        for (text, expected) in [
            ("{}", vec!["{}"]),
            (" [ ] ", vec!["[]"]),
            (
                r#"{"a": [1, -2.5e+3, true, false, null], "b": {"c": "d"}}"#,
                vec!["{a:[1,-2.5e+3,true,false,null],b:{c:d}}"],
            ),
            (r#""\u0061\"\\\n\ud83d\ude00/""#, vec!["a\"\\\n😀/"]),
            ("{} [] {\"a\":\r\n1}\n", vec!["{}", "[]", "{a:1}"]),
            ("{}{}", vec!["{}", "{}"]),
            (r#"{"ä😀": "ö"}"#, vec!["{ä😀:ö}"]),
        ] {
            assert_eq!(printed(text), expected, "{text}");
        }
    }

    #[test]
    fn places_are_byte_ranges() {
        let text = "{\"ä\": [\"b\\n\", 12]}";
        let tree = parse(text).unwrap();
        let file = File { index: 7, text, tree: &tree };
        let object = file.values().next().unwrap();
        assert_eq!((object.at().file, object.at().start, object.at().end), (7, 0, 19));
        let list = object.get("ä").unwrap();
        let spans: Vec<_> = list.elements().map(|value| (value.at().start, value.at().end)).collect();
        assert_eq!(spans, [(8, 13), (15, 17)]);
        let number = list.elements().nth(1).unwrap();
        assert_eq!(file.path(&[object.node()], number.at()).unwrap(), "ä[1]");
    }

    #[test]
    fn what_is_not_json() {
        for (text, start) in [
            ("", 0),
            ("  \n", 0),
            ("{", 1),
            ("[1, 2", 5),
            ("[1,]", 3),
            ("{\"a\": 1,}", 8),
            ("{\"a\" 1}", 5),
            ("{\"a\": }", 6),
            ("{'a': 1}", 1),
            ("{a: 1}", 1),
            ("[1 2]", 3),
            ("{\"a\": 1 \"b\": 2}", 8),
            ("[0x1F]", 1),
            ("[+1]", 1),
            ("[.5]", 1),
            ("[01]", 2),
            ("[NaN]", 1),
            ("// hello\n{}", 0),
            ("{} /* x */", 3),
            ("[\"a\nb\"]", 3),
            ("[\"a", 1),
            ("[\"\\x41\"]", 2),
            ("[\"\\ud800\"]", 2),
            ("[1}", 2),
            ("{]", 1),
            ("]", 0),
            ("{} , {}", 3),
            ("{\"a\":1, \"a\":2}", 8),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.start, start, "{text}: {}", error.message);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(128)).is_ok());
        assert_eq!(parse(&nested(129)).unwrap_err().code, "NestingTooDeep");
        assert_eq!(parse(&"[".repeat(1_000_000)).unwrap_err().code, "NestingTooDeep");
        assert_eq!(parse(&"{\"a\":".repeat(1_000_000)).unwrap_err().code, "NestingTooDeep");
    }

    #[test]
    fn twins_of_large_objects_are_found_too() {
        let mut names: Vec<_> = (0..100).map(|n| format!("\"k{n}\":1")).collect();
        assert!(parse(&format!("{{{}}}", names.join(","))).is_ok());
        names.push("\"k50\":1".into());
        assert_eq!(parse(&format!("{{{}}}", names.join(","))).unwrap_err().code, "DuplicateProperty");
    }

    #[test]
    fn one_value_a_line() {
        let text = "{\"a\":1}\r\n\n{\"b\":\n[3]\n{} {}\n";
        let (tree, problems) = parse_lines(text);
        let file = File { index: 0, text, tree: &tree };
        assert_eq!(file.values().map(print).collect::<Vec<_>>(), ["{a:1}", "[3]"]);
        assert_eq!(problems.iter().map(|problem| problem.start).collect::<Vec<_>>(), [16, 20]);
    }

    #[test]
    fn no_cut_and_no_flip_of_a_byte_panics() {
        let text = "{\"ä\": [\"b\\n\\u00e4\", -1.5e3, true], \"c\": {\"d\": null}}";
        for at in 0..text.len() {
            if let Some(cut) = text.get(..at) {
                let _ = parse(cut);
                for odd in ["\u{0}", "\\", "\"", "é", "{", "]", "-", "\\u", "/", "'"] {
                    let _ = parse(&format!("{cut}{odd}{}", text.get(at..).unwrap()));
                    let _ = parse(&format!("{cut}{odd}"));
                }
            }
        }
    }
}
