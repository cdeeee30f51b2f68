//! Any octets as what a home agent kept of a mobile.
//!
//! `cargo +nightly fuzz run mobile_record`; the corpus is replayed by
//! `signaling/tests/records.rs`.

#![no_main]

#[path = "../../signaling/tests/support/mobile_record.rs"]
mod mobile_record;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    mobile_record::check(octets);
});
