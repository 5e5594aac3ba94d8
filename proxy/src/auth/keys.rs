//! Keys of tokens: JSON Web Key Sets (RFC 7517), compiled to what verifies signatures.
//!
//! A key is for the algorithms of its type, or for the one that it names; a token can't choose another (RFC 8725 §3.1).
//! Secret keys are taken only from where nobody else reads: a public key is never the secret of an HMAC.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys of a set. Issuers have two or three.
const MOST_KEYS: usize = 64;
/// Bytes of a secret at least: what the weakest of them, HS256, asks for (RFC 7518 §3.2).
const LEAST_SECRET: usize = 32;

/// Algorithms of signatures (RFC 7518 §3.1, RFC 8037 §3.1). `none` isn't one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    const ALL: [(Self, &str); 13] = [
        (Self::Hs256, "HS256"),
        (Self::Hs384, "HS384"),
        (Self::Hs512, "HS512"),
        (Self::Rs256, "RS256"),
        (Self::Rs384, "RS384"),
        (Self::Rs512, "RS512"),
        (Self::Ps256, "PS256"),
        (Self::Ps384, "PS384"),
        (Self::Ps512, "PS512"),
        (Self::Es256, "ES256"),
        (Self::Es384, "ES384"),
        (Self::Es512, "ES512"),
        (Self::EdDsa, "EdDSA"),
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(algorithm, _)| *algorithm)
    }

    /// All names, for people.
    pub(super) fn names() -> String {
        Self::ALL.map(|(_, name)| name).join(", ")
    }
}

/// The keys of one issuer at one time.
pub(crate) struct KeySet {
    /// Of no other set: what was verified by this one is remembered under it.
    pub(super) id: u64,
    keys: Box<[Key]>,
}

struct Key {
    kid: Option<Box<str>>,
    verifiers: Box<[(Algorithm, Verifier)]>,
}

enum Verifier {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

/// Why a signature isn't good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unverified {
    /// No key has that id: a newer set may have it.
    UnknownKey,
    /// It is wrong.
    Wrong,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids: Vec<_> = self.keys.iter().map(|key| key.kid.as_deref().unwrap_or("-")).collect();
        f.debug_tuple("KeySet").field(&self.id).field(&kids).finish()
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

/// Whether secret keys are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    Public,
    Secret,
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys that aren't for signatures, or can't be used, are passed over (RFC 7517 §5). The
    /// error is for the author of the set.
    pub(super) fn parse(text: &str, secrecy: Secrecy) -> Result<Self, String> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let set: Set = serde_json::from_str(text)
            .map_err(|error| format!("it isn't a JSON Web Key Set, {{\"keys\": [...]}}: {error}"))?;
        if set.keys.len() > MOST_KEYS {
            return Err(format!("it has {} keys; at most {MOST_KEYS} are read", set.keys.len()));
        }
        let (mut keys, mut passed_over) = (Vec::new(), Vec::new());
        for (n, key) in set.keys.into_iter().enumerate() {
            let read = serde_json::from_value(key).map_err(|error| error.to_string());
            match read.and_then(|jwk| Key::read(&jwk, secrecy)) {
                Ok(key) => keys.push(key),
                Err(why) => passed_over.push(format!("keys[{n}]: {why}")),
            }
        }
        if keys.is_empty() {
            let why =
                if passed_over.is_empty() { "there are none".to_owned() } else { passed_over.join("; ") };
            return Err(format!("it has no key that tokens can be verified by: {why}"));
        }
        Ok(Self { id: IDS.fetch_add(1, Ordering::Relaxed), keys: keys.into() })
    }

    /// Verifies a signature. With a `kid`, by the keys of that id; else by all that are for the algorithm.
    pub(super) fn verify(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Unverified> {
        let mut wrong = Unverified::UnknownKey;
        for key in self.keys.iter().filter(|key| kid.is_none() || key.kid.as_deref() == kid) {
            wrong = Unverified::Wrong;
            let verifier = key.verifiers.iter().find(|(known, _)| *known == algorithm);
            if verifier.is_some_and(|(_, verifier)| verifier.verifies(message, signature)) {
                return Ok(());
            }
        }
        Err(wrong)
    }
}

impl Verifier {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Public(key) => key.verify_sig(message, signature).is_ok(),
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}

impl Key {
    fn read(jwk: &Jwk, secrecy: Secrecy) -> Result<Self, String> {
        if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig")
            || jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify"))
        {
            return Err("it isn't for signatures".to_owned());
        }
        let mut verifiers = match jwk.kty.as_str() {
            "RSA" => rsa(jwk)?,
            "EC" => elliptic(jwk)?,
            "OKP" => edwards(jwk)?,
            "oct" if secrecy == Secrecy::Secret => secret(jwk)?,
            "oct" => return Err("secret keys (oct) are only taken from a Secret".to_owned()),
            kty => return Err(format!("kty {kty:?} is not supported; there are RSA, EC, OKP and oct")),
        };
        if let Some(alg) = &jwk.alg {
            let only = Algorithm::parse(alg).ok_or_else(|| format!("alg {alg:?} is not supported"))?;
            verifiers.retain(|(algorithm, _)| *algorithm == only);
            if verifiers.is_empty() {
                return Err(format!("alg {alg} isn't one of its kty"));
            }
        }
        Ok(Self { kid: jwk.kid.as_deref().map(Into::into), verifiers: verifiers.into() })
    }
}

type Verifiers = Vec<(Algorithm, Verifier)>;

fn member(name: &str, value: Option<&String>) -> Result<Vec<u8>, String> {
    let value = value.ok_or_else(|| format!("{name} is missing"))?;
    URL_SAFE_NO_PAD.decode(value.trim_end_matches('=')).map_err(|_| format!("{name} isn't base64url"))
}

fn rsa(jwk: &Jwk) -> Result<Verifiers, String> {
    let trimmed = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
    let (n, e) = (trimmed(member("n", jwk.n.as_ref())?), trimmed(member("e", jwk.e.as_ref())?));
    if !(256..=1024).contains(&n.len()) {
        return Err(format!("it has {} bits; RSA keys have from 2048 to 8192", n.len() * 8));
    }
    let kinds: [(Algorithm, &'static RsaParameters); 6] = [
        (Algorithm::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
        (Algorithm::Rs384, &signature::RSA_PKCS1_2048_8192_SHA384),
        (Algorithm::Rs512, &signature::RSA_PKCS1_2048_8192_SHA512),
        (Algorithm::Ps256, &signature::RSA_PSS_2048_8192_SHA256),
        (Algorithm::Ps384, &signature::RSA_PSS_2048_8192_SHA384),
        (Algorithm::Ps512, &signature::RSA_PSS_2048_8192_SHA512),
    ];
    let components = RsaPublicKeyComponents { n: &n, e: &e };
    let kind = |(algorithm, parameters): (Algorithm, &'static RsaParameters)| {
        let key = components.to_parsed_public_key(parameters);
        key.map(|key| (algorithm, Verifier::Public(key))).map_err(|_| "it is no RSA key".to_owned())
    };
    kinds.into_iter().map(kind).collect()
}

fn elliptic(jwk: &Jwk) -> Result<Verifiers, String> {
    let (algorithm, kind, length): (_, &'static dyn VerificationAlgorithm, _) = match jwk.crv.as_deref() {
        Some("P-256") => (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED, 32),
        Some("P-384") => (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED, 48),
        Some("P-521") => (Algorithm::Es512, &signature::ECDSA_P521_SHA512_FIXED, 66),
        other => return Err(format!("crv {other:?} is not supported; there are P-256, P-384 and P-521")),
    };
    let (x, y) = (member("x", jwk.x.as_ref())?, member("y", jwk.y.as_ref())?);
    if x.len() != length || y.len() != length {
        return Err(format!("x and y have {length} bytes each"));
    }
    let point = [&[4], &*x, &*y].concat();
    let key = ParsedPublicKey::new(kind, point).map_err(|_| "it is no point of its curve".to_owned())?;
    Ok(vec![(algorithm, Verifier::Public(key))])
}

fn edwards(jwk: &Jwk) -> Result<Verifiers, String> {
    if jwk.crv.as_deref() != Some("Ed25519") {
        return Err(format!("crv {:?} is not supported; there is Ed25519", jwk.crv));
    }
    let key = ParsedPublicKey::new(&signature::ED25519, member("x", jwk.x.as_ref())?);
    let key = key.map_err(|_| "it is no Ed25519 key".to_owned())?;
    Ok(vec![(Algorithm::EdDsa, Verifier::Public(key))])
}

fn secret(jwk: &Jwk) -> Result<Verifiers, String> {
    let secret = member("k", jwk.k.as_ref())?;
    if secret.len() < LEAST_SECRET {
        return Err(format!("k has {} bytes; it needs {LEAST_SECRET}", secret.len()));
    }
    let kinds = [
        (Algorithm::Hs256, hmac::HMAC_SHA256),
        (Algorithm::Hs384, hmac::HMAC_SHA384),
        (Algorithm::Hs512, hmac::HMAC_SHA512),
    ];
    let kind = |(algorithm, kind)| (algorithm, Verifier::Secret(Box::new(hmac::Key::new(kind, &secret))));
    Ok(kinds.into_iter().map(kind).collect())
}
