//! Deadlines of one worker thread: a wheel of 100 ms ticks.
//!
//! A [`Timer`] lives as long as its connection and is set anew for every wait. Setting it later than before costs two
//! stores: the wheel keeps the entry where it was and moves it when that tick comes. So a busy connection touches the
//! wheel once per idle period, not once per request. Deadlines fire up to two ticks late, never early. The driver sleeps
//! while nothing is armed. Must not be shared between threads.

use rustix::time::{ClockId, clock_gettime};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Length of a tick: all our bounds are hundreds of milliseconds or more (security.md §8).
const TICK: Duration = Duration::from_millis(100);
/// By how much a time may be late: ticks of the kernel are half as long, or shorter, and so is what a thread does by one
/// reading of the clock.
const LATE: Duration = Duration::from_millis(20);
/// How often a time that was read is taken again before the thread rests.
const READINGS: u32 = 64;
/// Places on the wheel: 102 s, beyond every default bound but one, so that few entries go round twice.
const PLACES: usize = 1024;
/// `queued` of an entry that isn't on the wheel.
const NOWHERE: u64 = u64::MAX;

/// A point in time, in ticks since the wheel began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// Later than everything.
    pub(crate) const NEVER: Self = Self(u64::MAX);
}

struct Entry {
    deadline: Cell<Deadline>,
    /// The tick at which the wheel looks at this entry next; entries that it finds elsewhere are out of date.
    queued: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

/// The deadlines of one thread.
pub(crate) struct Wheel {
    start: Duration,
    /// Ticks that have been worked off.
    now: Cell<u64>,
    places: RefCell<Vec<Vec<Rc<Entry>>>>,
    /// Entries on the wheel, those out of date included.
    armed: Cell<usize>,
    driver: RefCell<Option<Waker>>,
}

impl Wheel {
    /// An empty wheel. It turns while [`Wheel::run`] is polled.
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            start: CLOCK.with(Clock::time),
            now: Cell::new(0),
            places: RefCell::new((0..PLACES).map(|_| Vec::new()).collect()),
            armed: Cell::new(0),
            driver: RefCell::new(None),
        })
    }

    /// The deadline `bound` from now. Rounded up, so that nothing fires early.
    pub(crate) fn after(&self, bound: Duration) -> Deadline {
        let now = self.elapsed().saturating_add(LATE);
        Deadline(ticks(now.saturating_add(bound)).saturating_add(1))
    }

    fn elapsed(&self) -> Duration {
        CLOCK.with(Clock::time).saturating_sub(self.start)
    }

    /// Turns the wheel for ever. One task per thread.
    pub(crate) async fn run(self: Rc<Self>) {
        loop {
            std::future::poll_fn(|cx| {
                if self.armed.get() > 0 {
                    return Poll::Ready(());
                }
                *self.driver.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            tokio::time::sleep(TICK).await;
            self.advance(ticks(self.elapsed()));
        }
    }

    fn advance(&self, now: u64) {
        let before = self.now.replace(now);
        // After a long rest every place is visited once: `place` finds what is due by comparing, not by position.
        let first = (before + 1).max(now.saturating_sub(PLACES as u64 - 1));
        for tick in first..=now {
            let at = (tick % PLACES as u64) as usize;
            let due = std::mem::take(&mut self.places.borrow_mut()[at]);
            self.armed.set(self.armed.get() - due.len());
            for entry in due {
                let queued = entry.queued.get();
                if queued % PLACES as u64 != at as u64 {
                    continue;
                }
                let deadline = entry.deadline.get();
                if deadline == Deadline::NEVER {
                    entry.queued.set(NOWHERE);
                } else if deadline.0 <= now {
                    entry.queued.set(NOWHERE);
                    if let Some(waker) = entry.waker.borrow_mut().take() {
                        waker.wake();
                    }
                } else {
                    self.place(entry, deadline.0);
                }
            }
        }
    }

    fn place(&self, entry: Rc<Entry>, tick: u64) {
        entry.queued.set(tick);
        self.places.borrow_mut()[(tick % PLACES as u64) as usize].push(entry);
        self.armed.set(self.armed.get() + 1);
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.wake();
        }
    }
}

fn ticks(time: Duration) -> u64 {
    let tick = TICK.subsec_millis();
    time.as_secs()
        .saturating_mul(u64::from(1_000 / tick))
        .saturating_add(u64::from(time.subsec_millis() / tick))
}

/// A thread's clock that never goes back, as of a tick of the kernel: a fifth of what an exact one costs. Where the thread says
/// when it [`woke`], the clock is read once for all that it does then.
struct Clock {
    /// How often `last` may still be taken; `None`: never, as nobody says when the thread woke.
    left: Cell<Option<u32>>,
    last: Cell<Duration>,
}

thread_local! {
    static CLOCK: Clock = const { Clock { left: Cell::new(None), last: Cell::new(Duration::ZERO) } };
}

impl Clock {
    fn time(&self) -> Duration {
        match self.left.get() {
            Some(left @ 1..) => {
                self.left.set(Some(left - 1));
                self.last.get()
            }
            left => {
                let now = time_of(ClockId::MonotonicCoarse);
                self.last.set(now);
                self.left.set(left.map(|_| READINGS));
                now
            }
        }
    }
}

/// To be called whenever this thread has waited for something to do.
pub(crate) fn woke() {
    CLOCK.with(|clock| clock.left.set(Some(0)));
}

/// The time of a clock of the kernel's.
pub(crate) fn time_of(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// One waiting place on the wheel. Waits for one deadline at a time: the last one asked for counts.
pub(crate) struct Timer {
    wheel: Rc<Wheel>,
    entry: Rc<Entry>,
}

impl Timer {
    /// A timer that waits for nothing.
    pub(crate) fn new(wheel: &Rc<Wheel>) -> Self {
        let entry = Entry {
            deadline: Cell::new(Deadline::NEVER),
            queued: Cell::new(NOWHERE),
            waker: RefCell::new(None),
        };
        Self { wheel: wheel.clone(), entry: Rc::new(entry) }
    }

    /// The wheel it is on.
    pub(crate) fn wheel(&self) -> &Rc<Wheel> {
        &self.wheel
    }

    /// Whether `deadline` has passed; if not, the task is woken when it does.
    pub(crate) fn poll_at(&self, cx: &mut Context<'_>, deadline: Deadline) -> Poll<()> {
        if deadline.0 <= self.wheel.now.get() {
            self.entry.deadline.set(Deadline::NEVER);
            return Poll::Ready(());
        }
        self.entry.deadline.set(deadline);
        if deadline == Deadline::NEVER {
            return Poll::Pending;
        }
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        if deadline.0 < self.entry.queued.get() {
            self.wheel.place(self.entry.clone(), deadline.0);
        }
        Poll::Pending
    }

    /// Waits for nothing any more.
    pub(crate) fn clear(&self) {
        self.entry.deadline.set(Deadline::NEVER);
    }

    /// Runs `work` until `deadline`; `None` when it took longer.
    pub(crate) async fn bound<F: Future>(&self, deadline: Deadline, work: F) -> Option<F::Output> {
        let mut work = std::pin::pin!(work);
        let outcome = std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll_at(cx, deadline).map(|()| None),
        })
        .await;
        self.clear();
        outcome
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // The wheel finds the entry when its tick comes and lets go of it then.
        self.clear();
        self.entry.waker.borrow_mut().take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counter() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), Waker::from(count))
    }

    fn woken(count: &Count) -> usize {
        count.0.load(Ordering::Relaxed)
    }

    #[test]
    fn fires_at_its_tick_and_not_before() {
        let wheel = Wheel::new();
        let (count, waker) = counter();
        let mut cx = Context::from_waker(&waker);
        let timer = Timer::new(&wheel);
        assert!(timer.poll_at(&mut cx, Deadline(5)).is_pending());
        wheel.advance(4);
        assert_eq!(woken(&count), 0);
        wheel.advance(5);
        assert_eq!(woken(&count), 1);
        assert!(timer.poll_at(&mut cx, Deadline(5)).is_ready());
        assert_eq!(wheel.armed.get(), 0);
    }

    #[test]
    fn a_later_deadline_moves_without_touching_the_wheel() {
        let wheel = Wheel::new();
        let (count, waker) = counter();
        let mut cx = Context::from_waker(&waker);
        let timer = Timer::new(&wheel);
        for deadline in 5..50 {
            assert!(timer.poll_at(&mut cx, Deadline(deadline)).is_pending());
        }
        assert_eq!(wheel.armed.get(), 1);
        wheel.advance(48);
        assert_eq!(woken(&count), 0);
        wheel.advance(49);
        assert_eq!(woken(&count), 1);
    }

    #[test]
    fn an_earlier_deadline_counts() {
        let wheel = Wheel::new();
        let (count, waker) = counter();
        let mut cx = Context::from_waker(&waker);
        let timer = Timer::new(&wheel);
        assert!(timer.poll_at(&mut cx, Deadline(600)).is_pending());
        assert!(timer.poll_at(&mut cx, Deadline(3)).is_pending());
        wheel.advance(3);
        assert_eq!(woken(&count), 1);
        wheel.advance(700);
        assert_eq!((woken(&count), wheel.armed.get()), (1, 0));
    }

    #[test]
    fn goes_round_more_than_once_and_survives_a_long_rest() {
        let wheel = Wheel::new();
        let (count, waker) = counter();
        let mut cx = Context::from_waker(&waker);
        let far = Timer::new(&wheel);
        assert!(far.poll_at(&mut cx, Deadline(2 * PLACES as u64 + 7)).is_pending());
        wheel.advance(7);
        wheel.advance(PLACES as u64 + 7);
        assert_eq!(woken(&count), 0);
        wheel.advance(9 * PLACES as u64);
        assert_eq!((woken(&count), wheel.armed.get()), (1, 0));
    }

    #[test]
    fn the_clock_is_read_once_by_a_thread_that_says_when_it_woke() {
        let time = || CLOCK.with(Clock::time);
        let rest = || std::thread::sleep(LATE);
        let before = time();
        rest();
        assert!(time() > before);
        woke();
        let first = time();
        rest();
        assert!((0..READINGS).all(|_| time() == first));
        let second = time();
        assert!(second > first);
        rest();
        woke();
        assert!(time() > second);
    }

    #[test]
    fn cleared_and_dropped_timers_are_forgotten() {
        let wheel = Wheel::new();
        let (count, waker) = counter();
        let mut cx = Context::from_waker(&waker);
        let timer = Timer::new(&wheel);
        assert!(timer.poll_at(&mut cx, Deadline(2)).is_pending());
        timer.clear();
        let dropped = Timer::new(&wheel);
        assert!(dropped.poll_at(&mut cx, Deadline(3)).is_pending());
        drop(dropped);
        wheel.advance(10);
        assert_eq!((woken(&count), wheel.armed.get()), (0, 0));
    }
}
