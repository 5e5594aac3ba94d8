//! The proxies, their backends, and equal work for all: two backends, keep-alive pools, `X-Forwarded-*` and hop-by-hop
//! handling, no access log, one worker on CPU 0.

mod envoy;
mod haproxy;
mod headgate;
mod nginx;

use crate::material::Material;
use crate::token::Algorithm;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a proxy may take until it answers; under valgrind on a busy machine it is slow.
pub const START: Duration = Duration::from_secs(120);

/// A child process that ends with its owner.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let out = fs::File::create(log).with_context(|| log.display().to_string())?;
        let err = out.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// What it has to say.
    fn says(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx's master takes its workers along only when it is asked to stop, not when it is killed.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// What a proxy does besides taking requests to its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Plain,
    /// Finds one of so many routes, each a prefix of the path: `/r0/`, `/r1/` and so on.
    Routes(usize),
    /// Ends TLS, with HTTP/2 and HTTP/1.1.
    Tls,
    /// Lets clients change to WebSockets.
    WebSocket,
    /// Counts requests by address, against a limit that isn't reached.
    Limit,
    /// Verifies a token, and looks at its times and issuer.
    Jwt(Algorithm),
    /// Knows users who have logged in by a cookie, which the provider on a port has led to.
    Session(u16),
    /// Watches backends for failures, of which there are none.
    Breaker,
}

/// What proxies are started from.
pub struct Setup<'a> {
    /// What they do.
    pub work: Work,
    /// For their files.
    pub folder: &'a Path,
    /// Ports of the backends.
    pub backends: [u16; 2],
    /// Certificates and tokens.
    pub material: &'a Material,
    /// The binary that is measured.
    pub headgate: &'a Path,
    /// Envoy's binary, where there is one.
    pub envoy: Option<&'a Path>,
    /// What runs them.
    pub under: &'a Under,
}

/// What a proxy runs under.
pub enum Under {
    /// The kernel alone.
    Nothing,
    /// A program that becomes it or watches it, with its arguments.
    Tool(Vec<String>),
}

/// The two backends, one nginx.
pub struct Backends {
    _process: Process,
    /// Their ports on 127.0.0.1.
    pub ports: [u16; 2],
}

/// A proxy under test.
pub struct Peer {
    /// Its name in the table.
    pub name: &'static str,
    /// What it says its version is.
    pub version: String,
    /// The process; `taskset` has become it.
    pub process: Process,
    port: u16,
}

impl Peer {
    /// Where load goes.
    pub fn url(&self, work: Work, path: &str) -> String {
        let scheme = if work == Work::Tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until it answers, then checks the answer: 200, and a body of so many bytes.
    pub fn check(&self, url: &str, headers: &[String], bytes: usize) -> Result<()> {
        let began = Instant::now();
        let wanted = format!("200 {bytes}");
        loop {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--insecure", "--max-time", "5", "--output", "/dev/null"]);
            curl.args(["--write-out", "%{http_code} %{size_download}"]);
            for header in headers {
                curl.args(["--header", header]);
            }
            let done = curl.arg(url).output().context("cannot run curl")?;
            let answered = String::from_utf8_lossy(&done.stdout).into_owned();
            if answered == wanted {
                return Ok(());
            }
            ensure!(
                began.elapsed() < START,
                "answered {answered:?} instead of {wanted:?}; it says: {}",
                self.process.says()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A port that nobody listens at, below those that the kernel gives to connections: between its choice and its use one of these
/// might take it.
fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let mut ports =
        std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed)).take_while(|port| *port < 32_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no port is free")
}

fn pinned(cpu: &str, under: &Under, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cpu]);
    match under {
        Under::Nothing => {}
        Under::Tool(tool) => {
            command.args(tool);
        }
    }
    command.arg(program);
    command
}

/// Writes a file of a proxy.
fn write(setup: &Setup<'_>, name: &str, text: &str) -> Result<PathBuf> {
    let file = setup.folder.join(name);
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// Starts the backends on CPU 1: `/` is 1 KiB, `/large` 1 MiB, and `/upload` answers when it has all of a body. Those
/// of WebSockets are of our own, for nginx has nothing that echoes.
pub fn start_backends(folder: &Path, work: Work) -> Result<Backends> {
    let ports = [free_port()?, free_port()?];
    if work == Work::WebSocket {
        let mut command = pinned("1", &Under::Nothing, &std::env::current_exe()?);
        command.arg("echo").args(ports.map(|port| format!("--port={port}")));
        let process = Process::start(&mut command, &folder.join("echo.log"))?;
        return Ok(Backends { _process: process, ports });
    }
    fs::write(folder.join("large"), vec![b'x'; crate::scenario::LARGE])?;
    let small = "x".repeat(crate::scenario::SMALL);
    let server = |port: &u16| {
        format!(
            "server {{ listen 127.0.0.1:{port} backlog=4096; client_max_body_size 0;\n\
             location / {{ return 200 '{small}'; }}\n\
             location = /upload {{ client_body_buffer_size 2m; proxy_pass http://127.0.0.1:{port}/; proxy_method GET;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_pass_request_body off; proxy_set_header Content-Length \"\"; }}\n\
             location = /large {{ root {}; }} }}\n",
            folder.display()
        )
    };
    let servers: String = ports.iter().map(server).collect();
    let process = nginx::process("backends", "1", &Under::Nothing, folder, &servers)?;
    Ok(Backends { _process: process, ports })
}

/// Starts every proxy that can do the work on CPU 0; nginx first, where it can, for the others are compared with it. Where the work is
/// something besides, Headgate without it comes last.
pub fn start_all(setup: &Setup<'_>) -> Result<Vec<Peer>> {
    let mut peers: Vec<Peer> = Vec::new();
    peers.extend(nginx::start(setup)?);
    peers.extend(haproxy::start(setup)?);
    if let Some(binary) = setup.envoy {
        peers.extend(envoy::start(setup, binary)?);
    }
    peers.push(headgate::start(setup, "headgate")?);
    if matches!(setup.work, Work::Limit | Work::Jwt(_) | Work::Session(_) | Work::Breaker) {
        let plain = Setup { work: Work::Plain, ..*setup };
        peers.push(headgate::start(&plain, "headgate plain")?);
    }
    Ok(peers)
}

/// Starts Headgate alone.
pub fn start_headgate(setup: &Setup<'_>) -> Result<Peer> {
    headgate::start(setup, "headgate")
}

/// Starts nginx alone; none where it can't do the work.
pub fn start_nginx(setup: &Setup<'_>) -> Result<Option<Peer>> {
    nginx::start(setup)
}

/// The first word of a line that has a digit after it: versions, as programs print them.
fn version(text: &str) -> String {
    let words = text.split([' ', '/', '\n', '-']);
    let found = words
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'));
    found.unwrap_or("unknown").to_owned()
}
