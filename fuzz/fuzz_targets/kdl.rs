//! Any octets as a policy file and as a filter.
//!
//! `cargo +nightly fuzz run kdl`; the corpus is replayed by `policy/tests/properties.rs`.

#![no_main]

#[path = "../../policy/tests/support/kdl.rs"]
mod kdl;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    kdl::check(octets);
});
