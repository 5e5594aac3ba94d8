//! Certificates: from PEM to what rustls signs with, and the cryptography that both sides of the proxy use.
//!
//! The controller calls [`check_certificate`] before a certificate enters the model; the compiler calls
//! [`parse_certificate`]. Both read the same way, so what was accepted can be served. Private keys are never logged:
//! errors say which part is wrong, not what it holds.

pub use crate::authorities::{AuthorityError, check_authorities};

use crate::model::{Certificate, ClientTls, TlsVersion};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use std::sync::{Arc, LazyLock};

/// The suites and groups of security.md §6, for clients and for backends, the preferred ones first. Processors hash by SHA-256 in
/// hardware, not by SHA-384: that is a third of a handshake. Nobody breaks AES of 128 bits.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let cipher_suites = vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        let kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
        Arc::new(CryptoProvider { cipher_suites, kx_groups, ..default_provider() })
    });
    PROVIDER.clone()
}

/// The same, or what a ClientPolicy leaves of it. The error is for its author, and begins with the field.
pub(crate) fn provider_by(rules: &ClientTls) -> Result<Arc<CryptoProvider>, String> {
    let usual = provider();
    if rules.cipher_suites.is_empty() && rules.curves.is_empty() {
        return Ok(usual);
    }
    let named = rules.cipher_suites.iter().map(|name| suite(&usual, name));
    let named = named.collect::<Result<Vec<_>, _>>()?;
    let is_bounded = |version: &SupportedProtocolVersion| {
        named.iter().any(|suite| suite.version().version == version.version)
    };
    let usual_ones = usual.cipher_suites.iter().filter(|suite| !is_bounded(suite.version()));
    let mut cipher_suites: Vec<_> = usual_ones.copied().collect();
    cipher_suites.extend(&named);
    let groups = rules.curves.iter().map(|name| match &**name {
        "X25519" => Ok(kx_group::X25519),
        "P-256" => Ok(kx_group::SECP256R1),
        "P-384" => Ok(kx_group::SECP384R1),
        "X25519MLKEM768" => Ok(kx_group::X25519MLKEM768),
        name => Err(format!("tls.curves: {name:?} is none of X25519, P-256, P-384, X25519MLKEM768")),
    });
    let mut kx_groups = groups.collect::<Result<Vec<_>, _>>()?;
    if kx_groups.is_empty() {
        kx_groups.clone_from(&usual.kx_groups);
    }
    Ok(Arc::new(CryptoProvider { cipher_suites, kx_groups, ..CryptoProvider::clone(&usual) }))
}

/// A suite by the name that IANA has for it. rustls writes those of TLS 1.3 with their version.
fn suite(provider: &CryptoProvider, name: &str) -> Result<SupportedCipherSuite, String> {
    let iana = |suite: &SupportedCipherSuite| {
        let own = suite.suite().as_str().unwrap_or_default();
        own.strip_prefix("TLS13_").map_or_else(|| own.to_owned(), |rest| format!("TLS_{rest}"))
    };
    let found = provider.cipher_suites.iter().find(|suite| iana(suite) == name).copied();
    found.ok_or_else(|| {
        let known: Vec<_> = provider.cipher_suites.iter().map(iana).collect();
        format!("tls.cipherSuites: {name:?} is none of {}", known.join(", "))
    })
}

/// The versions that a ClientPolicy leaves, at least one.
pub(crate) fn versions(rules: &ClientTls) -> Vec<&'static SupportedProtocolVersion> {
    let least = rules.min_version.unwrap_or(TlsVersion::V12);
    let most = rules.max_version.unwrap_or(TlsVersion::V13).max(least);
    let all = [(TlsVersion::V13, &rustls::version::TLS13), (TlsVersion::V12, &rustls::version::TLS12)];
    let left = all.into_iter().filter(|(version, _)| (least..=most).contains(version));
    left.map(|(_, version)| version).collect()
}

/// Certificates in one chain. The longest public chains have four; each is sent in every full handshake.
const MAX_CHAIN: usize = 16;

/// Why a certificate can't be served. The text is for the author of the Secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CertificateError {
    /// The chain isn't PEM.
    #[error("tls.crt is not valid PEM: {0}")]
    ChainPem(String),
    /// The chain has no certificate.
    #[error("tls.crt holds no certificate; it must hold PEM blocks of type CERTIFICATE, the leaf first")]
    NoCertificate,
    /// The chain is too long.
    #[error("tls.crt holds {0} certificates; at most {MAX_CHAIN} are sent to clients")]
    ChainTooLong(usize),
    /// A block of the chain isn't an X.509 certificate.
    #[error("certificate {0} of tls.crt is not a valid X.509 certificate")]
    Certificate(usize),
    /// The key isn't PEM, or has no key in it.
    #[error(
        "tls.key holds no private key; it must be PEM in PKCS#8, PKCS#1 or SEC1 form, without a password"
    )]
    NoKey,
    /// The key is of a kind that TLS can't sign with.
    #[error(
        "the key in tls.key is not supported; use RSA (2048 bits or more), ECDSA P-256 or P-384, or Ed25519"
    )]
    UnsupportedKey,
    /// The key belongs to another certificate.
    #[error("tls.key doesn't belong to the first certificate of tls.crt")]
    KeyMismatch,
}

/// Whether a chain (`tls.crt`) and its key (`tls.key`), both PEM, can be served.
pub fn check_certificate(chain_pem: &str, key_pem: &str) -> Result<(), CertificateError> {
    parse(chain_pem, key_pem).map(drop)
}

/// Makes a certificate of the model ready for handshakes.
pub fn parse_certificate(certificate: &Certificate) -> Result<Arc<CertifiedKey>, CertificateError> {
    parse(&certificate.chain, certificate.key.reveal()).map(Arc::new)
}

fn parse(chain_pem: &str, key_pem: &str) -> Result<CertifiedKey, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertificateError::ChainPem(error.to_string()))?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate);
    }
    if chain.len() > MAX_CHAIN {
        return Err(CertificateError::ChainTooLong(chain.len()));
    }
    for (index, certificate) in chain.iter().enumerate() {
        ParsedCertificate::try_from(certificate).map_err(|_| CertificateError::Certificate(index + 1))?;
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| CertificateError::NoKey)?;
    let key = any_supported_type(&key).map_err(|_| CertificateError::UnsupportedKey)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|_| CertificateError::KeyMismatch)?;
    Ok(certified)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["example.com".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_chain_with_its_key_is_accepted() {
        let (chain, key) = certificate();
        check_certificate(&chain, &key).unwrap();
        check_certificate(&format!("{chain}\n{}", certificate().0), &key).unwrap();
    }

    /// The conformance suite's certificates name a URI that is no name at all; clients that check names decide.
    #[test]
    fn odd_names_are_the_clients_to_judge() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut wanted = rcgen::CertificateParams::new(["example.com".to_owned()]).unwrap();
        wanted.subject_alt_names.push(rcgen::SanType::URI("*".try_into().unwrap()));
        let made = wanted.self_signed(&key).unwrap();
        check_certificate(&made.pem(), &key.serialize_pem()).unwrap();
    }

    #[test]
    fn each_defect_has_its_own_error() {
        let (chain, key) = certificate();
        let no_pem = "no pem at all";
        let cut = chain.lines().take(3).collect::<Vec<_>>().join("\n");
        let not_x509 = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let odd_key = "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n";
        assert_eq!(check_certificate(no_pem, &key), Err(CertificateError::NoCertificate));
        assert!(matches!(check_certificate(&cut, &key), Err(CertificateError::ChainPem(_))));
        assert_eq!(check_certificate(not_x509, &key), Err(CertificateError::Certificate(1)));
        assert_eq!(
            check_certificate(&format!("{chain}\n{not_x509}"), &key),
            Err(CertificateError::Certificate(2))
        );
        assert_eq!(check_certificate(&chain, no_pem), Err(CertificateError::NoKey));
        assert_eq!(check_certificate(&chain, odd_key), Err(CertificateError::UnsupportedKey));
        assert_eq!(check_certificate(&chain, &certificate().1), Err(CertificateError::KeyMismatch));
        assert_eq!(
            check_certificate(&chain.repeat(MAX_CHAIN + 1), &key),
            Err(CertificateError::ChainTooLong(MAX_CHAIN + 1))
        );
    }

    #[test]
    fn errors_never_show_the_key() {
        let (chain, key) = certificate();
        let canary = key.lines().nth(1).unwrap();
        for error in [check_certificate("", &key), check_certificate(&certificate().0, &key)] {
            assert!(!error.unwrap_err().to_string().contains(canary));
        }
        check_certificate(&chain, &key).unwrap();
    }
}
