//! Which roles and deny assignments speak of an action: found once per action string and kept.
//!
//! Matching every pattern of every role on each request would cost more than all the rest. The answer is a pure
//! function of the policy, the plane and the action, so it is kept as a set of bits: one for each role (and for
//! each deny assignment) that has a permission block whose include list matches and whose exclude list does not
//! (semantics, sections 2.1 to 2.3). Where such a block has a condition, the unit is listed with it instead.

use std::sync::Arc;

use arrayvec::ArrayVec;
use dashmap::DashMap;

use super::hash;
use super::layout::{self, Damaged, NONE, Pattern, PatternGroup, STRICT_WILDCARDS, View};
use crate::model::{Action, MAX_ACTION_BYTES, Plane, Wildcards, pattern_matches};

/// What all kept sets and their keys may take. Callers can invent endless action strings that `*` matches; beyond
/// this, a new one is matched again each time it is asked.
const MEMO_BYTES: usize = 8 << 20;

/// The units (roles, then deny assignments) that speak of one action.
#[derive(Debug)]
pub(super) struct ActionSet {
    /// Those with a matching block that has no condition.
    bits: Box<[u64]>,
    /// The others: unit and condition of each matching block, by unit.
    conditional: Box<[(u32, u32)]>,
    /// Whether any deny assignment does.
    pub(super) denies: bool,
}

/// The sets of the actions that have been asked for.
#[derive(Debug)]
pub(super) struct ActionMemo {
    /// By plane and folded action. Requests choose the keys, so the hash is seeded.
    sets: DashMap<Box<[u8]>, Arc<ActionSet>, ahash::RandomState>,
    capacity: usize,
}

impl ActionSet {
    #[inline]
    pub(super) fn has(&self, unit: u32) -> bool {
        has_bit(&self.bits, unit)
    }

    /// Of a unit that [`ActionSet::has`] not: the conditions of its matching blocks, one of which has to do.
    #[inline]
    pub(super) fn conditions_of(&self, unit: u32) -> &[(u32, u32)] {
        if self.conditional.is_empty() {
            return &[];
        }
        let first = self.conditional.partition_point(|(other, _)| *other < unit);
        let rest = self.conditional.get(first..).unwrap_or_default();
        rest.get(..rest.partition_point(|(other, _)| *other == unit)).unwrap_or_default()
    }

    /// Matches the patterns that can match.
    pub(super) fn find(view: &View<'_>, action: &str, plane: Plane) -> Result<Self, Damaged> {
        let words = view.blocks.len().div_ceil(64);
        let (mut included, mut excluded) = (vec![0_u64; words], vec![0_u64; words]);
        let (include_list, exclude_list) = match plane {
            Plane::Control => (0, 1),
            Plane::Data => (2, 3),
        };
        matching(view, action, |_, pattern| {
            for posting in layout::slice(view.postings, pattern.first_posting, pattern.postings)? {
                let (block, list) = (posting.get() / 4, posting.get() % 4);
                if list == include_list {
                    set_bit(&mut included, block)?;
                } else if list == exclude_list {
                    set_bit(&mut excluded, block)?;
                }
            }
            Ok(())
        })?;
        let mut bits = vec![0_u64; view.units.div_ceil(64)];
        let (mut conditional, mut denies) = (Vec::new(), false);
        for (block, (unit, condition)) in view.blocks.iter().zip(view.block_conditions).enumerate() {
            let bit = |words: &[u64]| words.get(block / 64).is_some_and(|word| word >> (block % 64) & 1 == 1);
            if bit(&included) && !bit(&excluded) {
                match condition.get() {
                    NONE => set_bit(&mut bits, unit.get())?,
                    condition => conditional.push((unit.get(), condition)),
                }
                denies |= unit.get() as usize >= view.roles.len();
            }
        }
        conditional.retain(|(unit, _)| !has_bit(&bits, *unit));
        conditional.sort_unstable();
        let (bits, conditional) = (bits.into_boxed_slice(), conditional.into_boxed_slice());
        Ok(Self { bits, conditional, denies })
    }
}

impl ActionMemo {
    /// For sets of so many units.
    pub(super) fn new(units: usize) -> Self {
        // Key, set and the map's own share of an entry, roughly.
        let entry = units.div_ceil(8).saturating_add(192);
        // The map is for two to a few threads; the default of four shards a core is for far more contention.
        Self {
            sets: DashMap::with_hasher_and_shard_amount(ahash::RandomState::new(), 8),
            capacity: MEMO_BYTES / entry,
        }
    }

    /// Gives the set of an action to `use_set`. No allocation for an action that was asked before.
    #[inline]
    pub(super) fn with<T, E: From<Damaged>>(
        &self,
        view: &View<'_>,
        action: Action<'_>,
        plane: Plane,
        use_set: impl FnOnce(&ActionSet) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut key = ArrayVec::<u8, { MAX_ACTION_BYTES + 1 }>::new();
        key.push(u8::from(plane == Plane::Data));
        key.try_extend_from_slice(action.as_str().as_bytes()).map_err(|_| Damaged)?;
        key.make_ascii_lowercase();
        // The shard's read lock is held while the set is used: well under a microsecond, and nothing in there
        // takes another lock.
        if let Some(set) = self.sets.get(key.as_slice()) {
            return use_set(&set);
        }
        let set = Arc::new(ActionSet::find(view, action.as_str(), plane)?);
        if self.sets.len() < self.capacity {
            self.sets.insert(Box::from(key.as_slice()), Arc::clone(&set));
        }
        use_set(&set)
    }

    /// How many actions are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sets.len()
    }
}

/// How `/*/` is read in this policy.
pub(super) fn wildcards(view: &View<'_>) -> Wildcards {
    if view.flags & STRICT_WILDCARDS == 0 { Wildcards::Collapse } else { Wildcards::Strict }
}

/// Hands out the patterns that an action matches, each with its text.
pub(super) fn matching<'v>(
    view: &View<'v>,
    action: &str,
    mut each: impl FnMut(&'v str, &'v Pattern) -> Result<(), Damaged>,
) -> Result<(), Damaged> {
    let wildcards = wildcards(view);
    let first_segment = action.split('/').next().unwrap_or_default();
    let wanted = hash::path(hash::EMPTY_PATH, first_segment.as_bytes());
    let own_group = view
        .pattern_groups
        .get(1..)
        .and_then(|groups| {
            groups.binary_search_by_key(&wanted, |group| group.hash.get()).ok().map(|at| (groups, at))
        })
        .and_then(|(groups, at)| groups.get(at));
    let any_group = view.pattern_groups.first();
    let mut postings = 0_u64;
    for PatternGroup { first, count, .. } in any_group.into_iter().chain(own_group) {
        for pattern in layout::slice(view.patterns, *first, *count)? {
            let text = std::str::from_utf8(pattern.text.bytes(view.text_bytes)?).map_err(|_| Damaged)?;
            if pattern_matches(text, action, wildcards) {
                // Each posting belongs to one pattern, so what follows them ends in a damaged policy too.
                postings = postings.saturating_add(u64::from(pattern.postings.get()));
                if postings > view.postings.len() as u64 {
                    return Err(Damaged);
                }
                each(text, pattern)?;
            }
        }
    }
    Ok(())
}

#[inline]
fn has_bit(words: &[u64], bit: u32) -> bool {
    words.get(bit as usize / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
}

fn set_bit(words: &mut [u64], bit: u32) -> Result<(), Damaged> {
    let word = words.get_mut(bit as usize / 64).ok_or(Damaged)?;
    *word |= 1 << (bit % 64);
    Ok(())
}
