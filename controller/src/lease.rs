//! Who leads: the holder of a Lease writes statuses and Services; every replica serves.
//!
//! As client-go does it: a lease is somebody's as long as it changes, by our own clock; one that doesn't change for its
//! duration is taken. A leader that can't renew stops leading before anybody else may begin.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a lease is good without renewal.
const DURATION: Duration = Duration::from_secs(15);
/// How long the holder may fail to renew before it stops leading.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between tries.
const RETRY: Duration = Duration::from_secs(2);
/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(5);

/// A candidate.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Namespace of the lease.
    pub namespace: String,
    /// Its name.
    pub lease: String,
    /// Who we are: the pod's name.
    pub identity: String,
}

/// A version of the lease, and when we first saw it.
#[derive(Debug)]
struct Observed {
    version: Option<String>,
    since: Instant,
}

/// Takes part in the election until `stop` says so, then gives the lease up. `leads` says whether we lead.
pub async fn elect(
    client: Client,
    candidate: Candidate,
    leads: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let api: Api<Lease> = Api::namespaced(client, &candidate.namespace);
    let mut observed: Option<Observed> = None;
    let mut renewed = Instant::now();
    loop {
        match tokio::time::timeout(REQUEST, attempt(&api, &candidate, &mut observed)).await {
            Ok(Ok(true)) => {
                renewed = Instant::now();
                lead(&leads, true, &candidate);
            }
            Ok(Ok(false)) => lead(&leads, false, &candidate),
            failed => {
                if let Ok(Err(error)) = failed {
                    tracing::debug!(%error, "can't renew the lease");
                }
                if renewed.elapsed() >= RENEW_DEADLINE {
                    lead(&leads, false, &candidate);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    if *leads.borrow() {
        lead(&leads, false, &candidate);
        let released = tokio::time::timeout(REQUEST, release(&api, &candidate)).await;
        if !matches!(released, Ok(Ok(()))) {
            tracing::debug!("the lease could not be given up; it will run out");
        }
    }
}

fn lead(leads: &watch::Sender<bool>, now: bool, candidate: &Candidate) {
    leads.send_if_modified(|before| {
        if *before != now {
            tracing::info!(
                lease = candidate.lease,
                identity = candidate.identity,
                leads = now,
                "leadership changed"
            );
        }
        std::mem::replace(before, now) != now
    });
}

/// Renews or takes the lease where it may be; whether it is ours then.
async fn attempt(
    api: &Api<Lease>,
    candidate: &Candidate,
    observed: &mut Option<Observed>,
) -> kube::Result<bool> {
    let Some(lease) = api.get_opt(&candidate.lease).await? else {
        let metadata = ObjectMeta { name: Some(candidate.lease.clone()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec(candidate, None)) };
        return overtaken(api.create(&PostParams::default(), &lease).await);
    };
    let version = lease.metadata.resource_version.clone();
    if observed.as_ref().is_none_or(|observed| observed.version != version) {
        *observed = Some(Observed { version, since: Instant::now() });
    }
    let held = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let seconds =
        lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
    let duration = seconds.map_or(DURATION, Duration::from_secs);
    let expired = observed.as_ref().is_some_and(|observed| observed.since.elapsed() > duration);
    if !held.is_empty() && held != candidate.identity && !expired {
        return Ok(false);
    }
    let spec = spec(candidate, lease.spec.as_ref());
    let renewed = Lease { spec: Some(spec), ..lease };
    overtaken(api.replace(&candidate.lease, &PostParams::default(), &renewed).await)
}

/// Somebody else was faster: no error, and not ours.
fn overtaken(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn release(api: &Api<Lease>, candidate: &Candidate) -> kube::Result<()> {
    let mut lease = api.get(&candidate.lease).await?;
    if let Some(spec) = &mut lease.spec
        && spec.holder_identity.as_deref() == Some(&candidate.identity)
    {
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        api.replace(&candidate.lease, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

fn spec(candidate: &Candidate, before: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let ours = before.filter(|before| before.holder_identity.as_deref() == Some(&candidate.identity));
    let changes = before.and_then(|before| before.lease_transitions).unwrap_or_default();
    LeaseSpec {
        holder_identity: Some(candidate.identity.clone()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        renew_time: Some(now.clone()),
        acquire_time: ours.map_or(Some(now), |before| before.acquire_time.clone()),
        lease_transitions: Some(if ours.is_some() || before.is_none() {
            changes
        } else {
            changes.saturating_add(1)
        }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests;
