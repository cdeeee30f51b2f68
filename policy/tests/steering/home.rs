//! A home of four links whose rules are built by hand, and a clock to steer it by.
//!
//! ```text
//!   1 wlan0  priority 20
//!   2 wwan0  priority 10  metered, 4.50 EUR/GB, 1,000 octets a month, then a last resort
//!   3 wwan1  priority 11  metered, 2.00 EUR/GB, 1,000 octets a day, then stopped
//!   4 sat0   priority 30  metered, price unknown
//! ```

use std::sync::Arc;
use std::time::Duration;

use mtun_policy::steering::{Fact, Measurement, Notice};
use mtun_policy::{
    AtLimit, Bid, Cost, Failback, Fallback, FlowKey, Home, Ingress, NoFiles, Period, Policy, Quota,
    Ratio, Rule, RuleHead, RuleId, RuleName, RuleSet, Sla, Steering, Sticky, TrafficSelector, Verb,
    parse,
};

pub const WLAN0: Bid = bid(1);
pub const WWAN0: Bid = bid(2);
pub const WWAN1: Bid = bid(3);
pub const SAT0: Bid = bid(4);

pub const LINKS: [Bid; 4] = [WLAN0, WWAN0, WWAN1, SAT0];

const fn bid(number: u16) -> Bid {
    Bid::new(number).expect("not zero")
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The policy; its only home has the rule `default { prefer wlan0; otherwise any }`.
pub fn policy() -> Policy {
    let text = r#"
        role "mobile-node"
        interface wlan0 { bid 1; priority 20; }
        interface wwan0 { bid 2; priority 10; }
        interface wwan1 { bid 3; priority 11; }
        interface sat0 { bid 4; priority 30; }
        home acme {
            tunnel mtun0
            agent "2001:db8:100::1"
            address "2001:db8:100::42/64"
            register flow-bindings=#false
            security none
        }
        rules { default { prefer wlan0; otherwise any; } }
    "#;
    let mut policy = parse("test.kdl", text, &NoFiles).expect("a policy");
    let cost = |micros| {
        Some(Cost {
            micros_per_gigabyte: micros,
            roaming_micros_per_gigabyte: None,
            currency: "EUR".to_owned(),
        })
    };
    let quota = |per, at_limit| {
        Some(Quota { octets: 1000, per, starts: 1, warn: Ratio::percent(80), at_limit })
    };
    let [wlan0, wwan0, wwan1, sat0] = policy.interfaces.as_mut_slice() else {
        panic!("four links");
    };
    for link in [&mut *wwan0, &mut *wwan1, &mut *sat0] {
        link.metered = true;
    }
    wlan0.metered = false;
    wwan0.cost = cost(4_500_000);
    wwan0.quota = quota(Period::Month, AtLimit::LastResort);
    wwan1.cost = cost(2_000_000);
    wwan1.quota = quota(Period::Day, AtLimit::Stop);
    policy.slas = vec![Sla {
        name: "voice".to_owned(),
        rtt: Some(ms(100)),
        jitter: Some(ms(20)),
        loss: Some(Ratio::percent(1)),
    }];
    policy
}

/// Gives the home these rules.
pub fn with_rules(mut policy: Policy, rules: Vec<Rule>) -> Policy {
    policy.homes[0].rules = RuleSet::new(rules);
    policy
}

/// The home of [`policy`].
pub fn home(policy: &Policy) -> &Home {
    &policy.homes[0]
}

/// A rule for TCP to this port; port 0 is every packet.
pub fn rule(place: u16, port: u16, verb: Verb, otherwise: Fallback) -> Rule {
    let selector = TrafficSelector {
        protocols: vec![6],
        destination_ports: vec![port..=port],
        ..TrafficSelector::default()
    };
    let name = if port == 0 { "default".to_owned() } else { format!("port-{port}") };
    Rule {
        head: Arc::new(RuleHead {
            id: RuleId(place),
            name: RuleName::new(name),
            selectors: if port == 0 { Vec::new() } else { vec![selector] },
            exclude: Vec::new(),
            identity: u64::from(place) + 1,
            optimize: None,
        }),
        file: "test.kdl".to_owned(),
        line: usize::from(place) + 1,
        when: Vec::new(),
        verb,
        otherwise,
        sticky: Sticky::default(),
        together: None,
        failback: Failback::default(),
    }
}

/// A flow to this port.
pub fn flow(port: u16) -> FlowKey {
    FlowKey {
        source: "2001:db8:100::42".parse().expect("an address"),
        destination: "2001:db8:c::9".parse().expect("an address"),
        protocol: 6,
        source_port: Some(40_000),
        destination_port: Some(port),
        dscp: 0,
        ingress: Ingress::LOCAL,
        flow_label: 0,
        spi: None,
        icmp_type: None,
        uid: None,
    }
}

/// Steering with all links attached and registered at second 0.
pub fn registered(policy: &Policy) -> Steering {
    let mut steering = Steering::new(policy, home(policy), s(0));
    for bid in LINKS {
        steering.handle(s(0), Fact::Attached { bid, attached: true });
        steering.handle(s(0), Fact::Registered { bid, registered: true });
    }
    while steering.poll().is_some() {}
    steering
}

/// A window in which only the round trip time was measured.
pub fn rtt(bid: Bid, rtt: u64) -> Fact {
    let measurement = Measurement { rtt: Some(ms(rtt)), ..Measurement::default() };
    Fact::Measured { bid, measurement }
}

/// All notices that wait.
pub fn notices(steering: &mut Steering) -> Vec<Notice> {
    std::iter::from_fn(|| steering.poll()).collect()
}
