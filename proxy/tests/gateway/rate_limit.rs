//! Rate limits over real connections: who passes, what clients are told, and what an edit leaves as it was.

use crate::harness::{Backend, Client, Gateway, Response, Setup, soon, to};
use headgate_proxy::model::{
    Algorithm, Exemption, KeyPart, LimitHeaders, LimitResponse, ListenerId, ObjectName, OnMissingKey,
    Policies, Rate, RateLimit, RateLimits, RateOverride, RouteKind, ScopedPolicies, thin_vec,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

pub const HOUR: Duration = Duration::from_secs(3600);

pub fn limit(name: &str, limit: u32, window: Duration) -> RateLimit {
    RateLimit {
        name: name.into(),
        policy: ObjectName::new("test", "policy"),
        scope: "all".into(),
        shadow: false,
        when: vec![],
        key: vec![],
        on_missing_key: OnMissingKey::Skip,
        rates: vec![Rate { limit, window }],
        burst: None,
        algorithm: Algorithm::TokenBucket,
        concurrency: None,
        cost: None,
        exempt: Exemption::default(),
        overrides: vec![],
    }
}

fn limits(limits: Vec<RateLimit>) -> RateLimits {
    RateLimits { limits, response: LimitResponse::default(), store: None }
}

/// Puts limits on every route of a setup.
pub fn put(setup: &mut Setup, limits: RateLimits) {
    setup.govern(Policies { rate_limits: Some(limits), ..Policies::default() });
}

async fn limited(all: RateLimits) -> (Backend, Setup, Gateway) {
    let backend = Backend::named("real").await;
    let mut setup = Setup::only(&[backend.address]);
    put(&mut setup, all);
    let gateway = setup.start();
    (backend, setup, gateway)
}

async fn get(client: &mut Client<tokio::net::TcpStream>, path: &str, fields: &str) -> Response {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n")).await;
    client.response().await
}

/// How many of ten requests pass.
pub async fn pass(gateway: &Gateway, path: &str, fields: &str) -> usize {
    let mut client = gateway.client().await;
    let mut passed = 0;
    for _ in 0..10 {
        passed += usize::from(get(&mut client, path, fields).await.status() == 200);
    }
    passed
}

#[tokio::test]
async fn clients_are_told_of_their_limit_until_it_is_used_up() {
    let (_backend, _, gateway) = limited(limits(vec![limit("per-hour", 3, HOUR)])).await;
    let mut client = gateway.client().await;
    for left in [2, 1, 0] {
        let answer = client.get("/").await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "real"));
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(left.to_string().as_str()));
        assert_eq!(answer.header("ratelimit-policy"), Some("\"per-hour\";q=3;w=3600"));
        let told = answer.header("ratelimit").unwrap();
        assert!(told.starts_with(&format!("\"per-hour\";r={left};t=")), "{told}");
        assert_eq!(answer.header("retry-after"), None);
    }
    let refused = client.get("/").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1190..=1200).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    // The connection goes on.
    assert_eq!(client.get("/").await.status(), 429);
    let series =
        "headgate_rate_limit_requests_total{namespace=\"test\",policy=\"policy\",limit=\"per-hour\",";
    assert_eq!(gateway.metric(&format!("{series}outcome=\"passed\"")).await, 3.0);
    assert_eq!(gateway.metric(&format!("{series}outcome=\"limited\"")).await, 2.0);
    assert_eq!(gateway.metric("headgate_rejections_total{reason=\"rate_limited\"").await, 2.0);
    assert_eq!(gateway.metric("headgate_rate_limit_keys").await, 1.0);
}

/// With two threads and a limit of 50, exactly 50 pass.
#[tokio::test]
async fn threads_share_a_limit() {
    let (_backend, _, gateway) = limited(limits(vec![limit("all", 50, HOUR)])).await;
    let clients = (0..20).map(|_| pass(&gateway, "/", ""));
    let passed: usize = soon(futures_util::future::join_all(clients)).await.into_iter().sum();
    assert_eq!(passed, 50);
}

#[tokio::test]
async fn counters_outlive_edits_that_leave_key_and_window() {
    let (backend, mut setup, gateway) = limited(limits(vec![limit("all", 4, HOUR)])).await;
    for _ in 0..2 {
        assert_eq!(gateway.get("/").await.status(), 200);
    }
    // Another route of the same scope, and twice as many an hour: what was half empty still is.
    setup.backend("other", headgate_proxy::model::BackendProtocol::Http1, &[backend.address]);
    setup.route("other", "/other", to("other"));
    put(&mut setup, limits(vec![limit("all", 8, HOUR)]));
    gateway.publish(&setup);
    assert_eq!(pass(&gateway, "/other", "").await, 4);
    assert_eq!(pass(&gateway, "/", "").await, 0);
    // Another key is another count.
    put(&mut setup, limits(vec![RateLimit { key: vec![KeyPart::Method], ..limit("all", 6, HOUR) }]));
    gateway.publish(&setup);
    assert_eq!(pass(&gateway, "/", "").await, 6);
}

#[tokio::test]
async fn keys_are_counted_apart() {
    let parts = [
        (KeyPart::Header("X-Key".into()), "/", "X-Key: a\r\n", "/", "X-Key: b\r\n"),
        (KeyPart::Cookie("id".into()), "/", "Cookie: x=1; id=a\r\n", "/", "Cookie: id=b\r\n"),
        (KeyPart::Query("id".into()), "/?x=1&id=a", "", "/?id=b", ""),
        (KeyPart::Path, "/a", "", "/b", ""),
        (KeyPart::Expression("request.path + 'x'".into()), "/a", "", "/b", ""),
    ];
    for (part, path, fields, other_path, other_fields) in parts {
        let (_backend, _, gateway) = limited(limits(vec![RateLimit {
            key: vec![KeyPart::ClientIp { ipv4_prefix: 32, ipv6_prefix: 64 }, part.clone()],
            ..limit("keyed", 2, HOUR)
        }]))
        .await;
        assert_eq!(pass(&gateway, path, fields).await, 2, "{part:?}");
        assert_eq!(pass(&gateway, other_path, other_fields).await, 2, "{part:?}");
    }
}

/// Fields of ours are there when somebody asks for them, and clients don't say what is in them.
#[tokio::test]
async fn keys_may_be_of_what_we_say() {
    let ours = [
        KeyPart::Header("X-Real-IP".into()),
        KeyPart::Expression("request.headers['x-forwarded-for']".into()),
    ];
    for part in ours {
        let limit = RateLimit { key: vec![part.clone()], ..limit("keyed", 2, HOUR) };
        let limit = RateLimit { on_missing_key: OnMissingKey::Reject, ..limit };
        let (_backend, _, gateway) = limited(limits(vec![limit])).await;
        assert_eq!(pass(&gateway, "/", "").await, 2, "{part:?}");
        assert_eq!(
            pass(&gateway, "/", "X-Real-IP: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\n").await,
            0,
            "{part:?}"
        );
    }
}

#[tokio::test]
async fn requests_without_a_key_are_skipped_shared_or_refused() {
    for (on_missing_key, passing) in
        [(OnMissingKey::Skip, 10), (OnMissingKey::Shared, 2), (OnMissingKey::Reject, 0)]
    {
        let keyed = RateLimit {
            key: vec![KeyPart::Header("x-key".into())],
            on_missing_key,
            ..limit("keyed", 2, HOUR)
        };
        let (_backend, _, gateway) = limited(limits(vec![keyed])).await;
        assert_eq!(pass(&gateway, "/", "").await, passing, "{on_missing_key:?}");
        assert_eq!(pass(&gateway, "/", "X-Key: a\r\n").await, 2);
    }
}

#[tokio::test]
async fn all_limits_must_let_it_pass_and_the_tightest_is_told() {
    let hourly = RateLimit {
        rates: vec![
            Rate { limit: 100, window: Duration::from_secs(86_400) },
            Rate { limit: 5, window: HOUR },
        ],
        algorithm: Algorithm::SlidingWindow,
        ..limit("plan", 0, HOUR)
    };
    let post = RateLimit { when: vec!["request.path.startsWith('/post')".into()], ..limit("posts", 2, HOUR) };
    let (_backend, _, gateway) = limited(limits(vec![hourly, post])).await;
    assert_eq!(pass(&gateway, "/post", "").await, 2);
    let mut client = gateway.client().await;
    let answer = client.get("/").await;
    assert_eq!(answer.header("ratelimit-policy"), Some("\"plan\";q=5;w=3600"));
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("2"));
    // What didn't pass wasn't counted.
    assert_eq!(pass(&gateway, "/", "").await, 2);
}

#[tokio::test]
async fn some_are_exempt_some_have_another_rate_and_some_cost_more() {
    let tiered = RateLimit {
        key: vec![KeyPart::Header("x-key".into())],
        exempt: Exemption {
            cidrs: vec!["10.0.0.0/8".into()],
            when: vec!["'x-free' in request.headers".into()],
        },
        overrides: vec![
            RateOverride {
                name: "gold".into(),
                when: vec!["request.headers['x-tier'] == 'gold'".into()],
                rates: vec![Rate { limit: 7, window: HOUR }],
                burst: None,
            },
            RateOverride {
                name: "staff".into(),
                when: vec!["request.headers['x-tier'] == 'staff'".into()],
                rates: vec![],
                burst: None,
            },
        ],
        cost: Some("request.path == '/dear' ? 2 : 1".into()),
        ..limit("tiers", 4, HOUR)
    };
    let (_backend, _, gateway) = limited(limits(vec![tiered])).await;
    assert_eq!(pass(&gateway, "/", "X-Key: a\r\n").await, 4);
    assert_eq!(pass(&gateway, "/dear", "X-Key: b\r\n").await, 2);
    assert_eq!(pass(&gateway, "/", "X-Key: a\r\nX-Free: 1\r\n").await, 10);
    assert_eq!(pass(&gateway, "/", "X-Key: a\r\nX-Tier: gold\r\n").await, 7);
    assert_eq!(pass(&gateway, "/", "X-Key: a\r\nX-Tier: staff\r\n").await, 10);
    let exempt = RateLimit {
        exempt: Exemption { cidrs: vec!["127.0.0.0/8".into()], when: vec![] },
        ..limit("all", 1, HOUR)
    };
    let (_backend, _, gateway) = limited(limits(vec![exempt])).await;
    assert_eq!(pass(&gateway, "/", "").await, 10);
}

#[tokio::test]
async fn a_limit_in_shadow_only_tells_the_metrics() {
    let shadow = RateLimit { shadow: true, ..limit("shadow", 1, HOUR) };
    let (_backend, _, gateway) = limited(limits(vec![shadow])).await;
    let answer = gateway.get("/").await;
    assert_eq!((answer.status(), answer.header("ratelimit")), (200, None));
    assert_eq!(pass(&gateway, "/", "").await, 10);
    assert_eq!(gateway.metric("headgate_rate_limit_requests_total{namespace=\"test\",policy=\"policy\",limit=\"shadow\",outcome=\"shadow\"").await, 10.0);
}

#[tokio::test]
async fn the_policy_says_status_and_fields() {
    for (headers, standard, legacy) in [
        (LimitHeaders::Standard, true, false),
        (LimitHeaders::Legacy, false, true),
        (LimitHeaders::Both, true, true),
        (LimitHeaders::None, false, false),
    ] {
        let mut all = limits(vec![limit("all", 1, HOUR)]);
        all.response = LimitResponse { status: 503, headers };
        let (_backend, _, gateway) = limited(all).await;
        assert_eq!(gateway.get("/").await.status(), 200);
        let refused = gateway.get("/").await;
        assert_eq!(refused.status(), 503);
        assert!(refused.text().contains("\"status\":503"), "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
        let has = |name| refused.header(name).is_some();
        assert_eq!([has("ratelimit"), has("ratelimit-policy")], [standard; 2], "{headers:?}");
        assert_eq!([has("x-ratelimit-limit"), has("x-ratelimit-reset")], [legacy; 2], "{headers:?}");
    }
}

#[tokio::test]
async fn what_is_in_flight_counts_until_its_answer_ends() {
    let (go, going) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (wait, tell) = (go.clone(), going.clone());
    let backend = Backend::raw(move |mut stream, _| {
        let (wait, tell) = (wait.clone(), tell.clone());
        async move {
            let mut client = Client::new(&mut stream);
            while client.message(false).await.is_some() {
                client.io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha").await.unwrap();
                tell.notify_one();
                wait.notified().await;
                client.io.write_all(b"lf").await.unwrap();
            }
        }
    })
    .await;
    let mut setup = Setup::only(&[backend.address]);
    put(&mut setup, limits(vec![RateLimit { rates: vec![], concurrency: Some(1), ..limit("one", 0, HOUR) }]));
    let gateway = setup.start();
    let mut first = gateway.client().await;
    first.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    soon(going.notified()).await;
    let refused = gateway.get("/").await;
    assert_eq!((refused.status(), refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"one\";q=1;qu=\"concurrent-requests\""));
    go.notify_one();
    assert_eq!(first.response().await.text(), "half");
    go.notify_one();
    assert_eq!(first.get("/").await.status(), 200);
}

#[tokio::test]
async fn policies_hold_for_their_listeners_alone() {
    let backend = Backend::named("real").await;
    let mut setup = Setup::only(&[backend.address]);
    let elsewhere = ListenerId {
        gateway: ObjectName::new("test", "gateway"),
        listener_set: None,
        name: "elsewhere".into(),
    };
    for route in setup.model.routes.values_mut() {
        let policies =
            Policies { rate_limits: Some(limits(vec![limit("all", 1, HOUR)])), ..Policies::default() };
        let scoped = ScopedPolicies { listeners: vec![elsewhere.clone()], policies: Arc::new(policies) };
        Arc::make_mut(route).rules[0].policies = thin_vec![scoped];
    }
    let gateway = setup.start();
    assert_eq!(pass(&gateway, "/", "").await, 10);
}

#[tokio::test]
async fn calls_of_grpc_are_told_in_their_own_words() {
    let backend = Backend::named("real").await;
    let mut setup = Setup::http();
    setup.backend("only", headgate_proxy::model::BackendProtocol::Http1, &[backend.address]);
    setup.grpc_route("all", to("only"));
    assert!(setup.model.routes.keys().all(|id| id.kind == RouteKind::Grpc));
    put(&mut setup, limits(vec![limit("none", 1, HOUR)]));
    let gateway = setup.start();
    let mut client = gateway.client().await;
    let fields = "Content-Type: application/grpc\r\nTE: trailers\r\n";
    get(&mut client, "/s/m", fields).await;
    let refused = get(&mut client, "/s/m", fields).await;
    assert_eq!((refused.status(), refused.header("grpc-status")), (200, Some("8")));
    assert!(refused.header("retry-after").is_some());
}
