//! The direct reading of what leaves: through the tunnel, straight or plain, and what may come
//! straight.

use std::net::{IpAddr, Ipv6Addr};

use mtun_dataplane::{Binding, PathId, Registration};
use mtun_policy::{Bid, FlowKey, Optimize, RuleId};
use proptest::prelude::*;

use crate::reader::{Reader, owner, preferred};

/// In which form a packet leaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    Tunnel,
    /// Through the tunnel, with its place among copies.
    Marked,
    Straight {
        option: Option<Ipv6Addr>,
        route: Option<Ipv6Addr>,
    },
    Plain,
}

/// One packet as it leaves: the addresses of its header, and by which link.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub path: PathId,
    pub form: Form,
}

/// What a correspondent holds of a home address.
#[derive(Clone, Debug)]
pub struct Holds {
    pub home_address: Ipv6Addr,
    pub peer: Ipv6Addr,
    pub bindings: Vec<(Option<Bid>, Ipv6Addr)>,
}

/// What a direct reading says of a packet that came straight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entry {
    /// By this binding.
    In(Option<Bid>),
    Unknown,
    NotOurHome,
    Dropped,
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => panic!("no IPv4 in these worlds"),
    }
}

fn address(octets: &[u8]) -> Ipv6Addr {
    Ipv6Addr::from(<[u8; 16]>::try_from(octets).expect("sixteen octets"))
}

/// Reads what left, and finds in it the packet that was given.
pub fn sent(path: PathId, outer: &[u8], packet: &[u8]) -> Result<Sent, TestCaseError> {
    let (source, destination) = (address(&outer[8..24]), address(&outer[24..40]));
    let form = match outer[6] {
        _ if outer == packet => Form::Plain,
        41 => {
            prop_assert_eq!(&outer[40..], packet);
            Form::Tunnel
        }
        60 if mark(outer).is_some() => {
            prop_assert_eq!(&outer[40..42], &[41, 1][..]);
            prop_assert_eq!(&outer[56..], packet);
            Form::Marked
        }
        _ => {
            let (mut next, mut at, mut option, mut route) = (outer[6], 40, None, None);
            if next == 43 {
                prop_assert_eq!(&outer[at + 1..at + 8], &[2, 2, 1, 0, 0, 0, 0][..]);
                route = Some(address(&outer[at + 8..at + 24]));
                (next, at) = (outer[at], at + 24);
            }
            if next == 60 {
                prop_assert_eq!(&outer[at + 1..at + 8], &[2, 1, 2, 0, 0, 0xc9, 16][..]);
                option = Some(address(&outer[at + 8..at + 24]));
                (next, at) = (outer[at], at + 24);
            }
            let mut restored = outer[..40].to_vec();
            let length = (outer.len() - at) as u16;
            restored[4..6].copy_from_slice(&length.to_be_bytes());
            restored[6] = next;
            restored[8..24].copy_from_slice(&option.unwrap_or(source).octets());
            restored[24..40].copy_from_slice(&route.unwrap_or(destination).octets());
            restored.extend_from_slice(&outer[at..]);
            prop_assert_eq!(&restored[..], packet);
            Form::Straight { option, route }
        }
    };
    Ok(Sent { source, destination, path, form })
}

/// The place of a copy: stream, epoch and number.
pub fn mark(outer: &[u8]) -> Option<(u16, u32, u32)> {
    let [_, 1, 0x1e, 12, 0x6d, 0x74, a, b, epoch @ .., c, d, e, f] =
        <[u8; 16]>::try_from(outer.get(40..56)?).ok()?
    else {
        return None;
    };
    let number = u32::from_be_bytes([c, d, e, f]);
    Some((u16::from_be_bytes([a, b]), u32::from_be_bytes(epoch), number))
}

/// Whether the rules let a packet go straight that this one decided.
fn allowed(home: &Registration, rule: Option<RuleId>) -> bool {
    let Some(unsaid) = home.policy.optimize else { return false };
    let head = home.policy.rules().find(|it| Some(it.head.id) == rule);
    head.and_then(|it| it.head.optimize).unwrap_or(unsaid) != Optimize::Never
}

impl Reader {
    /// How a packet leaves by this binding.
    pub fn sends(
        &self,
        (home, near, bound): (&Registration, bool, bool),
        key: &FlowKey,
        rule: Option<RuleId>,
        binding: &Binding,
    ) -> Sent {
        let care_of = v6(binding.care_of.0);
        let (me, peer) = (v6(key.source), v6(key.destination));
        let by = |source, destination, form| Sent { source, destination, path: binding.path, form };
        let own_pair = near && me == home.home_address.0 && key.protocol != 135;
        let theirs = self.bound.iter().find(|it| (it.home_address.0, it.peer) == (peer, me));
        let theirs = theirs.filter(|_| own_pair).and_then(preferred);
        let there = theirs.map(|binding| v6(binding.care_of.0));
        let route = there.map(|_| peer);
        match (near, bound) {
            (true, _) if binding.home_link => match there {
                Some(there) => by(me, there, Form::Straight { option: None, route }),
                None => by(me, peer, Form::Plain),
            },
            (false, _) if binding.home_link => by(me, peer, Form::Plain),
            (false, true) => {
                by(home.peer, care_of, Form::Straight { option: None, route: Some(peer) })
            }
            (false, false) => by(home.peer, care_of, Form::Tunnel),
            (true, _) => {
                let of_pair = |it: &&Holds| (it.home_address, it.peer) == (me, peer);
                let holds = self.holds.iter().filter(of_pair).flat_map(|it| &it.bindings);
                let mut holds = holds.filter(|it| it.1 == care_of);
                let held = holds.any(|(bid, _)| bid.is_none() || *bid == binding.bid);
                match own_pair && held && allowed(home, rule) {
                    true => {
                        let form = Form::Straight { option: Some(me), route };
                        by(care_of, there.unwrap_or(peer), form)
                    }
                    false => by(care_of, home.peer, Form::Tunnel),
                }
            }
        }
    }

    /// How a copy leaves where the ends of the tunnel have agreed on marks: never straight.
    pub fn sends_marked(
        &self,
        (home, near): (&Registration, bool),
        key: &FlowKey,
        binding: &Binding,
    ) -> Sent {
        let (care_of, path) = (v6(binding.care_of.0), binding.path);
        let (source, destination, form) = match (binding.home_link, near) {
            (true, _) => (v6(key.source), v6(key.destination), Form::Plain),
            (false, true) => (care_of, home.peer, Form::Marked),
            (false, false) => (home.peer, care_of, Form::Marked),
        };
        Sent { source, destination, path, form }
    }

    /// Whether a packet that came straight may enter.
    pub fn enters(
        &self,
        (source, destination): (Ipv6Addr, Ipv6Addr),
        option: Option<Ipv6Addr>,
        route: Option<Ipv6Addr>,
    ) -> Entry {
        let mut own = None;
        if let Some(route) = route {
            let Some(home) = self.own.iter().find(|home| home.home_address.0 == route) else {
                return Entry::NotOurHome;
            };
            let here = home.bindings.iter().find(|it| v6(it.care_of.0) == destination);
            let Some(here) = here else { return Entry::Dropped };
            own = Some(here.bid);
        }
        let Some(option) = option else { return Entry::In(own.expect("one of the two")) };
        if owner(&self.own, option.into()).is_some() {
            return Entry::Dropped;
        }
        let us = route.unwrap_or(destination);
        let mobiles = self.bound.iter().chain(&self.served);
        let mut mobiles = mobiles.filter(|it| (it.home_address.0, it.peer) == (option, us));
        let from = mobiles.find_map(|it| it.bindings.iter().find(|b| v6(b.care_of.0) == source));
        match from {
            Some(from) => Entry::In(own.unwrap_or(from.bid)),
            None => Entry::Unknown,
        }
    }
}
