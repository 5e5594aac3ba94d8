//! How much of the machine others used meanwhile.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// What `/proc` counts CPU time in.
const TICK: Duration = Duration::from_millis(10);

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
