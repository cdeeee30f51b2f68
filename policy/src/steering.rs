//! Steering: from rules, facts and time to what every rule says at present.
//!
//! A [`Steering`] is a machine without I/O, one for each home of a mobile. It is told [`Fact`]s,
//! each with the monotonic time at which it became known, and is woken at its
//! [`deadline`](Steering::deadline). It answers with an [`Effective`], the same one as long as
//! nothing changed, which is frozen into a snapshot and walked for packets. It never judges a
//! packet, reads no clock and sends nothing. What it says depends on the facts and their times
//! alone, not on when or how often it is woken: every deadline is acted on as of its own time.
//!
//! # Links
//!
//! `unknown -> up -> degraded -> down`, and `recovering` before `up` ([`LinkState`]). Bad news
//! counts at once, good news after a hold: events (carrier, care-of address, binding) take a link
//! down at once; figures do when they are beyond `leave` for `hold down`; probes do after two
//! losses in a row and a whole burst of five, with nothing authenticated heard meanwhile. A link
//! is up again when nothing has spoken against it for all of its recover hold, which each relapse
//! within 10 min doubles, up to 10 min. The first registration needs no hold. **Last link rule**:
//! verdicts and holds never take away the last link that packets can be sent by; it is used as
//! `degraded`, and its reason says so.
//!
//! A link is *degraded for a class* (`sla`) when it was over the class's limits in two of three
//! windows, until all windows of a recover hold were under them by 20 %. Only rules that name the
//! class mind.
//!
//! Operators and quotas make a link a **last choice** (drained; over a quota with `at-limit
//! last-resort`): no rule names it while its verb or its `otherwise` has another. Or they forbid
//! it (held; over a quota with `at-limit stop`), even as the last link.
//!
//! # Verbs
//!
//! Each verb comes to an [`Outcome`](crate::Outcome) that names usable links only.
//!
//! - `prefer a b c`: the links in this order.
//! - `balance a=3 b=1`: 256 buckets cut at the weights. Buckets of links that are away are given
//!   to the others by weight, all other buckets stay; a link that returns gets its own back.
//!   Where the home agent is told the rules, buckets are ranges of the mobile's ports
//!   ([`crate::Spread`]) if the rule's flows have such ports and stick one by one.
//! - `overflow a b full="85%"`: the links in this order, but full ones after the others. A link
//!   is full once its load is over `full`, until it is under 70 % (under seven eighths of `full`
//!   if that is less). Flows on a full link stay there; when it has room again, flows that
//!   were born elsewhere go back to it as `failback` says.
//! - `fastest a b margin="10%"`: the leader first. A challenger becomes leader when its smoothed
//!   round trip time has been lower by the margin (at least 5 ms) for 5 s; a leader that cannot
//!   be used is replaced at once. While nothing is measured the order counts instead. Flows
//!   follow the leader as `failback` says.
//! - `cheapest a b sla=voice`: those that are in the class, by cost; equal ones in this order.
//!   Unmetered links without `cost` cost nothing, metered ones more than any that is known.
//! - `duplicate a b copies=2 cap=…`: a copy by each of the first links. When further copies on
//!   metered links have used up `cap`, metered links carry a packet only where it is the first
//!   copy, until the quota period ends (the calendar month for links without a quota).
//! - `breakout a b`: the first attached link; registrations, probes and classes do not matter.
//! - `block`: refused, whatever the links do.
//!
//! `when` that is not met is [`Outcome::Unmet`](crate::Outcome::Unmet): what is written under
//! `otherwise` holds. A speed or a time that is not known meets no condition. `otherwise any`
//! names every usable link: the good ones by BID-PRI, then the degraded.
//!
//! # Back again
//!
//! [`Says::ripe`](crate::Says::ripe) names the links that flows may go back to: those that have
//! been in ordinary use for the rule's `after`. When a flow may move is said in [`moves`].
//! Flows of an override that ended go back in a gap.

mod buckets;
pub mod calendar;
mod contest;
mod facts;
mod given;
mod hold;
mod link;
mod link_state;
pub mod moves;
mod notice;
mod overrides;
mod quota;
mod service;
mod situation;
mod standing;
mod tracked;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use buckets::port_cut;
pub use calendar::{Day, LocalTime, Moment};
pub use facts::{Admin, Fact, Measurement, ProbeResult};
pub use given::{Given, GivenLink, GivenState, Supposed, suppose};
pub use link_state::{Cause, Figure, LinkReason, LinkState};
pub use moves::PathFigures;
pub use notice::{ClassReport, LinkReport, Notice, OverrideEnd};
pub use overrides::Override;
pub use quota::{Ledger, QuotaLevel, QuotaReport, QuotaState};
pub use standing::Bar;

use crate::effective::Effective;
use crate::link::Sla;
use crate::mobility::{Optimize, RouteOptimizationPlan};
use crate::policy::{Home, Policy, RuleSet};
use crate::radio::{Circle, Position};
use crate::terms::{Bid, RuleId, RuleName};
use crate::verb::Verb;
use calendar::LocalClock;
use contest::Contests;
use quota::Meter;
use situation::Situation;
use standing::Use;
use tracked::Tracked;

/// Notices that wait to be polled; older ones are dropped.
const MOST_NOTICES: usize = 1024;

/// The steering of one home network's mobile.
#[derive(Clone, Debug)]
pub struct Steering {
    rules: RuleSet,
    /// Whether packets of rules that do not say may go straight to correspondents.
    optimize: Option<Optimize>,
    /// Whether the home agent is told the rules (RFC 6089).
    told: bool,
    /// Rules with `when`, by place.
    conditional: Vec<usize>,
    /// The minutes of the day at which a `when` may change.
    boundaries: BTreeSet<u16>,
    /// Every `failback after` there is.
    afters: Vec<Duration>,
    links: Vec<Tracked>,
    last_link: Option<Bid>,
    contests: Contests,
    caps: Vec<Cap>,
    overrides: Vec<Override>,
    clock: LocalClock,
    speed: Option<u32>,
    position: Option<Position>,
    /// The surroundings that `when` names, and those among them in which the vehicle is.
    circles: BTreeSet<Circle>,
    inside: BTreeSet<Circle>,
    situation: Situation,
    /// The overrides are others than those in `effective`.
    steered: bool,
    effective: Arc<Effective>,
    now: Duration,
    deadline: Option<Duration>,
    notices: VecDeque<Notice>,
}

/// The `cap` of a `duplicate` rule.
#[derive(Clone, Debug)]
struct Cap {
    rule: RuleId,
    name: RuleName,
    meter: Meter,
}

impl Steering {
    /// The steering of a home whose links are unknown so far.
    pub fn new(policy: &Policy, home: &Home, now: Duration) -> Self {
        let rules = home.rules.clone();
        let named = classes(policy, &rules);
        let links = policy.interfaces.iter().filter_map(|interface| {
            Some(Tracked::new(now, interface.bid?, interface.clone(), &named))
        });
        let conditional = (0..).zip(&rules.rules).filter(|(_, rule)| !rule.when.is_empty());
        let conditional = conditional.map(|(at, _)| at).collect();
        let lines = rules.rules.iter().flat_map(|rule| &rule.when);
        let circles = lines.clone().filter_map(|line| line.near);
        let boundaries = lines.flat_map(|line| match (line.time, line.days) {
            (Some(span), _) => vec![span.from % 1440, span.until % 1440],
            (None, Some(_)) => vec![0],
            (None, None) => Vec::new(),
        });
        let mut steering = Self {
            conditional,
            boundaries: boundaries.collect(),
            afters: distinct(rules.rules.iter().map(|rule| rule.failback.after)),
            links: links.collect(),
            last_link: None,
            contests: Contests::of(&rules),
            caps: caps(policy, &rules),
            overrides: Vec::new(),
            clock: LocalClock::default(),
            speed: None,
            position: None,
            circles: circles.collect(),
            inside: BTreeSet::new(),
            situation: Situation::default(),
            steered: true,
            effective: Arc::default(),
            now,
            deadline: None,
            notices: VecDeque::new(),
            optimize: home.route_optimization.as_ref().map(RouteOptimizationPlan::unsaid),
            told: home.register.flow_bindings,
            rules,
        };
        steering.settle(now);
        steering
    }

    /// Goes over to another policy: links, quotas, races and overrides go on as they are.
    pub fn adopt(&mut self, policy: &Policy, home: &Home, now: Duration) {
        self.handle_deadline(now);
        let now = self.now;
        let mut next = Self::new(policy, home, now);
        let old = &*self;
        next.clock = old.clock;
        next.speed = old.speed;
        next.position = old.position;
        next.inside = next.inside(old.position, &old.inside);
        next.notices.clone_from(&old.notices);
        for link in &mut next.links {
            let name = &link.interface.name;
            if let Some(before) = old.links.iter().find(|before| before.interface.name == *name) {
                link.adopt(now, before);
            }
        }
        next.last_link = old.last_link;
        next.contests.adopt(&old.contests);
        for cap in &mut next.caps {
            if let Some(before) = old.caps.iter().find(|before| before.name == cap.name) {
                cap.meter.restore(before.meter.state);
            }
        }
        for steer in old.overrides.iter().cloned() {
            if next.links.iter().any(|link| link.bid == steer.bid) {
                next.overrides.push(steer);
            } else {
                let (steer, end) = (Box::new(steer), OverrideEnd::NoSuchLink);
                next.tell(Notice::OverrideEnded { steer, end });
            }
        }
        next.steered = true;
        next.advance(now);
        *self = next;
    }

    /// Gives back what [`Steering::ledger`] said before a restart.
    pub fn restore(&mut self, now: Duration, ledger: &Ledger) {
        self.handle_deadline(now);
        for link in &mut self.links {
            if let (Some(meter), Some(saved)) =
                (&mut link.meter, ledger.links.get(&link.interface.name))
            {
                meter.restore(*saved);
            }
            if let Some(admin) = ledger.admin.get(&link.interface.name) {
                link.admin = *admin;
            }
        }
        for cap in &mut self.caps {
            if let Some(saved) = ledger.copies.get(&cap.name) {
                cap.meter.restore(*saved);
            }
        }
        self.advance(self.now);
    }

    /// What has to survive a restart.
    pub fn ledger(&self) -> Ledger {
        let links = self
            .links
            .iter()
            .filter_map(|link| Some((link.interface.name.clone(), link.meter.as_ref()?.state)));
        let copies = self.caps.iter().map(|cap| (cap.name.clone(), cap.meter.state));
        let admin = self.links.iter().filter(|link| link.admin != Admin::Open);
        let admin = admin.map(|link| (link.interface.name.clone(), link.admin));
        Ledger { links: links.collect(), copies: copies.collect(), admin: admin.collect() }
    }

    /// Takes a fact.
    pub fn handle(&mut self, now: Duration, fact: Fact) {
        self.handle_deadline(now);
        let now = self.now;
        match fact {
            Fact::Speed(speed) => {
                self.speed = speed;
                self.links.iter_mut().for_each(|link| link.link.drives(now, speed));
            }
            Fact::Position(position) => {
                self.position = position;
                self.inside = self.inside(position, &self.inside);
                self.links.iter_mut().for_each(|link| link.link.is_at(now, position));
            }
            Fact::LocalTime(time) => self.clock.state(now, time),
            Fact::Copied { rule, octets } => {
                let copied = self.caps.iter_mut().find(|cap| cap.rule == rule);
                if let Some(cap) = copied {
                    cap.meter.add(octets);
                }
            }
            Fact::Steer(steer) => {
                self.end_overrides(OverrideEnd::Replaced, |known| known.id == steer.id);
                // The newest counts first.
                self.overrides.insert(0, *steer);
                self.steered = true;
            }
            Fact::Unsteer(id) => self.end_overrides(OverrideEnd::TakenBack, |steer| steer.id == id),
            Fact::Registered { bid, .. }
            | Fact::Refused { bid }
            | Fact::Attached { bid, .. }
            | Fact::Measured { bid, .. }
            | Fact::Probed { bid, .. }
            | Fact::Heard { bid }
            | Fact::Signal { bid, .. }
            | Fact::Radio { bid, .. }
            | Fact::Load { bid, .. }
            | Fact::Carried { bid, .. }
            | Fact::Admin { bid, .. } => {
                let Some(link) = self.links.iter_mut().find(|link| link.bid == bid) else {
                    return;
                };
                let burst_wanted = link.handle(now, &fact);
                self.contests.loaded(bid, link.load);
                if burst_wanted {
                    self.tell(Notice::BurstWanted { bid });
                }
            }
        }
        self.advance(now);
    }

    /// When [`Steering::handle_deadline`] is due; `None` if nothing happens by itself.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Acts on every deadline up to `now`, each as of its own time. Time never goes back.
    pub fn handle_deadline(&mut self, now: Duration) {
        while let Some(at) = self.deadline.filter(|at| *at <= now) {
            self.advance(at);
        }
        self.now = self.now.max(now);
    }

    /// What every rule says at present; the same list while nothing changed.
    pub fn effective(&self) -> Arc<Effective> {
        self.effective.clone()
    }

    /// Every link and all that is known of it, in the order of the file.
    pub fn links(&self) -> Vec<LinkReport> {
        let today = self.clock.day(self.now);
        let report = |link: &Tracked| link.report(&link.candidate(), &link.verdict, today);
        self.links.iter().map(report).collect()
    }

    /// Whether packets may be sent by the binding of this BID.
    pub fn usable(&self, bid: Bid) -> bool {
        self.situation.link(bid).is_some_and(|link| link.tunnel != Use::No)
    }

    /// Whether packets may leave by the link of this BID outside the tunnel.
    pub fn breaks_out(&self, bid: Bid) -> bool {
        self.situation.link(bid).is_some_and(|link| link.breakout != Use::No)
    }

    /// What moves to and from this link are judged by.
    pub fn figures(&self, bid: Bid) -> PathFigures {
        let link = self.links.iter().find(|link| link.bid == bid);
        link.map(|link| link.link.measured_last().figures()).unwrap_or_default()
    }

    /// The overrides in the order in which they are asked.
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// The next notice.
    pub fn poll(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Whether [`Self::poll`] has something.
    pub fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// Lets time pass up to `now`, which is no later than the next deadline.
    fn advance(&mut self, now: Duration) {
        let today = self.clock.day(now);
        for link in &mut self.links {
            link.advance(now, today);
        }
        if let Some(today) = today {
            self.caps.iter_mut().for_each(|cap| cap.meter.roll(today));
        }
        self.end_overrides(OverrideEnd::Expired, |steer| steer.until <= now);
        self.settle(now);
    }

    /// Judges all links together and the rules with them.
    fn settle(&mut self, now: Duration) {
        self.now = now;
        let candidates: Vec<_> = self.links.iter().map(Tracked::candidate).collect();
        let verdicts = standing::judge(&candidates, &mut self.last_link);
        let mut situation = Situation { told: self.told, ..Situation::default() };
        let mut notices = Vec::new();
        for ((link, candidate), verdict) in self.links.iter_mut().zip(&candidates).zip(verdicts) {
            let view = link.view(candidate, &verdict);
            notices.extend(link.judged(now, verdict));
            notices.extend(link.quota_notice());
            let ripe_for = link.ripe_for(now, &self.afters);
            situation.links.push(situation::LinkView { ripe_for, ..view });
        }
        notices.into_iter().for_each(|notice| self.tell(notice));
        for (terms, race) in &mut self.contests.races {
            let racing = situation.of_use(&terms.0, Use::Ordinary);
            let links = &self.links;
            let rtt = |bid| links.iter().find(|link| link.bid == bid)?.link.measured_last().rtt;
            race.judge(now, terms.1, &racing, rtt);
            situation.leaders.extend(race.leader.map(|leader| (terms.clone(), leader)));
        }
        situation.full = self.contests.full.clone();
        for at in 0..self.caps.len() {
            let cap = &mut self.caps[at];
            let level = cap.meter.level();
            if level == QuotaLevel::Reached {
                situation.capped.insert(cap.rule);
            }
            if std::mem::replace(&mut cap.meter.told, level) < level {
                let rule = cap.name.clone();
                self.tell(Notice::CapReached { rule });
            }
        }
        situation.unmet = self.unmet(&self.moment(now));
        if self.steered || situation != self.situation {
            self.steered = false;
            let effective = self.judge_rules(&situation);
            if effective != *self.effective {
                self.effective = Arc::new(effective);
            }
            self.situation = situation;
        }
        self.deadline = self.next_deadline(now);
    }

    /// What every rule says in a situation.
    fn judge_rules(&self, situation: &Situation) -> Effective {
        // An override does not know which rule it stands for, so what any rule keeps in the tunnel
        // stays there.
        let rules = &self.rules.rules;
        let forbids = rules.iter().any(|rule| rule.head.optimize == Some(Optimize::Never));
        let optimize = forbids.then_some(Optimize::Never);
        let steer = |steer: &Override| (steer.head(optimize), situation.override_says(steer));
        Effective {
            overrides: self.overrides.iter().map(steer).collect(),
            table: self.rules.table.clone(),
            says: self.rules.rules.iter().map(|rule| situation.says(rule)).collect(),
            optimize: self.optimize,
        }
    }

    fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let links = self.links.iter().filter_map(Tracked::deadline);
        let ripe = self.links.iter().flat_map(|link| link.ripens(&self.afters));
        let overrides = self.overrides.iter().map(|steer| steer.until);
        let times = links.chain(ripe).chain(overrides).chain(self.contests.deadline());
        times.chain(self.calendar_deadline(now)).filter(|at| *at > now).min()
    }

    /// When the calendar changes something: a `when` or a period.
    fn calendar_deadline(&self, now: Duration) -> Option<Duration> {
        let local = self.clock.at(now)?;
        let meters = self.links.iter().filter_map(|link| link.meter.as_ref());
        let meters = meters.chain(self.caps.iter().map(|cap| &cap.meter));
        let periods = meters.map(|meter| local.until_day(meter.next_period(local.day)));
        let minutes = self.boundaries.iter().map(|minute| local.until_minute(*minute));
        let waits = periods.chain(minutes).filter(|wait| !wait.is_zero());
        waits.min().map(|wait| now.saturating_add(wait))
    }

    fn moment(&self, now: Duration) -> Moment {
        let local = self.clock.at(now);
        Moment {
            speed: self.speed,
            position: self.position,
            inside: self.inside.clone(),
            minute: local.map(LocalTime::minute),
            weekday: local.map(|local| local.day.weekday()),
        }
    }

    /// The surroundings in which a vehicle is that was in these before.
    fn inside(&self, position: Option<Position>, before: &BTreeSet<Circle>) -> BTreeSet<Circle> {
        let holds = |circle: &&Circle| {
            position.is_some_and(|position| circle.holds(position, before.contains(*circle)))
        };
        self.circles.iter().filter(holds).copied().collect()
    }

    fn unmet(&self, moment: &Moment) -> BTreeSet<RuleId> {
        let rules = self.conditional.iter().map(|at| &self.rules.rules[*at]);
        rules.filter(|rule| !moment.meets(&rule.when)).map(|rule| rule.id()).collect()
    }

    fn end_overrides(&mut self, end: OverrideEnd, ends: impl Fn(&Override) -> bool) {
        let (ended, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.overrides).into_iter().partition(ends);
        self.overrides = left;
        self.steered |= !ended.is_empty();
        for steer in ended.into_iter().map(Box::new) {
            self.tell(Notice::OverrideEnded { steer, end });
        }
    }

    fn tell(&mut self, notice: Notice) {
        if self.notices.len() >= MOST_NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }
}

/// The classes that rules name.
fn classes(policy: &Policy, rules: &RuleSet) -> Vec<Sla> {
    let verbs = || rules.rules.iter().flat_map(contest::verbs);
    let named = |class: &&Sla| {
        let names = |verb: &Verb| matches!(verb, Verb::Cheapest { sla: Some(name), .. } if *name == class.name);
        verbs().any(names)
    };
    policy.slas.iter().filter(named).cloned().collect()
}

/// The caps that rules name.
fn caps(policy: &Policy, rules: &RuleSet) -> Vec<Cap> {
    let mut caps = Vec::new();
    for rule in &rules.rules {
        let verb = contest::verbs(rule).find_map(|verb| match verb {
            Verb::Duplicate { links, cap: Some(cap), .. } => Some((links, *cap)),
            _ => None,
        });
        let Some((links, cap)) = verb else { continue };
        let metered = links.iter().filter_map(|bid| policy.interface_of(*bid));
        let quota = metered.filter(|link| link.metered).find_map(|link| link.quota.as_ref());
        let meter = Meter::new(quota::cap_quota(cap, quota));
        caps.push(Cap { rule: rule.id(), name: rule.name().clone(), meter });
    }
    caps
}

fn distinct(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    times.collect::<BTreeSet<_>>().into_iter().collect()
}
