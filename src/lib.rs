//! Postern, a policy decision point with the exact semantics of Azure RBAC.
pub mod authorizer;
pub mod cache;
pub mod clock;
pub mod documents;
pub mod model;
pub mod policy;
pub mod proto;
pub mod snapshot;
