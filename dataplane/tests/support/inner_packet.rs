//! What must hold for any octets at all, shared by the fuzz target and the tests.
//!
//! The first octet says where the rest goes in; everything after it is the packet or a part of it.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mtun_dataplane::wire::{Chain, Header, packets};
use mtun_dataplane::{
    Binding, BindingTable, Engine, Held, HeldBinding, Pair, PathId, Registration, Settings,
    Snapshot, Verdict,
};
use mtun_policy::{
    Bid, CareOfAddress, Effective, HomeAddress, HomeName, Ingress, MobileNetworkPrefix, Optimize,
};

const HOME: &str = "2001:db8:100::42";
const PREFIX: &str = "2001:db8:100:4200::/56";
const AGENT: &str = "2001:db8:100::1";
const CARE_OF: &str = "2001:db8:1::7";
const PEER: &str = "2001:db8:c::9";
/// A correspondent that is bound at the mobile, and where it is.
const FRIEND: &str = "2001:db8:100::43";
const THERE: &str = "2001:db8:7::9";

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("written as an address")
}

fn table() -> BindingTable {
    let prefix = PREFIX.parse().expect("written as a prefix");
    let registration = Registration::new(
        HomeName::new("acme"),
        HomeAddress(v6(HOME)),
        vec![MobileNetworkPrefix::new(prefix).expect("written without host bits")],
        v6(AGENT),
        vec![Binding {
            bid: Bid::new(1),
            priority: 1,
            care_of: CareOfAddress::from(v6(CARE_OF)),
            path: PathId(1),
            usable: true,
            attached: true,
            metered: false,
            home_link: false,
            mtu: 1500,
            rtt: None,
            jitter: None,
        }],
        Arc::new(Effective {
            optimize: Some(Optimize::Allowed),
            ..Effective::clone(&Effective::reflecting())
        }),
    );
    [registration].into_iter().collect()
}

fn pair(home_address: Ipv6Addr, correspondent: Ipv6Addr) -> Pair {
    Pair { home_address: HomeAddress(home_address), correspondent }
}

/// What a mobile has bound at `peer`.
fn bound(home_address: Ipv6Addr, care_of: Ipv6Addr, peer: Ipv6Addr) -> Registration {
    let registration = table().iter().next().expect("there is one").clone();
    let care_of = CareOfAddress::from(care_of);
    let bindings = registration.bindings.into_iter().map(|it| Binding { care_of, ..it });
    Registration::new(
        registration.home,
        HomeAddress(home_address),
        Vec::new(),
        peer,
        bindings.collect(),
        Effective::reflecting(),
    )
}

/// The mobile: a peer and a friend hold its binding, and the friend is bound at it.
fn mobile() -> Snapshot {
    let (home, peer, friend) = (v6(HOME), v6(PEER), v6(FRIEND));
    let held = || Held { bindings: vec![HeldBinding { bid: Bid::new(1), care_of: v6(CARE_OF) }] };
    let optimized = [peer, friend].map(|peer| (pair(home, peer), held()));
    let there = bound(friend, v6(THERE), home);
    Snapshot {
        updates: table(),
        own: vec![v6(CARE_OF)],
        optimized: optimized.into_iter().collect(),
        correspondents: [(pair(friend, home), there)].into_iter().collect(),
        ..Snapshot::default()
    }
}

/// The peer, at which the mobile is bound.
fn correspondent() -> Snapshot {
    let (home, peer) = (v6(HOME), v6(PEER));
    let here = bound(home, v6(CARE_OF), peer);
    Snapshot {
        own: vec![peer],
        correspondents: [(pair(home, peer), here)].into_iter().collect(),
        ..Snapshot::default()
    }
}

fn engine(snapshot: Snapshot) -> Engine {
    let settings = Settings { flows: 1, ..Settings::default() };
    Engine::new(Arc::new(ArcSwap::from_pointee(snapshot)), settings)
}

/// A header from `source` to `destination` with these octets behind it.
fn headed(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&payload[..usize::from(length)]);
    packet
}

/// Feeds the octets to a mobile, to its agent and to its correspondent, both ways, and asserts what
/// must hold.
pub fn check(octets: &[u8]) {
    let Some((how, rest)) = octets.split_first() else { return };
    let (home, agent, care_of, peer) = (v6(HOME), v6(AGENT), v6(CARE_OF), v6(PEER));
    let next = rest.first().copied().unwrap_or(59);
    let tail = rest.get(1..).unwrap_or_default();
    let packet = match how % 7 {
        0 => rest.to_vec(),
        1 => headed(home, peer, next, tail),
        2 => headed(peer, home, next, tail),
        3 => headed(agent, care_of, next, tail),
        4 => headed(care_of, peer, next, tail),
        5 => headed(peer, care_of, next, tail),
        _ => headed(v6(THERE), care_of, next, tail),
    };
    let nodes = [
        (engine(mobile()), (care_of, agent)),
        (
            engine(Snapshot { cache: table(), own: vec![agent], ..Snapshot::default() }),
            (agent, care_of),
        ),
        (engine(correspondent()), (peer, care_of)),
    ];
    let mut out = Vec::new();
    for now in [Duration::ZERO, Duration::from_millis(1)] {
        for (engine, ends) in &nodes {
            let verdict = engine.outbound(Ingress::LOCAL, &packet, now, &mut out);
            sound(verdict, &out, &packet, *ends);
            if let Verdict::Send { .. } = verdict {
                returns(&nodes[0].0, &nodes[2].0, &packet, &out, now);
            }
            let wrapped = headed(ends.1, ends.0, 41, &packet);
            for outer in [&packet, &wrapped] {
                let verdict = engine.inbound(PathId(1), outer, now, &mut out);
                assert!(!matches!(verdict, Verdict::Send { .. } | Verdict::Answer(_)));
                sound(verdict, &out, outer, *ends);
            }
        }
    }
}

/// What goes straight arrives at the other end as it was; what was cut on the way arrives whole.
fn returns(mobile: &Engine, peer: &Engine, given: &[u8], sent: &[u8], now: Duration) {
    let to = Ipv6Addr::from(<[u8; 16]>::try_from(&sent[24..40]).expect("sixteen octets"));
    let other = match to {
        _ if to == v6(PEER) => peer,
        _ if to == v6(CARE_OF) && sent[8..24] == v6(PEER).octets() => mobile,
        _ => return,
    };
    // A part of a packet waits for the others, in a packet in a packet there is more to take off,
    // and what has such headers of its own may lead elsewhere.
    let header = Header::parse(given).expect("it was sent");
    let chain = Chain::walk(given, header.next_header).expect("it was sent");
    let plain = !matches!(chain.upper, 41 | 58 | 135)
        && chain.fragment.is_none()
        && chain.routing.is_none()
        && chain.home_address.is_none()
        && chain.misplaced_home_address.is_none();
    let mut out = Vec::new();
    let verdicts: Vec<_> =
        packets(sent).map(|piece| other.inbound(PathId(1), piece, now, &mut out)).collect();
    if plain {
        assert_eq!(verdicts.last(), Some(&Verdict::Deliver), "{sent:02x?}");
        assert_eq!(out, given);
    }
}

/// What a verdict promises about its octets.
fn sound(verdict: Verdict, out: &[u8], given: &[u8], ends: (Ipv6Addr, Ipv6Addr)) {
    match verdict {
        Verdict::Send { .. } => {
            // The one promise above all: never plain. Between the two ends of the tunnel, or
            // straight from a care-of address or to one.
            let mut octets = 0;
            for packet in packets(out) {
                let address = |at: usize| {
                    Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen"))
                };
                let outer = (address(8), address(24));
                let straight =
                    [(v6(CARE_OF), v6(PEER)), (v6(CARE_OF), v6(THERE)), (v6(PEER), v6(CARE_OF))];
                assert!(outer == ends || straight.contains(&outer), "{outer:?}");
                let tunnelled = [41, 44, 60].contains(&packet[6]);
                assert!(tunnelled || straight.contains(&outer) && [0, 43].contains(&packet[6]));
                octets += packet.len();
            }
            assert_eq!(octets, out.len(), "whole packets and nothing else");
            assert!(out.len() > given.len());
        }
        Verdict::Deliver | Verdict::Answer(_) => {
            assert_eq!(packets(out).count(), 1);
            assert_eq!(packets(out).map(<[u8]>::len).sum::<usize>(), out.len());
        }
        Verdict::Reject { .. } => {
            // Back to where it came from, from where it went to.
            assert_eq!(packets(out).map(<[u8]>::len).sum::<usize>(), out.len());
            assert_eq!((&out[8..24], &out[24..40]), (&given[24..40], &given[8..24]));
        }
        Verdict::Signalling { .. }
        | Verdict::SignallingFailed { .. }
        | Verdict::Discovery { .. } => {
            assert!(out.len() <= given.len());
        }
        Verdict::Ignore(_)
        | Verdict::Drop(_)
        | Verdict::UnknownBinding { .. }
        | Verdict::Probed { .. } => {
            assert!(out.is_empty());
        }
        Verdict::Replicate(_) | Verdict::Breakout { .. } => panic!("no rule here says {verdict:?}"),
    }
}
