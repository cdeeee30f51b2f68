//! What route optimization is told and what it wants done.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, CareOfAddress, HomeAddress};

use super::{RouteOptimizationNotice, Unoptimized};
use crate::machine::Envelope;

/// What a mobile needs to know to optimize routes.
#[derive(Clone, Debug)]
pub struct RouteOptimizationConfig {
    /// The address that is bound.
    pub home_address: HomeAddress,
    /// Lifetime to ask for; never more than
    /// [`MAX_RR_BINDING_LIFETIME`](crate::return_routability::MAX_RR_BINDING_LIFETIME).
    pub lifetime: Duration,
    /// Whether several care-of addresses are registered (RFC 5648).
    pub multiple_coa: bool,
    /// Most correspondents at a time.
    pub max_correspondents: usize,
}

/// What may happen.
#[derive(Clone, Debug)]
pub enum RouteOptimizationEvent {
    /// Traffic or policy wants the route to this correspondent optimized.
    Wanted {
        /// Its address; its home address if it is mobile too.
        correspondent: Ipv6Addr,
    },
    /// Nobody wants that any more.
    Unwanted {
        /// Its address.
        correspondent: Ipv6Addr,
    },
    /// The home agent holds this care-of address, new or prolonged.
    CareOf {
        /// The uplink's BID.
        bid: Bid,
        /// BID-PRI, lower is better.
        priority: u8,
        /// The address.
        care_of: CareOfAddress,
        /// Until when the home agent holds it, on the monotonic clock.
        expires: Duration,
    },
    /// The home agent holds it no more, or the uplink is down.
    CareOfGone {
        /// The uplink's BID.
        bid: Bid,
    },
    /// The mobile is on its home link and uses no care-of address; until the next
    /// [`Self::CareOf`].
    ReturnedHome,
    /// A Mobility Header arrived.
    Received {
        /// The addresses of its packet, the inner one if it was tunneled.
        envelope: Envelope,
        /// The whole header.
        message: Vec<u8>,
        /// Whether it came through the tunnel from the home agent.
        tunneled: bool,
    },
    /// Packets with a Home Address option or a type 2 routing header do not get through between
    /// this uplink and the correspondent.
    HeadersEaten {
        /// The correspondent.
        correspondent: Ipv6Addr,
        /// The uplink's BID.
        bid: Bid,
    },
    /// An ICMPv6 Parameter Problem quoted a message that we did send: the correspondent does not
    /// know the Mobility Header (RFC 6275 §11.3.5).
    Unsupported {
        /// The correspondent.
        correspondent: Ipv6Addr,
    },
    /// End all bindings and stop. The caller limits how long it waits for
    /// [`RouteOptimizationOutput::Stopped`].
    Stop,
}

/// The way a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Inside the home tunnel, by this uplink's binding.
    Tunnel(Bid),
    /// Straight by this uplink.
    Path(Bid),
    /// By the home link.
    Home,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteOptimizationOutput {
    /// Send this message.
    Transmit {
        /// The way it takes.
        route: Route,
        /// The packet around it; inside the tunnel, if it goes there.
        envelope: Envelope,
        /// The complete Mobility Header.
        message: Vec<u8>,
    },
    /// Packets that go by this uplink may go straight to the correspondent.
    Bound {
        /// The correspondent.
        correspondent: Ipv6Addr,
        /// The uplink's BID.
        bid: Bid,
        /// Its care-of address.
        care_of: Ipv6Addr,
        /// Until when, on the monotonic clock.
        expires: Duration,
        /// Whether they could not before; false when a refresh prolonged it.
        first: bool,
    },
    /// Packets that go by this uplink must take the tunnel.
    Unbound {
        /// The correspondent.
        correspondent: Ipv6Addr,
        /// The uplink's BID.
        bid: Bid,
        /// Why.
        reason: Unoptimized,
    },
    /// Something for the log and the counters.
    Notice(RouteOptimizationNotice),
    /// Everything has ended as far as it could be; nothing follows.
    Stopped,
}
