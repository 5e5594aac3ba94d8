//! What was read from a connection and not yet taken. Holds no buffer while there is nothing in it.

use super::spare;
use crate::transport::Transport;
use bytes::BytesMut;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use tokio::io::AsyncReadExt;

/// What a read asks for at first: heads and small bodies fit.
const SMALL_READ: usize = 16 * 1024;
/// What a read asks for while a big body streams, and what is written then: three times fewer system calls. One packet takes it:
/// 64 KiB with their headers are more than the kernel sends at once, and cost as much as two.
const BIG_READ: usize = 48 * 1024;
/// With less room than this in the buffer, a new one is taken.
const LEAST_READ: usize = 4 * 1024;

/// The reading side of a connection.
pub(crate) struct Input {
    pub(crate) bytes: BytesMut,
    /// How much the next read asks for.
    size: usize,
}

impl Input {
    /// With what was read before.
    pub(crate) fn new(begun: BytesMut) -> Self {
        Self { bytes: begun, size: SMALL_READ }
    }

    /// Reads once; 0 is the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, io: &mut Transport) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() == 0 {
            // What the runtime knows costs nothing: most waits end here.
            if let Transport::Clear(socket) = io {
                std::task::ready!(socket.poll_read_ready(cx))?;
            }
            self.bytes = spare::read_buffer();
        }
        if self.bytes.capacity() - self.bytes.len() < LEAST_READ {
            self.bytes.reserve(self.size);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let read = pin!(io.read_buf(&mut self.bytes)).poll(cx);
        match &read {
            Poll::Ready(Ok(count)) if *count == room => self.size = BIG_READ,
            Poll::Pending => self.release(),
            Poll::Ready(_) => {}
        }
        read
    }

    /// Nothing is expected for now: the next read is a small one again.
    pub(crate) fn rest(&mut self) {
        self.size = SMALL_READ;
        self.release();
    }

    /// Gives its buffer to whoever reads next, if there is nothing in it.
    fn release(&mut self) {
        if self.bytes.is_empty() {
            spare::keep_read_buffer(std::mem::take(&mut self.bytes));
        }
    }
}
