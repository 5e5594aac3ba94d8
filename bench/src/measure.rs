//! How a scenario is measured: every peer in every round, in another order each time.

use crate::client::Kind;
use crate::load::{Done, Load};
use crate::material::{Material, TOKENS};
use crate::peer::{self, Peer, Setup, Under, Work};
use crate::report::{Figure, Idle, Outcome, Paced};
use crate::scenario::{Clients, LARGE, SMALL, Scenario};
use crate::token::Algorithm;
use crate::{cpu, idle, login};
use anyhow::{Context, Result};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

/// Idle connections that memory is divided by.
const IDLE: u32 = 5_000;
/// The share of nginx's rate that latency is looked at.
const PACE: f64 = 0.7;

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

/// A scenario's load.
struct Clientele<'a> {
    scenario: &'a Scenario,
    headers: Vec<String>,
    script: Option<PathBuf>,
    certificate: PathBuf,
    /// Requests with tokens so far: where the next run goes on.
    asked: Cell<u64>,
}

impl Bench<'_> {
    fn setup<'a>(&'a self, work: Work, backends: [u16; 2]) -> Setup<'a> {
        let Self { headgate, envoy, folder, material, .. } = self;
        Setup { work, folder, backends, material, headgate, envoy: *envoy, under: &Under::Nothing }
    }

    /// Measures all peers in interleaved rounds; the median of each counts.
    pub fn measure(&self, scenario: &Scenario) -> Result<Outcome> {
        let backends = peer::start_backends(self.folder, scenario.work)?;
        let work = login::provided(scenario.work, self.material.signer(Algorithm::Es256))?;
        let peers = peer::start_all(&self.setup(work, backends.ports))?;
        let mut clients = self.clientele(scenario)?;
        if let Work::Session(_) = work {
            let first = peers.first().context("nobody who knows sessions")?;
            clients.headers.push(login::cookie(first)?);
        }
        let mut figures: Vec<Figure> =
            peers.iter().map(|peer| Figure::new(peer.name, &peer.version)).collect();
        for peer in &peers {
            let bytes = if scenario.clients == Clients::Download { LARGE } else { SMALL };
            peer.check(&clients.url(peer), &clients.headers, bytes)
                .with_context(|| format!("{} does not answer as it should", peer.name))?;
            // A warm-up.
            clients.once(peer, 1)?;
        }
        for round in 0..self.rounds {
            eprintln!("  round {} of {}", round + 1, self.rounds);
            for index in order(round, peers.len()) {
                let (micros, rate) = clients.once(&peers[index], self.seconds)?;
                figures[index].add(micros, rate);
            }
        }
        for (figure, peer) in figures.iter_mut().zip(&peers) {
            figure.pss_kib = cpu::pss_kib(peer.process.id())?;
        }
        let Scenario { name, about, connections, .. } = *scenario;
        let (scenario, about) = (name.to_owned(), about.to_owned());
        Ok(Outcome { scenario, about, connections, seconds: self.seconds, figures })
    }

    fn clientele<'a>(&self, scenario: &'a Scenario) -> Result<Clientele<'a>> {
        let mut headers = Vec::new();
        match scenario.clients {
            Clients::Known(algorithm) | Clients::New(algorithm) => {
                let token = self.material.signer(algorithm).token(TOKENS)?;
                headers.push(format!("Authorization: Bearer {token}"));
            }
            Clients::Close => headers.push("Connection: close".to_owned()),
            Clients::Keep
            | Clients::Resume
            | Clients::Streams(_)
            | Clients::Download
            | Clients::Upload
            | Clients::Messages => {}
        }
        let (certificate, _) = self.material.certificate_files();
        Ok(Clientele { scenario, headers, script: self.script(scenario)?, certificate, asked: Cell::new(0) })
    }

    /// For `wrk`, where requests differ from one another or have a body.
    fn script(&self, scenario: &Scenario) -> Result<Option<PathBuf>> {
        let text = match (scenario.work, scenario.clients) {
            (_, Clients::Upload) => {
                format!("wrk.method = 'POST'\nwrk.path = '/upload'\nwrk.body = string.rep('x', {LARGE})\n")
            }
            (_, Clients::New(algorithm)) => format!(
                "local asked, n = {{}}, 0\n\
                 init = function(arguments) n = tonumber(arguments[1]) for token in io.lines('{}') do \
                 asked[#asked + 1] = wrk.format('GET', '/', {{Authorization = 'Bearer ' .. token}}) end end\n\
                 request = function() n = n % #asked + 1 return asked[n] end\n",
                self.material.tokens_file(algorithm)?.display()
            ),
            (Work::Routes(count), _) => format!(
                "local asked, n = {{}}, 0\n\
                 init = function() for i = 0, {count} - 1 do asked[i] = wrk.format('GET', '/r' .. i .. '/item') end end\n\
                 request = function() n = (n + 7919) % {count} return asked[n] end\n"
            ),
            (
                Work::Plain
                | Work::Tls
                | Work::WebSocket
                | Work::Limit
                | Work::Jwt(_)
                | Work::Session(_)
                | Work::Breaker,
                Clients::Keep
                | Clients::Close
                | Clients::Resume
                | Clients::Streams(_)
                | Clients::Download
                | Clients::Messages
                | Clients::Known(_),
            ) => return Ok(None),
        };
        let file = self.folder.join(format!("{}.lua", scenario.name));
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        Ok(Some(file))
    }

    /// Latency at 70 % of the rate that nginx reaches with as many connections.
    pub fn latency(&self) -> Result<Vec<Paced>> {
        const CONNECTIONS: u32 = 64;
        let backends = peer::start_backends(self.folder, Work::Plain)?;
        let peers = peer::start_all(&self.setup(Work::Plain, backends.ports))?;
        let urls: Vec<_> = peers.iter().map(|peer| peer.url(Work::Plain, "/")).collect();
        let load = |url, seconds| Load { url, headers: &[], connections: CONNECTIONS, seconds };
        for (peer, url) in peers.iter().zip(&urls) {
            peer.check(url, &[], SMALL).with_context(|| peer.name)?;
            load(url, 1).wrk(None, 0)?;
        }
        let rate = load(&urls[0], self.seconds).wrk(None, 0)?.rate * PACE;
        let mut paced: Vec<_> = peers.iter().map(|peer| Paced::new(peer.name, rate)).collect();
        for round in 0..self.rounds {
            for index in order(round, peers.len()) {
                let latency = load(&urls[index], self.seconds)
                    .paced(rate, &self.folder.join("latency.log"))
                    .with_context(|| format!("load on {}", peers[index].name))?;
                paced[index].add(latency);
            }
        }
        Ok(paced)
    }

    /// Memory of connections that were used once and are kept; `work` is plain or TLS.
    pub fn idle(&self, scenario: &str, work: Work) -> Result<Vec<Idle>> {
        let backends = peer::start_backends(self.folder, work)?;
        let peers = peer::start_all(&self.setup(work, backends.ports))?;
        let (certificate, _) = self.material.certificate_files();
        let mut all = Vec::new();
        for peer in &peers {
            peer.check(&peer.url(work, "/"), &[], SMALL).with_context(|| peer.name)?;
            let before = cpu::pss_kib(peer.process.id())?;
            let held = match work {
                Work::Tls => idle::over_tls(peer.port(), IDLE, &certificate).map(drop_later),
                Work::Plain
                | Work::Routes(_)
                | Work::WebSocket
                | Work::Limit
                | Work::Jwt(_)
                | Work::Session(_)
                | Work::Breaker => idle::connections(peer.port(), IDLE).map(drop_later),
            };
            let held = held.with_context(|| peer.name)?;
            let after = cpu::pss_kib(peer.process.id())?;
            drop(held);
            all.push(Idle {
                scenario: scenario.to_owned(),
                peer: peer.name.to_owned(),
                connections: IDLE,
                kib_each: (after.saturating_sub(before)) as f64 / f64::from(IDLE),
                pss_kib_before: before,
            });
        }
        Ok(all)
    }
}

/// What is held while memory is looked at, whatever it is.
fn drop_later<T: 'static>(held: Vec<T>) -> Box<dyn std::any::Any> {
    Box::new(held)
}

impl Clientele<'_> {
    /// CPU µs per request, and requests per second.
    fn once(&self, peer: &Peer, seconds: u32) -> Result<(f64, f64)> {
        let before = cpu::used(peer.process.id())?;
        let done = self.load(peer, seconds).with_context(|| format!("load on {}", peer.name))?;
        let spent = cpu::used(peer.process.id())? - before;
        self.asked.set(self.asked.get() + done.requests);
        Ok((spent.as_secs_f64() * 1e6 / done.requests as f64, done.rate))
    }

    fn load(&self, peer: &Peer, seconds: u32) -> Result<Done> {
        let url = self.url(peer);
        let load =
            Load { url: &url, headers: &self.headers, connections: self.scenario.connections, seconds };
        match self.scenario.clients {
            Clients::Streams(streams) => load.h2(streams),
            Clients::Resume => load.own(Kind::Resumed, peer.port(), &self.certificate),
            Clients::Messages => load.own(Kind::WebSocket, peer.port(), &self.certificate),
            Clients::Keep
            | Clients::Close
            | Clients::Download
            | Clients::Upload
            | Clients::Known(_)
            | Clients::New(_) => load.wrk(self.script.as_deref(), self.asked.get()),
        }
    }

    fn url(&self, peer: &Peer) -> String {
        let path = match (self.scenario.work, self.scenario.clients) {
            (Work::Routes(_), _) => "/r7/item",
            (_, Clients::Download) => "/large",
            (
                Work::Plain
                | Work::Tls
                | Work::WebSocket
                | Work::Limit
                | Work::Jwt(_)
                | Work::Session(_)
                | Work::Breaker,
                Clients::Keep
                | Clients::Close
                | Clients::Resume
                | Clients::Streams(_)
                | Clients::Upload
                | Clients::Messages
                | Clients::Known(_)
                | Clients::New(_),
            ) => "/",
        };
        peer.url(self.scenario.work, path)
    }
}

/// Who comes when in a round: shuffled, so that neither a slow drift of the machine nor who comes before hits one alone.
/// The same in each run.
fn order(round: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    // Knuth's MMIX generator; its high bits are the random ones.
    let mut state = (round as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for last in (1..count).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn everybody_comes_once_a_round_and_nobody_always_first() {
        let orders: Vec<_> = (0..7).map(|round| order(round, 5)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        let first: std::collections::BTreeSet<_> = orders.iter().map(|order| order[0]).collect();
        assert!(first.len() >= 3, "{orders:?}");
    }
}
