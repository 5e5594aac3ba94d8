//! A thread's one connection to a store: kept open in the background, and shared by all requests of the thread, whose
//! questions follow each other without waiting for answers. After a failure nobody waits until it is open again.

use super::dial::{Server, dial};
use super::{Place, Store, resp};
use bytes::BytesMut;
use futures_util::FutureExt;
use resp::Reply;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

/// Questions that wait to be written: what a thread takes in a few milliseconds.
const QUESTIONS: usize = 1_024;
/// Questions that are written at once.
const AT_ONCE: usize = 64;
/// Questions without an answer: a server that is so far behind isn't asked any more.
const UNANSWERED: usize = 16_384;
/// How long connecting may take, all addresses together.
const CONNECT: Duration = Duration::from_secs(5);
/// Between attempts to connect: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A thread's connections to stores.
#[derive(Default)]
pub(crate) struct Links(RefCell<Vec<(Weak<Store>, Rc<Link>)>>);

impl Links {
    /// The connection to a store, which is opened when it is asked for the first time.
    pub(super) fn to(&self, store: &Arc<Store>) -> Rc<Link> {
        let mut links = self.0.borrow_mut();
        let known = links.iter().find(|(known, _)| known.as_ptr() == Arc::as_ptr(store));
        if let Some((_, link)) = known {
            return link.clone();
        }
        let link = Rc::new(Link::open(store.place.clone()));
        links.push((Arc::downgrade(store), link.clone()));
        link
    }

    /// Closes connections to stores that no policy names any more.
    pub(crate) fn sweep(&self) {
        self.0.borrow_mut().retain(|(store, _)| store.strong_count() > 0);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Being opened for the first time.
    New,
    Open,
    /// Lost, and being opened again.
    Lost,
}

struct State {
    phase: Cell<Phase>,
    /// The phase isn't [`Phase::New`] any more.
    decided: Notify,
    /// An answer came too late.
    late: Notify,
    /// The server's name of the script.
    script: RefCell<Vec<u8>>,
}

struct Question {
    command: Vec<u8>,
    answer: oneshot::Sender<Reply>,
}

/// A connection to a store.
pub(super) struct Link {
    questions: mpsc::Sender<Question>,
    state: Rc<State>,
}

impl Link {
    fn open(place: Arc<Place>) -> Self {
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let state = Rc::new(State {
            phase: Cell::new(Phase::New),
            decided: Notify::new(),
            late: Notify::new(),
            script: RefCell::default(),
        });
        tokio::task::spawn_local(keep(place, state.clone(), asked));
        Self { questions, state }
    }

    /// Asks, and waits for the answer until then. `command` is given the name that the server has for the script.
    pub(super) async fn ask(&self, until: Instant, command: impl FnOnce(&[u8]) -> Vec<u8>) -> Option<Reply> {
        if self.state.phase.get() == Phase::Lost {
            return None;
        }
        let asking = async {
            while self.state.phase.get() == Phase::New {
                self.state.decided.notified().await;
            }
            if self.state.phase.get() == Phase::Lost {
                return None;
            }
            let (answer, answered) = oneshot::channel();
            let command = command(&self.state.script.borrow());
            self.questions.try_send(Question { command, answer }).ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout_at(until, asking).await {
            Ok(reply) => reply,
            Err(_) => {
                // The next ones don't wait for it, too.
                if self.state.phase.replace(Phase::Lost) == Phase::Open {
                    self.state.late.notify_one();
                }
                self.state.decided.notify_waiters();
                None
            }
        }
    }
}

/// Keeps a connection open as long as somebody may ask.
async fn keep(place: Arc<Place>, state: Rc<State>, mut questions: mpsc::Receiver<Question>) {
    let mut pause = PAUSES.0;
    loop {
        let dialled = tokio::select! {
            dialled = tokio::time::timeout(CONNECT, dial(&place)) => dialled,
            () = nobody_asks(&mut questions) => return,
        };
        let outcome = match dialled {
            Ok(Ok(server)) => {
                state.script.replace(server.script.clone());
                state.phase.set(Phase::Open);
                state.decided.notify_waiters();
                place.note(None);
                serve(server, &state, &mut questions, &mut pause).await
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!("no connection in {} s", CONNECT.as_secs())),
        };
        let Err(error) = outcome else { return };
        state.phase.set(Phase::Lost);
        state.decided.notify_waiters();
        place.note(Some(&error));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = nobody_asks(&mut questions) => return,
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Drops questions, until there can't be any more.
async fn nobody_asks(questions: &mut mpsc::Receiver<Question>) {
    while questions.recv().await.is_some() {}
}

/// Passes questions on, and answers back. Ends well when nobody asks any more.
async fn serve(
    server: Server,
    state: &State,
    questions: &mut mpsc::Receiver<Question>,
    pause: &mut Duration,
) -> Result<(), String> {
    let Server { transport, unread, .. } = server;
    let (read, write) = tokio::io::split(transport);
    let waiting = RefCell::new(VecDeque::new());
    // What came too late was of the connection before.
    let _ = state.late.notified().now_or_never();
    tokio::select! {
        outcome = ask_all(write, questions, &waiting) => outcome,
        error = answer_all(read, unread, &waiting, pause) => Err(error),
        () = state.late.notified() => Err("no answer in time".to_owned()),
    }
}

type Waiting = RefCell<VecDeque<oneshot::Sender<Reply>>>;

async fn ask_all(
    mut to: impl AsyncWriteExt + Unpin,
    questions: &mut mpsc::Receiver<Question>,
    waiting: &Waiting,
) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    let (mut some, mut bytes) = (Vec::with_capacity(AT_ONCE), Vec::new());
    while questions.recv_many(&mut some, AT_ONCE).await > 0 {
        for Question { command, answer } in some.drain(..) {
            bytes.extend(command);
            waiting.borrow_mut().push_back(answer);
        }
        if waiting.borrow().len() > UNANSWERED {
            return Err("too many answers are missing".to_owned());
        }
        to.write_all(&bytes).await.map_err(said)?;
        to.flush().await.map_err(said)?;
        bytes.clear();
    }
    Ok(())
}

/// Until it can't go on, and why.
async fn answer_all(
    mut from: impl AsyncReadExt + Unpin,
    mut unread: BytesMut,
    waiting: &Waiting,
    pause: &mut Duration,
) -> String {
    loop {
        loop {
            let reply = match resp::take(&mut unread) {
                Ok(Some(reply)) => reply,
                Ok(None) => break,
                Err(error) => return error.to_string(),
            };
            let answer = waiting.borrow_mut().pop_front();
            match reply {
                // Not in force here any more, such as a primary that has become a replica.
                Reply::Error(error) if !error.starts_with("NOSCRIPT") => return error,
                reply @ (Reply::Status(_)
                | Reply::Error(_)
                | Reply::Integer(_)
                | Reply::Bulk(_)
                | Reply::Array(_)) => {
                    *pause = PAUSES.0;
                    // Whoever asked may have gone.
                    let _ = answer.map(|answer| answer.send(reply));
                }
            }
        }
        match from.read_buf(&mut unread).await {
            Ok(0) => return "the connection was closed".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}
