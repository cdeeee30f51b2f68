//! How people and programs talk to the daemon: a Unix stream socket with documents on it.
//!
//! A client sends one JSON object a line and gets one JSON object back for each; [`protocol`] has
//! the words, [`documents`] what comes back. Nothing here knows how the daemon works: the
//! [`Server`] checks who asks and whether they may, hands a [`ControlRequest`] to the owner loop
//! over a channel and writes the answer. What happens reaches it by [`Listeners`], where nobody
//! waits for a slow client. The socket is the node's mobility socket too: requests `send` and
//! `subscribe`, which `docs/mobility-socket.md` describes.
//!
//! Who may ask what: the daemon's own user and root everything, members of the write group
//! everything, members of the read group what changes nothing, those of the steer and the move
//! group that and what their names say. The peer is the one the kernel
//! names (`SO_PEERCRED`, `SO_PEERGROUPS`), never one the client claims to be.

pub mod client;
pub mod documents;
mod line;
mod listeners;
pub mod peer;
pub mod protocol;
pub mod server;
mod session;
mod socket;
mod spare;

pub use client::{Client, ClientError, Heard, Monitor, Subscription};
pub use documents::{Event, EventDocument};
pub use listeners::Listeners;
pub use peer::{Access, Class, Peer};
pub use protocol::{ControlError, ErrorCode, Request, Response};
pub use server::{ControlRequest, Limits, Server, Settings};
pub use socket::BindError;
