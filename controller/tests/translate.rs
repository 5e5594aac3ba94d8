//! Golden cases: YAML in, the routing model and all statuses out, as `headgate translate` prints them.
//!
//! Each `tests/cases/NAME.yaml` has what it comes to beside it, in `NAME.snap`. After a change that is meant to change them:
//! `INSTA_UPDATE=always cargo test -p headgate-controller --test translate`, and read the difference.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use headgate_controller::cluster::{Change, Cluster, Effect, Kind, Object, Watched};
use headgate_controller::settings::{CONTROLLER_NAME, Mode, Settings};
use headgate_controller::source::files;
use headgate_controller::status::render;
use headgate_controller::translate::{Translation, Translator};
use headgate_crds::AuthPolicy;
use headgate_proxy::model::{Guard, ListenerId, ObjectName, RouteId};
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    cases
}

fn objects(case: &Path) -> Vec<Object> {
    let loaded = files::load(&[case.to_owned()], CONTROLLER_NAME);
    assert_eq!(loaded.errors, [], "{}", case.display());
    loaded.objects
}

fn cluster(objects: impl IntoIterator<Item = Object>) -> Cluster {
    let mut cluster = Cluster::default();
    for object in objects {
        cluster.apply(Change::Upsert(object));
    }
    cluster
}

/// What a cluster comes to, with the conditions' times at the epoch.
fn outcome(translator: &mut Translator, cluster: &Cluster) -> Value {
    rendered(cluster, &translator.translate(cluster, &BTreeMap::new()))
}

/// The same, where only what an effect says is looked at.
fn updated(translator: &mut Translator, cluster: &Cluster, effect: &Effect) -> Value {
    rendered(cluster, &translator.update(cluster, &BTreeMap::new(), effect))
}

fn rendered(cluster: &Cluster, translation: &Translation) -> Value {
    let statuses = render(cluster, &translation.statuses, CONTROLLER_NAME, &Time(Timestamp::UNIX_EPOCH));
    let mut statuses = Value::from(statuses);
    shorten(&mut statuses);
    json!({"model": translation.model, "statuses": statuses})
}

/// A condition in one line; the GatewayClass's list of features in none.
fn shorten(value: &mut Value) {
    match value {
        Value::Object(fields) if fields.contains_key("lastTransitionTime") => {
            let text = |name: &str| fields[name].as_str().unwrap().to_owned();
            let line = format!("{}={} {}: {}", text("type"), text("status"), text("reason"), text("message"));
            *value = line.into();
        }
        Value::Object(fields) => {
            fields.remove("supportedFeatures");
            fields.values_mut().for_each(shorten);
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn translator() -> Translator {
    Translator::new(Settings::new(Mode::Files))
}

#[test]
fn cases_come_to_what_is_beside_them() {
    for case in cases() {
        let outcome = outcome(&mut translator(), &cluster(objects(&case)));
        let name = case.file_stem().unwrap().to_str().unwrap();
        insta::with_settings!({
            snapshot_path => "cases", prepend_module_to_snapshot => false, omit_expression => true,
        }, {
            insta::assert_yaml_snapshot!(name, outcome);
        });
    }
}

/// Every object of all cases, each case in namespaces of its own: a cluster with a bit of everything.
fn everything() -> Vec<Object> {
    cases().iter().flat_map(|case| objects(case)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// In which order objects arrive doesn't matter, nor what was translated on the way.
    #[test]
    fn order_changes_nothing(order in Just(everything()).prop_shuffle(), stops in prop::collection::vec(any::<prop::sample::Index>(), 3)) {
        let expected = outcome(&mut translator(), &cluster(everything()));
        let (mut translator, mut growing) = (translator(), Cluster::default());
        let stops: Vec<usize> = stops.iter().map(|stop| stop.index(order.len())).collect();
        let mut due = Effect::default();
        for (n, object) in order.into_iter().enumerate() {
            due.merge(growing.apply(Change::Upsert(object)));
            if stops.contains(&n) {
                translator.update(&growing, &BTreeMap::new(), &std::mem::take(&mut due));
            }
        }
        prop_assert_eq!(updated(&mut translator, &growing, &due), expected);
    }

    /// What translates what changed comes to what starts anew, after any objects have gone and come back.
    #[test]
    fn remembering_changes_nothing(gone in prop::collection::vec(any::<prop::sample::Index>(), 1..8)) {
        let all = everything();
        let mut cluster = cluster(all.clone());
        let mut remembering = translator();
        remembering.translate(&cluster, &BTreeMap::new());
        for object in gone.iter().map(|index| index.get(&all)) {
            let effect = cluster.apply(Change::Delete(object.kind(), object.name()));
            prop_assert_eq!(updated(&mut remembering, &cluster, &effect), outcome(&mut translator(), &cluster));
            let effect = cluster.apply(Change::Upsert(object.clone()));
            prop_assert_eq!(updated(&mut remembering, &cluster, &effect), outcome(&mut translator(), &cluster));
        }
    }

    /// Any objects go, come back and change together.
    #[test]
    fn changes_come_together(batches in batches()) {
        let all = everything();
        let mut cluster = cluster(all.clone());
        let mut remembering = translator();
        remembering.translate(&cluster, &BTreeMap::new());
        for batch in batches {
            let effect = change(&mut cluster, &all, &batch);
            prop_assert_eq!(updated(&mut remembering, &cluster, &effect), outcome(&mut translator(), &cluster));
        }
    }

    /// Whatever a policy refers to may be gone, and its authenticators may say nothing: whom it guarded against stays outside. What
    /// guards a rule is as before, or closed.
    #[test]
    fn no_mishap_opens_what_is_guarded(mishaps in prop::collection::vec(any::<prop::sample::Index>(), 1..12)) {
        let all = everything();
        let mut cluster = cluster(all.clone());
        let before = guards(&cluster);
        prop_assert!(before.len() > 10, "{}", before.len());
        let fragile: Vec<Object> = all.into_iter().filter(|object| is_referred_to(object.kind())).collect();
        for object in mishaps.iter().map(|index| index.get(&fragile)) {
            cluster.apply(if let Object::AuthPolicy(policy) = object {
                Change::Upsert(Object::AuthPolicy(Arc::new(emptied(policy))))
            } else {
                Change::Delete(object.kind(), object.name())
            });
        }
        let after = guards(&cluster);
        let model = translator().translate(&cluster, &BTreeMap::new()).model;
        for ((route, rule, listener), guard) in before {
            let serves = model.routes.get(&route).is_some_and(|route| route.listeners.contains(&listener));
            if serves {
                let now = after.get(&(route, rule, listener));
                prop_assert!(now == Some(&guard) || matches!(now, Some(Guard::Closed { .. })), "{:?}", now);
            }
        }
    }

    /// The same of routes, whose changes are looked at alone, several at a time, with endpoints among them.
    #[test]
    fn routes_change_alone(batches in batches()) {
        let all = everything();
        let changing: Vec<Object> = all.iter().filter(|object| changes_alone(object.kind())).cloned().collect();
        let mut cluster = cluster(all);
        let mut remembering = translator();
        remembering.translate(&cluster, &BTreeMap::new());
        for batch in batches {
            let effect = change(&mut cluster, &changing, &batch);
            prop_assert!(!effect.routing, "{:?}", effect);
            prop_assert_eq!(updated(&mut remembering, &cluster, &effect), outcome(&mut translator(), &cluster));
        }
    }
}

/// Objects that change together, and whether each goes or comes, edited.
type Batch = Vec<(prop::sample::Index, bool)>;

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    prop::collection::vec(prop::collection::vec(any::<(prop::sample::Index, bool)>(), 1..6), 1..6)
}

/// Has objects change, and says what is to be done about all of it.
fn change(cluster: &mut Cluster, objects: &[Object], batch: &Batch) -> Effect {
    let mut effect = Effect::default();
    for (index, gone) in batch {
        let object = index.get(objects);
        effect.merge(cluster.apply(match gone {
            true => Change::Delete(object.kind(), object.name()),
            false => Change::Upsert(edited(object)),
        }));
    }
    effect
}

/// What guards each rule, by listener.
fn guards(cluster: &Cluster) -> BTreeMap<(RouteId, usize, ListenerId), Guard> {
    let model = translator().translate(cluster, &BTreeMap::new()).model;
    let mut guards = BTreeMap::new();
    for (id, route) in &model.routes {
        for (n, rule) in route.rules.iter().enumerate() {
            for scoped in &rule.policies {
                let Some(guard) = &scoped.policies.guard else { continue };
                let of = |listener: &ListenerId| ((id.clone(), n, listener.clone()), guard.clone());
                guards.extend(scoped.listeners.iter().map(of));
            }
        }
    }
    guards
}

/// Whether policies refer to objects of the kind, or are of it.
fn is_referred_to(kind: Kind) -> bool {
    [Kind::AuthPolicy, Kind::ConfigMap, Kind::ReferenceGrant, Kind::Secret, Kind::Service].contains(&kind)
}

/// A policy whose authenticators are nothing any more.
fn emptied(policy: &AuthPolicy) -> AuthPolicy {
    let mut value = serde_json::to_value(policy).unwrap();
    for authenticator in
        value["spec"]["authenticators"].as_object_mut().into_iter().flat_map(|all| all.values_mut())
    {
        *authenticator = json!({});
    }
    serde_json::from_value(value).unwrap()
}

fn changes_alone(kind: Kind) -> bool {
    kind == Kind::EndpointSlice || kind.is_route()
}

/// An HTTPRoute without its first rule, as its next generation; others as they are.
fn edited(object: &Object) -> Object {
    let Object::HttpRoute(route) = object else { return object.clone() };
    let mut route = route.unpack();
    if let Some(rules) = &mut route.spec.rules
        && rules.len() > 1
    {
        rules.remove(0);
        route.metadata.generation = route.metadata.generation.map(|generation| generation + 1);
    }
    route.wrap()
}

/// A change of endpoints gives new endpoints, and everything else by the same pointer.
#[test]
fn endpoints_come_and_go_alone() {
    let all = everything();
    let mut cluster = cluster(all.clone());
    let mut translator = translator();
    let before = translator.translate(&cluster, &BTreeMap::new()).model;
    for slice in all.iter().filter(|object| object.kind() == Kind::EndpointSlice) {
        let effect = cluster.apply(Change::Delete(Kind::EndpointSlice, slice.name()));
        assert!(!effect.routing && !effect.endpoints.is_empty());
        let swapped = translator.endpoints(&cluster, &effect.endpoints, &effect.hosts);
        let after = translator.translate(&cluster, &BTreeMap::new()).model;
        for (id, set) in swapped {
            assert!(Arc::ptr_eq(&set, &after.endpoints[&id]), "{id}");
        }
        assert!(after.routes.iter().all(|(id, route)| Arc::ptr_eq(route, &before.routes[id])));
        assert!(after.ports.iter().all(|(id, port)| Arc::ptr_eq(port, &before.ports[id])));
        assert!(after.backends.iter().all(|(id, backend)| Arc::ptr_eq(backend, &before.backends[id])));
        cluster.apply(Change::Upsert(slice.clone()));
        translator.translate(&cluster, &BTreeMap::new());
    }
}

/// A renewal that goes wrong ends nothing; a Secret that is deleted does.
#[test]
fn a_certificate_that_breaks_leaves_the_one_before_in_force() {
    let secret = |chain: &str, key: &str| {
        let secret = json!({
            "metadata": {"name": "site", "namespace": "default"},
            "type": "kubernetes.io/tls",
            "data": {"tls.crt": ByteString(chain.into()), "tls.key": ByteString(key.into())},
        });
        Object::Secret(Arc::new(serde_json::from_value(secret).unwrap()))
    };
    let made = |host: &str| {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let gateway = json!({
        "metadata": {"name": "site", "namespace": "default", "generation": 1},
        "spec": {"gatewayClassName": "headgate", "listeners": [{
            "name": "https", "port": 443, "protocol": "HTTPS",
            "tls": {"certificateRefs": [{"name": "site"}]},
        }]},
    });
    let class = json!({
        "metadata": {"name": "headgate", "generation": 1},
        "spec": {"controllerName": CONTROLLER_NAME},
    });
    let ((old, old_key), (new, new_key)) = (made("old.example"), made("new.example"));
    let mut cluster = cluster([
        Object::GatewayClass(Arc::new(serde_json::from_value(class).unwrap())),
        Object::Gateway(Arc::new(serde_json::from_value(gateway).unwrap())),
        secret(&old, &old_key),
    ]);
    let mut translator = translator();
    let mut served = |cluster: &Cluster| {
        let outcome = outcome(&mut translator, cluster);
        let chain = outcome["model"]["ports"][0]["listeners"][0]["tls"]["certificates"][0]["chain"].clone();
        let statuses = outcome["statuses"].as_array().unwrap().clone();
        let gateway = statuses.into_iter().find(|status| status["kind"] == "Gateway").unwrap();
        (chain, gateway["status"]["listeners"][0]["conditions"].to_string())
    };
    assert_eq!(served(&cluster).0, old);
    for broken in [secret("nothing", &old_key), secret(&new, &old_key)] {
        cluster.apply(Change::Upsert(broken));
        let (chain, conditions) = served(&cluster);
        assert_eq!(chain, old);
        for said in ["ResolvedRefs=False InvalidCertificateRef", "stays in force", "Programmed=True"] {
            assert!(conditions.contains(said), "{conditions}");
        }
    }
    cluster.apply(Change::Upsert(secret(&new, &new_key)));
    assert_eq!(served(&cluster).0, new);
    cluster.apply(Change::Delete(Kind::Secret, ObjectName::new("default", "site")));
    let (chain, conditions) = served(&cluster);
    assert_eq!(chain, Value::Null);
    assert!(conditions.contains("Programmed=False"), "{conditions}");
}
