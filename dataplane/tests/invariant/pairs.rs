//! What happens to pairs of a home address and a correspondent, and packets that come straight.

use std::net::{IpAddr, Ipv6Addr};

use mtun_dataplane::{
    Binding, Held, HeldBinding, IgnoreReason, Pair, PathId, Registration, Verdict,
};
use mtun_policy::{Bid, Effective, FlowKey, HomeAddress, HomeName, Ingress};
use proptest::prelude::*;

use crate::straight::{Entry, Holds};
use crate::support::{raw, v6};
use crate::worlds::{CARE_OF, HOMES, packet_of};
use crate::{APART, Both, flow_of};

impl Both {
    /// A packet that comes straight from `ends.0` to `ends.1`.
    pub fn inward_straight(
        &mut self,
        ends: (Ipv6Addr, Ipv6Addr),
        option: Option<Ipv6Addr>,
        route: Option<Ipv6Addr>,
        key: &FlowKey,
    ) -> Result<(), TestCaseError> {
        let source = option.unwrap_or(ends.0).into();
        let destination = route.unwrap_or(ends.1).into();
        // Signalling is for the machines whatever its headers say.
        let protocol = if key.protocol == 135 { 58 } else { key.protocol };
        let key = FlowKey { source, destination, protocol, ingress: Ingress::OTHER, ..*key };
        let packet = packet_of(&key);
        let mut payload = Vec::new();
        let behind_route = if option.is_some() { 60 } else { protocol };
        if let Some(route) = route {
            payload.extend_from_slice(&[behind_route, 2, 2, 1, 0, 0, 0, 0]);
            payload.extend_from_slice(&route.octets());
        }
        if let Some(option) = option {
            payload.extend_from_slice(&[protocol, 2, 1, 2, 0, 0, 0xc9, 16]);
            payload.extend_from_slice(&option.octets());
        }
        payload.extend_from_slice(&packet[40..]);
        let first = if route.is_some() { 43 } else { behind_route };
        let mut outside = raw(ends.0, ends.1, first, &payload);
        outside[..2].copy_from_slice(&packet[..2]);
        outside[7] = packet[7];
        self.now += APART;
        let (now, node) = (self.now, &mut self.node);
        let verdict = node.engine.inbound(PathId(1), &outside, now, &mut node.out);
        let got = match verdict {
            Verdict::Deliver => {
                prop_assert_eq!(&self.node.out, &packet);
                let flow = flow_of(&key.mirrored());
                let flows = self.node.engine.flows();
                let flow = flows.iter().find(|it| flow_of(&it.key) == flow);
                Entry::In(flow.expect("it was noted").bid_in)
            }
            Verdict::UnknownBinding { source, home_address, destination } => {
                prop_assert_eq!((source, Some(home_address)), (ends.0, option));
                prop_assert_eq!(IpAddr::V6(destination), key.destination);
                Entry::Unknown
            }
            Verdict::Ignore(IgnoreReason::NotOurHome) => Entry::NotOurHome,
            Verdict::Drop(_) => Entry::Dropped,
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        let want = self.reader.enters(ends, option, route);
        prop_assert_eq!(got, want, "{:?} {:?} {:?} {:?}", ends, option, route, key);
        if let Entry::In(bid) = want {
            let flow = flow_of(&key.mirrored());
            self.verified.insert(flow, (bid, now));
            if let Some(held) = self.held.get_mut(&flow) {
                held.seen = now;
            }
        }
        Ok(())
    }

    /// The answer to the last packet out, straight, if its ends are such.
    pub fn straight_back(&mut self, which: usize, other: usize) -> Result<(), TestCaseError> {
        let Some(key) = self.last_out else { return Ok(()) };
        let (IpAddr::V6(us), IpAddr::V6(them)) = (key.source, key.destination) else {
            return Ok(());
        };
        let care_of = |home: Option<&Registration>, which: usize| {
            let IpAddr::V6(care_of) = home?.bindings.get(which)?.care_of.0 else { return None };
            Some(care_of)
        };
        let own = self.reader.own.iter().find(|home| home.home_address.0 == us);
        let here = care_of(own, which);
        let pair = |it: &&Registration| (it.home_address.0, it.peer) == (them, us);
        let there = care_of(self.reader.bound.iter().find(pair), other);
        if here.is_none() && there.is_none() {
            return Ok(());
        }
        let ends = (there.unwrap_or(them), here.unwrap_or(us));
        // Not all of what can be a correspondent takes packets in this world.
        if !self.node.snapshot.load().is_own(ends.1) {
            return Ok(());
        }
        self.inward_straight(ends, there.map(|_| them), here.map(|_| us), &key.mirrored())?;
        self.out(&key)
    }

    pub fn hold(&mut self, home: usize, peer: &str, bindings: &[(u16, usize)]) {
        let (home_address, peer) = (v6(HOMES[home].0), v6(peer));
        let pair = Pair { home_address: HomeAddress(home_address), correspondent: peer };
        let bindings = bindings.iter().map(|(bid, at)| (Bid::new(*bid), v6(CARE_OF[*at])));
        let bindings: Vec<_> = bindings.collect();
        let mut next = (*self.node.snapshot.load_full()).clone();
        let one = |&(bid, care_of): &_| HeldBinding { bid, care_of };
        next.optimized = match bindings.is_empty() {
            true => next.optimized.without(&pair),
            false => {
                let held = Held { bindings: bindings.iter().map(one).collect() };
                next.optimized.with(pair, held)
            }
        };
        self.node.snapshot.store(next.into());
        let holds = &mut self.reader.holds;
        holds.retain(|it| (it.home_address, it.peer) != (home_address, peer));
        holds.push(Holds { home_address, peer, bindings });
        self.published = true;
    }

    pub fn bind(&mut self, ours: &str, home: &str, bindings: Vec<Binding>) {
        let (ours, home_address) = (v6(ours), HomeAddress(v6(home)));
        let pair = Pair { home_address, correspondent: ours };
        self.reader.bound.retain(|it| (it.home_address, it.peer) != (home_address, ours));
        let mut next = (*self.node.snapshot.load_full()).clone();
        if bindings.is_empty() {
            next.correspondents = next.correspondents.without(&pair);
        } else {
            let (name, policy) = (HomeName::new("peer"), Effective::reflecting());
            let mut bound =
                Registration::new(name, home_address, Vec::new(), ours, bindings, policy);
            bound.changed_at = self.now;
            next.correspondents = next.correspondents.with(pair, bound);
            let stamped = next.correspondents.get(&pair).expect("just put there").clone();
            self.reader.bound.push(stamped);
        }
        self.node.snapshot.store(next.into());
        self.published = true;
    }
}
