//! The circuit breaker: one machine of three states, and the cell in which threads share it.
//!
//! The machine ([`State`]) is pure: a clock and chance are passed in. It fits into one word, so that a request that passes a
//! closed breaker reads one number and writes nothing but what it counts, and every change of state is one exchange of
//! that word. Outcomes carry the epoch in which their request was let in: what began before the breaker opened says
//! nothing about it afterwards.

use super::window::Window;
use crate::model::{Breaker as Policy, Trip};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Milliseconds of a clock that all threads share.
pub(crate) type Millis = u64;

/// Where a breaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everything passes.
    Closed,
    /// Probes pass: so many are under way, and so many have succeeded.
    HalfOpen { probes: u16, successes: u16 },
    /// Nothing passes before that time.
    Open { until: Millis },
}

/// A breaker's whole state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// Times it opened since it was closed: the next time is doubled so often.
    opened: u8,
    /// Grows with every change of phase, and begins anew some time.
    epoch: u8,
}

/// What a breaker says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may pass; the epoch goes with its outcome.
    Pass(Permit),
    /// It may not; perhaps after that time.
    Refused { until: Millis },
}

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Permit {
    epoch: u8,
    probe: bool,
    /// Of the probes since the breaker was open.
    first: bool,
}

impl Permit {
    /// Whether the breaker was open before it.
    pub(super) fn is_first(self) -> bool {
        self.first
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Success,
    Failure,
    /// It says nothing about the backend: its client left, or broke its protocol.
    Unknown,
}

/// Probes and successes that are counted: twelve bits each would do for any policy.
const MOST_PROBES: u32 = u16::MAX as u32;
/// Bits of a word for what a phase has beside its name.
const DETAIL: u32 = 46;

impl State {
    pub(crate) const CLOSED: Self = Self { phase: Phase::Closed, opened: 0, epoch: 0 };

    /// Lets a request in, or not.
    fn admit(self, now: Millis, policy: &Policy) -> (Self, Verdict) {
        let pass =
            |state: Self, probe, first| (state, Verdict::Pass(Permit { epoch: state.epoch, probe, first }));
        match self.phase {
            Phase::Closed => pass(self, false, false),
            Phase::Open { until } if now < until => (self, Verdict::Refused { until }),
            Phase::Open { .. } => pass(self.next(Phase::HalfOpen { probes: 1, successes: 0 }), true, true),
            Phase::HalfOpen { probes, successes }
                if u32::from(probes) < policy.max_probes.min(MOST_PROBES) =>
            {
                pass(Self { phase: Phase::HalfOpen { probes: probes + 1, successes }, ..self }, true, false)
            }
            // Nobody knows when the probes come back: soon.
            Phase::HalfOpen { .. } => (self, Verdict::Refused { until: now + 1_000 }),
        }
    }

    /// Takes in the fate of a probe.
    fn probed(self, permit: Permit, fate: Fate, now: Millis, random: u32, policy: &Policy) -> Self {
        let Phase::HalfOpen { probes, successes } = self.phase else { return self };
        if permit.epoch != self.epoch || !permit.probe {
            return self;
        }
        let probes = probes.saturating_sub(1);
        match fate {
            Fate::Failure => self.open(now, random, policy),
            Fate::Unknown => Self { phase: Phase::HalfOpen { probes, successes }, ..self },
            Fate::Success if u32::from(successes) + 1 >= policy.successes_to_close.min(MOST_PROBES) => {
                Self { opened: 0, ..self.next(Phase::Closed) }
            }
            Fate::Success => Self { phase: Phase::HalfOpen { probes, successes: successes + 1 }, ..self },
        }
    }

    /// Opens what is closed or half open.
    fn open(self, now: Millis, random: u32, policy: &Policy) -> Self {
        let until = now + millis(open_for(policy, self.opened, random));
        Self { opened: self.opened.saturating_add(1).min(31), ..self.next(Phase::Open { until }) }
    }

    fn next(self, phase: Phase) -> Self {
        Self { phase, epoch: self.epoch.wrapping_add(1), ..self }
    }

    fn pack(self) -> u64 {
        let (name, detail) = match self.phase {
            Phase::Closed => (0, 0),
            Phase::HalfOpen { probes, successes } => (1, u64::from(probes) << 16 | u64::from(successes)),
            // 2,000 years fit.
            Phase::Open { until } => (2, until.min((1 << DETAIL) - 1)),
        };
        name << 62 | u64::from(self.epoch) << 54 | u64::from(self.opened) << DETAIL | detail
    }

    fn unpack(word: u64) -> Self {
        let detail = word & ((1 << DETAIL) - 1);
        let phase = match word >> 62 {
            0 => Phase::Closed,
            1 => Phase::HalfOpen { probes: (detail >> 16) as u16, successes: (detail & 0xffff) as u16 },
            _ => Phase::Open { until: detail },
        };
        Self { phase, epoch: (word >> 54 & 0xff) as u8, opened: (word >> DETAIL & 0xff) as u8 }
    }
}

fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX >> 1)
}

/// How long a breaker stays open that was open `before` times in a row: doubled each time, and up to a tenth more.
fn open_for(policy: &Policy, before: u8, random: u32) -> Duration {
    let factor = 2u32.saturating_pow(before.into());
    let whole =
        policy.open_duration.saturating_mul(factor).min(policy.max_open_duration.max(policy.open_duration));
    whole + (whole / 10).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A change that people want to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Opened { until: Millis },
    HalfOpened,
    Closed,
}

/// A breaker that threads share, and what it counts while it is closed.
#[derive(Debug)]
pub(crate) struct Breaker {
    word: AtomicU64,
    in_a_row: AtomicU32,
    failures: Window,
    slow: Window,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            word: AtomicU64::new(State::CLOSED.pack()),
            in_a_row: AtomicU32::new(0),
            failures: Window::default(),
            slow: Window::default(),
        }
    }
}

impl Breaker {
    /// Where it is.
    pub(crate) fn phase(&self) -> Phase {
        State::unpack(self.word.load(Ordering::Acquire)).phase
    }

    /// Whether a request would be refused now.
    pub(crate) fn refuses(&self, now: Millis, policy: &Policy) -> bool {
        let state = State::unpack(self.word.load(Ordering::Acquire));
        matches!(state.admit(now, policy).1, Verdict::Refused { .. })
    }

    /// Lets a request in, or not. Whoever is let in tells its fate. The clock is read only where it matters: that costs more than
    /// all the rest.
    pub(crate) fn admit(&self, now: impl FnOnce() -> Millis, policy: &Policy) -> Verdict {
        let State { phase, epoch, .. } = State::unpack(self.word.load(Ordering::Acquire));
        if phase == Phase::Closed {
            return Verdict::Pass(Permit { epoch, probe: false, first: false });
        }
        let now = now();
        let mut verdict = Verdict::Refused { until: now };
        self.change(|state| {
            let (next, said) = state.admit(now, policy);
            verdict = said;
            next
        });
        verdict
    }

    /// Takes in the fate of a request, which took so long. Clocks are read as in [`Breaker::admit`].
    pub(crate) fn note(
        &self,
        permit: Permit,
        fate: Fate,
        took: Duration,
        (now, random): (impl FnOnce() -> Millis, u32),
        policy: &Policy,
    ) -> Option<Change> {
        let Trip { consecutive_failures, failure_ratio, slow_ratio } = policy.trip;
        let slow = fate != Fate::Unknown && slow_ratio.is_some_and(|slow| took > slow.over);
        if permit.probe {
            let now = now();
            // A probe that is as slow as what opened it shows no recovery.
            let fate = if slow { Fate::Failure } else { fate };
            let (_, after) = self.change(|state| state.probed(permit, fate, now, random, policy))?;
            return match after.phase {
                Phase::Closed => {
                    self.forget();
                    Some(Change::Closed)
                }
                Phase::Open { until } => Some(Change::Opened { until }),
                Phase::HalfOpen { .. } => None,
            };
        }
        if fate == Fate::Unknown || State::unpack(self.word.load(Ordering::Acquire)).epoch != permit.epoch {
            return None;
        }
        let failed = fate == Fate::Failure;
        let mut tripped = consecutive_failures.is_some_and(|most| self.in_a_row(failed) >= most);
        if !tripped && failure_ratio.is_none() && slow_ratio.is_none() {
            return None;
        }
        let now = now();
        // Each counts, whatever the others say.
        tripped |= failure_ratio.is_some_and(|ratio| self.failures.note(now, failed, &ratio));
        tripped |= slow_ratio.is_some_and(|trip| self.slow.note(now, slow, &trip.ratio));
        if !tripped {
            return None;
        }
        let (_, after) = self.change(|state| match state.phase {
            Phase::Closed if state.epoch == permit.epoch => state.open(now, random, policy),
            Phase::Closed | Phase::HalfOpen { .. } | Phase::Open { .. } => state,
        })?;
        match after.phase {
            Phase::Open { until } => Some(Change::Opened { until }),
            Phase::Closed | Phase::HalfOpen { .. } => None,
        }
    }

    /// Failures in a row, with this one.
    fn in_a_row(&self, failed: bool) -> u32 {
        if failed {
            return self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        }
        // Written only when it changes: threads would take the line from each other with every success.
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        0
    }

    /// Begins to count anew.
    fn forget(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
        self.failures.clear();
        self.slow.clear();
    }

    /// Changes the state, and says from what to what; `None` when it stays.
    fn change(&self, mut to: impl FnMut(State) -> State) -> Option<(State, State)> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let before = State::unpack(word);
            let after = to(before);
            if after == before {
                return None;
            }
            match self.word.compare_exchange_weak(word, after.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((before, after)),
                Err(current) => word = current,
            }
        }
    }
}

#[cfg(test)]
mod tests;
