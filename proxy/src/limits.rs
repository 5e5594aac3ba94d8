//! The bounds of security.md §8 that the data path keeps, with their defaults. They hold without any policy.

use http::Uri;
use std::time::Duration;

/// Connections that a process takes when its descriptors allow more.
const MOST_CONNECTIONS: usize = 50_000;
/// Sessions of datagrams that a process has when its descriptors allow more.
const MOST_SESSIONS: usize = 10_000;
/// Descriptors assumed when the system doesn't tell: the usual soft limit.
const USUAL_DESCRIPTORS: usize = 1_024;

/// Bytes of a request target.
const TARGET: usize = 16 * 1024;
/// Bytes of a head, and of an HTTP/2 header list.
pub(crate) const HEAD: usize = 64 * 1024;
/// Fields of a request head.
pub(crate) const FIELDS: usize = 100;
/// Bytes of a method's name; more is answered 501.
pub(crate) const METHOD: usize = 64;
/// Body bytes that an answer of our own drains so that the connection can be kept.
pub(crate) const DRAINED_BODY: u64 = 64 * 1024;
/// Bytes a second that a request's body must have brought on average, once [`Limits::slow_body`] was waited for it.
pub(crate) const BODY_RATE: u64 = 240;
/// HTTP/2 streams a client may have open at once.
const STREAMS: u32 = 128;
/// Bytes a client may send ahead on one HTTP/2 stream.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Bytes a client may send ahead on an HTTP/2 connection.
pub(crate) const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// HTTP/2 streams that a client may have reset before we looked at them.
pub(crate) const PENDING_RESETS: usize = 20;
/// Requests over HTTP/2 that a client may give up before their answers.
const RESETS: u32 = 1_000;
/// HTTP/2 streams that we reset for a client's errors before the connection is ended.
pub(crate) const LOCAL_RESETS: usize = 200;

/// Bounds in time and number. [`Limits::default`] has the documented defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections of the whole process; when they are reached, accepting pauses. Default: 50,000, or 80 % of
    /// the descriptors the process may open.
    pub connections: usize,
    /// For a TLS handshake: 10 s.
    pub handshake: Duration,
    /// For a request head to arrive: 10 s.
    pub head: Duration,
    /// Bytes of a request head; more is answered 431: 64 KiB.
    pub head_bytes: usize,
    /// Bytes of an HTTP/2 header list; more is answered 431: 64 KiB.
    pub header_list: u32,
    /// Whether HTTP/2 is spoken: yes.
    pub http2: bool,
    /// HTTP/2 streams that a client may have open at once: 128.
    pub streams: u32,
    /// Bytes that a client may send ahead on an HTTP/2 stream: 64 KiB.
    pub stream_window: u32,
    /// Requests that a client may give up before their answers, on one HTTP/2 connection; after the next it is asked to go: 1,000.
    pub resets: u32,
    /// Fields of a request head; more is answered 431: 100.
    pub head_fields: usize,
    /// Bytes of a request target; more is answered 414: 16 KiB.
    pub target_bytes: usize,
    /// After which a connection ends with its next answer: never.
    pub age: Option<Duration>,
    /// For the next request on a kept connection: 75 s.
    pub keep_alive: Duration,
    /// Silence in a request's body, and of a client that takes no more of the answer: 60 s.
    pub body: Duration,
    /// Waiting for a request's body, all pauses together, before it must have come at 240 bytes a second or more: 10 s.
    /// gRPC and upgraded connections have no such bound.
    pub slow_body: Duration,
    /// Silence in a response's body or an upgraded connection: 5 min.
    pub stream: Duration,
    /// For the first byte of body that an answer of ours drains to its last: 5 s.
    pub drained_body: Duration,
    /// Silence in a connection that isn't HTTP: 1 h.
    pub tcp_idle: Duration,
    /// Silence in a session of datagrams: 1 min.
    pub udp_idle: Duration,
    /// Sessions of datagrams of the whole process; clients beyond that aren't heard. Default: 10,000, or 10 % of the
    /// descriptors the process may open.
    pub udp_sessions: usize,
    /// For a connection to a backend, over all its endpoints: 5 s.
    pub connect: Duration,
    /// For a connection to one endpoint while there are others to try: 1 s.
    pub connect_one: Duration,
    /// For the head of a backend's answer, once it has the request: 60 s.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MOST_CONNECTIONS.min(descriptors() / 5 * 4),
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            head_bytes: HEAD,
            header_list: HEAD as u32,
            http2: true,
            streams: STREAMS,
            stream_window: STREAM_WINDOW,
            resets: RESETS,
            head_fields: FIELDS,
            target_bytes: TARGET,
            age: None,
            keep_alive: Duration::from_secs(75),
            body: Duration::from_secs(60),
            slow_body: Duration::from_secs(10),
            stream: Duration::from_secs(5 * 60),
            drained_body: Duration::from_secs(5),
            tcp_idle: Duration::from_secs(60 * 60),
            udp_idle: Duration::from_secs(60),
            udp_sessions: MOST_SESSIONS.min(descriptors() / 10),
            connect: Duration::from_secs(5),
            connect_one: Duration::from_secs(1),
            answer: Duration::from_secs(60),
        }
    }
}

/// `RLIMIT_NOFILE`, as Linux tells it without a system call of its own.
fn descriptors() -> usize {
    std::fs::read_to_string("/proc/self/limits")
        .ok()
        .and_then(|limits| open_files(&limits))
        .unwrap_or(USUAL_DESCRIPTORS)
}

fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        soft => soft.parse().ok(),
    }
}

/// Bytes of a target, as [`Limits::target_bytes`] bounds them: path and query, and where it is there the authority.
pub(crate) fn target_bytes(uri: &Uri) -> usize {
    uri.path_and_query().map_or(0, |target| target.as_str().len())
        + uri.authority().map_or(0, |authority| authority.as_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_read_as_the_kernel_prints_them() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files("Max open files  unlimited unlimited files"), Some(usize::MAX));
        assert_eq!(open_files(""), None);
        assert!(Limits::default().connections > 100);
    }
}
