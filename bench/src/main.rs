//! `make bench`: starts proxies side by side on loopback, sends each the same load in interleaved rounds, and prints
//! what a request cost each of them in CPU time, as a ratio to nginx in the same run.
//!
//! CPU time per request, not requests per second: on small shared machines it is the figure that repeats. Each
//! proxy has one worker on CPU 0; the load and the backends have CPU 1. One wrong answer voids a run.

mod cpu;
mod idle;
mod load;
mod machine;
mod material;
mod page;
mod peer;
mod report;
mod scenario;

use anyhow::{Context, Result, bail};
use clap::Parser;
use std::path::PathBuf;

/// Command line of the benchmark driver.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The `headgate` binary to measure (a release build).
    #[arg(long, default_value = "target/release/headgate")]
    headgate: PathBuf,
    /// The profile it was built with, kept with the result.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Rounds; in each every proxy is measured once. The median round counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load per proxy and round.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Envoy's binary; without it Envoy is left out.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// Only scenarios whose name contains this; `latency` and `idle` are names as well.
    #[arg(long, default_value = "")]
    only: String,
    /// Folder for the JSON result.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
    /// Puts the table and the plot of a kept result into this page, between its marks, and measures nothing.
    #[arg(long, requires = "of")]
    page: Option<PathBuf>,
    /// The result for `--page`.
    #[arg(long)]
    of: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let (Some(page), Some(result)) = (&arguments.page, &arguments.of) {
        return page::write(page, result);
    }
    if !arguments.headgate.exists() {
        bail!(
            "{} does not exist: build it with `cargo build --release -p headgate`, or name it with --headgate",
            arguments.headgate.display()
        );
    }
    let machine = machine::read(&arguments.profile)?;
    let work = machine::work_folder()?;
    let bench = scenario::Bench {
        headgate: &arguments.headgate,
        envoy: arguments.envoy.as_deref(),
        folder: work.path(),
        material: material::Material::make(work.path())?,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
    };
    let is_wanted = |name: &str| name.contains(&arguments.only);
    let mut report = report::Report { machine, results: Vec::new(), latency: Vec::new(), idle: Vec::new() };
    for scenario in scenario::all().iter().filter(|scenario| is_wanted(scenario.name)) {
        eprintln!("{}: {}", scenario.name, scenario.about);
        let result = bench.measure(scenario).with_context(|| format!("scenario {}", scenario.name))?;
        report.results.push(result);
    }
    if is_wanted("latency") {
        eprintln!("latency: at 70 % of nginx's rate, 64 connections");
        report.latency = bench.latency().context("scenario latency")?;
    }
    if is_wanted("idle") {
        eprintln!("idle: memory of connections that are kept");
        report.idle = bench.idle().context("scenario idle")?;
    }
    if report.results.is_empty() && report.latency.is_empty() && report.idle.is_empty() {
        bail!("no scenario's name contains {:?}", arguments.only);
    }
    report.print();
    let file = report.save(&arguments.results)?;
    eprintln!("kept in {}", file.display());
    Ok(())
}
