//! Rate limits that several gateways count together, in a real Redis: what holds while it is there, while it isn't, and
//! after it has come back. `hack/redis.sh` installs the server.

use crate::harness::{Backend, Gateway, Setup, soon};
use crate::rate_limit::{HOUR, limit, pass, put};
use headgate_proxy::model::{
    Algorithm, Authorities, KeyPart, LimitResponse, OnUnavailable, RateLimit, RateLimitStore, RateLimits,
    Redacted, StoreCredentials, StoreTls, StoreTopology,
};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than a loaded machine needs for an answer, and shorter than what hangs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A Redis of a test's own.
struct Redis {
    port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Redis {
    /// Starts one that keeps nothing, with these arguments behind its own.
    async fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("headgate-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut redis = Self { port, folder, arguments, process: None };
        redis.run().await;
        redis
    }

    /// Starts it, or starts it again at the same port.
    async fn run(&mut self) {
        let port = self.port.to_string();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port, "--dir"])
            .arg(&self.folder)
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is missing: hack/redis.sh installs it");
        self.process = Some(process);
        self.is_up().await;
    }

    async fn is_up(&self) {
        let up = async {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        soon(up).await;
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops it without its noticing, or lets it go on: connections stay as they are.
    fn signal(&self, which: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([which, &id]).status().unwrap().success());
    }

    /// What it says to a command in one line.
    async fn say(&self, command: &str) -> String {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        socket.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await.unwrap();
        let mut said = String::new();
        soon(socket.read_to_string(&mut said)).await.unwrap();
        said
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn store(&self) -> RateLimitStore {
        at(&self.address())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        // What is left is the system's to clear.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A port that nobody uses now.
fn free_port() -> u16 {
    // Below those that the system gives to clients, so that none takes it while a server is down; a cluster's bus is 10000
    // further up.
    loop {
        let port = 10_000 + (rand() % 12_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn rand() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0) & 0xffff) as u16
}

fn at(address: &str) -> RateLimitStore {
    RateLimitStore {
        addresses: vec![address.into()],
        topology: StoreTopology::Single,
        tls: None,
        credentials: None,
        timeout: TIMEOUT,
        key_prefix: "test:".into(),
        on_unavailable: OnUnavailable::Deny,
        local: true,
    }
}

fn shared(limits: Vec<RateLimit>, store: RateLimitStore) -> RateLimits {
    RateLimits { limits, response: LimitResponse::default(), store: Some(Arc::new(store)) }
}

/// Gateways, two threads each, that know of each other only by a store.
struct Gateways {
    all: Vec<Gateway>,
    _backend: Backend,
}

impl Gateways {
    async fn of(number: usize, limits: RateLimits) -> Self {
        let backend = Backend::named("real").await;
        let mut setup = Setup::only(&[backend.address]);
        put(&mut setup, limits);
        Self { all: (0..number).map(|_| setup.start()).collect(), _backend: backend }
    }

    /// How many of so many times ten requests pass, all gateways alike.
    async fn pass(&self, times: usize) -> usize {
        let asking = (0..times).flat_map(|_| self.all.iter().map(|gateway| pass(gateway, "/", "")));
        soon(futures_util::future::join_all(asking)).await.into_iter().sum()
    }
}

/// Of two gateways' 400 requests exactly 100 pass, and what is left is known to both.
#[tokio::test]
async fn gateways_share_a_limit() {
    let redis = Redis::start(&[]).await;
    let gateways = Gateways::of(2, shared(vec![limit("all", 100, HOUR)], redis.store())).await;
    let [one, other] = &gateways.all[..] else { unreachable!() };
    assert_eq!(one.get("/").await.header("x-ratelimit-remaining"), Some("99"));
    assert_eq!(other.get("/").await.header("x-ratelimit-remaining"), Some("98"));
    assert_eq!(gateways.pass(20).await, 98);
    let refused = other.get("/").await;
    assert_eq!((refused.status(), refused.header("x-ratelimit-remaining")), (429, Some("0")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=36).contains(&wait), "{wait}");
    // Nothing of it is counted here, and nothing there for longer than it matters.
    assert_eq!(one.metric("headgate_rate_limit_keys").await, 0.0);
    assert_eq!(one.metric("headgate_rate_limit_store_failures_total").await, 0.0);
    let keys = redis.say("KEYS *").await;
    assert!(keys.starts_with("*1\r\n$37\r\ntest:"), "{keys}");
    let key = keys.lines().nth(2).unwrap();
    let left: u64 = redis.say(&format!("PTTL {key}")).await[1..].lines().next().unwrap().parse().unwrap();
    assert!((3_000_000..=3_600_001).contains(&left), "{left}");
}

/// Restarts forget nothing, and a limit of several windows takes from all of them or from none.
#[tokio::test]
async fn all_algorithms_and_windows_hold_across_restarts() {
    let redis = Redis::start(&[]).await;
    for (name, algorithm) in [
        ("bucket", Algorithm::TokenBucket),
        ("sliding", Algorithm::SlidingWindow),
        ("fixed", Algorithm::FixedWindow),
    ] {
        let day = limit("day", 30, 24 * HOUR).rates[0];
        let mut one = RateLimit { algorithm, ..limit(name, 12, 8000 * HOUR) };
        one.rates.push(day);
        let wide = RateLimit { algorithm, ..limit(&format!("{name}-wide"), 15, 8000 * HOUR) };
        let both = shared(vec![one.clone(), wide.clone()], redis.store());
        assert_eq!(Gateways::of(1, both.clone()).await.pass(1).await, 10, "{name}");
        assert_eq!(Gateways::of(1, both).await.pass(2).await, 2, "{name}");
        // Requests that the narrow limit refused cost the wide one nothing.
        let rest = Gateways::of(1, shared(vec![wide], redis.store())).await;
        assert_eq!(rest.pass(1).await, 3, "{name}");
        let told = rest.all[0].get("/").await;
        assert_eq!((told.status(), told.header("x-ratelimit-remaining")), (429, Some("0")), "{name}");
    }
}

/// A script that the server has forgotten is sent again.
#[tokio::test]
async fn keys_costs_and_a_forgotten_script() {
    let redis = Redis::start(&[]).await;
    let keyed = RateLimit {
        key: vec![KeyPart::Header("x-key".into())],
        cost: Some("request.path == '/dear' ? 3 : 1".into()),
        ..limit("keyed", 6, HOUR)
    };
    let gateways = Gateways::of(1, shared(vec![keyed], redis.store())).await;
    let gateway = &gateways.all[0];
    assert_eq!(pass(gateway, "/dear", "X-Key: a\r\n").await, 2);
    assert!(redis.say("SCRIPT FLUSH").await.starts_with("+OK"));
    assert_eq!(pass(gateway, "/", "X-Key: b\r\n").await, 6);
    assert_eq!(pass(gateway, "/", "X-Key: a\r\n").await, 0);
    // Without a key it doesn't hold, and nobody is asked.
    assert_eq!(pass(gateway, "/", "").await, 10);
    assert_eq!(gateway.metric("headgate_rate_limit_store_failures_total").await, 0.0);
}

/// Requests in flight are counted in each gateway; one that the store refuses gives its place back, and a limit in shadow
/// takes from its own cells only.
#[tokio::test]
async fn concurrency_and_shadow_beside_the_store() {
    let redis = Redis::start(&[]).await;
    let narrow = RateLimit { concurrency: Some(1), ..limit("narrow", 4, HOUR) };
    let tried = RateLimit { shadow: true, ..limit("tried", 2, HOUR) };
    let gateways = Gateways::of(2, shared(vec![narrow, tried], redis.store())).await;
    assert_eq!(pass(&gateways.all[0], "/", "").await, 4);
    assert_eq!(pass(&gateways.all[1], "/", "").await, 0);
    let series = "headgate_rate_limit_requests_total{namespace=\"test\",policy=\"policy\",limit=\"tried\",";
    assert_eq!(gateways.all[0].metric(&format!("{series}outcome=\"passed\"")).await, 2.0);
    assert_eq!(gateways.all[1].metric(&format!("{series}outcome=\"shadow\"")).await, 10.0);
    assert_eq!(gateways.all[0].metric("headgate_rate_limit_keys").await, 0.0);
}

/// While the server is down, what the policy says holds at once; when it is back, so does the limit.
#[tokio::test]
async fn a_store_that_goes_and_comes_back() {
    for (on_unavailable, passed) in
        [(OnUnavailable::Local, [7, 7]), (OnUnavailable::Allow, [10, 10]), (OnUnavailable::Deny, [0, 0])]
    {
        let mut redis = Redis::start(&[]).await;
        let store = RateLimitStore { on_unavailable, ..redis.store() };
        let gateways = Gateways::of(2, shared(vec![limit("all", 7, HOUR)], store)).await;
        assert_eq!(gateways.pass(1).await, 7, "{on_unavailable:?}");
        redis.kill();
        for (gateway, passed) in gateways.all.iter().zip(passed) {
            assert_eq!(pass(gateway, "/", "").await, passed, "{on_unavailable:?}");
            assert_eq!(gateway.metric("headgate_rate_limit_store_failures_total").await, 10.0);
        }
        redis.run().await;
        // It has forgotten all. Threads find it by and by; then two gateways have one limit again.
        let all_found = async {
            loop {
                redis.say("FLUSHALL").await;
                let mut before = 0.0;
                for gateway in &gateways.all {
                    before += gateway.metric("headgate_rate_limit_store_failures_total").await;
                }
                let passed = gateways.pass(4).await;
                let mut after = 0.0;
                for gateway in &gateways.all {
                    after += gateway.metric("headgate_rate_limit_store_failures_total").await;
                }
                if before == after {
                    break passed;
                }
            }
        };
        assert_eq!(soon(all_found).await, 7, "{on_unavailable:?}");
    }
}

/// A server that hangs costs one wait, not one for each request.
#[tokio::test]
async fn a_store_that_hangs() {
    let redis = Redis::start(&[]).await;
    let store = RateLimitStore { timeout: Duration::from_secs(2), ..redis.store() };
    let backend = Backend::named("real").await;
    let mut setup = Setup::only(&[backend.address]);
    put(&mut setup, shared(vec![limit("all", 1_000, HOUR)], store));
    let gateway = setup.start_with(headgate_proxy::Limits::default(), 1);
    assert_eq!(pass(&gateway, "/", "").await, 10);
    redis.signal("-STOP");
    let began = std::time::Instant::now();
    assert_eq!(pass(&gateway, "/", "").await, 0);
    // Ten would have waited for twenty seconds.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    redis.signal("-CONT");
    let back = async { while gateway.get("/").await.status() != 200 {} };
    soon(back).await;
}

/// One that was never there, by way of one that isn't what it should be.
#[tokio::test]
async fn what_is_no_store() {
    let http = Backend::named("http").await;
    let mut store = at(&http.address.to_string());
    store.addresses.push(format!("127.0.0.1:{}", free_port()).into());
    let gateways = Gateways::of(1, shared(vec![limit("all", 5, HOUR)], store.clone())).await;
    assert_eq!(gateways.pass(1).await, 0);
    // Nothing that it could be reached by, as when its Secret is missing: the next one is asked in its place.
    store.addresses.clear();
    store.on_unavailable = OnUnavailable::Local;
    let gateways = Gateways::of(1, shared(vec![limit("all", 5, HOUR)], store)).await;
    assert_eq!(gateways.pass(1).await, 5);
}

#[tokio::test]
async fn a_store_with_users() {
    let redis = Redis::start(&["--requirepass", "s3cret word"]).await;
    let with = |username: Option<&str>, password: &str| RateLimitStore {
        credentials: Some(StoreCredentials {
            username: username.map(Into::into),
            password: Redacted::new(password.to_owned()),
        }),
        ..redis.store()
    };
    let limits = |store| shared(vec![limit("all", 4, HOUR)], store);
    for wrong in [redis.store(), with(None, "else"), with(Some("nobody"), "s3cret word")] {
        assert_eq!(Gateways::of(1, limits(wrong)).await.pass(1).await, 0);
    }
    assert_eq!(Gateways::of(1, limits(with(None, "s3cret word"))).await.pass(1).await, 4);
    let named = RateLimit { scope: "other".into(), ..limit("all", 4, HOUR) };
    let named = shared(vec![named], with(Some("default"), "s3cret word"));
    assert_eq!(Gateways::of(1, named).await.pass(1).await, 4);
}

#[tokio::test]
async fn a_store_in_tls() {
    let made = rcgen::generate_simple_self_signed(["store.example".to_owned()]).unwrap();
    let folder = std::env::temp_dir().join(format!("headgate-redis-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = file("tls.crt", made.cert.pem());
    let key = file("tls.key", made.signing_key.serialize_pem());
    let port = free_port().to_string();
    let mut arguments = vec!["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    arguments.extend(["--tls-auth-clients", "no", "--tls-ca-cert-file", &certificate]);
    let _redis = Redis::start(&arguments).await;
    let trusting = |authorities: Authorities, server_name: Option<&str>| RateLimitStore {
        tls: Some(StoreTls { authorities, server_name: server_name.map(Into::into) }),
        ..at(&format!("127.0.0.1:{port}"))
    };
    let own = || Authorities::Bundles(vec![made.cert.pem().as_str().into()]);
    let limits = |store| shared(vec![limit("all", 4, HOUR)], store);
    // Somebody else's authorities, and another name.
    for wrong in [trusting(Authorities::System, Some("store.example")), trusting(own(), None)] {
        assert_eq!(Gateways::of(1, limits(wrong)).await.pass(1).await, 0);
    }
    let right = trusting(own(), Some("store.example"));
    assert_eq!(Gateways::of(2, limits(right)).await.pass(1).await, 4);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The primary is who the sentinel says.
#[tokio::test]
async fn a_store_behind_a_sentinel() {
    let redis = Redis::start(&[]).await;
    let folder = std::env::temp_dir().join(format!("headgate-sentinel-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("sentinel.conf");
    std::fs::write(&file, format!("sentinel monitor shop 127.0.0.1 {} 1\n", redis.port)).unwrap();
    // A sentinel takes its file as the first argument.
    let port = free_port();
    let process = Command::new("redis-server")
        .arg(&file)
        .args(["--sentinel", "--bind", "127.0.0.1", "--port", &port.to_string()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let sentinel = Redis { port, folder, arguments: vec![], process: Some(process) };
    sentinel.is_up().await;
    let of = |primary: &str| RateLimitStore {
        topology: StoreTopology::Sentinel { primary: primary.into() },
        ..sentinel.store()
    };
    let limits = |store| shared(vec![limit("all", 4, HOUR)], store);
    assert_eq!(Gateways::of(1, limits(of("else"))).await.pass(1).await, 0);
    assert_eq!(Gateways::of(1, limits(of("shop"))).await.pass(1).await, 4);
}

/// Any node leads to the one that has the keys.
#[tokio::test]
async fn a_store_in_a_cluster() {
    let cluster = ["--cluster-enabled", "yes"];
    let (owner, other) = (Redis::start(&cluster).await, Redis::start(&cluster).await);
    assert!(owner.say("CLUSTER ADDSLOTSRANGE 0 16383").await.starts_with("+OK"));
    assert!(owner.say(&format!("CLUSTER MEET 127.0.0.1 {}", other.port)).await.starts_with("+OK"));
    let settled = async {
        // A node answers CLUSTERDOWN for a moment after it has its slots.
        while !owner.say("CLUSTER INFO").await.contains("cluster_state:ok")
            || !other.say("CLUSTER INFO").await.contains("cluster_state:ok")
            || !other.say("CLUSTER SLOTS").await.contains(&owner.port.to_string())
        {
            tokio::task::yield_now().await;
        }
    };
    soon(settled).await;
    let store = RateLimitStore { topology: StoreTopology::Cluster, ..other.store() };
    let keyed = RateLimit { key: vec![KeyPart::Path], ..limit("paths", 3, HOUR) };
    let limits = shared(vec![limit("all", 5, HOUR), keyed], store);
    let gateways = Gateways::of(2, limits).await;
    assert_eq!(pass(&gateways.all[0], "/a", "").await, 3);
    assert_eq!(pass(&gateways.all[1], "/b", "").await, 2);
    let keys = owner.say("KEYS *").await;
    assert!(keys.starts_with("*3\r\n") && keys.contains("test:{test:}"), "{keys}");
}
