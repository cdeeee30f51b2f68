//! A probe: an ICMPv6 Echo of 48 octets (RFC 4443 §4.1, §4.2), which any node answers.
//!
//! ```text
//! +---------------+---------------+-------------------------------+
//! |  128 or 129   |   Code = 0    |           Checksum            |
//! +---------------+---------------+-------------------------------+
//! |       Identifier = BID        |  Sequence Number, its end     |
//! +-------------------------------+-------------------------------+
//! |                          "mtun-p\0\1"                         |
//! |                         Sequence Number                       |
//! |             when it left, nanoseconds of its sender           |
//! |                  Token of its sender, 16 octets               |
//! +---------------------------------------------------------------+
//! ```
//!
//! The data is the sender's own: who answers gives it back as it is, and nobody else reads it. By
//! its first octets an agent of our kind knows that the answer is to go back by the binding by
//! which the request came.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::Bid;

use super::ipv6::Header;
use super::{ICMPV6, pseudo_header_checksum};

/// Octets of the message.
pub const OCTETS: usize = 48;

/// Echo Request.
pub const REQUEST: u8 = 128;
/// Echo Reply.
pub const REPLY: u8 = 129;

/// What the data of a probe begins with.
const MARK: [u8; 8] = *b"mtun-p\0\x01";

/// Hop limit of probes and their answers.
const HOPS: u8 = 64;

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The binding that it asks about.
    pub bid: Bid,
    /// Its number.
    pub sequence: u64,
    /// When it left, on its sender's clock; to the nanosecond, for 584 years.
    pub sent: Duration,
    /// By which its sender knows it again.
    pub token: [u8; 16],
}

impl Probe {
    /// Appends a whole packet with the request.
    pub fn emit(&self, source: Ipv6Addr, destination: Ipv6Addr, out: &mut Vec<u8>) {
        let mut message = [0; OCTETS];
        message[0] = REQUEST;
        message[4..6].copy_from_slice(&self.bid.get().to_be_bytes());
        message[6..8].copy_from_slice(&(self.sequence as u16).to_be_bytes());
        message[8..16].copy_from_slice(&MARK);
        message[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        message[24..32].copy_from_slice(&nanoseconds(self.sent).to_be_bytes());
        message[32..].copy_from_slice(&self.token);
        write(message, source, destination, out);
    }

    /// Reads a message of this kind, request or reply; `None` if it is no probe or its checksum is
    /// wrong.
    pub fn parse(kind: u8, header: &Header, message: &[u8]) -> Option<Self> {
        let octets = <&[u8; OCTETS]>::try_from(message).ok()?;
        let word =
            |at: usize| u64::from_be_bytes(octets[at..at + 8].try_into().expect("eight octets"));
        if octets[..2] != [kind, 0]
            || octets[8..16] != MARK
            || pseudo_header_checksum(header.source, header.destination, ICMPV6, octets) != 0
        {
            return None;
        }
        let mut token = [0; 16];
        token.copy_from_slice(&octets[32..]);
        Some(Self {
            bid: Bid::new(u16::from_be_bytes([octets[4], octets[5]]))?,
            sequence: word(16),
            sent: Duration::from_nanos(word(24)),
            token,
        })
    }
}

/// The time as a probe says it.
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Appends a whole packet that answers this request, a message that [`Probe::parse`] has read.
pub fn answer(request: &Header, message: &[u8], out: &mut Vec<u8>) {
    let mut reply = [0; OCTETS];
    reply.copy_from_slice(&message[..OCTETS]);
    reply[0] = REPLY;
    reply[2..4].fill(0);
    write(reply, request.destination, request.source, out);
}

fn write(mut message: [u8; OCTETS], source: Ipv6Addr, destination: Ipv6Addr, out: &mut Vec<u8>) {
    let checksum = pseudo_header_checksum(source, destination, ICMPV6, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    Header {
        traffic_class: 0,
        flow_label: 0,
        payload_length: OCTETS as u16,
        next_header: ICMPV6,
        hop_limit: HOPS,
        source,
        destination,
    }
    .emit(out);
    out.extend_from_slice(&message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_and_its_answer() {
        let (home, agent) = ("2001:db8:1::7".parse().unwrap(), "2001:db8:1::1".parse().unwrap());
        let probe = Probe {
            bid: Bid::new(3).unwrap(),
            sequence: 0x1_0002,
            sent: Duration::from_nanos(987_654_321_012),
            token: *b"0123456789abcdef",
        };
        let (mut request, mut reply) = (Vec::new(), Vec::new());
        probe.emit(home, agent, &mut request);
        assert_eq!(request.len(), 88);
        let header = Header::parse(&request).unwrap();
        assert_eq!(Probe::parse(REQUEST, &header, &request[40..]), Some(probe));
        assert_eq!(Probe::parse(REPLY, &header, &request[40..]), None, "a request is no answer");
        answer(&header, &request[40..], &mut reply);
        let header = Header::parse(&reply).unwrap();
        assert_eq!((header.source, header.destination), (agent, home));
        assert_eq!(Probe::parse(REPLY, &header, &reply[40..]), Some(probe));
    }

    #[test]
    fn what_is_no_probe() {
        let home: Ipv6Addr = "2001:db8:1::7".parse().unwrap();
        let probe =
            Probe { bid: Bid::new(3).unwrap(), sequence: 7, sent: Duration::ZERO, token: [9; 16] };
        let mut packet = Vec::new();
        probe.emit(home, home, &mut packet);
        let header = Header::parse(&packet).unwrap();
        let parse = |message: &[u8]| Probe::parse(REQUEST, &header, message);
        for at in 0..OCTETS {
            let mut message = packet[40..].to_vec();
            message[at] ^= 0x10;
            assert_eq!(parse(&message), None, "octet {at}");
            assert_eq!(parse(&packet[40..40 + at]), None, "cut at {at}");
        }
        let longer = [&packet[40..], &[0]].concat();
        assert_eq!(parse(&longer), None);
    }
}
