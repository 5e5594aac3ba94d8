//! Addresses of endpoints, numbered process-wide, so that each thread finds its pool of one by indexing.
//!
//! A number (slot) is given back when no set lists the address and no thread holds it any more; then the next new
//! address gets it. Owned by the control thread; threads only read [`Address`].

use crate::model::EndpointSet;
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// One address that requests go to, shared by all backends that list it. There are tens of thousands of them.
#[derive(Debug)]
pub(crate) struct Address {
    ip: IpAddr,
    port: u16,
    retired: AtomicBool,
    slot: u32,
    /// Sets that list it. Only the control thread counts.
    uses: AtomicU32,
}

const _: () = assert!(size_of::<Address>() <= 32);

impl Address {
    /// Where to connect.
    pub(crate) fn socket(&self) -> SocketAddr {
        (self.ip, self.port).into()
    }

    /// Its number.
    pub(crate) fn slot(&self) -> usize {
        self.slot as usize
    }

    /// Whether no set lists it any more. It never comes back: the same address listed again gets a new number.
    pub(crate) fn is_retired(&self) -> bool {
        // Nothing else is read on the strength of this.
        self.retired.load(Ordering::Relaxed)
    }
}

/// An endpoint of a backend, ready to be picked.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) address: Arc<Address>,
}

/// Every address that some set lists.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// By their sockets.
    listed: HashTable<Arc<Address>>,
    hasher: RandomState,
    /// Listed no more; the slot is free when nobody but us holds the address.
    retired: Vec<Arc<Address>>,
    slots: u32,
}

impl Addresses {
    /// Numbers the addresses of a set that comes into force.
    pub(super) fn list(&mut self, set: &EndpointSet) -> Vec<Member> {
        let mut members = Vec::with_capacity(set.endpoints.len());
        for endpoint in &set.endpoints {
            let socket = endpoint.address;
            let hash = self.hasher.hash_one(socket);
            let address = match self.listed.find(hash, |known| known.socket() == socket) {
                Some(known) => known.clone(),
                None => {
                    let address = Arc::new(Address {
                        ip: socket.ip(),
                        port: socket.port(),
                        retired: AtomicBool::new(false),
                        slot: self.free_slot(),
                        uses: AtomicU32::new(0),
                    });
                    let hasher = |known: &Arc<Address>| self.hasher.hash_one(known.socket());
                    self.listed.insert_unique(hash, address.clone(), hasher);
                    address
                }
            };
            address.uses.fetch_add(1, Ordering::Relaxed);
            members.push(Member { address });
        }
        members
    }

    /// Takes back what [`Addresses::list`] gave for a set that is out of force.
    pub(super) fn unlist(&mut self, members: &[Member]) {
        for Member { address } in members {
            if address.uses.fetch_sub(1, Ordering::Relaxed) > 1 {
                continue;
            }
            let hash = self.hasher.hash_one(address.socket());
            if let Ok(listed) = self.listed.find_entry(hash, |known| Arc::ptr_eq(known, address)) {
                let (address, _) = listed.remove();
                address.retired.store(true, Ordering::Relaxed);
                self.retired.push(address);
            }
        }
    }

    fn free_slot(&mut self) -> u32 {
        if let Some(free) = self.retired.iter().position(|address| Arc::strong_count(address) == 1) {
            return self.retired.swap_remove(free).slot;
        }
        self.slots += 1;
        self.slots - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Endpoint;

    fn set(ports: &[u16]) -> EndpointSet {
        let endpoint = |port: &u16| Endpoint { address: ([127, 0, 0, 1], *port).into(), pod: None };
        EndpointSet { endpoints: ports.iter().map(endpoint).collect() }
    }

    #[test]
    fn an_address_keeps_its_slot_while_any_set_lists_it() {
        let mut addresses = Addresses::default();
        let a = addresses.list(&set(&[1, 2]));
        let b = addresses.list(&set(&[2, 3]));
        assert_eq!(a[1].address.slot(), b[0].address.slot());
        addresses.unlist(&a);
        assert!(a[0].address.is_retired());
        assert!(!a[1].address.is_retired());
    }

    #[test]
    fn a_slot_is_reused_only_when_nobody_holds_its_address() {
        let mut addresses = Addresses::default();
        let first = addresses.list(&set(&[1]));
        addresses.unlist(&first);
        let second = addresses.list(&set(&[2]));
        assert_ne!(first[0].address.slot(), second[0].address.slot());
        let slot = first[0].address.slot();
        drop(first);
        assert_eq!(addresses.list(&set(&[3]))[0].address.slot(), slot);
    }
}
