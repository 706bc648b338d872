//! A request as the decision point sees it: borrowed, validated, nothing of the wire.

use super::{Action, Plane, PrincipalId, Scope};

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
