//! What the octets of a message prove of its sender, before anything is made of them.
//!
//! A [`Gate`] stands where messages are received, in front of every queue: it tells the updates
//! that a mobile's key vouches for from those that anybody may send, on the octets as they lie in
//! the receive buffer. It allocates nothing and remembers nothing (req T-01, SE-01). Whether an
//! authentic update is fresh, and what it does, is for the [`HomeAgent`](super::HomeAgent) to say,
//! which asks the same question again: nobody's word replaces its own check.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use mtun_policy::HomeAddress;

use super::{HomeAgent, Ignored};
use crate::auth::{self, AuthFailure, SecurityAssociation};
use crate::machine::Envelope;
use crate::time::NtpTime;
use crate::wire::iana::{bu_flag, mh, option as kind};
use crate::wire::{self, BindingUpdate, option};

/// What a message is worth before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A Binding Update that the key of this mobile vouches for; perhaps an old one.
    Authentic {
        /// The mobile.
        home_address: HomeAddress,
        /// When it was written, by the mobile's clock; as true as the rest of it.
        stamp: Option<NtpTime>,
    },
    /// A Binding Update in the name of a mobile that has no key (`security none`).
    Unprotected(HomeAddress),
    /// A Binding Update with wrong authentication data in the name of this mobile.
    Forged(HomeAddress),
    /// A Binding Update that gets no answer, and why.
    Worthless(Ignored),
    /// No Binding Update for this agent; others may know what it is.
    Other,
}

/// Where a mobile's key is found.
pub(super) enum Known<'a> {
    /// Nobody of ours.
    Unknown,
    /// One of `security none`.
    Keyless,
    /// One with a key.
    Keyed(&'a SecurityAssociation),
}

/// Judges a message on its octets in place.
pub(super) fn judge<'a>(
    envelope: &Envelope,
    message: &[u8],
    known: impl FnOnce(HomeAddress) -> Known<'a>,
) -> Standing {
    if message.get(2) != Some(&mh::BINDING_UPDATE) || !wire::verify_checksum(envelope, message) {
        return Standing::Other;
    }
    let home_address = HomeAddress(envelope.upper_source());
    let association = match known(home_address) {
        Known::Unknown => return Standing::Worthless(Ignored::UnknownHomeAddress(home_address)),
        Known::Keyless => return Standing::Unprotected(home_address),
        Known::Keyed(association) => association,
    };
    let care_of = auth::care_of_address_in(message, envelope);
    match auth::verify(message, care_of, home_address, association) {
        Ok(_) => Standing::Authentic { home_address, stamp: stamp(message) },
        Err(AuthFailure::Mismatch) => Standing::Forged(home_address),
        Err(failure) => Standing::Worthless(Ignored::Unauthenticated(failure)),
    }
}

/// The timestamp of an update.
fn stamp(message: &[u8]) -> Option<NtpTime> {
    let options = option::walk(message, BindingUpdate::OPTIONS).map_while(Result::ok);
    let mut stamps = options.filter(|it| it.kind == kind::MESSAGE_ID);
    let octets = <[u8; 8]>::try_from(stamps.next()?.data).ok()?;
    Some(NtpTime(u64::from_be_bytes(octets)))
}

/// The mobiles of one agent and their keys, for those who receive its messages.
#[derive(Clone, Debug)]
pub struct Gate {
    agent: Ipv6Addr,
    mobiles: HashMap<HomeAddress, Option<SecurityAssociation>>,
    /// Whether this node answers as a correspondent too.
    responds: bool,
}

impl Gate {
    /// The same on a node that answers as a correspondent too: an update without H from somebody
    /// who is not served is for that.
    #[must_use]
    pub fn responding(mut self, responds: bool) -> Self {
        self.responds = responds;
        self
    }

    /// What a message is worth that came between these addresses.
    pub fn judge(&self, envelope: &Envelope, message: &[u8]) -> Standing {
        let home = message.get(8).is_some_and(|flags| flags & (bu_flag::HOME >> 8) as u8 != 0);
        let served = || envelope.home_address.is_some_and(|it| self.mobiles.contains_key(&it));
        if envelope.destination != self.agent || (self.responds && !home && !served()) {
            return Standing::Other;
        }
        judge(envelope, message, |home_address| match self.mobiles.get(&home_address) {
            None => Known::Unknown,
            Some(None) => Known::Keyless,
            Some(Some(association)) => Known::Keyed(association),
        })
    }
}

impl HomeAgent {
    /// The gate for this agent's messages, as it is configured at present.
    pub fn gate(&self) -> Gate {
        let keys = self.served.iter().map(|(it, served)| (*it, served.mobile.protection.clone()));
        Gate { agent: self.address.0, mobiles: keys.collect(), responds: false }
    }

    /// Rises with every configuration: a gate that was made before is out of date.
    pub fn configured(&self) -> u64 {
        self.configured
    }
}
