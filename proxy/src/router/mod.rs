//! From a request head to the rule that takes it: host, then path, then the other conditions.
//!
//! [`PortTable::find`] is the one way in: the listener with the most specific hostname for the Host, then its routes by
//! hostname as written, then paths, in the order of [`precedence`]. Tables are persistent: a changed route copies the
//! shards it touches ([`shards`]). Must not know connections, backends' state, or anything that changes per request.

mod conditions;
mod host;
mod path;
mod precedence;
mod rule;
mod shards;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

pub use rule::{Action, Authorizer, Mirror, Rule, RuleId, Split, SplitBackend};
pub(crate) use rule::{CompiledRoute, Context};
pub use stream::Stream;

use crate::client_auth::ClientAuth;
use crate::clients::{Clients, Seats};
use crate::headers::Ours;
use crate::model::{self, ClientTls, Content, HostPattern, ListenerId, PortId, PortProtocol};
use crate::path::{is_ambiguous, lax_readings};
use crate::rejection::{Malformed, Rejection};
use crate::tls::{CertificateError, parse_certificate};
use host::HostMap;
use http::{HeaderMap, Method};
use path::{Candidate, PathTable};
use regex::bytes::{Regex, RegexBuilder};
use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stream::StreamTable;

/// Compiled size of one regular expression, in bytes: room for several Unicode classes, none for a bomb.
pub(crate) const REGEX_SIZE: usize = 1 << 20;

/// What of a request decides where it goes. Fields are those that will be forwarded: after
/// [`crate::headers::prepare_request`], so that a client can't choose a rule by a field that we take away.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Host in lower case, without port and final dot ([`crate::host::Host::name`]); empty if there is none.
    pub host: &'a str,
    /// Server name of the TLS handshake, in lower case.
    pub sni: Option<&'a str>,
    /// Method.
    pub method: &'a Method,
    /// Path as [`crate::path::normalise`] returns it, without query.
    pub path: &'a str,
    /// Query, without its question mark.
    pub query: Option<&'a str>,
    /// Fields.
    pub headers: &'a HeaderMap,
    /// What will be added to them.
    pub ours: Option<&'a Ours>,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The listener that serves the host.
    pub listener: &'a Listener,
    /// The rule that takes the request.
    pub rule: &'a Arc<Rule>,
    /// How many bytes of the path the rule's condition took: what [`model::PathRewrite::Prefix`] replaces. 0 for the
    /// prefix `/`.
    pub prefix_len: usize,
}

/// The routes of one listener, by hostname as written. Cheap to copy and change a little.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteTable {
    http: HostMap<Arc<PathTable>>,
    pub(crate) streams: StreamTable,
}

impl RouteTable {
    pub(crate) fn insert(&mut self, route: &CompiledRoute) {
        for hostname in &route.hostnames {
            for candidate in &route.candidates {
                self.http.change(hostname, |paths| Arc::make_mut(paths).insert(candidate), |_| true);
            }
        }
    }

    pub(crate) fn remove(&mut self, route: &CompiledRoute) {
        for hostname in &route.hostnames {
            for candidate in &route.candidates {
                let keep = |paths: &Arc<PathTable>| !paths.is_empty();
                self.http.change(hostname, |paths| Arc::make_mut(paths).remove(candidate), keep);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.http.is_empty() && self.streams.is_empty()
    }

    fn find(&self, head: &Head<'_>) -> Option<&Arc<Candidate>> {
        self.http.find(head.host, |paths| paths.find(head))
    }
}

/// One listener, ready to serve.
#[derive(Debug)]
pub struct Listener {
    id: ListenerId,
    hostname: HostPattern,
    content: Content,
    certificates: Certificates,
    client_auth: Option<ClientAuth>,
    filters: Box<[Result<Authorizer, Rejection>]>,
}

/// What becomes of a TLS connection, by its ClientHello.
#[derive(Debug)]
pub enum Reception<'a> {
    /// TLS ends here, HTTP is inside; clients may be asked for a certificate.
    Http(&'a Served, Option<&'a ClientAuth>),
    /// TLS ends here, what is inside goes on as a whole.
    Terminate(&'a Served, &'a Arc<Stream>),
    /// All of it goes on.
    Passthrough(&'a Arc<Stream>),
}

impl Listener {
    /// Who it is.
    pub fn id(&self) -> &ListenerId {
        &self.id
    }

    /// Which hosts are its own.
    pub fn hostname(&self) -> &HostPattern {
        &self.hostname
    }

    /// Who is asked about each of its requests before it is routed, in this order; or what it is answered instead.
    pub(crate) fn filters(&self) -> &[Result<Authorizer, Rejection>] {
        &self.filters
    }
}

/// A certificate, ready for handshakes, with what it was read from, so that an equal one isn't read again.
#[derive(Clone, Debug)]
pub struct Served {
    from: Arc<model::Certificate>,
    key: Arc<CertifiedKey>,
    /// The same with its OCSP answer, and when that is out of date.
    stapled: Option<(Arc<CertifiedKey>, SystemTime)>,
}

impl Served {
    fn read(from: &Arc<model::Certificate>) -> Result<Self, CertificateError> {
        let key = parse_certificate(from)?;
        let stapled = match &from.staple {
            model::Staple::Sent { answer, until } => {
                let ocsp = Some(answer.to_vec());
                Some((
                    Arc::new(CertifiedKey { ocsp, ..CertifiedKey::clone(&key) }),
                    UNIX_EPOCH + Duration::from_secs(*until),
                ))
            }
            model::Staple::Absent | model::Staple::Refused(_) => None,
        };
        Ok(Self { from: from.clone(), key, stapled })
    }

    /// What is sent: with the OCSP answer where that is wanted, there, and not out of date.
    pub(crate) fn key(&self, stapling: bool) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((stapled, until)) if stapling && SystemTime::now() < *until => stapled,
            Some(_) | None => &self.key,
        }
    }
}

/// The certificates of a listener.
type Certificates = Vec<Served>;

/// The listeners of one port with their routes.
#[derive(Clone, Debug)]
pub struct PortTable {
    id: PortId,
    protocol: PortProtocol,
    /// Positions in `listeners`.
    hosts: Arc<HostMap<usize>>,
    listeners: Vec<(Arc<Listener>, Arc<RouteTable>)>,
    /// At most one.
    client_certificate: Certificates,
    clients: Option<Arc<Clients>>,
    seats: Arc<Seats>,
    tried_seats: Arc<Seats>,
    /// Whether some listener has filters.
    filters: bool,
}

impl PortTable {
    /// Which port it is; `id().port` is the one that clients connect to.
    pub fn id(&self) -> &PortId {
        &self.id
    }

    /// What is spoken on it.
    pub fn protocol(&self) -> PortProtocol {
        self.protocol
    }

    /// How clients may talk to it, where it isn't as usual.
    pub(crate) fn clients(&self) -> Option<&Arc<Clients>> {
        self.clients.as_ref()
    }

    /// Where its connections are counted, if they are.
    pub(crate) fn seats(&self) -> &Arc<Seats> {
        &self.seats
    }

    /// Where those are counted that policies in shadow would let in.
    pub(crate) fn tried_seats(&self) -> &Arc<Seats> {
        &self.tried_seats
    }

    /// What backends that speak TLS and ask for a certificate are shown.
    pub(crate) fn client_certificate(&self) -> Option<&Arc<CertifiedKey>> {
        self.client_certificate.first().map(|shown| &shown.key)
    }

    /// Finds the rule that takes a request, or says why none does: [`Rejection::NoListener`],
    /// [`Rejection::Misdirected`], [`Rejection::NoRoute`], [`Rejection::MethodNotAllowed`] (TRACE), or
    /// [`Malformed::AmbiguousPath`].
    pub fn find(&self, head: &Head<'_>) -> Result<Found<'_>, Rejection> {
        let position = self.position(head.host).ok_or(Rejection::NoListener)?;
        self.check_directed(head.host, head.sni, position)?;
        let (listener, routes) = &self.listeners[position];
        let candidate = routes.find(head).ok_or(match *head.method {
            Method::TRACE => Rejection::MethodNotAllowed,
            _ => Rejection::NoRoute,
        })?;
        if is_ambiguous(head.path) {
            check_readings(routes, head, candidate)?;
        }
        Ok(Found { listener, rule: &candidate.rule, prefix_len: candidate.prefix_len(head.path) })
    }

    /// The listener that a request is for, if it has filters. Whether it is has to be found out before: a listener never
    /// judges what another's client sends.
    pub(crate) fn filtering(
        &self,
        host: &str,
        sni: Option<&str>,
    ) -> Result<Option<Arc<Listener>>, Rejection> {
        if !self.filters {
            return Ok(None);
        }
        let Some(position) = self.position(host) else { return Err(Rejection::NoListener) };
        self.check_directed(host, sni, position)?;
        let (listener, _) = &self.listeners[position];
        Ok((!listener.filters.is_empty()).then(|| listener.clone()))
    }

    /// What becomes of a TLS connection: the listener of its server name says so. Of its certificates the first counts
    /// whose key can sign by one of the client's schemes, else the first. None: no listener or no route serves the
    /// name, and the connection is closed.
    pub fn receive(&self, sni: Option<&str>, schemes: &[SignatureScheme]) -> Option<Reception<'_>> {
        let name = sni.unwrap_or_default();
        let (listener, routes) = &self.listeners[self.position(name)?];
        let certificates = &listener.certificates;
        let fitting = certificates.iter().find(|served| served.key.key.choose_scheme(schemes).is_some());
        let certificate = fitting.or(certificates.first());
        match listener.content {
            Content::Http => {
                certificate.map(|certificate| Reception::Http(certificate, listener.client_auth.as_ref()))
            }
            Content::Stream => {
                let stream = routes.streams.find(name)?;
                Some(match certificate {
                    Some(certificate) => Reception::Terminate(certificate, stream),
                    None => Reception::Passthrough(stream),
                })
            }
        }
    }

    /// Where a connection or session goes that has no server name.
    pub fn stream(&self) -> Option<&Arc<Stream>> {
        self.listeners[self.position("")?].1.streams.find("")
    }

    fn position(&self, host: &str) -> Option<usize> {
        self.hosts.find(host, |position| Some(*position))
    }

    /// Host must belong to the listener that the handshake chose (GEP-3567): the other's client certificates and
    /// policies were not applied.
    fn check_directed(&self, host: &str, sni: Option<&str>, position: usize) -> Result<(), Rejection> {
        match self.protocol {
            PortProtocol::Http | PortProtocol::Tcp | PortProtocol::Udp => Ok(()),
            PortProtocol::Tls => {
                let sni = sni.unwrap_or_default();
                match sni == host || self.position(sni) == Some(position) {
                    true => Ok(()),
                    false => Err(Rejection::Misdirected),
                }
            }
        }
    }
}

/// The guard of security.md §5: what a laxer backend would read must not belong to another rule.
fn check_readings(routes: &RouteTable, head: &Head<'_>, found: &Candidate) -> Result<(), Rejection> {
    for path in lax_readings(head.path) {
        match routes.find(&Head { path: &path, ..*head }) {
            Some(other) if !Arc::ptr_eq(&other.rule, &found.rule) => {
                return Err(Rejection::Malformed(Malformed::AmbiguousPath));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

impl PortTable {
    /// Compiles a port. `previous` is the table it replaces; `routes` gives the routes of each listener.
    pub(crate) fn compile(
        from: &model::Port,
        previous: Option<&Self>,
        routes: impl Fn(&ListenerId) -> Arc<RouteTable>,
        context: &mut Context<'_>,
    ) -> Self {
        let mut hosts = HostMap::default();
        // Backwards: of two listeners with one pattern, which translation doesn't let happen, the first wins.
        for (position, listener) in from.listeners.iter().enumerate().rev() {
            hosts.change(&listener.hostname, |slot| *slot = position, |_| true);
        }
        let usual = ClientTls::default();
        let tls = from.clients.as_ref().map_or(&usual, |clients| &clients.tls);
        let listeners = from.listeners.iter().map(|listener| {
            let old = previous.and_then(|table| table.listener(&listener.id));
            (Arc::new(compile_listener(listener, tls, old, context)), routes(&listener.id))
        });
        let listeners: Vec<_> = listeners.collect();
        let filters = listeners.iter().any(|(listener, _)| !listener.filters.is_empty());
        let known = previous.map_or(&[][..], |table| &table.client_certificate);
        let client_certificate = compile_certificates(from.client_certificate.as_slice(), known, &from.id);
        let (id, hosts) = (from.id.clone(), Arc::new(hosts));
        let known = previous.and_then(|table| table.clients.as_ref());
        let clients = from.clients.as_deref().and_then(|clients| compile_clients(clients, known, &from.id));
        let (seats, tried_seats) =
            previous.map(|table| (table.seats.clone(), table.tried_seats.clone())).unwrap_or_default();
        let protocol = from.protocol;
        Self { id, protocol, hosts, listeners, client_certificate, clients, seats, tried_seats, filters }
    }

    /// The same port with other routes.
    pub(crate) fn with_routes(&self, routes: impl Fn(&ListenerId) -> Arc<RouteTable>) -> Self {
        let listeners = self.listeners.iter().map(|(listener, _)| (listener.clone(), routes(&listener.id)));
        Self { listeners: listeners.collect(), ..self.clone() }
    }

    fn listener(&self, id: &ListenerId) -> Option<&Listener> {
        self.listeners.iter().map(|(listener, _)| &**listener).find(|listener| listener.id == *id)
    }
}

fn compile_listener(
    from: &model::Listener,
    rules: &ClientTls,
    previous: Option<&Listener>,
    context: &mut Context<'_>,
) -> Listener {
    let known = previous.map_or(&[][..], |listener| &listener.certificates);
    let wanted = from.tls.as_ref().map_or(&[][..], |tls| &tls.certificates);
    let certificates = compile_certificates(wanted, known, &from.id);
    let validation = from.tls.as_ref().and_then(|tls| tls.client_validation.as_ref());
    let client_auth = validation.map(|validation| {
        ClientAuth::compile(validation, rules, previous.and_then(|listener| listener.client_auth.as_ref()))
    });
    let filters = from.filters.iter().map(|filter| Authorizer::of_listener(filter, context)).collect();
    let (id, hostname, content) = (from.id.clone(), from.hostname.clone(), from.content);
    Listener { id, hostname, content, certificates, client_auth, filters }
}

/// What is known already stays, and TLS sessions with it.
fn compile_clients(
    from: &model::Clients,
    known: Option<&Arc<Clients>>,
    port: &PortId,
) -> Option<Arc<Clients>> {
    if let Some(known) = known.filter(|known| known.is_of(from)) {
        return Some(known.clone());
    }
    // Its author was told.
    let told = |error: &String| tracing::error!(%port, %error, "a ClientPolicy can't be compiled");
    Clients::compile(from).inspect_err(told).ok().map(Arc::new)
}

/// Reads certificates; those that are known already stay the same object. `of` is whose they are.
fn compile_certificates(
    wanted: &[Arc<model::Certificate>],
    known: &[Served],
    of: &dyn std::fmt::Display,
) -> Certificates {
    let compiled: Result<Certificates, _> = wanted
        .iter()
        .map(|certificate| {
            let equal =
                known.iter().find(|old| Arc::ptr_eq(&old.from, certificate) || old.from == *certificate);
            equal.map_or_else(|| Served::read(certificate), |known| Ok(known.clone()))
        })
        .collect();
    compiled.unwrap_or_else(|error| {
        tracing::error!(%of, %error, "a certificate can't be used: the old ones stay in force");
        known.to_vec()
    })
}

/// Whether the router can compile a regular expression of a match. The error is for its author.
pub fn check_regex(pattern: &str) -> Result<(), String> {
    compile_regex(pattern).map(drop)
}

/// Compiles a pattern that must match the whole of a value.
fn compile_regex(pattern: &str) -> Result<Regex, String> {
    let build =
        |pattern: &str| RegexBuilder::new(pattern).size_limit(REGEX_SIZE).dfa_size_limit(REGEX_SIZE).build();
    // Alone first: `a)(b` is nothing by itself, but would be something between our parentheses.
    build(pattern)
        .and_then(|_| build(&format!(r"\A(?:{pattern})\z")))
        .map_err(|error| format!("regular expression {pattern:?}: {error}"))
}
