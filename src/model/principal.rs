//! Principals: object ids of users, service principals, managed identities and groups.

use std::fmt;

/// A GUID as one 128-bit value, so that letter case, dashes and braces cannot matter (semantics, section 10,
/// row 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(u128);

/// The pseudo principal *All Principals* of deny assignments (semantics, section 1.3).
pub const ALL_PRINCIPALS: Guid = Guid(0);

impl Guid {
    /// Reads `8-4-4-4-12` or 32 hexadecimal digits, each optionally in braces, in any letter case.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        // The usual form first: a request carries one for each group.
        if let Some(dashed) = bytes.as_array::<36>() {
            return dashed_guid(dashed);
        }
        let inner = match bytes.strip_prefix(b"{") {
            Some(rest) => rest.strip_suffix(b"}")?,
            None => bytes,
        };
        if let Some(dashed) = inner.as_array::<36>() {
            return dashed_guid(dashed);
        }
        let (words, []) = inner.as_chunks::<8>() else { return None };
        let &[a, b, c, d] = words else { return None };
        guid_of([a, b, c, d])
    }

    /// The 128-bit value.
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The GUID of a 128-bit value.
    pub const fn from_u128(value: u128) -> Self {
        Self(value)
    }
}

#[inline]
fn dashed_guid(text: &[u8; 36]) -> Option<Guid> {
    let (a, rest) = text.split_first_chunk::<8>()?;
    let (&[dash_b, b @ ..], rest) = rest.split_first_chunk::<5>()?;
    let (&[dash_c, c @ ..], rest) = rest.split_first_chunk::<5>()?;
    let (&[dash_d, d @ ..], rest) = rest.split_first_chunk::<5>()?;
    let (&[dash_e, e @ ..], rest) = rest.split_first_chunk::<5>()?;
    let f = rest.first_chunk::<8>()?;
    if (dash_b ^ b'-') | (dash_c ^ b'-') | (dash_d ^ b'-') | (dash_e ^ b'-') != 0 {
        return None;
    }
    guid_of([*a, eight(b, c), eight(d, e), *f])
}

#[inline]
fn eight(first: [u8; 4], second: [u8; 4]) -> [u8; 8] {
    (u64::from(u32::from_le_bytes(first)) | u64::from(u32::from_le_bytes(second)) << 32).to_le_bytes()
}

/// Every step is for all digits alike and none depends on another, so that the compiler takes sixteen at a time.
#[inline]
fn guid_of(words: [[u8; 8]; 4]) -> Option<Guid> {
    let mut nibbles = *words.as_flattened().as_array::<32>()?;
    let mut wrong = [false; 32];
    for (digit, wrong) in nibbles.iter_mut().zip(&mut wrong) {
        let number = digit.wrapping_sub(b'0');
        let letter = (*digit | 0x20).wrapping_sub(b'a');
        *wrong = !((number < 10) | (letter < 6));
        *digit = if number < 10 { number } else { letter.wrapping_add(10) };
    }
    if wrong.iter().fold(false, |any, wrong| any | wrong) {
        return None;
    }
    let mut bytes = [0_u8; 16];
    for (byte, [high, low]) in bytes.iter_mut().zip(nibbles.as_chunks::<2>().0) {
        *byte = high << 4 | low;
    }
    Some(Guid(u128::from_be_bytes(bytes)))
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = uuid::Uuid::encode_buffer();
        f.write_str(uuid::Uuid::from_u128(self.0).as_hyphenated().encode_lower(&mut buffer))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An object id as it came: a GUID compares as a GUID, anything else compares exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrincipalId<'a> {
    /// The usual case.
    Guid(Guid),
    /// Any other id, for identities that are not Entra's.
    Text(&'a str),
}

impl<'a> PrincipalId<'a> {
    /// Never fails: what is no GUID is text.
    pub fn new(text: &'a str) -> Self {
        Guid::parse(text).map_or(Self::Text(text), Self::Guid)
    }
}

impl fmt::Display for PrincipalId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guid(guid) => guid.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "of ASCII text")]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_guid_are_one_principal() {
        let id = PrincipalId::new("a1b2c3d4-0000-0000-0000-00000000000f");
        for spelling in [
            "A1B2C3D4-0000-0000-0000-00000000000F",
            "a1b2c3d400000000000000000000000f",
            "{a1b2c3d4-0000-0000-0000-00000000000f}",
            "{A1B2C3D400000000000000000000000F}",
        ] {
            assert_eq!(PrincipalId::new(spelling), id, "{spelling}");
        }
    }

    #[test]
    fn reads_every_digit_and_nothing_else() {
        for position in 0..32 {
            for byte in 0..=0x7F_u8 {
                let mut digits = [b'0'; 32];
                digits[position] = byte;
                let text = std::str::from_utf8(&digits).unwrap();
                let expected = u128::from_str_radix(text, 16).ok().filter(|_| byte != b'+').map(Guid);
                let (a, b, c, d, e) = (&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]);
                assert_eq!(Guid::parse(text), expected, "{text}");
                assert_eq!(Guid::parse(&format!("{a}-{b}-{c}-{d}-{e}")), expected, "{text}");
            }
        }
        assert_eq!(Guid::parse("a1b2c3d4-0000-0000-0000-00000000000é"), None);
        assert_eq!(Guid::parse("00000000000000000000000000000é"), None);
    }

    #[test]
    fn what_is_no_guid_compares_exactly() {
        for text in [
            "alice",
            "Alice",
            "",
            "urn:uuid:a1b2c3d4-0000-0000-0000-00000000000f",
            "{a1b2c3d4-0000-0000-0000-00000000000f",
            "a1b2c3d4-0000-0000-0000-00000000000g",
            "a1b2c3d40000-0000-0000-0000-00000000000f",
            "{{a1b2c3d400000000000000000000000f}}",
        ] {
            assert_eq!(PrincipalId::new(text), PrincipalId::Text(text));
        }
        assert_ne!(PrincipalId::new("alice"), PrincipalId::new("Alice"));
    }

    #[test]
    fn prints_the_canonical_form() {
        let printed = PrincipalId::new("{A1B2C3D400000000000000000000000F}").to_string();
        assert_eq!(printed, "a1b2c3d4-0000-0000-0000-00000000000f");
    }
}
