//! Errors that come back for our outer packets, translated to the inner source (RFC 2473 §8).
//!
//! Anybody can send an ICMPv6 error, so one is believed only if the packet it quotes is one that a
//! live binding would make, of a flow that this engine sent a moment ago. What is believed lowers
//! the MTU of one outer path, never below 1280, or becomes one rate-limited message.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::Ingress;

use crate::engine::{Engine, Verdict};
use crate::mtu::{self, inner_mtu, told_mtu};
use crate::packet::Inner;
use crate::reason::IgnoreReason;
use crate::snapshot::Snapshot;
use crate::wire::icmpv6::{self, IcmpError};
use crate::wire::{Chain, Header, IPV6, MOBILITY_HEADER};

/// How long after the last packet of a flow an error about it is believed.
const ERROR_WINDOW: Duration = Duration::from_secs(30);

impl Engine {
    /// An ICMPv6 message to one of our own addresses: if it is an error about a packet of ours,
    /// the inner source learns of it (RFC 2473 §8).
    pub(crate) fn returned(
        &self,
        snapshot: &Snapshot,
        header: &Header,
        message: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Verdict {
        let Some(error) = icmpv6::parse(header, message) else {
            return Verdict::Ignore(IgnoreReason::NotTunnelled);
        };
        let Some(quoted) = Header::parse(error.quoted).filter(|q| q.source == header.destination)
        else {
            return Verdict::Ignore(IgnoreReason::ForgedError);
        };
        let Ok(chain) = Chain::walk(error.quoted, quoted.next_header) else {
            return Verdict::Ignore(IgnoreReason::ForgedError);
        };
        if mtu::is_later_fragment(&chain) {
            return Verdict::Ignore(IgnoreReason::ErrorWithoutEffect);
        }
        let rest = &error.quoted[chain.upper_at..];
        match chain.upper {
            IPV6 => match self.relay(snapshot, &error, &quoted, rest, now, out) {
                Ok(()) => {
                    self.counters.answer();
                    Verdict::Deliver
                }
                Err(reason) => Verdict::Ignore(reason),
            },
            MOBILITY_HEADER => {
                out.extend_from_slice(rest);
                Verdict::SignallingFailed {
                    source: quoted.source,
                    destination: quoted.destination,
                    kind: error.kind,
                    code: error.code,
                }
            }
            _ => Verdict::Ignore(IgnoreReason::NotTunnelled),
        }
    }

    /// req TN-08, TN-10: translates an error about an outer packet of ours.
    ///
    /// req CN-66: it is believed only if the quoted packet is one that a live binding would make, of a flow
    /// that was sent by this engine a moment ago.
    fn relay(
        &self,
        snapshot: &Snapshot,
        error: &icmpv6::Received<'_>,
        quoted: &Header,
        packet: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<(), IgnoreReason> {
        let inner =
            Inner::parse_quoted(packet, Ingress::OTHER).map_err(|_| IgnoreReason::ForgedError)?;
        let key = self.firsts.key(&inner, now);
        let (source, link_mtu) =
            sender(snapshot, quoted, &inner).ok_or(IgnoreReason::ForgedError)?;
        let sent = self.flows.last_sent(&key).ok_or(IgnoreReason::ForgedError)?;
        if now.saturating_sub(sent) > ERROR_WINDOW {
            return Err(IgnoreReason::ForgedError);
        }
        let translated = if error.kind == 2 {
            let ends = (quoted.source, quoted.destination);
            if error.value >= u32::from(self.path_mtus.of(ends.0, ends.1, link_mtu, now)) {
                return Err(IgnoreReason::ErrorWithoutEffect);
            }
            self.path_mtus.learn(ends.0, ends.1, error.value, now);
            let path_mtu = self.path_mtus.of(ends.0, ends.1, link_mtu, now);
            if inner.header.total_length() <= usize::from(mtu::MIN_MTU) {
                return Err(IgnoreReason::ErrorWithoutEffect);
            }
            let wrapped = usize::from(quoted.payload_length) + 40 - inner.header.total_length();
            IcmpError::PacketTooBig { mtu: told_mtu(inner_mtu(path_mtu, wrapped.min(48))) }
        } else {
            IcmpError::AddressUnreachable
        };
        if !icmpv6::may_answer(packet, &inner.header, &inner.chain) {
            return Err(IgnoreReason::ErrorWithoutEffect);
        }
        if !self.answers.allow(now) {
            return Err(IgnoreReason::RateLimited);
        }
        translated.emit(source, packet, out);
        Ok(())
    }
}

/// Our inner address and the link's MTU, if a live binding of ours sends such a packet.
fn sender(snapshot: &Snapshot, quoted: &Header, inner: &Inner) -> Option<(Ipv6Addr, u16)> {
    let (source, destination) = (IpAddr::V6(quoted.source), IpAddr::V6(quoted.destination));
    let near = snapshot.updates.lookup(inner.key.source).and_then(|near| {
        let binding = near.bindings.iter().find(|b| b.care_of.0 == source)?;
        (IpAddr::V6(near.peer) == destination).then_some((near.home_address.0, binding.mtu))
    });
    near.or_else(|| {
        let far = snapshot.cache.lookup(inner.key.destination)?;
        let binding = far.bindings.iter().find(|b| b.care_of.0 == destination)?;
        (IpAddr::V6(far.peer) == source).then_some((far.peer, binding.mtu))
    })
}
