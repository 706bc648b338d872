//! What stands at a place or above it, in the order in which the explanations tell it: the principals of a subject,
//! role assignments, eligibilities and deny assignments, and which patterns of their roles an action matches.
//!
//! Unlike the evaluation it leaves nothing out, and it allocates. An index that leads nowhere is [`Damaged`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::{ControlFlow, Range};

use jiff::Timestamp;
use zerocopy::little_endian::U32;

use super::evaluate::{self, Held, Place};
use super::layout::{self, Damaged, EXTRA, Entry, NONE, View};
use super::{actions, describe};
use crate::model::{
    DenyEffect, ExplainedPrincipal, MatchedPattern, PermissionPatterns, Plane, PrincipalId, Reached, Subject,
};

/// An answer lists no more of a kind.
pub(super) const MAX_ITEMS: usize = 1_000;

/// The lists of a permission block in the order of their numbers.
const LISTS: [&str; 4] = ["actions", "notActions", "dataActions", "notDataActions"];

// === principals ===

/// Who a subject is: spelled out, and as numbers of what the policy knows, each once, both in the order that
/// explanations name.
pub(super) fn principals_of(
    view: &View<'_>,
    subject: &Subject<'_>,
) -> Result<(Vec<ExplainedPrincipal>, Vec<u32>), Damaged> {
    let (mut listed, mut known) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    let asserted = subject.groups.iter().map(PrincipalId::new);
    for (position, id) in std::iter::once(subject.principal).chain(asserted).enumerate() {
        if !seen.insert(id) {
            continue;
        }
        let found = evaluate::find_one(view, id)?;
        let reached = if position == 0 { Reached::Subject } else { Reached::Asserted };
        listed.push(ExplainedPrincipal { id: id.to_string(), reached, known: found.is_some() });
        known.extend(found.map(|index| (index, id)));
    }
    // By number is by id.
    let given: HashSet<u32> = known.iter().map(|(index, _)| *index).collect();
    let mut containing: BTreeMap<u32, PrincipalId<'_>> = BTreeMap::new();
    for (index, id) in &known {
        for group in groups_of(view, *index)? {
            if !given.contains(&group.get()) {
                containing.entry(group.get()).or_insert(*id);
            }
        }
    }
    let mut known: Vec<u32> = known.into_iter().map(|(index, _)| index).collect();
    for (index, member) in containing {
        let id = describe::principal(view, index)?.to_string();
        listed.push(ExplainedPrincipal {
            id,
            reached: Reached::Contains { member: member.to_string() },
            known: true,
        });
        known.push(index);
    }
    Ok((listed, known))
}

/// The groups that contain a principal.
pub(super) fn groups_of<'v>(view: &View<'v>, principal: u32) -> Result<&'v [U32], Damaged> {
    let record = layout::at(view.principals, principal)?;
    layout::slice(view.member_of, record.first_group, record.groups)
}

// === assignments ===

/// A role assignment or eligibility that applies to a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) number: u32,
    pub(super) scope: u32,
    pub(super) name: u32,
    pub(super) role: u32,
    pub(super) condition: u32,
    pub(super) inherited: u32,
    /// Whether its window is open.
    pub(super) holds: bool,
}

impl Standing {
    /// Of an entry of the assignments or of the eligibilities.
    pub(super) fn of(
        view: &View<'_>,
        entry: &Entry,
        number: u32,
        name: u32,
        now: Timestamp,
    ) -> Result<Self, Damaged> {
        let scope = entry.scope.get();
        let plain = Self {
            number,
            scope,
            name,
            role: entry.role.get(),
            condition: NONE,
            inherited: NONE,
            holds: true,
        };
        if plain.role & EXTRA == 0 {
            return Ok(plain);
        }
        let extra = evaluate::extra_of(view, entry)?;
        Ok(Self {
            role: extra.role.get(),
            condition: extra.condition.get(),
            inherited: extra.inherited.get(),
            holds: (extra.start.get()..extra.end.get()).contains(&now.as_nanosecond()),
            ..plain
        })
    }

    /// Whether it has no condition of its own.
    pub(super) fn is_unconditioned(&self) -> bool {
        self.condition == NONE && self.inherited == NONE
    }

    /// The most specific scope first, then by name.
    pub(super) fn order(&self) -> (Reverse<u32>, u32, u32) {
        (Reverse(self.scope), self.name, self.number)
    }
}

/// The role assignments of a principal at the place or above it.
pub(super) fn assignments(
    view: &View<'_>,
    place: Place,
    principal: u32,
    now: Timestamp,
) -> Result<Vec<Standing>, Damaged> {
    let record = layout::at(view.principals, principal)?;
    let entries = layout::slice(view.entries, record.first_entry, record.entries)?;
    at_or_above(view, place, record.first_entry.get(), entries, view.entry_names, now)
}

/// The eligibilities of a principal at the place or above it.
pub(super) fn eligibilities(
    view: &View<'_>,
    place: Place,
    principal: u32,
    now: Timestamp,
) -> Result<Vec<Standing>, Damaged> {
    if view.eligibles.is_empty() {
        return Ok(Vec::new());
    }
    let (first, entries) = evaluate::eligibles_of(view, principal)?;
    at_or_above(view, place, first, entries, view.eligible_names, now)
}

fn at_or_above(
    view: &View<'_>,
    place: Place,
    first: u32,
    entries: &[Entry],
    names: &[U32],
    now: Timestamp,
) -> Result<Vec<Standing>, Damaged> {
    let mut found = Vec::new();
    if let Some(held) = Held::new(first, entries) {
        held.visit(place, |entry, number| {
            found.push(Standing::of(view, entry, number, layout::at(names, number)?.get(), now)?);
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(found)
}

// === deny assignments ===

/// The deny assignments at the place or above it, with their numbers: the most specific scope first, then by name.
pub(super) fn denies<'v>(view: &View<'v>, place: Place) -> Result<Vec<(u32, &'v layout::Deny)>, Damaged> {
    let mut found = Vec::new();
    let mut at_or_above = place.scope;
    while let Some((scope, first)) = evaluate::next_denies(view, at_or_above)? {
        let here = (0_u32..).zip(view.denies).skip(first).take_while(|(_, deny)| deny.scope.get() == scope);
        found.extend(here);
        match layout::at(view.scopes, scope)?.parent.get() {
            NONE => break,
            parent => at_or_above = parent,
        }
    }
    Ok(found)
}

/// Whether a hit blocks.
pub(super) fn effect(deny: &layout::Deny) -> DenyEffect {
    if deny.flags.get() & layout::DENY_AUDIT == 0 { DenyEffect::Enforced } else { DenyEffect::Audit }
}

// === permission blocks ===

/// The blocks of a role or deny assignment, which lie together.
pub(super) fn blocks_of(view: &View<'_>, unit: u32) -> Range<u32> {
    let first = view.blocks.partition_point(|other| other.get() < unit);
    let count = view.blocks.iter().skip(first).take_while(|other| other.get() == unit).count();
    // Sections are counted in 32 bits.
    let number = |index: usize| u32::try_from(index).unwrap_or(NONE);
    number(first)..number(first.saturating_add(count))
}

/// Which list of which block an action matches.
pub(super) struct Coverage<'v> {
    /// By block × 4 + list.
    matched: HashMap<u32, &'v str>,
    plane: Plane,
}

/// What a block says of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says<'v> {
    /// It covers it.
    Yes(Matched<'v>),
    /// It covers and excludes it.
    Excluded(Matched<'v>, Matched<'v>),
    /// It covers it on the other plane.
    OtherPlane(Matched<'v>),
    /// None of these.
    Nothing,
}

/// A pattern that an action matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matched<'v> {
    /// Counted from the first block of all.
    pub(super) block: u32,
    list: u32,
    pattern: &'v str,
}

impl<'v> Coverage<'v> {
    /// Of an action on both planes.
    pub(super) fn find(view: &View<'v>, action: &str, plane: Plane) -> Result<Self, Damaged> {
        let mut matched: HashMap<u32, &'v str> = HashMap::new();
        actions::matching(view, action, |text, pattern| {
            for posting in layout::slice(view.postings, pattern.first_posting, pattern.postings)? {
                let first = matched.entry(posting.get()).or_insert(text);
                if folded(text).lt(folded(first)) {
                    *first = text;
                }
            }
            Ok(())
        })?;
        Ok(Self { matched, plane })
    }

    /// What a block says.
    pub(super) fn says(&self, block: u32) -> Says<'v> {
        let (own, other) = match self.plane {
            Plane::Control => (0, 2),
            Plane::Data => (2, 0),
        };
        let in_list = |list: u32| {
            let posting = block.checked_mul(4)?.checked_add(list)?;
            Some(Matched { block, list, pattern: self.matched.get(&posting)? })
        };
        match (in_list(own), in_list(own + 1)) {
            (Some(pattern), None) => Says::Yes(pattern),
            (Some(pattern), Some(exclusion)) => Says::Excluded(pattern, exclusion),
            (None, _) => match (in_list(other), in_list(other + 1)) {
                (Some(pattern), None) => Says::OtherPlane(pattern),
                _ => Says::Nothing,
            },
        }
    }

    /// The first block of a role or deny assignment that covers the action.
    pub(super) fn covers(&self, view: &View<'_>, unit: u32) -> Option<Matched<'v>> {
        blocks_of(view, unit).find_map(|block| match self.says(block) {
            Says::Yes(pattern) => Some(pattern),
            _ => None,
        })
    }
}

impl Matched<'_> {
    /// As explanations show it, its block counted from the first of its role or deny assignment.
    pub(super) fn shown(&self, blocks: &Range<u32>) -> MatchedPattern {
        MatchedPattern {
            block: self.block.saturating_sub(blocks.start),
            list: LISTS.get(self.list as usize).copied().unwrap_or_default(),
            pattern: self.pattern.to_owned(),
        }
    }
}

/// The other plane.
pub(super) const fn other_plane(plane: Plane) -> Plane {
    match plane {
        Plane::Control => Plane::Data,
        Plane::Data => Plane::Control,
    }
}

/// All patterns of all blocks, list by list.
pub(super) struct Patterns<'v>(HashMap<u32, Vec<&'v str>>);

impl<'v> Patterns<'v> {
    pub(super) fn read(view: &View<'v>) -> Result<Self, Damaged> {
        let mut lists: HashMap<u32, Vec<&'v str>> = HashMap::new();
        let mut postings = 0_usize;
        for pattern in view.patterns {
            let text = describe::text(pattern.text.bytes(view.text_bytes)?)?;
            let of_pattern = layout::slice(view.postings, pattern.first_posting, pattern.postings)?;
            // Each belongs to one pattern.
            postings = postings.saturating_add(of_pattern.len());
            if postings > view.postings.len() {
                return Err(Damaged);
            }
            for posting in of_pattern {
                lists.entry(posting.get()).or_default().push(text);
            }
        }
        for list in lists.values_mut() {
            list.sort_by(|one, other| folded(one).cmp(folded(other)));
        }
        Ok(Self(lists))
    }

    /// Those of a list, by its number.
    fn list(&self, block: u32, list: u32) -> &[&'v str] {
        let posting = block.checked_mul(4).and_then(|first| first.checked_add(list));
        posting.and_then(|posting| self.0.get(&posting)).map_or(&[], Vec::as_slice)
    }

    /// Everything without a wildcard in the lists of roles, each once, with its plane.
    pub(super) fn literals(&self, view: &View<'_>) -> Result<Vec<(&'v str, Plane)>, Damaged> {
        let mut found = HashSet::new();
        for (posting, list) in &self.0 {
            let unit = layout::at(view.blocks, posting / 4)?.get();
            if unit as usize >= view.roles.len() {
                continue;
            }
            let plane = if posting % 4 < 2 { Plane::Control } else { Plane::Data };
            found.extend(list.iter().filter(|text| !text.contains('*')).map(|text| (*text, plane)));
        }
        Ok(found.into_iter().collect())
    }

    /// The blocks of a role or deny assignment, and how many patterns they have.
    pub(super) fn of_unit(
        &self,
        view: &View<'_>,
        unit: u32,
    ) -> Result<(Vec<PermissionPatterns>, usize), Damaged> {
        let (mut blocks, mut count) = (Vec::new(), 0_usize);
        for block in blocks_of(view, unit) {
            let mut list = |number| -> Vec<String> {
                let list = self.list(block, number);
                count = count.saturating_add(list.len());
                list.iter().map(|text| (*text).to_owned()).collect()
            };
            let condition = layout::at(view.block_conditions, block)?.get();
            blocks.push(PermissionPatterns {
                actions: list(0),
                not_actions: list(1),
                data_actions: list(2),
                not_data_actions: list(3),
                condition: describe::condition_text(view, condition)?.map(str::to_owned),
                unusable: is_unusable(view, condition)?,
            });
        }
        Ok((blocks, count))
    }
}

/// Whether a condition is there and cannot be used.
pub(super) fn is_unusable(view: &View<'_>, condition: u32) -> Result<bool, Damaged> {
    Ok(condition != NONE && layout::at(view.conditions, condition)?.unusable.get() != 0)
}

fn folded(text: &str) -> impl Iterator<Item = u8> + use<'_> {
    text.bytes().map(|byte| byte.to_ascii_lowercase())
}

/// Leaves what stands first; whether something was left out.
pub(super) fn cut<T>(list: &mut Vec<T>, most: usize) -> bool {
    let too_many = list.len() > most;
    list.truncate(most);
    too_many
}
