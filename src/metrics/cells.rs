//! Numbers that many threads add to: each thread has its own copy of every number, on cache lines of its own, and
//! who reads adds them up. An addition is one atomic instruction on a line that no other core is writing.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const LINE: usize = 8;

/// Numbers that begin at zero.
#[derive(Clone, Debug)]
pub(super) struct Cells(Arc<Block>);

#[derive(Debug)]
struct Block {
    lines: Box<[Line]>,
    /// Lines of one copy.
    stride: usize,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; LINE]);

/// As many copies as threads run at once, within reason.
static COPIES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 16));

/// Hands out the copies in turn.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The copy of this thread; not chosen yet at first.
    static COPY: Cell<usize> = const { Cell::new(usize::MAX) };
}

impl Cells {
    /// So many numbers.
    pub(super) fn new(numbers: usize) -> Self {
        let stride = numbers.div_ceil(LINE).max(1);
        let lines = (0..stride.saturating_mul(*COPIES)).map(|_| Line::default()).collect();
        Self(Arc::new(Block { lines, stride }))
    }

    /// Adds to one of the numbers.
    #[inline]
    pub(super) fn add(&self, number: usize, value: u64) {
        let line = copy().wrapping_mul(self.0.stride).wrapping_add(number / LINE);
        if let Some(cell) = self.0.lines.get(line).and_then(|line| line.0.get(number % LINE)) {
            cell.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// One of the numbers.
    pub(super) fn get(&self, number: usize) -> u64 {
        let copies = self.0.lines.chunks(self.0.stride);
        let cells = copies.filter_map(|lines| lines.get(number / LINE)?.0.get(number % LINE));
        cells.fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }
}

#[inline]
fn copy() -> usize {
    COPY.with(|copy| {
        if copy.get() == usize::MAX {
            copy.set(NEXT.fetch_add(1, Ordering::Relaxed) % *COPIES);
        }
        copy.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let cells = Cells::new(20);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..20_000).for_each(|at| cells.add(at % 20, 1)));
            }
        });
        for number in 0..20 {
            assert_eq!(cells.get(number), 8_000);
        }
        assert_eq!(Cells::new(0).get(3), 0);
    }
}
