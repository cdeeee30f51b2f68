//! The link machine, deadline by deadline.

use mtun_policy::steering::{
    Admin, Cause, Fact, Figure, LinkReason, LinkState, Measurement, Notice, ProbeResult,
};
use mtun_policy::{
    Band, Bid, Circle, Cost, Fallback, Outcome, Position, Radio, RadioRegistration, Ratio,
    Steering, Technology, Verb, When,
};

use crate::home::*;

fn state(steering: &Steering, bid: Bid) -> LinkState {
    steering.links().into_iter().find(|link| link.bid == bid).expect("a link").state
}

fn reason(steering: &Steering, bid: Bid) -> LinkReason {
    steering.links().into_iter().find(|link| link.bid == bid).expect("a link").reason
}

fn attached(bid: Bid, attached: bool) -> Fact {
    Fact::Attached { bid, attached }
}

fn loss(bid: Bid, percent: u16) -> Fact {
    let loss = Some(Ratio::percent(percent));
    Fact::Measured { bid, measurement: Measurement { loss, ..Measurement::default() } }
}

#[test]
fn the_first_registration_needs_no_hold() {
    let policy = policy();
    let mut steering = Steering::new(&policy, home(&policy), s(0));
    assert_eq!(state(&steering, WLAN0), LinkState::Unknown);
    assert_eq!(reason(&steering, WLAN0), LinkReason::NeverRegistered);
    steering.handle(s(1), attached(WLAN0, false));
    assert_eq!(state(&steering, WLAN0), LinkState::Down, "known to be gone");
    steering.handle(s(2), attached(WLAN0, true));
    assert_eq!(state(&steering, WLAN0), LinkState::Unknown);
    steering.handle(s(3), Fact::Refused { bid: WLAN0 });
    assert_eq!(reason(&steering, WLAN0), LinkReason::Bad(Cause::Refused));
    assert!(!steering.usable(WLAN0));
    steering.handle(s(4), Fact::Registered { bid: WLAN0, registered: true });
    assert_eq!(state(&steering, WLAN0), LinkState::Up);
    assert!(steering.usable(WLAN0));
    assert_eq!(steering.deadline(), None);
}

#[test]
fn events_take_a_link_down_at_once_and_it_comes_back_after_its_hold() {
    type Events = (&'static [Fact], &'static [Fact], Cause);
    let cases: [Events; 3] = [
        (
            &[Fact::Attached { bid: WLAN0, attached: false }],
            &[Fact::Attached { bid: WLAN0, attached: true }],
            Cause::Detached,
        ),
        (
            &[Fact::Registered { bid: WLAN0, registered: false }],
            &[Fact::Registered { bid: WLAN0, registered: true }],
            Cause::NoBinding,
        ),
        (
            &[Fact::Refused { bid: WLAN0 }],
            &[Fact::Registered { bid: WLAN0, registered: true }],
            Cause::Refused,
        ),
    ];
    for (gone, back, cause) in cases {
        let mut steering = registered(&policy());
        let up = steering.effective();
        gone.iter().for_each(|fact| steering.handle(s(100), fact.clone()));
        assert_eq!(reason(&steering, WLAN0), LinkReason::Bad(cause));
        assert!(!steering.usable(WLAN0));
        assert_ne!(steering.effective(), up);
        back.iter().for_each(|fact| steering.handle(s(105), fact.clone()));
        assert_eq!(state(&steering, WLAN0), LinkState::Recovering { until: s(135) }, "{cause}");
        assert!(!steering.usable(WLAN0), "others are good");
        assert_eq!(steering.deadline(), Some(s(135)));
        steering.handle_deadline(s(135));
        assert_eq!(state(&steering, WLAN0), LinkState::Up);
        assert_eq!(steering.effective(), up);
        let told = notices(&mut steering);
        let states: Vec<_> = told
            .into_iter()
            .map(|notice| match notice {
                Notice::LinkState { bid: WLAN0, from, to, reason } => {
                    (from.word(), to.word(), reason)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let want = [
            ("up", "down", LinkReason::Bad(cause)),
            ("down", "recovering", LinkReason::Holding(cause)),
            ("recovering", "up", LinkReason::Good),
        ];
        assert_eq!(states, want);
    }
}

#[test]
fn each_relapse_doubles_the_hold() {
    let mut steering = registered(&policy());
    let (mut now, mut holds) = (s(1000), Vec::new());
    for _ in 0..7 {
        steering.handle(now, attached(WLAN0, false));
        steering.handle(now + s(1), attached(WLAN0, true));
        let LinkState::Recovering { until } = state(&steering, WLAN0) else {
            panic!("recovering");
        };
        holds.push((until - now - s(1)).as_secs());
        // Bad once more while it recovers: the hold starts anew, and is the same.
        steering.handle(until - s(1), attached(WLAN0, false));
        steering.handle(until, attached(WLAN0, true));
        let again = LinkState::Recovering { until: until + (until - now - s(1)) };
        assert_eq!(state(&steering, WLAN0), again);
        now = steering.deadline().expect("a hold");
        steering.handle_deadline(now);
        assert_eq!(state(&steering, WLAN0), LinkState::Up);
        now += s(599);
    }
    assert_eq!(holds, [30, 60, 120, 240, 480, 600, 600]);
}

#[test]
fn figures_have_room_between_their_limits() {
    let mut policy = policy();
    let usable = &mut policy.interfaces[0].usable;
    usable.loss = Some(Band { enter: Ratio::percent(1), leave: Ratio::percent(8) });
    usable.signal = Some(Band { enter: -70, leave: -78 });
    usable.hold_up = s(5);
    usable.hold_down = s(1);
    let mut steering = registered(&policy);
    // second, fact, state after it
    let until = |second| LinkState::Recovering { until: s(second) };
    let steps: &[(u64, Fact, LinkState)] = &[
        (10, loss(WLAN0, 7), LinkState::Up),
        (11, loss(WLAN0, 9), LinkState::Up),
        (12, loss(WLAN0, 9), LinkState::Down),
        (13, loss(WLAN0, 7), LinkState::Down),
        (14, loss(WLAN0, 1), until(19)),
        (15, loss(WLAN0, 2), LinkState::Down),
        (16, loss(WLAN0, 0), until(21)),
        (21, loss(WLAN0, 0), LinkState::Up),
        (30, Fact::Signal { bid: WLAN0, dbm: -78 }, LinkState::Up),
        (30, Fact::Signal { bid: WLAN0, dbm: -77 }, LinkState::Up),
        (40, Fact::Signal { bid: WLAN0, dbm: -78 }, LinkState::Up),
        (42, Fact::Signal { bid: WLAN0, dbm: -71 }, LinkState::Down),
        // The relapse doubled the hold.
        (43, Fact::Signal { bid: WLAN0, dbm: -70 }, until(53)),
        (53, loss(WLAN0, 7), LinkState::Up),
    ];
    for (second, fact, want) in steps {
        steering.handle(s(*second), fact.clone());
        assert_eq!(state(&steering, WLAN0), *want, "at {second}");
    }
    let beyond = |notice: &Notice| match notice {
        Notice::LinkState { reason: LinkReason::Bad(cause), .. } => Some(*cause),
        _ => None,
    };
    let causes: Vec<_> = notices(&mut steering).iter().filter_map(beyond).collect();
    let (loss, signal) = (Cause::Beyond(Figure::Loss), Cause::Beyond(Figure::Signal));
    assert_eq!(causes, [loss, loss, signal]);
}

/// What a radio tells counts at once where it is a word, and what is not known any more speaks
/// against nobody.
#[test]
fn a_radio_speaks_against_its_link_and_falls_silent() {
    use RadioRegistration::{Home, Roaming, Searching};
    let mut policy = policy();
    let usable = &mut policy.interfaces[0].usable;
    usable.signal = Some(Band { enter: -70, leave: -78 });
    usable.roaming = false;
    usable.technologies = Some([Technology::Lte, Technology::Nr].into_iter().collect());
    usable.hold_up = s(5);
    let mut steering = registered(&policy);
    let radio = |signal, registration, technology| {
        let radio = Radio { signal, registration, technology };
        Fact::Radio { bid: WLAN0, radio }
    };
    let (lte, umts) = (Some(Technology::Lte), Some(Technology::Umts));
    let until = |second| LinkState::Recovering { until: s(second) };
    let (down, up) = (LinkState::Down, LinkState::Up);
    // second, fact, state after it
    let steps: &[(u64, Fact, LinkState)] = &[
        (10, radio(Some(-60), Some(Home), lte), up),
        (11, radio(Some(-60), Some(Roaming), lte), down),
        (12, radio(Some(-60), Some(Home), lte), until(17)),
        (17, radio(Some(-60), Some(Searching), lte), up),
        (20, radio(Some(-60), Some(Home), umts), down),
        (21, radio(Some(-90), Some(Home), umts), down),
        // The source is lost: the relapse doubled the hold.
        (30, radio(None, None, None), until(40)),
        (40, radio(None, None, None), up),
        (50, radio(Some(-90), None, None), down),
        (51, radio(None, None, None), until(71)),
    ];
    for (second, fact, want) in steps {
        steering.handle(s(*second), fact.clone());
        assert_eq!(state(&steering, WLAN0), *want, "at {second}");
    }
}

/// How fast the vehicle is and where counts for a link like any other figure, with room between the
/// limits, and what is not known speaks against nobody. Another care-of address changes neither.
#[test]
fn a_vehicle_speaks_against_a_link_and_falls_silent() {
    let mut policy = policy();
    let at = Position::from_words("48.0,11.0").unwrap();
    let usable = &mut policy.interfaces[0].usable;
    usable.near = Some(Circle { at, enter: 300, leave: 400 });
    usable.speed = Some(Band { enter: 1500, leave: 2000 });
    usable.hold_up = s(5);
    let mut steering = registered(&policy);
    let north =
        |metres: f64| Fact::Position(Position::from_degrees(48.0 + metres / 111_195.0, 11.0));
    let until = |second| LinkState::Recovering { until: s(second) };
    let (down, up) = (LinkState::Down, LinkState::Up);
    let far = LinkReason::Bad(Cause::Beyond(Figure::Distance));
    let fast = LinkReason::Bad(Cause::Beyond(Figure::Speed));
    // second, fact, state after it, and why it is down
    let steps: &[(u64, Fact, LinkState, Option<&LinkReason>)] = &[
        (10, north(350.0), up, None),
        (11, north(450.0), down, Some(&far)),
        (12, attached(WLAN0, false), down, None),
        (13, attached(WLAN0, true), down, Some(&far)),
        (14, north(350.0), down, Some(&far)),
        (15, north(200.0), until(20), None),
        (20, Fact::Speed(Some(1900)), up, None),
        (30, Fact::Speed(Some(2000)), down, Some(&fast)),
        (31, Fact::Speed(Some(1600)), down, Some(&fast)),
        // The receiver has no fix any more: the relapse doubled the hold.
        (32, Fact::Speed(None), until(42), None),
        (33, Fact::Position(None), until(42), None),
        (42, Fact::Position(None), up, None),
    ];
    for (second, fact, want, why) in steps {
        steering.handle(s(*second), fact.clone());
        assert_eq!(state(&steering, WLAN0), *want, "at {second}");
        if let Some(why) = why {
            assert_eq!(reason(&steering, WLAN0), **why, "at {second}");
        }
    }
}

/// A rule with `when near` holds from the inner limit on, until the outer one or until nobody knows
/// where the vehicle is; another file goes on with what was known.
#[test]
fn a_rule_holds_near_a_place() {
    let at = Position::from_words("48.0,11.0").unwrap();
    let circle = Circle { at, enter: 300, leave: 400 };
    let mut near = rule(0, 0, Verb::Prefer(vec![WWAN1]), Fallback::NextRule);
    near.when = vec![When { near: Some(circle), ..When::default() }];
    let last = rule(1, 0, Verb::Prefer(vec![WLAN0]), Fallback::Any);
    let policy = with_rules(policy(), vec![near, last]);
    let mut steering = registered(&policy);
    let north = |metres: f64| Position::from_degrees(48.0 + metres / 111_195.0, 11.0);
    let holds = |steering: &Steering| steering.effective().says[0].outcome != Outcome::Unmet;
    let steps: &[(Option<Position>, bool)] = &[
        (None, false),
        (north(350.0), false),
        (north(290.0), true),
        (north(350.0), true),
        (north(410.0), false),
        (north(350.0), false),
        (north(100.0), true),
        (None, false),
        (north(350.0), false),
        (north(0.0), true),
    ];
    for (number, (position, want)) in (1..).zip(steps) {
        steering.handle(s(10 + number), Fact::Position(*position));
        assert_eq!(holds(&steering), *want, "step {number}");
    }
    steering.handle(s(30), Fact::Position(north(350.0)));
    steering.adopt(&policy, home(&policy), s(31));
    assert!(holds(&steering), "another policy forgets nothing");
}

/// The last link is used whatever its technology, and never where it may not roam.
#[test]
fn a_last_link_that_may_not_roam_does_not() {
    let mut policy = policy();
    for interface in &mut policy.interfaces {
        interface.usable.roaming = false;
        interface.usable.technologies = Some([Technology::Nr].into_iter().collect());
    }
    let mut steering = registered(&policy);
    let radio = |bid, registration, technology| Fact::Radio {
        bid,
        radio: Radio {
            signal: None,
            registration: Some(registration),
            technology: Some(technology),
        },
    };
    for bid in LINKS {
        steering.handle(s(10), radio(bid, RadioRegistration::Home, Technology::Gsm));
    }
    let used = |steering: &Steering| LINKS.into_iter().filter(|bid| steering.usable(*bid)).count();
    assert_eq!(used(&steering), 1, "the last link");
    for bid in LINKS {
        steering.handle(s(20), radio(bid, RadioRegistration::Roaming, Technology::Nr));
        assert!(!steering.breaks_out(bid), "nor past the tunnel");
    }
    assert_eq!(used(&steering), 0);
    let link = steering.links().into_iter().find(|link| link.bid == WLAN0).unwrap();
    assert_eq!(link.reason, LinkReason::Bad(Cause::Roaming));
}

#[test]
fn what_octets_cost_abroad_counts_abroad() {
    let mut policy = policy();
    let cost = |micros, roaming| {
        let currency = "EUR".to_owned();
        Some(Cost { micros_per_gigabyte: micros, roaming_micros_per_gigabyte: roaming, currency })
    };
    for (interface, cost) in policy.interfaces.iter_mut().zip([cost(1, Some(9)), cost(5, None)]) {
        interface.cost = cost;
    }
    let verb = Verb::Cheapest { links: vec![WLAN0, WWAN0], sla: None };
    let policy = with_rules(policy, vec![rule(0, 0, verb, Fallback::Any)]);
    let mut steering = registered(&policy);
    let by = |steering: &Steering| {
        let effective = steering.effective();
        let ruling = effective.rule(mtun_policy::RuleId(0)).expect("the rule");
        ruling.says.outcome.links()[0]
    };
    assert_eq!(by(&steering), WLAN0);
    let registration = Some(RadioRegistration::Roaming);
    let radio = Radio { registration, ..Radio::default() };
    steering.handle(s(10), Fact::Radio { bid: WLAN0, radio });
    assert_eq!(by(&steering), WWAN0);
    steering.handle(s(20), Fact::Radio { bid: WLAN0, radio: Radio::default() });
    assert_eq!(by(&steering), WLAN0, "what is not known is as at home");
}

#[test]
fn a_probe_verdict_needs_two_losses_and_a_whole_burst() {
    use ProbeResult::{Answered, Lost, LostInBurst};
    let heard = None;
    let cases: &[(&str, &[Option<ProbeResult>], bool, usize)] = &[
        ("one loss", &[Some(Lost)], false, 0),
        ("two losses want a burst", &[Some(Lost), Some(Lost)], false, 1),
        ("an answer in between", &[Some(Lost), Some(Answered), Some(Lost)], false, 0),
        ("bare losses never suffice", &[Some(Lost); 9], false, 4),
        (
            "four of the burst",
            &[
                Some(Lost),
                Some(Lost),
                Some(LostInBurst),
                Some(LostInBurst),
                Some(LostInBurst),
                Some(LostInBurst),
                Some(Answered),
            ],
            false,
            1,
        ),
        (
            "all of the burst",
            &[
                Some(Lost),
                Some(Lost),
                Some(LostInBurst),
                Some(LostInBurst),
                Some(LostInBurst),
                Some(LostInBurst),
                Some(LostInBurst),
            ],
            true,
            1,
        ),
        (
            "something authenticated meanwhile",
            &[
                Some(Lost),
                Some(Lost),
                Some(LostInBurst),
                Some(LostInBurst),
                heard,
                Some(LostInBurst),
                Some(LostInBurst),
                Some(LostInBurst),
            ],
            false,
            1,
        ),
        ("a burst that nobody asked for", &[Some(LostInBurst); 9], false, 0),
    ];
    for (what, probes, down, bursts) in cases {
        let mut steering = registered(&policy());
        let mut now = s(10);
        for probe in *probes {
            now += ms(20);
            steering.handle(
                now,
                match probe {
                    Some(probe) => Fact::Probed { bid: WLAN0, probe: *probe },
                    None => Fact::Heard { bid: WLAN0 },
                },
            );
        }
        assert_eq!(!steering.usable(WLAN0), *down, "{what}");
        let wanted = |notice: &Notice| matches!(notice, Notice::BurstWanted { bid: WLAN0 });
        let wanted = notices(&mut steering).into_iter().filter(wanted).count();
        assert_eq!(wanted, *bursts, "{what}");
        if *down {
            assert_eq!(reason(&steering, WLAN0), LinkReason::Bad(Cause::ProbesLost));
            steering.handle(now, Fact::Heard { bid: WLAN0 });
            assert_eq!(state(&steering, WLAN0), LinkState::Recovering { until: now + s(30) });
        }
    }
}

#[test]
fn the_last_link_is_used_in_spite_of_verdicts() {
    let lost = |steering: &mut Steering, now, bid| {
        let probes = [ProbeResult::Lost; 2].into_iter().chain([ProbeResult::LostInBurst; 5]);
        for probe in probes {
            steering.handle(now, Fact::Probed { bid, probe });
        }
    };
    let usable = |steering: &Steering| {
        LINKS.into_iter().filter(|bid| steering.usable(*bid)).collect::<Vec<_>>()
    };
    let mut steering = registered(&policy());
    for bid in [WWAN1, SAT0] {
        steering.handle(s(1), Fact::Admin { bid, admin: Admin::Held });
    }
    lost(&mut steering, s(10), WLAN0);
    assert_eq!(usable(&steering), [WWAN0]);
    lost(&mut steering, s(11), WWAN0);
    assert_eq!(usable(&steering), [WWAN0], "the one that fell silent last");
    assert_eq!(state(&steering, WWAN0), LinkState::Degraded);
    assert_eq!(reason(&steering, WWAN0), LinkReason::LastLink(Cause::ProbesLost));
    assert_eq!(state(&steering, WLAN0), LinkState::Down);
    // One that answers is better than one that does not, hold or not.
    steering.handle(s(12), Fact::Heard { bid: WLAN0 });
    assert_eq!(usable(&steering), [WLAN0]);
    assert_eq!(reason(&steering, WLAN0), LinkReason::LastLink(Cause::ProbesLost));
    // Both recover: the one that is used stays.
    steering.handle(s(13), Fact::Heard { bid: WWAN0 });
    assert_eq!(usable(&steering), [WLAN0]);
    steering.handle_deadline(s(42));
    assert_eq!(state(&steering, WLAN0), LinkState::Up);
    assert_eq!(usable(&steering), [WLAN0]);
    steering.handle_deadline(s(43));
    assert_eq!(usable(&steering), [WLAN0, WWAN0]);
    // Nothing can be sent by a link that is not there.
    steering.handle(s(50), attached(WLAN0, false));
    steering.handle(s(50), Fact::Registered { bid: WWAN0, registered: false });
    assert_eq!(usable(&steering), []);
    steering.handle(s(51), attached(WLAN0, true));
    assert_eq!(usable(&steering), [WLAN0], "held back, and the last link");
    // A held link is not even the last one.
    steering.handle(s(52), Fact::Admin { bid: WLAN0, admin: Admin::Held });
    assert_eq!(usable(&steering), []);
    steering.handle(s(53), Fact::Admin { bid: WLAN0, admin: Admin::Drained });
    assert_eq!(usable(&steering), [WLAN0]);
}

#[test]
fn facts_that_change_nothing_publish_nothing() {
    let mut steering = registered(&policy());
    let before = steering.effective();
    for second in 1..100 {
        steering.handle(s(second), rtt(WLAN0, second));
        steering.handle(s(second), Fact::Registered { bid: WWAN0, registered: true });
        steering.handle(s(second), Fact::Heard { bid: SAT0 });
    }
    assert!(std::sync::Arc::ptr_eq(&before, &steering.effective()));
    assert_eq!(notices(&mut steering), []);
    assert_eq!(steering.figures(WLAN0).rtt, Some(ms(99)));
}
