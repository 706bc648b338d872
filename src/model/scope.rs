//! Scopes: the places where role assignments stand and requests point (semantics, section 1.6).
//!
//! A [`Scope`] is a borrowed, validated, normalised view of the text it came in: trailing slashes are gone, the
//! subscription alias is rewritten (its target is a suffix of it, so nothing is copied), letter case is kept for
//! printing and ignored by every comparison.

use std::fmt;

use super::Guid;

/// What every management-group scope begins with, in the spelling that Azure prints.
pub const MANAGEMENT_GROUP_PREFIX: &str = "/providers/Microsoft.Management/managementGroups/";

/// `/providers/Microsoft.Subscription` before `/subscriptions/…`, written by PIM.
const SUBSCRIPTION_ALIAS: &str = "/providers/Microsoft.Subscription";

/// Longer than any id that Azure accepts; a bound for hostile input.
const MAX_BYTES: usize = 2048;

/// A valid scope in normal form.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// Never empty; `/` alone or without trailing slash; begins with `/`; no empty segment.
    text: &'a str,
    kind: ScopeKind,
    /// Where the first three prefixes that are scopes themselves end, where there are fewer the last one again; from
    /// there on each segment ends one.
    ends: [u16; 3],
}

/// What a scope is, and with it whose subscription or management group it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeKind {
    /// `/`, the tenant root (not the tenant root management group).
    Root,
    /// A management group itself.
    ManagementGroup,
    /// A subscription itself.
    Subscription,
    /// A resource group itself.
    ResourceGroup,
    /// A resource, extension resource or data-plane sub-scope, wherever it lies.
    Resource,
    /// `/providers/{namespace}`.
    Provider,
}

/// Why a text is no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Nothing there.
    #[error("is empty; a scope begins with `/`")]
    Empty,
    /// Over 2,048 bytes.
    #[error("is longer than 2,048 bytes")]
    TooLong,
    /// The first character is no slash.
    #[error("does not begin with `/`")]
    NoLeadingSlash,
    /// `//` inside.
    #[error("holds an empty segment (`//`)")]
    EmptySegment,
    /// A control character.
    #[error("holds a control character")]
    ControlCharacter,
    /// `/subscriptions/x` where x is no GUID.
    #[error("names a subscription that is no GUID of the form 8-4-4-4-12")]
    SubscriptionNotGuid,
    /// Stops between the names of a level, or begins with an unknown word.
    #[error(
        "is no scope; wanted `/`, a management group, `/subscriptions/{{guid}}`, a resource group \
         `…/resourceGroups/{{name}}` or a resource `…/providers/{{namespace}}/{{type}}/{{name}}`"
    )]
    Shape,
}

impl<'a> Scope<'a> {
    /// The tenant root, `/`.
    pub const ROOT: Scope<'static> = Scope { text: "/", kind: ScopeKind::Root, ends: [0; 3] };

    /// Validates and normalises.
    pub fn parse(given: &'a str) -> Result<Self, ScopeError> {
        if given.is_empty() {
            return Err(ScopeError::Empty);
        }
        if given.len() > MAX_BYTES {
            return Err(ScopeError::TooLong);
        }
        if !given.starts_with('/') {
            return Err(ScopeError::NoLeadingSlash);
        }
        let mut text = given.trim_end_matches('/');
        if text.is_empty() {
            return Ok(Scope::ROOT);
        }
        if let Some((head, tail)) = text.split_at_checked(SUBSCRIPTION_ALIAS.len())
            && head.eq_ignore_ascii_case(SUBSCRIPTION_ALIAS)
            && first_segment_is(tail, "subscriptions")
        {
            text = tail;
        }
        // Without early exits these loops run over many bytes at once.
        let bytes = text.as_bytes();
        let next = bytes.get(1..).unwrap_or_default();
        if bytes.iter().zip(next).fold(false, |found, (&a, &b)| found | (a == b'/' && b == b'/')) {
            return Err(ScopeError::EmptySegment);
        }
        if bytes.iter().fold(false, |found, byte| found | byte.is_ascii_control()) {
            return Err(ScopeError::ControlCharacter);
        }
        let (kind, ends) = kind_of(text)?;
        Ok(Self { text, kind, ends })
    }

    /// The normalised text in the letter case it came in.
    pub const fn as_str(&self) -> &'a str {
        self.text
    }

    /// What the scope is.
    pub const fn kind(&self) -> ScopeKind {
        self.kind
    }

    /// The segments between the slashes; none for the root.
    pub fn segments(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let inner = self.text.strip_prefix('/').unwrap_or_default();
        inner.split('/').filter(|segment| !segment.is_empty())
    }

    /// Where the prefixes that are scopes themselves end, from the shallowest on, the scope itself last: for a vault
    /// the ends of its subscription, its resource group and its own id. None for the root.
    pub fn level_ends(&self) -> impl Iterator<Item = usize> + use<'a> {
        let bytes = self.text.as_bytes();
        let mut known = self.ends.map(usize::from).into_iter();
        let mut last = if self.kind == ScopeKind::Root { bytes.len() } else { 0 };
        std::iter::from_fn(move || {
            if let Some(end) = known.find(|end| *end > last) {
                last = end;
            } else if last < bytes.len() {
                last = last.saturating_add(1);
                last = last.saturating_add(segment_length(bytes.get(last..).unwrap_or_default()));
            } else {
                return None;
            }
            Some(last)
        })
    }

    /// The subscription that the scope is or lies in, as written.
    pub fn subscription(&self) -> Option<&'a str> {
        let mut segments = self.segments();
        segments
            .next()
            .filter(|first| first.eq_ignore_ascii_case("subscriptions"))
            .and_then(|_| segments.next())
    }

    /// The management group that the scope is or lies in, as written.
    pub fn management_group(&self) -> Option<&'a str> {
        let mut segments = self.segments();
        let mut next_is = |word: &str| segments.next().is_some_and(|s| s.eq_ignore_ascii_case(word));
        if next_is("providers") && next_is("Microsoft.Management") && next_is("managementGroups") {
            segments.next()
        } else {
            None
        }
    }

    /// Whether `self` is `other` or a path prefix of it at a segment boundary: rules 1 to 3 of the applies-to
    /// rule. Rule 4, the management-group hierarchy, is the compiled policy's.
    pub fn contains(&self, other: &Scope<'_>) -> bool {
        if self.kind == ScopeKind::Root {
            return true;
        }
        match other.text.as_bytes().split_at_checked(self.text.len()) {
            Some((head, tail)) => {
                head.eq_ignore_ascii_case(self.text.as_bytes())
                    && (tail.is_empty() || tail.first() == Some(&b'/'))
            }
            None => false,
        }
    }
}

// === impls of std traits ===

impl PartialEq for Scope<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.text.eq_ignore_ascii_case(other.text)
    }
}

impl Eq for Scope<'_> {}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

// === helpers ===

fn first_segment_is(text: &str, word: &str) -> bool {
    text.strip_prefix('/')
        .and_then(|rest| rest.split('/').next())
        .is_some_and(|first| first.eq_ignore_ascii_case(word))
}

/// How many bytes come before the first slash; all of them where there is none.
#[inline]
fn segment_length(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    const SLASHES: u64 = 0x2F * ONES;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut before = 0;
    for word in words {
        // The lowest byte that is zero after the exclusive or sets the lowest high bit.
        let zero_at_slash = u64::from_le_bytes(*word) ^ SLASHES;
        let found = zero_at_slash.wrapping_sub(ONES) & !zero_at_slash & HIGH;
        if found != 0 {
            return before + found.trailing_zeros() as usize / 8;
        }
        before += 8;
    }
    before + rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len())
}

/// Segments of a text that begins with `/` and has no empty segment.
struct Segments<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (_, text) = self.0?.split_first()?;
        let (segment, rest) = text.split_at_checked(segment_length(text))?;
        self.0 = Some(rest);
        Some(segment)
    }
}

/// The grammar of section 1.6 on a text that begins with `/` and has no empty segment; and where its first levels end.
fn kind_of(text: &str) -> Result<(ScopeKind, [u16; 3]), ScopeError> {
    let mut segments = Segments(Some(text.as_bytes()));
    let is =
        |segment: Option<&[u8]>, word: &str| segment.is_some_and(|s| s.eq_ignore_ascii_case(word.as_bytes()));
    // Where what has been read ends.
    let end = |segments: &Segments<'_>| {
        let rest = segments.0.map_or(0, <[u8]>::len);
        u16::try_from(text.len().saturating_sub(rest)).unwrap_or(u16::MAX)
    };

    match segments.next() {
        first if is(first, "subscriptions") => {
            let id = segments.next().ok_or(ScopeError::Shape)?;
            if id.len() != 36 || std::str::from_utf8(id).ok().and_then(Guid::parse).is_none() {
                return Err(ScopeError::SubscriptionNotGuid);
            }
            let subscription = end(&segments);
            match segments.next() {
                None => Ok((ScopeKind::Subscription, [subscription; 3])),
                level if is(level, "resourceGroups") => {
                    segments.next().ok_or(ScopeError::Shape)?;
                    let group = end(&segments);
                    match segments.next() {
                        None => Ok((ScopeKind::ResourceGroup, [subscription, group, group])),
                        next => {
                            resource(next, &mut segments)?;
                            Ok((ScopeKind::Resource, [subscription, group, end(&segments)]))
                        }
                    }
                }
                next => {
                    resource(next, &mut segments)?;
                    let resource = end(&segments);
                    Ok((ScopeKind::Resource, [subscription, resource, resource]))
                }
            }
        }
        first if is(first, "providers") => {
            let namespace = segments.next().ok_or(ScopeError::Shape)?;
            let provider = end(&segments);
            let Some(kind) = segments.next() else {
                return Ok((ScopeKind::Provider, [provider; 3]));
            };
            segments.next().ok_or(ScopeError::Shape)?;
            let named = end(&segments);
            if namespace.eq_ignore_ascii_case(b"Microsoft.Management")
                && kind.eq_ignore_ascii_case(b"managementGroups")
            {
                return match segments.next() {
                    None => Ok((ScopeKind::ManagementGroup, [named; 3])),
                    next => {
                        resource(next, &mut segments)?;
                        let resource = end(&segments);
                        Ok((ScopeKind::Resource, [named, resource, resource]))
                    }
                };
            }
            // `/providers/{namespace}/{type}/{name}` and whatever lies below it.
            Ok((ScopeKind::Resource, [provider, named, named]))
        }
        _ => Err(ScopeError::Shape),
    }
}

/// `providers/{namespace}/{type}/{name}`; what follows are any segments: nested types, extensions, data-plane sub-scopes.
fn resource(first: Option<&[u8]>, rest: &mut Segments<'_>) -> Result<(), ScopeError> {
    if !first.is_some_and(|word| word.eq_ignore_ascii_case(b"providers")) || rest.take(3).count() < 3 {
        return Err(ScopeError::Shape);
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "of ASCII text")]
mod tests {
    use super::*;

    const SUB: &str = "/subscriptions/11111111-1111-1111-1111-111111111111";

    #[test]
    fn kinds_of_the_grammar() {
        for (text, kind) in [
            ("/", ScopeKind::Root),
            ("///", ScopeKind::Root),
            (SUB, ScopeKind::Subscription),
            ("/providers/Microsoft.Capacity", ScopeKind::Provider),
            ("/providers/Microsoft.Management/managementGroups/corp", ScopeKind::ManagementGroup),
            (
                "/providers/Microsoft.Management/managementGroups/corp/providers/Microsoft.Authorization/roleAssignments/x",
                ScopeKind::Resource,
            ),
            ("/providers/Microsoft.Authorization/roleAssignments/x", ScopeKind::Resource),
        ] {
            assert_eq!(Scope::parse(text).map(|scope| scope.kind()), Ok(kind), "{text}");
        }
        for (tail, kind) in [
            ("/resourceGroups/app", ScopeKind::ResourceGroup),
            ("/RESOURCEGROUPS/app/", ScopeKind::ResourceGroup),
            ("/providers/Microsoft.X/locations/here", ScopeKind::Resource),
            ("/resourceGroups/app/providers/Microsoft.KeyVault/vaults/kv", ScopeKind::Resource),
            ("/resourceGroups/app/providers/Microsoft.KeyVault/vaults/kv/secrets", ScopeKind::Resource),
            ("/resourceGroups/app/providers/Microsoft.KeyVault/vaults/kv/secrets/s", ScopeKind::Resource),
        ] {
            let text = format!("{SUB}{tail}");
            assert_eq!(Scope::parse(&text).map(|scope| scope.kind()), Ok(kind), "{text}");
        }
    }

    #[test]
    fn what_is_no_scope() {
        for (text, error) in [
            ("", ScopeError::Empty),
            ("subscriptions/x", ScopeError::NoLeadingSlash),
            (" /", ScopeError::NoLeadingSlash),
            ("/subscriptions", ScopeError::Shape),
            ("/subscriptions/dev", ScopeError::SubscriptionNotGuid),
            ("/subscriptions/{11111111111111111111111111111111}", ScopeError::SubscriptionNotGuid),
            ("/resourceGroups/app", ScopeError::Shape),
            ("/providers", ScopeError::Shape),
            ("/providers/Microsoft.Management/managementGroups", ScopeError::Shape),
            ("/providers/Microsoft.Management/managementGroups/corp/x", ScopeError::Shape),
        ] {
            assert_eq!(Scope::parse(text), Err(error), "{text}");
        }
        for (tail, error) in [
            ("/resourceGroups", ScopeError::Shape),
            ("//resourceGroups/app", ScopeError::EmptySegment),
            ("/resourceGroups/app/providers/Microsoft.X", ScopeError::Shape),
            ("/resourceGroups/app/providers/Microsoft.X/type", ScopeError::Shape),
            ("/resourceGroups/app/vaults/kv", ScopeError::Shape),
            ("/resourceGroups/a\u{7}p", ScopeError::ControlCharacter),
        ] {
            let text = format!("{SUB}{tail}");
            assert_eq!(Scope::parse(&text), Err(error), "{text}");
        }
        assert_eq!(
            Scope::parse(&format!("{SUB}/resourceGroups/{}", "a".repeat(2048))),
            Err(ScopeError::TooLong)
        );
    }

    #[test]
    fn the_subscription_alias_is_the_subscription() {
        let text = format!("/providers/microsoft.subscription{SUB}/resourceGroups/app");
        let scope = Scope::parse(&text).unwrap();
        assert_eq!(scope, Scope::parse(&format!("{SUB}/resourcegroups/APP")).unwrap());
        assert_eq!(scope.subscription(), Some("11111111-1111-1111-1111-111111111111"));
        assert_eq!(
            Scope::parse("/providers/Microsoft.Subscription").unwrap().kind(),
            ScopeKind::Provider,
            "only an alias in front of a subscription"
        );
    }

    #[test]
    fn contains_at_segment_boundaries() {
        let parse = |tail: &str| format!("{SUB}/resourceGroups/{tail}");
        let (app, app2, inside) = (parse("app"), parse("app2"), parse("APP/providers/A.B/c/d"));
        let app = Scope::parse(&app).unwrap();
        assert!(app.contains(&app));
        assert!(app.contains(&Scope::parse(&inside).unwrap()));
        assert!(!app.contains(&Scope::parse(&app2).unwrap()));
        assert!(!app.contains(&Scope::parse(SUB).unwrap()), "never upwards");
        assert!(Scope::ROOT.contains(&app));
    }

    #[test]
    fn levels_are_the_prefixes_that_are_scopes() {
        for text in [
            "/".to_owned(),
            SUB.to_owned(),
            format!("{SUB}/resourceGroups/app"),
            format!("{SUB}/resourceGroups/app/providers/A.B/c/d"),
            format!("{SUB}/resourceGroups/app/providers/A.B/c/d/e/f/g"),
            format!("{SUB}/providers/A.B/c/d/e"),
            "/providers/Microsoft.Capacity".to_owned(),
            "/providers/A.B/c/d/e".to_owned(),
            "/providers/Microsoft.Management/managementGroups/corp".to_owned(),
            "/providers/Microsoft.Management/managementGroups/corp/providers/A.B/c/d/e".to_owned(),
        ] {
            let ends: Vec<usize> = Scope::parse(&text).unwrap().level_ends().collect();
            let expected: Vec<usize> = (1..=text.len())
                .filter(|&end| end == text.len() || text.as_bytes()[end] == b'/')
                .filter(|&end| Scope::parse(&text[..end]).is_ok_and(|scope| scope.kind() != ScopeKind::Root))
                // By text it contains every management group, but it is not part of their hierarchy.
                .filter(|&end| &text[..end] != "/providers/Microsoft.Management")
                .collect();
            assert_eq!(ends, expected, "{text}");
        }
    }

    #[test]
    fn finds_the_first_slash_wherever_it_stands() {
        for length in 0..40 {
            let text = "x.\u{e9}".repeat(10);
            let text = &text.as_bytes()[..length];
            assert_eq!(segment_length(text), length);
            for at in 0..length {
                let mut text = text.to_vec();
                text[at] = b'/';
                assert_eq!(segment_length(&text), at);
                text[length - 1] = b'/';
                assert_eq!(segment_length(&text), at);
            }
        }
    }

    #[test]
    fn names_the_holder() {
        let text = "/providers/Microsoft.Management/managementGroups/corp/providers/A.B/c/d";
        assert_eq!(Scope::parse(text).unwrap().management_group(), Some("corp"));
        assert_eq!(Scope::parse(text).unwrap().subscription(), None);
        assert_eq!(Scope::parse(SUB).unwrap().management_group(), None);
    }
}
