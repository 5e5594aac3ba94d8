//! Two Gateways on the same ports, served by the same pods, don't see each other's routes and certificates: each has
//! an address of its own, and a route or a Secret of one says nothing about the other.

use crate::client::Target;
use crate::cluster::{Cluster, SOON};
use crate::objects::{self, Certificate, HTTP};
use anyhow::{Context, Result, ensure};
use http::StatusCode;

/// Answers in a row that show that both replicas give them.
const OFTEN: usize = 10;

const HOST: &str = "shop.example";

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    let mut certificates = Vec::new();
    for side in ["left", "right"] {
        let certificate = Certificate::new(HOST)?;
        let https = objects::https("https", 443, side);
        for yaml in [
            objects::backend(side, 1),
            certificate.secret(side),
            objects::gateway(side, &cluster.gateway_class, &[HTTP, &https]),
            // The left has all paths, the right has /right only.
            objects::route(
                side,
                &objects::parent(side),
                HOST,
                &match side {
                    "left" => objects::to(side),
                    _ => format!("{{matches: [{{path: {{value: /{side}}}}}], {}", &objects::to(side)[1..]),
                },
            ),
        ] {
            cluster.apply(namespace, &yaml).await?;
        }
        certificates.push(certificate);
    }
    let (left, right) =
        (cluster.address(namespace, "left").await?, cluster.address(namespace, "right").await?);
    ensure!(left != right, "both Gateways have the address {left}");

    // Either certificate is trusted: which one is shown is what is looked at.
    let trusted = [certificates[0].der.clone(), certificates[1].der.clone()];
    for port in [80, 443] {
        let target = |address| match port {
            80 => Ok(Target::http(address, port, HOST)),
            _ => Target::https(address, port, HOST, &trusted),
        };
        let (left, right) = (target(left)?, target(right)?);
        for (target, path, backend) in
            [(&left, "/", "left"), (&left, "/right", "left"), (&right, "/right", "right")]
        {
            let target = target.path(path);
            let answer = cluster
                .wait(&format!("port {port}: {path} of {backend} is served"), SOON, async || {
                    target.answers(StatusCode::OK, OFTEN).await
                })
                .await?;
            let pod = answer.pod()?;
            ensure!(pod.starts_with(backend), "port {port}: {path} of {backend} is served by {pod}");
        }
        right.answers(StatusCode::NOT_FOUND, OFTEN).await.context("the left's route through the right")?;
        for (target, own) in [(&left, &certificates[0]), (&right, &certificates[1])] {
            for _ in 0..OFTEN * usize::from(port == 443) {
                let shown = target.connect().await?.leaf;
                ensure!(shown.as_ref() == Some(&own.der), "a Gateway shows the other's certificate");
            }
        }
    }
    Ok(format!("{left} and {right}, ports 80 and 443"))
}
