//! What a correspondent's Binding Acknowledgement means (RFC 6275 §11.7.3, RFC 5648 §5.7).

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::Bid;

use super::peer::{Entry, Grant, Peer, Rest};
use super::plan::Request;
use super::update::Sent;
use super::{
    Ignored, RouteOptimization, RouteOptimizationNotice, RouteOptimizationOutput, Unoptimized,
};
use crate::machine::Envelope;
use crate::return_routability;
use crate::sequence::is_newer;
use crate::wire::{BindingAcknowledgement, Status};

/// Corrected updates in a row before the correspondent is left alone for a while.
const MAX_CORRECTIONS: u32 = 5;

impl RouteOptimization {
    /// An acknowledgement arrived from a correspondent of ours.
    pub(super) fn acknowledged(
        &mut self,
        now: Duration,
        peer: &mut Peer,
        envelope: &Envelope,
        message: &[u8],
        acknowledgement: &BindingAcknowledgement,
    ) {
        let correspondent = envelope.source;
        let found = match self.find_sent(peer, envelope, message, acknowledgement) {
            Ok(found) => found,
            Err(ignored) => return self.ignore(ignored),
        };
        let sent = peer.outstanding.swap_remove(found);
        let status = verdict(&sent, acknowledgement);
        if status.is_accepted() {
            // Answers that were overtaken speak of what is no more.
            peer.outstanding.retain(|earlier| !sent.voids(earlier));
        }
        if let Some(entry) = sent.request.bid().and_then(|bid| peer.entries.get_mut(&bid)) {
            entry.last_status = Some(status);
        }
        match (status, sent.request) {
            (status, Request::Register { bid } | Request::Plain { bid })
                if status.is_accepted() && !acknowledgement.lifetime.is_zero() =>
            {
                self.registered(now, correspondent, peer, &sent, bid, acknowledgement);
            }
            // req MC-24 (RFC 5648 §5.7): what it does not know is gone.
            (
                Status::NOT_HOME_AGENT | Status::MCOA_UNKNOWN_COA,
                request @ (Request::Deregister { .. } | Request::DeregisterAll),
            ) => peer.leave(request),
            (status, request @ (Request::Deregister { .. } | Request::DeregisterAll))
                if status.is_accepted() =>
            {
                peer.leave(request);
            }
            (status, request) => {
                self.refused(now, correspondent, peer, request, status, acknowledgement.sequence);
            }
        }
    }

    /// The update that an acknowledgement is about, if it is to be believed.
    fn find_sent(
        &self,
        peer: &Peer,
        envelope: &Envelope,
        message: &[u8],
        acknowledgement: &BindingAcknowledgement,
    ) -> Result<usize, Ignored> {
        if peer.outstanding.is_empty() {
            return Err(Ignored::NothingOutstanding);
        }
        // RFC 6275 §9.5.4: to the update's source, for the home address.
        if envelope.upper_destination() != self.config.home_address.0 {
            return Err(Ignored::WrongWay);
        }
        let here = |sent: &Sent| sent.source == envelope.destination;
        let by_sequence = || {
            let same = |sent: &Sent| here(sent) && sent.sequence == acknowledgement.sequence;
            peer.outstanding.iter().position(same).ok_or(Ignored::Sequence)
        };
        let authentic = |sent: &Sent| {
            return_routability::verify(message, sent.care_of, envelope.source, &sent.kbm)
        };
        match acknowledgement.status {
            // req MN-23, R-MN-14 (RFC 6275 §9.5.4): there is no key that could authenticate these.
            Status::EXPIRED_HOME_NONCE_INDEX
            | Status::EXPIRED_CARE_OF_NONCE_INDEX
            | Status::EXPIRED_NONCES => by_sequence(),
            // req MN-22, R-MN-06 (RFC 6275 §11.7.3): the number is another one, so whichever
            // update has the right key.
            Status::SEQUENCE_OUT_OF_WINDOW => {
                let mut failure = Ignored::WrongWay;
                for (index, sent) in
                    peer.outstanding.iter().enumerate().filter(|(_, sent)| here(sent))
                {
                    match authentic(sent) {
                        Ok(()) => return Ok(index),
                        Err(reason) => failure = Ignored::Unauthorized(reason),
                    }
                }
                Err(failure)
            }
            // req MN-24, R-MN-05, R-MN-14 (RFC 6275 §11.7.3).
            _ => {
                let index = by_sequence()?;
                authentic(&peer.outstanding[index]).map_err(Ignored::Unauthorized)?;
                Ok(index)
            }
        }
    }

    fn registered(
        &mut self,
        now: Duration,
        correspondent: Ipv6Addr,
        peer: &mut Peer,
        sent: &Sent,
        bid: Bid,
        acknowledgement: &BindingAcknowledgement,
    ) {
        let named = acknowledgement.options.bids().any(|option| option.bid == Some(bid));
        if matches!(sent.request, Request::Register { .. }) && !named {
            // req MC-23, R-MN-26 (RFC 5648 §5.7): it knows one binding per home address.
            peer.single = true;
            self.notice(RouteOptimizationNotice::OneCareOfOnly { correspondent });
        }
        if peer.single || sent.replaces {
            for other in peer.bids().into_iter().filter(|&other| other != bid) {
                self.unbind(correspondent, peer, other, Unoptimized::Superseded);
                peer.entries.entry(other).and_modify(Entry::ended);
            }
        }
        peer.overwrite = false;
        peer.corrections = 0;
        peer.rest = Rest::default();
        // req MN-07, R-MN-04, R-MN-08 (RFC 6275 §11.7.3): counted from when the update left. A
        // correspondent's refresh advice is none of ours.
        let lifetime = acknowledgement.lifetime.min(sent.lifetime).duration();
        let expires = sent.at + lifetime;
        let entry = peer.entries.entry(bid).or_default();
        entry.unanswered = 0;
        entry.rest = Rest::default();
        entry.held_until = Some(expires);
        // One that left later may have ended this binding before its acknowledgement is read. It
        // is asked for again.
        if expires <= now || peer.outstanding.iter().any(|later| later.voids(sent)) {
            return;
        }
        let care_of = sent.care_of;
        let first = entry.grant.is_none_or(|grant| grant.care_of != care_of);
        entry.grant = Some(Grant { care_of, expires });
        entry.refresh_at = sent.at + lifetime * 3 / 4;
        self.out.push_back(RouteOptimizationOutput::Bound {
            correspondent,
            bid,
            care_of,
            expires,
            first,
        });
    }

    fn refused(
        &mut self,
        now: Duration,
        correspondent: Ipv6Addr,
        peer: &mut Peer,
        request: Request,
        status: Status,
        last: u16,
    ) {
        let mut corrected = true;
        match status {
            Status::SEQUENCE_OUT_OF_WINDOW => {
                // req MN-22, R-MN-06 (RFC 6275 §11.7.3). One that was overtaken on its way needs
                // a number that is larger than the last one anyway.
                if is_newer(last, peer.next_sequence.wrapping_sub(1)) {
                    peer.next_sequence = last.wrapping_add(1);
                    let sequence = last;
                    let notice =
                        RouteOptimizationNotice::SequenceAdopted { correspondent, sequence };
                    self.notice(notice);
                }
            }
            // req MN-23 (RFC 6275 §5.2.7): only what has expired is tested again.
            Status::EXPIRED_HOME_NONCE_INDEX
            | Status::EXPIRED_CARE_OF_NONCE_INDEX
            | Status::EXPIRED_NONCES => {
                if status != Status::EXPIRED_CARE_OF_NONCE_INDEX {
                    peer.home_test.forget_token();
                }
                let entry = request.bid().and_then(|bid| peer.entries.get_mut(&bid));
                if let Some(entry) = entry
                    && status != Status::EXPIRED_HOME_NONCE_INDEX
                {
                    entry.test.forget_token();
                }
                self.notice(RouteOptimizationNotice::NonceExpired { correspondent, status });
            }
            // req MC-24, R-MN-27 (RFC 5648 §5.7).
            Status::MCOA_PROHIBITED if !peer.single => {
                peer.single = true;
                self.notice(RouteOptimizationNotice::OneCareOfOnly { correspondent });
            }
            Status::MCOA_NON_MCOA_BINDING_EXISTS if !peer.overwrite => {
                peer.overwrite = true;
                self.notice(RouteOptimizationNotice::PlainBindingExists { correspondent });
            }
            _ => corrected = false,
        }
        peer.corrections = if corrected { peer.corrections + 1 } else { 0 };
        if corrected && peer.corrections < MAX_CORRECTIONS {
            return;
        }
        peer.corrections = 0;
        let Some(bid) = request.registers() else {
            peer.leave(request);
            return self.notice(RouteOptimizationNotice::LeftToTimers { correspondent });
        };
        // req MN-22 (RFC 6275 §11.7.3): not asked again for a while.
        let retry = peer.entries.entry(bid).or_default().rest.begin(now);
        self.notice(RouteOptimizationNotice::Refused { correspondent, bid, status, retry });
    }
}

/// The verdict on an update: the message's own, unless the option has one (RFC 5648 §4.3).
fn verdict(sent: &Sent, acknowledgement: &BindingAcknowledgement) -> Status {
    // req R-MN-25 (RFC 5648 §5.7).
    let option = acknowledgement.options.bids().find(|option| option.bid == sent.request.bid());
    match option {
        Some(option)
            if acknowledgement.status.is_accepted() && option.status != Status::ACCEPTED =>
        {
            option.status
        }
        _ => acknowledgement.status,
    }
}
