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
    self, DENY_ALL_PRINCIPALS, DENY_AT_MANAGEMENT_GROUP, DENY_AUDIT, DENY_NOT_TO_CHILDREN, Damaged, Deny,
    Entry, HIERARCHY_KNOWN, MAX_SEGMENTS, NONE, Slot, View,
};
use super::{Evaluation, hash};
use crate::model::{
    CheckRequest, Decision, DenyHit, Grant, PrincipalId, Scope, ScopeKind, Subject, Undecided, Why,
};

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
    let principals = principals(view, &request.subject)?;
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
    let place = path.deepest(view)?;
    if view.flags & DENY_AT_MANAGEMENT_GROUP != 0 {
        hierarchy_known(view, scope, &path)?;
    }
    Ok(place)
}

/// Semantics, section 9, row 37: with a deny assignment at a management group, a target whose place in the
/// hierarchy is not known must not be decided.
#[cold]
fn hierarchy_known(view: &View<'_>, scope: Scope<'_>, path: &Path<'_>) -> Result<(), Undecided> {
    // The segments of the holder itself: `/subscriptions/{id}`, `/providers/{namespace}/managementGroups/{name}`.
    let (holder, segments) = match (scope.subscription(), scope.management_group()) {
        (Some(id), _) => (format!("subscription `{id}`"), 2),
        (None, Some(name)) => (format!("management group `{name}`"), 4),
        (None, None) => return Ok(()),
    };
    let known = match path.find(view, segments)? {
        Some(index) => layout::at(view.scopes, index)?.flags.get() & HIERARCHY_KNOWN != 0,
        None => false,
    };
    if known { Ok(()) } else { Err(Undecided::UnknownHierarchy { holder }) }
}

/// A target's path with the hash of each of its prefixes at a segment boundary.
struct Path<'a> {
    text: &'a [u8],
    /// For each segment its end in `text` and the hash of the path up to there.
    prefixes: ArrayVec<(u32, u64), MAX_SEGMENTS>,
    /// Whether all segments fitted in `prefixes`.
    whole: bool,
}

impl<'a> Path<'a> {
    #[inline]
    fn new(scope: Scope<'a>) -> Self {
        let text = scope.as_str().as_bytes();
        let mut prefixes = ArrayVec::new();
        let mut whole = true;
        if scope.kind() != ScopeKind::Root {
            let (mut state, mut start) = (hash::EMPTY_PATH, 1);
            while let Some(rest) = text.get(start..) {
                let length = memchr::memchr(b'/', rest).unwrap_or(rest.len());
                let end = start.saturating_add(length);
                state = hash::segment(state, rest.get(..length).unwrap_or_default());
                #[expect(clippy::cast_possible_truncation, reason = "a scope has at most 2,048 bytes")]
                if prefixes.try_push((end as u32, state)).is_err() {
                    whole = false;
                    break;
                }
                start = end.saturating_add(1);
            }
        }
        Self { text, prefixes, whole }
    }

    /// The deepest known scope; the root is always known.
    #[inline]
    fn deepest(&self, view: &View<'_>) -> Result<Place, Damaged> {
        for count in (1..=self.prefixes.len()).rev() {
            if let Some(scope) = self.find(view, count)? {
                return Ok(Place { scope, exact: self.whole && count == self.prefixes.len() });
            }
        }
        Ok(Place { scope: 0, exact: self.text == b"/" })
    }

    /// The known scope that is exactly the first `segments` segments.
    #[inline]
    fn find(&self, view: &View<'_>, segments: usize) -> Result<Option<u32>, Damaged> {
        let Some(&(end, hash)) = segments.checked_sub(1).and_then(|index| self.prefixes.get(index)) else {
            return Ok(None);
        };
        let prefix = self.text.get(..end as usize).ok_or(Damaged)?;
        probe(view.scope_slots, hash, |index| is_path(view, index, prefix))
    }
}

/// Whether the text of a scope is exactly `path`, letter case ignored: compared from the end, parent by parent.
#[inline]
fn is_path(view: &View<'_>, mut index: u32, path: &[u8]) -> Result<bool, Damaged> {
    let mut rest = path;
    loop {
        let scope = layout::at(view.scopes, index)?;
        let suffix = scope.suffix.bytes(view.text_bytes)?;
        let Some(at) = rest.len().checked_sub(suffix.len()) else {
            return Ok(false);
        };
        let (head, tail) = rest.split_at_checked(at).ok_or(Damaged)?;
        if !tail.eq_ignore_ascii_case(suffix) {
            return Ok(false);
        }
        let parent = scope.path_parent.get();
        if parent == NONE {
            return Ok(head.is_empty());
        }
        // Numbers fall towards the root, so this ends also in a damaged policy.
        if parent >= index {
            return Err(Damaged);
        }
        (rest, index) = (head, parent);
    }
}

/// Follows linear probing from a hash; `same` verifies what the tag only suggests.
#[inline]
fn probe(
    slots: &[Slot],
    hash: u64,
    mut same: impl FnMut(u32) -> Result<bool, Damaged>,
) -> Result<Option<u32>, Damaged> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the table takes the low bits, the tag the high ones"
    )]
    let (start, tag) = (hash as usize, (hash >> 32) as u32);
    let mask = slots.len().wrapping_sub(1);
    for step in 0..slots.len() {
        let slot = slots.get(start.wrapping_add(step) & mask).ok_or(Damaged)?;
        let index = slot.index.get();
        if index == NONE {
            return Ok(None);
        }
        if slot.tag.get() == tag && same(index)? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// The subject, its groups as asserted, and every group that contains one of them (semantics, section 1.5 and
/// section 10, row 3).
#[inline]
fn principals(view: &View<'_>, subject: &Subject<'_>) -> Result<Principals, Damaged> {
    let mut all = Principals::new();
    add_principal(view, subject.principal, &mut all)?;
    for group in subject.groups {
        add_principal(view, PrincipalId::new(group), &mut all)?;
    }
    // Groups that contain each other repeat the same groups; a few repetitions cost less than finding them.
    if all.len() > 64 {
        all.sort_unstable();
        all.dedup();
    }
    Ok(all)
}

#[inline]
fn add_principal(view: &View<'_>, id: PrincipalId<'_>, all: &mut Principals) -> Result<(), Damaged> {
    if let Some(index) = find_principal(view, id)? {
        all.push(index);
        let principal = layout::at(view.principals, index)?;
        for group in layout::slice(view.member_of, principal.first_group, principal.groups)? {
            all.push(group.get());
        }
    }
    Ok(())
}

#[inline]
pub(super) fn find_principal(view: &View<'_>, id: PrincipalId<'_>) -> Result<Option<u32>, Damaged> {
    match id {
        PrincipalId::Guid(guid) => {
            let wanted = guid.as_u128();
            probe(view.guid_slots, hash::guid(wanted), |index| {
                Ok(layout::at(view.principals, index)?.id.get() == wanted)
            })
        }
        PrincipalId::Text(text) => probe(view.text_slots, hash::text(text.as_bytes()), |index| {
            Ok(principal_text(view, index)? == text.as_bytes())
        }),
    }
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
    let mut scope = layout::at(view.scopes, place.scope)?.nearest_deny.get();
    while scope != NONE {
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
        let parent = layout::at(view.scopes, scope)?.parent.get();
        if parent == NONE {
            break;
        }
        if parent >= scope {
            return Err(Damaged);
        }
        scope = layout::at(view.scopes, parent)?.nearest_deny.get();
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
    let mut best: Option<(u32, u32, u32)> = None;
    let mut any_applies = false;
    for &index in principals {
        let principal = layout::at(view.principals, index)?;
        let entries = layout::slice(view.entries, principal.first_entry, principal.entries)?;
        let mut next = last_not_behind(entries, place.scope);
        while let Some(position) = next {
            let entry = entries.get(position).ok_or(Damaged)?;
            let scope = entry.scope.get();
            if entry.last.get() >= place.scope {
                any_applies = true;
                if best.is_some_and(|(best_scope, ..)| scope < best_scope) {
                    break;
                }
                if actions.has(entry.role.get()) {
                    let number = principal
                        .first_entry
                        .get()
                        .saturating_add(u32::try_from(position).map_err(|_| Damaged)?);
                    let name = layout::at(view.entry_names, number)?.get();
                    if best.is_none_or(|(best_scope, best_name, _)| scope > best_scope || name < best_name) {
                        best = Some((scope, name, number));
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
    }
    Ok(match best {
        Some((_, _, number)) => Decision::Allowed(Grant::new(number)),
        None if any_applies => Decision::NotAllowed(Why::ActionNotGranted),
        None => Decision::NotAllowed(Why::NoRoleAssignment),
    })
}

/// The last entry whose scope does not lie behind `scope` in preorder. Whatever of these entries stands at or
/// above `scope` is that one or on its chain of enclosing entries.
#[inline]
fn last_not_behind(entries: &[Entry], scope: u32) -> Option<usize> {
    entries.partition_point(|entry| entry.scope.get() <= scope).checked_sub(1)
}
