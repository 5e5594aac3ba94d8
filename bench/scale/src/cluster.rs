//! etcd and an API server, and what a client needs to reach it. There are no nodes, and no controllers but the API server's own.

use crate::api::{Server, Verb, replace};
use crate::objects;
use crate::process::Process;
use anyhow::{Context, Result, ensure};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where the API server listens.
const ADDRESS: &str = "127.0.0.1:6443";
/// The API server starts in seconds where it has a CPU to itself.
const START: Duration = Duration::from_secs(180);
/// Connections that make objects.
const MAKERS: usize = 8;
/// How often making an object is tried: the range of Services' addresses takes the API server a while to find.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// Running programs.
pub struct Cluster {
    /// A way to it.
    pub server: Server,
    /// The way of others.
    pub kubeconfig: PathBuf,
    /// In the order in which they end.
    processes: [Process; 2],
}

/// Gives this process's network namespace its loopback, and the addresses of endpoints and of the API server: the kernel takes all
/// of them for its own. Loopback addresses won't do, for EndpointSlices may not have them.
pub fn prepare_network() -> Result<()> {
    // A new one has none. The routes of one that others use are none of our business.
    let routes = fs::read_to_string("/proc/self/net/route").context("/proc/self/net/route")?;
    ensure!(routes.lines().count() <= 1, "not in a network namespace of its own: start it by bench/scale.sh");
    ip(&["link", "set", "lo", "up"])?;
    ip(&["route", "add", "local", objects::ADDRESSES, "dev", "lo"])
}

fn ip(arguments: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(arguments).output().context("run ip (Debian package iproute2)")?;
    ensure!(done.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

impl Cluster {
    /// Starts both of `programs`, with their files in `folder`. Without `usual_gc` the API server collects garbage only when it is told to.
    pub fn start(programs: &Path, folder: &Path, usual_gc: bool) -> Result<Self> {
        let files = Files::write(folder)?;
        let etcd = Process::start(&programs.join("etcd"), &etcd_arguments(folder), &[], folder)?;
        let arguments = api_server_arguments(folder);
        let limit = format!("{}KiB", memory()? / 5 * 3);
        let when_told = [("GOGC", Path::new("off")), ("GOMEMLIMIT", Path::new(&limit))];
        let collects: &[_] = if usual_gc { &[] } else { &when_told };
        let mut api_server = Process::start(&programs.join("kube-apiserver"), &arguments, collects, folder)?;
        let server = Server::new(ADDRESS.parse()?, &files.token, files.certificate)?;
        let ready = || server.connect().ok()?.call(Verb::Get, "/readyz", None).ok();
        api_server.until("the start of the API server", START, Duration::from_millis(200), ready)?;
        Ok(Self { server, kubeconfig: files.kubeconfig, processes: [api_server, etcd] })
    }

    /// Has the API server collect its garbage. It takes seconds of all the few CPUs that it shares with what is measured, which
    /// isn't what is to be measured: unless told otherwise, and while there is memory, it does so only then.
    pub fn collect_garbage(&self) -> Result<()> {
        self.server.connect()?.get("/debug/pprof/heap?gc=1").map(drop)
    }

    /// How often it did, whoever told it to.
    pub fn collections(&self) -> Result<u64> {
        let metrics = self.server.connect()?.get("/metrics")?;
        let metrics = String::from_utf8(metrics)?;
        let count = metrics.lines().find_map(|line| line.strip_prefix("go_gc_duration_seconds_count "));
        Ok(count.context("the API server doesn't count collections of garbage")?.trim().parse()?)
    }

    /// CPU time that both have used so far.
    pub fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// Applies the CRDs that files of these folders hold, and waits until they are served.
    pub fn define(&self, folders: &[PathBuf]) -> Result<()> {
        let mut api = self.server.connect()?;
        let mut paths = Vec::new();
        for crd in crds(folders)? {
            let name = crd["metadata"]["name"].as_str().context("a CRD without a name")?;
            let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
            api.call(Verb::Apply, &path, Some(&crd))?;
            let (group, plural) = (text(&crd["spec"]["group"])?, text(&crd["spec"]["names"]["plural"])?);
            for version in crd["spec"]["versions"].as_array().context("a CRD without versions")? {
                if version["served"] == true {
                    paths.push(format!("/apis/{group}/{}/{plural}?limit=1", text(&version["name"])?));
                }
            }
        }
        ensure!(!paths.is_empty(), "no CRDs in {folders:?}");
        // Established isn't enough: the handlers follow a little later.
        paths.iter().try_for_each(|path| again(|| api.call(Verb::Get, path, None)).map(drop))
    }

    /// Makes objects, a few at a time; those of a stage once all before are there.
    pub fn fill(&self, stages: &[Vec<(String, Value)>]) -> Result<()> {
        stages.iter().try_for_each(|stage| {
            std::thread::scope(|scope| {
                let make = |n: usize| {
                    let mut api = self.server.connect()?;
                    let mut own = stage.iter().skip(n).step_by(MAKERS);
                    own.try_for_each(|(path, body)| {
                        again(|| api.call(Verb::Create, path, Some(body))).map(drop)
                    })
                };
                let makers: Vec<_> = (0..MAKERS).map(|n| scope.spawn(move || make(n))).collect();
                makers.into_iter().try_for_each(|maker| maker.join().expect("it doesn't panic"))
            })
        })
    }

    /// Gives a route another version.
    pub fn edit(api: &mut crate::api::Api, number: usize, version: &str) -> Result<()> {
        let path = objects::route_path(number);
        api.call(Verb::JsonPatch, &path, Some(&replace(objects::VERSION, version))).map(drop)
    }
}

/// The machine's, in KiB.
fn memory() -> Result<u64> {
    let told = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let total = told.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    Ok(total.context("/proc/meminfo has no MemTotal")?.trim().parse()?)
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().context("not a text")
}

fn again<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..TRIES {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
    attempt()
}

/// The CRDs of all YAML files; what else there is, is left alone.
fn crds(folders: &[PathBuf]) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            for document in serde_yaml_ng::Deserializer::from_str(&text) {
                let object = Value::deserialize(document).with_context(|| path.display().to_string())?;
                if object["kind"] == "CustomResourceDefinition" {
                    found.push(object);
                }
            }
        }
    }
    Ok(found)
}

/// What the two and their clients share.
struct Files {
    token: String,
    certificate: rustls::pki_types::CertificateDer<'static>,
    kubeconfig: PathBuf,
}

impl Files {
    fn write(folder: &Path) -> Result<Self> {
        let host = ADDRESS.split(':').next().unwrap_or_default();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([host.to_owned()])?;
        fs::write(folder.join("server.crt"), cert.pem())?;
        fs::write(folder.join("server.key"), signing_key.serialize_pem())?;
        // Nobody has a token of a service account, but the API server doesn't start without a key for them.
        let accounts = rcgen::KeyPair::generate()?;
        fs::write(folder.join("accounts.key"), accounts.serialize_pem())?;
        fs::write(folder.join("accounts.pub"), accounts.public_key_pem())?;
        let token = "bench".to_owned();
        fs::write(folder.join("tokens.csv"), format!("{token},bench,bench,system:masters\n"))?;
        let kubeconfig = folder.join("kubeconfig");
        // JSON is YAML.
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {
                "server": format!("https://{ADDRESS}"), "certificate-authority": folder.join("server.crt"),
            }}],
            "users": [{"name": "bench", "user": {"token": token}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        fs::write(&kubeconfig, config.to_string())?;
        Ok(Self { token, certificate: cert.der().clone(), kubeconfig })
    }
}

fn etcd_arguments(folder: &Path) -> Vec<String> {
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        // It ends with the run.
        "--unsafe-no-fsync".to_owned(),
        "--quota-backend-bytes=4294967296".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

fn api_server_arguments(folder: &Path) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
    let (host, port) = ADDRESS.split_once(':').unwrap_or_default();
    vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--bind-address={host}"),
        format!("--secure-port={port}"),
        // It refuses to tell of loopback.
        format!("--advertise-address={}", objects::API_SERVER),
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        file("cert-dir", "certificates"),
        file("tls-cert-file", "server.crt"),
        file("tls-private-key-file", "server.key"),
        file("token-auth-file", "tokens.csv"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        file("service-account-key-file", "accounts.pub"),
        file("service-account-signing-key-file", "accounts.key"),
        "--authorization-mode=AlwaysAllow".to_owned(),
        // It waits for objects that only the controller manager makes.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        // As in the cluster of e2e/.
        "--feature-gates=ClusterTrustBundle=true".to_owned(),
        "--runtime-config=certificates.k8s.io/v1beta1=true".to_owned(),
        // Making thousands of objects is no accident here.
        "--enable-priority-and-fairness=false".to_owned(),
        "--max-requests-inflight=2000".to_owned(),
        "--max-mutating-requests-inflight=1000".to_owned(),
    ]
}
