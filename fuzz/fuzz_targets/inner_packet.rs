//! Any octets as an inner or outer packet, through a mobile and through its home agent.
//!
//! `cargo +nightly fuzz run inner_packet`; the corpus is replayed by
//! `dataplane/tests/inner_packet.rs`.

#![no_main]

#[path = "../../dataplane/tests/support/inner_packet.rs"]
mod inner_packet;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    inner_packet::check(octets);
});
