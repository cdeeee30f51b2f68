//! Every reason for which a message is refused, the answer it is due, and what is let through.

mod support;

use std::net::Ipv6Addr;

use mtun_policy::HomeAddress;
use mtun_signaling::wire::option::{
    AlternateCareOfAddress, Authentication, BindingAuthorizationData, BindingRefreshAdvice,
    MessageId, MobileNetworkPrefixOption, MobileNodeIdentifier, NonceIndices,
};
use mtun_signaling::wire::{
    self, BindingRefreshRequest, BindingUpdate, Lifetime, Message, MobilityOption, Options,
};
use mtun_signaling::{Answer, DecodeError, EncodeError, Envelope, NtpTime};
use support::{AGENT, CARE_OF, HOME, address, away, bid, octets, options, plain, to_mobile};

/// A Binding Update of just the octets given behind its fixed part, padded to a whole length.
fn update_with(option_octets: &[u8]) -> Vec<u8> {
    let mut message = octets("3b000500 00000001 c0000069");
    message.extend_from_slice(option_octets);
    let missing = message.len().next_multiple_of(8) - message.len();
    message.extend(std::iter::repeat_n(0, missing));
    message[1] = u8::try_from(message.len() / 8 - 1).unwrap();
    message
}

#[test]
fn every_reason_and_its_answer() {
    let overrun = |at| DecodeError::OptionOverrun { at };
    let length = |kind, length| DecodeError::OptionLength { kind, length, at: 12 };
    let pointer = |pointer| Answer::ParameterProblem { pointer };
    let prefix = |octets: usize| {
        let mut option = vec![6, u8::try_from(octets).unwrap()];
        option.resize(2 + octets, 0);
        update_with(&option)
    };
    let cases: Vec<(&str, Vec<u8>, DecodeError, Answer)> = vec![
        ("no octets", vec![], DecodeError::Truncated { needed: 8, found: 0 }, Answer::Silent),
        (
            "seven octets",
            octets("3b000000 000000"),
            DecodeError::Truncated { needed: 8, found: 7 },
            Answer::Silent,
        ),
        (
            "shorter than Header Len",
            octets("3b020500 00000001 c0000069 01020000"),
            DecodeError::Truncated { needed: 24, found: 16 },
            Answer::Silent,
        ),
        (
            "longer than Header Len",
            octets("3b010500 00000001 c0000069 01020000 00"),
            DecodeError::TrailingOctets(1),
            Answer::Silent,
        ),
        // req MH-05: an assigned type that is not ours and one nobody has.
        (
            "Fast Binding Update",
            octets("3b000800 00000000"),
            DecodeError::UnrecognizedType(8),
            Answer::BindingError,
        ),
        (
            "type 200",
            octets("3b00c800 00000000"),
            DecodeError::UnrecognizedType(200),
            Answer::BindingError,
        ),
        (
            "unknown type and payload behind: the type is looked at first",
            octets("0600c800 00000000"),
            DecodeError::UnrecognizedType(200),
            Answer::BindingError,
        ),
        // req MH-01.
        (
            "payload behind",
            octets("06010500 00000001 c0000069 01020000"),
            DecodeError::PayloadProto(6),
            pointer(0),
        ),
        // req MH-02: every type at one unit below its minimum.
        (
            "Home Test Init of 8",
            octets("3b000100 00000000"),
            DecodeError::HeaderLen { found: 0, minimum: 1 },
            pointer(1),
        ),
        (
            "Care-of Test Init of 8",
            octets("3b000200 00000000"),
            DecodeError::HeaderLen { found: 0, minimum: 1 },
            pointer(1),
        ),
        (
            "Home Test of 16",
            octets("3b010300 00000000 00000000 00000000"),
            DecodeError::HeaderLen { found: 1, minimum: 2 },
            pointer(1),
        ),
        (
            "Care-of Test of 16",
            octets("3b010400 00000000 00000000 00000000"),
            DecodeError::HeaderLen { found: 1, minimum: 2 },
            pointer(1),
        ),
        (
            "Binding Update of 8",
            octets("3b000500 00000000"),
            DecodeError::HeaderLen { found: 0, minimum: 1 },
            pointer(1),
        ),
        (
            "Binding Acknowledgement of 8",
            octets("3b000600 00000000"),
            DecodeError::HeaderLen { found: 0, minimum: 1 },
            pointer(1),
        ),
        (
            "Binding Error of 16",
            octets("3b010700 00000000 00000000 00000000"),
            DecodeError::HeaderLen { found: 1, minimum: 2 },
            pointer(1),
        ),
        // req MH-10.
        ("type without length", update_with(&[0, 0, 0, 200]), overrun(15), Answer::Silent),
        ("length past the end", update_with(&[200, 3, 0, 0]), overrun(12), Answer::Silent),
        ("PadN past the end", update_with(&[1, 255, 0, 0]), overrun(12), Answer::Silent),
        ("refresh advice of 0", update_with(&[2, 0, 0, 0]), length(2, 0), Answer::Silent),
        ("refresh advice of 3", update_with(&[2, 3, 0, 0, 0]), length(2, 3), Answer::Silent),
        ("alternate care-of of 0", update_with(&[3, 0, 0, 0]), length(3, 0), Answer::Silent),
        ("alternate care-of of 4", update_with(&[3, 4, 0, 0, 0, 0]), length(3, 4), Answer::Silent),
        ("nonce indices of 2", update_with(&[4, 2, 0, 0]), length(4, 2), Answer::Silent),
        (
            "authorization data of 0",
            update_with(&[0, 0, 5, 0]),
            DecodeError::OptionLength { kind: 5, length: 0, at: 14 },
            Answer::Silent,
        ),
        ("identifier of 0", update_with(&[8, 0, 0, 0]), length(8, 0), Answer::Silent),
        ("authentication of 4", update_with(&[9, 4, 1, 0, 0, 1]), length(9, 4), Answer::Silent),
        ("timestamp of 4", update_with(&[10, 4, 0, 0, 0, 0]), length(10, 4), Answer::Silent),
        // req MH-12: the sender is told, pointer at Option Length.
        ("prefix of 17", prefix(17), length(6, 17), pointer(13)),
        ("prefix of 19", prefix(19), length(6, 19), pointer(13)),
        ("prefix of 0", prefix(0), length(6, 0), pointer(13)),
    ];
    for (what, mut message, want, answer) in cases {
        let refused = wire::parse(&message);
        assert_eq!(refused, Err(want), "{what}");
        assert_eq!(want.answer(), answer, "{what}");
        // What is told is told without reading the message, and only if its checksum is right.
        let told = match answer {
            Answer::ParameterProblem { pointer } => Some(pointer),
            Answer::Silent | Answer::BindingError => None,
        };
        assert_eq!(wire::problem(&away(AGENT), &message), None, "{what}: wrong checksum");
        if message.len() >= 6 {
            message[4..6].fill(0);
            let away = away(AGENT);
            let sum = wire::checksum(away.upper_source(), away.upper_destination(), &message);
            message[4..6].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(wire::problem(&away, &message), told, "{what}");
        }
    }
    let good = wire::emit(&wire::parse(&update_with(&[])).unwrap(), &away(AGENT)).unwrap();
    assert_eq!(wire::problem(&away(AGENT), &good), None);
    assert_eq!(DecodeError::Checksum.answer(), Answer::Silent);
    assert_eq!(DecodeError::DuplicateOption { kind: 3, at: 40 }.answer(), Answer::Silent);
}

// req MH-11: neither the first nor the last wins.
#[test]
fn options_that_may_occur_once() {
    let authentication =
        |subtype| MobilityOption::from(Authentication { subtype, spi: 256, data: vec![0; 12] });
    let prefix = MobileNetworkPrefixOption { prefix_len: 64, address: Ipv6Addr::UNSPECIFIED };
    let cases: Vec<(MobilityOption, MobilityOption, bool)> = vec![
        (
            BindingRefreshAdvice { refresh_interval: 1 }.into(),
            BindingRefreshAdvice { refresh_interval: 2 }.into(),
            false,
        ),
        (
            AlternateCareOfAddress { address: address(CARE_OF) }.into(),
            AlternateCareOfAddress { address: address(CARE_OF) }.into(),
            false,
        ),
        (
            NonceIndices { home: 1, care_of: 1 }.into(),
            NonceIndices { home: 1, care_of: 2 }.into(),
            false,
        ),
        (
            BindingAuthorizationData { authenticator: vec![1; 12] }.into(),
            BindingAuthorizationData { authenticator: vec![1; 12] }.into(),
            false,
        ),
        (
            MessageId { timestamp: NtpTime(1) }.into(),
            MessageId { timestamp: NtpTime(1) }.into(),
            false,
        ),
        (authentication(1), authentication(1), false),
        (authentication(1), authentication(2), true),
        (prefix.into(), prefix.into(), true),
        (
            MobileNodeIdentifier::nai("a@b").into(),
            MobileNodeIdentifier { subtype: 2, identifier: vec![1; 16] }.into(),
            true,
        ),
        (bid(1, 0, None).into(), bid(1, 0, None).into(), true),
        (
            MobilityOption::Unknown { kind: 200, data: vec![] },
            MobilityOption::Unknown { kind: 200, data: vec![] },
            true,
        ),
    ];
    for (one, two, accepted) in cases {
        let kind = two.kind();
        let message =
            Message::BindingRefreshRequest(BindingRefreshRequest { options: options([one, two]) });
        let sent = wire::emit(&message, &plain(AGENT, HOME)).unwrap();
        let read = wire::parse(&sent);
        match read {
            Ok(read) => assert!(accepted && read == message, "option {kind}"),
            Err(DecodeError::DuplicateOption { kind: found, .. }) => {
                assert!(!accepted && found == kind, "option {kind}");
            }
            Err(other) => panic!("option {kind}: {other}"),
        }
    }
}

// req MH-03, MH-04.
#[test]
fn the_checksum_covers_the_addresses_upper_layers_see() {
    let message = Message::BindingRefreshRequest(BindingRefreshRequest::default());
    let sent = wire::emit(&message, &away(AGENT)).unwrap();
    let without_option = plain(CARE_OF, AGENT);
    let of_another = Envelope { home_address: Some(HomeAddress(address(CARE_OF))), ..away(AGENT) };
    // The care-of address is free to change under the Home Address option.
    let moved = Envelope { source: address(AGENT), ..away(AGENT) };
    let cases = [
        ("as sent", away(AGENT), true),
        ("other care-of address", moved, true),
        ("from the home address itself", plain(HOME, AGENT), true),
        ("over the care-of address", without_option, false),
        ("over another home address", of_another, false),
        ("to somebody else", away(CARE_OF), false),
    ];
    for (what, envelope, good) in cases {
        assert_eq!(wire::verify_checksum(&envelope, &sent), good, "{what}");
        let want = if good { Ok(message.clone()) } else { Err(DecodeError::Checksum) };
        assert_eq!(wire::receive(&envelope, &sent), want, "{what}");
    }
    let answered = wire::emit(&message, &to_mobile(AGENT)).unwrap();
    assert!(wire::verify_checksum(&plain(AGENT, HOME), &answered));
    assert!(!wire::verify_checksum(&plain(AGENT, CARE_OF), &answered));
    for bit in 0..sent.len() * 8 {
        let mut damaged = sent.clone();
        damaged[bit / 8] ^= 0x80 >> (bit % 8);
        assert_eq!(wire::receive(&away(AGENT), &damaged), Err(DecodeError::Checksum), "bit {bit}");
    }
    for short in 0..6 {
        assert!(!wire::verify_checksum(&away(AGENT), &sent[..short]));
    }
}

/// One's complement has two zeros; a sum that comes out as zero may be written as either.
#[test]
fn both_zeros_are_the_same_checksum() {
    let envelope = plain(AGENT, HOME);
    let mut message = octets("3b000000 00000000");
    let value = wire::checksum(envelope.source, envelope.destination, &message);
    // The reserved field takes what is missing.
    message[6..].copy_from_slice(&value.to_be_bytes());
    assert_eq!(wire::checksum(envelope.source, envelope.destination, &message), 0);
    for zero in [[0, 0], [0xff, 0xff]] {
        message[4..6].copy_from_slice(&zero);
        assert!(wire::verify_checksum(&envelope, &message));
    }
}

// req MH-07, MH-08, MH-09: what has no meaning does no harm.
#[test]
fn let_through() {
    let plain_update = wire::parse(&update_with(&[])).unwrap();
    let mut reserved = update_with(&[]);
    reserved[3] = 0xff;
    // Every flag bit without a name, and O without a Binding Identifier.
    reserved[8] |= 0x09;
    reserved[9] = 0xff;
    assert_eq!(wire::parse(&reserved), Ok(plain_update.clone()));

    for zeros in 0..=255u8 {
        let mut pad = vec![1, zeros];
        pad.resize(2 + usize::from(zeros), 0xaa);
        assert_eq!(wire::parse(&update_with(&pad)), Ok(plain_update.clone()), "PadN of {zeros}");
    }
    assert_eq!(wire::parse(&update_with(&[0; 12])), Ok(plain_update), "Pad1 upon Pad1");

    let advice = wire::parse(&update_with(&[2, 2, 0, 5])).unwrap();
    assert_eq!(advice.options().refresh_advice(), Some(5), "a stranger to Binding Updates");
    let misaligned = wire::parse(&update_with(&[0, 2, 2, 0, 5])).unwrap();
    assert_eq!(misaligned.options(), advice.options());
    let unknown = wire::parse(&update_with(&[200, 3, 7, 8, 9])).unwrap();
    assert_eq!(
        unknown.options().iter().collect::<Vec<_>>(),
        [&MobilityOption::Unknown { kind: 200, data: vec![7, 8, 9] }]
    );

    let reserved_in_other_types = [
        ("Binding Refresh Request", octets("3b0000ff 0000ffff")),
        ("Home Test Init", octets("3b0101ff 0000ffff 0000000000000000")),
        ("Care-of Test Init", octets("3b0102ff 0000ffff 0000000000000000")),
        ("Home Test", octets("3b0203ff 00000000 0000000000000000 0000000000000000")),
        ("Care-of Test", octets("3b0204ff 00000000 0000000000000000 0000000000000000")),
        ("Binding Acknowledgement", octets("3b0106ff 0000003f 00000000 01020000")),
        ("Binding Error", octets("3b0207ff 000000ff 0000000000000000 0000000000000000")),
    ];
    for (what, message) in reserved_in_other_types {
        let read = wire::parse(&message).expect(what);
        let again = wire::emit(&read, &plain(AGENT, HOME)).unwrap();
        assert_eq!(again[3], 0, "{what}: written as zero");
        assert_eq!(wire::parse(&again), Ok(read), "{what}");
    }
}

#[test]
fn what_cannot_be_written() {
    let message = |of: Options| {
        Message::BindingUpdate(BindingUpdate {
            sequence: 0,
            flags: Default::default(),
            lifetime: Lifetime::ZERO,
            options: of,
        })
    };
    let unknown = |kind, octets| MobilityOption::Unknown { kind, data: vec![0; octets] };
    let prefix = MobileNetworkPrefixOption { prefix_len: 64, address: Ipv6Addr::UNSPECIFIED };
    let prefixes = |count| options(std::iter::repeat_n(prefix.into(), count));
    // The first prefix lies at 12, each next 24 further: 84 end at 2024, 85 at 2048.
    let cases: Vec<(&str, Options, Result<usize, EncodeError>)> = vec![
        ("85 prefixes", prefixes(85), Ok(2048)),
        ("86 prefixes", prefixes(86), Err(EncodeError::MessageTooLong(2072))),
        ("255 octets", options([unknown(200, 255)]), Ok(272)),
        (
            "256 octets",
            options([unknown(200, 256)]),
            Err(EncodeError::OptionTooLong { kind: 200, length: 256 }),
        ),
        (
            "a long name",
            options([MobileNodeIdentifier { subtype: 1, identifier: vec![b'a'; 255] }.into()]),
            Err(EncodeError::OptionTooLong { kind: 8, length: 256 }),
        ),
        ("Pad1 as an option", options([unknown(0, 0)]), Err(EncodeError::Padding)),
        ("PadN as an option", options([unknown(1, 4)]), Err(EncodeError::Padding)),
    ];
    for (what, of, want) in cases {
        let written = wire::emit(&message(of), &plain(HOME, AGENT));
        assert_eq!(written.as_ref().map(Vec::len), want.as_ref().copied(), "{what}");
        if let Ok(octets) = written {
            assert!(wire::receive(&plain(HOME, AGENT), &octets).is_ok(), "{what}");
        }
    }
}
