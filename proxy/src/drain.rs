//! The client connections of one thread, and how they are asked to end.
//!
//! A connection that is asked finishes what it is doing: HTTP/1.1 answers with `Connection: close`, HTTP/2 sends
//! GOAWAY. Asking wakes the connection's task; the task looks at its [`Guest`] whenever it is polled. Must not know
//! why anything ends: a port that was removed, a drain of the process.

use crate::model::PortId;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A client connection, as others see it.
pub(crate) struct Guest {
    port: Arc<PortId>,
    leaving: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Guest {
    /// The port it came to.
    pub(crate) fn port(&self) -> &PortId {
        &self.port
    }

    /// Whether the connection was asked to end. Remembers whom to wake when it is.
    pub(crate) fn is_leaving(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        // A task has one waker for life.
        if waker.is_none() {
            *waker = Some(cx.waker().clone());
        }
        self.leaving.get()
    }

    /// The same, without being woken.
    pub(crate) fn is_asked(&self) -> bool {
        self.leaving.get()
    }

    fn ask(&self) {
        self.leaving.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// The client connections of one thread.
#[derive(Default)]
pub(crate) struct Guests {
    present: RefCell<HashMap<u64, Rc<Guest>>>,
    last: Cell<u64>,
    /// Whether whoever comes is asked to end at once.
    closed: Cell<bool>,
    /// Who waits for a connection to go.
    waiting: RefCell<Vec<Waker>>,
}

impl Guests {
    /// Registers a connection until the [`Stay`] is dropped.
    pub(crate) fn enter(self: &Rc<Self>, port: Arc<PortId>) -> Stay {
        let id = self.last.get() + 1;
        self.last.set(id);
        let guest = Rc::new(Guest { port, leaving: self.closed.clone(), waker: RefCell::new(None) });
        self.present.borrow_mut().insert(id, guest.clone());
        Stay { guests: self.clone(), id, guest }
    }

    /// Connections there are.
    pub(crate) fn count(&self) -> usize {
        self.present.borrow().len()
    }

    /// Asks the connections of one port to end.
    pub(crate) fn ask_port(&self, port: &PortId) {
        self.present.borrow().values().filter(|guest| *guest.port == *port).for_each(|guest| guest.ask());
    }

    /// Asks every connection to end, those that are still to come, too.
    pub(crate) fn ask_all(&self) {
        self.closed.set(true);
        self.present.borrow().values().for_each(|guest| guest.ask());
    }

    /// Has every connection look at the state of its thread.
    pub(crate) fn wake_all(&self) {
        self.present.borrow().values().for_each(|guest| guest.wake());
    }

    /// Ready when fewer than `limit` connections are there.
    pub(crate) fn poll_fewer_than(&self, cx: &Context<'_>, limit: usize) -> Poll<()> {
        if self.count() < limit {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// A registered connection.
pub(crate) struct Stay {
    guests: Rc<Guests>,
    id: u64,
    guest: Rc<Guest>,
}

impl Stay {
    /// What others may ask of it.
    pub(crate) fn guest(&self) -> &Guest {
        &self.guest
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.guests.present.borrow_mut().remove(&self.id);
        self.guests.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObjectName, Transport};

    fn port(number: u16) -> Arc<PortId> {
        Arc::new(PortId {
            gateway: ObjectName::new("ns", "gateway"),
            port: number,
            transport: Transport::Tcp,
        })
    }

    #[test]
    fn only_the_connections_of_a_port_are_asked() {
        let guests = Rc::new(Guests::default());
        let (one, other) = (guests.enter(port(1)), guests.enter(port(2)));
        guests.ask_port(&port(1));
        let cx = Context::from_waker(Waker::noop());
        assert_eq!((one.guest().is_leaving(&cx), other.guest().is_leaving(&cx)), (true, false));
        guests.ask_all();
        assert!(other.guest().is_leaving(&cx));
        assert!(guests.enter(port(3)).guest().is_leaving(&cx));
    }

    #[test]
    fn room_is_there_when_a_connection_goes() {
        let guests = Rc::new(Guests::default());
        let cx = Context::from_waker(Waker::noop());
        let stays = [guests.enter(port(1)), guests.enter(port(1))];
        assert!(guests.poll_fewer_than(&cx, 2).is_pending());
        drop(stays);
        assert!(guests.poll_fewer_than(&cx, 1).is_ready());
    }
}
