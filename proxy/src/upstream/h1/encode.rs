//! Request heads, written anew from parsed parts (security.md, rule 2).
//!
//! Framing is ours: whatever length fields are there are left out, and one that agrees with the body is written. All
//! other fields are as [`crate::headers::prepare_request`] and the filters left them, Host first. Does no I/O.

use crate::headers::Ours;
use crate::hints::Hints;
use crate::http1::write_field;
use http::Method;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, TRANSFER_ENCODING};

/// How a request body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body and no length field.
    None,
    /// That many bytes (possibly none: `Content-Length: 0`).
    Length(u64),
    /// In chunks.
    Chunked,
}

/// The parts of a request head.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    /// Origin form (path and query), or `*`.
    pub(crate) target: &'a str,
    /// Fields; framing fields among them are left out.
    pub(crate) headers: &'a HeaderMap,
    /// Fields of ours that aren't among them.
    pub(crate) ours: Option<&'a Ours>,
    pub(crate) framing: Framing,
    /// Whether the client waits to be told that its body is wanted.
    pub(crate) expecting: bool,
    /// Where what the backend says ahead of its answer goes.
    pub(crate) hints: Option<&'a Hints>,
    /// Whether a 101 is an answer: the fields ask for a WebSocket.
    pub(crate) websocket: bool,
}

impl<'a> Head<'a> {
    /// Of a request that is ours, not a client's.
    pub(crate) fn own(method: &'a Method, target: &'a str, headers: &'a HeaderMap, framing: Framing) -> Self {
        Self { method, target, headers, ours: None, framing, expecting: false, hints: None, websocket: false }
    }
}

/// Appends the head to `out`.
pub(super) fn write(head: &Head<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    let host = head.headers.get(HOST);
    if let Some(host) = host {
        out.extend_from_slice(host.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    for (name, value) in head.headers {
        if *name == HOST || *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING || *name == EXPECT {
            continue;
        }
        write_field(out, name.as_str(), value.as_bytes());
    }
    if let Some(ours) = head.ours {
        ours.encode(host, out);
    }
    match head.framing {
        Framing::None => {}
        Framing::Length(length) => {
            write_field(out, "content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    if head.expecting {
        out.extend_from_slice(b"expect: 100-continue\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn one_host_one_length() {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("1"));
        headers.insert(HOST, HeaderValue::from_static("example.com"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("7"));
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        let start = "POST /a?b HTTP/1.1\r\nhost: example.com\r\nx-a: 1\r\n";
        for (framing, expecting, rest) in [
            (Framing::None, false, "\r\n"),
            (Framing::Length(5), false, "content-length: 5\r\n\r\n"),
            (Framing::Chunked, true, "transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"),
        ] {
            let (method, headers) = (&Method::POST, &headers);
            let head = Head { expecting, ..Head::own(method, "/a?b", headers, framing) };
            let mut out = Vec::new();
            write(&head, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{start}{rest}"));
        }
    }
}
