//! Superpackets: one inner packet that stands for several of one flow.
//!
//! A local sender hands over up to 64 KiB at once, and what was merged on receipt is forwarded so:
//! whoever sends it on a wire cuts it. Here it is decided once, and cut while it is copied behind the
//! outer header of each of its packets, which also sums them up: no octet of payload is touched
//! twice. What may not be treated alike (copies, a way past the tunnel, what does not fit, what is
//! answered) is cut first and goes on packet by packet.
//!
//! ```text
//!   | IPv6 .. | TCP | payload of 3 packets          |   the checksum covers the pseudo-header only
//!   | outer | IPv6 .. | TCP | part | outer | IPv6 .. | TCP | part | ..
//! ```

use std::time::Duration;

use mtun_policy::Ingress;

use crate::counters::{Direction, Form};
use crate::decide::{Decision, Encapsulation, Side};
use crate::encapsulation::outer_ecn;
use crate::engine::{Engine, Verdict};
use crate::memory::Memory;
use crate::packet::Inner;
use crate::party::party;
use crate::reason::DropReason;
use crate::registration::CopyMark;
use crate::send::{Leaving, fitting};
use crate::uids;
use crate::wire::sums::{Sum, append_summed};
use crate::wire::{Chain, Header, IPV6, TCP, UDP};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
/// Congestion window reduced: said once.
const CWR: u8 = 0x80;
/// Octets of a UDP header, and of a TCP header without options.
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;

/// How a superpacket is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuts {
    protocol: u8,
    /// Where the upper layer and its payload begin.
    upper_at: usize,
    payload_at: usize,
    /// Octets of payload of each packet; of the last one perhaps fewer.
    size: usize,
    packets: usize,
}

impl Cuts {
    /// Reads how a packet is to be cut into packets of `size` octets of payload; `None` if it
    /// cannot be: not TCP or UDP, a fragment, or no payload.
    pub fn of(packet: &[u8], size: u16) -> Option<Self> {
        let header = Header::parse(packet)?;
        if header.total_length() != packet.len() || size == 0 {
            return None;
        }
        let chain = Chain::walk(packet, header.next_header).ok()?;
        let upper = packet.get(chain.upper_at..)?;
        let length = match chain.upper {
            TCP => usize::from(upper.first_chunk::<TCP_HEADER>()?[12] >> 4) * 4,
            UDP => UDP_HEADER,
            _ => return None,
        };
        let payload = upper.len().checked_sub(length).filter(|left| *left > 0)?;
        let least = if chain.upper == TCP { TCP_HEADER } else { UDP_HEADER };
        if length < least || chain.fragment.is_some() {
            return None;
        }
        Some(Self {
            protocol: chain.upper,
            upper_at: chain.upper_at,
            payload_at: chain.upper_at + length,
            size: size.into(),
            packets: payload.div_ceil(size.into()),
        })
    }

    /// How many packets it stands for.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Octets of the longest of them.
    pub fn longest(&self, packet: &[u8]) -> usize {
        packet.len().min(self.payload_at + self.size)
    }

    /// Octets of all of them together.
    pub fn octets(&self, packet: &[u8]) -> usize {
        packet.len() + (self.packets - 1) * self.payload_at
    }

    /// Appends every packet, complete, behind what `front` appends for one of so many octets.
    ///
    /// `packet` is the one that this was read from. Its checksum must cover the pseudo-header
    /// only, with the length that it has, as the kernel hands superpackets over.
    pub fn cut(
        &self,
        packet: &[u8],
        mut front: impl FnMut(usize, &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        let (headers, payload) = packet.split_at(self.payload_at);
        let upper = &headers[self.upper_at..];
        let checksum_at = if self.protocol == TCP { 16 } else { 6 };
        // What all have in common, but for their lengths: the addresses and the protocol.
        let given = u16::from_be_bytes([upper[checksum_at], upper[checksum_at + 1]]);
        let all = (packet.len() - self.upper_at) as u16;
        let pseudo = Sum::of_number(given).without(all);
        for (number, part) in payload.chunks(self.size).enumerate() {
            let length = upper.len() + part.len();
            front(self.upper_at + length, out);
            let at = out.len();
            out.extend_from_slice(headers);
            let payload_length = (self.upper_at + length - crate::wire::ipv6::HEADER) as u16;
            out[at + 4..at + 6].copy_from_slice(&payload_length.to_be_bytes());
            let fields = &mut out[at + self.upper_at..];
            if self.protocol == TCP {
                let sequence = u32::from_be_bytes([fields[4], fields[5], fields[6], fields[7]]);
                let sequence = sequence.wrapping_add((number * self.size) as u32);
                fields[4..8].copy_from_slice(&sequence.to_be_bytes());
                if number > 0 {
                    fields[13] &= !CWR;
                }
                if number + 1 < self.packets {
                    fields[13] &= !(FIN | PSH);
                }
            } else {
                fields[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            }
            fields[checksum_at..checksum_at + 2].fill(0);
            let head = pseudo.and(Sum::of_number(length as u16)).and(Sum::of(fields));
            let checksum = head.and(append_summed(part, out)).checksum();
            out[at + self.upper_at + checksum_at..][..2].copy_from_slice(&checksum);
        }
    }
}

/// What becomes of a superpacket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// All its packets are treated alike; `out` holds them.
    Done(Verdict),
    /// Each of its packets is to be handed to [`Engine::outbound`] by itself; see [`Cuts::cut`].
    Apart(Cuts),
}

impl Engine {
    /// Takes a superpacket from the home-bound interface: one that stands for packets of `size`
    /// octets of payload each, and whose checksum covers the pseudo-header only.
    ///
    /// What cannot be cut is dropped for its [`DropReason::InnerHeaders`].
    pub fn outbound_whole(
        &self,
        ingress: Ingress,
        packet: &[u8],
        size: u16,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Whole {
        out.clear();
        let Some(cuts) = Cuts::of(packet, size) else {
            self.counters.drop(DropReason::InnerHeaders);
            return Whole::Done(Verdict::Drop(DropReason::InnerHeaders));
        };
        match self.send_whole(ingress, packet, &cuts, now, out) {
            Some(verdict) => Whole::Done(verdict),
            None => {
                out.clear();
                Whole::Apart(cuts)
            }
        }
    }

    /// `None` if anything about the packet is not plain; nothing is counted or in `out` then.
    fn send_whole(
        &self,
        ingress: Ingress,
        packet: &[u8],
        cuts: &Cuts,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Option<Verdict> {
        let inner = Inner::parse(packet, ingress).ok()?;
        inner.check_scope().ok()?;
        let snapshot = self.snapshot.load();
        let mut key = inner.key;
        let place = self.flows.place(&key);
        self.flows.approach(&place);
        let party = party(&snapshot, &key);
        party.approach();
        self.catch_up(&key);
        let flow = self.flows.remembered_at(&place);
        key.uid = uids::of(self.uids.as_deref(), &snapshot, &inner, &key, flow.as_ref(), now);
        let length = cuts.longest(packet);
        let leaving = Leaving { inner, packet, length, key, now };
        let decision = self.decided(&snapshot, party, &leaving, flow.as_ref());
        let Decision::Forward(route) = &decision else { return None };
        let route = fitting(*route, &leaving.inner);
        let Encapsulation::Tunnel { source, destination } = route.encapsulation else {
            return None;
        };
        let room = self.fit(&route, &leaving, CopyMark::Off).ok()?;
        if length > room.octets || room.limit.is_some() {
            return None;
        }
        let class = inner.header.traffic_class;
        let traffic_class = class & !3 | outer_ecn(class & 3);
        let flow_label = self.flow_label(&key);
        let hop_limit = self.settings.hop_limit;
        let front = |length: usize, out: &mut Vec<u8>| {
            // No longer than what fits a link.
            let payload_length = length as u16;
            let next_header = IPV6;
            Header {
                traffic_class,
                flow_label,
                payload_length,
                next_header,
                hop_limit,
                source,
                destination,
            }
            .emit(out);
        };
        cuts.cut(packet, front, out);
        let (packets, octets) = (cuts.packets() as u64, cuts.octets(packet) as u64);
        let (rule, bid) = (route.rule, route.binding.bid);
        self.counters.carry_many(rule, bid, Direction::Out, Form::Tunnel, packets, octets);
        if route.side == Side::Near {
            self.note_segment(&route, &inner, (&key, packet), now);
            self.want(&snapshot, route.registration, &key, route.rule, now);
        }
        let memory = Memory { flow: flow.as_ref(), groups: Some(&self.groups) };
        if let Some(answer) = decision.answer(&key, memory) {
            self.flows.sent_at(&place, &key, answer, packets, octets, now);
            self.note_move(&decision, &key, &answer);
            self.install_out(&snapshot, &route, (&inner, &key), flow.as_ref(), &answer, now);
        }
        Some(Verdict::Send { path: route.binding.path })
    }
}
