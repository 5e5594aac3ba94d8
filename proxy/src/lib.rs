//! The data plane: a routing [`model`] in, answered requests out. Knows nothing of Kubernetes.
//!
//! [`start`] is the way in: it starts the worker threads and the admin port. What is published through
//! [`Proxy::publisher`] is compiled by [`snapshot`] and served by every thread. `request.rs` is the life of a request.

pub mod access_log;
pub mod admin;
mod admit;
pub mod auth;
mod authorities;
mod authorize;
mod body;
mod client_auth;
mod clients;
mod connection;
mod datagram;
mod drain;
pub mod expression;
pub mod filter;
mod finish;
mod handshake;
pub mod headers;
pub mod hints;
mod host;
mod http1;
mod http2;
mod key;
mod limits;
mod listener;
pub mod metrics;
mod mirror;
pub mod model;
pub mod notice;
pub mod path;
mod policy;
pub mod rate_limit;
pub mod rejection;
mod request;
pub mod router;
mod runtime;
#[cfg(test)]
mod sample;
pub mod session;
mod shelf;
pub mod snapshot;
mod spare_box;
pub mod staple;
mod stream;
mod timer;
pub mod tls;
mod transport;
pub mod upstream;

pub use access_log::AccessLog;
pub use clients::check_clients;
pub use limits::Limits;
pub use prometheus_client::registry::Registry;
pub use snapshot::{Published, Publisher};

use admin::Admin;
use listener::Listeners;
use metrics::Metrics;
use model::PortId;
use runtime::{COMMANDS, Command, Parts};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What the log's writer may take for its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);
/// What a worker may take to end after its drain is over.
const LAST_TURN: Duration = Duration::from_secs(1);

/// Between two times that memory is given back.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// Calls `give_back` ([`Options::give_back`]) on this thread, again and again: for threads that serve no requests.
pub async fn keep_giving_back(give_back: fn()) {
    loop {
        tokio::time::sleep(GIVE_BACK).await;
        give_back();
    }
}

/// How the data plane is to run.
#[derive(Debug)]
pub struct Options {
    /// Worker threads, at least one: one per core is right.
    pub threads: usize,
    /// Where `/livez`, `/readyz`, `/metrics` and `/config` are served.
    pub admin: SocketAddr,
    /// Whether and how requests are logged to stdout.
    pub access_log: AccessLog,
    /// Bounds in time and number.
    pub limits: Limits,
    /// Metrics of others, to be served with ours.
    pub registry: Registry,
    /// Gives what memory is free on the thread that calls it back to the system: the admin port's thread does so now and
    /// then, for a scrape of many routes takes megabytes.
    pub give_back: fn(),
}

impl Options {
    /// One thread, no access log, default limits; memory is left to the allocator.
    pub fn new(admin: SocketAddr) -> Self {
        let (access_log, limits, registry) = (AccessLog::Off, Limits::default(), Registry::default());
        Self { threads: 1, admin, access_log, limits, registry, give_back: || {} }
    }
}

/// A running data plane. When it is dropped, the threads end at once and cut what they serve: [`Proxy::drain`] is the
/// way to end without that.
#[derive(Debug)]
pub struct Proxy {
    publisher: Publisher,
    listeners: Arc<Listeners>,
    threads: Vec<mpsc::Sender<Command>>,
    ends: Vec<oneshot::Receiver<()>>,
    admin: Admin,
    writer: access_log::Writer,
}

/// Starts worker threads and the admin port. Nothing is served, and `/readyz` says so, before the first publish.
///
/// # Errors
/// When a thread can't be started or the admin address can't be bound.
pub fn start(options: Options) -> io::Result<Proxy> {
    let Options { threads: count, admin, access_log, limits, mut registry, give_back } = options;
    let count = count.max(1);
    let metrics = Metrics::new(count);
    let (threads, queues): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(COMMANDS)).unzip();
    let listeners = Arc::new(Listeners::new(threads.clone()));
    let publisher = Publisher::new(metrics.clone(), Box::new(listeners.clone()));
    let (logs, writer) = access_log::start(access_log, count, &metrics, Box::new(io::stdout()))?;
    let limits = Limits {
        connections: limits.connections.div_ceil(count),
        udp_sessions: limits.udp_sessions.div_ceil(count),
        ..limits
    };
    let mut ends = Vec::with_capacity(count);
    for (index, (commands, log)) in queues.into_iter().zip(logs).enumerate() {
        let (reader, metrics) = (publisher.reader(), metrics.thread(index));
        ends.push(runtime::start(Parts { index, commands, reader, metrics, log, limits })?);
    }
    metrics.register(&mut registry);
    let admin = admin::start(admin, publisher.clone(), registry, give_back)?;
    Ok(Proxy { publisher, listeners, threads, ends, admin, writer })
}

impl Proxy {
    /// The way to publish models. Clones publish to the same threads.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Where the admin port listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Where a port is open, if it is: differs from the model where that leaves the choice to the system (port 0).
    pub fn address(&self, port: &PortId) -> Option<SocketAddr> {
        self.listeners.address(port)
    }

    /// Ends without cutting anybody short: says at once that it isn't ready and asks clients to go elsewhere, serves on
    /// for `unready_for` (until load balancers have noticed), then accepts no more and waits for the last request, at
    /// most `at_most`.
    pub async fn drain(self, unready_for: Duration, at_most: Duration) {
        self.publisher.drain();
        tell(&self.threads, || Command::Unready).await;
        tokio::time::sleep(unready_for).await;
        tell(&self.threads, || Command::Drain { at_most }).await;
        for end in self.ends {
            if tokio::time::timeout(at_most + LAST_TURN, end).await.is_err() {
                tracing::warn!("a worker thread doesn't end");
            }
        }
        self.writer.finish(LAST_LINES);
    }
}

async fn tell(threads: &[mpsc::Sender<Command>], command: impl Fn() -> Command) {
    for thread in threads {
        // A thread that has ended needs no telling.
        let _ = thread.send(command()).await;
    }
}
