//! Messages beyond RFC 6275 from the mobile's side: bindings that its agent says have ended (RFC
//! 5846), other agents to go to (RFC 5142), and whether the agent is there (RFC 5847).
//!
//! Each is believed only where the policy switches it on and the message proves that the agent
//! made it, for this home address, and not long ago. One that proves nothing costs no more than
//! an early Binding Update, as a Binding Refresh Request does; the agent's answer to that says what
//! is true.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{Bid, Extensions, HomeAgentAddress};

use super::{Ignored, MobileNode, MobileNotice, MobileOutput};
use crate::machine::{Envelope, Transmit};
use crate::registration::{self, Registration};
use crate::time::{NtpTime, Timestamp};
use crate::wire::extension::{self, Extension, ExtensionKind};
use crate::wire::iana::revocation as status;
use crate::wire::option::RestartCounter;
use crate::wire::{BindingRevocation, Heartbeat, RevocationKind, Status};

/// How far the agent's timestamps may lie from its time as we know it, as the agent is with ours.
const TOLERANCE: Duration = Duration::from_secs(7);
/// How long an answer to a heartbeat is awaited before it is asked again, if the next question is
/// not due before that anyway.
const HEARTBEAT_WAIT: Duration = Duration::from_secs(5);

/// Revocation triggers from here on are global (RFC 5846 §5.1).
const GLOBAL_TRIGGERS: u8 = 128;

/// What is known of the agent besides bindings.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The timestamp of the last message that was believed.
    last_told: Option<NtpTime>,
    /// When the agent is asked next.
    next: Option<Duration>,
    /// The number of the request that waits for its answer.
    asked: Option<u32>,
    sequence: u32,
    missed: u32,
    /// The agent's restart counter.
    counter: Option<u32>,
    /// It does not know the message, and is not asked again.
    never: bool,
}

impl Peer {
    /// When the agent is asked next.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.next
    }
}

impl MobileNode {
    /// Takes a message that is one of these and switched on; whether it was.
    pub(super) fn extension(
        &mut self,
        now: Timestamp,
        envelope: &Envelope,
        message: &[u8],
    ) -> bool {
        let extensions = self.config.extensions;
        let Some(kind) = extension::kind_of(message) else { return false };
        let on = match kind {
            ExtensionKind::Heartbeat => extensions.heartbeat,
            ExtensionKind::HomeAgentSwitch => extensions.agent_switch,
            ExtensionKind::BindingRevocation => extensions.revocation,
        };
        if !on || self.config.protection.is_none() {
            return false;
        }
        match self.proven(now, envelope, message, kind) {
            Ok(Extension::Heartbeat(heartbeat)) => self.heartbeat(now, envelope, &heartbeat),
            Ok(Extension::HomeAgentSwitch(switch)) => {
                // req HS-01, HS-02, HS-04 (RFC 5142 §6.1, §6.2).
                let agents = switch.agents.into_iter().map(HomeAgentAddress).collect();
                self.out.push_back(MobileOutput::Switch { agents });
            }
            Ok(Extension::BindingRevocation(said)) => self.revoked(now, envelope, &said),
            Err(reason) => {
                self.ignore(reason);
                if kind != ExtensionKind::Heartbeat {
                    self.refresh_asked(now.monotonic, &[]);
                }
            }
        }
        true
    }

    /// The message, if the agent made it for us and not long ago.
    fn proven(
        &mut self,
        now: Timestamp,
        envelope: &Envelope,
        message: &[u8],
        kind: ExtensionKind,
    ) -> Result<Extension, Ignored> {
        let read = extension::receive(envelope, message).map_err(Ignored::Undecodable)?;
        if envelope.routing_header != Some(self.config.home_address) {
            return Err(Ignored::NotForHomeAddress);
        }
        let association = self.config.protection.as_ref();
        let association = association.ok_or(Ignored::NoSecurityAssociation)?;
        extension::verify(message, envelope, association).map_err(Ignored::Unauthenticated)?;
        let stamp = read.options().message_id().ok_or(Ignored::MessageId)?;
        let near = stamp.distance(self.clock.reads(now)) <= TOLERANCE;
        let later = self.peer.last_told.is_none_or(|last| stamp.is_after(last));
        // An answer names its question, and may be overtaken by the next message.
        if kind != ExtensionKind::Heartbeat {
            if !(near && later) {
                return Err(Ignored::MessageId);
            }
            self.peer.last_told = Some(stamp);
        }
        Ok(read)
    }

    /// The agent says that bindings have ended, and is told that this was heard.
    fn revoked(&mut self, now: Timestamp, envelope: &Envelope, said: &BindingRevocation) {
        let RevocationKind::Indication(trigger) = said.kind else {
            return self.ignore(Ignored::Unexpected(16));
        };
        let named: Vec<Bid> = said.options.bids().filter_map(|it| it.bid).collect();
        let held = |it: &Registration| it.may_be_held();
        let known: Vec<Bid> = self
            .registrations
            .iter()
            .filter(|(bid, it)| held(it) && (named.is_empty() || named.contains(bid)))
            .map(|(bid, _)| *bid)
            .collect();
        let answer = match said {
            _ if said.proxy => status::PROXY_NOT_SUPPORTED,
            _ if said.global => status::GLOBAL_NOT_AUTHORIZED,
            // From here on triggers are reasons to end what all mobiles of a peer have.
            _ if trigger >= GLOBAL_TRIGGERS => status::TRIGGER_NOT_SUPPORTED,
            _ if said.ipv4 || known.is_empty() => status::BINDING_DOES_NOT_EXIST,
            _ if known.len() < named.len() => status::PARTIAL_SUCCESS,
            _ => status::SUCCESS,
        };
        if answer < 128 {
            let status = Status::ADMINISTRATIVELY_PROHIBITED;
            for &bid in &known {
                let wait = self.registrations.get(&bid).map(Registration::next_refusal_wait);
                let retry = now.monotonic.saturating_add(wait.unwrap_or_default());
                self.apply(bid, registration::Event::Revoked { status, retry });
            }
            for bid in known {
                self.notice(MobileNotice::Revoked { bid });
            }
        }
        let kind = RevocationKind::Acknowledgement(answer);
        let mut acknowledgement = BindingRevocation::new(kind, said.sequence);
        for option in said.options.bids() {
            acknowledgement.options.push(*option);
        }
        self.say(now, envelope.destination, &Extension::BindingRevocation(acknowledgement));
    }

    /// Sends a protected message to the agent from one of our care-of addresses.
    fn say(&mut self, now: Timestamp, care_of: Ipv6Addr, message: &Extension) {
        let Some(association) = self.config.protection.clone() else { return };
        let from = |it: &&Bid| self.registrations[*it].care_of().0 == IpAddr::V6(care_of);
        let path = self.registrations.keys().find(from).copied();
        let envelope = Envelope {
            home_address: Some(self.config.home_address),
            ..Envelope::plain(care_of, self.config.agent.0)
        };
        let stamp = self.clock.next(now);
        match extension::emit_authenticated(message, &envelope, &association, stamp) {
            Ok(message) => {
                self.out.push_back(MobileOutput::Transmit(Transmit { envelope, path, message }));
            }
            Err(error) => self.notice(MobileNotice::Unwritable(error)),
        }
    }

    // ---- heartbeats ----------------------------------------------------------------------------

    fn heartbeat(&mut self, now: Timestamp, envelope: &Envelope, said: &Heartbeat) {
        if !said.response {
            // RFC 5847 §3: who asks is answered; only our agent can.
            let mut response =
                Heartbeat { response: true, sequence: said.sequence, ..Heartbeat::default() };
            let counter = u32::from(self.config.initial_sequence);
            response.options.push(RestartCounter { counter });
            return self.say(now, envelope.destination, &Extension::Heartbeat(response));
        }
        if !said.unsolicited {
            if self.peer.asked != Some(said.sequence) {
                return self.ignore(Ignored::Sequence);
            }
            self.peer.asked = None;
            self.peer.missed = 0;
            self.peer.next = Some(now.monotonic + self.config.extensions.heartbeat_every);
        }
        let Some(counter) = said.options.restart_counter() else { return };
        let before = self.peer.counter.replace(counter);
        if before.is_some_and(|before| before != counter) {
            // It has lost what it held (RFC 5847 §3.2).
            self.notice(MobileNotice::AgentRestarted);
            self.overwrite = true;
            self.apply_all(registration::Event::RefreshDue);
        }
    }

    /// The agent does not know heartbeats (RFC 5847 §3).
    pub(super) fn heartbeat_unknown(&mut self) -> bool {
        let asked = self.peer.asked.take().is_some();
        if asked {
            self.peer.never = true;
            self.peer.next = None;
        }
        asked
    }

    /// Asks the agent whether it is there, when that is due.
    pub(super) fn heartbeat_due(&mut self, now: Timestamp) {
        let Extensions { heartbeat, heartbeat_every, heartbeats_missing, .. } =
            self.config.extensions;
        let on = heartbeat && self.config.protection.is_some();
        if !on || self.peer.never {
            return;
        }
        let bound = self.registrations.iter().filter(|(_, it)| it.is_up() && it.grant().is_some());
        let best = bound.min_by_key(|(bid, it)| (it.priority(), **bid)).map(|(_, it)| it.care_of());
        let Some(IpAddr::V6(care_of)) = best.map(|it| it.0) else {
            self.peer.next = None;
            self.peer.asked = None;
            return;
        };
        let next = *self.peer.next.get_or_insert(now.monotonic + heartbeat_every);
        if next > now.monotonic {
            return;
        }
        if self.peer.asked.take().is_some() {
            self.peer.missed += 1;
        }
        // RFC 5847 §3.1: more than are allowed, not as many.
        if self.peer.missed > u32::from(heartbeats_missing) {
            self.peer.missed = 0;
            self.peer.next = Some(now.monotonic + heartbeat_every);
            self.notice(MobileNotice::AgentSilent);
            // What is true the answers to updates say, or their absence.
            return self.apply_all(registration::Event::RefreshDue);
        }
        self.peer.sequence = self.peer.sequence.wrapping_add(1);
        let sequence =
            self.peer.sequence.wrapping_add(u32::from(self.config.initial_sequence) << 16);
        self.peer.asked = Some(sequence);
        self.peer.next = Some(now.monotonic + heartbeat_every.min(HEARTBEAT_WAIT));
        let request = Heartbeat { sequence, ..Heartbeat::default() };
        self.say(now, care_of, &Extension::Heartbeat(request));
    }
}
