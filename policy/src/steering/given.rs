//! Questions: what would the rules say if things were as stated?
//!
//! `explain … given`, the policy file's own tests and `explain` without a daemon ask them. The
//! answer has no memory: a figure counts as it is stated, without hysteresis, windows and holds,
//! and `fastest` is led by the lowest round trip time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Steering;
use super::calendar::Moment;
use super::contest::{is_full, quickest};
use super::facts::{Admin, Fact, Measurement};
use super::link::{Standing, beyond};
use super::link_state::Cause;
use super::notice::LinkReport;
use super::service::misses;
use super::situation::LinkView;
use super::standing::{Bar, Candidate, Use, judge};
use super::tracked::Tracked;
use crate::effective::{Effective, Usable};
use crate::link::{AtLimit, Ratio};
use crate::policy::{Home, Policy};
use crate::radio::Position;
use crate::terms::{Bid, ClassName};

/// What a question supposes; the rest is as it is, or without a daemon: every link is up, and
/// neither speed, position nor time are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// By link.
    pub links: BTreeMap<Bid, GivenLink>,
    /// The vehicle's speed in hundredths of a metre per second.
    pub speed: Option<u32>,
    /// Where the vehicle is.
    pub position: Option<Position>,
    /// Minute of the local day.
    pub minute: Option<u16>,
    /// Day of the week, 0 for Monday.
    pub weekday: Option<u8>,
}

impl Given {
    /// Whether nothing is supposed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Supposes a state of a link.
    #[must_use]
    pub fn with(mut self, bid: Bid, state: GivenState) -> Self {
        self.links.entry(bid).or_default().state = Some(state);
        self
    }
}

/// What a question supposes of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenLink {
    /// `wlan0=…`.
    pub state: Option<GivenState>,
    /// `wlan0.rtt=…`.
    pub rtt: Option<Duration>,
    /// `wlan0.jitter=…`.
    pub jitter: Option<Duration>,
    /// `wlan0.loss=…`.
    pub loss: Option<Ratio>,
    /// `wlan0.load=…`, of its rate.
    pub load: Option<Ratio>,
}

/// The states that a question may suppose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GivenState {
    /// Registered, attached and good.
    Up,
    /// Good for rules that name no class: it misses every service level class.
    Degraded,
    /// Neither registered nor attached.
    Down,
    /// An operator wants it to run empty.
    Drained,
    /// An operator does not want it used.
    Held,
    /// Its quota is used up; without a quota in the file: a last resort.
    OverQuota,
    /// Good again, and held back: used only as the last link.
    Recovering,
}

impl GivenState {
    /// All of them, in the order in which people are told of them.
    pub const ALL: [Self; 7] = [
        Self::Up,
        Self::Degraded,
        Self::Down,
        Self::Drained,
        Self::Held,
        Self::OverQuota,
        Self::Recovering,
    ];

    /// The state that `given wlan0=…` names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Drained => "drained",
            Self::Held => "held",
            Self::OverQuota => "over-quota",
            Self::Recovering => "recovering",
        }
    }
}

impl std::fmt::Display for GivenState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// The rules and links as a question supposes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supposed {
    /// What the rules would say.
    pub effective: Arc<Effective>,
    /// How the links would stand.
    pub links: Vec<LinkReport>,
    /// The moment by which `when` would be judged.
    pub moment: Moment,
    preferred: Option<Bid>,
    attached: Vec<Bid>,
}

impl Usable for Supposed {
    fn usable(&self, bid: Bid) -> bool {
        self.links.iter().any(|link| link.bid == bid && link.usable)
    }

    fn preferred(&self) -> Option<Bid> {
        self.preferred
    }

    fn attached(&self, bid: Bid) -> bool {
        self.attached.contains(&bid)
    }
}

/// The rules of a home with every link up, except for what is supposed.
pub fn suppose(policy: &Policy, home: &Home, given: &Given) -> Supposed {
    let now = Duration::ZERO;
    let mut steering = Steering::new(policy, home, now);
    for bid in policy.interfaces.iter().filter_map(|interface| interface.bid) {
        steering.handle(now, Fact::Attached { bid, attached: true });
        steering.handle(now, Fact::Registered { bid, registered: true });
    }
    // They have been up for ever: every flow may go back to them.
    while let Some(at) = steering.deadline() {
        steering.handle_deadline(at);
    }
    steering.suppose(given)
}

impl Steering {
    /// What the rules would say at present if things were as supposed.
    pub fn suppose(&self, given: &Given) -> Supposed {
        let figures = |bid: Bid| {
            let given = given.links.get(&bid).copied().unwrap_or_default();
            let link = self.links.iter().find(|link| link.bid == bid);
            let mut measured = link.map(|link| *link.link.measured_last()).unwrap_or_default();
            measured.update(&stated(&given));
            measured
        };
        let candidates: Vec<Candidate> = self
            .links
            .iter()
            .map(|link| {
                let given = given.links.get(&link.bid).copied().unwrap_or_default();
                supposed_candidate(link, &given, &figures(link.bid))
            })
            .collect();
        let verdicts = judge(&candidates, &mut self.last_link.clone());

        let mut situation = self.situation.clone();
        situation.links = Vec::new();
        for ((link, candidate), verdict) in self.links.iter().zip(&candidates).zip(&verdicts) {
            let as_it_is = *candidate == link.candidate();
            let ripe_for = match as_it_is {
                true => link.ripe_for(self.now, &self.afters),
                false => Some(Duration::MAX),
            };
            situation.links.push(LinkView { ripe_for, ..link.view(candidate, verdict) });
        }
        let rtt_given = given.links.values().any(|link| link.rtt.is_some());
        situation.leaders.clear();
        for (terms, race) in &self.contests.races {
            let racing = situation.of_use(&terms.0, Use::Ordinary);
            let leads = race.leader.filter(|leader| !rtt_given && racing.contains(leader));
            if let Some(leader) = leads.or_else(|| quickest(&racing, |bid| figures(bid).rtt)) {
                situation.leaders.insert(terms.clone(), leader);
            }
        }
        for ((links, full), full_links) in &mut situation.full {
            for bid in links {
                match given.links.get(bid).and_then(|given| given.load) {
                    Some(load) if is_full(false, load, *full) => full_links.insert(*bid),
                    Some(_) => full_links.remove(bid),
                    None => false,
                };
            }
        }
        let present = self.moment(self.now);
        let moment = Moment {
            speed: given.speed.or(present.speed),
            position: given.position.or(present.position),
            // A question has no memory of where the vehicle was.
            inside: match given.position {
                Some(_) => self.inside(given.position, &BTreeSet::new()),
                None => present.inside,
            },
            minute: given.minute.or(present.minute),
            weekday: given.weekday.or(present.weekday),
        };
        situation.unmet = self.unmet(&moment);

        let used = |tunnel| situation.links.iter().filter(move |link| link.tunnel == tunnel);
        let by_priority = |link: &&LinkView| (link.degraded, link.priority, link.bid);
        let preferred = used(Use::Ordinary)
            .min_by_key(by_priority)
            .or_else(|| used(Use::LastChoice).min_by_key(by_priority))
            .map(|link| link.bid);
        let breakout = situation.links.iter().filter(|link| link.breakout != Use::No);
        let attached = breakout.map(|link| link.bid).collect();
        let today = self.clock.day(self.now);
        let report = self.links.iter().zip(&candidates).zip(&verdicts);
        let links = report
            .map(|((link, candidate), verdict)| {
                let mut report = link.report(candidate, verdict, today);
                report.measured = figures(link.bid);
                let stated = given.links.get(&link.bid).copied().unwrap_or_default();
                report.load = stated.load.or(report.load);
                report.registered = candidate.can_be_sent_by;
                report
            })
            .collect();
        let effective = match situation == self.situation {
            true => self.effective.clone(),
            false => Arc::new(self.judge_rules(&situation)),
        };
        Supposed { effective, links, moment, preferred, attached }
    }
}

fn stated(given: &GivenLink) -> Measurement {
    Measurement { rtt: given.rtt, rtt_p95: None, jitter: given.jitter, loss: given.loss }
}

/// A link as it is, except for what is supposed of it.
fn supposed_candidate(link: &Tracked, given: &GivenLink, figures: &Measurement) -> Candidate {
    let mut candidate = link.candidate();
    let classes = || link.services.iter().map(|service| service.sla());
    let stated_figures = stated(given);
    if stated_figures != Measurement::default() {
        let missed = classes().filter(|class| misses(class, figures));
        candidate.misses = missed.map(|class| ClassName::from(class.name.as_str())).collect();
    }
    let beyond = beyond(&link.interface.usable, &stated_figures)
        .map(|figure| Standing::Bad { cause: Cause::Beyond(figure), since: Duration::ZERO });
    candidate.standing = beyond.unwrap_or(candidate.standing);
    let Some(state) = given.state else {
        return candidate;
    };
    let good = Candidate {
        // Figures that are supposed too are held against it.
        standing: beyond.unwrap_or(Standing::Good),
        can_be_sent_by: true,
        attached: true,
        bar: None,
        degraded: false,
        ..candidate.clone()
    };
    let bar = |bar| Candidate { bar: Some(bar), ..good.clone() };
    let detached = Cause::Detached;
    match state {
        GivenState::Up if stated_figures != Measurement::default() => good,
        GivenState::Up => Candidate { misses: BTreeSet::new(), ..good },
        GivenState::Degraded => {
            let misses = classes().map(|class| ClassName::from(class.name.as_str())).collect();
            Candidate { misses, degraded: true, ..good }
        }
        GivenState::Down => Candidate {
            standing: Standing::Bad { cause: detached, since: Duration::ZERO },
            can_be_sent_by: false,
            attached: false,
            ..good
        },
        GivenState::Recovering => Candidate {
            standing: Standing::Holding { cause: detached, until: Duration::MAX },
            ..good
        },
        GivenState::Drained => bar(Bar::Drained),
        GivenState::Held => bar(Bar::Held),
        GivenState::OverQuota => {
            let at_limit = link.meter.as_ref().map(|meter| meter.quota.at_limit);
            let used_up = Bar::of(Admin::Open, Some(at_limit.unwrap_or(AtLimit::LastResort)));
            Candidate { bar: used_up, ..good }
        }
    }
}
