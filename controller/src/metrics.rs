//! What the control plane counts; served with the proxy's metrics.

use headgate_proxy::Registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

/// Seconds in which changes are in force.
const DELAYS: [f64; 11] = [0.001, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.03, 0.1, 0.3, 1.0, 3.0];

/// Counters of the control plane. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) translations: Counter,
    pub(crate) publish_delay: Histogram,
    pub(crate) panics: Counter,
    pub(crate) undecodable: Gauge,
    pub(crate) leads: Gauge,
    pub(crate) failed_ports: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            translations: Counter::default(),
            publish_delay: Histogram::new(DELAYS),
            panics: Counter::default(),
            undecodable: Gauge::default(),
            leads: Gauge::default(),
            failed_ports: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Adds them to what is served.
    pub fn register(&self, registry: &mut Registry) {
        let Self { translations, publish_delay, panics, undecodable, leads, failed_ports } = self.clone();
        registry.register("headgate_translations", "Translations of all objects to a model", translations);
        let help = "From the first change that the control plane hears of until the proxy serves by it";
        registry.register_with_unit("headgate_publish_delay", help, Unit::Seconds, publish_delay);
        let help = "Translations that panicked: the model before stayed in force";
        registry.register("headgate_translation_panics", help, panics);
        let help = "Objects whose newest version can't be read: the last one that could be is in force";
        registry.register("headgate_undecodable_objects", help, undecodable);
        registry.register("headgate_leader", "1 while this replica writes statuses and Services", leads);
        registry.register("headgate_failed_ports", "Ports that could not be opened", failed_ports);
    }
}
