//! Any octets as an ICMPv6 message of Mobile IPv6.
//!
//! `cargo +nightly fuzz run icmpv6`; the corpus is replayed by `signaling/tests/icmpv6.rs`.

#![no_main]

#[path = "../../signaling/tests/support/icmpv6.rs"]
mod icmpv6;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    icmpv6::check(octets);
});
