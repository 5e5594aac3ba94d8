//! What the figures were measured on, and how much of it others used meanwhile.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// What `/proc` counts CPU time in.
const TICK: Duration = Duration::from_millis(10);

/// The machine and the moment.
#[derive(Deserialize, Serialize)]
pub struct Machine {
    /// CPU model.
    pub cpu: String,
    /// Logical CPUs.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
    /// Commit that was measured, with `+` when the tree had changes.
    pub commit: String,
    /// What `headgate version` says.
    pub headgate: String,
    /// What built it, where we did.
    pub profile: String,
    /// Runnable tasks, averaged over the minute before the run.
    pub busy_before: f64,
    /// Seconds since the Unix epoch.
    pub time: u64,
}

/// Reads the machine's description.
pub fn read(binary: &str, profile: &str) -> Result<Machine> {
    let info = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let changed = !output("git", &["status", "--porcelain"])?.is_empty();
    let average = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    Ok(Machine {
        cpu: model.map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':'])).to_owned(),
        cpus: info.lines().filter(|line| line.starts_with("processor")).count(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("the kernel's release")?
            .trim()
            .to_owned(),
        commit: output("git", &["rev-parse", "--short", "HEAD"])? + if changed { "+" } else { "" },
        headgate: output(binary, &["version"])?.lines().next().unwrap_or_default().to_owned(),
        profile: profile.to_owned(),
        busy_before: average.split(' ').next().and_then(|one| one.parse().ok()).context("/proc/loadavg")?,
        time: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
    })
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let done = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    ensure!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?.trim().to_owned())
}

/// CPU time that all processes of the machine have used so far.
pub fn used() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let fields = text.lines().next().context("/proc/stat")?.split_whitespace().skip(1);
    let ticks: Vec<u32> = fields.map(|field| field.parse().unwrap_or_default()).collect();
    // User, nice, system; neither idle nor waiting for disks; interrupts.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|n| ticks.get(*n)).sum();
    Ok(TICK * busy)
}

/// CPU time that this process has used so far, ended threads included.
pub fn used_by_me() -> Result<Duration> {
    let text = fs::read_to_string("/proc/self/stat").context("/proc/self/stat")?;
    // The name before it may hold anything.
    let (_, fields) = text.rsplit_once(')').context("/proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok());
    Ok(TICK * ticks.sum::<u32>())
}
