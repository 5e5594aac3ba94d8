//! Request heads, read strictly (security.md §1): from bytes to a request without its body, and how that body ends. Does no I/O.
//!
//! What isn't a head at all is an error, and there is no request; what is one, but says two things about its body, is a
//! request that has been refused: it is answered and logged like others.

use super::decode::Decode;
use super::end::end_of_head;
use super::lengths::{self, Lengths, lists};
use super::scan::{Bad, Field, RequestLine, Scanner, Stop};
use crate::headers::{spare_map, spare_parts};
use crate::limits::Limits;
use crate::rejection::{Malformed, Rejection};
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, HeaderValue, TE, TRANSFER_ENCODING};
use http::{Method, Uri, Version, request};
use smallvec::SmallVec;

/// Fields that the map has room for beside those that came: what is added to most requests.
const ADDED: usize = 4;
/// A request without its body.
#[derive(Debug)]
pub(super) struct Head {
    /// In a box: it goes to whoever answers.
    pub(super) parts: Box<request::Parts>,
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
        if bytes[..] == *b"\r" {
            return Ok(None);
        }
        // Most heads come whole. Of one that comes in pieces only the end is looked for: nobody makes us read its beginning again
        // and again. Three bytes may be the beginning of the end.
        let from = self.seen.saturating_sub(3);
        let parsed = match self.seen > 0 && end_of_head(&bytes[from..]).is_none() {
            true => None,
            false => parse(bytes, limits)?,
        };
        if parsed.is_none() && bytes.len() >= limits.head_bytes {
            return Err(Rejection::HeadTooLarge);
        }
        self.seen = if parsed.is_some() { 0 } else { bytes.len() };
        Ok(parsed)
    }
}

fn rejection(bad: Bad, head: &[u8]) -> Rejection {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let names_version = words.next().is_some_and(|word| word.starts_with(b"HTTP/")) && words.next().is_none();
    match bad {
        Bad::Version if names_version => Rejection::Version,
        Bad::Version | Bad::Line | Bad::Field => Rejection::Malformed(Malformed::Head),
    }
}

/// Takes a head off the front of `bytes`, if all of it is there.
fn parse(bytes: &mut BytesMut, limits: &Limits) -> Result<Option<Head>, Rejection> {
    let mut spans = SmallVec::<[Field; 24]>::new();
    let mut scanner = Scanner::of_request(bytes, limits.head_fields);
    let line = match scan(&mut scanner, &mut spans) {
        Ok(line) => line,
        Err(Stop::More) => return Ok(None),
        Err(Stop::Bad(bad)) => return Err(rejection(bad, bytes)),
        Err(Stop::TooMany) => return Err(Rejection::HeadTooLarge),
    };
    let (RequestLine { method, target, minor }, length) = (line, scanner.at());
    if length > limits.head_bytes {
        return Err(Rejection::HeadTooLarge);
    }
    if target.len() > limits.target_bytes {
        return Err(Rejection::TargetTooLong);
    }
    let head = bytes.split_to(length).freeze();
    let method = Method::from_bytes(method.text(&head)).map_err(|_| Rejection::Malformed(Malformed::Head))?;
    let uri =
        Uri::from_maybe_shared(target.slice(&head)).map_err(|_| Rejection::Malformed(Malformed::Target))?;
    let mut fields = Fields::of(minor, spans.len());
    for Field { name, value } in &spans {
        fields.add(name.text(&head), value.slice(&head))?;
    }
    Ok(Some(fields.head(method, uri)))
}

/// Goes through a whole head.
fn scan(scanner: &mut Scanner<'_>, fields: &mut SmallVec<[Field; 24]>) -> Result<RequestLine, Stop> {
    let line = scanner.request_line()?;
    while let Some(field) = scanner.field()? {
        fields.push(field);
    }
    Ok(line)
}

/// What the fields say.
struct Fields {
    parts: Box<request::Parts>,
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
        let mut parts = spare_parts();
        parts.headers = spare_map(count + ADDED);
        Self {
            parts,
            version,
            lengths: Lengths::default(),
            refused: None,
            close: false,
            keep: false,
            expects: false,
            trailers: false,
        }
    }

    fn add(&mut self, name: &[u8], value: Bytes) -> Result<(), Rejection> {
        const BAD: Rejection = Rejection::Malformed(Malformed::Head);
        let name = HeaderName::from_bytes(name).map_err(|_| BAD)?;
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
            Err(lengths::Bad::Length) => self.refused = Some(Rejection::Malformed(Malformed::Framing)),
            Err(lengths::Bad::Coding) => {
                self.refused.get_or_insert(Rejection::TransferCoding);
            }
        }
        self.parts.headers.append(name, value);
        Ok(())
    }

    /// RFC 9112 §6.3, without its lenient branches.
    fn head(self, method: Method, uri: Uri) -> Head {
        let Self { mut parts, version, lengths, mut refused, close, keep, expects, trailers } = self;
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
        parts.method = method;
        parts.uri = uri;
        parts.version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        Head { parts, body, keep_alive, expects, trailers, refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Option<Head>, Rejection> {
        Reader::default().take(&mut BytesMut::from(text), &Limits::default())
    }

    /// Reads `text` as it comes in pieces of `step` bytes.
    fn read_slowly(text: &[u8], step: usize) -> Result<Option<Head>, Rejection> {
        let (mut reader, mut bytes) = (Reader::default(), BytesMut::new());
        for piece in text.chunks(step) {
            bytes.extend_from_slice(piece);
            if let Some(head) = reader.take(&mut bytes, &Limits::default())? {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    #[test]
    fn bodies_and_connections_are_as_rfc_9112_says() {
        for (head, body, keep_alive, expects) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n", "End", true, false),
            ("GET / HTTP/1.1\r\nConnection: x, Close\r\n", "End", false, false),
            ("GET / HTTP/1.0\r\n", "End", false, false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", "End", true, false),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n", "Length(5)", true, true),
            ("POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n", "Length(5)", false, false),
            ("POST / HTTP/1.1\r\nContent-Length: 0\r\nExpect: 100-continue\r\n", "End", true, false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n", "Chunked", true, false),
        ] {
            let text = format!("{head}\r\n");
            let head = read(text.as_bytes()).unwrap().unwrap();
            assert!(format!("{:?}", head.body).starts_with(body), "{text}");
            assert_eq!((head.keep_alive, head.expects, head.refused), (keep_alive, expects, None), "{text}");
        }
    }

    #[test]
    fn what_says_two_things_about_its_body_is_a_refused_request() {
        use Rejection::TransferCoding;
        const FRAMING: Rejection = Rejection::Malformed(Malformed::Framing);
        for (fields, rejection) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", FRAMING),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", FRAMING),
            ("Transfer-Encoding: gzip\r\nContent-Length: 5\r\n", FRAMING),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", FRAMING),
            ("Content-Length: 5, 5\r\n", FRAMING),
            ("Content-Length: -1\r\n", FRAMING),
            ("Content-Length: 0x5\r\n", FRAMING),
            ("Content-Length:\r\n", FRAMING),
            ("Content-Length: 99999999999999999999\r\n", FRAMING),
            ("Transfer-Encoding: gzip, chunked\r\n", TransferCoding),
            ("Transfer-Encoding: chunked, chunked\r\n", TransferCoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", TransferCoding),
            ("Transfer-Encoding: chunked;x=y\r\n", TransferCoding),
            ("Transfer-Encoding: \x0bchunked\r\n", Rejection::Malformed(Malformed::Head)),
        ] {
            let outcome = read(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes());
            let refused = outcome.map(|head| head.unwrap()).map(|head| (head.refused, head.keep_alive));
            assert!(
                refused == Ok((Some(rejection), false)) || refused == Err(rejection),
                "{fields:?}: {refused:?}"
            );
        }
        let old = read(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap().unwrap();
        assert_eq!(old.refused, Some(FRAMING));
    }

    #[test]
    fn what_is_no_head_is_refused_as_soon_as_it_shows() {
        const HEAD: Rejection = Rejection::Malformed(Malformed::Head);
        for (text, rejection) in [
            (&b"GET / HTTP/1.1\nHost: a\n\n"[..], HEAD),
            (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", HEAD),
            (b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", HEAD),
            (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", HEAD),
            (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", HEAD),
            (b"GET / HTTP/1.1\r\n: b\r\n\r\n", HEAD),
            (b"GET / HTTP/1.1\r\nA: \x01\r\n\r\n", HEAD),
            (b"GET  / HTTP/1.1\r\n\r\n", HEAD),
            (b"GET / x HTTP/1.1\r\n\r\n", HEAD),
            (b"GET /\r\n\r\n", HEAD),
            (b"G\xc3T / HTTP/1.1\r\n\r\n", HEAD),
            (b"GET / HTTP/1.2\r\n\r\n", Rejection::Version),
            (b"GET / HTTP/2.0\r\n\r\n", Rejection::Version),
            (b"GET / ICY/1.1\r\n\r\n", HEAD),
            (b"\x16\x03\x01\x02\x00\x01", HEAD),
        ] {
            assert_eq!(read(text).err(), Some(rejection), "{:?}", text.escape_ascii().to_string());
        }
        let long = [b"GET / HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; limits::HEAD]].concat();
        assert_eq!(read(&long).err(), Some(Rejection::HeadTooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(limits::FIELDS + 1));
        assert_eq!(read(many.as_bytes()).err(), Some(Rejection::HeadTooLarge));
        let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(16 * 1024));
        assert_eq!(read(target.as_bytes()).err(), Some(Rejection::TargetTooLong));
    }

    #[test]
    fn policies_may_allow_more_fields() {
        let limits = Limits { head_fields: 300, ..Limits::default() };
        let head = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        let read = |count| Reader::default().take(&mut BytesMut::from(&*head(count)), &limits);
        assert_eq!(read(300).unwrap().unwrap().parts.headers.len(), 300);
        assert_eq!(read(301).err(), Some(Rejection::HeadTooLarge));
    }

    #[test]
    fn heads_come_in_pieces_after_empty_lines_and_one_after_the_other() {
        let text = b"\r\n\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nX-Two: 1\r\nx-two: 2\r\n\r\n";
        for step in 1..text.len() {
            let head = read_slowly(text, step).unwrap().unwrap();
            assert_eq!((head.parts.method.as_str(), head.parts.uri.to_string()), ("POST", "/a?b".to_owned()));
            assert_eq!(head.parts.headers.get_all("x-two").iter().count(), 2);
        }
        let mut two = BytesMut::from(&b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET"[..]);
        let mut reader = Reader::default();
        for path in ["/1", "/2"] {
            let head = reader.take(&mut two, &Limits::default()).unwrap().unwrap();
            assert_eq!(head.parts.uri.path(), path);
        }
        assert!(reader.take(&mut two, &Limits::default()).unwrap().is_none());
        assert_eq!(&two[..], b"GET");
    }

    proptest! {
        /// However it comes, it is read alike: a whole head as the same head, another as the same refusal or sooner.
        #[test]
        fn pieces_make_no_difference(
            text in proptest::collection::vec(
                prop_oneof![
                    Just(b"GET / HTTP/1.1\r\n".to_vec()), Just(b"A: b\r\n".to_vec()), Just(b"\r\n".to_vec()),
                    Just(b"\n".to_vec()), Just(b"Content-Length: 3\r\n".to_vec()), Just(b"\r".to_vec()),
                    proptest::collection::vec(any::<u8>(), 1..4),
                ],
                0..12,
            ),
            step in 1..9_usize,
        ) {
            // Empty lines before a head are none of it.
            let text = [b"\r\n", text.concat().trim_ascii_start()].concat();
            let (whole, pieces) = (read(&text), read_slowly(&text, step));
            match (&whole, &pieces) {
                (Ok(Some(one)), Ok(Some(other))) => prop_assert_eq!(format!("{one:?}"), format!("{other:?}")),
                (Err(_), Err(_)) | (Ok(None), Ok(None)) => {}
                // What follows a refusable beginning without an end shows only with the end.
                (Ok(None), Err(_)) | (Err(_), Ok(None)) => prop_assert!(!text[2..].windows(4).any(|four| four == b"\r\n\r\n")),
                _ => prop_assert!(false, "{:?} {:?}", whole, pieces),
            }
        }
    }
}
