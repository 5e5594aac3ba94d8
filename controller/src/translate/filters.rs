//! Filters of an HTTPRoute, on a rule or on one of its backends.
//!
//! A filter that isn't supported, or is incomplete, makes its rule answer 500: a request must never pass as if the filter
//! weren't there (API documentation of `HTTPRouteFilter`).

use crate::api::http_route::{
    BackendFilter, Cors as ApiCors, ExternalAuth, ExternalAuthProtocol, Filter as ApiFilter, FilterType,
    RedirectPathType, RedirectScheme, RequestHeaderModifier, RequestMirror, RequestRedirect,
    ResponseHeaderModifier, RewritePathType, UrlRewrite,
};
use crate::status::Reason;
use headgate_proxy::filter::{check, check_redirect};
use headgate_proxy::model::{
    self, AuthProtocol, BackendId, Cors, Filter, HeaderEdits, PathRewrite, Redirect, Rewrite, Scheme, Text,
};

/// `maxAge` of CORS, in seconds, where none is set (the CRD's default).
const DEFAULT_MAX_AGE: u32 = 5;

/// What a list of filters says.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// Steps on the way to a backend and back.
    pub(super) steps: Vec<Filter>,
    /// Answers instead of forwarding.
    pub(super) redirect: Option<Redirect>,
    /// Who gets copies, with the position of the filter.
    pub(super) mirrors: Vec<(usize, RequestMirror)>,
    /// Who is asked, with the position of the filter.
    pub(super) authorizer: Option<(usize, ExternalAuth)>,
}

/// Why filters can't be honoured: for the condition, with the field relative to the rule.
pub(super) type Refused = (Reason, String);

/// Translates a list. `prefixes_only`: whether all matches of the rule are path prefixes.
pub(super) fn translate(from: &[ApiFilter], prefixes_only: bool) -> Result<Filters, Refused> {
    let mut filters = Filters::default();
    for (n, filter) in from.iter().enumerate() {
        let unsupported = |why: String| (Reason::UnsupportedValue, format!("filters[{n}]: {why}"));
        match one(filter).map_err(unsupported)? {
            One::Step(step) => filters.steps.push(step),
            One::Redirect(redirect) => filters.redirect = Some(redirect),
            One::Mirror(mirror) => filters.mirrors.push((n, mirror)),
            One::Authorizer(authorizer) if filters.authorizer.is_none() => {
                filters.authorizer = Some((n, authorizer));
            }
            One::Authorizer(_) => {
                let why = format!("filters[{n}]: there is an ExternalAuth before it; keep one of them");
                return Err((Reason::IncompatibleFilters, why));
            }
        }
    }
    let rewrite = filters.steps.iter().find_map(|step| match step {
        Filter::Rewrite(rewrite) => Some(rewrite),
        Filter::RequestHeaders(_)
        | Filter::ResponseHeaders(_)
        | Filter::Cors(_)
        | Filter::Mirror(_)
        | Filter::ExternalAuth(_) => None,
    });
    let incompatible = |why: &str| (Reason::IncompatibleFilters, format!("filters: {why}"));
    if rewrite.is_some() && filters.redirect.is_some() {
        return Err(incompatible("URLRewrite and RequestRedirect can't be used together: remove one"));
    }
    let path = filters.redirect.as_ref().map_or(rewrite.and_then(|r| r.path.as_ref()), |r| r.path.as_ref());
    if matches!(path, Some(PathRewrite::Prefix(_))) && !prefixes_only {
        return Err(incompatible(
            "ReplacePrefixMatch needs all matches of the rule to be of type PathPrefix",
        ));
    }
    Ok(filters)
}

/// Filters of a backend: of the same form as a rule's.
pub(super) fn of_backend(from: &[BackendFilter]) -> Result<Vec<ApiFilter>, Refused> {
    let same = from.iter().map(|filter| serde_json::to_value(filter).and_then(serde_json::from_value));
    same.collect::<Result<_, _>>().map_err(|error| (Reason::UnsupportedValue, format!("filters: {error}")))
}

enum One {
    Step(Filter),
    Redirect(Redirect),
    Mirror(RequestMirror),
    Authorizer(ExternalAuth),
}

fn one(from: &ApiFilter) -> Result<One, String> {
    let step = match from.r#type {
        FilterType::RequestHeaderModifier => Filter::RequestHeaders(request_edits(part(
            from.request_header_modifier.as_ref(),
            "requestHeaderModifier",
        )?)),
        FilterType::ResponseHeaderModifier => Filter::ResponseHeaders(response_edits(part(
            from.response_header_modifier.as_ref(),
            "responseHeaderModifier",
        )?)),
        FilterType::UrlRewrite => Filter::Rewrite(rewrite(part(from.url_rewrite.as_ref(), "urlRewrite")?)?),
        FilterType::RequestRedirect => {
            let redirect = redirect(part(from.request_redirect.as_ref(), "requestRedirect")?)?;
            check_redirect(&redirect)?;
            return Ok(One::Redirect(redirect));
        }
        FilterType::RequestMirror => {
            let mirror = part(from.request_mirror.as_ref(), "requestMirror")?;
            return Ok(One::Mirror(mirror.clone()));
        }
        FilterType::ExtensionRef => return Err(not_yet("ExtensionRef")),
        FilterType::Cors => Filter::Cors(cors(part(from.cors.as_ref(), "cors")?)),
        FilterType::ExternalAuth => {
            let authorizer = part(from.external_auth.as_ref(), "externalAuth")?;
            return Ok(One::Authorizer(authorizer.clone()));
        }
    };
    check(&step)?;
    Ok(One::Step(step))
}

/// How many of how many requests a mirror gets.
pub(super) fn share(mirror: &RequestMirror) -> Result<(u32, u32), String> {
    let read = |value: i32, field: &str| {
        u32::try_from(value).map_err(|_| format!("requestMirror.{field}: {value} is negative"))
    };
    let (numerator, denominator) = match (&mirror.fraction, mirror.percent) {
        (Some(fraction), _) => (
            read(fraction.numerator, "fraction.numerator")?,
            read(fraction.denominator.unwrap_or(100), "fraction.denominator")?,
        ),
        (None, percent) => (read(percent.unwrap_or(100), "percent")?, 100),
    };
    match denominator >= 1 && numerator <= denominator {
        true => Ok((numerator, denominator)),
        false => Err(format!("requestMirror: {numerator} of {denominator} requests is more than all")),
    }
}

/// An authorizer, whose backend was found.
pub(super) fn authorizer(from: &ExternalAuth, backend: BackendId) -> Result<model::ExternalAuth, String> {
    let texts = |list: Option<&Vec<String>>| -> Vec<Text> {
        list.into_iter().flatten().map(|name| name.to_ascii_lowercase().into()).collect()
    };
    let (http, grpc) = (from.http.as_ref(), from.grpc.as_ref());
    let (protocol, request_headers) = match from.protocol {
        ExternalAuthProtocol::Http => {
            let path = http.and_then(|http| http.path.as_deref()).unwrap_or_default().into();
            let response_headers = texts(http.and_then(|http| http.allowed_response_headers.as_ref()));
            let told = texts(http.and_then(|http| http.allowed_headers.as_ref()));
            (AuthProtocol::Http { path, response_headers }, told)
        }
        ExternalAuthProtocol::Grpc => {
            (AuthProtocol::Grpc, texts(grpc.and_then(|grpc| grpc.allowed_headers.as_ref())))
        }
    };
    let max_body = from.forward_body.as_ref().and_then(|body| body.max_size).unwrap_or_default();
    let max_body =
        u32::try_from(max_body).map_err(|_| format!("forwardBody.maxSize: {max_body} is negative"))?;
    let auth = model::ExternalAuth { backend, protocol, request_headers, max_body };
    check(&Filter::ExternalAuth(auth.clone()))?;
    Ok(auth)
}

fn not_yet(kind: &str) -> String {
    format!(
        "type {kind} is not supported; requests that the rule matches are answered 500 until it is removed"
    )
}

fn part<'a, T>(part: Option<&'a T>, name: &str) -> Result<&'a T, String> {
    part.ok_or_else(|| format!("{name} is missing; the filter's type needs it"))
}

macro_rules! edits {
    ($name:ident: $type:ty) => {
        fn $name(from: &$type) -> HeaderEdits {
            let lower = |name: &String| name.to_ascii_lowercase().into();
            let set =
                from.set.iter().flatten().map(|field| (lower(&field.name), field.value.as_str().into()));
            let add =
                from.add.iter().flatten().map(|field| (lower(&field.name), field.value.as_str().into()));
            let remove = from.remove.iter().flatten().map(lower);
            // Boxes on the way: vectors of unknown length are made for four.
            let set = set.collect::<Box<[_]>>().into();
            let add = add.collect::<Box<[_]>>().into();
            HeaderEdits { set, add, remove: remove.collect::<Box<[_]>>().into() }
        }
    };
}

edits!(request_edits: RequestHeaderModifier);
edits!(response_edits: ResponseHeaderModifier);

fn cors(from: &ApiCors) -> Cors {
    let list =
        |list: &Option<Vec<String>>| list.iter().flatten().map(|entry| entry.as_str().into()).collect();
    Cors {
        origins: list(&from.allow_origins),
        credentials: from.allow_credentials.unwrap_or_default(),
        methods: list(&from.allow_methods),
        headers: list(&from.allow_headers),
        expose_headers: list(&from.expose_headers),
        max_age: from.max_age.and_then(|age| age.try_into().ok()).unwrap_or(DEFAULT_MAX_AGE),
    }
}

fn rewrite(from: &UrlRewrite) -> Result<Rewrite, String> {
    let path = from.path.as_ref().map(|path| match path.r#type {
        RewritePathType::ReplaceFullPath => full(path.replace_full_path.as_ref()),
        RewritePathType::ReplacePrefixMatch => prefix(path.replace_prefix_match.as_ref()),
    });
    Ok(Rewrite { hostname: from.hostname.as_deref().map(Into::into), path: path.transpose()? })
}

fn redirect(from: &RequestRedirect) -> Result<Redirect, String> {
    let path = from.path.as_ref().map(|path| match path.r#type {
        RedirectPathType::ReplaceFullPath => full(path.replace_full_path.as_ref()),
        RedirectPathType::ReplacePrefixMatch => prefix(path.replace_prefix_match.as_ref()),
    });
    let port = from.port.map(|port| u16::try_from(port).map_err(|_| format!("port {port} is not a port")));
    let status = from.status_code.unwrap_or(302);
    Ok(Redirect {
        scheme: from.scheme.as_ref().map(|scheme| match scheme {
            RedirectScheme::Http => Scheme::Http,
            RedirectScheme::Https => Scheme::Https,
        }),
        hostname: from.hostname.as_deref().map(Into::into),
        port: port.transpose()?,
        path: path.transpose()?,
        status: u16::try_from(status).map_err(|_| format!("statusCode {status} is not a redirect"))?,
    })
}

fn full(value: Option<&String>) -> Result<PathRewrite, String> {
    part(value, "path.replaceFullPath").map(|value| PathRewrite::Full(value.as_str().into()))
}

fn prefix(value: Option<&String>) -> Result<PathRewrite, String> {
    part(value, "path.replacePrefixMatch").map(|value| PathRewrite::Prefix(value.as_str().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::http_route::HttpAuth;

    #[test]
    fn an_authorizer_is_translated_with_all_its_terms() {
        let from: ExternalAuth = serde_json::from_value(serde_json::json!({
            "protocol": "HTTP",
            "backendRef": {"name": "auth", "port": 80},
            "http": {"path": "/check", "allowedHeaders": ["Cookie"], "allowedResponseHeaders": ["X-User"]},
            "forwardBody": {"maxSize": 1024},
        }))
        .unwrap();
        let name = model::ObjectName::new("ns", "auth");
        let transport = model::Transport::Tcp;
        let backend = BackendId { kind: model::BackendKind::Service, name, port: 80, transport };
        let wanted = model::ExternalAuth {
            backend: backend.clone(),
            protocol: AuthProtocol::Http { path: "/check".into(), response_headers: vec!["x-user".into()] },
            request_headers: vec!["cookie".into()],
            max_body: 1024,
        };
        assert_eq!(authorizer(&from, backend.clone()), Ok(wanted));
        let refused = ExternalAuth {
            http: from.http.clone().map(|http| HttpAuth { path: Some("/a?b".into()), ..http }),
            ..from
        };
        assert!(authorizer(&refused, backend).unwrap_err().contains("path"));
    }

    #[test]
    fn there_is_one_authorizer() {
        let auth = serde_json::json!({
            "type": "ExternalAuth",
            "externalAuth": {"protocol": "GRPC", "backendRef": {"name": "auth", "port": 80}},
        });
        let filters: Vec<ApiFilter> =
            serde_json::from_value(serde_json::Value::Array(vec![auth.clone(), auth])).unwrap();
        assert!(translate(&filters[..1], true).unwrap().authorizer.is_some());
        assert_eq!(translate(&filters, true).unwrap_err().0, Reason::IncompatibleFilters);
    }
}
