//! Packets: from a node to the links, across them, and into a node.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_dataplane::{IgnoreReason, PathId, Verdict, wire};
use mtun_policy::{Bid, Ingress};
use mtun_signaling::Envelope;

use crate::copies::Receiver;
use crate::fault::Fault;
use crate::mobile::Access;
use crate::network::{Door, Flying, Origin, Passage, Quality, flip, said};
use crate::packet::{self, Layer};
use crate::straight::Who;
use crate::world::World;

/// Who complains about packets that lead nowhere.
const SOME_ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// Most packets under way at a time; more are lost, as in any queue.
const MOST_FLYING: usize = 400;
/// Across a network behind a mobile router.
pub const LAN_DELAY: Duration = Duration::from_millis(1);

/// A packet in the hands of a node, and where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    pub hops: u8,
    pub origin: Origin,
}

impl Passed {
    /// Made by a node of its own accord.
    pub const FRESH: Self = Self { hops: 0, origin: Origin::Honest };
}

impl World {
    /// A packet reaches a node.
    pub fn arrive(&mut self, flying: Flying) {
        let Flying { door, packet, hops, origin, .. } = flying;
        let passed = Passed { hops, origin };
        match door {
            Door::Uplink(mobile, bid) => self.uplink_receives(mobile, bid, &packet, passed),
            Door::Lan(mobile) => self.lan_receives(mobile, packet, passed),
            Door::Agent(agent) => self.agent_receives(agent, &packet, passed),
            Door::HomeNetwork(agent) => self.home_network_receives(agent, packet, passed),
            Door::Correspondent(number) => self.correspondent_receives(number, &packet, passed),
            Door::Attacker => self.coverage.count("attacker: received"),
        }
    }

    /// A packet leaves a mobile by an uplink.
    pub fn leave(&mut self, mobile: usize, bid: Bid, packet: Vec<u8>, passed: Passed) {
        self.witness_leaving(mobile, bid, &packet);
        let uplink = self.mobiles[mobile].uplinks[&bid];
        let Some(attachment) = uplink.attached else {
            return self.coverage.count("packet: for an uplink that is down");
        };
        let cut = uplink.cut.0 || uplink.eats && self.is_eaten(mobile, &packet);
        match attachment.access {
            Access::Internet => self.route(uplink.up, cut, packet, passed),
            Access::Behind(router) => {
                let passage = Passage { out: uplink.up, into: Quality::GOOD, cut };
                self.carry(passage, Door::Lan(router), packet, passed);
            }
        }
    }

    /// A packet enters the Internet over a link of this quality.
    pub fn route(&mut self, out: Quality, cut: bool, mut packet: Vec<u8>, passed: Passed) {
        let Some(destination) = packet::address(&packet, 24) else { return };
        if !forwarded(&mut packet) {
            return self.coverage.count("packet: hop limit used up");
        }
        let Some(door) = self.door_of(destination) else {
            self.coverage.count("packet: leads nowhere");
            return self.complain(&packet, passed);
        };
        let (into, closed) = self.last_mile(door);
        self.carry(Passage { out, into, cut: cut || closed }, door, packet, passed);
    }

    fn last_mile(&self, door: Door) -> (Quality, bool) {
        match door {
            Door::Uplink(mobile, bid) => {
                let uplink = &self.mobiles[mobile].uplinks[&bid];
                (uplink.down, uplink.cut.1)
            }
            Door::Agent(agent) | Door::HomeNetwork(agent) => {
                (self.agents[agent].link, self.agents[agent].cut)
            }
            Door::Correspondent(number) => (self.correspondents[number].link, false),
            Door::Lan(_) | Door::Attacker => (Quality::GOOD, false),
        }
    }

    fn carry(&mut self, passage: Passage, door: Door, mut packet: Vec<u8>, passed: Passed) {
        let hops = passed.hops.saturating_add(1);
        self.witness_hops(hops, passed.origin, &packet);
        if let Door::Uplink(mobile, bid) = door
            && self.mobiles[mobile].uplinks[&bid].eats
            && self.is_eaten(mobile, &packet)
        {
            return self.coverage.count("link: headers eaten");
        }
        if self.network.len() >= MOST_FLYING {
            return self.coverage.count("link: overflow");
        }
        let mut origin = passed.origin;
        self.attacker.overhear(self.now, &packet, origin, &mut self.random);
        if self.random.chance(passage.corruption()) {
            let before = said(&packet);
            flip(&mut self.random, &mut packet);
            if before.is_none() || said(&packet) != before {
                origin = origin.max(Origin::Altered);
            }
            self.limits_altered |= packet::layers(&packet).len() > 1;
            self.coverage.count("link: corruption");
        }
        let fate = passage.fate(&mut self.random);
        match fate.len() {
            0 => self.coverage.count("link: loss"),
            1 => {}
            _ => self.coverage.count("link: duplication"),
        }
        for delay in fate {
            self.network.launch(self.now + delay, door, packet.clone(), hops, origin);
        }
    }

    /// Whether a firewall that knows nothing of mobility would lose this packet of a mobile; what it
    /// has with its agent passes.
    fn is_eaten(&self, mobile: usize, packet: &[u8]) -> bool {
        let agent = self.mobiles[mobile].home.agent.0;
        packet::layers(packet).first().is_some_and(|it| {
            (it.home_address.is_some() || it.routing_header.is_some())
                && it.source != agent
                && it.destination != agent
        })
    }

    /// A router says that there is no way on, now and then.
    fn complain(&mut self, packet: &[u8], passed: Passed) {
        let Some(source) = packet::address(packet, 8) else { return };
        let Some(door) = self.door_of(source).filter(|_| self.random.chance(300)) else { return };
        let answerable = packet::layers(packet).first().is_some_and(|layer| !layer.is_icmp());
        if answerable && door != Door::Attacker {
            self.coverage.count("packet: destination unreachable");
            let error = packet::icmp_error(SOME_ROUTER, 1, 3, 0, packet);
            let (into, cut) = self.last_mile(door);
            let passed = Passed { hops: passed.hops, origin: passed.origin };
            self.carry(Passage { out: Quality::GOOD, into, cut }, door, error, passed);
        }
    }

    /// Where the Internet takes packets to this address.
    pub fn door_of(&self, destination: Ipv6Addr) -> Option<Door> {
        for (number, mobile) in self.mobiles.iter().enumerate() {
            for (&bid, uplink) in &mobile.uplinks {
                let here = |at: &crate::mobile::Attachment| {
                    at.care_of == destination && at.access == Access::Internet
                };
                if uplink.attached.as_ref().is_some_and(here) {
                    return Some(Door::Uplink(number, bid));
                }
            }
        }
        if let Some(agent) = self.agents.iter().position(|it| it.address() == destination) {
            return Some(Door::Agent(agent));
        }
        let known = |it: &crate::correspondent::Host| it.address == destination;
        if let Some(number) = self.correspondents.iter().position(known) {
            return Some(Door::Correspondent(number));
        }
        if destination == crate::attacker::ADDRESS {
            return Some(Door::Attacker);
        }
        let homes =
            |it: &crate::agent::Agent| {
                it.served.prefix.contains(&destination)
                    || it.text.mobiles.iter().any(|(_, prefix)| {
                        prefix.is_some_and(|prefix| prefix.contains(destination))
                    })
            };
        self.agents.iter().position(homes).map(Door::HomeNetwork)
    }

    fn uplink_receives(&mut self, mobile: usize, bid: Bid, packet: &[u8], passed: Passed) {
        let it = &self.mobiles[mobile];
        let attached = it.uplinks[&bid].attached;
        if attached.is_none() || it.stopped {
            return self.coverage.count("packet: to an uplink that is down");
        }
        if packet::address(packet, 24) != attached.map(|at| at.care_of) {
            // The kernel of a router forwards; that of a host does not.
            return self.coverage.count("packet: to an address that is gone");
        }
        let local = it.base + self.now;
        let mut out = Vec::new();
        let (came, who) = (packet, Receiver::Mobile(mobile));
        let disguised = self.disguised_for_mobile(mobile, packet);
        let packet = disguised.as_deref().unwrap_or(packet);
        let it = &self.mobiles[mobile];
        let verdict = it.engine.inbound(PathId(bid.get()), packet, local, &mut out);
        match verdict {
            Verdict::Deliver => {
                self.coverage.count("mobile: delivered");
                self.witness_delivered_to_mobile(mobile, packet, &out, passed);
                self.witness_copy(who, came, passed);
                self.mobile_delivers(mobile, out, passed);
            }
            Verdict::Signalling {
                source,
                destination,
                home_address,
                routing_header,
                tunnelled,
            } => {
                let envelope = envelope(source, destination, home_address, routing_header);
                self.mobile_reads(mobile, tunnelled, envelope, out, passed);
            }
            Verdict::SignallingFailed { source, destination, kind, code } => {
                self.coverage.count("mobile: signalling failed");
                let unknown_header = (kind, code) == (4, 1);
                self.mobile_unreachable(mobile, source, destination, unknown_header);
            }
            Verdict::Ignore(IgnoreReason::CopyHeld) => self.holds_copy(who, packet, passed),
            Verdict::Ignore(reason) => self.coverage.count(format!("mobile ignores: {reason}")),
            Verdict::Drop(reason) => self.coverage.count(format!("mobile drops: {reason}")),
            Verdict::UnknownBinding { source, home_address, destination } => {
                self.coverage.count("mobile: unknown binding");
                self.unknown_binding(Who::Mobile(mobile), source, destination, home_address);
            }
            Verdict::Reject { reason, .. } => {
                self.coverage.count(format!("mobile rejects: {reason}"));
                self.leave(mobile, bid, out, passed);
            }
            other => panic!("inbound never says {other:?}"),
        }
        self.copies_released(who);
        self.mobile_notes(mobile);
    }

    /// What was unwrapped goes to the mobile itself or into its network.
    pub fn mobile_delivers(&mut self, mobile: usize, packet: Vec<u8>, passed: Passed) {
        let Some(destination) = packet::address(&packet, 24) else { return };
        if destination == self.mobiles[mobile].home_address() {
            self.host_receives(Some((mobile, Ingress::LOCAL)), &packet, passed);
        } else if self.mobiles[mobile].in_network(destination) {
            self.lan_is_given(mobile, packet, passed);
        } else {
            self.astray(format!("mobile {mobile} was given a packet for {destination}"));
        }
    }

    /// A packet enters the network behind a router, from the router.
    fn lan_is_given(&mut self, router: usize, mut packet: Vec<u8>, passed: Passed) {
        let Some(destination) = packet::address(&packet, 24) else { return };
        if !forwarded(&mut packet) {
            return self.coverage.count("packet: hop limit used up");
        }
        let guest = self.mobiles.iter().enumerate().find_map(|(number, mobile)| {
            let here = |attached: crate::mobile::Attachment| {
                attached.care_of == destination && attached.access == Access::Behind(router)
            };
            let mut uplinks = mobile.uplinks.iter();
            let (&bid, uplink) = uplinks.find(|(_, it)| it.attached.is_some_and(here))?;
            Some((number, bid, *uplink))
        });
        match guest {
            Some((number, bid, uplink)) => {
                self.coverage.count("packet: to a nested mobile");
                let (into, cut) = (uplink.down, uplink.cut.1);
                let passage = Passage { out: Quality::GOOD, into, cut };
                self.carry(passage, Door::Uplink(number, bid), packet, passed);
            }
            None => self.host_receives(Some((router, Ingress::OTHER)), &packet, passed),
        }
    }

    /// A packet comes out of the network behind a router.
    pub fn lan_receives(&mut self, router: usize, mut packet: Vec<u8>, passed: Passed) {
        let layers = packet::layers(&packet);
        let Some(Layer { source, destination, .. }) = layers.first().copied() else { return };
        if self.mobiles[router].stopped || !forwarded(&mut packet) {
            return self.coverage.count("packet: hop limit used up");
        }
        if self.fault == Fault::RouterWithoutLimit {
            remove_limit(&mut packet);
        }
        if self.mobiles[router].in_network(destination) {
            self.lan_is_given(router, packet, passed);
        } else if !self.mobiles[router].in_network(source) {
            // Nobody routes by the sources of strangers.
            self.coverage.count("packet: foreign source in a mobile network");
        } else {
            self.mobile_sends(router, Ingress::OTHER, &packet, passed);
        }
    }

    /// A packet enters the home-bound interface of a mobile.
    pub fn mobile_sends(&mut self, mobile: usize, ingress: Ingress, packet: &[u8], passed: Passed) {
        let it = &self.mobiles[mobile];
        let mut out = Vec::new();
        match it.engine.outbound(ingress, packet, it.base + self.now, &mut out) {
            Verdict::Send { path } => self.leave_by(mobile, path, &out, passed),
            Verdict::Replicate(sends) => {
                self.coverage.count("mobile: copies");
                for (path, part) in sends.parts(&out) {
                    self.leave_by(mobile, path, part, passed);
                }
            }
            Verdict::Answer(reason) => {
                self.coverage.count(format!("mobile refuses: {reason}"));
                if ingress != Ingress::LOCAL {
                    self.lan_is_given(mobile, out, passed);
                }
                self.leaks(mobile, packet, passed);
            }
            Verdict::Drop(reason) => {
                self.coverage.count(format!("mobile drops: {reason}"));
                self.leaks(mobile, packet, passed);
            }
            other => panic!("outbound never says {other:?} under these rules"),
        }
        self.mobile_notes(mobile);
    }

    /// What a packet loop wrote leaves by one path.
    pub fn leave_by(&mut self, mobile: usize, path: PathId, out: &[u8], passed: Passed) {
        let bid = Bid::new(path.0).expect("a mobile's paths are its BIDs");
        for packet in wire::packets(out) {
            self.leave(mobile, bid, packet.to_vec(), passed);
        }
    }

    fn leaks(&mut self, mobile: usize, packet: &[u8], passed: Passed) {
        if self.fault != Fault::MobileLeaks {
            return;
        }
        let mut uplinks = self.mobiles[mobile].uplinks.iter();
        if let Some((&bid, _)) = uplinks.find(|(_, it)| it.attached.is_some()) {
            self.leave(mobile, bid, packet.to_vec(), passed);
        }
    }

    /// An agent takes a packet to its own address.
    pub fn agent_receives(&mut self, agent: usize, packet: &[u8], passed: Passed) {
        let it = &self.agents[agent];
        let local = it.base + self.now;
        let (came, who) = (packet, Receiver::Agent(agent));
        let disguised = self.disguised_for_agent(agent, packet);
        let packet = disguised.as_deref().unwrap_or(packet);
        let mut out = Vec::new();
        let verdict = self.agents[agent].engine.inbound(PathId::ROUTED, packet, local, &mut out);
        match verdict {
            Verdict::Deliver => {
                self.coverage.count("agent: delivered");
                self.witness_delivered_to_agent(agent, packet, &out, passed);
                self.witness_copy(who, came, passed);
                self.agent_delivers(agent, out, passed);
            }
            Verdict::Signalling {
                source,
                destination,
                home_address,
                routing_header,
                tunnelled,
            } => {
                if tunnelled {
                    self.coverage.count("agent: signalling through a tunnel");
                }
                let envelope = envelope(source, destination, home_address, routing_header);
                self.agent_reads(agent, envelope, out, passed);
            }
            Verdict::SignallingFailed { .. } => self.coverage.count("agent: signalling failed"),
            Verdict::Ignore(IgnoreReason::CopyHeld) => self.holds_copy(who, packet, passed),
            Verdict::Ignore(reason) => self.coverage.count(format!("agent ignores: {reason}")),
            Verdict::Drop(reason) => self.coverage.count(format!("agent drops: {reason}")),
            Verdict::UnknownBinding { .. } => self.coverage.count("agent: unknown binding"),
            Verdict::Reject { reason, .. } => {
                self.coverage.count(format!("agent rejects: {reason}"));
                let it = &self.agents[agent];
                self.route(it.link, it.cut, out, passed);
            }
            other => panic!("inbound never says {other:?}"),
        }
        self.copies_released(who);
    }

    /// What an agent unwrapped goes on by its routing table.
    pub fn agent_delivers(&mut self, agent: usize, packet: Vec<u8>, passed: Passed) {
        let Some(destination) = packet::address(&packet, 24) else { return };
        let hops = passed.hops.saturating_add(1);
        let passed = Passed { hops, ..passed };
        self.witness_hops(hops, passed.origin, &packet);
        match self.door_of(destination) {
            Some(Door::Agent(it)) if it == agent => self.agent_receives(agent, &packet, passed),
            Some(Door::HomeNetwork(it)) if it == agent => {
                self.home_network_receives(agent, packet, passed);
            }
            _ => {
                let it = &self.agents[agent];
                self.route(it.link, it.cut, packet, passed);
            }
        }
    }

    /// A packet for the home network is routed into an agent's home-bound interface.
    pub fn home_network_receives(&mut self, agent: usize, mut packet: Vec<u8>, passed: Passed) {
        if !forwarded(&mut packet) {
            return self.coverage.count("packet: hop limit used up");
        }
        let it = &self.agents[agent];
        let mut out = Vec::new();
        match it.engine.outbound(Ingress::OTHER, &packet, it.base + self.now, &mut out) {
            Verdict::Send { .. } => {
                let (link, cut) = (it.link, it.cut);
                let sent: Vec<Vec<u8>> = wire::packets(&out).map(<[u8]>::to_vec).collect();
                for packet in sent {
                    self.witness_leaving_agent(agent, &packet);
                    self.route(link, cut, packet, passed);
                }
            }
            Verdict::Replicate(sends) => {
                self.coverage.count("agent: copies");
                let (link, cut) = (it.link, it.cut);
                let parts = sends.parts(&out).flat_map(|(_, part)| wire::packets(part));
                let sent: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
                for packet in sent {
                    self.witness_leaving_agent(agent, &packet);
                    self.route(link, cut, packet, passed);
                }
            }
            Verdict::Answer(reason) => {
                self.coverage.count(format!("agent refuses: {reason}"));
                let (link, cut) = (it.link, it.cut);
                self.route(link, cut, out, passed);
            }
            Verdict::Drop(reason) => self.coverage.count(format!("agent drops: {reason}")),
            other => panic!("an agent never says {other:?}"),
        }
    }
}

/// Takes one from the hop limit; false when none is left.
fn forwarded(packet: &mut [u8]) -> bool {
    match packet.get_mut(7) {
        Some(hops) if *hops > 1 => {
            *hops -= 1;
            true
        }
        _ => false,
    }
}

/// Removes the Tunnel Encapsulation Limit behind the first header.
fn remove_limit(packet: &mut Vec<u8>) {
    if packet.len() > 48 && packet[6] == 60 && packet[42] == 4 {
        packet[6] = packet[40];
        packet.drain(40..48);
        let length = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
    }
}

pub fn envelope(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    home_address: Option<Ipv6Addr>,
    routing_header: Option<Ipv6Addr>,
) -> Envelope {
    Envelope {
        source,
        destination,
        home_address: home_address.map(mtun_policy::HomeAddress),
        routing_header: routing_header.map(mtun_policy::HomeAddress),
    }
}

impl World {
    /// The fault of agents whose tunnel is open: the outer source becomes one that is registered.
    fn disguised_for_agent(&self, agent: usize, packet: &[u8]) -> Option<Vec<u8>> {
        if self.fault != Fault::TunnelFromAnywhere {
            return None;
        }
        let layers = packet::layers(packet);
        let inner = layers.get(1)?;
        let mut entries = self.agents[agent].machine.cache().iter();
        let entry = entries.find(|entry| {
            entry.home_address.0 == inner.source
                || entry.prefixes.iter().any(|prefix| prefix.contains(inner.source))
        })?;
        let care_of = crate::mobile::v6(entry.bindings.first()?.care_of)?;
        let mut disguised = packet.to_vec();
        disguised[8..24].copy_from_slice(&care_of.octets());
        Some(disguised)
    }

    /// The fault of mobiles whose tunnel is open: the outer source becomes the agent's.
    fn disguised_for_mobile(&self, mobile: usize, packet: &[u8]) -> Option<Vec<u8>> {
        if self.fault != Fault::TunnelFromAnyAgent || packet::layers(packet).len() < 2 {
            return None;
        }
        let mut disguised = packet.to_vec();
        disguised[8..24].copy_from_slice(&self.mobiles[mobile].home.agent.0.octets());
        Some(disguised)
    }
}
