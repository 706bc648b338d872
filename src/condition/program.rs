//! The form of a compiled condition: a self-contained, position-independent, little-endian program that is used
//! where it lies in the buffer of a compiled policy.
//!
//! ```text
//! Header │ nodes, in preorder │ pool: texts, numbers, sets
//! ```
//!
//! A group (AND, OR) says where it ends, so that its rest can be skipped; everything else is a leaf. NOT is gone: it
//! was pushed down to the leaves (De Morgan holds in Kleene's logic), where a negated operator is the same flag. A
//! negated operator behind a quantifier became the negation of the dual quantifier. Offsets of texts and sets count
//! from the start of the pool and are checked where they are followed: one that leads nowhere is [`Damaged`].

use std::fmt;

use zerocopy::little_endian::{I64, U16, U32, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Says that a program contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the compiled condition contradicts itself")]
pub struct Damaged;

/// A compiled condition.
#[derive(Clone, PartialEq, Eq)]
pub struct Program(pub(super) Vec<u8>);

/// A compiled condition where it lies.
#[derive(Clone, Copy)]
pub struct ProgramRef<'a> {
    bytes: &'a [u8],
    uses: Uses,
    flags: u16,
    pub(super) nodes: &'a [u8],
    pub(super) pool: &'a [u8],
}

/// What a program reads of a request: what a cached decision depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Uses(u16);

/// How deep groups may stand in each other: twice what a text can nest, for each parenthesis may hold an AND in an
/// OR, and some.
pub(super) const MAX_GROUPS: usize = 600;

const MAGIC: [u8; 4] = *b"PCN1";

/// A GUID operator takes part (semantics, section 3.7, the rule on Storage roles).
const GUID_OPERATORS: u16 = 1;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    uses: U16,
    flags: U16,
    nodes: U32,
    pool: U32,
}

/// What a node is: its first byte.
pub(super) mod tag {
    pub(in super::super) const AND: u8 = 1;
    pub(in super::super) const OR: u8 = 2;
    pub(in super::super) const CONSTANT: u8 = 3;
    pub(in super::super) const ACTION: u8 = 4;
    pub(in super::super) const SUB_OPERATION: u8 = 5;
    pub(in super::super) const EXISTS: u8 = 6;
    pub(in super::super) const COMPARISON: u8 = 7;
}

/// Flags of leaves.
pub(super) mod flag {
    /// The result is complemented.
    pub(in super::super) const NEGATED: u8 = 1;
    /// Letter case is ignored; constants are folded.
    pub(in super::super) const IGNORE_CASE: u8 = 2;
    /// The right side is a sorted set, and finding the left value in it decides.
    pub(in super::super) const SORTED: u8 = 4;
    /// The pattern has no wildcard.
    pub(in super::super) const EXACT: u8 = 8;
    /// `/*/` in the pattern does not collapse.
    pub(in super::super) const STRICT: u8 = 16;
    /// Every left value has to do.
    pub(in super::super) const ALL_LEFT: u8 = 32;
    /// A left value has to do with every right value.
    pub(in super::super) const ALL_RIGHT: u8 = 64;
    /// Without a quantifier: one value on each side.
    pub(in super::super) const SCALAR: u8 = 128;
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Group {
    pub(super) tag: u8,
    pub(super) unused: [u8; 3],
    /// From the start of the nodes.
    pub(super) end: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Constant {
    pub(super) tag: u8,
    /// 0 false, 1 undefined, 2 true.
    pub(super) truth: u8,
    pub(super) unused: [u8; 2],
}

/// `ActionMatches`, `SubOperationMatches`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Name {
    pub(super) tag: u8,
    pub(super) flags: u8,
    pub(super) unused: [u8; 2],
    pub(super) text: Place,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Exists {
    pub(super) tag: u8,
    pub(super) flags: u8,
    pub(super) unused: [u8; 2],
    pub(super) operand: Operand,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Comparison {
    pub(super) tag: u8,
    pub(super) flags: u8,
    pub(super) family: u8,
    pub(super) test: u8,
    pub(super) left: Operand,
    pub(super) right: Operand,
}

/// A place in the pool: bytes of a text, or elements of a set.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Place {
    pub(super) start: U32,
    pub(super) length: U32,
}

/// What stands on a side.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Operand {
    /// [`operand`].
    pub(super) kind: u8,
    /// Of an attribute its source, of a constant its [`class`].
    pub(super) detail: u8,
    pub(super) unused: [u8; 2],
    /// Of an attribute the length of its name up to the first colon; 0 without one.
    pub(super) path: U32,
    /// The attribute's name, its path in lower case; or the constants, however many.
    pub(super) place: Place,
}

pub(super) mod operand {
    pub(in super::super) const ATTRIBUTE: u8 = 0;
    pub(in super::super) const EXACT_KEY: u8 = 1;
    pub(in super::super) const KEYS: u8 = 2;
    pub(in super::super) const UTC_NOW: u8 = 3;
    pub(in super::super) const SUB_OPERATION: u8 = 4;
    pub(in super::super) const CONSTANT: u8 = 5;
    pub(in super::super) const CONSTANTS: u8 = 6;
}

/// How constants lie in the pool.
pub(super) mod class {
    /// Bytes; in a set a [`super::Place`] for each.
    pub(in super::super) const TEXT: u8 = 0;
    /// 8 bytes: numbers, instants, seconds.
    pub(in super::super) const INTEGER: u8 = 1;
    /// 8 bytes, 0 or 1.
    pub(in super::super) const BOOLEAN: u8 = 2;
    /// 16 bytes.
    pub(in super::super) const GUID: u8 = 3;
    /// Twice 16 bytes.
    pub(in super::super) const BLOCK: u8 = 4;
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Bounds {
    pub(super) low: U128,
    pub(super) high: U128,
}

// === impl Program ===

impl Program {
    pub(super) fn build(
        uses: Uses,
        guid_operators: bool,
        nodes: &[u8],
        pool: &[u8],
    ) -> Result<Self, Damaged> {
        let header = Header {
            magic: MAGIC,
            uses: U16::new(uses.0),
            flags: U16::new(if guid_operators { GUID_OPERATORS } else { 0 }),
            nodes: U32::new(u32::try_from(nodes.len()).map_err(|_| Damaged)?),
            pool: U32::new(u32::try_from(pool.len()).map_err(|_| Damaged)?),
        };
        let mut bytes = Vec::with_capacity(size_of::<Header>() + nodes.len() + pool.len());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(nodes);
        bytes.extend_from_slice(pool);
        Ok(Self(bytes))
    }

    /// The bytes, to be copied to wherever they are needed.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// What it reads.
    pub fn uses(&self) -> Uses {
        ProgramRef::open(&self.0).map(ProgramRef::uses).unwrap_or_default()
    }

    /// Whether a GUID operator takes part: on a role with Storage data actions such a condition grants nothing
    /// (semantics, section 9, row 7), which the caller decides.
    pub fn has_guid_operators(&self) -> bool {
        ProgramRef::open(&self.0).is_ok_and(ProgramRef::has_guid_operators)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} bytes, {:?})", self.0.len(), self.uses())
    }
}

// === impl ProgramRef ===

impl<'a> ProgramRef<'a> {
    /// Opens a program in place: looks at its header only; what the nodes say is checked where it is followed.
    ///
    /// # Errors
    ///
    /// [`Damaged`] when the bytes are no program, or not the whole of one.
    #[inline]
    pub fn open(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let (header, body) = Header::ref_from_prefix(bytes).map_err(|_| Damaged)?;
        let (nodes, pool) = body.split_at_checked(header.nodes.get() as usize).ok_or(Damaged)?;
        if header.magic != MAGIC || pool.len() != header.pool.get() as usize {
            return Err(Damaged);
        }
        Ok(Self { bytes, uses: Uses(header.uses.get()), flags: header.flags.get(), nodes, pool })
    }

    /// The bytes it was opened in.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// What it reads.
    pub const fn uses(self) -> Uses {
        self.uses
    }

    /// As [`Program::has_guid_operators`].
    pub const fn has_guid_operators(self) -> bool {
        self.flags & GUID_OPERATORS != 0
    }
}

impl fmt::Debug for ProgramRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProgramRef({} bytes, {:?})", self.bytes.len(), self.uses)
    }
}

// === impl Uses ===

impl Uses {
    /// Nothing: always the same value.
    pub const NOTHING: Self = Self(0);
    /// Attributes under `@Request`.
    pub const REQUEST: Self = Self(1);
    /// Attributes under `@Resource`.
    pub const RESOURCE: Self = Self(2);
    /// Attributes under `@Principal`.
    pub const PRINCIPAL: Self = Self(4);
    /// Attributes under `@Environment` other than the time.
    pub const ENVIRONMENT: Self = Self(8);
    /// The time.
    pub const UTC_NOW: Self = Self(16);
    /// The action.
    pub const ACTION: Self = Self(32);
    /// The suboperation.
    pub const SUB_OPERATION: Self = Self(64);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether everything of another is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As a number, to be kept beside many programs.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// From such a number.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Whether attributes of any source are read.
    pub const fn any_attribute(self) -> bool {
        self.0 & 15 != 0
    }
}

impl fmt::Debug for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::REQUEST, "request"),
            (Self::RESOURCE, "resource"),
            (Self::PRINCIPAL, "principal"),
            (Self::ENVIRONMENT, "environment"),
            (Self::UTC_NOW, "utc now"),
            (Self::ACTION, "action"),
            (Self::SUB_OPERATION, "suboperation"),
        ];
        f.debug_set()
            .entries(names.into_iter().filter(|(uses, _)| self.contains(*uses)).map(|(_, name)| name))
            .finish()
    }
}

// === reading ===

/// The record at a place in the nodes.
#[inline]
pub(super) fn record<T: FromBytes + Immutable + KnownLayout + Unaligned>(
    nodes: &[u8],
) -> Result<&T, Damaged> {
    T::ref_from_prefix(nodes).map(|(record, _)| record).map_err(|_| Damaged)
}

impl Place {
    /// A text.
    #[inline]
    pub(super) fn bytes(self, pool: &[u8]) -> Result<&[u8], Damaged> {
        let start = self.start.get() as usize;
        let end = start.checked_add(self.length.get() as usize).ok_or(Damaged)?;
        pool.get(start..end).ok_or(Damaged)
    }

    /// A set of records.
    #[inline]
    pub(super) fn records<T: FromBytes + Immutable + KnownLayout + Unaligned>(
        self,
        pool: &[u8],
    ) -> Result<&[T], Damaged> {
        let count = self.length.get() as usize;
        let start = self.start.get() as usize;
        let end =
            count.checked_mul(size_of::<T>()).and_then(|size| start.checked_add(size)).ok_or(Damaged)?;
        <[T]>::ref_from_bytes(pool.get(start..end).ok_or(Damaged)?).map_err(|_| Damaged)
    }

    /// One record.
    #[inline]
    pub(super) fn record<T: FromBytes + Immutable + KnownLayout + Unaligned>(
        self,
        pool: &[u8],
    ) -> Result<&T, Damaged> {
        record(pool.get(self.start.get() as usize..).ok_or(Damaged)?)
    }
}

/// A whole number in the pool.
pub(super) type Integer = I64;
/// A GUID in the pool.
pub(super) type WideInteger = U128;
