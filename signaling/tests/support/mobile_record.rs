//! What must hold when any octets are taken for what a home agent kept of a mobile.
//!
//! Shared by the fuzz target `mobile_record`, the replay of its corpus and the properties.

use mtun_policy::HomeAddress;
use mtun_signaling::agent::MobileRecord;

/// Reads `octets`; panics when something does not hold. What can be read is written and read
/// again as the same; says whether it was a record.
pub fn check(octets: &[u8]) -> bool {
    let home_address = HomeAddress("2001:db8:100::42".parse().expect("written as an address"));
    let Ok(read) = MobileRecord::parse(home_address, octets) else { return false };
    let mut written = Vec::new();
    read.emit(&mut written);
    // Extensions that may be lost are not written.
    assert!(written.len() <= octets.len());
    assert_eq!(MobileRecord::parse(home_address, &written), Ok(read));
    true
}
