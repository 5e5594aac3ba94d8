//! `headgate run`: starts the data plane, then runs the control plane on this thread until a signal asks to stop, then
//! drains. Where configuration comes from (files or a cluster) is the only thing that differs.

use crate::{api_server, limits, log, memory, stop::Stop};
use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use futures_util::{FutureExt, TryFutureExt};
use headgate_controller::infra::Infrastructure;
use headgate_controller::lease::Candidate;
use headgate_controller::metrics::Metrics;
use headgate_controller::run::{InCluster, from_files, in_cluster};
use headgate_controller::settings::{CONTROLLER_NAME, Mode, Settings};
use headgate_controller::source::kubernetes::Scope;
use headgate_crds as crds;
use headgate_proxy::{AccessLog, Options, Proxy};
use kube::Config;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// How long a cluster's load balancers get to notice that this pod is about to end.
const UNREADY: Duration = Duration::from_secs(5);
/// How long open requests get after that.
const DRAIN: Duration = Duration::from_secs(30);
/// The Lease of the leader.
const LEASE: &str = "headgate-leader";

/// Flags of `headgate run`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder or file to serve from, instead of a cluster; may be repeated.
    #[arg(short, long, env = "HEADGATE_FILE", value_name = "PATH", value_delimiter = ',', num_args = 1..)]
    file: Vec<PathBuf>,
    /// Where /livez, /readyz, /metrics and /config are served; /config only to loopback.
    #[arg(long, env = "HEADGATE_ADMIN_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1:15000")]
    admin_address: SocketAddr,
    /// Threads that serve requests [default: one per CPU that the process may use].
    #[arg(long, env = "HEADGATE_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Form of the process's own log, on stderr.
    #[arg(long, env = "HEADGATE_LOG_FORMAT", default_value = "text")]
    log_format: log::Format,
    /// Level of it: error, warn, info, debug, trace, or directives such as info,headgate_controller=debug.
    #[arg(long, env = "HEADGATE_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// A line for every request, on stdout [default: as --log-format].
    #[arg(long, env = "HEADGATE_ACCESS_LOG")]
    access_log: Option<AccessLogForm>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Flags that only matter in a cluster.
#[derive(clap::Args)]
#[command(next_help_heading = "In a cluster")]
struct ClusterArgs {
    /// GatewayClasses that name this controller are ours.
    #[arg(long, env = "HEADGATE_CONTROLLER_NAME", value_name = "NAME", default_value = CONTROLLER_NAME)]
    controller_name: String,
    /// This pod: who takes part in leader election.
    #[arg(long, env = "HEADGATE_POD_NAME", value_name = "NAME")]
    pod_name: Option<String>,
    /// Its namespace, where the Lease and the other pods are.
    #[arg(long, env = "HEADGATE_POD_NAMESPACE", value_name = "NAMESPACE")]
    pod_namespace: Option<String>,
    /// Labels of the pods that serve: the endpoints of Gateways.
    #[arg(
        long,
        env = "HEADGATE_POD_SELECTOR",
        value_name = "LABELS",
        default_value = "app.kubernetes.io/name=headgate"
    )]
    pod_selector: String,
    /// Type of Gateways' Services.
    #[arg(
        long,
        env = "HEADGATE_SERVICE_TYPE",
        value_name = "TYPE",
        default_value = "LoadBalancer",
        ignore_case = true
    )]
    service_type: ServiceType,
    /// Their loadBalancerClass.
    #[arg(long, env = "HEADGATE_LOAD_BALANCER_CLASS", value_name = "CLASS")]
    load_balancer_class: Option<String>,
    /// Their externalTrafficPolicy.
    #[arg(
        long,
        env = "HEADGATE_EXTERNAL_TRAFFIC_POLICY",
        value_name = "POLICY",
        default_value = "Cluster",
        ignore_case = true
    )]
    external_traffic_policy: TrafficPolicy,
    /// Ports on the pods, one for each port of each Gateway.
    #[arg(long, env = "HEADGATE_PORT_RANGE", value_name = "FIRST-LAST", default_value = "20000-29999", value_parser = port_range)]
    port_range: RangeInclusive<u16>,
    /// Namespaces whose Secrets are read [default: all].
    #[arg(long, env = "HEADGATE_SECRET_NAMESPACES", value_name = "LIST", value_delimiter = ',')]
    secret_namespaces: Vec<String>,
}

/// Forms of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AccessLogForm {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
    /// None.
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ServiceType {
    #[value(name = "LoadBalancer")]
    LoadBalancer,
    #[value(name = "NodePort")]
    NodePort,
    #[value(name = "ClusterIP")]
    ClusterIp,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TrafficPolicy {
    #[value(name = "Cluster")]
    Cluster,
    #[value(name = "Local")]
    Local,
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let range = text.split_once('-').and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
    match range {
        Some(range) if !range.is_empty() && *range.start() >= 1024 => Ok(range),
        _ => Err("expected FIRST-LAST, both between 1024 and 65535, such as 20000-29999".to_owned()),
    }
}

/// Serves until a signal asks to stop, then drains.
pub fn run(args: Args) -> Result<()> {
    log::start(args.log_format, &args.log_level).context("--log-level")?;
    limits::set();
    // Once for kube's client; the proxy names the provider itself. Fails when it is set already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> Result<()> {
    let signals = Stop::new().context("listen for signals")?;
    let metrics = Metrics::default();
    let proxy = start_proxy(&args, &metrics)?;
    tracing::info!(version = crate::version::VERSION, admin = %proxy.admin_address(), "started");
    // Ends with the runtime.
    tokio::spawn(headgate_proxy::keep_giving_back(memory::give_back));
    let publisher = proxy.publisher();
    let (stop, stopped) = watch::channel(false);
    if args.file.is_empty() {
        let (options, settings) = in_cluster_options(args.cluster).await?;
        let control = in_cluster(options, settings, publisher, metrics, stopped).map(Ok);
        // In a box, as below: it holds all that the controller knows.
        Box::pin(until_stopped(control, proxy, signals, stop, UNREADY)).await
    } else {
        let settings = settings(&args.cluster, Mode::Files);
        let control = from_files(args.file, settings, publisher, metrics, stopped).map_err(Into::into);
        Box::pin(until_stopped(control, proxy, signals, stop, Duration::ZERO)).await
    }
}

fn start_proxy(args: &Args, metrics: &Metrics) -> Result<Proxy> {
    let cpus = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let form = args.access_log.unwrap_or(match args.log_format {
        log::Format::Json => AccessLogForm::Json,
        log::Format::Text => AccessLogForm::Text,
    });
    let access_log = match form {
        AccessLogForm::Json => AccessLog::Json,
        AccessLogForm::Text => AccessLog::Text,
        AccessLogForm::Off => AccessLog::Off,
    };
    let threads = args.threads.unwrap_or(cpus).get();
    let give_back = memory::give_back;
    let mut options = Options { threads, access_log, give_back, ..Options::new(args.admin_address) };
    metrics.register(&mut options.registry);
    headgate_proxy::start(options)
        .with_context(|| format!("start the proxy, admin address {}", args.admin_address))
}

/// Runs the control plane until a signal, then drains; the control plane goes on while load balancers take notice, so that
/// the last requests find live endpoints.
async fn until_stopped(
    control: impl Future<Output = Result<()>>,
    proxy: Proxy,
    mut signals: Stop,
    stop: watch::Sender<bool>,
    unready: Duration,
) -> Result<()> {
    let mut control = std::pin::pin!(control);
    let signal = tokio::select! {
        ended = &mut control => {
            ended?;
            return Err(anyhow!("the source of configuration ended"));
        }
        signal = signals.asked() => signal,
    };
    tracing::info!(signal, "draining; a second signal ends it at once");
    let drain = async {
        let ending = async {
            tokio::time::sleep(unready).await;
            // It is waited for below.
            let _ = stop.send(true);
        };
        let ((), (), ended) = tokio::join!(proxy.drain(unready, DRAIN), ending, control);
        ended
    };
    tokio::select! {
        ended = drain => ended?,
        signal = signals.asked() => tracing::warn!(signal, "ended while draining"),
    }
    tracing::info!("stopped");
    Ok(())
}

fn settings(args: &ClusterArgs, mode: Mode) -> Settings {
    Settings { controller_name: args.controller_name.as_str().into(), ..Settings::new(mode) }
}

async fn in_cluster_options(args: ClusterArgs) -> Result<(InCluster, Settings)> {
    // One socket for both families where the node has IPv6.
    let dual = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    let bind = if dual { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::from([0, 0, 0, 0]) };
    let settings = settings(&args, Mode::Cluster { bind });
    let config = match Config::incluster_env() {
        Ok(config) => config,
        Err(_) => Config::infer().await.context("find a cluster: no service account of a pod, and no kubeconfig; to serve without a cluster use -f")?,
    };
    let namespace = args.pod_namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = api_server::connect(config).context("connect to the API server")?;
    let version = client.apiserver_version().await.context("reach the API server")?;
    tracing::info!(kubernetes = version.git_version, "connected to the cluster");
    let identity = args.pod_name.unwrap_or_else(|| format!("headgate-{}", std::process::id()));
    let service = crds::ServiceParameters {
        kind: Some(match args.service_type {
            ServiceType::LoadBalancer => crds::ServiceType::LoadBalancer,
            ServiceType::NodePort => crds::ServiceType::NodePort,
            ServiceType::ClusterIp => crds::ServiceType::ClusterIp,
        }),
        load_balancer_class: args.load_balancer_class,
        external_traffic_policy: Some(match args.external_traffic_policy {
            TrafficPolicy::Cluster => crds::ExternalTrafficPolicy::Cluster,
            TrafficPolicy::Local => crds::ExternalTrafficPolicy::Local,
        }),
        ..crds::ServiceParameters::default()
    };
    let scope = Scope {
        secret_namespaces: args.secret_namespaces,
        pod_namespace: namespace.clone(),
        pod_selector: args.pod_selector,
    };
    let candidate = Candidate { namespace, lease: LEASE.to_owned(), identity };
    let infrastructure = Infrastructure { ports: args.port_range, service };
    Ok((InCluster { client, scope, candidate, infrastructure }, settings))
}
