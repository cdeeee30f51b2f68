//! What the daemon says of itself: documents from the state the owner holds.

use std::net::IpAddr;
use std::time::Duration;

use mtun_policy::steering::{self, Admin, Bar, Cause, Figure, LinkReason, LinkReport};
use mtun_policy::{AllowedMobile, Bid, CareOfAddress, Fallback, Home, SecurityName, Verb};
use mtun_signaling::binding::BindingCacheEntry;
use mtun_signaling::registration::Phase;

use super::downlink;
use super::owner::Owner;
use super::routes::tunnel_document;
use super::served::AgentHome;
use crate::control::documents::{
    BindingDocument, BindingPhase, DroppedDocument, Health, HealthReason, HomeDocument,
    HomeLinkDocument, LinkDocument, LinkState, MobileDocument, MobilesDocument,
    PolicyAdditionsDocument, PolicyDocument, PolicyHomeDocument, QuotaDocument, RuleDocument,
    StatusCode, StatusDocument, StoreDocument,
};

impl Owner {
    /// The whole state.
    pub(super) fn status(&self) -> StatusDocument {
        StatusDocument { mobiles: self.mobile_documents(), ..self.overview() }
    }

    /// The same without the mobiles one by one.
    pub(super) fn overview(&self) -> StatusDocument {
        let (homes, links) = (self.home_documents(), self.link_documents());
        let bindings = self.binding_documents();
        let further = self
            .refused
            .iter()
            .map(|message| HealthReason::PolicyRefused { message: message.clone() });
        let failing = self.keeping.iter().filter_map(|keeping| keeping.failing.clone());
        let further = further.chain(self.downlink_reasons());
        let further = further.chain(failing.map(|message| HealthReason::StoreFailing { message }));
        let now = self.now().monotonic;
        StatusDocument {
            health: Health::judge(&homes, &links, &bindings, further.collect()),
            role: self.policy.role,
            policy: self.policy.name.clone(),
            daemon_version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.saturating_sub(self.started).as_secs(),
            homes,
            links,
            vehicle: self.facts.vehicle(now),
            bindings,
            overrides: self.override_documents(),
            mobiles: Vec::new(),
            flow_bindings: self.flow_binding_documents(),
            routes: self.route_documents(),
            correspondent: self.correspondent_document(),
            store: self.store_document(),
            dropped: self.dropped_documents(),
        }
    }

    fn dropped_documents(&self) -> Vec<DroppedDocument> {
        let dropped = self.shared.arrivals.dropped().into_iter();
        let document = |((home, reason), messages): ((_, &str), u64)| DroppedDocument {
            home,
            reason: format!("signaling-{}", reason.replace('_', "-")),
            messages,
        };
        dropped.map(document).collect()
    }

    fn store_document(&self) -> Option<StoreDocument> {
        let keeping = self.keeping.as_ref()?;
        let figures = keeping.figures();
        Some(StoreDocument {
            file: super::keeping::file(&self.options),
            failing: keeping.failing.clone(),
            commits: figures.commits,
            records: figures.records,
            largest_batch: figures.largest_batch,
            waiting: figures.waiting,
            failures: figures.failures.values().sum(),
            last_failure: figures.last_failure,
            unanswered: figures.unanswered,
        })
    }

    fn home_documents(&self) -> Vec<HomeDocument> {
        let homes = self.homes.iter().map(|it| HomeDocument {
            name: it.home.name.clone(),
            agent: it.home.agent,
            home_address: Some(it.home.address),
            mobile_networks: it.home.mobile_networks.iter().map(|it| it.prefix).collect(),
            served: None,
            tunnel: tunnel_document(&it.tunnel),
            generation: it.generation,
            security: it.home.security.clone(),
            home_link: it.node.at_home().and_then(|(bid, _)| {
                Some(HomeLinkDocument {
                    interface: self.link_of(Some(bid))?,
                    present: true,
                    defended: u64::from(it.homecoming.answers_on().is_some()),
                    searching: 0,
                })
            }),
            downlink: Some(downlink::document(it)),
        });
        let served = self.served.iter().map(|it| HomeDocument {
            name: it.served.name.clone(),
            agent: it.served.agent,
            home_address: None,
            mobile_networks: Vec::new(),
            served: Some(it.served.prefix),
            tunnel: tunnel_document(&it.tunnel),
            generation: it.generation,
            security: it.is_protected().then(|| SecurityName::from("one per mobile")),
            home_link: it.home_link.as_ref().map(|link| HomeLinkDocument {
                interface: link.name.clone(),
                present: link.index().is_some(),
                defended: link.defended() as u64,
                searching: link.searching() as u64,
            }),
            downlink: None,
        });
        homes.chain(served).collect()
    }

    fn link_documents(&self) -> Vec<LinkDocument> {
        let now = self.now().monotonic;
        let reports: Vec<_> = self.homes.iter().map(|home| home.steering.links()).collect();
        let document = |interface: &mtun_policy::Interface| {
            let record = self.links.get(&interface.name);
            let attached = record.and_then(|record| record.state.as_ref().ok());
            // Several homes may see a link differently; the worst view is shown.
            let views = reports.iter().flatten().filter(|it| it.interface == interface.name);
            let report = views.max_by_key(|it| severity(it.state));
            let movement = interface.bid.map(|_| self.watch.movements().state(&interface.name));
            let (state, reason) = match (movement, report) {
                // An agent's links carry whatever comes; there is no care-of address on them.
                (None, _) if self.access.contains_key(&interface.name) => (LinkState::Up, None),
                (None, _) => (LinkState::Down, Some("no such interface".to_owned())),
                (Some(Err(reason)), _) => (LinkState::Down, Some(reason.to_string())),
                (Some(Ok(_)), None) => (LinkState::Up, None),
                (Some(Ok(_)), Some(report)) => state_of(report),
            };
            let recovers_in_seconds = match report.map(|it| it.state) {
                Some(steering::LinkState::Recovering { until })
                    if state == LinkState::Recovering =>
                {
                    Some(until.saturating_sub(now).as_millis().div_ceil(1000) as u64)
                }
                _ => None,
            };
            let attached_since = record.map(|it| it.since);
            let since = match report {
                Some(report) => attached_since.map(|since| since.max(report.since)),
                None => attached_since,
            };
            let measured = report.map(|report| report.measured);
            let answered = interface.bid.and_then(|bid| self.round_trips.last(bid));
            LinkDocument {
                interface: interface.name.clone(),
                ifindex: self.access.get(&interface.name).map(|access| access.index),
                bid: interface.bid,
                priority: interface.priority,
                state,
                care_of: attached.map(|it| CareOfAddress::from(it.care_of)),
                home_link: attached.is_some_and(|it| !it.home_links.is_empty()),
                router: attached.and_then(|it| it.router).map(IpAddr::V6),
                reason,
                since_seconds: since.map(|since| now.saturating_sub(since).as_secs()),
                flaps: self.watch.movements().falls(&interface.name),
                recovers_in_seconds,
                metered: interface.metered,
                quota: report.and_then(|report| report.quota.as_ref()).map(quota_document),
                load: report.and_then(|report| report.load).map(|load| load.0),
                rtt_ms: measured.and_then(|it| it.rtt).or(answered).map(milliseconds),
                rtt_p95_ms: measured.and_then(|it| it.rtt_p95).map(milliseconds),
                jitter_ms: measured.and_then(|it| it.jitter).map(milliseconds),
                conversation_rtt_ms: interface
                    .bid
                    .zip(attached)
                    .and_then(|(bid, at)| self.conversation_rtt(bid, at, now))
                    .map(milliseconds),
                loss_ratio: measured.and_then(|it| it.loss).map(|it| f64::from(it.0) / 10_000.0),
                signal_dbm: report.and_then(|report| report.radio.signal),
                radio: self.facts.radio(&interface.name, now),
                mtu: attached.map(|it| it.mtu),
                path_mtu: attached.and_then(|it| self.path_mtu(it, now)),
            }
        };
        self.policy.interfaces.iter().map(document).collect()
    }

    pub(super) fn binding_documents(&self) -> Vec<BindingDocument> {
        let now = self.now().monotonic;
        let mut bindings = Vec::new();
        for home in &self.homes {
            let snapshot = home.tunnel.published.load();
            let registration = snapshot.updates.get(home.home.address);
            for entry in &home.node.update_list().entries {
                let granted = home.granted.get(&Some(entry.bid)).or(home.granted.get(&None));
                let granted = granted.filter(|granted| granted.care_of == entry.care_of);
                let held = registration.and_then(|it| it.binding(Some(entry.bid)));
                let phase = match entry.phase {
                    Phase::Wanted | Phase::Gone => BindingPhase::Idle,
                    Phase::Awaiting => BindingPhase::Registering,
                    Phase::Bound => BindingPhase::Registered,
                    Phase::Refreshing => BindingPhase::Refreshing,
                    Phase::Refused => BindingPhase::Refused,
                    Phase::AtHome => BindingPhase::AtHome,
                    Phase::Leaving | Phase::Deregistering => BindingPhase::Deregistering,
                };
                bindings.push(BindingDocument {
                    home: home.home.name.clone(),
                    bid: Some(entry.bid),
                    care_of: Some(entry.care_of),
                    priority: entry.priority,
                    link: self.link_of(Some(entry.bid)),
                    phase,
                    usable: held.is_some_and(|binding| binding.carries()),
                    granted_seconds: granted.map(|granted| granted.lifetime.as_secs()),
                    expires_seconds: entry.expires.map(|it| it.saturating_sub(now).as_secs()),
                    status: entry.last_status.map(|status| StatusCode {
                        code: status.0,
                        name: status.text().unwrap_or("unassigned").to_owned(),
                    }),
                    retries: entry.retries,
                });
            }
        }
        bindings
    }

    /// The mobiles in whose name, home address or prefixes a text is found.
    pub(super) fn mobiles_found(
        &self,
        search: Option<String>,
        limit: Option<usize>,
    ) -> MobilesDocument {
        let wanted = search.as_deref().map(str::to_lowercase);
        let fits = |allowed: &AllowedMobile, entry: Option<&BindingCacheEntry>| {
            let Some(wanted) = &wanted else { return true };
            let named = allowed.name.iter().any(|name| name.to_lowercase().contains(wanted));
            let prefixes = entry.map_or(&allowed.prefixes, |entry| &entry.prefixes);
            named
                || allowed.address.to_string().contains(wanted)
                || prefixes.iter().any(|prefix| prefix.to_string().contains(wanted))
        };
        let (mut matched, mut known, mut mobiles) = (0, 0, Vec::new());
        let (mut registered, mut bindings) = (0, 0);
        for it in &self.served {
            known += it.served.mobiles.len();
            for entry in it.agent.cache().iter() {
                registered += 1;
                bindings += entry.bindings.len();
            }
            for allowed in &it.served.mobiles {
                if fits(allowed, it.agent.cache().get(allowed.address)) {
                    matched += 1;
                    if limit.is_none_or(|limit| mobiles.len() < limit) {
                        mobiles.push(self.mobile_document(it, allowed));
                    }
                }
            }
        }
        MobilesDocument { search, matched, known, registered, bindings, mobiles }
    }

    pub(super) fn mobile_documents(&self) -> Vec<MobileDocument> {
        let all =
            self.served.iter().flat_map(|it| it.served.mobiles.iter().map(move |one| (it, one)));
        all.map(|(it, allowed)| self.mobile_document(it, allowed)).collect()
    }

    pub(super) fn mobile_document(
        &self,
        it: &AgentHome,
        allowed: &AllowedMobile,
    ) -> MobileDocument {
        let now = self.now().monotonic;
        let entry = it.agent.cache().get(allowed.address);
        let bindings = entry.map_or_else(Vec::new, |entry| {
            let document = |binding: &mtun_signaling::binding::Binding| BindingDocument {
                home: it.served.name.clone(),
                bid: binding.bid,
                care_of: Some(binding.care_of),
                priority: binding.priority,
                link: None,
                phase: BindingPhase::Registered,
                usable: true,
                granted_seconds: None,
                expires_seconds: Some(binding.expires.saturating_sub(now).as_secs()),
                status: None,
                retries: 0,
            };
            entry.bindings.iter().map(document).collect()
        });
        let heard = it.agent.account(allowed.address).and_then(|account| account.last_heard);
        MobileDocument {
            home: it.served.name.clone(),
            home_address: allowed.address,
            name: allowed.name.clone(),
            prefixes: entry.map_or_else(Vec::new, |entry| entry.prefixes.clone()),
            router: entry.is_some_and(|entry: &BindingCacheEntry| entry.router),
            bindings,
            flow_bindings: entry
                .map_or_else(Vec::new, |entry| downlink::held(&it.served.name, entry)),
            reflect: entry.is_some_and(|entry| entry.reflect),
            copies: entry.is_some_and(|entry| entry.copies),
            last_seen_seconds: heard.map(|at| now.saturating_sub(at).as_secs()),
        }
    }
}

/// In milliseconds, to the microsecond.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// How bad a state is.
fn severity(state: steering::LinkState) -> u8 {
    match state {
        steering::LinkState::Up => 0,
        steering::LinkState::Degraded => 1,
        steering::LinkState::Recovering { .. } => 2,
        steering::LinkState::Unknown => 3,
        steering::LinkState::Down => 4,
    }
}

/// The state of an attached link, and what speaks against it.
fn state_of(report: &LinkReport) -> (LinkState, Option<String>) {
    let state = match (report.admin, report.state) {
        (Admin::Held, _) => LinkState::Held,
        (_, steering::LinkState::Down) => LinkState::Down,
        (_, steering::LinkState::Unknown) => LinkState::Unknown,
        (_, steering::LinkState::Recovering { .. }) => LinkState::Recovering,
        (Admin::Drained, _) => LinkState::Drained,
        (Admin::Open, steering::LinkState::Up) => LinkState::Up,
        (Admin::Open, steering::LinkState::Degraded) => LinkState::Degraded,
    };
    let barred = match report.bar {
        Some(Bar::OverQuota) => Some("its quota is used up: a last resort".to_owned()),
        Some(Bar::Stopped) => Some("its quota is used up".to_owned()),
        Some(by_hand @ (Bar::Drained | Bar::Held)) => Some(by_hand.to_string()),
        None => None,
    };
    let state = if report.bar == Some(Bar::Stopped) { LinkState::Down } else { state };
    let reason = (report.reason != LinkReason::Good).then(|| report.reason.to_string());
    (state, barred.or(reason))
}

fn quota_document(quota: &steering::QuotaReport) -> QuotaDocument {
    let date = |day: steering::Day| {
        let (year, month, day) = day.date();
        format!("{year:04}-{month:02}-{day:02}")
    };
    QuotaDocument {
        used_octets: quota.octets,
        limit_octets: quota.limit,
        level: quota.level.into(),
        at_limit: quota.at_limit,
        resets: quota.resets.map(date),
    }
}

/// One word for a reason, for metrics.
pub(super) fn reason_code(reason: &LinkReason) -> &'static str {
    match reason {
        LinkReason::NeverRegistered => "never-registered",
        LinkReason::Good => "good",
        LinkReason::OutOfClass(_) => "out-of-class",
        LinkReason::Supposed => "supposed",
        LinkReason::Bad(Cause::Detached) => "detached",
        LinkReason::Bad(Cause::Refused) => "refused",
        LinkReason::Bad(Cause::NoBinding) => "no-binding",
        LinkReason::Bad(Cause::Roaming) => "roaming",
        LinkReason::Bad(Cause::ProbesLost) => "probes-lost",
        LinkReason::Bad(Cause::Technology) => "technology",
        LinkReason::Bad(Cause::Beyond(Figure::Signal)) => "beyond-signal",
        LinkReason::Bad(Cause::Beyond(Figure::Rtt)) => "beyond-rtt",
        LinkReason::Bad(Cause::Beyond(Figure::Jitter)) => "beyond-jitter",
        LinkReason::Bad(Cause::Beyond(Figure::Loss)) => "beyond-loss",
        LinkReason::Bad(Cause::Beyond(Figure::Speed)) => "beyond-speed",
        LinkReason::Bad(Cause::Beyond(Figure::Distance)) => "beyond-distance",
        LinkReason::Holding(_) => "held-back",
        LinkReason::LastLink(_) => "last-link",
    }
}

/// The policy in force.
pub(super) fn policy_document(owner: &Owner) -> PolicyDocument {
    let mut rules = Vec::new();
    for home in &owner.policy.homes {
        for rule in &home.rules.rules {
            let name = |bid: Bid| {
                let link = owner.link_of(Some(bid));
                link.map_or_else(|| format!("BID {bid}"), |link| link.to_string())
            };
            let links = |verb: &Verb| -> Vec<_> {
                verb.links().into_iter().filter_map(|bid| owner.link_of(Some(bid))).collect()
            };
            let mut otherwise = match &rule.otherwise {
                Fallback::NextRule => Vec::new(),
                Fallback::Any => {
                    let uplinks = owner.policy.interfaces.iter().filter(|it| it.bid.is_some());
                    uplinks.map(|it| it.name.clone()).collect()
                }
                Fallback::Then(verb) => links(verb),
            };
            otherwise.retain(|link| !links(&rule.verb).contains(link));
            let mut words = vec![rule.verb.word().to_owned()];
            words.extend(rule.verb.links().into_iter().map(name));
            let mut says = words.join(" ");
            if let Some(optimize) = rule.head.optimize {
                says.push_str(&format!(", optimize {optimize}"));
            }
            rules.push(RuleDocument {
                home: home.name.clone(),
                name: rule.name().clone(),
                file: rule.file.clone(),
                line: rule.line,
                says,
                links: links(&rule.verb),
                otherwise,
            });
        }
    }
    let home = |home: &Home| PolicyHomeDocument {
        home: home.name.clone(),
        route_optimization: home.route_optimization.map(|plan| plan.start),
        returning_home: home.returning_home,
    };
    let homes = owner.policy.homes.iter().map(home).collect();
    let correspondent = owner.policy.correspondent.as_ref();
    let correspondent = correspondent.map_or_else(Vec::new, |plan| plan.addresses.clone());
    let texts = &owner.in_force.texts;
    let (file, text) = (texts.file.clone(), Some(texts.text.clone()));
    let (name, role) = (owner.policy.name.clone(), owner.policy.role);
    let added = owner.added.text().map(|(_, text)| PolicyAdditionsDocument {
        file: owner.added.file.clone(),
        mobiles: owner.added.additions.mobiles.len(),
        refused: owner.added.additions.refused.len(),
        text,
    });
    PolicyDocument { name, role, file, text, rules, homes, correspondent, added }
}
