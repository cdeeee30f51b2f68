//! The ways out that are not one tunnel: copies, breakout, further sources; and what tells packets
//! apart beside addresses and ports.

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use mtun_dataplane::wire::packets;
use mtun_dataplane::{
    Direction, DropReason, Engine, Fate, Inner, PathId, Settings, Snapshot, Uids, Verdict,
};
use mtun_policy::{
    BlockReply, Effective, FlowKey, HomeAddress, Ingress, Otherwise, Outcome, RuleHead, Says,
    TrafficSelector,
};
use support::*;

const GUEST: &str = "2001:db8:6::7";
const BR_GUEST: Ingress = Ingress(2);

fn everything(outcome: Outcome, otherwise: Otherwise) -> (RuleHead, Says) {
    rule(0, Vec::new(), outcome, otherwise)
}

fn sized(length: usize) -> Vec<u8> {
    udp(HOME, PEER, (1, 2), length)
}

// ---- copies ------------------------------------------------------------------------------------

fn copying(copies: u8) -> Effective {
    let links = vec![bid(2), bid(1), bid(3)];
    Effective::new([everything(Outcome::Copies { links, copies }, Otherwise::NextRule)])
}

#[test]
fn a_copy_leaves_by_each_of_several_links() {
    let mut node = Node::new(mobile_with(registration(uplinks(), copying(2).into())));
    let packet = sized(300);
    let Verdict::Replicate(sends) = node.outbound(&packet) else { panic!("copies") };
    assert_eq!((sends.len(), sends.is_empty()), (2, false));
    let parts: Vec<_> = sends.parts(&node.out).collect();
    assert_eq!(parts.iter().map(|part| part.0).collect::<Vec<_>>(), [PathId(2), PathId(1)]);
    for ((_, part), care_of) in parts.iter().zip([WWAN, WLAN]) {
        assert_eq!(part[8..24], v6(care_of).octets());
        assert_eq!(part[24..40], v6(AGENT).octets());
        assert_eq!(part[40..], packet[..], "the whole packet");
    }
    assert_eq!(parts.iter().map(|part| part.1.len()).sum::<usize>(), node.out.len());
    // Counted on each link; the flow's link is the first.
    let traffic = node.engine.counters().snapshot().traffic;
    let counted: Vec<_> = traffic.iter().map(|it| (it.bid, it.direction, it.packets)).collect();
    assert_eq!(counted, [(Some(bid(1)), Direction::Out, 1), (Some(bid(2)), Direction::Out, 1)]);
    let flows = node.engine.flows();
    assert_eq!((flows.len(), flows[0].bid_out, flows[0].packets_out), (1, Some(bid(2)), 1));
    let told = node.engine.explain(&flows[0].key, NOW);
    let Fate::Replicated(copies) = told.fate else { panic!("{told:?}") };
    let bids: Vec<_> = copies.iter().map(|copy| copy.bid.unwrap().get()).collect();
    assert_eq!(bids, [2, 1]);
}

#[test]
fn one_usable_link_is_one_copy_and_none_is_otherwise() {
    let mut lost = uplinks();
    lost[1].usable = false;
    let mut node = Node::new(mobile_with(registration(lost, copying(2).into())));
    assert_eq!(node.outbound(&sized(300)), Verdict::Send { path: PathId(1) });
    let mut lost = uplinks();
    lost.iter_mut().for_each(|binding| binding.usable = false);
    let mut node = Node::new(mobile_with(registration(lost, copying(2).into())));
    assert_eq!(node.outbound(&sized(300)), Verdict::Answer(DropReason::NoUsableBinding));
}

#[test]
fn copies_are_fragmented_each_for_its_own_path() {
    let mut bindings = uplinks();
    bindings[1].mtu = 1280;
    let mut node = Node::new(mobile_with(registration(bindings, copying(2).into())));
    let Verdict::Replicate(sends) = node.outbound(&sized(1280)) else { panic!("copies") };
    let counts: Vec<_> = sends.parts(&node.out).map(|part| packets(part.1).count()).collect();
    assert_eq!(counts, [2, 1]);
    // What is too big for one of them is too big.
    assert_eq!(node.outbound(&sized(1400)), Verdict::Answer(DropReason::TooBig));
    let flow = &node.engine.flows()[0];
    assert_eq!(flow.packets_out, 1, "nothing is counted of a packet that did not leave");
}

#[test]
fn too_big_names_the_least_of_the_usable_links() {
    let told = |bindings| {
        let mut node = Node::new(mobile_with(registration(bindings, figure_11())));
        assert_eq!(node.outbound(&sized(1470)), Verdict::Answer(DropReason::TooBig));
        u32::from_be_bytes(node.out[44..48].try_into().unwrap())
    };
    let mut bindings = uplinks();
    assert_eq!(told(bindings.clone()), 1460);
    bindings[1].mtu = 1400;
    assert_eq!(told(bindings.clone()), 1360, "the flow may move there");
    bindings[1].usable = false;
    assert_eq!(told(bindings), 1460, "it may not");
}

// ---- outside the tunnel ------------------------------------------------------------------------

/// Guests leave by W-CDMA untranslated, web of the home by WLAN translated, the rest by tunnel.
fn with_guests() -> Snapshot {
    let from_guests = TrafficSelector { ingresses: vec![BR_GUEST], ..TrafficSelector::default() };
    let (out, web) = (vec![bid(2)], vec![bid(1)]);
    let next = || Otherwise::NextRule;
    let policy = Effective::new([
        rule(0, to_port(17, 25), Outcome::Block(BlockReply::Icmp), next()),
        rule(
            1,
            vec![from_guests],
            Outcome::Breakout { links: out, translate: false },
            Otherwise::Then(Outcome::Block(BlockReply::Icmp)),
        ),
        rule(2, to_port(17, 80), Outcome::Breakout { links: web, translate: true }, next()),
        rule(
            3,
            to_port(17, 81),
            Outcome::Breakout { links: vec![bid(1)], translate: false },
            next(),
        ),
        rule(4, Vec::new(), Outcome::Candidates(vec![bid(1), bid(2)]), Otherwise::Any),
    ]);
    let also =
        BTreeMap::from([(BR_GUEST, HomeAddress(v6(HOME))), (Ingress(3), HomeAddress(v6(HOME)))]);
    Snapshot { also, ..mobile_with(registration(uplinks(), policy.into())) }
}

#[test]
fn further_sources_leave_outside_the_tunnel_or_not_at_all() {
    let node = Node::new(with_guests());
    let plain = Verdict::Breakout { path: PathId(2), translate: false };
    let other = Ingress(3);
    let prohibited = Verdict::Answer(DropReason::Blocked);
    let cases = [
        ("a guest", BR_GUEST, udp(GUEST, PEER, (1, 2), 300), plain),
        ("a guest, refused", BR_GUEST, udp(GUEST, PEER, (1, 25), 300), prohibited),
        (
            "no rule lets it out",
            other,
            udp(GUEST, PEER, (1, 2), 300),
            Verdict::Answer(DropReason::NeverTunnelled),
        ),
        (
            "to the home's own network",
            BR_GUEST,
            udp(GUEST, INSIDE, (1, 2), 300),
            Verdict::Answer(DropReason::Hairpin),
        ),
        (
            "by a door of nobody's",
            Ingress::OTHER,
            udp(GUEST, PEER, (1, 2), 300),
            Verdict::Drop(DropReason::NotOurs),
        ),
        (
            "a guest's translated web",
            other,
            udp(GUEST, PEER, (1, 80), 300),
            Verdict::Breakout { path: PathId(1), translate: true },
        ),
    ];
    for (what, ingress, packet, want) in cases {
        let mut out = Vec::new();
        assert_eq!(node.engine.outbound(ingress, &packet, NOW, &mut out), want, "{what}");
        if let Verdict::Breakout { .. } = want {
            assert_eq!(out, packet, "{what}: as it came");
        }
    }
    // The link is gone: what the rule says otherwise.
    let mut gone = uplinks();
    gone[1].attached = false;
    let policy = with_guests().updates.get(HomeAddress(v6(HOME))).unwrap().policy.clone();
    let updates = [registration(gone, policy)].into_iter().collect();
    let node = Node::new(Snapshot { updates, ..with_guests() });
    let packet = udp(GUEST, PEER, (1, 2), 300);
    let mut out = Vec::new();
    assert_eq!(node.engine.outbound(BR_GUEST, &packet, NOW, &mut out), prohibited);
    assert_eq!(out[8..24], v6(HOME).octets(), "told by our address");
}

#[test]
fn a_home_source_leaves_outside_the_tunnel_only_translated() {
    let mut node = Node::new(with_guests());
    let web = udp(INSIDE, PEER, (1, 80), 300);
    let translated = Verdict::Breakout { path: PathId(1), translate: true };
    assert_eq!(node.outbound(&web), translated);
    assert_eq!(node.out, web);
    let flow = &node.engine.flows()[0];
    assert_eq!((flow.bid_out, flow.packets_out), (Some(bid(1)), 1));
    let told = node.engine.explain(&flow.key, NOW);
    let want = Fate::BrokenOut { bid: Some(bid(1)), path: PathId(1), translate: true, mtu: 1500 };
    assert_eq!(told.fate, want);
    assert_eq!(told.rule.unwrap().1.as_str(), "rule 2");
    let plain = udp(INSIDE, PEER, (1, 81), 300);
    assert_eq!(node.outbound(&plain), Verdict::Answer(DropReason::Untranslated));
}

#[test]
fn what_does_not_fit_the_link_is_answered() {
    let mut node = Node::new(with_guests());
    assert!(matches!(node.outbound(&udp(HOME, PEER, (1, 80), 1500)), Verdict::Breakout { .. }));
    assert_eq!(node.outbound(&udp(HOME, PEER, (1, 80), 1501)), Verdict::Answer(DropReason::TooBig));
    assert_eq!(node.out[40], 2, "Packet Too Big");
    assert_eq!(node.out[44..48], 1500_u32.to_be_bytes());
    let mut expired = udp(HOME, PEER, (1, 80), 300);
    expired[7] = 0;
    assert_eq!(node.outbound(&expired), Verdict::Answer(DropReason::HopLimit));
}

// ---- fields ------------------------------------------------------------------------------------

#[test]
fn every_field_of_a_packet_is_read() {
    let parse = |packet: &[u8]| Inner::parse(packet, Ingress::OTHER).map(|inner| inner.key);
    let ends = (v6(HOME), v6(PEER));
    let packet = |next, payload: &[u8]| raw(ends.0, ends.1, next, payload);
    let mut labelled = sized(100);
    labelled[1] = 0x0a;
    labelled[2..4].copy_from_slice(&[0xbc, 0xde]);
    assert_eq!(parse(&labelled).unwrap().flow_label, 0x000a_bcde);
    let esp = parse(&packet(50, &[0, 0, 0x10, 1, 0, 0, 0, 1])).unwrap();
    assert_eq!((esp.protocol, esp.spi), (50, Some(0x1001)));
    // An Authentication Header of 24 octets before UDP.
    let mut authenticated = vec![17, 4, 0, 0, 0, 0, 0x20, 2, 0, 0, 0, 1];
    authenticated.extend_from_slice(&[0; 12]);
    authenticated.extend_from_slice(&[0, 9, 0, 53, 0, 8, 0, 0]);
    let ah = parse(&packet(51, &authenticated)).unwrap();
    assert_eq!((ah.protocol, ah.spi, ah.destination_port), (17, Some(0x2002), Some(53)));
    let echo = parse(&packet(58, &[128, 0, 0, 0])).unwrap();
    assert_eq!((echo.icmp_type, echo.spi), (Some(128), None));
    // Cut before what rules look at: no packet at all (RFC 7112).
    for (what, next, payload) in [("ESP", 50, &[0, 0, 0x10][..]), ("ICMPv6", 58, &[][..])] {
        assert_eq!(parse(&packet(next, payload)), Err(DropReason::InnerHeaders), "{what}");
    }
    // Later fragments have none of it.
    let later = parse(&packet(44, &[58, 0, 0, 8, 0, 0, 0, 1, 128, 0, 0, 0])).unwrap();
    assert_eq!((later.protocol, later.icmp_type), (58, None));
}

#[test]
fn fragments_follow_their_first_by_every_field() {
    let echoes = TrafficSelector { icmp_types: vec![128..=128], ..TrafficSelector::default() };
    let policy = Effective::new([
        rule(0, vec![echoes], Outcome::Candidates(vec![bid(2)]), Otherwise::NextRule),
        everything(Outcome::Candidates(vec![bid(1)]), Otherwise::NextRule),
    ]);
    let mut node = Node::new(mobile_with(registration(uplinks(), policy.into())));
    let piece = |field: [u8; 2], payload: &[u8]| {
        let mut fragment = vec![58, 0, field[0], field[1], 0, 0, 0, 7];
        fragment.extend_from_slice(payload);
        raw(v6(HOME), v6(PEER), 44, &fragment)
    };
    let first = piece([0, 1], &[128, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(node.outbound(&first), Verdict::Send { path: PathId(2) });
    let second = piece([0, 8], &[1, 2, 3, 4]);
    assert_eq!(node.outbound(&second), Verdict::Send { path: PathId(2) });
}

// ---- users -------------------------------------------------------------------------------------

/// Tells what it is set to and counts how often it was asked.
#[derive(Clone, Debug, Default)]
struct Told(std::sync::Arc<Mutex<(Option<u32>, usize)>>);

impl Told {
    fn set(&self, uid: Option<u32>) {
        self.0.lock().unwrap().0 = uid;
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

impl Uids for Told {
    fn uid(&self, _: &FlowKey) -> Option<u32> {
        let mut told = self.0.lock().unwrap();
        told.1 += 1;
        told.0
    }
}

#[test]
fn users_are_asked_for_when_local_flows_are_born() {
    let drivers = TrafficSelector { uids: vec![1001..=1001], ..TrafficSelector::default() };
    let policy = || {
        Effective::new([
            rule(0, vec![drivers.clone()], Outcome::Candidates(vec![bid(2)]), Otherwise::NextRule),
            rule(1, Vec::new(), Outcome::Candidates(vec![bid(1)]), Otherwise::NextRule),
        ])
    };
    let told = Told::default();
    let node = Node::new(mobile_with(registration(uplinks(), policy().into())));
    let engine = Engine::new(node.snapshot.clone(), Settings::default());
    let engine = engine.with_uids(Box::new(told.clone()));
    let mut out = Vec::new();
    let mut send = |ingress, packet: &[u8], seconds| {
        let at = NOW + Duration::from_secs(seconds);
        match engine.outbound(ingress, packet, at, &mut out) {
            Verdict::Send { path } => path.0,
            other => panic!("{other:?}"),
        }
    };
    told.set(Some(1001));
    assert_eq!(send(Ingress::LOCAL, &sized(100), 0), 2);
    assert_eq!(send(Ingress::LOCAL, &sized(100), 1), 2);
    assert_eq!(told.asked(), 1, "once for a flow");
    assert_eq!(send(Ingress::OTHER, &udp(INSIDE, PEER, (1, 2), 100), 1), 1);
    assert_eq!(told.asked(), 1, "never for a forwarded one");
    // After a silence the port may be somebody else's, and a first packet is a first packet.
    told.set(Some(1002));
    assert_eq!(send(Ingress::LOCAL, &sized(100), 5), 2, "still the same flow");
    assert_eq!(send(Ingress::LOCAL, &sized(100), 20), 1);
    assert_eq!(told.asked(), 2);
    let syn = tcp(HOME, PEER, (9, 80));
    assert_eq!(send(Ingress::LOCAL, &syn, 20), 1);
    told.set(Some(1001));
    assert_eq!(send(Ingress::LOCAL, &syn, 21), 2);
    assert_eq!(told.asked(), 4);
    // Nobody knows: asked once all the same.
    told.set(None);
    for second in 30..40 {
        assert_eq!(send(Ingress::LOCAL, &udp(HOME, PEER, (7, 8), 100), second), 1);
    }
    assert_eq!(told.asked(), 5);
    // No rule looks at users: nobody is asked.
    let quiet = Node::new(mobile());
    let engine = Engine::new(quiet.snapshot.clone(), Settings::default());
    let engine = engine.with_uids(Box::new(told.clone()));
    engine.outbound(Ingress::LOCAL, &sized(100), NOW, &mut out);
    assert_eq!(told.asked(), 5);
}
