//! The Service of each Gateway: its address, and the record of its ports on our pods; and the Service of each XBackend that
//! selects its endpoints.

use super::{CONTROLLER, Infrastructure, Ports, controller_label, owner};
use crate::api::{GROUP, Gateway, X_GROUP};
use crate::cluster::Cluster;
use crate::naming::{self, BACKEND_NAME, GATEWAY_NAME};
use crate::settings::Settings;
use crate::translate::{self, Reach};
use headgate_crds::{ServiceParameters, ServiceType};
use headgate_proxy::model::{ObjectName, PortId, Transport};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Services that should be, and those that shouldn't.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Services {
    /// To be applied, where they aren't like this.
    pub wanted: BTreeMap<ObjectName, Value>,
    /// Ours, and of no Gateway of ours any more.
    pub unwanted: Vec<ObjectName>,
    /// Ports for which the range has no room.
    pub without_port: Vec<PortId>,
}

/// Plans Services: of Gateways, and of the XBackends in use that select their endpoints.
pub fn services(
    cluster: &Cluster,
    settings: &Settings,
    infrastructure: &Infrastructure,
    selectors: &BTreeSet<ObjectName>,
    ports: &mut Ports,
) -> Services {
    let gateways = translate::gateways(cluster, settings);
    let mut wanted_ports = Vec::new();
    let mut recorded = BTreeMap::new();
    // The oldest first: in a contest for a port they keep theirs.
    let mut by_age: Vec<_> = gateways.iter().collect();
    by_age.sort_by_key(|(name, gateway)| {
        (gateway.metadata.creation_timestamp.as_ref().map(|time| time.0), **name)
    });
    for (name, gateway) in by_age {
        let service = translate::service_of(cluster, name, gateway);
        for id in served_ports(cluster, name, gateway) {
            let recorded_port =
                service.and_then(|service| translate::pod_port(service, id.port, id.transport));
            if let Some(pod_port) = recorded_port {
                recorded.insert(id.clone(), pod_port);
            }
            wanted_ports.push(id);
        }
    }
    let assigned = ports.assign(&wanted_ports, &recorded);
    let mut plan = Services::default();
    for (name, gateway) in &gateways {
        let mut ports = Vec::new();
        for id in served_ports(cluster, name, gateway) {
            match assigned.get(&id).copied().flatten() {
                Some(pod_port) => ports.push((id, pod_port)),
                None => plan.without_port.push(id),
            }
        }
        // A Service needs a port.
        if ports.is_empty() {
            continue;
        }
        let parameters = parameters(cluster, infrastructure, name, gateway);
        let service = ObjectName::new(name.namespace.clone(), naming::service(&name.name));
        let body = service_body(settings, &parameters, name, gateway, &service, &ports);
        plan.wanted.insert(service, body);
    }
    for name in selectors {
        plan.wanted.extend(selector(cluster, settings, name));
    }
    let label = controller_label(settings);
    let ours = cluster.services.iter().filter(|(_, service)| {
        service.metadata.deletion_timestamp.is_none()
            && service.metadata.labels.as_ref().and_then(|labels| labels.get(CONTROLLER)) == Some(&label)
    });
    plan.unwanted =
        ours.map(|(name, _)| name.clone()).filter(|name| !plan.wanted.contains_key(name)).collect();
    plan
}

/// The Service that finds the endpoints which an XBackend selects: headless, for nobody is to connect to it (GEP-4894).
fn selector(cluster: &Cluster, settings: &Settings, name: &ObjectName) -> Option<(ObjectName, Value)> {
    let backend = cluster.x_backends.get(name)?;
    let (uid, port) = (backend.metadata.uid.as_deref()?, backend.spec.port.number?);
    let labels = &backend.spec.endpoint_selector.as_ref()?.match_labels;
    let service = naming::selector(&name.namespace, uid);
    let api_version = format!("{X_GROUP}/v1alpha1");
    let body = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": &*service.name,
            "namespace": &*service.namespace,
            "labels": {CONTROLLER: controller_label(settings), BACKEND_NAME: naming::label_value(&name.name)},
            "ownerReferences": [owner(&api_version, "XBackend", name, uid)],
        },
        "spec": {
            "clusterIP": "None",
            "selector": labels,
            "ports": [{"name": naming::SELECTOR_PORT, "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    });
    Some((service, body))
}

/// Ports of listeners whose protocol we serve, the Gateway's own and those of its sets.
fn served_ports(cluster: &Cluster, name: &ObjectName, gateway: &Gateway) -> BTreeSet<PortId> {
    let own = gateway.spec.listeners.iter().map(|listener| (listener.protocol.as_str(), listener.port));
    let port = |(protocol, port): (&str, i32)| {
        let transport = translate::transport(protocol)?;
        Some(PortId { gateway: name.clone(), port: u16::try_from(port).ok()?, transport })
    };
    own.chain(translate::added_ports(cluster, name, gateway)).filter_map(port).collect()
}

/// The Gateway's own parameters, else its class's, else the installation's: field by field.
fn parameters(
    cluster: &Cluster,
    infrastructure: &Infrastructure,
    name: &ObjectName,
    gateway: &Gateway,
) -> ServiceParameters {
    let class = cluster.gateway_classes.get(&ObjectName::new("", gateway.spec.gateway_class_name.as_str()));
    let of_class = class.and_then(|class| translate::class_parameters(cluster, class).ok().flatten());
    let reference = gateway.spec.infrastructure.as_ref().and_then(|own| own.parameters_ref.as_ref());
    let own = reference.and_then(|reference| {
        translate::named_parameters(
            cluster,
            &reference.group,
            &reference.kind,
            &name.namespace,
            &reference.name,
        )
        .ok()
    });
    let mut merged = infrastructure.service.clone();
    for more in [of_class, own].into_iter().flatten().filter_map(|parameters| parameters.service.as_ref()) {
        merged.kind = more.kind.or(merged.kind);
        merged.load_balancer_class = more.load_balancer_class.clone().or(merged.load_balancer_class);
        merged.external_traffic_policy = more.external_traffic_policy.or(merged.external_traffic_policy);
        merged.annotations.extend(more.annotations.clone());
    }
    merged
}

fn service_body(
    settings: &Settings,
    parameters: &ServiceParameters,
    name: &ObjectName,
    gateway: &Arc<Gateway>,
    service: &ObjectName,
    ports: &[(PortId, u16)],
) -> Value {
    let own = gateway.spec.infrastructure.as_ref();
    let mut labels = own.and_then(|own| own.labels.clone()).unwrap_or_default();
    labels.insert(GATEWAY_NAME.to_owned(), naming::label_value(&name.name));
    labels.insert(CONTROLLER.to_owned(), controller_label(settings));
    let mut annotations = parameters.annotations.clone();
    annotations.extend(own.and_then(|own| own.annotations.clone()).unwrap_or_default());
    let kind = match translate::wants(gateway, Reach::Usual) {
        true => parameters.kind.unwrap_or(ServiceType::LoadBalancer),
        false => ServiceType::ClusterIp,
    };
    let mut spec = Map::from_iter([
        ("type".to_owned(), json!(kind)),
        ("ipFamilyPolicy".to_owned(), json!("PreferDualStack")),
        (
            "ports".to_owned(),
            ports
                .iter()
                .map(|(id, pod_port)| {
                    let (name, protocol) = (port_name(id.port, id.transport), id.transport.name());
                    json!({"name": name, "port": id.port, "protocol": protocol, "targetPort": pod_port})
                })
                .collect(),
        ),
    ]);
    if kind != ServiceType::ClusterIp
        && let Some(policy) = parameters.external_traffic_policy
    {
        spec.insert("externalTrafficPolicy".to_owned(), json!(policy));
    }
    if kind == ServiceType::LoadBalancer {
        if let Some(class) = &parameters.load_balancer_class {
            spec.insert("loadBalancerClass".to_owned(), json!(class));
        }
        if let Some(address) = translate::asked(gateway, Reach::Usual).next() {
            spec.insert("loadBalancerIP".to_owned(), json!(address));
        }
    }
    if let Some(address) = translate::asked(gateway, Reach::Cluster).next() {
        spec.insert("clusterIP".to_owned(), json!(address));
    }
    let uid = gateway.metadata.uid.as_deref().unwrap_or_default();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": &*service.name,
            "namespace": &*service.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner(&format!("{GROUP}/v1"), "Gateway", name, uid)],
        },
        "spec": spec,
    })
}

/// The name of a port in the Service and its EndpointSlices: what joins the two.
pub(super) fn port_name(port: u16, transport: Transport) -> String {
    match transport {
        Transport::Tcp => format!("port-{port}"),
        Transport::Udp => format!("port-{port}-udp"),
    }
}
