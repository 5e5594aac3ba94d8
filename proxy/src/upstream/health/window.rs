//! How many of the requests of the last while were of one sort: a sliding window of ten slices, shared without a lock.
//!
//! Each slice is one word: which slice of time it holds, and its counts. A thread that finds an older one there begins it
//! anew. The window is therefore exact to a tenth of its length.

use super::breaker::Millis;
use crate::model::Ratio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const SLICES: u64 = 10;
/// Bits of a count. A slice that has more requests halves both of its counts, which keeps their ratio.
const COUNT: u32 = 22;
const MASK: u64 = (1 << COUNT) - 1;

/// Counts of a sliding window.
#[derive(Debug, Default)]
pub(crate) struct Window([AtomicU64; SLICES as usize]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slice {
    /// Which one since the clock began; of the number, what fits.
    number: u64,
    total: u64,
    marked: u64,
}

impl Slice {
    fn unpack(word: u64) -> Self {
        Self { number: word >> (2 * COUNT), total: word >> COUNT & MASK, marked: word & MASK }
    }

    fn pack(self) -> u64 {
        self.number << (2 * COUNT) | self.total << COUNT | self.marked
    }

    fn add(self, marked: bool) -> Self {
        let (total, old) =
            if self.total == MASK { (self.total / 2, self.marked / 2) } else { (self.total, self.marked) };
        Self { total: total + 1, marked: old + u64::from(marked), ..self }
    }
}

/// Numbers of slices as they are kept: they go round in more than a day, at the same place among the slices.
const NUMBERS: u64 = (1 << (64 - 2 * COUNT)) / SLICES * SLICES;

/// The slice of a window of that length that a time is in.
fn slice_number(now: Millis, window: Duration) -> u64 {
    let length = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).div_ceil(SLICES).max(1);
    now / length % NUMBERS
}

impl Window {
    /// Counts a request, and says whether the marked ones are too many now.
    pub(crate) fn note(&self, now: Millis, marked: bool, ratio: &Ratio) -> bool {
        let number = self.count(now, marked, ratio.window);
        // What succeeded can't make it too many.
        marked && self.is_too_many(number, ratio)
    }

    /// Counts a request in a window of that length; says in which slice.
    pub(crate) fn count(&self, now: Millis, marked: bool, window: Duration) -> u64 {
        let number = slice_number(now, window);
        let slice = &self.0[(number % SLICES) as usize];
        let _ = slice.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let found = Slice::unpack(word);
            let current = if found.number == number { found } else { Slice { number, ..Slice::default() } };
            Some(current.add(marked).pack())
        });
        number
    }

    fn is_too_many(&self, number: u64, ratio: &Ratio) -> bool {
        let (total, marked) = self.sum(number);
        total >= u64::from(ratio.min_requests).max(1) && marked * 100 >= total * u64::from(ratio.percent)
    }

    /// The requests of a window of that length, and how many of them are marked.
    pub(crate) fn counts(&self, now: Millis, window: Duration) -> (u64, u64) {
        self.sum(slice_number(now, window))
    }

    fn sum(&self, number: u64) -> (u64, u64) {
        let (mut total, mut marked) = (0, 0);
        for slice in &self.0 {
            let slice = Slice::unpack(slice.load(Ordering::Relaxed));
            // Behind the number that is kept, time has gone round once in a while.
            if (number + NUMBERS - slice.number) % NUMBERS < SLICES {
                total += slice.total;
                marked += slice.marked;
            }
        }
        (total, marked)
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        for slice in &self.0 {
            slice.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ratio(percent: u8, min_requests: u32) -> Ratio {
        Ratio { percent, window: Duration::from_secs(10), min_requests }
    }

    proptest! {
        /// The window equals a list of all requests, cut at the slice that is nine before the current one.
        #[test]
        fn the_window_is_a_list(
            steps in prop::collection::vec((0u64..3_000, any::<bool>()), 1..200),
            percent in 1u8..=100,
            min_requests in 0u32..20,
        ) {
            let (window, ratio) = (Window::default(), ratio(percent, min_requests));
            let (mut now, mut all) = (50_000, Vec::new());
            for (step, marked) in steps {
                now += step;
                all.push((now / 1_000, marked));
                let within: Vec<_> = all.iter().filter(|(slice, _)| now / 1_000 - slice < 10).collect();
                let bad = within.iter().filter(|(_, marked)| *marked).count();
                let wanted = marked
                    && within.len() >= min_requests as usize
                    && bad * 100 >= within.len() * usize::from(percent);
                prop_assert_eq!(window.note(now, marked, &ratio), wanted);
            }
        }
    }

    #[test]
    fn a_full_slice_keeps_its_ratio() {
        let mut slice = Slice { number: 7, total: MASK, marked: MASK / 4 };
        slice = Slice::unpack(slice.add(true).pack());
        assert_eq!(slice, Slice { number: 7, total: MASK / 2 + 1, marked: MASK / 8 + 1 });
    }

    #[test]
    fn what_is_cleared_counts_no_more() {
        let window = Window::default();
        for _ in 0..4 {
            assert!(!window.note(1_000_000, true, &ratio(50, 5)));
        }
        window.clear();
        assert!(!window.note(1_000_000, true, &ratio(50, 5)));
    }
}
