//! Postern, a policy decision point with the exact semantics of Azure RBAC: may this principal do this action at
//! this scope?
//!
//! One Check:
//!
//! ```text
//! PEP ── gRPC ──▶ server: wire → model::CheckRequest ──▶ authorizer: one snapshot ──▶ cache, where it pays
//! PEP ◀── OK, decision ── server: model → wire ◀── policy::evaluate: synchronous, bounded, no I/O
//! ```
//!
//! One reload:
//!
//! ```text
//! directory ── source ──▶ documents: read, check ──▶ policy: compile ──▶ snapshot: one pointer swap
//! bundle ───── source ──▶ bundle: check the bounds ─▶ policy: open ──────▶ the same
//! ```
//!
//! To decide without a server, read documents, compile them, evaluate:
//!
//! ```
//! use postern::documents::{Lenience, load};
//! use postern::model::{Action, CheckRequest, Decision, Groups, Plane, PrincipalId, Scope, Subject};
//! use postern::policy::{CompileOptions, Policy};
//!
//! let (documents, problems) = load("examples/contoso".as_ref(), Lenience::Strict);
//! assert!(!problems.has_errors());
//! let policy = Policy::compile(&documents, CompileOptions::default()).expect("a policy");
//! let vault = "/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-payments-prod\
//!              /providers/Microsoft.KeyVault/vaults/kv-payments-prod";
//! let alice = PrincipalId::new("00000000-0000-4000-a004-000000000001");
//! let subject = Subject { principal: alice, groups: Groups::NONE };
//! let action = Action::parse("Microsoft.KeyVault/vaults/secrets/getSecret/action").expect("an action");
//! let scope = Scope::parse(vault).expect("a scope");
//! let request = CheckRequest::new(subject, action, Plane::Data, scope);
//! let evaluation = policy.evaluate(&request, jiff::Timestamp::now()).expect("enough to decide");
//! assert!(matches!(evaluation.decision, Decision::Allowed(_)));
//! ```
//!
//! The modules are layers; ARCHITECTURE.md says who may import whom, and `tests/layers.rs` keeps it.

pub mod agent;
pub mod app;
pub mod authoring;
pub mod authorizer;
pub mod bundle;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod condition;
pub mod config;
pub mod container;
pub mod documents;
pub mod drain;
pub mod inject;
pub mod load;
pub mod metrics;
pub mod model;
pub mod pim;
pub mod policy;
pub mod proto;
pub mod readiness;
pub mod record;
pub mod repository;
pub mod server;
pub mod snapshot;
pub mod source;
pub mod telemetry;
pub mod wire;
