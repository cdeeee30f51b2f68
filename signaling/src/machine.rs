//! What every signaling machine looks like from outside.
//!
//! A machine owns no socket, no clock and no randomness. The caller hands in events with the
//! time, asks for the next deadline, and takes the outputs in the order they were produced.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, HomeAddress};

use crate::time::Timestamp;

/// A state machine without I/O.
pub trait Machine {
    /// What may happen to it.
    type Event;
    /// What it wants done.
    type Output;

    /// Takes one event.
    fn handle(&mut self, now: Timestamp, event: Self::Event);

    /// Does what is due at `now`; harmless when nothing is.
    fn handle_deadline(&mut self, now: Timestamp);

    /// The next output, oldest first.
    fn poll(&mut self) -> Option<Self::Output>;

    /// When [`Self::handle_deadline`] is due, on the monotonic clock; `None` when nothing waits.
    fn deadline(&self) -> Option<Duration>;
}

/// The addresses around one Mobility Header, as they stand in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// IPv6 source address.
    pub source: Ipv6Addr,
    /// IPv6 destination address.
    pub destination: Ipv6Addr,
    /// Address of the Home Address option, when the packet has one (RFC 6275 §6.3).
    pub home_address: Option<HomeAddress>,
    /// Address of the type 2 routing header, when the packet has one (RFC 6275 §6.4).
    pub routing_header: Option<HomeAddress>,
}

impl Envelope {
    /// A packet with neither Home Address option nor routing header.
    pub fn plain(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self { source, destination, home_address: None, routing_header: None }
    }

    /// The source as upper layers see it: the home address where there is one (RFC 6275 §6.1.1).
    pub fn upper_source(&self) -> Ipv6Addr {
        self.home_address.map_or(self.source, |home| home.0)
    }

    /// The destination as upper layers see it: the final one (RFC 6275 §6.1.1).
    pub fn upper_destination(&self) -> Ipv6Addr {
        self.routing_header.map_or(self.destination, |home| home.0)
    }
}

/// A Mobility Header on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The packet around it.
    pub envelope: Envelope,
    /// Leave by this uplink; `None` for ordinary routing.
    pub path: Option<Bid>,
    /// The complete Mobility Header: padded, authenticated, checksum filled.
    pub message: Vec<u8>,
}
