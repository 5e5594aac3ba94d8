//! Statuses as objects: what a cluster would get, for people and tests.

use super::{Statuses, merge};
use crate::cluster::{Cluster, Kind};
use headgate_proxy::model::ObjectName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The status of every object that gets one from us, with `apiVersion`, `kind` and `metadata`. Conditions that are new
/// have the time `now`.
pub fn render(cluster: &Cluster, statuses: &Statuses, controller_name: &str, now: &Time) -> Vec<Value> {
    let mut rendered = Vec::new();
    for (name, draft) in &statuses.gateway_classes {
        let present = cluster.gateway_classes.get(name).and_then(|class| class.status.as_ref());
        let status = merge::gateway_class(present, draft, now);
        rendered.extend(object(Kind::GatewayClass, name, status.as_ref().or(present)));
    }
    for (name, draft) in &statuses.gateways {
        let present = cluster.gateways.get(name).and_then(|gateway| gateway.status.as_ref());
        let status = merge::gateway(present, draft, now);
        rendered.extend(object(Kind::Gateway, name, status.as_ref().or(present)));
    }
    for (name, draft) in &statuses.listener_sets {
        let present = cluster.listener_sets.get(name).and_then(|set| set.status.as_ref());
        let status = merge::listener_set(present, draft, now);
        rendered.extend(object(Kind::ListenerSet, name, status.as_ref().or(present)));
    }
    for ((kind, name), draft) in &statuses.routes {
        let present = cluster.route_status(*kind, name);
        let status = merge::route(present.as_ref(), draft, controller_name, now);
        rendered.extend(object(*kind, name, status.as_ref().or(present.as_ref())));
    }
    for ((kind, name), draft) in &statuses.policies {
        let present = cluster.policy_status(*kind, name);
        let status = merge::policy(present.as_ref(), draft, controller_name, now);
        rendered.extend(object(*kind, name, status.as_ref().or(present.as_ref())));
    }
    for (name, draft) in &statuses.services {
        let Some(service) = cluster.services.get(name) else { continue };
        let status = merge::service(service, Some(draft), now);
        rendered.extend(object(Kind::Service, name, status.as_ref().or(service.status.as_ref())));
    }
    rendered
}

fn object(kind: Kind, name: &ObjectName, status: Option<&impl Serialize>) -> Option<Value> {
    let mut metadata = Map::from_iter([("name".to_owned(), json!(&*name.name))]);
    if !name.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), json!(&*name.namespace));
    }
    let api_version = kind.api_version();
    Some(json!({"apiVersion": api_version, "kind": kind.name(), "metadata": metadata, "status": status?}))
}
