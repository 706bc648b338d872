//! Publications of a policy: signed metadata that follows The Update Framework (root, timestamp, snapshot, targets)
//! beside immutable bundles that are named by their hash, in a directory, behind a web server or in a cloud's store.
//! [`Client`] believes what [`Repository`] publishes. It imports nothing of the crate; the time is a parameter.
//!
//! The formats, the canonical JSON, the verification of signatures with thresholds and the signing are those of the
//! crate `tough`. Its loader is not used. It keeps what it has seen in files that it rewrites in place and passes
//! over when they do not parse, so being killed in the middle of a write is enough to forget that a newer version
//! was seen; it wants a directory that it can write for every load; it remembers the latest time of the system's
//! clock there, so one look at a clock that is ahead refuses every load until the time has come; and it fetches
//! everything again whenever it looks. [`TrustedState`] keeps the same guarantees without these, and a test lets the
//! loader of `tough` read what is published here.

mod client;
mod history;
mod keys;
mod lifetime;
mod location;
mod publish;
mod store;
mod trust;

pub use client::{Client, Limits, Poll, PollError};
pub use history::{Entry, EntryState};
pub use keys::{KeyError, Keys};
pub use lifetime::{Lifetime, Lifetimes};
pub use location::{Location, LocationError, Opening};
pub use publish::{
    About, Options, PublishError, Published, Recover, Renewed, Repository, RoleStatus, Rotated, Status,
};
pub use store::{Downloaded, Fetched, Put, Store, StoreError, WriteGuard};
pub use tough::schema::RoleType;
pub use trust::{Note, Previous, Publication, Refused, Step, TARGET_NAME, TrustedState, Verified};
