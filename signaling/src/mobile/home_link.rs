//! A mobile on its home link (RFC 6275 §11.5.5, RFC 5648 §5.5 and §5.6; req MN-01, MR-01, MR-07).
//!
//! ```text
//!              no binding but the home link          a home binding beside foreign ones
//!   HomeLinkUp ──► everything de-registered,         ──► a registration under the uplink's BID
//!                  from the home address itself          with the H flag and the home address
//!                       │ acknowledged, or 133                │ acknowledged: 0, or 5
//!                  AtHome { Alone }                      AtHome { Beside }
//!   HomeLinkDown ─► LeftHome, all anew with O        ──► LeftHome, the others without H
//! ```
//!
//! Until the agent has confirmed, bindings abroad go on carrying packets, and an agent that stays
//! silent on the home link does not cost them their refreshes. Whether the bindings abroad remain
//! is the policy's choice ([`ReturningHome`]); where the agent refuses both at once (status 169)
//! or knows no way to say it (no bulk registration), home comes first.

use std::collections::BTreeMap;
use std::time::Duration;

use mtun_policy::{Bid, CareOfAddress, ReturningHome};

use super::plan::{PATIENCE, Request};
use super::{Aim, MobileNode, MobileNotice, MobileOutput, Mode};
use crate::registration::{
    Event, MAX_BINDACK_TIMEOUT, Phase, Registration, UnboundReason, refusal_wait,
};
use crate::wire::Status;

/// How the home address is at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Every binding has ended: an ordinary host of its link, which tells its neighbours so.
    Alone {
        /// Nobody has defended the address, as the agent held no binding: it is to be checked for
        /// duplicates, which otherwise it must not be.
        vacant: bool,
    },
    /// A home binding stands beside bindings abroad.
    Beside {
        /// Whether the mobile answers neighbours for its home address; the agent does after
        /// status 5.
        neighbours: bool,
    },
}

/// One uplink that is on the home link.
#[derive(Clone, Debug)]
struct HomeUplink {
    priority: u8,
    link_layer_address: Vec<u8>,
    /// Updates sent by it since the agent answered one.
    unanswered: u32,
}

/// What the caller was told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Away,
    Returning(Bid),
    Home(Bid, Stay),
}

/// Where the mobile is with its home link.
#[derive(Debug, Default)]
pub(super) struct HomeLink {
    uplinks: BTreeMap<Bid, HomeUplink>,
    standing: Standing,
    /// The uplink by which the de-registration of everything left last, while it may be answered.
    returning: Option<Bid>,
    /// The agent holds nothing; with the uplink that was used to say so.
    confirmed: Option<Bid>,
    vacant: bool,
    /// De-registrations from home left unanswered in a row.
    tries: u32,
    /// None of them leaves before.
    retry: Duration,
    /// Home and foreign at once was refused.
    refused: bool,
    /// The agent answers neighbours for the home address (status 5).
    agent_defends: bool,
}

impl HomeLink {
    /// The uplink to use: the best that is not silent.
    fn preferred(&self) -> Option<Bid> {
        let best = self
            .uplinks
            .iter()
            .min_by_key(|(bid, uplink)| (uplink.unanswered, uplink.priority, **bid));
        best.map(|(&bid, _)| bid)
    }

    pub(super) fn is_up(&self) -> bool {
        !self.uplinks.is_empty()
    }

    pub(super) fn answered(&mut self, path: Bid) {
        if let Some(uplink) = self.uplinks.get_mut(&path) {
            uplink.unanswered = 0;
        }
    }

    pub(super) fn unanswered(&mut self, path: Bid) {
        if let Some(uplink) = self.uplinks.get_mut(&path) {
            uplink.unanswered = uplink.unanswered.saturating_add(1);
        }
    }

    /// How often a return stayed unanswered, for the wait for the next answer. Once bindings abroad
    /// are cared for, they do not wait longer than once.
    pub(super) fn patience(&self) -> u32 {
        if self.tries < PATIENCE { self.tries } else { 0 }
    }

    /// The link-layer address of an uplink that is on the home link.
    pub(super) fn link_layer_address(&self, bid: Bid) -> Option<&[u8]> {
        let address = &self.uplinks.get(&bid)?.link_layer_address;
        (!address.is_empty()).then_some(address)
    }

    /// Uplinks on the home link with what was left unanswered by them, and their priorities.
    pub(super) fn paths(&self) -> impl Iterator<Item = (u32, u8, Bid)> {
        self.uplinks.iter().map(|(&bid, uplink)| (uplink.unanswered, uplink.priority, bid))
    }

    /// Since when the de-registration of everything is due; `None` when it is not called for.
    pub(super) fn return_due(&self) -> Option<Duration> {
        self.confirmed.is_none().then_some(self.retry)
    }

    /// Whether bindings abroad are cared for, as the agent does not answer at home.
    pub(super) fn waits_abroad(&self) -> bool {
        self.confirmed.is_none() && self.tries >= PATIENCE
    }

    /// How far an uplink on the home link has come that has no binding.
    fn phase(&self, bid: Bid) -> Phase {
        match self.standing {
            Standing::Home(carrier, _) if carrier == bid => Phase::AtHome,
            Standing::Returning(path) if path == bid => Phase::Deregistering,
            _ => Phase::Wanted,
        }
    }
}

impl MobileNode {
    /// The uplink by which packets of the home address go plain, if it is at home.
    pub fn at_home(&self) -> Option<(Bid, Stay)> {
        match self.home.standing {
            Standing::Home(bid, stay) => Some((bid, stay)),
            Standing::Away | Standing::Returning(_) => None,
        }
    }

    /// Uplinks on the home link that have no binding: number, priority and phase.
    pub(super) fn unbound_home_uplinks(&self) -> impl Iterator<Item = (Bid, u8, Phase)> {
        let unbound = self.home.uplinks.iter().filter(|(bid, _)| !self.is_home_binding(**bid));
        unbound.map(|(&bid, uplink)| (bid, uplink.priority, self.home.phase(bid)))
    }

    /// Whether the entry of this BID is the home binding (RFC 5648 §5.6.3): no care-of address is
    /// ever the home address.
    pub(super) fn is_home_binding(&self, bid: Bid) -> bool {
        self.registrations.get(&bid).is_some_and(|entry| self.is_home(entry))
    }

    pub(super) fn is_home(&self, entry: &Registration) -> bool {
        entry.care_of() == CareOfAddress::from(self.config.home_address.0)
    }

    fn home_binding(&self) -> Option<Bid> {
        let mut up = self.registrations.iter().filter(|(_, entry)| entry.is_up());
        up.find(|(_, entry)| self.is_home(entry)).map(|(&bid, _)| bid)
    }

    /// What the machine lives for when nothing is wrong.
    pub(super) fn ordinary_aim(&self) -> Aim {
        let beside = self.config.returning_home == ReturningHome::Both
            && self.mode == Mode::Bulk
            && !self.home.refused;
        if self.home.is_up() && !beside { Aim::Home } else { Aim::Registered }
    }

    pub(super) fn home_link_up(
        &mut self,
        now: Duration,
        bid: Bid,
        priority: u8,
        link_layer_address: Vec<u8>,
    ) {
        if self.config.returning_home == ReturningHome::Foreign {
            self.care_of_down(bid);
            return self.notice(MobileNotice::HomeLinkUnused { bid });
        }
        let known = self.home.uplinks.get(&bid);
        let unanswered = known.map_or(0, |known| known.unanswered);
        let moved = known.is_some_and(|known| known.link_layer_address != link_layer_address);
        if known.is_none() {
            // A link that was not there before is worth a try at once.
            self.home.retry = Duration::ZERO;
        }
        self.home.uplinks.insert(bid, HomeUplink { priority, link_layer_address, unanswered });
        // Back while its entry still ends, another uplink may have taken its place.
        let replaced = self.home_binding().is_some_and(|other| other != bid);
        if self.is_home_binding(bid) && !replaced {
            self.care_of_up(now, bid, priority, self.config.home_address.0.into());
            if moved {
                self.apply(bid, Event::RefreshDue);
            }
        } else {
            self.care_of_down(bid);
        }
        self.settle_home(now);
    }

    pub(super) fn home_link_down(&mut self, now: Duration, bid: Bid) {
        if self.home.uplinks.remove(&bid).is_none() {
            return;
        }
        if self.home.returning == Some(bid) {
            self.home.returning = None;
        }
        if self.is_home_binding(bid) {
            self.care_of_down(bid);
        }
        if self.outstanding.as_ref().is_some_and(|outstanding| outstanding.update.path == bid) {
            self.abandon();
        }
        if self.home.confirmed == Some(bid) {
            // The agent holds nothing, so another uplink that is at home serves at once.
            self.home.confirmed = self.home.preferred();
        }
        self.settle_home(now);
    }

    /// Does what follows for the bindings from the uplinks on the home link and from what the
    /// agent allows.
    pub(super) fn settle_home(&mut self, now: Duration) {
        if !self.home.is_up() {
            let standing = self.home.standing;
            self.home = HomeLink { standing, ..HomeLink::default() };
        }
        match (self.aim, self.ordinary_aim()) {
            (Aim::Registered, Aim::Home) => self.return_alone(),
            (Aim::Home, Aim::Registered) => self.leave_home(),
            _ => {}
        }
        if self.aim == Aim::Registered && self.home.is_up() && self.home_binding().is_none() {
            // req MC-20, R-MN-28 (RFC 5648 §5.6.3): one home binding, by however many uplinks.
            if let Some(bid) = self.home.preferred() {
                let priority = self.home.uplinks[&bid].priority;
                let home_address = self.config.home_address.0.into();
                self.care_of_up(now, bid, priority, home_address);
            }
        }
    }

    /// Every binding is to be ended from the home link (RFC 6275 §11.5.5, RFC 5648 §5.5.1).
    fn return_alone(&mut self) {
        if self.config.returning_home == ReturningHome::Both && !self.home.refused {
            self.notice(MobileNotice::HomeAndForeignImpossible);
        }
        self.abandon();
        self.aim = Aim::Home;
        self.hold = Duration::ZERO;
        self.home.retry = Duration::ZERO;
        if let Some(bid) = self.home_binding() {
            self.apply(bid, Event::PathLost);
        }
    }

    /// The last uplink has left the home link, where no binding was needed: all anew.
    fn leave_home(&mut self) {
        self.abandon();
        self.aim = Aim::Registered;
        // What the agent holds is not known if it never answered at home.
        self.overwrite = true;
        self.apply_all(Event::RefreshDue);
    }

    /// The de-registration of everything leaves from home.
    pub(super) fn returning(&mut self, path: Bid) {
        self.home.returning = Some(path);
        self.restand();
    }

    /// It was not answered in time.
    pub(super) fn return_unanswered(&mut self, now: Duration, path: Bid) {
        self.home.tries = self.home.tries.saturating_add(1);
        if self.home.tries < PATIENCE {
            return;
        }
        if self.home.tries == PATIENCE {
            self.notice(MobileNotice::SilentAtHome { bid: path });
        }
        self.home.returning = None;
        self.home.retry = now + MAX_BINDACK_TIMEOUT;
    }

    /// The answer to the de-registration of everything from home.
    pub(super) fn returned(&mut self, now: Duration, path: Bid, status: Status) {
        self.home.returning = None;
        if !status.is_accepted() && status != Status::NOT_HOME_AGENT {
            // Abroad goes on; the refusal may be the operator's to mend.
            self.refusals = self.refusals.saturating_add(1);
            let retry = refusal_wait(self.refusals);
            self.notice(MobileNotice::ReturnRefused { status, retry });
            self.home.tries = self.home.tries.max(PATIENCE);
            self.home.retry = now + retry;
            return;
        }
        self.corrections = 0;
        self.refusals = 0;
        self.flows.forget();
        // req MN-14, R-MN-17 (RFC 6275 §11.5.5): who held no binding at the agent checks for
        // duplicates; everybody else must not.
        let held = self.registrations.values().any(Registration::may_be_held);
        self.home.vacant = status == Status::NOT_HOME_AGENT && !held;
        self.home.confirmed = Some(path);
        self.home.tries = 0;
        self.restand();
        for (&bid, registration) in &mut self.registrations {
            let bid = (self.mode != Mode::Single).then_some(bid);
            if registration.grant().is_some() {
                let reason = UnboundReason::ReturnedHome;
                self.out.push_back(MobileOutput::Unbound { bid, reason });
            }
            registration.apply(Event::Removed);
        }
        self.overwrite = true;
    }

    /// The verdict on a home binding, good or bad; whether home and foreign at once was refused.
    pub(super) fn home_binding_judged(&mut self, verdict: Status) -> bool {
        self.home.agent_defends = verdict == Status::MCOA_RETURN_HOME_WITHOUT_NDP;
        verdict == Status::MCOA_SIMULTANEOUS_HOME_AND_FOREIGN_PROHIBITED
    }

    /// The agent does not take home and foreign at once (status 169): home alone, until the next
    /// return.
    pub(super) fn foreign_prohibited(&mut self, now: Duration) {
        self.notice(MobileNotice::HomeAndForeignProhibited);
        self.home.refused = true;
        self.settle_home(now);
    }

    /// Says where the home address is, when that has changed.
    pub(super) fn restand(&mut self) {
        let standing = self.standing();
        let before = std::mem::replace(&mut self.home.standing, standing);
        if before == standing {
            return;
        }
        self.out.push_back(match standing {
            Standing::Away => MobileOutput::LeftHome,
            Standing::Returning(bid) => MobileOutput::Returning { bid },
            Standing::Home(bid, stay) => MobileOutput::AtHome { bid, stay },
        });
    }

    fn standing(&self) -> Standing {
        let home = &self.home;
        match self.aim {
            Aim::Home => {
                if let Some(bid) = home.confirmed {
                    Standing::Home(bid, Stay::Alone { vacant: home.vacant })
                } else if let Some(bid) = home.preferred()
                    && home.waits_abroad()
                    && !self.registrations.values().any(Registration::may_be_held)
                {
                    // Nobody answers and nothing can be bound any more: as after a boot at home.
                    Standing::Home(bid, Stay::Alone { vacant: true })
                } else if let Some(bid) = home.returning {
                    Standing::Returning(bid)
                } else {
                    Standing::Away
                }
            }
            Aim::Registered | Aim::StartOver { .. } => {
                let bound =
                    self.home_binding().filter(|bid| self.registrations[bid].grant().is_some());
                bound.map_or(Standing::Away, |bid| {
                    Standing::Home(bid, Stay::Beside { neighbours: !home.agent_defends })
                })
            }
            // Whoever is asked to confirm the end may have to ask for the home address.
            Aim::Stop => match (home.standing, home.returning) {
                (Standing::Away, Some(bid)) => Standing::Returning(bid),
                (standing, _) => standing,
            },
            Aim::Nothing | Aim::Barred => Standing::Away,
        }
    }

    /// Whether this update leaves from the home link to end everything there.
    pub(super) fn is_return(&self, request: &Request) -> bool {
        self.aim == Aim::Home && *request == Request::DeregisterAll
    }
}
