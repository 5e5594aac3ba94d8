//! What the figures were measured on, and a folder for the run's files.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The machine and the moment, kept with every result.
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
    /// Cargo profile of the binary that was measured.
    pub profile: String,
    /// Version of the load generator, where it is one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrk: Option<String>,
    /// What `headgate version` says, where the binary may be anybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headgate: Option<String>,
    /// Runnable tasks, averaged over the minute before the run: figures of a busy machine are not to be trusted.
    pub busy_before: f64,
    /// Seconds since the Unix epoch.
    pub time: u64,
}

/// Reads the machine's description; `profile` is what the measured binary was built with. Versions are for the caller to add.
pub fn read(profile: &str) -> Result<Machine> {
    let info = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let cpu = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
        .unwrap_or_else(|| "unknown".to_owned());
    let kernel =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("kernel release")?.trim().to_owned();
    let changed = !output("git", &["status", "--porcelain"])?.is_empty();
    let commit =
        format!("{}{}", output("git", &["rev-parse", "--short", "HEAD"])?, if changed { "+" } else { "" });
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let average = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let busy_before = average.split(' ').next().and_then(|one| one.parse().ok()).context("/proc/loadavg")?;
    // All that there are: the driver itself is kept to one.
    let cpus = info.lines().filter(|line| line.starts_with("processor")).count();
    let profile = profile.to_owned();
    Ok(Machine { cpu, cpus, kernel, commit, profile, wrk: None, headgate: None, busy_before, time })
}

/// Standard output of a command that must succeed, trimmed.
pub fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let done =
        Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    anyhow::ensure!(
        done.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8(done.stdout)?.trim().to_owned())
}

/// A folder that is removed with its owner.
pub struct Folder(PathBuf);

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Best effort: a folder left in the temporary directory harms nothing.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes the run's folder.
pub fn work_folder() -> Result<Folder> {
    let path = std::env::temp_dir().join(format!("headgate-bench-{}", std::process::id()));
    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(Folder(path))
}
