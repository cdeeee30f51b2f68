//! The mobile's side of correspondent registrations (RFC 6275 §11.6, §11.7.2, RFC 5648 §5.2).
//!
//! A [`RouteOptimization`] keeps the care-of addresses of one home address registered at every
//! correspondent that is worth it, each under its BID, so that packets between the two go
//! straight by the care-of address that the flow policy chooses, and not by the home agent.
//!
//! ```text
//!   Wanted ──► home test, through the tunnel ─┐
//!     CareOf ► care-of test per BID, straight ┴► one update per BID ──► Bound, refreshed, …
//!                       ▲                                   │
//!                       └── nonce expired, token too old ◄──┘  anything fails ──► the tunnel
//! ```
//!
//! Nothing depends on it: whatever fails three times falls back to the tunnel by the same BID
//! (RFC 6275 §5.2.9), and comes back when it works. What is sent next is planned from the state
//! of that moment (`plan.rs`), as for the home registration: one sequence and one outstanding
//! update per correspondent, over all BIDs. One home test serves all BIDs; each care-of address
//! has a test of its own, and moving one uplink redoes only that.
//!
//! Some firewalls let tests pass and eat what carries a Home Address option or a type 2 routing
//! header. When updates stay unanswered while the tests by the same path are answered, the machine
//! says so, ends the binding through the tunnel, where no such header is needed, and rests.
//!
//! It is told which care-of addresses the home agent holds ([`MobileNode`](super::MobileNode)
//! says so) and which correspondents traffic or policy wants; it judges neither.

mod acknowledgement;
mod event;
mod notice;
mod peer;
mod plan;
mod routability;
mod update;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{Bid, CareOfAddress};

pub use event::{Route, RouteOptimizationConfig, RouteOptimizationEvent, RouteOptimizationOutput};
pub use notice::{Ignored, RouteOptimizationNotice, Unoptimized};
pub use peer::{CorrespondentBinding, CorrespondentEntry, Standing};

use crate::binding::is_routable;
use crate::budget::Budget;
use crate::machine::{Envelope, Machine};
use crate::return_routability::Tested;
use crate::seed::Seed;
use crate::time::Timestamp;
use crate::wire::iana::binding_error;
use crate::wire::{self, Message};
use peer::{Peer, Rest};

/// Tries that fail before packets take the tunnel again (RFC 6275 §12).
pub const MAX_RO_FAILURE: u32 = 3;
/// Tests that stay unanswered before the correspondent is left alone for a while: the waits have
/// grown to 32 s by then.
const MAX_TESTS: u32 = 8;
/// De-registrations that stay unanswered before the rest is left to the correspondent's timers.
const MAX_DEREGISTRATIONS: u32 = 5;
/// First rest after a failure, doubled each time in a row.
pub const FIRST_REST: Duration = Duration::from_secs(30);
/// Longest rest.
pub const MAX_REST: Duration = Duration::from_secs(3600);
/// Unauthenticated requests to refresh, and errors, cost an update this long after the last one.
const REFRESH_GUARD: Duration = Duration::from_secs(10);

/// A care-of address that the home agent holds.
#[derive(Clone, Copy, Debug)]
struct Uplink {
    care_of: Ipv6Addr,
    priority: u8,
    expires: Duration,
}

/// What the machine lives for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Optimize,
    /// End everything, then stop.
    Stop,
    /// Nothing: stopped.
    Nothing,
}

/// One home address and all its correspondents.
#[derive(Debug)]
pub struct RouteOptimization {
    config: RouteOptimizationConfig,
    seed: Seed,
    aim: Aim,
    at_home: bool,
    uplinks: BTreeMap<Bid, Uplink>,
    peers: BTreeMap<Ipv6Addr, Peer>,
    /// Correspondents taken up; traffic may want many at once.
    starts: Budget,
    /// When the machine last ran: nothing earlier is still to be done.
    now: Duration,
    out: VecDeque<RouteOptimizationOutput>,
}

impl RouteOptimization {
    /// Without correspondents and care-of addresses.
    pub fn new(config: RouteOptimizationConfig, seed: Seed) -> Self {
        Self {
            config,
            seed,
            aim: Aim::Optimize,
            at_home: false,
            uplinks: BTreeMap::new(),
            peers: BTreeMap::new(),
            starts: Budget::new(10, Duration::from_millis(100)),
            now: Duration::ZERO,
            out: VecDeque::new(),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &RouteOptimizationConfig {
        &self.config
    }

    /// The bindings that packets may use, by correspondent and BID, as of the last event.
    pub fn bindings(&self) -> impl Iterator<Item = CorrespondentBinding> {
        self.peers.iter().flat_map(|(&correspondent, peer)| peer.bindings(correspondent))
    }

    /// What was asked of the correspondents and how far it came, by correspondent and BID.
    pub fn entries(&self) -> impl Iterator<Item = CorrespondentEntry> {
        self.peers.iter().flat_map(|(&correspondent, peer)| peer.entries(correspondent, self.now))
    }

    fn notice(&mut self, notice: RouteOptimizationNotice) {
        self.out.push_back(RouteOptimizationOutput::Notice(notice));
    }

    fn ignore(&mut self, ignored: Ignored) {
        self.notice(RouteOptimizationNotice::Ignored(ignored));
    }

    fn wanted(&mut self, now: Duration, correspondent: Ipv6Addr) {
        if let Some(peer) = self.peers.get_mut(&correspondent) {
            return peer.want();
        }
        // req MN-16 (RFC 6275 §11.7.2): what has no route to be optimized.
        if !is_routable(correspondent)
            || correspondent == self.config.home_address.0
            || self.uplinks.values().any(|uplink| uplink.care_of == correspondent)
        {
            return self.ignore(Ignored::NotOptimizable(correspondent));
        }
        let most = self.config.max_correspondents;
        if self.peers.len() >= most {
            // Whoever is only left over makes room.
            let idle = self.peers.iter().find(|(_, peer)| peer.makes_room(now));
            let idle = idle.map(|(&idle, _)| idle);
            match idle {
                Some(idle) => drop(self.peers.remove(&idle)),
                None => return self.ignore(Ignored::TooManyCorrespondents(correspondent)),
            }
        }
        if !self.starts.take(now) {
            return self.ignore(Ignored::TooManyAtOnce(correspondent));
        }
        // RFC 6275 §11.7.2: the first sequence number is random.
        let sequence = u16::from_be_bytes(self.seed.draw());
        self.peers.insert(correspondent, Peer::new(sequence, !self.config.multiple_coa));
    }

    fn care_of(&mut self, bid: Bid, priority: u8, care_of: CareOfAddress, expires: Duration) {
        // A correspondent registers IPv6 addresses only (RFC 5648 §4.3).
        let CareOfAddress(IpAddr::V6(care_of)) = care_of else {
            return self.care_of_gone(bid);
        };
        // A home binding (RFC 5648 §5.6.3) is the home agent's affair alone.
        if care_of == self.config.home_address.0 {
            return self.care_of_gone(bid);
        }
        self.at_home = false;
        let before = self.uplinks.insert(bid, Uplink { care_of, priority, expires });
        match before {
            Some(before) if before.care_of == care_of => {}
            Some(_) => self.unbind_everywhere(bid, Unoptimized::Moved),
            None => self.for_each_peer(|_, _, peer| peer.way_found()),
        }
    }

    fn care_of_gone(&mut self, bid: Bid) {
        if self.uplinks.remove(&bid).is_some() {
            self.unbind_everywhere(bid, Unoptimized::LinkDown);
        }
    }

    fn unbind_everywhere(&mut self, bid: Bid, reason: Unoptimized) {
        self.for_each_peer(|this, correspondent, peer| {
            this.unbind(correspondent, peer, bid, reason);
            peer.path_changed(bid);
        });
    }

    fn returned_home(&mut self) {
        self.at_home = true;
        self.uplinks.clear();
        self.for_each_peer(|this, correspondent, peer| {
            this.unbind_all(correspondent, peer, Unoptimized::ReturnedHome);
            peer.forget_update();
            peer.home_test.start_over();
            peer.rest = Rest::default();
        });
    }

    /// Does `act` for every correspondent, each taken out meanwhile.
    fn for_each_peer(&mut self, mut act: impl FnMut(&mut Self, Ipv6Addr, &mut Peer)) {
        let mut peers = std::mem::take(&mut self.peers);
        for (&correspondent, peer) in &mut peers {
            act(self, correspondent, peer);
        }
        self.peers = peers;
    }

    /// Does `act` for one correspondent, taken out meanwhile; false when there is none.
    fn for_peer(
        &mut self,
        correspondent: Ipv6Addr,
        act: impl FnOnce(&mut Self, &mut Peer),
    ) -> bool {
        let Some(mut peer) = self.peers.remove(&correspondent) else { return false };
        act(self, &mut peer);
        self.peers.insert(correspondent, peer);
        true
    }

    /// Packets by this uplink take the tunnel from here on, if they did not anyway.
    fn unbind(&mut self, correspondent: Ipv6Addr, peer: &mut Peer, bid: Bid, reason: Unoptimized) {
        if peer.unbind(bid) {
            self.out.push_back(RouteOptimizationOutput::Unbound { correspondent, bid, reason });
        }
    }

    fn unbind_all(&mut self, correspondent: Ipv6Addr, peer: &mut Peer, reason: Unoptimized) {
        for bid in peer.bids() {
            self.unbind(correspondent, peer, bid, reason);
        }
    }

    fn received(&mut self, now: Duration, envelope: &Envelope, message: &[u8], tunneled: bool) {
        let correspondent = envelope.source;
        let read = match wire::receive(envelope, message) {
            Ok(read) => read,
            Err(error) => return self.ignore(Ignored::Undecodable(error)),
        };
        self.for_peer(correspondent, |this, peer| match read {
            Message::HomeTest(test) => {
                let by_home = tunneled || this.at_home;
                this.home_test_received(peer, envelope, &test, by_home);
            }
            Message::CareOfTest(test) => this.care_of_test_received(peer, envelope, &test),
            Message::BindingAcknowledgement(acknowledgement) => {
                this.acknowledged(now, peer, envelope, message, &acknowledgement);
            }
            Message::BindingRefreshRequest(request) => {
                // req MN-26, R-HA-25 (RFC 6275 §11.7.4, RFC 5648 §5.8).
                let named: Vec<Bid> = request.options.bids().filter_map(|bid| bid.bid).collect();
                if !peer.refresh_asked(now, &named) {
                    this.ignore(Ignored::RefreshTooSoon);
                }
            }
            Message::BindingError(error) => {
                this.binding_error(now, correspondent, peer, envelope.destination, error.status);
            }
            other => this.ignore(Ignored::Unexpected(other.mh_type())),
        });
    }

    fn binding_error(
        &mut self,
        now: Duration,
        correspondent: Ipv6Addr,
        peer: &mut Peer,
        destination: Ipv6Addr,
        status: u8,
    ) {
        match status {
            binding_error::UNKNOWN_BINDING => {
                // req MN-29 (RFC 6275 §11.3.6): the tunnel at once, as packets may be lost on the
                // straight way. The try to be bound again waits: what a forger can make us send has
                // a limit.
                let bid = self.uplink_with(destination).filter(|&bid| peer.is_bound(bid));
                match bid {
                    None => self.ignore(Ignored::BindingError(status)),
                    Some(bid) => {
                        self.unbind(correspondent, peer, bid, Unoptimized::BindingError);
                        peer.pause(bid);
                    }
                }
            }
            // req MN-29 (RFC 6275 §11.3.6): only while something of ours waits for an answer.
            binding_error::UNRECOGNIZED_TYPE if peer.waits() => {
                self.unsupported(now, correspondent, peer);
            }
            _ => self.ignore(Ignored::BindingError(status)),
        }
    }

    /// The correspondent does not know the Mobility Header.
    fn unsupported(&mut self, now: Duration, correspondent: Ipv6Addr, peer: &mut Peer) {
        // req MN-30, R-MN-20 (RFC 6275 §11.3.5, §11.6.2).
        self.unbind_all(correspondent, peer, Unoptimized::Unsupported);
        peer.forget_everything();
        let retry = MAX_REST;
        peer.unsupported_until = now + retry;
        self.notice(RouteOptimizationNotice::Unsupported { correspondent, retry });
    }

    fn headers_eaten(&mut self, now: Duration, correspondent: Ipv6Addr, peer: &mut Peer, bid: Bid) {
        self.unbind(correspondent, peer, bid, Unoptimized::HeadersEaten);
        if let Some(retry) = peer.headers_eaten(now, bid) {
            let notice = RouteOptimizationNotice::HeadersEaten { correspondent, bid, retry };
            self.notice(notice);
        }
    }

    fn uplink_with(&self, care_of: Ipv6Addr) -> Option<Bid> {
        self.uplinks.iter().find(|(_, uplink)| uplink.care_of == care_of).map(|(&bid, _)| bid)
    }

    /// Does what is due for every correspondent, and forgets those that nothing keeps.
    fn proceed(&mut self, now: Duration) {
        self.for_each_peer(|this, correspondent, peer| this.run(now, correspondent, peer));
        self.peers.retain(|_, peer| !peer.is_over(now));
        if self.aim == Aim::Stop {
            let reachable = self.at_home || !self.uplinks.is_empty();
            if !reachable || !self.peers.values().any(Peer::may_be_held) {
                self.peers.clear();
                self.aim = Aim::Nothing;
                self.out.push_back(RouteOptimizationOutput::Stopped);
            }
        }
    }

    fn stop(&mut self) {
        self.aim = Aim::Stop;
        self.for_each_peer(|this, correspondent, peer| {
            this.unbind_all(correspondent, peer, Unoptimized::Stopped);
            peer.forget_update();
            peer.unwant();
        });
    }
}

impl Machine for RouteOptimization {
    type Event = RouteOptimizationEvent;
    type Output = RouteOptimizationOutput;

    fn handle(&mut self, now: Timestamp, event: RouteOptimizationEvent) {
        let now = now.monotonic;
        if self.aim == Aim::Nothing {
            return;
        }
        // req MN-26, MN-29, R-MN-19 (RFC 6275 §11.3.6, §11.7.4): from strangers not even read.
        if let RouteOptimizationEvent::Received { envelope, .. } = &event
            && !self.peers.contains_key(&envelope.source)
        {
            return self.ignore(Ignored::NotFromCorrespondent);
        }
        self.now = now;
        self.for_each_peer(|this, correspondent, peer| this.expire(now, correspondent, peer));
        match event {
            RouteOptimizationEvent::Wanted { correspondent } if self.aim == Aim::Optimize => {
                self.wanted(now, correspondent);
            }
            RouteOptimizationEvent::Wanted { .. } => {}
            RouteOptimizationEvent::Unwanted { correspondent } => {
                self.for_peer(correspondent, |this, peer| {
                    this.unbind_all(correspondent, peer, Unoptimized::Unwanted);
                    peer.unwant();
                });
            }
            RouteOptimizationEvent::CareOf { bid, priority, care_of, expires } => {
                self.care_of(bid, priority, care_of, expires);
            }
            RouteOptimizationEvent::CareOfGone { bid } => self.care_of_gone(bid),
            RouteOptimizationEvent::ReturnedHome => self.returned_home(),
            RouteOptimizationEvent::Received { envelope, message, tunneled } => {
                self.received(now, &envelope, &message, tunneled);
            }
            RouteOptimizationEvent::HeadersEaten { correspondent, bid } => {
                self.for_peer(correspondent, |this, peer| {
                    this.headers_eaten(now, correspondent, peer, bid);
                });
            }
            RouteOptimizationEvent::Unsupported { correspondent } => {
                let known = self.for_peer(correspondent, |this, peer| {
                    if peer.waits() {
                        this.unsupported(now, correspondent, peer);
                    } else {
                        this.ignore(Ignored::NothingAsked);
                    }
                });
                if !known {
                    self.ignore(Ignored::NotFromCorrespondent);
                }
            }
            RouteOptimizationEvent::Stop => self.stop(),
        }
        self.proceed(now);
    }

    fn handle_deadline(&mut self, now: Timestamp) {
        let now = now.monotonic;
        if self.aim == Aim::Nothing {
            return;
        }
        self.now = now;
        self.for_each_peer(|this, correspondent, peer| this.expire(now, correspondent, peer));
        self.proceed(now);
    }

    fn poll(&mut self) -> Option<RouteOptimizationOutput> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Duration> {
        let alarms = self.peers.values().flat_map(Peer::alarms);
        alarms.filter(|&at| at > self.now).min()
    }
}

impl From<Tested> for Unoptimized {
    fn from(tested: Tested) -> Self {
        Self::TestUnanswered(tested)
    }
}
