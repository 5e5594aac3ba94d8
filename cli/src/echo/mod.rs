//! `headgate echo`: a backend for demos and tests. Serves HTTP/1.1 and clear-text HTTP/2 on one port, answers every
//! request with JSON of what it received ([`answer`]) and echoes WebSocket messages ([`websocket`]). Plain hyper, with
//! nothing of the proxy in it, so that a test with it as the backend tests the proxy against something else.

mod answer;
mod websocket;

use crate::stop::Stop;
use anyhow::{Context, Result};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at a time; further ones wait in the kernel's queue. More than a load test on one machine opens.
const MAX_CONNECTIONS: usize = 10_000;

/// How long requests in flight get after a signal. Longer than [`answer::MAX_DELAY`], so that none is cut.
const DRAIN: Duration = Duration::from_secs(65);

/// Pause after a failed accept (descriptors used up), so that it doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Flags of `headgate echo`.
#[derive(clap::Args)]
pub struct Args {
    /// Port to listen on; 0 takes a free one and says which.
    #[arg(long, env = "HEADGATE_PORT", value_name = "N")]
    port: u16,
    /// Address to listen on.
    #[arg(long, env = "HEADGATE_ADDRESS", default_value = "0.0.0.0", value_name = "IP")]
    address: IpAddr,
    /// What answers give as `name`, to tell several backends apart.
    #[arg(long, env = "HEADGATE_NAME", default_value = "echo", value_name = "NAME")]
    name: String,
}

/// Serves until a signal asks to stop, then until requests in flight are answered.
pub fn run(args: Args) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(serve(args))
}

async fn serve(args: Args) -> Result<()> {
    let wanted = SocketAddr::new(args.address, args.port);
    let listener = TcpListener::bind(wanted).await.with_context(|| format!("listen on {wanted}"))?;
    let mut stop = Stop::new().context("listen for signals")?;
    let name: Arc<str> = args.name.into();
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    eprintln!("headgate: echo {name:?} serves on http://{}", listener.local_addr()?);
    loop {
        let accepted = async {
            let free = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, peer)| (stream, peer, free))
        };
        tokio::select! {
            accepted = accepted => match accepted {
                Ok((stream, peer, free)) => {
                    let serving = connection(stream, peer, Arc::clone(&name), &graceful);
                    tokio::task::spawn(async move {
                        serving.await;
                        drop(free);
                    });
                }
                Err(error) => {
                    eprintln!("headgate: accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = stop.asked() => break,
        }
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(DRAIN) => {}
        _ = stop.asked() => {}
    }
    Ok(())
}

/// One connection to its end. How it ends is the client's affair: an error here is not worth a line.
fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    name: Arc<str>,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + use<> {
    // Small answers leave at once; where this fails they only leave later.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer::answer(request, peer, Arc::clone(&name)));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1024);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    let served = graceful.watch(served);
    async move {
        let _ = served.await;
    }
}
