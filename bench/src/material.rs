//! Certificates, keys and tokens that proxies are configured with, alike for all.

use anyhow::{Context, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::PublicKeyData;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Who has issued the token.
pub const ISSUER: &str = "https://bench.example";

/// One P-256 certificate, and one token.
pub struct Material {
    folder: PathBuf,
    chain: String,
    key: String,
    jwks: String,
    token: String,
}

impl Material {
    /// Makes it, and writes what proxies want as files to `folder`.
    pub fn make(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["bench.example".to_owned()])?;
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let signer = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        // An uncompressed point: 4, x, y.
        let (x, y) = signer.der_bytes()[1..].split_at(32);
        let jwks = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "bench", "x": encode(x), "y": encode(y),
        }]});
        let token = token(&signer)?;
        fs::write(folder.join("tls.crt"), &chain)?;
        fs::write(folder.join("tls.key"), &key)?;
        fs::write(folder.join("tls.pem"), format!("{chain}{key}"))?;
        fs::write(folder.join("jwt.pem"), signer.public_key_pem())?;
        Ok(Self { folder: folder.to_owned(), chain, key, jwks: jwks.to_string(), token })
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

    /// The key that verifies the token, as a set (RFC 7517).
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// The same, PEM.
    pub fn public_key_file(&self) -> PathBuf {
        self.folder.join("jwt.pem")
    }

    /// The token's field of a request.
    pub fn authorization(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of a usual size that holds for ten years.
fn token(signer: &rcgen::KeyPair) -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let part = |value: &Value| encode(value.to_string());
    let claims = json!({
        "iss": ISSUER, "sub": "8a7c1f0e-5a53-4f3d-9f0e-2b8f5a1d7c11", "aud": "shop", "iat": now, "nbf": now - 60,
        "exp": now + 315_360_000, "scope": "read:orders write:orders read:profile", "email": "ann@bench.example",
    });
    let message =
        format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT", "kid": "bench"})), part(&claims));
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &signer.serialize_der())
        .ok()
        .context("the key can't be read")?;
    let signature =
        pair.sign(&SystemRandom::new(), message.as_bytes()).ok().context("the token can't be signed")?;
    Ok(format!("{message}.{}", encode(signature)))
}
