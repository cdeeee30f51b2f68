//! Flow options on the wire: their octets worked out by hand, read and written a second time by
//! code that shares nothing with the codec, and any octets at all (RFC 6089 §4.2, RFC 6088 §3,
//! RFC 5094 §3).

#[path = "support/flow_bindings.rs"]
mod flow_bindings;
#[path = "support/flow_identification.rs"]
mod flow_identification;
#[path = "support/flow_reader.rs"]
mod flow_reader;
#[path = "support/flow_options.rs"]
mod oracle;
mod support;

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use flow_reader::{Field, ReadFlow, ReadSelector};
use mtun_policy::{
    AddressRange, Bid, BinarySelector, FlowBinding, FlowId, FlowPriority, IpVersion,
};
use mtun_signaling::FlowDigest;
use mtun_signaling::error::WrongLength;
use mtun_signaling::wire::option::{
    FlowExtensions, FlowIdentification, FlowSubOption, FlowSummary, SelectorFault, TrafficSelector,
    VendorSpecific,
};
use mtun_signaling::wire::{
    self, BindingUpdate, BindingUpdateFlags, FlowStatus, Lifetime, Message, MobilityOption,
};
use proptest::collection::vec;
use proptest::prelude::*;
use support::{AGENT, address, away, octets, options};

fn everything(version: IpVersion) -> BinarySelector {
    BinarySelector::everything(version)
}

fn flow(id: u16, priority: u16, sub_options: Vec<FlowSubOption>) -> FlowIdentification {
    FlowIdentification {
        flow: FlowId::new(id),
        priority: FlowPriority::new(priority),
        status: FlowStatus::SUCCESSFUL,
        sub_options,
    }
}

fn to(bids: &[u16]) -> FlowSubOption {
    let bids = bids.iter().map(|bid| Bid::new(*bid).expect("not zero"));
    FlowSubOption::BindingReference(bids.collect())
}

fn of(selector: BinarySelector) -> FlowSubOption {
    FlowSubOption::TrafficSelector(TrafficSelector::Binary(selector))
}

fn v6(first: &str, last: &str) -> Option<AddressRange> {
    Some(AddressRange::V6(address(first)..=address(last)))
}

fn v4(first: [u8; 4], last: [u8; 4]) -> Option<AddressRange> {
    Some(AddressRange::V4(first.into()..=last.into()))
}

/// Selectors with every flag of both formats, set and not set.
fn selectors() -> Vec<(&'static str, BinarySelector, &'static str)> {
    let (four, six) = (everything(IpVersion::V4), everything(IpVersion::V6));
    vec![
        ("everything, IPv4", four.clone(), "01 00 00000000"),
        ("everything, IPv6", six.clone(), "02 00 00000000"),
        (
            "A to N, IPv4",
            BinarySelector {
                source: v4([192, 0, 2, 1], [192, 0, 2, 255]),
                destination: v4([10, 0, 0, 1], [10, 0, 0, 9]),
                spi: Some(0x100..=0x1ff),
                source_port: Some(22..=23),
                destination_port: Some(8080..=8081),
                dscp: Some(46..=47),
                protocol: Some(6..=17),
                ..four.clone()
            },
            "01 00 fffc0000 c0000201 c00002ff 0a000001 0a000009 00000100 000001ff 0016 0017 \
             1f90 1f91 b8 bc 06 11",
        ),
        (
            "A C E G I K M, IPv4",
            BinarySelector {
                source: v4([192, 0, 2, 1], [192, 0, 2, 1]),
                destination: v4([10, 0, 0, 1], [10, 0, 0, 1]),
                spi: Some(0x100..=0x100),
                source_port: Some(22..=22),
                destination_port: Some(8080..=8080),
                dscp: Some(46..=46),
                protocol: Some(6..=6),
                ..four
            },
            "01 00 aaa80000 c0000201 0a000001 00000100 0016 1f90 b8 06",
        ),
        (
            "A to P, IPv6",
            BinarySelector {
                source: v6("2001:db8::", "2001:db8::ffff"),
                destination: v6("2001:db8:1::", "2001:db8:1::1"),
                spi: Some(1..=0xffff_ffff),
                flow_label: Some(0..=0xf_ffff),
                source_port: Some(0..=65535),
                destination_port: Some(5001..=5010),
                dscp: Some(0..=63),
                protocol: Some(0..=255),
                ..six.clone()
            },
            "02 00 ffff0000 20010db8000000000000000000000000 20010db800000000000000000000ffff \
             20010db8000100000000000000000000 20010db8000100000000000000000001 00000001 ffffffff \
             00000000 000fffff 0000 ffff 1389 1392 00 fc 00 ff",
        ),
        (
            "A C E G I K M O, IPv6",
            BinarySelector {
                source: v6("2001:db8::1", "2001:db8::1"),
                destination: v6("2001:db8:1::1", "2001:db8:1::1"),
                spi: Some(7..=7),
                flow_label: Some(0x1_2345..=0x1_2345),
                source_port: Some(443..=443),
                destination_port: Some(5001..=5001),
                dscp: Some(10..=10),
                protocol: Some(17..=17),
                ..six
            },
            "02 00 aaaa0000 20010db8000000000000000000000001 20010db8000100000000000000000001 \
             00000007 00012345 01bb 1389 28 11",
        ),
    ]
}

// FB-18 (RFC 6088 §3.1, §3.2): every flag, start alone and start with end.
#[test]
fn selectors_by_hand() {
    for (what, selector, hex) in selectors() {
        let data = octets(hex);
        let read = TrafficSelector::parse(&data);
        assert_eq!(read, Some(TrafficSelector::Binary(selector.clone())), "{what}");
        let mut written = Vec::new();
        TrafficSelector::Binary(selector).emit(&mut written);
        assert_eq!(written, data, "{what}");
    }
}

// FB-18: what cannot be, and what is ignored.
#[test]
fn selectors_that_are_not_as_written() {
    use SelectorFault::{EndBeforeStart, EndWithoutStart, Length};
    let faults: &[(&str, &str, SelectorFault)] = &[
        ("no flags", "02 00", Length),
        ("three octets of flags", "02 00 000000", Length),
        ("half a port", "02 00 00200000 13", Length),
        ("one octet too many", "02 00 00200000 1389 00", Length),
        ("a field of another length", "01 00 02000000 00001389", Length),
        ("P without O", "02 00 00010000 11", EndWithoutStart),
        ("B without A", "01 00 40000000 c0000201", EndWithoutStart),
        ("D without C", "01 00 90000000 c0000201 c0000202", EndWithoutStart),
        ("an end before its start", "02 00 00300000 1392 1389", EndBeforeStart),
        ("an address before its start", "01 00 c0000000 c0000202 c0000201", EndBeforeStart),
    ];
    for (what, hex, want) in faults {
        match TrafficSelector::parse(&octets(hex)) {
            Some(TrafficSelector::Malformed { fault, .. }) => assert_eq!(fault, *want, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    let six = everything(IpVersion::V6);
    let lenient: Vec<(&str, &str, BinarySelector)> = vec![
        ("reserved octet and bits", "02 ff 0000ffff", six.clone()),
        (
            "the low bits of a traffic class",
            "02 00 000c0000 2b 2f",
            BinarySelector { dscp: Some(10..=11), ..six.clone() },
        ),
        (
            "the high bits of a flow label",
            "02 00 02000000 fff12345",
            BinarySelector { flow_label: Some(0x1_2345..=0x1_2345), ..six.clone() },
        ),
        (
            "an end that is its start",
            "02 00 00300000 1389 1389",
            BinarySelector { destination_port: Some(5001..=5001), ..six },
        ),
    ];
    for (what, hex, want) in lenient {
        let read = TrafficSelector::parse(&octets(hex));
        assert_eq!(read, Some(TrafficSelector::Binary(want)), "{what}");
    }
    for format in [0, 3, 251, 255] {
        let want = TrafficSelector::Unknown { format, data: vec![1, 2] };
        assert_eq!(TrafficSelector::parse(&[format, 0, 1, 2]), Some(want));
    }
    assert_eq!(TrafficSelector::parse(&[2]), None);
}

#[test]
fn options_by_hand() {
    let ports = BinarySelector {
        destination_port: Some(5001..=5010),
        protocol: Some(17..=17),
        ..everything(IpVersion::V6)
    };
    let digest = FlowDigest { number: 3, octets: [1, 2, 3, 4, 5, 6, 7, 8] };
    let cases: Vec<(&str, MobilityOption, u8, &str)> = vec![
        (
            "BIDs and a selector",
            flow(5, 40, vec![to(&[1, 2]), of(ports.clone())]).into(),
            45,
            "0005 0028 00 00 020400010002 030b 0200 00320000 1389 1392 11",
        ),
        ("another place", flow(5, 41, vec![]).into(), 45, "0005 0029 00 00"),
        (
            "refused",
            FlowIdentification { status: FlowStatus(131), ..flow(5, 41, vec![to(&[9])]) }.into(),
            45,
            "0005 0029 00 83 02020009",
        ),
        ("the reserved zeros", flow(0, 0, vec![]).into(), 45, "0000 0000 00 00"),
        (
            "a sub-option of another type",
            flow(5, 1, vec![FlowSubOption::Unknown { kind: 4, data: vec![0, 11] }]).into(),
            45,
            "0005 0001 00 00 0402000b",
        ),
        (
            "BID zero",
            flow(5, 1, vec![FlowSubOption::Malformed { kind: 2, data: vec![0, 0] }]).into(),
            45,
            "0005 0001 00 00 02020000",
        ),
        (
            "a sub-option past the end",
            flow(5, 1, vec![FlowSubOption::Overrun(vec![3, 9, 2])]).into(),
            45,
            "0005 0001 00 00 030902",
        ),
        ("summary", FlowSummary { flows: vec![4, 2] }.into(), 44, "0004 0002"),
        (
            "another vendor's",
            VendorSpecific { vendor: 9, sub_type: 1, data: vec![0xff] }.into(),
            19,
            "00000009 01 ff",
        ),
        (
            "asked for",
            FlowExtensions { reflect: true, copies: true, digest: None }.into(),
            19,
            "00007ed9 01 c0",
        ),
        (
            "granted",
            FlowExtensions { reflect: true, copies: false, digest: Some(digest) }.into(),
            19,
            "00007ed9 01 a0 0003 0102030405060708",
        ),
    ];
    for (what, option, kind, hex) in cases {
        let data = octets(hex);
        assert_eq!(option.kind(), kind, "{what}");
        assert_eq!(MobilityOption::parse(kind, &data), Ok(option.clone()), "{what}");
        let mut written = Vec::new();
        option.emit_data(&mut written);
        assert_eq!(written, data, "{what}");
    }
    // FB-08 (RFC 6089 §4.2.1.1, §4.2.1.2): padding of any content, anywhere.
    let padded = octets(
        "0005 0028 ff 00 00 0103aabbcc 020400010002 0100 030b 0200 00320000 1389 1392 11 00",
    );
    let want = flow(5, 40, vec![to(&[1, 2]), of(ports)]);
    assert_eq!(FlowIdentification::parse(&padded), Ok(want));
    for (kind, data) in [(45, &[0; 5][..]), (44, &[]), (44, &[0; 3]), (19, &[0; 4])] {
        assert_eq!(MobilityOption::parse(kind, data), Err(WrongLength(data.len())), "{kind}");
    }
    let mut short: VendorSpecific =
        FlowExtensions { digest: Some(digest), ..Default::default() }.into();
    short.data.pop();
    assert_eq!(FlowExtensions::of(&short), None);
}

/// The digest is over octets that anybody can work out: here those of the comment in `flow.rs`.
#[test]
fn digests_by_hand() {
    let binding = |id, priority, bids: &[u16]| FlowBinding {
        id: FlowId::new(id).expect("not zero"),
        priority: FlowPriority::new(priority).expect("not zero"),
        selector: BinarySelector { protocol: Some(6..=6), ..everything(IpVersion::V6) },
        bids: bids.iter().map(|bid| Bid::new(*bid).expect("not zero")).collect(),
    };
    // sha256 of nothing, and of 0001 0010 0001 0001 0007 0200 00020000 06.
    let nothing = FlowDigest::of([]);
    assert_eq!((nothing.number, &nothing.octets[..]), (0, &octets("e3b0c44298fc1c14")[..]));
    let one = FlowDigest::of([&binding(1, 16, &[1])]);
    assert_eq!((one.number, &one.octets[..]), (1, &octets("4622b7c8795a8e68")[..]));
    let (a, b) = (binding(1, 16, &[1, 2]), binding(2, 8, &[3]));
    assert_eq!(FlowDigest::of([&a, &b]), FlowDigest::of([&b, &binding(1, 16, &[2, 1])]));
    assert_ne!(FlowDigest::of([&a]), FlowDigest::of([&binding(1, 17, &[1, 2])]));
}

/// A selector as the second reader should see it.
fn as_read(selector: &BinarySelector) -> ReadSelector {
    fn field<T: Copy + PartialEq>(
        range: &Option<RangeInclusive<T>>,
        n: impl Fn(T) -> u128,
    ) -> Field {
        let range = range.as_ref()?;
        Some((n(*range.start()), (range.start() != range.end()).then(|| n(*range.end()))))
    }
    let addresses = |range: &Option<AddressRange>| match range {
        None => None,
        Some(AddressRange::V4(range)) => {
            field(&Some(range.clone()), |address| u128::from(u32::from(address)))
        }
        Some(AddressRange::V6(range)) => {
            field(&Some(range.clone()), |address: Ipv6Addr| address.into())
        }
    };
    ReadSelector {
        format: if selector.version == IpVersion::V4 { 1 } else { 2 },
        source: addresses(&selector.source),
        destination: addresses(&selector.destination),
        spi: field(&selector.spi, u128::from),
        flow_label: field(&selector.flow_label, u128::from),
        source_port: field(&selector.source_port, u128::from),
        destination_port: field(&selector.destination_port, u128::from),
        ds: field(&selector.dscp, |dscp| u128::from(dscp) * 4),
        protocol: field(&selector.protocol, u128::from),
    }
}

fn written(flows: &[FlowIdentification], summary: &[u16], in_front: usize) -> Vec<u8> {
    let filler = MobilityOption::Unknown { kind: 250, data: vec![0xee; in_front] };
    let flows = flows.iter().cloned().map(MobilityOption::from);
    let summary = FlowSummary { flows: summary.to_vec() }.into();
    let message = Message::BindingUpdate(BindingUpdate {
        sequence: 1,
        flags: BindingUpdateFlags::default(),
        lifetime: Lifetime(1),
        options: options(std::iter::once(filler).chain(flows).chain([summary])),
    });
    wire::emit(&message, &away(AGENT)).expect("it fits")
}

proptest! {
    /// What the codec writes, the second reader reads as it was meant, each field and sub-option
    /// where RFC 6088 §3 and RFC 6089 §4.2 want it, behind any number of octets.
    #[test]
    fn a_second_reader_reads_what_is_written(
        all in vec((any::<(u16, u16, u8)>(), flow_bindings::selector(), vec(1..=u16::MAX, 1..9)), 1..5),
        summary in vec(any::<u16>(), 1..100),
        in_front in 0..8_usize,
    ) {
        let flows: Vec<FlowIdentification> = all
            .iter()
            .map(|((id, priority, status), selector, bids)| FlowIdentification {
                status: FlowStatus(*status),
                ..flow(*id, *priority, vec![to(bids), of(selector.clone())])
            })
            .collect();
        let want: Vec<ReadFlow> = all
            .iter()
            .map(|((id, priority, status), selector, bids)| ReadFlow {
                fid: *id,
                fid_pri: *priority,
                status: *status,
                bids: bids.clone(),
                selector: Some(as_read(selector)),
            })
            .collect();
        let message = written(&flows, &summary, in_front);
        prop_assert_eq!(flow_reader::read(&message), (want, summary));
    }

    /// What a second writer writes, the codec reads as it was meant, aligned or not.
    #[test]
    fn what_a_second_writer_writes_is_read(
        (id, priority, status) in any::<(u16, u16, u8)>(),
        selector in proptest::option::of(flow_bindings::selector()),
        bids in vec(1..=u16::MAX, 0..9),
    ) {
        let data = flow_reader::write(&ReadFlow {
            fid: id,
            fid_pri: priority,
            status,
            bids: bids.clone(),
            selector: selector.as_ref().map(as_read),
        });
        let sub_options = selector.map(of).into_iter().chain((!bids.is_empty()).then(|| to(&bids)));
        let want = FlowIdentification {
            status: FlowStatus(status),
            ..flow(id, priority, sub_options.collect())
        };
        prop_assert_eq!(FlowIdentification::parse(&data), Ok(want));
    }

    #[test]
    fn any_octets(octets in vec(any::<u8>(), 0..260)) {
        oracle::check(&octets);
    }

    /// Almost an option: one octet of a good one is another.
    #[test]
    fn almost_an_option(option in flow_identification::flow_identification(), at in any::<prop::sample::Index>(), octet: u8) {
        let mut octets = vec![0];
        option.emit(&mut octets);
        let at = at.index(octets.len() - 1) + 1;
        octets[at] = octet;
        oracle::check(&octets);
    }
}

#[test]
fn the_corpus_of_the_fuzz_target_holds() {
    let mut read = 0;
    for entry in std::fs::read_dir(support::file("../fuzz/corpus/flow_options")).expect("there") {
        let path = entry.expect("a readable entry").path();
        let octets = std::fs::read(&path).expect("a file of the corpus");
        let refused =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("refused"));
        assert_eq!(oracle::check(&octets), !refused, "{}", path.display());
        read += 1;
    }
    assert!(read >= 20, "only {read} files");
}
