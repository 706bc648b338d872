//! What conditions may come to when nobody knows the attributes: for lists of who may do what, which are asked
//! without a request.
//!
//! Every part of a condition has a set of possible values (semantics, section 3.5). A test of the action and a
//! comparison with the time have one; a test that reads attributes or the suboperation may have any. The sets are
//! joined as the values are, each part for itself, so a condition whose parts depend on each other may be said to
//! depend on attributes though it does not: never the other way round.

use std::collections::HashMap;

use jiff::Timestamp;

use super::actions::{self, ActionSet};
use super::describe;
use super::judge::parsed;
use super::layout::{Damaged, Deny, NONE, View};
use super::standing::{Standing, is_unusable};
use crate::condition::ast::{Comparison, Condition, Expression, ExpressionKind, OperandKind};
use crate::condition::{self, Budget, Context, Truth};
use crate::model::{NoAttributes, pattern_matches};

/// A set of possible values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prospect(u8);

/// Conditions under one action after the other.
pub(super) struct Prospects<'v> {
    view: &'v View<'v>,
    now: Timestamp,
    trees: HashMap<u32, Condition>,
    /// Under the action at hand.
    action: String,
    known: HashMap<u32, Prospect>,
}

const ALL: [(u8, Truth); 3] = [(1, Truth::False), (2, Truth::Undefined), (4, Truth::True)];

impl Prospect {
    const FALSE: Self = Self(1);
    /// Also what cannot be used: it grants nothing, and denies.
    const UNDEFINED: Self = Self(2);
    const TRUE: Self = Self(4);
    const FALSE_OR_TRUE: Self = Self(5);
    const ANY: Self = Self(7);

    fn of(truth: Truth) -> Self {
        match truth {
            Truth::False => Self::FALSE,
            Truth::Undefined => Self::UNDEFINED,
            Truth::True => Self::TRUE,
        }
    }

    fn values(self) -> impl Iterator<Item = Truth> {
        ALL.into_iter().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, truth)| truth)
    }

    fn joined(self, other: Self, join: fn(Truth, Truth) -> Truth) -> Self {
        let pairs = self.values().flat_map(|one| other.values().map(move |other| join(one, other)));
        Self(pairs.fold(0, |all, truth| all | Self::of(truth).0))
    }

    fn and(self, other: Self) -> Self {
        self.joined(other, Truth::and)
    }

    fn or(self, other: Self) -> Self {
        self.joined(other, Truth::or)
    }

    fn not(self) -> Self {
        Self(self.values().fold(0, |all, truth| all | Self::of(truth.not()).0))
    }

    pub(super) fn may_grant(self) -> bool {
        self.values().any(Truth::grants)
    }

    pub(super) fn always_grants(self) -> bool {
        self.values().all(Truth::grants)
    }

    pub(super) fn may_deny(self) -> bool {
        self.values().any(Truth::denies)
    }

    pub(super) fn always_denies(self) -> bool {
        self.values().all(Truth::denies)
    }
}

impl<'v> Prospects<'v> {
    pub(super) fn new(view: &'v View<'v>, now: Timestamp) -> Self {
        Self { view, now, trees: HashMap::new(), action: String::new(), known: HashMap::new() }
    }

    /// Goes on with another action.
    pub(super) fn look_at(&mut self, action: &str) {
        action.clone_into(&mut self.action);
        self.known.clear();
    }

    /// Whether an assignment or eligibility grants. `actions` is the set of the action at hand.
    pub(super) fn grant(&mut self, actions: &ActionSet, standing: &Standing) -> Result<Prospect, Damaged> {
        let role = self.unit(actions, standing.role)?;
        if !role.may_grant() {
            return Ok(role);
        }
        Ok(role.and(self.condition(standing.condition)?).and(self.condition(standing.inherited)?))
    }

    /// Whether a deny assignment that applies to somebody blocks.
    pub(super) fn deny(&mut self, actions: &ActionSet, deny: &Deny) -> Result<Prospect, Damaged> {
        let permissions = self.unit(actions, deny.unit.get())?;
        if !permissions.may_deny() {
            return Ok(permissions);
        }
        Ok(permissions.and(self.condition(deny.condition.get())?))
    }

    /// Whether one of the blocks of a role or deny assignment that speak of the action does so.
    fn unit(&mut self, actions: &ActionSet, unit: u32) -> Result<Prospect, Damaged> {
        if actions.has(unit) {
            return Ok(Prospect::TRUE);
        }
        let mut any = Prospect::FALSE;
        for (_, condition) in actions.conditions_of(unit) {
            any = any.or(self.condition(*condition)?);
        }
        Ok(any)
    }

    fn condition(&mut self, condition: u32) -> Result<Prospect, Damaged> {
        if condition == NONE {
            return Ok(Prospect::TRUE);
        }
        if is_unusable(self.view, condition)? {
            return Ok(Prospect::UNDEFINED);
        }
        if let Some(known) = self.known.get(&condition) {
            return Ok(*known);
        }
        if !self.trees.contains_key(&condition) {
            let text = describe::condition_text(self.view, condition)?.ok_or(Damaged)?;
            self.trees.insert(condition, parsed(self.view, text)?);
        }
        let tree = self.trees.get(&condition).ok_or(Damaged)?;
        let prospect = self.expression(&tree.root);
        self.known.insert(condition, prospect);
        Ok(prospect)
    }

    fn expression(&self, expression: &Expression) -> Prospect {
        let mut parts = expression.children().iter().map(|part| self.expression(part));
        match &expression.kind {
            ExpressionKind::And(_) => parts.fold(Prospect::TRUE, Prospect::and),
            ExpressionKind::Or(_) => parts.fold(Prospect::FALSE, Prospect::or),
            ExpressionKind::Not(_) => parts.next().map_or(Prospect::UNDEFINED, Prospect::not),
            ExpressionKind::ActionMatches(pattern) => {
                let wildcards = actions::wildcards(self.view);
                if pattern_matches(pattern, &self.action, wildcards) {
                    Prospect::TRUE
                } else {
                    Prospect::FALSE
                }
            }
            ExpressionKind::SubOperationMatches(_) => Prospect::FALSE_OR_TRUE,
            ExpressionKind::Exists(attribute) if attribute.is_utc_now() => self.evaluated(expression),
            ExpressionKind::Exists(_) => Prospect::FALSE_OR_TRUE,
            ExpressionKind::Comparison(comparison) if reads_attributes(comparison) => Prospect::ANY,
            ExpressionKind::Comparison(_) => self.evaluated(expression),
        }
    }

    /// The value of what reads no attributes.
    fn evaluated(&self, expression: &Expression) -> Prospect {
        let alone = Condition { root: expression.clone() };
        let program = condition::compile(&alone, actions::wildcards(self.view));
        let context = Context {
            action: &self.action,
            sub_operation: None,
            now: self.now,
            request: &NoAttributes,
            resource: &NoAttributes,
            principal: &NoAttributes,
            environment: &NoAttributes,
        };
        condition::evaluate(program.as_bytes(), &context, &mut Budget::default())
            .map_or(Prospect::ANY, Prospect::of)
    }
}

fn reads_attributes(comparison: &Comparison) -> bool {
    [&comparison.left, &comparison.right].into_iter().any(|operand| match &operand.kind {
        OperandKind::Attribute(attribute) => !attribute.is_utc_now(),
        OperandKind::Literal(_) | OperandKind::List(_) => false,
    })
}
