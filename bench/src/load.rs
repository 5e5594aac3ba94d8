//! Load from `wrk`, `h2load` and clients of our own on CPU 1, and what they say of the answers.

use crate::client::{Kind, Told};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Where load goes, and what it is.
pub struct Load<'a> {
    /// The first address; a script may ask for others.
    pub url: &'a str,
    /// Fields of each request.
    pub headers: &'a [String],
    /// Client connections.
    pub connections: u32,
    /// How long.
    pub seconds: u32,
}

/// What one run of load came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Done {
    /// Requests answered.
    pub requests: u64,
    /// Requests per second.
    pub rate: f64,
}

/// Latencies at a fixed rate, in µs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// Of a hundred, one takes longer.
    pub p99: f64,
}

impl Load<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", "1", program, "-t1"]).arg(format!("-c{}", self.connections));
        for header in self.headers {
            command.args(["-H", header]);
        }
        command
    }

    /// Runs `wrk`. An error when a connection failed or an answer was not 2xx or 3xx. The script is told how many
    /// requests there were before.
    pub fn wrk(&self, script: Option<&Path>, asked: u64) -> Result<Done> {
        let mut command = self.command("wrk");
        command.arg(format!("-d{}s", self.seconds));
        if let Some(script) = script {
            command.arg("-s").arg(script);
        }
        read_wrk(&run(command.arg(self.url).arg("--").arg(asked.to_string()), "wrk")?)
    }

    /// Runs clients of our own, which look at each byte of their answers.
    pub fn own(&self, kind: Kind, port: u16, certificate: &Path) -> Result<Done> {
        let kind = kind.to_possible_value().context("a kind without a name")?;
        let mut command = Command::new("taskset");
        command.args(["-c", "1"]).arg(env::current_exe()?).args(["client", kind.get_name()]);
        command.args(["--port", &port.to_string(), "--connections", &self.connections.to_string()]);
        command.args(["--seconds", &self.seconds.to_string(), "--certificate"]).arg(certificate);
        let told: Told = serde_json::from_str(&run(&mut command, "the client")?)?;
        ensure!(told.requests > 0, "nothing was answered");
        Ok(Done { requests: told.requests, rate: told.requests as f64 / told.seconds })
    }

    /// So many requests by `h2load`: over HTTP/1.1, or over HTTP/2 with so many streams on each connection.
    pub fn counted(&self, streams: Option<u32>, requests: u64) -> Result<()> {
        let mut command = self.command("h2load");
        match streams {
            Some(streams) => command.arg(format!("-m{streams}")),
            None => command.args(["--h1", "-m1"]),
        };
        let done = read_h2load(&run(command.arg(format!("-n{requests}")).arg(self.url), "h2load")?)?;
        ensure!(done.requests == requests, "{} of {requests} requests were answered", done.requests);
        Ok(())
    }

    /// Runs `h2load` with so many streams on each connection at once.
    pub fn h2(&self, streams: u32) -> Result<Done> {
        let mut command = self.command("h2load");
        command
            .arg(format!("-m{streams}"))
            .args(["--warm-up-time=0", "--duration"])
            .arg(self.seconds.to_string());
        read_h2load(&run(command.arg(self.url), "h2load")?)
    }

    /// Asks at a fixed rate, over HTTP/1.1, and looks how long each answer takes.
    pub fn paced(&self, rate: f64, log: &Path) -> Result<Latency> {
        // Each connection has its share of the rate, a whole number.
        let each = (rate / f64::from(self.connections)).round().max(1.0);
        let requests = each * f64::from(self.connections * self.seconds);
        // h2load adds to what is there.
        drop(fs::remove_file(log));
        let mut command = self.command("h2load");
        command.args(["--h1", "-m1"]).arg(format!("--rps={each}")).arg(format!("-n{requests}"));
        command.arg(format!("--log-file={}", log.display())).arg(self.url);
        read_h2load(&run(&mut command, "h2load")?)?;
        read_log(&fs::read_to_string(log).with_context(|| log.display().to_string())?)
    }
}

fn run(command: &mut Command, program: &str) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot run {program} under taskset"))?;
    ensure!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// `wrk -v` ends with 1 after it printed its version and its usage.
pub fn wrk_version() -> Result<String> {
    let done = Command::new("wrk").arg("-v").output().context("cannot run wrk (Debian package wrk)")?;
    let text = String::from_utf8_lossy(&done.stdout);
    Ok(text.split_whitespace().nth(1).context("wrk -v printed no version")?.to_owned())
}

fn read_wrk(text: &str) -> Result<Done> {
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
    Ok(Done { requests, rate })
}

fn read_h2load(text: &str) -> Result<Done> {
    let printed = || format!("h2load printed no result:\n{text}");
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start)).with_context(printed);
    let counts = line("requests: ")?;
    let count = |what: &str| -> Result<u64> {
        let found = counts.split(", ").find_map(|part| part.strip_suffix(what));
        found.and_then(|count| count.trim().parse().ok()).with_context(printed)
    };
    let codes = line("status codes: ")?;
    let good = codes
        .split(" 2xx")
        .next()
        .and_then(|count| count.trim().parse::<u64>().ok())
        .with_context(printed)?;
    let requests = count("succeeded")?;
    ensure!(
        count("failed")? == 0 && count("errored")? == 0 && good >= requests,
        "not every request was answered right: {counts}; {codes}"
    );
    let rate = line("finished in ")?.split(", ").find_map(|part| part.strip_suffix(" req/s"));
    let rate = rate.and_then(|rate| rate.trim().parse().ok()).with_context(printed)?;
    Ok(Done { requests, rate })
}

/// Lines of start, status and duration, by tabs.
fn read_log(text: &str) -> Result<Latency> {
    let duration = |line: &str| line.split('\t').nth(2)?.parse::<f64>().ok();
    let mut all: Vec<f64> = text.lines().filter_map(duration).collect();
    ensure!(all.len() >= 1_000, "h2load told of {} requests only", all.len());
    all.sort_by(f64::total_cmp);
    let at = |share: usize| all[(all.len() - 1) * share / 100];
    Ok(Latency { p50: at(50), p99: at(99) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  33211 requests in 1.00s, 41.2MB read\nRequests/sec:  33187.92\nTransfer/sec:     41.17MB\n";
    const H2: &str = "finished in 3.00s, 21455.33 req/s, 22.33MB/s\nrequests: 64366 total, 64877 started, 64366 done, 64366 succeeded, 0 failed, 0 errored, 0 timeout\nstatus codes: 64877 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    #[test]
    fn reads_counts() {
        assert_eq!(read_wrk(GOOD).expect("good"), Done { requests: 33211, rate: 33187.92 });
        assert_eq!(read_h2load(H2).expect("good"), Done { requests: 64366, rate: 21455.33 });
    }

    #[test]
    fn one_wrong_answer_voids_the_run() {
        let bad = format!("{GOOD}  Non-2xx or 3xx responses: 1\n");
        assert!(read_wrk(&bad).expect_err("bad").to_string().contains("Non-2xx"));
        let cut = format!("{GOOD}  Socket errors: connect 0, read 3, write 0, timeout 0\n");
        assert!(read_wrk(&cut).is_err());
        assert!(read_h2load(&H2.replace("0 failed", "1 failed")).is_err());
        assert!(read_h2load(&H2.replace("64877 2xx, 0 3xx, 0 4xx", "64000 2xx, 0 3xx, 877 4xx")).is_err());
    }

    #[test]
    fn percentiles_are_of_all_requests() {
        let log: String = (1..=1_000).rev().map(|n| format!("1700000000\t200\t{n}\n")).collect();
        assert_eq!(read_log(&log).expect("good"), Latency { p50: 500.0, p99: 990.0 });
        assert!(read_log("").is_err());
    }
}
