//! What our own clients say and want to hear: a GET, 200 with 1 KiB, and TLS 1.3 as other clients here speak it.

use crate::scenario::SMALL;
use anyhow::{Context, Result, ensure};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Bytes of a head, at most: more is not one of these proxies.
const HEAD: usize = 4096;

/// Whether all of an answer is there. An error where it isn't 200 with the backend's 1 KiB.
pub fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        ensure!(answer.len() < HEAD, "a head without an end");
        return Ok(false);
    };
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "not answered 200");
    let body = answer.get(head + 4..).unwrap_or_default();
    ensure!(body.len() <= SMALL && body.iter().all(|byte| *byte == b'x'), "another body than the backend's");
    Ok(body.len() == SMALL)
}

/// TLS 1.3, X25519 as `wrk` does it, trusting this one certificate; sessions are resumed.
pub fn tls(certificate: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let shown = || certificate.display().to_string();
    roots.add(CertificateDer::from_pem_file(certificate).with_context(shown)?)?;
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// The name in the certificate.
pub fn server_name() -> Result<ServerName<'static>> {
    Ok(ServerName::try_from("bench.example")?)
}

#[cfg(test)]
mod tests {
    use super::{SMALL, is_whole};

    #[test]
    fn one_wrong_byte_is_an_error() {
        let good = format!("HTTP/1.1 200 OK\r\ncontent-length: {SMALL}\r\n\r\n{}", "x".repeat(SMALL));
        assert!(is_whole(good.as_bytes()).expect("right"));
        assert!(!is_whole(&good.as_bytes()[..good.len() - 1]).expect("right so far"));
        assert!(!is_whole(&good.as_bytes()[..10]).expect("right so far"));
        assert!(is_whole(good.replace("200", "502").as_bytes()).is_err());
        assert!(is_whole(good.replace("xxxx", "xxyx").as_bytes()).is_err());
        assert!(is_whole(format!("{good}x").as_bytes()).is_err());
    }
}
