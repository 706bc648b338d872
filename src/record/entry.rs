//! What a call leaves behind for its record: the question as the edge holds it, and the answers, unspelled.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use smallvec::SmallVec;

use crate::authorizer::{Answer, Authorizer};
use crate::model::{AgentContext, CheckRequest, Decision, Freshness, Undecided};
use crate::snapshot::{ActiveSnapshot, Snapshot};

use super::queue::Recorder;
use super::render::Shown;
use super::settings::Outcome;

/// A call as the edge keeps it for the record: in as few pieces of memory as can be, for they are given back on another
/// thread than they were taken on.
pub trait Call: Send + Sync + fmt::Debug {
    /// The method of the contract.
    fn method(&self) -> &'static str;
    /// About how many bytes it holds.
    fn bytes(&self) -> usize;
    /// Items of the batch, if it is one.
    fn batch_items(&self) -> Option<usize>;
    /// Reads it again.
    fn read(&self) -> Box<dyn Question + '_>;
}

/// What was asked. `index` is the position in a batch.
pub trait Question: fmt::Debug {
    /// The caller's id of the call.
    fn request_id(&self) -> &str;
    /// The stream that a question came over, and its id there.
    fn streamed(&self, _index: usize) -> Option<(u128, u64)> {
        None
    }
    /// Writes the question, masked.
    fn write(&self, index: usize, shown: &mut Shown<'_, '_>);
    /// Asks the question again.
    fn ask(&self, index: usize, answer: &mut dyn FnMut(&CheckRequest<'_>, Option<&AgentContext<'_>>));
}

/// A call with its answers, on the way to the writer.
#[derive(Debug)]
pub struct Entry {
    /// The question.
    pub call: Box<dyn Call>,
    /// The policy that decided; `None` while there was none. Not the last to hold it: a policy that is replaced is
    /// freed off the path of requests, wherever its entries end.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The span of the call, or that of the caller.
    pub trace: TraceIds,
    /// `unix` or `tcp`.
    pub transport: &'static str,
    /// The same for all items of a batch.
    pub batch_id: Option<u128>,
    /// The decisions that are recorded.
    pub items: SmallVec<[Item; 1]>,
    /// What it counts for in the queue.
    pub(super) bytes: usize,
}

/// One decision.
#[derive(Debug)]
pub struct Item {
    /// Position in the batch or the message; `None` for a single check, and where a batch as a whole could not be
    /// decided.
    pub index: Option<usize>,
    /// The time that it was decided at, exactly: asked again at this time, the same policy says the same.
    pub at: Timestamp,
    /// Nanoseconds of the evaluation.
    pub nanos: u64,
    /// How current the policy was.
    pub freshness: Freshness,
    /// The answer.
    pub outcome: Result<Answer, Undecided>,
    /// Whether it is recorded; otherwise it is here for the candidate.
    pub kept: bool,
    /// Whether the candidate is asked.
    pub compared: bool,
}

/// The place of a call in a trace; zero where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceIds {
    /// Of the trace.
    pub trace: u128,
    /// Of the span.
    pub span: u64,
    /// Whether it is sampled.
    pub sampled: bool,
}

/// What is noted while a call is answered.
#[derive(Debug)]
pub struct Notes<'r> {
    recorder: &'r Recorder,
    at: Timestamp,
    nanos: u64,
    freshness: Freshness,
    snapshot: Option<Arc<Snapshot>>,
    items: SmallVec<[Item; 1]>,
}

// === impls ===

impl Outcome {
    /// Of a check.
    pub const fn of(outcome: &Result<Answer, Undecided>) -> Self {
        match outcome {
            Ok(answer) => match answer.evaluation.decision {
                Decision::Allowed(_) => Self::Allowed,
                Decision::NotAllowed(_) => Self::NotAllowed,
                Decision::Denied(_) => Self::Denied,
            },
            Err(_) => Self::Undecided,
        }
    }
}

impl<'r> Notes<'r> {
    pub(super) fn new(recorder: &'r Recorder) -> Self {
        Self {
            recorder,
            at: Timestamp::UNIX_EPOCH,
            nanos: 0,
            freshness: Freshness::Fresh,
            snapshot: None,
            items: SmallVec::new(),
        }
    }

    /// Notes by which policy.
    pub fn under(&mut self, active: &ActiveSnapshot) {
        self.snapshot = active.keep();
    }

    /// Notes when something was decided under a policy, and how long that took.
    pub fn took(&mut self, snapshot: &Snapshot, at: Timestamp, took: Duration) {
        self.at = at;
        self.freshness = snapshot.freshness(at);
        self.nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    }

    /// Notes what was decided last.
    pub fn decided(&mut self, index: Option<usize>, outcome: Result<Answer, Undecided>) {
        let (kept, compared) = self.recorder.wants(Outcome::of(&outcome));
        // A missing or old policy says nothing about the candidate.
        let compared =
            compared && !matches!(outcome, Err(Undecided::NoPolicy | Undecided::PolicyOutdated(_)));
        if kept || compared {
            let Self { at, nanos, freshness, .. } = *self;
            self.items.push(Item { index, at, nanos, freshness, outcome, kept, compared });
        }
    }

    /// Notes that this could not be decided, because there is no policy.
    pub fn no_policy(&mut self, index: Option<usize>, authorizer: &Authorizer) {
        (self.at, self.nanos, self.freshness) = (authorizer.now(), 0, Freshness::Fresh);
        self.decided(index, Err(Undecided::NoPolicy));
    }

    /// Hands everything that was noted to the writer.
    pub async fn keep<C: Call + 'static>(
        self,
        call: impl FnOnce() -> C,
        trace: TraceIds,
        transport: &'static str,
    ) {
        let Self { recorder, snapshot, items, .. } = self;
        if items.is_empty() {
            return;
        }
        let call = call();
        let batch_id = call.batch_items().map(|_| recorder.new_id());
        let bytes = call.bytes().saturating_add(items.len().saturating_mul(size_of::<Item>()));
        let call: Box<dyn Call> = Box::new(call);
        recorder.push(Entry { call, snapshot, trace, transport, batch_id, items, bytes }).await;
    }
}
