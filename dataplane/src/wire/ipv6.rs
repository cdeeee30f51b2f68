//! The IPv6 header and the chain of extension headers behind it (RFC 8200 §3, §4).

use std::net::Ipv6Addr;

use super::{
    AUTHENTICATION, CopySequence, DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING,
    copy_sequence, home_address, tunnel_limit,
};

/// Octets of the fixed header.
pub const HEADER: usize = 40;

/// Most extension headers that are looked at in one packet.
/// req MH-15.
pub const MAX_HEADERS: usize = 8;

/// Most octets of extension headers that are looked at in one packet.
pub const MAX_CHAIN: usize = 512;

/// The fixed header.
///
/// ```text
/// |Version| Traffic Class |           Flow Label                  |
/// |         Payload Length        |  Next Header  |   Hop Limit   |
/// :                 Source Address, Destination Address           :
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
    /// 20 bits.
    pub flow_label: u32,
    /// Octets after this header.
    pub payload_length: u16,
    /// What follows.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

impl Header {
    /// Reads the first 40 octets; `None` if there are fewer or the version is not 6.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let fixed = packet.first_chunk::<HEADER>()?;
        if fixed[0] >> 4 != 6 {
            return None;
        }
        let address = |at: usize| {
            let octets: [u8; 16] = fixed[at..at + 16].try_into().expect("sixteen octets");
            Ipv6Addr::from(octets)
        };
        Some(Self {
            traffic_class: fixed[0] << 4 | fixed[1] >> 4,
            flow_label: u32::from_be_bytes([0, fixed[1] & 0x0f, fixed[2], fixed[3]]),
            payload_length: u16::from_be_bytes([fixed[4], fixed[5]]),
            next_header: fixed[6],
            hop_limit: fixed[7],
            source: address(8),
            destination: address(24),
        })
    }

    /// Appends the 40 octets.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | (self.flow_label & 0x000f_ffff);
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&self.payload_length.to_be_bytes());
        out.extend_from_slice(&[self.next_header, self.hop_limit]);
        out.extend_from_slice(&self.source.octets());
        out.extend_from_slice(&self.destination.octets());
    }

    /// The octets of the whole packet, as its header states them.
    pub fn total_length(&self) -> usize {
        HEADER + usize::from(self.payload_length)
    }
}

/// A Fragment header (RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Where the header stands in the packet.
    pub at: usize,
    /// Where the Next Header octet that announces it stands.
    pub announced_at: usize,
    /// What the fragmented part begins with.
    pub next_header: u8,
    /// Octets of the original before this fragment.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
    /// The original packet's number.
    pub identification: u32,
}

/// A Routing header (RFC 8200 §4.4), the first of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingHeader {
    /// Where the header stands in the packet.
    pub at: usize,
    /// Its type: 0 is forbidden (RFC 5095), 2 names a home address (RFC 6275 §6.4).
    pub kind: u8,
    /// Segments left.
    pub segments_left: u8,
    /// For a well-formed type 2 header, the home address in it.
    pub home_address: Option<Ipv6Addr>,
}

/// What the extension headers of one packet say, and where the upper layer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The upper-layer protocol; of a fragment after the first, what its header announces.
    pub upper: u8,
    /// Where the upper layer begins. Equal to the packet's length if nothing follows.
    pub upper_at: usize,
    /// The Fragment header; the chain of a fragment after the first ends there.
    pub fragment: Option<FragmentHeader>,
    /// The Routing header.
    pub routing: Option<RoutingHeader>,
    /// The Home Address option, if its place is right (RFC 6275 §6.3).
    pub home_address: Option<Ipv6Addr>,
    /// Where that option stands.
    pub home_address_at: Option<usize>,
    /// Where a Home Address option stands that must not be there: the second one, one before a
    /// routing header, one behind a Fragment or Authentication Header, one among hop-by-hop
    /// options, or one of another length.
    pub misplaced_home_address: Option<usize>,
    /// The security parameter index of the first Authentication Header (RFC 4302 §2).
    pub authentication: Option<u32>,
    /// The Tunnel Encapsulation Limit and where its value stands (RFC 2473 §5.1).
    pub tunnel_limit: Option<(u8, usize)>,
    /// The Copy Sequence option, the first of the packet.
    pub copy: Option<CopySequence>,
    /// An option nobody knows, whose type forbids to go on without knowing it.
    pub unknown_option: bool,
}

/// Why a header chain cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// A header reaches past the end of the packet.
    Truncated,
    /// More headers or octets than [`MAX_HEADERS`] and [`MAX_CHAIN`] allow.
    TooLong,
    /// A Hop-by-Hop Options header that is not the first, or a second Fragment header.
    Order,
}

impl Chain {
    /// Walks the extension headers of a packet that begins with a whole [`Header`].
    pub fn walk(packet: &[u8], first: u8) -> Result<Self, ChainError> {
        let mut chain = Self { upper: first, upper_at: HEADER, ..Self::default() };
        let mut announced_at = 6;
        for _ in 0..=MAX_HEADERS {
            let at = chain.upper_at;
            let rest = packet.get(at..).ok_or(ChainError::Truncated)?;
            let length = match chain.upper {
                HOP_BY_HOP if at != HEADER => return Err(ChainError::Order),
                HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING => {
                    let fixed = rest.first_chunk::<2>().ok_or(ChainError::Truncated)?;
                    8 + usize::from(fixed[1]) * 8
                }
                AUTHENTICATION => {
                    let fixed = rest.first_chunk::<2>().ok_or(ChainError::Truncated)?;
                    8 + usize::from(fixed[1]) * 4
                }
                FRAGMENT => 8,
                _ => return Ok(chain),
            };
            if at + length - HEADER > MAX_CHAIN {
                return Err(ChainError::TooLong);
            }
            let header = rest.get(..length).ok_or(ChainError::Truncated)?;
            match chain.upper {
                HOP_BY_HOP => {
                    let found = home_address::find(header);
                    chain.misplaced_home_address = found.map(|found| at + found.at);
                }
                ROUTING => {
                    chain.routing = chain.routing.or_else(|| Some(routing(at, header)));
                    chain.misplaced_home_address =
                        chain.misplaced_home_address.or(chain.home_address_at);
                }
                DESTINATION_OPTIONS => chain.options(at, header)?,
                AUTHENTICATION if chain.authentication.is_none() => {
                    let index = header.get(4..8).and_then(|index| index.try_into().ok());
                    chain.authentication = index.map(u32::from_be_bytes);
                }
                FRAGMENT if chain.fragment.is_some() => return Err(ChainError::Order),
                FRAGMENT => {
                    let fragment = fragment(at, announced_at, header);
                    chain.fragment = Some(fragment);
                    if fragment.offset != 0 {
                        chain.upper = fragment.next_header;
                        chain.upper_at = at + length;
                        return Ok(chain);
                    }
                }
                _ => {}
            }
            announced_at = at;
            chain.upper = header[0];
            chain.upper_at = at + length;
        }
        Err(ChainError::TooLong)
    }

    /// Reads the options of one Destination Options header.
    fn options(&mut self, at: usize, header: &[u8]) -> Result<(), ChainError> {
        let mut next = 2;
        while let Some(&kind) = header.get(next) {
            if kind == 0 {
                next += 1;
                continue;
            }
            let length = *header.get(next + 1).ok_or(ChainError::Truncated)?;
            let data_at = next + 2;
            let data =
                header.get(data_at..data_at + usize::from(length)).ok_or(ChainError::Truncated)?;
            match kind {
                tunnel_limit::OPTION => match data {
                    [limit] if self.tunnel_limit.is_none() => {
                        self.tunnel_limit = Some((*limit, at + data_at));
                    }
                    _ => {}
                },
                copy_sequence::OPTION => {
                    self.copy = self.copy.or_else(|| CopySequence::parse(data));
                }
                home_address::OPTION => match home_address::parse(data) {
                    Some(address)
                        if self.home_address.is_none()
                            && self.fragment.is_none()
                            && self.authentication.is_none() =>
                    {
                        self.home_address = Some(address);
                        self.home_address_at = Some(at + next);
                    }
                    _ => {
                        self.misplaced_home_address =
                            self.misplaced_home_address.or(Some(at + next));
                    }
                },
                other => self.unknown_option |= other & 0xc0 != 0,
            }
            next = data_at + data.len();
        }
        Ok(())
    }
}

fn routing(at: usize, header: &[u8]) -> RoutingHeader {
    RoutingHeader {
        at,
        kind: header[2],
        segments_left: header[3],
        home_address: super::type2::parse(header),
    }
}

fn fragment(at: usize, announced_at: usize, header: &[u8]) -> FragmentHeader {
    let field = u16::from_be_bytes([header[2], header[3]]);
    FragmentHeader {
        at,
        announced_at,
        next_header: header[0],
        offset: usize::from(field & 0xfff8),
        more: field & 1 != 0,
        identification: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
    }
}

/// Cuts what [`crate::Engine`] wrote into packets by their length fields.
///
/// One inner packet becomes several outer ones when it has to be fragmented (RFC 2473 §7.1).
pub fn packets(mut octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = Header::parse(octets)?.total_length();
        let (packet, rest) = octets.split_at_checked(length)?;
        octets = rest;
        Some(packet)
    })
}
