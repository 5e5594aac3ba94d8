//! One size: start, then changes one by one, each until everything about it is done.

use crate::api::{self, Versions};
use crate::objects;
use crate::report::{Cost, Size};
use anyhow::{Context, Result, ensure};
use headgate_controller::cluster::{Change, Kind, Object};
use headgate_controller::infra::Infrastructure;
use headgate_controller::metrics::Metrics;
use headgate_controller::reconcile::{CHANGES, Reconciler};
use headgate_controller::settings::{CONTROLLER_NAME, Mode, Settings};
use headgate_controller::writer::Writer;
use headgate_proxy::Publisher;
use headgate_proxy::model::{Model, PortId, PortProtocol};
use headgate_proxy::snapshot::Ports;
use kube::Client;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

/// How long nothing must be written until a change counts as done: longer than the loop gathers changes, on a busy machine, too.
const QUIET: Duration = Duration::from_millis(60);
/// How long all statuses may take at the start.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sockets aren't a part of this.
struct NoSockets;

impl Ports for NoSockets {
    fn apply(&self, _: &[(PortId, SocketAddr, PortProtocol)]) -> Vec<(PortId, String)> {
        Vec::new()
    }
}

/// The loop and what is around it.
struct World {
    publisher: Publisher,
    changes: mpsc::Sender<Vec<Change>>,
    written: mpsc::Receiver<String>,
    versions: Versions,
    _leads: watch::Sender<bool>,
    _stop: watch::Sender<bool>,
}

/// Measures with a number of routes; each change is made `times` times.
pub fn measure(routes: usize, times: usize) -> Result<Size> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, measure_here(routes, times))
}

async fn measure_here(routes: usize, times: usize) -> Result<Size> {
    let mut world = World::start(routes);
    let objects = objects::all(routes)?;
    let (began, wall) = (cpu()?, Instant::now());
    world.list(objects).await?;
    // The Gateway has no port before its Service has one.
    while world.publisher.model().ports.is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    let (start_cpu, start_wall) = (cpu()? - began, wall.elapsed());
    let told = async {
        for _ in 0..routes {
            world.written.recv().await;
        }
    };
    timeout(PATIENCE, told).await.context("not every status was written")?;
    let everything_told = wall.elapsed();
    world.settle().await;
    let (rss_mib, anonymous_mib, peak_mib) = (memory("VmRSS")?, memory("RssAnon")?, memory("VmHWM")?);

    let mut costs = Vec::new();
    let spread = |n: usize| n * 7919 % routes;
    costs.push(world.cost("edit a route", times, |world, n| world.edit(spread(n))).await?);
    costs.push(world.cost("create a route", times, |world, n| world.create(routes + n)).await?);
    let delete = |_: &World, n: usize| Ok(Change::Delete(Kind::HttpRoute, objects::route_name(routes + n)));
    costs.push(world.cost("delete a route", times, delete).await?);
    let slice = |_: &World, n: usize| Ok(Change::Upsert(objects::slice(n * 7 % objects::SERVICES, n + 1)?));
    costs.push(world.cost("move an endpoint", times, slice).await?);
    let service = |_: &World, n: usize| {
        Ok(Change::Upsert(objects::service(&objects::namespace_of(n), &format!("other-{n}"))?))
    };
    costs.push(world.cost("create a Service that nothing names", times, service).await?);
    let secret = |_: &World, n: usize| Ok(Change::Upsert(objects::secret(n)?));
    costs.push(world.cost("create a Secret that nothing names", times, secret).await?);
    check(&world.publisher.model(), routes)?;
    let (start_cpu_ms, start_ms) = (start_cpu.as_secs_f64() * 1e3, start_wall.as_secs_f64() * 1e3);
    Ok(Size {
        routes,
        start_cpu_ms,
        start_ms,
        told_ms: everything_told.as_secs_f64() * 1e3,
        rss_mib,
        anonymous_mib,
        peak_mib,
        costs,
    })
}

/// That the model has what it was told.
fn check(model: &Model, routes: usize) -> Result<()> {
    ensure!(model.routes.len() == routes, "{} routes in the model, not {routes}", model.routes.len());
    let services = objects::SERVICES.min(routes * 2);
    ensure!(model.backends.len() <= services, "{} backends in the model", model.backends.len());
    ensure!(model.endpoints.iter().all(|(_, set)| set.endpoints.len() == 10), "endpoints are missing");
    Ok(())
}

impl World {
    fn start(routes: usize) -> Self {
        let publisher = Publisher::new(headgate_proxy::metrics::Metrics::new(1), Box::new(NoSockets));
        let (client, requests) = tower_test::mock::pair();
        let (changes, receiver) = mpsc::channel(CHANGES);
        let (sender, written) = mpsc::channel(CHANGES);
        let versions: Versions = Rc::new(RefCell::new(vec![(1, 1); routes]));
        let serving = api::serve(requests, versions.clone(), changes.clone(), sender);
        tokio::task::spawn_local(async move {
            if let Err(error) = serving.await {
                eprintln!("the API server ended: {error:#}");
            }
        });
        let (leads, leading) = watch::channel(true);
        let (stop, stopped) = watch::channel(false);
        let reconciler = Reconciler::for_cluster(
            Settings::new(Mode::Cluster { bind: [0, 0, 0, 0].into() }),
            publisher.clone(),
            Metrics::default(),
            Writer::new(Client::new(client, "default")),
            Infrastructure { ports: 20000..=20009, service: Default::default() },
            leading,
        );
        tokio::task::spawn_local(reconciler.run(receiver, stopped));
        Self { publisher, changes, written, versions, _leads: leads, _stop: stop }
    }

    /// Tells of everything, kind by kind.
    async fn list(&self, objects: Vec<Object>) -> Result<()> {
        let mut left = objects;
        for kind in Kind::ALL {
            let (objects, others) = left.into_iter().partition(|object: &Object| object.kind() == *kind);
            left = others;
            let change = Change::Replace { kind: *kind, objects, undecodable: Vec::new() };
            self.changes.send(vec![change]).await?;
        }
        Ok(())
    }

    /// Waits until nothing is written any more; how much was.
    async fn settle(&mut self) -> usize {
        let mut count = 0;
        while let Ok(Some(_)) = timeout(QUIET, self.written.recv()).await {
            count += 1;
        }
        count
    }

    /// CPU time and writes of a change, as the mean of `times`.
    async fn cost(
        &mut self,
        what: &str,
        times: usize,
        change: impl Fn(&Self, usize) -> Result<Change>,
    ) -> Result<Cost> {
        let (mut used, mut writes) = (Duration::ZERO, 0);
        for n in 0..times {
            let change = change(self, n)?;
            let began = cpu()?;
            self.changes.send(vec![change]).await.context("the loop ended")?;
            writes += self.settle().await;
            used += cpu()? - began;
        }
        let times = times.max(1) as f64;
        Ok(Cost {
            what: what.to_owned(),
            cpu_us: used.as_secs_f64() * 1e6 / times,
            writes: writes as f64 / times,
        })
    }

    fn edit(&self, number: usize) -> Result<Change> {
        let (generation, version) = {
            let mut versions = self.versions.borrow_mut();
            let of_route = versions.get_mut(number).context("no such route")?;
            *of_route = (of_route.0 + 1, of_route.1 + 1);
            *of_route
        };
        let before = status(generation - 1);
        Ok(Change::Upsert(objects::route(number, generation, version, Some(&before))?))
    }

    fn create(&self, number: usize) -> Result<Change> {
        self.versions.borrow_mut().push((1, 1));
        Ok(Change::Upsert(objects::route(number, 1, 1, None)?))
    }
}

/// The status that a route has from before an edit.
fn status(generation: u64) -> Value {
    let condition = |kind: &str, message: &str| {
        json!({
            "type": kind, "status": "True", "reason": kind, "message": message,
            "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    json!({"parents": [{
        "parentRef": {"name": "gateway", "namespace": "infra"},
        "controllerName": CONTROLLER_NAME,
        "conditions": [
            condition("Accepted", "the route is attached"),
            condition("ResolvedRefs", "all references are resolved"),
        ],
    }]})
}

/// CPU time of this thread: everything here runs on it.
fn cpu() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(text.split_whitespace().next().context("no CPU time")?.parse()?))
}

/// A figure of this process's memory, in MiB.
fn memory(name: &str) -> Result<f64> {
    let text = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no {name} line"))?.parse::<f64>()? / 1024.0)
}
