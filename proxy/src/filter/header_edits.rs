//! `RequestHeaderModifier` and `ResponseHeaderModifier`: set, then add, then remove.
//!
//! Fields that frame a message or belong to one connection can't be edited, nor can Host, which is a rewrite's to
//! change: a message must go out as what it is.

use crate::model::{HeaderEdits, Text};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that nobody but the proxy writes.
const RESERVED: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Compiled edits.
#[derive(Debug)]
pub(super) struct Edits {
    set: Box<[(HeaderName, HeaderValue)]>,
    add: Box<[(HeaderName, HeaderValue)]>,
    remove: Box<[HeaderName]>,
}

impl Edits {
    pub(super) fn compile(from: &HeaderEdits) -> Result<Self, String> {
        let pairs = |list: &[(Text, Text)]| {
            list.iter().map(|(name, value)| pair(name, value)).collect::<Result<_, _>>()
        };
        Ok(Self {
            set: pairs(&from.set)?,
            add: pairs(&from.add)?,
            remove: from.remove.iter().map(|name| field_name(name)).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

fn pair(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = HeaderValue::from_str(value)
        .map_err(|_| format!("header {name:?}: the value must be one line of visible characters"))?;
    Ok((field_name(name)?, parsed))
}

pub(crate) fn field_name(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("{name:?} isn't the name of a header"))?;
    match parsed.as_str() {
        "host" => Err("header \"host\" can't be edited here: use a URLRewrite filter's hostname".to_owned()),
        reserved if RESERVED.contains(&reserved) => {
            Err(format!("header {reserved:?} can't be edited: the proxy writes it for each connection"))
        }
        _ => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(from: &HeaderEdits, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Edits::compile(from).unwrap().apply(&mut headers);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        left.sort();
        left
    }

    #[test]
    fn set_replaces_every_field_of_the_name() {
        let from = HeaderEdits { set: vec![("X-A".into(), "new".into())], ..HeaderEdits::default() };
        assert_eq!(apply(&from, &[("x-a", "1"), ("x-a", "2"), ("x-b", "3")]), ["x-a=new", "x-b=3"]);
        assert_eq!(apply(&from, &[]), ["x-a=new"]);
    }

    #[test]
    fn add_keeps_what_is_there() {
        let from = HeaderEdits { add: vec![("x-a".into(), "new".into())], ..HeaderEdits::default() };
        assert_eq!(apply(&from, &[("x-a", "1")]), ["x-a=1", "x-a=new"]);
    }

    #[test]
    fn remove_comes_last() {
        let pair = |value: &str| vec![("x-a".into(), value.into())];
        let from = HeaderEdits { set: pair("1"), add: pair("2"), remove: vec!["x-a".into()] };
        assert!(apply(&from, &[("x-a", "0")]).is_empty());
    }

    #[test]
    fn reserved_fields_say_why() {
        for name in RESERVED {
            let error = field_name(name).unwrap_err();
            assert!(error.contains(name) && error.contains("can't be edited"), "{error}");
        }
    }
}
