//! The syntax tree of a condition (semantics, section 3.1). Every node knows where it stands in the text; printing
//! gives canonical text that parses to the same tree.

use std::fmt;
use std::ops::Range;

use super::operator::{Operator, Quantifier};
use crate::model::Guid;

/// A whole condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What has to be true.
    pub root: Expression,
}

/// A part of a condition that has a truth value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// What it says.
    pub kind: ExpressionKind,
    /// Where it stands, in bytes; with its parentheses.
    pub span: Range<usize>,
}

/// What an expression says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpressionKind {
    /// Two or more, joined by `OR` on one level.
    Or(Vec<Expression>),
    /// Two or more, joined by `AND` on one level.
    And(Vec<Expression>),
    /// `NOT` of one.
    Not(Box<Expression>),
    /// Two operands and an operator (semantics, section 3.4).
    Comparison(Comparison),
    /// The attribute is present (semantics, section 3.4).
    Exists(Attribute),
    /// The request's action matches the pattern (semantics, sections 2.1 and 3.4).
    ActionMatches(String),
    /// The request names this suboperation (semantics, section 3.4).
    SubOperationMatches(String),
}

/// Two operands and an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// What stands on the left.
    pub left: Operand,
    /// Makes a cross-product operator of the operator.
    pub quantifier: Option<Quantifier>,
    /// How they are compared.
    pub operator: Operator,
    /// Where the quantifier and the operator stand, in bytes.
    pub operator_span: Range<usize>,
    /// What stands on the right.
    pub right: Operand,
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// What it is.
    pub kind: OperandKind,
    /// Where it stands, in bytes.
    pub span: Range<usize>,
}

/// What one side of a comparison is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperandKind {
    /// Read from the request.
    Attribute(Attribute),
    /// One value.
    Literal(Literal),
    /// `{…}`: one or more values.
    List(Vec<Literal>),
}

/// A value as it is written (semantics, section 3.3). Dates, times and addresses are quoted text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// In quotes.
    Text(String),
    /// Without quotes.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// Without quotes.
    Guid(Guid),
}

/// `@Source[name]` (semantics, section 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Where the value comes from.
    pub source: Source,
    /// What stands in the brackets, without the suffix; letter case as written.
    pub name: String,
    /// What the suffix makes of it.
    pub form: Form,
    /// Where it stands, in bytes.
    pub span: Range<usize>,
}

/// Where attributes come from (semantics, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Source {
    /// What the operation asks for.
    Request = 0,
    /// The object as it is stored.
    Resource = 1,
    /// The caller.
    Principal = 2,
    /// Network origin and time.
    Environment = 3,
}

/// What the suffix of an attribute says (semantics, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// No suffix: the name, and a dictionary's key in it, in any letter case.
    Plain,
    /// `<$key_case_sensitive$>`: the key behind the first colon in exactly this letter case.
    ExactKey,
    /// `&$keys$&`: the keys of a dictionary.
    Keys,
}

// === impl Condition ===

impl Condition {
    /// The same condition with all spans empty, to compare what two texts say.
    #[must_use]
    pub fn without_spans(mut self) -> Self {
        self.root.erase_spans();
        self
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}

// === impl Expression ===

impl Expression {
    /// Parts that are expressions themselves.
    pub fn children(&self) -> &[Self] {
        match &self.kind {
            ExpressionKind::Or(parts) | ExpressionKind::And(parts) => parts,
            ExpressionKind::Not(part) => std::slice::from_ref(part),
            ExpressionKind::Comparison(_)
            | ExpressionKind::Exists(_)
            | ExpressionKind::ActionMatches(_)
            | ExpressionKind::SubOperationMatches(_) => &[],
        }
    }

    fn erase_spans(&mut self) {
        self.span = 0..0;
        match &mut self.kind {
            ExpressionKind::Or(parts) | ExpressionKind::And(parts) => {
                parts.iter_mut().for_each(Self::erase_spans);
            }
            ExpressionKind::Not(part) => part.erase_spans(),
            ExpressionKind::Comparison(comparison) => {
                comparison.operator_span = 0..0;
                for side in [&mut comparison.left, &mut comparison.right] {
                    side.span = 0..0;
                    if let OperandKind::Attribute(attribute) = &mut side.kind {
                        attribute.span = 0..0;
                    }
                }
            }
            ExpressionKind::Exists(attribute) => attribute.span = 0..0,
            ExpressionKind::ActionMatches(_) | ExpressionKind::SubOperationMatches(_) => {}
        }
    }

    /// As a part of something bigger: parentheses around `AND` and `OR`.
    fn fmt_part(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExpressionKind::Or(_) | ExpressionKind::And(_) => write!(f, "({self})"),
            _ => fmt::Display::fmt(self, f),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExpressionKind::Or(parts) => joined(f, parts, " OR "),
            ExpressionKind::And(parts) => joined(f, parts, " AND "),
            ExpressionKind::Not(part) => {
                f.write_str("NOT ")?;
                part.fmt_part(f)
            }
            ExpressionKind::Comparison(comparison) => comparison.fmt(f),
            ExpressionKind::Exists(attribute) => write!(f, "Exists {attribute}"),
            ExpressionKind::ActionMatches(pattern) => write!(f, "ActionMatches{{{}}}", Quoted(pattern)),
            ExpressionKind::SubOperationMatches(name) => {
                write!(f, "SubOperationMatches{{{}}}", Quoted(name))
            }
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Expression], by: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(by)?;
        }
        part.fmt_part(f)?;
    }
    Ok(())
}

// === impl Comparison and below ===

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.left)?;
        if let Some(quantifier) = self.quantifier {
            write!(f, "{}:", quantifier.name())?;
        }
        write!(f, "{} {}", self.operator, self.right)
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            OperandKind::Attribute(attribute) => attribute.fmt(f),
            OperandKind::Literal(literal) => literal.fmt(f),
            OperandKind::List(literals) => {
                f.write_str("{")?;
                for (index, literal) in literals.iter().enumerate() {
                    write!(f, "{}{literal}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => Quoted(text).fmt(f),
            Self::Integer(integer) => integer.fmt(f),
            Self::Boolean(boolean) => boolean.fmt(f),
            Self::Guid(guid) => guid.fmt(f),
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.form {
            Form::Plain => "",
            Form::ExactKey => EXACT_KEY_SUFFIX,
            Form::Keys => KEYS_SUFFIX,
        };
        write!(f, "@{}[{}{suffix}]", self.source.name(), self.name)
    }
}

pub(super) const EXACT_KEY_SUFFIX: &str = "<$key_case_sensitive$>";
pub(super) const KEYS_SUFFIX: &str = "&$keys$&";

impl Attribute {
    /// `@Environment[UtcNow]`: the check's own time, whatever the request says (semantics, section 10, row 9).
    pub fn is_utc_now(&self) -> bool {
        self.source == Source::Environment
            && self.form == Form::Plain
            && self.name.eq_ignore_ascii_case("UtcNow")
    }

    /// `@Request[subOperation]`: the 2021 spelling of the request's suboperation (semantics, section 3.2).
    pub fn is_sub_operation(&self) -> bool {
        self.source == Source::Request
            && self.form == Form::Plain
            && self.name.eq_ignore_ascii_case("subOperation")
    }
}

impl Source {
    /// In the order of the documents.
    pub const ALL: [Self; 4] = [Self::Request, Self::Resource, Self::Principal, Self::Environment];

    /// By name, letter case ignored.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name().eq_ignore_ascii_case(name))
    }

    /// As the documents write it, without `@`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "Request",
            Self::Resource => "Resource",
            Self::Principal => "Principal",
            Self::Environment => "Environment",
        }
    }
}

/// A text between quotes, quotes in it doubled.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}
