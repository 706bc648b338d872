//! The active policy: one pointer, swapped whole. Readers never wait; exactly one writer activates.
//!
//! ```text
//! PolicyWriter (one) ── activate ──▶ ArcSwapOption<Snapshot> ◀── load ── PolicyReader (many)
//! ```
//!
//! Policy, identity and generation are one value behind one pointer, so no reader can see two that disagree.
//! Imports `policy` and `model`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use jiff::Timestamp;

use crate::model::Freshness;
use crate::policy::Policy;

/// A policy that is or was active.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts the activations of this process, from 1.
    pub generation: u64,
    /// Serial of the publication; 0 for a policy directory.
    pub serial: u64,
    /// When it was activated.
    pub activated_at: Timestamp,
    /// What decides.
    pub policy: Policy,
    /// Where it came from; `None` for a policy directory, which is always fresh.
    pub publication: Option<Arc<Publication>>,
}

/// A published policy: who signed for it, and until when.
#[derive(Debug)]
pub struct Publication {
    /// Counts the publications of its repository.
    pub serial: u64,
    /// Where it was read.
    pub source: String,
    /// The publisher's name for the policy.
    pub policy_name: String,
    /// When.
    pub published_at: Option<Timestamp>,
    /// By whom, in the publisher's words.
    pub published_by: String,
    /// What for, in the publisher's words.
    pub message: String,
    /// How long it may be answered by.
    pub lease: Lease,
}

/// Until when a publication is current. A source that confirms it, or a renewed signature, prolongs it while it is
/// active, so it can be set behind the pointer. Both times are whole seconds since 1970.
#[derive(Debug)]
pub struct Lease {
    confirmed: AtomicI64,
    expires: AtomicI64,
    max_age: i64,
}

/// Reads the active policy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PolicyReader(Arc<ArcSwapOption<Snapshot>>);

/// Activates policies. There is exactly one, and only what has verified a policy holds it.
#[derive(Debug)]
pub struct PolicyWriter {
    cell: Arc<ArcSwapOption<Snapshot>>,
    generation: u64,
}

/// The active snapshot for the length of one piece of work. Not to be kept across an await.
pub struct ActiveSnapshot(Guard<Option<Arc<Snapshot>>>);

/// A cell without a policy: "none yet" is said by the type, never by an empty policy.
pub fn cell() -> (PolicyWriter, PolicyReader) {
    let cell = Arc::new(ArcSwapOption::const_empty());
    (PolicyWriter { cell: Arc::clone(&cell), generation: 0 }, PolicyReader(cell))
}

impl Lease {
    /// Of a publication that a source confirmed at one time, whose signatures hold until another, and that counts as
    /// stale when it is not confirmed again within `max_age`.
    pub fn new(confirmed: Timestamp, expires: Timestamp, max_age: Duration) -> Self {
        Self {
            confirmed: AtomicI64::new(confirmed.as_second()),
            expires: AtomicI64::new(expires.as_second()),
            max_age: i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// A source says that there is nothing newer; what it shows is signed until `expires`.
    pub fn renew(&self, confirmed: Timestamp, expires: Timestamp) {
        self.confirmed.store(confirmed.as_second(), Ordering::Relaxed);
        self.expires.store(expires.as_second(), Ordering::Relaxed);
    }

    /// How current it is. Confirmed long after now means that a clock was set back: nobody knows how old it is.
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        let now = now.as_second();
        if now >= self.expires.load(Ordering::Relaxed) {
            Freshness::Expired
        } else if now.saturating_sub(self.confirmed.load(Ordering::Relaxed)).saturating_abs() > self.max_age {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }

    /// When a source last confirmed it.
    pub fn confirmed(&self) -> Timestamp {
        seconds(&self.confirmed)
    }

    /// Until when what was signed holds.
    pub fn expires(&self) -> Timestamp {
        seconds(&self.expires)
    }
}

fn seconds(at: &AtomicI64) -> Timestamp {
    // Every value was a timestamp when it was stored.
    Timestamp::from_second(at.load(Ordering::Relaxed)).unwrap_or(Timestamp::MIN)
}

impl Snapshot {
    /// How current it is.
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        self.lease().map_or(Freshness::Fresh, |lease| lease.freshness(now))
    }

    /// How long it may be answered by; `None` for a policy directory.
    pub fn lease(&self) -> Option<&Lease> {
        self.publication.as_ref().map(|publication| &publication.lease)
    }
}

impl PolicyReader {
    /// The active snapshot. One load per piece of work: a second one may give another policy.
    pub fn load(&self) -> ActiveSnapshot {
        ActiveSnapshot(self.0.load())
    }

    /// The active snapshot to keep.
    pub fn load_full(&self) -> Option<Arc<Snapshot>> {
        self.0.load_full()
    }
}

impl ActiveSnapshot {
    /// `None` before the first activation.
    pub fn get(&self) -> Option<&Snapshot> {
        self.0.as_deref()
    }

    /// The same to keep beyond this piece of work: it holds the policy in memory.
    pub fn keep(&self) -> Option<Arc<Snapshot>> {
        self.0.as_ref().map(Arc::clone)
    }
}

impl PolicyWriter {
    /// Makes a policy that was never published the active one. Gives the snapshot it replaced, so that the caller chooses where a large
    /// policy is freed: never on a thread that answers requests.
    pub fn activate(
        &mut self,
        policy: Policy,
        serial: u64,
        now: Timestamp,
    ) -> (Arc<Snapshot>, Option<Arc<Snapshot>>) {
        self.swap(policy, serial, None, now)
    }

    /// As [`Self::activate`], for a publication.
    pub fn activate_published(
        &mut self,
        policy: Policy,
        publication: Arc<Publication>,
        now: Timestamp,
    ) -> (Arc<Snapshot>, Option<Arc<Snapshot>>) {
        self.swap(policy, publication.serial, Some(publication), now)
    }

    fn swap(
        &mut self,
        policy: Policy,
        serial: u64,
        publication: Option<Arc<Publication>>,
        now: Timestamp,
    ) -> (Arc<Snapshot>, Option<Arc<Snapshot>>) {
        self.generation = self.generation.saturating_add(1);
        let generation = self.generation;
        let snapshot = Arc::new(Snapshot { generation, serial, activated_at: now, policy, publication });
        let previous = self.cell.swap(Some(Arc::clone(&snapshot)));
        (snapshot, previous)
    }
}
