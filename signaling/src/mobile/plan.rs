//! What a mobile asks its agent next.
//!
//! The plan is made from the registrations as they are when an update can leave, so everything
//! that happened while another update was outstanding is in it.

use std::time::Duration;

use mtun_policy::Bid;

use super::{Aim, MobileNode, Mode};
use crate::registration::{Phase, Registration};

/// Most bindings in one update: with addresses and prefixes it stays below the least MTU of 1280
/// octets (RFC 6089 §6), and far below the 2048 of a Mobility Header.
const MAX_BULK: usize = 32;

/// In single care-of address mode, an uplink that left this many updates unanswered lets the next
/// one try.
pub(super) const PATIENCE: u32 = 3;

/// The content of one Binding Update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Register or refresh these BIDs; with `overwrite`, and nothing but these.
    Register { bids: Vec<Bid>, overwrite: bool },
    /// De-register these BIDs.
    Deregister { bids: Vec<Bid> },
    /// Register this uplink's address without a BID, in place of everything.
    Plain { bid: Bid },
    /// De-register everything.
    DeregisterAll,
}

impl Request {
    /// The registrations it names.
    pub(super) fn bids(&self) -> Vec<Bid> {
        match self {
            Self::Register { bids, .. } | Self::Deregister { bids } => bids.clone(),
            Self::Plain { bid } => vec![*bid],
            Self::DeregisterAll => Vec::new(),
        }
    }

    /// Whether it asks for a lifetime.
    pub(super) fn is_registration(&self) -> bool {
        matches!(self, Self::Register { .. } | Self::Plain { .. })
    }
}

impl MobileNode {
    /// The next request, when one is due at `now`.
    pub(super) fn plan(&self, now: Duration) -> Option<Request> {
        let is_due = |due: Option<Duration>| due.is_some_and(|due| due <= now);
        if !self.is_reachable() {
            return None;
        }
        match self.aim {
            Aim::Nothing | Aim::Barred => return None,
            Aim::Stop | Aim::StartOver { .. } => return Some(Request::DeregisterAll),
            Aim::Home if is_due(self.home.return_due()) => return Some(Request::DeregisterAll),
            Aim::Home if !self.home.waits_abroad() => return None,
            Aim::Home | Aim::Registered => {}
        }
        if !self.has_binding_up() {
            return None;
        }
        if self.mode == Mode::Single {
            let bid = self.candidate()?;
            return is_due(self.registrations[&bid].register_due())
                .then_some(Request::Plain { bid });
        }
        let due = |when: fn(&Registration) -> Option<Duration>| {
            let due = self.registrations.iter().filter(move |(_, entry)| is_due(when(entry)));
            due.map(|(&bid, _)| bid).collect::<Vec<_>>()
        };
        let register = due(Registration::register_due);
        let leaving = due(Registration::deregister_due);
        if register.is_empty() && leaving.is_empty() {
            return is_due(self.flows_due()).then(|| self.for_flows_alone());
        }
        if self.mode == Mode::Bulk {
            self.bulk(register, leaving)
        } else {
            self.one_by_one(register, leaving)
        }
    }

    /// A refresh of what is bound, to say something of flow bindings: of all, so that no home
    /// binding ends by it (RFC 5648 §5.6.5), and an agent that lost some has them again.
    fn for_flows_alone(&self) -> Request {
        let bound = self.registrations.iter().filter(|(_, entry)| entry.phase() == Phase::Bound);
        let bids = bound.map(|(&bid, _)| bid).collect();
        let most = if self.mode == Mode::Bulk { MAX_BULK } else { 1 };
        Request::Register { bids: self.preferred(bids, most), overwrite: false }
    }

    /// From when on [`Self::plan`] gives a request; `None` when nothing will be due by itself.
    pub(super) fn due(&self) -> Option<Duration> {
        if !self.is_reachable() {
            return None;
        }
        match self.aim {
            Aim::Nothing | Aim::Barred => None,
            Aim::Stop | Aim::StartOver { .. } => Some(Duration::ZERO),
            Aim::Home => {
                let abroad = self.home.waits_abroad().then(|| self.registration_due()).flatten();
                self.home.return_due().into_iter().chain(abroad).min()
            }
            Aim::Registered => self.registration_due(),
        }
    }

    /// The same for bindings alone.
    fn registration_due(&self) -> Option<Duration> {
        if !self.has_binding_up() {
            return None;
        }
        match self.mode {
            Mode::Single => {
                self.candidate().and_then(|bid| self.registrations[&bid].register_due())
            }
            Mode::Bulk | Mode::Individual => {
                let entries = self.registrations.values();
                entries
                    .flat_map(|entry| [entry.register_due(), entry.deregister_due()])
                    .flatten()
                    .chain(self.flows_due())
                    .min()
            }
        }
    }

    /// Everything due in one update (RFC 5648 §5.3).
    fn bulk(&self, register: Vec<Bid>, leaving: Vec<Bid>) -> Option<Request> {
        if register.is_empty() && leaving.is_empty() {
            return None;
        }
        let named = |extra: fn(&Registration) -> bool| {
            let entries = self.registrations.iter();
            let named = entries.filter(|(bid, entry)| {
                // An update that leaves anyway takes along what waits for company.
                register.contains(bid) || entry.phase() == Phase::Wanted || extra(entry)
            });
            named.map(|(&bid, _)| bid).collect::<Vec<_>>()
        };
        let has_grant = |entry: &Registration| entry.grant().is_some();
        let homes = |holds: fn(&Registration) -> bool| {
            self.registrations.values().any(|entry| self.is_home(entry) && holds(entry))
        };
        let home = homes(|entry| entry.grant().is_some());
        let changed = named(|_| false);
        // req MC-21, R-MN-30 (RFC 5648 §5.6.5): leaving home is said by a binding that remains.
        let left_home = homes(|entry| !entry.is_up()) && !named(has_grant).is_empty();
        if changed.is_empty() && !home && !left_home {
            return Some(Request::Deregister { bids: self.preferred(leaving, MAX_BULK) });
        }
        if self.overwrite || !leaving.is_empty() {
            // One update says what is to remain: it registers and de-registers at once, where
            // otherwise one of the two would wait a round trip for the other.
            let bids = self.preferred(named(has_grant), MAX_BULK);
            return Some(Request::Register { bids, overwrite: true });
        }
        // Refreshed together, bindings stay together: one update per lifetime for all of them.
        let refresh = register.iter().any(|bid| self.registrations[bid].phase() == Phase::Bound);
        // req MC-21 (RFC 5648 §5.6.5): the agent takes an update in which no binding has the H
        // flag for the end of the home binding, so that goes with every one.
        let bids = if refresh || home { named(has_grant) } else { changed };
        Some(Request::Register { bids: self.preferred(bids, MAX_BULK), overwrite: false })
    }

    /// One binding per update (status 168, or `bulk` off in the policy).
    fn one_by_one(&self, register: Vec<Bid>, leaving: Vec<Bid>) -> Option<Request> {
        let bound = self.registrations.values().any(|entry| entry.grant().is_some());
        let register = self.preferred(register, 1);
        let leaving = self.preferred(leaving, 1);
        // The dead binding still attracts packets, so it goes first, unless nothing carries any.
        if !leaving.is_empty() && (bound || register.is_empty()) {
            return Some(Request::Deregister { bids: leaving });
        }
        (!register.is_empty())
            .then_some(Request::Register { bids: register, overwrite: self.overwrite })
    }

    /// The `count` best of these by priority, in the order of their BIDs.
    fn preferred(&self, mut bids: Vec<Bid>, count: usize) -> Vec<Bid> {
        bids.sort_by_key(|bid| {
            let entry = &self.registrations[bid];
            (!self.is_home(entry), entry.grant().is_some(), entry.priority(), *bid)
        });
        bids.truncate(count);
        bids.sort();
        bids
    }

    /// The uplink whose address is registered in single care-of address mode.
    fn candidate(&self) -> Option<Bid> {
        let up = self.registrations.iter().filter(|(_, entry)| entry.is_up());
        up.min_by_key(|(bid, entry)| (entry.unanswered / PATIENCE, entry.priority(), **bid))
            .map(|(&bid, _)| bid)
    }

    /// The uplink by which this request leaves.
    ///
    /// A care-of address that is to be registered anew is told by its own uplink if possible: an
    /// acknowledgement that came back by it shows that the whole path carries packets, which no
    /// other uplink can know. A refresh takes the preferred uplink, and so does an update that
    /// ends bindings too: it must not wait for an uplink that perhaps carries nothing.
    pub(super) fn path_for(&self, request: &Request) -> Option<Bid> {
        let unproven = |bid: &Bid| match request {
            Request::Register { bids, overwrite } if bids.contains(bid) => {
                let fresh = self.registrations[bid].phase() != Phase::Bound && !overwrite;
                self.mode == Mode::Individual || fresh
            }
            _ => false,
        };
        if let Request::Plain { bid } = request {
            // The address that is registered must be the packet's source (RFC 6275 §11.7.1).
            return Some(*bid);
        }
        let up = self.registrations.iter().filter(|(_, entry)| entry.is_up());
        let abroad = up.map(|(&bid, entry)| {
            // From abroad an answer finds its way by itself.
            (entry.unanswered, !unproven(&bid), self.is_home(entry), entry.priority(), bid)
        });
        // req R-MN-16 (RFC 6275 §11.5.5): a return is told from the home link and nowhere else.
        let abroad = abroad.filter(|_| !self.is_return(request));
        // Without a home binding the home link serves to end bindings only.
        let ending = *request == Request::DeregisterAll;
        let home = self.home.paths().filter(|_| ending);
        let home = home.map(|(unanswered, priority, bid)| (unanswered, true, true, priority, bid));
        abroad.chain(home).min().map(|(.., bid)| bid)
    }
}
