//! Against the plainest reading of each algorithm, and from many threads at once.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const SECOND: u64 = 1_000_000_000;

fn ask(counters: &Counters, name: &str, meter: Meter) -> Ask {
    Ask { cell: counters.cell(name.as_bytes()), meter, cost: 1 }
}

fn numbered(counters: &Counters, n: usize) -> CellId {
    counters.cell(&n.to_be_bytes())
}

fn take(counters: &Counters, ask: Ask, now: u64) -> Standing {
    let (passes, standings) = counters.take(&[ask], now);
    assert_eq!(passes, standings[0].passes);
    standings[0]
}

/// How many of `tries` pass at a time.
fn pass(counters: &Counters, ask: Ask, now: u64, tries: usize) -> usize {
    (0..tries).filter(|_| take(counters, ask, now).passes).count()
}

#[test]
fn a_bucket_lets_its_burst_pass_and_then_its_rate() {
    let counters = Counters::default();
    let ask = ask(&counters, "a", Meter::bucket(2, Duration::from_secs(1), 5));
    let now = counters.now();
    assert_eq!(
        take(&counters, ask, now),
        Standing { passes: true, remaining: 4, reset: SECOND / 2, wait: 0 }
    );
    assert_eq!(pass(&counters, ask, now, 10), 4);
    let refused = take(&counters, ask, now);
    assert_eq!(refused, Standing { passes: false, remaining: 0, reset: 5 * SECOND / 2, wait: SECOND / 2 });
    assert!(!take(&counters, ask, now + refused.wait - 1).passes);
    assert_eq!(pass(&counters, ask, now + refused.wait, 10), 1);
    // Full again, and no fuller.
    assert_eq!(pass(&counters, ask, now + 3600 * SECOND, 10), 5);
}

#[test]
fn windows_begin_with_the_clocks() {
    let counters = Counters::default();
    let minute = Duration::from_secs(60);
    let ask = ask(&counters, "a", Meter::fixed(3, minute));
    let begin = 28_000_000 * 60 * SECOND;
    assert_eq!(pass(&counters, ask, begin + 59 * SECOND, 10), 3);
    let refused = take(&counters, ask, begin + 59 * SECOND);
    assert_eq!((refused.remaining, refused.wait, refused.reset), (0, SECOND, SECOND));
    assert_eq!(pass(&counters, ask, begin + 60 * SECOND, 10), 3);
}

#[test]
fn a_window_that_slides_remembers_the_one_before() {
    let counters = Counters::default();
    let ask = ask(&counters, "a", Meter::sliding(10, Duration::from_secs(10)));
    let begin = 1_000_000 * 10 * SECOND;
    assert_eq!(pass(&counters, ask, begin + 9 * SECOND, 20), 10);
    // A second later all of these are in the last ten.
    assert_eq!(pass(&counters, ask, begin + 10 * SECOND, 20), 0);
    let refused = take(&counters, ask, begin + 10 * SECOND);
    assert!(!take(&counters, ask, begin + 10 * SECOND + refused.wait - 1).passes);
    assert!(take(&counters, ask, begin + 10 * SECOND + refused.wait).passes);
    // Half of the window before counts.
    assert_eq!(pass(&counters, ask, begin + 15 * SECOND, 20), 4);
    assert_eq!(pass(&counters, ask, begin + 40 * SECOND, 20), 10);
}

/// Threads read their clocks, and then come in another order.
#[test]
fn who_comes_late_counts_where_time_is() {
    let counters = Counters::default();
    let begin = 1_000_000 * 10 * SECOND;
    for (name, meter, late) in [
        // It has filled by a billionth less.
        ("bucket", Meter::bucket(10, Duration::from_secs(10), 10), 3),
        ("fixed", Meter::fixed(10, Duration::from_secs(10)), 4),
        ("sliding", Meter::sliding(10, Duration::from_secs(10)), 4),
    ] {
        let ask = ask(&counters, name, meter);
        assert_eq!(pass(&counters, ask, begin + 10 * SECOND, 6), 6, "{name}");
        assert_eq!(pass(&counters, ask, begin + 10 * SECOND - 1, 10), late, "{name}");
        assert_eq!(pass(&counters, ask, begin + 10 * SECOND, 10), 4 - late, "{name}");
    }
}

#[test]
fn what_is_in_flight_counts_until_it_ends() {
    let counters = Counters::default();
    let ask = ask(&counters, "a", Meter::InFlight { limit: 2 });
    assert_eq!(pass(&counters, ask, 1, 5), 2);
    assert_eq!(pass(&counters, ask, u64::MAX - 1, 5), 0);
    counters.give_back(ask.cell, 1);
    assert_eq!(pass(&counters, ask, 2, 5), 1);
    counters.give_back(ask.cell, 1);
    counters.give_back(ask.cell, 1);
    assert_eq!(counters.len(), 0);
}

#[test]
fn all_take_or_none_does() {
    let counters = Counters::default();
    let wide = ask(&counters, "wide", Meter::bucket(100, Duration::from_secs(60), 100));
    let narrow = ask(&counters, "narrow", Meter::fixed(3, Duration::from_secs(60)));
    let now = 28_000_000 * 60 * SECOND;
    let passed = (0..10).filter(|_| counters.take(&[wide, narrow], now).0).count();
    assert_eq!(passed, 3);
    let (_, standings) = counters.take(&[wide, narrow], now);
    assert_eq!((standings[0].passes, standings[0].remaining), (true, 96), "{standings:?}");
    assert_eq!(take(&counters, wide, now).remaining, 96);
}

#[test]
fn what_costs_nothing_passes_and_takes_nothing() {
    let counters = Counters::default();
    let one = ask(&counters, "a", Meter::bucket(1, Duration::from_secs(60), 1));
    assert_eq!(pass(&counters, one, SECOND, 5), 1);
    let free = Ask { cost: 0, ..one };
    assert_eq!(pass(&counters, free, SECOND, 5), 5);
    let dear = Ask { cost: 2, ..ask(&counters, "b", Meter::bucket(1, Duration::from_secs(60), 1)) };
    assert_eq!(pass(&counters, dear, SECOND, 5), 0);
}

/// With N threads and a limit of L, exactly L pass.
#[test]
fn threads_together_get_what_one_would() {
    let counters = Counters::default();
    let one = ask(&counters, "one", Meter::bucket(5_000, Duration::from_secs(3600), 5_000));
    let other = ask(&counters, "other", Meter::fixed(3_000, Duration::from_secs(3600)));
    let now = 500_000 * 3600 * SECOND;
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (counters, passed) = (&counters, &passed);
            scope.spawn(move || {
                // In both orders: nobody may wait for ever.
                let asks = if thread % 2 == 0 { [one, other] } else { [other, one] };
                for _ in 0..2_000 {
                    if counters.take(&asks, now).0 {
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 3_000);
    assert_eq!(take(&counters, one, now).remaining, 1_999);
}

#[test]
fn cells_are_bounded_and_idle_ones_make_room() {
    let counters = Counters::new(64 * 100);
    let meter = Meter::bucket(1, Duration::from_secs(10), 1);
    for n in 0..20_000 {
        assert!(take(&counters, Ask { cell: numbered(&counters, n), meter, cost: 1 }, SECOND).passes);
    }
    let full = counters.len();
    assert!(full <= 64 * 100, "{full}");
    assert!(counters.evicted() > 0);
    // Ten seconds later all of them are as good as new.
    let evicted = counters.evicted();
    for n in 30_000..34_000 {
        take(&counters, Ask { cell: numbered(&counters, n), meter, cost: 1 }, 12 * SECOND);
    }
    assert_eq!(counters.evicted(), evicted);
}

/// A million keys within 150 MB.
#[test]
fn a_million_keys_fit() {
    let counters = Counters::default();
    let meter = Meter::bucket(1, Duration::from_secs(3600), 1);
    for n in 0..CELLS {
        take(&counters, Ask { cell: numbered(&counters, n), meter, cost: 1 }, SECOND);
    }
    // The last of a shard's keys may have found it full.
    assert!(counters.len() > CELLS * 95 / 100, "{}", counters.len());
    let bytes: usize = counters.shards.iter().map(|shard| lock(shard).allocation_size()).sum();
    assert!(bytes < 60_000_000, "{bytes}");
}

/// The reference: every request that passed, and when.
#[derive(Default)]
struct Reference {
    passed: VecDeque<(u64, u64)>,
    /// For the bucket: tokens are counted in `interval`s of nanoseconds.
    level: u128,
    at: u64,
}

impl Reference {
    fn take(&mut self, meter: Meter, cost: u64, now: u64) -> bool {
        let sum = |passed: &VecDeque<(u64, u64)>, from: u64, to: u64| -> u64 {
            passed.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, cost)| cost).sum()
        };
        let passes = cost == 0
            || match meter {
                Meter::Bucket { interval, capacity } => {
                    let room = u128::from(interval) * u128::from(capacity);
                    self.level =
                        if self.at == 0 { room } else { (self.level + u128::from(now - self.at)).min(room) };
                    self.at = now;
                    let wanted = u128::from(interval) * u128::from(cost);
                    let passes = wanted <= self.level;
                    if passes {
                        self.level -= wanted;
                    }
                    passes
                }
                Meter::Fixed { limit, window } => {
                    let begin = now / window * window;
                    sum(&self.passed, begin, begin + window) + cost <= limit
                }
                Meter::Sliding { limit, window } => {
                    let begin = now / window * window;
                    let before = sum(&self.passed, begin.saturating_sub(window), begin);
                    let old =
                        (u128::from(before) * u128::from(begin + window - now)).div_ceil(u128::from(window));
                    old + u128::from(sum(&self.passed, begin, begin + window)) + u128::from(cost)
                        <= u128::from(limit)
                }
                Meter::InFlight { .. } => unreachable!("has no time"),
            };
        if passes {
            self.passed.push_back((now, cost));
        }
        passes
    }
}

/// How much a new cell lets pass at once.
fn quota(meter: Meter) -> u64 {
    match meter {
        Meter::Bucket { capacity, .. } => capacity,
        Meter::Fixed { limit, .. } | Meter::Sliding { limit, .. } | Meter::InFlight { limit } => limit,
    }
}

proptest! {
    #[test]
    fn the_limiter_admits_what_the_reference_admits(
        limit in 1u32..20,
        window in 1u64..30,
        capacity in 1u32..30,
        kind in 0..3,
        steps in prop::collection::vec((0u64..4_000, 0u64..4), 1..200),
    ) {
        let window = Duration::from_secs(window);
        let meter = match kind {
            0 => Meter::bucket(limit, window, capacity),
            1 => Meter::fixed(limit, window),
            _ => Meter::sliding(limit, window),
        };
        let counters = Counters::default();
        let mut reference = Reference::default();
        let cell = counters.cell(b"it");
        let mut now = 1_700_000_000 * SECOND;
        for (milliseconds, cost) in steps {
            now += milliseconds * 1_000_000;
            let standing = take(&counters, Ask { cell, meter, cost }, now);
            prop_assert_eq!(standing.passes, reference.take(meter, cost, now));
            // What it says of the future holds, if nobody else comes.
            if !standing.passes && cost <= quota(meter) {
                let later = meter.ask(find(&lock(&counters.shards[cell.shard()]), cell, now + standing.wait), cost, now + standing.wait);
                prop_assert!(later.0.passes, "{:?} {:?}", standing, later.0);
            }
            if standing.remaining > 0 {
                let more = meter.ask(find(&lock(&counters.shards[cell.shard()]), cell, now), standing.remaining, now);
                prop_assert!(more.0.passes);
            }
        }
    }
}
