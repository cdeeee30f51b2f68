//! From the uplinks into the tunnel interface: what one thread keeps back for a moment, so that the
//! kernel gets what belongs together in one piece.
//!
//! Kept is nothing for longer than the packets take that have arrived already: before the thread
//! sleeps, or turns to anything else, it hands on what it has.

use std::sync::Arc;

use mtun_dataplane::backend::VnetHeader;
use mtun_dataplane::{CHECKSUM, Joined, Joining};

use super::{Lane, Shared};

/// Segments that wait for the next one, and where they go.
#[derive(Debug, Default)]
pub(super) struct Delivering {
    joining: Joining,
    lane: Option<Arc<Lane>>,
}

impl Delivering {
    /// Takes an inner packet for a tunnel interface. What is in `packet` afterwards is of no use.
    pub(super) fn take(
        &mut self,
        shared: &Shared,
        lane: &Arc<Lane>,
        header: VnetHeader,
        packet: &mut Vec<u8>,
    ) {
        let is_partial = header.is_partial_at(CHECKSUM);
        let may_be = !header.is_superpacket() && (is_partial || header == VnetHeader::COMPLETE);
        let same = self.lane.as_ref().is_some_and(|it| Arc::ptr_eq(it, lane));
        if may_be && same && self.joining.join(packet, is_partial) {
            return;
        }
        self.end(shared);
        if may_be && self.joining.begin(packet, is_partial) {
            self.lane = Some(lane.clone());
        } else {
            hand(shared, lane, header, packet);
        }
    }

    /// Hands on what waits.
    pub(super) fn end(&mut self, shared: &Shared) {
        // Not kept any longer: the tunnel interface ends with the last who holds it.
        let Some(lane) = self.lane.take() else { return };
        match self.joining.end() {
            None => {}
            Some(Joined::One(packet, false)) => hand(shared, &lane, VnetHeader::COMPLETE, packet),
            Some(Joined::One(packet, true)) => {
                hand(shared, &lane, VnetHeader::partial(CHECKSUM.0, CHECKSUM.1), packet);
            }
            Some(Joined::Several(packet, before, each)) => {
                hand(shared, &lane, VnetHeader::segments(before, each, CHECKSUM), packet);
            }
        }
    }
}

fn hand(shared: &Shared, lane: &Lane, header: VnetHeader, packet: &[u8]) {
    if lane.queue.send_with(header, packet).is_err() {
        shared.failures.count_tunnel();
    }
}
