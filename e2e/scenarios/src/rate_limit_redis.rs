//! One limit that all replicas hold together in Redis: exactly so many requests pass, whoever gets them. Redis is killed: requests
//! go on as the policy says, and nobody waits. It comes back: the limit holds again.

use crate::client::{Connection, Target};
use crate::clients::output;
use crate::cluster::{Cluster, Condition, SOON};
use crate::objects::{self, HTTP};
use crate::redis::Redis;
use crate::rollout::PODS;
use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use serde_json::{Value, json};
use std::fmt;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The port of the chart that tells metrics.
const ADMIN: u16 = 15_000;
const STORE_DURATION: &str = "headgate_rate_limit_store_duration_seconds";
const STORE_FAILURES: &str = "headgate_rate_limit_store_failures_total";
const HOST: &str = "shared.example";
const LIMIT: usize = 100;
/// So many get that limit and no more.
const REQUESTS: usize = 10_000;
/// Clients at a time: replicas share them at random, so both are asked.
const CLIENTS: usize = 40;
/// Requests while Redis is gone.
const WITHOUT: usize = 1_000;
/// How long requests wait for Redis while the limit is held: the longest that there is. A busy machine is slow to answer, and a
/// request that gave up is counted by its replica alone.
const PATIENT: &str = "5s";
/// How long they wait while it is gone: the default.
const TIMEOUT: &str = "50ms";
/// What a request may wait for Redis while it is gone, and take in all: far more than the policy's `timeout`, because clocks of
/// busy machines are late, and far less than what connections that nobody answers take.
const PROMPT: Duration = Duration::from_secs(5);

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    let mut redis = Redis::start(cluster).await?;
    cluster.apply(namespace, &objects::backend("web", 2)).await?;
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &[HTTP])).await?;
    let route = objects::route("limited", &objects::parent("web"), HOST, &objects::to("web"));
    cluster.apply(namespace, &route).await?;
    cluster.rolled_out(namespace, "web").await?;
    let target = Target::http(cluster.address(namespace, "web").await?, 80, HOST);
    cluster.wait("the route is served", SOON, async || target.answers(StatusCode::OK, 10).await).await?;
    cluster.apply(namespace, &policy(&redis)).await?;
    programmed(cluster, namespace).await?;
    let whole = held(cluster, &redis, &target, REQUESTS).await?;

    store(cluster, namespace, &json!({"redis": {"timeout": TIMEOUT}})).await?;
    redis.kill().await?;
    let before = Waits::of(cluster).await?;
    let slowest = without(cluster, namespace, &target).await?;
    let waits = Waits::of(cluster).await?.since(&before);
    ensure!(waits.longer_than(PROMPT) == 0.0, "without Redis requests waited for it: {waits}");

    redis.start_again().await?;
    let patient = json!({"onUnavailable": "Local", "redis": {"timeout": PATIENT}});
    store(cluster, namespace, &patient).await?;
    let again = held(cluster, &redis, &target, REQUESTS / 5).await.context("with Redis back")?;
    Ok(format!(
        "{whole}; Redis killed: as onUnavailable says, slowest answer of {} {slowest:.0?}, {waits}; Redis back: {again}",
        3 * WITHOUT
    ))
}

/// How long requests have waited for the store, as the replicas count it.
struct Waits {
    /// Upper bounds in seconds, and how many took no longer.
    buckets: Vec<(f64, f64)>,
}

impl Waits {
    async fn of(cluster: &Cluster) -> Result<Self> {
        let mut buckets = Vec::<(f64, f64)>::new();
        for (name, text) in metrics(cluster).await? {
            let mut of_pod = Vec::new();
            for (labels, count) in series(&text, &format!("{STORE_DURATION}_bucket"))? {
                let bound = labels.strip_prefix("{le=\"").and_then(|rest| rest.strip_suffix("\"}"));
                of_pod.push((bound.with_context(|| format!("no bucket: {labels}"))?.parse()?, count));
            }
            ensure!(!of_pod.is_empty(), "{name} tells nothing of {STORE_DURATION}");
            if buckets.is_empty() {
                buckets = of_pod;
            } else {
                buckets.iter_mut().zip(of_pod).for_each(|((_, sum), (_, count))| *sum += count);
            }
        }
        Ok(Self { buckets })
    }

    fn since(mut self, before: &Self) -> Self {
        self.buckets.iter_mut().zip(&before.buckets).for_each(|((_, sum), (_, before))| *sum -= before);
        self
    }

    fn longer_than(&self, time: Duration) -> f64 {
        let within = self.buckets.iter().find(|(bound, _)| *bound >= time.as_secs_f64());
        self.all() - within.map_or(0.0, |(_, count)| *count)
    }

    fn all(&self) -> f64 {
        self.buckets.last().map_or(0.0, |(_, count)| *count)
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longer = |milliseconds| self.longer_than(Duration::from_millis(milliseconds));
        let (all, timeout, twice) = (self.all(), longer(50), longer(100));
        write!(f, "of {all} waits for it {timeout} over its timeout of 50 ms and {twice} over 100 ms")
    }
}

/// How many requests the replicas have judged without the store.
async fn failures(cluster: &Cluster) -> Result<f64> {
    let mut sum = 0.0;
    for (name, text) in metrics(cluster).await? {
        let counts = series(&text, STORE_FAILURES)?;
        ensure!(counts.len() == 1, "{name} tells nothing of {STORE_FAILURES}");
        sum += counts[0].1;
    }
    Ok(sum)
}

/// The replicas, and what each tells.
async fn metrics(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for pod in cluster.list("Pod", &cluster.installation, PODS).await? {
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        let text = cluster.ask_pod(&cluster.installation, name, ADMIN, "/metrics").await?;
        all.push((name.to_owned(), text));
    }
    Ok(all)
}

/// The labels and the values of a metric.
fn series<'a>(text: &'a str, name: &str) -> Result<Vec<(&'a str, f64)>> {
    let of_name = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    // Another metric's name may begin with this one.
    let whole = of_name.filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'));
    whole.map(|(labels, value)| Ok((labels, value.parse()?))).collect()
}

/// Changes the policy's store, and waits until that is in force.
async fn store(cluster: &Cluster, namespace: &str, change: &Value) -> Result<()> {
    cluster.patch("RateLimitPolicy", namespace, "shared", &json!({"spec": {"store": change}})).await?;
    programmed(cluster, namespace).await
}

/// Waits until the policy as it is now is in force.
async fn programmed(cluster: &Cluster, namespace: &str) -> Result<()> {
    cluster
        .wait("the policy is programmed", SOON, async || {
            let object = cluster.get("RateLimitPolicy", namespace, "shared").await?;
            let conditions = &object["status"]["ancestors"][0]["conditions"];
            let condition = Condition::find(conditions, "Programmed")?;
            let generation = object["metadata"]["generation"].as_i64();
            ensure!(
                condition.status == "True" && condition.observed_generation == generation,
                "{conditions}"
            );
            Ok(())
        })
        .await
}

fn policy(redis: &Redis) -> String {
    let spec = json!({
        "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "limited"}],
        // Nothing comes back within the test.
        "limits": {"all": {"rates": [{"limit": LIMIT, "window": "8784h"}]}},
        "store": {
            "type": "Redis",
            "onUnavailable": "Local",
            "redis": {"address": [redis.address.to_string()], "timeout": PATIENT},
        },
    });
    let metadata = json!({"name": "shared"});
    json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "RateLimitPolicy", "metadata": metadata, "spec": spec,
    })
    .to_string()
}

/// The policy's limit is held by all replicas together, to the request.
async fn held(cluster: &Cluster, redis: &Redis, target: &Target, requests: usize) -> Result<String> {
    let (host, port) = (redis.address.ip().to_string(), redis.address.port().to_string());
    cluster
        .wait("the limit holds, and Redis alone says so", SOON, async || {
            let before = failures(cluster).await?;
            let counted = burst(target, 2 * CLIENTS).await?;
            let alone = failures(cluster).await? - before;
            ensure!(counted.passed == 0 && alone == 0.0, "{} passed, {alone} without Redis", counted.passed);
            Ok(())
        })
        .await?;
    output("redis-cli", &["-h", &host, "-p", &port, "FLUSHALL"]).await?;
    let before = failures(cluster).await?;
    let Counted { passed, limited, .. } = burst(target, requests).await?;
    let alone = failures(cluster).await? - before;
    ensure!(
        (passed, limited, alone) == (LIMIT, requests - LIMIT, 0.0),
        "{passed} passed, {limited} didn't; {alone} of them were judged without Redis"
    );
    Ok(format!("{passed} of {requests} requests passed"))
}

/// Without Redis each of the three answers to that, one after the other. Says how long the slowest request took.
async fn without(cluster: &Cluster, namespace: &str, target: &Target) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    // The first right after the kill, so that the requests that find out are among them.
    for (says, least, most) in [("Local", 1, 2 * LIMIT), ("Allow", WITHOUT, WITHOUT), ("Deny", 0, 0)] {
        store(cluster, namespace, &json!({"onUnavailable": says})).await?;
        if says != "Local" {
            let wanted = if says == "Allow" { StatusCode::OK } else { StatusCode::TOO_MANY_REQUESTS };
            let took = format!("onUnavailable: {says}");
            cluster.wait(&took, SOON, async || target.answers(wanted, 20).await).await?;
        }
        let counted = burst(target, WITHOUT).await?;
        let passed = counted.passed;
        ensure!((least..=most).contains(&passed), "onUnavailable: {says}: {passed} of {WITHOUT} passed");
        slowest = slowest.max(counted.slowest);
    }
    ensure!(slowest <= PROMPT, "without Redis a request took {slowest:.1?}");
    Ok(slowest)
}

/// What became of requests.
#[derive(Default)]
struct Counted {
    passed: usize,
    limited: usize,
    slowest: Duration,
}

/// Sends requests over several connections; everything but 200 and 429 is an error.
async fn burst(target: &Target, requests: usize) -> Result<Counted> {
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        let share = requests / CLIENTS + usize::from(n < requests % CLIENTS);
        clients.spawn(client(target.clone(), share));
    }
    let mut sum = Counted::default();
    while let Some(done) = clients.join_next().await {
        let Counted { passed, limited, slowest } = done??;
        sum.passed += passed;
        sum.limited += limited;
        sum.slowest = sum.slowest.max(slowest);
    }
    Ok(sum)
}

async fn client(target: Target, requests: usize) -> Result<Counted> {
    let mut counted = Counted::default();
    let mut kept: Option<Connection> = None;
    for _ in 0..requests {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => target.connect().await?,
        };
        if !connection.is_open().await {
            connection = target.connect().await?;
        }
        let begin = Instant::now();
        let answer = connection.get(&target).await?;
        counted.slowest = counted.slowest.max(begin.elapsed());
        match answer.status {
            StatusCode::OK => counted.passed += 1,
            StatusCode::TOO_MANY_REQUESTS => counted.limited += 1,
            other => bail!("{other}: {}", String::from_utf8_lossy(&answer.body)),
        }
        kept = Some(connection);
    }
    Ok(counted)
}
