//! The names of the twelve messages (table 1 of the SHISA paper).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One of the twelve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MobilityKind {
    /// What the node is: mobile node or router, home agent, correspondent.
    NodetypeInfo,
    /// A binding cache entry is there, or is another than before.
    BcAdd,
    /// A binding cache entry is gone.
    BcRemove,
    /// All binding cache entries of a home network, or of a correspondent, are gone.
    BcFlush,
    /// A binding update list entry is there, or is another than before.
    BulAdd,
    /// A binding update list entry is gone.
    BulRemove,
    /// All binding update list entries of a home are gone, or those of one peer.
    BulFlush,
    /// A link moved.
    MdInfo,
    /// A home address came home, or left.
    HomeHint,
    /// A correspondent is worth the straight way.
    RrHint,
    /// Packets do not fit the bindings.
    BeHint,
    /// Duplicate address detection of a home address.
    Dad,
}

impl MobilityKind {
    /// All of them, in the order of table 1.
    pub const ALL: [Self; 12] = [
        Self::NodetypeInfo,
        Self::BcAdd,
        Self::BcRemove,
        Self::BcFlush,
        Self::BulAdd,
        Self::BulRemove,
        Self::BulFlush,
        Self::MdInfo,
        Self::HomeHint,
        Self::RrHint,
        Self::BeHint,
        Self::Dad,
    ];

    /// Its name on the socket.
    pub fn name(self) -> &'static str {
        match self {
            Self::NodetypeInfo => "NODETYPE_INFO",
            Self::BcAdd => "BC_ADD",
            Self::BcRemove => "BC_REMOVE",
            Self::BcFlush => "BC_FLUSH",
            Self::BulAdd => "BUL_ADD",
            Self::BulRemove => "BUL_REMOVE",
            Self::BulFlush => "BUL_FLUSH",
            Self::MdInfo => "MD_INFO",
            Self::HomeHint => "HOME_HINT",
            Self::RrHint => "RR_HINT",
            Self::BeHint => "BE_HINT",
            Self::Dad => "DAD",
        }
    }
}

impl fmt::Display for MobilityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is none of the twelve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no mobility message; there are NODETYPE_INFO, BC_ADD, BC_REMOVE, BC_FLUSH, \
         BUL_ADD, BUL_REMOVE, BUL_FLUSH, MD_INFO, HOME_HINT, RR_HINT, BE_HINT and DAD"
)]
pub struct UnknownKind(pub String);

/// Reads a name as people type it: in any case, with dashes for underscores.
impl FromStr for MobilityKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let name = text.to_ascii_uppercase().replace('-', "_");
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| UnknownKind(text.to_owned()))
    }
}
