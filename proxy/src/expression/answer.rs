//! Questions about an answer, for circuit breakers.
//!
//! | variable | |
//! |---|---|
//! | `response.code` | the status, a number |
//! | `response.headers` | text by name, as of requests |

use super::{asks_for, bounded, environment, headers, map};
use cel::objects::Value;
use cel::{Context, ExecutionError, Program};
use http::{HeaderMap, StatusCode};
use std::fmt;

/// A compiled question that is answered with yes or no.
pub(crate) struct Answer {
    program: Program,
    text: Box<str>,
    wants_headers: bool,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.text).finish()
    }
}

impl Answer {
    /// Compiles an expression. The error is for its author.
    pub(crate) fn compile(source: &str) -> Result<Self, String> {
        let refused = |why: String| format!("expression {source:?}: {why}");
        let program = bounded(source).map_err(refused)?;
        let compiled = Self { program, text: source.into(), wants_headers: source.contains("headers") };
        match compiled.evaluate(StatusCode::OK, &HeaderMap::new()) {
            Ok(Value::Bool(_)) => Ok(compiled),
            Ok(value) => Err(refused(format!("is {}, not true or false", value.type_of()))),
            Err(ExecutionError::UndeclaredReference(name)) => {
                Err(refused(format!("{name} isn't known; there are response, and the functions of CEL")))
            }
            Err(ExecutionError::NoSuchKey(name)) if asks_for(source, "response", &name) => {
                Err(refused(format!("there is no {name}")))
            }
            // Of this answer. Another may have what is asked for.
            Err(_) => Ok(compiled),
        }
    }

    /// Whether it holds; no when it can't be said.
    pub(crate) fn holds(&self, status: StatusCode, fields: &HeaderMap) -> bool {
        matches!(self.evaluate(status, fields), Ok(Value::Bool(true)))
    }

    fn evaluate(&self, status: StatusCode, fields: &HeaderMap) -> Result<Value, ExecutionError> {
        let mut context = Context::with_env(environment());
        let fields = if self.wants_headers { headers(fields) } else { map::<0>([]) };
        let code = Value::Int(status.as_u16().into());
        context.add_variable_from_value("response", map([("code", code), ("headers", fields)]));
        self.program.execute(&context)
    }
}

/// Whether an expression about answers can be compiled. The error is for its author.
pub fn check_answer(source: &str) -> Result<(), String> {
    Answer::compile(source).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn questions_see_the_answer() {
        let mut fields = HeaderMap::new();
        fields.insert("x-state", HeaderValue::from_static("read-only"));
        for (expression, holds) in [
            ("response.code == 503", true),
            ("response.code >= 400 && response.code < 500", false),
            ("'x-state' in response.headers && response.headers['x-state'] == 'read-only'", true),
            ("response.headers['x-none'] == 'a'", false),
            ("response.headers.exists(name, name.startsWith('x-'))", true),
            // No member of `response`, although one begins with it.
            ("response.headers['h'] == 'x'", false),
        ] {
            let compiled = Answer::compile(expression).unwrap();
            assert_eq!(compiled.holds(StatusCode::SERVICE_UNAVAILABLE, &fields), holds, "{expression}");
        }
    }

    #[test]
    fn mistakes_are_told_to_their_author() {
        for (expression, why) in [
            ("response.code", "is int, not true or false"),
            ("request.path == '/'", "request isn't known"),
            ("response.status == 500", "there is no status"),
            ("response.code ==", "expression \"response.code ==\": "),
            ("[1].all(a, [1].all(b, [1].all(c, true)))", "more than 2 loops"),
        ] {
            let told = Answer::compile(expression).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
