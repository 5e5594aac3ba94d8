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
mod destination;
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
use destination::{Destinations, Users};
use endpoints::Endpoints;
use gateway::{Context, Evaluated};
use grants::Grants;
use headgate_proxy::model::{
    Backend, BackendId, BackendKind, EndpointSet, ListenerId, Model, ObjectName, Port, PortId, RouteKind,
    Text,
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
    /// What it needs from outside.
    pub needs: Needs,
}

/// What the model needs from outside to be whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Names of hosts whose addresses are to be looked up.
    pub hosts: BTreeSet<Text>,
    /// XBackends that need a Service to find the endpoints that they select.
    pub selectors: BTreeSet<ObjectName>,
}

impl Needs {
    fn of(cluster: &Cluster, model: &Model) -> Self {
        let mut needs = Self::default();
        for id in model.backends.keys().filter(|id| id.kind == BackendKind::XBackend) {
            let Some(backend) = cluster.x_backends.get(&id.name) else { continue };
            match destination::hostname(backend) {
                Some(host) => drop(needs.hosts.insert(host)),
                None => drop(needs.selectors.insert(id.name.clone())),
            }
        }
        needs
    }
}

/// Translates, and remembers.
#[derive(Debug)]
pub struct Translator {
    settings: Settings,
    grants: Arc<Grants>,
    certificates: Certificates,
    bundles: Bundles,
    policies: Policies,
    destinations: Destinations,
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
            destinations: Destinations::default(),
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
        self.destinations = Destinations::of(
            cluster,
            self.settings.mode,
            &mut self.bundles,
            &mut self.certificates,
            &self.destinations,
        );
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
        policy::govern(
            &self.around(cluster),
            routes.iter().map(|(id, route)| (id, route)),
            &mut model,
            &mut told,
        );
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
        self.tell_users(&mut statuses);
        for id in model.backends.keys() {
            model.endpoints.insert(id.clone(), self.endpoints.get(cluster, self.settings.mode, id));
        }
        self.remember(cluster, &model);
        let needs = Needs::of(cluster, &model);
        Translation { model, statuses, needs }
    }

    fn around<'a>(&'a self, cluster: &'a Cluster) -> Around<'a> {
        Around {
            cluster,
            views: &self.views,
            grants: &self.grants,
            policies: &self.policies,
            destinations: &self.destinations,
            governing: &self.governing,
        }
    }

    /// Keeps what the next translation may use again.
    fn remember(&mut self, cluster: &Cluster, model: &Model) {
        self.endpoints.retain(|id| model.backends.contains_key(id));
        self.certificates.retain(|name| cluster.secrets.contains_key(name));
        self.bundles.retain(cluster);
        self.ports.clone_from(&model.ports);
        self.backends.clone_from(&model.backends);
    }

    /// The endpoints of Services and external hosts, when only their EndpointSlices and addresses changed: the same as a whole
    /// translation would have them.
    pub fn endpoints(
        &mut self,
        cluster: &Cluster,
        services: &BTreeSet<ObjectName>,
        hosts: &BTreeSet<Text>,
    ) -> Vec<(BackendId, Arc<EndpointSet>)> {
        let of_services = services.iter().flat_map(|service| self.endpoints.of_service(service));
        let ids: Vec<_> = of_services.chain(self.endpoints.of_hosts(hosts)).collect();
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
            destinations: &self.destinations,
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

    /// Tells BackendTLSPolicies, XBackends and XBackendTrafficPolicies who uses them.
    fn tell_users(&self, statuses: &mut Statuses) {
        let users = self.users();
        statuses.policies.extend(self.policies.drafts(&users));
        statuses.policies.extend(self.destinations.drafts(&users));
    }

    /// Which Gateways forward to backends that are told so, or whose policies are.
    fn users(&self) -> Users {
        let mut users = Users::new();
        for route in self.routes.values() {
            for backend in route.inputs.told_backends() {
                let gateways = route.translated.attached.iter().map(|listener| listener.gateway.clone());
                users.entry(backend).or_default().extend(gateways);
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
        let mut routes = std::mem::take(&mut self.routes);
        let around = self.around(cluster);
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
            routes.insert(id, remembered);
        }
        self.routes = routes;
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
