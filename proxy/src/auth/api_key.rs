//! Keys of consumers. Kept as SHA-256, found by it: how long that takes tells nothing of a key.

use super::credential::{Found, Place, find};
use super::{Identity, Known, Said, told_by};
use crate::expression::View;
use crate::model::{ApiKeyAuth, Text};
use aws_lc_rs::digest;
use http::HeaderName;
use http::HeaderValue;
use std::collections::HashMap;

/// Bytes of a key at least, of those that are there in clear text: less can be guessed.
const LEAST: usize = 16;

/// Compiled keys.
#[derive(Debug)]
pub(super) struct ApiKeys {
    consumers: HashMap<[u8; 32], Text>,
    pub(super) from: Box<[Place]>,
    pub(super) consumer_header: Option<HeaderName>,
    forward: bool,
}

impl ApiKeys {
    pub(super) fn compile(from: &ApiKeyAuth) -> Result<Self, String> {
        let mut consumers = HashMap::<_, Text>::with_capacity(from.keys.len());
        for (consumer, key) in &from.keys {
            let key = key.reveal().trim();
            let hash = match key.strip_prefix("sha256:") {
                Some(text) => parse(text).ok_or_else(|| {
                    format!("the entry {consumer:?} isn't sha256: and 64 hexadecimal digits")
                })?,
                None if key.len() >= LEAST => sha256(key.as_bytes()),
                None => return Err(format!("the key of {consumer:?} is shorter than {LEAST} characters")),
            };
            if let Some(other) = consumers.insert(hash, consumer.clone()) {
                return Err(format!("{other:?} and {consumer:?} have the same key"));
            }
        }
        let consumer_header = from.consumer_header.as_ref().map(|name| told_by("consumerHeader", name));
        Ok(Self {
            consumers,
            from: Place::all(&from.from)?,
            consumer_header: consumer_header.transpose()?,
            forward: from.forward,
        })
    }

    pub(super) fn ask(&self, view: &View<'_>) -> Said<'_> {
        let key = match find(&self.from, view) {
            Found::Nothing => return Said::Missing,
            Found::Unclear => return Said::Wrong,
            Found::One(key) => key,
        };
        let Some(consumer) = self.consumers.get(&sha256(key.as_bytes())) else { return Said::Wrong };
        let value = HeaderValue::try_from(&**consumer).ok();
        Said::Known(Known {
            identity: Identity { consumer: Some(consumer.clone()), claims: None },
            fields: self.consumer_header.iter().zip(value).collect(),
            withheld: if self.forward { &[] } else { &self.from },
            ..Known::default()
        })
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (n, byte) in hash.iter_mut().enumerate() {
        *byte = crate::path::escaped(&text.as_bytes()[2 * n..])?;
    }
    Some(hash)
}
