//! The proxies, their backends, and equal work for all: two backends, keep-alive pools, `X-Forwarded-*` and hop-by-hop
//! handling, no access log, one worker on CPU 0.

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Length of every answer's body.
const BODY: usize = 1024;
/// How long a proxy may take until it answers.
const START: Duration = Duration::from_secs(15);

/// A child process that ends with its owner.
pub struct Process(Child);

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
        Ok(Self(child))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx's master takes its workers along only when it is asked to stop, not when it is killed.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
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
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Waits until it answers, then checks the answer.
    pub fn check(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            match get(self.port) {
                Ok(body) if body == BODY => return Ok(()),
                Ok(body) => bail!("a body of {body} bytes instead of {BODY}"),
                Err(error) if began.elapsed() > START => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

/// Length of the body that a GET of `/` is answered with.
fn get(port: u16) -> Result<usize> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "answered {:?}", head.lines().next());
    Ok(body.len())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn pinned(cpu: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cpu]).arg(program);
    command
}

/// Starts the backends on CPU 1.
pub fn start_backends(work: &Path) -> Result<Backends> {
    let ports = [free_port()?, free_port()?];
    let servers: String = ports
        .iter()
        .map(|port| {
            format!(
                "server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{}'; }} }}\n",
                "x".repeat(BODY)
            )
        })
        .collect();
    let process = start_nginx("backends", "1", work, &servers)?;
    Ok(Backends { _process: process, ports })
}

/// Starts every proxy on CPU 0; nginx first, what the others are compared with.
pub fn start_all(headgate: &Path, work: &Path, backends: &[u16; 2]) -> Result<Vec<Peer>> {
    Ok(vec![nginx(work, backends)?, start_headgate(headgate, work, backends)?])
}

fn start_nginx(name: &str, cpu: &str, work: &Path, http: &str) -> Result<Process> {
    let config = work.join(format!("{name}.conf"));
    let text = format!(
        "daemon off;\nworker_processes 1;\npid {0}/{name}.pid;\nerror_log {0}/{name}.error.log;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 1000000000;\nkeepalive_timeout 1h;\n\
         client_body_temp_path {0}/{name}.body;\nproxy_temp_path {0}/{name}.proxy;\n\
         fastcgi_temp_path {0}/{name}.f;\nuwsgi_temp_path {0}/{name}.u;\nscgi_temp_path {0}/{name}.s;\n{http}}}\n",
        work.display()
    );
    fs::write(&config, text).with_context(|| config.display().to_string())?;
    let mut command = pinned(cpu, Path::new("nginx"));
    command.arg("-c").arg(&config);
    Process::start(&mut command, &work.join(format!("{name}.log")))
        .context("nginx is needed (Debian package nginx)")
}

fn nginx(work: &Path, backends: &[u16; 2]) -> Result<Peer> {
    let port = free_port()?;
    let [a, b] = backends;
    let http = format!(
        "upstream backends {{ server 127.0.0.1:{a}; server 127.0.0.1:{b}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; location / {{\n\
         proxy_pass http://backends;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
         proxy_set_header Host $http_host;\nproxy_set_header X-Real-IP $remote_addr;\n\
         proxy_set_header X-Forwarded-For $remote_addr;\nproxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Forwarded-Host $http_host;\nproxy_request_buffering off;\n}} }}\n"
    );
    let version = Command::new("nginx").arg("-v").output().context("nginx -v")?;
    let version =
        String::from_utf8_lossy(&version.stderr).trim().rsplit('/').next().unwrap_or_default().to_owned();
    Ok(Peer { name: "nginx", version, process: start_nginx("nginx", "0", work, &http)?, port })
}

fn start_headgate(binary: &Path, work: &Path, backends: &[u16; 2]) -> Result<Peer> {
    let (port, admin) = (free_port()?, free_port()?);
    let file = work.join("headgate.yaml");
    fs::write(&file, manifests(port, backends)).with_context(|| file.display().to_string())?;
    let binary = binary.canonicalize().with_context(|| binary.display().to_string())?;
    let version = crate::machine::output(&binary.to_string_lossy(), &["version"])?;
    let mut command = pinned("0", &binary);
    command.args(["run", "--threads", "1", "--access-log", "off", "--admin-address"]);
    command.arg(format!("127.0.0.1:{admin}")).arg("-f").arg(&file);
    let process = Process::start(&mut command, &work.join("headgate.log"))?;
    Ok(Peer { name: "headgate", version, process, port })
}

fn manifests(port: u16, backends: &[u16; 2]) -> String {
    let slices: String = backends
        .iter()
        .map(|backend| {
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: bench-{backend}, labels: \
                 {{kubernetes.io/service-name: bench}}}}\naddressType: IPv4\nports: [{{name: http, port: {backend}, protocol: TCP}}]\n\
                 endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]\n"
            )
        })
        .collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: bench}}\nspec:\n  gatewayClassName: headgate\n  \
         addresses: [{{type: IPAddress, value: 127.0.0.1}}]\n  listeners: [{{name: http, protocol: HTTP, port: {port}}}]\n\
         ---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: bench}}\nspec:\n  parentRefs: [{{name: bench}}]\n  \
         rules: [{{backendRefs: [{{name: bench, port: 80}}]}}]\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: bench}}\nspec:\n  ports: [{{name: http, port: 80}}]\n{slices}"
    )
}
