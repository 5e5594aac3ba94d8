//! A client's connection, shared by its task and by whoever takes a request's body. Both are of one thread, and nobody holds it
//! across an await.

use super::decode::Decode;
use super::input::Input;
use super::output::Output;
use crate::transport::Transport;
use bytes::BytesMut;
use std::cell::{RefCell, RefMut};
use std::io;
use std::task::{Context, Poll, Waker};

/// A connection, until it is closed or becomes something else.
pub(crate) struct Wire(RefCell<Option<Open>>);

/// An open connection.
pub(super) struct Open {
    pub(super) io: Transport,
    pub(super) input: Input,
    pub(super) output: Output,
    /// What is left of the request's body.
    pub(super) decode: Decode,
    /// Whether the client waits to be told that its body is wanted.
    pub(super) expects: bool,
    /// The connection's task, where somebody else takes the body.
    task: Option<Waker>,
}

impl Wire {
    pub(super) fn new(io: Transport, begun: BytesMut) -> Self {
        Self(RefCell::new(Some(Open {
            io,
            input: Input::new(begun),
            output: Output::default(),
            decode: Decode::End,
            expects: false,
            task: None,
        })))
    }

    /// None once it is closed.
    pub(super) fn open(&self) -> RefMut<'_, Option<Open>> {
        self.0.borrow_mut()
    }

    /// Takes it from everybody.
    pub(super) fn close(&self) -> Option<Open> {
        self.0.borrow_mut().take()
    }
}

impl Open {
    /// Wakes the connection's task, unless it is the one that runs.
    pub(super) fn wake_other(&mut self, cx: &Context<'_>) {
        if let Some(task) = self.task.take_if(|task| !task.will_wake(cx.waker())) {
            task.wake();
        }
    }

    /// Ready when the client has left, or the connection has failed. Listens only when nothing is to be read for now but the end: what
    /// comes before its turn is kept.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.decode.is_end() {
            self.task = Some(cx.waker().clone());
            return Poll::Pending;
        }
        while self.input.bytes.is_empty() {
            match self.input.poll_fill(cx, &mut self.io) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// Writes what is to be written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.poll_flush(cx, &mut self.io)
    }
}
