//! Wrapping and unwrapping: IPv6 in IPv6 (RFC 2473). What goes straight is not wrapped; see
//! [`crate::optimized`].
//!
//! The tunnel is one hop (RFC 2473 §3.1). A packet that is forwarded through it loses one from
//! its hop limit, once, and the kernel has taken that one when it forwarded the packet into the
//! home-bound interface; at the far end the kernel takes the next one when it forwards out of
//! it. A packet of a local socket has not been forwarded and loses nothing. So neither side
//! touches the inner hop limit here, for both kinds of packets (req TN-07). A packet that arrives
//! with none left is answered with Time Exceeded.
//!
//! DSCP is copied outwards and not back (RFC 2983: the inner one was never lost). ECN follows
//! RFC 6040 in both directions. The outer flow label is a keyed hash of the inner flow, so that
//! routers on the way keep a flow on one path and spread flows (RFC 6438).
//!
//! A plain packet gets no Tunnel Encapsulation Limit, which costs eight octets; a packet that is
//! itself a tunnel packet gets one, so that tunnels in tunnels end after
//! [`DEFAULT_LIMIT`] more. What leaves in copies says its place among them, if the other end
//! understands that; sixteen octets, or as many more.

use std::net::Ipv6Addr;

use crate::decide::Encapsulation;
use crate::optimized::Headers;
use crate::packet::Inner;
use crate::reason::DropReason;
use crate::registration::CopyMark;
use crate::wire::ipv6::HEADER;
use crate::wire::{DESTINATION_OPTIONS, Header, IPV6, TunnelOptions, tunnel_options};

/// Further encapsulations allowed to a tunnel packet that names no limit (RFC 2473 §6.6).
pub const DEFAULT_LIMIT: u8 = 4;

/// Why a received tunnel packet cannot be unwrapped: the outer header says that congestion was
/// experienced, the inner that its sender does not understand that (RFC 6040 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcnViolation;

/// The limit that the outer packet must carry; `None` for none.
///
/// req TN-05: an inner packet with limit zero must not be wrapped again.
pub fn limit_for(inner: &Inner) -> Result<Option<u8>, DropReason> {
    match inner.chain.tunnel_limit {
        Some((0, _)) => Err(DropReason::EncapsulationLimit),
        Some((limit, _)) => Ok(Some(limit - 1)),
        None if inner.is_tunnelled() => Ok(Some(DEFAULT_LIMIT)),
        None => Ok(None),
    }
}

impl Encapsulation {
    /// The name used by `mtun`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Tunnel { .. } => "ipv6-in-ipv6",
            Self::Optimized { .. } => "optimized",
            Self::Plain => "plain",
        }
    }

    /// Octets that it adds to a packet with this Tunnel Encapsulation Limit, marked as a copy or
    /// not.
    pub fn overhead(&self, limit: Option<u8>, mark: CopyMark) -> usize {
        match self {
            Self::Tunnel { .. } => {
                HEADER + tunnel_options::octets(limit.is_some(), mark == CopyMark::On)
            }
            Self::Optimized { .. } => self.headers().octets(),
            Self::Plain => 0,
        }
    }

    /// The extension headers that it puts into a packet.
    pub(crate) fn headers(&self) -> Headers {
        match *self {
            Self::Optimized { home_address, routing_header, .. } => {
                Headers { home_address, routing_header }
            }
            Self::Tunnel { .. } | Self::Plain => Headers::default(),
        }
    }

    /// Source and destination address of what leaves, where they are not the packet's own.
    pub fn outer(&self) -> Option<(Ipv6Addr, Ipv6Addr)> {
        match *self {
            Self::Tunnel { source, destination } | Self::Optimized { source, destination, .. } => {
                Some((source, destination))
            }
            Self::Plain => None,
        }
    }
}

/// Appends the outer packet, whole; fragmenting it is [`crate::mtu`]'s business.
///
/// Appends nothing and says so if the length does not fit an IPv6 packet.
pub fn encapsulate(
    (source, destination): (Ipv6Addr, Ipv6Addr),
    inner: &Inner,
    packet: &[u8],
    options: TunnelOptions,
    hop_limit: u8,
    flow_label: u32,
    out: &mut Vec<u8>,
) -> Result<(), DropReason> {
    let length = packet.len() + options.octets();
    Header {
        traffic_class: inner.header.traffic_class & !3 | outer_ecn(inner.header.traffic_class & 3),
        flow_label,
        payload_length: u16::try_from(length).map_err(|_| DropReason::Oversize)?,
        next_header: if options.octets() > 0 { DESTINATION_OPTIONS } else { IPV6 },
        hop_limit,
        source,
        destination,
    }
    .emit(out);
    options.emit(IPV6, out);
    out.extend_from_slice(packet);
    Ok(())
}

/// Appends the inner packet with the congestion the outer header reports.
pub fn decapsulate(outer: &Header, packet: &[u8], out: &mut Vec<u8>) -> Result<(), EcnViolation> {
    let inner = Header::parse(packet).map_or(0, |header| header.traffic_class);
    let ecn = inner_ecn(outer.traffic_class & 3, inner & 3).ok_or(EcnViolation)?;
    let start = out.len();
    out.extend_from_slice(packet);
    if let Some(octet) = out.get_mut(start + 1) {
        // The traffic class straddles the first two octets; its lowest bits are 4 and 5 here.
        *octet = *octet & 0xcf | ecn << 4;
    }
    Ok(())
}

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const CE: u8 = 3;

/// The ECN field of the outer header, given the inner one: normal mode (RFC 6040 §4.1).
/// req TN-11.
pub fn outer_ecn(inner: u8) -> u8 {
    inner
}

/// The ECN field that leaves the tunnel; `None` if the packet must be dropped (RFC 6040 §4.2).
pub fn inner_ecn(outer: u8, inner: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (CE, _) | (_, CE) => Some(CE),
        (_, ECT_1) => Some(ECT_1),
        _ => Some(inner),
    }
}
