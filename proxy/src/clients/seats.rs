//! Connections of a port that a ClientPolicy counts. They are the process's: its threads share them, and snapshots pass them on.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
#[expect(
    clippy::disallowed_types,
    reason = "held for a look-up when a connection begins or ends, never by a request"
)]
use std::sync::{Arc, Mutex, PoisonError};

/// All of a port.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: AtomicUsize,
    #[expect(clippy::disallowed_types, reason = "as above")]
    of_each: Mutex<HashMap<IpAddr, usize>>,
}

/// There is no seat.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    /// Whose it is, where that is counted.
    whose: Option<IpAddr>,
}

impl Seats {
    /// Takes one, if there are fewer than `most`, and of the address fewer than that.
    pub(super) fn take(
        self: &Arc<Self>,
        most: Option<usize>,
        each: Option<(IpAddr, usize)>,
    ) -> Result<Seat, Full> {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        // From here on it is given back when it is dropped.
        let mut seat = Seat { seats: self.clone(), whose: None };
        if most.is_some_and(|most| before >= most) {
            return Err(Full);
        }
        if let Some((address, most)) = each {
            let whose = counted(address);
            let mut of_each = self.of_each.lock().unwrap_or_else(PoisonError::into_inner);
            let count = of_each.entry(whose).or_default();
            if *count >= most {
                return Err(Full);
            }
            *count += 1;
            seat.whose = Some(whose);
        }
        Ok(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.fetch_sub(1, Ordering::Relaxed);
        let Some(whose) = self.whose else { return };
        let mut of_each = self.seats.of_each.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_each.get_mut(&whose) {
            *count -= 1;
            if *count == 0 {
                of_each.remove(&whose);
            }
        }
    }
}

/// What counts as one address: of IPv6 the network that one customer has.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_given_back() {
        let seats = Arc::new(Seats::default());
        let take = |address: &str| seats.take(Some(3), Some((address.parse().unwrap(), 2)));
        let one = take("2001:db8::1").unwrap();
        let two = take("2001:db8::2").unwrap();
        // The third of one network; then the fourth of all.
        assert_eq!(take("2001:db8::3").unwrap_err(), Full);
        let three = take("::ffff:192.0.2.1").unwrap();
        assert_eq!(take("192.0.2.2").unwrap_err(), Full);
        drop(two);
        let four = take("192.0.2.1").unwrap();
        assert_eq!(take("192.0.2.1").unwrap_err(), Full);
        drop((one, three, four));
        assert_eq!(seats.taken.load(Ordering::Relaxed), 0);
        assert!(seats.of_each.lock().unwrap().is_empty());
    }
}
