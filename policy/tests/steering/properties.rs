//! Properties over random stories: time may be sliced in any way, and nobody is stranded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mtun_policy::steering::{
    Admin, Bar, Day, Fact, Given, GivenState, LinkReport, LocalTime, Measurement, Notice, Override,
    ProbeResult, suppose,
};
use mtun_policy::{
    Band, Bid, BlockReply, Choice, Effective, Failback, FailbackMode, Fallback, Origin, Policy,
    Ratio, Rule, RuleId, SpeedBound, Steering, TimeSpan, TrafficSelector, Usable, Verb, When,
};
use proptest::prelude::*;

use crate::flows::Published;
use crate::home::*;

/// Every verb and every memory that steering has, with short holds.
fn everything() -> Policy {
    let four = LINKS.to_vec();
    let percent = Ratio::percent;
    let after = |after| Failback { mode: FailbackMode::Gap, after };
    let fastest = Verb::Fastest { links: four.clone(), margin: percent(10) };
    let cheapest = Verb::Cheapest { links: four.clone(), sla: Some("voice".to_owned()) };
    let copies = Verb::Duplicate { links: four.clone(), copies: 2, cap: Some(300) };
    let overflow = Verb::Overflow { links: four.clone(), full: percent(85) };
    let balance = Verb::Balance(vec![(WLAN0, 5), (WWAN0, 2), (WWAN1, 1)]);
    let breakout = Verb::Breakout { links: vec![WLAN0, SAT0], translate: true };
    let slow = When { speed: Some(SpeedBound::Below(500)), ..When::default() };
    let night = TimeSpan { from: 1, until: 2 };
    let night = When { time: Some(night), ..When::default() };
    let rules = vec![
        rule(0, 1, fastest, Fallback::NextRule),
        rule(1, 2, cheapest, Fallback::Then(copies)),
        Rule { failback: after(s(7)), ..rule(2, 3, overflow, Fallback::Any) },
        Rule { failback: after(s(3)), ..rule(3, 4, balance, Fallback::Any) },
        rule(4, 5, breakout, Fallback::Then(Verb::Block(BlockReply::Icmp))),
        Rule { when: vec![slow, night], ..rule(5, 6, Verb::Prefer(vec![WWAN0]), Fallback::Any) },
        rule(6, 0, Verb::Prefer(vec![WLAN0, WWAN0]), Fallback::Any),
    ];
    let mut policy = with_rules(policy(), rules);
    for (link, hold) in policy.interfaces.iter_mut().zip([1, 2, 3, 0]) {
        link.usable.hold_up = s(hold);
        link.usable.hold_down = ms(500 * hold);
        link.usable.rtt = Some(Band { enter: ms(150), leave: ms(400) });
        link.usable.loss = Some(Band { enter: percent(1), leave: percent(8) });
        link.usable.signal = Some(Band { enter: -70, leave: -78 });
    }
    policy
}

fn fact() -> impl Strategy<Value = Fact> {
    let bid = || prop::sample::select(LINKS.to_vec());
    let measurement = (
        prop::option::of(prop::sample::select(vec![5_u64, 60, 79, 90, 110, 160, 500])),
        prop::option::of(0_u64..30),
        prop::option::of(prop::sample::select(vec![0_u16, 50, 90, 150, 900])),
    );
    let measurement = measurement.prop_map(|(rtt, jitter, loss)| Measurement {
        rtt: rtt.map(ms),
        rtt_p95: None,
        jitter: jitter.map(ms),
        loss: loss.map(Ratio),
    });
    let probe = prop::sample::select(vec![
        ProbeResult::Lost,
        ProbeResult::Lost,
        ProbeResult::LostInBurst,
        ProbeResult::LostInBurst,
        ProbeResult::LostInBurst,
        ProbeResult::LostInBurst,
        ProbeResult::LostInBurst,
        ProbeResult::Answered,
    ]);
    let admin = prop::sample::select(vec![Admin::Open, Admin::Open, Admin::Drained, Admin::Held]);
    prop_oneof![
        4 => (bid(), any::<bool>()).prop_map(|(bid, attached)| Fact::Attached { bid, attached }),
        4 => (bid(), prop::bool::weighted(0.7))
            .prop_map(|(bid, registered)| Fact::Registered { bid, registered }),
        1 => bid().prop_map(|bid| Fact::Refused { bid }),
        6 => (bid(), measurement).prop_map(|(bid, measurement)| Fact::Measured { bid, measurement }),
        6 => (bid(), probe).prop_map(|(bid, probe)| Fact::Probed { bid, probe }),
        1 => bid().prop_map(|bid| Fact::Heard { bid }),
        2 => (bid(), -85_i16..-60).prop_map(|(bid, dbm)| Fact::Signal { bid, dbm }),
        2 => (bid(), 0_u16..=100)
            .prop_map(|(bid, load)| Fact::Load { bid, load: Ratio::percent(load) }),
        2 => (bid(), 0_u64..400).prop_map(|(bid, octets)| Fact::Carried { bid, octets }),
        1 => (0_u64..200).prop_map(|octets| Fact::Copied { rule: RuleId(1), octets }),
        1 => prop::option::of(0_u32..1000).prop_map(Fact::Speed),
        1 => (20_800_u32..20_900, 86_300_000_u64..86_400_000).prop_map(|(day, at)| {
            Fact::LocalTime(LocalTime { day: Day(day), time: ms(at) })
        }),
        1 => (0_u32..2, 50_000_u64..70_000).prop_map(|(day, at)| {
            Fact::LocalTime(LocalTime { day: Day(20_779 + day), time: ms(at) })
        }),
        2 => (bid(), admin).prop_map(|(bid, admin)| Fact::Admin { bid, admin }),
        1 => (bid(), 0_u16..3, 0_u64..40_000).prop_map(|(bid, number, until)| {
            Fact::Steer(Box::new(Override {
                id: RuleId(RuleId::OVERRIDES + number),
                selector: TrafficSelector { protocols: vec![17], ..TrafficSelector::default() },
                bid,
                until: ms(until),
                reason: None,
                text: String::new(),
            }))
        }),
        1 => (0_u16..3).prop_map(|number| Fact::Unsteer(RuleId(RuleId::OVERRIDES + number))),
    ]
}

/// Facts and the milliseconds between them.
fn story() -> impl Strategy<Value = Vec<(u64, Fact)>> {
    let pause = prop_oneof![3 => 0_u64..30, 3 => 0_u64..2000, 1 => 0_u64..12_000];
    prop::collection::vec((pause, fact()), 1..60)
}

/// How a story is told: every way has to come to the same.
#[derive(Clone, Copy)]
enum Slices {
    /// Woken at the deadlines.
    Deadlines,
    /// Woken every millisecond.
    Milliseconds,
    /// Never woken but by facts.
    Facts,
}

/// What was said after each fact, every notice, and when the rules changed.
type Told = (Vec<(Arc<Effective>, Vec<LinkReport>)>, Vec<Notice>, Vec<(Duration, Arc<Effective>)>);

fn tell(policy: &Policy, story: &[(u64, Fact)], slices: Slices) -> Told {
    let mut steering = Steering::new(policy, home(policy), s(0));
    let (mut said, mut told, mut changes) = (Vec::new(), Vec::new(), Vec::new());
    let mut present = steering.effective();
    let mut now = s(0);
    for (pause, fact) in story {
        let next = now + ms(*pause);
        let mut wakes = Vec::new();
        match slices {
            Slices::Deadlines => {
                while let Some(at) = steering.deadline().filter(|at| *at <= next) {
                    assert!(at > now, "a deadline moves on");
                    now = at;
                    steering.handle_deadline(at);
                    wakes.push((at, steering.effective()));
                }
            }
            Slices::Milliseconds => {
                while now < next {
                    now += ms(1);
                    steering.handle_deadline(now);
                    wakes.push((now, steering.effective()));
                }
            }
            Slices::Facts => {}
        }
        now = next;
        steering.handle(now, fact.clone());
        wakes.push((now, steering.effective()));
        for (at, effective) in wakes {
            if !Arc::ptr_eq(&present, &effective) {
                // A fact may undo what a deadline did in the same call.
                let undone = matches!(slices, Slices::Facts) && present == effective;
                assert!(undone || present != effective, "a new list says something new");
                present = effective.clone();
                changes.push((at, effective));
            }
        }
        said.push((steering.effective(), steering.links()));
        told.extend(std::iter::from_fn(|| steering.poll()));
    }
    (said, told, changes)
}

/// Which links are there, told apart from steering.
#[derive(Default)]
struct There(BTreeMap<Bid, (bool, Option<bool>)>);

impl There {
    fn handle(&mut self, fact: &Fact) {
        match fact {
            Fact::Registered { bid, registered } => {
                self.0.entry(*bid).or_default().0 = *registered;
            }
            Fact::Refused { bid } => self.0.entry(*bid).or_default().0 = false,
            Fact::Attached { bid, attached } => {
                self.0.entry(*bid).or_default().1 = Some(*attached);
            }
            _ => {}
        }
    }

    fn links(&self) -> impl Iterator<Item = Bid> {
        let there =
            |(registered, attached): &(bool, Option<bool>)| *registered && *attached != Some(false);
        self.0.iter().filter(move |(_, link)| there(link)).map(|(bid, _)| *bid)
    }
}

/// Whatever may be supposed of links and can be brought about: both come to the same rules.
#[test]
fn a_question_is_answered_as_if_it_were_so() {
    use GivenState::{Down, Drained, Held, OverQuota, Up};
    let policy = everything();
    let states = [Up, Down, Drained, Held, OverQuota];
    for number in 0..states.len().pow(LINKS.len() as u32) {
        let mut steering = registered(&policy);
        let mut given = Given::default();
        for (place, bid) in LINKS.into_iter().enumerate() {
            let state = states[number / states.len().pow(place as u32) % states.len()];
            let has_quota = bid == WWAN0 || bid == WWAN1;
            if state == OverQuota && !has_quota {
                continue;
            }
            given = given.with(bid, state);
            match state {
                Down => steering.handle(s(1), Fact::Attached { bid, attached: false }),
                Drained => steering.handle(s(1), Fact::Admin { bid, admin: Admin::Drained }),
                Held => steering.handle(s(1), Fact::Admin { bid, admin: Admin::Held }),
                OverQuota => steering.handle(s(1), Fact::Carried { bid, octets: 1000 }),
                _ => {}
            }
        }
        // Long enough for every link to ripen and every race to end.
        steering.handle_deadline(s(3600));
        let supposed = suppose(&policy, home(&policy), &given);
        assert_eq!(supposed.effective, steering.effective(), "{given:?}");
        let usable = |links: &[LinkReport]| {
            links.iter().map(|link| (link.bid, link.usable, link.bar)).collect::<Vec<_>>()
        };
        assert_eq!(usable(&supposed.links), usable(&steering.links()), "{given:?}");
        // Asked of a daemon, it is the same again.
        let live = registered(&policy).suppose(&given);
        assert_eq!(usable(&live.links), usable(&supposed.links), "{given:?}");
        assert_eq!(live.preferred(), supposed.preferred(), "{given:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn time_may_be_sliced_in_any_way(story in story()) {
        let policy = everything();
        let by_deadlines = tell(&policy, &story, Slices::Deadlines);
        let by_milliseconds = tell(&policy, &story, Slices::Milliseconds);
        let by_facts = tell(&policy, &story, Slices::Facts);
        prop_assert_eq!(&by_deadlines.0, &by_milliseconds.0);
        prop_assert_eq!(&by_deadlines.1, &by_milliseconds.1);
        prop_assert_eq!(&by_deadlines.2, &by_milliseconds.2);
        prop_assert_eq!(&by_deadlines.0, &by_facts.0);
        prop_assert_eq!(&by_deadlines.1, &by_facts.1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nobody_is_stranded(story in story()) {
        let policy = everything();
        let mut steering = Steering::new(&policy, home(&policy), s(0));
        let mut there = There::default();
        let mut now = s(0);
        for (pause, fact) in story {
            now += ms(pause);
            there.handle(&fact);
            steering.handle(now, fact);
            let reports = steering.links();
            let forbidden = |bid| {
                let link = reports.iter().find(|link| link.bid == bid).expect("a link");
                link.bar.is_some_and(Bar::forbids)
            };
            let usable = there.links().any(|bid| !forbidden(bid));
            let effective = steering.effective();
            let published = Published(&steering);
            // The default ends in `otherwise any`.
            match effective.choose(&flow(443), Origin::Home, &published, None) {
                Choice::Use { bid, .. } => {
                    prop_assert!(there.links().any(|link| link == bid), "{} is there", bid);
                    prop_assert!(!forbidden(bid));
                }
                Choice::Nothing(_) => prop_assert!(!usable, "stranded at {:?}", now),
                other => prop_assert!(false, "{other:?}"),
            }
            // What is spoken of can be used.
            for says in &effective.says {
                for bid in says.outcome.links() {
                    prop_assert!(steering.usable(*bid) || steering.breaks_out(*bid));
                }
                prop_assert!(says.ripe.iter().all(|bid| steering.usable(*bid)));
            }
        }
    }

    #[test]
    fn a_question_that_supposes_nothing_is_answered_by_the_present(story in story()) {
        let policy = everything();
        let mut steering = Steering::new(&policy, home(&policy), s(0));
        let mut now = s(0);
        for (pause, fact) in story {
            now += ms(pause);
            steering.handle(now, fact);
        }
        let supposed = steering.suppose(&Default::default());
        prop_assert!(Arc::ptr_eq(&supposed.effective, &steering.effective()));
        prop_assert_eq!(
            supposed.links.iter().map(|link| (link.state, link.usable)).collect::<Vec<_>>(),
            steering.links().iter().map(|link| (link.state, link.usable)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_reload_of_the_same_policy_changes_nothing(story in story()) {
        let policy = everything();
        let mut steering = Steering::new(&policy, home(&policy), s(0));
        let mut now = s(0);
        for (pause, fact) in story {
            now += ms(pause);
            steering.handle(now, fact);
        }
        while steering.poll().is_some() {}
        let mut reloaded = steering.clone();
        reloaded.adopt(&policy, home(&policy), now);
        prop_assert_eq!(reloaded.effective(), steering.effective());
        prop_assert_eq!(reloaded.links(), steering.links());
        prop_assert_eq!(reloaded.deadline(), steering.deadline());
        prop_assert_eq!(reloaded.poll(), None);
    }
}
