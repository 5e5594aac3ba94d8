//! CPU time of a process tree, from `/proc`.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// CPU time (user and system) that the process `root` and its descendants have used so far, in the scheduler's
/// nanoseconds (`/proc/PID/task/TID/schedstat`), all threads that are still alive.
pub fn used(root: u32) -> Result<Duration> {
    let mut total = 0;
    for process in tree(root)? {
        let tasks = format!("/proc/{process}/task");
        for task in fs::read_dir(&tasks).with_context(|| tasks.clone())?.flatten() {
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            total += text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(total))
}

/// Proportional set size of the process tree in KiB.
pub fn pss_kib(root: u32) -> Result<u64> {
    let mut total = 0;
    for process in tree(root)? {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find(|line| line.starts_with("Pss:")).context("no Pss line")?;
        total += line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(total)
}

fn tree(root: u32) -> Result<Vec<u32>> {
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let path = format!("/proc/{0}/task/{0}/children", found[next]);
        let children = fs::read_to_string(&path).with_context(|| path.clone())?;
        found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        next += 1;
    }
    Ok(found)
}
