//! What must hold when any octets are taken for an ICMPv6 message of Mobile IPv6.
//!
//! Shared by the fuzz target `icmpv6`, the replay of its corpus and the properties.

use std::net::Ipv6Addr;

use mtun_signaling::Envelope;
use mtun_signaling::wire::icmpv6;

/// Reads `octets` in every way there is; panics when something does not hold.
///
/// What can be read is written and read again, and that changes nothing more; says whether the
/// octets were a message at all.
pub fn check(octets: &[u8]) -> bool {
    let envelope = Envelope::plain(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    let _ = icmpv6::receive(&envelope, octets);
    let Ok(read) = icmpv6::parse(octets) else { return false };
    let written = icmpv6::emit(&read, &envelope);
    // What is skipped is not written.
    assert!(written.len() <= octets.len());
    assert_eq!(icmpv6::receive(&envelope, &written).as_ref(), Ok(&read));
    assert_eq!(icmpv6::emit(&read, &envelope), written);
    true
}
