//! Binding Revocation message.

use super::common::Reader;
use super::option::{self, Options};
use crate::error::{DecodeError, EncodeError};

/// Ends bindings by the word of who granted them, or confirms that (RFC 5846 §5).
///
/// ```text
///                                 +---------------+---------------+
///                                 |   B.R. Type   | R. Trigger or |
///                                 |               |    Status     |
/// +-------------------------------+-+-+-+---------+---------------+
/// |          Sequence #           |P|V|G|        Reserved         |
/// +-------------------------------+-+-+-+-------------------------+
/// :                        Mobility Options                       :
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingRevocation {
    /// Which of the two messages.
    pub kind: RevocationKind,
    /// That of the indication, in both.
    pub sequence: u16,
    /// P: of a proxy registration.
    pub proxy: bool,
    /// V: of the IPv4 home address alone.
    pub ipv4: bool,
    /// G: of all mobiles of a peer.
    pub global: bool,
    /// Mobility options; Binding Identifiers name the bindings meant, none mean all.
    pub options: Options,
}

/// What a Binding Revocation message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevocationKind {
    /// Bindings have ended; holds the trigger.
    Indication(u8),
    /// That was heard; holds the status, accepted below 128.
    Acknowledgement(u8),
}

impl BindingRevocation {
    /// Offset of the options in the Mobility Header.
    pub const OPTIONS: usize = 12;
    const INDICATION: u8 = 1;
    const ACKNOWLEDGEMENT: u8 = 2;
    const PROXY: u16 = 0x8000;
    const IPV4: u16 = 0x4000;
    const GLOBAL: u16 = 0x2000;

    /// A message of this kind about a mobile's own bindings.
    pub fn new(kind: RevocationKind, sequence: u16) -> Self {
        let (proxy, ipv4, global) = (false, false, false);
        Self { kind, sequence, proxy, ipv4, global, options: Options::new() }
    }

    /// Reads the whole message; the common part is not looked at.
    pub fn parse(message: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Reader::after_checksum(message);
        let [kind, value] = fields.take()?;
        let kind = match kind {
            Self::INDICATION => RevocationKind::Indication(value),
            Self::ACKNOWLEDGEMENT => RevocationKind::Acknowledgement(value),
            other => return Err(DecodeError::RevocationType(other)),
        };
        let sequence = fields.take_u16()?;
        let flags = fields.take_u16()?;
        Ok(Self {
            kind,
            sequence,
            proxy: flags & Self::PROXY != 0,
            ipv4: flags & Self::IPV4 != 0,
            global: flags & Self::GLOBAL != 0,
            options: option::parse(message, Self::OPTIONS)?,
        })
    }

    /// Appends everything after the checksum.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let flag = |set: bool, flag: u16| if set { flag } else { 0 };
        let flags = flag(self.proxy, Self::PROXY)
            | flag(self.ipv4, Self::IPV4)
            | flag(self.global, Self::GLOBAL);
        out.extend_from_slice(&match self.kind {
            RevocationKind::Indication(trigger) => [Self::INDICATION, trigger],
            RevocationKind::Acknowledgement(status) => [Self::ACKNOWLEDGEMENT, status],
        });
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
        option::emit(&self.options, out)
    }
}
