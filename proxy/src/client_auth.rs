//! Certificates of clients: whether a handshake asks for one, and who may have issued it (GEP-91).
//!
//! Each setting has a TLS configuration of its own, with ticket keys of its own: a session that was begun without
//! validation, or under other authorities, isn't resumed under this one (security.md §6).

use crate::authorities::{AuthorityError, roots};
use crate::handshake::configuration;
use crate::model::{Authorities, ClientTls, ClientValidation, ClientValidationMode};
use crate::tls::provider;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::Arc;

/// A setting, and how handshakes are done under it.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    from: Arc<ClientValidation>,
    rules: ClientTls,
    /// None: no client can be validated, and none is let in.
    config: Option<Arc<ServerConfig>>,
}

impl ClientAuth {
    /// Compiles a setting; one that says the same as `known` keeps its sessions.
    pub(crate) fn compile(from: &Arc<ClientValidation>, rules: &ClientTls, known: Option<&Self>) -> Self {
        if let Some(known) = known.filter(|known| known.from == *from && known.rules == *rules) {
            return known.clone();
        }
        let config = verifier(from).and_then(|verifier| configuration(Some(verifier), rules)).map(Arc::new);
        let config = config
            .inspect_err(|error| {
                tracing::error!(%error, "clients can't be validated: none is let in");
            })
            .ok();
        Self { from: from.clone(), rules: rules.clone(), config }
    }

    /// Whether a client's certificate proves anything.
    pub(crate) fn validates(&self) -> bool {
        match self.from.mode {
            ClientValidationMode::ValidOnly => true,
            ClientValidationMode::InsecureFallback => false,
        }
    }

    /// How handshakes are done; none: not at all.
    pub(crate) fn config(&self) -> Option<&Arc<ServerConfig>> {
        self.config.as_ref()
    }
}

fn verifier(from: &ClientValidation) -> Result<Arc<dyn ClientCertVerifier>, String> {
    match from.mode {
        ClientValidationMode::InsecureFallback => Ok(Arc::new(Anybody)),
        ClientValidationMode::ValidOnly => {
            let authorities = Authorities::Bundles(from.bundles.clone());
            let roots = roots(&authorities).map_err(|error: AuthorityError| error.to_string())?;
            WebPkiClientVerifier::builder_with_provider(roots, provider())
                .build()
                .map(|verifier| verifier as _)
                .map_err(|error| error.to_string())
        }
    }
}

/// Asks for a certificate and takes any, or none: that the client has its key is all that is proven.
#[derive(Debug)]
struct Anybody;

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
