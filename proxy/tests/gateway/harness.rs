//! What the tests are made of: [`Gateway`] runs a proxy, [`Backend`] answers it, [`Client`] asks it.

use headgate_proxy::model::{
    Action, Backend as ModelBackend, BackendId, BackendKind, BackendProtocol, Content, Endpoint, EndpointSet,
    Filter, HostPattern, Listener, ListenerId, Match, Model, ObjectName, PathMatch, Policies, Port, PortId,
    PortProtocol, Route, RouteId, RouteKind, Rule, ScopedPolicies, StreamRoute, Target, Timeouts, Tls,
    Transport, WeightedBackend, thin_vec,
};
use headgate_proxy::{Limits, Options, Proxy, start};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Nothing in these tests takes this long: what does, hangs.
pub const HANGS: Duration = Duration::from_secs(60);

pub fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// Awaits what must not hang.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS, what).await.expect("hangs")
}

pub fn port_id(port: u16) -> PortId {
    PortId { gateway: ObjectName::new("test", "gateway"), port, transport: Transport::Tcp }
}

pub fn backend_id(name: &str) -> BackendId {
    BackendId {
        kind: BackendKind::Service,
        name: ObjectName::new("test", name),
        port: 80,
        transport: Transport::Tcp,
    }
}

pub fn endpoints(addresses: &[SocketAddr]) -> Arc<EndpointSet> {
    let mut addresses = addresses.to_vec();
    addresses.sort();
    let endpoint = |address| Endpoint { address, pod: None };
    Arc::new(EndpointSet { endpoints: addresses.into_iter().map(endpoint).collect() })
}

/// A model under construction: one Gateway, port 80 in clear text or 443 with TLS.
#[derive(Clone, Default)]
pub struct Setup {
    pub model: Model,
}

impl Setup {
    /// Port 80 with one listener for every host.
    pub fn http() -> Self {
        let mut setup = Self::default();
        setup.port(80, PortProtocol::Http, vec![("any", HostPattern::Any, None)]);
        setup
    }

    pub fn port(
        &mut self,
        number: u16,
        protocol: PortProtocol,
        listeners: Vec<(&str, HostPattern, Option<Tls>)>,
    ) -> &mut Self {
        self.port_of(Content::Http, number, protocol, listeners)
    }

    /// A port whose listeners carry what comes as a whole.
    pub fn stream_port(
        &mut self,
        number: u16,
        protocol: PortProtocol,
        listeners: Vec<(&str, HostPattern, Option<Tls>)>,
    ) -> &mut Self {
        self.port_of(Content::Stream, number, protocol, listeners)
    }

    /// A route of what isn't HTTP, made at that time.
    pub fn stream_route(
        &mut self,
        kind: RouteKind,
        (name, created): (&str, i64),
        listener: &str,
        hostname: HostPattern,
        backends: &[(&str, u32)],
    ) -> &mut Self {
        let id = RouteId { kind, name: ObjectName::new("test", name) };
        let transport = if kind == RouteKind::Udp { Transport::Udp } else { Transport::Tcp };
        let backend = |(name, weight): &(&str, u32)| {
            WeightedBackend::new(Target::Backend(BackendId { transport, ..backend_id(name) }), *weight)
        };
        let route = StreamRoute {
            id: id.clone(),
            created,
            listeners: [listener_id(listener)].into(),
            hostnames: thin_vec![hostname],
            backends: backends.iter().map(backend).collect(),
        };
        self.model.stream_routes.insert(id, Arc::new(route));
        self
    }

    pub fn udp_backend(&mut self, name: &str, addresses: &[SocketAddr]) -> &mut Self {
        let id = BackendId { transport: Transport::Udp, ..backend_id(name) };
        let backend = ModelBackend::new(id.clone(), BackendProtocol::Http1);
        self.model.backends.insert(id.clone(), Arc::new(backend));
        self.model.endpoints.insert(id, endpoints(addresses));
        self
    }

    fn port_of(
        &mut self,
        content: Content,
        number: u16,
        protocol: PortProtocol,
        listeners: Vec<(&str, HostPattern, Option<Tls>)>,
    ) -> &mut Self {
        let id = PortId { transport: protocol.transport(), ..port_id(number) };
        let listeners = listeners
            .into_iter()
            .map(|(name, hostname, tls)| Listener {
                id: listener_id(name),
                hostname,
                content,
                tls,
                filters: vec![],
            })
            .collect();
        let port = Port {
            id: id.clone(),
            bind: loopback(),
            protocol,
            listeners,
            client_certificate: None,
            clients: None,
        };
        self.model.ports.insert(id, Arc::new(port));
        self
    }

    /// A backend with endpoints.
    pub fn backend(&mut self, name: &str, protocol: BackendProtocol, addresses: &[SocketAddr]) -> &mut Self {
        let id = backend_id(name);
        self.model.backends.insert(id.clone(), Arc::new(ModelBackend::new(id.clone(), protocol)));
        self.model.endpoints.insert(id, endpoints(addresses));
        self
    }

    /// A route of one rule, on the listener `any`.
    pub fn route(&mut self, name: &str, prefix: &str, action: Action) -> &mut Self {
        self.rule(name, "any", prefix, action, vec![], Timeouts::default())
    }

    pub fn rule(
        &mut self,
        name: &str,
        listener: &str,
        prefix: &str,
        action: Action,
        filters: Vec<Filter>,
        timeouts: Timeouts,
    ) -> &mut Self {
        self.rule_of(RouteKind::Http, name, listener, prefix, action, filters, timeouts)
    }

    /// A GRPCRoute for everything, on the listener `any`.
    pub fn grpc_route(&mut self, name: &str, action: Action) -> &mut Self {
        self.rule_of(RouteKind::Grpc, name, "any", "/", action, vec![], Timeouts::default())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a route, for the few that set them all")]
    fn rule_of(
        &mut self,
        kind: RouteKind,
        name: &str,
        listener: &str,
        prefix: &str,
        action: Action,
        filters: Vec<Filter>,
        timeouts: Timeouts,
    ) -> &mut Self {
        let id = RouteId { kind, name: ObjectName::new("test", name) };
        let path = PathMatch::Prefix(prefix.into());
        let matches = thin_vec![Match { path, method: None, headers: thin_vec![], query: thin_vec![] }];
        let rule = Rule {
            name: None,
            matches,
            filters: filters.into(),
            action,
            timeouts: timeouts.boxed(),
            retry: None,
            policies: thin_vec![],
            session: None,
        };
        let route = Route {
            id: id.clone(),
            created: 0,
            listeners: [listener_id(listener)].into(),
            hostnames: thin_vec![HostPattern::Any],
            rules: thin_vec![rule],
        };
        self.model.routes.insert(id, Arc::new(route));
        self
    }

    /// Puts policies on every rule of every route, for all of its listeners.
    pub fn govern(&mut self, policies: Policies) {
        let policies = Arc::new(policies);
        for route in self.model.routes.values_mut() {
            let route = Arc::make_mut(route);
            let scoped = ScopedPolicies { listeners: route.listeners.to_vec(), policies: policies.clone() };
            for rule in &mut route.rules {
                rule.policies = thin_vec![scoped.clone()];
            }
        }
    }

    /// One HTTP/1.1 backend for everything.
    pub fn only(addresses: &[SocketAddr]) -> Self {
        let mut setup = Self::http();
        setup.backend("only", BackendProtocol::Http1, addresses).route("all", "/", to("only"));
        setup
    }

    pub fn start(&self) -> Gateway {
        self.start_with(Limits::default(), 2)
    }

    pub fn start_with(&self, limits: Limits, threads: usize) -> Gateway {
        let proxy = start(Options { threads, limits, ..Options::new(loopback()) }).unwrap();
        let gateway = Gateway { proxy };
        gateway.publish(self);
        gateway
    }
}

fn listener_id(name: &str) -> ListenerId {
    ListenerId { gateway: ObjectName::new("test", "gateway"), listener_set: None, name: name.into() }
}

/// Forwards to one backend.
pub fn to(backend: &str) -> Action {
    let target = Target::Backend(backend_id(backend));
    Action::Forward(thin_vec![WeightedBackend::new(target, 1)])
}

/// A running proxy.
pub struct Gateway {
    pub proxy: Proxy,
}

impl Gateway {
    pub fn publish(&self, setup: &Setup) {
        let published = self.proxy.publisher().publish(setup.model.clone());
        assert!(published.failed_ports.is_empty(), "{published:?}");
    }

    pub fn address(&self, port: u16) -> SocketAddr {
        self.proxy.address(&port_id(port)).expect("the port is open")
    }

    pub async fn client(&self) -> Client<TcpStream> {
        Client::connect(self.address(80)).await
    }

    /// One GET on a connection of its own.
    pub async fn get(&self, path: &str) -> Response {
        self.client().await.get(path).await
    }

    /// What `/metrics` says of the series that begin like this, all together.
    pub async fn metric(&self, series: &str) -> f64 {
        let mut client = Client::connect(self.proxy.admin_address()).await;
        let text = client.get("/metrics").await.text();
        let values =
            text.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }
}

/// A message as it was read.
#[derive(Debug, Default)]
pub struct Response {
    /// Status line, or request line.
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: String,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// A client that speaks HTTP/1.1 in bytes.
pub struct Client<T> {
    pub io: T,
    pub read: Vec<u8>,
}

impl Client<TcpStream> {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::new(soon(TcpStream::connect(address)).await.unwrap())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    pub fn new(io: T) -> Self {
        Self { io, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.io.write_all(bytes.as_ref())).await.unwrap();
        soon(self.io.flush()).await.unwrap();
    }

    /// A request without body; reads the answer.
    pub async fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n")).await;
        self.response().await
    }

    /// A request with a body; reads the answer.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> Response {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: example.com\r\nContent-Length: {length}\r\n\r\n");
        self.send([head.as_bytes(), body].concat()).await;
        self.response().await
    }

    pub async fn response(&mut self) -> Response {
        self.message(false).await.expect("an answer")
    }

    /// The head of an answer that has no body whatever its fields say.
    pub async fn head(&mut self) -> Response {
        self.message(true).await.expect("an answer")
    }

    /// The next message; `None` when the other side ended without beginning one.
    pub async fn message(&mut self, bodiless: bool) -> Option<Response> {
        soon(read_message(&mut self.io, &mut self.read, bodiless)).await
    }

    /// Reads to the end of the connection; a reset is an end, too.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.read);
        let _ = soon(self.io.read_to_end(&mut rest)).await;
        rest
    }
}

async fn fill<T: AsyncRead + Unpin>(io: &mut T, read: &mut Vec<u8>) -> bool {
    matches!(io.read_buf(read).await, Ok(1..))
}

async fn line<T: AsyncRead + Unpin>(io: &mut T, read: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = read.windows(2).position(|pair| pair == b"\r\n") {
            let line = read.drain(..end + 2).collect::<Vec<_>>();
            return Some(String::from_utf8(line[..end].to_vec()).unwrap());
        }
        if !fill(io, read).await {
            return None;
        }
    }
}

async fn exactly<T: AsyncRead + Unpin>(io: &mut T, read: &mut Vec<u8>, length: usize) -> Option<Vec<u8>> {
    while read.len() < length {
        if !fill(io, read).await {
            return None;
        }
    }
    Some(read.drain(..length).collect())
}

/// Reads a request or a response; `None` when the connection ends before its end.
async fn read_message<T: AsyncRead + Unpin>(
    io: &mut T,
    read: &mut Vec<u8>,
    bodiless: bool,
) -> Option<Response> {
    let mut message = Response { start: line(io, read).await?, ..Response::default() };
    loop {
        let field = line(io, read).await?;
        match field.split_once(':') {
            Some((name, value)) => message.headers.push((name.to_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    if bodiless {
        return Some(message);
    }
    if message.header("transfer-encoding").is_some() {
        loop {
            let size = line(io, read).await?;
            let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                break;
            }
            message.body.extend(exactly(io, read, size).await?);
            assert_eq!(line(io, read).await?, "");
        }
        loop {
            let trailer = line(io, read).await?;
            if trailer.is_empty() {
                return Some(message);
            }
            message.trailers += &trailer;
            message.trailers += "\n";
        }
    }
    if let Some(length) = message.header("content-length") {
        message.body = exactly(io, read, length.parse().unwrap()).await?;
    } else if message.start.starts_with("HTTP/") && ![204, 304, 101, 100].contains(&message.status()) {
        while fill(io, read).await {}
        message.body = std::mem::take(read);
    }
    Some(message)
}

/// A backend on a port of its own; ends when dropped.
pub struct Backend {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Backend {
    /// Hands every connection to `serve`.
    pub async fn raw<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let accepting = tokio::spawn(async move {
            let mut running: Vec<Aborted> = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let number = count.fetch_add(1, Ordering::Relaxed);
                let served: Served = Box::pin(serve(stream, number));
                running.retain(|task| !task.0.is_finished());
                running.push(Aborted(tokio::spawn(served)));
            }
        });
        Self { address, connections, accepting }
    }

    /// Answers every request with the bytes that `answer` makes of it; keeps connections.
    pub async fn http(answer: impl Fn(&Response) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::raw(move |stream, _| {
            let answer = answer.clone();
            async move {
                let mut client = Client::new(stream);
                while let Some(request) = read_message(&mut client.io, &mut client.read, false).await {
                    if client.io.write_all(&answer(&request)).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// Answers every request with its own head and body as text.
    pub async fn echo() -> Self {
        Self::http(|request| {
            let mut text = format!("{}\n", request.start);
            for (name, value) in &request.headers {
                text += &format!("{name}: {value}\n");
            }
            text += "\n";
            let body = [text.as_bytes(), &request.body, request.trailers.as_bytes()].concat();
            ok(&body)
        })
        .await
    }

    /// Answers with its name.
    pub async fn named(name: &'static str) -> Self {
        Self::http(move |_| ok(name.as_bytes())).await
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

struct Aborted(JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A 200 with a body.
pub fn ok(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

/// An address that nobody listens on.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    listener.local_addr().unwrap()
}
