//! Tells mobiles that are away which prefix their home link has (RFC 6275 §10.6).
//!
//! A solicitation is believed as far as its mobile has a binding by which it came; one that has
//! none is told so by a Binding Error, as for any packet with such a Home Address option.

use std::time::Duration;

use mtun_policy::HomeAddress;

use super::{AgentOutput, HomeAgent, Ignored};
use crate::machine::{Envelope, Transmit};
use crate::wire::iana::binding_error;
use crate::wire::icmpv6::{self, IcmpMessage, MobilePrefixAdvertisement, PrefixInformation};

impl HomeAgent {
    /// An ICMPv6 message of type 146 arrived.
    pub(super) fn solicited(&mut self, now: Duration, envelope: &Envelope, message: &[u8]) {
        let source = envelope.source;
        let solicitation = match icmpv6::receive(envelope, message) {
            Ok(IcmpMessage::MobilePrefixSolicitation(solicitation)) => solicitation,
            Ok(_) => return self.ignore(source, Ignored::Solicitation),
            Err(_) => return self.ignore(source, Ignored::Solicitation),
        };
        if envelope.destination != self.address.0 {
            return self.ignore(source, Ignored::NotForAgent);
        }
        let home_address = HomeAddress(envelope.upper_source());
        let Some(served) = self.served.get_mut(&home_address) else {
            return self.ignore(source, Ignored::UnknownHomeAddress(home_address));
        };
        let bound = self
            .cache
            .get(home_address)
            .is_some_and(|entry| entry.bindings.iter().any(|binding| binding.care_of.0 == source));
        // req HA-75 (RFC 6275 §10.6.1, §9.3.1).
        if !bound {
            self.ignore(source, Ignored::Solicitation);
            return self.send_binding_error(now, envelope, binding_error::UNKNOWN_BINDING);
        }
        // req R-HA-43 (RFC 6275 §6.8): one a second to each mobile.
        if !served.advertisements.take(now) {
            return self.ignore(source, Ignored::SolicitationRate);
        }
        let seconds = |until: Option<Duration>| {
            until.map_or(PrefixInformation::INFINITE, |until| {
                let left = until.saturating_sub(now).as_secs();
                u32::try_from(left).unwrap_or(PrefixInformation::INFINITE - 1)
            })
        };
        // req HA-75, NH-19, R-HA-43 (RFC 6275 §6.8, §7.2): with our own address, complete.
        let prefix = PrefixInformation {
            prefix_len: self.home_network.prefix_len(),
            on_link: true,
            autonomous: true,
            router_address: true,
            valid: seconds(self.home_prefix.valid_until),
            preferred: seconds(self.home_prefix.preferred_until),
            address: self.address.0,
        };
        let advertisement = MobilePrefixAdvertisement {
            identifier: solicitation.identifier,
            managed: false,
            other: false,
            prefixes: vec![prefix],
        };
        let envelope = Envelope {
            routing_header: Some(home_address),
            ..Envelope::plain(self.address.0, source)
        };
        let message =
            icmpv6::emit(&IcmpMessage::MobilePrefixAdvertisement(advertisement), &envelope);
        let transmit = Transmit { envelope, path: None, message };
        self.out.push_back(AgentOutput::Advertise(transmit));
    }
}
