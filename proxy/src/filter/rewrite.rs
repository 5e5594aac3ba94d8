//! `URLRewrite`: another host or path towards the backend. The query stays.

use super::{Outgoing, compile_host, compile_path, replace_prefix, replaced_len};
use crate::model::{self, PathRewrite};
use http::header::{HOST, HeaderValue};
use std::borrow::Cow;

/// A compiled rewrite.
#[derive(Debug)]
pub(super) struct Rewrite {
    host: Option<HeaderValue>,
    path: Option<PathEdit>,
}

/// A compiled [`PathRewrite`].
#[derive(Debug)]
pub(super) enum PathEdit {
    Full(Box<str>),
    Prefix(Box<str>),
}

impl PathEdit {
    pub(super) fn compile(from: &PathRewrite) -> Result<Self, String> {
        Ok(match from {
            PathRewrite::Full(path) => Self::Full(compile_path(path, "replaceFullPath")?),
            PathRewrite::Prefix(path) => Self::Prefix(compile_path(path, "replacePrefixMatch")?),
        })
    }

    pub(super) fn apply<'a>(&self, path: &'a str, prefix_len: usize) -> Cow<'a, str> {
        match self {
            Self::Full(full) => Cow::Owned(String::from(&**full)),
            Self::Prefix(replacement) => Cow::Owned(replace_prefix(path, prefix_len, replacement)),
        }
    }
}

impl Rewrite {
    pub(super) fn compile(from: &model::Rewrite) -> Result<Self, String> {
        let host = from.hostname.as_ref().map(|host| compile_host(host)).transpose()?;
        let value = |host: Box<str>| HeaderValue::from_str(&host).map_err(|error| error.to_string());
        Ok(Self {
            host: host.map(value).transpose()?,
            path: from.path.as_ref().map(PathEdit::compile).transpose()?,
        })
    }

    pub(super) fn apply(&self, request: &mut Outgoing<'_>) {
        if let Some(host) = &self.host {
            request.headers.insert(HOST, host.clone());
        }
        if let Some(path) = &self.path {
            let rewritten = path.apply(&request.path, request.prefix_len).into_owned();
            request.prefix_len = match path {
                PathEdit::Full(_) => rewritten.len(),
                PathEdit::Prefix(replacement) => replaced_len(replacement),
            };
            request.path = Cow::Owned(rewritten);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn host_and_path_are_replaced_independently() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("old.example:8080"));
        let mut request = Outgoing { headers: &mut headers, path: "/a/b".into(), prefix_len: 2 };
        let path = Some(PathRewrite::Full("/x".into()));
        Rewrite::compile(&model::Rewrite { hostname: None, path }).unwrap().apply(&mut request);
        assert_eq!((&*request.path, request.headers[HOST].to_str().unwrap()), ("/x", "old.example:8080"));
        let hostname = Some("new.example".into());
        Rewrite::compile(&model::Rewrite { hostname, path: None }).unwrap().apply(&mut request);
        assert_eq!((&*request.path, request.headers[HOST].to_str().unwrap()), ("/x", "new.example"));
    }
}
