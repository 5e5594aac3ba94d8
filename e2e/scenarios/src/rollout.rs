//! A roll-out of Headgate itself: every pod is replaced under load, on kept and on new connections, and no request
//! fails.

use crate::client::Target;
use crate::cluster::{Cluster, SOON};
use crate::load::{Connections, Load, Tally};
use crate::objects::{self, HTTP};
use anyhow::{Context, Result, ensure};
use http::StatusCode;
use std::time::Duration;

const HOST: &str = "rollout.example";

/// The label of the chart's pods.
pub const PODS: &str = "app.kubernetes.io/name=headgate";

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    cluster.apply(namespace, &objects::backend("web", 2)).await?;
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &[HTTP])).await?;
    cluster
        .apply(namespace, &objects::route("web", &objects::parent("web"), HOST, &objects::to("web")))
        .await?;
    cluster.rolled_out(namespace, "web").await?;
    let target = Target::http(cluster.address(namespace, "web").await?, 80, HOST);
    cluster.wait("the route is served", SOON, async || target.answers(StatusCode::OK, 10).await).await?;

    let installation = &cluster.installation;
    let deployments = cluster.list("Deployment", installation, PODS).await?;
    let deployment = deployments.first().and_then(|d| d["metadata"]["name"].as_str());
    let deployment = deployment.with_context(|| format!("no Deployment of Headgate in {installation}"))?;
    let load = Load::new().add(16, Connections::Kept, Duration::from_millis(10), &target).add(
        8,
        Connections::Fresh,
        Duration::from_millis(20),
        &target,
    );
    let restarted = cluster.restart(installation, deployment, PODS).await;
    // A connection that went to a pod of before would have ended by now.
    let after = load.requests();
    let more = cluster.wait("requests after the roll-out", SOON, async || {
        ensure!(load.requests() > after + 5_000, "{} so far", load.requests());
        Ok(())
    });
    let more = more.await;
    let tally = Tally::sum(&load.stop().await?);
    tally.flawless()?;
    restarted?;
    more?;
    Ok(tally.to_string())
}
