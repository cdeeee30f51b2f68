//! What the codec's tests share: the addresses of their tables, packets around a Mobility Header,
//! and capture files.

#![allow(dead_code, reason = "each test file uses its part")]

use std::net::Ipv6Addr;
use std::path::PathBuf;

use mtun_policy::{Bid, HomeAddress};
use mtun_signaling::Envelope;
use mtun_signaling::auth::{Algorithm, Secret, SecurityAssociation};
use mtun_signaling::wire::iana;
use mtun_signaling::wire::option::BindingIdentifier;
use mtun_signaling::wire::{MobilityOption, Options};

pub const HOME: &str = "2001:db8:1::1";
pub const CARE_OF: &str = "2001:db8:2::2";
pub const SECOND_CARE_OF: &str = "2001:db8:3::3";
pub const CORRESPONDENT: &str = "2001:db8:9::9";
pub const AGENT: &str = "2001:db8:1::ff";

pub fn address(text: &str) -> Ipv6Addr {
    text.parse().expect("an address of the tables")
}

pub fn plain(source: &str, destination: &str) -> Envelope {
    Envelope::plain(address(source), address(destination))
}

/// From the mobile abroad: with a Home Address option.
pub fn away(destination: &str) -> Envelope {
    Envelope { home_address: Some(HomeAddress(address(HOME))), ..plain(CARE_OF, destination) }
}

/// To the mobile abroad: with a type 2 routing header.
pub fn to_mobile(source: &str) -> Envelope {
    Envelope { routing_header: Some(HomeAddress(address(HOME))), ..plain(source, CARE_OF) }
}

/// Octets from hexadecimal digits; white space separates nothing.
pub fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex
        .chars()
        .filter(|character| !character.is_whitespace())
        .map(|character| character.to_digit(16).expect("hexadecimal"))
        .collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).expect("two digits")).collect()
}

pub fn bid(number: u16, priority: u8, care_of: Option<&str>) -> BindingIdentifier {
    BindingIdentifier {
        priority,
        care_of: care_of.map(|text| address(text).into()),
        ..BindingIdentifier::new(Bid::new(number).expect("a BID of the tables"))
    }
}

pub fn options(of: impl IntoIterator<Item = MobilityOption>) -> Options {
    of.into_iter().collect()
}

/// RFC 4285's own algorithm; SPI 256, key 00 11 22 … ff.
pub fn sha1_association() -> SecurityAssociation {
    let key = Secret::new((0..16).map(|octet| octet * 0x11).collect()).expect("16 octets");
    SecurityAssociation::new(256, Algorithm::HmacSha1, key).expect("256 is not reserved")
}

/// Ours; SPI 0x1001, key 00 01 02 … 1f.
pub fn sha256_association() -> SecurityAssociation {
    let key = Secret::new((0..32).collect()).expect("32 octets");
    SecurityAssociation::new(0x1001, Algorithm::HmacSha256, key).expect("0x1001 is not reserved")
}

/// A file next to the tests.
pub fn file(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), path].iter().collect()
}

/// The complete IPv6 packet around a Mobility Header.
///
/// ```text
/// IPv6 | Destination Options (PadN 4, Home Address)? | Routing type 2? | Mobility Header
/// ```
pub fn packet(envelope: &Envelope, message: &[u8]) -> Vec<u8> {
    packet_of(envelope, iana::NEXT_HEADER_MOBILITY, message)
}

/// The same around another upper-layer message.
pub fn packet_of(envelope: &Envelope, upper: u8, message: &[u8]) -> Vec<u8> {
    let mut extensions: Vec<(u8, Vec<u8>)> = Vec::new();
    if let Some(home) = envelope.routing_header {
        let mut header = vec![0, 2, iana::ROUTING_TYPE_2, 1, 0, 0, 0, 0];
        header.extend_from_slice(&home.0.octets());
        extensions.push((iana::NEXT_HEADER_ROUTING, header));
    }
    if let Some(home) = envelope.home_address {
        let mut header = vec![0, 2, 1, 2, 0, 0, iana::HOME_ADDRESS_OPTION, 16];
        header.extend_from_slice(&home.0.octets());
        extensions.push((iana::NEXT_HEADER_DESTINATION_OPTIONS, header));
    }
    let mut payload = message.to_vec();
    let mut next_header = upper;
    for (kind, mut header) in extensions.into_iter().rev() {
        header[0] = next_header;
        next_header = kind;
        header.append(&mut payload);
        payload = header;
    }
    let length = u16::try_from(payload.len()).expect("a message of at most 2048 octets");
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[next_header, 64]);
    packet.extend_from_slice(&envelope.source.octets());
    packet.extend_from_slice(&envelope.destination.octets());
    packet.append(&mut payload);
    packet
}

/// The Mobility Header of an IPv6 packet and the addresses around it; `None` for other packets.
pub fn open(packet: &[u8]) -> Option<(Envelope, &[u8])> {
    let field = |at: usize| -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?))
    };
    let mut envelope = Envelope::plain(field(8)?, field(24)?);
    let end = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    let (mut next_header, mut at) = (packet[6], 40);
    loop {
        let length = (usize::from(*packet.get(at + 1)?) + 1) * 8;
        match next_header {
            iana::NEXT_HEADER_MOBILITY => return Some((envelope, packet.get(at..end)?)),
            iana::NEXT_HEADER_ROUTING => {
                envelope.routing_header = Some(HomeAddress(field(at + 8)?));
            }
            iana::NEXT_HEADER_DESTINATION_OPTIONS => {
                let here = packet.get(at..at + length)?;
                let option = here.windows(2).position(|two| two == [0xc9, 16])?;
                envelope.home_address = Some(HomeAddress(field(at + option + 2)?));
            }
            _ => return None,
        }
        next_header = packet[at];
        at += length;
    }
}

/// Link types of capture files.
pub const ETHERNET: u32 = 1;
pub const RAW_IPV6: u32 = 229;

/// A capture file with one frame per packet, a millisecond apart.
pub fn write_capture(link_type: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    let word = |file: &mut Vec<u8>, value: u32| file.extend_from_slice(&value.to_le_bytes());
    for value in [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, link_type] {
        word(&mut file, value);
    }
    for (index, frame) in frames.iter().enumerate() {
        let length = u32::try_from(frame.len()).expect("a short frame");
        let index = u32::try_from(index).expect("few frames");
        // One in each millisecond.
        let (seconds, microseconds) = (1_790_000_000 + index / 1000, index % 1000 * 1000);
        for value in [seconds, microseconds, length, length] {
            word(&mut file, value);
        }
        file.extend_from_slice(frame);
    }
    file
}

/// The frames of a capture file in this machine's most common form: little-endian, microseconds.
pub fn read_capture(file: &[u8]) -> Vec<&[u8]> {
    let word = |at: usize| u32::from_le_bytes(*file[at..].first_chunk().expect("a whole word"));
    assert_eq!(word(0), 0xa1b2_c3d4, "a little-endian capture with microseconds");
    let mut frames = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let length = word(at + 8) as usize;
        frames.push(&file[at + 16..at + 16 + length]);
        at += 16 + length;
    }
    frames
}
