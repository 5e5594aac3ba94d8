//! Where heads end.

use memchr::memchr_iter;

/// How long the head is that `bytes` begin with, if all of it is there. Its last line ends in CRLF.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr_iter(b'\n', bytes).find(|at| bytes[at + 1..].starts_with(b"\r\n")).map(|at| at + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_first_empty_line() {
        for (text, end) in [
            (&b"A: b\r\n\r\nC\r\n\r\n"[..], Some(8)),
            (b"A: b\n\nC\r\n\r\n", Some(11)),
            (b"A: b\n\nC", None),
            (b"A: b\n\r\nC", Some(7)),
            (b"A: b\r\n\nC", None),
            (b"A: b\r\n\r", None),
            (b"A: b\r\n", None),
            (b"A: b\r\r\n", None),
            (b"", None),
        ] {
            assert_eq!(end_of_head(text), end, "{:?}", text.escape_ascii().to_string());
        }
    }
}
