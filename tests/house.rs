//! The house rules that a machine can check: who may import whom, and what the pure crates may
//! not touch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates of the house and the crates of the house that each may depend on.
const ARROWS: [(&str, &[&str]); 6] = [
    ("policy", &[]),
    ("signaling", &["mtun-policy"]),
    ("dataplane", &["mtun-policy"]),
    ("tests/conformance", &[]),
    ("tests/simulation", &["mtun-policy", "mtun-signaling", "mtun-dataplane"]),
    (".", &["mtun-policy", "mtun-signaling", "mtun-dataplane"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Names in the dependency tables of a manifest, by table; `[dependencies.x]` counts as well.
fn dependencies(manifest: &Path) -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(manifest).expect("the manifest is in the tree");
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            table = header.to_owned();
            if let Some((parent, name)) = header.rsplit_once('.')
                && parent.ends_with("dependencies")
            {
                tables.entry(parent.to_owned()).or_default().push(name.to_owned());
            }
        } else if table.ends_with("dependencies")
            && let Some((name, _)) = line.split_once('=')
            && !name.trim_start().starts_with('#')
        {
            tables.entry(table.clone()).or_default().push(name.trim().to_owned());
        }
    }
    tables
}

#[test]
fn nobody_imports_against_the_arrows() {
    for (directory, allowed) in ARROWS {
        let manifest = root().join(directory).join("Cargo.toml");
        for (table, names) in dependencies(&manifest) {
            for name in names.iter().filter(|name| name.starts_with("mtun-")) {
                assert!(
                    allowed.contains(&name.as_str()),
                    "{directory}/Cargo.toml: [{table}] names {name}; allowed are {allowed:?}"
                );
            }
        }
    }
}

#[test]
fn signaling_and_policy_stay_pure() {
    let impure =
        ["tokio", "rtnetlink", "nftables", "libc", "rustix", "socket2", "getrandom", "rand"];
    for directory in ["policy", "signaling", "tests/simulation"] {
        let tables = dependencies(&root().join(directory).join("Cargo.toml"));
        for name in tables.get("dependencies").into_iter().flatten() {
            assert!(!impure.contains(&name.as_str()), "{directory} is pure, but depends on {name}");
        }
    }
    // No clock and no socket of its own either; reading policy files is the one exception.
    let forbidden = [
        "std::time::Instant",
        "std::time::SystemTime",
        "Instant::now",
        "SystemTime::now",
        "std::net::UdpSocket",
        "std::thread",
    ];
    // The simulation borrows the daemon's translation from lists to snapshots.
    let borrowed = root().join("src/publish.rs");
    let text = fs::read_to_string(&borrowed).expect("a source file is readable");
    assert!(!text.contains("crate::"), "{} is borrowed, but needs others", borrowed.display());
    for directory in ["policy/src", "signaling/src", "tests/simulation/src"] {
        for file in rust_files(&root().join(directory)).into_iter().chain([borrowed.clone()]) {
            let text = fs::read_to_string(&file).expect("a source file is readable");
            for word in forbidden {
                assert!(!text.contains(word), "{} is pure, but says {word}", file.display());
            }
        }
    }
}

#[test]
fn the_rules_are_walked_in_one_place() {
    // `Effective::choose` is the walk; only `decide` and the policy crate itself call it.
    let mut callers = Vec::new();
    for directory in ["dataplane/src", "signaling/src", "src"] {
        for file in rust_files(&root().join(directory)) {
            let text = fs::read_to_string(&file).expect("a source file is readable");
            if text.contains(".choose(") {
                callers.push(file.strip_prefix(root()).expect("under the root").to_owned());
            }
        }
    }
    assert_eq!(callers, [PathBuf::from("dataplane/src/decide.rs")]);
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory is in the tree") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
