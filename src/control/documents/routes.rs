//! Routes past the home agent, as `mtun status` and `mtun bindings` show them from both ends.

use std::fmt;
use std::net::Ipv6Addr;

use mtun_policy::{Bid, CareOfAddress, HomeAddress, HomeName, InterfaceName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::{StatusCode, TunnelDocument};

/// One of a mobile's care-of addresses at one correspondent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteDocument {
    /// The home network.
    pub home: HomeName,
    /// The correspondent.
    pub correspondent: Ipv6Addr,
    /// The binding; `null` for what concerns all of them.
    pub bid: Option<Bid>,
    /// The access link.
    pub link: Option<InterfaceName>,
    /// Where packets go.
    pub state: RouteState,
    /// The care-of address that the correspondent holds; `null` while packets take the tunnel.
    pub care_of: Option<CareOfAddress>,
    /// Until the correspondent's binding ends if nothing refreshes it, in seconds.
    pub expires_seconds: Option<u64>,
    /// The last status the correspondent answered with.
    pub status: Option<StatusCode>,
    /// Why packets do not go straight, one word such as `headers-eaten`; `null` if they do, or if
    /// nothing speaks against it.
    pub reason: Option<String>,
    /// The same for people.
    pub why: Option<String>,
}

/// Where the packets of one binding to one correspondent go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RouteState {
    /// Straight to the correspondent.
    Straight,
    /// Through the tunnel, while the correspondent is asked.
    Trying,
    /// Through the tunnel, until the next try.
    Resting,
    /// Through the tunnel, while the correspondent is told to forget it.
    Ending,
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Straight => "straight",
            Self::Trying => "trying",
            Self::Resting => "resting",
            Self::Ending => "ending",
        })
    }
}

/// This node as a correspondent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CorrespondentDocument {
    /// The addresses at which mobiles find it.
    pub addresses: Vec<Ipv6Addr>,
    /// Its own tunnel interface; `null` where a home has one.
    pub tunnel: Option<TunnelDocument>,
    /// What mobiles bound at it.
    pub mobiles: Vec<BoundMobileDocument>,
}

/// One binding of one mobile at this node as its correspondent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BoundMobileDocument {
    /// Our address.
    pub correspondent: Ipv6Addr,
    /// The mobile's home address.
    pub home_address: HomeAddress,
    /// The mobile's number of the binding; `null` is one without BID.
    pub bid: Option<Bid>,
    /// Where the mobile is.
    pub care_of: CareOfAddress,
    /// Until it ends if nothing refreshes it, in seconds.
    pub expires_seconds: u64,
}
