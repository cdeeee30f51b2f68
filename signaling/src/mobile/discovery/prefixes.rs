//! Mobile prefix discovery, from the mobile's side (RFC 6275 §11.4.2, §11.4.3).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun_policy::{Bid, CareOfAddress, HomeAddress, HomeAgentAddress};

use super::{Uplinks, doubled};
use crate::binding::is_routable;
use crate::machine::{Envelope, Machine, Transmit};
use crate::registration::MAX_BINDACK_TIMEOUT;
use crate::seed::Seed;
use crate::time::Timestamp;
use crate::wire::icmpv6::{
    self, IcmpError, IcmpMessage, MobilePrefixAdvertisement, MobilePrefixSolicitation,
    PrefixInformation,
};

/// First wait for an advertisement, doubled each time up to 32 s (RFC 6275 §11.8, §12).
pub const INITIAL_SOLICIT_TIMER: Duration = Duration::from_secs(3);
/// Solicitations without an answer before a pause.
const MAX_SOLICITATIONS: u32 = 5;
/// The pause, and the least time between solicitations that somebody else's message brings about.
const PAUSE: Duration = Duration::from_secs(600);
const GUARD: Duration = Duration::from_secs(10);
/// The home address is asked about this long before it becomes invalid, or at its last quarter.
const LEAD: Duration = Duration::from_secs(3600);
/// And not more often than this, when the answer is always the same.
const LEAST_INTERVAL: Duration = Duration::from_secs(60);
/// What nobody unauthenticated may shorten a lifetime below (RFC 4862 §5.5.3).
const TWO_HOURS: Duration = Duration::from_secs(7200);
/// Most prefixes kept; a home link has a few.
const MAX_PREFIXES: usize = 16;

/// What must be known to ask.
#[derive(Clone, Debug)]
pub struct PrefixDiscoveryConfig {
    /// The home address.
    pub home_address: HomeAddress,
    /// The agent that it is registered with.
    pub agent: HomeAgentAddress,
}

/// What may happen.
#[derive(Clone, Debug)]
pub enum PrefixDiscoveryEvent {
    /// The agent says that the prefixes changed (status 1), or somebody wants to know.
    Wanted,
    /// The home registration is with this agent.
    Agent(HomeAgentAddress),
    /// The agent holds this care-of address.
    CareOfUp {
        /// The uplink's BID.
        bid: Bid,
        /// BID-PRI, lower is better.
        priority: u8,
        /// The address.
        care_of: CareOfAddress,
    },
    /// It does not any more.
    CareOfDown {
        /// The uplink's BID.
        bid: Bid,
    },
    /// An ICMPv6 message of type 147 arrived.
    Received {
        /// The addresses of its packet.
        envelope: Envelope,
        /// The whole message.
        message: Vec<u8>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrefixDiscoveryOutput {
    /// Send this ICMPv6 message.
    Transmit(Transmit),
    /// The home link's prefixes are other ones, or for another time: read
    /// [`PrefixDiscovery::prefixes`].
    Changed,
    /// Something for the log and the counters.
    Notice(PrefixDiscoveryNotice),
}

/// Something that an operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixDiscoveryNotice {
    /// A message that is none.
    Undecodable(IcmpError),
    /// An advertisement from another node than our agent, to another address than ours, or
    /// without a type 2 routing header.
    WrongWay,
    /// An advertisement that nobody asked for; it makes us ask.
    Unsolicited,
    /// The agent leaves solicitations unanswered; asked again after this time.
    NoAnswer(Duration),
    /// The prefix of the home address ran out.
    HomeAddressInvalid,
}

/// A prefix of the home link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomePrefix {
    /// The prefix.
    pub prefix: Ipv6Net,
    /// Until when its addresses are valid, on the monotonic clock; `None` is for ever.
    pub valid_until: Option<Duration>,
    /// Until when new connections may use them.
    pub preferred_until: Option<Duration>,
}

/// A solicitation that waits for its advertisement.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    identifier: u16,
    tries: u32,
    timer: Duration,
}

/// Knows the prefixes of the home link.
#[derive(Debug)]
pub struct PrefixDiscovery {
    config: PrefixDiscoveryConfig,
    seed: Seed,
    uplinks: Uplinks,
    prefixes: BTreeMap<Ipv6Net, HomePrefix>,
    /// When to ask next.
    due: Option<Duration>,
    waiting: Option<Waiting>,
    last_sent: Option<Duration>,
    out: VecDeque<PrefixDiscoveryOutput>,
}

impl PrefixDiscovery {
    /// Knows nothing, and asks when it is wanted.
    pub fn new(config: PrefixDiscoveryConfig, seed: Seed) -> Self {
        Self {
            config,
            seed,
            uplinks: Uplinks::default(),
            prefixes: BTreeMap::new(),
            due: None,
            waiting: None,
            last_sent: None,
            out: VecDeque::new(),
        }
    }

    /// What the home link has, by prefix.
    pub fn prefixes(&self) -> impl Iterator<Item = &HomePrefix> {
        self.prefixes.values()
    }

    fn notice(&mut self, notice: PrefixDiscoveryNotice) {
        self.out.push_back(PrefixDiscoveryOutput::Notice(notice));
    }

    /// The prefix that the home address lies in.
    fn home_prefix(&self) -> Option<&HomePrefix> {
        let home_address = self.config.home_address.0;
        let covering = self.prefixes.values().filter(|known| known.prefix.contains(&home_address));
        covering.max_by_key(|known| known.prefix.prefix_len())
    }

    fn proceed(&mut self, now: Duration) {
        self.expire(now);
        if self.waiting.is_none() && self.due.is_some_and(|due| due <= now) {
            self.solicit(now, 0);
        }
    }

    fn expire(&mut self, now: Duration) {
        let ended = |known: &HomePrefix| known.valid_until.is_some_and(|until| until <= now);
        if !self.prefixes.values().any(ended) {
            return;
        }
        let home = self.home_prefix().is_some_and(ended);
        self.prefixes.retain(|_, known| !ended(known));
        self.out.push_back(PrefixDiscoveryOutput::Changed);
        if home {
            self.notice(PrefixDiscoveryNotice::HomeAddressInvalid);
        }
    }

    fn solicit(&mut self, now: Duration, tries: u32) {
        self.waiting = None;
        let Some((bid, source)) = self.uplinks.pick(tries) else { return };
        // req MN-28 (RFC 6275 §11.4.2): a random identifier, and the Home Address option.
        let identifier = u16::from_be_bytes(self.seed.draw());
        let envelope = Envelope {
            home_address: Some(self.config.home_address),
            ..Envelope::plain(source, self.config.agent.0)
        };
        let solicitation = MobilePrefixSolicitation { identifier };
        let message = icmpv6::emit(&IcmpMessage::MobilePrefixSolicitation(solicitation), &envelope);
        let timer = now + doubled(INITIAL_SOLICIT_TIMER, tries, MAX_BINDACK_TIMEOUT);
        self.waiting = Some(Waiting { identifier, tries: tries + 1, timer });
        self.due = None;
        self.last_sent = Some(now);
        let path = Some(bid);
        self.out.push_back(PrefixDiscoveryOutput::Transmit(Transmit { envelope, path, message }));
    }

    fn received(&mut self, now: Duration, envelope: &Envelope, message: &[u8]) {
        let advertisement = match icmpv6::receive(envelope, message) {
            Ok(IcmpMessage::MobilePrefixAdvertisement(advertisement)) => advertisement,
            Ok(_) => return self.notice(PrefixDiscoveryNotice::WrongWay),
            Err(error) => return self.notice(PrefixDiscoveryNotice::Undecodable(error)),
        };
        // req MN-28, R-MN-18 (RFC 6275 §11.4.3).
        if envelope.source != self.config.agent.0
            || envelope.routing_header != Some(self.config.home_address)
            || !self.uplinks.has(envelope.destination)
        {
            return self.notice(PrefixDiscoveryNotice::WrongWay);
        }
        let solicited =
            self.waiting.is_some_and(|waiting| waiting.identifier == advertisement.identifier);
        if !solicited {
            // req MN-28, R-MN-18 (RFC 6275 §11.4.3): thrown away, and asked for.
            if self.waiting.is_none() {
                let earliest = self.last_sent.map_or(now, |last| (last + GUARD).max(now));
                self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
            }
            return self.notice(PrefixDiscoveryNotice::Unsolicited);
        }
        self.waiting = None;
        self.take(now, &advertisement);
    }

    fn take(&mut self, now: Duration, advertisement: &MobilePrefixAdvertisement) {
        let before = self.prefixes.clone();
        for information in &advertisement.prefixes {
            let prefix = information.prefix();
            let room = self.prefixes.contains_key(&prefix) || self.prefixes.len() < MAX_PREFIXES;
            if prefix.prefix_len() > 0 && is_routable(prefix.addr()) && room {
                self.learn(now, prefix, information);
            }
        }
        if before != self.prefixes {
            self.out.push_back(PrefixDiscoveryOutput::Changed);
        }
        // req MN-28 (RFC 6275 §11.4.2): before the home address becomes invalid, a few times.
        let until = self.home_prefix().and_then(|home| home.valid_until);
        self.due = until.and_then(|until| {
            let lead = (until.saturating_sub(now) / 4).min(LEAD);
            Some((until - lead).max(now + LEAST_INTERVAL)).filter(|due| *due < until)
        });
    }

    fn learn(&mut self, now: Duration, prefix: Ipv6Net, information: &PrefixInformation) {
        let until = |seconds: u32| {
            let lasts = seconds != PrefixInformation::INFINITE;
            lasts.then(|| now + Duration::from_secs(seconds.into()))
        };
        let (mut valid, preferred) = (until(information.valid), until(information.preferred));
        // RFC 4862 §5.5.3: as on the home link, a lifetime is not cut below two hours by a
        // message that proves nothing.
        if let Some(known) = self.prefixes.get(&prefix) {
            let least = now + TWO_HOURS;
            let least = known.valid_until.map_or(least, |until| until.min(least));
            valid = valid.map(|until| until.max(least));
        } else if information.valid == 0 {
            return;
        }
        let preferred_until = match (preferred, valid) {
            (None, valid) => valid,
            (preferred, None) => preferred,
            (Some(preferred), Some(valid)) => Some(preferred.min(valid)),
        };
        let known = HomePrefix { prefix, valid_until: valid, preferred_until };
        self.prefixes.insert(prefix, known);
    }
}

impl Machine for PrefixDiscovery {
    type Event = PrefixDiscoveryEvent;
    type Output = PrefixDiscoveryOutput;

    fn handle(&mut self, now: Timestamp, event: PrefixDiscoveryEvent) {
        let now = now.monotonic;
        match event {
            // req MN-08 (RFC 6275 §11.7.3): status 1 is such a reason.
            PrefixDiscoveryEvent::Wanted => {
                self.due = self.waiting.is_none().then_some(now);
            }
            PrefixDiscoveryEvent::Agent(agent) => {
                if self.config.agent != agent {
                    self.config.agent = agent;
                    let asked = self.waiting.take().is_some();
                    self.due = if asked { Some(now) } else { self.due };
                }
            }
            PrefixDiscoveryEvent::CareOfUp { bid, priority, care_of } => {
                self.uplinks.up(bid, priority, care_of);
            }
            PrefixDiscoveryEvent::CareOfDown { bid } => self.uplinks.down(bid),
            PrefixDiscoveryEvent::Received { envelope, message } => {
                self.received(now, &envelope, &message);
            }
        }
        self.proceed(now);
    }

    fn handle_deadline(&mut self, now: Timestamp) {
        let now = now.monotonic;
        if let Some(Waiting { tries, timer, .. }) = self.waiting
            && timer <= now
        {
            self.waiting = None;
            if tries < MAX_SOLICITATIONS {
                self.due = Some(now);
                self.solicit(now, tries);
            } else {
                self.due = Some(now + PAUSE);
                self.notice(PrefixDiscoveryNotice::NoAnswer(PAUSE));
            }
        }
        self.proceed(now);
    }

    fn poll(&mut self) -> Option<PrefixDiscoveryOutput> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Duration> {
        let expiries = self.prefixes.values().filter_map(|known| known.valid_until);
        let reachable = self.uplinks.pick(0).is_some();
        let next = match &self.waiting {
            Some(waiting) => Some(waiting.timer),
            None => self.due.filter(|_| reachable),
        };
        expiries.chain(next).min()
    }
}

impl fmt::Display for PrefixDiscoveryNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undecodable(error) => write!(f, "ignored a message: {error}"),
            Self::WrongWay => {
                f.write_str("ignored an advertisement that did not come from our agent to us")
            }
            Self::Unsolicited => f.write_str("ignored an unsolicited advertisement; asking"),
            Self::NoAnswer(pause) => {
                write!(f, "the agent says nothing about prefixes; next try in {pause:?}")
            }
            Self::HomeAddressInvalid => f.write_str("the home address is not valid any more"),
        }
    }
}
