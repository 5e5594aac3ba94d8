//! Headgate, from files.

use super::{Peer, Process, Setup, Work, free_port, pinned, write};
use crate::login;
use anyhow::{Context, Result};
use serde_json::{Value, json};

const POLICY: &str = "headgate.dev/v1alpha1";
const GATEWAY: &str = "gateway.networking.k8s.io";

/// Starts it.
pub fn start(setup: &Setup<'_>, name: &'static str) -> Result<Peer> {
    let (port, admin) = (free_port()?, free_port()?);
    let objects = objects(setup, port);
    let text: Vec<_> = objects.iter().map(Value::to_string).collect();
    let file = write(setup, &format!("{name}.yaml"), &text.join("\n---\n"))?;
    let binary = setup.headgate.canonicalize().with_context(|| setup.headgate.display().to_string())?;
    let version = super::version(&headgate_bench::machine::output(&binary.to_string_lossy(), &["version"])?);
    let mut command = pinned("0", setup.under, &binary);
    command.args(["run", "--threads", "1", "--access-log", "off", "--admin-address"]);
    command.arg(format!("127.0.0.1:{admin}")).arg("-f").arg(&file);
    let process = Process::start(&mut command, &setup.folder.join(format!("{name}.log")))?;
    Ok(Peer { name, version, process, port })
}

fn objects(setup: &Setup<'_>, port: u16) -> Vec<Value> {
    let mut listener = json!({"name": "http", "protocol": "HTTP", "port": port});
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "bench"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    })];
    for backend in setup.backends {
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": format!("bench-{backend}"), "labels": {"kubernetes.io/service-name": "bench"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": backend, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
        }));
    }
    let routes = match setup.work {
        Work::Routes(count) => (0..count).map(|n| format!("/r{n}/")).collect(),
        Work::Plain
        | Work::Tls
        | Work::WebSocket
        | Work::Limit
        | Work::Jwt(_)
        | Work::Session(_)
        | Work::Breaker => vec!["/".to_owned()],
    };
    if setup.work == Work::Tls {
        listener["protocol"] = "HTTPS".into();
        listener["tls"] = json!({"certificateRefs": [{"name": "bench"}]});
    }
    objects.extend(besides(setup));
    for (n, path) in routes.iter().enumerate() {
        objects.push(json!({
            "apiVersion": format!("{GATEWAY}/v1"), "kind": "HTTPRoute", "metadata": {"name": format!("bench-{n}")},
            "spec": {
                "parentRefs": [{"name": "bench"}],
                "rules": [{
                    "matches": [{"path": {"type": "PathPrefix", "value": path}}],
                    "backendRefs": [{"name": "bench", "port": 80}],
                }],
            },
        }));
    }
    objects.push(json!({
        "apiVersion": format!("{GATEWAY}/v1"), "kind": "Gateway", "metadata": {"name": "bench"},
        "spec": {
            "gatewayClassName": "headgate",
            "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}],
            "listeners": [listener],
        },
    }));
    objects
}

/// What the work needs besides a Gateway and routes: certificates, secrets and policies.
fn besides(setup: &Setup<'_>) -> Vec<Value> {
    match setup.work {
        Work::Plain | Work::Routes(_) | Work::WebSocket => Vec::new(),
        Work::Tls => {
            let (chain, key) = setup.material.certificate();
            vec![secret("bench", "kubernetes.io/tls", &json!({"tls.crt": chain, "tls.key": key}))]
        }
        Work::Limit => vec![policy(
            "RateLimitPolicy",
            &json!({"limits": {"each": {
                "key": [{"clientIP": {}}],
                "rates": [{"limit": 1_000_000, "window": "1s"}],
            }}}),
        )],
        Work::Jwt(algorithm) => vec![policy(
            "AuthPolicy",
            &json!({"authenticators": {"bench": {"jwt": {
                "issuer": crate::token::ISSUER,
                "jwks": {"inline": setup.material.signer(algorithm).jwks()},
                // As the others have it.
                "forward": true,
            }}}}),
        )],
        Work::Session(provider) => vec![
            secret("login", "headgate.dev/oidc", &json!({"client-secret": login::SECRET})),
            policy(
                "AuthPolicy",
                &json!({"authenticators": {"bench": {"oidc": {
                    "issuer": login::issuer(provider),
                    "clientID": login::CLIENT,
                    "clientSecretRef": {"name": "login"},
                }}}}),
            ),
        ],
        Work::Breaker => vec![policy("CircuitBreakerPolicy", &json!({"breaker": {}, "ejection": {}}))],
    }
}

fn secret(name: &str, kind: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "stringData": data})
}

fn policy(kind: &str, says: &Value) -> Value {
    let mut policy = json!({
        "apiVersion": POLICY, "kind": kind, "metadata": {"name": "bench"},
        "spec": {"targetRefs": [{"group": GATEWAY, "kind": "Gateway", "name": "bench"}]},
    });
    for (field, value) in says.as_object().into_iter().flatten() {
        policy["spec"][field] = value.clone();
    }
    policy
}
