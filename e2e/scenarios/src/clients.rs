//! Clients that others wrote, each with the protocol that it is for: h2load over h2c and TLS, a WebSocket, grpcurl with
//! reflection, which is a stream both ways, and Redis through a TCPRoute.

use crate::cluster::Cluster;
use crate::objects::{self, Certificate};
use crate::redis::Redis;
use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const HOST: &str = "clients.example";
/// Of h2load, over each of the two.
const REQUESTS: u32 = 5_000;
/// Of redis-benchmark, of each of its commands.
const COMMANDS: u32 = 5_000;
/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    let secret = Certificate::new(HOST)?;
    cluster.apply(namespace, &secret.secret("clients")).await?;
    let listeners =
        [objects::HTTP, &objects::https("https", 443, "clients"), "{name: redis, port: 6379, protocol: TCP}"];
    cluster.apply(namespace, &objects::gateway("clients", &cluster.gateway_class, &listeners)).await?;
    cluster.apply(namespace, &objects::backend("web", 2)).await?;
    cluster.apply(namespace, GRPC).await?;
    let route = objects::route("web", &objects::parent("clients"), HOST, &objects::to("web"));
    cluster.apply(namespace, &route).await?;
    for backend in ["web", "grpc"] {
        cluster.rolled_out(namespace, backend).await?;
    }
    let address = cluster.address(namespace, "clients").await?;
    let told = [
        h2load(cluster, address).await.context("h2load")?,
        websocket(address).await.context("WebSocket")?,
        grpc(cluster, address).await.context("grpcurl")?,
        redis(cluster, namespace, address).await.context("Redis")?,
    ];
    Ok(told.join("; "))
}

/// The suite's echo backend as a gRPC server, with reflection.
const GRPC: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: grpc}
spec:
  replicas: 2
  selector: {matchLabels: {app: grpc}}
  template:
    metadata: {labels: {app: grpc}}
    spec:
      enableServiceLinks: false
      containers:
      - name: echo
        image: registry.k8s.io/gateway-api/conformance/echo-basic:v0.1.0
        env:
        - {name: GRPC_ECHO_SERVER, value: "1"}
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        readinessProbe: {tcpSocket: {port: 3000}, periodSeconds: 1}
        resources: {requests: {cpu: 10m}, limits: {memory: 128Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: grpc}
spec:
  selector: {app: grpc}
  ports: [{port: 80, targetPort: 3000}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: grpc}
spec:
  parentRefs: [{name: clients}]
  hostnames: [grpc.example]
  rules: [{backendRefs: [{name: grpc, port: 80}]}]
"#;

/// Runs a program to its end; what it has written to stdout.
pub async fn output(program: &str, arguments: &[impl AsRef<OsStr>]) -> Result<String> {
    let running = Command::new(program).args(arguments).kill_on_drop(true).output();
    let done = tokio::time::timeout(PATIENCE, running).await.context("it doesn't end")?;
    let done = done.with_context(|| format!("{program} can't be run"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(done.status.success(), "{}: {text}{}", done.status, String::from_utf8_lossy(&done.stderr));
    Ok(text)
}

async fn h2load(cluster: &Cluster, address: IpAddr) -> Result<String> {
    let load = async |scheme: &str, requests: u32| {
        let connections = requests.min(10);
        // The name is for SNI and `:authority`, the address for the connection.
        let port = if scheme == "https" { 443 } else { 80 };
        let (to, count) = (format!("--connect-to={address}:{port}"), format!("-n{requests}"));
        let url = format!("{scheme}://{HOST}/");
        let told = output("h2load", &[&to, &count, &format!("-c{connections}"), "-m20", "-t1", &url]).await?;
        let wanted = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
        ensure!(told.contains(&wanted) && told.contains(&format!("status codes: {requests} 2xx")), "{told}");
        Ok(())
    };
    for scheme in ["http", "https"] {
        cluster.wait_for_all(&format!("{scheme} is served"), async || load(scheme, 1).await).await?;
        load(scheme, REQUESTS).await.with_context(|| scheme.to_owned())?;
    }
    Ok(format!("h2load: {REQUESTS} over h2c and {REQUESTS} over TLS, none failed"))
}

async fn websocket(address: IpAddr) -> Result<String> {
    let exchange = async {
        let stream = TcpStream::connect((address, 80)).await?;
        let mut request = format!("ws://{HOST}/ws").into_client_request()?;
        // As browsers do, and this backend insists on it.
        request.headers_mut().insert("origin", format!("http://{HOST}").parse()?);
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        for n in 0..100 {
            let text = format!("message {n} {}", "x".repeat(n * 10));
            socket.send(Message::text(&text)).await?;
            let back = socket.next().await.context("it ends")??;
            ensure!(back.to_text()? == text, "{back} came back for {text}");
        }
        socket.close(None).await?;
        Ok("WebSocket: 100 messages came back".to_owned())
    };
    tokio::time::timeout(PATIENCE, exchange).await.context("it doesn't end")?
}

async fn grpc(cluster: &Cluster, address: IpAddr) -> Result<String> {
    let grpcurl = std::env::var("GRPCURL").context("GRPCURL doesn't name the program")?;
    let call = async |input: &[&str]| {
        let to = format!("{address}:80");
        let common = ["-plaintext", "-authority", "grpc.example", "-max-time", "30"];
        let (flags, rest): (Vec<&str>, Vec<&str>) = input.iter().partition(|flag| flag.starts_with("-d="));
        output(&grpcurl, &[&common[..], &flags, &[to.as_str()], &rest].concat()).await
    };
    cluster.wait_for_all("gRPC is served", async || call(&["list"]).await.map(drop)).await?;
    let services = call(&["list"]).await?;
    let service = services.lines().find(|name| name.ends_with("GrpcEcho")).context("no such service")?;
    // What the call is like comes by reflection as well.
    let answer: Value = serde_json::from_str(&call(&["-d={}", &format!("{service}/Echo")]).await?)?;
    let method = answer["assertions"]["fullyQualifiedMethod"].as_str().unwrap_or_default();
    ensure!(method == format!("/{service}/Echo"), "{answer}");
    // A stream of questions, each answered before the next one is read.
    let questions =
        (0..20).map(|n| format!("{{\"host\":\"{n}\",\"listServices\":\"*\"}}")).collect::<String>();
    let stream = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
    let told = call(&[&format!("-d={questions}"), stream]).await?;
    let answers =
        serde_json::Deserializer::from_str(&told).into_iter::<Value>().collect::<Result<Vec<_>, _>>()?;
    for (n, answer) in answers.iter().enumerate() {
        let asked = answer["originalRequest"]["host"].as_str();
        ensure!(asked == Some(&*n.to_string()), "answer {n}: {answer}");
    }
    ensure!(answers.len() == 20, "{} answers", answers.len());
    let refused = call(&["-d={}", "nobody.Nothing/Call"]).await.expect_err("there is no such service");
    ensure!(format!("{refused:#}").contains("nobody.Nothing"), "{refused:#}");
    Ok("grpcurl: services by reflection, a call, 20 questions and answers on one stream".to_owned())
}

/// A Redis of ours, beside the cluster, as a Service without pods of its own.
async fn redis(cluster: &Cluster, namespace: &str, address: IpAddr) -> Result<String> {
    let server = Redis::start(cluster).await?;
    let (ip, port) = (server.address.ip(), server.address.port());
    let service = format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: redis}}
spec: {{ports: [{{name: redis, port: 6379, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: redis, labels: {{kubernetes.io/service-name: redis}}}}
addressType: IPv4
endpoints: [{{addresses: ["{ip}"], conditions: {{ready: true}}}}]
ports: [{{name: redis, port: {port}, protocol: TCP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {{name: redis}}
spec:
  parentRefs: [{{name: clients, sectionName: redis}}]
  rules: [{{backendRefs: [{{name: redis, port: 6379}}]}}]
"#
    );
    cluster.apply(namespace, &service).await?;
    let host = address.to_string();
    let cli = async |command: &[&str]| {
        output("redis-cli", &[&["-h", &host, "-p", "6379"], command].concat())
            .await
            .map(|told| told.trim().to_owned())
    };
    cluster
        .wait_for_all("Redis answers", async || {
            let told = cli(&["PING"]).await?;
            ensure!(told == "PONG", "{told}");
            Ok(())
        })
        .await?;
    ensure!(cli(&["SET", "key", "value"]).await? == "OK", "not set");
    ensure!(cli(&["GET", "key"]).await? == "value", "not got");
    let count = format!("{COMMANDS}");
    let tests = ["-h", &host, "-p", "6379", "-t", "set,incr", "-n", &count, "-c", "20", "-P", "4", "--csv"];
    output("redis-benchmark", &tests).await?;
    let counted = cli(&["GET", "counter:__rand_int__"]).await?;
    ensure!(counted == count, "{counted} of {count} increments were counted");
    Ok(format!("Redis: {COMMANDS} SET and {COMMANDS} INCR through a TCPRoute, all counted"))
}
