//! How bindings come and go.
//!
//! ```text
//!        mobile                                             home agent
//!   +---------------+   Binding Update: BIDs, prefixes   +---------------+
//!   |  MobileNode   | ─────────────────────────────────► |   HomeAgent   |
//!   |  update list  | ◄───────────────────────────────── | binding cache |
//!   +---------------+   Acknowledgement: a verdict each  +---------------+
//! ```
//!
//! [`MobileNode`] keeps the care-of addresses of a mobile node or mobile router registered,
//! [`HomeAgent`] decides what to accept and remembers it. Both are machines ([`machine`]): they
//! open no socket, read no clock and draw no random number. Events and time come in as arguments,
//! outputs leave through one ordered queue, and the caller asks for the next deadline. Both write
//! and read messages through the codec ([`wire`]) and believe only what [`auth`] has verified.
//! What they hold is plain data ([`binding`]).
//!
//! The crate knows the words of `mtun-policy` and nothing of the data plane, and it judges no
//! flow: which binding carries which packet is decided elsewhere.
//!
//! Standards: RFC 6275, RFC 3963, RFC 4285, RFC 5648; of RFC 6089 the BID priority.

pub mod agent;
pub mod auth;
pub mod binding;
mod budget;
pub mod error;
pub mod machine;
pub mod mobile;
pub mod registration;
pub mod time;
pub mod wire;

pub use agent::{AgentConfig, AgentEvent, AgentMobile, AgentNotice, AgentOutput, HomeAgent};
pub use binding::{
    Binding, BindingCache, BindingCacheEntry, BindingUpdateList, BindingUpdateListEntry,
};
pub use error::{Answer, DecodeError, EncodeError};
pub use machine::{Envelope, Machine, Transmit};
pub use mobile::{MobileConfig, MobileEvent, MobileNode, MobileNotice, MobileOutput};
pub use registration::{Phase, UnboundReason};
pub use time::{NtpOffset, NtpTime, Timestamp};
