//! 100,000 requests through a load-balancer address to three pods, while their Deployment rolls twice and 50 routes
//! are added, used and removed: none may fail.

use crate::client::Target;
use crate::cluster::{Cluster, PODS, SOON};
use crate::load::{Connections, Load, Tally};
use crate::objects::{self, HTTP};
use anyhow::{Context, Result, ensure};
use http::StatusCode;
use std::time::Duration;

const REQUESTS: u64 = 100_000;
const ROUTES: usize = 50;
const REPLICAS: usize = 3;
const ROLLS: usize = 2;

const HOST: &str = "rolling.example";

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    cluster.apply(namespace, &objects::backend("web", REPLICAS)).await?;
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &[HTTP])).await?;
    cluster
        .apply(namespace, &objects::route("web", &objects::parent("web"), HOST, &objects::to("web")))
        .await?;
    cluster.rolled_out(namespace, "web").await?;
    let address = cluster.address(namespace, "web").await?;
    let target = Target::http(address, 80, HOST);
    cluster.wait("the route is served", SOON, async || target.answers(StatusCode::OK, 10).await).await?;

    // Less than two cores can do beside a cluster: what fails shall not fail for want of a processor.
    let load = Load::new().add(24, Connections::Kept, Duration::from_millis(10), &target).add(
        8,
        Connections::Fresh,
        Duration::from_millis(40),
        &target,
    );
    let rolls = async {
        for _ in 0..ROLLS {
            cluster.restart(namespace, "web", "app=web").await?;
        }
        Ok(())
    };
    let changes = tokio::try_join!(rolls, come_and_go(cluster, namespace, &target, address));
    let enough = cluster
        .wait("the requests are sent", PODS, async || {
            let sent = load.requests();
            ensure!(sent >= REQUESTS, "{sent} so far");
            Ok(())
        })
        .await;
    let tally = Tally::sum(&load.stop().await?);
    tally.flawless()?;
    changes?;
    enough?;
    let pods = tally.pods.len();
    ensure!(pods >= REPLICAS * (ROLLS + 1), "only {pods} pods have answered: {:?}", tally.pods);
    Ok(format!("{tally}; {pods} pods, {ROUTES} routes came and went"))
}

/// Adds routes with hosts of their own, each of which must serve, and removes them, after which they must not.
async fn come_and_go(
    cluster: &Cluster,
    namespace: &str,
    other: &Target,
    address: std::net::IpAddr,
) -> Result<()> {
    let target = |n: usize| Target::http(address, 80, &format!("r{n}.example"));
    for n in 0..ROUTES {
        let rule = objects::to("web");
        let route =
            objects::route(&format!("r{n}"), &objects::parent("web"), &format!("r{n}.example"), &rule);
        cluster.apply(namespace, &route).await?;
        cluster
            .wait(&format!("route {n} is served"), SOON, async || target(n).answers(StatusCode::OK, 3).await)
            .await?;
    }
    for n in 0..ROUTES {
        cluster.delete("HTTPRoute", namespace, &format!("r{n}")).await?;
        let gone = async || target(n).answers(StatusCode::NOT_FOUND, 3).await;
        cluster.wait(&format!("route {n} goes"), SOON, gone).await?;
    }
    other.answers(StatusCode::OK, 3).await.context("after all routes are gone")?;
    Ok(())
}
