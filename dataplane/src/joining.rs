//! What arrives packet by packet and goes on as one: TCP segments of a connection that follow each
//! other. The kernel walks once through routes and firewall for all of them.
//!
//! Joined is only what [`crate::Cuts`] would cut into the very packets that came: segments whose
//! headers differ in nothing but length, sequence number and checksum, all of one size but for the
//! last, none of which opens, closes or signals anything. A checksum is verified before its segment
//! is joined, since whoever cuts them again makes new ones; what is damaged goes on by itself, as it
//! came. What does not follow ends what was begun, so nothing overtakes.

use crate::wire::TCP;
use crate::wire::ipv6::HEADER;
use crate::wire::sums::Sum;

/// Where TCP begins and where its checksum is in it: right behind the IPv6 header.
pub const CHECKSUM: (u16, u16) = (HEADER as u16, 16);
/// Octets of one that is not joined any further: a little below what fits an IPv6 packet.
const MOST: usize = 65_000;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// Segments that wait for the next one; none at first.
#[derive(Debug, Default)]
pub struct Joining {
    octets: Vec<u8>,
    packets: u16,
    /// Where the payload begins, and how much of it each segment has.
    payload_at: usize,
    size: usize,
    /// Whether the first one's checksum was finished by its sender, and not looked at yet.
    unverified: bool,
    /// Whether the first one's checksum covers its pseudo-header only.
    partial: bool,
    /// No further one may follow.
    is_full: bool,
}

/// What goes on as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined<'j> {
    /// A packet as it came; whether its checksum covers the pseudo-header only.
    One(&'j [u8], bool),
    /// Several, whose checksum covers the pseudo-header only: octets before the payload, and of
    /// payload in each.
    Several(&'j [u8], u16, u16),
}

/// A segment that may be joined to others.
struct Segment<'p> {
    packet: &'p [u8],
    payload_at: usize,
    pushes: bool,
}

impl<'p> Segment<'p> {
    fn of(packet: &'p [u8]) -> Option<Self> {
        let fixed = packet.first_chunk::<{ HEADER + 20 }>()?;
        let length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let payload_at = HEADER + usize::from(fixed[HEADER + 12] >> 4) * 4;
        let flags = fixed[HEADER + 13];
        let is_one = fixed[0] >> 4 == 6
            && fixed[6] == TCP
            && HEADER + length == packet.len()
            && (HEADER + 20..packet.len()).contains(&payload_at)
            && flags & !PSH == ACK;
        is_one.then_some(Self { packet, payload_at, pushes: flags & PSH != 0 })
    }

    fn payload(&self) -> &'p [u8] {
        &self.packet[self.payload_at..]
    }
}

/// The sequence number of a segment.
fn sequence(packet: &[u8]) -> u32 {
    let at = HEADER + 4;
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

/// The sum of addresses, protocol and length of what is behind the IPv6 header.
fn pseudo_header(packet: &[u8]) -> Sum {
    let length = (packet.len() - HEADER) as u16;
    Sum::of(&packet[8..HEADER]).and(Sum::of_number(TCP.into())).and(Sum::of_number(length))
}

fn is_right(packet: &[u8]) -> bool {
    pseudo_header(packet).and(Sum::of(&packet[HEADER..])).is_right()
}

/// Whether two segments differ only where those of one burst may. Both have headers of this length.
fn is_alike(one: &[u8], other: &[u8], payload_at: usize) -> bool {
    // Not compared: the length; the sequence number; the flags, which were looked at; the checksum.
    let (tcp, end) = (HEADER, payload_at);
    [0..4, 6..tcp + 4, tcp + 8..tcp + 13, tcp + 14..tcp + 16, tcp + 18..end]
        .into_iter()
        .all(|part| one[part.clone()] == other[part])
}

impl Joining {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Joins a packet to those that wait, if it follows them. `partial` says that its checksum
    /// covers the pseudo-header only, and that it is whole.
    pub fn join(&mut self, packet: &[u8], partial: bool) -> bool {
        let Some(segment) = Segment::of(packet).filter(|_| self.packets > 0 && !self.is_full)
        else {
            return false;
        };
        let payload = segment.payload();
        let carried = self.octets.len() - self.payload_at;
        let follows = segment.payload_at == self.payload_at
            && payload.len() <= self.size
            && self.octets.len() + payload.len() <= MOST
            && sequence(packet) == sequence(&self.octets).wrapping_add(carried as u32)
            && is_alike(&self.octets, packet, self.payload_at);
        if !follows || !(partial || is_right(packet)) {
            return false;
        }
        if self.unverified && !is_right(&self.octets) {
            return false;
        }
        self.unverified = false;
        self.octets.extend_from_slice(payload);
        self.packets += 1;
        self.octets[HEADER + 13] |= packet[HEADER + 13];
        self.is_full = segment.pushes || payload.len() < self.size;
        true
    }

    /// Begins with a packet, if others may follow it: then it is taken out of `packet`, which gets
    /// other room instead. None may wait.
    pub fn begin(&mut self, packet: &mut Vec<u8>, partial: bool) -> bool {
        let Some(segment) = Segment::of(packet).filter(|it| !it.pushes && self.packets == 0) else {
            return false;
        };
        self.payload_at = segment.payload_at;
        self.size = segment.payload().len();
        (self.packets, self.is_full) = (1, false);
        (self.partial, self.unverified) = (partial, !partial);
        std::mem::swap(&mut self.octets, packet);
        true
    }

    /// Hands on what waits, and has none wait any more.
    pub fn end(&mut self) -> Option<Joined<'_>> {
        let packets = std::mem::take(&mut self.packets);
        match packets {
            0 => None,
            1 => Some(Joined::One(&self.octets, self.partial)),
            _ => {
                let length = (self.octets.len() - HEADER) as u16;
                self.octets[4..6].copy_from_slice(&length.to_be_bytes());
                let pseudo = pseudo_header(&self.octets).octets();
                self.octets[HEADER + 16..HEADER + 18].copy_from_slice(&pseudo);
                Some(Joined::Several(&self.octets, self.payload_at as u16, self.size as u16))
            }
        }
    }
}
