//! The house rules that a machine can check: who may import whom, and what the pure crates may
//! not touch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// What reaches the system by itself, or exists to reach it.
const IMPURE: [&str; 16] = [
    "tokio",
    "mio",
    "rtnetlink",
    "netlink-sys",
    "nftables",
    "libc",
    "nix",
    "rustix",
    "errno",
    "socket2",
    "getrandom",
    "rand",
    "rand_core",
    "linux-raw-sys",
    "windows-sys",
    "wasi",
];

/// The cores: the crates that know no system, each with the place that is its edge, behind the
/// feature that leaves it out.
const CORES: [(&str, &[&str]); 3] =
    [("policy", &["disk.rs"]), ("signaling", &[]), ("dataplane", &["backend"])];

#[test]
fn the_cores_depend_on_nothing_of_a_system() {
    for directory in ["policy", "signaling", "tests/simulation"] {
        let tables = dependencies(&root().join(directory).join("Cargo.toml"));
        for name in tables.get("dependencies").into_iter().flatten() {
            assert!(!IMPURE.contains(&name.as_str()), "{directory} is pure, but depends on {name}");
        }
    }
    // With their edges left out nothing below them does either, here and where no system is at all.
    for target in ["x86_64-unknown-linux-gnu", "wasm32-unknown-unknown"] {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none"])
            .args(["--format", "{p}", "--target", target, "--no-default-features"])
            .args(["--package", "mtun-policy", "--package", "mtun-signaling"])
            .args(["--package", "mtun-dataplane", "--package", "mtun-simulation"])
            .current_dir(root())
            .output()
            .expect("cargo runs this test and can be run by it");
        let said = String::from_utf8_lossy(&tree.stdout);
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        assert!(said.lines().any(|line| line.starts_with("mtun-dataplane ")), "{said}");
        for name in said.lines().filter_map(|line| line.split_whitespace().next()) {
            assert!(!IMPURE.contains(&name), "{target}: the cores without edges need {name}");
        }
    }
}

#[test]
fn the_cores_ask_no_system_for_anything() {
    let forbidden = [
        "std::fs",
        "std::os::",
        "std::thread",
        "std::process",
        "std::env::",
        "time::Instant",
        "time::SystemTime",
        "Instant::now",
        "SystemTime::now",
        "UdpSocket",
        "TcpStream",
        "TcpListener",
        "UnixStream",
        "UnixDatagram",
        "ToSocketAddrs",
        "unsafe {",
        "extern \"C\"",
    ];
    // The simulation borrows the daemon's translation from lists to snapshots.
    let borrowed = root().join("src/publish.rs");
    let text = fs::read_to_string(&borrowed).expect("a source file is readable");
    assert!(!text.contains("crate::"), "{} is borrowed, but needs others", borrowed.display());
    let mut files = rust_files(&root().join("tests/simulation/src"));
    files.push(borrowed);
    for (directory, edges) in CORES {
        let source = root().join(directory).join("src");
        let core = |file: &PathBuf| !edges.iter().any(|edge| file.starts_with(source.join(edge)));
        files.extend(rust_files(&source).into_iter().filter(core));
        let lib = fs::read_to_string(source.join("lib.rs")).expect("every crate has one");
        for edge in edges.iter().map(|edge| edge.trim_end_matches(".rs")) {
            let left_out = [format!("mod {edge};"), format!("pub mod {edge};")];
            let left_out = left_out.map(|it| format!("#[cfg(feature = \"{edge}\")]\n{it}"));
            assert!(left_out.iter().any(|it| lib.contains(it)), "{directory}: {edge} always is");
        }
    }
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = fs::read_to_string(file).expect("a source file is readable");
        // Tests below a module may do as tests do.
        let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for word in forbidden {
            assert!(!code.contains(word), "{} is pure, but says {word}", file.display());
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
