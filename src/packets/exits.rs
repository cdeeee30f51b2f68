//! Next hops that one packet thread knows: its packets go to their link-layer addresses, past the
//! kernel's own way out.
//!
//! What is known holds for a second; then one packet goes the kernel's way again, through its
//! firewall, routes and neighbours, which confirms them, and they are asked anew. So whatever
//! changes there is obeyed within that time, and what the firewall refuses is never sent past it. A
//! path that is opened anew, as in a handover, is known no more at once.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_dataplane::PathId;
use mtun_dataplane::backend::{LinkSocket, NextHop, SendError};
use mtun_dataplane::wire::{Header, IPV6, packets};

use super::{Shared, Way, left};

/// How long a next hop holds.
const HOLDS: Duration = Duration::from_secs(1);
/// And how long the kernel sends everything where none is known.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Places for next hops, each for one destination: two mobiles that share one take turns.
const PLACES: usize = 1024;

/// The next hops that one thread knows.
#[derive(Debug)]
pub(super) struct Exits {
    /// None where the machine lets nobody send so.
    link: Option<LinkSocket>,
    known: Vec<Option<Known>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    whose: Whose,
    until: Duration,
    hop: Option<NextHop>,
}

/// Packets that go alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Whose {
    /// Of the opening of their path.
    way: u64,
    source: Ipv6Addr,
    destination: Ipv6Addr,
}

impl Whose {
    /// Of packets to be sent by a way; `None` if they are no tunnel packets.
    fn of(way: &Way, octets: &[u8]) -> Option<Self> {
        let header = Header::parse(octets)?;
        let (source, destination) = (header.source, header.destination);
        (header.next_header == IPV6).then_some(Self { way: way.number, source, destination })
    }

    fn place(&self) -> usize {
        let octets = self.destination.octets();
        let halves = octets.chunks_exact(8).map(|it| u64::from_be_bytes(it.try_into().expect("8")));
        let mixed = halves.fold(self.way, |mixed, half| {
            (mixed ^ half).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        });
        (mixed >> 40) as usize % PLACES
    }
}

impl Exits {
    pub(super) fn new() -> Self {
        let link = LinkSocket::open();
        if let Err(error) = &link {
            tracing::info!(%error, "outer packets leave by the kernel's routes, one by one");
        }
        Self { link: link.ok(), known: vec![None; PLACES] }
    }

    /// Sends the outer packets of one path that stand one behind the other, and counts them.
    pub(super) fn send(&mut self, shared: &Shared, path: PathId, octets: &[u8]) {
        let ways = shared.paths.ways.load();
        let Some(way) = ways.get(&path) else {
            return packets(octets).for_each(|_| left(shared, None));
        };
        let whose = self.link.as_ref().and_then(|_| Whose::of(way, octets));
        let Some(whose) = whose else {
            return all_by_the_kernel(shared, way, octets);
        };
        let now = shared.clock.monotonic();
        let known = self.known[whose.place()].filter(|it| it.whose == whose && now < it.until);
        let (hop, rest) = match known {
            Some(known) => (known.hop, octets),
            None => {
                let Some(first) = packets(octets).next() else { return };
                let rest = &octets[first.len()..];
                match by_the_kernel(shared, way, first) {
                    true => (self.ask(way, whose, now), rest),
                    // Whatever is in the way may be so for the others.
                    false => (None, rest),
                }
            }
        };
        let (Some(link), Some(hop)) = (&self.link, hop) else {
            return all_by_the_kernel(shared, way, rest);
        };
        let mut is_gone = false;
        let sent = link.send(&hop, rest, |error| {
            is_gone |= matches!(error, SendError::LinkDown | SendError::NoRoute);
            shared.failures.count(error);
        });
        way.octets.count(&way.octets.sent, sent.octets, &shared.paths.carried);
        if is_gone {
            self.known[whose.place()] = None;
        }
    }

    /// Asks the kernel for the next hop, and keeps the answer.
    fn ask(&mut self, way: &Way, whose: Whose, now: Duration) -> Option<NextHop> {
        let Whose { source, destination, .. } = whose;
        let link = self.link.as_ref()?;
        let asked = link.next_hop(way.uplink.interface(), way.uplink.mark(), source, destination);
        // What cannot be asked is not known.
        let hop = asked.ok().flatten();
        let until = now + if hop.is_some() { HOLDS } else { ASK_AGAIN };
        self.known[whose.place()] = Some(Known { whose, until, hop });
        hop
    }
}

fn all_by_the_kernel(shared: &Shared, way: &Way, octets: &[u8]) {
    for packet in packets(octets) {
        by_the_kernel(shared, way, packet);
    }
}

/// Sends one packet by the kernel's own way; whether it left.
fn by_the_kernel(shared: &Shared, way: &Way, packet: &[u8]) -> bool {
    let sent = shared.paths.send_by(way, packet);
    let is_sent = sent.is_ok();
    left(shared, Some(sent));
    is_sent
}
