//! Storms, one step at a time: each hears what came, and then one message.

use std::collections::HashMap;

use mtun_policy::{Extensions, HomeAgentAddress};
use mtun_signaling::agent::{AgentConfig, AgentMobile, HomeAgent, HomeLink};
use mtun_signaling::auth::{Algorithm, Secret, SecurityAssociation};
use mtun_signaling::time::NtpTime;
use mtun_signaling::wire::{self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, Options};

use super::*;

const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);
const MOBILES: u16 = 8;
/// Whose own mobile sends without end.
const FLOODS: u16 = 0;
/// In whose name others send without end, with a wrong key.
const FORGED: u16 = 1;
/// Whose old updates somebody sends again and again.
const REPEATED: u16 = 2;

fn home_address(mobile: u16) -> HomeAddress {
    HomeAddress(Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10 + mobile))
}

fn association(mobile: u16, key: u8) -> SecurityAssociation {
    let mut octets = vec![key; 32];
    octets[..2].copy_from_slice(&mobile.to_be_bytes());
    let key = Secret::new(octets).unwrap();
    SecurityAssociation::new(0x1000, Algorithm::HmacSha256, key).unwrap()
}

fn door() -> Door {
    let mobile = |mobile| AgentMobile {
        address: home_address(mobile),
        prefixes: Vec::new(),
        protection: Some(association(mobile, 7)),
        max_bindings: 4,
        max_flows: 0,
        max_copies: 0,
        reflect: false,
        copies: false,
        refused: false,
        refused_bids: Vec::new(),
    };
    let agent = HomeAgent::new(AgentConfig {
        address: HomeAgentAddress(AGENT),
        prefix: "2001:db8:100::/64".parse().unwrap(),
        home_link: HomeLink::Virtual,
        max_lifetime: Duration::from_secs(3600),
        refresh_advice: None,
        refresh_requests: false,
        multiple_coa: true,
        bulk: true,
        flow_bindings: false,
        extensions: Extensions::default(),
        restart_counter: 1,
        mobiles: (0..MOBILES).map(mobile).collect(),
    });
    Door { home: HomeName::new("fleet"), gate: agent.gate() }
}

/// Who writes updates, and what they wrote.
#[derive(Default)]
struct Pens {
    stamp: u64,
}

impl Pens {
    fn update(&mut self, mobile: u16, key: u8, network: u16) -> (Envelope, Vec<u8>) {
        self.stamp += 1;
        let source = Ipv6Addr::new(0x2001, 0xdb8, 0xc000, network, 0, 0, 0, mobile + 1);
        let envelope =
            Envelope { home_address: Some(home_address(mobile)), ..Envelope::plain(source, AGENT) };
        let update = Message::BindingUpdate(BindingUpdate {
            sequence: self.stamp as u16,
            flags: BindingUpdateFlags { acknowledge: true, home: true, ..Default::default() },
            lifetime: Lifetime(100),
            options: Options::new(),
        });
        let (key, stamp) = (association(mobile, key), Some(NtpTime(self.stamp)));
        let message = wire::emit_authenticated(&update, &envelope, source, &key, stamp);
        (envelope, message.unwrap())
    }
}

/// A source of numbers that is the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn dropped(arrivals: &Arrivals, reason: &str) -> u64 {
    arrivals.dropped().iter().filter(|((_, why), _)| *why == reason).map(|(_, count)| count).sum()
}

/// Nobody's wait depends on how much another sends: neither a mobile's own good updates without
/// end, nor forged ones, nor copies of old ones, nor what strangers send, keep an update of another
/// mobile waiting for longer than one turn of everybody. None of theirs is lost.
#[test]
fn a_storm_delays_nobody_else() {
    // Each mobile that waits is heard once before, and between two of them one stranger.
    let turn = u64::from(MOBILES) * 2;
    for seed in 0..12 {
        let mut random = Random(seed);
        let arrivals = Arrivals::new(seed);
        arrivals.set_doors(vec![door()]);
        let mut pens = Pens::default();
        // More than there is room for, and few enough that copies of one meet in it.
        let old: Vec<_> = (0..6).map(|_| pens.update(REPEATED, 7, 9)).collect();
        let mut waits: HashMap<u16, (u64, Vec<u8>)> = HashMap::new();
        let mut heard = 0;
        for step in 0..1_500_u64 {
            let now = Duration::from_millis(step);
            let push = |(envelope, message): &(Envelope, Vec<u8>)| {
                arrivals.message(now, None, false, *envelope, message);
            };
            for _ in 0..random.below(8) {
                match random.below(4) {
                    0 => push(&pens.update(FLOODS, 7, 1)),
                    1 => push(&pens.update(FORGED, 8, random.below(500) as u16)),
                    2 => push(&old[random.below(6) as usize]),
                    _ => {
                        let network = random.below(2_000) as u16;
                        let source = Ipv6Addr::new(0x2001, 0xdb8, 0xd000, network, 0, 0, 0, 1);
                        push(&(Envelope::plain(source, AGENT), vec![59, 1, 99, 0, 0, 0, 0, 0]));
                    }
                }
            }
            let other = 1 + random.below(u64::from(MOBILES) - 1) as u16;
            if random.below(6) == 0 && !waits.contains_key(&other) {
                let update = pens.update(other, 7, 2);
                push(&update);
                waits.insert(other, (step, update.1));
            }
            let Some(Arrived::Message { message, .. }) = arrivals.take() else { continue };
            waits.retain(|mobile, (since, update)| {
                if *update != message {
                    // Old ones in its own room are in front of its new one, and no more.
                    let own = if *mobile == REPEATED { OF_A_MOBILE as u64 } else { 1 };
                    assert!(step - *since < turn * own, "mobile {mobile} waits since {since}");
                    return true;
                }
                heard += 1;
                false
            });
        }
        assert!(heard > 150, "{heard} updates of the others were heard");
        for reason in ["forged", "repeated"] {
            assert!(dropped(&arrivals, reason) > 100, "{reason}: {:?}", arrivals.dropped());
        }
        let own = ["displaced", "queue-full"].map(|reason| dropped(&arrivals, reason));
        assert!(own.iter().sum::<u64>() > 100, "{:?}", arrivals.dropped());
    }
}

#[test]
fn a_few_forged_updates_of_each_network_are_handed_on_to_be_answered() {
    let arrivals = Arrivals::new(1);
    arrivals.set_doors(vec![door()]);
    let mut pens = Pens::default();
    for network in [1, 2] {
        for _ in 0..100 {
            let (envelope, message) = pens.update(FORGED, 8, network);
            arrivals.message(Duration::from_secs(1), None, false, envelope, &message);
        }
    }
    let handed_on = std::iter::from_fn(|| arrivals.take()).count();
    assert_eq!(handed_on, 2 * FORGED_TOLD as usize);
    assert_eq!(dropped(&arrivals, "forged"), 200 - 2 * u64::from(FORGED_TOLD));
    // What has no proof at all gets no answer, so nobody sees it.
    let (envelope, _) = pens.update(FORGED, 8, 3);
    let bare = wire::emit(
        &Message::BindingUpdate(BindingUpdate {
            sequence: 1,
            flags: BindingUpdateFlags::default(),
            lifetime: Lifetime(1),
            options: Options::new(),
        }),
        &envelope,
    );
    arrivals.message(Duration::from_secs(1), None, false, envelope, &bare.unwrap());
    assert!(arrivals.take().is_none());
    assert_eq!(dropped(&arrivals, "unprotected"), 1);
}

#[test]
fn strangers_and_mobiles_take_turns() {
    let arrivals = Arrivals::new(1);
    arrivals.set_doors(vec![door()]);
    let mut pens = Pens::default();
    let unknown = |host| Arrived::UnknownBinding {
        source: Ipv6Addr::new(0x2001, 0xdb8, 0xd000, 0, 0, 0, 0, host),
        destination: AGENT,
        home_address: home_address(0),
    };
    (0..4).for_each(|host| arrivals.other(unknown(host)));
    for mobile in 3..6 {
        let (envelope, message) = pens.update(mobile, 7, 1);
        arrivals.message(Duration::ZERO, None, false, envelope, &message);
    }
    let order: Vec<bool> = std::iter::from_fn(|| arrivals.take())
        .map(|arrived| matches!(arrived, Arrived::Message { .. }))
        .collect();
    assert_eq!(order, [true, false, true, false, true, false, false]);
}
