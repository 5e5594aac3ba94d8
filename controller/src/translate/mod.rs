//! From what exists to what is served and said: a pure function of [`Cluster`], without clock, I/O or lock.
//!
//! [`Translator::translate`] goes top down: classes, Gateways with their listeners, routes with their backends, then
//! statuses. What it did before it remembers by the identity of what it looked at ([`lookup`]), so that an edit costs what
//! it touches. A new kind of route is a module like [`http_route`] and a line in [`Translator::routes`].

mod attach;
mod backend_ref;
mod backend_tls;
mod bundle;
mod certificate;
mod class;
mod client_validation;
mod endpoints;
mod filters;
mod gateway;
mod grants;
mod grpc_route;
mod http_route;
mod listener;
mod listener_filters;
mod listener_set;
mod lookup;
mod matches;
mod policy;
mod route;
mod rule;
mod session;
mod stream_route;

pub(crate) use class::{named as named_parameters, parameters as class_parameters};
pub(crate) use gateway::{Reach, asked, pod_port, service_of, wants};
pub(crate) use listener::transport;
pub(crate) use listener_set::added_ports;

use crate::api::Gateway;
use crate::cluster::{Cluster, Kind, Object, Store, Watched};
use crate::settings::Settings;
use crate::status::Statuses;
use backend_tls::Policies;
use bundle::Bundles;
use certificate::Certificates;
use class::Classes;
use endpoints::Endpoints;
use gateway::{Context, Evaluated};
use grants::Grants;
use headgate_proxy::model::{
    Backend, BackendId, EndpointSet, ListenerId, Model, ObjectName, Port, PortId, RouteKind,
};
use lookup::{Around, Inputs, Lookup, Views};
use route::{Routed, Translated};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What objects come to.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// What the proxy is to serve.
    pub model: Model,
    /// What objects are to be told.
    pub statuses: Statuses,
}

/// Translates, and remembers.
#[derive(Debug)]
pub struct Translator {
    settings: Settings,
    grants: Arc<Grants>,
    certificates: Certificates,
    bundles: Bundles,
    policies: Policies,
    governing: policy::Policies,
    views: Views,
    routes: BTreeMap<(Kind, ObjectName), Remembered>,
    endpoints: Endpoints,
    ports: BTreeMap<PortId, Arc<Port>>,
    backends: BTreeMap<BackendId, Arc<Backend>>,
}

#[derive(Debug)]
struct Remembered {
    route: Object,
    inputs: Inputs,
    translated: Arc<Translated>,
}

impl Translator {
    /// One that remembers nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            grants: Arc::default(),
            certificates: Certificates::default(),
            bundles: Bundles::default(),
            policies: Policies::default(),
            governing: policy::Policies::default(),
            views: Views::new(),
            routes: BTreeMap::new(),
            endpoints: Endpoints::default(),
            ports: BTreeMap::new(),
            backends: BTreeMap::new(),
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Translates everything. `failed_ports`: what the proxy could not bind when it was last told to, and why.
    pub fn translate(&mut self, cluster: &Cluster, failed_ports: &BTreeMap<PortId, String>) -> Translation {
        self.grants = Grants::of(cluster, &self.grants);
        let classes = Classes::of(cluster, &self.settings);
        self.policies = Policies::of(cluster, &mut self.bundles, &self.policies);
        let gateways = self.gateways(cluster, &classes, failed_ports);
        self.governing = policy::Policies::of(cluster, self.settings.mode, &self.governing);
        let routes = self.routes(cluster);

        let (mut model, mut statuses) = (Model::default(), Statuses::default());
        let mut attached = BTreeMap::<ListenerId, i32>::new();
        let mut told = policy::Notes::default();
        for (id, translated) in &routes {
            for listener in &translated.attached {
                *attached.entry(listener.clone()).or_default() += 1;
            }
            told.take(id, translated);
            let mut draft = translated.draft.clone();
            self.governing.affect_route(id, &mut draft);
            statuses.routes.insert(id.clone(), draft);
            match &translated.route {
                None => continue,
                Some(Routed::Http(route)) => drop(model.routes.insert(route.id.clone(), route.clone())),
                Some(Routed::Stream(route)) => {
                    model.stream_routes.insert(route.id.clone(), route.clone());
                }
            }
            for backend in &translated.backends {
                model.backends.entry(backend.id.clone()).or_insert_with(|| backend.clone());
            }
        }
        let around = Around {
            cluster,
            views: &self.views,
            grants: &self.grants,
            policies: &self.policies,
            governing: &self.governing,
        };
        policy::govern(&around, routes.iter().map(|(id, route)| (id, route)), &mut model, &mut told);
        for backend in gateways.iter().flat_map(|(_, gateway)| &gateway.backends) {
            model.backends.entry(backend.id.clone()).or_insert_with(|| backend.clone());
        }
        for (id, backend) in &mut model.backends {
            *backend = reuse(&self.backends, id, backend.clone());
        }
        for (name, gateway) in gateways {
            for port in &gateway.ports {
                model.ports.insert(port.id.clone(), reuse(&self.ports, &port.id, Arc::new(port.clone())));
            }
            let (mut draft, sets) = gateway.draft(&attached);
            self.governing.affect_gateway(&name, &mut draft);
            statuses.gateways.insert(name, Arc::new(draft));
            for set in sets {
                let name = set.name.clone();
                let mut draft = set.draft(&attached);
                self.governing.affect_set(&name, &mut draft);
                statuses.listener_sets.insert(name, Arc::new(draft));
            }
        }
        statuses.gateway_classes = classes.drafts;
        statuses.policies = self.governing.drafts(&self.views, &told);
        statuses.policies.extend(self.policies.drafts(&self.users()));
        for id in model.backends.keys() {
            model.endpoints.insert(id.clone(), self.endpoints.get(cluster, self.settings.mode, id));
        }
        self.endpoints.retain(|id| model.backends.contains_key(id));
        self.certificates.retain(|name| cluster.secrets.contains_key(name));
        self.bundles.retain(cluster);
        self.ports.clone_from(&model.ports);
        self.backends.clone_from(&model.backends);
        Translation { model, statuses }
    }

    /// The endpoints of Services, when only their EndpointSlices changed: the same as a whole translation would have them.
    pub fn endpoints(
        &mut self,
        cluster: &Cluster,
        services: &BTreeSet<ObjectName>,
    ) -> Vec<(BackendId, Arc<EndpointSet>)> {
        let ids: Vec<_> = services.iter().flat_map(|service| self.endpoints.of_service(service)).collect();
        let mode = self.settings.mode;
        ids.into_iter().map(|id| (id.clone(), self.endpoints.get(cluster, mode, &id))).collect()
    }

    fn gateways(
        &mut self,
        cluster: &Cluster,
        classes: &Classes,
        failed_ports: &BTreeMap<PortId, String>,
    ) -> Vec<(ObjectName, Evaluated)> {
        let mut context = Context {
            cluster,
            settings: &self.settings,
            grants: &self.grants,
            policies: &self.policies,
            certificates: &mut self.certificates,
            bundles: &mut self.bundles,
            failed_ports,
        };
        let ours =
            cluster.gateways.iter().filter(|(_, gateway)| classes.serve(&gateway.spec.gateway_class_name));
        let evaluated: Vec<_> = ours
            .map(|(name, gateway)| (name.clone(), gateway::evaluate(&mut context, name, gateway)))
            .collect();
        let mut views = Views::new();
        for (name, gateway) in &evaluated {
            for (name, view) in gateway.views(name) {
                let view = reuse(&self.views, &name, Arc::new(view));
                views.insert(name, view);
            }
        }
        self.views = views;
        evaluated
    }

    /// Which Gateways forward to Services that have policies.
    fn users(&self) -> BTreeMap<ObjectName, BTreeSet<ObjectName>> {
        let mut users = BTreeMap::<_, BTreeSet<_>>::new();
        for route in self.routes.values() {
            for service in route.inputs.secured_services() {
                let gateways = route.translated.attached.iter().map(|listener| listener.gateway.clone());
                users.entry(service.clone()).or_default().extend(gateways);
            }
        }
        users
    }

    fn routes(&mut self, cluster: &Cluster) -> Vec<((Kind, ObjectName), Arc<Translated>)> {
        let mut before = std::mem::take(&mut self.routes);
        self.routes_of(cluster, &mut before, &cluster.http_routes, http_route::translate);
        self.routes_of(cluster, &mut before, &cluster.grpc_routes, grpc_route::translate);
        self.routes_of(cluster, &mut before, &cluster.tls_routes, |lookup, name, route| {
            stream_route::translate(RouteKind::Tls, lookup, name, route)
        });
        self.routes_of(cluster, &mut before, &cluster.tcp_routes, |lookup, name, route| {
            stream_route::translate(RouteKind::Tcp, lookup, name, route)
        });
        self.routes_of(cluster, &mut before, &cluster.udp_routes, |lookup, name, route| {
            stream_route::translate(RouteKind::Udp, lookup, name, route)
        });
        self.routes.iter().map(|(id, route)| (id.clone(), route.translated.clone())).collect()
    }

    fn routes_of<K: Watched>(
        &mut self,
        cluster: &Cluster,
        before: &mut BTreeMap<(Kind, ObjectName), Remembered>,
        store: &Store<K>,
        translate: impl Fn(&mut Lookup<'_>, &ObjectName, &K) -> Translated,
    ) {
        let around = Around {
            cluster,
            views: &self.views,
            grants: &self.grants,
            policies: &self.policies,
            governing: &self.governing,
        };
        for (name, route) in store {
            let id = (K::KIND, name.clone());
            let object = route.clone().wrap();
            let known = before
                .remove(&id)
                .filter(|known| known.route.is(&object) && known.inputs.are_current(&around));
            let remembered = known.unwrap_or_else(|| {
                let mut lookup = Lookup::new(&around);
                let translated = Arc::new(translate(&mut lookup, name, route));
                Remembered { route: object, inputs: lookup.into_inputs(), translated }
            });
            self.routes.insert(id, remembered);
        }
    }
}

/// The Gateways that are ours to serve.
pub(crate) fn gateways<'a>(
    cluster: &'a Cluster,
    settings: &Settings,
) -> BTreeMap<&'a ObjectName, &'a Arc<Gateway>> {
    let classes = Classes::of(cluster, settings);
    cluster.gateways.iter().filter(|(_, gateway)| classes.serve(&gateway.spec.gateway_class_name)).collect()
}

/// The part that was there before, when it says the same: so that who compares by pointer sees that nothing changed.
fn reuse<K: Ord, V: PartialEq>(before: &BTreeMap<K, Arc<V>>, key: &K, new: Arc<V>) -> Arc<V> {
    match before.get(key) {
        Some(before) if *before == new => before.clone(),
        _ => new,
    }
}
