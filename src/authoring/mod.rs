//! Writes to the authorization data, judged as the service would judge them: limits, names, uniqueness,
//! assignable scopes, the rules of custom roles and of user-made deny assignments (semantics, sections 1.3,
//! 1.4, 1.7 and 1.8).
//!
//! Pure: what exists is handed in as [`Existing`], conditions are judged by a function of the caller's, and
//! the right to write is an ordinary check at the caller (section 1.9). Imports `model` only; whatever
//! validates or manages documents may import it, the evaluation of a check may not.

mod body;
mod documents;
mod existing;
mod judge;
mod limits;

pub use body::{DenyAssignmentBody, PermissionBody, PrincipalBody, RoleAssignmentBody, RoleDefinitionBody};
pub use existing::{Existing, Hierarchy};
pub use judge::{ConditionFacts, Deleted, Effect, Findings, Judge, Origin, Written};
pub use limits::Limits;
