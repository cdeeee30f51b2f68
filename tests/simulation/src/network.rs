//! What lies between the nodes: links with their whims, and packets under way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::Bid;

use crate::packet::{self, Layer};
use crate::random::Random;

/// Where a packet reaches a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Door {
    /// An uplink of a mobile, by its care-of address.
    Uplink(usize, Bid),
    /// The network behind a mobile router.
    Lan(usize),
    /// A home agent, by its own address.
    Agent(usize),
    /// The home network of an agent: a home address or a mobile network prefix.
    HomeNetwork(usize),
    /// A correspondent.
    Correspondent(usize),
    /// The attacker.
    Attacker,
}

/// Who is to blame for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A node, and nobody changed it on the way.
    Honest,
    /// The attacker sent it once more; it was recorded then.
    Replayed(Duration),
    /// Somebody on the way changed it.
    Altered,
    /// The attacker made it.
    Forged,
}

/// A packet under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flying {
    pub at: Duration,
    /// Keeps what arrives at the same moment in the order in which it left.
    order: u64,
    pub door: Door,
    pub packet: Vec<u8>,
    /// Nodes that it, or what it was made of, has passed.
    pub hops: u8,
    pub origin: Origin,
}

/// How one way of a link treats packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// In milliseconds.
    pub delay: u64,
    /// Up to so many milliseconds more, each packet for itself: what makes them overtake.
    pub jitter: u64,
    /// In a thousand.
    pub loss: u16,
    /// In a thousand.
    pub duplication: u16,
    /// In a thousand.
    pub corruption: u16,
}

impl Quality {
    /// A link without whims.
    pub const GOOD: Self = Self { delay: 10, jitter: 0, loss: 0, duplication: 0, corruption: 0 };

    /// Any link.
    pub fn any(random: &mut Random) -> Self {
        Self {
            delay: 1 + random.milliseconds(80),
            jitter: random.pick(&[0, 0, 5, 120, 400]),
            loss: random.pick(&[0, 0, 20, 150, 300]),
            duplication: random.pick(&[0, 0, 30, 100]),
            corruption: random.pick(&[0, 0, 0, 20]),
        }
    }
}

/// One way from node to node: what happens to a packet on it.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    pub out: Quality,
    pub into: Quality,
    /// Whether it loses everything.
    pub cut: bool,
}

/// The longest that any packet is under way between two nodes.
pub const LONGEST_FLIGHT: Duration = Duration::from_millis(2 * (81 + 400));

/// The longest that an answer is under way to a mobile in the network of another one, which itself
/// is in that of a third: from one tunnel's end to the next.
pub const LONGEST_WAY: Duration = LONGEST_FLIGHT.saturating_mul(3);

/// The packets under way.
#[derive(Debug, Default)]
pub struct Network {
    flying: BinaryHeap<Reverse<Flying>>,
    order: u64,
}

impl Network {
    /// When the next packet arrives.
    pub fn next(&self) -> Option<Duration> {
        self.flying.peek().map(|Reverse(first)| first.at)
    }

    /// The packet that arrives first.
    pub fn arrive(&mut self) -> Option<Flying> {
        self.flying.pop().map(|Reverse(first)| first)
    }

    /// Packets under way.
    pub fn len(&self) -> usize {
        self.flying.len()
    }

    /// Puts a packet on its way; it is there at `at`.
    pub fn launch(&mut self, at: Duration, door: Door, packet: Vec<u8>, hops: u8, origin: Origin) {
        self.order += 1;
        let order = self.order;
        self.flying.push(Reverse(Flying { at, order, door, packet, hops, origin }));
    }
}

impl Passage {
    /// The delays after which copies of one packet arrive: none, one or two.
    pub fn fate(&self, random: &mut Random) -> Vec<Duration> {
        let (out, into) = (self.out, self.into);
        if self.cut || random.chance(out.loss) || random.chance(into.loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(random.chance(out.duplication + into.duplication));
        let delay = |random: &mut Random| {
            let jitter = random.milliseconds(out.jitter) + random.milliseconds(into.jitter);
            Duration::from_millis(out.delay + into.delay + jitter)
        };
        (0..copies).map(|_| delay(random)).collect()
    }

    /// How often a bit is flipped on the way, in a thousand.
    pub fn corruption(&self) -> u16 {
        self.out.corruption + self.into.corruption
    }
}

/// What a message's authenticator speaks for. A bit that nobody reads may be any, and so may the
/// source of an update that names its care-of address itself (RFC 6275 §6.2.5, RFC 5648 §4.3).
pub fn said(packet: &[u8]) -> Option<(Vec<u8>, Option<Ipv6Addr>, bool)> {
    // In a tunnel or not.
    let layer = packet::layers(packet).pop().filter(Layer::is_signalling)?;
    let message = packet.get(layer.payload_at..)?.to_vec();
    let home_address = layer.home_address.or(layer.routing_header);
    Some((message, home_address, layer.home_address.is_some()))
}

/// Flips one bit behind the first four octets.
pub fn flip(random: &mut Random, packet: &mut [u8]) {
    if packet.len() > 4 {
        let at = 4 + random.below(packet.len() - 4);
        packet[at] ^= 1 << random.below(8);
    }
}
