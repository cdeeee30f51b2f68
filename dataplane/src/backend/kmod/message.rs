//! Generic-netlink messages: written attribute by attribute, read without trust in any length.
//!
//! ```text
//! | length u32 | type u16 | flags u16 | sequence u32 | port u32 |      netlink
//! | command u8 | version u8 | zero u16 |                              generic netlink
//! | length u16 | type u16 | value, padded to 4 |  …                   attributes
//! ```
//!
//! Integers are in host order. Where a length leads nowhere, reading ends: what stands behind it is
//! absent.

use super::contract::{Attribute, Command, VERSION};
use super::socket::Family;

/// Octets of the netlink and the generic-netlink header.
pub const HEADER: usize = 16;
const GENERIC: usize = 4;
/// Of an attribute's length and type.
pub const ATTRIBUTE: usize = 4;

pub const REQUEST: u16 = 0x1;
pub const ACK: u16 = 0x4;
pub const ECHO: u16 = 0x8;
pub const EXCLUSIVE: u16 = 0x200;
pub const CREATE: u16 = 0x400;
pub const DUMP: u16 = 0x300;

pub const ERROR: u16 = 2;
pub const DONE: u16 = 3;

/// One message under construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request(Vec<u8>);

impl Request {
    /// Asks the module about a device, with an acknowledgement.
    pub fn new(family: &Family, command: Command, device: u32) -> Self {
        let mut request = Self::generic(family.number(), command as u8, VERSION);
        request.word(Attribute::Ifindex, device);
        request
    }

    /// Of any family.
    pub fn generic(family: u16, command: u8, version: u8) -> Self {
        let mut request = Self::plain(family, REQUEST | ACK);
        request.0.extend([command, version, 0, 0]);
        request
    }

    /// Of any protocol: what stands behind the netlink header is still to come.
    pub fn plain(kind: u16, flags: u16) -> Self {
        let mut octets = vec![0; HEADER];
        octets[4..6].copy_from_slice(&kind.to_ne_bytes());
        octets[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(octets)
    }

    /// Asks for more: [`ECHO`] or [`DUMP`].
    pub fn flag(&mut self, flag: u16) {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | flag;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// Asks for less.
    pub fn unflag(&mut self, flag: u16) {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) & !flag;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// Octets as they are.
    pub fn bare(&mut self, octets: &[u8]) {
        self.0.extend_from_slice(octets);
    }

    pub fn octets(&mut self, attribute: Attribute, value: &[u8]) {
        self.attribute(attribute as u16, value);
    }

    pub fn octet(&mut self, attribute: Attribute, value: u8) {
        self.octets(attribute, &[value]);
    }

    pub fn word(&mut self, attribute: Attribute, value: u32) {
        self.octets(attribute, &value.to_ne_bytes());
    }

    pub fn long(&mut self, attribute: Attribute, value: u64) {
        self.octets(attribute, &value.to_ne_bytes());
    }

    /// An attribute of any family, of less than 64 KiB.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(ATTRIBUTE + value.len()).expect("all values here are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// The head of an attribute whose value is sent behind this message: [`Self::finish`] gives the
    /// length that stands for both, and how many octets of padding follow the value.
    pub fn open(&mut self, attribute: Attribute, length: usize) -> Option<usize> {
        let stated = u16::try_from(ATTRIBUTE + length).ok()?;
        self.0.extend(stated.to_ne_bytes());
        self.0.extend((attribute as u16).to_ne_bytes());
        Some(length.next_multiple_of(4) - length)
    }

    /// The octets to send, with `more` of them behind these.
    pub fn finish(mut self, sequence: u32, more: usize) -> Vec<u8> {
        let length = (self.0.len() + more) as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// One message as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Message<'m> {
    pub kind: u16,
    pub sequence: u32,
    /// Behind the netlink header.
    pub body: &'m [u8],
}

/// The messages of one buffer.
pub fn messages(mut buffer: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(buffer.get(..4)?.try_into().ok()?) as usize;
        let message = buffer.get(..length)?;
        let half = |at: usize| Some(u16::from_ne_bytes(message.get(at..at + 2)?.try_into().ok()?));
        let read = Message {
            kind: half(4)?,
            sequence: u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?),
            body: message.get(HEADER..)?,
        };
        buffer = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(read)
    })
}

impl<'m> Message<'m> {
    /// Of an error or acknowledgement: the number, 0 for none.
    pub fn error(&self) -> i32 {
        let number = self.body.get(..4).and_then(|it| it.try_into().ok());
        number.map_or(libc::EPROTO, |number| i32::from_ne_bytes(number).wrapping_neg())
    }

    /// A generic-netlink message's command and attributes.
    pub fn generic(&self) -> Option<(u8, Attributes<'m>)> {
        Some((*self.body.first()?, Attributes(self.body.get(GENERIC..)?)))
    }
}

/// Attributes, one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'m>(pub &'m [u8]);

impl<'m> Attributes<'m> {
    /// Each with its type.
    pub fn iter(self) -> impl Iterator<Item = (u16, &'m [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let half = |at: usize| Some(u16::from_ne_bytes(rest.get(at..at + 2)?.try_into().ok()?));
            let (length, kind) = (usize::from(half(0)?), half(2)?);
            let value = rest.get(ATTRIBUTE..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            // The two highest bits say what is inside and in which order.
            Some((kind & 0x3fff, value))
        })
    }

    /// The value of one of any family; empty if it is absent.
    pub fn find(self, kind: u16) -> &'m [u8] {
        self.iter().find(|(it, _)| *it == kind).map_or(&[], |(_, value)| value)
    }

    pub fn get(self, attribute: Attribute) -> &'m [u8] {
        self.find(attribute as u16)
    }

    pub fn word(self, attribute: Attribute) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(attribute).try_into().ok()?))
    }

    pub fn long(self, attribute: Attribute) -> Option<u64> {
        Some(u64::from_ne_bytes(self.get(attribute).try_into().ok()?))
    }

    pub fn octet(self, attribute: Attribute) -> Option<u8> {
        self.get(attribute).first().copied()
    }
}

/// An array of numbers.
pub fn read_longs(octets: &[u8]) -> Vec<u64> {
    octets.as_chunks().0.iter().map(|it| u64::from_ne_bytes(*it)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut request = Request::generic(77, 5, 1);
        request.word(Attribute::Ifindex, 9);
        request.octet(Attribute::Direction, 1);
        request.long(Attribute::Generation, u64::MAX - 1);
        request.octets(Attribute::Doors, &[]);
        request.flag(ECHO);
        let octets = request.finish(3, 0);
        assert_eq!(octets[6..8], (REQUEST | ACK | ECHO).to_ne_bytes());
        let message = messages(&octets).next().unwrap();
        assert_eq!((message.kind, message.sequence), (77, 3));
        let (command, attributes) = message.generic().unwrap();
        assert_eq!(command, 5);
        assert_eq!(attributes.word(Attribute::Ifindex), Some(9));
        assert_eq!(attributes.octet(Attribute::Direction), Some(1));
        assert_eq!(attributes.long(Attribute::Generation), Some(u64::MAX - 1));
        assert_eq!(attributes.get(Attribute::Doors), [0_u8; 0]);
        assert_eq!(attributes.word(Attribute::Path), None, "absent");
        assert_eq!(attributes.iter().count(), 4);
    }

    #[test]
    fn no_length_leads_out_of_the_buffer() {
        let mut request = Request::generic(77, 5, 1);
        request.word(Attribute::Ifindex, 9);
        request.long(Attribute::Generation, 1);
        let whole = [request.clone().finish(1, 0), request.finish(2, 0)].concat();
        assert_eq!(messages(&whole).count(), 2);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mut cut = whole[..(state >> 40) as usize % (whole.len() + 1)].to_vec();
            if let Some(octet) = cut.get_mut((state >> 20) as usize % whole.len()) {
                *octet = state as u8;
            }
            for message in messages(&cut) {
                message.error();
                let Some((_, attributes)) = message.generic() else { continue };
                assert!(
                    attributes.iter().map(|(_, value)| value.len()).sum::<usize>() <= cut.len()
                );
            }
        }
    }

    #[test]
    fn a_value_may_follow_its_message() {
        let mut request = Request::generic(77, 5, 1);
        let padding = request.open(Attribute::Packet, 41).unwrap();
        assert_eq!(padding, 3);
        let mut octets = request.finish(1, 44);
        octets.extend([7; 41]);
        octets.extend([0; 3]);
        let (_, attributes) = messages(&octets).next().unwrap().generic().unwrap();
        assert_eq!(attributes.get(Attribute::Packet), [7; 41]);
        assert_eq!(Request::generic(77, 5, 1).open(Attribute::Packet, 65_532), None, "too long");
    }
}
