//! The world of one seed: who is in it, what is under way, and time.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::MobileNetworkPrefix;
use mtun_signaling::Machine;
use mtun_signaling::agent::HomeLink;
use mtun_signaling::auth::{Algorithm, Secret, SecurityAssociation};

use crate::agent::Agent;
use crate::attacker::Attacker;
use crate::correspondent::{Host, Responder};
use crate::coverage::Coverage;
use crate::fault::Fault;
use crate::mobile::{Birth, Mobile};
use crate::network::{Network, Quality};
use crate::random::Random;
use crate::straight::Who;
use crate::text::{AgentText, MobileText, RULES};
use crate::witness::Violation;

/// Time of day when every world begins, in seconds of the Unix clock.
pub const EPOCH: u64 = 1_790_000_000;

/// Everything.
#[derive(Debug)]
pub struct World {
    pub now: Duration,
    pub random: Random,
    pub fault: Fault,
    pub network: Network,
    pub mobiles: Vec<Mobile>,
    pub agents: Vec<Agent>,
    pub correspondents: Vec<Host>,
    pub attacker: Attacker,
    /// Questions that were answered, by serial number.
    pub answered: std::collections::BTreeSet<u64>,
    pub serial: u64,
    /// Addresses handed out, so that none is used twice.
    pub addresses: u16,
    /// Whether the headers of some tunnel packet were altered on the way.
    pub limits_altered: bool,
    pub coverage: Coverage,
    pub violation: Option<Violation>,
    pub trace: Option<Vec<String>>,
    pub steps: u64,
}

/// The home address of a mobile at an agent.
pub fn home_address(agent: usize, mobile: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x100 + agent as u16, 0, 0, 0, 0, 0x42 + mobile as u16)
}

fn agent_address(agent: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x100 + agent as u16, 0, 0, 0, 0, 1)
}

fn network_of(mobile: usize) -> MobileNetworkPrefix {
    let net = format!("2001:db8:{:x}::/56", 0x4200 + mobile * 0x100);
    MobileNetworkPrefix::new(net.parse().expect("a prefix")).expect("no host bits")
}

/// A key that only one mobile and its agent have.
pub fn key(octet: u8) -> SecurityAssociation {
    let secret = Secret::new(vec![octet; 32]).expect("a good length");
    SecurityAssociation::new(0x1001, Algorithm::HmacSha256, secret).expect("not reserved")
}

impl World {
    /// The world of this seed, before anything happened.
    pub fn new(seed: u64, fault: Fault, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let agents = 1 + random.below(2);
        let mobiles = 1 + random.below(3);
        let mut world = Self {
            now: Duration::ZERO,
            fault,
            network: Network::default(),
            mobiles: Vec::new(),
            agents: Vec::new(),
            correspondents: Vec::new(),
            attacker: Attacker::default(),
            answered: Default::default(),
            serial: 0,
            addresses: 0,
            limits_altered: false,
            coverage: Coverage::default(),
            violation: None,
            trace: traced.then(Vec::new),
            steps: 0,
            random,
        };
        let texts: Vec<_> = (0..mobiles).map(|it| world.mobile_text(it, agents)).collect();
        for agent in 0..agents {
            let mine: Vec<_> = (0..mobiles).filter(|&it| texts[it].0 == agent).collect();
            let text = AgentText {
                address: agent_address(agent),
                mobiles: mine
                    .iter()
                    .map(|&it| (texts[it].1.home_address, texts[it].1.prefix))
                    .collect(),
                multiple_coa: world.random.chance(900),
                bulk: world.random.chance(800),
                max_bindings: world.random.pick(&[1, 2, 3, 4, 4]),
                flow_bindings: world.random.chance(850),
                max_flows: world.random.pick(&[1, 64, 64, 64]),
                reflect: world.random.chance(700),
                lifetime: world.random.pick(&[24, 60, 120]),
            };
            let keys = mine.iter().map(|&it| key(1 + it as u8)).collect();
            let clocks = (world.base(), EPOCH);
            let only_router = world.random.chance(500);
            let home_link = match world.random.chance(400) {
                true => HomeLink::Real { only_router },
                false => HomeLink::Virtual,
            };
            let mut agent = Agent::new(text, keys, fault, home_link, clocks);
            agent.keeps = world.random.chance(600);
            agent.link = Quality::any(&mut world.random);
            world.agents.push(agent);
        }
        for (number, (agent, text)) in texts.into_iter().enumerate() {
            let birth = world.birth();
            let mut mobile = Mobile::new(agent, text, key(1 + number as u8), &birth);
            let home = mobile.home_address();
            let random = &mut world.random;
            mobile.responder = random.chance(500).then(|| Responder::new(home, random));
            mobile.begin_straight(Duration::ZERO, random);
            world.mobiles.push(mobile);
        }
        for number in 0..2 {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9 + number);
            let base = world.base();
            let responds = number == 0;
            let host = Host::new(address, base, responds, &mut world.random);
            world.correspondents.push(host);
        }
        world
    }

    fn mobile_text(&mut self, number: usize, agents: usize) -> (usize, MobileText) {
        let random = &mut self.random;
        let agent = random.below(agents);
        let text = MobileText {
            agent: agent_address(agent),
            home_address: home_address(agent, number),
            prefix: random.chance(600).then(|| network_of(number)),
            multiple_coa: random.chance(850),
            bulk: random.chance(750),
            explicit: random.chance(500),
            lifetime: random.pick(&[20, 60, 120]),
            optimize: random.chance(700).then(|| random.pick(&[1, 4])),
            flow_bindings: random.chance(900),
            reflect: random.chance(700),
            rules: random.below(RULES.len()),
        };
        (agent, text)
    }

    /// What a monotonic clock says when the world begins: any time, as a machine may have run.
    pub fn base(&mut self) -> Duration {
        Duration::from_millis(self.random.milliseconds(100_000_000))
    }

    /// What the start of a mobile at this moment depends on.
    pub fn birth(&mut self) -> Birth {
        let epoch = self.random.pick(&[EPOCH, EPOCH, EPOCH + 3, 17, 2_210_000_000]);
        if epoch.abs_diff(EPOCH) > 7 {
            self.coverage.count("event: clock offset");
        }
        let base = self.base();
        let sequence = self.random.next() as u16;
        Birth { now: self.now, base, epoch, sequence }
    }

    /// A line of the story.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("@{:.3} {}", now.as_secs_f64(), line()));
        }
    }

    /// Lives to the end, or to the first violation.
    pub fn live(&mut self) {
        self.begin();
        let actions = 20 + self.random.below(40);
        for _ in 0..actions {
            if self.violation.is_some() {
                return;
            }
            self.act();
        }
        self.converge();
    }

    /// Lets time pass until `end`: packets arrive and timers fire, in order.
    pub fn run_until(&mut self, end: Duration) {
        while self.violation.is_none() {
            let arrival = self.network.next();
            let mobiles = self.mobiles.iter().map(Mobile::deadline);
            let agents = self.agents.iter().map(Agent::deadline);
            let hosts = self.correspondents.iter().map(|it| {
                let deadline = it.responder.as_ref()?.machine.deadline()?;
                Some(deadline.saturating_sub(it.base))
            });
            let timer = mobiles.chain(agents).chain(hosts).flatten().min();
            let Some(next) = [arrival, timer].into_iter().flatten().min() else { break };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            self.steps += 1;
            if arrival.is_some_and(|arrival| arrival <= self.now) {
                let flying = self.network.arrive().expect("it has arrived");
                self.arrive(flying);
            } else {
                self.timers();
            }
        }
        if self.violation.is_none() {
            self.now = end;
        }
    }

    /// Lets every node do what is due.
    pub fn timers(&mut self) {
        for mobile in 0..self.mobiles.len() {
            if self.mobiles[mobile].deadline().is_some_and(|at| at <= self.now) {
                self.mobile_timer(mobile);
                let it = &self.mobiles[mobile];
                let node = it.node.deadline();
                if node.is_some_and(|at| at <= it.base + self.now) {
                    self.stuck(format!("mobile {mobile}"));
                }
            }
        }
        for number in 0..self.correspondents.len() {
            self.correspondent_timer(Who::Host(number));
        }
        for agent in 0..self.agents.len() {
            if self.agents[agent].deadline().is_some_and(|at| at <= self.now) {
                self.agent_timer(agent);
                let it = &self.agents[agent];
                if it.machine.deadline().is_some_and(|at| at <= it.base + self.now) {
                    self.stuck(format!("agent {agent}"));
                }
            }
        }
    }
}
