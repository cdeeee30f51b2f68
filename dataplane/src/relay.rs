//! Errors that come back for our packets, translated for their inner source.
//!
//! Anybody can send an ICMPv6 error, so one is believed only if the packet it quotes is one that a
//! live binding would make, of a flow that this engine sent a moment ago. What is believed lowers
//! the MTU of one outer path, never below 1280, or becomes one rate-limited message.
//!
//! A tunnel is one hop: what happens in it becomes Address Unreachable, from its entry
//! (RFC 2473 §8). A packet that went straight met the routers that its sender speaks of: their
//! error goes on as it is, about the packet as its sender made it.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{Bid, HomeAddress, Ingress};

use crate::engine::{Engine, Verdict};
use crate::mtu::{self, inner_mtu, told_mtu};
use crate::notes::RouteNote;
use crate::optimized::{Headers, restore};
use crate::packet::Inner;
use crate::pairs::Pair;
use crate::reason::IgnoreReason;
use crate::receive::Arrived;
use crate::snapshot::Snapshot;
use crate::wire::icmpv6::{self, IcmpError, Received};
use crate::wire::ipv6::HEADER;
use crate::wire::{Chain, Header, IPV6, MOBILITY_HEADER, tunnel_options};

/// How long after the last packet of a flow an error about it is believed.
const ERROR_WINDOW: Duration = Duration::from_secs(30);

/// What an ICMPv6 error quotes.
struct Quoted<'p> {
    header: Header,
    chain: Chain,
    packet: &'p [u8],
}

impl Engine {
    /// An ICMPv6 message to one of our own addresses: if it is an error about a packet of ours,
    /// the inner source learns of it.
    pub(crate) fn returned(&self, arrived: &Arrived<'_>, out: &mut Vec<u8>) -> Verdict {
        let Arrived { snapshot, header, now, .. } = *arrived;
        let Some(error) = icmpv6::parse(&header, arrived.payload()) else {
            return Verdict::Ignore(IgnoreReason::NotTunnelled);
        };
        let Some(quoted) = Header::parse(error.quoted).filter(|q| q.source == header.destination)
        else {
            return Verdict::Ignore(IgnoreReason::ForgedError);
        };
        let Ok(chain) = Chain::walk(error.quoted, quoted.next_header) else {
            return Verdict::Ignore(IgnoreReason::ForgedError);
        };
        let is_straight = chain.upper != MOBILITY_HEADER
            && (chain.home_address.is_some()
                || chain.routing.is_some_and(|routing| routing.home_address.is_some()));
        if mtu::is_later_fragment(&chain) {
            return Verdict::Ignore(IgnoreReason::ErrorWithoutEffect);
        }
        let rest = &error.quoted[chain.upper_at..];
        let quoted = Quoted { header: quoted, chain, packet: error.quoted };
        let relayed = match chain.upper {
            _ if is_straight => self.relay_straight(snapshot, &header, &error, &quoted, now, out),
            IPV6 => self.relay(snapshot, &error, &quoted.header, rest, now, out),
            MOBILITY_HEADER => {
                out.extend_from_slice(rest);
                return Verdict::SignallingFailed {
                    source: quoted.header.source,
                    destination: quoted.header.destination,
                    kind: error.kind,
                    code: error.code,
                };
            }
            _ => Err(IgnoreReason::NotTunnelled),
        };
        match relayed {
            Ok(()) => {
                self.counters.answer();
                Verdict::Deliver
            }
            Err(reason) => Verdict::Ignore(reason),
        }
    }

    /// req TN-08, TN-10: translates an error about an outer packet of ours.
    ///
    /// req CN-66, HA-62, NH-13: it is believed only if the quoted packet is one that a live binding would make, of
    /// a flow that was sent by this engine a moment ago.
    fn relay(
        &self,
        snapshot: &Snapshot,
        error: &Received<'_>,
        quoted: &Header,
        packet: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<(), IgnoreReason> {
        let inner =
            Inner::parse_quoted(packet, Ingress::OTHER).map_err(|_| IgnoreReason::ForgedError)?;
        let (source, link_mtu) =
            sender(snapshot, quoted, &inner).ok_or(IgnoreReason::ForgedError)?;
        self.was_sent(&inner, now)?;
        let translated = if error.kind == 2 {
            let path_mtu = self.shrink(quoted, link_mtu, error.value, now)?;
            if inner.header.total_length() <= usize::from(mtu::MIN_MTU) {
                return Err(IgnoreReason::ErrorWithoutEffect);
            }
            let wrapped = (usize::from(quoted.payload_length) + HEADER)
                .saturating_sub(inner.header.total_length());
            IcmpError::PacketTooBig {
                mtu: told_mtu(inner_mtu(path_mtu, wrapped.min(HEADER + tunnel_options::MOST))),
            }
        } else {
            IcmpError::AddressUnreachable
        };
        self.may_tell(packet, &inner, now)?;
        translated.emit(source, packet, out);
        Ok(())
    }

    /// req CN-65, CN-66, CN-68: translates an error about a packet of ours that went straight.
    fn relay_straight(
        &self,
        snapshot: &Snapshot,
        header: &Header,
        error: &Received<'_>,
        quoted: &Quoted<'_>,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<(), IgnoreReason> {
        let Quoted { header: outer, chain, packet } = quoted;
        let headers = Headers {
            home_address: chain.home_address,
            routing_header: chain.routing.and_then(|routing| routing.home_address),
        };
        let mut restored = Vec::with_capacity(packet.len());
        restore(packet, outer, chain.routing.as_ref(), &headers, &mut restored);
        // What the error quotes may be cut; the header says how long the packet was.
        let length = usize::from(outer.payload_length).saturating_sub(headers.octets());
        restored[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        let inner = Inner::parse_quoted(&restored, Ingress::OTHER)
            .map_err(|_| IgnoreReason::ForgedError)?;
        let sent =
            sender_straight(snapshot, outer, &inner, &headers).ok_or(IgnoreReason::ForgedError)?;
        self.was_sent(&inner, now)?;
        let option = chain.home_address_at;
        if error.kind == 4 && error.code == 2 && option == Some(error.value as usize) {
            self.notes.say(RouteNote::Refused(sent.pair), now);
            return Err(IgnoreReason::ErrorWithoutEffect);
        }
        if error.kind == 1 {
            let Sent { pair, bid, care_of, .. } = sent;
            self.notes.say(RouteNote::Unreachable { pair, bid, care_of }, now);
        }
        let value = match error.kind {
            2 => {
                let path_mtu = self.shrink(outer, sent.link_mtu, error.value, now)?;
                if inner.header.total_length() <= usize::from(mtu::MIN_MTU) {
                    return Err(IgnoreReason::ErrorWithoutEffect);
                }
                told_mtu(inner_mtu(path_mtu, headers.octets()))
            }
            // What stands where our headers stood, or before them, is not the sender's fault.
            4 => match error.value.checked_sub(headers.octets() as u32) {
                Some(pointer) if pointer >= 40 => pointer,
                _ => return Err(IgnoreReason::ErrorWithoutEffect),
            },
            _ => 0,
        };
        self.may_tell(&restored, &inner, now)?;
        let told = Received { value, quoted: &restored, ..*error };
        told.pass_on(header, inner.header.source, out);
        Ok(())
    }

    /// Whether a packet of this flow left here a moment ago.
    fn was_sent(&self, inner: &Inner, now: Duration) -> Result<(), IgnoreReason> {
        let key = self.firsts.key(inner, now);
        let sent = self.flows.last_sent(&key).ok_or(IgnoreReason::ForgedError)?;
        if now.saturating_sub(sent) > ERROR_WINDOW {
            return Err(IgnoreReason::ForgedError);
        }
        Ok(())
    }

    /// Believes that the path of an outer packet takes no more than this.
    fn shrink(
        &self,
        outer: &Header,
        link_mtu: u16,
        told: u32,
        now: Duration,
    ) -> Result<u16, IgnoreReason> {
        let (source, destination) = (outer.source, outer.destination);
        if told >= u32::from(self.path_mtus.of(source, destination, link_mtu, now)) {
            return Err(IgnoreReason::ErrorWithoutEffect);
        }
        self.path_mtus.learn(source, destination, told, now);
        self.narrow(source, destination, now);
        Ok(self.path_mtus.of(source, destination, link_mtu, now))
    }

    /// Whether the inner source may be told now.
    fn may_tell(&self, packet: &[u8], inner: &Inner, now: Duration) -> Result<(), IgnoreReason> {
        if !icmpv6::may_answer(packet, &inner.header, &inner.chain) {
            return Err(IgnoreReason::ErrorWithoutEffect);
        }
        match self.answers.allow(now) {
            true => Ok(()),
            false => Err(IgnoreReason::RateLimited),
        }
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

/// What a live pair of ours would have sent straight.
struct Sent {
    pair: Pair,
    bid: Option<Bid>,
    care_of: Ipv6Addr,
    link_mtu: u16,
}

/// Which pair and binding of ours sends such a packet, if any.
fn sender_straight(
    snapshot: &Snapshot,
    outer: &Header,
    inner: &Inner,
    headers: &Headers,
) -> Option<Sent> {
    let (source, destination) = (inner.header.source, inner.header.destination);
    // Where the other end is, if it is mobile: at a care-of address of a pair that it bound here.
    let far = match headers.routing_header {
        Some(_) => {
            let home_address = HomeAddress(destination);
            let pair = Pair { home_address, correspondent: source };
            let far = snapshot.correspondents.get(&pair)?;
            let binding = far.bindings.iter().find(|b| b.care_of.0 == outer.destination)?;
            Some((pair, binding))
        }
        None => None,
    };
    let Some(home) = headers.home_address else {
        let (pair, binding) = far?;
        let at_home = || snapshot.updates.get(HomeAddress(source)).map(|home| &home.bindings);
        let home_link = at_home().and_then(|all| all.iter().find(|binding| binding.home_link));
        let link_mtu = home_link.map_or(binding.mtu, |home| home.mtu);
        return Some(Sent { pair, bid: binding.bid, care_of: outer.destination, link_mtu });
    };
    let pair = Pair { home_address: HomeAddress(home), correspondent: destination };
    let near = snapshot.updates.get(pair.home_address)?;
    let binding = near.bindings.iter().find(|b| b.care_of.0 == outer.source)?;
    if !snapshot.optimized.get(&pair)?.takes(binding) {
        return None;
    }
    let link_mtu = binding.mtu;
    // What cannot be reached is the other end's care-of address, if it has one.
    Some(match far {
        Some((pair, theirs)) => {
            Sent { pair, bid: theirs.bid, care_of: outer.destination, link_mtu }
        }
        None => Sent { pair, bid: binding.bid, care_of: outer.source, link_mtu },
    })
}
