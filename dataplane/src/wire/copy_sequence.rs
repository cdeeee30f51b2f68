//! The Copy Sequence option: the place of a packet among all that were sent in copies, so that
//! the other end delivers one of them, in order.
//!
//! No standard has one. The type is one of those for experiments (RFC 4727 §3.3): whoever does not
//! know it skips it, and nobody changes it on the way. The first two octets of its data tell our
//! experiment from others. Both ends of a tunnel have agreed before it is sent.

use super::{DESTINATION_OPTIONS, FRAGMENT};

/// Option type: skip if unknown, unchanged en route.
pub const OPTION: u8 = 0x1e;

/// Octets of the option's data.
pub const LENGTH: u8 = 12;

/// Octets of a Destination Options header with nothing else in it.
pub const HEADER: usize = 16;

/// Tells this use of [`OPTION`] from everybody else's.
pub const EXPERIMENT: u16 = 0x6d74;

/// Streams that a sender numbers apart. What is in one stream waits for what is missing in it, so
/// flows are spread over several; each costs the other end a window.
pub const STREAMS: u16 = 16;

/// The place of one packet; all its copies have the same.
///
/// In a Destination Options header that holds nothing else:
///
/// ```text
/// |  Next Header  | Length = 1    | Type = 0x1e   | Length = 12   |
/// |      Experiment = 0x6d74      |            Stream             |
/// |                             Epoch                             |
/// |                            Sequence                           |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CopySequence {
    /// Which of the sender's streams, below [`STREAMS`]. A flow is in one of them.
    pub stream: u16,
    /// Another one whenever the sender begins to count anew.
    pub epoch: u32,
    /// Rises by one for each packet of the stream; zero follows the largest.
    pub sequence: u32,
}

impl CopySequence {
    /// Reads the option's data; `None` for another experiment or a stream that nobody of ours has.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let data: [u8; LENGTH as usize] = data.try_into().ok()?;
        let [a, b, c, d, epoch @ .., e, f, g, h] = data;
        let stream = u16::from_be_bytes([c, d]);
        (u16::from_be_bytes([a, b]) == EXPERIMENT && stream < STREAMS).then_some(Self {
            stream,
            epoch: u32::from_be_bytes(epoch),
            sequence: u32::from_be_bytes([e, f, g, h]),
        })
    }

    /// Appends the option, which must begin at 4n+2.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[OPTION, LENGTH]);
        out.extend_from_slice(&EXPERIMENT.to_be_bytes());
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
    }
}

/// Whether an outer packet may carry the option, at a glance: what is written here has it in the
/// first extension header, or is a fragment.
pub fn may_be_marked(outer: &[u8]) -> bool {
    matches!(outer.get(6), Some(&(DESTINATION_OPTIONS | FRAGMENT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_holds() {
        let place = CopySequence { stream: 3, epoch: 0x0102_0304, sequence: 0xfffe_fdfc };
        let mut out = Vec::new();
        place.emit(&mut out);
        let octets = [0x1e, 12, 0x6d, 0x74, 0, 3, 1, 2, 3, 4, 0xff, 0xfe, 0xfd, 0xfc];
        assert_eq!(out, octets);
        assert_eq!(CopySequence::parse(&octets[2..]), Some(place));
    }

    #[test]
    fn what_is_not_ours_is_none() {
        let sound = [0x6d, 0x74, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0];
        let with = |at: usize, octet: u8| {
            let mut data = sound;
            data[at] = octet;
            data
        };
        assert!(CopySequence::parse(&sound).is_some());
        let cases: [(&str, &[u8]); 6] = [
            ("nothing", &[]),
            ("an octet short", &sound[..11]),
            ("an octet more", &[0x6d, 0x74, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("another experiment", &with(0, 0x6e)),
            ("the first stream too many", &with(3, 16)),
            ("a far stream", &with(2, 1)),
        ];
        for (what, data) in cases {
            assert_eq!(CopySequence::parse(data), None, "{what}");
        }
    }
}
