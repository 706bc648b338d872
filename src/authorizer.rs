//! The policy decision point: one snapshot, the cache where it pays, the evaluation. Synchronous and short, so the
//! caller may run it on the thread that decodes requests.
//!
//! Imports `policy`, `snapshot`, `cache`, `clock` and `model`; knows no protobuf.

use std::sync::Arc;

use crate::cache::{CachePolicy, DecisionCache};
use crate::clock::Clock;
use crate::model::{CheckRequest, Undecided};
use crate::policy::Evaluation;
use crate::snapshot::{ActiveSnapshot, PolicyReader, Snapshot};

/// How the PDP caches.
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    /// When the cache is asked.
    pub policy: CachePolicy,
    /// Bytes it may hold, keys included.
    pub max_bytes: u64,
}

/// The decision point. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authorizer {
    reader: PolicyReader,
    cache: Arc<DecisionCache>,
    clock: Clock,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The decision.
    pub evaluation: Evaluation,
    /// Whether it came from the cache.
    pub cached: bool,
}

impl Authorizer {
    /// A decision point over the active policy of a cell.
    pub fn new(reader: PolicyReader, cache: CacheSettings, clock: Clock) -> Self {
        Self { reader, cache: Arc::new(DecisionCache::new(cache.policy, cache.max_bytes)), clock }
    }

    /// The active snapshot: load it once per request or batch and hand it to every [`Authorizer::check`], so that
    /// all of it is decided by, and names, one policy.
    pub fn snapshot(&self) -> ActiveSnapshot {
        self.reader.load()
    }

    /// Decides one request under one snapshot.
    ///
    /// # Errors
    ///
    /// [`Undecided`] when the policy does not suffice to decide; never cached.
    pub fn check(&self, snapshot: &Snapshot, request: &CheckRequest<'_>) -> Result<Answer, Undecided> {
        let now = self.clock.now();
        if !self.cache.serves(request) {
            return Ok(Answer { evaluation: snapshot.policy.evaluate(request, now)?, cached: false });
        }
        let uses = snapshot.policy.uses();
        if let Some(evaluation) = self.cache.get(snapshot.generation, uses, request, now) {
            return Ok(Answer { evaluation, cached: true });
        }
        let evaluation = snapshot.policy.evaluate(request, now)?;
        self.cache.insert(snapshot.generation, uses, request, &evaluation, now);
        Ok(Answer { evaluation, cached: false })
    }

    /// Entries and bytes in the cache, as of its last housekeeping.
    pub fn cache_size(&self) -> (u64, u64) {
        self.cache.size()
    }
}
