//! `bench/control.sh`: what a change costs the control plane, in clusters of 1,000 to 20,000 routes.
//!
//! The whole loop runs on one thread as it does in production (translation, compile, publish, statuses), against an API server
//! that is a few lines in the same process ([`api`]): so a figure is the loop's own CPU time, to the nanosecond of the
//! scheduler's clock, and repeats on a busy machine. Each size has a process of its own, so that memory is that size's.

mod api;
mod objects;
mod report;
mod run;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use report::{Report, Size};
use std::process::Command;

/// The binary's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Command line of the benchmark of the control plane.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Numbers of routes to measure with; ratios are to the first.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,20000")]
    routes: Vec<usize>,
    /// How often each change is made.
    #[arg(long, default_value_t = 100)]
    times: usize,
    /// Prints one size's figures as JSON.
    #[arg(long, hide = true)]
    one: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let (true, [routes]) = (arguments.one, &*arguments.routes) {
        let size = run::measure(*routes, arguments.times)?;
        return report::print(&serde_json::to_string(&size)?);
    }
    let mut sizes = Vec::new();
    for routes in &arguments.routes {
        let done = Command::new(std::env::current_exe()?)
            .args(["--one", "--routes", &routes.to_string(), "--times", &arguments.times.to_string()])
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("cannot run myself")?;
        ensure!(done.status.success(), "{routes} routes: {}", done.status);
        sizes.push(serde_json::from_slice::<Size>(&done.stdout)?);
    }
    report::print(&Report { sizes }.to_string())
}
