//! Connections to the server that counts: the one that is named, the primary that sentinels know, or the node of a cluster
//! that has the store's keys. Whoever comes out of here has been greeted, and knows the script.

use super::{Place, SCRIPT, resp};
use crate::auth::fetch::connect;
use crate::model::StoreTopology;
use crate::transport::{Corked, Transport};
use bytes::BytesMut;
use resp::Reply;
use rustls::pki_types::ServerName;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Nodes of a cluster that may send us on to another one.
const HOPS: usize = 4;

/// A server that counts.
pub(super) struct Server {
    pub(super) transport: Transport,
    /// What has been read of the next reply.
    pub(super) unread: BytesMut,
    /// The name that it gave the script.
    pub(super) script: Vec<u8>,
}

/// Connects. The error is for people.
pub(super) async fn dial(place: &Place) -> Result<Server, String> {
    let addresses = &place.model.addresses;
    let mut last = "there is nothing that it could be reached by".to_owned();
    for address in addresses {
        let found = match &place.model.topology {
            StoreTopology::Single => greet(place, address).await,
            StoreTopology::Sentinel { primary } => match primary_of(place, address, primary).await {
                Ok(address) => greet(place, &address).await,
                Err(error) => Err(error),
            },
            StoreTopology::Cluster => owner(place, address).await,
        };
        match found {
            Ok(mut talk) => match talk.script().await {
                Ok(script) => {
                    return Ok(Server { transport: talk.transport, unread: talk.unread, script });
                }
                Err(error) => last = error,
            },
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Splits `HOST:PORT`; brackets belong to the text, not to an IPv6 address.
pub(super) fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then_some((host, port))
}

/// A conversation of one question at a time.
struct Talk {
    address: String,
    transport: Transport,
    unread: BytesMut,
}

async fn open(place: &Place, address: &str) -> Result<Talk, String> {
    let (host, port) = split(address).ok_or_else(|| format!("{address} is no HOST:PORT"))?;
    let socket = connect(host, port, place.model.local).await?;
    let said = |error: io::Error| format!("{address}: {error}");
    socket.set_nodelay(true).map_err(said)?;
    let transport = match &place.tls {
        None => Transport::Clear(socket.into()),
        Some((connector, name)) => {
            let name = match name {
                Some(name) => name.clone(),
                None => {
                    ServerName::try_from(host.to_owned()).map_err(|error| format!("{address}: {error}"))?
                }
            };
            let stream = connector.connect(name, Corked::new(socket)).await;
            Transport::secured(stream.map_err(|error| format!("{address}: TLS: {error}"))?)
        }
    };
    Ok(Talk { address: address.to_owned(), transport, unread: BytesMut::new() })
}

/// Connects, and says who we are.
async fn greet(place: &Place, address: &str) -> Result<Talk, String> {
    let mut talk = open(place, address).await?;
    talk.authenticate(place).await?;
    Ok(talk)
}

/// Asks a sentinel for the primary.
async fn primary_of(place: &Place, sentinel: &str, name: &str) -> Result<String, String> {
    let mut talk = open(place, sentinel).await?;
    let question: [&[u8]; 3] = [b"SENTINEL", b"get-master-addr-by-name", name.as_bytes()];
    let mut reply = talk.ask(&question).await?;
    if matches!(&reply, Reply::Error(error) if error.starts_with("NOAUTH")) {
        talk.authenticate(place).await?;
        reply = talk.ask(&question).await?;
    }
    let text = |reply: &Reply| match reply {
        Reply::Bulk(Some(bytes)) => String::from_utf8(bytes.clone()).ok(),
        Reply::Bulk(None) | Reply::Status(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Array(_) => None,
    };
    if let Reply::Array(parts) = &reply
        && let [host, port] = &parts[..]
        && let (Some(host), Some(port)) = (text(host), text(port))
    {
        return Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") });
    }
    Err(format!("sentinel {sentinel} knows no primary named {name}"))
}

/// The node of a cluster that has the keys, found by way of another one.
async fn owner(place: &Place, node: &str) -> Result<Talk, String> {
    let mut address = node.to_owned();
    let key = place.key(0);
    for _ in 0..HOPS {
        let mut talk = greet(place, &address).await?;
        let error = match talk.ask(&[b"EXISTS", &key]).await? {
            Reply::Error(error) => error,
            Reply::Status(_) | Reply::Integer(_) | Reply::Bulk(_) | Reply::Array(_) => return Ok(talk),
        };
        match error.strip_prefix("MOVED ").and_then(|moved| moved.rsplit(' ').next()) {
            Some(to) => to.clone_into(&mut address),
            None => return Err(format!("{address}: {error}")),
        }
    }
    Err(format!("{node}: one node of the cluster sends to the other"))
}

impl Talk {
    async fn authenticate(&mut self, place: &Place) -> Result<(), String> {
        let Some(credentials) = &place.model.credentials else { return Ok(()) };
        let password = credentials.password.reveal().as_bytes();
        let reply = match &credentials.username {
            None => self.ask(&[b"AUTH", password]).await?,
            Some(name) => self.ask(&[b"AUTH", name.as_bytes(), password]).await?,
        };
        self.no_error(reply).map(drop)
    }

    async fn script(&mut self) -> Result<Vec<u8>, String> {
        let reply = self.ask(&[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()]).await?;
        match self.no_error(reply)? {
            Reply::Bulk(Some(name)) => Ok(name),
            Reply::Bulk(None) | Reply::Status(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Array(_) => {
                Err(format!("{}: {}", self.address, resp::Garbled))
            }
        }
    }

    fn no_error(&self, reply: Reply) -> Result<Reply, String> {
        match reply {
            Reply::Error(error) => Err(format!("{}: {error}", self.address)),
            Reply::Status(_) | Reply::Integer(_) | Reply::Bulk(_) | Reply::Array(_) => Ok(reply),
        }
    }

    async fn ask(&mut self, parts: &[&[u8]]) -> Result<Reply, String> {
        let asked = self.exchange(parts).await;
        asked.map_err(|error| format!("{}: {error}", self.address))
    }

    async fn exchange(&mut self, parts: &[&[u8]]) -> io::Result<Reply> {
        let mut command = Vec::new();
        resp::command(&mut command, parts.iter().copied());
        self.transport.write_all(&command).await?;
        self.transport.flush().await?;
        loop {
            match resp::take(&mut self.unread).map_err(io::Error::other)? {
                Some(reply) => return Ok(reply),
                None if self.transport.read_buf(&mut self.unread).await? == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                None => {}
            }
        }
    }
}
