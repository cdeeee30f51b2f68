//! The twelve messages.
//!
//! The same types go both ways: what a node tells, and what a client asks it to do. Fields that a
//! message may lack are `null` or left out. Times are milliseconds on the node's own clock, which
//! only runs forward; every line of a subscription says what it reads at that moment.

use std::net::Ipv6Addr;

use mtun_policy::{
    Bid, CareOfAddress, HomeAddress, HomeName, InterfaceName, MobileNetworkPrefix, Role,
};
use serde::{Deserialize, Serialize};

use super::names::MobilityKind;
use crate::registration::Phase;

/// A message of the mobility socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MobilityMessage {
    /// See [`NodetypeInfo`].
    NodetypeInfo(NodetypeInfo),
    /// See [`CachedBinding`].
    BcAdd(CachedBinding),
    /// See [`BcRemove`].
    BcRemove(BcRemove),
    /// See [`BcFlush`].
    BcFlush(BcFlush),
    /// See [`ListedBinding`].
    BulAdd(ListedBinding),
    /// See [`BulRemove`].
    BulRemove(BulRemove),
    /// See [`BulFlush`].
    BulFlush(BulFlush),
    /// See [`MdInfo`].
    MdInfo(MdInfo),
    /// See [`HomeHint`].
    HomeHint(HomeHint),
    /// See [`RrHint`].
    RrHint(RrHint),
    /// See [`BeHint`].
    BeHint(BeHint),
    /// See [`DuplicateDetection`].
    Dad(DuplicateDetection),
}

impl MobilityMessage {
    /// Which of the twelve it is.
    pub fn kind(&self) -> MobilityKind {
        match self {
            Self::NodetypeInfo(_) => MobilityKind::NodetypeInfo,
            Self::BcAdd(_) => MobilityKind::BcAdd,
            Self::BcRemove(_) => MobilityKind::BcRemove,
            Self::BcFlush(_) => MobilityKind::BcFlush,
            Self::BulAdd(_) => MobilityKind::BulAdd,
            Self::BulRemove(_) => MobilityKind::BulRemove,
            Self::BulFlush(_) => MobilityKind::BulFlush,
            Self::MdInfo(_) => MobilityKind::MdInfo,
            Self::HomeHint(_) => MobilityKind::HomeHint,
            Self::RrHint(_) => MobilityKind::RrHint,
            Self::BeHint(_) => MobilityKind::BeHint,
            Self::Dad(_) => MobilityKind::Dad,
        }
    }
}

/// What the node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodetypeInfo {
    /// The role.
    pub role: Role,
    /// Whether it has the role; a fact while it has.
    pub enabled: bool,
    /// The home network in which it has it; `null` for a correspondent.
    #[serde(default)]
    pub home: Option<HomeName>,
    /// The address under which it has it: home address, home agent or correspondent.
    #[serde(default)]
    pub address: Option<Ipv6Addr>,
}

/// A binding that this node granted to a mobile, as its home agent or its correspondent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CachedBinding {
    /// The home network that is served; `null` at a correspondent.
    #[serde(default)]
    pub home: Option<HomeName>,
    /// Our address as a correspondent; `null` at a home agent.
    #[serde(default)]
    pub correspondent: Option<Ipv6Addr>,
    /// The mobile.
    pub home_address: HomeAddress,
    /// The binding's number; `null` for one without (RFC 6275 without RFC 5648).
    #[serde(default)]
    pub bid: Option<Bid>,
    /// Where the mobile is.
    pub care_of: CareOfAddress,
    /// BID-PRI, lower is preferred.
    #[serde(default)]
    pub priority: u8,
    /// Whether it registered as a mobile router.
    #[serde(default)]
    pub router: bool,
    /// The prefixes that follow it.
    #[serde(default)]
    pub prefixes: Vec<MobileNetworkPrefix>,
    /// When it ends if nothing refreshes it.
    pub expires_ms: u64,
}

/// A binding cache entry is gone. From a client: end all bindings of this mobile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BcRemove {
    /// The home network that is served; `null` at a correspondent.
    #[serde(default)]
    pub home: Option<HomeName>,
    /// Our address as a correspondent; `null` at a home agent.
    #[serde(default)]
    pub correspondent: Option<Ipv6Addr>,
    /// The mobile.
    pub home_address: HomeAddress,
    /// The binding's number; `null` for one without. A client names none.
    #[serde(default)]
    pub bid: Option<Bid>,
}

/// All binding cache entries of a home network, or of a correspondent address, are gone. From a
/// client: end them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BcFlush {
    /// The home network that is served; `null` at a correspondent.
    #[serde(default)]
    pub home: Option<HomeName>,
    /// Our address as a correspondent; `null` at a home agent.
    #[serde(default)]
    pub correspondent: Option<Ipv6Addr>,
}

/// A binding that this node, as a mobile, asked a peer for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListedBinding {
    /// The home.
    pub home: HomeName,
    /// The home address that is bound.
    pub home_address: HomeAddress,
    /// The home agent or correspondent that is asked.
    pub peer: Ipv6Addr,
    /// Whether the peer is a correspondent.
    #[serde(default)]
    pub correspondent: bool,
    /// The binding's number.
    #[serde(default)]
    pub bid: Option<Bid>,
    /// The link.
    #[serde(default)]
    pub link: Option<InterfaceName>,
    /// Its care-of address.
    pub care_of: CareOfAddress,
    /// BID-PRI, lower is preferred.
    #[serde(default)]
    pub priority: u8,
    /// How far it has come.
    pub phase: Phase,
    /// Until when the peer holds it; `null` while it does not.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// The last verdict of the peer (RFC 6275 §6.1.8).
    #[serde(default)]
    pub status: Option<u8>,
}

/// A binding update list entry is gone. From a client: end this binding at a correspondent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BulRemove {
    /// The home.
    pub home: HomeName,
    /// The home address that was bound.
    pub home_address: HomeAddress,
    /// The peer.
    pub peer: Ipv6Addr,
    /// The binding's number. A client names none.
    #[serde(default)]
    pub bid: Option<Bid>,
}

/// All binding update list entries of a home are gone, or those of one peer. From a client: end
/// what correspondents hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BulFlush {
    /// The home.
    pub home: HomeName,
    /// The peer; `null` for all.
    #[serde(default)]
    pub peer: Option<Ipv6Addr>,
}

/// What moved, or what a movement detector wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum MdCommand {
    /// The link has this care-of address: register it.
    ReReg,
    /// The link is the home link: nothing is to be registered for it, and the home address is used
    /// on it.
    DeregHome,
    /// The link has no care-of address any more: end its binding.
    DeregForeign,
    /// Look again. From a client only.
    Scan,
}

/// A link moved. From a client: it has moved, whatever the node itself thinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MdInfo {
    /// What.
    pub command: MdCommand,
    /// The link by its name; a client may give its index or its BID instead.
    #[serde(default)]
    pub link: Option<InterfaceName>,
    /// The link by its interface index.
    #[serde(default)]
    pub index: Option<u32>,
    /// The link by its BID.
    #[serde(default)]
    pub bid: Option<Bid>,
    /// The care-of address; a client may leave the choice among the link's addresses to the node.
    #[serde(default)]
    pub care_of: Option<CareOfAddress>,
    /// The home whose home link it is; `null` if there is but one.
    #[serde(default)]
    pub home: Option<HomeName>,
    /// The same by its home address.
    #[serde(default)]
    pub home_address: Option<HomeAddress>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether a client said so, and not the node's own detector.
    #[serde(default)]
    pub external: bool,
}

impl MdInfo {
    /// A command that names no link yet.
    pub fn new(command: MdCommand) -> Self {
        Self {
            command,
            link: None,
            index: None,
            bid: None,
            care_of: None,
            home: None,
            home_address: None,
            reason: None,
            external: false,
        }
    }
}

/// A home address is on its home link, or no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HomeHint {
    /// The home.
    pub home: HomeName,
    /// The home address.
    pub home_address: HomeAddress,
    /// Whether it is on its home link; a fact while it is.
    pub at_home: bool,
    /// The link.
    #[serde(default)]
    pub link: Option<InterfaceName>,
    /// The link's BID.
    #[serde(default)]
    pub bid: Option<Bid>,
    /// Whether bindings abroad stand beside it.
    #[serde(default)]
    pub beside: bool,
}

/// Packets to a correspondent go through the tunnel, and might go straight. From a client: try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RrHint {
    /// The home; a client may leave it out.
    #[serde(default)]
    pub home: Option<HomeName>,
    /// The home address.
    pub home_address: HomeAddress,
    /// The correspondent.
    pub correspondent: Ipv6Addr,
}

/// Why packets do not fit the bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BeCause {
    /// A packet came with a home address that is not bound to its source (RFC 6275 §9.3.1).
    UnknownBinding,
    /// Something on the way eats packets that go straight.
    HeadersEaten,
    /// The correspondent does not know the Home Address option.
    OptionRefused,
    /// Packets to the care-of address cannot be delivered.
    Unreachable,
}

/// Packets do not fit the bindings: a Binding Error is due, or a binding is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BeHint {
    /// Why.
    pub cause: BeCause,
    /// The home address.
    pub home_address: HomeAddress,
    /// The other end: at a mobile the correspondent, at a correspondent the packet's source.
    pub peer: Ipv6Addr,
    /// The home, at a mobile.
    #[serde(default)]
    pub home: Option<HomeName>,
    /// The binding, if it is known.
    #[serde(default)]
    pub bid: Option<Bid>,
}

/// How far duplicate address detection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DadState {
    /// Somebody is looked for who has the address.
    UnderWay,
    /// Nobody has it.
    Unique,
    /// Another node has it.
    Duplicate,
    /// Nobody could be asked.
    Undone,
}

/// Duplicate address detection of a home address on its home link. From a client: do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DuplicateDetection {
    /// The address.
    pub address: Ipv6Addr,
    /// The home network; a client may leave it out.
    #[serde(default)]
    pub home: Option<HomeName>,
    /// How far it has come; `null` from a client.
    #[serde(default)]
    pub state: Option<DadState>,
}
