//! Which rule takes a request: each sentence of the specification, and the whole against a naive reading of it.

pub(crate) mod naive;

use super::*;
use crate::metrics::Metrics;
use crate::model::{Action as A, Failure, Match, Model, Route, Target, WeightedBackend, thin_vec};
use crate::rejection::Malformed;
use crate::sample::{
    NoSockets, backend_id, certificate, exact, listener_id, model, port, port_id, prefix, regex, route, rule,
    tls_port, value,
};
use crate::snapshot::Publisher;
use http::HeaderValue;

/// A published model, to ask questions of.
struct Served {
    table: Arc<PortTable>,
}

fn serve(model: Model) -> Served {
    let id = model.ports.keys().next().unwrap().clone();
    let publisher = Publisher::new(Metrics::new(1), Box::new(NoSockets));
    publisher.publish(model);
    let table = publisher.reader().current().port(&id).unwrap().clone();
    Served { table }
}

/// A plain request to `host/path?query` with fields.
struct Ask<'a> {
    sni: Option<&'a str>,
    method: Method,
    headers: &'a [(&'static str, &'static str)],
}

const GET: Ask<'static> = Ask { sni: None, method: Method::GET, headers: &[] };

impl Served {
    fn ask(&self, target: &str, ask: &Ask<'_>) -> Result<String, Rejection> {
        let (target, query) =
            target.split_once('?').map_or((target, None), |(target, query)| (target, Some(query)));
        let (host, path) = target.split_at(target.find('/').unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in ask.headers {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let head =
            Head { host, sni: ask.sni, method: &ask.method, path, query, headers: &headers, ours: None };
        let found = self.table.find(&head)?;
        Ok(format!("{}/{}", found.rule.id.route.name.name, found.rule.id.index))
    }

    /// Route and rule that take a GET, or the rejection.
    fn get(&self, target: &str) -> Result<String, Rejection> {
        self.ask(target, &GET)
    }
}

fn found(rule: &str) -> Result<String, Rejection> {
    Ok(rule.to_owned())
}

/// A route with one rule for all of `matches`.
fn simple(name: &str, matches: Vec<Match>) -> Route {
    route(name, vec![rule(matches, name)])
}

fn with_hosts(mut route: Route, hosts: &[&str]) -> Route {
    route.hostnames = hosts.iter().map(|host| HostPattern::parse(host)).collect();
    route
}

fn on(mut route: Route, listeners: &[&str]) -> Route {
    route.listeners = listeners.iter().map(|name| listener_id(name)).collect();
    route
}

#[test]
fn the_listener_with_the_most_specific_hostname_serves_and_no_wider_one_is_tried() {
    let listeners =
        [("any", "*"), ("wild", "*.example.com"), ("deep", "*.a.example.com"), ("one", "x.example.com")];
    let routes = ["any", "wild", "deep", "one"]
        .map(|name| on(simple(name, vec![prefix(&format!("/{name}"))]), &[name]));
    let served = serve(model(vec![port(80, &listeners)], routes.to_vec()));
    for (host, listener) in [
        ("x.example.com", "one"),
        ("y.example.com", "wild"),
        ("y.a.example.com", "deep"),
        ("a.example.com", "wild"),
        ("example.com", "any"),
    ] {
        assert_eq!(served.get(&format!("{host}/{listener}")), found(&format!("{listener}/0")));
        for other in ["any", "wild", "deep", "one"].into_iter().filter(|other| *other != listener) {
            assert_eq!(served.get(&format!("{host}/{other}")), Err(Rejection::NoRoute), "{host} {other}");
        }
    }
}

#[test]
fn a_host_that_no_listener_serves_is_not_found() {
    let served =
        serve(model(vec![port(80, &[("http", "*.example.com")])], vec![simple("a", vec![prefix("/")])]));
    assert_eq!(served.get("example.com/"), Err(Rejection::NoListener));
    assert_eq!(served.get("/"), Err(Rejection::NoListener));
}

#[test]
fn the_host_must_belong_to_the_listener_of_the_handshake() {
    let listeners = [
        ("a", "a.example", certificate("a")),
        ("b", "b.example", certificate("b")),
        ("w", "*.w.example", certificate("w")),
    ];
    let route = on(simple("r", vec![prefix("/")]), &["a", "b", "w"]);
    let served = serve(model(vec![tls_port(443, &listeners)], vec![route]));
    let ask = |sni, target: &str| served.ask(target, &Ask { sni, ..GET });
    assert_eq!(ask(Some("a.example"), "a.example/"), found("r/0"));
    assert_eq!(ask(Some("a.example"), "b.example/"), Err(Rejection::Misdirected));
    assert_eq!(ask(None, "a.example/"), Err(Rejection::Misdirected));
    assert_eq!(ask(Some("x.w.example"), "y.w.example/"), found("r/0"), "another host of the same listener");
    assert_eq!(ask(Some("a.example"), "c.example/"), Err(Rejection::NoListener));
}

#[test]
fn routes_are_tried_by_hostname_as_written_and_a_miss_goes_on() {
    let routes = vec![
        with_hosts(simple("exact", vec![prefix("/exact")]), &["x.a.example.com"]),
        with_hosts(simple("long", vec![prefix("/long"), prefix("/exact")]), &["*.a.example.com"]),
        with_hosts(simple("short", vec![prefix("/")]), &["*.example.com"]),
        with_hosts(simple("any", vec![exact("/exact"), exact("/none"), prefix("/")]), &["*"]),
    ];
    let served = serve(model(vec![port(80, &[("http", "*")])], routes));
    assert_eq!(served.get("x.a.example.com/exact"), found("exact/0"), "host before the better path");
    assert_eq!(served.get("y.a.example.com/exact"), found("long/0"));
    assert_eq!(served.get("x.a.example.com/long"), found("long/0"));
    assert_eq!(served.get("x.a.example.com/none"), found("short/0"));
    assert_eq!(served.get("example.com/none"), found("any/0"));
}

#[test]
fn exact_before_regex_before_the_longest_prefix() {
    let rules = vec![
        rule(vec![prefix("/")], "a"),
        rule(vec![prefix("/a")], "a"),
        rule(vec![prefix("/a/b")], "a"),
        rule(vec![regex("/a/b/.*")], "a"),
        rule(vec![regex("/a/b/[a-z]+")], "a"),
        rule(vec![exact("/a/b/c")], "a"),
    ];
    let served = serve(model(vec![port(80, &[("http", "*")])], vec![route("r", rules)]));
    for (path, index) in [
        ("/a/b/c", 5),
        ("/a/b/d", 4),
        ("/a/b/0", 3),
        ("/a/b", 2),
        ("/a/c", 1),
        ("/ab", 0),
        ("/", 0),
        ("/a/", 1),
    ] {
        assert_eq!(served.get(&format!("h{path}")), found(&format!("r/{index}")), "{path}");
    }
}

#[test]
fn prefixes_match_whole_segments_and_ignore_a_final_slash() {
    let served = serve(model(vec![port(80, &[("http", "*")])], vec![simple("r", vec![prefix("/a/b/")])]));
    for path in ["/a/b", "/a/b/", "/a/b/c", "/a/b//c"] {
        let answer = served.get(&format!("h{path}"));
        assert_eq!(answer, found("r/0"), "{path}");
    }
    for path in ["/a/bc", "/a", "/", "/a/B"] {
        assert_eq!(served.get(&format!("h{path}")), Err(Rejection::NoRoute), "{path}");
    }
}

#[test]
fn very_deep_prefixes_are_found() {
    let deep = "/x".repeat(70);
    let served = serve(model(vec![port(80, &[("http", "*")])], vec![simple("r", vec![prefix(&deep)])]));
    assert_eq!(served.get(&format!("h{deep}/y/z")), found("r/0"));
    assert_eq!(served.get(&format!("h{}", "/x".repeat(69))), Err(Rejection::NoRoute));
}

#[test]
fn patterns_match_in_the_normal_form_of_requests() {
    let served =
        serve(model(vec![port(80, &[("http", "*")])], vec![simple("r", vec![exact("/%7eme/%c3%a9")])]));
    let path = crate::path::normalise("/%7Eme/%C3%a9").unwrap();
    assert_eq!(served.get(&format!("h{path}")), found("r/0"));
}

#[test]
fn regexes_match_the_whole_path() {
    let served = serve(model(vec![port(80, &[("http", "*")])], vec![simple("r", vec![regex("/a|/b")])]));
    assert_eq!(served.get("h/b"), found("r/0"));
    assert_eq!(served.get("h/ab"), Err(Rejection::NoRoute));
    assert_eq!(served.get("h/b/c"), Err(Rejection::NoRoute));
}

#[test]
fn prefix_len_is_what_a_prefix_rewrite_replaces() {
    let matches = vec![prefix("/a/b"), prefix("/"), exact("/x"), regex("/r.*")];
    let served = serve(model(vec![port(80, &[("http", "*")])], vec![simple("r", matches)]));
    for (path, len) in [("/a/b/c", 4), ("/a/b", 4), ("/z", 0), ("/x", 2), ("/rest", 5)] {
        let head = Head {
            host: "h",
            sni: None,
            method: &Method::GET,
            path,
            query: None,
            headers: &HeaderMap::new(),
            ours: None,
        };
        assert_eq!(served.table.find(&head).unwrap().prefix_len, len, "{path}");
    }
}

#[test]
fn more_conditions_win_and_a_miss_goes_on_to_fewer() {
    let plain = || prefix("/");
    let method = || Match { method: Some("GET".into()), ..plain() };
    let header = || Match { headers: thin_vec![value("x-a", "1")], ..plain() };
    let headers = || Match { headers: thin_vec![value("x-a", "1"), value("x-b", "2")], ..plain() };
    let query = || Match { query: thin_vec![value("q", "1")], ..plain() };
    let rules = [plain(), query(), header(), headers(), method()].map(|one| rule(vec![one], "a"));
    let served = serve(model(vec![port(80, &[("http", "*")])], vec![route("r", rules.to_vec())]));
    let post = |target: &str, headers| served.ask(target, &Ask { method: Method::POST, headers, ..GET });
    assert_eq!(served.ask("h/?q=1", &Ask { headers: &[("x-a", "1"), ("x-b", "2")], ..GET }), found("r/4"));
    assert_eq!(post("h/?q=1", &[("x-a", "1"), ("x-b", "2")]), found("r/3"));
    assert_eq!(post("h/?q=1", &[("x-a", "1"), ("x-b", "3")]), found("r/2"));
    assert_eq!(post("h/?q=1", &[]), found("r/1"));
    assert_eq!(post("h/?q=2", &[]), found("r/0"));
}

#[test]
fn equal_matches_go_to_the_older_then_the_first_by_name_then_the_first_rule() {
    let both = |name: &str, created| {
        let mut route = route(name, vec![rule(vec![prefix("/")], "a"), rule(vec![prefix("/")], "a")]);
        route.created = created;
        route
    };
    let ports = || vec![port(80, &[("http", "*")])];
    assert_eq!(serve(model(ports(), vec![both("a", 2), both("z", 1)])).get("h/"), found("z/0"));
    assert_eq!(serve(model(ports(), vec![both("b", 1), both("a", 1)])).get("h/"), found("a/0"));
}

#[test]
fn a_path_that_a_lax_backend_reads_as_another_rules_is_refused() {
    let rules = vec![rule(vec![prefix("/")], "open"), rule(vec![prefix("/admin")], "closed")];
    let served = serve(model(vec![port(80, &[("http", "*")])], vec![route("r", rules)]));
    for path in
        ["//admin", "/x/..%2Fadmin", "/admin;a=b/c", "/x/..;/admin", "/x%5C..%5Cadmin", "/admin/..%2Fx"]
    {
        assert_eq!(
            served.get(&format!("h{path}")),
            Err(Rejection::Malformed(Malformed::AmbiguousPath)),
            "{path}"
        );
    }
    assert_eq!(served.get("h/files//a;b%2Fc"), found("r/0"), "all readings are the same rule's");
    assert_eq!(served.get("h/admin//x"), found("r/1"));
}

#[test]
fn trace_is_for_rules_that_name_it() {
    let named = Match { method: Some("TRACE".into()), ..prefix("/trace") };
    let served = serve(model(vec![port(80, &[("http", "*")])], vec![simple("r", vec![prefix("/"), named])]));
    let trace = |target: &str| served.ask(target, &Ask { method: Method::TRACE, ..GET });
    assert_eq!(trace("h/"), Err(Rejection::MethodNotAllowed));
    assert_eq!(trace("h/trace"), found("r/0"));
}

fn action_of(served: &Served, path: &str) -> Result<(), Rejection> {
    let head = Head {
        host: "h",
        sni: None,
        method: &Method::GET,
        path,
        query: None,
        headers: &HeaderMap::new(),
        ours: None,
    };
    match &served.table.find(&head)?.rule.action {
        Action::Forward(split) => split.pick(0).target.as_ref().map(drop).map_err(|rejection| *rejection),
        Action::Redirect(_) => Ok(()),
        Action::Fail(rejection) => Err(*rejection),
    }
}

#[test]
fn what_cannot_be_compiled_answers_500_where_it_would_have_matched() {
    let broken_header = Match {
        headers: thin_vec![crate::model::ValueMatch {
            name: "x".into(),
            value: crate::model::StringMatch::Regex("(".into()),
        }],
        ..prefix("/header")
    };
    let mut filter = rule(vec![prefix("/filter")], "a");
    filter.filters = thin_vec![crate::model::Filter::Rewrite(crate::model::Rewrite {
        hostname: Some("a b".into()),
        path: None,
    })];
    let mut redirect = rule(vec![prefix("/redirect")], "a");
    redirect.action = A::Redirect(Box::new(crate::model::Redirect {
        scheme: None,
        hostname: None,
        port: None,
        path: None,
        status: 200,
    }));
    let rules = vec![
        rule(vec![broken_header], "a"),
        rule(vec![regex("["), prefix("/regex")], "a"),
        filter,
        redirect,
        rule(vec![prefix("/fine")], "a"),
    ];
    let served = serve(model(vec![port(80, &[("http", "*")])], vec![route("r", rules)]));
    let failed = |failure| Err(Rejection::Config(failure));
    assert_eq!(action_of(&served, "/header"), failed(Failure::InvalidMatch));
    assert_eq!(action_of(&served, "/regex"), failed(Failure::InvalidMatch));
    assert_eq!(action_of(&served, "/filter"), failed(Failure::InvalidFilter));
    assert_eq!(action_of(&served, "/redirect"), failed(Failure::InvalidFilter));
    assert_eq!(action_of(&served, "/fine"), Ok(()));
}

#[test]
fn regexes_are_checked_as_they_are_compiled() {
    for pattern in ["/a.*", "", "(?i)abc", r"\w{2,5}"] {
        check_regex(pattern).unwrap();
    }
    for pattern in ["(", "a)(b", "[", r"(\w{100}){100}{100}"] {
        assert!(check_regex(pattern).unwrap_err().contains("regular expression"), "{pattern}");
    }
}

/// Shares of a rule's backends, by what they answer with.
fn shares(weights: &[(Option<&str>, u32)]) -> Vec<(String, u32)> {
    let backends = weights.iter().map(|(name, weight)| {
        let failed = Target::Fail(Failure::BackendNotFound);
        WeightedBackend::new(name.map_or(failed, |name| Target::Backend(backend_id(name))), *weight)
    });
    let mut one = rule(vec![prefix("/")], "x");
    one.action = A::Forward(backends.collect());
    let served = serve(model(vec![port(80, &[("http", "*")])], vec![route("r", vec![one])]));
    let head = Head {
        host: "h",
        sni: None,
        method: &Method::GET,
        path: "/",
        query: None,
        headers: &HeaderMap::new(),
        ours: None,
    };
    let found = served.table.find(&head).unwrap();
    let Action::Forward(split) = &found.rule.action else { panic!("{:?}", found.rule.action) };
    let mut counts = std::collections::BTreeMap::new();
    // Every 2^22nd number: 1,024 of them, spread evenly.
    for random in (0..=u32::MAX).step_by(1 << 22) {
        let name = match &split.pick(random).target {
            Ok(backend) => backend.id().name.name.to_string(),
            Err(rejection) => rejection.reason().to_owned(),
        };
        *counts.entry(name).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

#[test]
fn backends_get_their_weights() {
    let pair = |name: &str, count| (name.to_owned(), count);
    assert_eq!(shares(&[(Some("a"), 3), (Some("b"), 1)]), [pair("a", 768), pair("b", 256)]);
    assert_eq!(shares(&[(Some("a"), 1), (Some("b"), 0)]), [pair("a", 1024)]);
    assert_eq!(shares(&[(Some("a"), 7)]), [pair("a", 1024)]);
    assert_eq!(shares(&[(Some("a"), 1), (None, 1)]), [pair("a", 512), pair("config_backend_not_found", 512)]);
    assert_eq!(shares(&[(Some("a"), u32::MAX), (Some("b"), u32::MAX)]), [pair("a", 512), pair("b", 512)]);
    assert_eq!(shares(&[(Some("a"), 0), (Some("b"), 0)]), [pair("config_no_backends", 1024)]);
    assert_eq!(shares(&[]), [pair("config_no_backends", 1024)]);
}

const ECDSA: [SignatureScheme; 1] = [SignatureScheme::ECDSA_NISTP256_SHA256];

/// The certificate that a TLS connection for HTTP gets.
fn received(table: &PortTable, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
    match table.receive(sni, &ECDSA)? {
        Reception::Http(certificate, _) => Some(certificate.key(false).clone()),
        Reception::Terminate(..) | Reception::Passthrough(_) => panic!("the listener is of HTTP"),
    }
}

#[test]
fn certificates_are_chosen_by_server_name() {
    let (a, wild) = (certificate("a.example"), certificate("*.example"));
    let served = serve(model(
        vec![tls_port(443, &[("a", "a.example", a.clone()), ("w", "*.example", wild.clone())])],
        vec![],
    ));
    let leaf = |sni| received(&served.table, sni).map(|key| key.cert.clone());
    let wanted = |certificate| Some(parse_certificate(certificate).unwrap().cert.clone());
    assert_eq!(leaf(Some("a.example")), wanted(&a));
    assert_eq!(leaf(Some("b.example")), wanted(&wild));
    assert_eq!(leaf(Some("example")), None);
    assert_eq!(leaf(None), None);
}

#[test]
fn a_new_certificate_is_served_a_bad_one_is_not_and_an_equal_one_is_not_read_again() {
    let publisher = Publisher::new(Metrics::new(1), Box::new(NoSockets));
    let mut reader = publisher.reader();
    let mut serve = |certificate: &model::Certificate, host: &str| {
        publisher.publish(model(vec![tls_port(443, &[("a", host, certificate.clone())])], vec![]));
        let table = reader.current().port(&port_id(443)).unwrap();
        received(table, Some("a.example")).unwrap()
    };
    let (one, two) = (certificate("a.example"), certificate("a.example"));
    let bad = model::Certificate { chain: two.chain.clone(), ..one.clone() };
    let first = serve(&one, "a.example");
    assert!(Arc::ptr_eq(&first, &serve(&one, "*.example")), "the port changed, the certificate didn't");
    assert!(Arc::ptr_eq(&first, &serve(&bad, "a.example")), "key and chain don't belong together");
    let second = serve(&two, "a.example");
    assert_ne!(first.cert, second.cert);
}
