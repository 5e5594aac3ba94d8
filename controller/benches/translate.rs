//! What translation costs as routes become more, whole and after an edit: `make bench-micro`.
//!
//! One Gateway, and routes with a hostname of their own and two rules over 100 namespaces with ten Services each.

#![allow(missing_docs, reason = "criterion's macros make functions without any")]

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use headgate_controller::api::{Gateway, GatewayClass, HttpRoute};
use headgate_controller::cluster::{Change, Cluster, Object, SERVICE_NAME, Watched};
use headgate_controller::settings::{CONTROLLER_NAME, DEFAULT_CLASS, Mode, Settings};
use headgate_controller::translate::Translator;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json};
use std::collections::BTreeMap;

/// Numbers of routes.
const SIZES: [usize; 3] = [1, 1_000, 10_000];
/// A step through the routes that comes to each of them: it has no factor in common with the sizes.
const STEP: usize = 7_919;
const NAMESPACES: usize = 100;
/// In each namespace.
const SERVICES: usize = 10;

fn read<K: Watched + DeserializeOwned>(value: Value) -> Object {
    from_value::<K>(value).expect("a good object").wrap()
}

/// A route; an edit is another generation.
fn route(number: usize, generation: usize) -> Object {
    let backend = |n: usize| json!({"name": format!("service-{}", n % SERVICES), "port": 80});
    read::<HttpRoute>(json!({
        "metadata": {
            "namespace": format!("team-{}", number % NAMESPACES), "name": format!("route-{number}"),
            "generation": generation, "resourceVersion": generation.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "parentRefs": [{"name": "gateway", "namespace": "infra"}],
            "hostnames": [format!("app-{number}.example.com")],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/api"}}],
                    "filters": [{
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"set": [{"name": "x-version", "value": generation.to_string()}]},
                    }],
                    "backendRefs": [backend(number)],
                },
                {"backendRefs": [backend(number + 1)]},
            ],
        },
    }))
}

fn service(namespace: &str, name: &str) -> [Object; 2] {
    let service = json!({
        "metadata": {"namespace": namespace, "name": name, "resourceVersion": "1"},
        "spec": {"clusterIP": "10.96.0.10", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    let slice = json!({
        "metadata": {
            "namespace": namespace, "name": format!("{name}-abcde"), "resourceVersion": "1",
            "labels": {SERVICE_NAME: name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}],
    });
    [read::<Service>(service), read::<EndpointSlice>(slice)]
}

fn cluster(routes: usize) -> Cluster {
    let class = json!({
        "metadata": {"name": DEFAULT_CLASS, "generation": 1, "resourceVersion": "1"},
        "spec": {"controllerName": CONTROLLER_NAME},
    });
    let gateway = json!({
        "metadata": {"namespace": "infra", "name": "gateway", "uid": "gateway", "generation": 1, "resourceVersion": "1"},
        "spec": {
            "gatewayClassName": DEFAULT_CLASS,
            "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}],
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}],
        },
    });
    let mut objects = vec![read::<GatewayClass>(class), read::<Gateway>(gateway)];
    for number in 0..NAMESPACES {
        let name = format!("team-{number}");
        let namespace = json!({"metadata": {"name": name, "resourceVersion": "1"}});
        objects.push(read::<Namespace>(namespace));
        objects.extend((0..SERVICES).flat_map(|n| service(&name, &format!("service-{n}"))));
    }
    objects.extend((0..routes).map(|number| route(number, 1)));
    let mut cluster = Cluster::default();
    for object in objects {
        cluster.apply(Change::Upsert(object));
    }
    cluster
}

fn translator() -> Translator {
    Translator::new(Settings::new(Mode::Files))
}

/// All objects, by somebody who remembers nothing.
fn translate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("translate");
    group.sample_size(10);
    for size in SIZES {
        let cluster = cluster(size);
        let made = translator().translate(&cluster, &BTreeMap::new());
        assert_eq!(made.model.routes.len(), size, "routes are refused");
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_batched(
                translator,
                |mut translator| {
                    let made = translator.translate(&cluster, &BTreeMap::new());
                    (translator, made)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// An edit of one route: what is applied to the cluster, and what is translated of it.
fn edit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("translate after an edit");
    for size in SIZES {
        let (mut cluster, mut translator, mut n) = (cluster(size), translator(), 1);
        translator.translate(&cluster, &BTreeMap::new());
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                n += 1;
                let effect = cluster.apply(Change::Upsert(route(n * STEP % size, n)));
                translator.update(&cluster, &BTreeMap::new(), &effect)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, translate, edit);
criterion_main!(benches);
