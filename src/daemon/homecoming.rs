//! A mobile's home link: what is said there in the home address's name.
//!
//! The home address stays on the home-bound interface; on the home link it is answered for by
//! packets of our own, so that nobody hears of it before the agent may (RFC 6275 §11.5.5), nobody
//! at all where the agent goes on answering (RFC 5648 §5.6.3), and nothing is left behind by a
//! daemon that is killed. In the same way the agent is looked for: the kernel would ask with the
//! home address as its source sooner or later.
//!
//! ```text
//!   update from home ──► is the agent's link-layer address known? ──► sent
//!                         no: ask for the home address, from nobody ──► the agent's answer tells
//!   Returning ──► answers who asks        AtHome ──► tells all, three times
//!   LeftHome, or status 5 ──► silence
//! ```

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, InterfaceName, ReturningHome};
use mtun_signaling::machine::Transmit;
use mtun_signaling::mobile::Stay;
use mtun_signaling::wire::icmpv6::neighbour_discovery::{LinkLayerAddress, NeighbourMessage};

use super::owner::Owner;
use crate::control::documents::{Event, Severity};
use crate::edge::movement::Attachment;
use crate::edge::neighbours::{Heard, Neighbours};

/// How often the home address is announced (MAX_NEIGHBOR_ADVERTISEMENT, RFC 4861 §10), so long
/// apart (RetransTimer); as long a search for duplicates waits for an answer.
const ANNOUNCEMENTS: u8 = 3;
const ANNOUNCED_EVERY: Duration = Duration::from_secs(1);
/// How long the agent is waited for when it is asked where it is; then the kernel asks.
const AGENT_ASKED: Duration = Duration::from_millis(300);

/// What happened on a home link, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HomecomingCounts {
    /// Times the home link was used from then on.
    pub returns: u64,
    /// Times the agent was asked where it is.
    pub asked: u64,
    /// Unsolicited advertisements sent.
    pub announced: u64,
    /// Solicitations answered.
    pub answered: u64,
    /// Solicitations left to the agent.
    pub silent: u64,
    /// Attempts of others to take the home address.
    pub contested: u64,
    /// What could not be sent.
    pub unsent: u64,
}

impl HomecomingCounts {
    /// The counts with their names.
    pub fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("returns", self.returns),
            ("agent-asked", self.asked),
            ("announced", self.announced),
            ("answered", self.answered),
            ("left-to-agent", self.silent),
            ("contested", self.contested),
            ("unsent", self.unsent),
        ]
    }
}

/// Answering for the home address on one link.
#[derive(Clone, Debug)]
struct Answering {
    link: InterfaceName,
    /// The agent has confirmed that it answers no more.
    confirmed: bool,
    /// A search for duplicates is under way.
    searching: bool,
    /// Announcements still to come, and when the next.
    announcements: u8,
    next: Duration,
}

/// An update that has to leave from the home link.
#[derive(Clone, Debug)]
struct Waiting {
    link: InterfaceName,
    transmit: Transmit,
    /// Until when the agent is waited for, once it was asked where it is.
    asked: Option<Duration>,
    /// Where it says that it is.
    agent_at: Option<LinkLayerAddress>,
}

/// How one home stands on its home link.
#[derive(Debug, Default)]
pub struct Homecoming {
    answering: Option<Answering>,
    waiting: Option<Waiting>,
    /// What happened.
    pub counts: HomecomingCounts,
}

impl Homecoming {
    /// When something is due.
    pub fn deadline(&self) -> Option<Duration> {
        let told = self.answering.as_ref().filter(|it| it.announcements > 0);
        let asked = self.waiting.as_ref().and_then(|it| it.asked);
        told.map(|it| it.next).into_iter().chain(asked).min()
    }

    /// The link on which the home address is answered for.
    pub fn answers_on(&self) -> Option<&InterfaceName> {
        self.answering.as_ref().map(|it| &it.link)
    }
}

impl Owner {
    /// Whether an uplink is attached to the home link of this home, and may be used as such.
    pub(super) fn is_home_link(&self, home: usize, attachment: &Attachment) -> bool {
        let home = &self.homes[home].home;
        home.returning_home != ReturningHome::Foreign
            && attachment.home_links.contains(&home.address.0)
    }

    /// Listens to the neighbours of an uplink on a home link, and to nobody's elsewhere; gives the
    /// uplink's link-layer address there, empty on links without.
    pub(super) fn listen_at_home(&mut self, attachment: &Attachment) -> Vec<u8> {
        let name = &attachment.interface;
        if attachment.home_links.is_empty() {
            self.neighbourhoods.remove(name);
            return Vec::new();
        }
        let known = self.neighbourhoods.get(name).map(Neighbours::interface);
        if known != Some(attachment.index) {
            match Neighbours::open(attachment.index, self.neighbours_heard.0.clone()) {
                Ok(neighbours) => drop(self.neighbourhoods.insert(name.clone(), neighbours)),
                Err(error) => {
                    tracing::warn!(link = %name, %error, "no neighbours on this home link");
                    self.neighbourhoods.remove(name);
                }
            }
        }
        let neighbours = self.neighbourhoods.get(name);
        neighbours.map_or_else(Vec::new, |it| it.link_layer().0.to_vec())
    }

    /// The de-registration is about to leave: who asks is answered from here on, the agent first of
    /// all.
    pub(super) fn returning(&mut self, home: usize, bid: Bid) {
        let now = self.now().monotonic;
        self.answer_on(home, bid, Answers { confirmed: false, searching: false, from: now });
    }

    /// The home link is in use.
    pub(super) fn came_home(&mut self, home: usize, bid: Bid, stay: Stay) {
        self.homes[home].homecoming.counts.returns += 1;
        self.routes_dirty = true;
        let now = self.now().monotonic;
        let confirmed = true;
        match stay {
            // req R-MN-29, MC-20 (RFC 5648 §5.6.3): the agent answers.
            Stay::Beside { neighbours: false } => self.fall_silent(home),
            Stay::Alone { vacant: true } => {
                // req MN-14 (RFC 6275 §11.5.5): nobody has looked for duplicates for long.
                let from = now + ANNOUNCED_EVERY;
                self.answer_on(home, bid, Answers { confirmed, searching: true, from });
                let address = self.homes[home].home.address.0;
                self.say(home, |neighbours| neighbours.check_duplicate(address));
            }
            Stay::Alone { vacant: false } | Stay::Beside { neighbours: true } => {
                self.answer_on(home, bid, Answers { confirmed, searching: false, from: now });
            }
        }
        self.home_link_due(home);
    }

    /// The home link is used no more.
    pub(super) fn left_home(&mut self, home: usize) {
        self.fall_silent(home);
        self.routes_dirty = true;
    }

    fn answer_on(&mut self, home: usize, bid: Bid, answers: Answers) {
        let Some(link) = self.link_of(Some(bid)) else { return };
        if self.homes[home].homecoming.answers_on().is_some_and(|known| *known != link) {
            self.fall_silent(home);
        }
        let address = self.homes[home].home.address.0;
        self.watch_for(&link, address);
        let Answers { confirmed, searching, from: next } = answers;
        let announcements = if confirmed { ANNOUNCEMENTS } else { 0 };
        let answering = Answering { link, confirmed, searching, announcements, next };
        self.homes[home].homecoming.answering = Some(answering);
    }

    fn fall_silent(&mut self, home: usize) {
        let it = &mut self.homes[home];
        let Some(Answering { link, .. }) = it.homecoming.answering.take() else { return };
        let address = it.home.address.0;
        if let Some(neighbours) = self.neighbourhoods.get(&link)
            && let Err(error) = neighbours.forget(address)
        {
            tracing::debug!(%link, %error, "switches are not told that we listen no more");
        }
    }

    fn watch_for(&self, link: &InterfaceName, address: Ipv6Addr) {
        if let Some(neighbours) = self.neighbourhoods.get(link)
            && let Err(error) = neighbours.watch(address)
        {
            tracing::debug!(%link, %error, "switches are not told that we listen for it");
        }
    }

    /// Says something on the link where the home address is answered for.
    fn say(&mut self, home: usize, what: impl FnOnce(&Neighbours) -> std::io::Result<()>) {
        let homecoming = &mut self.homes[home].homecoming;
        let link = homecoming.answering.as_ref().map(|it| &it.link);
        let neighbours = link.and_then(|link| self.neighbourhoods.get(link));
        let said = neighbours.map(what);
        if let Some(Err(error)) = &said {
            tracing::debug!(%error, "a neighbour on the home link was not told");
        }
        homecoming.counts.unsent += u64::from(!matches!(said, Some(Ok(()))));
    }

    /// Announces the home address where that is due.
    pub(super) fn home_link_due(&mut self, home: usize) {
        let now = self.now().monotonic;
        let it = &mut self.homes[home];
        let Some(answering) = &mut it.homecoming.answering else { return };
        if answering.announcements == 0 || answering.next > now {
            return;
        }
        answering.announcements -= 1;
        answering.next = now + ANNOUNCED_EVERY;
        answering.searching = false;
        it.homecoming.counts.announced += 1;
        let (address, router) = (it.home.address.0, !it.home.mobile_networks.is_empty());
        // req MN-14, R-MN-16 (RFC 6275 §11.5.5): to all nodes, S clear, O set.
        self.say(home, |neighbours| neighbours.announce(address, address, router));
    }

    /// A neighbour on a home link said something.
    pub(super) fn heard_at_home(&mut self, heard: &Heard) {
        let mut listening = self.neighbourhoods.iter();
        let Some((link, _)) = listening.find(|(_, it)| it.interface() == heard.interface) else {
            return;
        };
        let link = link.clone();
        let (target, says) = match &heard.message {
            NeighbourMessage::NeighbourSolicitation(message) => (message.target, None),
            NeighbourMessage::NeighbourAdvertisement(message) => {
                (message.target, Some(message.target_link_layer.unwrap_or(heard.from)))
            }
            NeighbourMessage::RouterSolicitation(_) | NeighbourMessage::RouterAdvertisement(_) => {
                return;
            }
        };
        let Some(home) = self.homes.iter().position(|it| it.home.address.0 == target) else {
            return;
        };
        match says {
            None => self.asked_at_home(home, &link, heard),
            Some(at) => self.claimed_at_home(home, &link, at),
        }
    }

    /// Somebody asks for the home address.
    fn asked_at_home(&mut self, home: usize, link: &InterfaceName, heard: &Heard) {
        let it = &mut self.homes[home];
        if it.homecoming.answers_on() != Some(link) {
            it.homecoming.counts.silent += 1;
            return;
        }
        it.homecoming.counts.answered += 1;
        let (address, router) = (it.home.address.0, !it.home.mobile_networks.is_empty());
        // req MN-14 (RFC 6275 §11.5.5): by unicast to who asked.
        self.say(home, |neighbours| neighbours.answer(heard, address, address, router));
    }

    /// Somebody says that the home address is his.
    fn claimed_at_home(&mut self, home: usize, link: &InterfaceName, at: LinkLayerAddress) {
        let now = self.now().monotonic;
        let it = &mut self.homes[home];
        if let Some(waiting) = &mut it.homecoming.waiting
            && waiting.link == *link
            && waiting.asked.is_some()
        {
            // The agent, which answers for mobiles that are away: that is what was asked for.
            waiting.agent_at = Some(at);
            return;
        }
        let answering = it.homecoming.answering.as_mut().filter(|it| it.link == *link);
        let Some(answering) = answering.filter(|it| it.confirmed) else { return };
        it.homecoming.counts.contested += 1;
        if !answering.searching {
            // Set right, not more often than once a second however many there are.
            if answering.announcements == 0 {
                (answering.announcements, answering.next) = (1, now + ANNOUNCED_EVERY);
            }
            return;
        }
        let (name, address) = (it.home.name.clone(), it.home.address);
        self.fall_silent(home);
        self.tell(Event::Notice {
            severity: Severity::Warning,
            code: "home_address_in_use".to_owned(),
            text: format!(
                "home {name}: another node on {link} has {address}: it is not answered for there"
            ),
        });
    }

    /// Has an update leave from the home link, once it is known where the agent is there.
    pub(super) fn transmit_from_home(&mut self, home: usize, transmit: Transmit) {
        match transmit.path.and_then(|bid| self.link_of(Some(bid))) {
            Some(link) => {
                let waiting = Waiting { link, transmit, asked: None, agent_at: None };
                self.homes[home].homecoming.waiting = Some(waiting);
            }
            None => self.transmit(&transmit),
        }
    }

    /// Sends what waits to leave from home links, or asks where the agent is.
    pub(super) async fn homeward(&mut self) {
        for home in 0..self.homes.len() {
            let Some(mut waiting) = self.homes[home].homecoming.waiting.take() else { continue };
            if self.knows_agent(home, &waiting).await {
                self.transmit(&waiting.transmit);
                continue;
            }
            if waiting.asked.is_none() {
                // req MN-13 (RFC 6275 §11.5.5): from nobody, for the home address, which the agent
                // defends; with the home address as its source this would tell a lie.
                let address = self.homes[home].home.address.0;
                self.watch_for(&waiting.link, address);
                let neighbours = self.neighbourhoods.get(&waiting.link);
                let sent = neighbours.map(|it| it.check_duplicate(address));
                let counts = &mut self.homes[home].homecoming.counts;
                counts.asked += 1;
                counts.unsent += u64::from(!matches!(sent, Some(Ok(()))));
                waiting.asked = Some(self.now().monotonic + AGENT_ASKED);
            }
            self.homes[home].homecoming.waiting = Some(waiting);
        }
    }

    /// Whether the agent's place on the link is known, or asking does not help.
    async fn knows_agent(&self, home: usize, waiting: &Waiting) -> bool {
        let agent = self.homes[home].home.agent.0;
        let record = self.links.get(&waiting.link);
        let Some(Ok(attachment)) = record.map(|record| &record.state) else { return true };
        let index = attachment.index;
        if let Some(at) = waiting.agent_at {
            if let Err(error) = self.netlink.note_neighbour(index, agent, at.0).await {
                tracing::debug!(%error, "the agent's place on the home link is not noted");
            }
            return true;
        }
        if let Some(until) = waiting.asked {
            return until <= self.now().monotonic;
        }
        let on_link = attachment.on_link.iter().any(|net| net.contains(&agent));
        if !on_link || !self.neighbourhoods.contains_key(&waiting.link) {
            return true;
        }
        self.netlink.knows_neighbour(index, agent).await.unwrap_or(true)
    }
}

/// How the home address is answered for from here on.
#[derive(Clone, Copy, Debug)]
struct Answers {
    confirmed: bool,
    searching: bool,
    /// When the first announcement is due, if any is.
    from: Duration,
}
