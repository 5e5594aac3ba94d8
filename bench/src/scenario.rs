//! The scenarios, and how one is measured.

use crate::load::Load;
use crate::material::Material;
use crate::peer::{self, Peer, Setup, Work};
use crate::report::{Figure, Idle, Outcome, Paced};
use crate::{cpu, idle};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of a small answer.
pub const SMALL: usize = 1024;
/// Bytes of a large answer, and of an upload.
pub const LARGE: usize = 1 << 20;
/// Idle connections that memory is divided by.
const IDLE: u32 = 5_000;
/// The share of nginx's rate that latency is looked at.
const PACE: f64 = 0.7;

/// One row of the table.
pub struct Scenario {
    /// Short name, for `--only` and the results.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// What proxies do.
    pub work: Work,
    /// What clients do.
    pub clients: Clients,
    /// Client connections, all busy.
    pub connections: u32,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// GET of 1 KiB, keep-alive.
    Keep,
    /// The same, each request on a connection of its own.
    Close,
    /// GET of 1 KiB over HTTP/2, with so many streams at once.
    Streams(u32),
    /// GET of 1 MiB.
    Download,
    /// POST of 1 MiB.
    Upload,
}

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    let one = |name, about, work, clients, connections| Scenario { name, about, work, clients, connections };
    use Clients::{Close, Download, Keep, Streams, Upload};
    vec![
        one("h1-keepalive-64", "HTTP/1.1 keep-alive, 64 connections, 1 KiB answers", Work::Plain, Keep, 64),
        one("h1-keepalive-1", "the same with 1 connection", Work::Plain, Keep, 1),
        one("h1-keepalive-1000", "the same with 1,000 connections", Work::Plain, Keep, 1_000),
        one("tls-keepalive-64", "HTTP/1.1 over TLS 1.3, 64 connections", Work::Tls, Keep, 64),
        one("tls-handshake", "a full TLS 1.3 handshake (P-256) for each request", Work::Tls, Close, 16),
        one(
            "h2-tls-16x32",
            "HTTP/2 over TLS to HTTP/1.1, 16 connections with 32 streams",
            Work::Tls,
            Streams(32),
            16,
        ),
        one("routes-1000", "one of 1,000 routes by prefix", Work::Routes(1_000), Keep, 64),
        one("routes-10000", "one of 10,000 routes by prefix", Work::Routes(10_000), Keep, 64),
        one("download-1m", "answers of 1 MiB", Work::Plain, Download, 16),
        one("upload-1m", "uploads of 1 MiB", Work::Plain, Upload, 16),
        one("rate-limit", "a local limit by address that isn't reached", Work::Limit, Keep, 64),
        one("jwt-known", "a token (ES256), the same each time", Work::Jwt, Keep, 64),
        one("breaker", "failures of backends are watched", Work::Breaker, Keep, 64),
    ]
}

/// What all scenarios are measured with.
pub struct Bench<'a> {
    /// Headgate's binary.
    pub headgate: &'a Path,
    /// Envoy's, where there is one.
    pub envoy: Option<&'a Path>,
    /// For files.
    pub folder: &'a Path,
    /// Certificates and tokens.
    pub material: Material,
    /// Rounds of each.
    pub rounds: usize,
    /// Seconds of load per figure.
    pub seconds: u32,
}

impl Bench<'_> {
    fn setup<'a>(&'a self, work: Work, backends: [u16; 2]) -> Setup<'a> {
        let Self { headgate, envoy, folder, material, .. } = self;
        Setup { work, folder, backends, material, headgate, envoy: *envoy }
    }

    /// Measures all peers in interleaved rounds; the median of each counts.
    pub fn measure(&self, scenario: &Scenario) -> Result<Outcome> {
        let backends = peer::start_backends(self.folder)?;
        let peers = peer::start_all(&self.setup(scenario.work, backends.ports))?;
        let script = self.script(scenario)?;
        let headers = self.headers(scenario);
        let mut figures: Vec<Figure> =
            peers.iter().map(|peer| Figure::new(peer.name, &peer.version)).collect();
        for peer in &peers {
            let bytes = if scenario.clients == Clients::Download { LARGE } else { SMALL };
            peer.check(&url(peer, scenario), &headers, bytes)
                .with_context(|| format!("{} does not answer as it should", peer.name))?;
            // A warm-up.
            self.once(peer, scenario, &headers, script.as_deref(), 1)?;
        }
        for round in 0..self.rounds {
            // A different peer goes first each time, so that a slow drift of the machine hits all alike.
            for turn in 0..peers.len() {
                let index = (round + turn) % peers.len();
                let (micros, rate) =
                    self.once(&peers[index], scenario, &headers, script.as_deref(), self.seconds)?;
                figures[index].add(micros, rate);
            }
        }
        for (figure, peer) in figures.iter_mut().zip(&peers) {
            figure.pss_kib = cpu::pss_kib(peer.process.id())?;
        }
        let Scenario { name, about, connections, .. } = *scenario;
        Ok(Outcome {
            scenario: name.to_owned(),
            about: about.to_owned(),
            connections,
            seconds: self.seconds,
            figures,
        })
    }

    fn once(
        &self,
        peer: &Peer,
        scenario: &Scenario,
        headers: &[String],
        script: Option<&Path>,
        seconds: u32,
    ) -> Result<(f64, f64)> {
        let url = url(peer, scenario);
        let load = Load { url: &url, headers, connections: scenario.connections, seconds };
        let before = cpu::used(peer.process.id())?;
        let done = match scenario.clients {
            Clients::Streams(streams) => load.h2(streams),
            Clients::Keep | Clients::Close | Clients::Download | Clients::Upload => load.wrk(script),
        };
        let done = done.with_context(|| format!("load on {}", peer.name))?;
        let spent = cpu::used(peer.process.id())? - before;
        Ok((spent.as_secs_f64() * 1e6 / done.requests as f64, done.rate))
    }

    fn headers(&self, scenario: &Scenario) -> Vec<String> {
        let mut headers = Vec::new();
        if scenario.work == Work::Jwt {
            headers.push(self.material.authorization());
        }
        if scenario.clients == Clients::Close {
            headers.push("Connection: close".to_owned());
        }
        headers
    }

    /// For `wrk`, where requests differ from one another or have a body.
    fn script(&self, scenario: &Scenario) -> Result<Option<PathBuf>> {
        let text = match (scenario.work, scenario.clients) {
            (_, Clients::Upload) => {
                format!("wrk.method = 'POST'\nwrk.path = '/upload'\nwrk.body = string.rep('x', {LARGE})\n")
            }
            (Work::Routes(count), _) => format!(
                "local asked, n = {{}}, 0\n\
                 init = function() for i = 0, {count} - 1 do asked[i] = wrk.format('GET', '/r' .. i .. '/item') end end\n\
                 request = function() n = (n + 7919) % {count} return asked[n] end\n"
            ),
            (Work::Plain | Work::Tls | Work::Limit | Work::Jwt | Work::Breaker, _) => return Ok(None),
        };
        let file = self.folder.join(format!("{}.lua", scenario.name));
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        Ok(Some(file))
    }

    /// Latency at 70 % of the rate that nginx reaches with as many connections.
    pub fn latency(&self) -> Result<Vec<Paced>> {
        const CONNECTIONS: u32 = 64;
        let backends = peer::start_backends(self.folder)?;
        let peers = peer::start_all(&self.setup(Work::Plain, backends.ports))?;
        let urls: Vec<_> = peers.iter().map(|peer| peer.url(Work::Plain, "/")).collect();
        let load = |url, seconds| Load { url, headers: &[], connections: CONNECTIONS, seconds };
        for (peer, url) in peers.iter().zip(&urls) {
            peer.check(url, &[], SMALL).with_context(|| peer.name)?;
            load(url, 1).wrk(None)?;
        }
        let rate = load(&urls[0], self.seconds).wrk(None)?.rate * PACE;
        let mut paced: Vec<_> = peers.iter().map(|peer| Paced::new(peer.name, rate)).collect();
        for round in 0..self.rounds {
            for turn in 0..peers.len() {
                let index = (round + turn) % peers.len();
                let latency = load(&urls[index], self.seconds)
                    .paced(rate, &self.folder.join("latency.log"))
                    .with_context(|| format!("load on {}", peers[index].name))?;
                paced[index].add(latency);
            }
        }
        Ok(paced)
    }

    /// Memory of connections that were used once and are kept.
    pub fn idle(&self) -> Result<Vec<Idle>> {
        let backends = peer::start_backends(self.folder)?;
        let peers = peer::start_all(&self.setup(Work::Plain, backends.ports))?;
        let mut all = Vec::new();
        for peer in &peers {
            peer.check(&peer.url(Work::Plain, "/"), &[], SMALL).with_context(|| peer.name)?;
            let before = cpu::pss_kib(peer.process.id())?;
            let held = idle::connections(peer.port(), IDLE).with_context(|| peer.name)?;
            let after = cpu::pss_kib(peer.process.id())?;
            drop(held);
            let kib = (after.saturating_sub(before)) as f64 / f64::from(IDLE);
            all.push(Idle {
                peer: peer.name.to_owned(),
                connections: IDLE,
                kib_each: kib,
                pss_kib_before: before,
            });
        }
        Ok(all)
    }
}

fn url(peer: &Peer, scenario: &Scenario) -> String {
    let path = match (scenario.work, scenario.clients) {
        (Work::Routes(_), _) => "/r7/item",
        (_, Clients::Download) => "/large",
        (_, Clients::Keep | Clients::Close | Clients::Streams(_) | Clients::Upload) => "/",
    };
    peer.url(scenario.work, path)
}
