//! Load that neither `wrk` nor `h2load` makes: resumed handshakes and WebSocket messages. The driver runs itself as
//! `client` for that, on CPU 1, and reads what it prints.
//!
//! Each client checks each of its answers to the byte; the first wrong one ends the whole run with an error.

pub mod answer;
mod resumed;
mod websocket;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What one client does, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Connects, resumes the session of the connection before, and asks once.
    Resumed,
    /// Sends a small message and waits for its echo, on a connection that is kept.
    WebSocket,
}

/// The command line.
#[derive(Args)]
pub struct Arguments {
    /// What clients do.
    #[arg(value_enum)]
    pub kind: Kind,
    /// Of the proxy, on 127.0.0.1.
    #[arg(long)]
    pub port: u16,
    /// Clients at once.
    #[arg(long)]
    pub connections: u32,
    /// How long.
    #[arg(long)]
    pub seconds: u32,
    /// The proxy's certificate.
    #[arg(long)]
    pub certificate: PathBuf,
}

/// What it came to.
#[derive(Deserialize, Serialize)]
pub struct Told {
    /// Right answers.
    pub requests: u64,
    /// From the first client's start to the last one's end.
    pub seconds: f64,
}

/// Runs all clients and prints what they came to.
#[expect(clippy::print_stdout, reason = "the driver reads it")]
pub fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = runtime.block_on(all(arguments))?;
    println!("{}", serde_json::to_string(&told)?);
    Ok(())
}

async fn all(arguments: &Arguments) -> Result<Told> {
    let began = Instant::now();
    let until = began + Duration::from_secs(arguments.seconds.into());
    let mut clients = JoinSet::new();
    for _ in 0..arguments.connections {
        match arguments.kind {
            Kind::Resumed => {
                // A store of sessions for each: none takes another's ticket.
                let tls = answer::tls(&arguments.certificate)?;
                clients.spawn(resumed::client(arguments.port, tls, until));
            }
            Kind::WebSocket => {
                clients.spawn(websocket::client(arguments.port, until));
            }
        }
    }
    let mut requests = 0;
    while let Some(client) = clients.join_next().await {
        requests += client??;
    }
    Ok(Told { requests, seconds: began.elapsed().as_secs_f64() })
}
