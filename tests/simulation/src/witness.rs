//! What must hold at every step, asked of the machines' own lists and of octets on the wire.
//!
//! The tables that packets read are never asked whether they are right: they are compared with
//! the lists from which they were made.

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_dataplane::{BindingTable, Registration};
use mtun_policy::{Bid, HomeAddress};
use mtun_signaling::agent::MAX_DELETE_BCE_TIMEOUT;
use mtun_signaling::wire::{self, Message};
use mtun_signaling::{Envelope, auth};

use crate::fault::Fault;
use crate::forward::Passed;
use crate::mobile::{FLOWS, v6};
use crate::network::{LONGEST_WAY, Origin};
use crate::packet::{self, Layer};
use crate::straight::Who;
use crate::text::UPLINKS;
use crate::world::World;

/// Nodes that a packet, wrapped or not, may pass before it counts as going round.
const HOP_BUDGET: u8 = 40;
/// Most headers around each other: a packet, its tunnel, one that says how many may follow, and
/// those (RFC 2473 §4.1.1, §6.6).
const MOST_HEADERS: usize = 7;
/// Most Binding Updates of a mobile in any second (RFC 6275 §11.8).
const UPDATES_PER_SECOND: usize = 3;

/// Whether a sequence number follows another, modulo 2^16 (RFC 6275 §9.5.1).
fn is_newer(new: u16, last: u16) -> bool {
    matches!(new.wrapping_sub(last), 1..=0x7fff)
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// I1: no packet leaves or enters with an inner source outside its binding.
    SourceInsideBinding,
    /// I2: what was acknowledged is held.
    AcknowledgedSurvives,
    /// I3: list, cache and the tables of packets agree.
    TablesAgree,
    /// I4: a home address and a prefix have one owner.
    OneOwner,
    /// I5: no packet goes round.
    NoLoop,
    /// I6: sequence numbers only rise.
    SequenceRises,
    /// I7: nothing grows without bound.
    Bounded,
    /// I8: what is not authenticated, or was played before, changes nothing.
    OnlyAuthentic,
    /// I9: of numbered copies one is delivered.
    CopiesOnce,
    /// Every timer that fires moves on, every message has a way.
    Alive,
}

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, since the world began.
    pub at: Duration,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:.3} s: {}", self.invariant, self.at.as_secs_f64(), self.text)
    }
}

impl World {
    /// Notes the first violation.
    pub fn violate(&mut self, invariant: Invariant, text: String) {
        let at = self.now;
        self.tell(|| format!("VIOLATION of {invariant:?}: {text}"));
        self.violation.get_or_insert(Violation { invariant, at, text });
    }

    /// Something that cannot go on.
    pub fn stuck(&mut self, text: String) {
        self.violate(Invariant::Alive, text);
    }

    /// A packet that should not be where it is.
    pub fn astray(&mut self, text: String) {
        self.violate(Invariant::SourceInsideBinding, text);
    }

    /// I5.
    pub fn witness_hops(&mut self, hops: u8, origin: Origin, packet: &[u8]) {
        let headers = packet::layers(packet).len();
        // Whoever alters a packet on its way may alter its limit.
        let altered = origin == Origin::Altered || self.limits_altered;
        let wrapped = headers > MOST_HEADERS && !altered;
        if hops > HOP_BUDGET || wrapped {
            let text = format!("{hops} hops, {headers} headers, {}", origin.word());
            self.violate(Invariant::NoLoop, text);
        }
    }

    /// I1 at the way out of a mobile: an update or a test by its own uplink, or a tunnel by a
    /// binding that the list calls bound.
    pub fn witness_leaving(&mut self, mobile: usize, bid: Bid, packet: &[u8]) {
        let it = &self.mobiles[mobile];
        let layers = packet::layers(packet);
        let care_of = it.uplinks[&bid].attached.map(|at| at.care_of);
        let Some(outer) = layers.first() else {
            return self.astray(format!("mobile {mobile} sends no packet at all"));
        };
        if outer.is_signalling() || outer.is_icmp() {
            if care_of.is_some_and(|care_of| care_of != outer.source) {
                self.astray(format!("mobile {mobile} signals from {}", outer.source));
            }
            return;
        }
        if let Some(home) = outer.home_address.filter(|_| !outer.is_tunnel()) {
            let correspondent = outer.routing_header.unwrap_or(outer.destination);
            let bound = it.optimizer.as_ref().is_some_and(|optimizer| {
                optimizer.bindings().contains(&(correspondent, bid, outer.source))
            });
            if !bound || home != it.home_address() || care_of.is_some_and(|it| it != outer.source) {
                self.astray(format!("mobile {mobile} sends {outer:?} straight by {bid}"));
            }
            return;
        }
        let Some(inner) = layers.get(1) else {
            return self.astray(format!("mobile {mobile} sends {outer:?} in the plain"));
        };
        let entries = it.node.update_list().entries;
        let bound = entries.iter().any(|entry| {
            entry.bid == bid && entry.is_registered() && v6(entry.care_of) == Some(outer.source)
        });
        if !bound || outer.destination != it.home.agent.0 || !it.owns(inner.source) {
            self.astray(format!("mobile {mobile} sends {outer:?} around {inner:?} by {bid}"));
        }
    }

    /// I1 at the way out of an agent: to a care-of address that the cache holds.
    pub fn witness_leaving_agent(&mut self, agent: usize, packet: &[u8]) {
        let layers = packet::layers(packet);
        let (Some(outer), Some(inner)) = (layers.first(), layers.get(1)) else {
            return self.astray(format!("agent {agent} sends a bare packet out of its tunnel"));
        };
        let it = &self.agents[agent];
        let right =
            outer.source == it.address() && self.holds(agent, inner.destination, outer.destination);
        if !right {
            self.astray(format!("agent {agent} sends {outer:?} around {inner:?}"));
        }
    }

    /// Whether the owner of `inner` is registered at `care_of`.
    fn holds(&self, agent: usize, inner: Ipv6Addr, care_of: Ipv6Addr) -> bool {
        self.agents[agent].machine.cache().iter().any(|entry| {
            (entry.home_address.0 == inner || entry.prefixes.iter().any(|it| it.contains(inner)))
                && entry.bindings.iter().any(|it| v6(it.care_of) == Some(care_of))
        })
    }

    /// I1 at the way in of an agent.
    pub fn witness_delivered_to_agent(
        &mut self,
        agent: usize,
        packet: &[u8],
        out: &[u8],
        _: Passed,
    ) {
        for (outer, inner) in peeled(packet, out) {
            let right = outer.destination == self.agents[agent].address()
                && self.holds(agent, inner.source, outer.source);
            if !right {
                return self.astray(format!("agent {agent} unwraps {outer:?} around {inner:?}"));
            }
        }
    }

    /// I1 at the way in of a mobile.
    pub fn witness_delivered_to_mobile(
        &mut self,
        mobile: usize,
        packet: &[u8],
        out: &[u8],
        _: Passed,
    ) {
        self.witness_straight_in(Who::Mobile(mobile), packet, out);
        let it = &self.mobiles[mobile];
        let entries = it.node.update_list().entries;
        for (outer, inner) in peeled(packet, out) {
            let ours = entries.iter().any(|entry| v6(entry.care_of) == Some(outer.destination));
            if !ours || outer.source != it.home.agent.0 || !it.owns(inner.destination) {
                return self.astray(format!("mobile {mobile} unwraps {outer:?} around {inner:?}"));
            }
        }
    }

    /// I1 for what comes straight, with a Home Address option: bound to this care-of address.
    pub fn witness_straight_in(&mut self, who: Who, packet: &[u8], out: &[u8]) {
        let layers = packet::layers(packet);
        let taken = layers.len().saturating_sub(packet::layers(out).len());
        for layer in layers.into_iter().take(taken + 1) {
            let at = match who {
                Who::Host(number) => self.correspondents[number].address,
                Who::Mobile(number) => self.mobiles[number].home_address(),
            };
            // What a router passes on is not its own.
            if let Who::Mobile(number) = who
                && layer.destination != at
                && !self.mobiles[number].own().contains(&layer.destination)
            {
                continue;
            }
            if let Some(home) = layer.home_address
                && !self.is_bound_at(who, home, at, layer.source)
            {
                self.astray(format!("{who:?} believes {layer:?}"));
            }
            if let (Some(named), Who::Mobile(number)) = (layer.routing_header, who) {
                let entries = self.mobiles[number].node.update_list().entries;
                let ours = entries.iter().any(|it| v6(it.care_of) == Some(layer.destination));
                if named != at || !ours && layer.destination != at {
                    self.astray(format!("{who:?} follows {layer:?}"));
                }
            }
        }
    }

    /// I1 for what leaves straight with a routing header: to a care-of address that is bound.
    pub fn witness_straight_out(&mut self, who: Who, packet: &[u8]) {
        let layers = packet::layers(packet);
        let Some(layer) = layers.first() else { return };
        let right = layer
            .routing_header
            .is_some_and(|home| self.is_bound_at(who, home, layer.source, layer.destination));
        if !right {
            self.astray(format!("{who:?} sends {layer:?} straight"));
        }
    }

    /// I1 where packets end: nobody gets a packet in a mobile's name that the attacker made.
    pub fn witness_received(&mut self, layer: &Layer, passed: Passed) {
        let source = layer.source;
        let named = self.mobiles.iter().any(|mobile| mobile.owns(source));
        if passed.origin == Origin::Forged && named && !layer.is_icmp() {
            self.astray(format!("a forged packet was taken for one from {source}"));
        }
    }

    /// I6 at the mobile, and R-MN-03: at most three updates in any second.
    pub fn witness_update(&mut self, mobile: usize, envelope: &Envelope, message: &[u8]) {
        let Ok(Message::BindingUpdate(update)) = wire::receive(envelope, message) else { return };
        let it = &mut self.mobiles[mobile];
        let most = usize::from(self.agents[it.agent].text.max_bindings);
        let care_of = auth::care_of_address(&update, envelope);
        it.outstanding = Some((update.sequence, update.options.message_id(), care_of));
        let last = it.sequence.replace(update.sequence);
        while it.sent.front().is_some_and(|&at| at + Duration::from_secs(1) <= self.now) {
            it.sent.pop_front();
        }
        it.sent.push_back(self.now);
        // What an update asks to end may end at once, whatever becomes of the answer.
        let named: Vec<_> = update.options.bids().map(|it| it.bid).collect();
        match (update.lifetime.is_zero(), named.is_empty()) {
            (true, true) => it.acknowledged.clear(),
            (true, false) => it.acknowledged.retain(|bid, _| !named.contains(bid)),
            (false, true) => {
                it.acknowledged.retain(|bid, known| bid.is_none() && known.care_of == care_of);
            }
            // More than the agent takes: it may keep others than before.
            (false, false) if update.flags.overwrite && named.len() > most => {
                it.acknowledged.clear();
            }
            (false, false) if update.flags.overwrite => {
                it.acknowledged.retain(|bid, _| named.contains(bid));
            }
            (false, false) => {}
        }
        let (sent, sequence) = (it.sent.len(), update.sequence);
        if let Some(last) = last.filter(|&last| !is_newer(sequence, last)) {
            let text = format!("mobile {mobile} sends {sequence} after {last}");
            self.violate(Invariant::SequenceRises, text);
        }
        if sent > UPDATES_PER_SECOND {
            let text = format!("mobile {mobile} sent {sent} updates in a second");
            self.violate(Invariant::Bounded, text);
        }
    }

    /// I6 at the agent: an update was accepted, or bindings ran out.
    pub fn witness_accepted(&mut self, agent: usize, home: HomeAddress, sequence: Option<u16>) {
        let it = &mut self.agents[agent];
        let bound = it.machine.cache().get(home).is_some();
        let forgotten = (!bound).then_some(self.now + MAX_DELETE_BCE_TIMEOUT);
        // One that waited until its home address was looked for is accepted by no message.
        let local = it.timestamp(self.now);
        let last = it.machine.record(local, home).and_then(|it| it.sequence).map(|(last, _)| last);
        let known = it.sequences.get(&home).map(|(known, _)| *known);
        let Some(sequence) = sequence.or(last.filter(|last| known != Some(*last))) else {
            if let Some(known) = it.sequences.get_mut(&home) {
                known.1 = forgotten;
            }
            return;
        };
        let last = it.sequences.insert(home, (sequence, forgotten));
        let (now, fault) = (self.now, self.fault);
        let last = last.filter(|(_, until)| until.is_none_or(|until| now < until));
        if let Some((last, _)) = last.filter(|(last, _)| !is_newer(sequence, *last))
            && fault != Fault::AgentForgetsSequence
        {
            let text = format!("agent {agent} accepts {sequence} after {last} of {home}");
            self.violate(Invariant::SequenceRises, text);
        }
    }

    /// I8.
    pub fn witness_powerless(&mut self, broken: bool, text: impl FnOnce() -> String) {
        if broken {
            self.violate(Invariant::OnlyAuthentic, text());
        }
    }

    /// I3, I7 and I2 of one mobile.
    pub fn witness_mobile(&mut self, mobile: usize) {
        let it = &self.mobiles[mobile];
        let (list, entries) = (it.registration(), it.node.update_list().entries.len());
        let published = it.published.load();
        let held = published.updates.get(HomeAddress(it.home_address()));
        if !is_like(held, Some(&list)) || !same(&published.own, &it.own()) {
            let (held, list) = (brief(held), brief(Some(&list)));
            let text = format!("mobile {mobile}: packets see {held}, the list says {list}");
            drop(published);
            return self.violate(Invariant::TablesAgree, text);
        }
        drop(published);
        if entries > usize::from(UPLINKS) {
            self.violate(Invariant::Bounded, format!("mobile {mobile}: {entries} registrations"));
        }
        self.witness_acknowledged(mobile);
    }

    /// I2: unless the agent lost its memory or its policy changed, it holds what it acknowledged
    /// for at least as long as the mobile believes.
    fn witness_acknowledged(&mut self, mobile: usize) {
        let it = &self.mobiles[mobile];
        let agent = &self.agents[it.agent];
        let entry = agent.machine.cache().get(HomeAddress(it.home_address()));
        let lost = it.acknowledged.iter().find(|(bid, known)| {
            let sure = known.at > agent.shaken + LONGEST_WAY || agent.shaken == Duration::ZERO;
            let held = entry.and_then(|entry| entry.binding(**bid)).is_some_and(|binding| {
                v6(binding.care_of) == Some(known.care_of)
                    && binding.expires.saturating_sub(agent.base) >= known.expires
            });
            sure && known.expires > self.now && !held
        });
        if let Some((bid, known)) = lost {
            let text = format!("mobile {mobile}: {bid:?} {known:?}, the agent has {entry:?}");
            self.violate(Invariant::AcknowledgedSurvives, text);
        }
    }

    /// I3, I4 and I7 of one agent, and I2 of its mobiles.
    pub fn witness_agent(&mut self, agent: usize) {
        let it = &self.agents[agent];
        let now = it.base + self.now;
        let mut faults: Vec<(Invariant, String)> = Vec::new();
        let published = it.published.load();
        for (number, (address, prefix)) in it.text.mobiles.iter().enumerate() {
            let home = HomeAddress(*address);
            let list = it.registration(home);
            let held = published.cache.get(home);
            if !is_like(held, list.as_ref()) {
                let (held, list) = (brief(held), brief(list.as_ref()));
                let text = format!("agent {agent}: packets see {held}, the cache says {list}");
                faults.push((Invariant::TablesAgree, text));
            }
            let Some(entry) = it.machine.cache().get(home) else { continue };
            let owner = self.mobiles.iter().find(|mobile| mobile.home_address() == *address);
            for binding in &entry.bindings {
                let owned = owner.is_some_and(|owner| {
                    let mut owned = owner.owned.iter();
                    owned.any(|(bid, care_of)| {
                        Some(*care_of) == v6(binding.care_of)
                            && binding.bid.is_none_or(|name| name == *bid)
                    })
                });
                if !owned || binding.expires <= now {
                    faults.push((Invariant::OneOwner, format!("agent {agent}: {binding:?}")));
                }
            }
            let foreign = entry.prefixes.iter().any(|it| Some(*it) != *prefix);
            if foreign || entry.router != owner.is_some_and(|it| it.prefix().is_some()) {
                faults.push((Invariant::OneOwner, format!("mobile {number}: {entry:?}")));
            }
            if entry.bindings.len() > usize::from(it.text.max_bindings)
                || entry.is_plain() != entry.bindings[0].bid.is_none()
                || entry.is_plain() && entry.bindings.len() > 1
            {
                faults.push((Invariant::Bounded, format!("agent {agent}: {entry:?}")));
            }
        }
        let (size, most) = (it.machine.cache().len(), it.text.mobiles.len());
        if size > most || tables(&published.cache) > most {
            faults.push((Invariant::Bounded, format!("agent {agent}: {size} entries")));
        }
        drop(published);
        faults.into_iter().for_each(|(invariant, text)| self.violate(invariant, text));
        for mobile in 0..self.mobiles.len() {
            if self.mobiles[mobile].agent == agent {
                self.witness_acknowledged(mobile);
            }
        }
    }

    /// I4 over all agents and I7 of all packet loops: asked now and then.
    pub fn witness_everything(&mut self) {
        let mut claimed = Vec::new();
        for agent in &self.agents {
            for entry in agent.machine.cache().iter() {
                claimed.extend(
                    entry.prefixes.iter().map(|it| (it.net().addr(), it.net().prefix_len())),
                );
                claimed.push((entry.home_address.0, 128));
            }
        }
        let all = claimed.len();
        claimed.sort();
        claimed.dedup();
        if claimed.len() != all {
            self.violate(Invariant::OneOwner, "a home address or prefix has two owners".to_owned());
        }
        let mobiles = self.mobiles.iter().map(|it| it.engine.flows().len());
        let flows = mobiles.chain(self.agents.iter().map(|it| it.engine.flows().len())).max();
        if flows.is_some_and(|flows| flows > FLOWS) {
            self.violate(Invariant::Bounded, format!("{flows:?} flows remembered"));
        }
    }
}

fn tables(table: &BindingTable) -> usize {
    table.len()
}

/// What a registration holds, for people.
fn brief(registration: Option<&Registration>) -> String {
    let Some(it) = registration else { return "nothing".to_owned() };
    let bindings: Vec<_> = it
        .bindings
        .iter()
        .map(|it| (it.bid, it.care_of.0, it.usable, it.attached, it.priority))
        .collect();
    format!("{:?} {bindings:?} {:?}", it.prefixes, it.copies)
}

/// Whether packets are treated alike by both; what a table stamps does not count, nor what is left
/// there of a binding that ended and carries nothing.
fn is_like(held: Option<&Registration>, list: Option<&Registration>) -> bool {
    match (held, list) {
        (None, None) => true,
        (Some(held), Some(list)) => {
            held.home_address == list.home_address
                && held.prefixes == list.prefixes
                && held.peer == list.peer
                && list.bindings.iter().all(|it| held.bindings.contains(it))
                && held.bindings.iter().all(|it| {
                    list.bindings.contains(it)
                        || !it.usable && !it.attached && list.binding(it.bid).is_none()
                })
                && held.policy == list.policy
                // While nothing may carry a packet out, nobody sends copies.
                && (held.copies == list.copies || list.bindings.iter().all(|it| !it.usable))
        }
        _ => false,
    }
}

fn same(one: &[Ipv6Addr], other: &[Ipv6Addr]) -> bool {
    one.len() == other.len() && one.iter().all(|address| other.contains(address))
}

/// The pairs of outer and inner header that were taken off to get from `packet` to `out`; none for
/// an error about a packet of ours, which was not unwrapped but answered.
fn peeled(packet: &[u8], out: &[u8]) -> Vec<(Layer, Layer)> {
    let layers = packet::layers(packet);
    if layers.first().is_none_or(|outer| !outer.is_tunnel()) {
        return Vec::new();
    }
    let left = packet::layers(out).len();
    let taken = layers.len().saturating_sub(left);
    layers.windows(2).take(taken).map(|pair| (pair[0], pair[1])).collect()
}
