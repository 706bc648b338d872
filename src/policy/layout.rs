//! The form of a compiled policy: one contiguous, position-independent, little-endian buffer of flat arrays.
//!
//! ```text
//! Header │ section table │ scopes │ scope slots │ principals │ principal slots │ … │ text bytes
//! ```
//!
//! Every record is made of byte-aligned little-endian integers, so a section is used in place wherever the buffer
//! lies. Records refer to each other by index. Opening checks the header and that every section lies within the
//! buffer; every index is checked where it is followed, and one that leads nowhere is [`Damaged`], never a guess.

use zerocopy::little_endian::{I128, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// No index.
pub(super) const NONE: u32 = u32::MAX;

/// The bit of [`Entry::role`] that says that the other bits lead into [`Section::Extras`], not to a role.
pub(super) const EXTRA: u32 = 1 << 31;

/// The index of the scope `/`.
pub(super) const ROOT: u32 = 0;

/// Scopes of more levels are refused in a policy; of a target only this many levels can be known.
pub(super) const MAX_LEVELS: usize = 48;

const MAGIC: [u8; 8] = *b"POSTERN\0";
/// Which form this is: another number for every other form, so that no bytes are ever read as what they are not.
pub const FORMAT: u32 = 3;
const SECTIONS: usize = Section::TextBytes as usize + 1;

/// The sections, in the order they lie in.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Section {
    Scopes,
    ScopeBuckets,
    ScopeSlots,
    Principals,
    GuidBuckets,
    TextBuckets,
    TextSlots,
    MemberOf,
    Entries,
    EntryNames,
    Extras,
    EligibleFirst,
    Eligibles,
    EligibleNames,
    ActivationPolicies,
    Agents,
    Roles,
    Denies,
    DenyPrincipals,
    Blocks,
    BlockConditions,
    Conditions,
    Programs,
    PatternGroups,
    Patterns,
    Postings,
    NameGuids,
    NameTexts,
    TextLists,
    TextBytes,
}

/// Says that the buffer contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the compiled policy contradicts itself")]
pub struct Damaged;

/// A text in the last section.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Text {
    pub start: U32,
    pub length: U32,
}

/// A place that something stands at, or that the hierarchy names. Its index is its preorder number: everything at
/// or below it is the interval from its index to `last`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Scope {
    /// The scope whose text this one's text continues with `suffix`; [`NONE`] where `suffix` is all of it.
    pub path_parent: U32,
    /// The scope above in the hierarchy; [`NONE`] for the root.
    pub parent: U32,
    /// The highest index at or below this scope.
    pub last: U32,
    /// The nearest scope at or above this one that a deny assignment stands at, or [`NONE`].
    pub nearest_deny: U32,
    /// [`HIERARCHY_KNOWN`].
    pub flags: U32,
    pub suffix: Text,
}

/// On a subscription or management group: the documents say what it hangs in, up to a group that hangs in none.
pub(super) const HIERARCHY_KNOWN: u32 = 1;

/// What a key's hash leads to: the lower half of the hash, and an index. Slots are sorted by hash; where those of a hash
/// lie is in a section of buckets ([`bucket`]).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Slot {
    pub tag: U32,
    pub index: U32,
}

/// Who something is assigned to, or who is in a group that something is assigned to. Those with GUIDs first, sorted by
/// the hash of the GUID, so that their buckets lead straight to them.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Principal {
    /// The GUID; of a principal with another id the place of its text, length in the upper half.
    pub id: U128,
    pub first_entry: U32,
    pub entries: U32,
    /// Into [`Section::MemberOf`]: every group that contains it, directly or through others.
    pub first_group: U32,
    pub groups: U32,
}

/// A role assignment, as far as decisions need it. Sorted by principal, then scope, then name downwards.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Entry {
    pub scope: U32,
    /// `last` of the scope, so that following the scope is not needed.
    pub last: U32,
    /// The role; with [`EXTRA`] an [`Extra`] that names it.
    pub role: U32,
    /// Which of the same principal's entries, counted from its first, to look at next when walking from the most
    /// specific scope upwards: at the same scope, or at the nearest scope that contains it; always lower, [`NONE`]
    /// at the end.
    pub enclosing: U32,
}

/// What only some role assignments have, and every schedule: a condition, a beginning, an end.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Extra {
    pub role: U32,
    /// A [`Condition`] or [`NONE`].
    pub condition: U32,
    /// The condition of the eligibility that was activated, or [`NONE`].
    pub inherited: U32,
    /// The name of that eligibility, or [`NONE`].
    pub eligibility: U32,
    /// What the document was: 0 a role assignment, or one of [`FROM_SCHEDULE`] and [`FROM_INSTANCE`].
    pub flags: U32,
    /// Nanoseconds of Unix time, included; the least number is always.
    pub start: I128,
    /// Excluded; the greatest number is never.
    pub end: I128,
}

/// The document was a schedule of PIM.
pub(super) const FROM_SCHEDULE: u32 = 1;
/// The document was an instance of a schedule.
pub(super) const FROM_INSTANCE: u32 = 2;

/// A condition.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Condition {
    /// In [`Section::Programs`]; of a condition that cannot be used empty.
    pub program: Text,
    /// As written.
    pub source: Text,
    /// Why it cannot be used: 0, or one of the `UNUSABLE_…`.
    pub unusable: U32,
}

/// It does not parse, or has no known version.
pub(super) const UNUSABLE_TEXT: u32 = 1;
/// It compares GUIDs, and the role has data actions of Storage (semantics, section 3.7).
pub(super) const UNUSABLE_GUID_ON_STORAGE: u32 = 2;

/// What activating a role at a scope takes. Sorted by role, then scope.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ActivationPolicy {
    pub role: U32,
    pub scope: U32,
    /// `ACTIVATION_…`.
    pub flags: U32,
    /// Empty: not limited.
    pub maximum_duration: Text,
    /// Empty: none.
    pub authentication_context: Text,
    /// Into [`Section::TextLists`].
    pub approvers: List,
}

/// Multi-factor authentication is needed.
pub(super) const ACTIVATION_MFA: u32 = 1;
/// A justification is needed.
pub(super) const ACTIVATION_JUSTIFICATION: u32 = 2;
/// A ticket is needed.
pub(super) const ACTIVATION_TICKET: u32 = 4;
/// Somebody has to approve.
pub(super) const ACTIVATION_APPROVAL: u32 = 8;

/// An agent. Those whose identity is a GUID first, sorted by it.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Agent {
    /// The identity's GUID; of another id the greatest number.
    pub guid: U128,
    /// The identity.
    pub principal: Text,
    /// Resource id; empty: none.
    pub resource: Text,
    /// Display name.
    pub name: Text,
    /// A role's id; empty: the asking user answers.
    pub approver_role: Text,
    /// `AGENT_…`.
    pub flags: U32,
    /// Scopes of resource groups.
    pub managed: List,
    /// Actions that only look.
    pub query_actions: List,
}

/// Level Privileged.
pub(super) const AGENT_PRIVILEGED: u32 = 1;
/// Mode auto.
pub(super) const AGENT_AUTO: u32 = 2;
/// It has query actions of its own.
pub(super) const AGENT_QUERIES: u32 = 4;

/// Several of [`Section::TextLists`].
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct List {
    pub first: U32,
    pub count: U32,
}

/// A role definition.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Role {
    pub id: U32,
    pub name: Text,
}

/// A deny assignment. Sorted by scope, then name.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Deny {
    pub scope: U32,
    /// Its bit in an action's set.
    pub unit: U32,
    pub flags: U32,
    pub name: U32,
    /// Into [`Section::DenyPrincipals`], sorted.
    pub first_principal: U32,
    pub principals: U32,
    pub first_excluded: U32,
    pub excluded: U32,
    /// For the whole of it: a [`Condition`] or [`NONE`].
    pub condition: U32,
    /// Empty: none.
    pub display_name: Text,
}

/// Reports a hit, does not block.
pub(super) const DENY_AUDIT: u32 = 1;
/// Applies at its own scope only.
pub(super) const DENY_NOT_TO_CHILDREN: u32 = 2;
/// Is for All Principals.
pub(super) const DENY_ALL_PRINCIPALS: u32 = 4;
/// Stands at a management group, blocks, and applies to what lies below.
pub(super) const DENY_TO_MANAGEMENT_GROUP: u32 = 8;

/// Patterns that begin with the same literal segment; the first group holds those that begin with a wildcard.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct PatternGroup {
    pub hash: U64,
    pub first: U32,
    pub count: U32,
}

/// A pattern, once for all lists that hold it, in the first of its spellings.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Pattern {
    pub text: Text,
    /// Into [`Section::Postings`]: permission block × 4 + number of the list.
    pub first_posting: U32,
    pub postings: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    format: U32,
    flags: U32,
    units: U32,
    guid_principals: U32,
    /// What conditions read, all together.
    uses: U32,
    unused: U32,
    sections: [SectionPlace; SECTIONS],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SectionPlace {
    start: U64,
    length: U64,
}

/// `/*/` does not collapse.
pub(super) const STRICT_WILDCARDS: u32 = 1;
/// A deny assignment has [`DENY_TO_MANAGEMENT_GROUP`].
pub(super) const DENY_AT_MANAGEMENT_GROUP: u32 = 2;

/// Something begins or ends, or a condition reads the time.
pub(super) const DEPENDS_ON_TIME: u32 = 4;
/// Conditions were read with the operators of the extension.
pub(super) const CONDITION_EXTENSIONS: u32 = 8;

/// All sections of a buffer, typed.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub flags: u32,
    /// Roles and deny assignments: bits in an action's set.
    pub units: usize,
    /// How many of the principals have GUIDs.
    pub guid_principals: u32,
    pub uses: u32,
    pub scopes: &'a [Scope],
    pub scope_buckets: &'a [U32],
    pub scope_slots: &'a [Slot],
    pub principals: &'a [Principal],
    pub guid_buckets: &'a [U32],
    pub text_buckets: &'a [U32],
    pub text_slots: &'a [Slot],
    pub member_of: &'a [U32],
    pub entries: &'a [Entry],
    pub entry_names: &'a [U32],
    pub extras: &'a [Extra],
    /// For each principal where its eligibilities begin, and at the end where the last ends; empty without any.
    pub eligible_first: &'a [U32],
    /// As `entries`, for eligibilities.
    pub eligibles: &'a [Entry],
    pub eligible_names: &'a [U32],
    pub activation_policies: &'a [ActivationPolicy],
    pub agents: &'a [Agent],
    pub roles: &'a [Role],
    pub denies: &'a [Deny],
    pub deny_principals: &'a [U32],
    pub blocks: &'a [U32],
    /// For each block its [`Condition`] or [`NONE`].
    pub block_conditions: &'a [U32],
    pub conditions: &'a [Condition],
    pub programs: &'a [u8],
    pub pattern_groups: &'a [PatternGroup],
    pub patterns: &'a [Pattern],
    pub postings: &'a [U32],
    pub name_guids: &'a [U128],
    pub name_texts: &'a [Text],
    pub text_lists: &'a [Text],
    pub text_bytes: &'a [u8],
}

/// Lays sections behind each other.
pub(super) struct Writer {
    sections: [SectionPlace; SECTIONS],
    body: Vec<u8>,
}

// === impl Text ===

impl Text {
    /// The text in the last section.
    pub(super) fn bytes(self, all: &[u8]) -> Result<&[u8], Damaged> {
        slice(all, self.start, self.length)
    }
}

// === impl List ===

impl List {
    /// The texts.
    pub(super) fn texts<'a>(
        self,
        view: &View<'a>,
    ) -> Result<impl Iterator<Item = Result<&'a str, Damaged>> + use<'a>, Damaged> {
        let all = view.text_bytes;
        let texts = slice(view.text_lists, self.first, self.count)?;
        Ok(texts.iter().map(move |text| std::str::from_utf8(text.bytes(all)?).map_err(|_| Damaged)))
    }
}

// === impl View ===

impl<'a> View<'a> {
    /// Reads the header and checks that the sections lie within the buffer and hold whole records.
    pub(super) fn open(buffer: &'a [u8]) -> Result<Self, Damaged> {
        let (header, _) = Header::ref_from_prefix(buffer).map_err(|_| Damaged)?;
        if header.magic != MAGIC || header.format.get() != FORMAT {
            return Err(Damaged);
        }
        let get = |section: Section| -> Result<&'a [u8], Damaged> {
            let place = header.sections.get(section as usize).ok_or(Damaged)?;
            let start = usize::try_from(place.start.get()).map_err(|_| Damaged)?;
            let length = usize::try_from(place.length.get()).map_err(|_| Damaged)?;
            buffer.get(start..start.checked_add(length).ok_or(Damaged)?).ok_or(Damaged)
        };
        let view = Self {
            flags: header.flags.get(),
            units: usize::try_from(header.units.get()).map_err(|_| Damaged)?,
            guid_principals: header.guid_principals.get(),
            uses: header.uses.get(),
            scopes: typed(get(Section::Scopes)?)?,
            scope_buckets: typed(get(Section::ScopeBuckets)?)?,
            scope_slots: typed(get(Section::ScopeSlots)?)?,
            principals: typed(get(Section::Principals)?)?,
            guid_buckets: typed(get(Section::GuidBuckets)?)?,
            text_buckets: typed(get(Section::TextBuckets)?)?,
            text_slots: typed(get(Section::TextSlots)?)?,
            member_of: typed(get(Section::MemberOf)?)?,
            entries: typed(get(Section::Entries)?)?,
            entry_names: typed(get(Section::EntryNames)?)?,
            extras: typed(get(Section::Extras)?)?,
            eligible_first: typed(get(Section::EligibleFirst)?)?,
            eligibles: typed(get(Section::Eligibles)?)?,
            eligible_names: typed(get(Section::EligibleNames)?)?,
            activation_policies: typed(get(Section::ActivationPolicies)?)?,
            agents: typed(get(Section::Agents)?)?,
            roles: typed(get(Section::Roles)?)?,
            denies: typed(get(Section::Denies)?)?,
            deny_principals: typed(get(Section::DenyPrincipals)?)?,
            blocks: typed(get(Section::Blocks)?)?,
            block_conditions: typed(get(Section::BlockConditions)?)?,
            conditions: typed(get(Section::Conditions)?)?,
            programs: get(Section::Programs)?,
            pattern_groups: typed(get(Section::PatternGroups)?)?,
            patterns: typed(get(Section::Patterns)?)?,
            postings: typed(get(Section::Postings)?)?,
            name_guids: typed(get(Section::NameGuids)?)?,
            name_texts: typed(get(Section::NameTexts)?)?,
            text_lists: typed(get(Section::TextLists)?)?,
            text_bytes: get(Section::TextBytes)?,
        };
        if [view.scope_buckets, view.guid_buckets, view.text_buckets].iter().any(|buckets| buckets.len() < 2)
            || view.entries.len() != view.entry_names.len()
            || view.eligibles.len() != view.eligible_names.len()
            || view.blocks.len() != view.block_conditions.len()
            || !(view.eligible_first.is_empty()
                || view.eligible_first.len() == view.principals.len().saturating_add(1))
            || view.scopes.is_empty()
            || view.units != view.roles.len().saturating_add(view.denies.len())
        {
            return Err(Damaged);
        }
        Ok(view)
    }
}

// === impl Writer ===

impl Writer {
    pub(super) fn new() -> Self {
        let empty = SectionPlace { start: U64::ZERO, length: U64::ZERO };
        Self { sections: [empty; SECTIONS], body: Vec::new() }
    }

    /// Adds a section. Each begins at a multiple of 64 bytes, a cache line of every machine in use.
    pub(super) fn put<T: IntoBytes + Immutable>(&mut self, section: Section, records: &[T]) {
        let bytes = records.as_bytes();
        let start = size_of::<Header>().saturating_add(self.body.len()).next_multiple_of(64);
        self.body.resize(start.saturating_sub(size_of::<Header>()), 0);
        if let Some(place) = self.sections.get_mut(section as usize) {
            *place = SectionPlace { start: U64::new(start as u64), length: U64::new(bytes.len() as u64) };
        }
        self.body.extend_from_slice(bytes);
    }

    pub(super) fn finish(self, flags: u32, units: u32, guid_principals: u32, uses: u32) -> Vec<u8> {
        let header = Header {
            magic: MAGIC,
            format: U32::new(FORMAT),
            flags: U32::new(flags),
            units: U32::new(units),
            guid_principals: U32::new(guid_principals),
            uses: U32::new(uses),
            unused: U32::ZERO,
            sections: self.sections,
        };
        let mut buffer = Vec::with_capacity(size_of::<Header>().saturating_add(self.body.len()));
        buffer.extend_from_slice(header.as_bytes());
        buffer.extend_from_slice(&self.body);
        buffer
    }
}

// === helpers ===

#[inline]
fn typed<T: FromBytes + Immutable + KnownLayout>(bytes: &[u8]) -> Result<&[T], Damaged> {
    <[T]>::ref_from_bytes(bytes).map_err(|_| Damaged)
}

/// Where what a hash leads to lies among what is sorted by hash. `buckets` holds where each bucket begins, and at the
/// end where the last one ends; the greater the hash, the later the bucket.
#[inline]
pub(super) fn bucket(buckets: &[U32], hash: u64) -> Result<std::ops::Range<usize>, Damaged> {
    let number = bucket_of(buckets.len().wrapping_sub(1), hash);
    let [start, end] = buckets.get(number..).and_then(<[U32]>::first_chunk::<2>).ok_or(Damaged)?;
    Ok(start.get() as usize..end.get() as usize)
}

/// Which of so many buckets a hash falls into.
#[inline]
pub(super) fn bucket_of(buckets: usize, hash: u64) -> usize {
    let scaled = u128::from(hash).wrapping_mul(buckets as u128) >> 64;
    #[expect(clippy::cast_possible_truncation, reason = "below the number of buckets")]
    let number = scaled as usize;
    number
}

/// The record at an index.
#[inline]
pub(super) fn at<T>(records: &[T], index: u32) -> Result<&T, Damaged> {
    records.get(index as usize).ok_or(Damaged)
}

/// `count` records from `first`.
#[inline]
pub(super) fn slice<T>(records: &[T], first: U32, count: U32) -> Result<&[T], Damaged> {
    let first = first.get() as usize;
    records.get(first..first.checked_add(count.get() as usize).ok_or(Damaged)?).ok_or(Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_policy_is_damaged() {
        for buffer in [&b""[..], b"POSTERN\0", &[0; 1024]] {
            assert!(View::open(buffer).is_err());
        }
        let mut writer = Writer::new();
        writer.put(Section::Scopes, &[0_u8; 3]);
        assert!(View::open(&writer.finish(0, 0, 0, 0)).is_err(), "no whole record");
    }
}
