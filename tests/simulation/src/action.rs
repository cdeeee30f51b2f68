//! What happens to the nodes and the links, drawn from the seed.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, Ingress};
use mtun_signaling::{AgentEvent, CorrespondentEvent, MobileEvent};

use crate::attacker::host_in;
use crate::forward::Passed;
use crate::mobile::{Access, Attachment, Birth};
use crate::network::{Door, Origin, Quality};
use crate::packet::{self, Flow, Label};
use crate::straight::Who;
use crate::text::{RULES, UPLINKS};
use crate::world::{EPOCH, World};

/// Something that happens.
type Action = fn(&mut World);

/// How often each thing happens, out of the sum.
const ACTIONS: [(usize, Action); 21] = [
    (26, World::wait_a_little),
    (5, World::wait_long),
    (12, World::uplink_appears),
    (7, World::uplink_dies),
    (3, World::uplink_flaps),
    (6, World::uplink_changes_address),
    (5, World::uplink_goes_silent),
    (4, World::link_changes),
    (4, World::mobile_restarts),
    (2, World::agent_restarts),
    (3, World::agent_is_cut_off),
    (3, World::agent_is_reconfigured),
    (4, World::rules_change),
    (3, World::clock_jumps),
    (8, World::mobile_nests),
    (16, World::traffic),
    (6, World::conversation),
    (3, World::headers_are_eaten),
    (2, World::correspondent_restarts),
    (2, World::correspondent_is_reconfigured),
    (18, World::attack),
];

impl World {
    /// Every mobile begins with an uplink.
    pub fn begin(&mut self) {
        for mobile in 0..self.mobiles.len() {
            let bid = self.any_bid();
            let it = &self.mobiles[mobile];
            let (agent, router) = (it.agent, it.prefix().is_some());
            self.tell(|| format!("mobile {mobile} of agent {agent}, router: {router}"));
            self.attach(mobile, bid, Access::Internet);
        }
    }

    /// One thing happens.
    pub fn act(&mut self) {
        let sum = ACTIONS.iter().map(|(weight, _)| weight).sum();
        let mut drawn = self.random.below(sum);
        for (weight, action) in ACTIONS {
            if drawn < weight {
                action(self);
                break;
            }
            drawn -= weight;
        }
        self.witness_everything();
    }

    fn any_bid(&mut self) -> Bid {
        Bid::new(1 + self.random.below(usize::from(UPLINKS)) as u16).expect("not zero")
    }

    fn any_uplink(&mut self) -> (usize, Bid) {
        (self.random.below(self.mobiles.len()), self.any_bid())
    }

    fn wait_a_little(&mut self) {
        let span = self.random.milliseconds(3_000);
        self.run_until(self.now + Duration::from_millis(span));
    }

    fn wait_long(&mut self) {
        self.coverage.count("event: long wait");
        let span = self.random.milliseconds(100_000);
        self.run_until(self.now + Duration::from_millis(span));
    }

    /// An address for an uplink, never used before.
    fn fresh_address(&mut self, mobile: usize, bid: Bid, access: Access) -> Ipv6Addr {
        self.addresses += 1;
        let (bid, number) = (bid.get(), self.addresses);
        match access {
            Access::Internet => {
                Ipv6Addr::new(0x2001, 0xdb8, 0xa00 + mobile as u16, bid, 0, 0, 0, number)
            }
            Access::Behind(router) => {
                let prefix = self.mobiles[router].prefix().expect("only routers have a network");
                host_in(prefix.net().addr(), 0x100 + number)
            }
        }
    }

    /// An uplink has an address, and the mobile knows.
    pub fn attach(&mut self, mobile: usize, bid: Bid, access: Access) {
        let care_of = self.fresh_address(mobile, bid, access);
        self.tell(|| format!("mobile {mobile}: uplink {bid} has {care_of}, {access:?}"));
        let it = &mut self.mobiles[mobile];
        it.owned.insert((bid, care_of));
        let uplink = it.uplinks.get_mut(&bid).expect("every BID has an uplink");
        uplink.attached = Some(Attachment { care_of, access });
        self.announce(mobile, bid);
    }

    /// Tells the mobile of an uplink that has an address.
    fn announce(&mut self, mobile: usize, bid: Bid) {
        let it = &self.mobiles[mobile];
        let Some(attachment) = it.uplinks[&bid].attached else { return };
        let care_of = attachment.care_of.into();
        let priority = (bid.get() * 10) as u8;
        self.mobile_event(mobile, MobileEvent::CareOfUp { bid, priority, care_of });
        self.mobiles[mobile].publish(self.now);
        self.follow(mobile);
        self.witness_mobile(mobile);
    }

    fn detach(&mut self, mobile: usize, bid: Bid) {
        self.tell(|| format!("mobile {mobile}: uplink {bid} is down"));
        let uplink = self.mobiles[mobile].uplinks.get_mut(&bid).expect("every BID has an uplink");
        if uplink.attached.take().is_some() {
            self.mobile_event(mobile, MobileEvent::CareOfDown { bid });
            self.mobiles[mobile].publish(self.now);
            self.follow(mobile);
            self.witness_mobile(mobile);
        }
    }

    fn uplink_appears(&mut self) {
        let (mobile, bid) = self.any_uplink();
        let (up, down) = (Quality::any(&mut self.random), Quality::any(&mut self.random));
        let uplink = self.mobiles[mobile].uplinks.get_mut(&bid).expect("every BID has an uplink");
        (uplink.up, uplink.down, uplink.cut) = (up, down, (false, false));
        self.coverage.count("event: uplink up");
        self.attach(mobile, bid, Access::Internet);
    }

    fn uplink_dies(&mut self) {
        let (mobile, bid) = self.any_uplink();
        self.coverage.count("event: uplink down");
        self.detach(mobile, bid);
    }

    fn uplink_flaps(&mut self) {
        let (mobile, bid) = self.any_uplink();
        let Some(attachment) = self.mobiles[mobile].uplinks[&bid].attached else { return };
        self.coverage.count("event: uplink flaps");
        for _ in 0..1 + self.random.below(4) {
            self.detach(mobile, bid);
            let pause = self.random.milliseconds(200);
            self.run_until(self.now + Duration::from_millis(pause));
            if self.random.chance(700) {
                // The same address again.
                let uplink = self.mobiles[mobile].uplinks.get_mut(&bid).expect("it was there");
                uplink.attached = Some(attachment);
                self.announce(mobile, bid);
            } else {
                self.attach(mobile, bid, attachment.access);
            }
            let pause = self.random.milliseconds(200);
            self.run_until(self.now + Duration::from_millis(pause));
        }
    }

    fn uplink_changes_address(&mut self) {
        let (mobile, bid) = self.any_uplink();
        let Some(attachment) = self.mobiles[mobile].uplinks[&bid].attached else { return };
        self.coverage.count("event: address changes");
        self.attach(mobile, bid, attachment.access);
    }

    /// One way or both, without a word; or no more.
    fn uplink_goes_silent(&mut self) {
        let (mobile, bid) = self.any_uplink();
        let cut = self.random.pick(&[(true, true), (true, false), (false, true), (false, false)]);
        self.coverage.count("event: uplink silent");
        self.tell(|| format!("mobile {mobile}: uplink {bid} cut: {cut:?}"));
        self.mobiles[mobile].uplinks.get_mut(&bid).expect("every BID has an uplink").cut = cut;
    }

    fn link_changes(&mut self) {
        let (mobile, bid) = self.any_uplink();
        let (up, down) = (Quality::any(&mut self.random), Quality::any(&mut self.random));
        self.coverage.count("event: link changes");
        let uplink = self.mobiles[mobile].uplinks.get_mut(&bid).expect("every BID has an uplink");
        (uplink.up, uplink.down) = (up, down);
    }

    fn mobile_restarts(&mut self) {
        let mobile = self.random.below(self.mobiles.len());
        self.coverage.count("event: mobile restarts");
        self.tell(|| format!("mobile {mobile} restarts"));
        let birth = self.birth();
        self.restart_mobile(mobile, &birth);
    }

    fn restart_mobile(&mut self, mobile: usize, birth: &Birth) {
        self.mobiles[mobile].restart(birth);
        self.mobiles[mobile].begin_straight(self.now, &mut self.random);
        // A number that was too old for a correspondent may be new after those of the next life;
        // what it refused then is no replay.
        let responders = self.correspondents.iter_mut().filter_map(|it| it.responder.as_mut());
        let answering = self.mobiles.iter_mut().filter_map(|it| it.responder.as_mut());
        responders.chain(answering).for_each(|it| it.seen.clear());
        // The kernel's addresses are still there.
        let bids: Vec<Bid> = self.mobiles[mobile].uplinks.keys().copied().collect();
        for bid in bids {
            self.announce(mobile, bid);
        }
        self.mobiles[mobile].publish(self.now);
        self.tell_rules(mobile);
    }

    fn agent_restarts(&mut self) {
        let agent = self.random.below(self.agents.len());
        self.coverage.count("event: agent restarts");
        self.tell(|| format!("agent {agent} restarts"));
        let clocks = (self.base(), EPOCH);
        self.agents[agent].restart(self.fault, self.now, clocks);
        self.witness_agent(agent);
    }

    fn agent_is_cut_off(&mut self) {
        let agent = self.random.below(self.agents.len());
        self.coverage.count("event: partition");
        let cut = !self.agents[agent].cut;
        self.tell(|| format!("agent {agent} cut off: {cut}"));
        self.agents[agent].cut = cut;
    }

    fn agent_is_reconfigured(&mut self) {
        let agent = self.random.below(self.agents.len());
        self.coverage.count("event: agent reconfigured");
        let mut text = self.agents[agent].text.clone();
        text.multiple_coa = self.random.chance(700);
        text.bulk = self.random.chance(700);
        text.max_bindings = self.random.pick(&[1, 2, 3, 4, 4]);
        text.flow_bindings = self.random.chance(850);
        text.max_flows = self.random.pick(&[1, 64, 64, 64]);
        text.reflect = self.random.chance(700);
        self.tell(|| format!("agent {agent}: {text:?}"));
        let config = self.agents[agent].adopt(self.now, text, self.fault);
        self.agent_event(agent, AgentEvent::Reconfigure(config), None);
        let homes: Vec<_> = self.agents[agent].text.mobiles.iter().map(|(it, _)| *it).collect();
        for home in homes {
            self.agents[agent].publish(mtun_policy::HomeAddress(home), self.now);
        }
        self.witness_agent(agent);
    }

    fn rules_change(&mut self) {
        let mobile = self.random.below(self.mobiles.len());
        let rules = self.random.below(RULES.len());
        self.coverage.count("event: rules change");
        self.tell(|| format!("mobile {mobile} has rules {rules}"));
        self.mobiles[mobile].adopt(self.now, rules);
        self.mobiles[mobile].publish(self.now);
        self.tell_rules(mobile);
        self.witness_mobile(mobile);
    }

    /// The clock of the day is set; that of timers never is.
    fn clock_jumps(&mut self) {
        self.coverage.count("event: clock jumps");
        if self.random.chance(600) {
            let mobile = self.random.below(self.mobiles.len());
            let epoch = self.random.pick(&[EPOCH, EPOCH - 3_600, EPOCH + 3_600, 17, 2_210_000_000]);
            self.tell(|| format!("mobile {mobile}: clock set to {epoch}"));
            self.mobiles[mobile].epoch = epoch;
        } else {
            // Far enough that what was stamped by one time is not believable by another after a
            // restart: the agent has nothing else that outlives it.
            let agent = self.random.below(self.agents.len());
            let epoch = self.random.pick(&[EPOCH, EPOCH - 3_600, EPOCH + 3_600, EPOCH + 86_400]);
            self.tell(|| format!("agent {agent}: clock set to {epoch}"));
            self.agents[agent].epoch = epoch;
        }
    }

    /// An uplink is plugged into the network behind a mobile router.
    fn mobile_nests(&mut self) {
        let (mobile, bid) = self.any_uplink();
        let others = (0..self.mobiles.len()).filter(|&it| it != mobile);
        let routers: Vec<_> = others.filter(|&it| self.mobiles[it].prefix().is_some()).collect();
        if routers.is_empty() {
            return;
        }
        let router = self.random.pick(&routers);
        self.coverage.count("event: nested");
        self.attach(mobile, bid, Access::Behind(router));
        if self.mobiles[mobile].prefix().is_some() && self.random.chance(400) {
            // Each behind the other as soon as both are registered: nothing may go round.
            self.run_until(self.now + Duration::from_secs(2));
            self.coverage.count("event: nested in a circle");
            self.attach(router, bid, Access::Behind(mobile));
            self.run_until(self.now + Duration::from_secs(2));
            for _ in 0..4 {
                self.traffic();
            }
        }
    }

    /// Questions in either direction, from any kind of host to any other.
    fn traffic(&mut self) {
        for _ in 0..1 + self.random.below(6) {
            let mobile = self.random.below(self.mobiles.len());
            let inside = self.random.chance(500);
            let filler = self.random.pick(&[0, 0, 0, 0, 1_300, 1_440]);
            let port = self.random.pick(&[22, 23, 443, 5060, 9]);
            let tcp = port != 5060 && port != 9;
            let ports = (40_000 + self.random.below(8) as u16, port);
            match self.random.below(4) {
                0 => {
                    let number = self.random.below(self.correspondents.len());
                    let destination = self.address_of(mobile, inside);
                    let source = self.correspondents[number].address;
                    let flow = Flow { source, destination, tcp, ports };
                    let packet = packet::data(flow, self.label(), filler);
                    self.coverage.count("traffic: to a mobile");
                    self.host_sends(number, packet, Passed::FRESH);
                }
                1 => {
                    let peer = self.random.below(self.mobiles.len());
                    let destination = self.address_of(peer, ports.0 > 40_003);
                    self.coverage.count("traffic: mobile to mobile");
                    self.ask(mobile, inside, destination, tcp, ports, filler);
                }
                _ => {
                    let number = self.random.below(self.correspondents.len());
                    let destination = self.correspondents[number].address;
                    self.coverage.count("traffic: from a mobile");
                    self.ask(mobile, inside, destination, tcp, ports, filler);
                }
            }
        }
    }

    /// A mobile and another node talk for a while, so that the route becomes worth optimizing.
    fn conversation(&mut self) {
        self.coverage.count("event: conversation");
        let mobile = self.random.below(self.mobiles.len());
        let peer = self.random.below(self.mobiles.len());
        let destination = match self.random.below(4) {
            0 => self.mobiles[peer].home_address(),
            it => self.correspondents[it / 3].address,
        };
        let port = self.random.pick(&[22, 443, 443]);
        for _ in 0..6 + self.random.below(10) {
            self.ask(mobile, false, destination, true, (41_000, port), 0);
            let pause = self.random.milliseconds(1_200);
            self.run_until(self.now + Duration::from_millis(pause));
        }
    }

    /// A firewall appears on an uplink, or goes.
    fn headers_are_eaten(&mut self) {
        let (mobile, bid) = self.any_uplink();
        self.coverage.count("event: headers eaten");
        let uplink = self.mobiles[mobile].uplinks.get_mut(&bid).expect("every BID has an uplink");
        uplink.eats = !uplink.eats;
        let eats = uplink.eats;
        self.tell(|| format!("mobile {mobile}: uplink {bid} eats headers: {eats}"));
    }

    fn correspondent_restarts(&mut self) {
        self.coverage.count("event: correspondent restarts");
        let number = self.random.below(self.correspondents.len());
        self.tell(|| format!("correspondent {number} restarts"));
        let base = self.base();
        self.correspondents[number].restart(self.now, base, &mut self.random);
        self.witness_correspondent(Who::Host(number));
    }

    fn correspondent_is_reconfigured(&mut self) {
        self.coverage.count("event: correspondent reconfigured");
        let number = self.random.below(self.correspondents.len());
        let (multiple_coa, max_bindings) = (self.random.chance(700), self.random.pick(&[1, 2, 4]));
        let now = self.now;
        let Some(responder) = &mut self.correspondents[number].responder else { return };
        (responder.config.multiple_coa, responder.config.max_bindings) =
            (multiple_coa, max_bindings);
        responder.shaken = now;
        let event = CorrespondentEvent::Reconfigure(responder.config.clone());
        self.correspondent_event(Who::Host(number), event);
        self.witness_correspondent(Who::Host(number));
    }

    /// The home address, or a host behind a router.
    pub fn address_of(&self, mobile: usize, inside: bool) -> Ipv6Addr {
        let it = &self.mobiles[mobile];
        let network = it.prefix().filter(|_| inside);
        network.map_or(it.home_address(), |prefix| host_in(prefix.net().addr(), 7))
    }

    /// The label of a new question.
    pub fn label(&mut self) -> Label {
        self.serial += 1;
        Label { serial: self.serial, echo: false }
    }

    /// A mobile, or a host behind it, asks; gives the question's number.
    pub fn ask(
        &mut self,
        mobile: usize,
        inside: bool,
        destination: Ipv6Addr,
        tcp: bool,
        ports: (u16, u16),
        filler: usize,
    ) -> u64 {
        let source = self.address_of(mobile, inside);
        let label = self.label();
        if source == destination {
            return label.serial;
        }
        let packet = packet::data(Flow { source, destination, tcp, ports }, label, filler);
        if source == self.mobiles[mobile].home_address() {
            self.mobile_sends(mobile, Ingress::LOCAL, &packet, Passed::FRESH);
        } else {
            self.network.launch(self.now, Door::Lan(mobile), packet, 0, Origin::Honest);
        }
        label.serial
    }

    /// The end of all trouble.
    pub fn heal(&mut self) {
        for agent in &mut self.agents {
            (agent.link, agent.cut) = (Quality::GOOD, false);
        }
        for correspondent in &mut self.correspondents {
            correspondent.link = Quality::GOOD;
        }
        for mobile in &mut self.mobiles {
            for uplink in mobile.uplinks.values_mut() {
                (uplink.up, uplink.down, uplink.cut) =
                    (Quality::GOOD, Quality::GOOD, (false, false));
                uplink.eats = false;
            }
        }
        self.untangle();
    }

    /// Uplinks that lead in a circle, or behind a router without an uplink, come out of it.
    fn untangle(&mut self) {
        for mobile in 0..self.mobiles.len() {
            let bids: Vec<Bid> = self.mobiles[mobile].uplinks.keys().copied().collect();
            for bid in bids {
                let attached = self.mobiles[mobile].uplinks[&bid].attached;
                let Some(Access::Behind(router)) = attached.map(|at| at.access) else { continue };
                if !self.is_grounded(router, 2) {
                    self.coverage.count("event: untangled");
                    self.attach(mobile, bid, Access::Internet);
                }
            }
        }
    }

    /// Whether all of a mobile's uplinks reach the Internet through at most so many routers.
    fn is_grounded(&self, mobile: usize, depth: usize) -> bool {
        let mut attached = self.mobiles[mobile].uplinks.values().filter_map(|it| it.attached);
        let any = self.mobiles[mobile].uplinks.values().any(|it| it.attached.is_some());
        any && attached.all(|at| match at.access {
            Access::Internet => true,
            Access::Behind(router) => depth > 0 && self.is_grounded(router, depth - 1),
        })
    }
}
