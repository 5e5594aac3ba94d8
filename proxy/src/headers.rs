//! Header hygiene (security.md §1, 2): what of a request's and a response's fields goes on, and what is written anew.
//!
//! One scan over the names decides. Hop-by-hop fields go, and what `Connection` names; fields by which clients could
//! impersonate us (`X-Forwarded-*`, request ids) or talk a backend into another host, path or method go, and ours are
//! written; names with underscores go, for many backends read them as the same names with hyphens ([`Rules`] may differ). After it, Host is
//! the one host that the request was for. Does not know routes or filters.

mod fields;
mod ours;
mod request_id;
mod rules;
mod spare;
mod touched;

pub(crate) use fields::{Fields, Line, Lines, Sort};
use ours::Id;
pub use ours::{Forwarding, Ours};
pub use request_id::{RequestId, RequestIds};
pub use rules::{Rules, USUAL};
pub(crate) use spare::{keep_map, keep_parts, spare_map, spare_parts};
pub(crate) use touched::Touched;

use crate::host::Host;
use crate::model::Underscores;
use crate::rejection::{Malformed, Rejection};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use std::rc::Rc;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The field that carries a request's id to the backend and the access log.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where fields are said: among others, or on the wire.
pub(crate) trait Say {
    /// Says a field; it takes the place of what is there of its name. `write` puts the value, which is what a field may have,
    /// behind what is there.
    fn say(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>));

    /// The wire, if it is that: for lines that are written already.
    fn wire(&mut self) -> Option<&mut Vec<u8>> {
        None
    }
}

impl Say for HeaderMap {
    fn say(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::new();
        write(&mut value);
        if let Ok(value) = HeaderValue::try_from(value) {
            self.insert(name, value);
        }
    }
}

/// Behind fields without it.
impl Say for Vec<u8> {
    fn say(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        self.extend_from_slice(name.as_str().as_bytes());
        self.extend_from_slice(b": ");
        write(self);
        self.extend_from_slice(b"\r\n");
    }

    fn wire(&mut self) -> Option<&mut Vec<u8>> {
        Some(self)
    }
}

/// What [`prepare_request`] needs to know of a request beside its fields.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Method.
    pub method: &'a Method,
    /// The host that the request is for.
    pub host: &'a Host<'a>,
    /// Its connection.
    pub forwarding: &'a Rc<Forwarding>,
    /// Where ids come from.
    pub ids: &'a RequestIds,
    /// What its port has to say of fields.
    pub rules: &'a Rules,
}

/// Which protocol a request asks to change to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// None: plain HTTP.
    None,
    /// WebSocket (RFC 6455), well-formed.
    WebSocket,
}

/// What happens to a field, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Drop,
    Underscored,
    Connection,
    Upgrade,
    Te,
    Expect,
    TransferEncoding,
    ContentLength,
    Host,
    Cookie,
}

/// The fate of a request's field. `name` is in lower case, as `http` keeps it.
fn fate_in_request(name: &str) -> Fate {
    match name {
        "host" => Fate::Host,
        "connection" => Fate::Connection,
        "content-length" => Fate::ContentLength,
        "transfer-encoding" => Fate::TransferEncoding,
        "cookie" => Fate::Cookie,
        "te" => Fate::Te,
        "upgrade" => Fate::Upgrade,
        "expect" => Fate::Expect,
        "keep-alive" | "proxy" | "http2-settings" | "forwarded" | "x-real-ip" | "x-request-id" => Fate::Drop,
        // Fields by which frameworks let a client override its method, target or host.
        "x-http-method"
        | "x-http-method-override"
        | "x-method-override"
        | "x-original-url"
        | "x-original-uri"
        | "x-original-host"
        | "x-original-method"
        | "x-rewrite-url"
        | "x-host"
        | "x-http-host-override"
        | "x-override-url"
        | "x-http-destinationurl" => Fate::Drop,
        _ if name.starts_with("x-forwarded-") || name == "x-forwarded" => Fate::Drop,
        _ if name.starts_with("proxy-") => Fate::Drop,
        _ if name.contains('_') => Fate::Underscored,
        _ => Fate::Keep,
    }
}

/// Whether `Connection` may take a field away: never what frames the message, says who asks for what, or is ours.
fn connection_may_name(name: &str) -> bool {
    !matches!(
        name,
        "host"
            | "connection"
            | "content-length"
            | "transfer-encoding"
            | "content-type"
            | "content-encoding"
            | "authorization"
            | "cookie"
            | "set-cookie"
            | "www-authenticate"
            | "x-request-id"
            | "forwarded"
            | "x-real-ip"
    ) && !name.starts_with("x-forwarded-")
}

/// What the scan saw.
#[derive(Debug, Default)]
struct Seen {
    doomed: Vec<HeaderName>,
    connection: bool,
    upgrade: bool,
    te: bool,
    expect: bool,
    transfer_encoding: bool,
    content_length: bool,
    cookie: bool,
}

/// Cleans a request's fields; ours are still to be written ([`Ours`]). Leaves `Content-Length` for whoever frames the body; takes
/// `Transfer-Encoding` and `Expect` away, which the server has answered.
///
/// # Errors
/// [`Malformed::Framing`], [`Malformed::Upgrade`], [`Rejection::TransferCoding`], [`Rejection::Expectation`].
pub fn prepare_request(
    headers: &mut HeaderMap,
    incoming: &Incoming<'_>,
) -> Result<(Upgrade, Ours), Rejection> {
    let mut seen = Seen::default();
    for name in headers.keys() {
        match fate_in_request(name.as_str()) {
            Fate::Keep | Fate::Host => {}
            Fate::Drop => seen.doomed.push(name.clone()),
            Fate::Underscored => judge_underscores(name, incoming.rules, &mut seen)?,
            Fate::Connection => seen.connection = true,
            Fate::Upgrade => seen.upgrade = true,
            Fate::Te => seen.te = true,
            Fate::Expect => seen.expect = true,
            Fate::TransferEncoding => seen.transfer_encoding = true,
            Fate::ContentLength => seen.content_length = true,
            Fate::Cookie => seen.cookie = true,
        }
    }
    check_framing(headers, &seen)?;
    if seen.expect {
        check_expectation(headers)?;
        headers.remove(header::EXPECT);
    }
    let upgrade = if seen.upgrade { upgrade_of(headers, incoming.method, &seen)? } else { Upgrade::None };
    if seen.connection {
        doom_named(headers, &mut seen.doomed);
    }
    let id = Id::of(incoming.rules.told_id(headers), incoming.ids);
    for name in &seen.doomed {
        headers.remove(name);
    }
    if *incoming.rules.id() != X_REQUEST_ID {
        headers.remove(incoming.rules.id());
    }
    if seen.transfer_encoding {
        headers.remove(header::TRANSFER_ENCODING);
    }
    if seen.te {
        keep_trailers(headers);
    }
    if seen.cookie {
        join_cookies(headers);
    }
    set_connection(headers, upgrade, seen.connection, seen.upgrade);
    set_host(headers, incoming.host.as_str());
    Ok((upgrade, Ours { forwarding: incoming.forwarding.clone(), id_name: incoming.rules.id().clone(), id }))
}

/// What becomes of a field with underscores in its name.
fn judge_underscores(name: &HeaderName, rules: &Rules, seen: &mut Seen) -> Result<(), Rejection> {
    match rules.underscores {
        Underscores::Drop => seen.doomed.push(name.clone()),
        Underscores::Reject => return Err(Rejection::Malformed(Malformed::Head)),
        // As another field, it would have another fate.
        Underscores::Keep => {
            let read = rules::hyphenated(name);
            if fate_in_request(&read) != Fate::Keep || read == rules.id().as_str() {
                seen.doomed.push(name.clone());
            }
        }
    }
    Ok(())
}

/// Cleans a response's fields. `upgrade` is what the response switches to: [`Upgrade::None`] unless it is a 101.
pub fn prepare_response(headers: &mut HeaderMap, upgrade: Upgrade) {
    let mut doomed = Vec::new();
    let (mut connection, mut has_upgrade) = (false, false);
    for name in headers.keys() {
        match Sort::of(name.as_str().as_bytes()) {
            Sort::Connection => connection = true,
            Sort::Upgrade => has_upgrade = true,
            Sort::KeepAlive | Sort::TransferEncoding | Sort::Odd => doomed.push(name.clone()),
            Sort::Plain | Sort::ContentLength | Sort::Date | Sort::RateLimit => {}
        }
    }
    if connection {
        doom_named(headers, &mut doomed);
    }
    for name in &doomed {
        headers.remove(name);
    }
    set_connection(headers, upgrade, connection, has_upgrade);
}

/// RFC 9112 §6.3, strictly: one length that is a number, or one `chunked`, or none. the codecs have refused what they can see;
/// this holds for every protocol that requests come by.
fn check_framing(headers: &HeaderMap, seen: &Seen) -> Result<(), Rejection> {
    const BAD: Rejection = Rejection::Malformed(Malformed::Framing);
    if seen.transfer_encoding {
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let chunked = codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if seen.content_length {
            return Err(BAD);
        }
        if !chunked || codings.next().is_some() {
            return Err(Rejection::TransferCoding);
        }
    }
    if seen.content_length {
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let digits = lengths.next().map(HeaderValue::as_bytes).unwrap_or_default();
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<i64>().ok());
        if !digits.iter().all(u8::is_ascii_digit) || number.is_none() || lengths.next().is_some() {
            return Err(BAD);
        }
    }
    Ok(())
}

fn check_expectation(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut values = headers.get_all(header::EXPECT).iter();
    match values.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(()),
        false => Err(Rejection::Expectation),
    }
}

/// The comma-separated members of all fields of a name, in lower case.
fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + use<'a> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|member| member.trim().to_ascii_lowercase())
}

/// RFC 6455 §4.2.1. Upgrades to anything else are ignored, as RFC 9110 §7.8 lets us: `h2c` above all.
fn upgrade_of(headers: &HeaderMap, method: &Method, seen: &Seen) -> Result<Upgrade, Rejection> {
    let wanted: Vec<String> = members(headers, &header::UPGRADE).collect();
    if !wanted.iter().any(|protocol| protocol == "websocket") {
        return Ok(Upgrade::None);
    }
    let single = |name: HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
    };
    let key = single(header::SEC_WEBSOCKET_KEY).is_some_and(|key| {
        let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(base64)
    });
    let body =
        seen.transfer_encoding || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    let well_formed = wanted.len() == 1
        && *method == Method::GET
        && members(headers, &header::CONNECTION).any(|option| option == "upgrade")
        && single(header::SEC_WEBSOCKET_VERSION) == Some(b"13")
        && key
        && !body;
    match well_formed {
        true => Ok(Upgrade::WebSocket),
        false => Err(Rejection::Malformed(Malformed::Upgrade)),
    }
}

fn doom_named(headers: &HeaderMap, doomed: &mut Vec<HeaderName>) {
    let usual = |value: &HeaderValue| {
        [&b"keep-alive"[..], b"close", b"upgrade"]
            .iter()
            .any(|usual| value.as_bytes().eq_ignore_ascii_case(usual))
    };
    if headers.get_all(header::CONNECTION).iter().all(usual) {
        return;
    }
    doomed.extend(
        members(headers, &header::CONNECTION)
            .filter(|name| connection_may_name(name))
            .filter_map(|name| HeaderName::try_from(name).ok())
            // These have a fate of their own.
            .filter(|name| !matches!(*name, header::UPGRADE | header::TE)),
    );
}

fn keep_trailers(headers: &mut HeaderMap) {
    let trailers = members(headers, &header::TE).any(|coding| coding == "trailers");
    match trailers {
        true => headers.insert(header::TE, HeaderValue::from_static("trailers")),
        false => headers.remove(header::TE),
    };
}

/// RFC 9113 §8.2.3: HTTP/2 may split a cookie; for one field is what backends read.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    let joined = HeaderValue::try_from(joined).expect("values joined by visible ASCII are a value");
    headers.insert(header::COOKIE, joined);
}

/// Writes what becomes of the connection, in place of what was said of it.
fn set_connection(headers: &mut HeaderMap, upgrade: Upgrade, had_connection: bool, had_upgrade: bool) {
    match upgrade {
        Upgrade::WebSocket => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        Upgrade::None => {
            if had_connection {
                headers.remove(header::CONNECTION);
            }
            if had_upgrade {
                headers.remove(header::UPGRADE);
            }
        }
    }
}

/// Makes Host the one that the request is for.
fn set_host(headers: &mut HeaderMap, host: &str) {
    if headers.get(header::HOST).is_none_or(|value| value != host) {
        let value = HeaderValue::from_str(host).expect("a parsed host is visible ASCII");
        headers.insert(header::HOST, value);
    }
}

#[cfg(test)]
mod tests;
