//! For random rules, link states and packets the agent decides as the mobile does.

use std::net::IpAddr;

use mtun_policy::downlink::{
    AgentDefault, DownlinkTarget, MOST_FLOWS, Plan, Said, Unmatched, plan,
};
use mtun_policy::{AddressRange, Effective, FlowBinding, IpVersion, Origin, RuleId};
use proptest::prelude::*;

use crate::random::Random;
use crate::readers::{Decision, decider, decision, scan, told};
use crate::worlds::{Links, links, packet, rules, target};

const BY_PRIORITY: AgentDefault = AgentDefault { unmatched: Unmatched::Preferred, reflect: false };

/// What every agent has to be able to take.
fn is_sound(flows: &[FlowBinding], target: &DownlinkTarget, budget: u16) {
    assert!(flows.len() <= usize::from(budget.min(MOST_FLOWS)), "{} over {budget}", flows.len());
    let own: Vec<_> = target.own().collect();
    for (at, flow) in flows.iter().enumerate() {
        let ids = flows.iter().filter(|other| other.id == flow.id).count();
        assert_eq!(ids, 1, "FID {} twice", flow.id);
        assert!(at == 0 || flows[at - 1].priority < flow.priority, "FID-PRI rise: {flows:?}");
        assert!(!flow.bids.is_empty() && !flow.selector.is_empty());
        assert!(flow.bids.iter().all(|bid| target.bids.iter().any(|(known, _)| known == bid)));
        let ends = match &flow.selector.destination {
            Some(AddressRange::V4(range)) => {
                Some((IpAddr::V4(*range.start()), IpAddr::V4(*range.end())))
            }
            Some(AddressRange::V6(range)) => {
                Some((IpAddr::V6(*range.start()), IpAddr::V6(*range.end())))
            }
            None => None,
        };
        if let Some((first, last)) = ends {
            let holds = own.iter().any(|net| net.contains(&first) && net.contains(&last));
            assert!(holds, "{:?} is not the mobile's own", flow.selector);
            assert_eq!(first.is_ipv4(), flow.selector.version == IpVersion::V4);
        }
    }
}

/// The decision of an agent that holds these flow bindings.
fn at_agent(
    flows: &[FlowBinding],
    default: AgentDefault,
    key: &mtun_policy::FlowKey,
    links: &Links,
) -> Decision {
    let effective = Effective::of_flow_bindings(flows, default);
    decision(&effective.choose(&key.mirrored(), Origin::Home, links, None), links)
}

/// Whether all rules up to the one that decides are told as they are.
fn all_told_up_to(plan: &Plan, decider: Option<RuleId>) -> bool {
    for rule in &plan.rules {
        if !matches!(rule.says, Said::Expressed | Said::Implied) {
            return false;
        }
        if Some(rule.rule) == decider {
            return true;
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn the_agent_decides_as_the_mobile_does(seed: u64, count in 1..9_usize, odd: bool) {
        let mut random = Random::new(seed);
        let target = target(&mut random);
        let rules = rules(&mut random, &target, count, odd);
        let plan = plan(&rules, &target, MOST_FLOWS, None);
        is_sound(&plan.bindings, &target, MOST_FLOWS);
        // A few rules may be more than anybody holds; the budget has tests of its own.
        prop_assume!(plan.refused.is_none());
        let shortened = plan.rules.iter().any(|rule| {
            rule.says.untold().contains(&mtun_policy::downlink::Untold::LaterLinks)
        });
        prop_assume!(!shortened);
        for _ in 0..40 {
            let links = links(&mut random, &target);
            let key = packet(&mut random, &target);
            let agent = at_agent(&plan.bindings, BY_PRIORITY, &key, &links);
            prop_assert_eq!(&agent, &scan(&plan.bindings, &key.mirrored(), &links));
            let expected = told(&rules, &key, &links);
            prop_assert_eq!(&agent, &expected, "{:?}\n{:?}\n{:#?}", key, links, plan.bindings);
            // For what is told as it is, that is the mobile's own decision.
            let choice = rules.choose(&key, Origin::Home, &links, None);
            let decider = decider(&choice);
            let mobile = decision(&choice, &links);
            if !mobile.is_empty() && all_told_up_to(&plan, decider) {
                prop_assert_eq!(&agent, &mobile, "{:?}", key);
            }
            // Reflecting changes nothing for flows whose packets came up as the rules say.
            let reflect = AgentDefault { unmatched: Unmatched::Reflect, reflect: true };
            let reflecting = Effective::of_flow_bindings(&plan.bindings, reflect);
            let up = (agent.len() == 1).then(|| *agent.first().expect("one"));
            let back = reflecting.choose(&key.mirrored(), Origin::Home, &links, up);
            prop_assert_eq!(decision(&back, &links), agent);
        }
    }

    #[test]
    fn a_selector_means_the_same_in_its_three_forms(seed: u64) {
        let mut random = Random::new(seed);
        let target = target(&mut random);
        let rules = rules(&mut random, &target, 3, false);
        for flow in &plan(&rules, &target, MOST_FLOWS, None).bindings {
            let lines = flow.selector.to_traffic_selector();
            for _ in 0..40 {
                let key = packet(&mut random, &target).mirrored();
                prop_assert_eq!(flow.selector.matches(&key), lines.matches(&key));
            }
        }
    }

    #[test]
    fn numbers_stay_and_budgets_hold(seed: u64, budget in prop::sample::select(vec![0_u16, 1, 5, 16, 64])) {
        let mut random = Random::new(seed);
        let target = target(&mut random);
        let mut before = Plan::default();
        for _ in 0..6 {
            let count = 1 + random.below(10);
            // Now and then only the links change, not the rules.
            let seed = if random.percent(50) { 7 } else { random.bits() };
            let rules = rules(&mut Random::new(seed), &target, count, true);
            let now = plan(&rules, &target, budget, Some(&before));
            is_sound(&now.bindings, &target, budget);
            prop_assert_eq!(plan(&rules, &target, budget, Some(&now)).bindings, now.bindings.clone());
            for flow in &now.bindings {
                let same = |old: &&FlowBinding| (&old.selector, &old.bids) == (&flow.selector, &flow.bids);
                let known: Vec<_> = before.bindings.iter().filter(same).collect();
                prop_assert!(known.is_empty() || known.iter().any(|old| old.id == flow.id));
                if let Some(old) = before.binding(flow.id) {
                    prop_assert_eq!(&old.selector, &flow.selector, "a FID keeps its selector");
                }
            }
            if let Some(refused) = &now.refused {
                prop_assert!(refused.needed > usize::from(budget) && !refused.costliest.is_empty());
                let left = now.rules.iter().filter(|rule| {
                    rule.says.untold().contains(&mtun_policy::downlink::Untold::Room)
                });
                prop_assert!(left.count() > 0);
            }
            for rule in &now.rules {
                prop_assert!(rule.entries.iter().all(|id| now.binding(*id).is_some()));
                prop_assert_eq!(rule.instead.is_some(), !rule.says.untold().is_empty());
            }
            before = now;
        }
    }
}
