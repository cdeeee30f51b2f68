//! Messages worked out by hand, octet by octet, and read back.
//!
//! The octets were laid out from the RFCs' figures; checksums and authentication data come from
//! a second implementation in Python (`hmac`, `hashlib`, and a loop over 16-bit words).

mod support;

use mtun_policy::MobileNetworkPrefix;
use mtun_signaling::Envelope;
use mtun_signaling::wire::option::{
    BindingAuthorizationData, BindingIdentifier, BindingRefreshAdvice, MobileNetworkPrefixOption,
    NonceIndices,
};
use mtun_signaling::wire::{
    self, BindingAcknowledgement, BindingError, BindingRefreshRequest, BindingUpdate,
    BindingUpdateFlags, CareOfTest, CareOfTestInit, HomeTest, HomeTestInit, Lifetime, Message,
    Options, Status,
};
use support::{
    AGENT, CARE_OF, CORRESPONDENT, HOME, SECOND_CARE_OF, address, away, bid, octets, options,
    plain, to_mobile,
};

#[test]
fn whole_messages() {
    let cookie_a = [0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8];
    let cookie_b = [0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8];
    let acknowledge = BindingUpdateFlags { acknowledge: true, ..Default::default() };
    let cases: Vec<(&str, Envelope, Message, &str)> = vec![
        (
            "Binding Refresh Request",
            plain(AGENT, HOME),
            Message::BindingRefreshRequest(BindingRefreshRequest { options: Options::new() }),
            "3b000000 67fc0000",
        ),
        (
            "Binding Refresh Request for one binding",
            plain(AGENT, HOME),
            Message::BindingRefreshRequest(BindingRefreshRequest {
                options: options([bid(2, 0, None).into()]),
            }),
            "3b010000 43ed0000 230400020000 0100",
        ),
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
                    MobileNetworkPrefixOption::from(
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
        (
            "acknowledgement with refresh advice",
            to_mobile(AGENT),
            Message::BindingAcknowledgement(BindingAcknowledgement {
                status: Status::ACCEPTED,
                key_mobility: true,
                router: false,
                sequence: 0xfffe,
                lifetime: Lifetime(105),
                options: options([BindingRefreshAdvice { refresh_interval: 80 }.into()]),
            }),
            "3b010600 5eb90080 fffe0069 02020050",
        ),
    ];
    for (what, envelope, message, hex) in cases {
        let want = octets(hex);
        assert_eq!(wire::emit(&message, &envelope).as_deref(), Ok(&want[..]), "{what}");
        assert_eq!(wire::receive(&envelope, &want), Ok(message), "{what}");
    }
}
