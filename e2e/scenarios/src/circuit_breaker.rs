//! A pod that answers 500 while others of its Service don't: it is ejected, tried again and restored. A Service of which every pod does:
//! its breaker opens, and closes when the pods are well. The Events of the Services tell all of it.

use crate::client::Target;
use crate::cluster::{Cluster, Condition, SOON};
use crate::objects::{self, HTTP};
use crate::rollout::PODS;
use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// Of the route to sick and well pods; the other route's pods are all sick.
const SOME: &str = "some.example";
const ALL: &str = "all.example";
/// A path on which the sick pod fails, and others don't.
const FAILS: &str = "/a/status/500";
/// Requests in a row that show who answers: without an ejection one in three would go to the sick pod.
const ROW: usize = 30;
/// For what is tried again after seconds, and written again after ten.
const LATER: Duration = Duration::from_secs(60);

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    let deployments = cluster.list("Deployment", &cluster.installation, PODS).await?;
    let image = deployments.first().and_then(|found| {
        found["spec"]["template"]["spec"]["containers"][0]["image"].as_str().map(str::to_owned)
    });
    let image = image.with_context(|| format!("no Deployment of Headgate in {}", cluster.installation))?;
    cluster.apply(namespace, &objects::backend("well", 2)).await?;
    cluster.apply(namespace, &PODS_AND_SERVICES.replace("IMAGE", &image)).await?;
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &[HTTP])).await?;
    for (name, host) in [("some", SOME), ("all", ALL)] {
        let route = objects::route(name, &objects::parent("web"), host, &objects::to(name));
        cluster.apply(namespace, &route).await?;
    }
    for deployment in ["well", "sick"] {
        cluster.rolled_out(namespace, deployment).await?;
    }
    // The Service takes both; the other one of the same pods has but the sick one.
    for pod in cluster.list("Pod", namespace, "app=well").await? {
        let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
        let label = serde_json::json!({"metadata": {"labels": {"some": "yes"}}});
        cluster.patch("Pod", namespace, name, &label).await?;
    }
    let address = cluster.address(namespace, "web").await?;
    let (some, all) = (Target::http(address, 80, SOME), Target::http(address, 80, ALL));
    for target in [&some, &all] {
        cluster
            .wait("the routes are served", SOON, async || target.answers(StatusCode::OK, ROW).await)
            .await?;
    }
    let told = [ejection(cluster, namespace, &some).await?, breaker(cluster, namespace, &all).await?];
    Ok(told.join("; "))
}

/// `headgate echo` fails where its path says so; the suite's echo backend does so only at the root.
const PODS_AND_SERVICES: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: sick}
spec:
  replicas: 1
  selector: {matchLabels: {app: sick}}
  template:
    metadata: {labels: {app: sick, some: "yes"}}
    spec:
      enableServiceLinks: false
      containers:
      - name: echo
        image: IMAGE
        args: [echo, --port, "3000", --name, sick]
        readinessProbe: {httpGet: {path: /health, port: 3000}, periodSeconds: 1}
        resources: {requests: {cpu: 10m}, limits: {memory: 128Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: some}
spec:
  selector: {some: "yes"}
  ports: [{port: 80, targetPort: 3000}]
---
apiVersion: v1
kind: Service
metadata: {name: all}
spec:
  selector: {app: sick}
  ports: [{port: 80, targetPort: 3000}]
---
apiVersion: headgate.dev/v1alpha1
kind: CircuitBreakerPolicy
metadata: {name: some}
spec:
  targetRefs: [{group: "", kind: Service, name: some}]
  ejection: {consecutive5xx: 3, baseEjectionTime: 3s, maxEjectionTime: 6s}
---
apiVersion: headgate.dev/v1alpha1
kind: CircuitBreakerPolicy
metadata: {name: all}
spec:
  targetRefs: [{group: "", kind: Service, name: all}]
  breaker: {trip: {consecutiveFailures: 5}, openDuration: 3s, halfOpen: {successesToClose: 1}}
"#;

/// What the Events of a Service with a reason say, by replica: how often it happened.
async fn events(
    cluster: &Cluster,
    namespace: &str,
    service: &str,
    reason: &str,
) -> Result<Vec<(String, i64, Value)>> {
    let uid = cluster.get("Service", namespace, service).await?["metadata"]["uid"].clone();
    let events = cluster.list("Event", namespace, "").await?;
    // As `kubectl describe` finds them.
    let ours =
        events.into_iter().filter(|event| event["involvedObject"]["uid"] == uid && event["reason"] == reason);
    ours.map(|event| {
        let replica = event["reportingInstance"].as_str().context("nobody says so")?.to_owned();
        Ok((replica, event["series"]["count"].as_i64().unwrap_or(1), event))
    })
    .collect()
}

/// Waits until both replicas have told of it, and says what the Events are; between looks `ask` sends requests.
async fn both_tell(
    cluster: &Cluster,
    namespace: &str,
    (service, reason, times): (&str, &str, i64),
    ask: impl AsyncFn() -> Result<()>,
) -> Result<Vec<Value>> {
    cluster
        .wait(&format!("both replicas tell {reason} of {service}"), LATER, async || {
            ask().await?;
            let events = events(cluster, namespace, service, reason).await?;
            let often = events.into_iter().filter(|(_, count, _)| *count >= times).collect::<Vec<_>>();
            let replicas = often.iter().map(|(replica, ..)| replica).collect::<BTreeSet<_>>();
            ensure!(replicas.len() == 2, "{replicas:?} do");
            Ok(often.into_iter().map(|(.., event)| event).collect())
        })
        .await
}

async fn ejection(cluster: &Cluster, namespace: &str, some: &Target) -> Result<String> {
    let failing = some.path(FAILS);
    let fail = async || {
        for _ in 0..ROW {
            let status = failing.get().await?.status;
            ensure!(matches!(status.as_u16(), 200 | 500), "{status}");
        }
        Ok(())
    };
    cluster
        .wait("the Service is told of its policy", SOON, async || {
            let service = cluster.get("Service", namespace, "some").await?;
            let told = &service["status"]["conditions"];
            Condition::find(told, "headgate.dev/CircuitBreakerPolicyAffected").map(drop)
        })
        .await?;
    let pods = cluster.list("Pod", namespace, "app=sick").await?;
    let sick = pods.first().and_then(|pod| pod["status"]["podIP"].as_str()).context("no pod is sick")?;
    for event in both_tell(cluster, namespace, ("some", "EndpointEjected", 1), fail).await? {
        let said = event["message"].as_str().unwrap_or_default();
        ensure!(said.contains(sick) && event["type"] == "Warning", "{event}");
    }
    cluster
        .wait("no request goes to the pod", SOON, async || failing.answers(StatusCode::OK, ROW).await)
        .await?;
    // It is tried again, and as sick as before.
    both_tell(cluster, namespace, ("some", "EndpointEjected", 2), fail).await?;
    let heal = async || some.answers(StatusCode::OK, ROW).await.map(drop);
    both_tell(cluster, namespace, ("some", "EndpointRestored", 1), heal).await?;
    let seen = cluster
        .wait("the pod answers again", SOON, async || {
            let answer = some.answers(StatusCode::OK, 1).await?;
            let name = serde_json::from_slice::<Value>(&answer.body)?["name"].clone();
            ensure!(name == "sick", "{name}");
            Ok(name)
        })
        .await?;
    Ok(format!("pod {seen} ejected, tried again, ejected again and restored"))
}

async fn breaker(cluster: &Cluster, namespace: &str, all: &Target) -> Result<String> {
    let failing = all.path(FAILS);
    let fail = async || {
        for _ in 0..ROW {
            let status = failing.get().await?.status;
            ensure!(matches!(status.as_u16(), 500 | 503), "{status}");
        }
        Ok(())
    };
    both_tell(cluster, namespace, ("all", "BreakerOpened", 1), fail).await?;
    cluster
        .wait("the breaker keeps requests away", SOON, async || {
            fail().await?;
            failing.answers(StatusCode::SERVICE_UNAVAILABLE, ROW).await
        })
        .await?;
    let heal = async || {
        for _ in 0..ROW {
            let status = all.get().await?.status;
            ensure!(matches!(status.as_u16(), 200 | 503), "{status}");
        }
        Ok(())
    };
    for reason in ["BreakerHalfOpen", "BreakerClosed"] {
        both_tell(cluster, namespace, ("all", reason, 1), heal).await?;
    }
    cluster.wait("all requests pass", SOON, async || all.answers(StatusCode::OK, ROW).await).await?;
    Ok("a breaker opened, half opened and closed, with Events of both replicas".to_owned())
}
