//! The program: wiring between policy, signaling, the data plane and the machine it runs on.

pub mod cli;
pub mod control;
pub mod daemon;
pub mod edge;
pub mod key;
pub mod lab;
pub mod metrics;
pub mod packets;
pub mod publish;
pub mod store;
