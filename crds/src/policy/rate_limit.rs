//! RateLimitPolicy: how many requests pass.

use super::{
    DURATION, ENTRY_NAMES, ENTRY_NAMES_MESSAGE, Mode, ONE_KIND, ONE_KIND_MESSAGE, PolicyStatus,
    REQUEST_TARGETS, REQUEST_TARGETS_MESSAGE, Strategy, TargetRef,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many requests pass, counted by whom they are from. Attaches to Gateways, ListenerSets (or one of their listeners),
/// HTTPRoutes and GRPCRoutes (or one of their rules). Policies of one request are merged field by field; see
/// `spec.strategy`.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[kube(
    group = "headgate.dev",
    version = "v1alpha1",
    kind = "RateLimitPolicy",
    plural = "ratelimitpolicies",
    shortname = "rlp",
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
pub struct RateLimitPolicySpec {
    /// What the policy is for: 1 to 16 objects of one kind, in its namespace.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-validations" = [
        {"rule": REQUEST_TARGETS, "message": REQUEST_TARGETS_MESSAGE},
        {"rule": ONE_KIND, "message": ONE_KIND_MESSAGE},
    ]))]
    pub target_refs: Vec<TargetRef>,
    /// How this policy meets RateLimitPolicies on more specific targets. Absent: they win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Whether the policy acts, or is only watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Limits, by names that you choose. A request passes when all limits let it; else none of them counts it. A limit of
    /// the same name on a less specific target is the same limit: only the fields that are here are changed.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32, "x-kubernetes-validations" = [
        {"rule": ENTRY_NAMES, "message": ENTRY_NAMES_MESSAGE},
    ]))]
    pub limits: BTreeMap<String, Limit>,
    /// Where `rates` are counted. Absent: in each replica of the proxy by itself, as `concurrency` always is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
    /// What clients are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<LimitResponse>,
}

/// One limit. It needs `rates` or `concurrency`, here or in a policy on a less specific target.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// Leaves out a limit that a policy on a less specific target has, unless that says `Override`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Which requests it holds for: up to 8 CEL expressions that must all be true, such as
    /// `request.method in ["POST", "PUT"]`. They may ask for `request.{method,scheme,host,path,query,headers,cookies}`
    /// and `source.{ip,port}`. Absent: all requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 1024)))]
    pub when: Option<Vec<String>>,
    /// What is counted apart: up to 4 parts. Absent or empty: one counter for all requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4))]
    pub key: Option<Vec<KeyPart>>,
    /// What becomes of a request that lacks a part of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_missing_key: Option<OnMissingKey>,
    /// How many requests in how long: up to 4 windows that hold at once, such as 100 a minute and 1000 an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    pub rates: Option<Vec<Rate>>,
    /// How many may pass at once under the first rate, for token buckets. Absent: the first rate's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i64>,
    /// How is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// How many requests may be in flight at once, for each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub concurrency: Option<i64>,
    /// How many requests this one counts for: a CEL expression of a number from 0 to 1000000, such as
    /// `request.path.startsWith("/search") ? 10 : 1`. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub cost: Option<String>,
    /// Who isn't counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exempt: Option<Exempt>,
    /// Other rates for some, by names that you choose: tiers, or usage plans. The first by name whose `when` holds counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16, "x-kubernetes-validations" = [
        {"rule": ENTRY_NAMES, "message": ENTRY_NAMES_MESSAGE},
    ]))]
    pub overrides: Option<BTreeMap<String, RateOverride>>,
    /// What shares one counter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// A part of what is counted apart: exactly one of the fields.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.clientIP), has(self.header), has(self.cookie), has(self.query), has(self.path), \
        has(self.method), has(self.host), has(self.claim), has(self.consumer), \
        has(self.expression)].exists_one(part, part)",
    "message": "a part of a key has exactly one of clientIP, header, cookie, query, path, method, host, claim, \
        consumer, expression; write a part for each",
}]))]
pub struct KeyPart {
    /// The client's address: `clientIP: {}`.
    #[serde(default, rename = "clientIP", skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<ClientIp>,
    /// A header, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^_|~]+$"))]
    pub header: Option<String>,
    /// A cookie, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cookie: Option<String>,
    /// A parameter of the query, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub query: Option<String>,
    /// The path: `path: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Whole>,
    /// The method: `method: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Whole>,
    /// The host: `host: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Whole>,
    /// A claim of the request's token, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub claim: Option<String>,
    /// The consumer whose credential the request has: `consumer: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<Whole>,
    /// The value of a CEL expression, such as `request.headers["x-team"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub expression: Option<String>,
}

/// All of something: `{}`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Whole {}

/// The client's address, or the network that it is in.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientIp {
    /// So many bits of an IPv4 address. Absent: 32, each address by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub ipv4_prefix: Option<i32>,
    /// So many bits of an IPv6 address. Absent: 64, what one client commonly has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub ipv6_prefix: Option<i32>,
}

/// What becomes of a request that lacks a part of the key. `Skip` (the default): the limit doesn't hold for it. `Shared`:
/// it is counted with all others that lack it. `Reject`: it doesn't pass.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum OnMissingKey {
    /// The limit doesn't hold for it.
    #[default]
    Skip,
    /// It is counted with the others.
    Shared,
    /// It doesn't pass.
    Reject,
}

/// How many requests in how long.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// Requests, 1 to 1000000000.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub limit: i64,
    /// In how long: `1s` to `8784h`, such as `1m` or `1h30m`.
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('8784h')",
        "message": "window is from 1s to 8784h",
    }]))]
    pub window: String,
}

/// How is counted. `TokenBucket` (the default): a bucket of `burst` tokens that fills evenly. `SlidingWindow`: never much
/// more than `limit` in any window, of whichever beginning. `FixedWindow`: `limit` in each window of the clock, as
/// contracts have it.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Algorithm {
    /// A bucket that fills evenly.
    #[default]
    TokenBucket,
    /// The window before counts by how much of it lies within the last window's length.
    SlidingWindow,
    /// Windows of the clock.
    FixedWindow,
}

/// Who isn't counted: those of a network, and those for whom an expression holds.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exempt {
    /// Networks of clients, such as `10.0.0.0/8`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 43)))]
    pub cidrs: Vec<String>,
    /// CEL expressions, of which one is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 1024)))]
    pub when: Vec<String>,
}

/// Other rates for some.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.rates) != (has(self.unlimited) && self.unlimited)",
    "message": "an override has either rates or unlimited: true",
}]))]
pub struct RateOverride {
    /// For whom: CEL expressions that must all be true.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 1024)))]
    pub when: Vec<String>,
    /// Rates in place of the limit's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    pub rates: Option<Vec<Rate>>,
    /// As the limit's. Absent: the first rate's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i64>,
    /// No rate holds; `concurrency` still does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlimited: Option<bool>,
}

/// What shares one counter. `Target` (the default): all requests of the policy's target. `Route`: each route has counters
/// of its own. `Rule`: each rule has.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Scope {
    /// All requests of the target.
    #[default]
    Target,
    /// Those of a route.
    Route,
    /// Those of a rule.
    Rule,
}

/// Where `rates` are counted: in each replica of the proxy by itself, or in Redis, where limits hold across replicas and
/// restarts. `concurrency` is counted in each replica in any case.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.type == 'Redis') == has(self.redis)",
    "message": "store.redis goes with type: Redis, and type: Redis needs it",
}]))]
pub struct Store {
    /// `Local` or `Redis`.
    #[serde(rename = "type")]
    pub kind: StoreType,
    /// How Redis or Valkey is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// What holds while the store can't be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unavailable: Option<OnUnavailable>,
}

/// Where is counted.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum StoreType {
    /// In each replica by itself.
    #[default]
    Local,
    /// In Redis or Valkey.
    Redis,
}

/// How Redis or Valkey is reached.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redis {
    /// `HOST:PORT` of the server; of several sentinels or cluster nodes.
    #[schemars(length(min = 1, max = 16), inner(length(min = 3, max = 261)))]
    pub address: Vec<String>,
    /// `Single` (the default), `Sentinel` or `Cluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RedisMode>,
    /// The name of the primary that sentinels know. Absent: `mymaster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub sentinel_primary: Option<String>,
    /// TLS to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// A Secret of the policy's namespace, of type `headgate.dev/redis`, with the entries `password` and, where there are
    /// users, `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
    /// How long a request waits for the store at most: `1ms` to `5s`. Absent: `50ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1ms') && duration(self) <= duration('5s')",
        "message": "timeout is from 1ms to 5s",
    }]))]
    pub timeout: Option<String>,
    /// What all keys begin with. Absent: `headgate:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub key_prefix: Option<String>,
}

/// How Redis is run.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum RedisMode {
    /// One server, or an address behind which somebody else takes care.
    #[default]
    Single,
    /// Sentinels, which know who the primary is.
    Sentinel,
    /// A cluster.
    Cluster,
}

/// TLS to Redis: `tls: {}` verifies it by the system's authorities.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisTls {
    /// A ConfigMap of the policy's namespace whose entry `ca.crt` has the authorities. Absent: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<LocalRef>,
    /// The name that the certificate is for. Absent: the address's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

/// An object of the policy's namespace.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What holds while the store can't be reached. `Local` (the default): each replica counts by itself. `Allow`: all requests
/// pass. `Deny`: none does.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum OnUnavailable {
    /// Each replica counts by itself.
    #[default]
    Local,
    /// All pass.
    Allow,
    /// None passes.
    Deny,
}

/// What clients are told.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitResponse {
    /// Status of requests that don't pass, 400 to 599. Absent: 429. They always have `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub status_code: Option<i32>,
    /// Headers that tell of the tightest limit, on every response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<LimitHeaders>,
}

/// Headers that tell of the tightest limit. `Standard`: `RateLimit` and `RateLimit-Policy`. `Legacy`: `X-RateLimit-Limit`,
/// `-Remaining` and `-Reset`. `Both` (the default), or `None`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum LimitHeaders {
    /// `RateLimit` and `RateLimit-Policy`.
    Standard,
    /// `X-RateLimit-…`.
    Legacy,
    /// All of them.
    #[default]
    Both,
    /// None.
    None,
}
