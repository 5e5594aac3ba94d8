//! JSON Web Tokens (RFC 7519) as JWS in compact form (RFC 7515): from text to verified claims, and the memory of those.
//!
//! What isn't read: sources of keys that the token names (`jku`, `jwk`, `x5u`, `x5c`), encrypted tokens, tokens without a
//! signature. A token that was verified is remembered ([`Tokens`]), by all of its text and the key set that verified it;
//! with it, what it said to whom it was shown last, who has looked at its issuer and audience. Its times are looked at each time.

use super::claims::Told;
use super::json::{Object, object};
use super::keys::{Algorithm, KeySet, Unverified};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hashbrown::{Equivalent, HashMap};
use serde_json::Value;
use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

/// Bytes of a token (security.md §6).
const LENGTH: usize = 8 * 1024;
/// Tokens that a thread remembers: twice as many at most. At a kilobyte each, and as much for its claims, 4 MiB.
const REMEMBERED: usize = 1_024;

/// A token whose signature is good.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) claims: Arc<Object>,
    algorithm: Algorithm,
    /// Seconds since the Unix epoch.
    expires: f64,
    not_before: Option<f64>,
}

/// Why a token isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its key isn't in the set; a newer set may have it.
    UnknownKey,
    /// Anything else.
    Invalid,
}

/// What is asked of a token besides its signature.
#[derive(Debug)]
pub(super) struct Demands {
    pub(super) issuer: Option<Box<str>>,
    pub(super) audiences: Box<[Box<str>]>,
    /// Empty: all.
    pub(super) algorithms: Box<[Algorithm]>,
    pub(super) leeway: f64,
}

impl Token {
    /// Verifies the signature.
    pub(super) fn verify(text: &str, keys: &KeySet) -> Result<Self, Refused> {
        if text.len() > LENGTH {
            return Err(Refused::Invalid);
        }
        let invalid = || Refused::Invalid;
        let (message, signature) = text.rsplit_once('.').ok_or_else(invalid)?;
        let (header, claims) = message.split_once('.').ok_or_else(invalid)?;
        // A point more is another's form: encrypted tokens have five parts.
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Invalid);
        let (header, claims, signature) = (decode(header)?, decode(claims)?, decode(signature)?);
        let header = object(&header).ok_or_else(invalid)?;
        // What must be understood (RFC 7515 §4.1.11), and we understand no such thing.
        if header.contains_key("crit") {
            return Err(Refused::Invalid);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse);
        let algorithm = algorithm.ok_or_else(invalid)?;
        let kid = match header.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str().ok_or_else(invalid)?),
        };
        keys.verify(kid, algorithm, message.as_bytes(), &signature).map_err(|why| match why {
            Unverified::UnknownKey => Refused::UnknownKey,
            Unverified::Wrong => Refused::Invalid,
        })?;
        let claims = object(&claims).ok_or_else(invalid)?;
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().filter(|time| time.is_finite()).map(Some).ok_or_else(invalid),
        };
        let expires = time("exp")?.ok_or_else(invalid)?;
        time("iat")?;
        let not_before = time("nbf")?;
        Ok(Self { claims: Arc::new(claims), algorithm, expires, not_before })
    }

    /// When it does, in seconds since the Unix epoch.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is before 1970 has expired"
    )]
    pub(super) fn expires(&self) -> u64 {
        self.expires as u64
    }

    /// Whether it is for us, now. `now`: seconds since the Unix epoch.
    pub(super) fn meets(&self, demands: &Demands, now: f64) -> bool {
        self.is_in_force(demands.leeway, now) && self.is_for(demands)
    }

    /// Whether its times allow it. `now`: seconds since the Unix epoch.
    pub(super) fn is_in_force(&self, leeway: f64, now: f64) -> bool {
        now < self.expires + leeway && self.not_before.is_none_or(|begin| now >= begin - leeway)
    }

    /// Whether it is for us, at whatever time.
    pub(super) fn is_for(&self, demands: &Demands) -> bool {
        let Demands { issuer, audiences, algorithms, leeway: _ } = demands;
        let text = |claim: &str| self.claims.get(claim).and_then(Value::as_str);
        let wanted = |audience: &str| audiences.iter().any(|wanted| **wanted == *audience);
        let audience = || match self.claims.get("aud") {
            Some(Value::String(audience)) => wanted(audience),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).any(wanted),
            None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => false,
        };
        issuer.as_deref().is_none_or(|issuer| text("iss") == Some(issuer))
            && (audiences.is_empty() || audience())
            && (algorithms.is_empty() || algorithms.contains(&self.algorithm))
    }
}

/// Seconds since the Unix epoch.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A key set's id, and a token.
#[derive(PartialEq, Eq)]
struct Known(u64, Box<str>);

struct Sought<'a>(u64, &'a str);

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Sought(self.0, &self.1).hash(state);
    }
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
        state.write(self.1.as_bytes());
    }
}

impl Equivalent<Known> for Sought<'_> {
    fn equivalent(&self, known: &Known) -> bool {
        (self.0, self.1) == (known.0, &*known.1)
    }
}

/// A token that a thread has verified.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) token: Token,
    /// Whom it was shown last, and what it said to them.
    told: RefCell<Option<(u64, Option<Rc<Told>>)>>,
}

impl Verified {
    fn new(token: Token) -> Self {
        Self { token, told: RefCell::default() }
    }

    /// What it says to somebody, if it is for them; `tell` asks it, which always comes to the same.
    pub(super) fn told(&self, to: u64, tell: impl FnOnce(&Token) -> Option<Told>) -> Option<Rc<Told>> {
        let mut told = self.told.borrow_mut();
        match &*told {
            Some((last, told)) if *last == to => told.clone(),
            Some(_) | None => told.insert((to, tell(&self.token).map(Rc::new))).1.clone(),
        }
    }
}

/// Tokens that a thread has verified. Two generations: when the younger is full it becomes the older, whose tokens are
/// forgotten, unless they were used since.
#[derive(Default)]
pub(crate) struct Tokens(RefCell<[HashMap<Known, Rc<Verified>>; 2]>);

impl Tokens {
    /// Verifies a token, or remembers that it was.
    pub(super) fn verify(&self, text: &str, keys: &KeySet) -> Result<Rc<Verified>, Refused> {
        let mut generations = self.0.borrow_mut();
        let [young, old] = &mut *generations;
        let sought = Sought(keys.id, text);
        if let Some(known) = young.get(&sought) {
            return Ok(known.clone());
        }
        let token = match old.remove(&sought) {
            Some(known) => known,
            None => Rc::new(Verified::new(Token::verify(text, keys)?)),
        };
        if young.len() >= REMEMBERED {
            generations.swap(0, 1);
            generations[0].clear();
        }
        generations[0].insert(Known(keys.id, text.into()), token.clone());
        Ok(token)
    }
}

#[cfg(test)]
mod tests;
