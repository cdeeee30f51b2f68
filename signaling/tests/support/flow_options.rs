//! What must hold when any octets are taken for the data of a flow option.
//!
//! Shared by the fuzz target `flow_options`, the replay of its corpus and the properties.

use mtun_signaling::wire::option::{FlowExtensions, FlowIdentification, FlowSummary};
use mtun_signaling::wire::{MobilityOption, iana};

/// Takes the first octet for the option's type and the rest for its data; panics when something
/// does not hold. Says whether they can be read.
pub fn check(octets: &[u8]) -> bool {
    let Some((&kind, data)) = octets.split_first() else { return false };
    let kind = match kind % 3 {
        0 => iana::option::FLOW_IDENTIFICATION,
        1 => iana::option::FLOW_SUMMARY,
        _ => iana::option::VENDOR_SPECIFIC,
    };
    let data = &data[..data.len().min(iana::MAX_OPTION_DATA)];
    let Ok(read) = MobilityOption::parse(kind, data) else { return false };
    match &read {
        MobilityOption::FlowIdentification(flow) => flow_identification(flow, data),
        MobilityOption::FlowSummary(FlowSummary { flows }) => {
            assert_eq!(flows.len() * 2, data.len());
            assert!((1..=FlowSummary::MOST).contains(&flows.len()));
        }
        MobilityOption::VendorSpecific(option) => {
            if let Some(extensions) = FlowExtensions::of(option) {
                let again = FlowExtensions::of(&extensions.into());
                assert_eq!(again, Some(extensions));
            }
        }
        other => panic!("{other:?}"),
    }
    true
}

/// Written and read again it is the same, wherever it stands in a message.
fn flow_identification(flow: &FlowIdentification, data: &[u8]) {
    assert!(flow.sub_options.len() <= data.len() / 2 + 1);
    for offset in 0..8 {
        let mut written = vec![0; offset];
        flow.emit(&mut written);
        assert_eq!(FlowIdentification::parse(&written[offset..]).as_ref(), Ok(flow));
    }
}
