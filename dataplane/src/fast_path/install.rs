//! Which decisions are put into a fast path, and as what.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{Bid, FlowKey, RuleId, Scope};

use super::{Exit, Fast, Held, Kept, SEES, Slot, Whose, binding_of};
use crate::abi::{Course, FastFlow, FastKey, FastRoute};
use crate::admit::{Admitted, AdmittedStraight};
use crate::decide::{Encapsulation, Route, Side};
use crate::engine::Engine;
use crate::memory::{Answer, Remembered, Way};
use crate::packet::Inner;
use crate::pairs::Pair;
use crate::registration::{Binding, Registration};
use crate::snapshot::Snapshot;
use crate::straight::pair_of;
use crate::wire::{Header, IPV6, TCP, UDP};

/// What a flow is installed by.
#[derive(Clone, Copy)]
struct By<'s> {
    side: Side,
    /// The ends, if it goes straight.
    pair: Option<Pair>,
    registration: &'s Registration,
    binding: &'s Binding,
    rule: Option<RuleId>,
    /// By which binding the flow's last packet must have come for this to hold.
    settled: Option<Bid>,
}

/// Whether packets like this one can be held: TCP or UDP right behind the header.
fn is_plain(inner: &Inner) -> bool {
    matches!(inner.header.next_header, TCP | UDP)
}

/// Whether the rules of a home look only at what a fast path sees.
fn is_seen(registration: &Registration) -> bool {
    registration.consults.union(SEES) == SEES
}

/// Whether a flow of a home goes through the tunnel and nowhere else. What may go straight is wanted
/// packet by packet. The key is that of packets that leave.
fn is_tunnelled(registration: &Registration, side: Side, key: &FlowKey) -> bool {
    side == Side::Far
        || registration.policy.optimize.is_none()
        || pair_of(registration, key).is_err()
}

/// The ends of a route that goes straight with one header; of one with both, or with none, nothing.
fn straight_ends(route: &Route<'_>, key: &FlowKey) -> Option<Pair> {
    let Encapsulation::Optimized { home_address, routing_header, .. } = route.encapsulation else {
        return None;
    };
    match (route.side, home_address, routing_header) {
        (Side::Near, Some(_), None) => pair_of(route.registration, key).ok(),
        (Side::Far, None, Some(_)) => Some(far_pair(route.registration)),
        _ => None,
    }
}

/// The ends of what is bound at this node as a correspondent.
fn far_pair(registration: &Registration) -> Pair {
    Pair { home_address: registration.home_address, correspondent: registration.peer }
}

/// Whether the flow keeps to this answer by itself.
fn is_own(answer: &Answer) -> bool {
    answer.way == Way::Tunnel
        && answer.due.is_none()
        && answer.together.is_none()
        && matches!(answer.sticky.scope, Scope::None | Scope::Flow)
}

impl Engine {
    /// Installs the way out of a flow whose packet was just sent, if the same was decided before.
    pub(crate) fn install_out(
        &self,
        snapshot: &Snapshot,
        route: &Route<'_>,
        (inner, key): (&Inner, &FlowKey),
        flow: Option<&Remembered>,
        answer: &Answer,
        now: Duration,
    ) {
        let Some(fast) = &self.fast else { return };
        let before = flow.and_then(|flow| flow.answer);
        if route.side == Side::Far && answer.due.is_some() {
            // The mobile decides when it moves: how it comes is watched packet by packet.
            if before.is_none_or(|before| before.due.is_none())
                && let Some(key) = FastKey::new(key, Course::In)
            {
                self.end_flow(fast, &key);
            }
            return;
        }
        let again = before.is_some_and(|it| (it.bid, it.way) == (answer.bid, answer.way));
        let pair = straight_ends(route, key);
        let knows_the_way = match (route.encapsulation, pair) {
            (Encapsulation::Tunnel { .. }, _) => is_tunnelled(route.registration, route.side, key),
            // Of what is eaten on the way nothing but the engine would know.
            (_, Some(pair)) => {
                route.side == Side::Far
                    || key.protocol != TCP
                    || self.notes.has_arrived(pair, answer.bid)
            }
            _ => false,
        };
        if !again
            || !knows_the_way
            || !is_plain(inner)
            || !is_own(answer)
            || !is_seen(route.registration)
        {
            return;
        }
        let Some(key) = FastKey::new(key, Course::Out) else { return };
        let flow = FastFlow {
            lasts_ns: u64::try_from(answer.sticky.lasts.as_nanos()).unwrap_or(u64::MAX),
            label: self.flow_label(&key.key()).to_be_bytes(),
            ..FastFlow::default()
        };
        let Route { side, registration, binding, .. } = *route;
        let (rule, settled) = (answer.rule, answer.last_verified);
        let by = By { side, pair, registration, binding, rule, settled };
        self.install(fast, snapshot, by, key, flow, now);
    }

    /// Installs the way in of a flow whose packet was just admitted, if it is not the first one by
    /// this binding; otherwise ends what was installed of the flow, as the way out may depend on
    /// which binding that is.
    pub(crate) fn install_in(
        &self,
        snapshot: &Snapshot,
        (admitted, outer): (&Admitted<'_>, &Header),
        inner: &Inner,
        before: Option<&Remembered>,
        now: Duration,
    ) {
        let Admitted { registration, side, binding } = *admitted;
        // Copies that are marked have a place in a sequence, and no fast path keeps order.
        let may_stay =
            outer.next_header == IPV6 && is_tunnelled(registration, side, &inner.key.mirrored());
        let by = By { side, pair: None, registration, binding, rule: None, settled: binding.bid };
        self.settle_in(snapshot, by, may_stay, inner, before, now);
    }

    /// The same of a packet that came straight. What has both headers stays with the engine.
    pub(crate) fn install_straight_in(
        &self,
        snapshot: &Snapshot,
        (admitted, outer): (&AdmittedStraight<'_>, &Header),
        inner: &Inner,
        before: Option<&Remembered>,
        now: Duration,
    ) {
        let to_our_home = || snapshot.updates.lookup(inner.key.destination).is_some();
        let (side, pair, registration, binding) = match (admitted.near, admitted.far) {
            (Some((near, Some(binding))), None) => {
                let home_address = near.home_address;
                let pair = Pair { home_address, correspondent: outer.source };
                (Side::Near, pair, near, binding)
            }
            (None, Some((far, binding))) if !to_our_home() => {
                (Side::Far, far_pair(far), far, binding)
            }
            _ => return,
        };
        let pair = Some(pair);
        let by = By { side, pair, registration, binding, rule: None, settled: binding.bid };
        self.settle_in(snapshot, by, true, inner, before, now);
    }

    fn settle_in(
        &self,
        snapshot: &Snapshot,
        by: By<'_>,
        may_stay: bool,
        inner: &Inner,
        before: Option<&Remembered>,
        now: Duration,
    ) {
        let Some(fast) = &self.fast else { return };
        if !is_plain(inner) {
            return;
        }
        let Some(key) = FastKey::new(&inner.key.mirrored(), Course::In) else { return };
        if before.is_none_or(|before| before.last_verified != by.binding.bid) {
            return self.end_flow(fast, &key);
        }
        let waits = before.and_then(|before| before.answer).is_some_and(|it| it.due.is_some());
        if may_stay && !(by.side == Side::Far && waits) {
            self.install(fast, snapshot, by, key, FastFlow::default(), now);
        }
    }

    fn install(
        &self,
        fast: &Fast,
        snapshot: &Snapshot,
        by: By<'_>,
        key: FastKey,
        flow: FastFlow,
        now: Duration,
    ) {
        let By { side, pair, registration, binding, rule, settled } = by;
        let home_address = registration.home_address;
        let whose = Whose { side, home_address, bid: binding.bid, pair };
        if pair.is_some() && (!fast.path.knows_straight() || binding_of(snapshot, &whose).is_none())
        {
            return;
        }
        let mut kept = fast.lock();
        let (flows, _) = fast.path.room();
        let known = kept.flows.contains_key(&key);
        let current = std::ptr::eq(&**self.snapshot.load(), snapshot);
        if !current || (!known && kept.flows.len() >= flows) {
            return;
        }
        // A packet that came meanwhile by another binding has ended the flow, or will.
        let verified = self.flows.remembered(&key.key()).and_then(|flow| flow.last_verified);
        if verified != settled {
            return;
        }
        fast.tell(&mut kept, now);
        let before = match known.then(|| self.end(fast, &mut kept, &key)).transpose() {
            Ok(before) => before.flatten(),
            Err(_) => return fast.halt(&mut kept),
        };
        let Some(slot) = self.slot(fast, &mut kept, whose, registration, binding) else { return };
        let flow = FastFlow {
            generation: registration.generation,
            epoch: kept.epoch,
            path: slot,
            seen_ns: fast.path.clock(),
            // What the kernel has forwarded of a connection it has forwarded, whoever decides it anew.
            both: before.map_or(0, |before| before.both),
            ..flow
        };
        if fast.path.put(&key, &flow).is_ok() {
            let (bid, path) = (binding.bid, binding.path);
            let FastFlow { seen_ns: since_ns, generation, epoch, .. } = flow;
            let (packets, octets) = (0, 0);
            let held = Held { rule, bid, slot, path, packets, octets, since_ns, generation, epoch };
            kept.flows.insert(key, held);
            kept.members[slot as usize].insert(key);
            kept.directions.entry(key.flow()).or_default().push(key);
        }
    }

    /// The number of this binding's path, which is written if it is not yet.
    fn slot(
        &self,
        fast: &Fast,
        kept: &mut Kept,
        whose: Whose,
        registration: &Registration,
        binding: &Binding,
    ) -> Option<u32> {
        let known = kept.numbers.get(&whose).map(|number| *number as usize);
        if let Some(number) = known
            && kept.slots[number].is_some_and(|slot| slot.route != FastRoute::default())
        {
            return Some(number as u32);
        }
        let (_, most) = fast.path.room();
        let free = || kept.slots.iter().position(Option::is_none);
        let number = known.or_else(free).unwrap_or(kept.slots.len());
        if number >= most as usize {
            return None;
        }
        let route = self.route(fast, &whose, registration, binding, None, kept.told.0)?;
        fast.path.set_path(number as u32, &route).ok()?;
        if number == kept.slots.len() {
            kept.slots.push(None);
            kept.members.push(HashSet::default());
        }
        kept.slots[number] = Some(Slot { whose, path: binding.path, route });
        kept.numbers.insert(whose, number as u32);
        Some(number as u32)
    }

    /// How packets of a binding are wrapped; `None` if a fast path cannot. `known` tells the
    /// interface, as long as the ends are the same.
    pub(super) fn route(
        &self,
        fast: &Fast,
        whose: &Whose,
        registration: &Registration,
        binding: &Binding,
        known: Option<&FastRoute>,
        now: Duration,
    ) -> Option<FastRoute> {
        let IpAddr::V6(care_of) = binding.care_of.0 else { return None };
        if binding.home_link {
            return None;
        }
        let (form, source, destination) = match (whose.side, whose.pair) {
            (Side::Near, None) => (FastRoute::TUNNEL, care_of, registration.peer),
            (Side::Far, None) => (FastRoute::TUNNEL, registration.peer, care_of),
            (Side::Near, Some(pair)) => (FastRoute::HOME_ADDRESS, care_of, pair.correspondent),
            (Side::Far, Some(_)) => (FastRoute::ROUTING_HEADER, registration.peer, care_of),
        };
        let known = known.filter(|known| known.ends() == (source, destination));
        let Exit { interface, mark } = match known {
            Some(known) => Exit { interface: known.interface, mark: known.mark },
            None => fast.path.exit(binding.path, (source, destination))?,
        };
        let mtu = self.path_mtus.of(source, destination, binding.mtu, now);
        let route = FastRoute {
            generation: registration.generation,
            source: source.octets(),
            destination: destination.octets(),
            interface,
            mark,
            room: 0,
            hop_limit: self.settings.hop_limit,
            form,
            turn: 0,
        };
        Some(FastRoute { room: mtu - route.overhead(), ..route })
    }

    /// Tells the fast path what a Packet Too Big told of an outer path.
    pub(crate) fn narrow(&self, source: Ipv6Addr, destination: Ipv6Addr, now: Duration) {
        let Some(fast) = &self.fast else { return };
        let mut kept = fast.lock();
        for number in 0..kept.slots.len() {
            let Some(mut slot) = kept.slots[number] else { continue };
            if slot.route.ends() != (source, destination) {
                continue;
            }
            let link_mtu = slot.route.room + slot.route.overhead();
            let mtu = self.path_mtus.of(source, destination, link_mtu, now);
            slot.route.room = mtu - slot.route.overhead();
            if fast.path.set_path(number as u32, &slot.route).is_err() {
                return fast.halt(&mut kept);
            }
            kept.slots[number] = Some(slot);
        }
    }
}
