//! A socket below TLS, whose writes may wait for the next one. What ends a handshake (tickets of a server, a client's last word) leaves
//! with the first bytes that follow it, and TLS's farewell with the last answer: a write each is what small connections cost most.
//!
//! Of what is written after a handshake nothing waits but what [`Corked::cork`] is said to be the last of. The end of a handshake leaves
//! at the latest when a read finds nothing: the other side may be waiting.

use super::Socket;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that may wait: a record of TLS, and what a handshake adds.
const MOST: usize = 20 * 1024;

/// A socket that may hold a write.
#[derive(Debug)]
pub(crate) struct Corked {
    socket: Socket,
    phase: Phase,
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was read yet: the first flight leaves at once.
    Greeting,
    /// The next write waits.
    Corked,
    /// Writes leave at once.
    Open,
}

impl Corked {
    /// A socket on which a handshake is about to begin.
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket: socket.into(), phase: Phase::Greeting, held: Vec::new() }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The handshake is over: what is written from now on leaves at once, with what was held.
    pub(crate) fn shaken(&mut self) {
        if self.held.is_empty() {
            self.phase = Phase::Open;
        }
    }

    /// The next write is followed by the end.
    pub(crate) fn cork(&mut self) {
        if self.held.is_empty() {
            self.phase = Phase::Corked;
        }
    }

    /// Writes what was held. From here on writes leave at once.
    fn poll_uncork(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.phase = Phase::Open;
        while !self.held.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.held))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..sent);
        }
        self.held = Vec::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Corked {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buf);
        if this.phase == Phase::Greeting && buf.filled().len() > before {
            this.phase = Phase::Corked;
        }
        if read.is_pending()
            && !this.held.is_empty()
            && let Poll::Ready(Err(error)) = this.poll_uncork(cx)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl AsyncWrite for Corked {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.phase == Phase::Corked {
            let length: usize = bufs.iter().map(|buf| buf.len()).sum();
            if this.held.len() + length <= MOST {
                let is_second = !this.held.is_empty();
                bufs.iter().for_each(|buf| this.held.extend_from_slice(buf));
                if is_second && let Poll::Ready(Err(error)) = this.poll_uncork(cx) {
                    return Poll::Ready(Err(error));
                }
                return Poll::Ready(Ok(length));
            }
        }
        if this.phase != Phase::Greeting {
            ready!(this.poll_uncork(cx))?;
        }
        Pin::new(&mut this.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// Not what is corked: that leaves with what follows.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.phase {
            Phase::Greeting | Phase::Corked => Poll::Ready(Ok(())),
            Phase::Open => self.get_mut().poll_uncork(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_uncork(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

impl Drop for Corked {
    /// What was held may be why it ends: an alert.
    fn drop(&mut self) {
        if !self.held.is_empty() {
            let _ = self.socket.try_write(&self.held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A socket, and its other end.
    async fn pair() -> (Corked, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, theirs) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Corked::new(ours.unwrap()), theirs.unwrap().0)
    }

    /// What is there.
    async fn there(theirs: &mut TcpStream) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        let read = theirs.read(&mut bytes).await.unwrap();
        bytes.truncate(read);
        bytes
    }

    /// As a handshake goes: they begin, we answer, they end it.
    async fn shaken() -> (Corked, TcpStream) {
        let (mut ours, mut theirs) = pair().await;
        ours.write_all(b"flight").await.unwrap();
        assert_eq!(there(&mut theirs).await, b"flight", "the first leaves at once");
        theirs.write_all(b"finished").await.unwrap();
        ours.read_exact(&mut [0; 8]).await.unwrap();
        ours.write_all(b"tickets,").await.unwrap();
        ours.flush().await.unwrap();
        ours.shaken();
        (ours, theirs)
    }

    #[tokio::test]
    async fn a_handshake_that_ends_without_a_word_holds_nothing() {
        let (mut ours, mut theirs) = pair().await;
        theirs.write_all(b"finished").await.unwrap();
        ours.read_exact(&mut [0; 8]).await.unwrap();
        ours.shaken();
        ours.write_all(b"answer").await.unwrap();
        assert_eq!(there(&mut theirs).await, b"answer");
    }

    #[tokio::test]
    async fn the_end_of_a_handshake_leaves_with_what_follows() {
        let (mut ours, mut theirs) = shaken().await;
        ours.write_all(b"answer").await.unwrap();
        assert_eq!(there(&mut theirs).await, b"tickets,answer");
        ours.write_all(b"more").await.unwrap();
        assert_eq!(there(&mut theirs).await, b"more", "from then on each leaves at once");
    }

    #[tokio::test]
    async fn or_when_there_is_nothing_to_read() {
        let (mut ours, mut theirs) = shaken().await;
        let mut word = [0; 4];
        let (read, seen) = tokio::join!(ours.read_exact(&mut word), async {
            let seen = there(&mut theirs).await;
            theirs.write_all(b"next").await.unwrap();
            seen
        });
        read.unwrap();
        assert_eq!((&*seen, &word), (&b"tickets,"[..], b"next"));
    }

    #[tokio::test]
    async fn or_with_the_end() {
        let (mut ours, mut theirs) = shaken().await;
        ours.shutdown().await.unwrap();
        assert_eq!(there(&mut theirs).await, b"tickets,");
        let (ours, mut theirs) = shaken().await;
        drop(ours);
        assert_eq!(there(&mut theirs).await, b"tickets,");
    }

    #[tokio::test]
    async fn a_farewell_leaves_with_the_last_answer_and_nothing_large_is_held() {
        let (mut ours, mut theirs) = pair().await;
        ours.cork();
        ours.write_all(b"answer,").await.unwrap();
        ours.write_all(b"farewell").await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(there(&mut theirs).await, b"answer,farewell");
        let (mut ours, mut theirs) = pair().await;
        ours.cork();
        ours.write_all(&[b'a'; MOST + 1]).await.unwrap();
        assert_eq!(there(&mut theirs).await, [b'a'; 64]);
    }
}
