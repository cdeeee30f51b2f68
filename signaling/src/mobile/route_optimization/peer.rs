//! One correspondent, as the mobile sees it: plain state, and the small steps between states.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::Bid;

use super::super::pace::{PACE_WINDOW, Pace};
use super::plan::Request;
use super::routability::RoutabilityTest;
use super::update::Sent;
use super::{FIRST_REST, MAX_REST, MAX_RO_FAILURE, REFRESH_GUARD};
use crate::return_routability::MAX_NONCE_LIFETIME;
use crate::wire::Status;

/// A binding that packets may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorrespondentBinding {
    /// The correspondent that holds it.
    pub correspondent: Ipv6Addr,
    /// The uplink's BID.
    pub bid: Bid,
    /// Its care-of address.
    pub care_of: Ipv6Addr,
    /// Until when, on the monotonic clock.
    pub expires: Duration,
}

/// How far a care-of address has come at a correspondent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// On its way: tests or an update wait for an answer, or will be sent.
    Trying,
    /// Packets may use it.
    Bound,
    /// Left alone after a failure.
    Resting,
    /// No longer wanted, and the correspondent may still hold it.
    Ending,
}

/// One care-of address at one correspondent (RFC 6275 §11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorrespondentEntry {
    /// The correspondent.
    pub correspondent: Ipv6Addr,
    /// The uplink's BID.
    pub bid: Bid,
    /// How far it has come.
    pub standing: Standing,
    /// The binding's care-of address and end; `None` while packets take the tunnel.
    pub binding: Option<CorrespondentBinding>,
    /// The last verdict on it.
    pub last_status: Option<Status>,
    /// Updates sent since the correspondent last answered one.
    pub unanswered: u32,
}

/// A time of doing nothing after a failure, longer each time in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    pub until: Duration,
    count: u32,
}

impl Rest {
    /// Begins; gives how long it is.
    pub(super) fn begin(&mut self, now: Duration) -> Duration {
        let rest = FIRST_REST.saturating_mul(1 << self.count.min(16)).min(MAX_REST);
        self.count = self.count.saturating_add(1);
        self.until = now + rest;
        rest
    }
}

/// What packets may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub care_of: Ipv6Addr,
    pub expires: Duration,
}

/// One uplink at one correspondent.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// The test of `tested`.
    pub test: RoutabilityTest,
    pub tested: Option<Ipv6Addr>,
    pub grant: Option<Grant>,
    /// Until when the correspondent may hold a binding under this BID, whatever it answered.
    pub held_until: Option<Duration>,
    pub refresh_at: Duration,
    /// Registering updates without an answer.
    pub unanswered: u32,
    /// De-registering ones.
    pub endings: u32,
    /// What carries a Home Address option does not get through.
    pub eaten: bool,
    pub rest: Rest,
    pub last_status: Option<Status>,
}

impl Entry {
    /// The correspondent holds it no more.
    pub(super) fn ended(&mut self) {
        self.held_until = None;
        self.endings = 0;
    }

    /// Whether nothing comes back by this uplink.
    fn is_silent(&self) -> bool {
        self.unanswered >= MAX_RO_FAILURE || self.test.unanswered >= MAX_RO_FAILURE
    }

    /// Whether the correspondent still sends packets to where they do not arrive.
    pub(super) fn is_dead(&self) -> bool {
        self.grant.is_none() && (self.eaten || self.is_silent())
    }

    fn standing(&self, now: Duration, wanted: bool) -> Standing {
        if self.grant.is_some() {
            Standing::Bound
        } else if self.held_until.is_some() && (self.eaten || !wanted) {
            Standing::Ending
        } else if self.rest.until > now {
            Standing::Resting
        } else {
            Standing::Trying
        }
    }
}

/// One correspondent.
#[derive(Debug)]
pub(super) struct Peer {
    pub wanted: bool,
    pub home_test: RoutabilityTest,
    pub entries: BTreeMap<Bid, Entry>,
    pub next_sequence: u16,
    /// Updates that wait for an answer, at most one per request.
    pub outstanding: Vec<Sent>,
    /// Whether the next registration replaces all that the correspondent holds.
    pub overwrite: bool,
    /// Whether one care-of address is registered, without BID.
    pub single: bool,
    /// After home tests without an answer.
    pub rest: Rest,
    /// It knows nothing of all this, and is not asked before.
    pub unsupported_until: Duration,
    /// Answers in a row that called for an immediate, corrected update.
    pub corrections: u32,
    /// De-registrations of everything without an answer.
    pub endings: u32,
    pub last_update: Option<Duration>,
    /// Tests count as well.
    pub last_sent: Option<Duration>,
    pub home_pace: Pace,
    pub care_of_pace: Pace,
    pub update_pace: Pace,
}

impl Peer {
    pub(super) fn new(sequence: u16, single: bool) -> Self {
        Self {
            wanted: true,
            home_test: RoutabilityTest::default(),
            entries: BTreeMap::new(),
            next_sequence: sequence,
            outstanding: Vec::new(),
            // req MC-22 (RFC 5648 §5.9): it may hold bindings of an earlier life.
            overwrite: true,
            single,
            rest: Rest::default(),
            unsupported_until: Duration::ZERO,
            corrections: 0,
            endings: 0,
            last_update: None,
            last_sent: None,
            home_pace: Pace::default(),
            care_of_pace: Pace::default(),
            update_pace: Pace::default(),
        }
    }

    pub(super) fn want(&mut self) {
        if !self.wanted {
            self.wanted = true;
            self.forget_update();
        }
    }

    pub(super) fn unwant(&mut self) {
        if self.wanted {
            self.wanted = false;
            self.forget_update();
        }
    }

    /// Late answers to what was asked change nothing.
    pub(super) fn forget_update(&mut self) {
        self.outstanding.clear();
    }

    pub(super) fn forget_everything(&mut self) {
        self.forget_update();
        self.home_test = RoutabilityTest::default();
        self.entries.clear();
    }

    /// The uplink has another address, or none.
    pub(super) fn path_changed(&mut self, bid: Bid) {
        self.outstanding.retain(|sent| sent.by != Some(bid) && sent.request.bid() != Some(bid));
        // A test that went by it is better sent again by another one.
        self.home_test.forget_request_by(bid);
        if let Some(entry) = self.entries.get_mut(&bid) {
            entry.test = RoutabilityTest::default();
            entry.tested = None;
            entry.unanswered = 0;
            entry.eaten = false;
            entry.rest = Rest::default();
        }
    }

    /// There is a way that was not there before: the home test need not wait for the old ones.
    pub(super) fn way_found(&mut self) {
        if self.home_test.unanswered > 0 {
            self.home_test.start_over();
            self.rest = Rest::default();
        }
    }

    /// From when on it may be asked anything.
    pub(super) fn rests_until(&self) -> Duration {
        self.rest.until.max(self.unsupported_until)
    }

    /// Notes that headers are eaten; gives for how long that uplink is left alone, unless it is
    /// already.
    pub(super) fn headers_eaten(&mut self, now: Duration, bid: Bid) -> Option<Duration> {
        self.outstanding.retain(|sent| sent.request.bid() != Some(bid));
        let entry = self.entries.get_mut(&bid).filter(|entry| !entry.eaten)?;
        entry.eaten = true;
        entry.unanswered = 0;
        Some(entry.rest.begin(now))
    }

    /// Takes the binding away from the packets; false when they had none.
    pub(super) fn unbind(&mut self, bid: Bid) -> bool {
        self.entries.get_mut(&bid).and_then(|entry| entry.grant.take()).is_some()
    }

    pub(super) fn is_bound(&self, bid: Bid) -> bool {
        self.entries.get(&bid).is_some_and(|entry| entry.grant.is_some())
    }

    /// The bindings that a de-registration is about are no concern of ours any more.
    pub(super) fn leave(&mut self, request: Request) {
        match request.bid() {
            Some(bid) => {
                self.entries.entry(bid).and_modify(Entry::ended);
            }
            None => {
                self.endings = 0;
                self.entries.values_mut().for_each(Entry::ended);
            }
        }
    }

    pub(super) fn bids(&self) -> Vec<Bid> {
        self.entries.keys().copied().collect()
    }

    /// Whether the correspondent may hold anything of ours.
    pub(super) fn may_be_held(&self) -> bool {
        self.entries.values().any(|entry| entry.held_until.is_some())
    }

    /// Whether nobody wants it and nothing is left to end.
    pub(super) fn is_idle(&self) -> bool {
        !self.wanted && !self.may_be_held()
    }

    /// Whether it can be forgotten. A rest is kept in mind, lest it be cut short, and tokens and
    /// the sequence number for as long as the correspondent remembers them (RFC 6275 §5.2.8).
    pub(super) fn is_over(&self, now: Duration) -> bool {
        self.is_idle() && self.memorable_until() <= now
    }

    /// Whether another one may take its place: not while that could exceed the rate (§11.8).
    pub(super) fn makes_room(&self, now: Duration) -> bool {
        self.is_idle() && self.last_sent.is_none_or(|last| last + PACE_WINDOW <= now)
    }

    fn memorable_until(&self) -> Duration {
        let sent = self.last_sent.map(|last| last + MAX_NONCE_LIFETIME);
        self.rests_until().max(sent.unwrap_or_default())
    }

    /// Whether something waits for an answer.
    pub(super) fn waits(&self) -> bool {
        self.home_test.waits()
            || !self.outstanding.is_empty()
            || self.entries.values().any(|entry| entry.test.waits())
    }

    /// Whether an unauthenticated message may cost an update: one every few seconds.
    pub(super) fn may_be_disturbed(&self, now: Duration) -> bool {
        self.last_update.is_none_or(|last| now >= last + REFRESH_GUARD)
    }

    /// Nothing is tried by this uplink until it may be disturbed.
    pub(super) fn pause(&mut self, bid: Bid) {
        if let (Some(last), Some(entry)) = (self.last_update, self.entries.get_mut(&bid)) {
            entry.rest.until = entry.rest.until.max(last + REFRESH_GUARD);
        }
    }

    /// The correspondent wants these bindings refreshed, or all; false when it has to wait.
    pub(super) fn refresh_asked(&mut self, now: Duration, named: &[Bid]) -> bool {
        if !self.may_be_disturbed(now) {
            return false;
        }
        for (bid, entry) in &mut self.entries {
            if named.is_empty() || named.contains(bid) {
                entry.refresh_at = entry.refresh_at.min(now);
            }
        }
        true
    }

    pub(super) fn bindings(
        &self,
        correspondent: Ipv6Addr,
    ) -> impl Iterator<Item = CorrespondentBinding> {
        self.entries.iter().filter_map(move |(&bid, entry)| {
            let Grant { care_of, expires } = entry.grant?;
            Some(CorrespondentBinding { correspondent, bid, care_of, expires })
        })
    }

    pub(super) fn entries(
        &self,
        correspondent: Ipv6Addr,
        now: Duration,
    ) -> impl Iterator<Item = CorrespondentEntry> {
        let wanted = self.wanted;
        self.entries.iter().map(move |(&bid, entry)| CorrespondentEntry {
            correspondent,
            bid,
            standing: entry.standing(now, wanted),
            binding: entry.grant.map(|Grant { care_of, expires }| CorrespondentBinding {
                correspondent,
                bid,
                care_of,
                expires,
            }),
            last_status: entry.last_status,
            unanswered: entry.unanswered,
        })
    }

    /// Whether an update like this waits for its answer.
    pub(super) fn is_outstanding(&self, request: Request) -> bool {
        self.outstanding.iter().any(|sent| sent.request == request)
    }

    /// From when on the next update may leave: the last one has had a second for its answer, so
    /// that one uplink's silence does not hold up the others and none overtakes another.
    pub(super) fn update_ready_at(&self) -> Duration {
        let last = self.outstanding.iter().map(|sent| sent.at + super::update::HEAD_START).max();
        self.update_pace.ready_at().max(last.unwrap_or_default())
    }

    /// Every moment at which something may be to be done; those that have passed mean nothing.
    pub(super) fn alarms(&self) -> impl Iterator<Item = Duration> {
        let entries = self.entries.values().flat_map(|entry| {
            [
                entry.test.timer(),
                entry.grant.map(|grant| grant.expires),
                entry.held_until,
                entry.grant.map(|_| entry.refresh_at),
                Some(entry.rest.until),
            ]
        });
        let outstanding = self.outstanding.iter().map(|sent| Some(sent.timer));
        let own = [
            self.home_test.timer(),
            self.home_test.old_at(),
            Some(self.rests_until()),
            self.is_idle().then(|| self.memorable_until()),
            Some(self.home_pace.ready_at()),
            Some(self.care_of_pace.ready_at()),
            Some(self.update_ready_at()),
        ];
        entries.chain(outstanding).chain(own).flatten()
    }
}
