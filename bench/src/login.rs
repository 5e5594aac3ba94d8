//! A login at an OpenID provider of a few lines, for the sake of its session's cookie.
//!
//! The provider believes everybody: the code that it is asked about *is* the nonce of the login. So no page is needed between:
//! the client takes the nonce out of the address that the proxy sends it to, and comes back with it.

use crate::peer::{Peer, START, Work};
use crate::token::Signer;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The proxy, as the provider knows it.
pub const CLIENT: &str = "bench";
/// What the proxy shows the provider, and seals cookies by.
pub const SECRET: &str = "a secret of the client, long enough for a key";

/// Of the provider on a port.
pub fn issuer(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// The same work, with a provider where there are logins.
pub fn provided(work: Work, signer: &Arc<Signer>) -> Result<Work> {
    match work {
        Work::Session(_) => Ok(Work::Session(start(signer.clone())?)),
        Work::Plain
        | Work::Routes(_)
        | Work::Tls
        | Work::WebSocket
        | Work::Limit
        | Work::Jwt(_)
        | Work::Breaker => Ok(work),
    }
}

/// Starts a provider that ends with the process; its port.
fn start(signer: Arc<Signer>) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::Builder::new().name("provider".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Err(error) = serve(&stream, &signer, port) {
                eprintln!("the provider: {error:#}");
            }
        }
    })?;
    Ok(port)
}

/// One request a connection.
fn serve(mut stream: &TcpStream, signer: &Signer, port: u16) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).context("no path")?.to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let text = answer(&path, &String::from_utf8_lossy(&body), signer, port)?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all((head + &text).as_bytes())?;
    Ok(())
}

fn answer(path: &str, body: &str, signer: &Signer, port: u16) -> Result<String> {
    let issuer = issuer(port);
    let answer: Value = match path {
        "/.well-known/openid-configuration" => json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }),
        "/keys" => return Ok(signer.jwks()),
        "/token" => {
            let nonce = parameter(body, "code").context("no code")?;
            let claims = json!({
                "iss": issuer, "sub": "8a7c1f0e-5a53-4f3d-9f0e-2b8f5a1d7c11", "aud": CLIENT, "nonce": nonce,
                "email": "ann@bench.example",
            });
            json!({
                "access_token": "an-access-token", "token_type": "Bearer", "expires_in": 86_400,
                "id_token": signer.sign_claims(claims)?,
            })
        }
        _ => bail!("asked for {path}"),
    };
    Ok(answer.to_string())
}

/// Logs in; the session's cookie, as a field of a request.
pub fn cookie(peer: &Peer) -> Result<String> {
    let began = Instant::now();
    loop {
        match log_in(peer.port()) {
            Ok(cookie) => return Ok(cookie),
            // It may not have started, or not have asked the provider for its keys.
            Err(error) => ensure!(began.elapsed() < START, "no login: {error:#}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn log_in(port: u16) -> Result<String> {
    let sent = ask(port, "/", None)?;
    let to = field(&sent, "location").context("not sent to the provider")?;
    let (_, query) = to.split_once('?').context("sent there without a question")?;
    let (nonce, state) = (parameter(query, "nonce"), parameter(query, "state"));
    let (nonce, state) = (nonce.context("no nonce")?, state.context("no state")?);
    let attempt = cookies(&sent).context("no cookie of the login")?;
    let back = ask(port, &format!("/oauth2/callback?code={nonce}&state={state}"), Some(&attempt))?;
    let session = cookies(&back).with_context(|| format!("no session: {back}"))?;
    Ok(format!("Cookie: {session}"))
}

/// The answer to a browser; the connection ends with it.
fn ask(port: u16, path: &str, cookies: Option<&str>) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let cookies = cookies.map(|cookies| format!("Cookie: {cookies}\r\n")).unwrap_or_default();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: bench.example\r\nAccept: text/html\r\nConnection: close\r\n{cookies}\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn fields<'a>(answer: &'a str, wanted: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = answer.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(": "));
    lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
}

fn field<'a>(answer: &'a str, wanted: &'a str) -> Option<&'a str> {
    fields(answer, wanted).next()
}

/// Those that an answer sets, without those that it forgets.
fn cookies(answer: &str) -> Option<String> {
    let set = fields(answer, "set-cookie").filter_map(|cookie| cookie.split(';').next());
    let set: Vec<_> = set.filter(|cookie| !cookie.ends_with('=')).collect();
    (!set.is_empty()).then(|| set.join("; "))
}

/// Of a query or a form; nothing here needs decoding.
fn parameter<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(name, value)| (name == wanted).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_proxy_says() {
        let said = "HTTP/1.1 302 Found\r\nLocation: http://p/authorize?a=1&nonce=n&state=s\r\nset-cookie: one=1; Path=/\r\n\
            Set-Cookie: gone=; Max-Age=0\r\nSet-Cookie: two=2; Secure\r\n\r\nset-cookie: three=3\r\n";
        assert_eq!(cookies(said).as_deref(), Some("one=1; two=2"));
        assert_eq!(field(said, "location").and_then(|to| parameter(to, "nonce")), Some("n"));
        assert_eq!(cookies("HTTP/1.1 401 Unauthorized\r\n\r\n"), None);
    }
}
