//! The program: wiring between policy, signaling, the data plane and the machine it runs on.
//!
//! The roles are features, `mobile`, `agent` and `correspondent`. A role that is left out is not
//! in the program, and a policy that has it is refused at start with the feature's name.

#![cfg_attr(
    not(all(feature = "mobile", feature = "agent", feature = "correspondent")),
    allow(
        unused_variables,
        unreachable_code,
        reason = "what follows the making of a machine that is left out is never reached"
    )
)]

pub mod arrivals;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod dashboard;
pub mod edge;
pub mod fast_path;
pub mod http;
pub mod key;
pub mod lab;
pub mod metrics;
pub mod packets;
pub mod privileges;
pub mod publish;
#[cfg(feature = "bpf")]
pub mod shortcut;
pub mod store;
pub mod tunnel_interface;
