//! The client side of the proxy: backends, and the state of each that outlives a snapshot.
//!
//! A [`BackendState`] is one per [`BackendId`] for as long as anything names it: routes are compiled against it once,
//! and endpoints that come and go are swapped inside it without touching a route.

use crate::metrics::{BackendMetrics, Metrics};
use crate::model::{Backend, BackendId, BackendProtocol, EndpointSet};
use crate::snapshot::Swap;
use std::collections::HashMap;
use std::sync::Arc;

/// What the process knows about one backend. Shared by all threads.
#[derive(Debug)]
pub struct BackendState {
    id: BackendId,
    protocol: Swap<BackendProtocol>,
    endpoints: Swap<EndpointSet>,
    metrics: Arc<BackendMetrics>,
}

impl BackendState {
    /// Who it is.
    pub fn id(&self) -> &BackendId {
        &self.id
    }

    /// What its endpoints speak.
    pub fn protocol(&self) -> BackendProtocol {
        *self.protocol.load()
    }

    /// The endpoints in force.
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.endpoints.load()
    }

    /// Puts other endpoints in force, for requests that pick from now on.
    pub fn set_endpoints(&self, endpoints: Arc<EndpointSet>) {
        self.endpoints.store(endpoints);
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
}

impl Registry {
    /// An empty registry, whose backends count in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, backends: HashMap::new() }
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

    /// Forgets the backends that `keep` doesn't want and that no compiled route or running request holds.
    pub fn retain(&mut self, keep: impl Fn(&BackendId) -> bool) {
        self.backends.retain(|id, state| keep(id) || Arc::strong_count(state) > 1);
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
