//! Which care-of addresses there are: what the kernel reports about links, judged.
//!
//! Pure: events go in, movements come out. An uplink is attached when it is up and has carrier,
//! a global address that has passed duplicate address detection, and a default router that has
//! answered since the carrier came (req MN-03); a link without a link layer (a modem, a point-to-point link)
//! needs a default route but no router. Everything else is a named reason for not being attached.
//!
//! Links are kept by index and looked up by name, so an uplink may appear late, vanish, come back
//! with another index or be renamed.
//!
//! Standards: RFC 6275 §11.5; RFC 4862 §5.4; RFC 4861 §7.3.

mod claim;
mod damping;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun_policy::InterfaceName;

pub use claim::Said;
use damping::Unrest;

use super::looks::Watched;

/// What is known of one network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// The interface's index.
    pub index: u32,
    /// Its name at this moment.
    pub name: InterfaceName,
    /// Switched on by the administrator.
    pub up: bool,
    /// Able to carry packets.
    pub carrier: bool,
    /// Whether neighbours are found by neighbour discovery.
    pub link_layer: bool,
    /// Largest packet in octets.
    pub mtu: u32,
    /// How often it lost its carrier since it exists, as the kernel counts it.
    pub falls: u32,
}

/// What is known of one address of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressFacts {
    /// Valid beyond the link.
    pub global: bool,
    /// Duplicate address detection is under way.
    pub tentative: bool,
    /// Duplicate address detection found another owner.
    pub duplicate: bool,
    /// To be used by old connections only.
    pub deprecated: bool,
    /// Made up for privacy and soon replaced.
    pub temporary: bool,
}

/// One route of the main table by one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteFacts {
    /// Lower is preferred.
    pub metric: u32,
    /// Where to; `::/0` for a default route.
    pub destination: Ipv6Net,
    /// The next router; none for what is on the link.
    pub router: Option<Ipv6Addr>,
}

/// One report of the kernel. Reports may repeat what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// An interface exists and is like this.
    Link(LinkFacts),
    /// The interface of this index is gone, with all that was known of it.
    LinkGone(u32),
    /// An address exists and is like this.
    Address {
        /// The interface.
        index: u32,
        /// The address.
        address: Ipv6Addr,
        /// Its state.
        facts: AddressFacts,
    },
    /// An address is gone.
    AddressGone {
        /// The interface.
        index: u32,
        /// The address.
        address: Ipv6Addr,
    },
    /// A route of the main table exists.
    Route {
        /// The interface.
        index: u32,
        /// The route.
        route: RouteFacts,
        /// Whether it took the place of the route of same destination and metric.
        replaces: bool,
    },
    /// A route of the main table is gone.
    RouteGone {
        /// The interface.
        index: u32,
        /// The route.
        route: RouteFacts,
    },
    /// Whether a neighbour answers.
    Neighbour {
        /// The interface.
        index: u32,
        /// The neighbour.
        address: Ipv6Addr,
        /// False once neighbour discovery has given it up.
        reachable: bool,
    },
    /// Everything that exists, after reports were lost: what is not in here is gone.
    Everything(Vec<LinkEvent>),
}

/// A place an uplink is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The uplink.
    pub interface: InterfaceName,
    /// Its index.
    pub index: u32,
    /// The address to register. Where the home link is all there is, the home address, which is
    /// never registered.
    pub care_of: Ipv6Addr,
    /// The home addresses whose home link this is.
    pub home_links: BTreeSet<Ipv6Addr>,
    /// Every global address in use on it, the care-of address among them.
    pub addresses: BTreeSet<Ipv6Addr>,
    /// The default router; none on a link without a link layer.
    pub router: Option<Ipv6Addr>,
    /// The prefixes that need no router.
    pub on_link: BTreeSet<Ipv6Net>,
    /// Largest packet in octets.
    pub mtu: u32,
}

/// Why an uplink has no care-of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownReason {
    /// No interface has the name.
    NoInterface,
    /// The administrator switched it off.
    LinkDown,
    /// No cable, no radio, no session.
    NoCarrier,
    /// No global address that could be registered.
    NoAddress,
    /// Duplicate address detection is still under way.
    Tentative,
    /// Duplicate address detection found another owner of the address.
    DuplicateAddress,
    /// No default route by this uplink.
    NoRouter,
    /// Nothing has been heard of the default router since the carrier came.
    RouterSought,
    /// Neighbour discovery has given up the default router.
    RouterUnreachable,
    /// The policy no longer names it.
    NotConfigured,
    /// The client that drives it says so.
    Detector,
    /// It could be attached and went too often of late: it has to stay first.
    Unsteady,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoInterface => "no such interface",
            Self::LinkDown => "link down",
            Self::NoCarrier => "no carrier",
            Self::NoAddress => "no global address",
            Self::Tentative => "duplicate address detection under way",
            Self::DuplicateAddress => "duplicate address",
            Self::NoRouter => "no default router",
            Self::RouterSought => "default router has not answered yet",
            Self::RouterUnreachable => "default router unreachable",
            Self::NotConfigured => "not configured",
            Self::Detector => "its movement detector says so",
            Self::Unsteady => "comes and goes: it is used once it stays",
        })
    }
}

/// What changed for one uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Movement {
    /// The uplink is attached, or what it is attached to has changed.
    CareOfUp(Attachment),
    /// The uplink was attached and is no longer; or, for [`DownReason::Unsteady`], it is not
    /// attached though it could be, which is said once.
    CareOfDown {
        /// The uplink.
        interface: InterfaceName,
        /// Why.
        reason: DownReason,
    },
}

/// Neighbours of one link that are remembered beside its routers; a crowded WLAN has hundreds.
const NEIGHBOURS_KEPT: usize = 64;

#[derive(Debug, Default)]
struct Link {
    facts: Option<LinkFacts>,
    /// Whether it lost its carrier since it was judged last, if only for a moment.
    fell: bool,
    addresses: BTreeMap<Ipv6Addr, AddressFacts>,
    routes: BTreeSet<RouteFacts>,
    /// Neighbours that have answered since the carrier came, and have not been given up.
    reachable: BTreeSet<Ipv6Addr>,
    /// Neighbours that were given up.
    unreachable: BTreeSet<Ipv6Addr>,
}

/// Turns reports into movements of the configured uplinks.
#[derive(Debug, Default)]
pub struct Movements {
    uplinks: BTreeSet<InterfaceName>,
    own: Vec<Ipv6Net>,
    links: BTreeMap<u32, Link>,
    attached: BTreeMap<InterfaceName, Attachment>,
    /// What movement detectors outside say of the links that are theirs.
    claims: BTreeMap<InterfaceName, Said>,
    /// How restless each of them was of late.
    unrest: BTreeMap<InterfaceName, Unrest>,
    now: Duration,
}

impl Movements {
    /// Watches these uplinks. An address inside `own` (home addresses as /128, mobile network
    /// prefixes) is never a care-of address; where a home address is on the link, that is its home
    /// link (RFC 6275 §11.5.2).
    pub fn new(uplinks: impl IntoIterator<Item = InterfaceName>, own: Vec<Ipv6Net>) -> Self {
        Self { uplinks: uplinks.into_iter().collect(), own, ..Self::default() }
    }

    /// Lets time pass up to `now`, on a clock that does not go back; what follows from that.
    pub fn advance(&mut self, now: Duration) -> Vec<Movement> {
        self.now = self.now.max(now);
        match self.deadline().is_some_and(|due| due <= self.now) {
            true => self.judge(),
            false => Vec::new(),
        }
    }

    /// When time alone changes something: an uplink that was watched has stayed.
    pub fn deadline(&self) -> Option<Duration> {
        self.unrest.values().filter_map(Unrest::deadline).min()
    }

    /// Takes one report; returns what it changes, uplinks in the order of their names.
    pub fn handle(&mut self, event: LinkEvent) -> Vec<Movement> {
        self.note(event);
        self.judge()
    }

    /// Watches other uplinks from now on.
    pub fn reconfigure(
        &mut self,
        uplinks: impl IntoIterator<Item = InterfaceName>,
        own: Vec<Ipv6Net>,
    ) -> Vec<Movement> {
        self.uplinks = uplinks.into_iter().collect();
        self.own = own;
        self.judge()
    }

    /// Where an uplink is attached, as was told, or why it is not.
    pub fn state(&self, uplink: &InterfaceName) -> Result<Attachment, DownReason> {
        self.found(uplink)?;
        self.attached.get(uplink).cloned().ok_or(DownReason::Unsteady)
    }

    /// Where an uplink could be attached by what the kernel reports, or why it could not.
    fn found(&self, uplink: &InterfaceName) -> Result<Attachment, DownReason> {
        if !self.uplinks.contains(uplink) {
            return Err(DownReason::NotConfigured);
        }
        let current = self.attached.get(uplink).map(|attached| attached.care_of);
        let link =
            self.links.values().find(|it| it.facts.as_ref().is_some_and(|f| f.name == *uplink));
        let link = link.ok_or(DownReason::NoInterface)?;
        match self.claims.get(uplink) {
            Some(said) => link.attachment_as_said(*said, &self.own, current),
            None => link.attachment(&self.own, current),
        }
    }

    /// How often an uplink went since it is watched: lost its carrier, its router or its care-of
    /// address, or got another one, also while it was watched for staying.
    pub fn falls(&self, uplink: &InterfaceName) -> u64 {
        self.unrest.get(uplink).map_or(0, Unrest::falls)
    }

    /// The watched uplinks in the order of their names, each with its state.
    pub fn states(&self) -> impl Iterator<Item = (&InterfaceName, Result<Attachment, DownReason>)> {
        self.uplinks.iter().map(|uplink| (uplink, self.state(uplink)))
    }

    /// The indices of uplinks that exist and are switched on.
    pub fn active(&self) -> Vec<u32> {
        self.switched_on().map(|facts| facts.index).collect()
    }

    /// How they are looked at: those that have to stay first are restless.
    pub fn watched(&self) -> Watched {
        let stays = |name: &InterfaceName| {
            self.attached.contains_key(name)
                || self.unrest.get(name).is_none_or(|it| it.is_calm(self.now))
        };
        let (calm, restless): (Vec<_>, Vec<_>) =
            self.switched_on().partition(|facts| stays(&facts.name));
        let indices = |links: Vec<&LinkFacts>| links.into_iter().map(|it| it.index).collect();
        Watched { calm: indices(calm), restless: indices(restless) }
    }

    fn switched_on(&self) -> impl Iterator<Item = &LinkFacts> {
        let watched = |facts: &&LinkFacts| facts.up && self.uplinks.contains(&facts.name);
        self.links.values().filter_map(|it| it.facts.as_ref()).filter(watched)
    }

    /// Default routers that have not answered or were given up. Nobody sends to them, so nobody
    /// would notice that they answer unless they are asked.
    pub fn sought_routers(&self) -> Vec<(u32, Ipv6Addr)> {
        let active = self.active();
        let lost = |index: &u32| {
            let link = &self.links[index];
            let asked = link.facts.as_ref().is_some_and(|facts| facts.carrier && facts.link_layer);
            let routers: BTreeSet<_> = link.default_routes().filter_map(|it| it.router).collect();
            let sought = routers.difference(&link.reachable).filter(|_| asked);
            sought.map(|it| (*index, *it)).collect::<Vec<_>>()
        };
        active.iter().flat_map(lost).collect()
    }

    fn note(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Link(facts) => {
                let link = self.links.entry(facts.index).or_default();
                if !facts.up || !facts.carrier {
                    // Behind the next carrier there may be another network.
                    link.reachable.clear();
                    link.unreachable.clear();
                }
                link.fell |= link.facts.as_ref().is_some_and(|known| known.falls != facts.falls);
                link.facts = Some(facts);
            }
            LinkEvent::LinkGone(index) => {
                self.links.remove(&index);
            }
            LinkEvent::Address { index, address, facts } => {
                self.links.entry(index).or_default().addresses.insert(address, facts);
            }
            LinkEvent::AddressGone { index, address } => {
                if let Some(link) = self.links.get_mut(&index) {
                    link.addresses.remove(&address);
                }
            }
            LinkEvent::Route { index, route, replaces } => {
                if replaces {
                    let same = |it: &RouteFacts| {
                        it.destination == route.destination && it.metric == route.metric
                    };
                    for link in self.links.values_mut() {
                        link.routes.retain(|it| !same(it));
                    }
                }
                self.links.entry(index).or_default().routes.insert(route);
            }
            LinkEvent::RouteGone { index, route } => {
                if let Some(link) = self.links.get_mut(&index) {
                    link.routes.remove(&route);
                }
            }
            LinkEvent::Neighbour { index, address, reachable } => {
                let link = self.links.entry(index).or_default();
                let (to, from) = match reachable {
                    true => (&mut link.reachable, &mut link.unreachable),
                    false => (&mut link.unreachable, &mut link.reachable),
                };
                from.remove(&address);
                // Neighbours beyond the routers are of no interest here, and there may be many.
                if to.len() < NEIGHBOURS_KEPT
                    || link.routes.iter().any(|it| it.router == Some(address))
                {
                    to.insert(address);
                }
            }
            LinkEvent::Everything(events) => {
                let before = std::mem::take(&mut self.links);
                events.into_iter().for_each(|event| self.note(event));
                // A router that answered is still there, even if the kernel has forgotten it as it
                // forgets whom nobody talks to.
                for (index, link) in before {
                    if let Some(now) = self.links.get_mut(&index)
                        && now.facts.as_ref().is_some_and(|facts| facts.up && facts.carrier)
                    {
                        let known = link.reachable.difference(&now.unreachable).copied();
                        now.reachable.extend(known.collect::<Vec<_>>());
                    }
                }
            }
        }
    }

    fn judge(&mut self) -> Vec<Movement> {
        let known: BTreeSet<_> = self.uplinks.iter().chain(self.attached.keys()).cloned().collect();
        self.unrest.retain(|uplink, _| known.contains(uplink));
        known.into_iter().filter_map(|uplink| self.judge_one(uplink)).collect()
    }

    fn take_fell(&mut self, uplink: &InterfaceName) -> bool {
        let named = |it: &&mut Link| it.facts.as_ref().is_some_and(|facts| facts.name == *uplink);
        let link = self.links.values_mut().find(named);
        link.is_some_and(|link| std::mem::take(&mut link.fell))
    }

    fn judge_one(&mut self, uplink: InterfaceName) -> Option<Movement> {
        let (now, claimed) = (self.now, self.is_claimed(&uplink));
        let fell = self.take_fell(&uplink);
        let (before, found) = (self.attached.get(&uplink), self.found(&uplink));
        let unrest = self.unrest.entry(uplink.clone()).or_default();
        if fell && before.is_none() {
            unrest.away(now);
        }
        let found = match found {
            Ok(found) => found,
            Err(reason) if before.is_some() => {
                unrest.went(now);
                self.attached.remove(&uplink);
                return Some(Movement::CareOfDown { interface: uplink, reason });
            }
            Err(_) => {
                unrest.away(now);
                return None;
            }
        };
        let same = |it: &Attachment| it.index == found.index && it.care_of == found.care_of;
        let is_told = match before {
            Some(before) if *before == found => {
                unrest.rests();
                return None;
            }
            Some(before) if same(before) => claimed || unrest.changes_a_little(now),
            Some(_) if !unrest.is_coming(found.care_of) => {
                unrest.went(now);
                unrest.stays(now, found.care_of) || claimed
            }
            _ => unrest.stays(now, found.care_of) || claimed,
        };
        if is_told {
            unrest.came();
            self.attached.insert(uplink, found.clone());
            return Some(Movement::CareOfUp(found));
        }
        let serves =
            |it: &Attachment| it.index == found.index && found.addresses.contains(&it.care_of);
        if before.is_some_and(serves) {
            return None;
        }
        let was_attached = self.attached.remove(&uplink).is_some();
        let reason = DownReason::Unsteady;
        (unrest.tell() || was_attached)
            .then_some(Movement::CareOfDown { interface: uplink, reason })
    }
}

impl Link {
    fn default_routes(&self) -> impl Iterator<Item = &RouteFacts> {
        self.routes.iter().filter(|it| it.destination.prefix_len() == 0)
    }

    fn attachment(
        &self,
        own: &[Ipv6Net],
        current: Option<Ipv6Addr>,
    ) -> Result<Attachment, DownReason> {
        let facts = self.facts.as_ref().ok_or(DownReason::NoInterface)?;
        if !facts.up {
            return Err(DownReason::LinkDown);
        }
        if !facts.carrier {
            return Err(DownReason::NoCarrier);
        }
        let home_links = self.home_links(own);
        let (care_of, addresses) = match (self.care_of(own, current), home_links.first()) {
            (Err(_), Some(home_address)) => (*home_address, BTreeSet::new()),
            (care_of, _) => care_of?,
        };
        Ok(Attachment {
            interface: facts.name.clone(),
            index: facts.index,
            care_of,
            home_links,
            addresses,
            router: self.router(facts.link_layer)?,
            on_link: self.on_link(),
            mtu: facts.mtu,
        })
    }

    /// The prefixes that need no router.
    fn on_link(&self) -> BTreeSet<Ipv6Net> {
        let routes = self.routes.iter();
        let direct = routes.filter(|it| it.router.is_none() && it.destination.prefix_len() > 0);
        direct.map(|it| it.destination).collect()
    }

    /// The home addresses among `own` that a prefix of this link holds.
    fn home_links(&self, own: &[Ipv6Net]) -> BTreeSet<Ipv6Addr> {
        let on_link = |address: &Ipv6Addr| {
            self.routes.iter().any(|it| {
                let length = it.destination.prefix_len();
                it.router.is_none()
                    && (1..128).contains(&length)
                    && it.destination.contains(address)
            })
        };
        own.iter()
            .filter(|net| net.prefix_len() == 128)
            .map(Ipv6Net::addr)
            .filter(on_link)
            .collect()
    }

    /// The address to register and all that may be used.
    fn care_of(
        &self,
        own: &[Ipv6Net],
        current: Option<Ipv6Addr>,
    ) -> Result<(Ipv6Addr, BTreeSet<Ipv6Addr>), DownReason> {
        let global: Vec<_> = self
            .addresses
            .iter()
            .filter(|(address, facts)| {
                facts.global && !own.iter().any(|net| net.contains(*address))
            })
            .collect();
        // req MN-02, MN-36 (RFC 4862 §5.4): a tentative address is not assigned to the interface.
        let usable = || global.iter().filter(|(_, facts)| !facts.tentative && !facts.duplicate);
        let best = usable().min_by_key(|(address, facts)| {
            let local = address.is_unique_local();
            // A care-of address that still serves is kept: moving costs a registration.
            (facts.deprecated, local, Some(**address) != current, facts.temporary, **address)
        });
        match best {
            Some((care_of, _)) => Ok((**care_of, usable().map(|(address, _)| **address).collect())),
            None if global.iter().any(|(_, facts)| facts.duplicate) => {
                Err(DownReason::DuplicateAddress)
            }
            None if !global.is_empty() => Err(DownReason::Tentative),
            None => Err(DownReason::NoAddress),
        }
    }

    /// The default router; `Ok(None)` where none is needed.
    ///
    /// On a link with a link layer a router counts once it has answered: a carrier that is back
    /// says nothing of the far end, and what is sent before is lost.
    fn router(&self, link_layer: bool) -> Result<Option<Ipv6Addr>, DownReason> {
        // Without a link layer there is nobody to find: any default route will do.
        if !link_layer && let Some(route) = self.default_routes().next() {
            return Ok(route.router);
        }
        let routers: Vec<_> = self.default_routes().filter_map(|it| it.router).collect();
        match routers.iter().find(|it| self.reachable.contains(it)) {
            Some(router) => Ok(Some(*router)),
            None if routers.is_empty() => Err(DownReason::NoRouter),
            None if routers.iter().all(|it| self.unreachable.contains(it)) => {
                Err(DownReason::RouterUnreachable)
            }
            None => Err(DownReason::RouterSought),
        }
    }
}

#[cfg(test)]
mod tests;
