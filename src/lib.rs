//! Postern, a policy decision point with the exact semantics of Azure RBAC.

pub mod clock;
pub mod model;
pub mod proto;
