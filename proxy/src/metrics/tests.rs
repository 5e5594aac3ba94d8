//! What a scrape says after some requests.

use super::*;
use crate::model::{BackendKind, Failure, ObjectName, RouteKind, Transport};
use prometheus_client::registry::Registry;

fn scrape(metrics: &Arc<Metrics>) -> String {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

fn route() -> RouteId {
    RouteId { kind: RouteKind::Http, name: ObjectName::new("shop", "web") }
}

fn line(text: &str, start: &str) -> String {
    let mut lines = text.lines().filter(|line| line.starts_with(start));
    let found = lines.next().unwrap_or_else(|| panic!("no {start} in\n{text}"));
    assert_eq!(lines.next(), None, "{start} is not one series");
    found[start.len()..].trim().to_owned()
}

#[test]
fn requests_are_summed_over_threads_and_sorted_into_buckets() {
    let metrics = Metrics::new(2);
    let rule = metrics.rule(&route(), 0, None);
    metrics.thread(0).request(&rule, StatusCode::OK, Duration::from_millis(1));
    metrics.thread(1).request(&rule, StatusCode::NO_CONTENT, Duration::from_millis(3));
    metrics.thread(1).request(&rule, StatusCode::BAD_GATEWAY, Duration::from_secs(100));

    let text = scrape(&metrics);
    let labels = r#"kind="HTTPRoute",namespace="shop",route="web",rule="0""#;
    assert_eq!(line(&text, &format!("headgate_requests_total{{{labels},code=\"2xx\"}}")), "2");
    assert_eq!(line(&text, &format!("headgate_requests_total{{{labels},code=\"5xx\"}}")), "1");
    let bucket =
        |le: &str| line(&text, &format!("headgate_request_duration_seconds_bucket{{le=\"{le}\",{labels}}}"));
    assert_eq!([bucket("0.0005"), bucket("0.001"), bucket("0.005")], ["0", "1", "2"]);
    assert_eq!([bucket("60.0"), bucket("+Inf")], ["2", "3"]);
    assert_eq!(line(&text, &format!("headgate_request_duration_seconds_count{{{labels}}}")), "3");
    assert_eq!(line(&text, &format!("headgate_request_duration_seconds_sum{{{labels}}}")), "100.004");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_rule_keeps_its_counters_until_nothing_holds_it() {
    let metrics = Metrics::new(1);
    let thread = metrics.thread(0);
    let name: Text = "checkout".into();
    let rule = metrics.rule(&route(), 0, Some(&name));
    thread.request(&rule, StatusCode::OK, Duration::ZERO);
    let edited = metrics.rule(&route(), 0, Some(&name));
    assert!(Arc::ptr_eq(&rule, &edited));
    drop(rule);
    assert!(scrape(&metrics).contains(r#"rule="checkout""#));
    drop(edited);
    assert!(!scrape(&metrics).contains(r#"rule="checkout""#));
}

#[test]
fn ids_that_are_gone_do_not_pile_up_without_a_scrape() {
    let metrics = Metrics::new(1);
    for index in 0..10 * u32::try_from(SLACK).unwrap() {
        metrics.rule(&route(), index, None);
    }
    let kept = metrics.rules.lock().unwrap().entries.len();
    assert!(kept <= SLACK + 1, "{kept} of {} kept", 10 * SLACK);
}

#[test]
fn unused_rules_and_backends_have_no_series() {
    let metrics = Metrics::new(4);
    let _rule = metrics.rule(&route(), 0, None);
    let id = BackendId {
        kind: BackendKind::Service,
        name: ObjectName::new("shop", "web"),
        port: 80,
        transport: Transport::Tcp,
    };
    let backend = metrics.backend(&id);
    assert!(!scrape(&metrics).contains("shop"));

    let thread = metrics.thread(3);
    thread.backend_connected(&backend);
    thread.backend_response(&backend, StatusCode::SWITCHING_PROTOCOLS);
    thread.backend_failed(&backend, Rejection::ConnectFailed);
    thread.backend_retried(&backend);
    let text = scrape(&metrics);
    let labels = r#"namespace="shop",backend="web",port="80""#;
    assert_eq!(line(&text, &format!("headgate_backend_connections_total{{{labels}}}")), "1");
    assert_eq!(line(&text, &format!("headgate_backend_retries_total{{{labels}}}")), "1");
    assert_eq!(line(&text, &format!("headgate_backend_responses_total{{{labels},code=\"1xx\"}}")), "1");
    let failure = format!("headgate_backend_failures_total{{{labels},reason=\"connect_failed\"}}");
    assert_eq!(line(&text, &failure), "1");
}

#[test]
fn the_process_counts_rejections_connections_and_bytes() {
    let metrics = Metrics::new(2);
    let (first, second) = (metrics.thread(0), metrics.thread(1));
    first.rejected(Rejection::NoRoute);
    second.rejected(Rejection::Config(Failure::InvalidFilter));
    for _ in 0..3 {
        first.connection_opened(PortProtocol::Tls);
    }
    first.connection_closed(PortProtocol::Tls);
    second.handshake_failed();
    first.transferred(10, 20);
    second.transferred(1, 2);
    metrics.published(7);
    metrics.lines_dropped(1);

    let text = scrape(&metrics);
    for (series, value) in [
        (r#"headgate_rejections_total{reason="no_route",source="gateway"}"#, "1"),
        (r#"headgate_rejections_total{reason="config_invalid_filter",source="gateway"}"#, "1"),
        (r#"headgate_rejections_total{reason="head_timeout",source="client"}"#, "0"),
        (r#"headgate_connections_opened_total{protocol="tls"}"#, "3"),
        (r#"headgate_connections{protocol="tls"}"#, "2"),
        (r#"headgate_connections{protocol="http"}"#, "0"),
        ("headgate_tls_handshake_failures_total", "1"),
        ("headgate_received_bytes_total", "11"),
        ("headgate_sent_bytes_total", "22"),
        ("headgate_access_log_dropped_lines_total", "1"),
        ("headgate_model_generation", "7"),
    ] {
        assert_eq!(line(&text, &format!("{series} ")), value);
    }
    assert!(text.contains(&format!("headgate_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_documentation_has_every_metric() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    for family in scrape(&Metrics::new(1)).lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = family.split_once(' ').unwrap();
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert!(page.contains(&format!("| `{name}{suffix}` |")), "docs/metrics.md lacks {name}{suffix}");
    }
}
