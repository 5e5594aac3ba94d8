//! Load that lasts while something else happens, and a strict count of what went wrong with it. Every request that
//! doesn't get a 200 with a whole body is a failure; the one thing forgiven is a connection that was already closed
//! when the next request was to be sent on it, which every client with a pool has to expect.

use crate::client::{Connection, Target};
use anyhow::{Result, bail};
use http::StatusCode;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Failures that are remembered word for word; the rest is counted.
const REMEMBERED: usize = 5;

/// How a worker uses connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// One, as long as the server lets it.
    Kept,
    /// Another for each request.
    Fresh,
}

/// Workers that send requests until they are told to stop.
pub struct Load {
    stop: watch::Sender<bool>,
    done: Arc<AtomicU64>,
    workers: JoinSet<Tally>,
}

impl Load {
    /// No workers yet.
    pub fn new() -> Self {
        Self { stop: watch::Sender::new(false), done: Arc::default(), workers: JoinSet::new() }
    }

    /// Adds workers, each of which sends a request every `pace`, or as fast as it gets answers if those take longer.
    pub fn add(mut self, workers: usize, connections: Connections, pace: Duration, target: &Target) -> Self {
        for _ in 0..workers {
            let worker = Worker { target: target.clone(), connections, pace, done: self.done.clone() };
            self.workers.spawn(worker.run(self.stop.subscribe()));
        }
        self
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the load; every request that was begun is waited for.
    pub async fn stop(mut self) -> Result<Vec<Tally>> {
        self.stop.send_replace(true);
        let mut tallies = Vec::new();
        while let Some(tally) = self.workers.join_next().await {
            tallies.push(tally?);
        }
        Ok(tallies)
    }
}

/// What one worker saw, or several together.
#[derive(Default)]
pub struct Tally {
    /// Requests sent.
    pub requests: u64,
    /// Connections opened.
    pub connections: u64,
    /// Requests that failed, and attempts to connect.
    pub failures: u64,
    /// When the first and the last of them failed.
    pub failed: Option<(Instant, Instant)>,
    /// What the first of them were.
    pub words: Vec<String>,
    /// Pods that answered.
    pub pods: BTreeSet<String>,
    /// The slowest good answer.
    pub slowest: Duration,
}

impl Tally {
    /// All of them in one.
    pub fn sum(tallies: &[Self]) -> Self {
        let mut sum = Self::default();
        for tally in tallies {
            sum.requests += tally.requests;
            sum.connections += tally.connections;
            sum.failures += tally.failures;
            sum.failed = match (sum.failed, tally.failed) {
                (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
                (one, other) => one.or(other),
            };
            sum.words.extend(tally.words.iter().cloned());
            sum.pods.extend(tally.pods.iter().cloned());
            sum.slowest = sum.slowest.max(tally.slowest);
        }
        sum.words.truncate(REMEMBERED);
        sum
    }

    /// Fails when a request failed.
    pub fn flawless(&self) -> Result<()> {
        match self.failures {
            0 => Ok(()),
            failures => bail!("{failures} of {} requests failed: {}", self.requests, self.words.join("; ")),
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requests, connections, failures, slowest, .. } = self;
        write!(
            f,
            "{requests} requests on {connections} connections, {failures} failed, slowest {slowest:.0?}"
        )
    }
}

struct Worker {
    target: Target,
    connections: Connections,
    pace: Duration,
    done: Arc<AtomicU64>,
}

impl Worker {
    async fn run(self, stop: watch::Receiver<bool>) -> Tally {
        let (mut tally, mut connection) = (Tally::default(), None);
        let mut ticks = tokio::time::interval(self.pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !*stop.borrow() {
            ticks.tick().await;
            let begin = Instant::now();
            match self.request(&mut connection, &mut tally).await {
                Ok(()) => tally.slowest = tally.slowest.max(begin.elapsed()),
                Err(error) => {
                    connection = None;
                    let first = tally.failed.map_or(begin, |(first, _)| first);
                    tally.failed = Some((first, begin));
                    tally.failures += 1;
                    if tally.words.len() < REMEMBERED {
                        tally.words.push(format!("{error:#}"));
                    }
                }
            }
            tally.requests += 1;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        tally
    }

    async fn request(&self, kept: &mut Option<Connection>, tally: &mut Tally) -> Result<()> {
        let mut reused = None;
        if let Some(mut connection) = kept.take()
            && connection.is_open().await
        {
            reused = Some(connection);
        }
        let mut connection = match reused {
            Some(connection) => connection,
            None => {
                tally.connections += 1;
                self.target.connect().await?
            }
        };
        let answer = connection.get(&self.target).await?;
        if answer.status != StatusCode::OK {
            bail!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        tally.pods.insert(answer.pod()?);
        if self.connections == Connections::Kept {
            *kept = Some(connection);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"pod\": \"web\"}";
    const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 14\r\n\r\n{\"pod\": \"web\"}";

    /// Answers the n-th request of all with `answer(n)`, and closes the connection after whatever isn't [`GOOD`].
    async fn serve(listener: TcpListener, answer: fn(u64) -> &'static str) {
        let count = Arc::new(AtomicU64::new(0));
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(converse(stream, count.clone(), answer));
        }
    }

    async fn converse(mut stream: TcpStream, count: Arc<AtomicU64>, answer: fn(u64) -> &'static str) {
        let mut head = Vec::new();
        while let Ok(byte) = stream.read_u8().await {
            head.push(byte);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            head.clear();
            let answer = answer(count.fetch_add(1, Ordering::Relaxed));
            if stream.write_all(answer.as_bytes()).await.is_err() || answer != GOOD {
                return;
            }
        }
    }

    /// What one worker counts in about so many requests.
    async fn count(answer: fn(u64) -> &'static str, connections: Connections, requests: u64) -> Tally {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("bound");
        let mut server = JoinSet::new();
        server.spawn(serve(listener, answer));
        let target = Target::http(address.ip(), address.port(), "web");
        let load = Load::new().add(1, connections, Duration::from_micros(1), &target);
        while load.requests() < requests {
            tokio::task::yield_now().await;
        }
        Tally::sum(&load.stop().await.expect("no worker panics"))
    }

    #[tokio::test]
    async fn kept_connections_are_kept() {
        let tally = count(|_| GOOD, Connections::Kept, 50).await;
        tally.flawless().expect("all are good");
        assert_eq!(tally.connections, 1);
        assert_eq!(tally.pods.iter().collect::<Vec<_>>(), ["web"]);
    }

    #[tokio::test]
    async fn fresh_connections_are_not() {
        let tally = count(|_| GOOD, Connections::Fresh, 50).await;
        tally.flawless().expect("all are good");
        assert_eq!(tally.connections, tally.requests);
    }

    #[tokio::test]
    async fn an_announced_end_of_a_connection_is_no_failure() {
        let tally = count(|n| if n % 10 == 9 { LAST } else { GOOD }, Connections::Kept, 50).await;
        tally.flawless().expect("all are good");
        assert!(tally.connections >= 5, "{}", tally.connections);
    }

    #[tokio::test]
    async fn every_other_end_is_one() {
        let bad: [fn(u64) -> &'static str; 4] = [
            |n| if n == 7 { "" } else { GOOD },
            |n| if n == 7 { "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{" } else { GOOD },
            |n| if n == 7 { "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n" } else { GOOD },
            |n| if n == 7 { "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" } else { GOOD },
        ];
        for answer in bad {
            let tally = count(answer, Connections::Kept, 20).await;
            assert_eq!((tally.failures, tally.words.len()), (1, 1), "{:?}", tally.words);
            assert!(tally.flawless().is_err() && tally.failed.is_some());
        }
    }
}
