//! Probes: from what the prober of a home orders to packets, and from answers to facts.
//!
//! Several homes probe the same link each for themselves, because each asks its own agent. Whether
//! a link carries traffic is read from its octets, of which those of probes are told apart.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use mtun_dataplane::PathId;
use mtun_policy::probing::{Order, ProbeCounts};
use mtun_policy::{Bid, HomeAddress};

use super::owner::Owner;

/// Octets that each link had carried when it was looked at last, without those of probes.
pub(super) type Looked = BTreeMap<Bid, u64>;

/// An answer to a probe, and when and by which binding it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whose home agent answered.
    pub home_address: HomeAddress,
    /// The binding that was asked about.
    pub bid: Bid,
    /// The probe's number.
    pub sequence: u64,
    /// The binding by which it came.
    pub by: Option<Bid>,
    /// When, on the monotonic clock.
    pub at: Duration,
}

impl Owner {
    /// Tells the prober of a home which bindings it has.
    pub(super) fn tell_prober(&mut self, home: usize, now: Duration) {
        let bids: Vec<_> = self.policy.interfaces.iter().filter_map(|it| it.bid).collect();
        for bid in bids {
            let attached = self.is_attached(bid);
            let it = &mut self.homes[home];
            let list = it.node.update_list();
            let entry = list.entries.iter().find(|entry| entry.bid == bid);
            let entry = entry.filter(|it| attached && it.is_registered() && !it.home_link);
            it.prober.bound(now, bid, entry.map(|entry| entry.care_of));
        }
    }

    /// Does what the prober of a home has due.
    pub(super) fn probes_due(&mut self, home: usize, now: Duration) {
        if self.homes[home].prober.deadline().is_some_and(|at| at <= now) {
            self.look_for_traffic(home, now);
            self.homes[home].prober.handle_deadline(now);
            self.follow_prober(home);
        }
    }

    /// Tells the prober of a home which links carry traffic.
    pub(super) fn look_for_traffic(&mut self, home: usize, now: Duration) {
        let it = &mut self.homes[home];
        for bid in self.policy.interfaces.iter().filter_map(|it| it.bid) {
            let octets = self.shared.paths.octets(PathId(bid.get())).without_probes();
            let before = it.looked.insert(bid, octets);
            if before.is_some_and(|before| before != octets) {
                it.prober.flowed(now, bid);
            }
        }
    }

    /// A probe was answered.
    pub(super) fn probe_answered(&mut self, answer: Answer) {
        let Answer { home_address, bid, sequence, by, at } = answer;
        let asked = |home: &super::home::MobileHome| home.home.address == home_address;
        let Some(home) = self.homes.iter().position(asked) else { return };
        if self.homes[home].prober.answered(at, bid, sequence, by) {
            self.follow_prober(home);
        }
    }

    /// The agent of a home acknowledged what was sent from this care-of address: it lives.
    pub(super) fn heard_by(&mut self, home: usize, care_of: Ipv6Addr) {
        if let Some(bid) = self.bid_of(care_of) {
            self.homes[home].prober.heard(bid);
            self.follow_prober(home);
        }
    }

    /// Sends the probes that a prober wants sent and tells steering what it says. Packets read of
    /// a verdict before anybody is told of it.
    pub(super) fn follow_prober(&mut self, home: usize) {
        let now = self.now().monotonic;
        while let Some(order) = self.homes[home].prober.poll() {
            match order {
                Order::Tell(fact) => self.homes[home].steering.handle(now, fact),
                Order::Send { bid, sequence } => self.send_probe(home, bid, sequence),
            }
        }
        let it = &self.homes[home];
        if it.steering.has_notices() || !Arc::ptr_eq(&it.steering.effective(), &it.effective) {
            self.publish_home(home);
        }
    }

    fn send_probe(&self, home: usize, bid: Bid, sequence: u64) {
        let it = &self.homes[home];
        let (address, now) = (it.home.address, self.now().monotonic);
        let mut packet = Vec::new();
        let engine = &it.tunnel.lane.engine;
        let Some(path) = engine.probe(address, bid, sequence, now, &mut packet) else { return };
        // One that does not leave is lost like others: the link is told by what becomes of it.
        if let Some(Err(error)) = self.shared.paths.send_probe(path, &packet) {
            tracing::debug!(%error, %bid, "a probe could not be sent");
        }
    }

    /// What became of the probes of a link, of all homes.
    pub(super) fn probe_counts(&self, bid: Bid) -> ProbeCounts {
        self.homes.iter().map(|home| home.prober.counts(bid)).fold(
            ProbeCounts::default(),
            |all, it| ProbeCounts {
                sent: all.sent + it.sent,
                answered: all.answered + it.answered,
                lost: all.lost + it.lost,
                late: all.late + it.late,
            },
        )
    }
}
