//! The host of a request: from Host, `:authority` or an absolute target to the one form that is matched and forwarded.
//!
//! Names are brought to lower case and lose a final dot, ports lose leading zeros; anything that isn't plainly a DNS
//! name or an address with a port is refused (security.md §1, 4). Does not know listeners.

use crate::rejection::{Malformed, Rejection};
use http::{HeaderMap, HeaderValue, Uri, Version, header};
use std::borrow::Cow;
use std::net::Ipv6Addr;

const BAD: Rejection = Rejection::Malformed(Malformed::Host);

/// The longest DNS name (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

/// A host with its port, if it has one, in normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    text: Cow<'a, str>,
    /// Where the name ends in `text`.
    name: usize,
}

impl Host<'static> {
    /// No host: HTTP/1.0 without a Host field. Only listeners and routes for any host match it.
    pub const NONE: Self = Self { text: Cow::Borrowed(""), name: 0 };
}

impl<'a> Host<'a> {
    /// Reads `host[:port]`. A host is a DNS name (underscores are let through, for they are used), an IPv4 address, or
    /// an IPv6 address in brackets.
    pub fn parse(text: &'a str) -> Result<Self, Rejection> {
        if let Some(name) = normal_name(text) {
            return Ok(Self { text: Cow::Borrowed(text), name });
        }
        let (name, port) = split_port(text).ok_or(BAD)?;
        let name = match name.strip_prefix('[') {
            Some(address) => {
                let address = address.strip_suffix(']').ok_or(BAD)?;
                address.parse::<Ipv6Addr>().map_err(|_| BAD)?;
                name
            }
            None => {
                let name = name.strip_suffix('.').unwrap_or(name);
                let label = |label: &str| {
                    !label.is_empty()
                        && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                };
                if name.len() > MAX_NAME || !name.split('.').all(label) {
                    return Err(BAD);
                }
                name
            }
        };
        let port = port.map(parse_port).transpose()?.flatten();
        Ok(Self::of_parts(text, name, port))
    }

    /// Borrows the text when it is in normal form already.
    fn of_parts(text: &'a str, name: &str, port: Option<u16>) -> Self {
        let plain = match text.strip_prefix(name) {
            Some("") => port.is_none(),
            Some(rest) => port.is_some_and(|port| itoa::Buffer::new().format(port) == &rest[1..]),
            None => false,
        };
        if plain && !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Self { text: Cow::Borrowed(text), name: name.len() };
        }
        let mut normal = name.to_ascii_lowercase();
        if let Some(port) = port {
            normal.push(':');
            normal.push_str(itoa::Buffer::new().format(port));
        }
        Self { name: name.len(), text: Cow::Owned(normal) }
    }

    /// The host of a request as its client means it. An absolute target replaces the Host field (RFC 9112 §3.2.2);
    /// HTTP/1.1 must have one Host all the same; in HTTP/2 `:authority` and Host must agree (RFC 9113 §8.3.1).
    ///
    /// `field` is what [`Host::field`] found.
    pub fn of_request(
        uri: &'a Uri,
        field: Option<&'a HeaderValue>,
        version: Version,
    ) -> Result<Self, Rejection> {
        let text = |field: &'a HeaderValue| field.to_str().map_err(|_| BAD);
        let field = field.map(|field| Self::parse(text(field)?)).transpose()?;
        let authority = uri.authority().map(|authority| Self::parse(authority.as_str())).transpose()?;
        match (version, authority, field) {
            (Version::HTTP_2 | Version::HTTP_3, Some(authority), Some(field)) if authority != field => {
                Err(BAD)
            }
            (Version::HTTP_2 | Version::HTTP_3, None, None) | (Version::HTTP_11, _, None) => Err(BAD),
            (_, Some(authority), _) => Ok(authority),
            (_, None, Some(field)) => Ok(field),
            (_, None, None) => Ok(Host::NONE),
        }
    }

    /// The one Host field, if there is one. A copy that shares its bytes, so that the fields can change.
    pub fn field(headers: &HeaderMap) -> Result<Option<HeaderValue>, Rejection> {
        let mut fields = headers.get_all(header::HOST).iter();
        match (fields.next(), fields.next()) {
            (one, None) => Ok(one.cloned()),
            (_, Some(_)) => Err(BAD),
        }
    }

    /// The name in lower case, without port and final dot. An IPv6 address keeps its brackets.
    pub fn name(&self) -> &str {
        &self.text[..self.name]
    }

    /// Name and port as they go out.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Where the name ends in a text that is a DNS name, perhaps with a port, in normal form already: most are.
fn normal_name(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut before = b'.';
    for (end, &byte) in bytes.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'.' if before != b'.' => {}
            b':' if before != b'.' && end <= MAX_NAME => {
                let digits = &text[end + 1..];
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
                return (plain && digits.parse::<u16>().is_ok()).then_some(end);
            }
            _ => return None,
        }
        before = byte;
    }
    (before != b'.' && bytes.len() <= MAX_NAME).then_some(bytes.len())
}

/// Cuts at the colon of the port; colons of an IPv6 address are inside its brackets.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if text.starts_with('[') {
        let end = text.find(']')? + 1;
        let (address, rest) = text.split_at(end);
        return match rest {
            "" => Some((address, None)),
            _ => Some((address, Some(rest.strip_prefix(':')?))),
        };
    }
    Some(match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    })
}

/// `host:` without digits has no port (RFC 3986 §3.2.3).
fn parse_port(digits: &str) -> Result<Option<u16>, Rejection> {
    match digits {
        "" => Ok(None),
        _ if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map(Some).map_err(|_| BAD),
        _ => Err(BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> Option<(String, String)> {
        let host = Host::parse(text).ok()?;
        Some((host.name().to_owned(), host.as_str().to_owned()))
    }

    #[test]
    fn normal_form() {
        for (text, name, whole) in [
            ("example.com", "example.com", "example.com"),
            ("Example.COM.", "example.com", "example.com"),
            ("example.com:8080", "example.com", "example.com:8080"),
            ("example.com.:08080", "example.com", "example.com:8080"),
            ("example.com:", "example.com", "example.com"),
            ("a_b.example", "a_b.example", "a_b.example"),
            ("192.0.2.1:80", "192.0.2.1", "192.0.2.1:80"),
            ("[2001:DB8::1]:443", "[2001:db8::1]", "[2001:db8::1]:443"),
            ("[::1]", "[::1]", "[::1]"),
        ] {
            assert_eq!(parts(text), Some((name.into(), whole.into())), "{text}");
        }
        assert!(matches!(Host::parse("a.example:80").unwrap().text, Cow::Borrowed(_)));
    }

    #[test]
    fn refused() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a@b",
            "user:pw@a",
            "a:65536",
            "a:-1",
            "a:+1",
            "a:1:2",
            "a/b",
            "a%2eb",
            "a,b",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:x",
            "[1.2.3.4]",
            "caf\u{e9}",
            "a\0",
            "a..",
            "a,",
            "*",
            "*.a",
        ] {
            assert_eq!(Host::parse(text), Err(BAD), "{text}");
        }
        assert!(Host::parse(&"a.".repeat(128)).is_ok());
        assert!(Host::parse(&"a.".repeat(129)).is_err());
    }

    fn of(uri: &str, hosts: &[&'static str], version: Version) -> Result<String, Rejection> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, http::HeaderValue::from_static(host));
        }
        let field = Host::field(&headers)?;
        let uri = uri.parse().unwrap();
        Host::of_request(&uri, field.as_ref(), version).map(|host| host.as_str().to_owned())
    }

    #[test]
    fn one_valid_host_in_http_1_1() {
        assert_eq!(of("/", &["a.example"], Version::HTTP_11), Ok("a.example".into()));
        assert_eq!(of("/", &[], Version::HTTP_11), Err(BAD));
        assert_eq!(of("/", &["a.example", "a.example"], Version::HTTP_11), Err(BAD));
        assert_eq!(of("/", &["a b"], Version::HTTP_11), Err(BAD));
        assert_eq!(of("/", &[], Version::HTTP_10), Ok(String::new()));
    }

    #[test]
    fn an_absolute_target_replaces_host() {
        assert_eq!(of("http://b.example/", &["a.example"], Version::HTTP_11), Ok("b.example".into()));
        assert_eq!(of("http://b.example/", &[], Version::HTTP_11), Err(BAD));
        assert_eq!(of("http://user@b.example/", &["b.example"], Version::HTTP_11), Err(BAD));
    }

    #[test]
    fn authority_and_host_agree_in_http_2() {
        assert_eq!(of("https://a.example/", &[], Version::HTTP_2), Ok("a.example".into()));
        assert_eq!(of("https://A.example/", &["a.example"], Version::HTTP_2), Ok("a.example".into()));
        assert_eq!(of("https://a.example/", &["b.example"], Version::HTTP_2), Err(BAD));
        assert_eq!(of("/", &["b.example"], Version::HTTP_2), Ok("b.example".into()));
        assert_eq!(of("/", &[], Version::HTTP_2), Err(BAD));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = Host::parse(&text);
        }

        #[test]
        fn idempotent(text in "[aA.:0-9\\[\\]_-]{0,20}") {
            if let Ok(host) = Host::parse(&text) {
                let again = Host::parse(host.as_str()).unwrap();
                prop_assert_eq!(&again, &host);
                prop_assert!(matches!(again.text, Cow::Borrowed(_)), "normal form is borrowed: {}", text);
            }
        }
    }
}
