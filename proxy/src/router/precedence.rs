//! Who wins between two matches: the only place that orders.
//!
//! Gateway API, `HTTPRouteRule.matches`: exact path, longest prefix, method, most headers, most query parameters; then
//! the oldest route, the first by `namespace/name`, the first rule of the route. Regular expressions rank between
//! exact paths and prefixes, longer patterns first: the specification leaves that to us. Hosts come before all of
//! this and are not compared here: a table has the matches of one hostname.

use crate::model::{Match, ObjectName, PathMatch, RouteId};
use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

/// The place of one match of one rule among all others. The smaller wins; no two matches have the same.
#[derive(Clone, Debug)]
pub(crate) struct Rank {
    path: PathRank,
    methods: Reverse<u16>,
    headers: Reverse<u16>,
    query: Reverse<u16>,
    route: Arc<Seniority>,
    rule: u32,
    alternative: u32,
}

/// How much a path condition says: exact before regular expression before prefix, then the longer before the shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Exact,
    Regex(Reverse<u32>),
    Prefix(Reverse<u32>),
}

/// What decides between equal matches of two routes. One per route, shared by its matches.
#[derive(Debug)]
pub(crate) struct Seniority {
    created: i64,
    id: RouteId,
}

impl Seniority {
    pub(crate) fn new(created: i64, id: &RouteId) -> Self {
        Self { created, id: id.clone() }
    }
}

impl Ord for Seniority {
    fn cmp(&self, other: &Self) -> Ordering {
        self.created
            .cmp(&other.created)
            .then_with(|| alphabetical(&self.id.name, &other.id.name))
            .then_with(|| self.id.kind.cmp(&other.id.kind))
    }
}

impl PartialOrd for Seniority {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Seniority {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Seniority {}

impl Rank {
    /// The rank of a rule's match. `rule` and `alternative` are positions, of the rule and of the match in it.
    pub(crate) fn new(from: &Match, route: Arc<Seniority>, rule: u32, alternative: u32) -> Self {
        // A rule that is beyond these is the API server's to refuse.
        let length = |text: &str| Reverse(u32::try_from(text.len()).unwrap_or(u32::MAX));
        let count = |number: usize| Reverse(u16::try_from(number).unwrap_or(u16::MAX));
        let path = match &from.path {
            PathMatch::Exact(_) => PathRank::Exact,
            PathMatch::Regex(pattern) => PathRank::Regex(length(pattern)),
            PathMatch::Prefix(prefix) => PathRank::Prefix(length(prefix)),
        };
        Self {
            path,
            methods: count(from.method.iter().len()),
            headers: count(from.headers.len()),
            query: count(from.query.len()),
            route,
            rule,
            alternative,
        }
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let conditions = |rank: &Self| (rank.path, rank.methods, rank.headers, rank.query);
        let position = |rank: &Self| (rank.rule, rank.alternative);
        conditions(self)
            .cmp(&conditions(other))
            .then_with(|| self.route.cmp(&other.route))
            .then_with(|| position(self).cmp(&position(other)))
    }
}

/// The order of `namespace/name` as one text, which isn't that of the pair: `a-b/x` comes before `a/x`.
fn alphabetical(a: &ObjectName, b: &ObjectName) -> Ordering {
    fn text(name: &ObjectName) -> impl Iterator<Item = u8> {
        name.namespace.bytes().chain([b'/']).chain(name.name.bytes())
    }
    text(a).cmp(text(b))
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Rank {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RouteKind, StringMatch, ValueMatch};

    struct Sample {
        path: PathMatch,
        method: bool,
        headers: usize,
        query: usize,
        created: i64,
        name: (&'static str, &'static str),
        position: (u32, u32),
    }

    fn sample() -> Sample {
        let path = PathMatch::Prefix("/a".into());
        Sample { path, method: false, headers: 0, query: 0, created: 5, name: ("n", "r"), position: (3, 3) }
    }

    fn rank(sample: Sample) -> Rank {
        let value = |_| ValueMatch { name: "x".into(), value: StringMatch::Exact("y".into()) };
        let from = Match {
            path: sample.path,
            method: sample.method.then(|| "GET".into()),
            headers: (0..sample.headers).map(value).collect(),
            query: (0..sample.query).map(value).collect(),
        };
        let name = ObjectName::new(sample.name.0, sample.name.1);
        let id = RouteId { kind: RouteKind::Http, name };
        Rank::new(
            &from,
            Arc::new(Seniority { created: sample.created, id }),
            sample.position.0,
            sample.position.1,
        )
    }

    /// Each step down the list outweighs everything after it.
    #[test]
    fn the_specification_in_order() {
        let weakest = || Sample { created: 9, name: ("z", "z"), position: (9, 9), ..sample() };
        let strong = |path| Sample { path, method: true, headers: 9, query: 9, ..sample() };
        let ladder = [
            Sample { path: PathMatch::Exact("/".into()), ..weakest() },
            Sample { path: PathMatch::Regex("/a/long/pattern".into()), ..weakest() },
            strong(PathMatch::Regex("/a".into())),
            Sample { path: PathMatch::Prefix("/a/b".into()), ..weakest() },
            Sample { method: true, ..weakest() },
            Sample { headers: 2, ..weakest() },
            Sample { headers: 1, query: 9, ..weakest() },
            Sample { query: 2, ..weakest() },
            Sample { query: 1, created: 1, ..weakest() },
            Sample { created: 1, ..weakest() },
            Sample { created: 2, name: ("a", "a"), position: (9, 9), ..sample() },
            Sample { created: 2, name: ("a", "b"), position: (0, 1), ..sample() },
            Sample { created: 2, name: ("a", "b"), position: (1, 0), ..sample() },
            Sample { created: 2, name: ("b", "a"), position: (0, 0), ..sample() },
            Sample { path: PathMatch::Prefix("/".into()), method: true, ..sample() },
        ]
        .map(rank);
        for (index, pair) in ladder.windows(2).enumerate() {
            assert!(pair[0] < pair[1], "step {index}: {:?} before {:?}", pair[0], pair[1]);
        }
    }

    #[test]
    fn names_compare_as_joined_text() {
        let of = |namespace, name| rank(Sample { name: (namespace, name), ..sample() });
        assert!(of("a-b", "x") < of("a", "x"));
        assert!(of("a", "x") < of("a", "x-y"));
        assert!(of("a", "x") == of("a", "x"));
    }
}
