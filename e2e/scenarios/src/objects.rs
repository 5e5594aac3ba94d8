//! The YAML that several scenarios share: a backend as an ordinary user would write it, a Gateway, a route.

use anyhow::Result;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::CertificateDer;

/// A Deployment and its Service, port 80. A pod that is told to end waits for 5 seconds first: the time that every
/// balancer in the cluster may need to hear of it.
pub fn backend(name: &str, replicas: usize) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      enableServiceLinks: false
      terminationGracePeriodSeconds: 15
      containers:
      - name: echo
        image: registry.k8s.io/gateway-api/conformance/echo-basic:v0.1.0
        env:
        - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        readinessProbe: {{httpGet: {{path: /health, port: 3000}}, periodSeconds: 1}}
        lifecycle: {{preStop: {{sleep: {{seconds: 5}}}}}}
        resources: {{requests: {{cpu: 10m}}, limits: {{memory: 128Mi}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: 3000}}]
"#
    )
}

/// A Gateway with the listeners, one YAML mapping each.
pub fn gateway(name: &str, class: &str, listeners: &[&str]) -> String {
    let mut yaml = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\n\
         spec:\n  gatewayClassName: {class}\n  listeners:\n"
    );
    for listener in listeners {
        yaml.push_str(&format!("  - {listener}\n"));
    }
    yaml
}

/// The usual listener.
pub const HTTP: &str = "{name: http, port: 80, protocol: HTTP}";

/// An HTTPS listener with a Secret's certificate.
pub fn https(name: &str, port: u16, secret: &str) -> String {
    format!("{{name: {name}, port: {port}, protocol: HTTPS, tls: {{certificateRefs: [{{name: {secret}}}]}}}}")
}

/// A route with one rule; `parent` and `rule` are YAML mappings.
pub fn route(name: &str, parent: &str, host: &str, rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\n\
         spec:\n  parentRefs: [{parent}]\n  hostnames: [{host}]\n  rules: [{rule}]\n"
    )
}

/// A parentRef to a Gateway.
pub fn parent(gateway: &str) -> String {
    format!("{{name: {gateway}}}")
}

/// A rule that sends everything to a backend.
pub fn to(backend: &str) -> String {
    format!("{{backendRefs: [{{name: {backend}, port: 80}}]}}")
}

/// A certificate that a client can trust by itself, and the Secret that holds it.
pub struct Certificate {
    /// As the client sees it.
    pub der: CertificateDer<'static>,
    chain: String,
    key: String,
}

impl Certificate {
    /// A new one for the host.
    pub fn new(host: &str) -> Result<Self> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([host.to_owned()])?;
        Ok(Self { der: cert.der().clone(), chain: cert.pem(), key: signing_key.serialize_pem() })
    }

    /// The Secret.
    pub fn secret(&self, name: &str) -> String {
        secret(name, &self.chain, &self.key)
    }
}

/// A TLS Secret with whatever is given as a certificate and a key.
pub fn secret(name: &str, chain: &str, key: &str) -> String {
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name}, "stringData": {"tls.crt": chain, "tls.key": key},
    });
    object.to_string()
}
