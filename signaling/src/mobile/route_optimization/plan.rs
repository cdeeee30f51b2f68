//! What a correspondent is asked next, planned from the state of the moment.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::Bid;

use super::peer::{Entry, Peer};
use super::{
    MAX_DEREGISTRATIONS, MAX_RO_FAILURE, MAX_TESTS, RouteOptimization, RouteOptimizationNotice,
    Unoptimized, Uplink,
};
use crate::return_routability::Tested;
use crate::wire::Lifetime;

/// The content of one Binding Update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Register or refresh this BID.
    Register { bid: Bid },
    /// Register this uplink's address without a BID, in place of everything.
    Plain { bid: Bid },
    /// De-register this BID.
    Deregister { bid: Bid },
    /// De-register everything.
    DeregisterAll,
}

impl Request {
    /// The uplink that it is about.
    pub(super) fn bid(self) -> Option<Bid> {
        match self {
            Self::Register { bid } | Self::Plain { bid } | Self::Deregister { bid } => Some(bid),
            Self::DeregisterAll => None,
        }
    }

    /// The uplink whose address it registers.
    pub(super) fn registers(self) -> Option<Bid> {
        match self {
            Self::Register { bid } | Self::Plain { bid } => Some(bid),
            Self::Deregister { .. } | Self::DeregisterAll => None,
        }
    }
}

impl RouteOptimization {
    /// Everything that this correspondent should be asked at `now`, most urgent first.
    pub(super) fn wishes(&self, now: Duration, peer: &Peer) -> Vec<Request> {
        if peer.rests_until() > now || !self.at_home && self.uplinks.is_empty() {
            return Vec::new();
        }
        if !peer.wanted || self.at_home {
            // req MN-25 (RFC 6275 §11.5.5, §11.7.2): at home, nothing stays bound.
            return if peer.may_be_held() { vec![Request::DeregisterAll] } else { Vec::new() };
        }
        if peer.single { self.wish_for_one(now, peer) } else { self.wishes_per_bid(now, peer) }
    }

    fn wishes_per_bid(&self, now: Duration, peer: &Peer) -> Vec<Request> {
        let mut wishes = Vec::new();
        for (&bid, entry) in &peer.entries {
            // A dead binding still attracts packets.
            if entry.held_until.is_some() && (entry.is_dead() || !self.uplinks.contains_key(&bid)) {
                wishes.push((entry.endings, false, 0, Request::Deregister { bid }));
            }
        }
        for (&bid, uplink) in &self.uplinks {
            let entry = peer.entries.get(&bid);
            if is_due(now, uplink, entry) {
                let unanswered = entry.map_or(0, |entry| entry.unanswered);
                wishes.push((unanswered, true, uplink.priority, Request::Register { bid }));
            }
        }
        wishes.sort_by_key(|&(tries, registers, priority, request)| {
            (tries, registers, priority, request.bid())
        });
        wishes.into_iter().map(|(.., request)| request).collect()
    }

    /// With one care-of address only, it is that of the preferred uplink that works.
    fn wish_for_one(&self, now: Duration, peer: &Peer) -> Vec<Request> {
        let works = |bid: &Bid| {
            let entry = peer.entries.get(bid);
            entry.is_none_or(|entry| {
                !entry.eaten && (entry.rest.until <= now || entry.grant.is_some())
            })
        };
        let up = self.uplinks.iter().filter(|(bid, _)| works(bid));
        match up.min_by_key(|(bid, uplink)| (uplink.priority, **bid)) {
            Some((&bid, uplink)) if is_due(now, uplink, peer.entries.get(&bid)) => {
                vec![Request::Plain { bid }]
            }
            Some(_) => Vec::new(),
            None if peer.may_be_held() => vec![Request::DeregisterAll],
            None => Vec::new(),
        }
    }

    /// Sends what is due and can be sent.
    pub(super) fn run(&mut self, now: Duration, correspondent: Ipv6Addr, peer: &mut Peer) {
        let wishes = self.wishes(now, peer);
        // Whoever moves with a home token at hand waits for no message by the home agent.
        let bound = peer.wanted && peer.entries.values().any(|entry| entry.grant.is_some());
        if !wishes.is_empty() || bound && peer.rests_until() <= now && peer.home_test.is_old(now) {
            // req MN-15, MN-25 (RFC 6275 §11.6.1): both tests side by side, none for a token that
            // is at hand.
            self.test_home(now, correspondent, peer);
        }
        for bid in wishes.iter().filter_map(|wish| wish.registers()) {
            self.test_care_of(now, correspondent, peer, bid);
        }
        if peer.update_ready_at() > now || peer.home_test.token(now).is_none() {
            return;
        }
        let ready = wishes.into_iter().find(|&wish| {
            let tested = wish.registers().is_none_or(|bid| {
                peer.entries.get(&bid).is_some_and(|entry| entry.test.token(now).is_some())
            });
            tested && !peer.is_outstanding(wish)
        });
        if let Some(request) = ready {
            self.send_update(now, correspondent, peer, request);
        }
    }

    /// Does what has become too late: tests, updates, bindings.
    pub(super) fn expire(&mut self, now: Duration, correspondent: Ipv6Addr, peer: &mut Peer) {
        if peer.home_test.expire(now) {
            self.home_test_unanswered(now, correspondent, peer);
        }
        for bid in peer.bids() {
            let Some(entry) = peer.entries.get_mut(&bid) else { continue };
            let test_failed = entry.test.expire(now);
            if entry.eaten && entry.rest.until <= now {
                entry.eaten = false;
            }
            if entry.held_until.is_some_and(|until| until <= now) {
                entry.ended();
            }
            let over = entry.grant.is_some_and(|grant| grant.expires <= now);
            if over {
                self.unbind(correspondent, peer, bid, Unoptimized::Expired);
            }
            if test_failed {
                self.care_of_test_unanswered(now, correspondent, peer, bid);
            }
        }
        let late: Vec<Request> = peer
            .outstanding
            .extract_if(.., |sent| sent.timer <= now)
            .map(|sent| sent.request)
            .collect();
        for request in late {
            self.update_unanswered(now, correspondent, peer, request);
        }
        let uplinks = &self.uplinks;
        peer.entries.retain(|bid, entry| uplinks.contains_key(bid) || entry.held_until.is_some());
    }

    fn home_test_unanswered(&mut self, now: Duration, correspondent: Ipv6Addr, peer: &mut Peer) {
        // RFC 6275 §5.2.9: back to the tunnel, unless the token was only to be at hand.
        let needed = !self.wishes(now, peer).is_empty();
        if needed && peer.home_test.unanswered == MAX_RO_FAILURE {
            self.unbind_all(correspondent, peer, Tested::Home.into());
        }
        if peer.home_test.unanswered >= MAX_TESTS {
            peer.home_test.unanswered = 0;
            let retry = peer.rest.begin(now);
            let tested = Tested::Home;
            let notice =
                RouteOptimizationNotice::Unanswered { correspondent, tested, bid: None, retry };
            self.notice(notice);
        }
    }

    fn care_of_test_unanswered(
        &mut self,
        now: Duration,
        correspondent: Ipv6Addr,
        peer: &mut Peer,
        bid: Bid,
    ) {
        let Some(entry) = peer.entries.get_mut(&bid) else { return };
        let unanswered = entry.test.unanswered;
        if unanswered >= MAX_TESTS {
            entry.test.unanswered = 0;
            let retry = entry.rest.begin(now);
            let (tested, bid) = (Tested::CareOf, Some(bid));
            self.notice(RouteOptimizationNotice::Unanswered { correspondent, tested, bid, retry });
        }
        if unanswered == MAX_RO_FAILURE {
            self.unbind(correspondent, peer, bid, Tested::CareOf.into());
        }
    }

    fn update_unanswered(
        &mut self,
        now: Duration,
        correspondent: Ipv6Addr,
        peer: &mut Peer,
        request: Request,
    ) {
        let (tries, most) = match request {
            Request::Register { bid } | Request::Plain { bid } => {
                let Some(entry) = peer.entries.get_mut(&bid) else { return };
                entry.unanswered = entry.unanswered.saturating_add(1);
                if entry.unanswered >= MAX_RO_FAILURE {
                    self.updates_unanswered(now, correspondent, peer, bid);
                }
                return;
            }
            Request::Deregister { bid } => {
                let Some(entry) = peer.entries.get_mut(&bid) else { return };
                entry.endings += 1;
                (entry.endings, MAX_DEREGISTRATIONS)
            }
            Request::DeregisterAll => {
                peer.endings += 1;
                (peer.endings, MAX_DEREGISTRATIONS)
            }
        };
        if tries < most {
            return;
        }
        peer.leave(request);
        self.notice(RouteOptimizationNotice::LeftToTimers { correspondent });
    }

    /// Three updates in a row stay unanswered. If the test by the same path was answered since
    /// the first of them, it is not the path but what they carry; else the test is made again.
    fn updates_unanswered(
        &mut self,
        now: Duration,
        correspondent: Ipv6Addr,
        peer: &mut Peer,
        bid: Bid,
    ) {
        let Some(entry) = peer.entries.get_mut(&bid) else { return };
        if entry.test.is_recent(now) {
            return self.headers_eaten(now, correspondent, peer, bid);
        }
        entry.test.forget_token();
        self.unbind(correspondent, peer, bid, Unoptimized::UpdateUnanswered);
    }
}

/// Whether this uplink's address is to be registered or refreshed.
fn is_due(now: Duration, uplink: &Uplink, entry: Option<&Entry>) -> bool {
    // req MN-26 (RFC 6275 §11.7.2): never longer than the home agent holds it.
    if Lifetime::from_duration(uplink.expires.saturating_sub(now)).is_zero() {
        return false;
    }
    entry.is_none_or(|entry| {
        let fresh = entry
            .grant
            .is_some_and(|grant| grant.care_of == uplink.care_of && now < entry.refresh_at);
        !fresh && entry.rest.until <= now
    })
}
