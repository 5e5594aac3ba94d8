//! The client side of the proxy: backends, and the state of each that outlives a snapshot.
//!
//! A [`BackendState`] is one per [`BackendId`] for as long as anything names it: routes are compiled against it once,
//! and endpoints that come and go are swapped inside it without touching a route. [`forward`] sends a request to one
//! of the endpoints; connections and requests in flight are each thread's own ([`pool`]).

mod budget;
mod connect;
mod endpoint;
pub(crate) mod forward;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod health;
mod identity;
mod line;
pub(crate) mod open;
pub(crate) mod pick;
pub(crate) mod pool;
pub(crate) mod retry;
pub(crate) mod upgrade;

use crate::metrics::{BackendMetrics, Metrics};
use crate::model::{
    Authorities, Backend, BackendId, BackendProtocol, BackendTls, EndpointSet, Failure, RouteId,
};
use crate::notice::Notices;
use crate::rejection::Rejection;
use crate::snapshot::Swap;
use budget::Budget;
use endpoint::{Addresses, Member};
use health::{BackendHealth, Breaker, Health};
use identity::{Identities, Identity};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

/// What the process knows about one backend. Shared by all threads.
#[derive(Debug)]
pub struct BackendState {
    id: BackendId,
    manner: Swap<Manner>,
    /// Who answers while its breaker is open. Weak: two backends may be each other's.
    fallback: Swap<Option<Weak<BackendState>>>,
    endpoints: Swap<Endpoints>,
    metrics: Arc<BackendMetrics>,
}

/// How a backend is spoken to.
#[derive(Debug)]
struct Manner {
    protocol: BackendProtocol,
    /// What `security` was compiled from.
    tls: Option<Arc<BackendTls>>,
    security: Security,
    /// When it is left alone; most backends never are.
    health: Option<Arc<Health>>,
    /// How many of its requests may be retries, where something bounds them.
    budget: Option<Arc<Budget>>,
}

#[derive(Debug)]
enum Security {
    Clear,
    Tls(Identities),
    /// It can't be compiled: nobody is spoken to.
    Broken,
}

impl Manner {
    /// `before`: what was in force until now.
    fn compile(backend: &Backend, before: Option<&Self>, notices: &Arc<Notices>) -> Self {
        let security = match backend.tls.as_deref().map(Identities::compile) {
            None => Security::Clear,
            Some(Ok(identities)) => Security::Tls(identities),
            // Its author was told.
            Some(Err(_))
                if backend.tls.as_ref().is_some_and(|tls| tls.authorities == Authorities::Nobody) =>
            {
                Security::Broken
            }
            Some(Err(error)) => {
                tracing::error!(backend = %backend.id, %error, "TLS to a backend can't be set up: its requests fail");
                Security::Broken
            }
        };
        let known = before.and_then(|before| before.health.as_deref());
        let health = backend
            .policy
            .as_ref()
            .map(|policy| Arc::new(Health::new(&backend.id, policy.clone(), known, notices)));
        let known = before.and_then(|before| before.budget.clone());
        let budget = backend.retry_budget.map(|budget| match known {
            Some(known) if *known.policy() == budget => known,
            Some(_) | None => Arc::new(Budget::new(budget)),
        });
        Self { protocol: backend.protocol, tls: backend.tls.clone(), security, health, budget }
    }

    fn is_of(&self, backend: &Backend) -> bool {
        self.protocol == backend.protocol
            && self.tls == backend.tls
            && self.health.as_ref().map(|health| health.policy()) == backend.policy.as_ref()
            && self.budget.as_ref().map(|budget| budget.policy()) == backend.retry_budget.as_ref()
    }
}

/// How one request goes to a backend.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) protocol: BackendProtocol,
    /// Under which its connection is made; none: in clear text.
    pub(crate) identity: Option<Arc<Identity>>,
    /// Who says whether it may go; none: nobody.
    pub(crate) guard: Option<Guard>,
    /// How many requests may be retries; none: all.
    pub(crate) budget: Option<Arc<Budget>>,
}

/// Who says whether a request may go to a backend.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) health: Arc<Health>,
    /// The breaker of its route's own, where each has one.
    pub(crate) route: Option<Arc<Breaker>>,
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
        self.manner.borrow().protocol
    }

    /// How a request of a route goes there. `certificate` is asked for what the backend is to be shown, when it speaks TLS.
    pub(crate) fn way(
        &self,
        route: &RouteId,
        certificate: impl FnOnce() -> Option<Arc<CertifiedKey>>,
    ) -> Result<Way, Rejection> {
        let manner = self.manner.borrow();
        let identity = match &manner.security {
            Security::Clear => None,
            Security::Tls(identities) => match identities.of(certificate().as_ref()) {
                Ok(identity) => Some(identity),
                Err(error) => {
                    tracing::error!(backend = %self.id, %error, "a client certificate can't be used");
                    return Err(Rejection::Config(Failure::BackendTls));
                }
            },
            Security::Broken => return Err(Rejection::Config(Failure::BackendTls)),
        };
        let guard = manner
            .health
            .as_ref()
            .map(|health| Guard { health: health.clone(), route: health.breaker_of(route) });
        Ok(Way { protocol: manner.protocol, identity, guard, budget: manner.budget.clone() })
    }

    /// How it fares, where a policy cares.
    pub(crate) fn health(&self) -> Option<Arc<Health>> {
        self.manner.borrow().health.clone()
    }

    /// Who answers while its breaker is open.
    pub(crate) fn fallback(&self) -> Option<Arc<BackendState>> {
        (**self.fallback.borrow()).as_ref()?.upgrade()
    }

    /// The endpoint in force that `is` wants.
    pub(crate) fn find_endpoint(&self, is: impl Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        let endpoints = self.endpoints.borrow();
        endpoints.members.iter().map(|member| member.address.socket()).find(|socket| is(*socket))
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

    /// The state of a backend: the one there is, brought to what the model says of it, or a new one without endpoints.
    pub fn backend(&mut self, backend: &Backend) -> Arc<BackendState> {
        if let Some(state) = self.backends.get(&backend.id) {
            if !state.manner.load().is_of(backend) {
                let manner = Manner::compile(backend, Some(&*state.manner.load()), self.metrics.notices());
                state.metrics.watch(manner.health.as_ref());
                state.manner.store(Arc::new(manner));
            }
            return state.clone();
        }
        let (manner, metrics) =
            (Manner::compile(backend, None, self.metrics.notices()), self.metrics.backend(&backend.id));
        metrics.watch(manner.health.as_ref());
        let state = Arc::new(BackendState {
            id: backend.id.clone(),
            manner: Swap::new(Arc::new(manner)),
            fallback: Swap::new(Arc::default()),
            endpoints: Swap::new(Arc::default()),
            metrics,
        });
        self.backends.insert(backend.id.clone(), state.clone());
        state
    }

    /// Finds who answers while a backend's breaker is open, among those that were named by now.
    pub(crate) fn link(&self, id: &BackendId) {
        let Some(state) = self.backends.get(id) else { return };
        let health = state.health();
        let fallback = health.as_ref().and_then(|health| self.backends.get(health.fallback()?));
        state.fallback.store(Arc::new(fallback.map(Arc::downgrade)));
    }

    /// The state of a backend, if anything has named it.
    pub fn get(&self, id: &BackendId) -> Option<&Arc<BackendState>> {
        self.backends.get(id)
    }

    /// How the backends with policies fare, sorted by id.
    pub(crate) fn health(&self) -> Vec<BackendHealth> {
        let mut all: Vec<_> =
            self.backends.values().filter_map(|state| Some((&state.id, state.health()?))).collect();
        all.sort_by(|a, b| a.0.cmp(b.0));
        all.iter().map(|(_, health)| health.report()).collect()
    }

    /// Puts other endpoints of a backend in force, for requests that pick from now on. Says whether anything has named
    /// the backend. Connections to addresses that no backend lists any more end when they are idle.
    pub fn set_endpoints(&mut self, id: &BackendId, set: Arc<EndpointSet>) -> bool {
        let Some(state) = self.backends.get(id) else { return false };
        let before = state.endpoints.load();
        // New ones first: an address that both have keeps its number, and its connections.
        let members = self.addresses.list(&set);
        if let Some(health) = state.health() {
            health.keep_endpoints(|socket| members.iter().any(|member| member.address.socket() == *socket));
        }
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
