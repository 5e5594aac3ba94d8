//! Where a head ends, before anything of it is read: so it can be taken off its buffer whole.

/// How long the head is that `bytes` begin with, if all of it is there. Lines may end in a bare LF here: who reads them decides.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|line| match bytes.get(line + 1..) {
        Some([b'\n', ..]) => Some(line + 2),
        Some([b'\r', b'\n', ..]) => Some(line + 3),
        Some(_) | None => None,
    })
}

/// Whether each line ends in CRLF: others are one line to some, and two to others.
pub(super) fn lines_end_in_crlf(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).all(|end| end > 0 && head[end - 1] == b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_first_empty_line() {
        for (text, length) in [
            (&b"A: b\r\n\r\nC\r\n\r\n"[..], Some(8)),
            (b"A: b\n\nC\r\n\r\n", Some(6)),
            (b"A: b\n\r\nC", Some(7)),
            (b"A: b\r\n\nC", Some(7)),
            (b"A: b\r\n\r", None),
            (b"A: b\r\n", None),
            (b"A: b\r\r\n", None),
            (b"", None),
        ] {
            assert_eq!(end_of_head(text), length, "{:?}", text.escape_ascii().to_string());
        }
        assert!(lines_end_in_crlf(b"A: b\r\nC: d\r\n\r\n"));
        assert!(!lines_end_in_crlf(b"A: b\r\nC: d\n\r\n") && !lines_end_in_crlf(b"\n"));
    }
}
