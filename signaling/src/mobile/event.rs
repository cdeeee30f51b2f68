//! What a mobile is told and what it wants done: its settings, events and outputs.

use std::time::Duration;

use mtun_policy::{
    Bid, CareOfAddress, Extensions, FlowBinding, HomeAddress, HomeAgentAddress, HomeName,
    MobileNetworkPrefix, PrefixMode, ReturningHome,
};

use super::home_link::Stay;
use super::notice::MobileNotice;
use crate::auth::SecurityAssociation;
use crate::machine::{Envelope, Transmit};
use crate::registration::UnboundReason;

/// What a mobile needs to know about its home.
#[derive(Clone, Debug)]
pub struct MobileConfig {
    /// The home network's name in the policy file.
    pub home: HomeName,
    /// The address to keep reachable.
    pub home_address: HomeAddress,
    /// The agent to register at.
    pub agent: HomeAgentAddress,
    /// Prefixes behind a mobile router; a mobile node has none.
    pub mobile_networks: Vec<MobileNetworkPrefix>,
    /// Whether updates name the prefixes (RFC 3963 §5.2).
    pub prefix_mode: PrefixMode,
    /// Lifetime to ask for.
    pub lifetime: Duration,
    /// Whether several care-of addresses are registered (RFC 5648).
    pub multiple_coa: bool,
    /// Whether one update may register several of them (RFC 5648 §5.3).
    pub bulk: bool,
    /// What is used while an uplink is on the home link.
    pub returning_home: ReturningHome,
    /// Messages beyond RFC 6275 that are switched on.
    pub extensions: Extensions,
    /// Key shared with the agent; `None` only for the policy's `security none`.
    pub protection: Option<SecurityAssociation>,
    /// Sequence number of the first update; random, so that a restart rarely collides with what
    /// the agent remembers (RFC 6275 §11.7.2).
    pub initial_sequence: u16,
}

/// What may happen to a mobile.
#[derive(Clone, Debug)]
pub enum MobileEvent {
    /// An uplink has this care-of address, checked for duplicates and usable; also when its
    /// address or its priority changed.
    CareOfUp {
        /// The uplink's BID.
        bid: Bid,
        /// BID-PRI, 1 to 127, lower is better (RFC 6089 §4.1).
        priority: u8,
        /// The address.
        care_of: CareOfAddress,
    },
    /// An uplink has no usable address any more.
    CareOfDown {
        /// The uplink's BID.
        bid: Bid,
    },
    /// An uplink is on the home link, instead of having a care-of address; also when something of
    /// it changed.
    HomeLinkUp {
        /// The uplink's BID.
        bid: Bid,
        /// BID-PRI.
        priority: u8,
        /// Its link-layer address; empty on a link without.
        link_layer_address: Vec<u8>,
    },
    /// An uplink is on the home link no more.
    HomeLinkDown {
        /// The uplink's BID.
        bid: Bid,
    },
    /// A Mobility Header arrived.
    Received {
        /// The addresses of its packet.
        envelope: Envelope,
        /// The whole header.
        message: Vec<u8>,
    },
    /// An ICMPv6 error quoted one of our updates, which had left by this uplink. It proves
    /// nothing, so it only makes the machine try another uplink sooner.
    Unreachable {
        /// The uplink's BID.
        bid: Bid,
    },
    /// The policy wants the agent to send by these flow bindings from here on, all of them; told
    /// again unchanged it does nothing.
    FlowsChanged {
        /// The flow bindings, in any order.
        flows: Vec<FlowBinding>,
        /// Whether the downlink is to follow the uplink within each, if the agent agrees.
        reflect: bool,
        /// Whether copies are to carry a sequence, if the agent agrees: duplicates are removed here
        /// and there.
        copies: bool,
    },
    /// Somebody changed something: what was refused for good is asked for once more.
    AskAgain,
    /// End the registration and stop. The caller limits how long it waits for
    /// [`MobileOutput::Stopped`].
    Stop,
}

/// What a mobile wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MobileOutput {
    /// Send this Binding Update.
    Transmit(Transmit),
    /// Packets may use this binding.
    Bound {
        /// Its BID; `None` for the only binding in single care-of address mode.
        bid: Option<Bid>,
        /// Its care-of address.
        care_of: CareOfAddress,
        /// Until when, on the monotonic clock.
        expires: Duration,
        /// Whether it was not usable before; false when a refresh prolonged it.
        first: bool,
    },
    /// Packets must not use this binding any more.
    Unbound {
        /// Its BID; `None` for the only binding in single care-of address mode.
        bid: Option<Bid>,
        /// Why.
        reason: UnboundReason,
    },
    /// The de-registration of everything is about to leave by this uplink, with the home address
    /// as its source: from here on whoever asks there for the home address is to be answered.
    /// Packets go on using the bindings.
    Returning {
        /// The uplink on the home link.
        bid: Bid,
    },
    /// The agent sends us to one of these, most preferred first, or to whichever is found if none
    /// is named (RFC 5142). Registering there and ending what is here is the caller's.
    Switch {
        /// The agents.
        agents: Vec<HomeAgentAddress>,
    },
    /// Packets of the home address may go plain by the home link.
    AtHome {
        /// The uplink on the home link.
        bid: Bid,
        /// What is registered beside it and who answers neighbours.
        stay: Stay,
    },
    /// The home link is not to be used for the home address any more.
    LeftHome,
    /// The agent agrees to this from here on, and to nothing else beyond RFC 6089. No binding need
    /// have changed: what answers a de-registration may end it as well.
    Agreed {
        /// Answers take the way of their questions.
        reflect: bool,
        /// Copies carry a sequence.
        copies: bool,
    },
    /// Something for the log and the counters.
    Notice(MobileNotice),
    /// The registration has ended as far as it could be; nothing follows.
    Stopped,
}
