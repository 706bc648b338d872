//! Why a request is decided as it is (semantics, sections 2.3 to 2.6 and 5): everything that the decision could rest
//! on, and what each did.
//!
//! The decision itself is that of the evaluation, never one of its own. What is told beside it is found by a second
//! way through the same buffer, which leaves nothing out; the tests hold the two together.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use jiff::Timestamp;
use zerocopy::little_endian::U32;

use super::evaluate::{self, Outcome, Place};
use super::judge::{Judge, shown_truth};
use super::layout::{self, DENY_ALL_PRINCIPALS, DENY_NOT_TO_CHILDREN, Damaged, Deny, NONE, View};
use super::standing::{self, Coverage, MAX_ITEMS, Matched, Says, Standing, blocks_of, cut};
use super::{Policy, describe};
use crate::condition::Truth;
use crate::model::{
    AssignmentOutcome, CheckRequest, ConditionOutcome, ConditionOwner, Decision, DenyEffect, DenyOutcome,
    ExplainedAssignment, ExplainedCondition, ExplainedDeny, Explanation, NearMiss, Scope, Undecided, Why,
};

/// Of each kind of near miss no more are told.
const MAX_NEAR_MISSES: usize = 20;

impl Policy {
    /// Says why a request is decided as it is: the decision of [`Policy::evaluate`], and everything at the scope or
    /// above it that took part or could have.
    ///
    /// # Errors
    ///
    /// [`Undecided`] as for a check.
    pub fn explain(&self, request: &CheckRequest<'_>, now: Timestamp) -> Result<Explanation, Undecided> {
        let evaluation = self.evaluate(request, now)?;
        let view = self.view();
        let place = evaluate::locate(view, request.scope)?;
        let (mut principals, known) = standing::principals_of(view, &request.subject)?;
        let mut explainer = Explainer {
            view,
            request,
            now,
            place,
            known: &known,
            coverage: Coverage::find(view, request.action.as_str(), request.plane)?,
            judge: Judge::new(view, request, now),
        };
        let decision = evaluation.decision;
        explainer.judge_first(&decision)?;
        let (denies, denies_cut) = explainer.denies(&decision)?;
        let (assignments, assignments_cut, wrong_plane) = explainer.assignments(&decision)?;
        let (mut near_misses, mut near_misses_cut) = (Vec::new(), false);
        if let Decision::NotAllowed(_) = decision {
            for mut kind in [explainer.eligible()?, wrong_plane, explainer.too_low()?] {
                near_misses_cut |= cut(&mut kind, MAX_NEAR_MISSES);
                near_misses.extend(kind);
            }
        }
        let truncated = cut(&mut principals, MAX_ITEMS)
            | denies_cut
            | assignments_cut
            | near_misses_cut
            | explainer.judge.truncated;
        Ok(Explanation {
            principals,
            denies,
            assignments,
            near_misses,
            decision,
            reason: self.reason(request, &decision),
            valid_until: evaluation.valid_until,
            truncated,
        })
    }
}

struct Explainer<'v, 'r> {
    view: &'v View<'v>,
    request: &'r CheckRequest<'r>,
    now: Timestamp,
    place: Place,
    /// The subject's principals that the policy knows, in the order they are told in.
    known: &'r [u32],
    coverage: Coverage<'v>,
    judge: Judge<'v, 'r>,
}

impl<'v> Explainer<'v, '_> {
    /// Evaluates what the decision rests on before anything else, so that it cannot be what the steps do not suffice
    /// for.
    fn judge_first(&mut self, decision: &Decision) -> Result<(), Damaged> {
        let (unit, conditions) = match decision {
            Decision::Allowed(grant) => {
                let entry = layout::at(self.view.entries, grant.assignment())?;
                let held = Standing::of(self.view, entry, grant.assignment(), NONE, self.now)?;
                (held.role, [held.condition, held.inherited])
            }
            Decision::NotAllowed(Why::Eligible(eligibility)) => {
                let entry = layout::at(self.view.eligibles, eligibility.number())?;
                let held = Standing::of(self.view, entry, eligibility.number(), NONE, self.now)?;
                (held.role, [held.condition, NONE])
            }
            Decision::Denied(hit) => {
                let deny = layout::at(self.view.denies, hit.deny_assignment())?;
                (deny.unit.get(), [deny.condition.get(), NONE])
            }
            Decision::NotAllowed(_) => return Ok(()),
        };
        for condition in conditions {
            self.judge.outcome(condition)?;
        }
        for block in blocks_of(self.view, unit) {
            if let Says::Yes(_) = self.coverage.says(block) {
                self.judge.outcome(self.block_condition(block)?)?;
            }
        }
        Ok(())
    }

    fn block_condition(&self, block: u32) -> Result<u32, Damaged> {
        Ok(layout::at(self.view.block_conditions, block)?.get())
    }

    fn id(&self, principal: u32) -> Result<String, Damaged> {
        Ok(describe::principal(self.view, principal)?.to_string())
    }

    // --- deny assignments ---

    fn denies(&mut self, decision: &Decision) -> Result<(Vec<ExplainedDeny>, bool), Damaged> {
        let all = standing::denies(self.view, self.place)?;
        let named = match decision {
            Decision::Denied(hit) => all.iter().position(|(number, _)| *number == hit.deny_assignment()),
            _ => None,
        };
        let (mut explained, mut truncated) = (Vec::new(), false);
        for (position, (_, deny)) in all.into_iter().enumerate() {
            let (outcome, conditions) = self.deny(deny, named.is_some_and(|named| position < named))?;
            // What decides is told in any case.
            if explained.len() >= MAX_ITEMS && named != Some(position) {
                truncated = true;
                continue;
            }
            explained.push(ExplainedDeny {
                id: describe::deny_id(self.view, deny)?,
                name: describe::deny_name(self.view, deny)?,
                scope: describe::written(|out| describe::write_scope(self.view, deny.scope.get(), out))?,
                effect: standing::effect(deny),
                outcome,
                conditions,
            });
        }
        Ok((explained, truncated))
    }

    /// `passed_over`: an enforced one behind it decides.
    fn deny(
        &mut self,
        deny: &Deny,
        passed_over: bool,
    ) -> Result<(DenyOutcome, Vec<ExplainedCondition>), Damaged> {
        let flags = deny.flags.get();
        let only = |outcome| Ok((outcome, Vec::new()));
        if flags & DENY_NOT_TO_CHILDREN != 0 && !(self.place.exact && self.place.scope == deny.scope.get()) {
            return only(DenyOutcome::NotToChildScopes);
        }
        let listed = self.one_of(deny.first_principal, deny.principals)?;
        let principal = if flags & DENY_ALL_PRINCIPALS != 0 { None } else { listed };
        if flags & DENY_ALL_PRINCIPALS == 0 && principal.is_none() {
            return only(DenyOutcome::NotForSubject);
        }
        if let Some(excluded) = self.one_of(deny.first_excluded, deny.excluded)? {
            return only(DenyOutcome::ExcludedPrincipal { principal: self.id(excluded)? });
        }

        let blocks = blocks_of(self.view, deny.unit.get());
        let covering: Vec<Matched<'v>> = self.covering(&blocks);
        if covering.is_empty() {
            return only(match self.short_of(&blocks) {
                Says::Excluded(pattern, exclusion) => DenyOutcome::ExcludedBy {
                    pattern: pattern.shown(&blocks),
                    exclusion: exclusion.shown(&blocks),
                },
                Says::OtherPlane(pattern) => DenyOutcome::WrongPlane { pattern: pattern.shown(&blocks) },
                Says::Yes(_) | Says::Nothing => DenyOutcome::NotCovered,
            });
        }

        let mut conditions = Vec::new();
        let own = deny.condition.get();
        if own != NONE {
            conditions.push(self.judge.explain(own, ConditionOwner::Assignment)?);
        }
        // Whichever of its blocks hits first, or might have.
        let (mut hit, mut costly) = (None, None);
        for matched in covering {
            let condition = self.block_condition(matched.block)?;
            if condition != NONE {
                let index = matched.block.saturating_sub(blocks.start);
                conditions.push(self.judge.explain(condition, ConditionOwner::Block { index })?);
            }
            match self.judge.outcome(condition)? {
                Outcome::Without | Outcome::Unusable => hit = hit.or(Some(matched)),
                Outcome::Truth(truth) if truth.denies() => hit = hit.or(Some(matched)),
                Outcome::Truth(_) => {}
                Outcome::TooCostly => costly = costly.or(Some(matched)),
            }
        }
        if let Some(matched) = hit {
            match self.judge.outcome(own)? {
                Outcome::Without | Outcome::Unusable => {}
                Outcome::Truth(truth) if truth.denies() => {}
                Outcome::Truth(_) => return Ok((DenyOutcome::ConditionFalse, conditions)),
                Outcome::TooCostly => (hit, costly) = (None, Some(matched)),
            }
        }
        let enforced = standing::effect(deny) == DenyEffect::Enforced;
        // The steps of a check are for all its conditions together: what had none left is passed over.
        if enforced && passed_over && hit.is_some() {
            (hit, costly) = (None, hit);
            first_too_costly(&mut conditions);
        }
        let outcome = match hit.or(costly.filter(|_| !enforced)) {
            // A report is made rather than left out.
            Some(matched) => DenyOutcome::Hit {
                pattern: matched.shown(&blocks),
                principal: principal.map(|principal| self.id(principal)).transpose()?,
            },
            None if costly.is_some() => DenyOutcome::ConditionTooCostly,
            None => DenyOutcome::ConditionFalse,
        };
        Ok((outcome, conditions))
    }

    /// The first of the subject's principals that a deny assignment lists.
    fn one_of(&self, first: U32, count: U32) -> Result<Option<u32>, Damaged> {
        let listed = layout::slice(self.view.deny_principals, first, count)?;
        let mut known = self.known.iter();
        Ok(known.find(|id| listed.binary_search_by_key(*id, |listed| listed.get()).is_ok()).copied())
    }

    // --- permission blocks ---

    /// The blocks that cover the action.
    fn covering(&self, blocks: &Range<u32>) -> Vec<Matched<'v>> {
        let says = blocks.clone().map(|block| self.coverage.says(block));
        says.filter_map(|says| if let Says::Yes(matched) = says { Some(matched) } else { None }).collect()
    }

    /// Of blocks none of which covers the action: the first that excludes it, else the first that covers it on the
    /// other plane.
    fn short_of(&self, blocks: &Range<u32>) -> Says<'v> {
        let says = || blocks.clone().map(|block| self.coverage.says(block));
        let excluded = says().find(|says| matches!(says, Says::Excluded(..)));
        excluded.or_else(|| says().find(|says| matches!(says, Says::OtherPlane(_)))).unwrap_or(Says::Nothing)
    }

    // --- role assignments ---

    /// And which of them are near misses for being on the other plane.
    fn assignments(
        &mut self,
        decision: &Decision,
    ) -> Result<(Vec<ExplainedAssignment>, bool, Vec<NearMiss>), Damaged> {
        let named = match decision {
            Decision::Allowed(grant) => Some(grant.assignment()),
            _ => None,
        };
        let mut all = Vec::new();
        for principal in self.known {
            for held in standing::assignments(self.view, self.place, *principal, self.now)? {
                all.push(self.look(held)?);
            }
        }
        let order = |one: &Looked| {
            let Standing { scope, name, number, .. } = one.held;
            (Reverse(scope), one.conditioned, name, Some(number) != named, number)
        };
        let decides = all.iter().find(|one| Some(one.held.number) == named).map(order);
        for one in &mut all {
            // The steps of a check are for all its conditions together: what had none left is passed over.
            if decides.is_some_and(|decides| order(one) < decides)
                && let AssignmentOutcome::Granted { pattern } = &one.outcome
            {
                let pattern = pattern.clone();
                let whose = self.conditions_of(&one.held, one.block)?.into_iter().next();
                let whose = whose.map_or(ConditionOwner::Assignment, |(_, whose)| whose);
                one.outcome = AssignmentOutcome::ConditionTooCostly { pattern, whose };
                one.passed_over = true;
            }
        }
        all.sort_by_key(|one| (!one.outcome.grants(), order(one)));
        let truncated = cut(&mut all, MAX_ITEMS);
        let (mut explained, mut wrong_plane) = (Vec::with_capacity(all.len()), Vec::new());
        for Looked { held, outcome, block, passed_over, .. } in all {
            let assignment = describe::assignment(self.view, held.number)?;
            if let AssignmentOutcome::WrongPlane { pattern } = &outcome
                && held.holds
            {
                wrong_plane.push(NearMiss::WrongPlane {
                    assignment: assignment.clone(),
                    pattern: pattern.clone(),
                    plane: standing::other_plane(self.request.plane),
                });
            }
            let mut conditions = Vec::new();
            if block.is_some() {
                for (condition, whose) in self.conditions_of(&held, block)? {
                    conditions.push(self.judge.explain(condition, whose)?);
                }
            }
            if passed_over {
                first_too_costly(&mut conditions);
            }
            explained.push(ExplainedAssignment { assignment, outcome, conditions });
        }
        Ok((explained, truncated, wrong_plane))
    }

    fn look(&mut self, held: Standing) -> Result<Looked, Damaged> {
        let blocks = blocks_of(self.view, held.role);
        let covering = self.covering(&blocks);
        let mut conditioned = held.condition != NONE || held.inherited != NONE;
        let Some(first) = covering.first() else {
            let outcome = match self.short_of(&blocks) {
                Says::Excluded(pattern, exclusion) => AssignmentOutcome::ExcludedBy {
                    pattern: pattern.shown(&blocks),
                    exclusion: exclusion.shown(&blocks),
                },
                Says::OtherPlane(pattern) => {
                    AssignmentOutcome::WrongPlane { pattern: pattern.shown(&blocks) }
                }
                Says::Yes(_) | Says::Nothing => AssignmentOutcome::NotCovered,
            };
            return Ok(Looked { held, conditioned, outcome, block: None, passed_over: false });
        };
        let mut all_conditioned = true;
        for matched in &covering {
            all_conditioned &= self.block_condition(matched.block)? != NONE;
        }
        conditioned |= all_conditioned;
        if !held.holds {
            let outcome = AssignmentOutcome::OutsideWindow { pattern: first.shown(&blocks) };
            return Ok(Looked { held, conditioned, outcome, block: None, passed_over: false });
        }
        let mut best: Option<(u8, AssignmentOutcome, u32)> = None;
        for matched in covering {
            let (rank, outcome) = self.judged(&held, matched, &blocks)?;
            if best.as_ref().is_none_or(|(other, ..)| rank < *other) {
                best = Some((rank, outcome, matched.block));
            }
        }
        let (_, outcome, block) = best.ok_or(Damaged)?;
        Ok(Looked { held, conditioned, outcome, block: Some(block), passed_over: false })
    }

    /// What comes of a block that covers the action; the lower number came further.
    fn judged(
        &mut self,
        held: &Standing,
        matched: Matched<'v>,
        blocks: &Range<u32>,
    ) -> Result<(u8, AssignmentOutcome), Damaged> {
        let pattern = matched.shown(blocks);
        for (condition, whose) in self.conditions_of(held, Some(matched.block))? {
            return Ok(match self.judge.outcome(condition)? {
                Outcome::Without | Outcome::Truth(Truth::True) => continue,
                Outcome::Truth(truth) => {
                    (1, AssignmentOutcome::ConditionNotTrue { pattern, whose, truth: shown_truth(truth) })
                }
                Outcome::Unusable => (2, AssignmentOutcome::ConditionUnusable { pattern, whose }),
                Outcome::TooCostly => (3, AssignmentOutcome::ConditionTooCostly { pattern, whose }),
            });
        }
        Ok((0, AssignmentOutcome::Granted { pattern }))
    }

    /// The conditions that an assignment has under one of its role's blocks, in the order they are told in.
    fn conditions_of(
        &self,
        held: &Standing,
        block: Option<u32>,
    ) -> Result<Vec<(u32, ConditionOwner)>, Damaged> {
        let mut conditions = Vec::new();
        if let Some(block) = block {
            let index = block.saturating_sub(blocks_of(self.view, held.role).start);
            conditions.push((self.block_condition(block)?, ConditionOwner::Block { index }));
        }
        conditions.push((held.condition, ConditionOwner::Assignment));
        if held.inherited != NONE {
            let extra = evaluate::extra_of(self.view, layout::at(self.view.entries, held.number)?)?;
            let id = describe::eligibility_id(self.view, extra.eligibility.get())?.ok_or(Damaged)?;
            conditions.push((held.inherited, ConditionOwner::Eligibility { id }));
        }
        conditions.retain(|(condition, _)| *condition != NONE);
        Ok(conditions)
    }

    // --- near misses ---

    /// Eligibilities that are open and whose role would grant.
    fn eligible(&mut self) -> Result<Vec<NearMiss>, Damaged> {
        let mut found = Vec::new();
        for principal in self.known {
            for held in standing::eligibilities(self.view, self.place, *principal, self.now)? {
                if held.holds && self.look(held)?.outcome.grants() {
                    found.push(held);
                }
            }
        }
        found.sort_by_key(Standing::order);
        let found = found.into_iter().take(MAX_NEAR_MISSES + 1);
        found.map(|held| describe::activation(self.view, held.number).map(NearMiss::Eligible)).collect()
    }

    /// Assignments below the target whose role covers the action.
    fn too_low(&self) -> Result<Vec<NearMiss>, Damaged> {
        let view = self.view;
        let last = layout::at(view.scopes, self.place.scope)?.last.get();
        let mut below: HashMap<u32, Option<usize>> = HashMap::new();
        let mut covers: HashMap<u32, Option<Matched<'_>>> = HashMap::new();
        let mut found = Vec::new();
        for principal in self.known {
            let record = layout::at(view.principals, *principal)?;
            let entries = layout::slice(view.entries, record.first_entry, record.entries)?;
            let skipped = entries.partition_point(|entry| entry.scope.get() <= self.place.scope);
            let first = record.first_entry.get();
            for (number, entry) in (first..).zip(entries).skip(skipped) {
                let scope = entry.scope.get();
                if scope > last {
                    break;
                }
                let name = layout::at(view.entry_names, number)?.get();
                let held = Standing::of(view, entry, number, name, self.now)?;
                let covers = covers.entry(held.role).or_insert_with(|| self.coverage.covers(view, held.role));
                let (true, Some(matched)) = (held.holds, *covers) else { continue };
                let levels = match below.get(&scope) {
                    Some(levels) => *levels,
                    None => {
                        let levels = self.levels_below(scope)?;
                        below.insert(scope, levels);
                        levels
                    }
                };
                if let Some(levels) = levels {
                    found.push((levels, scope, name, number, matched, held.role));
                }
            }
        }
        found.sort_by_key(|(levels, scope, name, number, ..)| (*levels, *scope, *name, *number));
        found
            .into_iter()
            .take(MAX_NEAR_MISSES + 1)
            .map(|(.., number, matched, role)| {
                Ok(NearMiss::ScopeTooLow {
                    assignment: describe::assignment(view, number)?,
                    pattern: matched.shown(&blocks_of(view, role)),
                })
            })
            .collect()
    }

    /// How many levels a scope has that is known to lie below the place, if it lies below the target too: a target that
    /// nothing stands at is only found by its text.
    fn levels_below(&self, scope: u32) -> Result<Option<usize>, Damaged> {
        let text = describe::written(|out| describe::write_scope(self.view, scope, out))?;
        let scope = Scope::parse(&text).map_err(|_| Damaged)?;
        let below = self.place.exact || self.request.scope.contains(&scope);
        Ok(below.then(|| scope.level_ends().count()))
    }
}

/// An assignment and what it did.
struct Looked {
    held: Standing,
    /// Whether a condition decides about it.
    conditioned: bool,
    outcome: AssignmentOutcome,
    /// The block whose conditions were evaluated.
    block: Option<u32>,
    /// Whether the check had no steps left for its conditions.
    passed_over: bool,
}

fn first_too_costly(conditions: &mut [ExplainedCondition]) {
    if let Some(first) = conditions.first_mut() {
        first.outcome = ConditionOutcome::TooCostly;
    }
}
