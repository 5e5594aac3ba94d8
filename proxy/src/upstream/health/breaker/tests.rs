use super::*;
use crate::model::{BreakerScope, FailureWhen, OnOpen, Ratio, SlowRatio};
use proptest::prelude::*;

const FAST: Duration = Duration::from_millis(1);

fn policy(trip: Trip) -> Policy {
    Policy {
        scope: BreakerScope::Backend,
        trip,
        failure_when: FailureWhen {
            status_codes: vec![500],
            grpc_codes: vec![],
            connect_errors: true,
            timeouts: true,
            expressions: vec![],
        },
        open_duration: Duration::from_secs(30),
        max_open_duration: Duration::from_secs(100),
        max_probes: 2,
        successes_to_close: 3,
        on_open: OnOpen::Reject { status: 503 },
    }
}

fn in_a_row(count: u32) -> Policy {
    policy(Trip { consecutive_failures: Some(count), ..Trip::default() })
}

fn enter(breaker: &Breaker, now: Millis, policy: &Policy) -> Option<Permit> {
    match breaker.admit(|| now, policy) {
        Verdict::Pass(permit) => Some(permit),
        Verdict::Refused { .. } => None,
    }
}

/// One request from beginning to end.
fn request(breaker: &Breaker, fate: Fate, now: Millis, policy: &Policy) -> Option<Change> {
    let permit = enter(breaker, now, policy).expect("it is let in");
    breaker.note(permit, fate, FAST, (|| now, 0), policy)
}

#[test]
fn failures_in_a_row_open_it_and_probes_close_it() {
    let (breaker, policy) = (Breaker::default(), in_a_row(5));
    for _ in 0..4 {
        assert_eq!(request(&breaker, Fate::Failure, 1_000, &policy), None);
    }
    // A success ends the row; what says nothing doesn't.
    assert_eq!(request(&breaker, Fate::Success, 1_000, &policy), None);
    for _ in 0..4 {
        assert_eq!(request(&breaker, Fate::Failure, 1_000, &policy), None);
        assert_eq!(request(&breaker, Fate::Unknown, 1_000, &policy), None);
    }
    assert_eq!(request(&breaker, Fate::Failure, 1_000, &policy), Some(Change::Opened { until: 31_000 }));
    assert_eq!(breaker.phase(), Phase::Open { until: 31_000 });
    assert_eq!(enter(&breaker, 30_999, &policy), None);
    let probes = [enter(&breaker, 31_000, &policy).unwrap(), enter(&breaker, 31_000, &policy).unwrap()];
    assert_eq!(enter(&breaker, 31_000, &policy), None);
    let note = |permit| breaker.note(permit, Fate::Success, FAST, (|| 31_000, 0), &policy);
    assert_eq!(probes.map(note), [None, None]);
    assert_eq!(request(&breaker, Fate::Success, 31_000, &policy), Some(Change::Closed));
    assert_eq!(breaker.phase(), Phase::Closed);
    // It counts anew.
    for _ in 0..4 {
        assert_eq!(request(&breaker, Fate::Failure, 31_000, &policy), None);
    }
}

#[test]
fn times_double_while_probes_fail() {
    let (breaker, policy) = (Breaker::default(), in_a_row(1));
    let mut now = 1_000;
    for seconds in [30, 60, 100, 100] {
        let until = now + seconds * 1_000;
        assert_eq!(request(&breaker, Fate::Failure, now, &policy), Some(Change::Opened { until }));
        now = until;
    }
    for _ in 0..3 {
        request(&breaker, Fate::Success, now, &policy);
    }
    let until = now + 30_000;
    assert_eq!(request(&breaker, Fate::Failure, now, &policy), Some(Change::Opened { until }));
}

#[test]
fn up_to_a_tenth_is_added() {
    let policy = in_a_row(1);
    assert_eq!(open_for(&policy, 0, 0), Duration::from_secs(30));
    assert_eq!(open_for(&policy, 0, u32::MAX), Duration::from_secs(33));
    assert_eq!(open_for(&policy, 200, 0), Duration::from_secs(100));
}

#[test]
fn what_began_before_it_opened_says_nothing_afterwards() {
    let (breaker, policy) = (Breaker::default(), in_a_row(1));
    let old = enter(&breaker, 1_000, &policy).unwrap();
    request(&breaker, Fate::Failure, 1_000, &policy);
    assert_eq!(breaker.note(old, Fate::Failure, FAST, (|| 40_000, 0), &policy), None);
    let probe = enter(&breaker, 40_000, &policy).unwrap();
    assert_eq!(breaker.note(old, Fate::Success, FAST, (|| 40_000, 0), &policy), None);
    assert_eq!(breaker.phase(), Phase::HalfOpen { probes: 1, successes: 0 });
    // Nor does a probe of another time.
    assert!(breaker.note(probe, Fate::Failure, FAST, (|| 40_000, 0), &policy).is_some());
    let second = enter(&breaker, 200_000, &policy).unwrap();
    assert_eq!(breaker.note(probe, Fate::Success, FAST, (|| 200_000, 0), &policy), None);
    assert_eq!(breaker.phase(), Phase::HalfOpen { probes: 1, successes: 0 });
    // One whose client left makes room for another.
    assert_eq!(breaker.note(second, Fate::Unknown, FAST, (|| 200_000, 0), &policy), None);
    assert_eq!(breaker.phase(), Phase::HalfOpen { probes: 0, successes: 0 });
}

#[test]
fn shares_of_failures_and_of_slow_answers_open_it() {
    let ratio = Ratio { percent: 50, window: Duration::from_secs(10), min_requests: 10 };
    let failing = policy(Trip { failure_ratio: Some(ratio), ..Trip::default() });
    let breaker = Breaker::default();
    for _ in 0..5 {
        assert_eq!(request(&breaker, Fate::Success, 1_000, &failing), None);
    }
    for _ in 0..4 {
        assert_eq!(request(&breaker, Fate::Failure, 1_000, &failing), None);
    }
    assert!(request(&breaker, Fate::Failure, 1_000, &failing).is_some());
    let over = Duration::from_secs(1);
    let slow = policy(Trip { slow_ratio: Some(SlowRatio { over, ratio }), ..Trip::default() });
    let breaker = Breaker::default();
    let answered = |took| {
        let permit = enter(&breaker, 1_000, &slow).unwrap();
        breaker.note(permit, Fate::Success, took, (|| 1_000, 0), &slow)
    };
    let outcomes: Vec<_> = (0..9).map(|_| answered(over * 2)).collect();
    assert_eq!(outcomes, [None; 9]);
    assert!(answered(over * 2).is_some());
    // A slow probe is none that succeeds.
    let probe = enter(&breaker, 60_000, &slow).unwrap();
    assert!(matches!(
        breaker.note(probe, Fate::Success, over * 2, (|| 60_000, 0), &slow),
        Some(Change::Opened { .. })
    ));
}

#[test]
fn one_of_many_threads_opens_it() {
    let (breaker, policy) = (Breaker::default(), in_a_row(100));
    let opened = std::thread::scope(|scope| {
        let fail = || {
            (0..1_000)
                .filter_map(|_| enter(&breaker, 1_000, &policy))
                .filter_map(|permit| breaker.note(permit, Fate::Failure, FAST, (|| 1_000, 0), &policy))
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(fail)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(opened, 1);
}

#[derive(Clone, Debug)]
enum Event {
    Enter,
    End(usize, Fate),
    Wait(Millis),
}

fn event() -> impl Strategy<Value = Event> {
    let fate = prop_oneof![Just(Fate::Success), Just(Fate::Failure), Just(Fate::Unknown)];
    prop_oneof![
        4 => Just(Event::Enter),
        4 => (any::<usize>(), fate).prop_map(|(which, fate)| Event::End(which, fate)),
        1 => (0u64..50_000).prop_map(Event::Wait),
    ]
}

proptest! {
    #[test]
    fn words_hold_states(
        phase in prop_oneof![
            Just(Phase::Closed),
            (any::<u16>(), any::<u16>()).prop_map(|(probes, successes)| Phase::HalfOpen { probes, successes }),
            (0u64..1 << DETAIL).prop_map(|until| Phase::Open { until }),
        ],
        opened in any::<u8>(),
        epoch in any::<u8>(),
    ) {
        let state = State { phase, opened, epoch };
        prop_assert_eq!(State::unpack(state.pack()), state);
    }

    /// Whatever happens: nobody enters while it is open, never more probes than may, it opens only by a failure and
    /// closes only by so many successes in a half-open time, and it can always be entered some time.
    #[test]
    fn the_machine_keeps_its_promises(events in prop::collection::vec(event(), 1..300)) {
        let (breaker, policy) = (Breaker::default(), in_a_row(3));
        let (mut now, mut running, mut successes) = (1_000, Vec::<Permit>::new(), 0);
        for event in events {
            let before = breaker.phase();
            match event {
                Event::Wait(time) => now += time,
                Event::Enter => {
                    let refused = breaker.refuses(now, &policy);
                    let entered = enter(&breaker, now, &policy);
                    prop_assert_eq!(entered.is_none(), refused);
                    match before {
                        Phase::Closed => prop_assert!(entered.is_some()),
                        Phase::Open { until } => prop_assert_eq!(entered.is_some(), now >= until),
                        Phase::HalfOpen { probes, .. } => prop_assert_eq!(entered.is_some(), probes < 2),
                    }
                    running.extend(entered);
                }
                Event::End(which, fate) if !running.is_empty() => {
                    let permit = running.swap_remove(which % running.len());
                    match breaker.note(permit, fate, FAST, (|| now, 0), &policy) {
                        Some(Change::Opened { until }) => {
                            prop_assert_eq!(fate, Fate::Failure);
                            prop_assert!(until >= now + 30_000);
                        }
                        Some(Change::Closed) => {
                            let Phase::HalfOpen { successes, .. } = before else { panic!("it was half open") };
                            prop_assert_eq!((fate, successes), (Fate::Success, 2));
                        }
                        Some(Change::HalfOpened) => panic!("only who enters does that"),
                        None => {}
                    }
                }
                Event::End(..) => {}
            }
            if let Phase::HalfOpen { probes, successes: now_successes } = breaker.phase() {
                prop_assert!(probes <= 2 && now_successes < 3);
                successes = now_successes;
            }
        }
        prop_assert!(successes < 3);
        let later = now + 1_000_000;
        let alive = running.iter().map(|permit| breaker.note(*permit, Fate::Unknown, FAST, (|| later, 0), &policy));
        prop_assert_eq!(alive.filter(Option::is_some).count(), 0);
        prop_assert!(!breaker.refuses(later, &policy));
    }
}
