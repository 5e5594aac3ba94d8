//! Which endpoint a request goes to: of two at random the one with fewer requests in flight.
//!
//! "In flight" is what this thread has in flight: exact without sharing, and close to the whole when connections are
//! spread evenly over threads. Endpoints that refused a connection lately lose against those that didn't.

use super::endpoint::{Address, Member};
use super::pool::Pools;
use std::net::SocketAddr;

/// What a request wants of the endpoint that it goes to.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// Nothing.
    Any,
    /// That it is this one, as long as it is there.
    Same(SocketAddr),
    /// Rather none of these, which were tried before.
    Other(Vec<SocketAddr>),
}

impl Choice {
    /// Wants another endpoint than this one, too.
    pub(crate) fn exclude(&mut self, endpoint: Option<SocketAddr>) {
        let Some(endpoint) = endpoint else { return };
        match self {
            Self::Any | Self::Same(_) => *self = Self::Other(vec![endpoint]),
            Self::Other(tried) => tried.push(endpoint),
        }
    }
}

/// Picks what a request wants, if that is there; `tried` are slots of endpoints that can't be reached.
pub(super) fn choose<'a>(
    members: &'a [Member],
    pools: &Pools,
    random: u32,
    tried: &[usize],
    choice: &Choice,
) -> Option<&'a Member> {
    match choice {
        Choice::Any => pick(members, pools, random, tried),
        Choice::Same(endpoint) => {
            let same = members.iter().find(|member| member.address.socket() == *endpoint);
            same.filter(|member| !tried.contains(&member.address.slot()))
                .or_else(|| pick(members, pools, random, tried))
        }
        Choice::Other(before) => {
            let old = members.iter().filter(|member| before.contains(&member.address.socket()));
            let tried_or_old: Vec<_> =
                tried.iter().copied().chain(old.map(|member| member.address.slot())).collect();
            pick(members, pools, random, &tried_or_old).or_else(|| pick(members, pools, random, tried))
        }
    }
}

/// Picks a member that wasn't tried before; `None` when there is none left.
pub(crate) fn pick<'a>(
    members: &'a [Member],
    pools: &Pools,
    random: u32,
    tried: &[usize],
) -> Option<&'a Member> {
    let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let first = match count {
        0 => return None,
        1 => 0,
        _ => two_choices(members, pools, random, count),
    };
    // From there on, so that tries after a failure spread over the others, too.
    (0..members.len())
        .map(|step| &members[(first + step) % members.len()])
        .find(|member| !tried.contains(&member.address.slot()))
}

fn two_choices(members: &[Member], pools: &Pools, random: u32, count: u32) -> usize {
    // Multiplying and shifting maps 16 random bits on a range, evenly enough for fewer than 65,536 endpoints.
    let range = |bits: u32, count: u32| ((u64::from(bits & 0xffff) * u64::from(count)) >> 16) as usize;
    let one = range(random, count);
    let other = (one + 1 + range(random >> 16, count - 1)) % members.len();
    let load = |address: &Address| (pools.is_ailing(address), pools.in_flight(address));
    if load(&members[other].address) < load(&members[one].address) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::Addresses;
    use super::super::pool::Connected;
    use super::*;
    use crate::model::{Endpoint, EndpointSet};
    use std::rc::Rc;

    fn members(count: u16) -> Vec<Member> {
        let endpoint = |port| Endpoint { address: ([127, 0, 0, 1], port).into(), pod: None };
        Addresses::default().list(&EndpointSet { endpoints: (1..=count).map(endpoint).collect() })
    }

    /// A few thousand well-spread numbers.
    fn randoms() -> impl Iterator<Item = u32> {
        (0..4000u32).map(|n| n.wrapping_mul(2_654_435_761).rotate_left(7) ^ n.wrapping_mul(40_503))
    }

    #[test]
    fn load_spreads_evenly() {
        let (members, pools) = (members(4), Rc::new(Pools::default()));
        let mut leases = Vec::new();
        for random in randoms() {
            leases.push(pools.lease(&pick(&members, &pools, random, &[]).unwrap().address));
        }
        for member in &members {
            assert!((990..=1010).contains(&pools.in_flight(&member.address)));
        }
    }

    #[test]
    fn nothing_is_tried_twice() {
        let (members, pools) = (members(3), Pools::default());
        for random in randoms() {
            let mut tried = Vec::new();
            while let Some(member) = pick(&members, &pools, random, &tried) {
                tried.push(member.address.slot());
            }
            tried.sort_unstable();
            assert_eq!(tried, [0, 1, 2]);
        }
        assert!(pick(&[], &pools, 0, &[]).is_none());
    }

    #[test]
    fn others_are_picked_while_there_are_some() {
        let (members, pools) = (members(3), Pools::default());
        let mut choice = Choice::Any;
        choice.exclude(None);
        for seen in 1..=3 {
            let picked = choose(&members, &pools, 0, &[], &choice).unwrap().address.socket();
            choice.exclude(Some(picked));
            let Choice::Other(before) = &choice else { panic!("some are excluded") };
            assert_eq!(before.iter().collect::<std::collections::BTreeSet<_>>().len(), seen);
        }
        assert!(choose(&members, &pools, 0, &[], &choice).is_some());
        assert_eq!(choose(&members, &pools, 0, &[0, 1], &choice).unwrap().address.slot(), 2);
    }

    #[test]
    fn the_same_is_picked_while_it_can_be_reached() {
        let (members, pools) = (members(3), Pools::default());
        let same = Choice::Same(members[1].address.socket());
        for random in randoms() {
            let picked =
                |tried: &[usize]| choose(&members, &pools, random, tried, &same).unwrap().address.slot();
            assert_eq!(picked(&[]), 1);
            assert_ne!(picked(&[1]), 1);
        }
    }

    #[test]
    fn an_ailing_endpoint_is_avoided_until_it_heals() {
        let (members, pools) = (members(2), Rc::new(Pools::default()));
        let ailing = |outcome| pools.lease(&members[0].address).note_connect(outcome);
        ailing(Connected::No);
        let count = |pools: &Pools| {
            randoms()
                .filter(|random| pick(&members, pools, *random, &[]).unwrap().address.slot() == 0)
                .count()
        };
        assert_eq!(count(&pools), 0);
        ailing(Connected::Yes);
        assert!(count(&pools) > 1000);
        ailing(Connected::No);
        pools.sweep();
        pools.sweep();
        assert!(count(&pools) > 1000);
    }
}
