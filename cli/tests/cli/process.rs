//! A running `headgate` for the tests of this folder: started with free ports, told apart from a hung one by its line
//! on stderr, and always ended.

use crate::client::PATIENCE;
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;

/// The binary under test.
pub fn headgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
    command.stdin(Stdio::null());
    command
}

/// Runs `headgate` to its end.
pub fn output<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Output {
    headgate().args(arguments).output().expect("the binary starts")
}

/// A port of 127.0.0.1 that nobody else gets, as long as this lives. It is bound but doesn't listen, which lets one
/// server have it that sets `SO_REUSEADDR`, and keeps it from being given to sockets that ask for any port.
pub struct Port {
    _reserved: Socket,
    pub number: u16,
}

impl Port {
    /// Reserves one.
    pub fn reserve() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("a new socket");
        socket.set_reuse_port(true).expect("a new socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        let address = socket.local_addr().expect("bound").as_socket().expect("an IP socket");
        Self { _reserved: socket, number: address.port() }
    }
}

/// A process that serves. Dropping it kills it.
pub struct Process {
    child: Child,
    stderr: mpsc::Receiver<String>,
}

impl Process {
    /// Starts `headgate` with these arguments.
    pub fn start<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Self {
        let mut command = headgate();
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        // Read at once, so that the process never waits for a test that doesn't look.
        let (lines, received) = mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        Self { child, stderr: received }
    }

    /// Reads stderr to the first line with `text`, and returns the line. Panics when stderr ends first, or falls silent.
    pub fn line_with(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen = seen + &line + "\n",
                Err(why) => panic!("{why} before it said {text:?}:\n{seen}"),
            }
        }
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill is there").success());
    }

    /// Waits for the end; returns how it ended and the rest of stderr.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("it is our child");
        let rest: Vec<String> = self.stderr.iter().collect();
        (status, rest.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it has ended already, which is the usual case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An echo backend.
pub struct Echo {
    _process: Process,
    pub port: u16,
}

impl Echo {
    /// Starts one and waits until it serves.
    pub fn start(name: &str) -> Self {
        let mut process = Process::start(["echo", "--port", "0", "--address", "127.0.0.1", "--name", name]);
        let line = process.line_with("serves on http://");
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Self { _process: process, port: port.unwrap_or_else(|| panic!("no port in {line:?}")) }
    }
}
