//! The verbs that remember: `overflow`, `fastest`, classes, caps, quotas, and what ends by itself.

use std::sync::Arc;

use mtun_policy::steering::{
    Admin, Bar, Day, Fact, Ledger, LocalTime, Measurement, Notice, Override, OverrideEnd,
    QuotaLevel,
};
use mtun_policy::{
    Bid, Failback, FailbackMode, Fallback, Otherwise, Outcome, Policy, Ratio, Rule, RuleId, Says,
    Scope, Steering, TimeSpan, TrafficSelector, Verb, When,
};

use crate::home::*;

fn single(rule: Rule) -> Policy {
    with_rules(policy(), vec![rule])
}

fn says(steering: &Steering) -> Says {
    steering.effective().says[0].clone()
}

/// The links of the first rule, in order.
fn order(steering: &Steering) -> Vec<Bid> {
    says(steering).outcome.links().to_vec()
}

fn load(bid: Bid, percent: u16) -> Fact {
    Fact::Load { bid, load: Ratio::percent(percent) }
}

fn carried(bid: Bid, octets: u64) -> Fact {
    Fact::Carried { bid, octets }
}

fn at(day: &str, hour: u64, minute: u64, second: u64) -> Fact {
    let mut parts = day.split('-').map(|part| part.parse::<u16>().expect("a number"));
    let mut part = || parts.next().expect("three parts");
    let day = Day::from_date(part(), part() as u8, part() as u8).expect("a date");
    Fact::LocalTime(LocalTime { day, time: s((hour * 60 + minute) * 60 + second) })
}

#[test]
fn overflow_fills_and_frees() {
    let verb = Verb::Overflow { links: vec![WLAN0, WWAN0], full: Ratio::percent(85) };
    let mut steering = registered(&single(rule(0, 0, verb, Fallback::NextRule)));
    // second, load of wlan0, whether it is full then
    let steps = [
        (1, 85, false),
        (2, 86, true),
        (3, 71, true),
        (4, 70, true),
        (5, 69, false),
        (6, 80, false),
        (7, 100, true),
    ];
    for (second, percent, full) in steps {
        steering.handle(s(second), load(WLAN0, percent));
        let want = if full { [WWAN0, WLAN0] } else { [WLAN0, WWAN0] };
        assert_eq!(order(&steering), want, "at {second}");
        let settled: &[Bid] = if full { &[WLAN0] } else { &[] };
        assert_eq!(says(&steering).settled, settled, "flows on a full link stay");
    }
    // A link that went has no load.
    steering.handle(s(8), Fact::Attached { bid: WLAN0, attached: false });
    steering.handle(s(9), Fact::Attached { bid: WLAN0, attached: true });
    steering.handle_deadline(s(60));
    assert_eq!(order(&steering), [WLAN0, WWAN0]);
}

#[test]
fn a_low_full_has_room_below_too() {
    let verb = Verb::Overflow { links: vec![WLAN0, WWAN0], full: Ratio::percent(40) };
    let mut steering = registered(&single(rule(0, 0, verb, Fallback::NextRule)));
    for (second, percent, first) in [(1, 41, WWAN0), (2, 36, WWAN0), (3, 34, WLAN0), (4, 40, WLAN0)]
    {
        steering.handle(s(second), load(WLAN0, percent));
        assert_eq!(order(&steering)[0], first, "at {second}");
    }
}

#[test]
fn a_challenger_wins_by_the_margin_for_five_seconds() {
    let links = vec![WLAN0, WWAN0, WWAN1];
    let verb = Verb::Fastest { links, margin: Ratio::percent(10) };
    let mut steering = registered(&single(rule(0, 0, verb, Fallback::NextRule)));
    assert_eq!(order(&steering), [WLAN0, WWAN0, WWAN1], "nothing is known");
    let mut step = |millis: u64, fact: Fact, leader: Bid, why: &str| {
        steering.handle(ms(millis), fact);
        assert_eq!(order(&steering)[0], leader, "at {millis} ms: {why}");
    };
    step(1000, rtt(WLAN0, 100), WLAN0, "the leader is known");
    step(1000, rtt(WWAN0, 91), WLAN0, "not by the margin");
    step(9000, rtt(WWAN0, 90), WLAN0, "by the margin from here on");
    step(13_999, rtt(WWAN0, 90), WLAN0, "not for 5 s");
    step(14_000, rtt(WWAN0, 90), WWAN0, "for 5 s");
    step(20_000, rtt(WLAN0, 50), WWAN0, "a challenger of its own");
    step(24_000, rtt(WLAN0, 89), WWAN0, "which gave up");
    step(25_500, rtt(WLAN0, 50), WWAN0, "and begins anew");
    step(30_000, rtt(WWAN1, 40), WWAN0, "another, faster one, is late");
    step(30_500, rtt(WWAN1, 40), WLAN0, "so the first one leads");
    step(35_499, rtt(WWAN1, 44), WLAN0, "it has to beat the new leader for 5 s too");
    step(35_500, rtt(WWAN1, 44), WWAN1, "and does");
    step(36_000, Fact::Attached { bid: WWAN1, attached: false }, WLAN0, "the next at once");
    step(37_000, rtt(WLAN0, 12), WLAN0, "");
    step(38_000, rtt(WWAN0, 8), WLAN0, "4 ms are too little");
    step(50_000, rtt(WWAN0, 7), WLAN0, "5 ms will do");
    step(55_000, rtt(WWAN0, 7), WWAN0, "after 5 s");
    steering.handle(ms(60_000), rtt(WLAN0, 1));
    assert_eq!(steering.deadline(), Some(ms(65_000)));
    steering.handle_deadline(ms(65_000));
    assert_eq!(order(&steering)[0], WLAN0, "without a further fact");
}

#[test]
fn without_measurements_the_first_link_leads_again() {
    let verb = Verb::Fastest { links: vec![WLAN0, WWAN0], margin: Ratio::percent(10) };
    let mut steering = registered(&single(rule(0, 0, verb, Fallback::NextRule)));
    steering.handle(s(10), Fact::Attached { bid: WLAN0, attached: false });
    assert_eq!(order(&steering), [WWAN0]);
    steering.handle(s(20), Fact::Attached { bid: WLAN0, attached: true });
    steering.handle_deadline(s(50));
    assert_eq!(order(&steering), [WWAN0, WLAN0]);
    steering.handle_deadline(s(55));
    assert_eq!(order(&steering), [WLAN0, WWAN0], "nobody is left on the metered link");
}

#[test]
fn equal_races_are_one() {
    let fastest =
        |margin| Verb::Fastest { links: vec![WLAN0, WWAN0], margin: Ratio::percent(margin) };
    let rules = vec![
        rule(0, 1, fastest(10), Fallback::NextRule),
        rule(1, 2, Verb::Prefer(vec![WWAN1]), Fallback::Then(fastest(10))),
        rule(2, 0, fastest(50), Fallback::NextRule),
    ];
    let mut steering = registered(&with_rules(policy(), rules));
    steering.handle(s(1), rtt(WLAN0, 100));
    steering.handle(s(1), rtt(WWAN0, 60));
    steering.handle_deadline(s(6));
    let effective = steering.effective();
    assert_eq!(effective.says[0].outcome.links(), [WWAN0, WLAN0]);
    assert_eq!(
        effective.says[1].otherwise,
        Otherwise::Then(Outcome::Candidates(vec![WWAN0, WLAN0]))
    );
    assert_eq!(effective.says[2].outcome.links(), [WLAN0, WWAN0], "the margin is half");
}

#[test]
fn a_link_leaves_its_class_and_comes_back() {
    let verb = Verb::Cheapest { links: vec![WLAN0, WWAN1], sla: Some("voice".to_owned()) };
    let mut policy = single(rule(0, 0, verb, Fallback::Any));
    policy.interfaces[0].usable.hold_up = s(5);
    let mut steering = registered(&policy);
    for (second, millis) in [(1, 150), (2, 50), (3, 150)] {
        assert_eq!(order(&steering), [WLAN0, WWAN1], "before {second}");
        steering.handle(s(second), rtt(WLAN0, millis));
    }
    assert_eq!(order(&steering), [WWAN1]);
    assert!(steering.usable(WLAN0), "other rules use it");
    assert_eq!(
        says(&steering).otherwise,
        Otherwise::Then(Outcome::Candidates(vec![WWAN0, WWAN1, SAT0, WLAN0])),
        "after the good ones"
    );
    let reason = &steering.links()[0].reason;
    assert_eq!(reason.to_string(), "out of the class `voice`");
    for second in 4..9 {
        steering.handle(s(second), rtt(WLAN0, 79));
        assert_eq!(order(&steering), [WWAN1], "at {second}");
    }
    steering.handle_deadline(s(9));
    assert_eq!(order(&steering), [WLAN0, WWAN1]);
}

#[test]
fn nobody_minds_a_class_that_no_rule_names() {
    let mut steering = registered(&policy());
    for second in 1..9 {
        steering.handle(s(second), rtt(WLAN0, 9000));
    }
    assert_eq!(notices(&mut steering), []);
}

#[test]
fn copies_on_metered_links_end_at_the_cap() {
    let links = vec![WWAN0, WWAN1, WLAN0];
    let verb = Verb::Duplicate { links, copies: 2, cap: Some(500) };
    let mut steering = registered(&single(rule(0, 0, verb, Fallback::NextRule)));
    steering.handle(s(1), at("2026-11-22", 12, 0, 0));
    let copied = |octets| Fact::Copied { rule: RuleId(0), octets };
    steering.handle(s(2), copied(499));
    assert_eq!(order(&steering), [WWAN0, WWAN1, WLAN0]);
    steering.handle(s(3), copied(1));
    assert_eq!(order(&steering), [WWAN0, WLAN0], "the first copy goes where it went");
    let rule = "default".into();
    assert_eq!(notices(&mut steering), [Notice::CapReached { rule }]);
    // The cap is of the period of wwan0, a month.
    steering.handle(s(4), at("2026-11-30", 23, 59, 59));
    assert_eq!(order(&steering), [WWAN0, WLAN0]);
    assert_eq!(steering.deadline(), Some(s(5)));
    steering.handle_deadline(s(5));
    assert_eq!(order(&steering), [WWAN0, WWAN1, WLAN0]);
}

#[test]
fn a_soft_quota_makes_a_last_resort_and_a_hard_one_an_end() {
    let verb = Verb::Prefer(vec![WWAN0, WWAN1, WLAN0]);
    let mut steering = registered(&single(rule(0, 0, verb, Fallback::NextRule)));
    steering.handle(s(1), at("2026-11-22", 12, 0, 0));
    steering.handle(s(2), carried(WWAN0, 800));
    steering.handle(s(3), carried(WWAN0, 100));
    assert_eq!(order(&steering), [WWAN0, WWAN1, WLAN0], "a warning is no limit");
    steering.handle(s(4), carried(WWAN0, 100));
    assert_eq!(order(&steering), [WWAN1, WLAN0]);
    assert!(steering.usable(WWAN0));
    steering.handle(s(5), carried(WWAN1, 5000));
    assert_eq!(order(&steering), [WLAN0]);
    assert!(!steering.usable(WWAN1));
    steering.handle(s(6), Fact::Attached { bid: WLAN0, attached: false });
    assert_eq!(order(&steering), [WWAN0], "the last resort");
    let quota = |bid, level, octets| Notice::Quota { bid, level, octets, limit: 1000 };
    let told: Vec<_> = notices(&mut steering)
        .into_iter()
        .filter(|notice| matches!(notice, Notice::Quota { .. }))
        .collect();
    let want = [
        quota(WWAN0, QuotaLevel::Warned, 800),
        quota(WWAN0, QuotaLevel::Reached, 1000),
        quota(WWAN1, QuotaLevel::Reached, 5000),
    ];
    assert_eq!(told, want);
    let bars: Vec<_> = steering.links().into_iter().map(|link| link.bar).collect();
    assert_eq!(bars, [None, Some(Bar::OverQuota), Some(Bar::Stopped), None]);
    // wwan1 has a day's quota: midnight is at second 1 + 12 h.
    let midnight = s(1 + 12 * 3600);
    steering.handle_deadline(midnight - ms(1));
    assert!(!steering.usable(WWAN1));
    steering.handle_deadline(midnight);
    assert_eq!(order(&steering), [WWAN1]);
    let want = Notice::Quota { bid: WWAN1, level: QuotaLevel::Free, octets: 0, limit: 1000 };
    assert!(notices(&mut steering).contains(&want));
    assert_eq!(steering.links()[1].quota.expect("a quota").octets, 1000, "a month's goes on");
}

#[test]
fn quotas_outlive_a_restart() {
    let policy = policy();
    let mut before = registered(&policy);
    before.handle(s(1), at("2026-11-22", 23, 0, 0));
    before.handle(s(2), carried(WWAN0, 1000));
    before.handle(s(2), carried(WWAN1, 1000));
    let ledger = before.ledger();
    // The same day, the day after, and before the clock is set.
    let restart = |time: Option<Fact>| {
        let mut after = registered(&policy);
        time.into_iter().for_each(|time| after.handle(s(5), time));
        after.restore(s(6), &ledger);
        after.links().into_iter().map(|link| link.bar).collect::<Vec<_>>()
    };
    let soft = Some(Bar::OverQuota);
    let hard = Some(Bar::Stopped);
    assert_eq!(restart(Some(at("2026-11-22", 23, 59, 0))), [None, soft, hard, None]);
    assert_eq!(restart(Some(at("2026-11-23", 0, 0, 0))), [None, soft, None, None]);
    assert_eq!(restart(Some(at("2026-12-01", 0, 0, 0))), [None, None, None, None]);
    assert_eq!(restart(None), [None, soft, hard, None]);
    let mut other = registered(&policy);
    other.restore(s(1), &Ledger::default());
    assert_eq!(other.links()[1].bar, None);
}

#[test]
fn a_ledger_is_written_and_read_as_text() {
    let mut steering = registered(&policy());
    steering.handle(s(1), at("2026-11-22", 23, 0, 0));
    steering.handle(s(2), carried(WWAN0, 17));
    let text = serde_json::to_string(&steering.ledger()).expect("text");
    assert_eq!(
        text,
        r#"{"links":{"wwan0":{"start":20758,"octets":17,"earlier":null},"wwan1":{"start":20779,"octets":0,"earlier":null}},"copies":{}}"#
    );
    assert_eq!(serde_json::from_str::<Ledger>(&text).expect("a ledger"), steering.ledger());
}

#[test]
fn when_follows_the_clock() {
    let mut written = rule(0, 0, Verb::Prefer(vec![WLAN0]), Fallback::Any);
    let night = TimeSpan { from: 22 * 60, until: 5 * 60 };
    written.when = vec![When { time: Some(night), ..When::default() }];
    let mut steering = registered(&single(written));
    let met = |steering: &Steering| says(steering).outcome != Outcome::Unmet;
    assert!(!met(&steering), "nobody knows the time");
    assert_eq!(steering.deadline(), None);
    steering.handle(s(100), at("2026-11-22", 21, 59, 30));
    assert!(!met(&steering));
    assert_eq!(steering.deadline(), Some(s(130)));
    steering.handle_deadline(s(130));
    assert!(met(&steering));
    steering.handle_deadline(s(130 + 7 * 3600 - 1));
    assert!(met(&steering));
    steering.handle_deadline(s(130 + 7 * 3600));
    assert!(!met(&steering));
    // The clock is put back.
    steering.handle(s(40_000), at("2026-11-23", 4, 0, 0));
    assert!(met(&steering));
}

#[test]
fn an_override_ends_by_itself() {
    let verb = Verb::Prefer(vec![WLAN0]);
    let mut steering = registered(&single(rule(0, 0, verb, Fallback::Any)));
    let steer = |number: u16, bid, until| {
        Box::new(Override {
            id: RuleId(RuleId::OVERRIDES + number),
            selector: TrafficSelector { protocols: vec![6], ..TrafficSelector::default() },
            bid,
            until,
            reason: None,
            text: "proto tcp".to_owned(),
        })
    };
    let (first, second) = (steer(0, WWAN0, s(600)), steer(1, WWAN1, s(300)));
    steering.handle(s(10), Fact::Steer(first.clone()));
    steering.handle(s(11), Fact::Steer(second.clone()));
    let says = |steering: &Steering, number: u16| {
        let effective = steering.effective();
        let id = RuleId(RuleId::OVERRIDES + number);
        effective.rule(id).expect("an override").says.clone()
    };
    let by = |bid: Option<Bid>| Outcome::Candidates(bid.into_iter().collect());
    assert_eq!(says(&steering, 0).outcome, by(Some(WWAN0)));
    assert_eq!(says(&steering, 0).otherwise, Otherwise::NextRule);
    assert_eq!(steering.overrides(), [*second.clone(), *first.clone()], "the newest counts first");
    // Its link goes: the next rule.
    steering.handle(s(20), Fact::Attached { bid: WWAN0, attached: false });
    assert_eq!(says(&steering, 0).outcome, by(None));
    // It wins over an operator's own wish that the link run empty, but not over `held`.
    steering.handle(s(21), Fact::Admin { bid: WWAN1, admin: Admin::Drained });
    assert_eq!(says(&steering, 1).outcome, by(Some(WWAN1)));
    steering.handle(s(22), Fact::Admin { bid: WWAN1, admin: Admin::Held });
    assert_eq!(says(&steering, 1).outcome, by(None));
    notices(&mut steering);
    assert_eq!(steering.deadline(), Some(s(300)));
    steering.handle_deadline(s(300));
    assert_eq!(steering.overrides(), [*first.clone()]);
    let replacement = steer(0, WLAN0, s(700));
    steering.handle(s(301), Fact::Steer(replacement.clone()));
    steering.handle(s(302), Fact::Unsteer(replacement.id));
    let late = steer(3, WLAN0, s(302));
    steering.handle(s(303), Fact::Steer(late.clone()));
    assert!(steering.effective().overrides.is_empty());
    let ended = |steer, end| Notice::OverrideEnded { steer, end };
    let want = [
        ended(second, OverrideEnd::Expired),
        ended(first, OverrideEnd::Replaced),
        ended(replacement, OverrideEnd::TakenBack),
        ended(late, OverrideEnd::Expired),
    ];
    assert_eq!(notices(&mut steering), want);
}

#[test]
fn links_ripen_for_each_rule_by_itself() {
    let after = |after| Failback { mode: FailbackMode::Gap, after };
    let prefer = || Verb::Prefer(vec![WLAN0, WWAN0]);
    let rules = vec![
        Rule { failback: after(s(0)), ..rule(0, 1, prefer(), Fallback::NextRule) },
        Rule { failback: after(s(30)), ..rule(1, 2, prefer(), Fallback::NextRule) },
        Rule { failback: after(s(60)), ..rule(2, 0, Verb::Prefer(vec![WLAN0]), Fallback::Any) },
    ];
    let mut steering = registered(&with_rules(policy(), rules));
    let ripe = |steering: &Steering| {
        steering.effective().says.iter().map(|says| says.ripe.clone()).collect::<Vec<_>>()
    };
    let all = [WLAN0, WWAN0, WWAN1, SAT0];
    assert_eq!(ripe(&steering), [vec![WLAN0, WWAN0], vec![], vec![]]);
    steering.handle_deadline(s(30));
    assert_eq!(ripe(&steering), [vec![WLAN0, WWAN0], vec![WLAN0, WWAN0], vec![]]);
    steering.handle_deadline(s(60));
    assert_eq!(ripe(&steering)[2].len(), all.len());
    steering.handle(s(100), Fact::Attached { bid: WLAN0, attached: false });
    steering.handle(s(101), Fact::Attached { bid: WLAN0, attached: true });
    let mut seen = Vec::new();
    while let Some(at) = steering.deadline() {
        steering.handle_deadline(at);
        let places = ripe(&steering).iter().filter(|ripe| ripe.contains(&WLAN0)).count();
        seen.push((at.as_secs(), places));
    }
    assert_eq!(seen, [(131, 1), (161, 2), (191, 3)], "after the hold of 30 s");
    // Nobody goes back to a link that is to run empty.
    steering.handle(s(200), Fact::Admin { bid: WLAN0, admin: Admin::Drained });
    assert!(ripe(&steering).iter().all(|ripe| !ripe.contains(&WLAN0)));
    assert_eq!(says(&steering).sticky.scope, Scope::Flow);
}

#[test]
fn a_new_policy_keeps_what_links_went_through() {
    let old = policy();
    let mut steering = registered(&old);
    for (down, up) in [(100, 101), (140, 141)] {
        steering.handle(s(down), Fact::Attached { bid: WLAN0, attached: false });
        steering.handle(s(up), Fact::Attached { bid: WLAN0, attached: true });
    }
    steering.handle(s(141), carried(WWAN0, 1000));
    steering.handle(s(141), rtt(WWAN0, 33));
    let steer = |number: u16, bid| {
        let id = RuleId(RuleId::OVERRIDES + number);
        let selector = TrafficSelector::default();
        let (until, reason, text) = (s(900), None, String::new());
        Box::new(Override { id, selector, bid, until, reason, text })
    };
    steering.handle(s(141), Fact::Steer(steer(0, WWAN0)));
    steering.handle(s(141), Fact::Steer(steer(1, SAT0)));
    notices(&mut steering);
    let recovering = steering.links()[0].state;
    let mut new = with_rules(
        policy(),
        vec![rule(0, 0, Verb::Prefer(vec![WWAN0, WLAN0]), Fallback::NextRule)],
    );
    new.interfaces.retain(|interface| interface.name.as_str() != "sat0");
    let before = steering.effective();
    steering.adopt(&new, home(&new), s(150));
    assert_eq!(steering.links()[0].state, recovering, "the hold goes on");
    assert_eq!(steering.deadline(), Some(s(201)), "doubled by the relapse");
    assert_eq!(order(&steering), [WWAN0], "a last resort, as wlan0 is held back");
    assert_eq!(steering.links()[1].bar, Some(Bar::OverQuota), "the quota is used up");
    assert_eq!(steering.figures(WWAN0).rtt, Some(ms(33)));
    assert!(!Arc::ptr_eq(&before, &steering.effective()));
    let end = OverrideEnd::NoSuchLink;
    assert_eq!(notices(&mut steering), [Notice::OverrideEnded { steer: steer(1, SAT0), end }]);
    assert_eq!(steering.overrides().len(), 1);
    assert_eq!(steering.links().len(), 3);
}

#[test]
fn facts_of_unknown_links_are_ignored() {
    let mut steering = registered(&policy());
    let bid = Bid::new(77).expect("not zero");
    let before = steering.effective();
    steering.handle(s(1), Fact::Registered { bid, registered: true });
    steering.handle(s(1), Fact::Measured { bid, measurement: Measurement::default() });
    steering.handle(s(1), Fact::Copied { rule: RuleId(9), octets: 1 });
    assert!(Arc::ptr_eq(&before, &steering.effective()));
    assert!(!steering.usable(bid));
    assert_eq!(steering.figures(bid).rtt, None);
}

#[test]
fn odd_clocks_do_no_harm() {
    let mut written = rule(0, 0, Verb::Prefer(vec![WLAN0]), Fallback::Any);
    let noon = TimeSpan { from: 720, until: 780 };
    written.when = vec![When { time: Some(noon), ..When::default() }];
    let mut steering = registered(&single(written));
    let days = [Day(0), Day(1), Day::LAST, Day(u32::MAX)];
    let times = [s(0), s(86_399), s(86_400), s(u64::MAX / 4)];
    let mut now = s(1);
    for day in days {
        for time in times {
            now += s(10);
            steering.handle(now, Fact::LocalTime(LocalTime { day, time }));
            let deadline = steering.deadline().expect("noon comes every day");
            assert!(deadline > now && deadline <= now + s(86_400), "{day} {time:?}: {deadline:?}");
            steering.handle_deadline(deadline);
            now = deadline;
        }
    }
}
