//! One line per request to stdout, as JSON or text, without ever making a request wait.
//!
//! Each worker thread formats its lines and puts them into a bounded queue of its own; a writer thread empties them
//! every few milliseconds. When stdout is slow or gone, lines are dropped and counted, and requests go on. Fields of
//! a request are escaped: no client can write a line of its own. `docs/access-log.md` tells users what is in a line.

mod line;

pub use line::{Record, TlsInfo};

use crate::metrics::Metrics;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that a thread's queue holds: at 100,000 a second, two turns of the writer. About 2 MiB when full.
const QUEUE: usize = 4_096;
/// Pause of the writer when all queues are empty. It looks rather than being woken: a wake-up is a system call of the
/// thread that serves requests.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes that are written at once at most.
const BATCH: usize = 256 * 1024;

/// Whether and how requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Not at all.
    #[default]
    Off,
    /// One JSON object per line.
    Json,
    /// One line for people.
    Text,
}

/// The log of one worker thread.
#[derive(Debug)]
pub struct ThreadLog {
    format: AccessLog,
    queue: Option<SyncSender<Vec<u8>>>,
    metrics: Arc<Metrics>,
}

impl ThreadLog {
    /// Whether lines go anywhere: when not, there is no need to make a [`Record`].
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Logs a request. Never blocks: a line that finds the queue full is dropped and counted.
    pub fn write(&self, record: &Record<'_>) {
        let Some(queue) = &self.queue else { return };
        let line = match self.format {
            AccessLog::Off => return,
            AccessLog::Json => record.to_json(),
            AccessLog::Text => record.to_text(),
        };
        match queue.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.metrics.lines_dropped(1),
        }
    }
}

/// The writer thread.
#[derive(Debug)]
pub struct Writer(Receiver<()>);

impl Writer {
    /// Waits until every line is written, at most so long: stdout may be blocked. The [`ThreadLog`]s must be gone, else
    /// it waits for them.
    pub fn finish(self, at_most: Duration) {
        match self.0.recv_timeout(at_most) {
            // The thread drops its end when it is done.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("stdout doesn't take the rest of the access log: it is dropped");
            }
        }
    }
}

/// Starts the writer, which writes to `out`, and returns a log for each of the worker threads.
///
/// # Errors
/// When the operating system has no room for another thread.
pub fn start(
    format: AccessLog,
    threads: usize,
    metrics: &Arc<Metrics>,
    out: Box<dyn Write + Send>,
) -> io::Result<(Vec<ThreadLog>, Writer)> {
    let (done, finished) = sync_channel(0);
    let (mut logs, mut queues) = (Vec::with_capacity(threads), Vec::with_capacity(threads));
    for _ in 0..threads {
        let (sender, receiver) = sync_channel(QUEUE);
        let queue = match format {
            AccessLog::Off => None,
            AccessLog::Json | AccessLog::Text => Some(sender),
        };
        logs.push(ThreadLog { format, queue, metrics: metrics.clone() });
        queues.push(receiver);
    }
    if format != AccessLog::Off {
        let metrics = metrics.clone();
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            write_until_closed(&queues, out, &metrics);
            drop(done);
        })?;
    }
    Ok((logs, Writer(finished)))
}

fn write_until_closed(queues: &[Receiver<Vec<u8>>], mut out: Box<dyn Write + Send>, metrics: &Metrics) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        let (lines, open) = collect(queues, &mut batch);
        if lines > 0 {
            if let Err(error) = out.write_all(&batch).and_then(|()| out.flush()) {
                tracing::debug!(%error, lines, "access log lines can't be written");
                metrics.lines_dropped(lines);
            }
        } else if open {
            thread::sleep(PAUSE);
        } else {
            return;
        }
    }
}

/// Takes lines from all queues until they are empty or the batch is full. Returns how many, and whether a queue may
/// still get some.
fn collect(queues: &[Receiver<Vec<u8>>], batch: &mut Vec<u8>) -> (u64, bool) {
    let (mut lines, mut open) = (0, false);
    for queue in queues {
        while batch.len() < BATCH {
            match queue.try_recv() {
                Ok(line) => {
                    batch.extend_from_slice(&line);
                    lines += 1;
                }
                Err(TryRecvError::Empty) => {
                    open = true;
                    break;
                }
                Err(TryRecvError::Disconnected) => break,
            }
        }
    }
    (lines, open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::line::tests::record;

    /// Gives what is written to the test, one batch at a time; blocks when nobody takes it.
    struct Pipe(SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn dropped(metrics: &Arc<Metrics>) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text.lines().find(|l| l.starts_with("headgate_access_log_dropped_lines_total")).unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    }

    #[test]
    fn every_line_of_every_thread_is_written_before_the_end() {
        let metrics = Metrics::new(2);
        let (sender, written) = sync_channel(1);
        let (logs, writer) = start(AccessLog::Json, 2, &metrics, Box::new(Pipe(sender))).unwrap();
        let threads: Vec<_> = logs
            .into_iter()
            .map(|log| thread::spawn(move || (0..500).for_each(|_| log.write(&record()))))
            .collect();
        let text: Vec<u8> = written.iter().flatten().collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        writer.finish(Duration::from_secs(60));
        let lines: Vec<serde_json::Value> = text
            .split(|byte| *byte == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        assert_eq!(lines.len(), 1_000);
        assert_eq!(dropped(&metrics), "0");
    }

    #[test]
    fn a_blocked_stdout_costs_lines_not_requests() {
        let metrics = Metrics::new(1);
        // Nobody takes from the other end: the writer blocks in its first write.
        let (sender, blocked) = sync_channel(0);
        let (mut logs, writer) = start(AccessLog::Text, 1, &metrics, Box::new(Pipe(sender))).unwrap();
        let log = logs.pop().unwrap();
        // More than the queue and a first batch can hold.
        let lines = 3 * QUEUE + 2 * BATCH / record().to_text().len();
        (0..lines).for_each(|_| log.write(&record()));
        let lost: u64 = dropped(&metrics).parse().unwrap();
        assert!(lost >= QUEUE as u64, "{lost} of {lines} dropped");
        drop(log);
        drop(blocked);
        writer.finish(Duration::from_secs(60));
        assert_eq!(dropped(&metrics), lines.to_string(), "what couldn't be written counts as dropped");
    }

    #[test]
    fn off_writes_nothing() {
        let (sender, written) = sync_channel(1);
        let (logs, writer) = start(AccessLog::Off, 1, &Metrics::new(1), Box::new(Pipe(sender))).unwrap();
        assert!(!logs[0].is_on());
        logs[0].write(&record());
        drop(logs);
        writer.finish(Duration::from_secs(60));
        assert_eq!(written.iter().count(), 0);
    }
}
