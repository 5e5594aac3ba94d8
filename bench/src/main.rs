//! `make bench`: starts proxies side by side on loopback, sends each the same load in interleaved rounds, and prints
//! what a request cost each of them in CPU time, as a ratio to nginx in the same run.
//!
//! CPU time per request, not requests per second: on small shared machines it is the figure that repeats. Each
//! proxy has one worker on CPU 0; the load and the backends have CPU 1. One wrong answer voids a run.

mod bar;
mod client;
mod cpu;
mod echo;
mod idle;
mod instructions;
mod load;
mod login;
mod material;
mod measure;
mod page;
mod peer;
mod report;
mod scenario;
mod token;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use headgate_bench::machine::{self, Machine};
use peer::Work;
use std::path::PathBuf;
use std::time::Instant;

/// Command line of the benchmark driver.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The `headgate` binary to measure (a release build).
    #[arg(long, default_value = "target/release/headgate")]
    headgate: PathBuf,
    /// The profile it was built with, kept with the result.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Rounds; in each every proxy is measured once. The median round counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of load per proxy and round.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Envoy's binary; without it Envoy is left out.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// Only scenarios whose names contain one of these, separated by commas; `latency`, `idle` and `idle-tls` are names as
    /// well.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Folder for the JSON result.
    #[arg(long, default_value = "target/bench")]
    results: PathBuf,
    /// Puts the table and the plot of a result into this page, between its marks, and the result into `bench/results`, which
    /// the page links to; measures nothing.
    #[arg(long, requires = "of")]
    page: Option<PathBuf>,
    /// The result for `--page`.
    #[arg(long)]
    of: Option<PathBuf>,
}

/// What the driver runs itself as.
#[derive(Subcommand)]
enum Command {
    /// Clients that other load generators can't be.
    #[command(hide = true)]
    Client(client::Arguments),
    /// Backends for WebSockets.
    #[command(hide = true)]
    Echo(echo::Arguments),
    /// Instructions and system calls of a request, against those that were recorded.
    Instructions(instructions::Arguments),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Client(arguments)) => return client::run(arguments),
        Some(Command::Echo(arguments)) => return echo::run(arguments),
        Some(Command::Instructions(arguments)) => return instructions::run(arguments),
        None => {}
    }
    match (&arguments.page, &arguments.of) {
        (Some(page), Some(result)) => page::write(page, result),
        (Some(_) | None, _) => measure(&arguments),
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    if !arguments.headgate.exists() {
        bail!(
            "{} does not exist: build it with `cargo build --release -p headgate`, or name it with --headgate",
            arguments.headgate.display()
        );
    }
    let Some(wanted) = scenario::wanted(&arguments.only) else {
        let names: Vec<_> = scenario::wanted(&[]).unwrap_or_default();
        bail!("--only: no scenario's name contains one of {:?}; there are {names:?}", arguments.only);
    };
    let machine = Machine { wrk: Some(load::wrk_version()?), ..machine::read(&arguments.profile)? };
    let work = machine::work_folder()?;
    let bench = measure::Bench {
        headgate: &arguments.headgate,
        envoy: arguments.envoy.as_deref(),
        folder: work.path(),
        material: material::Material::make(work.path())?,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
    };
    let mut report = report::Report { machine, results: Vec::new(), latency: Vec::new(), idle: Vec::new() };
    let (began, scenarios) = (Instant::now(), scenario::all());
    for (number, name) in wanted.iter().enumerate() {
        let minutes = began.elapsed().as_secs() / 60;
        eprintln!("{name} ({} of {}, after {minutes} min)", number + 1, wanted.len());
        let context = || format!("scenario {name}");
        match *name {
            "latency" => report.latency = bench.latency().with_context(context)?,
            "idle" => report.idle.extend(bench.idle(name, Work::Plain).with_context(context)?),
            "idle-tls" => report.idle.extend(bench.idle(name, Work::Tls).with_context(context)?),
            _ => {
                let scenario = scenarios.iter().find(|scenario| scenario.name == *name);
                let scenario = scenario.with_context(context)?;
                report.results.push(bench.measure(scenario).with_context(context)?);
            }
        }
    }
    report.print();
    let file = report.save(&arguments.results)?;
    eprintln!("kept in {}", file.display());
    Ok(())
}
