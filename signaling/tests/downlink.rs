//! The way down through the wire: what an agent reads from the options decides as the mobile does.

#[path = "../../policy/tests/support/random.rs"]
mod random;
#[path = "../../policy/tests/downlink/readers.rs"]
mod readers;
#[path = "../../policy/tests/downlink/worlds.rs"]
mod worlds;

use mtun_policy::downlink::{AgentDefault, MOST_FLOWS, Said, Unmatched, Untold, plan};
use mtun_policy::{Effective, FlowBinding, Origin};
use mtun_signaling::wire::option::{FlowIdentification, FlowSubOption, TrafficSelector};
use proptest::prelude::*;
use random::Random;
use readers::{decider, decision, scan, told};

/// A flow binding written as an option and read again, as it stands in a message at this offset.
fn through_the_wire(flow: &FlowBinding, offset: usize) -> FlowBinding {
    let mut option = FlowIdentification::new(flow.id, flow.priority);
    option.sub_options = vec![
        FlowSubOption::BindingReference(flow.bids.clone()),
        FlowSubOption::TrafficSelector(TrafficSelector::Binary(flow.selector.clone())),
    ];
    let mut message = vec![0; offset];
    option.emit(&mut message);
    let read = FlowIdentification::parse(&message[offset..]).expect("it is long enough");
    let selector = read.selectors().next().expect("it was written");
    let TrafficSelector::Binary(selector) = selector else { panic!("{selector:?}") };
    FlowBinding {
        id: read.flow.expect("not zero"),
        priority: read.priority.expect("not zero"),
        selector: selector.clone(),
        bids: read.references().next().expect("it was written").to_vec(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// FB-19.
    #[test]
    fn the_agent_decides_as_the_mobile_does(seed: u64, count in 1..9_usize, odd: bool) {
        let mut random = Random::new(seed);
        let target = worlds::target(&mut random);
        let rules = worlds::rules(&mut random, &target, count, odd);
        let plan = plan(&rules, &target, MOST_FLOWS, None);
        let short = |untold: &Untold| matches!(untold, Untold::Room | Untold::LaterLinks);
        prop_assume!(!plan.rules.iter().any(|rule| rule.says.untold().iter().any(short)));
        let held: Vec<FlowBinding> =
            plan.bindings.iter().zip(0..).map(|(flow, at)| through_the_wire(flow, at * 2 % 8)).collect();
        prop_assert_eq!(&held, &plan.bindings);
        let default = AgentDefault { unmatched: Unmatched::Preferred, reflect: false };
        let agent = Effective::of_flow_bindings(&held, default);
        for _ in 0..40 {
            let links = worlds::links(&mut random, &target);
            let key = worlds::packet(&mut random, &target);
            let down = agent.choose(&key.mirrored(), Origin::Home, &links, None);
            let down = decision(&down, &links);
            prop_assert_eq!(&down, &scan(&held, &key.mirrored(), &links));
            prop_assert_eq!(&down, &told(&rules, &key, &links), "{:?}", key);
            let up = rules.choose(&key, Origin::Home, &links, None);
            let by = decider(&up);
            let asked = plan.rules.iter().position(|rule| Some(rule.rule) == by);
            let asked = asked.map_or(plan.rules.len(), |at| at + 1);
            let whole = |says: &Said| matches!(says, Said::Expressed | Said::Implied);
            let up = decision(&up, &links);
            if !up.is_empty() && plan.rules[..asked].iter().all(|rule| whole(&rule.says)) {
                prop_assert_eq!(&down, &up, "{:?}", key);
            }
        }
    }
}
