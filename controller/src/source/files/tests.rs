use super::document::objects;
use super::*;
use crate::api::HttpRoute;
use crate::settings::CONTROLLER_NAME;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// What is wrong with a text, one mistake a line.
fn mistakes(text: &str) -> String {
    let (_, errors) = objects(Path::new("f.yaml"), text);
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The only object of a text.
fn only(text: &str) -> Value {
    let (found, errors) = objects(Path::new("f.yaml"), text);
    assert_eq!(errors, []);
    assert_eq!(found.len(), 1);
    found[0].value.clone()
}

fn titles(text: &str) -> Vec<String> {
    let (found, errors) = objects(Path::new("f.yaml"), text);
    assert_eq!(errors, []);
    found.iter().map(|found| document::title(found.entry, &found.name)).collect()
}

fn route(spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n{spec}\n"
    )
}

fn gateway(spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: g}}\nspec:\n  gatewayClassName: c\n{spec}\n"
    )
}

fn routes(objects: &[Object]) -> Vec<HttpRoute> {
    let route =
        |object: &Object| if let Object::HttpRoute(route) = object { Some(route.unpack()) } else { None };
    objects.iter().filter_map(route).collect()
}

#[test]
fn examples_have_no_mistakes() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for folder in
        ["quickstart", "headers", "cross-namespace", "redirects", "timeouts", "tls", "traffic-split"]
    {
        let loaded = load(&[examples.join(folder)], CONTROLLER_NAME);
        assert_eq!(loaded.errors, [], "{folder}");
        assert!(!loaded.objects.is_empty(), "{folder}");
    }
}

#[test]
fn the_documentation_has_every_kind() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/files.md");
    let page = std::fs::read_to_string(page).unwrap();
    let kinds = page.split("**Kinds**: ").nth(1).and_then(|rest| rest.split_once('.')).unwrap().0;
    for entry in crate::source::catalog::entries() {
        let name = entry.kind.name();
        assert!(kinds.split([',', ' ', '\n']).any(|kind| kind == name), "docs/files.md lacks {name}");
    }
}

#[test]
fn mistakes_of_documents_are_told_with_their_place() {
    for (text, told) in [
        ("a: [1\nb: 2", "f.yaml:2:2: not YAML: illegal placement of ':' indicator"),
        ("a: 1\n b: 2", "f.yaml:2:3: not YAML: mapping values are not allowed in this context"),
        ("a: {b: c", "f.yaml:1:4: not YAML: unclosed bracket '{'"),
        ("kind: Service\nkind: Service", "f.yaml:2:1: key \"kind\" already set in map"),
        ("- 1", "f.yaml:1:1: not an object: a map with apiVersion, kind and metadata was expected"),
        ("metadata: {name: x}", "f.yaml:1:1: kind: Required value"),
        ("kind: Service\nmetadata: {name: x}", "f.yaml:1:1: apiVersion: Required value"),
        ("a: &a [*a]", "f.yaml:1:8: the alias has no anchor before it"),
        ("a: *b", "f.yaml:1:4: not YAML: while parsing node, found unknown anchor"),
        ("? [a]\n: b", "f.yaml:1:3: a key has to be a string"),
        ("a: !mine b", "f.yaml:1:10: a tag that isn't one of YAML's own"),
        ("<<: 1", "f.yaml:1:1: only maps can be merged"),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}",
            "f.yaml:2:1: kind Deployment.apps is not read from files; these are: GatewayClass.gateway.networking.k8s.io, \
             Gateway.gateway.networking.k8s.io, ListenerSet.gateway.networking.k8s.io, \
             HTTPRoute.gateway.networking.k8s.io, GRPCRoute.gateway.networking.k8s.io, TLSRoute.gateway.networking.k8s.io, \
             TCPRoute.gateway.networking.k8s.io, UDPRoute.gateway.networking.k8s.io, \
             BackendTLSPolicy.gateway.networking.k8s.io, XBackend.gateway.networking.x-k8s.io, XBackendTrafficPolicy.gateway.networking.x-k8s.io, \
             ReferenceGrant.gateway.networking.k8s.io, GatewayParameters.headgate.dev, RateLimitPolicy.headgate.dev, CircuitBreakerPolicy.headgate.dev, AuthPolicy.headgate.dev, ClientPolicy.headgate.dev, Namespace, Service, \
             EndpointSlice.discovery.k8s.io, Secret, ConfigMap, \
             ClusterTrustBundle.certificates.k8s.io",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: HTTPRoute\nmetadata: {name: x}",
            "f.yaml:1:1: apiVersion: version v1alpha2 of HTTPRoute is not served; use v1 or v1beta1",
        ),
    ] {
        assert_eq!(mistakes(text), told, "{text}");
    }
    let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(mistakes(&deep), "f.yaml:1:104: nested deeper than 100 levels");
    let mut laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f")] {
        laughs += &format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 10].join(","));
    }
    assert!(
        mistakes(&laughs).ends_with("aliases stand for more than 100000 values"),
        "{}",
        mistakes(&laughs)
    );
}

#[test]
fn mistakes_of_built_in_kinds_name_the_field() {
    for (text, told) in [
        ("v1|Service|{}|", "f.yaml:3:1: Service: metadata.name: Required value"),
        (
            "v1|Service|{name: Shop}|",
            "f.yaml:3:12: Service default/Shop: metadata.name: Invalid value: \"Shop\": must be a lowercase RFC 1123 label: \
             letters, digits and '-', at most 63 characters",
        ),
        (
            "v1|Service|{name: s, namespace: -x}|",
            "f.yaml:3:21: Service -x/s: metadata.namespace: Invalid value: \"-x\": must be a lowercase RFC 1123 label",
        ),
        (
            "v1|Service|{name: s, lables: {}}|",
            "f.yaml:3:21: Service default/s: unknown field \"metadata.lables\"",
        ),
        (
            "v1|Service|{name: s, labels: {a: on}}|",
            "f.yaml:3:30: Service default/s: metadata.labels.a: Invalid value: must be of type string, not boolean; put it in quotes",
        ),
        (
            "v1|Service|{name: s}|spec:\n  ports:\n  - port: 70000\n    targetPort: true",
            "f.yaml:6:5: Service default/s: spec.ports[0].port: Invalid value: 70000: should be less than or equal to 65535\n\
             f.yaml:7:5: Service default/s: spec.ports[0].targetPort: Invalid value: must be of type integer or string, not boolean",
        ),
        (
            "v1|Service|{name: s}|spec:\n  ports:\n  - port: 80\n    protocol: tcp",
            "f.yaml:7:5: Service default/s: spec.ports[0].protocol: Unsupported value: \"tcp\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
        ),
        (
            "v1|Namespace|{name: ns, namespace: x}|",
            "f.yaml:3:22: Namespace ns: metadata.namespace: Forbidden: a Namespace is in no namespace",
        ),
        (
            "v1|Secret|{name: s}|data: {tls.key: \"the key\"}",
            "f.yaml:4:8: Secret default/s: data.tls.key: Invalid value: must be base64",
        ),
        (
            "discovery.k8s.io/v1|EndpointSlice|{name: s}|endpoints: []",
            "f.yaml:1:1: EndpointSlice default/s: addressType: Required value",
        ),
        (
            "headgate.dev/v1alpha1|GatewayParameters|{name: g}|spec: {service: {type: External}}",
            "f.yaml:4:18: GatewayParameters default/g: spec.service.type: Unsupported value: \"External\": supported values: \
             \"LoadBalancer\", \"NodePort\", \"ClusterIP\"",
        ),
    ] {
        let [version, kind, metadata, rest] = text.split('|').collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\n{rest}");
        assert_eq!(mistakes(&text), told, "{text}");
    }
}

#[test]
fn mistakes_of_routes_name_the_field() {
    for (spec, told) in [
        ("  rulez: []", "5:3: unknown field \"spec.rulez\""),
        (
            "  hostnames: shop.example",
            "5:3: spec.hostnames: Invalid value: must be of type array, not string",
        ),
        (
            "  hostnames: [UPPER]",
            r#"5:15: spec.hostnames[0]: Invalid value: "UPPER": should match '^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'"#,
        ),
        (
            "  rules:\n  - matches:\n    - path: {type: Prefx, value: /}",
            "7:14: spec.rules[0].matches[0].path.type: Unsupported value: \"Prefx\": supported values: \"Exact\", \
             \"PathPrefix\", \"RegularExpression\"",
        ),
        (
            "  rules:\n  - backendRefs:\n    - name: shop\n      port: eighty",
            "8:7: spec.rules[0].backendRefs[0].port: Invalid value: must be of type integer, not string",
        ),
        (
            "  rules:\n  - backendRefs:\n    - name: shop\n      weight: -1",
            "8:7: spec.rules[0].backendRefs[0].weight: Invalid value: -1: should be greater than or equal to 0",
        ),
        (
            "  rules:\n  - backendRefs:\n    - port: 80",
            "7:7: spec.rules[0].backendRefs[0].name: Required value",
        ),
        (
            "  rules:\n  - filters:\n    - type: RequestHeaderModifier\n      requestHeaderModifier:\n        set:\n        \
             - {name: a, value: b}\n        - {name: a, value: c}",
            "11:11: spec.rules[0].filters[0].requestHeaderModifier.set[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        ("  rules: []", "5:3: spec.rules: Invalid value: 0: should have at least 1 items"),
        (
            "  hostnames: [a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a]",
            "5:3: spec.hostnames: Too many: 17: must have at most 16 items",
        ),
        ("  hostnames:\n  -", "6:4: spec.hostnames[0]: Invalid value: must be of type string, not null"),
    ] {
        let told = format!("f.yaml:{}", told.replacen(": ", ": HTTPRoute default/r: ", 1));
        assert_eq!(mistakes(&route(spec)), told, "{spec}");
    }
}

#[test]
fn mistakes_of_gateways_name_the_field() {
    for (spec, told) in [
        (
            "  listeners:\n  - {name: a, port: 80, protocol: HTTP}\n  - {name: a, port: 81, protocol: HTTP}",
            "8:5: spec.listeners[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        ("  listeners:\n  - {name: a, port: 80}", "7:5: spec.listeners[0].protocol: Required value"),
        (
            "  addresses:\n  - value: nonsense\n  listeners:\n  - {name: a, port: 80, protocol: HTTP}",
            "7:5: spec.addresses[0].value: Invalid value: \"nonsense\": must be an IPv4 address or an IPv6 address",
        ),
    ] {
        let told = format!("f.yaml:{}", told.replacen(": ", ": Gateway default/g: ", 1));
        assert_eq!(mistakes(&gateway(spec)), told, "{spec}");
    }
}

#[test]
fn objects_are_completed_as_by_an_api_server() {
    let complete =
        only(&route("  rules:\n  - backendRefs:\n    - {name: shop, port: 0x50, namespace: null}"));
    assert_eq!(
        complete["metadata"],
        json!({"name": "r", "namespace": "default", "uid": "HTTPRoute/default/r"})
    );
    assert_eq!(
        complete["spec"],
        json!({"rules": [{
            "backendRefs": [{"group": "", "kind": "Service", "name": "shop", "port": 80, "weight": 1}],
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        }]})
    );
    let complete = only(&gateway(
        "  listeners:\n  - {name: a, port: 443.0, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}",
    ));
    assert_eq!(
        complete["spec"]["listeners"],
        json!([{
            "name": "a", "port": 443, "protocol": "HTTPS", "allowedRoutes": {"namespaces": {"from": "Same"}},
            "tls": {"mode": "Terminate", "certificateRefs": [{"group": "", "kind": "Secret", "name": "c"}]},
        }])
    );
    let service = only("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  ports:\n  - port: 80");
    assert_eq!(
        service["spec"],
        json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
    let secret =
        only("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\ndata: {c: ZA==}");
    assert_eq!((&secret["data"], &secret["type"]), (&json!({"a": "Yg==", "c": "ZA=="}), &json!("Opaque")));
    let namespace = only("apiVersion: v1\nkind: Namespace\nmetadata: {name: ns, creationTimestamp: null}");
    assert_eq!(
        namespace["metadata"],
        json!({"name": "ns", "uid": "Namespace/ns", "labels": {"kubernetes.io/metadata.name": "ns"}})
    );
}

#[test]
fn what_kubectl_get_writes_can_be_read() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata:\n    name: a\n    uid: u\n    \
                resourceVersion: \"7\"\n    generation: 3\n    creationTimestamp: \"2026-01-02T03:04:05Z\"\n    managedFields:\n    \
                - {manager: m, operation: Apply, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {f:spec: {}}}\n  \
                status: {loadBalancer: {}}\n";
    let metadata = &only(text)["metadata"];
    assert_eq!(
        *metadata,
        json!({"name": "a", "namespace": "default", "uid": "u", "generation": 3, "creationTimestamp": "2026-01-02T03:04:05Z"})
    );
}

#[test]
fn documents_lists_and_anchors_are_expanded() {
    let text = "# nothing\n---\n---\napiVersion: v1\nkind: Namespace\nmetadata: &m\n  name: a\n---\n\
                apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: b}\n- metadata: &c {name: c, labels: {x: z}}\n\
                - metadata:\n    <<: *c\n    name: d\n...\n";
    assert_eq!(titles(text), ["Namespace a", "Service default/b", "Service default/c", "Service default/d"]);
    assert_eq!(
        titles("{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"j\"}}"),
        ["ConfigMap default/j"]
    );
    let (found, errors) =
        objects(Path::new("f.yaml"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\nb: [");
    assert_eq!((found.len(), errors.len()), (1, 1), "what stands before a mistake counts");
}

#[test]
fn plain_scalars_mean_what_they_mean_to_kubectl() {
    let text = "a: [~, yes, Off, 0777, 0x1F, 1_000, -3, 1.5, 1e3, .5, 0o17]\nb: [1.2.3, 12h, \"yes\", !!str 1, 2026-01-02, -x, +]";
    let (documents, fault) = crate::source::yaml::read(text);
    assert_eq!(fault, None);
    let value = documents[0].value();
    assert_eq!(value["a"], json!([null, true, false, 511, 31, 1000, -3, 1.5, 1000, 0.5, 15]));
    assert_eq!(value["b"], json!(["1.2.3", "12h", "yes", "1", "2026-01-02", "-x", "+"]));
}

#[test]
fn folders_are_read_in_the_order_of_names_and_not_below() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("b.yaml", &route("  hostnames: [b]").replace("name: r", "name: b"));
    write("a.yml", &route("  hostnames: [a]").replace("name: r", "name: a"));
    write("c.json", "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"n\"}}");
    write("README.md", "no: [object");
    std::fs::create_dir(folder.path().join("below.yaml")).unwrap();
    write("below.yaml/d.yaml", "no: [object");
    let loaded = load(&[folder.path().to_owned()], CONTROLLER_NAME);
    assert_eq!(loaded.errors, []);
    let found: Vec<_> = loaded.objects.iter().map(|object| object.name().to_string()).collect();
    assert_eq!(found[..2], ["default/a", "default/b"]);
    let routes = routes(&loaded.objects);
    assert!(
        routes[0].metadata.creation_timestamp < routes[1].metadata.creation_timestamp,
        "earlier is older"
    );
    assert_eq!(routes[0].metadata.generation, Some(1));
    // The class that is meant, and the namespace.
    assert_eq!(loaded.objects.len(), 4);
}

#[test]
fn a_class_is_meant_only_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.yaml");
    let classes = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let loaded = load(std::slice::from_ref(&file), "example.com/ours");
        assert_eq!(loaded.errors, []);
        let class = |object: &Object| {
            if let Object::GatewayClass(class) = object { Some(class.clone()) } else { None }
        };
        loaded.objects.iter().filter_map(class).collect::<Vec<_>>()
    };
    let meant = classes("");
    assert_eq!(meant[0].spec.controller_name, "example.com/ours");
    assert_eq!(meant[0].metadata.name.as_deref(), Some("headgate"));
    let given = classes(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: x}\nspec: {controllerName: a.b/c}",
    );
    assert_eq!(given.len(), 1);
    assert_eq!(given[0].metadata.name.as_deref(), Some("x"));
}

#[test]
fn the_first_of_two_with_a_name_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
    std::fs::write(&a, route("  hostnames: [a]")).unwrap();
    std::fs::write(&b, route("  hostnames: [b]")).unwrap();
    let loaded = load(&[a.clone(), b.clone()], CONTROLLER_NAME);
    assert_eq!(
        loaded.errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [format!(
            "{}:1:1: HTTPRoute default/r: is in {}:1:1 already; that one counts, remove one of them",
            b.display(),
            a.display()
        )]
    );
    assert_eq!(routes(&loaded.objects)[0].spec.hostnames.as_deref(), Some(&["a".to_owned()][..]));
}

#[test]
fn files_that_cannot_be_read_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.yaml");
    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    let loaded = load(&[missing.clone(), binary.clone()], CONTROLLER_NAME);
    assert_eq!(
        loaded.errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            format!("{}: can't be read: No such file or directory (os error 2)", missing.display()),
            format!("{}: can't be read: stream did not contain valid UTF-8", binary.display()),
        ]
    );
}

mod following;
