//! The fields of an answer: a map, or as they came.
//!
//! Most answers pass no filter and no policy that looks at their fields. For these a map is more work than all the rest of
//! reading and writing a head: names are told apart, values checked once more, both hashed, kept, found and dropped. So
//! they stay as they came, lines of a head that was read strictly, until somebody asks for the map.

use super::{Say, keep_map, spare_map};
use crate::http1::{Field, Span, write_field};
use crate::shelf::Shelf;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

/// Lists of lines that a thread keeps.
const KEPT: usize = 64;

/// The fields of an answer. In boxes: answers are moved a dozen times.
#[derive(Debug)]
pub(crate) enum Fields {
    /// As they came. None of them is about the connection.
    Lines(Box<Lines>),
    Map(Box<HeaderMap>),
}

/// Fields of a head that was parsed: names of tokens, values without control characters.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    head: Bytes,
    lines: Vec<Line>,
}

/// Where a field is in its head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    name: Span,
    value: Span,
    sort: Sort,
}

/// What an answer's field is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// The resource, or whatever backend and client agree on.
    Plain,
    ContentLength,
    Date,
    TransferEncoding,
    /// What is left of a rate limit ([`crate::rate_limit`]).
    RateLimit,
    /// This connection: `Connection`.
    Connection,
    /// This connection, and nothing that anybody here or at the client's acts upon: `Keep-Alive`.
    KeepAlive,
    /// Another protocol: `Upgrade`.
    Upgrade,
    /// A proxy, or what only requests have: it goes no further.
    Odd,
}

impl Sort {
    /// Of a field's name, in whichever case.
    pub(crate) fn of(name: &[u8]) -> Self {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let Some(first) = name.first() else { return Self::Plain };
        // The first letter tells most names from these.
        match (first | 0x20, name.len()) {
            (b't', 2) if is(b"te") => Self::Odd,
            (b'd', 4) if is(b"date") => Self::Date,
            (b'p', 5) if is(b"proxy") => Self::Odd,
            (b'p', 6..) if name[..6].eq_ignore_ascii_case(b"proxy-") => Self::Odd,
            (b'u', 7) if is(b"upgrade") => Self::Upgrade,
            (b'r', 9) if is(b"ratelimit") => Self::RateLimit,
            (b'c', 10) if is(b"connection") => Self::Connection,
            (b'k', 10) if is(b"keep-alive") => Self::KeepAlive,
            (b'c', 14) if is(b"content-length") => Self::ContentLength,
            (b'r', 16) if is(b"ratelimit-policy") => Self::RateLimit,
            (b't', 17) if is(b"transfer-encoding") => Self::TransferEncoding,
            (b'x', 17) if is(b"x-ratelimit-limit") || is(b"x-ratelimit-reset") => Self::RateLimit,
            (b'x', 21) if is(b"x-ratelimit-remaining") => Self::RateLimit,
            _ => Self::Plain,
        }
    }
}

thread_local! {
    static SPARE: Shelf<Box<Lines>> = const { Shelf::of(KEPT) };
}

impl Line {
    /// A line of a head.
    pub(crate) fn of(Field { name, value }: Field, sort: Sort) -> Self {
        Self { name, value, sort }
    }

    /// All of the line with its end, where it is as we would write it.
    fn whole(self, head: &[u8]) -> Option<&[u8]> {
        let Self { name, value, .. } = self;
        let (before, after) = (name.until(value).text(head), head.get(value.end()..)?);
        (before == b": " && after.starts_with(b"\r\n")).then(|| &head[name.start()..value.end() + 2])
    }
}

impl Lines {
    /// None yet; their head comes with [`Lines::set_head`].
    pub(crate) fn new() -> Box<Self> {
        SPARE.with(Shelf::take).unwrap_or_default()
    }

    /// Adds one.
    pub(crate) fn push(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// The head that they are lines of.
    pub(crate) fn set_head(&mut self, head: Bytes) {
        self.head = head;
    }

    /// Name, value and sort of each, in order. The names are in the case in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], Sort)> {
        let head = &self.head;
        self.lines.iter().map(|line| (line.name.text(head), line.value.text(head), line.sort))
    }

    /// Writes those that are wanted as HTTP/1.1 has them, names in lower case.
    pub(crate) fn write(&self, out: &mut Vec<u8>, mut wanted: impl FnMut(Sort) -> bool) {
        for line in &self.lines {
            if !wanted(line.sort) {
                continue;
            }
            let (name, at) = (line.name.text(&self.head), out.len());
            match line.whole(&self.head) {
                Some(whole) => out.extend_from_slice(whole),
                None => write_field(out, name, line.value.text(&self.head)),
            }
            out[at..at + name.len()].make_ascii_lowercase();
        }
    }

    /// Leaves some out.
    pub(crate) fn leave_out(&mut self, gone: impl Fn(Sort) -> bool) {
        self.lines.retain(|line| !gone(line.sort));
    }

    /// As a map.
    pub(crate) fn into_map(self: Box<Self>) -> HeaderMap {
        let mut map = spare_map(self.lines.len() + 4);
        for (name, value, _) in self.iter() {
            // What a head may have is what a map may.
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_maybe_shared(self.head.slice_ref(value)))
            {
                map.append(name, value);
            }
        }
        self.keep();
        map
    }

    /// Keeps the list's room.
    fn keep(mut self: Box<Self>) {
        self.head = Bytes::new();
        self.lines.clear();
        SPARE.with(|shelf| shelf.keep(self));
    }
}

impl Fields {
    /// As a map, from now on.
    pub(crate) fn map(&mut self) -> &mut HeaderMap {
        if let Self::Lines(lines) = self {
            *self = std::mem::take(lines).into_map().into();
        }
        match self {
            Self::Map(map) => map,
            Self::Lines(_) => unreachable!("they are a map now"),
        }
    }

    /// As a map.
    pub(crate) fn into_map(self) -> HeaderMap {
        match self {
            Self::Map(map) => *map,
            Self::Lines(lines) => lines.into_map(),
        }
    }

    /// The first value of that name.
    pub(crate) fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        match self {
            Self::Map(map) => map.get(name).map(HeaderValue::as_bytes),
            Self::Lines(lines) => {
                let Lines { head, lines } = &**lines;
                let name = name.as_str().as_bytes();
                let is = |line: &&Line| line.name.text(head).eq_ignore_ascii_case(name);
                lines.iter().find(is).map(|line| line.value.text(head))
            }
        }
    }

    /// Takes away all of one sort.
    pub(crate) fn remove(&mut self, sort: Sort) {
        match self {
            Self::Lines(lines) => lines.leave_out(|other| other == sort),
            Self::Map(map) => {
                let is = |name: &&HeaderName| Sort::of(name.as_str().as_bytes()) == sort;
                let names: Vec<_> = map.keys().filter(is).cloned().collect();
                names.iter().for_each(|name| drop(map.remove(name)));
            }
        }
    }

    /// Keeps their room for others.
    pub(crate) fn keep(self) {
        match self {
            Self::Map(map) => keep_map(*map),
            Self::Lines(lines) => lines.keep(),
        }
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        Self::Map(Box::new(map))
    }
}

impl Say for Fields {
    fn say(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        self.map().say(name, write);
    }
}
