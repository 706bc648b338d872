//! Whether the operands of a comparison fit its operator (semantics, sections 3.3, 3.4, 3.6 and 3.7).

use std::ops::Range;

use super::ast::{Attribute, Literal, Operand, OperandKind};
use super::operator::{Family, Operator, Quantifier, Test};
use super::parser::{Code, Diagnostic};
use super::scalar::{self, Block};
use crate::model::Guid;

/// A side of a comparison as it was read, before its operator was known.
pub(super) struct RawOperand {
    pub(super) kind: RawOperandKind,
    pub(super) span: Range<usize>,
}

pub(super) enum RawOperandKind {
    Attribute(Attribute),
    Literal(RawLiteral),
    List(Vec<RawLiteral>),
}

pub(super) struct RawLiteral {
    pub(super) value: RawValue,
    pub(super) written: String,
    pub(super) span: Range<usize>,
}

pub(super) enum RawValue {
    Text(String),
    Integer(i64),
    HugeInteger,
    Fraction,
    Boolean(bool),
    Guid(Guid),
    Word,
}

/// Which side of the operator.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Both sides, when nothing is wrong with them.
pub(super) fn comparison(
    left: RawOperand,
    quantifier: Option<Quantifier>,
    operator: Operator,
    operator_span: &Range<usize>,
    right: RawOperand,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<(Operand, Operand)> {
    if let Some(quantifier) = quantifier
        && !operator.is_cross_product()
    {
        diagnostics.push(
            Diagnostic::error(
                Code::OperatorNotAllowedInCrossProduct,
                operator_span.clone(),
                format!("`{operator}` is not allowed behind `{}`", quantifier.name()),
            )
            .help("allowed are `StringEquals`, `StringLike`, `Numeric…`, `GuidEquals` and their negations"),
        );
        return None;
    }
    let mut check = Check { operator, quantified: quantifier.is_some(), diagnostics };
    let left = check.operand(left, Side::Left);
    let right = check.operand(right, Side::Right);
    left.zip(right)
}

struct Check<'a> {
    operator: Operator,
    quantified: bool,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl Check<'_> {
    fn operand(&mut self, operand: RawOperand, side: Side) -> Option<Operand> {
        let span = operand.span;
        let bounds = side == Side::Right && self.operator.takes_bounds();
        let kind = match operand.kind {
            RawOperandKind::Attribute(attribute) => OperandKind::Attribute(attribute),
            RawOperandKind::Literal(literal) => {
                // One block in CIDR notation may stand for two bounds.
                if bounds && self.operator.family() != Family::Address {
                    return self.bounds(span);
                }
                if bounds && !matches!(&literal.value, RawValue::Text(text) if text.contains('/')) {
                    return self.bounds(span);
                }
                OperandKind::Literal(self.literal(literal, side)?)
            }
            RawOperandKind::List(literals) => {
                let count = literals.len();
                let converted: Vec<Literal> =
                    literals.into_iter().filter_map(|literal| self.literal(literal, side)).collect();
                if converted.len() < count {
                    return None;
                }
                if bounds {
                    return self.pair(converted, span);
                }
                let list_on_left = self.operator.family() == Family::Member && side == Side::Left;
                if count > 1 && !self.quantified && !list_on_left {
                    self.report(
                        Code::ListWithScalarOperator,
                        span,
                        format!("`{}` takes one value, not a list", self.operator),
                        self.help_list(),
                    );
                    return None;
                }
                OperandKind::List(converted)
            }
        };
        Some(Operand { kind, span })
    }

    fn help_list(&self) -> String {
        if self.operator.is_cross_product() {
            format!("write `ForAnyOfAnyValues:{}` for \"one of\"", self.operator)
        } else {
            format!("write one `{}` clause for each value, joined by `OR`", self.operator)
        }
    }

    fn bounds<T>(&mut self, span: Range<usize>) -> Option<T> {
        let message = format!("`{}` takes two bounds", self.operator);
        self.report(Code::InvalidAttributeValue, span, message, "write `{lowest, highest}`".to_owned());
        None
    }

    fn pair(&mut self, literals: Vec<Literal>, span: Range<usize>) -> Option<Operand> {
        if let [Literal::Text(block)] = literals.as_slice()
            && self.operator.family() == Family::Address
            && block.contains('/')
        {
            return Some(Operand { kind: OperandKind::List(literals), span });
        }
        let [low, high] = literals.as_slice() else {
            return self.bounds(span);
        };
        if let (Literal::Text(low), Literal::Text(high)) = (low, high)
            && self.operator.family() == Family::Address
            && Block::between(low, high).is_none()
        {
            let message = "both bounds have to be addresses of one family";
            self.report(
                Code::InvalidAttributeValue,
                span,
                message,
                "write `{'10.0.0.1', '10.0.0.9'}`".to_owned(),
            );
            return None;
        }
        Some(Operand { kind: OperandKind::List(literals), span })
    }

    fn report(&mut self, code: Code, span: Range<usize>, message: impl Into<String>, help: String) {
        self.diagnostics.push(Diagnostic::error(code, span, message).help(help));
    }

    /// A literal of the kind that the operator takes.
    fn literal(&mut self, literal: RawLiteral, side: Side) -> Option<Literal> {
        let RawLiteral { value, written, span } = literal;
        let operator = self.operator;
        let (code, message, help) = match (operator.family(), value) {
            (Family::Text, RawValue::Text(text)) => return Some(Literal::Text(text)),
            (Family::Text, _) => (
                Code::StringMustBeQuoted,
                format!("`{operator}` compares strings, and `{written}` is not quoted"),
                format!("write `'{written}'`"),
            ),

            (Family::Number | Family::Member, RawValue::Integer(integer)) => {
                return Some(Literal::Integer(integer));
            }
            (Family::Number | Family::Member, RawValue::HugeInteger) => (
                Code::InvalidAttributeValue,
                format!("`{written}` is no 64-bit integer"),
                format!("integers reach from {} to {}", i64::MIN, i64::MAX),
            ),
            (Family::Number | Family::Member, RawValue::Fraction) => (
                Code::IntegersOnly,
                format!("`{written}` is no integer"),
                "numbers have no fraction and no exponent".to_owned(),
            ),
            (Family::Number, RawValue::Text(text)) => (
                Code::NumberLiteralRequired,
                format!("`{operator}` compares numbers, and {written} is a string"),
                match scalar::integer(&text) {
                    Some(integer) => format!("write `{integer}` without quotes"),
                    None => "write an integer without quotes".to_owned(),
                },
            ),
            (Family::Number, _) => (
                Code::NumberLiteralRequired,
                format!("`{operator}` compares numbers, and `{written}` is none"),
                "write an integer without quotes".to_owned(),
            ),

            (Family::Boolean | Family::Member, RawValue::Boolean(boolean)) => {
                return Some(Literal::Boolean(boolean));
            }
            (Family::Boolean, _) => (
                Code::InvalidAttributeValue,
                format!("`{operator}` compares truth values, and {} is none", quoted(&written)),
                "write `true` or `false` without quotes".to_owned(),
            ),

            (Family::Guid, RawValue::Guid(guid)) => return Some(Literal::Guid(guid)),
            (Family::Guid, RawValue::Text(text)) if scalar::guid_literal(&text).is_some() => {
                return Some(Literal::Text(text));
            }
            (Family::Guid, _) => (
                Code::InvalidAttributeValue,
                format!("{} is no GUID", quoted(&written)),
                "a GUID is 8-4-4-4-12 or 32 hexadecimal digits".to_owned(),
            ),

            (Family::DateTime, RawValue::Text(text)) if scalar::date_time(&text).is_some() => {
                return Some(Literal::Text(text));
            }
            (Family::DateTime, _) => (
                Code::InvalidAttributeValue,
                format!("{} is no date and time", quoted(&written)),
                "write for instance `'2022-06-01T23:38:32Z'`, with seconds and `Z` or an offset".to_owned(),
            ),

            (Family::TimeOfDay, RawValue::Text(text)) if scalar::time_of_day(&text).is_some() => {
                return Some(Literal::Text(text));
            }
            (Family::TimeOfDay, _) => (
                Code::InvalidAttributeValue,
                format!("{} is no time of day", quoted(&written)),
                "write for instance `'08:30'` or `'08:30:00'`".to_owned(),
            ),

            (Family::Address, RawValue::Text(text)) if is_address(&text, operator, side) => {
                return Some(Literal::Text(text));
            }
            (Family::Address, _) => (
                Code::InvalidAttributeValue,
                format!("{} is no IP address", quoted(&written)),
                match side {
                    Side::Left => "write for instance `'10.0.0.1'`",
                    Side::Right => "write for instance `'10.0.0.1'` or `'10.0.0.0/8'`",
                }
                .to_owned(),
            ),

            (Family::Member, RawValue::Text(text)) => return Some(Literal::Text(text)),
            (Family::Member, RawValue::Guid(_) | RawValue::Word) => (
                Code::StringMustBeQuoted,
                format!("`{written}` is not quoted"),
                format!("write `'{written}'`"),
            ),
        };
        self.report(code, span, message, help);
        None
    }
}

fn is_address(text: &str, operator: Operator, side: Side) -> bool {
    match (side, operator.test()) {
        (Side::Left, _) => scalar::address(text).is_some(),
        (Side::Right, Test::Inside | Test::Between) => Block::parse(text).is_some(),
        (Side::Right, _) => false,
    }
}

/// In backticks, unless it stands in quotes already.
fn quoted(written: &str) -> String {
    if written.starts_with('\'') { written.to_owned() } else { format!("`{written}`") }
}
