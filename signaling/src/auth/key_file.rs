//! The text of a key file: one line, `mtun-key-1 <algorithm> <key in hexadecimal>`.
//!
//! Octets in, octets out; reading the file and judging its owner and mode is the root's part.
//! No error holds any part of the text, since it may be part of a key.

use std::str::FromStr;

use thiserror::Error;
use zeroize::Zeroizing;

use super::{Algorithm, Secret};

/// First word of the line; a later format gets another number.
const FORMAT: &str = "mtun-key-1";

/// Why a key file is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyFault {
    /// Not one line of three words.
    #[error("not one line of the form `mtun-key-1 <algorithm> <hexadecimal key>`")]
    Form,
    /// The first word is another one.
    #[error("not a key file of format mtun-key-1")]
    Format,
    /// The second word names no algorithm of ours.
    #[error("unknown algorithm; known are hmac-sha256 and hmac-sha1")]
    Algorithm,
    /// The third word is not hexadecimal.
    #[error("the key is not hexadecimal")]
    Hexadecimal,
    /// A key of this many octets.
    #[error("a key of {0} octets; 16 to 64 are possible")]
    Length(usize),
}

/// Reads the text of a key file. One line feed at its end is allowed.
pub fn parse_key(text: &[u8]) -> Result<(Algorithm, Secret), KeyFault> {
    let text = std::str::from_utf8(text).map_err(|_| KeyFault::Form)?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    if line.contains(['\n', '\r']) {
        return Err(KeyFault::Form);
    }
    let mut words = line.split(' ');
    let (Some(format), Some(algorithm), Some(key), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(KeyFault::Form);
    };
    if format != FORMAT {
        return Err(KeyFault::Format);
    }
    let algorithm = Algorithm::from_str(algorithm).map_err(|_| KeyFault::Algorithm)?;
    let key = octets(key.as_bytes())?;
    let length = key.len();
    Ok((algorithm, Secret::new(key).ok_or(KeyFault::Length(length))?))
}

/// Writes the text of a key file, line feed included; zeroed when dropped.
pub fn emit_key(algorithm: Algorithm, key: &Secret) -> Zeroizing<Vec<u8>> {
    // Reserved at once: a buffer that grew would leave a copy of the key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(FORMAT.len() + 32 + 2 * key.0.len()));
    text.extend_from_slice(format!("{FORMAT} {algorithm} ").as_bytes());
    for octet in key.0.iter() {
        text.extend([octet >> 4, octet & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    text.push(b'\n');
    text
}

fn octets(digits: &[u8]) -> Result<Vec<u8>, KeyFault> {
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(KeyFault::Hexadecimal);
    }
    let mut octets = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for &[high, low] in pairs {
        octets.push(digit(high)? << 4 | digit(low)?);
    }
    Ok(std::mem::take(&mut *octets))
}

fn digit(character: u8) -> Result<u8, KeyFault> {
    char::from(character)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
        .ok_or(KeyFault::Hexadecimal)
}
