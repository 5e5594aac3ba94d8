//! Configuration that changes while clients are there: nothing is lost, and what was published is in force.

use crate::harness::{Backend, Client, Gateway, Setup, backend_id, endpoints, nobody, ok, port_id, soon, to};
use headgate_proxy::model::{
    Action, BackendProtocol, EndpointSet, Failure, HostPattern, Model, ObjectName, Port, PortProtocol,
    Timeouts,
};
use headgate_proxy::{Options, start};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

const CLIENTS: usize = 8;
/// At least so many of each happen at the same time.
const CHANGES: usize = 300;
const REQUESTS: usize = 4_000;

/// Asks until told to stop, on kept and on new connections, with and without bodies; counts how often in all.
async fn keep_asking(address: SocketAddr, number: usize, stop: Arc<AtomicBool>, total: Arc<AtomicUsize>) {
    let mut asked = 0;
    let mut client = Client::connect(address).await;
    while !stop.load(Ordering::Relaxed) {
        if asked % 50 == 49 {
            client = Client::connect(address).await;
        }
        let response = match (asked + number) % 3 {
            0 => client.post("/kept", b"some body").await,
            _ => client.get("/kept").await,
        };
        assert_eq!(
            (response.status(), response.text()),
            (200, "ok".into()),
            "client {number}, request {asked}"
        );
        asked += 1;
        total.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `change` again and again while clients ask for `/kept`, which must not notice.
async fn while_clients_ask(gateway: Gateway, change: impl Fn(&Gateway, usize)) {
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = gateway.address(80);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(keep_asking(address, number, stop.clone(), total.clone())))
        .collect();
    let mut round = 0;
    while round < CHANGES || total.load(Ordering::Relaxed) < REQUESTS {
        change(&gateway, round);
        round += 1;
        tokio::task::yield_now().await;
        if clients.iter().any(|client| client.is_finished()) {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        soon(client).await.unwrap();
    }
    assert_eq!(gateway.metric("headgate_rejections_total").await, 0.0);
}

#[tokio::test]
async fn routes_that_come_and_go_lose_no_request() {
    let backend = Backend::named("ok").await;
    let base = Setup::only(&[backend.address]);
    while_clients_ask(base.start(), move |gateway, round| {
        let mut setup = base.clone();
        for n in 0..round % 7 {
            setup.route(&format!("route-{n}"), &format!("/{round}/{n}"), Action::Fail(Failure::NoBackends));
        }
        // The same answer by another route: more specific, then not there again.
        if round % 2 == 0 {
            setup.backend("other", BackendProtocol::Http1, &[backend.address]);
            setup.route("specific", "/kept", to("other"));
        }
        gateway.publish(&setup);
    })
    .await;
}

#[tokio::test]
async fn endpoints_that_come_and_go_lose_no_request() {
    let backends = [Backend::named("ok").await, Backend::named("ok").await, Backend::named("ok").await];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let dead = nobody().await;
    while_clients_ask(Setup::only(&addresses).start(), move |gateway, round| {
        let mut now = vec![addresses[round % 3]];
        if round % 2 == 0 {
            now.push(addresses[(round + 1) % 3]);
        }
        // One that refuses connections: the others are there.
        if round % 5 == 0 {
            now.push(dead);
        }
        gateway.proxy.publisher().publish_endpoints(&backend_id("only"), endpoints(&now));
    })
    .await;
}

#[tokio::test]
async fn ports_that_come_and_go_lose_no_request_on_others() {
    let backend = Backend::named("ok").await;
    let base = Setup::only(&[backend.address]);
    while_clients_ask(base.start(), move |gateway, round| {
        let mut setup = base.clone();
        if round % 2 == 0 {
            setup.port(8080, PortProtocol::Http, vec![("more", HostPattern::Any, None)]);
        }
        gateway.publish(&setup);
    })
    .await;
}

#[tokio::test]
async fn what_was_published_is_in_force_at_once() {
    let (a, b) = (Backend::named("a").await, Backend::named("b").await);
    let gateway = Setup::only(&[a.address]).start();
    let mut clients = Vec::new();
    // Enough for both threads to have some.
    for _ in 0..16 {
        clients.push(gateway.client().await);
    }
    for round in 0..50 {
        let (now, body) = if round % 2 == 0 { (&b, "b") } else { (&a, "a") };
        if round % 4 < 2 {
            gateway.publish(&Setup::only(&[now.address]));
        } else {
            gateway.proxy.publisher().publish_endpoints(&backend_id("only"), endpoints(&[now.address]));
        }
        for client in &mut clients {
            assert_eq!(client.get("/").await.text(), body, "round {round}");
        }
    }
}

#[tokio::test]
async fn a_backend_scaled_to_nothing_is_503_until_it_is_back() {
    let backend = Backend::named("a").await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status(), 200);
        gateway.proxy.publisher().publish_endpoints(&backend_id("only"), Arc::new(EndpointSet::default()));
        assert_eq!(client.get("/").await.status(), 503);
        gateway.proxy.publisher().publish_endpoints(&backend_id("only"), endpoints(&[backend.address]));
    }
}

#[tokio::test]
async fn a_request_keeps_what_it_began_with() {
    let (arrived, mut arrivals) = mpsc::channel(1);
    let (go, gone) = mpsc::channel::<()>(1);
    let gone = Arc::new(tokio::sync::Mutex::new(gone));
    let backend = Backend::raw(move |mut stream, _| {
        let (arrived, gone) = (arrived.clone(), gone.clone());
        async move {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            arrived.send(()).await.unwrap();
            gone.lock().await.recv().await.unwrap();
            stream.write_all(&ok(b"slow")).await.unwrap();
            let _ = stream.read(&mut request).await;
        }
    })
    .await;
    let gateway = Setup::only(&[backend.address]).start();
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    soon(arrivals.recv()).await.unwrap();
    gateway.publish(&Setup::http());
    go.send(()).await.unwrap();
    assert_eq!(client.response().await.text(), "slow");
    assert_eq!(client.get("/").await.status(), 404);
}

#[tokio::test]
async fn a_removed_port_closes_and_its_clients_finish() {
    let (arrived, mut arrivals) = mpsc::channel(1);
    let (go, gone) = mpsc::channel::<()>(1);
    let gone = Arc::new(tokio::sync::Mutex::new(gone));
    let backend = Backend::raw(move |mut stream, _| {
        let (arrived, gone) = (arrived.clone(), gone.clone());
        async move {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            arrived.send(()).await.unwrap();
            gone.lock().await.recv().await.unwrap();
            stream.write_all(&ok(b"last")).await.unwrap();
        }
    })
    .await;
    let setup = Setup::only(&[backend.address]);
    let gateway = setup.start();
    let address = gateway.address(80);
    let (mut busy, mut idle) = (gateway.client().await, gateway.client().await);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    soon(arrivals.recv()).await.unwrap();
    let mut without = setup.clone();
    without.model.ports.clear();
    gateway.publish(&without);
    assert!(TcpStream::connect(address).await.is_err());
    assert!(gateway.proxy.address(&port_id(80)).is_none());
    assert!(idle.rest().await.is_empty());
    go.send(()).await.unwrap();
    let last = busy.response().await;
    assert_eq!((last.text(), last.header("connection")), ("last".into(), Some("close")));
    assert!(busy.rest().await.is_empty());
    // And back again, on an address of its own choice.
    gateway.publish(&setup);
    assert!(gateway.proxy.address(&port_id(80)).is_some());
}

#[tokio::test]
async fn a_port_that_is_taken_is_reported_and_tried_again() {
    let taken = std::net::TcpListener::bind(crate::harness::loopback()).unwrap();
    let backend = Backend::named("a").await;
    let mut setup = Setup::only(&[backend.address]);
    let free = setup.model.clone();
    let port = setup.model.ports.get_mut(&port_id(80)).unwrap();
    *port = Arc::new(Port { bind: taken.local_addr().unwrap(), ..(**port).clone() });
    let proxy = start(Options { threads: 2, ..Options::new(crate::harness::loopback()) }).unwrap();
    let published = proxy.publisher().publish(setup.model.clone());
    let [(failed, why)] = &published.failed_ports[..] else { panic!("{published:?}") };
    assert_eq!(*failed, port_id(80));
    assert!(why.contains(&taken.local_addr().unwrap().to_string()), "{why}");
    assert!(proxy.publisher().has_failed_ports());
    drop(taken);
    assert!(proxy.publisher().publish(setup.model.clone()).failed_ports.is_empty());
    let address = proxy.address(&port_id(80)).unwrap();
    assert_eq!(Client::connect(address).await.get("/").await.text(), "a");
    // The bind address moves: the old one closes.
    assert!(proxy.publisher().publish(free).failed_ports.is_empty());
    assert_ne!(proxy.address(&port_id(80)), Some(address));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn gateways_with_the_same_port_see_nothing_of_each_other() {
    let (a, b) = (Backend::named("a").await, Backend::named("b").await);
    let mut setup = Setup::only(&[a.address]);
    setup.backend("b", BackendProtocol::Http1, &[b.address]);
    let mut other = Setup::http();
    other.rule("b", "any", "/", to("b"), vec![], Timeouts::default());
    let gateway = ObjectName::new("test", "other");
    // The same port and listener of another Gateway, with a route of its own.
    let mut port = (**other.model.ports.values().next().unwrap()).clone();
    port.id.gateway = gateway.clone();
    port.listeners[0].id.gateway = gateway.clone();
    let mut route = (**other.model.routes.values().next().unwrap()).clone();
    Arc::make_mut(&mut route.listeners)[0].gateway = gateway;
    let id = port.id.clone();
    setup.model.ports.insert(id.clone(), Arc::new(port));
    setup.model.routes.insert(route.id.clone(), Arc::new(route));
    let gateway = setup.start();
    assert_eq!(gateway.get("/").await.text(), "a");
    let mut client = Client::connect(gateway.proxy.address(&id).unwrap()).await;
    assert_eq!(client.get("/").await.text(), "b");
}

#[tokio::test]
async fn readiness_comes_with_the_first_model() {
    let proxy = start(Options::new(crate::harness::loopback())).unwrap();
    let mut admin = Client::connect(proxy.admin_address()).await;
    assert_eq!(admin.get("/readyz").await.status(), 503);
    proxy.publisher().publish(Model::default());
    assert_eq!(admin.get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_costs_no_request() {
    let count = Arc::new(AtomicUsize::new(0));
    let served = count.clone();
    let backend = Backend::http(move |_| {
        served.fetch_add(1, Ordering::Relaxed);
        ok(b"alive")
    })
    .await;
    let gateway = Setup::only(&[backend.address, nobody().await, nobody().await]).start();
    let mut client = gateway.client().await;
    for round in 0..60 {
        let response = if round % 2 == 0 { client.get("/").await } else { client.post("/", b"x").await };
        assert_eq!(response.text(), "alive");
    }
    assert_eq!(count.load(Ordering::Relaxed), 60);
}
