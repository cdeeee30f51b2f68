//! One packet as a tap sees it: whose flow it is, in which form, and what is odd about it.

use std::net::Ipv6Addr;

use super::{Flow, Oddities, Way};
use crate::lab::probe;
use crate::lab::world::address;

const ROUTING: u8 = 43;
const IPV6_IN_IPV6: u8 = 41;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const BINDING_UPDATE: u8 = 5;
const UDP: u8 = 17;
const HOME_ADDRESS_OPTION: u8 = 0xc9;
const PARAMETER_PROBLEM: u8 = 4;

/// The form in which a packet of a flow was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Inside the tunnel.
    Tunnelled,
    /// With a Home Address option or a type 2 routing header, past the home agent.
    Straight,
    /// As its ends see it.
    Plain,
}

/// What one packet is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Its flow, direction and form.
    pub flow: Option<(Flow, Way, Form)>,
    /// The number of a probe.
    pub number: Option<u32>,
    /// Whether it is a Binding Update.
    pub update: bool,
    pub oddities: Oddities,
}

pub(super) fn read(packet: &[u8]) -> Read {
    let mut read = Read::default();
    let Some(outer) = Header::of(packet) else { return read };
    if outer.next == FRAGMENT {
        read.oddities.fragments = 1;
    }
    if outer.protocol() == Some(IPV6_IN_IPV6) {
        if let Some(inner) = outer.payload().and_then(Header::of) {
            read.oddities.parameter_problems = inner.is_parameter_problem().into();
            read.flow = inner.flow().map(|(flow, way)| (flow, way, Form::Tunnelled));
            read.number = inner.number();
        }
        return read;
    }
    read.oddities.parameter_problems = outer.is_parameter_problem().into();
    read.number = outer.number();
    read.update = outer.walk().is_some_and(|(protocol, payload)| {
        protocol == MOBILITY && payload.get(2) == Some(&BINDING_UPDATE)
    });
    read.oddities.mobility = (outer.protocol() == Some(MOBILITY)).into();
    read.oddities.plain_home_source = address::is_home(outer.source).into();
    let ends = outer.ends();
    let straight = ends != (outer.source, outer.destination);
    let form = if straight { Form::Straight } else { Form::Plain };
    read.flow = outer.flow().map(|(flow, way)| (flow, way, form));
    read
}

/// A packet in words: its addresses, its header chain, its first octets.
pub(super) fn told(packet: &[u8]) -> String {
    let Some(header) = Header::of(packet) else { return "not IPv6".into() };
    let octets: Vec<String> =
        header.rest.iter().take(96).map(|octet| format!("{octet:02x}")).collect();
    format!(
        "{} -> {} next header {}: {}",
        header.source,
        header.destination,
        header.next,
        octets.join("")
    )
}

/// An IPv6 header with what follows it.
struct Header<'p> {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next: u8,
    rest: &'p [u8],
}

impl<'p> Header<'p> {
    fn of(packet: &'p [u8]) -> Option<Self> {
        let (fixed, rest) = packet.split_first_chunk::<40>()?;
        if fixed[0] >> 4 != 6 {
            return None;
        }
        let address = |at: usize| -> Option<Ipv6Addr> {
            let octets: [u8; 16] = fixed.get(at..at + 16)?.try_into().ok()?;
            Some(octets.into())
        };
        Some(Self { source: address(8)?, destination: address(24)?, next: fixed[6], rest })
    }

    /// Protocol and payload behind the extension headers; nothing for a later fragment.
    fn walk(&self) -> Option<(u8, &'p [u8])> {
        let (mut next, mut rest) = (self.next, self.rest);
        loop {
            let length = match next {
                0 | ROUTING | DESTINATION_OPTIONS => 8 * (1 + usize::from(*rest.get(1)?)),
                FRAGMENT if u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) >> 3 == 0 => 8,
                FRAGMENT => return None,
                _ => return Some((next, rest)),
            };
            next = *rest.first()?;
            rest = rest.get(length..)?;
        }
    }

    fn protocol(&self) -> Option<u8> {
        self.walk().map(|(protocol, _)| protocol)
    }

    fn payload(&self) -> Option<&'p [u8]> {
        self.walk().map(|(_, payload)| payload)
    }

    fn is_parameter_problem(&self) -> bool {
        self.walk().is_some_and(|(protocol, payload)| {
            protocol == ICMPV6 && payload.first() == Some(&PARAMETER_PROBLEM)
        })
    }

    /// Source and destination as the upper layers see them: those of a Home Address option and of a
    /// type 2 routing header where there are any (RFC 6275 §6.3, §6.4).
    fn ends(&self) -> (Ipv6Addr, Ipv6Addr) {
        let (mut next, mut rest) = (self.next, self.rest);
        let (mut source, mut destination) = (self.source, self.destination);
        let address = |octets: &[u8]| octets.first_chunk::<16>().copied().map(Ipv6Addr::from);
        while matches!(next, 0 | ROUTING | DESTINATION_OPTIONS) {
            let Some(header) = rest.get(1).and_then(|it| rest.get(..8 * (1 + usize::from(*it))))
            else {
                break;
            };
            if next == ROUTING && header[2] == 2 && header[3] == 1 {
                destination = address(&header[8..]).unwrap_or(destination);
            }
            if next == DESTINATION_OPTIONS {
                let mut options = &header[2..];
                while let Some(&kind) = options.first() {
                    let length = match kind {
                        0 => 1,
                        _ => 2 + options.get(1).map_or(0, |it| usize::from(*it)),
                    };
                    if kind == HOME_ADDRESS_OPTION {
                        source = options.get(2..).and_then(address).unwrap_or(source);
                    }
                    options = options.get(length..).unwrap_or_default();
                }
            }
            (next, rest) = (header[0], &rest[header.len()..]);
        }
        (source, destination)
    }

    /// The number of a probe.
    fn number(&self) -> Option<u32> {
        let (UDP, payload) = self.walk()? else { return None };
        probe::number(payload.get(8..)?)
    }

    fn flow(&self) -> Option<(Flow, Way)> {
        let (protocol, payload) = self.walk()?;
        if !matches!(protocol, 6 | 17) {
            return None;
        }
        let ports = payload.first_chunk::<4>()?;
        let (source, destination) = self.ends();
        let source = (source, u16::from_be_bytes([ports[0], ports[1]]));
        let destination = (destination, u16::from_be_bytes([ports[2], ports[3]]));
        let home = |end: (Ipv6Addr, u16)| address::is_home(end.0);
        if !home(source) && !home(destination) {
            return None;
        }
        Some(if home(source) {
            (Flow { protocol, home: source, peer: destination }, Way::Out)
        } else {
            (Flow { protocol, home: destination, peer: source }, Way::In)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(next: u8, source: Ipv6Addr, destination: Ipv6Addr, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(rest);
        packet
    }

    #[test]
    fn packets_are_told_apart() {
        type Case = (&'static str, Vec<u8>, Option<(Flow, Way, Form)>, Oddities);
        let (home, cn) = (address::HOME, address::CORRESPONDENT);
        let (care_of, agent) = (address::WLAN, address::AGENT);
        let udp = [0x12, 0x34, 0x0f, 0xa0, 0, 8, 0, 0];
        let reply = [0x0f, 0xa0, 0x12, 0x34, 0, 8, 0, 0];
        let flow = Flow::to_correspondent(17, (home, 0x1234), 4000);
        let odd = |change: fn(&mut Oddities)| {
            let mut oddities = Oddities::default();
            change(&mut oddities);
            oddities
        };
        let out = header(41, care_of, agent, &header(17, home, cn, &udp));
        let limit = [[41, 0, 4, 1, 4, 1, 0, 0].as_slice(), &header(17, home, cn, &udp)].concat();
        let option = [&[17, 2, 1, 2, 0, 0, 0xc9, 16][..], &home.octets()].concat();
        let routing = [&[17, 2, 2, 1, 0, 0, 0, 0][..], &home.octets()].concat();
        let cases: &[Case] = &[
            ("tunnelled out", out, Some((flow, Way::Out, Form::Tunnelled)), Oddities::default()),
            (
                "with an encapsulation limit",
                header(60, care_of, agent, &limit),
                Some((flow, Way::Out, Form::Tunnelled)),
                Oddities::default(),
            ),
            (
                "tunnelled in",
                header(41, agent, care_of, &header(17, cn, home, &reply)),
                Some((flow, Way::In, Form::Tunnelled)),
                Oddities::default(),
            ),
            (
                "plain home",
                header(17, home, cn, &udp),
                Some((flow, Way::Out, Form::Plain)),
                odd(|o| o.plain_home_source = 1),
            ),
            (
                "straight out",
                header(60, care_of, cn, &[&option[..], &udp].concat()),
                Some((flow, Way::Out, Form::Straight)),
                Oddities::default(),
            ),
            (
                "straight in",
                header(43, cn, care_of, &[&routing[..], &reply].concat()),
                Some((flow, Way::In, Form::Straight)),
                Oddities::default(),
            ),
            (
                "an option cut short",
                header(60, care_of, cn, &option[..20]),
                None,
                Oddities::default(),
            ),
            ("plain care-of", header(17, care_of, cn, &udp), None, Oddities::default()),
            (
                "a Parameter Problem",
                header(58, care_of, agent, &[4, 1, 0, 0]),
                None,
                odd(|o| o.parameter_problems = 1),
            ),
            (
                "a Binding Update",
                header(135, care_of, agent, &[59, 1, 5, 0]),
                None,
                odd(|o| o.mobility = 1),
            ),
            ("cut short", vec![0x60; 39], None, Oddities::default()),
        ];
        for (what, packet, flow, oddities) in cases {
            let read = read(packet);
            assert_eq!((read.flow, read.oddities), (*flow, *oddities), "{what}");
            assert_eq!(
                (read.number, read.update),
                (None, what.contains("Binding Update")),
                "{what}"
            );
        }
    }
}
