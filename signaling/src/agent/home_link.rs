//! What an agent does for its mobiles on the home link (RFC 6275 §10.3.1 and §10.4.1, RFC 5648
//! §6.3): looks for duplicates before it answers for an address, answers for it until the last
//! binding goes, and knows where a mobile is that is at home and abroad at once.
//!
//! All of that needs a home link. On a virtual one (RFC 6275 §10.1 lets the home network be one)
//! there is nobody to be asked or told, and nothing here happens.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::HomeAddress;

use super::accept::{Accepted, Claim, Objection};
use super::{AgentOutput, HomeAgent, Ignored};
use crate::binding::BindingCacheEntry;
use crate::sequence::is_newer;
use crate::wire::Status;
use crate::wire::icmpv6::neighbour_discovery::LinkLayerAddress;

/// Home addresses that are looked for at a time.
const SEARCHES: usize = 10_000;

/// Where the home addresses are that an agent serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HomeLink {
    /// On no link: whoever is not bound is nowhere.
    #[default]
    Virtual,
    /// On a link with neighbours.
    Real {
        /// Whether the agent is the link's only router. Then what is sent to a mobile that is at
        /// home and abroad at once comes by the agent anyway, and neighbour discovery for the home
        /// address is left to the mobile (status 0); otherwise the agent keeps answering for it
        /// (status 5).
        only_router: bool,
    },
}

/// What looking for a home address on the home link came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// Nobody else has it.
    Unique,
    /// Another node has it, or its link-local companion.
    Duplicate,
    /// Nobody could be asked: the link is not there, or takes nothing.
    Undone,
}

/// How an agent answers for a home address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defence {
    /// For the link-local address with the same interface identifier too (L, RFC 6275 §6.1.7).
    pub link_local: bool,
    /// As for a router (RFC 3963 §6.2).
    pub router: bool,
}

/// An update that waits until it is known whether somebody else has the home address.
#[derive(Debug)]
pub(super) struct Waiting {
    claim: Claim,
    accepted: Accepted,
}

/// What the agent has told about one mobile's place on the home link.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// L of the last accepted update.
    pub link_local: bool,
    /// Where the mobile said that it is on the home link.
    pub link_layer: Option<LinkLayerAddress>,
    waiting: Option<Box<Waiting>>,
    defended: Option<Defence>,
    neighbour: Option<LinkLayerAddress>,
}

impl Presence {
    /// Forgets the update that waits; its mobile sends again.
    pub(super) fn forget(&mut self) {
        self.waiting = None;
    }
}

/// The link-local address with the interface identifier of `address` (RFC 6275 §10.3.1).
pub fn link_local_of(address: Ipv6Addr) -> Ipv6Addr {
    let [_, _, _, _, a, b, c, d] = address.segments();
    Ipv6Addr::new(0xfe80, 0, 0, 0, a, b, c, d)
}

impl HomeAgent {
    /// Whether an accepted update has to wait until its home address has been looked for. None
    /// waits any more for one that has not.
    pub(super) fn has_to_wait(&mut self, claim: &Claim, accepted: &Accepted) -> bool {
        let home_address = claim.home_address;
        let first = self.cache.get(home_address).is_none();
        let binds = accepted.any() && !accepted.entry.bindings.is_empty();
        let waits = first && binds && self.is_on_link(home_address);
        if !waits && let Some(served) = self.served.get_mut(&home_address) {
            served.presence.forget();
        }
        waits
    }

    /// Lets an accepted update wait. One that comes while another waits takes its place: the
    /// mobile has given that one up.
    pub(super) fn hold(&mut self, claim: &Claim, accepted: Accepted) {
        let home_address = claim.home_address;
        // req HA-25: what is searched for at a time is bounded. Its mobile sends again when the
        // others' searches are over.
        if !self.searching.contains(&home_address) && self.searching.len() >= SEARCHES {
            return self.ignore(claim.envelope.source, Ignored::Searches);
        }
        let Some(served) = self.served.get_mut(&home_address) else { return };
        let sequence = claim.update.sequence;
        let overtaken = |it: &Waiting| !is_newer(sequence, it.claim.update.sequence);
        if served.presence.waiting.as_deref().is_some_and(overtaken) {
            return;
        }
        let link_local = claim.update.flags.link_local;
        // req HA-20, HA-23, HA-24, R-HA-03 (RFC 6275 §10.3.1): before the first acknowledgement, and
        // once; not where there is no link.
        let waiting = Waiting { claim: claim.clone(), accepted };
        if served.presence.waiting.replace(Box::new(waiting)).is_none() {
            self.searching.insert(home_address);
            self.out.push_back(AgentOutput::CheckDuplicate { home_address, link_local });
        }
    }

    /// Forgets the update that waits if this one says that the mobile wants no binding any more.
    pub(super) fn give_up_waiting(&mut self, claim: &Claim, objection: &Objection) {
        let ends = Objection::from(Status::NOT_HOME_AGENT);
        if *objection == ends
            && let Some(served) = self.served.get_mut(&claim.home_address)
        {
            served.presence.forget();
        }
    }

    /// Answers the update that waited for this home address.
    pub(super) fn duplicate_checked(
        &mut self,
        now: Duration,
        home_address: HomeAddress,
        detection: Detection,
    ) {
        self.searching.remove(&home_address);
        let Some(served) = self.served.get_mut(&home_address) else { return };
        let Some(waiting) = served.presence.waiting.take() else { return };
        let Waiting { claim, accepted } = *waiting;
        // req HA-20, HA-22, R-HA-03, R-HA-04 (RFC 6275 §10.3.1): all of it is refused, and what has
        // not been looked for is not accepted. Its mobile asks again.
        let refused = match detection {
            Detection::Unique => None,
            Detection::Duplicate => Some(Status::DUPLICATE_ADDRESS_DETECTION_FAILED),
            Detection::Undone => Some(Status::REASON_UNSPECIFIED),
        };
        if let Some(status) = refused {
            return self.refuse(now, &claim, &Objection::from(status));
        }
        if self.keeping {
            self.out.push_back(AgentOutput::Keep { home_address });
        }
        self.commit(now, &claim, accepted);
    }

    /// Notes what an accepted update says of the mobile's place on the home link.
    pub(super) fn note_presence(&mut self, claim: &Claim) {
        let Some(served) = self.served.get_mut(&claim.home_address) else { return };
        let update = &claim.update;
        if update.lifetime.is_zero() {
            return;
        }
        served.presence.link_local = update.flags.link_local;
        if update.options.bids().any(|bid| bid.home) {
            let told = update.options.link_layer_address();
            let told = told.and_then(|octets| <[u8; 6]>::try_from(octets).ok());
            served.presence.link_layer = told.map(LinkLayerAddress).or(served.presence.link_layer);
        }
    }

    /// Says what changes on the home link when `entry` is what the cache holds.
    pub(super) fn tell_home_link(&mut self, entry: &BindingCacheEntry) {
        let home_address = entry.home_address;
        let on_link = self.is_on_link(home_address);
        let only_router = matches!(self.home_link, HomeLink::Real { only_router: true });
        let Some(served) = self.served.get_mut(&home_address) else { return };
        let presence = &mut served.presence;
        let at_home = entry.is_at_home();
        let defence = Defence { link_local: presence.link_local, router: entry.router };
        // req HA-51, HA-55, R-HA-07, MC-20 (RFC 6275 §10.4.1, RFC 5648 §6.3): until the last
        // binding goes, or the mobile answers for itself.
        let defends = on_link && !entry.bindings.is_empty() && !(at_home && only_router);
        let defended = defends.then_some(defence);
        // req MC-20 (RFC 5648 §6.3): by the mobile's word, as it may not be asked.
        let neighbour = if at_home { presence.link_layer } else { None };
        if std::mem::replace(&mut presence.neighbour, neighbour) != neighbour {
            let link_layer = neighbour;
            self.out.push_back(AgentOutput::Neighbour { home_address, link_layer });
        }
        if std::mem::replace(&mut presence.defended, defended) != defended {
            self.out.push_back(match defended {
                Some(defence) => AgentOutput::Defend { home_address, defence },
                None => AgentOutput::Undefend { home_address },
            });
        }
    }

    /// Ends everything on the home link for mobiles that are not served any more.
    pub(super) fn leave_home_link(&mut self, home_address: HomeAddress, presence: &Presence) {
        if presence.neighbour.is_some() {
            self.out.push_back(AgentOutput::Neighbour { home_address, link_layer: None });
        }
        if presence.defended.is_some() {
            self.out.push_back(AgentOutput::Undefend { home_address });
        }
    }

    /// What the home link's state would be refused with, or the status of a home binding.
    pub(super) fn home_binding_status(&self) -> Result<Status, Status> {
        // req R-HA-24, MC-14, MC-20 (RFC 5648 §4.4, §6.3).
        match self.home_link {
            HomeLink::Virtual => Err(Status::MCOA_SIMULTANEOUS_HOME_AND_FOREIGN_PROHIBITED),
            HomeLink::Real { only_router: true } => Ok(Status::ACCEPTED),
            HomeLink::Real { only_router: false } => Ok(Status::MCOA_RETURN_HOME_WITHOUT_NDP),
        }
    }

    /// Whether neighbours may ask for this home address: one out of a mobile's own prefix is on
    /// no link of ours (req NH-02; RFC 3963 §6.2).
    fn is_on_link(&self, home_address: HomeAddress) -> bool {
        self.home_link != HomeLink::Virtual && self.home_network.contains(&home_address.0)
    }
}
