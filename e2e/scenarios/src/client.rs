//! One client connection, HTTP/1.1 over TCP or TLS, as hyper makes it: no pool, no retry, so that what happens to a
//! connection is seen.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// How long a request may take. It fails then, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where requests go to.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    host: String,
    path: String,
    fields: Vec<(String, String)>,
    tls: Option<TlsConnector>,
}

impl Target {
    /// Plain HTTP to a port of an address; the path is `/`.
    pub fn http(address: IpAddr, port: u16, host: &str) -> Self {
        Self {
            address: (address, port).into(),
            host: host.to_owned(),
            path: "/".to_owned(),
            fields: Vec::new(),
            tls: None,
        }
    }

    /// HTTPS that trusts the certificates and no other.
    pub fn https(
        address: IpAddr,
        port: u16,
        host: &str,
        trusted: &[CertificateDer<'static>],
    ) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in trusted {
            roots.add(certificate.clone())?;
        }
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: Some(TlsConnector::from(Arc::new(config))), ..Self::http(address, port, host) })
    }

    /// The same with another path.
    pub fn path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// The same with one field more.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Connection> {
        match tokio::time::timeout(PATIENCE, self.open()).await {
            Ok(opened) => opened.with_context(|| format!("connect to {}", self.address)),
            Err(_) => anyhow::bail!("connect to {}: not within {} s", self.address, PATIENCE.as_secs()),
        }
    }

    async fn open(&self) -> Result<Connection> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Connection::over(tcp, None).await };
        let name = ServerName::try_from(self.host.clone())?;
        let stream = tls.connect(name, tcp).await.context("TLS handshake")?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
        Connection::over(stream, leaf).await
    }

    /// A request on a connection of its own.
    pub async fn get(&self) -> Result<Answer> {
        self.connect().await?.get(self).await
    }

    /// Fails unless so many requests in a row, each on a connection of its own, get the status: with two replicas
    /// behind an address one answer shows little.
    pub async fn answers(&self, status: StatusCode, times: usize) -> Result<Answer> {
        let mut last = Answer { status, body: Bytes::new() };
        for _ in 0..times {
            last = self.get().await?;
            ensure!(last.status == status, "{}{} answers {}", self.host, self.path, last.status);
        }
        Ok(last)
    }
}

/// What came back, whole.
pub struct Answer {
    /// Of the answer.
    pub status: StatusCode,
    /// All of it.
    pub body: Bytes,
}

impl Answer {
    /// The pod that answered, as the echo backend tells it.
    pub fn pod(&self) -> Result<String> {
        #[derive(serde::Deserialize)]
        struct Echo {
            pod: String,
        }
        let echo: Echo = serde_json::from_slice(&self.body).context("not an answer of the backend")?;
        Ok(echo.pod)
    }
}

/// An open connection. Dropping it closes it.
pub struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    /// The certificate that the server showed.
    pub leaf: Option<CertificateDer<'static>>,
    _driver: JoinSet<()>,
}

impl Connection {
    async fn over<S>(stream: S, leaf: Option<CertificateDer<'static>>) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // Its errors are those of the requests.
            let _ = connection.await;
        });
        Ok(Self { sender, leaf, _driver: driver })
    }

    /// Whether another request can be sent: neither side has closed it, and no answer said `Connection: close`.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request and reads the whole answer.
    pub async fn get(&mut self, target: &Target) -> Result<Answer> {
        match tokio::time::timeout(PATIENCE, self.exchange(target)).await {
            Ok(answer) => answer,
            Err(_) => anyhow::bail!("no answer within {} s", PATIENCE.as_secs()),
        }
    }

    async fn exchange(&mut self, target: &Target) -> Result<Answer> {
        let mut request = Request::get(&target.path).header(http::header::HOST, &target.host);
        for (name, value) in &target.fields {
            request = request.header(name, value);
        }
        let request = request.body(Empty::new())?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        Ok(Answer { status, body: response.into_body().collect().await.context("in the body")?.to_bytes() })
    }
}
