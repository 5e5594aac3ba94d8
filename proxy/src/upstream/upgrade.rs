//! After a 101: bytes both ways between a client and a backend, until one side ends or both fall silent.
//!
//! A side that ends its half has that passed on; the other half goes on. Buffers are taken when there is something to
//! read and are bounded, so a slow reader slows its writer. Must not know what the bytes mean.

use crate::http1::spare;
use crate::timer::{Deadline, Timer};
use bytes::{Buf, BytesMut};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Bytes read at once in each direction.
const BUFFER: usize = 16 * 1024;

/// How many bytes went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// From the client to the backend.
    pub(crate) up: u64,
    /// From the backend to the client.
    pub(crate) down: u64,
}

struct Half {
    buffer: BytesMut,
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
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while !self.buffer.is_empty() {
                let sent = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer))?;
                if sent == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.buffer.advance(sent);
                self.carried += sent as u64;
            }
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Open => {
                    if self.buffer.capacity() == 0 {
                        self.buffer = spare::read_buffer();
                    }
                    self.buffer.reserve(BUFFER);
                    let read = pin!(from.read_buf(&mut self.buffer)).poll(cx);
                    if read.is_pending() {
                        // TLS keeps what it can't send at once.
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        spare::keep_read_buffer(std::mem::take(&mut self.buffer));
                    }
                    if ready!(read)? == 0 {
                        self.state = State::Ending;
                    }
                }
            }
        }
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
    let mut up = Half { buffer: from_client, state: State::Open, carried: 0 };
    let mut down = Half { buffer: from_backend, state: State::Open, carried: 0 };
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
    use tokio::io::{AsyncWriteExt, duplex};

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
