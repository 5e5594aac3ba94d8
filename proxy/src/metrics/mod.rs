//! Counters: arrays of their own for each worker thread, found by index, summed up when somebody asks.
//!
//! A compiled rule holds its [`RuleMetrics`], a backend its [`BackendMetrics`]; they are keyed by id in [`Metrics`] and
//! outlive a snapshot, so that an edit resets nobody's counters. A thread only ever writes its own cells, with
//! relaxed loads and stores: no lock, no shared cache line, no look-up of labels on the request path.

mod export;

use crate::model::{BackendId, ObjectName, PortProtocol, RouteId, Sorted, Text};
use crate::notice::Notices;
use crate::rate_limit::counters::Counters;
use crate::rejection::Rejection;
use crate::snapshot::Swap;
use crate::upstream::health::Health;
use http::StatusCode;
#[expect(clippy::disallowed_types, reason = "taken by compile and by a scrape, never by a request")]
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// Upper bounds of the duration histogram, in milliseconds: half a millisecond (a fast service next door) to a minute
/// (our default bound on an answer's head).
const DURATION_BOUNDS_MS: [f64; 16] = [
    0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 30_000.0,
    60_000.0,
];

/// Classes of status code, 1xx to 5xx.
const CLASSES: usize = 5;

/// A counter with one writer.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
    fn add(&self, n: u64) {
        // One thread writes a cell: no read-modify-write is needed, and none is paid for.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for each rejection.
#[derive(Debug)]
struct PerRejection([Cell; Rejection::ALL.len()]);

impl Default for PerRejection {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Cell::default()))
    }
}

impl PerRejection {
    fn of(&self, rejection: Rejection) -> &Cell {
        &self.0[rejection.index()]
    }
}

/// A `T` for each worker thread, made when the thread first needs it: a rule that never sees a request costs a pointer.
#[derive(Debug)]
struct PerThread<T>(Box<[OnceLock<Box<T>>]>);

impl<T: Default> PerThread<T> {
    fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| OnceLock::new()).collect())
    }

    fn of(&self, thread: usize) -> &T {
        self.0[thread].get_or_init(Box::default)
    }

    fn sum(&self, count: impl Fn(&T) -> u64) -> u64 {
        self.0.iter().filter_map(OnceLock::get).map(|cells| count(cells)).sum()
    }

    fn is_used(&self) -> bool {
        self.0.iter().any(|cells| cells.get().is_some())
    }
}

/// How long things took.
#[derive(Debug, Default)]
struct Durations {
    /// One more than there are bounds: the last is for what took longer than all of them.
    counts: [Cell; DURATION_BOUNDS_MS.len() + 1],
    nanoseconds: Cell,
}

impl Durations {
    fn add(&self, took: Duration) {
        let milliseconds = took.as_secs_f64() * 1e3;
        self.counts[DURATION_BOUNDS_MS.partition_point(|bound| *bound < milliseconds)].add(1);
        self.nanoseconds.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Responses by class, and how long they took.
#[derive(Debug, Default)]
// A cache line of its own (two, for the prefetcher), so that threads don't share one.
#[repr(align(128))]
struct RuleCells {
    responses: [Cell; CLASSES],
    durations: Durations,
}

/// The counters of one rule of a route.
#[derive(Debug)]
pub struct RuleMetrics(PerThread<RuleCells>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct BackendCells {
    responses: [Cell; CLASSES],
    failures: PerRejection,
    connections: Cell,
    retries: Cell,
}

/// The counters of one backend.
#[derive(Debug)]
pub struct BackendMetrics {
    cells: PerThread<BackendCells>,
    /// How it fares, where a policy cares: told by whoever knows, when somebody asks.
    health: Swap<Option<Weak<Health>>>,
}

impl BackendMetrics {
    fn new(threads: usize) -> Self {
        Self { cells: PerThread::new(threads), health: Swap::new(Arc::default()) }
    }

    /// Tells how the backend fares from now on.
    pub(crate) fn watch(&self, health: Option<&Arc<Health>>) {
        self.health.store(Arc::new(health.map(Arc::downgrade)));
    }
}

/// What a rate limit did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitOutcome {
    /// Let it pass.
    Passed,
    /// Refused it.
    Limited,
    /// Would have refused it, but is in shadow.
    Shadow,
}

impl LimitOutcome {
    const LABELS: [&str; 3] = ["passed", "limited", "shadow"];

    pub(crate) fn of(passes: bool, shadow: bool) -> Self {
        match (passes, shadow) {
            (true, _) => Self::Passed,
            (false, false) => Self::Limited,
            (false, true) => Self::Shadow,
        }
    }
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct LimitCells {
    outcomes: [Cell; LimitOutcome::LABELS.len()],
}

/// The counters of one rate limit.
#[derive(Debug)]
pub struct LimitMetrics(PerThread<LimitCells>);

/// What became of a request that an AuthPolicy guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthOutcome {
    /// It passed.
    Allowed,
    /// Nobody knows its client.
    Unauthenticated,
    /// Its client may not.
    Unauthorized,
    /// Nobody could say.
    Unavailable,
    /// It would have been refused, but the policy is in shadow.
    Shadow,
}

impl AuthOutcome {
    const LABELS: [&str; 5] = ["allowed", "unauthenticated", "unauthorized", "unavailable", "shadow"];
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct AuthCells {
    outcomes: [Cell; AuthOutcome::LABELS.len()],
}

/// The counters of one AuthPolicy.
#[derive(Debug)]
pub struct AuthMetrics(PerThread<AuthCells>);

/// What a thread counts whatever the route.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ThreadCells {
    rejections: PerRejection,
    shadow_rejections: PerRejection,
    shadow_connections_refused: Cell,
    opened: [Cell; 4],
    closed: [Cell; 4],
    handshake_failures: Cell,
    connections_refused: Cell,
    store_waits: Durations,
    received: Cell,
    sent: Cell,
}

/// Which rule: its route, its position, and its name if it has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RuleKey {
    route: RouteId,
    index: u32,
    name: Option<Text>,
}

/// Which limit: its policy, and its name there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LimitKey {
    policy: ObjectName,
    limit: Text,
}

/// Entries of a map that may be dead before it is swept without a scrape.
const SLACK: usize = 1_024;

/// Counters by id. An entry whose rule or backend is gone is swept by the next scrape, or once the map has doubled.
#[derive(Debug)]
struct Ids<K, M> {
    entries: Sorted<K, M>,
    swept: usize,
}

impl<K: Ord + Clone, M> Ids<K, M> {
    fn new() -> Self {
        Self { entries: Sorted::default(), swept: 0 }
    }

    fn get(&mut self, key: K, make: impl FnOnce() -> M) -> Arc<M> {
        if self.entries.len() > 2 * self.swept + SLACK {
            self.sweep();
        }
        self.entries.or_insert_with(&key, || Arc::new(make())).clone()
    }

    fn sweep(&mut self) {
        self.entries.retain(|metrics| Arc::strong_count(metrics) > 1);
        self.swept = self.entries.len();
    }
}

/// All counters of the process.
#[derive(Debug)]
#[expect(clippy::disallowed_types, reason = "taken by compile and by a scrape, never by a request")]
pub struct Metrics {
    threads: Box<[ThreadCells]>,
    rules: Mutex<Ids<RuleKey, RuleMetrics>>,
    backends: Mutex<Ids<BackendId, BackendMetrics>>,
    limits: Mutex<Ids<LimitKey, LimitMetrics>>,
    auths: Mutex<Ids<ObjectName, AuthMetrics>>,
    /// What limits count by; here because it lives as long.
    rate_limit_counters: Arc<Counters>,
    /// Who hears of changes that gauges show; here because it lives as long.
    notices: Arc<Notices>,
    generation: AtomicU64,
    /// Lines that the access log had no room for; any thread adds.
    dropped_lines: AtomicU64,
}

#[expect(clippy::disallowed_types, reason = "taken by compile and by a scrape, never by a request")]
impl Metrics {
    /// Counters for that many worker threads.
    pub fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self {
            threads: (0..threads).map(|_| ThreadCells::default()).collect(),
            rules: Mutex::new(Ids::new()),
            backends: Mutex::new(Ids::new()),
            limits: Mutex::new(Ids::new()),
            auths: Mutex::new(Ids::new()),
            rate_limit_counters: Arc::default(),
            notices: Arc::default(),
            generation: AtomicU64::new(0),
            dropped_lines: AtomicU64::new(0),
        })
    }

    /// The handle of one worker thread, `0 <= thread < threads`. Only that thread may count with it.
    pub fn thread(self: &Arc<Self>, thread: usize) -> ThreadMetrics {
        assert!(thread < self.threads.len(), "a handle for each worker thread, no more");
        ThreadMetrics { metrics: self.clone(), thread }
    }

    /// The counters of a rule: the same as long as its route, position and name are.
    pub fn rule(&self, route: &RouteId, index: u32, name: Option<&Text>) -> Arc<RuleMetrics> {
        let key = RuleKey { route: route.clone(), index, name: name.cloned() };
        let threads = self.threads.len();
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.get(key, || RuleMetrics(PerThread::new(threads)))
    }

    /// The counters of a backend.
    pub fn backend(&self, id: &BackendId) -> Arc<BackendMetrics> {
        let threads = self.threads.len();
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        backends.get(id.clone(), || BackendMetrics::new(threads))
    }

    /// The counters of a policy's rate limit.
    pub(crate) fn rate_limit(&self, policy: &ObjectName, limit: &Text) -> Arc<LimitMetrics> {
        let key = LimitKey { policy: policy.clone(), limit: limit.clone() };
        let threads = self.threads.len();
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.get(key, || LimitMetrics(PerThread::new(threads)))
    }

    /// The counters of an AuthPolicy.
    pub(crate) fn auth(&self, policy: &ObjectName) -> Arc<AuthMetrics> {
        let threads = self.threads.len();
        let mut auths = self.auths.lock().unwrap_or_else(PoisonError::into_inner);
        auths.get(policy.clone(), || AuthMetrics(PerThread::new(threads)))
    }

    /// What rate limits count by.
    pub(crate) fn rate_limit_counters(&self) -> &Arc<Counters> {
        &self.rate_limit_counters
    }

    /// Who hears of changes at backends.
    pub(crate) fn notices(&self) -> &Arc<Notices> {
        &self.notices
    }

    /// Tells which generation of the model is in force.
    pub fn published(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// Access log lines were dropped. Any thread may say so.
    pub fn lines_dropped(&self, lines: u64) {
        self.dropped_lines.fetch_add(lines, Ordering::Relaxed);
    }
}

/// Counts for one worker thread. Cheap to clone within that thread.
#[derive(Clone, Debug)]
pub struct ThreadMetrics {
    metrics: Arc<Metrics>,
    thread: usize,
}

impl ThreadMetrics {
    /// All counters of the process.
    pub fn all(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A rule's request is over: the status that the client got, and the time from the head read to the response sent.
    pub fn request(&self, rule: &RuleMetrics, status: StatusCode, took: Duration) {
        let cells = rule.0.of(self.thread);
        cells.responses[class(status)].add(1);
        cells.durations.add(took);
    }

    /// A request got an answer of ours that says why it went no further.
    pub fn rejected(&self, rejection: Rejection) {
        self.cells().rejections.of(rejection).add(1);
    }

    /// A request would have got such an answer, but for policies in shadow.
    pub fn shadow_rejected(&self, rejection: Rejection) {
        self.cells().shadow_rejections.of(rejection).add(1);
    }

    /// A connection would have been refused, but for policies in shadow.
    pub fn shadow_connection_refused(&self) {
        self.cells().shadow_connections_refused.add(1);
    }

    /// A client connected.
    pub fn connection_opened(&self, protocol: PortProtocol) {
        self.cells().opened[side(protocol)].add(1);
    }

    /// A client's connection is gone.
    pub fn connection_closed(&self, protocol: PortProtocol) {
        self.cells().closed[side(protocol)].add(1);
    }

    /// A connection was closed before it said anything: as its port's ClientPolicy has it.
    pub fn connection_refused(&self) {
        self.cells().connections_refused.add(1);
    }

    /// A client's TLS handshake failed.
    pub fn handshake_failed(&self) {
        self.cells().handshake_failures.add(1);
    }

    /// Bytes of bodies and upgraded streams that came from and went to clients.
    pub fn transferred(&self, received: u64, sent: u64) {
        self.cells().received.add(received);
        self.cells().sent.add(sent);
    }

    /// A backend answered.
    pub fn backend_response(&self, backend: &BackendMetrics, status: StatusCode) {
        backend.cells.of(self.thread).responses[class(status)].add(1);
    }

    /// A try on a backend failed.
    pub fn backend_failed(&self, backend: &BackendMetrics, why: Rejection) {
        backend.cells.of(self.thread).failures.of(why).add(1);
    }

    /// A connection to a backend was opened.
    pub fn backend_connected(&self, backend: &BackendMetrics) {
        backend.cells.of(self.thread).connections.add(1);
    }

    /// A request was tried again.
    pub fn backend_retried(&self, backend: &BackendMetrics) {
        backend.cells.of(self.thread).retries.add(1);
    }

    /// A rate limit judged a request.
    pub(crate) fn limited(&self, limit: &LimitMetrics, outcome: LimitOutcome) {
        limit.0.of(self.thread).outcomes[outcome as usize].add(1);
    }

    /// A request has waited for the store of its rate limits.
    pub(crate) fn waited_for_store(&self, took: Duration) {
        self.cells().store_waits.add(took);
    }

    /// An AuthPolicy judged a request.
    pub(crate) fn authenticated(&self, auth: &AuthMetrics, outcome: AuthOutcome) {
        auth.0.of(self.thread).outcomes[outcome as usize].add(1);
    }

    fn cells(&self) -> &ThreadCells {
        &self.metrics.threads[self.thread]
    }
}

fn class(status: StatusCode) -> usize {
    (usize::from(status.as_u16()) / 100).clamp(1, CLASSES) - 1
}

fn side(protocol: PortProtocol) -> usize {
    match protocol {
        PortProtocol::Http => 0,
        PortProtocol::Tls => 1,
        PortProtocol::Tcp => 2,
        PortProtocol::Udp => 3,
    }
}

#[cfg(test)]
mod tests;
