//! Who we are and whom we trust when we speak TLS to backends: compiled from [`BackendTls`] and, where a Gateway has one
//! and the backend has none of its own, its client certificate.
//!
//! A connection belongs to the [`Identity`] under which it was made and serves no request of another one, so that other
//! authorities, names or certificates count from the next request on. Nothing is resumed: every connection's certificate
//! is verified, and the pools see to it that there are few handshakes. Must not know requests.

use crate::authorities::{AuthorityError, roots};
use crate::model::{BackendTls, SubjectAltName};
use crate::snapshot::Swap;
use crate::tls::{CertificateError, parse_certificate, provider};
use crate::transport::{Corked, Transport};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What we are ready to speak with backends.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// What is to be spoken within TLS (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// `http/1.1`; a backend that names no protocol means it.
    Http1,
    /// `h2`; a backend that doesn't name it is refused.
    Http2,
    /// Who knows: nothing is named.
    Anything,
}

/// Why a backend's TLS can't be compiled. The controller doesn't let it come to that.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// No authority to verify by.
    #[error(transparent)]
    Authorities(#[from] AuthorityError),
    /// The server name is neither a DNS name nor an address.
    #[error("{0} is no server name")]
    ServerName(String),
    /// A name that the certificate may have is no DNS name.
    #[error("{0} is no DNS name")]
    SubjectAltName(String),
    /// The client certificate can't be shown.
    #[error("the client certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// rustls doesn't want it.
    #[error(transparent)]
    Tls(#[from] Error),
}

/// TLS to one backend, compiled.
#[derive(Debug)]
pub(super) struct Identities {
    server_name: ServerName<'static>,
    verifier: Arc<Verifier>,
    /// With the backend's own client certificate; else with none.
    plain: Arc<Identity>,
    /// Whether a Gateway's client certificate doesn't count, because the backend has its own.
    own: bool,
    /// By client certificate: one entry per Gateway that has one and uses the backend, made when it first does.
    certified: Swap<Vec<(Arc<CertifiedKey>, Arc<Identity>)>>,
}

impl Identities {
    /// Compiles.
    pub(super) fn compile(from: &BackendTls) -> Result<Self, IdentityError> {
        let server_name = ServerName::try_from(from.server_name.to_string())
            .map_err(|_| IdentityError::ServerName(from.server_name.to_string()))?;
        let names = from.subject_alt_names.iter().map(Wanted::compile).collect::<Result<Vec<_>, _>>()?;
        let algorithms = provider().signature_verification_algorithms;
        let verifier = Arc::new(Verifier { roots: roots(&from.authorities)?, names, algorithms });
        let certificate = from.client_certificate.as_deref().map(parse_certificate).transpose()?;
        let plain = Arc::new(Identity::new(&server_name, &verifier, certificate.as_ref())?);
        let own = certificate.is_some();
        Ok(Self { server_name, verifier, plain, own, certified: Swap::new(Arc::default()) })
    }

    /// The identity of a Gateway with this client certificate, or with none.
    pub(super) fn of(&self, certificate: Option<&Arc<CertifiedKey>>) -> Result<Arc<Identity>, IdentityError> {
        let Some(certificate) = certificate.filter(|_| !self.own) else { return Ok(self.plain.clone()) };
        let known = self.certified.load();
        if let Some((_, identity)) = known.iter().find(|(key, _)| Arc::ptr_eq(key, certificate)) {
            return Ok(identity.clone());
        }
        let identity = Arc::new(Identity::new(&self.server_name, &self.verifier, Some(certificate))?);
        // Two threads may come here at once, and one entry be lost: it is made again. Certificates that only we hold
        // are out of force.
        let in_force = known.iter().filter(|(key, _)| Arc::strong_count(key) > 1).cloned();
        self.certified.store(Arc::new(in_force.chain([(certificate.clone(), identity.clone())]).collect()));
        Ok(identity)
    }
}

/// Under which connections to a backend are made. Two are the same when they are the same object.
pub(crate) struct Identity {
    server_name: ServerName<'static>,
    http1: TlsConnector,
    http2: TlsConnector,
    anything: TlsConnector,
}

impl Identity {
    fn new(
        server_name: &ServerName<'static>,
        verifier: &Arc<Verifier>,
        certificate: Option<&Arc<CertifiedKey>>,
    ) -> Result<Self, Error> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone());
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(key) => builder.with_client_cert_resolver(Arc::new(Shown(key.clone()))),
        };
        config.resumption = Resumption::disabled();
        let with_alpn = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        Ok(Self {
            server_name: server_name.clone(),
            http1: with_alpn(&[b"http/1.1"]),
            http2: with_alpn(&[b"h2"]),
            anything: with_alpn(&[]),
        })
    }

    /// Does the handshake: the backend is verified when it returns.
    pub(super) async fn secure(&self, socket: TcpStream, speaks: Speaks) -> io::Result<Transport> {
        let connector = match speaks {
            Speaks::Http1 => &self.http1,
            Speaks::Http2 => &self.http2,
            Speaks::Anything => &self.anything,
        };
        let stream = connector.connect(self.server_name.clone(), Corked::new(socket)).await?;
        if speaks == Speaks::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            // RFC 9113 §3.2; without it this may be anything.
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the backend doesn't speak h2 in TLS"));
        }
        Ok(Transport::secured(stream))
    }
}

/// Whether connections made under one of these may serve requests of the other.
pub(super) fn is_same(one: Option<&Arc<Identity>>, other: Option<&Arc<Identity>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// A client certificate.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Whoever issued it: which authorities the backend names is a hint (RFC 8446 §4.2.4), and many name none or too few.
        SigningKey::choose_scheme(&*self.0.key, schemes).map(|_| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A name that a backend's certificate may have.
#[derive(Debug)]
enum Wanted {
    Dns(ServerName<'static>),
    /// With the wildcard, as it must be in the certificate.
    Wildcard(Box<str>),
    Uri(Box<str>),
}

impl Wanted {
    fn compile(from: &SubjectAltName) -> Result<Self, IdentityError> {
        Ok(match from {
            SubjectAltName::Uri(uri) => Self::Uri((**uri).into()),
            SubjectAltName::Dns(name) if name.starts_with("*.") => Self::Wildcard((**name).into()),
            SubjectAltName::Dns(name) => match ServerName::try_from(name.to_string()) {
                Ok(name) => Self::Dns(name),
                Err(_) => return Err(IdentityError::SubjectAltName(name.to_string())),
            },
        })
    }

    fn is_name_of(&self, certificate: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>) -> bool {
        // Names that are no names are passed over.
        let Ok(names) = webpki::EndEntityCert::try_from(certificate) else { return false };
        match self {
            Self::Dns(wanted) => verify_server_name(parsed, wanted).is_ok(),
            Self::Wildcard(wanted) => names.valid_dns_names().any(|name| name.eq_ignore_ascii_case(wanted)),
            Self::Uri(wanted) => names.valid_uri_names().any(|name| *name == **wanted),
        }
    }
}

/// Verifies a backend's certificate: who issued it, when, what for, and to whom.
#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    /// Empty: the server name.
    names: Vec<Wanted>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if self.names.is_empty() {
            verify_server_name(&parsed, server_name)?;
        } else if !self.names.iter().any(|name| name.is_name_of(end_entity, &parsed)) {
            return Err(rustls::CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
