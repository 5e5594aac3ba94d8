//! Where a head ends, before anything of it is read: so it can be taken off its buffer whole.

use memchr::memchr_iter;

/// How long the head is that `bytes` begin with, if all of it is there. Its last line ends in CRLF.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr_iter(b'\n', bytes).find(|at| bytes[at + 1..].starts_with(b"\r\n")).map(|at| at + 3)
}

/// The same where lines may end in a bare LF, as some old backends have it.
pub(crate) fn end_of_lenient_head(bytes: &[u8]) -> Option<usize> {
    memchr_iter(b'\n', bytes).find_map(|at| match bytes[at + 1..] {
        [b'\r', b'\n', ..] => Some(at + 3),
        [b'\n', ..] => Some(at + 2),
        _ => None,
    })
}

/// Whether `at` is the end of a line, but for spaces, and the line ends in CRLF: others are one line to some, and two to others.
pub(super) fn line_ends(head: &[u8], at: usize) -> bool {
    let rest = head.get(at..).unwrap_or_default();
    let spaces = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    rest.get(spaces..).is_some_and(|rest| rest.starts_with(b"\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_first_empty_line() {
        for (text, strict, lenient) in [
            (&b"A: b\r\n\r\nC\r\n\r\n"[..], Some(8), Some(8)),
            (b"A: b\n\nC\r\n\r\n", Some(11), Some(6)),
            (b"A: b\n\nC", None, Some(6)),
            (b"A: b\n\r\nC", Some(7), Some(7)),
            (b"A: b\r\n\nC", None, Some(7)),
            (b"A: b\r\n\r", None, None),
            (b"A: b\r\n", None, None),
            (b"A: b\r\r\n", None, None),
            (b"", None, None),
        ] {
            let found = (end_of_head(text), end_of_lenient_head(text));
            assert_eq!(found, (strict, lenient), "{:?}", text.escape_ascii().to_string());
        }
        assert!(line_ends(b"A: b \t\r\nC", 4) && line_ends(b"A\r\n", 1));
        assert!(!line_ends(b"A: b\nC", 4) && !line_ends(b"A: b", 4) && !line_ends(b"A", 9));
    }
}
