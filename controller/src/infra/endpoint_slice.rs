//! EndpointSlices: our pods, as the endpoints of each Gateway's Service.

use super::service::port_name;
use super::{CONTROLLER, controller_label, owner};
use crate::cluster::Cluster;
use crate::naming::{self, GATEWAY_NAME};
use crate::settings::Settings;
use crate::translate;
use headgate_proxy::model::{ObjectName, Transport};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

const ZONE: &str = "topology.kubernetes.io/zone";

/// Plans the EndpointSlices of all Gateways' Services: one for each family of addresses that our pods have.
pub fn endpoint_slices(cluster: &Cluster, settings: &Settings) -> BTreeMap<ObjectName, Value> {
    let mut plan = BTreeMap::new();
    for (name, gateway) in translate::gateways(cluster, settings) {
        let Some(service) = translate::service_of(cluster, name, gateway) else { continue };
        for family in [Family::V4, Family::V6] {
            let endpoints: Vec<Value> =
                cluster.pods.values().filter_map(|pod| endpoint(cluster, pod, family)).collect();
            // IPv4 also when there is nobody, so that the last one who leaves is taken out.
            if !endpoints.is_empty() || family == Family::V4 {
                let (slice, body) = slice(settings, name, service, family, &endpoints);
                plan.insert(slice, body);
            }
        }
    }
    plan
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn has(self, address: &str) -> bool {
        match address.parse() {
            Ok(IpAddr::V4(_)) => self == Self::V4,
            Ok(IpAddr::V6(_)) => self == Self::V6,
            Err(_) => false,
        }
    }
}

fn slice(
    settings: &Settings,
    gateway: &ObjectName,
    service: &Service,
    family: Family,
    endpoints: &[Value],
) -> (ObjectName, Value) {
    let service_name = naming::service(&gateway.name);
    let name = format!("{service_name}-{}", family.name().to_ascii_lowercase());
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let ports: Vec<_> = ports
        .iter()
        .filter_map(|port| match port.target_port.as_ref()? {
            IntOrString::Int(number) => {
                let transport = match port.protocol.as_deref() {
                    Some("UDP") => Transport::Udp,
                    Some(_) | None => Transport::Tcp,
                };
                let name = port_name(u16::try_from(port.port).ok()?, transport);
                Some(json!({"name": name, "port": number, "protocol": transport.name()}))
            }
            IntOrString::String(_) => None,
        })
        .collect();
    let owner_name = ObjectName::new(gateway.namespace.clone(), service_name.as_str());
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    let body = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": &*gateway.namespace,
            "labels": {
                crate::cluster::SERVICE_NAME: service_name,
                "endpointslice.kubernetes.io/managed-by": "headgate.dev",
                GATEWAY_NAME: naming::label_value(&gateway.name),
                CONTROLLER: controller_label(settings),
            },
            "ownerReferences": [owner("v1", "Service", &owner_name, uid)],
        },
        "addressType": family.name(),
        "ports": ports,
        "endpoints": endpoints,
    });
    (ObjectName::new(gateway.namespace.clone(), name), body)
}

fn endpoint(cluster: &Cluster, pod: &Pod, family: Family) -> Option<Value> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return None;
    }
    let ips = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    let address = ips.into_iter().find(|ip| family.has(ip))?;
    let serving = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": serving && !terminating, "serving": serving, "terminating": terminating},
        "targetRef": {
            "kind": "Pod",
            "name": pod.metadata.name,
            "namespace": pod.metadata.namespace,
            "uid": pod.metadata.uid,
        },
    });
    if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
        endpoint["nodeName"] = json!(node);
        let node = cluster.nodes.get(&ObjectName::new("", node));
        if let Some(zone) = node.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE)) {
            endpoint["zone"] = json!(zone);
        }
    }
    Some(endpoint)
}
