//! The scenarios, and how one is measured.

use crate::peer::{self, Peer};
use crate::report::{Figure, Outcome};
use crate::{cpu, load};
use anyhow::{Context, Result};
use std::path::Path;

/// One row of the table.
pub struct Scenario {
    /// Short name, for `--only` and the results.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// Client connections, all busy.
    pub connections: u32,
}

/// Every scenario.
pub fn all() -> &'static [Scenario] {
    &[
        Scenario {
            name: "h1-keepalive-64",
            about: "HTTP/1.1 keep-alive, 64 connections, 1 KiB answers",
            connections: 64,
        },
        Scenario {
            name: "h1-keepalive-1",
            about: "HTTP/1.1 keep-alive, 1 connection, 1 KiB answers",
            connections: 1,
        },
    ]
}

/// Measures all peers in `rounds` interleaved rounds; the median of each counts.
pub fn measure(
    scenario: &Scenario,
    headgate: &Path,
    work: &Path,
    rounds: usize,
    seconds: u32,
) -> Result<Outcome> {
    let backends = peer::start_backends(work)?;
    let peers = peer::start_all(headgate, work, &backends.ports)?;
    for peer in &peers {
        peer.check().with_context(|| format!("{} does not answer as it should", peer.name))?;
        load::wrk(&peer.url(), scenario.connections, 1)
            .with_context(|| format!("warm-up of {}", peer.name))?;
    }
    let mut figures: Vec<Figure> = peers.iter().map(|peer| Figure::new(peer.name, &peer.version)).collect();
    for round in 0..rounds {
        // A different peer goes first each time, so that a slow drift of the machine hits all alike.
        for turn in 0..peers.len() {
            let index = (round + turn) % peers.len();
            let (micros, rate) = once(&peers[index], scenario.connections, seconds)?;
            figures[index].add(micros, rate);
        }
    }
    for (figure, peer) in figures.iter_mut().zip(&peers) {
        figure.pss_kib = cpu::pss_kib(peer.process.id())?;
    }
    Ok(Outcome {
        scenario: scenario.name,
        about: scenario.about,
        connections: scenario.connections,
        seconds,
        figures,
    })
}

fn once(peer: &Peer, connections: u32, seconds: u32) -> Result<(f64, f64)> {
    let before = cpu::used(peer.process.id())?;
    let done =
        load::wrk(&peer.url(), connections, seconds).with_context(|| format!("load on {}", peer.name))?;
    let spent = cpu::used(peer.process.id())? - before;
    Ok((spent.as_secs_f64() * 1e6 / done.requests as f64, done.rate))
}
