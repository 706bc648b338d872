//! The evaluation (semantics, section 2.5): where the target lies, who the subject is, what denies, what grants.
//!
//! ```text
//! scope ──▶ place (deepest known scope)         subject ──▶ principals (itself, groups, groups of groups)
//!                    │                                             │
//!                    ▼                                             ▼
//!   deny assignments at the place and above       each principal's assignments at the place and above
//!                    └──────────▶ first the denies, then the grants ◀──────────┘
//!                                      both filtered by the action's set
//! ```
//!
//! A role assignment of a schedule counts within its window. Conditions are evaluated last, and only those that would
//! decide. Everything that depends on the time leaves behind when it changes next; the evaluation is repeated there
//! until it gives another answer, and that moment is `valid_until`.
//!
//! Synchronous, bounded, without lock (but the memo's shard), I/O or, for an action asked before and a subject of
//! up to [`INLINE_PRINCIPALS`] principals, allocation. An index that leads nowhere ends in "undecided".

use std::cmp::Reverse;
use std::ops::{ControlFlow, Range};

use arrayvec::ArrayVec;
use jiff::Timestamp;
use smallvec::SmallVec;

use super::actions::ActionSet;
use super::layout::{
    self, DENY_ALL_PRINCIPALS, DENY_AT_MANAGEMENT_GROUP, DENY_AUDIT, DENY_NOT_TO_CHILDREN,
    DENY_TO_MANAGEMENT_GROUP, Damaged, Deny, EXTRA, Entry, Extra, HIERARCHY_KNOWN, MAX_LEVELS, NONE, ROOT,
    Slot, View,
};
use super::{Evaluation, hash};
use crate::condition::{self, Budget, Context, EvalError, Truth, Verdict};
use crate::model::{
    CheckRequest, Decision, DenyHit, Eligibility, Grant, Groups, PrincipalId, Scope, Subject, Undecided, Why,
};

/// Subjects with more principals than this cost one allocation.
pub(super) const INLINE_PRINCIPALS: usize = 256;

/// Indices of principals that the policy knows; others have nothing assigned.
pub(super) type Principals = SmallVec<[u32; INLINE_PRINCIPALS]>;

/// Where a target lies among the scopes of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The deepest known scope at or above the target. What applies to the target stands at it or above it.
    pub(super) scope: u32,
    /// Whether the target is that scope.
    pub(super) exact: bool,
}

impl From<Damaged> for Undecided {
    fn from(_: Damaged) -> Self {
        Self::DamagedPolicy
    }
}

/// Decides under the set of the request's action.
#[inline]
pub(super) fn evaluate(
    view: &View<'_>,
    request: &CheckRequest<'_>,
    place: Place,
    actions: &ActionSet,
    now: Timestamp,
) -> Result<Evaluation, Undecided> {
    let mut principals = Principals::new();
    find_principals(view, &request.subject, &mut principals)?;
    evaluate_as(view, request, place, &principals, actions, now)
}

/// The same for a subject whose principals are known.
#[inline]
pub(super) fn evaluate_as(
    view: &View<'_>,
    request: &CheckRequest<'_>,
    place: Place,
    principals: &[u32],
    actions: &ActionSet,
    now: Timestamp,
) -> Result<Evaluation, Undecided> {
    let (mut evaluation, horizon) = at_moment(view, request, place, principals, actions, now)?;
    if let Some(horizon) = horizon {
        evaluation.valid_until = valid_until(view, &evaluation, now, horizon, |moment| {
            at_moment(view, request, place, principals, actions, moment)
        })?;
    }
    Ok(evaluation)
}

/// The moment at which the answer changes, from the first at which something that took part in it changes.
#[cold]
fn valid_until(
    view: &View<'_>,
    first: &Evaluation,
    now: Timestamp,
    horizon: Timestamp,
    mut again: impl FnMut(Timestamp) -> Result<(Evaluation, Option<Timestamp>), Undecided>,
) -> Result<Option<Timestamp>, Damaged> {
    let (mut before, mut moment) = (now, horizon);
    for _ in 0..MAX_MOMENTS {
        if moment <= before {
            break;
        }
        match again(moment) {
            Ok((later, next)) if says_the_same(view, first, &later)? => {
                before = moment;
                match next {
                    Some(next) => moment = next,
                    None => return Ok(None),
                }
            }
            // Another answer, or none.
            _ => break,
        }
    }
    Ok(Some(moment))
}

/// Whether two answers are one to whoever asks: what one name stands for may lie in two windows.
fn says_the_same(view: &View<'_>, one: &Evaluation, other: &Evaluation) -> Result<bool, Damaged> {
    let granted = |grant: Grant| -> Result<[u32; 4], Damaged> {
        let entry = layout::at(view.entries, grant.assignment())?;
        let name = layout::at(view.entry_names, grant.assignment())?.get();
        let (role, origin) = match entry.role.get() {
            role if role & EXTRA == 0 => (role, 0),
            _ => extra_of(view, entry).map(|extra| (extra.role.get(), extra.flags.get()))?,
        };
        Ok([entry.scope.get(), name, role, origin])
    };
    let decided = match (one.decision, other.decision) {
        (Decision::Allowed(one), Decision::Allowed(other)) => granted(one)? == granted(other)?,
        (one, other) => one == other,
    };
    Ok(decided && one.audited == other.audited)
}

/// An answer that outlasts so many moments at which something changes is said to hold up to the last of them only.
const MAX_MOMENTS: usize = 64;

/// The answer at a moment, and until when nothing that took part in it changes.
#[inline]
fn at_moment(
    view: &View<'_>,
    request: &CheckRequest<'_>,
    place: Place,
    principals: &[u32],
    actions: &ActionSet,
    now: Timestamp,
) -> Result<(Evaluation, Option<Timestamp>), Undecided> {
    let mut audited = SmallVec::new();
    let mut moment = Moment::new(view, request, now);
    let mut decision = None;
    if actions.denies {
        decision = denies(&mut moment, place, principals, actions, &mut audited)?.map(Decision::Denied);
        if decision.is_none() && moment.too_costly {
            return Err(Undecided::ConditionsTooCostly);
        }
    }
    let decision = match decision {
        Some(decision) => decision,
        None => match grants(&mut moment, place, principals, actions)? {
            Decision::NotAllowed(_) if moment.too_costly => return Err(Undecided::ConditionsTooCostly),
            decision => decision,
        },
    };
    Ok((Evaluation { decision, audited, valid_until: None }, moment.horizon()))
}

/// What depends on the moment: windows and conditions.
pub(super) struct Moment<'v, 'r> {
    pub(super) view: &'v View<'v>,
    request: &'r CheckRequest<'r>,
    now: Timestamp,
    nanoseconds: i128,
    budget: Budget,
    /// Nothing that was looked at changes before.
    horizon: i128,
    /// A condition had to be left without a value.
    too_costly: bool,
}

/// What a condition comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is none.
    Without,
    Truth(Truth),
    Unusable,
    TooCostly,
}

impl<'v, 'r> Moment<'v, 'r> {
    #[inline]
    pub(super) fn new(view: &'v View<'v>, request: &'r CheckRequest<'r>, now: Timestamp) -> Self {
        // Reading the nanoseconds divides; most policies have nothing that needs them.
        let nanoseconds = if view.extras.is_empty() { 0 } else { now.as_nanosecond() };
        Self {
            view,
            request,
            now,
            nanoseconds,
            budget: Budget::new(MAX_STEPS),
            horizon: i128::MAX,
            too_costly: false,
        }
    }

    /// How many steps conditions may still take.
    pub(super) fn steps_left(&self) -> u64 {
        self.budget.steps()
    }

    pub(super) fn horizon(&self) -> Option<Timestamp> {
        if self.horizon == i128::MAX { None } else { Timestamp::from_nanosecond(self.horizon).ok() }
    }

    #[inline]
    fn changes_at(&mut self, nanoseconds: i128) {
        if nanoseconds > self.nanoseconds {
            self.horizon = self.horizon.min(nanoseconds);
        }
    }

    /// Whether the window is open; when that changes is kept.
    pub(super) fn is_open(&mut self, extra: &Extra) -> bool {
        let (start, end) = (extra.start.get(), extra.end.get());
        if self.nanoseconds < start {
            // One that ends before it starts never opens.
            if start < end {
                self.changes_at(start);
            }
            return false;
        }
        if self.nanoseconds >= end {
            return false;
        }
        if end != i128::MAX {
            self.changes_at(end);
        }
        true
    }

    /// Evaluates a condition.
    pub(super) fn condition(&mut self, condition: u32) -> Result<Outcome, Damaged> {
        if condition == NONE {
            return Ok(Outcome::Without);
        }
        let record = layout::at(self.view.conditions, condition)?;
        if record.unusable.get() != 0 {
            return Ok(Outcome::Unusable);
        }
        let context = context(self.request, self.now);
        let program = record.program.bytes(self.view.programs)?;
        match condition::evaluate_until(program, &context, &mut self.budget) {
            Ok(Verdict { truth, holds_until }) => {
                if let Some(until) = holds_until {
                    self.horizon = self.horizon.min(until.as_nanosecond());
                }
                Ok(Outcome::Truth(truth))
            }
            Err(EvalError::BudgetExceeded) => {
                self.too_costly = true;
                Ok(Outcome::TooCostly)
            }
            Err(EvalError::Damaged) => Err(Damaged),
        }
    }

    /// Whether a condition on what grants lets it grant (semantics, section 3.5).
    fn lets_grant(&mut self, condition: u32) -> Result<bool, Damaged> {
        Ok(match self.condition(condition)? {
            Outcome::Without => true,
            Outcome::Truth(truth) => truth.grants(),
            Outcome::Unusable | Outcome::TooCostly => false,
        })
    }

    /// Whether a condition on what denies lets it deny (semantics, section 2.4).
    fn lets_deny(&mut self, condition: u32) -> Result<bool, Damaged> {
        Ok(match self.condition(condition)? {
            Outcome::Without | Outcome::Unusable => true,
            Outcome::Truth(truth) => truth.denies(),
            Outcome::TooCostly => false,
        })
    }

    /// Whether one of the matching blocks of a unit has no condition, or one that lets it grant.
    fn role_grants(&mut self, actions: &ActionSet, role: u32) -> Result<bool, Damaged> {
        if actions.has(role) {
            return Ok(true);
        }
        for (_, condition) in actions.conditions_of(role) {
            if self.lets_grant(*condition)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What the conditions of one request may take together: four times the usual budget of one.
pub(super) const MAX_STEPS: u32 = 4 * 65_536;

/// What the conditions of a request read.
#[inline]
pub(super) fn context<'r>(request: &CheckRequest<'r>, now: Timestamp) -> Context<'r> {
    let CheckRequest { action, sub_operation, attributes, .. } = request;
    Context {
        action: action.as_str(),
        sub_operation: *sub_operation,
        now,
        request: attributes.request,
        resource: attributes.resource,
        principal: attributes.principal,
        environment: attributes.environment,
    }
}

/// Finds the target among the scopes; an error says that a deny assignment might be missed.
#[inline]
pub(super) fn locate(view: &View<'_>, scope: Scope<'_>) -> Result<Place, Undecided> {
    let path = Path::new(scope);
    let (deepest, levels) = path.deepest(view, MAX_LEVELS)?;
    let place = Place { scope: deepest, exact: path.whole && levels == path.levels.len() };
    if view.flags & DENY_AT_MANAGEMENT_GROUP != 0 {
        hierarchy_known(view, scope, place, &path)?;
    }
    Ok(place)
}

/// Semantics, section 9, row 37: with a deny assignment at a management group that may lie above the target, a target
/// whose way up the hierarchy is not known to its top must not be decided.
#[cold]
fn hierarchy_known(
    view: &View<'_>,
    scope: Scope<'_>,
    place: Place,
    path: &Path<'_>,
) -> Result<(), Undecided> {
    let holder = match (scope.subscription(), scope.management_group()) {
        (Some(id), _) => format!("subscription `{id}`"),
        (None, Some(name)) => format!("management group `{name}`"),
        (None, None) => return Ok(()),
    };
    // The holder is the first level.
    let (deepest, found) = path.deepest(view, 1)?;
    if found == 1 && layout::at(view.scopes, deepest)?.flags.get() & HIERARCHY_KNOWN != 0 {
        return Ok(());
    }
    // Denies on the known part of the way are found like any others; one elsewhere may be on the unknown part.
    for deny in view.denies.iter().filter(|deny| deny.flags.get() & DENY_TO_MANAGEMENT_GROUP != 0) {
        let above = deny.scope.get();
        if !(above..=layout::at(view.scopes, above)?.last.get()).contains(&place.scope) {
            return Err(Undecided::UnknownHierarchy { holder });
        }
    }
    Ok(())
}

/// A scope's path with the hash of each prefix that is a scope itself.
pub(super) struct Path<'a> {
    text: &'a [u8],
    /// For each level its end in `text` and the hash of the path up to there.
    levels: ArrayVec<(u32, u64), MAX_LEVELS>,
    /// Whether all levels fitted in `levels`.
    pub(super) whole: bool,
}

impl<'a> Path<'a> {
    #[inline]
    pub(super) fn new(scope: Scope<'a>) -> Self {
        let mut path = Self { text: scope.as_str().as_bytes(), levels: ArrayVec::new(), whole: true };
        let (mut state, mut start) = (hash::EMPTY_PATH, 0);
        for end in scope.level_ends() {
            state = hash::path(state, path.text.get(start..end).unwrap_or_default());
            #[expect(clippy::cast_possible_truncation, reason = "a scope has at most 2,048 bytes")]
            if path.levels.try_push((end as u32, state)).is_err() {
                path.whole = false;
                break;
            }
            start = end;
        }
        path
    }

    /// The hash of the whole; `None` for the root.
    pub(super) fn hash(&self) -> Option<u64> {
        self.levels.last().map(|&(_, hash)| hash)
    }

    /// The deepest known scope of up to so many levels, and how many levels it has; the root is always known.
    ///
    /// From the shallowest prefix on, each known one continues the one before: its `path_parent` is that scope and
    /// its `suffix` the text in between. All buckets are read before any slot is looked at, so that the memory they
    /// lie in is waited for once.
    #[inline]
    fn deepest(&self, view: &View<'_>, levels: usize) -> Result<(u32, usize), Damaged> {
        let mut places = ArrayVec::<Range<usize>, MAX_LEVELS>::new();
        for (_, hash) in self.levels.iter().take(levels) {
            places.push(layout::bucket(view.scope_buckets, *hash)?);
        }
        let mut deepest = (ROOT, 0);
        let (mut above, mut above_end) = (NONE, 0);
        for ((&(end, hash), place), count) in self.levels.iter().zip(&places).zip(1..) {
            let found = find(view.scope_slots, place, hash, |index| {
                let scope = layout::at(view.scopes, index)?;
                let between = self.text.get(above_end..end as usize).ok_or(Damaged)?;
                Ok(scope.path_parent.get() == above
                    && scope.suffix.bytes(view.text_bytes)?.eq_ignore_ascii_case(between))
            })?;
            if let Some(scope) = found {
                (above, above_end, deepest) = (scope, end as usize, (scope, count));
            }
        }
        Ok(deepest)
    }
}

/// What a hash leads to, of the slots at a place; `same` verifies what the tag only suggests.
#[inline]
fn find(
    slots: &[Slot],
    place: &Range<usize>,
    hash: u64,
    mut same: impl FnMut(u32) -> Result<bool, Damaged>,
) -> Result<Option<u32>, Damaged> {
    #[expect(clippy::cast_possible_truncation, reason = "the tag is the lower half")]
    let tag = hash as u32;
    for slot in slots.get(place.clone()).ok_or(Damaged)? {
        if slot.tag.get() == tag && same(slot.index.get())? {
            return Ok(Some(slot.index.get()));
        }
    }
    Ok(None)
}

/// The subject, its groups as asserted, and every group that contains one of them (semantics, section 1.5 and
/// section 10, row 3).
///
/// What is known of a principal lies in three places of memory that nobody has touched for long: its bucket, its
/// record, its assignments. So all buckets are read before any record and all records before any assignment: the
/// processor then waits for many of them at once instead of for each in turn.
#[inline]
pub(super) fn find_principals(
    view: &View<'_>,
    subject: &Subject<'_>,
    all: &mut Principals,
) -> Result<(), Damaged> {
    match subject.groups {
        Groups::Owned(ids) => find_all(view, subject.principal, ids.iter().map(String::as_str), all)?,
        Groups::Borrowed(ids) => find_all(view, subject.principal, ids.iter().copied(), all)?,
    }
    // Groups that contain each other repeat the same groups; a few repetitions cost less than finding them.
    let asserted = subject.groups.len().saturating_add(1);
    if all.len() > asserted.saturating_add(64) {
        all.sort_unstable();
        all.dedup();
    }
    Ok(())
}

#[inline]
fn find_all<'a>(
    view: &View<'_>,
    principal: PrincipalId<'_>,
    groups: impl Iterator<Item = &'a str>,
    all: &mut Principals,
) -> Result<(), Damaged> {
    let mut guids = ArrayVec::<u128, TOGETHER>::new();
    match principal {
        PrincipalId::Guid(guid) => guids.push(guid.as_u128()),
        PrincipalId::Text(_) => add_one(view, principal, all)?,
    }
    for group in groups {
        match PrincipalId::new(group) {
            PrincipalId::Guid(guid) => {
                guids.push(guid.as_u128());
                if guids.is_full() {
                    add_guids(view, &guids, all)?;
                    guids.clear();
                }
            }
            text @ PrincipalId::Text(_) => add_one(view, text, all)?,
        }
    }
    add_guids(view, &guids, all)
}

/// Adds those that the policy knows, and the groups that contain them.
#[inline]
fn add_guids(view: &View<'_>, guids: &[u128], all: &mut Principals) -> Result<(), Damaged> {
    let mut places = ArrayVec::<Range<usize>, TOGETHER>::new();
    for guid in guids {
        places.push(layout::bucket(view.guid_buckets, hash::guid(*guid))?);
    }
    let mut memberships = false;
    let mut found = ArrayVec::<u32, TOGETHER>::new();
    for (guid, place) in guids.iter().zip(&places) {
        if let Some((index, principal)) = find_guid(view, *guid, place)? {
            memberships |= principal.groups.get() != 0;
            found.push(index);
        }
    }
    let begin = all.len();
    all.extend_from_slice(&found);
    if memberships {
        for position in begin..all.len() {
            add_groups(view, position, all)?;
        }
    }
    Ok(())
}

/// So many principals are looked up side by side.
const TOGETHER: usize = 16;

/// The number of a principal that the policy knows.
#[inline]
pub(super) fn find_one(view: &View<'_>, id: PrincipalId<'_>) -> Result<Option<u32>, Damaged> {
    match id {
        PrincipalId::Guid(guid) => {
            let guid = guid.as_u128();
            let found = find_guid(view, guid, &layout::bucket(view.guid_buckets, hash::guid(guid))?)?;
            Ok(found.map(|(index, _)| index))
        }
        PrincipalId::Text(text) => {
            let hash = hash::text(text.as_bytes());
            let place = layout::bucket(view.text_buckets, hash)?;
            find(view.text_slots, &place, hash, |index| Ok(principal_text(view, index)? == text.as_bytes()))
        }
    }
}

fn add_one(view: &View<'_>, id: PrincipalId<'_>, all: &mut Principals) -> Result<(), Damaged> {
    if let Some(index) = find_one(view, id)? {
        all.push(index);
        add_groups(view, all.len().saturating_sub(1), all)?;
    }
    Ok(())
}

#[inline]
fn find_guid<'v>(
    view: &View<'v>,
    guid: u128,
    place: &Range<usize>,
) -> Result<Option<(u32, &'v layout::Principal)>, Damaged> {
    let here = view.principals.get(place.clone()).ok_or(Damaged)?;
    #[expect(clippy::cast_possible_truncation, reason = "buckets count in 32 bits")]
    let found = (place.start as u32..).zip(here).find(|(_, principal)| principal.id.get() == guid);
    // What looks like one of them may be the place of a text.
    Ok(found.filter(|(index, _)| *index < view.guid_principals))
}

/// Adds the groups that contain the principal at a position.
#[inline]
fn add_groups(view: &View<'_>, position: usize, all: &mut Principals) -> Result<(), Damaged> {
    let principal = layout::at(view.principals, *all.get(position).ok_or(Damaged)?)?;
    if principal.groups.get() != 0 {
        for group in layout::slice(view.member_of, principal.first_group, principal.groups)? {
            all.push(group.get());
        }
    }
    Ok(())
}

/// The id of a principal whose id is no GUID.
pub(super) fn principal_text<'a>(view: &View<'a>, index: u32) -> Result<&'a [u8], Damaged> {
    let packed = layout::at(view.principals, index)?.id.get();
    #[expect(clippy::cast_possible_truncation, reason = "start in the lower 32 bits, length in the next")]
    let (start, length) = (packed as u32, (packed >> 32) as u32);
    layout::Text { start: start.into(), length: length.into() }.bytes(view.text_bytes)
}

/// Deny assignments from the most specific scope upwards, at each by name: the first enforced hit is the answer
/// (semantics, section 2.4 and section 10, row 17). Audited hits are all collected.
fn denies(
    moment: &mut Moment<'_, '_>,
    place: Place,
    principals: &[u32],
    actions: &ActionSet,
    audited: &mut SmallVec<[DenyHit; 2]>,
) -> Result<Option<DenyHit>, Damaged> {
    let view = moment.view;
    let mut hit = None;
    let mut reports = Budget::new(MAX_STEPS);
    let mut at_or_above = place.scope;
    while let Some((scope, first)) = next_denies(view, at_or_above)? {
        let here =
            view.denies.iter().enumerate().skip(first).take_while(|(_, deny)| deny.scope.get() == scope);
        for (index, deny) in here {
            let audit = deny.flags.get() & DENY_AUDIT != 0;
            if (hit.is_some() && !audit) || !applies(view, deny, place, principals)? {
                continue;
            }
            // A report is made rather than the decision refused, and takes no steps from what decides.
            let before = (moment.too_costly, moment.budget);
            if audit {
                moment.budget = reports;
            }
            moment.too_costly = false;
            let matches = deny_matches(moment, deny, actions)?;
            let costly = moment.too_costly;
            if audit {
                reports = moment.budget;
                (moment.too_costly, moment.budget) = before;
            } else {
                moment.too_costly |= before.0;
            }
            if !(matches || audit && costly) {
                continue;
            }
            #[expect(clippy::cast_possible_truncation, reason = "sections are counted in 32 bits")]
            let this = DenyHit::new(index as u32);
            if audit {
                audited.push(this);
            } else {
                hit = Some(this);
            }
        }
        match layout::at(view.scopes, scope)?.parent.get() {
            NONE => break,
            parent => at_or_above = parent,
        }
    }
    Ok(hit)
}

/// The nearest scope at or above that deny assignments stand at, and the first of them.
pub(super) fn next_denies(view: &View<'_>, at_or_above: u32) -> Result<Option<(u32, usize)>, Damaged> {
    let scope = layout::at(view.scopes, at_or_above)?.nearest_deny.get();
    if scope == NONE {
        return Ok(None);
    }
    let parent = layout::at(view.scopes, scope)?.parent.get();
    // Numbers fall towards the root, so following them ends also in a damaged policy.
    if scope > at_or_above || (parent >= scope && parent != NONE) {
        return Err(Damaged);
    }
    let first = view.denies.partition_point(|deny| deny.scope.get() < scope);
    // None where one should stand: passing it over could allow what it denies.
    if view.denies.get(first).is_none_or(|deny| deny.scope.get() != scope) {
        return Err(Damaged);
    }
    Ok(Some((scope, first)))
}

/// Whether its permissions speak of the action, conditions included.
fn deny_matches(moment: &mut Moment<'_, '_>, deny: &Deny, actions: &ActionSet) -> Result<bool, Damaged> {
    let unit = deny.unit.get();
    let mut matches = actions.has(unit);
    for (_, condition) in actions.conditions_of(unit) {
        matches = matches || moment.lets_deny(*condition)?;
    }
    Ok(matches && moment.lets_deny(deny.condition.get())?)
}

pub(super) fn applies(
    view: &View<'_>,
    deny: &Deny,
    place: Place,
    principals: &[u32],
) -> Result<bool, Damaged> {
    let flags = deny.flags.get();
    if flags & DENY_NOT_TO_CHILDREN != 0 && !(place.exact && place.scope == deny.scope.get()) {
        return Ok(false);
    }
    let lists_one_of = |first, count| -> Result<bool, Damaged> {
        let listed = layout::slice(view.deny_principals, first, count)?;
        Ok(principals.iter().any(|id| listed.binary_search_by_key(id, |listed| listed.get()).is_ok()))
    };
    let included = flags & DENY_ALL_PRINCIPALS != 0 || lists_one_of(deny.first_principal, deny.principals)?;
    Ok(included && !lists_one_of(deny.first_excluded, deny.excluded)?)
}

/// The grant to report: the most specific scope first, then without a condition before with one, then the smallest
/// name (semantics, section 2.5).
#[inline]
fn grants(
    moment: &mut Moment<'_, '_>,
    place: Place,
    principals: &[u32],
    actions: &ActionSet,
) -> Result<Decision, Damaged> {
    let view = moment.view;
    let mut search = Search::default();
    for together in principals.chunks(TOGETHER) {
        let mut held = ArrayVec::<Held<'_>, TOGETHER>::new();
        for &index in together {
            let principal = layout::at(view.principals, index)?;
            let entries = layout::slice(view.entries, principal.first_entry, principal.entries)?;
            held.extend(Held::new(principal.first_entry.get(), entries));
        }
        for held in &held {
            held.visit(place, |entry, number| search.look(moment, actions, entry, number))?;
        }
    }
    if !search.conditioned.is_empty()
        && let Some(granted) = search.conditions(moment, actions)?
    {
        return Ok(Decision::Allowed(Grant::new(granted)));
    }
    if let Some(best) = search.best {
        return Ok(Decision::Allowed(Grant::new(best.number)));
    }
    not_allowed(moment, place, principals, actions, &search)
}

/// An assignment that grants, or would under conditions.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    scope: u32,
    name: u32,
    number: u32,
    role: u32,
    condition: u32,
    inherited: u32,
}

/// What has been found among the assignments.
#[derive(Default)]
struct Search {
    /// The best of those without conditions.
    best: Option<Candidate>,
    /// Those that conditions decide.
    conditioned: SmallVec<[Candidate; 8]>,
    any_applies: bool,
    /// One would grant at another time.
    not_now: bool,
    /// When this changes that decides only why nothing grants.
    why_changes: Option<i128>,
}

impl Search {
    /// Looks at an assignment that applies to the target; breaks when those above it cannot be better.
    #[inline]
    fn look(
        &mut self,
        moment: &mut Moment<'_, '_>,
        actions: &ActionSet,
        entry: &Entry,
        number: u32,
    ) -> Result<ControlFlow<()>, Damaged> {
        let (scope, role) = (entry.scope.get(), entry.role.get());
        if self.best.is_some_and(|best| scope < best.scope) {
            return Ok(ControlFlow::Break(()));
        }
        if role & EXTRA != 0 {
            return self.look_closer(moment, actions, entry, number);
        }
        self.any_applies = true;
        if actions.has(role) {
            let name = layout::at(moment.view.entry_names, number)?.get();
            if self.best.is_none_or(|best| scope > best.scope || name < best.name) {
                self.best = Some(Candidate { scope, name, number, role, condition: NONE, inherited: NONE });
            }
            return Ok(ControlFlow::Break(()));
        }
        if !actions.conditions_of(role).is_empty() {
            let name = layout::at(moment.view.entry_names, number)?.get();
            self.conditioned.push(Candidate { scope, name, number, role, condition: NONE, inherited: NONE });
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The same for one with a window or a condition.
    fn look_closer(
        &mut self,
        moment: &mut Moment<'_, '_>,
        actions: &ActionSet,
        entry: &Entry,
        number: u32,
    ) -> Result<ControlFlow<()>, Damaged> {
        let extra = extra_of(moment.view, entry)?;
        let role = extra.role.get();
        let unconditioned = actions.has(role);
        if !unconditioned && actions.conditions_of(role).is_empty() {
            // It decides at most why nothing grants.
            let horizon = std::mem::replace(&mut moment.horizon, i128::MAX);
            self.any_applies |= moment.is_open(extra);
            let changes = std::mem::replace(&mut moment.horizon, horizon);
            self.why_changes = Some(self.why_changes.map_or(changes, |other| other.min(changes)));
            return Ok(ControlFlow::Continue(()));
        }
        if !moment.is_open(extra) {
            self.not_now = true;
            return Ok(ControlFlow::Continue(()));
        }
        self.any_applies = true;
        let candidate = Candidate {
            scope: entry.scope.get(),
            name: layout::at(moment.view.entry_names, number)?.get(),
            number,
            role,
            condition: extra.condition.get(),
            inherited: extra.inherited.get(),
        };
        if unconditioned && candidate.condition == NONE && candidate.inherited == NONE {
            if self.best.is_none_or(|best| candidate.scope > best.scope || candidate.name < best.name) {
                self.best = Some(candidate);
            }
            return Ok(ControlFlow::Break(()));
        }
        self.conditioned.push(candidate);
        Ok(ControlFlow::Continue(()))
    }

    /// The first of those under conditions that grants and is better than what grants without.
    fn conditions(
        &mut self,
        moment: &mut Moment<'_, '_>,
        actions: &ActionSet,
    ) -> Result<Option<u32>, Damaged> {
        self.conditioned.sort_unstable_by_key(Candidate::order);
        for candidate in &self.conditioned {
            if self.best.is_some_and(|best| best.scope >= candidate.scope) {
                break;
            }
            if candidate.grants(moment, actions)? {
                return Ok(Some(candidate.number));
            }
        }
        Ok(None)
    }
}

impl Candidate {
    /// The most specific scope first, then the smallest name.
    fn order(&self) -> (Reverse<u32>, u32, u32) {
        (Reverse(self.scope), self.name, self.number)
    }

    fn grants(&self, moment: &mut Moment<'_, '_>, actions: &ActionSet) -> Result<bool, Damaged> {
        Ok(moment.lets_grant(self.condition)?
            && moment.lets_grant(self.inherited)?
            && moment.role_grants(actions, self.role)?)
    }
}

/// Why nothing grants, and whether a role could be activated that would.
#[cold]
fn not_allowed(
    moment: &mut Moment<'_, '_>,
    place: Place,
    principals: &[u32],
    actions: &ActionSet,
    search: &Search,
) -> Result<Decision, Damaged> {
    if let Some(changes) = search.why_changes {
        moment.horizon = moment.horizon.min(changes);
    }
    let why = if let Some(number) = eligible(moment, place, principals, actions)? {
        Why::Eligible(Eligibility::new(number))
    } else if !search.conditioned.is_empty() {
        Why::ConditionNotMet
    } else if search.not_now {
        Why::NotActiveNow
    } else if search.any_applies {
        Why::ActionNotGranted
    } else {
        Why::NoRoleAssignment
    };
    Ok(Decision::NotAllowed(why))
}

/// The eligibility to report: one that is open and whose role would grant, conditions included; the most specific
/// scope first, then the smallest name.
fn eligible(
    moment: &mut Moment<'_, '_>,
    place: Place,
    principals: &[u32],
    actions: &ActionSet,
) -> Result<Option<u32>, Damaged> {
    let view = moment.view;
    if view.eligibles.is_empty() {
        return Ok(None);
    }
    let mut found = SmallVec::<[Candidate; 8]>::new();
    for &index in principals {
        let (first, entries) = eligibles_of(view, index)?;
        let Some(held) = Held::new(first, entries) else { continue };
        held.visit(place, |entry, number| {
            let extra = extra_of(view, entry)?;
            let role = extra.role.get();
            if (actions.has(role) || !actions.conditions_of(role).is_empty()) && moment.is_open(extra) {
                found.push(Candidate {
                    scope: entry.scope.get(),
                    name: layout::at(view.eligible_names, number)?.get(),
                    number,
                    role,
                    condition: extra.condition.get(),
                    inherited: NONE,
                });
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    found.sort_unstable_by_key(Candidate::order);
    for candidate in found {
        if candidate.grants(moment, actions)? {
            return Ok(Some(candidate.number));
        }
    }
    Ok(None)
}

/// The eligibilities of a principal and the number of the first.
pub(super) fn eligibles_of<'v>(view: &View<'v>, principal: u32) -> Result<(u32, &'v [Entry]), Damaged> {
    let first = layout::at(view.eligible_first, principal)?.get();
    let end = layout::at(view.eligible_first, principal.checked_add(1).ok_or(Damaged)?)?.get();
    let entries = view.eligibles.get(first as usize..end as usize).ok_or(Damaged)?;
    Ok((first, entries))
}

/// The extra of an entry that has one.
pub(super) fn extra_of<'v>(view: &View<'v>, entry: &Entry) -> Result<&'v Extra, Damaged> {
    layout::at(view.extras, entry.role.get() & !EXTRA)
}

/// A principal's assignments.
pub(super) struct Held<'a> {
    /// Number of the first.
    first: u32,
    entries: &'a [Entry],
    /// Read ahead: where the search begins.
    first_scope: u32,
    middle_scope: u32,
    last_scope: u32,
}

/// So few are looked through one by one.
const FEW: usize = 8;

impl<'a> Held<'a> {
    /// Of a principal that has some.
    #[inline]
    pub(super) fn new(first: u32, entries: &'a [Entry]) -> Option<Self> {
        let (one, in_the_middle, last) = (entries.first()?, entries.get(entries.len() / 2)?, entries.last()?);
        let scope = |entry: &Entry| entry.scope.get();
        let (first_scope, middle_scope, last_scope) = (scope(one), scope(in_the_middle), scope(last));
        Some(Self { first, entries, first_scope, middle_scope, last_scope })
    }

    /// Visits those that stand at or above the place, with their numbers, from the most specific scope upwards, at one
    /// scope by name.
    #[inline]
    pub(super) fn visit(
        &self,
        place: Place,
        mut look: impl FnMut(&Entry, u32) -> Result<ControlFlow<()>, Damaged>,
    ) -> Result<(), Damaged> {
        // What stands at or above the place does not lie behind it in preorder.
        if self.first_scope > place.scope {
            return Ok(());
        }
        // The last entry whose scope does not lie behind the place: whatever stands at or above the place is this one
        // or on its chain of enclosing entries.
        let not_behind = |entry: &Entry| entry.scope.get() <= place.scope;
        let middle = self.entries.len() / 2;
        let behind = if self.last_scope <= place.scope {
            self.entries.len()
        } else if self.entries.len() <= FEW {
            self.entries.iter().rposition(not_behind).map_or(0, |last| last.saturating_add(1))
        } else if self.middle_scope <= place.scope {
            middle.saturating_add(self.entries.get(middle..).ok_or(Damaged)?.partition_point(not_behind))
        } else {
            self.entries.get(..middle).ok_or(Damaged)?.partition_point(not_behind)
        };
        let mut next = behind.checked_sub(1);
        while let Some(position) = next {
            let entry = self.entries.get(position).ok_or(Damaged)?;
            if entry.last.get() >= place.scope {
                let number = self.first.saturating_add(u32::try_from(position).map_err(|_| Damaged)?);
                if look(entry, number)?.is_break() {
                    break;
                }
            }
            next = match entry.enclosing.get() {
                NONE => None,
                enclosing if (enclosing as usize) < position => Some(enclosing as usize),
                _ => return Err(Damaged),
            };
        }
        Ok(())
    }
}
