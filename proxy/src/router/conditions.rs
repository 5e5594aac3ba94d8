//! What must hold beside host and path: method, header fields, query parameters.
//!
//! Compiled from [`crate::model::Match`]; regular expressions match whole values. The query is parsed only when a
//! condition asks for it.

use super::{Head, compile_regex};
use crate::model::{Match, StringMatch, ValueMatch};
use http::{HeaderName, Method};
use regex::bytes::Regex;
use std::borrow::Cow;

/// Conditions that must all hold: most matches have none.
#[derive(Debug)]
pub(crate) struct Conditions(Option<Box<All>>);

#[derive(Debug, Default)]
struct All {
    method: Option<Method>,
    headers: Box<[(HeaderName, ValueTest)]>,
    query: Box<[(Box<str>, ValueTest)]>,
}

#[derive(Debug)]
enum ValueTest {
    Exact(Box<str>),
    Regex(Box<Regex>),
}

impl ValueTest {
    fn compile(from: &StringMatch) -> Result<Self, String> {
        Ok(match from {
            StringMatch::Exact(text) => Self::Exact((&**text).into()),
            StringMatch::Regex(pattern) => Self::Regex(Box::new(compile_regex(pattern)?)),
        })
    }

    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl Conditions {
    /// Compiles all conditions of a match but its path. The error says which can't be.
    pub(crate) fn compile(from: &Match) -> Result<Self, String> {
        let method = from.method.as_ref().map(|method| Method::from_bytes(method.as_bytes()));
        let header = |condition: &ValueMatch| {
            let name = HeaderName::from_bytes(condition.name.as_bytes())
                .map_err(|error| format!("header {:?}: {error}", condition.name))?;
            Ok((name, ValueTest::compile(&condition.value)?))
        };
        let parameter =
            |condition: &ValueMatch| Ok(((&*condition.name).into(), ValueTest::compile(&condition.value)?));
        Ok(Self::of(All {
            method: method.transpose().map_err(|error| format!("method: {error}"))?,
            headers: from.headers.iter().map(header).collect::<Result<_, String>>()?,
            query: from.query.iter().map(parameter).collect::<Result<_, String>>()?,
        }))
    }

    /// Conditions on the method alone: what is left of a match that can't be compiled.
    pub(crate) fn of_method(from: &Match) -> Self {
        let method = from.method.as_ref().and_then(|method| Method::from_bytes(method.as_bytes()).ok());
        Self::of(All { method, ..All::default() })
    }

    fn of(all: All) -> Self {
        let none = all.method.is_none() && all.headers.is_empty() && all.query.is_empty();
        Self((!none).then(|| Box::new(all)))
    }

    /// Whether all hold for a request.
    pub(crate) fn hold(&self, head: &Head<'_>) -> bool {
        match &self.0 {
            None => is_any_method(head.method),
            Some(all) => all.hold(head),
        }
    }
}

/// Whether a match that names no method takes it. TRACE shows the fields that we add: only a rule that names it may have it.
fn is_any_method(method: &Method) -> bool {
    *method != Method::TRACE
}

impl All {
    fn hold(&self, head: &Head<'_>) -> bool {
        self.method.as_ref().map_or_else(|| is_any_method(head.method), |method| method == head.method)
            && self.headers.iter().all(|(name, test)| header_holds(head, name, test))
            && (self.query.is_empty() || self.query_holds(head.query.unwrap_or_default()))
    }

    fn query_holds(&self, query: &str) -> bool {
        self.query.iter().all(|(name, test)| {
            let mut parameters = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let first = parameters.find(|(other, _)| *decode(other) == *name.as_bytes());
            first.is_some_and(|(_, value)| test.holds(&decode(value)))
        })
    }
}

/// Several fields of one name count as one, joined by commas (RFC 9110 §5.3).
fn header_holds(head: &Head<'_>, name: &HeaderName, test: &ValueTest) -> bool {
    let headers = head.headers;
    if let Some(value) = head.ours.and_then(|ours| ours.get(name, headers)) {
        return test.holds(value.as_bytes());
    }
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return false };
    let Some(second) = values.next() else { return test.holds(first.as_bytes()) };
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    test.holds(&joined)
}

/// Decodes a name or value of a query as forms write it: `+` is a space, `%XX` a byte, and a `%` that isn't followed by
/// two digits stays (URL Standard, `application/x-www-form-urlencoded`).
fn decode(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, crate::path::escaped(tail)) {
            (b'+', _) => decoded.push(b' '),
            (b'%', Some(value)) => {
                decoded.push(value);
                rest = &tail[2..];
            }
            _ => decoded.push(*byte),
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PathMatch;
    use http::{HeaderMap, HeaderValue};

    fn value(name: &str, value: StringMatch) -> ValueMatch {
        ValueMatch { name: name.into(), value }
    }

    fn exact(name: &str, text: &str) -> ValueMatch {
        value(name, StringMatch::Exact(text.into()))
    }

    fn regex(name: &str, pattern: &str) -> ValueMatch {
        value(name, StringMatch::Regex(pattern.into()))
    }

    fn conditions(method: Option<&str>, headers: Vec<ValueMatch>, query: Vec<ValueMatch>) -> Conditions {
        let method = method.map(Into::into);
        let (path, headers, query) = (PathMatch::Prefix("/".into()), headers.into(), query.into());
        Conditions::compile(&Match { path, method, headers, query }).unwrap()
    }

    fn hold(
        conditions: &Conditions,
        method: &str,
        headers: &[(&'static str, &str)],
        query: Option<&str>,
    ) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        conditions.hold(&Head {
            host: "",
            sni: None,
            method: &method,
            path: "/",
            query,
            headers: &map,
            ours: None,
        })
    }

    #[test]
    fn methods_are_case_sensitive() {
        let post = conditions(Some("POST"), vec![], vec![]);
        assert!(hold(&post, "POST", &[], None));
        assert!(!hold(&post, "post", &[], None));
        assert!(!hold(&post, "GET", &[], None));
    }

    #[test]
    fn trace_needs_a_rule_that_names_it() {
        assert!(!hold(&conditions(None, vec![], vec![]), "TRACE", &[], None));
        assert!(hold(&conditions(Some("TRACE"), vec![], vec![]), "TRACE", &[], None));
    }

    #[test]
    fn every_header_condition_must_hold() {
        let both = conditions(None, vec![exact("version", "two"), regex("color", "blue|green")], vec![]);
        assert!(hold(&both, "GET", &[("version", "two"), ("color", "green")], None));
        assert!(!hold(&both, "GET", &[("version", "two")], None));
        assert!(!hold(&both, "GET", &[("version", "two"), ("color", "greenish")], None));
        assert!(!hold(&both, "GET", &[("version", "Two"), ("color", "green")], None));
    }

    #[test]
    fn repeated_headers_count_as_one_joined_by_commas() {
        let list = conditions(None, vec![exact("x-list", "a,b")], vec![]);
        assert!(hold(&list, "GET", &[("x-list", "a"), ("x-list", "b")], None));
        assert!(!hold(&list, "GET", &[("x-list", "b"), ("x-list", "a")], None));
        assert!(!hold(
            &conditions(None, vec![exact("x-list", "a")], vec![]),
            "GET",
            &[("x-list", "a"), ("x-list", "b")],
            None
        ));
    }

    #[test]
    fn the_first_query_parameter_of_a_name_counts() {
        let animal = conditions(None, vec![], vec![exact("animal", "whale")]);
        assert!(hold(&animal, "GET", &[], Some("animal=whale&animal=dolphin")));
        assert!(!hold(&animal, "GET", &[], Some("animal=dolphin&animal=whale")));
        assert!(!hold(&animal, "GET", &[], Some("Animal=whale")));
        assert!(!hold(&animal, "GET", &[], None));
        assert!(hold(&conditions(None, vec![], vec![exact("flag", "")]), "GET", &[], Some("a=b&flag")));
    }

    #[test]
    fn query_parameters_are_compared_decoded() {
        let name = conditions(None, vec![], vec![exact("q", "a b&c%")]);
        assert!(hold(&name, "GET", &[], Some("q=a+b%26c%")));
        assert!(hold(&name, "GET", &[], Some("%71=a%20b%26c%25")));
        let bytes = conditions(None, vec![], vec![regex("q", "(?-u:.)*")]);
        assert!(hold(&bytes, "GET", &[], Some("q=%FF%FE")));
    }

    #[test]
    fn what_cannot_be_compiled_says_so() {
        for (headers, query) in [
            (vec![regex("a", "(")], vec![]),
            (vec![exact("a b", "x")], vec![]),
            (vec![], vec![regex("a", "[")]),
        ] {
            let path = PathMatch::Prefix("/".into());
            let (headers, query) = (headers.into(), query.into());
            assert!(Conditions::compile(&Match { path, method: None, headers, query }).is_err());
        }
    }
}
