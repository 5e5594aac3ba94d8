//! A Redis of ours, beside the cluster, where pods can reach it.

use crate::cluster::Cluster;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long it may take until it listens.
const START: Duration = Duration::from_secs(20);

/// Ends when it is dropped.
pub struct Redis {
    /// Where it listens.
    pub address: SocketAddr,
    process: Child,
}

impl Redis {
    /// Starts it on a free port.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let address = cluster.free_address().await?;
        Ok(Self { address, process: spawn(address).await? })
    }

    /// Ends it at once, and with it all that it knew.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await.context("Redis can't be ended")
    }

    /// Starts it again, empty, where it was.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = spawn(self.address).await?;
        Ok(())
    }
}

/// Starts one, and waits until it listens.
async fn spawn(address: SocketAddr) -> Result<Child> {
    // Of Debian's redis-tools: the server under one of its other names. Installing redis-server would start one.
    let process = Command::new("redis-check-rdb")
        .arg0("redis-server")
        .args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()])
        .args(["--save", "", "--appendonly", "no", "--protected-mode", "no", "--daemonize", "no"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("redis-check-rdb can't be run")?;
    let began = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        ensure!(began.elapsed() < START, "Redis doesn't listen on {address}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(process)
}
