//! Clients with tokens of an issuer.

use super::claims::ClaimFields;
use super::credential::{Found, Place, find};
use super::keys::{Algorithm, KeySet, Secrecy};
use super::remote::{Remote, Remotes};
use super::token::{Demands, Refused, Token, Tokens, Verified, now};
use super::{Known, Said};
use crate::expression::View;
use crate::model::{JwtAuth, JwtKeys, Text};
use crate::rejection::Rejection;
use http::HeaderName;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A compiled issuer.
#[derive(Debug)]
pub(super) struct Jwt {
    /// Of no other: what tokens said to it is remembered under it.
    id: u64,
    demands: Demands,
    keys: Keys,
    pub(super) from: Box<[Place]>,
    forward: bool,
    told: ClaimFields,
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
        static IDS: AtomicU64 = AtomicU64::new(0);
        let algorithm = |name: &Text| {
            Algorithm::parse(name).ok_or_else(|| {
                format!("algorithms: {name:?} is not supported; there are {}", Algorithm::names())
            })
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
            id: IDS.fetch_add(1, Ordering::Relaxed),
            demands: Demands {
                issuer: from.issuer.as_deref().map(Into::into),
                audiences: from.audiences.iter().map(|audience| (&**audience).into()).collect(),
                algorithms: from.algorithms.iter().map(algorithm).collect::<Result<_, _>>()?,
                leeway: from.leeway.as_secs_f64(),
            },
            keys,
            from: Place::all(&from.from)?,
            forward: from.forward,
            told: ClaimFields::compile(&from.consumer_claim, &from.claims_to_headers)?,
        })
    }

    /// Fields that it sets.
    pub(super) fn sets(&self) -> impl Iterator<Item = &HeaderName> {
        self.told.names()
    }

    /// What it says, unless keys have to be waited for.
    pub(super) fn ask(&self, view: &View<'_>, tokens: &Tokens) -> Option<Said<'_>> {
        let text = match find(&self.from, view) {
            Found::Nothing => return Some(Said::Missing),
            Found::Unclear => return Some(Said::Wrong),
            Found::One(text) => text,
        };
        let verified = match &self.keys {
            Keys::Known(keys) => tokens.verify(&text, keys),
            Keys::Remote(remote) => {
                let keys = remote.known()?;
                let verified = tokens.verify(&text, &keys);
                // A newer set may have its key.
                if matches!(verified, Err(Refused::UnknownKey)) {
                    return None;
                }
                verified
            }
            Keys::Unfetched => return Some(Said::Unable(Rejection::KeysUnavailable)),
        };
        Some(self.judge(verified))
    }

    /// The same, when keys have been waited for.
    pub(super) async fn wait(&self, view: &View<'_>, tokens: &Tokens) -> Said<'_> {
        let (Keys::Remote(remote), Found::One(text)) = (&self.keys, find(&self.from, view)) else {
            return Said::Unable(Rejection::KeysUnavailable);
        };
        match remote.verify(|keys| tokens.verify(&text, keys)).await {
            None => Said::Unable(Rejection::KeysUnavailable),
            Some(verified) => self.judge(verified),
        }
    }

    /// Judges a token whose signature is good: by the time each time, by all that doesn't change once.
    fn judge(&self, verified: Result<Rc<Verified>, Refused>) -> Said<'_> {
        let Ok(verified) = verified else { return Said::Wrong };
        if !verified.token.is_in_force(self.demands.leeway, now()) {
            return Said::Wrong;
        }
        let tell = |token: &Token| token.is_for(&self.demands).then(|| self.told.of(token.claims.clone()));
        let Some(told) = verified.told(self.id, tell) else { return Said::Wrong };
        let withheld = if self.forward { &[][..] } else { &self.from };
        Said::Known(Known { withheld, ..self.told.known(&told) })
    }
}
