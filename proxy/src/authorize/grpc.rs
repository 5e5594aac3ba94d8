//! Authorizers that speak Envoy's `ext_authz`: one call, `envoy.service.auth.v3.Authorization/Check`.

use super::protobuf::{Append, Check, Set, Writer, read};
use super::{Asked, Denial, Permit, Said, Verdict, may_set, permit};
use crate::connection::Client;
use crate::handshake::Version;
use crate::router::Authorizer;
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The method that is called.
pub(super) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The call: fields and body.
pub(super) fn call(
    client: &Client,
    authorizer: &Authorizer,
    asked: &Asked<'_>,
    body: &Bytes,
) -> (HeaderMap, Bytes) {
    let id = authorizer.backend.id();
    let mut headers = HeaderMap::with_capacity(4);
    let host = format!("{}.{}.svc", id.name.name, id.name.namespace);
    headers
        .insert(header::HOST, HeaderValue::try_from(host).unwrap_or(HeaderValue::from_static("localhost")));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let mut writer = Writer::default();
    writer.message(1, |attributes| write_attributes(attributes, client, authorizer, asked, body));
    let message = writer.into_bytes();
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    // Bounded by the bounds on heads and on the body that the authorizer sees.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    (headers, framed.freeze())
}

/// `AttributeContext`.
fn write_attributes(
    out: &mut Writer,
    client: &Client,
    authorizer: &Authorizer,
    asked: &Asked<'_>,
    body: &Bytes,
) {
    let peer = asked.peer.ip().to_canonical().to_string();
    out.message(1, |source| {
        source.message(1, |address| {
            address.message(1, |socket| {
                socket.bytes(2, peer.as_bytes());
                socket.number(3, asked.peer.port().into());
            });
        });
    });
    out.message(4, |request| {
        request.message(2, |http| write_request(http, client, authorizer, asked, body));
    });
    if let Some(sni) = client.tls.as_ref().and_then(|tls| tls.sni.as_deref()) {
        out.message(12, |tls| tls.bytes(1, sni.as_bytes()));
    }
}

/// `AttributeContext.HttpRequest`.
fn write_request(
    out: &mut Writer,
    client: &Client,
    authorizer: &Authorizer,
    asked: &Asked<'_>,
    body: &Bytes,
) {
    let text = |name: &HeaderName| asked.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    out.bytes(1, text(client.headers().id()));
    out.bytes(2, asked.method.as_str().as_bytes());
    let only = &authorizer.terms.request_headers;
    for name in asked.headers.keys().filter(|name| only.is_empty() || only.contains(name)) {
        let values: Vec<_> = asked.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        out.message(3, |entry| {
            entry.bytes(1, name.as_str().as_bytes());
            // Text in the protocol; what isn't is replaced.
            entry.bytes(2, String::from_utf8_lossy(&values.join(&b","[..])).as_bytes());
        });
    }
    out.bytes(4, super::target("", asked).as_bytes());
    out.bytes(5, text(&header::HOST));
    out.bytes(6, asked.scheme.name().as_bytes());
    let length = asked.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    out.number(9, length.and_then(|length| length.parse().ok()).unwrap_or(-1));
    out.bytes(
        10,
        match client.version {
            Version::Http2 => b"HTTP/2",
            Version::Http1 if asked.version == http::Version::HTTP_10 => b"HTTP/1.0",
            Version::Http1 => b"HTTP/1.1",
        },
    );
    match std::str::from_utf8(body) {
        Ok(text) => out.bytes(11, text.as_bytes()),
        Err(_) => out.bytes(12, body),
    }
}

/// What the answer means. `None`: the authorizer failed.
pub(super) fn verdict(said: Said) -> Option<Verdict> {
    let status = said.trailers.as_ref().unwrap_or(&said.headers).get("grpc-status");
    if said.status != StatusCode::OK || status.is_none_or(|status| status != "0") {
        return None;
    }
    let (prefix, message) = said.body.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let check = read(message)?;
    if check.code != 0 {
        return deny(&check);
    }
    // "Special headers will be ignored" (OkHttpResponse.headers_to_remove).
    let names = check.remove.iter().filter_map(|name| HeaderName::from_bytes(name).ok());
    let remove = names.filter(|name| may_set(name) && *name != header::CONTENT_LENGTH).collect();
    let (set, mut answer) = (edits(&check.headers)?, HeaderMap::new());
    permit::set(&edits(&check.response_headers)?, &mut answer);
    Some(Verdict::Allowed(Box::new(Permit { remove, set, answer })))
}

fn deny(check: &Check<'_>) -> Option<Verdict> {
    let status = match check.status {
        0 => StatusCode::FORBIDDEN,
        status => StatusCode::from_u16(u16::try_from(status).ok()?).ok()?,
    };
    // A denial that lets pass, or that isn't an answer, is none.
    let status =
        if status.is_informational() || status.is_success() { StatusCode::FORBIDDEN } else { status };
    let mut headers = HeaderMap::new();
    permit::set(&edits(&check.headers)?, &mut headers);
    Some(Verdict::Denied(Box::new(Denial { status, headers, body: Bytes::copy_from_slice(check.body) })))
}

/// Fields to set; `None` when one can't be a field.
fn edits(from: &[Set<'_>]) -> Option<Vec<(HeaderName, HeaderValue, Append)>> {
    let mut edits = Vec::with_capacity(from.len());
    for Set { name, value, append } in from {
        let (name, value) = (HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        if may_set(&name) && name != header::CONTENT_LENGTH {
            edits.push((name, value, *append));
        }
    }
    Some(edits)
}
