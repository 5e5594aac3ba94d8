//! Routes are edited at a steady rate, and meanwhile: some are edited and created one by one and asked for until they answer, and
//! others, which nobody edits, are asked for all the time and must answer.

use crate::api::{Server, Verb, replace};
use crate::cluster::Cluster;
use crate::headgate::Proxy;
use crate::objects;
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Connections that edit, so that a slow answer doesn't hold up the next edit.
const EDITORS: usize = 4;
/// Connections that ask for routes which nobody edits.
const CLIENTS: usize = 4;
/// The routes that they ask for.
const STABLE: usize = 100;
/// Of ten routes the first is stable, the second is edited one by one, and the others are edited meanwhile.
const KINDS: usize = 10;
/// So many edits of routes for one of endpoints.
const MOVE: usize = 10;
/// Between two questions whether a route answers yet.
const POLL: Duration = Duration::from_micros(500);
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// More requests than were asked for, as a part of them: some come late on a busy machine.
const MARGIN: f64 = 0.25;
/// Events that wait for who measures.
const EVENTS: usize = 1024;
/// Failures that are told word for word.
const WORDS: usize = 5;

/// How much.
#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// Edits of routes while it is measured.
    #[arg(long, default_value_t = 3_000)]
    pub edits: usize,
    /// Of them, in a second.
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Routes that are edited or created one by one, besides.
    #[arg(long, default_value_t = 400)]
    pub samples: usize,
    /// Requests for routes that nobody edits, at least.
    #[arg(long, default_value_t = 100_000)]
    pub requests: usize,
}

/// Whom it is about.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The API server.
    pub server: &'a Server,
    /// Headgate's proxy.
    pub proxy: SocketAddr,
    /// Routes at the start.
    pub routes: usize,
}

/// One route that was edited or created, in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Sample {
    /// It wasn't there before.
    pub created: bool,
    /// From sending it to the API server until the first right answer.
    pub answered_ms: f64,
    /// Until a watch of our own told of it.
    pub told_ms: f64,
    /// From then until the first right answer: zero where we were told later than Headgate.
    pub after_ms: f64,
}

/// What came of requests.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Tally {
    /// Sent.
    pub requests: usize,
    /// Not answered rightly.
    pub failures: usize,
    /// What the first of them were.
    pub words: Vec<String>,
}

/// What came of it.
pub struct Churn {
    /// Routes that were edited or created one by one.
    pub samples: Vec<Sample>,
    /// Requests to routes that nobody edited.
    pub stable: Tally,
    /// Requests to routes that were: neither the version before nor the one after is a failure.
    pub edited: Tally,
    /// From the first edit to the last.
    pub took: Duration,
}

/// Who goes on until when.
struct Progress {
    begin: Instant,
    editors: AtomicUsize,
    over: AtomicBool,
}

/// What a watch told of: a route's name and version, and when.
type Event = (String, String, Instant);

/// Does it.
pub fn run(world: World<'_>, plan: &Plan) -> Result<Churn> {
    let progress = Progress {
        begin: Instant::now() + Duration::from_secs(1),
        editors: AtomicUsize::new(EDITORS),
        over: AtomicBool::new(false),
    };
    let progress = &progress;
    let (mut watch, handle) = world.server.connect_for_two()?;
    let (sender, events) = sync_channel(EVENTS);
    std::thread::scope(|scope| {
        let watching = scope.spawn(move || {
            let selector = format!("{}=yes", objects::WATCHED);
            watch.watch(objects::ROUTES, &selector, |event| tell(&sender, &event))
        });
        let editors: Vec<_> = (0..EDITORS)
            .map(|n| {
                scope.spawn(move || {
                    let done = edit(world, plan, n, progress);
                    progress.editors.fetch_sub(1, Ordering::Relaxed);
                    done
                })
            })
            .collect();
        let clients: Vec<_> =
            (0..CLIENTS).map(|n| scope.spawn(move || ask(world, plan, n, progress))).collect();
        let measured = measure(world, plan, progress, &events);
        if measured.is_err() {
            progress.over.store(true, Ordering::Relaxed);
        }
        let edited = editors.into_iter().try_for_each(|editor| editor.join().expect("it doesn't panic"));
        let took = progress.begin.elapsed();
        progress.over.store(true, Ordering::Relaxed);
        // It is over when the watch ended by itself.
        let _ = handle.shutdown(Shutdown::Both);
        let watched = watching.join().expect("it doesn't panic");
        let mut stable = Tally::default();
        for client in clients {
            stable.add(client.join().expect("it doesn't panic"));
        }
        edited.context("edit routes")?;
        let (samples, edited) = measured.with_context(|| format!("the watch: {watched:?}"))?;
        Ok(Churn { samples, stable, edited, took })
    })
}

/// Edits of one connection, each at its time, or as soon as the one before is done.
fn edit(world: World<'_>, plan: &Plan, n: usize, progress: &Progress) -> Result<()> {
    let mut api = world.server.connect()?;
    for i in (n..plan.edits).step_by(EDITORS) {
        wait(progress.begin + Duration::from_secs_f64(i as f64 / plan.rate));
        if progress.over.load(Ordering::Relaxed) {
            break;
        }
        Cluster::edit(&mut api, background(i, world.routes), &format!("e{i}"))?;
        if i % MOVE == 0 {
            let service = i * 7 % objects::SERVICES;
            let address = objects::moved(service, i).to_string();
            let change = replace("/endpoints/0/addresses/0", address);
            api.call(Verb::JsonPatch, &objects::slice_path(service), Some(&change))?;
        }
    }
    Ok(())
}

/// A route to edit, another one each time.
pub fn background(i: usize, routes: usize) -> usize {
    let edited = KINDS - 2;
    let n = i * 7919 % (routes / KINDS * edited);
    n / edited * KINDS + 2 + n % edited
}

/// Asks for stable routes, over one connection.
fn ask(world: World<'_>, plan: &Plan, n: usize, progress: &Progress) -> Tally {
    let seconds = plan.edits as f64 / plan.rate;
    let pace = seconds / (plan.requests as f64 * (1.0 + MARGIN)) * CLIENTS as f64;
    let (mut proxy, mut tally) = (Proxy::new(world.proxy), Tally::default());
    let mut next = progress.begin;
    for i in n.. {
        wait(next);
        next += Duration::from_secs_f64(pace);
        if progress.over.load(Ordering::Relaxed) {
            break;
        }
        let route = i * 7 % STABLE.min(world.routes / KINDS) * KINDS;
        let answer = proxy.ask(&objects::host_of(route));
        tally.requests += 1;
        match answer {
            Ok(answer) if answer.is(&objects::answer(route, "1")) => {}
            other => tally.fail(route, other.map(|answer| (answer.status, text(&answer.body)))),
        }
    }
    tally
}

/// Edits and creates routes one by one, as long as others are edited.
fn measure(
    world: World<'_>,
    plan: &Plan,
    progress: &Progress,
    events: &Receiver<Event>,
) -> Result<(Vec<Sample>, Tally)> {
    let pace = plan.edits as f64 / plan.rate / (plan.samples + 1) as f64;
    let mut measuring =
        Measuring { api: world.server.connect()?, proxy: Proxy::new(world.proxy), tally: Tally::default() };
    let (mut samples, mut versions) = (Vec::new(), HashMap::new());
    for i in 0..plan.samples {
        wait(progress.begin + Duration::from_secs_f64((i + 1) as f64 * pace));
        if progress.editors.load(Ordering::Relaxed) == 0 {
            break;
        }
        let version = format!("s{i}");
        let (route, before) = match i % 2 {
            0 => {
                let route = i / 2 * 7919 % (world.routes / KINDS) * KINDS + 1;
                (route, Some(versions.insert(route, version.clone()).unwrap_or_else(|| "1".to_owned())))
            }
            _ => (world.routes + i / 2, None),
        };
        samples.push(measuring.apply(route, &version, before.as_deref(), events)?);
    }
    Ok((samples, measuring.tally))
}

struct Measuring {
    api: crate::api::Api,
    proxy: Proxy,
    tally: Tally,
}

impl Measuring {
    /// Applies a route, and asks for it until it answers in this version.
    fn apply(
        &mut self,
        route: usize,
        version: &str,
        before: Option<&str>,
        events: &Receiver<Event>,
    ) -> Result<Sample> {
        let mut body = objects::route(route, version);
        body["metadata"]["labels"][objects::WATCHED] = "yes".into();
        let (path, host) = (objects::route_path(route), objects::host_of(route));
        let right = objects::answer(route, version);
        let before = before.map(|before| objects::answer(route, before));
        let sent = Instant::now();
        self.api.send(Verb::Apply, &path, Some(&body))?;
        loop {
            let answer = self.proxy.ask(&host);
            self.tally.requests += 1;
            match (answer, &before) {
                (Ok(answer), _) if answer.is(&right) => break,
                (Ok(answer), Some(before)) if answer.is(before) => {}
                (Ok(answer), None) if answer.status == 404 => {}
                (other, _) => {
                    self.tally.fail(route, other.map(|answer| (answer.status, text(&answer.body))));
                }
            }
            if sent.elapsed() > PATIENCE {
                self.api.receive().with_context(|| path.clone())?;
                ensure!(false, "{path}, version {version}, isn't served after {PATIENCE:?}");
            }
            std::thread::sleep(POLL);
        }
        let answered = Instant::now();
        self.api.receive().with_context(|| path.clone())?;
        let told = loop {
            let (name, of, when) = events.recv_timeout(PATIENCE).context("wait for an event")?;
            if of == version && name == format!("route-{route}") {
                break when;
            }
        };
        Ok(Sample {
            created: before.is_none(),
            answered_ms: ms(answered - sent),
            told_ms: ms(told.saturating_duration_since(sent)),
            after_ms: ms(answered.saturating_duration_since(told)),
        })
    }
}

impl Tally {
    fn fail(&mut self, route: usize, what: Result<(u16, String)>) {
        self.failures += 1;
        if self.words.len() < WORDS {
            self.words.push(match what {
                Ok((status, body)) => format!("route {route}: {status} {body}"),
                Err(error) => format!("route {route}: {error:#}"),
            });
        }
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.words.extend(other.words);
        self.words.truncate(WORDS);
    }
}

/// Tells of an event. Nobody listens any more at the end.
fn tell(sender: &SyncSender<Event>, event: &serde_json::Value) {
    let now = Instant::now();
    let object = &event["object"];
    let (name, version) = (object["metadata"]["name"].as_str(), object.pointer(objects::VERSION));
    if let (Some(name), Some(version)) = (name, version.and_then(|version| version.as_str())) {
        let _ = sender.send((name.to_owned(), version.to_owned(), now));
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim().to_owned()
}

/// Waits until then; not at all when it has passed.
pub fn wait(until: Instant) {
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}

/// In milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_edited_meanwhile_is_nothing_else() {
        for i in 0..10_000 {
            let route = background(i, 1_000);
            assert!(route < 1_000 && route % KINDS >= 2, "{route}");
        }
        let different: std::collections::BTreeSet<_> = (0..800).map(|i| background(i, 1_000)).collect();
        assert_eq!(different.len(), 800, "each in its turn");
    }
}
