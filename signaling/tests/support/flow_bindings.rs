//! Flow bindings at random: selectors with any of their fields, options with anything in them.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use mtun_policy::{AddressRange, Bid, BinarySelector, FlowId, FlowPriority, IpVersion};
use mtun_signaling::wire::FlowStatus;
use mtun_signaling::wire::option::{FlowIdentification, FlowSubOption, TrafficSelector};
use proptest::collection::vec;
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

/// A sub-option of any kind, good or bad, but none that runs past the end.
fn sub_option() -> impl Strategy<Value = FlowSubOption> {
    let octets = || vec(any::<u8>(), 0..12);
    prop_oneof![
        3 => selector().prop_map(|it| FlowSubOption::TrafficSelector(TrafficSelector::Binary(it))),
        2 => vec((1..=u16::MAX).prop_map(|it| Bid::new(it).expect("not zero")), 1..5)
            .prop_map(FlowSubOption::BindingReference),
        1 => (prop_oneof![Just(0_u8), 3..=u8::MAX], octets()).prop_map(|(format, data)| {
            FlowSubOption::TrafficSelector(TrafficSelector::Unknown { format, data })
        }),
        1 => (4..=u8::MAX, octets()).prop_map(|(kind, data)| FlowSubOption::Unknown { kind, data }),
        1 => octets().prop_filter("odd", |it| it.len() % 2 == 1)
            .prop_map(|data| FlowSubOption::Malformed { kind: 2, data }),
        1 => vec(any::<u8>(), 0..2).prop_map(|data| FlowSubOption::Malformed { kind: 3, data }),
    ]
}

/// A Flow Identification option with any numbers and up to two sub-options.
pub fn flow_identification() -> impl Strategy<Value = FlowIdentification> {
    (any::<(u16, u16, u8)>(), vec(sub_option(), 0..3)).prop_map(
        |((flow, priority, status), sub_options)| FlowIdentification {
            flow: FlowId::new(flow),
            priority: FlowPriority::new(priority),
            status: FlowStatus(status),
            sub_options,
        },
    )
}
