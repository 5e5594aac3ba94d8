//! The chunked transfer coding, read strictly (RFC 9112 §7.1, security.md §1, §3).
//!
//! Sizes are bare hex without overflow, lines end in CRLF, extensions are dropped (16 KiB in all), trailers have
//! bounds and never carry framing, routing or credentials. Does no I/O.

use super::scan::{Scanner, Stop, is_text};
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Bytes of size lines beyond their digits, over a whole body.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Bytes of the trailer section.
const MAX_TRAILERS: usize = 16 * 1024;
/// Fields of the trailer section.
const MAX_TRAILER_FIELDS: usize = 64;
/// Hex digits of a chunk size that can't overflow what we count with.
const MAX_DIGITS: usize = 15;

/// Reads one chunked body.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    extensions: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// A chunk, a size line or a trailer section that can't be parsed, or is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunk")]
pub(crate) struct Malformed;

/// What [`Decoder::decode`] found.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    /// A part of the body.
    Data(Bytes),
    /// The end, with trailers if there were any.
    End(Option<HeaderMap>),
    /// Nothing before more bytes arrive.
    More,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { state: State::Size, extensions: 0 }
    }

    /// Takes the next piece off the front of `bytes`.
    pub(crate) fn decode(&mut self, bytes: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            match self.state {
                State::Size => match self.size(bytes)? {
                    None => return Ok(Piece::More),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Data(size),
                },
                State::Data(left) => {
                    if bytes.is_empty() {
                        return Ok(Piece::More);
                    }
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Piece::Data(bytes.split_to(taken).freeze()));
                }
                State::DataEnd => match bytes.get(..2) {
                    None if bytes.first().is_some_and(|&byte| byte != b'\r') => return Err(Malformed),
                    None => return Ok(Piece::More),
                    Some(b"\r\n") => {
                        drop(bytes.split_to(2));
                        self.state = State::Size;
                    }
                    Some(_) => return Err(Malformed),
                },
                State::Trailers => {
                    let Some(trailers) = trailers(bytes)? else { return Ok(Piece::More) };
                    self.state = State::Done;
                    return Ok(Piece::End(trailers));
                }
                State::Done => return Ok(Piece::End(None)),
            }
        }
    }

    fn size(&mut self, bytes: &mut BytesMut) -> Result<Option<u64>, Malformed> {
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            if bytes.len() > MAX_DIGITS + 1 + MAX_EXTENSIONS - self.extensions {
                return Err(Malformed);
            }
            return Ok(None);
        };
        let line = bytes.split_to(end + 1);
        let line = line.strip_suffix(b"\r\n").ok_or(Malformed)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits == 0 || digits > MAX_DIGITS {
            return Err(Malformed);
        }
        let extension = &line[digits..];
        // RFC 9112 §7.1.1: an extension begins with `;`, after white space that old senders padded with.
        if !extension.is_empty() {
            self.extensions += extension.len();
            let begins = extension.trim_ascii_start().first();
            let begins_otherwise = begins.is_some_and(|&byte| byte != b';');
            if self.extensions > MAX_EXTENSIONS || begins_otherwise || !is_text(extension) {
                return Err(Malformed);
            }
        }
        let mut size = 0;
        for &digit in &line[..digits] {
            let value = char::from(digit).to_digit(16).ok_or(Malformed)?;
            size = size << 4 | u64::from(value);
        }
        Ok(Some(size))
    }
}

fn trailers(bytes: &mut BytesMut) -> Result<Option<Option<HeaderMap>>, Malformed> {
    // The usual case: no trailers.
    if bytes.starts_with(b"\r\n") {
        drop(bytes.split_to(2));
        return Ok(Some(None));
    }
    let mut scanner = Scanner::of_trailers(bytes, MAX_TRAILER_FIELDS);
    let mut map = HeaderMap::new();
    loop {
        let field = match scanner.field() {
            Ok(Some(field)) => field,
            Ok(None) => break,
            Err(Stop::More) if bytes.len() < MAX_TRAILERS => return Ok(None),
            Err(Stop::More | Stop::Bad(_) | Stop::TooMany) => return Err(Malformed),
        };
        let name = HeaderName::from_bytes(field.name.text(bytes)).map_err(|_| Malformed)?;
        let value = HeaderValue::from_bytes(field.value.text(bytes)).map_err(|_| Malformed)?;
        if may_trail(&name) {
            map.append(name, value);
        }
    }
    let length = scanner.at();
    if length > MAX_TRAILERS {
        return Err(Malformed);
    }
    drop(bytes.split_to(length));
    Ok(Some(Some(map)))
}

/// Whether a field may be a trailer: RFC 9110 §6.5.1 forbids framing, routing, authentication and content fields.
pub(crate) fn may_trail(name: &HeaderName) -> bool {
    ![
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TRAILER,
        header::HOST,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::EXPECT,
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
        header::CACHE_CONTROL,
    ]
    .contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes `text` in steps of `step` bytes.
    fn decode(text: &[u8], step: usize) -> Result<(Vec<u8>, Option<HeaderMap>, usize), Malformed> {
        let (mut decoder, mut bytes, mut body) = (Decoder::new(), BytesMut::new(), Vec::new());
        let mut parts = text.chunks(step);
        loop {
            match decoder.decode(&mut bytes)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End(trailers) => {
                    return Ok((body, trailers, bytes.len() + parts.map(<[u8]>::len).sum::<usize>()));
                }
                Piece::More => match parts.next() {
                    Some(part) => bytes.extend_from_slice(part),
                    None => return Ok((body, None, usize::MAX)),
                },
            }
        }
    }

    #[test]
    fn bodies_are_read_whatever_the_pieces() {
        let text =
            b"5\r\nhello\r\n00A;name=\"x\"\r\n, headgate\r\n0\r\nX-Sum: 7\r\nContent-Length: 3\r\n\r\nHTTP";
        for step in 1..text.len() {
            let (body, trailers, left) = decode(text, step).unwrap();
            assert_eq!(body, b"hello, headgate");
            let trailers = trailers.unwrap();
            assert_eq!(trailers["x-sum"], "7");
            assert!(!trailers.contains_key("content-length"));
            assert_eq!(left, 4);
        }
        assert_eq!(decode(b"0\r\n\r\n", 1).unwrap(), (Vec::new(), None, 0));
    }

    #[test]
    fn odd_chunks_are_refused() {
        for text in [
            &b"\r\n"[..],
            b"x\r\n",
            b"0x5\r\nhello\r\n",
            b"-1\r\n",
            b" 5\r\nhello\r\n",
            b"5 x\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"1000000000000000\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"0\r\nbad name: x\r\n\r\n",
        ] {
            for step in [1, 3, 64] {
                assert_eq!(decode(text, step).map(|_| ()), Err(Malformed), "{text:?}");
            }
        }
        let long = [b"5;".to_vec(), vec![b'a'; MAX_EXTENSIONS + 32]].concat();
        assert_eq!(decode(&long, 1000).map(|_| ()), Err(Malformed));
        let trailers = [b"0\r\nA: ".to_vec(), vec![b'a'; MAX_TRAILERS]].concat();
        assert_eq!(decode(&trailers, 1000).map(|_| ()), Err(Malformed));
    }

    #[test]
    fn a_cut_body_never_ends() {
        let text = b"5\r\nhello\r\n0\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(decode(&text[..cut], 1).unwrap().2, usize::MAX);
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_never_invents(text in proptest::collection::vec(any::<u8>(), 0..256), step in 1..9usize) {
            if let Ok((body, _, _)) = decode(&text, step) {
                prop_assert!(body.len() <= text.len());
            }
        }
    }
}
