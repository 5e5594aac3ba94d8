//! Heads of answers, written anew from parsed parts (security.md, rule 2); framing is ours. Does no I/O.

use super::output::write_field;
use crate::headers::{Fields, Sort};
use crate::rejection::Rejection;
use crate::timer::time_of;
use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue, TRANSFER_ENCODING};
use rustix::time::ClockId;
use std::cell::RefCell;
use std::time::UNIX_EPOCH;

/// How the body of an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// It has none.
    None,
    /// As it is: its length was said.
    Length,
    /// In chunks.
    Chunked,
    /// As it is, to the end of the connection.
    Close,
}

/// What an answer has to fit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Whether the request was HEAD.
    pub(super) head: bool,
    /// Whether the client speaks HTTP/1.0 only.
    pub(super) old: bool,
    /// Whether the connection is kept, as far as is known.
    pub(super) keep_alive: bool,
}

/// Writes the head of an answer whose body has `length` bytes, where that is known; `more` writes fields that aren't among
/// `fields`. Returns how the body follows, and whether the connection is kept.
pub(super) fn write(
    out: &mut Vec<u8>,
    status: StatusCode,
    fields: &Fields,
    more: impl FnOnce(&mut Vec<u8>),
    length: Option<u64>,
    asked: Asked,
) -> (Framing, bool) {
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    let framing = match length {
        _ if bodiless || asked.head || status == StatusCode::NOT_MODIFIED => Framing::None,
        Some(_) => Framing::Length,
        None if asked.old => Framing::Close,
        None => Framing::Chunked,
    };
    let interim = status.is_informational();
    let keep_alive = asked.keep_alive && framing != Framing::Close;
    // What a body would have had: that is for whoever asked for it to say.
    let keeps_length = framing == Framing::None && !bodiless;
    let mut dated = false;
    write_status(out, status);
    match fields {
        Fields::Lines(lines) => {
            lines.write(out, |sort| {
                dated |= sort == Sort::Date;
                sort != Sort::ContentLength || keeps_length
            });
        }
        Fields::Map(map) => {
            for (name, value) in &**map {
                dated |= *name == DATE;
                // Whether it is kept isn't theirs to say; a change of protocol is.
                let kept = match *name {
                    CONNECTION => interim,
                    CONTENT_LENGTH => keeps_length,
                    TRANSFER_ENCODING => false,
                    _ => true,
                };
                if kept {
                    write_field(out, name.as_str(), value.as_bytes());
                }
            }
        }
    }
    more(out);
    match (framing, length) {
        (Framing::Length, Some(length)) => {
            write_field(out, "content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        (Framing::Chunked, _) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        (Framing::None | Framing::Length | Framing::Close, _) => {}
    }
    if !interim {
        if !dated {
            with_date(|date| write_field(out, "date", date.as_bytes()));
        }
        match (keep_alive, asked.old) {
            (true, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, false) => {}
            (false, _) => out.extend_from_slice(b"connection: close\r\n"),
        }
    }
    out.extend_from_slice(b"\r\n");
    (framing, keep_alive)
}

/// Writes the answer to what isn't a request.
pub(super) fn refuse(out: &mut Vec<u8>, rejection: Rejection) {
    let (head, body) = rejection.response().into_parts();
    let asked = Asked { head: false, old: false, keep_alive: false };
    let fields = head.headers.into();
    write(out, head.status, &fields, |_| {}, Some(body.len() as u64), asked);
    out.extend_from_slice(&body);
}

fn write_status(out: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

thread_local! {
    /// The second, and what it is called.
    static NOW: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// `Date`, which is made once a second (RFC 9110 §6.6.1).
pub(crate) fn date() -> HeaderValue {
    with_date(HeaderValue::clone)
}

fn with_date<T>(read: impl FnOnce(&HeaderValue) -> T) -> T {
    let now = time_of(ClockId::RealtimeCoarse);
    let second = now.as_secs();
    NOW.with_borrow_mut(|known| {
        if known.0 != second || known.1.is_empty() {
            let text = HeaderValue::try_from(httpdate::fmt_http_date(UNIX_EPOCH + now));
            *known = (second, text.expect("a date is visible ASCII"));
        }
        read(&known.1)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Field, Span};
    use super::*;
    use crate::headers::{Line, Lines};
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;
    use std::collections::HashSet;

    const ASKED: Asked = Asked { head: false, old: false, keep_alive: true };

    fn written(
        status: u16,
        fields: &[(&'static str, &'static str)],
        length: Option<u64>,
        asked: Asked,
    ) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in fields.iter().chain(&[("date", "now")]) {
            map.append(*name, HeaderValue::from_static(value));
        }
        let mut out = Vec::new();
        let status = StatusCode::from_u16(status).unwrap();
        let (framing, keep_alive) = write(&mut out, status, &map.into(), |_| {}, length, asked);
        format!("{framing:?} {keep_alive} {}", String::from_utf8(out).unwrap().replace("\r\n", "|"))
    }

    #[test]
    fn framing_is_ours_to_say() {
        let old = Asked { old: true, ..ASKED };
        let head = Asked { head: true, ..ASKED };
        for (status, fields, length, asked, expected) in [
            (200, &[][..], Some(3), ASKED, "Length true HTTP/1.1 200 OK|date: now|content-length: 3||"),
            (
                200,
                &[("content-length", "9")],
                Some(3),
                ASKED,
                "Length true HTTP/1.1 200 OK|date: now|content-length: 3||",
            ),
            (
                200,
                &[("transfer-encoding", "x")],
                None,
                ASKED,
                "Chunked true HTTP/1.1 200 OK|date: now|transfer-encoding: chunked||",
            ),
            (200, &[], None, old, "Close false HTTP/1.1 200 OK|date: now|connection: close||"),
            (
                200,
                &[],
                Some(0),
                old,
                "Length true HTTP/1.1 200 OK|date: now|content-length: 0|connection: keep-alive||",
            ),
            (
                200,
                &[("content-length", "9")],
                Some(0),
                head,
                "None true HTTP/1.1 200 OK|content-length: 9|date: now||",
            ),
            (
                304,
                &[("content-length", "9")],
                Some(0),
                ASKED,
                "None true HTTP/1.1 304 Not Modified|content-length: 9|date: now||",
            ),
            (
                204,
                &[("content-length", "9")],
                Some(0),
                ASKED,
                "None true HTTP/1.1 204 No Content|date: now||",
            ),
            (
                299,
                &[("connection", "x")],
                Some(1),
                Asked { keep_alive: false, ..ASKED },
                "Length false HTTP/1.1 299 |date: now|content-length: 1|connection: close||",
            ),
            (
                101,
                &[("connection", "upgrade")],
                Some(0),
                ASKED,
                "None true HTTP/1.1 101 Switching Protocols|connection: upgrade|date: now||",
            ),
        ] {
            assert_eq!(written(status, fields, length, asked), expected);
        }
    }

    proptest! {
        /// Whether or not somebody made a map of its fields, an answer is the same.
        #[test]
        fn lines_and_maps_are_written_alike(
            fields in prop::collection::vec(
                (
                    prop_oneof![
                        "[A-Za-z!#$%&'*+.^_`|~0-9-]{1,24}",
                        Just("Content-Length".to_owned()),
                        Just("DATE".to_owned()),
                        Just("Set-Cookie".to_owned()),
                    ],
                    "[ -~\u{80}-\u{ff}]{0,20}",
                ),
                0..8,
            ),
            status in prop_oneof![Just(200u16), Just(204), Just(304), Just(404)],
            length in prop::option::of(0u64..100),
            head: bool,
            marked in 0..5_usize,
        ) {
            // One value each: a map has those of a name side by side.
            let mut seen = HashSet::new();
            let fields: Vec<_> = fields
                .into_iter()
                .filter(|(name, _)| match Sort::of(name.as_bytes()) {
                    Sort::Plain | Sort::ContentLength | Sort::Date | Sort::RateLimit => {
                        seen.insert(name.to_ascii_lowercase())
                    }
                    Sort::TransferEncoding | Sort::Connection | Sort::KeepAlive | Sort::Upgrade | Sort::Odd => false,
                })
                .collect();
            // As it is usual, and otherwise.
            let marks = [(": ", "\r\n"), (":", "\r\n"), (":\t", "\r\n"), (": ", "\n"), (": ", " \r\n")];
            let (before, after) = marks[marked];
            let text = fields.iter().map(|(name, value)| format!("{name}{before}{value}{after}"));
            let text: Bytes = text.collect::<String>().into();
            let lines = || {
                let (mut lines, mut at) = (Lines::new(), 0);
                lines.set_head(text.clone());
                for (name, value) in &fields {
                    let middle = at + name.len() + before.len();
                    let end = middle + value.len();
                    let field = Field { name: Span::new(at, at + name.len()), value: Span::new(middle, end) };
                    lines.push(Line::of(field, Sort::of(name.as_bytes())));
                    at = end + after.len();
                }
                lines
            };
            let asked = Asked { head, ..ASKED };
            let written = |fields: Fields| {
                let mut out = Vec::new();
                let status = StatusCode::from_u16(status).unwrap();
                let said = write(&mut out, status, &fields, |_| {}, length, asked);
                (out, said)
            };
            let map = lines().into_map();
            prop_assert_eq!(map.len(), fields.len());
            prop_assert_eq!(written(Fields::Lines(lines())), written(map.into()));
        }
    }

    #[test]
    fn a_refusal_is_whole_and_the_last() {
        let mut out = Vec::new();
        refuse(&mut out, Rejection::HeadTimeout);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 408 Request Timeout\r\n") && head.contains("\r\nconnection: close")
        );
        assert!(
            head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())) && head.contains("\r\ndate: ")
        );
    }
}
