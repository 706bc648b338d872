//! The way from the calls to the writer. What it may hold is counted in records and in bytes, from the moment that a
//! record is pushed to the moment that a sink has taken it, so the bound is on all that waits, wherever it does.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher as _};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::metrics::Gauge;

use super::entry::{Entry, Notes};
use super::settings::{Keep, KeepRules, Outcome, WhenFull};
use super::tally::{Loss, Tally};

/// Where calls leave their records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder(pub(super) Arc<Queue>);

#[derive(Debug)]
pub(super) struct Queue {
    slots: ArrayQueue<Entry>,
    /// Records that wait, in the queue or behind it: the very number of the metric.
    held: Gauge,
    bytes: AtomicI64,
    max_held: i64,
    max_bytes: i64,
    when_full: WhenFull,
    keep: KeepRules,
    /// A check is asked of the candidate when a number by chance is below this.
    share: u64,
    pub(super) tally: Tally,
    batches: AtomicU64,
    /// Makes ids of batches differ from those of other processes.
    process: u64,
    space: Notify,
    closed: AtomicBool,
    wake: Wake,
}

/// Wakes the writer, and only when it sleeps: a call that finds it awake pays for one load of a line that is hardly
/// ever written.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Wake {
    asleep: AtomicBool,
    writer: OnceLock<Thread>,
}

/// What waits for room. A caller that goes away in the meantime takes it along, which is counted.
struct Waiting<'q> {
    queue: &'q Queue,
    entry: Option<Entry>,
}

// === impl Recorder ===

impl Recorder {
    pub(super) fn new(
        (records, bytes): (usize, usize),
        when_full: WhenFull,
        keep: KeepRules,
        share: f64,
        tally: Tally,
        held: Gauge,
    ) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share from 0 to 1 of all numbers; the conversion saturates"
        )]
        let share = (share * u64::MAX as f64) as u64;
        Self(Arc::new(Queue {
            slots: ArrayQueue::new(records.max(1)),
            held,
            bytes: AtomicI64::new(0),
            max_held: i64::try_from(records).unwrap_or(i64::MAX),
            max_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            when_full,
            keep,
            share,
            tally,
            batches: AtomicU64::new(0),
            process: seed(),
            space: Notify::new(),
            closed: AtomicBool::new(false),
            wake: Wake::default(),
        }))
    }

    /// Begins to note what a call decides.
    pub fn notes(&self) -> Notes<'_> {
        Notes::new(self)
    }

    /// Whether a decision is recorded, and whether the candidate is asked. Counts what is not kept.
    pub(super) fn wants(&self, outcome: Outcome) -> (bool, bool) {
        let kept = match self.0.keep.of(outcome) {
            Keep::All => true,
            Keep::None => false,
            Keep::OneIn(of) => chance().is_multiple_of(u64::from(of)),
        };
        if !kept {
            self.0.tally.not_kept(outcome);
        }
        (kept, self.0.share > 0 && chance() <= self.0.share)
    }

    /// An id for what several records belong to, a batch or a stream.
    pub fn new_id(&self) -> u128 {
        let number = self.0.batches.fetch_add(1, Ordering::Relaxed);
        (u128::from(self.0.process) << 64) | u128::from(number)
    }

    /// Hands an entry to the writer, or loses it as chosen. Waits only where the choice is to wait, and then the call
    /// waits and not its thread.
    pub(super) async fn push(&self, entry: Entry) {
        let queue = &*self.0;
        if let Err(entry) = queue.try_push(entry) {
            match queue.when_full {
                WhenFull::DropNewest | WhenFull::DropOldest => {
                    queue.tally.lost_entry(&entry, Loss::QueueFullNewest);
                }
                WhenFull::Block(within) => queue.wait(entry, within).await,
            }
        }
    }
}

// === impl Queue ===

impl Queue {
    /// There is room until there is none: the last entry may be a batch and go beyond the bound.
    #[expect(clippy::result_large_err, reason = "it goes back to its owner; a box would cost every record")]
    fn try_push(&self, entry: Entry) -> Result<(), Entry> {
        if self.closed.load(Ordering::Acquire) {
            self.tally.lost_entry(&entry, Loss::Shutdown);
            return Ok(());
        }
        let (records, bytes) = (signed(entry.items.len()), signed(entry.bytes));
        let oldest = self.when_full == WhenFull::DropOldest;
        let held = self.held.inc_by(records);
        let had = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if !oldest && (held >= self.max_held || had >= self.max_bytes) {
            // Nothing became free, so nobody is told: those who wait would wake each other for ever.
            self.uncount(records, bytes);
            return Err(entry);
        }
        let pushed = if oldest {
            // Too much of it is shed by the writer, which is always closer to the oldest. Only when that does not get
            // to run does a call end here: it frees one question for the one it leaves, and never a policy, which
            // whoever replaced it holds until nobody else does.
            if let Some(oldest) = self.slots.force_push(entry) {
                self.shed(&oldest, Loss::QueueFullOldest);
            }
            Ok(())
        } else {
            self.slots.push(entry)
        };
        if let Err(entry) = pushed {
            self.uncount(records, bytes);
            return Err(entry);
        }
        let half = self.max_held / 2;
        self.wake(held < half && held.saturating_add(records) >= half);
        Ok(())
    }

    /// Until there is room, the deadline, or the caller goes away.
    async fn wait(&self, entry: Entry, within: Duration) {
        let deadline = Instant::now() + within;
        let mut waiting = Waiting { queue: self, entry: Some(entry) };
        loop {
            let space = self.space.notified();
            tokio::pin!(space);
            // From here on no notice is missed.
            space.as_mut().enable();
            let Some(entry) = waiting.entry.take() else { return };
            match self.try_push(entry) {
                Ok(()) => return,
                Err(entry) => waiting.entry = Some(entry),
            }
            self.wake(true);
            // The time is looked at even when there is room again and again for somebody else.
            if timeout_at(deadline, space).await.is_err() || Instant::now() >= deadline {
                return;
            }
        }
    }

    /// The next entry, which stays counted until it is released.
    pub(super) fn pop(&self) -> Option<Entry> {
        self.slots.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// More waits than may.
    pub(super) fn is_over(&self) -> bool {
        self.held.get() > self.max_held || self.bytes.load(Ordering::Relaxed) > self.max_bytes
    }

    /// Whether the oldest goes when there is too much.
    pub(super) fn sheds_oldest(&self) -> bool {
        self.when_full == WhenFull::DropOldest
    }

    /// The bound in records and in bytes.
    pub(super) const fn bound(&self) -> (i64, i64) {
        (self.max_held, self.max_bytes)
    }

    /// Counts more that waits.
    pub(super) fn hold(&self, records: i64, bytes: i64) {
        self.held.inc_by(records);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What waited does so no more.
    pub(super) fn release(&self, records: i64, bytes: i64) {
        self.uncount(records, bytes);
        if matches!(self.when_full, WhenFull::Block(_)) {
            self.space.notify_waiters();
        }
    }

    fn uncount(&self, records: i64, bytes: i64) {
        self.held.dec_by(records);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// An entry is lost that was counted.
    pub(super) fn shed(&self, entry: &Entry, loss: Loss) {
        self.tally.lost_entry(entry, loss);
        self.release(signed(entry.items.len()), signed(entry.bytes));
    }

    /// Nothing is taken any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.space.notify_waiters();
        self.wake(true);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The calling thread is the writer.
    pub(super) fn attach_writer(&self) {
        let _already = self.wake.writer.set(std::thread::current());
    }

    /// The writer sleeps until something comes. Looking once more after saying so is what keeps it from sleeping
    /// through a push; the time limit is a second net.
    pub(super) fn sleep(&self, at_most: Duration) {
        self.wake.asleep.store(true, Ordering::SeqCst);
        if self.slots.is_empty() && !self.is_closed() {
            std::thread::park_timeout(at_most);
        }
        self.wake.asleep.store(false, Ordering::SeqCst);
    }

    fn wake(&self, in_any_case: bool) {
        let asleep =
            self.wake.asleep.load(Ordering::SeqCst) && self.wake.asleep.swap(false, Ordering::SeqCst);
        if (asleep || in_any_case)
            && let Some(writer) = self.wake.writer.get()
        {
            writer.unpark();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.queue.tally.lost_entry(&entry, Loss::Deadline);
        }
    }
}

pub(super) fn signed(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

// === chance ===

fn seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// A number by chance, from a generator of the thread's own (xorshift64*): no atomic, and callers that ask in a
/// pattern are not sampled in one.
fn chance() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(seed() | 1);
    }
    STATE.with(|state| {
        let mut bits = state.get();
        bits ^= bits >> 12;
        bits ^= bits << 25;
        bits ^= bits >> 27;
        state.set(bits);
        bits.wrapping_mul(0x2545_F491_4F6C_DD1D)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many() {
        let kept = (0..1_000_000).filter(|_| chance().is_multiple_of(100)).count();
        // Ten standard deviations.
        assert!((9_000..11_000).contains(&kept), "{kept}");
    }
}
