//! What changes by itself at backends with a policy, told to whoever listens: the control plane writes Events of it.
//!
//! A bounded queue that is never waited for: with nobody listening nothing is told, and what it has no room for is lost.
//! The log has every change anyway.

use crate::model::{BackendId, RouteId};
use std::fmt;
use std::net::SocketAddr;
use std::sync::OnceLock;
use tokio::sync::mpsc;

/// Changes that may wait for whoever listens: some for every backend of a large cluster, should all fail at once.
const WAITING: usize = 1_024;

/// A change of a backend's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The backend.
    pub backend: BackendId,
    /// Which of its parts.
    pub subject: Subject,
    /// What it is now.
    pub change: Change,
    /// Whether nothing is acted on, because the policy is in shadow.
    pub shadow: bool,
}

/// A part of a backend that has a state of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// All of it.
    Backend,
    /// What requests of one route see of it.
    Route(RouteId),
    /// One of its endpoints.
    Endpoint(SocketAddr),
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Its breaker lets nothing pass for a while.
    Opened,
    /// Its breaker lets probes pass.
    HalfOpened,
    /// Its breaker lets everything pass again.
    Closed,
    /// The endpoint gets no requests for a while.
    Ejected,
    /// The endpoint, no longer ejected, has answered well.
    Restored,
}

/// The queue's end where changes are told.
#[derive(Default)]
pub(crate) struct Notices(OnceLock<mpsc::Sender<Notice>>);

impl Notices {
    /// The end where they are heard; `None` for all but the first who asks.
    pub(crate) fn listen(&self) -> Option<mpsc::Receiver<Notice>> {
        let (sender, receiver) = mpsc::channel(WAITING);
        self.0.set(sender).is_ok().then_some(receiver)
    }

    pub(crate) fn tell(&self, notice: Notice) {
        if let Some(listener) = self.0.get() {
            // Full, or nobody is there any more: nobody here waits.
            let _ = listener.try_send(notice);
        }
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").field("heard", &self.0.get().is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BackendKind, ObjectName, Transport};

    #[test]
    fn one_listens_and_nobody_waits() {
        let notices = Notices::default();
        let (kind, transport) = (BackendKind::Service, Transport::Tcp);
        let backend = BackendId { kind, name: ObjectName::new("a", "b"), port: 80, transport };
        let notice = Notice { backend, subject: Subject::Backend, change: Change::Opened, shadow: false };
        notices.tell(notice.clone());
        let mut heard = notices.listen().unwrap();
        assert!(notices.listen().is_none());
        assert!(heard.try_recv().is_err());
        for _ in 0..2 * WAITING {
            notices.tell(notice.clone());
        }
        assert_eq!(heard.len(), WAITING);
        assert_eq!(heard.try_recv(), Ok(notice.clone()));
        drop(heard);
        notices.tell(notice);
    }
}
