//! `ExternalAuth` (GEP-1494): what an authorizer is told of a request, and what it may change. [`crate::authorize`] asks
//! it.

use super::compile_path;
use super::header_edits::field_name;
use crate::model::{self, AuthProtocol, Text};
use http::HeaderName;
use std::time::Duration;

/// Bytes of a body that are kept for an authorizer at most (security.md §8: what a policy buffers).
const MOST_BODY: u32 = 8 * 1024 * 1024;

/// How long an authorizer may take, unless a policy says otherwise: users wait for it before anything happens.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What an authorizer is told and may do.
#[derive(Debug)]
pub struct Terms {
    /// How it is asked.
    pub protocol: Protocol,
    /// Fields that it is told.
    pub request_headers: Box<[HeaderName]>,
    /// Bytes of the body that it is told at most; 0: none of it.
    pub max_body: usize,
    /// How long it may take, connecting to it included.
    pub timeout: Duration,
}

/// How an authorizer is asked.
#[derive(Debug)]
pub enum Protocol {
    /// By the request's head; 200 lets it pass.
    Http {
        /// Goes before the path; empty or without a final slash.
        prefix: Box<str>,
        /// Fields that it may set; none named: all but those that frame or describe its own answer.
        response_headers: Box<[HeaderName]>,
    },
    /// By Envoy's `ext_authz`.
    Grpc,
}

impl Terms {
    pub(crate) fn compile(from: &model::ExternalAuth) -> Result<Self, String> {
        let sent = |list: &[Text]| -> Result<Box<[HeaderName]>, String> {
            list.iter()
                .map(|name| {
                    HeaderName::from_bytes(name.as_bytes())
                        .map_err(|_| format!("allowedHeaders: {name:?} isn't the name of a header"))
                })
                .collect()
        };
        let protocol = match &from.protocol {
            AuthProtocol::Http { path, response_headers } => Protocol::Http {
                prefix: prefix(path)?,
                response_headers: response_headers
                    .iter()
                    .map(|name| field_name(name).map_err(|why| format!("allowedResponseHeaders: {why}")))
                    .collect::<Result<_, _>>()?,
            },
            AuthProtocol::Grpc => Protocol::Grpc,
        };
        let max_body = usize::try_from(from.max_body.min(MOST_BODY)).unwrap_or_default();
        let request_headers = sent(&from.request_headers)?;
        Ok(Self { protocol, request_headers, max_body, timeout: ANSWER_WITHIN })
    }
}

fn prefix(path: &str) -> Result<Box<str>, String> {
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Ok(Box::default());
    }
    let rooted = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    compile_path(&rooted, "path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(path: &str, response: &[&str], request: &[&str]) -> model::ExternalAuth {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).into()).collect();
        let name = model::ObjectName::new("ns", "authorizer");
        model::ExternalAuth {
            backend: model::BackendId {
                kind: model::BackendKind::Service,
                name,
                port: 80,
                transport: model::Transport::Tcp,
            },
            protocol: AuthProtocol::Http { path: path.into(), response_headers: texts(response) },
            request_headers: texts(request),
            max_body: u32::MAX,
        }
    }

    #[test]
    fn prefixes_are_paths_without_a_final_slash() {
        for (from, to) in [("", ""), ("/", ""), ("/auth/", "/auth"), ("check", "/check")] {
            let Protocol::Http { prefix, .. } = Terms::compile(&http(from, &[], &[])).unwrap().protocol
            else {
                panic!("it is HTTP");
            };
            assert_eq!(&*prefix, to);
        }
        assert_eq!(Terms::compile(&http("", &[], &[])).unwrap().max_body, MOST_BODY as usize);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for from in [http("/a?b", &[], &[]), http("", &["host"], &[]), http("", &[], &["a b"])] {
            assert!(Terms::compile(&from).is_err(), "{from:?}");
        }
        assert!(Terms::compile(&http("", &["content-length"], &[])).is_err());
    }
}
