//! Flows as the data plane keeps them, in a few lines: each remembers its link and leaves it for
//! a reason. Enough to count moves and strays under a virtual clock.

use std::time::Duration;

use mtun_policy::steering::moves::{Going, Strayed, going_back, planned};
use mtun_policy::{Bid, Choice, FlowKey, Origin, Steering, Usable};

use crate::home::*;

/// The links as they are published with the rules.
pub struct Published<'s>(pub &'s Steering);

impl Usable for Published<'_> {
    fn usable(&self, bid: Bid) -> bool {
        self.0.usable(bid)
    }

    fn preferred(&self) -> Option<Bid> {
        LINKS.into_iter().find(|bid| self.0.usable(*bid))
    }

    fn attached(&self, bid: Bid) -> bool {
        self.0.breaks_out(bid)
    }
}

/// Why a flow moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its link cannot be used.
    LinkDown,
    /// Its rule does not name its link any more.
    LeftRule,
    /// It went back.
    Failback,
}

/// One flow that lives for ever.
#[derive(Clone, Debug)]
pub struct Flow {
    pub key: FlowKey,
    pub link: Option<Bid>,
    pub moves: Vec<(Duration, Bid, Bid, Why)>,
    /// Packets that no link could carry.
    pub lost: u64,
    last_packet: Duration,
    due_since: Option<Duration>,
}

impl Flow {
    pub fn new(key: FlowKey) -> Self {
        let (link, moves) = (None, Vec::new());
        Self { key, link, moves, lost: 0, last_packet: Duration::ZERO, due_since: None }
    }

    /// A packet of the flow.
    pub fn packet(&mut self, now: Duration, steering: &Steering) {
        self.settle(now, steering);
        if self.link.is_none_or(|link| !steering.usable(link)) {
            self.lost += 1;
        }
        self.last_packet = now;
    }

    /// Looks at the flow again, with a packet or without.
    pub fn settle(&mut self, now: Duration, steering: &Steering) {
        let effective = steering.effective();
        let choice = effective.choose(&self.key, Origin::Home, &Published(steering), None);
        let Choice::Use { rule: Some(rule), bid: to, .. } = choice else {
            return;
        };
        let Some(from) = self.link else {
            self.link = Some(to);
            return;
        };
        if from == to {
            self.due_since = None;
            return;
        }
        let (from_figures, to_figures) = (steering.figures(from), steering.figures(to));
        let (going, why) = if !steering.usable(from) {
            (Going::AtOnce, Why::LinkDown)
        } else if !rule.says.allows(from) {
            (planned(from_figures, to_figures), Why::LeftRule)
        } else {
            let from_metered = from != WLAN0;
            let strayed = Strayed { from, from_metered, from_figures, to, to_figures };
            (going_back(rule.says, &strayed), Why::Failback)
        };
        if going == Going::Stays {
            self.due_since = None;
            return;
        }
        let since = *self.due_since.get_or_insert(now);
        if going.due(now.saturating_sub(self.last_packet), now.saturating_sub(since)) {
            self.moves.push((now, from, to, why));
            self.link = Some(to);
            self.due_since = None;
        }
    }
}
