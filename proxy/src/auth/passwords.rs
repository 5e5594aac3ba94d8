//! Passwords: files of `htpasswd`, and whether a user's password is the right one.
//!
//! Hashes of passwords are slow by design: they are computed on threads of their own, a few at a time, and a request that
//! finds too many others waiting is told to come back (503). Who was right is remembered for a minute, by a hash.

mod apr1;

use crate::rejection::Rejection;
use aws_lc_rs::digest;
use sha_crypt::{PasswordVerifier, ShaCrypt};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Users of a file.
const MOST_USERS: usize = 10_000;
/// Passwords that wait to be hashed, in the whole process.
const WAITING: usize = 64;
/// Users that a thread remembers; twice as many at most.
const REMEMBERED: usize = 4_096;
/// For how long.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// The highest cost of bcrypt: two seconds of a core.
const MOST_COST: u32 = 15;
/// Rounds of SHA-crypt: half a second of a core.
const MOST_ROUNDS: u32 = 1_000_000;
/// Memory of Argon2 in KiB; each hash that is computed takes it.
const MOST_MEMORY: u32 = 64 * 1024;

/// Users and the hashes of their passwords.
pub(crate) struct Users {
    /// Of no other file.
    id: u64,
    hashes: HashMap<Box<str>, Arc<str>>,
    /// What is tried for a user that isn't there, so that it takes as long.
    decoy: Arc<str>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({})", self.hashes.len())
    }
}

impl Users {
    /// Reads lines of `user:hash`. The error is for the author of the Secret, and tells no hash.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let mut hashes = HashMap::new();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for (n, line) in lines.enumerate() {
            let (user, hash) = line.split_once(':').ok_or_else(|| format!("entry {n} isn't user:hash"))?;
            check(hash).map_err(|why| format!("the password of {user:?} {why}"))?;
            if hashes.insert(user.into(), hash.into()).is_some() {
                return Err(format!("user {user:?} is there twice"));
            }
            if hashes.len() > MOST_USERS {
                return Err(format!("there are more than {MOST_USERS} users"));
            }
        }
        let decoy = hashes.values().next().cloned().ok_or("there are no users")?;
        Ok(Self { id: IDS.fetch_add(1, Ordering::Relaxed), hashes, decoy })
    }

    /// Whether that is the user's password.
    pub(super) async fn know(&self, user: &str, password: &str, right: &Right) -> Result<bool, Rejection> {
        let token = right.token(self.id, user, password);
        if right.has(&token) {
            return Ok(true);
        }
        static QUEUE: Semaphore = Semaphore::const_new(WAITING);
        static CORES: LazyLock<Semaphore> =
            LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));
        let Ok(_waiting) = QUEUE.try_acquire() else { return Err(Rejection::Overloaded) };
        let _running = CORES.acquire().await.map_err(|_| Rejection::Internal)?;
        let known = self.hashes.get(user).cloned();
        let (there, hash) = (known.is_some(), known.unwrap_or_else(|| self.decoy.clone()));
        let password = zeroize::Zeroizing::new(password.to_owned());
        let verified = tokio::task::spawn_blocking(move || verify(&hash, password.as_bytes())).await;
        let good = verified.map_err(|_| Rejection::Internal)? && there;
        if good {
            right.remember(token);
        }
        Ok(good)
    }
}

/// Whether a hash can be verified, at a bearable cost.
fn check(hash: &str) -> Result<(), String> {
    let parts: Vec<&str> = hash.split('$').collect();
    let bounded = |what: &str, value: Option<u32>, most: u32| match value {
        Some(value) if value <= most => Ok(()),
        Some(value) => Err(format!("has {what} of {value}; at most {most} is taken")),
        None => Err("is malformed".to_owned()),
    };
    match *parts {
        ["", "2a" | "2b" | "2x" | "2y", cost, rest] if rest.len() == 53 => {
            bounded("a bcrypt cost", cost.parse().ok(), MOST_COST)
        }
        ["", "5" | "6", _, _] => Ok(()),
        ["", "5" | "6", rounds, _, _] => bounded(
            "a number of rounds",
            rounds.strip_prefix("rounds=").and_then(|rounds| rounds.parse().ok()),
            MOST_ROUNDS,
        ),
        ["", "apr1", _, _] => Ok(()),
        ["", "argon2id" | "argon2i" | "argon2d", _, parameters, _, _] => {
            let memory = parameters.split(',').find_map(|one| one.strip_prefix("m="));
            bounded("a memory in KiB", memory.and_then(|memory| memory.parse().ok()), MOST_MEMORY)
        }
        _ => Err("isn't hashed by bcrypt ($2y$), SHA-crypt ($6$), Argon2 ($argon2id$) or apr1 ($apr1$); \
             `htpasswd -B` writes bcrypt"
            .to_owned()),
    }
}

fn verify(hash: &str, password: &[u8]) -> bool {
    match hash.split('$').nth(1) {
        Some("2a" | "2b" | "2x" | "2y") => bcrypt::verify(password, hash).unwrap_or(false),
        Some("5" | "6") => ShaCrypt::default().verify_password(password, hash).is_ok(),
        Some("argon2id" | "argon2i" | "argon2d") => {
            argon2::Argon2::default().verify_password(password, hash).is_ok()
        }
        Some("apr1") => apr1::verify(password, hash),
        Some(_) | None => false,
    }
}

type Token = [u8; 32];

/// Who was right lately, on one thread. Two generations, as [`super::token::Tokens`].
pub(crate) struct Right {
    salt: [u64; 4],
    generations: RefCell<[HashMap<Token, Instant>; 2]>,
}

impl Default for Right {
    fn default() -> Self {
        let random = |n: u64| RandomState::new().hash_one(n);
        Self { salt: std::array::from_fn(|n| random(n as u64)), generations: RefCell::default() }
    }
}

impl Right {
    fn token(&self, file: u64, user: &str, password: &str) -> Token {
        let mut context = digest::Context::new(&digest::SHA256);
        for number in self.salt.iter().chain([&file, &(user.len() as u64)]) {
            context.update(&number.to_ne_bytes());
        }
        context.update(user.as_bytes());
        context.update(password.as_bytes());
        let mut token = [0; 32];
        token.copy_from_slice(context.finish().as_ref());
        token
    }

    fn has(&self, token: &Token) -> bool {
        let generations = self.generations.borrow();
        let since = generations.iter().find_map(|generation| generation.get(token));
        since.is_some_and(|since| since.elapsed() < GOOD_FOR)
    }

    fn remember(&self, token: Token) {
        let mut generations = self.generations.borrow_mut();
        if generations[0].len() >= REMEMBERED {
            generations.swap(0, 1);
            generations[0].clear();
        }
        generations[0].insert(token, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of them hash `secret`: by Apache's htpasswd, glibc's crypt and the argon2 command.
    const FILE: &str = "
# users
bcrypt:$2y$05$.5sB.BMqIzQA/uYGx2ADi.vbnGmDvKhtHYS5PV7YZ37KUwls98n0K
sha512:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1
apr1:$apr1$lZL6Vci1$tH37qoVYn.hqbdIV0mliI/
argon2:$argon2id$v=19$m=4096,t=2,p=1$c2FsdHNhbHQ$84A2PW5mlTvAhhyioPv7Z0MY6rvobdz+ETtOz3xDUyU
";

    #[tokio::test]
    async fn passwords_are_verified_by_the_hash_that_the_file_has() {
        let users = Users::parse(FILE).unwrap();
        let right = Right::default();
        for user in ["bcrypt", "sha512", "apr1", "argon2"] {
            assert_eq!(users.know(user, "Secret", &right).await, Ok(false), "{user}");
            assert_eq!(users.know(user, "secret", &right).await, Ok(true), "{user}");
            assert!(right.has(&right.token(users.id, user, "secret")), "{user}");
            assert!(!right.has(&right.token(users.id + 1, user, "secret")), "{user}");
        }
        assert_eq!(users.know("nobody", "secret", &right).await, Ok(false));
    }

    #[test]
    fn files_that_cannot_be_verified_are_refused() {
        for (file, why) in [
            ("", "there are no users"),
            ("alice", "entry 0 isn't user:hash"),
            ("alice:secret", "the password of \"alice\" isn't hashed by"),
            ("alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "isn't hashed by"),
            ("alice:$2y$31$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a bcrypt cost of 31"),
            ("alice:$6$rounds=99999999$salt$hash", "a number of rounds of 99999999"),
            ("alice:$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$aGFzaA", "a memory in KiB of 4194304"),
            ("alice:$apr1$a$b\nalice:$apr1$a$b", "user \"alice\" is there twice"),
        ] {
            let told = Users::parse(file).unwrap_err();
            assert!(told.contains(why), "{told}");
            assert!(!told.contains("$2y$31$aaa"), "{told}");
        }
    }
}
