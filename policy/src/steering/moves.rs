//! When a flow that is to move may move: pure functions of figures, called for packets.
//!
//! Three kinds of moves. A flow on a link that is gone moves **at once**. A flow whose rule no
//! longer wants its link (drained, out of its SLA, over a hard quota, changed by a new policy or
//! an override) makes a **planned** move: [`planned`]. A flow on an allowed link that is not the
//! first choice of its rule **goes back** as the rule's `failback` says: [`going_back`].
//!
//! Planned moves and moves back in a gap are free of reordering: a packet sent by a slow link may
//! be overtaken by the next one sent by a faster link, unless the pause between them is at least
//! the difference of the round trip times and three times the jitter: half of that keeps the flow's
//! own packets in order, and all of it the answers to them, which follow the flow. A move to a link
//! that is not faster needs no pause. Nothing waits longer than [`MOVE_BY`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::effective::Says;
use crate::terms::Bid;
use crate::verb::FailbackMode;

/// How long a planned move waits for a gap, from the change that made it due.
pub const MOVE_BY: Duration = Duration::from_secs(2);

/// How long at least a link that flows left keeps receiving.
pub const LEAST_LINGER: Duration = Duration::from_secs(1);

/// The pause that a move needs while the round trip time of either link is unknown: the difference
/// between a cellular link of 120 ms and a WLAN of 20 ms.
pub const UNKNOWN_GAP: Duration = Duration::from_millis(100);

/// What a link's path measures at present; `None` if nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathFigures {
    /// Smoothed round trip time.
    pub rtt: Option<Duration>,
    /// Jitter of the round trip time.
    pub jitter: Option<Duration>,
}

/// How long the old link goes on receiving after a planned move: two round trips, at least 1 s.
pub fn linger(rtt: Option<Duration>) -> Duration {
    rtt.map_or(LEAST_LINGER, |rtt| (rtt * 2).max(LEAST_LINGER))
}

/// The pause since a flow's last packet after which neither its next one by `to` can overtake it, nor
/// the answer to that one the answer to this; `None` if there is no need to wait: `to` is not faster
/// than `from`.
///
/// The larger jitter of the two counts. With a round trip time unknown it is [`UNKNOWN_GAP`].
pub fn needed_gap(from: PathFigures, to: PathFigures) -> Option<Duration> {
    let (Some(slow), Some(fast)) = (from.rtt, to.rtt) else {
        return Some(UNKNOWN_GAP);
    };
    let jitter = from.jitter.max(to.jitter).unwrap_or_default();
    (slow > fast).then(|| slow - fast + jitter * 3)
}

/// Whether and how a flow moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Going {
    /// It stays where it is.
    Stays,
    /// It moves with its next packet.
    AtOnce,
    /// It moves after a pause of this length, at latest [`MOVE_BY`] after the change.
    InGap(Duration),
}

impl Going {
    /// Whether the flow moves with the packet at hand.
    ///
    /// `pause` is the time since the flow's last packet, `since_change` the time since the change
    /// that made the move due: since the first publication under which the flow was to move.
    pub fn due(self, pause: Duration, since_change: Duration) -> bool {
        match self {
            Self::Stays => false,
            Self::AtOnce => true,
            Self::InGap(needed) => pause >= needed || since_change >= MOVE_BY,
        }
    }
}

/// How a flow leaves a link that works but that its rule does not want any more.
pub fn planned(from: PathFigures, to: PathFigures) -> Going {
    needed_gap(from, to).map_or(Going::AtOnce, Going::InGap)
}

/// A flow on a usable, allowed link that is not the first choice of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strayed {
    /// The link it is on.
    pub from: Bid,
    /// Whether that link is metered.
    pub from_metered: bool,
    /// What that link's path measures.
    pub from_figures: PathFigures,
    /// The present first choice of the rule for this flow.
    pub to: Bid,
    /// What that link's path measures.
    pub to_figures: PathFigures,
}

/// Whether and how a flow goes back to the first choice of its rule.
///
/// Only to links of [`Says::ripe`] and never from links of [`Says::settled`]. A metered link
/// under the flow makes `gap` of `new` and `never`, so that no flow stays on the dear link.
pub fn going_back(says: &Says, flow: &Strayed) -> Going {
    if flow.from == flow.to || !says.ripe.contains(&flow.to) || says.settled.contains(&flow.from) {
        return Going::Stays;
    }
    match says.failback {
        FailbackMode::Now => Going::AtOnce,
        FailbackMode::Gap => planned(flow.from_figures, flow.to_figures),
        FailbackMode::New | FailbackMode::Never if flow.from_metered => {
            planned(flow.from_figures, flow.to_figures)
        }
        FailbackMode::New | FailbackMode::Never => Going::Stays,
    }
}

/// Whether a flow goes back with the packet at hand: [`going_back`] and [`Going::due`] in one.
pub fn may_go_back(says: &Says, flow: &Strayed, pause: Duration, since_change: Duration) -> bool {
    going_back(says, flow).due(pause, since_change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effective::{Otherwise, Outcome};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn figures(rtt: u64, jitter: u64) -> PathFigures {
        PathFigures { rtt: Some(ms(rtt)), jitter: Some(ms(jitter)) }
    }

    #[test]
    fn only_slow_to_fast_waits() {
        let unknown = PathFigures::default();
        let cases: &[(&str, PathFigures, PathFigures, Option<Duration>)] = &[
            ("slow to fast: the difference", figures(100, 0), figures(20, 0), Some(ms(80))),
            ("and three times the jitter", figures(100, 5), figures(20, 1), Some(ms(95))),
            ("whichever link has it", figures(100, 1), figures(20, 5), Some(ms(95))),
            ("fast to slow: at once", figures(20, 5), figures(100, 5), None),
            ("equal: at once", figures(20, 5), figures(20, 5), None),
            ("unknown old link", unknown, figures(20, 5), Some(UNKNOWN_GAP)),
            ("unknown new link", figures(20, 5), unknown, Some(UNKNOWN_GAP)),
        ];
        for (what, from, to, want) in cases {
            assert_eq!(needed_gap(*from, *to), *want, "{what}");
        }
    }

    #[test]
    fn linger_is_two_round_trips_and_at_least_a_second() {
        assert_eq!(linger(None), ms(1000));
        assert_eq!(linger(Some(ms(40))), ms(1000));
        assert_eq!(linger(Some(ms(700))), ms(1400));
    }

    #[test]
    fn failback_modes() {
        let bid = |number| Bid::new(number).expect("not zero");
        let (first, second) = (bid(1), bid(2));
        // mode, the link under the flow is metered, the first choice is ripe, the full link
        let gap = Going::InGap(ms(80));
        let cases: &[(FailbackMode, bool, bool, Option<Bid>, Going)] = &[
            (FailbackMode::New, false, true, None, Going::Stays),
            (FailbackMode::New, true, true, None, gap),
            (FailbackMode::Gap, false, true, None, gap),
            (FailbackMode::Gap, true, true, None, gap),
            (FailbackMode::Now, false, true, None, Going::AtOnce),
            (FailbackMode::Now, true, true, None, Going::AtOnce),
            (FailbackMode::Never, false, true, None, Going::Stays),
            (FailbackMode::Never, true, true, None, gap),
            (FailbackMode::Gap, true, false, None, Going::Stays),
            (FailbackMode::Now, true, false, None, Going::Stays),
            (FailbackMode::Gap, false, true, Some(second), Going::Stays),
            (FailbackMode::Gap, false, true, Some(first), gap),
        ];
        for (mode, metered, ripe, settled, want) in cases {
            let outcome = Outcome::Candidates(vec![first, second]);
            let says = Says {
                failback: *mode,
                ripe: ripe.then_some(first).into_iter().collect(),
                settled: settled.iter().copied().collect(),
                ..Says::plain(outcome, Otherwise::NextRule)
            };
            let flow = Strayed {
                from: second,
                from_metered: *metered,
                from_figures: figures(100, 0),
                to: first,
                to_figures: figures(20, 0),
            };
            let case = format!("{mode:?} metered={metered} ripe={ripe} settled={settled:?}");
            assert_eq!(going_back(&says, &flow), *want, "{case}");
        }
    }

    #[test]
    fn a_gap_is_waited_for_two_seconds_at_most() {
        let going = Going::InGap(ms(40));
        assert!(!going.due(ms(39), ms(1999)));
        assert!(going.due(ms(40), ms(0)));
        assert!(going.due(ms(0), ms(2000)));
        assert!(Going::AtOnce.due(ms(0), ms(0)));
        assert!(!Going::Stays.due(ms(60_000), ms(60_000)));
    }
}
