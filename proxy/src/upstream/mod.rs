//! The client side of the proxy: backends, and the state of each that outlives a snapshot.
//!
//! A [`BackendState`] is one per [`BackendId`] for as long as anything names it: routes are compiled against it once,
//! and endpoints that come and go are swapped inside it without touching a route. [`forward`] sends a request to one
//! of the endpoints; connections and requests in flight are each thread's own ([`pool`]).

mod connect;
mod endpoint;
pub(crate) mod forward;
pub(crate) mod h1;
pub(crate) mod h2;
mod pick;
pub(crate) mod pool;
pub(crate) mod upgrade;

use crate::metrics::{BackendMetrics, Metrics};
use crate::model::{Backend, BackendId, BackendProtocol, EndpointSet};
use crate::snapshot::Swap;
use endpoint::{Addresses, Member};
use std::collections::HashMap;
use std::sync::Arc;

/// What the process knows about one backend. Shared by all threads.
#[derive(Debug)]
pub struct BackendState {
    id: BackendId,
    protocol: Swap<BackendProtocol>,
    endpoints: Swap<Endpoints>,
    metrics: Arc<BackendMetrics>,
}

/// A set of endpoints in force, numbered.
#[derive(Debug, Default)]
struct Endpoints {
    set: Arc<EndpointSet>,
    members: Vec<Member>,
}

impl BackendState {
    /// Who it is.
    pub fn id(&self) -> &BackendId {
        &self.id
    }

    /// What its endpoints speak.
    pub fn protocol(&self) -> BackendProtocol {
        **self.protocol.borrow()
    }

    /// The endpoints in force.
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.endpoints.borrow().set.clone()
    }

    /// Its counters.
    pub fn metrics(&self) -> &Arc<BackendMetrics> {
        &self.metrics
    }
}

/// Every backend that the model or a compiled route names. Owned by the control thread.
#[derive(Debug)]
pub struct Registry {
    metrics: Arc<Metrics>,
    backends: HashMap<BackendId, Arc<BackendState>>,
    addresses: Addresses,
}

impl Registry {
    /// An empty registry, whose backends count in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, backends: HashMap::new(), addresses: Addresses::default() }
    }

    /// The state of a backend: the one there is, brought to the protocol named, or a new one without endpoints.
    pub fn backend(&mut self, backend: &Backend) -> Arc<BackendState> {
        if let Some(state) = self.backends.get(&backend.id) {
            if state.protocol() != backend.protocol {
                state.protocol.store(Arc::new(backend.protocol));
            }
            return state.clone();
        }
        let state = Arc::new(BackendState {
            id: backend.id.clone(),
            protocol: Swap::new(Arc::new(backend.protocol)),
            endpoints: Swap::new(Arc::default()),
            metrics: self.metrics.backend(&backend.id),
        });
        self.backends.insert(backend.id.clone(), state.clone());
        state
    }

    /// The state of a backend, if anything has named it.
    pub fn get(&self, id: &BackendId) -> Option<&Arc<BackendState>> {
        self.backends.get(id)
    }

    /// Puts other endpoints of a backend in force, for requests that pick from now on. Says whether anything has named
    /// the backend. Connections to addresses that no backend lists any more end when they are idle.
    pub fn set_endpoints(&mut self, id: &BackendId, set: Arc<EndpointSet>) -> bool {
        let Some(state) = self.backends.get(id) else { return false };
        let before = state.endpoints.load();
        // New ones first: an address that both have keeps its number, and its connections.
        let members = self.addresses.list(&set);
        state.endpoints.store(Arc::new(Endpoints { set, members }));
        self.addresses.unlist(&before.members);
        true
    }

    /// Forgets the backends that `keep` doesn't want and that no compiled route or running request holds.
    pub fn retain(&mut self, keep: impl Fn(&BackendId) -> bool) {
        let addresses = &mut self.addresses;
        self.backends.retain(|id, state| {
            let stays = keep(id) || Arc::strong_count(state) > 1;
            if !stays {
                addresses.unlist(&state.endpoints.load().members);
            }
            stays
        });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.backends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }
}
