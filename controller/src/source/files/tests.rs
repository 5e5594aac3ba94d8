use super::*;
use std::path::Path;

#[test]
fn examples_have_no_mistakes() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for folder in
        ["quickstart", "headers", "cross-namespace", "redirects", "timeouts", "tls", "traffic-split"]
    {
        let loaded = load(&[examples.join(folder)]);
        assert_eq!(loaded.errors, [], "{folder}");
        assert!(!loaded.objects.is_empty(), "{folder}");
    }
}
