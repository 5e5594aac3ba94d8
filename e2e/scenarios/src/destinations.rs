//! XBackends: pods that are selected without a Service of the user's, with sessions, and a host outside of the cluster whose TLS
//! is verified. `outside.example` is the API server's address in the pods' hosts file (e2e/values.yaml).

use crate::client::Target;
use crate::cluster::{Cluster, Condition, SOON};
use crate::objects::{self, HTTP};
use anyhow::{Context, Result, ensure};
use http::StatusCode;
use std::collections::BTreeSet;

const HOST: &str = "destinations.example";
const REPLICAS: usize = 2;

const BACKENDS: &str = "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: pods}
spec:
  type: EndpointSelector
  endpointSelector: {matchLabels: {app: web}}
  port: {number: 3000}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: outside}
spec:
  type: ExternalHostname
  externalHostname: {hostname: outside.example}
  port: {number: 443}
  tls:
    mode: ServerOnly
    validation:
      hostname: kubernetes.default.svc
      caCertificateRefs: [{group: '', kind: ConfigMap, name: kube-root-ca.crt}]
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: all}
spec:
  targetRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: pods}]
  retryConstraint: {}
";

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    cluster.apply(namespace, &objects::backend("web", REPLICAS)).await?;
    // The XBackend alone finds the pods.
    cluster.delete("Service", namespace, "web").await?;
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &[HTTP])).await?;
    cluster.apply(namespace, BACKENDS).await?;
    for (name, path) in [("pods", "/"), ("outside", "/version")] {
        let rule = format!(
            "{{matches: [{{path: {{value: {path}}}}}], \
             backendRefs: [{{group: gateway.networking.x-k8s.io, kind: XBackend, name: {name}}}]}}"
        );
        let route = objects::route(name, &objects::parent("web"), HOST, &rule);
        cluster.apply(namespace, &route).await?;
    }
    cluster.rolled_out(namespace, "web").await?;
    let address = cluster.address(namespace, "web").await?;
    let pods = Target::http(address, 80, HOST);
    // That a pod is ready is known to its Deployment before it is known to whoever watches EndpointSlices.
    let all_answer = async || {
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            seen.insert(pods.get().await?.pod()?);
        }
        ensure!(seen.len() == REPLICAS, "only {seen:?} have answered");
        Ok(())
    };
    cluster.wait("all pods answer", SOON, all_answer).await?;

    let outside = pods.path("/version");
    cluster
        .wait("the host outside answers", SOON, async || outside.answers(StatusCode::OK, 10).await)
        .await?;
    let version: serde_json::Value =
        serde_json::from_slice(&outside.get().await?.body).context("not its version")?;
    for (kind, name) in [("XBackend", "pods"), ("XBackend", "outside"), ("XBackendTrafficPolicy", "all")] {
        let told = async || {
            let object = cluster.get(kind, namespace, name).await?;
            let accepted = Condition::find(&object["status"]["ancestors"][0]["conditions"], "Accepted")?;
            ensure!(accepted.status == "True", "{kind} {name}: {accepted:?}");
            Ok(())
        };
        cluster.wait(&format!("{kind} {name} is told"), SOON, told).await?;
    }

    // Another host's certificate isn't good enough.
    let other = serde_json::json!({"spec": {"tls": {"validation": {"hostname": "other.example"}}}});
    cluster.patch("XBackend", namespace, "outside", &other).await?;
    let refused = async || outside.answers(StatusCode::BAD_GATEWAY, 10).await;
    cluster.wait("the wrong certificate is refused", SOON, refused).await?;

    // With the last route goes the Service that found the pods.
    let services = async || cluster.list("Service", namespace, "headgate.dev/backend-name=pods").await;
    ensure!(services().await?.len() == 1, "there is one Service for the XBackend");
    cluster.delete("HTTPRoute", namespace, "pods").await?;
    let gone = async || {
        let left = services().await?.len();
        ensure!(left == 0, "{left} are left");
        Ok(())
    };
    cluster.wait("the Service of the XBackend goes", SOON, gone).await?;
    Ok(format!("{REPLICAS} pods; {} by another name and its own TLS", version["gitVersion"]))
}
