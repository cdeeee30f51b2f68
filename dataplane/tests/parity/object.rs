//! The object that is checked in is what its source says.

use std::path::Path;
use std::process::Command;

use crate::skip::{runs, skip};

#[test]
fn the_object_is_built_from_its_source() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf");
    if !runs(Command::new("clang").arg("--version"))
        || !runs(Command::new("llvm-strip").arg("--version"))
    {
        return skip("rebuilding the fast path's object: no clang or no llvm-strip");
    }
    let version = Command::new("clang").arg("--version").output().unwrap().stdout;
    let version = String::from_utf8_lossy(&version).lines().next().unwrap_or_default().to_owned();
    let built_by = std::fs::read_to_string(source.join("mtun.bpf.clang")).unwrap();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mtun.bpf.o");
    let status = Command::new(source.join("build.sh")).arg(&out).status().unwrap();
    assert!(status.success(), "the source compiles, by {version} too");
    if version != built_by.trim() {
        // Another compiler writes other instructions of the same meaning.
        return skip(&format!(
            "comparing the fast path's object: built by {}, here is {version}",
            built_by.trim()
        ));
    }
    let (now, then) =
        (std::fs::read(out).unwrap(), std::fs::read(source.join("mtun.bpf.o")).unwrap());
    assert!(now == then, "mtun.bpf.o is not what its source says: run dataplane/bpf/build.sh");
}
