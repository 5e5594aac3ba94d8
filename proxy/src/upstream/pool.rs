//! Idle connections and requests in flight of one worker thread, found by an endpoint's slot: no lock, no hash.
//!
//! Last in, first out, so that few connections stay warm and the rest can age. A sweep every few seconds closes what is
//! too old, what the backend closed, and everything that goes to an endpoint which is no longer in any set. Must not
//! be shared between threads; what threads share about an endpoint is its [`Address`].

use super::endpoint::Address;
use super::h1::{Connection, Home};
use super::h2;
use super::health::Places;
use super::identity::Identity;
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Idle connections kept per endpoint and thread: what a burst of that many parallel requests leaves behind.
const MAX_IDLE: usize = 512;
/// Read buffers kept per thread for connections to come (16 KiB each, so 1 MiB).
const MAX_SPARE: usize = 64;
/// Time between sweeps.
pub(crate) const SWEEP: Duration = Duration::from_secs(5);
/// Sweeps that an idle connection survives: it is closed after 55 to 60 s, before most backends do so (their usual
/// bounds are 60 s and more; those with less are noticed when they close).
const IDLE_SWEEPS: u32 = 12;
/// Sweeps during which an endpoint that refused a connection is avoided when there are others: 5 to 10 s.
const AILING_SWEEPS: u32 = 2;

struct Idle {
    connection: Connection,
    since: u32,
}

#[derive(Default)]
struct Pool {
    /// Set from the first request until the endpoint is retired and nothing runs: keeps the slot from being reused.
    address: Option<Arc<Address>>,
    in_flight: u32,
    idle: Vec<Idle>,
    multiplexed: Vec<h2::Connection>,
    ailing_until: u32,
}

/// The pools of one thread.
#[derive(Default)]
pub(crate) struct Pools {
    by_slot: RefCell<Vec<Pool>>,
    spare: RefCell<Vec<BytesMut>>,
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
            pools.resize_with(slot + 1, Pool::default);
        }
        let pool = &mut pools[slot];
        pool.in_flight += 1;
        // The slot is an endpoint's own as long as some pool holds its address.
        if pool.address.is_none() {
            pool.address = Some(address.clone());
        }
        Lease { pools: self.clone(), slot, places: None }
    }

    /// Closes what is old, dead or retired.
    pub(crate) fn sweep(&self) {
        let now = self.sweeps.get() + 1;
        self.sweeps.set(now);
        for pool in self.by_slot.borrow_mut().iter_mut() {
            if pool.address.as_ref().is_some_and(|address| address.is_retired()) {
                pool.idle = Vec::new();
                pool.multiplexed.clear();
                if pool.in_flight == 0 {
                    *pool = Pool::default();
                }
                continue;
            }
            pool.idle.retain_mut(|idle| now - idle.since < IDLE_SWEEPS && idle.connection.is_quiet());
            pool.multiplexed.retain_mut(|connection| connection.survives_sweep(IDLE_SWEEPS));
        }
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
}

impl Lease {
    /// An idle connection to the endpoint that was made under this identity, if one is in order. `certain` asks the
    /// kernel, not only the runtime, whether it still is.
    pub(crate) fn idle(&self, identity: Option<&Arc<Identity>>, certain: bool) -> Option<Connection> {
        loop {
            let mut connection = {
                let idle = &mut self.pools.by_slot.borrow_mut()[self.slot].idle;
                // The last one, but where backends share an address.
                let fitting = idle.iter().rposition(|idle| idle.connection.is_of(identity))?;
                idle.remove(fitting).connection
            };
            if connection.is_quiet() && (!certain || connection.is_quiet_now()) {
                self.equip(&mut connection);
                return Some(connection);
            }
        }
    }

    /// Gives a connection a spare buffer to read into.
    pub(crate) fn equip(&self, connection: &mut Connection) {
        if let Some(buffer) = self.pools.spare.borrow_mut().pop() {
            connection.set_read_buffer(buffer);
        }
    }

    /// Remembers that the endpoint refused a connection, or accepted one again.
    pub(crate) fn note_connect(&self, outcome: Connected) {
        self.pools.note_slot(self.slot, outcome);
    }

    /// Runs `with` on the HTTP/2 connections to the endpoint.
    pub(crate) fn multiplexed<T>(&self, with: impl FnOnce(&mut Vec<h2::Connection>) -> T) -> T {
        with(&mut self.pools.by_slot.borrow_mut()[self.slot].multiplexed)
    }
}

impl Home for Lease {
    fn park(&mut self, mut connection: Connection) {
        let buffer = connection.take_read_buffer();
        let mut spare = self.pools.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            spare.push(buffer);
        }
        let mut pools = self.pools.by_slot.borrow_mut();
        let pool = &mut pools[self.slot];
        let retired = pool.address.as_ref().is_none_or(|address| address.is_retired());
        if !retired && pool.idle.len() < MAX_IDLE {
            pool.idle.push(Idle { connection, since: self.pools.sweeps.get() });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pools.by_slot.borrow_mut()[self.slot].in_flight -= 1;
    }
}
