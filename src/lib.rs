//! The program: wiring between policy, signaling, the data plane and the machine it runs on.

pub mod control;
pub mod lab;
pub mod metrics;
