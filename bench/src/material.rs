//! Certificates, keys and tokens that proxies are configured with, alike for all.

use crate::token::{Algorithm, Signer};
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tokens that are handed out one by one, over and over. Sixteen times what Envoy is told to remember, eight times what
/// Headgate remembers: when one comes back it is forgotten. HAProxy remembers none.
pub const TOKENS: usize = 16_384;

/// One P-256 certificate, and who signs tokens.
pub struct Material {
    folder: PathBuf,
    chain: String,
    key: String,
    es256: Arc<Signer>,
    rs256: Arc<Signer>,
}

impl Material {
    /// Makes it, and writes what proxies want as files to `folder`.
    pub fn make(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["bench.example".to_owned()])?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(folder.join("tls.crt"), &chain)?;
        fs::write(folder.join("tls.key"), &key)?;
        fs::write(folder.join("tls.pem"), format!("{chain}{key}"))?;
        let (es256, rs256) = (Signer::make(Algorithm::Es256)?.into(), Signer::make(Algorithm::Rs256)?.into());
        let material = Self { folder: folder.to_owned(), chain, key, es256, rs256 };
        for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
            fs::write(material.public_key_file(algorithm), material.signer(algorithm).public_key_pem())?;
        }
        Ok(material)
    }

    /// Chain and key, PEM.
    pub fn certificate(&self) -> (&str, &str) {
        (&self.chain, &self.key)
    }

    /// Files of chain and key.
    pub fn certificate_files(&self) -> (PathBuf, PathBuf) {
        (self.folder.join("tls.crt"), self.folder.join("tls.key"))
    }

    /// Both in one file.
    pub fn bundle_file(&self) -> PathBuf {
        self.folder.join("tls.pem")
    }

    /// Who signs tokens.
    pub fn signer(&self, algorithm: Algorithm) -> &Arc<Signer> {
        match algorithm {
            Algorithm::Es256 => &self.es256,
            Algorithm::Rs256 => &self.rs256,
        }
    }

    /// The key that verifies them, PEM.
    pub fn public_key_file(&self, algorithm: Algorithm) -> PathBuf {
        self.folder.join(format!("{}.pem", algorithm.name()))
    }

    /// A file of [`TOKENS`] tokens, one a line, made when it is first asked for: RSA signs a thousand or two a second.
    pub fn tokens_file(&self, algorithm: Algorithm) -> Result<PathBuf> {
        let file = self.folder.join(format!("{}.tokens", algorithm.name()));
        if !file.exists() {
            let mut text = String::new();
            for number in 0..TOKENS {
                text.push_str(&self.signer(algorithm).token(number)?);
                text.push('\n');
            }
            fs::write(&file, text)?;
        }
        Ok(file)
    }
}
