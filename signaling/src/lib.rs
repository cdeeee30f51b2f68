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
//! [`HomeAgent`] decides what to accept and remembers it. A [`Correspondent`] does the same for
//! mobiles that it knows nothing of but what return routability shows, and [`RouteOptimization`]
//! is the mobile's side of that: it keeps care-of addresses registered at correspondents.
//! [`mobile::discovery`] finds home agents and the prefixes of the home link from abroad.
//!
//! All are machines ([`machine`]): they open no socket, read no clock and draw no random number.
//! Events, time and seeds ([`seed`]) come in as arguments, outputs leave through one ordered
//! queue, and the caller asks for the next deadline. They write and read messages through the
//! codec ([`wire`]) and believe only what [`auth`] or [`return_routability`] has verified. What
//! they hold is plain data ([`binding`]).
//!
//! The crate knows the words of `mtun-policy` and nothing of the data plane, and it judges no
//! flow: which binding carries which packet is decided elsewhere.
//!
//! Each role is a feature, `mobile`, `agent` and `correspondent`; all are built by default. With
//! `words` a role that is left out still has its events, outputs and configuration, and a machine
//! that nobody can make, so that a program drives what there is without asking.
//!
//! Standards: RFC 6275, RFC 3963, RFC 4285, RFC 5648, RFC 6089 with RFC 6088, RFC 5094.

#![cfg_attr(
    not(all(feature = "mobile", feature = "agent", feature = "correspondent")),
    allow(
        dead_code,
        unused_imports,
        reason = "roles share pieces, and one left out leaves some idle"
    )
)]

#[cfg(feature = "words")]
mod absent;
#[cfg(feature = "agent")]
pub mod agent;
pub mod auth;
pub mod binding;
mod budget;
#[cfg(feature = "correspondent")]
pub mod correspondent;
pub mod error;
pub mod flow;
pub mod machine;
#[cfg(feature = "mobile")]
pub mod mobile;
pub mod mobility_socket;
pub mod registration;
pub mod return_routability;
pub mod seed;
pub mod sequence;
pub mod shares;
pub mod time;
pub mod turns;
pub mod wire;

// A role that is left out lends its words, and the machine itself is not reachable.
#[cfg(all(feature = "words", not(feature = "agent")))]
#[path = "agent/mod.rs"]
mod whole_agent;
#[cfg(all(feature = "words", not(feature = "correspondent")))]
#[path = "correspondent/mod.rs"]
mod whole_correspondent;
#[cfg(all(feature = "words", not(feature = "mobile")))]
#[path = "mobile/mod.rs"]
mod whole_mobile;

#[cfg(all(feature = "words", not(feature = "agent")))]
pub use absent::agent;
#[cfg(all(feature = "words", not(feature = "correspondent")))]
pub use absent::correspondent;
#[cfg(all(feature = "words", not(feature = "mobile")))]
pub use absent::mobile;

#[cfg(any(feature = "agent", feature = "words"))]
pub use agent::{AgentConfig, AgentEvent, AgentMobile, AgentNotice, AgentOutput, HomeAgent};
pub use binding::{
    Binding, BindingCache, BindingCacheEntry, BindingUpdateList, BindingUpdateListEntry,
};
#[cfg(any(feature = "correspondent", feature = "words"))]
pub use correspondent::{
    Correspondent, CorrespondentConfig, CorrespondentEvent, CorrespondentNotice,
    CorrespondentOutput, Pair,
};
pub use error::{Answer, DecodeError, EncodeError};
pub use flow::{DigestState, FlowDigest, FlowState, FlowSupport, PeerExtensions, RegisteredFlow};
pub use machine::{Envelope, Machine, Transmit};
#[cfg(any(feature = "mobile", feature = "words"))]
pub use mobile::route_optimization::{
    CorrespondentBinding, Route, RouteOptimization, RouteOptimizationConfig,
    RouteOptimizationEvent, RouteOptimizationNotice, RouteOptimizationOutput,
};
#[cfg(any(feature = "mobile", feature = "words"))]
pub use mobile::{MobileConfig, MobileEvent, MobileNode, MobileNotice, MobileOutput};
pub use registration::{Phase, UnboundReason};
pub use seed::Seed;
pub use time::{NtpOffset, NtpTime, Timestamp};
