//! What should happen to packets: the words, the policy file, the rules.
//!
//! This crate knows no socket, no clock and no packet. It turns a KDL file into rules
//! (`document`, `check`, `compile`), rules and path facts into the present effective list
//! ([`steering`]), and walks that list for one packet ([`Effective::choose`]). Everything it
//! refuses has a code, a place and a fix (`diagnostic`).

mod effective;
mod key;
mod prefix_table;
mod selector;
pub mod terms;

pub use effective::{BlockReply, Choice, Effective, EffectiveRule, Otherwise, Outcome, Usable};
pub use key::{FlowKey, Ingress};
pub use prefix_table::{HostBits, PrefixTable};
pub use selector::{Field, TrafficSelector};
pub use terms::*;
