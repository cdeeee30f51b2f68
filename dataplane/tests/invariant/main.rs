//! The invariant: no packet ever takes a path that a direct reading of the rules, the bindings and
//! what keeps flows to their links would not give it; and no flow leaves a link that works without
//! a reason.
//!
//! The direct reading is [`reader`] for what a new flow would get and [`held`] for what one that is
//! known does. Random [`worlds`] are changed at random between random packets in both directions,
//! and time goes by; the engine, its flow table in front, must do exactly what the reading says and
//! give the reason it gives.

#[path = "../support/mod.rs"]
mod support;

mod held;
mod pairs;
mod reader;
mod straight;
mod worlds;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_dataplane::{
    CopyMark, Decision, DropReason, Encapsulation, Memory, PathId, Registration, Remembered, Route,
    Settings, Snapshot, Verdict, Way, decide,
};
use mtun_policy::{Bid, CareOfAddress, Effective, FailbackMode, FlowKey, HomeAddress, Ingress};
use proptest::prelude::*;

use held::{Heard, Held, Read};
use reader::{Fate, Reader, Wish, is_open, owner};
use straight::{Form, Sent};
use support::{Node, raw, v6};
use worlds::{
    CARE_OF, Event, HOMES, close_event, close_home, event, flow_key, homes, is_own, packet_of,
    steer,
};

type Flow = (IpAddr, IpAddr, u8, Option<u16>, Option<u16>);

fn flow_of(key: &FlowKey) -> Flow {
    (key.source, key.destination, key.protocol, key.source_port, key.destination_port)
}

/// Packets that come by two links are further apart than what is under way by one of them when a flow
/// has moved to the other (`way_in`): each says by which the flow comes now.
const APART: Duration = Duration::from_millis(51);

struct Both {
    node: Node,
    reader: Reader,
    now: Duration,
    /// Per flow as it leaves here, where its last packet came in.
    verified: HashMap<Flow, Heard>,
    /// Per flow, what it does.
    held: HashMap<Flow, Held>,
    /// Moves so far.
    moved: usize,
    /// Whether something was published since flows without packets were decided.
    published: bool,
    /// Whether the flow table may have forgotten.
    forgetful: bool,
    last_out: Option<FlowKey>,
    /// By home, direction and stream: the last place that a copy had.
    places: HashMap<(HomeAddress, bool, u16), (u32, u32)>,
}

impl Both {
    fn new(homes: Vec<Registration>, flows: usize, forgetful: bool) -> Self {
        let mut own: Vec<_> = CARE_OF.iter().map(|a| v6(a)).collect();
        own.extend(HOMES.iter().map(|home| v6(home.2)));
        let settings = Settings { flows, ..Settings::default() };
        let also = (Ingress(2), HomeAddress(v6(HOMES[0].0)));
        let snapshot = Snapshot { own, also: BTreeMap::from([also]), ..Snapshot::default() };
        let mut both = Self {
            node: Node::with(snapshot, settings),
            reader: Reader { also: vec![also], ..Reader::default() },
            now: support::NOW,
            verified: HashMap::new(),
            held: HashMap::new(),
            moved: 0,
            published: false,
            forgetful,
            last_out: None,
            places: HashMap::new(),
        };
        homes.into_iter().enumerate().for_each(|(which, home)| both.publish(which, home));
        both
    }

    fn list(&mut self, which: usize) -> &mut Vec<Registration> {
        if is_own(which) { &mut self.reader.own } else { &mut self.reader.served }
    }

    fn publish(&mut self, which: usize, mut home: Registration) {
        self.remove(which);
        home.changed_at = self.now;
        let home_address = home.home_address;
        let mut next = (*self.node.snapshot.load_full()).clone();
        let table = if is_own(which) { &mut next.updates } else { &mut next.cache };
        *table = table.with(home);
        // With its stamps: when it changed, and of which version its rules are.
        let stamped = table.get(home_address).expect("just put there").clone();
        self.list(which).push(stamped);
        next.generation += 1;
        self.node.snapshot.store(next.into());
        self.published = true;
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

    /// What the direct reading says of a packet: its fate, what its flow then does, and why it
    /// left its link.
    fn read(&self, key: &FlowKey, heard: Option<Heard>) -> (Fate, Option<Read>) {
        let wish = match self.reader.wish(key, heard.and_then(|heard| heard.0)) {
            Ok(wish) => wish,
            Err(fate) => return (fate, None),
        };
        // Signalling of others goes one way.
        let signals = !wish.near && key.protocol == 135;
        let before = self.held.get(&flow_of(key)).filter(|_| !signals);
        let read = held::read(wish, before, key, heard, self.now);
        assert!(is_open(wish.home, read.held.way, read.held.link), "{read:?}");
        let stays = (read.held.way, read.held.link) != (wish.way, wish.link);
        if stays && self.now >= wish.home.changed_at + Duration::from_secs(2) {
            licensed(&wish, &read.held);
        }
        let Held { way, link, .. } = read.held;
        (wish.leaves(&self.reader, key, read.held.rule(), way, link), Some(read))
    }

    fn got(&self, verdict: Verdict, packet: &[u8], key: &FlowKey) -> Result<Fate, TestCaseError> {
        let send = |path, outer: &[u8]| {
            let sent = straight::sent(path, outer, packet)?;
            // A home address leaves in the header by its home link, and nowhere else.
            if let Some(home) = owner(&self.reader.own, sent.source.into()) {
                let link = home.bindings.iter().find(|binding| binding.path == path);
                prop_assert!(link.is_some_and(|link| link.home_link), "{:?} leaks", sent);
            }
            Ok(sent)
        };
        let bid = || {
            let flows = self.node.engine.flows();
            flows.iter().find(|flow| flow_of(&flow.key) == flow_of(key)).unwrap().bid_out
        };
        Ok(match verdict {
            Verdict::Send { path } => {
                Fate::By { sends: vec![send(path, &self.node.out)?], bid: bid() }
            }
            Verdict::Replicate(sends) => {
                let parts = sends.parts(&self.node.out);
                let sends = parts.map(|(path, part)| send(path, part)).collect::<Result<_, _>>()?;
                Fate::By { sends, bid: bid() }
            }
            Verdict::Breakout { path, translate } => {
                prop_assert_eq!(&self.node.out, packet);
                Fate::Out { path, translate, bid: bid() }
            }
            Verdict::Drop(reason) | Verdict::Answer(reason) => match reason {
                DropReason::NotOurs => Fate::NotOurs,
                DropReason::Blocked => Fate::Blocked,
                other => Fate::Dropped(other),
            },
            other => return Err(TestCaseError::fail(format!("{other:?} for {key:?}"))),
        })
    }

    fn out(&mut self, key: &FlowKey) -> Result<(), TestCaseError> {
        let packet = packet_of(key);
        let known = self.verified.get(&flow_of(key)).copied();
        let (want, read) = self.read(key, known);
        let (now, node) = (self.now, &mut self.node);
        let verdict = node.engine.outbound(key.ingress, &packet, now, &mut node.out);
        let got = self.got(verdict, &packet, key)?;
        self.numbered(verdict, key)?;
        if self.forgetful {
            self.forgiving(key, known, &got, want, read)?;
        } else {
            prop_assert_eq!(&got, &want, "{:?}", key);
            if let Some(read) = read {
                self.note(key, read)?;
            }
        }
        if got != Fate::NotOurs {
            self.last_out = Some(*key);
        }
        Ok(())
    }

    /// All copies of a packet have the same place, the next one of their stream.
    fn numbered(&mut self, verdict: Verdict, key: &FlowKey) -> Result<(), TestCaseError> {
        let outers: Vec<&[u8]> = match &verdict {
            Verdict::Send { .. } => vec![&self.node.out],
            Verdict::Replicate(sends) => sends.parts(&self.node.out).map(|part| part.1).collect(),
            _ => return Ok(()),
        };
        let marks: Vec<_> = outers.into_iter().filter_map(straight::mark).collect();
        let Some(&(stream, epoch, number)) = marks.first() else { return Ok(()) };
        prop_assert!(marks.iter().all(|mark| *mark == marks[0]), "{:?}", marks);
        let near = owner(&self.reader.own, key.source);
        let home = near.or_else(|| owner(&self.reader.served, key.destination));
        let whose = (home.expect("a home's packet").home_address, near.is_some(), stream);
        match self.places.insert(whose, (epoch, number)) {
            Some(before) => prop_assert_eq!((epoch, number), (before.0, before.1 + 1), "a gap"),
            None => prop_assert_eq!(number, 0, "the first"),
        }
        Ok(())
    }

    /// What was forgotten is decided as for a new flow, in any mixture.
    fn forgiving(
        &mut self,
        key: &FlowKey,
        known: Option<Heard>,
        got: &Fate,
        want: Fate,
        read: Option<Read>,
    ) -> Result<(), TestCaseError> {
        if *got == want {
            if let Some(read) = read {
                self.held.insert(flow_of(key), read.held);
            }
            return Ok(());
        }
        self.held.remove(&flow_of(key));
        let anew: Vec<_> = [known, None].map(|heard| self.read(key, heard)).into();
        let found = anew.iter().find(|(fate, _)| fate == got);
        prop_assert!(found.is_some(), "{:?} instead of {:?} for {:?}", got, anew, key);
        if let Some((_, Some(read))) = found {
            self.held.insert(flow_of(key), read.held.clone());
        }
        Ok(())
    }

    /// Notes what a flow does now; the engine must have told why it left its link.
    fn note(&mut self, key: &FlowKey, read: Read) -> Result<(), TestCaseError> {
        let outside = |held: &Held| matches!(held.way, Way::Breakout { .. });
        let before = self.held.insert(flow_of(key), read.held.clone());
        let went =
            |before: &Held| before.link != read.held.link || outside(before) != outside(&read.held);
        let left = before.as_ref().filter(|before| went(before)).zip(read.left);
        let Some((before, reason)) = left else { return Ok(()) };
        self.moved += 1;
        let moves = self.node.engine.moves();
        let told = moves.iter().rev().find(|it| flow_of(&it.key) == flow_of(key));
        let Some(told) = told else {
            return Err(TestCaseError::fail(format!(
                "{key:?} left for {reason} and nobody says so"
            )));
        };
        prop_assert_eq!((told.from, told.to), (before.link, read.held.link), "{:?}", key);
        prop_assert_eq!((told.reason, told.at), (reason, self.now), "{:?}", key);
        Ok(())
    }

    /// Flows without packets, after a publication.
    fn reevaluate(&mut self) -> Result<(), TestCaseError> {
        if !std::mem::take(&mut self.published) || self.forgetful {
            return Ok(());
        }
        while self.node.engine.reevaluate(self.now) == Some(self.now) {}
        for flow in self.held.keys().copied().collect::<Vec<_>>() {
            let Held { key, seen, sent, .. } = self.held[&flow];
            let known = self.verified.get(&flow).copied();
            if let (_, Some(mut read)) = self.read(&key, known) {
                // It is as silent as it was.
                (read.held.seen, read.held.sent) = (seen, sent);
                self.note(&key, read)?;
            }
        }
        Ok(())
    }

    fn inward(&mut self, outer: (Ipv6Addr, Ipv6Addr), key: &FlowKey) -> Result<(), TestCaseError> {
        let key = FlowKey { ingress: Ingress::OTHER, ..*key };
        let packet = packet_of(&key);
        self.now += APART;
        let outside = raw(outer.0, outer.1, 41, &packet);
        let (now, node) = (self.now, &mut self.node);
        let verdict = node.engine.inbound(PathId(1), &outside, now, &mut node.out);
        let admitted = self.reader.admits(outer, &key);
        match verdict {
            Verdict::Deliver => {
                prop_assert_eq!(&self.node.out, &packet);
                let Some(bid) = admitted else {
                    return Err(TestCaseError::fail(format!("{outer:?} {key:?} was let in")));
                };
                let flow = flow_of(&key.mirrored());
                self.verified.insert(flow, (bid, now));
                if let Some(held) = self.held.get_mut(&flow) {
                    held.seen = now;
                }
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
            Event::Own(key) => self.out(&key)?,
            Event::Straight { source, to, option, route, key } => {
                let ends = (v6(source), v6(to));
                self.inward_straight(ends, option.map(v6), route.map(v6), &key)?;
            }
            Event::StraightBack(which, other) => self.straight_back(which, other)?,
            Event::Hold(home, peer, bindings) => self.hold(home, peer, &bindings),
            Event::Bind(ours, home, bindings) => self.bind(ours, home, bindings),
            Event::Publish(which, home) => self.publish(which, home),
            Event::Move(which, by) => self.change(which, |home| {
                for binding in &mut home.bindings {
                    let at = CARE_OF.iter().position(|a| IpAddr::V6(v6(a)) == binding.care_of.0);
                    let next = (at.expect("from the list") + by) % CARE_OF.len();
                    binding.care_of = CareOfAddress::from(v6(CARE_OF[next]));
                }
            }),
            Event::Agree(which) => self.change(which, |home| {
                home.copies = match home.copies {
                    CopyMark::Off => CopyMark::On,
                    CopyMark::On => CopyMark::Off,
                };
            }),
            Event::Turn(which, binding, attached) => self.change(which, |home| {
                if let Some(binding) = home.bindings.get_mut(binding) {
                    match attached {
                        true => binding.attached = !binding.attached,
                        false => binding.usable = !binding.usable,
                    }
                }
            }),
            Event::Say(which, at, says) => self.change(which, |home| {
                let mut policy = Effective::clone(&home.policy);
                if !policy.says.is_empty() {
                    let at = at % policy.says.len();
                    policy.says[at] = *says;
                    home.policy = policy.into();
                }
            }),
            Event::Steer(which, bid) => self.change(which, |home| {
                let overrides = bid.map(steer).into_iter().collect();
                home.policy = Effective { overrides, ..Effective::clone(&home.policy) }.into();
            }),
            Event::Wait(time) => self.now += time,
            Event::Reevaluate => self.reevaluate()?,
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

/// What lets a flow stay on a link that is not its rule's first choice when all waiting is over.
fn licensed(wish: &Wish<'_>, held: &Held) {
    if held.way == (Way::Breakout { translate: true }) {
        return;
    }
    let (_, says) = wish.rule.expect("without a rule nothing is kept");
    let metered = wish.home.bindings.iter().any(|it| it.bid == held.link && it.metered);
    let patient = matches!(says.failback, FailbackMode::New | FailbackMode::Never) && !metered;
    let unripe = wish.link.is_none_or(|bid| !says.ripe.contains(&bid));
    let full = held.link.is_some_and(|bid| says.settled.contains(&bid));
    assert!(patient || unripe || full, "{held:?} stays against {wish:?}");
}

fn fate(decision: &Decision<'_>, key: &FlowKey) -> Fate {
    let send = |route: &Route<'_>| {
        let path = route.binding.path;
        match route.encapsulation {
            Encapsulation::Tunnel { source, destination } => {
                let form = match decision {
                    Decision::Replicate(copies) if copies.mark() == CopyMark::On => Form::Marked,
                    _ => Form::Tunnel,
                };
                Sent { source, destination, path, form }
            }
            Encapsulation::Optimized { source, destination, home_address, routing_header } => {
                let form = Form::Straight { option: home_address, route: routing_header };
                Sent { source, destination, path, form }
            }
            Encapsulation::Plain => {
                let (IpAddr::V6(source), IpAddr::V6(destination)) = (key.source, key.destination)
                else {
                    panic!("no IPv4 here")
                };
                Sent { source, destination, path, form: Form::Plain }
            }
        }
    };
    match decision {
        Decision::Pass => Fate::NotOurs,
        Decision::Drop(reason) => Fate::Dropped(*reason),
        Decision::Refuse { .. } => Fate::Blocked,
        Decision::Forward(route) => Fate::By { sends: vec![send(route)], bid: route.binding.bid },
        Decision::Replicate(copies) => Fate::By {
            sends: copies.routes().map(|route| send(&route)).collect(),
            bid: copies.first.binding.bid,
        },
        Decision::Breakout(out) => {
            Fate::Out { path: out.binding.path, translate: out.translate, bid: out.binding.bid }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// The decision alone, with any memory of the other direction.
    #[test]
    fn decide_is_the_direct_reading(
        homes in homes(true),
        others in prop::collection::vec(event(true), 30),
        keys in prop::collection::vec(flow_key(), 40),
        verified in prop::option::of(prop::sample::select(vec![1u16, 2, 3, 4, 65535])),
    ) {
        let mut both = Both::new(homes, 16, false);
        let pairs = |event: &Event| matches!(event, Event::Hold(..) | Event::Bind(..));
        for event in others.into_iter().filter(pairs) {
            both.apply(event)?;
        }
        let snapshot = both.node.snapshot.load();
        let last_verified = verified.and_then(Bid::new);
        let memory = Remembered { last_verified, ..Remembered::default() };
        for key in keys {
            let got = fate(&decide(&snapshot, &key, support::NOW, Memory::of(&memory)), &key);
            let wish = both.reader.wish(&key, last_verified);
            let want = wish.map(|wish| wish.fate(&both.reader, &key));
            prop_assert_eq!(got, want.unwrap_or_else(|fate| fate), "{:?}", key);
        }
    }

    /// The engine, through changes of bindings, rules and what they say, through time and packets
    /// of both directions: every packet's way and every flow's reason to leave a link.
    #[test]
    fn the_engine_is_the_direct_reading(
        homes in homes(true),
        events in prop::collection::vec(event(true), 1..160),
    ) {
        let mut both = Both::new(homes, 65_536, false);
        for event in events {
            both.apply(event)?;
        }
        prop_assert_eq!(both.node.engine.moves().len(), both.moved, "no move without a reason");
    }

    /// One flow that is hardly ever silent, and everything that can happen to it.
    #[test]
    fn one_flow_keeps_its_link_or_has_a_reason(
        home in close_home(),
        events in prop::collection::vec(close_event(), 1..160),
    ) {
        let mut both = Both::new(vec![home], 1024, false);
        both.out(&support::key(HOMES[0].0, support::PEER, 17, Some((22, 80))))?;
        for event in events {
            both.apply(event)?;
        }
        prop_assert_eq!(both.node.engine.moves().len(), both.moved, "no move without a reason");
    }

    /// A flow table far too small forgets, and never decides otherwise than without memory.
    #[test]
    fn a_forgetful_engine_is_the_direct_reading_too(
        homes in homes(false),
        events in prop::collection::vec(event(false), 1..120),
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
