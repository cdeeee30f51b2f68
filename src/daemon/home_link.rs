//! A served home's link: who has home addresses there, and answering for those who are away.
//!
//! The agent's machine says for which home addresses; when to ask, to announce and to answer is
//! here. The kernel takes no part, because it answers for addresses one by one and would have to
//! be told about each before the acknowledgement leaves; all it is told is where a mobile is that
//! must not be asked.
//!
//! Standards: RFC 6275 §10.3.1 and §10.4.1, RFC 4861 §7.2.6, RFC 4862 §5.4, RFC 5648 §6.3.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mtun_dataplane::PathId;
use mtun_dataplane::backend::Uplink;
use mtun_policy::{Bid, HomeAddress, InterfaceName};
use mtun_signaling::agent::{AgentEvent, Defence, link_local_of};
use mtun_signaling::machine::Transmit;
use mtun_signaling::wire::icmpv6::neighbour_discovery::{
    ALL_NODES, LinkLayerAddress, NeighbourMessage, RouterAdvertisement,
};
use tokio::sync::mpsc;

use super::owner::Owner;
use crate::control::documents::{Event, Severity};
use crate::edge::neighbours::{Heard, Neighbours};
use crate::edge::sysctl::DuplicateDetection;

/// How often a home address is announced when it begins to be answered for
/// (MAX_NEIGHBOR_ADVERTISEMENT, RFC 4861 §10), so long apart (RetransTimer).
const ANNOUNCEMENTS: u8 = 3;
const ANNOUNCED_EVERY: Duration = Duration::from_secs(1);
/// Least time between two Router Advertisements (RFC 4861 §10).
const MIN_DELAY_BETWEEN: Duration = Duration::from_secs(3);
/// How often the agent advertises itself; a third of what it says that it serves.
pub const ADVERTISED_EVERY: Duration = Duration::from_secs(60);

/// What happened on a home link, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HomeLinkCounts {
    /// Home addresses looked for.
    pub looked_for: u64,
    /// Of those, had by somebody else.
    pub duplicates: u64,
    /// Unsolicited advertisements sent.
    pub announced: u64,
    /// Solicitations answered.
    pub answered: u64,
    /// Attempts of others to take a defended address.
    pub defended: u64,
    /// Router Advertisements sent.
    pub advertised: u64,
    /// What could not be sent.
    pub unsent: u64,
}

impl HomeLinkCounts {
    /// The counts with their names.
    fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("looked-for", self.looked_for),
            ("duplicates", self.duplicates),
            ("announced", self.announced),
            ("answered", self.answered),
            ("defended", self.defended),
            ("advertised", self.advertised),
            ("unsent", self.unsent),
        ]
    }
}

/// A search for duplicates of one home address.
#[derive(Clone, Debug)]
struct Search {
    targets: Vec<Ipv6Addr>,
    transmits: u8,
    interval: Duration,
    next: Duration,
}

/// An address that is answered for.
#[derive(Clone, Copy, Debug)]
struct Defended {
    router: bool,
    /// Announcements still to come, and when the next.
    announcements: u8,
    next: Duration,
}

/// The home link of one served home.
#[derive(Debug)]
pub struct HomeLinkEdge {
    /// Its interface.
    pub name: InterfaceName,
    /// The agent's address, from which everything is said.
    agent: Ipv6Addr,
    /// What is said and heard there; nothing while the interface does not exist.
    neighbours: Option<Neighbours>,
    searches: BTreeMap<HomeAddress, Search>,
    defended: BTreeMap<Ipv6Addr, Defended>,
    /// The address that all home agents of the link have (RFC 6275 §10.5).
    anycast: Option<Ipv6Addr>,
    /// What is advertised of this agent, and when next.
    advertised: Option<(RouterAdvertisement, Duration)>,
    /// Where mobiles are that must not be asked.
    placed: BTreeMap<HomeAddress, LinkLayerAddress>,
    /// What happened.
    pub counts: HomeLinkCounts,
}

impl HomeLinkEdge {
    /// A home link whose interface has not been seen yet.
    pub fn new(name: InterfaceName, agent: Ipv6Addr) -> Self {
        Self {
            name,
            agent,
            neighbours: None,
            searches: BTreeMap::new(),
            defended: BTreeMap::new(),
            anycast: None,
            advertised: None,
            placed: BTreeMap::new(),
            counts: HomeLinkCounts::default(),
        }
    }

    /// The same, answering for the address of all home agents too.
    pub fn owning(mut self, anycast: Ipv6Addr) -> Self {
        self.anycast = Some(anycast);
        self
    }

    /// The same, telling the link what this agent is.
    pub fn advertising(mut self, said: Option<RouterAdvertisement>) -> Self {
        self.advertised = said.map(|said| (said, Duration::ZERO));
        self
    }

    /// The interface's index while it exists.
    pub fn index(&self) -> Option<u32> {
        self.neighbours.as_ref().map(Neighbours::interface)
    }

    /// How many addresses are answered for.
    pub fn defended(&self) -> usize {
        self.defended.len()
    }

    /// How many home addresses are being looked for.
    pub fn searching(&self) -> usize {
        self.searches.len()
    }

    /// Where mobiles are that must not be asked.
    pub fn placed(&self) -> impl Iterator<Item = (HomeAddress, LinkLayerAddress)> {
        self.placed.iter().map(|(home_address, link_layer)| (*home_address, *link_layer))
    }

    /// What happened, with names; what neighbours said in vain too.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        let unheard = self.neighbours.as_ref().map(Neighbours::unheard);
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut figures = self.counts.named().to_vec();
        figures.push(("invalid", unheard.map_or(0, |it| read(&it.invalid))));
        figures.push(("lost", unheard.map_or(0, |it| read(&it.lost))));
        figures
    }

    /// The interface is there: everything that is answered for is announced.
    pub fn open(&mut self, now: Duration, index: u32, heard: mpsc::Sender<Heard>) {
        if self.index() == Some(index) {
            return;
        }
        match Neighbours::open(index, heard) {
            Ok(neighbours) => self.neighbours = Some(neighbours),
            Err(error) => {
                tracing::error!(
                    link = %self.name, %error,
                    "home addresses cannot be defended on the home link"
                );
                return;
            }
        }
        if let Some(anycast) = self.anycast {
            self.watch(anycast);
        }
        if let Some((_, next)) = &mut self.advertised {
            *next = now;
        }
        let targets: Vec<Ipv6Addr> = self.defended.keys().copied().collect();
        for target in targets {
            self.watch(target);
            if let Some(defended) = self.defended.get_mut(&target) {
                (defended.announcements, defended.next) = (ANNOUNCEMENTS, now);
            }
        }
        self.announce_due(now);
    }

    /// The interface is gone.
    pub fn close(&mut self) {
        self.neighbours = None;
    }

    /// Begins to look for a home address; tells at once when there is nobody to ask.
    pub fn search(
        &mut self,
        now: Duration,
        home_address: HomeAddress,
        link_local: bool,
    ) -> Option<bool> {
        let detection = DuplicateDetection::of(self.name.as_str());
        if self.neighbours.is_none() || detection.transmits == 0 {
            return Some(false);
        }
        self.counts.looked_for += 1;
        let mut targets = vec![home_address.0];
        targets.extend(link_local.then(|| link_local_of(home_address.0)));
        for target in &targets {
            self.watch(*target);
        }
        let DuplicateDetection { transmits, interval } = detection;
        let search = Search { targets, transmits, interval, next: now };
        self.searches.insert(home_address, search);
        None
    }

    /// Answers for a home address from now on.
    pub fn defend(&mut self, now: Duration, home_address: HomeAddress, defence: Defence) {
        let router = defence.router;
        let mut wanted = BTreeSet::from([home_address.0]);
        wanted.extend(defence.link_local.then(|| link_local_of(home_address.0)));
        for target in [home_address.0, link_local_of(home_address.0)] {
            if !wanted.contains(&target) {
                self.release(target);
                continue;
            }
            self.watch(target);
            let defended = Defended { router, announcements: ANNOUNCEMENTS, next: now };
            self.defended.insert(target, defended);
        }
        self.announce_due(now);
    }

    /// Answers for it no more.
    pub fn undefend(&mut self, home_address: HomeAddress) {
        self.release(home_address.0);
        self.release(link_local_of(home_address.0));
    }

    /// Notes where a mobile is that must not be asked.
    pub fn place(&mut self, home_address: HomeAddress, link_layer: Option<LinkLayerAddress>) {
        match link_layer {
            Some(link_layer) => drop(self.placed.insert(home_address, link_layer)),
            None => drop(self.placed.remove(&home_address)),
        }
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Duration> {
        let searches = self.searches.values().map(|search| search.next);
        let announced = self.defended.values().filter(|it| it.announcements > 0);
        let advertised = self.advertised.iter().filter(|_| self.neighbours.is_some());
        searches.chain(announced.map(|it| it.next)).chain(advertised.map(|(_, at)| *at)).min()
    }

    /// Does what is due; the home addresses that nobody else has.
    pub fn handle_deadline(&mut self, now: Duration) -> Vec<HomeAddress> {
        let mut unique = Vec::new();
        let mut unsent = 0;
        for (home_address, search) in &mut self.searches {
            if search.next > now {
                continue;
            }
            if search.transmits == 0 {
                unique.push(*home_address);
                continue;
            }
            search.transmits -= 1;
            search.next = now + search.interval;
            // req HA-20 (RFC 6275 §10.3.1): the link-local address too when L says so.
            for target in &search.targets {
                let sent = self.neighbours.as_ref().map(|it| it.check_duplicate(*target));
                unsent += u64::from(!matches!(sent, Some(Ok(()))));
            }
        }
        self.counts.unsent += unsent;
        self.advertise_due(now);
        for home_address in &unique {
            self.end_search(*home_address);
        }
        self.announce_due(now);
        unique
    }

    /// Takes a message of a neighbour; the home address that it turns out to have, if any.
    pub fn heard(&mut self, now: Duration, heard: &Heard) -> Option<HomeAddress> {
        if matches!(heard.message, NeighbourMessage::RouterSolicitation(_))
            && let Some((_, next)) = &mut self.advertised
        {
            // Not more often than once in three seconds (RFC 4861 §6.2.6).
            let earliest = next.saturating_sub(ADVERTISED_EVERY) + MIN_DELAY_BETWEEN;
            *next = (*next).min(earliest.max(now));
        }
        let (target, claims) = match &heard.message {
            NeighbourMessage::NeighbourAdvertisement(message) => (message.target, true),
            // Who asks from nobody wants the address for itself (RFC 4862 §5.4.3).
            NeighbourMessage::NeighbourSolicitation(message) => {
                (message.target, heard.source.is_unspecified())
            }
            NeighbourMessage::RouterSolicitation(_) | NeighbourMessage::RouterAdvertisement(_) => {
                return None;
            }
        };
        if let Some(defended) = self.defended.get_mut(&target) {
            let router = defended.router;
            let asked = matches!(heard.message, NeighbourMessage::NeighbourSolicitation(_));
            self.counts.defended += u64::from(claims);
            if asked {
                // req HA-51, HA-52, HA-56, R-HA-07 (RFC 6275 §10.4.1).
                self.counts.answered += 1;
                let agent = self.agent;
                self.sent(|neighbours| neighbours.answer(heard, agent, target, router));
            } else if defended.announcements == 0 {
                // req HA-57: only the mobile's own word ends it; others are set right, not more
                // often than once a second however many there are.
                (defended.announcements, defended.next) = (1, now + ANNOUNCED_EVERY);
            }
            return None;
        }
        if self.anycast == Some(target) {
            if !claims {
                let agent = self.agent;
                self.sent(|neighbours| neighbours.answer_anycast(heard, agent, target));
            }
            return None;
        }
        let taken = |search: &Search| search.targets.contains(&target);
        let (&home_address, _) = self.searches.iter().find(|(_, search)| taken(search))?;
        if !claims {
            return None;
        }
        self.counts.duplicates += 1;
        self.end_search(home_address);
        Some(home_address)
    }

    fn advertise_due(&mut self, now: Duration) {
        let Some(neighbours) = &self.neighbours else { return };
        let Some((said, next)) = self.advertised.as_mut().filter(|(_, next)| *next <= now) else {
            return;
        };
        *next = now + ADVERTISED_EVERY;
        let Some(source) = neighbours.link_local() else {
            // It is just coming; nobody would believe another source (RFC 4861 §6.1.2).
            *next = now + ANNOUNCED_EVERY;
            return;
        };
        said.source_link_layer = Some(neighbours.link_layer());
        let message = NeighbourMessage::RouterAdvertisement(said.clone());
        let group = LinkLayerAddress::of_group(ALL_NODES);
        self.counts.advertised += 1;
        self.sent(|neighbours| neighbours.send(source, ALL_NODES, group, &message));
    }

    fn announce_due(&mut self, now: Duration) {
        let due = self.defended.iter_mut().filter(|(_, it)| it.announcements > 0 && it.next <= now);
        let mut targets = Vec::new();
        for (target, defended) in due {
            defended.announcements -= 1;
            defended.next = now + ANNOUNCED_EVERY;
            targets.push((*target, defended.router));
        }
        let agent = self.agent;
        for (target, router) in targets {
            // req HA-50, R-HA-07 (RFC 6275 §10.4.1; RFC 3963 §6.2 for R).
            self.counts.announced += 1;
            self.sent(|neighbours| neighbours.announce(agent, target, router));
        }
    }

    fn end_search(&mut self, home_address: HomeAddress) {
        let Some(search) = self.searches.remove(&home_address) else { return };
        for target in search.targets {
            if !self.defended.contains_key(&target) {
                self.forget(target);
            }
        }
    }

    fn release(&mut self, target: Ipv6Addr) {
        if self.defended.remove(&target).is_some() {
            self.forget(target);
        }
    }

    fn watch(&mut self, target: Ipv6Addr) {
        if let Some(neighbours) = &self.neighbours
            && let Err(error) = neighbours.watch(target)
        {
            tracing::debug!(%target, %error, "switches are not told that we listen for it");
        }
    }

    fn forget(&mut self, target: Ipv6Addr) {
        if let Some(neighbours) = &self.neighbours
            && let Err(error) = neighbours.forget(target)
        {
            tracing::debug!(%target, %error, "switches are not told that we listen no more");
        }
    }

    fn sent(&mut self, send: impl FnOnce(&Neighbours) -> io::Result<()>) {
        let sent = self.neighbours.as_ref().map(send);
        if let Some(Err(error)) = &sent {
            tracing::debug!(link = %self.name, %error, "a neighbour was not told");
        }
        self.counts.unsent += u64::from(!matches!(sent, Some(Ok(()))));
    }
}

/// The path by which packets leave on the home link of a served home, counted in the policy's
/// order: from the end, where no BID of a policy is.
pub fn home_path(served: usize) -> PathId {
    PathId(u16::MAX - served as u16)
}

impl Owner {
    /// The way on the home link for what is to be sent to a mobile that is there: to its home
    /// address without a routing header, which by the tunnel would go where it is not.
    pub(super) fn on_home_link(&self, served: usize, transmit: &Transmit) -> Option<Bid> {
        let it = &self.served[served];
        let envelope = &transmit.envelope;
        let asks = transmit.message.get(2) == Some(&0);
        // req HA-44 (RFC 6275 §10.3.2). A Binding Refresh Request goes to wherever the mobile is.
        let at_home = envelope.routing_header.is_none()
            && it.served.prefix.contains(&envelope.destination)
            && it.allowed(HomeAddress(envelope.destination)).is_some()
            && !asks;
        let open = it.home_link.as_ref().and_then(HomeLinkEdge::index).is_some();
        (at_home && open).then(|| Bid::new(home_path(served).0)).flatten()
    }

    /// Looks whether somebody on the home link has a home address.
    pub(super) fn check_duplicate(
        &mut self,
        served: usize,
        home_address: HomeAddress,
        link_local: bool,
    ) {
        let now = self.now().monotonic;
        let home_link = self.served[served].home_link.as_mut();
        let verdict = match home_link {
            Some(home_link) => home_link.search(now, home_address, link_local),
            None => Some(false),
        };
        if let Some(duplicate) = verdict {
            self.duplicate_checked(served, home_address, duplicate);
        }
    }

    fn duplicate_checked(&mut self, served: usize, home_address: HomeAddress, duplicate: bool) {
        if duplicate {
            let it = &self.served[served];
            let (home, link) = (&it.served.name, it.served.on.as_ref());
            let link = link.map_or_else(String::new, |link| format!(" on {link}"));
            self.tell(Event::Notice {
                severity: Severity::Warning,
                code: "duplicate_home_address".to_owned(),
                text: format!(
                    "home {home}: {home_address} is refused (status 134), because another node \
                     has it{link}"
                ),
            });
        }
        let now = self.now();
        let event = AgentEvent::DuplicateChecked { home_address, duplicate };
        let outputs = self.served[served].handle(now, event);
        self.agent_outputs(served, outputs);
    }

    /// A neighbour on some home link said something.
    pub(super) fn heard(&mut self, heard: &Heard) {
        let now = self.now().monotonic;
        for served in 0..self.served.len() {
            let Some(home_link) = &mut self.served[served].home_link else { continue };
            if home_link.index() != Some(heard.interface) {
                continue;
            }
            match home_link.heard(now, heard) {
                Some(home_address) => self.duplicate_checked(served, home_address, true),
                None => self.router_heard(served, heard),
            }
        }
        // A home that this node is a mobile of may be on a link as well.
        self.heard_at_home(heard);
    }

    /// What is due on the home link of a served home.
    pub(super) fn agent_link_due(&mut self, served: usize) {
        let now = self.now().monotonic;
        let Some(home_link) = &mut self.served[served].home_link else { return };
        for home_address in home_link.handle_deadline(now) {
            self.duplicate_checked(served, home_address, false);
        }
    }

    /// An interface is there; it may be a home link.
    pub(super) fn home_link_present(&mut self, name: &InterfaceName, index: u32) {
        let now = self.now().monotonic;
        let mut opened = false;
        for (number, served) in self.served.iter_mut().enumerate() {
            let Some(home_link) = served.home_link.as_mut().filter(|it| it.name == *name) else {
                continue;
            };
            if home_link.index() == Some(index) {
                continue;
            }
            home_link.open(now, index, self.neighbours_heard.0.clone());
            match Uplink::open(Some(index)) {
                Ok(uplink) => self.shared.paths.open(home_path(number), uplink, None),
                Err(error) => tracing::error!(%name, %error, "cannot send on the home link"),
            }
            opened = true;
        }
        if opened {
            self.routes_dirty = true;
            self.publish_at_home();
        }
    }

    /// Publishes anew what goes by a home link.
    fn publish_at_home(&mut self) {
        for served in 0..self.served.len() {
            let entries = self.served[served].agent.cache().iter();
            let at_home = entries.filter(|entry| entry.is_at_home());
            let at_home: Vec<_> = at_home.map(|entry| entry.home_address).collect();
            at_home.into_iter().for_each(|address| self.publish_mobile(served, address));
        }
    }

    /// Only these interfaces exist.
    pub(super) fn home_links_among(&mut self, present: &[InterfaceName]) {
        let links = self.served.iter().filter_map(|it| it.home_link.as_ref());
        let gone: Vec<_> = links
            .filter(|link| !present.contains(&link.name))
            .filter_map(HomeLinkEdge::index)
            .collect();
        gone.into_iter().for_each(|index| self.home_link_gone(index));
    }

    /// An interface is gone; it may have been a home link.
    pub(super) fn home_link_gone(&mut self, index: u32) {
        let mut closed = false;
        for (number, served) in self.served.iter_mut().enumerate() {
            let home_link = served.home_link.as_mut().filter(|it| it.index() == Some(index));
            if let Some(home_link) = home_link {
                home_link.close();
                self.shared.paths.close(home_path(number));
                closed = true;
            }
        }
        if closed {
            self.routes_dirty = true;
            self.publish_at_home();
        }
    }

    /// Tells the kernel where mobiles are that must not be asked.
    pub(super) async fn settle_neighbours(&mut self) {
        let mut wanted = BTreeMap::new();
        for home_link in self.served.iter().filter_map(|it| it.home_link.as_ref()) {
            let Some(index) = home_link.index() else { continue };
            wanted.extend(home_link.placed().map(|(home, at)| ((index, home.0), at)));
        }
        let placed = std::mem::take(&mut self.neighbours_placed);
        for (&(index, address), _) in placed.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
            if let Err(error) = self.netlink.forget_neighbour(index, address).await {
                tracing::warn!(%error, "a neighbour entry is left behind");
            }
        }
        for (key, link_layer) in wanted {
            if placed.get(&key) != Some(&link_layer)
                && let Err(error) = self.netlink.set_neighbour(key.0, key.1, link_layer.0).await
            {
                tracing::warn!(%error, "packets for a mobile at home may not reach it");
                continue;
            }
            self.neighbours_placed.insert(key, link_layer);
        }
    }
}
