//! The way down: mobiles tell their rules, agents send by them, and after quiet both ends judge
//! alike.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use mtun_dataplane::{Fate, Memory, Snapshot, explain};
use mtun_policy::downlink::{DownlinkTarget, MOST_FLOWS, Plan, Said, plan};
use mtun_policy::{Bid, Effective, FlowKey, HomeAddress, Ingress, RuleId};
use mtun_signaling::{DigestState, FlowState, FlowSupport, MobileEvent};

use crate::attacker::host_in;
use crate::fault::Fault;
use crate::mobile::Mobile;
use crate::witness::Invariant;
use crate::world::World;

/// What a mobile's agent was told of its rules.
#[derive(Debug, Default)]
pub struct Told {
    plan: Plan,
    of: Option<(Arc<Effective>, DownlinkTarget)>,
}

/// Protocols and ports of correspondents that rules speak of, and one that none does.
const SERVICES: [(u8, u16); 6] = [(6, 22), (6, 23), (6, 443), (17, 5060), (17, 9), (132, 7)];
/// Ports of mobiles: over the whole range, as `balance` cuts it.
const OWN_PORTS: [u16; 9] = [1, 9_000, 17_000, 25_000, 33_000, 41_000, 49_000, 57_000, 65_535];

/// Where a packet goes: the bindings, of copies all of them; `None` if nowhere.
fn way(snapshot: &Snapshot, key: &FlowKey) -> (Option<RuleId>, Option<Vec<Bid>>) {
    let explained = explain(snapshot, key, std::time::Duration::ZERO, Memory::default());
    let rule = explained.rule.map(|(id, _)| id);
    let bids = match explained.fate {
        Fate::Forwarded { bid, .. } => Some(bid.into_iter().collect()),
        Fate::Replicated(copies) => {
            let mut bids: Vec<Bid> = copies.iter().filter_map(|copy| copy.bid).collect();
            bids.sort_unstable();
            Some(bids)
        }
        Fate::BrokenOut { .. } | Fate::NotOurs | Fate::Dropped(_) | Fate::Refused(_) => None,
    };
    (rule, bids)
}

impl Mobile {
    /// Whether its agent is told its rules.
    fn tells(&self) -> bool {
        self.home.register.flow_bindings && self.home.register.multiple_coa
    }

    /// What its rules come to, if its agent was told otherwise.
    fn next_told(&mut self, fault: Fault) -> Option<MobileEvent> {
        if !self.tells() {
            return None;
        }
        let extensions = self.node.update_list().extensions;
        let declined = extensions.flow_bindings == FlowSupport::Yes && !extensions.reflect;
        let reflect = self.home.register.reflect;
        let bids = self.uplinks.keys().copied();
        let target = DownlinkTarget::new(self.policy(), &self.home, bids);
        let target = DownlinkTarget { reflect: reflect && !declined, ..target };
        let rules = self.effective();
        let first = self.told_rules.of.is_none();
        let known = self.told_rules.of.as_ref();
        if known.is_some_and(|(told, of)| Arc::ptr_eq(told, &rules) && *of == target)
            || fault == Fault::MobileTellsRulesOnce && !first
        {
            return None;
        }
        let plan = plan(&rules, &target, MOST_FLOWS, Some(&self.told_rules.plan));
        let same = plan.bindings == self.told_rules.plan.bindings;
        let flows = plan.bindings.clone();
        self.told_rules = Told { plan, of: Some((rules, target)) };
        (first || !same).then_some(MobileEvent::FlowsChanged { flows, reflect, copies: reflect })
    }
}

impl World {
    /// Tells a mobile's machine what its rules say, if it was told otherwise.
    pub fn tell_rules(&mut self, mobile: usize) {
        let Some(event) = self.mobiles[mobile].next_told(self.fault) else { return };
        self.coverage.count("downlink: rules told");
        self.mobile_event(mobile, event);
    }

    /// I3 of the way down: the agent holds what the mobile says it does, and sends every answer
    /// by the way of its question wherever the rule could be told.
    pub fn witness_downlink(&mut self, mobile: usize) {
        let it = &self.mobiles[mobile];
        let agent = &self.agents[it.agent];
        let list = it.node.update_list();
        let bound = list.entries.iter().any(|entry| entry.is_registered());
        let Some(entry) = agent.machine.cache().get(HomeAddress(it.home_address())) else {
            return;
        };
        if !bound || !it.tells() || it.node.is_single() {
            return;
        }
        if !agent.text.flow_bindings {
            self.coverage.count("downlink: an agent that takes none");
            // One that took some before its policy changed has said so by its silence.
            // Who wants none does not ask.
            let asks = !list.flows.is_empty();
            let believed = asks && list.extensions.flow_bindings == FlowSupport::Yes
                || list.flows.iter().any(|flow| flow.state == FlowState::Held);
            if agent.shaken > std::time::Duration::ZERO {
                self.coverage.count("downlink: an agent that takes none any more");
            }
            if !entry.flows.is_empty() || believed {
                let text = format!("mobile {mobile}: {:?}, {:?}", entry.flows, list.extensions);
                self.violate(Invariant::TablesAgree, text);
            }
            return;
        }
        let registered = |bid: &Bid| list.entries.iter().any(|entry| entry.bid == *bid);
        let (mut held, mut unsettled, mut refused) = (Vec::new(), false, false);
        for flow in &list.flows {
            match flow.state {
                FlowState::Held => held.push(flow.binding.clone()),
                FlowState::Refused(_) => refused = true,
                FlowState::Pending => unsettled |= flow.binding.bids.iter().all(registered),
            }
        }
        let complete = held.len() == list.flows.len();
        held.sort_by_key(|flow| flow.priority);
        let differs = list.extensions.digest == DigestState::Differs;
        if held != entry.flows || unsettled || differs {
            let text = format!(
                "mobile {mobile}: it has {:?} ({:?}), the agent {:?}",
                list.flows, list.extensions, entry.flows
            );
            return self.violate(Invariant::TablesAgree, text);
        }
        self.coverage.count("downlink: both ends hold the same");
        if list.extensions.digest == DigestState::Agrees {
            self.coverage.count("downlink: digests agree");
        }
        if refused {
            self.coverage.count("downlink: refused");
        }
        if entry.reflect {
            self.coverage.count("downlink: reflect agreed");
        }
        if complete {
            self.witness_ways(mobile);
        }
    }

    /// Every packet up and its answer, without anything remembered of their flows.
    fn witness_ways(&mut self, mobile: usize) {
        let it = &self.mobiles[mobile];
        let (up, down) = (it.published.load_full(), self.agents[it.agent].published.load_full());
        let inside = it.prefix().map(|prefix| host_in(prefix.net().addr(), 7));
        let far: Ipv6Addr = self.correspondents[0].address;
        let mut astray = None;
        let mut compared = 0_u64;
        for source in [Some(it.home_address()), inside].into_iter().flatten() {
            for (protocol, port) in SERVICES {
                for own_port in OWN_PORTS {
                    let key = FlowKey {
                        source: IpAddr::V6(source),
                        destination: IpAddr::V6(far),
                        protocol,
                        source_port: Some(own_port),
                        destination_port: Some(port),
                        dscp: 0,
                        ingress: Ingress::OTHER,
                        flow_label: 0,
                        spi: None,
                        icmp_type: None,
                        uid: None,
                    };
                    let (rule, Some(ways)) = way(&up, &key) else { continue };
                    let said = rule.and_then(|id| it.told_rules.plan.rule(id)).map(|it| &it.says);
                    if !said.is_none_or(|said| matches!(said, Said::Expressed | Said::Implied)) {
                        continue;
                    }
                    compared += 1;
                    let (by, back) = way(&down, &key.mirrored());
                    if back.as_ref() != Some(&ways) {
                        astray.get_or_insert_with(|| {
                            format!(
                                "mobile {mobile}: {key:?} goes up by {ways:?} ({rule:?}), its answer \
                                 down by {back:?} ({by:?})"
                            )
                        });
                    }
                }
            }
        }
        if compared > 0 {
            self.coverage.count("downlink: answers take the way of their questions");
        }
        if let Some(text) = astray {
            self.violate(Invariant::TablesAgree, text);
        }
    }
}
