//! Random worlds: two homes of this node and two it serves, prefixes inside each other's prefixes,
//! rules of every verb, and what happens between packets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mtun_dataplane::{Binding, CopyMark, PathId, Registration};
use mtun_policy::{
    Bid, BlockReply, Buckets, CareOfAddress, Effective, FailbackMode, FlowKey, HomeAddress,
    HomeName, Ingress, MobileNetworkPrefix, Optimize, Otherwise, Outcome, RuleHead, RuleId,
    RuleName, Says, Scope, Spread, Sticky, TrafficSelector,
};
use proptest::prelude::*;

use crate::support::{raw, rule, v6};

/// Home address, prefixes it may have, agent. Prefixes nest across homes; one home address lies
/// inside another's prefix.
pub const HOMES: [(&str, [&str; 2], &str); 4] = [
    ("2001:db8:a::42", ["2001:db8:a:100::/56", "2001:db8:a:200::/64"], "2001:db8:a::1"),
    ("2001:db8:a:101::5", ["2001:db8:a:110::/60", "2001:db8:b::/48"], "2001:db8:b::1"),
    ("2001:db8:c::42", ["2001:db8:c:100::/56", "2001:db8:c:200::/64"], "2001:db8:c::1"),
    ("2001:db8:c:101::5", ["2001:db8:c:110::/60", "2001:db8:d::/48"], "2001:db8:c::1"),
];

/// Everybody who sends or receives.
const HOSTS: [&str; 14] = [
    "2001:db8:a::42",
    "2001:db8:a:101::5",
    "2001:db8:a:101::6",
    "2001:db8:a:111::1",
    "2001:db8:a:200::1",
    "2001:db8:b:7::1",
    "2001:db8:c::42",
    "2001:db8:c:101::5",
    "2001:db8:c:101::6",
    "2001:db8:c:111::1",
    "2001:db8:c:200::1",
    "2001:db8:d:7::1",
    "2001:db8:ffff::9",
    "2001:db8:fffe::9",
];

pub const CARE_OF: [&str; 6] = [
    "2001:db8:1::7",
    "2001:db8:2::7",
    "2001:db8:3::7",
    "2001:db8:1::8",
    "2001:db8:2::8",
    "2001:db8:3::8",
];

/// Where mobiles are that are bound at us.
pub const THERE: [&str; 3] = ["2001:db8:e1::1", "2001:db8:e2::1", "2001:db8:e3::1"];

/// Home addresses that bind at us, one of them also served by us.
pub const MOBILES: [&str; 3] = ["2001:db8:ffff::9", "2001:db8:fffe::9", "2001:db8:c::42"];

/// Our addresses as a correspondent: two homes, a care-of address and an agent's address.
pub const OURS: [&str; 4] = [HOMES[0].0, HOMES[1].0, CARE_OF[0], HOMES[2].2];

const SELECTED: [&str; 6] = [
    "2001:db8:a::/48",
    "2001:db8:a:100::/56",
    "2001:db8:c:101::/64",
    "2001:db8:ffff::9/128",
    "2001:db8::/32",
    "2001:db8:fffe::/48",
];

const PROTOCOLS: [u8; 4] = [6, 17, 58, 135];
const PORTS: [u16; 4] = [22, 23, 80, 5000];
pub const DSCPS: [u8; 3] = [0, 8, 46];

fn few<T: Clone + std::fmt::Debug + 'static>(
    of: impl Into<std::borrow::Cow<'static, [T]>>,
    most: usize,
) -> impl Strategy<Value = Vec<T>> {
    // Half of the fields say nothing, so that rules overlap.
    let of = of.into().into_owned();
    prop_oneof![
        Just(Vec::new()),
        prop::sample::subsequence(of.clone(), 0..=most.min(of.len())).prop_shuffle()
    ]
}

fn nets() -> impl Strategy<Value = Vec<IpNet>> {
    let nets: Vec<IpNet> = SELECTED.iter().map(|net| net.parse().unwrap()).collect();
    few(nets, 2)
}

fn ports() -> impl Strategy<Value = Vec<std::ops::RangeInclusive<u16>>> {
    prop_oneof![
        2 => Just(vec![]),
        1 => prop::sample::select(PORTS.to_vec()).prop_map(|port| vec![port..=port]),
        1 => Just(vec![20..=30, 4000..=6000]),
    ]
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ingresses = few(vec![Ingress::LOCAL, Ingress::OTHER, Ingress(2)], 2);
    (
        nets(),
        nets(),
        few(PROTOCOLS.to_vec(), 2),
        ports(),
        ports(),
        few(DSCPS.to_vec(), 2),
        ingresses,
    )
        .prop_map(
            |(
                sources,
                destinations,
                protocols,
                source_ports,
                destination_ports,
                dscps,
                ingresses,
            )| {
                TrafficSelector {
                    sources,
                    destinations,
                    protocols,
                    source_ports,
                    destination_ports,
                    dscps,
                    ingresses,
                    ..TrafficSelector::default()
                }
            },
        )
}

fn bids() -> impl Strategy<Value = Vec<Bid>> {
    // Four has never a binding; 65535 is what a stand-in could be.
    let all: Vec<Bid> = [1, 2, 3, 4, 65535].into_iter().filter_map(Bid::new).collect();
    prop::sample::subsequence(all, 0..=4).prop_shuffle()
}

fn buckets() -> impl Strategy<Value = Outcome> {
    (bids(), any::<u64>()).prop_map(|(links, seed)| {
        let count = links.len().max(1) as u64;
        let place = |at: usize| ((seed >> (at % 8 * 8)) % count) as u8;
        let places: Vec<_> = (0..256).map(place).collect();
        let places = places.try_into().expect("256 of them");
        let spread = Spread::Hash;
        Outcome::Balance(Buckets { links, places: Arc::new(places), spread })
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let copies = (bids(), 2..4u8);
    let breakout = (bids(), any::<bool>());
    prop_oneof![
        6 => bids().prop_map(Outcome::Candidates),
        2 => Just(Outcome::Reflect),
        2 => bids().prop_map(Outcome::ReflectWithin),
        1 => Just(Outcome::Block(BlockReply::Silent)),
        1 => Just(Outcome::Unmet),
        1 => buckets(),
        2 => copies.prop_map(|(links, copies)| Outcome::Copies { links, copies }),
        2 => breakout.prop_map(|(links, translate)| Outcome::Breakout { links, translate }),
    ]
}

fn otherwise() -> impl Strategy<Value = Otherwise> {
    prop_oneof![
        3 => Just(Otherwise::NextRule),
        2 => Just(Otherwise::Any),
        3 => outcome().prop_map(Otherwise::Then),
    ]
}

/// What one rule says, with or without something that keeps flows to their links.
pub fn saying(sticky: bool) -> impl Strategy<Value = Says> {
    let mode = prop::sample::select(vec![
        FailbackMode::New,
        FailbackMode::Gap,
        FailbackMode::Now,
        FailbackMode::Never,
    ]);
    let scope = prop_oneof![1 => Just(Scope::None), 5 => Just(Scope::Flow)];
    let lasts = prop::sample::select(vec![Duration::from_secs(3), Duration::from_secs(600)]);
    let settled = prop_oneof![4 => Just(Vec::new()), 1 => bids()];
    (outcome(), otherwise(), mode, scope, lasts, bids(), settled).prop_map(
        move |(outcome, otherwise, failback, scope, lasts, ripe, settled)| {
            let plain = Says::plain(outcome, otherwise);
            match sticky {
                true => Says { sticky: Sticky { scope, lasts }, failback, ripe, settled, ..plain },
                false => plain,
            }
        },
    )
}

fn optimize() -> impl Strategy<Value = Option<Optimize>> {
    let never = Some(Optimize::Never);
    let said = vec![None, never, Some(Optimize::Allowed), Some(Optimize::Always)];
    prop::sample::select(said)
}

fn effective(sticky: bool) -> impl Strategy<Value = Arc<Effective>> {
    let one = (
        prop::collection::vec(selector(), 0..3),
        prop::collection::vec(selector(), 0..2),
        saying(sticky),
        // Now and then the same rule at another place, or in another policy.
        0..4u64,
        optimize(),
    );
    (prop::collection::vec(one, 0..6), optimize()).prop_map(|(rules, unsaid)| {
        let rules = (0..).zip(rules).map(|(id, (selectors, exclude, says, identity, optimize))| {
            let (head, _) = rule(id, selectors, Outcome::Unmet, Otherwise::NextRule);
            let identity = identity + 10 * u64::from(id % 2);
            (RuleHead { exclude, identity, optimize, ..head }, says)
        });
        Arc::new(Effective { optimize: unsaid, ..Effective::new(rules) })
    })
}

/// An override for everything, by this link.
pub fn steer(bid: Bid) -> (Arc<RuleHead>, Says) {
    let head = RuleHead {
        id: RuleId(RuleId::OVERRIDES + bid.get() % 4),
        name: RuleName::new("steer"),
        selectors: Vec::new(),
        exclude: Vec::new(),
        identity: 1000 + u64::from(bid.get()),
        optimize: None,
    };
    (Arc::new(head), Says::plain(Outcome::Candidates(vec![bid]), Otherwise::NextRule))
}

/// Bindings of distinct BIDs and care-of addresses, or a single one without BID.
fn bindings() -> impl Strategy<Value = Vec<Binding>> {
    type State = (u8, bool, bool, bool, bool, Option<u64>, Option<u64>);
    let one = |bid: Option<u16>, care_of: &str, state: State| {
        let (priority, usable, attached, metered, home_link, rtt, jitter) = state;
        Binding {
            bid: bid.and_then(Bid::new),
            priority,
            care_of: CareOfAddress::from(v6(care_of)),
            path: PathId(bid.unwrap_or(9)),
            usable,
            attached,
            metered,
            home_link,
            mtu: 1500,
            rtt: rtt.map(Duration::from_millis),
            jitter: jitter.map(Duration::from_millis),
        }
    };
    let state = || {
        let figures = prop::sample::select(vec![None, Some(20), Some(100), Some(2000)]);
        let jitter = prop::sample::select(vec![None, Some(5), Some(40)]);
        let usually = || prop::bool::weighted(0.7);
        let seldom = prop::bool::weighted(0.1);
        (0..3u8, usually(), usually(), any::<bool>(), seldom, figures, jitter)
    };
    let named = (
        prop::sample::subsequence(vec![1u16, 2, 3, 65535], 0..=3).prop_shuffle(),
        prop::sample::subsequence(CARE_OF.to_vec(), 3).prop_shuffle(),
        prop::collection::vec(state(), 3),
    )
        .prop_map(move |(bids, care_of, states)| {
            let all = bids.into_iter().zip(care_of).zip(states);
            all.map(|((bid, care_of), state)| one(Some(bid), care_of, state)).collect::<Vec<_>>()
        });
    let unnamed = (prop::sample::select(CARE_OF.to_vec()), state())
        .prop_map(move |(care_of, state)| vec![one(None, care_of, state)]);
    prop_oneof![5 => named, 1 => unnamed]
}

pub fn home(which: usize, sticky: bool) -> impl Strategy<Value = Registration> {
    let (home_address, prefixes, peer) = HOMES[which];
    let prefixes: Vec<_> = prefixes
        .iter()
        .map(|net| MobileNetworkPrefix::new(net.parse().unwrap()).unwrap())
        .collect();
    let agreed = prop::sample::select(vec![CopyMark::Off, CopyMark::On]);
    let prefixes = prop::sample::subsequence(prefixes, 0..=2);
    (bindings(), prefixes, effective(sticky), agreed).prop_map(
        move |(bindings, prefixes, policy, copies)| {
            let (name, home_address) = (HomeName::new("home"), HomeAddress(v6(home_address)));
            let home = Registration::new(name, home_address, prefixes, v6(peer), bindings, policy);
            Registration { copies, ..home }
        },
    )
}

/// The first two homes are this node's, the others are served by it.
pub fn is_own(which: usize) -> bool {
    which < 2
}

pub fn flow_key() -> impl Strategy<Value = FlowKey> {
    let address = || prop::sample::select(HOSTS.to_vec()).prop_map(|host| IpAddr::V6(v6(host)));
    let port = || prop::sample::select(PORTS.to_vec());
    (
        address(),
        address(),
        prop::sample::select(PROTOCOLS.to_vec()),
        port(),
        port(),
        prop::sample::select(DSCPS.to_vec()),
        0..3u8,
    )
        .prop_map(
            |(source, destination, protocol, source_port, destination_port, dscp, ingress)| {
                let has_ports = protocol == 6 || protocol == 17;
                FlowKey {
                    source,
                    destination,
                    protocol,
                    source_port: has_ports.then_some(source_port),
                    destination_port: has_ports.then_some(destination_port),
                    dscp,
                    ingress: Ingress(ingress),
                    flow_label: 0,
                    spi: None,
                    icmp_type: None,
                    uid: None,
                }
            },
        )
}

fn select(of: &[&'static str]) -> impl Strategy<Value = &'static str> + use<> {
    prop::sample::select(of.to_vec())
}

/// The same flow between two others.
pub fn between(source: &str, destination: &str, key: &FlowKey) -> FlowKey {
    FlowKey { source: v6(source).into(), destination: v6(destination).into(), ..*key }
}

pub fn packet_of(key: &FlowKey) -> Vec<u8> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (key.source, key.destination) else {
        panic!("no IPv4 in these worlds")
    };
    let mut payload = vec![0; 20];
    if let (Some(from), Some(to)) = (key.source_port, key.destination_port) {
        payload[..2].copy_from_slice(&from.to_be_bytes());
        payload[2..4].copy_from_slice(&to.to_be_bytes());
    } else {
        payload[0] = 128;
    }
    let mut packet = raw(source, destination, key.protocol, &payload);
    packet[0] |= key.dscp >> 2;
    packet[1] |= key.dscp << 6;
    packet
}

/// Something that happens between or instead of packets.
#[derive(Clone, Debug)]
pub enum Event {
    Out(FlowKey),
    In {
        care_of: usize,
        agent: usize,
        from_agent: bool,
        key: FlowKey,
    },
    /// The flow of the last packet out once more, marked otherwise or by another door.
    Again(u8, Ingress),
    /// The other direction of the last packet out, by the binding it would take.
    Back(usize),
    Publish(usize, Registration),
    /// A packet of this node itself to a mobile that may be bound at it.
    Own(FlowKey),
    /// A packet that comes straight.
    Straight {
        source: &'static str,
        to: &'static str,
        option: Option<&'static str>,
        route: Option<&'static str>,
        key: FlowKey,
    },
    /// The other direction of the last packet out, straight, by a binding of either end.
    StraightBack(usize, usize),
    /// A correspondent holds these bindings of a home address of ours; none ends it.
    Hold(usize, &'static str, Vec<(u16, usize)>),
    /// A mobile binds at an address of ours, or its bindings end.
    Bind(&'static str, &'static str, Vec<Binding>),
    /// New care-of addresses, everything else as it was.
    Move(usize, usize),
    /// The two ends agree on marks for copies, or do so no more.
    Agree(usize),
    /// One binding's usability turns, or whether its link is attached.
    Turn(usize, usize, bool),
    Remove(usize),
    /// The rules say something else; they are the same rules.
    Say(usize, usize, Box<Says>),
    /// An override, or its end.
    Steer(usize, Option<Bid>),
    /// Time goes by.
    Wait(Duration),
    /// Flows without packets are decided again.
    Reevaluate,
}

pub fn event(sticky: bool) -> impl Strategy<Value = Event> {
    let publish =
        (0..4usize).prop_flat_map(move |w| home(w, sticky).prop_map(move |r| Event::Publish(w, r)));
    let received = (0..CARE_OF.len(), 0..HOMES.len(), any::<bool>(), flow_key()).prop_map(
        |(care_of, agent, from_agent, key)| Event::In { care_of, agent, from_agent, key },
    );
    let own = (prop::sample::select(OURS.to_vec()), select(&MOBILES), flow_key())
        .prop_map(|(source, destination, key)| between(source, destination, &key));
    // Mostly what the bindings could be, now and then what they are not.
    let straight = (
        select(&[THERE[0], THERE[1], THERE[2], CARE_OF[1], MOBILES[0]]),
        select(&[CARE_OF[0], CARE_OF[1], CARE_OF[2], HOMES[2].2]),
        prop::option::of(select(&[MOBILES[0], MOBILES[1], MOBILES[2], HOMES[0].0, HOSTS[3]])),
        prop::option::of(select(&[HOMES[0].0, HOMES[1].0, HOMES[2].0])),
        flow_key(),
    )
        .prop_map(|(source, to, option, route, key)| {
            // One of the two, or it would not be straight.
            let route = route.or_else(|| option.is_none().then_some(HOMES[0].0));
            Event::Straight { source, to, option, route, key }
        });
    let hold = (
        0..2usize,
        select(&[MOBILES[0], MOBILES[1], MOBILES[2], HOMES[1].0]),
        prop::collection::vec((0..4u16, 0..CARE_OF.len()), 0..4),
    )
        .prop_map(|(home, peer, bindings)| Event::Hold(home, peer, bindings));
    let bind = (select(&OURS), select(&MOBILES), bindings()).prop_map(|(ours, home, mut list)| {
        let at = |care_of: &Binding| {
            CARE_OF.iter().position(|it| IpAddr::V6(v6(it)) == care_of.care_of.0)
        };
        list.retain(|it| at(it).is_some_and(|at| at < THERE.len()));
        for binding in &mut list {
            let at = at(binding).expect("just looked at");
            binding.care_of = CareOfAddress::from(v6(THERE[at]));
            binding.home_link = false;
        }
        Event::Bind(ours, home, list)
    });
    let say = (0..4usize, 0..6usize, saying(sticky))
        .prop_map(|(which, at, says)| Event::Say(which, at, Box::new(says)));
    let steers = move |bid: Option<u16>| bid.filter(|_| sticky).and_then(Bid::new);
    let steered = prop::sample::select(vec![None, Some(1), Some(2), Some(3)]);
    let waits = prop::sample::select(vec![1, 10, 30, 60, 300, 1000, 2000, 4000]);
    prop_oneof![
        6 => flow_key().prop_map(Event::Out),
        3 => received,
        3 => own.prop_map(Event::Own),
        3 => straight,
        3 => (0..3usize, 0..3usize).prop_map(|(w, b)| Event::StraightBack(w, b)),
        3 => hold,
        3 => bind,
        4 => (0..3usize).prop_map(Event::Back),
        3 => (prop::sample::select(DSCPS.to_vec()), 0..3u8)
            .prop_map(|(dscp, ingress)| Event::Again(dscp, Ingress(ingress))),
        1 => publish,
        1 => (0..4usize, 0..CARE_OF.len()).prop_map(|(w, by)| Event::Move(w, by)),
        4 => (0..4usize, 0..3usize, any::<bool>()).prop_map(|(w, b, a)| Event::Turn(w, b, a)),
        1 => (0..4usize).prop_map(Event::Remove),
        1 => (0..4usize).prop_map(Event::Agree),
        4 => say,
        1 => (0..4usize, steered).prop_map(move |(w, bid)| Event::Steer(w, steers(bid))),
        2 => Just(Event::Reevaluate),
        6 => waits.prop_map(|ms| Event::Wait(Duration::from_millis(ms))),
    ]
}

pub fn homes(sticky: bool) -> impl Strategy<Value = Vec<Registration>> {
    let home = |which| home(which, sticky);
    (home(0), home(1), home(2), home(3)).prop_map(|(a, b, c, d)| vec![a, b, c, d])
}

// ---- one home, one flow, and everything that can happen to it ------------------------------------

/// What is said of the three links, mostly in a way that keeps flows.
fn close_saying() -> impl Strategy<Value = Says> {
    let order = || {
        let all: Vec<_> = [1, 2, 3].into_iter().filter_map(Bid::new).collect();
        prop::sample::subsequence(all, 1..=3).prop_shuffle()
    };
    let outcome = prop_oneof![
        8 => order().prop_map(Outcome::Candidates),
        1 => (order(), 2..4u8).prop_map(|(links, copies)| Outcome::Copies { links, copies }),
        2 => order().prop_map(|links| Outcome::Breakout { links, translate: true }),
        1 => Just(Outcome::Unmet),
    ];
    let ripe = prop_oneof![
        1 => order(),
        2 => Just([1, 2, 3].into_iter().filter_map(Bid::new).collect()),
    ];
    (saying(true), outcome, ripe).prop_map(|(says, outcome, ripe)| Says {
        outcome,
        ripe,
        sticky: Sticky { lasts: Duration::from_secs(600), ..says.sticky },
        ..says
    })
}

/// A home with three links and a few rules for everything.
pub fn close_home() -> impl Strategy<Value = Registration> {
    let rules = prop::collection::vec((close_saying(), 0..4u64), 1..4).prop_map(|rules| {
        let rules = (0..).zip(rules).map(|(id, (says, identity))| {
            let (head, _) = rule(id, Vec::new(), Outcome::Unmet, Otherwise::NextRule);
            (RuleHead { identity, ..head }, says)
        });
        Arc::new(Effective::new(rules))
    });
    let links = prop::collection::vec(bindings(), 3..=3);
    (home(0, true), rules, links).prop_map(|(home, policy, drawn)| {
        let drawn: Vec<_> = drawn.into_iter().flatten().collect();
        let bindings = (1..=3u16).map(|number| {
            let state = drawn.get(usize::from(number)).cloned();
            let mut binding = state.unwrap_or_else(|| Binding {
                bid: None,
                priority: 1,
                care_of: CareOfAddress::from(v6(CARE_OF[0])),
                path: PathId(0),
                usable: true,
                attached: true,
                metered: number == 2,
                home_link: false,
                mtu: 1500,
                rtt: Some(Duration::from_millis(if number == 2 { 100 } else { 20 })),
                jitter: None,
            });
            binding.bid = Bid::new(number);
            binding.care_of = CareOfAddress::from(v6(CARE_OF[usize::from(number)]));
            binding.path = PathId(number);
            binding
        });
        Registration { bindings: bindings.collect(), policy, ..home }
    })
}

/// What happens to the flow of that home.
pub fn close_event() -> impl Strategy<Value = Event> {
    let steered = prop::sample::select(vec![None, Some(1), Some(2), Some(3)]);
    let waits = prop::sample::select(vec![1, 10, 30, 45, 60, 300, 1000, 1900]);
    prop_oneof![
        4 => (0..3usize, any::<bool>()).prop_map(|(link, a)| Event::Turn(0, link, a)),
        4 => (0..3usize, close_saying())
            .prop_map(|(at, says)| Event::Say(0, at, Box::new(says))),
        1 => close_home().prop_map(|home| Event::Publish(0, home)),
        2 => steered.prop_map(|bid| Event::Steer(0, bid.and_then(Bid::new))),
        1 => Just(Event::Reevaluate),
        10 => waits.prop_map(|ms| Event::Wait(Duration::from_millis(ms))),
    ]
}
