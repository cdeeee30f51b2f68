//! Messages beyond RFC 6275 from the agent's side: it says that bindings have ended (RFC 5846),
//! sends mobiles to other agents (RFC 5142), and answers whether it is there (RFC 5847).
//!
//! Each is off unless the policy says otherwise, and to who is not protected it is off whatever the
//! policy says. What is off is an MH Type that this node does not know. Nothing is answered that
//! is not authentic, no answer is larger than what it costs to ask for it by more than an option of
//! six octets, and answers have a rate limit for each mobile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{Bid, HomeAddress};

use super::replay::TIMESTAMP_TOLERANCE;
use super::{AgentNotice, AgentOutput, HomeAgent, Ignored};
use crate::binding::{Binding, BindingCacheEntry};
use crate::machine::{Envelope, Transmit};
use crate::time::{NtpTime, Timestamp};
use crate::wire::extension::{self, Extension, ExtensionKind};
use crate::wire::option::{BindingIdentifier, RestartCounter};
use crate::wire::{BindingRevocation, Heartbeat, HomeAgentSwitch, Options, RevocationKind, Status};

/// Why bindings were taken back: an administrative reason (RFC 5846 §5.1).
const TRIGGER_ADMINISTRATIVE: u8 = 1;
/// First wait for a Binding Revocation Acknowledgement, doubled each time. A number of ours, like
/// the next: the bindings have ended whether their mobile hears of it or not.
const REVOCATION_WAIT: Duration = Duration::from_secs(1);
/// How often a revocation is said.
const REVOCATION_TRIES: u32 = 3;
/// First wait of a Home Agent Switch, doubled up to the longest (RFC 5142 §5.2).
const SWITCH_WAIT: Duration = Duration::from_secs(5);
const SWITCH_LONGEST: Duration = Duration::from_secs(20);
/// How often a switch is said. Who does not hear it is served until its bindings end.
const SWITCH_TRIES: u32 = 6;

/// What one mobile is being told, until it has heard it.
#[derive(Clone, Debug)]
struct Told {
    what: What,
    /// Where it may be, the most likely first.
    care_of: Vec<Ipv6Addr>,
    tries: u32,
    due: Duration,
}

#[derive(Clone, Debug)]
enum What {
    /// These bindings have ended; all of them if none is named.
    Revoked { sequence: u16, bids: Vec<Bid> },
    /// It is to go to one of these agents.
    Switch { agents: Vec<Ipv6Addr> },
}

/// What mobiles are being told.
#[derive(Debug, Default)]
pub(super) struct Tellings {
    pending: BTreeMap<HomeAddress, Told>,
    due: BTreeSet<(Duration, HomeAddress)>,
    sequence: u16,
    /// The last timestamp sent: each is later than all before.
    last: Option<NtpTime>,
}

impl Tellings {
    /// When the next is to be said.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    fn begin(&mut self, home_address: HomeAddress, told: Told) {
        self.end(home_address);
        self.due.insert((told.due, home_address));
        self.pending.insert(home_address, told);
    }

    /// It has heard what it was told, or it is not to hear it any more.
    pub(super) fn end(&mut self, home_address: HomeAddress) {
        if let Some(before) = self.pending.remove(&home_address) {
            self.due.remove(&(before.due, home_address));
        }
    }

    /// It holds nothing any more, and may come back.
    pub(super) fn unbound(&mut self, home_address: HomeAddress) {
        if self.switching(home_address) {
            self.end(home_address);
        }
    }

    /// Whether a mobile is on its way to another agent.
    pub(super) fn switching(&self, home_address: HomeAddress) -> bool {
        let told = self.pending.get(&home_address);
        told.is_some_and(|told| matches!(told.what, What::Switch { .. }))
    }
}

fn addresses<'b>(bindings: impl Iterator<Item = &'b Binding>) -> Vec<Ipv6Addr> {
    let v6 = |binding: &Binding| match binding.care_of.0 {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    };
    let mut all: Vec<Ipv6Addr> = bindings.filter_map(v6).collect();
    all.dedup();
    all
}

impl HomeAgent {
    /// Plans to tell a mobile that bindings have ended; `left` is what it still holds.
    pub(super) fn tell_revoked(
        &mut self,
        now: Duration,
        home_address: HomeAddress,
        ended: &[Binding],
        left: Option<&BindingCacheEntry>,
    ) {
        // req BR-01 (RFC 5846 §5).
        if !self.extensions.revocation || !self.is_keyed(home_address) || ended.is_empty() {
            return;
        }
        let held = left.into_iter().flat_map(|entry| &entry.bindings);
        let at_home = home_address.0;
        let mut care_of = addresses(held.chain(ended));
        care_of.retain(|address| *address != at_home);
        if care_of.is_empty() {
            return;
        }
        self.tellings.sequence = self.tellings.sequence.wrapping_add(1);
        let all = left.is_none() || ended.iter().any(|binding| binding.bid.is_none());
        let bids = if all { Vec::new() } else { ended.iter().filter_map(|it| it.bid).collect() };
        let what = What::Revoked { sequence: self.tellings.sequence, bids };
        self.tellings.begin(home_address, Told { what, care_of, tries: 0, due: now });
    }

    /// Plans to send a mobile to other agents; whether it will be told.
    pub(super) fn switch(
        &mut self,
        now: Duration,
        home_address: HomeAddress,
        agents: Vec<Ipv6Addr>,
    ) {
        let entry = self.cache.get(home_address);
        let care_of = addresses(entry.into_iter().flat_map(|entry| &entry.bindings));
        if !self.extensions.agent_switch || !self.is_keyed(home_address) || care_of.is_empty() {
            return self.notice(AgentNotice::NotTold { home_address });
        }
        let what = What::Switch { agents };
        self.tellings.begin(home_address, Told { what, care_of, tries: 0, due: now });
    }

    fn is_keyed(&self, home_address: HomeAddress) -> bool {
        self.served.get(&home_address).is_some_and(|served| served.mobile.protection.is_some())
    }

    /// Says what is due.
    pub(super) fn say(&mut self, now: Timestamp) {
        while let Some(&(at, home_address)) = self.tellings.due.first() {
            if at > now.monotonic {
                return;
            }
            self.tellings.due.pop_first();
            let Some(told) = self.tellings.pending.get_mut(&home_address) else { continue };
            let (wait, most) = match told.what {
                What::Revoked { .. } => (REVOCATION_WAIT * 2u32.pow(told.tries), REVOCATION_TRIES),
                // req HS-05 (RFC 5142 §5.2).
                What::Switch { .. } => {
                    ((SWITCH_WAIT * 2u32.pow(told.tries)).min(SWITCH_LONGEST), SWITCH_TRIES)
                }
            };
            if told.tries == most {
                if let What::Revoked { .. } = told.what {
                    self.tellings.pending.remove(&home_address);
                }
                // A switch stays: the mobile is refused an extension until its bindings end.
                self.notice(AgentNotice::Unheard { home_address });
                continue;
            }
            let care_of = told.care_of[told.tries as usize % told.care_of.len()];
            let message = match &told.what {
                What::Revoked { sequence, bids } => {
                    let kind = RevocationKind::Indication(TRIGGER_ADMINISTRATIVE);
                    let options: Options =
                        bids.iter().map(|bid| BindingIdentifier::new(*bid).into()).collect();
                    let message = BindingRevocation::new(kind, *sequence);
                    Extension::BindingRevocation(BindingRevocation { options, ..message })
                }
                What::Switch { agents } => Extension::HomeAgentSwitch(HomeAgentSwitch {
                    agents: agents.clone(),
                    options: Options::new(),
                }),
            };
            told.tries += 1;
            told.due = now.monotonic + wait;
            self.tellings.due.insert((told.due, home_address));
            self.say_to(now, home_address, care_of, &message);
        }
    }

    /// Sends a protected message to a mobile where it is.
    fn say_to(
        &mut self,
        now: Timestamp,
        home_address: HomeAddress,
        care_of: Ipv6Addr,
        message: &Extension,
    ) {
        let association =
            self.served.get(&home_address).and_then(|served| served.mobile.protection.clone());
        let Some(association) = association else { return };
        let envelope = Envelope {
            routing_header: Some(home_address),
            ..Envelope::plain(self.address.0, care_of)
        };
        let ours = self.clock.read(now);
        let stamp = match self.tellings.last {
            Some(last) if !ours.is_after(last) => NtpTime(last.0.wrapping_add(1)),
            _ => ours,
        };
        self.tellings.last = Some(stamp);
        match extension::emit_authenticated(message, &envelope, &association, stamp) {
            Ok(message) => {
                let transmit = Transmit { envelope, path: None, message };
                self.out.push_back(AgentOutput::Transmit(transmit));
            }
            Err(error) => self.notice(AgentNotice::Unwritable(error)),
        }
    }

    /// Takes a message that is one of these and switched on; whether it was.
    pub(super) fn extension(
        &mut self,
        now: Timestamp,
        envelope: &Envelope,
        message: &[u8],
    ) -> bool {
        let on = match extension::kind_of(message) {
            Some(ExtensionKind::Heartbeat) => self.extensions.heartbeat,
            Some(ExtensionKind::BindingRevocation) => self.extensions.revocation,
            // Agents send these and are sent none.
            Some(ExtensionKind::HomeAgentSwitch) | None => false,
        };
        let home_address = HomeAddress(envelope.upper_source());
        if !on || !self.is_keyed(home_address) {
            return false;
        }
        if let Err(reason) = self.heard(now, envelope, message, home_address) {
            self.ignore(envelope.source, reason);
        }
        true
    }

    fn heard(
        &mut self,
        now: Timestamp,
        envelope: &Envelope,
        message: &[u8],
        home_address: HomeAddress,
    ) -> Result<(), Ignored> {
        if envelope.destination != self.address.0 {
            return Err(Ignored::NotForAgent);
        }
        let served = self.served.get_mut(&home_address);
        let served = served.ok_or(Ignored::UnknownHomeAddress(home_address))?;
        let association = served.mobile.protection.as_ref();
        let association = association.ok_or(Ignored::NoSecurityAssociation)?;
        extension::verify(message, envelope, association).map_err(Ignored::Unauthenticated)?;
        match extension::receive(envelope, message).map_err(Ignored::Undecodable)? {
            Extension::Heartbeat(request) => {
                let source = envelope.source;
                // RFC 5847 §3: who is not bound any more has the more reason to ask. An old
                // question is somebody else's.
                let ours = self.clock.read(now);
                let stamp = request.options.message_id();
                let fresh = stamp.is_some_and(|it| it.distance(ours) <= TIMESTAMP_TOLERANCE);
                if !fresh || request.response {
                    return Err(Ignored::Heartbeat);
                }
                if !served.heartbeats.take(now.monotonic) {
                    return Err(Ignored::HeartbeatRate);
                }
                let mut response = Heartbeat {
                    response: true,
                    sequence: request.sequence,
                    ..Heartbeat::default()
                };
                response.options.push(RestartCounter { counter: self.restart_counter });
                self.say_to(now, home_address, source, &Extension::Heartbeat(response));
            }
            Extension::BindingRevocation(said) => {
                let RevocationKind::Acknowledgement(status) = said.kind else {
                    return Err(Ignored::Revocation);
                };
                let asked = self.tellings.pending.get(&home_address).map(|told| &told.what);
                match asked {
                    Some(What::Revoked { sequence, .. }) if *sequence == said.sequence => {}
                    _ => return Err(Ignored::Revocation),
                }
                self.tellings.end(home_address);
                let status = Status(status);
                self.notice(AgentNotice::RevocationHeard { home_address, status });
            }
            Extension::HomeAgentSwitch(_) => return Err(Ignored::Revocation),
        }
        Ok(())
    }
}
