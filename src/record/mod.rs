//! The decision log: a record of every decision, of its own and not at the mercy of what traces sample.
//!
//! ```text
//! a call ── question's bytes and answers as an Entry ──▶ lock-free queue ──▶ writer (one thread)
//!                                                             │               masks, hashes, turns to JSON
//!                                    full: the chosen loss,   ▼               asks the candidate
//!                                    counted by reason and outcome            ├──▶ standard output, file
//!                                                                             └──▶ backlog ──▶ OTLP (one thread)
//! ```
//!
//! A call pays for the decision to keep, a copy of the bytes that it came in, two atomic additions and one push; nothing is
//! hashed or spelled out on its thread, and no lock is taken there. An [`Entry`] holds the policy that decided until the writer has taken it,
//! which is milliseconds, or as long as one write to a file or pipe hangs: what waits for a slow receiver over OTLP
//! is spelled out already.
//!
//! Every decision is accounted for: for each sink, decisions = written + lost + not kept, per outcome.

mod candidate;
mod entry;
mod file;
mod json;
mod mask;
pub mod names;
mod otlp;
mod queue;
mod render;
mod settings;
mod tally;
mod writer;

pub use candidate::{Candidate, Comparison, compare};
pub use entry::{Call, Entry, Item, Notes, Question, TraceIds};
pub use json::Json;
pub use mask::{Field, Hasher, Masks, SHORTEST_KEY, Verb};
pub use queue::Recorder;
pub use render::{Shown, Steps};
pub use settings::{FileSettings, Keep, KeepRules, Outcome, RecordSettings, SinkSettings, WhenFull};
pub use writer::{Records, StartError};
