//! Random flow bindings, uplinks and agents over a link that loses, delays, reorders and doubles:
//! once the link is good again, the agent holds what its mobile believes it does. And what one
//! update may say: how much, how often.

#[path = "support/flow_bindings.rs"]
mod flow_bindings;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mtun_policy::{
    AddressRange, Bid, BinarySelector, FlowBinding, FlowId, FlowPriority, IpVersion,
};
use mtun_signaling::wire::{self, Message};
use mtun_signaling::{
    AgentConfig, AgentEvent, BindingCacheEntry, DigestState, FlowState, FlowSupport, HomeAgent,
    MobileEvent, MobileNode,
};
use proptest::prelude::*;
use scene::world::World;
use scene::{EPOCH, address, agent_config, at, bid, home, mobile_config};

const GOOD: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
enum Step {
    Up { bid: u16, address: u8 },
    Down { bid: u16 },
    Silent { bid: u16, silent: bool },
    Wait { milliseconds: u32 },
    Flows { flows: Vec<FlowBinding>, reflect: bool, copies: bool },
    AskAgain,
    RestartMobile { sequence: u16 },
    RestartAgent,
    ReconfigureAgent { flow_bindings: bool, bulk: bool, max_flows: u16, reflect: bool },
    Replay { index: usize, alter: Option<(usize, u8)> },
}

/// A flow binding of few possible numbers and places, so that they get into each other's way.
fn flow() -> impl Strategy<Value = FlowBinding> {
    let selector = prop_oneof![
        6 => flow_bindings::selector().prop_map(|it| BinarySelector { destination: None, ..it }),
        1 => flow_bindings::selector(),
        1 => Just(BinarySelector {
            destination: Some(AddressRange::V6(home().0..=home().0)),
            ..BinarySelector::everything(IpVersion::V6)
        }),
    ];
    (1..12_u16, 1..12_u16, selector, prop::collection::vec(1..4_u16, 1..4)).prop_map(
        |(id, priority, selector, mut bids)| {
            bids.sort_unstable();
            bids.dedup();
            FlowBinding {
                id: FlowId::new(id).expect("not zero"),
                priority: FlowPriority::new(priority).expect("not zero"),
                selector,
                bids: bids.into_iter().map(bid).collect(),
            }
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 1..4_u16;
    let step = prop_oneof![
        6 => (number.clone(), 1..4_u8).prop_map(|(bid, address)| Step::Up { bid, address }),
        3 => number.clone().prop_map(|bid| Step::Down { bid }),
        1 => (number, any::<bool>()).prop_map(|(bid, silent)| Step::Silent { bid, silent }),
        8 => (0..3_000_u32).prop_map(|milliseconds| Step::Wait { milliseconds }),
        2 => (0..100_000_u32).prop_map(|milliseconds| Step::Wait { milliseconds }),
        8 => (prop::collection::vec(flow(), 0..10), any::<(bool, bool)>())
            .prop_map(|(flows, (reflect, copies))| Step::Flows { flows, reflect, copies }),
        1 => Just(Step::AskAgain),
        1 => any::<u16>().prop_map(|sequence| Step::RestartMobile { sequence }),
        1 => Just(Step::RestartAgent),
        1 => (prop::bool::weighted(0.8), any::<bool>(), 1..12_u16, any::<bool>()).prop_map(
            |(flow_bindings, bulk, max_flows, reflect)| {
                Step::ReconfigureAgent { flow_bindings, bulk, max_flows, reflect }
            }
        ),
        2 => (any::<usize>(), prop::option::of((any::<usize>(), 1..=255_u8)))
            .prop_map(|(index, alter)| Step::Replay { index, alter }),
    ];
    prop::collection::vec(step, 1..50)
}

/// A small generator, so that the link's whims depend on the seed only.
struct Whims(u64);

impl Whims {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    /// Lost one time in four, else delayed by up to 300 ms, and now and then arriving twice.
    fn fate(&mut self) -> Vec<Duration> {
        let copies = match self.next(16) {
            0..4 => 0,
            4 => 2,
            _ => 1,
        };
        (0..copies).map(|_| Duration::from_millis(1 + self.next(300))).collect()
    }
}

struct Life {
    world: World,
    agent: AgentConfig,
    whims: Whims,
    uplinks: BTreeMap<Bid, u8>,
    wanted: Option<MobileEvent>,
}

fn up(number: u16, last: u8) -> MobileEvent {
    let care_of = address(&format!("2001:db8:{number}::{last}")).into();
    MobileEvent::CareOfUp { bid: bid(number), priority: number as u8, care_of }
}

impl Life {
    fn new(agent: AgentConfig, seed: u64) -> Self {
        let mobile = MobileNode::new(Self::mobile(1), at(Duration::ZERO, EPOCH));
        let world = World::new(Some(mobile), Some(HomeAgent::new(agent.clone())), EPOCH);
        Self { world, agent, whims: Whims(seed | 1), uplinks: BTreeMap::new(), wanted: None }
    }

    fn mobile(initial_sequence: u16) -> mtun_signaling::MobileConfig {
        let lifetime = Duration::from_secs(60);
        mtun_signaling::MobileConfig { lifetime, initial_sequence, ..mobile_config() }
    }

    fn tell(&mut self, event: MobileEvent) {
        let whims = &mut self.whims;
        self.world.mobile_event(event, &mut || whims.fate());
    }

    fn held(&self) -> Option<BindingCacheEntry> {
        self.world.agent.as_ref().and_then(|agent| agent.cache().get(home())).cloned()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Up { bid: number, address } => {
                self.uplinks.insert(bid(number), address);
                self.tell(up(number, address));
            }
            Step::Down { bid: number } => {
                self.uplinks.remove(&bid(number));
                self.tell(MobileEvent::CareOfDown { bid: bid(number) });
            }
            Step::Silent { bid: number, silent: true } => _ = self.world.silent.insert(bid(number)),
            Step::Silent { bid: number, .. } => _ = self.world.silent.remove(&bid(number)),
            Step::Wait { milliseconds } => {
                let (whims, end) = (&mut self.whims, Duration::from_millis(milliseconds.into()));
                self.world.run_until(self.world.now + end, &mut || whims.fate());
            }
            Step::Flows { flows, reflect, copies } => {
                let event = MobileEvent::FlowsChanged { flows, reflect, copies };
                self.wanted = Some(event.clone());
                self.tell(event);
            }
            Step::AskAgain => self.tell(MobileEvent::AskAgain),
            Step::RestartMobile { sequence } => {
                let now = self.world.mobile_now();
                self.world.mobile = Some(MobileNode::new(Self::mobile(sequence), now));
                for (bid, address) in self.uplinks.clone() {
                    self.tell(up(bid.get(), address));
                }
                if let Some(wanted) = self.wanted.clone() {
                    self.tell(wanted);
                }
            }
            Step::RestartAgent => {
                self.world.agent = Some(HomeAgent::new(self.agent.clone()));
                // It has forgotten which timestamps it accepted.
                self.world.delivered.clear();
            }
            Step::ReconfigureAgent { flow_bindings, bulk, max_flows, reflect } => {
                (self.agent.flow_bindings, self.agent.bulk) = (flow_bindings, bulk);
                self.agent.mobiles[0].max_flows = max_flows;
                self.agent.mobiles[0].reflect = reflect;
                let event = AgentEvent::Reconfigure(self.agent.clone());
                let whims = &mut self.whims;
                self.world.agent_event(event, &mut || whims.fate());
            }
            Step::Replay { index, alter } => self.replay(index, alter),
        }
    }

    /// What is replayed or altered changes nothing.
    fn replay(&mut self, index: usize, alter: Option<(usize, u8)>) {
        if self.world.delivered.is_empty() {
            return;
        }
        let index = index % self.world.delivered.len();
        let (envelope, mut message) = self.world.delivered[index].clone();
        if let Some((offset, bits)) = alter {
            let offset = offset % message.len();
            message[offset] ^= bits;
            let (source, destination) = (envelope.upper_source(), envelope.upper_destination());
            let sum = wire::checksum(source, destination, &message);
            message[4..6].copy_from_slice(&sum.to_be_bytes());
        }
        let before = self.held();
        let whims = &mut self.whims;
        let event = AgentEvent::Received { envelope, message };
        self.world.agent_event(event, &mut || whims.fate());
        assert_eq!(self.held(), before, "a replayed or altered update changed the cache");
    }

    fn settle(&mut self, seconds: u64) {
        let end = self.world.now + Duration::from_secs(seconds);
        self.world.run_until(end, &mut || vec![GOOD]);
    }

    /// The agent holds what the mobile believes it does, and as much as it may.
    fn agree(&self) {
        let list = self.world.mobile.as_ref().expect("a mobile").update_list();
        let entry = self.held().unwrap_or_else(|| BindingCacheEntry::new(home()));
        let registered: BTreeSet<Bid> = entry.bindings.iter().filter_map(|it| it.bid).collect();
        let mut held: BTreeMap<FlowId, &FlowBinding> =
            entry.flows.iter().map(|flow| (flow.id, flow)).collect();
        for flow in &list.flows {
            let at_agent = held.remove(&flow.binding.id);
            let wish = &flow.binding;
            let usable = wish.bids.iter().any(|bid| registered.contains(bid));
            match flow.state {
                FlowState::Held => {
                    let got = at_agent.unwrap_or_else(|| panic!("{wish:?} is not held"));
                    assert_eq!((got.priority, &got.selector), (wish.priority, &wish.selector));
                    let some = wish.bids.iter().filter(|bid| registered.contains(bid));
                    let told: Vec<Bid> = some.copied().collect();
                    assert!(got.bids == wish.bids || got.bids == told, "{got:?} for {wish:?}");
                }
                FlowState::Refused(status) => {
                    assert_eq!(at_agent, None, "{wish:?}");
                    assert!([128, 129].contains(&status.0), "{wish:?} {status}");
                }
                FlowState::Pending => {
                    assert_eq!(at_agent, None, "{wish:?}");
                    let can = list.extensions.flow_bindings != FlowSupport::No && usable;
                    assert!(!can, "{wish:?} could be held: {list:?}");
                }
            }
        }
        assert!(held.is_empty(), "held and not wanted: {held:?}");
        let most = usize::from(self.agent.mobiles[0].max_flows);
        assert!(entry.flows.len() <= most, "{entry:?}");
        let extensions = list.extensions;
        assert_eq!((extensions.reflect, extensions.copies), (entry.reflect, entry.copies));
        assert_ne!(extensions.digest, DigestState::Differs);
        if !entry.flows.is_empty() {
            assert_eq!(extensions.flow_bindings, FlowSupport::Yes);
        }
        assert!(entry.flows.is_sorted_by_key(|flow| flow.priority));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// FB-09, FB-10, FB-14, FB-20, R-MN-31, and that nothing unauthentic counts.
    #[test]
    fn both_ends_come_to_hold_the_same_flow_bindings(steps in steps(), seed: u64) {
        let mut life = Life::new(agent_config(), seed);
        for step in steps {
            life.take(step);
        }
        life.world.silent.clear();
        life.settle(1_500);
        life.agree();
    }
}

/// `number` flow bindings with selectors that take much room.
fn many(number: u16, bid_of: impl Fn(u16) -> u16) -> Vec<FlowBinding> {
    let flow = |id: u16| FlowBinding {
        id: FlowId::new(id).expect("not zero"),
        priority: FlowPriority::new(id * 16).expect("not zero"),
        selector: BinarySelector {
            source: Some(AddressRange::V6(
                address(&format!("2001:db8:c:{id:x}::"))
                    ..=address(&format!("2001:db8:c:{id:x}:ffff:ffff:ffff:ffff")),
            )),
            source_port: Some(443..=443),
            protocol: Some(6..=6),
            ..BinarySelector::everything(IpVersion::V6)
        },
        bids: vec![bid(bid_of(id))],
    };
    (1..=number).map(flow).collect()
}

fn wants(flows: Vec<FlowBinding>) -> MobileEvent {
    MobileEvent::FlowsChanged { flows, reflect: false, copies: false }
}

/// The updates sent since: octets as IPv6 packets with their Home Address option, flow bindings
/// that they tell, and that they only name.
fn updates(life: &Life, since: usize) -> Vec<(usize, usize, usize)> {
    let updates = life.world.wire[since..].iter().filter(|(_, message)| message[2] == 5);
    updates
        .map(|(_, message)| match wire::parse(message) {
            Ok(Message::BindingUpdate(update)) => {
                let options = &update.options;
                let (told, named) = (options.flows().count(), options.summarized_flows().count());
                (40 + 24 + message.len(), told, named)
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

/// FB-20 (RFC 6089 §6): as many as there may be, told over several updates, which stay below the
/// least MTU as long as naming the others leaves room, and then named by every one.
#[test]
fn as_many_as_there_may_be() {
    let mut agent = agent_config();
    agent.mobiles[0].max_flows = 1000;
    let mut life = Life::new(agent, 1);
    let good = &mut || vec![GOOD];
    life.world.mobile_event(up(1, 1), good);
    life.world.mobile_event(up(2, 1), good);
    life.world.mobile_event(wants(many(513, |_| 1)), good);
    life.settle(60);
    life.agree();
    // A Mobility Header ends at 2,048 octets, so 512 it is, whatever the agent would take.
    assert_eq!(life.held().expect("bound").flows.len(), 512);
    let sent = updates(&life, 0);
    assert!(sent.len() > 20, "{} updates", sent.len());
    assert!(sent.iter().all(|(octets, ..)| *octets <= 2048 + 64), "{sent:?}");
    let told: usize = sent.iter().map(|(_, told, _)| told).sum();
    assert_eq!(told, 512, "each once");
    // Longer than the least MTU only where naming hundreds leaves no room.
    let crowded = |(octets, _, named): &&(usize, usize, usize)| *octets > 1280 && *named < 350;
    assert_eq!(sent.iter().find(crowded), None, "{sent:?}");
    // Refreshed by number alone.
    let since = life.world.wire.len();
    life.settle(60);
    let refreshes = updates(&life, since);
    assert!(!refreshes.is_empty());
    assert!(refreshes.iter().all(|(octets, told, _)| *octets <= 1280 && *told == 0));
    // All moved to another uplink, without their selectors.
    let since = life.world.wire.len();
    life.world.mobile_event(wants(many(512, |_| 2)), good);
    life.settle(60);
    life.agree();
    let moves = updates(&life, since);
    let told: usize = moves.iter().map(|(_, told, _)| told).sum();
    assert_eq!(told, 512, "each once: {moves:?}");
    assert!(moves.len() <= 24, "{moves:?}");
}

/// Wishes that change ten times a second cost one update a second, and the last one counts.
#[test]
fn changes_are_told_once_a_second() {
    let mut life = Life::new(agent_config(), 1);
    let good = &mut || vec![GOOD];
    life.world.mobile_event(up(1, 1), good);
    life.world.mobile_event(up(2, 1), good);
    life.settle(5);
    let since = life.world.wire.len();
    for change in 0..100_u16 {
        life.world.mobile_event(wants(many(8, |id| 1 + (id + change) % 2)), good);
        let end = life.world.now + Duration::from_millis(100);
        life.world.run_until(end, good);
    }
    life.settle(3);
    life.agree();
    let sent = updates(&life, since).len();
    assert!((10..=11).contains(&sent), "{sent} updates in ten seconds");
}
