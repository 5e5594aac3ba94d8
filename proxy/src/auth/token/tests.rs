use super::*;
use crate::auth::claims::ClaimFields;
use crate::auth::keys::Secrecy;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding,
};
use serde_json::json;
use std::cell::Cell;
use std::sync::LazyLock;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;

const NOW: f64 = 1_800_000_000.0;
const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

struct Signers {
    rsa: rsa::KeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

static SIGNERS: LazyLock<Signers> = LazyLock::new(|| Signers {
    rsa: rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap(),
    ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
    ed: Ed25519KeyPair::generate().unwrap(),
});

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signers {
    fn rsa_modulus(&self) -> Vec<u8> {
        let der = self.rsa.public_key().as_ref().to_vec();
        let (_, key) = RSAPublicKey::from_der(&der).unwrap();
        key.modulus.iter().copied().skip_while(|byte| *byte == 0).collect()
    }

    fn set(&self) -> serde_json::Value {
        let point = self.ec.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "n": text(self.rsa_modulus()), "e": "AQAB"},
            {"kty": "EC", "kid": "ec", "crv": "P-256", "use": "sig", "x": text(&point[1..33]), "y": text(&point[33..])},
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "alg": "EdDSA", "x": text(self.ed.public_key())},
            {"kty": "oct", "kid": "mac", "k": text(SECRET)},
            {"kty": "RSA", "kid": "sealed", "use": "enc", "n": text(self.rsa_modulus()), "e": "AQAB"},
        ]})
    }

    fn sign(&self, header: &serde_json::Value, claims: &str) -> String {
        let message = format!("{}.{}", text(header.to_string()), text(claims));
        let bytes = message.as_bytes();
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(encoding, &SystemRandom::new(), bytes, &mut signature).unwrap();
            signature
        };
        let mac =
            |secret: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), bytes).as_ref().to_vec();
        let signature = match header["alg"].as_str().unwrap() {
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "ES256" => self.ec.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(bytes).as_ref().to_vec(),
            // The classic confusion: a public key as the secret.
            "HS256" if header["kid"] == "rsa" => mac(&self.rsa_modulus()),
            "HS256" => mac(SECRET),
            _ => Vec::new(),
        };
        format!("{message}.{}", text(signature))
    }
}

fn keys() -> KeySet {
    KeySet::parse(&SIGNERS.set().to_string(), Secrecy::Secret).unwrap()
}

fn claims() -> String {
    json!({"sub": "alice", "exp": NOW + 60.0, "iss": "https://issuer.example", "aud": ["shop", "cart"]})
        .to_string()
}

fn verify(header: &serde_json::Value, claims: &str) -> Result<Token, Refused> {
    Token::verify(&SIGNERS.sign(header, claims), &keys())
}

#[test]
fn signatures_are_verified_by_the_key_that_the_token_names() {
    for (alg, kid) in [("RS256", "rsa"), ("PS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed"), ("HS256", "mac")]
    {
        let token = verify(&json!({"alg": alg, "kid": kid, "typ": "JWT"}), &claims()).unwrap();
        assert_eq!(token.claims["sub"], "alice", "{alg}");
        // Without a kid all keys of the kind are tried.
        verify(&json!({"alg": alg}), &claims()).unwrap();
        assert_eq!(verify(&json!({"alg": alg, "kid": "new"}), &claims()).unwrap_err(), Refused::UnknownKey);
    }
}

#[test]
fn forged_and_confused_tokens_are_refused() {
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "None", "kid": "rsa"}),
        json!({"alg": "HS256", "kid": "rsa"}),
        json!({"alg": "RS256", "kid": "ec"}),
        json!({"alg": "ES256", "kid": "rsa"}),
        json!({"alg": "RS512", "kid": "rsa"}),
        json!({"alg": "RS256", "kid": 7}),
        json!({"alg": "RS256", "kid": "rsa", "crit": ["exp"]}),
        json!({"alg": "RS256", "kid": "rsa", "crit": []}),
        json!({"kid": "rsa", "alg": 1, "jwk": SIGNERS.set()["keys"][0]}),
    ] {
        let token = format!("{}.{}.", text(header.to_string()), text(claims()));
        assert_eq!(Token::verify(&token, &keys()).unwrap_err(), Refused::Invalid, "{header}");
        if header["alg"].is_string() {
            assert_eq!(verify(&header, &claims()).unwrap_err(), Refused::Invalid, "{header}");
        }
    }
    // A key for encryption verifies nothing, and is as if it weren't there.
    assert_eq!(
        verify(&json!({"alg": "RS256", "kid": "sealed"}), &claims()).unwrap_err(),
        Refused::UnknownKey
    );
    let good = SIGNERS.sign(&json!({"alg": "ES256", "kid": "ec"}), &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let other =
        SIGNERS.sign(&json!({"alg": "ES256", "kid": "ec"}), &json!({"sub": "root", "exp": 9e9}).to_string());
    let moved = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
    let long = format!("{good}{}", "A".repeat(LENGTH));
    for bad in
        ["", ".", "..", "a.b.c", message, &moved, &format!("{good}="), &format!("{good}.{good}"), &long]
    {
        assert_eq!(Token::verify(bad, &keys()).unwrap_err(), Refused::Invalid, "{bad}");
    }
}

#[test]
fn claims_that_can_be_read_in_two_ways_are_refused() {
    let header = json!({"alg": "EdDSA", "kid": "ed"});
    for claims in [
        r#"{"sub": "alice"}"#,
        r#"{"sub": "alice", "exp": null}"#,
        r#"{"sub": "alice", "exp": "1900000000"}"#,
        r#"{"sub": "alice", "sub": "root", "exp": 1900000000}"#,
        r#"{"exp": 1900000000, "nbf": "1"}"#,
        r#"{"exp": 1900000000, "iat": {}}"#,
        r#"["exp"]"#,
        "",
        "exp",
    ] {
        assert_eq!(verify(&header, claims).unwrap_err(), Refused::Invalid, "{claims}");
    }
    let deep = format!(r#"{{"exp": 1900000000, "a": {}1{}}}"#, "[".repeat(20), "]".repeat(20));
    assert_eq!(verify(&header, &deep).unwrap_err(), Refused::Invalid);
    verify(&header, r#"{"exp": 1900000000.5}"#).unwrap();
}

#[test]
fn a_token_is_for_somebody_and_for_a_time() {
    let token = |more: serde_json::Value| {
        let mut claims: serde_json::Value = serde_json::from_str(&claims()).unwrap();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        verify(&json!({"alg": "ES256"}), &claims.to_string()).unwrap()
    };
    let demands = |issuer: Option<&str>, audiences: &[&str], algorithms: &[Algorithm]| Demands {
        issuer: issuer.map(Into::into),
        audiences: audiences.iter().map(|audience| (*audience).into()).collect(),
        algorithms: algorithms.into(),
        leeway: 10.0,
    };
    let plain = demands(None, &[], &[]);
    let issuer = "https://issuer.example";
    assert!(token(json!({})).meets(&plain, NOW));
    assert!(token(json!({})).meets(&demands(Some(issuer), &["x", "cart"], &[Algorithm::Es256]), NOW));
    assert!(token(json!({"aud": "shop"})).meets(&demands(None, &["shop"], &[]), NOW));
    assert!(!token(json!({})).meets(&demands(Some("https://issuer.example/"), &[], &[]), NOW));
    assert!(!token(json!({"iss": [issuer]})).meets(&demands(Some(issuer), &[], &[]), NOW));
    assert!(!token(json!({})).meets(&demands(None, &["other"], &[]), NOW));
    assert!(!token(json!({"aud": null})).meets(&demands(None, &["shop"], &[]), NOW));
    assert!(!token(json!({})).meets(&demands(None, &[], &[Algorithm::Rs256]), NOW));
    // Ten seconds of leeway.
    assert!(token(json!({"exp": NOW - 9.0})).meets(&plain, NOW));
    assert!(!token(json!({"exp": NOW - 10.0})).meets(&plain, NOW));
    assert!(token(json!({"nbf": NOW + 10.0})).meets(&plain, NOW));
    assert!(!token(json!({"nbf": NOW + 11.0})).meets(&plain, NOW));
}

/// A signature is verified once by each set of keys, and not at all by one that is gone.
#[test]
fn verified_tokens_are_remembered_under_their_keys() {
    let (tokens, first, second) = (Tokens::default(), keys(), keys());
    let text = SIGNERS.sign(&json!({"alg": "ES256", "kid": "ec"}), &claims());
    let once = tokens.verify(&text, &first).unwrap();
    assert!(Rc::ptr_eq(&once, &tokens.verify(&text, &first).unwrap()));
    assert!(!Rc::ptr_eq(&once, &tokens.verify(&text, &second).unwrap()));
    let other =
        KeySet::parse(&json!({"keys": [SIGNERS.set()["keys"][0]]}).to_string(), Secrecy::Public).unwrap();
    assert_eq!(tokens.verify(&text, &other).unwrap_err(), Refused::UnknownKey);
    // So many others that the first is forgotten, unless it is used.
    let other = |n: usize| {
        SIGNERS.sign(&json!({"alg": "HS256", "kid": "mac"}), &json!({"exp": 9e9, "n": n}).to_string())
    };
    for n in 0..3 * REMEMBERED {
        tokens.verify(&other(n), &first).unwrap();
        if n < REMEMBERED {
            assert!(Rc::ptr_eq(&once, &tokens.verify(&text, &first).unwrap()));
        }
    }
    let held: usize = tokens.0.borrow().iter().map(HashMap::len).sum();
    assert!(held <= 2 * REMEMBERED, "{held}");
    assert!(!Rc::ptr_eq(&once, &tokens.verify(&text, &first).unwrap()));
}

/// What a token says is found out anew for another who asks, and for the first when another has asked meanwhile.
#[test]
fn what_a_token_says_is_remembered_for_one_who_asks() {
    let (tokens, keys) = (Tokens::default(), keys());
    let token =
        tokens.verify(&SIGNERS.sign(&json!({"alg": "ES256", "kid": "ec"}), &claims()), &keys).unwrap();
    let claims = |consumer: &str| ClaimFields::compile(&consumer.into(), &[]).unwrap();
    let (subject, issuer) = (claims("sub"), claims("iss"));
    let asked = Cell::new(0);
    let ask = |id, fields: &ClaimFields| {
        let told = token.told(id, |token| {
            asked.set(asked.get() + 1);
            Some(fields.of(token.claims.clone()))
        });
        let known = fields.known(&told.unwrap());
        (known.identity.consumer().unwrap().to_string(), asked.get())
    };
    let consumer = |claim: &str| token.token.claims[claim].as_str().unwrap().to_owned();
    assert_eq!(ask(1, &subject), (consumer("sub"), 1));
    assert_eq!(ask(1, &subject), (consumer("sub"), 1));
    assert_eq!(ask(2, &issuer), (consumer("iss"), 2));
    assert_eq!(ask(1, &subject), (consumer("sub"), 3));
    // Nor is it asked again by one to whom it says nothing.
    let mut asked = 0;
    let mut ask = |_: &Token| {
        asked += 1;
        None
    };
    assert!(token.told(3, &mut ask).is_none() && token.told(3, &mut ask).is_none());
    assert_eq!(asked, 1);
}

#[test]
fn sets_without_a_usable_key_are_told_to_their_author() {
    let told = |set: serde_json::Value, secrecy| KeySet::parse(&set.to_string(), secrecy).unwrap_err();
    for (set, why) in [
        (json!({}), "it isn't a JSON Web Key Set"),
        (json!({"keys": []}), "there are none"),
        (json!({"keys": [{"kty": "oct", "k": text(SECRET)}]}), "only taken from a Secret"),
        (json!({"keys": [{"kty": "RSA", "n": text([255; 128]), "e": "AQAB"}]}), "1024 bits"),
        (json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}), "32 bytes each"),
        (json!({"keys": [{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}]}), "P-521"),
        (
            json!({"keys": [{"kty": "EC", "crv": "P-256", "x": text([1; 32]), "y": text([1; 32])}]}),
            "no point",
        ),
        (
            json!({"keys": [{"kty": "RSA", "alg": "ES256", "n": text([255; 256]), "e": "AQAB"}]}),
            "isn't one of its kty",
        ),
    ] {
        let error = told(set, Secrecy::Public);
        assert!(error.contains(why), "{error}");
    }
    assert!(told(json!({"keys": [{"kty": "oct", "k": "AAAA"}]}), Secrecy::Secret).contains("3 bytes"));
}
