//! Envoy.

use super::{Peer, Process, Setup, Work, free_port, pinned, version, write};
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// None: its logins are of another kind, whose cookies we don't make.
pub fn start(setup: &Setup<'_>, binary: &Path) -> Result<Option<Peer>> {
    if matches!(setup.work, Work::Session(_)) {
        return Ok(None);
    }
    let port = free_port()?;
    let config = write(setup, "envoy.json", &config(setup, port).to_string())?;
    let mut command = pinned("0", setup.under, binary);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--config-path"]);
    command.arg(config);
    let process = Process::start(&mut command, &setup.folder.join("envoy.log"))?;
    let version = version(&headgate_bench::machine::output(&binary.to_string_lossy(), &["--version"])?);
    Ok(Some(Peer { name: "envoy", version, process, port }))
}

fn config(setup: &Setup<'_>, port: u16) -> Value {
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let to = json!({"cluster": "backends", "timeout": "0s"});
    let routes: Vec<_> = match setup.work {
        Work::Routes(count) => {
            (0..count).map(|n| json!({"match": {"prefix": format!("/r{n}/")}, "route": to})).collect()
        }
        Work::Plain
        | Work::Tls
        | Work::WebSocket
        | Work::Limit
        | Work::Jwt(_)
        | Work::Session(_)
        | Work::Breaker => {
            vec![json!({"match": {"prefix": "/"}, "route": to})]
        }
    };
    let mut filters: Vec<_> = filter(setup).into_iter().collect();
    filters.push(json!({"name": "router", "typed_config": {"@type": format!("{FILTERS}.router.v3.Router")}}));
    let mut chain = json!({"filters": [{
        "name": "http",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "use_remote_address": true,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": filters,
        },
    }]});
    if setup.work == Work::WebSocket {
        chain["filters"][0]["typed_config"]["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
    }
    if setup.work == Work::Tls {
        let (certificate, key) = setup.material.certificate_files();
        chain["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}],
            },
        }});
    }
    let endpoints = setup.backends.map(|port| json!({"endpoint": {"address": address(port)}}));
    let mut cluster = json!({
        "name": "backends", "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "backends", "endpoints": [{"lb_endpoints": endpoints}]},
        "circuit_breakers": {"thresholds": [{"max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000}]},
    });
    if setup.work == Work::Breaker {
        cluster["outlier_detection"] = json!({"consecutive_5xx": 5});
    }
    json!({"static_resources": {
        "listeners": [{"name": "in", "address": address(port), "filter_chains": [chain]}],
        "clusters": [cluster],
    }})
}

/// What it does before it routes.
fn filter(setup: &Setup<'_>) -> Option<Value> {
    let whole = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    match setup.work {
        Work::Plain | Work::Routes(_) | Work::Tls | Work::WebSocket | Work::Session(_) | Work::Breaker => {
            None
        }
        Work::Limit => Some(json!({"name": "limit", "typed_config": {
            "@type": format!("{FILTERS}.local_ratelimit.v3.LocalRateLimit"),
            "stat_prefix": "limit",
            "token_bucket": {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"},
            "filter_enabled": whole,
            "filter_enforced": whole,
        }})),
        Work::Jwt(algorithm) => Some(json!({"name": "jwt", "typed_config": {
            "@type": format!("{FILTERS}.jwt_authn.v3.JwtAuthentication"),
            "providers": {"bench": {
                "issuer": crate::token::ISSUER,
                "forward": true,
                "local_jwks": {"inline_string": setup.material.signer(algorithm).jwks()},
                "jwt_cache_config": {"jwt_cache_size": 1_000},
            }},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}],
        }})),
    }
}
