//! The grammar of heads (RFC 9112 §2 to §5), in one pass over their bytes: where their parts are. What the parts say is for others
//! to judge. Does no I/O and keeps nothing: a head of which more is to come is scanned anew.
//!
//! Strict: no space before a colon, no folded lines, no control characters but tabs in values, CR only before LF. A line ends in
//! CRLF; that of an answer may end in LF alone, as RFC 9112 §2.2 lets us take it.

use super::span::Span;

/// Why there is no next part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It isn't all there.
    More,
    /// It breaks the grammar.
    Bad(Bad),
    /// It has more fields than it may.
    TooMany,
}

/// What breaks the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// The first line.
    Line,
    /// Where the version should be.
    Version,
    /// A field, or the end of the head.
    Field,
}

/// How lines end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Crlf,
    CrlfOrLf,
}

/// The first line of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLine {
    pub(crate) method: Span,
    pub(crate) target: Span,
    /// Of HTTP/1.1, 1; of HTTP/1.0, 0.
    pub(crate) minor: u8,
}

/// The first line of an answer. What it calls its status isn't read (RFC 9112 §4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusLine {
    pub(crate) code: u16,
    /// Of HTTP/1.1, 1; of HTTP/1.0, 0.
    pub(crate) minor: u8,
}

/// A field line. The value is without the spaces around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: Span,
    pub(crate) value: Span,
}

/// On its way through a head.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    ends: Ends,
    /// How many more fields there may be.
    left: usize,
}

type Scanned<T> = Result<T, Stop>;

impl<'a> Scanner<'a> {
    /// At the beginning of a request, of at most so many fields. `bytes` are fewer than 4 GiB.
    pub(crate) fn of_request(bytes: &'a [u8], fields: usize) -> Self {
        Self { bytes, at: 0, ends: Ends::Crlf, left: fields }
    }

    /// The same of an answer.
    pub(crate) fn of_answer(bytes: &'a [u8], fields: usize) -> Self {
        Self { bytes, at: 0, ends: Ends::CrlfOrLf, left: fields }
    }

    /// The same of trailers, which are fields only.
    pub(crate) fn of_trailers(bytes: &'a [u8], fields: usize) -> Self {
        Self::of_request(bytes, fields)
    }

    /// How many bytes were taken.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Takes the first line of a request.
    #[inline]
    pub(crate) fn request_line(&mut self) -> Scanned<RequestLine> {
        let method = self.part(tokens, Bad::Line)?;
        self.take(b' ', Bad::Line)?;
        let target = self.part(visible, Bad::Line)?;
        self.take(b' ', Bad::Line)?;
        // Of what isn't ASCII only text is a target.
        let text = target.text(self.bytes);
        if !text.is_ascii() && std::str::from_utf8(text).is_err() {
            return Err(Stop::Bad(Bad::Line));
        }
        let minor = self.version()?;
        self.line_end(Bad::Line)?;
        Ok(RequestLine { method, target, minor })
    }

    /// Takes the first line of an answer, and empty lines before it.
    #[inline]
    pub(crate) fn status_line(&mut self) -> Scanned<StatusLine> {
        while matches!(self.peek()?, b'\r' | b'\n') {
            self.line_end(Bad::Line)?;
        }
        let minor = self.version()?;
        self.take(b' ', Bad::Line)?;
        let mut code = 0;
        for _ in 0..3 {
            let digit = self.peek()?;
            if !digit.is_ascii_digit() {
                return Err(Stop::Bad(Bad::Line));
            }
            code = code * 10 + u16::from(digit - b'0');
            self.at += 1;
        }
        if self.peek()? == b' ' {
            self.at = text(self.bytes, self.at);
        }
        self.line_end(Bad::Line)?;
        Ok(StatusLine { code, minor })
    }

    /// Takes the next field; none: the head ends here.
    #[inline]
    pub(crate) fn field(&mut self) -> Scanned<Option<Field>> {
        if matches!(self.peek()?, b'\r' | b'\n') {
            self.line_end(Bad::Field)?;
            return Ok(None);
        }
        let name = self.part(tokens, Bad::Field)?;
        self.take(b':', Bad::Field)?;
        let mut from = self.at;
        while self.bytes.get(from).copied().is_some_and(is_space) {
            from += 1;
        }
        let mut to = text(self.bytes, from);
        self.at = to;
        self.line_end(Bad::Field)?;
        while to > from && is_space(self.bytes[to - 1]) {
            to -= 1;
        }
        self.left = self.left.checked_sub(1).ok_or(Stop::TooMany)?;
        Ok(Some(Field { name, value: Span::new(from, to) }))
    }

    /// The next byte, which stays.
    fn peek(&self) -> Scanned<u8> {
        self.bytes.get(self.at).copied().ok_or(Stop::More)
    }

    /// Takes a byte that has to be there.
    fn take(&mut self, wanted: u8, bad: Bad) -> Scanned<()> {
        match self.peek()? == wanted {
            true => self.at += 1,
            false => return Err(Stop::Bad(bad)),
        }
        Ok(())
    }

    /// Takes a part that has a byte at least. `end` says where the first byte is that can't be in it.
    #[inline]
    fn part(&mut self, end: impl Fn(&[u8], usize) -> usize, bad: Bad) -> Scanned<Span> {
        let from = self.at;
        let to = end(self.bytes, from);
        // What follows tells whether it is whole.
        if to == self.bytes.len() {
            return Err(Stop::More);
        }
        if to == from {
            return Err(Stop::Bad(bad));
        }
        self.at = to;
        Ok(Span::new(from, to))
    }

    /// Takes `HTTP/1.1` or `HTTP/1.0`.
    fn version(&mut self) -> Scanned<u8> {
        const NAME: &[u8; 7] = b"HTTP/1.";
        let rest = &self.bytes[self.at..];
        let Some((name, [minor @ (b'0' | b'1'), ..])) = rest.split_first_chunk() else {
            let begun = NAME.starts_with(&rest[..rest.len().min(NAME.len())]);
            return Err(if begun && rest.len() <= NAME.len() { Stop::More } else { Stop::Bad(Bad::Version) });
        };
        if name != NAME {
            return Err(Stop::Bad(Bad::Version));
        }
        self.at += NAME.len() + 1;
        Ok(minor - b'0')
    }

    /// Takes the end of a line.
    fn line_end(&mut self, bad: Bad) -> Scanned<()> {
        match self.bytes[self.at..] {
            [b'\r', b'\n', ..] => self.at += 2,
            [b'\n', ..] if self.ends == Ends::CrlfOrLf => self.at += 1,
            [] | [b'\r'] => return Err(Stop::More),
            [..] => return Err(Stop::Bad(bad)),
        }
        Ok(())
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Bytes of a token (RFC 9110 §5.6.2).
static TOKEN: [bool; 256] = {
    const MARKS: &[u8] = b"!#$%&'*+-.^_`|~";
    let mut token = [false; 256];
    let mut byte = 0;
    while byte < token.len() {
        token[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut mark = 0;
    while mark < MARKS.len() {
        token[MARKS[mark] as usize] = true;
        mark += 1;
    }
    token
};

/// The highest bit of each of eight bytes, by which arithmetic on all of them at once tells of each.
const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);

/// Eight times a byte.
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Where the first byte from `at` on is that isn't one of a token.
fn tokens(bytes: &[u8], mut at: usize) -> usize {
    // Most tokens are of letters, digits and hyphens.
    while let Some(next) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*next);
        // Without their highest bits no sum of two bytes reaches the next one.
        let low = word & !HIGH;
        let within =
            |low: u64, first: u8, last: u8| (low + eight(0x80 - first)) & !(low + eight(0x7f - last));
        let letters = within(low | eight(0x20), b'a', b'z');
        let usual = (letters | within(low, b'0', b'9') | within(low, b'-', b'-')) & !word & HIGH;
        let others = usual ^ HIGH;
        if others == 0 {
            at += 8;
            continue;
        }
        at += others.trailing_zeros() as usize / 8;
        if !TOKEN[usize::from(bytes[at])] {
            return at;
        }
        at += 1;
    }
    let end = bytes[at..].iter().position(|byte| !TOKEN[usize::from(*byte)]);
    end.map_or(bytes.len(), |length| at + length)
}

/// Where the first byte from `at` on is that can't be in a target: a space or a control character.
fn visible(bytes: &[u8], at: usize) -> usize {
    first_below::<0x21>(bytes, at)
}

/// Whether all of it may be in a value.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    text(bytes, 0) == bytes.len()
}

/// Where the first byte from `at` on is that can't be in a value: a control character, but for tabs.
#[inline]
fn text(bytes: &[u8], at: usize) -> usize {
    let end = first_below::<0x20>(bytes, at);
    if bytes.get(end) == Some(&b'\t') { text_with_tabs(bytes, end) } else { end }
}

/// The same from a tab on: few values have any.
#[cold]
fn text_with_tabs(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at) == Some(&b'\t') {
        at = first_below::<0x20>(bytes, at + 1);
    }
    at
}

/// Where the first byte from `at` on is that is below `LEAST` or DEL. `LEAST` is at most 0x80.
#[inline]
fn first_below<const LEAST: u8>(bytes: &[u8], mut at: usize) -> usize {
    while let Some(next) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*next);
        // A borrow spoils only bytes behind the first one that is found.
        let below = word.wrapping_sub(eight(LEAST)) & !word;
        let other = word ^ eight(0x7f);
        let del = other.wrapping_sub(eight(1)) & !other;
        let found = (below | del) & HIGH;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let end = bytes[at..].iter().position(|byte| *byte < LEAST || *byte == 0x7f);
    end.map_or(bytes.len(), |length| at + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// More than any of these has.
    const MOST: usize = 64;

    type Fields = Vec<(Vec<u8>, Vec<u8>)>;
    type Request = (Vec<u8>, Vec<u8>, u8, Fields, usize);

    /// First line and fields of a request, and its length.
    fn request(bytes: &[u8]) -> Scanned<Request> {
        let mut scanner = Scanner::of_request(bytes, MOST);
        let RequestLine { method, target, minor } = scanner.request_line()?;
        let fields = fields(&mut scanner)?;
        Ok((method.text(bytes).to_vec(), target.text(bytes).to_vec(), minor, fields, scanner.at()))
    }

    fn answer(bytes: &[u8]) -> Scanned<(u16, u8, Fields, usize)> {
        let mut scanner = Scanner::of_answer(bytes, MOST);
        let StatusLine { code, minor } = scanner.status_line()?;
        let fields = fields(&mut scanner)?;
        Ok((code, minor, fields, scanner.at()))
    }

    fn fields(scanner: &mut Scanner<'_>) -> Scanned<Fields> {
        let bytes = scanner.bytes;
        let mut fields = Vec::new();
        while let Some(Field { name, value }) = scanner.field()? {
            fields.push((name.text(bytes).to_vec(), value.text(bytes).to_vec()));
        }
        Ok(fields)
    }

    /// What httparse reads, which most HTTP in Rust is read by.
    fn reference_fields(fields: &[httparse::Header<'_>]) -> Fields {
        fields.iter().map(|field| (field.name.as_bytes().to_vec(), field.value.to_vec())).collect()
    }

    fn reference_request(bytes: &[u8]) -> Scanned<Request> {
        let mut room = [httparse::EMPTY_HEADER; MOST];
        let mut request = httparse::Request::new(&mut room);
        match request.parse(bytes) {
            Err(_) => Err(Stop::Bad(Bad::Line)),
            Ok(httparse::Status::Partial) => Err(Stop::More),
            Ok(httparse::Status::Complete(length)) => Ok((
                request.method.unwrap().as_bytes().to_vec(),
                request.path.unwrap().as_bytes().to_vec(),
                request.version.unwrap(),
                reference_fields(request.headers),
                length,
            )),
        }
    }

    fn reference_answer(bytes: &[u8]) -> Scanned<(u16, u8, Fields, usize)> {
        let mut room = [httparse::EMPTY_HEADER; MOST];
        let mut answer = httparse::Response::new(&mut room);
        match answer.parse(bytes) {
            Err(_) => Err(Stop::Bad(Bad::Line)),
            Ok(httparse::Status::Partial) => Err(Stop::More),
            Ok(httparse::Status::Complete(length)) => {
                let (code, minor) = (answer.code.unwrap(), answer.version.unwrap());
                Ok((code, minor, reference_fields(answer.headers), length))
            }
        }
    }

    /// Whatever is wrong is wrong alike.
    fn alike<T>(scanned: Scanned<T>) -> Scanned<T> {
        scanned.map_err(|stop| match stop {
            Stop::Bad(_) => Stop::Bad(Bad::Line),
            Stop::More | Stop::TooMany => stop,
        })
    }

    /// Whether a line ends in LF alone, which is no request to us, and one to httparse.
    fn has_bare_lf(bytes: &[u8]) -> bool {
        bytes.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || bytes[at - 1] != b'\r'))
    }

    const PIECES: &[&[u8]] = &[
        b"Host: a.example\r\n",
        b"A:b\r\n",
        b"a:\t b \t\r\n",
        b"Empty:\r\n",
        b"Empty: \t \r\n",
        b"\r\n",
        b": ",
        b":",
        b"X-Long: abcdefghijklmnopqrstuvwxyz\tabcdefghijklm\xff\xc3\xa4nopqrstuvw\r\n",
        b" folded\r\n",
        b"\r",
        b"\n",
        b"\t",
        b" ",
    ];

    fn pieces(first: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => proptest::sample::select(first).prop_map(<[u8]>::to_vec),
            4 => proptest::sample::select(PIECES).prop_map(<[u8]>::to_vec),
            1 => proptest::collection::vec(any::<u8>(), 1..10),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn requests_are_read_as_by_others(bytes in pieces(&[
            b"GET / HTTP/1.1\r\n", b"POST /a?b=%20 HTTP/1.0\r\n", b"GET /\xc3\xa4 HTTP/1.1\r\n", b"GET /\xff HTTP/1.1\r\n", b"GET", b" ", b"/",
            b"HTTP/1.1", b"HTTP/1.", b"HTTP/2.0\r\n", b"GET  / HTTP/1.1\r\n", b"G\x7fT / HTTP/1.1\r\n",
        ])) {
            // Empty lines before a request are taken by whoever reads, and of those here only CRLF.
            if !bytes.starts_with(b"\r") && !bytes.starts_with(b"\n") {
                let (ours, theirs) = (alike(request(&bytes)), reference_request(&bytes));
                match has_bare_lf(&bytes) {
                    false => prop_assert_eq!(ours, theirs),
                    // What follows the head may have it.
                    true => prop_assert!(ours == theirs || ours == Err(Stop::Bad(Bad::Line)), "{ours:?} {theirs:?}"),
                }
            }
        }

        #[test]
        fn answers_are_read_as_by_others(bytes in pieces(&[
            b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200\r\n", b"HTTP/1.0 404 \r\n", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\n", b"HTTP/1.1 099 A\tB\xff\r\n",
            b"HTTP/2 200 OK\r\n", b"HTTP/1.1  200 OK\r\n", b"\r\n", b"\n", b"A: b\n",
        ])) {
            prop_assert_eq!(alike(answer(&bytes)), reference_answer(&bytes));
        }

        /// Eight bytes at once find what one by one does.
        #[test]
        fn ends_are_found_wherever_they_are(
            length in 0..200_usize, at in 0..200_usize, odd in any::<u8>(), begin in 0..50_usize,
        ) {
            let mut bytes = vec![b'a'; length];
            if let Some(byte) = bytes.get_mut(at) {
                *byte = odd;
            }
            let begin = begin.min(length);
            let one_by_one = |is_end: fn(u8) -> bool| {
                bytes[begin..].iter().position(|byte| is_end(*byte)).map_or(length, |end| begin + end)
            };
            prop_assert_eq!(visible(&bytes, begin), one_by_one(|byte| byte <= b' ' || byte == 0x7f));
            prop_assert_eq!(text(&bytes, begin), one_by_one(|byte| byte.is_ascii_control() && byte != b'\t'));
            prop_assert_eq!(tokens(&bytes, begin), one_by_one(|byte| !TOKEN[usize::from(byte)]));
        }

        /// A part of a head is never the whole of another one, nor refused.
        #[test]
        fn what_is_right_is_right_in_parts(bytes in pieces(&[b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n"])) {
            if let Ok((.., length)) = request(&bytes) {
                prop_assert!((0..length).all(|end| request(&bytes[..end]) == Err(Stop::More)));
            }
            if let Ok((.., length)) = answer(&bytes) {
                prop_assert!((0..length).all(|end| answer(&bytes[..end]) == Err(Stop::More)));
            }
        }

        #[test]
        fn eight_bytes_at_a_time_are_as_one_by_one(
            // All that others begin or end with, and then anything.
            bytes in proptest::collection::vec(
                prop_oneof![20 => proptest::sample::select(&b"azAZmM09-5"[..]), 2 => proptest::sample::select(&b"/:@[`{,._ \t!~"[..]), 1 => any::<u8>()],
                0..60,
            ),
            at in 0..10_usize,
        ) {
            let at = at.min(bytes.len());
            let slowly = |is: fn(u8) -> bool| bytes[at..].iter().position(|byte| is(*byte)).map_or(bytes.len(), |length| at + length);
            prop_assert_eq!(visible(&bytes, at), slowly(|byte| byte <= b' ' || byte == 0x7f));
            prop_assert_eq!(text(&bytes, at), slowly(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f));
            prop_assert_eq!(tokens(&bytes, at), slowly(|byte| !(byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))));
        }
    }
}
