//! Numbers that nobody can guess, from the kernel.

use mtun_signaling::seed::Seed;

/// Fills `octets`; waits for the kernel's generator once, early at boot.
pub fn fill(octets: &mut [u8]) -> Result<(), getrandom::Error> {
    getrandom::fill(octets)
}

/// A 16-bit number, for the first sequence number of a mobile.
pub fn u16() -> Result<u16, getrandom::Error> {
    let mut octets = [0; 2];
    fill(&mut octets)?;
    Ok(u16::from_ne_bytes(octets))
}

/// The source of all unguessable numbers of one machine.
pub fn seed() -> Result<Seed, getrandom::Error> {
    let mut octets = zeroize::Zeroizing::new([0; 32]);
    fill(&mut *octets)?;
    Ok(Seed::new(*octets))
}

/// A 64-bit number, for keys of hashes.
pub fn u64() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_numbers_differ() {
        assert_ne!(super::u64().unwrap(), super::u64().unwrap());
        let distinct: std::collections::HashSet<_> =
            (0..64).map(|_| super::u16().unwrap()).collect();
        assert!(distinct.len() > 32);
    }
}
