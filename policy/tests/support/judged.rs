//! Policies with one change, and what is wrong with them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mtun_policy::{Faults, Policy, check_tests, parse};

/// Lists that sets may name.
fn files() -> BTreeMap<PathBuf, Vec<u8>> {
    let files: [(&str, &[u8]); 5] = [
        ("cdn.txt", b"# networks\n2001:db8:c::/48\n192.0.2.0/24\n"),
        (
            "faulty.txt",
            b"2001:db8:c::/48\n  2001:db8:c::1/48  # bits\nexample.com\n2001:db8::/200\n1.2.3.4 5.6.7.8\n",
        ),
        ("empty.txt", b"# nothing yet\n\n"),
        ("binary.txt", b"2001:db8:c::/48\n\xff\xfe\n"),
        ("long.txt", &[b'a'; 2000]),
    ];
    files.into_iter().map(|(name, octets)| (PathBuf::from(name), octets.to_vec())).collect()
}

/// The policy of a text whose own tests hold, or what is wrong with it.
pub fn judged(text: &str) -> Result<Policy, Faults> {
    let policy = parse("bus.kdl", text, &files())?;
    check_tests(&policy)?;
    Ok(policy)
}

/// What is wrong with the base after the change, every fault with a place and a help.
pub fn faults(base: &str, from: &str, to: &str) -> Faults {
    assert!(base.contains(from), "the base has no `{from}`");
    let text = base.replacen(from, to, 1);
    match judged(&text) {
        Ok(_) => panic!("`{to}` is accepted"),
        Err(faults) => {
            for fault in &faults.0 {
                let in_file = fault.file == "bus.kdl";
                assert!(in_file || fault.file.ends_with(".txt"), "{fault}");
                assert!(fault.line >= 1 && fault.column >= 1 && fault.length >= 1, "{fault}");
                assert!(fault.help.as_ref().is_some_and(|help| !help.is_empty()), "{fault}");
                let line = text.lines().nth(fault.line - 1).unwrap_or_default();
                assert!(!in_file || *fault.source_line == *line, "{fault}");
            }
            faults
        }
    }
}

/// The snapshot of a list of changes to one base.
pub fn seen(base: &str, cases: &[(&str, &str)]) -> String {
    let shown =
        cases.iter().map(|(from, to)| format!("## {from} => {to}\n{}\n", faults(base, from, to)));
    shown.collect::<Vec<_>>().join("\n")
}
