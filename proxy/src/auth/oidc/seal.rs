//! What only we can read and nobody can change: contents of cookies, sealed by AES-256-GCM.
//!
//! Every replica has the same keys, from the same Secret: whoever gets the next request can open what another one sealed.

use crate::model::Redacted;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;

/// Bytes of a secret at least: less could be guessed from a cookie.
const LEAST_SECRET: usize = 16;
/// Bytes of a key of AES-256.
const KEY: usize = 32;

/// Seals and opens. What is sealed for one purpose can't be opened for another.
pub(super) struct Sealer {
    /// The first seals, each opens.
    keys: Box<[RandomizedNonceKey]>,
    /// Whose it is.
    owner: String,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sealer").field(&self.owner).finish()
    }
}

impl Sealer {
    /// `owner`: two with different owners can't open each other's. The error is for the author of the secrets.
    pub(super) fn new(secrets: &[Redacted<String>], owner: String) -> Result<Self, String> {
        let key = |secret: &Redacted<String>| {
            let secret = secret.reveal().as_bytes();
            if secret.len() < LEAST_SECRET {
                return Err(format!("has to have {LEAST_SECRET} characters or more"));
            }
            let mut key = [0; KEY];
            let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"headgate cookies");
            let info = [owner.as_bytes()];
            let derived = salt.extract(secret);
            let filled = derived.expand(&info, &AES_256_GCM).and_then(|derived| derived.fill(&mut key));
            let made = filled.and_then(|()| RandomizedNonceKey::new(&AES_256_GCM, &key));
            made.map_err(|_| "can't be a key".to_owned())
        };
        Ok(Self { keys: secrets.iter().map(key).collect::<Result<_, _>>()?, owner })
    }

    /// As a text that a cookie can be. None: there is no room, or no randomness.
    pub(super) fn seal(&self, purpose: &str, what: &impl Serialize) -> Option<String> {
        let mut sealed = serde_json::to_vec(what).ok()?;
        let nonce = self.keys.first()?.seal_in_place_append_tag(self.aad(purpose), &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_ref().as_slice(), &sealed].concat()))
    }

    /// What was sealed for that purpose. None: it wasn't.
    pub(super) fn open<T: DeserializeOwned>(&self, purpose: &str, text: &str) -> Option<T> {
        let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        self.keys.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut sealed = sealed.to_vec();
            let opened = key.open_in_place(nonce, self.aad(purpose), &mut sealed).ok()?;
            serde_json::from_slice(opened).ok()
        })
    }

    fn aad(&self, purpose: &str) -> Aad<Vec<u8>> {
        Aad::from([purpose.as_bytes(), b"\0", self.owner.as_bytes()].concat())
    }
}

/// A text of 256 random bits. None: the system has no randomness.
pub(super) fn random() -> Option<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(secrets: &[&str], owner: &str) -> Sealer {
        let secrets: Vec<_> = secrets.iter().map(|secret| Redacted::new((*secret).to_owned())).collect();
        Sealer::new(&secrets, owner.to_owned()).unwrap()
    }

    #[test]
    fn only_what_we_have_sealed_for_a_purpose_is_opened() {
        let (old, new) = ("the secret of yesterday", "the secret of today");
        let (before, now) = (sealer(&[old], "a"), sealer(&[new, old], "a"));
        let sealed = before.seal("session", &"x".repeat(100)).unwrap();
        assert_eq!(now.open("session", &sealed), Some("x".repeat(100)));
        // Another purpose, another owner, another secret, another text.
        assert_eq!(now.open::<String>("login", &sealed), None);
        assert_eq!(sealer(&[old], "b").open::<String>("session", &sealed), None);
        assert_eq!(sealer(&[new], "a").open::<String>("session", &sealed), None);
        assert_eq!(before.open::<String>("session", &now.seal("session", &"x").unwrap()), None);
        for place in [0, 20, sealed.len() - 1] {
            let mut forged = sealed.clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(before.open::<String>("session", &forged), None, "{place}");
        }
        for text in ["", "A", &sealed[..10], &sealed[..60], "not base64!"] {
            assert_eq!(before.open::<String>("session", text), None, "{text}");
        }
        assert_ne!(before.seal("session", &1), before.seal("session", &1));
    }

    #[test]
    fn secrets_that_could_be_guessed_are_refused() {
        let told = Sealer::new(&[Redacted::new("secret".to_owned())], String::new()).unwrap_err();
        assert!(told.contains("16 characters") && !told.contains("secret"), "{told}");
    }
}
