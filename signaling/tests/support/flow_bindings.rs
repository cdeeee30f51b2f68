//! Flow bindings at random: selectors with any of their fields.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fmt::Debug;
use std::ops::RangeInclusive;

use mtun_policy::{AddressRange, BinarySelector, IpVersion};
use proptest::option;
use proptest::prelude::*;

/// Nothing, one value, or a range of them.
fn range<T: Ord + Clone + Debug>(
    of: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = Option<RangeInclusive<T>>> {
    let one = of.clone().prop_map(|value| value.clone()..=value);
    let some = (of.clone(), of).prop_map(|(a, b)| a.clone().min(b.clone())..=a.max(b));
    option::of(prop_oneof![one, some])
}

/// A selector of either version that can be written.
pub fn selector() -> impl Strategy<Value = BinarySelector> {
    let v4 = || range(any::<u32>().prop_map(Into::into)).prop_map(|it| it.map(AddressRange::V4));
    let v6 = || range(any::<u128>().prop_map(Into::into)).prop_map(|it| it.map(AddressRange::V6));
    let of_v4 = (v4(), v4()).prop_map(|(source, destination)| BinarySelector {
        source,
        destination,
        ..BinarySelector::everything(IpVersion::V4)
    });
    let label = range(0..1_u32 << 20);
    let of_v6 = (v6(), v6(), label).prop_map(|(source, destination, flow_label)| BinarySelector {
        source,
        destination,
        flow_label,
        ..BinarySelector::everything(IpVersion::V6)
    });
    let ports = (range(any::<u16>()), range(any::<u16>()));
    let rest = (range(any::<u32>()), ports, range(0..64_u8), range(any::<u8>()));
    (prop_oneof![of_v4, of_v6], rest).prop_map(|(addresses, (spi, ports, dscp, protocol))| {
        BinarySelector {
            spi,
            source_port: ports.0,
            destination_port: ports.1,
            dscp,
            protocol,
            ..addresses
        }
    })
}
