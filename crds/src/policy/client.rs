//! ClientPolicy: how clients may talk to a listener.

use super::{
    LISTENER_TARGETS, LISTENER_TARGETS_MESSAGE, ONE_KIND, ONE_KIND_MESSAGE, PolicyStatus, Strategy, TargetRef,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How clients may talk to a listener. Attaches to Gateways and ListenerSets, or one of their listeners. Policies of one
/// listener are merged field by field; see `spec.strategy`. All that isn't said here is as it is without any policy.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[kube(
    group = "headgate.dev",
    version = "v1alpha1",
    kind = "ClientPolicy",
    plural = "clientpolicies",
    shortname = "clp",
    namespaced,
    status = "PolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    category = "headgate",
    category = "gateway-api",
    printcolumn = r#"{"name": "Kind", "type": "string", "jsonPath": ".spec.targetRefs[0].kind"}"#,
    printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.targetRefs[0].name"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string",
        "jsonPath": ".status.ancestors[0].conditions[?(@.type==\"Accepted\")].reason"}"#,
    printcolumn = r#"{"name": "Programmed", "type": "string",
        "jsonPath": ".status.ancestors[0].conditions[?(@.type==\"Programmed\")].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientPolicySpec {
    /// What the policy is for: 1 to 16 objects of one kind, in its namespace.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-validations" = [
        {"rule": LISTENER_TARGETS, "message": LISTENER_TARGETS_MESSAGE},
        {"rule": ONE_KIND, "message": ONE_KIND_MESSAGE},
    ]))]
    pub target_refs: Vec<TargetRef>,
    /// How this policy meets ClientPolicies on more specific targets. Absent: they win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// How much clients may send.
    pub limits: ClientLimits,
}

/// How much clients may send.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct ClientLimits {
    /// Bytes of a request's body, such as `10Mi`: digits with `Ki`, `Mi`, `Gi`, `k`, `M`, `G` or nothing. More is answered
    /// 413: at once where the request says how much comes, else when it has come. gRPC's messages count together, and
    /// what follows an upgrade doesn't count. `"0"`: no limit, as without a policy; it lifts one of a less specific target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = BYTES))]
    pub request_body_bytes: Option<String>,
}

/// A number of bytes, as Kubernetes writes quantities.
const BYTES: &str = "^(0|[1-9][0-9]{0,11}(Ki|Mi|Gi|k|M|G)?)$";
