//! What must hold for any octets given as a policy; shared by the fuzz target and the tests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mtun_policy::{
    Code, Given, check_tests, explain_offline, parse, parse_filter, parse_flow, parse_given,
    parse_question,
};

/// Reads the octets as a policy that may include itself and one other file, as a list, and as a
/// filter.
///
/// Panics if the reader does, or if a fault lacks its place or its help.
pub fn check(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    files.insert(PathBuf::from("part.kdl"), b"interface wlan7 { class wlan; }\n".to_vec());
    files.insert(PathBuf::from("self.kdl"), octets.to_vec());
    files.insert(PathBuf::from("list.txt"), octets.to_vec());
    files.insert(PathBuf::from("cdn.txt"), b"2001:db8:c::/48\n192.0.2.0/24\n".to_vec());
    match parse("self.kdl", text, &files) {
        Ok(policy) => {
            for warning in &policy.warnings {
                let _ = warning.to_string();
            }
            if let Err(faults) = check_tests(&policy) {
                assert!(faults.0.iter().all(|fault| fault.code == Code::TestFailed));
            }
            for test in &policy.tests {
                let home = policy.home(test.home.as_str()).expect("a test belongs to a home");
                let given = Given::default();
                let _ = explain_offline(&policy, home, &test.key, test.origin, &given).to_string();
            }
            let _ = parse_filter(text, Some(&policy));
            let _ = parse_flow(text, &policy);
            let _ = parse_question(text, &policy);
            let _ = parse_given(text, &policy);
        }
        Err(faults) => {
            assert!(!faults.0.is_empty());
            for fault in &faults.0 {
                assert!(fault.line >= 1 && fault.column >= 1 && fault.length >= 1, "{fault:?}");
                assert!(fault.help.as_ref().is_some_and(|help| !help.is_empty()), "{fault:?}");
                assert!(fault.message.len() <= 410 && fault.source_line.chars().count() <= 160);
            }
            let _ = faults.to_string();
        }
    }
    if let Err(fault) = parse_filter(text, None) {
        assert!(fault.help.is_some());
        let _ = fault.to_string();
    }
}
