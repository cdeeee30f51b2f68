//! The Binding Authorization Data option (RFC 6275 §6.2.7), and what stands around it in a
//! Binding Update to a correspondent, read from the octets in place.

use std::net::{IpAddr, Ipv6Addr};

use mtun_policy::{Bid, CareOfAddress};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::{AUTHENTICATOR, BindingManagementKey};
use crate::error::DecodeError;
use crate::wire::iana::{bu_flag, option as kind};
use crate::wire::option::{self, BindingIdentifier, Located, NonceIndices};
use crate::wire::{self, BindingUpdate, Lifetime};

/// Why a message is not believed to come from a mobile that passed return routability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum AuthorizationFailure {
    /// No message at all; holds what is wrong with it.
    #[error("malformed message: {0}")]
    Malformed(DecodeError),
    /// An option that does not start where its alignment puts it; holds its type.
    #[error("option {0} is not aligned")]
    Misaligned(u8),
    /// No Binding Authorization Data option.
    #[error("no authorization data")]
    Missing,
    /// Something follows the option, padding included.
    #[error("authorization data is not the last option")]
    NotLast,
    /// An authenticator of another length than 96 bits.
    #[error("authenticator of {0} octets")]
    Length(usize),
    /// The wrong authenticator.
    #[error("wrong authenticator")]
    Mismatch,
}

/// What a Binding Update to a correspondent says, as far as it must be known to tell whether it
/// is to be believed. Reading it allocates nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CorrespondentUpdate {
    pub sequence: u16,
    pub home: bool,
    pub lifetime: Lifetime,
    pub indices: Option<NonceIndices>,
    pub alternate: Option<Ipv6Addr>,
    /// How many Binding Identifier options there are, well formed or not.
    pub bids: usize,
    /// The address in the only one of them.
    pub care_of: Option<CareOfAddress>,
    /// The number in the only one of them; zero is none.
    pub bid: Option<Bid>,
    /// Where the authenticator begins, or why it cannot be one.
    authenticator: Result<usize, AuthorizationFailure>,
}

impl CorrespondentUpdate {
    /// Reads a Binding Update whose header has been checked.
    pub(crate) fn read(message: &[u8]) -> Result<Self, AuthorizationFailure> {
        let needed = BindingUpdate::OPTIONS;
        let found = message.len();
        let fixed = message
            .first_chunk::<{ BindingUpdate::OPTIONS }>()
            .ok_or(AuthorizationFailure::Malformed(DecodeError::Truncated { needed, found }))?;
        let flags = u16::from_be_bytes([fixed[8], fixed[9]]);
        let mut update = Self {
            sequence: u16::from_be_bytes([fixed[6], fixed[7]]),
            home: flags & bu_flag::HOME != 0,
            lifetime: Lifetime(u16::from_be_bytes([fixed[10], fixed[11]])),
            indices: None,
            alternate: None,
            bids: 0,
            care_of: None,
            bid: None,
            authenticator: find(message),
        };
        for located in option::walk(message, BindingUpdate::OPTIONS) {
            let located = located.map_err(AuthorizationFailure::Malformed)?;
            // req CN-16 (RFC 6275 §6.2): strict, since whoever knows the key knows the alignment.
            if !is_aligned(&located) {
                return Err(AuthorizationFailure::Misaligned(located.kind));
            }
            update.take(&located)?;
        }
        Ok(update)
    }

    fn take(&mut self, located: &Located<'_>) -> Result<(), AuthorizationFailure> {
        let Located { at, kind, data } = *located;
        let malformed = AuthorizationFailure::Malformed(DecodeError::OptionLength {
            kind,
            length: data.len(),
            at,
        });
        // req MH-11 (RFC 6275 §6.2): neither the first nor the last one wins.
        let twice = AuthorizationFailure::Malformed(DecodeError::DuplicateOption { kind, at });
        match kind {
            kind::NONCE_INDICES => {
                let indices = NonceIndices::parse(data).map_err(|_| malformed)?;
                if self.indices.replace(indices).is_some() {
                    return Err(twice);
                }
            }
            kind::ALTERNATE_CARE_OF_ADDRESS => {
                let octets: [u8; 16] = data.try_into().map_err(|_| malformed)?;
                if self.alternate.replace(Ipv6Addr::from(octets)).is_some() {
                    return Err(twice);
                }
            }
            kind::BINDING_IDENTIFIER => {
                self.bids += 1;
                let only = BindingIdentifier::parse(data).ok().filter(|_| self.bids == 1);
                self.care_of = only.and_then(|only| only.care_of);
                self.bid = only.and_then(|only| only.bid);
            }
            _ => {}
        }
        Ok(())
    }

    /// The address to be registered when the packet came from `source`; `None` for an IPv4
    /// address, which no correspondent registers (RFC 5648 §4.3).
    pub(crate) fn care_of_address(&self, source: Ipv6Addr) -> Option<Ipv6Addr> {
        // req CN-18 (RFC 6275 §9.5.1, RFC 5648 §5.2): the address inside goes first.
        match (self.care_of, self.alternate) {
            (Some(CareOfAddress(IpAddr::V6(address))), _) => Some(address),
            (Some(CareOfAddress(IpAddr::V4(_))), _) => None,
            (None, Some(address)) => Some(address),
            (None, None) => Some(source),
        }
    }

    /// Whether `message`, from which this was read, has the right authenticator.
    pub(crate) fn verify(
        &self,
        message: &[u8],
        care_of: Ipv6Addr,
        correspondent: Ipv6Addr,
        kbm: &BindingManagementKey,
    ) -> Result<(), AuthorizationFailure> {
        compare(message, self.authenticator?, care_of, correspondent, kbm)
    }

    /// Whether there is an authenticator where one must be.
    pub(crate) fn has_authenticator(&self) -> Result<(), AuthorizationFailure> {
        self.authenticator.map(|_| ())
    }
}

/// Whether an option starts where RFC 6275 §6.2 and RFC 5648 §4.3 put it.
fn is_aligned(located: &Located<'_>) -> bool {
    let (modulus, remainder) = match (located.kind, located.data.len()) {
        (kind::NONCE_INDICES, _) => (2, 0),
        (kind::ALTERNATE_CARE_OF_ADDRESS, _) => (8, 6),
        (kind::BINDING_AUTHORIZATION_DATA, _) => (8, 2),
        (kind::BINDING_IDENTIFIER, 4) => (2, 0),
        (kind::BINDING_IDENTIFIER, 8 | 20) => (8, 2),
        _ => (1, 0),
    };
    located.at % modulus == remainder
}

/// Finds the authenticator, which must end the message. Allocates nothing.
fn find(message: &[u8]) -> Result<usize, AuthorizationFailure> {
    let mh_type = wire::check_header(message).map_err(AuthorizationFailure::Malformed)?;
    let first = wire::options_offset(mh_type).ok_or(AuthorizationFailure::Missing)?;
    let mut found = None;
    for located in option::walk(message, first) {
        let located = located.map_err(AuthorizationFailure::Malformed)?;
        // req R-CN-03 (RFC 6275 §9.5.1, §11.7.3): the last option, and nothing behind it.
        if found.is_some() {
            return Err(AuthorizationFailure::NotLast);
        }
        if located.kind != kind::BINDING_AUTHORIZATION_DATA {
            continue;
        }
        let data_at = located.at + 2;
        if data_at + located.data.len() != message.len() {
            return Err(AuthorizationFailure::NotLast);
        }
        if located.data.len() != AUTHENTICATOR {
            return Err(AuthorizationFailure::Length(located.data.len()));
        }
        found = Some(data_at);
    }
    found.ok_or(AuthorizationFailure::Missing)
}

fn compare(
    message: &[u8],
    at: usize,
    care_of: Ipv6Addr,
    correspondent: Ipv6Addr,
    kbm: &BindingManagementKey,
) -> Result<(), AuthorizationFailure> {
    let (covered, authenticator) = message.split_at(at);
    let want = kbm.authenticator(care_of, correspondent, covered);
    // req SE-13: in constant time.
    if authenticator.ct_eq(&want).into() { Ok(()) } else { Err(AuthorizationFailure::Mismatch) }
}

/// Checks the authenticator of a received message, in constant time.
///
/// The addresses are those of [`BindingManagementKey::authenticator`].
pub fn verify(
    message: &[u8],
    care_of: Ipv6Addr,
    correspondent: Ipv6Addr,
    kbm: &BindingManagementKey,
) -> Result<(), AuthorizationFailure> {
    compare(message, find(message)?, care_of, correspondent, kbm)
}

/// Fills the authenticator of `message`, which ends in a blank one.
pub(crate) fn sign(
    message: &mut [u8],
    care_of: Ipv6Addr,
    correspondent: Ipv6Addr,
    kbm: &BindingManagementKey,
) {
    let at = message.len() - AUTHENTICATOR;
    let (covered, authenticator) = message.split_at_mut(at);
    authenticator.copy_from_slice(&kbm.authenticator(care_of, correspondent, covered));
}
