//! Certificate authorities: from PEM bundles, or what the system trusts, to what certificates are verified by.
//!
//! The controller calls [`check_authorities`] before a bundle enters the model; the compiler reads it the same way, so
//! what was accepted can be verified by.

use crate::model::Authorities;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::sync::{Arc, LazyLock};

/// Certificates in one bundle. The public ones have 150; an object in a cluster ends at 1 MiB.
const MAX_BUNDLE: usize = 2_000;

/// Why a bundle of authorities can't be used. The text is for the author of the object that holds it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuthorityError {
    /// It isn't PEM.
    #[error("it is not valid PEM: {0}")]
    Pem(String),
    /// It holds no certificate.
    #[error("it holds no certificate; it must hold PEM blocks of type CERTIFICATE")]
    Empty,
    /// It is too long.
    #[error("it holds more than {MAX_BUNDLE} certificates")]
    TooLong,
    /// None of its certificates can be read.
    #[error("none of its certificates is a valid X.509 certificate")]
    NotX509,
}

/// Whether certificates can be verified by a PEM bundle of authorities. Certificates in it that can't be read are passed
/// over, as long as there is one that can: bundles outlive the odd certificate in them, and less is trusted, not more.
pub fn check_authorities(pem: &str) -> Result<(), AuthorityError> {
    add(&mut RootCertStore::empty(), pem)
}

/// What certificates are verified by.
pub(crate) fn roots(authorities: &Authorities) -> Result<Arc<RootCertStore>, AuthorityError> {
    static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| Arc::new(system()));
    match authorities {
        Authorities::System => Ok(SYSTEM.clone()),
        Authorities::Nobody => Err(AuthorityError::Empty),
        Authorities::Bundles(bundles) => {
            let mut roots = RootCertStore::empty();
            bundles.iter().try_for_each(|pem| add(&mut roots, pem))?;
            if roots.is_empty() { Err(AuthorityError::Empty) } else { Ok(Arc::new(roots)) }
        }
    }
}

fn add(roots: &mut RootCertStore, pem: &str) -> Result<(), AuthorityError> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(MAX_BUNDLE + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| AuthorityError::Pem(error.to_string()))?;
    match certificates.len() {
        0 => Err(AuthorityError::Empty),
        1..=MAX_BUNDLE => match roots.add_parsable_certificates(certificates) {
            (0, _) => Err(AuthorityError::NotX509),
            (_, _) => Ok(()),
        },
        _ => Err(AuthorityError::TooLong),
    }
}

fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "a part of the system's certificate authorities can't be read");
    }
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        tracing::info!(
            "the system names no certificate authorities: Mozilla's, as of this release, are used"
        );
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn a_bundle_needs_one_certificate_that_can_be_read() {
        let odd = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        check_authorities(&pem()).unwrap();
        check_authorities(&format!("# two\n{}{odd}{}", pem(), pem())).unwrap();
        assert_eq!(check_authorities(""), Err(AuthorityError::Empty));
        assert_eq!(check_authorities("no pem at all"), Err(AuthorityError::Empty));
        assert_eq!(check_authorities(odd), Err(AuthorityError::NotX509));
        assert!(matches!(check_authorities(&odd[..40]), Err(AuthorityError::Pem(_))));
        assert_eq!(check_authorities(&odd.repeat(MAX_BUNDLE + 1)), Err(AuthorityError::TooLong));
    }

    #[test]
    fn the_system_always_trusts_somebody() {
        assert!(!roots(&Authorities::System).unwrap().is_empty());
        assert_eq!(roots(&Authorities::Bundles(vec![])).unwrap_err(), AuthorityError::Empty);
        assert_eq!(roots(&Authorities::Nobody).unwrap_err(), AuthorityError::Empty);
    }
}
