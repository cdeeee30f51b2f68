//! Packets at the ends that stay where they are: correspondents and hosts.

use std::net::Ipv6Addr;

use mtun_dataplane::{IgnoreReason, PathId, Verdict, wire};
use mtun_policy::Ingress;
use mtun_signaling::CorrespondentEvent;

use crate::forward::{LAN_DELAY, Passed, envelope};
use crate::network::{Door, Origin};
use crate::packet;
use crate::straight::Who;
use crate::world::World;

impl World {
    pub fn correspondent_receives(&mut self, number: usize, packet: &[u8], passed: Passed) {
        let who = Who::Host(number);
        let it = &self.correspondents[number];
        if it.responder.is_none() {
            return self.host_without_mobility(number, packet, passed);
        }
        let mut out = Vec::new();
        let verdict = it.engine.inbound(PathId::ROUTED, packet, it.base + self.now, &mut out);
        match verdict {
            Verdict::Deliver => {
                self.coverage.count("correspondent: taken straight");
                self.witness_straight_in(who, packet, &out);
                self.host_answers(number, &out, passed);
            }
            Verdict::Signalling { source, destination, home_address, routing_header, .. } => {
                let envelope = envelope(source, destination, home_address, routing_header);
                self.correspondent_reads(who, envelope, out, passed);
            }
            Verdict::UnknownBinding { source, home_address, destination } => {
                self.coverage.count("correspondent: unknown binding");
                self.unknown_binding(who, source, destination, home_address);
            }
            Verdict::Ignore(IgnoreReason::NotTunnelled) => {
                self.host_answers(number, packet, passed)
            }
            Verdict::Reject { reason, .. } => {
                self.coverage.count(format!("correspondent rejects: {reason}"));
                let link = self.correspondents[number].link;
                self.route(link, false, out, passed);
            }
            Verdict::Ignore(reason) => {
                self.coverage.count(format!("correspondent ignores: {reason}"));
            }
            Verdict::Drop(reason) => {
                self.coverage.count(format!("correspondent drops: {reason}"));
            }
            Verdict::SignallingFailed { .. } => {
                self.coverage.count("correspondent: signalling failed");
            }
            other => panic!("a correspondent never says {other:?}"),
        }
        self.host_notes(number);
    }

    /// A node that knows no Mobility Header says so, and takes no Home Address option.
    fn host_without_mobility(&mut self, number: usize, packet: &[u8], passed: Passed) {
        let link = self.correspondents[number].link;
        let layers = packet::layers(packet);
        let Some(layer) = layers.first() else { return };
        if layer.is_signalling() || layer.home_address.is_some() {
            self.coverage.count("host: knows no mobility");
            let code = if layer.home_address.is_some() { 2 } else { 1 };
            let error = packet::icmp_error(layer.destination, 4, code, 6, packet);
            return self.route(
                link,
                false,
                error,
                Passed { hops: passed.hops, origin: Origin::Honest },
            );
        }
        self.host_answers(number, packet, passed);
    }

    /// A correspondent answers a question, straight if it can.
    fn host_answers(&mut self, number: usize, packet: &[u8], passed: Passed) {
        self.host_receives(None, packet, passed);
        let layers = packet::layers(packet);
        let Some(layer) = layers.first() else { return };
        let Some((flow, label)) = packet::labelled(packet, layer) else { return };
        if label.echo || flow.destination != self.correspondents[number].address {
            return;
        }
        self.coverage.count("correspondent: answers");
        let answer = packet::data(flow.mirrored(), packet::Label { echo: true, ..label }, 0);
        self.host_sends(number, answer, Passed::FRESH);
    }

    /// A correspondent sends; to mobiles that are bound, by its packet loop.
    pub fn host_sends(&mut self, number: usize, packet: Vec<u8>, passed: Passed) {
        let it = &self.correspondents[number];
        let link = it.link;
        let Some(destination) = packet::address(&packet, 24) else { return };
        let pair = mtun_dataplane::Pair {
            home_address: mtun_policy::HomeAddress(destination),
            correspondent: it.address,
        };
        if it.published.load().correspondents.get(&pair).is_none() {
            return self.route(link, false, packet, passed);
        }
        let mut out = Vec::new();
        match it.engine.outbound(Ingress::LOCAL, &packet, it.base + self.now, &mut out) {
            Verdict::Send { .. } => {
                self.coverage.count("correspondent: sent straight");
                let sent: Vec<Vec<u8>> = wire::packets(&out).map(<[u8]>::to_vec).collect();
                for packet in sent {
                    self.witness_straight_out(Who::Host(number), &packet);
                    self.route(link, false, packet, passed);
                }
            }
            Verdict::Answer(reason) | Verdict::Drop(reason) => {
                self.coverage.count(format!("correspondent refuses: {reason}"));
            }
            other => panic!("a correspondent never says {other:?}"),
        }
        self.host_notes(number);
    }

    pub fn unknown_binding(
        &mut self,
        who: Who,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        home_address: Ipv6Addr,
    ) {
        let home_address = mtun_policy::HomeAddress(home_address);
        let event = CorrespondentEvent::UnknownBinding { source, destination, home_address };
        self.correspondent_event(who, event);
    }

    /// A host takes a packet: a correspondent, a mobile, or one of the network behind a router.
    pub fn host_receives(&mut self, of: Option<(usize, Ingress)>, packet: &[u8], passed: Passed) {
        let layers = packet::layers(packet);
        let Some(layer) = layers.first() else { return };
        if layer.home_address.is_some() || layer.routing_header.is_some() {
            return self.coverage.count("host: header that it does not know");
        }
        self.witness_received(layer, passed);
        let Some((flow, label)) = packet::labelled(packet, layer) else {
            return self.coverage.count("host: other packet");
        };
        if label.echo {
            self.coverage.count("host: answered");
            self.answered.insert(label.serial);
        } else if let Some((mobile, ingress)) = of {
            self.coverage.count("host: answers");
            let answer = packet::data(flow.mirrored(), packet::Label { echo: true, ..label }, 0);
            let passed = Passed { origin: Origin::Honest, ..passed };
            match ingress {
                Ingress::LOCAL => self.mobile_sends(mobile, ingress, &answer, passed),
                _ => self.network.launch(
                    self.now + LAN_DELAY,
                    Door::Lan(mobile),
                    answer,
                    passed.hops,
                    passed.origin,
                ),
            }
        }
    }
}
