//! A mobile and an agent, one or both, in virtual time with a link between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, CareOfAddress};
use mtun_signaling::agent::Detection;
use mtun_signaling::{
    AgentEvent, AgentOutput, Envelope, HomeAgent, Machine, MobileEvent, MobileNode, MobileOutput,
    Timestamp, Transmit,
};

use super::{AGENT, EPOCH, address, at, text};

/// What the link does with one message: deliver it after each of these delays.
pub type Fate<'f> = dyn FnMut() -> Vec<Duration> + 'f;

#[derive(Clone, Debug)]
struct Flying {
    arrives: Duration,
    envelope: Envelope,
    message: Vec<u8>,
}

/// The machines under test, and what happened so far.
pub struct World {
    pub now: Duration,
    pub mobile: Option<MobileNode>,
    pub agent: Option<HomeAgent>,
    /// Time of day at the start, as the mobile has it.
    pub mobile_epoch: u64,
    /// Addresses of the uplinks that are up.
    pub uplinks: BTreeMap<Bid, Ipv6Addr>,
    /// Uplinks that lose everything without saying so.
    pub silent: BTreeSet<Bid>,
    /// The last update that left, as a peer would answer it.
    pub last_update: Option<Transmit>,
    /// An update that somebody on the path kept.
    pub recorded: Option<Transmit>,
    /// Whether the home link answers at once that nobody has a home address.
    pub nobody_home: bool,
    /// When updates left.
    pub sent: Vec<Duration>,
    /// The updates that reached the agent, as somebody on the path may have kept them.
    pub delivered: Vec<(Envelope, Vec<u8>)>,
    /// Everything that a machine sent.
    pub wire: Vec<(Envelope, Vec<u8>)>,
    /// What came out, with its time.
    pub trace: Vec<(Duration, String)>,
    flying: Vec<Flying>,
}

impl World {
    pub fn new(mobile: Option<MobileNode>, agent: Option<HomeAgent>, mobile_epoch: u64) -> Self {
        Self {
            now: Duration::ZERO,
            mobile,
            agent,
            mobile_epoch,
            uplinks: BTreeMap::new(),
            silent: BTreeSet::new(),
            last_update: None,
            recorded: None,
            nobody_home: false,
            sent: Vec::new(),
            delivered: Vec::new(),
            wire: Vec::new(),
            trace: Vec::new(),
            flying: Vec::new(),
        }
    }

    pub fn mobile_now(&self) -> Timestamp {
        at(self.now, self.mobile_epoch)
    }

    pub fn agent_now(&self) -> Timestamp {
        at(self.now, EPOCH)
    }

    /// Tells the mobile.
    pub fn mobile_event(&mut self, event: MobileEvent, fate: &mut Fate<'_>) {
        match &event {
            MobileEvent::CareOfUp {
                bid,
                care_of: CareOfAddress(std::net::IpAddr::V6(care_of)),
                ..
            } => {
                self.uplinks.insert(*bid, *care_of);
            }
            MobileEvent::HomeLinkUp { bid, .. } => {
                self.uplinks.insert(*bid, super::home().0);
            }
            MobileEvent::CareOfDown { bid } | MobileEvent::HomeLinkDown { bid } => {
                self.uplinks.remove(bid);
            }
            _ => {}
        }
        let now = self.mobile_now();
        self.mobile.as_mut().expect("a mobile").handle(now, event);
        self.drain(fate);
    }

    /// Tells the agent.
    pub fn agent_event(&mut self, event: AgentEvent, fate: &mut Fate<'_>) {
        let now = self.agent_now();
        self.agent.as_mut().expect("an agent").handle(now, event);
        self.drain(fate);
    }

    /// Lets time pass until `end`: timers fire and messages arrive, in order.
    pub fn run_until(&mut self, end: Duration, fate: &mut Fate<'_>) {
        loop {
            let arrival = self.flying.iter().map(|flying| flying.arrives).min();
            let mobile = self.mobile.as_ref().and_then(Machine::deadline);
            let agent = self.agent.as_ref().and_then(Machine::deadline);
            let next = [arrival, mobile, agent].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if arrival.is_some_and(|arrival| arrival <= self.now) {
                self.deliver(fate);
            } else if mobile.is_some_and(|deadline| deadline <= self.now) {
                let now = self.mobile_now();
                let mobile = self.mobile.as_mut().expect("it had a deadline");
                mobile.handle_deadline(now);
                let later = mobile.deadline();
                assert!(
                    later.is_none_or(|later| later > self.now),
                    "a deadline that does not move"
                );
            } else {
                let now = self.agent_now();
                let agent = self.agent.as_mut().expect("it had a deadline");
                agent.handle_deadline(now);
                let later = agent.deadline();
                assert!(
                    later.is_none_or(|later| later > self.now),
                    "a deadline that does not move"
                );
            }
            self.drain(fate);
        }
        self.now = end;
    }

    fn deliver(&mut self, fate: &mut Fate<'_>) {
        let first = self.flying.iter().map(|flying| flying.arrives).min();
        let Some(index) = self.flying.iter().position(|flying| Some(flying.arrives) == first)
        else {
            return;
        };
        let Flying { envelope, message, .. } = self.flying.remove(index);
        if envelope.destination == address(AGENT) {
            if self.agent.is_some() {
                self.delivered.push((envelope, message.clone()));
                self.agent_event(AgentEvent::Received { envelope, message }, fate);
            }
        } else if (self.is_tunnelled(&envelope)
            || self.uplinks.iter().any(|(bid, address)| {
                *address == envelope.destination && !self.silent.contains(bid)
            }))
            && self.mobile.is_some()
        {
            self.mobile_event(MobileEvent::Received { envelope, message }, fate);
        }
    }

    /// Whether a packet to the home address finds the mobile through its tunnel.
    fn is_tunnelled(&self, envelope: &Envelope) -> bool {
        let Some(agent) = &self.agent else { return false };
        let bound = agent.cache().get(super::home());
        let reached = |it: &mtun_signaling::binding::Binding| {
            let mut uplinks = self.uplinks.iter();
            uplinks.any(|(bid, at)| *at == it.care_of.0 && !self.silent.contains(bid))
        };
        envelope.destination == super::home().0
            && bound.is_some_and(|entry| entry.bindings.iter().any(reached))
    }

    fn drain(&mut self, fate: &mut Fate<'_>) {
        while let Some(output) = self.mobile.as_mut().and_then(Machine::poll) {
            self.trace.push((self.now, text::mobile_output(&output)));
            if let MobileOutput::Transmit(transmit) = output {
                let lost = transmit.path.is_some_and(|path| self.silent.contains(&path));
                self.wire.push((transmit.envelope, transmit.message.clone()));
                self.last_update = Some(transmit.clone());
                self.sent.push(self.now);
                if self.agent.is_some() && !lost {
                    self.fly(&transmit, fate);
                }
            }
        }
        while let Some(output) = self.agent.as_mut().and_then(Machine::poll) {
            let agent = self.agent.as_ref().expect("it had an output");
            // What is kept over restarts has a test of its own, `tests/keeping.rs`.
            if matches!(output, AgentOutput::Keep { .. }) {
                continue;
            }
            self.trace.push((self.now, text::agent_output(&output, agent.cache())));
            match output {
                AgentOutput::Transmit(transmit) => {
                    self.wire.push((transmit.envelope, transmit.message.clone()));
                    if self.mobile.is_some() {
                        self.fly(&transmit, fate);
                    }
                }
                AgentOutput::CheckDuplicate { home_address, .. } if self.nobody_home => {
                    let event =
                        AgentEvent::DuplicateChecked { home_address, detection: Detection::Unique };
                    let now = self.agent_now();
                    self.agent.as_mut().expect("it had an output").handle(now, event);
                }
                _ => {}
            }
        }
    }

    fn fly(&mut self, transmit: &Transmit, fate: &mut Fate<'_>) {
        for delay in fate() {
            self.flying.push(Flying {
                arrives: self.now + delay,
                envelope: transmit.envelope,
                message: transmit.message.clone(),
            });
        }
    }

    /// Whether a message is under way.
    pub fn is_quiet(&self) -> bool {
        self.flying.is_empty()
    }
}
