//! Signaling: what the machines are told, and what they want done, as the daemon's owner loop
//! does it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_dataplane::wire::signalling_packet;
use mtun_policy::HomeAddress;
use mtun_signaling::agent::Detection;
use mtun_signaling::wire::iana::mh;
use mtun_signaling::wire::{self, Message};
use mtun_signaling::{
    AgentEvent, AgentOutput, Envelope, Machine, MobileEvent, MobileNotice, MobileOutput,
    RouteOptimizationEvent, Transmit,
};

use crate::agent::{Agent, Writing};
use crate::copies::Receiver;
use crate::fault::Fault;
use crate::forward::Passed;
use crate::mobile::{Acknowledged, v6};
use crate::network::Origin;
use crate::straight::Who;
use crate::world::World;

/// How old a message may be that a node without memory believes: the tolerance of its timestamps,
/// twice, as the mobile's clock may be off by it too (RFC 4285 §5.1).
const BELIEVABLE: Duration = Duration::from_secs(14);

impl World {
    /// Tells a mobile's machine.
    pub fn mobile_event(&mut self, mobile: usize, event: MobileEvent) {
        let now = self.mobiles[mobile].timestamp(self.now);
        self.mobiles[mobile].node.handle(now, event);
        self.mobile_outputs(mobile);
    }

    /// Lets a mobile do what is due.
    pub fn mobile_timer(&mut self, mobile: usize) {
        let now = self.mobiles[mobile].timestamp(self.now);
        let it = &mut self.mobiles[mobile];
        if it.node.deadline().is_some_and(|at| at <= now.monotonic) {
            it.node.handle_deadline(now);
        }
        self.mobile_outputs(mobile);
        let it = &mut self.mobiles[mobile];
        if it.steering_is_due(self.now) {
            it.publish(self.now);
            self.tell_rules(mobile);
        } else if it.reevaluate.is_some_and(|at| at <= now.monotonic) {
            it.reevaluate = it.engine.reevaluate(now.monotonic);
        }
        self.optimizer_timer(mobile);
        self.correspondent_timer(Who::Mobile(mobile));
        self.copies_released(Receiver::Mobile(mobile));
        self.witness_mobile(mobile);
    }

    fn mobile_outputs(&mut self, mobile: usize) {
        let mut changed = false;
        while let Some(output) = self.mobiles[mobile].node.poll() {
            match output {
                MobileOutput::Transmit(transmit) => self.mobile_transmits(mobile, transmit),
                MobileOutput::Bound { bid, care_of, expires, first } => {
                    changed = true;
                    let verb = if first { "bound" } else { "refreshed" };
                    self.coverage.count(format!("mobile: {verb}"));
                    self.tell(|| format!("mobile {mobile}: {bid:?} {verb} {care_of}"));
                    let it = &mut self.mobiles[mobile];
                    let expires = expires.saturating_sub(it.base);
                    let care_of = v6(care_of).expect("only IPv6 is registered");
                    let acknowledged = Acknowledged { care_of, expires, at: self.now };
                    it.acknowledged.insert(bid, acknowledged);
                }
                MobileOutput::Unbound { bid, reason } => {
                    changed |= self.fault != Fault::MobilePublishesNoEnd;
                    self.coverage.count(format!("mobile: unbound, {}", first_words(&reason)));
                    self.tell(|| format!("mobile {mobile}: {bid:?} unbound: {reason}"));
                    self.mobiles[mobile].acknowledged.remove(&bid);
                }
                MobileOutput::Returning { .. }
                | MobileOutput::Agreed { .. }
                | MobileOutput::AtHome { .. }
                | MobileOutput::LeftHome => changed = true,
                MobileOutput::Notice(notice) => {
                    changed |= matches!(notice, MobileNotice::Refused { .. });
                    if matches!(notice, MobileNotice::SequenceAdopted { .. }) {
                        self.mobiles[mobile].sequence = None;
                    }
                    self.coverage.count(format!("mobile notice: {}", notice.reason()));
                    self.tell(|| format!("mobile {mobile}: {notice}"));
                }
                // No agent of these worlds sends its mobiles away.
                MobileOutput::Switch { .. } => {}
                MobileOutput::Stopped => {
                    changed = true;
                    self.coverage.count("mobile: stopped");
                    self.tell(|| format!("mobile {mobile}: stopped"));
                    self.mobiles[mobile].acknowledged.clear();
                }
            }
        }
        if changed {
            self.mobiles[mobile].publish(self.now);
            self.follow(mobile);
        }
    }

    fn mobile_transmits(&mut self, mobile: usize, mut transmit: Transmit) {
        match self.fault {
            Fault::MobileRepeatsSequence => self.resign(mobile, &mut transmit, |update, _| {
                update.sequence = 7;
            }),
            Fault::MobileLeavesSilently => {
                let update = wire::receive(&transmit.envelope, &transmit.message);
                if let Ok(Message::BindingUpdate(update)) = update
                    && (update.lifetime.is_zero() || update.flags.overwrite)
                {
                    self.resign(mobile, &mut transmit, |update, _| update.flags.overwrite = false);
                    if update.lifetime.is_zero() {
                        return;
                    }
                }
            }
            _ => {}
        }
        let Transmit { envelope, path, message } = &transmit;
        self.witness_update(mobile, envelope, message);
        self.tell(|| format!("mobile {mobile}: {}", text(envelope, message)));
        let Some(bid) = path else { return self.stuck(format!("mobile {mobile}: no path")) };
        self.leave(mobile, *bid, packet_of(envelope, message), Passed::FRESH);
    }

    /// A Mobility Header for a mobile's machine.
    pub fn mobile_reads(
        &mut self,
        mobile: usize,
        tunnelled: bool,
        envelope: Envelope,
        message: Vec<u8>,
        passed: Passed,
    ) {
        let Some(message) = self.straight_to(mobile, tunnelled, envelope, message, passed) else {
            return;
        };
        let mut message = message;
        self.count_message("mobile", &envelope, &message, passed.origin);
        self.tell(|| {
            format!("mobile {mobile} <- {} {}", passed.origin.word(), text(&envelope, &message))
        });
        // What time alone changes is not this message's doing.
        self.mobile_timer(mobile);
        let it = &mut self.mobiles[mobile];
        let known = !it.seen.insert(digest(&envelope, &message));
        let powerless = is_powerless(passed.origin, known, it.born, Duration::ZERO);
        let before = it.grants();
        if self.fault == Fault::MobileBelievesAnybody {
            self.forge_acknowledgement(mobile, &envelope, &mut message);
        }
        self.mobile_event(mobile, MobileEvent::Received { envelope, message });
        let after = self.mobiles[mobile].grants();
        self.witness_powerless(powerless && before != after, || {
            format!("mobile {mobile}: {before:?} became {after:?}")
        });
        self.witness_mobile(mobile);
    }

    /// Gives a message of route optimization to whom it is for; any other comes back.
    fn straight_to(
        &mut self,
        mobile: usize,
        tunnelled: bool,
        envelope: Envelope,
        message: Vec<u8>,
        passed: Passed,
    ) -> Option<Vec<u8>> {
        match message.get(2) {
            Some(&(mh::HOME_TEST_INIT | mh::CARE_OF_TEST_INIT | mh::BINDING_UPDATE)) => {
                self.correspondent_reads(Who::Mobile(mobile), envelope, message, passed);
                None
            }
            _ if envelope.source == self.mobiles[mobile].home.agent.0 => Some(message),
            _ => {
                self.optimizer_reads(mobile, tunnelled, envelope, message, passed);
                None
            }
        }
    }

    /// An ICMPv6 error quotes a message of ours.
    pub fn mobile_unreachable(
        &mut self,
        mobile: usize,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        unknown_header: bool,
    ) {
        if unknown_header {
            self.coverage.count("route: unsupported");
            let event = RouteOptimizationEvent::Unsupported { correspondent: destination };
            self.optimizer_event(mobile, event);
        }
        let it = &self.mobiles[mobile];
        let mut uplinks = it.uplinks.iter();
        let with =
            uplinks.find(|(_, uplink)| uplink.attached.is_some_and(|at| at.care_of == source));
        let bid = with.map(|(&bid, _)| bid);
        if let Some(bid) = bid.filter(|_| it.home.agent.0 == destination) {
            self.tell(|| format!("mobile {mobile}: unreachable by {bid}"));
            self.mobile_timer(mobile);
            let before = self.mobiles[mobile].grants();
            self.mobile_event(mobile, MobileEvent::Unreachable { bid });
            let after = self.mobiles[mobile].grants();
            self.witness_powerless(before != after, || {
                format!("mobile {mobile}: by an ICMP error")
            });
            self.witness_mobile(mobile);
        }
    }

    /// Lets an agent do what is due.
    pub fn agent_timer(&mut self, agent: usize) {
        let now = self.agents[agent].timestamp(self.now);
        self.agents[agent].machine.handle_deadline(now);
        self.agent_outputs(agent, None);
        let (world, it) = (self.now, &mut self.agents[agent]);
        if let Some((_, home_address)) = it.checks.pop_front_if(|(at, _)| *at <= world) {
            let event = AgentEvent::DuplicateChecked { home_address, detection: Detection::Unique };
            self.coverage.count("agent: duplicate checked");
            self.agent_event(agent, event, None);
        }
        while let Some(written) = self.agents[agent].writing.pop_front_if(|it| it.safe_at <= world)
        {
            let home_address = written.record.home_address;
            self.coverage.count("agent: kept");
            self.agents[agent].disk.insert(home_address, (written.kept_at, written.record));
            written.answers.iter().for_each(|answer| self.agent_transmits(agent, answer));
        }
        self.copies_released(Receiver::Agent(agent));
        self.witness_agent(agent);
    }

    /// Tells an agent's machine; `sequence` is that of the update, if it is one.
    pub fn agent_event(&mut self, agent: usize, event: AgentEvent, sequence: Option<u16>) {
        let now = self.agents[agent].timestamp(self.now);
        self.agents[agent].machine.handle(now, event);
        self.agent_outputs(agent, sequence);
    }

    fn agent_transmits(&mut self, agent: usize, transmit: &Transmit) {
        let Transmit { envelope, message, .. } = transmit;
        self.tell(|| format!("agent {agent}: {}", text(envelope, message)));
        let it = &self.agents[agent];
        let (link, cut) = (it.link, it.cut);
        self.route(link, cut, packet_of(envelope, message), Passed::FRESH);
    }

    fn agent_outputs(&mut self, agent: usize, sequence: Option<u16>) {
        let (mut keep, mut answers) = (None, Vec::new());
        while let Some(output) = self.agents[agent].machine.poll() {
            match output {
                AgentOutput::Transmit(transmit) => answers.push(transmit),
                AgentOutput::Changed { home_address, effective } => {
                    self.coverage.count("agent: changed");
                    let told =
                        self.trace.is_some().then(|| self_cache(&self.agents[agent], home_address));
                    self.tell(|| told.unwrap_or_default());
                    self.witness_accepted(agent, home_address, sequence);
                    let it = &self.agents[agent];
                    let ended = it.machine.cache().get(home_address).is_none();
                    if effective && !(ended && self.fault == Fault::AgentPublishesNoEnd) {
                        it.publish(home_address, self.now);
                    }
                }
                AgentOutput::Keep { home_address } => keep = Some(home_address),
                AgentOutput::CheckDuplicate { home_address, .. } => {
                    let at = self.now + Duration::from_secs(1);
                    self.agents[agent].checks.push_back((at, home_address));
                }
                // Nobody in these worlds asks for agents or prefixes, and home links have no hosts.
                AgentOutput::Advertise(_)
                | AgentOutput::Defend { .. }
                | AgentOutput::Undefend { .. }
                | AgentOutput::Neighbour { .. } => {}
                AgentOutput::Notice(notice) => {
                    self.coverage.count(format!("agent notice: {}", notice.reason()));
                    self.tell(|| format!("agent {agent}: {notice}"));
                }
            }
        }
        let it = &mut self.agents[agent];
        let record = keep.filter(|_| it.keeps);
        let record = record.and_then(|home| it.machine.record(it.timestamp(self.now), home));
        let Some(record) = record else {
            return answers.iter().for_each(|answer| self.agent_transmits(agent, answer));
        };
        // Answers leave when what they say would outlive the agent.
        let last = it.writing.back().map_or(self.now, |it| it.safe_at);
        let safe_at = last.max(self.now) + Duration::from_millis(self.random.milliseconds(20));
        let (kept_at, message) = (self.now, it.reading);
        it.writing.push_back(Writing { safe_at, kept_at, record, message, answers });
    }

    /// A Mobility Header for an agent's machine.
    pub fn agent_reads(
        &mut self,
        agent: usize,
        envelope: Envelope,
        mut message: Vec<u8>,
        passed: Passed,
    ) {
        self.count_message("agent", &envelope, &message, passed.origin);
        self.tell(|| {
            format!("agent {agent} <- {} {}", passed.origin.word(), text(&envelope, &message))
        });
        self.agent_timer(agent);
        let digest = digest(&envelope, &message);
        let it = &mut self.agents[agent];
        it.reading = Some(digest);
        let known = !it.seen.insert(digest);
        let powerless = is_powerless(passed.origin, known, it.born, BELIEVABLE);
        let before = it.machine.cache().clone();
        match self.fault {
            Fault::AgentForgetsSequence => self.freshen(agent, &envelope, &mut message, false),
            Fault::AgentBelievesAnybody => self.freshen(agent, &envelope, &mut message, true),
            Fault::AgentForgetsBindings if self.random.chance(50) => {
                let clocks = (self.agents[agent].base, self.agents[agent].epoch);
                let (born, shaken) = (self.agents[agent].born, self.agents[agent].shaken);
                self.agents[agent].restart(self.fault, self.now, clocks);
                (self.agents[agent].born, self.agents[agent].shaken) = (born, shaken);
            }
            _ => {}
        }
        let sequence = match wire::receive(&envelope, &message) {
            Ok(Message::BindingUpdate(update)) => Some(update.sequence),
            _ => None,
        };
        let event = AgentEvent::Received { envelope, message };
        self.agent_event(agent, event, sequence);
        self.agents[agent].reading = None;
        let changed = *self.agents[agent].machine.cache() != before;
        self.witness_powerless(powerless && changed, || format!("agent {agent}: its cache"));
        self.witness_agent(agent);
    }

    /// Counts who read what, and with which status.
    pub fn count_message(
        &mut self,
        who: &str,
        envelope: &Envelope,
        message: &[u8],
        origin: Origin,
    ) {
        let kind = match wire::receive(envelope, message) {
            Ok(Message::BindingAcknowledgement(acknowledgement)) => {
                for bid in acknowledgement.options.bids() {
                    let status = bid.status.0;
                    self.coverage.count(format!("status of a binding: {status}"));
                }
                format!("acknowledgement with status {}", acknowledgement.status.0)
            }
            Ok(Message::BindingUpdate(_)) => "update".to_owned(),
            Ok(other) => format!("message of type {}", other.mh_type()),
            Err(_) => "undecodable message".to_owned(),
        };
        self.coverage.count(format!("{who} reads: {} {kind}", origin.word()));
    }

    /// The faults of agents: signs whatever came as its mobile would have signed it now.
    fn freshen(&mut self, agent: usize, envelope: &Envelope, message: &mut Vec<u8>, believe: bool) {
        let it = &self.agents[agent];
        let home_address = envelope.upper_source();
        let Some(key) = it.key_of(home_address) else { return };
        let Ok(Message::BindingUpdate(mut update)) = wire::receive(envelope, message) else {
            return;
        };
        let care_of = mtun_signaling::auth::care_of_address(&update, envelope);
        let home_address = HomeAddress(home_address);
        if !believe && mtun_signaling::auth::verify(message, care_of, home_address, key).is_err() {
            return;
        }
        if let Some((last, _)) = it.sequences.get(&home_address) {
            update.sequence = last.wrapping_add(1);
        }
        let now = it.timestamp(self.now).wall;
        let update = Message::BindingUpdate(update);
        if let Ok(fresh) = wire::emit_authenticated(&update, envelope, care_of, key, Some(now)) {
            *message = fresh;
        }
    }

    /// A fault of mobiles: what claims to acknowledge the last update is taken to do so.
    fn forge_acknowledgement(&mut self, mobile: usize, envelope: &Envelope, message: &mut Vec<u8>) {
        let Ok(Message::BindingAcknowledgement(mut ack)) = wire::receive(envelope, message) else {
            return;
        };
        let it = &self.mobiles[mobile];
        let Some((sequence, timestamp, care_of)) = it.outstanding else { return };
        ack.sequence = sequence;
        let message_id = timestamp;
        let forged = Message::BindingAcknowledgement(ack);
        let signed = wire::emit_authenticated(&forged, envelope, care_of, &it.key, message_id);
        if let Ok(signed) = signed {
            *message = signed;
        }
    }

    /// The faults of mobiles: changes an update and signs it again.
    fn resign(
        &mut self,
        mobile: usize,
        transmit: &mut Transmit,
        change: impl FnOnce(&mut wire::BindingUpdate, &Envelope),
    ) {
        let envelope = transmit.envelope;
        let Ok(Message::BindingUpdate(mut update)) = wire::receive(&envelope, &transmit.message)
        else {
            return;
        };
        let care_of = mtun_signaling::auth::care_of_address(&update, &envelope);
        let message_id = update.options.message_id();
        change(&mut update, &envelope);
        let update = Message::BindingUpdate(update);
        let key = &self.mobiles[mobile].key;
        if let Ok(message) = wire::emit_authenticated(&update, &envelope, care_of, key, message_id)
        {
            transmit.message = message;
        }
    }
}

/// Whether a message must change nothing: forged, altered, or read before; or from a time of which
/// this life of the node can know nothing.
pub fn is_powerless(origin: Origin, known: bool, born: Duration, believable: Duration) -> bool {
    match origin {
        Origin::Forged | Origin::Altered => true,
        Origin::Replayed(at) => known || at + believable < born,
        Origin::Honest => known,
    }
}

impl Origin {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::Replayed(_) => "replayed",
            Self::Altered => "altered",
            Self::Forged => "forged",
        }
    }
}

/// The whole packet around a message.
pub fn packet_of(envelope: &Envelope, message: &[u8]) -> Vec<u8> {
    signalling_packet(
        envelope.source,
        envelope.destination,
        envelope.home_address.map(|home| home.0),
        envelope.routing_header.map(|home| home.0),
        message,
    )
}

pub fn digest(envelope: &Envelope, message: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (envelope.source, envelope.destination).hash(&mut hasher);
    (envelope.upper_source(), envelope.upper_destination()).hash(&mut hasher);
    message.hash(&mut hasher);
    hasher.finish()
}

fn first_words(reason: &impl ToString) -> String {
    let text = reason.to_string();
    text.split(':').next().unwrap_or_default().to_owned()
}

fn self_cache(agent: &Agent, home_address: HomeAddress) -> String {
    match agent.machine.cache().get(home_address) {
        None => format!("agent holds nothing for {home_address}"),
        Some(entry) => {
            let of = |it: &mtun_signaling::binding::Binding| match it.bid {
                Some(bid) => format!(" [{bid} {}]", it.care_of),
                None => format!(" [plain {}]", it.care_of),
            };
            let bindings: String = entry.bindings.iter().map(of).collect();
            format!("agent holds for {home_address}:{bindings}")
        }
    }
}

/// A message for people.
pub fn text(envelope: &Envelope, message: &[u8]) -> String {
    let Envelope { source, destination, .. } = envelope;
    let what = match wire::receive(envelope, message) {
        Ok(Message::BindingUpdate(update)) => {
            let bids: Vec<_> = update
                .options
                .bids()
                .map(|it| {
                    format!("{} {:?}", it.bid.map_or(0, |bid| bid.get()), it.care_of.map(|it| it.0))
                })
                .collect();
            let overwrite = if update.flags.overwrite { " O" } else { "" };
            format!(
                "BindingUpdate seq={}{overwrite} lifetime={} {bids:?}",
                update.sequence,
                update.lifetime.duration().as_secs()
            )
        }
        Ok(Message::BindingAcknowledgement(it)) => {
            let bids: Vec<_> = it
                .options
                .bids()
                .map(|it| format!("{} {}", it.bid.map_or(0, |bid| bid.get()), it.status.0))
                .collect();
            format!("BindingAck seq={} status={} {bids:?}", it.sequence, it.status.0)
        }
        Ok(other) => format!("message of type {}", other.mh_type()),
        Err(error) => match message.get(2) {
            Some(&mh::BINDING_UPDATE) => format!("unreadable update: {error}"),
            _ => format!("unreadable: {error}"),
        },
    };
    format!("{what} {source} -> {destination}")
}
