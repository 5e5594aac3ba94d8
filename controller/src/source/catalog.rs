//! The kinds that files may hold: their names, schemas and types.
//!
//! Kinds with a CRD bring its schema. Kinds that are built into Kubernetes have none: theirs is made of the k8s-openapi
//! types, which know names and types of fields, and of the rules and default values in [`BUILT_IN`], as far as they matter
//! here.

use super::schema::Schema;
use crate::api;
use crate::cluster::{Kind, Watched};
use headgate_crds::{AuthPolicy, CircuitBreakerPolicy, ClientPolicy, GatewayParameters, RateLimitPolicy};
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// A kind that files may hold.
#[derive(Debug)]
pub struct Entry {
    /// Which one.
    pub kind: Kind,
    /// Its API group; empty for the core group.
    pub group: String,
    /// Versions that are served, the newest first. They differ in their name only.
    pub versions: Vec<String>,
    /// Whether its objects are in a namespace.
    pub namespaced: bool,
    /// What its objects have to look like.
    pub schema: Schema,
}

/// The parts of a CRD that count here, as `hack/gen.sh` writes them.
#[derive(Deserialize)]
struct Crd {
    group: String,
    kind: String,
    namespaced: bool,
    versions: Vec<String>,
    schema: Value,
}

/// Where in the schema of a kind, and what.
type Addition = (Kind, &'static str, fn() -> Value);

/// What an API server adds to types of its own.
const BUILT_IN: &[Addition] = &[
    (
        Kind::Service,
        "/spec/type",
        || json!({"default": "ClusterIP", "enum": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]}),
    ),
    (Kind::Service, "/spec/ports/*/protocol", || json!({"default": "TCP", "enum": ["TCP", "UDP", "SCTP"]})),
    (Kind::Service, "/spec/ports/*/port", port),
    (Kind::EndpointSlice, "/addressType", || json!({"enum": ["IPv4", "IPv6", "FQDN"]})),
    (Kind::EndpointSlice, "/endpoints", || json!({"maxItems": 1000})),
    (Kind::EndpointSlice, "/endpoints/*/addresses", || json!({"minItems": 1, "maxItems": 100})),
    (Kind::EndpointSlice, "/ports/*/name", || json!({"default": ""})),
    (Kind::EndpointSlice, "/ports/*/protocol", || json!({"default": "TCP", "enum": ["TCP", "UDP", "SCTP"]})),
    (Kind::EndpointSlice, "/ports/*/port", port),
    (Kind::Secret, "/type", || json!({"default": "Opaque"})),
];

fn port() -> Value {
    json!({"minimum": 1, "maximum": 65535})
}

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    vec![
        from_json::<api::GatewayClass>(include_str!("schema/gatewayclasses.json")),
        from_json::<api::Gateway>(include_str!("schema/gateways.json")),
        from_json::<api::ListenerSet>(include_str!("schema/listenersets.json")),
        from_json::<api::HttpRoute>(include_str!("schema/httproutes.json")),
        from_json::<api::GrpcRoute>(include_str!("schema/grpcroutes.json")),
        from_json::<api::TlsRoute>(include_str!("schema/tlsroutes.json")),
        from_json::<api::TcpRoute>(include_str!("schema/tcproutes.json")),
        from_json::<api::UdpRoute>(include_str!("schema/udproutes.json")),
        from_json::<api::BackendTlsPolicy>(include_str!("schema/backendtlspolicies.json")),
        from_json::<api::XBackend>(include_str!("schema/xbackends.json")),
        from_json::<api::XBackendTrafficPolicy>(include_str!("schema/xbackendtrafficpolicies.json")),
        from_json::<api::ReferenceGrant>(include_str!("schema/referencegrants.json")),
        from_own::<GatewayParameters>(),
        from_own::<RateLimitPolicy>(),
        from_own::<CircuitBreakerPolicy>(),
        from_own::<AuthPolicy>(),
        from_own::<ClientPolicy>(),
        from_type::<Namespace>(false),
        from_type::<Service>(true),
        from_type::<EndpointSlice>(true),
        from_type::<Secret>(true),
        from_type::<ConfigMap>(true),
        from_type::<ClusterTrustBundle>(false),
    ]
});

/// All of them.
pub fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// The kind of a group that is named like this.
pub fn find(group: &str, kind: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.group == group && entry.kind.name() == kind)
}

fn from_json<K: Watched>(json: &str) -> Entry {
    from_crd::<K>(serde_json::from_str(json).expect("the schemas that are built in are JSON"))
}

fn from_own<K: Watched>() -> Entry {
    let own = headgate_crds::all().into_iter().find(|crd| crd.spec.names.kind == K::KIND.name());
    let own = own.and_then(|crd| {
        let version = crd.spec.versions.into_iter().next()?;
        let schema = serde_json::to_value(version.schema?.open_api_v3_schema?).ok()?;
        Some(Crd {
            group: crd.spec.group,
            kind: crd.spec.names.kind,
            namespaced: crd.spec.scope == "Namespaced",
            versions: vec![version.name],
            schema,
        })
    });
    from_crd::<K>(own.expect("the CRD is one of ours, and has a schema"))
}

fn from_crd<K: Watched>(mut crd: Crd) -> Entry {
    debug_assert_eq!(crd.kind, K::KIND.name(), "the schema of another kind");
    // A CRD leaves these to the API server.
    let text = json!({"type": "string"});
    crd.schema["type"] = "object".into();
    crd.schema["properties"]["apiVersion"] = text.clone();
    crd.schema["properties"]["kind"] = text;
    crd.schema["properties"]["metadata"] = schema_of::<ObjectMeta>();
    Entry {
        kind: K::KIND,
        group: crd.group,
        versions: crd.versions,
        namespaced: crd.namespaced,
        schema: Schema::new(crd.schema).expect("the schemas that are built in are structural"),
    }
}

fn from_type<K: Watched + JsonSchema>(namespaced: bool) -> Entry {
    let mut schema = schema_of::<K>();
    for (_, path, rules) in BUILT_IN.iter().filter(|(kind, _, _)| *kind == K::KIND) {
        let mut at = &mut schema;
        for step in path.split('/').skip(1) {
            at = match step {
                "*" => &mut at["items"],
                field => &mut at["properties"][field],
            };
        }
        debug_assert!(at.is_object(), "no such field: {path}");
        if let (Some(at), Value::Object(rules)) = (at.as_object_mut(), rules()) {
            at.extend(rules);
        }
    }
    Entry {
        kind: K::KIND,
        group: <K as Resource>::group(&()).into_owned(),
        versions: vec![<K as Resource>::version(&()).into_owned()],
        namespaced,
        schema: Schema::new(schema).expect("the schemas of k8s-openapi are structural"),
    }
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator().into_root_schema_for::<T>().to_value()
}
