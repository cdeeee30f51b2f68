//! Pad1 and PadN: octets that align what follows and mean nothing (RFC 6275 §6.2.2, §6.2.3).
//!
//! ```text
//! +---------------+      +---------------+---------------+- - - - - - - -
//! |   Type = 0    |      |   Type = 1    | Length = N-2  |  N-2 zeros
//! +---------------+      +---------------+---------------+- - - - - - - -
//!       Pad1                               PadN
//! ```

use crate::wire::iana::option;

/// Appends `octets` octets of padding, at most 257: nothing, Pad1, or one PadN.
pub(crate) fn pad(out: &mut Vec<u8>, octets: usize) {
    match octets {
        0 => {}
        1 => out.push(option::PAD1),
        _ => {
            let zeros = u8::try_from(octets - 2).expect("padding of at most 257 octets");
            out.extend_from_slice(&[option::PADN, zeros]);
            out.resize(out.len() + usize::from(zeros), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_option_whatever_the_length() {
        let cases: &[(usize, &[u8])] =
            &[(0, &[]), (1, &[0]), (2, &[1, 0]), (3, &[1, 1, 0]), (7, &[1, 5, 0, 0, 0, 0, 0])];
        for (octets, want) in cases {
            let mut out = Vec::new();
            pad(&mut out, *octets);
            assert_eq!(out, *want);
        }
    }
}
