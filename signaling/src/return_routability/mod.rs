//! Return routability: the arithmetic of RFC 6275 §5.2, shared by both ends.
//!
//! ```text
//!   home address    ─┐ HMAC-SHA1    home keygen token    ─┐ SHA-1
//!   nonce, 0x00     ─┤ keyed Kcn ─►                       ├──────► Kbm ─► authenticators
//!   care-of address ─┤              care-of keygen token ─┘
//!   nonce, 0x01     ─┘
//! ```
//!
//! A correspondent gives one token away to whoever receives packets at the home address and the
//! other to whoever receives them at the care-of address; who can show both may bind the one to
//! the other. It keeps nothing about either ([`Nonces`]): the addresses and the nonce indices of a
//! Binding Update are enough to make the tokens again.
//!
//! Everything secret here is zeroed when dropped, compared in constant time and never printed.
//! Nothing here decides when to test or what to accept: the machines do.

mod authorization;
mod nonces;

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub use authorization::{AuthorizationFailure, verify};
pub(crate) use authorization::{CorrespondentUpdate, sign};
pub use nonces::{NonceGeneration, Nonces};

/// How long a nonce may be accepted after its first use (RFC 6275 §12).
pub const MAX_NONCE_LIFETIME: Duration = Duration::from_secs(240);
/// How long a mobile may use a token (RFC 6275 §12).
pub const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(210);
/// How long one nonce makes tokens: each is good for at least [`MAX_TOKEN_LIFETIME`] then
/// (RFC 6275 §5.2.7).
pub const NONCE_INTERVAL: Duration = Duration::from_secs(30);
/// Longest lifetime of a binding made with these keys (RFC 6275 §5.2.6, §12).
pub const MAX_RR_BINDING_LIFETIME: Duration = Duration::from_secs(420);
/// Octets of an authenticator: 96 bits (RFC 6275 §6.2.7).
pub const AUTHENTICATOR: usize = 12;

/// Octets that are nobody else's business.
#[derive(Clone)]
struct Hidden<const N: usize>(Zeroizing<[u8; N]>);

impl<const N: usize> Hidden<N> {
    fn new(octets: [u8; N]) -> Self {
        Self(Zeroizing::new(octets))
    }
}

impl<const N: usize> PartialEq for Hidden<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl<const N: usize> Eq for Hidden<N> {}

impl<const N: usize> fmt::Debug for Hidden<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Which of its two addresses a mobile is tested at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tested {
    /// The home address, through the home agent.
    Home,
    /// A care-of address.
    CareOf,
}

impl Tested {
    /// The octet that tells the two tokens apart (RFC 6275 §5.2.5).
    const fn octet(self) -> u8 {
        match self {
            Self::Home => 0,
            Self::CareOf => 1,
        }
    }
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Home => "home",
            Self::CareOf => "care-of",
        })
    }
}

/// Kcn, the key that makes a correspondent's tokens (RFC 6275 §5.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeKey(Hidden<20>);

impl NodeKey {
    /// A key from its octets.
    pub fn new(octets: [u8; 20]) -> Self {
        Self(Hidden::new(octets))
    }

    /// The token for whoever receives packets at `address`.
    pub fn keygen_token(&self, address: Ipv6Addr, nonce: [u8; 8], tested: Tested) -> KeygenToken {
        // req CN-04, R-CN-02 (RFC 6275 §5.2.5): First(64, HMAC_SHA1(Kcn, address | nonce | 0/1)).
        let full = hmac_sha1(&self.0.0, &[&address.octets(), &nonce, &[tested.octet()]]);
        KeygenToken::new(full.first_chunk().copied().expect("SHA-1 has 20 octets"))
    }
}

/// A keygen token (RFC 6275 §5.2.4): half of what a binding takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeygenToken(Hidden<8>);

impl KeygenToken {
    /// A token from its octets.
    pub fn new(octets: [u8; 8]) -> Self {
        Self(Hidden::new(octets))
    }

    /// Its octets, to be sent to the address it is made for.
    pub fn octets(&self) -> [u8; 8] {
        *self.0.0
    }
}

/// Kbm, the key of one registration and of its acknowledgement (RFC 6275 §5.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingManagementKey(Hidden<20>);

impl BindingManagementKey {
    /// The key that registers a care-of address.
    pub fn registering(home: &KeygenToken, care_of: &KeygenToken) -> Self {
        Self::hash(&[home, care_of])
    }

    /// The key that de-registers: the care-of address does not matter.
    pub fn deregistering(home: &KeygenToken) -> Self {
        // req R-CN-11 (RFC 6275 §5.2.5).
        Self::hash(&[home])
    }

    fn hash(tokens: &[&KeygenToken]) -> Self {
        let mut hash = Sha1::new();
        for token in tokens {
            hash.update(token.0.0.as_slice());
        }
        Self(Hidden::new(hash.finalize().into()))
    }

    /// The authenticator of a message (RFC 6275 §6.2.7).
    ///
    /// `care_of` is the address to be registered, or the home address when de-registering; an
    /// acknowledgement takes the one of its update. `correspondent` is the correspondent's
    /// address, its home address if it is mobile too. `covered` is the message up to the
    /// authenticator; its checksum counts as zero.
    pub fn authenticator(
        &self,
        care_of: Ipv6Addr,
        correspondent: Ipv6Addr,
        covered: &[u8],
    ) -> [u8; AUTHENTICATOR] {
        let (before, after) = covered.split_at(covered.len().min(4));
        let after = after.get(2..).unwrap_or(&[]);
        let full = hmac_sha1(
            &self.0.0,
            &[&care_of.octets(), &correspondent.octets(), before, &[0, 0], after],
        );
        full.first_chunk().copied().expect("SHA-1 has 20 octets")
    }
}

fn hmac_sha1(key: &[u8; 20], pieces: &[&[u8]]) -> Zeroizing<[u8; 20]> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    for piece in pieces {
        mac.update(piece);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_printed() {
        // SE-12.
        let key = NodeKey::new([0x5a; 20]);
        let home = key.keygen_token(Ipv6Addr::LOCALHOST, [0x5a; 8], Tested::Home);
        let care_of = key.keygen_token(Ipv6Addr::LOCALHOST, [0x5a; 8], Tested::CareOf);
        let kbm = BindingManagementKey::registering(&home, &care_of);
        assert_eq!(format!("{key:?}"), "NodeKey(..)");
        assert_eq!(format!("{home:?}"), "KeygenToken(..)");
        assert_eq!(format!("{kbm:?}"), "BindingManagementKey(..)");
    }

    #[test]
    fn tokens_of_one_address_differ_by_what_is_tested() {
        // CN-04.
        let key = NodeKey::new([7; 20]);
        let token = |tested| key.keygen_token(Ipv6Addr::LOCALHOST, [1; 8], tested);
        assert_ne!(token(Tested::Home), token(Tested::CareOf));
    }
}
