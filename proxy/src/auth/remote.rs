//! Keys that are fetched from their issuer: in the background, on a thread of their own, so that no configuration and no
//! request of a known key ever waits.
//!
//! The last good keys stay in use while the issuer is away. A token with an unknown key may ask for newer keys, at most
//! once in [`FLOOR`], and waits for them.

use super::fetch::{Trust, fetch};
use super::keys::{KeySet, Secrecy};
use super::token::Refused;
use crate::model::RemoteKeys;
use crate::snapshot::Swap;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

/// Time between fetches that tokens with unknown keys ask for.
const FLOOR: Duration = Duration::from_secs(10);
/// How long a request waits for keys at most: as long as a fetch may take.
const WAIT: Duration = Duration::from_secs(5);
/// Pauses after a failure: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Sources that wait for the thread to notice them.
const QUEUE: usize = 4_096;

/// The keys of one source.
pub(crate) struct Remote {
    source: RemoteKeys,
    keys: Swap<Option<Arc<KeySet>>>,
    /// What the issuer says of itself, where that is asked for.
    provider: Swap<Option<Arc<Provider>>>,
    /// Somebody wants newer ones.
    wanted: Notify,
    /// How many fetches have ended.
    ended: watch::Sender<u64>,
    /// When the last one did, in milliseconds since `began`.
    last: AtomicU64,
    began: Instant,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Remote").field(&self.source).finish()
    }
}

impl Remote {
    fn new(source: &RemoteKeys) -> Self {
        Self {
            source: source.clone(),
            keys: Swap::new(Arc::new(None)),
            provider: Swap::new(Arc::new(None)),
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
            last: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// The keys in force, if there are any yet.
    pub(super) fn known(&self) -> Option<Arc<KeySet>> {
        (**self.keys.borrow()).clone()
    }

    /// The keys in force; waits for the first ones.
    pub(super) async fn keys(&self) -> Option<Arc<KeySet>> {
        if let Some(keys) = self.known() {
            return Some(keys);
        }
        // The fetch that is under way, if it is the first.
        let mut ended = self.ended.subscribe();
        if *ended.borrow_and_update() == 0 {
            let _ = tokio::time::timeout(WAIT, ended.changed()).await;
        }
        (*self.keys.load()).clone()
    }

    /// What the issuer says of itself; waits for it like [`Remote::keys`].
    pub(super) async fn provider(&self) -> Option<Arc<Provider>> {
        self.keys().await?;
        (*self.provider.load()).clone()
    }

    /// Verifies something by the keys in force, or by newer ones where those don't know its key. None: there are no keys.
    pub(super) async fn verify<T>(
        &self,
        mut verify: impl FnMut(&KeySet) -> Result<T, Refused>,
    ) -> Option<Result<T, Refused>> {
        let keys = self.keys().await?;
        Some(match verify(&keys) {
            Err(Refused::UnknownKey) => match self.newer(&keys).await {
                None => Err(Refused::UnknownKey),
                Some(newer) => verify(&newer),
            },
            verified => verified,
        })
    }

    /// Newer keys than `known`, if there are any and it isn't too soon to ask.
    pub(super) async fn newer(&self, known: &KeySet) -> Option<Arc<KeySet>> {
        let mut ended = self.ended.subscribe();
        ended.borrow_and_update();
        let newer = || (*self.keys.load()).clone().filter(|keys| keys.id != known.id);
        if let Some(newer) = newer() {
            return Some(newer);
        }
        let since = self.now().saturating_sub(self.last.load(Ordering::Relaxed));
        if Duration::from_millis(since) < FLOOR {
            return None;
        }
        self.wanted.notify_one();
        let _ = tokio::time::timeout(WAIT, ended.changed()).await;
        newer()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Puts other keys in force. The same keys keep their id, and with it what was verified by them.
    fn put(&self, text: &str, before: &mut String) -> Result<(), String> {
        if *before == text {
            return Ok(());
        }
        let keys = KeySet::parse(text, Secrecy::Public)?;
        self.keys.store(Arc::new(Some(Arc::new(keys))));
        text.clone_into(before);
        Ok(())
    }
}

/// All sources that are in use.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    sources: HashMap<RemoteKeys, Weak<Remote>>,
    /// The thread that fetches; it ends with this.
    thread: Option<mpsc::Sender<Weak<Remote>>>,
}

impl Remotes {
    /// The keys of a source: the same as long as anybody uses them.
    pub(super) fn get(&mut self, source: &RemoteKeys) -> Result<Arc<Remote>, String> {
        if let Some(known) = self.sources.get(source).and_then(Weak::upgrade) {
            return Ok(known);
        }
        self.sources.retain(|_, remote| remote.strong_count() > 0);
        let remote = Arc::new(Remote::new(source));
        let thread = match &self.thread {
            Some(thread) => thread,
            None => {
                self.thread.insert(start().map_err(|error| format!("no thread to fetch keys by: {error}"))?)
            }
        };
        thread
            .try_send(Arc::downgrade(&remote))
            .map_err(|_| "too many sources of keys at once".to_owned())?;
        self.sources.insert(source.clone(), Arc::downgrade(&remote));
        Ok(remote)
    }
}

fn start() -> std::io::Result<mpsc::Sender<Weak<Remote>>> {
    let (sender, mut sources) = mpsc::channel::<Weak<Remote>>(QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("fetch".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let mut tasks = JoinSet::new();
            loop {
                tokio::select! {
                    source = sources.recv() => match source {
                        Some(source) => drop(tasks.spawn(follow(source))),
                        // Nobody is left to ask for keys.
                        None => return,
                    },
                    Some(_) = tasks.join_next() => {}
                }
            }
        });
    })?;
    Ok(sender)
}

/// Keeps the keys of a source fresh as long as somebody uses them.
async fn follow(source: Weak<Remote>) {
    let (mut before, mut pause) = (String::new(), FIRST_PAUSE);
    while let Some(remote) = source.upgrade() {
        let fetched = match key_set(&remote.source).await {
            Ok((text, provider)) => {
                if let Some(provider) = provider {
                    remote.provider.store(Arc::new(Some(Arc::new(provider))));
                }
                remote.put(&text, &mut before)
            }
            Err(why) => Err(why),
        };
        let wait = match fetched {
            Ok(()) => {
                pause = FIRST_PAUSE;
                remote.source.cache
            }
            Err(error) => {
                tracing::warn!(uri = %remote.source.uri, %error, "keys of tokens can't be fetched; the last ones stay in use");
                let wait = pause;
                pause = (2 * pause).min(LONGEST_PAUSE);
                wait
            }
        };
        remote.last.store(remote.now(), Ordering::Relaxed);
        remote.ended.send_modify(|count| *count += 1);
        let _ = tokio::time::timeout(wait, remote.wanted.notified()).await;
    }
}

/// What an issuer says of itself (OpenID Connect Discovery 1.0 §3, RP-Initiated Logout 1.0 §2.1).
#[derive(Debug, Deserialize)]
pub(super) struct Provider {
    pub(super) issuer: String,
    jwks_uri: String,
    pub(super) authorization_endpoint: Option<String>,
    pub(super) token_endpoint: Option<String>,
    pub(super) end_session_endpoint: Option<String>,
    /// Absent: `client_secret_basic`.
    pub(super) token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// The text of a key set, and the metadata that name it.
async fn key_set(source: &RemoteKeys) -> Result<(String, Option<Provider>), String> {
    let trust = Trust::of(source);
    if !source.discovery {
        return Ok((fetch(&source.uri, trust).await?, None));
    }
    // OpenID Connect Discovery 1.0 §4: the final slash of an issuer is left out.
    let issuer = source.uri.trim_end_matches('/');
    let text = fetch(&format!("{issuer}/.well-known/openid-configuration"), trust).await?;
    let provider: Provider = serde_json::from_str(&text)
        .map_err(|error| format!("the issuer's metadata have no issuer or no jwks_uri: {error}"))?;
    // §4.3: else somebody speaks for another issuer.
    if provider.issuer.trim_end_matches('/') != issuer {
        return Err(format!("the metadata are of the issuer {:?}", provider.issuer));
    }
    Ok((fetch(&provider.jwks_uri, trust).await?, Some(provider)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Authorities;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// An issuer with another key at each fetch.
    async fn issuer(listener: TcpListener) {
        for n in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            assert!(socket.read(&mut head).await.unwrap() > 0);
            // RFC 8037 §A.2, by another name each time.
            let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
            let set = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{n}","x":"{x}"}}]}}"#);
            let length = set.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{set}");
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    /// Nobody can make us ask the issuer more than once in ten seconds.
    #[tokio::test]
    async fn unknown_keys_are_asked_for_not_too_often() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/keys", listener.local_addr().unwrap()).as_str().into();
        let serving = tokio::spawn(issuer(listener));
        let (cache, authorities) = (Duration::from_secs(300), Authorities::System);
        let source = RemoteKeys { uri, discovery: false, cache, local: true, authorities };
        let long_ago = Instant::now().checked_sub(2 * FLOOR).unwrap();
        let remote = Arc::new(Remote { began: long_ago, ..Remote::new(&source) });
        let following = tokio::spawn(follow(Arc::downgrade(&remote)));
        let first = remote.keys().await.unwrap();
        assert!(remote.newer(&first).await.is_none());
        // Ten seconds later.
        remote.last.store(0, Ordering::Relaxed);
        let second = remote.newer(&first).await.unwrap();
        assert_ne!(first.id, second.id);
        assert!(remote.newer(&second).await.is_none());
        // Whoever is behind gets what is there.
        assert_eq!(remote.newer(&first).await.unwrap().id, second.id);
        serving.abort();
        following.abort();
    }
}
