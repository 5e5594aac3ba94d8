//! What a rule matches. Every condition of a [`Match`] must hold; a rule's matches are alternatives.

use super::Text;
use serde::Serialize;
use thin_vec::ThinVec;

/// One alternative of a rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Match {
    /// Path condition.
    pub path: PathMatch,
    /// Method, case-sensitive; absent matches all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Text>,
    /// Header conditions, names in lower case, each name once.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub headers: ThinVec<ValueMatch>,
    /// Query parameter conditions, names case-sensitive, each name once.
    #[serde(skip_serializing_if = "ThinVec::is_empty")]
    pub query: ThinVec<ValueMatch>,
}

/// A condition on the path, without query, in the normalised form of security.md §5.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum PathMatch {
    /// The whole path, case-sensitive.
    Exact(Text),
    /// Leading path elements, case-sensitive: `/a/b` matches `/a/b` and `/a/b/c`, not `/a/bc`. No final slash,
    /// except for `/` itself, which matches every path.
    Prefix(Text),
    /// A regular expression (the `regex` crate's syntax) that must match the whole path.
    Regex(Text),
}

/// A condition on a named value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueMatch {
    /// Name of the header or parameter.
    pub name: Text,
    /// What its value must be. Several header fields of one name count as one, joined by commas (RFC 9110 §5.3); of
    /// several query parameters the first counts.
    pub value: StringMatch,
}

/// A condition on a value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum StringMatch {
    /// Equal, case-sensitive.
    Exact(Text),
    /// A regular expression that must match the whole value.
    Regex(Text),
}
