//! What a correspondent sends besides tests: Binding Acknowledgements (RFC 6275 §9.5.4),
//! Binding Errors (§9.3.3) and Binding Refresh Requests (§9.5.5).

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{Bid, HomeAddress};

use super::accept::{Authorized, Claim};
use super::{Correspondent, CorrespondentNotice, CorrespondentOutput, Ignored, Pair};
use crate::binding::is_routable;
use crate::error::EncodeError;
use crate::machine::{Envelope, Transmit};
use crate::wire::iana::binding_error;
use crate::wire::option::BindingIdentifier;
use crate::wire::{
    self, BindingAcknowledgement, BindingError, BindingRefreshRequest, Lifetime, Message, Options,
    Status,
};

impl Correspondent {
    /// Tells the sender of an accepted update.
    pub(super) fn acknowledge(
        &mut self,
        claim: &Claim<'_>,
        authorized: &Authorized,
        lifetime: Lifetime,
    ) {
        let status = Status::ACCEPTED;
        let sequence = claim.update.sequence;
        self.send_acknowledgement(claim, Some(authorized), status, sequence, lifetime);
    }

    /// Tells the sender of a refused update; with an authenticator if it had a right one.
    pub(super) fn refuse(
        &mut self,
        claim: &Claim<'_>,
        authorized: Option<&Authorized>,
        status: Status,
        sequence: u16,
    ) {
        self.send_acknowledgement(claim, authorized, status, sequence, Lifetime::ZERO);
    }

    fn send_acknowledgement(
        &mut self,
        claim: &Claim<'_>,
        authorized: Option<&Authorized>,
        status: Status,
        sequence: u16,
        lifetime: Lifetime,
    ) {
        // req MC-12, MC-13, R-CN-10 (RFC 5648 §4.3, §6.2): what was named, without addresses; the
        // status stands in the message.
        let options: Options = match authorized {
            Some(authorized) => {
                authorized.update.options.bids().map(|bid| copied(bid).into()).collect()
            }
            None => {
                let named = claim.update.bid.map(BindingIdentifier::new);
                named.into_iter().map(Into::into).collect()
            }
        };
        let acknowledgement = Message::BindingAcknowledgement(BindingAcknowledgement {
            status,
            key_mobility: false,
            router: false,
            sequence,
            lifetime,
            options,
        });
        // req CN-10, CN-46 (RFC 6275 §9.5.4): to where the update came from, by a routing header
        // unless that is the home address itself.
        let Pair { correspondent, home_address } = claim.pair;
        let away = claim.envelope.source != home_address.0;
        let envelope = Envelope {
            routing_header: away.then_some(home_address),
            ..Envelope::plain(correspondent, claim.envelope.source)
        };
        // req CN-12, CN-13, R-CN-04 (RFC 6275 §9.5.4): no authenticator where there is no key.
        let written = match authorized {
            Some(Authorized { kbm, .. }) => wire::emit_authorized(
                &acknowledgement,
                &envelope,
                claim.care_of,
                correspondent,
                kbm,
            ),
            None => wire::emit(&acknowledgement, &envelope),
        };
        self.transmit(envelope, written);
    }

    /// Answers a packet whose Home Address option is not backed by a binding.
    pub(super) fn unknown_binding(
        &mut self,
        now: Duration,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        home_address: HomeAddress,
    ) {
        // req CN-61 (RFC 6275 §9.3.1, §9.3.3): not for what is no address of a mobile anyway.
        if !is_routable(home_address.0) {
            return self.ignore(source, Ignored::HomeAddress);
        }
        if !self.addresses.contains(&destination) {
            return self.ignore(source, Ignored::NotForUs);
        }
        // req CN-60, R-CN-07 (RFC 6275 §9.3.1).
        let status = binding_error::UNKNOWN_BINDING;
        self.send_binding_error(now, destination, source, home_address.0, status);
    }

    /// RFC 6275 §9.3.3: to the source of the packet, if that can be answered at all.
    pub(super) fn send_binding_error(
        &mut self,
        now: Duration,
        ours: Ipv6Addr,
        source: Ipv6Addr,
        home_address: Ipv6Addr,
        status: u8,
    ) {
        // req MH-06, R-ALL-10 (RFC 6275 §9.3.3).
        if source.is_multicast() || source.is_unspecified() || source.is_loopback() {
            return self.ignore(source, Ignored::Source);
        }
        if !self.refusals.take(now, source) {
            return self.ignore(source, Ignored::RateLimit);
        }
        let error = BindingError { status, home_address, options: Options::new() };
        let envelope = Envelope::plain(ours, source);
        self.transmit(envelope, wire::emit(&Message::BindingError(error), &envelope));
    }

    /// Asks a mobile at its home address to refresh these bindings.
    pub(super) fn ask_for_refresh(&mut self, pair: Pair, bids: &[Option<Bid>]) {
        // req CN-44, MC-19 (RFC 6275 §9.5.5, RFC 5648 §6.4).
        let named = bids.iter().flatten().map(|&bid| BindingIdentifier::new(bid).into());
        let request = BindingRefreshRequest { options: named.collect() };
        let envelope = Envelope::plain(pair.correspondent, pair.home_address.0);
        let written = wire::emit(&Message::BindingRefreshRequest(request), &envelope);
        self.transmit(envelope, written);
    }

    fn transmit(&mut self, envelope: Envelope, written: Result<Vec<u8>, EncodeError>) {
        match written {
            Ok(message) => {
                let transmit = Transmit { envelope, path: None, message };
                self.out.push_back(CorrespondentOutput::Transmit(transmit));
            }
            Err(error) => self.notice(CorrespondentNotice::Unwritable(error)),
        }
    }
}

/// An option as it comes back: number and priority, no address (RFC 5648 §4.3).
fn copied(option: &BindingIdentifier) -> BindingIdentifier {
    BindingIdentifier { status: Status::ACCEPTED, home: false, care_of: None, ..*option }
}
