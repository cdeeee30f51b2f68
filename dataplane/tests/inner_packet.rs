//! Any octets: nothing panics, nothing leaves plain.

#[path = "support/inner_packet.rs"]
mod inner_packet;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/inner_packet");
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("the corpus is in the tree")
        .map(|entry| entry.expect("a readable entry").path())
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a readable file"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn the_corpus_of_the_fuzz_target_holds() {
    let corpus = corpus();
    assert!(corpus.len() >= 20, "{} files", corpus.len());
    for (name, octets) in corpus {
        println!("{name}");
        inner_packet::check(&octets);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_hold(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        inner_packet::check(&octets);
    }

    /// Sound packets with a few octets changed reach further than noise.
    #[test]
    fn changed_packets_hold(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let corpus = corpus();
        let mut octets = which.get(&corpus).1.clone();
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        if let Some(cut) = cut {
            octets.truncate(cut.index(octets.len()));
        }
        inner_packet::check(&octets);
    }
}
