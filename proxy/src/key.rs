//! Keys: what tells requests apart that are counted or remembered, by their parts.

use crate::expression::{Expression, Kind, View, cookies};
use crate::headers::Touched;
use crate::model::{KeyPart, Text};
use http::HeaderName;
use smallvec::SmallVec;
use std::net::IpAddr;

/// What a key comes to. Most find room here.
pub(crate) type KeyBytes = SmallVec<[u8; 128]>;

/// A compiled key.
#[derive(Debug)]
pub(crate) struct Key(Box<[Part]>);

/// A part of a key.
#[derive(Debug)]
enum Part {
    ClientIp { ipv4_prefix: u8, ipv6_prefix: u8 },
    Header(HeaderName),
    Cookie(Text),
    Query(Text),
    Path,
    Method,
    Host,
    Claim(Text),
    Consumer,
    Expression(Expression),
}

impl Key {
    /// The error is for its author, and begins with the part.
    pub(crate) fn compile(from: &[KeyPart]) -> Result<Self, String> {
        let parts = from.iter().enumerate();
        let parts = parts.map(|(n, part)| Part::compile(part).map_err(|why| format!("key[{n}].{why}")));
        parts.collect::<Result<_, _>>().map(Self)
    }

    /// Puts what a request has of it behind `key`; says how many parts it has nothing of. Each part says how long it is, so that
    /// no two keys read alike.
    pub(crate) fn put(&self, view: &View<'_>, key: &mut KeyBytes) -> usize {
        let mut missing = 0;
        for part in &self.0 {
            let at = key.len();
            key.extend_from_slice(&[0; 5]);
            let there = part.put(view, key);
            missing += usize::from(!there);
            let length = u32::try_from(key.len() - at - 5).unwrap_or(u32::MAX).to_be_bytes();
            key[at] = u8::from(there);
            key[at + 1..at + 5].copy_from_slice(&length);
        }
        missing
    }

    /// How many parts it has.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The fields that it is made of.
    pub(crate) fn touches(&self) -> Touched {
        let touches = |part: &Part| match part {
            Part::Header(name) => name.clone().into(),
            Part::Expression(expression) => expression.touches(),
            Part::ClientIp { .. }
            | Part::Cookie(_)
            | Part::Query(_)
            | Part::Path
            | Part::Method
            | Part::Host
            | Part::Claim(_)
            | Part::Consumer => Touched::default(),
        };
        self.0.iter().map(touches).collect()
    }

    /// Whether it can't be told before it is known who the client is.
    pub(crate) fn asks_who(&self) -> bool {
        self.0.iter().any(|part| match part {
            Part::Claim(_) | Part::Consumer => true,
            Part::Expression(expression) => expression.asks_who(),
            Part::ClientIp { .. }
            | Part::Header(_)
            | Part::Cookie(_)
            | Part::Query(_)
            | Part::Path
            | Part::Method
            | Part::Host => false,
        })
    }
}

impl Part {
    fn compile(from: &KeyPart) -> Result<Self, String> {
        Ok(match from {
            KeyPart::ClientIp { ipv4_prefix, ipv6_prefix } if *ipv4_prefix <= 32 && *ipv6_prefix <= 128 => {
                Self::ClientIp { ipv4_prefix: *ipv4_prefix, ipv6_prefix: *ipv6_prefix }
            }
            KeyPart::ClientIp { .. } => return Err("clientIP: a prefix is longer than an address".to_owned()),
            KeyPart::Header(name) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Self::Header(name),
                Err(_) => return Err(format!("header: {name:?} isn't the name of a header")),
            },
            KeyPart::Cookie(name) => Self::Cookie(name.clone()),
            KeyPart::Query(name) => Self::Query(name.clone()),
            KeyPart::Path => Self::Path,
            KeyPart::Method => Self::Method,
            KeyPart::Host => Self::Host,
            KeyPart::Claim(name) => Self::Claim(name.clone()),
            KeyPart::Consumer => Self::Consumer,
            KeyPart::Expression(text) => Self::Expression(
                Expression::compile(text, Kind::Text).map_err(|why| format!("expression: {why}"))?,
            ),
        })
    }

    /// Puts what the request has of it behind the key; whether it has any.
    fn put(&self, view: &View<'_>, key: &mut KeyBytes) -> bool {
        let before = key.len();
        match self {
            Self::ClientIp { ipv4_prefix, ipv6_prefix } => {
                // Their network: the bits of the prefix. Compiled, it is no longer than an address.
                match view.peer.ip().to_canonical() {
                    IpAddr::V4(ip) => {
                        let mask = u32::MAX.checked_shl(32 - u32::from(*ipv4_prefix)).unwrap_or(0);
                        key.extend_from_slice(&(u32::from(ip) & mask).to_be_bytes());
                    }
                    IpAddr::V6(ip) => {
                        let mask = u128::MAX.checked_shl(128 - u32::from(*ipv6_prefix)).unwrap_or(0);
                        key.extend_from_slice(&(u128::from(ip) & mask).to_be_bytes());
                    }
                }
            }
            Self::Header(name) => {
                for value in view.headers.get_all(name) {
                    if key.len() > before {
                        key.push(b',');
                    }
                    key.extend_from_slice(value.as_bytes());
                }
            }
            Self::Cookie(name) => {
                let found = cookies(view.headers).find(|(cookie, _)| *cookie == &**name);
                key.extend_from_slice(found.map_or("", |(_, value)| value).as_bytes());
            }
            Self::Query(name) => {
                let mut pairs = view.query.into_iter().flat_map(|query| query.split('&'));
                let found = pairs.find_map(|pair| pair.strip_prefix(&**name)?.strip_prefix('='));
                key.extend_from_slice(found.unwrap_or_default().as_bytes());
            }
            Self::Path => key.extend_from_slice(view.path.as_bytes()),
            Self::Method => key.extend_from_slice(view.method.as_str().as_bytes()),
            Self::Host => key.extend_from_slice(view.host.as_bytes()),
            Self::Claim(name) => match view.auth.and_then(|identity| identity.claim(name)) {
                Some(serde_json::Value::String(text)) => key.extend_from_slice(text.as_bytes()),
                Some(serde_json::Value::Null) | None => {}
                Some(other) => key.extend_from_slice(other.to_string().as_bytes()),
            },
            Self::Consumer => {
                let consumer = view.auth.and_then(|identity| identity.consumer());
                key.extend_from_slice(consumer.map_or("", |consumer| consumer).as_bytes());
            }
            Self::Expression(expression) => {
                key.extend_from_slice(expression.text(view).unwrap_or_default().as_bytes());
            }
        }
        key.len() > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};
    use ipnet::IpNet;
    use std::net::SocketAddr;

    #[test]
    fn clients_of_one_network_are_one() {
        for (address, prefix) in [
            ("192.0.2.129", 0),
            ("192.0.2.129", 1),
            ("192.0.2.129", 25),
            ("192.0.2.129", 32),
            ("2001:db8:1:2:ffff:3:4:5", 0),
            ("2001:db8:1:2:ffff:3:4:5", 48),
            ("2001:db8:1:2:ffff:3:4:5", 65),
            ("2001:db8:1:2:ffff:3:4:5", 128),
            // An IPv4 client of a dual-stack socket.
            ("::ffff:192.0.2.129", 24),
        ] {
            let ip: IpAddr = address.parse().unwrap();
            let (headers, peer) = (HeaderMap::new(), SocketAddr::new(ip, 1));
            let view = View {
                method: &Method::GET,
                scheme: "http",
                host: "",
                path: "/",
                query: None,
                headers: &headers,
                peer,
                auth: None,
            };
            let part = KeyPart::ClientIp { ipv4_prefix: prefix.min(32), ipv6_prefix: prefix };
            let mut bytes = KeyBytes::new();
            assert_eq!(Key::compile(&[part]).unwrap().put(&view, &mut bytes), 0);
            let network = IpNet::new(ip.to_canonical(), prefix).unwrap().network();
            let wanted = match network {
                IpAddr::V4(network) => network.octets().to_vec(),
                IpAddr::V6(network) => network.octets().to_vec(),
            };
            assert_eq!(bytes[5..], wanted, "{address}/{prefix}");
        }
    }
}
