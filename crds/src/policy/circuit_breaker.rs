//! CircuitBreakerPolicy: when to stop calling.

use super::{DURATION, Mode, ONE_KIND, ONE_KIND_MESSAGE, PolicyStatus, ServiceRef, Strategy, TargetRef};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a backend, or one of its pods, is left alone: a circuit breaker, ejection of pods, and limits. Attaches to Services
/// (or one of their ports), and to Gateways, ListenerSets (or one of their listeners), HTTPRoutes and GRPCRoutes (or one of
/// their rules) for all Services that these forward to. There is one state per Service port, whatever route a request comes
/// by, in each replica of the proxy. Policies of one Service port are merged field by field; see `spec.strategy`.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[kube(
    group = "headgate.dev",
    version = "v1alpha1",
    kind = "CircuitBreakerPolicy",
    plural = "circuitbreakerpolicies",
    shortname = "cbp",
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
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.limits) || has(self.ejection) || has(self.breaker)",
    "message": "the policy says nothing; write limits, ejection or breaker, for example breaker: {}",
}]))]
pub struct CircuitBreakerPolicySpec {
    /// What the policy is for: 1 to 16 objects of one kind, in its namespace. `sectionName` of a Service is the name or the
    /// number of a port.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-validations" = [
        {"rule": TARGETS, "message": TARGETS_MESSAGE},
        {"rule": ONE_KIND, "message": ONE_KIND_MESSAGE},
    ]))]
    pub target_refs: Vec<TargetRef>,
    /// How this policy meets CircuitBreakerPolicies on more specific targets. Absent: they win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Whether the policy acts, or is only watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Bounds on what goes to the Service port at a time, from each replica of the proxy. Requests beyond get 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// When one pod gets no requests for a while. Absent: never; `{}`: with all defaults. Never so many pods that fewer than
    /// half are left: then all get requests again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
    /// When nothing is sent to the Service port for a while. Absent: never; `{}`: with all defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
}

/// Group and kinds of the targets.
const TARGETS: &str = "self.all(target, target.group == 'gateway.networking.k8s.io' \
    && target.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute'] \
    || target.group == '' && target.kind == 'Service')";
const TARGETS_MESSAGE: &str = "targetRefs take a Service (group '', the empty string), or a Gateway, ListenerSet, \
    HTTPRoute or GRPCRoute of group gateway.networking.k8s.io";

/// Bounds on what is under way at a time. What is absent isn't bounded.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Connections that are open. Requests beyond wait for one, as long as connecting may take (5 s), then get 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_connections: Option<i64>,
    /// Requests that wait so; beyond, they get 503 at once. 0: none waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub max_pending_requests: Option<i64>,
    /// Requests whose answers aren't complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_parallel_requests: Option<i64>,
    /// Of these, requests that are tried again by a route's `retry`; beyond, the client gets the first answer. 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub max_parallel_retries: Option<i64>,
    /// The same for each pod. Requests wait for the Service's pods together: there is no bound on that for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_endpoint: Option<EndpointLimits>,
}

/// Bounds on what is under way at one pod at a time.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointLimits {
    /// Connections that are open. A pod that has as many gets no requests that need another, while other pods can take them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_connections: Option<i64>,
    /// Requests whose answers aren't complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_parallel_requests: Option<i64>,
}

/// When one pod gets no requests for a while.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ejection {
    /// Failures in a row: answers of 500 to 599, and none at all. Default 5; 0: doesn't matter.
    #[serde(default, rename = "consecutive5xx", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub consecutive_5xx: Option<i64>,
    /// Failures in a row: answers of 502, 503 and 504, and none at all. Default 5; 0: doesn't matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub consecutive_gateway_errors: Option<i64>,
    /// Connections in a row that couldn't be made. Default 3; 0: doesn't matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub consecutive_connect_failures: Option<i64>,
    /// A share of failures (as for `consecutive5xx`) within 10 seconds. Absent: doesn't matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_percent: Option<FailurePercent>,
    /// How long, the first time; doubled each time that follows soon. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [
        {"rule": LENGTH, "message": LENGTH_MESSAGE},
    ]))]
    pub base_ejection_time: Option<String>,
    /// How long at most. Default 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [
        {"rule": LENGTH, "message": LENGTH_MESSAGE},
    ]))]
    pub max_ejection_time: Option<String>,
    /// How many of the pods at a time, in percent; one at least, unless it is 0. Default 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<i64>,
    /// Whether a 503 with `Retry-After` (in seconds) ejects its pod for so long. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub honor_retry_after: Option<bool>,
}

/// A share of failures that is too much.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailurePercent {
    /// From which share on, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub threshold: i64,
    /// With fewer requests than that nothing is judged. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: Option<i64>,
}

/// A circuit breaker: closed it lets everything pass and counts failures; open it lets nothing pass; half open it lets a few
/// probes pass, whose fate decides which of the two is next.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Breaker {
    /// What has one breaker. Default `Backend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// What opens it: any of these. Default: 5 failures in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trip: Option<Trip>,
    /// What is a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_when: Option<FailureWhen>,
    /// How long it stays open the first time; twice as long each time that a probe fails. Up to a tenth is added, so that
    /// replicas don't probe at the same time. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [
        {"rule": LENGTH, "message": LENGTH_MESSAGE},
    ]))]
    pub open_duration: Option<String>,
    /// What it doubles up to. Default 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [
        {"rule": LENGTH, "message": LENGTH_MESSAGE},
    ]))]
    pub max_open_duration: Option<String>,
    /// How it closes again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_open: Option<HalfOpen>,
    /// What requests get that may not pass. Default: 503 with `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_open: Option<OnOpen>,
}

/// What has one breaker. `Backend`: the Service port. `RouteBackend`: the Service port as each route sees it. `Endpoint`:
/// each pod; one that is open gets no requests while another is closed.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Scope {
    /// The Service port.
    #[default]
    Backend,
    /// The Service port as each route sees it.
    RouteBackend,
    /// Each pod.
    Endpoint,
}

/// What opens a breaker: any of these.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trip {
    /// So many failures in a row. Default 5 where nothing else is said; 0: doesn't matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub consecutive_failures: Option<i64>,
    /// Such a share of failures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_ratio: Option<FailureRatio>,
    /// Such a share of slow answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_ratio: Option<SlowRatio>,
}

/// A share of failures.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailureRatio {
    /// From which share on, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub percent: i64,
    /// How far back requests count. Default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [
        {"rule": LENGTH, "message": LENGTH_MESSAGE},
    ]))]
    pub window: Option<String>,
    /// With fewer requests than that nothing is judged. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: Option<i64>,
}

/// A share of slow answers.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowRatio {
    /// From which share on, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub percent: i64,
    /// An answer is slow whose head takes longer.
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [
        {"rule": LENGTH, "message": LENGTH_MESSAGE},
    ]))]
    pub over: String,
    /// How far back requests count. Default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [
        {"rule": LENGTH, "message": LENGTH_MESSAGE},
    ]))]
    pub window: Option<String>,
    /// With fewer requests than that nothing is judged. Default 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: Option<i64>,
}

/// What is a failure: any of these.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailureWhen {
    /// Status codes of answers. Default: 500, 502, 503 and 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(range(min = 400, max = 599)))]
    pub status_codes: Option<Vec<i64>>,
    /// Codes of gRPC. Default: 2 (UNKNOWN), 4 (DEADLINE_EXCEEDED), 13 (INTERNAL), 14 (UNAVAILABLE) and 15 (DATA_LOSS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(range(min = 1, max = 16)))]
    pub grpc_codes: Option<Vec<i64>>,
    /// No connection, or one that broke before the answer. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_errors: Option<bool>,
    /// No answer in time. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<bool>,
    /// CEL expressions about answers, of which one is enough, such as `response.code == 429` or
    /// `"x-stale" in response.headers`. They may ask for `response.code` and `response.headers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 1024)))]
    pub expressions: Option<Vec<String>>,
}

/// How a breaker closes again.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HalfOpen {
    /// Probes at a time. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub max_probes: Option<i64>,
    /// Probes that must succeed, none failing. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub successes_to_close: Option<i64>,
}

/// What requests get that an open breaker doesn't let pass.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.reject) != has(self.backendRef)",
    "message": "onOpen has exactly one of reject and backendRef",
}]))]
pub struct OnOpen {
    /// An answer of ours, with `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject: Option<Reject>,
    /// Another Service's answer. A breaker of that one rejects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_ref: Option<ServiceRef>,
}

/// An answer of ours.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reject {
    /// Its status. Default 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub status_code: Option<i64>,
}

/// What lengths of time may be.
const LENGTH: &str = "duration(self) >= duration('100ms') && duration(self) <= duration('24h')";
const LENGTH_MESSAGE: &str = "lengths of time here are from 100ms to 24h";
