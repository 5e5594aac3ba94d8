//! What happens before HTTP on a client's connection: TLS by server name, and which version of HTTP it speaks.
//!
//! The ClientHello is read first; a name that no listener serves ends in a close without an alert (conformance.md §5).
//! Certificates come from the table in force at that moment, so a rotated one is seen by the next handshake and by no
//! connection that is already there. In clear text the first bytes tell HTTP/2 with prior knowledge from HTTP/1.1.

use crate::auth::ClientCertificate;
use crate::model::ClientTls;
use crate::router::{PortTable, Reception, Stream};
use crate::tls::{provider_by, versions};
use crate::transport::{Corked, Transport};
use bytes::BytesMut;
use rustls::CipherSuite;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    Accepted, Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig,
};
use rustls::sign::CertifiedKey;
use std::io;
use std::sync::{Arc, LazyLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::StartHandshake;

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
    pub(crate) begun: BytesMut,
    pub(crate) version: Version,
    pub(crate) tls: Option<Tls>,
}

/// What the TLS handshake settled.
pub(crate) struct Tls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: &'static str,
    /// Server name, in lower case.
    pub(crate) sni: Option<Box<str>>,
    /// The client's certificate, if the listener validated it.
    pub(crate) certificate: Option<Box<ClientCertificate>>,
}

/// Finds out the version by the first bytes. `None`: the client left without a word, or speaks HTTP/2 where that isn't
/// spoken.
pub(crate) async fn clear(mut socket: TcpStream, http2: bool) -> io::Result<Option<Ready>> {
    let mut begun = BytesMut::with_capacity(FIRST_READ);
    loop {
        if socket.read_buf(&mut begun).await? == 0 {
            return Ok(None);
        }
        let known = begun.len().min(PREFACE.len());
        let version = match begun[..known] == PREFACE[..known] {
            true if known < PREFACE.len() => continue,
            true if !http2 => return Ok(None),
            true => Version::Http2,
            false => Version::Http1,
        };
        let transport = Transport::Clear(socket.into());
        return Ok(Some(Ready { transport, begun, version, tls: None }));
    }
}

/// What comes of a ClientHello.
pub(crate) enum Greeted {
    /// TLS ends here, and HTTP follows.
    Http(Ready),
    /// Bytes for the endpoints of a route: what is inside of the TLS, or all of it, with what was read of it.
    Stream(Transport, BytesMut, Arc<Stream>),
}

/// Reads the ClientHello, and does the handshake where TLS ends here. `None`: no listener or route serves the name.
pub(crate) async fn tls(
    mut socket: TcpStream,
    table: &PortTable,
    http2: bool,
) -> io::Result<Option<Greeted>> {
    let (begun, accepted) = hello(&mut socket).await?;
    let hello = accepted.client_hello();
    // RFC 6066 §3: compared without case; a final dot isn't allowed, but harmless.
    let sni: Option<Box<str>> =
        hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase().into());
    let Some(reception) = table.receive(sni.as_deref(), hello.signature_schemes()) else {
        return Ok(None);
    };
    let own = table.clients().and_then(|clients| clients.tls());
    let usual = own.map_or_else(|| &*BASE, |own| &**own);
    let mut validates = false;
    let (certificate, base, stream) = match reception {
        Reception::Passthrough(stream) => {
            return Ok(Some(Greeted::Stream(Transport::Clear(socket.into()), begun, stream.clone())));
        }
        Reception::Http(certificate, None) => (certificate, usual, None),
        Reception::Http(certificate, Some(auth)) => match auth.config() {
            Some(config) => {
                validates = auth.validates();
                (certificate, &**config, None)
            }
            None => return Ok(None),
        },
        Reception::Terminate(certificate, stream) => (certificate, usual, Some(stream.clone())),
    };
    let mut config = base.clone();
    config.ignore_client_order = !prefers_chacha20(&hello, &config);
    let stapling = table.clients().is_some_and(|clients| clients.staples());
    config.cert_resolver = Arc::new(Chosen(certificate.key(stapling).clone()));
    if stream.is_some() {
        // Nobody here knows what is spoken inside.
        config.alpn_protocols.clear();
    } else if !http2 {
        config.alpn_protocols.retain(|protocol| protocol != b"h2");
    }
    drop(begun);
    let tls = StartHandshake::from_parts(accepted, Corked::new(socket)).into_stream(Arc::new(config)).await?;
    if let Some(stream) = stream {
        return Ok(Some(Greeted::Stream(Transport::secured(tls), BytesMut::new(), stream)));
    }
    let session = tls.get_ref().1;
    let version = match session.alpn_protocol() {
        Some(b"h2") => Version::Http2,
        Some(_) | None => Version::Http1,
    };
    let tls_version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        Some(_) | None => "TLSv1.3",
    };
    let leaf = session.peer_certificates().filter(|_| validates).and_then(|chain| chain.first());
    let certificate = leaf.and_then(|leaf| ClientCertificate::read(leaf)).map(Box::new);
    let transport = Transport::secured(tls);
    let tls = Some(Tls { version: tls_version, sni, certificate });
    Ok(Some(Greeted::Http(Ready { transport, begun: BytesMut::new(), version, tls })))
}

/// Whether a client would rather have ChaCha20: it has no hardware for AES. All others say what their library says, and what we
/// prefer counts.
fn prefers_chacha20(hello: &ClientHello<'_>, config: &ServerConfig) -> bool {
    let ours = &config.crypto_provider().cipher_suites;
    let mut common =
        hello.cipher_suites().iter().filter(|suite| ours.iter().any(|own| own.suite() == **suite));
    matches!(
        common.next(),
        Some(
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        )
    )
}

/// Reads until the ClientHello is whole. What was read is kept: somebody else's TLS may begin with it.
async fn hello(socket: &mut TcpStream) -> io::Result<(BytesMut, Accepted)> {
    let mut begun = BytesMut::with_capacity(FIRST_READ);
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        // The acceptor refuses hellos that are too large.
        if socket.read_buf(&mut begun).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while fed < begun.len() {
            fed += acceptor.read_tls(&mut &begun[fed..])?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) if fed == begun.len() => return Ok((begun, accepted)),
                // A client that goes on before it is answered: only early data does, and nobody offered that.
                Ok(Some(_)) => return Err(io::ErrorKind::InvalidData.into()),
                Err((error, mut alert)) => {
                    let mut farewell = Vec::new();
                    alert.write_all(&mut farewell)?;
                    socket.write_all(&farewell).await?;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
    }
}

/// What handshakes have in common that ask for no certificate, where no ClientPolicy says otherwise.
static BASE: LazyLock<ServerConfig> = LazyLock::new(|| {
    configuration(None, &ClientTls::default()).expect("the usual suites are those of the provider")
});

/// What handshakes have in common: the versions, suites and groups of security.md §6, or what a ClientPolicy leaves of them, no
/// early data, and one set of ticket keys for all threads, which rotates itself every six hours. The error is for the policy's
/// author.
pub(crate) fn configuration(
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    rules: &ClientTls,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(provider_by(rules)?)
        .with_protocol_versions(&versions(rules))
        .map_err(|error| format!("tls: {error}"))?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Nobody));
    config.alpn_protocols = match &*rules.alpn {
        [] => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        own => own.iter().map(|protocol| protocol.as_bytes().to_vec()).collect(),
    };
    // Tickets do the same without memory of ours.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if rules.no_session_tickets {
        config.send_tls13_tickets = 0;
        return Ok(config);
    }
    match rustls::crypto::aws_lc_rs::Ticketer::new() {
        Ok(ticketer) => config.ticketer = ticketer,
        Err(error) => tracing::error!(%error, "no session tickets: every handshake will be a full one"),
    }
    Ok(config)
}

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
