//! `make bench`: starts proxies side by side on loopback, sends each the same load in interleaved rounds, and prints
//! what a request cost each of them in CPU time, as a ratio to nginx in the same run.
//!
//! CPU time per request, not requests per second: on small shared machines it is the figure that repeats. Each
//! proxy has one worker on CPU 0; the load and the backends have CPU 1. One wrong answer voids a run.

mod cpu;
mod load;
mod machine;
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
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Folder for the JSON result.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if !arguments.headgate.exists() {
        bail!(
            "{} does not exist: build it with `cargo build --release -p headgate`, or name it with --headgate",
            arguments.headgate.display()
        );
    }
    let machine = machine::read(&arguments.profile)?;
    let work = machine::work_folder()?;
    let mut results = Vec::new();
    for scenario in scenario::all().iter().filter(|s| s.name.contains(&arguments.only)) {
        eprintln!("{}: {}", scenario.name, scenario.about);
        let result = scenario::measure(
            scenario,
            &arguments.headgate,
            work.path(),
            arguments.rounds,
            arguments.seconds,
        )
        .with_context(|| format!("scenario {}", scenario.name))?;
        results.push(result);
    }
    if results.is_empty() {
        bail!("no scenario's name contains {:?}", arguments.only);
    }
    let report = report::Report { machine, results };
    report.print();
    let file = report.save(&arguments.results)?;
    eprintln!("kept in {}", file.display());
    Ok(())
}
