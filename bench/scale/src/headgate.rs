//! The Headgate that is measured: a process beside the API server, as its pod would be.

use crate::api::{Server, Verb};
use crate::cluster::Cluster;
use crate::http::{Answer, Connection, connect};
use crate::objects;
use crate::process::Process;
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
/// How long a start may take, and writing the statuses of all routes.
const PATIENCE: Duration = Duration::from_secs(900);
/// Between two looks at something that is about to happen.
const LOOK: Duration = Duration::from_millis(1);
/// Quiet is who uses less than a hundredth of a CPU for so many windows; between two of its regular requests lie two seconds.
const WINDOW: Duration = Duration::from_millis(500);
const WINDOWS: u32 = 6;

/// A running Headgate.
pub struct Headgate {
    /// Its process.
    pub process: Process,
    began: Instant,
}

/// A client of its proxy, whose connection is kept.
pub struct Proxy {
    address: SocketAddr,
    connection: Option<Connection<TcpStream>>,
}

impl Headgate {
    /// Starts it.
    pub fn start(binary: &Path, cluster: &Cluster, folder: &Path) -> Result<Self> {
        let arguments = [
            "run",
            "--admin-address=127.0.0.1:15000",
            "--access-log=off",
            // Always the same: after a sudden end it leads at once, as a pod does that was the leader.
            "--pod-name=headgate-0",
            &format!("--pod-namespace={}", objects::OWN_NAMESPACE),
            "--port-range=20000-20009",
            // Nobody gives addresses of load balancers here.
            "--service-type=ClusterIP",
        ];
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let began = Instant::now();
        let process = Process::start(binary, &arguments, &[("KUBECONFIG", &cluster.kubeconfig)], folder)?;
        Ok(Self { process, began })
    }

    /// Waits until it says that it is ready, and how long that took from the start on.
    pub fn ready(&mut self) -> Result<Duration> {
        let began = self.began;
        self.process.until("to be ready", PATIENCE, LOOK, || {
            let answer = get(ADMIN, "localhost", "/readyz").ok()?;
            (answer.status == 200).then(|| began.elapsed())
        })
    }

    /// The port of its proxy: what the Gateway's Service sends to.
    pub fn port(&mut self, server: &Server) -> Result<SocketAddr> {
        let mut api = server.connect()?;
        let port = self.process.until("the Gateway's Service", PATIENCE, LOOK * 5, || {
            let services = api.call(Verb::Get, objects::GATEWAY_SERVICE, None).ok()?;
            services["items"][0]["spec"]["ports"][0]["targetPort"].as_u64()
        })?;
        Ok((Ipv4Addr::LOCALHOST, u16::try_from(port)?).into())
    }

    /// Waits until the proxy answers rightly for a route, and how long that took from the start on.
    pub fn serves(&mut self, proxy: SocketAddr, route: usize) -> Result<Duration> {
        let began = self.began;
        let (mut proxy, host, right) =
            (Proxy::new(proxy), objects::host_of(route), objects::answer(route, "1"));
        self.process.until("to serve the last route", PATIENCE, LOOK, || {
            let answer = proxy.ask(&host).ok()?;
            answer.is(&right).then(|| began.elapsed())
        })
    }

    /// Waits until it has nothing to do, and since when, from the start on.
    pub fn quiet(&mut self) -> Result<Duration> {
        let (mut windows, mut since) = (0, self.began.elapsed());
        let mut before = self.process.cpu()?;
        while windows < WINDOWS {
            let here = self.began.elapsed();
            ensure!(here < PATIENCE, "Headgate isn't quiet:\n{}", self.process.last_lines());
            std::thread::sleep(WINDOW);
            self.process.check()?;
            let now = self.process.cpu()?;
            if now.saturating_sub(before) > WINDOW / 100 {
                windows = 0;
            } else {
                since = if windows == 0 { here } else { since };
                windows += 1;
            }
            before = now;
        }
        Ok(since)
    }

    /// What it counts.
    pub fn metrics(&self) -> Result<String> {
        Ok(String::from_utf8(get(ADMIN, "localhost", "/metrics")?.body)?)
    }
}

impl Proxy {
    /// Not connected yet.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    /// The answer to a request for a host.
    pub fn ask(&mut self, host: &str) -> Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::new(connect(self.address)?),
        };
        let answer = ask(&mut connection, host, "/api")?;
        if !answer.closes {
            self.connection = Some(connection);
        }
        Ok(answer)
    }
}

impl Answer {
    /// Whether it is this answer of the backend.
    pub fn is(&self, right: &str) -> bool {
        self.status == 200 && self.body == right.as_bytes()
    }
}

fn get(address: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    ask(&mut Connection::new(connect(address)?), host, path)
}

fn ask(connection: &mut Connection<TcpStream>, host: &str, path: &str) -> Result<Answer> {
    connection.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())?;
    connection.receive().context("no answer")
}
