//! Flow Identification option.

use mtun_policy::{Bid, FlowId, FlowPriority};

use super::padding;
use super::traffic_selector::TrafficSelector;
use crate::error::WrongLength;
use crate::wire::flow_status::FlowStatus;
use crate::wire::iana::flow_sub_option;

/// Makes or changes one flow binding, or says what became of it (RFC 6089 §4.2).
///
/// ```text
///                                 +---------------+---------------+
///                                 |   Type = 45   |    Length     |
/// +-------------------------------+---------------+---------------+
/// |              FID              |            FID-PRI            |
/// +---------------+---------------+-------------------------------+
/// |   Reserved    |    Status     |        Sub-options …          :
/// +---------------+---------------+-------------------------------+
///
/// +---------------+---------------+-------------------------------+
/// | Sub-Opt Type  | Sub-Opt Len   |       Sub-Option Data …       :   0: Pad1, without the rest
/// +---------------+---------------+-------------------------------+   1: PadN
///
/// +---------------+---------------+-------------------------------+
/// | Sub-Opt Type=2| Sub-Opt Len   |       BID     |      BID …    :   Binding Reference, 2n
/// +---------------+---------------+-------------------------------+
/// ```
///
/// Holds what was received, good or bad: each option is judged by itself and answered by its own
/// status, once its sender is authenticated. Padding is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowIdentification {
    /// FID; `None` stands for the reserved zero.
    pub flow: Option<FlowId>,
    /// FID-PRI; `None` stands for the reserved zero.
    pub priority: Option<FlowPriority>,
    /// Outcome; zero in a Binding Update, where nobody reads it.
    pub status: FlowStatus,
    /// What else is said of it, in this order.
    pub sub_options: Vec<FlowSubOption>,
}

/// One sub-option of [`FlowIdentification`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowSubOption {
    /// Type 2: the care-of addresses, one or more (RFC 6089 §4.2.1.3).
    BindingReference(Vec<Bid>),
    /// Type 3: the packets.
    TrafficSelector(TrafficSelector),
    /// Type 2 or 3 with data that it cannot have: no BID, half a BID, BID zero, no TS Format.
    Malformed {
        /// The sub-option's type.
        kind: u8,
        /// The sub-option's data.
        data: Vec<u8>,
    },
    /// Any other type, which is skipped.
    Unknown {
        /// The sub-option's type.
        kind: u8,
        /// The sub-option's data.
        data: Vec<u8>,
    },
    /// The last octets, which begin a sub-option that runs past the end of the option.
    Overrun(Vec<u8>),
}

impl FlowIdentification {
    /// An option without sub-options.
    pub fn new(flow: FlowId, priority: FlowPriority) -> Self {
        let (flow, priority) = (Some(flow), Some(priority));
        Self { flow, priority, status: FlowStatus::SUCCESSFUL, sub_options: Vec::new() }
    }

    /// The traffic selectors; a mobile sends one at most.
    pub fn selectors(&self) -> impl Iterator<Item = &TrafficSelector> {
        self.sub_options.iter().filter_map(|sub_option| match sub_option {
            FlowSubOption::TrafficSelector(selector) => Some(selector),
            _ => None,
        })
    }

    /// The binding references; a mobile sends one at most.
    pub fn references(&self) -> impl Iterator<Item = &[Bid]> {
        self.sub_options.iter().filter_map(|sub_option| match sub_option {
            FlowSubOption::BindingReference(bids) => Some(&bids[..]),
            _ => None,
        })
    }

    /// Reads the option's data, the octets after Type and Length.
    pub fn parse(data: &[u8]) -> Result<Self, WrongLength> {
        let (&[f0, f1, p0, p1, _reserved, status], mut rest) =
            data.split_first_chunk::<6>().ok_or(WrongLength(data.len()))?;
        let mut sub_options = Vec::new();
        while let [kind, behind @ ..] = rest {
            // req FB-08 (RFC 6089 §4.2.1): padding says nothing, whatever it holds.
            if *kind == flow_sub_option::PAD1 {
                rest = behind;
                continue;
            }
            let split = behind.split_first();
            let split = split.and_then(|(&length, it)| it.split_at_checked(usize::from(length)));
            let Some((data, behind)) = split else {
                sub_options.push(FlowSubOption::Overrun(rest.to_vec()));
                break;
            };
            rest = behind;
            if *kind != flow_sub_option::PADN {
                sub_options.push(FlowSubOption::parse(*kind, data));
            }
        }
        Ok(Self {
            flow: FlowId::new(u16::from_be_bytes([f0, f1])),
            priority: FlowPriority::new(u16::from_be_bytes([p0, p1])),
            status: FlowStatus(status),
            sub_options,
        })
    }

    /// Appends the option's data to the message in `out`, which starts at offset 0 of `out`, each
    /// sub-option at its alignment.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.flow.map_or(0, FlowId::get).to_be_bytes());
        out.extend_from_slice(&self.priority.map_or(0, FlowPriority::get).to_be_bytes());
        out.extend_from_slice(&[0, self.status.0]);
        for sub_option in &self.sub_options {
            sub_option.emit(out);
        }
    }
}

impl FlowSubOption {
    fn parse(kind: u8, data: &[u8]) -> Self {
        let malformed = || Self::Malformed { kind, data: data.to_vec() };
        match kind {
            flow_sub_option::BINDING_REFERENCE => {
                let (bids, rest) = data.as_chunks::<2>();
                let bids: Option<Vec<Bid>> =
                    bids.iter().map(|bid| Bid::new(u16::from_be_bytes(*bid))).collect();
                match bids.filter(|bids| rest.is_empty() && !bids.is_empty()) {
                    Some(bids) => Self::BindingReference(bids),
                    None => malformed(),
                }
            }
            flow_sub_option::TRAFFIC_SELECTOR => {
                TrafficSelector::parse(data).map_or_else(malformed, Self::TrafficSelector)
            }
            kind => Self::Unknown { kind, data: data.to_vec() },
        }
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let (kind, alignment) = match self {
            Self::BindingReference(_) => (flow_sub_option::BINDING_REFERENCE, 2),
            Self::TrafficSelector(selector) => {
                (flow_sub_option::TRAFFIC_SELECTOR, selector.alignment())
            }
            Self::Malformed { kind, .. } | Self::Unknown { kind, .. } => (*kind, 1),
            Self::Overrun(octets) => return out.extend_from_slice(octets),
        };
        padding::pad(out, out.len().next_multiple_of(alignment) - out.len());
        let length_at = out.len() + 1;
        out.extend_from_slice(&[kind, 0]);
        match self {
            Self::BindingReference(bids) => {
                out.extend(bids.iter().flat_map(|bid| bid.get().to_be_bytes()));
            }
            Self::TrafficSelector(selector) => selector.emit(out),
            Self::Malformed { data, .. } | Self::Unknown { data, .. } => {
                out.extend_from_slice(data);
            }
            Self::Overrun(_) => {}
        }
        // An option too long for its own Length is refused as a whole, and with it this one.
        let length = out.len() - length_at - 1;
        out[length_at] = u8::try_from(length).unwrap_or(u8::MAX);
    }
}
