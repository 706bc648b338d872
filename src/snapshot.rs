//! The active policy: one pointer, swapped whole. Readers never wait; exactly one writer activates.
//!
//! ```text
//! PolicyWriter (one) ── activate ──▶ ArcSwapOption<Snapshot> ◀── load ── PolicyReader (many)
//! ```
//!
//! Policy, identity and generation are one value behind one pointer, so no reader can see two that disagree.
//! Imports `policy`.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use jiff::Timestamp;

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
}

impl PolicyWriter {
    /// Makes a policy the active one. Gives the snapshot it replaced, so that the caller chooses where a large
    /// policy is freed: never on a thread that answers requests.
    pub fn activate(
        &mut self,
        policy: Policy,
        serial: u64,
        now: Timestamp,
    ) -> (Arc<Snapshot>, Option<Arc<Snapshot>>) {
        self.generation = self.generation.saturating_add(1);
        let snapshot = Arc::new(Snapshot { generation: self.generation, serial, activated_at: now, policy });
        let previous = self.cell.swap(Some(Arc::clone(&snapshot)));
        (snapshot, previous)
    }
}
