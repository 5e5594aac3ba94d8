//! `make instructions`: what a request costs in user instructions (callgrind) and in system calls (strace), which
//! repeat where times don't. Compared with what was recorded: a few per cent more is an error, for it is no accident.
//!
//! Every figure is the difference of two runs of other lengths, so that start, configuration and connections aren't in it.

use crate::load::Load;
use crate::login;
use crate::material::Material;
use crate::peer::{self, Backends, Peer, Setup, Under, Work};
use crate::scenario::SMALL;
use crate::token::Algorithm;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use headgate_bench::machine;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much more than recorded is too much. The figures themselves repeat within one or two per cent.
const TOLERANCE: f64 = 0.03;
/// Requests before anything is counted, of the shorter and of the longer run under callgrind, which is fifty times slower
/// than nothing.
const INSTRUCTIONS: [u64; 3] = [512, 1_024, 4_096];
/// Those of the two runs under strace: its figures vary with how many connections are ready at once.
const SYSTEM_CALLS: [u64; 2] = [2_048, 12_288];
/// How long strace may take to write what it counted, after what it watched has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// The command line.
#[derive(Args)]
pub struct Arguments {
    /// The binary to measure.
    #[arg(long)]
    headgate: PathBuf,
    /// The profile it was built with: figures of another aren't comparable.
    #[arg(long)]
    profile: String,
    /// What was recorded.
    #[arg(long, default_value = "bench/instructions.json")]
    recorded: PathBuf,
    /// Writes it anew, instead of comparing.
    #[arg(long)]
    record: bool,
    /// Only these cases, without comparing.
    #[arg(long, value_delimiter = ',', conflicts_with = "record")]
    only: Vec<String>,
    /// Where callgrind's files go: `callgrind_annotate` shows where the instructions of the longer run went.
    #[arg(long)]
    keep: Option<PathBuf>,
}

/// The kept file.
#[derive(Deserialize, Serialize)]
struct Recorded {
    /// What `rustc --version` says.
    toolchain: String,
    /// Cargo profile of the binary.
    profile: String,
    /// User instructions a request, by case.
    instructions: BTreeMap<String, f64>,
    /// System calls a request, by case.
    system_calls: BTreeMap<String, f64>,
}

/// One sort of request.
struct Case {
    name: &'static str,
    proxy: Proxy,
    work: Work,
    /// Over HTTP/2, so many streams on each connection.
    streams: Option<u32>,
    /// System calls that it may take at most, where they are counted.
    calls: Option<f64>,
}

#[derive(Clone, Copy)]
enum Proxy {
    Headgate,
    Nginx,
}

fn cases() -> Vec<Case> {
    let ours = |name, work, streams, calls| Case { name, proxy: Proxy::Headgate, work, streams, calls };
    vec![
        ours("h1", Work::Plain, None, Some(4.2)),
        ours("tls", Work::Tls, None, Some(4.2)),
        ours("h2", Work::Tls, Some(32), Some(2.8)),
        ours("rate-limit", Work::Limit, None, None),
        ours("jwt-known", Work::Jwt(Algorithm::Es256), None, None),
        ours("oidc-session", Work::Session(0), None, None),
        ours("breaker", Work::Breaker, None, None),
        // To compare with: not ours to keep.
        Case { name: "nginx-h1", proxy: Proxy::Nginx, work: Work::Plain, streams: None, calls: None },
    ]
}

/// The cases of these names; all where there are none.
fn wanted(only: &[String]) -> Result<Vec<Case>> {
    let mut all = cases();
    if let Some(name) = only.iter().find(|name| all.iter().all(|case| case.name != **name)) {
        let names: Vec<_> = all.iter().map(|case| case.name).collect();
        bail!("--only: no case is called {name:?}; there are {names:?}");
    }
    all.retain(|case| only.is_empty() || only.iter().any(|name| name == case.name));
    Ok(all)
}

/// What runs are made with.
struct Lab<'a> {
    folder: &'a Path,
    material: Material,
    headgate: &'a Path,
    keep: Option<&'a Path>,
}

/// Measures, prints, and compares or records.
#[expect(clippy::print_stdout, reason = "the figures are the program's output")]
pub fn run(arguments: &Arguments) -> Result<()> {
    let folder = machine::work_folder()?;
    let headgate = arguments.headgate.as_path();
    ensure!(headgate.exists(), "{} does not exist", headgate.display());
    let keep = arguments.keep.as_deref();
    let lab = Lab { folder: folder.path(), material: Material::make(folder.path())?, headgate, keep };
    let mut measured = Recorded {
        toolchain: machine::output("rustc", &["--version"])?,
        profile: arguments.profile.clone(),
        instructions: BTreeMap::new(),
        system_calls: BTreeMap::new(),
    };
    let began = Instant::now();
    for case in wanted(&arguments.only)? {
        let context = || format!("case {}", case.name);
        eprintln!("{} (after {} s)", case.name, began.elapsed().as_secs());
        let instructions = lab.instructions(&case).with_context(context)?;
        measured.instructions.insert(case.name.to_owned(), instructions.round());
        if case.calls.is_some() {
            let calls = lab.system_calls(&case).with_context(context)?;
            measured.system_calls.insert(case.name.to_owned(), (calls * 100.0).round() / 100.0);
        }
    }
    if arguments.record {
        let text = serde_json::to_string_pretty(&measured)? + "\n";
        fs::write(&arguments.recorded, text).with_context(|| arguments.recorded.display().to_string())?;
        eprintln!("recorded in {}", arguments.recorded.display());
    }
    if !arguments.only.is_empty() {
        println!("{}", serde_json::to_string_pretty(&measured)?);
        return Ok(());
    }
    let text = fs::read_to_string(&arguments.recorded)
        .with_context(|| format!("{}: record one with --record", arguments.recorded.display()))?;
    compare(&measured, &serde_json::from_str(&text)?)
}

/// Prints both; an error where more is needed than may be.
#[expect(clippy::print_stdout, reason = "the table is the program's output")]
fn compare(measured: &Recorded, recorded: &Recorded) -> Result<()> {
    ensure!(
        (&measured.toolchain, &measured.profile) == (&recorded.toolchain, &recorded.profile),
        "recorded with {}, profile {}, which isn't this one ({}, profile {}): record anew with --record",
        recorded.toolchain,
        recorded.profile,
        measured.toolchain,
        measured.profile
    );
    let mut worse = Vec::new();
    println!("{:<12} {:>14} {:>10} {:>8}", "a request", "instructions", "recorded", "");
    for (case, is) in &measured.instructions {
        let was = recorded.instructions.get(case).copied();
        let more = was.map(|was| is / was - 1.0);
        let shown = more.map_or_else(|| "new".to_owned(), |more| format!("{:+.1} %", more * 100.0));
        println!("{case:<12} {is:>14.0} {:>10.0} {shown:>8}", was.unwrap_or(f64::NAN));
        let is_ours =
            cases().iter().any(|known| known.name == case && matches!(known.proxy, Proxy::Headgate));
        if is_ours && more.is_none_or(|more| more > TOLERANCE) {
            worse.push(format!("{case}: {is:.0} instructions a request ({shown})"));
        }
    }
    for (case, is) in &measured.system_calls {
        let bar = cases().iter().find(|known| known.name == case).and_then(|known| known.calls);
        let bar = bar.context("a case that isn't counted")?;
        println!("{case:<12} {is:>14.2} system calls, at most {bar}");
        // Where the bar is missed already, it gets no worse.
        let most = recorded.system_calls.get(case).map_or(bar, |was| bar.max(was * (1.0 + TOLERANCE)));
        if *is > most {
            worse.push(format!("{case}: {is:.2} system calls a request, at most {most:.2} may be"));
        }
    }
    if worse.is_empty() {
        return Ok(());
    }
    bail!(
        "a request costs more than it did:\n  {}\nwhere it is meant: bench/instructions.sh --record",
        worse.join("\n  ")
    )
}

#[derive(Clone, Copy)]
enum Tool {
    Callgrind,
    Strace,
}

impl Tool {
    /// Its command line; it writes to `out` and, where it is asked to between, to files beside it.
    fn under(self, out: &Path) -> Under {
        let out = out.display();
        let line = match self {
            // Start and configuration would take minutes: it counts when it is told to.
            Self::Callgrind => {
                format!("valgrind -q --tool=callgrind --instr-atstart=no --callgrind-out-file={out}")
            }
            // `-D`: what it watches stays the child, and gets the signals.
            Self::Strace => format!("strace -D -f -c -U calls,name -o {out}"),
        };
        Under::Tool(line.split(' ').map(str::to_owned).collect())
    }
}

impl Lab<'_> {
    fn instructions(&self, case: &Case) -> Result<f64> {
        let out = self.folder.join(format!("{}.callgrind", case.name));
        let (bench, load) = self.start(case, &Tool::Callgrind.under(&out))?;
        let [warm_up, short, long] = INSTRUCTIONS;
        load.ask(case, warm_up)?;
        let tell = |what: &[&str]| {
            let pid = format!("--pid={}", bench.peer.process.id());
            machine::output("vgdb", &[&[&*pid], what].concat())
        };
        tell(&["instrumentation", "on"])?;
        let mut counts = Vec::new();
        for (number, requests) in [(1, short), (2, long)] {
            load.ask(case, requests)?;
            // What was counted goes to a file, and counting begins anew.
            tell(&["dump"])?;
            let dump = out.with_extension(format!("callgrind.{number}"));
            let text = fs::read_to_string(&dump).with_context(|| dump.display().to_string())?;
            counts.push(read_callgrind(&text)?);
            if let Some(keep) = self.keep {
                let kept = keep.join(format!("{}.{number}", case.name));
                fs::copy(&dump, &kept).with_context(|| kept.display().to_string())?;
            }
        }
        per_request(&counts, [short, long])
    }

    fn system_calls(&self, case: &Case) -> Result<f64> {
        let mut counts = Vec::new();
        for requests in SYSTEM_CALLS {
            let out = self.folder.join(format!("{}-{requests}.strace", case.name));
            let (bench, load) = self.start(case, &Tool::Strace.under(&out))?;
            load.ask(case, requests)?;
            drop(bench);
            let began = Instant::now();
            counts.push(loop {
                if let Some(total) = read_strace(&fs::read_to_string(&out).unwrap_or_default()) {
                    break total;
                }
                ensure!(began.elapsed() < PATIENCE, "strace has written no total to {}", out.display());
                std::thread::sleep(Duration::from_millis(50));
            });
        }
        per_request(&counts, SYSTEM_CALLS)
    }

    /// The proxy, its backends, and what it is asked.
    fn start(&self, case: &Case, under: &Under) -> Result<(Running, Asked)> {
        let signer = self.material.signer(Algorithm::Es256);
        let work = login::provided(case.work, signer)?;
        let backends = peer::start_backends(self.folder, work)?;
        let setup = Setup {
            work,
            folder: self.folder,
            backends: backends.ports,
            material: &self.material,
            headgate: self.headgate,
            envoy: None,
            under,
        };
        let peer = start(case.proxy, &setup)?;
        let headers = match work {
            Work::Jwt(_) => vec![format!("Authorization: Bearer {}", signer.token(0)?)],
            Work::Session(_) => vec![login::cookie(&peer)?],
            Work::Plain | Work::Routes(_) | Work::Tls | Work::WebSocket | Work::Limit | Work::Breaker => {
                Vec::new()
            }
        };
        let url = peer.url(work, "/");
        peer.check(&url, &headers, SMALL)?;
        Ok((Running { peer, _backends: backends }, Asked { url, headers }))
    }
}

/// Processes that end with this.
struct Running {
    peer: Peer,
    _backends: Backends,
}

struct Asked {
    url: String,
    headers: Vec<String>,
}

impl Asked {
    fn ask(&self, case: &Case, requests: u64) -> Result<()> {
        let connections = if case.streams.is_some() { 16 } else { 64 };
        let load = Load { url: &self.url, headers: &self.headers, connections, seconds: 0 };
        load.counted(case.streams, requests)
    }
}

/// What one of the requests came to that the longer run has more.
fn per_request(counts: &[u64], lengths: [u64; 2]) -> Result<f64> {
    let ([less, more], [short, long]) =
        (<[u64; 2]>::try_from(counts).map_err(|_| anyhow!("not two runs"))?, lengths);
    ensure!(more > less, "{more} for {long} requests, but {less} for {short}");
    Ok((more - less) as f64 / (long - short) as f64)
}

fn start(proxy: Proxy, setup: &Setup<'_>) -> Result<Peer> {
    match proxy {
        Proxy::Headgate => peer::start_headgate(setup),
        Proxy::Nginx => peer::start_nginx(setup)?.context("nginx can't do it"),
    }
}

fn read_callgrind(text: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals:"));
    let total = line.and_then(|total| total.trim().parse().ok());
    total.context("callgrind has written no total: did the process end as it should?")
}

fn read_strace(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_suffix("total"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_wanted_by_their_names() {
        let names = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|name| (*name).to_owned()).collect();
            wanted(&only).map(|cases| cases.iter().map(|case| case.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["breaker", "h1"]).expect("both are there"), ["h1", "breaker"]);
        assert_eq!(names(&[]).expect("all").len(), cases().len());
        assert!(names(&["h1", "h3"]).unwrap_err().to_string().contains("\"h3\""));
    }

    #[test]
    fn reads_totals() {
        assert_eq!(read_callgrind("events: Ir\nsummary: 7\n\ntotals: 1234\n").expect("a total"), 1234);
        assert!(read_callgrind("events: Ir\n").is_err());
        let table = "    calls syscall\n--------- ----------------\n     8192 epoll_wait\n        3 mmap\n--------- ----------------\n     8195 total\n";
        assert_eq!(read_strace(table), Some(8195));
        assert_eq!(read_strace(""), None);
    }

    fn recorded(instructions: f64, calls: f64) -> Recorded {
        let map = |value| BTreeMap::from([("h1".to_owned(), value)]);
        let (toolchain, profile) = ("rustc 1".to_owned(), "fast".to_owned());
        Recorded { toolchain, profile, instructions: map(instructions), system_calls: map(calls) }
    }

    #[test]
    fn three_per_cent_more_is_an_error() {
        let was = recorded(10_000.0, 4.1);
        assert!(compare(&recorded(10_290.0, 4.1), &was).is_ok());
        let error = compare(&recorded(10_310.0, 4.1), &was).expect_err("more");
        assert!(error.to_string().contains("h1: 10310"), "{error}");
        assert!(compare(&recorded(10_000.0, 4.3), &was).is_err(), "more system calls than may be");
        let other = Recorded { profile: "release".to_owned(), ..recorded(10_000.0, 4.1) };
        assert!(compare(&other, &was).is_err(), "of another build");
    }
}
