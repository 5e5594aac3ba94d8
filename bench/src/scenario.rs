//! The scenarios: what proxies do, and what clients do to them.

use crate::peer::Work;
use crate::token::Algorithm;

/// Bytes of a small answer.
pub const SMALL: usize = 1024;
/// Bytes of a large answer, and of an upload.
pub const LARGE: usize = 1 << 20;
/// Names besides those of [`all`]: other figures than CPU time.
pub const BESIDES: [&str; 3] = ["latency", "idle", "idle-tls"];

/// One row of the table.
pub struct Scenario {
    /// Short name, for `--only` and the results.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// What proxies do.
    pub work: Work,
    /// What clients do.
    pub clients: Clients,
    /// Client connections, all busy.
    pub connections: u32,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// GET of 1 KiB, keep-alive.
    Keep,
    /// The same, each request on a connection of its own.
    Close,
    /// The same, each connection resuming the session of one before.
    Resume,
    /// GET of 1 KiB over HTTP/2, with so many streams at once.
    Streams(u32),
    /// GET of 1 MiB.
    Download,
    /// POST of 1 MiB.
    Upload,
    /// Small messages over WebSockets, each when the last one's echo is there.
    Messages,
    /// GET of 1 KiB with a token, the same each time.
    Known(Algorithm),
    /// The same with another token each time.
    New(Algorithm),
}

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    use Algorithm::{Es256, Rs256};
    use Clients::{Close, Download, Keep, Known, Messages, New, Resume, Streams, Upload};
    use Work::{Breaker, Jwt, Limit, Plain, Routes, Session, Tls, WebSocket};
    let one = |name, about, work, clients, connections| Scenario { name, about, work, clients, connections };
    vec![
        one("h1-keepalive-64", "HTTP/1.1 keep-alive, 64 connections, 1 KiB answers", Plain, Keep, 64),
        one("h1-keepalive-1", "the same with 1 connection", Plain, Keep, 1),
        one("h1-keepalive-1000", "the same with 1,000 connections", Plain, Keep, 1_000),
        one("tls-keepalive-64", "HTTP/1.1 over TLS 1.3, 64 connections", Tls, Keep, 64),
        one("tls-handshake", "a full TLS 1.3 handshake (P-256) for each request", Tls, Close, 16),
        one("tls-resumed", "a resumed TLS 1.3 handshake for each request", Tls, Resume, 16),
        one(
            "h2-tls-16x32",
            "HTTP/2 over TLS to HTTP/1.1, 16 connections with 32 streams",
            Tls,
            Streams(32),
            16,
        ),
        one("routes-1000", "one of 1,000 routes by prefix", Routes(1_000), Keep, 64),
        one("routes-10000", "one of 10,000 routes by prefix", Routes(10_000), Keep, 64),
        one("download-1m", "answers of 1 MiB", Plain, Download, 16),
        one("download-1m-tls", "answers of 1 MiB over TLS 1.3", Tls, Download, 16),
        one("upload-1m", "uploads of 1 MiB", Plain, Upload, 16),
        one(
            "websocket",
            "a WebSocket message of 64 bytes and its echo, 64 connections",
            WebSocket,
            Messages,
            64,
        ),
        one("rate-limit", "a local limit by address that isn't reached", Limit, Keep, 64),
        one("jwt-known-es256", "a token (ES256), the same each time", Jwt(Es256), Known(Es256), 64),
        one("jwt-known-rs256", "a token (RS256), the same each time", Jwt(Rs256), Known(Rs256), 64),
        one("jwt-new-es256", "a new token (ES256) each time", Jwt(Es256), New(Es256), 64),
        one("jwt-new-rs256", "a new token (RS256) each time", Jwt(Rs256), New(Rs256), 64),
        // The provider's port is known when there is one.
        one("oidc-session", "a user who has logged in (OpenID Connect)", Session(0), Keep, 64),
        one("breaker", "failures of backends are watched", Breaker, Keep, 64),
    ]
}

/// Which are wanted: all where `only` is empty, else those whose names contain one of its parts. None: a part is in no
/// name.
pub fn wanted(only: &[String]) -> Option<Vec<&'static str>> {
    let names: Vec<_> = all().iter().map(|scenario| scenario.name).chain(BESIDES).collect();
    let is_known = |part: &String| names.iter().any(|name| name.contains(part.as_str()));
    if !only.iter().all(is_known) {
        return None;
    }
    let is_wanted = |name: &&str| only.is_empty() || only.iter().any(|part| name.contains(part.as_str()));
    Some(names.into_iter().filter(is_wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn several_scenarios_by_parts_of_their_names() {
        let names = |only: &[&str]| wanted(&only.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["idle", "routes"]), Some(vec!["routes-1000", "routes-10000", "idle", "idle-tls"]));
        assert_eq!(names(&["idle", "router"]), None, "a typo is no reason to measure less");
        assert_eq!(names(&[]).map(|all| all.len()), Some(super::all().len() + 3));
    }
}
