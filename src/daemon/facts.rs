//! What steering is told, and what it tells.
//!
//! The owner loop knows of links, bindings, octets and the time; steering knows what follows from
//! them for every rule. Everything passes through [`Owner::publish_home`]: first steering is
//! told what changed, then packets read what it says, then flows without packets are judged
//! anew, and only then are people told.

use std::collections::BTreeMap;
use std::time::Duration;

use mtun_dataplane::{Direction, PathId};
use mtun_policy::steering::{Fact, LocalTime, Notice, OverrideEnd, Steering};
use mtun_policy::{Bid, Fallback, Otherwise, Outcome, Ratio, Rule, RuleId, Says, Verb};
use mtun_signaling::binding::{BindingUpdateList, BindingUpdateListEntry};
use mtun_signaling::registration::Phase;

use super::ledger::Ledgers;
use super::owner::Owner;
use crate::control::documents::Event;

/// How often counters are read, local time is looked at and rates are made.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// What was counted is written down after this time at the latest.
const KEEP_AFTER: Duration = Duration::from_secs(10);

/// What steering was last told of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    registered: bool,
    refused: bool,
    attached: bool,
}

/// What steering of one home was last told.
#[derive(Clone, Debug, Default)]
pub(super) struct Told(BTreeMap<Bid, Known>);

impl Told {
    /// Tells steering what is different now.
    pub fn tell(
        &mut self,
        steering: &mut Steering,
        now: Duration,
        list: &BindingUpdateList,
        bids: impl Iterator<Item = Bid>,
        attached: impl Fn(Bid) -> bool,
    ) {
        for bid in bids {
            let entry = list.entries.iter().find(|entry| entry.bid == bid);
            let registered = entry.is_some_and(BindingUpdateListEntry::is_registered);
            let present = Known {
                registered,
                refused: !registered && entry.is_some_and(|it| it.phase == Phase::Refused),
                attached: attached(bid),
            };
            let known = self.0.entry(bid).or_default();
            // Bad news first: a link that loses its carrier and its binding lost its carrier.
            if known.attached != present.attached {
                steering.handle(now, Fact::Attached { bid, attached: present.attached });
            }
            if present.refused && !known.refused {
                steering.handle(now, Fact::Refused { bid });
            }
            if known.registered != present.registered {
                steering.handle(now, Fact::Registered { bid, registered: present.registered });
            }
            *known = present;
        }
    }
}

/// What was counted, and what of it steering and the disk know.
#[derive(Debug, Default)]
pub(super) struct Counted {
    links: BTreeMap<Bid, LinkCount>,
    /// Octets of each home's rules with a cap, by link.
    copies: BTreeMap<(usize, RuleId, Bid, Direction), u64>,
    /// When the links were last looked at for their rates.
    rated: Duration,
    /// When counters were last written down.
    kept: Duration,
    /// Whether something was carried since then.
    dirty: bool,
    /// The minute of local time that was last stated.
    stated: Option<(mtun_policy::steering::Day, u16)>,
    /// When this is due again.
    pub next: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct LinkCount {
    /// What steering knows of.
    carried: u64,
    /// Sent and received when the rate was last made.
    rated: (u64, u64),
    /// Octets a second, the busier direction, smoothed.
    rate: f64,
}

impl Counted {
    /// Something else of what is written down changed.
    pub(super) fn changed(&mut self) {
        self.dirty = true;
    }
}

/// Whether a rule, or what it says otherwise, has a `cap`.
fn has_cap(rule: &Rule) -> bool {
    let capped = |verb: &Verb| matches!(verb, Verb::Duplicate { cap: Some(_), .. });
    capped(&rule.verb) || matches!(&rule.otherwise, Fallback::Then(verb) if capped(verb))
}

/// The link that carries the packet itself where a rule sends copies at present.
fn first_of_copies(says: &Says) -> Option<Bid> {
    let otherwise = match &says.otherwise {
        Otherwise::Then(outcome) => Some(outcome),
        Otherwise::NextRule | Otherwise::Any => None,
    };
    [Some(&says.outcome), otherwise].into_iter().flatten().find_map(|outcome| match outcome {
        Outcome::Copies { links, .. } => links.first().copied(),
        _ => None,
    })
}

impl Owner {
    /// The links that may be registered.
    fn bids(&self) -> Vec<Bid> {
        self.policy.interfaces.iter().filter_map(|interface| interface.bid).collect()
    }

    /// Whether packets can leave by the link of this BID.
    pub(super) fn is_attached(&self, bid: Bid) -> bool {
        let record = self.policy.interface_of(bid).and_then(|it| self.links.get(&it.name));
        record.is_some_and(|record| record.state.is_ok())
    }

    /// Tells the steering of a home what changed of its links and bindings.
    pub(super) fn tell_steering(&mut self, home: usize, now: Duration) {
        let bids = self.bids();
        let attached: BTreeMap<Bid, bool> =
            bids.iter().map(|bid| (*bid, self.is_attached(*bid))).collect();
        let it = &mut self.homes[home];
        let list = it.node.update_list();
        it.told.tell(&mut it.steering, now, &list, bids.into_iter(), |bid| attached[&bid]);
        it.steering.handle_deadline(now);
    }

    /// Tells every steering the same.
    pub(super) fn tell_all_steerings(&mut self, now: Duration, fact: &Fact) {
        for home in &mut self.homes {
            home.steering.handle(now, fact.clone());
        }
    }

    /// Has every further stretch of octets reported on links whose octets are counted.
    pub(super) fn watch_octets(&self) {
        for interface in &self.policy.interfaces {
            if let Some(bid) = interface.bid {
                let octets = self.shared.paths.octets(PathId(bid.get()));
                octets.watch(interface.quota.is_some());
            }
        }
    }

    /// Reads the counters of the links, once a second and after every further stretch.
    pub(super) fn count_octets(&mut self) {
        let now = self.now().monotonic;
        let rating = now.saturating_sub(self.counted.rated);
        let mut facts = Vec::new();
        for interface in &self.policy.interfaces {
            let Some(bid) = interface.bid else { continue };
            let (sent, received) = self.shared.paths.octets(PathId(bid.get())).read();
            let count = self.counted.links.entry(bid).or_default();
            let octets = (sent + received).saturating_sub(count.carried);
            if octets > 0 {
                count.carried = sent + received;
                self.counted.dirty = true;
                facts.push(Fact::Carried { bid, octets });
            }
            if rating < TICK {
                continue;
            }
            let most = (sent - count.rated.0).max(received - count.rated.1);
            let rate = most as f64 / rating.as_secs_f64();
            // Half of what was, half of what is: a second's burst does not fill a link.
            count.rate = (count.rate + rate) / 2.0;
            count.rated = (sent, received);
            if let Some(bits) = interface.rate {
                let share = count.rate * 8.0 / bits.max(1) as f64;
                let load = Ratio((share * 10_000.0).clamp(0.0, 10_000.0) as u16);
                facts.push(Fact::Load { bid, load });
            }
        }
        if rating >= TICK {
            self.counted.rated = now;
            self.count_copies(now);
        }
        for fact in &facts {
            self.tell_all_steerings(now, fact);
        }
    }

    /// Tells steering what further copies metered links carried, for rules with a cap, in both
    /// directions and each copy that came. The first of a rule's links carries the packet itself;
    /// what others carry are copies.
    fn count_copies(&mut self, now: Duration) {
        for (place, home) in self.homes.iter_mut().enumerate() {
            let capped = |id: RuleId| home.home.rules.get(id).is_some_and(has_cap);
            if !home.home.rules.rules.iter().any(has_cap) {
                continue;
            }
            let mut facts = Vec::new();
            for copied in home.tunnel.lane.engine.counters().snapshot().copies {
                let (Some(rule), Some(bid)) = (copied.rule, copied.bid) else { continue };
                if !capped(rule) {
                    continue;
                }
                let series = (place, rule, bid, copied.direction);
                let known = self.counted.copies.entry(series).or_default();
                let octets =
                    copied.bytes - std::mem::replace(known, copied.bytes).min(copied.bytes);
                let metered = self.policy.interface_of(bid).is_some_and(|it| it.metered);
                let first = home.effective.rule(rule).and_then(|it| first_of_copies(it.says));
                if octets > 0 && metered && first != Some(bid) {
                    facts.push(Fact::Copied { rule, octets });
                }
            }
            for fact in facts {
                self.counted.dirty = true;
                home.steering.handle(now, fact);
            }
        }
    }

    /// What is due every second, whatever happens.
    pub(super) fn tick(&mut self) {
        let now = self.now().monotonic;
        self.counted.next = now + TICK;
        self.count_octets();
        self.state_time(now);
        for home in 0..self.homes.len() {
            self.look_for_traffic(home, now);
        }
        self.age_facts(now);
        self.path_mtus(now);
        self.publish_homes();
        if now.saturating_sub(self.counted.kept) >= KEEP_AFTER {
            self.keep_ledgers();
        }
    }

    /// A watched link carried a further stretch: steering knows and the disk is told.
    pub(super) fn carried(&mut self) {
        self.count_octets();
        self.publish_homes();
        self.keep_ledgers();
    }

    /// States local time when its minute is another than the last: every minute, and after every
    /// step of the clock and every change of the time zone that is worth telling.
    pub(super) fn state_time(&mut self, now: Duration) {
        let local: LocalTime = self.shared.clock.local();
        let minute = (local.day, local.minute());
        if self.counted.stated != Some(minute) {
            self.counted.stated = Some(minute);
            self.tell_all_steerings(now, &Fact::LocalTime(local));
        }
    }

    /// Has what was counted written down, if it changed.
    pub(super) fn keep_ledgers(&mut self) {
        self.counted.kept = self.now().monotonic;
        if std::mem::take(&mut self.counted.dirty) {
            let ledgers = self.ledgers();
            self.ledger.keep(ledgers);
        }
    }

    fn ledgers(&self) -> Ledgers {
        let homes = self.homes.iter();
        homes.map(|home| (home.home.name.clone(), home.steering.ledger())).collect()
    }

    /// Tells people what steering says of itself.
    pub(super) fn steering_notices(&mut self, home: usize) {
        while let Some(notice) = self.homes[home].steering.poll() {
            self.steering_notice(home, notice);
        }
    }

    fn steering_notice(&mut self, home: usize, notice: Notice) {
        let name = self.homes[home].home.name.clone();
        match notice {
            Notice::LinkState { bid, from, to, reason } => {
                let Some(link) = self.link_of(Some(bid)) else { return };
                let code = super::report::reason_code(&reason);
                *self.counts.link_states.entry((link.clone(), to.word(), code)).or_default() += 1;
                self.tell(Event::LinkState {
                    home: name,
                    link,
                    from: from.word().to_owned(),
                    to: to.word().to_owned(),
                    reason: reason.to_string(),
                });
            }
            // The overrides of all homes are the same; of several, one speaks.
            Notice::OverrideEnded { .. } if home > 0 => {}
            Notice::OverrideEnded { steer, end } => {
                self.override_owners.remove(&steer.id);
                let expired = end == OverrideEnd::Expired;
                self.tell(Event::SteerEnded {
                    id: super::answers::override_number(steer.id),
                    expired,
                });
            }
            Notice::Quota { .. } if home > 0 => {}
            Notice::Quota { bid, level, octets, limit } => {
                let Some(link) = self.link_of(Some(bid)) else { return };
                self.tell(Event::Quota { link, level: level.into(), octets, limit });
            }
            Notice::CapReached { rule } => self.tell(Event::CapReached { home: name, rule }),
            Notice::BurstWanted { bid } => {
                let now = self.now().monotonic;
                self.homes[home].prober.burst(now, bid);
            }
        }
    }
}
