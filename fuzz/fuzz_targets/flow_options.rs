//! Any octets as a Flow Identification, Flow Summary or Vendor Specific option.
//!
//! `cargo +nightly fuzz run flow_options`; the corpus is replayed by
//! `signaling/tests/flow_options.rs`.

#![no_main]

#[path = "../../signaling/tests/support/flow_options.rs"]
mod flow_options;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| {
    flow_options::check(octets);
});
