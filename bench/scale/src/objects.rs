//! What is in the cluster: one Gateway, and routes, Services and endpoints over 100 namespaces, made from their numbers.
//!
//! Each answer says which version of which route it came by, and to which Service: the route's first rule sets a header to its
//! version, and an endpoint's address says whose it is ([`crate::backend`]).

use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// Namespaces that routes and Services are spread over.
pub const NAMESPACES: usize = 100;
/// Services.
pub const SERVICES: usize = 1_000;
/// Endpoints of each Service: 10,000 in all.
pub const ENDPOINTS: usize = 10;
/// The addresses of all endpoints, and more.
pub const ADDRESSES: &str = "10.64.0.0/12";
/// What the API server calls its own.
pub const API_SERVER: &str = "10.64.0.1";
/// The port of all endpoints.
pub const PORT: u16 = 8080;
/// The namespace of Headgate.
pub const OWN_NAMESPACE: &str = "headgate-system";
/// Where a route has its version.
pub const VERSION: &str = "/spec/rules/0/filters/0/requestHeaderModifier/set/0/value";
/// The header that carries it.
pub const HEADER: &str = "x-version";
/// The label of routes that are watched.
pub const WATCHED: &str = "bench-watched";
/// HTTPRoutes of all namespaces.
pub const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
/// The Service of the Gateway.
pub const GATEWAY_SERVICE: &str =
    "/api/v1/namespaces/infra/services?labelSelector=gateway.networking.k8s.io/gateway-name=gateway";

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
/// Addresses of a Service's endpoints follow each other; some are left for endpoints that move.
const SLOTS: usize = 16;
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 0);

/// The namespace of what has a number.
pub fn namespace_of(number: usize) -> String {
    format!("team-{}", number % NAMESPACES)
}

/// The hostname of a route.
pub fn host_of(route: usize) -> String {
    format!("app-{route}.example.com")
}

/// The Service that a route's first rule sends to: one of its namespace's.
pub fn service_of(route: usize) -> usize {
    service(route, route / NAMESPACES)
}

fn service(route: usize, n: usize) -> usize {
    route % NAMESPACES + NAMESPACES * (n % (SERVICES / NAMESPACES))
}

/// What the backend says when a route in this version leads there.
pub fn answer(route: usize, version: &str) -> String {
    format!("{version} {}", service_of(route))
}

/// The path of a route in the API.
pub fn route_path(number: usize) -> String {
    format!("/apis/{GATEWAY_API}/namespaces/{}/httproutes/route-{number}", namespace_of(number))
}

/// A route with a hostname of its own and two rules.
pub fn route(number: usize, version: &str) -> Value {
    let backend = |n: usize| json!({"name": format!("service-{}", service(number, n)), "port": 80});
    json!({
        "apiVersion": GATEWAY_API,
        "kind": "HTTPRoute",
        "metadata": {
            "namespace": namespace_of(number), "name": format!("route-{number}"),
            "labels": {"app.kubernetes.io/name": format!("app-{number}"), "app.kubernetes.io/managed-by": "Helm"},
        },
        "spec": {
            "parentRefs": [{"name": "gateway", "namespace": "infra"}],
            "hostnames": [host_of(number)],
            "rules": [
                {
                    "matches": [
                        {"path": {"type": "PathPrefix", "value": "/api"}},
                        {"path": {"type": "Exact", "value": "/login"}},
                    ],
                    "filters": [{
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"set": [{"name": HEADER, "value": version}]},
                    }],
                    "backendRefs": [backend(number / NAMESPACES)],
                },
                {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": [backend(number / NAMESPACES + 1)]},
            ],
        },
    })
}

/// The path of a Service's EndpointSlice in the API.
pub fn slice_path(service: usize) -> String {
    let namespace = namespace_of(service);
    format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/service-{service}-abcde")
}

/// The address of a Service's first endpoint after so many moves.
pub fn moved(service: usize, moves: usize) -> Ipv4Addr {
    address(service, ENDPOINTS + moves % (SLOTS - ENDPOINTS))
}

fn address(service: usize, slot: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST.to_bits() + u32::try_from(service * SLOTS + slot).unwrap_or_default())
}

/// The Service that has an endpoint at an address.
pub fn service_at(address: Ipv4Addr) -> Option<usize> {
    let service = usize::try_from(address.to_bits().checked_sub(FIRST.to_bits())?).ok()? / SLOTS;
    (service < SERVICES).then_some(service)
}

fn slice(service: usize) -> Value {
    let endpoint = |n: usize| {
        json!({
            "addresses": [address(service, n)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "name": format!("app-{service}-{n}"), "namespace": namespace_of(service)},
            "nodeName": format!("node-{n}"),
        })
    };
    let name = format!("service-{service}");
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace_of(service), "name": format!("{name}-abcde"),
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
        "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
    })
}

/// All that is there at the start, and where it is made; each part once the part before is there.
pub fn all(routes: usize) -> [Vec<(String, Value)>; 2] {
    let namespace = |name: String| {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ("/api/v1/namespaces".to_owned(), body)
    };
    let class = json!({
        "apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": {"name": "headgate"},
        "spec": {"controllerName": "headgate.dev/gateway-controller"},
    });
    let gateway = json!({
        "apiVersion": GATEWAY_API, "kind": "Gateway", "metadata": {"namespace": "infra", "name": "gateway"},
        "spec": {"gatewayClassName": "headgate", "listeners": [{
            "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}},
        }]},
    });
    let namespaces = (0..NAMESPACES).map(namespace_of).chain(["infra".to_owned(), OWN_NAMESPACE.to_owned()]);
    let mut rest = vec![
        (format!("/apis/{GATEWAY_API}/gatewayclasses"), class),
        (format!("/apis/{GATEWAY_API}/namespaces/infra/gateways"), gateway),
    ];
    for number in 0..SERVICES {
        let namespace = namespace_of(number);
        let body = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": namespace, "name": format!("service-{number}")},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": PORT}]},
        });
        rest.push((format!("/api/v1/namespaces/{namespace}/services"), body));
        let slices = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        rest.push((slices, slice(number)));
    }
    for number in 0..routes {
        let path = format!("/apis/{GATEWAY_API}/namespaces/{}/httproutes", namespace_of(number));
        rest.push((path, route(number, "1")));
    }
    [namespaces.map(namespace).collect(), rest]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_whose_it_is() {
        for service in [0, 1, 15, 16, 999] {
            assert_eq!(service_at(address(service, 0)), Some(service));
            assert_eq!(service_at(moved(service, 17)), Some(service));
        }
        assert_eq!(service_at(Ipv4Addr::LOCALHOST), None);
    }

    #[test]
    fn the_version_is_where_it_is_edited() {
        assert_eq!(route(1234, "7").pointer(VERSION), Some(&json!("7")));
        assert_eq!(service_of(1234), 234, "of the namespace of route 1234");
    }
}
