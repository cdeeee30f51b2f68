//! Probing: when each link of a home is asked whether it lives, and what its silence means.
//!
//! A [`Prober`] is a machine without I/O, one for each home of a mobile. It says when a probe is to
//! leave by a binding ([`Order::Send`]), is told what came back, and turns both into the [`Fact`]s
//! that [`Steering`](crate::Steering) judges links by. It knows no packet: what a probe looks like
//! and that an answer is one of ours is the data plane's business.
//!
//! # Pace
//!
//! A link that stands by is probed `every`, a metered one a tenth as often, one that carried
//! packets within the last 1.5 s `active-every`. The first three probes of a binding leave at that
//! pace too, so that it has figures before it is needed. Where the rate of a link is known, probes
//! take at most a thousandth of it. After two losses in a row steering asks for five at once, 20 ms
//! apart.
//!
//! # Silence
//!
//! A probe is lost when its answer is later than the smoothed round trip and four deviations, at
//! least 60 ms more than the round trip. An answer that comes after that counts all the same. A
//! burst lost in whole is told of a link only if something shows that it is the link:
//!
//! - It has answered before. Who never answers probes is not dead for that.
//! - Another link of the home was answered what left before two of the lost ones, and what left
//!   when they were overdue, and lost nothing between. So the agent was there all the time, also for
//!   a link that takes longer to it. When all fall silent at once it is the agent, or what all have
//!   in common, and no link is better than another. The others are asked at once.
//! - Or there is no other link that could answer: the last link rule shows it as `degraded`.
//! - Or the answers to others come by this link: their agent chooses one way down for all.
//!
//! Who was late himself accuses nobody: a machine that is woken after its time, because the node
//! was suspended or overloaded, gives every probe under way as much time again.

mod figures;
mod link;

use std::collections::VecDeque;
use std::time::Duration;

use crate::policy::{Home, Interface, Policy, Probe};
use crate::steering::{Fact, ProbeResult};
use crate::terms::{Bid, CareOfAddress};
use link::{Lost, Probed, Silence};

/// Octets of a probe with all its headers: two of IPv6, and 48 of ICMPv6.
pub const PROBE_OCTETS: u32 = 40 + 40 + 48;

/// Probes of a burst, and the pause between two of them.
const BURST: u8 = 5;
const BURST_PAUSE: Duration = Duration::from_millis(20);

/// A deadline that is acted on later than this was missed.
const LATE: Duration = Duration::from_millis(50);

/// What a prober wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A probe is to leave by this binding, whatever the rules say.
    Send {
        /// Which.
        bid: Bid,
        /// Its number, by which its answer is known.
        sequence: u64,
    },
    /// Steering is to be told this.
    Tell(Fact),
}

/// What became of the probes of one link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeCounts {
    /// Probes that left.
    pub sent: u64,
    /// Answers in time.
    pub answered: u64,
    /// Probes without an answer in time.
    pub lost: u64,
    /// Answers that came after that.
    pub late: u64,
}

/// The prober of one home.
#[derive(Clone, Debug)]
pub struct Prober {
    pace: Probe,
    links: Vec<Probed>,
    orders: VecDeque<Order>,
}

impl Prober {
    /// A prober that knows no binding yet.
    pub fn new(policy: &Policy, home: &Home) -> Self {
        let link = |interface: &Interface| Some(Probed::new(interface.bid?, interface));
        Self {
            pace: home.probe,
            links: policy.interfaces.iter().filter_map(link).collect(),
            orders: VecDeque::new(),
        }
    }

    /// Goes over to another policy: links that are the same go on as they are.
    pub fn adopt(&mut self, policy: &Policy, home: &Home) {
        let mut next = Self::new(policy, home);
        for link in &mut next.links {
            if let Some(before) = self.links.iter().find(|it| it.bid == link.bid) {
                link.adopt(before);
            }
        }
        next.orders = std::mem::take(&mut self.orders);
        *self = next;
    }

    /// The agent holds this care-of address for this BID, and packets can leave by it; or not.
    pub fn bound(&mut self, now: Duration, bid: Bid, care_of: Option<CareOfAddress>) {
        if self.link(bid).is_some_and(|link| link.bound(now, care_of)) {
            self.judge_silent();
        }
    }

    /// Packets that are no probes went by a link just now, either way.
    pub fn flowed(&mut self, now: Duration, bid: Bid) {
        let pace = self.pace;
        if let Some(link) = self.link(bid) {
            link.flowed(now, &pace);
        }
    }

    /// Steering wants a burst ([`Notice::BurstWanted`](crate::steering::Notice::BurstWanted)).
    pub fn burst(&mut self, now: Duration, bid: Bid) {
        let Some(since) = self.link(bid).and_then(|link| link.burst(now)) else { return };
        let mut answered = Vec::new();
        for other in self.others(bid) {
            other.be_witness(now, since);
            answered.extend(other.last_answered().map(|sent| (other.bid, sent)));
        }
        if let Some(link) = self.link(bid) {
            answered.into_iter().for_each(|(other, sent)| link.note_witness(other, sent));
        }
    }

    /// Something else that is authenticated came by this link, in answer to what left by it.
    pub fn heard(&mut self, bid: Bid) {
        if self.link(bid).is_some_and(Probed::heard) {
            self.orders.push_back(Order::Tell(Fact::Heard { bid }));
            self.judge_silent();
        }
    }

    /// An answer came at `now`, which may be a while ago, by the binding `by`. Returns whether
    /// it was waited for.
    ///
    /// An agent of our kind answers by the binding that was asked. Any other sends its answer as it
    /// sends all packets, so that the round trip is up by one link and down by another, as it is for
    /// the packets of flows.
    pub fn answered(&mut self, now: Duration, bid: Bid, sequence: u64, by: Option<Bid>) -> bool {
        let Some(link) = self.link(bid) else { return false };
        if !link.answer(now, sequence, by) {
            return false;
        }
        let (measurement, sent) = (link.measured(now), link.last_answered());
        for other in self.others(bid) {
            sent.into_iter().for_each(|sent| other.note_witness(bid, sent));
        }
        self.orders.push_back(Order::Tell(Fact::Probed { bid, probe: ProbeResult::Answered }));
        self.tell_measured(bid, measurement);
        self.judge_silent();
        true
    }

    /// When [`Self::handle_deadline`] is due and there may be something to [`Self::poll`]; `None` if
    /// nothing is bound.
    pub fn deadline(&self) -> Option<Duration> {
        let waiting = (!self.orders.is_empty()).then_some(Duration::ZERO);
        waiting.or_else(|| self.next())
    }

    fn next(&self) -> Option<Duration> {
        self.links.iter().filter_map(Probed::deadline).min()
    }

    /// Judges what is overdue and sends what is due.
    pub fn handle_deadline(&mut self, now: Duration) {
        let late = self.next().map_or(Duration::ZERO, |due| now.saturating_sub(due));
        if late > LATE {
            self.links.iter_mut().for_each(|link| link.forgive(late));
        }
        for at in 0..self.links.len() {
            while let Some(lost) = self.links[at].overdue(now) {
                let bid = self.links[at].bid;
                self.others(bid).for_each(|other| other.forget_witness(bid));
                match lost {
                    Lost::Told => {
                        let probe = ProbeResult::Lost;
                        self.orders.push_back(Order::Tell(Fact::Probed { bid, probe }));
                    }
                    Lost::Burst => self.others(bid).for_each(|it| it.be_witness(now, now)),
                    Lost::Counted => {}
                }
                let measurement = self.links[at].measured(now);
                self.tell_measured(bid, measurement);
            }
        }
        self.judge_silent();
        let suspected = self.links.iter().any(|it| it.silence == Silence::Suspected);
        for link in &mut self.links {
            if suspected {
                link.hurry(now, &self.pace);
            }
            if let Some(sequence) = link.send(now, &self.pace) {
                self.orders.push_back(Order::Send { bid: link.bid, sequence });
            }
        }
    }

    /// The next thing to do, in the order in which it came up.
    pub fn poll(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// What became of a link's probes.
    pub fn counts(&self, bid: Bid) -> ProbeCounts {
        self.links.iter().find(|link| link.bid == bid).map(|link| link.counts).unwrap_or_default()
    }

    fn link(&mut self, bid: Bid) -> Option<&mut Probed> {
        self.links.iter_mut().find(|link| link.bid == bid)
    }

    fn others(&mut self, bid: Bid) -> impl Iterator<Item = &mut Probed> {
        self.links.iter_mut().filter(move |it| it.bid != bid)
    }

    fn tell_measured(&mut self, bid: Bid, measurement: Option<crate::steering::Measurement>) {
        if let Some(measurement) = measurement {
            self.orders.push_back(Order::Tell(Fact::Measured { bid, measurement }));
        }
    }

    /// Tells of bursts lost in whole, where it is known that it is the link.
    fn judge_silent(&mut self) {
        for at in 0..self.links.len() {
            if self.links[at].silence == Silence::Suspected && self.is_to_blame(&self.links[at]) {
                let bid = self.links[at].bid;
                self.links[at].silence = Silence::Told;
                let probe = ProbeResult::LostInBurst;
                let fact = || Order::Tell(Fact::Probed { bid, probe });
                self.orders.extend((0..BURST).map(|_| fact()));
            }
        }
    }

    fn is_to_blame(&self, silent: &Probed) -> bool {
        let others = || {
            let may_answer = |it: &&Probed| it.bid != silent.bid && it.may_answer();
            self.links.iter().filter(may_answer)
        };
        let leans = |it: &Probed| it.answered_by() == Some(silent.bid);
        silent.is_witnessed() || others().next().is_none() || others().any(leans)
    }
}
