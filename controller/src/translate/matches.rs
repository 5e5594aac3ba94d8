//! Matches of an HTTPRoute's rule, checked so that the proxy can compile what it gets.

use crate::api::http_route::{
    HeaderMatch, HeaderMatchType, Match, Method, PathMatch as ApiPathMatch, PathMatchType, QueryMatch,
    QueryMatchType,
};
use headgate_proxy::model::{Match as ModelMatch, PathMatch, StringMatch, Text, ThinVec, ValueMatch};
use headgate_proxy::path::normalise;
use headgate_proxy::router::check_regex;
use std::collections::HashSet;

/// Translates a rule's matches; none means every request. The error names the field, relative to the rule.
pub(super) fn translate(matches: Option<&[Match]>) -> Result<ThinVec<ModelMatch>, String> {
    let everything = [Match::default()];
    let matches = matches.filter(|matches| !matches.is_empty()).unwrap_or(&everything);
    let mut all = ThinVec::with_capacity(matches.len());
    for (n, from) in matches.iter().enumerate() {
        all.push(one(from).map_err(|why| format!("matches[{n}].{why}"))?);
    }
    Ok(all)
}

fn one(from: &Match) -> Result<ModelMatch, String> {
    Ok(ModelMatch {
        path: path(from.path.as_ref()).map_err(|why| format!("path: {why}"))?,
        method: from.method.as_ref().map(method),
        headers: headers(from.headers.as_deref().unwrap_or_default())?,
        query: query(from.query_params.as_deref().unwrap_or_default())?,
    })
}

fn path(from: Option<&ApiPathMatch>) -> Result<PathMatch, String> {
    let Some(from) = from else { return Ok(PathMatch::Prefix("/".into())) };
    let value = from.value.as_deref().unwrap_or("/");
    let normal = || {
        normalise(value)
            .map_err(|_| format!("{value:?} is not a path; it must begin with / and be percent-encoded"))
    };
    Ok(match from.r#type.as_ref().unwrap_or(&PathMatchType::PathPrefix) {
        PathMatchType::Exact => PathMatch::Exact(normal()?.into()),
        PathMatchType::PathPrefix => {
            let path = normal()?;
            let trimmed = path.trim_end_matches('/');
            PathMatch::Prefix(if trimmed.is_empty() { "/" } else { trimmed }.into())
        }
        PathMatchType::RegularExpression => {
            check_regex(value)?;
            PathMatch::Regex(value.into())
        }
    })
}

fn method(from: &Method) -> Text {
    match from {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
    }
    .into()
}

fn headers(from: &[HeaderMatch]) -> Result<ThinVec<ValueMatch>, String> {
    let mut seen = HashSet::new();
    let mut matches = ThinVec::with_capacity(from.len());
    for (n, header) in from.iter().enumerate() {
        let name: Text = header.name.to_ascii_lowercase().into();
        // Of several entries for a name the first counts (API documentation of HTTPHeaderMatch).
        if !seen.insert(name.clone()) {
            continue;
        }
        let exact = matches!(header.r#type, None | Some(HeaderMatchType::Exact));
        let value = text(exact, &header.value).map_err(|why| format!("headers[{n}]: {why}"))?;
        matches.push(ValueMatch { name, value });
    }
    Ok(matches)
}

fn query(from: &[QueryMatch]) -> Result<ThinVec<ValueMatch>, String> {
    let mut seen = HashSet::new();
    let mut matches = ThinVec::with_capacity(from.len());
    for (n, parameter) in from.iter().enumerate() {
        if !seen.insert(&parameter.name) {
            continue;
        }
        let exact = matches!(parameter.r#type, None | Some(QueryMatchType::Exact));
        let value = text(exact, &parameter.value).map_err(|why| format!("queryParams[{n}]: {why}"))?;
        matches.push(ValueMatch { name: parameter.name.as_str().into(), value });
    }
    Ok(matches)
}

/// A condition on a value.
pub(super) fn text(exact: bool, value: &str) -> Result<StringMatch, String> {
    if exact {
        return Ok(StringMatch::Exact(value.into()));
    }
    check_regex(value)?;
    Ok(StringMatch::Regex(value.into()))
}
