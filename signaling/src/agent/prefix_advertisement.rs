//! Tells mobiles that are away which prefix their home link has (RFC 6275 §10.6).
//!
//! A solicitation is believed as far as its mobile has a binding by which it came; one that has
//! none is told so by a Binding Error, as for any packet with such a Home Address option. Without the
//! extension `prefix_discovery` none is answered and nobody is told: nothing authenticates these
//! messages.

use std::time::Duration;

use mtun_policy::HomeAddress;

use super::{HomeAgent, Ignored};
use crate::machine::Envelope;
use crate::wire::iana::binding_error;
use crate::wire::icmpv6::{self, IcmpMessage};

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
        if !self.extensions.prefix_discovery {
            return self.ignore(source, Ignored::PrefixDiscovery);
        }
        // req R-HA-43 (RFC 6275 §6.8): one a second to each mobile.
        if !served.advertisements.take(now) {
            return self.ignore(source, Ignored::SolicitationRate);
        }
        // req HA-76 (RFC 6275 §10.6.2): who asks has heard what it was told unasked.
        self.deliveries.cancel(home_address);
        self.advertise(now, home_address, source, solicitation.identifier);
    }
}
