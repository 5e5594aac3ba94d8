//! Publishing: what is built anew and what stays, and what threads and sockets see meanwhile.

use super::*;
use crate::model::{HostPattern, Port, Route, thin_vec};
use crate::rejection::Rejection;
use crate::router::tests::naive::{any_model, find, requests};
use crate::router::{Action, Found, Head, Rule};
use crate::sample::{
    NoSockets, backend_id, endpoints, listener_id, model, port, port_id, prefix, route, rule,
};
use http::{HeaderMap, Method};
use proptest::prelude::*;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

fn publisher() -> Publisher {
    Publisher::new(Metrics::new(1), Box::new(NoSockets))
}

/// What a GET of `host` `/` finds.
fn get<'a>(table: &'a PortTable, host: &str) -> Result<Found<'a>, Rejection> {
    let headers = HeaderMap::new();
    table.find(&Head {
        host,
        sni: None,
        method: &Method::GET,
        path: "/",
        query: None,
        headers: &headers,
        ours: None,
    })
}

fn rule_of(publisher: &Publisher, host: &str) -> Result<Arc<Rule>, Rejection> {
    let mut reader = publisher.reader();
    let snapshot = reader.current();
    get(snapshot.port(&port_id(80)).unwrap(), host).map(|found| found.rule.clone())
}

/// A route of the listener `http` for one host, to a backend of its own name.
fn host_route(name: &str) -> Route {
    let mut route = route(name, vec![rule(vec![prefix("/")], name)]);
    route.hostnames = thin_vec![HostPattern::Exact(format!("{name}.example").into())];
    route
}

fn one_port() -> Vec<Port> {
    vec![port(80, &[("http", "*")])]
}

/// Addresses that a rule's first share would connect to.
fn targets(rule: &Rule) -> Vec<u16> {
    match &rule.action {
        Action::Forward(split) => {
            let backend = split.pick(0).target.as_ref().unwrap();
            backend.endpoints().endpoints.iter().map(|endpoint| endpoint.address.port()).collect()
        }
        Action::Redirect(_) | Action::Fail(_) => Vec::new(),
    }
}

#[test]
fn an_edit_recompiles_its_route_and_no_other() {
    let publisher = publisher();
    let names: Vec<_> = (0..300).map(|index| format!("r{index}")).collect();
    let before = model(one_port(), names.iter().map(|name| host_route(name)).collect());
    publisher.publish(before.clone());
    let rules: Vec<_> =
        names.iter().map(|name| rule_of(&publisher, &format!("{name}.example")).unwrap()).collect();

    let mut after = before.clone();
    let mut edited = host_route("r7");
    edited.rules[0].timeouts.get_or_insert_default().request = Some(std::time::Duration::from_secs(1));
    after.routes.insert(edited.id.clone(), Arc::new(edited));
    // Equal by value, not by pointer: a relist.
    let again = host_route("r8");
    after.routes.insert(again.id.clone(), Arc::new(again));
    publisher.publish(after);

    for (name, rule) in names.iter().zip(&rules) {
        let now = rule_of(&publisher, &format!("{name}.example")).unwrap();
        assert_eq!(Arc::ptr_eq(rule, &now), name != "r7", "{name}");
        assert!(Arc::ptr_eq(&rule.metrics, &now.metrics), "{name} keeps its counters");
    }
}

#[test]
fn an_equal_model_changes_nothing() {
    let publisher = publisher();
    let one = publisher.publish(model(one_port(), vec![host_route("a")]));
    let before = publisher.reader().current().clone();
    let two = publisher.publish(model(one_port(), vec![host_route("a")]));
    assert_eq!(one, two);
    assert!(Arc::ptr_eq(&before, publisher.reader().current()));
}

#[test]
fn ports_without_a_changed_route_keep_their_tables() {
    let publisher = publisher();
    let mut ports = one_port();
    ports.push(port(81, &[("other", "*")]));
    publisher.publish(model(ports.clone(), vec![host_route("a")]));
    let before = publisher.reader().current().clone();
    publisher.publish(model(ports, vec![host_route("a"), host_route("b")]));
    let after = publisher.reader().current().clone();
    let same =
        |number| Arc::ptr_eq(before.port(&port_id(number)).unwrap(), after.port(&port_id(number)).unwrap());
    assert_eq!((same(80), same(81)), (false, true));
}

#[test]
fn endpoints_are_swapped_without_a_new_snapshot() {
    let publisher = publisher();
    let mut first = model(one_port(), vec![host_route("a"), host_route("b")]);
    first.endpoints.insert(backend_id("a"), endpoints(&[1, 2]));
    let published = publisher.publish(first.clone());
    let (a, b) = (rule_of(&publisher, "a.example").unwrap(), rule_of(&publisher, "b.example").unwrap());
    assert_eq!((targets(&a), targets(&b)), (vec![1, 2], vec![]));

    publisher.publish_endpoints(&backend_id("b"), endpoints(&[3]));
    publisher.publish_endpoints(&backend_id("unknown"), endpoints(&[9]));
    assert_eq!((targets(&a), targets(&b)), (vec![1, 2], vec![3]));
    assert_eq!(publisher.reader().current().generation(), published.generation);
    let mut wanted = first.clone();
    wanted.endpoints.insert(backend_id("b"), endpoints(&[3]));
    assert_eq!(*publisher.model(), wanted);

    publisher.publish(first.clone());
    assert_eq!(targets(&b), [] as [u16; 0], "the model's word counts, though it says what it said before");
    assert_eq!(*publisher.model(), first);
}

#[test]
fn a_backend_that_goes_and_comes_back_has_the_endpoints_it_is_given() {
    let publisher = publisher();
    let mut with = model(one_port(), vec![host_route("a")]);
    with.endpoints.insert(backend_id("a"), endpoints(&[1]));
    publisher.publish(with.clone());
    let held = rule_of(&publisher, "a.example").unwrap();
    publisher.publish(model(one_port(), vec![]));
    assert_eq!(targets(&held), [1], "a running request keeps its backend's endpoints");
    publisher.publish(model(one_port(), vec![host_route("a")]));
    assert_eq!(targets(&rule_of(&publisher, "a.example").unwrap()), [] as [u16; 0]);
    publisher.publish(with);
    assert_eq!(targets(&rule_of(&publisher, "a.example").unwrap()), [1]);
}

#[test]
fn a_backends_protocol_changes_without_its_routes() {
    use crate::model::{Backend, BackendProtocol};
    let publisher = publisher();
    let mut one = model(one_port(), vec![host_route("a")]);
    publisher.publish(one.clone());
    let before = rule_of(&publisher, "a.example").unwrap();
    let h2c = Backend::new(backend_id("a"), BackendProtocol::H2c);
    one.backends.insert(backend_id("a"), Arc::new(h2c));
    publisher.publish(one);
    let after = rule_of(&publisher, "a.example").unwrap();
    assert!(Arc::ptr_eq(&before, &after));
    let Action::Forward(split) = &after.action else { panic!("{:?}", after.action) };
    assert_eq!(split.pick(0).target.as_ref().unwrap().protocol(), BackendProtocol::H2c);
}

#[test]
fn a_route_that_names_an_unknown_backend_works_once_it_appears() {
    let publisher = publisher();
    let whole = model(one_port(), vec![host_route("a")]);
    let mut without = whole.clone();
    without.backends.clear();
    publisher.publish(without);
    let rule = rule_of(&publisher, "a.example").unwrap();
    assert_eq!(targets(&rule), [] as [u16; 0]);
    let mut with = whole;
    with.endpoints.insert(backend_id("a"), endpoints(&[1]));
    publisher.publish(with);
    assert_eq!(targets(&rule), [1]);
}

type Seen = (Vec<u16>, Vec<u16>);

/// Tells the test which ports it was asked for, and which tables a thread would find at that moment.
struct Watching {
    seen: mpsc::SyncSender<Seen>,
    publisher: mpsc::Receiver<Publisher>,
}

#[expect(clippy::disallowed_types, reason = "a receiver can't be shared; publishes come one at a time")]
struct Shareable(Mutex<Watching>);

impl Ports for Shareable {
    fn apply(&self, wanted: &[(PortId, SocketAddr, PortProtocol)]) -> Vec<(PortId, String)> {
        let watching = self.0.lock().unwrap();
        let publisher = watching.publisher.recv().unwrap();
        let snapshot = publisher.reader().current().clone();
        let served = [80, 81, 82].into_iter().filter(|number| snapshot.port(&port_id(*number)).is_some());
        let asked = wanted.iter().map(|(id, ..)| id.port).collect();
        watching.seen.send((asked, served.collect())).unwrap();
        wanted
            .iter()
            .filter(|(id, ..)| id.port == 82)
            .map(|(id, ..)| (id.clone(), "in use".to_owned()))
            .collect()
    }
}

#[test]
#[expect(clippy::disallowed_types, reason = "see Shareable")]
fn tables_are_there_before_and_after_their_sockets() {
    let (seen, asked) = mpsc::sync_channel(8);
    let (give, take) = mpsc::sync_channel(8);
    let publisher =
        Publisher::new(Metrics::new(1), Box::new(Shareable(Mutex::new(Watching { seen, publisher: take }))));
    let publish = |numbers: &[u16]| {
        give.send(publisher.clone()).unwrap();
        let ports = numbers.iter().map(|number| port(*number, &[("http", "*")])).collect();
        publisher.publish(model(ports, vec![]))
    };
    assert_eq!(publish(&[80]).failed_ports, []);
    assert_eq!(asked.recv().unwrap(), (vec![80], vec![80]), "the table before the socket");
    assert_eq!(publish(&[81]).failed_ports, []);
    assert_eq!(asked.recv().unwrap(), (vec![81], vec![80, 81]), "the old table until its socket is closed");
    assert!(publisher.reader().current().port(&port_id(80)).is_none());

    let failed = publish(&[82]).failed_ports;
    assert_eq!(failed, [(port_id(82), "in use".to_owned())]);
    assert!(publisher.has_failed_ports());
    asked.recv().unwrap();
    publish(&[82]);
    assert_eq!(asked.recv().unwrap().0, [82], "tried again with an equal model");
    assert_eq!(publisher.readiness(), Readiness::Ready, "what can be served is served");
}

#[test]
fn ready_after_the_first_model_until_draining() {
    let publisher = publisher();
    assert_eq!(publisher.readiness(), Readiness::Starting);
    publisher.publish(Model::default());
    assert_eq!(publisher.readiness(), Readiness::Ready);
    publisher.drain();
    publisher.publish(model(one_port(), vec![]));
    assert_eq!(publisher.readiness(), Readiness::Draining);
}

#[test]
fn a_reader_that_is_behind_holds_its_snapshot_and_no_other() {
    let publisher = publisher();
    publisher.publish(model(one_port(), vec![host_route("a")]));
    let mut reader = publisher.reader();
    let old = Arc::downgrade(reader.current());
    publisher.publish(model(one_port(), vec![host_route("b")]));
    let skipped = Arc::downgrade(publisher.reader().current());
    publisher.publish(model(one_port(), vec![host_route("c")]));
    publisher.publish(model(one_port(), vec![host_route("d")]));
    assert!(old.upgrade().is_some());
    assert!(skipped.upgrade().is_none(), "dropped by the publish after the next");
    assert!(get(reader.current().port(&port_id(80)).unwrap(), "d.example").is_ok());
    publisher.publish(model(one_port(), vec![host_route("e")]));
    assert!(old.upgrade().is_none());
}

/// Panics in its second call.
struct Fragile(AtomicBool);

impl Ports for Fragile {
    fn apply(&self, wanted: &[(PortId, SocketAddr, PortProtocol)]) -> Vec<(PortId, String)> {
        assert!(wanted.len() != 2 || self.0.swap(true, Ordering::Relaxed), "the test's panic");
        Vec::new()
    }
}

#[test]
fn a_panic_while_publishing_spoils_nothing_for_the_next() {
    let publisher = Publisher::new(Metrics::new(1), Box::new(Fragile(AtomicBool::new(false))));
    let mut ports = one_port();
    publisher.publish(model(ports.clone(), vec![host_route("a")]));
    ports.push(port(81, &[("other", "*")]));
    let two = model(ports, vec![host_route("a"), host_route("b")]);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| publisher.publish(two.clone())));
    assert!(panicked.is_err());
    assert!(rule_of(&publisher, "a.example").is_ok(), "what was served is served");
    publisher.publish(two);
    assert!(rule_of(&publisher, "a.example").is_ok());
    assert!(rule_of(&publisher, "b.example").is_ok());
}

#[test]
fn no_request_misses_a_route_that_is_in_every_model() {
    let publisher = publisher();
    publisher.publish(model(one_port(), vec![host_route("steady")]));
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (mut reader, done) = (publisher.reader(), done.clone());
            thread::spawn(move || {
                let mut requests = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    get(reader.current().port(&port_id(80)).unwrap(), "steady.example").unwrap();
                    requests += 1;
                }
                requests
            })
        })
        .collect();
    for round in 0..300 {
        let mut steady = host_route("steady");
        steady.created = round;
        let others = (0..round % 70).map(|index| host_route(&format!("r{index}")));
        publisher.publish(model(one_port(), others.chain([steady]).collect()));
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
}

fn table(publisher: &Publisher) -> Arc<PortTable> {
    publisher.reader().current().port(&port_id(80)).unwrap().clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever was published before, in whatever order routes came, changed and went: only the last model counts.
    #[test]
    fn edits_end_where_a_full_compile_does(models in prop::collection::vec(any_model(), 2..5)) {
        let (edited, full) = (publisher(), publisher());
        for model in &models {
            edited.publish(model.clone());
        }
        full.publish(models.last().unwrap().clone());
        let (edited, full) = (table(&edited), table(&full));
        for request in requests() {
            prop_assert_eq!(find(&edited, &request), find(&full, &request), "{:?}", request);
        }
    }

    /// Swapping endpoints one by one is the same as publishing a model that has them.
    #[test]
    fn endpoint_updates_equal_a_full_rebuild(
        updates in prop::collection::vec((0usize..3, prop::collection::vec(1u16..5, 0..3)), 0..8),
    ) {
        let names = ["a", "b", "c"];
        let mut whole = model(one_port(), names.iter().map(|name| host_route(name)).collect());
        let (swapped, rebuilt) = (publisher(), publisher());
        swapped.publish(whole.clone());
        for (name, ports) in &updates {
            let id = backend_id(names[*name]);
            whole.endpoints.insert(id.clone(), endpoints(ports));
            swapped.publish_endpoints(&id, endpoints(ports));
        }
        rebuilt.publish(whole.clone());
        for name in names {
            let of = |publisher| targets(&rule_of(publisher, &format!("{name}.example")).unwrap());
            prop_assert_eq!(of(&swapped), of(&rebuilt));
        }
        prop_assert_eq!(&*swapped.model(), &whole);
        prop_assert_eq!(&*rebuilt.model(), &whole);
    }
}

#[test]
fn a_listener_that_moves_to_another_port_takes_its_routes_along() {
    let publisher = publisher();
    publisher.publish(model(one_port(), vec![host_route("a")]));
    publisher.publish(model(vec![port(81, &[("http", "*")])], vec![host_route("a")]));
    let mut edited = host_route("a");
    edited.listeners = edited.listeners.iter().cloned().chain([listener_id("http")]).collect();
    edited.created = 1;
    publisher.publish(model(vec![port(81, &[("http", "*")])], vec![edited, host_route("b")]));
    let mut reader = publisher.reader();
    let table = reader.current().port(&port_id(81)).unwrap();
    assert!(get(table, "a.example").is_ok());
    assert!(get(table, "b.example").is_ok());
    publisher.publish(model(vec![port(81, &[("http", "*")])], vec![]));
    let table = reader.current().port(&port_id(81)).unwrap();
    assert_eq!(
        get(table, "a.example").map(drop),
        Err(Rejection::NoRoute),
        "listed twice, removed once and for all"
    );
}
