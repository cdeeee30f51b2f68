//! The mobility socket: what a node tells programs of its mobility, and what they may tell it.
//!
//! The SHISA paper's table 1 has twelve messages between the kernel and the mobility programs.
//! Here they are typed requests and events of one protocol, whose transport is the daemon's
//! control socket (`docs/mobility-socket.md` is its page). What the paper's §5.3 misses, a filter,
//! is [`Filter`]: a client gets what it asked for and nothing else.
//!
//! ```text
//!   the node ──► Hub: the facts, told once ──► one bounded queue per client ──► its connection
//!                 │                              │ full: emptied, counted
//!                 └── present state, by key ─────┘ and the present state again
//! ```
//!
//! Messages are of two kinds. A **fact** stands until another takes its place or ends it: a
//! binding, a link with a care-of address, a role, being at home. A **hint** passes: it is for
//! those who listen at that moment. Who comes late is given all facts first.
//!
//! Nothing here does I/O, reads a clock or knows who is connected; nothing here changes a
//! binding either.

mod display;
mod facts;
mod filter;
mod hub;
mod message;
mod names;
mod read;
mod rights;
#[cfg(test)]
mod tests;

pub use facts::{FactKey, Facts, Subject};
pub use filter::{FILTER_MAX, Filter, FilterError, Scope};
pub use hub::{Delivery, Hub, Interest, Next, SubscriberId};
pub use message::{
    BcFlush, BcRemove, BeCause, BeHint, BulFlush, BulRemove, CachedBinding, DadState,
    DuplicateDetection, HomeHint, ListedBinding, MdCommand, MdInfo, MobilityMessage, NodetypeInfo,
    RrHint,
};
pub use names::{MobilityKind, UnknownKind};
pub use read::{MESSAGE_MAX, ReadError, read, read_value};
pub use rights::{Class, FromClient, matrix};
