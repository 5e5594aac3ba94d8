//! The cluster's API as the scenarios use it: YAML in, JSON out, and waiting by looking. It knows no Kubernetes type
//! and none of Headgate's: what a user with kubectl sees is what is tested.

use anyhow::{Context, Result, anyhow, bail};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::{Discovery, Scope};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, UdpSocket};

/// Between two looks. Short beside every limit, long enough that looking costs the cluster little.
const LOOK: Duration = Duration::from_millis(100);

/// For what a controller does at once: a status, an address.
pub const SOON: Duration = Duration::from_secs(30);

/// For pods that start or end, and for namespaces that go with all that is in them.
pub const PODS: Duration = Duration::from_secs(120);

/// Successes in a row that show that every replica of Headgate is ready: which one gets a connection is left to chance.
const ROW: usize = 20;

/// The API groups that the scenarios use; discovering all would cost a second each run.
const GROUPS: [&str; 8] = [
    "",
    "apiextensions.k8s.io",
    "apps",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "gateway.networking.k8s.io",
    "gateway.networking.x-k8s.io",
    "headgate.dev",
];

/// A connection to the API server, and the two names that the chart was installed with.
pub struct Cluster {
    client: Client,
    kinds: HashMap<String, (ApiResource, Scope)>,
    /// Where Headgate is installed.
    pub installation: String,
    /// The class of the scenarios' Gateways.
    pub gateway_class: String,
}

impl Cluster {
    /// Connects as KUBECONFIG says, and learns the kinds there are.
    pub async fn connect(installation: String, gateway_class: String) -> Result<Self> {
        let client = Client::try_default().await?;
        let discovery = Discovery::new(client.clone()).filter(&GROUPS).run().await?;
        let kinds = discovery
            .groups()
            .flat_map(|group| group.recommended_resources())
            .map(|(resource, capabilities)| (resource.kind.clone(), (resource, capabilities.scope)))
            .collect();
        Ok(Self { client, kinds, installation, gateway_class })
    }

    /// Who issued the API server's certificate.
    pub async fn authorities(&self) -> Result<Vec<CertificateDer<'static>>> {
        let config = kube::Config::infer().await?;
        let roots = config.root_cert.context("the kubeconfig names no certificate authority")?;
        Ok(roots.into_iter().map(CertificateDer::from).collect())
    }

    fn api(&self, kind: &str, namespace: &str) -> Result<Api<DynamicObject>> {
        let (resource, scope) =
            self.kinds.get(kind).with_context(|| format!("the cluster knows no {kind}"))?;
        Ok(match scope {
            Scope::Cluster => Api::all_with(self.client.clone(), resource),
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, resource),
        })
    }

    /// Applies every document, as `kubectl apply --server-side --force-conflicts` does.
    pub async fn apply(&self, namespace: &str, yaml: &str) -> Result<()> {
        for document in serde_yaml_ng::Deserializer::from_str(yaml) {
            let object = Value::deserialize(document).with_context(|| format!("not YAML: {yaml}"))?;
            let kind = object["kind"].as_str().unwrap_or_default();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            self.api(kind, namespace)?
                .patch(name, &PatchParams::apply("headgate-e2e").force(), &Patch::Apply(&object))
                .await
                .with_context(|| format!("apply {kind} {namespace}/{name}"))?;
        }
        Ok(())
    }

    /// A JSON merge patch.
    pub async fn patch(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<()> {
        self.api(kind, namespace)?
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .with_context(|| format!("patch {kind} {namespace}/{name}"))?;
        Ok(())
    }

    /// Deletes it, and doesn't wait until it is gone.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        match self.api(kind, namespace)?.delete(name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error).with_context(|| format!("delete {kind} {namespace}/{name}")),
            Ok(_) => Ok(()),
        }
    }

    /// The object, or null.
    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let found = self.api(kind, namespace)?.get_opt(name).await;
        let found = found.with_context(|| format!("get {kind} {namespace}/{name}"))?;
        Ok(found.map(serde_json::to_value).transpose()?.unwrap_or_default())
    }

    /// The objects with the labels.
    pub async fn list(&self, kind: &str, namespace: &str, labels: &str) -> Result<Vec<Value>> {
        let list = self.api(kind, namespace)?.list(&ListParams::default().labels(labels)).await;
        let list = list.with_context(|| format!("list {kind} in {namespace}"))?;
        list.items.into_iter().map(|object| Ok(serde_json::to_value(object)?)).collect()
    }

    /// What a pod answers to a GET, by way of the API server.
    pub async fn ask_pod(&self, namespace: &str, pod: &str, port: u16, path: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}");
        let answer = self.client.request_text(http::Request::get(&path).body(Vec::new())?).await;
        answer.with_context(|| format!("get {path}"))
    }

    /// Looks until `see` returns something; its last error is told when `limit` is over before.
    pub async fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut see: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            match see().await {
                Ok(seen) => return Ok(seen),
                Err(error) if start.elapsed() > limit => {
                    return Err(error.context(format!("{what}: not within {} s", limit.as_secs())));
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Waits until `see` succeeds many times in a row. One success says nothing of the replica beside: each reads the
    /// same objects at its own pace.
    pub async fn wait_for_all(&self, what: &str, mut see: impl AsyncFnMut() -> Result<()>) -> Result<()> {
        self.wait(what, SOON, async || {
            for n in 0..ROW {
                see().await.with_context(|| format!("after {n} in a row"))?;
            }
            Ok(())
        })
        .await
    }

    /// An empty namespace, without what an earlier run left in it.
    pub async fn fresh_namespace(&self, name: &str) -> Result<()> {
        self.delete("Namespace", "", name).await?;
        self.wait(&format!("namespace {name} of an earlier run goes"), PODS, async || {
            match self.get("Namespace", "", name).await?.is_null() {
                true => Ok(()),
                false => bail!("it is still there"),
            }
        })
        .await?;
        self.apply("", &format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).await
    }

    /// Waits until the Gateway is programmed, and returns its address.
    pub async fn address(&self, namespace: &str, gateway: &str) -> Result<IpAddr> {
        self.wait(&format!("Gateway {namespace}/{gateway} gets an address"), SOON, async || {
            let object = self.get("Gateway", namespace, gateway).await?;
            let programmed = Condition::find(&object["status"]["conditions"], "Programmed")?;
            if programmed.status != "True" {
                bail!("{programmed:?}");
            }
            let address = object["status"]["addresses"][0]["value"].as_str().context("no address")?;
            Ok(address.parse()?)
        })
        .await
    }

    /// Waits until every pod of a Deployment is of its present template, and available.
    pub async fn rolled_out(&self, namespace: &str, deployment: &str) -> Result<()> {
        self.wait(&format!("Deployment {namespace}/{deployment} rolls out"), PODS, async || {
            let object = self.get("Deployment", namespace, deployment).await?;
            let (wanted, status) = (&object["spec"]["replicas"], &object["status"]);
            let current = status["observedGeneration"] == object["metadata"]["generation"];
            match ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|n| &status[*n] == wanted)
                && current
            {
                true => Ok(()),
                false => bail!("{status}"),
            }
        })
        .await
    }

    /// `kubectl rollout restart`, to its end: no pod of before is left, not even one that is ending.
    pub async fn restart(&self, namespace: &str, deployment: &str, labels: &str) -> Result<()> {
        let before = self.uids(namespace, labels).await?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos().to_string();
        let template = serde_json::json!({"metadata": {"annotations": {"headgate.dev/restarted": now}}});
        self.patch("Deployment", namespace, deployment, &serde_json::json!({"spec": {"template": template}}))
            .await?;
        self.rolled_out(namespace, deployment).await?;
        self.wait(&format!("the old pods of {deployment} end"), PODS, async || {
            let left =
                self.uids(namespace, labels).await?.into_iter().filter(|uid| before.contains(uid)).count();
            match left {
                0 => Ok(()),
                left => bail!("{left} are left"),
            }
        })
        .await
    }

    /// A port that is free, of the address by which a node knows this side of the network: pods can reach it.
    pub async fn free_address(&self) -> Result<SocketAddr> {
        let nodes = self.list("Node", "", "").await?;
        let addresses =
            nodes.first().and_then(|node| node["status"]["addresses"].as_array()).context("no node")?;
        let node = addresses.iter().find(|address| address["type"] == "InternalIP");
        let node: IpAddr = node.and_then(|node| node["address"].as_str()).context("no address")?.parse()?;
        let probe = UdpSocket::bind(("0.0.0.0", 0)).await?;
        probe.connect((node, 9)).await?;
        Ok(TcpListener::bind((probe.local_addr()?.ip(), 0)).await?.local_addr()?)
    }

    async fn uids(&self, namespace: &str, labels: &str) -> Result<Vec<String>> {
        let pods = self.list("Pod", namespace, labels).await?;
        Ok(pods.iter().filter_map(|pod| Some(pod["metadata"]["uid"].as_str()?.to_owned())).collect())
    }
}

/// One entry of a `conditions` list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A word of the specification; a pod's conditions need none.
    #[serde(default)]
    pub reason: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
    /// The generation of the object that it is about, where it says so.
    #[serde(default)]
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// All entries of a `conditions` list.
    pub fn all(conditions: &Value) -> Result<Vec<Self>> {
        Vec::<Self>::deserialize(conditions).map_err(|_| anyhow!("no conditions yet: {conditions}"))
    }

    /// The entry of a type.
    pub fn find(conditions: &Value, kind: &str) -> Result<Self> {
        let found = Self::all(conditions)?.into_iter().find(|condition| condition.kind == kind);
        found.with_context(|| format!("no {kind} among {conditions}"))
    }
}
