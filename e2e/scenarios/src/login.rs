//! A browser logs in at an OpenID provider, both as others have made them. Its session outlives its tokens; the provider gets
//! other keys, and the next login is verified by those; it logs out, here and there.

use crate::browser::Browser;
use crate::client::Target;
use crate::cluster::{Cluster, SOON};
use crate::objects::{self, Certificate};
use anyhow::{Context, Result, ensure};
use http::StatusCode;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const HOST: &str = "login.example";
/// What the provider's tokens are good for, and a second.
const TOKENS: Duration = Duration::from_secs(4);
/// For what may need several tries: keys are fetched again after ten seconds.
const LATER: Duration = Duration::from_secs(60);
const COOKIE: &str = "__Host-headgate-session";

pub async fn run(cluster: &Cluster, namespace: &str) -> Result<String> {
    let provider = cluster.free_address().await?;
    let mut running = start(provider).await.context("the provider")?;
    let secret = Certificate::new(HOST)?;
    cluster.apply(namespace, &secret.secret("login")).await?;
    let listeners = [objects::https("https", 443, "login")];
    let listeners = listeners.each_ref().map(String::as_str);
    cluster.apply(namespace, &objects::gateway("web", &cluster.gateway_class, &listeners)).await?;
    cluster.apply(namespace, &objects::backend("web", 2)).await?;
    let route = objects::route("web", &objects::parent("web"), HOST, &objects::to("web"));
    cluster.apply(namespace, &route).await?;
    cluster.apply(namespace, &policy(provider)).await?;
    cluster.rolled_out(namespace, "web").await?;
    let address = cluster.address(namespace, "web").await?;
    let target = Target::https(address, 443, HOST, &[secret.der])?;
    // What isn't a browser isn't sent anywhere.
    let refused = async || target.answers(StatusCode::UNAUTHORIZED, 1).await.map(drop);
    cluster.wait_for_all("the policy is in force", refused).await?;

    let mut browser = Browser::start(&format!("MAP {HOST} {address}")).await.context("the browser")?;
    let page = format!("https://{HOST}/shop?x=1");
    browser.open(&page).await?;
    log_in(&mut browser, "ada", provider).await?;
    see(&mut browser, &page, "ada").await?;

    let first = browser.cookie(&page, COOKIE).await?;
    ensure!(first["httpOnly"] == true && first["secure"] == true && first["sameSite"] == "Lax", "{first}");
    tokio::time::sleep(TOKENS).await;
    browser.open(&page).await?;
    see(&mut browser, &page, "ada").await?;
    let second = browser.cookie(&page, COOKIE).await?;
    ensure!(first["value"] != second["value"], "the session was not refreshed");

    // It forgets all sessions, and what it signs is signed by another key.
    running.kill().await?;
    let _running = start(provider).await.context("the provider, again")?;
    tokio::time::sleep(TOKENS).await;
    again(&mut browser, &page, provider).await?;

    browser.open(&format!("https://{HOST}/oauth2/logout")).await?;
    browser.wait("the provider asks", "document.querySelector('button[name=logout]') !== null").await?;
    browser.evaluate("document.querySelector('button[name=logout]').click()").await?;
    // From there back to us, who send it to log in.
    at_login(&mut browser, provider).await?;
    ensure!(browser.cookie(&page, COOKIE).await.is_err(), "the session is still there");
    Ok("a browser logged in, was refreshed, logged in again by other keys, and logged out".to_owned())
}

/// Logs in again, by the provider's other keys: it may be too soon for one or the other replica to ask for them.
async fn again(browser: &mut Browser, page: &str, provider: SocketAddr) -> Result<()> {
    let begin = Instant::now();
    loop {
        browser.open(page).await?;
        let outcome = async {
            log_in(browser, "grace", provider).await?;
            see(browser, page, "grace").await
        };
        match outcome.await {
            Ok(()) => return Ok(()),
            Err(error) if begin.elapsed() > LATER => {
                return Err(error.context("by the provider's other keys"));
            }
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

fn policy(provider: SocketAddr) -> String {
    let spec = json!({
        "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}],
        "authenticators": {"provider": {"oidc": {
            "issuer": format!("http://{provider}"),
            "clientID": "shop",
            "clientSecretRef": {"name": "provider"},
            "scopes": ["email"],
            "logoutPath": "/oauth2/logout",
            "claimsToHeaders": [{"claim": "sub", "header": "X-User"}, {"claim": "email", "header": "X-Email"}],
        }}},
    });
    let (metadata, version) = (json!({"name": "login"}), "headgate.dev/v1alpha1");
    let policy = json!({"apiVersion": version, "kind": "AuthPolicy", "metadata": metadata, "spec": spec});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "headgate.dev/oidc",
        "metadata": {"name": "provider"}, "stringData": {"client-secret": "the-secret-of-the-shop"}});
    format!("{secret}\n---\n{policy}")
}

/// Starts the provider; ends when it is dropped.
async fn start(address: SocketAddr) -> Result<Child> {
    let program = std::env::var("OPENID_PROVIDER").context("OPENID_PROVIDER doesn't name the program")?;
    let mut process = Command::new("node")
        .arg(program)
        .arg(format!("http://{address}"))
        .args([format!("https://{HOST}/oauth2/callback"), format!("https://{HOST}/")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("node can't be run")?;
    let told = process.stdout.take().context("it has no stdout")?;
    let ready = tokio::time::timeout(SOON, BufReader::new(told).lines().next_line()).await;
    let ready = ready.context("it doesn't start")??;
    ensure!(ready.as_deref() == Some("ready"), "it says {ready:?}");
    Ok(process)
}

async fn at_login(browser: &mut Browser, provider: SocketAddr) -> Result<()> {
    let form =
        format!("location.host === '{provider}' && document.querySelector('input[name=login]') !== null");
    browser.wait("the provider's login", &form).await
}

/// Fills the provider's forms.
async fn log_in(browser: &mut Browser, user: &str, provider: SocketAddr) -> Result<()> {
    at_login(browser, provider).await?;
    let fill = format!(
        "document.querySelector('input[name=login]').value = '{user}'; \
         document.querySelector('input[name=password]').value = 'secret'; document.forms[0].submit()"
    );
    browser.evaluate(&fill).await?;
    let consent = "document.querySelector('input[name=prompt][value=consent]') !== null";
    browser.wait("the provider's question", consent).await?;
    browser.evaluate("document.forms[0].submit()").await.map(drop)
}

/// The page is the backend's, and the backend knows who sees it.
async fn see(browser: &mut Browser, page: &str, user: &str) -> Result<()> {
    browser
        .wait("the page", &format!("location.href === '{page}' && document.body.innerText.includes('pod')"))
        .await?;
    let text = browser.evaluate("document.body.innerText").await?;
    let echo: Value = serde_json::from_str(text.as_str().context("no text")?).context("not the backend's")?;
    let headers = &echo["headers"];
    let email = format!("{user}@users.example");
    ensure!(headers["X-User"] == json!([user]) && headers["X-Email"] == json!([email]), "{headers}");
    ensure!(headers["Cookie"].is_null(), "{headers}");
    Ok(())
}
