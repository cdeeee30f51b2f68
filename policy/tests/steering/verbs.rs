//! Decision tables: one for each verb, read as "in this case, these links in this order".

use mtun_policy::steering::{Given, GivenLink, GivenState, suppose};
use mtun_policy::{
    Bid, BlockReply, Choice, Circle, Fallback, Origin, Otherwise, Outcome, Position, Ratio, Rule,
    SpeedBound, TimeSpan, Usable, Verb, When,
};

use crate::home::*;

/// What is stated, in the words of `explain … given`.
fn given(text: &str) -> Given {
    let mut given = Given::default();
    for fact in text.split_whitespace() {
        let (name, value) = fact.split_once('=').expect("name=value");
        let (link, figure) = name.split_once('.').unwrap_or((name, "state"));
        let number = || value.parse::<u64>().expect("a number");
        let bid = match link {
            "wlan0" => WLAN0,
            "wwan0" => WWAN0,
            "wwan1" => WWAN1,
            "sat0" => SAT0,
            "speed" => {
                given.speed = Some(number() as u32);
                continue;
            }
            "hour" => {
                given.minute = Some(number() as u16 * 60);
                given.weekday = Some(0);
                continue;
            }
            other => panic!("{other}"),
        };
        let stated: &mut GivenLink = given.links.entry(bid).or_default();
        match figure {
            "state" => stated.state = Some(GivenState::from_word(value).expect("a state")),
            "rtt" => stated.rtt = Some(ms(number())),
            "jitter" => stated.jitter = Some(ms(number())),
            "loss" => stated.loss = Some(Ratio::percent(number() as u16)),
            "load" => stated.load = Some(Ratio::percent(number() as u16)),
            other => panic!("{other}"),
        }
    }
    given
}

fn name(bid: Bid) -> &'static str {
    ["wlan0", "wwan0", "wwan1", "sat0"][usize::from(bid.get()) - 1]
}

fn names(links: &[Bid]) -> String {
    links.iter().map(|bid| name(*bid)).collect::<Vec<_>>().join(" ")
}

/// An outcome as it stands in the tables.
fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Candidates(links) => names(links),
        Outcome::Balance(buckets) => {
            let share = |place: usize| {
                buckets.places.iter().filter(|at| usize::from(**at) == place).count()
            };
            let links = buckets.links.iter().zip(0..);
            let each = links.map(|(bid, place)| format!("{}:{}", name(*bid), share(place)));
            each.collect::<Vec<_>>().join(" ")
        }
        Outcome::Copies { links, copies } => format!("{copies} copies: {}", names(links)),
        Outcome::Breakout { links, .. } => format!("outside: {}", names(links)),
        Outcome::Reflect | Outcome::ReflectWithin(_) => "reflect".to_owned(),
        Outcome::Block(_) => "block".to_owned(),
        Outcome::Unmet => "unmet".to_owned(),
    }
}

/// What the rule says: its outcome, then `/` and its `otherwise`.
fn says(rule: &Rule, stated: &str) -> String {
    let policy = with_rules(policy(), vec![rule.clone()]);
    let supposed = suppose(&policy, home(&policy), &given(stated));
    let says = &supposed.effective.says[0];
    let otherwise = match &says.otherwise {
        Otherwise::NextRule => "next rule".to_owned(),
        Otherwise::Any => "any".to_owned(),
        Otherwise::Then(then) => outcome(then),
    };
    format!("{} / {otherwise}", outcome(&says.outcome))
}

fn table(rule: &Rule, cases: &[(&str, &str)]) {
    for (stated, want) in cases {
        assert_eq!(says(rule, stated), *want, "{} given {stated}", rule.verb.word());
    }
}

#[test]
fn prefer() {
    let verb = Verb::Prefer(vec![WWAN0, WWAN1, WLAN0]);
    table(
        &rule(0, 0, verb.clone(), Fallback::NextRule),
        &[
            ("", "wwan0 wwan1 wlan0 / next rule"),
            ("wwan0=down", "wwan1 wlan0 / next rule"),
            ("wwan0=recovering", "wwan1 wlan0 / next rule"),
            ("wwan0=held", "wwan1 wlan0 / next rule"),
            ("wwan0=degraded", "wwan0 wwan1 wlan0 / next rule"),
            // Last choices are spoken of when there is no other.
            ("wwan0=drained", "wwan1 wlan0 / next rule"),
            ("wwan0=over-quota", "wwan1 wlan0 / next rule"),
            ("wwan0=drained wwan1=down wlan0=down", "wwan0 / next rule"),
            ("wwan0=over-quota wwan1=down wlan0=held", "wwan0 / next rule"),
            ("wwan0=drained wwan1=drained wlan0=drained", "wwan0 wwan1 wlan0 / next rule"),
            // The quota of wwan1 stops it.
            ("wwan1=over-quota wwan0=down wlan0=down", " / next rule"),
            ("wwan0=down wwan1=down wlan0=down", " / next rule"),
            // The last link: good links count wherever they are.
            ("wwan0=recovering wwan1=down wlan0=down", " / next rule"),
            ("wwan0=recovering wwan1=down wlan0=down sat0=down", "wwan0 / next rule"),
            ("wwan0=recovering wwan1=down wlan0=down sat0=held", "wwan0 / next rule"),
        ],
    );
    table(
        &rule(0, 0, verb.clone(), Fallback::Any),
        &[
            ("", "wwan0 wwan1 wlan0 / wwan0 wwan1 wlan0 sat0"),
            ("wwan0=degraded", "wwan0 wwan1 wlan0 / wwan1 wlan0 sat0 wwan0"),
            ("wwan0=down wwan1=down wlan0=down", " / sat0"),
            ("wwan0=drained wwan1=down wlan0=down", " / sat0"),
            ("wwan0=drained wwan1=down wlan0=down sat0=down", "wwan0 / "),
            ("wwan0=down wwan1=down wlan0=down sat0=drained", " / sat0"),
            ("wwan0=down wwan1=down wlan0=down sat0=down", " / "),
        ],
    );
    // Pinning: a drained link before a refusal.
    let block = Fallback::Then(Verb::Block(BlockReply::Icmp));
    table(
        &rule(0, 0, Verb::Prefer(vec![WLAN0]), block),
        &[("", "wlan0 / block"), ("wlan0=drained", "wlan0 / block"), ("wlan0=down", " / block")],
    );
    let then = Fallback::Then(Verb::Prefer(vec![WLAN0, SAT0]));
    table(
        &rule(0, 0, Verb::Prefer(vec![WWAN0]), then),
        &[
            ("wwan0=down", " / wlan0 sat0"),
            ("wwan0=over-quota", " / wlan0 sat0"),
            ("wlan0=drained", "wwan0 / sat0"),
            ("wwan0=over-quota wlan0=down sat0=down", "wwan0 / "),
        ],
    );
}

#[test]
fn balance() {
    let verb = Verb::Balance(vec![(WLAN0, 3), (WWAN0, 1)]);
    table(
        &rule(0, 0, verb, Fallback::NextRule),
        &[
            ("", "wlan0:192 wwan0:64 / next rule"),
            ("wwan0=down", "wlan0:256 / next rule"),
            ("wlan0=drained", "wwan0:256 / next rule"),
            ("wlan0=drained wwan0=down", "wlan0:256 / next rule"),
            ("wlan0=down wwan0=down", " / next rule"),
        ],
    );
}

#[test]
fn overflow() {
    let verb = Verb::Overflow { links: vec![WLAN0, WWAN0, WWAN1], full: Ratio::percent(85) };
    table(
        &rule(0, 0, verb, Fallback::NextRule),
        &[
            ("", "wlan0 wwan0 wwan1 / next rule"),
            ("wlan0.load=85", "wlan0 wwan0 wwan1 / next rule"),
            ("wlan0.load=86", "wwan0 wwan1 wlan0 / next rule"),
            ("wlan0.load=86 wwan0.load=90", "wwan1 wlan0 wwan0 / next rule"),
            ("wlan0.load=86 wwan0.load=90 wwan1.load=99", "wlan0 wwan0 wwan1 / next rule"),
            ("wlan0.load=86 wwan0=down wwan1=down", "wlan0 / next rule"),
        ],
    );
}

#[test]
fn fastest() {
    let verb = Verb::Fastest { links: vec![WLAN0, WWAN0, WWAN1], margin: Ratio::percent(10) };
    table(
        &rule(0, 0, verb, Fallback::NextRule),
        &[
            ("", "wlan0 wwan0 wwan1 / next rule"),
            ("wlan0.rtt=50 wwan0.rtt=40 wwan1.rtt=45", "wwan0 wlan0 wwan1 / next rule"),
            ("wlan0.rtt=40 wwan0.rtt=40 wwan1.rtt=45", "wlan0 wwan0 wwan1 / next rule"),
            ("wwan1.rtt=900", "wwan1 wlan0 wwan0 / next rule"),
            ("wlan0.rtt=50 wwan0.rtt=40 wwan0=down", "wlan0 wwan1 / next rule"),
            ("wlan0.rtt=50 wwan0.rtt=40 wwan0=drained", "wlan0 wwan1 / next rule"),
        ],
    );
}

#[test]
fn cheapest() {
    let sla = Some("voice".to_owned());
    let verb = Verb::Cheapest { links: vec![SAT0, WWAN0, WWAN1, WLAN0], sla };
    table(
        &rule(0, 0, verb, Fallback::NextRule),
        &[
            ("", "wlan0 wwan1 wwan0 sat0 / next rule"),
            ("wlan0=down", "wwan1 wwan0 sat0 / next rule"),
            ("wlan0=degraded", "wwan1 wwan0 sat0 / next rule"),
            ("wlan0.rtt=101", "wwan1 wwan0 sat0 / next rule"),
            ("wlan0.jitter=21 wwan1.loss=2", "wwan0 sat0 / next rule"),
            ("wlan0.rtt=100 wlan0.jitter=20 wlan0.loss=1", "wlan0 wwan1 wwan0 sat0 / next rule"),
            ("wlan0=degraded wwan1=degraded wwan0=degraded sat0=degraded", " / next rule"),
            // A last choice that meets the class, before one that does not.
            ("wlan0=drained wwan1=degraded wwan0=degraded sat0=degraded", "wlan0 / next rule"),
        ],
    );
    let free = Verb::Cheapest { links: vec![WWAN0, WLAN0], sla: None };
    table(
        &rule(0, 0, free, Fallback::NextRule),
        &[("", "wlan0 wwan0 / next rule"), ("wlan0.rtt=900", "wlan0 wwan0 / next rule")],
    );
}

#[test]
fn duplicate() {
    let verb = Verb::Duplicate { links: vec![WWAN0, WLAN0, SAT0], copies: 2, cap: Some(100) };
    table(
        &rule(0, 0, verb, Fallback::NextRule),
        &[
            ("", "2 copies: wwan0 wlan0 sat0 / next rule"),
            ("wwan0=down", "2 copies: wlan0 sat0 / next rule"),
            ("wwan0=over-quota", "2 copies: wlan0 sat0 / next rule"),
            ("wwan0=down wlan0=down sat0=down", "2 copies:  / next rule"),
        ],
    );
}

#[test]
fn breakout() {
    let verb = Verb::Breakout { links: vec![WLAN0, WWAN1], translate: true };
    table(
        &rule(0, 0, verb, Fallback::Then(Verb::Block(BlockReply::Icmp))),
        &[
            ("", "outside: wlan0 wwan1 / block"),
            // Registrations and classes do not matter outside the tunnel.
            ("wlan0=recovering", "outside: wlan0 wwan1 / block"),
            ("wlan0=degraded", "outside: wlan0 wwan1 / block"),
            ("wlan0=down", "outside: wwan1 / block"),
            ("wlan0=held", "outside: wwan1 / block"),
            ("wlan0=drained", "outside: wwan1 / block"),
            ("wlan0=drained wwan1=over-quota", "outside: wlan0 / block"),
            ("wlan0=down wwan1=down", "outside:  / block"),
        ],
    );
}

#[test]
fn block() {
    let verb = Verb::Block(BlockReply::Icmp);
    table(
        &rule(0, 0, verb, Fallback::NextRule),
        &[("", "block / next rule"), ("wlan0=down wwan0=down", "block / next rule")],
    );
}

#[test]
fn when() {
    let slow = When { speed: Some(SpeedBound::Below(139)), ..When::default() };
    let night = TimeSpan { from: 22 * 60, until: 5 * 60 };
    let night = When { time: Some(night), ..When::default() };
    let mut rule = rule(0, 0, Verb::Prefer(vec![WLAN0]), Fallback::Any);
    rule.when = vec![slow, night];
    table(
        &rule,
        &[
            ("", "unmet / wwan0 wwan1 wlan0 sat0"),
            ("speed=100", "wlan0 / wwan0 wwan1 wlan0 sat0"),
            ("speed=139", "unmet / wwan0 wwan1 wlan0 sat0"),
            ("hour=23", "wlan0 / wwan0 wwan1 wlan0 sat0"),
            ("hour=6", "unmet / wwan0 wwan1 wlan0 sat0"),
            ("hour=6 wwan0=drained", "unmet / wwan1 wlan0 sat0"),
            ("hour=6 wwan0=drained wwan1=down wlan0=down sat0=down", "unmet / wwan0"),
            ("speed=100 wlan0=down", " / wwan0 wwan1 sat0"),
            ("speed=100 wlan0=drained", " / wwan0 wwan1 sat0"),
        ],
    );
    // Of a question nobody remembers where the vehicle was: the inner limit counts.
    let at = Position::from_words("48.0,11.0").unwrap();
    let circle = Circle { at, enter: 300, leave: 400 };
    let near = When { near: Some(circle), ..When::default() };
    let asked = |metres: f64| {
        let lines = std::slice::from_ref(&near);
        let rule = Rule { when: lines.to_vec(), ..rule.clone() };
        let policy = with_rules(policy(), vec![rule]);
        let position = Position::from_degrees(48.0 + metres / 111_195.0, 11.0);
        let given = Given { position, ..Given::default() };
        let supposed = suppose(&policy, home(&policy), &given);
        supposed.effective.says[0].outcome != Outcome::Unmet
    };
    assert_eq!([0.0, 290.0, 350.0, 450.0].map(asked), [true, true, false, false]);
    rule.otherwise = Fallback::Then(Verb::Block(BlockReply::Reset));
    table(&rule, &[("", "unmet / block"), ("speed=1 wlan0=drained", "wlan0 / block")]);
    rule.otherwise = Fallback::NextRule;
    table(&rule, &[("", "unmet / next rule")]);
}

#[test]
fn links_of_a_question() {
    let policy = policy();
    let ask = |stated: &str| suppose(&policy, home(&policy), &given(stated));
    // wlan0, wwan0, wwan1, sat0: state and reason
    let cases: &[(&str, Bid, &str, &str, bool)] = &[
        ("", WLAN0, "up", "good", true),
        ("wlan0=degraded", WLAN0, "degraded", "supposed", true),
        ("wlan0=down", WLAN0, "down", "no carrier or no care-of address", false),
        (
            "wlan0=recovering",
            WLAN0,
            "recovering",
            "good again, held back after: no carrier or no care-of address",
            false,
        ),
        (
            "wlan0=recovering wwan0=down wwan1=down sat0=down",
            WLAN0,
            "degraded",
            "used as the last link in spite of: no carrier or no care-of address",
            true,
        ),
        ("wlan0=held", WLAN0, "up", "good", false),
        ("wwan1=over-quota", WWAN1, "up", "good", false),
        ("wwan0=over-quota", WWAN0, "up", "good", true),
    ];
    for (stated, bid, state, reason, usable) in cases {
        let supposed = ask(stated);
        let link = supposed.links.iter().find(|link| link.bid == *bid).expect("a link");
        let found = (link.state.word(), link.reason.to_string(), link.usable);
        assert_eq!(found, (*state, (*reason).to_owned(), *usable), "{stated}");
        assert_eq!(supposed.usable(*bid), *usable, "{stated}");
    }
    assert_eq!(ask("").preferred(), Some(WWAN0), "the lowest BID-PRI");
    assert_eq!(ask("wwan0=drained").preferred(), Some(WWAN1));
    assert_eq!(ask("wwan0=degraded wwan1=down").preferred(), Some(WLAN0));
    assert!(ask("wlan0=recovering").attached(WLAN0));
    assert!(!ask("wlan0=down").attached(WLAN0));
}

#[test]
fn a_question_is_answered_by_the_walk() {
    let policy = with_rules(
        policy(),
        vec![
            rule(0, 22, Verb::Prefer(vec![WWAN0, WWAN1]), Fallback::NextRule),
            rule(1, 0, Verb::Prefer(vec![WLAN0]), Fallback::Any),
        ],
    );
    let cases: &[(u16, &str, Option<Bid>)] = &[
        (22, "", Some(WWAN0)),
        (22, "wwan0=down", Some(WWAN1)),
        (22, "wwan0=down wwan1=over-quota", Some(WLAN0)),
        (22, "wwan0=drained wwan1=over-quota", Some(WWAN0)),
        (80, "", Some(WLAN0)),
        (80, "wlan0=down", Some(WWAN0)),
        (80, "wlan0=down wwan0=over-quota", Some(WWAN1)),
        (80, "wlan0=held wwan0=over-quota wwan1=over-quota sat0=down", Some(WWAN0)),
        (80, "wlan0=down wwan0=down wwan1=down sat0=recovering", Some(SAT0)),
        (80, "wlan0=down wwan0=down wwan1=down sat0=held", None),
    ];
    for (port, stated, want) in cases {
        let supposed = suppose(&policy, home(&policy), &given(stated));
        let choice = supposed.effective.choose(&flow(*port), Origin::Home, &supposed, None);
        let found = match choice {
            Choice::Use { bid, .. } => Some(bid),
            Choice::Nothing(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(found, *want, "port {port} given {stated}");
    }
}
