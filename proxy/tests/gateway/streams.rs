//! What isn't HTTP: TCP, TLS that passes or ends here, datagrams.

use crate::circuit_breaker::{ejecting, policed};
use crate::client_policy::put_clients;
use crate::harness::{Backend, Gateway, HANGS, Setup, nobody, port_id, soon};
use crate::tls::{certificate, der, handshake, trust};
use headgate_proxy::Limits;
use headgate_proxy::model::{
    BackendPolicy, BackendProtocol, Certificate, ClientTls, Clients, HostPattern, PortId, PortProtocol,
    RouteKind, Tls, Transport,
};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Answers each connection with its name, what it hears, and the end of it.
async fn tcp(name: &'static str) -> Backend {
    Backend::raw(move |mut stream, _| async move {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        stream.write_all(&[name.as_bytes(), b": ", &heard].concat()).await.unwrap();
    })
    .await
}

fn tcp_port(backends: &[(&str, SocketAddr, u32)]) -> Setup {
    let mut setup = Setup::default();
    setup.stream_port(5432, PortProtocol::Tcp, vec![("tcp", HostPattern::Any, None)]);
    for (name, address, _) in backends {
        setup.backend(name, BackendProtocol::Http1, &[*address]);
    }
    let weights: Vec<_> = backends.iter().map(|(name, _, weight)| (*name, *weight)).collect();
    setup.stream_route(RouteKind::Tcp, ("db", 1), "tcp", HostPattern::Any, &weights);
    setup
}

async fn say(gateway: &Gateway, port: u16, words: &str) -> io::Result<String> {
    let mut stream = soon(TcpStream::connect(gateway.address(port))).await?;
    stream.write_all(words.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await?;
    Ok(answer)
}

#[tokio::test]
async fn bytes_and_half_closes_pass() {
    let backend = tcp("db").await;
    let gateway = tcp_port(&[("db", backend.address, 1)]).start();
    let words = "x".repeat(1 << 20);
    assert_eq!(say(&gateway, 5432, &words).await.unwrap(), format!("db: {words}"));
    assert_eq!(gateway.metric(r#"headgate_connections_opened_total{protocol="tcp"}"#).await, 1.0);
}

#[tokio::test]
async fn weights_count_by_connection_and_nothing_goes_to_zero() {
    let (a, b, zero) = (tcp("a").await, tcp("b").await, tcp("zero").await);
    let gateway = tcp_port(&[("a", a.address, 3), ("b", b.address, 1), ("zero", zero.address, 0)]).start();
    for _ in 0..200 {
        say(&gateway, 5432, "").await.unwrap();
    }
    assert_eq!(zero.connections(), 0);
    // Six standard deviations.
    assert!((113..=187).contains(&a.connections()), "{}", a.connections());
    assert_eq!(a.connections() + b.connections(), 200);
}

#[tokio::test]
async fn of_two_routes_the_older_serves_and_the_other_waits() {
    let (old, new) = (tcp("old").await, tcp("new").await);
    let mut setup = tcp_port(&[("new", new.address, 1)]);
    setup.backend("old", BackendProtocol::Http1, &[old.address]);
    setup.stream_route(RouteKind::Tcp, ("older", 0), "tcp", HostPattern::Any, &[("old", 1)]);
    let gateway = setup.start();
    assert_eq!(say(&gateway, 5432, "").await.unwrap(), "old: ");
    gateway.publish(&tcp_port(&[("new", new.address, 1)]));
    assert_eq!(say(&gateway, 5432, "").await.unwrap(), "new: ");
}

#[tokio::test]
async fn without_an_endpoint_a_connection_is_closed_and_the_next_endpoint_is_tried() {
    let backend = tcp("db").await;
    let gone = nobody().await;
    let mut setup = tcp_port(&[("db", gone, 1)]);
    let gateway = setup.start();
    let closed = say(&gateway, 5432, "").await;
    assert!(closed.is_err() || closed.unwrap().is_empty());
    setup.backend("db", BackendProtocol::Http1, &[gone, backend.address]);
    gateway.publish(&setup);
    for _ in 0..10 {
        assert_eq!(say(&gateway, 5432, "").await.unwrap(), "db: ");
    }
    // No route at all.
    setup.model.stream_routes.clear();
    gateway.publish(&setup);
    let closed = say(&gateway, 5432, "").await;
    assert!(closed.is_err() || closed.unwrap().is_empty());
}

/// Endpoints of TCP are ejected when they can't be reached, and spared while they are.
#[tokio::test]
async fn endpoints_that_cannot_be_reached_are_ejected_and_spared() {
    let (backend, gone) = (tcp("db").await, nobody().await);
    let mut setup = tcp_port(&[("db", gone, 1)]);
    setup.backend("db", BackendProtocol::Http1, &[gone, backend.address]);
    policed(&mut setup, "db", BackendPolicy { ejection: Some(ejecting(1)), ..BackendPolicy::default() });
    let gateway = setup.start();
    let failures = async || gateway.metric("headgate_backend_failures_total").await;
    let mut seen = 0.0;
    soon(async {
        while gateway.metric("headgate_backend_ejected_endpoints").await < 1.0 {
            assert_eq!(say(&gateway, 5432, "").await.unwrap(), "db: ");
        }
        seen = failures().await;
    })
    .await;
    for _ in 0..20 {
        assert_eq!(say(&gateway, 5432, "").await.unwrap(), "db: ");
    }
    assert_eq!((failures().await, seen > 0.0), (seen, true), "it isn't tried any more");
}

#[tokio::test]
async fn a_connection_goes_on_while_its_route_changes() {
    let (one, two) = (tcp("one").await, tcp("two").await);
    let gateway = tcp_port(&[("db", one.address, 1)]).start();
    let mut stream = soon(TcpStream::connect(gateway.address(5432))).await.unwrap();
    stream.write_all(b"begun ").await.unwrap();
    soon(async {
        while one.connections() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gateway.publish(&tcp_port(&[("db", two.address, 1)]));
    assert_eq!(say(&gateway, 5432, "").await.unwrap(), "two: ");
    stream.write_all(b"and ended").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "one: begun and ended");
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let backend = Backend::raw(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let limits = Limits { tcp_idle: Duration::from_millis(200), ..Limits::default() };
    let gateway = tcp_port(&[("db", backend.address, 1)]).start_with(limits, 1);
    let mut stream = soon(TcpStream::connect(gateway.address(5432))).await.unwrap();
    let mut end = Vec::new();
    // An end or a reset.
    let _ = soon(stream.read_to_end(&mut end)).await;
    assert!(end.is_empty());
}

/// Who sees an end believes that everything has arrived.
#[tokio::test]
async fn what_breaks_off_behind_breaks_off_in_front() {
    let backend = Backend::raw(|mut stream, _| async move {
        stream.read_u8().await.unwrap();
        stream.write_all(b"half of").await.unwrap();
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let gateway = tcp_port(&[("db", backend.address, 1)]).start();
    let mut stream = soon(TcpStream::connect(gateway.address(5432))).await.unwrap();
    stream.write_all(b"1").await.unwrap();
    let mut half = [0; 7];
    soon(stream.read_exact(&mut half)).await.unwrap();
    stream.write_all(b"2").await.unwrap();
    let error = soon(stream.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A port of TLS where one name ends here and another passes, and whoever serves them.
async fn mixed() -> (Gateway, [Backend; 2], [Arc<Certificate>; 2]) {
    let (ours, theirs) = (certificate(&["ends.example"]), certificate(&["passes.example", "*.deep.example"]));
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![der(&theirs)],
                rustls::pki_types::pem::PemObject::from_pem_slice(theirs.key.reveal().as_bytes()).unwrap(),
            )
            .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let tls = Backend::raw(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.write_all(b"theirs").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    })
    .await;
    let clear = Backend::raw(|mut stream, _| async move {
        stream.write_all(b"ours").await.unwrap();
    })
    .await;
    let mut setup = Setup::default();
    let end = Tls { certificates: vec![ours.clone()], client_validation: None };
    setup.stream_port(
        443,
        PortProtocol::Tls,
        vec![
            ("ends", HostPattern::parse("ends.example"), Some(end)),
            ("passes", HostPattern::parse("*.example"), None),
        ],
    );
    setup.backend("tls", BackendProtocol::Http1, &[tls.address]);
    setup.backend("clear", BackendProtocol::Http1, &[clear.address]);
    let route = |setup: &mut Setup, name, listener, hostname, backend| {
        let hostname = HostPattern::parse(hostname);
        setup.stream_route(RouteKind::Tls, (name, 0), listener, hostname, &[(backend, 1)]);
    };
    route(&mut setup, "ends", "ends", "ends.example", "clear");
    route(&mut setup, "passes", "passes", "passes.example", "tls");
    route(&mut setup, "deep", "passes", "*.deep.example", "tls");
    (setup.start(), [tls, clear], [ours, theirs])
}

#[tokio::test]
async fn the_server_name_says_whether_tls_ends_here() {
    let (gateway, _backends, [ours, theirs]) = mixed().await;
    let config = Arc::new(trust(&[&ours, &theirs], &[]));
    for (name, shown, said) in [
        ("ends.example", &ours, "ours"),
        ("passes.example", &theirs, "theirs"),
        ("a.b.deep.example", &theirs, "theirs"),
    ] {
        // The certificate has one label under deep.example: who it is shown to decides about that.
        if name.starts_with("a.b") {
            assert!(handshake(&gateway, name, &config).await.is_err());
            continue;
        }
        let mut stream = handshake(&gateway, name, &config).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], der(shown), "{name}");
        let mut heard = String::new();
        // Backends that don't say goodbye in TLS are usual.
        let _ = soon(stream.read_to_string(&mut heard)).await;
        assert_eq!(heard, said, "{name}");
    }
}

/// Whoever speaks in turns waits for each word, whether or not the handshake ended with one of ours.
#[tokio::test]
async fn what_is_said_in_turns_is_heard_at_once() {
    let echo = Backend::raw(|mut stream, _| async move {
        let mut word = [0; 4];
        while stream.read_exact(&mut word).await.is_ok() {
            stream.write_all(&word).await.unwrap();
        }
    })
    .await;
    let certificate = certificate(&["ends.example"]);
    for no_session_tickets in [false, true] {
        let mut setup = Setup::default();
        let end = Tls { certificates: vec![certificate.clone()], client_validation: None };
        let listener = ("ends", HostPattern::parse("ends.example"), Some(end));
        setup.stream_port(443, PortProtocol::Tls, vec![listener]);
        setup.backend("echo", BackendProtocol::Http1, &[echo.address]);
        let hostname = HostPattern::parse("ends.example");
        setup.stream_route(RouteKind::Tls, ("ends", 0), "ends", hostname, &[("echo", 1)]);
        let rules = ClientTls { no_session_tickets, ..ClientTls::default() };
        put_clients(&mut setup, &Clients { tls: rules, ..Clients::default() });
        let gateway = setup.start();
        let config = Arc::new(trust(&[&certificate], &[]));
        let mut stream = handshake(&gateway, "ends.example", &config).await.unwrap();
        for said in [b"ping", b"pong"] {
            stream.write_all(said).await.unwrap();
            let mut heard = [0; 4];
            soon(stream.read_exact(&mut heard)).await.unwrap();
            assert_eq!(&heard, said);
        }
    }
}

#[tokio::test]
async fn a_name_without_a_route_is_closed_without_an_alert() {
    let (gateway, _backends, [ours, theirs]) = mixed().await;
    let config = Arc::new(trust(&[&ours, &theirs], &[]));
    for name in ["other.example", "elsewhere"] {
        let error = handshake(&gateway, name, &config).await.unwrap_err();
        let closed = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
        assert!(closed.contains(&error.kind()), "{name}: {error:?}");
    }
}

/// Answers each datagram with its name and what it hears.
struct Udp {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn udp(name: &'static str) -> Udp {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let answer = [name.as_bytes(), b": ", &buffer[..length]].concat();
            // Too large for a datagram: then there is no answer.
            let _ = socket.send_to(&answer, from).await;
        }
    });
    Udp { address, task }
}

fn udp_port(backends: &[(&str, SocketAddr, u32)]) -> Setup {
    let mut setup = Setup::default();
    setup.stream_port(53, PortProtocol::Udp, vec![("udp", HostPattern::Any, None)]);
    for (name, address, _) in backends {
        setup.udp_backend(name, &[*address]);
    }
    let weights: Vec<_> = backends.iter().map(|(name, _, weight)| (*name, *weight)).collect();
    setup.stream_route(RouteKind::Udp, ("dns", 1), "udp", HostPattern::Any, &weights);
    setup
}

async fn client(gateway: &Gateway) -> UdpSocket {
    let id = PortId { transport: Transport::Udp, ..port_id(53) };
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(gateway.proxy.address(&id).unwrap()).await.unwrap();
    socket
}

async fn query(client: &UdpSocket, words: &str) -> String {
    client.send(words.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 65_536];
    let length = soon(client.recv(&mut buffer)).await.unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn datagrams_find_their_way_there_and_back() {
    let backend = udp("dns").await;
    let gateway = udp_port(&[("dns", backend.address, 1)]).start();
    let (one, other) = (client(&gateway).await, client(&gateway).await);
    for n in 0..20 {
        assert_eq!(query(&one, &format!("one {n}")).await, format!("dns: one {n}"));
        assert_eq!(query(&other, &format!("other {n}")).await, format!("dns: other {n}"));
    }
    let large = "x".repeat(9_000);
    assert_eq!(query(&one, &large).await, format!("dns: {large}"));
    assert_eq!(gateway.metric(r#"headgate_connections_opened_total{protocol="udp"}"#).await, 2.0);
}

#[tokio::test]
async fn a_client_stays_with_its_endpoint_and_weights_count_by_client() {
    let (a, b, zero) = (udp("a").await, udp("b").await, udp("zero").await);
    let gateway = udp_port(&[("a", a.address, 1), ("b", b.address, 1), ("zero", zero.address, 0)]).start();
    let mut counts = BTreeMap::<String, usize>::new();
    for _ in 0..100 {
        let client = client(&gateway).await;
        let first = query(&client, "").await;
        assert_eq!(query(&client, "").await, first);
        *counts.entry(first).or_default() += 1;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["a: ", "b: "]);
    assert!(counts.values().all(|count| *count >= 20), "{counts:?}");
}

#[tokio::test]
async fn a_session_whose_endpoint_is_gone_begins_anew() {
    let gone = nobody().await;
    let backend = udp("dns").await;
    let gateway = udp_port(&[("dns", gone, 1)]).start();
    let client = client(&gateway).await;
    client.send(b"lost").await.unwrap();
    gateway.publish(&udp_port(&[("dns", backend.address, 1)]));
    // What the kernel says of the first comes when it comes: until then datagrams are lost, as on any network.
    let mut buffer = vec![0; 100];
    let answered = async {
        loop {
            client.send(b"again").await.unwrap();
            let wait = tokio::time::timeout(Duration::from_millis(50), client.recv(&mut buffer));
            if let Ok(Ok(length)) = wait.await {
                return length;
            }
        }
    };
    let length = tokio::time::timeout(HANGS, answered).await.unwrap();
    assert!(buffer[..length].starts_with(b"dns: "));
}

#[tokio::test]
async fn silence_ends_sessions_and_their_number_is_bounded() {
    let backend = udp("dns").await;
    let limits = Limits { udp_idle: Duration::from_millis(300), udp_sessions: 1, ..Limits::default() };
    let gateway = udp_port(&[("dns", backend.address, 1)]).start_with(limits, 1);
    let first = client(&gateway).await;
    assert_eq!(query(&first, "").await, "dns: ");
    let second = client(&gateway).await;
    let mut buffer = vec![0; 100];
    let mut refused = 0;
    let answered = async {
        loop {
            second.send(b"").await.unwrap();
            let wait = tokio::time::timeout(Duration::from_millis(50), second.recv(&mut buffer));
            match wait.await {
                Ok(Ok(_)) => return,
                Ok(Err(_)) | Err(_) => refused += 1,
            }
        }
    };
    tokio::time::timeout(HANGS, answered).await.unwrap();
    assert!(refused > 0);
}

#[tokio::test]
async fn a_session_leaves_an_endpoint_that_left_and_a_backend_that_its_route_left() {
    let (a, b, c) = (udp("a").await, udp("b").await, udp("c").await);
    let mut setup = udp_port(&[("dns", a.address, 1)]);
    let gateway = setup.start();
    let client = client(&gateway).await;
    assert_eq!(query(&client, "").await, "a: ");
    setup.udp_backend("dns", &[b.address]);
    gateway.publish(&setup);
    assert_eq!(query(&client, "").await, "b: ");
    // Of weight 0 is as good as not there.
    setup.udp_backend("other", &[c.address]);
    setup.stream_route(RouteKind::Udp, ("dns", 1), "udp", HostPattern::Any, &[("dns", 0), ("other", 1)]);
    gateway.publish(&setup);
    assert_eq!(query(&client, "").await, "c: ");
    // What doesn't concern it, it doesn't notice.
    setup.udp_backend("other", &[a.address, c.address]);
    gateway.publish(&setup);
    for _ in 0..10 {
        assert_eq!(query(&client, "").await, "c: ");
    }
}

#[tokio::test]
async fn a_port_that_closes_leaves_its_address_to_the_next() {
    let (old, new) = (udp("old").await, udp("new").await);
    let gateway = udp_port(&[("dns", old.address, 1)]).start();
    let client = client(&gateway).await;
    assert_eq!(query(&client, "").await, "old: ");
    let mut next = Setup::default();
    next.stream_port(54, PortProtocol::Udp, vec![("udp", HostPattern::Any, None)]);
    for port in next.model.ports.values_mut() {
        Arc::make_mut(port).bind = client.peer_addr().unwrap();
    }
    next.udp_backend("dns", &[new.address]);
    next.stream_route(RouteKind::Udp, ("dns", 1), "udp", HostPattern::Any, &[("dns", 1)]);
    gateway.publish(&next);
    assert_eq!(query(&client, "").await, "new: ");
}

/// One number, two transports: two ports.
#[tokio::test]
async fn tcp_and_udp_share_a_number() {
    let (stream, datagram) = (tcp("tcp").await, udp("udp").await);
    let mut setup = udp_port(&[("dns", datagram.address, 1)]);
    setup.stream_port(53, PortProtocol::Tcp, vec![("tcp", HostPattern::Any, None)]);
    setup.backend("dns", BackendProtocol::Http1, &[stream.address]);
    setup.stream_route(RouteKind::Tcp, ("tcp", 1), "tcp", HostPattern::Any, &[("dns", 1)]);
    let gateway = setup.start();
    assert_eq!(say(&gateway, 53, "").await.unwrap(), "tcp: ");
    assert_eq!(query(&client(&gateway).await, "").await, "udp: ");
}
