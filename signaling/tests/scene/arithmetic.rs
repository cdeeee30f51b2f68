//! Return routability worked out a second time, from RFC 2104 and RFC 6275 §5.2 and §6.2.7, on
//! nothing but SHA-1.

use std::net::Ipv6Addr;

use sha1::{Digest, Sha1};

pub fn sha1(pieces: &[&[u8]]) -> [u8; 20] {
    Sha1::digest(pieces.concat()).into()
}

/// HMAC as RFC 2104 §2 has it, for keys of at most one block.
pub fn hmac_sha1(key: &[u8], text: &[u8]) -> [u8; 20] {
    let padded = |with: u8| {
        let mut block = [with; 64];
        for (octet, key) in block.iter_mut().zip(key) {
            *octet ^= key;
        }
        block
    };
    sha1(&[&padded(0x5c), &sha1(&[&padded(0x36), text])])
}

/// RFC 6275 §5.2.5; `last` is 0 for the home token and 1 for the care-of token.
pub fn keygen_token(kcn: &[u8; 20], address: Ipv6Addr, nonce: &[u8; 8], last: u8) -> [u8; 8] {
    let text = [&address.octets()[..], nonce, &[last]].concat();
    hmac_sha1(kcn, &text)[..8].try_into().expect("eight of twenty")
}

/// Kbm of a registration.
pub fn registering(home: &[u8; 8], care_of: &[u8; 8]) -> [u8; 20] {
    sha1(&[home, care_of])
}

/// Kbm of a de-registration.
pub fn deregistering(home: &[u8; 8]) -> [u8; 20] {
    sha1(&[home])
}

/// RFC 6275 §6.2.7, over a message that ends in its authenticator.
pub fn authenticator(
    kbm: &[u8; 20],
    care_of: Ipv6Addr,
    correspondent: Ipv6Addr,
    message: &[u8],
) -> [u8; 12] {
    let mut covered = message[..message.len() - 12].to_vec();
    covered[4..6].fill(0);
    let text = [&care_of.octets()[..], &correspondent.octets(), &covered].concat();
    hmac_sha1(kbm, &text)[..12].try_into().expect("twelve of twenty")
}
