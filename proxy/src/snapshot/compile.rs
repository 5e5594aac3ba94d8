//! What of a new model must be built, and what stays.
//!
//! Two models are compared part by part: what they share is skipped ([`crate::model::Sorted`]), the rest compared by pointer,
//! then by value. A route is compiled when its object changed, and put into the tables of its listeners, which are persistent
//! maps; a port is compiled when its listeners changed, and gets other tables when their routes did. Backends live in the registry: endpoints are swapped there.

use crate::auth;
use crate::metrics::Metrics;
use crate::model::{BackendId, EndpointSet, ListenerId, Model, Port, PortId, RouteId};
use crate::router::{CompiledRoute, Context, PortTable, RouteTable, Stream};
use crate::upstream::Registry;
use crate::upstream::health::BackendHealth;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What was compiled, and from what.
pub(super) struct Compiler {
    model: Arc<Model>,
    metrics: Arc<Metrics>,
    registry: Registry,
    auth: auth::Registry,
    routes: BTreeMap<RouteId, CompiledRoute>,
    streams: HashMap<RouteId, Arc<Stream>>,
    tables: HashMap<ListenerId, Arc<RouteTable>>,
    ports: HashMap<PortId, Arc<PortTable>>,
    /// Where a listener is served.
    homes: HashMap<ListenerId, PortId>,
    /// Backends whose endpoints aren't those of the model any more.
    overridden: BTreeSet<BackendId>,
}

impl Compiler {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            model: Arc::default(),
            registry: Registry::new(metrics.clone()),
            metrics,
            auth: auth::Registry::default(),
            routes: BTreeMap::new(),
            streams: HashMap::new(),
            tables: HashMap::new(),
            ports: HashMap::new(),
            homes: HashMap::new(),
            overridden: BTreeSet::new(),
        }
    }

    /// Forgets everything but the backends: the next compile builds all of it.
    pub(super) fn forget(&mut self) {
        let registry = std::mem::replace(&mut self.registry, Registry::new(self.metrics.clone()));
        *self = Self { registry, ..Self::new(self.metrics.clone()) };
    }

    /// Compiles the difference to the model before.
    pub(super) fn compile(&mut self, model: Arc<Model>) -> HashMap<PortId, Arc<PortTable>> {
        let old = std::mem::replace(&mut self.model, model.clone());
        self.compile_backends(&old, &model);
        let mut touched = self.compile_routes(&old, &model);
        touched.extend(self.compile_streams(&old, &model));
        self.tables.retain(|listener, table| !touched.contains(listener) || !table.is_empty());
        self.compile_ports(&old, &model, &touched);
        if self.registry.len() > model.backends.len() {
            self.registry.retain(|id| model.backends.contains_key(id));
        }
        self.ports.clone()
    }

    pub(super) fn set_endpoints(&mut self, id: &BackendId, endpoints: Arc<EndpointSet>) {
        if self.registry.set_endpoints(id, endpoints) {
            self.overridden.insert(id.clone());
        }
    }

    pub(super) fn health(&self) -> Vec<BackendHealth> {
        self.registry.health()
    }

    pub(super) fn model(&self) -> Arc<Model> {
        if self.overridden.is_empty() {
            return self.model.clone();
        }
        let mut model = (*self.model).clone();
        for state in self.overridden.iter().filter_map(|id| self.registry.get(id)) {
            model.endpoints.insert(state.id().clone(), state.endpoints());
        }
        Arc::new(model)
    }

    /// Endpoints before routes: a new route finds its backends' endpoints in place.
    fn compile_backends(&mut self, old: &Model, new: &Model) {
        let mut stale = std::mem::take(&mut self.overridden);
        for (id, before, backend) in old.backends.changes(&new.backends) {
            if let Some(backend) = backend {
                self.registry.backend(backend);
                if before.is_none() {
                    stale.insert(id.clone());
                }
            }
        }
        // After all of them: a fallback may come later than whom it stands in for.
        for (id, _, backend) in old.backends.changes(&new.backends) {
            if backend.is_some() {
                self.registry.link(id);
            }
        }
        stale.extend(old.endpoints.changes(&new.endpoints).map(|(id, _, _)| id.clone()));
        for id in stale {
            // Of a backend that is gone, running requests keep what they had.
            if new.backends.contains_key(&id) {
                self.registry.set_endpoints(&id, new.endpoints.get(&id).cloned().unwrap_or_default());
            }
        }
    }

    /// Returns the listeners whose tables changed.
    fn compile_routes(&mut self, old: &Model, new: &Model) -> HashSet<ListenerId> {
        let mut touched = HashSet::new();
        let mut context = Context {
            registry: &mut self.registry,
            metrics: &self.metrics,
            auth: &mut self.auth,
            backends: &new.backends,
        };
        let routes = self.routes.len();
        for (id, _, route) in old.routes.changes(&new.routes) {
            let compiled = route.map(|route| CompiledRoute::compile(route, &mut context));
            // The new one first: what both have stays in place.
            if let Some(compiled) = &compiled {
                for listener in distinct(&compiled.source.listeners) {
                    Arc::make_mut(self.tables.entry(listener.clone()).or_default()).insert(compiled);
                    touched.insert(listener.clone());
                }
            }
            let before = match compiled {
                Some(compiled) => self.routes.insert(id.clone(), compiled),
                None => self.routes.remove(id),
            };
            for listener in before.iter().flat_map(|before| distinct(&before.source.listeners)) {
                let table = self.tables.get_mut(listener);
                if let (Some(table), Some(before)) = (table, &before) {
                    Arc::make_mut(table).remove(before);
                }
                touched.insert(listener.clone());
            }
        }
        if self.routes.len() > 2 * routes {
            // They came in order, which leaves the nodes of a tree half empty.
            self.routes = std::mem::take(&mut self.routes).into_iter().collect();
        }
        touched
    }

    /// Returns the listeners whose tables changed.
    fn compile_streams(&mut self, old: &Model, new: &Model) -> HashSet<ListenerId> {
        let mut touched = HashSet::new();
        let mut context = Context {
            registry: &mut self.registry,
            metrics: &self.metrics,
            auth: &mut self.auth,
            backends: &new.backends,
        };
        for (id, _, route) in old.stream_routes.changes(&new.stream_routes) {
            let compiled = route.map(|route| Stream::compile(route, &mut context));
            if let Some(compiled) = &compiled {
                for listener in distinct(&compiled.source.listeners) {
                    Arc::make_mut(self.tables.entry(listener.clone()).or_default()).streams.insert(compiled);
                    touched.insert(listener.clone());
                }
            }
            let before = match compiled {
                Some(compiled) => self.streams.insert(id.clone(), compiled),
                None => self.streams.remove(id),
            };
            for listener in before.iter().flat_map(|before| distinct(&before.source.listeners)) {
                if let (Some(table), Some(before)) = (self.tables.get_mut(listener), &before) {
                    Arc::make_mut(table).streams.remove(before);
                }
                touched.insert(listener.clone());
            }
        }
        touched
    }

    fn compile_ports(&mut self, old: &Model, new: &Model, touched: &HashSet<ListenerId>) {
        let tables = &self.tables;
        let routes = |id: &ListenerId| tables.get(id).cloned().unwrap_or_default();
        let mut context = Context {
            registry: &mut self.registry,
            metrics: &self.metrics,
            auth: &mut self.auth,
            backends: &new.backends,
        };
        let mut rerouted: HashSet<PortId> = HashSet::new();
        for (id, before, port) in port_changes(&old.ports, &new.ports) {
            for listener in before.iter().flat_map(|port| &port.listeners) {
                self.homes.remove(&listener.id);
            }
            match port {
                Some(port) => {
                    let table = PortTable::compile(
                        port,
                        self.ports.get(id).map(|table| &**table),
                        routes,
                        &mut context,
                    );
                    self.ports.insert(id.clone(), Arc::new(table));
                    rerouted.insert(id.clone());
                }
                None => {
                    self.ports.remove(id);
                }
            }
        }
        for id in &rerouted {
            for listener in new.ports.get(id).iter().flat_map(|port| &port.listeners) {
                self.homes.insert(listener.id.clone(), id.clone());
            }
        }
        let homes: HashSet<&PortId> =
            touched.iter().filter_map(|listener| self.homes.get(listener)).collect();
        for id in homes.into_iter().filter(|id| !rerouted.contains(*id)) {
            if let Some(table) = self.ports.get_mut(id) {
                *table = Arc::new(table.with_routes(routes));
            }
        }
    }
}

/// Each listener once: lists are sorted, but a model's author may have forgotten.
fn distinct(listeners: &[ListenerId]) -> impl Iterator<Item = &ListenerId> {
    listeners.iter().enumerate().filter(|(index, id)| !listeners[..*index].contains(id)).map(|(_, id)| id)
}

/// The keys under which two small maps differ, with the values of both.
fn port_changes<'a>(
    old: &'a BTreeMap<PortId, Arc<Port>>,
    new: &'a BTreeMap<PortId, Arc<Port>>,
) -> impl Iterator<Item = (&'a PortId, Option<&'a Arc<Port>>, Option<&'a Arc<Port>>)> {
    let gone = old.iter().filter(|(id, _)| !new.contains_key(*id)).map(|(id, port)| (id, Some(port), None));
    let there = new.iter().map(|(id, port)| (id, old.get(id), Some(port)));
    let same = |before: Option<&Arc<Port>>, after: Option<&Arc<Port>>| match (before, after) {
        (Some(before), Some(after)) => Arc::ptr_eq(before, after) || before == after,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    gone.chain(there).filter(move |(_, before, after)| !same(*before, *after))
}
