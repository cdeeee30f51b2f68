//! Signaling of our own from a home address: into the tunnel without asking the rules.

use std::net::IpAddr;

use mtun_policy::{Bid, HomeAddress, Ingress};

use crate::encapsulation::{encapsulate, limit_for};
use crate::engine::Engine;
use crate::packet::Inner;
use crate::reason::DropReason;
use crate::registration::PathId;
use crate::wire::TunnelOptions;

impl Engine {
    /// Wraps a message that this node itself sends from one of its home addresses for its home
    /// agent, by this binding, or by the preferred one; returns by which path it leaves.
    ///
    /// Rules speak of flows, not of the messages that keep them going: the machine that tests an
    /// uplink says by which one. On the home link the message leaves as it is.
    pub fn outbound_signalling(
        &self,
        home_address: HomeAddress,
        bid: Option<Bid>,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<PathId, DropReason> {
        out.clear();
        let inner = Inner::parse(packet, Ingress::LOCAL)?;
        let snapshot = self.snapshot.load();
        let registration = snapshot.updates.get(home_address).ok_or(DropReason::NotOurs)?;
        let at_home = registration.bindings.iter().find(|it| it.home_link && it.carries());
        let named = bid.and_then(|bid| registration.binding(Some(bid))).filter(|it| it.carries());
        let binding = named.or(at_home).or_else(|| registration.preferred());
        let binding = binding.ok_or(DropReason::NoUsableBinding)?;
        let IpAddr::V6(care_of) = binding.care_of.0 else {
            return Err(DropReason::NoUsableBinding);
        };
        if binding.home_link {
            out.extend_from_slice(packet);
            return Ok(binding.path);
        }
        let ends = (care_of, registration.peer);
        let options = TunnelOptions { limit: limit_for(&inner)?, copy: None };
        let label = self.flow_label(&inner.key);
        encapsulate(ends, &inner, packet, options, self.settings.hop_limit, label, out)?;
        Ok(binding.path)
    }
}
