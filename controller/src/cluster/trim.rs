//! What isn't kept of objects, because nobody reads it: most of a cluster's bytes, and all of its other secrets.

use super::SERVICE_NAME;
use crate::api::{
    BackendTlsPolicy, Gateway, GatewayClass, GrpcRoute, HttpRoute, ListenerSet, ReferenceGrant, TcpRoute,
    TlsRoute, UdpRoute, XBackend, XBackendTrafficPolicy,
};
use crate::infra::CONTROLLER;
use headgate_crds::{AuthPolicy, CircuitBreakerPolicy, ClientPolicy, GatewayParameters, RateLimitPolicy};
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, ObjectReference, Pod, PodSpec, PodStatus, Secret, Service, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// What `kubectl apply` notes down: the whole object once more.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Entries of Secrets that are read.
const SECRET_ENTRIES: [&str; 7] =
    [".htpasswd", "auth", "ca.crt", "jwks", "tls.crt", "tls.key", "tls.ocsp-staple"];
/// Entries of ConfigMaps that are read.
const CONFIG_MAP_ENTRIES: [&str; 2] = ["ca.crt", "jwks"];
/// The type of Secrets whose entries are all read: each is a consumer's key. What isn't of that type can't be tried out as
/// keys by whoever may write a policy, but not read Secrets.
pub const API_KEYS: &str = "headgate.dev/api-keys";
/// The type of Secrets that have a password for Redis: for the same reason no other is sent there.
pub const REDIS: &str = "headgate.dev/redis";
/// The type of Secrets that say who we are to an OpenID provider: for the same reason.
pub const OIDC: &str = "headgate.dev/oidc";

/// Drops what isn't read of any kind.
pub(super) fn metadata(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            meta.annotations = None;
        }
    }
}

/// Drops what isn't read of one kind.
pub(super) trait Trim {
    fn trim(&mut self) {}
}

impl Trim for GatewayClass {}
impl Trim for Gateway {}
impl Trim for ListenerSet {}
impl Trim for BackendTlsPolicy {}
impl Trim for RateLimitPolicy {}
impl Trim for CircuitBreakerPolicy {}
impl Trim for AuthPolicy {}
impl Trim for XBackend {}
impl Trim for XBackendTrafficPolicy {}
impl Trim for ClientPolicy {}
impl Trim for ReferenceGrant {}
impl Trim for GatewayParameters {}
impl Trim for ClusterTrustBundle {}

macro_rules! routes {
    ($($kind:ty)*) => {
        $(
            impl Trim for $kind {
                fn trim(&mut self) {
                    self.metadata = essential(&mut self.metadata);
                }
            }
        )*
    };
}

routes!(HttpRoute GrpcRoute TlsRoute TcpRoute UdpRoute);

/// Who an object is, how old it is, and its versions.
fn essential(meta: &mut ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: meta.name.take(),
        namespace: meta.namespace.take(),
        creation_timestamp: meta.creation_timestamp.take(),
        generation: meta.generation,
        resource_version: meta.resource_version.take(),
        ..ObjectMeta::default()
    }
}

/// Whether it is one of ours, which are compared with what they should be.
fn is_ours(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().is_some_and(|labels| labels.contains_key(CONTROLLER))
}

impl Trim for Service {
    fn trim(&mut self) {
        if is_ours(&self.metadata) {
            return;
        }
        self.metadata = ObjectMeta {
            uid: self.metadata.uid.take(),
            deletion_timestamp: self.metadata.deletion_timestamp.take(),
            ..essential(&mut self.metadata)
        };
        self.spec = self.spec.take().map(|spec| ServiceSpec {
            type_: spec.type_,
            ports: spec.ports,
            ..ServiceSpec::default()
        });
    }
}

impl Trim for EndpointSlice {
    fn trim(&mut self) {
        if is_ours(&self.metadata) {
            return;
        }
        self.metadata.annotations = None;
        self.metadata.owner_references = None;
        if let Some(labels) = &mut self.metadata.labels {
            labels.retain(|name, _| name == SERVICE_NAME);
        }
        for endpoint in &mut self.endpoints {
            let target = endpoint.target_ref.take();
            let target = target.map(|ObjectReference { kind, name, .. }| ObjectReference {
                kind,
                name,
                ..ObjectReference::default()
            });
            let conditions = endpoint.conditions.take();
            let conditions = conditions.map(|EndpointConditions { ready, serving, .. }| EndpointConditions {
                ready,
                // What is ready is used, whether it says that it serves or not.
                serving: serving.filter(|_| ready == Some(false)),
                ..EndpointConditions::default()
            });
            *endpoint = Endpoint {
                addresses: std::mem::take(&mut endpoint.addresses),
                conditions,
                target_ref: target,
                ..Endpoint::default()
            };
        }
    }
}

impl Trim for Namespace {
    fn trim(&mut self) {
        self.spec = None;
        self.status = None;
        self.metadata.annotations = None;
    }
}

impl Trim for Secret {
    fn trim(&mut self) {
        self.string_data = None;
        if let Some(data) = &mut self.data
            && !matches!(self.type_.as_deref(), Some(API_KEYS | REDIS | OIDC))
        {
            data.retain(|name, _| SECRET_ENTRIES.contains(&name.as_str()));
        }
    }
}

impl Trim for ConfigMap {
    fn trim(&mut self) {
        // Some elect leaders by an annotation that beats every few seconds.
        self.metadata.annotations = None;
        self.binary_data = None;
        if let Some(data) = &mut self.data {
            data.retain(|name, _| CONFIG_MAP_ENTRIES.contains(&name.as_str()));
        }
    }
}

impl Trim for Pod {
    fn trim(&mut self) {
        self.spec = self.spec.take().map(|spec| PodSpec { node_name: spec.node_name, ..PodSpec::default() });
        self.status = self.status.take().map(|status| {
            let mut conditions = status.conditions;
            if let Some(conditions) = &mut conditions {
                conditions.retain(|condition| condition.type_ == "Ready");
            }
            let PodStatus { pod_ip, pod_ips, phase, .. } = status;
            PodStatus { pod_ip, pod_ips, phase, conditions, ..PodStatus::default() }
        });
    }
}

impl Trim for Node {
    fn trim(&mut self) {
        // A node's status beats every few seconds.
        self.spec = None;
        self.status = None;
        self.metadata.annotations = None;
    }
}
