//! What happens to a packet: the decision, the packet paths and their backends.
//!
//! ```text
//!            inner packet                                   outer packet
//!   mtun0 ──► packet ──► flow table ──► decide ──► encapsulate ──► uplink
//!   mtun0 ◄── decapsulate ◄── admit ◄── reassemble ◄── packet socket
//! ```
//!
//! Policy meets bindings in exactly one function, [`decide()`]; its mirror [`admit()`] reads the same
//! tables backwards, so that one table is routing on the way out and access list on the way in.
//! Both read a frozen [`Snapshot`]; one packet never sees half of a change. What is faster
//! than a decision, here the [`FlowTable`] and beside it every kernel fast path, only remembers
//! decisions and never makes one.
//!
//! Three rules hold everywhere in this crate:
//! * A packet with a home source leaves encapsulated, straight with a care-of address in its place,
//!   translated, or not at all. The one exception is the home link itself, where the home address
//!   belongs. There is no other kind of [`Verdict::Send`], and the only other way past the tunnel is
//!   [`Verdict::Breakout`].
//! * Every way of saying no is a [`DropReason`] or an [`IgnoreReason`], and each is counted.
//! * Nothing from the wire panics or allocates without a bound.
//!
//! [`Engine`] is the packet loop of one home network without its I/O: bytes in, a verdict and
//! bytes out, time as an argument. Devices and sockets live under `backend`, a feature of this name
//! that is on unless said otherwise; nothing else in this crate asks the system for anything.
//!
//! Standards: RFC 6275 §9.3, §10.4, §11.3; RFC 3963 §5.5, §6.4; RFC 5648 §6.5; RFC 2473; RFC 6040.

pub mod abi;
mod admit;
mod answer;
#[cfg(feature = "backend")]
pub mod backend;
mod conversations;
mod copies;
mod counters;
mod decide;
mod diff;
mod encapsulation;
mod engine;
mod explain;
mod fast_path;
mod flow_lines;
mod flow_table;
mod fragments;
mod groups;
mod hashing;
mod joining;
mod memory;
mod moves;
mod mtu;
mod notes;
mod optimized;
mod own;
mod packet;
mod pairs;
mod party;
mod prefix_owners;
mod probe;
mod problem;
mod publication;
mod reason;
mod reassembly;
mod receive;
mod receive_straight;
mod reevaluate;
mod registration;
mod relay;
mod send;
mod sends;
mod settle;
mod shared_index;
mod snapshot;
mod straight;
mod succession;
mod superpacket;
mod uids;
mod verified;
mod way_in;
pub mod wire;

pub use admit::{
    Admitted, AdmittedStraight, NotStraightIn, OuterKey, StraightKey, admit, admit_straight,
};
pub use conversations::ConversationTimes;
pub use copies::Limits as OrderLimits;
pub use counters::{
    CopyTraffic, CounterSnapshot, Counters, Direction, Form, Moves, OrderCounts, Traffic,
};
pub use decide::{Breakout, Copies, Decision, Encapsulation, Route, Side, decide};
pub use diff::{Course, CourseEnd, WouldMove, diff};
pub use encapsulation::{EcnViolation, inner_ecn, outer_ecn};
pub use engine::{Engine, Settings, Verdict};
pub use explain::{Explained, ExplainedCopy, ExplainedRegistration, Fate, explain};
pub use fast_path::{Carried, Exit, FastPath, LEASE, SEES};
pub use flow_table::{FlowEntry, FlowTable, Glance};
pub use groups::{GroupKey, GroupTable};
pub use joining::{CHECKSUM, Joined, Joining};
pub use memory::{Answer, Due, Marks, Memory, Remembered, Way};
pub use moves::{MoveReason, MoveRecord, Moved};
pub use mtu::{MIN_MTU, inner_mtu};
pub use notes::RouteNote;
pub use packet::{Inner, InnerFragment};
pub use pairs::{Held, HeldBinding, Pair, PairEntry, PairTable};
pub use publication::{Change, Publication, SpareSnapshot};
pub use reason::{DropReason, IgnoreReason};
pub use reassembly::Limits;
pub use registration::{Binding, Bindings, CopyMark, PathId, Registration};
pub use sends::Sends;
pub use snapshot::{BindingTable, Snapshot};
pub use straight::NotStraight;
pub use superpacket::{Cuts, Whole};
pub use uids::Uids;
