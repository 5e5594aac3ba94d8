//! Results: the printed table and the kept JSON.

use crate::bar::{self, Judged};
use crate::load::Latency;
use anyhow::{Context, Result};
use headgate_bench::machine::Machine;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// A whole run.
#[derive(Deserialize, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// One per scenario.
    pub results: Vec<Outcome>,
    /// One per proxy.
    #[serde(default)]
    pub latency: Vec<Paced>,
    /// One per proxy.
    #[serde(default)]
    pub idle: Vec<Idle>,
}

/// One scenario's figures.
#[derive(Deserialize, Serialize)]
pub struct Outcome {
    /// Name of the scenario.
    pub scenario: String,
    /// What it does.
    pub about: String,
    /// Busy client connections.
    pub connections: u32,
    /// Seconds of load per figure.
    pub seconds: u32,
    /// One per proxy; the first is nginx, what the others are compared with.
    pub figures: Vec<Figure>,
}

/// One proxy's latencies at a fixed rate, 64 connections.
#[derive(Deserialize, Serialize)]
pub struct Paced {
    /// Name of the proxy.
    pub peer: String,
    /// Requests per second, the same for all: 70 % of what nginx reached.
    pub rate: f64,
    /// Medians in µs, a value a round.
    pub p50: Vec<f64>,
    /// 99th percentiles in µs, a value a round.
    pub p99: Vec<f64>,
}

impl Paced {
    /// Nothing measured yet.
    pub fn new(peer: &str, rate: f64) -> Self {
        Self { peer: peer.to_owned(), rate, p50: Vec::new(), p99: Vec::new() }
    }

    /// Adds a round.
    pub fn add(&mut self, latency: Latency) {
        self.p50.push(latency.p50);
        self.p99.push(latency.p99);
    }
}

/// One proxy's memory of idle connections.
#[derive(Deserialize, Serialize)]
pub struct Idle {
    /// Name of the scenario.
    #[serde(default = "in_clear_text")]
    pub scenario: String,
    /// Name of the proxy.
    pub peer: String,
    /// So many.
    pub connections: u32,
    /// KiB of each.
    pub kib_each: f64,
    /// Memory before there were any.
    pub pss_kib_before: u64,
}

/// What results say that were kept when there was but one.
fn in_clear_text() -> String {
    "idle".to_owned()
}

/// One proxy's rounds.
#[derive(Deserialize, Serialize)]
pub struct Figure {
    /// Name of the proxy.
    pub peer: String,
    /// Its version.
    pub version: String,
    /// CPU µs per request, a value a round.
    pub cpu_micros: Vec<f64>,
    /// Requests per second, a value a round.
    pub rate: Vec<f64>,
    /// Share of a CPU that the proxy used, a value a round. Below 0.9 it was not the bottleneck: then `rate` says
    /// something of the load, and only `cpu_micros` of the proxy.
    pub busy: Vec<f64>,
    /// Memory after the last round.
    pub pss_kib: u64,
}

impl Outcome {
    /// CPU time as a multiple of nginx's in the same round, the median of the rounds; where nginx is in it.
    pub fn ratio(&self, figure: &Figure) -> Option<f64> {
        Some(median(&bar::per_round(figure, self.of("nginx")?, |one, nginx| one / nginx)))
    }

    /// One proxy's.
    pub fn of(&self, peer: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.peer == peer)
    }
}

impl Figure {
    /// Nothing measured yet.
    pub fn new(peer: &str, version: &str) -> Self {
        let (peer, version) = (peer.to_owned(), version.to_owned());
        Self { peer, version, cpu_micros: Vec::new(), rate: Vec::new(), busy: Vec::new(), pss_kib: 0 }
    }

    /// Adds a round.
    pub fn add(&mut self, micros: f64, rate: f64) {
        self.cpu_micros.push(micros);
        self.rate.push(rate);
        self.busy.push(micros * rate / 1e6);
    }
}

/// The least and the most.
pub fn range(values: &[f64]) -> (f64, f64) {
    let all = values.iter().copied();
    (all.clone().fold(f64::INFINITY, f64::min), all.fold(f64::NEG_INFINITY, f64::max))
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

impl Report {
    /// Prints the table.
    #[expect(clippy::print_stdout, reason = "the table is the program's output")]
    pub fn print(&self) {
        let m = &self.machine;
        println!("{} ({} CPUs), Linux {}, commit {}, {} build", m.cpu, m.cpus, m.kernel, m.commit, m.profile);
        println!(
            "CPU µs per request of the whole proxy, median of the rounds; × is the ratio to nginx in this run"
        );
        println!(
            "{:<18} {:<14} {:>9} {:>7} {:>19} {:>10} {:>6} {:>9}",
            "scenario", "proxy", "CPU µs", "×", "range", "req/s", "busy", "PSS MiB"
        );
        for outcome in &self.results {
            for figure in &outcome.figures {
                let (low, high) = range(&figure.cpu_micros);
                println!(
                    "{:<18} {:<14} {:>9.2} {:>7} {:>19} {:>10.0} {:>5.0}% {:>9.1}",
                    outcome.scenario,
                    figure.peer,
                    median(&figure.cpu_micros),
                    outcome.ratio(figure).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
                    format!("{low:.2}–{high:.2}"),
                    median(&figure.rate),
                    median(&figure.busy) * 100.0,
                    figure.pss_kib as f64 / 1024.0
                );
            }
        }
        for paced in &self.latency {
            let (p50, p99) = (median(&paced.p50), median(&paced.p99));
            println!(
                "latency at {:.0} req/s  {:<14} p50 {p50:.0} µs, p99 {p99:.0} µs",
                paced.rate, paced.peer
            );
        }
        for idle in &self.idle {
            println!(
                "{:<16} {:<14} {:.1} KiB a connection ({} of them)",
                idle.scenario, idle.peer, idle.kib_each, idle.connections
            );
        }
        self.print_bars();
    }

    /// What Headgate had to come to, and what it came to.
    #[expect(clippy::print_stdout, reason = "the table is the program's output")]
    fn print_bars(&self) {
        let print = |scenario: &str, judged: &Judged| {
            let Judged { bar, value, .. } = judged;
            let verdict = judged.verdict().text().replace('*', "");
            println!("{scenario:<18} {value:>6.2} {:<14} must {:<4} {verdict}", bar.against.unit(), bar.must);
        };
        for outcome in &self.results {
            bar::judge(outcome).iter().for_each(|judged| print(&outcome.scenario, judged));
        }
        bar::judge_latency(&self.latency).iter().for_each(|judged| print("latency", judged));
        for idle in self.idle.iter().filter(|idle| idle.peer == "headgate") {
            bar::judge_idle(idle).iter().for_each(|judged| print(&idle.scenario, judged));
        }
    }

    /// Writes the JSON into `folder`; returns the file.
    pub fn save(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let file =
            folder.join(format!("{}-{}.json", self.machine.time, self.machine.commit.trim_end_matches('+')));
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
