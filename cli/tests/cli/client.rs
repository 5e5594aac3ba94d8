//! HTTP/1.1 from a plain socket, for what the tests ask: answers as text, and connections that they hold on to.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long a test waits for what must come: only to end one that would hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Fields with names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// What `headgate echo` says that it received.
    pub fn echo(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_str(&self.body).expect("the echo backend answers JSON")
    }
}

/// A kept connection.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects to a port of 127.0.0.1; `None` while nobody listens there.
    pub fn open(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        Some(Self(BufReader::new(stream)))
    }

    /// Sends a GET for `path` of `host`, with more fields as lines, and reads the answer.
    pub fn get(&mut self, host: &str, path: &str, fields: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).expect("the connection is open");
        let head = self.line();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {head:?}"));
        let mut fields = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else { break };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, fields, body: String::new() };
        let length = answer.field("content-length").expect("answers of these tests have a length");
        let mut body = vec![0; length.parse().expect("a number")];
        self.0.read_exact(&mut body).expect("the whole body comes");
        answer.body = String::from_utf8(body).expect("text");
        answer
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).expect("an answer") > 0, "closed instead of answered");
        line.trim_end().to_owned()
    }
}

/// Asks on a connection of its own.
pub fn get(port: u16, host: &str, path: &str) -> Answer {
    Connection::open(port).expect("it listens").get(host, path, "")
}

/// Asks until the answer is as wanted, and returns it.
pub fn until(port: u16, host: &str, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let began = Instant::now();
    loop {
        let answer = Connection::open(port).map(|mut connection| connection.get(host, path, ""));
        match answer {
            Some(answer) if wanted(&answer) => return answer,
            last if began.elapsed() > PATIENCE => panic!("{host}{path} stays {last:?}"),
            Some(_) | None => std::thread::yield_now(),
        }
    }
}
