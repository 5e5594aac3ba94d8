//! The fields that say who a client is: built once per connection, and written to a request's fields only when something is
//! there that may look at them or change them. Else they go from here onto the wire: most requests pass no policy and no
//! filter, and seven entries of a map are a tenth of what such a request costs.

use super::request_id::{RequestId, RequestIds};
use super::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REAL_IP};
use crate::http1::write_field;
use crate::model::Scheme;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use std::cell::OnceCell;
use std::net::IpAddr;
use std::rc::Rc;

/// So many fields.
const COUNT: usize = 7;

/// What backends are told about a client's connection.
#[derive(Debug)]
pub struct Forwarding {
    pub(super) address: HeaderValue,
    /// The address, and those of the proxies that are trusted.
    chain: HeaderValue,
    pub(super) forwarded: HeaderValue,
    scheme: HeaderValue,
    port: HeaderValue,
    /// All of it, as HTTP/1.1 has it.
    lines: Box<[u8]>,
}

impl Forwarding {
    /// Of a client at `peer`, connected by `scheme` to the Gateway's port `port` (not the pod's).
    pub fn new(peer: IpAddr, scheme: Scheme, port: u16) -> Self {
        Self::through(peer, &[], scheme, port)
    }

    /// Of a client that came through these proxies, the nearest last.
    pub(crate) fn through(peer: IpAddr, proxies: &[IpAddr], scheme: Scheme, port: u16) -> Self {
        // An IPv4 client of a dual-stack socket is an IPv4 client.
        let peer = peer.to_canonical();
        let scheme = scheme.name();
        let node = match peer {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let value =
            |text: String| HeaderValue::try_from(text).expect("addresses and numbers are visible ASCII");
        let address = value(peer.to_string());
        let chain = match proxies {
            [] => address.clone(),
            proxies => {
                let all = std::iter::once(peer).chain(proxies.iter().map(IpAddr::to_canonical));
                value(all.map(|address| address.to_string()).collect::<Vec<_>>().join(", "))
            }
        };
        let mut all = Self {
            address,
            chain,
            // RFC 7239 without `host`, which would differ by request: X-Forwarded-Host has it.
            forwarded: value(format!("for={node};proto={scheme}")),
            scheme: HeaderValue::from_static(scheme),
            port: value(port.to_string()),
            lines: Box::default(),
        };
        let mut lines = Vec::with_capacity(192);
        for (name, value) in all.fields() {
            write_field(&mut lines, name.as_str(), value.as_bytes());
        }
        all.lines = lines.into();
        all
    }

    fn fields(&self) -> [(HeaderName, &HeaderValue); 5] {
        [
            (X_FORWARDED_FOR, &self.chain),
            (X_FORWARDED_PORT, &self.port),
            (X_FORWARDED_PROTO, &self.scheme),
            (header::FORWARDED, &self.forwarded),
            (X_REAL_IP, &self.address),
        ]
    }
}

/// What of a request is ours to say, beside Host.
#[derive(Clone, Debug)]
pub struct Ours {
    pub(super) forwarding: Rc<Forwarding>,
    pub(super) id_name: HeaderName,
    pub(super) id: Id,
}

/// A request's id. It is made a value when somebody asks for one.
#[derive(Clone, Debug)]
pub(super) struct Id {
    own: RequestId,
    value: OnceCell<HeaderValue>,
}

impl Id {
    /// What a proxy that is trusted said, or else one of ours.
    pub(super) fn of(told: Option<HeaderValue>, ids: &RequestIds) -> Self {
        Self { own: ids.next(), value: told.map_or_else(OnceCell::new, OnceCell::from) }
    }

    fn value(&self) -> &HeaderValue {
        self.value.get_or_init(|| self.own.value())
    }
}

impl Ours {
    /// The request's id.
    pub(crate) fn id(&self) -> &HeaderValue {
        self.id.value()
    }

    /// Writes it to the fields, whose Host is that of the request.
    pub fn write(&self, headers: &mut HeaderMap) {
        // Grown once, not twice.
        headers.reserve(COUNT);
        if let Some(host) = headers.get(header::HOST).cloned() {
            headers.insert(X_FORWARDED_HOST, host);
        }
        for (name, value) in self.forwarding.fields() {
            headers.insert(name, value.clone());
        }
        headers.insert(&self.id_name, self.id.value().clone());
    }

    /// Writes it onto the wire, behind fields without it.
    pub(crate) fn encode(&self, host: Option<&HeaderValue>, out: &mut Vec<u8>) {
        if let Some(host) = host {
            write_field(out, X_FORWARDED_HOST.as_str(), host.as_bytes());
        }
        out.extend_from_slice(&self.forwarding.lines);
        let name = self.id_name.as_str();
        match self.id.value.get() {
            Some(value) => write_field(out, name, value.as_bytes()),
            None => write_field(out, name, &self.id.own.text()),
        }
    }

    /// Whether a field of this name is among them, whatever that of ids is.
    pub(super) fn always_says(name: &HeaderName) -> bool {
        let others = [
            X_FORWARDED_FOR,
            X_FORWARDED_HOST,
            X_FORWARDED_PORT,
            X_FORWARDED_PROTO,
            X_REAL_IP,
            header::FORWARDED,
        ];
        others.contains(name)
    }

    /// What it says in a field of this name. `headers` are those of the request.
    pub(crate) fn get<'a>(&'a self, name: &HeaderName, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        if *name == X_FORWARDED_HOST {
            return headers.get(header::HOST);
        }
        let own = self.forwarding.fields().into_iter().find(|(own, _)| own == name);
        own.map(|(_, value)| value).or_else(|| (*name == self.id_name).then(|| self.id.value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Touched;

    /// Whichever way it goes, it is the same.
    #[test]
    fn written_encoded_and_looked_up_alike() {
        let name = HeaderName::from_static("x-correlation-id");
        let forwarding = Rc::new(Forwarding::new("192.0.2.7".parse().unwrap(), Scheme::Https, 8443));
        let mut ours = Ours { forwarding, id_name: name, id: Id::of(None, &RequestIds::new()) };
        agree(&ours);
        ours.id = Id::of(Some(HeaderValue::from_static("one")), &RequestIds::new());
        assert_eq!(ours.id(), "one");
        agree(&ours);
    }

    fn agree(ours: &Ours) {
        let mut bare = HeaderMap::new();
        bare.insert(header::HOST, HeaderValue::from_static("a.example"));
        // Before anybody asks for a value.
        let mut encoded = Vec::new();
        ours.encode(bare.get(header::HOST), &mut encoded);
        let mut written = bare.clone();
        ours.write(&mut written);
        assert_eq!(written.len(), 1 + COUNT);
        let encoded = String::from_utf8(encoded).unwrap();
        let mut lines: Vec<_> = encoded.lines().collect();
        lines.sort_unstable();
        let mut wanted = Vec::new();
        for (name, value) in written.iter().filter(|(name, _)| **name != header::HOST) {
            assert_eq!(ours.get(name, &bare), Some(value), "{name}");
            assert!(Touched::from(name.clone()).includes(ours), "{name}");
            wanted.push(format!("{name}: {}", value.to_str().unwrap()));
        }
        wanted.sort_unstable();
        assert_eq!(lines, wanted);
        assert_eq!(ours.get(&header::ACCEPT, &bare), None);
        let others = Touched::from_iter([header::ACCEPT.into(), header::HOST.into(), header::COOKIE.into()]);
        assert!(!others.includes(ours));
        assert!(Touched::from_iter([others.clone(), X_REAL_IP.into()]).includes(ours));
        assert!(Touched::from_iter([Touched::Any, others]).includes(ours));
    }
}
