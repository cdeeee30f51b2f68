//! Records of mobiles as octets from a disk: any octets, and those of the fuzz target's corpus.

#[path = "support/mobile_record.rs"]
mod oracle;
mod support;

use proptest::prelude::*;

/// req PS-04: a record is read as it was written, or not at all.
#[test]
fn the_corpus_of_the_fuzz_target_holds() {
    let mut read = 0;
    for entry in std::fs::read_dir(support::file("../fuzz/corpus/mobile_record")).expect("there") {
        let path = entry.expect("a readable entry").path();
        let octets = std::fs::read(&path).expect("a file of the corpus");
        let refused =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("refused"));
        assert_eq!(oracle::check(&octets), !refused, "{}", path.display());
        read += 1;
    }
    assert!(read >= 14, "only {read} files");
}

proptest! {
    #[test]
    fn any_octets(flags in 0..8_u8, rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut octets = vec![1, flags];
        octets.extend(rest);
        oracle::check(&octets);
    }
}
