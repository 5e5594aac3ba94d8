//! A Secret's new certificate is served within a second by every replica, and connections that were there before go
//! on.

use crate::client::Target;
use crate::cluster::{Cluster, SOON};
use crate::load::{Connections, Load, Tally};
use crate::objects::{self, Certificate};
use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use std::time::{Duration, Instant};

const HOST: &str = "rotation.example";
const ROTATIONS: usize = 3;
const CONNECTIONS: usize = 16;

/// From the API server's answer until no handshake shows the old certificate.
const WITHIN: Duration = Duration::from_secs(1);

/// How long handshakes are looked at after a change, one every [`PROBE`].
const WATCHED: Duration = Duration::from_secs(3);
const PROBE: Duration = Duration::from_millis(20);

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    let certificates = (0..=ROTATIONS).map(|_| Certificate::new(HOST)).collect::<Result<Vec<_>>>()?;
    let trusted: Vec<_> = certificates.iter().map(|certificate| certificate.der.clone()).collect();
    cluster.apply(namespace, &objects::backend("web", 2)).await?;
    cluster.apply(namespace, &certificates[0].secret("web")).await?;
    let https = objects::https("https", 443, "web");
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &[&https])).await?;
    cluster
        .apply(namespace, &objects::route("web", &objects::parent("web"), HOST, &objects::to("web")))
        .await?;
    cluster.rolled_out(namespace, "web").await?;
    let target = Target::https(cluster.address(namespace, "web").await?, 443, HOST, &trusted)?;
    cluster.wait("the route is served", SOON, async || target.answers(StatusCode::OK, 10).await).await?;

    let load = Load::new().add(CONNECTIONS, Connections::Kept, Duration::from_millis(20), &target);
    let mut slowest = Duration::ZERO;
    for pair in certificates.windows(2) {
        cluster.apply(namespace, &pair[1].secret("web")).await?;
        slowest = slowest.max(changed(&target, &pair[0], &pair[1]).await?);
    }
    let tally = Tally::sum(&load.stop().await?);
    tally.flawless()?;
    ensure!(
        tally.connections == CONNECTIONS as u64,
        "connections were dropped: {} were opened",
        tally.connections
    );
    ensure!(slowest <= WITHIN, "the old certificate was still served {slowest:.0?} after the change");
    Ok(format!("{ROTATIONS} rotations, the old certificate last seen after {slowest:.0?}; {tally}"))
}

/// Watches handshakes, and returns how long after now the old certificate was still shown.
async fn changed(target: &Target, old: &Certificate, new: &Certificate) -> Result<Duration> {
    let start = Instant::now();
    let (mut last, mut shown_new) = (Duration::ZERO, false);
    while start.elapsed() < WATCHED {
        let begin = start.elapsed();
        let leaf = target.connect().await.context("a handshake after the change")?.leaf;
        match leaf {
            Some(leaf) if leaf == new.der => shown_new = true,
            Some(leaf) if leaf == old.der => last = begin,
            _ => bail!("neither the old nor the new certificate is shown"),
        }
        tokio::time::sleep(PROBE).await;
    }
    ensure!(shown_new, "the new certificate isn't shown after {} s", WATCHED.as_secs());
    Ok(last)
}
