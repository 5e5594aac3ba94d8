//! The counters as OpenMetrics families, summed over the threads. `docs/metrics.md` tells users what each means.
//!
//! A scrape sees cells that others are writing: figures of one family may be some requests apart, never wrong.

use super::{
    AuthOutcome, BackendMetrics, CLASSES, Cell, DURATION_BOUNDS_MS, Durations, Ids, LimitOutcome, Metrics,
    RuleKey, RuleMetrics, ThreadCells,
};
use crate::model::BackendId;
use crate::rejection::{Rejection, Source};
use crate::upstream::health::Reading;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

const CLASS_LABELS: [&str; CLASSES] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Name, help, and the figure of a backend's health.
type Gauge = (&'static str, &'static str, fn(&Reading) -> u64);

const PROTOCOL_LABELS: [&str; 4] = ["http", "tls", "tcp", "udp"];

impl Metrics {
    /// Adds the counters of the data plane to what a scrape encodes.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    fn rules(&self) -> Vec<(RuleKey, Arc<RuleMetrics>)> {
        alive(&mut self.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn backends(&self) -> Vec<(BackendId, Arc<BackendMetrics>)> {
        alive(&mut self.backends.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn total(&self, count: impl Fn(&ThreadCells) -> u64) -> u64 {
        self.threads.iter().map(count).sum()
    }
}

/// Takes the list, so that the lock isn't held while the text is written.
fn alive<K: Ord + Clone, M>(ids: &mut Ids<K, M>) -> Vec<(K, Arc<M>)> {
    ids.sweep();
    ids.entries.iter().map(|(key, metrics)| (key.clone(), metrics.clone())).collect()
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_rules(&mut encoder)?;
        self.encode_backends(&mut encoder)?;
        self.encode_limits(&mut encoder)?;
        self.encode_auths(&mut encoder)?;
        self.encode_process(&mut encoder)
    }
}

impl Metrics {
    fn encode_rules(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rules = self.rules();
        let used = || rules.iter().filter(|(_, metrics)| metrics.0.is_used());
        let mut family =
            counters(encoder, "headgate_requests", "Requests that a rule took, by status class")?;
        for (key, metrics) in used() {
            let rule = rule_label(key);
            for (class, label) in CLASS_LABELS.iter().enumerate() {
                let count = metrics.0.sum(|cells| cells.responses[class].get());
                let labels = labels_of_rule(key, &rule).chain("code", label);
                count_of(&mut family, &labels, count)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "headgate_request_duration",
            "Time from a request's head read to its response sent",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (key, metrics) in used() {
            let rule = rule_label(key);
            let labels = labels_of_rule(key, &rule);
            let mut series = family.encode_family(&labels)?;
            encode_durations(&mut series, |cell| metrics.0.sum(|cells| cell(&cells.durations).get()))?;
        }
        Ok(())
    }

    fn encode_backends(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let backends: Vec<_> = self
            .backends()
            .into_iter()
            .filter(|(_, metrics)| metrics.cells.is_used())
            .map(|(id, metrics)| (id.port.to_string(), id, metrics))
            .collect();
        let mut family =
            counters(encoder, "headgate_backend_responses", "Responses of a backend, by status class")?;
        for (port, id, metrics) in &backends {
            for (class, label) in CLASS_LABELS.iter().enumerate() {
                let count = metrics.cells.sum(|cells| cells.responses[class].get());
                count_of(&mut family, &labels_of_backend(id, port).chain("code", label), count)?;
            }
        }
        let mut family =
            counters(encoder, "headgate_backend_failures", "Tries on a backend that got no response")?;
        for (port, id, metrics) in &backends {
            for rejection in Rejection::ALL.into_iter().filter(|r| r.source() == Source::Upstream) {
                let count = metrics.cells.sum(|cells| cells.failures.of(rejection).get());
                if count > 0 {
                    let labels = labels_of_backend(id, port).chain("reason", rejection.reason());
                    count_of(&mut family, &labels, count)?;
                }
            }
        }
        let mut family =
            counters(encoder, "headgate_backend_connections", "Connections opened to a backend")?;
        for (port, id, metrics) in &backends {
            let count = metrics.cells.sum(|cells| cells.connections.get());
            count_of(&mut family, &labels_of_backend(id, port), count)?;
        }
        let mut family = counters(encoder, "headgate_backend_retries", "Requests tried again on a backend")?;
        for (port, id, metrics) in &backends {
            let count = metrics.cells.sum(|cells| cells.retries.get());
            count_of(&mut family, &labels_of_backend(id, port), count)?;
        }
        self.encode_health(encoder)
    }

    /// Of backends with policies.
    fn encode_health(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let read = |metrics: &BackendMetrics| Some((**metrics.health.borrow()).as_ref()?.upgrade()?.read());
        let backends: Vec<_> = self
            .backends()
            .into_iter()
            .filter_map(|(id, metrics)| Some((id.port.to_string(), read(&metrics)?, id)))
            .collect();
        let families: [Gauge; 2] = [
            (
                "headgate_backend_breaker_state",
                "The worst of a backend's circuit breakers: 0 closed, 1 half open, 2 open",
                |reading| reading.breaker,
            ),
            ("headgate_backend_ejected_endpoints", "Endpoints that get no requests for a while", |reading| {
                reading.ejected
            }),
        ];
        for (name, help, of) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (port, reading, id) in &backends {
                family.encode_family(&labels_of_backend(id, port))?.encode_gauge(&of(reading))?;
            }
        }
        let families: [Gauge; 2] = [
            (
                "headgate_backend_breaker_openings",
                "Times that a circuit breaker of a backend opened",
                |reading| reading.openings,
            ),
            ("headgate_backend_ejections", "Times that an endpoint of a backend was ejected", |reading| {
                reading.ejections
            }),
        ];
        for (name, help, of) in families {
            let mut family = counters(encoder, name, help)?;
            for (port, reading, id) in &backends {
                count_of(&mut family, &labels_of_backend(id, port), of(reading))?;
            }
        }
        Ok(())
    }

    fn encode_limits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let limits = alive(&mut self.limits.lock().unwrap_or_else(PoisonError::into_inner));
        let mut family =
            counters(encoder, "headgate_rate_limit_requests", "Requests that a rate limit judged")?;
        for (key, metrics) in limits.iter().filter(|(_, metrics)| metrics.0.is_used()) {
            for (outcome, label) in LimitOutcome::LABELS.iter().enumerate() {
                let count = metrics.0.sum(|cells| cells.outcomes[outcome].get());
                let labels = Labels([
                    ("namespace", &*key.policy.namespace),
                    ("policy", &key.policy.name),
                    ("limit", &key.limit),
                    ("outcome", label),
                ]);
                count_of(&mut family, &labels, count)?;
            }
        }
        let help = "Keys of rate limits that were given up for want of room while they still counted";
        counters(encoder, "headgate_rate_limit_evictions", help)?
            .encode_counter::<NoLabelSet, u64, f64>(&self.rate_limit_counters.evicted(), None)?;
        let help = "Requests that were judged without the store of their rate limits, which didn't answer";
        counters(encoder, "headgate_rate_limit_store_failures", help)?
            .encode_counter::<NoLabelSet, u64, f64>(&self.rate_limit_counters.without_store(), None)?;
        let help = "Time that requests waited for the store of their rate limits";
        let mut family = encoder.encode_descriptor(
            "headgate_rate_limit_store_duration",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        encode_durations(&mut family, |cell| self.total(|cells| cell(&cells.store_waits).get()))?;
        let help = "Keys that rate limits count by";
        let keys = u64::try_from(self.rate_limit_counters.len()).unwrap_or(u64::MAX);
        encoder
            .encode_descriptor("headgate_rate_limit_keys", help, None, MetricType::Gauge)?
            .encode_gauge(&keys)
    }

    fn encode_auths(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let auths = alive(&mut self.auths.lock().unwrap_or_else(PoisonError::into_inner));
        let mut family = counters(encoder, "headgate_auth_requests", "Requests that an AuthPolicy judged")?;
        for (policy, metrics) in auths.iter().filter(|(_, metrics)| metrics.0.is_used()) {
            for (outcome, label) in AuthOutcome::LABELS.iter().enumerate() {
                let count = metrics.0.sum(|cells| cells.outcomes[outcome].get());
                let labels =
                    Labels([("namespace", &*policy.namespace), ("policy", &policy.name), ("outcome", label)]);
                count_of(&mut family, &labels, count)?;
            }
        }
        Ok(())
    }

    fn encode_process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family =
            counters(encoder, "headgate_rejections", "Requests answered by the gateway itself, by reason")?;
        for rejection in Rejection::ALL {
            let count = self.total(|cells| cells.rejections.of(rejection).get());
            let source = match rejection.source() {
                Source::Client => "client",
                Source::Gateway => "gateway",
                Source::Upstream => "upstream",
            };
            let labels = Labels([("reason", rejection.reason()), ("source", source)]);
            count_of(&mut family, &labels, count)?;
        }
        let help = "Requests that a ClientPolicy in Shadow would have refused, by reason";
        let mut family = counters(encoder, "headgate_shadow_rejections", help)?;
        for rejection in Rejection::ALL {
            let count = self.total(|cells| cells.shadow_rejections.of(rejection).get());
            if count > 0 {
                count_of(&mut family, &Labels([("reason", rejection.reason())]), count)?;
            }
        }
        let mut family =
            counters(encoder, "headgate_connections_opened", "Connections accepted from clients")?;
        for (side, label) in PROTOCOL_LABELS.iter().enumerate() {
            let count = self.total(|cells| cells.opened[side].get());
            count_of(&mut family, &Labels([("protocol", label)]), count)?;
        }
        let help = "Connections of clients that are open";
        let mut family = encoder.encode_descriptor("headgate_connections", help, None, MetricType::Gauge)?;
        for (side, label) in PROTOCOL_LABELS.iter().enumerate() {
            // Closed first: a connection that comes and goes meanwhile must not make the difference negative.
            let closed = self.total(|cells| cells.closed[side].get());
            let open = self.total(|cells| cells.opened[side].get()).saturating_sub(closed);
            family.encode_family(&Labels([("protocol", *label)]))?.encode_gauge(&open)?;
        }
        let single = |cell: fn(&ThreadCells) -> &Cell| self.total(|cells| cell(cells).get());
        for (name, help, count) in [
            (
                "headgate_connections_refused",
                "Connections closed before a request, as a ClientPolicy has it",
                single(|cells| &cells.connections_refused),
            ),
            (
                "headgate_shadow_connections_refused",
                "Connections that a ClientPolicy in Shadow would have closed",
                single(|cells| &cells.shadow_connections_refused),
            ),
            (
                "headgate_tls_handshake_failures",
                "TLS handshakes of clients that failed",
                single(|cells| &cells.handshake_failures),
            ),
            ("headgate_received_bytes", "Bytes of bodies from clients", single(|cells| &cells.received)),
            ("headgate_sent_bytes", "Bytes of bodies to clients", single(|cells| &cells.sent)),
            (
                "headgate_access_log_dropped_lines",
                "Access log lines dropped because the reader of stdout was too slow",
                self.dropped_lines.load(Ordering::Relaxed),
            ),
        ] {
            counters(encoder, name, help)?.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
        }
        let help = "Grows with every published change of the model";
        encoder
            .encode_descriptor("headgate_model_generation", help, None, MetricType::Gauge)?
            .encode_gauge(&self.generation.load(Ordering::Relaxed))?;
        let version = Labels([("version", env!("CARGO_PKG_VERSION"))]);
        encoder
            .encode_descriptor("headgate_build", "The running version", None, MetricType::Info)?
            .encode_info(&version)
    }
}

fn counters<'s>(
    encoder: &'s mut DescriptorEncoder<'_>,
    name: &'s str,
    help: &str,
) -> Result<MetricEncoder<'s>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

/// Durations, summed over the threads by `sum`.
fn encode_durations(
    encoder: &mut MetricEncoder<'_>,
    sum: impl Fn(&dyn Fn(&Durations) -> &Cell) -> u64,
) -> fmt::Result {
    let mut buckets = [(f64::INFINITY, 0); DURATION_BOUNDS_MS.len() + 1];
    for (index, bucket) in buckets.iter_mut().enumerate() {
        if let Some(bound) = DURATION_BOUNDS_MS.get(index) {
            bucket.0 = bound / 1e3;
        }
        bucket.1 = sum(&|durations| &durations.counts[index]);
    }
    let count = buckets.iter().map(|(_, count)| count).sum();
    #[expect(clippy::cast_precision_loss, reason = "a sum of durations is a float in the format")]
    let seconds = sum(&|durations| &durations.nanoseconds) as f64 / 1e9;
    encoder.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
}

fn count_of(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, count: u64) -> fmt::Result {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, u64, f64>(&count, None)
}

/// Labels of one series, in the order they are written.
#[derive(Debug)]
struct Labels<'a, const N: usize>([(&'static str, &'a str); N]);

impl<'a, const N: usize> Labels<'a, N> {
    fn chain(self, name: &'static str, value: &'a str) -> (Self, Labels<'a, 1>) {
        (self, Labels([(name, value)]))
    }
}

impl<const N: usize> EncodeLabelSet for Labels<'_, N> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> fmt::Result {
        EncodeLabelSet::encode(&self.0.as_slice(), encoder)
    }
}

/// A rule's name, else its position.
fn rule_label(key: &RuleKey) -> String {
    match &key.name {
        Some(name) => name.to_string(),
        None => key.index.to_string(),
    }
}

fn labels_of_rule<'a>(key: &'a RuleKey, rule: &'a str) -> Labels<'a, 4> {
    let kind = key.route.kind.name();
    let name = &key.route.name;
    Labels([("kind", kind), ("namespace", &name.namespace), ("route", &name.name), ("rule", rule)])
}

fn labels_of_backend<'a>(id: &'a BackendId, port: &'a str) -> Labels<'a, 3> {
    Labels([("namespace", &id.name.namespace), ("backend", &id.name.name), ("port", port)])
}
