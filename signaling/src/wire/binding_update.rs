//! Binding Update message.

use super::common::Reader;
use super::iana::bu_flag;
use super::option::{self, Options};
use super::status::Lifetime;
use crate::error::{DecodeError, EncodeError};

/// Tells a home agent or correspondent where the mobile is (RFC 6275 §6.1.7).
///
/// ```text
///                                 +-------------------------------+
///                                 |          Sequence #           |
/// +-+-+-+-+-+-+-+-+-+-+-----------+-------------------------------+
/// |A|H|L|K| |R|P| | |O|  Reserved |           Lifetime            |
/// +-+-+-+-+-+-+-+-+-+-+-----------+-------------------------------+
/// :                        Mobility Options                       :
/// +---------------------------------------------------------------+
/// ```
///
/// R is from RFC 3963 §4.1, P from RFC 5213 §8.1, O from RFC 5648 §4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingUpdate {
    /// Sequence #.
    pub sequence: u16,
    /// The flags.
    pub flags: BindingUpdateFlags,
    /// Requested lifetime; zero de-registers.
    pub lifetime: Lifetime,
    /// Mobility options.
    pub options: Options,
}

/// Flags of a Binding Update; bits without a name here are ignored and sent as zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindingUpdateFlags {
    /// A: an acknowledgement is wanted.
    pub acknowledge: bool,
    /// H: the receiver is asked to be the home agent.
    pub home: bool,
    /// L: the home address has the interface identifier of the link-local address.
    pub link_local: bool,
    /// K: the protocol that made the keys survives movement.
    pub key_mobility: bool,
    /// R: the sender is a mobile router.
    pub router: bool,
    /// P: the sender is a mobile access gateway, RFC 5213, and not the mobile itself.
    pub proxy: bool,
    /// O: replace all earlier bindings by those in this message.
    ///
    /// The registry gives the bit to proxy registrations too (RFC 6602), so it counts only without
    /// P and with a Binding Identifier option; otherwise it reads as false and is sent as zero.
    pub overwrite: bool,
}

impl BindingUpdateFlags {
    fn bits(self) -> [(bool, u16); 7] {
        [
            (self.acknowledge, bu_flag::ACKNOWLEDGE),
            (self.home, bu_flag::HOME),
            (self.link_local, bu_flag::LINK_LOCAL),
            (self.key_mobility, bu_flag::KEY_MOBILITY),
            (self.router, bu_flag::ROUTER),
            (self.proxy, bu_flag::PROXY),
            (self.overwrite, bu_flag::OVERWRITE),
        ]
    }

    fn parse(word: u16) -> Self {
        let set = |flag| word & flag != 0;
        Self {
            acknowledge: set(bu_flag::ACKNOWLEDGE),
            home: set(bu_flag::HOME),
            link_local: set(bu_flag::LINK_LOCAL),
            key_mobility: set(bu_flag::KEY_MOBILITY),
            router: set(bu_flag::ROUTER),
            proxy: set(bu_flag::PROXY),
            overwrite: set(bu_flag::OVERWRITE),
        }
    }

    fn word(self) -> u16 {
        self.bits().into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum()
    }

    /// The same flags, without O where it means nothing.
    fn meaningful(self, options: &Options) -> Self {
        let any_bid = options.bids().next().is_some() || options.has_malformed_bid();
        Self { overwrite: self.overwrite && !self.proxy && any_bid, ..self }
    }
}

impl BindingUpdate {
    /// Offset of the options in the Mobility Header.
    pub const OPTIONS: usize = 12;

    /// Reads the whole message; the common part is not looked at.
    pub fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::after_checksum(message);
        let sequence = reader.take_u16()?;
        let flags = BindingUpdateFlags::parse(reader.take_u16()?);
        let lifetime = Lifetime(reader.take_u16()?);
        let options = option::parse(message, Self::OPTIONS)?;
        Ok(Self { sequence, flags: flags.meaningful(&options), lifetime, options })
    }

    /// Appends everything after the checksum.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.flags.meaningful(&self.options).word().to_be_bytes());
        out.extend_from_slice(&self.lifetime.0.to_be_bytes());
        option::emit(&self.options, out)
    }
}
