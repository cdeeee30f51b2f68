//! Every policy in `examples/` loads, without warnings, and its own tests hold.

use std::path::Path;

use mtun_policy::{load, run_tests};

#[test]
fn every_example_holds() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "kdl") {
            continue;
        }
        let policy = load(&path).unwrap_or_else(|faults| panic!("{faults}"));
        for outcome in run_tests(&policy) {
            assert!(outcome.passed(), "{}", outcome.failures[0]);
            assert!(outcome.expectations > 0);
        }
        assert_eq!(policy.warnings, []);
        seen.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    for name in ["figure-11.kdl", "home-agent.kdl", "mobile-node.kdl"] {
        assert!(seen.iter().any(|file| file == name), "{name} is missing among {seen:?}");
    }
}
