//! The mobility message authentication option between mobile node and home agent (RFC 4285 §5.1).
//!
//! `sign` fills the option in a message that is complete but for its checksum; [`verify`]
//! checks one as it was received. Both work on octets, so what is checked is what was sent.
//! This module compares in constant time, keeps keys out of every `Debug` output, and decides
//! nothing else: freshness is the machines' business (RFC 4285 §6), so is the answer.
//!
//! HMAC-SHA1 is the RFC's algorithm. HMAC-SHA-256 is ours: the RFC leaves the algorithm to the
//! security association, whose SPI both ends choose above the reserved range.

mod key_file;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use mtun_policy::{CareOfAddress, HomeAddress};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

pub use key_file::{KeyFault, emit_key, parse_key};

use crate::error::DecodeError;
use crate::machine::Envelope;
use crate::wire::iana::{LAST_RESERVED_SPI, authentication_subtype, option as kind};
use crate::wire::option::{self, AlternateCareOfAddress, Authentication, BindingIdentifier};
use crate::wire::{self, BindingUpdate};

/// How the authentication data is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// First 96 bits of HMAC-SHA1 (RFC 4285 §5.1).
    HmacSha1,
    /// First 128 bits of HMAC-SHA-256 (RFC 4868 §2.6 truncates alike), between two of our own.
    HmacSha256,
}

impl Algorithm {
    /// Octets of authentication data.
    pub const fn data_len(self) -> usize {
        match self {
            Self::HmacSha1 => 12,
            Self::HmacSha256 => 16,
        }
    }

    /// Octets of a fresh key: 16 for HMAC-SHA1 as RFC 4285 §5.1 has it, else the hash's size.
    pub const fn key_len(self) -> usize {
        match self {
            Self::HmacSha1 => 16,
            Self::HmacSha256 => 32,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac-sha1",
            Self::HmacSha256 => "hmac-sha256",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no [`Algorithm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unknown algorithm; known are hmac-sha256 and hmac-sha1")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        [Self::HmacSha1, Self::HmacSha256]
            .into_iter()
            .find(|algorithm| algorithm.name() == text)
            .ok_or(UnknownAlgorithm)
    }
}

/// A key: zeroed when dropped, compared in constant time, never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The shortest key accepted, RFC 4285 §5.1's 16 octets.
    pub const MIN: usize = 16;
    /// The longest key accepted: one block of both hashes, longer ones would be hashed first.
    pub const MAX: usize = 64;

    /// A key from its octets; `None` when they are fewer than [`Self::MIN`] or more than
    /// [`Self::MAX`]. Octets that are refused are zeroed too.
    pub fn new(octets: Vec<u8>) -> Option<Self> {
        let octets = Zeroizing::new(octets);
        (Self::MIN..=Self::MAX).contains(&octets.len()).then_some(Self(octets))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Secret {}

/// A shared-key mobility security association (RFC 4285 §5.1).
#[derive(Clone, PartialEq, Eq)]
pub struct SecurityAssociation {
    spi: u32,
    algorithm: Algorithm,
    key: Secret,
}

/// An SPI of the reserved range, 0 to 255 (RFC 4285 §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("SPI {0} is reserved; the first free one is 256")]
pub struct ReservedSpi(pub u32);

impl SecurityAssociation {
    /// An association from its parts.
    pub fn new(spi: u32, algorithm: Algorithm, key: Secret) -> Result<Self, ReservedSpi> {
        if spi <= LAST_RESERVED_SPI {
            Err(ReservedSpi(spi))
        } else {
            Ok(Self { spi, algorithm, key })
        }
    }

    /// The mobility SPI.
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// A number that only those know who have the key; says nothing about it.
    pub(crate) fn places_key(&self) -> u64 {
        let (data, _) = self.authentication_data(&[b"which networks share a place"]);
        u64::from_be_bytes(*data.first_chunk().expect("sixteen octets"))
    }

    /// The option with its data still zero, as `sign` wants to find it.
    pub(crate) fn blank_option(&self) -> Authentication {
        Authentication {
            subtype: authentication_subtype::MN_HA,
            spi: self.spi,
            data: vec![0; self.algorithm.data_len()],
        }
    }

    /// The authentication data over these pieces, and how many of its octets count.
    fn authentication_data(&self, pieces: &[&[u8]]) -> ([u8; 16], usize) {
        let mut data = [0; 16];
        let length = self.algorithm.data_len();
        match self.algorithm {
            Algorithm::HmacSha1 => {
                let full = mac::<Hmac<Sha1>>(&self.key, pieces);
                data[..length].copy_from_slice(&full[..length]);
            }
            Algorithm::HmacSha256 => {
                let full = mac::<Hmac<Sha256>>(&self.key, pieces);
                data[..length].copy_from_slice(&full[..length]);
            }
        }
        (data, length)
    }
}

// req SE-12: a key is never printed.
impl fmt::Debug for SecurityAssociation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityAssociation")
            .field("spi", &self.spi)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

fn mac<M: Mac + KeyInit>(key: &Secret, pieces: &[&[u8]]) -> hmac::digest::Output<M> {
    let mut mac = <M as KeyInit>::new_from_slice(&key.0).expect("HMAC takes keys of any length");
    for piece in pieces {
        mac.update(piece);
    }
    mac.finalize().into_bytes()
}

/// Proof that a message carried the right authentication data; only [`verify`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    spi: u32,
}

impl Verified {
    /// The SPI of the association that vouches for the message.
    pub fn spi(self) -> u32 {
        self.spi
    }
}

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum AuthFailure {
    /// No message at all; holds what is wrong with it.
    #[error("malformed message: {0}")]
    Malformed(DecodeError),
    /// No mobile-home authentication option.
    #[error("no authentication option")]
    Missing,
    /// Something follows the option, or there are two.
    #[error("authentication option is not the last one")]
    NotLast,
    /// An SPI other than the association's.
    #[error("unknown SPI {0}")]
    UnknownSpi(u32),
    /// Wrong authentication data, in content or in length.
    #[error("wrong authentication data")]
    Mismatch,
}

impl AuthFailure {
    /// Whether a home agent answers with status 146; all else is dropped in silence
    /// (RFC 4285 §5.1.1, §5.3).
    pub fn is_answered(self) -> bool {
        self == Self::Mismatch
    }
}

/// Where the option lies and what it says.
struct Found {
    spi: u32,
    /// Offset of the authentication data, and end of what it covers.
    data_at: usize,
}

/// Finds the mobile-home authentication option, which must end the message. Allocates nothing.
fn find(message: &[u8]) -> Result<Found, AuthFailure> {
    let first = match wire::extension::kind_of(message) {
        Some(_) => {
            wire::extension::check_header(message).map_err(AuthFailure::Malformed)?;
            wire::extension::options_offset(message)
        }
        None => {
            let mh_type = wire::check_header(message).map_err(AuthFailure::Malformed)?;
            wire::options_offset(mh_type)
        }
    };
    let first = first.ok_or(AuthFailure::Missing)?;
    let mut found = None;
    for located in option::walk(message, first) {
        let located = located.map_err(AuthFailure::Malformed)?;
        if found.is_some() {
            return Err(AuthFailure::NotLast);
        }
        let Some(&[subtype, ref spi @ ..]) = located.data.first_chunk::<5>() else { continue };
        if located.kind == kind::AUTHENTICATION && subtype == authentication_subtype::MN_HA {
            if located.at + 2 + located.data.len() != message.len() {
                return Err(AuthFailure::NotLast);
            }
            let data_at = located.at + Authentication::COVERED;
            found = Some(Found { spi: u32::from_be_bytes(*spi), data_at });
        }
    }
    found.ok_or(AuthFailure::Missing)
}

/// The SPI a message claims, before anything about it is believed.
///
/// Looks at the octets in place, so that a message without option or with an SPI nobody has can
/// be dropped before anything is allocated for it.
pub fn claimed_spi(message: &[u8]) -> Result<u32, AuthFailure> {
    find(message).map(|found| found.spi)
}

/// Checks the authentication data of a received message, in constant time.
///
/// `care_of` is what [`care_of_address`] gives for the Binding Update; an acknowledgement is
/// checked with the address of the update it answers. The checksum field counts as zero.
pub fn verify(
    message: &[u8],
    care_of: Ipv6Addr,
    home_address: HomeAddress,
    association: &SecurityAssociation,
) -> Result<Verified, AuthFailure> {
    let found = find(message)?;
    if found.spi != association.spi {
        return Err(AuthFailure::UnknownSpi(found.spi));
    }
    let (covered, data) = message.split_at(found.data_at);
    let (want, length) = data_for(covered, care_of, home_address.0, association);
    // Slices of unequal length compare unequal at once; the length is no secret.
    if data.ct_eq(&want[..length]).into() {
        Ok(Verified { spi: found.spi })
    } else {
        Err(AuthFailure::Mismatch)
    }
}

/// Fills the authentication data of `message`, which ends in the association's blank option.
pub(crate) fn sign(
    message: &mut [u8],
    care_of: Ipv6Addr,
    home_address: Ipv6Addr,
    association: &SecurityAssociation,
) {
    let data_at = message.len() - association.algorithm.data_len();
    let (covered, data) = message.split_at_mut(data_at);
    let (want, length) = data_for(covered, care_of, home_address, association);
    data.copy_from_slice(&want[..length]);
}

/// The authentication data over `covered`, which ends with the option's SPI (RFC 4285 §5.1).
fn data_for(
    covered: &[u8],
    care_of: Ipv6Addr,
    home_address: Ipv6Addr,
    association: &SecurityAssociation,
) -> ([u8; 16], usize) {
    let (before, after) = covered.split_at(4);
    association.authentication_data(&[
        &care_of.octets(),
        &home_address.octets(),
        before,
        &[0, 0],
        &after[2..],
    ])
}

/// Which care-of address enters the hash of a Binding Update and of its acknowledgement.
///
/// RFC 4285 predates several care-of addresses, so both ends share this rule: from home, when
/// de-registering, the home address; with exactly one Binding Identifier that has an IPv6 address,
/// or with an Alternate Care-of Address, that address; in every other case (several bindings, no
/// address) the packet's source.
pub fn care_of_address(update: &BindingUpdate, envelope: &Envelope) -> Ipv6Addr {
    let home_address = envelope.upper_source();
    if update.lifetime.is_zero() && envelope.source == home_address {
        return home_address;
    }
    let mut bids = update.options.bids();
    match (bids.next(), bids.next()) {
        (None, _) => update.options.alternate_care_of().unwrap_or(envelope.source),
        (Some(only), None) => match only.care_of {
            Some(CareOfAddress(IpAddr::V6(address))) => address,
            Some(CareOfAddress(IpAddr::V4(_))) | None => envelope.source,
        },
        (Some(_), Some(_)) => envelope.source,
    }
}

/// The same, read from the octets of a Binding Update in place, before anything is made of them.
///
/// Of a message that [`wire::parse`] refuses it may say anything.
pub fn care_of_address_in(message: &[u8], envelope: &Envelope) -> Ipv6Addr {
    let home_address = envelope.upper_source();
    if message.get(10..12) == Some(&[0, 0]) && envelope.source == home_address {
        return home_address;
    }
    let (mut bids, mut only, mut alternate) = (0, None, None);
    for found in option::walk(message, BindingUpdate::OPTIONS).map_while(Result::ok) {
        match found.kind {
            kind::BINDING_IDENTIFIER => {
                if let Ok(option) = BindingIdentifier::parse(found.data) {
                    bids += 1;
                    only = option.care_of;
                }
            }
            kind::ALTERNATE_CARE_OF_ADDRESS => {
                let parsed = AlternateCareOfAddress::parse(found.data).ok();
                alternate = alternate.or(parsed.map(|it| it.address));
            }
            _ => {}
        }
    }
    match (bids, only) {
        (0, _) => alternate.unwrap_or(envelope.source),
        (1, Some(CareOfAddress(IpAddr::V6(address)))) => address,
        _ => envelope.source,
    }
}
