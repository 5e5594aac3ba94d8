//! What finding a route costs, and compiling a model, as routes become more: `make bench-micro`.
//!
//! One listener, each route with a hostname of its own and two rules, as clusters have them.

#![allow(missing_docs, reason = "criterion's macros make functions without any")]

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use headgate_proxy::metrics::Metrics;
use headgate_proxy::model::{
    Action, Backend, BackendId, BackendKind, BackendProtocol, Content, HostPattern, Listener, ListenerId,
    Match, Model, ObjectName, PathMatch, Port, PortId, PortProtocol, Route, RouteId, RouteKind, Rule, Target,
    Transport, WeightedBackend, thin_vec,
};
use headgate_proxy::router::Head;
use headgate_proxy::snapshot::{Ports, Publisher};
use http::{HeaderMap, Method};
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

/// Numbers of routes.
const SIZES: [usize; 3] = [1, 1_000, 10_000];
/// A step through the routes that comes to each of them: it has no factor in common with the sizes.
const STEP: usize = 7_919;

/// Sockets aren't a part of this.
struct NoSockets;

impl Ports for NoSockets {
    fn apply(&self, _: &[(PortId, SocketAddr, PortProtocol)]) -> Vec<(PortId, String)> {
        Vec::new()
    }
}

fn gateway() -> ObjectName {
    ObjectName::new("infra", "gateway")
}

fn port_id() -> PortId {
    PortId { gateway: gateway(), port: 80, transport: Transport::Tcp }
}

fn listener_id() -> ListenerId {
    ListenerId { gateway: gateway(), listener_set: None, name: "http".into() }
}

fn port() -> Port {
    let listener = Listener {
        id: listener_id(),
        hostname: HostPattern::Any,
        content: Content::Http,
        tls: None,
        filters: Vec::new(),
    };
    Port {
        id: port_id(),
        bind: SocketAddr::from(([127, 0, 0, 1], 80)),
        protocol: PortProtocol::Http,
        listeners: vec![listener],
        client_certificate: None,
        clients: None,
    }
}

fn backend_id(number: usize) -> BackendId {
    let name = ObjectName::new("shop", format!("backend-{}", number % 1_000));
    BackendId { kind: BackendKind::Service, name, port: 80, transport: Transport::Tcp }
}

fn rule(path: &str, number: usize) -> Rule {
    let target = Target::Backend(backend_id(number));
    Rule {
        name: None,
        matches: thin_vec![Match {
            path: PathMatch::Prefix(path.into()),
            method: None,
            headers: thin_vec![],
            query: thin_vec![],
        }],
        filters: thin_vec![],
        action: Action::Forward(thin_vec![WeightedBackend::new(target, 1)]),
        timeouts: None,
        retry: None,
        policies: thin_vec![],
        session: None,
    }
}

/// The route with a number; `created` is what an edit changes.
fn route(number: usize, created: i64) -> Route {
    Route {
        id: RouteId { kind: RouteKind::Http, name: ObjectName::new("shop", format!("route-{number}")) },
        created,
        listeners: [listener_id()].into(),
        hostnames: thin_vec![HostPattern::parse(&host(number))],
        rules: thin_vec![rule("/api", number), rule("/", number + 1)],
    }
}

fn host(number: usize) -> String {
    format!("app-{number}.example.com")
}

fn model(routes: usize) -> Model {
    let mut model = Model::default();
    model.ports.insert(port_id(), Arc::new(port()));
    for number in 0..routes {
        let route = route(number, 0);
        model.routes.insert(route.id.clone(), Arc::new(route));
        for id in [backend_id(number), backend_id(number + 1)] {
            model.backends.insert(id.clone(), Arc::new(Backend::new(id, BackendProtocol::Http1)));
        }
    }
    model
}

fn publisher() -> Publisher {
    Publisher::new(Metrics::new(1), Box::new(NoSockets))
}

/// `PortTable::find`: another route each time.
fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find");
    for size in SIZES {
        let publisher = publisher();
        publisher.publish(model(size));
        let table = publisher.reader().current().port(&port_id()).expect("a port").clone();
        let hosts: Vec<_> = (0..size).map(host).collect();
        let (headers, mut n) = (HeaderMap::new(), 0);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                n = (n + STEP) % size;
                let head = Head {
                    host: &hosts[n],
                    sni: None,
                    method: &Method::GET,
                    path: "/api/orders/7",
                    query: None,
                    headers: &headers,
                    ours: None,
                };
                let found = table.find(black_box(&head)).expect("a route");
                black_box(found.prefix_len)
            });
        });
    }
    group.finish();
}

/// A whole model, from nothing.
fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    for size in SIZES {
        let model = model(size);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            let fresh = || (publisher(), model.clone());
            bencher.iter_batched(
                fresh,
                |(publisher, model)| {
                    publisher.publish(model);
                    publisher
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// A model in which one route is different.
fn edit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile after an edit");
    for size in SIZES {
        let (publisher, mut model, mut n) = (publisher(), model(size), 0);
        publisher.publish(model.clone());
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                n += 1;
                let route = route(n * STEP % size, i64::try_from(n).expect("a small number"));
                model.routes.insert(route.id.clone(), Arc::new(route));
                publisher.publish(model.clone())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, find, compile, edit);
criterion_main!(benches);
