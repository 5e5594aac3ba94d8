//! Headgate's own CustomResourceDefinitions: Rust types, from which the YAML that users install is made.
//!
//! Documentation comments here are what `kubectl explain` shows: they are written for those who write the YAML.

pub mod policy;

pub use policy::auth::AuthPolicy;
pub use policy::circuit_breaker::CircuitBreakerPolicy;
pub use policy::client::ClientPolicy;
pub use policy::rate_limit::RateLimitPolicy;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The group of all kinds in here.
pub const GROUP: &str = "headgate.dev";

/// How a Gateway is put in place. Named by `spec.parametersRef` of a GatewayClass, for all of its Gateways, or by
/// `spec.infrastructure.parametersRef` of a Gateway, whose fields then win one by one.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[kube(
    group = "headgate.dev",
    version = "v1alpha1",
    kind = "GatewayParameters",
    plural = "gatewayparameters",
    shortname = "gwparams",
    namespaced,
    derive = "Default",
    derive = "PartialEq",
    category = "headgate",
    printcolumn = r#"{"name": "Service", "type": "string", "jsonPath": ".spec.service.type"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayParametersSpec {
    /// The Service that carries the Gateway's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceParameters>,
}

/// The Service that carries a Gateway's address. What is absent is as the chart's values say.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceParameters {
    /// `LoadBalancer`, `NodePort` or `ClusterIP`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<ServiceType>,
    /// Which load-balancer controller is to serve it (`spec.loadBalancerClass` of the Service). Can't change later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 316))]
    pub load_balancer_class: Option<String>,
    /// `Local` keeps the client's address and needs a Headgate pod on the node that the traffic comes to; `Cluster`
    /// takes traffic on every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
    /// Annotations of the Service, besides the Gateway's `spec.infrastructure.annotations`, which win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 65536}))]
    pub annotations: BTreeMap<String, String>,
}

/// Types of Service.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ServiceType {
    /// An address from outside the cluster, given by its load-balancer controller.
    LoadBalancer,
    /// A port on every node.
    NodePort,
    /// An address within the cluster.
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

/// What nodes do with traffic from outside.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum ExternalTrafficPolicy {
    /// Only nodes with a Headgate pod take it, and the client's address stays.
    Local,
    /// Every node takes it, and passes it on under its own address.
    Cluster,
}

/// All CRDs, in the order of their names.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        AuthPolicy::crd(),
        CircuitBreakerPolicy::crd(),
        ClientPolicy::crd(),
        GatewayParameters::crd(),
        RateLimitPolicy::crd(),
    ]
}
