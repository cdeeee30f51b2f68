//! Sequence numbers of Binding Updates.

/// Whether sequence number `new` is newer than `last`, modulo 2^16 (RFC 6275 §9.5.1).
/// req CN-30.
pub const fn is_newer(new: u16, last: u16) -> bool {
    // req R-ALL-08, CN-33 (RFC 6275 §9.5.1): the 32,767 numbers that follow the last one.
    matches!(new.wrapping_sub(last), 1..=0x7fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_are_compared_as_the_standard_says() {
        // R-ALL-08, CN-33, HA-30, HA-31: the prose of RFC 6275 §9.5.1. Older or equal are the last
        // number itself and the 32768 before it, counted modulo 2^16. All 2^32 pairs when built
        // for release, which takes seconds; otherwise every 61st last number with all others.
        let step = if cfg!(debug_assertions) { 61 } else { 1 };
        for last in (0..=u16::MAX).step_by(step) {
            let oldest = last.wrapping_sub(0x8000);
            for new in 0..=u16::MAX {
                let old = if oldest <= last {
                    (oldest..=last).contains(&new)
                } else {
                    new >= oldest || new <= last
                };
                assert_eq!(is_newer(new, last), !old, "{new} after {last}");
            }
        }
    }
}
