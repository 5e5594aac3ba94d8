//! Response heads, read strictly (security.md §3): from bytes to status, fields and the framing of the body.
//!
//! What can be read in two ways is an error, never repaired: both length fields, several lengths, a length that isn't
//! plain digits, a transfer coding that isn't `chunked` alone. Does no I/O.

use crate::headers::{Fields, Line, Lines, Sort};
use crate::http1::chunked;
use crate::http1::{Decode, Lengths, Scanner, StatusLine, Stop, lists};
use bytes::BytesMut;
use http::{Method, StatusCode};

/// Bytes of a response head (security.md §3, §8).
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// Fields of a response head (security.md §8).
const MAX_FIELDS: usize = 100;

/// A response head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(super) status: StatusCode,
    /// Without `Transfer-Encoding`. As a map where something is to be looked at closely ([`crate::headers::prepare_response`]); else
    /// without all that is about the connection.
    pub(super) headers: Fields,
    pub(super) body: Decode,
    /// Whether the connection may carry another exchange after this one.
    pub(super) keep_alive: bool,
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// Status line or fields can't be parsed.
    #[error("malformed response head")]
    Head,
    /// More than 64 KiB or 100 fields.
    #[error("response head is too large")]
    HeadTooLarge,
    /// Lengths are repeated, malformed, or contradict each other.
    #[error("contradictory or malformed lengths")]
    Framing,
    /// A chunk can't be parsed.
    #[error(transparent)]
    Chunk(#[from] chunked::Malformed),
    /// Too many interim answers.
    #[error("more than 16 interim answers")]
    Interim,
    /// A 101 that nobody asked for.
    #[error("switched protocols unasked")]
    Upgrade,
}

/// Takes a head off the front of `bytes`, if all of it is there. `method` is the request's.
pub(super) fn parse(bytes: &mut BytesMut, method: &Method) -> Result<Option<Head>, Malformed> {
    let unread = |stop| match stop {
        Stop::More if bytes.len() < MAX_HEAD => Ok(None),
        Stop::More | Stop::TooMany => Err(Malformed::HeadTooLarge),
        Stop::Bad(_) => Err(Malformed::Head),
    };
    let mut scanner = Scanner::of_answer(bytes, MAX_FIELDS);
    let StatusLine { code, minor: version } = match scanner.status_line() {
        Ok(line) => line,
        Err(stop) => return unread(stop),
    };
    let status = StatusCode::from_u16(code).map_err(|_| Malformed::Head)?;
    let mut lines = Lines::new();
    let mut lengths = Lengths::default();
    let (mut keep_alive, mut odd) = (version == 1, false);
    loop {
        let field = match scanner.field() {
            Ok(Some(field)) => field,
            Ok(None) => break,
            Err(stop) => return unread(stop),
        };
        let (name, value) = (field.name.text(bytes), field.value.text(bytes));
        let sort = Sort::of(name);
        match sort {
            Sort::Plain | Sort::Date | Sort::RateLimit | Sort::KeepAlive => {}
            Sort::Upgrade | Sort::Odd => odd = true,
            Sort::ContentLength => lengths.content_length(value).map_err(|_| Malformed::Framing)?,
            Sort::TransferEncoding => {
                lengths.transfer_encoding(value).map_err(|_| Malformed::Framing)?;
                continue;
            }
            Sort::Connection => {
                keep_alive &= !lists(value, b"close");
                odd |= ![&b"keep-alive"[..], b"close"].iter().any(|usual| value.eq_ignore_ascii_case(usual));
            }
        }
        lines.push(Line::of(field, sort));
    }
    let length = scanner.at();
    if length > MAX_HEAD {
        return Err(Malformed::HeadTooLarge);
    }
    lines.set_head(bytes.split_to(length).freeze());
    let mut headers = match odd {
        true => lines.into_map().into(),
        false => {
            lines.leave_out(|sort| matches!(sort, Sort::Connection | Sort::KeepAlive));
            Fields::Lines(lines)
        }
    };
    let body = framing(lengths, status, method, version)?;
    if matches!(body, Decode::Close) {
        keep_alive = false;
    }
    if status == StatusCode::NO_CONTENT {
        headers.remove(Sort::ContentLength);
    }
    Ok(Some(Head { status, headers, body, keep_alive }))
}

/// RFC 9112 §6.3, without its lenient branches.
fn framing(lengths: Lengths, status: StatusCode, method: &Method, version: u8) -> Result<Decode, Malformed> {
    if lengths.chunked && (lengths.length.is_some() || version == 0) {
        return Err(Malformed::Framing);
    }
    let bodiless = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || *method == Method::HEAD;
    Ok(match lengths.length {
        _ if bodiless => Decode::End,
        _ if lengths.chunked => Decode::chunked(),
        Some(0) => Decode::End,
        Some(length) => Decode::Length(length),
        None => Decode::Close,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::TRANSFER_ENCODING;

    fn read(text: &str, method: Method) -> Result<Option<Head>, Malformed> {
        parse(&mut BytesMut::from(text), &method)
    }

    #[test]
    fn framing_follows_rfc_9112() {
        for (text, method, framing, keep_alive) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::GET, "Length(5)", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Method::GET, "End", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Method::GET, "Chunked", true),
            ("HTTP/1.1 200\r\n\r\n", Method::GET, "Close", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Method::GET, "Length(5)", false),
            (
                "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\n",
                Method::GET,
                "Length(5)",
                false,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::HEAD, "End", true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Method::GET, "End", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", Method::GET, "End", true),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Method::GET, "End", true),
        ] {
            let head = read(text, method).unwrap().unwrap();
            assert!(format!("{:?}", head.body).starts_with(framing), "{text}: {:?}", head.body);
            assert_eq!(head.keep_alive, keep_alive, "{text}");
            assert_eq!(head.headers.get(&TRANSFER_ENCODING), None);
        }
    }

    #[test]
    fn what_is_about_the_connection_goes_or_is_looked_at_closely() {
        for (fields, odd, kept) in [
            ("Connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\nServer: a\r\n", false, 2),
            ("connection: close\r\nA: b\r\nA: c\r\n", false, 3),
            ("Connection: x-a\r\nX-A: b\r\n", true, 3),
            ("Connection: keep-alive, x-a\r\nX-A: b\r\n", true, 3),
            ("Upgrade: h2c\r\n", true, 2),
            ("TE: trailers\r\n", true, 2),
            ("Proxy-Authenticate: Basic\r\n", true, 2),
            ("Proxy: a\r\n", true, 2),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
            let headers = read(&text, Method::GET).unwrap().unwrap().headers;
            assert_eq!(matches!(headers, Fields::Map(_)), odd, "{fields}");
            assert_eq!(headers.into_map().len(), kept, "{fields}");
        }
    }

    /// What is read of a head is what a map may have: nothing gets lost on the way there.
    #[test]
    fn every_byte_that_is_read_is_one_that_a_map_takes() {
        for byte in 0..=u8::MAX {
            for (name, value) in [(&[b'a', byte][..], &b"b"[..]), (b"a", &[b'x', byte, b'x'])] {
                let text =
                    [b"HTTP/1.1 200 OK\r\n", name, b": ", value, b"\r\nContent-Length: 0\r\n\r\n"].concat();
                if let Ok(Some(head)) = parse(&mut BytesMut::from(&text[..]), &Method::GET) {
                    assert_eq!(head.headers.into_map().len(), 2, "{byte}");
                }
            }
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (text, error) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                Malformed::Framing,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n", Malformed::Framing),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Malformed::Framing),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                Malformed::Framing,
            ),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed::Framing),
            ("HTTP/2 200 OK\r\n\r\n", Malformed::Head),
            ("HTTP/1.1 20 OK\r\n\r\n", Malformed::Head),
            ("HTTP/1.1 099 OK\r\n\r\n", Malformed::Head),
            ("SSH-2.0-OpenSSH\r\n\r\n", Malformed::Head),
            ("HTTP/1.1 200 OK\r\nName : x\r\n\r\n", Malformed::Head),
            ("HTTP/1.1 200 OK\r\nName: x\r\n folded\r\n\r\n", Malformed::Head),
            ("HTTP/1.1 200 OK\r\nNa me: x\r\n\r\n", Malformed::Head),
            ("HTTP/1.1 200 OK\r\nName: \0\r\n\r\n", Malformed::Head),
        ] {
            assert_eq!(read(text, Method::GET).map(|_| ()), Err(error), "{text:?}");
        }
    }

    #[test]
    fn heads_have_bounds_and_arrive_in_parts() {
        assert!(read("HTTP/1.1 200 OK\r\nA: b\r\n", Method::GET).unwrap().is_none());
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(MAX_HEAD));
        assert_eq!(read(&long, Method::GET).map(|_| ()), Err(Malformed::HeadTooLarge));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(read(&many, Method::GET).map(|_| ()), Err(Malformed::HeadTooLarge));
        let mut two = BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP");
        parse(&mut two, &Method::GET).unwrap().unwrap();
        assert_eq!(&two[..], b"xHTTP");
    }
}
