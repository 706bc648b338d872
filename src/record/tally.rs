//! The counters of the recorder, looked up once, and what they have come to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::metrics::{Counter, RecordMetrics};

use super::entry::Entry;
use super::settings::{Outcome, SinkSettings};

/// What a record tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Decision,
    Difference,
}

/// Why a record is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The queue was full when it came.
    QueueFullNewest,
    /// It had waited longest when the queue was full.
    QueueFullOldest,
    /// There was no room within the deadline, or its caller went away while it waited.
    Deadline,
    /// Standard output did not take it.
    Stdout,
    /// The file did not take it.
    File,
    /// The receiver of OTLP could not be reached, did not answer in time, or was too slow.
    Otlp,
    /// It refused it.
    OtlpRefused,
    /// The process ended.
    Shutdown,
}

/// What the candidate said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    Same,
    Different,
    Undecided,
    Lost,
}

/// Every counter.
#[derive(Debug)]
pub(super) struct Tally {
    lost: [[[Counter; 4]; Loss::ALL.len()]; 2],
    /// Refused in part by a receiver that does not say which.
    rejected: [Counter; 2],
    not_kept: [Counter; 4],
    candidate: [Counter; 4],
    written: [[Counter; 2]; 3],
    /// Losses that the log has not told of.
    untold: AtomicU64,
    /// When it last did, in seconds since 1970.
    told: AtomicU64,
    telling: AtomicBool,
}

/// The outcome of a record of which only the loss is known.
const UNKNOWN: &str = "Unknown";
/// The log tells of losses no more often.
const TELL_EVERY: Duration = Duration::from_secs(10);

// === impls ===

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Decision, Self::Difference];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Difference => "difference",
        }
    }
}

impl Loss {
    const ALL: [Self; 8] = [
        Self::QueueFullNewest,
        Self::QueueFullOldest,
        Self::Deadline,
        Self::Stdout,
        Self::File,
        Self::Otlp,
        Self::OtlpRefused,
        Self::Shutdown,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::QueueFullNewest => "queue_full_newest",
            Self::QueueFullOldest => "queue_full_oldest",
            Self::Deadline => "deadline",
            Self::Stdout => "stdout",
            Self::File => "file",
            Self::Otlp => "otlp",
            Self::OtlpRefused => "otlp_refused",
            Self::Shutdown => "shutdown",
        }
    }
}

impl Compared {
    const ALL: [Self; 4] = [Self::Same, Self::Different, Self::Undecided, Self::Lost];

    const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::Undecided => "undecided",
            Self::Lost => "lost",
        }
    }
}

/// Which of three.
pub(super) const fn sink_index(sink: &SinkSettings) -> usize {
    match sink {
        SinkSettings::Stdout => 0,
        SinkSettings::File(_) => 1,
        SinkSettings::Otlp => 2,
    }
}

impl Tally {
    /// Series that are never used are made only for what is configured.
    pub(super) fn bind(metrics: &RecordMetrics, sinks: &[SinkSettings], candidate: bool) -> Self {
        let mut written: [[Counter; 2]; 3] = Default::default();
        let kinds = if candidate { Kind::ALL.as_slice() } else { &[Kind::Decision] };
        for sink in sinks {
            for kind in kinds {
                if let Some(counter) =
                    written.get_mut(sink_index(sink)).and_then(|row| row.get_mut(*kind as usize))
                {
                    *counter = metrics.written(sink.name(), kind.name());
                }
            }
        }
        Self {
            lost: Kind::ALL.map(|kind| {
                Loss::ALL.map(|loss| {
                    Outcome::ALL.map(|outcome| metrics.lost(kind.name(), loss.name(), outcome.name()))
                })
            }),
            rejected: Kind::ALL.map(|kind| metrics.lost(kind.name(), Loss::OtlpRefused.name(), UNKNOWN)),
            not_kept: Outcome::ALL.map(|outcome| metrics.not_kept(outcome.name())),
            candidate: Compared::ALL.map(|compared| {
                if candidate { metrics.candidate(compared.name()) } else { Counter::default() }
            }),
            written,
            untold: AtomicU64::new(0),
            told: AtomicU64::new(0),
            telling: AtomicBool::new(false),
        }
    }

    pub(super) fn not_kept(&self, outcome: Outcome) {
        if let Some(counter) = self.not_kept.get(outcome as usize) {
            counter.inc();
        }
    }

    pub(super) fn candidate(&self, compared: Compared) {
        if let Some(counter) = self.candidate.get(compared as usize) {
            counter.inc();
        }
    }

    pub(super) fn written(&self, sink: usize, kind: Kind) {
        if let Some(counter) = self.written.get(sink).and_then(|row| row.get(kind as usize)) {
            counter.inc();
        }
    }

    pub(super) fn lost(&self, kind: Kind, loss: Loss, outcome: Outcome) {
        let row = self.lost.get(kind as usize).and_then(|rows| rows.get(loss as usize));
        if let Some(counter) = row.and_then(|row| row.get(outcome as usize)) {
            counter.inc();
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A record is lost, and nobody knows which of several.
    pub(super) fn rejected(&self, kind: Kind) {
        if let Some(counter) = self.rejected.get(kind as usize) {
            counter.inc();
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything in an entry is lost.
    pub(super) fn lost_entry(&self, entry: &Entry, loss: Loss) {
        for item in &entry.items {
            if item.kept {
                self.lost(Kind::Decision, loss, Outcome::of(&item.outcome));
            }
            if item.compared {
                self.candidate(Compared::Lost);
            }
        }
    }

    /// Written by all sinks, and lost, so far.
    pub(super) fn totals(&self) -> (u64, u64) {
        let written = self.written.iter().flatten().map(Counter::get).sum();
        let lost = self.lost.iter().flatten().flatten().chain(&self.rejected);
        (written, lost.map(Counter::get).sum())
    }

    /// Tells the log of losses, once in a while.
    pub(super) fn tell(&self) {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        if self.untold.load(Ordering::Relaxed) == 0
            || now.saturating_sub(self.told.load(Ordering::Relaxed)) < TELL_EVERY.as_secs()
            || self.telling.swap(true, Ordering::Relaxed)
        {
            return;
        }
        self.told.store(now, Ordering::Relaxed);
        self.tell_all();
        self.telling.store(false, Ordering::Relaxed);
    }

    /// Tells the log of all losses that it has not heard of.
    pub(super) fn tell_all(&self) {
        let records = self.untold.swap(0, Ordering::Relaxed);
        if records > 0 {
            tracing::warn!(records, "records were lost; the metric postern_records_lost_total says why");
        }
    }
}
