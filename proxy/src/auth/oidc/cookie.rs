//! Cookies of logins and sessions (RFC 6265bis). A cookie has 4,096 bytes at most, so a long one is several:
//! the first begins with how many there are.

use crate::expression::cookies;
use crate::model::{OidcCookie, SameSite};
use http::header::{HeaderMap, HeaderValue};
use std::borrow::Cow;

/// Bytes of a cookie's value: with its name and attributes, what every browser takes.
const PIECE: usize = 3_500;
/// Cookies of one value.
const PIECES: usize = 4;
/// Between the number of pieces and the first of them.
const POINT: char = '.';

/// How cookies are named and who gets them back.
#[derive(Debug)]
pub(super) struct Cookies {
    /// By plain HTTP, and by HTTPS: the prefix keeps other hosts from setting it.
    names: [Box<str>; 2],
    attributes: [String; 2],
}

impl Cookies {
    pub(super) fn new(from: &OidcCookie) -> Self {
        let prefix = if from.domain.is_some() { "__Secure-" } else { "__Host-" };
        let same_site = match from.same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        };
        let domain = from.domain.as_ref().map_or_else(String::new, |domain| format!("; Domain={domain}"));
        let plain = format!("; Path=/; HttpOnly; SameSite={same_site}{domain}");
        Self {
            names: [(&*from.name).into(), format!("{prefix}{}", from.name).into()],
            attributes: [plain.clone(), format!("{plain}; Secure")],
        }
    }

    /// The name of the cookie, without the numbers of further ones.
    pub(super) fn name(&self, scheme: &str) -> &str {
        &self.names[usize::from(scheme == "https")]
    }

    /// Names that only we set, whatever the scheme.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// The value that a client sends. None: there is none, or not all of it.
    pub(super) fn read<'a>(&self, headers: &'a HeaderMap, scheme: &str) -> Option<Cow<'a, str>> {
        let name = self.name(scheme);
        let (count, first) = find(headers, name)?.split_once(POINT)?;
        let count: usize = count.parse().ok().filter(|count| (1..=PIECES).contains(count))?;
        if count == 1 {
            return Some(Cow::Borrowed(first));
        }
        let mut whole = first.to_owned();
        for n in 1..count {
            whole.push_str(find(headers, &numbered(name, n))?);
        }
        Some(Cow::Owned(whole))
    }

    /// Fields that have a client keep a value for so many seconds. None: it is too long.
    pub(super) fn set(&self, value: &str, scheme: &str, seconds: u64) -> Option<Vec<HeaderValue>> {
        // Base64: each byte is a character.
        let pieces: Vec<&[u8]> = value.as_bytes().chunks(PIECE).collect();
        if pieces.len() > PIECES {
            return None;
        }
        let field = |(n, piece): (usize, &&[u8])| {
            let piece = std::str::from_utf8(piece).ok()?;
            let count = if n == 0 { format!("{}{POINT}", pieces.len()) } else { String::new() };
            self.field(&numbered(self.name(scheme), n), &format!("{count}{piece}"), scheme, seconds)
        };
        pieces.iter().enumerate().map(field).collect()
    }

    /// Fields that have a client forget all of it that it has sent.
    pub(super) fn unset(&self, headers: &HeaderMap, scheme: &str) -> Vec<HeaderValue> {
        let names = (0..PIECES).map(|n| numbered(self.name(scheme), n));
        let sent = names.filter(|name| find(headers, name).is_some());
        sent.filter_map(|name| self.field(&name, "", scheme, 0)).collect()
    }

    fn field(&self, name: &str, value: &str, scheme: &str, seconds: u64) -> Option<HeaderValue> {
        let attributes = &self.attributes[usize::from(scheme == "https")];
        HeaderValue::try_from(format!("{name}={value}{attributes}; Max-Age={seconds}")).ok()
    }
}

/// Whether a cookie's name is this one, or one of its further pieces.
pub(in crate::auth) fn is_piece(cookie: &str, name: &str) -> bool {
    match cookie.strip_prefix(name) {
        Some("") => true,
        Some(rest) => matches!(rest.as_bytes(), [b'-', b'1'..=b'9']),
        None => false,
    }
}

fn numbered(name: &str, n: usize) -> Cow<'_, str> {
    if n == 0 { Cow::Borrowed(name) } else { Cow::Owned(format!("{name}-{n}")) }
}

/// The value of the first cookie with that name.
pub(super) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    cookies(headers).find(|(cookie, _)| *cookie == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;

    fn cookies_of(domain: Option<&str>) -> Cookies {
        let domain = domain.map(Into::into);
        Cookies::new(&OidcCookie { name: "s".into(), domain, ..OidcCookie::default() })
    }

    /// What a browser sends that was told that.
    fn sent(fields: &[HeaderValue]) -> HeaderMap {
        let pairs = fields.iter().map(|field| field.to_str().unwrap().split(';').next().unwrap());
        let mut headers = HeaderMap::new();
        let all = pairs.collect::<Vec<_>>().join("; ");
        headers.insert(header::COOKIE, HeaderValue::try_from(all).unwrap());
        headers
    }

    #[test]
    fn long_values_come_back_whole_or_not_at_all() {
        let cookies = cookies_of(None);
        for length in [0, 1, PIECE, PIECE + 1, PIECES * PIECE] {
            let value = "x".repeat(length);
            let fields = cookies.set(&value, "https", 60);
            if length == 0 {
                assert_eq!(fields, Some(vec![]));
                continue;
            }
            let fields = fields.unwrap();
            assert_eq!(fields.len(), length.div_ceil(PIECE));
            assert!(fields.iter().all(|field| field.len() < 4_000));
            assert_eq!(cookies.read(&sent(&fields), "https").as_deref(), Some(&*value));
            assert_eq!(cookies.read(&sent(&fields), "http"), None);
            assert_eq!(cookies.read(&sent(&fields[..fields.len() - 1]), "https"), None);
            assert_eq!(cookies.unset(&sent(&fields), "https").len(), fields.len());
        }
        assert_eq!(cookies.set(&"x".repeat(PIECES * PIECE + 1), "https", 60), None);
        for value in ["", ".", "0.x", "5.x", "x", "-1.x"] {
            let field = HeaderValue::try_from(format!("__Host-s={value}")).unwrap();
            assert_eq!(cookies.read(&sent(&[field]), "https"), None, "{value}");
        }
    }

    #[test]
    fn no_other_host_gets_it_unless_it_is_told_to() {
        let field = |domain, scheme: &str| {
            let fields = cookies_of(domain).set("v", scheme, 60).unwrap();
            fields[0].to_str().unwrap().to_owned()
        };
        let attributes = "Path=/; HttpOnly; SameSite=Lax";
        assert_eq!(field(None, "https"), format!("__Host-s=1.v; {attributes}; Secure; Max-Age=60"));
        assert_eq!(field(None, "http"), format!("s=1.v; {attributes}; Max-Age=60"));
        assert_eq!(
            field(Some("a.example"), "https"),
            format!("__Secure-s=1.v; {attributes}; Domain=a.example; Secure; Max-Age=60")
        );
    }

    #[test]
    fn names_of_pieces_are_ours_and_no_others() {
        for (cookie, ours) in [("s", true), ("s-1", true), ("s-0", false), ("s-11", false), ("ss", false)] {
            assert_eq!(is_piece(cookie, "s"), ours, "{cookie}");
        }
    }
}
