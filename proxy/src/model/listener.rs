//! Ports, the listeners on them, and their certificates.

use super::{Clients, ExternalAuth, Failure, ListenerId, ObjectName, PortId, Text, Transport};
use serde::{Serialize, Serializer};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use zeroize::Zeroize;

/// One port of a Gateway and where this process listens for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Port {
    /// Gateway and port number as clients see it.
    pub id: PortId,
    /// The socket address this process binds. In a cluster it differs from `id.port`: every (Gateway, port) has
    /// its own port on the Headgate pods.
    pub bind: SocketAddr,
    /// What is spoken on it.
    pub protocol: PortProtocol,
    /// Its listeners, at most one per [`HostPattern`], in the order of their precedence at translation. A port of TCP
    /// or UDP has one.
    pub listeners: Vec<Listener>,
    /// What backends that speak TLS and ask for a certificate are shown (GEP-3155); absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<Arc<Certificate>>,
    /// How clients may talk to it, where it isn't as usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<Arc<Clients>>,
}

/// What clients speak on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PortProtocol {
    /// HTTP/1.1, or HTTP/2 with prior knowledge, in clear text.
    #[serde(rename = "HTTP")]
    Http,
    /// TLS: the server name says which listener it is for, and that one what is inside.
    #[serde(rename = "TLS")]
    Tls,
    /// Anything over TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// Datagrams.
    #[serde(rename = "UDP")]
    Udp,
}

impl PortProtocol {
    /// What carries it.
    pub fn transport(self) -> Transport {
        match self {
            Self::Http | Self::Tls | Self::Tcp => Transport::Tcp,
            Self::Udp => Transport::Udp,
        }
    }
}

/// What a listener makes of what comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Content {
    /// HTTP/1.1 or HTTP/2, routed request by request.
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    /// Bytes or datagrams, routed as a whole by a [`super::StreamRoute`]. On a port of TLS: what is inside of it when
    /// the listener has certificates, else the TLS itself.
    Stream,
}

impl Content {
    fn is_http(&self) -> bool {
        *self == Self::Http
    }
}

/// One listener: a hostname pattern on a port, with its certificates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listener {
    /// Who it is; routes name it.
    pub id: ListenerId,
    /// Which requests (by Host, and by SNI with TLS) are its own.
    pub hostname: HostPattern,
    /// What it makes of what comes.
    #[serde(skip_serializing_if = "Content::is_http")]
    pub content: Content,
    /// Certificates, with which TLS ends here. On ports of TLS only; listeners of HTTP there always have some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Steps for every request that comes to it, before the request is routed, in this order. On listeners of HTTP only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<ListenerFilter>,
}

/// A step before routing, `listeners[].filters.requests[]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum ListenerFilter {
    /// Asks somebody whether the request may pass.
    ExternalAuth(ExternalAuth),
    /// Answers with an error: the step could not be honoured.
    Fail(Failure),
}

/// Which hosts something serves, in lower case, without a final dot or a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// One host.
    Exact(Text),
    /// Every host with at least one label before this suffix. The suffix begins with its dot: `*.example.com` is
    /// `Suffix(".example.com")`, which `a.b.example.com` matches and `example.com` does not.
    Suffix(Text),
}

impl HostPattern {
    /// Reads `example.com`, `*.example.com`, `*` or the empty string.
    pub fn parse(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            _ if text.is_empty() => Self::Any,
            Some("") => Self::Any,
            Some(suffix) => Self::Suffix(suffix.into()),
            None => Self::Exact(text.into()),
        }
    }

    /// Whether the pattern covers `host` (lower case, no port, no final dot).
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }

    /// Whether some host is covered by both patterns (Gateway API: the hostnames *intersect*).
    pub fn intersects(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Exact(host), pattern) | (pattern, Self::Exact(host)) => pattern.matches(host),
            (Self::Suffix(a), Self::Suffix(b)) => a.ends_with(&**b) || b.ends_with(&**a),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// How a listener terminates TLS.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tls {
    /// At least one; the first is the default, others are chosen by what the client can verify.
    pub certificates: Vec<Arc<Certificate>>,
    /// Whether clients must show a certificate. Absent: they aren't asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_validation: Option<Arc<ClientValidation>>,
}

/// Validation of clients' certificates (GEP-91).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientValidation {
    /// What becomes of clients without a valid one.
    pub mode: ClientValidationMode,
    /// Bundles of authorities, PEM, at least one. The controller accepts only what [`crate::tls::check_authorities`] does.
    pub bundles: Vec<Text>,
}

/// What becomes of clients without a valid certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ClientValidationMode {
    /// The handshake fails.
    ValidOnly,
    /// They are asked for one, and let in without, or with any other.
    InsecureFallback,
}

/// A certificate chain with its key, as PEM. The controller accepts only what [`crate::tls::check_certificate`] does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certificate {
    /// The Secret it came from.
    pub secret: ObjectName,
    /// Leaf first (`tls.crt`).
    pub chain: Text,
    /// PKCS#1, PKCS#8 or SEC1 (`tls.key`).
    pub key: Redacted<String>,
    /// What goes with it to clients that ask, where a ClientPolicy wants that.
    #[serde(skip_serializing_if = "Staple::is_absent")]
    pub staple: Staple,
}

/// An OCSP answer about a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Staple {
    /// There is none.
    #[default]
    Absent,
    /// One that [`crate::staple::read_staple`] has read.
    #[serde(rename_all = "camelCase")]
    Sent {
        /// DER.
        #[serde(serialize_with = "length")]
        answer: Arc<[u8]>,
        /// When it is out of date: seconds since 1970.
        until: u64,
    },
    /// One that can't be sent, and why.
    Refused(Text),
}

impl Staple {
    fn is_absent(&self) -> bool {
        *self == Self::Absent
    }
}

fn length<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{} bytes", bytes.len()))
}

/// A secret: shows as `[redacted]` wherever it is printed or serialized, and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted<T: Zeroize>(T);

impl<T: Zeroize> Redacted<T> {
    /// Takes a secret into custody.
    pub fn new(secret: T) -> Self {
        Self(secret)
    }

    /// The secret itself. Never log or serialize what this returns.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Redacted<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T: Zeroize> Serialize for Redacted<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("[redacted]")
    }
}
