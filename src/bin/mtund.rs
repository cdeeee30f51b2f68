//! `mtund`.
fn main() {}
