//! What must hold when any octets are taken for a Mobility Header.
//!
//! Shared by the fuzz target `mobility_header`, the replay of its corpus and the properties.

use std::net::Ipv6Addr;

use mtun_policy::HomeAddress;
use mtun_signaling::Envelope;
use mtun_signaling::auth::{self, Algorithm, AuthFailure, Secret, SecurityAssociation};
use mtun_signaling::return_routability::{self, BindingManagementKey, KeygenToken};
use mtun_signaling::wire::{self, Message};

/// Reads `octets` in every way there is; panics when something does not hold.
///
/// What can be read is written and read again, and that changes nothing more. Nothing is believed,
/// since nobody guesses a key; says whether the octets were a message at all.
pub fn check(octets: &[u8]) -> bool {
    let envelope = Envelope::plain(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    let _ = wire::verify_checksum(&envelope, octets);
    let claimed = auth::claimed_spi(octets);
    let association = |spi| {
        let key = Secret::new(vec![0x5a; 16]).expect("16 octets");
        SecurityAssociation::new(spi, Algorithm::HmacSha1, key)
    };
    if let Ok(spi) = claimed
        && let Ok(association) = association(spi)
    {
        let home = HomeAddress(Ipv6Addr::LOCALHOST);
        let verdict = auth::verify(octets, Ipv6Addr::LOCALHOST, home, &association);
        assert_eq!(verdict, Err(AuthFailure::Mismatch));
    }

    let token = KeygenToken::new([0x5a; 8]);
    let kbm = BindingManagementKey::deregistering(&token);
    let local = Ipv6Addr::LOCALHOST;
    assert!(return_routability::verify(octets, local, local, &kbm).is_err());

    let read = match wire::parse(octets) {
        Ok(read) => read,
        Err(refused) => {
            let _ = refused.answer();
            return false;
        }
    };
    assert_eq!(octets.len(), (usize::from(octets[1]) + 1) * 8);
    if let Message::BindingUpdate(update) = &read {
        let _ = auth::care_of_address(update, &envelope);
    }
    // Alignment may make it longer than the longest message.
    let Ok(written) = wire::emit(&read, &envelope) else { return true };
    let again = wire::receive(&envelope, &written);
    assert_eq!(again.as_ref(), Ok(&read));
    assert_eq!(wire::emit(&read, &envelope), Ok(written));
    true
}
