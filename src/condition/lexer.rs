//! Text to tokens (semantics, sections 3.1 to 3.3).
//!
//! What no condition may hold (hidden characters, an unclosed quote) is reported here, once, and left out or mended,
//! so that the parser can go on and find what else is wrong.

use std::ops::Range;

use super::ast::{Attribute, EXACT_KEY_SUFFIX, Form, KEYS_SUFFIX, Source};
use super::operator::nearest;
use super::parser::{Code, Diagnostic};
use super::scalar;
use crate::model::Guid;

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Open,
    Close,
    OpenBrace,
    CloseBrace,
    Comma,
    Colon,
    And,
    Or,
    Not,
    /// `None` after an error in it that has been reported.
    Attribute(Option<Attribute>),
    Text(String),
    Integer(i64),
    /// Digits that are no 64-bit integer.
    HugeInteger,
    /// A number with a fraction or an exponent.
    Fraction,
    Boolean(bool),
    Guid(Guid),
    /// Letters, digits, `_`, `-`, `.` and `/`: an operator, a function, or a mistake.
    Word,
    /// Characters that no condition has outside quotes.
    Symbol,
    End,
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    swallowed: Option<usize>,
    diagnostics: &'a mut Vec<Diagnostic>,
}

/// All tokens, a [`TokenKind::End`] last; and from where on an unclosed string or bracket swallowed the text.
pub(super) fn tokens(text: &str, diagnostics: &mut Vec<Diagnostic>) -> (Vec<Token>, Option<usize>) {
    let mut lexer = Lexer { text, at: 0, swallowed: None, diagnostics };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.next();
        let end = token.kind == TokenKind::End;
        tokens.push(token);
        if end {
            return (tokens, lexer.swallowed);
        }
    }
}

const fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

const fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.' | '/')
}

/// Characters that show as nothing; word processors leave them behind.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}' | '\u{FEFF}'
        )
}

fn hidden_name(character: char) -> String {
    let name = match character {
        '\u{A0}' => "no-break space ",
        '\u{200B}' => "zero-width space ",
        '\u{FEFF}' => "byte order mark ",
        '\u{AD}' => "soft hyphen ",
        '\t' => "tab ",
        '\n' => "line feed ",
        '\r' => "carriage return ",
        _ if character.is_control() => "control character ",
        _ if character.is_whitespace() => "Unicode space ",
        _ => "invisible character ",
    };
    format!("{name}U+{:04X}", u32::from(character))
}

const PASTED: &str = "text pasted from a word processor often holds such characters; type it anew";

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Moves over characters as long as they fit.
    fn skip_while(&mut self, fits: impl Fn(char) -> bool) {
        let rest = self.rest();
        let length = rest.find(|character| !fits(character)).unwrap_or(rest.len());
        self.at += length;
    }

    fn report(
        &mut self,
        code: Code,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic::error(code, span, message).help(help));
    }

    fn next(&mut self) -> Token {
        loop {
            self.skip_while(is_blank);
            let start = self.at;
            let Some(character) = self.peek() else {
                return Token { kind: TokenKind::End, span: start..start };
            };
            self.at += character.len_utf8();
            let kind = match character {
                '(' => TokenKind::Open,
                ')' => TokenKind::Close,
                '{' => TokenKind::OpenBrace,
                '}' => TokenKind::CloseBrace,
                ',' => TokenKind::Comma,
                ':' => TokenKind::Colon,
                '!' if self.peek() != Some('=') => TokenKind::Not,
                '&' if self.rest().starts_with('&') => {
                    self.at += 1;
                    TokenKind::And
                }
                '|' if self.rest().starts_with('|') => {
                    self.at += 1;
                    TokenKind::Or
                }
                '\'' => self.text(start),
                '@' => self.attribute(start),
                _ if is_word(character) => {
                    self.skip_while(is_word);
                    word(self.text.get(start..self.at).unwrap_or_default())
                }
                _ if is_hidden(character) || character.is_whitespace() => {
                    let message = format!("{} is not allowed here", hidden_name(character));
                    self.report(Code::Syntax, start..self.at, message, PASTED);
                    continue;
                }
                _ => {
                    self.skip_while(|next| {
                        !(is_blank(next)
                            || is_word(next)
                            || is_hidden(next)
                            || next.is_whitespace()
                            || matches!(next, '(' | ')' | '{' | '}' | ',' | ':' | '\'' | '@' | '&' | '|'))
                    });
                    TokenKind::Symbol
                }
            };
            return Token { kind, span: start..self.at };
        }
    }

    /// Behind the opening quote.
    fn text(&mut self, start: usize) -> TokenKind {
        let mut value = String::new();
        loop {
            let Some(character) = self.peek() else {
                self.swallowed = Some(start);
                self.report(
                    Code::Syntax,
                    start..self.at,
                    "string is not closed",
                    "add `'` at its end; a quote inside a string is doubled: `''`",
                );
                return TokenKind::Text(value);
            };
            let at = self.at;
            self.at += character.len_utf8();
            if character == '\'' {
                if !self.rest().starts_with('\'') {
                    return TokenKind::Text(value);
                }
                self.at += 1;
            } else if character.is_control() {
                let message = format!("{} is not allowed inside a string", hidden_name(character));
                self.report(Code::Syntax, at..self.at, message, PASTED);
            }
            value.push(character);
        }
    }

    /// Behind the `@`.
    fn attribute(&mut self, start: usize) -> TokenKind {
        self.skip_while(|character| character.is_ascii_alphanumeric() || character == '_');
        let source_span = start..self.at;
        let written = self.text.get(start + 1..self.at).unwrap_or_default();
        let source = Source::from_name(written);
        if source.is_none() {
            let message = if written.is_empty() {
                "an attribute source is missing behind `@`".to_owned()
            } else {
                format!("unknown attribute source `@{written}`")
            };
            let help = match nearest(written, Source::ALL.into_iter().map(Source::name)) {
                Some(meant) => format!("`@{meant}` may be meant"),
                None => "there are `@Request`, `@Resource`, `@Principal` and `@Environment`".to_owned(),
            };
            self.report(Code::UnknownAttributeSource, source_span.clone(), message, help);
        }
        if !self.rest().starts_with('[') {
            if source.is_some() {
                self.report(
                    Code::Syntax,
                    source_span,
                    "an attribute name in brackets is missing",
                    "write `@Source[name]` without a blank before `[`",
                );
            }
            return TokenKind::Attribute(None);
        }
        self.at += 1;
        let inside = self.at;
        self.skip_while(|character| character != ']' && character != '[');
        let end = self.at;
        if !self.rest().starts_with(']') {
            // Whatever comes behind was swallowed as part of the name: nothing said about it would be true.
            self.report(
                Code::Syntax,
                start..inside,
                "the bracket of this attribute is not closed",
                "add `]` behind the name",
            );
            self.skip_while(|character| character != ']');
            if self.at == self.text.len() {
                self.swallowed = Some(start);
            } else {
                self.at += 1;
            }
            return TokenKind::Attribute(None);
        }
        self.at += 1;
        let name = self.name(inside..end);
        TokenKind::Attribute(source.zip(name).map(|(source, (name, form))| Attribute {
            source,
            name,
            form,
            span: start..self.at,
        }))
    }

    /// What stands in the brackets: hidden characters refused, blanks at both ends trimmed, the suffix taken off.
    fn name(&mut self, span: Range<usize>) -> Option<(String, Form)> {
        let whole = self.text.get(span.clone()).unwrap_or_default();
        let trimmed = whole.trim_matches(is_blank);
        let start = span.start + (whole.len() - whole.trim_start_matches(is_blank).len());
        let span = start..start + trimmed.len();
        let hidden = trimmed
            .char_indices()
            .find(|&(_, character)| is_hidden(character) || character.is_whitespace() && character != ' ');
        if let Some((offset, character)) = hidden {
            let at = start + offset;
            let message = format!("{} is not allowed in an attribute name", hidden_name(character));
            self.report(Code::Syntax, at..at + character.len_utf8(), message, PASTED);
            return None;
        }
        let (name, form) = if let Some(name) = without_suffix(trimmed, EXACT_KEY_SUFFIX) {
            (name, Form::ExactKey)
        } else if let Some(name) = without_suffix(trimmed, KEYS_SUFFIX) {
            (name, Form::Keys)
        } else {
            (trimmed, Form::Plain)
        };
        let split = name.split_once(':');
        let (message, help) = if name.is_empty() {
            (
                "attribute has no name",
                "write for instance `@Resource[Microsoft.Storage/storageAccounts:name]`",
            )
        } else if name.contains(['<', '>']) || name.contains("&$") || name.contains("$&") {
            (
                "attribute is not valid: its suffix is malformed",
                "the suffixes are `<$key_case_sensitive$>` and `&$keys$&`; a shell may have taken the `$` out",
            )
        } else if form == Form::ExactKey && split.is_none() {
            ("attribute is not valid: the suffix needs a key", "write `…/tags:Key<$key_case_sensitive$>`")
        } else if split.is_some_and(|(path, key)| path.is_empty() || key.is_empty()) {
            ("attribute is not valid: nothing stands beside its colon", "write `namespace/type:name`")
        } else {
            return Some((name.to_owned(), form));
        };
        let span = if span.is_empty() { span.start.saturating_sub(1)..span.end + 1 } else { span };
        self.report(Code::InvalidAttribute, span, message, help);
        None
    }
}

fn without_suffix<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    let (name, tail) = name.split_at_checked(name.len().checked_sub(suffix.len())?)?;
    tail.eq_ignore_ascii_case(suffix).then_some(name)
}

/// A run of word characters. GUIDs come first: the one without dashes may be all digits.
fn word(text: &str) -> TokenKind {
    if let Some(guid) = scalar::guid_literal(text) {
        return TokenKind::Guid(Guid::from_u128(guid));
    }
    if let Some(boolean) = scalar::boolean(text) {
        return TokenKind::Boolean(boolean);
    }
    for (keyword, kind) in [("and", TokenKind::And), ("or", TokenKind::Or), ("not", TokenKind::Not)] {
        if text.eq_ignore_ascii_case(keyword) {
            return kind;
        }
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.starts_with(|first: char| first.is_ascii_digit()) {
        if let Some(integer) = scalar::integer(text) {
            return TokenKind::Integer(integer);
        }
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return TokenKind::HugeInteger;
        }
        if text.parse::<f64>().is_ok() {
            return TokenKind::Fraction;
        }
    }
    TokenKind::Word
}
