//! Conditions for explanations: each evaluated once by the program that decides, then shown clause by clause.
//!
//! A condition costs one explanation more than a decision: nothing is skipped and everything that was read is copied.
//! So there is one allowance of steps and one of bytes for all conditions of an explanation; where they do not
//! suffice, a condition is shown without its parts.

use std::collections::HashMap;

use jiff::Timestamp;

use super::evaluate::{self, MAX_STEPS, Moment, Outcome};
use super::layout::{self, CONDITION_EXTENSIONS, Damaged, NONE, UNUSABLE_GUID_ON_STORAGE, View};
use super::{actions, describe};
use crate::condition::ast::Condition;
use crate::condition::{self, Budget, EvalError, Explained, Extensions, Mode, Truth};
use crate::model::{
    AttributeBag, CheckRequest, Clause, ClauseTruth, ConditionOutcome, ConditionOwner, ExplainedCondition,
    Joined, ReadAttribute, ReadValue, Severity, Value,
};

/// What evaluating all conditions of an explanation may take.
const ALL_STEPS: u64 = 16 * MAX_STEPS as u64;

/// What showing them may take: the attribute values that are copied, roughly.
const ALL_BYTES: usize = 8 << 20;

/// Evaluates and shows the conditions of one explanation.
pub(super) struct Judge<'v, 'r> {
    view: &'v View<'v>,
    request: &'r CheckRequest<'r>,
    now: Timestamp,
    /// What is left for evaluating.
    steps: u64,
    /// What is left for showing.
    bytes: usize,
    /// Of all attributes of the request.
    weight: usize,
    judged: HashMap<u32, Outcome>,
    shown: HashMap<u32, ConditionOutcome>,
    /// Whether an allowance did not suffice.
    pub(super) truncated: bool,
}

impl<'v, 'r> Judge<'v, 'r> {
    pub(super) fn new(view: &'v View<'v>, request: &'r CheckRequest<'r>, now: Timestamp) -> Self {
        let bags = request.attributes;
        let bags = [bags.request, bags.resource, bags.principal, bags.environment];
        Self {
            view,
            request,
            now,
            steps: ALL_STEPS,
            bytes: ALL_BYTES,
            weight: bags.into_iter().map(weight_of).fold(0, usize::saturating_add),
            judged: HashMap::new(),
            shown: HashMap::new(),
            truncated: false,
        }
    }

    /// What a condition comes to, with as many steps as a whole decision has.
    pub(super) fn outcome(&mut self, condition: u32) -> Result<Outcome, Damaged> {
        if condition == NONE {
            return Ok(Outcome::Without);
        }
        if let Some(outcome) = self.judged.get(&condition) {
            return Ok(*outcome);
        }
        let outcome = if self.steps == 0 {
            self.truncated = true;
            Outcome::TooCostly
        } else {
            let mut moment = Moment::new(self.view, self.request, self.now);
            let outcome = moment.condition(condition)?;
            let taken = u64::from(MAX_STEPS).saturating_sub(moment.steps_left());
            self.steps = self.steps.saturating_sub(taken);
            outcome
        };
        self.judged.insert(condition, outcome);
        Ok(outcome)
    }

    /// The same, spelled out. There has to be one.
    pub(super) fn explain(
        &mut self,
        condition: u32,
        whose: ConditionOwner,
    ) -> Result<ExplainedCondition, Damaged> {
        let text = describe::condition_text(self.view, condition)?.ok_or(Damaged)?;
        let outcome = match self.outcome(condition)? {
            Outcome::Without => return Err(Damaged),
            Outcome::TooCostly => ConditionOutcome::TooCostly,
            Outcome::Unusable => ConditionOutcome::Unusable { why: self.why_unusable(condition, text)? },
            Outcome::Truth(truth) => self.clauses(condition, text, truth)?,
        };
        Ok(ExplainedCondition { whose, text: text.to_owned(), outcome })
    }

    fn clauses(&mut self, condition: u32, text: &str, truth: Truth) -> Result<ConditionOutcome, Damaged> {
        // Every attribute that is read stands behind an `@`; the tree is a few times as large as the text.
        let reads = text.bytes().filter(|byte| *byte == b'@').count();
        let cost = reads.saturating_mul(self.weight).saturating_add(text.len().saturating_mul(8));
        let whole = |truth| {
            ConditionOutcome::Evaluated(Clause {
                truth: shown_truth(truth),
                joined: Joined::Test,
                span: 0..text.len(),
                text: text.to_owned(),
                values: Vec::new(),
                parts: Vec::new(),
            })
        };
        let Some(left) = self.bytes.checked_sub(cost) else {
            self.truncated = true;
            return Ok(whole(truth));
        };
        self.bytes = left;
        if let Some(shown) = self.shown.get(&condition) {
            return Ok(shown.clone());
        }
        let parsed = parsed(self.view, text)?;
        let wildcards = actions::wildcards(self.view);
        let context = evaluate::context(self.request, self.now);
        // Nothing is skipped and each attribute is read once more than by the program.
        let mut budget = Budget::new(4 * MAX_STEPS);
        let shown = match condition::explain(&parsed, wildcards, &context, &mut budget) {
            Ok(explained) => ConditionOutcome::Evaluated(clause(explained)),
            Err(EvalError::BudgetExceeded) => {
                self.truncated = true;
                whole(truth)
            }
            Err(EvalError::Damaged) => return Err(Damaged),
        };
        self.shown.insert(condition, shown.clone());
        Ok(shown)
    }

    fn why_unusable(&self, condition: u32, text: &str) -> Result<String, Damaged> {
        let record = layout::at(self.view.conditions, condition)?;
        if record.unusable.get() == UNUSABLE_GUID_ON_STORAGE {
            return Ok(
                "compares GUIDs, which is not supported on roles with data actions of Storage".to_owned()
            );
        }
        let parsed = condition::parse(text, Mode::Load, extensions(self.view));
        let error = parsed.diagnostics.into_iter().find(|diagnostic| diagnostic.severity == Severity::Error);
        Ok(match error {
            Some(error) => error.message,
            None if parsed.condition.is_none() => "is empty".to_owned(),
            None => format!("its version is not `{}`", condition::CONDITION_VERSION),
        })
    }
}

/// A condition of the policy that can be used, as a tree.
pub(super) fn parsed(view: &View<'_>, text: &str) -> Result<Condition, Damaged> {
    condition::parse(text, Mode::Load, extensions(view)).condition.ok_or(Damaged)
}

fn extensions(view: &View<'_>) -> Extensions {
    Extensions { enabled: view.flags & CONDITION_EXTENSIONS != 0 }
}

fn clause(explained: Explained) -> Clause {
    let value = |value| match value {
        condition::ReadValue::Missing => ReadValue::Missing,
        condition::ReadValue::Ambiguous => ReadValue::Ambiguous,
        condition::ReadValue::Value(value) => ReadValue::Present(value),
    };
    let read = explained.read.into_iter().map(|read| ReadAttribute {
        attribute: read.attribute,
        span: read.span,
        value: value(read.value),
    });
    Clause {
        truth: shown_truth(explained.truth),
        joined: match explained.joined {
            condition::Joined::And => Joined::And,
            condition::Joined::Or => Joined::Or,
            condition::Joined::Not => Joined::Not,
            condition::Joined::Clause => Joined::Test,
        },
        span: explained.span,
        text: explained.text,
        values: read.collect(),
        parts: explained.parts.into_iter().map(clause).collect(),
    }
}

pub(super) const fn shown_truth(truth: Truth) -> ClauseTruth {
    match truth {
        Truth::False => ClauseTruth::False,
        Truth::Undefined => ClauseTruth::Undefined,
        Truth::True => ClauseTruth::True,
    }
}

/// How many bytes a copy takes, roughly.
fn weight_of(bag: &dyn AttributeBag) -> usize {
    let mut weight = 0_usize;
    let _ = bag.visit(&mut |name, value| {
        weight = weight.saturating_add(name.len()).saturating_add(weight_of_value(value));
        std::ops::ControlFlow::Continue(())
    });
    weight
}

fn weight_of_value(value: Value<'_>) -> usize {
    const OWN: usize = 32;
    OWN.saturating_add(match value {
        Value::Text(text) => text.len(),
        Value::List(list) => {
            (0..list.count()).map(|index| weight_of_value(list.at(index))).fold(0, usize::saturating_add)
        }
        Value::Dictionary(bag) => weight_of(bag),
        Value::Missing | Value::Number(_) | Value::Boolean(_) | Value::Other => 0,
    })
}
