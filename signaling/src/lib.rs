//! How bindings come and go.
//!
//! This crate holds the Mobility Header codec ([`wire`]), the authentication of its messages
//! ([`auth`]) and the machines that use both. It opens no socket, reads no clock and draws no
//! random number: events and time come in as arguments, outputs leave through a queue
//! ([`machine`]). It knows the words of `mtun-policy` and nothing of the data plane.

pub mod auth;
pub mod error;
pub mod machine;
pub mod time;
pub mod wire;

pub use error::{Answer, DecodeError, EncodeError};
pub use machine::{Envelope, Machine, Transmit};
pub use time::{NtpOffset, NtpTime, Timestamp};
