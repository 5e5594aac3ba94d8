//! The API server, as a client sees it.

use crate::http::{Connection, connect};
use anyhow::{Context, Result, ensure};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

/// Our name in `managedFields`.
const FIELD_MANAGER: &str = "bench";
/// Objects of a page of a list.
const PAGE: usize = 500;

/// Where it is, and what it takes to speak to it.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    token: String,
    tls: Arc<ClientConfig>,
}

/// A connection to it.
pub struct Api {
    connection: Connection<StreamOwned<ClientConnection, TcpStream>>,
    server: Server,
}

/// What a request asks for.
#[derive(Clone, Copy)]
pub enum Verb {
    /// To read.
    Get,
    /// To make an object.
    Create,
    /// To have an object be as this says: `kubectl apply --server-side --force-conflicts`.
    Apply,
    /// To change some fields.
    JsonPatch,
}

impl Server {
    /// At an address, with its own certificate.
    pub fn new(address: SocketAddr, token: &str, certificate: CertificateDer<'static>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?;
        let tls = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
        Ok(Self { address, token: token.to_owned(), tls })
    }

    /// Another connection.
    pub fn connect(&self) -> Result<Api> {
        Ok(self.connect_for_two()?.0)
    }

    /// Another connection, and a handle by which another thread can end it.
    pub fn connect_for_two(&self) -> Result<(Api, TcpStream)> {
        let tcp = connect(self.address)?;
        let handle = tcp.try_clone()?;
        let session =
            ClientConnection::new(self.tls.clone(), ServerName::IpAddress(self.address.ip().into()))?;
        let connection = Connection::new(StreamOwned::new(session, tcp));
        Ok((Api { connection, server: self.clone() }, handle))
    }
}

impl Api {
    /// Sends a request.
    pub fn send(&mut self, verb: Verb, path: &str, body: Option<&Value>) -> Result<()> {
        let (method, kind, query) = match verb {
            Verb::Get => ("GET", "application/json", ""),
            Verb::Create => ("POST", "application/json", "?fieldManager="),
            Verb::Apply => ("PATCH", "application/apply-patch+yaml", "?force=true&fieldManager="),
            Verb::JsonPatch => ("PATCH", "application/json-patch+json", "?fieldManager="),
        };
        let manager = if query.is_empty() { "" } else { FIELD_MANAGER };
        let body = body.map(Value::to_string).unwrap_or_default();
        let (host, token, length) = (self.server.address, &self.server.token, body.len());
        let request = format!(
            "{method} {path}{query}{manager} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             accept: application/json\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.connection.send(request.as_bytes())
    }

    /// Waits for the answer, which has to be a good one.
    pub fn receive(&mut self) -> Result<Vec<u8>> {
        let answer = self.connection.receive()?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!((200..300).contains(&answer.status), "the API server says {}: {text}", answer.status);
        Ok(answer.body)
    }

    /// Both.
    pub fn call(&mut self, verb: Verb, path: &str, body: Option<&Value>) -> Result<Value> {
        // Probes answer with a word.
        Ok(serde_json::from_slice(&self.ask(verb, path, body)?).unwrap_or_default())
    }

    /// What there is to read, as it is.
    pub fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        self.ask(Verb::Get, path, None)
    }

    fn ask(&mut self, verb: Verb, path: &str, body: Option<&Value>) -> Result<Vec<u8>> {
        self.send(verb, path, body)?;
        self.receive().with_context(|| path.to_owned())
    }

    /// All objects of a list, page by page.
    pub fn each(&mut self, path: &str, mut look: impl FnMut(&Value)) -> Result<()> {
        let mut more = String::new();
        loop {
            let list = self.call(Verb::Get, &format!("{path}?limit={PAGE}{more}"), None)?;
            list["items"].as_array().context("not a list")?.iter().for_each(&mut look);
            match list["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => more = format!("&continue={token}"),
                Some(_) | None => return Ok(()),
            }
        }
    }

    /// Watches from now on; each event is told of, until the connection ends.
    pub fn watch(&mut self, path: &str, selector: &str, mut event: impl FnMut(Value)) -> Result<()> {
        let query = format!("?watch=1&resourceVersion=0&labelSelector={selector}");
        self.send(Verb::Get, &format!("{path}{query}"), None)?;
        let status = self.connection.head()?.status;
        ensure!(status == 200, "the API server says {status} to a watch");
        let mut text = Vec::new();
        while let Some(chunk) = self.connection.chunk()? {
            text.extend(chunk);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let rest = text.split_off(end + 1);
                event(serde_json::from_slice(&std::mem::replace(&mut text, rest))?);
            }
        }
        Ok(())
    }
}

/// A change of one value.
pub fn replace(pointer: &str, value: impl Into<Value>) -> Value {
    json!([{"op": "replace", "path": pointer, "value": value.into()}])
}
