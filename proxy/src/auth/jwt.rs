//! Clients with tokens of an issuer.

use super::credential::{Found, Place, find};
use super::keys::{Algorithm, KeySet, Secrecy};
use super::remote::{Remote, Remotes};
use super::token::{Demands, Refused, Token, Tokens};
use super::{Identity, Known, Said, told_by};
use crate::expression::View;
use crate::model::{JwtAuth, JwtKeys, Text};
use crate::rejection::Rejection;
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use std::sync::Arc;
use std::time::SystemTime;

/// A compiled issuer.
#[derive(Debug)]
pub(super) struct Jwt {
    demands: Demands,
    keys: Keys,
    from: Box<[Place]>,
    forward: bool,
    consumer_claim: Text,
    claims_to_headers: Box<[(Text, HeaderName)]>,
}

#[derive(Debug)]
enum Keys {
    Known(Arc<KeySet>),
    Remote(Arc<Remote>),
    /// Nothing is fetched: only whether the rest is right is wanted.
    Unfetched,
}

impl Jwt {
    pub(super) fn compile(from: &JwtAuth, remotes: Option<&mut Remotes>) -> Result<Self, String> {
        let algorithm = |name: &Text| {
            Algorithm::parse(name).ok_or_else(|| {
                format!("algorithms: {name:?} is not supported; there are {}", Algorithm::names())
            })
        };
        let field = |(n, from): (usize, &crate::model::ClaimToHeader)| {
            let name = told_by(&format!("claimsToHeaders[{n}].header"), &from.header)?;
            Ok((from.claim.clone(), name))
        };
        let known = |text: &str, secrecy| {
            KeySet::parse(text, secrecy)
                .map(|keys| Keys::Known(Arc::new(keys)))
                .map_err(|why| format!("jwks: {why}"))
        };
        let keys = match (&from.keys, remotes) {
            (JwtKeys::Public(text), _) => known(text, Secrecy::Public)?,
            (JwtKeys::Secret(text), _) => known(text.reveal(), Secrecy::Secret)?,
            (JwtKeys::Remote(source), Some(remotes)) => Keys::Remote(remotes.get(source)?),
            (JwtKeys::Remote(_), None) => Keys::Unfetched,
        };
        Ok(Self {
            demands: Demands {
                issuer: from.issuer.as_deref().map(Into::into),
                audiences: from.audiences.iter().map(|audience| (&**audience).into()).collect(),
                algorithms: from.algorithms.iter().map(algorithm).collect::<Result<_, _>>()?,
                leeway: from.leeway.as_secs_f64(),
            },
            keys,
            from: Place::all(&from.from)?,
            forward: from.forward,
            consumer_claim: from.consumer_claim.clone(),
            claims_to_headers: from
                .claims_to_headers
                .iter()
                .enumerate()
                .map(field)
                .collect::<Result<_, String>>()?,
        })
    }

    /// Fields that it sets.
    pub(super) fn sets(&self) -> impl Iterator<Item = &HeaderName> {
        self.claims_to_headers.iter().map(|(_, name)| name)
    }

    pub(super) async fn ask(&self, view: &View<'_>, tokens: &Tokens) -> Said<'_> {
        let text = match find(&self.from, view) {
            Found::Nothing => return Said::Missing,
            Found::Unclear => return Said::Wrong,
            Found::One(text) => text,
        };
        let verified = match &self.keys {
            Keys::Known(keys) => tokens.verify(&text, keys),
            Keys::Remote(remote) => match remote.keys().await {
                None => return Said::Unable(Rejection::KeysUnavailable),
                Some(keys) => match tokens.verify(&text, &keys) {
                    Err(Refused::UnknownKey) => match remote.newer(&keys).await {
                        None => Err(Refused::UnknownKey),
                        Some(newer) => tokens.verify(&text, &newer),
                    },
                    verified => verified,
                },
            },
            Keys::Unfetched => return Said::Unable(Rejection::KeysUnavailable),
        };
        match verified {
            Ok(token) if token.meets(&self.demands, now()) => Said::Known(self.known(&token)),
            Ok(_) | Err(Refused::UnknownKey | Refused::Invalid) => Said::Wrong,
        }
    }

    fn known(&self, token: &Token) -> Known<'_> {
        let mut identity = Identity { consumer: None, claims: Some(token.claims.clone()) };
        identity.consumer = identity.claim(&self.consumer_claim).and_then(Value::as_str).map(Into::into);
        let fields = self
            .claims_to_headers
            .iter()
            .filter_map(|(claim, name)| Some((name, value(identity.claim(claim)?)?)))
            .collect();
        Known { identity, fields, withheld: if self.forward { &[] } else { &self.from } }
    }
}

/// Seconds since the Unix epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A claim as the value of a field: text, numbers, true and false, and lists of them with commas. A claim with controls
/// never becomes a field (security.md §6).
fn value(claim: &Value) -> Option<HeaderValue> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let text = match claim {
        Value::Array(list) => list.iter().map(text).collect::<Option<Vec<_>>>()?.join(","),
        Value::String(_) | Value::Bool(_) | Value::Number(_) | Value::Null | Value::Object(_) => text(claim)?,
    };
    if text.chars().any(char::is_control) {
        return None;
    }
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_become_fields_unless_they_could_be_more_than_one() {
        for (claim, field) in [
            (json!("alice"), Some("alice")),
            (json!(7), Some("7")),
            (json!(true), Some("true")),
            (json!(["a", 1]), Some("a,1")),
            (json!("a\r\nx-admin: 1"), None),
            (json!("a\u{85}"), None),
            (json!({"a": 1}), None),
            (json!([["a"]]), None),
            (json!(null), None),
        ] {
            assert_eq!(value(&claim).as_ref().map(|value| value.to_str().unwrap()), field, "{claim}");
        }
        assert_eq!(value(&json!("Zoë")).unwrap().as_bytes(), "Zoë".as_bytes());
    }
}
