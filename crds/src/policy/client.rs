//! ClientPolicy: how clients may talk to a listener.

use super::{
    DURATION, LISTENER_TARGETS, LISTENER_TARGETS_MESSAGE, Mode, ONE_KIND, ONE_KIND_MESSAGE, PolicyStatus,
    Strategy, TargetRef,
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
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.limits) || has(self.timeouts) || has(self.clientIP) || has(self.http2) || has(self.headers) || has(self.path) || has(self.tls)",
    "message": "the policy says nothing; write limits, timeouts, clientIP, http2, headers, path or tls",
}, {
    "rule": "!has(self.mode) || self.mode != 'Shadow' || !(has(self.timeouts) || has(self.clientIP) || has(self.http2) || has(self.tls) || (has(self.headers) && (has(self.headers.requestID) || has(self.headers.server) || has(self.headers.earlyHints))))",
    "message": "mode Shadow tries what refuses requests: limits, headers.underscores and path; write the rest in a policy of its own",
}]))]
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
    /// Whether the policy acts, or is only watched: then it has `limits`, `headers.underscores` and `path` only, and what they would have refused
    /// is counted in the metrics `headgate_shadow_rejections_total` and `headgate_shadow_connections_refused_total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How much clients may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ClientLimits>,
    /// How long clients may take. Listeners of one port have to say the same; see `Programmed` in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<ClientTimeouts>,
    /// Who a client is when there are proxies before the Gateway. Listeners of one port have to say the same.
    #[serde(default, rename = "clientIP", skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<ClientIp>,
    /// Bounds of HTTP/2. Listeners of one port have to say the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http2: Option<ClientHttp2>,
    /// What becomes of the fields of requests and answers. Listeners of one port have to say the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<ClientHeaders>,
    /// What becomes of paths before they are matched: what is matched is what backends get. Listeners of one port have to
    /// say the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<ClientPath>,
    /// How TLS is done, where it ends here. Listeners of one port have to say the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
}

/// How much clients may send. But for `requestBodyBytes`, listeners of one port have to say the same.
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
    /// Bytes of a request's head, fields and all, `1Ki` to `1Mi`; more is answered 431. Absent: `64Ki`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = BYTES))]
    pub request_header_bytes: Option<String>,
    /// Fields of a request's head; more is answered 431. Absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub request_header_count: Option<i32>,
    /// Bytes of a request's target, path and query, `128` to `64Ki`; more is answered 414. Absent: `16Ki`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = BYTES))]
    pub request_target_bytes: Option<String>,
    /// Connections to the port at a time, in each replica; more are closed at once. Absent: what the process can have. Connections that
    /// began before there was such a limit aren't counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: Option<i32>,
    /// The same of one address, or of one /64 of IPv6. Behind proxies it is theirs, unless the PROXY protocol tells another.
    #[serde(default, rename = "connectionsPerIP", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_ip: Option<i32>,
}

/// Bounds of HTTP/2. Those against resets and CONTINUATION floods always hold.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct ClientHttp2 {
    /// Whether it is spoken. Absent: true. Else TLS clients are told, and others that begin with it are closed; gRPC needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Streams that a client may have open at once; more are refused. Absent: 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub max_concurrent_streams: Option<i32>,
    /// Bytes of a header list, `1Ki` to `1Mi`; more is answered 431. Absent: `limits.requestHeaderBytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = BYTES))]
    pub max_header_list_bytes: Option<String>,
    /// Bytes that a client may send ahead on one stream, `16Ki` to `16Mi`. Absent: `64Ki`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), regex(pattern = BYTES))]
    pub initial_window_bytes: Option<String>,
    /// Requests that a client may give up before their answers, on one connection. After one more the connection takes no new
    /// requests (GOAWAY), and ends when those that are there have their answers. Absent: 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_resets_per_connection: Option<i32>,
}

/// What becomes of the fields of requests and answers.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct ClientHeaders {
    /// What becomes of fields with underscores in their names. Absent: `Drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underscores: Option<Underscores>,
    /// The id of each request, that backends, external authorizers and the access log get.
    #[serde(default, rename = "requestID", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// `Server` of every answer, in place of what backends say. Absent: what backends say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[!-~]([ -~]*[!-~])?$"))]
    pub server: Option<String>,
    /// Whether clients get the hints (103, RFC 8297) that backends give before their answers, so that browsers fetch what a page needs
    /// meanwhile. Over HTTP/2 only: over HTTP/1.1 some clients take them for the answer. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_hints: Option<bool>,
}

/// What becomes of fields with underscores in their names, which many backends read as the same names with hyphens. `Drop` (the
/// default): they are taken away. `Reject`: their request is answered 400. `Keep`: they go on, except where the name with hyphens is in
/// the request as well, or isn't the client's to say, such as `X_Forwarded_For`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Underscores {
    /// They are taken away.
    #[default]
    Drop,
    /// Their request is answered 400.
    Reject,
    /// They go on.
    Keep,
}

/// The id of each request.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "x-kubernetes-validations" = [{
    "rule": "!has(self.header) || !self.header.lowerAscii().matches('^(host|connection|content-.*|cookie|authorization|te|upgrade\
        |expect|transfer-encoding|keep-alive|forwarded|x-forwarded.*|x-real-ip|proxy.*)$')",
    "message": "requestID.header has a meaning already; write X-Request-ID, or a name of your own",
}]))]
pub struct RequestId {
    /// The header. Absent: `X-Request-ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^|~]+$"))]
    pub header: Option<String>,
    /// Whether a client's own id is kept: one, of 1 to 128 visible characters. Absent: false, each request gets a new one. Only for
    /// clients that are your own, such as a CDN: others could make your logs lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<bool>,
}

/// What becomes of paths. Without it: escapes of unreserved characters are decoded, dot segments are resolved (RFC 3986 §6.2.2), and what
/// backends could read in two ways that lead to different rules is answered 400.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct ClientPath {
    /// What becomes of `%2F` and `%5C`. Absent: `Keep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escaped_slashes: Option<EscapedSlashes>,
    /// What becomes of `/./` and `/../`, escaped or not. Absent: `Normalize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dot_segments: Option<DotSegments>,
    /// Whether `//` becomes `/`. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge_slashes: Option<bool>,
}

/// What becomes of `%2F` and `%5C`. `Keep` (the default): they go on, and are no slashes for matching. `Reject`: their request is
/// answered 400. `Decode`: `%2F` is a slash, for matching and for backends; `%5C` is answered 400, as a backslash is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum EscapedSlashes {
    /// They go on.
    #[default]
    Keep,
    /// Their request is answered 400.
    Reject,
    /// `%2F` is a slash.
    Decode,
}

/// What becomes of dot segments. `Normalize` (the default): they are resolved. `Reject`: their request is answered 400.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum DotSegments {
    /// They are resolved.
    #[default]
    Normalize,
    /// Their request is answered 400.
    Reject,
}

/// How TLS is done. Without it: 1.2 and 1.3, key exchange with forward secrecy, authenticated encryption; Mozilla's "intermediate" without
/// what is old of it. Nothing weaker can be chosen.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "x-kubernetes-validations" = [{
    "rule": "!has(self.minVersion) || !has(self.maxVersion) || self.minVersion <= self.maxVersion",
    "message": "minVersion is newer than maxVersion",
}]))]
pub struct ClientTls {
    /// The oldest version of TLS. Absent: `1.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// The newest version of TLS. Absent: `1.3`. Where another policy's minVersion is newer, that one counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_version: Option<TlsVersion>,
    /// Cipher suites, by the names that IANA has for them. A version of TLS of which none is here keeps its usual ones: to choose those of
    /// 1.2, name those of 1.2. The preferred one first; clients that prefer ChaCha20 get it all the same, where it is among them: they
    /// have no hardware for AES. Absent: all of these, AES of 128 bits first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 9), inner(regex(pattern = SUITES)))]
    pub cipher_suites: Option<Vec<String>>,
    /// Groups of the key exchange, the preferred one first: `X25519`, `P-256`, `P-384`, `X25519MLKEM768` (hybrid, against quantum
    /// computers to come). Absent: the first three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4), inner(regex(pattern = "^(X25519|P-256|P-384|X25519MLKEM768)$")))]
    pub curves: Option<Vec<String>>,
    /// Protocols of HTTP that clients are offered (ALPN), the preferred one first. Absent: `h2`, `http/1.1`. `http2.enabled: false` takes
    /// `h2` away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), inner(regex(pattern = "^(h2|http/1\\.1)$")))]
    pub alpn: Option<Vec<String>>,
    /// Whether clients get tickets to resume their sessions with. Absent: true; their keys are changed every six hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_tickets: Option<bool>,
    /// Whether certificates are sent with the OCSP answer that their Secret holds under `tls.ocsp-staple` (DER), to clients that ask for it.
    /// It is never fetched: who writes the Secret renews it. One that is out of date, or about another certificate, isn't sent. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocsp_stapling: Option<bool>,
}

/// A version of TLS.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}

/// The suites that there are: forward secrecy and authenticated encryption.
const SUITES: &str = "^TLS_(AES_(128_GCM_SHA256|256_GCM_SHA384)|CHACHA20_POLY1305_SHA256|ECDHE_(ECDSA|RSA)_WITH_\
    (AES_128_GCM_SHA256|AES_256_GCM_SHA384|CHACHA20_POLY1305_SHA256))$";

/// How long clients may take: `100ms` to `24h` each.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "x-kubernetes-validations" = [{
    "rule": "[has(self.tlsHandshake) ? self.tlsHandshake : '1s', has(self.requestHeaders) ? self.requestHeaders : '1s', \
        has(self.requestBodyIdle) ? self.requestBodyIdle : '1s', has(self.keepAliveIdle) ? self.keepAliveIdle : '1s', \
        has(self.streamIdle) ? self.streamIdle : '1s', has(self.maxConnectionAge) ? self.maxConnectionAge : '1s']\
        .all(time, duration(time) >= duration('100ms') && duration(time) <= duration('24h'))",
    "message": "timeouts are from 100ms to 24h",
}]))]
pub struct ClientTimeouts {
    /// For a TLS handshake; then the connection is closed. Absent: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION))]
    pub tls_handshake: Option<String>,
    /// For a request's head, from its first byte to its last; then 408 (HTTP/1.1). Absent: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION))]
    pub request_headers: Option<String>,
    /// Silence in a request's body, which is answered 408, and of a client that takes no more of the answer. Absent: `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION))]
    pub request_body_idle: Option<String>,
    /// For the next request on a kept connection; then it is closed. Absent: `75s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION))]
    pub keep_alive_idle: Option<String>,
    /// Silence in an answer's body and on an upgraded connection, such as a WebSocket. Absent: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION))]
    pub stream_idle: Option<String>,
    /// After which a connection ends with its next answer (`Connection: close`, GOAWAY), so that clients spread anew. Absent:
    /// never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 28), regex(pattern = DURATION))]
    pub max_connection_age: Option<String>,
}

/// Which proxies before the Gateway are believed when they say who a client is. Without it nobody is: the client is who is
/// connected, and what it sends as `X-Forwarded-*` or `Forwarded` is dropped. Rate limits, rules, logs and backends go by it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "x-kubernetes-validations" = [
    {
        "rule": "!has(self.header) || has(self.trustedHops) || has(self.trustedCIDRs)",
        "message": "header needs trustedCIDRs or trustedHops, for else every client could say who it is",
    },
    {
        "rule": "!has(self.proxyProtocol) || self.proxyProtocol != 'Accept' || has(self.trustedCIDRs)",
        "message": "proxyProtocol: Accept needs trustedCIDRs, for else every client could say who it is",
    },
]))]
pub struct ClientIp {
    /// How many proxies there are: the client is the address that the farthest of them has added, so many from the end of the
    /// list. A request with a shorter list is that of who is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub trusted_hops: Option<i32>,
    /// Networks of proxies, such as `10.0.0.0/8`: the client is the last address of the list that isn't in one of them. Nobody else
    /// is believed; with `trustedHops` as well, connections from elsewhere aren't.
    #[serde(default, rename = "trustedCIDRs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 2, max = 64)))]
    pub trusted_cidrs: Option<Vec<String>>,
    /// The header that they say it by: `X-Forwarded-For`, `Forwarded` (RFC 7239), or another one with one address, such as
    /// `CF-Connecting-IP`. Absent: `X-Forwarded-For`. The scheme is that of `X-Forwarded-Proto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[A-Za-z0-9!#$%&'*+\\-.^_|~]+$"))]
    pub header: Option<String>,
    /// Whether connections begin with the PROXY protocol, as balancers of TCP send it: version 1 or 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// Whether connections begin with the PROXY protocol. `"Off"` (the default; in quotes, for YAML reads the bare word as false): no. `Accept`: those from `trustedCIDRs` may. `Require`: all
/// have to, and from `trustedCIDRs` where there are any; others are closed.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum ProxyProtocol {
    /// No.
    #[default]
    Off,
    /// They may.
    Accept,
    /// They have to.
    Require,
}

/// A number of bytes, as Kubernetes writes quantities.
const BYTES: &str = "^(0|[1-9][0-9]{0,11}(Ki|Mi|Gi|k|M|G)?)$";
