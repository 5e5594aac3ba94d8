//! References to backends: to a Service's port, or to the reason why not.

use super::grants::Reference;
use super::lookup::Lookup;
use crate::api::http_route::BackendRef;
use crate::status::Reason;
use headgate_proxy::model::{
    Backend, BackendId, BackendKind, BackendProtocol, Failure, ObjectName, Transport,
};

/// A reference that can't be followed.
pub(super) struct Refused {
    pub(super) failure: Failure,
    pub(super) reason: Reason,
    /// With the field relative to the reference.
    pub(super) why: String,
}

/// The backend that a reference of a route in `namespace` names, for requests.
pub(super) fn resolve(
    lookup: &mut Lookup<'_>,
    from_kind: &str,
    namespace: &str,
    reference: &BackendRef,
) -> Result<Backend, Refused> {
    let port = find(lookup, from_kind, namespace, reference, Transport::Tcp)?;
    let tls = lookup.backend_tls(&port.id.name, port.name.as_deref());
    match protocol(&port.app, tls.is_some()) {
        Some(protocol) => Ok(Backend { id: port.id, protocol, tls, policy: None }),
        None => {
            let why = format!(
                "port {} of Service {} has appProtocol {}; a BackendTLSPolicy for it has to say how it is verified",
                port.id.port, port.id.name, port.app
            );
            let (failure, reason) = (Failure::UnsupportedBackend, Reason::UnsupportedProtocol);
            Err(Refused { failure, reason, why })
        }
    }
}

/// The backend that a reference of a route in `namespace` names, for what isn't HTTP: `appProtocol` doesn't matter.
pub(super) fn resolve_stream(
    lookup: &mut Lookup<'_>,
    from_kind: &str,
    namespace: &str,
    reference: &BackendRef,
    transport: Transport,
) -> Result<Backend, Refused> {
    let port = find(lookup, from_kind, namespace, reference, transport)?;
    let tls = match transport {
        Transport::Tcp => lookup.backend_tls(&port.id.name, port.name.as_deref()),
        Transport::Udp => None,
    };
    // Routes of HTTP may name the same backend, and must find it as they would alone.
    let protocol = protocol(&port.app, tls.is_some()).unwrap_or(BackendProtocol::Http1);
    Ok(Backend { id: port.id, protocol, tls, policy: None })
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
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or("Service");
    if !group.is_empty() || kind != "Service" {
        let why = format!("{group}/{kind} is not a kind of backend; name a Service");
        return refuse(Failure::BackendKind, Reason::InvalidKind, why);
    }
    let name = ObjectName::new(reference.namespace.as_deref().unwrap_or(namespace), reference.name.as_str());
    let to = Reference { from_kind, from_namespace: namespace, to_group: "", to_kind: "Service", to: &name };
    if !lookup.permit(&to) {
        let why = format!(
            "Service {name} is in another namespace, and no ReferenceGrant there lets {from_kind}s of {namespace} use it"
        );
        return refuse(Failure::RefNotPermitted, Reason::RefNotPermitted, why);
    }
    let Some(service) = lookup.service(&name) else {
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
    let id = BackendId { kind: BackendKind::Service, name, port: number, transport };
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
