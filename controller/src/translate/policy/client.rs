//! ClientPolicies: to what holds for requests that come by a listener, and for clients of a port ([`super::ports`]).

use super::merge::{Merged, Path, Shape};
use super::resolve::Resolver;
use super::{At, Came, Common, OfRequests, Policy};
use crate::status::ConditionType;
use headgate_crds::ClientPolicy;
use headgate_crds::policy::Mode;
use headgate_crds::policy::client::{
    ClientHeaders, ClientHttp2, ClientIp, ClientLimits, ClientPath, ClientTimeouts, ClientTls, DotSegments,
    EscapedSlashes, ProxyProtocol, TlsVersion, Underscores,
};
use headgate_proxy::check_clients;
use headgate_proxy::model::{self, ObjectName};
use serde_json::{Value, json};
use std::time::Duration;

/// The way to the limit of bodies.
const BODY: [&str; 2] = ["limits", "requestBodyBytes"];
/// What policies are merged by.
const SECTIONS: [&str; 7] = ["limits", "timeouts", "clientIP", "http2", "headers", "path", "tls"];
/// Units of bytes.
const UNITS: [(&str, u64); 6] =
    [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];

impl Policy for ClientPolicy {
    const SHAPE: Shape = Shape { open: &SECTIONS, named: &[], fixed: &[] };
    const AFFECTED: ConditionType = ConditionType::ClientPolicyAffected;
    const OF_ROUTES: bool = false;

    fn common(&self) -> Common<'_> {
        Common { target_refs: &self.spec.target_refs, strategy: self.spec.strategy, mode: self.spec.mode }
    }

    fn fields(&self) -> Value {
        let spec = &self.spec;
        json!({
            "limits": spec.limits,
            "timeouts": spec.timeouts,
            "clientIP": spec.client_ip,
            "http2": spec.http2,
            "headers": spec.headers,
            "path": spec.path,
            "tls": spec.tls,
        })
    }

    fn check(&self, _: &ObjectName, _: &mut Resolver<'_>) -> Vec<(Path, String)> {
        let spec = &self.spec;
        let mut invalid = Vec::new();
        let mut check = |section: &str, field: &str, checked: Result<(), String>| {
            invalid.extend(checked.err().map(|why| (Path::of(&[section, field]), why)));
        };
        for (field, text, range) in spec.limits.iter().flat_map(byte_limits) {
            check("limits", field, text.map_or(Ok(()), |text| within(text, range).map(drop)));
        }
        for (field, text, range) in spec.http2.iter().flat_map(byte_windows) {
            check("http2", field, text.map_or(Ok(()), |text| within(text, range).map(drop)));
        }
        for (field, text) in spec.timeouts.iter().flat_map(times) {
            check("timeouts", field, text.map_or(Ok(()), |text| time(text).map(drop)));
        }
        if let Some(address) = &spec.client_ip {
            // As a whole: who is believed by the rest of it may be more than was meant.
            let clients = model::Clients { address: of_address(address), ..model::Clients::default() };
            invalid.extend(check_clients(&clients).err().map(|why| {
                (Path::of(&["clientIP"]), why.strip_prefix("clientIP.").unwrap_or(&why).to_owned())
            }));
        }
        if spec.mode == Some(Mode::Shadow) {
            // The API server refuses these; files aren't asked.
            let headers = spec.headers.as_ref();
            for (path, is_there) in [
                (&["timeouts"][..], spec.timeouts.is_some()),
                (&["clientIP"], spec.client_ip.is_some()),
                (&["http2"], spec.http2.is_some()),
                (&["tls"], spec.tls.is_some()),
                (&["headers", "requestID"], headers.is_some_and(|headers| headers.request_id.is_some())),
                (&["headers", "server"], headers.is_some_and(|headers| headers.server.is_some())),
                (&["headers", "earlyHints"], headers.is_some_and(|headers| headers.early_hints.is_some())),
            ] {
                let why = "mode Shadow tries what refuses requests: write it in a policy of its own";
                invalid.extend(is_there.then(|| (Path::of(path), why.to_owned())));
            }
        }
        let headers = spec.headers.as_ref().map(of_headers).unwrap_or_default();
        let tls = spec.tls.as_ref().map(of_tls).unwrap_or_default();
        for clients in [
            model::Clients { headers, ..model::Clients::default() },
            model::Clients { tls, ..model::Clients::default() },
        ] {
            invalid.extend(check_clients(&clients).err().map(|why| {
                let (field, why) = why.split_once(": ").unwrap_or((&why, &why));
                // A section's members are merged whole.
                let field: Vec<_> = field.split('.').take(2).collect();
                (Path::of(&field), why.to_owned())
            }));
        }
        invalid
    }
}

impl OfRequests for ClientPolicy {
    fn put(came: &Came, _: &At<'_>, policies: &mut model::Policies) -> Vec<(ObjectName, String)> {
        let most = |merged: &Merged| {
            let field = merged.fields.get(&Path::of(&BODY));
            // What isn't a number of bytes was left out when the policy was checked.
            field.and_then(|field| bytes(field.value.as_str()?).ok()).filter(|most| *most > 0)
        };
        policies.request_body_bytes = most(&came.enforced);
        policies.tried_body_bytes =
            most(&came.tried).filter(|tried| policies.request_body_bytes.is_none_or(|most| *tried < most));
        Vec::new()
    }
}

/// Whether a field is one of requests, not of their connections.
pub(super) fn is_of_requests(path: &Path) -> bool {
    *path == Path::of(&BODY)
}

/// What merged policies have of each section.
pub(super) struct Sections {
    pub(super) limits: Option<ClientLimits>,
    pub(super) timeouts: Option<ClientTimeouts>,
    pub(super) client_ip: Option<ClientIp>,
    pub(super) http2: Option<ClientHttp2>,
    pub(super) headers: Option<ClientHeaders>,
    pub(super) path: Option<ClientPath>,
    pub(super) tls: Option<ClientTls>,
}

/// What merged policies say of connections. What can't be read was left out when they were checked.
pub(super) fn clients(from: &Sections) -> model::Clients {
    model::Clients {
        timeouts: from.timeouts.as_ref().map(of_timeouts).unwrap_or_default(),
        limits: from.limits.as_ref().map(of_limits).unwrap_or_default(),
        address: from.client_ip.as_ref().map(of_address).unwrap_or_default(),
        http2: from.http2.as_ref().map(of_http2).unwrap_or_default(),
        headers: from.headers.as_ref().map(of_headers).unwrap_or_default(),
        path: from.path.as_ref().map(of_path).unwrap_or_default(),
        tls: from.tls.as_ref().map(of_tls).unwrap_or_default(),
        trial: None,
    }
}

/// What policies in shadow would say of connections and heads, together with those that act.
pub(super) fn trial(from: &Sections) -> model::ClientTrial {
    let headers = from.headers.as_ref().map(of_headers).unwrap_or_default();
    model::ClientTrial {
        limits: from.limits.as_ref().map(of_limits).unwrap_or_default(),
        underscores: headers.underscores,
        path: from.path.as_ref().map(of_path).unwrap_or_default(),
    }
}

fn of_timeouts(from: &ClientTimeouts) -> model::ClientTimeouts {
    let time = |text: Option<&String>| text.and_then(|text| time(text).ok());
    model::ClientTimeouts {
        tls_handshake: time(from.tls_handshake.as_ref()),
        request_headers: time(from.request_headers.as_ref()),
        request_body_idle: time(from.request_body_idle.as_ref()),
        keep_alive_idle: time(from.keep_alive_idle.as_ref()),
        stream_idle: time(from.stream_idle.as_ref()),
        max_connection_age: time(from.max_connection_age.as_ref()),
    }
}

fn of_limits(from: &ClientLimits) -> model::ClientLimits {
    model::ClientLimits {
        header_bytes: size(from.request_header_bytes.as_ref(), HEADER_BYTES),
        header_count: number(from.request_header_count),
        connections: number(from.connections),
        connections_per_ip: number(from.connections_per_ip),
        target_bytes: size(from.request_target_bytes.as_ref(), TARGET_BYTES),
    }
}

fn of_http2(from: &ClientHttp2) -> model::ClientHttp2 {
    model::ClientHttp2 {
        disabled: from.enabled == Some(false),
        max_concurrent_streams: number(from.max_concurrent_streams),
        max_header_list_bytes: size(from.max_header_list_bytes.as_ref(), HEADER_BYTES),
        initial_window_bytes: size(from.initial_window_bytes.as_ref(), WINDOW),
        max_resets: number(from.max_resets_per_connection),
    }
}

fn of_headers(from: &ClientHeaders) -> model::ClientHeaders {
    let id = from.request_id.as_ref();
    model::ClientHeaders {
        underscores: match from.underscores.unwrap_or_default() {
            Underscores::Drop => model::Underscores::Drop,
            Underscores::Reject => model::Underscores::Reject,
            Underscores::Keep => model::Underscores::Keep,
        },
        request_id: id.and_then(|id| id.header.as_deref()).map(Into::into),
        trust_request_id: id.and_then(|id| id.trust) == Some(true),
        no_early_hints: from.early_hints == Some(false),
        server: from.server.as_deref().map(Into::into),
    }
}

fn of_tls(from: &ClientTls) -> model::ClientTls {
    let version = |version| match version {
        TlsVersion::V12 => model::TlsVersion::V12,
        TlsVersion::V13 => model::TlsVersion::V13,
    };
    let names =
        |names: &Option<Vec<String>>| names.iter().flatten().map(|name| name.as_str().into()).collect();
    model::ClientTls {
        min_version: from.min_version.map(version),
        max_version: from.max_version.map(version),
        cipher_suites: names(&from.cipher_suites),
        curves: names(&from.curves),
        alpn: names(&from.alpn),
        no_session_tickets: from.session_tickets == Some(false),
        ocsp_stapling: from.ocsp_stapling == Some(true),
    }
}

fn of_path(from: &ClientPath) -> model::ClientPath {
    model::ClientPath {
        escaped_slashes: match from.escaped_slashes.unwrap_or_default() {
            EscapedSlashes::Keep => model::EscapedSlashes::Keep,
            EscapedSlashes::Reject => model::EscapedSlashes::Reject,
            EscapedSlashes::Decode => model::EscapedSlashes::Decode,
        },
        reject_dot_segments: from.dot_segments == Some(DotSegments::Reject),
        merge_slashes: from.merge_slashes == Some(true),
    }
}

fn of_address(from: &ClientIp) -> model::ClientAddress {
    let networks = from.trusted_cidrs.iter().flatten();
    model::ClientAddress {
        trusted_hops: from.trusted_hops.and_then(|hops| usize::try_from(hops).ok()).unwrap_or_default(),
        trusted_networks: networks.map(|network| network.as_str().into()).collect(),
        header: from.header.as_deref().map(Into::into),
        proxy_protocol: match from.proxy_protocol.unwrap_or_default() {
            ProxyProtocol::Off => model::ProxyProtocol::Off,
            ProxyProtocol::Accept => model::ProxyProtocol::Accept,
            ProxyProtocol::Require => model::ProxyProtocol::Require,
        },
    }
}

fn size<T: TryFrom<u64>>(text: Option<&String>, range: Range) -> Option<T> {
    text.and_then(|text| within(text, range).ok()).and_then(|bytes| T::try_from(bytes).ok())
}

fn number<T: TryFrom<i32>>(number: Option<i32>) -> Option<T> {
    number.and_then(|number| T::try_from(number).ok())
}

type Range = (u64, u64);
const ANY: Range = (0, u64::MAX);
const HEADER_BYTES: Range = (1 << 10, 1 << 20);
const TARGET_BYTES: Range = (128, 64 << 10);
const WINDOW: Range = (16 << 10, 16 << 20);
const TIMES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(24 * 3_600));

/// The fields that are numbers of bytes, and what they may be.
fn byte_limits(from: &ClientLimits) -> [(&'static str, Option<&String>, Range); 3] {
    [
        ("requestBodyBytes", from.request_body_bytes.as_ref(), ANY),
        ("requestHeaderBytes", from.request_header_bytes.as_ref(), HEADER_BYTES),
        ("requestTargetBytes", from.request_target_bytes.as_ref(), TARGET_BYTES),
    ]
}

/// The same of HTTP/2.
fn byte_windows(from: &ClientHttp2) -> [(&'static str, Option<&String>, Range); 2] {
    [
        ("maxHeaderListBytes", from.max_header_list_bytes.as_ref(), HEADER_BYTES),
        ("initialWindowBytes", from.initial_window_bytes.as_ref(), WINDOW),
    ]
}

/// The fields that are times.
fn times(from: &ClientTimeouts) -> [(&'static str, Option<&String>); 6] {
    [
        ("tlsHandshake", from.tls_handshake.as_ref()),
        ("requestHeaders", from.request_headers.as_ref()),
        ("requestBodyIdle", from.request_body_idle.as_ref()),
        ("keepAliveIdle", from.keep_alive_idle.as_ref()),
        ("streamIdle", from.stream_idle.as_ref()),
        ("maxConnectionAge", from.max_connection_age.as_ref()),
    ]
}

fn time(text: &str) -> Result<Duration, String> {
    let parsed = super::duration::parse(text)?;
    match (TIMES.0..=TIMES.1).contains(&parsed) {
        true => Ok(parsed),
        false => Err(format!("{text} isn't from 100ms to 24h")),
    }
}

fn within(text: &str, (least, most): Range) -> Result<u64, String> {
    let number = bytes(text)?;
    match (least..=most).contains(&number) {
        true => Ok(number),
        false => Err(format!("{text} isn't from {least} to {most} bytes")),
    }
}

/// Reads a number of bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let unit = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
    let (digits, size) = unit.unwrap_or((text, 1));
    let number =
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
    number
        .and_then(|number| number.checked_mul(size))
        .ok_or_else(|| format!("{text:?} is not a number of bytes; write it like 10Mi, or 0 for no limit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_kubernetes_writes_them() {
        for (text, number) in
            [("0", 0), ("512", 512), ("64Ki", 65_536), ("10Mi", 10 << 20), ("2Gi", 2 << 30), ("3k", 3_000)]
        {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
        assert_eq!((bytes("5M"), bytes("1G")), (Ok(5_000_000), Ok(1_000_000_000)));
        for text in
            ["", "Ki", "-1", "+1", "1.5Mi", "1 Mi", "1mi", "1Ti", "99999999999999999999", "99999999999Gi0"]
        {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(bytes("999999999999Gi").is_err(), "more than can be counted");
    }
}
