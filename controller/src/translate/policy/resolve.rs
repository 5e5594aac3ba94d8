//! What policies name besides their targets: Secrets and ConfigMaps of their own namespace. What was looked at is noted down:
//! as long as all of it is the same, so is what the policy says.

use crate::cluster::{API_KEYS, Cluster, OIDC, REDIS};
use crate::settings::Mode;
use headgate_crds::policy::rate_limit::LocalRef;
use headgate_proxy::model::{
    Authenticator, Authorities, ObjectName, RateLimitStore, Redacted, StoreCredentials, Text,
};
use headgate_proxy::tls;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What references came to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Resolved {
    /// Authenticators that could be made, by their names.
    pub(super) authenticators: BTreeMap<Text, Arc<Authenticator>>,
    /// Where limits are counted, unless each replica does by itself.
    pub(super) store: Option<Arc<RateLimitStore>>,
    /// References that can't be followed: the field, and why.
    pub(super) unresolved: Vec<String>,
}

/// Something that was looked at.
#[derive(Clone, Debug)]
enum Seen {
    Secret(ObjectName, Option<Arc<Secret>>),
    ConfigMap(ObjectName, Option<Arc<ConfigMap>>),
    Keys(ObjectName, BTreeMap<String, String>, Vec<Arc<Secret>>),
}

/// Looks up what a policy names.
pub(super) struct Resolver<'a> {
    cluster: &'a Cluster,
    /// Whether addresses that only this machine can reach may be asked.
    pub(super) local: bool,
    pub(super) resolved: Resolved,
    seen: Inputs,
}

/// All that was looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Inputs(Vec<Seen>);

impl Inputs {
    /// Whether all of it is still the same.
    pub(super) fn are_current(&self, cluster: &Cluster) -> bool {
        fn same<T>(before: &Option<Arc<T>>, now: Option<&Arc<T>>) -> bool {
            before.as_ref().map(Arc::as_ptr) == now.map(Arc::as_ptr)
        }
        self.0.iter().all(|seen| match seen {
            Seen::Secret(name, before) => same(before, cluster.secrets.get(name)),
            Seen::ConfigMap(name, before) => same(before, cluster.config_maps.get(name)),
            Seen::Keys(policy, labels, before) => {
                let now = key_secrets(cluster, &policy.namespace, labels);
                now.iter().map(Arc::as_ptr).eq(before.iter().map(Arc::as_ptr))
            }
        })
    }
}

/// Secrets of API keys with these labels.
fn key_secrets(cluster: &Cluster, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<Arc<Secret>> {
    let has = |secret: &Secret| {
        let own = secret.metadata.labels.as_ref();
        secret.type_.as_deref() == Some(API_KEYS)
            && labels.iter().all(|(name, value)| own.and_then(|own| own.get(name)) == Some(value))
    };
    let all = cluster.secrets.iter().filter(|(name, secret)| *name.namespace == *namespace && has(secret));
    all.map(|(_, secret)| secret.clone()).collect()
}

impl<'a> Resolver<'a> {
    pub(super) fn new(cluster: &'a Cluster, mode: Mode) -> Self {
        let local = match mode {
            Mode::Cluster { .. } => false,
            Mode::Files => true,
        };
        Self { cluster, local, resolved: Resolved::default(), seen: Inputs::default() }
    }

    /// What it found, and what that depends on.
    pub(super) fn finish(self) -> (Resolved, Inputs) {
        (self.resolved, self.seen)
    }

    /// A text of a ConfigMap.
    pub(super) fn config_map(&mut self, name: &ObjectName, entry: &str) -> Result<Text, String> {
        let found = self.cluster.config_maps.get(name);
        self.seen.0.push(Seen::ConfigMap(name.clone(), found.cloned()));
        let found = found.ok_or_else(|| format!("ConfigMap {name} doesn't exist"))?;
        let text = found.data.as_ref().and_then(|data| data.get(entry));
        text.map(|text| text.as_str().into()).ok_or_else(|| format!("ConfigMap {name} has no entry {entry}"))
    }

    /// The authorities that a policy names, of a ConfigMap's `ca.crt`, or the system's. The error is for the policy's author.
    pub(super) fn authorities(
        &mut self,
        policy: &ObjectName,
        map: Option<&LocalRef>,
    ) -> Result<Authorities, String> {
        let Some(map) = map else { return Ok(Authorities::System) };
        let bundle = self.config_map(&ObjectName::new(&*policy.namespace, &*map.name), "ca.crt")?;
        tls::check_authorities(&bundle).map_err(|error| error.to_string())?;
        Ok(Authorities::Bundles(vec![bundle]))
    }

    /// A text of a Secret: the first of these entries that is there.
    pub(super) fn secret(&mut self, name: &ObjectName, entries: &[&str]) -> Result<Redacted<String>, String> {
        let found = self.find(name)?;
        let data = found.data.as_ref();
        let text = entries.iter().find_map(|entry| data?.get(*entry));
        let text = text.ok_or_else(|| format!("Secret {name} has no entry {}", entries.join(" or ")))?;
        text_of(text).map_err(|()| format!("Secret {name}: its entry isn't text"))
    }

    /// Who we are to a Redis: the Secret has to be made for that, or whoever may write policies could send the password of
    /// any other one where he likes.
    pub(super) fn redis(&mut self, name: &ObjectName) -> Result<StoreCredentials, String> {
        let found = self.find_of(name, REDIS, "sent to stores")?;
        let username = entry(name, &found, "username")?.map(|name| name.reveal().as_str().into());
        Ok(StoreCredentials { username, password: required(name, &found, "password")? })
    }

    /// Who we are to an OpenID provider: our secret, and what cookies are sealed by.
    pub(super) fn oidc(
        &mut self,
        name: &ObjectName,
    ) -> Result<(Redacted<String>, Vec<Redacted<String>>), String> {
        let found = self.find_of(name, OIDC, "sent to providers")?;
        let secret = required(name, &found, "client-secret")?;
        let seals = entry(name, &found, "cookie-secret")?.unwrap_or_else(|| secret.clone());
        let before = entry(name, &found, "previous-cookie-secret")?;
        Ok((secret, std::iter::once(seals).chain(before).collect()))
    }

    /// The keys of consumers in a Secret.
    pub(super) fn api_keys(&mut self, name: &ObjectName) -> Result<Vec<(Text, Redacted<String>)>, String> {
        let found = self.find_of(name, API_KEYS, "read as keys")?;
        keys_of(&found).map_err(|why| format!("Secret {name}: {why}"))
    }

    /// The keys of consumers in all Secrets with these labels.
    pub(super) fn selected_keys(
        &mut self,
        policy: &ObjectName,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<(Text, Redacted<String>)>, String> {
        let found = key_secrets(self.cluster, &policy.namespace, labels);
        self.seen.0.push(Seen::Keys(policy.clone(), labels.clone(), found.clone()));
        if found.is_empty() {
            return Err(format!("no Secret of type {API_KEYS} has these labels"));
        }
        let keys = found.iter().map(|secret| {
            let name = secret.metadata.name.as_deref().unwrap_or_default();
            keys_of(secret).map_err(|why| format!("Secret {}/{name}: {why}", policy.namespace))
        });
        let mut keys: Vec<_> = keys.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        keys.sort_by(|(a, _), (b, _)| a.cmp(b));
        match keys.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(format!("two Secrets have the consumer {:?}", pair[0].0)),
            None => Ok(keys),
        }
    }

    /// A Secret that was made for its purpose.
    fn find_of(&mut self, name: &ObjectName, kind: &str, purpose: &str) -> Result<Arc<Secret>, String> {
        let found = self.find(name)?;
        if found.type_.as_deref() == Some(kind) {
            return Ok(found);
        }
        Err(format!(
            "Secret {name} isn't of type {kind}; only those are {purpose}: create it with \
             `kubectl create secret generic --type={kind}`"
        ))
    }

    fn find(&mut self, name: &ObjectName) -> Result<Arc<Secret>, String> {
        let found = self.cluster.secrets.get(name).cloned();
        self.seen.0.push(Seen::Secret(name.clone(), found.clone()));
        found.ok_or_else(|| {
            format!("Secret {name} doesn't exist, or isn't in a namespace whose Secrets are watched")
        })
    }
}

/// A text of a Secret, if it has that entry.
fn entry(name: &ObjectName, secret: &Secret, entry: &str) -> Result<Option<Redacted<String>>, String> {
    let text = secret.data.as_ref().and_then(|data| data.get(entry)).map(text_of);
    text.transpose().map_err(|()| format!("Secret {name}: its entry {entry} isn't text"))
}

fn required(name: &ObjectName, secret: &Secret, field: &str) -> Result<Redacted<String>, String> {
    entry(name, secret, field)?.ok_or_else(|| format!("Secret {name} has no entry {field}"))
}

fn keys_of(secret: &Secret) -> Result<Vec<(Text, Redacted<String>)>, String> {
    let entries = secret.data.iter().flatten();
    let key = |(consumer, value): (&String, &ByteString)| {
        let key = text_of(value).map_err(|()| format!("the entry {consumer:?} isn't text"))?;
        Ok((consumer.as_str().into(), key))
    };
    let keys: Vec<_> = entries.map(key).collect::<Result<_, String>>()?;
    if keys.is_empty() { Err("it has no entries".to_owned()) } else { Ok(keys) }
}

fn text_of(bytes: &ByteString) -> Result<Redacted<String>, ()> {
    String::from_utf8(bytes.0.clone()).map(Redacted::new).map_err(drop)
}
