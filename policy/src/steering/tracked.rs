//! One link with everything that steering keeps for it.

use std::time::Duration;

use super::calendar::Day;
use super::facts::{Admin, Fact};
use super::link::Link;
use super::link_state::{LinkReason, LinkState};
use super::notice::{ClassReport, LinkReport, Notice};
use super::quota::{Meter, QuotaLevel};
use super::service::Service;
use super::situation::LinkView;
use super::standing::{Bar, Candidate, Use, Verdict};
use crate::link::{Ratio, Sla};
use crate::policy::Interface;
use crate::radio::Radio;
use crate::terms::{Bid, ClassName};

/// One link.
#[derive(Clone, Debug)]
pub(super) struct Tracked {
    pub bid: Bid,
    pub interface: Interface,
    pub link: Link,
    pub services: Vec<Service>,
    pub load: Option<Ratio>,
    pub admin: Admin,
    pub meter: Option<Meter>,
    pub verdict: Verdict,
    state_since: Duration,
    /// Since when it is used as the rules say, and not only as the last link.
    ordinary_since: Option<Duration>,
}

impl Tracked {
    pub fn new(now: Duration, bid: Bid, interface: Interface, classes: &[Sla]) -> Self {
        let hold = interface.usable.hold_up;
        Self {
            bid,
            link: Link::new(interface.usable),
            services: classes.iter().map(|class| Service::new(class.clone(), hold)).collect(),
            load: None,
            admin: Admin::Open,
            meter: interface.quota.map(Meter::new),
            verdict: Verdict {
                tunnel: Use::No,
                breakout: Use::No,
                last_link: false,
                state: LinkState::Unknown,
                reason: LinkReason::NeverRegistered,
            },
            state_since: now,
            ordinary_since: None,
            interface,
        }
    }

    /// Takes over what the link of the same name went through under the policy before.
    pub fn adopt(&mut self, now: Duration, old: &Self) {
        if let (Some(meter), Some(before)) = (&mut self.meter, &old.meter) {
            meter.restore(before.state);
        }
        self.admin = old.admin;
        // Another BID is another binding.
        if self.bid != old.bid {
            return;
        }
        self.link = old.link.clone();
        self.link.reconfigure(now, self.interface.usable);
        for service in &mut self.services {
            if let Some(before) = old.services.iter().find(|known| known.sla() == service.sla()) {
                service.adopt(before);
            }
        }
        self.load = old.load;
        self.verdict = old.verdict.clone();
        self.state_since = old.state_since;
        self.ordinary_since = old.ordinary_since;
    }

    /// A fact about this link; returns whether a burst of probes is wanted.
    pub fn handle(&mut self, now: Duration, fact: &Fact) -> bool {
        match fact {
            Fact::Registered { registered, .. } => self.link.registered(now, *registered),
            Fact::Refused { .. } => self.link.refused(now),
            Fact::Attached { attached, .. } => {
                self.link.attached(now, *attached);
                if !attached {
                    self.services.iter_mut().for_each(Service::forget);
                    self.load = None;
                }
            }
            Fact::Measured { measurement, .. } => {
                self.link.measured(now, measurement);
                for service in &mut self.services {
                    service.measured(now, measurement);
                }
            }
            Fact::Probed { probe, .. } => return self.link.probed(now, *probe),
            Fact::Heard { .. } => self.link.heard(now),
            Fact::Signal { dbm, .. } => {
                let radio = Radio { signal: Some(*dbm), ..*self.link.radio() };
                self.link.heard_of_radio(now, radio);
            }
            Fact::Radio { radio, .. } => self.link.heard_of_radio(now, *radio),
            Fact::Load { load, .. } => self.load = Some(*load),
            Fact::Carried { octets, .. } => {
                if let Some(meter) = &mut self.meter {
                    meter.add(*octets);
                }
            }
            Fact::Admin { admin, .. } => self.admin = *admin,
            Fact::Copied { .. }
            | Fact::Speed(_)
            | Fact::Position(_)
            | Fact::LocalTime(_)
            | Fact::Steer(_)
            | Fact::Unsteer(_) => {}
        }
        false
    }

    /// Lets time pass up to `now`, which is no later than the next deadline.
    pub fn advance(&mut self, now: Duration, today: Option<Day>) {
        self.link.advance(now);
        for service in &mut self.services {
            service.advance(now);
        }
        if let (Some(meter), Some(today)) = (&mut self.meter, today) {
            meter.roll(today);
        }
    }

    /// When it changes by itself, apart from the calendar.
    pub fn deadline(&self) -> Option<Duration> {
        let services = self.services.iter().filter_map(Service::deadline);
        services.chain(self.link.deadline()).min()
    }

    pub fn candidate(&self) -> Candidate {
        let used_up = self.meter.as_ref().filter(|meter| meter.level() == QuotaLevel::Reached);
        Candidate {
            bid: self.bid,
            priority: self.interface.priority,
            standing: self.link.standing(),
            can_be_sent_by: self.link.can_be_sent_by(),
            attached: self.link.is_attached() && !self.link.roams_in_vain(),
            bar: Bar::of(self.admin, used_up.map(|meter| meter.quota.at_limit)),
            misses: self.misses(),
            degraded: false,
        }
    }

    fn misses(&self) -> std::collections::BTreeSet<ClassName> {
        let missed = self.services.iter().filter(|service| !service.met());
        missed.map(|service| ClassName::from(service.sla().name.as_str())).collect()
    }

    /// Takes the verdict of all links; returns what there is to tell of it.
    pub fn judged(&mut self, now: Duration, verdict: Verdict) -> Option<Notice> {
        let ordinary = verdict.tunnel == Use::Ordinary && !verdict.last_link;
        self.ordinary_since = match self.ordinary_since {
            _ if !ordinary => None,
            None => Some(now),
            known => known,
        };
        let (from, to) = (self.verdict.state, verdict.state);
        let kind_changes = std::mem::discriminant(&from) != std::mem::discriminant(&to);
        let reason_changes = self.verdict.reason != verdict.reason;
        if kind_changes {
            self.state_since = now;
        }
        self.verdict = verdict;
        let reason = self.verdict.reason.clone();
        let bid = self.bid;
        (kind_changes || reason_changes).then_some(Notice::LinkState { bid, from, to, reason })
    }

    /// What there is to tell of its quota.
    pub fn quota_notice(&mut self) -> Option<Notice> {
        let meter = self.meter.as_mut()?;
        let level = meter.level();
        let changed = std::mem::replace(&mut meter.told, level) != level;
        changed.then_some(Notice::Quota {
            bid: self.bid,
            level,
            octets: meter.state.octets,
            limit: meter.quota.octets,
        })
    }

    /// When it will have been in ordinary use for each of these times.
    pub fn ripens(&self, afters: &[Duration]) -> impl Iterator<Item = Duration> {
        let since = self.ordinary_since;
        afters.iter().filter_map(move |after| Some(since?.saturating_add(*after)))
    }

    /// How rules see it under this verdict.
    pub fn view(&self, candidate: &Candidate, verdict: &Verdict) -> LinkView {
        LinkView {
            bid: self.bid,
            priority: self.interface.priority,
            metered: self.interface.metered,
            price: self.interface.price(self.link.radio().roams()),
            tunnel: verdict.tunnel,
            breakout: verdict.breakout,
            degraded: matches!(verdict.state, LinkState::Degraded),
            last_link: verdict.last_link,
            misses: candidate.misses.clone(),
            ripe_for: None,
        }
    }

    /// The longest of these times for which it has been in ordinary use.
    pub fn ripe_for(&self, now: Duration, afters: &[Duration]) -> Option<Duration> {
        let since = self.ordinary_since?;
        afters.iter().copied().filter(|after| since.saturating_add(*after) <= now).max()
    }

    /// All that is known of it, under this verdict.
    pub fn report(
        &self,
        candidate: &Candidate,
        verdict: &Verdict,
        today: Option<Day>,
    ) -> LinkReport {
        let class = |service: &Service| {
            let class = ClassName::from(service.sla().name.as_str());
            let met = !candidate.misses.contains(&class);
            ClassReport { class, met, back_at: service.deadline() }
        };
        LinkReport {
            bid: self.bid,
            interface: self.interface.name.clone(),
            state: verdict.state,
            reason: verdict.reason.clone(),
            since: self.state_since,
            registered: self.link.is_registered(),
            attached: candidate.attached,
            usable: verdict.tunnel != Use::No,
            admin: self.admin,
            bar: candidate.bar,
            quota: self.meter.as_ref().map(|meter| meter.report(today)),
            classes: self.services.iter().map(class).collect(),
            measured: *self.link.measured_last(),
            radio: *self.link.radio(),
            load: self.load,
            hold: self.link.hold(),
        }
    }
}
