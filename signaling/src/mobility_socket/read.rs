//! Messages as clients send them: JSON objects, read strictly.
//!
//! What a node tells may gain fields, and a client passes over those it does not know. What a
//! client asks may not have any that the node does not know: it would do something else than was
//! meant, in silence.

use serde_json::Value;

use super::message::MobilityMessage;

/// The longest message in octets.
pub const MESSAGE_MAX: usize = 64 << 10;

/// Why a text is no message.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is longer than [`MESSAGE_MAX`]; holds its length.
    #[error("the message has {0} octets; {MESSAGE_MAX} is the most")]
    TooLong(usize),
    /// It is no JSON, or a field is missing or has another type.
    #[error("{0}")]
    Malformed(#[from] serde_json::Error),
    /// It has a field that this message does not have.
    #[error("{kind} has no field `{field}`")]
    UnknownField {
        /// The message.
        kind: &'static str,
        /// The field.
        field: String,
    },
}

/// Reads one message.
pub fn read(text: &[u8]) -> Result<MobilityMessage, ReadError> {
    if text.len() > MESSAGE_MAX {
        return Err(ReadError::TooLong(text.len()));
    }
    read_value(serde_json::from_slice(text)?)
}

/// The same from JSON that was read already.
pub fn read_value(value: Value) -> Result<MobilityMessage, ReadError> {
    let given: Vec<String> =
        value.as_object().into_iter().flat_map(|it| it.keys().cloned()).collect();
    let message: MobilityMessage = serde_json::from_value(value)?;
    let kind = message.kind();
    let fields = FIELDS[kind as usize];
    match given.into_iter().find(|it| it != "type" && !fields.contains(&it.as_str())) {
        Some(field) => Err(ReadError::UnknownField { kind: kind.name(), field }),
        None => Ok(message),
    }
}

/// The fields of each message, in the order of table 1; a test holds them against the types.
pub(super) const FIELDS: [&[&str]; 12] = [
    &["role", "enabled", "home", "address"],
    &[
        "home",
        "correspondent",
        "home_address",
        "bid",
        "care_of",
        "priority",
        "router",
        "prefixes",
        "expires_ms",
    ],
    &["home", "correspondent", "home_address", "bid"],
    &["home", "correspondent"],
    &[
        "home",
        "home_address",
        "peer",
        "correspondent",
        "bid",
        "link",
        "care_of",
        "priority",
        "phase",
        "expires_ms",
        "status",
    ],
    &["home", "home_address", "peer", "bid"],
    &["home", "peer"],
    &["command", "link", "index", "bid", "care_of", "home", "home_address", "reason", "external"],
    &["home", "home_address", "at_home", "link", "bid", "beside"],
    &["home", "home_address", "correspondent"],
    &["cause", "home_address", "peer", "home", "bid"],
    &["address", "home", "state"],
];
