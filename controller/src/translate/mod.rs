//! From what exists to what is served and said: a pure function of [`Cluster`], without clock, I/O or lock.
//!
//! [`Translator::translate`] goes top down: classes, Gateways with their listeners, routes with their backends, then
//! statuses. What it did before it remembers by the identity of what it looked at ([`lookup`]), so that an edit costs what
//! it touches: [`refresh`] translates routes again, and [`tally`] keeps what they add up to. A new kind of route is a module like
//! [`http_route`] and a line in [`Translator::refresh`].

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
mod refresh;
mod route;
mod rule;
mod session;
mod stream_route;
mod tally;

pub(crate) use class::{named as named_parameters, parameters as class_parameters};
pub(crate) use gateway::{Reach, asked, pod_port, service_of, wants};
pub(crate) use listener::transport;
pub(crate) use listener_set::added_ports;

use crate::api::Gateway;
use crate::cluster::{Body, Cluster, Effect};
use crate::settings::Settings;
use crate::status::Statuses;
use backend_tls::Policies;
use bundle::Bundles;
use certificate::Certificates;
use class::Classes;
use destination::Destinations;
use endpoints::Endpoints;
use gateway::{Context, Evaluated};
use grants::Grants;
use headgate_proxy::model::{
    Backend, BackendId, BackendKind, EndpointSet, Model, ObjectName, PortId, RouteKind, Sorted, Text,
};
use lookup::{Around, Inputs, Views};
use refresh::Refresh;
use route::Translated;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally::{Id, Tally};

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
    gateways: Vec<(ObjectName, Evaluated)>,
    tally: Tally,
    endpoints: Endpoints,
    /// What it came to last; nothing yet.
    made: Option<Translation>,
}

/// A route's result, and what it was made from.
#[derive(Debug)]
struct Remembered {
    route: Body,
    inputs: Inputs,
    translated: Arc<Translated>,
}

/// What is different since the last translation.
#[derive(Debug, Default)]
struct Touched {
    /// Routes that have another result, or other policies.
    routes: BTreeSet<Id>,
    /// Gateways that are told something else.
    gateways: BTreeSet<ObjectName>,
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
            gateways: Vec::new(),
            tally: Tally::default(),
            endpoints: Endpoints::default(),
            made: None,
        }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Translates everything: looks at all objects, and translates what has others to look at. `failed_ports`: what the proxy
    /// could not bind when it was last told to, and why.
    pub fn translate(&mut self, cluster: &Cluster, failed_ports: &BTreeMap<PortId, String>) -> Translation {
        self.renew(cluster, failed_ports, None)
    }

    /// The same, where `effect` says what is different since: then routes look only where they may see that.
    fn renew(
        &mut self,
        cluster: &Cluster,
        failed_ports: &BTreeMap<PortId, String>,
        effect: Option<&Effect>,
    ) -> Translation {
        let grants = Grants::of(cluster, &self.grants);
        let classes = Classes::of(cluster, &self.settings);
        let policies = Policies::of(cluster, &mut self.bundles, &self.policies);
        let destinations = Destinations::of(
            cluster,
            self.settings.mode,
            &mut self.bundles,
            &mut self.certificates,
            &self.destinations,
        );
        let mut alike = Arc::ptr_eq(&grants, &self.grants)
            && policies.look_like(&self.policies)
            && destinations.look_like(&self.destinations);
        (self.grants, self.policies, self.destinations) = (grants, policies, destinations);
        let views = self.views.clone();
        self.gateways = self.evaluate(cluster, &classes, failed_ports);
        alike &= are_same(&views, &self.views);
        let mut touched = Touched { routes: self.judge(cluster), ..Touched::default() };
        // Policies of anything else are its routes' as well.
        alike &= touched.routes.iter().all(|(kind, _)| kind.is_route());
        let only = effect
            .filter(|effect| alike && !effect.named.iter().any(|object| self.tally.has_looked_up(object)));
        let only = only.map(|effect| effect.routes.union(&touched.routes).cloned().collect());
        self.refresh(cluster, only.as_ref(), &mut touched);

        let mut made = self.made.take().unwrap_or_default();
        let before = std::mem::take(&mut made.model.ports);
        let ports = self.gateways.iter().flat_map(|(_, gateway)| &gateway.ports);
        let mut notes = BTreeSet::new();
        let ports = ports.map(|port| {
            let mut port = port.clone();
            port.clients = self.governing.clients(&port, &mut notes);
            (port.id.clone(), reuse(before.get(&port.id), Arc::new(port)))
        });
        made.model.ports = ports.collect();
        self.tally.told_of_ports(notes);
        made.statuses.gateway_classes = classes.drafts;
        touched.gateways = self.gateways.iter().map(|(name, _)| name.clone()).collect();
        made.statuses.gateways.retain(|name, _| touched.gateways.contains(name));
        let sets: BTreeSet<_> =
            self.gateways.iter().flat_map(|(_, gateway)| &gateway.sets).map(|set| &set.name).collect();
        made.statuses.listener_sets.retain(|name, _| sets.contains(name));
        self.sum_up(cluster, &mut made, &touched);
        for id in made.model.backends.keys() {
            self.renew_endpoints(cluster, id, &mut made.model.endpoints);
        }
        made.needs = Needs::of(cluster, &made.model);
        self.endpoints.retain(|id| made.model.backends.contains_key(id));
        self.certificates.retain(|name| cluster.secrets.contains_key(name));
        self.bundles.retain(cluster);
        self.made = Some(made.clone());
        made
    }

    /// Translates what an effect says: the same as a whole translation would have it, for the price of what is different.
    pub fn update(
        &mut self,
        cluster: &Cluster,
        failed_ports: &BTreeMap<PortId, String>,
        effect: &Effect,
    ) -> Translation {
        let Some(mut made) = self.made.clone().filter(|_| !effect.routing) else {
            return self.renew(cluster, failed_ports, self.made.is_some().then_some(effect));
        };
        let mut touched = Touched::default();
        if !self.governing.is_empty() {
            // They may name a route that is new, or gone.
            touched.routes = self.judge(cluster);
        }
        let routes = effect.routes.union(&touched.routes).cloned().collect();
        self.refresh(cluster, Some(&routes), &mut touched);
        self.sum_up(cluster, &mut made, &touched);
        for id in self.moved(&effect.endpoints, &effect.hosts) {
            self.renew_endpoints(cluster, &id, &mut made.model.endpoints);
        }
        self.made = Some(made.clone());
        made
    }

    /// Makes model and statuses of what routes and Gateways come to, where it is different.
    fn sum_up(&mut self, cluster: &Cluster, made: &mut Translation, touched: &Touched) {
        let Translation { model, statuses, needs } = made;
        model.routes = self.tally.routes.clone();
        model.stream_routes = self.tally.stream_routes.clone();
        let before = model.backends.clone();
        let governed = self.govern(cluster, &mut model.backends);
        let mut named_anew = false;
        for (id, old, new) in before.changes(&model.backends) {
            named_anew |= id.kind == BackendKind::XBackend;
            match (old, new) {
                (None, Some(_)) => self.renew_endpoints(cluster, id, &mut model.endpoints),
                (_, None) => {
                    model.endpoints.remove(id);
                    self.endpoints.remove(id);
                }
                (Some(_), Some(_)) => {}
            }
        }
        if named_anew {
            *needs = Needs::of(cluster, model);
        }
        self.tell(statuses, governed.as_ref().unwrap_or(&self.tally.told), touched);
    }

    /// Brings statuses up to date; `told`: what became of policies.
    fn tell(&self, statuses: &mut Statuses, told: &policy::Notes, touched: &Touched) {
        for (name, gateway) in self.gateways.iter().filter(|(name, _)| touched.gateways.contains(name)) {
            let mut draft = gateway.draft(&self.tally.attached);
            self.governing.affect_gateway(name, &mut draft);
            let draft = reuse(statuses.gateways.get(name), Arc::new(draft));
            statuses.gateways.insert(name.clone(), draft);
            for set in &gateway.sets {
                let mut draft = set.draft(&self.tally.attached);
                self.governing.affect_set(&set.name, &mut draft);
                let draft = reuse(statuses.listener_sets.get(&set.name), Arc::new(draft));
                statuses.listener_sets.insert(set.name.clone(), draft);
            }
        }
        for id in &touched.routes {
            let Some(remembered) = self.tally.get(id) else {
                statuses.routes.remove(id);
                continue;
            };
            let mut draft = remembered.translated.draft.clone();
            self.governing.affect_route(id, &mut draft);
            statuses.routes.insert(id.clone(), reuse(statuses.routes.get(id), draft));
        }
        let drafts = self.governing.drafts(&self.views, &self.tally, told).into_iter();
        let users = self.tally.users();
        let drafts = drafts.chain(self.policies.drafts(&users)).chain(self.destinations.drafts(&users));
        let drafts = drafts.map(|(id, draft)| {
            let same = reuse(statuses.policies.get(&id), draft);
            (id, same)
        });
        statuses.policies = drafts.collect();
        statuses.services = self.governing.affected_services();
    }

    /// Backends with the policies that they have. What became of policies, where not only routes have a say in it.
    fn govern(&self, cluster: &Cluster, backends: &mut Sorted<BackendId, Backend>) -> Option<policy::Notes> {
        let before = std::mem::replace(backends, self.tally.backends.clone());
        let told = (!cluster.circuit_breaker_policies.is_empty()).then(|| {
            let mut told = self.tally.told.clone();
            policy::govern(&self.around(cluster), self.tally.translated(), backends, &mut told);
            told
        });
        let mut only_routes = told.is_none();
        for backend in self.gateways.iter().flat_map(|(_, gateway)| &gateway.backends) {
            backends.or_insert_with(&backend.id, || backend.clone());
            only_routes = false;
        }
        if !only_routes {
            for (id, old) in &before {
                let Some(new) = backends.get(id) else { continue };
                if !Arc::ptr_eq(old, new) && old == new {
                    backends.insert(id.clone(), old.clone());
                }
            }
        }
        told
    }

    /// Judges policies anew. Returns the targets that have others now.
    fn judge(&mut self, cluster: &Cluster) -> BTreeSet<Id> {
        let now = policy::Policies::of(cluster, self.settings.mode, &self.governing);
        let before = std::mem::replace(&mut self.governing, now);
        self.governing.retargeted(&before)
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

    /// Translates routes that have others to look at: all such, or those of `only`.
    fn refresh(&mut self, cluster: &Cluster, only: Option<&BTreeSet<Id>>, touched: &mut Touched) {
        let mut tally = std::mem::take(&mut self.tally);
        let mut refresh = Refresh { around: self.around(cluster), only, tally: &mut tally, touched };
        refresh.of(&cluster.http_routes, http_route::translate);
        refresh.of(&cluster.grpc_routes, grpc_route::translate);
        refresh.of(&cluster.tls_routes, |lookup, name, route| {
            stream_route::translate(RouteKind::Tls, lookup, name, route)
        });
        refresh.of(&cluster.tcp_routes, |lookup, name, route| {
            stream_route::translate(RouteKind::Tcp, lookup, name, route)
        });
        refresh.of(&cluster.udp_routes, |lookup, name, route| {
            stream_route::translate(RouteKind::Udp, lookup, name, route)
        });
        self.tally = tally;
    }

    fn renew_endpoints(
        &mut self,
        cluster: &Cluster,
        id: &BackendId,
        endpoints: &mut Sorted<BackendId, EndpointSet>,
    ) {
        let before = endpoints.get(id);
        let set = reuse(before, self.endpoints.get(cluster, self.settings.mode, id));
        if !before.is_some_and(|before| Arc::ptr_eq(before, &set)) {
            endpoints.insert(id.clone(), set);
        }
    }

    /// The endpoints of Services and external hosts, when only their EndpointSlices and addresses changed: the same as a whole
    /// translation would have them.
    pub fn endpoints(
        &mut self,
        cluster: &Cluster,
        services: &BTreeSet<ObjectName>,
        hosts: &BTreeSet<Text>,
    ) -> Vec<(BackendId, Arc<EndpointSet>)> {
        let ids = self.moved(services, hosts);
        let mode = self.settings.mode;
        let swapped: Vec<_> =
            ids.into_iter().map(|id| (id.clone(), self.endpoints.get(cluster, mode, &id))).collect();
        if let Some(made) = &mut self.made {
            made.model.endpoints.extend(swapped.iter().cloned());
        }
        swapped
    }

    /// The backends whose endpoints are those of Services and external hosts.
    fn moved(&self, services: &BTreeSet<ObjectName>, hosts: &BTreeSet<Text>) -> Vec<BackendId> {
        let of_services = services.iter().flat_map(|service| self.endpoints.of_service(service));
        of_services.chain(self.endpoints.of_hosts(hosts)).collect()
    }

    fn evaluate(
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
                let view = reuse(self.views.get(&name), Arc::new(view));
                views.insert(name, view);
            }
        }
        self.views = views;
        evaluated
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

/// Whether both have the very same parts.
fn are_same<K: PartialEq, V>(a: &BTreeMap<K, Arc<V>>, b: &BTreeMap<K, Arc<V>>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && Arc::ptr_eq(a, b))
}

/// The part that was there before, when it says the same: so that who compares by pointer sees that nothing changed.
fn reuse<V: PartialEq + ?Sized>(before: Option<&Arc<V>>, new: Arc<V>) -> Arc<V> {
    match before {
        Some(before) if *before == new => before.clone(),
        _ => new,
    }
}
