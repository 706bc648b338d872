//! Writes to the authorization data, judged as the service would judge them: limits, names, uniqueness,
//! assignable scopes, conditions, the rules of custom roles, of user-made deny assignments and of eligibility
//! (semantics, sections 1.3, 1.4, 1.7, 1.8, 3.7 and 5.2).
//!
//! Pure: what exists is handed in as [`Existing`], and the right to write is an ordinary check at the caller
//! (section 1.9). Imports `model` and `condition`; whatever validates or manages documents may import it, the
//! evaluation of a check may not.

mod documents;
mod existing;
mod judge;
mod limits;

pub use existing::{Existing, Hierarchy};
pub use judge::{Deleted, DenyRequest, Effect, Finding, Findings, Judge, Origin, Part, Written};
pub use limits::Limits;
