//! Every fuzz target has a corpus, and ordinary tests replay it.

use std::fs;
use std::path::Path;

#[test]
fn every_corpus_is_replayed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).expect("in the tree");
    let mut targets = 0;
    for entry in fs::read_dir(root.join("fuzz/fuzz_targets")).expect("in the tree") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no target");
        let corpus = root.join("fuzz/corpus").join(&name);
        let inputs = fs::read_dir(&corpus).map_or(0, |inputs| inputs.count());
        assert!(inputs >= 10, "{name} has {inputs} inputs");
        let text = fs::read_to_string(&path).expect("readable").replace("\n//!", "");
        let replay = text.split("replayed by").nth(1).and_then(|rest| rest.split('`').nth(1));
        let replay = replay.unwrap_or_else(|| panic!("{name} says no test that replays it"));
        let test = fs::read_to_string(root.join(replay)).expect(replay);
        assert!(test.contains(&format!("../fuzz/corpus/{name}\"")), "{replay} replays no {name}");
        targets += 1;
    }
    assert!(targets >= 6, "only {targets} targets");
}
