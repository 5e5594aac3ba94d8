//! `matches` of the language: a pattern is compiled once for each thread, not for each request.

use crate::router::REGEX_SIZE;
use cel::common::types::{CelBool, CelString};
use cel::{Env, ExecutionError};
use regex::{Regex, RegexBuilder};
use std::cell::RefCell;
use std::collections::HashMap;

/// The function's name.
pub(super) const MATCHES: &str = "matches";
/// Patterns that a thread keeps: more than policies have. Those that are made of what requests say push each other out.
const KEPT: usize = 64;

thread_local! {
    static KNOWN: RefCell<HashMap<Box<str>, Regex>> = RefCell::default();
}

/// Adds the function, as `text.matches(pattern)` and `matches(text, pattern)`.
pub(super) fn declare(environment: &mut Env) {
    cel::add_overload!(environment, fn matches: (CelString, CelString) -> Result<CelBool>, id = "matches")
        .and_then(|()| {
            cel::add_member_overload!(environment, fn matches: (CelString, CelString) -> Result<CelBool>)
        })
        .expect("nobody else declares it");
}

/// Whether the pattern is found anywhere in the text.
fn matches(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    KNOWN.with_borrow_mut(|known| {
        if let Some(regex) = known.get(pattern.inner()) {
            return Ok(regex.is_match(text.inner()).into());
        }
        let mut builder = RegexBuilder::new(pattern.inner());
        let regex = builder.size_limit(REGEX_SIZE).dfa_size_limit(REGEX_SIZE).build();
        let regex = regex.map_err(|error| ExecutionError::FunctionError {
            function: MATCHES.to_owned(),
            message: format!("{:?} is no regular expression: {error}", pattern.inner()),
        })?;
        let found = regex.is_match(text.inner());
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(pattern.inner().into(), regex);
        Ok(found.into())
    })
}
