//! By which binding a flow's packets come: what `reflect` follows.
//!
//! A flow that moves to a faster link is ahead of its own packets that are still under way by the
//! link it left. Those are no sign that it went back, and what is sent after them would be overtaken
//! on the way down, too. So a packet by the link that a flow left a moment ago counts only if
//! that link was silent for a while, as a queue that empties is not, or nothing has come by the
//! other link for as long; a flow that did go back sends nothing there.

use std::time::Duration;

use mtun_policy::Bid;

use crate::memory::Remembered;

/// For so long after a flow left a link its packets may still be under way by that: the path
/// across a mobile network with its queues.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// By how much packets of one flow by two links pass each other: the difference of two access
/// networks. A flow that is silent by its link for longer may have left it.
const APART: Duration = Duration::from_millis(50);

/// A binding that a flow left.
#[derive(Clone, Copy, Debug)]
struct Left {
    bid: Option<Bid>,
    at: Duration,
    /// When the last packet came by it, or the flow left it.
    last: Duration,
}

/// The way of one flow's packets, besides what is remembered for `decide`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WayIn {
    left: Option<Left>,
}

impl WayIn {
    /// A packet of a flow was admitted on `bid`; `memory` says by which binding the flow comes.
    pub fn came(&mut self, memory: &mut Remembered, bid: Option<Bid>, now: Duration) {
        if bid == memory.last_verified {
            memory.verified_at = memory.verified_at.max(now);
            return;
        }
        let recent = |since: Duration, within| now.saturating_sub(since) < within;
        if let Some(left) = self.left.as_mut().filter(|left| left.bid == bid)
            && recent(left.at, UNDER_WAY)
            && recent(memory.verified_at, APART)
            && recent(left.last, APART)
        {
            left.last = now;
            return;
        }
        self.left = Some(Left { bid: memory.last_verified, at: now, last: now });
        (memory.last_verified, memory.verified_at) = (bid, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The bindings of packets with the times at which they come, in milliseconds; by which the flow
    /// comes after each.
    fn followed(packets: &[(u64, u16)]) -> Vec<u16> {
        let (mut way, mut memory) = (WayIn::default(), Remembered::default());
        let mut after = Vec::new();
        for (at, bid) in packets {
            way.came(&mut memory, Bid::new(*bid), MS * 5000 + Duration::from_millis(*at));
            after.push(memory.last_verified.map_or(0, Bid::get));
        }
        after
    }

    #[test]
    fn what_was_under_way_by_the_link_before_says_nothing() {
        // 40 ms by link 1, 5 ms by link 2, a packet each 10 ms: the flow moves at 100.
        let packets = [(130, 1), (105, 2), (115, 2), (120, 1), (125, 2), (130, 1), (135, 2)];
        let mut packets = Vec::from(packets);
        packets.sort_unstable();
        packets.insert(0, (90, 1));
        assert_eq!(followed(&packets), [1, 2, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn a_flow_that_goes_back_is_followed() {
        /// Why, the packets that come, and where the flow is seen after each of them.
        type Case<'a> = (&'a str, &'a [(u64, u16)], &'a [u16]);
        let cases: &[Case<'_>] = &[
            ("after a pause", &[(0, 1), (1, 2), (60, 1), (61, 1)], &[1, 2, 1, 1]),
            (
                "within it, when the other link has been silent for long enough",
                &[(0, 1), (1, 2), (30, 1), (40, 1), (50, 1), (51, 1)],
                &[1, 2, 2, 2, 2, 1],
            ),
            (
                "after a stay, with packets all the time",
                &[(0, 1), (1, 2), (30, 2), (60, 2), (90, 2), (91, 1), (92, 1)],
                &[1, 2, 2, 2, 2, 1, 1],
            ),
            (
                "but not for what a queue held back, which comes without pauses",
                &[(0, 1), (1, 2), (30, 1), (31, 2), (60, 1), (61, 2), (90, 1), (91, 2)],
                &[1, 2, 2, 2, 2, 2, 2, 2],
            ),
            ("much later", &[(0, 1), (1, 2), (1000, 2), (1001, 1)], &[1, 2, 2, 1]),
            ("to a third link", &[(0, 1), (1, 2), (2, 3), (3, 2), (4, 3)], &[1, 2, 3, 3, 3]),
            ("to and fro without pauses", &[(0, 1), (60, 2), (120, 1), (180, 2)], &[1, 2, 1, 2]),
        ];
        for (what, packets, want) in cases {
            assert_eq!(followed(packets), *want, "{what}");
        }
    }
}
