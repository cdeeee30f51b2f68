//! Any octets as a Mobility Header.
//!
//! `cargo +nightly fuzz run mobility_header`; the corpus is replayed by
//! `signaling/tests/properties.rs`.

#![no_main]

#[path = "../../signaling/tests/support/mobility_header.rs"]
mod mobility_header;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    mobility_header::check(octets);
});
