//! The end of a life: the links are good, nobody attacks, and both ends come to hold the same.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, HomeAddress};
use mtun_signaling::{MobileEvent, Phase};

use crate::mobile::v6;
use crate::witness::Invariant;
use crate::world::World;

/// The longest wait after refusals is 320 s (`MAX_REFUSAL_WAIT`), the longest lifetime 120 s.
const QUIET: Duration = Duration::from_secs(900);

impl World {
    /// Quiet, the comparison of all lists, a question that must be answered, and the end.
    pub fn converge(&mut self) {
        self.tell(|| "quiet".to_owned());
        self.heal();
        self.run_until(self.now + QUIET);
        for mobile in 0..self.mobiles.len() {
            if self.violation.is_none() {
                self.witness_converged(mobile);
                self.witness_downlink(mobile);
                self.witness_mobile(mobile);
            }
        }
        self.witness_everything();
        if self.violation.is_none() {
            self.question();
        }
        if self.violation.is_none() {
            self.stop();
        }
    }

    /// I3: update list and binding cache hold the same; the tables of packets were compared with
    /// them at every step.
    fn witness_converged(&mut self, mobile: usize) {
        let it = &self.mobiles[mobile];
        let agent = &self.agents[it.agent];
        let list = it.node.update_list();
        let bound: BTreeMap<Bid, Ipv6Addr> = list
            .entries
            .iter()
            .filter(|entry| entry.expires.is_some())
            .filter_map(|entry| Some((entry.bid, v6(entry.care_of)?)))
            .collect();
        let entry = agent.machine.cache().get(HomeAddress(it.home_address()));
        let held = entry.map_or(&[][..], |entry| &entry.bindings);
        let up = it.uplinks.values().filter(|uplink| uplink.attached.is_some()).count();
        let single = it.node.is_single();
        let most = if single { 1 } else { usize::from(agent.text.max_bindings) };
        let want = up.min(most);
        let alike = held.len() == bound.len()
            && held.iter().all(|held| {
                let care_of = v6(held.care_of);
                match held.bid {
                    Some(bid) => !single && bound.get(&bid).copied() == care_of,
                    None => single && bound.values().any(|it| Some(*it) == care_of),
                }
            });
        let present = bound.iter().all(|(bid, care_of)| {
            it.uplinks[bid].attached.is_some_and(|attached| attached.care_of == *care_of)
        });
        let unsettled = [Phase::Leaving, Phase::Deregistering];
        let settled = list.entries.iter().all(|entry| !unsettled.contains(&entry.phase));
        let prefixes =
            entry.is_none_or(|entry| entry.prefixes == it.prefix().into_iter().collect::<Vec<_>>());
        if bound.len() != want || !alike || !present || !settled || !prefixes {
            let text = format!("mobile {mobile}, {up} up, wants {want}: {list:?} and {held:?}");
            self.violate(Invariant::TablesAgree, text);
        }
        self.coverage.count("converged");
    }

    /// Every mobile that is bound asks, and is asked, and both get an answer.
    fn question(&mut self) {
        let mut asked = Vec::new();
        for mobile in 0..self.mobiles.len() {
            if self.mobiles[mobile].acknowledged.is_empty() {
                self.coverage.count("converged: without an uplink");
                continue;
            }
            let destination = self.correspondents[0].address;
            let inside = self.mobiles[mobile].prefix().is_some();
            for inside in [false, inside] {
                let ports = (50_000 + u16::from(inside), 443);
                asked.push((mobile, self.ask(mobile, inside, destination, true, ports, 0)));
            }
            // One from outside.
            let label = self.label();
            let flow = crate::packet::Flow {
                source: destination,
                destination: self.address_of(mobile, inside),
                tcp: true,
                ports: (51_000, 443),
            };
            let link = self.correspondents[0].link;
            let packet = crate::packet::data(flow, label, 0);
            self.route(link, false, packet, crate::forward::Passed::FRESH);
            asked.push((mobile, label.serial));
        }
        self.run_until(self.now + Duration::from_secs(3));
        for (mobile, serial) in asked {
            if !self.answered.contains(&serial) && self.violation.is_none() {
                let text = format!("mobile {mobile}: question {serial} was not answered");
                self.violate(Invariant::TablesAgree, text);
            }
        }
    }

    /// When mobiles stop, nothing is left; those behind others first.
    fn stop(&mut self) {
        let mut order: Vec<usize> = (0..self.mobiles.len()).collect();
        order.sort_by_key(|&mobile| std::cmp::Reverse(self.depth(mobile)));
        for mobile in order {
            let reachable = !self.mobiles[mobile].own().is_empty();
            self.mobile_event(mobile, MobileEvent::Stop);
            self.run_until(self.now + Duration::from_secs(5));
            self.mobiles[mobile].stopped = true;
            let it = &self.mobiles[mobile];
            let cache = self.agents[it.agent].machine.cache();
            let left = cache.get(HomeAddress(it.home_address())).is_some();
            if reachable && left && self.violation.is_none() {
                let text = format!("mobile {mobile} stopped, and its agent still holds it");
                self.violate(Invariant::TablesAgree, text);
            }
        }
    }

    fn depth(&self, mobile: usize) -> usize {
        let uplinks = self.mobiles[mobile].uplinks.values().filter_map(|it| it.attached);
        let depths = uplinks.map(|at| match at.access {
            crate::mobile::Access::Internet => 0,
            crate::mobile::Access::Behind(router) => 1 + self.depth(router),
        });
        depths.max().unwrap_or(0)
    }
}
