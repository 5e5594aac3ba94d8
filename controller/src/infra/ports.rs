//! Ports on our pods: each (Gateway, port) has one of its own, and keeps it.
//!
//! The record is the `targetPort` in the Gateway's Service; this only finds free ones, and remembers what it gave out until
//! the record is seen.

use headgate_proxy::model::PortId;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// Gives out ports.
#[derive(Debug)]
pub struct Ports {
    range: RangeInclusive<u16>,
    /// Given out, and maybe not seen in a Service yet.
    given: BTreeMap<PortId, u16>,
}

impl Ports {
    /// Gives out ports of a range.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, given: BTreeMap::new() }
    }

    /// One port for each that is wanted, in order: the recorded one, else the one given out before, else the lowest free
    /// one; `None` when none is left. Two records of one port can be: then the first keeps it.
    pub fn assign(
        &mut self,
        wanted: &[PortId],
        recorded: &BTreeMap<PortId, u16>,
    ) -> BTreeMap<PortId, Option<u16>> {
        self.given.retain(|id, _| wanted.contains(id));
        let (mut taken, mut assigned) = (BTreeSet::new(), BTreeMap::new());
        for id in wanted {
            let known = recorded.get(id).or_else(|| self.given.get(id)).copied();
            if let Some(port) = known.filter(|port| self.range.contains(port) && taken.insert(*port)) {
                assigned.insert(id.clone(), Some(port));
            }
        }
        // What Services of others that we don't serve any more record is free; what is recorded at all is not.
        taken.extend(recorded.values());
        let mut free = self.range.clone().filter(|port| !taken.contains(port));
        for id in wanted {
            assigned.entry(id.clone()).or_insert_with(|| free.next());
        }
        for (id, port) in &assigned {
            if let Some(port) = port {
                self.given.insert(id.clone(), *port);
            }
        }
        assigned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headgate_proxy::model::{ObjectName, Transport};

    fn id(gateway: &str, port: u16) -> PortId {
        PortId { gateway: ObjectName::new("a", gateway), port, transport: Transport::Tcp }
    }

    fn plain(assigned: &BTreeMap<PortId, Option<u16>>) -> Vec<Option<u16>> {
        assigned.values().copied().collect()
    }

    #[test]
    fn records_stay_and_the_rest_is_filled() {
        let mut ports = Ports::new(100..=103);
        let wanted = [id("a", 80), id("a", 443), id("b", 80)];
        let recorded = BTreeMap::from([(id("b", 80), 100)]);
        let assigned = ports.assign(&wanted, &recorded);
        assert_eq!(plain(&assigned), [Some(101), Some(102), Some(100)]);
        // Not recorded yet: the same again, also when the order is another.
        let wanted = [id("b", 80), id("a", 443), id("a", 80)];
        assert_eq!(ports.assign(&wanted, &recorded), assigned);
    }

    #[test]
    fn a_port_recorded_twice_moves_once() {
        let mut ports = Ports::new(100..=103);
        let recorded = BTreeMap::from([(id("a", 80), 100), (id("b", 80), 100)]);
        let assigned = ports.assign(&[id("a", 80), id("b", 80)], &recorded);
        assert_eq!(plain(&assigned), [Some(100), Some(101)]);
    }

    #[test]
    fn an_empty_range_leaves_some_without() {
        let mut ports = Ports::new(100..=100);
        let wanted = [id("a", 80), id("b", 80)];
        assert_eq!(plain(&ports.assign(&wanted, &BTreeMap::new())), [Some(100), None]);
        // Whoever goes makes room.
        assert_eq!(plain(&ports.assign(&wanted[1..], &BTreeMap::new())), [Some(100)]);
    }
}
