//! The load tester: questions are drawn once and encoded, callers ask them of a running sidecar, and what came back is
//! counted and timed.
//!
//! ```text
//! file, records ─▶ questions ─┐              ┌─ thread: callers ── call ──▶ sidecar
//! policy ─▶ from_policy ──────┴─▶ plan ─▶ run┤                    └ tally ◀──┘
//!                                            └─ once a tick: intervals ─▶ log, progress ─▶ report ─▶ html, compare
//! ```
//!
//! Two ways of calling. **Closed**: so many callers, each asks again when it has its answer. **Open**: calls are due at
//! a constant rate whatever the answers do, and a latency runs from when the call was due. A sidecar that stops for a
//! second is then seen by every call that fell into that second; a closed loop would have waited and seen one.
//!
//! Imports what the command line does of `proto`, `server` and below; the library itself never imports it.

mod call;
mod clock;
mod compare;
mod from_policy;
mod html;
mod plan;
mod questions;
mod report;
mod responder;
mod run;
mod stream;
mod tally;

pub use call::Rpc;
pub use compare::{Comparison, Verdict, compare};
pub use from_policy::{Shares, from_policy};
pub use html::html;
pub use plan::{Pick, Plan};
pub use questions::{Questions, Unreadable, constant};
pub use report::{FORMAT, Header, Report};
pub use responder::{Constant, Responder};
pub use run::{Failure, Mode, Outcome, Progress, Settings, Until, run};
pub use tonic::transport::Endpoint;
