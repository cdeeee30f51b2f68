//! Routes past the home agent, as the owner loop sees to them: who is told of which message, what
//! traffic says, and what packets and people learn.
//!
//! ```text
//!   Home Test, Care-of Test, acknowledgement ──► RouteOptimization of a home ──► Snapshot.optimized
//!   Home and Care-of Test Init, update ────────► Correspondent ──────► Snapshot.correspondents
//!   what traffic says (RouteNote) ─────────────► whichever end of the pair we are
//! ```

use std::net::Ipv6Addr;

use mtun_dataplane::{PathId, RouteNote};
use mtun_policy::{Bid, HomeAddress, HomeName};
use mtun_signaling::agent::AgentEvent;
use mtun_signaling::correspondent::{
    CorrespondentEvent, CorrespondentNotice, CorrespondentOutput, Pair,
};
use mtun_signaling::machine::{Envelope, Transmit};
use mtun_signaling::mobile::route_optimization::{
    Route, RouteOptimizationEvent, RouteOptimizationNotice, RouteOptimizationOutput,
};
use mtun_signaling::mobile::{MobileEvent, MobileOutput};
use mtun_signaling::mobility_socket::{BeCause, BeHint};
use mtun_signaling::wire::iana::mh;

use super::home::MobileHome;
use super::optimization::{Why, named};
use super::owner::Owner;
use super::served::AgentHome;
use super::tunnel::Tunnel;
use crate::control::documents::{Event, Severity};
use crate::publish;

/// Where messages are counted that belong to no home.
const NO_HOME: &str = "none";

impl Owner {
    // ---- what arrives --------------------------------------------------------------------------

    /// Hands a Mobility Header to the machine that it is for.
    pub(super) fn message_arrived(&mut self, tunneled: bool, envelope: Envelope, message: Vec<u8>) {
        let now = self.now();
        let agent = self.served.iter().position(|it| it.served.agent.0 == envelope.destination);
        let kind = message.get(2).copied();
        let to_correspondent = match kind {
            Some(mh::HOME_TEST_INIT | mh::CARE_OF_TEST_INIT) => true,
            Some(mh::BINDING_UPDATE) => {
                let its_mobile = |it: &AgentHome| {
                    is_home_registration(&message)
                        || envelope.home_address.is_some_and(|home| it.allowed(home).is_some())
                };
                let responds = self.responder.is_some();
                !agent.is_some_and(|agent| !responds || its_mobile(&self.served[agent]))
            }
            _ => false,
        };
        if to_correspondent {
            return self.corresponds(&envelope, message);
        }
        let from_agent = |home: &MobileHome| {
            let to = envelope.routing_header.is_none_or(|to| to == home.home.address);
            home.home.agent.0 == envelope.source && to
        };
        let of_route = matches!(
            kind,
            Some(
                mh::HOME_TEST
                    | mh::CARE_OF_TEST
                    | mh::BINDING_ACKNOWLEDGEMENT
                    | mh::BINDING_REFRESH_REQUEST
                    | mh::BINDING_ERROR
            )
        );
        if let Some(home) = self.homes.iter().position(from_agent) {
            let event = MobileEvent::Received { envelope, message };
            let outputs = self.homes[home].handle(now, event);
            let acknowledged =
                outputs.iter().any(|output| matches!(output, MobileOutput::Bound { .. }));
            self.mobile_outputs(home, outputs);
            if acknowledged {
                self.heard_by(home, envelope.destination);
            }
        } else if of_route && !self.homes.is_empty() {
            self.route_message(tunneled, envelope, message);
        } else if let Some(agent) = agent {
            let source = HomeAddress(envelope.source);
            let outputs =
                self.served[agent].handle(now, AgentEvent::Received { envelope, message });
            self.note_return(agent, source);
            self.agent_outputs(agent, outputs);
        } else {
            self.corresponds(&envelope, message);
        }
    }

    fn corresponds(&mut self, envelope: &Envelope, message: Vec<u8>) {
        let now = self.now();
        if let Some(responder) = &mut self.responder {
            let event = CorrespondentEvent::Received { envelope: *envelope, message };
            let outputs = responder.handle(now, event);
            return self.correspondent_outputs(outputs);
        }
        *self.counts.notices.entry((NO_HOME.into(), "no_correspondent")).or_default() += 1;
        if let Some(answer) = self.strangers.answer(now.monotonic, envelope, &message) {
            self.send_from(envelope.destination, &answer);
        }
    }

    /// A message of a correspondent. Its home address says for which home it is; a message to a
    /// care-of address is for whoever asked, which each machine knows of its own.
    fn route_message(&mut self, tunneled: bool, envelope: Envelope, message: Vec<u8>) {
        let now = self.now();
        let to = envelope.upper_destination();
        let named = self.home_of(HomeAddress(to));
        let homes = match named {
            Some(home) => home..home + 1,
            None => 0..self.homes.len(),
        };
        let last = self.homes.len().saturating_sub(1);
        for home in homes {
            let Some(optimization) = &mut self.homes[home].optimization else { continue };
            let knows = optimization.wanted().any(|it| it == envelope.source)
                || optimization.machine().entries().any(|it| it.correspondent == envelope.source);
            // The last one is told in any case, and counts what nobody asked for.
            if !knows && named.is_none() && home < last {
                continue;
            }
            let message = message.clone();
            let event = RouteOptimizationEvent::Received { envelope, message, tunneled };
            let outputs = optimization.handle(now, event);
            self.optimization_outputs(home, outputs);
        }
    }

    /// A packet with the Home Address option of somebody who is not bound.
    pub(super) fn unknown_binding(
        &mut self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        home_address: HomeAddress,
    ) {
        let now = self.now();
        self.hint_of_strangers(BeHint {
            cause: BeCause::UnknownBinding,
            home_address,
            peer: source,
            home: None,
            bid: None,
        });
        if let Some(responder) = &mut self.responder {
            let event = CorrespondentEvent::UnknownBinding { source, destination, home_address };
            let outputs = responder.handle(now, event);
            self.correspondent_outputs(outputs);
        }
    }

    /// A node on the way, or the correspondent itself, refused a Mobility Header of ours.
    pub(super) fn message_refused(&mut self, destination: Ipv6Addr, kind: u8, code: u8) {
        const PARAMETER_PROBLEM: u8 = 4;
        const UNRECOGNIZED_NEXT_HEADER: u8 = 1;
        if (kind, code) == (PARAMETER_PROBLEM, UNRECOGNIZED_NEXT_HEADER) {
            let event = RouteOptimizationEvent::Unsupported { correspondent: destination };
            for home in 0..self.homes.len() {
                self.tell_optimization(home, event.clone());
            }
        }
    }

    // ---- what traffic says ---------------------------------------------------------------------

    /// Reads what traffic said of routes.
    pub(super) fn noted(&mut self) {
        let lanes = self.shared.lanes.load_full();
        for note in lanes.iter().flat_map(|lane| lane.engine.route_notes()) {
            self.route_note(note);
        }
    }

    fn route_note(&mut self, note: RouteNote) {
        let now = self.now();
        match note {
            RouteNote::Wanted(pair) => {
                let Some(home) = self.home_of(pair.home_address) else { return };
                self.show_wanted(home, pair.correspondent);
                if let Some(optimization) = &mut self.homes[home].optimization {
                    let outputs = optimization.want(now, pair.correspondent);
                    self.optimization_outputs(home, outputs);
                }
            }
            RouteNote::WantedAtOnce(pair) => {
                let Some(home) = self.home_of(pair.home_address) else { return };
                self.show_wanted(home, pair.correspondent);
                if let Some(optimization) = &mut self.homes[home].optimization {
                    let outputs = optimization.want_at_once(now, pair.correspondent);
                    self.optimization_outputs(home, outputs);
                }
            }
            RouteNote::Used(pair) => match self.home_of(pair.home_address) {
                Some(home) => {
                    if let Some(optimization) = &mut self.homes[home].optimization {
                        optimization.used(now.monotonic, pair.correspondent);
                    }
                }
                None => {
                    let Some(responder) = &mut self.responder else { return };
                    let outputs = responder.used(now, publish::pair_here(pair));
                    self.correspondent_outputs(outputs);
                }
            },
            RouteNote::Eaten { pair, bid } => {
                self.cut_off(BeCause::HeadersEaten, pair.home_address, pair.correspondent, bid);
                if let (Some(home), Some(bid)) = (self.home_of(pair.home_address), bid) {
                    let correspondent = pair.correspondent;
                    let event = RouteOptimizationEvent::HeadersEaten { correspondent, bid };
                    self.tell_optimization(home, event);
                }
            }
            RouteNote::Refused(pair) => {
                let (home_address, peer) = (pair.home_address, pair.correspondent);
                self.cut_off(BeCause::OptionRefused, home_address, peer, None);
                self.option_refused(home_address, peer);
            }
            RouteNote::Unreachable { pair, care_of, bid } => {
                let (home_address, peer) = (pair.home_address, care_of);
                self.cut_off(BeCause::Unreachable, home_address, peer, bid);
                let Some(responder) = &mut self.responder else { return };
                let (pair, care_of) = (publish::pair_here(pair), care_of.into());
                let outputs =
                    responder.handle(now, CorrespondentEvent::Unreachable { pair, care_of });
                self.correspondent_outputs(outputs);
            }
        }
    }

    /// The correspondent does not know the Home Address option, whatever it acknowledged before.
    fn option_refused(&mut self, home_address: HomeAddress, correspondent: Ipv6Addr) {
        let Some(home) = self.home_of(home_address) else { return };
        let Some(optimization) = &self.homes[home].optimization else { return };
        let bound = optimization.machine().bindings();
        let bids: Vec<Bid> =
            bound.filter(|it| it.correspondent == correspondent).map(|it| it.bid).collect();
        for bid in bids {
            let event = RouteOptimizationEvent::HeadersEaten { correspondent, bid };
            self.tell_optimization(home, event);
        }
    }

    // ---- the mobile's end ----------------------------------------------------------------------

    /// The home of ours with this home address.
    pub(super) fn home_of(&self, address: HomeAddress) -> Option<usize> {
        self.homes.iter().position(|home| home.home.address == address)
    }

    pub(super) fn tell_optimization(&mut self, home: usize, event: RouteOptimizationEvent) {
        let now = self.now();
        if let Some(optimization) = &mut self.homes[home].optimization {
            let outputs = optimization.handle(now, event);
            self.optimization_outputs(home, outputs);
        }
    }

    /// The home is on its home link and uses nothing else: nothing stays bound at correspondents.
    pub(super) fn optimization_returned(&mut self, home: usize) {
        let now = self.now();
        if let Some(optimization) = &mut self.homes[home].optimization {
            let outputs = optimization.returned_home(now);
            self.optimization_outputs(home, outputs);
        }
    }

    /// Tells route optimization which care-of addresses the home agent holds.
    pub(super) fn follow_bindings(&mut self, home: usize) {
        let now = self.now();
        let (policy, links) = (&self.policy, &self.links);
        let attached = |bid: Bid| {
            let link = policy.interface_of(bid).and_then(|it| links.get(&it.name));
            link.is_some_and(|record| record.state.is_ok())
        };
        let MobileHome { optimization, node, .. } = &mut self.homes[home];
        if let Some(optimization) = optimization {
            let outputs = optimization.follow(now, &node.update_list(), attached);
            self.optimization_outputs(home, outputs);
        }
    }

    /// Wants what the rules of every home name.
    pub(super) fn want_named(&mut self) {
        let now = self.now();
        for home in 0..self.homes.len() {
            let MobileHome { optimization, home: it, .. } = &mut self.homes[home];
            let Some(optimization) = optimization else { continue };
            let outputs = optimization.want_always(now, &named(it));
            self.optimization_outputs(home, outputs);
        }
    }

    pub(super) fn optimization_outputs(
        &mut self,
        home: usize,
        outputs: Vec<RouteOptimizationOutput>,
    ) {
        let name = self.homes[home].home.name.clone();
        for output in outputs {
            match output {
                RouteOptimizationOutput::Transmit { route, envelope, message } => {
                    self.counts.sent_to_correspondent(&name, &message);
                    self.send_by_route(home, route, &envelope, &message);
                }
                RouteOptimizationOutput::Bound { correspondent, bid, care_of, expires, first } => {
                    self.publish_held(home, correspondent);
                    let seconds = expires.saturating_sub(self.now().monotonic).as_secs();
                    let (home, link) = (name.clone(), self.link_of(Some(bid)));
                    let event = Event::RouteOptimized {
                        home,
                        correspondent,
                        bid,
                        link,
                        care_of: care_of.into(),
                        granted_seconds: seconds,
                        first,
                    };
                    if first { self.tell(event) } else { self.whisper(event) }
                }
                RouteOptimizationOutput::Unbound { correspondent, bid, reason } => {
                    self.publish_held(home, correspondent);
                    let why = Why::Fell(reason);
                    self.counts.fallen_back(&name, why.word());
                    self.tell(Event::RouteTunnelled {
                        home: name.clone(),
                        correspondent,
                        bid,
                        link: self.link_of(Some(bid)),
                        reason: why.to_string(),
                    });
                }
                RouteOptimizationOutput::Notice(notice) => self.optimization_notice(&name, &notice),
                RouteOptimizationOutput::Stopped => {
                    if let Some(optimization) = &mut self.homes[home].optimization {
                        optimization.stopped = true;
                    }
                }
            }
        }
    }

    fn publish_held(&self, home: usize, correspondent: Ipv6Addr) {
        let it = &self.homes[home];
        let Some(optimization) = &it.optimization else { return };
        let held = optimization.held(correspondent);
        publish::publish_held(&*it.tunnel.lane.engine, it.home.address, correspondent, held);
    }

    fn optimization_notice(&mut self, home: &HomeName, notice: &RouteOptimizationNotice) {
        use RouteOptimizationNotice as Notice;
        let code = notice.reason();
        let counted = (home.clone(), code);
        *self.counts.notices.entry(counted).or_default() += 1;
        let severity = match notice {
            Notice::HeadersEaten { .. } => Severity::Warning,
            Notice::Refused { .. } | Notice::Unanswered { .. } | Notice::Unsupported { .. } => {
                self.counts.fallen_back(home, code.replace('_', "-"));
                Severity::Info
            }
            // Most of the internet is no correspondent, and strangers can cause the rest.
            _ => {
                tracing::debug!(%home, "{notice}");
                return;
            }
        };
        let text = format!("home {home}: {notice}");
        let event = Event::Notice { severity, code: code.to_owned(), text };
        match severity {
            Severity::Warning => self.tell(event),
            Severity::Info => self.whisper(event),
        }
    }

    fn send_by_route(&self, home: usize, route: Route, envelope: &Envelope, message: &[u8]) {
        let packet = packet(envelope, message);
        match route {
            Route::Tunnel(bid) => self.send_in_tunnel(home, Some(bid), &packet),
            Route::Path(bid) => self.send_packet(PathId(bid.get()), &packet),
            Route::Home => self.send_in_tunnel(home, None, &packet),
        }
    }

    // ---- the correspondent's end ---------------------------------------------------------------

    pub(super) fn correspondent_outputs(&mut self, outputs: Vec<CorrespondentOutput>) {
        let mut changed = false;
        for output in outputs {
            match output {
                CorrespondentOutput::Transmit(transmit) => match &mut self.responder {
                    // The mobile may speak as soon as it is acknowledged, and has to be answered
                    // straight.
                    Some(responder) if changed => responder.held.push(transmit),
                    _ => self.answer_mobile(&transmit),
                },
                CorrespondentOutput::Changed { pair, effective } => {
                    if self.listeners.is_listened() {
                        self.changed.pairs.insert(pair);
                    }
                    if effective {
                        changed = true;
                        self.publish_correspondent(pair);
                    }
                }
                CorrespondentOutput::Notice(notice) => self.correspondent_notice(&notice),
            }
        }
    }

    fn answer_mobile(&self, transmit: &Transmit) {
        let Transmit { envelope, message, .. } = transmit;
        self.send_from(envelope.source, &packet(envelope, message));
    }

    /// Sends what waited for routes.
    pub(super) fn send_held(&mut self) {
        let Some(responder) = &mut self.responder else { return };
        for transmit in std::mem::take(&mut responder.held) {
            self.answer_mobile(&transmit);
        }
    }

    fn publish_correspondent(&mut self, pair: Pair) {
        let Some(responder) = &self.responder else { return };
        let entry = responder.get(pair).filter(|entry| !entry.bindings.is_empty());
        let registration = entry.map(|entry| {
            let effective = responder.reflecting.clone();
            publish::bound(pair, entry, effective, |care_of| self.mtu_towards(care_of))
        });
        let bindings = registration.iter().flat_map(|registration| &registration.bindings);
        let care_of = bindings.map(|binding| binding.care_of).collect();
        let leaving = registration.is_none();
        if registration.is_some() {
            self.publish_pair(pair, registration.as_ref());
        }
        if let Some(responder) = &mut self.responder {
            // Packets of a pair that ended go nowhere else, until no route leads here.
            match leaving {
                true => responder.leaving.insert(pair),
                false => responder.leaving.remove(&pair),
            };
        }
        self.routes_dirty = true;
        // Whoever has an address may bind it: not for the log.
        self.whisper(Event::CorrespondentChanged {
            correspondent: pair.correspondent,
            home_address: pair.home_address,
            care_of,
        });
    }

    fn publish_pair(&self, pair: Pair, registration: Option<&mtun_dataplane::Registration>) {
        for tunnel in self.tunnels() {
            publish::publish_correspondent(&*tunnel.lane.engine, pair, registration.cloned());
        }
    }

    /// No route leads to these pairs any more.
    pub(super) fn forget_left(&mut self) {
        let Some(responder) = &mut self.responder else { return };
        for pair in std::mem::take(&mut responder.leaving) {
            self.publish_pair(pair, None);
        }
    }

    fn correspondent_notice(&mut self, notice: &CorrespondentNotice) {
        let code = notice.reason();
        *self.counts.notices.entry((NO_HOME.into(), code)).or_default() += 1;
        // What strangers can cause must not fill the log; the counters have it.
        tracing::debug!("{notice}");
    }

    // ---- sending -------------------------------------------------------------------------------

    /// All home-bound interfaces.
    pub(super) fn tunnels(&self) -> impl Iterator<Item = &Tunnel> {
        let homes = self.homes.iter().map(|home| &home.tunnel);
        let served = self.served.iter().map(|served| &served.tunnel);
        let own = self.responder.iter().filter_map(|responder| responder.tunnel.as_ref());
        homes.chain(served).chain(own)
    }

    /// Sends a packet of ours from one of our addresses: through the tunnel from a home address,
    /// by its uplink from a care-of address, else by ordinary routing.
    fn send_from(&self, source: Ipv6Addr, packet: &[u8]) {
        if let Some(home) = self.home_of(HomeAddress(source)) {
            return self.send_in_tunnel(home, None, packet);
        }
        let path = self.bid_of(source).map_or(PathId::ROUTED, |bid| PathId(bid.get()));
        self.send_packet(path, packet);
    }

    /// Sends signaling of a home address to its home agent, by this binding or the preferred one.
    fn send_in_tunnel(&self, home: usize, bid: Option<Bid>, packet: &[u8]) {
        let it = &self.homes[home];
        let engine = &it.tunnel.lane.engine;
        let mut out = Vec::new();
        match engine.outbound_signalling(it.home.address, bid, packet, &mut out) {
            Ok(path) => self.send_packet(path, &out),
            // It is sent again, if it matters.
            Err(reason) => tracing::debug!(reason = reason.as_str(), "signaling without a way"),
        }
    }

    pub(super) fn send_packet(&self, path: PathId, packet: &[u8]) {
        match self.shared.paths.send(path, packet) {
            Some(Ok(())) => {}
            // It will be sent again; a lasting fault shows as retries in `mtun bindings`.
            Some(Err(error)) => tracing::debug!(%error, ?path, "signaling could not be sent"),
            None => tracing::debug!(?path, "signaling for a path that is closed"),
        }
    }
}

/// A Mobility Header in its packet.
pub(super) fn packet(envelope: &Envelope, message: &[u8]) -> Vec<u8> {
    mtun_dataplane::wire::signalling_packet(
        envelope.source,
        envelope.destination,
        envelope.home_address.map(|home| home.0),
        envelope.routing_header.map(|home| home.0),
        message,
    )
}

/// Whether a Binding Update has the H flag (RFC 6275 §6.1.7).
fn is_home_registration(update: &[u8]) -> bool {
    const FLAGS: usize = 8;
    const HOME: u8 = 0x40;
    update.get(FLAGS).is_some_and(|flags| flags & HOME != 0)
}
