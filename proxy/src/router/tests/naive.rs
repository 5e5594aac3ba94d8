//! `find` against a naive reading of the precedence rules: every match of every route is looked at, and the best kept.

use super::*;
use crate::model::{PathMatch, Rule as ModelRule};
use crate::router::precedence::{Rank, Seniority};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::sync::LazyLock;

const HOSTS: [&str; 5] = ["a.b", "c.a.b", "d.c.a.b", "b", "x"];
const PATTERNS: [&str; 6] = ["*", "*.b", "*.a.b", "a.b", "c.a.b", "b"];
const PATHS: [&str; 7] = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b"];
const REGEXES: [&str; 4] = ["/a.*", "/.*b", "/a/[bc]", "/[ab]"];

static COMPILED: LazyLock<[regex::Regex; 4]> =
    LazyLock::new(|| REGEXES.map(|pattern| regex::Regex::new(&format!("^(?:{pattern})$")).unwrap()));

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        prop::sample::select(&PATHS[..]).prop_map(|path| PathMatch::Exact(path.into())),
        prop::sample::select(vec!["/", "/a", "/a/b", "/ab", "/b"])
            .prop_map(|path| PathMatch::Prefix(path.into())),
        prop::sample::select(&REGEXES[..]).prop_map(|path| PathMatch::Regex(path.into())),
    ]
}

fn any_match() -> impl Strategy<Value = Match> {
    let method = prop::option::of(prop::sample::select(vec!["GET", "POST"]));
    let headers = prop::sample::subsequence(vec!["x-a", "x-b"], 0..=2);
    let query = prop::sample::subsequence(vec!["p", "q"], 0..=2);
    (path_match(), method, headers, query).prop_map(|(path, method, headers, query)| Match {
        path,
        method: method.map(Into::into),
        headers: headers.into_iter().map(|name| value(name, "1")).collect(),
        query: query.into_iter().map(|name| value(name, "1")).collect(),
    })
}

fn any_rule() -> impl Strategy<Value = ModelRule> {
    prop::collection::vec(any_match(), 1..3).prop_map(|matches| rule(matches, "backend"))
}

pub(crate) fn any_route(name: &'static str) -> impl Strategy<Value = Route> {
    let hosts = prop::sample::subsequence(&PATTERNS[..], 1..=3);
    let listeners = prop::sample::subsequence(vec!["l0", "l1", "l2"], 0..=3);
    (prop::collection::vec(any_rule(), 1..3), hosts, listeners, 0i64..3).prop_map(
        move |(rules, hosts, listeners, created)| {
            let mut route = on(with_hosts(route(name, rules), &hosts), &listeners);
            route.created = created;
            route
        },
    )
}

/// Up to five routes, of which some are absent, on a port with up to three listeners.
pub(crate) fn any_model() -> impl Strategy<Value = Model> {
    let routes = ["r0", "r1", "r2", "r3", "r4"].map(|name| prop::option::of(any_route(name)));
    let patterns = prop::sample::subsequence(&PATTERNS[..], 1..=3);
    (routes, patterns).prop_map(|(routes, patterns)| {
        let listeners: Vec<_> = ["l0", "l1", "l2"].into_iter().zip(patterns).collect();
        model(vec![port(80, &listeners)], routes.into_iter().flatten().collect())
    })
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    host: &'static str,
    path: &'static str,
    method: Method,
    query: Option<&'static str>,
    headers: HeaderMap,
}

impl Request {
    pub(crate) fn head(&self) -> Head<'_> {
        let Self { host, path, method, query, headers } = self;
        Head { host, sni: None, method, path, query: *query, headers, ours: None }
    }
}

/// Every request that can make a difference to such a model.
pub(crate) fn requests() -> impl Iterator<Item = Request> {
    let headers = [&[][..], &["x-a"], &["x-b"], &["x-a", "x-b"]];
    let headers = headers.map(|names| {
        names
            .iter()
            .map(|name| (http::HeaderName::from_static(name), HeaderValue::from_static("1")))
            .collect::<HeaderMap>()
    });
    HOSTS.into_iter().flat_map(move |host| {
        let headers = headers.clone();
        PATHS.into_iter().flat_map(move |path| {
            let headers = headers.clone();
            [Method::GET, Method::POST].into_iter().flat_map(move |method| {
                let headers = headers.clone();
                [None, Some("p=1"), Some("q=1&p=1")].into_iter().flat_map(move |query| {
                    let method = method.clone();
                    headers.clone().into_iter().map(move |headers| Request {
                        host,
                        path,
                        method: method.clone(),
                        query,
                        headers,
                    })
                })
            })
        })
    })
}

/// How specific a hostname is; smaller is more.
fn host_order(pattern: &HostPattern) -> (u8, Reverse<usize>) {
    match pattern {
        HostPattern::Exact(_) => (0, Reverse(0)),
        HostPattern::Suffix(suffix) => (1, Reverse(suffix.len())),
        HostPattern::Any => (2, Reverse(0)),
    }
}

fn path_matches(condition: &PathMatch, path: &str) -> bool {
    match condition {
        PathMatch::Exact(exact) => **exact == *path,
        PathMatch::Regex(pattern) => {
            let position = REGEXES.iter().position(|regex| *regex == &**pattern).unwrap();
            COMPILED[position].is_match(path)
        }
        PathMatch::Prefix(prefix) => {
            let elements = |text: &str| text.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
            **prefix == *"/" || elements(path).starts_with(&elements(prefix))
        }
    }
}

fn holds(one: &Match, request: &Request) -> bool {
    let query = request.query.unwrap_or_default();
    path_matches(&one.path, request.path)
        && one.method.as_ref().is_none_or(|method| **method == *request.method.as_str())
        && one.headers.iter().all(|header| request.headers.contains_key(&*header.name))
        && one
            .query
            .iter()
            .all(|parameter| query.split('&').any(|pair| pair == format!("{}=1", parameter.name)))
}

/// The specification, read aloud: `listener route/rule`, or the rejection.
fn read(model: &Model, request: &Request) -> Result<String, Rejection> {
    let port = model.ports.values().next().unwrap();
    let listener = port
        .listeners
        .iter()
        .filter(|listener| listener.hostname.matches(request.host))
        .min_by_key(|listener| host_order(&listener.hostname))
        .ok_or(Rejection::NoListener)?;
    let attached = || model.routes.values().filter(|route| route.listeners.contains(&listener.id));
    let mut hostnames: Vec<_> = attached().flat_map(|route| route.hostnames.clone()).collect();
    hostnames.sort_by_key(host_order);
    for hostname in hostnames.iter().filter(|hostname| hostname.matches(request.host)) {
        let mut best: Option<(_, String)> = None;
        for route in attached().filter(|route| route.hostnames.contains(hostname)) {
            for (index, rule) in route.rules.iter().enumerate() {
                for one in rule.matches.iter().filter(|one| holds(one, request)) {
                    let path = match &one.path {
                        PathMatch::Exact(_) => (0, 0),
                        PathMatch::Regex(pattern) => (1, -(pattern.len() as i64)),
                        PathMatch::Prefix(prefix) => (2, -(prefix.len() as i64)),
                    };
                    let method = one.method.is_none();
                    let counts = (Reverse(one.headers.len()), Reverse(one.query.len()));
                    let key = (path, method, counts, route.created, route.id.name.to_string(), index);
                    if best.as_ref().is_none_or(|(other, _)| key < *other) {
                        best = Some((key, format!("{} {}/{index}", listener.id.name, route.id.name.name)));
                    }
                }
            }
        }
        if let Some((_, best)) = best {
            return Ok(best);
        }
    }
    Err(Rejection::NoRoute)
}

pub(crate) fn find(table: &PortTable, request: &Request) -> Result<String, Rejection> {
    let found = table.find(&request.head())?;
    let (rule, listener) = (&found.rule.id, &found.listener.id().name);
    Ok(format!("{listener} {}/{}", rule.route.name.name, rule.index))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn find_is_what_the_specification_says(model in any_model()) {
        let served = serve(model.clone());
        for request in requests() {
            prop_assert_eq!(find(&served.table, &request), read(&model, &request), "{:?}", request);
        }
    }

    /// A total order: antisymmetric, transitive, and no two matches of a model are equal.
    #[test]
    fn rank_is_a_total_order(model in any_model()) {
        let mut ranks = Vec::new();
        for route in model.routes.values() {
            let seniority = Arc::new(Seniority::new(route.created, &route.id));
            for (rule, index) in route.rules.iter().zip(0..) {
                for (one, alternative) in rule.matches.iter().zip(0..) {
                    ranks.push(Rank::new(one, seniority.clone(), index, alternative));
                }
            }
        }
        ranks.sort();
        for (position, rank) in ranks.iter().enumerate() {
            for other in &ranks[position + 1..] {
                prop_assert!(rank.cmp(other).is_lt());
                prop_assert!(other.cmp(rank).is_gt());
            }
        }
    }
}
