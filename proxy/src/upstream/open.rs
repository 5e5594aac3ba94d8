//! Endpoints for what isn't HTTP: a connection to one, or its address.
//!
//! Picks like [`super::forward`], and tries the next endpoint when one can't be reached: nothing was sent.

use super::BackendState;
use super::connect::{self, ConnectError, connect};
use super::endpoint::Address;
use super::health::Sent;
use super::identity::{Identity, Speaks};
use super::pick::pick;
use super::pool::{Connected, Lease};
use crate::rejection::Rejection;
use crate::runtime::Thread;
use crate::timer::Timer;
use crate::transport::Transport;
use std::rc::Rc;
use std::sync::Arc;

/// A connection to one of a backend's endpoints, encrypted under an identity. The lease counts it until it is dropped.
pub(crate) async fn open(
    thread: &Rc<Thread>,
    backend: &BackendState,
    identity: Option<&Identity>,
    timer: &Timer,
) -> Result<(Transport, Lease), Rejection> {
    let until = thread.wheel.after(thread.limits.connect);
    let mut tried = Vec::new();
    let mut last = Rejection::NoEndpoints;
    let note = |socket, sent| {
        if let Some(health) = backend.health() {
            health.note(socket, &sent, || backend.endpoints.borrow().members.len());
        }
    };
    while let Some((address, lease, others)) = choose(thread, backend, &tried) {
        let deadline = if others { until.min(thread.wheel.after(thread.limits.connect_one)) } else { until };
        match connect(address.socket(), identity, Speaks::Anything, timer, deadline).await {
            Ok(socket) => {
                lease.note_connect(Connected::Yes);
                thread.metrics.backend_connected(&backend.metrics);
                note(address.socket(), Sent::Connected);
                return Ok((socket, lease));
            }
            Err(error) => {
                lease.note_connect(Connected::No);
                connect::log(thread, &backend.id, address.socket(), &error);
                last = match error {
                    ConnectError::Timeout => Rejection::ConnectTimeout,
                    ConnectError::Failed(_) => Rejection::ConnectFailed,
                    ConnectError::Tls(_) => Rejection::UpstreamTls,
                };
                thread.metrics.backend_failed(&backend.metrics, last);
                note(address.socket(), Sent::Failed(last));
                tried.push(address.slot());
            }
        }
    }
    Err(last)
}

/// An endpoint that wasn't tried before, rather one that isn't ejected, and whether there are others.
pub(crate) fn choose(
    thread: &Rc<Thread>,
    backend: &BackendState,
    tried: &[usize],
) -> Option<(Arc<Address>, Lease, bool)> {
    let endpoints = backend.endpoints.borrow();
    let (members, random) = (&endpoints.members, thread.random());
    let spared = backend.health().map(|health| health.spare(members, tried));
    // Where all others are out of reach, one that is ejected may do.
    let member = spared
        .and_then(|spared| pick(members, &thread.pools, random, &spared))
        .or_else(|| pick(members, &thread.pools, random, tried))?;
    let lease = thread.pools.lease(&member.address);
    Some((member.address.clone(), lease, endpoints.members.len() > tried.len() + 1))
}
