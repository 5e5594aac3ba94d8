//! Every folder under examples/ does what it is there for: nothing in it is refused, and the quickstart answers.

use crate::client::{Answer, Connection, get, until};
use crate::manifests::{Folder, examples, quickstart, service};
use crate::process::{Echo, Port, Process, output};
use crate::translation::{conditions, translate};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn folders() -> BTreeSet<String> {
    let entries = fs::read_dir(examples()).expect("it is there").map(|entry| entry.expect("readable"));
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().into_string().expect("text")).collect()
}

#[test]
fn nothing_in_them_is_refused() {
    for folder in folders() {
        let paths = match folder.as_str() {
            // Deployments are for clusters: see below.
            "cluster" => continue,
            "quickstart" => vec![examples().join("quickstart")],
            folder => vec![examples().join("quickstart/backends.yaml"), examples().join(folder)],
        };
        let translated = translate(&paths);
        let conditions = conditions(&translated);
        let bad: Vec<_> = conditions.iter().filter(|condition| !condition.is_good()).collect();
        assert!(bad.is_empty(), "{folder}: {bad:#?}");
        let served = ["Gateway ", "Route "].map(|kind| conditions.iter().any(|told| told.of.contains(kind)));
        assert_eq!(served, [true, true], "{folder} has a Gateway and a route: {conditions:#?}");
        let backends = translated["endpoints"].as_object().map_or(0, serde_json::Map::len);
        assert!(backends > 0, "{folder} reaches a backend");
    }
}

#[test]
fn the_ones_of_a_cluster_are_services_with_their_pods() {
    let done = output(["translate".as_ref(), "-f".as_ref(), examples().join("cluster").as_os_str()]);
    let said = String::from_utf8(done.stderr).expect("text");
    let errors: Vec<_> = said.lines().filter(|line| line.contains("backends.yaml:")).collect();
    assert_eq!(errors.len(), 3, "{said}");
    for error in errors {
        assert!(error.contains("kind Deployment.apps is not read from files"), "{error}");
    }
    let text = fs::read_to_string(examples().join("cluster/backends.yaml")).expect("text");
    for service in ["shop", "web-v1", "web-v2"] {
        assert!(text.contains(&format!("kind: Service\nmetadata:\n  name: {service}\n")), "{service}");
    }
}

#[test]
fn the_readme_lists_all() {
    let readme = fs::read_to_string(examples().join("README.md")).expect("text");
    for folder in folders() {
        assert!(readme.contains(&format!("| [{folder}]({folder}) |")), "{folder}");
    }
}

/// How many requests pass until one is refused, and that answer.
fn until_limited(port: u16, path: &str, fields: &str) -> (usize, Answer) {
    let mut connection = Connection::open(port).expect("it listens");
    for passed in 0..60 {
        let answer = connection.get("a.example", path, fields);
        if answer.status != 200 {
            return (passed, answer);
        }
    }
    panic!("nothing is limited on {path}");
}

#[test]
fn rate_limits_hold() {
    let (backend, port) = (Echo::start("shop"), Port::reserve());
    let read = |file: &str| fs::read_to_string(examples().join(file)).expect("text");
    let limits = read("rate-limits/rate-limits.yaml").replace("8080", &port.number.to_string());
    let backends = read("quickstart/backends.yaml").replace("9001", &backend.port.to_string());
    let folder = Folder::with(&[("limits.yaml", &limits), ("backends.yaml", &backends)]);
    let mut headgate =
        Process::start(["run", "--admin-address=127.0.0.1:0", "-f", &folder.path().display().to_string()]);
    headgate.line_with("serving");

    // Time goes on meanwhile: a bucket fills, and a window of the clock may end.
    let (passed, refused) = until_limited(port.number, "/nginx", "");
    assert!((6..60).contains(&passed), "{passed}");
    assert_eq!(refused.status, 429);
    assert!(refused.field("retry-after").is_some());

    let (passed, refused) = until_limited(port.number, "/kong", "x-user: a\r\n");
    assert!((5..=10).contains(&passed), "{passed}");
    assert_eq!(refused.status, 429);
    let policy = refused.field("ratelimit-policy").expect("it is told");
    assert!(policy.contains("\"per-user\";q=5;w=60"), "{policy}");
    let (passed, _) = until_limited(port.number, "/kong", "x-user: b\r\n");
    assert!((5..=10).contains(&passed), "another user has a counter of its own: {passed}");

    assert_eq!(get(port.number, "a.example", "/aws").status, 429, "without a key");
    let (passed, _) = until_limited(port.number, "/aws", "x-api-key: key-of-basil\r\n");
    assert!((5..=10).contains(&passed), "{passed}");
    let mut connection = Connection::open(port.number).expect("it listens");
    for _ in 0..20 {
        let answer = connection.get("a.example", "/aws", "x-api-key: key-of-gloria\r\n");
        assert_eq!(answer.status, 200, "another plan");
    }

    // The hour counts beside the minute: told, and reached first, if it allows less.
    folder.write("limits.yaml", &limits.replace("{limit: 100, window: 1h}", "{limit: 3, window: 1h}"));
    let hour = Some("\"per-user\";q=3;w=3600");
    until(port.number, "a.example", "/kong", |answer| answer.field("ratelimit-policy") == hour);
    let (passed, refused) = until_limited(port.number, "/kong", "x-user: c\r\n");
    assert!((3..=6).contains(&passed), "{passed}");
    assert_eq!((refused.status, refused.field("ratelimit-policy")), (429, hour));
}

/// An example in a folder of its own, on a free port, with the quickstart's backends.
fn on_port(example: &str, port: u16, backends: [u16; 3]) -> Folder {
    let folder = quickstart(port, backends);
    folder.remove("gateway.yaml");
    folder.remove("routes.yaml");
    for entry in fs::read_dir(examples().join(example)).expect("it is there") {
        let text = fs::read_to_string(entry.expect("readable").path()).expect("text");
        folder.write("example.yaml", &text.replace("8080", &port.to_string()));
    }
    folder
}

#[test]
fn a_breaker_of_five_failures_and_a_minute() {
    let backends = ["shop", "web-v1", "web-v2"].map(Echo::start);
    let port = Port::reserve();
    let folder = on_port("circuit-breaker", port.number, backends.each_ref().map(|backend| backend.port));
    let mut headgate =
        Process::start(["run", "--admin-address=127.0.0.1:0", "-f", &folder.path().display().to_string()]);
    headgate.line_with("serving");
    for path in ["/shop/status/500", "/web/status/500"] {
        for _ in 0..5 {
            assert_eq!(get(port.number, "a.example", path).status, 500);
        }
    }
    let shut = get(port.number, "a.example", "/shop");
    assert_eq!(shut.status, 503);
    let after: u64 = shut.field("retry-after").and_then(|after| after.parse().ok()).expect("seconds");
    assert!((1..=66).contains(&after), "{after}");
    assert_eq!(get(port.number, "a.example", "/web").echo()["name"], "web-v2");
}

#[test]
fn the_quickstart_answers_what_its_comments_say() {
    let backends = ["shop", "web-v1", "web-v2"].map(Echo::start);
    let port = Port::reserve();
    let folder = quickstart(port.number, backends.each_ref().map(|backend| backend.port));
    let mut headgate =
        Process::start(["run", "--admin-address=127.0.0.1:0", "-f", &folder.path().display().to_string()]);
    headgate.line_with("serving");

    let cart = get(port.number, "a.example", "/shop/cart").echo();
    assert_eq!((&cart["name"], &cart["path"]), (&"shop".into(), &"/shop/cart".into()));
    let mut connection = Connection::open(port.number).expect("it listens");
    for _ in 0..10 {
        let canary = connection.get("a.example", "/web", "x-canary: true\r\n").echo();
        assert_eq!(canary["name"], "web-v2");
    }
    for name in ["web-v1", "web-v2"] {
        until(port.number, "a.example", "/web", |answer| answer.echo()["name"] == name);
    }
    let moved = connection.get("a.example", "/old/cart", "");
    assert_eq!(moved.status, 301);
    let location = format!("http://a.example:{}/shop/cart", port.number);
    assert_eq!(moved.field("location"), Some(location.as_str()));
    assert_eq!(get(port.number, "a.example", "/api/cart").echo()["path"], "/cart");
    assert_eq!(get(port.number, "a.example", "/nowhere").status, 404);

    headgate.signal("TERM");
    let (status, rest) = headgate.ended();
    assert_eq!(status.code(), Some(0), "{rest}");
    assert!(rest.contains("stopped"), "{rest}");
}

#[test]
fn clients_are_known_by_keys_tokens_and_passwords() {
    let backends = ["shop", "web-v1", "web-v2"].map(Echo::start);
    let port = Port::reserve();
    let folder = on_port("authentication", port.number, backends.each_ref().map(|backend| backend.port));
    let mut headgate =
        Process::start(["run", "--admin-address=127.0.0.1:0", "-f", &folder.path().display().to_string()]);
    headgate.line_with("serving");
    let ask = |path: &str, fields: &str| {
        Connection::open(port.number).expect("it listens").get("a.example", path, fields)
    };
    let told = |path: &str| {
        let answer = ask(path, "");
        assert_eq!(answer.status, 401, "{path}");
        answer.field("www-authenticate").expect("a challenge").to_owned()
    };
    assert_eq!(told("/keys"), "ApiKey realm=\"keys\"");
    assert_eq!(told("/tokens"), "Bearer realm=\"issuer\"");
    assert_eq!(told("/users"), "Basic realm=\"the shop\", charset=\"UTF-8\"");

    let (passed, refused) = until_limited(port.number, "/keys", "X-API-Key: basil-has-this-long-key\r\n");
    // The day may end meanwhile.
    assert!((5..=10).contains(&passed) && refused.status == 429, "{passed}, then {refused:?}");
    for _ in 0..10 {
        let echo = ask("/keys", "X-API-Key: gloria-has-a-golden-key\r\nX-Consumer: basil\r\n").echo();
        assert_eq!(echo["headers"]["x-consumer"][0], "gloria", "{echo}");
        assert!(echo["headers"].get("x-api-key").is_none(), "{echo}");
    }

    let example = examples().join("authentication/authentication.yaml");
    let text = fs::read_to_string(example).expect("text");
    let token = text.split("TOKEN=").nth(1).and_then(|rest| rest.lines().next()).expect("a token is there");
    let echo = ask("/tokens", &format!("Authorization: Bearer {token}\r\n")).echo();
    assert_eq!(echo["headers"]["x-user"][0], "ada", "{echo}");
    let forged = format!("Authorization: Bearer {token}AAAA\r\n");
    assert_eq!(ask("/tokens", &forged).status, 401);

    // ada:secret
    let echo = ask("/users", "Authorization: Basic YWRhOnNlY3JldA==\r\n").echo();
    assert_eq!(echo["headers"]["x-user"][0], "ada", "{echo}");
}

/// Lets those pass who have the cookie of ada's session. Returns where it listens, and how often it was asked.
fn authorizer() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let count = count.clone();
            std::thread::spawn(move || {
                let (mut reader, mut head) = (BufReader::new(&stream), String::new());
                while reader.read_line(&mut head).is_ok_and(|read| read > 0) {
                    if !head.ends_with("\r\n\r\n") {
                        continue;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    let known = head.starts_with("GET /verify/private") && head.contains("session=ada");
                    let answer = match known {
                        true => "HTTP/1.1 200 OK\r\nX-User: ada\r\nContent-Length: 0\r\n\r\n",
                        false => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
                    };
                    (&stream).write_all(answer.as_bytes()).expect("it is waited for");
                    head.clear();
                }
            });
        }
    });
    (port, asked)
}

#[test]
fn somebody_else_decides_who_passes() {
    let backends = ["shop", "web-v1", "web-v2"].map(Echo::start);
    let (port, (authorizer, asked)) = (Port::reserve(), authorizer());
    let folder = on_port("external-authorizer", port.number, backends.each_ref().map(|backend| backend.port));
    let service = service("authorizer", authorizer);
    let (_, slice) = service.split_once("---\n").expect("a Service and its endpoints");
    folder.write("authorizer.yaml", slice);
    let mut headgate =
        Process::start(["run", "--admin-address=127.0.0.1:0", "-f", &folder.path().display().to_string()]);
    headgate.line_with("serving");
    let ask = |path: &str, fields: &str| {
        Connection::open(port.number).expect("it listens").get("a.example", path, fields)
    };
    assert_eq!(ask("/", "").status, 200);
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nobody is asked about what is public");
    assert_eq!(ask("/private", "X-User: ada\r\n").status, 401);
    let signing_in = ask("/private", "Accept: text/html\r\n");
    assert_eq!(signing_in.status, 302);
    let to = signing_in.field("location").expect("it says where");
    assert!(to.starts_with("https://login.example/start"), "{to}");
    let before = asked.load(Ordering::Relaxed);
    for _ in 0..3 {
        let echo = ask("/private/cart", "Cookie: session=ada\r\nX-User: root\r\n").echo();
        assert_eq!(echo["headers"]["x-user"], serde_json::json!(["ada"]), "{echo}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), before + 1, "what it said is remembered for a minute");
}

#[test]
fn bodies_are_bounded_by_listener() {
    let backends = ["shop", "web-v1", "web-v2"].map(Echo::start);
    let (port, uploads) = (Port::reserve(), Port::reserve());
    let folder = on_port("client-policy", port.number, backends.each_ref().map(|backend| backend.port));
    let text = fs::read_to_string(folder.path().join("example.yaml")).expect("text");
    folder.write("example.yaml", &text.replace("8081", &uploads.number.to_string()));
    let mut headgate =
        Process::start(["run", "--admin-address=127.0.0.1:0", "-f", &folder.path().display().to_string()]);
    headgate.line_with("serving");
    // None of the body is sent: what it is announced to be is enough.
    let over = format!("Content-Length: {}\r\n", (1 << 20) + 1);
    assert_eq!(get(port.number, "a.example", "/shop").status, 200);
    let ask = |port| Connection::open(port).expect("it listens").get("a.example", "/shop", &over);
    assert_eq!(ask(port.number).status, 413);
    assert_eq!(get(uploads.number, "a.example", "/shop").status, 200);
}
