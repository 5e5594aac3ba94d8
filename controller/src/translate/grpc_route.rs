//! GRPCRoutes: rules of HTTPRoutes whose matches are gRPC's.
//!
//! A call of gRPC is a POST to `/service/method` (gRPC over HTTP/2, "Requests"). The proxy speaks HTTP/2 to the backends of
//! these routes, whatever their `appProtocol` says.

use super::http_route::translate_rules;
use super::lookup::Lookup;
use super::matches::text;
use super::route::Translated;
use crate::api::GrpcRoute;
use crate::api::grpc_route::{HeaderMatch, HeaderMatchType, Match, MethodMatch, MethodMatchType, Rule};
use crate::api::http_route;
use headgate_proxy::model::{
    Match as ModelMatch, ObjectName, PathMatch, RouteKind, Text, ThinVec, ValueMatch,
};
use headgate_proxy::router::check_regex;
use std::collections::HashSet;

/// Translates one route.
pub(super) fn translate(lookup: &mut Lookup<'_>, name: &ObjectName, route: &GrpcRoute) -> Translated {
    let rules = route.spec.rules.as_deref().unwrap_or_default();
    let rules = rules.iter().map(|rule| match as_http(rule) {
        Ok(same) => (same, matches(rule.matches.as_deref())),
        Err(why) => (http_route::Rule::default(), Err(why)),
    });
    translate_rules(lookup, name, route, RouteKind::Grpc, rules)
}

/// Everything but the matches: of the same form, with fewer fields.
fn as_http(rule: &Rule) -> Result<http_route::Rule, String> {
    let rule = Rule { matches: None, ..rule.clone() };
    serde_json::to_value(rule).and_then(serde_json::from_value).map_err(|error| error.to_string())
}

/// A rule's matches; none means every call. The error names the field, relative to the rule.
fn matches(from: Option<&[Match]>) -> Result<ThinVec<ModelMatch>, String> {
    let everything = [Match::default()];
    let matches = from.filter(|matches| !matches.is_empty()).unwrap_or(&everything);
    matches
        .iter()
        .enumerate()
        .map(|(n, from)| one(from).map_err(|why| format!("matches[{n}].{why}")))
        .collect()
}

fn one(from: &Match) -> Result<ModelMatch, String> {
    Ok(ModelMatch {
        path: from.method.as_ref().map_or(Ok(PathMatch::Prefix("/".into())), path)?,
        method: None,
        headers: headers(from.headers.as_deref().unwrap_or_default())?,
        query: ThinVec::new(),
    })
}

fn path(from: &MethodMatch) -> Result<PathMatch, String> {
    let (service, method) = (from.service.as_deref(), from.method.as_deref());
    let at = |why: String| format!("method: {why}");
    Ok(match from.r#type.as_ref().unwrap_or(&MethodMatchType::Exact) {
        MethodMatchType::Exact => match (service, method) {
            (None, None) => return Err(at("service or method is missing; name at least one".to_owned())),
            (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}").into()),
            (Some(service), None) => PathMatch::Prefix(format!("/{service}").into()),
            (None, Some(method)) => PathMatch::Regex(format!("/[^/]+/{}", regex_of(method)).into()),
        },
        MethodMatchType::RegularExpression => {
            for part in [service, method].into_iter().flatten() {
                check_regex(part).map_err(at)?;
            }
            let part = |part: Option<&str>| part.map_or("[^/]+".to_owned(), |part| format!("(?:{part})"));
            let whole = format!("/{}/{}", part(service), part(method));
            check_regex(&whole).map_err(at)?;
            PathMatch::Regex(whole.into())
        }
    })
}

/// A name as a regular expression: of its bytes only `.` means something there (the CRD allows no others).
fn regex_of(name: &str) -> String {
    name.replace('.', r"\.")
}

fn headers(from: &[HeaderMatch]) -> Result<ThinVec<ValueMatch>, String> {
    let mut seen = HashSet::new();
    let mut matches = ThinVec::with_capacity(from.len());
    for (n, header) in from.iter().enumerate() {
        let name: Text = header.name.to_ascii_lowercase().into();
        // Of several entries for a name the first counts (API documentation of GRPCHeaderMatch).
        if !seen.insert(name.clone()) {
            continue;
        }
        let exact = matches!(header.r#type, None | Some(HeaderMatchType::Exact));
        let value = text(exact, &header.value).map_err(|why| format!("headers[{n}]: {why}"))?;
        matches.push(ValueMatch { name, value });
    }
    Ok(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(kind: Option<MethodMatchType>, service: Option<&str>, method: Option<&str>) -> MethodMatch {
        MethodMatch { method: method.map(Into::into), service: service.map(Into::into), r#type: kind }
    }

    #[test]
    fn services_and_methods_are_paths() {
        use MethodMatchType::{Exact, RegularExpression};
        for (from, to) in [
            (method(None, Some("pkg.Echo"), Some("Say")), PathMatch::Exact("/pkg.Echo/Say".into())),
            (method(Some(Exact), Some("pkg.Echo"), None), PathMatch::Prefix("/pkg.Echo".into())),
            (method(Some(Exact), None, Some("Say")), PathMatch::Regex("/[^/]+/Say".into())),
            (
                method(Some(RegularExpression), Some("pkg\\..*|other"), None),
                PathMatch::Regex("/(?:pkg\\..*|other)/[^/]+".into()),
            ),
            (
                method(Some(RegularExpression), None, Some("Say|Sing")),
                PathMatch::Regex("/[^/]+/(?:Say|Sing)".into()),
            ),
        ] {
            assert_eq!(path(&from), Ok(to));
        }
    }

    #[test]
    fn what_is_missing_or_malformed_is_told() {
        let error = path(&method(None, None, None)).unwrap_err();
        assert_eq!(error, "method: service or method is missing; name at least one");
        let broken = method(Some(MethodMatchType::RegularExpression), Some("("), None);
        assert!(path(&broken).unwrap_err().starts_with("method: "));
        let one = Match { method: Some(broken), headers: None };
        assert!(matches(Some(&[one])).unwrap_err().starts_with("matches[0].method: "));
    }

    #[test]
    fn no_match_is_every_call() {
        assert_eq!(matches(None).unwrap()[0].path, PathMatch::Prefix("/".into()));
    }
}
