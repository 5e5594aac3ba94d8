//! After a 101: bytes both ways between a client and a backend, until one side ends or both fall silent.
//!
//! A side that ends its half has that passed on; the other half goes on. All connections of a thread read into one buffer, and
//! keep only what can't be written at once, so a slow reader slows its writer. Must not know what the bytes mean.

use crate::timer::{Deadline, Timer};
use bytes::{Buf, BytesMut};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once.
const BUFFER: usize = 16 * 1024;

/// How many bytes went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// From the client to the backend.
    pub(crate) up: u64,
    /// From the backend to the client.
    pub(crate) down: u64,
}

thread_local! {
    /// Where bytes are between a read and the write that follows it.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(Box::from([0; BUFFER]));
}

struct Half {
    /// What was read and not written yet.
    left: BytesMut,
    state: State,
    carried: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ending,
    Ended,
}

impl Half {
    fn new(left: BytesMut) -> Self {
        Self { left, state: State::Open, carried: 0 }
    }

    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.left.is_empty() {
                let sent = ready!(Pin::new(&mut *to).poll_write(cx, &self.left))?;
                self.sent(sent)?;
                self.left.advance(sent);
            }
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Open => {
                    // Who waits keeps no room.
                    self.left = BytesMut::new();
                    ready!(SCRATCH.with_borrow_mut(|scratch| self.poll_pass(cx, from, to, scratch)))?;
                }
            }
        }
    }

    /// Reads, and writes what it can of that at once.
    fn poll_pass<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut read = ReadBuf::new(scratch);
        if Pin::new(from).poll_read(cx, &mut read)?.is_pending() {
            // TLS keeps what it can't send at once.
            ready!(Pin::new(to).poll_flush(cx))?;
            return Poll::Pending;
        }
        let read = read.filled();
        if read.is_empty() {
            self.state = State::Ending;
            return Poll::Ready(Ok(()));
        }
        let sent = match Pin::new(to).poll_write(cx, read)? {
            Poll::Ready(sent) => {
                self.sent(sent)?;
                sent
            }
            Poll::Pending => 0,
        };
        self.left.extend_from_slice(&read[sent..]);
        Poll::Ready(Ok(()))
    }

    fn sent(&mut self, sent: usize) -> io::Result<()> {
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.carried += sent as u64;
        Ok(())
    }
}

/// Carries bytes until both sides have ended, one fails, or nothing moves for `silence`. `from_client` and
/// `from_backend` are bytes that were read already.
pub(crate) async fn carry<C, B>(
    mut client: C,
    from_client: BytesMut,
    mut backend: B,
    from_backend: BytesMut,
    timer: &Timer,
    silence: Duration,
) -> (Carried, io::Result<()>)
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Half::new(from_client), Half::new(from_backend));
    let mut moved = 0;
    let mut deadline: Option<Deadline> = None;
    let outcome = std::future::poll_fn(|cx| {
        let upward = up.poll(cx, &mut client, &mut backend)?;
        let downward = down.poll(cx, &mut backend, &mut client)?;
        if upward.is_ready() && downward.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if moved != up.carried + down.carried {
            moved = up.carried + down.carried;
            deadline = None;
        }
        let deadline = *deadline.get_or_insert_with(|| timer.wheel().after(silence));
        timer.poll_at(cx, deadline).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await;
    (Carried { up: up.carried, down: down.carried }, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timer::Wheel;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test(flavor = "local")]
    async fn bytes_and_ends_pass_both_ways() {
        let wheel = Wheel::new();
        let timer = Timer::new(&wheel);
        // Smaller than what is sent: back-pressure is at work.
        let (mut client, client_side) = duplex(100);
        let (mut backend, backend_side) = duplex(100);
        let before = BytesMut::from("early ");
        let carrying =
            carry(client_side, before, backend_side, BytesMut::new(), &timer, Duration::from_secs(60));
        let talking = async {
            let mut seen = Vec::new();
            let big = vec![7; 10_000];
            client.write_all(b"bytes").await.unwrap();
            let writing = async {
                client.write_all(&big).await.unwrap();
                client.shutdown().await.unwrap();
            };
            let (_, read) = tokio::join!(writing, backend.read_to_end(&mut seen));
            read.unwrap();
            assert_eq!(&seen[..11], b"early bytes");
            assert_eq!(&seen[11..], big);
            backend.write_all(b"after the end").await.unwrap();
            drop(backend);
            let mut back = Vec::new();
            client.read_to_end(&mut back).await.unwrap();
            assert_eq!(back, b"after the end");
        };
        let ((carried, outcome), ()) = tokio::join!(carrying, talking);
        outcome.unwrap();
        assert_eq!(carried, Carried { up: 10_011, down: 13 });
    }
}
