//! The invariant: no packet ever takes a path that a direct reading of the rules and the bindings
//! would not give it.
//!
//! The direct reading is [`Reader`]: plain lists, plain loops, no index, no memory of decisions,
//! written without the code it judges. Random worlds of two mobiles' homes and two served homes,
//! with prefixes inside each other's prefixes, are changed at random between random packets in
//! both directions; the engine, its flow table in front, must do exactly what the reader says.

mod support;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};
use mtun_dataplane::{
    Binding, Decision, DropReason, Encapsulation, Memory, PathId, Registration, Remembered,
    Settings, Snapshot, Verdict, decide,
};
use mtun_policy::{
    Bid, BlockReply, CareOfAddress, Effective, FlowKey, HomeAddress, HomeName, Ingress,
    MobileNetworkPrefix, Otherwise, Outcome, RuleHead, TrafficSelector,
};
use proptest::prelude::*;
use support::{Node, raw, rule, v6};

// ---- the direct reading ----------------------------------------------------------------------

/// What a direct reading gives.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    NotOurs,
    Hairpin,
    Nothing,
    Blocked,
    By { from: Ipv6Addr, to: Ipv6Addr, path: PathId, bid: Option<Bid> },
}

/// Homes as two plain lists: those of this node and those it serves.
#[derive(Clone, Debug, Default)]
struct Reader {
    own: Vec<Registration>,
    served: Vec<Registration>,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V6(address) => u128::from(address),
        IpAddr::V4(_) => panic!("no IPv4 in these worlds"),
    }
}

fn inside(address: u128, net: Ipv6Net) -> bool {
    let shift = 128 - u32::from(net.prefix_len());
    shift == 128 || address >> shift == u128::from(net.addr()) >> shift
}

fn owner(list: &[Registration], address: IpAddr) -> Option<&Registration> {
    let address = number(address);
    let mut best: Option<(u8, &Registration)> = None;
    for registration in list {
        let mut lengths = Vec::new();
        if u128::from(registration.home_address.0) == address {
            lengths.push(129);
        }
        for prefix in &registration.prefixes {
            if inside(address, prefix.net()) {
                lengths.push(prefix.net().prefix_len());
            }
        }
        for length in lengths {
            if best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, registration));
            }
        }
    }
    best.map(|(_, registration)| registration)
}

fn selected(selector: &TrafficSelector, key: &FlowKey) -> bool {
    let any_net = |nets: &[IpNet], address| {
        nets.is_empty()
            || nets.iter().any(|net| match net {
                IpNet::V6(net) => inside(number(address), *net),
                IpNet::V4(_) => false,
            })
    };
    let any_port = |ranges: &[std::ops::RangeInclusive<u16>], port: Option<u16>| match port {
        _ if ranges.is_empty() => true,
        Some(port) => ranges.iter().any(|range| *range.start() <= port && port <= *range.end()),
        None => false,
    };
    any_net(&selector.sources, key.source)
        && any_net(&selector.destinations, key.destination)
        && (selector.protocols.is_empty() || selector.protocols.contains(&key.protocol))
        && any_port(&selector.source_ports, key.source_port)
        && any_port(&selector.destination_ports, key.destination_port)
        && (selector.dscps.is_empty() || selector.dscps.contains(&key.dscp))
        && (selector.ingresses.is_empty() || selector.ingresses.contains(&key.ingress))
}

fn preferred(registration: &Registration) -> Option<&Binding> {
    let mut best: Option<&Binding> = None;
    for binding in &registration.bindings {
        let order = |b: &Binding| (b.priority, b.bid.map_or(0, Bid::get));
        if binding.usable && best.is_none_or(|best| order(binding) < order(best)) {
            best = Some(binding);
        }
    }
    best
}

fn first_of<'r>(registration: &'r Registration, bids: &[Bid]) -> Option<&'r Binding> {
    for bid in bids {
        for binding in &registration.bindings {
            if binding.usable && binding.bid == Some(*bid) {
                return Some(binding);
            }
        }
    }
    None
}

impl Reader {
    fn read(&self, key: &FlowKey, verified: Option<Bid>) -> Fate {
        let (near, registration, other) = match owner(&self.own, key.source) {
            Some(own) => (true, own, owner(&self.own, key.destination)),
            None => match owner(&self.served, key.destination) {
                Some(served) => (false, served, owner(&self.served, key.source)),
                None => return Fate::NotOurs,
            },
        };
        if other.is_some_and(|other| other.home_address == registration.home_address) {
            return Fate::Hairpin;
        }
        let by = |binding: Option<&Binding>| {
            let Some(binding) = binding else { return Fate::Nothing };
            let IpAddr::V6(care_of) = binding.care_of.0 else { panic!("no IPv4 here") };
            let (from, to) = match near {
                true => (care_of, registration.peer),
                false => (registration.peer, care_of),
            };
            Fate::By { from, to, path: binding.path, bid: binding.bid }
        };
        if !near && key.protocol == 135 {
            return by(preferred(registration));
        }
        let mut matched = false;
        for rule in registration.policy.rules() {
            let (head, says) = (rule.head, rule.says);
            let taken_out = head.exclude.iter().any(|selector| selected(selector, key));
            let meant = head.selectors.is_empty()
                || head.selectors.iter().any(|selector| selected(selector, key));
            if taken_out || !meant {
                continue;
            }
            matched = true;
            let chosen = match &says.outcome {
                Outcome::Block(_) => return Fate::Blocked,
                Outcome::Candidates(bids) => first_of(registration, bids),
                Outcome::Reflect => verified.and_then(|bid| first_of(registration, &[bid])),
                other => panic!("no {other:?} in these worlds"),
            };
            if chosen.is_some() {
                return by(chosen);
            }
            match &says.otherwise {
                Otherwise::NextRule => {}
                Otherwise::Then(Outcome::Block(_)) => return Fate::Blocked,
                Otherwise::Any => return by(preferred(registration)),
                Otherwise::Then(Outcome::Candidates(bids)) => {
                    return by(first_of(registration, bids));
                }
                Otherwise::Then(other) => panic!("no {other:?} in these worlds"),
            }
        }
        if matched { Fate::Nothing } else { by(preferred(registration)) }
    }

    /// The binding that admits, or `None`.
    fn admits(&self, outer: (Ipv6Addr, Ipv6Addr), inner: &FlowKey) -> Option<Option<Bid>> {
        let care_of = |registration: &Registration, address: Ipv6Addr| {
            let here = registration.bindings.iter().find(|b| b.care_of.0 == IpAddr::V6(address));
            here.map(|binding| binding.bid)
        };
        let differ = |a: &Registration, b: Option<&Registration>| {
            b.is_none_or(|b| a.home_address != b.home_address)
        };
        if let Some(mobile) = owner(&self.served, inner.source)
            && outer.1 == mobile.peer
            && differ(mobile, owner(&self.served, inner.destination))
            && let Some(bid) = care_of(mobile, outer.0)
        {
            return Some(bid);
        }
        let home = owner(&self.own, inner.destination)?;
        let from_agent = outer.0 == home.peer && differ(home, owner(&self.own, inner.source));
        if from_agent { care_of(home, outer.1) } else { None }
    }
}

// ---- worlds ----------------------------------------------------------------------------------

/// Home address, prefixes it may have, agent. Prefixes nest across homes; one home address lies
/// inside another's prefix.
const HOMES: [(&str, [&str; 2], &str); 4] = [
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

const CARE_OF: [&str; 6] = [
    "2001:db8:1::7",
    "2001:db8:2::7",
    "2001:db8:3::7",
    "2001:db8:1::8",
    "2001:db8:2::8",
    "2001:db8:3::8",
];

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
const DSCPS: [u8; 3] = [0, 8, 46];

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

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => bids().prop_map(Outcome::Candidates),
        2 => Just(Outcome::Reflect),
        1 => Just(Outcome::Block(BlockReply::Silent)),
    ]
}

fn otherwise() -> impl Strategy<Value = Otherwise> {
    prop_oneof![
        3 => Just(Otherwise::NextRule),
        2 => Just(Otherwise::Any),
        1 => bids().prop_map(|bids| Otherwise::Then(Outcome::Candidates(bids))),
        1 => Just(Otherwise::Then(Outcome::Block(BlockReply::Silent))),
    ]
}

fn effective() -> impl Strategy<Value = Arc<Effective>> {
    let one = (
        prop::collection::vec(selector(), 0..3),
        prop::collection::vec(selector(), 0..2),
        outcome(),
        otherwise(),
    );
    prop::collection::vec(one, 0..6).prop_map(|rules| {
        let rules = (0..).zip(rules).map(|(id, (selectors, exclude, outcome, otherwise))| {
            let (head, says) = rule(id, selectors, outcome, otherwise);
            (RuleHead { exclude, ..head }, says)
        });
        Arc::new(Effective::new(rules))
    })
}

/// Bindings of distinct BIDs and care-of addresses, or a single one without BID.
fn bindings() -> impl Strategy<Value = Vec<Binding>> {
    let one = |bid: Option<u16>, care_of: &str, (priority, usable): (u8, bool)| Binding {
        bid: bid.and_then(Bid::new),
        priority,
        care_of: CareOfAddress::from(v6(care_of)),
        path: PathId(bid.unwrap_or(9)),
        usable,
        attached: usable,
        metered: false,
        mtu: 1500,
        rtt: None,
        jitter: None,
    };
    let state = || (0..3u8, prop::bool::weighted(0.7));
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

fn home(which: usize) -> impl Strategy<Value = Registration> {
    let (home_address, prefixes, peer) = HOMES[which];
    let prefixes: Vec<_> = prefixes
        .iter()
        .map(|net| MobileNetworkPrefix::new(net.parse().unwrap()).unwrap())
        .collect();
    (bindings(), prop::sample::subsequence(prefixes, 0..=2), effective()).prop_map(
        move |(bindings, prefixes, policy)| {
            let (name, home_address) = (HomeName::new("home"), HomeAddress(v6(home_address)));
            Registration::new(name, home_address, prefixes, v6(peer), bindings, policy)
        },
    )
}

/// The first two homes are this node's, the others are served by it.
fn is_own(which: usize) -> bool {
    which < 2
}

fn flow_key() -> impl Strategy<Value = FlowKey> {
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

fn packet_of(key: &FlowKey) -> Vec<u8> {
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
enum Event {
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
    /// New care-of addresses, everything else as it was.
    Move(usize, usize),
    /// One binding's usability turns.
    Turn(usize, usize),
    Remove(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let publish = (0..4usize).prop_flat_map(|w| home(w).prop_map(move |r| Event::Publish(w, r)));
    let received = (0..CARE_OF.len(), 0..HOMES.len(), any::<bool>(), flow_key()).prop_map(
        |(care_of, agent, from_agent, key)| Event::In { care_of, agent, from_agent, key },
    );
    prop_oneof![
        6 => flow_key().prop_map(Event::Out),
        3 => received,
        4 => (0..3usize).prop_map(Event::Back),
        3 => (prop::sample::select(DSCPS.to_vec()), 0..3u8)
            .prop_map(|(dscp, ingress)| Event::Again(dscp, Ingress(ingress))),
        1 => publish,
        1 => (0..4usize, 0..CARE_OF.len()).prop_map(|(w, by)| Event::Move(w, by)),
        1 => (0..4usize, 0..3usize).prop_map(|(w, which)| Event::Turn(w, which)),
        1 => (0..4usize).prop_map(Event::Remove),
    ]
}

// ---- the two side by side --------------------------------------------------------------------

type Flow = (IpAddr, IpAddr, u8, Option<u16>, Option<u16>);

fn flow_of(key: &FlowKey) -> Flow {
    (key.source, key.destination, key.protocol, key.source_port, key.destination_port)
}

struct Both {
    node: Node,
    reader: Reader,
    /// Per flow as it leaves here, where its last packet came in.
    verified: HashMap<Flow, Option<Bid>>,
    /// Whether the flow table may have forgotten.
    forgetful: bool,
    last_out: Option<FlowKey>,
}

impl Both {
    fn new(homes: Vec<Registration>, flows: usize, forgetful: bool) -> Self {
        let mut own: Vec<_> = CARE_OF.iter().map(|a| v6(a)).collect();
        own.extend(HOMES.iter().map(|home| v6(home.2)));
        let settings = Settings { flows, ..Settings::default() };
        let snapshot = Snapshot { own, ..Snapshot::default() };
        let mut both = Self {
            node: Node::with(snapshot, settings),
            reader: Reader::default(),
            verified: HashMap::new(),
            forgetful,
            last_out: None,
        };
        homes.into_iter().enumerate().for_each(|(which, home)| both.publish(which, home));
        both
    }

    fn list(&mut self, which: usize) -> &mut Vec<Registration> {
        if is_own(which) { &mut self.reader.own } else { &mut self.reader.served }
    }

    fn publish(&mut self, which: usize, home: Registration) {
        self.remove(which);
        self.list(which).push(home.clone());
        let mut next = (*self.node.snapshot.load_full()).clone();
        let table = if is_own(which) { &mut next.updates } else { &mut next.cache };
        *table = table.with(home);
        next.generation += 1;
        self.node.snapshot.store(next.into());
    }

    /// From the reader's list only; `publish` replaces in the tables.
    fn remove(&mut self, which: usize) {
        let home_address = HomeAddress(v6(HOMES[which].0));
        self.list(which).retain(|home| home.home_address != home_address);
    }

    fn change(&mut self, which: usize, change: impl FnOnce(&mut Registration)) {
        let home_address = HomeAddress(v6(HOMES[which].0));
        let found = self.list(which).iter().find(|home| home.home_address == home_address);
        if let Some(mut home) = found.cloned() {
            change(&mut home);
            self.publish(which, home);
        }
    }

    fn out(&mut self, key: &FlowKey) -> Result<(), TestCaseError> {
        let packet = packet_of(key);
        let node = &mut self.node;
        let verdict = node.engine.outbound(key.ingress, &packet, support::NOW, &mut node.out);
        let known = self.verified.get(&flow_of(key)).copied().flatten();
        let wants = match self.forgetful {
            false => vec![self.reader.read(key, known)],
            true => vec![self.reader.read(key, known), self.reader.read(key, None)],
        };
        let got = match verdict {
            Verdict::Send { path } => {
                prop_assert_eq!(&self.node.out[40..], &packet[..]);
                let outer = etherparse::Ipv6Header::from_slice(&self.node.out).unwrap().0;
                let (from, to) = (outer.source_addr(), outer.destination_addr());
                let flows = self.node.engine.flows();
                let flow = flows.iter().find(|flow| flow_of(&flow.key) == flow_of(key)).unwrap();
                Fate::By { from, to, path, bid: flow.bid_out }
            }
            Verdict::Drop(reason) | Verdict::Answer(reason) => match reason {
                DropReason::NotOurs => Fate::NotOurs,
                DropReason::Hairpin => Fate::Hairpin,
                DropReason::NoUsableBinding => Fate::Nothing,
                DropReason::Blocked => Fate::Blocked,
                other => return Err(TestCaseError::fail(format!("{other} for {key:?}"))),
            },
            other => return Err(TestCaseError::fail(format!("{other:?} for {key:?}"))),
        };
        prop_assert!(wants.contains(&got), "{:?} instead of {:?} for {:?}", got, wants, key);
        if got != Fate::NotOurs {
            self.last_out = Some(*key);
        }
        Ok(())
    }

    fn inward(&mut self, outer: (Ipv6Addr, Ipv6Addr), key: &FlowKey) -> Result<(), TestCaseError> {
        let key = FlowKey { ingress: Ingress::OTHER, ..*key };
        let packet = packet_of(&key);
        let verdict = self.node.inbound(&raw(outer.0, outer.1, 41, &packet));
        let admitted = self.reader.admits(outer, &key);
        match verdict {
            Verdict::Deliver => {
                prop_assert_eq!(&self.node.out, &packet);
                let Some(bid) = admitted else {
                    return Err(TestCaseError::fail(format!("{outer:?} {key:?} was let in")));
                };
                self.verified.insert(flow_of(&key.mirrored()), bid);
            }
            Verdict::Signalling { tunnelled: true, .. } => {
                prop_assert!(admitted.is_some());
                prop_assert_eq!(key.protocol, 135);
            }
            Verdict::Drop(_) => prop_assert_eq!(admitted, None, "{:?} {:?}", outer, key),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Out(key) => self.out(&key)?,
            Event::In { care_of, agent, from_agent, key } => {
                let ends = (v6(CARE_OF[care_of]), v6(HOMES[agent].2));
                let ends = if from_agent { (ends.1, ends.0) } else { ends };
                self.inward(ends, &key)?;
            }
            Event::Again(dscp, ingress) => {
                if let Some(key) = self.last_out {
                    self.out(&FlowKey { dscp, ingress, ..key })?;
                }
            }
            Event::Back(which) => {
                let Some(key) = self.last_out else { return Ok(()) };
                let near = owner(&self.reader.own, key.source);
                let home = near.or_else(|| owner(&self.reader.served, key.destination));
                let Some((home, binding)) =
                    home.and_then(|home| Some((home, home.bindings.get(which)?)))
                else {
                    return Ok(());
                };
                let IpAddr::V6(care_of) = binding.care_of.0 else { panic!("no IPv4 here") };
                let ends = match near {
                    Some(_) => (home.peer, care_of),
                    None => (care_of, home.peer),
                };
                self.inward(ends, &key.mirrored())?;
                self.out(&key)?;
            }
            Event::Publish(which, home) => self.publish(which, home),
            Event::Move(which, by) => self.change(which, |home| {
                for binding in &mut home.bindings {
                    let at = CARE_OF.iter().position(|a| IpAddr::V6(v6(a)) == binding.care_of.0);
                    let next = (at.expect("from the list") + by) % CARE_OF.len();
                    binding.care_of = CareOfAddress::from(v6(CARE_OF[next]));
                }
            }),
            Event::Turn(which, binding) => self.change(which, |home| {
                if let Some(binding) = home.bindings.get_mut(binding) {
                    binding.usable = !binding.usable;
                }
            }),
            Event::Remove(which) => {
                self.remove(which);
                let mut next = (*self.node.snapshot.load_full()).clone();
                let home_address = HomeAddress(v6(HOMES[which].0));
                let table = if is_own(which) { &mut next.updates } else { &mut next.cache };
                *table = table.without(home_address);
                self.node.snapshot.store(next.into());
            }
        }
        // The packet most likely to be carried by a memory that is no longer true.
        if let Some(key) = self.last_out {
            self.out(&key)?;
        }
        Ok(())
    }
}

fn homes() -> impl Strategy<Value = Vec<Registration>> {
    (home(0), home(1), home(2), home(3)).prop_map(|(a, b, c, d)| vec![a, b, c, d])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// The decision alone, with any memory of the other direction.
    #[test]
    fn decide_is_the_direct_reading(
        homes in homes(),
        keys in prop::collection::vec(flow_key(), 40),
        verified in prop::option::of(prop::sample::select(vec![1u16, 2, 3, 4, 65535])),
    ) {
        let both = Both::new(homes, 16, false);
        let snapshot = both.node.snapshot.load();
        let last_verified = verified.and_then(Bid::new);
        let memory = Remembered { last_verified, ..Remembered::default() };
        for key in keys {
            let got = match decide(&snapshot, &key, support::NOW, Memory::of(&memory)) {
                Decision::Pass => Fate::NotOurs,
                Decision::Drop(DropReason::Hairpin) => Fate::Hairpin,
                Decision::Drop(_) => Fate::Nothing,
                Decision::Refuse { .. } => Fate::Blocked,
                other @ (Decision::Replicate(_) | Decision::Breakout(_)) => panic!("{other:?}"),
                Decision::Forward(route) => {
                    let Encapsulation::Tunnel { source, destination } = route.encapsulation;
                    Fate::By {
                        from: source,
                        to: destination,
                        path: route.binding.path,
                        bid: route.binding.bid,
                    }
                }
            };
            prop_assert_eq!(got, both.reader.read(&key, last_verified), "{:?}", key);
        }
    }

    /// The engine, through binding changes, policy changes and packets of both directions.
    #[test]
    fn the_engine_is_the_direct_reading(
        homes in homes(),
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut both = Both::new(homes, 65_536, false);
        for event in events {
            both.apply(event)?;
        }
    }

    /// A flow table far too small forgets, and never decides otherwise than without memory.
    #[test]
    fn a_forgetful_engine_is_the_direct_reading_too(
        homes in homes(),
        events in prop::collection::vec(event(), 1..120),
        noise in prop::collection::vec(flow_key(), 0..200),
    ) {
        let mut both = Both::new(homes, 1, true);
        let mut noise = noise.into_iter();
        for event in events {
            both.apply(event)?;
            for (port, key) in (1..).zip(noise.by_ref().take(4)) {
                both.out(&FlowKey { source_port: key.source_port.map(|p| p + port), ..key })?;
            }
        }
    }
}
