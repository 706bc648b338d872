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
        // `Uuid` also reads `urn:uuid:…`, which is no object id: only the four lengths above come through.
        if !matches!(text.len(), 32 | 34 | 36 | 38) {
            return None;
        }
        let inner = match text.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}')?,
            None => text,
        };
        uuid::Uuid::try_parse_ascii(inner.as_bytes())
            .ok()
            .filter(|_| matches!(inner.len(), 32 | 36))
            .map(|uuid| Self(uuid.as_u128()))
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

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).as_hyphenated().fmt(f)
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
