//! What a subject may do at a scope (semantics, sections 2.3 to 2.5): the patterns that its roles give there, and
//! known operations one by one.

use jiff::Timestamp;

use super::actions::ActionSet;
use super::evaluate::{self, Place};
use super::layout::{Damaged, Deny, View};
use super::prospects::{Prospect, Prospects};
use super::standing::{self, MAX_ITEMS, Patterns, Standing, cut};
use super::{Policy, describe};
use crate::model::{
    Action, DenyEffect, KnownOperation, OperationOutcome, PermissionDeny, PermissionGrant, PermissionList,
    PermissionQuery, PermittedOperation, Plane, Undecided,
};

/// An answer lists no more patterns and no more operations than these.
const MAX_PATTERNS: usize = 10_000;
const MAX_OPERATIONS: usize = 5_000;

/// No more operations are looked at.
const MAX_ASKED: usize = 20_000;

impl Policy {
    /// Lists what a subject may do at a scope. Attributes are not known, so what depends on them is told as that.
    ///
    /// # Errors
    ///
    /// [`Undecided`] as for a check at the scope.
    pub fn list_permissions(
        &self,
        query: &PermissionQuery<'_>,
        now: Timestamp,
    ) -> Result<PermissionList, Undecided> {
        let view = self.view();
        let place = evaluate::locate(view, query.scope)?;
        Ok(list(view, query, place, now)?)
    }
}

fn list(
    view: &View<'_>,
    query: &PermissionQuery<'_>,
    place: Place,
    now: Timestamp,
) -> Result<PermissionList, Damaged> {
    let (_, principals) = standing::principals_of(view, &query.subject)?;
    let (mut held, mut eligible) = (Vec::new(), Vec::new());
    for principal in &principals {
        held.extend(standing::assignments(view, place, *principal, now)?);
        eligible.extend(standing::eligibilities(view, place, *principal, now)?);
    }
    for list in [&mut held, &mut eligible] {
        list.retain(|standing| standing.holds);
        list.sort_by_key(Standing::order);
    }
    let mut denies = Vec::new();
    for (_, deny) in standing::denies(view, place)? {
        if evaluate::applies(view, deny, place, &principals)? {
            denies.push(deny);
        }
    }
    let patterns = Patterns::read(view)?;
    let mut list = PermissionList::default();
    let known = match query.operations {
        Some(operations) => operations.iter().map(|one| (one.name.as_str(), one.plane)).collect(),
        None => patterns.literals(view)?,
    };
    operations(view, known, &held, &denies, now, &mut list)?;

    list.truncated |= cut(&mut held, MAX_ITEMS) | cut(&mut eligible, MAX_ITEMS) | cut(&mut denies, MAX_ITEMS);
    let mut left = MAX_PATTERNS;
    for held in held {
        let (blocks, count) = patterns.of_unit(view, held.role)?;
        let Some(fewer) = left.checked_sub(count) else {
            list.truncated = true;
            break;
        };
        left = fewer;
        let conditions = [held.condition, held.inherited];
        let mut grant = PermissionGrant {
            assignment: describe::assignment(view, held.number)?,
            blocks,
            conditions: Vec::new(),
            unusable: false,
        };
        for condition in conditions {
            grant.conditions.extend(describe::condition_text(view, condition)?.map(str::to_owned));
            grant.unusable |= standing::is_unusable(view, condition)?;
        }
        list.grants.push(grant);
    }
    for deny in denies {
        let (blocks, count) = patterns.of_unit(view, deny.unit.get())?;
        let Some(fewer) = left.checked_sub(count) else {
            list.truncated = true;
            break;
        };
        left = fewer;
        list.denies.push(PermissionDeny {
            id: describe::deny_id(view, deny)?,
            name: describe::deny_name(view, deny)?,
            scope: describe::written(|out| describe::write_scope(view, deny.scope.get(), out))?,
            effect: standing::effect(deny),
            blocks,
            condition: describe::condition_text(view, deny.condition.get())?.map(str::to_owned),
        });
    }
    for eligible in eligible {
        list.eligible.push(describe::activation(view, eligible.number)?);
    }
    Ok(list)
}

/// Decides the operations that somebody may ask about one by one.
fn operations(
    view: &View<'_>,
    mut known: Vec<(&str, Plane)>,
    held: &[Standing],
    denies: &[&Deny],
    now: Timestamp,
    list: &mut PermissionList,
) -> Result<(), Damaged> {
    // What is no operation is never granted.
    known.retain(|(name, _)| Action::parse(name).is_ok());
    known.sort_unstable();
    known.dedup();
    list.truncated |= cut(&mut known, MAX_ASKED);
    let mut prospects = Prospects::new(view, now);
    for (name, plane) in known {
        let actions = ActionSet::find(view, name, plane)?;
        prospects.look_at(name);
        let Some((grant, certain)) = granting(&mut prospects, &actions, held)? else { continue };
        let blocking = if actions.denies { blocking(&mut prospects, &actions, denies)? } else { None };
        let outcome = match blocking {
            Some((_, prospect)) if prospect.always_denies() => OperationOutcome::Denied,
            None if certain => OperationOutcome::Allowed,
            _ => OperationOutcome::Conditional,
        };
        if list.operations.len() >= MAX_OPERATIONS {
            list.truncated = true;
            break;
        }
        list.operations.push(PermittedOperation {
            operation: KnownOperation { name: name.to_owned(), plane },
            outcome,
            role_assignment_id: describe::written(|out| {
                describe::write_assignment_id(view, grant.number, out)
            })?,
            deny_assignment_id: blocking.map(|(deny, _)| describe::deny_id(view, deny)).transpose()?,
        });
    }
    Ok(())
}

/// What grants an action: of what grants it whatever attributes there are, the one that a check names; without such, of
/// what may grant it the first. And whether it is certain.
pub(super) fn granting(
    prospects: &mut Prospects<'_>,
    actions: &ActionSet,
    held: &[Standing],
) -> Result<Option<(Standing, bool)>, Damaged> {
    let mut best = None;
    for standing in held {
        let prospect = prospects.grant(actions, standing)?;
        if !prospect.may_grant() {
            continue;
        }
        let order = named_order(actions, standing, prospect);
        if best.is_none_or(|(_, other)| order < other) {
            best = Some((*standing, order));
        }
    }
    Ok(best.map(|(standing, (uncertain, ..))| (standing, !uncertain)))
}

/// What is certain first; then as a check names: the most specific scope, without a condition before with one, then by
/// name (semantics, section 2.5).
pub(super) fn named_order(
    actions: &ActionSet,
    held: &Standing,
    prospect: Prospect,
) -> (bool, std::cmp::Reverse<u32>, bool, u32, u32) {
    let unconditioned = held.is_unconditioned() && actions.has(held.role);
    let (scope, name, number) = held.order();
    (!prospect.always_grants(), scope, !unconditioned, name, number)
}

/// The first enforced deny assignment that blocks an action whatever attributes there are, else the first that may.
pub(super) fn blocking<'v>(
    prospects: &mut Prospects<'_>,
    actions: &ActionSet,
    applying: &[&'v Deny],
) -> Result<Option<(&'v Deny, Prospect)>, Damaged> {
    let mut first = None;
    for deny in applying {
        if standing::effect(deny) == DenyEffect::Audit {
            continue;
        }
        let prospect = prospects.deny(actions, deny)?;
        if prospect.always_denies() {
            return Ok(Some((deny, prospect)));
        }
        if prospect.may_deny() {
            first = first.or(Some((*deny, prospect)));
        }
    }
    Ok(first)
}
