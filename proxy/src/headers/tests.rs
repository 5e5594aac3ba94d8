//! Each sentence of security.md §2, and of §1 and §4 where fields are concerned.

use super::*;
use crate::model::Scheme;
use proptest::prelude::*;

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn prepare(headers: &mut HeaderMap, method: Method) -> Result<Upgrade, Rejection> {
    let forwarding = Rc::new(Forwarding::new("192.0.2.7".parse().unwrap(), Scheme::Https, 8443));
    let host = Host::parse("Shop.example:8443").unwrap();
    let ids = RequestIds::new();
    let rules = &USUAL;
    let incoming = &Incoming { method: &method, host: &host, forwarding: &forwarding, ids: &ids, rules };
    let (upgrade, ours) = prepare_request(headers, incoming)?;
    ours.write(headers);
    Ok(upgrade)
}

/// What is left of a request's own fields, as text.
fn left(fields: &[(&'static str, &str)]) -> Vec<String> {
    let mut headers = map(fields);
    prepare(&mut headers, Method::GET).unwrap();
    for ours in ["host", "forwarded", "x-real-ip", "x-request-id"] {
        headers.remove(ours).unwrap();
    }
    for ours in ["for", "host", "port", "proto"] {
        headers.remove(format!("x-forwarded-{ours}")).unwrap();
    }
    headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
}

fn refused(method: Method, fields: &[(&'static str, &str)]) -> Rejection {
    prepare(&mut map(fields), method).unwrap_err()
}

#[test]
fn hop_by_hop_fields_go() {
    let fields = [
        ("connection", "keep-alive, X-Secret"),
        ("connection", "x-other"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("proxy-connection", "keep-alive"),
        ("proxy", "evil"),
        ("te", "gzip"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
        ("x-secret", "1"),
        ("x-other", "2"),
        ("accept", "*/*"),
    ];
    assert_eq!(left(&fields), ["accept: */*"]);
}

#[test]
fn connection_cannot_take_away_what_matters() {
    let fields = [
        (
            "connection",
            "host, content-length, authorization, cookie, x-forwarded-for, x-request-id, close, te",
        ),
        ("content-length", "3"),
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("te", "trailers, deflate"),
    ];
    let kept = ["content-length: 3", "authorization: Bearer x", "cookie: a=b", "te: trailers"];
    let mut found = left(&fields);
    found.sort();
    let mut kept = kept.map(str::to_owned);
    kept.sort();
    assert_eq!(found, kept);
}

#[test]
fn what_names_the_client_is_written_anew() {
    let mut headers = map(&[
        ("host", "SHOP.example:8443"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-for", "10.0.0.2"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-prefix", "/evil"),
        ("x-forwarded", "for=evil"),
        ("forwarded", "for=10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("x-request-id", "mine"),
    ]);
    prepare(&mut headers, Method::GET).unwrap();
    for (name, value) in [
        ("host", "shop.example:8443"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-host", "shop.example:8443"),
        ("x-forwarded-port", "8443"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=192.0.2.7;proto=https"),
        ("x-real-ip", "192.0.2.7"),
    ] {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(values, [value], "{name}");
    }
    assert_eq!(headers[X_REQUEST_ID].len(), 36);
    assert_eq!(headers.len(), 8);
}

#[test]
fn ipv6_clients_are_quoted_and_mapped_ones_are_ipv4() {
    let v6 = Forwarding::new("2001:db8::1".parse().unwrap(), Scheme::Http, 80);
    assert_eq!(v6.forwarded, "for=\"[2001:db8::1]\";proto=http");
    assert_eq!(v6.address, "2001:db8::1");
    assert_eq!(Forwarding::new("::ffff:192.0.2.1".parse().unwrap(), Scheme::Http, 80).address, "192.0.2.1");
}

#[test]
fn override_fields_and_underscores_go() {
    let fields = [
        ("X-HTTP-Method-Override", "DELETE"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("x-host", "evil"),
        ("x_forwarded_for", "10.0.0.1"),
        ("x-user_id", "root"),
        ("x-user-id", "me"),
    ];
    assert_eq!(left(&fields), ["x-user-id: me"]);
}

#[test]
fn cookie_crumbs_are_joined() {
    assert_eq!(left(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]), ["cookie: a=1; b=2; c=3"]);
}

#[test]
fn framing_that_can_be_read_in_two_ways_is_refused() {
    let framing = Rejection::Malformed(Malformed::Framing);
    for length in ["", "+1", "-1", "1, 1", "0x1", "1 ", "9223372036854775808"] {
        assert_eq!(refused(Method::POST, &[("content-length", length)]), framing, "{length:?}");
    }
    assert_eq!(refused(Method::POST, &[("content-length", "1"), ("content-length", "1")]), framing);
    assert_eq!(refused(Method::POST, &[("content-length", "1"), ("transfer-encoding", "chunked")]), framing);
    for coding in ["gzip", "gzip, chunked", "chunked, chunked", "identity"] {
        assert_eq!(refused(Method::POST, &[("transfer-encoding", coding)]), Rejection::TransferCoding);
    }
    let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
    assert_eq!(refused(Method::POST, &twice), Rejection::TransferCoding);
    assert!(left(&[("transfer-encoding", "Chunked")]).is_empty());
    assert_eq!(left(&[("content-length", "9223372036854775807")]).len(), 1);
}

#[test]
fn only_100_continue_can_be_expected() {
    assert!(left(&[("expect", "100-Continue")]).is_empty());
    assert_eq!(refused(Method::POST, &[("expect", "a-pony")]), Rejection::Expectation);
}

const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "WebSocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn a_websocket_handshake_goes_on() {
    let mut headers = map(&HANDSHAKE);
    assert_eq!(prepare(&mut headers, Method::GET), Ok(Upgrade::WebSocket));
    assert_eq!(headers[header::CONNECTION], "upgrade");
    assert_eq!(headers[header::UPGRADE], "websocket");
    assert_eq!(headers["sec-websocket-key"], "dGhlIHNhbXBsZSBub25jZQ==");
}

#[test]
fn a_malformed_websocket_handshake_is_refused() {
    let with = |index: usize, value: &'static str| {
        let mut fields = HANDSHAKE;
        fields[index].1 = value;
        fields
    };
    let bad = Rejection::Malformed(Malformed::Upgrade);
    assert_eq!(refused(Method::POST, &HANDSHAKE), bad);
    for fields in [
        with(0, "keep-alive"),
        with(1, "websocket, h2c"),
        with(2, "8"),
        with(3, "short"),
        with(3, "dGhlIHNhbXBsZSBub25jZQ=!"),
    ] {
        assert_eq!(refused(Method::GET, &fields), bad, "{fields:?}");
    }
    let mut body = HANDSHAKE.to_vec();
    body.push(("content-length", "5"));
    assert_eq!(refused(Method::GET, &body), bad);
}

#[test]
fn responses_lose_hop_by_hop_fields() {
    let mut headers = map(&[
        ("connection", "close, x-internal, set-cookie"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("proxy-authenticate", "Basic"),
        ("upgrade", "h2c"),
        ("x-internal", "1"),
        ("set-cookie", "a=b"),
        ("content-type", "text/plain"),
    ]);
    prepare_response(&mut headers, Upgrade::None);
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "set-cookie"]);

    let mut switching =
        map(&[("connection", "Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-accept", "x")]);
    prepare_response(&mut switching, Upgrade::WebSocket);
    assert_eq!(
        (&switching["connection"], &switching["upgrade"]),
        (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
    );
}

proptest! {
    /// Whatever a client sends: no hop-by-hop field, one of each of ours, and nothing that a second pass would remove.
    #[test]
    fn clean_stays_clean(
        fields in prop::collection::vec(
            ("(connection|te|upgrade|keep-alive|proxy-x|x-forwarded-(for|x)|x_a|x-a|cookie|x-host)", "(close|x-a|te|,| |[ -~]{0,8})"),
            0..12,
        )
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
        }
        if prepare(&mut headers, Method::GET) == Ok(Upgrade::None) {
            for name in headers.keys().map(HeaderName::as_str) {
                let fate = fate_in_request(name);
                let ours = name.starts_with("x-forwarded-") || ["forwarded", "x-real-ip", "x-request-id"].contains(&name);
                prop_assert!(ours || matches!(fate, Fate::Keep | Fate::Host | Fate::Cookie | Fate::Te), "{name} is left");
            }
            let mut again = headers.clone();
            prepare(&mut again, Method::GET).unwrap();
            again.insert(X_REQUEST_ID, headers[X_REQUEST_ID].clone());
            prop_assert_eq!(again, headers);
        }
    }
}
