//! What happens to a packet.

pub mod backend;
