//! The edge against a real kernel, in network namespaces of its own.
//!
//! ```text
//!   access                     mobile                          lan
//!   +--------+  2001:db8:1::/64  +---------+  2001:db8:100:4200::/64  +-----+
//!   | a0  ::1|==================|wlan0  ::7|                          |     |
//!   |        |  2001:db8:2::/64  |          lan0  ::1|===============|l0 ::9|
//!   | b0  ::1|==================|wwan0  ::7|                          |     |
//!   +--------+                   |  mtun0   |                          +-----+
//!                                +---------+   home address 2001:db8:100::42
//! ```
//!
//! Without the rights to make namespaces every test skips and says so.

mod carrier;
mod events;
mod firewall;
mod neighbours;
#[cfg(feature = "bpf")]
mod rounds;
mod routing;
#[path = "../support/skip.rs"]
mod skip;
mod sources;
#[path = "../support/stand_ins.rs"]
mod stand_ins;
mod steering;
mod translation;
mod world;
