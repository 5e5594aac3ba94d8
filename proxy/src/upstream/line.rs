//! Requests that wait for a connection, where a policy bounds how many there are to a backend.
//!
//! The bound is the process's, but a connection is one thread's. On the thread where one comes free somebody who waits there
//! takes it over as it is ([`Line`]). For those who wait elsewhere it is closed, and they open another: now and then while somebody waits
//! here, at once otherwise. So no thread starves because others are busy, or hold idle connections ([`attend`]).

use super::forward::Try;
use super::health::{Full, Health, Room, Seat};
use super::pool::{Lease, Pools};
use crate::rejection::Rejection;
use crate::timer::{Deadline, Timer};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Of connections that come free here, one in so many is for those who wait on other threads: few are made anew, and
/// all threads come to have some.
const ELSEWHERE: u32 = 8;

/// Those on one thread who wait for a connection to one backend.
pub(crate) struct Line {
    room: Arc<Room>,
    /// Each with the slot of the endpoint that it is for, and how it is called.
    waiting: RefCell<VecDeque<(usize, Rc<Notify>)>>,
    /// Connections that came free while some waited here and others elsewhere.
    turns: Cell<u32>,
    attendant: AbortHandle,
}

impl Line {
    pub(super) fn new(room: Arc<Room>, attendant: AbortHandle) -> Self {
        Self { room, waiting: RefCell::default(), turns: Cell::new(0), attendant }
    }

    pub(super) fn is_of(&self, room: &Arc<Room>) -> bool {
        Arc::ptr_eq(&self.room, room)
    }

    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    pub(super) fn waiting(&self) -> u32 {
        u32::try_from(self.waiting.borrow().len()).unwrap_or(u32::MAX)
    }

    /// Whether a connection that comes free stays on this thread.
    pub(super) fn keeps(&self) -> bool {
        if self.room.waiting() <= self.waiting() {
            return true;
        }
        let turn = self.turns.get().wrapping_add(1);
        self.turns.set(turn);
        self.waiting() > 0 && !turn.is_multiple_of(ELSEWHERE)
    }

    /// A request to an endpoint is over: has one of those who wait look whether its connection is free, best one that is for the
    /// same endpoint.
    pub(super) fn call(&self, slot: usize) {
        let waiting = self.waiting.borrow();
        let same = waiting.iter().find(|(wanted, _)| *wanted == slot);
        if let Some((_, waiting)) = same.or_else(|| waiting.front()) {
            waiting.notify_one();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.attendant.abort();
    }
}

/// Closes idle connections of a thread whenever somebody waits elsewhere.
pub(super) async fn attend(pools: Weak<Pools>, room: Arc<Room>) {
    loop {
        let mut wanted = pin!(room.wanted.notified());
        // From here on nothing is missed.
        wanted.as_mut().enable();
        match pools.upgrade() {
            Some(pools) => pools.give_way(&room),
            None => return,
        }
        wanted.await;
    }
}

/// Counts somebody who waits on a thread.
struct Waiting<'a> {
    line: &'a Line,
    slot: usize,
    called: Rc<Notify>,
}

impl<'a> Waiting<'a> {
    fn new(line: &'a Line, slot: usize) -> Self {
        let called = Rc::new(Notify::new());
        line.waiting.borrow_mut().push_back((slot, called.clone()));
        Self { line, slot, called }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.line.waiting.borrow_mut().retain(|(_, called)| !Rc::ptr_eq(called, &self.called));
        // It may have been called in vain.
        self.line.call(self.slot);
    }
}

/// What a request gets that needs a connection.
pub(super) enum Seated<T> {
    /// One that came free.
    Free(T),
    /// The place for a new one.
    Seat(Seat),
}

/// How long a request waits, and for what.
pub(super) struct Wait<'a> {
    pub(super) health: &'a Health,
    pub(super) lease: &'a Lease,
    pub(super) socket: SocketAddr,
    /// Whether another endpoint may do.
    pub(super) others: bool,
    pub(super) timer: &'a Timer,
    pub(super) until: Deadline,
}

impl Wait<'_> {
    /// A connection that `free` finds, or the place for one.
    pub(super) async fn seat<T>(self, free: impl Fn(&Lease) -> Option<T>) -> Result<Seated<T>, Try> {
        let Self { health, lease, socket, others, timer, until } = self;
        let full = match health.sit(socket) {
            Ok(seat) => return Ok(Seated::Seat(seat)),
            Err(full) => full,
        };
        let Some(line) = lease.line.as_deref() else { return Err(Try::Failed(Rejection::BackendLimit)) };
        if full == Full::Backend
            && lease.close_idle(&line.room)
            && let Ok(seat) = health.sit(socket)
        {
            return Ok(Seated::Seat(seat));
        }
        if full == Full::Endpoint && others {
            return Err(Try::Full);
        }
        let _place = health.line_up().map_err(Try::Failed)?;
        let waiting = Waiting::new(line, lease.slot());
        let waited = async {
            loop {
                let mut anywhere = pin!(line.room.freed.notified());
                anywhere.as_mut().enable();
                if let Some(connection) = free(lease) {
                    return Seated::Free(connection);
                }
                if let Ok(seat) = health.sit(socket) {
                    return Seated::Seat(seat);
                }
                // Those who hold idle ones on other threads; and ours, to other endpoints.
                line.room.wanted.notify_waiters();
                if full == Full::Backend {
                    lease.close_idle(&line.room);
                }
                tokio::select! {
                    () = waiting.called.notified() => {}
                    () = anywhere => {}
                }
            }
        };
        timer.bound(until, waited).await.ok_or(Try::Failed(Rejection::BackendLimit))
    }
}
