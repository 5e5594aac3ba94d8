//! What the control plane counts; served with the proxy's metrics.

use headgate_proxy::Registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Counters of the control plane. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(crate) translations: Counter,
    pub(crate) panics: Counter,
    pub(crate) undecodable: Gauge,
    pub(crate) leads: Gauge,
    pub(crate) failed_ports: Gauge,
}

impl Metrics {
    /// Adds them to what is served.
    pub fn register(&self, registry: &mut Registry) {
        let Self { translations, panics, undecodable, leads, failed_ports } = self.clone();
        registry.register("headgate_translations", "Translations of all objects to a model", translations);
        let help = "Translations that panicked: the model before stayed in force";
        registry.register("headgate_translation_panics", help, panics);
        let help = "Objects whose newest version can't be read: the last one that could be is in force";
        registry.register("headgate_undecodable_objects", help, undecodable);
        registry.register("headgate_leader", "1 while this replica writes statuses and Services", leads);
        registry.register("headgate_failed_ports", "Ports that could not be opened", failed_ports);
    }
}
