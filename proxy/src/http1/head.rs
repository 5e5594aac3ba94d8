//! Request heads, read strictly (security.md §1): from bytes to a request without its body, and how that body ends. Does no I/O.
//!
//! What isn't a head at all is an error, and there is no request; what is one, but says two things about its body, is a
//! request that has been refused: it is answered and logged like others.

use super::decode::Decode;
use super::lengths::{Bad, Lengths, lists};
use crate::headers::spare_map;
use crate::limits::{self, Limits};
use crate::rejection::{Malformed, Rejection};
use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
};
use http::{Method, Request, Uri, Version, request};
use memchr::memmem::Finder;
use std::mem::MaybeUninit;
use std::sync::LazyLock;

/// Fields that the map has room for beside those that came: what is added to most requests.
const ADDED: usize = 4;
/// What ends a head.
const END: &[u8] = b"\r\n\r\n";
static FIND_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(END));

/// A request without its body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: request::Parts,
    pub(super) body: Decode,
    /// Whether the client keeps the connection.
    pub(super) keep_alive: bool,
    /// Whether it waits to be told that its body is wanted.
    pub(super) expects: bool,
    /// Whether it takes trailers.
    pub(super) trailers: bool,
    /// Why there is no answer but this.
    pub(super) refused: Option<Rejection>,
}

/// Finds heads in what has been read so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Bytes in which no end was found.
    seen: usize,
}

impl Reader {
    /// Takes a head off the front of `bytes`, if all of it is there.
    ///
    /// # Errors
    /// [`Rejection::HeadTooLarge`], [`Rejection::TargetTooLong`], [`Rejection::Version`], [`Rejection::Malformed`].
    pub(super) fn take(&mut self, bytes: &mut BytesMut, limits: &Limits) -> Result<Option<Head>, Rejection> {
        // RFC 9112 §2.2: an empty line before a request is ignored.
        while bytes.starts_with(b"\r\n") {
            drop(bytes.split_to(2));
            self.seen = 0;
        }
        let from = self.seen.saturating_sub(END.len() - 1);
        let Some(found) = FIND_END.find(bytes.get(from..).unwrap_or_default()) else {
            return self.wait(bytes, limits);
        };
        self.seen = 0;
        let length = from + found + END.len();
        if length > limits.head_bytes {
            return Err(Rejection::HeadTooLarge);
        }
        parse(&bytes.split_to(length).freeze(), limits).map(Some)
    }

    /// There is more to come, unless there is too much, or what is there begins no head.
    fn wait(&mut self, bytes: &BytesMut, limits: &Limits) -> Result<Option<Head>, Rejection> {
        if bytes.len() >= limits.head_bytes {
            return Err(Rejection::HeadTooLarge);
        }
        if self.seen == 0 && !bytes.is_empty() {
            let mut fields = [const { MaybeUninit::uninit() }; limits::FIELDS];
            let mut request = httparse::Request::new(&mut []);
            let parsed = httparse::ParserConfig::default().parse_request_with_uninit_headers(
                &mut request,
                bytes,
                &mut fields,
            );
            match parsed {
                Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {}
                // Lines that end in a bare LF.
                Ok(httparse::Status::Complete(_)) => return Err(Rejection::Malformed(Malformed::Head)),
                Err(error) => return Err(rejection(error, bytes)),
            }
        }
        self.seen = bytes.len();
        Ok(None)
    }
}

fn rejection(error: httparse::Error, head: &[u8]) -> Rejection {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    match error {
        httparse::Error::TooManyHeaders => Rejection::HeadTooLarge,
        httparse::Error::Version if version.starts_with(b"HTTP/") => Rejection::Version,
        httparse::Error::Version
        | httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token => Rejection::Malformed(Malformed::Head),
    }
}

/// Reads a whole head.
fn parse(head: &Bytes, limits: &Limits) -> Result<Head, Rejection> {
    if !lines_end_in_crlf(head) {
        return Err(Rejection::Malformed(Malformed::Head));
    }
    let mut room = [const { MaybeUninit::uninit() }; limits::FIELDS];
    // A policy may allow more.
    let mut more = Vec::new();
    let room = if limits.head_fields <= limits::FIELDS {
        &mut room[..]
    } else {
        more.resize_with(limits.head_fields, MaybeUninit::uninit);
        &mut more[..]
    };
    let mut request = httparse::Request::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_request_with_uninit_headers(&mut request, head, room)
        .map_err(|error| rejection(error, head))?;
    let (httparse::Status::Complete(length), Some(method), Some(target), Some(version)) =
        (parsed, request.method, request.path, request.version)
    else {
        return Err(Rejection::Malformed(Malformed::Head));
    };
    if length != head.len() {
        return Err(Rejection::Malformed(Malformed::Head));
    }
    if target.len() > limits.target_bytes {
        return Err(Rejection::TargetTooLong);
    }
    let mut parts = Request::new(()).into_parts().0;
    parts.method =
        Method::from_bytes(method.as_bytes()).map_err(|_| Rejection::Malformed(Malformed::Head))?;
    parts.uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes()))
        .map_err(|_| Rejection::Malformed(Malformed::Target))?;
    parts.version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut fields = Fields::of(version, request.headers.len());
    for field in request.headers.iter() {
        fields.add(field.name, head.slice_ref(field.value))?;
    }
    Ok(fields.head(parts))
}

/// Lines that end otherwise are one line to some, and two to others.
fn lines_end_in_crlf(head: &[u8]) -> bool {
    let ends = head.iter().filter(|byte| **byte == b'\n').count();
    let pairs = head.iter().zip(&head[1..]).filter(|(first, second)| **first == b'\r' && **second == b'\n');
    ends == pairs.count()
}

/// What the fields say.
struct Fields {
    map: HeaderMap,
    version: u8,
    lengths: Lengths,
    refused: Option<Rejection>,
    close: bool,
    keep: bool,
    expects: bool,
    trailers: bool,
}

impl Fields {
    fn of(version: u8, count: usize) -> Self {
        Self {
            map: spare_map(count + ADDED),
            version,
            lengths: Lengths::default(),
            refused: None,
            close: false,
            keep: false,
            expects: false,
            trailers: false,
        }
    }

    fn add(&mut self, name: &str, value: Bytes) -> Result<(), Rejection> {
        const BAD: Rejection = Rejection::Malformed(Malformed::Head);
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| BAD)?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| BAD)?;
        let text = value.as_bytes();
        let read = match name {
            CONTENT_LENGTH => self.lengths.content_length(text),
            TRANSFER_ENCODING => self.lengths.transfer_encoding(text),
            CONNECTION => {
                self.close |= lists(text, b"close");
                self.keep |= lists(text, b"keep-alive");
                Ok(())
            }
            EXPECT => {
                self.expects |= text.eq_ignore_ascii_case(b"100-continue");
                Ok(())
            }
            TE => {
                self.trailers |= lists(text, b"trailers");
                Ok(())
            }
            _ => Ok(()),
        };
        match read {
            Ok(()) => {}
            Err(Bad::Length) => self.refused = Some(Rejection::Malformed(Malformed::Framing)),
            Err(Bad::Coding) => {
                self.refused.get_or_insert(Rejection::TransferCoding);
            }
        }
        self.map.append(name, value);
        Ok(())
    }

    /// RFC 9112 §6.3, without its lenient branches.
    fn head(self, mut parts: request::Parts) -> Head {
        let Self { map, version, lengths, mut refused, close, keep, expects, trailers } = self;
        parts.headers = map;
        let coded = lengths.chunked || refused == Some(Rejection::TransferCoding);
        if coded && (lengths.length.is_some() || version == 0) {
            refused = Some(Rejection::Malformed(Malformed::Framing));
        }
        let body = match lengths.length {
            _ if refused.is_some() => Decode::End,
            _ if lengths.chunked => Decode::chunked(),
            Some(0) | None => Decode::End,
            Some(length) => Decode::Length(length),
        };
        let keep_alive = refused.is_none() && !close && (version == 1 || keep);
        // RFC 9110 §10.1.1: clients of HTTP/1.0 don't know it.
        let expects = expects && version == 1 && !body.is_end();
        Head { parts, body, keep_alive, expects, trailers, refused }
    }
}
