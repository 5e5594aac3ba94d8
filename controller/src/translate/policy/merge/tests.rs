//! What wins, whatever is merged: few names, so that they meet.

use super::*;
use proptest::prelude::*;
use serde_json::json;

const SHAPE: Shape =
    Shape { open: &["limits", "limits.*.overrides", "response"], named: &["limits"], fixed: &[] };

fn source(name: &str, overrides: bool, spec: Value) -> Arc<Source> {
    Arc::new(Source {
        name: ObjectName::new("a", name),
        shadow: false,
        overrides,
        fields: SHAPE.fields(spec, "Enforce"),
        resolved: Resolved::default(),
        broken: false,
    })
}

fn level(target: &str, sources: &[&Arc<Source>]) -> Level {
    Level { target: target.into(), sources: sources.iter().map(|source| (*source).clone()).collect() }
}

fn spec(merged: &Merged) -> Value {
    let mut spec = json!({"limits": merged.member("limits"), "response": merged.member("response")});
    for (_, entry) in spec["limits"].as_object_mut().into_iter().flatten() {
        entry.as_object_mut().unwrap().remove(MODE);
    }
    spec
}

#[test]
fn the_more_specific_wins_field_by_field() {
    let above = source(
        "above",
        false,
        json!({
            "limits": {"a": {"rates": [1], "burst": 5, "overrides": {"gold": {"rates": [9]}}}, "b": {"rates": [2]}},
            "response": {"statusCode": 429, "headers": "Both"},
        }),
    );
    let below = source(
        "below",
        false,
        json!({
            "limits": {"a": {"rates": [7, 8], "overrides": {"free": {"rates": [1]}}}, "b": {"disabled": true}},
            "response": {"headers": "None"},
        }),
    );
    let levels = [&level("gateway", &[&above]), &level("route", &[&below])];
    let merged = merge(&SHAPE, &levels, |_| true);
    assert_eq!(
        spec(&merged),
        json!({
            "limits": {
                "a": {"rates": [7, 8], "burst": 5, "overrides": {"gold": {"rates": [9]}, "free": {"rates": [1]}}},
                "b": {"rates": [2], "disabled": true},
            },
            "response": {"statusCode": 429, "headers": "None"},
        })
    );
    assert_eq!(merged.entries("limits").keys().map(|name| &***name).collect::<Vec<_>>(), ["a"]);
    assert_eq!(merged.refused, []);
}

#[test]
fn nothing_of_an_entry_can_be_changed_when_the_policy_above_overrides() {
    let above =
        source("above", true, json!({"limits": {"a": {"rates": [1]}}, "response": {"statusCode": 429}}));
    let below = source(
        "below",
        false,
        json!({
            "limits": {"a": {"disabled": true, "exempt": {"cidrs": ["0.0.0.0/0"]}}, "b": {"rates": [1]}},
            "response": {"statusCode": 429, "headers": "None"},
        }),
    );
    let levels = [&level("gateway", &[&above]), &level("route", &[&below])];
    let merged = merge(&SHAPE, &levels, |_| true);
    assert_eq!(
        spec(&merged),
        json!({
            "limits": {"a": {"rates": [1]}, "b": {"rates": [1]}},
            "response": {"statusCode": 429, "headers": "None"},
        })
    );
    let refused: Vec<_> = merged.refused.iter().map(|refused| refused.path.to_string()).collect();
    assert_eq!(refused, ["spec.limits.a.disabled", "spec.limits.a.exempt"]);
    assert_eq!(&*merged.refused[0].winner.name, "above");
}

#[test]
fn the_older_wins_on_one_target_and_the_other_is_told() {
    let older = source("older", false, json!({"limits": {"a": {"rates": [1]}}}));
    let younger = source("younger", false, json!({"limits": {"a": {"rates": [2], "burst": 3}}}));
    let level = level("route", &[&older, &younger]);
    let merged = merge(&SHAPE, &[&level], |_| true);
    assert_eq!(merged.member("limits")["a"], json!({"rates": [1], "burst": 3, "mode": "Enforce"}));
    let conflict = Refused {
        loser: younger.name.clone(),
        path: Path::of(&["limits", "a", "rates"]),
        winner: older.name.clone(),
    };
    assert_eq!(level.conflicts(), [conflict]);
}

fn any_spec() -> impl Strategy<Value = Value> {
    let entry = (prop::option::of(0..3), prop::option::of(0..3)).prop_map(|(rates, burst)| {
        let mut entry = json!({});
        rates.into_iter().for_each(|rates: i32| entry["rates"] = rates.into());
        burst.into_iter().for_each(|burst: i32| entry["burst"] = burst.into());
        entry
    });
    let limits = prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c"]), entry, 0..3);
    let code = prop::option::of(400..403);
    (limits, code).prop_map(|(limits, code)| json!({"limits": limits, "response": {"statusCode": code}}))
}

fn any_levels() -> impl Strategy<Value = Vec<Level>> {
    let sources = prop::collection::vec((any_spec(), any::<bool>()), 0..3);
    prop::collection::vec(sources, 1..5).prop_map(|levels| {
        let level = |(n, sources): (usize, Vec<(Value, bool)>)| {
            let sources = sources.into_iter().enumerate();
            let sources =
                sources.map(|(m, (spec, overrides))| source(&format!("{n}-{m}"), overrides, spec)).collect();
            Level { target: format!("{n}").into(), sources }
        };
        levels.into_iter().enumerate().map(level).collect()
    })
}

/// One policy that says what others come to.
fn collapsed(levels: &[&Level], overrides: bool) -> Level {
    let merged = merge(&SHAPE, levels, |_| true);
    let fields = merged.fields.into_iter().map(|(path, field)| (path, field.value)).collect();
    let source = Source { fields, ..Arc::into_inner(source("all", overrides, json!({}))).unwrap() };
    level("all", &[&Arc::new(source)])
}

proptest! {
    /// Where all policies are of one sort, it doesn't matter which levels are merged first.
    #[test]
    fn merging_is_associative(levels in any_levels(), overrides in any::<bool>(), at in any::<prop::sample::Index>()) {
        let alike = |level: &Level| {
            let sources = level.sources.iter();
            let sources = sources.map(|from| Source {
                name: from.name.clone(),
                shadow: from.shadow,
                overrides,
                fields: from.fields.clone(),
                resolved: Resolved::default(),
                broken: from.broken,
            });
            Level { target: level.target.clone(), sources: sources.map(Arc::new).collect() }
        };
        let levels: Vec<Level> = levels.iter().map(alike).collect();
        let levels: Vec<&Level> = levels.iter().collect();
        let (first, last) = levels.split_at(at.index(levels.len() + 1));
        let values = |levels: &[&Level]| -> BTreeMap<Path, Value> {
            let merged = merge(&SHAPE, levels, |_| true);
            merged.fields.into_iter().map(|(path, field)| (path, field.value)).collect()
        };
        let expected = values(&levels);
        prop_assert_eq!(&values(&[&[&collapsed(first, overrides)], last].concat()), &expected);
        prop_assert_eq!(&values(&[first, &[&collapsed(last, overrides)]].concat()), &expected);
    }

    /// Each field that anybody says is in force, replaced by a more specific one, or told of.
    #[test]
    fn nothing_is_silent(levels in any_levels()) {
        let levels: Vec<&Level> = levels.iter().collect();
        let merged = merge(&SHAPE, &levels, |_| true);
        for (depth, level) in levels.iter().enumerate() {
            let conflicts = level.conflicts();
            for source in &level.sources {
                for (path, value) in &source.fields {
                    let told = |refused: &Refused| refused.path == *path && refused.loser == source.name;
                    let in_force = merged.fields.get(path);
                    let replaced = in_force.is_some_and(|field| field.depth > depth || field.value == *value);
                    let beaten = conflicts.iter().any(told);
                    prop_assert!(replaced || beaten || merged.refused.iter().any(told), "{} {path}", source.name);
                }
            }
        }
    }

    /// What a policy with `Override` came to say stays, whatever comes below it.
    #[test]
    fn an_override_stays(levels in any_levels()) {
        let levels: Vec<&Level> = levels.iter().collect();
        for depth in 1..levels.len() {
            let above = merge(&SHAPE, &levels[..depth], |_| true);
            let all = merge(&SHAPE, &levels, |_| true);
            for (path, field) in &above.fields {
                let said = levels.iter().flat_map(|level| &level.sources);
                let fixed = said.filter(|source| source.overrides && source.name == field.policy).count() > 0;
                prop_assert!(!fixed || all.fields.get(path) == Some(field), "{path}");
            }
        }
    }

    /// Without overrides, merging is associative: a field is the most specific level's that says it.
    #[test]
    fn a_field_is_the_most_specific_ones(levels in any_levels()) {
        let plain = |level: &Level| {
            let source = |source: &Arc<Source>| Arc::new(Source {
                name: source.name.clone(), shadow: false, overrides: false, fields: source.fields.clone(),
                resolved: Resolved::default(),
                broken: false,
            });
            Level { target: level.target.clone(), sources: level.sources.iter().map(source).collect() }
        };
        let levels: Vec<Level> = levels.iter().map(plain).collect();
        let levels: Vec<&Level> = levels.iter().collect();
        let merged = merge(&SHAPE, &levels, |_| true);
        prop_assert_eq!(&merged.refused, &[]);
        for (path, field) in &merged.fields {
            let says = |level: &&Level| level.sources.iter().find_map(|source| source.fields.get(path)).cloned();
            prop_assert_eq!(levels.iter().rev().find_map(says), Some(field.value.clone()));
        }
    }
}
