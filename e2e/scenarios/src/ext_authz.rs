//! An authorizer that others wrote (Istio's sample) as the `external` of AuthPolicies, over Envoy's `ext_authz` and over HTTP: who it
//! lets pass, and who not; then it is gone, and comes back.

use crate::client::Target;
use crate::cluster::{Cluster, SOON};
use crate::objects::{self, HTTP};
use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long it may take until it listens.
const START: Duration = Duration::from_secs(20);
/// What it looks for, and what it says of a request that has it.
const ALLOW: (&str, &str) = ("x-ext-authz", "allow");
const RESULT: &str = "x-ext-authz-check-result";

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    let places = [("grpc", cluster.free_address().await?), ("http", cluster.free_address().await?)];
    let mut server = start(places).await?;
    cluster.apply(namespace, &objects::backend("web", 2)).await?;
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &[HTTP])).await?;
    for (protocol, place) in places {
        let route = objects::route(protocol, &objects::parent("web"), &host(protocol), &objects::to("web"));
        for object in [service(protocol, place), policy(protocol), route] {
            cluster.apply(namespace, &object).await?;
        }
    }
    cluster.rolled_out(namespace, "web").await?;
    let address = cluster.address(namespace, "web").await?;
    for (protocol, _) in places {
        let refused = async || denies(address, protocol).await;
        cluster.wait_for_all("clients are asked about", refused).await.context(protocol)?;
        allows(address, protocol).await.context(protocol)?;
    }
    server.kill().await?;
    for (protocol, _) in places {
        // Nobody passes whom nobody judges.
        allowed(address, protocol).answers(StatusCode::SERVICE_UNAVAILABLE, 10).await.context(protocol)?;
    }
    let _server = start(places).await?;
    for (protocol, _) in places {
        let back = async || allows(address, protocol).await;
        cluster.wait("it is asked again", SOON, back).await.context(protocol)?;
    }
    Ok("Istio's authorizer over ext_authz and HTTP: let pass with its headers, refused with its answer; gone: 503; back".to_owned())
}

fn host(protocol: &str) -> String {
    format!("{protocol}.example")
}

fn target(address: IpAddr, protocol: &str) -> Target {
    Target::http(address, 80, &host(protocol))
}

fn allowed(address: IpAddr, protocol: &str) -> Target {
    // What a client says of the result doesn't count.
    target(address, protocol).field(ALLOW.0, ALLOW.1).field(RESULT, "forged")
}

async fn denies(address: IpAddr, protocol: &str) -> Result<()> {
    let answer = target(address, protocol).answers(StatusCode::FORBIDDEN, 1).await?;
    let body = String::from_utf8_lossy(&answer.body);
    ensure!(body.contains("denied by ext_authz"), "not the authorizer's answer: {body}");
    Ok(())
}

async fn allows(address: IpAddr, protocol: &str) -> Result<()> {
    let answer = allowed(address, protocol).answers(StatusCode::OK, 10).await?;
    let echo: Value = serde_json::from_slice(&answer.body).context("not an answer of the backend")?;
    let mut fields = echo["headers"].as_object().into_iter().flatten();
    let told =
        fields.find(|(name, _)| name.eq_ignore_ascii_case(RESULT)).context("the backend isn't told")?;
    ensure!(*told.1 == json!(["allowed"]), "{told:?}");
    Ok(())
}

/// The server, beside the cluster, as a Service without pods of its own.
fn service(protocol: &str, place: SocketAddr) -> String {
    let (ip, port) = (place.ip(), place.port());
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: authorizer-{protocol}}}
spec: {{ports: [{{name: ask, port: 80, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: authorizer-{protocol}, labels: {{kubernetes.io/service-name: authorizer-{protocol}}}}}
addressType: IPv4
endpoints: [{{addresses: ["{ip}"], conditions: {{ready: true}}}}]
ports: [{{name: ask, port: {port}, protocol: TCP}}]
"#
    )
}

fn policy(protocol: &str) -> String {
    let mut external = json!({
        "protocol": protocol.to_ascii_uppercase(),
        "backendRef": {"name": format!("authorizer-{protocol}"), "port": 80},
        "timeout": "5s",
    });
    if protocol == "http" {
        external["http"] = json!({"allowedHeaders": [ALLOW.0], "allowedResponseHeaders": [RESULT]});
    }
    json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "AuthPolicy", "metadata": {"name": protocol},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": protocol}],
            "authenticators": {"other": {"external": external}},
        },
    })
    .to_string()
}

async fn start(places: [(&str, SocketAddr); 2]) -> Result<Child> {
    let program = std::env::var("EXT_AUTHZ").context("EXT_AUTHZ doesn't name the program")?;
    let mut command = Command::new(program);
    for (protocol, place) in places {
        command.arg(format!("-{protocol}")).arg(place.port().to_string());
    }
    let process = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn();
    let process = process.context("the authorizer can't be run")?;
    let began = Instant::now();
    for (_, place) in places {
        while TcpStream::connect(place).await.is_err() {
            ensure!(began.elapsed() < START, "the authorizer doesn't listen on {place}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(process)
}
