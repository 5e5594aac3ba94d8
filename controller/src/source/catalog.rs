//! The kinds that files may hold: their names, schemas and types.
//!
//! The schemas are files that `hack/gen.sh` writes: of CRDs, and for kinds that are built into Kubernetes and have none, of their
//! types.

use super::schema::Schema;
use crate::cluster::Kind;
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

/// What a file says of a kind.
#[derive(Deserialize)]
struct Described {
    group: String,
    kind: String,
    namespaced: bool,
    versions: Vec<String>,
    schema: Value,
}

macro_rules! described {
    ($($kind:ident $file:literal,)*) => {
        /// Each with its file.
        const FILES: &[(Kind, &str)] = &[$((Kind::$kind, include_str!(concat!("schema/", $file, ".json"))),)*];
    };
}

described! {
    GatewayClass "gatewayclasses",
    Gateway "gateways",
    ListenerSet "listenersets",
    HttpRoute "httproutes",
    GrpcRoute "grpcroutes",
    TlsRoute "tlsroutes",
    TcpRoute "tcproutes",
    UdpRoute "udproutes",
    BackendTlsPolicy "backendtlspolicies",
    XBackend "xbackends",
    XBackendTrafficPolicy "xbackendtrafficpolicies",
    ReferenceGrant "referencegrants",
    GatewayParameters "gatewayparameters",
    RateLimitPolicy "ratelimitpolicies",
    CircuitBreakerPolicy "circuitbreakerpolicies",
    AuthPolicy "authpolicies",
    ClientPolicy "clientpolicies",
    Namespace "namespaces",
    Service "services",
    EndpointSlice "endpointslices",
    Secret "secrets",
    ConfigMap "configmaps",
    ClusterTrustBundle "clustertrustbundles",
}

static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let metadata: Value = read(include_str!("schema/objectmeta.json"));
    FILES.iter().map(|(kind, file)| entry(*kind, file, &metadata)).collect()
});

/// All of them.
pub fn entries() -> &'static [Entry] {
    &ENTRIES
}

/// The kind of a group that is named like this.
pub fn find(group: &str, kind: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.group == group && entry.kind.name() == kind)
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> T {
    serde_json::from_str(file).expect("the schemas that are built in are JSON")
}

fn entry(kind: Kind, file: &str, metadata: &Value) -> Entry {
    let Described { group, kind: name, namespaced, versions, mut schema } = read(file);
    debug_assert_eq!(name, kind.name(), "the schema of another kind");
    // CRDs leave these to the API server.
    let text = json!({"type": "string"});
    schema["type"] = "object".into();
    schema["properties"]["apiVersion"] = text.clone();
    schema["properties"]["kind"] = text;
    schema["properties"]["metadata"] = metadata.clone();
    let schema = Schema::new(schema).expect("the schemas that are built in are structural");
    Entry { kind, group, versions, namespaced, schema }
}
