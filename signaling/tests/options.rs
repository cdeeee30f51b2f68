//! Each option alone: its octets worked out by hand, the lengths it takes, and where it may stand.

mod support;

use std::net::{IpAddr, Ipv4Addr};

use mtun_policy::{Bid, CareOfAddress, MobileNetworkPrefix};
use mtun_signaling::NtpTime;
use mtun_signaling::error::WrongLength;
use mtun_signaling::wire::option::{
    AlternateCareOfAddress, Authentication, BindingAuthorizationData, BindingIdentifier,
    BindingRefreshAdvice, FlowSummary, LinkLayerAddress, MessageId, MobileNetworkPrefixOption,
    MobileNodeIdentifier, NonceIndices, RestartCounter,
};
use mtun_signaling::wire::{
    self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, MobilityOption, Status,
};
use support::{AGENT, CARE_OF, address, away, bid, octets, options};

/// One option with its type and data, read and written.
#[test]
fn data() {
    let ipv4 = CareOfAddress(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9)));
    let cases: Vec<(&str, MobilityOption, u8, &str)> = vec![
        ("refresh advice", BindingRefreshAdvice { refresh_interval: 0x0102 }.into(), 2, "0102"),
        (
            "alternate care-of address",
            AlternateCareOfAddress { address: address(CARE_OF) }.into(),
            3,
            "20010db8000200000000000000000002",
        ),
        ("nonce indices", NonceIndices { home: 0x1122, care_of: 0x3344 }.into(), 4, "11223344"),
        (
            "authorization data",
            BindingAuthorizationData { authenticator: (1..=12).collect() }.into(),
            5,
            "0102030405060708090a0b0c",
        ),
        (
            "authorization data of another method",
            BindingAuthorizationData { authenticator: vec![9] }.into(),
            5,
            "09",
        ),
        (
            "prefix",
            MobileNetworkPrefixOption { prefix_len: 56, address: address("2001:db8:100:4200::") }
                .into(),
            6,
            "0038 20010db8010042000000000000000000",
        ),
        (
            "prefix of impossible length",
            MobileNetworkPrefixOption { prefix_len: 129, address: address("::") }.into(),
            6,
            "0081 00000000000000000000000000000000",
        ),
        (
            "link-layer address",
            LinkLayerAddress::of_mobile([2, 0, 0x5e, 0x10, 0, 7]).into(),
            7,
            "02 02005e100007",
        ),
        (
            "link-layer address of nothing",
            LinkLayerAddress { code: 1, address: vec![] }.into(),
            7,
            "01",
        ),
        ("identifier", MobileNodeIdentifier::nai("a@b").into(), 8, "01 614062"),
        (
            "empty identifier",
            MobileNodeIdentifier { subtype: 7, identifier: vec![] }.into(),
            8,
            "07",
        ),
        (
            "authentication",
            Authentication { subtype: 1, spi: 0x0102_0304, data: (1..=12).collect() }.into(),
            9,
            "01 01020304 0102030405060708090a0b0c",
        ),
        (
            "authentication without data",
            Authentication { subtype: 2, spi: 3, data: vec![] }.into(),
            9,
            "02 00000003",
        ),
        (
            "timestamp",
            MessageId { timestamp: NtpTime(0x0102_0304_0506_0708) }.into(),
            10,
            "0102030405060708",
        ),
        ("binding identifier", bid(0x0102, 0, None).into(), 35, "0102 00 00"),
        (
            "binding identifier with everything",
            BindingIdentifier {
                status: Status(169),
                home: true,
                ..bid(0xffff, 127, Some(CARE_OF))
            }
            .into(),
            35,
            "ffff a9 ff 20010db8000200000000000000000002",
        ),
        (
            "binding identifier, IPv4",
            BindingIdentifier { care_of: Some(ipv4), ..bid(7, 1, None) }.into(),
            35,
            "0007 00 01 c0000209",
        ),
        (
            "binding identifier zero",
            BindingIdentifier { bid: None, ..bid(1, 0, None) }.into(),
            35,
            "0000 00 00",
        ),
        (
            "binding identifier of 5 octets",
            MobilityOption::MalformedBindingIdentifier { data: vec![0, 7, 0, 0, 0x20] },
            35,
            "0007 00 00 20",
        ),
        (
            "binding identifier of no octets",
            MobilityOption::MalformedBindingIdentifier { data: vec![] },
            35,
            "",
        ),
        ("option 255", MobilityOption::Unknown { kind: 255, data: vec![] }, 255, ""),
    ];
    for (what, option, kind, hex) in cases {
        let data = octets(hex);
        assert_eq!(option.kind(), kind, "{what}");
        assert_eq!(MobilityOption::parse(kind, &data), Ok(option.clone()), "{what}");
        let mut written = Vec::new();
        option.emit_data(&mut written);
        assert_eq!(written, data, "{what}");
        if let MobilityOption::BindingIdentifier(bid) = option {
            assert_eq!(bid.data_len(), data.len(), "{what}");
        }
    }
}

/// Every length from nothing to past the longest: which ones are read at all.
#[test]
fn lengths() {
    type Takes = fn(usize) -> bool;
    let cases: [(u8, Takes); 11] = [
        (2, |length| length == 2),
        (3, |length| length == 16),
        (4, |length| length == 4),
        (5, |length| length >= 1),
        (6, |length| length == 18),
        (7, |length| length >= 1),
        (8, |length| length >= 1),
        (9, |length| length >= 5),
        (10, |length| length == 8),
        (35, |_| true),
        (36, |_| true),
    ];
    for (kind, takes) in cases {
        for length in 0..=255 {
            let read = MobilityOption::parse(kind, &vec![0; length]);
            let refused = Err(WrongLength(length));
            assert_eq!(read.is_ok(), takes(length), "option {kind} of {length}");
            assert!(read.is_ok() || read == refused, "option {kind} of {length}");
        }
    }
    // req (RFC 5648 §6.2): any other length is answered for the whole message.
    for length in 0..=255 {
        let read = MobilityOption::parse(35, &vec![0; length]).unwrap();
        let malformed = matches!(read, MobilityOption::MalformedBindingIdentifier { .. });
        assert_eq!(malformed, ![4, 8, 20].contains(&length), "{length}");
    }
}

#[test]
fn which_prefixes_are_prefixes() {
    let cases = [
        ("2001:db8:100::", 48, true),
        ("2001:db8:100::", 40, true),
        ("2001:db8:100::", 39, false),
        ("2001:db8::1", 128, true),
        ("2001:db8::1", 127, false),
        ("::", 0, true),
        ("2001:db8::", 129, false),
        ("2001:db8::", 255, false),
    ];
    for (text, prefix_len, valid) in cases {
        let option = MobileNetworkPrefixOption { prefix_len, address: address(text) };
        let prefix = option.prefix();
        assert_eq!(prefix.is_some(), valid, "{text}/{prefix_len}");
        if let Some(prefix) = prefix {
            assert_eq!(MobileNetworkPrefixOption::from(prefix), option);
        }
    }
}

// req MH-18 (RFC 6275 §6.2, RFC 3963 §4.3, RFC 4285 §5, §6, RFC 5648 §4.3): behind one to eight
// octets of something else, each option stands where its RFC wants it.
#[test]
fn alignment() {
    let authentication = |length| {
        MobilityOption::from(Authentication { subtype: 1, spi: 256, data: vec![1; length] })
    };
    let cases: Vec<(&str, MobilityOption, usize, usize)> = vec![
        ("refresh advice 2n", BindingRefreshAdvice { refresh_interval: 1 }.into(), 2, 0),
        (
            "alternate care-of address 8n+6",
            AlternateCareOfAddress { address: address(CARE_OF) }.into(),
            8,
            6,
        ),
        ("nonce indices 2n", NonceIndices { home: 1, care_of: 2 }.into(), 2, 0),
        (
            "authorization data 8n+2",
            BindingAuthorizationData { authenticator: vec![1; 12] }.into(),
            8,
            2,
        ),
        (
            "prefix 8n+4",
            MobileNetworkPrefixOption::from(
                MobileNetworkPrefix::new("2001:db8::/32".parse().unwrap()).unwrap(),
            )
            .into(),
            8,
            4,
        ),
        ("authentication 8n+5 with 12 octets", authentication(12), 8, 5),
        ("authentication 8n+1 with 16 octets", authentication(16), 8, 1),
        ("authentication 4n+1 else", authentication(11), 4, 1),
        ("timestamp 8n+2", MessageId { timestamp: NtpTime(1) }.into(), 8, 2),
        ("binding identifier 2n", bid(1, 0, None).into(), 2, 0),
        ("binding identifier with address 8n+2", bid(1, 0, Some(CARE_OF)).into(), 8, 2),
        ("restart counter 4n+2", RestartCounter { counter: 1 }.into(), 4, 2),
        ("IPv4 home address 4n", MobilityOption::Unknown { kind: 29, data: vec![1; 6] }, 4, 0),
        ("flow identification 2n", FlowSummary { flows: vec![1] }.into(), 2, 0),
    ];
    for (what, option, modulus, remainder) in cases {
        for in_front in 0..8 {
            let filler = MobilityOption::Unknown { kind: 250, data: vec![0xee; in_front] };
            let sent = wire::emit(
                &Message::BindingUpdate(BindingUpdate {
                    sequence: 1,
                    flags: BindingUpdateFlags::default(),
                    lifetime: Lifetime(1),
                    options: options([filler, option.clone()]),
                }),
                &away(AGENT),
            )
            .unwrap();
            let behind_filler = 12 + 2 + in_front;
            let at = first_option(&sent, behind_filler);
            assert_eq!(at % modulus, remainder, "{what} behind {in_front} octets");
            assert!(at - behind_filler < modulus, "{what}: no more padding than needed");
            assert_eq!(sent.len() % 8, 0, "{what}");
            let end = at + 2 + usize::from(sent[at + 1]);
            assert!(sent.len() - end < 8, "{what}: no more padding than needed");
            // The two that must be last without padding behind them.
            if matches!(option, MobilityOption::AuthorizationData(_)) || what.contains("with 1") {
                assert_eq!(end, sent.len(), "{what} behind {in_front} octets");
            }
        }
    }
}

/// Offset of the first option at or behind `at` that is no padding.
fn first_option(message: &[u8], mut at: usize) -> usize {
    loop {
        match message[at] {
            0 => at += 1,
            1 => at += 2 + usize::from(message[at + 1]),
            _ => return at,
        }
    }
}

// The registry gives bit 9 two meanings; RFC 5648 §4.2's needs a Binding Identifier.
#[test]
fn overwrite_counts_only_with_a_binding_identifier() {
    let flags = BindingUpdateFlags { overwrite: true, ..Default::default() };
    let malformed = MobilityOption::MalformedBindingIdentifier { data: vec![0, 1, 0] };
    let cases: Vec<(&str, BindingUpdateFlags, Vec<MobilityOption>, bool)> = vec![
        ("no option", flags, vec![], false),
        ("one", flags, vec![bid(1, 0, None).into()], true),
        ("a malformed one", flags, vec![malformed], true),
        (
            "from a proxy",
            BindingUpdateFlags { proxy: true, ..flags },
            vec![bid(1, 0, None).into()],
            false,
        ),
    ];
    for (what, flags, of, want) in cases {
        let update =
            BindingUpdate { sequence: 1, flags, lifetime: Lifetime(1), options: options(of) };
        let mut sent = wire::emit(&Message::BindingUpdate(update), &away(AGENT)).unwrap();
        assert_eq!(sent[9] & 0x40 != 0, want, "{what}: written");
        sent[9] |= 0x40;
        let Ok(Message::BindingUpdate(read)) = wire::parse(&sent) else { panic!("{what}") };
        assert_eq!(read.flags.overwrite, want, "{what}: read");
    }
}

#[test]
fn accessors_find_what_is_there() {
    let all = options([
        BindingRefreshAdvice { refresh_interval: 3 }.into(),
        AlternateCareOfAddress { address: address(CARE_OF) }.into(),
        NonceIndices { home: 1, care_of: 2 }.into(),
        bid(1, 0, None).into(),
        bid(2, 0, None).into(),
        MobilityOption::MalformedBindingIdentifier { data: vec![] },
        MobileNodeIdentifier::nai("a@b").into(),
        MobileNetworkPrefixOption { prefix_len: 0, address: address("::") }.into(),
        MessageId { timestamp: NtpTime(9) }.into(),
        Authentication { subtype: 2, spi: 3, data: vec![] }.into(),
        BindingAuthorizationData { authenticator: vec![1] }.into(),
    ]);
    assert_eq!(all.refresh_advice(), Some(3));
    assert_eq!(all.alternate_care_of(), Some(address(CARE_OF)));
    assert_eq!(all.nonce_indices(), Some(NonceIndices { home: 1, care_of: 2 }));
    let bids: Vec<_> = all.bids().map(|bid| bid.bid.map(Bid::get)).collect();
    assert_eq!(bids, [Some(1), Some(2)]);
    assert!(all.has_malformed_bid() && !options([]).has_malformed_bid());
    assert_eq!(all.identifiers().count(), 1);
    assert_eq!(all.prefixes().count(), 1);
    assert_eq!(all.message_id(), Some(NtpTime(9)));
    assert!(all.authentication(1).is_none() && all.authentication(2).is_some());
    assert_eq!(all.authorization().map(|data| data.authenticator.as_slice()), Some(&[1][..]));
    assert!(!all.is_empty() && options([]).is_empty());
}
