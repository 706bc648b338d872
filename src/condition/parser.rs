//! Tokens to a syntax tree, and everything that is wrong on the way (semantics, sections 3.1 and 3.7).
//!
//! The parser keeps its open parentheses in a list of its own, so no text makes it recurse. After a mistake it goes
//! on at the next `AND`, `OR` or parenthesis: several mistakes are told in one pass, and none is told twice.

use std::ops::Range;

use super::ast::{Comparison, Condition, Expression, ExpressionKind, Source};
use super::check::{self, RawLiteral, RawOperand, RawOperandKind, RawValue};
use super::lexer::{self, Token, TokenKind};
use super::operator::{Operator, Quantifier, REFUSED, nearest};
use crate::model::Severity;

/// A longer condition is refused (semantics, section 3.7): 8 KB of UTF-8.
pub const MAX_CONDITION_BYTES: usize = 8_192;

/// Deeper nesting of parentheses and `NOT` is refused (semantics, section 10, row 18).
pub const MAX_NESTING: usize = 256;

/// The only version of the language.
pub const CONDITION_VERSION: &str = "2.0";

/// The name of the setting that turns the operators of the extension on.
pub const EXTENSIONS_SETTING: &str = "condition_extensions";

/// More mistakes than this are not told.
const MAX_DIAGNOSTICS: usize = 32;

/// For whom a condition is read (semantics, section 9, row 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A person writes it: `AND` and `OR` mixed on one level are refused, and so is an empty text.
    Author,
    /// It is stored: such a mix is read with `AND` first and warned of; white space alone is no condition.
    Load,
}

/// Operators that are no part of Azure's language (semantics, section 3.4, last table).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Whether they are known. Off by default.
    pub enabled: bool,
}

/// What a text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The condition; `None` when there are errors, or no condition.
    pub condition: Option<Condition>,
    /// Errors and warnings in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// One thing that is wrong with a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// An error makes the condition invalid.
    pub severity: Severity,
    /// The category of semantics, section 3.7, for programs.
    pub code: &'static str,
    /// Lower case, no full stop, input in backticks.
    pub message: String,
    /// Where, in bytes; never empty but at the end of the text.
    pub span: Range<usize>,
    /// What was expected, or what to do.
    pub help: Option<String>,
}

/// The categories of semantics, section 3.7, and the four it has no name for: an invalid attribute, an invalid
/// value, too deep nesting, an empty condition is a syntax error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Syntax,
    UnbalancedParentheses,
    AmbiguousPrecedence,
    UnknownOperator,
    UnknownAttributeSource,
    OperatorNotAllowedInCrossProduct,
    ListWithScalarOperator,
    EmptyList,
    ExpectedSingleString,
    ExistsNeedsAttribute,
    StringMustBeQuoted,
    NumberLiteralRequired,
    IntegersOnly,
    UnsupportedConditionVersion,
    ConditionTooLong,
    InvalidAttribute,
    InvalidAttributeValue,
    NestingTooDeep,
}

/// Reads a condition.
pub fn parse(text: &str, mode: Mode, extensions: Extensions) -> Parsed {
    if mode == Mode::Load && text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
        return Parsed { condition: None, diagnostics: Vec::new() };
    }
    if text.len() > MAX_CONDITION_BYTES {
        let message =
            format!("condition is {} bytes long; at most {MAX_CONDITION_BYTES} are allowed", text.len());
        let at = text.floor_char_boundary(MAX_CONDITION_BYTES)..text.len();
        let diagnostics = vec![Diagnostic::error(Code::ConditionTooLong, at, message)];
        return Parsed { condition: None, diagnostics };
    }
    let mut diagnostics = Vec::new();
    let (tokens, swallowed) = lexer::tokens(text, &mut diagnostics);
    let mut parser = Parser {
        text,
        mode,
        extensions,
        tokens: &tokens,
        at: 0,
        root: Level::new(0),
        open: Vec::new(),
        diagnostics: Vec::new(),
    };
    let root = parser.condition();
    // What an unclosed string or bracket swallowed is not missing.
    diagnostics.extend(parser.diagnostics.into_iter().filter(|diagnostic| {
        swallowed.is_none_or(|from| {
            diagnostic.span.start < from && diagnostic.code != Code::UnbalancedParentheses.name()
        })
    }));
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    let failed = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    diagnostics.truncate(MAX_DIAGNOSTICS);
    Parsed { condition: root.filter(|_| !failed).map(|root| Condition { root }), diagnostics }
}

/// Looks at a condition's version: none and `2.0` are good (semantics, section 3.7; section 9, row 6).
///
/// # Errors
///
/// Any other version. The diagnostic's span is over the version's own text.
pub fn check_version(version: Option<&str>) -> Result<(), Diagnostic> {
    match version {
        None | Some("" | CONDITION_VERSION) => Ok(()),
        Some(other) => Err(Diagnostic::error(
            Code::UnsupportedConditionVersion,
            0..other.len(),
            format!("unsupported condition version `{other}`"),
        )
        .help(format!("the only version is `{CONDITION_VERSION}`"))),
    }
}

// === impl Diagnostic ===

impl Diagnostic {
    pub(super) fn error(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity: Severity::Error, code: code.name(), message, span, help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Code {
    const fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::UnbalancedParentheses => "unbalanced_parentheses",
            Self::AmbiguousPrecedence => "ambiguous_precedence",
            Self::UnknownOperator => "unknown_operator",
            Self::UnknownAttributeSource => "unknown_attribute_source",
            Self::OperatorNotAllowedInCrossProduct => "operator_not_allowed_in_cross_product",
            Self::ListWithScalarOperator => "list_with_scalar_operator",
            Self::EmptyList => "empty_list",
            Self::ExpectedSingleString => "expected_single_string",
            Self::ExistsNeedsAttribute => "exists_needs_attribute",
            Self::StringMustBeQuoted => "string_must_be_quoted",
            Self::NumberLiteralRequired => "number_literal_required",
            Self::IntegersOnly => "integers_only",
            Self::UnsupportedConditionVersion => "unsupported_condition_version",
            Self::ConditionTooLong => "condition_too_long",
            Self::InvalidAttribute => "invalid_attribute",
            Self::InvalidAttributeValue => "invalid_attribute_value",
            Self::NestingTooDeep => "nesting_too_deep",
        }
    }
}

// === the parser ===

struct Parser<'a> {
    text: &'a str,
    mode: Mode,
    extensions: Extensions,
    tokens: &'a [Token],
    at: usize,
    /// The whole condition.
    root: Level,
    /// Every parenthesis that is open.
    open: Vec<Level>,
    diagnostics: Vec<Diagnostic>,
}

/// What stands between two parentheses, as far as it has been read.
struct Level {
    /// Where the parenthesis opened.
    start: usize,
    /// Where each `NOT` stands that waits for what it negates.
    negations: Vec<usize>,
    /// Complete alternatives.
    alternatives: Vec<Expression>,
    /// The parts of the alternative that is being read.
    parts: Vec<Expression>,
    /// Whether `AND` was met, and `OR`.
    joints: (bool, bool),
}

/// A mistake that has been reported.
struct Reported;

impl Level {
    const fn new(start: usize) -> Self {
        Self {
            start,
            negations: Vec::new(),
            alternatives: Vec::new(),
            parts: Vec::new(),
            joints: (false, false),
        }
    }

    /// Takes an operand, under the negations that wait for it.
    fn operand(&mut self, mut expression: Expression) {
        while let Some(start) = self.negations.pop() {
            let span = start..expression.span.end;
            expression = Expression { kind: ExpressionKind::Not(Box::new(expression)), span };
        }
        self.parts.push(expression);
    }

    fn close_alternative(&mut self) {
        let parts = std::mem::take(&mut self.parts);
        self.alternatives.extend(joined(parts, ExpressionKind::And));
    }

    fn finish(mut self) -> Option<Expression> {
        self.close_alternative();
        joined(self.alternatives, ExpressionKind::Or)
    }
}

fn joined(
    mut parts: Vec<Expression>,
    join: impl FnOnce(Vec<Expression>) -> ExpressionKind,
) -> Option<Expression> {
    if parts.len() < 2 {
        return parts.pop();
    }
    let span = parts.first()?.span.start..parts.last()?.span.end;
    Some(Expression { kind: join(parts), span })
}

impl<'a> Parser<'a> {
    fn condition(&mut self) -> Option<Expression> {
        let mut nesting: usize = 0;
        // Operands and joints take turns.
        loop {
            // An operand: negations and parentheses in front of a clause.
            loop {
                let token = self.token();
                match token.kind {
                    TokenKind::Not => self.level().negations.push(token.span.start),
                    TokenKind::Open => self.open.push(Level::new(token.span.start)),
                    _ => break,
                }
                nesting += 1;
                if nesting > MAX_NESTING {
                    let message =
                        format!("more than {MAX_NESTING} parentheses and negations inside each other");
                    self.error(Code::NestingTooDeep, token.span.clone(), message);
                    return None;
                }
                self.advance();
            }
            let clause = self.clause();
            nesting -= self.level().negations.len();
            match clause {
                Ok(expression) => self.level().operand(expression),
                Err(Reported) => {
                    self.level().negations.clear();
                    self.recover();
                }
            }
            // A joint, behind as many closing parentheses as there are.
            loop {
                let token = self.token();
                match token.kind {
                    TokenKind::And | TokenKind::Or => {
                        self.advance();
                        self.joint(token);
                        break;
                    }
                    TokenKind::Close => {
                        self.advance();
                        nesting -= self.close(token);
                    }
                    TokenKind::End => return self.end(),
                    _ => {
                        let message = format!("expected `AND`, `OR` or the end, found {}", self.found(token));
                        let help = self.help_between(token);
                        self.diagnostics
                            .push(Diagnostic::error(Code::Syntax, token.span.clone(), message).help(help));
                        self.recover();
                    }
                }
            }
        }
    }

    fn joint(&mut self, token: &Token) {
        let is_and = token.kind == TokenKind::And;
        let mode = self.mode;
        let level = self.level();
        let before = level.joints;
        let (ands, ors) = &mut level.joints;
        *(if is_and { ands } else { ors }) = true;
        if !is_and {
            level.close_alternative();
        }
        let mixed = level.joints == (true, true) && before != (true, true);
        if mixed {
            let mut diagnostic = Diagnostic::error(
                Code::AmbiguousPrecedence,
                token.span.clone(),
                "`AND` and `OR` are mixed without parentheses",
            );
            if mode == Mode::Load {
                diagnostic.severity = Severity::Warning;
                diagnostic = diagnostic.help("read with `AND` first; add parentheses to say what is meant");
            } else {
                diagnostic = diagnostic.help("add parentheses to say which belongs together");
            }
            self.diagnostics.push(diagnostic);
        }
    }

    /// Closes a parenthesis and says how much nesting ended.
    fn close(&mut self, token: &Token) -> usize {
        let Some(closed) = self.open.pop() else {
            self.error_help(
                Code::UnbalancedParentheses,
                token.span.clone(),
                "this parenthesis was never opened",
                "remove it, or add `(` where it belongs",
            );
            return 0;
        };
        let start = closed.start;
        let expression = closed.finish();
        let level = self.level();
        let ended = 1 + level.negations.len();
        match expression {
            Some(mut expression) => {
                expression.span = start..token.span.end;
                level.operand(expression);
            }
            // Its mistake has been reported.
            None => level.negations.clear(),
        }
        ended
    }

    fn end(&mut self) -> Option<Expression> {
        while let Some(open) = self.open.pop() {
            self.error_help(
                Code::UnbalancedParentheses,
                open.start..open.start + 1,
                "this parenthesis is never closed",
                "add `)` where it ends",
            );
        }
        std::mem::replace(&mut self.root, Level::new(0)).finish()
    }

    // --- clauses ---

    fn clause(&mut self) -> Result<Expression, Reported> {
        let token = self.token();
        match token.kind {
            TokenKind::Word => {
                let word = self.slice(token);
                for function in ["ActionMatches", "SubOperationMatches"] {
                    if word.eq_ignore_ascii_case(function) {
                        return self.function(function);
                    }
                }
                if word.eq_ignore_ascii_case("Exists") {
                    return self.exists(false);
                }
                if word.eq_ignore_ascii_case("NotExists") {
                    return self.exists(true);
                }
                self.not_an_operand(token)?;
            }
            TokenKind::And | TokenKind::Or | TokenKind::Close | TokenKind::End => {
                let message = format!("expected a clause, found {}", self.found(token));
                let help = if token.kind == TokenKind::End && self.at == 0 {
                    "the condition is empty"
                } else {
                    "a clause is for instance `@Resource[name] StringEquals 'value'`"
                };
                let span = if token.kind == TokenKind::End { self.end_span() } else { token.span.clone() };
                return self.fail(Code::Syntax, span, message, help);
            }
            _ => {}
        }
        self.comparison()
    }

    /// Words that begin no operand, each with what is wrong about it.
    fn not_an_operand(&mut self, token: &Token) -> Result<(), Reported> {
        let word = self.slice(token);
        let next = self.peek_behind();
        let span = token.span.clone();
        if next.kind == TokenKind::Symbol && self.slice(next).starts_with('[') {
            let source = Source::from_name(word).map_or("Source", Source::name);
            let message = format!("expected a clause, found `{word}[`");
            return self.fail(
                Code::Syntax,
                span,
                message,
                format!("an attribute begins with `@`: `@{source}[…]`"),
            );
        }
        if let Some((name, help)) = refused(word) {
            let message = format!("`{name}` is no part of the condition language");
            return self.fail(Code::UnknownOperator, span, message, *help);
        }
        if next.kind == TokenKind::Open || next.kind == TokenKind::OpenBrace {
            let message = format!("unknown function `{word}`");
            let known = ["ActionMatches", "SubOperationMatches", "Exists"];
            let help = match nearest(word, known.into_iter()) {
                Some(meant) => format!("`{meant}` may be meant"),
                None => "there are `ActionMatches{…}`, `SubOperationMatches{…}` and `Exists`".to_owned(),
            };
            return self.fail(Code::UnknownOperator, span, message, help);
        }
        if Operator::from_name(word).is_some() || Quantifier::from_name(word).is_some() {
            let message = format!("expected a clause, found the operator `{word}`");
            return self.fail(Code::Syntax, span, message, "an attribute or a value stands on its left");
        }
        Ok(())
    }

    /// `ActionMatches{'…'}`: exactly one string (semantics, section 9, row 36).
    fn function(&mut self, function: &str) -> Result<Expression, Reported> {
        let start = self.token().span.start;
        self.advance();
        let help = format!("write `{function}{{'…'}}`");
        let open = self.token();
        if open.kind != TokenKind::OpenBrace {
            let message = format!("expected `{{` behind `{function}`, found {}", self.found(open));
            return self.fail(Code::Syntax, self.span_of(open), message, help);
        }
        self.advance();
        let token = self.token();
        let TokenKind::Text(text) = &token.kind else {
            let message = format!("expected one string, found {}", self.found(token));
            return self.fail(Code::ExpectedSingleString, self.span_of(token), message, help);
        };
        self.advance();
        let close = self.token();
        match close.kind {
            TokenKind::CloseBrace => {}
            TokenKind::Comma => {
                let message = format!("`{function}` takes one string");
                let help = format!("join several with `OR`: `({function}{{'…'}} OR {function}{{'…'}})`");
                return self.fail(Code::ExpectedSingleString, close.span.clone(), message, help);
            }
            _ => {
                let message = format!("expected `}}`, found {}", self.found(close));
                return self.fail(Code::Syntax, self.span_of(close), message, help);
            }
        }
        self.advance();
        let text = text.clone();
        let kind = if function == "ActionMatches" {
            ExpressionKind::ActionMatches(text)
        } else {
            ExpressionKind::SubOperationMatches(text)
        };
        Ok(Expression { kind, span: start..close.span.end })
    }

    fn exists(&mut self, negated: bool) -> Result<Expression, Reported> {
        let word = self.token();
        if negated && !self.extensions.enabled {
            let message = "`NotExists` is an extension, not part of Azure's condition language";
            return self.fail(Code::UnknownOperator, word.span.clone(), message, "write `NOT Exists`");
        }
        self.advance();
        let token = self.token();
        let TokenKind::Attribute(attribute) = &token.kind else {
            let message = format!("`Exists` needs an attribute, found {}", self.found(token));
            let help = "write for instance `Exists @Resource[name]`";
            return self.fail(Code::ExistsNeedsAttribute, self.span_of(token), message, help);
        };
        self.advance();
        let attribute = attribute.clone().ok_or(Reported)?;
        let span = word.span.start..token.span.end;
        let exists = Expression { kind: ExpressionKind::Exists(attribute), span: span.clone() };
        Ok(if negated { Expression { kind: ExpressionKind::Not(Box::new(exists)), span } } else { exists })
    }

    fn comparison(&mut self) -> Result<Expression, Reported> {
        let left = self.operand()?;
        let (quantifier, operator, operator_span) = self.operator()?;
        let right = self.operand()?;
        let span = left.span.start..right.span.end;
        let before = self.diagnostics.len();
        let sides =
            check::comparison(left, quantifier, operator, &operator_span, right, &mut self.diagnostics);
        let Some((left, right)) = sides else {
            debug_assert!(self.diagnostics.len() > before);
            // The clause is complete: what stands behind it is still looked at.
            return Ok(placeholder(span));
        };
        let comparison = Comparison { left, quantifier, operator, operator_span, right };
        Ok(Expression { kind: ExpressionKind::Comparison(comparison), span })
    }

    fn operator(&mut self) -> Result<(Option<Quantifier>, Operator, Range<usize>), Reported> {
        let first = self.token();
        if first.kind != TokenKind::Word {
            let message = format!("expected an operator, found {}", self.found(first));
            let code = if first.kind == TokenKind::Symbol { Code::UnknownOperator } else { Code::Syntax };
            let help = match (&first.kind, self.slice(first)) {
                (TokenKind::Symbol, "=" | "==" | "===") => "write for instance `StringEquals`",
                (TokenKind::Symbol, "!=" | "<>") => "write for instance `StringNotEquals`",
                (TokenKind::Symbol, "<") => "write for instance `NumericLessThan`",
                (TokenKind::Symbol, ">") => "write for instance `NumericGreaterThan`",
                _ => "an operator is for instance `StringEquals`, or `ForAnyOfAnyValues:StringEquals`",
            };
            return self.fail(code, self.span_of(first), message, help);
        }
        self.advance();
        let name = self.slice(first);
        let quantifier = if self.token().kind == TokenKind::Colon {
            self.advance();
            Some(self.quantifier(first)?)
        } else {
            None
        };
        if quantifier.is_none() {
            if Quantifier::from_name(name).is_some() {
                let message = format!("`{name}` needs an operator");
                let help = format!("write for instance `{name}:StringEquals`");
                return self.fail(Code::Syntax, first.span.clone(), message, help);
            }
            let operator = self.known_operator(first)?;
            return Ok((None, operator, first.span.clone()));
        }
        let second = self.token();
        if second.kind != TokenKind::Word {
            let message = format!("expected an operator behind `{name}:`, found {}", self.found(second));
            let help = format!("write for instance `{name}:StringEquals`");
            return self.fail(Code::Syntax, self.span_of(second), message, help);
        }
        self.advance();
        let operator = self.known_operator(second)?;
        Ok((quantifier, operator, first.span.start..second.span.end))
    }

    fn quantifier(&mut self, token: &Token) -> Result<Quantifier, Reported> {
        let name = self.slice(token);
        if let Some(quantifier) = Quantifier::from_name(name) {
            return Ok(quantifier);
        }
        let message = format!("unknown quantifier `{name}`");
        let names = Quantifier::ALL.map(Quantifier::name);
        let help = match nearest(name, names.into_iter()) {
            Some(meant) => format!("`{meant}` may be meant"),
            None => format!("there are `{}`", names.join("`, `")),
        };
        self.fail(Code::UnknownOperator, token.span.clone(), message, help)
    }

    fn known_operator(&mut self, token: &Token) -> Result<Operator, Reported> {
        let name = self.slice(token);
        let (message, help) = match Operator::from_name(name) {
            Some(operator) if operator.is_extension() && !self.extensions.enabled => (
                format!("`{operator}` is an extension, not part of Azure's condition language"),
                format!("the setting `{EXTENSIONS_SETTING}` turns it on"),
            ),
            Some(operator) => return Ok(operator),
            None => match refused(name) {
                Some((name, help)) => {
                    (format!("`{name}` is no part of the condition language"), (*help).to_owned())
                }
                None => (format!("unknown operator `{name}`"), self.help_operator(name)),
            },
        };
        self.fail(Code::UnknownOperator, token.span.clone(), message, help)
    }

    fn help_operator(&self, name: &str) -> String {
        let known = Operator::all().filter(|operator| self.extensions.enabled || !operator.is_extension());
        match nearest(name, known.map(Operator::name)) {
            Some(meant) => format!("`{meant}` may be meant"),
            None => {
                "operators begin with `String`, `Numeric`, `DateTime`, `Bool` or `Guid`, such as `StringEquals`"
                    .to_owned()
            }
        }
    }

    fn operand(&mut self) -> Result<RawOperand, Reported> {
        let token = self.token();
        let span = token.span.clone();
        if let TokenKind::Attribute(attribute) = &token.kind {
            self.advance();
            let attribute = attribute.clone().ok_or(Reported)?;
            return Ok(RawOperand { kind: RawOperandKind::Attribute(attribute), span });
        }
        if token.kind == TokenKind::OpenBrace {
            return self.list();
        }
        let Some(literal) = self.literal() else {
            if token.kind == TokenKind::Word {
                self.not_an_operand(token)?;
            }
            let message = format!("expected an attribute or a value, found {}", self.found(token));
            let help = if token.kind == TokenKind::Symbol && self.slice(token).starts_with('"') {
                "strings stand in single quotes: `'value'`"
            } else if token.kind == TokenKind::Symbol && self.slice(token).starts_with(['‘', '’', '“', '”'])
            {
                "strings stand in straight quotes: `'value'`"
            } else {
                "write for instance `@Resource[name]`, `'value'`, `5`, `true` or `{'a', 'b'}`"
            };
            return self.fail(Code::Syntax, self.span_of(token), message, help);
        };
        Ok(RawOperand { kind: RawOperandKind::Literal(literal), span })
    }

    fn list(&mut self) -> Result<RawOperand, Reported> {
        let start = self.token().span.start;
        self.advance();
        let mut literals = Vec::new();
        if self.token().kind == TokenKind::CloseBrace {
            let end = self.token().span.end;
            self.advance();
            return self.fail(
                Code::EmptyList,
                start..end,
                "a list needs at least one value",
                "write `{'value'}`",
            );
        }
        loop {
            let Some(literal) = self.literal() else {
                let token = self.token();
                let message = format!("expected a value, found {}", self.found(token));
                let help = if matches!(token.kind, TokenKind::Attribute(_)) {
                    "a list holds values only, no attributes"
                } else {
                    "a list is for instance `{'a', 'b'}`"
                };
                return self.fail(Code::Syntax, self.span_of(token), message, help);
            };
            literals.push(literal);
            let token = self.token();
            match token.kind {
                TokenKind::Comma => self.advance(),
                TokenKind::CloseBrace => {
                    self.advance();
                    let span = start..token.span.end;
                    return Ok(RawOperand { kind: RawOperandKind::List(literals), span });
                }
                _ => {
                    let message = format!("expected `,` or `}}`, found {}", self.found(token));
                    let help = "a list is for instance `{'a', 'b'}`";
                    return self.fail(Code::Syntax, self.span_of(token), message, help);
                }
            }
        }
    }

    fn literal(&mut self) -> Option<RawLiteral> {
        let token = self.token();
        let value = match &token.kind {
            TokenKind::Text(text) => RawValue::Text(text.clone()),
            TokenKind::Integer(integer) => RawValue::Integer(*integer),
            TokenKind::HugeInteger => RawValue::HugeInteger,
            TokenKind::Fraction => RawValue::Fraction,
            TokenKind::Boolean(boolean) => RawValue::Boolean(*boolean),
            TokenKind::Guid(guid) => RawValue::Guid(*guid),
            // A word in front of a parenthesis, a brace or a bracket is something else.
            TokenKind::Word
                if !matches!(self.peek_behind().kind, TokenKind::Open | TokenKind::OpenBrace)
                    && !self.slice(self.peek_behind()).starts_with('[') =>
            {
                RawValue::Word
            }
            _ => return None,
        };
        self.advance();
        Some(RawLiteral { value, written: self.slice(token).to_owned(), span: token.span.clone() })
    }

    // --- tokens ---

    fn token(&self) -> &'a Token {
        const END: &Token = &Token { kind: TokenKind::End, span: 0..0 };
        self.tokens.get(self.at).or(self.tokens.last()).unwrap_or(END)
    }

    fn peek_behind(&self) -> &'a Token {
        self.tokens.get(self.at + 1).unwrap_or_else(|| self.token())
    }

    const fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    fn level(&mut self) -> &mut Level {
        self.open.last_mut().unwrap_or(&mut self.root)
    }

    fn slice(&self, token: &Token) -> &'a str {
        self.text.get(token.span.clone()).unwrap_or_default()
    }

    fn found(&self, token: &Token) -> String {
        match token.kind {
            TokenKind::End => "the end".to_owned(),
            TokenKind::Text(_) => "a string".to_owned(),
            TokenKind::Attribute(_) => "an attribute".to_owned(),
            _ => format!("`{}`", self.slice(token)),
        }
    }

    /// The end of the text points at its last character, for something to stand under the caret.
    fn end_span(&self) -> Range<usize> {
        let trimmed = self.text.trim_end();
        let start = trimmed.char_indices().next_back().map_or(0, |(at, _)| at);
        start..trimmed.len()
    }

    fn span_of(&self, token: &Token) -> Range<usize> {
        if token.kind == TokenKind::End { self.end_span() } else { token.span.clone() }
    }

    // --- mistakes ---

    fn error(&mut self, code: Code, span: Range<usize>, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(code, span, message));
    }

    fn error_help(
        &mut self,
        code: Code,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic::error(code, span, message).help(help));
    }

    fn fail<T>(
        &mut self,
        code: Code,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Result<T, Reported> {
        self.error_help(code, span, message, help);
        Err(Reported)
    }

    fn help_between(&self, token: &Token) -> String {
        match (&token.kind, self.slice(token)) {
            (TokenKind::Symbol, "&") => "write `&&` or `AND`".to_owned(),
            (TokenKind::Symbol, "|") => "write `||` or `OR`".to_owned(),
            (TokenKind::Word, word) if word.eq_ignore_ascii_case("xor") => {
                "there are `AND`, `OR` and `NOT`".to_owned()
            }
            (TokenKind::CloseBrace | TokenKind::Comma, _) => {
                "a list stands in braces: `{'a', 'b'}`".to_owned()
            }
            _ => "join two clauses with `AND` or `OR`".to_owned(),
        }
    }

    /// Goes on to the next `AND`, `OR` or closing parenthesis of the level that the mistake is on.
    fn recover(&mut self) {
        let mut open: usize = 0;
        loop {
            match self.token().kind {
                TokenKind::End => return,
                TokenKind::And | TokenKind::Or if open == 0 => return,
                TokenKind::Close if open == 0 => return,
                TokenKind::Close => open -= 1,
                TokenKind::Open => open += 1,
                _ => {}
            }
            self.advance();
        }
    }
}

fn refused(word: &str) -> Option<&'static (&'static str, &'static str)> {
    REFUSED.iter().find(|(name, _)| name.eq_ignore_ascii_case(word))
}

/// Stands for a clause whose mistake has been reported; never leaves the parser.
const fn placeholder(span: Range<usize>) -> Expression {
    Expression { kind: ExpressionKind::And(Vec::new()), span }
}
