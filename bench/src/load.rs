//! Load from `wrk`, and what it says of the answers.

use anyhow::{Context, Result, bail};
use std::process::Command;

/// What one run of load came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Requests answered.
    pub requests: u64,
    /// Requests per second.
    pub rate: f64,
}

/// Runs `wrk` on CPU 1 against `url`. An error when a connection failed or an answer was not 2xx or 3xx.
pub fn wrk(url: &str, connections: u32, seconds: u32) -> Result<Load> {
    let done = Command::new("taskset")
        .args(["-c", "1", "wrk", "-t1"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{seconds}s"))
        .arg(url)
        .output()
        .context("cannot run wrk (Debian package wrk) under taskset")?;
    let text = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        bail!("wrk: {}", String::from_utf8_lossy(&done.stderr));
    }
    read(&text)
}

fn read(text: &str) -> Result<Load> {
    if let Some(line) = text
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("Socket errors") || line.starts_with("Non-2xx"))
    {
        bail!("not every request was answered right: {line}");
    }
    let requests = text
        .lines()
        .map(str::trim)
        .find_map(|line| line.split_once(" requests in "))
        .and_then(|(count, _)| count.parse().ok())
        .with_context(|| format!("wrk printed no count of requests:\n{text}"))?;
    let rate = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
        .and_then(|rate| rate.trim().parse().ok())
        .with_context(|| format!("wrk printed no rate:\n{text}"))?;
    Ok(Load { requests, rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  33211 requests in 1.00s, 41.2MB read\nRequests/sec:  33187.92\nTransfer/sec:     41.17MB\n";

    #[test]
    fn reads_counts() {
        assert_eq!(read(GOOD).expect("good"), Load { requests: 33211, rate: 33187.92 });
    }

    #[test]
    fn one_wrong_answer_voids_the_run() {
        let bad = format!("{GOOD}  Non-2xx or 3xx responses: 1\n");
        assert!(read(&bad).expect_err("bad").to_string().contains("Non-2xx"));
        let cut = format!("{GOOD}  Socket errors: connect 0, read 3, write 0, timeout 0\n");
        assert!(read(&cut).is_err());
    }
}
