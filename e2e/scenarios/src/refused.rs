//! What the API server refuses of our own kinds, each with a sentence that says what to write instead; that no
//! rule of theirs is without a row here; and a policy that it takes, enforced.

use crate::client::Target;
use crate::cluster::{Cluster, Condition, SOON};
use crate::objects;
use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use serde_json::Value;
use std::collections::BTreeSet;

const HOST: &str = "limited.example";
/// More than two replicas let pass together.
const REQUESTS: usize = 20;
/// What each replica lets pass.
const LIMIT: usize = 4;

/// The end of a RateLimitPolicy's `spec`, and what is said of it.
const REFUSED: &[(&str, &str)] = &[
    ("limits: {a: {rates: [{limit: 1, window: 1m}]}}", "spec.targetRefs: Required value"),
    (
        "targetRefs: [{group: apps, kind: Deployment, name: a}], limits: {a: {rates: [{limit: 1, window: 1m}]}}",
        "spec.targetRefs: Invalid value",
    ),
    (
        "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}, {group: gateway.networking.k8s.io, kind: HTTPRoute, name: a}], limits: {a: {rates: [{limit: 1, window: 1m}]}}",
        "of one kind",
    ),
    ("{target}, limits: {}", "should have at least 1 properties"),
    (
        "{target}, limits: {a-name-of-more-than-sixty-three-letters-is-more-than-anybody-reads-twice: {rates: [{limit: 1, window: 1m}]}}",
        "names of entries are up to 63 lower-case letters",
    ),
    ("{target}, limits: {a: {rates: [{limit: 0, window: 1m}]}}", "should be greater than or equal to 1"),
    ("{target}, limits: {a: {rates: [{limit: 1, window: 100ms}]}}", "window is from 1s to 8784h"),
    ("{target}, limits: {a: {rates: [{limit: 1, window: soon}]}}", "should match"),
    (
        "{target}, limits: {a: {key: [{header: a, cookie: b}], rates: [{limit: 1, window: 1m}]}}",
        "a part of a key has exactly one of",
    ),
    (
        "{target}, limits: {a: {rates: [{limit: 1, window: 1m}], overrides: {b: {when: [\"true\"]}}}}",
        "an override has either rates or unlimited: true",
    ),
    ("{target}, mode: Maybe, limits: {a: {rates: [{limit: 1, window: 1m}]}}", "Unsupported value: \"Maybe\""),
    (
        "{target}, limits: {a: {rates: [{limit: 1, window: 1m}]}}, store: {type: Redis}",
        "store.redis goes with type: Redis, and type: Redis needs it",
    ),
    (
        "{target}, limits: {a: {rates: [{limit: 1, window: 1m}]}}, store: {type: Redis, redis: {address: ['a:6379'], timeout: 6s}}",
        "timeout is from 1ms to 5s",
    ),
];

/// The same of CircuitBreakerPolicies.
const REFUSED_BREAKERS: &[(&str, &str)] = &[
    ("{target}", "the policy says nothing; write limits, ejection or breaker"),
    (
        "targetRefs: [{group: apps, kind: Deployment, name: a}], breaker: {}",
        "targetRefs take a Service (group '', the empty string), or a Gateway",
    ),
    (
        "targetRefs: [{group: '', kind: Service, name: a}, {group: gateway.networking.k8s.io, kind: Gateway, name: a}], breaker: {}",
        "of one kind",
    ),
    (
        "{target}, breaker: {onOpen: {reject: {}, backendRef: {name: a, port: 80}}}",
        "onOpen has exactly one of reject and backendRef",
    ),
    ("{target}, breaker: {openDuration: 1ms}", "lengths of time here are from 100ms to 24h"),
    ("{target}, breaker: {halfOpen: {maxProbes: 0}}", "should be greater than or equal to 1"),
    ("{target}, ejection: {maxEjectionPercent: 101}", "should be less than or equal to 100"),
];

/// The same of AuthPolicies.
const REFUSED_AUTH: &[(&str, &str)] = &[
    (
        "targetRefs: [{group: apps, kind: Deployment, name: a}], denied: {}",
        "targetRefs take a Gateway, ListenerSet, HTTPRoute or GRPCRoute",
    ),
    (
        "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}, {group: gateway.networking.k8s.io, kind: HTTPRoute, name: a}], denied: {}",
        "of one kind",
    ),
    (
        "{target}, authenticators: {a-name-of-more-than-sixty-three-letters-is-more-than-anybody-reads-twice: {clientCertificate: {}}}",
        "names of entries are up to 63 lower-case letters",
    ),
    (
        "{target}, authenticators: {a: {}}",
        "an authenticator has exactly one of jwt, apiKey, basic, clientCertificate, external, oidc",
    ),
    (
        "{target}, authenticators: {a: {clientCertificate: {}, basic: {secretRef: {name: a}}}}",
        "an authenticator has exactly one of jwt, apiKey, basic, clientCertificate, external, oidc",
    ),
    ("{target}, authenticators: {a: {apiKey: {}}}", "apiKey has exactly one of secretRef and secretSelector"),
    (
        "{target}, authenticators: {a: {external: {protocol: HTTP, backendRef: {name: a, port: 80}, grpc: {}}}}",
        "external.grpc goes with protocol: GRPC",
    ),
    (
        "{target}, authenticators: {a: {external: {protocol: GRPC, backendRef: {name: a, port: 80}, http: {}}}}",
        "external.http goes with protocol: HTTP",
    ),
    (
        "{target}, authenticators: {a: {external: {protocol: HTTP, backendRef: {name: a, port: 80}, timeout: 1ms}}}",
        "timeout is from 10ms to 60s",
    ),
    (
        "{target}, authenticators: {a: {jwt: {jwks: {uri: 'https://a.example', inline: '{\"keys\": []}'}}}}",
        "jwks has exactly one of uri, discovery, inline, configMapRef, secretRef",
    ),
    (
        "{target}, authenticators: {a: {jwt: {jwks: {secretRef: {name: a}, cacheDuration: 5m}}}}",
        "cacheDuration is for keys that are fetched",
    ),
    (
        "{target}, authenticators: {a: {jwt: {jwks: {uri: 'https://a.example', cacheDuration: 100ms}}}}",
        "cacheDuration is from 1s to 24h",
    ),
    (
        "{target}, authenticators: {a: {jwt: {leeway: 25h, jwks: {uri: 'https://a.example'}}}}",
        "leeway is up to 24h",
    ),
    ("{target}, authenticators: {a: {jwt: {jwks: {uri: 'ftp://a.example'}}}}", "should match"),
    (
        "{target}, authenticators: {a: {jwt: {jwks: {uri: 'https://a.example'}, algorithms: [none]}}}",
        "Unsupported value: \"none\"",
    ),
    (
        "{target}, authenticators: {a: {apiKey: {secretRef: {name: a}, from: [{header: a, query: b}]}}}",
        "a credential is in exactly one of header, cookie, query",
    ),
    (
        "{target}, authenticators: {a: {apiKey: {secretRef: {name: a}, from: [{query: a, scheme: Key}]}}}",
        "it goes with header",
    ),
    (
        "{target}, authenticators: {a: {oidc: {issuer: 'accounts.example', clientID: a, clientSecretRef: {name: a}}}}",
        "should match",
    ),
    (
        "{target}, authenticators: {a: {oidc: {issuer: 'https://a.example', clientID: a, clientSecretRef: {name: a}, logoutPath: /oauth2/callback}}}",
        "logoutPath and redirectPath have to differ",
    ),
    (
        "{target}, authenticators: {a: {oidc: {issuer: 'https://a.example', clientID: a, clientSecretRef: {name: a}, cookie: {lifetime: 1s}}}}",
        "lifetime is from 1m to 8784h",
    ),
    (
        "{target}, authenticators: {a: {jwt: {jwks: {inline: '{\"keys\": []}', caConfigMapRef: {name: a}}}}}",
        "caConfigMapRef is for keys that are fetched",
    ),
    (
        "{target}, authenticators: {a: {external: {protocol: HTTP, backendRef: {name: a, port: 80}, cache: {key: [{consumer: {}}]}}}}",
        "cache.key can't have claim or consumer",
    ),
    (
        "{target}, authenticators: {a: {external: {protocol: HTTP, backendRef: {name: a, port: 80}, cache: {key: [{path: {}, method: {}}]}}}}",
        "a part of a key has exactly one of",
    ),
    (
        "{target}, authenticators: {a: {external: {protocol: HTTP, backendRef: {name: a, port: 80}, cache: {key: [{path: {}}], ttl: 2h}}}}",
        "ttl is from 1s to 1h",
    ),
    ("{target}, authorization: {rules: {a: {operation: {paths: ['a']}}}}", "should match"),
    ("{target}, authorization: {rules: {a: {action: Maybe}}}", "Unsupported value: \"Maybe\""),
    ("{target}, denied: {unauthenticated: 200}", "should be greater than or equal to 400"),
];

/// The same of ClientPolicies.
const REFUSED_CLIENTS: &[(&str, &str)] = &[
    (
        "{target}, limits: {requestBodyBytes: 1Mi}",
        "targetRefs take a Gateway or ListenerSet of group gateway.networking.k8s.io",
    ),
    (
        "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}, {group: gateway.networking.k8s.io, kind: ListenerSet, name: a}], limits: {requestBodyBytes: 1Mi}",
        "of one kind",
    ),
    ("{gateway}, limits: {}", "should have at least 1 properties"),
    ("{gateway}, limits: {requestBodyBytes: 1mb}", "should match"),
    ("{gateway}, limits: {requestBodyBytes: 1048576}", "expected string"),
    ("{gateway}", "the policy says nothing; write limits, timeouts, clientIP, http2, headers, path or tls"),
    (
        "{gateway}, mode: Shadow, limits: {requestBodyBytes: 1Mi}, headers: {server: us}",
        "mode Shadow tries what refuses requests: limits, headers.underscores and path",
    ),
    ("{gateway}, timeouts: {keepAliveIdle: 1ms}", "timeouts are from 100ms to 24h"),
    ("{gateway}, limits: {requestHeaderCount: 0}", "should be greater than or equal to 1"),
    ("{gateway}, http2: {maxConcurrentStreams: 0}", "should be greater than or equal to 1"),
    ("{gateway}, headers: {requestID: {header: X-Forwarded-For}}", "requestID.header has a meaning already"),
    ("{gateway}, tls: {minVersion: '1.1'}", "Unsupported value: \"1.1\""),
    ("{gateway}, tls: {minVersion: '1.3', maxVersion: '1.2'}", "minVersion is newer than maxVersion"),
    ("{gateway}, tls: {cipherSuites: [TLS_RSA_WITH_AES_128_CBC_SHA]}", "should match '^TLS_"),
    ("{gateway}, path: {escapedSlashes: Merge}", "Unsupported value: \"Merge\""),
    ("{gateway}, clientIP: {header: X-Real-IP}", "header needs trustedCIDRs or trustedHops"),
    (
        "{gateway}, clientIP: {proxyProtocol: Accept, trustedHops: 1}",
        "proxyProtocol: Accept needs trustedCIDRs",
    ),
];

/// The same of GatewayParameters.
const REFUSED_PARAMETERS: &[(&str, &str)] = &[
    ("service: {type: ExternalName}", "Unsupported value: \"ExternalName\""),
    ("service: {externalTrafficPolicy: Node}", "Unsupported value: \"Node\""),
    ("service: {loadBalancerClass: ''}", "should be at least 1 chars long"),
];

/// All of them, by kind.
const TABLES: &[(&str, &[(&str, &str)])] = &[
    ("RateLimitPolicy", REFUSED),
    ("CircuitBreakerPolicy", REFUSED_BREAKERS),
    ("AuthPolicy", REFUSED_AUTH),
    ("ClientPolicy", REFUSED_CLIENTS),
    ("GatewayParameters", REFUSED_PARAMETERS),
];

const GATEWAY: &str = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}]";
const TARGET: &str = "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: limited}]";

/// An object of a kind of ours.
fn ours(kind: &str, name: &str, spec: &str) -> String {
    let spec = spec.replace("{target}", TARGET).replace("{gateway}", GATEWAY);
    format!(
        "{{apiVersion: headgate.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    )
}

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    let mut refusals = Vec::new();
    for (kind, rows) in TABLES {
        for (spec, sentence) in *rows {
            match cluster.apply(namespace, &ours(kind, "refused", spec)).await {
                Ok(()) => bail!("taken: {kind} {spec}"),
                Err(error) => {
                    let told = format!("{error:#}");
                    ensure!(told.contains(sentence), "{kind} {spec}: not {sentence:?}, but {told}");
                    refusals.push((*kind, told));
                }
            }
        }
    }
    let rules = whole(cluster, &refusals).await?;
    // A word that readers of YAML like to take for false.
    let off = "{gateway}, clientIP: {trustedHops: 1, proxyProtocol: \"Off\"}";
    cluster.apply(namespace, &ours("ClientPolicy", "off", off)).await?;
    enforced(cluster, namespace).await?;
    let refused = refusals.len();
    Ok(format!(
        "{refused} refused as they should be, by all {rules} rules; a limit of {LIMIT} held by each replica"
    ))
}

/// Fails unless every rule of our kinds has refused something. Returns how many there are; rules of a kind with
/// the same message count once.
async fn whole(cluster: &Cluster, refusals: &[(&str, String)]) -> Result<usize> {
    let definitions = cluster.list("CustomResourceDefinition", "", "").await?;
    let mut rules = BTreeSet::new();
    for definition in &definitions {
        let spec = &definition["spec"];
        if spec["group"] == "headgate.dev" {
            let kind = spec["names"]["kind"].as_str().context("no kind")?;
            rules.extend(messages(&spec["versions"]).into_iter().map(|message| (kind, message)));
        }
    }
    ensure!(!rules.is_empty(), "our kinds have no rules");
    let unbroken = rules.iter().filter(|(kind, message)| {
        !refusals.iter().any(|(refused, told)| refused == kind && told.contains(message))
    });
    let unbroken: Vec<_> = unbroken.collect();
    ensure!(unbroken.is_empty(), "no row breaks these rules: {unbroken:?}");
    Ok(rules.len())
}

/// The messages of all rules in a schema. A rule without one is refused with the rule itself.
fn messages(schema: &Value) -> Vec<&str> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let here = rules.filter_map(|rule| rule["message"].as_str().or(rule["rule"].as_str()));
    let fields = schema.as_object().into_iter().flat_map(|fields| fields.values());
    let items = schema.as_array().into_iter().flatten();
    here.chain(fields.chain(items).flat_map(messages)).collect()
}

async fn enforced(cluster: &Cluster, namespace: &str) -> Result<()> {
    cluster.apply(namespace, &objects::backend("web", 1)).await?;
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &[objects::HTTP])).await?;
    let route = objects::route("limited", &objects::parent("web"), HOST, &objects::to("web"));
    cluster.apply(namespace, &route).await?;
    cluster.rolled_out(namespace, "web").await?;
    let target = Target::http(cluster.address(namespace, "web").await?, 80, HOST);
    cluster.wait("the route is served", SOON, async || target.answers(StatusCode::OK, 10).await).await?;
    let spec = format!("{{target}}, limits: {{hourly: {{rates: [{{limit: {LIMIT}, window: 1h}}]}}}}");
    cluster.apply(namespace, &ours("RateLimitPolicy", "hourly", &spec)).await?;
    cluster
        .wait("the policy is programmed", SOON, async || {
            let object = cluster.get("RateLimitPolicy", namespace, "hourly").await?;
            let ancestor = &object["status"]["ancestors"][0];
            for kind in ["Accepted", "Programmed"] {
                let condition = Condition::find(&ancestor["conditions"], kind)?;
                ensure!(condition.status == "True", "{condition:?}");
            }
            let route = cluster.get("HTTPRoute", namespace, "limited").await?;
            let told = &route["status"]["parents"][0]["conditions"];
            Condition::find(told, "headgate.dev/RateLimitPolicyAffected").map(drop)
        })
        .await?;
    // The leader has told; the other replica reads the same at its own pace.
    cluster
        .wait("both replicas refuse", SOON, async || {
            target.answers(StatusCode::TOO_MANY_REQUESTS, REQUESTS).await
        })
        .await?;
    let object = cluster.get("RateLimitPolicy", namespace, "hourly").await?;
    ensure!(object["status"]["ancestors"].as_array().context("no ancestors")?.len() == 1, "{object}");
    cluster.delete("RateLimitPolicy", namespace, "hourly").await?;
    cluster
        .wait("without the policy all pass", SOON, async || target.answers(StatusCode::OK, REQUESTS).await)
        .await?;
    Ok(())
}
