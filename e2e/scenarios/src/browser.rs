//! Chromium without a window, told what to do by its DevTools protocol.

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long an answer, or a page, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a page.
const LOOK: Duration = Duration::from_millis(100);

/// A browser with one page. It ends when it is dropped.
pub struct Browser {
    socket: WebSocketStream<TcpStream>,
    /// Of the page.
    session: Option<String>,
    sent: u64,
    process: Child,
    /// With all that it keeps.
    profile: std::path::PathBuf,
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = self.process.id() {
            // It may have ended.
            let _ = std::process::Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status();
        }
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

impl Browser {
    /// Starts it. `hosts`: what it resolves names to, such as `MAP a.example 10.0.0.1`. It believes any certificate.
    pub async fn start(hosts: &str) -> Result<Self> {
        let profile = std::env::temp_dir().join(format!("headgate-browser-{}", std::process::id()));
        let mut process = Command::new("chromium-headless-shell")
            // As root it has no sandbox; it sees no page but ours.
            .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--ignore-certificate-errors", "--remote-debugging-port=0"])
            .arg(format!("--host-resolver-rules={hosts}"))
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // The program is a script that waits for the browser: both end as a group.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("chromium-headless-shell can't be run")?;
        let told = process.stderr.take().context("it has no stderr")?;
        let address = tokio::time::timeout(PATIENCE, devtools(told)).await.context("it doesn't start")??;
        let host = address.strip_prefix("ws://").and_then(|rest| rest.split('/').next());
        let stream = TcpStream::connect(host.context("no address")?).await?;
        let (socket, _) = tokio_tungstenite::client_async(&address, stream).await?;
        let mut browser = Self { socket, session: None, sent: 0, process, profile };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"})).await?;
        let page = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", page).await?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        ensure!(browser.session.is_some(), "{attached}");
        Ok(browser)
    }

    /// Types an address.
    pub async fn open(&mut self, address: &str) -> Result<()> {
        let went = self.call("Page.navigate", json!({"url": address})).await?;
        ensure!(went["errorText"].is_null(), "{address}: {}", went["errorText"]);
        Ok(())
    }

    /// Waits until an expression is true of the page.
    pub async fn wait(&mut self, what: &str, expression: &str) -> Result<()> {
        let start = Instant::now();
        let whole = format!("document.readyState === 'complete' && ({expression})");
        loop {
            // While it goes from page to page there is none to ask.
            if matches!(self.evaluate(&whole).await, Ok(Value::Bool(true))) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let page = self.evaluate("location.href + '\\n' + document.body.innerText").await;
                bail!("{what}: not within {} s; the page is {page:?}", PATIENCE.as_secs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What an expression is on the page.
    pub async fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", asked).await?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].take())
    }

    /// The cookie of an address.
    pub async fn cookie(&mut self, address: &str, name: &str) -> Result<Value> {
        let cookies = self.call("Network.getCookies", json!({"urls": [address]})).await?;
        let all = cookies["cookies"].as_array().context("no cookies")?;
        let found = all.iter().find(|cookie| cookie["name"] == name);
        found.cloned().with_context(|| format!("no {name} among {cookies}"))
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.sent += 1;
        let mut message = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(message.to_string())).await?;
        let answer = async {
            loop {
                let message = self.socket.next().await.context("the browser ended")??;
                let mut message: Value = serde_json::from_str(message.to_text()?)?;
                // Others are events.
                if message["id"] == self.sent {
                    ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                    return Ok(message["result"].take());
                }
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.with_context(|| format!("{method}: no answer"))?
    }
}

/// Where it can be told what to do; what it says besides is read until it ends, so that it never waits to be heard.
async fn devtools(told: impl tokio::io::AsyncRead + Unpin + Send + 'static) -> Result<String> {
    let mut lines = BufReader::new(told).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(address) = line.strip_prefix("DevTools listening on ") {
            let address = address.to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(address);
        }
    }
    bail!("chromium-headless-shell ended")
}
