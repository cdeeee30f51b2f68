//! A mobile's route optimization and a correspondent, one or both, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::Bid;
use mtun_signaling::wire::{self, Message};
use mtun_signaling::{
    Correspondent, CorrespondentConfig, CorrespondentEvent, CorrespondentOutput, Envelope, Machine,
    Pair, Route, RouteOptimization, RouteOptimizationConfig, RouteOptimizationEvent,
    RouteOptimizationOutput, Seed,
};

use super::by_hand::ByHand;
use super::route::{CORRESPONDENT, OTHER_CORRESPONDENT};
use super::{EPOCH, address, at, home, text};

/// What the link does with one message: deliver it after each of these delays.
pub type Fate = Box<dyn FnMut() -> Vec<Duration>>;

struct Flying {
    arrives: Duration,
    envelope: Envelope,
    message: Vec<u8>,
}

/// The machines under test, and what happened so far.
pub struct RouteWorld {
    pub now: Duration,
    pub correspondent: Option<Correspondent>,
    pub optimizer: Option<RouteOptimization>,
    /// Care-of addresses of the uplinks that are up.
    pub uplinks: BTreeMap<Bid, Ipv6Addr>,
    pub at_home: bool,
    /// Uplinks that lose everything.
    pub silent: BTreeSet<Bid>,
    /// Uplinks that lose what carries a Home Address option or a type 2 routing header.
    pub eating: BTreeSet<Bid>,
    pub by_hand: ByHand,
    /// What the mobile sent last, by MH Type and source.
    pub last_sent: BTreeMap<(u8, Ipv6Addr), (Envelope, Vec<u8>)>,
    /// When the mobile sent what, by destination and MH Type.
    pub sent: Vec<(Duration, Ipv6Addr, u8)>,
    /// Everything that a machine sent.
    pub wire: Vec<(Envelope, Vec<u8>)>,
    /// What reached the correspondent, as somebody on the path may have kept it.
    pub delivered: Vec<(Envelope, Vec<u8>)>,
    /// What came out, with its time.
    pub trace: Vec<(Duration, String)>,
    pub fate: Fate,
    lives: u8,
    flying: Vec<Flying>,
}

impl RouteWorld {
    pub fn new(fate: Fate) -> Self {
        Self {
            now: Duration::ZERO,
            correspondent: None,
            optimizer: None,
            uplinks: BTreeMap::new(),
            at_home: false,
            silent: BTreeSet::new(),
            eating: BTreeSet::new(),
            by_hand: ByHand::default(),
            last_sent: BTreeMap::new(),
            sent: Vec::new(),
            wire: Vec::new(),
            delivered: Vec::new(),
            trace: Vec::new(),
            fate,
            lives: 0,
            flying: Vec::new(),
        }
    }

    fn seed(&mut self) -> Seed {
        self.lives += 1;
        Seed::new([self.lives; 32])
    }

    pub fn start_correspondent(&mut self, config: &CorrespondentConfig) {
        self.by_hand.numbering.restart();
        let seed = self.seed();
        self.correspondent = Some(Correspondent::new(config.clone(), seed));
    }

    pub fn start_optimizer(&mut self, config: &RouteOptimizationConfig) {
        let seed = self.seed();
        self.optimizer = Some(RouteOptimization::new(config.clone(), seed));
    }

    pub fn correspondent_event(&mut self, event: CorrespondentEvent) {
        let now = at(self.now, EPOCH);
        self.correspondent.as_mut().expect("a correspondent").handle(now, event);
        self.drain();
    }

    pub fn optimizer_event(&mut self, event: RouteOptimizationEvent) {
        match &event {
            RouteOptimizationEvent::CareOf { bid, care_of, .. } => {
                if let std::net::IpAddr::V6(care_of) = care_of.0 {
                    self.uplinks.insert(*bid, care_of);
                }
                self.at_home = false;
            }
            RouteOptimizationEvent::CareOfGone { bid } => {
                self.uplinks.remove(bid);
            }
            RouteOptimizationEvent::ReturnedHome => {
                self.uplinks.clear();
                self.at_home = true;
            }
            _ => {}
        }
        let now = at(self.now, EPOCH);
        self.optimizer.as_mut().expect("an optimizer").handle(now, event);
        self.drain();
    }

    /// Lets time pass until `end`: timers fire and messages arrive, in order.
    pub fn run_until(&mut self, end: Duration) {
        loop {
            let arrival = self.flying.iter().map(|flying| flying.arrives).min();
            let optimizer = self.optimizer.as_ref().and_then(Machine::deadline);
            let correspondent = self.correspondent.as_ref().and_then(Machine::deadline);
            let next = [arrival, optimizer, correspondent].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if arrival.is_some_and(|arrival| arrival <= self.now) {
                self.deliver();
            } else if optimizer.is_some_and(|deadline| deadline <= self.now) {
                fire(self.optimizer.as_mut(), self.now);
            } else {
                fire(self.correspondent.as_mut(), self.now);
            }
            self.drain();
        }
        self.now = end;
    }

    fn deliver(&mut self) {
        let first = self.flying.iter().map(|flying| flying.arrives).min();
        let Some(index) = self.flying.iter().position(|flying| Some(flying.arrives) == first)
        else {
            return;
        };
        let Flying { envelope, message, .. } = self.flying.remove(index);
        if [CORRESPONDENT, OTHER_CORRESPONDENT].map(address).contains(&envelope.destination) {
            self.delivered.push((envelope, message.clone()));
            self.correspondent_event(CorrespondentEvent::Received { envelope, message });
            return;
        }
        // To the home address: by any uplink that works, through the tunnel, or on the home link.
        let headers = envelope.routing_header.is_some();
        let tunneled = envelope.destination == home().0 && !self.at_home;
        let arrives = if tunneled {
            self.uplinks.keys().any(|bid| !self.silent.contains(bid))
        } else if envelope.destination == home().0 {
            true
        } else {
            self.uplinks.iter().any(|(bid, care_of)| {
                *care_of == envelope.destination
                    && !self.silent.contains(bid)
                    && !(headers && self.eating.contains(bid))
            })
        };
        if arrives && self.optimizer.is_some() {
            self.optimizer_event(RouteOptimizationEvent::Received { envelope, message, tunneled });
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.optimizer.as_mut().and_then(Machine::poll) {
            let line = self.optimizer_output(output);
            self.trace.push((self.now, line));
        }
        while let Some(output) = self.correspondent.as_mut().and_then(Machine::poll) {
            let line = self.correspondent_output(output);
            self.trace.push((self.now, line));
        }
    }

    fn optimizer_output(&mut self, output: RouteOptimizationOutput) -> String {
        let name = |correspondent: Ipv6Addr| {
            let ours = correspondent == address(CORRESPONDENT);
            if ours { String::new() } else { format!(" to={correspondent}") }
        };
        match output {
            RouteOptimizationOutput::Transmit { route, envelope, message } => {
                let line = self.by_hand.describe_sent(&envelope, &message);
                let (way, lost) = match route {
                    Route::Tunnel(bid) => (format!("by tunnel {bid}"), self.silent.contains(&bid)),
                    Route::Path(bid) => {
                        let eaten = envelope.home_address.is_some() && self.eating.contains(&bid);
                        (format!("by {bid}"), self.silent.contains(&bid) || eaten)
                    }
                    Route::Home => ("by home".to_owned(), false),
                };
                self.sent.push((self.now, envelope.destination, message[2]));
                self.wire.push((envelope, message.clone()));
                self.last_sent.insert((message[2], envelope.source), (envelope, message.clone()));
                if self.correspondent.is_some() && !lost {
                    self.fly(envelope, message);
                }
                format!("send {way} {line}")
            }
            RouteOptimizationOutput::Bound { correspondent, bid, care_of, expires, first } => {
                let verb = if first { "optimized" } else { "refreshed" };
                let (to, until) = (name(correspondent), text::seconds(expires));
                format!("route {bid} {verb} {care_of} until {until}{to}")
            }
            RouteOptimizationOutput::Unbound { correspondent, bid, reason } => {
                format!("route {bid} tunneled: {reason}{}", name(correspondent))
            }
            RouteOptimizationOutput::Notice(notice) => format!("notice: {notice}"),
            RouteOptimizationOutput::Stopped => "stopped".to_owned(),
        }
    }

    fn correspondent_output(&mut self, output: CorrespondentOutput) -> String {
        let line = match output {
            CorrespondentOutput::Transmit(transmit) => {
                let (envelope, octets) = (transmit.envelope, transmit.message);
                self.wire.push((envelope, octets.clone()));
                let message = wire::receive(&envelope, &octets).expect("a message of our own");
                self.by_hand.take(&envelope, &message);
                let line = format!("send {}", self.by_hand.describe(&envelope, &octets));
                if self.optimizer.is_some() {
                    self.fly(envelope, octets);
                }
                line
            }
            CorrespondentOutput::Changed { pair, effective } => self.changed(pair, effective),
            CorrespondentOutput::Notice(notice) => format!("notice: {notice}"),
        };
        // Who speaks is clear unless both are there.
        if self.optimizer.is_some() { format!("correspondent {line}") } else { line }
    }

    fn changed(&self, pair: Pair, effective: bool) -> String {
        let mut line = format!("cache {}", pair.home_address);
        if pair.correspondent == address(OTHER_CORRESPONDENT) {
            line += &format!(" by={OTHER_CORRESPONDENT}");
        }
        if !effective {
            return line + " prolonged";
        }
        let entry = self.correspondent.as_ref().and_then(|correspondent| correspondent.get(pair));
        let Some(entry) = entry else { return line + " empty" };
        for binding in &entry.bindings {
            line += &match binding.bid {
                Some(bid) => format!(" [bid={bid} {}]", binding.care_of),
                None => format!(" [plain {}]", binding.care_of),
            };
        }
        line
    }

    fn fly(&mut self, envelope: Envelope, message: Vec<u8>) {
        for delay in (self.fate)() {
            let arrives = self.now + delay;
            self.flying.push(Flying { arrives, envelope, message: message.clone() });
        }
    }

    /// What somebody other than the correspondent under test says to the mobile.
    pub fn say(&mut self, envelope: Envelope, message: &Message, octets: Vec<u8>, tunneled: bool) {
        self.by_hand.take(&envelope, message);
        let event = RouteOptimizationEvent::Received { envelope, message: octets, tunneled };
        self.optimizer_event(event);
    }
}

fn fire<M: Machine>(machine: Option<&mut M>, now: Duration) {
    let machine = machine.expect("it had a deadline");
    machine.handle_deadline(at(now, EPOCH));
    let later = machine.deadline();
    assert!(later.is_none_or(|later| later > now), "a deadline that does not move");
}
