//! A home agent: its machine and its packet loop, as the daemon has them.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use mtun_dataplane::Engine;
use mtun_policy::{Effective, HomeAddress, ServedHome};
use mtun_signaling::agent::HomeLink;
use mtun_signaling::auth::SecurityAssociation;
use mtun_signaling::{AgentConfig, AgentMobile, HomeAgent, Machine, Timestamp};

use crate::fault::Fault;
use crate::mobile::{settings, timestamp};
use crate::network::Quality;
use crate::publish::{self, Published};
use crate::text::AgentText;

/// MTU of the agent's own link.
const MTU: u16 = 1500;

/// A home agent.
#[derive(Debug)]
pub struct Agent {
    pub text: AgentText,
    pub served: ServedHome,
    /// The keys of its mobiles, in the order of the text.
    pub keys: Vec<SecurityAssociation>,
    pub machine: HomeAgent,
    reflecting: Arc<Effective>,
    pub published: Published,
    pub engine: Engine,
    pub link: Quality,
    /// Whether nothing reaches it and nothing leaves it.
    pub cut: bool,
    pub base: Duration,
    pub epoch: u64,
    /// When this life began.
    pub born: Duration,
    /// When bindings last ended for another reason than a mobile's word or time.
    pub shaken: Duration,
    /// The last accepted number of every mobile, and since when it may be forgotten.
    pub sequences: BTreeMap<HomeAddress, (u16, Option<Duration>)>,
    /// The messages that this life has read.
    pub seen: HashSet<u64>,
}

impl Agent {
    /// An agent without bindings.
    pub fn new(
        text: AgentText,
        keys: Vec<SecurityAssociation>,
        fault: Fault,
        (base, epoch): (Duration, u64),
    ) -> Self {
        let served = text.policy().served.into_iter().next().expect("an agent serves a home");
        let machine = HomeAgent::new(config(&served, &keys, fault));
        let (published, engine, reflecting) = packets(&served);
        Self {
            text,
            served,
            keys,
            machine,
            reflecting,
            published,
            engine,
            link: Quality::GOOD,
            cut: false,
            base,
            epoch,
            born: Duration::ZERO,
            shaken: Duration::ZERO,
            sequences: BTreeMap::new(),
            seen: HashSet::new(),
        }
    }

    /// Starts again with nothing but its policy.
    pub fn restart(&mut self, fault: Fault, now: Duration, (base, epoch): (Duration, u64)) {
        self.machine = HomeAgent::new(config(&self.served, &self.keys, fault));
        (self.published, self.engine, self.reflecting) = packets(&self.served);
        (self.base, self.epoch) = (base, epoch);
        (self.born, self.shaken) = (now, now);
        self.sequences.clear();
        self.seen.clear();
    }

    /// Goes over to another text; gives what its machine is told.
    pub fn adopt(&mut self, now: Duration, text: AgentText, fault: Fault) -> AgentConfig {
        self.text = text;
        self.served = self.text.policy().served.into_iter().next().expect("it serves a home");
        self.shaken = now;
        config(&self.served, &self.keys, fault)
    }

    /// Its address.
    pub fn address(&self) -> Ipv6Addr {
        self.served.agent.0
    }

    /// This instant on its clocks.
    pub fn timestamp(&self, now: Duration) -> Timestamp {
        timestamp(now, self.base, self.epoch)
    }

    /// When something is due, on the world's clock.
    pub fn deadline(&self) -> Option<Duration> {
        Some(self.machine.deadline()?.saturating_sub(self.base))
    }

    /// Publishes what is held for one home address.
    pub fn publish(&self, home_address: HomeAddress) {
        let allowed = self.served.mobiles.iter().find(|allowed| allowed.address == home_address);
        let Some(allowed) = allowed else { return };
        let entry = self.machine.cache().get(home_address);
        let effective = self.reflecting.clone();
        let registration = publish::mobile(&self.served, allowed, entry, effective, |_| MTU);
        publish::publish_mobile(&self.published, registration, vec![self.address()]);
    }

    /// The mobile's registration as packets are to see it.
    pub fn registration(&self, home_address: HomeAddress) -> Option<mtun_dataplane::Registration> {
        let mut mobiles = self.served.mobiles.iter();
        let allowed = mobiles.find(|allowed| allowed.address == home_address)?;
        let entry = self.machine.cache().get(home_address);
        let effective = self.reflecting.clone();
        Some(publish::mobile(&self.served, allowed, entry, effective, |_| MTU))
    }

    /// The key of this home address, whatever it may be.
    pub fn key_of(&self, home_address: Ipv6Addr) -> Option<&SecurityAssociation> {
        let at = self.text.mobiles.iter().position(|(address, _)| *address == home_address)?;
        self.keys.get(at)
    }
}

fn packets(served: &ServedHome) -> (Published, Engine, Arc<Effective>) {
    let reflecting = Effective::reflecting();
    let mobiles = served.mobiles.iter();
    let known = mobiles.map(|it| publish::mobile(served, it, None, reflecting.clone(), |_| MTU));
    let published = publish::initial(known, false, vec![served.agent.0]);
    let engine = Engine::new(published.clone(), settings());
    (published, engine, reflecting)
}

fn config(served: &ServedHome, keys: &[SecurityAssociation], fault: Fault) -> AgentConfig {
    let routers = || served.mobiles.iter().filter(|mobile| !mobile.prefixes.is_empty());
    let next = |of: HomeAddress| {
        let after = routers().skip_while(move |it| it.address != of).nth(1);
        after.or_else(|| routers().next()).map_or(Vec::new(), |it| it.prefixes.clone())
    };
    let mobiles = served.mobiles.iter().zip(keys).map(|(allowed, key)| AgentMobile {
        address: allowed.address,
        prefixes: match fault {
            Fault::AgentMixesUpPrefixes if !allowed.prefixes.is_empty() => next(allowed.address),
            _ => allowed.prefixes.clone(),
        },
        protection: Some(key.clone()),
        max_bindings: match fault {
            Fault::AgentWithoutCaps => 1000,
            _ => allowed.max_bindings,
        },
    });
    AgentConfig {
        address: served.agent,
        prefix: served.prefix,
        home_link: HomeLink::Virtual,
        refresh_advice: None,
        refresh_requests: true,
        max_lifetime: served.max_lifetime,
        multiple_coa: served.multiple_coa,
        bulk: served.bulk,
        mobiles: mobiles.collect(),
    }
}
