//! A map from text that is cheap to copy and change a little: what makes an edit cost what it touches.
//!
//! Entries are spread over shards by hash; a copy shares all shards, and a change copies the one it falls into. Few
//! entries share one shard. Must not know what it holds.

use crate::model::Text;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

/// Entries up to which one shard is enough: copying them costs less than 256 pointers would.
const FEW: usize = 64;
/// Shards beyond that: at 20,000 entries a change copies 80 of them.
const SHARDS: usize = 256;

/// Seeded once per process: a configuration can't be made to collide ahead of time.
static HASH: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

type Shard<V> = HashTable<(Text, V)>;

/// A sharded map. Empty: no allocation.
#[derive(Clone, Debug)]
pub(crate) struct Shards<V> {
    /// None, one, or [`SHARDS`]; never fewer again.
    shards: Vec<Arc<Shard<V>>>,
    len: usize,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self { shards: Vec::new(), len: 0 }
    }
}

fn hash(key: &str) -> u64 {
    HASH.hash_one(key)
}

/// The low bits choose the bucket and the top seven its tag: the shard takes from between.
fn position(hash: u64, shards: usize) -> usize {
    usize::from((hash >> 40) as u8) % shards
}

impl<V: Clone> Shards<V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        if self.shards.is_empty() {
            return None;
        }
        let hash = hash(key);
        let shard = &self.shards[position(hash, self.shards.len())];
        shard.find(hash, |(other, _)| **other == *key).map(|(_, value)| value)
    }

    /// Changes the value under a key, which is a new `V::default()` if there was none, and removes it if `keep` says no.
    pub(crate) fn change(&mut self, key: &Text, edit: impl FnOnce(&mut V), keep: impl FnOnce(&V) -> bool)
    where
        V: Default,
    {
        if self.shards.is_empty() {
            self.shards.push(Arc::default());
        } else if self.len == FEW && self.shards.len() == 1 {
            self.spread();
        }
        let hash_of_key = hash(key);
        let shards = self.shards.len();
        let shard = Arc::make_mut(&mut self.shards[position(hash_of_key, shards)]);
        let before = shard.len();
        let mut entry = match shard.entry(hash_of_key, |(other, _)| *other == *key, |(other, _)| hash(other))
        {
            hashbrown::hash_table::Entry::Occupied(entry) => entry,
            hashbrown::hash_table::Entry::Vacant(entry) => entry.insert((key.clone(), V::default())),
        };
        edit(&mut entry.get_mut().1);
        if !keep(&entry.get().1) {
            entry.remove();
        }
        self.len = self.len + shard.len() - before;
    }

    fn spread(&mut self) {
        let mut shards: Vec<Shard<V>> = (0..SHARDS).map(|_| Shard::new()).collect();
        for entry in self.shards.iter().flat_map(|shard| shard.iter()) {
            let hash_of_entry = hash(&entry.0);
            shards[position(hash_of_entry, SHARDS)].insert_unique(
                hash_of_entry,
                entry.clone(),
                |(other, _)| hash(other),
            );
        }
        self.shards = shards.into_iter().map(Arc::new).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn set(shards: &mut Shards<u32>, key: &str, value: u32) {
        shards.change(&key.into(), |slot| *slot = value, |_| value != 0);
    }

    proptest! {
        /// 0 removes. Keys are few enough to hit again and many enough to need all shards.
        #[test]
        fn behaves_like_a_map(edits in prop::collection::vec((0u32..400, 0u32..4), 0..600)) {
            let (mut shards, mut map) = (Shards::default(), BTreeMap::new());
            for (key, value) in edits {
                let key = key.to_string();
                set(&mut shards, &key, value);
                if value == 0 { map.remove(&key); } else { map.insert(key, value); }
                prop_assert_eq!(shards.len, map.len());
            }
            for key in (0..400).map(|key| key.to_string()) {
                prop_assert_eq!(shards.get(&key), map.get(&key));
            }
        }
    }

    #[test]
    fn a_change_copies_one_shard_and_no_reader_sees_it() {
        let mut shards = Shards::default();
        for key in 1..=20_000_u32 {
            set(&mut shards, &key.to_string(), key);
        }
        let before = shards.clone();
        set(&mut shards, "7", 1_000_000);
        assert_eq!((before.get("7"), shards.get("7")), (Some(&7), Some(&1_000_000)));
        let copied = before.shards.iter().zip(&shards.shards).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!((shards.shards.len(), copied), (SHARDS, 1));
        let largest = shards.shards.iter().map(|shard| shard.len()).max().unwrap();
        assert!(largest < 200, "{largest} of 20,000 entries in one shard of {SHARDS}");
    }
}
