//! What a ClientPolicy says of a port's clients, compiled: other bounds than the usual, and who a client is when proxies are before us.
//!
//! A proxy is believed only as far as it is trusted: by its network, or by how many there are. Whatever comes from farther away
//! than the last one that is trusted was written by the client itself, and counts for nothing (security.md §2).

mod proxy_protocol;
mod seats;
mod trial;

pub(crate) use seats::{Seat, Seats};
pub(crate) use trial::judge;

use crate::handshake;
use crate::headers::{Forwarding, Rules, X_FORWARDED_FOR, X_FORWARDED_PORT, X_FORWARDED_PROTO};
use crate::limits::Limits;
use crate::model::{self, ClientTls, ProxyProtocol, Scheme};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use rustls::server::ServerConfig;
use seats::Full;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Addresses of a chain that are looked at.
const CHAIN: usize = 64;

/// A compiled port's rules.
#[derive(Debug)]
pub(crate) struct Clients {
    from: model::Clients,
    proxies: Option<Proxies>,
    headers: Rules,
    /// None: as usual.
    tls: Option<Arc<ServerConfig>>,
}

/// Who is believed.
#[derive(Debug)]
struct Proxies {
    hops: usize,
    networks: Box<[IpNet]>,
    field: Field,
}

/// Where they say it.
#[derive(Debug)]
enum Field {
    /// A list of addresses, each proxy's at its end.
    ForwardedFor,
    /// The same as RFC 7239 writes it.
    Forwarded,
    /// One address.
    Single(HeaderName),
}

/// Who has sent a request, where it isn't who is connected.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: Scheme,
    /// That it has connected to.
    pub(crate) port: u16,
    pub(crate) forwarding: Rc<Forwarding>,
}

/// Whether rules can be compiled. The error is for their author, and begins with the field.
pub fn check_clients(from: &model::Clients) -> Result<(), String> {
    Clients::compile(from).map(drop)
}

impl Clients {
    pub(crate) fn compile(from: &model::Clients) -> Result<Self, String> {
        let address = &from.address;
        let network = |(n, text): (usize, &model::Text)| {
            let parsed = IpNet::from_str(text).or_else(|_| IpAddr::from_str(text).map(IpNet::from));
            parsed.map_err(|_| {
                format!("clientIP.trustedCIDRs[{n}]: {text:?} is no network; write it like 10.0.0.0/8")
            })
        };
        let networks =
            address.trusted_networks.iter().enumerate().map(network).collect::<Result<Box<[_]>, _>>()?;
        let field = match address.header.as_deref() {
            None => Field::ForwardedFor,
            Some(name) if name.eq_ignore_ascii_case(X_FORWARDED_FOR.as_str()) => Field::ForwardedFor,
            Some(name) if name.eq_ignore_ascii_case(header::FORWARDED.as_str()) => Field::Forwarded,
            Some(name) => Field::Single(
                HeaderName::try_from(name)
                    .map_err(|_| format!("clientIP.header: {name:?} isn't the name of a header"))?,
            ),
        };
        let nobody = address.trusted_hops == 0 && networks.is_empty();
        if nobody && address.proxy_protocol == ProxyProtocol::Accept {
            let why = "clientIP.proxyProtocol: Accept needs trustedCIDRs, for else every client could say who it is";
            return Err(why.to_owned());
        }
        let proxies = (!nobody).then_some(Proxies { hops: address.trusted_hops, networks, field });
        let headers = Rules::compile(&from.headers)?;
        let own = from.tls != ClientTls::default();
        let tls = own.then(|| handshake::configuration(None, &from.tls).map(Arc::new)).transpose()?;
        Ok(Self { from: from.clone(), proxies, headers, tls })
    }

    /// The usual bounds with these in their place.
    pub(crate) fn bounds(&self, usual: &Limits) -> Limits {
        let model::Clients { timeouts, limits, http2, .. } = &self.from;
        let header_list = limits.header_bytes.and_then(|bytes| u32::try_from(bytes).ok());
        Limits {
            handshake: timeouts.tls_handshake.unwrap_or(usual.handshake),
            head: timeouts.request_headers.unwrap_or(usual.head),
            body: timeouts.request_body_idle.unwrap_or(usual.body),
            keep_alive: timeouts.keep_alive_idle.unwrap_or(usual.keep_alive),
            stream: timeouts.stream_idle.unwrap_or(usual.stream),
            age: timeouts.max_connection_age.or(usual.age),
            head_bytes: limits.header_bytes.unwrap_or(usual.head_bytes),
            head_fields: limits.header_count.unwrap_or(usual.head_fields),
            target_bytes: limits.target_bytes.unwrap_or(usual.target_bytes),
            header_list: http2.max_header_list_bytes.or(header_list).unwrap_or(usual.header_list),
            http2: usual.http2 && !http2.disabled,
            streams: http2.max_concurrent_streams.unwrap_or(usual.streams),
            stream_window: http2.initial_window_bytes.unwrap_or(usual.stream_window),
            resets: http2.max_resets.unwrap_or(usual.resets),
            ..*usual
        }
    }

    /// Whether it was compiled from these.
    pub(crate) fn is_of(&self, from: &model::Clients) -> bool {
        self.from == *from
    }

    /// How TLS is done with them, where it isn't as usual and no certificate is asked for.
    pub(crate) fn tls(&self) -> Option<&Arc<ServerConfig>> {
        self.tls.as_ref()
    }

    /// Whether OCSP answers go with certificates.
    pub(crate) fn staples(&self) -> bool {
        self.from.tls.ocsp_stapling
    }

    /// What becomes of fields.
    pub(crate) fn headers(&self) -> &Rules {
        &self.headers
    }

    /// What becomes of paths.
    pub(crate) fn path(&self) -> &model::ClientPath {
        &self.from.path
    }

    /// Reads who is behind a connection, where it says so at its beginning. The error is no such beginning where there has to be one.
    pub(crate) async fn introduce(&self, socket: &mut TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
        let trusted = self.proxies.as_ref().is_none_or(|proxies| proxies.trust(peer.ip()));
        let said = match (self.from.address.proxy_protocol, trusted) {
            (ProxyProtocol::Off, _) | (ProxyProtocol::Accept, false) => None,
            (ProxyProtocol::Accept, true) if !proxy_protocol::begins(socket).await? => None,
            (ProxyProtocol::Accept | ProxyProtocol::Require, true) => proxy_protocol::read(socket).await?,
            (ProxyProtocol::Require, false) => return Err(io::ErrorKind::PermissionDenied.into()),
        };
        Ok(said.unwrap_or(peer))
    }

    /// Whether connections may have something to say before they are what they are.
    pub(crate) fn may_introduce(&self) -> bool {
        self.from.address.proxy_protocol != ProxyProtocol::Off
    }

    /// A seat for a connection. The error is that there is none.
    pub(crate) fn seat(&self, seats: &Arc<Seats>, peer: IpAddr) -> Result<Option<Seat>, Full> {
        seat(&self.from.limits, seats, peer)
    }

    /// The same as if what is tried out were in force.
    pub(crate) fn tried_seat(&self, seats: &Arc<Seats>, peer: IpAddr) -> Result<Option<Seat>, Full> {
        self.trial().map_or(Ok(None), |trial| seat(&trial.limits, seats, peer))
    }

    /// What is only tried out.
    pub(crate) fn trial(&self) -> Option<&model::ClientTrial> {
        self.from.trial.as_ref()
    }

    /// Who has sent a request. None: who is connected, for all that we know.
    pub(crate) fn sender(
        &self,
        headers: &HeaderMap,
        (peer, scheme, port): (SocketAddr, Scheme, u16),
    ) -> Option<Box<Sender>> {
        let (address, chain) = self.proxies.as_ref()?.find(headers, peer.ip())?;
        let told = last(headers, &X_FORWARDED_PROTO);
        let told = match told {
            Some("https") => Some(Scheme::Https),
            Some("http") => Some(Scheme::Http),
            Some(_) | None => None,
        };
        let port = match (last(headers, &X_FORWARDED_PORT).and_then(|port| port.parse().ok()), told) {
            (Some(port), _) => port,
            (None, Some(told)) if told != scheme => told.port(),
            (None, _) => port,
        };
        let scheme = told.unwrap_or(scheme);
        let forwarding =
            Rc::new(Forwarding::through(address, &[&chain, &[peer.ip()][..]].concat(), scheme, port));
        let peer = SocketAddr::new(address, 0);
        Some(Box::new(Sender { peer, scheme, port, forwarding }))
    }
}

fn seat(limits: &model::ClientLimits, seats: &Arc<Seats>, peer: IpAddr) -> Result<Option<Seat>, Full> {
    match (limits.connections, limits.connections_per_ip) {
        (None, None) => Ok(None),
        (most, each) => seats.take(most, each.map(|each| (peer, each))).map(Some),
    }
}

impl Proxies {
    fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address))
    }

    /// The client's address, and those of the proxies after it but the last.
    fn find(&self, headers: &HeaderMap, peer: IpAddr) -> Option<(IpAddr, Vec<IpAddr>)> {
        if !self.trust(peer) {
            return None;
        }
        let mut chain = Vec::new();
        let entries: Vec<Option<IpAddr>> = match &self.field {
            Field::Single(name) => return Some((address(last(headers, name)?)?, chain)),
            Field::ForwardedFor => backwards(headers, &X_FORWARDED_FOR).map(address).take(CHAIN).collect(),
            Field::Forwarded => backwards(headers, &header::FORWARDED).map(node).take(CHAIN).collect(),
        };
        for (n, entry) in entries.into_iter().enumerate() {
            // What can't be read was written by nobody who is trusted.
            let Some(entry) = entry else { break };
            chain.insert(0, entry);
            let ends = if self.hops > 0 { n + 1 == self.hops } else { !self.trust(entry) };
            if ends {
                break;
            }
        }
        // Fewer than there should be: somebody went around a proxy.
        if chain.is_empty() || chain.len() < self.hops {
            return None;
        }
        Some((chain.remove(0), chain))
    }
}

/// Members of a field that is a list, the last first.
fn backwards<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
    // A value that isn't text is one member that can't be read.
    values.into_iter().rev().flat_map(|value| value.to_str().unwrap_or("?").rsplit(',')).map(str::trim)
}

fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get_all(name).iter().next_back()?.to_str().ok()?.rsplit(',').next().map(str::trim)
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let plain = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(plain).map(|address: IpAddr| address.to_canonical())
}

/// The address of a member of `Forwarded` (RFC 7239 §4).
fn node(member: &str) -> Option<IpAddr> {
    let mut pairs = member.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    address(node.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(hops: usize, networks: &[&str], header: Option<&str>) -> Clients {
        let address = model::ClientAddress {
            trusted_hops: hops,
            trusted_networks: networks.iter().map(|text| (*text).into()).collect(),
            header: header.map(Into::into),
            proxy_protocol: ProxyProtocol::Off,
        };
        Clients::compile(&model::Clients { address, ..model::Clients::default() }).unwrap()
    }

    fn found(clients: &Clients, peer: &str, fields: &[(&'static str, &'static str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 4_000);
        let sender = clients.sender(&headers, (peer, Scheme::Http, 80))?;
        Some(format!("{} {} {}", sender.peer.ip(), sender.scheme.name(), sender.port))
    }

    #[test]
    fn by_networks_the_last_who_is_not_a_proxy_is_the_client() {
        let clients = clients(0, &["10.0.0.0/8", "2001:db8::/32"], None);
        let at = |peer: &str, list: &'static str| found(&clients, peer, &[("x-forwarded-for", list)]);
        for (peer, list, client) in [
            ("10.0.0.1", "192.0.2.1", Some("192.0.2.1 http 80")),
            ("10.0.0.1", "1.1.1.1, 192.0.2.1, 10.0.0.2", Some("192.0.2.1 http 80")),
            ("::ffff:10.0.0.1", "192.0.2.1:99, [2001:db8::1]:1", Some("192.0.2.1 http 80")),
            // All of them are ours: the farthest is.
            ("10.0.0.1", "10.0.0.3,10.0.0.2", Some("10.0.0.3 http 80")),
            ("10.0.0.1", "unknown, 10.0.0.2", Some("10.0.0.2 http 80")),
            ("10.0.0.1", "192.0.2.1, unknown", None),
            ("10.0.0.1", "", None),
            ("192.0.2.9", "192.0.2.1", None),
        ] {
            assert_eq!(at(peer, list).as_deref(), client, "{peer}: {list}");
        }
        assert_eq!(found(&clients, "10.0.0.1", &[]), None);
        // Several fields are one list.
        let both = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.7, 10.0.0.2")];
        assert_eq!(found(&clients, "10.0.0.1", &both).as_deref(), Some("192.0.2.7 http 80"));
    }

    #[test]
    fn by_hops_as_many_are_counted_from_the_end() {
        let two = clients(2, &[], None);
        let at = |clients: &Clients, list| found(clients, "198.51.100.1", &[("x-forwarded-for", list)]);
        assert_eq!(at(&two, "6.6.6.6, 192.0.2.1, 198.51.100.2").as_deref(), Some("192.0.2.1 http 80"));
        // Around a proxy: nobody knows what that list is.
        assert_eq!(at(&two, "192.0.2.1"), None);
        assert_eq!(at(&two, "192.0.2.1, x"), None);
        let both = clients(1, &["10.0.0.0/8"], None);
        assert_eq!(at(&both, "192.0.2.1"), None);
    }

    #[test]
    fn other_fields_and_what_they_say_besides() {
        let rfc = clients(1, &[], Some("Forwarded"));
        let list = [("forwarded", "for=6.6.6.6, For=\"[2001:db8::7]:80\";proto=https")];
        assert_eq!(found(&rfc, "10.0.0.1", &list).as_deref(), Some("2001:db8::7 http 80"));
        assert_eq!(found(&rfc, "10.0.0.1", &[("forwarded", "for=_hidden")]), None);
        let single = clients(0, &["10.0.0.0/8"], Some("CF-Connecting-IP"));
        let told = [("cf-connecting-ip", "192.0.2.1"), ("x-forwarded-proto", "https")];
        assert_eq!(found(&single, "10.0.0.1", &told).as_deref(), Some("192.0.2.1 https 443"));
        assert_eq!(found(&single, "192.0.2.9", &told), None);
        let odd = [
            ("cf-connecting-ip", "192.0.2.1"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-port", "8443"),
        ];
        assert_eq!(found(&single, "10.0.0.1", &odd).as_deref(), Some("192.0.2.1 http 8443"));
    }

    #[test]
    fn what_cannot_be_trusted_is_not_compiled() {
        let told =
            |address| Clients::compile(&model::Clients { address, ..model::Clients::default() }).unwrap_err();
        let networks = vec!["10.0.0.0/40".into()];
        let bad = model::ClientAddress { trusted_networks: networks, ..model::ClientAddress::default() };
        assert!(told(bad).starts_with("clientIP.trustedCIDRs[0]: "));
        let open =
            model::ClientAddress { proxy_protocol: ProxyProtocol::Accept, ..model::ClientAddress::default() };
        assert!(told(open).starts_with("clientIP.proxyProtocol: "));
    }
}
