//! What an agent does with a mobile's flow bindings, packet by packet (RFC 6089 §4.3, §5.3.6).

mod support;

use mtun_dataplane::{Decision, Memory, PathId, Registration, Verdict, decide};
use mtun_policy::downlink::{AgentDefault, Unmatched};
use mtun_policy::{
    Bid, BinarySelector, Effective, FlowBinding, FlowId, FlowPriority, Ingress, IpVersion,
};
use support::*;

const ATM: &str = "2001:db8:3::7";

/// A flow binding for packets from this port; from all of them if there is none.
fn entry(id: u16, priority: u16, port: Option<u16>, bids: &[u16]) -> FlowBinding {
    FlowBinding {
        id: FlowId::new(id).unwrap(),
        priority: FlowPriority::new(priority).unwrap(),
        selector: BinarySelector {
            source_port: port.map(|port| port..=port),
            ..BinarySelector::everything(IpVersion::V6)
        },
        bids: bids.iter().map(|number| bid(*number)).collect(),
    }
}

/// Three bindings, the first of the lowest BID-PRI; those in `gone` are not registered.
fn mobile(flows: &[FlowBinding], gone: &[u16]) -> Registration {
    let unmatched = Unmatched::Preferred;
    let default = AgentDefault { unmatched, ..AgentDefault::default() };
    let mut bindings = uplinks();
    bindings.push(binding(Some(3), ATM, PathId::ROUTED));
    bindings.retain(|it| it.bid.is_none_or(|bid| !gone.contains(&bid.get())));
    registration(routed(bindings), Effective::of_flow_bindings(flows, default).into())
}

fn bids_of(decision: &Decision<'_>) -> Vec<u16> {
    let number = |bid: Option<Bid>| bid.map_or(0, Bid::get);
    match decision {
        Decision::Forward(route) => vec![number(route.binding.bid)],
        Decision::Replicate(copies) => {
            copies.routes().map(|route| number(route.binding.bid)).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// req FB-13, FB-15: by FID-PRI, not by FID or place; the first active one that matches; a copy to
/// each of its care-of addresses; what none speaks of by the lowest BID-PRI.
#[test]
fn the_first_active_entry_decides_and_nothing_means_the_default() {
    let flows = [
        entry(1, 40, None, &[3]),
        entry(7, 10, Some(22), &[2]),
        entry(5, 20, Some(22), &[3]),
        entry(6, 30, Some(9), &[3, 2]),
    ];
    let of_port_only = &flows[1..];
    type Case<'c> = (&'c str, &'c [FlowBinding], &'c [u16], u16, &'c [u16]);
    let cases: [Case<'_>; 9] = [
        ("the lowest FID-PRI", &flows, &[], 22, &[2]),
        ("its BID is gone", &flows, &[2], 22, &[3]),
        ("a copy to each", &flows, &[], 9, &[3, 2]),
        ("a copy to each that is left", &flows, &[3], 9, &[2]),
        ("all of them gone, so the next that matches", &flows, &[2, 3], 9, &[1]),
        ("everything else", &flows, &[], 80, &[3]),
        ("no entry matches", of_port_only, &[], 80, &[1]),
        ("the lowest BID-PRI that is left", of_port_only, &[1], 80, &[2]),
        ("no entry at all", &[], &[], 22, &[1]),
    ];
    for (what, flows, gone, port, want) in cases {
        let snapshot = agent_with(mobile(flows, gone));
        let flow = key(PEER, HOME, 17, Some((port, 5000)));
        let decision = decide(&snapshot, &flow, NOW, Memory::default());
        assert_eq!(bids_of(&decision), want, "{what}");
        // A node behind the mobile is treated like the mobile itself.
        let behind = key(PEER, INSIDE, 17, Some((port, 5000)));
        let decision = decide(&snapshot, &behind, NOW, Memory::default());
        assert_eq!(bids_of(&decision), want, "{what}, behind it");
    }
}

/// req FB-16: an entry for everything says nothing of Mobility Headers.
#[test]
fn signalling_is_no_flow() {
    let snapshot = agent_with(mobile(&[entry(1, 10, None, &[3, 2])], &[]));
    let of = |protocol| {
        let key = key(PEER, HOME, protocol, None);
        bids_of(&decide(&snapshot, &key, NOW, Memory::default()))
    };
    assert_eq!((of(135), of(58)), (vec![1], vec![3, 2]));
}

/// A fragment of a UDP packet from this port.
fn fragment(identification: u32, port: Option<u16>) -> Vec<u8> {
    let offset = if port.is_some() { 1u16 } else { 64 };
    let mut part = vec![17, 0];
    part.extend(offset.to_be_bytes());
    part.extend(identification.to_be_bytes());
    part.extend(port.unwrap_or(0xa5a5).to_be_bytes());
    part.extend([0x13, 0x88, 0, 72, 0, 0]);
    part.resize(8 + 64, 0);
    raw(v6(PEER), v6(HOME), 44, &part)
}

/// req FB-17: the parts of a packet follow the first one, copies too; one that overtakes it goes
/// by the entries that ask for no port, and is counted.
#[test]
fn fragments_follow_the_first_of_their_packet() {
    let flows = [entry(1, 10, Some(22), &[2]), entry(2, 20, Some(9), &[2, 3])];
    let mut node = Node::new(agent_with(mobile(&flows, &[])));
    let mut ends = |packet: &[u8]| -> Vec<std::net::Ipv6Addr> {
        let destination =
            |outer: &[u8]| std::net::Ipv6Addr::from(<[u8; 16]>::try_from(&outer[24..40]).unwrap());
        match node.engine.outbound(Ingress::OTHER, packet, NOW, &mut node.out) {
            Verdict::Send { .. } => vec![destination(&node.out)],
            Verdict::Replicate(sends) => {
                sends.parts(&node.out).map(|part| destination(part.1)).collect()
            }
            other => panic!("{other:?}"),
        }
    };
    let early = fragment(1, None);
    assert_eq!(ends(&early), [v6(WLAN)], "the first is not known: the default");
    assert_eq!(ends(&fragment(1, Some(22))), [v6(WWAN)]);
    assert_eq!(ends(&early), [v6(WWAN)], "now it is");
    assert_eq!(ends(&fragment(2, Some(9))), [v6(WWAN), v6(ATM)]);
    assert_eq!(ends(&fragment(2, None)), [v6(WWAN), v6(ATM)]);
    assert_eq!(ends(&fragment(3, Some(80))), [v6(WLAN)]);
    assert_eq!(node.engine.counters().snapshot().early_fragments, 1);
}
