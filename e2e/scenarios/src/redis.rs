//! A Redis of ours, beside the cluster, where pods can reach it.

use crate::cluster::Cluster;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::process::Stdio;
use tokio::process::{Child, Command};

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
        Ok(Self { address, process: spawn(address)? })
    }

    /// Ends it at once, and with it all that it knew.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await.context("Redis can't be ended")
    }

    /// Starts it again, empty, where it was.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = spawn(self.address)?;
        Ok(())
    }
}

fn spawn(address: SocketAddr) -> Result<Child> {
    // Of Debian's redis-tools: the server under one of its other names. Installing redis-server would start one.
    Command::new("redis-check-rdb")
        .arg0("redis-server")
        .args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()])
        .args(["--save", "", "--appendonly", "no", "--protected-mode", "no", "--daemonize", "no"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("redis-check-rdb can't be run")
}
