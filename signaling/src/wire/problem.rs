//! What the sender of a broken message is told, found out before anything of it is kept.

use super::iana::{mh, option};
use super::option::walk;
use super::{BindingUpdate, check_header, verify_checksum};
use crate::error::{Answer, DecodeError};
use crate::machine::Envelope;

/// Offset in the message of the octet at which an ICMPv6 Parameter Problem points, if the message
/// earns one (RFC 6275 §9.2).
///
/// Allocates nothing, so that it may be asked of every message. What a wrong checksum says is
/// nobody's fault, and an MH Type that is not ours is answered by a Binding Error.
pub fn problem(envelope: &Envelope, message: &[u8]) -> Option<usize> {
    if !verify_checksum(envelope, message) {
        return None;
    }
    // req MH-01, MH-02 (RFC 6275 §9.2).
    let error = match check_header(message) {
        Ok(mh::BINDING_UPDATE) => wrong_prefix_option(message)?,
        Ok(_) => return None,
        Err(error) => error,
    };
    match error.answer() {
        Answer::ParameterProblem { pointer } => Some(pointer),
        Answer::Silent | Answer::BindingError => None,
    }
}

/// req MH-12 (RFC 3963 §4.3).
fn wrong_prefix_option(message: &[u8]) -> Option<DecodeError> {
    let mut prefixes = walk(message, BindingUpdate::OPTIONS)
        .map_while(Result::ok)
        .filter(|located| located.kind == option::MOBILE_NETWORK_PREFIX);
    let wrong = prefixes.find(|located| located.data.len() != 18)?;
    Some(DecodeError::OptionLength { kind: wrong.kind, length: wrong.data.len(), at: wrong.at })
}
