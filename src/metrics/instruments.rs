//! What code counts with: counters, gauges and histograms, bound to their labels once, at start.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::cells::Cells;

/// Only grows. Cheap to clone; all clones are one number.
#[derive(Clone, Debug)]
pub struct Counter {
    cells: Cells,
    number: usize,
}

/// Goes up and down. Cheap to clone; all clones are one number.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

/// A gauge of fractions. Cheap to clone; all clones are one number.
#[derive(Clone, Debug, Default)]
pub struct FloatGauge(Arc<AtomicU64>);

/// A counter that somebody else keeps: set when somebody looks. Cheap to clone; all clones are one number.
#[derive(Clone, Debug, Default)]
pub struct Observed(Arc<AtomicU64>);

/// How long something took. Cheap to clone; all clones are one histogram.
#[derive(Clone, Debug)]
pub struct Histogram {
    cells: Cells,
    bounds: &'static [u64],
}

/// A histogram as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Distribution {
    /// Those up to [`SMALLEST`], then each bucket, then those beyond the last.
    pub(super) buckets: Vec<u64>,
    /// Nanoseconds.
    pub(super) sum: u64,
}

/// Buckets for each doubling are two to this: the scale of exponential histograms.
pub(super) const SCALE: u32 = 2;
/// The upper bound of the first bucket is two to this, in seconds: about a microsecond.
pub(super) const SMALLEST: i32 = -20;
/// The upper bound of the last bucket is two to this, in seconds.
const LARGEST: i32 = 6;
/// The classic buckets end at two to this, in seconds.
const LARGEST_CLASSIC: i32 = 3;

/// Upper bounds in nanoseconds, rounded down: a whole number is above one exactly if it is above its fraction.
static BOUNDS: LazyLock<Box<[u64]>> = LazyLock::new(|| {
    let steps = 1_i32 << SCALE;
    (SMALLEST * steps..=LARGEST * steps).map(|step| nanoseconds(f64::from(step) / f64::from(steps))).collect()
});

/// Two to this, in seconds, as whole nanoseconds below it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between a microsecond and a minute"
)]
fn nanoseconds(power: f64) -> u64 {
    (power.exp2() * 1e9) as u64
}

// === impls ===

impl Default for Counter {
    /// One that nobody looks at.
    fn default() -> Self {
        Self::of(&Cells::new(1), 0)
    }
}

impl Counter {
    pub(super) fn of(cells: &Cells, number: usize) -> Self {
        Self { cells: cells.clone(), number }
    }

    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.cells.add(self.number, 1);
    }

    /// So many more.
    #[inline]
    pub fn inc_by(&self, count: u64) {
        self.cells.add(self.number, count);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.cells.get(self.number)
    }
}

impl Gauge {
    /// Sets it; beyond the range it stays at its end.
    pub fn set(&self, value: impl TryInto<i64>) {
        self.0.store(value.try_into().unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So many more; what it was before.
    pub fn inc_by(&self, count: i64) -> i64 {
        self.0.fetch_add(count, Ordering::Relaxed)
    }

    /// So many less; what it was before.
    pub fn dec_by(&self, count: i64) -> i64 {
        self.0.fetch_sub(count, Ordering::Relaxed)
    }

    /// One less.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl FloatGauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl Observed {
    /// What the other count says.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Histogram {
    pub(super) fn new() -> Self {
        let bounds: &'static [u64] = &BOUNDS;
        // One bucket more than bounds, and the sum.
        Self { cells: Cells::new(bounds.len().saturating_add(2)), bounds }
    }

    /// One that took so long.
    #[inline]
    pub fn observe(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < nanoseconds);
        self.cells.add(bucket, 1);
        self.cells.add(self.bounds.len().wrapping_add(1), nanoseconds);
    }

    pub(super) fn now(&self) -> Distribution {
        let buckets = (0..=self.bounds.len()).map(|bucket| self.cells.get(bucket)).collect();
        Distribution { buckets, sum: self.cells.get(self.bounds.len().saturating_add(1)) }
    }
}

impl Distribution {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// In seconds.
    pub(super) fn seconds(&self) -> f64 {
        Duration::from_nanos(self.sum).as_secs_f64()
    }

    /// Upper bounds in seconds, each the double of the one before, with how many are at or below.
    pub(super) fn classic(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum: u64 = 0;
        let mut from = 0;
        (SMALLEST..=LARGEST_CLASSIC).zip(0_usize..).map(move |(power, at)| {
            let to = (at << SCALE).saturating_add(1);
            sum = sum.saturating_add(self.buckets.get(from..to).unwrap_or_default().iter().sum());
            from = to;
            (f64::from(power).exp2(), sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_its_bucket() {
        let histogram = Histogram::new();
        for took in [0, 900, 1_000, 1_000_000, 1_000_000_000, 3_600_000_000_000] {
            histogram.observe(Duration::from_nanos(took));
        }
        let now = histogram.now();
        assert_eq!(now.count(), 6);
        assert_eq!(now.buckets[0], 2, "up to 953 ns");
        assert_eq!(now.buckets.last(), Some(&1), "an hour");
        let at_or_below = |seconds: f64| now.classic().find(|(bound, _)| *bound >= seconds).unwrap().1;
        assert_eq!([1e-6, 1e-3, 1.0, 8.0].map(at_or_below), [3, 4, 5, 5]);
        // Of every doubling the last bucket ends where the classic one does.
        for (power, at) in (SMALLEST..=LARGEST).zip(0..) {
            assert_eq!(BOUNDS[at << SCALE], nanoseconds(f64::from(power)));
        }
    }
}
