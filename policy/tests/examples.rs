//! Every policy in `examples/` loads, with no warning but that of the downlink, and its own tests
//! hold.
#![cfg(feature = "disk")]

use std::path::Path;

use mtun_policy::{Code, load, run_tests};

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
        let codes: Vec<Code> = policy.warnings.iter().map(|warning| warning.code).collect();
        if path.ends_with("city-bus.kdl") {
            // Who asks that the agent be told the rules is told what cannot be.
            assert_eq!(codes, [Code::Downlink; 5], "{:#?}", policy.warnings);
        } else if path.ends_with("fleet.kdl") {
            assert!(codes.iter().all(|code| *code == Code::Downlink), "{:#?}", policy.warnings);
        } else {
            assert_eq!(codes, [], "{:#?}", policy.warnings);
        }
        seen.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    let wanted = [
        "city-bus.kdl",
        "correspondent.kdl",
        "figure-11.kdl",
        "fleet.kdl",
        "figure-11-optimized.kdl",
        "home-agent.kdl",
        "mobile-node.kdl",
    ];
    for name in wanted {
        assert!(seen.iter().any(|file| file == name), "{name} is missing among {seen:?}");
    }
}
