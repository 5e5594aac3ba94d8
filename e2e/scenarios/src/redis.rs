//! A Redis of ours, beside the cluster, where pods can reach it.

use crate::cluster::Cluster;
use anyhow::{Context, Result};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use tokio::net::{TcpListener, UdpSocket};
use tokio::process::{Child, Command};

/// Ends when it is dropped.
pub struct Redis {
    /// Where it listens.
    pub address: SocketAddr,
    process: Child,
}

impl Redis {
    /// Starts it on a free port of the address by which a node knows this side of the network.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let nodes = cluster.list("Node", "", "").await?;
        let addresses =
            nodes.first().and_then(|node| node["status"]["addresses"].as_array()).context("no node")?;
        let node = addresses.iter().find(|address| address["type"] == "InternalIP");
        let node: IpAddr = node.and_then(|node| node["address"].as_str()).context("no address")?.parse()?;
        let probe = UdpSocket::bind(("0.0.0.0", 0)).await?;
        probe.connect((node, 9)).await?;
        let ip = probe.local_addr()?.ip();
        let address = TcpListener::bind((ip, 0)).await?.local_addr()?;
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
