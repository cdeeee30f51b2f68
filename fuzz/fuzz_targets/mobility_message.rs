//! Any octets as a message that a client sends to the mobility socket.
//!
//! `cargo +nightly fuzz run mobility_message`; the corpus is replayed by
//! `signaling/tests/mobility_message.rs`.

#![no_main]

#[path = "../../signaling/tests/support/mobility_message.rs"]
mod mobility_message;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    mobility_message::check(octets);
});
