//! Rate limits that all replicas count together, in Redis or Valkey: one script call takes from all cells of a request, or
//! from none, by the server's clock.
//!
//! A [`Store`] is one for all policies that name the same server in the same way. Each thread has a connection of its own to
//! it ([`link`]). Cells are named by digests, so that the store holds nothing of what clients send. In a cluster all cells of a
//! store are in one slot, because a script can't reach further: a store is as fast as one node.

mod dial;
mod link;
mod resp;

pub(crate) use link::Links;

use super::counters::{Ask, CellId, Meter, Standing};
use crate::authorities::roots;
use crate::model::{OnUnavailable, RateLimitStore, StoreTopology};
use crate::tls::provider;
use aws_lc_rs::digest::{Context, Digest, SHA256};
use resp::Reply;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// What the server runs. Written for the Lua 5.1 of Redis 5 and later, and of Valkey.
const SCRIPT: &str = include_str!("take.lua");

/// Where limits are counted.
#[derive(Debug)]
pub(crate) struct Store {
    from: RateLimitStore,
    place: Arc<Place>,
}

/// How it is reached: what the connections to it live by.
struct Place {
    model: RateLimitStore,
    tls: Option<(TlsConnector, Option<ServerName<'static>>)>,
    /// Whether the log says that it can't be reached.
    lost: AtomicBool,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.model).finish()
    }
}

impl Store {
    /// Compiles; one that can't be compiled is never reached, and logged: its author was told.
    pub(super) fn compile(from: &RateLimitStore) -> Self {
        let mut model = from.clone();
        let tls = tls(from).unwrap_or_else(|error| {
            tracing::error!(%error, "the store of a rate limit can't be used");
            model.addresses.clear();
            None
        });
        Self { from: from.clone(), place: Arc::new(Place { model, tls, lost: AtomicBool::new(false) }) }
    }

    /// Whether it was made of this.
    pub(super) fn is_of(&self, from: &RateLimitStore) -> bool {
        self.from == *from
    }

    /// What holds while it can't be reached.
    pub(super) fn on_unavailable(&self) -> OnUnavailable {
        self.from.on_unavailable
    }

    /// Takes from the cells of groups: of each from all or from none. What each cell says, in order; none when the store
    /// doesn't answer in time, of which the request has used up `waited`.
    pub(super) async fn take(
        self: &Arc<Self>,
        links: &Links,
        asks: &[(usize, Ask)],
        waited: Duration,
    ) -> Option<Vec<Standing>> {
        let link = links.to(self);
        let until = Instant::now() + self.from.timeout.saturating_sub(waited);
        let ask = |whole: bool| {
            link.ask(until, move |name| match whole {
                true => self.place.command(b"EVAL", SCRIPT.as_bytes(), asks),
                false => self.place.command(b"EVALSHA", name, asks),
            })
        };
        let mut reply = ask(false).await?;
        if matches!(reply, Reply::Error(_)) {
            // It has forgotten the script.
            reply = ask(true).await?;
        }
        let Reply::Array(numbers) = reply else { return None };
        let number = |reply: &Reply| match reply {
            Reply::Integer(number) => u64::try_from(*number).ok(),
            Reply::Status(_) | Reply::Error(_) | Reply::Bulk(_) | Reply::Array(_) => None,
        };
        let numbers = numbers.iter().map(number).collect::<Option<Vec<u64>>>()?;
        let standing = |four: &[u64]| Standing {
            passes: four[0] == 1,
            remaining: four[1],
            reset: four[2].saturating_mul(1_000),
            wait: four[3].saturating_mul(1_000),
        };
        (numbers.len() == 4 * asks.len()).then(|| numbers.chunks_exact(4).map(standing).collect())
    }
}

impl Place {
    /// Logs that it can't be reached, or that it can again; once for all threads.
    fn note(&self, error: Option<&str>) {
        let was_lost = self.lost.swap(error.is_some(), Ordering::Relaxed);
        let (addresses, otherwise) = (&self.model.addresses, self.model.on_unavailable);
        match error {
            Some(error) if !was_lost => {
                tracing::warn!(?addresses, %error, ?otherwise, "the store of rate limits can't be reached");
            }
            None if was_lost => tracing::info!(?addresses, "the store of rate limits can be reached again"),
            Some(_) | None => {}
        }
    }

    /// What a cell is called.
    fn key(&self, cell: u128) -> Vec<u8> {
        let prefix = &*self.model.key_prefix;
        match self.model.topology {
            // Keys of one tag are in one slot; a prefix may have its own.
            StoreTopology::Cluster if !prefix.contains('{') => format!("{prefix}{{{prefix}}}{cell:032x}"),
            StoreTopology::Cluster | StoreTopology::Single | StoreTopology::Sentinel { .. } => {
                format!("{prefix}{cell:032x}")
            }
        }
        .into_bytes()
    }

    fn command(&self, name: &[u8], script: &[u8], asks: &[(usize, Ask)]) -> Vec<u8> {
        let mut parts: Vec<Vec<u8>> = Vec::with_capacity(3 + 6 * asks.len());
        parts.extend([name.to_vec(), script.to_vec(), asks.len().to_string().into_bytes()]);
        parts.extend(asks.iter().map(|(_, ask)| self.key(ask.cell.number())));
        // In microseconds, three decimals.
        let micro = |nanoseconds: u64| format!("{}.{:03}", nanoseconds / 1_000, nanoseconds % 1_000);
        for (group, ask) in asks {
            let (kind, span, limit) = match ask.meter {
                Meter::Bucket { interval, capacity } => ("bucket", micro(interval), capacity),
                Meter::Fixed { limit, window } => ("fixed", micro(window), limit),
                Meter::Sliding { limit, window } => ("sliding", micro(window), limit),
                Meter::InFlight { .. } => unreachable!("what is in flight is counted in each replica"),
            };
            let args = [group.to_string(), kind.to_owned(), span, limit.to_string(), ask.cost.to_string()];
            parts.extend(args.map(String::into_bytes));
        }
        let mut command = Vec::with_capacity(parts.iter().map(|part| part.len() + 16).sum());
        resp::command(&mut command, parts.iter().map(Vec::as_slice));
        command
    }
}

fn tls(from: &RateLimitStore) -> Result<Option<(TlsConnector, Option<ServerName<'static>>)>, String> {
    for (n, address) in from.addresses.iter().enumerate() {
        if dial::split(address).is_none() {
            return Err(format!("address[{n}]: {address:?} isn't HOST:PORT"));
        }
    }
    let Some(tls) = &from.tls else { return Ok(None) };
    let name = tls.server_name.as_ref().map(|name| {
        ServerName::try_from(name.to_string()).map_err(|_| format!("tls.serverName: {name:?} is no name"))
    });
    let roots = roots(&tls.authorities).map_err(|error| format!("tls: {error}"))?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some((TlsConnector::from(Arc::new(config)), name.transpose()?)))
}

/// Whether a store can be used. The error names what is wrong, for the author of the policy.
pub fn check(store: &RateLimitStore) -> Result<(), String> {
    tls(store).map(drop)
}

/// What names cells: the same in all replicas, whenever they began. Each part says how long it is.
pub(super) struct Naming(Context);

impl Naming {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(super) fn and(mut self, part: &[u8]) -> Self {
        self.0.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.update(part);
        self
    }

    pub(super) fn cell(self) -> CellId {
        let digest: Digest = self.0.finish();
        let half: [u8; 16] = digest.as_ref()[..16].try_into().expect("SHA-256 has 32 bytes");
        CellId::of(u128::from_be_bytes(half))
    }
}

#[cfg(test)]
mod tests;
