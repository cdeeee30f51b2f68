//! From the tunnel interface to the uplinks: what one thread does with what enters there.

use mtun_dataplane::backend::VnetHeader;
use mtun_dataplane::{Verdict, Whole, wire};
use mtun_policy::Ingress;

use super::exits::Exits;
use super::{Lane, Shared, carry, told_ourselves};

/// One thread's hands: room for what it makes, and what it knows of the links.
#[derive(Debug)]
pub(super) struct Leaving {
    exits: Exits,
    /// What the engine made of the last packet.
    out: Vec<u8>,
    /// The packets of a superpacket that go on one by one.
    apart: Vec<u8>,
}

impl Leaving {
    pub(super) fn new() -> Self {
        Self { exits: Exits::new(), out: Vec::new(), apart: Vec::new() }
    }

    /// Takes what entered the tunnel interface as its header says it is: one packet, or a
    /// superpacket.
    pub(super) fn take(
        &mut self,
        shared: &Shared,
        lane: &Lane,
        ingress: Ingress,
        header: VnetHeader,
        packet: &mut [u8],
    ) {
        if !header.is_superpacket() && header.finish(packet) {
            return self.take_one(shared, lane, ingress, packet);
        }
        // None has a checksum of its own; that it cannot be cut then is for the engine to count.
        let size = if header.has_partial_checksum() { header.segment_size() } else { 0 };
        let now = shared.clock.monotonic();
        match lane.engine.outbound_whole(ingress, packet, size, now, &mut self.out) {
            Whole::Done(verdict) => self.carry(shared, lane, verdict),
            Whole::Apart(cuts) => {
                let mut apart = std::mem::take(&mut self.apart);
                apart.clear();
                cuts.cut(packet, |_, _| {}, &mut apart);
                wire::packets(&apart).for_each(|it| self.take_one(shared, lane, ingress, it));
                self.apart = apart;
            }
        }
    }

    /// Takes one complete packet.
    pub(super) fn take_one(
        &mut self,
        shared: &Shared,
        lane: &Lane,
        ingress: Ingress,
        packet: &[u8],
    ) {
        let now = shared.clock.monotonic();
        let verdict = lane.engine.outbound(ingress, packet, now, &mut self.out);
        if !told_ourselves(shared, verdict, &mut self.out) {
            self.carry(shared, lane, verdict);
        }
    }

    fn carry(&mut self, shared: &Shared, lane: &Lane, verdict: Verdict) {
        match verdict {
            Verdict::Send { path } => self.exits.send(shared, path, &self.out),
            Verdict::Replicate(sends) => {
                sends.parts(&self.out).for_each(|(path, part)| self.exits.send(shared, path, part));
            }
            other => carry(shared, lane, other, &self.out, VnetHeader::COMPLETE, None),
        }
    }
}
