//! The corpus: addresses, extension headers, fragments, sizes, malformed packets.

use mtun_dataplane::abi::FastOutcome;

use crate::support::*;

/// What must become of a packet in the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    Take,
    Leave(FastOutcome),
    /// Nothing is counted: it is no tunnel packet at all.
    Overlook,
}
use FastOutcome::*;
use Must::*;

pub fn set(packet: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    changes.iter().for_each(|(at, octet)| packet[*at] = *octet);
    packet
}

/// A packet with an extension header between its IPv6 header and UDP.
fn with_header(packet: &[u8], kind: u8, header: &[u8]) -> Vec<u8> {
    let header = [&[packet[6]], header].concat();
    raw(v6(HOME), v6(PEER), kind, &[&header, &packet[40..]].concat())
}

pub fn tos(packet: &[u8], class: u8) -> Vec<u8> {
    set(packet, &[(0, 0x60 | class >> 4), (1, packet[1] & 0x0f | class << 4)])
}

/// Packets of one installed flow, of its neighbours, and of nobody.
pub fn outbound() -> Vec<(&'static str, Vec<u8>, Must)> {
    let udp = udp(HOME, PEER, (7, 80), 100);
    let tcp_ = tcp(HOME, PEER, (9, 80));
    let sized = |length| crate::support::udp(HOME, PEER, (7, 80), length);
    vec![
        ("the packet itself", udp.clone(), Take),
        ("TCP", tcp_.clone(), Take),
        ("no octet of payload", sized(48), Take),
        ("one octet", sized(49), Take),
        ("as much as fits", sized(1460), Take),
        ("one octet more", sized(1461), Leave(TooBig)),
        ("as much as the link takes", sized(1500), Leave(TooBig)),
        ("Not-ECT, ECT(1)", tos(&udp, 1), Take),
        ("ECT(0)", tos(&udp, 2), Take),
        ("CE", tos(&udp, 3), Take),
        ("another DSCP, not seen before", tos(&udp, 0xb8), Leave(Unknown)),
        ("a flow label", set(&udp, &[(1, 0x0a), (2, 0xbc), (3, 0xde)]), Take),
        ("hop limit 1", set(&udp, &[(7, 1)]), Take),
        ("hop limit 0", set(&udp, &[(7, 0)]), Leave(NotPlain)),
        ("another source", set(&udp, &[(23, 0x43)]), Leave(Unknown)),
        ("another destination", set(&udp, &[(39, 0x0a)]), Leave(Unknown)),
        ("another source port", set(&udp, &[(41, 8)]), Leave(Unknown)),
        ("another destination port", set(&udp, &[(43, 81)]), Leave(Unknown)),
        ("another protocol", set(&udp, &[(6, 6)]), Leave(Unknown)),
        ("UDP-Lite", set(&udp, &[(6, 136)]), Leave(NotPlain)),
        ("ICMPv6", set(&udp, &[(6, 58)]), Leave(NotPlain)),
        ("Mobility Header", set(&udp, &[(6, 135)]), Leave(NotPlain)),
        ("version 5", set(&udp, &[(0, 0x50)]), Leave(NotPlain)),
        ("version 4", set(&udp, &[(0, 0x45)]), Leave(NotPlain)),
        ("a length that lies upwards", set(&udp, &[(5, 61)]), Leave(NotPlain)),
        ("a length that lies downwards", set(&udp, &[(5, 59)]), Leave(NotPlain)),
        ("cut in the ports", raw(v6(HOME), v6(PEER), 17, &[0, 7, 0]), Leave(NotPlain)),
        ("nothing behind the header", raw(v6(HOME), v6(PEER), 17, &[]), Leave(NotPlain)),
        ("hop-by-hop options", with_header(&udp, 0, &[0, 1, 4, 0, 0, 0, 0]), Leave(NotPlain)),
        ("destination options", with_header(&udp, 60, &[0, 1, 4, 0, 0, 0, 0]), Leave(NotPlain)),
        ("a routing header", with_header(&udp, 43, &[0, 3, 0, 0, 0, 0, 0]), Leave(NotPlain)),
        ("a first fragment", with_header(&udp, 44, &[0, 0, 1, 0, 0, 0, 9]), Leave(NotPlain)),
        ("a later fragment", with_header(&udp, 44, &[0, 0, 8, 0, 0, 0, 9]), Leave(NotPlain)),
        ("a tunnel packet", raw(v6(HOME), v6(PEER), 41, &udp), Leave(NotPlain)),
        ("a source that does not travel", set(&udp, &[(8, 0xfe), (9, 0x80)]), Leave(Unknown)),
        ("a multicast destination", set(&udp, &[(24, 0xff)]), Leave(Unknown)),
        ("from within the prefix", crate::support::udp(INSIDE, PEER, (7, 80), 100), Take),
    ]
}

/// Packets that arrive at the mobile by its first link, around one installed flow.
pub fn inbound() -> Vec<(&'static str, Vec<u8>, Must)> {
    let inner = udp(PEER, HOME, (80, 7), 100);
    let whole = wrapped(AGENT, WLAN, &inner);
    let around = |inner: &[u8]| wrapped(AGENT, WLAN, inner);
    let mut cases = vec![
        ("the packet itself", whole.clone(), Take),
        ("TCP", around(&tcp(PEER, HOME, (80, 9))), Take),
        ("another size", around(&udp(PEER, HOME, (80, 7), 1200)), Take),
        ("another inner DSCP", around(&tos(&inner, 0xb8)), Take),
        ("another outer DSCP", tos(&whole, 0xb8), Take),
        ("inner hop limit 0", around(&set(&inner, &[(7, 0)])), Take),
        ("outer hop limit 0", set(&whole, &[(7, 0)]), Take),
        ("from another agent", wrapped("2001:db8:100::2", WLAN, &inner), Leave(OtherEnds)),
        ("by the other link", wrapped(AGENT, WWAN, &inner), Leave(OtherEnds)),
        ("to the home address", wrapped(AGENT, HOME, &inner), Leave(OtherEnds)),
        ("from the mobile itself", wrapped(WLAN, AGENT, &inner), Leave(OtherEnds)),
        ("another flow", around(&udp(PEER, HOME, (80, 8), 100)), Leave(Unknown)),
        ("the flow turned round", around(&udp(HOME, PEER, (7, 80), 100)), Leave(Unknown)),
        ("cut in the inner header", wrapped(AGENT, WLAN, &inner[..39]), Leave(NotPlain)),
        ("an inner length that lies", around(&set(&inner, &[(5, 61)])), Leave(NotPlain)),
        ("an outer length that lies", set(&whole, &[(5, 99)]), Leave(NotPlain)),
        ("padded", [&whole[..], &[0; 6]].concat(), Leave(NotPlain)),
        ("inner version 4", around(&set(&inner, &[(0, 0x45)])), Leave(NotPlain)),
        ("inner ICMPv6", around(&set(&inner, &[(6, 58)])), Leave(NotPlain)),
        ("outer fragment", with_fragment(&whole), Overlook),
        ("not wrapped at all", udp(PEER, WLAN, (80, 7), 100), Overlook),
    ];
    for (outer, inner_ecn, must) in [
        (0, 0, Take),
        (0, 1, Take),
        (0, 2, Take),
        (0, 3, Take),
        (1, 0, Take),
        (1, 1, Take),
        (1, 2, Take),
        (1, 3, Take),
        (2, 0, Take),
        (2, 1, Take),
        (2, 2, Take),
        (2, 3, Take),
        (3, 0, Leave(Congestion)),
        (3, 1, Take),
        (3, 2, Take),
        (3, 3, Take),
    ] {
        let inner = tos(&inner, 0x28 | inner_ecn);
        cases.push(("ECN, RFC 6040 §4.2", tos(&around(&inner), 0x50 | outer), must));
    }
    cases
}

fn with_fragment(whole: &[u8]) -> Vec<u8> {
    let header = [whole[6], 0, 0, 1, 0, 0, 0, 9];
    raw(v6(AGENT), v6(WLAN), 44, &[&header, &whole[40..]].concat())
}

/// Packets from a seed: an installed flow's with a few octets changed.
pub struct Noise(u64);

impl Default for Noise {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }

    /// Up to two of the first so many octets.
    fn spoil(&mut self, packet: &mut [u8], first: usize) {
        for _ in 0..self.below(3) {
            let at = self.below(first);
            packet[at] = self.below(256) as u8;
        }
    }

    /// One that leaves; some are too long for the path.
    pub fn leaves(&mut self) -> Vec<u8> {
        let mut packet = udp(HOME, PEER, (7, 80), 48 + self.below(1500));
        self.spoil(&mut packet, 48);
        packet
    }

    /// One that comes, wrapped.
    pub fn comes(&mut self) -> Vec<u8> {
        let inner = udp(PEER, HOME, (80, 7), 48 + self.below(1300));
        let mut packet = wrapped(AGENT, WLAN, &inner);
        self.spoil(&mut packet, 88);
        packet
    }
}
