//! Connections that aren't HTTP: bytes both ways between a client and an endpoint of its route.
//!
//! A connection without an endpoint, or whose share of the weights is a refused reference, is closed without a word. A
//! side that ends its half has that passed on; one that breaks off has the other reset. Nobody can ask such a connection
//! to end: a drain waits for it as long as it may. Must not know what the bytes mean.

use crate::router::{PortTable, Stream};
use crate::runtime::Thread;
use crate::timer::Timer;
use crate::transport::Transport;
use crate::upstream::open::open;
use crate::upstream::upgrade::carry;
use bytes::BytesMut;
use std::rc::Rc;

/// What is spoken to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onward {
    /// What the client speaks: it may be TLS already.
    AsItIs,
    /// TLS of our own, where the backend has it.
    Secured,
}

/// Serves a client to its end. `begun` are bytes that were read already; `table` is that of the client's port.
pub(crate) async fn serve(
    thread: &Rc<Thread>,
    mut client: Transport,
    begun: BytesMut,
    stream: &Stream,
    onward: Onward,
    table: &PortTable,
) {
    let timer = Timer::new(&thread.wheel);
    let backend = match &stream.split().pick(thread.random()).target {
        Ok(backend) => backend,
        Err(why) => return thread.metrics.rejected(*why),
    };
    let identity = match onward {
        Onward::AsItIs => None,
        Onward::Secured => match backend.way(stream.id(), || table.client_certificate().cloned()) {
            Ok(way) => way.identity,
            Err(why) => return thread.metrics.rejected(why),
        },
    };
    let (mut endpoint, lease) = match open(thread, backend, identity.as_deref(), &timer).await {
        Ok(opened) => opened,
        Err(why) => return thread.metrics.rejected(why),
    };
    let (carried, outcome) =
        carry(&mut client, begun, &mut endpoint, BytesMut::new(), &timer, thread.limits.tcp_idle).await;
    thread.metrics.transferred(carried.up, carried.down);
    if let Err(error) = outcome {
        tracing::debug!(route = %stream.id(), backend = %backend.id(), %error, "a connection broke off");
        // Visibly: an end would say that all has arrived.
        for side in [&client, &endpoint] {
            // It ends in any case.
            let _ = side.socket().set_zero_linger();
        }
    }
    drop(lease);
}
