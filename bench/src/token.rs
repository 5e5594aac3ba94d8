//! Tokens (RFC 7519) that are signed here, and the keys that proxies verify them with.

use anyhow::{Context, Result, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Who has issued the tokens.
pub const ISSUER: &str = "https://bench.example";
/// What an RSA key of 2,048 bits begins with (RFC 8017, A.1.1, in DER), before its modulus.
const RSA_HEAD: [u8; 9] = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
/// Bytes of its modulus.
const MODULUS: usize = 256;

/// Seconds that a token holds.
const YEARS: u64 = 315_360_000;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// P-256 with SHA-256.
    Es256,
    /// RSA, 2,048 bits, PKCS #1 v1.5 with SHA-256.
    Rs256,
}

impl Algorithm {
    /// As tokens name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

enum Secret {
    Ec(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

/// Signs tokens by one key.
pub struct Signer {
    algorithm: Algorithm,
    secret: Secret,
    key: Value,
    pem: String,
    /// Seconds since the Unix epoch, when it was made.
    now: u64,
}

impl Signer {
    /// A new key.
    pub fn make(algorithm: Algorithm) -> Result<Self> {
        let name = algorithm.name();
        let (pair, secret, mut key) = match algorithm {
            Algorithm::Es256 => {
                let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
                let secret =
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der());
                let secret = Secret::Ec(Box::new(secret.ok().context("the key can't be read")?));
                // An uncompressed point: 4, x, y.
                let (x, y) = pair.der_bytes()[1..].split_at(32);
                let key = json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)});
                (pair, secret, key)
            }
            Algorithm::Rs256 => {
                let pair = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?;
                let secret = RsaKeyPair::from_pkcs8(&pair.serialize_der());
                let secret = Secret::Rsa(Box::new(secret.ok().context("the key can't be read")?));
                let key = json!({"kty": "RSA", "n": encode(modulus(pair.der_bytes())?), "e": "AQAB"});
                (pair, secret, key)
            }
        };
        for (field, value) in [("alg", name), ("use", "sig"), ("kid", name)] {
            key[field] = value.into();
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Self { algorithm, secret, key, pem: pair.public_key_pem(), now })
    }

    /// What verifies its tokens, as a set (RFC 7517).
    pub fn jwks(&self) -> String {
        json!({"keys": [self.key]}).to_string()
    }

    /// The same, PEM.
    pub fn public_key_pem(&self) -> &str {
        &self.pem
    }

    /// A token of a usual size; each number has another.
    pub fn token(&self, number: usize) -> Result<String> {
        self.sign_claims(json!({
            "iss": ISSUER, "sub": format!("8a7c1f0e-5a53-4f3d-9f0e-{number:012x}"), "aud": "shop",
            "scope": "read:orders write:orders read:profile", "email": "ann@bench.example",
        }))
    }

    /// A token of these claims that holds for ten years.
    pub fn sign_claims(&self, mut claims: Value) -> Result<String> {
        let part = |value: &Value| encode(value.to_string());
        let (now, name) = (self.now, self.algorithm.name());
        for (claim, time) in [("iat", now), ("nbf", now - 60), ("exp", now + YEARS)] {
            claims[claim] = time.into();
        }
        let message = format!("{}.{}", part(&json!({"alg": name, "typ": "JWT", "kid": name})), part(&claims));
        Ok(format!("{message}.{}", encode(self.sign(message.as_bytes())?)))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.secret {
            Secret::Ec(pair) => {
                let signature = pair.sign(&random, message).ok().context("the token can't be signed")?;
                Ok(signature.as_ref().to_vec())
            }
            Secret::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature);
                signed.ok().context("the token can't be signed")?;
                Ok(signature)
            }
        }
    }
}

fn modulus(key: &[u8]) -> Result<&[u8]> {
    ensure!(key.starts_with(&RSA_HEAD), "not an RSA key of 2,048 bits");
    key.get(RSA_HEAD.len()..RSA_HEAD.len() + MODULUS).context("an RSA key that is cut")
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Signer};

    #[test]
    fn each_number_has_another_token_of_three_parts() {
        for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
            let signer = Signer::make(algorithm).expect("a key");
            let (one, two) = (signer.token(1).expect("signed"), signer.token(2).expect("signed"));
            assert_eq!(one.split('.').count(), 3);
            assert_ne!(one, two);
            assert!(signer.jwks().contains(algorithm.name()));
        }
    }
}
