//! The status of a registration, and the lifetime it was granted.

use std::fmt;
use std::time::Duration;

use super::iana::status;

/// Status of a Binding Acknowledgement or of one Binding Identifier option (RFC 6275 §6.1.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u8);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl Status {
            /// Every status that there is a name for.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            $(
                #[doc = concat!("Status ", $text, ".")]
                pub const $name: Self = Self(status::$name);
            )*

            /// The registry's words for this status; `None` for one that this crate has no use for.
            pub fn text(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    ACCEPTED = "accepted";
    PREFIX_DISCOVERY_NECESSARY = "accepted, prefix discovery necessary";
    MCOA_NOT_COMPLETE = "MCOA NOTCOMPLETE";
    MCOA_RETURN_HOME_WITHOUT_NDP = "MCOA RETURNHOME WO/NDP";
    REASON_UNSPECIFIED = "reason unspecified";
    ADMINISTRATIVELY_PROHIBITED = "administratively prohibited";
    INSUFFICIENT_RESOURCES = "insufficient resources";
    HOME_REGISTRATION_NOT_SUPPORTED = "home registration not supported";
    NOT_HOME_SUBNET = "not home subnet";
    NOT_HOME_AGENT = "not home agent for this mobile node";
    DUPLICATE_ADDRESS_DETECTION_FAILED = "duplicate address detection failed";
    SEQUENCE_OUT_OF_WINDOW = "sequence number out of window";
    EXPIRED_HOME_NONCE_INDEX = "expired home nonce index";
    EXPIRED_CARE_OF_NONCE_INDEX = "expired care-of nonce index";
    EXPIRED_NONCES = "expired nonces";
    REGISTRATION_TYPE_CHANGE_DISALLOWED = "registration type change disallowed";
    MOBILE_ROUTER_NOT_PERMITTED = "mobile router operation not permitted";
    INVALID_PREFIX = "invalid prefix";
    NOT_AUTHORIZED_FOR_PREFIX = "not authorized for prefix";
    FORWARDING_SETUP_FAILED = "forwarding setup failed";
    ID_MISMATCH = "MIPV6-ID-MISMATCH";
    MESSAGE_ID_REQUIRED = "MIPV6-MESG-ID-REQD";
    AUTHENTICATION_FAILED = "MIPV6-AUTH-FAIL";
    PROXY_REGISTRATION_NOT_ENABLED = "PROXY_REG_NOT_ENABLED";
    MCOA_MALFORMED = "MCOA MALFORMED";
    MCOA_NON_MCOA_BINDING_EXISTS = "MCOA NON-MCOA BINDING EXISTS";
    MCOA_PROHIBITED = "MCOA PROHIBITED";
    MCOA_UNKNOWN_COA = "MCOA UNKNOWN COA";
    MCOA_BULK_PROHIBITED = "MCOA BULK REGISTRATION PROHIBITED";
    MCOA_SIMULTANEOUS_HOME_AND_FOREIGN_PROHIBITED = "MCOA SIMULTANEOUS HOME AND FOREIGN PROHIBITED";
    INVALID_CARE_OF_ADDRESS = "invalid care-of address";
}

impl Status {
    /// Whether the binding stands: values below 128 (RFC 6275 §6.1.8).
    pub const fn is_accepted(self) -> bool {
        self.0 < status::REASON_UNSPECIFIED
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => write!(f, "{} ({text})", self.0),
            None if self.is_accepted() => write!(f, "{} (accepted)", self.0),
            None => write!(f, "{} (refused)", self.0),
        }
    }
}

/// Lifetime of a binding, in the wire's units of four seconds (RFC 6275 §6.1.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime(pub u16);

impl Lifetime {
    /// Asks for the end of a binding, or confirms it.
    pub const ZERO: Self = Self(0);

    /// The whole units in `duration`, at most 65535 (72 hours and 49 minutes).
    ///
    /// Rounds down, so that nobody promises more than it has; anything below four seconds becomes
    /// zero, which means de-registration.
    pub fn from_duration(duration: Duration) -> Self {
        Self(u16::try_from(duration.as_secs() / 4).unwrap_or(u16::MAX))
    }

    /// The time it stands for.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64 * 4)
    }

    /// Whether it asks for, or confirms, the end of the binding.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.duration().as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_below_128_accept() {
        let cases = [
            (Status::ACCEPTED, true, "0 (accepted)"),
            (Status::MCOA_NOT_COMPLETE, true, "4 (MCOA NOTCOMPLETE)"),
            (Status(127), true, "127 (accepted)"),
            (Status::REASON_UNSPECIFIED, false, "128 (reason unspecified)"),
            (Status::AUTHENTICATION_FAILED, false, "146 (MIPV6-AUTH-FAIL)"),
            (Status(255), false, "255 (refused)"),
        ];
        for (status, accepted, text) in cases {
            assert_eq!(status.is_accepted(), accepted, "{text}");
            assert_eq!(status.to_string(), text);
        }
    }

    #[test]
    fn lifetimes_round_down_and_saturate() {
        let cases =
            [(0, 0), (3, 0), (4, 1), (7, 1), (420, 105), (262_140, 65_535), (u64::MAX, 65_535)];
        for (seconds, units) in cases {
            assert_eq!(Lifetime::from_duration(Duration::from_secs(seconds)), Lifetime(units));
        }
        assert_eq!(Lifetime(105).duration(), Duration::from_secs(420));
        assert_eq!(Lifetime(u16::MAX).to_string(), "262140s");
    }
}
