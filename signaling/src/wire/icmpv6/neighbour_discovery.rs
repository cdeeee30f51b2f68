//! Neighbour discovery (RFC 4861 §4), as far as a home link needs it: who has an address there,
//! and which of its routers are home agents (RFC 6275 §7).
//!
//! Unlike the messages of Mobile IPv6 these are trusted only for having crossed no router, so that
//! [`receive`] is given the hop limit, and checks everything that RFC 4861 §6.1 and §7.1 ask for.

use std::fmt;
use std::net::Ipv6Addr;

use super::{CHECKSUM, IcmpError, PrefixInformation, checksum, is_same, options};
use crate::wire::iana::icmpv6::{self, option};

/// The hop limit that every such packet has (RFC 4861 §7.1).
pub const HOP_LIMIT: u8 = 255;
/// All nodes of a link (RFC 4291 §2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers of a link (RFC 4291 §2.7.1).
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Type, Code, Checksum and the four octets after them.
const HEADER: usize = 8;
/// Where the options of a Router Advertisement begin.
const ROUTER_OPTIONS: usize = 16;
/// Where those of messages with a target begin.
const TARGET_OPTIONS: usize = 24;
/// Most options that are read of one message; a link has a few prefixes.
const MAX_OPTIONS: usize = 64;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDES: u8 = 0x20;
const HOME_AGENT: u8 = 0x20;
const MOBILE_ROUTERS: u8 = 0x80;

/// The group that the owner of an address listens to (RFC 4291 §2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// A link-layer address of 48 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkLayerAddress(pub [u8; 6]);

impl LinkLayerAddress {
    /// Where frames to an IPv6 group go (RFC 2464 §7).
    pub fn of_group(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

impl fmt::Display for LinkLayerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for LinkLayerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Asks the routers of a link to say something (RFC 4861 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterSolicitation {
    /// Source Link-Layer Address.
    pub source_link_layer: Option<LinkLayerAddress>,
}

/// What a router says of itself and its link (RFC 4861 §4.2, RFC 6275 §7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// Cur Hop Limit; 0 says nothing.
    pub hop_limit: u8,
    /// M: addresses by DHCPv6.
    pub managed: bool,
    /// O: other things by DHCPv6.
    pub other: bool,
    /// H: it is a home agent on this link.
    pub home_agent: bool,
    /// Router Lifetime in seconds; 0 is no default router.
    pub lifetime: u16,
    /// Reachable Time in milliseconds; 0 says nothing.
    pub reachable: u32,
    /// Retrans Timer in milliseconds; 0 says nothing.
    pub retransmit: u32,
    /// Source Link-Layer Address.
    pub source_link_layer: Option<LinkLayerAddress>,
    /// The prefixes of the link.
    pub prefixes: Vec<PrefixInformation>,
    /// Advertisement Interval, in milliseconds.
    pub interval: Option<u32>,
    /// Home Agent Information.
    pub information: Option<HomeAgentInformation>,
}

/// What a home agent says of itself (RFC 6275 §7.4, RFC 3963 §7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeAgentInformation {
    /// R: it serves mobile routers.
    pub mobile_routers: bool,
    /// Higher is better.
    pub preference: u16,
    /// How long it serves, in seconds.
    pub lifetime: u16,
}

/// Asks who has an address (RFC 4861 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourSolicitation {
    /// The address.
    pub target: Ipv6Addr,
    /// Source Link-Layer Address.
    pub source_link_layer: Option<LinkLayerAddress>,
}

/// Says who has an address (RFC 4861 §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourAdvertisement {
    /// The address.
    pub target: Ipv6Addr,
    /// R: its owner is a router.
    pub router: bool,
    /// S: answers a solicitation.
    pub solicited: bool,
    /// O: to be believed against what is known.
    pub overrides: bool,
    /// Target Link-Layer Address.
    pub target_link_layer: Option<LinkLayerAddress>,
}

/// One of the four messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NeighbourMessage {
    /// Type 133.
    RouterSolicitation(RouterSolicitation),
    /// Type 134.
    RouterAdvertisement(RouterAdvertisement),
    /// Type 135.
    NeighbourSolicitation(NeighbourSolicitation),
    /// Type 136.
    NeighbourAdvertisement(NeighbourAdvertisement),
}

/// Reads the ICMPv6 message of a packet with these addresses and this hop limit.
pub fn receive(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    message: &[u8],
) -> Result<NeighbourMessage, IcmpError> {
    let length = message.len();
    let (&[kind, code, sum0, sum1, b4, b5, b6, b7], rest) =
        message.split_first_chunk::<HEADER>().ok_or(IcmpError::Length(length))?;
    if !(icmpv6::ROUTER_SOLICITATION..=icmpv6::NEIGHBOUR_ADVERTISEMENT).contains(&kind) {
        return Err(IcmpError::Type(kind));
    }
    // req HA-54 (RFC 4861 §6.1, §7.1).
    if hop_limit != HOP_LIMIT {
        return Err(IcmpError::HopLimit(hop_limit));
    }
    let field = u16::from_be_bytes([sum0, sum1]);
    if !is_same(field, checksum(source, destination, message)) {
        return Err(IcmpError::Checksum);
    }
    if code != 0 {
        return Err(IcmpError::Code(code));
    }
    let read = match kind {
        icmpv6::ROUTER_SOLICITATION => {
            let source_link_layer = Found::read(rest, HEADER)?.source_link_layer;
            NeighbourMessage::RouterSolicitation(RouterSolicitation { source_link_layer })
        }
        icmpv6::ROUTER_ADVERTISEMENT => {
            NeighbourMessage::RouterAdvertisement(router_advertisement([b4, b5, b6, b7], rest)?)
        }
        icmpv6::NEIGHBOUR_SOLICITATION => {
            let (target, found) = target(rest)?;
            let source_link_layer = found.source_link_layer;
            let solicitation = NeighbourSolicitation { target, source_link_layer };
            NeighbourMessage::NeighbourSolicitation(solicitation)
        }
        _ => {
            let (target, found) = target(rest)?;
            NeighbourMessage::NeighbourAdvertisement(NeighbourAdvertisement {
                target,
                router: b4 & ROUTER != 0,
                solicited: b4 & SOLICITED != 0,
                overrides: b4 & OVERRIDES != 0,
                target_link_layer: found.target_link_layer,
            })
        }
    };
    if read.can_have(source, destination) { Ok(read) } else { Err(IcmpError::Addresses) }
}

/// Writes a message for a packet with these addresses; its hop limit must be [`HOP_LIMIT`].
pub fn emit(message: &NeighbourMessage, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut out = Vec::with_capacity(TARGET_OPTIONS + 8);
    match message {
        NeighbourMessage::RouterSolicitation(message) => {
            out.extend([icmpv6::ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
            link_layer(&mut out, option::SOURCE_LINK_LAYER_ADDRESS, message.source_link_layer);
        }
        NeighbourMessage::RouterAdvertisement(message) => emit_router(message, &mut out),
        NeighbourMessage::NeighbourSolicitation(message) => {
            out.extend([icmpv6::NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
            out.extend(message.target.octets());
            link_layer(&mut out, option::SOURCE_LINK_LAYER_ADDRESS, message.source_link_layer);
        }
        NeighbourMessage::NeighbourAdvertisement(message) => {
            let flags = flags([
                (message.router, ROUTER),
                (message.solicited, SOLICITED),
                (message.overrides, OVERRIDES),
            ]);
            out.extend([icmpv6::NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]);
            out.extend(message.target.octets());
            link_layer(&mut out, option::TARGET_LINK_LAYER_ADDRESS, message.target_link_layer);
        }
    }
    let sum = checksum(source, destination, &out);
    out[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    out
}

impl NeighbourMessage {
    /// The rules of RFC 4861 §6.1 and §7.1 about addresses.
    fn can_have(&self, source: Ipv6Addr, destination: Ipv6Addr) -> bool {
        if source.is_multicast() {
            return false;
        }
        let nobody = source.is_unspecified();
        match self {
            Self::RouterSolicitation(message) => !nobody || message.source_link_layer.is_none(),
            Self::RouterAdvertisement(_) => source.is_unicast_link_local(),
            Self::NeighbourSolicitation(message) => {
                let detects = destination == solicited_node(message.target)
                    && message.source_link_layer.is_none();
                !nobody || detects
            }
            Self::NeighbourAdvertisement(message) => {
                !(nobody || destination.is_multicast() && message.solicited)
            }
        }
    }
}

/// The options that mean something here; others are skipped, and of two the first counts.
#[derive(Default)]
struct Found {
    source_link_layer: Option<LinkLayerAddress>,
    target_link_layer: Option<LinkLayerAddress>,
    prefixes: Vec<PrefixInformation>,
    interval: Option<u32>,
    information: Option<HomeAgentInformation>,
}

impl Found {
    fn read(octets: &[u8], start: usize) -> Result<Self, IcmpError> {
        let mut found = Self::default();
        for (number, each) in options(octets, start).enumerate() {
            let (kind, data) = each?;
            if number == MAX_OPTIONS {
                return Err(IcmpError::Length(start + octets.len()));
            }
            // Longer link-layer addresses belong to links that this is not for.
            let link_layer = || <[u8; 6]>::try_from(data).ok().map(LinkLayerAddress);
            match kind {
                option::SOURCE_LINK_LAYER_ADDRESS => {
                    found.source_link_layer = found.source_link_layer.or_else(link_layer);
                }
                option::TARGET_LINK_LAYER_ADDRESS => {
                    found.target_link_layer = found.target_link_layer.or_else(link_layer);
                }
                option::PREFIX_INFORMATION => {
                    let prefix = PrefixInformation::parse(data);
                    found.prefixes.push(prefix.ok_or(IcmpError::Option(start))?);
                }
                option::ADVERTISEMENT_INTERVAL => {
                    let &[_, _, a, b, c, d] = data else { return Err(IcmpError::Option(start)) };
                    found.interval.get_or_insert(u32::from_be_bytes([a, b, c, d]));
                }
                option::HOME_AGENT_INFORMATION => {
                    let &[flags, _, a, b, c, d] = data else {
                        return Err(IcmpError::Option(start));
                    };
                    found.information.get_or_insert(HomeAgentInformation {
                        mobile_routers: flags & MOBILE_ROUTERS != 0,
                        preference: u16::from_be_bytes([a, b]),
                        lifetime: u16::from_be_bytes([c, d]),
                    });
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

fn router_advertisement(
    [hop_limit, flags, life0, life1]: [u8; 4],
    rest: &[u8],
) -> Result<RouterAdvertisement, IcmpError> {
    let (&[r0, r1, r2, r3, t0, t1, t2, t3], rest) =
        rest.split_first_chunk::<8>().ok_or(IcmpError::Length(HEADER + rest.len()))?;
    let found = Found::read(rest, ROUTER_OPTIONS)?;
    Ok(RouterAdvertisement {
        hop_limit,
        managed: flags & 0x80 != 0,
        other: flags & 0x40 != 0,
        home_agent: flags & HOME_AGENT != 0,
        lifetime: u16::from_be_bytes([life0, life1]),
        reachable: u32::from_be_bytes([r0, r1, r2, r3]),
        retransmit: u32::from_be_bytes([t0, t1, t2, t3]),
        source_link_layer: found.source_link_layer,
        prefixes: found.prefixes,
        interval: found.interval,
        information: found.information,
    })
}

fn emit_router(message: &RouterAdvertisement, out: &mut Vec<u8>) {
    let flags =
        flags([(message.managed, 0x80), (message.other, 0x40), (message.home_agent, HOME_AGENT)]);
    out.extend([icmpv6::ROUTER_ADVERTISEMENT, 0, 0, 0, message.hop_limit, flags]);
    out.extend(message.lifetime.to_be_bytes());
    out.extend(message.reachable.to_be_bytes());
    out.extend(message.retransmit.to_be_bytes());
    link_layer(out, option::SOURCE_LINK_LAYER_ADDRESS, message.source_link_layer);
    for prefix in &message.prefixes {
        prefix.emit(out);
    }
    if let Some(interval) = message.interval {
        out.extend([option::ADVERTISEMENT_INTERVAL, 1, 0, 0]);
        out.extend(interval.to_be_bytes());
    }
    if let Some(information) = message.information {
        let flags = if information.mobile_routers { MOBILE_ROUTERS } else { 0 };
        out.extend([option::HOME_AGENT_INFORMATION, 1, flags, 0]);
        out.extend(information.preference.to_be_bytes());
        out.extend(information.lifetime.to_be_bytes());
    }
}

/// The target of a solicitation or advertisement, and the options after it.
fn target(rest: &[u8]) -> Result<(Ipv6Addr, Found), IcmpError> {
    let (target, options) =
        rest.split_first_chunk::<16>().ok_or(IcmpError::Length(HEADER + rest.len()))?;
    let target = Ipv6Addr::from(*target);
    if target.is_multicast() || target.is_unspecified() {
        return Err(IcmpError::Addresses);
    }
    Ok((target, Found::read(options, TARGET_OPTIONS)?))
}

fn link_layer(out: &mut Vec<u8>, kind: u8, address: Option<LinkLayerAddress>) {
    if let Some(address) = address {
        out.extend([kind, 1]);
        out.extend(address.0);
    }
}

fn flags<const N: usize>(flags: [(bool, u8); N]) -> u8 {
    flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum()
}
