//! `bench/scale.sh`: Headgate beside a real API server with thousands of routes: how soon it serves, what it holds, how soon a change
//! is served, and what a change costs.
//!
//! etcd and kube-apiserver run as processes in a network namespace of this process's own, without nodes. Everything here is blocking and
//! single-minded, so that the driver is in the way of what it measures as little as can be.

mod api;
mod backend;
mod churn;
mod cluster;
mod cpu;
mod headgate;
mod histogram;
mod http;
mod measure;
mod objects;
mod process;
mod report;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use headgate_bench::machine::{self, Machine};
use report::Report;
use std::path::PathBuf;

/// Command line of the benchmark.
#[derive(Parser)]
#[command(version, about)]
pub struct Arguments {
    /// Numbers of routes to measure with; ratios are of the last to the first.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,20000")]
    routes: Vec<usize>,
    /// Starts after the first, in each size.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// Edits whose CPU time is counted, while nothing else happens.
    #[arg(long, default_value_t = 500)]
    counted: usize,
    #[command(flatten)]
    plan: churn::Plan,
    /// The API server collects its garbage when it likes, as by its usual settings, and takes the CPUs that it shares for it.
    #[arg(long)]
    usual_gc: bool,
    /// The binary that is measured.
    #[arg(long)]
    headgate: PathBuf,
    /// Its build, for the record.
    #[arg(long)]
    profile: String,
    /// Folder of etcd and kube-apiserver.
    #[arg(long)]
    programs: PathBuf,
    /// Folders of CRDs; may be repeated.
    #[arg(long)]
    crds: Vec<PathBuf>,
    /// Folder for the run's files, which its owner removes.
    #[arg(long)]
    work: PathBuf,
    /// Folder for the JSON of the results.
    #[arg(long)]
    results: PathBuf,
}

/// The files of one size, removed with it: etcd's take hundreds of megabytes.
pub struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left goes with the folder around it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[expect(clippy::print_stdout, reason = "the table is the program's output")]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // A tenth of them are stable, a tenth is edited one by one.
    ensure!(arguments.routes.iter().all(|routes| *routes >= 100), "--routes: at least 100");
    ensure!(arguments.plan.rate > 0.0 && arguments.counted > 0 && arguments.starts > 0, "nothing to do");
    cluster::prepare_network()?;
    let binary = arguments.headgate.to_str().context("--headgate")?;
    let version = machine::output(binary, &["version"])?;
    let headgate = version.lines().next().map(str::to_owned);
    let machine = Machine { headgate, ..machine::read(&arguments.profile)? };
    backend::start()?;
    let mut report = Report { machine, sizes: Vec::new() };
    for routes in &arguments.routes {
        let size = measure::size(&arguments, *routes).with_context(|| format!("with {routes} routes"))?;
        report.sizes.push(size);
        // Each in its turn, so that a run that is broken off leaves what it has.
        let file = report.save(&arguments.results)?;
        println!("\n{report}\nkept in {}\n", file.display());
    }
    ensure!(report.is_sound(), "requests failed");
    Ok(())
}
