//! A sorted map of shared parts: copies share what is the same, and comparing two skips what they share.
//!
//! What makes an edit cost what it touches, from translation to the compiled tables: a model is a value that can be kept,
//! compared and printed, and yet 20,000 routes aren't copied or looked at because one is different. Entries lie in
//! chunks of bounded size behind `Arc`s; a change copies one chunk, and the list of chunks. Must not know what it holds.

use std::cmp::Ordering;
use std::fmt;
use std::iter::{FlatMap, Map};
use std::ops::Index;
use std::slice;
use std::sync::Arc;

/// Entries of a chunk, at most. An edit copies one chunk and a pointer to each, which is least near the square root of the
/// entries that a big cluster has.
const MOST: usize = 64;
/// Entries up to which a chunk is put together with a neighbour, where that has room.
const FEW: usize = 16;

type Entry<K, V> = (K, Arc<V>);
type Chunk<K, V> = Vec<Entry<K, V>>;

/// A map from keys to shared values, sorted by key.
pub struct Sorted<K, V> {
    /// In order, none empty.
    chunks: Vec<Arc<Chunk<K, V>>>,
    len: usize,
}

/// Entries in order. See [`Sorted::iter`].
pub type Iter<'a, K, V> = FlatMap<
    slice::Iter<'a, Arc<Chunk<K, V>>>,
    Map<slice::Iter<'a, Entry<K, V>>, Borrow<'a, K, V>>,
    fn(&'a Arc<Chunk<K, V>>) -> Map<slice::Iter<'a, Entry<K, V>>, Borrow<'a, K, V>>,
>;
type Borrow<'a, K, V> = fn(&'a Entry<K, V>) -> (&'a K, &'a Arc<V>);

fn borrow<K, V>(entry: &Entry<K, V>) -> (&K, &Arc<V>) {
    (&entry.0, &entry.1)
}

fn entries<K, V>(chunk: &Arc<Chunk<K, V>>) -> Map<slice::Iter<'_, Entry<K, V>>, Borrow<'_, K, V>> {
    chunk.iter().map(borrow as Borrow<'_, K, V>)
}

impl<K, V> Sorted<K, V> {
    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.chunks.iter().flat_map(entries)
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.iter().map(|(_, value)| value)
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<K: Ord, V> Sorted<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&Arc<V>> {
        let chunk = self.chunks.get(self.chunk_of(key)?)?;
        let at = chunk.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        Some(&chunk.get(at)?.1)
    }

    /// Whether there is a value of a key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The position of the chunk that has a key, or would; none where there are no chunks.
    fn chunk_of(&self, key: &K) -> Option<usize> {
        let after = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(first, _)| first <= key));
        (!self.chunks.is_empty()).then(|| after.saturating_sub(1))
    }
}

impl<K: Ord + Clone, V> Sorted<K, V> {
    /// Puts a value in; returns the one before.
    pub fn insert(&mut self, key: K, value: Arc<V>) -> Option<Arc<V>> {
        let Some(index) = self.chunk_of(&key) else {
            self.chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let chunk = Arc::make_mut(&mut self.chunks[index]);
        match chunk.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => Some(std::mem::replace(&mut chunk[at].1, value)),
            Err(at) => {
                self.len += 1;
                if chunk.len() < MOST {
                    chunk.insert(at, (key, value));
                    return None;
                }
                // Keys that come in order fill chunks: only the last is left half empty.
                let half = if at == MOST { MOST } else { MOST / 2 };
                let mut rest = chunk.split_off(half);
                match at.checked_sub(half) {
                    Some(at) => rest.insert(at, (key, value)),
                    None => chunk.insert(at, (key, value)),
                }
                self.chunks.insert(index + 1, Arc::new(rest));
                None
            }
        }
    }

    /// Puts a value in where there is none; the one that is there then.
    pub fn or_insert_with(&mut self, key: &K, value: impl FnOnce() -> Arc<V>) -> &Arc<V> {
        if !self.contains_key(key) {
            self.insert(key.clone(), value());
        }
        &self[key]
    }

    /// Takes out what isn't to stay.
    pub fn retain(&mut self, stays: impl Fn(&Arc<V>) -> bool) {
        if self.values().all(&stays) {
            return;
        }
        let all = std::mem::take(self);
        for (key, value) in all.chunks.into_iter().flat_map(Arc::unwrap_or_clone) {
            if stays(&value) {
                self.insert(key, value);
            }
        }
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        let index = self.chunk_of(key)?;
        let at = self.chunks[index].binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        let chunk = Arc::make_mut(&mut self.chunks[index]);
        let (_, value) = chunk.remove(at);
        self.len -= 1;
        if chunk.len() <= FEW {
            self.join(index);
        }
        Some(value)
    }

    /// The value of a key, to be replaced.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut Arc<V>> {
        let index = self.chunk_of(key)?;
        let at = self.chunks[index].binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        Some(&mut Arc::make_mut(&mut self.chunks[index])[at].1)
    }

    /// All values, to be replaced.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Arc<V>> {
        self.chunks.iter_mut().flat_map(|chunk| Arc::make_mut(chunk).iter_mut().map(|(_, value)| value))
    }

    /// Puts a chunk together with a neighbour, if both fit into one.
    fn join(&mut self, index: usize) {
        if self.chunks[index].is_empty() {
            self.chunks.remove(index);
            return;
        }
        let len = |index: usize| self.chunks.get(index).map_or(MOST, |chunk| chunk.len());
        let left = [index.wrapping_sub(1), index].into_iter();
        let Some(left) =
            left.into_iter().find(|&left| len(left).saturating_add(len(left.wrapping_add(1))) <= MOST)
        else {
            return;
        };
        let right = self.chunks.remove(left + 1);
        Arc::make_mut(&mut self.chunks[left]).extend(Arc::unwrap_or_clone(right));
    }
}

impl<K: Ord, V: PartialEq> Sorted<K, V> {
    /// The keys under which `new` differs, in order, with the values here and there. Costs what isn't shared.
    pub fn changes<'a>(
        &'a self,
        new: &'a Self,
    ) -> impl Iterator<Item = (&'a K, Option<&'a Arc<V>>, Option<&'a Arc<V>>)> {
        let (mut old, mut new) = (Cursor::at_start(self), Cursor::at_start(new));
        std::iter::from_fn(move || {
            loop {
                if let (Some(a), Some(b)) = (old.whole_chunk(), new.whole_chunk())
                    && Arc::ptr_eq(a, b)
                {
                    old.skip_chunk();
                    new.skip_chunk();
                    continue;
                }
                let order = match (old.peek(), new.peek()) {
                    (None, None) => return None,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some((before, _)), Some((after, _))) => before.cmp(after),
                };
                let before = if order.is_le() { old.next() } else { None };
                let after = if order.is_ge() { new.next() } else { None };
                match (before, after) {
                    (Some((_, a)), Some((_, b))) if Arc::ptr_eq(a, b) || a == b => {}
                    (before, after) => {
                        let (key, _) = before.or(after)?;
                        return Some((key, before.map(|(_, value)| value), after.map(|(_, value)| value)));
                    }
                }
            }
        })
    }
}

/// A place between entries.
struct Cursor<'a, K, V> {
    chunks: &'a [Arc<Chunk<K, V>>],
    /// Within the first chunk.
    at: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn at_start(map: &'a Sorted<K, V>) -> Self {
        Self { chunks: &map.chunks, at: 0 }
    }

    /// The next chunk, if nothing of it was passed yet.
    fn whole_chunk(&self) -> Option<&'a Arc<Chunk<K, V>>> {
        self.chunks.first().filter(|_| self.at == 0)
    }

    fn skip_chunk(&mut self) {
        self.chunks = self.chunks.get(1..).unwrap_or_default();
        self.at = 0;
    }

    fn peek(&self) -> Option<&'a Entry<K, V>> {
        self.chunks.first()?.get(self.at)
    }

    fn next(&mut self) -> Option<&'a Entry<K, V>> {
        let entry = self.peek()?;
        self.at += 1;
        if self.chunks.first().is_some_and(|chunk| chunk.len() == self.at) {
            self.skip_chunk();
        }
        Some(entry)
    }
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<K, V> Clone for Sorted<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Sorted<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Sorted<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.changes(other).next().is_none()
    }
}

impl<'a, K, V> IntoIterator for &'a Sorted<K, V> {
    type Item = (&'a K, &'a Arc<V>);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Ord + Clone, V> Extend<(K, Arc<V>)> for Sorted<K, V> {
    fn extend<T: IntoIterator<Item = (K, Arc<V>)>>(&mut self, entries: T) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord + Clone, V> FromIterator<(K, Arc<V>)> for Sorted<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, Arc<V>)>>(entries: T) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

impl<K: Ord, V> Index<&K> for Sorted<K, V> {
    type Output = Arc<V>;

    fn index(&self, key: &K) -> &Arc<V> {
        self.get(key).expect("the key is in the map")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// 0 removes. Keys are few enough to hit again and many enough for a dozen chunks.
    fn edits() -> impl Strategy<Value = Vec<(u32, u32)>> {
        prop::collection::vec((0u32..400, 0u32..3), 0..900)
    }

    fn edit(map: &mut Sorted<u32, u32>, edits: &[(u32, u32)]) {
        for (key, value) in edits {
            if *value == 0 {
                map.remove(key);
            } else {
                map.insert(*key, Arc::new(*value));
            }
        }
    }

    fn plain(map: &Sorted<u32, u32>) -> BTreeMap<u32, u32> {
        map.iter().map(|(key, value)| (*key, **value)).collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(edits in edits()) {
            let (mut map, mut expected) = (Sorted::default(), BTreeMap::new());
            for (key, value) in edits {
                let before = if value == 0 { expected.remove(&key) } else { expected.insert(key, value) };
                let found = if value == 0 { map.remove(&key) } else { map.insert(key, Arc::new(value)) };
                prop_assert_eq!(found.as_deref(), before.as_ref());
                prop_assert_eq!((map.len(), map.get(&key).map(|value| **value)), (expected.len(), expected.get(&key).copied()));
            }
            prop_assert!(map.iter().map(|(key, value)| (*key, **value)).eq(expected.clone()));
            prop_assert!(map.chunks.iter().all(|chunk| (1..=MOST).contains(&chunk.len())));
            for value in map.values_mut() {
                *value = Arc::new(**value + 1);
            }
            prop_assert!(map.values().map(|value| **value - 1).eq(expected.values().copied()));
            map.retain(|value| **value > 2);
            expected.retain(|_, value| *value > 1);
            prop_assert!(map.iter().map(|(key, value)| (*key, **value - 1)).eq(expected));
        }

        #[test]
        fn changes_are_the_keys_that_differ(first in edits(), more in edits()) {
            let mut old = Sorted::default();
            edit(&mut old, &first);
            let (before, mut new) = (plain(&old), old.clone());
            edit(&mut new, &more);
            let after = plain(&new);
            prop_assert_eq!(plain(&old), before, "a copy's edits are its own");
            let found: Vec<u32> = old.changes(&new).map(|(key, before, after)| {
                assert_eq!((before, after), (old.get(key), new.get(key)));
                *key
            }).collect();
            let wanted: Vec<u32> = (0..400).filter(|key| old.get(key) != new.get(key)).collect();
            prop_assert_eq!((old == new, new == after.into_iter().map(|(key, value)| (key, Arc::new(value))).collect()), (wanted.is_empty(), true));
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn an_edit_copies_one_chunk_of_many() {
        let map: Sorted<u32, u32> = (0..20_000).map(|key| (key, Arc::new(key))).collect();
        assert_eq!(map.chunks.len(), 20_000_usize.div_ceil(MOST));
        let mut edited = map.clone();
        edited.insert(7_777, Arc::new(1));
        let copied = map.chunks.iter().zip(&edited.chunks).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(copied, 1);
        assert_eq!(map.changes(&edited).map(|(key, ..)| *key).collect::<Vec<_>>(), [7_777]);
    }
}
