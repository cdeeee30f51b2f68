//! Flow Identification options at random, with anything in them.

use mtun_policy::{Bid, FlowId, FlowPriority};
use mtun_signaling::wire::FlowStatus;
use mtun_signaling::wire::option::{FlowIdentification, FlowSubOption, TrafficSelector};
use proptest::collection::vec;
use proptest::prelude::*;

use super::flow_bindings::selector;

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
