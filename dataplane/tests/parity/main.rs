//! One truth: what the engine decides and what the fast path's programs do again.
//!
//! One corpus goes through the engine and through the programs as the kernel runs them. A program
//! may leave any packet to the daemon; what it takes, it must send or deliver as the engine would,
//! octet for octet, and count alike. Lists of what has to be taken keep that from being empty talk.
//!
//! Needs the right to load programs. `live` has them where the daemon has them, and needs a network
//! namespace for that.

mod corpus;
mod counting;
mod ending;
mod live;
mod object;
mod packets;
mod relay;
mod shortcut;
mod straight;
mod twins;

#[path = "../../../tests/support/skip.rs"]
mod skip;
#[path = "../support/mod.rs"]
mod support;
