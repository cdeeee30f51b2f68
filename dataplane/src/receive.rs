//! The way in: from an outer packet to what is delivered, handed to the machines or refused.
//!
//! The order is fixed: is it for us, is it whole, what does it carry; and for a tunnel packet, is
//! the inner packet sound, may it enter, does congestion allow it. Nothing is remembered of a
//! packet that failed on the way.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{HomeAddress, Ingress};

use crate::admit::{OuterKey, admit};
use crate::counters::Direction;
use crate::decide::Side;
use crate::encapsulation::decapsulate;
use crate::engine::{Engine, Verdict};
use crate::packet::Inner;
use crate::reason::{DropReason, IgnoreReason};
use crate::snapshot::Snapshot;
use crate::wire::{Chain, Header, ICMPV6, IPV6, MOBILITY_HEADER, home_address};

impl Engine {
    pub(crate) fn receive(
        &self,
        octets: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        let header = Header::parse(octets).ok_or(DropReason::OuterMalformed)?;
        let snapshot = self.snapshot.load();
        if !snapshot.is_own(header.destination) {
            return Ok(Verdict::Ignore(IgnoreReason::NotToUs));
        }
        // A link may have padded the frame.
        let packet = octets.get(..header.total_length()).ok_or(DropReason::OuterMalformed)?;
        let chain =
            Chain::walk(packet, header.next_header).map_err(|_| DropReason::OuterMalformed)?;
        let Some(fragment) = chain.fragment.filter(|f| f.offset != 0 || f.more) else {
            return self.receive_whole(&snapshot, packet, &header, &chain, now, out);
        };
        let known = self.verified.contains(header.source)
            || snapshot.updates.iter().any(|near| near.peer == header.source);
        match self.reassembly.add(packet, &header, &fragment, known, now)? {
            None => Ok(Verdict::Ignore(IgnoreReason::FragmentHeld)),
            Some(whole) => {
                let header = Header::parse(&whole).ok_or(DropReason::OuterMalformed)?;
                let chain = Chain::walk(&whole, header.next_header)
                    .map_err(|_| DropReason::OuterMalformed)?;
                if chain.fragment.is_some() {
                    return Err(DropReason::FragmentMalformed);
                }
                self.receive_whole(&snapshot, &whole, &header, &chain, now, out)
            }
        }
    }

    fn receive_whole(
        &self,
        snapshot: &Snapshot,
        packet: &[u8],
        header: &Header,
        chain: &Chain,
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        let payload = &packet[chain.upper_at..];
        match chain.upper {
            MOBILITY_HEADER => self.signalling(snapshot, header, chain, payload, out),
            _ if chain.home_address.is_some() => Err(DropReason::HomeAddressWithoutBinding),
            _ if chain.routing.is_some_and(|r| r.segments_left != 0) => {
                Err(DropReason::RoutingHeader)
            }
            IPV6 if chain.unknown_option => Err(DropReason::OuterMalformed),
            IPV6 => self.unwrap(snapshot, header, payload, now, out),
            ICMPV6 => Ok(self.returned(snapshot, header, payload, now, out)),
            _ => Ok(Verdict::Ignore(IgnoreReason::NotTunnelled)),
        }
    }

    fn signalling(
        &self,
        snapshot: &Snapshot,
        header: &Header,
        chain: &Chain,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        if chain.unknown_option || header.source.is_multicast() {
            return Err(DropReason::OuterMalformed);
        }
        if chain.misplaced_home_address
            || chain.home_address.is_some_and(|address| !home_address::is_routable(address))
        {
            return Err(DropReason::HomeAddressOption);
        }
        // req MN-32: type 2, one segment left, one of our own home addresses; else silence.
        let routing_header = match chain.routing {
            Some(routing) if routing.kind == 2 || routing.segments_left != 0 => {
                let ours =
                    |address: &Ipv6Addr| snapshot.updates.get(HomeAddress(*address)).is_some();
                Some(routing.home_address.filter(ours).ok_or(DropReason::RoutingHeader)?)
            }
            _ => None,
        };
        out.extend_from_slice(message);
        Ok(Verdict::Signalling {
            source: header.source,
            destination: header.destination,
            home_address: chain.home_address,
            routing_header,
            tunnelled: false,
        })
    }

    fn unwrap(
        &self,
        snapshot: &Snapshot,
        outer: &Header,
        packet: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        let inner = Inner::parse(packet, Ingress::OTHER)?;
        inner.check_scope()?;
        let ends = OuterKey {
            source: IpAddr::V6(outer.source),
            destination: IpAddr::V6(outer.destination),
        };
        let admitted = admit(snapshot, &ends, &inner.key)?;
        let home = admitted.registration.home_address.0;
        // req TN-13: a type 2 routing header to our home leads to our home or nowhere. One to a node
        // behind us (req NH-20) is that node's: a mobile that visits us is answered by its own agent.
        if admitted.side == Side::Near
            && let Some(routing) = inner.chain.routing.filter(|it| it.segments_left != 0)
        {
            let named = match inner.header.destination == home {
                true => routing.home_address == Some(home),
                false => routing.home_address.is_some(),
            };
            if !named {
                return Err(DropReason::RoutingHeader);
            }
        }
        decapsulate(outer, packet, out).map_err(|_| DropReason::Congestion)?;
        let to_machines = match admitted.side {
            Side::Near => inner.header.destination == home,
            Side::Far => snapshot.is_own(inner.header.destination),
        };
        if inner.key.protocol == MOBILITY_HEADER && to_machines {
            // The kernel knows no Mobility Header and would complain to the sender.
            if inner.fragment.is_some() {
                return Err(DropReason::InnerHeaders);
            }
            let verdict = self.signalling(snapshot, &inner.header, &inner.chain, &[], out)?;
            out.drain(..inner.chain.upper_at);
            let Verdict::Signalling { source, destination, home_address, routing_header, .. } =
                verdict
            else {
                return Ok(verdict);
            };
            return Ok(Verdict::Signalling {
                source,
                destination,
                home_address,
                routing_header,
                tunnelled: true,
            });
        }
        if admitted.side == Side::Far {
            self.verified.note(outer.source);
        }
        let bid = admitted.binding.bid;
        let key = self.firsts.key(&inner, now);
        let rule = self.flows.received(&key, bid, packet.len(), now);
        self.counters.carry(rule, bid, Direction::In, packet.len());
        Ok(Verdict::Deliver)
    }
}
