//! How long a request waits, by a clock that stands still while anybody has something to do.

use super::*;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

const TIMEOUT: Duration = Duration::from_millis(50);
/// Timers go by whole milliseconds.
const TICK: Duration = Duration::from_millis(1);

fn ask() -> [(usize, Ask); 1] {
    [(0, Ask { cell: CellId::of(7), meter: Meter::Fixed { limit: 9, window: 1_000_000 }, cost: 1 })]
}

/// A server that loads the script, and answers `answers` questions, each after `pause`; the rest it leaves waiting.
async fn serve(listener: &TcpListener, pause: Duration, answers: usize) {
    let (mut socket, _) = listener.accept().await.unwrap();
    read_command(&mut socket).await;
    socket.write_all(b"$3\r\nsha\r\n").await.unwrap();
    for _ in 0..answers {
        read_command(&mut socket).await;
        tokio::time::advance(pause).await;
        socket.write_all(b"*4\r\n:1\r\n:8\r\n:1000\r\n:0\r\n").await.unwrap();
    }
    std::future::pending().await
}

/// Commands come whole: they are a line of so many, and two lines for each.
async fn read_command(socket: &mut TcpStream) {
    let mut bytes = BytesMut::new();
    while resp::take(&mut bytes).ok().flatten().is_none() {
        assert_ne!(socket.read_buf(&mut bytes).await.unwrap(), 0);
    }
}

struct Case {
    store: Arc<Store>,
    links: Links,
}

impl Case {
    /// Takes once, and says whether that was counted and how long it took.
    async fn take(&self, waited: Duration) -> (bool, Duration) {
        let began = Instant::now();
        let said = self.store.take(&self.links, &ask(), waited).await;
        (said.is_some(), began.elapsed())
    }

    /// The same where an answer comes: the clock doesn't go on by itself while it is on its way.
    async fn answered(&self, waited: Duration) -> (bool, Duration) {
        let busy = async {
            loop {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            taken = self.take(waited) => taken,
            () = busy => unreachable!("it goes on for ever"),
        }
    }
}

/// Runs a test beside such a server, or one that takes connections and says nothing.
fn with(server: Option<(Duration, usize)>, test: impl AsyncFnOnce(Case)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    LocalSet::new().block_on(&runtime.unwrap(), async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let model = RateLimitStore {
            addresses: vec![listener.local_addr().unwrap().to_string().as_str().into()],
            topology: StoreTopology::Single,
            tls: None,
            credentials: None,
            timeout: TIMEOUT,
            key_prefix: "".into(),
            on_unavailable: OnUnavailable::Allow,
            local: true,
        };
        let serving = async {
            match server {
                Some((pause, answers)) => serve(&listener, pause, answers).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = serving => unreachable!("it goes on for ever"),
            () = test(Case { store: Arc::new(Store::compile(&model)), links: Links::default() }) => {}
        }
    });
}

#[test]
fn nobody_waits_longer_for_a_store_that_was_never_there() {
    with(None, async |case| {
        let (said, took) = case.take(Duration::ZERO).await;
        assert!(!said && took >= TIMEOUT && took <= TIMEOUT + TICK, "{took:?}");
        // The others don't wait at all, until it is there.
        assert_eq!(case.take(Duration::ZERO).await, (false, Duration::ZERO));
    });
}

#[test]
fn nobody_waits_longer_for_a_store_that_stops_answering() {
    with(Some((Duration::ZERO, 3)), async |case| {
        for _ in 0..3 {
            assert_eq!(case.answered(Duration::ZERO).await, (true, Duration::ZERO));
        }
        // Those who ask while nobody knows of it yet, at their own times.
        let late = async |pause: Duration| {
            tokio::time::sleep(pause).await;
            case.take(Duration::ZERO).await
        };
        let [first, second, third] = [0, 20, 40].map(Duration::from_millis).map(late);
        for (said, took) in <[_; 3]>::from(tokio::join!(first, second, third)) {
            assert!(!said && took <= TIMEOUT + TICK, "{took:?}");
        }
        assert_eq!(case.take(Duration::ZERO).await, (false, Duration::ZERO));
    });
}

#[test]
fn a_request_that_has_waited_before_waits_for_the_rest_only() {
    let pause = Duration::from_millis(30);
    with(Some((pause, 1)), async |case| {
        let (said, waited) = case.answered(Duration::ZERO).await;
        assert!(said && waited >= pause, "{waited:?}");
        let (said, took) = case.take(waited).await;
        assert!(!said && waited + took <= TIMEOUT + 2 * TICK, "{took:?} after {waited:?}");
    });
}
