//! The wire format of protobuf: fields read where they lie, and written without a message in between. A leaf: imports
//! nothing of the crate.
//!
//! Everything else of the crate speaks protobuf by prost. This is for the two places where owning each text costs more
//! than what is done with it: the questions and answers of a check, and log records.
//!
//! Reading accepts and refuses what prost accepts and refuses; tests hold the two against each other.

use std::fmt;

/// How many messages and groups may lie in each other.
pub const DEEPEST: u32 = 100;

/// How a field lies in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number of one to ten bytes.
    Varint = 0,
    /// Eight bytes.
    Fixed64 = 1,
    /// A length, and so many bytes.
    Length = 2,
    /// Fields until the end of the group.
    Group = 3,
    /// That end.
    GroupEnd = 4,
    /// Four bytes.
    Fixed32 = 5,
}

/// What is wrong with the bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// They end too early.
    Truncated,
    /// A number has more bits than fit.
    Overlong,
    /// A tag that is none.
    BadTag,
    /// A field of another kind than the contract says.
    WrongKind,
    /// A text that is not UTF-8.
    NotText,
    /// Messages lie in each other too deep.
    TooDeep,
}

/// Fields, from the first to the last.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    /// How many messages may yet lie in each other.
    depth: u32,
}

/// One field, of which the tag is read.
#[derive(Debug)]
pub struct Field<'f, 'a> {
    /// Its number.
    pub number: u32,
    kind: Kind,
    /// The field with its tag, and all behind it.
    whole: &'a [u8],
    fields: &'f mut Fields<'a>,
}

// === reading ===

impl<'a> Fields<'a> {
    /// Of a message on its own.
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message, depth: DEEPEST }
    }

    /// The next one.
    ///
    /// # Errors
    ///
    /// A tag that is none.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "a field borrows the rest, which no iterator can say")]
    pub fn next(&mut self) -> Result<Option<Field<'_, 'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let whole = self.rest;
        let (number, kind) = self.tag()?;
        Ok(Some(Field { number, kind, whole, fields: self }))
    }

    #[inline]
    fn tag(&mut self) -> Result<(u32, Kind), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed::BadTag)?;
        let kind = match key & 7 {
            0 => Kind::Varint,
            1 => Kind::Fixed64,
            2 => Kind::Length,
            3 => Kind::Group,
            4 => Kind::GroupEnd,
            5 => Kind::Fixed32,
            _ => return Err(Malformed::BadTag),
        };
        match key >> 3 {
            0 => Err(Malformed::BadTag),
            number => Ok((number, kind)),
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        // Almost all are of one byte.
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for (position, &byte) in (0_u32..).zip(self.rest.iter().take(10)) {
            value |= u64::from(byte & 0x7f) << (position * 7);
            if byte < 0x80 {
                // The tenth byte holds the last bit.
                if position == 9 && byte > 1 {
                    return Err(Malformed::Overlong);
                }
                self.take(position as usize + 1)?;
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { Malformed::Truncated } else { Malformed::Overlong })
    }

    #[inline]
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn skip(&mut self, number: u32, kind: Kind, depth: u32) -> Result<(), Malformed> {
        let deeper = depth.checked_sub(1).ok_or(Malformed::TooDeep)?;
        match kind {
            Kind::Varint => self.varint().map(drop),
            Kind::Fixed64 => self.take(8).map(drop),
            Kind::Fixed32 => self.take(4).map(drop),
            Kind::Length => self.length_delimited().map(drop),
            Kind::Group => loop {
                match self.tag()? {
                    (end, Kind::GroupEnd) if end == number => break Ok(()),
                    (_, Kind::GroupEnd) => break Err(Malformed::BadTag),
                    (inner, kind) => self.skip(inner, kind, deeper)?,
                }
            },
            Kind::GroupEnd => Err(Malformed::BadTag),
        }
    }

    #[inline]
    fn length_delimited(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Truncated)?;
        self.take(length)
    }
}

impl<'a> Field<'_, 'a> {
    #[inline]
    fn of(self, kind: Kind) -> Result<Self, Malformed> {
        if self.kind == kind { Ok(self) } else { Err(Malformed::WrongKind) }
    }

    /// A text.
    ///
    /// # Errors
    ///
    /// It is none.
    #[inline]
    pub fn text(self) -> Result<&'a str, Malformed> {
        let bytes = self.of(Kind::Length)?.fields.length_delimited()?;
        std::str::from_utf8(bytes).map_err(|_| Malformed::NotText)
    }

    /// A message, as its fields.
    ///
    /// # Errors
    ///
    /// It is none, or too deep.
    #[inline]
    pub fn message(self) -> Result<Fields<'a>, Malformed> {
        let field = self.of(Kind::Length)?;
        let depth = field.fields.depth.checked_sub(1).ok_or(Malformed::TooDeep)?;
        Ok(Fields { rest: field.fields.length_delimited()?, depth })
    }

    /// A whole number; also what protobuf calls `int32` and enumerations after a conversion that cuts.
    ///
    /// # Errors
    ///
    /// It is none.
    #[inline]
    pub fn number(self) -> Result<u64, Malformed> {
        self.of(Kind::Varint)?.fields.varint()
    }

    /// A value of an enumeration, known or not.
    ///
    /// # Errors
    ///
    /// It is none.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the wire format says that it is cut")]
    pub fn enumeration(self) -> Result<i32, Malformed> {
        self.number().map(|number| number as i32)
    }

    /// A truth value.
    ///
    /// # Errors
    ///
    /// It is none.
    #[inline]
    pub fn boolean(self) -> Result<bool, Malformed> {
        self.number().map(|number| number != 0)
    }

    /// The field with its tag, as a message of its own would hold it.
    ///
    /// # Errors
    ///
    /// It is malformed.
    pub fn raw(self) -> Result<&'a [u8], Malformed> {
        let Self { number, kind, whole, fields } = self;
        fields.skip(number, kind, fields.depth)?;
        let length = whole.len().saturating_sub(fields.rest.len());
        whole.get(..length).ok_or(Malformed::Truncated)
    }

    /// Passes over what this version does not know.
    ///
    /// # Errors
    ///
    /// It is malformed.
    pub fn skip(self) -> Result<(), Malformed> {
        let depth = self.fields.depth;
        self.fields.skip(self.number, self.kind, depth)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "it ends too early",
            Self::Overlong => "a number has too many bits",
            Self::BadTag => "a tag is none",
            Self::WrongKind => "a field is of another kind than the contract says",
            Self::NotText => "a text is not UTF-8",
            Self::TooDeep => "messages lie in each other too deep",
        })
    }
}

impl std::error::Error for Malformed {}

// === writing ===

/// Behind what is there, the tag of a field.
#[inline]
pub fn put_tag(out: &mut Vec<u8>, number: u32, kind: Kind) {
    put_varint(out, u64::from(number << 3 | kind as u32));
}

/// A number.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits of it")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "what is left is below 128")]
    out.push(value as u8);
}

/// The tag and length of a field of so many bytes, which follow.
#[inline]
pub fn put_length(out: &mut Vec<u8>, number: u32, bytes: usize) {
    put_tag(out, number, Kind::Length);
    put_varint(out, bytes as u64);
}

/// A field of bytes or text.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_length(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// A text; an empty one is left out, as the default.
#[inline]
pub fn put_text(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        put_bytes(out, number, text.as_bytes());
    }
}

/// A number, truth value or value of an enumeration; zero is left out, as the default.
#[inline]
pub fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_tag(out, number, Kind::Varint);
        put_varint(out, value);
    }
}

/// A message, whose fields are written in between: its length is put before them when it is known.
#[inline]
pub fn put_message(out: &mut Vec<u8>, number: u32, fields: impl FnOnce(&mut Vec<u8>)) {
    put_tag(out, number, Kind::Length);
    let begin = out.len();
    // Two bytes fit most answers; the others are moved.
    out.extend_from_slice(&[0, 0]);
    fields(out);
    let length = out.len().saturating_sub(begin).saturating_sub(2);
    let mut encoded = [0_u8; 10];
    let size = encode_varint(length as u64, &mut encoded);
    let encoded = encoded.get(..size).unwrap_or_default();
    let end = begin.saturating_add(2);
    match out.get_mut(begin..end) {
        Some(place) if size == 2 => place.copy_from_slice(encoded),
        _ => drop(out.splice(begin..end, encoded.iter().copied())),
    }
}

fn encode_varint(mut value: u64, out: &mut [u8; 10]) -> usize {
    let mut size = 0_usize;
    for byte in out {
        size = size.saturating_add(1);
        #[expect(clippy::cast_possible_truncation, reason = "seven bits of it")]
        let low = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            *byte = low;
            break;
        }
        *byte = low | 0x80;
    }
    size
}

/// The bytes of a number.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    // Nine bits need two bytes for seven of them each.
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

/// The bytes of a field of so many bytes, whose number is below 16.
#[inline]
pub const fn field_len(bytes: usize) -> usize {
    1 + varint_len(bytes as u64) + bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_every_length() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 70_000] {
            let mut out = vec![1];
            put_message(&mut out, 3, |out| out.resize(out.len() + length, 7));
            let mut wanted = vec![1];
            put_bytes(&mut wanted, 3, &vec![7; length]);
            assert_eq!(out, wanted, "{length}");
            assert_eq!(out.len() - 1, field_len(length));
        }
    }

    #[test]
    fn numbers_take_as_many_bytes_as_they_are_said_to() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1_u64 << shift) - 1] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
                let mut fields = Fields::new(&out);
                assert_eq!(fields.varint(), Ok(value));
            }
        }
    }
}
