//! A connection's socket, whose bytes go straight to the kernel, and come straight from it where they are read into memory that has
//! been written to.
//!
//! The C library's `send` and `recv` are points at which a thread may be cancelled: in a process of several threads each call switches
//! that on and off, by two locked instructions. Nobody cancels threads here, and of what a small message costs outside of the kernel
//! they are a good part. When a socket is ready, and who waits for it, is tokio's affair, as with its own `TcpStream`.

use rustix::net::{RecvFlags, SendFlags};
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A socket that is connected.
#[derive(Debug)]
pub(crate) struct Socket(TcpStream);

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Self(socket)
    }
}

impl Deref for Socket {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

impl Socket {
    /// Makes a call that moves up to `length` bytes, as soon as it needn't wait, and says how many it were.
    fn poll_call(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
        length: usize,
        mut call: impl FnMut() -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(if interest.is_readable() {
                self.0.poll_read_ready(cx)
            } else {
                self.0.poll_write_ready(cx)
            })?;
            let mut moved = None;
            let called = self.0.try_io(interest, || {
                let count = call()?;
                moved = Some(count);
                // The kernel has no more, or no more room, and says when it has: what comes next waits for that instead of asking.
                if 0 < count && count < length { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (moved, called) {
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                (None, _) => {}
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Safe code reads only into what was written to before, and doing that for each read costs more than is to be gained.
        if buf.initialized().len() < buf.capacity() {
            return Pin::new(&mut this.0).poll_read(cx, buf);
        }
        let free = buf.initialize_unfilled();
        let room = free.len();
        let receive = || rustix::net::recv(&this.0, &mut *free, RecvFlags::empty()).map(|(count, _)| count);
        let read = ready!(this.poll_call(cx, Interest::READABLE, room, receive))?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let send = || rustix::net::send(&self.0, buf, SendFlags::NOSIGNAL);
        self.poll_call(cx, Interest::WRITABLE, buf.len(), send)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_call(cx, Interest::WRITABLE, length, || rustix::io::writev(&self.0, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Both ends of a connection.
    async fn pair() -> (Socket, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap().into(), far.unwrap().0.into())
    }

    #[tokio::test]
    async fn waits_for_room_and_for_bytes_and_tells_of_the_end() {
        let (mut near, mut far) = pair().await;
        // More than the kernel takes at once, in either way of writing.
        let sent: Vec<u8> = (0..8 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
        let (begin, rest) = sent.split_at(4 << 20);
        let send = async {
            near.write_all(begin).await.unwrap();
            let mut left = rest;
            while !left.is_empty() {
                let (one, other) = left.split_at(left.len() / 2);
                let count = near.write_vectored(&[IoSlice::new(one), IoSlice::new(other)]).await.unwrap();
                left = &left[count..];
            }
            near.shutdown().await.unwrap();
        };
        let receive = async {
            let (mut seen, mut buffer) = (Vec::new(), vec![0; 10_000]);
            loop {
                match far.read(&mut buffer).await.unwrap() {
                    0 => return seen,
                    count => seen.extend_from_slice(&buffer[..count]),
                }
            }
        };
        let ((), seen) = tokio::join!(send, receive);
        assert!(seen == sent, "{} bytes of {}", seen.len(), sent.len());
    }

    #[tokio::test]
    async fn what_came_with_the_end_is_read_before_it() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"last").await.unwrap();
        drop(near);
        let mut buffer = [0; 100];
        assert_eq!(far.read(&mut buffer).await.unwrap(), 4);
        assert_eq!(far.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn errors_are_the_kernel_s() {
        let (mut near, far) = pair().await;
        far.set_zero_linger().unwrap();
        drop(far);
        let error = near.read(&mut [0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let error = near.write(b"more").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
