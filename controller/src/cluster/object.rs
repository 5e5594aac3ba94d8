//! The kinds that are watched: one line in [`kinds!`] each.
//!
//! A kind says where its objects are kept, what is dropped before they are ([`super::trim`]), and what a change of one
//! has for an effect.

use super::{Cluster, Effect, service_of, trim};
use crate::api::{
    BackendTlsPolicy, Gateway, GatewayClass, GrpcRoute, HttpRoute, ListenerSet, ReferenceGrant, TcpRoute,
    TlsRoute, UdpRoute, XBackend, XBackendTrafficPolicy,
};
use headgate_crds::{AuthPolicy, CircuitBreakerPolicy, ClientPolicy, GatewayParameters, RateLimitPolicy};
use headgate_proxy::model::{BackendKind, ObjectName};
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::ApiResource;
use std::fmt;
use std::sync::Arc;

/// A kind that is watched.
pub trait Watched:
    Resource<DynamicType = ()> + Clone + PartialEq + fmt::Debug + Send + Sync + 'static
{
    /// Which one.
    const KIND: Kind;

    /// Wraps an object.
    fn wrap(self: Arc<Self>) -> Object;

    /// Drops what nobody needs, so that it isn't kept.
    fn trim(&mut self);

    /// What it means that this object is new or gone (`before` is `None`), or was different `before`.
    fn effect(&self, before: Option<&Self>) -> Effect;
}

/// Namespace and name of an object; without a namespace, that is empty.
pub fn name_of(object: &impl Resource) -> ObjectName {
    let meta = object.meta();
    ObjectName::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

macro_rules! kinds {
    ($($kind:ident $name:literal in $store:ident: $effect:ident;)*) => {
        /// Kinds that are watched.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = concat!("`", $name, "`")] $kind,)*
        }

        impl Kind {
            /// Each once.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// As YAML has it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }

        /// An object of any kind that is watched.
        #[derive(Clone, Debug)]
        pub enum Object {
            $(#[doc = concat!("`", $name, "`")] $kind(Arc<$kind>),)*
        }

        impl Object {
            /// Namespace and name.
            pub fn name(&self) -> ObjectName {
                match self {
                    $(Self::$kind(object) => name_of(&**object),)*
                }
            }

            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            /// Its metadata.
            pub fn meta(&self) -> &ObjectMeta {
                match self {
                    $(Self::$kind(object) => object.meta(),)*
                }
            }

            /// Whether it is the very same object, not one like it.
            pub fn is(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$kind(object), Self::$kind(other)) => Arc::ptr_eq(object, other),)*
                    _ => false,
                }
            }
        }

        $(
            impl Watched for $kind {
                const KIND: Kind = Kind::$kind;

                fn wrap(self: Arc<Self>) -> Object {
                    Object::$kind(self)
                }

                fn trim(&mut self) {
                    trim::metadata(self.meta_mut());
                    trim::Trim::trim(self);
                }

                fn effect(&self, before: Option<&Self>) -> Effect {
                    $effect(self, before)
                }
            }
        )*

        impl Cluster {
            pub(super) fn upsert(&mut self, object: Object) -> Effect {
                let name = object.name();
                let mut effect = Effect::default();
                effect.routing |= self.undecodable.remove(&(object.kind(), name.clone())).is_some();
                match object {
                    $(Object::$kind(object) => {
                        let mut new = Arc::unwrap_or_clone(object);
                        Watched::trim(&mut new);
                        let before = self.$store.get(&name).cloned();
                        if let Some(before) = before.as_deref() && same(before, &new) {
                            // A status is written on top of the newest version, whatever is new in it.
                            if before.meta().resource_version != new.meta().resource_version {
                                // So that a write that came too late is made up for.
                                effect.status.extend(new.effect(Some(before)).status);
                                self.$store.insert(name, Arc::new(new));
                            }
                            return effect;
                        }
                        effect.merge(new.effect(before.as_deref()));
                        if let Some(before) = before {
                            Linked::unlink(&*before, self);
                        }
                        Linked::link(&new, self);
                        self.$store.insert(name, Arc::new(new));
                    })*
                }
                effect
            }

            pub(super) fn delete(&mut self, kind: Kind, name: &ObjectName) -> Effect {
                let mut effect = Effect::default();
                effect.routing |= self.undecodable.remove(&(kind, name.clone())).is_some();
                match kind {
                    $(Kind::$kind => if let Some(object) = self.$store.remove(name) {
                        Linked::unlink(&*object, self);
                        effect.merge(object.effect(None));
                    })*
                }
                effect
            }

            /// The names of all objects of a kind.
            pub fn names(&self, kind: Kind) -> Box<dyn Iterator<Item = ObjectName> + '_> {
                match kind {
                    $(Kind::$kind => Box::new(self.$store.keys().cloned()),)*
                }
            }

            /// An object of any kind.
            pub fn object(&self, kind: Kind, name: &ObjectName) -> Option<Object> {
                match kind {
                    $(Kind::$kind => self.$store.get(name).cloned().map(Object::$kind),)*
                }
            }
        }
    };
}

kinds! {
    GatewayClass "GatewayClass" in gateway_classes: by_generation;
    Gateway "Gateway" in gateways: by_generation;
    ListenerSet "ListenerSet" in listener_sets: by_generation;
    HttpRoute "HTTPRoute" in http_routes: by_route;
    GrpcRoute "GRPCRoute" in grpc_routes: by_route;
    TlsRoute "TLSRoute" in tls_routes: by_route;
    TcpRoute "TCPRoute" in tcp_routes: by_route;
    UdpRoute "UDPRoute" in udp_routes: by_route;
    BackendTlsPolicy "BackendTLSPolicy" in backend_tls_policies: by_generation;
    RateLimitPolicy "RateLimitPolicy" in rate_limit_policies: by_generation;
    CircuitBreakerPolicy "CircuitBreakerPolicy" in circuit_breaker_policies: by_generation;
    AuthPolicy "AuthPolicy" in auth_policies: by_generation;
    XBackend "XBackend" in x_backends: by_generation;
    XBackendTrafficPolicy "XBackendTrafficPolicy" in x_backend_traffic_policies: by_generation;
    ClientPolicy "ClientPolicy" in client_policies: by_generation;
    ReferenceGrant "ReferenceGrant" in reference_grants: routing;
    Namespace "Namespace" in namespaces: routing;
    Service "Service" in services: routing;
    EndpointSlice "EndpointSlice" in endpoint_slices: endpoints;
    Secret "Secret" in secrets: routing;
    ConfigMap "ConfigMap" in config_maps: routing;
    ClusterTrustBundle "ClusterTrustBundle" in cluster_trust_bundles: routing;
    GatewayParameters "GatewayParameters" in gateway_parameters: routing;
    Pod "Pod" in pods: infrastructure;
    Node "Node" in nodes: infrastructure;
}

impl Kind {
    /// Group and version, as YAML has them.
    pub fn api_version(self) -> String {
        let ApiResource { api_version, .. } = crate::writer::resource(self);
        api_version
    }
}

impl From<BackendKind> for Kind {
    fn from(kind: BackendKind) -> Self {
        match kind {
            BackendKind::Service => Self::Service,
            BackendKind::XBackend => Self::XBackend,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether two versions of an object say the same.
fn same<K: Watched>(before: &K, new: &K) -> bool {
    if before.meta().resource_version.is_some()
        && before.meta().resource_version == new.meta().resource_version
    {
        return before.meta().uid == new.meta().uid;
    }
    let mut before = before.clone();
    before.meta_mut().resource_version.clone_from(&new.meta().resource_version);
    before == *new
}

fn routing<K>(_: &K, _: Option<&K>) -> Effect {
    Effect { routing: true, ..Effect::default() }
}

fn infrastructure<K>(_: &K, _: Option<&K>) -> Effect {
    Effect { infrastructure: true, ..Effect::default() }
}

/// Of kinds whose status we write: a change that isn't of the specification is only looked at.
fn by_generation<K: Watched>(new: &K, before: Option<&K>) -> Effect {
    Effect {
        routing: is_specified(new, before),
        status: [(K::KIND, name_of(new))].into(),
        ..Effect::default()
    }
}

/// The same of routes, whose changes are their own.
fn by_route<K: Watched>(new: &K, before: Option<&K>) -> Effect {
    let id = (K::KIND, name_of(new));
    let routes = is_specified(new, before).then(|| id.clone()).into_iter().collect();
    Effect { routes, status: [id].into(), ..Effect::default() }
}

/// Whether a change is one of what somebody wants, not only of a status.
fn is_specified<K: Watched>(new: &K, before: Option<&K>) -> bool {
    let said = |object: &K| {
        let meta = object.meta();
        let stays = (meta.uid.clone(), meta.generation, meta.deletion_timestamp.clone());
        (stays, meta.labels.clone(), meta.annotations.clone())
    };
    // Without a generation nothing tells the parts apart.
    !before.is_some_and(|before| new.meta().generation.is_some() && said(before) == said(new))
}

fn endpoints(new: &EndpointSlice, before: Option<&EndpointSlice>) -> Effect {
    let endpoints = [service_of(new), before.and_then(service_of)].into_iter().flatten().collect();
    Effect { endpoints, ..Effect::default() }
}

/// Kinds that are found by more than their name.
trait Linked {
    fn link(&self, _: &mut Cluster) {}
    fn unlink(&self, _: &mut Cluster) {}
}

impl Linked for EndpointSlice {
    fn link(&self, cluster: &mut Cluster) {
        cluster.link_slice(self);
    }

    fn unlink(&self, cluster: &mut Cluster) {
        cluster.unlink_slice(self);
    }
}

macro_rules! found_by_name {
    ($($kind:ident)*) => { $(impl Linked for $kind {})* };
}

found_by_name! {
    GatewayClass Gateway ListenerSet HttpRoute GrpcRoute TlsRoute TcpRoute UdpRoute BackendTlsPolicy ReferenceGrant
    Namespace Service Secret ConfigMap ClusterTrustBundle GatewayParameters Pod Node
    RateLimitPolicy CircuitBreakerPolicy AuthPolicy ClientPolicy XBackend XBackendTrafficPolicy
}
