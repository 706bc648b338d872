//! Actions: operation strings, the two planes, and how a pattern of a role matches (semantics, sections 2.1
//! and 2.2).

use std::fmt;

/// Longer than any operation of the catalogue (154 bytes); a bound for hostile input.
pub(crate) const MAX_ACTION_BYTES: usize = 512;

/// The two planes never mix: `actions` speak of one, `dataActions` of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// Managing resources.
    Control,
    /// Working with what is inside them.
    Data,
}

impl Plane {
    /// The plane of a request's `data_action` flag.
    pub const fn from_data_action(data_action: bool) -> Self {
        if data_action { Self::Data } else { Self::Control }
    }

    /// The name on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Data => "data",
        }
    }
}

/// How `/*/` in a pattern is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wildcards {
    /// `/*/` also matches a single `/` (semantics, section 2.1, rule 5).
    #[default]
    Collapse,
    /// The literal reading, the switch `strict_wildcards`.
    Strict,
}

/// One operation that a request names: not empty, at most 512 bytes, no wildcard, no control character.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a>(&'a str);

/// Why a text is no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// Nothing there.
    #[error("is empty; wanted an operation such as `Microsoft.Storage/storageAccounts/read`")]
    Empty,
    /// Over 512 bytes.
    #[error("is longer than 512 bytes")]
    TooLong,
    /// A pattern instead of an operation.
    #[error("holds a wildcard; patterns are for role definitions, a request names one operation")]
    Wildcard,
    /// A control character.
    #[error("holds a control character")]
    ControlCharacter,
}

impl<'a> Action<'a> {
    /// Validates.
    pub fn parse(text: &'a str) -> Result<Self, ActionError> {
        if text.is_empty() {
            return Err(ActionError::Empty);
        }
        if text.len() > MAX_ACTION_BYTES {
            return Err(ActionError::TooLong);
        }
        // Without early exits these loops run over many bytes at once.
        if text.bytes().fold(false, |found, byte| found | (byte == b'*')) {
            return Err(ActionError::Wildcard);
        }
        if text.bytes().fold(false, |found, byte| found | byte.is_ascii_control()) {
            return Err(ActionError::ControlCharacter);
        }
        Ok(Self(text))
    }

    /// As it came.
    pub const fn as_str(&self) -> &'a str {
        self.0
    }
}

impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Whether a pattern covers an action: anchored, ASCII letter case ignored, `*` any run of characters and every
/// other character itself.
///
/// Under [`Wildcards::Collapse`] a `/*/` is `/` or `/…/`. The pattern is then a chain of literal pieces, each but
/// the first behind a gap of one of two kinds: a free gap (`*`) may end anywhere, a segment gap (the part of
/// `/*/` behind its first slash) is empty or ends in a slash. Placing each piece at the first spot its gap
/// allows loses nothing: whatever a later spot allows to the gaps behind it, the earlier one allows too (a piece
/// in front of a segment gap ends in a slash itself). So one forward scan decides, without backtracking.
pub fn pattern_matches(pattern: &str, action: &str, wildcards: Wildcards) -> bool {
    let text = action.as_bytes();
    let mut pieces = Pieces { rest: pattern.as_bytes(), gap: None, wildcards };
    let Some((_, head)) = pieces.next() else {
        return text.is_empty();
    };
    let Some((start, mut rest)) = text.split_at_checked(head.len()) else {
        return false;
    };
    if !start.eq_ignore_ascii_case(head) {
        return false;
    }
    // Whether the byte before `rest` is a slash decides where a segment gap may end; the piece before a segment
    // gap always ends in one.
    while let Some((gap, piece)) = pieces.next() {
        if pieces.gap.is_none() {
            // The last piece is anchored at the end.
            let Some(at) = rest.len().checked_sub(piece.len()) else {
                return false;
            };
            let (between, tail) = rest.split_at(at);
            let gap_fits = gap == Gap::Free || between.is_empty() || between.ends_with(b"/");
            if gap_fits {
                return tail.eq_ignore_ascii_case(piece);
            }
            return false;
        }
        let Some(behind) = find(rest, piece, gap) else {
            return false;
        };
        rest = behind;
    }
    rest.is_empty()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    Free,
    Segment,
}

/// Splits a pattern into its literal pieces and the gaps in front of them.
struct Pieces<'a> {
    rest: &'a [u8],
    /// The gap behind the piece that was given last; `None` at the end of the pattern.
    gap: Option<Gap>,
    wildcards: Wildcards,
}

impl<'a> Pieces<'a> {
    fn next(&mut self) -> Option<(Gap, &'a [u8])> {
        let before = match self.gap {
            Some(gap) => gap,
            // The first piece stands at the beginning; afterwards `None` means the end.
            None if !self.rest.is_empty() => Gap::Free,
            None => return None,
        };
        let star = self.rest.iter().position(|&byte| byte == b'*');
        let Some((piece, tail)) = star.and_then(|at| self.rest.split_at_checked(at)) else {
            let piece = self.rest;
            (self.rest, self.gap) = (&[], None);
            return Some((before, piece));
        };
        let tail = tail.split_first().map_or(tail, |(_, tail)| tail);
        if self.wildcards == Wildcards::Collapse
            && piece.ends_with(b"/")
            && let Some((b'/', tail)) = tail.split_first()
        {
            (self.rest, self.gap) = (tail, Some(Gap::Segment));
        } else {
            (self.rest, self.gap) = (tail, Some(Gap::Free));
        }
        Some((before, piece))
    }
}

/// The text behind the first place where `piece` stands and `gap` allows it.
fn find<'a>(text: &'a [u8], piece: &[u8], gap: Gap) -> Option<&'a [u8]> {
    for at in 0..=text.len().checked_sub(piece.len())? {
        let (between, from) = text.split_at_checked(at)?;
        if gap == Gap::Segment && !(between.is_empty() || between.ends_with(b"/")) {
            continue;
        }
        let (candidate, behind) = from.split_at_checked(piece.len())?;
        if candidate.eq_ignore_ascii_case(piece) {
            return Some(behind);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collapse(pattern: &str, action: &str) -> bool {
        pattern_matches(pattern, action, Wildcards::Collapse)
    }

    fn strict(pattern: &str, action: &str) -> bool {
        pattern_matches(pattern, action, Wildcards::Strict)
    }

    #[test]
    fn table_of_section_2_1() {
        for (pattern, action, expected) in [
            ("*", "anything", true),
            ("*/read", "Microsoft.KeyVault/vaults/keys/versions/read", true),
            ("Microsoft.Compute/*", "Microsoft.Compute/virtualMachines/start/action", true),
            ("Microsoft.Compute/*", "Microsoft.ComputeSchedule/x/read", false),
            ("Microsoft.Compute/virtualMachines/*", "Microsoft.Compute/virtualMachineScaleSets/read", false),
            ("Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/read", true),
            ("Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/secrets/getSecret/action", false),
            ("Microsoft.CostManagement/*/query/*", "Microsoft.CostManagement/dimensions/query/read", true),
        ] {
            assert_eq!(collapse(pattern, action), expected, "{pattern} on {action}");
        }
    }

    #[test]
    fn strict_wildcards_do_not_collapse() {
        assert!(!strict("Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/read"));
        assert!(strict("Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/keys/read"));
        assert!(strict("a/*/b", "a//b"), "`*` may be empty");
    }

    #[test]
    fn collapse_takes_any_subset_that_does_not_overlap() {
        assert!(collapse("a/*/b/*/c", "a/b/c"));
        assert!(collapse("a/*/b/*/c", "a/x/b/c"));
        assert!(collapse("a/*/b/*/c", "a/b/x/y/c"));
        assert!(!collapse("a/*/b/*/c", "a/bc"));
        // The two `/*/` of `a/*/*/b` share a slash: only the first may collapse, which leaves `a/*/b` or `/*/b`.
        assert!(collapse("a/*/*/b", "a/x/b"));
        assert!(collapse("a/*/*/b", "a//b"));
        assert!(!collapse("a/*/*/b", "a/b"));
        // `**` is two wildcards and collapses nothing.
        assert!(!collapse("a/**/b", "a/b"));
        assert!(collapse("a/**/b", "a/x/b"));
        assert!(collapse("/*/", "/"));
        assert!(!collapse("a/*/b", "a/xb"));
        assert!(!collapse("a/*/b", "ab"));
    }

    #[test]
    fn other_characters_are_literal_and_ends_are_anchored() {
        assert!(!collapse("Microsoft.Compute/x", "MicrosoftXCompute/x"));
        assert!(!collapse("a?", "ab"));
        assert!(!collapse("a/b", "a/b/c"));
        assert!(!collapse("b", "a/b"));
        assert!(!collapse("a/", "a/b"));
        assert!(!collapse("", "a"));
        assert!(collapse(
            "Microsoft.Network/virtualNetworks/read ",
            "Microsoft.Network/virtualNetworks/read "
        ));
        assert!(!collapse(
            "Microsoft.Network/virtualNetworks/read ",
            "Microsoft.Network/virtualNetworks/read"
        ));
    }

    #[test]
    fn pieces_do_not_overlap() {
        assert!(!collapse("ab*ba", "aba"));
        assert!(collapse("ab*ba", "abba"));
        assert!(collapse("*a*a*", "aa"));
        assert!(!collapse("*a*a*", "a"));
        assert!(collapse("a*b*c", "a-b-b-c"));
    }

    #[test]
    fn actions_of_requests() {
        assert_eq!(Action::parse("").unwrap_err(), ActionError::Empty);
        assert_eq!(Action::parse("a/*").unwrap_err(), ActionError::Wildcard);
        assert_eq!(Action::parse("a\n").unwrap_err(), ActionError::ControlCharacter);
        assert_eq!(Action::parse(&"a".repeat(513)).unwrap_err(), ActionError::TooLong);
        assert_eq!(Action::parse("A.B/c/read").unwrap().as_str(), "A.B/c/read");
    }
}
