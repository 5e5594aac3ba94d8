//! The path of a request in the one form that is matched and forwarded (security.md §5), and what a laxer backend
//! might make of it.
//!
//! Unreserved characters are decoded once, remaining escapes written in upper case, dot segments removed (RFC 3986
//! §6.2.2). Escaped slashes, empty segments and parameters stay: whoever forwards them must know that backends
//! differ about them, which is what [`lax_readings`] is for. Queries are none of its business.

use crate::model::{ClientPath, EscapedSlashes};
use crate::rejection::{Malformed, Rejection};
use http::Uri;
use std::borrow::Cow;

const BAD: Rejection = Rejection::Malformed(Malformed::Path);

/// Brings a path to its normal form, or refuses it: it must begin with a slash and consist of visible ASCII without
/// `\`, `?`, `#`; escapes must be whole and not `%00`. Borrows when nothing changes. Idempotent.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, Rejection> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(Rejection::Malformed(Malformed::Target));
    }
    let (mut escapes, mut dots, mut before) = (false, false, 0);
    for &byte in bytes {
        match byte {
            b'%' => escapes = true,
            b'.' if before == b'/' => dots = true,
            b'\\' => return Err(BAD),
            b'?' | b'#' => return Err(Rejection::Malformed(Malformed::Target)),
            b'!'..=b'~' => {}
            _ => return Err(Rejection::Malformed(Malformed::Target)),
        }
        before = byte;
    }
    let decoded = if escapes { Cow::Owned(decode_unreserved(path)?) } else { Cow::Borrowed(path) };
    Ok(match escapes || dots {
        true if has_dot_segments(&decoded) => Cow::Owned(remove_dot_segments(&decoded)),
        true if *decoded == *path => Cow::Borrowed(path),
        _ => decoded,
    })
}

/// The path that a target asks for, by what a ClientPolicy says.
pub(crate) fn path_of<'a>(uri: &'a Uri, rules: &ClientPath) -> Result<Cow<'a, str>, Rejection> {
    match uri.path() {
        // Of the server as a whole (RFC 9110 §9.3.7): routed like its root.
        "*" => Ok(Cow::Borrowed("/")),
        path => normalise_by(path, rules),
    }
}

/// [`normalise`], and then what a ClientPolicy says of slashes and dot segments. Idempotent as well.
fn normalise_by<'a>(path: &'a str, rules: &ClientPath) -> Result<Cow<'a, str>, Rejection> {
    let normal = normalise(path)?;
    if *rules == ClientPath::default() {
        return Ok(normal);
    }
    // Not from the normal form: slashes come before dots, so that `/a%2F..%2Fb` is `/b`, and not below `/a`.
    let mut text = decode_unreserved(path)?;
    let has = |escape: &str| text.contains(escape);
    match rules.escaped_slashes {
        EscapedSlashes::Reject if has("%2F") || has("%5C") => return Err(BAD),
        EscapedSlashes::Decode if has("%5C") => return Err(BAD),
        EscapedSlashes::Decode => text = text.replace("%2F", "/"),
        EscapedSlashes::Keep | EscapedSlashes::Reject => {}
    }
    if rules.merge_slashes {
        text = merge_slashes(&text);
    }
    match has_dot_segments(&text) {
        true if rules.reject_dot_segments => Err(BAD),
        true => Ok(Cow::Owned(remove_dot_segments(&text))),
        false => Ok(Cow::Owned(text)),
    }
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

/// Whether a query has only what a request target may have: visible ASCII without `#`.
pub fn check_query(query: &str) -> Result<(), Rejection> {
    match query.bytes().all(|byte| matches!(byte, b'!'..=b'~') && byte != b'#') {
        true => Ok(()),
        false => Err(Rejection::Malformed(Malformed::Target)),
    }
}

/// The byte that two hexadecimal digits at the start of `text` stand for.
pub(crate) fn escaped(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match text {
        [high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        [] | [_] => None,
    }
}

fn decode_unreserved(path: &str) -> Result<String, Rejection> {
    let mut decoded = String::with_capacity(path.len());
    let mut pieces = path.split('%');
    decoded.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let byte = escaped(piece.as_bytes()).ok_or(BAD)?;
        match byte {
            0 => return Err(BAD),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                decoded.push(char::from(byte));
                decoded.push_str(&piece[2..]);
            }
            _ => {
                decoded.push('%');
                decoded.extend(piece[..2].chars().map(|digit| digit.to_ascii_uppercase()));
                decoded.push_str(&piece[2..]);
            }
        }
    }
    Ok(decoded)
}

fn has_dot_segments(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// RFC 3986 §5.2.4. What would climb above the root stays at the root.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let mut removed = String::with_capacity(path.len());
    for segment in kept {
        removed.push('/');
        removed.push_str(segment);
    }
    removed
}

/// Whether backends may differ about a normal path: escaped slashes or backslashes, empty segments, or parameters.
pub fn is_ambiguous(path: &str) -> bool {
    let mut before = 0;
    path.bytes().enumerate().any(|(index, byte)| {
        let doubled = byte == b'/' && before == b'/';
        before = byte;
        match byte {
            b'/' => doubled,
            b';' => true,
            b'%' => matches!(path.as_bytes().get(index + 1..index + 3), Some(b"2F" | b"5C")),
            _ => false,
        }
    })
}

/// What the laxest backends make of a normal path: everything decoded, backslashes read as slashes, parameters cut,
/// slashes merged, dot segments removed. Two, for some cut parameters before they decode and some after.
pub fn lax_readings(path: &str) -> [String; 2] {
    let decoded_first = cut_parameters(&decode_ascii(path));
    let cut_first = decode_ascii(&cut_parameters(path));
    [decoded_first, cut_first].map(|text| {
        let merged = merge_slashes(&text.replace('\\', "/"));
        remove_dot_segments(&merged)
    })
}

/// Decodes escapes of ASCII. Others stay: they stay in rules too, and mean the same to everybody.
fn decode_ascii(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut pieces = path.split('%');
    decoded.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        match escaped(piece.as_bytes()) {
            Some(byte) if byte.is_ascii() => {
                decoded.push(char::from(byte));
                decoded.push_str(&piece[2..]);
            }
            Some(_) | None => {
                decoded.push('%');
                decoded.push_str(piece);
            }
        }
    }
    decoded
}

fn cut_parameters(path: &str) -> String {
    let mut cut = String::with_capacity(path.len());
    let mut inside = false;
    for character in path.chars() {
        inside = match character {
            '/' | '\\' => false,
            ';' => true,
            _ => inside,
        };
        if !inside {
            cut.push(character);
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clean_paths_are_borrowed() {
        for path in ["/", "/a", "/a/b/", "/a//b", "/.a/b..c/...", "/a;b=c/d", "/a%2Fb", "/caf%C3%A9"] {
            assert!(matches!(normalise(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
        }
    }

    #[test]
    fn normal_form() {
        for (path, normal) in [
            ("/%41%7e%2D", "/A~-"),
            ("/a%2fb%c3", "/a%2Fb%C3"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("/.", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/%2e./b", "/b"),
            ("/a//../b", "/a/b"),
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/a/..;/b", "/a/..;/b"),
        ] {
            assert_eq!(normalise(path).unwrap(), normal, "{path}");
        }
    }

    #[test]
    fn normal_form_by_a_policy() {
        let rules = |escaped_slashes, reject_dot_segments, merge_slashes| ClientPath {
            escaped_slashes,
            reject_dot_segments,
            merge_slashes,
        };
        use EscapedSlashes::{Decode, Keep, Reject};
        for (rules, path, normal) in [
            (rules(Keep, false, true), "/a//b///c//", Some("/a/b/c/")),
            (rules(Keep, false, true), "//", Some("/")),
            (rules(Keep, false, true), "/a/..//b", Some("/b")),
            (rules(Keep, false, true), "/a%2F/b", Some("/a%2F/b")),
            (rules(Keep, false, true), "/a//../b", Some("/b")),
            (rules(Keep, true, false), "/a/./b", None),
            (rules(Keep, true, false), "/a/%2e%2e/b", None),
            (rules(Keep, true, false), "/a/...", Some("/a/...")),
            (rules(Keep, true, false), "/%41", Some("/A")),
            (rules(Reject, false, false), "/a%2fb", None),
            (rules(Reject, false, false), "/a%5Cb", None),
            (rules(Reject, false, false), "/a%252fb", Some("/a%252fb")),
            (rules(Decode, false, false), "/a%2fb", Some("/a/b")),
            (rules(Decode, false, false), "/a%2F..%2Fb", Some("/b")),
            (rules(Decode, false, false), "/x/y/..%2f../b", Some("/b")),
            (rules(Decode, false, false), "/a%5cb", None),
            (rules(Decode, false, false), "/a%252fb", Some("/a%252fb")),
            (rules(Decode, false, false), "/a%2F/b", Some("/a//b")),
            (rules(Decode, false, true), "/a%2F/b", Some("/a/b")),
            (rules(Decode, true, false), "/a%2F..%2Fb", None),
        ] {
            let got = normalise_by(path, &rules);
            match normal {
                Some(normal) => assert_eq!(got.as_deref(), Ok(normal), "{path} {rules:?}"),
                None => assert_eq!(got, Err(BAD), "{path} {rules:?}"),
            }
        }
    }

    #[test]
    fn refused() {
        for path in ["/%", "/%4", "/%4g", "/%00", "/a%0", "/a\\b", "/%%41"] {
            assert_eq!(normalise(path), Err(BAD), "{path}");
        }
        for path in ["", "a", "*", "/a b", "/a\tb", "/caf\u{e9}", "/\u{7f}", "/a?b", "/a#b"] {
            assert_eq!(normalise(path), Err(Rejection::Malformed(Malformed::Target)), "{path}");
        }
        assert!(check_query("a=b&c=%00?/\\").is_ok());
        for query in ["a b", "a#b", "\u{e9}", "\r\n"] {
            assert!(check_query(query).is_err());
        }
    }

    #[test]
    fn ambiguity_and_lax_readings() {
        for path in ["/", "/a/b/", "/a%20b", "/.a", "/a%2Bb"] {
            assert!(!is_ambiguous(path), "{path}");
        }
        for (path, readings) in [
            ("/a%2Fb", ["/a/b", "/a/b"]),
            ("/a%5Cb", ["/a/b", "/a/b"]),
            ("/a//b", ["/a/b", "/a/b"]),
            ("//", ["/", "/"]),
            ("/a;x=1/b", ["/a/b", "/a/b"]),
            ("/a/..;/b", ["/b", "/b"]),
            ("/a/..%2Fb", ["/b", "/b"]),
            ("/a;%2F..%2Fb", ["/b", "/a"]),
            ("/a;%C3%A9/%C3%A9", ["/a/%C3%A9", "/a/%C3%A9"]),
        ] {
            assert!(is_ambiguous(path), "{path}");
            assert_eq!(lax_readings(path), readings, "{path}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(path in "\\PC*") {
            if let Ok(normal) = normalise(&path) {
                is_ambiguous(&normal);
                lax_readings(&normal);
            }
            is_ambiguous(&path);
            lax_readings(&path);
            let _ = check_query(&path);
        }

        /// Matched form = forwarded form: what we forward, read again by the same rules, is what we matched.
        #[test]
        fn idempotent(path in "(/|\\.|%2[eEfF5]|%5[cC]|%[0-9a-f]{2}|;|a|B){0,24}") {
            if let Ok(normal) = normalise(&format!("/{path}")) {
                let again = normalise(&normal).unwrap();
                prop_assert_eq!(&again, &normal);
                prop_assert!(!has_dot_segments(&normal) && normal.starts_with('/'));
            }
        }

        /// So it is with every policy, and no policy leaves a dot segment.
        #[test]
        fn idempotent_by_a_policy(path in "(/|\\.|%2[eEfF5]|%5[cC]|;|a){0,24}", slashes in 0..3, dots: bool, merge: bool) {
            let escaped_slashes =
                [EscapedSlashes::Keep, EscapedSlashes::Reject, EscapedSlashes::Decode][slashes as usize];
            let rules = ClientPath { escaped_slashes, reject_dot_segments: dots, merge_slashes: merge };
            if let Ok(normal) = normalise_by(&format!("/{path}"), &rules) {
                prop_assert_eq!(&normalise_by(&normal, &rules).unwrap(), &normal);
                prop_assert!(!has_dot_segments(&normal) && normal.starts_with('/'));
                prop_assert!(!merge || !normal.contains("//"));
            }
        }

        /// The guard sees no dot segment, no doubled slash and no parameter any more.
        #[test]
        fn lax_readings_are_plain(path in "(/|\\.|%2[EF]|%5C|%3B|;|a){0,24}") {
            if let Ok(normal) = normalise(&format!("/{path}")) {
                for reading in lax_readings(&normal) {
                    prop_assert!(reading.starts_with('/') && !reading.contains("//"), "{}", reading);
                    prop_assert!(!has_dot_segments(&reading), "{}", reading);
                }
            }
        }
    }
}
