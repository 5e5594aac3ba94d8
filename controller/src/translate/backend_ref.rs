//! References to backends: to a Service's port or an XBackend, or to the reason why not.

use super::destination::{Destination, Target};
use super::grants::Reference;
use super::lookup::Lookup;
use crate::api::X_GROUP;
use crate::api::http_route::BackendRef;
use crate::status::Reason;
use headgate_proxy::model::{
    Backend, BackendId, BackendKind, BackendProtocol, Failure, ObjectName, Session, Transport,
};
use std::sync::Arc;

/// A reference that can't be followed.
pub(super) struct Refused {
    pub(super) failure: Failure,
    pub(super) reason: Reason,
    /// With the field relative to the reference.
    pub(super) why: String,
}

/// The plural of a kind.
fn several(kind: &str) -> String {
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    }
}

/// The backend that a reference of a route in `namespace` names, for requests.
pub(super) fn resolve(
    lookup: &mut Lookup<'_>,
    from_kind: &str,
    namespace: &str,
    reference: &BackendRef,
) -> Result<Backend, Refused> {
    let unsupported =
        |why| Refused { failure: Failure::UnsupportedBackend, reason: Reason::UnsupportedProtocol, why };
    let backend = match kind(reference)? {
        BackendKind::Service => {
            let port = find(lookup, from_kind, namespace, reference, Transport::Tcp)?;
            let tls = lookup.backend_tls(&port.id.name, port.name.as_deref());
            let protocol = protocol(&port.app, tls.is_some()).ok_or_else(|| unsupported(format!(
                "port {} of Service {} has appProtocol {}; a BackendTLSPolicy for it has to say how it is verified",
                port.id.port, port.id.name, port.app
            )))?;
            Backend { tls, ..Backend::new(port.id, protocol) }
        }
        BackendKind::XBackend => {
            let (id, found) = x_backend(lookup, namespace, reference)?;
            let protocol = found.protocol.ok_or_else(|| {
                unsupported(format!("XBackend {} has protocol TCP, which isn't for requests", id.name))
            })?;
            Backend { tls: found.tls.clone(), ..Backend::new(id, protocol) }
        }
    };
    let traffic = lookup.traffic(target(&backend.id));
    Ok(Backend { retry_budget: traffic.and_then(|traffic| traffic.retry_budget), ..backend })
}

/// The backend that a reference of a route in `namespace` names, for what isn't HTTP: `appProtocol` doesn't matter.
pub(super) fn resolve_stream(
    lookup: &mut Lookup<'_>,
    from_kind: &str,
    namespace: &str,
    reference: &BackendRef,
    transport: Transport,
) -> Result<Backend, Refused> {
    let (id, tls, protocol) = match kind(reference)? {
        BackendKind::Service => {
            let port = find(lookup, from_kind, namespace, reference, transport)?;
            let tls = match transport {
                Transport::Tcp => lookup.backend_tls(&port.id.name, port.name.as_deref()),
                Transport::Udp => None,
            };
            let protocol = protocol(&port.app, tls.is_some());
            (port.id, tls, protocol)
        }
        BackendKind::XBackend => {
            let (id, found) = x_backend(lookup, namespace, reference)?;
            if transport != Transport::Tcp {
                let why = format!("XBackend {} is not reached by UDP; name a Service", id.name);
                let (failure, reason) = (Failure::UnsupportedBackend, Reason::UnsupportedProtocol);
                return Err(Refused { failure, reason, why });
            }
            (id, found.tls.clone(), found.protocol)
        }
    };
    // Routes of HTTP may name the same backend, and must find it as they would alone.
    let traffic = lookup.traffic(target(&id));
    let retry_budget = traffic.and_then(|traffic| traffic.retry_budget);
    Ok(Backend { tls, retry_budget, ..Backend::new(id, protocol.unwrap_or(BackendProtocol::Http1)) })
}

/// What sends a client to the same endpoint of a backend again, where a rule doesn't say.
pub(super) fn session(lookup: &mut Lookup<'_>, backend: &BackendId) -> Option<Session> {
    let own = match backend.kind {
        BackendKind::Service => None,
        BackendKind::XBackend => lookup.destination(&backend.name)?.session.clone(),
    };
    own.or_else(|| lookup.traffic(target(backend))?.session.clone())
}

/// The object that a backend is.
fn target(id: &BackendId) -> Target {
    (id.kind.into(), id.name.clone())
}

/// What kind of object a reference names.
fn kind(reference: &BackendRef) -> Result<BackendKind, Refused> {
    let group = reference.group.as_deref().unwrap_or_default();
    match (group, reference.kind.as_deref().unwrap_or("Service")) {
        ("", "Service") => Ok(BackendKind::Service),
        (X_GROUP, "XBackend") => Ok(BackendKind::XBackend),
        (group, kind) => {
            let why = format!(
                "{group}/{kind} is not a kind of backend; name a Service, or an XBackend of {X_GROUP}"
            );
            Err(Refused { failure: Failure::BackendKind, reason: Reason::InvalidKind, why })
        }
    }
}

/// The XBackend that a reference names.
fn x_backend(
    lookup: &mut Lookup<'_>,
    namespace: &str,
    reference: &BackendRef,
) -> Result<(BackendId, Arc<Destination>), Refused> {
    let refuse = |failure, reason, why: String| Err(Refused { failure, reason, why });
    let name = ObjectName::new(reference.namespace.as_deref().unwrap_or(namespace), reference.name.as_str());
    if *name.namespace != *namespace {
        // GEP-4894, "Route Attachment and Consumer Overrides".
        let why = format!("XBackend {name} is in another namespace; only those of {namespace} can be named");
        return refuse(Failure::RefNotPermitted, Reason::RefNotPermitted, why);
    }
    let Some(found) = lookup.destination(&name) else {
        let why = format!("XBackend {name} doesn't exist");
        return refuse(Failure::BackendNotFound, Reason::BackendNotFound, why);
    };
    if let Some(why) = &found.refused {
        let why = format!("XBackend {name} can't be used: {why}");
        return refuse(Failure::UnsupportedBackend, Reason::UnsupportedValue, why);
    }
    if reference.port.is_some_and(|port| port != i32::from(found.port)) {
        let why = format!("XBackend {name} has port {}; leave port out", found.port);
        return refuse(Failure::BackendNotFound, Reason::BackendNotFound, why);
    }
    let id = BackendId { kind: BackendKind::XBackend, name, port: found.port, transport: Transport::Tcp };
    Ok((id, found))
}

/// A port of a Service.
struct Port {
    id: BackendId,
    name: Option<String>,
    /// Its `appProtocol`.
    app: String,
}

/// The port of a Service that a reference names.
fn find(
    lookup: &mut Lookup<'_>,
    from_kind: &str,
    namespace: &str,
    reference: &BackendRef,
    transport: Transport,
) -> Result<Port, Refused> {
    let refuse = |failure, reason, why: String| Err(Refused { failure, reason, why });
    let name = ObjectName::new(reference.namespace.as_deref().unwrap_or(namespace), reference.name.as_str());
    let to = Reference { from_kind, from_namespace: namespace, to_group: "", to_kind: "Service", to: &name };
    if !lookup.permit(&to) {
        let why = format!(
            "Service {name} is in another namespace, and no ReferenceGrant there lets {} of {namespace} use it",
            several(from_kind)
        );
        return refuse(Failure::RefNotPermitted, Reason::RefNotPermitted, why);
    }
    let Some((name, service)) = lookup.service(&name) else {
        return refuse(
            Failure::BackendNotFound,
            Reason::BackendNotFound,
            format!("Service {name} doesn't exist"),
        );
    };
    let Some(number) = reference.port else {
        let why = "port is missing; a Service needs one".to_owned();
        return refuse(Failure::BackendNotFound, Reason::BackendNotFound, why);
    };
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        let why =
            format!("Service {name} is of type ExternalName, which could point anywhere and is not followed");
        return refuse(Failure::UnsupportedBackend, Reason::UnsupportedProtocol, why);
    }
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let fits = |protocol: Option<&str>| protocol.unwrap_or("TCP") == transport.name();
    let found = ports.iter().find(|port| port.port == number && fits(port.protocol.as_deref()));
    let (Some(port), Ok(number)) = (found, u16::try_from(number)) else {
        let known: Vec<_> = ports
            .iter()
            .map(|port| format!("{}/{}", port.port, port.protocol.as_deref().unwrap_or("TCP")))
            .collect();
        let transport = transport.name();
        let why = format!("Service {name} has no {transport} port {number}; it has {}", known.join(", "));
        return refuse(Failure::BackendNotFound, Reason::BackendNotFound, why);
    };
    let id = BackendId { kind: BackendKind::Service, name: name.clone(), port: number, transport };
    Ok(Port { id, name: port.name.clone(), app: port.app_protocol.clone().unwrap_or_default() })
}

/// What an `appProtocol` says (KEP-3726, and the words that other gateways read). Unknown words are somebody else's. What
/// says that it is TLS is not spoken to in clear text.
fn protocol(app: &str, tls: bool) -> Option<BackendProtocol> {
    match app.to_ascii_lowercase().as_str() {
        "kubernetes.io/h2c" | "h2c" | "http2" | "grpc" => Some(BackendProtocol::H2c),
        "kubernetes.io/wss" | "https" | "tls" | "wss" if !tls => None,
        _ => Some(BackendProtocol::Http1),
    }
}
