//! The way in of packets that come straight, and what traffic of pairs tells
//! ([`crate::notes`]).
//!
//! Standards: RFC 6275 §6.3, §6.4, §9.3.1, §11.3.3, §11.6.1; req CN-60, CN-64, CN-67, MN-32, MC-16.

use std::time::Duration;

use mtun_policy::{FlowKey, Ingress, Optimize, RuleId};

use crate::admit::{NotStraightIn, StraightKey, admit_straight};
use crate::answer::Refusal;
use crate::counters::Form;
use crate::decide::{Decision, Encapsulation, Route, Side, decide};
use crate::engine::{Engine, Verdict};
use crate::memory::{Answer, Memory};
use crate::notes::RouteNote;
use crate::optimized::{Headers, restore};
use crate::packet::{Inner, Segment};
use crate::pairs::Pair;
use crate::reason::{DropReason, IgnoreReason};
use crate::receive::{Arrived, Tunnel};
use crate::registration::Registration;
use crate::snapshot::Snapshot;
use crate::straight::pair_of;
use crate::wire::{ESP, IPV6, home_address};

impl Engine {
    /// Takes a packet with a Home Address option, a type 2 routing header or both.
    pub(crate) fn receive_straight(
        &self,
        arrived: &Arrived<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Verdict, Refusal> {
        let Arrived { snapshot, packet, header, chain, now, .. } = *arrived;
        if header.source.is_multicast() {
            return Err(DropReason::OuterMalformed.into());
        }
        let Some(routing_header) = arrived.our_home()? else {
            return Ok(Verdict::Ignore(IgnoreReason::NotOurHome));
        };
        let destination = routing_header.unwrap_or(header.destination);
        // req CN-61: an option that names a group is met with silence.
        if chain.home_address.is_some_and(|address| address.is_multicast()) {
            return Err(DropReason::HomeAddressOption.into());
        }
        let key = StraightKey {
            source: header.source,
            destination: header.destination,
            home_address: chain.home_address,
            routing_header,
        };
        let unknown = chain.home_address.map(|home_address| Verdict::UnknownBinding {
            source: header.source,
            home_address,
            destination,
        });
        if let (Some(address), Some(unknown)) = (chain.home_address, unknown)
            && !home_address::is_routable(address)
        {
            return Ok(unknown);
        }
        let admitted = match (admit_straight(snapshot, &key), unknown) {
            (Ok(admitted), _) => Some(admitted),
            // What IPsec protects proves itself (RFC 6275 §9.3.1).
            (Err(NotStraightIn::UnknownBinding), _)
                if chain.upper == ESP || chain.authentication.is_some() =>
            {
                None
            }
            (Err(NotStraightIn::UnknownBinding), Some(unknown)) => return Ok(unknown),
            (Err(NotStraightIn::Drop(reason)), _) => return Err(reason.into()),
            (Err(_), _) => return Ok(Verdict::Ignore(IgnoreReason::NotOurHome)),
        };
        let headers = Headers { home_address: chain.home_address, routing_header };
        restore(packet, &header, chain.routing.as_ref(), &headers, out);
        let inner = Inner::parse(out, Ingress::OTHER)?;
        inner.check_scope()?;
        let Some(admitted) = admitted else { return Ok(Verdict::Deliver) };
        let (near, far) = (admitted.near, admitted.far);
        if far.is_some() {
            self.verified.note(header.source);
        }
        // The flow's binding is ours, if both ends have one.
        let ours = near.and_then(|(_, binding)| binding);
        let own = ours.or(far.map(|(_, binding)| binding)).and_then(|binding| binding.bid);
        let (bid, form) = match arrived.tunnel {
            Some(Tunnel { bid }) => (bid, Form::Tunnel),
            None => (own, Form::Optimized),
        };
        if inner.chain.upper == IPV6 {
            return self.look_into(arrived, &inner, Tunnel { bid }, out);
        }
        // Within a tunnel it is not what a fast path sees.
        let is_outermost = self.fast.is_some() && arrived.tunnel.is_none();
        let before = is_outermost.then(|| self.flows.remembered(&inner.key.mirrored()));
        let answer = self.note_in(&inner, bid, form, out.len(), now);
        if let Some(before) = before {
            self.install_straight_in(snapshot, (&admitted, &header), &inner, before.as_ref(), now);
        }
        if let Some((far, _)) = far {
            let home_address = far.home_address;
            self.notes.say(RouteNote::Used(Pair { home_address, correspondent: destination }), now);
        }
        if let Some((near, _)) = near {
            let home_address = near.home_address;
            let correspondent = inner.header.source;
            let pair = Pair { home_address, correspondent };
            if snapshot.optimized.get(&pair).is_some() {
                self.verified.note(header.source);
                self.notes.say(RouteNote::Used(pair), now);
            }
        }
        self.note_heard(snapshot, &inner, out, answer);
        Ok(Verdict::Deliver)
    }

    /// Something of a flow came in: the binding by which it goes straight, if it does, may be heard
    /// of.
    fn note_heard(
        &self,
        snapshot: &Snapshot,
        inner: &Inner,
        packet: &[u8],
        answer: Option<Answer>,
    ) {
        if snapshot.optimized.is_empty() {
            return;
        }
        let Some(segment) = inner.segment(packet) else { return };
        let back = inner.key.mirrored();
        if let (Some(near), Some(answer)) = (snapshot.updates.lookup(back.source), answer)
            && let Ok(pair) = pair_of(near, &back)
        {
            let ports = (back.source_port, back.destination_port);
            self.notes.heard(pair, answer.bid, ports, &segment);
        }
    }

    /// A packet went straight.
    pub(crate) fn note_straight(
        &self,
        route: &Route<'_>,
        key: &FlowKey,
        segment: Option<Segment>,
        now: Duration,
    ) {
        let Registration { home_address, peer, .. } = *route.registration;
        if route.side == Side::Far {
            self.notes.say(RouteNote::Used(Pair { home_address, correspondent: peer }), now);
            return;
        }
        let Encapsulation::Optimized { source, home_address, routing_header, .. } =
            route.encapsulation
        else {
            return;
        };
        let Ok(pair) = pair_of(route.registration, key) else { return };
        if home_address.is_some() {
            self.notes.say(RouteNote::Used(pair), now);
            if let Some(segment) = segment {
                let ports = (key.source_port, key.destination_port);
                let by = (route.binding.bid, source);
                self.notes.sent_straight(pair, by, ports, &segment, now);
            }
        }
        if routing_header.is_some() {
            self.notes.say(RouteNote::Used(pair.turned()), now);
        }
    }

    /// Says that a flow from a home address of ours could go straight, if its rule lets it and
    /// nothing is held.
    pub(crate) fn want(
        &self,
        snapshot: &Snapshot,
        registration: &Registration,
        key: &FlowKey,
        rule: Option<RuleId>,
        now: Duration,
    ) {
        let note = match registration.policy.optimize(rule) {
            Optimize::Never => return,
            Optimize::Allowed => RouteNote::Wanted,
            Optimize::Always => RouteNote::WantedAtOnce,
        };
        let Ok(pair) = pair_of(registration, key) else { return };
        let ours = pair.correspondent == registration.peer
            || snapshot.updates.lookup(key.destination).is_some();
        if !ours && snapshot.optimized.get(&pair).is_none() {
            self.notes.say(note(pair), now);
        }
    }

    /// The same of a packet that came through the tunnel (RFC 6275 §11.6.1). What the rules say
    /// of the answers to it is remembered or asked.
    pub(crate) fn want_back(&self, arrived: &Arrived<'_>, inner: &Inner, answer: Option<Answer>) {
        let Arrived { snapshot, now, .. } = *arrived;
        let Some(near) = snapshot.updates.lookup(inner.key.destination) else { return };
        if near.policy.optimize.is_none() {
            return;
        }
        let back = inner.key.mirrored();
        self.note_heard(snapshot, inner, arrived.payload(), answer);
        let Ok(pair) = pair_of(near, &back) else { return };
        if inner.is_error()
            || snapshot.optimized.get(&pair).is_some()
            || !self.notes.is_due(&RouteNote::Wanted(pair), now)
            || !self.notes.is_due(&RouteNote::WantedAtOnce(pair), now)
        {
            return;
        }
        let rule = match answer {
            Some(answer) => answer.rule,
            None => match decide(snapshot, &back, now, Memory::default()) {
                Decision::Forward(route) => route.rule,
                Decision::Replicate(copies) => copies.first.rule,
                _ => return,
            },
        };
        self.want(snapshot, near, &back, rule, now);
    }
}
