//! From the octets of an inner packet to the fields that policy may look at.
//!
//! It reads headers and judges what no rule may overrule: a length that lies, a chain that hides
//! its end, addresses that never travel through a tunnel. It knows no table.
//!
//! IPv4 has a place in the types and none here yet: such a packet is
//! [`DropReason::InnerVersion`].

use std::net::{IpAddr, Ipv6Addr};

use mtun_policy::{FlowKey, Ingress};

use crate::reason::DropReason;
use crate::wire::{Chain, ESP, Header, ICMPV6, IPV6, TCP, has_ports};

/// An inner packet, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// What policy may look at, but the user. Of a fragment after the first, without ports, ESP's
    /// index and ICMPv6 type.
    pub key: FlowKey,
    /// The IPv6 header.
    pub header: Header,
    /// The headers behind it.
    pub chain: Chain,
    /// Which part of its packet this is, if it is a part.
    pub fragment: Option<InnerFragment>,
    /// Whether it is the first packet of a TCP connection.
    pub opens: bool,
}

/// What joins the fragments of one inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerFragment {
    /// The packet's number.
    pub identification: u32,
    /// Whether this is the fragment that holds the ports.
    pub first: bool,
}

/// What a TCP segment says of sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The number behind it, if it takes any.
    pub end: Option<u32>,
    /// Up to where everything has arrived at its sender.
    pub acknowledges: Option<u32>,
    /// Whether it ends the connection at once.
    pub resets: bool,
}

impl Segment {
    /// Whether its sender has what ends before this number, or wants no more of it.
    pub fn answers(&self, end: u32) -> bool {
        let has = |acknowledged: u32| acknowledged.wrapping_sub(end).cast_signed() >= 0;
        self.resets || self.acknowledges.is_some_and(has)
    }
}

impl Inner {
    /// Reads a packet that came by `ingress`.
    ///
    /// req TN-04: shorter than its header, of another version, or with a length field that is
    /// not the length: refused. The header chain must end in this packet, so that a first
    /// fragment cannot hide its ports (RFC 7112).
    pub fn parse(packet: &[u8], ingress: Ingress) -> Result<Self, DropReason> {
        let inner = Self::parse_quoted(packet, ingress)?;
        if inner.header.total_length() != packet.len() {
            return Err(DropReason::InnerLength);
        }
        Ok(inner)
    }

    /// Reads a packet that may be cut behind its ports, as errors quote it.
    pub(crate) fn parse_quoted(packet: &[u8], ingress: Ingress) -> Result<Self, DropReason> {
        match packet.first().map(|first| first >> 4) {
            None => return Err(DropReason::InnerLength),
            Some(6) => {}
            Some(_) => return Err(DropReason::InnerVersion),
        }
        let header = Header::parse(packet).ok_or(DropReason::InnerLength)?;
        let packet = &packet[..packet.len().min(header.total_length())];
        let chain =
            Chain::walk(packet, header.next_header).map_err(|_| DropReason::InnerHeaders)?;
        let later = chain.fragment.is_some_and(|fragment| fragment.offset != 0);
        let upper = if later { &[] } else { &packet[chain.upper_at..] };
        // The first four octets: ports, or the index of ESP. Of a first fragment or a whole
        // packet they may not be missing, or rules could be evaded by cutting.
        let first = match (has_ports(chain.upper) || chain.upper == ESP) && !later {
            true => Some(*upper.first_chunk::<4>().ok_or(DropReason::InnerHeaders)?),
            false => None,
        };
        let ports = first.filter(|_| has_ports(chain.upper));
        let spi = first.filter(|_| chain.upper == ESP).map(u32::from_be_bytes);
        let icmp_type = match chain.upper == ICMPV6 && !later {
            true => Some(*upper.first().ok_or(DropReason::InnerHeaders)?),
            false => None,
        };
        let key = FlowKey {
            source: IpAddr::V6(header.source),
            destination: IpAddr::V6(header.destination),
            protocol: chain.upper,
            source_port: ports.map(|p| u16::from_be_bytes([p[0], p[1]])),
            destination_port: ports.map(|p| u16::from_be_bytes([p[2], p[3]])),
            dscp: header.traffic_class >> 2,
            ingress,
            flow_label: header.flow_label,
            spi: spi.or(chain.authentication),
            icmp_type,
            uid: None,
        };
        let opens = chain.upper == TCP && upper.get(13).is_some_and(|flags| flags & 0x12 == 0x02);
        // A lone fragment is a whole packet.
        let fragment = chain
            .fragment
            .filter(|f| f.offset != 0 || f.more)
            .map(|f| InnerFragment { identification: f.identification, first: f.offset == 0 });
        Ok(Self { key, header, chain, fragment, opens })
    }

    /// req TN-03: refuses addresses that never travel through a tunnel, and (req TN-13, RFC 5095)
    /// routing headers of type 0 that still lead somewhere.
    pub fn check_scope(&self) -> Result<(), DropReason> {
        if !travels(self.header.source) {
            return Err(DropReason::InnerSourceScope);
        }
        if !travels(self.header.destination) {
            return Err(DropReason::InnerDestinationScope);
        }
        if self.chain.routing.is_some_and(|r| r.kind == 0 && r.segments_left != 0) {
            return Err(DropReason::RoutingHeader);
        }
        Ok(())
    }

    /// Whether it is an ICMPv6 error.
    pub(crate) fn is_error(&self) -> bool {
        self.key.icmp_type.is_some_and(|kind| kind < 128)
    }

    /// Its sequence numbers; `None` if it is no whole TCP segment. `packet` is what it was read from.
    pub(crate) fn segment(&self, packet: &[u8]) -> Option<Segment> {
        const FIN: u8 = 1;
        const SYN: u8 = 2;
        const RST: u8 = 4;
        const ACK: u8 = 16;
        if self.chain.upper != TCP || self.fragment.is_some() {
            return None;
        }
        let segment = packet.get(self.chain.upper_at..)?;
        let fixed = segment.first_chunk::<20>()?;
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let has = |flag: u8| fixed[13] & flag != 0;
        let data = segment.len().checked_sub(usize::from(fixed[12] >> 4) * 4)?;
        let takes = data as u32 + u32::from(has(SYN)) + u32::from(has(FIN));
        Some(Segment {
            end: (takes > 0).then(|| word(4).wrapping_add(takes)),
            acknowledges: has(ACK).then(|| word(8)),
            resets: has(RST),
        })
    }

    /// Whether it is itself a tunnel packet, for which depth is counted (RFC 2473 §4.1.1).
    pub fn is_tunnelled(&self) -> bool {
        self.chain.upper == IPV6
    }
}

fn travels(address: Ipv6Addr) -> bool {
    let site_local = address.segments()[0] & 0xffc0 == 0xfec0;
    !(address.is_multicast()
        || address.is_unspecified()
        || address.is_loopback()
        || address.is_unicast_link_local()
        || site_local
        || address.to_ipv4_mapped().is_some())
}
