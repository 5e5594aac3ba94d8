//! Gateways: their listeners, ports and addresses.
//!
//! [`evaluate`] judges one Gateway without looking at routes; [`Evaluated::view`] is what routes may see of it, and
//! [`Evaluated::draft`] its status, once it is known how many routes each listener has.

use super::attach::ParentName;
use super::backend_tls::Policies;
use super::bundle::Bundles;
use super::certificate::{self, Certificates};
use super::class;
use super::client_validation;
use super::destination::Destinations;
use super::grants::Grants;
use super::listener::{self, Evaluated as Listener};
use super::listener_set::{self, Judged, listener_drafts};
use crate::api::Gateway;
use crate::api::gateway::{Address, CertificateRef, StatusAddress};
use crate::cluster::Cluster;
use crate::naming;
use crate::settings::{Mode, Settings};
use crate::status::{ConditionType, Draft, GatewayDraft, Reason};
use headgate_proxy::model::{self, Backend, Certificate, ListenerId, ObjectName, Port, PortId, Transport};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The type of address that is supported, and the default one.
const IP_ADDRESS: &str = "IPAddress";
/// The routability of an address that only the cluster reaches: a ClusterIP.
const CLUSTER: &str = "Cluster";

/// What judging a Gateway needs.
pub(super) struct Context<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) settings: &'a Settings,
    pub(super) grants: &'a Arc<Grants>,
    /// How backends are verified.
    pub(super) policies: &'a Policies,
    pub(super) destinations: &'a Destinations,
    pub(super) certificates: &'a mut Certificates,
    pub(super) bundles: &'a mut Bundles,
    /// Ports that could not be bound, and why.
    pub(super) failed_ports: &'a BTreeMap<PortId, String>,
}

/// What routes may see of a Gateway: what decides whether they attach.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    /// Its listeners, in order.
    pub(super) listeners: Vec<listener::View>,
}

/// A Gateway that was judged.
#[derive(Debug)]
pub(super) struct Evaluated {
    generation: i64,
    conditions: Vec<Draft>,
    addresses: Vec<StatusAddress>,
    listeners: Vec<Listener>,
    /// Sets that name the Gateway.
    pub(super) sets: Vec<Judged>,
    /// What the proxy is to open.
    pub(super) ports: Vec<Port>,
    /// Backends that filters of listeners ask.
    pub(super) backends: Vec<Arc<Backend>>,
}

impl Evaluated {
    /// What routes may see of the Gateway, and of each of its sets.
    pub(super) fn views(&self, name: &ObjectName) -> impl Iterator<Item = (ParentName, View)> {
        let view = |listeners: &[Listener]| View {
            listeners: listeners.iter().map(|listener| listener.view.clone()).collect(),
        };
        let own = (ParentName::Gateway(name.clone()), view(&self.listeners));
        let sets = self.sets.iter();
        let sets = sets.map(move |set| (ParentName::ListenerSet(set.name.clone()), view(&set.listeners)));
        std::iter::once(own).chain(sets)
    }

    /// The status, given how many routes are attached to each listener. The sets have their own.
    pub(super) fn draft(&self, attached: &BTreeMap<ListenerId, i32>) -> GatewayDraft {
        let sets = self.sets.iter().filter(|set| set.is_attached()).count();
        GatewayDraft {
            generation: self.generation,
            conditions: self.conditions.clone(),
            addresses: self.addresses.clone(),
            listeners: listener_drafts(&self.listeners, attached),
            attached_sets: i32::try_from(sets).unwrap_or(i32::MAX),
        }
    }
}

/// The Service of a Gateway, when it is there and the Gateway's own.
pub(crate) fn service_of<'a>(
    cluster: &'a Cluster,
    name: &ObjectName,
    gateway: &Gateway,
) -> Option<&'a Arc<Service>> {
    let service =
        cluster.services.get(&ObjectName::new(name.namespace.clone(), naming::service(&name.name)))?;
    let mut owners = service.metadata.owner_references.iter().flatten();
    owners.any(|owner| Some(&owner.uid) == gateway.metadata.uid.as_ref()).then_some(service)
}

/// The port on Headgate's pods that a Gateway's Service notes down for one of its ports.
pub(crate) fn pod_port(service: &Service, port: u16, transport: Transport) -> Option<u16> {
    let mut ports = service.spec.as_ref()?.ports.iter().flatten();
    let found = ports.find(|candidate| {
        candidate.port == i32::from(port)
            && candidate.protocol.as_deref().unwrap_or("TCP") == transport.name()
    });
    match found?.target_port.as_ref()? {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(_) => None,
    }
}

/// Judges a Gateway.
pub(super) fn evaluate(context: &mut Context<'_>, name: &ObjectName, gateway: &Gateway) -> Evaluated {
    let members = listener_set::members(context.cluster, name, gateway);
    let mut listeners = listener::evaluate_all(context, name, gateway, &members);
    let refused = refuse(context.cluster, name, gateway);
    let service = match context.settings.mode {
        Mode::Cluster { .. } => service_of(context.cluster, name, gateway),
        Mode::Files => None,
    };
    let (client_certificate, resolved) = client_certificate(context, name, gateway);
    let backends = listeners.iter().filter(|listener| listener.is_valid());
    let backends = backends.flat_map(|listener| &listener.backends).cloned().collect();
    let mut ports = Vec::new();
    let ids: BTreeSet<PortId> = listeners.iter().map(|listener| listener.port_id()).collect();
    for id in ids.into_iter().filter(|_| refused.is_none()) {
        let bind = bind(context.settings.mode, gateway, service, id.port, id.transport);
        let port = bind.and_then(|bind| port(id.clone(), bind, &listeners));
        ports.extend(port.map(|port| Port { client_certificate: client_certificate.clone(), ..port }));
        let state = match (context.failed_ports.get(&id), bind) {
            (Some(why), _) => listener::PortState::Failed(why),
            (None, Some(_)) => listener::PortState::Open,
            (None, None) => listener::PortState::Awaited,
        };
        for listener in listeners.iter_mut().filter(|listener| listener.port_id() == id) {
            listener.conclude(&state);
        }
    }
    if refused.is_some() {
        for listener in &mut listeners {
            listener.conclude(&listener::PortState::Refused);
        }
    }
    let mut sets = Vec::with_capacity(members.len());
    for member in members {
        let own;
        (own, listeners) = listeners
            .into_iter()
            .partition(|listener| listener.view.id.listener_set.as_ref() == Some(member.name));
        sets.push(listener_set::judge(&member, own, refused.is_some()));
    }
    let valid = listeners.iter().filter(|listener| listener.is_valid()).count();
    let accepted = match refused {
        Some((reason, why)) => Draft::new(ConditionType::Accepted, false, reason, why),
        None if valid == listeners.len() => {
            Draft::new(ConditionType::Accepted, true, Reason::Accepted, "Headgate serves this Gateway")
        }
        None => {
            let names: Vec<_> =
                listeners.iter().filter(|l| !l.is_valid()).map(|l| &*l.view.id.name).collect();
            let why = format!("not valid: {}; see the conditions of these listeners", names.join(", "));
            Draft::new(ConditionType::Accepted, valid > 0, Reason::ListenersNotValid, why)
        }
    };
    let (addresses, unassigned) = addresses(context.settings.mode, gateway, service);
    let programmed = programmed(&accepted, &listeners, unassigned);
    let mut conditions = vec![accepted, programmed];
    conditions.extend(resolved);
    conditions.extend(client_validation::insecure(gateway));
    let generation = gateway.metadata.generation.unwrap_or_default();
    Evaluated { generation, conditions, addresses, listeners, sets, ports, backends }
}

fn programmed(accepted: &Draft, listeners: &[Listener], unassigned: Option<(Reason, String)>) -> Draft {
    let no = |reason, why: String| Draft::new(ConditionType::Programmed, false, reason, why);
    if !accepted.status {
        return no(Reason::Invalid, "the Gateway is not accepted".to_owned());
    }
    if let Some((reason, why)) = unassigned {
        return no(reason, why);
    }
    match listeners.iter().any(Listener::is_programmed) {
        true => {
            Draft::new(ConditionType::Programmed, true, Reason::Programmed, "at least one listener is served")
        }
        false => no(Reason::Pending, "no listener is served yet; see their conditions".to_owned()),
    }
}

/// Reasons to serve nothing of a Gateway.
fn refuse(cluster: &Cluster, name: &ObjectName, gateway: &Gateway) -> Option<(Reason, String)> {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    if let Some(reference) = infrastructure.and_then(|infrastructure| infrastructure.parameters_ref.as_ref())
        && let Err(why) =
            class::named(cluster, &reference.group, &reference.kind, &name.namespace, &reference.name)
    {
        return Some((Reason::InvalidParameters, format!("spec.infrastructure.parametersRef: {why}")));
    }
    let mut addresses = gateway.spec.addresses.iter().flatten().enumerate();
    addresses.find_map(|(n, address)| {
        let kind = address.r#type.as_deref().unwrap_or(IP_ADDRESS);
        let unsupported =
            |why: String| Some((Reason::UnsupportedAddress, format!("spec.addresses[{n}]: {why}")));
        match address.value.as_deref().map(str::parse::<IpAddr>) {
            _ if kind != IP_ADDRESS => unsupported(format!("type {kind} is not supported; use {IP_ADDRESS}")),
            Some(Err(_)) => unsupported("value is not an IP address".to_owned()),
            Some(Ok(_)) | None => match address.routability.as_deref() {
                None | Some("" | CLUSTER) => None,
                Some(other) => unsupported(format!(
                    "routability {other} is not supported; use {CLUSTER} or leave it out"
                )),
            },
        }
    })
}

/// The certificate that backends are shown (GEP-3155), and what is said of it, when one is named. One that can't be had
/// isn't shown: whether that will do is for each backend to say.
fn client_certificate(
    context: &mut Context<'_>,
    name: &ObjectName,
    gateway: &Gateway,
) -> (Option<Arc<Certificate>>, Option<Draft>) {
    let backend = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
    let Some(from) = backend.and_then(|backend| backend.client_certificate_ref.as_ref()) else {
        return (None, None);
    };
    let reference = CertificateRef {
        group: from.group.clone(),
        kind: from.kind.clone(),
        name: from.name.clone(),
        namespace: from.namespace.clone(),
    };
    let resolved = |status, reason, why: String| Draft::new(ConditionType::ResolvedRefs, status, reason, why);
    match certificate::resolve(context, ("Gateway", &name.namespace), &reference) {
        Ok(certificate) => {
            let why = "all references are resolved".to_owned();
            (Some(certificate), Some(resolved(true, Reason::ResolvedRefs, why)))
        }
        Err(refused) => {
            let permitted = refused.reason != Reason::RefNotPermitted;
            let reason = if permitted { Reason::InvalidClientCertificateRef } else { refused.reason };
            let why = format!("spec.tls.backend.clientCertificateRef: {}", refused.why);
            (refused.before, Some(resolved(false, reason, why)))
        }
    }
}

/// From where a Gateway wants to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// As the installation has it.
    Usual,
    /// From within the cluster.
    Cluster,
}

/// Whether a Gateway has addresses to be reached so; without any it is the usual.
pub(crate) fn wants(gateway: &Gateway, reach: Reach) -> bool {
    let addresses = gateway.spec.addresses.as_deref().unwrap_or_default();
    addresses.is_empty() && reach == Reach::Usual
        || addresses.iter().any(|address| reach_of(address) == reach)
}

fn reach_of(address: &Address) -> Reach {
    if address.routability.as_deref() == Some(CLUSTER) { Reach::Cluster } else { Reach::Usual }
}

/// The addresses that a Gateway asks for by their value.
pub(crate) fn asked(gateway: &Gateway, reach: Reach) -> impl Iterator<Item = &str> {
    let addresses = gateway.spec.addresses.iter().flatten();
    let addresses = addresses.filter(move |address| reach_of(address) == reach);
    addresses.filter_map(|address| address.value.as_deref()).filter(|value| !value.is_empty())
}

fn bind(
    mode: Mode,
    gateway: &Gateway,
    service: Option<&Arc<Service>>,
    port: u16,
    transport: Transport,
) -> Option<SocketAddr> {
    match mode {
        Mode::Cluster { bind } => Some(SocketAddr::new(bind, pod_port(service?, port, transport)?)),
        Mode::Files => {
            let address = asked(gateway, Reach::Usual).find_map(|value| value.parse().ok());
            Some(SocketAddr::new(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port))
        }
    }
}

/// The port with those of its listeners that can be served.
fn port(id: PortId, bind: SocketAddr, listeners: &[Listener]) -> Option<Port> {
    let valid: Vec<&Listener> =
        listeners.iter().filter(|listener| listener.port_id() == id && listener.is_valid()).collect();
    let protocol = valid.first()?.protocol?;
    let listeners = valid
        .into_iter()
        .map(|listener| model::Listener {
            id: listener.view.id.clone(),
            hostname: listener.view.hostname.clone(),
            content: listener.content,
            tls: listener.tls.clone(),
            filters: listener.filters.clone(),
        })
        .collect();
    Some(Port { id, bind, protocol, listeners, client_certificate: None, clients: None })
}

/// Where clients reach a Gateway, and why they don't.
fn addresses(
    mode: Mode,
    gateway: &Gateway,
    service: Option<&Arc<Service>>,
) -> (Vec<StatusAddress>, Option<(Reason, String)>) {
    let of_type = |kind: &str, value: &str| StatusAddress {
        r#type: Some(kind.to_owned()),
        value: value.to_owned(),
        ..StatusAddress::default()
    };
    if mode == Mode::Files {
        let bound = bind(mode, gateway, None, 0, Transport::Tcp)
            .map(|bound| of_type(IP_ADDRESS, &bound.ip().to_string()));
        return (bound.into_iter().collect(), None);
    }
    let (mut shown, mut missing, mut unassigned) = (Vec::new(), Vec::new(), false);
    for reach in [Reach::Usual, Reach::Cluster].into_iter().filter(|reach| wants(gateway, *reach)) {
        let given = service.map(|service| given(service, reach)).unwrap_or_default();
        unassigned |= given.is_empty();
        // Asked for: one status address per entry; the load balancer may give others besides.
        let wanted: Vec<_> = asked(gateway, reach).collect();
        missing
            .extend(wanted.iter().filter(|asked| !given.iter().any(|(_, value)| value == *asked)).copied());
        let routability = (reach == Reach::Cluster).then(|| CLUSTER.to_owned());
        let given = given.iter().filter(|(_, value)| wanted.is_empty() || wanted.contains(&value.as_str()));
        shown.extend(
            given.map(|(kind, value)| StatusAddress {
                routability: routability.clone(),
                ..of_type(kind, value)
            }),
        );
    }
    let problem = if !missing.is_empty() {
        let why = format!(
            "spec.addresses: {} not given by the load balancer of the Gateway's Service",
            missing.join(", ")
        );
        Some((Reason::AddressNotUsable, why))
    } else if unassigned {
        Some((Reason::AddressNotAssigned, "the Gateway's Service has no address yet".to_owned()))
    } else {
        None
    };
    (shown, problem)
}

fn given(service: &Service, reach: Reach) -> Vec<(&'static str, String)> {
    let spec = service.spec.as_ref();
    if reach == Reach::Cluster || spec.and_then(|spec| spec.type_.as_deref()) != Some("LoadBalancer") {
        let ips = spec.and_then(|spec| spec.cluster_ips.as_deref()).unwrap_or_default();
        return ips.iter().filter(|ip| *ip != "None").map(|ip| (IP_ADDRESS, ip.clone())).collect();
    }
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let address = |ingress: &k8s_openapi::api::core::v1::LoadBalancerIngress| {
        let ip = ingress.ip.clone().map(|ip| (IP_ADDRESS, ip));
        ip.or_else(|| ingress.hostname.clone().map(|hostname| ("Hostname", hostname)))
    };
    ingress.iter().filter_map(address).collect()
}
