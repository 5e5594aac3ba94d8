//! A map by host pattern: the exact host, then wildcards from the longest to the shortest, then any.
//!
//! Serves both levels of look-up: listeners of a port, and routes of a listener by hostname as written. Hosts are in
//! lower case, without port and final dot (see [`crate::host`]).

use super::shards::Shards;
use crate::model::HostPattern;

/// A map from [`HostPattern`] to `V`, cheap to copy and change a little.
#[derive(Clone, Debug)]
pub(crate) struct HostMap<V> {
    exact: Shards<V>,
    /// By suffix with its dot: `.example.com`.
    suffix: Shards<V>,
    any: Option<V>,
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        Self { exact: Shards::default(), suffix: Shards::default(), any: None }
    }
}

impl<V: Clone + Default> HostMap<V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.suffix.is_empty() && self.any.is_none()
    }

    /// Asks each value whose pattern covers the host, the most specific first, until one answers.
    pub(crate) fn find<'a, R>(&'a self, host: &str, mut ask: impl FnMut(&'a V) -> Option<R>) -> Option<R> {
        if let Some(answer) = self.exact.get(host).and_then(&mut ask) {
            return Some(answer);
        }
        if !self.suffix.is_empty() {
            // A wildcard stands for at least one label: a dot at the very start doesn't count.
            for (dot, _) in host.match_indices('.').filter(|(dot, _)| *dot > 0) {
                if let Some(answer) = self.suffix.get(&host[dot..]).and_then(&mut ask) {
                    return Some(answer);
                }
            }
        }
        self.any.as_ref().and_then(ask)
    }

    /// Changes the value under a pattern, which is a new `V::default()` if there was none, and removes it if `keep`
    /// says no.
    pub(crate) fn change(
        &mut self,
        pattern: &HostPattern,
        edit: impl FnOnce(&mut V),
        keep: impl FnOnce(&V) -> bool,
    ) {
        match pattern {
            HostPattern::Exact(host) => self.exact.change(host, edit, keep),
            HostPattern::Suffix(suffix) => self.suffix.change(suffix, edit, keep),
            HostPattern::Any => {
                let mut value = self.any.take().unwrap_or_default();
                edit(&mut value);
                self.any = Some(value).filter(keep);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(patterns: &[&str]) -> HostMap<String> {
        let mut map = HostMap::default();
        for pattern in patterns {
            map.change(&HostPattern::parse(pattern), |value| *value = (*pattern).to_owned(), |_| true);
        }
        map
    }

    fn asked(map: &HostMap<String>, host: &str) -> Vec<String> {
        let mut asked = Vec::new();
        map.find(host, |value| {
            asked.push(value.clone());
            None::<()>
        });
        asked
    }

    #[test]
    fn from_the_most_specific_to_any() {
        let map = map(&["*", "*.com", "*.example.com", "a.example.com", "b.example.com", "*.org"]);
        assert_eq!(asked(&map, "a.example.com"), ["a.example.com", "*.example.com", "*.com", "*"]);
        assert_eq!(asked(&map, "x.y.example.com"), ["*.example.com", "*.com", "*"]);
        assert_eq!(asked(&map, "example.com"), ["*.com", "*"]);
        assert_eq!(asked(&map, "com"), ["*"]);
        assert_eq!(asked(&map, ""), ["*"]);
    }

    #[test]
    fn the_first_answer_ends_the_search() {
        let map = map(&["*", "*.com", "a.com"]);
        assert_eq!(map.find("a.com", |value| Some(value.clone())).unwrap(), "a.com");
        assert_eq!(map.find("b.com", |value| Some(value.clone())).unwrap(), "*.com");
    }

    #[test]
    fn removed_patterns_leave_nothing() {
        let mut map = map(&["*", "*.com", "a.com"]);
        for pattern in ["*", "*.com", "a.com"] {
            map.change(&HostPattern::parse(pattern), |_| {}, |_| false);
        }
        assert!(map.is_empty());
        assert!(asked(&map, "a.com").is_empty());
    }

    proptest! {
        #[test]
        fn covers_what_the_pattern_covers(
            patterns in prop::collection::vec("(\\*\\.)?([ab]\\.){0,3}[ab]|\\*", 0..6),
            host in "([ab]\\.){0,4}[ab]",
        ) {
            let texts: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let mut found = asked(&map(&texts), &host);
            let mut wanted: Vec<_> =
                patterns.iter().filter(|p| HostPattern::parse(p).matches(&host)).cloned().collect();
            found.sort();
            wanted.sort();
            wanted.dedup();
            prop_assert_eq!(found, wanted);
        }
    }
}
