//! What strangers can make a home agent and a correspondent send: never more than they send
//! themselves, and no more the faster they are.

use std::net::Ipv6Addr;

use mtun::edge::clock::Clock;
use mtun::key;
use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, World, address};
use mtun_dataplane::backend::Uplink;
use mtun_dataplane::wire::{discovery_packet, signalling_packet};
use mtun_policy::HomeAddress;
use mtun_signaling::Envelope;
use mtun_signaling::auth::{Secret, SecurityAssociation};
use mtun_signaling::wire::icmpv6::{
    self, HomeAgentAddressDiscoveryRequest, IcmpMessage, home_agents_anycast,
};
use mtun_signaling::wire::{
    self, BindingUpdate, BindingUpdateFlags, HomeTestInit, Lifetime, Message, Options,
};

use crate::fixture::{Lab, PATIENCE, ipv6};
use crate::home_agent::looking;
use crate::need_lab;

/// Packets of each kind.
const PACKETS: u64 = 3000;
/// The stranger: the second access network's router, by its address towards the core.
const STRANGER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf2, 0, 0, 0, 0, 2);
const AGENT: Ipv6Addr = address::AGENT;
const CN: Ipv6Addr = address::CORRESPONDENT;
/// A home address that nobody serves.
const NOBODY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x66);

/// Octets and packets that an interface has received and sent.
#[derive(Clone, Copy, Debug)]
struct Passed {
    came: (u64, u64),
    left: (u64, u64),
}

fn passed(at: &Namespace) -> Passed {
    let links = at.ip_json("-s link show core0").unwrap();
    let of = |way: &str| {
        let figures = &links[0]["stats64"][way];
        (figures["bytes"].as_u64().unwrap(), figures["packets"].as_u64().unwrap())
    };
    Passed { came: of("rx"), left: of("tx") }
}

/// A Mobility Header of a type that nobody knows, as short as there can be.
fn unknown_type(target: Ipv6Addr) -> Vec<u8> {
    let mut message = [59, 0, 200, 0, 0, 0, 0, 0];
    let words = |octets: &[u8]| -> u32 {
        octets.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
    };
    let pseudo = words(&STRANGER.octets()) + words(&target.octets()) + 8 + 135;
    let mut sum = pseudo + words(&message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[4..6].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    ipv6(135, STRANGER, target, &message)
}

/// A datagram with a Home Address option that is not bound.
fn unbound(target: Ipv6Addr) -> Vec<u8> {
    let mut payload = vec![17, 2, 1, 2, 0, 0, 201, 16];
    payload.extend(NOBODY.octets());
    payload.extend([0x1b, 0x58, 0, 9, 0, 8, 0, 0]);
    ipv6(60, STRANGER, target, &payload)
}

/// An update of a mobile that is served, with a key that is not its own.
fn forged(world: &World, sequence: u16) -> Vec<u8> {
    let (algorithm, _) = key::read(&world.directory().join("agent/acme.key")).unwrap();
    let secret = Secret::new(vec![9; algorithm.key_len()]).unwrap();
    let association = SecurityAssociation::new(0x1001, algorithm, secret).unwrap();
    let home = HomeAddress(address::HOME);
    let envelope = Envelope { home_address: Some(home), ..Envelope::plain(STRANGER, AGENT) };
    let update = Message::BindingUpdate(BindingUpdate {
        sequence,
        flags: BindingUpdateFlags { acknowledge: true, home: true, ..Default::default() },
        lifetime: Lifetime(600),
        options: Options::new(),
    });
    let now = Clock::start().now().wall;
    let message =
        wire::emit_authenticated(&update, &envelope, STRANGER, &association, Some(now)).unwrap();
    signalling_packet(STRANGER, AGENT, Some(home.0), None, &message)
}

fn test_init(cookie: u64) -> Vec<u8> {
    let envelope = Envelope::plain(STRANGER, CN);
    let message = Message::HomeTestInit(HomeTestInit {
        cookie: cookie.to_be_bytes(),
        options: Options::new(),
    });
    let message = wire::emit(&message, &envelope).unwrap();
    signalling_packet(STRANGER, CN, None, None, &message)
}

fn discovery(target: Ipv6Addr) -> Vec<u8> {
    let envelope = Envelope::plain(STRANGER, target);
    let request = HomeAgentAddressDiscoveryRequest { identifier: 4711, router: true };
    let message = icmpv6::emit(&IcmpMessage::HomeAgentAddressDiscoveryRequest(request), &envelope);
    discovery_packet(STRANGER, target, None, None, &message)
}

/// MH-16, CN-07 (RFC 6275 §9.3.3): a flood of whatever may be answered brings back fewer
/// packets and fewer octets than it cost, and afterwards both still answer.
#[test]
fn answers_to_strangers_have_a_rate_and_never_amplify() {
    need_lab!();
    let mut lab = Lab::with_agent_prepared(Plan::default(), PolicyText::default(), looking);
    lab.start_correspondent();
    let at = &lab.world.wcdma;
    let uplink = at.run(|| Uplink::open(None).unwrap());
    // The kernel here knows nothing of mobility and would complain of each answer.
    at.nft("table ip6 mute { chain in { type filter hook prerouting priority raw; ip6 nexthdr { 43, 135 } drop; }; }")
        .unwrap();
    let anycast = home_agents_anycast("2001:db8:100::/64".parse().unwrap());
    let forgeries: Vec<_> = (0..64).map(|sequence| forged(&lab.world, sequence)).collect();
    // Whether somebody who asks once gets an answer of this kind.
    let floods: [(&str, bool, Vec<Vec<u8>>); 8] = [
        ("a type that the agent does not know", true, vec![unknown_type(AGENT)]),
        ("a type that the correspondent does not know", true, vec![unknown_type(CN)]),
        ("a home address that the correspondent holds nothing of", true, vec![unbound(CN)]),
        ("a home address that the agent holds nothing of", false, vec![unbound(AGENT)]),
        ("forged updates", false, forgeries),
        ("home tests", true, (1..=64).map(test_init).collect()),
        ("who are the agents of this network", true, vec![discovery(anycast)]),
        ("the same of the agent", true, vec![discovery(AGENT)]),
    ];
    for (what, is_answered, packets) in &floods {
        let before = passed(at);
        for packet in packets.iter().cycle().take(PACKETS as usize) {
            wait_for("room to send", PATIENCE, || uplink.send(packet).ok()).unwrap();
        }
        if *is_answered {
            let some = || (passed(at).came.1 > before.came.1).then_some(());
            wait_for(what, PATIENCE, some).unwrap();
        }
        // What comes behind all of it is answered too: by the kernels, which lose nothing.
        for target in [AGENT, CN] {
            at.exec(&format!("ping -q -c 1 -W 5 {target}")).unwrap();
        }
        let after = passed(at);
        let sent = (after.left.0 - before.left.0, after.left.1 - before.left.1);
        let came = (after.came.0 - before.came.0, after.came.1 - before.came.1);
        assert!(sent.1 >= PACKETS, "{what}: {sent:?}");
        assert!(came.0 < sent.0, "{what}: {} octets came back for {}", came.0, sent.0);
        assert!(came.1 < sent.1 / 4, "{what}: {} packets came back for {}", came.1, sent.1);
    }
    // Neither is any the worse for it.
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    let status = lab.agent().status().unwrap();
    assert_eq!(mtun::lab::daemons::cached(&status).len(), 2);
    lab.traffic().let_run(100).unwrap();
    lab.assert_clean();
}
