//! The kinds that are watched: one line in [`kinds!`] each.
//!
//! A kind says where and how its objects are kept ([`Packed`] or as they are), what is dropped before they are
//! ([`super::trim`]), and what a change of one has for an effect.

use super::packed::{Pack, Packed};
use super::{Cluster, Effect, Store, service_of, trim};
use crate::api::{
    BackendTlsPolicy, Gateway, GatewayClass, GrpcRoute, HttpRoute, ListenerSet, ReferenceGrant, TcpRoute,
    TlsRoute, UdpRoute, XBackend, XBackendTrafficPolicy,
};
use headgate_crds::{AuthPolicy, CircuitBreakerPolicy, ClientPolicy, GatewayParameters, RateLimitPolicy};
use headgate_proxy::model::{BackendKind, ObjectName};
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use kube::core::ApiResource;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::Arc;

/// A kind that is watched.
pub trait Watched:
    Resource<DynamicType = ()> + DeserializeOwned + Clone + PartialEq + fmt::Debug + Send + Sync + 'static
{
    /// Which one.
    const KIND: Kind;

    /// How an object is kept: as it is, or [`Packed`].
    type Kept: Kept;

    /// Makes an object of it that may be kept: without what nobody needs.
    fn wrap(self) -> Object;

    /// An object that is kept, of any kind.
    fn any(kept: Arc<Self::Kept>) -> Object;
}

/// An object as it is kept.
pub trait Kept: Clone + fmt::Debug + Send + Sync {
    /// Namespace and name.
    fn name(&self) -> ObjectName;

    /// Its version, if it has one.
    fn version(&self) -> Option<&str>;

    /// Whether it says the same as another version.
    fn is_like(&self, before: &Self) -> bool;

    /// Takes the parts of a version before that are the same.
    fn share(self: &mut Arc<Self>, _before: &Self) {}

    /// Takes its name from where it is kept already.
    fn take_name(self: &mut Arc<Self>, _name: &ObjectName) {}
}

impl<K: Watched> Kept for K {
    fn name(&self) -> ObjectName {
        name_of(self)
    }

    fn version(&self) -> Option<&str> {
        self.meta().resource_version.as_deref()
    }

    fn is_like(&self, before: &Self) -> bool {
        same(before, self)
    }
}

/// Namespace and name of an object; without a namespace, that is empty.
pub fn name_of(object: &impl Resource) -> ObjectName {
    let meta = object.meta();
    ObjectName::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// A name with the texts that are there already: each version of an object brings its own, and thousands share a namespace.
fn kept_name<K>(store: &Store<K>, name: ObjectName) -> ObjectName {
    match store.range(..=&name).next_back() {
        Some((known, _)) if *known == name => known.clone(),
        Some((neighbour, _)) if neighbour.namespace == name.namespace => {
            ObjectName { namespace: neighbour.namespace.clone(), ..name }
        }
        Some(_) | None => name,
    }
}

/// Without a place in a text that nobody but us has seen.
fn why(error: serde_json::Error) -> String {
    let why = error.to_string();
    why.rsplit_once(" at line ").map_or(why.as_str(), |(why, _)| why).to_owned()
}

macro_rules! kinds {
    ($($kind:ident $name:literal in $store:ident as $kept:ty: $effect:ident;)*) => {
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

            /// An object of this kind from its JSON, without what nobody needs.
            ///
            /// # Errors
            /// The JSON isn't as the kind's type wants it; what it wants instead.
            pub fn decode(self, json: &[u8]) -> Result<Object, String> {
                match self {
                    $(Self::$kind => serde_json::from_slice::<$kind>(json).map(Watched::wrap).map_err(why),)*
                }
            }
        }

        /// An object of any kind that is watched.
        #[derive(Clone, Debug)]
        pub enum Object {
            $(#[doc = concat!("`", $name, "`")] $kind(Arc<$kept>),)*
        }

        impl Object {
            /// Namespace and name.
            pub fn name(&self) -> ObjectName {
                match self {
                    $(Self::$kind(object) => Kept::name(&**object),)*
                }
            }

            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            /// Its version, if it has one.
            pub fn resource_version(&self) -> Option<&str> {
                match self {
                    $(Self::$kind(object) => Kept::version(&**object),)*
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

                type Kept = $kept;

                fn wrap(mut self) -> Object {
                    trim::metadata(self.meta_mut());
                    trim::Trim::trim(&mut self);
                    Self::any(Arc::new(<$kept>::from(self)))
                }

                fn any(kept: Arc<$kept>) -> Object {
                    Object::$kind(kept)
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
                        let name = kept_name(&self.$store, name);
                        let before = self.$store.get(&name).cloned();
                        let mut new = object;
                        Kept::take_name(&mut new, &name);
                        if let Some(before) = &before {
                            if new.is_like(before) {
                                // A status is written on top of the newest version, whatever is new in it.
                                if before.version() != new.version() {
                                    // So that a write that came too late is made up for.
                                    effect.status.extend($effect(&*new, Some(&**before)).status);
                                    Kept::share(&mut new, before);
                                    self.$store.insert(name, new);
                                }
                                return effect;
                            }
                            Kept::share(&mut new, before);
                        }
                        effect.merge($effect(&*new, before.as_deref()));
                        if let Some(before) = before {
                            Linked::unlink(&*before, self);
                        }
                        Linked::link(&*new, self);
                        self.$store.insert(name, new);
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
                        effect.merge($effect(&*object, None));
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
    GatewayClass "GatewayClass" in gateway_classes as GatewayClass: by_generation;
    Gateway "Gateway" in gateways as Gateway: by_generation;
    ListenerSet "ListenerSet" in listener_sets as ListenerSet: by_generation;
    HttpRoute "HTTPRoute" in http_routes as Packed<HttpRoute>: by_route;
    GrpcRoute "GRPCRoute" in grpc_routes as Packed<GrpcRoute>: by_route;
    TlsRoute "TLSRoute" in tls_routes as Packed<TlsRoute>: by_route;
    TcpRoute "TCPRoute" in tcp_routes as Packed<TcpRoute>: by_route;
    UdpRoute "UDPRoute" in udp_routes as Packed<UdpRoute>: by_route;
    BackendTlsPolicy "BackendTLSPolicy" in backend_tls_policies as BackendTlsPolicy: by_generation;
    RateLimitPolicy "RateLimitPolicy" in rate_limit_policies as RateLimitPolicy: by_generation;
    CircuitBreakerPolicy "CircuitBreakerPolicy" in circuit_breaker_policies as CircuitBreakerPolicy: by_generation;
    AuthPolicy "AuthPolicy" in auth_policies as AuthPolicy: by_generation;
    XBackend "XBackend" in x_backends as XBackend: by_generation;
    XBackendTrafficPolicy "XBackendTrafficPolicy" in x_backend_traffic_policies as XBackendTrafficPolicy: by_generation;
    ClientPolicy "ClientPolicy" in client_policies as ClientPolicy: by_generation;
    ReferenceGrant "ReferenceGrant" in reference_grants as ReferenceGrant: routing;
    Namespace "Namespace" in namespaces as Namespace: named;
    Service "Service" in services as Service: service;
    EndpointSlice "EndpointSlice" in endpoint_slices as Packed<EndpointSlice>: endpoints;
    Secret "Secret" in secrets as Secret: routing;
    ConfigMap "ConfigMap" in config_maps as ConfigMap: routing;
    ClusterTrustBundle "ClusterTrustBundle" in cluster_trust_bundles as ClusterTrustBundle: routing;
    GatewayParameters "GatewayParameters" in gateway_parameters as GatewayParameters: routing;
    Pod "Pod" in pods as Pod: infrastructure;
    Node "Node" in nodes as Node: infrastructure;
}

impl Kind {
    /// Whether it is a kind of route.
    pub fn is_route(self) -> bool {
        matches!(self, Self::HttpRoute | Self::GrpcRoute | Self::TlsRoute | Self::TcpRoute | Self::UdpRoute)
    }

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

/// Of kinds that routes look up by name.
fn named<K: Watched>(new: &K, _: Option<&K>) -> Effect {
    Effect { routing: true, named: [(K::KIND, name_of(new))].into(), ..Effect::default() }
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

/// Of Services, whose conditions we write: nothing but a comparison tells those from the rest.
fn service(new: &Service, before: Option<&Service>) -> Effect {
    let said = |service: &Service| {
        let mut said = service.clone();
        said.metadata.resource_version = None;
        if let Some(status) = &mut said.status {
            status.conditions = None;
        }
        said
    };
    let effect = match before {
        Some(before) if said(before) == said(new) => Effect::default(),
        Some(_) | None => named(new, before),
    };
    Effect { status: [(Kind::Service, name_of(new))].into(), ..effect }
}

/// The same of routes, whose changes are their own.
fn by_route<K: Pack>(new: &Packed<K>, before: Option<&Packed<K>>) -> Effect {
    let id = (K::KIND, new.name());
    let routes = (!before.is_some_and(|before| new.says(before))).then(|| id.clone()).into_iter().collect();
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

fn endpoints(new: &Packed<EndpointSlice>, before: Option<&Packed<EndpointSlice>>) -> Effect {
    let services = [Some(new), before].into_iter().flatten().filter_map(|slice| service_of(&slice.unpack()));
    Effect { endpoints: services.collect(), ..Effect::default() }
}

/// Kinds that are found by more than their name.
trait Linked {
    fn link(&self, _: &mut Cluster) {}
    fn unlink(&self, _: &mut Cluster) {}
}

impl Linked for Packed<EndpointSlice> {
    fn link(&self, cluster: &mut Cluster) {
        cluster.link_slice(self);
    }

    fn unlink(&self, cluster: &mut Cluster) {
        cluster.unlink_slice(self);
    }
}

impl Pack for EndpointSlice {}

macro_rules! found_by_name {
    ($($kept:ty)*) => { $(impl Linked for $kept {})* };
}

found_by_name! {
    GatewayClass Gateway ListenerSet BackendTlsPolicy ReferenceGrant
    Packed<HttpRoute> Packed<GrpcRoute> Packed<TlsRoute> Packed<TcpRoute> Packed<UdpRoute>
    Namespace Service Secret ConfigMap ClusterTrustBundle GatewayParameters Pod Node
    RateLimitPolicy CircuitBreakerPolicy AuthPolicy ClientPolicy XBackend XBackendTrafficPolicy
}
