//! A home agent: its machine and its packet loop, as the daemon has them.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use mtun_dataplane::Engine;
use mtun_policy::{Effective, HomeAddress, ServedHome};
use mtun_signaling::agent::{HomeLink, MobileRecord};
use mtun_signaling::auth::SecurityAssociation;
use mtun_signaling::{
    AgentConfig, AgentMobile, BindingCacheEntry, HomeAgent, Machine, Timestamp, Transmit,
};

use crate::copies::Arriving;
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
    /// Where the home addresses are.
    pub home_link: HomeLink,
    pub machine: HomeAgent,
    /// The rules of mobiles that told none, and whether there are no others.
    own: (Arc<Effective>, bool),
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
    /// The messages that were read and not forgotten in a restart.
    pub seen: HashSet<u64>,
    /// The message that is being read.
    pub reading: Option<u64>,
    /// Whether what mobiles left behind outlives a restart.
    pub keeps: bool,
    /// What did, and when it was kept.
    pub disk: BTreeMap<HomeAddress, (Duration, MobileRecord)>,
    /// What is on its way there, the oldest first.
    pub writing: VecDeque<Writing>,
    /// Copies that reach it.
    pub arriving: Arriving,
    /// Whether somebody else has these home addresses is known then.
    pub checks: VecDeque<(Duration, HomeAddress)>,
}

/// A record on its way to the disk, and the answers that wait for it.
#[derive(Debug)]
pub struct Writing {
    pub safe_at: Duration,
    pub kept_at: Duration,
    pub record: MobileRecord,
    /// The message that made it.
    pub message: Option<u64>,
    pub answers: Vec<Transmit>,
}

impl Agent {
    /// An agent without bindings.
    pub fn new(
        text: AgentText,
        keys: Vec<SecurityAssociation>,
        fault: Fault,
        home_link: HomeLink,
        (base, epoch): (Duration, u64),
    ) -> Self {
        let served = text.policy().served.into_iter().next().expect("an agent serves a home");
        let config = AgentConfig { home_link, ..config(&served, &keys, fault) };
        let machine = HomeAgent::new(config);
        let (published, engine, own) = packets(&served);
        let own = (own, fault == Fault::AgentSendsByItsOwnRules);
        Self {
            text,
            served,
            keys,
            home_link,
            machine,
            own,
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
            reading: None,
            keeps: false,
            disk: BTreeMap::new(),
            writing: VecDeque::new(),
            arriving: Arriving::default(),
            checks: VecDeque::new(),
        }
    }

    /// Starts again with its policy and what it kept: what was still being written is lost.
    pub fn restart(&mut self, fault: Fault, now: Duration, (base, epoch): (Duration, u64)) {
        self.machine = HomeAgent::new(self.config(fault));
        (self.published, self.engine, self.own.0) = packets(&self.served);
        (self.base, self.epoch) = (base, epoch);
        self.sequences.clear();
        self.checks.clear();
        self.arriving = Arriving::default();
        let lost = std::mem::take(&mut self.writing);
        if !self.keeps {
            (self.born, self.shaken) = (now, now);
            self.seen.clear();
            return;
        }
        self.seen.retain(|seen| lost.iter().all(|it| it.message != Some(*seen)));
        if fault == Fault::AgentForgetsDisk {
            return;
        }
        let local = self.timestamp(now);
        for (&home_address, (kept_at, record)) in &self.disk {
            self.machine.restore(local, record, now - *kept_at);
            let back = self.machine.record(local, home_address).and_then(|it| it.sequence);
            if let Some((number, left)) = back {
                self.sequences.insert(home_address, (number, left.map(|left| now + left)));
            }
        }
        let homes: Vec<HomeAddress> = self.disk.keys().copied().collect();
        homes.into_iter().for_each(|home_address| self.publish(home_address, now));
    }

    /// What its machine is told of its policy.
    fn config(&self, fault: Fault) -> AgentConfig {
        let home_link = self.home_link;
        AgentConfig { home_link, ..config(&self.served, &self.keys, fault) }
    }

    /// Goes over to another text; gives what its machine is told.
    pub fn adopt(&mut self, now: Duration, text: AgentText, fault: Fault) -> AgentConfig {
        self.text = text;
        self.served = self.text.policy().served.into_iter().next().expect("it serves a home");
        self.shaken = now;
        self.config(fault)
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
        let machine = self.machine.deadline().map(|at| at.saturating_sub(self.base));
        let safe = self.writing.front().map(|it| it.safe_at);
        let checked = self.checks.front().map(|(at, _)| *at);
        let held = self.engine.held_until().map(|at| at.saturating_sub(self.base));
        [machine, safe, checked, held].into_iter().flatten().min()
    }

    /// Publishes what is held for one home address.
    pub fn publish(&self, home_address: HomeAddress, now: Duration) {
        let allowed = self.served.mobiles.iter().find(|allowed| allowed.address == home_address);
        let Some(allowed) = allowed else { return };
        let entry = self.machine.cache().get(home_address);
        let effective = self.rules(entry);
        let registration = publish::mobile(&self.served, allowed, entry, effective, |_| MTU, None);
        let (own, local) = (vec![self.address()], self.base + now);
        publish::publish_mobile(&*self.published, registration, own, local);
    }

    /// The rules by which packets go to the mobile of an entry.
    fn rules(&self, entry: Option<&BindingCacheEntry>) -> Arc<Effective> {
        match entry.filter(|entry| !entry.flows.is_empty() && !self.own.1) {
            Some(entry) => Arc::new(publish::downlink(Some(entry), self.served.unmatched)),
            None => self.own.0.clone(),
        }
    }

    /// The mobile's registration as packets are to see it.
    pub fn registration(&self, home_address: HomeAddress) -> Option<mtun_dataplane::Registration> {
        let mut mobiles = self.served.mobiles.iter();
        let allowed = mobiles.find(|allowed| allowed.address == home_address)?;
        let entry = self.machine.cache().get(home_address);
        let effective = self.rules(entry);
        Some(publish::mobile(&self.served, allowed, entry, effective, |_| MTU, None))
    }

    /// The key of this home address, whatever it may be.
    pub fn key_of(&self, home_address: Ipv6Addr) -> Option<&SecurityAssociation> {
        let at = self.text.mobiles.iter().position(|(address, _)| *address == home_address)?;
        self.keys.get(at)
    }
}

fn packets(served: &ServedHome) -> (Published, Engine, Arc<Effective>) {
    let own = Arc::new(publish::downlink(None, served.unmatched));
    let mobiles = served.mobiles.iter();
    let known = mobiles.map(|it| publish::mobile(served, it, None, own.clone(), |_| MTU, None));
    let published = publish::initial(known, false, vec![served.agent.0]);
    let engine = Engine::new(published.clone(), settings());
    (published, engine, own)
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
        max_flows: allowed.max_flows,
        max_copies: allowed.max_copies,
        reflect: served.reflect,
        copies: true,
        refused: allowed.refused,
        refused_bids: allowed.refused_bids.clone(),
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
        flow_bindings: served.flow_bindings,
        extensions: mtun_policy::Extensions::default(),
        restart_counter: 1,
        mobiles: mobiles.collect(),
    }
}
