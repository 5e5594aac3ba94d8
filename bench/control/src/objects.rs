//! The cluster: one Gateway, and routes, Services and endpoints over 100 namespaces.
//!
//! Objects are made from their numbers whenever they are needed, so that the process keeps none but the loop's own.

use anyhow::Result;
use headgate_controller::api::{Gateway, GatewayClass, HttpRoute};
use headgate_controller::cluster::{Object, SERVICE_NAME, Watched};
use headgate_controller::settings::{CONTROLLER_NAME, DEFAULT_CLASS};
use headgate_proxy::model::ObjectName;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, from_value, json};

/// Namespaces that routes and Services are spread over.
pub const NAMESPACES: usize = 100;
/// Services, with a tenth of all endpoints' number each.
pub const SERVICES: usize = 1_000;
/// Endpoints of each Service: 10,000 in all.
const ENDPOINTS: usize = 10;

/// Name of the route with a number.
pub fn route_name(number: usize) -> ObjectName {
    ObjectName::new(namespace_of(number), format!("route-{number}"))
}

/// A route with a hostname of its own, two rules, and the Services of its namespace. An edit changes a header that the
/// first rule sets.
pub fn route(number: usize, generation: u64, version: u64, status: Option<&Value>) -> Result<Object> {
    let backend = |n: usize| json!({"name": format!("service-{}", number % NAMESPACES + NAMESPACES * (n % (SERVICES / NAMESPACES))), "port": 80});
    let mut route = json!({
        "metadata": {
            "namespace": namespace_of(number), "name": format!("route-{number}"), "uid": format!("route-{number}"),
            "generation": generation, "resourceVersion": version.to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/name": format!("app-{number}"), "app.kubernetes.io/managed-by": "Helm"},
        },
        "spec": {
            "parentRefs": [{"name": "gateway", "namespace": "infra"}],
            "hostnames": [format!("app-{number}.example.com")],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/api"}}, {"path": {"type": "Exact", "value": "/login"}}],
                    "filters": [{
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"set": [{"name": "x-version", "value": generation.to_string()}]},
                    }],
                    "backendRefs": [backend(number / NAMESPACES)],
                },
                {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": [backend(number / NAMESPACES + 1)]},
            ],
        },
    });
    if let Some(status) = status {
        route["status"] = status.clone();
    }
    Ok(from_value::<HttpRoute>(route)?.wrap())
}

/// A Service with one port.
pub fn service(namespace: &str, name: &str) -> Result<Object> {
    Ok(from_value::<Service>(json!({
        "metadata": {"namespace": namespace, "name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"clusterIP": "10.96.0.10", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }))?
    .wrap())
}

/// The endpoints of the Service with a number; `edit` moves the first one elsewhere.
pub fn slice(number: usize, edit: usize) -> Result<Object> {
    let endpoint = |n: usize| {
        let third = if n == 0 { 100 + edit % 100 } else { number / 250 };
        json!({
            "addresses": [format!("10.{}.{third}.{}", 1 + n, 1 + number % 250)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "name": format!("app-{number}-{n}"), "namespace": namespace_of(number)},
            "nodeName": format!("node-{n}"),
        })
    };
    Ok(from_value::<EndpointSlice>(json!({
        "metadata": {
            "namespace": namespace_of(number), "name": format!("service-{number}-abcde"),
            "resourceVersion": (edit + 1).to_string(),
            "labels": {SERVICE_NAME: format!("service-{number}")},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
    }))?
    .wrap())
}

/// A Secret that nothing names.
pub fn secret(number: usize) -> Result<Object> {
    Ok(from_value::<Secret>(json!({
        "metadata": {"namespace": namespace_of(number), "name": format!("release-{number}"), "resourceVersion": "1"},
        "type": "helm.sh/release.v1",
    }))?
    .wrap())
}

/// Everything that is there at the start.
pub fn all(routes: usize) -> Result<Vec<Object>> {
    let class = json!({
        "metadata": {"name": DEFAULT_CLASS, "generation": 1, "resourceVersion": "1"},
        "spec": {"controllerName": CONTROLLER_NAME},
    });
    let gateway = json!({
        "metadata": {"namespace": "infra", "name": "gateway", "uid": "gateway", "generation": 1, "resourceVersion": "1"},
        "spec": {"gatewayClassName": DEFAULT_CLASS, "listeners": [{
            "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}},
        }]},
    });
    let mut all = vec![from_value::<GatewayClass>(class)?.wrap(), from_value::<Gateway>(gateway)?.wrap()];
    for number in 0..NAMESPACES {
        let namespace = json!({"metadata": {"name": namespace_of(number), "resourceVersion": "1"}});
        all.push(from_value::<Namespace>(namespace)?.wrap());
    }
    for number in 0..SERVICES {
        all.push(service(&namespace_of(number), &format!("service-{number}"))?);
        all.push(slice(number, 0)?);
    }
    for number in 0..routes {
        all.push(route(number, 1, 1, None)?);
    }
    Ok(all)
}

/// The namespace of what has a number.
pub fn namespace_of(number: usize) -> String {
    format!("team-{}", number % NAMESPACES)
}
