//! Bodies of requests that nobody wants: read and dropped, as far as the connection is worth it.

use crate::body::Inbound;
use crate::connection::Client;
use crate::handshake::Version;
use crate::limits;
use crate::timer::Timer;
use http_body::Body;
use std::pin::Pin;
use std::rc::Rc;

/// Whether a request's body is out of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    Yes,
    No,
}

/// Reads what is left of a body that nobody wants, so that the connection can go on (security.md, rule 3).
pub(super) async fn drain(client: &Rc<Client>, body: Option<Inbound>, waits: bool) -> Drained {
    let Some(mut body) = body else { return Drained::Yes };
    // A client that waits for 100 doesn't send; HTTP/2 has streams of their own to reset.
    let too_long = body.size_hint().lower() > limits::DRAINED_BODY;
    if waits || too_long || client.version == Version::Http2 {
        return Drained::No;
    }
    let timer = Timer::new(&client.thread.wheel);
    let deadline = client.thread.wheel.after(client.thread.limits.drained_body);
    let draining = async {
        let mut left = limits::DRAINED_BODY;
        loop {
            match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                None => return Drained::Yes,
                Some(Err(_)) => return Drained::No,
                Some(Ok(frame)) => {
                    match left.checked_sub(frame.data_ref().map_or(0, |data| data.len() as u64)) {
                        Some(less) => left = less,
                        None => return Drained::No,
                    }
                }
            }
        }
    };
    timer.bound(deadline, draining).await.unwrap_or(Drained::No)
}
