//! Idle connections and requests in flight of one worker thread, found by an endpoint's slot: no lock, no hash.
//!
//! Last in, first out, so that few connections stay warm and the rest can age. A sweep every few seconds closes what is
//! too old, what the backend closed, and everything that goes to an endpoint which is no longer in any set. Must not
//! be shared between threads; what threads share about an endpoint is its [`Address`].

use super::endpoint::Address;
use super::h1::{Connection, Home};
use super::h2;
use super::health::{Places, Room, Seat};
use super::identity::Identity;
use super::line::{Line, attend};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use thin_vec::ThinVec;

/// Idle connections kept per endpoint and thread: what a burst of that many parallel requests leaves behind.
const MAX_IDLE: usize = 512;
/// Time between sweeps.
pub(crate) const SWEEP: Duration = Duration::from_secs(5);
/// Sweeps that an idle connection survives: it is closed after 55 to 60 s, before most backends do so (their usual
/// bounds are 60 s and more; those with less are noticed when they close).
const IDLE_SWEEPS: u32 = 12;
/// Sweeps during which an endpoint that refused a connection is avoided when there are others: 5 to 10 s.
const AILING_SWEEPS: u32 = 2;

/// There is one for each endpoint and thread: what most don't have takes a word.
#[derive(Default)]
struct Pool {
    /// Set from the first request until the endpoint is retired and nothing runs: keeps the slot from being reused.
    address: Option<Arc<Address>>,
    in_flight: u32,
    ailing_until: u32,
    idle: ThinVec<Connection>,
    multiplexed: ThinVec<h2::Connection>,
}

/// The pools of one thread.
#[derive(Default)]
pub(crate) struct Pools {
    by_slot: RefCell<Vec<Pool>>,
    /// Of backends whose connections are bounded.
    lines: RefCell<Vec<Rc<Line>>>,
    /// Sweeps so far: the pools' clock.
    sweeps: Cell<u32>,
}

impl Pools {
    /// Requests of this thread in flight to an endpoint.
    pub(crate) fn in_flight(&self, address: &Address) -> u32 {
        self.by_slot.borrow().get(address.slot()).map_or(0, |pool| pool.in_flight)
    }

    /// Whether the endpoint refused a connection lately.
    pub(crate) fn is_ailing(&self, address: &Address) -> bool {
        self.by_slot.borrow().get(address.slot()).is_some_and(|pool| pool.ailing_until > self.sweeps.get())
    }

    /// Remembers that an endpoint refused a connection, or accepted one again.
    fn note_slot(&self, slot: usize, outcome: Connected) {
        if let Some(pool) = self.by_slot.borrow_mut().get_mut(slot) {
            pool.ailing_until = match outcome {
                Connected::Yes => 0,
                Connected::No => self.sweeps.get() + AILING_SWEEPS,
            };
        }
    }

    /// Counts a request to an endpoint until the lease is dropped.
    pub(crate) fn lease(self: &Rc<Self>, address: &Arc<Address>) -> Lease {
        let slot = address.slot();
        let mut pools = self.by_slot.borrow_mut();
        if pools.len() <= slot {
            // Twice the room, as a list takes by itself, would be much for thousands of endpoints.
            let more = slot + 1 - pools.len();
            pools.reserve_exact(more + slot / 8);
            pools.resize_with(slot + 1, Pool::default);
        }
        let pool = &mut pools[slot];
        pool.in_flight += 1;
        // The slot is an endpoint's own as long as some pool holds its address.
        if pool.address.is_none() {
            pool.address = Some(address.clone());
        }
        Lease { pools: self.clone(), slot, places: None, line: None }
    }

    /// What of a backend whose connections are bounded waits on this thread.
    pub(crate) fn line(self: &Rc<Self>, room: &Arc<Room>) -> Rc<Line> {
        let mut lines = self.lines.borrow_mut();
        if let Some(line) = lines.iter().find(|line| line.is_of(room)) {
            return line.clone();
        }
        let attendant = tokio::task::spawn_local(attend(Rc::downgrade(self), room.clone()));
        let line = Rc::new(Line::new(room.clone(), attendant.abort_handle()));
        lines.push(line.clone());
        line
    }

    /// Closes idle connections of a backend for requests that wait on other threads.
    pub(super) fn give_way(&self, room: &Arc<Room>) {
        let here = self.lines.borrow().iter().find(|line| line.is_of(room)).map_or(0, |line| line.waiting());
        for _ in here..room.waiting() {
            if !self.close_idle(room) {
                break;
            }
        }
    }

    /// Closes an idle connection that has a place in that room, if there is one.
    pub(super) fn close_idle(&self, room: &Arc<Room>) -> bool {
        let mut pools = self.by_slot.borrow_mut();
        let closed = pools.iter_mut().find_map(|pool| {
            let idle = pool.idle.iter().position(|idle| idle.seat().is_some_and(|seat| seat.is_in(room)));
            if let Some(idle) = idle {
                return Some((Some(pool.idle.remove(idle)), None));
            }
            let is_idle =
                |connection: &h2::Connection| connection.idle_seat().is_some_and(|seat| seat.is_in(room));
            let idle = pool.multiplexed.iter().position(is_idle)?;
            Some((None, Some(pool.multiplexed.remove(idle))))
        });
        closed.is_some()
    }

    /// Whether a connection with a place in that room is open.
    fn is_seated(&self, room: &Arc<Room>) -> bool {
        let is_in = |seat: Option<&Seat>| seat.is_some_and(|seat| seat.is_in(room));
        self.by_slot.borrow().iter().any(|pool| {
            pool.idle.iter().any(|idle| is_in(idle.seat()))
                || pool.multiplexed.iter().any(|connection| is_in(connection.seat()))
        })
    }

    /// Closes what is old, dead or retired.
    pub(crate) fn sweep(&self) {
        let now = self.sweeps.get() + 1;
        self.sweeps.set(now);
        for pool in self.by_slot.borrow_mut().iter_mut() {
            if pool.address.as_ref().is_some_and(|address| address.is_retired()) {
                pool.idle = ThinVec::new();
                pool.multiplexed = ThinVec::new();
                if pool.in_flight == 0 {
                    *pool = Pool::default();
                }
                continue;
            }
            retain(&mut pool.idle, |idle| now - idle.since() < IDLE_SWEEPS && idle.is_quiet());
            retain(&mut pool.multiplexed, |connection| connection.survives_sweep(IDLE_SWEEPS));
        }
        self.lines.borrow_mut().retain(|line| Rc::strong_count(line) > 1 || self.is_seated(line.room()));
    }
}

/// Keeps what is to be kept, and no room where that is nothing.
fn retain<T>(all: &mut ThinVec<T>, keep: impl FnMut(&mut T) -> bool) {
    all.retain_mut(keep);
    if all.is_empty() {
        *all = ThinVec::new();
    }
}

/// How a connect went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connected {
    /// The endpoint accepted.
    Yes,
    /// It refused, or didn't answer.
    No,
}

/// One request in flight to one endpoint.
pub(crate) struct Lease {
    pools: Rc<Pools>,
    slot: usize,
    /// Where a policy bounds what is under way.
    pub(crate) places: Option<Box<Places>>,
    /// Where connections to the backend are bounded: those on this thread who wait for one.
    pub(crate) line: Option<Rc<Line>>,
}

impl Lease {
    /// An idle connection to the endpoint that was made under this identity, if one is in order. `certain` asks the
    /// kernel, not only the runtime, whether it still is.
    pub(crate) fn idle(&self, identity: Option<&Arc<Identity>>, certain: bool) -> Option<Connection> {
        loop {
            let mut connection = {
                let idle = &mut self.pools.by_slot.borrow_mut()[self.slot].idle;
                // The last one, but where backends share an address.
                let fitting = idle.iter().rposition(|idle| idle.is_of(identity))?;
                idle.remove(fitting)
            };
            connection.resume();
            if connection.is_quiet() && (!certain || connection.is_quiet_now()) {
                return Some(connection);
            }
        }
    }

    /// Remembers that the endpoint refused a connection, or accepted one again.
    pub(crate) fn note_connect(&self, outcome: Connected) {
        self.pools.note_slot(self.slot, outcome);
    }

    /// The endpoint's number.
    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// Closes an idle connection that has a place in that room, if this thread has one.
    pub(super) fn close_idle(&self, room: &Arc<Room>) -> bool {
        self.pools.close_idle(room)
    }

    /// Runs `with` on the HTTP/2 connections to the endpoint.
    pub(crate) fn multiplexed<T>(&self, with: impl FnOnce(&mut ThinVec<h2::Connection>) -> T) -> T {
        with(&mut self.pools.by_slot.borrow_mut()[self.slot].multiplexed)
    }
}

impl Home for Lease {
    fn park(&mut self, mut connection: Connection) {
        if self.line.as_ref().is_some_and(|line| !line.keeps()) {
            return;
        }
        let mut pools = self.pools.by_slot.borrow_mut();
        let pool = &mut pools[self.slot];
        let retired = pool.address.as_ref().is_none_or(|address| address.is_retired());
        if !retired && pool.idle.len() < MAX_IDLE {
            connection.rest(self.pools.sweeps.get());
            if pool.idle.capacity() == 0 {
                // Few endpoints have more than one; a list would take room for four.
                pool.idle.reserve_exact(1);
            }
            pool.idle.push(connection);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pools.by_slot.borrow_mut()[self.slot].in_flight -= 1;
        if let Some(line) = &self.line {
            let shared = &mut self.pools.by_slot.borrow_mut()[self.slot].multiplexed;
            if !shared.is_empty() && !line.keeps() {
                // No more requests go there, and with the last one it ends.
                shared.retain(|connection| connection.seat().is_none());
            }
            line.call(self.slot);
        }
    }
}
