//! The injector: a mutating admission webhook that puts the sidecar into the pods that ask for it. It knows nothing of
//! the sidecar itself: its configuration holds, by profile, what the library chart renders, and so a pod gets the same
//! container whether a chart includes it or the injector adds it.
//!
//! ```text
//! API server ── AdmissionReview over TLS ──▶ serve ──▶ review ──▶ pod: what the pod asks for, the pod as it should be
//! API server ◀── allowed, patch ─────────── serve ◀── review ◀── patch: from the one to the other; empty when done
//! ```
//!
//! A pod that contradicts itself is refused with everything that is wrong with it. A pod that was injected before is
//! left as it is, as long as all that is wanted is in it, whatever the API server and other webhooks added.

mod config;
mod contains;
mod metrics;
mod patch;
mod pod;
mod review;
mod serve;
mod tls;

pub use config::{ConfigError, InjectorConfig};
pub use patch::Operation;
pub use pod::{AskedBy, Outcome, inject};
pub use review::{probe, probed};
pub use serve::{Addresses, Bound, InjectError, InjectSettings, bind};
pub use tls::CertificateError;
