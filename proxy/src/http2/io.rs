//! A client's bytes, watched; and what there is for it, gathered: h2 writes frame by frame and flushes each, which would be a system
//! call and a TLS record each. So it writes here, and [`Wire::send`] sends all of it when h2 has nothing more to say.

use crate::shelf::Shelf;
use crate::transport::Transport;
use bytes::BytesMut;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered before they are sent in any case.
const GATHERED: usize = 32 * 1024;
/// Pieces from this size on are sent as they are: copying them costs more than it saves.
const BIG: usize = 8 * 1024;
/// Empty buffers that a thread keeps.
const KEPT: usize = 16;

thread_local! {
    static SPARE: Shelf<Vec<u8>> = const { Shelf::of(KEPT) };
}

/// A client's connection, shared by h2 and whoever decides when something is sent.
pub(super) struct Wire {
    open: RefCell<Open>,
}

struct Open {
    io: Transport,
    out: Vec<u8>,
    /// Bytes of it that have left.
    sent: usize,
    /// Whether something was written since all of it left.
    dirty: bool,
    /// Whether the client takes nothing of what we have for it.
    blocked: bool,
    /// Whether bytes moved since [`Wire::take_moved`].
    moved: bool,
}

impl Wire {
    pub(super) fn new(io: Transport) -> Self {
        let open = Open { io, out: Vec::new(), sent: 0, dirty: false, blocked: false, moved: false };
        Self { open: RefCell::new(open) }
    }

    /// Whether the client takes nothing of what we have for it.
    pub(super) fn is_blocked(&self) -> bool {
        self.open.borrow().blocked
    }

    /// Whether bytes moved since this was asked last.
    pub(super) fn take_moved(&self) -> bool {
        std::mem::take(&mut self.open.borrow_mut().moved)
    }

    /// Sends what was gathered, as far as the client takes it; the task is woken when it takes more.
    pub(super) fn send(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut open = self.open.borrow_mut();
        if !open.dirty {
            return Ok(());
        }
        match open.poll_send(cx) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }
}

impl Open {
    /// Writes what was gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let written = Pin::new(&mut self.io).poll_write(cx, &self.out[self.sent..]);
            let written = ready!(self.watch(written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Sends all, and gives the buffer to whoever writes next.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        // TLS keeps what the socket doesn't take at once.
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        ready!(self.watch(flushed))?;
        self.dirty = false;
        let buffer = std::mem::take(&mut self.out);
        if buffer.capacity() > 0 {
            SPARE.with(|shelf| shelf.keep(buffer));
        }
        Poll::Ready(Ok(()))
    }

    /// Remembers whether the client takes anything.
    fn watch<T>(&mut self, sent: Poll<T>) -> Poll<T> {
        self.blocked = sent.is_pending();
        self.moved |= sent.is_ready();
        sent
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > BIG || self.out.len() + length > GATHERED {
            ready!(self.poll_drain(cx))?;
        }
        self.dirty = true;
        if length > BIG {
            let written = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
            return self.watch(written);
        }
        if self.out.capacity() == 0 {
            self.out = SPARE.with(Shelf::take).unwrap_or_else(|| Vec::with_capacity(GATHERED));
        }
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
        Poll::Ready(Ok(length))
    }
}

/// What h2 reads from and writes to.
pub(super) struct Io {
    wire: Rc<Wire>,
    /// Bytes that were read before.
    begun: BytesMut,
}

impl Io {
    pub(super) fn new(wire: &Rc<Wire>, begun: BytesMut) -> Self {
        Self { wire: wire.clone(), begun }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.begun.is_empty() {
            ready!(Pin::new(&mut self.wire.open.borrow_mut().io).poll_read(cx, buf))?;
        } else {
            let length = self.begun.len().min(buf.remaining());
            buf.put_slice(&self.begun.split_to(length));
            if self.begun.is_empty() {
                // What is empty still holds its buffer.
                self.begun = BytesMut::new();
            }
        }
        self.wire.open.borrow_mut().moved = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.open.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Not yet: [`Wire::send`] does it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut open = self.wire.open.borrow_mut();
        ready!(open.poll_send(cx))?;
        Pin::new(&mut open.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::mem::MaybeUninit;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test(flavor = "local")]
    async fn pieces_are_gathered_until_they_are_sent_or_too_many_and_keep_their_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let wire = Rc::new(Wire::new(Transport::Clear(listener.accept().await.unwrap().0.into())));
        let mut io = Io::new(&wire, BytesMut::from(&b"begun"[..]));
        let send = || poll_fn(|cx| Poll::Ready(wire.send(cx)));
        let mut read = [0; 64 * 1024];
        assert_eq!(io.read(&mut read).await.unwrap(), 5);

        io.write_all(b"one ").await.unwrap();
        io.flush().await.unwrap();
        io.write_all(b"two").await.unwrap();
        let nothing = socket2::SockRef::from(&client).peek(&mut [MaybeUninit::uninit()]).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        send().await.unwrap();
        assert_eq!(client.read(&mut read).await.unwrap(), 7);
        assert_eq!(&read[..7], b"one two");

        // What is big goes at once, behind what was there.
        io.write_all(b"small").await.unwrap();
        io.write_all(&[b'x'; BIG + 1]).await.unwrap();
        client.read_exact(&mut read[..BIG + 6]).await.unwrap();
        assert_eq!(&read[..6], b"smallx");

        // As much as is gathered, and no more.
        for _ in 0..=GATHERED / 1024 {
            io.write_all(&[b'y'; 1024]).await.unwrap();
        }
        client.read_exact(&mut read[..GATHERED]).await.unwrap();
        assert!(wire.take_moved() && !wire.is_blocked());
        io.shutdown().await.unwrap();
        assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 1024);
    }

    #[tokio::test(flavor = "local")]
    async fn a_client_that_takes_nothing_blocks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let wire = Rc::new(Wire::new(Transport::Clear(listener.accept().await.unwrap().0.into())));
        let mut io = Io::new(&wire, BytesMut::new());
        poll_fn(|cx| {
            while Pin::new(&mut io).poll_write(cx, &[b'x'; 1024]).is_ready() {
                wire.send(cx).unwrap();
            }
            Poll::Ready(())
        })
        .await;
        assert!(wire.is_blocked() && wire.take_moved() && !wire.take_moved());
        drop(client);
        let broken = poll_fn(|cx| match wire.send(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error.kind()),
        });
        assert!(matches!(broken.await, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe));
    }
}
