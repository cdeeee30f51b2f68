//! The options of one message, in their order.

use std::net::Ipv6Addr;

use super::{
    Authentication, BindingAuthorizationData, BindingIdentifier, FlowExtensions,
    FlowIdentification, LinkLayerAddress, MobileNetworkPrefixOption, MobileNodeIdentifier,
    MobilityOption, NonceIndices,
};
use crate::time::NtpTime;
use crate::wire::iana::link_layer_address_code;

/// The options of one message, padding left out.
///
/// The accessors look for options by type. A received message holds at most one of those whose
/// accessor returns an `Option`, and one authentication option per subtype.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(Vec<MobilityOption>);

impl Options {
    /// No options.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// No options yet, and room for so many.
    pub fn with_capacity(number: usize) -> Self {
        Self(Vec::with_capacity(number))
    }

    /// Appends one option.
    pub fn push(&mut self, option: impl Into<MobilityOption>) {
        self.0.push(option.into());
    }

    /// The options in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, MobilityOption> {
        self.0.iter()
    }

    /// Keeps the options for which `keep` holds.
    pub fn retain(&mut self, keep: impl FnMut(&MobilityOption) -> bool) {
        self.0.retain(keep);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refresh interval of the Binding Refresh Advice, in units of four seconds.
    pub fn refresh_advice(&self) -> Option<u16> {
        self.iter().find_map(|option| match option {
            MobilityOption::RefreshAdvice(advice) => Some(advice.refresh_interval),
            _ => None,
        })
    }

    /// The Alternate Care-of Address.
    pub fn alternate_care_of(&self) -> Option<Ipv6Addr> {
        self.iter().find_map(|option| match option {
            MobilityOption::AlternateCareOf(alternate) => Some(alternate.address),
            _ => None,
        })
    }

    /// The Nonce Indices.
    pub fn nonce_indices(&self) -> Option<NonceIndices> {
        self.iter().find_map(|option| match option {
            MobilityOption::NonceIndices(indices) => Some(*indices),
            _ => None,
        })
    }

    /// The Binding Authorization Data.
    pub fn authorization(&self) -> Option<&BindingAuthorizationData> {
        self.iter().find_map(|option| match option {
            MobilityOption::AuthorizationData(data) => Some(data),
            _ => None,
        })
    }

    /// The Mobile Network Prefix options, valid or not.
    pub fn prefixes(&self) -> impl Iterator<Item = &MobileNetworkPrefixOption> {
        self.iter().filter_map(|option| match option {
            MobilityOption::MobileNetworkPrefix(prefix) => Some(prefix),
            _ => None,
        })
    }

    /// The link-layer address of the mobile node, the first one told.
    pub fn link_layer_address(&self) -> Option<&[u8]> {
        self.iter().find_map(|option| match option {
            MobilityOption::LinkLayerAddress(LinkLayerAddress {
                code: link_layer_address_code::MOBILE_NODE,
                address,
            }) => Some(&address[..]),
            _ => None,
        })
    }

    /// The Mobile Node Identifier options.
    pub fn identifiers(&self) -> impl Iterator<Item = &MobileNodeIdentifier> {
        self.iter().filter_map(|option| match option {
            MobilityOption::MobileNodeIdentifier(identifier) => Some(identifier),
            _ => None,
        })
    }

    /// The authentication option of this subtype, present but not verified.
    pub fn authentication(&self, subtype: u8) -> Option<&Authentication> {
        self.iter().find_map(|option| match option {
            MobilityOption::Authentication(found) if found.subtype == subtype => Some(found),
            _ => None,
        })
    }

    /// Number of the Restart Counter option.
    pub fn restart_counter(&self) -> Option<u32> {
        self.iter().find_map(|option| match option {
            MobilityOption::RestartCounter(option) => Some(option.counter),
            _ => None,
        })
    }

    /// Timestamp of the replay protection option.
    pub fn message_id(&self) -> Option<NtpTime> {
        self.iter().find_map(|option| match option {
            MobilityOption::MessageId(id) => Some(id.timestamp),
            _ => None,
        })
    }

    /// The Binding Identifier options of valid length, in their order; the same BID may recur.
    pub fn bids(&self) -> impl Iterator<Item = &BindingIdentifier> {
        self.iter().filter_map(|option| match option {
            MobilityOption::BindingIdentifier(bid) => Some(bid),
            _ => None,
        })
    }

    /// The Flow Identification options, good or bad, in their order; the same FID may recur.
    pub fn flows(&self) -> impl Iterator<Item = &FlowIdentification> {
        self.iter().filter_map(|option| match option {
            MobilityOption::FlowIdentification(flow) => Some(flow),
            _ => None,
        })
    }

    /// The numbers in all Flow Summary options, in their order; the same FID may recur.
    pub fn summarized_flows(&self) -> impl Iterator<Item = u16> {
        self.iter()
            .filter_map(|option| match option {
                MobilityOption::FlowSummary(summary) => Some(&summary.flows),
                _ => None,
            })
            .flatten()
            .copied()
    }

    /// What the sender offers or grants beyond RFC 6089; of two such options neither counts.
    pub fn flow_extensions(&self) -> Option<FlowExtensions> {
        let mut all = self.iter().filter_map(|option| match option {
            MobilityOption::VendorSpecific(option) => FlowExtensions::of(option),
            _ => None,
        });
        let first = all.next()?;
        all.next().is_none().then_some(first)
    }

    /// Whether a Binding Identifier option has a length it cannot have.
    pub fn has_malformed_bid(&self) -> bool {
        self.iter()
            .any(|option| matches!(option, MobilityOption::MalformedBindingIdentifier { .. }))
    }
}

impl From<Vec<MobilityOption>> for Options {
    fn from(options: Vec<MobilityOption>) -> Self {
        Self(options)
    }
}

impl FromIterator<MobilityOption> for Options {
    fn from_iter<I: IntoIterator<Item = MobilityOption>>(options: I) -> Self {
        Self(options.into_iter().collect())
    }
}

impl<'o> IntoIterator for &'o Options {
    type Item = &'o MobilityOption;
    type IntoIter = std::slice::Iter<'o, MobilityOption>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
