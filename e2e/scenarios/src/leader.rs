//! kill -9 of the process that holds the Lease. Connections to the other replica notice nothing; statuses move on
//! within the lease time; connections and attempts that were on their way to the dead pod fail for a moment, as they
//! must, and no longer.

use crate::client::Target;
use crate::cluster::{Cluster, Condition, SOON};
use crate::load::{Connections, Load, Tally};
use crate::objects::{self, HTTP};
use crate::rollout;
use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

const HOST: &str = "leader.example";
const KEPT: usize = 24;

/// After the kill: the kubelet starts the container anew or finds it unready, the other replica takes the endpoint
/// out, kube-proxy follows.
const RECOVERED: Duration = Duration::from_secs(10);

/// What a candidate may take beyond the lease's own duration, until its first status is written.
const TAKEOVER: Duration = Duration::from_secs(3);

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    cluster.apply(namespace, &objects::backend("web", 2)).await?;
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &[HTTP])).await?;
    cluster
        .apply(namespace, &objects::route("web", &objects::parent("web"), HOST, &objects::to("web")))
        .await?;
    cluster.rolled_out(namespace, "web").await?;
    let address = cluster.address(namespace, "web").await?;
    let target = Target::http(address, 80, HOST);
    cluster.wait("the route is served", SOON, async || target.answers(StatusCode::OK, 10).await).await?;

    let (leader, lease) = leader(cluster).await?;
    let pods = cluster.list("Pod", &cluster.installation, rollout::PODS).await?;
    ensure!(pods.len() == 2, "{} pods of Headgate, not two", pods.len());
    let load = Load::new().add(KEPT, Connections::Kept, Duration::from_millis(10), &target);
    let settled = load.requests() + 2_000;
    cluster
        .wait("load", SOON, async || {
            ensure!(load.requests() > settled, "{} requests so far", load.requests());
            Ok(())
        })
        .await?;
    let killed = Instant::now();
    kill(&leader).await?;

    let rule = objects::to("web");
    cluster
        .apply(namespace, &objects::route("after", &objects::parent("web"), "after.example", &rule))
        .await?;
    let accepted = cluster
        .wait("a route applied after the kill is accepted", lease + TAKEOVER + SOON, async || {
            let route = cluster.get("HTTPRoute", namespace, "after").await?;
            let condition = Condition::find(&route["status"]["parents"][0]["conditions"], "Accepted")?;
            ensure!(condition.status == "True", "{condition:?}");
            Ok(killed.elapsed())
        })
        .await?;
    tokio::time::sleep_until((killed + RECOVERED + Duration::from_secs(2)).into()).await;
    let tallies = load.stop().await?;
    judge(&tallies, killed)?;
    ensure!(accepted <= lease + TAKEOVER, "a new status took {accepted:.1?}, the lease {lease:?}");
    recovered(cluster, &target).await?;
    let sum = Tally::sum(&tallies);
    let whole = tallies.iter().filter(|tally| tally.failures == 0).count();
    let last = sum.failed.map_or(Duration::ZERO, |(_, last)| last.duration_since(killed));
    Ok(format!(
        "a new status after {accepted:.1?} (lease {} s); {whole} of {KEPT} connections unharmed, {} failures on the \
         others until {last:.1?}; {} requests",
        lease.as_secs(),
        sum.failures,
        sum.requests
    ))
}

/// Some connections go to the other replica and see nothing; the others fail only for a moment.
fn judge(tallies: &[Tally], killed: Instant) -> Result<()> {
    let whole = tallies.iter().filter(|tally| tally.failures == 0 && tally.connections == 1).count();
    let words = &Tally::sum(tallies).words;
    ensure!(whole > 0, "every connection failed, those to the other replica too: {words:?}");
    ensure!(whole < tallies.len(), "no connection went to the leader: the kill hit nothing");
    for tally in tallies {
        if let Some((first, last)) = tally.failed {
            ensure!(first + Duration::from_secs(1) >= killed, "a request failed before the kill: {words:?}");
            let late = last.saturating_duration_since(killed);
            ensure!(late <= RECOVERED, "requests still failed {late:.1?} after the kill: {words:?}");
        }
    }
    Ok(())
}

/// The pod that holds the Lease, and the Lease's duration.
async fn leader(cluster: &Cluster) -> Result<(Value, Duration)> {
    let leases = cluster.list("Lease", &cluster.installation, "").await?;
    ensure!(leases.len() == 1, "{} Leases in {}, not one", leases.len(), cluster.installation);
    let spec = &leases[0]["spec"];
    let holder = spec["holderIdentity"].as_str().context("nobody holds the Lease")?;
    let seconds = spec["leaseDurationSeconds"].as_u64().context("the Lease has no duration")?;
    let pods = cluster.list("Pod", &cluster.installation, rollout::PODS).await?;
    let pod = pods
        .into_iter()
        .find(|pod| pod["metadata"]["name"].as_str().is_some_and(|name| holder.starts_with(name)));
    Ok((pod.with_context(|| format!("no pod holds the Lease: {holder}"))?, Duration::from_secs(seconds)))
}

/// SIGKILL from the node's namespace of processes, where the pod's are found by its id in their cgroup.
async fn kill(pod: &Value) -> Result<()> {
    let node = pod["spec"]["nodeName"].as_str().context("the leader has no node")?;
    let uid = pod["metadata"]["uid"].as_str().context("the leader has no id")?;
    // systemd's cgroups have underscores in the id.
    let pattern = uid.replace('-', "[-_]");
    let script = format!(
        "for p in $(pgrep -x headgate); do if grep -q '{pattern}' /proc/$p/cgroup; then kill -KILL $p && echo $p; fi; done"
    );
    let mut command = Command::new("docker");
    command.args(["exec", node, "bash", "-c", &script]);
    // On a thread of its own: the load goes on meanwhile.
    let out = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(
        out.status.success() && !out.stdout.is_empty(),
        "no process of the leader was found on {node}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

/// Both replicas are ready again, so that what comes next finds two.
async fn recovered(cluster: &Cluster, target: &Target) -> Result<()> {
    cluster
        .wait("both replicas are ready again", SOON, async || {
            let pods = cluster.list("Pod", &cluster.installation, rollout::PODS).await?;
            for pod in &pods {
                let ready = Condition::find(&pod["status"]["conditions"], "Ready");
                ensure!(ready.is_ok_and(|ready| ready.status == "True"), "{} isn't", pod["metadata"]["name"]);
            }
            target.answers(StatusCode::OK, 10).await?;
            Ok(())
        })
        .await
}
