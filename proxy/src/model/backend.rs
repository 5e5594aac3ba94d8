//! Backends, how they are verified, and their endpoints.

use super::{BackendId, BackendPolicy, Certificate, Text};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A port of a Service, or an XBackend, without its endpoints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Backend {
    /// Who it is.
    pub id: BackendId,
    /// What its endpoints speak.
    pub protocol: BackendProtocol,
    /// TLS to its endpoints; absent: clear text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<BackendTls>>,
    /// When it, or one of its endpoints, is left alone; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Arc<BackendPolicy>>,
    /// How many of its requests may be retries; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
}

impl Backend {
    /// One in clear text that nothing bounds.
    pub fn new(id: BackendId, protocol: BackendProtocol) -> Self {
        Self { id, protocol, tls: None, policy: None, retry_budget: None }
    }
}

/// A retry budget (GEP-3388): a retry is made when either part lets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RetryBudget {
    /// Which share of the requests of the last `interval` may be retries, 0 to 100.
    pub percent: u8,
    /// How far back requests count.
    pub interval: Duration,
    /// So many retries are let pass in each `min_interval`, whatever their share is.
    pub min_count: u32,
    /// The time that `min_count` is for.
    pub min_interval: Duration,
}

/// How endpoints are spoken to in TLS, and what their certificates must say. They are always verified.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendTls {
    /// Sent as SNI (RFC 6066 §3). The certificate must be for it, unless `subject_alt_names` says otherwise.
    pub server_name: Text,
    /// Who may have issued the certificate.
    pub authorities: Authorities,
    /// When there are any, the certificate must have one of these, and needn't be for `server_name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<SubjectAltName>,
    /// What endpoints are shown that ask who we are; absent: what the Gateway has for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<Arc<Certificate>>,
}

/// Certificate authorities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Authorities {
    /// Those that this system trusts; where it has none (an image `FROM scratch`), those that Mozilla does.
    System,
    /// Nobody: TLS is asked for in a way that can't be honoured. No request or connection that we would encrypt goes there;
    /// TLS that clients speak to the backend themselves passes.
    Nobody,
    /// Those of these bundles (PEM), at least one. The controller accepts only what
    /// [`crate::tls::check_authorities`] does.
    Bundles(Vec<Text>),
}

/// A name in a certificate (RFC 5280 §4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum SubjectAltName {
    /// A DNS name. One that begins with `*.` matches only the same in a certificate; a wildcard in a certificate
    /// matches every name with one more label.
    Dns(Text),
    /// A URI, such as a SPIFFE ID: matched byte for byte.
    Uri(Text),
}

/// What endpoints speak, within TLS where there is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum BackendProtocol {
    /// HTTP/1.1, with WebSocket upgrades.
    #[serde(rename = "HTTP/1.1")]
    Http1,
    /// HTTP/2: in clear text with prior knowledge (`appProtocol: kubernetes.io/h2c`), in TLS by ALPN.
    #[serde(rename = "h2c")]
    H2c,
}

/// The live endpoints of a backend, sorted by address, each address once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct EndpointSet {
    /// Endpoints that take new requests: the ready ones; when none is ready, those that serve while terminating.
    pub endpoints: Vec<Endpoint>,
}

/// One pod's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// The pod's name, when known: for logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Text>,
}
