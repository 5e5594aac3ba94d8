//! From a [`Model`] to what all threads serve: compiled once, swapped once, read without a lock.
//!
//! The control thread publishes; worker threads hold a [`Reader`] and compare one number per request. A request reads
//! the snapshot once and so sees one model from its first byte to its last. This file is the only one that swaps
//! shared state; [`compile`] decides what is built anew. Knows nothing of connections: sockets are behind [`Ports`].

mod compile;

use crate::metrics::Metrics;
use crate::model::{BackendId, EndpointSet, Model, PortId, PortProtocol};
use crate::notice::Notice;
use crate::router::PortTable;
use crate::upstream::health::BackendHealth;
use arc_swap::ArcSwap;
use compile::Compiler;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
#[expect(
    clippy::disallowed_types,
    reason = "taken by the control thread and the admin port, never by a request"
)]
use std::sync::{Mutex, MutexGuard};
use tokio::sync::mpsc;

/// A shared value that one side replaces and others read.
#[derive(Debug)]
pub struct Swap<T>(ArcSwap<T>);

impl<T> Swap<T> {
    /// Holds a first value.
    pub fn new(value: Arc<T>) -> Self {
        Self(ArcSwap::new(value))
    }

    /// The value in force, to keep.
    pub fn load(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// The value in force, for a moment: cheaper than [`Swap::load`], not to be held across an await.
    pub fn borrow(&self) -> impl std::ops::Deref<Target = Arc<T>> {
        self.0.load()
    }

    /// Puts in force what `change` makes of the value in force; called again when another thread was faster.
    pub(crate) fn update(&self, mut change: impl FnMut(&T) -> T) {
        self.0.rcu(|value| change(value));
    }

    /// Puts another value in force.
    pub fn store(&self, value: Arc<T>) {
        self.0.store(value);
    }
}

/// Everything a request can find, from one point in time.
#[derive(Debug, Default)]
pub struct Snapshot {
    generation: u64,
    ports: HashMap<PortId, Arc<PortTable>>,
}

impl Snapshot {
    /// Grows with every publish that changed something. A connection may keep its [`PortTable`] as long as this stays.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The listeners of a port, or none if the model no longer has it.
    pub fn port(&self, id: &PortId) -> Option<&Arc<PortTable>> {
        self.ports.get(id)
    }
}

/// Who opens and closes sockets. Called by the control thread, one call at a time.
pub trait Ports: Send + Sync {
    /// Brings the open ports to exactly `wanted`. When it returns, every new port is accepting connections on every
    /// thread, unless it is among those returned: the ones that couldn't be opened, and why. A port whose address is
    /// the same as before isn't touched; a removed one stops accepting and its connections end in their own time.
    fn apply(&self, wanted: &[(PortId, SocketAddr, PortProtocol)]) -> Vec<(PortId, String)>;
}

/// Whether this process should get traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// No model was published yet.
    Starting,
    /// It serves.
    Ready,
    /// It serves, but is about to end.
    Draining,
}

/// The result of [`Publisher::publish`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// [`Snapshot::generation`] of what is in force now.
    pub generation: u64,
    /// Ports that couldn't be opened, and why. The next publish tries again.
    pub failed_ports: Vec<(PortId, String)>,
}

#[expect(
    clippy::disallowed_types,
    reason = "taken by the control thread and the admin port, never by a request"
)]
struct Shared {
    /// Written after `current`, so that who sees a new number loads a snapshot at least as new.
    generation: AtomicU64,
    current: Swap<Snapshot>,
    readiness: AtomicU8,
    metrics: Arc<Metrics>,
    control: Mutex<Control>,
}

/// What only the control thread changes.
struct Control {
    compiler: Compiler,
    ports: Box<dyn Ports>,
    failed: bool,
    /// Snapshots that a thread may still hold: dropped here once none does, so that no worker thread spends its time
    /// on freeing tables. At most one per thread, and those of running requests.
    retired: Vec<Arc<Snapshot>>,
}

/// Publishes models. Clones publish to the same threads.
#[derive(Clone)]
pub struct Publisher(Arc<Shared>);

impl Publisher {
    /// Publishes to the sockets behind `ports`; rules and backends count in `metrics`.
    #[expect(clippy::disallowed_types, reason = "see Shared")]
    pub fn new(metrics: Arc<Metrics>, ports: Box<dyn Ports>) -> Self {
        let compiler = Compiler::new(metrics.clone());
        Self(Arc::new(Shared {
            generation: AtomicU64::new(0),
            current: Swap::new(Arc::default()),
            readiness: AtomicU8::new(Readiness::Starting as u8),
            metrics,
            control: Mutex::new(Control { compiler, ports, failed: false, retired: Vec::new() }),
        }))
    }

    /// A reader for one thread.
    pub fn reader(&self) -> Reader {
        Reader { shared: self.0.clone(), current: self.0.current.load() }
    }

    /// Puts a model in force. When it returns, every thread listens on the model's ports, and every request that
    /// begins finds the model's routes. Costs what differs from the model before; an equal model costs a comparison.
    pub fn publish(&self, model: Model) -> Published {
        let mut control = self.control();
        let wanted: Vec<_> =
            model.ports.values().map(|port| (port.id.clone(), port.bind, port.protocol)).collect();
        let before = self.0.current.load();
        let ports = control.compiler.compile(Arc::new(model));
        let unchanged = ports.len() == before.ports.len()
            && ports
                .iter()
                .all(|(id, table)| before.ports.get(id).is_some_and(|old| Arc::ptr_eq(old, table)));
        // New tables before their sockets, so that an accepted connection always finds its port; old tables until
        // after theirs, so that the last accepted connections do.
        let mut with_removed = ports.clone();
        for (id, table) in &before.ports {
            with_removed.entry(id.clone()).or_insert_with(|| table.clone());
        }
        let removed = with_removed.len() > ports.len();
        if !unchanged {
            self.swap(&mut control, with_removed);
        }
        // `apply` is idempotent; what failed is tried again with every publish, and a port may have moved.
        let failed_ports = control.ports.apply(&wanted);
        control.failed = !failed_ports.is_empty();
        if removed {
            self.swap(&mut control, ports);
        }
        drop(before);
        control.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        let starting = (Readiness::Starting as u8, Readiness::Ready as u8);
        // Fails when it is ready already, or draining: both stay.
        let _ =
            self.0.readiness.compare_exchange(starting.0, starting.1, Ordering::AcqRel, Ordering::Relaxed);
        Published { generation: self.0.generation.load(Ordering::Relaxed), failed_ports }
    }

    /// Puts other endpoints of one backend in force, and touches nothing else. Ignored when nothing names the backend.
    pub fn publish_endpoints(&self, id: &BackendId, endpoints: Arc<EndpointSet>) {
        self.control().compiler.set_endpoints(id, endpoints);
    }

    /// The model in force, with the endpoints in force.
    pub fn model(&self) -> Arc<Model> {
        self.control().compiler.model()
    }

    /// How backends with policies fare.
    pub(crate) fn health(&self) -> Vec<BackendHealth> {
        self.control().compiler.health()
    }

    /// Changes at backends with policies, from now on; `None` when somebody hears them already.
    pub fn notices(&self) -> Option<mpsc::Receiver<Notice>> {
        self.0.metrics.notices().listen()
    }

    /// Whether some port of the model in force couldn't be opened.
    pub fn has_failed_ports(&self) -> bool {
        self.control().failed
    }

    /// Whether this process should get traffic.
    pub fn readiness(&self) -> Readiness {
        match self.0.readiness.load(Ordering::Acquire) {
            0 => Readiness::Starting,
            1 => Readiness::Ready,
            _ => Readiness::Draining,
        }
    }

    /// From now on not ready, for good.
    pub fn drain(&self) {
        self.0.readiness.store(Readiness::Draining as u8, Ordering::Release);
    }

    fn swap(&self, control: &mut Control, ports: HashMap<PortId, Arc<PortTable>>) {
        let generation = self.0.generation.load(Ordering::Relaxed) + 1;
        control.retired.push(self.0.current.load());
        self.0.current.store(Arc::new(Snapshot { generation, ports }));
        self.0.generation.store(generation, Ordering::Release);
        self.0.metrics.published(generation);
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.0.control.lock().unwrap_or_else(|poisoned| {
            // A compile panicked halfway: the snapshot in force is whole, what it was made from may not be.
            let mut control = poisoned.into_inner();
            control.compiler.forget();
            self.0.control.clear_poison();
            control
        })
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Publisher").field(&self.0.generation).finish()
    }
}

/// One thread's view. Not shared: each thread has its own.
pub struct Reader {
    shared: Arc<Shared>,
    current: Arc<Snapshot>,
}

impl Reader {
    /// The snapshot in force: one comparison unless something was published.
    pub fn current(&mut self) -> &Arc<Snapshot> {
        if self.shared.generation.load(Ordering::Acquire) != self.current.generation {
            self.current = self.shared.current.load();
        }
        &self.current
    }
}

#[cfg(test)]
mod tests;
