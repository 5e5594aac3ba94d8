//! How clients may talk to a port: ClientPolicies as they came out of merging. What is absent is as it is without any.

use super::Text;
use serde::Serialize;
use std::time::Duration;

/// How clients may talk to a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Clients {
    /// How long they may take.
    pub timeouts: ClientTimeouts,
    /// How much they may send.
    pub limits: ClientLimits,
    /// Who they are, where proxies are before us.
    pub address: ClientAddress,
    /// Bounds of HTTP/2.
    pub http2: ClientHttp2,
    /// What becomes of fields.
    pub headers: ClientHeaders,
    /// What becomes of paths.
    pub path: ClientPath,
    /// How TLS is done with them.
    pub tls: ClientTls,
    /// What policies in shadow would refuse beside the rest, which is only counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<ClientTrial>,
}

/// What is tried out, all of it as if it were in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientTrial {
    /// How much clients may send.
    pub limits: ClientLimits,
    /// What becomes of fields with underscores in their names.
    pub underscores: Underscores,
    /// What becomes of paths.
    pub path: ClientPath,
}

/// How long clients may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientTimeouts {
    /// For a TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_handshake: Option<Duration>,
    /// For a request's head, from its first byte to its last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<Duration>,
    /// Silence in a request's body, and of a client that takes no more of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body_idle: Option<Duration>,
    /// For the next request on a kept connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_idle: Option<Duration>,
    /// Silence in an answer's body or an upgraded connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_idle: Option<Duration>,
    /// After that a connection ends with its next answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_age: Option<Duration>,
}

/// How much clients may send before there is a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientLimits {
    /// Bytes of a request's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_bytes: Option<usize>,
    /// Fields of a request's head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_count: Option<usize>,
    /// Bytes of a request's target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_bytes: Option<usize>,
    /// Connections to the port, in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<usize>,
    /// Connections of one address (of one /64 of IPv6) to the port, in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_ip: Option<usize>,
}

/// Bounds of HTTP/2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientHttp2 {
    /// Whether it isn't spoken.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Streams that a client may have open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent_streams: Option<u32>,
    /// Bytes of a header list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header_list_bytes: Option<u32>,
    /// Bytes that a client may send ahead on one stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_window_bytes: Option<u32>,
    /// Requests that a client may give up before their answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_resets: Option<u32>,
}

/// How TLS is done with clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientTls {
    /// The oldest version; absent: 1.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// The newest version; absent: 1.3. Where it is older than the oldest, that one counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_version: Option<TlsVersion>,
    /// Names of suites as IANA writes them. A version of which none is here has its usual ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<Text>,
    /// Groups of the key exchange, the preferred one first; none: the usual ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<Text>,
    /// Protocols, the preferred one first; none: `h2` and `http/1.1`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<Text>,
    /// Whether sessions aren't resumed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_session_tickets: bool,
    /// Whether OCSP answers go with certificates that have one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ocsp_stapling: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}

/// What becomes of a request's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientHeaders {
    /// Of names with underscores.
    #[serde(skip_serializing_if = "Underscores::is_drop")]
    pub underscores: Underscores,
    /// The field with a request's id; absent: `X-Request-ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Text>,
    /// Whether clients may say the id.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trust_request_id: bool,
    /// `Server` of every answer; absent: as the backend says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<Text>,
    /// Whether what backends say ahead of their answers ends here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_early_hints: bool,
}

/// What becomes of fields with underscores in their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Underscores {
    /// They go.
    #[default]
    Drop,
    /// So does their request.
    Reject,
    /// They stay, but where a backend may read them as another field.
    Keep,
}

impl Underscores {
    fn is_drop(&self) -> bool {
        *self == Self::Drop
    }
}

/// What becomes of paths before they are matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientPath {
    /// Of slashes and backslashes that are escaped.
    #[serde(skip_serializing_if = "EscapedSlashes::is_keep")]
    pub escaped_slashes: EscapedSlashes,
    /// Whether paths with dot segments are refused, not resolved.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reject_dot_segments: bool,
    /// Whether several slashes become one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub merge_slashes: bool,
}

/// What becomes of `%2F` and `%5C`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum EscapedSlashes {
    /// They stay.
    #[default]
    Keep,
    /// Their request is refused.
    Reject,
    /// `%2F` is a slash; `%5C` is refused, as a backslash is.
    Decode,
}

impl EscapedSlashes {
    fn is_keep(&self) -> bool {
        *self == Self::Keep
    }
}

/// Which proxies before us are believed when they say who a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClientAddress {
    /// How many proxies there are; 0: unknown.
    #[serde(skip_serializing_if = "is_zero")]
    pub trusted_hops: usize,
    /// Networks of proxies; nobody else is believed where there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_networks: Vec<Text>,
    /// The field that they tell it by; absent: `X-Forwarded-For`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Text>,
    /// Whether connections begin with the PROXY protocol.
    #[serde(skip_serializing_if = "ProxyProtocol::is_off")]
    pub proxy_protocol: ProxyProtocol,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Whether connections begin with the PROXY protocol (version 1 or 2), which says who is behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum ProxyProtocol {
    /// No.
    #[default]
    Off,
    /// Those of trusted networks may.
    Accept,
    /// They have to.
    Require,
}

impl ProxyProtocol {
    fn is_off(&self) -> bool {
        *self == Self::Off
    }
}
