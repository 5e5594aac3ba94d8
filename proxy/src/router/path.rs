//! The matches of one hostname, found by path: exact, then regular expressions, then prefixes from the longest.
//!
//! Exact paths and prefixes are looked up by hash, a prefix at each of the path's segment boundaries that some rule
//! uses; the matches that share a path are scanned in their order. The walk follows [`super::precedence`]: it only
//! skips what the comparator would have put behind.

use super::precedence::Rank;
use super::rule::Rule;
use super::shards::Shards;
use super::{Head, conditions::Conditions};
use crate::model::Text;
use regex::bytes::Regex;
use std::sync::Arc;

/// One compiled match of a rule.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) rank: Rank,
    pub(crate) path: PathTest,
    pub(crate) conditions: Conditions,
    pub(crate) rule: Arc<Rule>,
}

/// A compiled condition on the path.
#[derive(Debug)]
pub(crate) enum PathTest {
    Exact(Text),
    Regex(Box<Regex>),
    /// Without a final slash, except for `/` itself.
    Prefix(Text),
}

impl Candidate {
    /// How many bytes of the path its condition took: what a prefix rewrite replaces. The root prefix takes none, so
    /// that the rest always begins with a slash.
    pub(crate) fn prefix_len(&self, path: &str) -> usize {
        match &self.path {
            PathTest::Prefix(prefix) if **prefix == *"/" => 0,
            PathTest::Prefix(prefix) => prefix.len(),
            PathTest::Exact(_) | PathTest::Regex(_) => path.len(),
        }
    }
}

/// Candidates in the order of their rank. Nearly always one.
#[derive(Clone, Debug, Default)]
enum Candidates {
    #[default]
    None,
    One(Arc<Candidate>),
    Many(Arc<Vec<Arc<Candidate>>>),
}

impl Candidates {
    fn as_slice(&self) -> &[Arc<Candidate>] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn insert(&mut self, new: &Arc<Candidate>) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(new.clone()),
            Self::One(one) => {
                let mut both = vec![one, new.clone()];
                both.sort_by(|a, b| a.rank.cmp(&b.rank));
                Self::Many(Arc::new(both))
            }
            Self::Many(mut many) => {
                let position = many.partition_point(|other| other.rank < new.rank);
                Arc::make_mut(&mut many).insert(position, new.clone());
                Self::Many(many)
            }
        };
    }

    fn remove(&mut self, old: &Arc<Candidate>) {
        let left: Vec<_> = self.as_slice().iter().filter(|other| !Arc::ptr_eq(other, old)).cloned().collect();
        *self = match <[_; 1]>::try_from(left) {
            Ok([one]) => Self::One(one),
            Err(left) if left.is_empty() => Self::None,
            Err(left) => Self::Many(Arc::new(left)),
        };
    }

    fn find(&self, head: &Head<'_>) -> Option<&Arc<Candidate>> {
        self.as_slice().iter().find(|candidate| candidate.conditions.hold(head))
    }
}

/// The matches of one hostname. Cheap to copy and change a little.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathTable {
    exact: Shards<Candidates>,
    regex: Candidates,
    prefix: Shards<Candidates>,
    /// Bit n: some prefix may have n segments (the last bit: that many or more). Bits outlive the prefixes that set
    /// them, at the price of a look-up that finds nothing.
    depths: u64,
}

impl PathTable {
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefix.is_empty() && matches!(self.regex, Candidates::None)
    }

    pub(crate) fn insert(&mut self, new: &Arc<Candidate>) {
        match &new.path {
            PathTest::Exact(path) => self.exact.change(path, |list| list.insert(new), |_| true),
            PathTest::Regex(_) => self.regex.insert(new),
            PathTest::Prefix(prefix) => {
                self.depths |= depth_bit(segments(prefix));
                self.prefix.change(prefix, |list| list.insert(new), |_| true);
            }
        }
    }

    pub(crate) fn remove(&mut self, old: &Arc<Candidate>) {
        let keep = |list: &Candidates| !matches!(list, Candidates::None);
        match &old.path {
            PathTest::Exact(path) => self.exact.change(path, |list| list.remove(old), keep),
            PathTest::Regex(_) => self.regex.remove(old),
            PathTest::Prefix(prefix) => self.prefix.change(prefix, |list| list.remove(old), keep),
        }
        if self.prefix.is_empty() {
            self.depths = 0;
        }
    }

    /// The first candidate by rank of which everything holds.
    pub(crate) fn find(&self, head: &Head<'_>) -> Option<&Arc<Candidate>> {
        if let Some(found) = self.exact.get(head.path).and_then(|list| list.find(head)) {
            return Some(found);
        }
        let of_regex = self.regex.as_slice().iter().find(|candidate| {
            let matches = match &candidate.path {
                PathTest::Regex(regex) => regex.is_match(head.path.as_bytes()),
                PathTest::Exact(_) | PathTest::Prefix(_) => false,
            };
            matches && candidate.conditions.hold(head)
        });
        of_regex.or_else(|| self.find_prefix(head))
    }

    fn find_prefix(&self, head: &Head<'_>) -> Option<&Arc<Candidate>> {
        if self.depths > 1 {
            let mut prefix = head.path;
            let mut depth = segments_of_path(prefix);
            while !prefix.is_empty() {
                if self.depths & depth_bit(depth) != 0
                    && let Some(found) = self.prefix.get(prefix).and_then(|list| list.find(head))
                {
                    return Some(found);
                }
                prefix = &prefix[..prefix.rfind('/').unwrap_or(0)];
                depth = depth.saturating_sub(1);
            }
        }
        match self.depths & 1 {
            0 => None,
            _ => self.prefix.get("/").and_then(|list| list.find(head)),
        }
    }
}

fn segments_of_path(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}

/// Segments of a prefix as a rule has it: none for `/`.
fn segments(prefix: &str) -> usize {
    if prefix == "/" { 0 } else { segments_of_path(prefix) }
}

fn depth_bit(segments: usize) -> u64 {
    1 << segments.min(63)
}
