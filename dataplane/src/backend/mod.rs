//! The edge of the data plane: where packets meet the kernel.
//!
//! Inner packets enter and leave by a [`Tun`] or, where the kernel has that module, a [`Kmod`]: the
//! one interface of a home network, which is a [`Port`] to its engine. Outer packets
//! leave by an [`Uplink`], or by a [`LinkSocket`] while their next hop is known, and arrive by a [`PacketSocket`], which sees them before the kernel's own
//! IPv6 does, so that a kernel without Mobile IPv6 neither answers nor drops them. Nothing here
//! judges a packet: bytes go in, bytes come out, and every failure is a named reason.
//!
//! All descriptors are non-blocking. A packet thread sleeps in [`wait`] over its own descriptors
//! and one [`Waker`], so it stops at once when asked.
//!
//! This is the only place of the workspace with `unsafe`: calls into the kernel that the standard
//! library does not offer, each with the fact that makes it sound.

#[cfg(feature = "bpf")]
mod bpf;
mod breakout;
mod kmod;
mod link_socket;
mod neighbour_socket;
mod packet_socket;
#[cfg(feature = "bpf")]
mod pins;
mod port;
mod route_lookup;
mod sock_diag;
mod steering;
mod sys;
mod tun;
mod uplink;
mod vnet;
mod wake;

#[cfg(feature = "bpf")]
pub use bpf::{Bpf, BpfError, BpfPath, ExitOf, FAST_PATHS, Hook, Tried};
pub use breakout::{BreakoutLink, MARK_PLAIN, MARK_TRANSLATED};
pub use kmod::{Kmod, KmodError, KmodExit, KmodPath, KmodQueue, Missed};
pub use link_socket::{Left, LinkSocket, NextHop};
pub use neighbour_socket::NeighbourSocket;
pub use packet_socket::{PacketSocket, PacketSocketError, Statistics};
#[cfg(feature = "bpf")]
pub use pins::{NoPins, Pins};
pub use port::Port;
pub use route_lookup::{RouteLookup, is_ethernet};
pub use sock_diag::SockDiag;
pub use steering::SteeringError;
pub use tun::{Tun, TunError, TunQueue};
pub use uplink::{SendError, Uplink};
pub use vnet::{Received, VnetHeader};
pub use wake::{Waker, wait};

/// A receive buffer that holds any packet: 64 KiB of IPv6 payload, its headers and a link header.
pub const RECEIVE_BUFFER: usize = 65_536 + 128;
