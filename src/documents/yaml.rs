//! YAML to the value tree: the JSON-like part of it, several documents a file, comments. Anchors, aliases, merge
//! keys and tags of one's own are refused, so a small file cannot mean a large one.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::tree::{Builder, Found, Syntax, Tree};

/// Reads every document of the text; an empty one is left out.
pub(super) fn parse(text: &str) -> Result<Tree, Syntax> {
    let mut builder = Builder::new();
    let mut places = Places::new(text);
    let mut parser = Parser::new_from_str(text);
    // Of every open mapping: whether a key comes next. Sequences never want keys.
    let mut key_next: Vec<bool> = Vec::new();
    // Where the last value ended: a block collection has no closing mark of its own.
    let mut last_end = 0_usize;
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let start = places.byte(error.marker());
            Syntax::new(start, start.saturating_add(1), lower(error.info()))
        })?;
        let start = places.byte(&span.start);
        let end = places.byte(&span.end).max(start);
        let is_key = key_next.last().copied().unwrap_or(false);
        match event {
            Event::Alias(_) => return Err(refused(start, end, "an alias (`*name`)")),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return Err(refused(start, end, "an anchor (`&name`)"));
            }
            Event::SequenceStart(_, ref tag) | Event::MappingStart(_, ref tag) => {
                if is_key {
                    return Err(Syntax::new(start, end, "a property name that is no plain text"));
                }
                if let Some(tag) = tag {
                    core_tag(tag, &["seq", "map"], start, end)?;
                }
                if matches!(event, Event::MappingStart(..)) {
                    builder.open_object(start)?;
                    key_next.push(true);
                } else {
                    builder.open_array(start)?;
                    key_next.push(false);
                }
                last_end = end;
                continue;
            }
            Event::Scalar(value, style, _, tag) => {
                let raw = text.get(start..end).unwrap_or_default();
                let plain = style == ScalarStyle::Plain;
                let as_text = match tag {
                    None => is_key || !plain,
                    Some(tag) => core_tag(&tag, &["str"], start, end)?,
                };
                if is_key && plain && value == "<<" {
                    return Err(refused(start, end, "a merge key (`<<`)"));
                }
                if builder.depth() == 0 && value.is_empty() && plain {
                    // `---` with nothing behind it, or comments only.
                    continue;
                }
                let kind = if as_text { Plain::Text } else { resolve(&value) };
                match kind {
                    Plain::Null => builder.null(start, end)?,
                    Plain::Boolean(value) => builder.boolean(start, end, value)?,
                    Plain::Number => builder.number(start, end)?,
                    Plain::Text if raw == value => builder.string(start, end, Found::Plain)?,
                    Plain::Text if unquoted(raw) == Some(&*value) => {
                        builder.string(start, end, Found::Quoted)?;
                    }
                    Plain::Text => {
                        builder.string(start, end, Found::Owned(value.into_owned().into_boxed_str()))?;
                    }
                }
                last_end = last_end.max(end);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                // In flow style the closing bracket has a place of its own.
                if end > start {
                    last_end = last_end.max(end);
                }
                builder.close(text, last_end)?;
                key_next.pop();
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => continue,
        }
        // A value is complete: in a mapping, keys and values take turns.
        if let Some(next) = key_next.last_mut()
            && builder.in_object() == Some(true)
        {
            *next = !*next;
        }
    }
    Ok(builder.finish())
}

/// What a plain scalar means in the core schema.
#[derive(Debug, PartialEq, Eq)]
enum Plain {
    Null,
    Boolean(bool),
    Number,
    Text,
}

fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Plain::Null,
        "true" | "True" | "TRUE" => Plain::Boolean(true),
        "false" | "False" | "FALSE" => Plain::Boolean(false),
        _ if is_number(text) => Plain::Number,
        _ => Plain::Text,
    }
}

/// `[-+]?[0-9]+`, `0o[0-7]+`, `0x[0-9a-fA-F]+`, the decimal fractions, and `.inf`, `.nan`.
fn is_number(text: &str) -> bool {
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    // Beyond the words above, what begins like a number and is a float to Rust is one to YAML.
    unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && unsigned.parse::<f64>().is_ok()
}

/// What stands between the quotes of a scalar.
fn unquoted(raw: &str) -> Option<&str> {
    let quote = raw.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    raw.strip_prefix(quote)?.strip_suffix(quote)
}

/// Whether a tag makes its value a text; tags of the core schema on the right kind of value say nothing new.
fn core_tag(tag: &Tag, fitting: &[&str], start: usize, end: usize) -> Result<bool, Syntax> {
    if tag.handle.is_empty() && tag.suffix == "!" {
        return Ok(true);
    }
    if tag.is_yaml_core_schema() && fitting.contains(&tag.suffix.as_str()) {
        return Ok(tag.suffix == "str");
    }
    Err(refused(start, end, &format!("the tag `{tag}`")))
}

fn refused(start: usize, end: usize, what: &str) -> Syntax {
    Syntax {
        code: "YamlFeatureNotSupported",
        help: Some("write the value itself"),
        ..Syntax::new(start, end, format!("{what} is not supported in policy documents"))
    }
}

fn lower(message: &str) -> String {
    let mut characters = message.chars();
    let first = characters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(characters).collect::<String>().replace('\'', "`")
}

/// Turns the parser's lines and columns, which count characters, into byte offsets. (Its index counts
/// characters in some places and bytes in others.)
struct Places<'t> {
    text: &'t str,
    /// Where each line begins.
    lines: Vec<usize>,
    /// The place that was asked for last: events come in the order of the text.
    last: (usize, usize, usize),
}

impl<'t> Places<'t> {
    fn new(text: &'t str) -> Self {
        let mut lines = vec![0];
        let mut bytes = text.bytes().enumerate().peekable();
        while let Some((at, byte)) = bytes.next() {
            let breaks =
                byte == b'\n' || byte == b'\r' && bytes.peek().is_none_or(|(_, next)| *next != b'\n');
            if breaks {
                lines.push(at.saturating_add(1));
            }
        }
        Self { text, lines, last: (0, 0, 0) }
    }

    fn byte(&mut self, marker: &Marker) -> usize {
        let (line, column) = (marker.line().saturating_sub(1), marker.col());
        let begin = self.lines.get(line).copied().unwrap_or(self.text.len());
        let (from_column, from) = match self.last {
            (last_line, last_column, at) if last_line == line && last_column <= column => (last_column, at),
            _ => (0, begin),
        };
        let rest = self.text.get(from..).unwrap_or_default();
        let skip = column.saturating_sub(from_column);
        let at = rest.char_indices().nth(skip).map_or(self.text.len(), |(at, _)| from.saturating_add(at));
        self.last = (line, column, at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::{File, Kind, Value};
    use super::*;

    fn print(value: Value<'_>) -> String {
        match value.kind() {
            Kind::Array => format!("[{}]", value.elements().map(print).collect::<Vec<_>>().join(",")),
            Kind::Object => {
                let entries = value.entries().map(|entry| format!("{}:{}", entry.name, print(entry.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }
            Kind::String => format!("{:?}", value.as_str().unwrap()),
            _ => value.shown().unwrap().to_owned(),
        }
    }

    fn printed(text: &str) -> String {
        let tree = parse(text).unwrap_or_else(|error| panic!("{text}: {}", error.message));
        let file = File { index: 0, text, tree: &tree };
        file.values().map(print).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn values_of_every_kind() {
        for (text, expected) in [
            ("", ""),
            ("# only a comment\n---\n# another\n", ""),
            ("a: 1\nb: [x, 'y z', \"t\\n\"]\n", r#"{a:1,b:["x","y z","t\n"]}"#),
            ("- a: b\n  c: d\n- e\n", r#"[{a:"b",c:"d"},"e"]"#),
            ("---\na: b\n---\n- c\n...\n", r#"{a:"b"} ["c"]"#),
            ("{a: {b: []}, c: {}}", "{a:{b:[]},c:{}}"),
            ("a: ~\nb:\nc: Null\nd: TRUE\ne: false\nf: yes\n", r#"{a:~,b:,c:Null,d:TRUE,e:false,f:"yes"}"#),
            (
                "- 0x1F\n- 0o17\n- -1.5e3\n- .inf\n- 2.0\n- 1.2.3\n- e5\n",
                r#"[0x1F,0o17,-1.5e3,.inf,2.0,"1.2.3","e5"]"#,
            ),
            ("id: 12345678-0000-0000-0000-000000000000", r#"{id:"12345678-0000-0000-0000-000000000000"}"#),
            ("a: |\n  x\n  y\nb: >\n  x\n  y\n", r#"{a:"x\ny\n",b:"x y\n"}"#),
            ("a: !!str 12\nb: ! 13\nc: !!map {}\n", r#"{a:"12",b:"13",c:{}}"#),
            ("'*': 1\n1: 2\nnull: 3\n", "{*:1,1:2,null:3}"),
            (
                "actions:\n- '*/read'\n- Microsoft.Storage/*\n",
                r#"{actions:["*/read","Microsoft.Storage/*"]}"#,
            ),
        ] {
            assert_eq!(printed(text), expected, "{text}");
        }
    }

    #[test]
    fn places_are_byte_ranges() {
        for newline in ["\n", "\r\n"] {
            let text =
                ["# ä comment 😀", "ä: 'x'", "list:", "  - {ö: b, c: 12}", "  - last", ""].join(newline);
            let tree = parse(&text).unwrap();
            let file = File { index: 0, text: &text, tree: &tree };
            let object = file.values().next().unwrap();
            let spanned = |value: Value<'_>| {
                let at = value.at();
                text.get(at.start as usize..at.end as usize).unwrap().to_owned()
            };
            assert_eq!(spanned(object.get("ä").unwrap()), "'x'");
            let list = object.get("list").unwrap();
            let first = list.elements().next().unwrap();
            assert_eq!(spanned(first), "{ö: b, c: 12}");
            assert_eq!(spanned(first.get("c").unwrap()), "12");
            assert!(spanned(list).ends_with("- last"), "{:?}", spanned(list));
            assert_eq!(file.path(&[object.node()], first.get("c").unwrap().at()).unwrap(), "list[0].c");
        }
    }

    #[test]
    fn refused() {
        for (text, code, start) in [
            ("a: &x 1\nb: 2\n", "YamlFeatureNotSupported", 3),
            ("a: &x [1]\nb: *x\n", "YamlFeatureNotSupported", 3),
            ("<<: {a: b}\n", "YamlFeatureNotSupported", 0),
            ("a: !mine b\n", "YamlFeatureNotSupported", 3),
            ("a: !!binary aGk=\n", "YamlFeatureNotSupported", 3),
            ("a: 1\na: 2\n", "DuplicateProperty", 5),
            ("[a, b]: 1\n", "SyntaxError", 0),
            ("a: [1, 2\n", "SyntaxError", 9),
            ("a: b: c\n", "SyntaxError", 4),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.code, error.start), (code, start), "{text}: {}", error.message);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let depths =
            ["- ".repeat(100_000), "[".repeat(100_000), "{a: ".repeat(100_000), "? ".repeat(100_000)];
        for text in depths {
            assert!(parse(&text).is_err());
        }
        assert!(parse(&"- ".repeat(127)).is_ok());
    }

    #[test]
    fn no_cut_and_no_odd_character_panics() {
        let text = "# c\nä: [b, 'c\\n', \"d\\u00e4\"]\ne: |\n  f\n---\n- g: {h: ~}\n";
        for at in 0..text.len() {
            if let Some(cut) = text.get(..at) {
                let _ = parse(cut);
                for odd in [
                    "\u{0}", "\\", "\"", "é", "{", "]", "- ", "? ", "!", "&a ", "*a", "\t", "%", "\r",
                    "\u{feff}",
                ] {
                    let _ = parse(&format!("{cut}{odd}{}", text.get(at..).unwrap()));
                    let _ = parse(&format!("{cut}{odd}"));
                }
            }
        }
    }
}
