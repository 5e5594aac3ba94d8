use super::*;
use proptest::prelude::*;
use serde_json::json;

fn values(text: &str) -> Vec<Value> {
    let (documents, fault) = read(text);
    assert_eq!(fault, None, "{text}");
    documents.iter().map(Node::value).collect()
}

fn value(text: &str) -> Value {
    let mut values = values(text);
    assert_eq!(values.len(), 1, "{text}");
    values.remove(0)
}

/// Line, column and message.
fn wrong(text: &str) -> String {
    let (_, fault) = read(text);
    let fault = fault.unwrap_or_else(|| panic!("nothing wrong with {text:?}"));
    format!("{}: {}", fault.place, fault.message)
}

/// As `kubectl apply` sends them.
#[test]
fn plain_scalars_mean_what_they_mean_to_kubectl() {
    let cases = [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("~", json!(null)),
        ("NULL", json!(null)),
        ("nULL", json!("nULL")),
        ("80", json!(80)),
        ("-80", json!(-80)),
        ("+80", json!(80)),
        ("1_000", json!(1000)),
        ("0777", json!(511)),
        ("0o777", json!(511)),
        ("0x1F", json!(31)),
        ("0b101", json!(5)),
        ("089", json!(89)),
        ("80.0", json!(80)),
        ("0.5", json!(0.5)),
        (".5", json!(0.5)),
        ("1e3", json!(1000)),
        ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
        ("10.0.0.1", json!("10.0.0.1")),
        ("1.2.3", json!("1.2.3")),
        ("10s", json!("10s")),
        ("500m", json!("500m")),
        ("12:30", json!("12:30")),
        ("2026-01-01T00:00:00Z", json!("2026-01-01T00:00:00Z")),
        ("-", json!([null])),
        ("--1", json!("--1")),
        ("'yes'", json!("yes")),
        ("\"80\"", json!("80")),
        ("!!str 80", json!("80")),
        ("/path", json!("/path")),
    ];
    for (text, meaning) in cases {
        assert_eq!(
            value(&format!("{{v: {text}}}").replace("{v: -}", "v:\n- ")).get("v"),
            Some(&meaning),
            "{text}"
        );
    }
}

#[test]
fn a_text_may_hold_many_documents() {
    assert_eq!(
        values("# nothing\n---\na: 1\n---\n---\nb: 2\n...\n---\n{\"c\": [3]}\n"),
        [json!({"a": 1}), json!({"b": 2}), json!({"c": [3]}),]
    );
    assert_eq!(values(""), [] as [Value; 0]);
    assert_eq!(values("\u{feff}a: 1\n"), [json!({"a": 1})]);
    assert_eq!(value("{\n\t\"a\": \"\\u00e9\\n\"\n}"), json!({"a": "é\n"}));
    assert_eq!(
        value("a: |\n  one\n  two\nb: >-\n  one\n  two\n"),
        json!({"a": "one\ntwo\n", "b": "one two"})
    );
}

#[test]
fn documents_before_a_fault_count() {
    let (documents, fault) = read("a: 1\n---\nb: [\n---\nc: 3\n");
    assert_eq!(documents.iter().map(Node::value).collect::<Vec<_>>(), [json!({"a": 1})]);
    assert!(fault.is_some_and(|fault| fault.place.line >= 3));
}

#[test]
fn anchors_and_merges() {
    assert_eq!(value("a: &x {k: 1}\nb: *x\n"), json!({"a": {"k": 1}, "b": {"k": 1}}));
    let merged = value("base: &x {k: 1, l: 1}\nmore: &y {l: 2, m: 2}\nall:\n  <<: [*x, *y]\n  k: 0\n");
    assert_eq!(merged["all"], json!({"k": 0, "l": 1, "m": 2}));
    assert_eq!(wrong("a: *x\n"), "1:4: not YAML: while parsing node, found unknown anchor");
    assert_eq!(wrong("a:\n  <<: 1\n"), "2:3: only maps can be merged");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    assert_eq!(wrong("a: 1\nb: 2\na: 3\n"), "3:1: key \"a\" already set in map");
    assert_eq!(wrong("? [1]\n: 2\n"), "1:3: a key has to be a string");
    assert_eq!(wrong("a: !mine 1\n"), "1:10: a tag that isn't one of YAML's own");
    assert!(wrong("a:\n\tb: 2\n").starts_with("2:"), "{}", wrong("a:\n\tb: 2\n"));
    assert!(wrong("a: \"open\n").contains("not YAML: "));
}

#[test]
fn a_few_lines_dont_become_gigabytes() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let before = n - 1;
        bomb += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{before}"); 10].join(", "));
    }
    assert!(wrong(&bomb).ends_with("aliases stand for more than 100000 values"));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 10].join(", "));
    assert!(wrong(&long).ends_with("aliases stand for more than 100000 values"));
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(wrong(&deep).contains("nested deeper") || wrong(&deep).contains("recursion"), "{}", wrong(&deep));
}

#[test]
fn fields_are_found_or_what_is_around_them() {
    let (documents, _) = read("spec:\n  rules:\n  - matches: []\n  - name: x\n    port: 80\n");
    let place = |path: &Path| documents[0].find(path).to_string();
    let rules = Path::default().field("spec").field("rules");
    assert_eq!(place(&Path::default()), "1:1");
    assert_eq!(place(&rules), "2:3");
    assert_eq!(place(&rules.join(Step::Item(1))), "4:5");
    assert_eq!(place(&rules.join(Step::Item(1)).field("port")), "5:5");
    assert_eq!(place(&rules.join(Step::Item(1)).field("missing").field("more")), "4:5");
    assert_eq!(place(&rules.join(Step::Item(7))), "2:3");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-zA-Z0-9./~]{1,8}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_is_yaml(json in any_json()) {
        let object = json!({ "v": json });
        prop_assert_eq!(value(&object.to_string()), object.clone());
        prop_assert_eq!(value(&serde_json::to_string_pretty(&object).unwrap()), object);
    }

    #[test]
    fn no_text_is_too_much(text in "[\\PC\n\t]{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_structure_is_too_much(text in "([-?:,{}\\[\\]&*!|>'\"%@#~<] ?|[a-c0-9]{1,2}|\n {0,6}){0,60}") {
        let _ = read(&text);
    }
}
