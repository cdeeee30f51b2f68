//! What a mobile makes of a Binding Acknowledgement (RFC 6275 §11.7.3, RFC 5648 §5.7).

use std::time::Duration;

use mtun_policy::Bid;

use super::flows::SentFlows;
use super::plan::Request;
use super::update::Sent;
use super::{Aim, Ignored, MobileNode, MobileNotice, MobileOutput, Mode, Outstanding};
use crate::auth::{self, AuthFailure};
use crate::machine::Envelope;
use crate::registration::{
    Event, Grant, Phase, Registration, UnboundReason, acknowledgement_wait, refusal_wait,
};
use crate::time::Timestamp;
use crate::wire::iana::authentication_subtype;
use crate::wire::{BindingAcknowledgement, Status};

/// Refusals after which the agent holds nothing for us that may be used (RFC 6275 §10.3, RFC 3963
/// §5.4.2). Who is prohibited may have lost what it had before it asked.
const NOTHING_HELD: [Status; 8] = [
    Status::ADMINISTRATIVELY_PROHIBITED,
    Status::HOME_REGISTRATION_NOT_SUPPORTED,
    Status::NOT_HOME_SUBNET,
    Status::NOT_HOME_AGENT,
    Status::MOBILE_ROUTER_NOT_PERMITTED,
    Status::INVALID_PREFIX,
    Status::NOT_AUTHORIZED_FOR_PREFIX,
    Status::FORWARDING_SETUP_FAILED,
];

/// How the first wait after status 145 or 146 compares with that after other refusals: a wrong
/// key is not cured by asking (RFC 4285 §5.3).
const AUTHENTICATION_PATIENCE: u32 = 3;

impl MobileNode {
    pub(super) fn acknowledged(
        &mut self,
        now: Timestamp,
        envelope: &Envelope,
        message: &[u8],
        acknowledgement: &BindingAcknowledgement,
    ) {
        if let Err(ignored) = self.check(envelope, message, acknowledgement) {
            return self.ignore(ignored);
        }
        let Some(Outstanding { request, update, flows, .. }) = self.outstanding.take() else {
            return;
        };
        // Status 146 need not be authentic, and proves nothing of what the agent holds.
        let refused = !acknowledgement.status.is_accepted();
        if refused && acknowledgement.status != Status::AUTHENTICATION_FAILED {
            self.flows_untouched(flows.clone());
        }
        if let Some(path) = self.registrations.get_mut(&update.path) {
            path.unanswered = 0;
        }
        self.home.answered(update.path);
        for bid in request.bids() {
            if let Some(registration) = self.registrations.get_mut(&bid) {
                registration.last_status = Some(acknowledgement.status);
            }
        }
        match acknowledgement.status {
            Status::SEQUENCE_OUT_OF_WINDOW => {
                // req MN-10, R-MN-06 (RFC 6275 §11.7.3): continue after the agent's number; 65535
                // is followed by 0.
                let sequence = acknowledgement.sequence;
                self.next_sequence = sequence.wrapping_add(1);
                self.notice(MobileNotice::SequenceAdopted { sequence });
                self.correct_and_ask_again(now, &request);
            }
            Status::ID_MISMATCH if update.message_id.is_some() => {
                // req SE-03 (RFC 4285 §6): only ever reached by an authenticated answer.
                if let Some(agent) = acknowledgement.options.message_id() {
                    let offset = self.clock.correct(now, agent);
                    self.notice(MobileNotice::ClockCorrected { offset });
                }
                self.correct_and_ask_again(now, &request);
            }
            Status::AUTHENTICATION_FAILED | Status::MESSAGE_ID_REQUIRED => {
                let retry = refusal_wait(self.refusals + AUTHENTICATION_PATIENCE);
                self.back_off(now, retry, &request);
                let status = acknowledgement.status;
                self.notice(match status {
                    Status::AUTHENTICATION_FAILED => MobileNotice::AuthenticationRejected { retry },
                    _ => MobileNotice::Refused { bid: None, status, retry },
                });
            }
            status if self.is_return(&request) => self.returned(now.monotonic, update.path, status),
            _ if matches!(request, Request::DeregisterAll) => self.ended(acknowledgement.status),
            Status::REGISTRATION_TYPE_CHANGE_DISALLOWED => {
                // req NH-05 (RFC 3963 §6.2): end the old registration, then register anew. When
                // that does not help, ever more rarely.
                self.notice(MobileNotice::TypeChangeDisallowed);
                self.unanswered(&request);
                let wait =
                    if self.refusals == 0 { Duration::ZERO } else { refusal_wait(self.refusals) };
                self.start_over(wait);
            }
            Status::DUPLICATE_ADDRESS_DETECTION_FAILED => {
                // req R-MN-07 (RFC 6275 §11.7.1): this home address must not be used again.
                self.notice(MobileNotice::HomeAddressInUse);
                self.refuse(now, &request.bids(), acknowledgement.status, Duration::MAX);
                self.aim = Aim::Barred;
            }
            Status::MOBILE_ROUTER_NOT_PERMITTED
            | Status::INVALID_PREFIX
            | Status::NOT_AUTHORIZED_FOR_PREFIX
            | Status::FORWARDING_SETUP_FAILED
                if request.is_registration() && !self.config.mobile_networks.is_empty() =>
            {
                // req MR-04, MR-05, MR-06, R-MR-03 (RFC 3963 §5.4): the agent holds nothing, and
                // asking it again as a router needs somebody who changed something.
                self.notice(MobileNotice::RouterRefused { status: acknowledgement.status });
                self.refuse(now, &request.bids(), acknowledgement.status, Duration::MAX);
                self.apply_all(Event::Removed);
                self.aim = Aim::Barred;
            }
            Status::MCOA_PROHIBITED if self.mode != Mode::Single => {
                self.notice(MobileNotice::MultipleCareOfProhibited);
                self.become_single(now.monotonic);
            }
            Status::MCOA_BULK_PROHIBITED if self.mode == Mode::Bulk => {
                // req MC-24, R-MN-27 (RFC 5648 §5.7): nothing of this update is registered.
                self.notice(MobileNotice::BulkProhibited);
                self.mode = Mode::Individual;
                self.unanswered(&request);
                self.settle_home(now.monotonic);
            }
            Status::MCOA_SIMULTANEOUS_HOME_AND_FOREIGN_PROHIBITED if self.names_home(&request) => {
                // req MC-14 (RFC 5648 §4.4): said of the whole update, so nothing of it stands.
                self.unanswered(&request);
                self.foreign_prohibited(now.monotonic);
            }
            Status::MCOA_NON_MCOA_BINDING_EXISTS => {
                // req MC-08, MC-24 (RFC 5648 §5.7): ask again with O.
                self.notice(MobileNotice::PlainBindingExists);
                self.overwrite = true;
                self.correct_and_ask_again(now, &request);
            }
            _ => self.judge(now, &request, &update, flows, acknowledgement),
        }
    }

    /// Whether the message is an answer to the outstanding update (RFC 6275 §11.7.3).
    fn check(
        &self,
        envelope: &Envelope,
        message: &[u8],
        acknowledgement: &BindingAcknowledgement,
    ) -> Result<(), Ignored> {
        // req MN-13, HA-41 (RFC 6275 §9.5.4): plain if the update came from the home address.
        let home_address = self.config.home_address;
        let outstanding = self.outstanding.as_ref();
        let from_home = outstanding.is_some_and(|it| it.update.source == home_address.0);
        let plain = from_home && envelope.destination == home_address.0;
        if envelope.routing_header != Some(home_address) && !plain {
            return Err(Ignored::NotForHomeAddress);
        }
        let sent = outstanding.ok_or(Ignored::NothingOutstanding)?.update;
        // req MN-11, R-MN-05 (RFC 6275 §11.7.3): status 135 carries the agent's number instead.
        let status = acknowledgement.status;
        if status != Status::SEQUENCE_OUT_OF_WINDOW && acknowledgement.sequence != sent.sequence {
            return Err(Ignored::Sequence);
        }
        let Some(association) = &self.config.protection else {
            let protected =
                acknowledgement.options.authentication(authentication_subtype::MN_HA).is_some();
            return if protected { Err(Ignored::NoSecurityAssociation) } else { Ok(()) };
        };
        let refused = status == Status::AUTHENTICATION_FAILED;
        if acknowledgement.options.authentication(authentication_subtype::MN_HA).is_none()
            && !refused
        {
            return Err(Ignored::Unauthenticated(AuthFailure::Missing));
        }
        // req SE-03 (RFC 4285 §6): the timestamp matches answer and update; status 144 keeps only
        // its low-order half.
        let echoed = acknowledgement.options.message_id();
        let matches = match (sent.message_id, echoed) {
            (Some(sent), Some(echoed)) if status == Status::ID_MISMATCH => {
                sent.fraction() == echoed.fraction()
            }
            (sent, echoed) => sent == echoed,
        };
        if !matches {
            return Err(Ignored::MessageId);
        }
        match auth::verify(message, sent.care_of, self.config.home_address, association) {
            Ok(_) => Ok(()),
            // When the keys differ the agent's refusal cannot be authentic. It is taken as a hint
            // to slow down, no more; guessing the sequence number and the timestamp is hard.
            Err(AuthFailure::Mismatch | AuthFailure::UnknownSpi(_) | AuthFailure::Missing)
                if refused =>
            {
                Ok(())
            }
            Err(failure) => Err(Ignored::Unauthenticated(failure)),
        }
    }

    /// The verdict on each binding the update named.
    fn judge(
        &mut self,
        now: Timestamp,
        request: &Request,
        sent: &Sent,
        flows: SentFlows,
        acknowledgement: &BindingAcknowledgement,
    ) {
        let status = acknowledgement.status;
        let without_bids = acknowledgement.options.bids().next().is_none();
        if status.is_accepted() {
            self.corrections = 0;
            if without_bids
                && matches!(request, Request::Register { .. } | Request::Deregister { .. })
            {
                return self.agent_without_bids(now.monotonic, request, sent, acknowledgement);
            }
            let router = !self.config.mobile_networks.is_empty();
            let registered = request.is_registration()
                && grant(sent, acknowledgement).is_some()
                && request.bids().iter().any(|bid| verdict(acknowledgement, *bid).is_accepted());
            if registered && router && !acknowledgement.router {
                // req R-MR-02, MR-03 (RFC 3963 §5.3): no forwarding for our prefixes; end it.
                self.notice(MobileNotice::AgentWithoutRouterSupport);
                self.unanswered(request);
                return self.start_over(refusal_wait(self.refusals + 1));
            }
        }
        let mut granted = false;
        let mut unknown = false;
        let mut foreign_prohibited = false;
        for bid in request.bids() {
            let verdict = verdict(acknowledgement, bid);
            if request.is_registration() && self.is_home_binding(bid) {
                foreign_prohibited = self.home_binding_judged(verdict);
                if foreign_prohibited {
                    self.apply(bid, Event::Unanswered);
                    continue;
                }
            }
            if let Some(registration) = self.registrations.get_mut(&bid) {
                registration.last_status = Some(verdict);
            }
            if !request.is_registration() {
                self.judge_deregistration(now, bid, verdict);
            } else if verdict == Status::MCOA_UNKNOWN_COA && self.is_refreshing(bid) {
                // req MC-24 (RFC 5648 §5.7): there it is new.
                self.notice(MobileNotice::UnknownBinding { bid });
                self.apply(bid, Event::Removed);
                unknown = true;
            } else {
                granted |= self.judge_registration(now, bid, verdict, sent, acknowledgement);
            }
        }
        if unknown {
            self.delay_corrections(now);
        }
        if granted {
            self.refusals = 0;
        }
        if status.is_accepted() {
            // Without one binding accepted, nothing of the update was.
            match granted || !request.is_registration() {
                true => self.flows_judged(now.monotonic, flows, &acknowledgement.options),
                false => self.flows_untouched(flows),
            }
        }
        let replaces_all =
            matches!(request, Request::Plain { .. } | Request::Register { overwrite: true, .. });
        if granted && replaces_all {
            self.overwrite = false;
            self.forget_others(&request.bids());
        }
        if foreign_prohibited {
            self.foreign_prohibited(now.monotonic);
        }
    }

    fn names_home(&self, request: &Request) -> bool {
        request.is_registration() && request.bids().iter().any(|bid| self.is_home_binding(*bid))
    }

    fn judge_registration(
        &mut self,
        now: Timestamp,
        bid: Bid,
        verdict: Status,
        sent: &Sent,
        acknowledgement: &BindingAcknowledgement,
    ) -> bool {
        // req MC-29 (RFC 5648 §5.7): 4 and 5 are below 128, and accept like any other.
        if let (true, Some(grant)) = (verdict.is_accepted(), grant(sent, acknowledgement)) {
            self.apply(bid, Event::Granted(grant));
            return true;
        }
        let Some(registration) = self.registrations.get(&bid) else { return false };
        // req MN-09 (RFC 6275 §11.7.3): ever more rarely.
        let retry = registration.next_refusal_wait();
        // Accepted for no time at all, or without naming the binding, is no acceptance.
        let status = if verdict.is_accepted() { Status::REASON_UNSPECIFIED } else { verdict };
        let bound_as = self.label(bid);
        self.notice(match status {
            Status::MCOA_MALFORMED => MobileNotice::Malformed { bid: bound_as },
            status => MobileNotice::Refused { bid: bound_as, status, retry },
        });
        self.refuse(now, &[bid], status, retry);
        false
    }

    fn judge_deregistration(&mut self, now: Timestamp, bid: Bid, verdict: Status) {
        match verdict {
            // The agent not knowing the BID is as good (RFC 5648 §5.7).
            status
                if status.is_accepted()
                    || status == Status::NOT_HOME_AGENT
                    || status == Status::MCOA_UNKNOWN_COA =>
            {
                self.apply(bid, Event::Removed);
            }
            status => {
                let Some(registration) = self.registrations.get(&bid) else { return };
                let retry = registration.next_refusal_wait();
                self.notice(MobileNotice::Refused { bid: Some(bid), status, retry });
                self.refuse(now, &[bid], status, retry);
            }
        }
    }

    fn refuse(&mut self, now: Timestamp, bids: &[Bid], status: Status, wait: Duration) {
        let retry = now.monotonic.saturating_add(wait);
        let kept =
            !NOTHING_HELD.contains(&status) && status != Status::DUPLICATE_ADDRESS_DETECTION_FAILED;
        for &bid in bids {
            self.apply(bid, Event::Refused { status, retry, kept });
        }
    }

    /// The agent ignored the Binding Identifiers: it took the update as plain RFC 6275.
    fn agent_without_bids(
        &mut self,
        now: Duration,
        request: &Request,
        sent: &Sent,
        acknowledgement: &BindingAcknowledgement,
    ) {
        // req MC-23, R-MN-26 (RFC 5648 §5.7): no more of it with this agent.
        self.notice(MobileNotice::AgentWithoutMultipleCareOf);
        self.become_single(now);
        if sent.source == self.config.home_address.0 {
            // req MC-23 (RFC 5648 §6.3): what came from the home address it took for a return.
            self.returned(now, sent.path, acknowledgement.status);
        } else if let (true, Some(grant)) =
            (request.is_registration(), grant(sent, acknowledgement))
        {
            // It bound the packet's source address.
            self.apply(sent.path, Event::Registering { until: grant.expires });
            let router = !self.config.mobile_networks.is_empty();
            if router && !acknowledgement.router {
                self.notice(MobileNotice::AgentWithoutRouterSupport);
                self.apply(sent.path, Event::Unanswered);
                self.start_over(refusal_wait(self.refusals + 1));
            } else {
                self.refusals = 0;
                self.overwrite = false;
                self.apply(sent.path, Event::Granted(grant));
            }
        }
    }

    /// From here on, one binding without BID (RFC 5648 §5.7).
    fn become_single(&mut self, now: Duration) {
        for (&bid, registration) in &self.registrations {
            if registration.grant().is_some() {
                let reason = UnboundReason::SingleCareOf;
                self.out.push_back(MobileOutput::Unbound { bid: Some(bid), reason });
            }
        }
        self.mode = Mode::Single;
        self.flows.forget();
        for registration in self.registrations.values_mut() {
            registration.apply(Event::Removed);
        }
        self.settle_home(now);
    }

    /// The agent replaced all bindings by these.
    fn forget_others(&mut self, named: &[Bid]) {
        let others: Vec<Bid> =
            self.registrations.keys().copied().filter(|bid| !named.contains(bid)).collect();
        for bid in others {
            if self.mode == Mode::Single {
                // The one binding has moved to another uplink, which was announced already.
                if let Some(registration) = self.registrations.get_mut(&bid) {
                    registration.apply(Event::Removed);
                }
            } else {
                self.apply(bid, Event::Removed);
            }
        }
    }

    /// The answer to the de-registration of everything.
    fn ended(&mut self, status: Status) {
        if !status.is_accepted() && status != Status::NOT_HOME_AGENT {
            self.notice(MobileNotice::DeregistrationRefused(status));
        }
        self.corrections = 0;
        self.flows.forget();
        let stopping = self.aim == Aim::Stop;
        for (&bid, registration) in &mut self.registrations {
            let bid = (self.mode != Mode::Single).then_some(bid);
            if registration.grant().is_some() && stopping {
                let reason = UnboundReason::Stopped;
                self.out.push_back(MobileOutput::Unbound { bid, reason });
            } else if registration.grant().is_some() {
                let reason = UnboundReason::Forgotten;
                self.out.push_back(MobileOutput::Unbound { bid, reason });
            }
            registration.apply(Event::Removed);
        }
    }

    /// Ends everything at the agent before anything else is asked for.
    fn start_over(&mut self, wait: Duration) {
        self.refusals = self.refusals.saturating_add(1);
        self.aim = Aim::StartOver { wait };
    }

    /// An answer that called for a corrected update: at once the first time, ever later if
    /// correcting does not help.
    fn correct_and_ask_again(&mut self, now: Timestamp, request: &Request) {
        self.unanswered(request);
        self.delay_corrections(now);
    }

    fn delay_corrections(&mut self, now: Timestamp) {
        self.corrections = self.corrections.saturating_add(1);
        if self.corrections > 1 {
            self.hold = now.monotonic + acknowledgement_wait(self.corrections - 2, true);
        }
    }

    /// A refusal of whatever we send.
    fn back_off(&mut self, now: Timestamp, wait: Duration, request: &Request) {
        self.refusals = self.refusals.saturating_add(1);
        self.unanswered(request);
        self.hold = now.monotonic + wait;
    }

    /// Asks once more for what was refused for good.
    pub(super) fn ask_again(&mut self, now: Duration) {
        if self.aim == Aim::Barred {
            for registration in self.registrations.values_mut() {
                let (care_of, priority) = (registration.care_of(), registration.priority());
                if registration.is_up() {
                    *registration = Registration::new(care_of, priority, now);
                }
            }
            self.aim = Aim::Registered;
            self.overwrite = true;
            self.refusals = 0;
            self.hold = now;
        }
    }

    fn is_refreshing(&self, bid: Bid) -> bool {
        let registration = self.registrations.get(&bid);
        registration.is_some_and(|registration| registration.phase() == Phase::Refreshing)
    }
}

/// The status of one binding: its option's, unless that is zero (RFC 5648 §5.7). Without any
/// options, that of the whole answer.
fn verdict(acknowledgement: &BindingAcknowledgement, bid: Bid) -> Status {
    // req R-MN-25 (RFC 5648 §5.7).
    if acknowledgement.options.bids().next().is_none() {
        return acknowledgement.status;
    }
    let option = acknowledgement.options.bids().find(|option| option.bid == Some(bid));
    match option {
        Some(option) if option.status != Status::ACCEPTED => option.status,
        Some(_) => acknowledgement.status,
        None if acknowledgement.status.is_accepted() => Status::REASON_UNSPECIFIED,
        None => acknowledgement.status,
    }
}

/// What was granted; `None` for a lifetime of zero, which is no registration.
fn grant(sent: &Sent, acknowledgement: &BindingAcknowledgement) -> Option<Grant> {
    // req R-MN-04 (RFC 6275 §11.7.3): counted from when the update was sent, and never more than
    // was asked for.
    let lifetime = acknowledgement.lifetime.min(sent.lifetime).duration();
    if lifetime.is_zero() {
        return None;
    }
    // Early enough for a refresh that is lost six times (RFC 6275 §11.7.3: "well before").
    let own = lifetime * 3 / 4;
    // req MN-07 (RFC 6275 §6.2.4, §11.7.3): the agent may advise to refresh sooner.
    let advice = acknowledgement
        .options
        .refresh_advice()
        .map(|units| Duration::from_secs(u64::from(units) * 4));
    let refresh = advice.filter(|advice| !advice.is_zero()).map_or(own, |advice| advice.min(own));
    Some(Grant { expires: sent.at + lifetime, refresh: sent.at + refresh })
}
