//! What exists: every object that matters, as a source last reported it.
//!
//! Owned by one task, so there is no lock. [`Cluster::apply`] takes a [`Change`] and tells by its [`Effect`] what has to be
//! done about it, which for most changes (heartbeats, our own status writes) is nothing. Objects are behind `Arc`s that
//! change only when the object does: translation tells by pointer what it has seen before. What there are thousands of is
//! [`Packed`].

mod object;
mod packed;
mod trim;

pub use object::{Kept, Kind, Object, Watched, name_of};
pub use packed::{Body, Pack, Packed};
pub(crate) use trim::LAST_APPLIED;
pub use trim::{API_KEYS, OIDC, REDIS};

use crate::api::policy::{Policy, PolicyStatus};
use crate::api::route::RouteStatus;
use crate::api::{
    BackendTlsPolicy, Gateway, GatewayClass, GrpcRoute, HttpRoute, ListenerSet, ReferenceGrant, TcpRoute,
    TlsRoute, UdpRoute, XBackend, XBackendTrafficPolicy,
};
use headgate_crds::{AuthPolicy, CircuitBreakerPolicy, ClientPolicy, GatewayParameters, RateLimitPolicy};
use headgate_proxy::model::{ObjectName, Text};
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Objects of one kind as they are kept. Those without a namespace have an empty one.
pub type Store<T> = BTreeMap<ObjectName, Arc<T>>;

/// What a source reports.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is new or different.
    Upsert(Object),
    /// An object is gone.
    Delete(Kind, ObjectName),
    /// All objects of a kind, and those that can't be read with the reason why: others are gone. The first of these
    /// completes the kind (see [`Cluster::is_complete`]).
    Replace {
        /// The kind.
        kind: Kind,
        /// Its objects.
        objects: Vec<Object>,
        /// What can't be read: the last version that could stays.
        undecodable: Vec<(ObjectName, String)>,
    },
    /// An object is new or different, and can't be read: the last version that could stays.
    Undecodable(Kind, ObjectName, String),
    /// The addresses of a host that an XBackend names are known, or others; none: nobody names it any more.
    Host(Text, Option<Arc<[IpAddr]>>),
}

/// What has to be done about changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The model or a status may be different, nobody knows where: translate.
    pub routing: bool,
    /// Services and Namespaces that are: what routes look up by name.
    pub named: BTreeSet<(Kind, ObjectName)>,
    /// Routes that are different, new or gone: translate those.
    pub routes: BTreeSet<(Kind, ObjectName)>,
    /// Services whose endpoints may be different.
    pub endpoints: BTreeSet<ObjectName>,
    /// External hosts whose addresses may be different.
    pub hosts: BTreeSet<Text>,
    /// The status of these may be different: see that it still is what we say.
    pub status: BTreeSet<(Kind, ObjectName)>,
    /// Our own pods, or where they run, are different.
    pub infrastructure: bool,
}

impl Effect {
    /// Adds another change's effect.
    pub fn merge(&mut self, other: Self) {
        self.routing |= other.routing;
        self.infrastructure |= other.infrastructure;
        self.named.extend(other.named);
        self.routes.extend(other.routes);
        self.endpoints.extend(other.endpoints);
        self.hosts.extend(other.hosts);
        self.status.extend(other.status);
    }

    /// Whether there is nothing to do.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What exists.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "one store per kind, named like it")]
pub struct Cluster {
    pub gateway_classes: Store<GatewayClass>,
    pub gateways: Store<Gateway>,
    pub listener_sets: Store<ListenerSet>,
    pub http_routes: Store<Packed<HttpRoute>>,
    pub grpc_routes: Store<Packed<GrpcRoute>>,
    pub tls_routes: Store<Packed<TlsRoute>>,
    pub tcp_routes: Store<Packed<TcpRoute>>,
    pub udp_routes: Store<Packed<UdpRoute>>,
    pub backend_tls_policies: Store<BackendTlsPolicy>,
    pub x_backends: Store<XBackend>,
    pub x_backend_traffic_policies: Store<XBackendTrafficPolicy>,
    pub rate_limit_policies: Store<RateLimitPolicy>,
    pub circuit_breaker_policies: Store<CircuitBreakerPolicy>,
    pub auth_policies: Store<AuthPolicy>,
    pub client_policies: Store<ClientPolicy>,
    pub reference_grants: Store<ReferenceGrant>,
    pub namespaces: Store<Namespace>,
    pub services: Store<Service>,
    pub endpoint_slices: Store<Packed<EndpointSlice>>,
    pub secrets: Store<Secret>,
    pub config_maps: Store<ConfigMap>,
    pub cluster_trust_bundles: Store<ClusterTrustBundle>,
    pub gateway_parameters: Store<GatewayParameters>,
    /// Headgate's own pods.
    pub pods: Store<Pod>,
    pub nodes: Store<Node>,
    /// Objects whose newest version can't be read, and why.
    pub undecodable: BTreeMap<(Kind, ObjectName), String>,
    /// Addresses of the hosts that XBackends name, as far as they are known.
    pub hosts: BTreeMap<Text, Arc<[IpAddr]>>,
    /// Sorted.
    slices_by_service: BTreeMap<ObjectName, Vec<ObjectName>>,
    complete: HashSet<Kind>,
}

/// Fills the nodes of a tree: they are half empty when its keys came in order.
pub(crate) fn pack<K: Ord, V>(tree: &mut BTreeMap<K, V>) {
    *tree = std::mem::take(tree).into_iter().collect();
}

impl Cluster {
    /// Takes note of a change.
    pub fn apply(&mut self, change: Change) -> Effect {
        match change {
            Change::Upsert(object) => self.upsert(object),
            Change::Delete(kind, name) => self.delete(kind, &name),
            Change::Undecodable(kind, name, why) => self.note_undecodable(kind, name, why),
            Change::Host(host, addresses) => {
                match addresses {
                    Some(addresses) => self.hosts.insert(host.clone(), addresses),
                    None => self.hosts.remove(&host),
                };
                Effect { hosts: [host].into(), ..Effect::default() }
            }
            Change::Replace { kind, objects, undecodable } => {
                let mut gone: BTreeSet<ObjectName> = self.names(kind).collect();
                gone.extend(
                    self.undecodable.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.clone()),
                );
                let mut effect = Effect { routing: self.complete.insert(kind), ..Effect::default() };
                for object in objects {
                    gone.remove(&object.name());
                    effect.merge(self.upsert(object));
                }
                for (name, why) in undecodable {
                    gone.remove(&name);
                    effect.merge(self.note_undecodable(kind, name, why));
                }
                for name in gone {
                    effect.merge(self.delete(kind, &name));
                }
                self.pack(kind);
                effect
            }
        }
    }

    /// Has the objects of a kind take little room after a list, where there may be thousands.
    fn pack(&mut self, kind: Kind) {
        if kind == Kind::HttpRoute {
            pack(&mut self.http_routes);
        } else if kind == Kind::GrpcRoute {
            pack(&mut self.grpc_routes);
        } else if kind == Kind::Service {
            pack(&mut self.services);
        } else if kind == Kind::EndpointSlice {
            pack(&mut self.endpoint_slices);
        }
    }

    /// Whether every one of these kinds has been reported in full once. Before that, what is missing may only be late.
    pub fn is_complete(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| self.complete.contains(kind))
    }

    /// The EndpointSlices of a Service.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Arc<Packed<EndpointSlice>>> {
        let names = self.slices_by_service.get(service).into_iter().flatten();
        names.filter_map(|name| self.endpoint_slices.get(name))
    }

    /// The status that a route has; `None` for kinds that aren't routes, too.
    pub fn route_status(&self, kind: Kind, name: &ObjectName) -> Option<RouteStatus> {
        fn of<K: Pack>(store: &Store<Packed<K>>, name: &ObjectName) -> Option<RouteStatus> {
            store.get(name)?.status()
        }
        match kind {
            Kind::HttpRoute => of(&self.http_routes, name),
            Kind::GrpcRoute => of(&self.grpc_routes, name),
            Kind::TlsRoute => of(&self.tls_routes, name),
            Kind::TcpRoute => of(&self.tcp_routes, name),
            Kind::UdpRoute => of(&self.udp_routes, name),
            Kind::GatewayClass
            | Kind::Gateway
            | Kind::ListenerSet
            | Kind::BackendTlsPolicy
            | Kind::RateLimitPolicy
            | Kind::CircuitBreakerPolicy
            | Kind::AuthPolicy
            | Kind::XBackend
            | Kind::XBackendTrafficPolicy
            | Kind::ClientPolicy
            | Kind::ReferenceGrant
            | Kind::Namespace
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::Secret
            | Kind::ConfigMap
            | Kind::ClusterTrustBundle
            | Kind::GatewayParameters
            | Kind::Pod
            | Kind::Node => None,
        }
    }

    /// The status that a policy or an XBackend has; `None` for other kinds, too.
    pub fn policy_status(&self, kind: Kind, name: &ObjectName) -> Option<PolicyStatus> {
        fn of<K: Policy>(store: &Store<K>, name: &ObjectName) -> Option<PolicyStatus> {
            store.get(name)?.policy_status()
        }
        match kind {
            Kind::BackendTlsPolicy => of(&self.backend_tls_policies, name),
            Kind::RateLimitPolicy => of(&self.rate_limit_policies, name),
            Kind::CircuitBreakerPolicy => of(&self.circuit_breaker_policies, name),
            Kind::AuthPolicy => of(&self.auth_policies, name),
            Kind::XBackend => of(&self.x_backends, name),
            Kind::XBackendTrafficPolicy => of(&self.x_backend_traffic_policies, name),
            Kind::ClientPolicy => of(&self.client_policies, name),
            Kind::GatewayClass
            | Kind::Gateway
            | Kind::ListenerSet
            | Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TlsRoute
            | Kind::TcpRoute
            | Kind::UdpRoute
            | Kind::ReferenceGrant
            | Kind::Namespace
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::Secret
            | Kind::ConfigMap
            | Kind::ClusterTrustBundle
            | Kind::GatewayParameters
            | Kind::Pod
            | Kind::Node => None,
        }
    }

    fn note_undecodable(&mut self, kind: Kind, name: ObjectName, why: String) -> Effect {
        let known = self.undecodable.insert((kind, name), why.clone());
        Effect { routing: known.as_ref() != Some(&why), ..Effect::default() }
    }

    fn unlink_slice(&mut self, slice: &Packed<EndpointSlice>) {
        if let Some(service) = service_of(&slice.unpack())
            && let Some(slices) = self.slices_by_service.get_mut(&service)
        {
            slices.retain(|name| *name != slice.name());
            if slices.is_empty() {
                self.slices_by_service.remove(&service);
            }
        }
    }

    fn link_slice(&mut self, slice: &Packed<EndpointSlice>) {
        if let Some(service) = service_of(&slice.unpack()) {
            let slices = self.slices_by_service.entry(service).or_default();
            if let Err(at) = slices.binary_search(&slice.name()) {
                // Most Services have one.
                slices.reserve_exact(1);
                slices.insert(at, slice.name());
            }
        }
    }
}

/// The Service that an EndpointSlice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<ObjectName> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectName::new(slice.metadata.namespace.as_deref().unwrap_or_default(), service.as_str()))
}

#[cfg(test)]
mod tests;
