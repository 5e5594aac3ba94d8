//! Listeners of a Gateway: each judged by itself, then against the others of its port.

use super::certificate;
use super::client_validation;
use super::gateway::Context;
use super::listener_filters;
use super::listener_set::{Member, Owner};
use crate::api::gateway::{Listener, NamespacesFrom, SupportedKind, TlsMode};
use crate::api::{GROUP, Gateway};
use crate::status::{ConditionType, Draft, Reason};
use headgate_proxy::model::{
    Backend, Content, HostPattern, ListenerFilter, ListenerId, ObjectName, PortId, PortProtocol, Staple, Tls,
    Transport,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::Selector;
use std::sync::Arc;

/// What a listener's protocol says.
struct Protocol {
    port: PortProtocol,
    content: Content,
    /// Kinds of route that it takes.
    kinds: &'static [&'static str],
}

/// The protocols of the specification, all of them.
fn protocol(name: &str) -> Option<Protocol> {
    let (port, content, kinds): (_, _, &[_]) = match name {
        "HTTP" => (PortProtocol::Http, Content::Http, &["HTTPRoute", "GRPCRoute"]),
        "HTTPS" => (PortProtocol::Tls, Content::Http, &["HTTPRoute", "GRPCRoute"]),
        "TLS" => (PortProtocol::Tls, Content::Stream, &["TLSRoute"]),
        "TCP" => (PortProtocol::Tcp, Content::Stream, &["TCPRoute"]),
        "UDP" => (PortProtocol::Udp, Content::Stream, &["UDPRoute"]),
        _ => return None,
    };
    Some(Protocol { port, content, kinds })
}

/// By what clients of a protocol come, if it is served.
pub(crate) fn transport(name: &str) -> Option<Transport> {
    protocol(name).map(|protocol| protocol.port.transport())
}

/// What routes may see of a listener.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    pub(super) id: ListenerId,
    pub(super) port: u16,
    pub(super) hostname: HostPattern,
    /// Kinds of route that may attach; empty when its protocol isn't supported.
    pub(super) kinds: Vec<&'static str>,
    pub(super) namespaces: Namespaces,
}

/// From which namespaces routes may attach.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Namespaces {
    All,
    Same,
    Selector(LabelSelector),
    /// The selector is broken.
    None,
}

/// A listener that was judged.
#[derive(Debug)]
pub(super) struct Evaluated {
    pub(super) view: View,
    /// `None`: not supported.
    pub(super) protocol: Option<PortProtocol>,
    pub(super) content: Content,
    /// Whether TLS ends here.
    terminates: bool,
    pub(super) tls: Option<Tls>,
    pub(super) filters: Vec<ListenerFilter>,
    /// Whom the filters ask.
    pub(super) backends: Vec<Arc<Backend>>,
    pub(super) supported_kinds: Vec<SupportedKind>,
    pub(super) conditions: Vec<Draft>,
    /// Why it isn't served, if it isn't.
    refused: Option<(Reason, String)>,
    conflict: Option<(Reason, String)>,
    resolved: Result<(), (Reason, String)>,
    programmed: bool,
}

/// What became of a listener's port.
pub(super) enum PortState<'a> {
    Open,
    /// The Gateway's Service doesn't name a port on our pods yet.
    Awaited,
    Failed(&'a str),
    /// The Gateway isn't accepted.
    Refused,
}

impl Evaluated {
    /// Whether it can be served.
    pub(super) fn is_valid(&self) -> bool {
        self.refused.is_none() && self.conflict.is_none() && (!self.terminates || self.tls.is_some())
    }

    /// The port that it is on.
    pub(super) fn port_id(&self) -> PortId {
        PortId {
            gateway: self.view.id.gateway.clone(),
            port: self.view.port,
            transport: self.protocol.map_or(Transport::Tcp, PortProtocol::transport),
        }
    }

    pub(super) fn is_programmed(&self) -> bool {
        self.programmed
    }

    /// Writes the conditions, now that it is known what became of the port.
    pub(super) fn conclude(&mut self, port: &PortState<'_>) {
        let failed = match port {
            PortState::Failed(why) => {
                Some((Reason::PortUnavailable, format!("port {}: {why}", self.view.port)))
            }
            PortState::Open | PortState::Awaited | PortState::Refused => None,
        };
        let problem = self.refused.clone().or_else(|| self.conflict.clone()).or(failed);
        let accepted = match &problem {
            Some((reason, why)) => Draft::new(ConditionType::Accepted, false, *reason, why.clone()),
            None => Draft::new(ConditionType::Accepted, true, Reason::Accepted, "the listener is valid"),
        };
        let conflicted = match &self.conflict {
            Some((reason, why)) => Draft::new(ConditionType::Conflicted, true, *reason, why.clone()),
            None => Draft::new(
                ConditionType::Conflicted,
                false,
                Reason::NoConflicts,
                "no other listener is in its way",
            ),
        };
        let resolved = match &self.resolved {
            Ok(()) => {
                let mut why = "all references are resolved".to_owned();
                let certificates = self.tls.iter().flat_map(|tls| &tls.certificates);
                for certificate in certificates {
                    if let Staple::Refused(reason) = &certificate.staple {
                        let secret = &certificate.secret;
                        why += &format!("; tls.ocsp-staple of Secret {secret} is not sent: {reason}");
                    }
                }
                Draft::new(ConditionType::ResolvedRefs, true, Reason::ResolvedRefs, why)
            }
            Err((reason, why)) => Draft::new(ConditionType::ResolvedRefs, false, *reason, why.clone()),
        };
        let no = |reason, why: &str| Draft::new(ConditionType::Programmed, false, reason, why.to_owned());
        let programmed = match port {
            PortState::Refused => no(Reason::Invalid, "the Gateway is not accepted"),
            // The specification has the reason twice.
            _ if self.conflict.is_some() && self.refused.is_none() => {
                let reason = self.conflict.as_ref().map_or(Reason::Invalid, |(reason, _)| *reason);
                no(reason, "another listener is in its way")
            }
            _ if problem.is_some() => no(Reason::Invalid, "the listener is not accepted"),
            _ if !self.is_valid() => no(Reason::Invalid, "no certificate can be served"),
            PortState::Awaited => no(Reason::Pending, "the Gateway's Service doesn't carry the port yet"),
            PortState::Open | PortState::Failed(_) => {
                Draft::new(ConditionType::Programmed, true, Reason::Programmed, "the listener is served")
            }
        };
        self.programmed = programmed.status;
        self.conditions = vec![accepted, conflicted, resolved, programmed];
    }
}

/// Judges all listeners of a Gateway, its own and those of its sets.
pub(super) fn evaluate_all(
    context: &mut Context<'_>,
    name: &ObjectName,
    gateway: &Gateway,
    members: &[Member<'_>],
) -> Vec<Evaluated> {
    let mut listeners = Vec::<Evaluated>::with_capacity(gateway.spec.listeners.len());
    let own = gateway.spec.listeners.iter().map(|listener| (None, listener));
    let added = members
        .iter()
        .flat_map(|member| member.listeners.iter().map(move |listener| (Some(member.name), listener)));
    for (set, listener) in own.chain(added) {
        let mut evaluated = evaluate(context, &Owner { gateway: name, set }, gateway, listener);
        // The earlier one keeps the place (conformance: the loser is Conflicted).
        let holders = listeners.iter().filter(|holder| {
            holder.port_id() == evaluated.port_id() && holder.protocol.is_some() && holder.conflict.is_none()
        });
        evaluated.conflict =
            evaluated.protocol.and_then(|protocol| conflict(protocol, &evaluated.view, holders));
        listeners.push(evaluated);
    }
    listeners
}

fn conflict<'a>(
    protocol: PortProtocol,
    view: &View,
    mut holders: impl Iterator<Item = &'a Evaluated>,
) -> Option<(Reason, String)> {
    holders.find_map(|holder| {
        let (name, port) = (&holder.view.id.name, view.port);
        if holder.protocol != Some(protocol) {
            let why = format!("protocol: listener {name} speaks another protocol on port {port}");
            return Some((Reason::ProtocolConflict, why));
        }
        (holder.view.hostname == view.hostname).then(|| {
            let why = format!(
                "hostname: listener {name} on port {port} has the hostname {} already",
                view.hostname
            );
            (Reason::HostnameConflict, why)
        })
    })
}

fn evaluate(
    context: &mut Context<'_>,
    owner: &Owner<'_>,
    gateway: &Gateway,
    listener: &Listener,
) -> Evaluated {
    let known = protocol(&listener.protocol);
    let (kinds, unknown_kinds) = kinds(known.as_ref().map_or(&[], |known| known.kinds), listener);
    let content = known.as_ref().map_or(Content::Http, |known| known.content);
    let protocol = known.map(|known| known.port);
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_ref());
    let passes = content == Content::Stream && mode == Some(&TlsMode::Passthrough);
    let terminates = protocol == Some(PortProtocol::Tls) && !passes;
    let (namespaces, bad_selector) = namespaces(listener);
    let refused = unsupported_protocol(listener)
        .or_else(|| bad_selector.map(|why| (Reason::Invalid, why)))
        .or_else(|| unsupported_fields(listener));
    let (mut tls, mut resolved) = match terminates {
        true => certificates(context, owner, listener),
        false => (None, Ok(())),
    };
    let filtered = listener_filters::translate(context, owner, listener);
    let mut refused = refused.or(filtered.refused);
    if listener.protocol == "HTTPS" {
        let (validation, found) = client_validation::of_port(context, owner.gateway, gateway, listener.port);
        match validation {
            Ok(validation) => {
                if let Some(tls) = &mut tls {
                    tls.client_validation = validation;
                }
            }
            Err(why) => refused = refused.or(Some((Reason::NoValidCACertificate, why))),
        }
        resolved = resolved.and(found);
    }
    resolved = resolved.and(filtered.resolved);
    if let Some(why) = unknown_kinds {
        resolved = Err((Reason::InvalidRouteKinds, why));
    }
    let supported_kind =
        |kind: &&str| SupportedKind { group: Some(GROUP.to_owned()), kind: (*kind).to_owned() };
    let id = ListenerId {
        gateway: owner.gateway.clone(),
        listener_set: owner.set.cloned(),
        name: listener.name.as_str().into(),
    };
    // Without a name in what clients send there is nothing that a hostname could be compared with.
    let hostname = match protocol {
        Some(PortProtocol::Tcp | PortProtocol::Udp) => HostPattern::Any,
        Some(PortProtocol::Http | PortProtocol::Tls) | None => {
            HostPattern::parse(listener.hostname.as_deref().unwrap_or_default())
        }
    };
    let supported_kinds = kinds.iter().map(supported_kind).collect();
    let port = u16::try_from(listener.port).unwrap_or_default();
    let view = View { id, port, hostname, kinds, namespaces };
    Evaluated {
        view,
        protocol,
        content,
        terminates,
        tls,
        filters: filtered.filters,
        backends: filtered.backends,
        supported_kinds,
        conditions: Vec::new(),
        refused,
        conflict: None,
        resolved,
        programmed: false,
    }
}

fn unsupported_protocol(listener: &Listener) -> Option<(Reason, String)> {
    let name = &listener.protocol;
    let why = || format!("protocol {name} is not supported; use HTTP, HTTPS, TLS, TCP or UDP");
    protocol(name).is_none().then(|| (Reason::UnsupportedProtocol, why()))
}

/// What would make the listener less safe than it says if we passed over it.
fn unsupported_fields(listener: &Listener) -> Option<(Reason, String)> {
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode.as_ref());
    let why = if listener.protocol == "HTTPS" && mode == Some(&TlsMode::Passthrough) {
        "tls.mode: an HTTPS listener terminates TLS; use Terminate"
    } else if listener.filters.is_some() && !matches!(&*listener.protocol, "HTTP" | "HTTPS") {
        "filters: only listeners of HTTP and HTTPS have filters; remove them"
    } else {
        return None;
    };
    Some((Reason::Invalid, why.to_owned()))
}

fn kinds(possible: &[&'static str], listener: &Listener) -> (Vec<&'static str>, Option<String>) {
    if possible.is_empty() {
        return (Vec::new(), None);
    }
    let named =
        listener.allowed_routes.as_ref().and_then(|allowed| allowed.kinds.as_deref()).unwrap_or_default();
    if named.is_empty() {
        return (possible.to_vec(), None);
    }
    let (mut kinds, mut unknown) = (Vec::new(), None);
    for (n, named) in named.iter().enumerate() {
        let group = named.group.as_deref().unwrap_or(GROUP);
        match possible.iter().find(|kind| group == GROUP && **kind == named.kind) {
            Some(kind) => kinds.push(*kind),
            None => {
                let why = format!(
                    "allowedRoutes.kinds[{n}]: {group}/{} can't attach to {}",
                    named.kind, listener.protocol
                );
                unknown.get_or_insert(why);
            }
        }
    }
    (kinds, unknown)
}

fn namespaces(listener: &Listener) -> (Namespaces, Option<String>) {
    let allowed = listener.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let Some(allowed) = allowed else { return (Namespaces::Same, None) };
    match allowed.from.as_ref().unwrap_or(&NamespacesFrom::Same) {
        NamespacesFrom::All => (Namespaces::All, None),
        NamespacesFrom::Same => (Namespaces::Same, None),
        NamespacesFrom::Selector => {
            let Some(selector) = &allowed.selector else {
                return (Namespaces::None, Some("allowedRoutes.namespaces.selector is missing".to_owned()));
            };
            let requirement = |expression: &_| {
                let crate::api::gateway::SelectorExpression { key, operator, values } = expression;
                LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.clone(),
                    values: values.clone(),
                }
            };
            let expressions = selector.match_expressions.as_deref().unwrap_or_default();
            let selector = LabelSelector {
                match_labels: selector.match_labels.clone(),
                match_expressions: Some(expressions.iter().map(requirement).collect()),
            };
            match Selector::try_from(selector.clone()) {
                Ok(_) => (Namespaces::Selector(selector), None),
                Err(error) => (Namespaces::None, Some(format!("allowedRoutes.namespaces.selector: {error}"))),
            }
        }
    }
}

/// The certificates that can be served, and what is wrong with the first that can't.
fn certificates(
    context: &mut Context<'_>,
    owner: &Owner<'_>,
    listener: &Listener,
) -> (Option<Tls>, Result<(), (Reason, String)>) {
    let references =
        listener.tls.as_ref().and_then(|tls| tls.certificate_refs.as_deref()).unwrap_or_default();
    let (mut certificates, mut resolved) = (Vec::with_capacity(references.len()), Ok(()));
    if references.is_empty() {
        let why = "tls.certificateRefs is empty; name a Secret of type kubernetes.io/tls".to_owned();
        resolved = Err((Reason::InvalidCertificateRef, why));
    }
    for (n, reference) in references.iter().enumerate() {
        match certificate::resolve(context, owner.origin(), reference) {
            Ok(certificate) => certificates.push(certificate),
            Err(refused) => {
                certificates.extend(refused.before);
                if resolved.is_ok() {
                    resolved = Err((refused.reason, format!("tls.certificateRefs[{n}]: {}", refused.why)));
                }
            }
        }
    }
    ((!certificates.is_empty()).then_some(Tls { certificates, client_validation: None }), resolved)
}
