//! The status of one flow binding.

use std::fmt;

use super::iana::flow_status;

/// Status of a Flow Identification option (RFC 6089 §4.2). The numbers mean other things than in
/// [`Status`](super::Status).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowStatus(pub u8);

impl FlowStatus {
    /// Flow binding successful; also what stands in every Binding Update.
    pub const SUCCESSFUL: Self = Self(flow_status::SUCCESSFUL);
    /// Administratively prohibited.
    pub const ADMINISTRATIVELY_PROHIBITED: Self = Self(flow_status::ADMINISTRATIVELY_PROHIBITED);
    /// Rejected, reason unspecified.
    pub const REASON_UNSPECIFIED: Self = Self(flow_status::REASON_UNSPECIFIED);
    /// Flow Identification option malformed.
    pub const MALFORMED: Self = Self(flow_status::MALFORMED);
    /// BID not found.
    pub const BID_NOT_FOUND: Self = Self(flow_status::BID_NOT_FOUND);
    /// FID not found.
    pub const FID_NOT_FOUND: Self = Self(flow_status::FID_NOT_FOUND);
    /// Traffic selector format not supported.
    pub const FORMAT_NOT_SUPPORTED: Self = Self(flow_status::FORMAT_NOT_SUPPORTED);

    /// Whether the flow binding stands: values below 128.
    pub const fn is_accepted(self) -> bool {
        self.0 < flow_status::ADMINISTRATIVELY_PROHIBITED
    }

    /// The registry's words for this status; `None` for one that has none.
    pub const fn text(self) -> Option<&'static str> {
        Some(match self.0 {
            flow_status::SUCCESSFUL => "flow binding successful",
            flow_status::ADMINISTRATIVELY_PROHIBITED => "administratively prohibited",
            flow_status::REASON_UNSPECIFIED => "flow binding rejected, reason unspecified",
            flow_status::MALFORMED => "flow identification option malformed",
            flow_status::BID_NOT_FOUND => "BID not found",
            flow_status::FID_NOT_FOUND => "FID not found",
            flow_status::FORMAT_NOT_SUPPORTED => "traffic selector format not supported",
            _ => return None,
        })
    }
}

impl fmt::Display for FlowStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => write!(f, "{} ({text})", self.0),
            None if self.is_accepted() => write!(f, "{} (accepted)", self.0),
            None => write!(f, "{} (refused)", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_below_128_accept() {
        let cases = [
            (0, true, "0 (flow binding successful)"),
            (127, true, "127 (accepted)"),
            (128, false, "128 (administratively prohibited)"),
            (129, false, "129 (flow binding rejected, reason unspecified)"),
            (130, false, "130 (flow identification option malformed)"),
            (131, false, "131 (BID not found)"),
            (132, false, "132 (FID not found)"),
            (133, false, "133 (traffic selector format not supported)"),
            (251, false, "251 (refused)"),
        ];
        for (number, accepted, text) in cases {
            assert_eq!(FlowStatus(number).is_accepted(), accepted, "{text}");
            assert_eq!(FlowStatus(number).to_string(), text);
        }
    }
}
