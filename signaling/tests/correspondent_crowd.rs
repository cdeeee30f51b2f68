//! More mobiles than a correspondent has room for: memory stays bounded, bindings are those that
//! were asked for, and nothing that was recorded works twice, whoever was evicted meanwhile.

mod scene;

use std::collections::BTreeSet;
use std::time::Duration;

use mtun_policy::{CareOfAddress, HomeAddress};
use mtun_signaling::return_routability::Tested;
use mtun_signaling::wire::{self, CareOfTestInit, HomeTestInit, Message, Options};
use mtun_signaling::{BindingCacheEntry, CorrespondentConfig, CorrespondentEvent, Envelope, Pair};
use proptest::prelude::*;
use scene::address;
use scene::route::{CORRESPONDENT, correspondent_config};
use scene::route_world::RouteWorld;

const MAX_MOBILES: usize = 3;

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A mobile passes both tests and registers, under a BID unless it is zero.
    Register {
        mobile: u8,
        network: u8,
        bid: u8,
        lifetime: u16,
    },
    /// It asks for the end of all its bindings.
    Deregister {
        mobile: u8,
    },
    Used {
        mobile: u8,
        bid: u8,
    },
    Unreachable {
        mobile: u8,
        network: u8,
    },
    Replay {
        index: usize,
    },
    Wait {
        milliseconds: u32,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mobile = || 0..8_u8;
    let network = || 0..3_u8;
    let step = prop_oneof![
        8 => (mobile(), network(), 0..3_u8, 1..600_u16).prop_map(
            |(mobile, network, bid, lifetime)| Step::Register { mobile, network, bid, lifetime }
        ),
        2 => mobile().prop_map(|mobile| Step::Deregister { mobile }),
        2 => (mobile(), 0..3_u8).prop_map(|(mobile, bid)| Step::Used { mobile, bid }),
        1 => (mobile(), network())
            .prop_map(|(mobile, network)| Step::Unreachable { mobile, network }),
        6 => any::<prop::sample::Index>()
            .prop_map(|index| Step::Replay { index: index.index(1 << 16) }),
        4 => (0..5_000_u32).prop_map(|milliseconds| Step::Wait { milliseconds }),
        2 => (0..150_000_u32).prop_map(|milliseconds| Step::Wait { milliseconds }),
    ];
    prop::collection::vec(step, 1..120)
}

struct Crowd {
    world: RouteWorld,
    /// The last number each mobile used.
    sequences: [u16; 8],
    /// What was asked for, by home address.
    asked: BTreeSet<(HomeAddress, CareOfAddress)>,
    recorded: Vec<(Envelope, Vec<u8>)>,
}

fn home(mobile: u8) -> String {
    format!("2001:db8:100::{}", mobile + 1)
}

fn care_of(mobile: u8, network: u8) -> String {
    format!("2001:db8:{}::{}", network + 1, mobile + 1)
}

fn pair(mobile: u8) -> Pair {
    let home_address = HomeAddress(address(&home(mobile)));
    Pair { correspondent: address(CORRESPONDENT), home_address }
}

impl Crowd {
    fn new(first: u16) -> Self {
        let mut world = RouteWorld::new(Box::new(Vec::new));
        let config = CorrespondentConfig {
            max_mobiles: MAX_MOBILES,
            max_bindings: 2,
            ..correspondent_config()
        };
        world.start_correspondent(&config);
        Self {
            world,
            sequences: std::array::from_fn(|index| first.wrapping_mul(index as u16)),
            asked: BTreeSet::new(),
            recorded: Vec::new(),
        }
    }

    fn test(&mut self, source: &str, tested: Tested) {
        let envelope = Envelope::plain(address(source), address(CORRESPONDENT));
        let (cookie, options) = ([7; 8], Options::new());
        let message = match tested {
            Tested::Home => Message::HomeTestInit(HomeTestInit { cookie, options }),
            Tested::CareOf => Message::CareOfTestInit(CareOfTestInit { cookie, options }),
        };
        let message = wire::emit(&message, &envelope).expect("it fits");
        self.hand_over(envelope, message);
    }

    fn hand_over(&mut self, envelope: Envelope, message: Vec<u8>) {
        let event = CorrespondentEvent::Received { envelope, message };
        self.world.correspondent_event(event);
    }

    fn update(&mut self, mobile: u8, words: &str) {
        let sequence = &mut self.sequences[usize::from(mobile)];
        *sequence = sequence.wrapping_add(1);
        let line = format!("seq={sequence} A home={} {words}", home(mobile));
        let (envelope, message) = self.world.by_hand.update(&scene::text::words(&line));
        let before = self.world.trace.len();
        self.hand_over(envelope, message.clone());
        let refused = self.world.trace[before..]
            .iter()
            .any(|(_, line)| line.contains("BindingAck") && line.contains("status=130"));
        // Whom there was no room for, there was no room to remember either.
        if !refused {
            self.recorded.push((envelope, message));
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Register { mobile, network, bid, lifetime } => {
                let (home, care_of) = (home(mobile), care_of(mobile, network));
                self.test(&home, Tested::Home);
                self.test(&care_of, Tested::CareOf);
                self.asked.insert((pair(mobile).home_address, address(&care_of).into()));
                let named = if bid == 0 { String::new() } else { format!("[bid={bid} {care_of}]") };
                let words = format!("from={care_of} lifetime={lifetime} {named}");
                self.update(mobile, &words);
            }
            Step::Deregister { mobile } => {
                self.test(&home(mobile), Tested::Home);
                let words = format!("from={} lifetime=0 without-hao", home(mobile));
                self.update(mobile, &words);
                let left = self
                    .cached()
                    .iter()
                    .any(|entry| entry.home_address == pair(mobile).home_address);
                assert!(!left, "de-registered");
            }
            Step::Used { mobile, bid } => {
                let bid = (bid != 0).then(|| scene::bid(bid.into()));
                self.world
                    .correspondent_event(CorrespondentEvent::Used { pair: pair(mobile), bid });
            }
            Step::Unreachable { mobile, network } => {
                let care_of = address(&care_of(mobile, network)).into();
                let pair = pair(mobile);
                self.world.correspondent_event(CorrespondentEvent::Unreachable { pair, care_of });
            }
            Step::Replay { index } => {
                if !self.recorded.is_empty() {
                    let (envelope, message) = self.recorded[index % self.recorded.len()].clone();
                    let before = self.cached();
                    self.hand_over(envelope, message);
                    assert_eq!(self.cached(), before, "a replayed update changed the cache");
                }
            }
            Step::Wait { milliseconds } => {
                let end = self.world.now + Duration::from_millis(milliseconds.into());
                self.world.run_until(end);
            }
        }
        self.check();
    }

    fn cached(&self) -> Vec<BindingCacheEntry> {
        let correspondent = self.world.correspondent.as_ref().expect("a correspondent");
        correspondent.bindings().map(|(_, entry)| entry.clone()).collect()
    }

    fn check(&self) {
        let (live, remembered) = self.world.correspondent.as_ref().expect("one").load();
        assert!(live <= MAX_MOBILES, "{live}");
        assert!(live + remembered <= 2 * MAX_MOBILES, "{live} and {remembered}");
        let cached = self.cached();
        assert_eq!(cached.len(), live);
        for entry in cached {
            assert!((1..=2).contains(&entry.bindings.len()), "{entry:?}");
            assert!(!entry.is_plain() || entry.bindings.len() == 1, "{entry:?}");
            for binding in &entry.bindings {
                let asked = self.asked.contains(&(entry.home_address, binding.care_of));
                assert!(asked, "{entry:?}");
                let left = binding.expires.saturating_sub(self.world.now);
                assert!(!left.is_zero() && left <= Duration::from_secs(420), "{entry:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// CN-24, CN-25, CN-26, CN-40, CN-46, CN-65, MC-26, R-CN-05, R-CN-06.
    #[test]
    fn a_crowd_at_a_small_correspondent(steps in steps(), first: u16) {
        let mut crowd = Crowd::new(first);
        for step in &steps {
            crowd.take(step);
        }
        // All bindings end by themselves, and what is remembered with its nonces.
        crowd.world.run_until(crowd.world.now + Duration::from_secs(421));
        let load = crowd.world.correspondent.as_ref().map(|correspondent| correspondent.load());
        prop_assert_eq!(load, Some((0, 0)));
    }
}
