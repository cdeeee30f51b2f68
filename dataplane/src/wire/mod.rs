//! Packets as octets: headers we read, headers we write. No policy, no tables.
//!
//! One element, one file. Readers take any bytes and never panic; writers fill every length and
//! checksum.

pub mod checksum;
pub mod copy_sequence;
pub mod home_address;
pub mod icmpv6;
pub mod ipv6;
pub mod probe;
pub mod signalling;
pub mod sums;
pub mod tcp;
pub mod tunnel_limit;
pub mod tunnel_options;
pub mod type2;

pub use checksum::pseudo_header_checksum;
pub use copy_sequence::{CopySequence, may_be_marked};
pub use ipv6::{Chain, ChainError, FragmentHeader, Header, MAX_CHAIN, RoutingHeader, packets};
pub use signalling::{
    Signalling, discovery_packet, parse_signalling, signalling_packet, unknown_header,
};
pub use tunnel_options::TunnelOptions;

/// Hop-by-Hop Options header.
pub const HOP_BY_HOP: u8 = 0;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// DCCP.
pub const DCCP: u8 = 33;
/// IPv6 as payload: a tunnel packet (RFC 2473).
pub const IPV6: u8 = 41;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// Encapsulating Security Payload (RFC 4303).
pub const ESP: u8 = 50;
/// Authentication header.
pub const AUTHENTICATION: u8 = 51;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// Nothing follows.
pub const NO_NEXT_HEADER: u8 = 59;
/// Destination Options header.
pub const DESTINATION_OPTIONS: u8 = 60;
/// SCTP.
pub const SCTP: u8 = 132;
/// Mobility Header (RFC 6275 §6.1).
pub const MOBILITY_HEADER: u8 = 135;
/// UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// Whether a protocol starts with a source and a destination port.
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE)
}
