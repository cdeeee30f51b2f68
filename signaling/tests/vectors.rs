//! Messages worked out by hand, octet by octet, and read back.
//!
//! The octets were laid out from the RFCs' figures; checksums and authentication data come from
//! a second implementation in Python (`hmac`, `hashlib`, and a loop over 16-bit words).

use std::net::Ipv6Addr;

use mtun_policy::{Bid, HomeAddress, MobileNetworkPrefix};
use mtun_signaling::Envelope;
use mtun_signaling::auth::{self, Algorithm, AuthFailure, Secret, SecurityAssociation};
use mtun_signaling::wire::option::{
    Authentication, BindingAuthorizationData, BindingIdentifier, MobileNodeIdentifier, NonceIndices,
};
use mtun_signaling::wire::{
    self, BindingAcknowledgement, BindingError, BindingUpdate, BindingUpdateFlags, CareOfTest,
    CareOfTestInit, HomeTest, HomeTestInit, Lifetime, Message, Options, Status,
};

const HOME: &str = "2001:db8:1::1";
const CARE_OF: &str = "2001:db8:2::2";
const SECOND_CARE_OF: &str = "2001:db8:3::3";
const CORRESPONDENT: &str = "2001:db8:9::9";
const AGENT: &str = "2001:db8:1::ff";

fn address(text: &str) -> Ipv6Addr {
    text.parse().expect("an address of this table")
}

fn plain(source: &str, destination: &str) -> Envelope {
    Envelope::plain(address(source), address(destination))
}

fn away(destination: &str) -> Envelope {
    Envelope { home_address: Some(HomeAddress(address(HOME))), ..plain(CARE_OF, destination) }
}

fn to_mobile(source: &str) -> Envelope {
    Envelope { routing_header: Some(HomeAddress(address(HOME))), ..plain(source, CARE_OF) }
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|octet| !octet.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn bid(number: u16, priority: u8, care_of: Option<&str>) -> BindingIdentifier {
    BindingIdentifier {
        priority,
        care_of: care_of.map(|text| address(text).into()),
        ..BindingIdentifier::new(Bid::new(number).unwrap())
    }
}

fn options(of: impl IntoIterator<Item = mtun_signaling::wire::MobilityOption>) -> Options {
    of.into_iter().collect()
}

#[test]
fn whole_messages() {
    let cookie_a = [0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8];
    let cookie_b = [0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8];
    let acknowledge = BindingUpdateFlags { acknowledge: true, ..Default::default() };
    let cases: Vec<(&str, Envelope, Message, &str)> = vec![
        (
            "Home Test Init",
            plain(HOME, CORRESPONDENT),
            Message::HomeTestInit(HomeTestInit { cookie: cookie_a, options: Options::new() }),
            "3b010100 d54a0000 a1a2a3a4a5a6a7a8",
        ),
        (
            "Home Test",
            plain(CORRESPONDENT, HOME),
            Message::HomeTest(HomeTest {
                nonce_index: 7,
                cookie: cookie_a,
                token: [0x03, 0xd3, 0xd8, 0x28, 0xb0, 0x17, 0xa5, 0x74],
                options: Options::new(),
            }),
            "3b020300 a1b20007 a1a2a3a4a5a6a7a8 03d3d828b017a574",
        ),
        (
            "Care-of Test Init",
            plain(CARE_OF, CORRESPONDENT),
            Message::CareOfTestInit(CareOfTestInit { cookie: cookie_b, options: Options::new() }),
            "3b010200 94080000 b1b2b3b4b5b6b7b8",
        ),
        (
            "Care-of Test",
            plain(CORRESPONDENT, CARE_OF),
            Message::CareOfTest(CareOfTest {
                nonce_index: 7,
                cookie: cookie_b,
                token: [0x4a, 0xec, 0x3a, 0x8a, 0xd4, 0xe8, 0x75, 0xdc],
                options: Options::new(),
            }),
            "3b020400 c1bc0007 b1b2b3b4b5b6b7b8 4aec3a8ad4e875dc",
        ),
        (
            "Binding Error",
            plain(CORRESPONDENT, CARE_OF),
            Message::BindingError(BindingError {
                status: 1,
                home_address: address(HOME),
                options: Options::new(),
            }),
            "3b020700 331b0100 20010db8000100000000000000000001",
        ),
        (
            "Binding Update to a correspondent",
            away(CORRESPONDENT),
            Message::BindingUpdate(BindingUpdate {
                sequence: 0x1234,
                flags: acknowledge,
                lifetime: Lifetime(105),
                options: options([
                    NonceIndices { home: 7, care_of: 7 }.into(),
                    BindingAuthorizationData { authenticator: octets("f39abd7ab79019239b0849f2") }
                        .into(),
                ]),
            }),
            "3b030500 614f1234 80000069 040400070007 050cf39abd7ab79019239b0849f2",
        ),
        (
            "Binding Update to a correspondent, one BID with its address",
            away(CORRESPONDENT),
            Message::BindingUpdate(BindingUpdate {
                sequence: 0x1235,
                flags: acknowledge,
                lifetime: Lifetime(105),
                options: options([
                    NonceIndices { home: 7, care_of: 7 }.into(),
                    bid(1, 10, Some(CARE_OF)).into(),
                    BindingAuthorizationData { authenticator: octets("2ac8f793b1bd10174abbbd90") }
                        .into(),
                ]),
            }),
            "3b060500 899e1235 80000069 040400070007
             23140001000a20010db8000200000000000000000002 0100 050c2ac8f793b1bd10174abbbd90",
        ),
        (
            "bulk registration of a mobile router",
            away(AGENT),
            Message::BindingUpdate(BindingUpdate {
                sequence: 1,
                flags: BindingUpdateFlags {
                    acknowledge: true,
                    home: true,
                    router: true,
                    overwrite: true,
                    ..Default::default()
                },
                lifetime: Lifetime(150),
                options: options([
                    wire::option::MobileNetworkPrefixOption::from(
                        MobileNetworkPrefix::new("2001:db8:100::/48".parse().unwrap()).unwrap(),
                    )
                    .into(),
                    bid(1, 10, Some(CARE_OF)).into(),
                    bid(2, 20, Some(SECOND_CARE_OF)).into(),
                ]),
            }),
            "3b090500 c5120001 c4400096 0612003020010db8010000000000000000000000 0100
             23140001000a20010db8000200000000000000000002 0100
             23140002001420010db8000300000000000000000003",
        ),
        (
            "its acknowledgement, one of two refused",
            to_mobile(AGENT),
            Message::BindingAcknowledgement(BindingAcknowledgement {
                status: Status::MCOA_NOT_COMPLETE,
                key_mobility: false,
                router: true,
                sequence: 1,
                lifetime: Lifetime(150),
                options: options([
                    bid(1, 10, None).into(),
                    BindingIdentifier { status: Status(129), ..bid(2, 20, None) }.into(),
                ]),
            }),
            "3b020600 95e90440 00010096 23040001000a 230400028114",
        ),
    ];
    for (what, envelope, message, hex) in cases {
        let want = octets(hex);
        assert_eq!(wire::emit(&message, &envelope).as_deref(), Ok(&want[..]), "{what}");
        assert_eq!(wire::receive(&envelope, &want), Ok(message), "{what}");
    }
}

#[test]
fn authenticated_update_of_rfc_4285() {
    let key = Secret::new(octets("00112233445566778899aabbccddeeff")).unwrap();
    let association = SecurityAssociation::new(256, Algorithm::HmacSha1, key).unwrap();
    let flags = BindingUpdateFlags { acknowledge: true, home: true, ..Default::default() };
    let mut update = BindingUpdate {
        sequence: 42,
        flags,
        lifetime: Lifetime(75),
        options: options([MobileNodeIdentifier::nai("mn1@example.com").into()]),
    };
    let envelope = away(AGENT);
    let care_of = auth::care_of_address(&update, &envelope);
    assert_eq!(care_of, address(CARE_OF));
    let sent = wire::emit_authenticated(
        &Message::BindingUpdate(update.clone()),
        &envelope,
        care_of,
        &association,
        None,
    )
    .unwrap();
    // The authentication option starts at 37 = 8n+5; the 44 octets before its data are covered.
    let want = octets(
        "3b060500 a4bc002a c000004b 0810016d6e31406578616d706c652e636f6d 01050000000000
         091101000001009f40ac1e94b20bc71d53393d",
    );
    assert_eq!(sent, want);

    let home = HomeAddress(address(HOME));
    assert_eq!(auth::claimed_spi(&want), Ok(256));
    assert_eq!(auth::verify(&want, care_of, home, &association).map(|proof| proof.spi()), Ok(256));
    let elsewhere = address(SECOND_CARE_OF);
    assert_eq!(
        auth::verify(&want, elsewhere, home, &association),
        Err(AuthFailure::Mismatch),
        "another care-of address"
    );
    update.options.push(Authentication {
        subtype: 1,
        spi: 256,
        data: octets("9f40ac1e94b20bc71d53393d"),
    });
    assert_eq!(wire::receive(&envelope, &want), Ok(Message::BindingUpdate(update)));
}
