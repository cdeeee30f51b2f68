//! Answers Home Test Init and Care-of Test Init (RFC 6275 §9.4), keeping nothing about either.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::{Correspondent, CorrespondentNotice, CorrespondentOutput, Ignored};
use crate::binding::is_routable;
use crate::error::DecodeError;
use crate::machine::{Envelope, Transmit};
use crate::return_routability::Tested;
use crate::wire::iana::option as kind;
use crate::wire::option::{self, BindingIdentifier};
use crate::wire::{self, CareOfTest, CareOfTestInit, HomeTest, HomeTestInit, Message, Options};

impl Correspondent {
    /// Gives the token for the source of `message`, whose header has been checked.
    pub(super) fn answer_test(
        &mut self,
        now: Duration,
        envelope: &Envelope,
        message: &[u8],
        tested: Tested,
    ) {
        let source = envelope.source;
        let test = match self.check_test(envelope, message, tested) {
            Ok(test) => test,
            Err(reason) => return self.ignore(source, reason),
        };
        if !self.tests.take(now, source) {
            return self.ignore(source, Ignored::RateLimit);
        }
        // req CN-01, CN-05, R-CN-02 (RFC 6275 §9.4.3, §9.4.4): made from what is known anyway.
        let correspondent = envelope.upper_destination();
        let generation = self.nonces.current(now);
        let token = generation.keygen_token(correspondent, source, tested).octets();
        let (nonce_index, cookie) = (generation.index(), test.cookie);
        let message = match tested {
            Tested::Home => {
                Message::HomeTest(HomeTest { nonce_index, cookie, token, options: Options::new() })
            }
            Tested::CareOf => {
                let options = test.bid.into_iter().map(Into::into).collect();
                Message::CareOfTest(CareOfTest { nonce_index, cookie, token, options })
            }
        };
        // Back to where it came from and by no binding (RFC 6275 §6.1.5, §6.1.6).
        let envelope = Envelope::plain(correspondent, source);
        match wire::emit(&message, &envelope) {
            Ok(message) => {
                let transmit = Transmit { envelope, path: None, message };
                self.out.push_back(CorrespondentOutput::Transmit(transmit));
            }
            Err(error) => self.notice(CorrespondentNotice::Unwritable(error)),
        }
    }

    /// Whether the test is to be answered, judged in place.
    fn check_test(
        &self,
        envelope: &Envelope,
        message: &[u8],
        tested: Tested,
    ) -> Result<TestInit, Ignored> {
        // req CN-02, R-CN-01 (RFC 6275 §9.4.1, §9.4.2).
        if envelope.home_address.is_some() {
            return Err(Ignored::HomeAddressOption);
        }
        // req CN-08: whom nobody can bind, nobody needs to test.
        if !self.may_be_bound(envelope.source) {
            return Err(Ignored::Source);
        }
        TestInit::read(message, tested).map_err(Ignored::Undecodable)
    }

    /// Whether `address` may be a mobile's home or care-of address.
    pub(super) fn may_be_bound(&self, address: Ipv6Addr) -> bool {
        is_routable(address) && !self.addresses.contains(&address)
    }
}

/// What an answer takes from its request.
struct TestInit {
    cookie: [u8; 8],
    /// The first Binding Identifier of a Care-of Test Init, to be given back without an address.
    bid: Option<BindingIdentifier>,
}

impl TestInit {
    fn read(message: &[u8], tested: Tested) -> Result<Self, DecodeError> {
        let options = match tested {
            Tested::Home => HomeTestInit::OPTIONS,
            Tested::CareOf => CareOfTestInit::OPTIONS,
        };
        let found = message.len();
        let cookie = message
            .get(options - 8..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .ok_or(DecodeError::Truncated { needed: options, found })?;
        let mut bid = None;
        for located in option::walk(message, options) {
            let located = located?;
            // req MC-25 (RFC 5648 §4.3): length 4, status zero.
            if tested == Tested::CareOf && located.kind == kind::BINDING_IDENTIFIER && bid.is_none()
            {
                let named = BindingIdentifier::parse(located.data).ok().and_then(|named| named.bid);
                bid = named.map(BindingIdentifier::new);
            }
        }
        Ok(Self { cookie, bid })
    }
}
