//! A home link as a home agent works on it: looking for duplicates of home addresses, announcing
//! and answering for those of mobiles that are away, saying what the agent is.
//!
//! The agent's machine says for which home addresses; when to ask, to announce and to answer is
//! here. The kernel takes no part, because it answers for addresses one by one and would have to
//! be told about each before the acknowledgement leaves. What is due is kept in order of time, so
//! that thousands of mobiles cost no more than those that something happens to.
//!
//! Standards: RFC 6275 §7, §10.3.1 and §10.4.1, RFC 4861 §7.2.6, RFC 4862 §5.4.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mtun_policy::{HomeAddress, InterfaceName};
use mtun_signaling::agent::{Defence, Detection, link_local_of};
use mtun_signaling::wire::icmpv6::neighbour_discovery::{
    ALL_NODES, LinkLayerAddress, NeighbourMessage, RouterAdvertisement,
};
use tokio::sync::mpsc;

use super::neighbours::{Heard, Neighbours};
use super::sysctl::DuplicateDetection;

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
    /// Router Advertisements of others heard that speak of the home prefix.
    pub prefix_heard: u64,
    /// What could not be sent.
    pub unsent: u64,
}

impl HomeLinkCounts {
    /// The counts with their names.
    fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("looked-for", self.looked_for),
            ("duplicates", self.duplicates),
            ("announced", self.announced),
            ("answered", self.answered),
            ("defended", self.defended),
            ("advertised", self.advertised),
            ("prefix-heard", self.prefix_heard),
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
    /// Whether the link has taken a question for each target.
    asked: bool,
}

/// An address that is answered for.
#[derive(Clone, Copy, Debug, Default)]
struct Defended {
    router: bool,
    /// Announcements still to come, and when the next if there are.
    announcements: u8,
    next: Option<Duration>,
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
    /// When each search goes on.
    searched: BTreeSet<(Duration, HomeAddress)>,
    /// Whose search each address belongs to.
    sought: BTreeMap<Ipv6Addr, HomeAddress>,
    defended: BTreeMap<Ipv6Addr, Defended>,
    /// When each is announced next.
    announced: BTreeSet<(Duration, Ipv6Addr)>,
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
            searched: BTreeSet::new(),
            sought: BTreeMap::new(),
            defended: BTreeMap::new(),
            announced: BTreeSet::new(),
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
            self.plan(target, ANNOUNCEMENTS, now);
        }
        self.announce_due(now);
    }

    /// The interface is gone.
    pub fn close(&mut self) {
        self.neighbours = None;
    }

    /// Begins to look for a home address; tells at once when there is no link to ask on, or its
    /// settings say that nobody is asked (RFC 4862 §5.1).
    pub fn search(
        &mut self,
        now: Duration,
        home_address: HomeAddress,
        link_local: bool,
    ) -> Option<Detection> {
        if self.neighbours.is_none() {
            return Some(Detection::Undone);
        }
        let detection = DuplicateDetection::of(self.name.as_str());
        if detection.transmits == 0 {
            return Some(Detection::Unique);
        }
        self.counts.looked_for += 1;
        let mut targets = vec![home_address.0];
        targets.extend(link_local.then(|| link_local_of(home_address.0)));
        for target in &targets {
            self.watch(*target);
            self.sought.insert(*target, home_address);
        }
        let DuplicateDetection { transmits, interval } = detection;
        let search = Search { targets, transmits, interval, next: now, asked: false };
        self.searches.insert(home_address, search);
        self.searched.insert((now, home_address));
        None
    }

    /// Answers for a home address from now on.
    pub fn defend(&mut self, now: Duration, home_address: HomeAddress, defence: Defence) {
        let router = defence.router;
        let mut wanted = BTreeSet::from([home_address.0]);
        // req HA-53 (RFC 6275 §10.4.1): the link-local address only as L says.
        wanted.extend(defence.link_local.then(|| link_local_of(home_address.0)));
        for target in [home_address.0, link_local_of(home_address.0)] {
            if !wanted.contains(&target) {
                self.release(target);
                continue;
            }
            self.watch(target);
            self.defended.entry(target).or_default().router = router;
            self.plan(target, ANNOUNCEMENTS, now);
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
        let advertised = self.advertised.as_ref().filter(|_| self.neighbours.is_some());
        let searched = self.searched.first().map(|(at, _)| *at);
        let announced = self.announced.first().map(|(at, _)| *at);
        [searched, announced, advertised.map(|(_, at)| *at)].into_iter().flatten().min()
    }

    /// Does what is due; the home addresses that nobody has answered for.
    pub fn handle_deadline(&mut self, now: Duration) -> Vec<(HomeAddress, Detection)> {
        let mut over = Vec::new();
        let mut unsent = 0;
        while let Some(&(at, home_address)) = self.searched.first()
            && at <= now
        {
            self.searched.pop_first();
            let Some(search) = self.searches.get_mut(&home_address) else { continue };
            if search.transmits == 0 {
                let detection = if search.asked { Detection::Unique } else { Detection::Undone };
                over.push((home_address, detection));
                continue;
            }
            search.transmits -= 1;
            search.next = now + search.interval;
            self.searched.insert((search.next, home_address));
            // req HA-20, HA-21 (RFC 6275 §10.3.1): the link-local address too when L says so.
            let targets = search.targets.iter();
            let refused = targets.filter(|target| {
                let sent = self.neighbours.as_ref().map(|it| it.check_duplicate(**target));
                !matches!(sent, Some(Ok(())))
            });
            let refused = refused.count() as u64;
            search.asked |= refused == 0;
            unsent += refused;
        }
        self.counts.unsent += unsent;
        self.advertise_due(now);
        for (home_address, _) in &over {
            self.end_search(*home_address);
        }
        self.announce_due(now);
        over
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
        if let Some(&Defended { router, next, .. }) = self.defended.get(&target) {
            let asked = matches!(heard.message, NeighbourMessage::NeighbourSolicitation(_));
            self.counts.defended += u64::from(claims);
            if asked {
                // req HA-51, HA-52, HA-56, R-HA-07 (RFC 6275 §10.4.1).
                self.counts.answered += 1;
                let agent = self.agent;
                self.sent(|neighbours| neighbours.answer(heard, agent, target, router));
            } else if next.is_none() {
                // req HA-57: only the mobile's own word ends it; others are set right, not more
                // often than once a second however many there are.
                self.plan(target, 1, now + ANNOUNCED_EVERY);
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
        let home_address = *self.sought.get(&target)?;
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
        while let Some(&(at, target)) = self.announced.first()
            && at <= now
        {
            self.announced.pop_first();
            let Some(defended) = self.defended.get_mut(&target) else { continue };
            let (router, left) = (defended.router, defended.announcements.saturating_sub(1));
            defended.next = None;
            if left > 0 {
                self.plan(target, left, now + ANNOUNCED_EVERY);
            }
            // req HA-50, R-HA-07 (RFC 6275 §10.4.1; RFC 3963 §6.2 for R).
            self.counts.announced += 1;
            let agent = self.agent;
            self.sent(|neighbours| neighbours.announce(agent, target, router));
        }
    }

    /// Plans so many announcements of an address that is answered for.
    fn plan(&mut self, target: Ipv6Addr, announcements: u8, at: Duration) {
        let Some(defended) = self.defended.get_mut(&target) else { return };
        defended.announcements = announcements;
        if let Some(before) = defended.next.replace(at) {
            self.announced.remove(&(before, target));
        }
        self.announced.insert((at, target));
    }

    fn end_search(&mut self, home_address: HomeAddress) {
        let Some(search) = self.searches.remove(&home_address) else { return };
        self.searched.remove(&(search.next, home_address));
        for target in search.targets {
            self.sought.remove(&target);
            if !self.defended.contains_key(&target) {
                self.forget(target);
            }
        }
    }

    fn release(&mut self, target: Ipv6Addr) {
        if let Some(defended) = self.defended.remove(&target) {
            if let Some(next) = defended.next {
                self.announced.remove(&(next, target));
            }
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
