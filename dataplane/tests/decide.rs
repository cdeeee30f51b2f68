//! The decision, row by row.

mod support;

use std::net::{IpAddr, Ipv4Addr};

use mtun_dataplane::{
    Decision, DropReason, Encapsulation, Memory, PathId, Remembered, Side, Snapshot, decide,
};
use mtun_policy::{
    Bid, BlockReply, CareOfAddress, Effective, FlowKey, HomeAddress, Otherwise, Outcome, RuleId,
};
use support::*;

/// What a table row expects.
#[derive(Debug, PartialEq)]
enum Want {
    Pass,
    By { bid: Option<Bid>, rule: Option<u16>, from: &'static str, to: &'static str },
    Drop(DropReason),
    Refuse(BlockReply),
}

fn by(number: u16, rule: u16, from: &'static str, to: &'static str) -> Want {
    Want::By { bid: Some(bid(number)), rule: Some(rule), from, to }
}

fn check(what: &str, decision: &Decision<'_>, want: &Want) {
    match (decision, want) {
        (Decision::Pass, Want::Pass) => {}
        (Decision::Drop(reason), Want::Drop(wanted)) => assert_eq!(reason, wanted, "{what}"),
        (Decision::Refuse { reply, .. }, Want::Refuse(wanted)) => {
            assert_eq!(reply, wanted, "{what}");
        }
        (Decision::Forward(route), Want::By { bid, rule, from, to }) => {
            assert_eq!(route.binding.bid, *bid, "{what}");
            assert_eq!(route.rule, rule.map(RuleId), "{what}");
            let tunnel = Encapsulation::Tunnel { source: v6(from), destination: v6(to) };
            assert_eq!(route.encapsulation, tunnel, "{what}");
        }
        (decision, want) => panic!("{what}: {decision:?} instead of {want:?}"),
    }
}

#[test]
fn a_mobile_sends_by_its_rules() {
    let snapshot = mobile();
    let own_net = "2001:db8:100:42ff::1";
    let cases: &[(&str, FlowKey, Want)] = &[
        ("node, bulk", key(HOME, PEER, 6, Some((9, 80))), by(1, 3, WLAN, AGENT)),
        ("node, SSH", key(HOME, PEER, 6, Some((9, 22))), by(2, 0, WWAN, AGENT)),
        ("router, bulk", key(INSIDE, PEER, 17, Some((9, 53))), by(1, 3, WLAN, AGENT)),
        ("router, SSH", key(INSIDE, PEER, 6, Some((9, 22))), by(2, 0, WWAN, AGENT)),
        ("no ports", key(HOME, PEER, 58, None), by(1, 3, WLAN, AGENT)),
        ("refused, reset", key(HOME, PEER, 6, Some((9, 23))), Want::Refuse(BlockReply::Reset)),
        ("refused, ICMP", key(HOME, PEER, 17, Some((9, 23))), Want::Refuse(BlockReply::Icmp)),
        ("to the agent itself", key(HOME, AGENT, 58, None), by(1, 3, WLAN, AGENT)),
        ("signalling of a node behind", key(INSIDE, PEER, 135, None), by(1, 3, WLAN, AGENT)),
        ("foreign source", key("2001:db8:9::1", PEER, 6, None), Want::Pass),
        ("care-of source", key(WLAN, PEER, 41, None), Want::Pass),
        ("towards home, not from it", key(PEER, HOME, 6, None), Want::Pass),
        ("own prefix to own prefix", key(HOME, own_net, 6, None), Want::Drop(DropReason::Hairpin)),
    ];
    for (what, key, want) in cases {
        check(what, &decide(&snapshot, key, NOW, Memory::default()), want);
    }
}

#[test]
fn an_agent_sends_by_the_rules_of_the_mobile() {
    let snapshot = agent_with(registration(routed(uplinks()), figure_11()));
    let cases: &[(&str, FlowKey, Want)] = &[
        ("home address", key(PEER, HOME, 17, Some((53, 9))), by(1, 3, AGENT, WLAN)),
        ("in the prefix", key(PEER, INSIDE, 6, Some((9, 22))), by(2, 0, AGENT, WWAN)),
        (
            "signalling skips the rules",
            key(PEER, HOME, 135, None),
            Want::By { bid: Some(bid(1)), rule: None, from: AGENT, to: WLAN },
        ),
        ("nobody's home", key(PEER, "2001:db8:100::43", 6, None), Want::Pass),
        ("from home, not towards it", key(HOME, PEER, 6, None), Want::Pass),
        ("to itself", key(INSIDE, HOME, 6, None), Want::Drop(DropReason::Hairpin)),
    ];
    for (what, key, want) in cases {
        check(what, &decide(&snapshot, key, NOW, Memory::default()), want);
    }
}

#[test]
fn signalling_takes_the_preferred_binding_even_where_rules_block() {
    let block = Effective::new([rule(
        0,
        Vec::new(),
        Outcome::Block(BlockReply::Silent),
        Otherwise::NextRule,
    )]);
    let mut bindings = routed(uplinks());
    bindings[0].priority = 9;
    let snapshot = agent_with(registration(bindings, block.into()));
    let decision = decide(&snapshot, &key(PEER, HOME, 135, None), NOW, Memory::default());
    let want = Want::By { bid: Some(bid(2)), rule: None, from: AGENT, to: WWAN };
    check("preferred", &decision, &want);
    check(
        "data",
        &decide(&snapshot, &key(PEER, HOME, 6, None), NOW, Memory::default()),
        &Want::Refuse(BlockReply::Silent),
    );
}

#[test]
fn a_home_without_usable_bindings_drops() {
    let mut lost = uplinks();
    lost.iter_mut().for_each(|binding| binding.usable = false);
    let mut ipv4 = vec![binding(Some(1), WLAN, PathId(1))];
    ipv4[0].care_of = CareOfAddress(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
    for (what, bindings) in [("none", Vec::new()), ("lost", lost), ("IPv4 care-of", ipv4)] {
        let near = mobile_with(registration(bindings.clone(), figure_11()));
        let far = agent_with(registration(bindings, figure_11()));
        let want = Want::Drop(DropReason::NoUsableBinding);
        check(
            what,
            &decide(&near, &key(HOME, PEER, 6, Some((9, 80))), NOW, Memory::default()),
            &want,
        );
        check(
            what,
            &decide(&far, &key(PEER, INSIDE, 6, Some((9, 80))), NOW, Memory::default()),
            &want,
        );
        check(what, &decide(&far, &key(PEER, HOME, 135, None), NOW, Memory::default()), &want);
    }
}

#[test]
fn a_lost_uplink_sends_flows_to_the_next() {
    let mut bindings = uplinks();
    bindings[1].usable = false;
    let snapshot = mobile_with(registration(bindings, figure_11()));
    let ssh = decide(&snapshot, &key(HOME, PEER, 6, Some((9, 22))), NOW, Memory::default());
    check("SSH falls to the next rule", &ssh, &by(1, 3, WLAN, AGENT));
}

#[test]
fn reflect_follows_the_last_verified_binding() {
    let snapshot = agent();
    let flow = key(PEER, HOME, 6, Some((22, 9)));
    let verified =
        |number: u16| Remembered { last_verified: Some(bid(number)), ..Remembered::default() };
    check("never seen", &decide(&snapshot, &flow, NOW, Memory::default()), &by(1, 0, AGENT, WLAN));
    check(
        "seen on 2",
        &decide(&snapshot, &flow, NOW, Memory::of(&verified(2))),
        &by(2, 0, AGENT, WWAN),
    );
    check("gone", &decide(&snapshot, &flow, NOW, Memory::of(&verified(3))), &by(1, 0, AGENT, WLAN));
}

#[test]
fn a_registration_without_bid_is_preferred_and_never_named() {
    let unnamed = vec![binding(None, WLAN, PathId::ROUTED)];
    let flow = key(PEER, HOME, 6, Some((22, 9)));
    let reflecting = agent_with(registration(unnamed.clone(), Effective::reflecting()));
    let want = Want::By { bid: None, rule: Some(0), from: AGENT, to: WLAN };
    check("reflecting", &decide(&reflecting, &flow, NOW, Memory::default()), &want);
    // Every number, so that whichever stands in for the missing one is among them.
    let every = (1..=u16::MAX).map(bid).collect();
    let block = Otherwise::Then(Outcome::Block(BlockReply::Silent));
    let named = rule(0, Vec::new(), Outcome::Candidates(every), block);
    let snapshot = agent_with(registration(unnamed, Effective::new([named]).into()));
    check(
        "named",
        &decide(&snapshot, &flow, NOW, Memory::default()),
        &Want::Refuse(BlockReply::Silent),
    );
}

#[test]
fn a_remembered_answer_holds_until_something_it_depends_on_changes() {
    let before = mobile();
    let flow = key(HOME, PEER, 6, Some((9, 22)));
    let Decision::Forward(route) = decide(&before, &flow, NOW, Memory::default()) else {
        panic!("forwarded")
    };
    let memory = Remembered {
        answer: Some(route.answer(&flow, Memory::default())),
        ..Remembered::default()
    };
    let generation = route.registration.generation;

    // A move and a refresh: same generation, new care-of address.
    let mut moved = uplinks();
    moved[1].care_of = CareOfAddress::from(v6("2001:db8:2::8"));
    moved[1].mtu = 1400;
    let after = Snapshot {
        updates: before.updates.with(registration(moved, figure_11())),
        ..before.clone()
    };
    let Decision::Forward(route) = decide(&after, &flow, NOW, Memory::of(&memory)) else {
        panic!()
    };
    assert_eq!(route.registration.generation, generation);
    assert_eq!(route.binding.care_of, CareOfAddress::from(v6("2001:db8:2::8")));

    // Other rules: another generation, and the memory is not used.
    let swapped = Effective::new([rule(
        0,
        Vec::new(),
        Outcome::Candidates(vec![bid(1)]),
        Otherwise::NextRule,
    )]);
    let after = Snapshot {
        updates: before.updates.with(registration(uplinks(), swapped.into())),
        ..before.clone()
    };
    assert!(after.updates.get(HomeAddress(v6(HOME))).unwrap().generation > generation);
    check("other rules", &decide(&after, &flow, NOW, Memory::of(&memory)), &by(1, 0, WLAN, AGENT));

    // Another DSCP is another question.
    let figure = figure_11();
    let mut rules: Vec<_> = figure.rules().map(|r| (r.head.clone(), r.says.clone())).collect();
    rules[0].0.selectors[0].dscps = vec![0];
    let rules = Effective::new(rules);
    let picky = mobile_with(registration(uplinks(), rules.into()));
    let Decision::Forward(route) = decide(&picky, &flow, NOW, Memory::default()) else { panic!() };
    let memory = Remembered {
        answer: Some(route.answer(&flow, Memory::default())),
        ..Remembered::default()
    };
    let marked = FlowKey { dscp: 46, ..flow };
    check("marked", &decide(&picky, &marked, NOW, Memory::of(&memory)), &by(1, 3, WLAN, AGENT));
}

/// `reflect` within the bindings that a flow binding of the mobile names, as a table: what was
/// verified counts only among them and while it is usable; else their order, else the next rule.
#[test]
fn reflect_stays_within_what_the_entry_allows() {
    let next = Otherwise::NextRule;
    let rules = |within: &[u16]| {
        let within = within.iter().map(|number| bid(*number)).collect();
        let entry = rule(0, to_port(6, 9), Outcome::ReflectWithin(within), next.clone());
        // What no active entry speaks of: the lowest BID-PRI.
        let default = rule(1, Vec::new(), Outcome::Unmet, Otherwise::Any);
        Effective::new([entry, default]).into()
    };
    let flow = key(PEER, HOME, 6, Some((22, 9)));
    let bindings = |down: &[u16]| {
        let third = binding(Some(3), "2001:db8:3::7", PathId::ROUTED);
        let mut all = routed(uplinks());
        all.push(third);
        for it in &mut all {
            it.usable = it.bid.is_none_or(|bid| !down.contains(&bid.get()));
        }
        all
    };
    type Case<'c> = (&'c str, &'c [u16], Option<u16>, &'c [u16], Option<u16>);
    let cases: [Case<'_>; 8] = [
        ("nothing verified: the order of the entry", &[2, 1], None, &[], Some(2)),
        ("verified and named", &[2, 1], Some(1), &[], Some(1)),
        ("verified by what the entry does not name", &[2, 1], Some(3), &[], Some(2)),
        ("verified and gone", &[2, 1], Some(1), &[1], Some(2)),
        ("verified by what never was", &[2, 1], Some(9), &[], Some(2)),
        ("one of two left, the other verified", &[2, 1], Some(2), &[2], Some(1)),
        // req FB-14, FB-15: an entry without a usable binding is skipped, and what no entry
        // speaks of takes the lowest BID-PRI.
        ("none left: the entry is skipped", &[2, 3], Some(2), &[2, 3], None),
        ("one only", &[3], Some(1), &[], Some(3)),
    ];
    for (what, within, verified, down, want) in cases {
        let snapshot = agent_with(registration(bindings(down), rules(within)));
        let memory = Remembered { last_verified: verified.map(bid), ..Remembered::default() };
        let Decision::Forward(route) = decide(&snapshot, &flow, NOW, Memory::of(&memory)) else {
            panic!("{what}: forwarded")
        };
        assert_eq!(route.rule, Some(RuleId(u16::from(want.is_none()))), "{what}");
        assert_eq!(route.binding.bid, want.or(Some(1)).map(bid), "{what}");
    }
}

#[test]
fn generations_rise_with_decisions_only() {
    let table = mobile().updates;
    let generation =
        |table: &mtun_dataplane::BindingTable| table.get(HomeAddress(v6(HOME))).unwrap().generation;
    let first = generation(&table);
    let change = |change: &dyn Fn(&mut mtun_dataplane::Registration)| {
        let mut next = registration(uplinks(), figure_11());
        change(&mut next);
        generation(&table.with(next))
    };
    type Case<'c> = (&'c str, &'c dyn Fn(&mut mtun_dataplane::Registration));
    let keeps: [Case<'_>; 4] = [
        ("refresh", &|_| {}),
        ("move", &|r| r.bindings[0].care_of = CareOfAddress::from(v6("2001:db8:1::8"))),
        ("MTU", &|r| r.bindings[0].mtu = 1400),
        ("order", &|r| r.bindings.reverse()),
    ];
    for (what, apply) in keeps {
        assert_eq!(change(apply), first, "{what}");
    }
    let raises: [Case<'_>; 5] = [
        ("lost", &|r| r.bindings[0].usable = false),
        ("gone", &|r| r.bindings.truncate(1)),
        ("priority", &|r| r.bindings[0].priority = 7),
        ("rules", &|r| r.policy = Effective::reflecting()),
        ("prefixes", &|r| r.prefixes.clear()),
    ];
    for (what, apply) in raises {
        assert!(change(apply) > first, "{what}");
    }
}

#[test]
fn tables_find_by_address_then_by_longest_prefix() {
    let mut host = registration(uplinks(), figure_11());
    host.home_address = HomeAddress(v6(INSIDE));
    host.prefixes.clear();
    let table = mobile().updates.with(host);
    let found = |table: &mtun_dataplane::BindingTable, address: &str| {
        table.lookup(IpAddr::V6(v6(address))).map(|r| r.home_address.0)
    };
    assert_eq!(found(&table, HOME), Some(v6(HOME)));
    assert_eq!(found(&table, INSIDE), Some(v6(INSIDE)), "a home inside another's prefix");
    assert_eq!(found(&table, "2001:db8:100:4201::8"), Some(v6(HOME)));
    assert_eq!(found(&table, PEER), None);
    assert_eq!(table.len(), 2);
    let without = table.without(HomeAddress(v6(HOME)));
    assert_eq!(found(&without, HOME), None);
    assert_eq!(found(&without, "2001:db8:100:4201::8"), None);
    assert_eq!(found(&without, INSIDE), Some(v6(INSIDE)));
    assert_eq!((without.len(), table.len()), (1, 2), "the older version is untouched");
}

#[test]
fn few_prefixes_and_many_are_searched_alike() {
    let with_prefix = |number: u16, prefix: &str| {
        let mut home = registration(uplinks(), figure_11());
        home.home_address = HomeAddress(v6(&format!("2001:db8:300::{number:x}")));
        home.prefixes =
            vec![mtun_policy::MobileNetworkPrefix::new(prefix.parse().unwrap()).unwrap()];
        home
    };
    let wide_and_narrow = [with_prefix(1, "2001:db8:a::/48"), with_prefix(2, "2001:db8:a:1::/64")];
    let mut table: mtun_dataplane::BindingTable = wide_and_narrow.into_iter().collect();
    for number in 3..20 {
        let found = |address: &str| {
            table.lookup(IpAddr::V6(v6(address))).map(|r| r.home_address.0.segments()[7])
        };
        assert_eq!(found("2001:db8:a::1"), Some(1), "with {} prefixes", table.len());
        assert_eq!(found("2001:db8:a:1::1"), Some(2), "with {} prefixes", table.len());
        assert_eq!(found("2001:db8:b::1"), None, "with {} prefixes", table.len());
        table = table.with(with_prefix(number, &format!("2001:db8:c:{number:x}::/64")));
    }
    // And back: who goes takes its prefix along, the wider one answers again.
    for number in (2..20).rev() {
        table = table.without(HomeAddress(v6(&format!("2001:db8:300::{number:x}"))));
    }
    let found = table.lookup(IpAddr::V6(v6("2001:db8:a:1::1")));
    assert_eq!(found.map(|r| r.home_address.0.segments()[7]), Some(1));
}

#[test]
fn near_comes_before_far() {
    // A home agent that is itself a mobile: its own home decides for its own packets.
    let mut served = registration(routed(uplinks()), Effective::reflecting());
    served.home_address = HomeAddress(v6("2001:db8:200::5"));
    served.prefixes.clear();
    served.peer = v6("2001:db8:200::1");
    let snapshot = Snapshot { cache: [served].into_iter().collect(), ..mobile() };
    let flow = key(HOME, "2001:db8:200::5", 6, Some((9, 80)));
    let Decision::Forward(route) = decide(&snapshot, &flow, NOW, Memory::default()) else {
        panic!()
    };
    assert_eq!(route.side, Side::Near);
}
