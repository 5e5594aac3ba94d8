//! Permits that are remembered for a while, by a key that a policy chose, so that not every request is asked about.
//!
//! Only permits are: a refusal may be over with the next login. They are gone when their policy changes.

use super::Permit;
use crate::expression::View;
use crate::key::{Key, KeyBytes};
use crate::model;
use hashbrown::HashMap;
use http::header;
#[expect(clippy::disallowed_types, reason = "held for a look-up or two, never across an await")]
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// The memory of one authenticator, for all threads.
#[derive(Debug)]
pub(crate) struct Permits {
    key: Key,
    lifetime: Duration,
    /// Of each generation.
    most: usize,
    #[expect(clippy::disallowed_types, reason = "held for a look-up or two, never across an await")]
    generations: Mutex<[Generation; 2]>,
}

/// When the younger is full it becomes the older, whose permits are forgotten.
type Generation = HashMap<Box<[u8]>, (Instant, Arc<Permit>)>;

impl Permits {
    /// The error is for its author, and begins with the field.
    pub(crate) fn compile(from: &model::AnswerCache) -> Result<Self, String> {
        let key = Key::compile(&from.key)?;
        if key.len() == 0 || key.asks_who() {
            return Err("key: its parts are of the request: who the client is isn't known yet".to_owned());
        }
        let most = from.max_entries.div_ceil(2);
        Ok(Self { key, lifetime: from.lifetime, most, generations: Default::default() })
    }

    /// What tells a request apart. None: it has nothing of it, and is asked about.
    pub(crate) fn key(&self, view: &View<'_>) -> Option<Box<[u8]>> {
        let mut key = KeyBytes::new();
        let missing = self.key.put(view, &mut key);
        (missing < self.key.len()).then(|| key.into_boxed_slice())
    }

    /// A permit that still holds.
    pub(crate) fn find(&self, key: &[u8]) -> Option<Arc<Permit>> {
        let now = Instant::now();
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, permit) = generations.iter().find_map(|generation| generation.get(key))?;
        (now < *until).then(|| permit.clone())
    }

    /// Remembers a permit, unless its answer has cookies, which are one client's.
    pub(crate) fn keep(&self, key: Box<[u8]>, permit: &Arc<Permit>) {
        if permit.answer.contains_key(header::SET_COOKIE) {
            return;
        }
        let until = Instant::now() + self.lifetime;
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if generations[0].len() >= self.most {
            generations.swap(0, 1);
            generations[0].clear();
        }
        generations[0].insert(key, (until, permit.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AnswerCache, KeyPart};

    fn permits(lifetime: Duration, max_entries: usize) -> Permits {
        let key = vec![KeyPart::Header("authorization".into())];
        Permits::compile(&AnswerCache { key, lifetime, max_entries }).unwrap()
    }

    #[test]
    fn permits_end_with_their_time() {
        let of = |lifetime| {
            let permits = permits(lifetime, 10);
            permits.keep(b"a"[..].into(), &Arc::default());
            (permits.find(b"a").is_some(), permits.find(b"b").is_some())
        };
        assert_eq!(of(Duration::from_secs(60)), (true, false));
        assert_eq!(of(Duration::ZERO), (false, false));
    }

    #[test]
    fn no_more_are_remembered_than_may_be() {
        let permits = permits(Duration::from_secs(60), 4);
        for n in 0..100_u8 {
            permits.keep(Box::new([n]), &Arc::default());
            assert!(permits.find(&[n]).is_some());
        }
        assert!((0..100).filter(|n| permits.find(&[*n]).is_some()).count() <= 4);
    }

    #[test]
    fn cookies_are_one_clients() {
        let permits = permits(Duration::from_secs(60), 4);
        let mut permit = Permit::default();
        permit.answer.insert(header::SET_COOKIE, "a=b".parse().unwrap());
        permits.keep(b"a"[..].into(), &Arc::new(permit));
        assert!(permits.find(b"a").is_none());
    }

    #[test]
    fn nobody_is_known_yet() {
        let key = |part| AnswerCache { key: vec![part], lifetime: Duration::ZERO, max_entries: 1 };
        for part in [KeyPart::Consumer, KeyPart::Claim("sub".into())] {
            assert!(Permits::compile(&key(part)).unwrap_err().starts_with("key: "));
        }
    }
}
