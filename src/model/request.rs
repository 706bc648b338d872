//! A request as the decision point sees it: borrowed, validated, nothing of the wire.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::{Action, AttributeBag, NoAttributes, Plane, PrincipalId, Scope};

/// May this subject do this action at this scope?
#[derive(Clone, Copy, Debug)]
pub struct CheckRequest<'a> {
    /// Who asks.
    pub subject: Subject<'a>,
    /// What for.
    pub action: Action<'a>,
    /// On which plane; it cannot be told from the action (semantics, section 2.2).
    pub plane: Plane,
    /// Where.
    pub scope: Scope<'a>,
    /// The suboperation, read by conditions; an empty one is none.
    pub sub_operation: Option<&'a str>,
    /// What conditions read.
    pub attributes: RequestAttributes<'a>,
}

/// The attributes of a request by their four sources (semantics, section 3.2).
#[derive(Clone, Copy, Debug)]
pub struct RequestAttributes<'a> {
    /// `@Request`: what the operation asks for.
    pub request: &'a dyn AttributeBag,
    /// `@Resource`: the object as it is stored.
    pub resource: &'a dyn AttributeBag,
    /// `@Principal`: custom security attributes of the caller.
    pub principal: &'a dyn AttributeBag,
    /// `@Environment`: network origin. The time is the check's own, whatever stands here.
    pub environment: &'a dyn AttributeBag,
}

impl RequestAttributes<'_> {
    /// None under any source.
    pub const NONE: Self = Self {
        request: &NoAttributes,
        resource: &NoAttributes,
        principal: &NoAttributes,
        environment: &NoAttributes,
    };
}

impl<'a> CheckRequest<'a> {
    /// A request without suboperation and attributes.
    pub const fn new(subject: Subject<'a>, action: Action<'a>, plane: Plane, scope: Scope<'a>) -> Self {
        Self { subject, action, plane, scope, sub_operation: None, attributes: RequestAttributes::NONE }
    }
}

/// The caller as given. The policy expands it to its principals: itself, the asserted groups, and every group
/// that contains one of them (semantics, section 1.5).
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// One object id.
    pub principal: PrincipalId<'a>,
    /// Group ids that the caller vouches for, as they came.
    pub groups: Groups<'a>,
}

/// Ids of groups as they came, wherever they lie.
#[derive(Clone, Copy)]
pub enum Groups<'a> {
    /// Owned texts.
    Owned(&'a [String]),
    /// Texts that lie in the bytes of a message.
    Borrowed(&'a [&'a str]),
}

impl<'a> Groups<'a> {
    /// None.
    pub const NONE: Self = Self::Borrowed(&[]);

    /// How many.
    #[inline]
    pub const fn len(self) -> usize {
        match self {
            Self::Owned(ids) => ids.len(),
            Self::Borrowed(ids) => ids.len(),
        }
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// All of them.
    #[inline]
    pub fn iter(self) -> impl ExactSizeIterator<Item = &'a str> {
        (0..self.len()).map(move |index| {
            let id = match self {
                Self::Owned(ids) => ids.get(index).map(String::as_str),
                Self::Borrowed(ids) => ids.get(index).copied(),
            };
            id.unwrap_or_default()
        })
    }
}

impl fmt::Debug for Groups<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Hash for Groups<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.len());
        self.iter().for_each(|id| id.hash(state));
    }
}

impl<'a> From<&'a [String]> for Groups<'a> {
    fn from(ids: &'a [String]) -> Self {
        Self::Owned(ids)
    }
}

impl<'a> From<&'a Vec<String>> for Groups<'a> {
    fn from(ids: &'a Vec<String>) -> Self {
        Self::Owned(ids)
    }
}

impl<'a> From<&'a [&'a str]> for Groups<'a> {
    fn from(ids: &'a [&'a str]) -> Self {
        Self::Borrowed(ids)
    }
}
