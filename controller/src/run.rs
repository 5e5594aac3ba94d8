//! The control plane at work: a source, the loop, and whom it tells.
//!
//! Runs on one current-thread runtime; the proxy's threads have their own.

use crate::events::Events;
use crate::infra::Infrastructure;
use crate::lease::{Candidate, elect};
use crate::metrics::Metrics;
use crate::reconcile::{CHANGES, Reconciler};
use crate::resolver;
use crate::settings::Settings;
use crate::source::files;
use crate::source::kubernetes::{Scope, watch};
use crate::writer::Writer;
use headgate_proxy::Publisher;
use kube::Client;
use std::path::PathBuf;
use tokio::sync::{mpsc, watch as signal};

/// What running in a cluster needs.
pub struct InCluster {
    /// Speaks to the API server.
    pub client: Client,
    /// Which part of the cluster is watched.
    pub scope: Scope,
    /// Who takes part in the election.
    pub candidate: Candidate,
    /// How Gateways are put in place.
    pub infrastructure: Infrastructure,
}

/// Watches a cluster, publishes and writes until `stop` says so.
pub async fn in_cluster(
    options: InCluster,
    settings: Settings,
    publisher: Publisher,
    metrics: Metrics,
    stop: signal::Receiver<bool>,
) {
    let InCluster { client, scope, candidate, infrastructure } = options;
    let (sender, changes) = mpsc::channel(CHANGES);
    let (leads, leading) = signal::channel(false);
    let events = Events::new(client.clone(), &settings.controller_name, &candidate.identity);
    let telling = publisher.notices().map(|notices| tokio::spawn(events.run(notices)));
    let election = tokio::spawn(elect(client.clone(), candidate, leads, stop.clone()));
    let mut watches = watch(&client, &scope, &sender);
    let writer = Writer::new(client);
    let reconciler = Reconciler::for_cluster(settings, publisher, metrics, writer, infrastructure, leading);
    watches.spawn(resolver::follow(reconciler.hosts(), sender));
    reconciler.run(changes, stop).await;
    drop(watches);
    if let Some(telling) = telling {
        telling.abort();
    }
    // Gives the lease up, so that the next leader needn't wait for it to run out. Its end is bounded.
    let _ = election.await;
}

/// Serves what files hold, and follows their changes, until `stop` says so.
///
/// # Errors
/// When the system can't watch them.
pub async fn from_files(
    paths: Vec<PathBuf>,
    settings: Settings,
    publisher: Publisher,
    metrics: Metrics,
    stop: signal::Receiver<bool>,
) -> Result<(), files::WatchError> {
    let (sender, changes) = mpsc::channel(CHANGES);
    let controller_name = settings.controller_name.to_string();
    let reconciler = Reconciler::for_files(settings, publisher, metrics);
    let resolving = resolver::follow(reconciler.hosts(), sender.clone());
    tokio::select! {
        () = reconciler.run(changes, stop) => Ok(()),
        // Only after that.
        () = resolving => Ok(()),
        ended = files::watch(paths, controller_name, sender) => ended,
    }
}
