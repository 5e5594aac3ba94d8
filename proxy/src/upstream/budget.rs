//! A retry budget (GEP-3388): how many of a backend's requests may be retries, so that a backend that fails isn't buried
//! under them.
//!
//! Counted by this process over sliding windows, exact to a tenth of their length. Threads count without a lock: each of
//! them may let one retry too many pass at the same moment.

use super::health::{Millis, Window, now};
use crate::model::RetryBudget;

/// A budget in force, and what was spent of it.
#[derive(Debug)]
pub(crate) struct Budget {
    policy: RetryBudget,
    /// Requests; the marked ones are retries.
    requests: Window,
    /// Retries alone, of the time that the least rate is for.
    retries: Window,
}

impl Budget {
    pub(super) fn new(policy: RetryBudget) -> Self {
        Self { policy, requests: Window::default(), retries: Window::default() }
    }

    pub(super) fn policy(&self) -> &RetryBudget {
        &self.policy
    }

    /// Counts a request that is sent for the first time.
    pub(crate) fn note_request(&self) {
        self.requests.count(now(), false, self.policy.interval);
    }

    /// Whether one more retry is in the budget; it is counted then.
    pub(super) fn takes_retry(&self) -> bool {
        self.takes_at(now())
    }

    fn takes_at(&self, now: Millis) -> bool {
        let RetryBudget { percent, interval, min_count, min_interval } = self.policy;
        let (requests, retries) = self.requests.counts(now, interval);
        let (_, lately) = self.retries.counts(now, min_interval);
        // With this one.
        let in_share = (retries + 1) * 100 <= u64::from(percent) * (requests + 1);
        let taken = in_share || lately < u64::from(min_count);
        if taken {
            self.requests.count(now, true, interval);
            self.retries.count(now, true, min_interval);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const START: Millis = 1_000_000;

    fn budget(percent: u8, min_count: u32) -> Budget {
        let seconds = Duration::from_secs;
        Budget::new(RetryBudget { percent, interval: seconds(10), min_count, min_interval: seconds(1) })
    }

    fn taken(budget: &Budget, now: Millis) -> usize {
        (0..1_000).take_while(|_| budget.takes_at(now)).count()
    }

    #[test]
    fn a_share_of_all_requests_may_be_retries() {
        let budget = budget(20, 0);
        for _ in 0..80 {
            budget.requests.count(START, false, budget.policy.interval);
        }
        // 20 of 100.
        assert_eq!(taken(&budget, START), 20);
        // The window has passed.
        assert_eq!(taken(&budget, START + 10_000), 0);
    }

    #[test]
    fn few_requests_have_retries_all_the_same() {
        let budget = budget(20, 3);
        assert_eq!(taken(&budget, START), 3);
        assert_eq!(taken(&budget, START + 500), 0);
        assert_eq!(taken(&budget, START + 1_000), 3);
    }

    #[test]
    fn a_budget_of_nothing_takes_no_retry() {
        let budget = budget(0, 0);
        budget.requests.count(START, false, budget.policy.interval);
        assert_eq!(taken(&budget, START), 0);
    }
}
