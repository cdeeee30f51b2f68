//! The mobile's side of a home registration (RFC 6275 §11, RFC 5648 §5, RFC 3963 §5).
//!
//! A [`MobileNode`] keeps the care-of addresses of one home address registered at one home agent.
//! It is a mobile router when it has prefixes; nothing else differs. It is told which uplinks
//! have an address and what arrived, and says which Binding Updates to send and which bindings
//! may carry packets.
//!
//! ```text
//!   CareOfUp, CareOfDown ──► one Registration per BID ──► plan: what is due? ──► one update out
//!                                     ▲                                               │
//!                                     └──── verdicts per BID ◄── acknowledgement ◄────┘
//! ```
//!
//! Three rules shape it. There is **one sequence space and one outstanding update** per agent
//! (RFC 5648 §4.1), because updates that overtake each other on different uplinks earn status
//! 135; what changes meanwhile goes into the next update, which is planned from the state of that
//! moment and not from the events that led there. An update **leaves by the uplink that answered
//! last**, so a silent one neither delays the others nor the de-registration of a dead one. And
//! whatever the agent **may** hold counts as held until it says otherwise or its timer must have
//! run out.
//!
//! It does not detect movement, does not choose paths for packets, and reads no key files.

mod acknowledgement;
mod clock;
pub mod discovery;
mod event;
mod extensions;
mod flows;
mod home_link;
mod notice;
mod pace;
mod plan;
pub mod route_optimization;
mod update;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mtun_policy::{Bid, CareOfAddress};

pub use event::{MobileConfig, MobileEvent, MobileOutput};
pub use flows::FlowFault;
pub use home_link::Stay;
pub use notice::{Ignored, MobileNotice};
pub use pace::MAX_UPDATE_RATE;

use crate::binding::{BindingUpdateList, BindingUpdateListEntry};
use crate::machine::{Envelope, Machine};
use crate::registration::{self, Effect, Registration, UnboundReason};
use crate::time::Timestamp;
use crate::wire::iana::binding_error;
use crate::wire::{self, Message};
use clock::MessageClock;
use extensions::Peer;
use flows::{Flows, SentFlows};
use home_link::HomeLink;
use pace::Pace;
use plan::Request;

/// A refresh asked for by an unauthenticated message waits this long after the last update.
const REFRESH_GUARD: Duration = Duration::from_secs(10);

/// How long a fresh uplink waits for others, so that those which come up together are registered
/// together. Nothing that was in use waits for it.
const GATHER: Duration = Duration::from_millis(50);

/// How the agent is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Several bindings in one update.
    Bulk,
    /// One binding per update.
    Individual,
    /// One binding without BID (plain RFC 6275).
    Single,
}

/// What the machine lives for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// Keep every uplink registered.
    Registered,
    /// Keep nothing registered: at home.
    Home,
    /// End everything at the agent, then start again after `wait`.
    StartOver { wait: Duration },
    /// End everything at the agent, then stop.
    Stop,
    /// Nothing: stopped.
    Nothing,
    /// Nothing until told to ask again or to stop: the home address is in use by another node, or
    /// the agent does not serve us as a mobile router.
    Barred,
}

/// An update that waits for its acknowledgement.
#[derive(Clone, Debug)]
struct Outstanding {
    request: Request,
    update: update::Sent,
    /// What it says of flow bindings.
    flows: SentFlows,
    /// When to give it up.
    timer: Duration,
}

/// One home address at one home agent, from the mobile's side.
#[derive(Debug)]
pub struct MobileNode {
    config: MobileConfig,
    mode: Mode,
    aim: Aim,
    registrations: BTreeMap<Bid, Registration>,
    home: HomeLink,
    flows: Flows,
    /// Whether the next registration must replace all that the agent holds (RFC 5648 §5.9).
    overwrite: bool,
    next_sequence: u16,
    outstanding: Option<Outstanding>,
    clock: MessageClock,
    peer: Peer,
    pace: Pace,
    last_sent: Option<Duration>,
    /// No update leaves before.
    hold: Duration,
    /// Answers in a row that called for an immediate, corrected update.
    corrections: u32,
    /// Refusals of whole updates in a row.
    refusals: u32,
    out: VecDeque<MobileOutput>,
}

impl MobileNode {
    /// A mobile without uplinks; `now` is when it starts.
    pub fn new(config: MobileConfig, now: Timestamp) -> Self {
        let mode = match (config.multiple_coa, config.bulk) {
            (true, true) => Mode::Bulk,
            (true, false) => Mode::Individual,
            (false, _) => Mode::Single,
        };
        Self {
            next_sequence: config.initial_sequence,
            config,
            mode,
            aim: Aim::Registered,
            registrations: BTreeMap::new(),
            home: HomeLink::default(),
            flows: Flows::default(),
            // req MC-22, R-MN-21 (RFC 5648 §5.9): the agent may hold bindings of an earlier life.
            overwrite: true,
            outstanding: None,
            clock: MessageClock::default(),
            peer: Peer::default(),
            pace: Pace::default(),
            last_sent: None,
            hold: now.monotonic,
            corrections: 0,
            refusals: 0,
            out: VecDeque::new(),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &MobileConfig {
        &self.config
    }

    /// Whether it registers one care-of address only, by configuration or by the agent's wish.
    pub fn is_single(&self) -> bool {
        self.mode == Mode::Single
    }

    /// What it asked the agent for, as of the last event.
    pub fn update_list(&self) -> BindingUpdateList {
        let bindings =
            self.registrations.iter().map(|(&bid, registration)| BindingUpdateListEntry {
                bid,
                care_of: registration.care_of(),
                home_link: self.is_home(registration),
                priority: registration.priority(),
                phase: registration.phase(),
                expires: registration.grant().map(|grant| grant.expires),
                last_status: registration.last_status,
                retries: registration.unanswered,
            });
        let at_home =
            self.unbound_home_uplinks().map(|(bid, priority, phase)| BindingUpdateListEntry {
                bid,
                care_of: self.config.home_address.0.into(),
                home_link: true,
                priority,
                phase,
                expires: None,
                last_status: None,
                retries: 0,
            });
        // An uplink that came home while its binding is still to be ended stands for the home.
        let mut entries: BTreeMap<Bid, _> = bindings.map(|entry| (entry.bid, entry)).collect();
        entries.extend(at_home.map(|entry| (entry.bid, entry)));
        BindingUpdateList {
            home_address: self.config.home_address,
            peer: self.config.agent,
            entries: entries.into_values().collect(),
            flows: self.registered_flows(),
            extensions: self.peer_extensions(),
        }
    }

    fn notice(&mut self, notice: MobileNotice) {
        self.out.push_back(MobileOutput::Notice(notice));
    }

    fn ignore(&mut self, ignored: Ignored) {
        self.notice(MobileNotice::Ignored(ignored));
    }

    /// The name of a binding towards the packets.
    fn label(&self, bid: Bid) -> Option<Bid> {
        (self.mode != Mode::Single).then_some(bid)
    }

    /// Tells one registration, and the packets what follows from it.
    fn apply(&mut self, bid: Bid, event: registration::Event) {
        let label = self.label(bid);
        let Some(registration) = self.registrations.get_mut(&bid) else { return };
        match registration.apply(event) {
            Effect::None => {}
            Effect::Up { grant, first } => {
                let care_of = registration.care_of();
                let expires = grant.expires;
                self.out.push_back(MobileOutput::Bound { bid: label, care_of, expires, first });
            }
            Effect::Down(reason) => {
                self.out.push_back(MobileOutput::Unbound { bid: label, reason });
            }
        }
    }

    fn apply_all(&mut self, event: registration::Event) {
        let bids: Vec<Bid> = self.registrations.keys().copied().collect();
        for bid in bids {
            self.apply(bid, event);
        }
    }

    /// Gives up the outstanding update; what it asked for is to be asked again.
    fn abandon(&mut self) {
        if let Some(outstanding) = self.outstanding.take() {
            self.unanswered(&outstanding.request);
        }
    }

    fn unanswered(&mut self, request: &Request) {
        for bid in request.bids() {
            self.apply(bid, registration::Event::Unanswered);
        }
    }

    fn care_of_up(&mut self, now: Duration, bid: Bid, priority: u8, care_of: CareOfAddress) {
        if care_of.0.is_ipv4() {
            return self.notice(MobileNotice::UnsupportedCareOf { bid });
        }
        let moved = self.registrations.get(&bid).is_none_or(|old| old.care_of() != care_of);
        let fresh = || Registration::new(care_of, priority, now + GATHER);
        self.registrations.entry(bid).or_insert_with(fresh);
        self.apply(bid, registration::Event::CareOf { care_of, priority });
        let Some(outstanding) = &self.outstanding else { return };
        let path = outstanding.update.path;
        let silent = self.registrations.get(&path).is_none_or(|path| path.unanswered > 0);
        // The answer cannot reach an address that is gone; and while the agent is silent, an
        // uplink that was not there before is the best thing to try.
        if moved && (path == bid || silent) {
            self.abandon();
        }
    }

    fn care_of_down(&mut self, bid: Bid) {
        self.apply(bid, registration::Event::PathLost);
        if self.outstanding.as_ref().is_some_and(|outstanding| outstanding.update.path == bid) {
            self.abandon();
        }
    }

    fn unreachable(&mut self, now: Duration, bid: Bid) {
        let Some(outstanding) = &self.outstanding else { return };
        if outstanding.update.path != bid || self.is_return(&outstanding.request) {
            return;
        }
        self.notice(MobileNotice::Unreachable { bid });
        let unanswered = self.registrations.get(&bid).map_or(0, |path| path.unanswered);
        let better = self.registrations.iter().any(|(&other, registration)| {
            other != bid && registration.is_up() && registration.unanswered <= unanswered
        });
        if better && self.mode != Mode::Single {
            self.give_up_waiting(now);
        }
    }

    /// The outstanding update had no answer in time.
    fn give_up_waiting(&mut self, now: Duration) {
        if let Some(outstanding) = self.outstanding.take() {
            if let Some(path) = self.registrations.get_mut(&outstanding.update.path) {
                path.unanswered = path.unanswered.saturating_add(1);
            }
            self.home.unanswered(outstanding.update.path);
            if self.is_return(&outstanding.request) {
                self.return_unanswered(now, outstanding.update.path);
            }
            self.unanswered(&outstanding.request);
        }
    }

    fn received(&mut self, now: Timestamp, envelope: &Envelope, message: &[u8]) {
        if envelope.source != self.config.agent.0 {
            return self.ignore(Ignored::NotFromAgent);
        }
        if self.extension(now, envelope, message) {
            return;
        }
        match wire::receive(envelope, message) {
            Err(error) => self.ignore(Ignored::Undecodable(error)),
            Ok(Message::BindingAcknowledgement(acknowledgement)) => {
                self.acknowledged(now, envelope, message, &acknowledgement);
            }
            Ok(Message::BindingRefreshRequest(request)) => {
                // req MC-19, R-HA-25 (RFC 5648 §5.8): at least the bindings that are named.
                let named: Vec<Bid> = request.options.bids().filter_map(|bid| bid.bid).collect();
                self.refresh_asked(now.monotonic, &named);
            }
            Ok(Message::BindingError(error)) if error.status == binding_error::UNKNOWN_BINDING => {
                self.refresh_asked(now.monotonic, &[]);
            }
            Ok(Message::BindingError(error))
                if error.status == binding_error::UNRECOGNIZED_TYPE && self.heartbeat_unknown() =>
            {
                self.notice(MobileNotice::AgentWithoutHeartbeat);
            }
            Ok(Message::BindingError(error)) => self.ignore(Ignored::BindingError(error.status)),
            Ok(other) => self.ignore(Ignored::Unexpected(other.mh_type())),
        }
    }

    /// Somebody in the agent's name, unauthenticated, wants to see an update: it costs one at
    /// most every few seconds, and the agent's authenticated answer decides what is true.
    fn refresh_asked(&mut self, now: Duration, named: &[Bid]) {
        if self.last_sent.is_some_and(|sent| now < sent + REFRESH_GUARD) {
            return self.ignore(Ignored::RefreshTooSoon);
        }
        let all: Vec<Bid> = self.registrations.keys().copied().collect();
        for bid in all {
            if named.is_empty() || named.contains(&bid) {
                self.apply(bid, registration::Event::RefreshDue);
            }
        }
    }

    fn stop(&mut self) {
        self.abandon();
        self.aim = Aim::Stop;
        self.hold = Duration::ZERO;
    }

    /// Sends what is due, unless an update is outstanding or it is too early.
    fn proceed(&mut self, now: Timestamp) {
        self.registrations.retain(|_, entry| entry.phase() != registration::Phase::Gone);
        if !self.registrations.values().any(Registration::may_be_held) {
            // req FB-12 (RFC 6089 §5.3.3): flow bindings end with the last binding.
            self.flows.forget();
        }
        self.out.extend(self.flows.agreement_changed());
        if self.finish_if_nothing_is_held(now.monotonic) {
            return;
        }
        self.heartbeat_due(now);
        let ready = self.hold.max(self.pace.ready_at()) <= now.monotonic;
        if ready
            && self.outstanding.is_none()
            && let Some(request) = self.plan(now.monotonic)
        {
            self.send(now, request);
        }
        self.restand();
    }

    /// Whether an update can leave.
    fn is_reachable(&self) -> bool {
        self.home.is_up() || self.has_binding_up()
    }

    /// Whether an uplink is there that is or should be bound.
    fn has_binding_up(&self) -> bool {
        self.registrations.values().any(Registration::is_up)
    }

    /// Ends [`Aim::StartOver`] and [`Aim::Stop`] when there is nothing left to end, or no way to
    /// say so. Gives whether the machine has stopped.
    fn finish_if_nothing_is_held(&mut self, now: Duration) -> bool {
        let held = self.registrations.values().any(Registration::may_be_held);
        let reachable = self.is_reachable();
        match self.aim {
            Aim::Nothing => true,
            Aim::Registered | Aim::Home | Aim::Barred => false,
            Aim::StartOver { wait } => {
                if !held {
                    self.aim = self.ordinary_aim();
                    self.overwrite = true;
                    self.hold = self.hold.max(now + wait);
                }
                false
            }
            Aim::Stop if held && reachable => false,
            Aim::Stop => {
                self.outstanding = None;
                for (bid, registration) in std::mem::take(&mut self.registrations) {
                    if registration.grant().is_some() {
                        let (bid, reason) = (self.label(bid), UnboundReason::Stopped);
                        self.out.push_back(MobileOutput::Unbound { bid, reason });
                    }
                }
                self.aim = Aim::Nothing;
                self.restand();
                self.out.push_back(MobileOutput::Stopped);
                true
            }
        }
    }
}

impl Machine for MobileNode {
    type Event = MobileEvent;
    type Output = MobileOutput;

    fn handle(&mut self, now: Timestamp, event: MobileEvent) {
        if self.aim == Aim::Nothing {
            if matches!(event, MobileEvent::Received { .. }) {
                self.ignore(Ignored::Stopped);
            }
            return;
        }
        self.apply_all(registration::Event::Deadline(now.monotonic));
        match event {
            MobileEvent::CareOfUp { bid, priority, care_of } => {
                self.home_link_down(now.monotonic, bid);
                // req MN-36 (RFC 6275 §6.1.7).
                if care_of == CareOfAddress::from(self.config.home_address.0) {
                    self.care_of_down(bid);
                    self.notice(MobileNotice::HomeAddressAsCareOf { bid });
                } else {
                    self.care_of_up(now.monotonic, bid, priority, care_of);
                }
            }
            MobileEvent::CareOfDown { bid } => {
                self.home_link_down(now.monotonic, bid);
                self.care_of_down(bid);
            }
            MobileEvent::HomeLinkUp { bid, priority, link_layer_address } => {
                self.home_link_up(now.monotonic, bid, priority, link_layer_address);
            }
            MobileEvent::HomeLinkDown { bid } => self.home_link_down(now.monotonic, bid),
            MobileEvent::Received { envelope, message } => self.received(now, &envelope, &message),
            MobileEvent::Unreachable { bid } => self.unreachable(now.monotonic, bid),
            MobileEvent::FlowsChanged { flows, reflect, copies } => {
                self.flows_changed(flows, reflect, copies);
            }
            MobileEvent::AskAgain => {
                self.flows.ask_again();
                self.ask_again(now.monotonic);
            }
            MobileEvent::Stop => self.stop(),
        }
        self.proceed(now);
    }

    fn handle_deadline(&mut self, now: Timestamp) {
        if self.aim == Aim::Nothing {
            return;
        }
        self.apply_all(registration::Event::Deadline(now.monotonic));
        if self.outstanding.as_ref().is_some_and(|waiting| waiting.timer <= now.monotonic) {
            self.give_up_waiting(now.monotonic);
        }
        self.proceed(now);
    }

    fn poll(&mut self) -> Option<MobileOutput> {
        self.out.pop_front()
    }

    fn deadline(&self) -> Option<Duration> {
        if self.aim == Aim::Nothing {
            return None;
        }
        let next = match &self.outstanding {
            Some(outstanding) => Some(outstanding.timer),
            None => self.due().map(|due| due.max(self.hold).max(self.pace.ready_at())),
        };
        let expiries = self.registrations.values().filter_map(Registration::expiry);
        expiries.chain(next).chain(self.peer.deadline()).min()
    }
}
