//! Worker threads: one `current_thread` runtime each, with its own sockets, pools, timers and counters.
//!
//! [`Thread`] is what the tasks of one worker share; it never leaves its thread. The control side talks to a worker by
//! [`Command`]s through a bounded queue, and only when ports change or the process drains.

use crate::access_log::ThreadLog;
use crate::auth::Memory;
use crate::datagram;
use crate::drain::Guests;
use crate::headers::RequestIds;
use crate::limits::Limits;
use crate::listener::{self, Closing};
use crate::metrics::ThreadMetrics;
use crate::model::PortId;
use crate::rate_limit::Links;
use crate::router::PortTable;
use crate::snapshot::Reader;
use crate::timer::{self, Wheel};
use crate::upstream::pool::{Pools, SWEEP};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

/// Commands that wait for a thread: every port of a big model at once, opened and closed.
pub(crate) const COMMANDS: usize = 65_536;
/// Events taken from the kernel at once; tokio's default.
const EVENTS: usize = 1_024;

/// Time between complaints of one thread: enough to see what is wrong, and no flood.
const COMPLAINTS: Duration = Duration::from_secs(1);

/// What a worker is told.
pub(crate) enum Command {
    /// Accept clients of a port.
    Listen { port: Arc<PortId>, socket: listener::Socket },
    /// Take what is queued on a port's socket, close it, say so, and let its connections end.
    Close { port: PortId, closed: SyncSender<()> },
    /// Ask clients to go; go on accepting.
    Unready,
    /// Accept no more, and end when the last client has gone, or after `at_most`.
    Drain { at_most: Duration },
}

/// What the tasks of one worker share.
pub(crate) struct Thread {
    pub(crate) wheel: Rc<Wheel>,
    pub(crate) pools: Rc<Pools>,
    pub(crate) guests: Rc<Guests>,
    pub(crate) metrics: ThreadMetrics,
    pub(crate) ids: RequestIds,
    pub(crate) log: ThreadLog,
    /// `connections` is this thread's share.
    pub(crate) limits: Limits,
    /// Whether clients are asked to go elsewhere.
    pub(crate) unready: Cell<bool>,
    /// Copies of requests under way.
    pub(crate) mirrored: Cell<usize>,
    /// Sessions of datagrams.
    pub(crate) sessions: Cell<usize>,
    /// What it remembers of clients' credentials.
    pub(crate) memory: Memory,
    /// Connections to stores of rate limits.
    pub(crate) links: Links,
    reader: RefCell<Reader>,
    random: Cell<u64>,
    complained: Cell<Option<Instant>>,
}

impl Thread {
    /// A number for choices that needn't be secret (xorshift64*, Vigna 2016).
    pub(crate) fn random(&self) -> u32 {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Whether something may be logged that could come with every request: once in [`COMPLAINTS`].
    pub(crate) fn may_complain(&self) -> bool {
        let now = Instant::now();
        let may = self.complained.get().is_none_or(|last| now - last >= COMPLAINTS);
        if may {
            self.complained.set(Some(now));
        }
        may
    }

    /// The generation in force: a table found under one stays good as long as it doesn't change.
    pub(crate) fn generation(&self) -> u64 {
        self.reader.borrow_mut().current().generation()
    }

    /// The table in force for a port, if the model has the port.
    pub(crate) fn table(&self, port: &PortId) -> Option<Arc<PortTable>> {
        self.reader.borrow_mut().current().port(port).cloned()
    }
}

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) reader: Reader,
    pub(crate) metrics: ThreadMetrics,
    pub(crate) log: ThreadLog,
    pub(crate) limits: Limits,
}

/// Starts a worker. The receiver hears when it has ended.
pub(crate) fn start(parts: Parts) -> io::Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    let (started, start) = sync_channel(1);
    std::thread::Builder::new().name(format!("proxy-{}", parts.index)).spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_io_events_per_tick(EVENTS)
            .on_thread_unpark(timer::woke)
            .build_local(LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        if started.send(Ok(())).is_ok() {
            runtime.block_on(work(parts));
        }
        drop(runtime);
        // Nobody waits when the proxy was dropped.
        let _ = ended.send(());
    })?;
    start.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))?;
    Ok(end)
}

struct Worker {
    thread: Rc<Thread>,
    open: HashMap<PortId, Rc<Closing>>,
}

async fn work(parts: Parts) {
    let Parts { mut commands, reader, metrics, log, limits, .. } = parts;
    let thread = Rc::new(Thread {
        wheel: Wheel::new(),
        pools: Rc::default(),
        guests: Rc::default(),
        metrics,
        ids: RequestIds::new(),
        log,
        limits,
        unready: Cell::new(false),
        mirrored: Cell::new(0),
        sessions: Cell::new(0),
        memory: Memory::default(),
        links: Links::default(),
        reader: RefCell::new(reader),
        // Never 0, which xorshift would stay at.
        random: Cell::new(RandomState::new().hash_one(0) | 1),
        complained: Cell::new(None),
    });
    tokio::task::spawn_local(thread.wheel.clone().run());
    tokio::task::spawn_local(sweep(thread.clone()));
    let mut worker = Worker { thread, open: HashMap::new() };
    // Without a control side there is nobody left to serve for.
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen { port, socket } => worker.listen(port, socket),
            Command::Close { port, closed } => worker.close(&port, closed),
            Command::Unready => {
                worker.thread.unready.set(true);
                worker.thread.guests.wake_all();
            }
            Command::Drain { at_most } => return worker.drain(at_most).await,
        }
    }
}

impl Worker {
    fn listen(&mut self, port: Arc<PortId>, socket: listener::Socket) {
        let closing = Rc::new(Closing::default());
        self.open.insert((*port).clone(), closing.clone());
        let thread = self.thread.clone();
        match socket {
            listener::Socket::Tcp(socket) => {
                tokio::task::spawn_local(listener::accept(thread, port, socket, closing))
            }
            listener::Socket::Udp(socket) => {
                tokio::task::spawn_local(datagram::serve(thread, port, socket, closing))
            }
        };
    }

    fn close(&mut self, port: &PortId, closed: SyncSender<()>) {
        // Dropping `closed` unsent says the same: nothing is open.
        if let Some(closing) = self.open.remove(port) {
            closing.ask(closed);
        }
        self.thread.guests.ask_port(port);
    }

    async fn drain(&mut self, at_most: Duration) {
        let guests = self.thread.guests.clone();
        for port in std::mem::take(&mut self.open).into_values() {
            let (closed, _) = sync_channel(1);
            port.ask(closed);
        }
        guests.ask_all();
        if tokio::time::timeout(at_most, self.last_guest()).await.is_err() {
            tracing::warn!(connections = guests.count(), "connections are cut: the drain took too long");
        }
    }

    async fn last_guest(&self) {
        // Accept loops take what is queued before they end; those clients are asked as they come.
        loop {
            std::future::poll_fn(|cx| self.thread.guests.poll_fewer_than(cx, 1)).await;
            tokio::task::yield_now().await;
            if self.thread.guests.count() == 0 {
                return;
            }
        }
    }
}

async fn sweep(thread: Rc<Thread>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        thread.pools.sweep();
        thread.links.sweep();
    }
}
