//! Everything that a user can get wrong without the API server noticing: each has a condition that says what is
//! wrong and names it, the requests it is about are refused, and the rest of the same Gateway is served all the while.

use crate::client::Target;
use crate::cluster::{Cluster, Condition, SOON};
use crate::load::{Connections, Load, Tally};
use crate::objects::{self, Certificate, HTTP};
use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use serde_json::Value;
use std::time::Duration;

const GOOD: &str = "good.example";

/// A route that can't be honoured.
struct BadRoute {
    name: &'static str,
    rule: &'static str,
    /// The condition that is False, and the reasons of the specification that fit.
    condition: &'static str,
    reasons: &'static [&'static str],
    /// What the message must name.
    named: &'static str,
}

const ROUTES: [BadRoute; 3] = [
    BadRoute {
        name: "unknown-filter",
        rule: "{filters: [{type: ExtensionRef, extensionRef: {group: example.com, kind: Nonsense, name: n}}], \
               backendRefs: [{name: web, port: 80}]}",
        condition: "Accepted",
        reasons: &["UnsupportedValue"],
        named: "spec.rules[0].filters[0]",
    },
    BadRoute {
        name: "missing-service",
        rule: "{backendRefs: [{name: nowhere, port: 80}]}",
        condition: "ResolvedRefs",
        reasons: &["BackendNotFound"],
        named: "nowhere",
    },
    BadRoute {
        name: "missing-port",
        rule: "{backendRefs: [{name: web, port: 8181}]}",
        condition: "ResolvedRefs",
        reasons: &["BackendNotFound"],
        named: "8181",
    },
];

/// A listener that can't be honoured.
struct BadListener {
    name: &'static str,
    condition: &'static str,
    status: &'static str,
    reasons: &'static [&'static str],
    named: &'static str,
}

const LISTENERS: [BadListener; 3] = [
    BadListener {
        name: "missing-secret",
        condition: "ResolvedRefs",
        status: "False",
        reasons: &["InvalidCertificateRef"],
        named: "no-such-secret",
    },
    BadListener {
        name: "not-a-certificate",
        condition: "ResolvedRefs",
        status: "False",
        reasons: &["InvalidCertificateRef"],
        named: "not-a-certificate",
    },
    BadListener {
        name: "overlapping",
        condition: "Conflicted",
        status: "True",
        reasons: &["ProtocolConflict", "HostnameConflict"],
        named: "9000",
    },
];

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    cluster.apply(namespace, &objects::backend("web", 1)).await?;
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &[HTTP])).await?;
    cluster
        .apply(namespace, &objects::route("good", &objects::parent("web"), GOOD, &objects::to("web")))
        .await?;
    cluster.rolled_out(namespace, "web").await?;
    let address = cluster.address(namespace, "web").await?;
    let good = Target::http(address, 80, GOOD);
    cluster.wait("the good route is served", SOON, async || good.answers(StatusCode::OK, 10).await).await?;

    let load = Load::new().add(4, Connections::Kept, Duration::from_millis(10), &good).add(
        2,
        Connections::Fresh,
        Duration::from_millis(20),
        &good,
    );
    let outcome = spoil(cluster, namespace, address).await;
    let tally = Tally::sum(&load.stop().await?);
    outcome?;
    tally.flawless().context("the good route, beside all that is bad")?;
    Ok(format!("{} refusals with a condition each; beside them {tally}", ROUTES.len() + LISTENERS.len()))
}

async fn spoil(cluster: &Cluster, namespace: &str, address: std::net::IpAddr) -> Result<()> {
    for bad in &ROUTES {
        let host = format!("{}.example", bad.name);
        let route = objects::route(bad.name, &objects::parent("web"), &host, bad.rule);
        cluster.apply(namespace, &route).await?;
        cluster
            .wait(&format!("HTTPRoute {} is refused", bad.name), SOON, async || {
                refused_route(&cluster.get("HTTPRoute", namespace, bad.name).await?, bad)
            })
            .await?;
        // Never skipped, and never as if the route weren't there: requests that match it are answered for it.
        let target = Target::http(address, 80, &host);
        let refused = async || target.answers(StatusCode::INTERNAL_SERVER_ERROR, 10).await;
        cluster.wait(&format!("requests for {host} are refused"), SOON, refused).await?;
    }

    cluster
        .apply(namespace, &objects::secret("not-a-certificate", "nothing of the kind", "nor this"))
        .await?;
    cluster.apply(namespace, &Certificate::new("overlapping.example")?.secret("valid")).await?;
    let listeners = [
        HTTP.to_owned(),
        objects::https("missing-secret", 8443, "no-such-secret"),
        objects::https("not-a-certificate", 8444, "not-a-certificate"),
        "{name: first, port: 9000, protocol: HTTP}".to_owned(),
        objects::https("overlapping", 9000, "valid"),
    ];
    let listeners: Vec<&str> = listeners.iter().map(String::as_str).collect();
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &listeners)).await?;
    for bad in &LISTENERS {
        cluster
            .wait(&format!("listener {} is refused", bad.name), SOON, async || {
                refused_listener(&cluster.get("Gateway", namespace, "web").await?, bad)
            })
            .await?;
    }
    // The Gateway as a whole still is what its good listener makes of it.
    let gateway = cluster.get("Gateway", namespace, "web").await?;
    let accepted = Condition::find(&gateway["status"]["conditions"], "Accepted")?;
    ensure!(accepted.status == "True" && accepted.reason == "ListenersNotValid", "the Gateway: {accepted:?}");
    Ok(())
}

fn refused_route(route: &Value, bad: &BadRoute) -> Result<()> {
    let condition = Condition::find(&route["status"]["parents"][0]["conditions"], bad.condition)?;
    ensure!(condition.status == "False", "nothing is refused: {condition:?}");
    says(&condition, bad.reasons, bad.named)
}

fn refused_listener(gateway: &Value, bad: &BadListener) -> Result<()> {
    let listeners = gateway["status"]["listeners"].as_array().context("no listeners in the status")?;
    let listener =
        listeners.iter().find(|listener| listener["name"] == bad.name).context("it has no status")?;
    let condition = Condition::find(&listener["conditions"], bad.condition)?;
    ensure!(condition.status == bad.status, "{condition:?}");
    says(&condition, bad.reasons, bad.named)?;
    let programmed = Condition::find(&listener["conditions"], "Programmed")?;
    ensure!(programmed.status == "False", "{programmed:?}");
    Ok(())
}

fn says(condition: &Condition, reasons: &[&str], named: &str) -> Result<()> {
    if !reasons.contains(&condition.reason.as_str()) {
        bail!("the reason is none of {reasons:?}: {condition:?}");
    }
    ensure!(condition.message.contains(named), "the message doesn't name {named}: {condition:?}");
    Ok(())
}
