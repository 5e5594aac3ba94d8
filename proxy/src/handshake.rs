//! What happens before HTTP on a client's connection: TLS by server name, and which version of HTTP it speaks.
//!
//! The ClientHello is read first; a name that no listener serves ends in a close without an alert (conformance.md §5).
//! Certificates come from the table in force at that moment, so a rotated one is seen by the next handshake and by no
//! connection that is already there. In clear text the first bytes tell HTTP/2 with prior knowledge from HTTP/1.1.

use crate::router::PortTable;
use crate::tls::provider;
use crate::transport::Transport;
use bytes::{Bytes, BytesMut};
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use std::io;
use std::sync::{Arc, LazyLock};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Read at first on a clear-text connection: most requests fit.
const FIRST_READ: usize = 4 * 1024;

/// Versions of HTTP that clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.1, or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A connection that is ready for HTTP.
pub(crate) struct Ready {
    pub(crate) transport: Transport,
    /// Bytes that were read to learn the version.
    pub(crate) begun: Bytes,
    pub(crate) version: Version,
    pub(crate) tls: Option<Tls>,
}

/// What the TLS handshake settled.
pub(crate) struct Tls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: &'static str,
    /// Server name, in lower case.
    pub(crate) sni: Option<Box<str>>,
}

/// Finds out the version by the first bytes. `None`: the client left without a word.
pub(crate) async fn clear(mut socket: TcpStream) -> io::Result<Option<Ready>> {
    let mut begun = BytesMut::with_capacity(FIRST_READ);
    loop {
        if socket.read_buf(&mut begun).await? == 0 {
            return Ok(None);
        }
        let known = begun.len().min(PREFACE.len());
        let version = match begun[..known] == PREFACE[..known] {
            true if known < PREFACE.len() => continue,
            true => Version::Http2,
            false => Version::Http1,
        };
        let transport = Transport::Clear(socket);
        return Ok(Some(Ready { transport, begun: begun.freeze(), version, tls: None }));
    }
}

/// Does the TLS handshake. `None`: no listener serves the name.
pub(crate) async fn tls(socket: TcpStream, table: &PortTable) -> io::Result<Option<Ready>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
    let hello = start.client_hello();
    // RFC 6066 §3: compared without case; a final dot isn't allowed, but harmless.
    let sni: Option<Box<str>> =
        hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase().into());
    let Some(certificate) = table.certificate(sni.as_deref(), hello.signature_schemes()) else {
        return Ok(None);
    };
    let mut config = BASE.clone();
    config.cert_resolver = Arc::new(Chosen(certificate.clone()));
    let stream = start.into_stream(Arc::new(config)).await?;
    let session = stream.get_ref().1;
    let version = match session.alpn_protocol() {
        Some(b"h2") => Version::Http2,
        Some(_) | None => Version::Http1,
    };
    let tls_version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(_) | None => "TLSv1.3",
    };
    let tls = Some(Tls { version: tls_version, sni });
    Ok(Some(Ready { transport: Transport::Tls(Box::new(stream.into())), begun: Bytes::new(), version, tls }))
}

/// What all handshakes have in common: the versions, suites and groups of security.md §6, no early data, and one set of
/// ticket keys for all threads, which rotates itself every six hours.
static BASE: LazyLock<ServerConfig> = LazyLock::new(|| {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nobody));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets do the same without memory of ours.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match rustls::crypto::aws_lc_rs::Ticketer::new() {
        Ok(ticketer) => config.ticketer = ticketer,
        Err(error) => tracing::error!(%error, "no session tickets: every handshake will be a full one"),
    }
    config
});

/// The certificate that was chosen by the ClientHello.
#[derive(Debug)]
struct Chosen(Arc<CertifiedKey>);

impl ResolvesServerCert for Chosen {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Stands in the common configuration, which no handshake uses as it is.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}
