//! What all messages share: the first eight octets, and a reader that cannot run past the end.

use crate::error::DecodeError;

/// Offset of the first octet after the checksum, where a message's own fields begin.
pub(super) const AFTER_CHECKSUM: usize = 6;
/// Offset of the checksum.
pub(super) const CHECKSUM: usize = 4;

/// Takes the fixed fields of a message in their order.
pub(super) struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    /// A reader at the first field of a message's own.
    pub(super) fn after_checksum(message: &'m [u8]) -> Self {
        Self { message, at: AFTER_CHECKSUM }
    }

    /// The next `N` octets.
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let field = self.message.get(self.at..).and_then(|rest| rest.first_chunk());
        let needed = self.at + N;
        self.at = needed;
        field.copied().ok_or(DecodeError::Truncated { needed, found: self.message.len() })
    }

    /// The next two octets as a number.
    pub(super) fn take_u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_be_bytes)
    }
}
