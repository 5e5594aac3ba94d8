//! What isn't HTTP, with servers that are nobody's mock: the cluster's DNS over UDP and TCP, and the TLS of its API
//! server passed through.

use crate::client::Target;
use crate::cluster::Cluster;
use crate::objects;
use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// A name that every cluster's DNS knows, and one of the API server's certificate.
const API: &str = "kubernetes.default.svc";
/// How often each of them is asked: both replicas of Headgate get some.
const TIMES: u16 = 40;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    let listeners = [
        "{name: dns, port: 53, protocol: UDP}",
        "{name: dns-tcp, port: 53, protocol: TCP}",
        &format!("{{name: api, port: 443, protocol: TLS, hostname: {API}, tls: {{mode: Passthrough}}}}"),
    ];
    cluster.apply(namespace, &objects::gateway("streams", &cluster.gateway_class, &listeners)).await?;
    for (kind, name, service, port, hostnames) in [
        ("UDPRoute", "dns", "kube-dns, namespace: kube-system", 53, String::new()),
        ("TCPRoute", "dns-tcp", "kube-dns, namespace: kube-system", 53, String::new()),
        ("TLSRoute", "api", "kubernetes, namespace: default", 443, format!("\n  hostnames: [{API}]")),
    ] {
        let route = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  \
             parentRefs: [{{name: streams, sectionName: {name}}}]{hostnames}\n  \
             rules: [{{backendRefs: [{{name: {service}, port: {port}}}]}}]\n"
        );
        cluster.apply(namespace, &route).await?;
    }
    for (there, kinds) in [("kube-system", &["UDPRoute", "TCPRoute"][..]), ("default", &["TLSRoute"])] {
        cluster.apply(there, &grant(namespace, kinds)).await?;
    }
    let told = ask(cluster, namespace).await;
    for there in ["kube-system", "default"] {
        cluster.delete("ReferenceGrant", there, namespace).await?;
    }
    told
}

async fn ask(cluster: &Cluster, namespace: &str) -> Result<String> {
    let address = cluster.address(namespace, "streams").await?;
    let service = cluster.get("Service", "default", "kubernetes").await?;
    let expected: Ipv4Addr = service["spec"]["clusterIP"].as_str().context("no clusterIP")?.parse()?;
    let dns = SocketAddr::new(address, 53);

    cluster.wait_for_all("DNS over UDP answers", async || udp(dns, 0, expected).await).await?;
    cluster.wait_for_all("DNS over TCP answers", async || tcp(dns, 0, expected).await).await?;
    for id in 1..=TIMES {
        udp(dns, id, expected).await.with_context(|| format!("query {id} over UDP"))?;
        tcp(dns, id, expected).await.with_context(|| format!("query {id} over TCP"))?;
    }

    let roots = cluster.authorities().await?;
    let api = Target::https(address, 443, API, &roots)?.path("/version");
    cluster
        .wait_for_all("the API server answers", async || api.answers(StatusCode::OK, 1).await.map(drop))
        .await?;
    let answer = api.answers(StatusCode::OK, 1).await?;
    let version: serde_json::Value = serde_json::from_slice(&answer.body).context("not its version")?;
    let other = Target::https(address, 443, "another.example", &roots)?;
    ensure!(other.connect().await.is_err(), "a name that no listener has was served");
    Ok(format!("{TIMES} queries each over UDP and TCP; Kubernetes {} by its own TLS", version["gitVersion"]))
}

/// Lets routes of a namespace use Services here.
fn grant(from: &str, kinds: &[&str]) -> String {
    let from_each =
        |kind: &&str| format!("{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {from}}}");
    let from_all = kinds.iter().map(from_each).collect::<Vec<_>>().join(", ");
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: {from}}}\n\
         spec:\n  from: [{from_all}]\n  to: [{{group: \"\", kind: Service}}]\n"
    )
}

async fn udp(server: SocketAddr, id: u16, expected: Ipv4Addr) -> Result<()> {
    let any: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&query(id)).await?;
    let mut answer = [0; 512];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.context("no answer")??;
    check(&answer[..length], id, expected)
}

/// RFC 7766: each message after its length.
async fn tcp(server: SocketAddr, id: u16, expected: Ipv4Addr) -> Result<()> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let query = query(id);
        stream.write_u16(u16::try_from(query.len())?).await?;
        stream.write_all(&query).await?;
        let mut answer = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut answer).await?;
        check(&answer, id, expected)
    };
    tokio::time::timeout(PATIENCE, exchange).await.context("no answer")?
}

/// Asks for the address of the API server's Service (RFC 1035 §4.1).
fn query(id: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in format!("{API}.cluster.local").split('.') {
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend(label.bytes());
    }
    // The root; an address; of the Internet.
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn check(answer: &[u8], id: u16, expected: Ipv4Addr) -> Result<()> {
    ensure!(answer.len() > 12 && answer[..2] == id.to_be_bytes(), "not an answer to query {id}: {answer:?}");
    let (code, answers) = (answer[3] & 0xf, u16::from_be_bytes([answer[6], answer[7]]));
    ensure!(code == 0 && answers > 0, "code {code}, {answers} answers");
    match answer.windows(4).any(|window| window == expected.octets()) {
        true => Ok(()),
        false => bail!("no {expected} in {answer:?}"),
    }
}
