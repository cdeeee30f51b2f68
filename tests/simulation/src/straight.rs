//! Routes past the home agent: who is told of which message, what traffic says, and what packets
//! learn, as the daemon does it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_dataplane::{Held, HeldBinding, RouteNote};
use mtun_policy::Bid;
use mtun_signaling::correspondent::Pair;
use mtun_signaling::wire::{self, Message};
use mtun_signaling::{
    CorrespondentEvent, CorrespondentOutput, Envelope, Machine, Route, RouteOptimization,
    RouteOptimizationEvent, RouteOptimizationOutput,
};

use crate::correspondent::Responder;
use crate::fault::Fault;
use crate::forward::Passed;
use crate::mobile::v6;
use crate::network::LONGEST_WAY;
use crate::publish::{self, Published};
use crate::signalling::{digest, is_powerless, packet_of, text};
use crate::witness::Invariant;
use crate::world::World;

/// How long a correspondent stays wanted after traffic last wanted it.
const WANTED: Duration = Duration::from_secs(60);

/// Who is a correspondent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A node that stays where it is.
    Host(usize),
    /// A mobile, by its home address.
    Mobile(usize),
}

/// A mobile's end of route optimization.
#[derive(Debug)]
pub struct Optimizer {
    pub machine: RouteOptimization,
    /// Whom traffic wants, and when it last said so.
    pub wanted: BTreeMap<Ipv6Addr, Duration>,
    /// What the machine was told of uplinks.
    told: BTreeMap<Bid, (Ipv6Addr, u8, Duration)>,
    /// Bindings as they were acknowledged: care-of address, end and when.
    pub acknowledged: BTreeMap<(Ipv6Addr, Bid), (Ipv6Addr, Duration, Duration)>,
}

impl Optimizer {
    /// Nobody is wanted yet.
    pub fn new(machine: RouteOptimization) -> Self {
        Self {
            machine,
            wanted: BTreeMap::new(),
            told: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
        }
    }

    /// What packets may use of a correspondent.
    fn held(&self, correspondent: Ipv6Addr) -> Held {
        let bindings = self.machine.bindings().filter(|it| it.correspondent == correspondent);
        let held = bindings.map(|it| HeldBinding { bid: Some(it.bid), care_of: it.care_of });
        Held { bindings: held.collect() }
    }

    /// Care-of addresses by correspondent and BID.
    pub fn bindings(&self) -> BTreeSet<(Ipv6Addr, Bid, Ipv6Addr)> {
        self.machine.bindings().map(|it| (it.correspondent, it.bid, it.care_of)).collect()
    }

    /// When something is due, on the node's clock.
    pub fn deadline(&self) -> Option<Duration> {
        self.machine.deadline()
    }
}

impl World {
    // ---- the correspondent's end ---------------------------------------------------------------

    fn responder(&mut self, who: Who) -> Option<&mut Responder> {
        match who {
            Who::Host(number) => self.correspondents[number].responder.as_mut(),
            Who::Mobile(number) => self.mobiles[number].responder.as_mut(),
        }
    }

    fn local(&self, who: Who) -> mtun_signaling::Timestamp {
        match who {
            Who::Host(number) => {
                crate::mobile::timestamp(self.now, self.correspondents[number].base, 0)
            }
            Who::Mobile(number) => self.mobiles[number].timestamp(self.now),
        }
    }

    fn published(&self, who: Who) -> Published {
        match who {
            Who::Host(number) => self.correspondents[number].published.clone(),
            Who::Mobile(number) => self.mobiles[number].published.clone(),
        }
    }

    /// Tells a correspondent's machine.
    pub fn correspondent_event(&mut self, who: Who, event: CorrespondentEvent) {
        let now = self.local(who);
        let Some(responder) = self.responder(who) else { return };
        responder.machine.handle(now, event);
        self.correspondent_outputs(who);
    }

    /// Lets a correspondent do what is due.
    pub fn correspondent_timer(&mut self, who: Who) {
        let now = self.local(who);
        let Some(responder) = self.responder(who) else { return };
        if responder.machine.deadline().is_some_and(|at| at <= now.monotonic) {
            responder.machine.handle_deadline(now);
            if responder.machine.deadline().is_some_and(|at| at <= now.monotonic) {
                self.stuck(format!("correspondent {who:?}"));
            }
        }
        self.correspondent_outputs(who);
        self.witness_correspondent(who);
    }

    fn correspondent_outputs(&mut self, who: Who) {
        while let Some(output) = self.responder(who).and_then(|it| it.machine.poll()) {
            match output {
                CorrespondentOutput::Transmit(transmit) => {
                    let packet = packet_of(&transmit.envelope, &transmit.message);
                    self.tell(|| {
                        format!("{who:?}: {}", text(&transmit.envelope, &transmit.message))
                    });
                    match who {
                        Who::Host(number) => {
                            let link = self.correspondents[number].link;
                            self.route(link, false, packet, Passed::FRESH);
                        }
                        Who::Mobile(mobile) => {
                            self.mobile_signals(mobile, None, &packet);
                        }
                    }
                }
                CorrespondentOutput::Changed { pair, effective } => {
                    self.coverage.count("correspondent: changed");
                    self.tell(|| format!("{who:?}: {} changed", pair.home_address));
                    if effective {
                        self.publish_bound(who, pair);
                    }
                }
                CorrespondentOutput::Notice(notice) => {
                    self.coverage.count(format!("correspondent notice: {}", notice.reason()));
                    if let mtun_signaling::CorrespondentNotice::Refused { status, .. } = notice {
                        self.coverage.count(format!("correspondent refuses: {}", status.0));
                    }
                    if matches!(
                        notice,
                        mtun_signaling::CorrespondentNotice::Evicted { .. }
                            | mtun_signaling::CorrespondentNotice::Unreachable { .. }
                    ) {
                        let now = self.now;
                        self.responder(who).expect("it spoke").shaken = now;
                    }
                    self.tell(|| format!("{who:?}: {notice}"));
                }
            }
        }
    }

    fn publish_bound(&mut self, who: Who, pair: Pair) {
        let published = self.published(who);
        let Some(responder) = self.responder(who) else { return };
        let registration = responder.machine.get(pair).map(|entry| bound(pair, entry));
        if registration.is_none() && self.fault == Fault::CorrespondentPublishesNoEnd {
            return;
        }
        publish::publish_correspondent(&*published, pair, registration);
    }

    /// A Mobility Header for a correspondent's machine.
    pub fn correspondent_reads(
        &mut self,
        who: Who,
        envelope: Envelope,
        message: Vec<u8>,
        passed: Passed,
    ) {
        self.count_message("correspondent", &envelope, &message, passed.origin);
        let origin = passed.origin.word();
        self.tell(|| format!("{who:?} <- {origin} {}", text(&envelope, &message)));
        self.correspondent_timer(who);
        let digest = digest(&envelope, &message);
        let update = matches!(wire::receive(&envelope, &message), Ok(Message::BindingUpdate(_)));
        let Some(responder) = self.responder(who) else {
            return self.coverage.count("correspondent: knows nothing of mobility");
        };
        let known = !responder.seen.insert(digest);
        let powerless = is_powerless(passed.origin, known, responder.born, Duration::ZERO);
        let before = held_by(responder);
        self.correspondent_event(who, CorrespondentEvent::Received { envelope, message });
        let after = self.responder(who).map(|it| held_by(it)).unwrap_or_default();
        self.witness_powerless(update && powerless && before != after, || {
            format!("correspondent {who:?}: {before:?} became {after:?}")
        });
        self.witness_correspondent(who);
    }

    // ---- the mobile's end ----------------------------------------------------------------------

    /// Tells a mobile's route optimization.
    pub fn optimizer_event(&mut self, mobile: usize, event: RouteOptimizationEvent) {
        let now = self.mobiles[mobile].timestamp(self.now);
        let Some(optimizer) = &mut self.mobiles[mobile].optimizer else { return };
        optimizer.machine.handle(now, event);
        self.optimizer_outputs(mobile);
    }

    /// Lets a mobile's route optimization do what is due, and forgets whom nobody wants.
    pub fn optimizer_timer(&mut self, mobile: usize) {
        let now = self.mobiles[mobile].timestamp(self.now);
        let Some(optimizer) = &mut self.mobiles[mobile].optimizer else { return };
        if optimizer.machine.deadline().is_some_and(|at| at <= now.monotonic) {
            optimizer.machine.handle_deadline(now);
            if optimizer.machine.deadline().is_some_and(|at| at <= now.monotonic) {
                self.stuck(format!("route optimization of mobile {mobile}"));
            }
        }
        self.optimizer_outputs(mobile);
        let world = self.now;
        let Some(optimizer) = &mut self.mobiles[mobile].optimizer else { return };
        let idle: Vec<Ipv6Addr> = optimizer
            .wanted
            .extract_if(.., |_, last| *last + WANTED <= world)
            .map(|(correspondent, _)| correspondent)
            .collect();
        for correspondent in idle {
            self.coverage.count("route: idle");
            self.optimizer_event(mobile, RouteOptimizationEvent::Unwanted { correspondent });
        }
        self.witness_optimizer(mobile);
    }

    /// Tells route optimization which care-of addresses the home agent holds.
    pub fn follow(&mut self, mobile: usize) {
        self.tell_rules(mobile);
        let now = self.mobiles[mobile].timestamp(self.now);
        let it = &mut self.mobiles[mobile];
        let Some(optimizer) = &mut it.optimizer else { return };
        let list = it.node.update_list();
        let held: BTreeMap<Bid, _> = list
            .entries
            .iter()
            .filter(|entry| {
                entry.is_registered()
                    && !entry.home_link
                    && it.uplinks.get(&entry.bid).is_some_and(|it| it.attached.is_some())
            })
            .filter_map(|it| Some((it.bid, (v6(it.care_of)?, it.priority, it.expires?))))
            .collect();
        for &bid in optimizer.told.keys().filter(|bid| !held.contains_key(bid)) {
            optimizer.machine.handle(now, RouteOptimizationEvent::CareOfGone { bid });
        }
        for (&bid, &(care_of, priority, expires)) in &held {
            if optimizer.told.get(&bid) != Some(&(care_of, priority, expires)) {
                let care_of = care_of.into();
                let event = RouteOptimizationEvent::CareOf { bid, priority, care_of, expires };
                optimizer.machine.handle(now, event);
            }
        }
        optimizer.told = held;
        self.optimizer_outputs(mobile);
    }

    fn optimizer_outputs(&mut self, mobile: usize) {
        while let Some(output) =
            self.mobiles[mobile].optimizer.as_mut().and_then(|it| it.machine.poll())
        {
            match output {
                RouteOptimizationOutput::Transmit { route, envelope, message } => {
                    self.tell(|| {
                        format!("mobile {mobile} {route:?}: {}", text(&envelope, &message))
                    });
                    if let Ok(Message::BindingUpdate(update)) = wire::receive(&envelope, &message) {
                        self.asks_for_less(mobile, envelope.source, envelope.destination, &update);
                    }
                    self.optimizer_transmits(mobile, route, packet_of(&envelope, &message));
                }
                RouteOptimizationOutput::Bound { correspondent, bid, care_of, expires, first } => {
                    self.coverage.count(if first { "route: bound" } else { "route: refreshed" });
                    self.tell(|| format!("mobile {mobile}: {bid} straight to {correspondent}"));
                    let (base, now) = (self.mobiles[mobile].base, self.now);
                    let optimizer = self.mobiles[mobile].optimizer.as_mut().expect("it spoke");
                    let known = (care_of, expires.saturating_sub(base), now);
                    optimizer.acknowledged.insert((correspondent, bid), known);
                    self.publish_held(mobile, correspondent);
                }
                RouteOptimizationOutput::Unbound { correspondent, bid, reason } => {
                    self.coverage.count(format!("route: unbound, {reason}"));
                    self.tell(|| format!("mobile {mobile}: {bid} tunnelled: {reason}"));
                    let optimizer = self.mobiles[mobile].optimizer.as_mut().expect("it spoke");
                    optimizer.acknowledged.remove(&(correspondent, bid));
                    if self.fault != Fault::RoutePublishesNoEnd {
                        self.publish_held(mobile, correspondent);
                    }
                }
                RouteOptimizationOutput::Notice(notice) => {
                    self.coverage.count(format!("route notice: {}", notice.reason()));
                    self.tell(|| format!("mobile {mobile}: {notice}"));
                }
                RouteOptimizationOutput::Stopped => self.coverage.count("route: stopped"),
            }
        }
    }

    /// What an update asks to end sooner may end so, whatever becomes of the answer.
    fn asks_for_less(
        &mut self,
        mobile: usize,
        source: Ipv6Addr,
        correspondent: Ipv6Addr,
        update: &wire::BindingUpdate,
    ) {
        let until = self.now + update.lifetime.duration();
        let named: Vec<_> = update.options.bids().filter_map(|it| it.bid).collect();
        let alone = named.is_empty() || update.flags.overwrite;
        let Some(optimizer) = &mut self.mobiles[mobile].optimizer else { return };
        if alone {
            optimizer.acknowledged.retain(|(of, bid), (care_of, ..)| {
                *of != correspondent || named.contains(bid) || *care_of == source
            });
        }
        for ((of, bid), (_, expires, _)) in &mut optimizer.acknowledged {
            if *of == correspondent && (alone || named.contains(bid)) {
                *expires = until.min(*expires);
            }
        }
    }

    fn optimizer_transmits(&mut self, mobile: usize, route: Route, packet: Vec<u8>) {
        match route {
            Route::Path(bid) => self.leave(mobile, bid, packet, Passed::FRESH),
            Route::Tunnel(bid) => self.mobile_signals(mobile, Some(bid), &packet),
            Route::Home => self.mobile_signals(mobile, None, &packet),
        }
    }

    /// A message from the home address goes through the tunnel without asking the rules.
    fn mobile_signals(&mut self, mobile: usize, bid: Option<Bid>, packet: &[u8]) {
        let it = &self.mobiles[mobile];
        let mut out = Vec::new();
        match it.engine.outbound_signalling(it.home.address, bid, packet, &mut out) {
            Ok(path) => self.leave_by(mobile, path, &out, Passed::FRESH),
            Err(reason) => self.coverage.count(format!("route: signalling dropped, {reason}")),
        }
    }

    fn publish_held(&mut self, mobile: usize, correspondent: Ipv6Addr) {
        let it = &self.mobiles[mobile];
        let Some(optimizer) = &it.optimizer else { return };
        let held = optimizer.held(correspondent);
        publish::publish_held(&*it.published, it.home.address, correspondent, held);
    }

    /// A message of a correspondent for a mobile's route optimization.
    pub fn optimizer_reads(
        &mut self,
        mobile: usize,
        tunneled: bool,
        envelope: Envelope,
        message: Vec<u8>,
        passed: Passed,
    ) {
        self.count_message("route", &envelope, &message, passed.origin);
        let origin = passed.origin.word();
        self.tell(|| format!("mobile {mobile} <- {origin} {}", text(&envelope, &message)));
        self.optimizer_timer(mobile);
        let Some(optimizer) = &mut self.mobiles[mobile].optimizer else { return };
        let before = optimizer.bindings();
        let born = self.mobiles[mobile].born;
        let known = !self.mobiles[mobile].seen.insert(digest(&envelope, &message));
        let powerless = is_powerless(passed.origin, known, born, Duration::ZERO);
        let event = RouteOptimizationEvent::Received { envelope, message, tunneled };
        self.optimizer_event(mobile, event);
        // Back to the tunnel is always safe, and unauthenticated errors may lead there.
        let optimizer = self.mobiles[mobile].optimizer.as_ref().expect("it was there");
        let more = optimizer.bindings().difference(&before).next().copied();
        self.witness_powerless(powerless && more.is_some(), || {
            format!("mobile {mobile}: {more:?}")
        });
        self.witness_optimizer(mobile);
    }

    // ---- what traffic says ---------------------------------------------------------------------

    /// Reads what the traffic of a mobile said of routes.
    pub fn mobile_notes(&mut self, mobile: usize) {
        for note in self.mobiles[mobile].engine.route_notes() {
            self.note(Who::Mobile(mobile), note);
        }
    }

    /// Reads what the traffic of a host said of routes.
    pub fn host_notes(&mut self, number: usize) {
        for note in self.correspondents[number].engine.route_notes() {
            self.note(Who::Host(number), note);
        }
    }

    fn note(&mut self, who: Who, note: RouteNote) {
        let near = |pair: mtun_dataplane::Pair| match who {
            Who::Mobile(it) => {
                Some(it).filter(|_| self.mobiles[it].home.address == pair.home_address)
            }
            Who::Host(_) => None,
        };
        match note {
            RouteNote::Wanted(pair) | RouteNote::WantedAtOnce(pair) => {
                let Some(mobile) = near(pair) else { return };
                let (now, correspondent) = (self.now, pair.correspondent);
                let Some(optimizer) = &mut self.mobiles[mobile].optimizer else { return };
                if optimizer.wanted.insert(correspondent, now).is_none() {
                    self.coverage.count("route: wanted");
                    self.optimizer_event(mobile, RouteOptimizationEvent::Wanted { correspondent });
                }
            }
            RouteNote::Used(pair) => {
                let now = self.now;
                if let Some(mobile) = near(pair) {
                    let optimizer = self.mobiles[mobile].optimizer.as_mut();
                    let last = optimizer.and_then(|it| it.wanted.get_mut(&pair.correspondent));
                    last.into_iter().for_each(|last| *last = now);
                } else {
                    let pair = publish::pair_here(pair);
                    let entry = self.responder(who).and_then(|it| it.machine.get(pair));
                    let bids: Option<Vec<_>> =
                        entry.map(|it| it.bindings.iter().map(|it| it.bid).collect());
                    for bid in bids.unwrap_or_default() {
                        self.correspondent_event(who, CorrespondentEvent::Used { pair, bid });
                    }
                }
            }
            RouteNote::Eaten { pair, bid } => {
                if let (Some(mobile), Some(bid)) = (near(pair), bid) {
                    self.coverage.count("route: headers eaten");
                    let correspondent = pair.correspondent;
                    let event = RouteOptimizationEvent::HeadersEaten { correspondent, bid };
                    self.optimizer_event(mobile, event);
                }
            }
            RouteNote::Unreachable { pair, care_of, .. } => {
                self.coverage.count("route: unreachable");
                let (pair, care_of) = (publish::pair_here(pair), care_of.into());
                self.correspondent_event(who, CorrespondentEvent::Unreachable { pair, care_of });
            }
            RouteNote::Refused(pair) => {
                let Some(mobile) = near(pair) else { return };
                self.coverage.count("route: option refused");
                let correspondent = pair.correspondent;
                let optimizer = self.mobiles[mobile].optimizer.as_ref();
                let bids: Vec<Bid> = optimizer.map_or(Vec::new(), |it| {
                    let bound = it.machine.bindings();
                    bound.filter(|it| it.correspondent == correspondent).map(|it| it.bid).collect()
                });
                for bid in bids {
                    let event = RouteOptimizationEvent::HeadersEaten { correspondent, bid };
                    self.optimizer_event(mobile, event);
                }
            }
        }
    }

    // ---- what must hold ------------------------------------------------------------------------

    /// Whether a mobile's home address is bound at this correspondent to this care-of address.
    pub fn is_bound_at(
        &mut self,
        who: Who,
        home: Ipv6Addr,
        at: Ipv6Addr,
        care_of: Ipv6Addr,
    ) -> bool {
        let pair = Pair { correspondent: at, home_address: mtun_policy::HomeAddress(home) };
        let entry = self.responder(who).and_then(|it| it.machine.get(pair));
        entry.is_some_and(|it| it.bindings.iter().any(|it| v6(it.care_of) == Some(care_of)))
    }

    /// I3, I4 and I7 of a correspondent.
    pub fn witness_correspondent(&mut self, who: Who) {
        let published = self.published(who).load_full();
        let now = self.local(who).monotonic;
        let owned: BTreeSet<(Ipv6Addr, Bid, Ipv6Addr)> = self
            .mobiles
            .iter()
            .flat_map(|it| it.owned.iter().map(|&(bid, care_of)| (it.home_address(), bid, care_of)))
            .collect();
        let Some(responder) = self.responder(who) else { return };
        let mut faults = Vec::new();
        for (pair, entry) in responder.machine.bindings() {
            let here = mtun_dataplane::Pair {
                home_address: pair.home_address,
                correspondent: pair.correspondent,
            };
            let told = published.correspondents.get(&here);
            if told.is_none_or(|told| told.bindings != bound(pair, entry).bindings) {
                faults.push((Invariant::TablesAgree, format!("{who:?}: {told:?}, {entry:?}")));
            }
            for binding in &entry.bindings {
                let home = pair.home_address.0;
                let known = owned.iter().any(|(of, bid, care_of)| {
                    *of == home
                        && Some(*care_of) == v6(binding.care_of)
                        && binding.bid.is_none_or(|name| name == *bid)
                });
                if !known || binding.expires <= now {
                    faults.push((Invariant::OneOwner, format!("{who:?}: {binding:?} of {home}")));
                }
            }
            if entry.bindings.len() > usize::from(responder.config.max_bindings) {
                faults.push((Invariant::Bounded, format!("{who:?}: {entry:?}")));
            }
        }
        let (live, remembered) = responder.machine.load();
        let most = responder.config.max_mobiles;
        if live > most || live + remembered > 2 * most {
            faults.push((Invariant::Bounded, format!("{who:?}: {live} and {remembered}")));
        }
        if published.correspondents.len() != live {
            let told = published.correspondents.len();
            faults.push((Invariant::TablesAgree, format!("{who:?}: {told} for packets, {live}")));
        }
        faults.into_iter().for_each(|(invariant, text)| self.violate(invariant, text));
    }

    /// I2 and I3 of a mobile's route optimization.
    pub fn witness_optimizer(&mut self, mobile: usize) {
        let it = &self.mobiles[mobile];
        let Some(optimizer) = &it.optimizer else { return };
        let bindings = optimizer.bindings();
        let published = it.published.load_full();
        let told: BTreeSet<(Ipv6Addr, Bid, Ipv6Addr)> = published
            .optimized
            .iter()
            .flat_map(|(pair, held)| {
                held.bindings
                    .iter()
                    .filter_map(|it| Some((pair.correspondent, it.bid?, it.care_of)))
            })
            .collect();
        let own = bindings.iter().all(|(_, bid, care_of)| {
            it.uplinks[bid].attached.is_some_and(|at| at.care_of == *care_of)
        });
        if told != bindings || !own {
            let text = format!("mobile {mobile}: straight {told:?}, the list says {bindings:?}");
            return self.violate(Invariant::TablesAgree, text);
        }
        let (home, acknowledged) = (it.home.address, optimizer.acknowledged.clone());
        for ((correspondent, bid), (care_of, expires, at)) in acknowledged {
            let hosts = self.correspondents.iter().position(|it| it.address == correspondent);
            let mobiles = self.mobiles.iter().position(|it| it.home_address() == correspondent);
            let who = hosts.map(Who::Host).or(mobiles.map(Who::Mobile));
            let Some(who) = who else { continue };
            let base = self.local(who).monotonic.saturating_sub(self.now);
            let now = self.now;
            let Some(responder) = self.responder(who) else { continue };
            let sure = at > responder.shaken + LONGEST_WAY || responder.shaken == Duration::ZERO;
            let entry = responder.machine.get(Pair { correspondent, home_address: home });
            let held = entry.is_some_and(|entry| {
                entry.bindings.iter().any(|it| {
                    it.bid.is_none_or(|it| it == bid)
                        && v6(it.care_of) == Some(care_of)
                        && it.expires.saturating_sub(base) >= expires
                })
            });
            if sure && expires > now && !held {
                let text = format!("mobile {mobile} {bid} at {care_of}: {who:?} has {entry:?}");
                return self.violate(Invariant::AcknowledgedSurvives, text);
            }
        }
    }
}

/// The registration of a mobile at its correspondent as packets are to see it.
fn bound(
    pair: Pair,
    entry: &mtun_signaling::binding::BindingCacheEntry,
) -> mtun_dataplane::Registration {
    publish::bound(pair, entry, mtun_policy::Effective::reflecting(), |_| 1500)
}

fn held_by(responder: &Responder) -> Vec<(Pair, mtun_signaling::binding::BindingCacheEntry)> {
    responder.machine.bindings().map(|(pair, entry)| (pair, entry.clone())).collect()
}
