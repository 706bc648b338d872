//! Why a condition has its value: the truth of every clause and the attribute values it read, for `Explain`.
//!
//! Walks the syntax tree, so that every clause can be shown in the text, and evaluates each clause by the same
//! program that a decision runs. Unlike a decision it skips nothing, and it may allocate.

use std::ops::Range;

use super::ast::{Attribute, Condition, Expression, ExpressionKind, OperandKind, Source};
use super::compile::{attribute_name, compile_expression};
use super::evaluate::{self, Budget, Context, EvalError, Found, Truth};
use crate::model::{OwnedValue, Wildcards};

/// An expression with its value and, for a clause, what it read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Its value.
    pub truth: Truth,
    /// How its parts are joined.
    pub joined: Joined,
    /// Where it stands in the condition's text, in bytes.
    pub span: Range<usize>,
    /// Canonical text of a clause; empty for the others.
    pub text: String,
    /// What a clause read.
    pub read: Vec<Read>,
    /// Its parts.
    pub parts: Vec<Self>,
}

/// How the parts of an expression are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// Every part.
    And,
    /// Some part.
    Or,
    /// Not its part.
    Not,
    /// No parts.
    Clause,
}

/// An attribute that a clause read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// As the condition writes it, such as `@Resource[…/tags:Project<$key_case_sensitive$>]`.
    pub attribute: String,
    /// Where it stands in the condition's text, in bytes.
    pub span: Range<usize>,
    /// What was there.
    pub value: ReadValue,
}

/// What was there for an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadValue {
    /// Nothing, or an empty list or dictionary.
    Missing,
    /// Several whose names differ in letter case only, which is undefined.
    Ambiguous,
    /// This.
    Value(OwnedValue),
}

/// Explains a condition.
///
/// # Errors
///
/// As [`evaluate::evaluate`].
pub fn explain(
    condition: &Condition,
    wildcards: Wildcards,
    context: &Context<'_>,
    steps: &mut Budget,
) -> Result<Explained, EvalError> {
    expression(&condition.root, wildcards, context, steps)
}

fn expression(
    expression: &Expression,
    wildcards: Wildcards,
    context: &Context<'_>,
    steps: &mut Budget,
) -> Result<Explained, EvalError> {
    let mut explained = Explained {
        truth: Truth::True,
        joined: Joined::Clause,
        span: expression.span.clone(),
        text: String::new(),
        read: Vec::new(),
        parts: Vec::new(),
    };
    for part in expression.children() {
        explained.parts.push(self::expression(part, wildcards, context, steps)?);
    }
    let mut parts = explained.parts.iter().map(|part| part.truth);
    (explained.joined, explained.truth) = match &expression.kind {
        ExpressionKind::And(_) => (Joined::And, parts.fold(Truth::True, Truth::and)),
        ExpressionKind::Or(_) => (Joined::Or, parts.fold(Truth::False, Truth::or)),
        ExpressionKind::Not(_) => (Joined::Not, parts.next().unwrap_or(Truth::Undefined).not()),
        ExpressionKind::Comparison(comparison) => {
            for side in [&comparison.left, &comparison.right] {
                if let OperandKind::Attribute(attribute) = &side.kind {
                    explained.read.push(read(attribute, context, steps)?);
                }
            }
            (Joined::Clause, clause(expression, wildcards, context, steps)?)
        }
        ExpressionKind::Exists(attribute) => {
            explained.read.push(read(attribute, context, steps)?);
            (Joined::Clause, clause(expression, wildcards, context, steps)?)
        }
        ExpressionKind::ActionMatches(_) | ExpressionKind::SubOperationMatches(_) => {
            (Joined::Clause, clause(expression, wildcards, context, steps)?)
        }
    };
    if explained.joined == Joined::Clause {
        explained.text = expression.to_string();
    }
    Ok(explained)
}

fn clause(
    expression: &Expression,
    wildcards: Wildcards,
    context: &Context<'_>,
    steps: &mut Budget,
) -> Result<Truth, EvalError> {
    evaluate::evaluate(compile_expression(expression, wildcards).as_bytes(), context, steps)
}

fn read(attribute: &Attribute, context: &Context<'_>, steps: &mut Budget) -> Result<Read, EvalError> {
    let value = if attribute.is_utc_now() {
        ReadValue::Value(OwnedValue::Text(context.now.to_string()))
    } else if attribute.is_sub_operation() {
        match context.sub_operation.filter(|name| !name.is_empty()) {
            Some(name) => ReadValue::Value(OwnedValue::Text(name.to_owned())),
            None => ReadValue::Missing,
        }
    } else {
        found(attribute, context, steps)?
    };
    Ok(Read { attribute: attribute.to_string(), span: attribute.span.clone(), value })
}

fn found(attribute: &Attribute, context: &Context<'_>, steps: &mut Budget) -> Result<ReadValue, EvalError> {
    let bag = match attribute.source {
        Source::Request => context.request,
        Source::Resource => context.resource,
        Source::Principal => context.principal,
        Source::Environment => context.environment,
    };
    let (name, path, kind) = attribute_name(attribute);
    Ok(match evaluate::find(bag, name.as_bytes(), path, kind, steps)? {
        Found::Missing => ReadValue::Missing,
        Found::Ambiguous => ReadValue::Ambiguous,
        Found::Value(value) => ReadValue::Value(value.into()),
        Found::Keys(dictionary) => {
            let mut keys = Vec::new();
            let mut result = Ok(());
            let _ = dictionary.visit(&mut |key, value| {
                match evaluate::is_present(value, 1, steps) {
                    Ok(true) => keys.push(key.to_owned()),
                    Ok(false) => {}
                    Err(error) => {
                        result = Err(error);
                        return std::ops::ControlFlow::Break(());
                    }
                }
                std::ops::ControlFlow::Continue(())
            });
            result?;
            keys.sort();
            ReadValue::Value(OwnedValue::List(keys.into_iter().map(OwnedValue::Text).collect()))
        }
    })
}
