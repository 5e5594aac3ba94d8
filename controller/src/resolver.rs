//! Addresses of the external hosts that XBackends name: looked up when they appear, and again when an answer has lived
//! (RFC 1035 §3.2.1).
//!
//! What can't be looked up keeps the addresses that it had. Names are absolute: no search domain of the cluster makes a
//! Service of them.

use crate::cluster::Change;
use futures_util::{StreamExt, stream};
use headgate_proxy::model::Text;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::{Resolver, TokioResolver};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How often; answers that live longer come from memory.
const REFRESH: Duration = Duration::from_secs(5);
/// How long one may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// Lookups at a time.
const AT_ONCE: usize = 16;
/// Addresses of one host; what has more is passed over, for nothing balances over so many.
const MOST_ADDRESSES: usize = 128;

/// What came of a lookup.
type Found = Result<Arc<[IpAddr]>, String>;

/// Follows the hosts that are `wanted`, until nobody wants to know any more.
pub async fn follow(mut wanted: watch::Receiver<BTreeSet<Text>>, changes: mpsc::Sender<Vec<Change>>) {
    let (resolver, mut known) = (resolver(), BTreeMap::<Text, Found>::new());
    loop {
        let hosts = wanted.borrow_and_update().clone();
        let gone: Vec<_> = known.keys().filter(|host| !hosts.contains(*host)).cloned().collect();
        known.retain(|host, _| hosts.contains(host));
        let mut batch: Vec<_> = gone.into_iter().map(|host| Change::Host(host, None)).collect();
        let mut found = stream::iter(hosts)
            .map(|host| async {
                let found = look_up(&resolver, &host).await;
                (host, found)
            })
            .buffer_unordered(AT_ONCE);
        loop {
            if !batch.is_empty() && changes.send(std::mem::take(&mut batch)).await.is_err() {
                return;
            }
            let Some((host, found)) = found.next().await else { break };
            batch.extend(note(&mut known, host, found));
        }
        if let Ok(Err(_)) = timeout(REFRESH, wanted.changed()).await {
            return;
        }
    }
}

/// What is to be told of a lookup.
fn note(known: &mut BTreeMap<Text, Found>, host: Text, found: Found) -> Option<Change> {
    let before = known.get(&host);
    if before == Some(&found) {
        return None;
    }
    let change = match &found {
        Ok(addresses) => {
            tracing::info!(%host, ?addresses, "looked up a host that an XBackend names");
            Some(Change::Host(host.clone(), Some(addresses.clone())))
        }
        Err(why) => {
            tracing::warn!(%host, why, "can't look up a host that an XBackend names; the addresses before stay in use");
            None
        }
    };
    known.insert(host, found);
    change
}

/// The system's name servers and hosts file.
fn resolver() -> Result<TokioResolver, String> {
    let mut builder = Resolver::builder_tokio().map_err(|error| error.to_string())?;
    builder.options_mut().timeout = LOOKUP / 2;
    builder.build().map_err(|error| error.to_string())
}

/// Sorted, each address once. One family is enough: name servers that have nothing to say of the other are common.
async fn look_up(resolver: &Result<TokioResolver, String>, host: &str) -> Found {
    let resolver = resolver.as_ref().map_err(Clone::clone)?;
    let of_family = async |family: RecordType| {
        let found = timeout(LOOKUP, resolver.lookup(format!("{host}."), family)).await;
        let found = found.map_err(|_| format!("no answer within {} s", LOOKUP.as_secs()))?;
        let found = found.map_err(|error| error.to_string())?;
        let addresses = found.answers().iter().filter_map(|record| record.data.ip_addr());
        Ok::<BTreeSet<_>, String>(addresses.collect())
    };
    let (v4, v6) = tokio::join!(of_family(RecordType::A), of_family(RecordType::AAAA));
    let addresses = match (v4, v6) {
        (Ok(v4), Ok(v6)) => &v4 | &v6,
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => one,
        (Err(why), Err(_)) => return Err(why),
    };
    if addresses.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok(addresses.into_iter().take(MOST_ADDRESSES).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(all: &[&str]) -> Arc<[IpAddr]> {
        all.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn only_what_is_new_is_told_and_errors_take_nothing_away() {
        let (mut known, host) = (BTreeMap::new(), Text::from("a.example"));
        let (first, other) = (addresses(&["192.0.2.1"]), addresses(&["192.0.2.2"]));
        let mut told = |found| note(&mut known, host.clone(), found);
        assert!(matches!(told(Ok(first.clone())), Some(Change::Host(_, Some(all))) if all == first));
        assert!(told(Ok(first.clone())).is_none());
        assert!(told(Err("no answer".to_owned())).is_none());
        // It may have been another one meanwhile.
        assert!(told(Ok(first)).is_some());
        assert!(matches!(told(Ok(other.clone())), Some(Change::Host(_, Some(all))) if all == other));
    }

    #[tokio::test]
    async fn hosts_come_and_go() {
        let (hosts, wanted) = watch::channel(BTreeSet::from([Text::from("localhost")]));
        let (sender, mut changes) = mpsc::channel(8);
        let task = tokio::spawn(follow(wanted, sender));
        let told = changes.recv().await.unwrap();
        let [Change::Host(host, Some(addresses))] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(&**host, "localhost");
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        hosts.send_replace(BTreeSet::new());
        let told = changes.recv().await.unwrap();
        assert!(matches!(told.as_slice(), [Change::Host(_, None)]), "{told:?}");
        drop(hosts);
        task.await.unwrap();
    }
}
