//! Pieces of models for unit tests, in few words.

use crate::model::{
    Action, Backend, BackendId, BackendKind, BackendProtocol, Certificate, Content, Endpoint, EndpointSet,
    HostPattern, Listener, ListenerId, Match, Model, ObjectName, PathMatch, Port, PortId, PortProtocol,
    Redacted, Route, RouteId, RouteKind, Rule, Staple, StringMatch, Target, Tls, Transport, ValueMatch,
    WeightedBackend, thin_vec,
};
use crate::snapshot::Ports;
use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) fn port_id(port: u16) -> PortId {
    PortId { gateway: ObjectName::new("infra", "gw"), port, transport: Transport::Tcp }
}

pub(crate) fn listener_id(name: &str) -> ListenerId {
    ListenerId { gateway: ObjectName::new("infra", "gw"), listener_set: None, name: name.into() }
}

/// A port with clear-text listeners, each a name and a hostname.
pub(crate) fn port(number: u16, listeners: &[(&str, &str)]) -> Port {
    let listeners = listeners
        .iter()
        .map(|(name, host)| Listener {
            id: listener_id(name),
            hostname: HostPattern::parse(host),
            content: Content::Http,
            tls: None,
            filters: vec![],
        })
        .collect();
    let bind = SocketAddr::from(([127, 0, 0, 1], number));
    Port {
        id: port_id(number),
        bind,
        protocol: PortProtocol::Http,
        listeners,
        client_certificate: None,
        clients: None,
    }
}

/// A port with TLS listeners, each a name, a hostname and a certificate.
pub(crate) fn tls_port(number: u16, listeners: &[(&str, &str, Certificate)]) -> Port {
    let plain: Vec<_> = listeners.iter().map(|(name, host, _)| (*name, *host)).collect();
    let mut port = port(number, &plain);
    port.protocol = PortProtocol::Tls;
    for (listener, (_, _, certificate)) in port.listeners.iter_mut().zip(listeners) {
        listener.tls =
            Some(Tls { certificates: vec![Arc::new(certificate.clone())], client_validation: None });
    }
    port
}

/// A new self-signed certificate.
pub(crate) fn certificate(host: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    Certificate {
        secret: ObjectName::new("infra", "certificate"),
        chain: made.cert.pem().into(),
        key: Redacted::new(made.signing_key.serialize_pem()),
        staple: Staple::Absent,
    }
}

/// A route of the listener `http` for any host, created at 0.
pub(crate) fn route(name: &str, rules: Vec<Rule>) -> Route {
    Route {
        id: RouteId { kind: RouteKind::Http, name: ObjectName::new("shop", name) },
        created: 0,
        listeners: [listener_id("http")].into(),
        hostnames: thin_vec![HostPattern::Any],
        rules: rules.into(),
    }
}

/// A rule that forwards to the backend of [`backend_id`].
pub(crate) fn rule(matches: Vec<Match>, backend: &str) -> Rule {
    let target = Target::Backend(backend_id(backend));
    let action = Action::Forward(thin_vec![WeightedBackend::new(target, 1)]);
    Rule {
        name: None,
        matches: matches.into(),
        filters: thin_vec![],
        action,
        timeouts: None,
        retry: None,
        policies: thin_vec![],
        session: None,
    }
}

pub(crate) fn prefix(path: &str) -> Match {
    of_path(PathMatch::Prefix(path.into()))
}

pub(crate) fn exact(path: &str) -> Match {
    of_path(PathMatch::Exact(path.into()))
}

pub(crate) fn regex(path: &str) -> Match {
    of_path(PathMatch::Regex(path.into()))
}

fn of_path(path: PathMatch) -> Match {
    Match { path, method: None, headers: thin_vec![], query: thin_vec![] }
}

pub(crate) fn value(name: &str, value: &str) -> ValueMatch {
    ValueMatch { name: name.into(), value: StringMatch::Exact(value.into()) }
}

pub(crate) fn backend_id(name: &str) -> BackendId {
    BackendId {
        kind: BackendKind::Service,
        name: ObjectName::new("shop", name),
        port: 80,
        transport: Transport::Tcp,
    }
}

/// Endpoints on loopback, by port.
pub(crate) fn endpoints(ports: &[u16]) -> Arc<EndpointSet> {
    let endpoint = |port: &u16| Endpoint { address: SocketAddr::from(([127, 0, 0, 1], *port)), pod: None };
    Arc::new(EndpointSet { endpoints: ports.iter().map(endpoint).collect() })
}

/// A model of these ports and routes, and the backends that the routes name, without endpoints.
pub(crate) fn model(ports: Vec<Port>, routes: Vec<Route>) -> Model {
    let mut model = Model::default();
    for port in ports {
        model.ports.insert(port.id.clone(), Arc::new(port));
    }
    for route in routes {
        for backend in route.rules.iter().flat_map(backends) {
            let id = backend.clone();
            let backend = Backend::new(id.clone(), BackendProtocol::Http1);
            model.backends.insert(id, Arc::new(backend));
        }
        model.routes.insert(route.id.clone(), Arc::new(route));
    }
    model
}

fn backends(rule: &Rule) -> impl Iterator<Item = &BackendId> {
    let list = match &rule.action {
        Action::Forward(list) => &list[..],
        Action::Redirect(_) | Action::Fail(_) => &[],
    };
    list.iter().filter_map(|backend| match &backend.target {
        Target::Backend(id) => Some(id),
        Target::Fail(_) => None,
    })
}

/// Sockets of tests that need none.
pub(crate) struct NoSockets;

impl Ports for NoSockets {
    fn apply(&self, _: &[(PortId, SocketAddr, PortProtocol)]) -> Vec<(PortId, String)> {
        Vec::new()
    }
}
