//! What others wrote stays, times change with their condition, and what is said already isn't said again.

use super::*;
use crate::api::policy::AncestorRef;
use crate::api::route::ParentRef;
use crate::status::{AncestorDraft, ParentDraft, Reason};
use headgate_proxy::model::ObjectName;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

const US: &str = "headgate.dev/gateway-controller";

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn draft(kind: ConditionType, status: bool) -> Draft {
    let reason = if status { Reason::Accepted } else { Reason::Invalid };
    Draft::new(kind, status, reason, "said")
}

fn class(status: bool) -> ClassDraft {
    ClassDraft { generation: 2, conditions: vec![draft(ConditionType::Accepted, status)], features: vec![] }
}

fn foreign(kind: &str) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: "Unknown".to_owned(),
        reason: "Theirs".to_owned(),
        message: "of another controller".to_owned(),
        observed_generation: None,
        last_transition_time: at(1),
    }
}

/// Types and times, in order.
fn brief(conditions: &[Condition]) -> Vec<(&str, &str, i64)> {
    let since = |condition: &Condition| condition.last_transition_time.0.as_second();
    conditions.iter().map(|one| (one.type_.as_str(), one.status.as_str(), since(one))).collect()
}

#[test]
fn times_change_with_the_status_and_with_nothing_else() {
    let first = gateway_class(None, &class(true), &at(10)).unwrap();
    assert_eq!(brief(first.conditions.as_deref().unwrap()), [("Accepted", "True", 10)]);
    assert_eq!(gateway_class(Some(&first), &class(true), &at(20)), None);
    // Another message or generation is written, with the time of old.
    let mut newer = class(true);
    newer.generation = 3;
    newer.conditions[0].message = "said otherwise".into();
    let second = gateway_class(Some(&first), &newer, &at(20)).unwrap();
    let condition = &second.conditions.as_deref().unwrap()[0];
    assert_eq!((condition.observed_generation, condition.message.as_str()), (Some(3), "said otherwise"));
    assert_eq!(condition.last_transition_time, at(10));
    let third = gateway_class(Some(&second), &class(false), &at(30)).unwrap();
    assert_eq!(brief(third.conditions.as_deref().unwrap()), [("Accepted", "False", 30)]);
}

#[test]
fn conditions_of_others_stay_and_so_does_the_order() {
    let present = GatewayClassStatus {
        conditions: Some(vec![foreign("A"), foreign("Accepted"), foreign("B")]),
        supported_features: Some(vec![]),
    };
    let merged = gateway_class(Some(&present), &class(true), &at(10)).unwrap();
    let conditions = merged.conditions.as_deref().unwrap();
    assert_eq!(brief(conditions), [("A", "Unknown", 1), ("Accepted", "True", 10), ("B", "Unknown", 1)]);
    assert_eq!([&conditions[0], &conditions[2]], [&foreign("A"), &foreign("B")]);
    assert_eq!(gateway_class(Some(&merged), &class(true), &at(20)), None);
}

fn parent(name: &str) -> ParentRef {
    ParentRef { name: name.to_owned(), ..ParentRef::default() }
}

fn route_draft(parents: &[&str]) -> RouteDraft {
    let parent = |name: &&str| ParentDraft {
        parent: parent(name),
        conditions: vec![draft(ConditionType::Accepted, true)],
    };
    RouteDraft { generation: 1, parents: parents.iter().map(parent).collect() }
}

fn names(status: &RouteStatus) -> Vec<(&str, &str)> {
    let whose = |entry: &ParentStatus| if entry.controller_name == US { "us" } else { "them" };
    status.parents.iter().map(|entry| (whose(entry), entry.parent_ref.name.as_str())).collect()
}

#[test]
fn parents_of_others_stay_and_ours_go_with_the_reference() {
    let theirs = ParentStatus {
        conditions: vec![foreign("Accepted")],
        controller_name: "example.com/another".to_owned(),
        // Even for a parent that is ours too.
        parent_ref: parent("b"),
    };
    let mut status = route(None, &route_draft(&["a", "b"]), US, &at(1)).unwrap();
    status.parents.insert(1, theirs.clone());
    assert_eq!(route(Some(&status), &route_draft(&["a", "b"]), US, &at(2)), None);
    let status = route(Some(&status), &route_draft(&["b", "c"]), US, &at(2)).unwrap();
    assert_eq!(names(&status), [("them", "b"), ("us", "b"), ("us", "c")]);
    assert_eq!(status.parents[0], theirs);
    assert_eq!(brief(&status.parents[1].conditions), [("Accepted", "True", 1)]);
    // It left us: nothing of ours is left behind.
    let status = route(Some(&status), &route_draft(&[]), US, &at(3)).unwrap();
    assert_eq!(names(&status), [("them", "b")]);
    assert_eq!(route(None, &route_draft(&[]), US, &at(4)), None);
}

#[test]
fn a_policy_has_room_for_sixteen_ancestors_of_all_controllers() {
    let ancestor = |n: usize| {
        let gateway = ObjectName::new("a", format!("gw-{n}").as_str());
        AncestorDraft::of_gateway(&gateway, vec![draft(ConditionType::Accepted, true)])
    };
    let draft = PolicyDraft { generation: 1, ancestors: (0..20).map(ancestor).collect() };
    let theirs = AncestorStatus {
        ancestor_ref: AncestorRef { name: "theirs".to_owned(), ..AncestorRef::default() },
        conditions: vec![foreign("Accepted")],
        controller_name: "example.com/another".to_owned(),
    };
    let present = PolicyStatus { ancestors: vec![theirs.clone()] };
    let status = policy(Some(&present), &draft, US, &at(1)).unwrap();
    assert_eq!((status.ancestors.len(), &status.ancestors[0]), (16, &theirs));
    assert_eq!(policy(Some(&status), &draft, US, &at(2)), None);
}

proptest! {
    /// Whatever was there, what is written is the whole truth: to look at it again changes nothing, and foreign
    /// conditions are as they were.
    #[test]
    fn merging_twice_is_merging_once(
        present in prop::sample::subsequence(vec!["X", "Accepted", "Y", "Programmed", "ResolvedRefs", "Z"], 0..=6)
            .prop_shuffle(),
        ours in prop::sample::subsequence(ConditionType::ALL.to_vec(), 0..=ConditionType::ALL.len()),
        statuses in prop::collection::vec(any::<bool>(), ConditionType::ALL.len()),
    ) {
        let present: Vec<Condition> = present.into_iter().map(foreign).collect();
        let drafts: Vec<Draft> = ours.iter().zip(statuses).map(|(kind, status)| draft(*kind, status)).collect();
        let merged = conditions(&present, &drafts, 5, &at(10));
        prop_assert_eq!(&conditions(&merged, &drafts, 5, &at(20)), &merged);
        let theirs = |all: &[Condition]| -> Vec<Condition> {
            all.iter().filter(|one| ["X", "Y", "Z"].contains(&one.type_.as_str())).cloned().collect()
        };
        prop_assert_eq!(theirs(&merged), theirs(&present));
        prop_assert_eq!(merged.len(), theirs(&present).len() + drafts.len());
    }
}

#[test]
fn a_service_keeps_what_others_say_of_it() {
    let mut told: Service = serde_json::from_value(serde_json::json!({
        "metadata": {"namespace": "a", "name": "web", "resourceVersion": "7"},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}},
    }))
    .unwrap();
    // Not ours, though a Gateway's would be.
    let theirs = vec![foreign("Accepted")];
    told.status.as_mut().unwrap().conditions = Some(theirs.clone());
    let affected = draft(ConditionType::CircuitBreakerPolicyAffected, true);
    let affected = ServiceDraft { conditions: vec![affected] };
    let status = service(&told, Some(&affected), &at(10)).unwrap();
    assert_eq!(status.load_balancer, None, "it isn't touched");
    let conditions = status.conditions.unwrap();
    assert_eq!(
        brief(&conditions),
        [("headgate.dev/CircuitBreakerPolicyAffected", "True", 10), ("Accepted", "Unknown", 1)]
    );
    told.status.as_mut().unwrap().conditions = Some(conditions);
    assert_eq!(service(&told, Some(&affected), &at(20)), None);
    let status = service(&told, None, &at(20)).unwrap();
    assert_eq!(status.conditions, Some(theirs));
    told.status = Some(status);
    assert_eq!(service(&told, None, &at(30)), None);
}
