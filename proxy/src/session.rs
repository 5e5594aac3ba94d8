//! `sessionPersistence` (GEP-1619): a client that shows the token it was given goes to the same endpoint again.
//!
//! A token names an endpoint by a hash, and when it was given: all replicas read the same from it, and none keeps anything.
//! It isn't secret and isn't signed: a forged one chooses among the endpoints that the client could have been sent to
//! anyway. One whose endpoint is gone, or whose time is over, is as good as none: the request is balanced, and the answer
//! brings a new one. Of a rule that splits, a session is the rule's, or else that of each backend.

use crate::expression::cookies;
use crate::model::{self, Carrier, Scheme};
use crate::router::{Split, SplitBackend};
use crate::upstream::BackendState;
use crate::upstream::pick::Choice;
use http::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Hexadecimal digits of a token: eight of the time in seconds, sixteen of the endpoint.
const DIGITS: usize = 24;
const TIME_DIGITS: usize = 8;

/// A compiled session persistence.
#[derive(Debug)]
pub struct Session {
    carrier: Compiled,
    /// How long a token is good.
    lifetime: Option<Duration>,
}

#[derive(Debug)]
enum Compiled {
    Cookie {
        name: Box<str>,
        /// What follows the value in `Set-Cookie`.
        attributes: Box<str>,
    },
    Header(HeaderName),
}

/// Where a client's token sends it.
#[derive(Debug)]
pub(crate) struct Held {
    /// Which share of the split.
    pub(crate) share: usize,
    /// Which endpoint.
    pub(crate) choice: Choice,
    endpoint: SocketAddr,
}

impl Session {
    pub(crate) fn compile(from: &model::Session) -> Result<Self, String> {
        let carrier = match &from.carrier {
            Carrier::Cookie { name, path, permanent } => {
                // A cookie's name is a token, as a field's is (RFC 6265 §4.1.1).
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| format!("cookie.name: {name:?} isn't the name of a cookie"))?;
                if !path.starts_with('/') || path.bytes().any(|byte| byte == b';' || !byte.is_ascii_graphic())
                {
                    return Err(format!("cookie.path: {path:?} isn't a path"));
                }
                let mut attributes = format!("; Path={path}; HttpOnly; SameSite=Lax");
                match (permanent, from.lifetime) {
                    (false, _) => {}
                    (true, Some(lifetime)) => attributes += &format!("; Max-Age={}", lifetime.as_secs()),
                    (true, None) => {
                        return Err("cookie.lifetimeType: Permanent needs an absoluteTimeout".to_owned());
                    }
                }
                Compiled::Cookie { name: (**name).into(), attributes: attributes.into() }
            }
            Carrier::Header { name } => Compiled::Header(crate::filter::field_name(name)?),
        };
        Ok(Self { carrier, lifetime: from.lifetime })
    }

    /// The endpoint that a good token among a request's fields names, as a hash.
    fn named(&self, headers: &HeaderMap) -> Option<u64> {
        let token = match &self.carrier {
            Compiled::Cookie { name, .. } => cookie(headers, name)?,
            Compiled::Header(name) => headers.get(name)?.to_str().ok()?,
        };
        let (given, hash) = read(token)?;
        let age = u64::from(now().saturating_sub(given));
        self.lifetime.is_none_or(|lifetime| Duration::from_secs(age) < lifetime).then_some(hash)
    }

    /// Gives a token for an endpoint to a client that came without, or with another.
    pub(crate) fn give(
        &self,
        headers: &mut HeaderMap,
        held: Option<&Held>,
        backend: &BackendState,
        endpoint: SocketAddr,
        scheme: Scheme,
    ) {
        if held.is_some_and(|held| held.endpoint == endpoint) {
            return;
        }
        let token = format!("{:08x}{:016x}", now(), endpoint_hash(seed(backend), endpoint));
        let (field, text) = match &self.carrier {
            Compiled::Header(name) => (name.clone(), token),
            Compiled::Cookie { name, attributes } => {
                let secure = match scheme {
                    Scheme::Http => "",
                    Scheme::Https => "; Secure",
                };
                (SET_COOKIE, [name, "=", &token, attributes, secure].concat())
            }
        };
        // Digits, and what was checked when it was compiled.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(field, value);
        }
    }
}

/// Where the tokens among a request's fields send it, if one is good: that of the rule, or else those of the backends.
pub(crate) fn held(rule: Option<&Session>, headers: &HeaderMap, split: &Split) -> Option<Box<Held>> {
    let mut shares = split.backends().enumerate();
    match rule {
        Some(session) => {
            let hash = session.named(headers)?;
            shares.find_map(|(position, share)| Held::by(hash, position, share))
        }
        None => shares
            .find_map(|(position, share)| Held::by(share.session.as_ref()?.named(headers)?, position, share)),
    }
}

impl Held {
    fn by(hash: u64, position: usize, share: &SplitBackend) -> Option<Box<Self>> {
        let backend = share.target.as_ref().ok()?;
        let seed = seed(backend);
        let endpoint = backend.find_endpoint(|socket| endpoint_hash(seed, socket) == hash)?;
        Some(Box::new(Self { share: position, choice: Choice::Same(endpoint), endpoint }))
    }
}

/// Whether a session persistence can be compiled. The error names what is wrong, for the author of the route.
pub fn check(session: &model::Session) -> Result<(), String> {
    Session::compile(session).map(drop)
}

/// Seconds since 1970; enough until 2106.
fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    cookies(headers).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn read(token: &str) -> Option<(u32, u64)> {
    if token.len() != DIGITS || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (time, hash) = token.split_at(TIME_DIGITS);
    Some((u32::from_str_radix(time, 16).ok()?, u64::from_str_radix(hash, 16).ok()?))
}

/// FNV-1a, 64 bits: the same in every replica and version. It spreads; it hides nothing.
fn fnv(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn seed(backend: &BackendState) -> u64 {
    let id = backend.id();
    let name = fnv(fnv(0xcbf2_9ce4_8422_2325, id.name.namespace.as_bytes()), b"/");
    fnv(fnv(name, id.name.name.as_bytes()), &id.port.to_be_bytes())
}

fn endpoint_hash(seed: u64, endpoint: SocketAddr) -> u64 {
    let address = match endpoint.ip() {
        IpAddr::V4(address) => fnv(seed, &address.octets()),
        IpAddr::V6(address) => fnv(seed, &address.octets()),
    };
    fnv(address, &endpoint.port().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_cookie(name: &str, path: &str, permanent: bool, lifetime: Option<u64>) -> model::Session {
        let carrier = Carrier::Cookie { name: name.into(), path: path.into(), permanent };
        model::Session { carrier, lifetime: lifetime.map(Duration::from_secs) }
    }

    #[test]
    fn what_makes_no_cookie_is_refused() {
        for from in [
            of_cookie("a b", "/", false, None),
            of_cookie("a", "x", false, None),
            of_cookie("a", "/; Domain=b", false, None),
            of_cookie("a", "/", true, None),
            model::Session { carrier: Carrier::Header { name: "host".into() }, lifetime: None },
        ] {
            assert!(check(&from).is_err(), "{from:?}");
        }
        assert_eq!(check(&of_cookie("a", "/b", true, Some(60))), Ok(()));
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::COOKIE, HeaderValue::from_static("xs=1; s=2;s=3; sx=4; odd"));
        assert_eq!(cookie(&headers, "s"), Some("2"));
        assert_eq!(cookie(&headers, "t"), None);
    }

    #[test]
    fn only_tokens_are_read() {
        assert_eq!(read("0000000a00000000000000ff"), Some((10, 255)));
        for token in [
            "",
            "0000000a",
            "0000000a00000000000000fg",
            "0000000a00000000000000ff0",
            "+000000a00000000000000ff",
        ] {
            assert_eq!(read(token), None, "{token}");
        }
    }

    #[test]
    fn endpoints_are_told_apart() {
        let hash = |text: &str| endpoint_hash(1, text.parse().unwrap());
        let all = ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "[::1]:80", "[::2]:80"].map(hash);
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
