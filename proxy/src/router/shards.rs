//! A map from text that is cheap to copy and change a little: what makes an edit cost what it touches.
//!
//! Many entries are spread over shards by hash; a copy shares all shards, and a change copies the one it falls into.
//! Few are a plain list: most hostnames have one path. Must not know what it holds.

use crate::model::Text;
use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

/// Entries up to which a list is smaller and as fast as a table.
const FEW: usize = 8;
/// Entries up to which one shard is enough: copying them costs less than 256 pointers would.
const SOME: usize = 64;
/// Shards beyond that: at 20,000 entries a change copies 80 of them.
const SHARDS: usize = 256;

/// Seeded once per process: a configuration can't be made to collide ahead of time.
static HASH: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

type Shard<V> = HashTable<(Text, V)>;

/// A map that grows from a list to shards. It doesn't shrink back: a gateway that had many routes may have them again.
#[derive(Clone, Debug)]
pub(crate) enum Shards<V> {
    /// At most [`FEW`], in no order.
    List(Vec<(Text, V)>),
    /// One shard, or [`SHARDS`].
    Tables { shards: Vec<Arc<Shard<V>>>, len: usize },
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self::List(Vec::new())
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
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Tables { len, .. } => *len,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        let (_, value) = match self {
            Self::List(list) => list.iter().find(|(other, _)| **other == *key),
            Self::Tables { shards, .. } => {
                let hash = hash(key);
                shards[position(hash, shards.len())].find(hash, |(other, _)| **other == *key)
            }
        }?;
        Some(value)
    }

    /// Changes the value under a key, which is a new `V::default()` if there was none, and removes it if `keep` says no.
    pub(crate) fn change(&mut self, key: &Text, edit: impl FnOnce(&mut V), keep: impl FnOnce(&V) -> bool)
    where
        V: Default,
    {
        match self.len() {
            FEW if matches!(self, Self::List(_)) => self.spread(1),
            SOME if matches!(self, Self::Tables { shards, .. } if shards.len() == 1) => self.spread(SHARDS),
            _ => {}
        }
        match self {
            Self::List(list) => change_list(list, key, edit, keep),
            Self::Tables { shards, len } => {
                let hash = hash(key);
                let position = position(hash, shards.len());
                let shard = Arc::make_mut(&mut shards[position]);
                let before = shard.len();
                change_shard(shard, hash, key, edit, keep);
                *len = *len + shard.len() - before;
            }
        }
    }

    fn spread(&mut self, count: usize) {
        let entries: Vec<_> = match self {
            Self::List(list) => std::mem::take(list),
            Self::Tables { shards, .. } => shards.iter().flat_map(|shard| shard.iter().cloned()).collect(),
        };
        let len = entries.len();
        let mut shards: Vec<Shard<V>> = (0..count).map(|_| Shard::new()).collect();
        for entry in entries {
            let hash_of_entry = hash(&entry.0);
            shards[position(hash_of_entry, count)]
                .insert_unique(hash_of_entry, entry, |(other, _)| hash(other));
        }
        *self = Self::Tables { shards: shards.into_iter().map(Arc::new).collect(), len };
    }
}

fn change_list<V: Default>(
    list: &mut Vec<(Text, V)>,
    key: &Text,
    edit: impl FnOnce(&mut V),
    keep: impl FnOnce(&V) -> bool,
) {
    let position = list.iter().position(|(other, _)| other == key).unwrap_or_else(|| {
        // Exactly one more: thousands of lists have one entry and stay that way.
        list.reserve_exact(1);
        list.push((key.clone(), V::default()));
        list.len() - 1
    });
    edit(&mut list[position].1);
    if !keep(&list[position].1) {
        list.swap_remove(position);
    }
}

fn change_shard<V: Default>(
    shard: &mut Shard<V>,
    hash_of_key: u64,
    key: &Text,
    edit: impl FnOnce(&mut V),
    keep: impl FnOnce(&V) -> bool,
) {
    let mut entry = match shard.entry(hash_of_key, |(other, _)| other == key, |(other, _)| hash(other)) {
        Entry::Occupied(entry) => entry,
        Entry::Vacant(entry) => entry.insert((key.clone(), V::default())),
    };
    edit(&mut entry.get_mut().1);
    if !keep(&entry.get().1) {
        entry.remove();
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
                prop_assert_eq!(shards.len(), map.len());
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
        let (Shards::Tables { shards: before, .. }, Shards::Tables { shards, .. }) = (&before, &shards)
        else {
            panic!("20,000 entries in a list");
        };
        let copied = before.iter().zip(shards).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!((shards.len(), copied), (SHARDS, 1));
        let largest = shards.iter().map(|shard| shard.len()).max().unwrap();
        assert!(largest < 200, "{largest} of 20,000 entries in one shard of {SHARDS}");
    }
}
