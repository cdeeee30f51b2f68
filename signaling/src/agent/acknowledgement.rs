//! Writes a home agent's Binding Acknowledgements (RFC 6275 §9.5.4, RFC 5648 §6.2, RFC 4285 §6).

use std::time::Duration;

use super::accept::{Accepted, Claim, Objection};
use super::{AgentNotice, AgentOutput, HomeAgent};
use crate::machine::{Envelope, Transmit};
use crate::time::NtpTime;
use crate::wire::option::{self, BindingIdentifier, FlowIdentification, MessageId};
use crate::wire::{self, BindingAcknowledgement, Lifetime, Message, Options, Status, iana};

/// An acknowledgement up to this length fits the least MTU of 1280 octets with an IPv6 header and
/// a type 2 routing header in front (RFC 8200 §5, RFC 6275 §6.4).
const COMFORTABLE: usize = 1280 - 40 - 24;

/// Room for what protects it: a timestamp and the authentication data of 32 octets, both aligned.
const PROTECTION: usize = 64;

/// Options of an acknowledgement beside those of bindings and flow bindings: advice, extensions,
/// timestamp, authentication data.
const FURTHER: usize = 4;

/// A Flow Identification option without sub-options.
const BARE_FLOW: usize = 8;

impl HomeAgent {
    /// Answers an update that passed all steps.
    pub(super) fn acknowledge(&mut self, claim: &Claim, accepted: &Accepted, status: Status) {
        let bids = accepted.outcome.as_ref().map_or(0, |outcome| outcome.judged.len());
        let mut options = Options::with_capacity(bids + FURTHER);
        for judged in accepted.outcome.iter().flat_map(|outcome| &outcome.judged) {
            // req R-HA-22 (RFC 5648 §6.2): with status 4, each option has its own; the one of a
            // home binding always (§6.3).
            let own = match judged.status {
                own if status == Status::MCOA_NOT_COMPLETE || own.is_accepted() => own,
                _ => Status::ACCEPTED,
            };
            options.push(copied(&judged.option, own));
        }
        let lifetime = if accepted.any() { accepted.lifetime } else { Lifetime::ZERO };
        if let Some(advice) = self.advice(lifetime) {
            options.push(advice);
        }
        if let Some(extensions) = accepted.flows.extensions {
            options.push(extensions);
        }
        let mut acknowledgement = BindingAcknowledgement {
            status,
            key_mobility: false,
            // req R-HA-31, NH-01 (RFC 3963 §4.2, §6.6): only when asked for and set up.
            router: claim.update.flags.router && !lifetime.is_zero(),
            sequence: claim.update.sequence,
            lifetime,
            options,
        };
        self.answer_flows(claim, &accepted.flows.options, &mut acknowledgement);
        self.transmit(claim, acknowledgement, claim.update.options.message_id());
    }

    /// Puts the verdicts on flow options into an acknowledgement, as far as there is room.
    fn answer_flows(
        &mut self,
        claim: &Claim,
        answers: &[FlowIdentification],
        acknowledgement: &mut BindingAcknowledgement,
    ) {
        if answers.is_empty() {
            return;
        }
        let home_address = claim.home_address;
        let mut refused = answers.iter().map(|it| it.status).filter(|it| !it.is_accepted());
        if let Some(status) = refused.next() {
            let number = 1 + refused.count();
            self.notice(AgentNotice::FlowsRefused { home_address, number, status });
        }
        let length = |acknowledgement: &BindingAcknowledgement| {
            let mut out = vec![0; BindingAcknowledgement::OPTIONS];
            let written = option::emit(&acknowledgement.options, &mut out);
            written.map_or(usize::MAX, |()| out.len() + PROTECTION)
        };
        // req FB-11 (RFC 6089 §5.3.5): each comes back with its status.
        let bare = acknowledgement.clone();
        for answer in answers {
            acknowledgement.options.push(answer.clone());
        }
        if length(acknowledgement) <= COMFORTABLE {
            return;
        }
        // The verdicts matter more than the words they are about; what is still too much the
        // mobile hears with its next update.
        let asked = claim.update.options.flows().count() * BARE_FLOW;
        let taken = length(&bare);
        let room = match taken + asked <= COMFORTABLE {
            true => COMFORTABLE - taken,
            false => iana::MAX_MESSAGE.saturating_sub(taken),
        };
        let number = answers.len().saturating_sub(room / BARE_FLOW);
        if number > 0 {
            self.notice(AgentNotice::FlowAnswersLeftOut { home_address, number });
        }
        *acknowledgement = bare;
        for answer in &answers[..answers.len() - number] {
            let sub_options = Vec::new();
            acknowledgement.options.push(FlowIdentification { sub_options, ..answer.clone() });
        }
    }

    /// Answers an update that failed, as long as there is budget for it.
    pub(super) fn refuse(&mut self, now: Duration, claim: &Claim, objection: &Objection) {
        let mut sequence = claim.update.sequence;
        let mut message_id = claim.update.options.message_id();
        let mut authentic = true;
        let status = match *objection {
            Objection::Ignore(_) => return,
            Objection::Refuse { status, forged } => {
                authentic = !forged;
                status
            }
            Objection::Clock(ours) => {
                message_id = Some(ours);
                Status::ID_MISMATCH
            }
            Objection::Sequence(last) => {
                sequence = last;
                Status::SEQUENCE_OUT_OF_WINDOW
            }
        };
        let home_address = claim.home_address;
        let answered = self.served.get_mut(&home_address).is_some_and(|served| {
            served.account.refused(now, authentic);
            if authentic { served.refusals.take(now) } else { served.forged.take(now) }
        });
        self.notice(AgentNotice::Refused { home_address, status, answered });
        if !answered {
            return;
        }
        let options = claim.bids.iter().map(|bid| copied(bid, Status::ACCEPTED).into()).collect();
        let acknowledgement = BindingAcknowledgement {
            status,
            key_mobility: false,
            router: false,
            sequence,
            lifetime: Lifetime::ZERO,
            options,
        };
        self.transmit(claim, acknowledgement, message_id);
    }

    fn transmit(
        &mut self,
        claim: &Claim,
        mut acknowledgement: BindingAcknowledgement,
        message_id: Option<NtpTime>,
    ) {
        // req HA-01, HA-41, HA-44 (RFC 6275 §9.5.4): to where the update came from, by a routing header
        // unless that is the home address itself. req FB-16 (RFC 6089 §4.3): whatever flow bindings say.
        let away = claim.envelope.source != claim.home_address.0;
        let envelope = Envelope {
            routing_header: away.then_some(claim.home_address),
            ..Envelope::plain(self.address.0, claim.envelope.source)
        };
        let association = self
            .served
            .get(&claim.home_address)
            .and_then(|served| served.mobile.protection.as_ref());
        let written = match association {
            Some(association) => {
                let message = Message::BindingAcknowledgement(acknowledgement);
                wire::authenticated(message, &envelope, claim.care_of, association, message_id)
            }
            None => {
                if let Some(timestamp) = message_id {
                    acknowledgement.options.push(MessageId { timestamp });
                }
                wire::emit(&Message::BindingAcknowledgement(acknowledgement), &envelope)
            }
        };
        match written {
            Ok(message) => {
                self.out.push_back(AgentOutput::Transmit(Transmit {
                    envelope,
                    path: None,
                    message,
                }));
            }
            Err(error) => self.notice(AgentNotice::Unwritable(error)),
        }
    }
}

/// An option as it comes back: number and priority, no address (RFC 5648 §6.2).
fn copied(option: &BindingIdentifier, status: Status) -> BindingIdentifier {
    // req MC-12, R-HA-23 (RFC 5648 §4.3, §6.2).
    BindingIdentifier { status, home: false, care_of: None, ..*option }
}
