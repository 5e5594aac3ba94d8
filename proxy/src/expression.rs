//! Expressions of policies, in the Common Expression Language: questions about a request.
//!
//! | variable | |
//! |---|---|
//! | `request.method`, `.scheme`, `.host`, `.path` | text; host without port in lower case, path in normal form |
//! | `request.headers`, `.cookies`, `.query` | maps of text by name; header names in lower case, several fields of a name joined by `, `, of several cookies or parameters of a name the first |
//! | `source.ip`, `.port` | the client's address as text, and its port |
//! | `auth.consumer`, `.claims` | by what name the gateway knows the client, where it does; what its token claims |
//!
//! What isn't there is an error, `"x" in request.headers` asks first. An error is for the caller to judge: a predicate that
//! can't be answered doesn't hold. Expressions are bounded when they are compiled: in length, and in loops, of which two
//! may be nested.

mod answer;
mod patterns;

pub(crate) use answer::Answer;
pub use answer::check_answer;

use crate::auth::Identity;
use crate::headers::Touched;
use cel::objects::{Key, Map, Value};
use cel::{Context, Env, ExecutionError, Program};
use http::{HeaderMap, Method, header};
use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

/// Bytes of an expression.
const LENGTH: usize = 1024;
/// Loops in an expression: over a hundred fields, two within each other are ten thousand steps.
const LOOPS: usize = 2;

/// What expressions can ask about.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Method.
    pub method: &'a Method,
    /// `http` or `https`, as the client came.
    pub scheme: &'a str,
    /// Host in lower case, without port.
    pub host: &'a str,
    /// Path in normal form.
    pub path: &'a str,
    /// Query, still encoded, without its question mark.
    pub query: Option<&'a str>,
    /// Fields.
    pub headers: &'a HeaderMap,
    /// The client.
    pub peer: SocketAddr,
    /// Who the client is, once that is known.
    pub auth: Option<&'a Identity>,
}

/// A compiled expression.
pub struct Expression {
    program: Program,
    text: Box<str>,
    wants: Wants,
}

/// What of the request an expression may look at: the rest isn't built.
#[derive(Clone, Copy, Debug)]
struct Wants {
    headers: bool,
    cookies: bool,
    query: bool,
    source: bool,
    auth: bool,
}

/// Whether an expression asks for a member of a variable, and not for one whose name only begins like it.
fn asks_for(expression: &str, variable: &str, name: &str) -> bool {
    let member = format!("{variable}.{name}");
    let mut rests = expression.match_indices(&member).map(|(at, _)| &expression[at + member.len()..]);
    rests.any(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_'))
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

/// What an expression comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Predicate,
    /// A whole number, not below zero.
    Number,
    /// Text.
    Text,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Predicate => "true or false",
            Self::Number => "a whole number",
            Self::Text => "text, a number, or true or false",
        }
    }

    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Predicate => matches!(value, Value::Bool(_)),
            Self::Number => matches!(value, Value::Int(_) | Value::UInt(_)),
            Self::Text => text(value).is_some(),
        }
    }
}

impl Expression {
    /// Compiles an expression that is to come to `kind`. The error is for its author.
    pub fn compile(source: &str, kind: Kind) -> Result<Self, String> {
        let refused = |why: String| format!("expression {source:?}: {why}");
        let program = bounded(source).map_err(refused)?;
        let has = |word: &str| source.contains(word);
        let wants = Wants {
            headers: has("headers"),
            cookies: has("cookies"),
            query: has("query"),
            source: has("source"),
            auth: has("auth"),
        };
        let compiled = Self { program, text: source.into(), wants };
        compiled.rehearse(kind).map_err(refused)?;
        Ok(compiled)
    }

    /// Tries it on a request like many: finds names that nobody knows, and answers of another sort.
    fn rehearse(&self, kind: Kind) -> Result<(), String> {
        let somebody = Identity { consumer: Some("somebody".into()), claims: None };
        let view = View {
            method: &Method::GET,
            scheme: "https",
            host: "example.com",
            path: "/",
            query: None,
            headers: &HeaderMap::new(),
            peer: (Ipv4Addr::LOCALHOST, 1).into(),
            auth: Some(&somebody),
        };
        match self.evaluate(&view) {
            Ok(value) if kind.takes(&value) => Ok(()),
            Ok(value) => Err(format!("is {}, not {}", value.type_of(), kind.name())),
            Err(ExecutionError::UndeclaredReference(name)) => Err(format!(
                "{name} isn't known; there are request, source and auth, and the functions of CEL"
            )),
            Err(ExecutionError::NoSuchKey(name)) if !self.may_lack(&name) => {
                Err(format!("there is no {name}"))
            }
            Err(ExecutionError::FunctionError { function, message }) if function == patterns::MATCHES => {
                Err(message)
            }
            // Of this request. Another may have what is asked for.
            Err(_) => Ok(()),
        }
    }

    /// Whether a name is one that requests have or not: anything but the members of the variables.
    fn may_lack(&self, name: &str) -> bool {
        !["request", "source", "auth"].iter().any(|variable| asks_for(&self.text, variable, name))
    }

    /// Whether it holds; no when it can't be said.
    pub fn holds(&self, view: &View<'_>) -> bool {
        matches!(self.evaluate(view), Ok(Value::Bool(true)))
    }

    /// Whether it may hold: it does, or it can't be said.
    pub(crate) fn may_hold(&self, view: &View<'_>) -> bool {
        !matches!(self.evaluate(view), Ok(Value::Bool(false)))
    }

    /// The fields that it may look at.
    pub(crate) fn touches(&self) -> Touched {
        if self.wants.headers { Touched::Any } else { Touched::default() }
    }

    /// Whether it asks who the client is.
    pub(crate) fn asks_who(&self) -> bool {
        self.wants.auth
    }

    /// The number that it comes to.
    pub fn number(&self, view: &View<'_>) -> Option<u64> {
        match self.evaluate(view) {
            Ok(Value::Int(number)) => u64::try_from(number).ok(),
            Ok(Value::UInt(number)) => Some(number),
            _ => None,
        }
    }

    /// The text that it comes to.
    pub fn text(&self, view: &View<'_>) -> Option<String> {
        self.evaluate(view).ok().as_ref().and_then(text)
    }

    fn evaluate(&self, view: &View<'_>) -> Result<Value, ExecutionError> {
        let mut context = Context::with_env(environment());
        context.add_variable_from_value("request", self.request(view));
        if self.wants.source {
            let ip = view.peer.ip().to_canonical().to_string();
            let port = Value::Int(view.peer.port().into());
            context.add_variable_from_value("source", map([("ip", ip.into()), ("port", port)]));
        }
        if self.wants.auth {
            context.add_variable_from_value("auth", auth(view.auth));
        }
        self.program.execute(&context)
    }

    fn request(&self, view: &View<'_>) -> Value {
        let mut request = HashMap::with_capacity(8);
        let mut put = |name: &str, value: Value| request.insert(Key::from(name), value);
        put("method", view.method.as_str().into());
        put("scheme", view.scheme.into());
        put("host", view.host.into());
        put("path", view.path.into());
        // Always there, so that a misspelt name is told from an empty map.
        put("headers", if self.wants.headers { headers(view.headers) } else { map::<0>([]) });
        put("cookies", if self.wants.cookies { first(cookies(view.headers)) } else { map::<0>([]) });
        let parameters = view.query.filter(|_| self.wants.query).unwrap_or_default();
        put("query", first(form_urlencoded::parse(parameters.as_bytes())));
        Value::Map(Map { map: Arc::new(request) })
    }
}

/// Compiles what isn't too much.
fn bounded(source: &str) -> Result<Program, String> {
    if source.len() > LENGTH {
        return Err(format!("longer than {LENGTH} bytes"));
    }
    let loops = [".all(", ".exists(", ".exists_one(", ".map(", ".filter("];
    if loops.iter().map(|name| source.matches(name).count()).sum::<usize>() > LOOPS {
        return Err(format!("more than {LOOPS} loops (all, exists, exists_one, map, filter)"));
    }
    Program::compile(source).map_err(|error| error.to_string())
}

/// The functions of the language.
fn environment() -> Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut environment = Env::stdlib();
        patterns::declare(&mut environment);
        Arc::new(environment)
    });
    ENVIRONMENT.clone()
}

/// Text of a value that has one.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some((**text).clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::List(_)
        | Value::Map(_)
        | Value::Function(..)
        | Value::Float(_)
        | Value::Bytes(_)
        | Value::Opaque(_)
        | Value::Struct(_)
        | Value::Null => None,
    }
}

/// What is known of a client. Without a name there is no `consumer`; `claims` are always there, so that a misspelt name is
/// told from none.
fn auth(identity: Option<&Identity>) -> Value {
    let claims = identity.and_then(Identity::claims);
    let claims = claims.into_iter().flatten().map(|(name, value)| (Key::from(name.as_str()), json(value)));
    let mut members =
        HashMap::from([(Key::from("claims"), Value::Map(Map { map: Arc::new(claims.collect()) }))]);
    if let Some(consumer) = identity.and_then(Identity::consumer) {
        members.insert(Key::from("consumer"), Value::from(&**consumer));
    }
    Value::Map(Map { map: Arc::new(members) })
}

fn json(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(list) => Value::List(Arc::new(list.iter().map(json).collect())),
        Json::Object(members) => {
            let members = members.iter().map(|(name, value)| (Key::from(name.as_str()), json(value)));
            Value::Map(Map { map: Arc::new(members.collect()) })
        }
    }
}

fn map<const N: usize>(members: [(&str, Value); N]) -> Value {
    let members = members.into_iter().map(|(name, value)| (Key::from(name), value));
    Value::Map(Map { map: Arc::new(members.collect()) })
}

fn first(pairs: impl Iterator<Item = (impl AsRef<str>, impl AsRef<str>)>) -> Value {
    let mut members = HashMap::new();
    for (name, value) in pairs {
        members.entry(Key::from(name.as_ref())).or_insert_with(|| Value::from(value.as_ref()));
    }
    Value::Map(Map { map: Arc::new(members) })
}

fn headers(fields: &HeaderMap) -> Value {
    let mut members = HashMap::with_capacity(fields.keys_len());
    for name in fields.keys() {
        let values: Vec<_> =
            fields.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        members.insert(Key::from(name.as_str()), Value::from(values.join(", ")));
    }
    Value::Map(Map { map: Arc::new(members) })
}

/// Cookies by name (RFC 6265 §4.2.1), in the order that they were sent.
pub(crate) fn cookies(fields: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let fields = fields.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            fields.append(*name, HeaderValue::from_static(value));
        }
        fields
    }

    fn view(headers: &HeaderMap) -> View<'_> {
        View {
            method: &Method::POST,
            scheme: "https",
            host: "shop.example",
            path: "/cart/7",
            query: Some("a=1&b=x%20y&a=2"),
            headers,
            peer: "[::ffff:192.0.2.7]:1234".parse().unwrap(),
            auth: None,
        }
    }

    #[test]
    fn predicates_see_the_request() {
        let headers = fields(&[("x-a", "1"), ("x-a", "2"), ("cookie", "s=1; t=2"), ("cookie", "s=3")]);
        for expression in [
            "true",
            "request.method == 'POST' && request.scheme == 'https' && request.host == 'shop.example'",
            "request.path.startsWith('/cart/')",
            "request.path.matches('^/cart/[0-9]+$')",
            "matches(request.path, 'art') && !request.path.matches('^art')",
            "request.headers['x-a'] == '1, 2'",
            "!('x-b' in request.headers)",
            "request.cookies.s == '1' && request.cookies['t'] == '2'",
            "request.query.a == '1' && request.query.b == 'x y'",
            "source.ip == '192.0.2.7' && source.port == 1234",
            "['GET', 'POST'].exists(m, m == request.method)",
            "request.headers.exists(name, name.startsWith('x-'))",
        ] {
            let compiled = Expression::compile(expression, Kind::Predicate).unwrap();
            assert!(compiled.holds(&view(&headers)), "{expression}");
        }
    }

    #[test]
    fn what_cannot_be_answered_does_not_hold() {
        let headers = HeaderMap::new();
        for expression in ["request.headers['x'] == 'a'", "!(request.headers['x'] == 'a')", "1 / 0 == 1"] {
            let compiled = Expression::compile(expression, Kind::Predicate).unwrap();
            assert!(!compiled.holds(&view(&headers)), "{expression}");
        }
    }

    #[test]
    fn patterns_that_requests_make_are_as_good_as_others() {
        let compiled =
            Expression::compile("'7'.matches('^' + request.query.n + '$')", Kind::Predicate).unwrap();
        let headers = HeaderMap::new();
        // More than are kept, twice.
        for n in (0..200).chain(0..200) {
            let query = format!("n={n}");
            assert_eq!(compiled.holds(&View { query: Some(&query), ..view(&headers) }), n == 7);
        }
        assert!(!compiled.holds(&View { query: Some("n=("), ..view(&headers) }));
    }

    #[test]
    fn numbers_and_text() {
        let headers = fields(&[("x-cost", "17")]);
        let number =
            |expression| Expression::compile(expression, Kind::Number).unwrap().number(&view(&headers));
        assert_eq!(number("request.method == 'POST' ? 5 : 1"), Some(5));
        assert_eq!(number("int(request.headers['x-cost'])"), Some(17));
        assert_eq!(number("-1"), None);
        let text = |expression| Expression::compile(expression, Kind::Text).unwrap().text(&view(&headers));
        assert_eq!(text("request.host + request.path"), Some("shop.example/cart/7".to_owned()));
        assert_eq!(text("request.headers['x-none']"), None);
        // No members of `request`, although one begins with each.
        assert_eq!(text("request.query['que']"), None);
        assert_eq!(text("request.headers['h']"), None);
    }

    #[test]
    fn mistakes_are_told_to_their_author() {
        let long = format!("request.path == '{}'", "a".repeat(LENGTH));
        for (expression, kind, why) in [
            ("request.path ==", Kind::Predicate, "expression \"request.path ==\": "),
            ("request.path", Kind::Predicate, "is string, not true or false"),
            ("request.path", Kind::Number, "is string, not a whole number"),
            ("request.headers", Kind::Text, "is map, not text"),
            ("user.name == 'a'", Kind::Predicate, "user isn't known"),
            ("request.uri == '/'", Kind::Predicate, "there is no uri"),
            ("source.address == ''", Kind::Predicate, "there is no address"),
            ("nonsense(request.path)", Kind::Predicate, "nonsense isn't known"),
            ("request.path.matches('(')", Kind::Predicate, "\"(\" is no regular expression: "),
            ("matches(request.path, 'a{9999}{999}')", Kind::Predicate, "is no regular expression: "),
            (&long, Kind::Predicate, "longer than 1024 bytes"),
            ("[1].all(a, [1].all(b, [1].all(c, true)))", Kind::Predicate, "more than 2 loops"),
        ] {
            let told = Expression::compile(expression, kind).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
