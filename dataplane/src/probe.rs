//! Probes: packets of our own that ask whether a binding lives, and their answers.
//!
//! A probe goes from the home address to the agent, inside the tunnel, by the binding that is
//! named: no rule decides about it, so that it tells of the link and of nothing else. It is an
//! ordinary Echo Request, which every agent answers. An agent of our kind answers it here, by the
//! very binding by which it came and with no decision either, because the answer of its kernel
//! would take the way that its rules have for the mobile. What comes back counts if its token is
//! one of ours, and says by which binding it came.
//!
//! Probes are no flows: they are not remembered, not counted for rules and wait for nothing.
//!
//! Standards: RFC 4443 §4; RFC 6275 §10.4.5, §11.3.1; RFC 5648 §6.5.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{Bid, HomeAddress, Ingress};

use crate::admit::Admitted;
use crate::decide::Side;
use crate::encapsulation::encapsulate;
use crate::engine::{Engine, Verdict};
use crate::packet::Inner;
use crate::registration::{Binding, PathId};
use crate::wire::probe::{self, Probe, REPLY, REQUEST};
use crate::wire::{Header, ICMPV6, TunnelOptions};

impl Engine {
    /// Writes a probe of this number for a binding of ours, and says how it leaves; `None` if
    /// there is no such binding, or nothing can leave by it through the tunnel.
    pub fn probe(
        &self,
        home_address: HomeAddress,
        bid: Bid,
        sequence: u64,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Option<PathId> {
        out.clear();
        let snapshot = self.snapshot.load();
        let registration = snapshot.updates.get(home_address)?;
        let binding = registration.binding(Some(bid))?;
        let care_of = through_tunnel(binding).filter(|_| binding.attached)?;
        let token = self.token(home_address, bid, sequence, now);
        let mut packet = Vec::new();
        let probe = Probe { bid, sequence, sent: now, token };
        probe.emit(home_address.0, registration.peer, &mut packet);
        self.wrap_probe((care_of, registration.peer), &packet, out)?;
        Some(binding.path)
    }

    /// What an admitted inner packet is if it is a probe or the answer to one; `None` if it is
    /// anything else, and then nothing has happened.
    pub(crate) fn probed(
        &self,
        admitted: &Admitted<'_>,
        outer: &Header,
        inner: &Inner,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Verdict> {
        let Admitted { registration, side, binding } = *admitted;
        let whole = inner.fragment.is_none() && inner.header.next_header == ICMPV6;
        let message = packet.get(inner.chain.upper_at..).filter(|_| whole)?;
        let (home, agent) = (registration.home_address, registration.peer);
        let ends = (inner.header.source, inner.header.destination);
        match side {
            Side::Far if ends == (home.0, agent) && !binding.home_link => {
                Probe::parse(REQUEST, &inner.header, message)?;
                let mut reply = Vec::new();
                probe::answer(&inner.header, message, &mut reply);
                self.wrap_probe((outer.destination, outer.source), &reply, out)?;
                self.counters.probe_answered();
                Some(Verdict::Send { path: binding.path })
            }
            Side::Near if ends == (agent, home.0) => {
                let Probe { bid, sequence, sent, token } =
                    Probe::parse(REPLY, &inner.header, message)?;
                let ours = token == self.token(home, bid, sequence, sent);
                ours.then_some(Verdict::Probed {
                    home_address: home,
                    bid,
                    sequence,
                    by: binding.bid,
                })
            }
            _ => None,
        }
    }

    fn wrap_probe(
        &self,
        ends: (Ipv6Addr, Ipv6Addr),
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let inner = Inner::parse(packet, Ingress::OTHER).expect("we wrote it");
        let options = TunnelOptions { limit: None, copy: None };
        let label = self.flow_label(&inner.key);
        encapsulate(ends, &inner, packet, options, self.settings.hop_limit, label, out).ok()
    }

    /// What nobody can guess who does not see our probes, and what nobody has to remember.
    fn token(&self, home: HomeAddress, bid: Bid, sequence: u64, sent: Duration) -> [u8; 16] {
        let of = (home.0, bid.get(), sequence, probe::nanoseconds(sent));
        let half = |which: u8| self.labels.hash_one((which, of)).to_be_bytes();
        let mut token = [0; 16];
        token[..8].copy_from_slice(&half(1));
        token[8..].copy_from_slice(&half(2));
        token
    }
}

/// The care-of address of a binding whose packets go through the tunnel.
fn through_tunnel(binding: &Binding) -> Option<Ipv6Addr> {
    match binding.care_of.0 {
        IpAddr::V6(care_of) if !binding.home_link => Some(care_of),
        _ => None,
    }
}
