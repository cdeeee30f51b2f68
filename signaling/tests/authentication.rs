//! The authentication option against known answers, and every way of not being believed.
//!
//! The known answers come from Python: the message laid out by hand up to and including the SPI,
//! checksum zero, then `hmac.new(key, care_of + home + covered, "sha256").digest()[:16]` (or
//! `"sha1"` and 12 octets), then the checksum over it all.

mod support;

use std::time::Duration;

use mtun_policy::{HomeAddress, MobileNetworkPrefix};
use mtun_signaling::auth::{
    self, Algorithm, AuthFailure, KeyFault, ReservedSpi, Secret, SecurityAssociation,
};
use mtun_signaling::wire::iana::authentication_subtype;
use mtun_signaling::wire::option::{
    AlternateCareOfAddress, Authentication, BindingIdentifier, MessageId,
    MobileNetworkPrefixOption, MobileNodeIdentifier,
};
use mtun_signaling::wire::{
    self, BindingAcknowledgement, BindingUpdate, BindingUpdateFlags, Lifetime, Message,
    MobilityOption, Status,
};
use mtun_signaling::{DecodeError, Envelope, NtpTime};
use support::{
    AGENT, CARE_OF, HOME, SECOND_CARE_OF, address, away, bid, octets, options, plain,
    sha1_association, sha256_association, to_mobile,
};

const TIMESTAMP: NtpTime = NtpTime(0xee1c_b480_8000_0001);

fn update(lifetime: u16, of: impl IntoIterator<Item = MobilityOption>) -> BindingUpdate {
    let flags = BindingUpdateFlags { acknowledge: true, home: true, ..Default::default() };
    BindingUpdate { sequence: 42, flags, lifetime: Lifetime(lifetime), options: options(of) }
}

fn home() -> HomeAddress {
    HomeAddress(address(HOME))
}

/// The message of RFC 4285 that the tests below damage; 56 octets, the option at 37 = 8n+5.
fn signed() -> Vec<u8> {
    octets(
        "3b060500 a4bc002a c000004b 0810016d6e31406578616d706c652e636f6d 01050000000000
         091101000001009f40ac1e94b20bc71d53393d",
    )
}

#[test]
fn known_answers() {
    let cases = [
        (
            "update with an identifier, HMAC-SHA1",
            away(AGENT),
            Message::BindingUpdate(update(
                75,
                [MobileNodeIdentifier::nai("mn1@example.com").into()],
            )),
            address(CARE_OF),
            sha1_association(),
            None,
            signed(),
        ),
        (
            "bulk update of a router, HMAC-SHA-256, timestamp",
            away(AGENT),
            Message::BindingUpdate(BindingUpdate {
                sequence: 7,
                flags: BindingUpdateFlags {
                    acknowledge: true,
                    home: true,
                    router: true,
                    overwrite: true,
                    ..Default::default()
                },
                lifetime: Lifetime(105),
                options: options([
                    MobileNetworkPrefixOption::from(
                        MobileNetworkPrefix::new("2001:db8:100:4200::/56".parse().unwrap())
                            .unwrap(),
                    )
                    .into(),
                    bid(1, 10, Some(CARE_OF)).into(),
                    bid(2, 20, Some(SECOND_CARE_OF)).into(),
                ]),
            }),
            address(CARE_OF),
            sha256_association(),
            Some(TIMESTAMP),
            octets(
                "3b0e0500 9a310007 c4400069 0612003820010db8010042000000000000000000 0100
                 23140001000a20010db8000200000000000000000002 0100
                 23140002001420010db8000300000000000000000003 0100 0a08ee1cb48080000001
                 0103000000 09150100001001 7cf15aa9c67add174f2c1463ab8f0ad1",
            ),
        ),
        (
            "its acknowledgement",
            to_mobile(AGENT),
            Message::BindingAcknowledgement(BindingAcknowledgement {
                status: Status::ACCEPTED,
                key_mobility: false,
                router: true,
                sequence: 7,
                lifetime: Lifetime(105),
                options: options([bid(1, 10, None).into(), bid(2, 20, None).into()]),
            }),
            address(CARE_OF),
            sha256_association(),
            Some(TIMESTAMP),
            octets(
                "3b070600 0fb60040 00070069 23040001000a 230400020014 0100 0a08ee1cb48080000001
                 0103000000 09150100001001 ae402928ba60069006926d8b3dda6d27",
            ),
        ),
        (
            "de-registration from home, HMAC-SHA1, timestamp",
            plain(HOME, AGENT),
            Message::BindingUpdate(BindingUpdate { sequence: 8, ..update(0, []) }),
            address(HOME),
            sha1_association(),
            Some(TIMESTAMP),
            octets(
                "3b050500 bccb0008 c0000000 010400000000 0a08ee1cb48080000001 00
                 09110100000100 851b67dc85acfb3118e31f8c",
            ),
        ),
    ];
    for (what, envelope, message, care_of, association, timestamp, want) in cases {
        let sent = wire::emit_authenticated(&message, &envelope, care_of, &association, timestamp)
            .unwrap();
        assert_eq!(sent, want, "{what}");
        if let Message::BindingUpdate(update) = &message {
            assert_eq!(auth::care_of_address(update, &envelope), care_of, "{what}");
        }
        let proof = auth::verify(&want, care_of, home(), &association);
        assert_eq!(proof.map(|proof| proof.spi()), Ok(association.spi()), "{what}");
        let read = wire::receive(&envelope, &want).unwrap();
        assert_eq!(read.options().message_id(), timestamp, "{what}");
    }
}

#[test]
fn what_is_there_already_is_replaced() {
    let stale = update(
        75,
        [
            MessageId { timestamp: NtpTime(1) }.into(),
            Authentication { subtype: 1, spi: 9, data: vec![7; 12] }.into(),
        ],
    );
    let envelope = away(AGENT);
    let message = Message::BindingUpdate(stale);
    let association = sha1_association();
    let care_of = address(CARE_OF);
    let sent =
        wire::emit_authenticated(&message, &envelope, care_of, &association, Some(TIMESTAMP));
    let read = wire::receive(&envelope, &sent.unwrap()).unwrap();
    assert_eq!(read.options().message_id(), Some(TIMESTAMP));
    let option = read.options().authentication(authentication_subtype::MN_HA).unwrap();
    assert_eq!((option.spi, option.data.len()), (256, 12));
    assert_eq!(read.options().iter().count(), 2);
}

#[test]
fn everything_covered_counts() {
    let message = signed();
    let association = sha1_association();
    let care_of = address(CARE_OF);
    assert!(auth::verify(&message, care_of, home(), &association).is_ok());
    for bit in 0..message.len() * 8 {
        let mut damaged = message.clone();
        damaged[bit / 8] ^= 0x80 >> (bit % 8);
        let verdict = auth::verify(&damaged, care_of, home(), &association);
        // The checksum is the one field that the hash leaves out.
        assert_eq!(verdict.is_ok(), (32..48).contains(&bit), "bit {bit}: {verdict:?}");
    }
    let elsewhere = address(SECOND_CARE_OF);
    let mismatch = Err(AuthFailure::Mismatch);
    assert_eq!(auth::verify(&message, elsewhere, home(), &association), mismatch);
    let another = HomeAddress(elsewhere);
    assert_eq!(auth::verify(&message, care_of, another, &association), mismatch);
    let key = Secret::new(vec![1; 16]).unwrap();
    let other_key = SecurityAssociation::new(256, Algorithm::HmacSha1, key).unwrap();
    assert_eq!(auth::verify(&message, care_of, home(), &other_key), mismatch);
}

#[test]
fn ways_of_not_being_believed() {
    let unsigned = wire::emit(&Message::BindingUpdate(update(75, [])), &away(AGENT)).unwrap();
    let with = |of: Vec<MobilityOption>| {
        wire::emit(&Message::BindingUpdate(update(75, of)), &away(AGENT)).unwrap()
    };
    let option = |subtype, octets| {
        MobilityOption::from(Authentication { subtype, spi: 256, data: vec![0; octets] })
    };
    let mut padded = signed();
    padded[1] += 1;
    padded.extend_from_slice(&[1, 6, 0, 0, 0, 0, 0, 0]);
    let mut cut = signed();
    cut.truncate(48);
    let mut overrun = signed();
    overrun[38] += 1;
    let cases: Vec<(&str, Vec<u8>, AuthFailure, bool)> = vec![
        ("no octets", vec![], malformed(DecodeError::Truncated { needed: 8, found: 0 }), false),
        ("cut off", cut, malformed(DecodeError::Truncated { needed: 56, found: 48 }), false),
        ("option overruns", overrun, malformed(DecodeError::OptionOverrun { at: 37 }), false),
        ("no option", unsigned, AuthFailure::Missing, false),
        ("MN-AAA only", with(vec![option(2, 20)]), AuthFailure::Missing, false),
        ("padding behind", padded, AuthFailure::NotLast, false),
        (
            "option behind",
            with(vec![option(1, 12), bid(1, 0, None).into()]),
            AuthFailure::NotLast,
            false,
        ),
        ("MN-AAA behind", with(vec![option(1, 12), option(2, 20)]), AuthFailure::NotLast, false),
        ("two of them", with(vec![option(1, 12), option(1, 12)]), AuthFailure::NotLast, false),
        (
            "unknown SPI",
            with(vec![Authentication { subtype: 1, spi: 257, data: vec![0; 12] }.into()]),
            AuthFailure::UnknownSpi(257),
            false,
        ),
        ("data all zero", with(vec![option(1, 12)]), AuthFailure::Mismatch, true),
        ("data too short", with(vec![option(1, 4)]), AuthFailure::Mismatch, true),
        ("data missing", with(vec![option(1, 0)]), AuthFailure::Mismatch, true),
        ("data too long", with(vec![option(1, 20)]), AuthFailure::Mismatch, true),
    ];
    for (what, message, want, answered) in cases {
        let verdict = auth::verify(&message, address(CARE_OF), home(), &sha1_association());
        assert_eq!(verdict, Err(want), "{what}");
        assert_eq!(want.is_answered(), answered, "{what}");
    }
}

fn malformed(error: DecodeError) -> AuthFailure {
    AuthFailure::Malformed(error)
}

#[test]
fn which_care_of_address_is_signed() {
    let alternate =
        MobilityOption::from(AlternateCareOfAddress { address: address(SECOND_CARE_OF) });
    let with_address = MobilityOption::from(bid(2, 0, Some(SECOND_CARE_OF)));
    let at_home = BindingIdentifier { home: true, ..bid(3, 0, Some(HOME)) };
    let ipv4 = BindingIdentifier {
        care_of: Some(mtun_policy::CareOfAddress("192.0.2.1".parse().unwrap())),
        ..bid(4, 0, None)
    };
    let cases: Vec<(&str, Envelope, u16, Vec<MobilityOption>, &str)> = vec![
        ("no option", away(AGENT), 75, vec![], CARE_OF),
        ("alternate care-of address", away(AGENT), 75, vec![alternate.clone()], SECOND_CARE_OF),
        ("one BID with an address", away(AGENT), 75, vec![with_address.clone()], SECOND_CARE_OF),
        ("one BID without", away(AGENT), 75, vec![bid(1, 0, None).into()], CARE_OF),
        ("one BID with an IPv4 address", away(AGENT), 75, vec![ipv4.into()], CARE_OF),
        (
            "bulk",
            away(AGENT),
            75,
            vec![with_address.clone(), bid(1, 0, Some(CARE_OF)).into()],
            CARE_OF,
        ),
        ("home binding", away(AGENT), 75, vec![at_home.into()], HOME),
        ("de-registration from abroad", away(AGENT), 0, vec![], CARE_OF),
        (
            "de-registration of one BID from abroad",
            away(AGENT),
            0,
            vec![with_address.clone()],
            SECOND_CARE_OF,
        ),
        ("de-registration from home", plain(HOME, AGENT), 0, vec![], HOME),
        (
            "de-registration from home with an address",
            plain(HOME, AGENT),
            0,
            vec![with_address],
            HOME,
        ),
        ("de-registration from home, alternate", plain(HOME, AGENT), 0, vec![alternate], HOME),
    ];
    for (what, envelope, lifetime, of, want) in cases {
        let found = auth::care_of_address(&update(lifetime, of), &envelope);
        assert_eq!(found, address(want), "{what}");
    }
}

#[test]
fn the_claimed_spi_is_known_before_anything_else() {
    assert_eq!(auth::claimed_spi(&signed()), Ok(256));
    let unsigned = wire::emit(&Message::BindingUpdate(update(75, [])), &away(AGENT)).unwrap();
    assert_eq!(auth::claimed_spi(&unsigned), Err(AuthFailure::Missing));
}

#[test]
fn a_clock_of_1970_goes_out_as_it_is() {
    let envelope = away(AGENT);
    let message = Message::BindingUpdate(update(75, []));
    let lost = NtpTime::from_unix(Duration::from_secs(12));
    let sent = wire::emit_authenticated(
        &message,
        &envelope,
        address(CARE_OF),
        &sha256_association(),
        Some(lost),
    )
    .unwrap();
    assert_eq!(wire::receive(&envelope, &sent).unwrap().options().message_id(), Some(lost));
}

// req SE-12: keys stay out of what people read.
#[test]
fn keys_are_never_printed() {
    let association = sha1_association();
    let printed = format!("{association:?} {association:#?}");
    assert_eq!(
        format!("{association:?}"),
        "SecurityAssociation { spi: 256, algorithm: HmacSha1, .. }"
    );
    for digits in ["0011", "17, 34", "[0, 17", "aabb"] {
        assert!(!printed.contains(digits), "{printed}");
    }
}

#[test]
fn reserved_spis_and_short_keys_are_refused() {
    let key = || Secret::new(vec![1; 16]).unwrap();
    for spi in [0, 3, 255] {
        let made = SecurityAssociation::new(spi, Algorithm::HmacSha256, key());
        assert_eq!(made.err(), Some(ReservedSpi(spi)));
    }
    assert!(SecurityAssociation::new(256, Algorithm::HmacSha256, key()).is_ok());
    for (octets, accepted) in [(0, false), (15, false), (16, true), (64, true), (65, false)] {
        assert_eq!(Secret::new(vec![1; octets]).is_some(), accepted, "{octets} octets");
    }
    assert!(key() == key() && key() != Secret::new(vec![2; 16]).unwrap());
}

/// req SE-11.
#[test]
fn key_files() {
    let sha1 = "mtun-key-1 hmac-sha1 00112233445566778899aabbccddeeff\n";
    let sha256 = "mtun-key-1 hmac-sha256 \
                  000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
    for (text, want) in [(sha1, Algorithm::HmacSha1), (sha256, Algorithm::HmacSha256)] {
        let (algorithm, key) = auth::parse_key(text.as_bytes()).ok().unwrap();
        assert_eq!(algorithm, want);
        assert_eq!(auth::emit_key(algorithm, &key).as_slice(), text.as_bytes());
        assert!(auth::parse_key(text.trim_end().as_bytes()).is_ok(), "without the line feed");
        assert!(auth::parse_key(text.to_uppercase().as_bytes()).is_err());
    }
    let digits = "00112233445566778899AABBCCDDEEFF";
    assert!(auth::parse_key(format!("mtun-key-1 hmac-sha1 {digits}").as_bytes()).is_ok());

    let cases: &[(&str, &[u8], KeyFault)] = &[
        ("nothing", b"", KeyFault::Form),
        ("no text", b"\xff\xfe", KeyFault::Form),
        ("two words", b"mtun-key-1 hmac-sha1", KeyFault::Form),
        ("four words", b"mtun-key-1 hmac-sha1 00 00", KeyFault::Form),
        ("two lines", b"mtun-key-1 hmac-sha1 00\n\n", KeyFault::Form),
        ("carriage return", b"mtun-key-1 hmac-sha1 00\r\n", KeyFault::Form),
        ("another format", b"mtun-key-2 hmac-sha1 00", KeyFault::Format),
        ("unknown algorithm", b"mtun-key-1 md5 00", KeyFault::Algorithm),
        ("no digits", b"mtun-key-1 hmac-sha1 xy", KeyFault::Hexadecimal),
        ("odd digits", b"mtun-key-1 hmac-sha1 012", KeyFault::Hexadecimal),
        ("a sign", b"mtun-key-1 hmac-sha1 +1", KeyFault::Hexadecimal),
        ("no key", b"mtun-key-1 hmac-sha1 ", KeyFault::Length(0)),
        ("short", b"mtun-key-1 hmac-sha1 0011", KeyFault::Length(2)),
    ];
    for (what, text, want) in cases {
        assert_eq!(auth::parse_key(text).err(), Some(*want), "{what}");
    }
}
