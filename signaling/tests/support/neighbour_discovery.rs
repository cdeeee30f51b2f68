//! What must hold when any octets are taken for a message of neighbour discovery.
//!
//! Shared by the fuzz target `neighbour_discovery` and the replay of its corpus.

use std::net::Ipv6Addr;

use mtun_signaling::wire::icmpv6::checksum;
use mtun_signaling::wire::icmpv6::neighbour_discovery::{HOP_LIMIT, emit, receive};

/// Who may send to whom; the first octet of an input chooses.
const ENDS: [(&str, &str); 4] = [
    ("fe80::1", "ff02::1"),
    ("::", "ff02::1:ff00:42"),
    ("2001:db8:100::42", "fe80::1"),
    ("fe80::1", "2001:db8:100::42"),
];

/// Reads `octets` in every way there is; panics when something does not hold.
///
/// The first octet chooses the addresses, the rest is the message, as it is and with a checksum
/// that is right. What can be read is written and read again; says whether it could be read.
pub fn check(octets: &[u8]) -> bool {
    let Some((ends, message)) = octets.split_first() else { return false };
    let (source, destination) = ENDS[usize::from(*ends) % ENDS.len()];
    let address = |text: &str| text.parse::<Ipv6Addr>().expect("written as an address");
    let (source, destination) = (address(source), address(destination));
    for hop_limit in [HOP_LIMIT - 1, HOP_LIMIT] {
        let _ = receive(source, destination, hop_limit, message);
    }
    let mut message = message.to_vec();
    if let Some(field) = message.get_mut(2..4) {
        field.fill(0);
        let sum = checksum(source, destination, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let Ok(read) = receive(source, destination, HOP_LIMIT, &message) else { return false };
    let written = emit(&read, source, destination);
    // What is skipped is not written.
    assert!(written.len() <= message.len());
    assert_eq!(receive(source, destination, HOP_LIMIT, &written).as_ref(), Ok(&read));
    assert_eq!(emit(&read, source, destination), written);
    true
}
