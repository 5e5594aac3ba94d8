//! One number of routes: a cluster of its own, Headgate started in it for the first time and then again, and what changes cost.

use crate::churn::{self, Churn, Plan, World, background, ms, wait};
use crate::cluster::Cluster;
use crate::cpu;
use crate::headgate::Headgate;
use crate::histogram::Histogram;
use crate::objects;
use crate::report::{Size, Spread, Start};
use crate::{Arguments, Folder};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long Headgate is watched doing nothing.
const IDLE: Duration = Duration::from_secs(6);
/// How long the last edit's status may take to be written, which is a part of its cost.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// What Headgate counts between an event and what it publishes for it.
const PUBLISH_DELAY: &str = "headgate_publish_delay_seconds";

/// Measures with so many routes.
pub fn size(arguments: &Arguments, routes: usize) -> Result<Size> {
    let folder = Folder::make(&arguments.work, routes)?;
    let cluster = Cluster::start(&arguments.programs, &folder.0, arguments.usual_gc)?;
    say(routes, "making objects");
    cluster.define(&arguments.crds)?;
    cluster.fill(&objects::all(routes))?;

    say(routes, "the first start");
    let start = || Headgate::start(&arguments.headgate, &cluster, &folder.0);
    let mut headgate = start()?;
    let (first, proxy) = begin(&mut headgate, &cluster, routes)?;
    let told = headgate.quiet()?;
    let told_cpu_ms = ms(headgate.process.cpu()?);
    let memory_first = headgate.process.memory()?;
    let accepted = accepted(&cluster)?;
    ensure!(accepted == routes, "{accepted} of {routes} routes have a status that accepts them");

    say(routes, "starting again");
    cluster.collect_garbage()?;
    let mut starts = Vec::new();
    for _ in 0..arguments.starts {
        // Without a goodbye: draining would take longer than all the rest.
        headgate.process.kill()?;
        headgate = start()?;
        starts.push(begin(&mut headgate, &cluster, routes)?.0);
        headgate.quiet()?;
    }
    let memory = headgate.process.memory()?;

    say(routes, "counting CPU time");
    let cost = cost(arguments, &cluster, &headgate, routes)?;

    say(routes, "editing");
    cluster.collect_garbage()?;
    let world = World { server: &cluster.server, proxy, routes };
    let edited = edit(&arguments.plan, world, &cluster, &headgate)?;
    headgate.quiet()?;
    let memory_after = headgate.process.memory()?;
    let Churn { samples, stable, edited: sampled, took } = edited.churn;
    let of = |value: &dyn Fn(&churn::Sample) -> Option<f64>| Spread::of(samples.iter().filter_map(value));
    Ok(Size {
        routes,
        first,
        told_ms: ms(told),
        told_cpu_ms,
        starts,
        memory_first,
        memory,
        memory_after,
        answered_ms: of(&|sample| Some(sample.answered_ms)),
        edited_ms: of(&|sample| (!sample.created).then_some(sample.answered_ms)),
        created_ms: of(&|sample| sample.created.then_some(sample.answered_ms)),
        told_after_ms: of(&|sample| Some(sample.told_ms)),
        answered_after_told_ms: of(&|sample| Some(sample.after_ms)),
        publish_delay_ms: edited.publish_delay_ms,
        cpu_us: cost.0,
        control_cpu_us: cost.1,
        edits_per_second: arguments.plan.edits as f64 / took.as_secs_f64(),
        stable,
        sampled,
        cpus_of_others: edited.cpus_of_others,
        cpus_of_headgate: edited.cpus_of_headgate,
        cpus_of_cluster: edited.cpus_of_cluster,
        collections: edited.collections,
        samples,
    })
}

/// Waits until a Headgate that was just started serves.
fn begin(headgate: &mut Headgate, cluster: &Cluster, routes: usize) -> Result<(Start, std::net::SocketAddr)> {
    let ready = headgate.ready()?;
    let proxy = headgate.port(&cluster.server)?;
    let serves = headgate.serves(proxy, routes - 1)?;
    let cpu_ms = ms(headgate.process.cpu()?);
    Ok((Start { ready_ms: ms(ready), serves_ms: ms(serves.max(ready)), cpu_ms }, proxy))
}

/// Routes that have been told that they are accepted.
fn accepted(cluster: &Cluster) -> Result<usize> {
    let mut count = 0;
    cluster.server.connect()?.each(objects::ROUTES, |route| {
        let conditions = route["status"]["parents"][0]["conditions"].as_array();
        let accepts = |condition: &Value| condition["type"] == "Accepted" && condition["status"] == "True";
        count += usize::from(conditions.is_some_and(|conditions| conditions.iter().any(accepts)));
    })?;
    Ok(count)
}

/// CPU time of an edit, in µs, while nothing else happens: of the process, and of the thread that is the control plane.
fn cost(arguments: &Arguments, cluster: &Cluster, headgate: &Headgate, routes: usize) -> Result<(f64, f64)> {
    let read =
        || -> Result<[Duration; 2]> { Ok([headgate.process.cpu()?, headgate.process.first_thread_cpu()?]) };
    let before = read()?;
    std::thread::sleep(IDLE);
    let idle = read()?;
    let mut api = cluster.server.connect()?;
    let began = Instant::now();
    for i in 0..arguments.counted {
        wait(began + Duration::from_secs_f64(i as f64 / arguments.plan.rate));
        // Other versions than those that come later.
        Cluster::edit(&mut api, background(i, routes), &format!("c{i}"))?;
    }
    std::thread::sleep(AFTERWARDS);
    let took = began.elapsed().as_secs_f64() / IDLE.as_secs_f64();
    let after = read()?;
    let [all, control] = [0, 1].map(|n| {
        let without = (idle[n] - before[n]).as_secs_f64() * took;
        ((after[n] - idle[n]).as_secs_f64() - without) * 1e6 / arguments.counted as f64
    });
    Ok((all, control))
}

struct Edited {
    churn: Churn,
    publish_delay_ms: Option<Spread>,
    cpus_of_others: f64,
    cpus_of_headgate: f64,
    cpus_of_cluster: f64,
    collections: u64,
}

fn edit(plan: &Plan, world: World<'_>, cluster: &Cluster, headgate: &Headgate) -> Result<Edited> {
    let cpu = || -> Result<[Duration; 4]> {
        Ok([cpu::used()?, headgate.process.cpu()?, cluster.cpu()?, cpu::used_by_me()?])
    };
    let delays = || Ok::<_, anyhow::Error>(Histogram::read(&headgate.metrics()?, PUBLISH_DELAY));
    let collections = cluster.collections()?;
    let (began, before, delays_before) = (Instant::now(), cpu()?, delays()?);
    let churn = churn::run(world, plan)?;
    let (after, delays_after) = (cpu()?, delays()?);
    let took = began.elapsed().as_secs_f64();
    let collections = cluster.collections()? - collections;
    let [all, of_headgate, of_cluster, mine] =
        [0, 1, 2, 3].map(|n| (after[n] - before[n]).as_secs_f64() / took);
    let delays = delays_after.zip(delays_before).map(|(after, before)| after.since(&before));
    let publish_delay_ms = delays.map(|delays| Spread {
        count: delays.count(),
        p50: delays.quantile(0.5) * 1e3,
        p99: delays.quantile(0.99) * 1e3,
        max: delays.quantile(1.0) * 1e3,
    });
    Ok(Edited {
        churn,
        publish_delay_ms,
        cpus_of_others: (all - of_headgate - of_cluster - mine).max(0.0),
        cpus_of_headgate: of_headgate,
        cpus_of_cluster: of_cluster,
        collections,
    })
}

#[expect(clippy::print_stderr, reason = "a run takes minutes: it says what it does")]
fn say(routes: usize, what: &str) {
    eprintln!("{routes} routes: {what}");
}

impl Folder {
    fn make(within: &std::path::Path, routes: usize) -> Result<Self> {
        let path = within.join(routes.to_string());
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}
