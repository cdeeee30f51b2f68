//! `mtun`.
fn main() {}
