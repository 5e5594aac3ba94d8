//! What ClientPolicies bound, with clients that speak in bytes.

mod handshakes;

pub use self::handshakes::Anybody;
use crate::harness::{Backend, Gateway, Setup, soon, to};
use crate::http2::{connect, get};
use crate::tls;
use headgate_proxy::model::{
    ClientAddress, ClientHeaders, ClientHttp2, ClientLimits, ClientPath, ClientTimeouts, ClientTrial,
    Clients, EscapedSlashes, Filter, HeaderEdits, Policies, ProxyProtocol, Underscores,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A gateway before an echo, whose requests may have bodies of so many bytes.
async fn bounded(most: u64) -> (Backend, Gateway) {
    let backend = Backend::echo().await;
    let mut setup = Setup::only(&[backend.address]);
    put(&mut setup, most);
    let gateway = setup.start();
    (backend, gateway)
}

fn put(setup: &mut Setup, most: u64) {
    setup.govern(Policies { request_body_bytes: Some(most), ..Policies::default() });
}

#[tokio::test]
async fn a_body_of_as_many_bytes_as_it_may_have_passes() {
    let (_backend, gateway) = bounded(5).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/").await.status(), 200);
    let answer = client.post("/", b"hello").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.text().ends_with("hello"), "{}", answer.text());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 200);
}

#[tokio::test]
async fn a_body_that_is_announced_to_be_larger_is_413_at_once() {
    let (backend, gateway) = bounded(5).await;
    let mut client = gateway.client().await;
    let refused = client.post("/", b"hello!").await;
    assert_eq!((refused.status(), refused.header("connection")), (413, Some("close")));
    assert_eq!(backend.connections(), 0, "what is refused has no need of a backend");
    let mut client = gateway.client().await;
    // Not a byte of this one was sent.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").await;
    let refused = client.response().await;
    assert_eq!((refused.status(), refused.header("connection")), (413, Some("close")));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));

    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 413, "and no 100 before it");
    assert_eq!(gateway.metric("headgate_rejections_total{reason=\"body_too_large\"").await, 3.0);
}

/// Nobody announced it: it is counted as it comes, and the backend doesn't get the end of it.
#[tokio::test]
async fn a_chunked_body_is_413_when_too_much_has_come() {
    let (ended, mut seen) = tokio::sync::mpsc::channel(1);
    let backend = Backend::raw(move |mut stream, _| {
        let ended = ended.clone();
        async move {
            let mut bytes = Vec::new();
            // A connection that is reset has no end either.
            drop(stream.read_to_end(&mut bytes).await);
            ended.send(bytes).await.unwrap();
        }
    })
    .await;
    let mut setup = Setup::only(&[backend.address]);
    put(&mut setup, 5);
    let gateway = setup.start();
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    client.send("3\r\ndef\r\n").await;
    let refused = client.response().await;
    assert_eq!((refused.status(), refused.header("connection")), (413, Some("close")));
    let got = soon(seen.recv()).await.unwrap();
    let got = String::from_utf8(got).unwrap();
    assert!(!got.contains("def") && !got.contains("0\r\n\n"), "{got}");
}

/// Once the backend answers there is no other answer to give: what is left is to cut it.
#[tokio::test]
async fn an_answer_under_way_is_cut() {
    let backend = Backend::raw(|mut stream, _| async move {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nso far").await.unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    })
    .await;
    let mut setup = Setup::only(&[backend.address]);
    put(&mut setup, 5);
    let gateway = setup.start();
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    assert_eq!(client.head().await.status(), 200);
    client.send("3\r\ndef\r\n").await;
    let rest = String::from_utf8(soon(client.rest()).await).unwrap();
    assert!(rest.len() < 100, "{rest}");
}

/// A gateway before an echo, to whose ports clients may talk like that.
async fn talking(clients: Clients) -> (Backend, Gateway) {
    let backend = Backend::echo().await;
    let gateway = gateway_of(&backend, clients);
    (backend, gateway)
}

fn gateway_of(backend: &Backend, clients: Clients) -> Gateway {
    let mut setup = Setup::only(&[backend.address]);
    put_clients(&mut setup, &clients);
    setup.start()
}

pub fn put_clients(setup: &mut Setup, clients: &Clients) {
    for port in setup.model.ports.values_mut() {
        Arc::make_mut(port).clients = Some(Arc::new(clients.clone()));
    }
}

fn with_timeouts(change: impl FnOnce(&mut ClientTimeouts)) -> Clients {
    let mut clients = Clients::default();
    change(&mut clients.timeouts);
    clients
}

const MOMENT: Option<Duration> = Some(Duration::from_millis(200));

#[tokio::test]
async fn heads_have_the_bounds_of_the_policy() {
    let limits = ClientLimits {
        header_bytes: Some(2_000),
        header_count: Some(5),
        target_bytes: Some(100),
        ..ClientLimits::default()
    };
    let (_backend, gateway) = talking(Clients { limits, ..Clients::default() }).await;
    let status = async |target: &str, fields: &str| {
        let mut client = gateway.client().await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        client.response().await.status()
    };
    let fields = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    assert_eq!(status("/", &fields(4)).await, 200);
    assert_eq!(status("/", &fields(5)).await, 431);
    assert_eq!(status("/", &format!("X: {}\r\n", "x".repeat(1_800))).await, 200);
    assert_eq!(status("/", &format!("X: {}\r\n", "x".repeat(2_000))).await, 431);
    assert_eq!(status(&format!("/{}", "x".repeat(99)), "").await, 200);
    assert_eq!(status(&format!("/{}", "x".repeat(100)), "").await, 414);

    // More than usual: hyper has bounds of its own, that follow.
    let limits =
        ClientLimits { header_count: Some(300), target_bytes: Some(40_000), ..ClientLimits::default() };
    let (_backend, gateway) = talking(Clients { limits, ..Clients::default() }).await;
    let mut client = gateway.client().await;
    client.send(format!("GET /{} HTTP/1.1\r\nHost: a\r\n{}\r\n", "x".repeat(30_000), fields(290))).await;
    assert_eq!(client.response().await.status(), 200);
}

#[tokio::test]
async fn slow_clients_have_the_time_of_the_policy() {
    let (_backend, gateway) = talking(with_timeouts(|times| times.request_headers = MOMENT)).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHos").await;
    assert_eq!(client.response().await.status(), 408);

    let (_backend, gateway) = talking(with_timeouts(|times| times.request_body_idle = MOMENT)).await;
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    assert_eq!(client.response().await.status(), 408);

    let (_backend, gateway) = talking(with_timeouts(|times| times.keep_alive_idle = MOMENT)).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/").await.status(), 200);
    soon(async { assert_eq!(client.io.read(&mut [0]).await.unwrap(), 0) }).await;
}

#[tokio::test]
async fn old_connections_end_with_an_answer() {
    let (_backend, gateway) = talking(with_timeouts(|times| times.max_connection_age = MOMENT)).await;
    let mut client = gateway.client().await;
    let mut answers = 0;
    // Never without a word: the last answer says so.
    soon(async {
        loop {
            let answer = client.get("/").await;
            assert_eq!(answer.status(), 200);
            answers += 1;
            if answer.header("connection") == Some("close") {
                break;
            }
        }
    })
    .await;
    assert!(answers > 1);
    assert_eq!(client.io.read(&mut [0]).await.unwrap(), 0);
    // One that asks for nothing ends by itself.
    let mut idle = gateway.client().await;
    assert_eq!(idle.get("/").await.status(), 200);
    soon(async { assert_eq!(idle.io.read(&mut [0]).await.unwrap(), 0) }).await;
}

fn behind(hops: usize, networks: &[&str], proxy_protocol: ProxyProtocol) -> Clients {
    let trusted_networks = networks.iter().map(|text| (*text).into()).collect();
    let address = ClientAddress { trusted_hops: hops, trusted_networks, header: None, proxy_protocol };
    Clients { address, ..Clients::default() }
}

#[tokio::test]
async fn proxies_that_are_trusted_say_who_the_client_is() {
    let fields = "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 6.6.6.6\r\n";
    let ask = async |gateway: &Gateway| {
        let mut client = gateway.client().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        client.response().await.text()
    };
    for clients in [behind(0, &["127.0.0.0/8"], ProxyProtocol::Off), behind(1, &[], ProxyProtocol::Off)] {
        let (_backend, gateway) = talking(clients).await;
        let seen = ask(&gateway).await;
        assert!(seen.contains("x-forwarded-for: 192.0.2.1, 127.0.0.1\n"), "{seen}");
        assert!(seen.contains("x-real-ip: 192.0.2.1\n") && !seen.contains("6.6.6.6"), "{seen}");
        assert!(
            seen.contains("x-forwarded-proto: https\n") && seen.contains("x-forwarded-port: 443\n"),
            "{seen}"
        );
        assert!(seen.contains("forwarded: for=192.0.2.1;proto=https\n"), "{seen}");
    }
    // Whom nobody trusts says nothing.
    let (_backend, gateway) = talking(behind(0, &["192.0.2.0/24"], ProxyProtocol::Off)).await;
    let seen = ask(&gateway).await;
    assert!(
        seen.contains("x-forwarded-for: 127.0.0.1\n") && seen.contains("x-forwarded-proto: http\n"),
        "{seen}"
    );
    assert!(!seen.contains("192.0.2.1"), "{seen}");
}

const SECOND: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x01\x0a\0\0\x01\x13\x88\0\x50\x04\0\0";

#[tokio::test]
async fn the_proxy_protocol_says_who_is_behind_a_connection() {
    let (backend, gateway) = talking(behind(0, &[], ProxyProtocol::Require)).await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let seen = async |gateway: &Gateway, parts: &[&[u8]]| {
        let mut client = gateway.client().await;
        for part in parts {
            client.send(part).await;
            tokio::task::yield_now().await;
        }
        client.response().await.text()
    };
    let first = &b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 80\r\n"[..];
    for header in [first, SECOND] {
        let text = seen(&gateway, &[header, request]).await;
        assert!(text.contains("x-forwarded-for: 192.0.2.1\n"), "{text}");
        // In pieces, and the request in one with the last of them.
        let (one, two) = header.split_at(9);
        let text = seen(&gateway, &[one, &[two, request].concat()]).await;
        assert!(text.contains("x-real-ip: 192.0.2.1\n"), "{text}");
    }
    // The proxy's own question.
    let own = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert!(seen(&gateway, &[own, request]).await.contains("x-real-ip: 127.0.0.1\n"));
    let before = backend.connections();
    for bad in
        [&request[..], b"PROXY TCP4 nonsense 10.0.0.1 5000 80\r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0\0\0\0"]
    {
        let mut client = gateway.client().await;
        client.send(bad).await;
        // Without an answer: nobody knows whose it would be.
        let mut left = Vec::new();
        let _ = soon(client.io.read_to_end(&mut left)).await;
        assert_eq!(left, b"");
    }
    assert_eq!(backend.connections(), before);

    let (_backend, gateway) = talking(behind(0, &["127.0.0.0/8"], ProxyProtocol::Accept)).await;
    assert!(seen(&gateway, &[first, request]).await.contains("x-real-ip: 192.0.2.1\n"));
    assert!(seen(&gateway, &[request]).await.contains("x-real-ip: 127.0.0.1\n"));
    // `PRI` of HTTP/2 and `PROXY` begin alike.
    assert!(seen(&gateway, &[b"P", b"ATCH / HTTP/1.1\r\nHost: a\r\n\r\n"]).await.contains("PATCH / "));
    // Strangers' headers aren't read: they are no requests.
    let (_backend, gateway) = talking(behind(0, &["192.0.2.0/24"], ProxyProtocol::Accept)).await;
    let mut client = gateway.client().await;
    client.send(&[first, request].concat()).await;
    assert_eq!(client.response().await.status(), 400);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_those_that_end_make_room() {
    let limits = ClientLimits { connections_per_ip: Some(2), ..ClientLimits::default() };
    let (_backend, gateway) = talking(Clients { limits, ..Clients::default() }).await;
    let (mut one, mut two) = (gateway.client().await, gateway.client().await);
    assert_eq!((one.get("/").await.status(), two.get("/").await.status()), (200, 200));
    let mut three = gateway.client().await;
    // Closed without a word; or reset, where the client has said one.
    assert_eq!(three.io.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(gateway.metric("headgate_connections_refused_total").await, 1.0);
    drop(one);
    soon(async {
        loop {
            let mut again = gateway.client().await;
            let _ = again.io.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            if again.io.read(&mut [0; 12]).await.unwrap_or(0) > 0 {
                break;
            }
        }
    })
    .await;
    assert_eq!(two.get("/").await.status(), 200);
}

#[tokio::test]
async fn http2_can_be_left_out() {
    let http2 = ClientHttp2 { disabled: true, ..ClientHttp2::default() };
    let (_backend, gateway) = talking(Clients { http2, ..Clients::default() }).await;
    let mut client = gateway.client().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(client.io.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(gateway.client().await.get("/").await.status(), 200);
    // Over TLS the client is told.
    let certificate = tls::certificate(&["a.example"]);
    let backend = Backend::echo().await;
    let mut setup = tls::setup(&[("any", "a.example", &[&certificate])], &[&backend]);
    let offers = Arc::new(tls::trust(&[&certificate], &["h2", "http/1.1"]));
    for (disabled, spoken) in [(false, &b"h2"[..]), (true, b"http/1.1")] {
        let http2 = ClientHttp2 { disabled, ..ClientHttp2::default() };
        put_clients(&mut setup, &Clients { http2, ..Clients::default() });
        let gateway = setup.start();
        let stream = tls::handshake(&gateway, "a.example", &offers).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(spoken));
    }
}

#[tokio::test]
async fn silent_answers_have_the_time_of_the_policy() {
    let backend = Backend::raw(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 1_024]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
        // And nothing more, until the other side has gone.
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let gateway = gateway_of(&backend, with_timeouts(|times| times.stream_idle = MOMENT));
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut all = Vec::new();
    let _ = soon(client.io.read_to_end(&mut all)).await;
    assert!(all.ends_with(b"\r\n\r\nhello"), "{}", String::from_utf8_lossy(&all));
}

#[tokio::test]
async fn handshakes_have_the_time_of_the_policy() {
    let backend = Backend::echo().await;
    let certificate = tls::certificate(&["a.example"]);
    let mut setup = tls::setup(&[("any", "a.example", &[&certificate])], &[&backend]);
    put_clients(&mut setup, &with_timeouts(|times| times.tls_handshake = MOMENT));
    let gateway = setup.start();
    let mut silent = tokio::net::TcpStream::connect(gateway.address(443)).await.unwrap();
    soon(async { assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0) }).await;
    soon(async { while gateway.metric("headgate_tls_handshake_failures_total").await != 1.0 {} }).await;
}

/// What the first frame of a server says, by number (RFC 9113 §6.5).
async fn settings(gateway: &Gateway) -> Vec<(u16, u32)> {
    let mut client = gateway.client().await;
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let mut head = [0; 9];
    client.io.read_exact(&mut head).await.unwrap();
    assert_eq!((head[3], head[4]), (4, 0), "it begins with SETTINGS");
    let mut payload = vec![0; usize::from(head[2])];
    client.io.read_exact(&mut payload).await.unwrap();
    let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    payload.chunks(6).map(|one| (number(&one[..2]) as u16, number(&one[2..]))).collect()
}

#[tokio::test]
async fn http2_clients_are_told_the_bounds_of_the_policy() {
    let (streams, window, list) = (3, 4, 6);
    let http2 = ClientHttp2 {
        max_concurrent_streams: Some(7),
        max_header_list_bytes: Some(5_000),
        initial_window_bytes: Some(100_000),
        ..ClientHttp2::default()
    };
    let (_backend, gateway) = talking(Clients { http2, ..Clients::default() }).await;
    let told = settings(&gateway).await;
    for one in [(streams, 7), (window, 100_000), (list, 5_000)] {
        assert!(told.contains(&one), "{one:?} among {told:?}");
    }
    let limits = ClientLimits { header_bytes: Some(3_000), ..ClientLimits::default() };
    let (_backend, gateway) = talking(Clients { limits, ..Clients::default() }).await;
    let told = settings(&gateway).await;
    assert!(told.contains(&(list, 3_000)) && told.contains(&(streams, 128)), "{told:?}");
}

/// What a backend gets of a request with these fields, or the status.
async fn told(gateway: &Gateway, target: &str, fields: &str) -> Result<String, u16> {
    let mut client = gateway.client().await;
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    let answer = client.response().await;
    if answer.status() == 200 { Ok(answer.text()) } else { Err(answer.status()) }
}

fn with_headers(headers: ClientHeaders) -> Clients {
    Clients { headers, ..Clients::default() }
}

#[tokio::test]
async fn underscores_have_the_fate_of_the_policy() {
    let fields = "x_tenant: one\r\nX-User: me\r\nX_User: root\r\nX_Forwarded_For: 6.6.6.6\r\nX_Set: mine\r\n";
    let of = |underscores| with_headers(ClientHeaders { underscores, ..ClientHeaders::default() });
    let (_backend, gateway) = talking(of(Underscores::Drop)).await;
    let seen = told(&gateway, "/", fields).await.unwrap();
    assert!(!seen.contains('_') && seen.contains("x-user: me\n"), "{seen}");

    let (_backend, gateway) = talking(of(Underscores::Reject)).await;
    assert_eq!(told(&gateway, "/", fields).await, Err(400));
    assert!(told(&gateway, "/", "X-User: me\r\n").await.is_ok());

    // They go on, but nobody gets to say what another field says, nor one that the route sets.
    let backend = Backend::echo().await;
    let mut setup = Setup::only(&[backend.address]);
    put_clients(&mut setup, &of(Underscores::Keep));
    let set = HeaderEdits { set: vec![("X-Set".into(), "ours".into())], ..HeaderEdits::default() };
    for route in setup.model.routes.values_mut() {
        for rule in &mut Arc::make_mut(route).rules {
            rule.filters.push(Filter::RequestHeaders(set.clone()));
        }
    }
    let gateway = setup.start();
    let seen = told(&gateway, "/", fields).await.unwrap();
    assert!(seen.contains("x_tenant: one\n") && seen.contains("x-set: ours\n"), "{seen}");
    for gone in ["x_user", "x_forwarded_for", "6.6.6.6", "x_set"] {
        assert!(!seen.contains(gone), "{gone} is in {seen}");
    }
}

#[tokio::test]
async fn ids_of_requests_have_the_name_and_the_trust_of_the_policy() {
    let id = |seen: &str, name: &str| {
        let mut lines = seen.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let id = lines.next().map(str::to_owned);
        assert_eq!(lines.next(), None, "{seen}");
        id
    };
    let named = |trust_request_id| {
        let request_id = Some("X-Correlation-ID".into());
        with_headers(ClientHeaders { request_id, trust_request_id, ..ClientHeaders::default() })
    };
    let (_backend, gateway) = talking(named(false)).await;
    let fields = "X-Correlation-ID: mine\r\nX-Request-ID: other\r\n";
    let seen = told(&gateway, "/", fields).await.unwrap();
    assert_eq!((id(&seen, "x-correlation-id").unwrap().len(), id(&seen, "x-request-id")), (36, None));

    let (_backend, gateway) = talking(named(true)).await;
    let seen = told(&gateway, "/", fields).await.unwrap();
    assert_eq!(id(&seen, "x-correlation-id").as_deref(), Some("mine"));
    let long = format!("X-Correlation-ID: {}\r\n", "x".repeat(129));
    for bad in ["", "X-Correlation-ID: a b\r\n", "X-Correlation-ID: a\r\nX-Correlation-ID: b\r\n", &long] {
        let seen = told(&gateway, "/", bad).await.unwrap();
        assert_eq!(id(&seen, "x-correlation-id").unwrap().len(), 36, "{bad}");
    }
}

#[tokio::test]
async fn answers_have_the_server_of_the_policy() {
    let headers = ClientHeaders { server: Some("shop".into()), ..ClientHeaders::default() };
    let (_backend, gateway) = talking(with_headers(headers)).await;
    for (target, status) in [("/", 200), ("/%00", 400)] {
        let answer = gateway.client().await.get(target).await;
        assert_eq!((answer.status(), answer.header("server")), (status, Some("shop")));
    }
}

/// What is matched and what backends get is one path.
#[tokio::test]
async fn paths_have_the_form_of_the_policy() {
    let path = |escaped_slashes, reject_dot_segments, merge_slashes| Clients {
        path: ClientPath { escaped_slashes, reject_dot_segments, merge_slashes },
        ..Clients::default()
    };
    let got = async |clients: Clients, target: &str| {
        let (_backend, gateway) = talking(clients).await;
        let seen = told(&gateway, target, "").await?;
        Ok::<_, u16>(seen.split(' ').nth(1).unwrap_or_default().to_owned())
    };
    let decode = || path(EscapedSlashes::Decode, false, true);
    assert_eq!(got(decode(), "/a%2Fb//c?d=%2F//").await.as_deref(), Ok("/a/b/c?d=%2F//"));
    assert_eq!(got(decode(), "/a%5Cb").await, Err(400));
    assert_eq!(got(path(EscapedSlashes::Reject, false, false), "/a%2fb").await, Err(400));
    assert_eq!(got(path(EscapedSlashes::Keep, true, false), "/a/%2e%2e/b").await, Err(400));
    assert_eq!(got(path(EscapedSlashes::Keep, false, false), "/a/../b").await.as_deref(), Ok("/b"));
}

/// The bound of rapid resets: what is under way is answered, and nothing more is taken.
#[tokio::test]
async fn clients_that_give_up_too_often_are_asked_to_go() {
    let backend = Backend::raw(|mut stream, _| async move {
        // An answer would come, were it waited for.
        while !matches!(stream.read(&mut [0; 4096]).await, Ok(0) | Err(_)) {}
    })
    .await;
    let http2 = ClientHttp2 { max_resets: Some(3), ..ClientHttp2::default() };
    let gateway = gateway_of(&backend, Clients { http2, ..Clients::default() });
    let client = connect(gateway.address(80)).await;
    let mut given_up = 0;
    soon(async {
        loop {
            let mut waiting = client.clone();
            if waiting.ready().await.is_err() {
                break;
            }
            let before = backend.connections();
            let call = tokio::spawn(async move { waiting.send_request(get("http://a/")).await });
            while backend.connections() == before && !call.is_finished() {
                tokio::task::yield_now().await;
            }
            call.abort();
            given_up += 1;
        }
    })
    .await;
    // After the fourth; what is on its way then may be a few more.
    assert!((4..=10).contains(&given_up), "{given_up}");
}

#[tokio::test]
async fn what_is_tried_is_counted_and_refuses_nothing() {
    let backend = Backend::echo().await;
    let mut setup = Setup::only(&[backend.address]);
    put(&mut setup, 1_000);
    for route in setup.model.routes.values_mut() {
        for scoped in Arc::make_mut(route).rules.iter_mut().flat_map(|rule| &mut rule.policies) {
            Arc::make_mut(&mut scoped.policies).tried_body_bytes = Some(5);
        }
    }
    let limits = ClientLimits {
        header_bytes: Some(400),
        header_count: Some(4),
        target_bytes: Some(20),
        connections: Some(1),
        connections_per_ip: None,
    };
    let path = ClientPath { reject_dot_segments: true, ..ClientPath::default() };
    let trial = ClientTrial { limits, underscores: Underscores::Reject, path };
    put_clients(&mut setup, &Clients { trial: Some(trial), ..Clients::default() });
    let gateway = setup.start();
    let mut client = gateway.client().await;
    let fine = "GET /fine HTTP/1.1\r\nHost: a\r\n";
    let counted = async |reason: &str| {
        gateway.metric(&format!("headgate_shadow_rejections_total{{reason=\"{reason}\"}}")).await
    };
    client.send(&format!("{fine}\r\n")).await;
    assert_eq!(client.response().await.status(), 200);
    assert_eq!(gateway.metric("headgate_shadow_rejections_total").await, 0.0);
    let long = "x".repeat(400);
    for (head, reason) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n", &long[..20]), "target_too_long"),
        (format!("{fine}A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n"), "head_too_large"),
        (format!("{fine}A: {long}\r\n"), "head_too_large"),
        (format!("{fine}a_b: 1\r\n"), "malformed_head"),
        ("GET /a/../b HTTP/1.1\r\nHost: a\r\n".to_owned(), "malformed_path"),
        (format!("{fine}Content-Length: 6\r\n\r\nhello!"), "body_too_large"),
        (format!("{fine}Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n3\r\nlo!\r\n0\r\n"), "body_too_large"),
    ] {
        let before = counted(reason).await;
        client.send(&format!("{head}\r\n")).await;
        assert_eq!(client.response().await.status(), 200, "{head}");
        // A body is judged when the last of its request is gone.
        soon(async { while counted(reason).await != before + 1.0 {} }).await;
    }
    assert_eq!(gateway.metric("headgate_shadow_rejections_total").await, 7.0);
    // The first connection has the seat; others are served all the same, and leave none taken.
    for n in 1..3 {
        assert_eq!(gateway.client().await.get("/").await.status(), 200);
        assert_eq!(gateway.metric("headgate_shadow_connections_refused_total").await, f64::from(n));
    }
    // What acts still does.
    let mut other = gateway.client().await;
    assert_eq!(other.post("/", &[b'x'; 1_001]).await.status(), 413);
}
