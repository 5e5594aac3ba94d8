//! When to stop: SIGTERM (Kubernetes, `kill`) and SIGINT (Ctrl-C) ask for an orderly end.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that end the process, from the moment this is made: one that arrives before [`Stop::asked`] is awaited
/// isn't lost.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Takes the signals over from their default, which is to end at once. Needs a tokio runtime with I/O.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one, and names it. Call again to hear of a second one, which means: now.
    pub async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
