//! Flow bindings as both ends hold them (RFC 6089 §4.3).
//!
//! The agent holds a mobile's flow bindings in its [cache entry](crate::BindingCacheEntry); the
//! mobile knows of each whether the agent holds it. When both are ours, the agent says a digest
//! of all it holds in each acknowledgement, so that a difference does not outlive the next one.

use mtun_policy::FlowBinding;
use sha2::{Digest, Sha256};

use crate::wire::FlowStatus;
use crate::wire::option::emit_binary;

/// Most flow bindings of one mobile: every Binding Update names them all, and 512 take 1,034 of
/// the 2,048 octets of a Mobility Header (RFC 6089 §5.2.3, RFC 6275 §6.1.1).
pub const MAX_FLOWS: u16 = 512;

/// Most flow bindings of a mobile of which nothing else is said.
pub const DEFAULT_MAX_FLOWS: u16 = 64;

/// Most care-of addresses in one flow binding of a mobile of which nothing else is said.
pub const DEFAULT_MAX_COPIES: u8 = 4;

/// One flow binding from the mobile's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredFlow {
    /// As it is wanted.
    pub binding: FlowBinding,
    /// How far it has come.
    pub state: FlowState,
}

/// How far a flow binding has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// The agent is to be told, or has not answered; it may also be that none of its BIDs is
    /// registered, or that the agent knows no flow bindings.
    Pending,
    /// The agent holds it, as far as its BIDs are registered.
    Held,
    /// The agent refused it as it is wanted.
    Refused(FlowStatus),
}

/// What is known of the home agent beyond RFC 5648.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerExtensions {
    /// Whether it takes flow bindings.
    pub flow_bindings: FlowSupport,
    /// Whether its downlink follows the uplink within a flow binding: asked for and granted.
    pub reflect: bool,
    /// Whether copies carry a sequence and are removed by the receiver: asked for and granted.
    pub copies: bool,
    /// How its last digest compares with what it should hold.
    pub digest: DigestState,
}

/// Whether a home agent takes flow bindings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlowSupport {
    /// It has not been asked.
    #[default]
    Unknown,
    /// It answers Flow Identification options.
    Yes,
    /// It acknowledged an update and none of the Flow Identification options in it
    /// (RFC 6089 §5.2.6): it sends everything by its own default.
    No,
}

/// How the digest that an agent said compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DigestState {
    /// It said none, or what it should hold was not known.
    #[default]
    NotCompared,
    /// Both ends hold the same.
    Agrees,
    /// They do not, and everything is told again.
    Differs,
}

/// Number and digest of a list of flow bindings, whatever its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowDigest {
    /// How many there are.
    pub number: u16,
    /// The first octets of SHA-256 over all of them by rising FID: FID, FID-PRI, number of BIDs,
    /// the BIDs by rising number, each in two octets, then the traffic selector as it is sent from
    /// TS Format on, in front of it its length in two octets.
    pub octets: [u8; 8],
}

impl FlowDigest {
    /// The digest of these flow bindings.
    pub fn of<'f>(flows: impl IntoIterator<Item = &'f FlowBinding>) -> Self {
        let mut flows: Vec<&FlowBinding> = flows.into_iter().collect();
        flows.sort_by_key(|flow| flow.id);
        let mut hash = Sha256::new();
        let mut octets = Vec::new();
        for flow in &flows {
            let mut bids: Vec<u16> = flow.bids.iter().map(|bid| bid.get()).collect();
            bids.sort_unstable();
            let mut selector = Vec::new();
            emit_binary(&flow.selector, &mut selector);
            octets.clear();
            let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
            let head = [flow.id.get(), flow.priority.get(), count(bids.len())];
            let numbers = head.into_iter().chain(bids).chain([count(selector.len())]);
            octets.extend(numbers.flat_map(u16::to_be_bytes));
            octets.extend_from_slice(&selector);
            hash.update(&octets);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let octets = *digest.first_chunk().expect("of 32 octets the first 8");
        Self { number: u16::try_from(flows.len()).unwrap_or(u16::MAX), octets }
    }
}
