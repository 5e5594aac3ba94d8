//! `cargo run -p headgate-e2e [NAME…]`: what only a cluster can show, against the Headgate that is installed in the
//! cluster of KUBECONFIG. One line per scenario, PASS or FAIL; the exit code is 1 when one failed.
//!
//! It runs where the cluster's load-balancer addresses can be reached (`inside` of e2e/env.sh), and waits for what
//! it has applied by looking, with a named limit. The namespace of a failed scenario stays, to be looked at.

mod bad_input;
mod browser;
mod circuit_breaker;
mod client;
mod clients;
mod cluster;
mod destinations;
mod ext_authz;
mod isolation;
mod leader;
mod load;
mod login;
mod objects;
mod rate_limit_redis;
mod redis;
mod refused;
mod rolling;
mod rollout;
mod rotation;
mod streams;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use cluster::Cluster;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a scenario may take: several times what the slowest one needs on two cores.
const LIMIT: Duration = Duration::from_secs(300);

/// Command line of the scenarios.
#[derive(Parser)]
#[command(version, about = "Scenarios against a Headgate that runs in a cluster")]
struct Arguments {
    /// Only these scenarios; all of them when none is named.
    scenarios: Vec<Scenario>,
    /// The namespace of the installation.
    #[arg(long, default_value = "headgate-system")]
    namespace: String,
    /// The GatewayClass of the scenarios' Gateways.
    #[arg(long, default_value = "headgate")]
    gateway_class: String,
}

/// The scenarios, in the order in which they run: those that disturb the installation itself come last.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    /// Two Gateways on one port don't see each other's routes and certificates.
    Isolation,
    /// What is wrong gets a clear condition, and the rest is served all the while.
    BadInput,
    /// A Secret's new certificate is served within a second, on no connection's cost.
    Rotation,
    /// Bad policies get a sentence, good ones are enforced.
    Refused,
    /// DNS over UDP and TCP, and TLS that passes through.
    Streams,
    /// XBackends: pods without a Service, and a host outside of the cluster.
    Destinations,
    /// h2load, a WebSocket, grpcurl and Redis, with their own protocols.
    Clients,
    /// A browser logs in at an OpenID provider, whose keys change; its session is refreshed and ended.
    Login,
    /// An authorizer that others wrote, over Envoy's `ext_authz` and over HTTP.
    ExtAuthz,
    /// Two replicas hold one limit in Redis, which is killed and comes back.
    RateLimitRedis,
    /// A pod that answers 500: ejected, tried again, restored; a Service that does: its breaker opens and closes.
    CircuitBreaker,
    /// 100,000 requests while a Deployment rolls twice and 50 routes come and go.
    Rolling,
    /// A roll-out of Headgate itself under load.
    Rollout,
    /// kill -9 of the leader.
    Leader,
}

impl Scenario {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Runs it in a namespace of its own; returns what there is to tell.
    async fn run(self, cluster: &Cluster) -> Result<String> {
        let namespace = format!("e2e-{}", self.name());
        cluster.fresh_namespace(&namespace).await?;
        let told = match self {
            Self::Isolation => isolation::run(cluster, &namespace).await,
            Self::BadInput => bad_input::run(cluster, &namespace).await,
            Self::Rotation => rotation::run(cluster, &namespace).await,
            Self::Refused => refused::run(cluster, &namespace).await,
            Self::Destinations => destinations::run(cluster, &namespace).await,
            Self::Clients => clients::run(cluster, &namespace).await,
            Self::Streams => streams::run(cluster, &namespace).await,
            Self::Login => login::run(cluster, &namespace).await,
            Self::ExtAuthz => ext_authz::run(cluster, &namespace).await,
            Self::RateLimitRedis => rate_limit_redis::run(cluster, &namespace).await,
            Self::CircuitBreaker => circuit_breaker::run(cluster, &namespace).await,
            Self::Rolling => rolling::run(cluster, &namespace).await,
            Self::Rollout => rollout::run(cluster, &namespace).await,
            Self::Leader => leader::run(cluster, &namespace).await,
        }?;
        cluster.delete("Namespace", "", &namespace).await?;
        Ok(told)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("headgate-e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all passed.
#[tokio::main(flavor = "current_thread")]
async fn run(arguments: Arguments) -> Result<bool> {
    let cluster = Cluster::connect(arguments.namespace, arguments.gateway_class)
        .await
        .context("the cluster of KUBECONFIG can't be used")?;
    let scenarios = match arguments.scenarios.as_slice() {
        [] => Scenario::value_variants(),
        named => named,
    };
    let mut failed = 0;
    for scenario in scenarios {
        let start = Instant::now();
        // Boxed: the future of all scenarios is large.
        let outcome = match tokio::time::timeout(LIMIT, Box::pin(scenario.run(&cluster))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!("not done after {} s", LIMIT.as_secs())),
        };
        let (verdict, told) = match outcome {
            Ok(told) => ("PASS", told),
            Err(error) => {
                failed += 1;
                ("FAIL", format!("{error:#}"))
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        writeln!(std::io::stdout(), "{verdict}  {:<16} {seconds:>6.1} s  {told}", scenario.name())?;
    }
    Ok(failed == 0)
}
