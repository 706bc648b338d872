//! A request as the decision point sees it: borrowed, validated, nothing of the wire.

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
    pub groups: &'a [String],
}
