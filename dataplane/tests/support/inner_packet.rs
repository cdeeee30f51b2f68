//! What must hold for any octets at all, shared by the fuzz target and the tests.
//!
//! The first octet says where the rest goes in; everything after it is the packet or a part of it.

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mtun_dataplane::wire::packets;
use mtun_dataplane::{
    Binding, BindingTable, Engine, PathId, Registration, Settings, Snapshot, Verdict,
};
use mtun_policy::{
    Bid, CareOfAddress, Effective, HomeAddress, HomeName, Ingress, MobileNetworkPrefix,
};

const HOME: &str = "2001:db8:100::42";
const PREFIX: &str = "2001:db8:100:4200::/56";
const AGENT: &str = "2001:db8:100::1";
const CARE_OF: &str = "2001:db8:1::7";
const PEER: &str = "2001:db8:c::9";

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
        Effective::reflecting(),
    );
    [registration].into_iter().collect()
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

/// Feeds the octets to a mobile and to its agent, both ways, and asserts what must hold.
pub fn check(octets: &[u8]) {
    let Some((how, rest)) = octets.split_first() else { return };
    let (home, agent, care_of, peer) = (v6(HOME), v6(AGENT), v6(CARE_OF), v6(PEER));
    let next = rest.first().copied().unwrap_or(59);
    let tail = rest.get(1..).unwrap_or_default();
    let packet = match how % 4 {
        0 => rest.to_vec(),
        1 => headed(home, peer, next, tail),
        2 => headed(peer, home, next, tail),
        _ => headed(agent, care_of, next, tail),
    };
    let mobile = engine(Snapshot { updates: table(), own: vec![care_of], ..Snapshot::default() });
    let served = engine(Snapshot { cache: table(), own: vec![agent], ..Snapshot::default() });
    let mut out = Vec::new();
    for now in [Duration::ZERO, Duration::from_millis(1)] {
        for (engine, ends) in [(&mobile, (care_of, agent)), (&served, (agent, care_of))] {
            let verdict = engine.outbound(Ingress::LOCAL, &packet, now, &mut out);
            sound(verdict, &out, &packet, ends);
            let wrapped = headed(ends.1, ends.0, 41, &packet);
            for outer in [&packet, &wrapped] {
                let verdict = engine.inbound(PathId(1), outer, now, &mut out);
                assert!(!matches!(verdict, Verdict::Send { .. } | Verdict::Answer(_)));
                sound(verdict, &out, outer, ends);
            }
        }
    }
}

/// What a verdict promises about its octets.
fn sound(verdict: Verdict, out: &[u8], given: &[u8], ends: (Ipv6Addr, Ipv6Addr)) {
    match verdict {
        Verdict::Send { .. } => {
            // The one promise above all: never plain, always between the two ends of the tunnel.
            let mut octets = 0;
            for packet in packets(out) {
                assert_eq!(packet[8..24], ends.0.octets());
                assert_eq!(packet[24..40], ends.1.octets());
                assert!([41, 44, 60].contains(&packet[6]));
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
        Verdict::Ignore(_) | Verdict::Drop(_) | Verdict::UnknownBinding { .. } => {
            assert!(out.is_empty());
        }
        Verdict::Replicate(_) | Verdict::Breakout { .. } => panic!("no rule here says {verdict:?}"),
    }
}
