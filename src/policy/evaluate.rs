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
//! Synchronous, bounded, without lock (but the memo's shard), I/O or, for an action asked before and a subject of
//! up to [`INLINE_PRINCIPALS`] principals, allocation. An index that leads nowhere ends in "undecided".

use arrayvec::ArrayVec;
use smallvec::SmallVec;

use super::actions::ActionSet;
use super::layout::{
    self, DENY_ALL_PRINCIPALS, DENY_AT_MANAGEMENT_GROUP, DENY_AUDIT, DENY_NOT_TO_CHILDREN,
    DENY_TO_MANAGEMENT_GROUP, Damaged, Deny, Entry, HIERARCHY_KNOWN, MAX_LEVELS, NONE, ROOT, Slot, View,
};
use super::{Evaluation, hash};
use crate::model::{CheckRequest, Decision, DenyHit, Grant, PrincipalId, Scope, Subject, Undecided, Why};

/// Subjects with more principals than this cost one allocation.
pub(super) const INLINE_PRINCIPALS: usize = 256;

/// Indices of principals that the policy knows; others have nothing assigned.
type Principals = SmallVec<[u32; INLINE_PRINCIPALS]>;

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
) -> Result<Evaluation, Damaged> {
    let mut principals = Principals::new();
    find_principals(view, &request.subject, &mut principals)?;
    let mut audited = SmallVec::new();
    if actions.denies
        && let Some(hit) = denies(view, place, &principals, actions, &mut audited)?
    {
        return Ok(Evaluation { decision: Decision::Denied(hit), audited, valid_until: None });
    }
    let decision = grants(view, place, &principals, actions)?;
    Ok(Evaluation { decision, audited, valid_until: None })
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
    /// its `suffix` the text in between. All first slots are read before any is looked at, so that the memory they
    /// lie in is waited for once.
    #[inline]
    fn deepest(&self, view: &View<'_>, levels: usize) -> Result<(u32, usize), Damaged> {
        let mut slots = ArrayVec::<Slot, MAX_LEVELS>::new();
        for (_, hash) in self.levels.iter().take(levels) {
            slots.push(first_slot(view.scope_slots, *hash)?);
        }
        let mut deepest = (ROOT, 0);
        let (mut above, mut above_end) = (NONE, 0);
        for ((&(end, hash), first), count) in self.levels.iter().zip(slots).zip(1..) {
            let between = self.text.get(above_end..end as usize).ok_or(Damaged)?;
            let found = probe(view.scope_slots, first, hash, |index| {
                let scope = layout::at(view.scopes, index)?;
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

/// The slot where linear probing for a hash begins.
#[inline]
fn first_slot(slots: &[Slot], hash: u64) -> Result<Slot, Damaged> {
    #[expect(clippy::cast_possible_truncation, reason = "the table takes the low bits")]
    let start = hash as usize & slots.len().wrapping_sub(1);
    slots.get(start).copied().ok_or(Damaged)
}

/// Follows linear probing from its first slot; `same` verifies what the tag only suggests.
#[inline]
fn probe(
    slots: &[Slot],
    first: Slot,
    hash: u64,
    mut same: impl FnMut(u32) -> Result<bool, Damaged>,
) -> Result<Option<u32>, Damaged> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the table takes the low bits, the tag the high ones"
    )]
    let (start, tag) = (hash as usize, (hash >> 32) as u32);
    let mask = slots.len().wrapping_sub(1);
    let mut slot = first;
    for step in 1..=slots.len() {
        let index = slot.index.get();
        if index == NONE {
            return Ok(None);
        }
        if slot.tag.get() == tag && same(index)? {
            return Ok(Some(index));
        }
        slot = slots.get(start.wrapping_add(step) & mask).copied().ok_or(Damaged)?;
    }
    Ok(None)
}

/// The subject, its groups as asserted, and every group that contains one of them (semantics, section 1.5 and
/// section 10, row 3).
///
/// What is known of a principal lies in three places of memory that nobody has touched for long: its slot, its
/// record, its assignments. So all slots are read before any record and all records before any assignment: the
/// processor then waits for many of them at once instead of for each in turn.
#[inline]
fn find_principals(view: &View<'_>, subject: &Subject<'_>, all: &mut Principals) -> Result<(), Damaged> {
    add_one(view, subject.principal, all)?;
    for together in subject.groups.chunks(TOGETHER) {
        let mut guids = ArrayVec::<(u128, u64), TOGETHER>::new();
        for group in together {
            match PrincipalId::new(group) {
                PrincipalId::Guid(guid) => guids.push((guid.as_u128(), hash::guid(guid.as_u128()))),
                text @ PrincipalId::Text(_) => add_one(view, text, all)?,
            }
        }
        let mut slots = ArrayVec::<Slot, TOGETHER>::new();
        for (_, hash) in &guids {
            slots.push(first_slot(view.guid_slots, *hash)?);
        }
        let begin = all.len();
        for (&(guid, hash), first) in guids.iter().zip(slots) {
            all.extend(find_guid(view, guid, hash, first)?);
        }
        for position in begin..all.len() {
            add_groups(view, position, all)?;
        }
    }
    // Groups that contain each other repeat the same groups; a few repetitions cost less than finding them.
    if all.len() > 64 {
        all.sort_unstable();
        all.dedup();
    }
    Ok(())
}

/// So many principals are looked up side by side.
const TOGETHER: usize = 16;

fn add_one(view: &View<'_>, id: PrincipalId<'_>, all: &mut Principals) -> Result<(), Damaged> {
    let found = match id {
        PrincipalId::Guid(guid) => {
            let hash = hash::guid(guid.as_u128());
            find_guid(view, guid.as_u128(), hash, first_slot(view.guid_slots, hash)?)?
        }
        PrincipalId::Text(text) => {
            let hash = hash::text(text.as_bytes());
            let first = first_slot(view.text_slots, hash)?;
            probe(view.text_slots, first, hash, |index| Ok(principal_text(view, index)? == text.as_bytes()))?
        }
    };
    if let Some(index) = found {
        all.push(index);
        add_groups(view, all.len().saturating_sub(1), all)?;
    }
    Ok(())
}

#[inline]
fn find_guid(view: &View<'_>, guid: u128, hash: u64, first: Slot) -> Result<Option<u32>, Damaged> {
    probe(view.guid_slots, first, hash, |index| Ok(layout::at(view.principals, index)?.id.get() == guid))
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
    view: &View<'_>,
    place: Place,
    principals: &[u32],
    actions: &ActionSet,
    audited: &mut SmallVec<[DenyHit; 2]>,
) -> Result<Option<DenyHit>, Damaged> {
    let mut hit = None;
    let mut at_or_above = place.scope;
    loop {
        let scope = layout::at(view.scopes, at_or_above)?.nearest_deny.get();
        if scope == NONE {
            break;
        }
        let parent = layout::at(view.scopes, scope)?.parent.get();
        // Numbers fall towards the root, so this ends also in a damaged policy.
        if scope > at_or_above || (parent >= scope && parent != NONE) {
            return Err(Damaged);
        }
        let first = view.denies.partition_point(|deny| deny.scope.get() < scope);
        let here =
            view.denies.iter().enumerate().skip(first).take_while(|(_, deny)| deny.scope.get() == scope);
        for (index, deny) in here {
            if !actions.has(deny.unit.get()) || !applies(view, deny, place, principals)? {
                continue;
            }
            #[expect(clippy::cast_possible_truncation, reason = "sections are counted in 32 bits")]
            let this = DenyHit::new(index as u32);
            if deny.flags.get() & DENY_AUDIT != 0 {
                audited.push(this);
            } else if hit.is_none() {
                hit = Some(this);
            }
        }
        if parent == NONE {
            break;
        }
        at_or_above = parent;
    }
    Ok(hit)
}

fn applies(view: &View<'_>, deny: &Deny, place: Place, principals: &[u32]) -> Result<bool, Damaged> {
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

/// The grant to report: the most specific scope first, then the smallest name (semantics, section 2.5).
#[inline]
fn grants(
    view: &View<'_>,
    place: Place,
    principals: &[u32],
    actions: &ActionSet,
) -> Result<Decision, Damaged> {
    let mut best: Option<Candidate> = None;
    let mut any_applies = false;
    for together in principals.chunks(TOGETHER) {
        let mut held = ArrayVec::<Held<'_>, TOGETHER>::new();
        for &index in together {
            let principal = layout::at(view.principals, index)?;
            let entries = layout::slice(view.entries, principal.first_entry, principal.entries)?;
            let middle = entries.len() / 2;
            if let (Some(last), Some(in_the_middle)) = (entries.last(), entries.get(middle)) {
                held.push(Held {
                    first: principal.first_entry.get(),
                    entries,
                    last_scope: last.scope.get(),
                    middle_scope: in_the_middle.scope.get(),
                });
            }
        }
        for held in held {
            held.walk(view, place, actions, &mut any_applies, &mut best)?;
        }
    }
    Ok(match best {
        Some(best) => Decision::Allowed(Grant::new(best.number)),
        None if any_applies => Decision::NotAllowed(Why::ActionNotGranted),
        None => Decision::NotAllowed(Why::NoRoleAssignment),
    })
}

/// An assignment that grants.
#[derive(Clone, Copy)]
struct Candidate {
    scope: u32,
    name: u32,
    number: u32,
}

/// A principal's assignments.
struct Held<'a> {
    /// Number of the first.
    first: u32,
    entries: &'a [Entry],
    /// Read ahead: where the search begins.
    last_scope: u32,
    middle_scope: u32,
}

impl Held<'_> {
    /// Looks at those that stand at or above the place, from the most specific scope upwards.
    #[inline]
    fn walk(
        &self,
        view: &View<'_>,
        place: Place,
        actions: &ActionSet,
        any_applies: &mut bool,
        best: &mut Option<Candidate>,
    ) -> Result<(), Damaged> {
        // The last entry whose scope does not lie behind the place in preorder: whatever stands at or above the
        // place is this one or on its chain of enclosing entries.
        let not_behind = |entry: &Entry| entry.scope.get() <= place.scope;
        let middle = self.entries.len() / 2;
        let behind = if self.last_scope <= place.scope {
            self.entries.len()
        } else if self.middle_scope <= place.scope {
            middle.saturating_add(self.entries.get(middle..).ok_or(Damaged)?.partition_point(not_behind))
        } else {
            self.entries.get(..middle).ok_or(Damaged)?.partition_point(not_behind)
        };
        let mut next = behind.checked_sub(1);
        while let Some(position) = next {
            let entry = self.entries.get(position).ok_or(Damaged)?;
            let scope = entry.scope.get();
            if entry.last.get() >= place.scope {
                *any_applies = true;
                if best.is_some_and(|best| scope < best.scope) {
                    break;
                }
                if actions.has(entry.role.get()) {
                    let number = self.first.saturating_add(u32::try_from(position).map_err(|_| Damaged)?);
                    let name = layout::at(view.entry_names, number)?.get();
                    if best.is_none_or(|best| scope > best.scope || name < best.name) {
                        *best = Some(Candidate { scope, name, number });
                    }
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
