//! Traffic Selector sub-option of Flow Identification.

use std::fmt::Debug;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use mtun_policy::{AddressRange, BinarySelector, IpVersion};
use thiserror::Error;

use crate::wire::iana::traffic_selector_format as format;

/// The significant bits of a flow label (RFC 8200 §3); RFC 6088 §3.2 leaves room for 24.
const FLOW_LABEL: u32 = 0x000f_ffff;

/// Highest code point: the six bits of a traffic class that are compared (RFC 6088 §3.1).
const HIGHEST_DSCP: u8 = 63;

/// Which packets a flow binding speaks of (RFC 6089 §4.2.1.4, RFC 6088 §3).
///
/// ```text
/// +---------------+---------------+---------------+---------------+
/// |   Type = 3    |    Length     |   TS Format   |   Reserved    |
/// +---------------+---------------+---------------+---------------+
/// |A|B|C|D|E|F|G|H|I|J|K|L|M|N|O|P|           Reserved            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-------------------------------+
/// :     the fields whose flags are set, in this order, no gaps     :
/// +---------------------------------------------------------------+
///
///            A,B      C,D        E,F  G,H       I,J       K,L       M,N       O,P
/// format 1   source   dest.      SPI  src port  dst port  DS        protocol  -
/// octets     4        4          4    2         2         1         1
/// format 2   source   dest.      SPI  label     src port  dst port  class     next header
/// octets     16       16         4    4         2         2         1         1
/// ```
///
/// The first letter of each pair is where a range starts, the second where it ends; without the
/// second one value counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrafficSelector {
    /// TS Format 1 or 2.
    Binary(BinarySelector),
    /// TS Format 1 or 2 with fields that cannot be, answered with status 130.
    Malformed {
        /// TS Format.
        format: u8,
        /// The octets after Reserved.
        data: Vec<u8>,
        /// What is wrong with them.
        fault: SelectorFault,
    },
    /// Any other TS Format, answered with status 133.
    Unknown {
        /// TS Format.
        format: u8,
        /// The octets after Reserved.
        data: Vec<u8>,
    },
}

/// Why the fields of a binary traffic selector cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum SelectorFault {
    /// More or fewer octets than the flags announce.
    #[error("the octets are not those that the flags announce")]
    Length,
    /// The flag of an end is set and that of its start is not.
    #[error("an end without a start")]
    EndWithoutStart,
    /// A range ends before it starts.
    #[error("an end before its start")]
    EndBeforeStart,
}

impl TrafficSelector {
    /// Reads what follows the sub-option's Length; `None` without TS Format and Reserved.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let (&[format, _reserved], rest) = data.split_first_chunk::<2>()?;
        let version = match format {
            format::IPV4_BINARY => IpVersion::V4,
            format::IPV6_BINARY => IpVersion::V6,
            format => return Some(Self::Unknown { format, data: rest.to_vec() }),
        };
        Some(match parse_binary(version, rest) {
            Ok(selector) => Self::Binary(selector),
            Err(fault) => Self::Malformed { format, data: rest.to_vec(), fault },
        })
    }

    /// Appends what follows the sub-option's Length.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Binary(selector) => emit_binary(selector, out),
            Self::Malformed { format, data, .. } | Self::Unknown { format, data } => {
                out.extend_from_slice(&[*format, 0]);
                out.extend_from_slice(data);
            }
        }
    }

    /// The sub-option may start at a multiple of this many octets of the Mobility Header, so that
    /// its fields do at a multiple of their lengths (RFC 6088 §3.1, §3.2).
    pub(super) fn alignment(&self) -> usize {
        let Self::Binary(selector) = self else { return 1 };
        let addresses = selector.source.is_some() || selector.destination.is_some();
        let words = selector.spi.is_some() || selector.flow_label.is_some();
        let ports = selector.source_port.is_some() || selector.destination_port.is_some();
        match (selector.version, addresses) {
            (IpVersion::V6, true) => 8,
            (IpVersion::V4, true) => 4,
            _ if words => 4,
            _ if ports => 2,
            _ => 1,
        }
    }
}

/// Whether a selector can be written: addresses of its version, values that the fields can have,
/// no range that ends before it starts, no flow label in IPv4.
pub fn is_writable(selector: &BinarySelector) -> bool {
    fn runs<T: PartialOrd>(range: &Option<RangeInclusive<T>>, most: T) -> bool {
        range.as_ref().is_none_or(|it| it.start() <= it.end() && *it.end() <= most)
    }
    let addresses = |range: &Option<AddressRange>| match range {
        None => true,
        Some(AddressRange::V4(range)) => {
            selector.version == IpVersion::V4 && range.start() <= range.end()
        }
        Some(AddressRange::V6(range)) => {
            selector.version == IpVersion::V6 && range.start() <= range.end()
        }
    };
    addresses(&selector.source)
        && addresses(&selector.destination)
        && runs(&selector.spi, u32::MAX)
        && runs(&selector.flow_label, FLOW_LABEL)
        && (selector.flow_label.is_none() || selector.version == IpVersion::V6)
        && runs(&selector.source_port, u16::MAX)
        && runs(&selector.destination_port, u16::MAX)
        && runs(&selector.dscp, HIGHEST_DSCP)
        && runs(&selector.protocol, u8::MAX)
}

/// Appends TS Format, Reserved, flags and fields. A field that [`is_writable`] objects to may come
/// out as another.
pub(crate) fn emit_binary(selector: &BinarySelector, out: &mut Vec<u8>) {
    let format = match selector.version {
        IpVersion::V4 => format::IPV4_BINARY,
        IpVersion::V6 => format::IPV6_BINARY,
    };
    out.extend_from_slice(&[format, 0]);
    let flags_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut writer = Writer { out, flags: 0, next: 0 };
    for range in [&selector.source, &selector.destination] {
        match range {
            Some(AddressRange::V4(range)) => writer.range(Some(range), Ipv4Addr::octets),
            Some(AddressRange::V6(range)) => writer.range(Some(range), Ipv6Addr::octets),
            None => writer.range(None, Ipv6Addr::octets),
        }
    }
    writer.range(selector.spi.as_ref(), |value| value.to_be_bytes());
    if selector.version == IpVersion::V6 {
        writer.range(selector.flow_label.as_ref(), |value| (value & FLOW_LABEL).to_be_bytes());
    }
    writer.range(selector.source_port.as_ref(), |value| value.to_be_bytes());
    writer.range(selector.destination_port.as_ref(), |value| value.to_be_bytes());
    writer.range(selector.dscp.as_ref(), |value| [value << 2]);
    writer.range(selector.protocol.as_ref(), |value| [*value]);
    let flags = writer.flags;
    out[flags_at..flags_at + 4].copy_from_slice(&flags.to_be_bytes());
}

/// Appends fields and collects their flags.
struct Writer<'o> {
    out: &'o mut Vec<u8>,
    flags: u32,
    /// Which pair of flags comes next.
    next: u32,
}

impl Writer<'_> {
    fn range<T: PartialEq, const N: usize>(
        &mut self,
        range: Option<&RangeInclusive<T>>,
        octets: impl Fn(&T) -> [u8; N],
    ) {
        let start_flag = 0x8000_0000 >> (2 * self.next);
        self.next += 1;
        let Some(range) = range else { return };
        self.flags |= start_flag;
        self.out.extend_from_slice(&octets(range.start()));
        if range.start() != range.end() {
            self.flags |= start_flag >> 1;
            self.out.extend_from_slice(&octets(range.end()));
        }
    }
}

fn parse_binary(version: IpVersion, data: &[u8]) -> Result<BinarySelector, SelectorFault> {
    let (flags, rest) = data.split_first_chunk::<4>().ok_or(SelectorFault::Length)?;
    let mut reader = Reader { rest, flags: u32::from_be_bytes(*flags) };
    let mut selector = BinarySelector::everything(version);
    // req FB-18 (RFC 6088 §3.1, §3.2): the fields in the order of their flags.
    match version {
        IpVersion::V4 => {
            selector.source = reader.range(Ipv4Addr::from_octets)?.map(AddressRange::V4);
            selector.destination = reader.range(Ipv4Addr::from_octets)?.map(AddressRange::V4);
            selector.spi = reader.range(u32::from_be_bytes)?;
        }
        IpVersion::V6 => {
            selector.source = reader.range(Ipv6Addr::from_octets)?.map(AddressRange::V6);
            selector.destination = reader.range(Ipv6Addr::from_octets)?.map(AddressRange::V6);
            selector.spi = reader.range(u32::from_be_bytes)?;
            selector.flow_label = reader.range(|octets| u32::from_be_bytes(octets) & FLOW_LABEL)?;
        }
    }
    selector.source_port = reader.range(u16::from_be_bytes)?;
    selector.destination_port = reader.range(u16::from_be_bytes)?;
    selector.dscp = reader.range(|[octet]| octet >> 2)?;
    selector.protocol = reader.range(|[octet]| octet)?;
    if reader.rest.is_empty() { Ok(selector) } else { Err(SelectorFault::Length) }
}

/// Takes fields off the front, as the flags say.
struct Reader<'d> {
    rest: &'d [u8],
    /// The flags that are still to be looked at, the next one foremost.
    flags: u32,
}

impl Reader<'_> {
    fn field<T, const N: usize>(
        &mut self,
        value: impl Fn([u8; N]) -> T,
    ) -> Result<Option<T>, SelectorFault> {
        let present = self.flags & 0x8000_0000 != 0;
        self.flags <<= 1;
        if !present {
            return Ok(None);
        }
        let (octets, rest) = self.rest.split_first_chunk::<N>().ok_or(SelectorFault::Length)?;
        self.rest = rest;
        Ok(Some(value(*octets)))
    }

    fn range<T: PartialOrd + Copy, const N: usize>(
        &mut self,
        value: impl Fn([u8; N]) -> T,
    ) -> Result<Option<RangeInclusive<T>>, SelectorFault> {
        match (self.field(&value)?, self.field(&value)?) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(SelectorFault::EndWithoutStart),
            (Some(start), None) => Ok(Some(start..=start)),
            (Some(start), Some(end)) if start <= end => Ok(Some(start..=end)),
            (Some(_), Some(_)) => Err(SelectorFault::EndBeforeStart),
        }
    }
}
