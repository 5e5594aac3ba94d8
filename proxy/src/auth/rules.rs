//! What clients may do: rules of who, what and when. A `Deny` beats any `Allow`; a part of a `Deny` that can't be
//! evaluated counts as if it held, for a rule isn't got around by a request that makes no sense.

use super::Identity;
use crate::expression::{Expression, Kind, View};
use crate::headers::Touched;
use crate::model::{AuthAction, AuthorizationRule, Text};
use crate::path::{is_ambiguous, lax_readings};
use http::Method;
use ipnet::IpNet;
use serde_json::Value;
use std::net::IpAddr;

/// Compiled rules.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Box<[Rule]>,
    default: AuthAction,
}

#[derive(Debug)]
struct Rule {
    action: AuthAction,
    when: Box<[Expression]>,
    networks: Box<[IpNet]>,
    claims: Box<[(Text, Box<[Text]>)]>,
    scopes: Box<[Text]>,
    consumers: Box<[Text]>,
    methods: Box<[Method]>,
    paths: Box<[PathPattern]>,
}

#[derive(Debug)]
enum PathPattern {
    Exact(Text),
    Prefix(Box<str>),
}

impl PathPattern {
    fn compile(from: &Text) -> Result<Self, String> {
        if !from.starts_with('/') || from.trim_end_matches('*').contains('*') || from.ends_with("**") {
            return Err(format!("{from:?} isn't a path that begins with / and has * at its end only"));
        }
        Ok(from
            .strip_suffix('*')
            .map_or_else(|| Self::Exact(from.clone()), |begin| Self::Prefix(begin.into())))
    }

    fn takes(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(begin) => path.starts_with(&**begin),
        }
    }
}

impl Rules {
    pub(super) fn compile(from: &crate::model::Authorization) -> Result<Self, String> {
        let rule = |from: &AuthorizationRule| {
            Rule::compile(from).map_err(|why| format!("authorization.rules.{}.{why}", from.name))
        };
        let rules = from.rules.iter().map(rule).collect::<Result<_, _>>()?;
        Ok(Self { rules, default: from.default })
    }

    /// The fields that they look at.
    pub(super) fn touch(&self) -> Touched {
        self.rules.iter().flat_map(|rule| &rule.when).map(Expression::touches).collect()
    }

    /// Whether a client may do what it asks for.
    pub(super) fn allow(&self, view: &View<'_>, identity: &Identity) -> bool {
        let mut allowed = self.default == AuthAction::Allow;
        if self.rules.is_empty() {
            return allowed;
        }
        // What the laxest backend may read the path as has to be allowed, and not denied, as well (security.md §5).
        let readings = is_ambiguous(view.path).then(|| lax_readings(view.path));
        for rule in &self.rules {
            match rule.action {
                AuthAction::Deny if rule.holds(view, identity, readings.as_ref()) => return false,
                AuthAction::Allow => allowed = allowed || rule.holds(view, identity, readings.as_ref()),
                AuthAction::Deny => {}
            }
        }
        allowed
    }
}

impl Rule {
    fn compile(from: &AuthorizationRule) -> Result<Self, String> {
        let when = from.when.iter().enumerate().map(|(n, text)| {
            Expression::compile(text, Kind::Predicate).map_err(|why| format!("when[{n}]: {why}"))
        });
        let networks = from.cidrs.iter().enumerate().map(|(n, text)| {
            let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            parsed.map_err(|_| format!("principal.cidrs[{n}]: {text:?} isn't a network like 10.0.0.0/8"))
        });
        let methods = from.methods.iter().enumerate().map(|(n, name)| {
            Method::from_bytes(name.as_bytes())
                .map_err(|_| format!("operation.methods[{n}]: {name:?} isn't a method"))
        });
        let paths = from.paths.iter().enumerate().map(|(n, path)| {
            PathPattern::compile(path).map_err(|why| format!("operation.paths[{n}]: {why}"))
        });
        let claims = from.claims.iter().map(|(name, values)| (name.clone(), values.clone().into()));
        Ok(Self {
            action: from.action,
            when: when.collect::<Result<_, _>>()?,
            networks: networks.collect::<Result<_, _>>()?,
            claims: claims.collect(),
            scopes: from.scopes.clone().into(),
            consumers: from.consumers.clone().into(),
            methods: methods.collect::<Result<_, _>>()?,
            paths: paths.collect::<Result<_, _>>()?,
        })
    }

    /// Whether all parts hold.
    fn holds(&self, view: &View<'_>, identity: &Identity, readings: Option<&[String; 2]>) -> bool {
        let address = view.peer.ip().to_canonical();
        (self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address)))
            && (self.methods.is_empty() || self.methods.contains(view.method))
            && self.takes_path(view.path, readings)
            && (self.consumers.is_empty()
                || identity.consumer.as_ref().is_some_and(|one| self.consumers.contains(one)))
            && self.claims.iter().all(|(name, values)| identity.claim_is(name, values))
            && self.scopes.iter().all(|scope| identity.has_scope(scope))
            && self.when.iter().all(|when| match self.action {
                AuthAction::Allow => when.holds(view),
                AuthAction::Deny => when.may_hold(view),
            })
    }

    fn takes_path(&self, path: &str, readings: Option<&[String; 2]>) -> bool {
        let takes = |path: &str| self.paths.iter().any(|pattern| pattern.takes(path));
        let mut others = readings.into_iter().flatten();
        self.paths.is_empty()
            || match self.action {
                AuthAction::Allow => takes(path) && others.all(|path| takes(path)),
                AuthAction::Deny => takes(path) || others.any(|path| takes(path)),
            }
    }
}

impl Identity {
    /// A claim by its name, or by the names of members within members, joined by dots.
    pub(crate) fn claim(&self, name: &str) -> Option<&Value> {
        let claims = self.claims.as_ref()?;
        claims.get(name).or_else(|| {
            let mut steps = name.split('.');
            let first = claims.get(steps.next()?)?;
            steps.try_fold(first, |value, step| value.as_object()?.get(step))
        })
    }

    fn claim_is(&self, name: &str, values: &[Text]) -> bool {
        let is = |value: &Value| match value {
            Value::String(text) => values.iter().any(|wanted| **wanted == **text),
            Value::Bool(_) | Value::Number(_) => {
                let text = value.to_string();
                values.iter().any(|wanted| **wanted == *text)
            }
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        match self.claim(name) {
            Some(Value::Array(list)) => list.iter().any(is),
            Some(value) => is(value),
            None => false,
        }
    }

    /// Scopes are a list in a text (RFC 8693 §4.2), or a list of texts, as some issuers have it.
    fn has_scope(&self, scope: &str) -> bool {
        ["scope", "scp"].iter().any(|claim| match self.claim(claim) {
            Some(Value::String(list)) => list.split(' ').any(|one| one == scope),
            Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(scope)),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Authorization;
    use http::HeaderMap;
    use std::sync::Arc;

    fn texts(list: &[&str]) -> Vec<Text> {
        list.iter().map(|text| (*text).into()).collect()
    }

    fn alice() -> Identity {
        let claims = serde_json::json!({
            "sub": "alice", "level": 7, "scope": "read write", "realm": {"roles": ["admin", "dev"]},
        });
        let Value::Object(claims) = claims else { panic!("it is an object") };
        Identity { consumer: Some("alice".into()), claims: Some(Arc::new(claims)) }
    }

    fn asks(rules: Vec<AuthorizationRule>, default: AuthAction, identity: &Identity, path: &str) -> bool {
        let headers = HeaderMap::new();
        let view = View {
            method: &Method::GET,
            scheme: "https",
            host: "example.com",
            path,
            query: None,
            headers: &headers,
            peer: ([10, 1, 2, 3], 1).into(),
            auth: Some(identity),
        };
        Rules::compile(&Authorization { rules, default }).unwrap().allow(&view, identity)
    }

    fn rule(change: impl FnOnce(&mut AuthorizationRule)) -> AuthorizationRule {
        let mut rule = AuthorizationRule { name: "rule".into(), ..AuthorizationRule::default() };
        change(&mut rule);
        rule
    }

    #[test]
    fn a_rule_holds_when_all_of_its_parts_do() {
        let allows =
            |change: fn(&mut AuthorizationRule)| asks(vec![rule(change)], AuthAction::Deny, &alice(), "/a/b");
        assert!(allows(|_| {}));
        assert!(allows(|rule| rule.cidrs = texts(&["192.0.2.0/24", "10.0.0.0/8"])));
        assert!(!allows(|rule| rule.cidrs = texts(&["10.1.2.4"])));
        assert!(allows(|rule| rule.claims = vec![("level".into(), texts(&["6", "7"]))]));
        assert!(allows(|rule| rule.claims = vec![("realm.roles".into(), texts(&["admin"]))]));
        assert!(!allows(|rule| rule.claims = vec![("realm.roles".into(), texts(&["root"]))]));
        assert!(!allows(|rule| rule.claims = vec![("realm".into(), texts(&["admin"]))]));
        assert!(allows(|rule| rule.scopes = texts(&["read", "write"])));
        assert!(!allows(|rule| rule.scopes = texts(&["read", "writ"])));
        assert!(allows(|rule| rule.consumers = texts(&["bob", "alice"])));
        assert!(!allows(|rule| rule.consumers = texts(&["bob"])));
        assert!(!allows(|rule| rule.methods = texts(&["POST"])));
        assert!(allows(|rule| rule.paths = texts(&["/a", "/a/*"])));
        assert!(!allows(|rule| rule.paths = texts(&["/a"])));
        assert!(allows(|rule| rule.when = texts(&["auth.claims.level == 7 && auth.consumer == 'alice'"])));
        assert!(!allows(|rule| rule.when = texts(&["auth.claims.none == 7"])));
    }

    #[test]
    fn a_deny_beats_any_allow_and_fails_closed() {
        let deny = |change: fn(&mut AuthorizationRule)| {
            rule(|rule| {
                rule.action = AuthAction::Deny;
                change(rule);
            })
        };
        let allow = || rule(|_| {});
        let passes = |deny| asks(vec![allow(), deny, allow()], AuthAction::Allow, &alice(), "/a/b");
        assert!(!passes(deny(|_| {})));
        assert!(passes(deny(|rule| rule.methods = texts(&["POST"]))));
        // It can't be said: the claim isn't there.
        assert!(!passes(deny(|rule| rule.when = texts(&["auth.claims.none == 7"]))));
        assert!(passes(deny(|rule| rule.when = texts(&["auth.claims.level == 8"]))));
    }

    #[test]
    fn paths_that_backends_read_differently_are_read_both_ways() {
        let deny = || {
            rule(|rule| {
                rule.action = AuthAction::Deny;
                rule.paths = texts(&["/admin/*"]);
            })
        };
        for (path, passes) in [
            ("/admin/x", false),
            ("/a/b", true),
            ("/x/..%2Fadmin/x", false),
            ("//admin/x", false),
            ("/admin;a=b/x", false),
        ] {
            assert_eq!(asks(vec![deny()], AuthAction::Allow, &alice(), path), passes, "{path}");
        }
        let allow = || rule(|rule| rule.paths = texts(&["/public/*"]));
        assert!(asks(vec![allow()], AuthAction::Deny, &alice(), "/public/a;b"));
        assert!(!asks(vec![allow()], AuthAction::Deny, &alice(), "/public/..%2Fprivate"));
    }

    #[test]
    fn mistakes_are_told_to_their_author() {
        let told = |change: fn(&mut AuthorizationRule)| {
            let from = Authorization { rules: vec![rule(change)], default: AuthAction::Deny };
            Rules::compile(&from).unwrap_err()
        };
        assert!(
            told(|rule| rule.cidrs = texts(&["10.0.0.0/33"]))
                .starts_with("authorization.rules.rule.principal.cidrs[0]")
        );
        assert!(told(|rule| rule.paths = texts(&["a"])).contains("operation.paths[0]"));
        assert!(told(|rule| rule.paths = texts(&["/a*b"])).contains("operation.paths[0]"));
        assert!(told(|rule| rule.methods = texts(&["A B"])).contains("operation.methods[0]"));
        assert!(told(|rule| rule.when = texts(&["auth.name == 'x'"])).contains("when[0]"));
    }
}
