//! Any octets as a message of neighbour discovery.
//!
//! `cargo +nightly fuzz run neighbour_discovery`; the corpus is replayed by
//! `signaling/tests/neighbour_discovery.rs`.

#![no_main]

#[path = "../../signaling/tests/support/neighbour_discovery.rs"]
mod neighbour_discovery;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    neighbour_discovery::check(octets);
});
