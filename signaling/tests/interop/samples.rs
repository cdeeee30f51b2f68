//! The messages that cross between us and the other readers and writers.

use mtun_policy::MobileNetworkPrefix;
use mtun_signaling::wire::option::{
    AlternateCareOfAddress, Authentication, BindingAuthorizationData, BindingIdentifier,
    BindingRefreshAdvice, MessageId, MobileNetworkPrefixOption, MobileNodeIdentifier, NonceIndices,
};
use mtun_signaling::wire::{
    self, BindingAcknowledgement, BindingError, BindingRefreshRequest, BindingUpdate,
    BindingUpdateFlags, CareOfTest, CareOfTestInit, HomeTest, HomeTestInit, Lifetime, Message,
    MobilityOption, Options, Status,
};
use mtun_signaling::{Envelope, NtpTime};

use crate::support::{
    AGENT, CARE_OF, CORRESPONDENT, HOME, SECOND_CARE_OF, address, away, bid, options, packet,
    plain, sha1_association, sha256_association, to_mobile,
};

const TIMESTAMP: NtpTime = NtpTime(0xee1c_b480_8000_0000);
const HOME_REGISTRATION: BindingUpdateFlags = BindingUpdateFlags {
    acknowledge: true,
    home: true,
    link_local: false,
    key_mobility: false,
    router: false,
    proxy: false,
    overwrite: false,
};

/// What an independent reader has to find: keys in its words, with all their values in order.
pub type Expected = &'static [(&'static str, &'static [&'static str])];

/// One packet of ours and what each reader has to find in it.
pub struct Sample {
    pub what: &'static str,
    pub packet: Vec<u8>,
    pub tshark: Expected,
    pub scapy: Expected,
}

fn sample(
    what: &'static str,
    envelope: Envelope,
    message: &Message,
    tshark: Expected,
    scapy: Expected,
) -> Sample {
    let octets = wire::emit(message, &envelope).expect(what);
    Sample { what, packet: packet(&envelope, &octets), tshark, scapy }
}

fn prefix() -> MobilityOption {
    let prefix = MobileNetworkPrefix::new("2001:db8:100:4200::/56".parse().unwrap()).unwrap();
    MobileNetworkPrefixOption::from(prefix).into()
}

pub fn samples() -> Vec<Sample> {
    let (cookie_a, cookie_b) = ([0xa1; 8], [0xb1; 8]);
    let (token_c, token_d) = ([0xc1; 8], [0xd1; 8]);
    let mut samples = vec![
        sample(
            "refresh request for one binding",
            plain(AGENT, HOME),
            &Message::BindingRefreshRequest(BindingRefreshRequest {
                options: options([bid(2, 0, None).into()]),
            }),
            &[("mip6.mhtype", &["0"]), ("mip6.bi.bid", &["2"])],
            &[
                ("class", &["MIP6MH_BRR"]),
                ("option", &["MIP6OptUnknown"]),
                ("MIP6OptUnknown.odata", &["00020000"]),
            ],
        ),
        sample(
            "home test init",
            plain(HOME, CORRESPONDENT),
            &Message::HomeTestInit(HomeTestInit { cookie: cookie_a, options: Options::new() }),
            &[("mip6.mhtype", &["1"]), ("mip6.hoti.cookie", &["0xa1a1a1a1a1a1a1a1"])],
            &[("class", &["MIP6MH_HoTI"]), ("cookie", &["a1a1a1a1a1a1a1a1"])],
        ),
        sample(
            "care-of test init for one binding",
            plain(CARE_OF, CORRESPONDENT),
            &Message::CareOfTestInit(CareOfTestInit {
                cookie: cookie_b,
                options: options([bid(1, 0, None).into()]),
            }),
            &[
                ("mip6.mhtype", &["2"]),
                ("mip6.coti.cookie", &["0xb1b1b1b1b1b1b1b1"]),
                ("mip6.bi.bid", &["1"]),
            ],
            &[
                ("class", &["MIP6MH_CoTI"]),
                ("cookie", &["b1b1b1b1b1b1b1b1"]),
                ("MIP6OptUnknown.odata", &["00010000"]),
            ],
        ),
        sample(
            "home test",
            plain(CORRESPONDENT, HOME),
            &Message::HomeTest(HomeTest {
                nonce_index: 7,
                cookie: cookie_a,
                token: token_c,
                options: Options::new(),
            }),
            &[
                ("mip6.mhtype", &["3"]),
                ("mip6.hot.nindex", &["7"]),
                ("mip6.hot.cookie", &["0xa1a1a1a1a1a1a1a1"]),
                ("mip6.hot.token", &["0xc1c1c1c1c1c1c1c1"]),
            ],
            &[
                ("class", &["MIP6MH_HoT"]),
                ("index", &["7"]),
                ("cookie", &["a1a1a1a1a1a1a1a1"]),
                ("token", &["c1c1c1c1c1c1c1c1"]),
            ],
        ),
        sample(
            "care-of test for one binding",
            plain(CORRESPONDENT, CARE_OF),
            &Message::CareOfTest(CareOfTest {
                nonce_index: 9,
                cookie: cookie_b,
                token: token_d,
                options: options([
                    BindingIdentifier { status: Status(166), ..bid(1, 0, None) }.into()
                ]),
            }),
            &[
                ("mip6.mhtype", &["4"]),
                ("mip6.cot.nindex", &["9"]),
                ("mip6.cot.cookie", &["0xb1b1b1b1b1b1b1b1"]),
                // The dissector has one name for the tokens of both tests.
                ("mip6.hot.token", &["0xd1d1d1d1d1d1d1d1"]),
                ("mip6.bi.bid", &["1"]),
                ("mip6.bi.status", &["166"]),
            ],
            &[
                ("class", &["MIP6MH_CoT"]),
                ("index", &["9"]),
                ("token", &["d1d1d1d1d1d1d1d1"]),
                ("MIP6OptUnknown.odata", &["0001a600"]),
            ],
        ),
        sample(
            "unprotected registration of a router with one care-of address",
            away(AGENT),
            &Message::BindingUpdate(BindingUpdate {
                sequence: 0x1234,
                flags: BindingUpdateFlags {
                    link_local: true,
                    key_mobility: true,
                    router: true,
                    ..HOME_REGISTRATION
                },
                lifetime: Lifetime(105),
                options: options([
                    AlternateCareOfAddress { address: address(CARE_OF) }.into(),
                    prefix(),
                ]),
            }),
            &[
                ("mip6.mhtype", &["5"]),
                ("mip6.bu.seqnr", &["4660"]),
                ("mip6.bu.a_flag", &["1"]),
                ("mip6.bu.h_flag", &["1"]),
                ("mip6.bu.l_flag", &["1"]),
                ("mip6.bu.k_flag", &["1"]),
                ("mip6.nemo.bu.r_flag", &["1"]),
                ("mip6.bu.lifetime", &["105"]),
                ("mip6.acoa.acoa", &[CARE_OF]),
                ("mip6.nemo.mnp.pfl", &["56"]),
                ("mip6.nemo.mnp.mnp", &["2001:db8:100:4200::"]),
            ],
            &[
                ("class", &["MIP6MH_BU"]),
                ("seq", &["4660"]),
                ("flags", &["RKLHA"]),
                ("mhtime", &["105"]),
                ("option", &["MIP6OptAltCoA", "MIP6OptMobNetPrefix"]),
                ("MIP6OptAltCoA.acoa", &[CARE_OF]),
                ("MIP6OptMobNetPrefix.plen", &["56"]),
                ("MIP6OptMobNetPrefix.prefix", &["2001:db8:100:4200::"]),
            ],
        ),
        sample(
            "update at a correspondent",
            away(CORRESPONDENT),
            &Message::BindingUpdate(BindingUpdate {
                sequence: 2,
                flags: BindingUpdateFlags { acknowledge: true, ..Default::default() },
                lifetime: Lifetime(105),
                options: options([
                    NonceIndices { home: 7, care_of: 9 }.into(),
                    BindingAuthorizationData { authenticator: (1..=12).collect() }.into(),
                ]),
            }),
            &[
                ("mip6.mhtype", &["5"]),
                ("mip6.bu.h_flag", &["0"]),
                ("mip6.ni.hni", &["7"]),
                ("mip6.ni.cni", &["9"]),
                ("mip6.bad.auth", &["0102030405060708090a0b0c"]),
            ],
            &[
                ("class", &["MIP6MH_BU"]),
                ("flags", &["A"]),
                ("option", &["MIP6OptNonceIndices", "MIP6OptBindingAuthData"]),
                ("MIP6OptNonceIndices.hni", &["7"]),
                ("MIP6OptNonceIndices.coni", &["9"]),
                ("MIP6OptBindingAuthData.authenticator", &["0x102030405060708090a0b0c"]),
            ],
        ),
        sample(
            "acknowledgement with refresh advice",
            to_mobile(AGENT),
            &Message::BindingAcknowledgement(BindingAcknowledgement {
                status: Status::ACCEPTED,
                key_mobility: true,
                router: true,
                sequence: 0x1234,
                lifetime: Lifetime(100),
                options: options([BindingRefreshAdvice { refresh_interval: 80 }.into()]),
            }),
            &[
                ("mip6.mhtype", &["6"]),
                ("mip6.ba.status", &["0"]),
                ("mip6.ba.k_flag", &["1"]),
                ("mip6.nemo.ba.r_flag", &["1"]),
                ("mip6.ba.seqnr", &["4660"]),
                ("mip6.ba.lifetime", &["100"]),
                ("mip6.bra.interval", &["80"]),
            ],
            &[
                ("class", &["MIP6MH_BA"]),
                ("status", &["0"]),
                ("flags", &["RK"]),
                ("seq", &["4660"]),
                ("mhtime", &["100"]),
                ("MIP6OptBRAdvice.rinter", &["80"]),
            ],
        ),
        sample(
            "binding error",
            plain(CORRESPONDENT, CARE_OF),
            &Message::BindingError(BindingError {
                status: 2,
                home_address: address(HOME),
                options: Options::new(),
            }),
            &[("mip6.mhtype", &["7"]), ("mip6.be.status", &["2"]), ("mip6.be.haddr", &[HOME])],
            &[("class", &["MIP6MH_BE"]), ("status", &["2"]), ("ha", &[HOME])],
        ),
    ];
    samples.extend(protected());
    samples
}

/// What a protected home registration is made of.
fn protected() -> Vec<Sample> {
    let bulk = Message::BindingUpdate(BindingUpdate {
        sequence: 7,
        flags: BindingUpdateFlags { router: true, overwrite: true, ..HOME_REGISTRATION },
        lifetime: Lifetime(105),
        options: options([
            prefix(),
            BindingIdentifier { home: true, ..bid(1, 10, Some(CARE_OF)) }.into(),
            bid(2, 20, Some(SECOND_CARE_OF)).into(),
            BindingIdentifier {
                care_of: Some(mtun_policy::CareOfAddress("192.0.2.9".parse().unwrap())),
                ..bid(3, 30, None)
            }
            .into(),
        ]),
    });
    let acknowledgement = Message::BindingAcknowledgement(BindingAcknowledgement {
        status: Status::MCOA_NOT_COMPLETE,
        key_mobility: false,
        router: true,
        sequence: 7,
        lifetime: Lifetime(105),
        options: options([
            bid(1, 10, None).into(),
            BindingIdentifier { status: Status(129), ..bid(2, 20, None) }.into(),
        ]),
    });
    let leaving = Message::BindingUpdate(BindingUpdate {
        sequence: 8,
        flags: HOME_REGISTRATION,
        lifetime: Lifetime::ZERO,
        options: options([MobileNodeIdentifier::nai("bus-7@example.com").into()]),
    });
    let sign = |envelope: &Envelope, message, care_of, association| {
        let octets =
            wire::emit_authenticated(message, envelope, care_of, association, Some(TIMESTAMP));
        packet(envelope, &octets.expect("a short message"))
    };
    let care_of = address(CARE_OF);
    let (ours, theirs) = (sha256_association(), sha1_association());
    vec![
        Sample {
            what: "bulk registration of a router",
            packet: sign(&away(AGENT), &bulk, care_of, &ours),
            tshark: &[
                ("mip6.mhtype", &["5"]),
                ("mip6.bu.seqnr", &["7"]),
                ("mip6.bu.b_flag", &["1"]),
                ("mip6.nemo.mnp.mnp", &["2001:db8:100:4200::"]),
                ("mip6.bi.bid", &["1", "2", "3"]),
                ("mip6.bi.h_flag", &["1", "0", "0"]),
                ("mip6.bi.coa_ipv6", &[CARE_OF, SECOND_CARE_OF]),
                ("mip6.bi.coa_ipv4", &["192.0.2.9"]),
                ("mip6.auth.subtype", &["1"]),
                ("mip6.auth.mobility_spi", &["4097"]),
            ],
            scapy: &[
                ("class", &["MIP6MH_BU"]),
                ("flags", &["RHA"]),
                // Bit 9 of the flags: scapy has no name for O, it is 0x40 of the nine reserved.
                ("reserved", &["64"]),
                (
                    "option",
                    &[
                        "MIP6OptMobNetPrefix",
                        "MIP6OptUnknown",
                        "MIP6OptUnknown",
                        "MIP6OptUnknown",
                        "MIP6OptReplayProtection",
                        "MIP6OptMsgAuth",
                    ],
                ),
                (
                    "MIP6OptUnknown.odata",
                    &[
                        "0001008a20010db8000200000000000000000002",
                        "0002001420010db8000300000000000000000003",
                        "0003001ec0000209",
                    ],
                ),
                ("MIP6OptMsgAuth.mspi", &["4097"]),
                ("authentication", &["good"]),
            ],
        },
        Sample {
            what: "its acknowledgement",
            packet: sign(&to_mobile(AGENT), &acknowledgement, care_of, &ours),
            tshark: &[
                ("mip6.mhtype", &["6"]),
                ("mip6.ba.status", &["4"]),
                ("mip6.bi.bid", &["1", "2"]),
                ("mip6.bi.status", &["0", "129"]),
                ("mip6.auth.mobility_spi", &["4097"]),
            ],
            scapy: &[
                ("class", &["MIP6MH_BA"]),
                ("status", &["4"]),
                ("flags", &["R"]),
                ("MIP6OptUnknown.odata", &["0001000a", "00028114"]),
                ("MIP6OptMsgAuth.mspi", &["4097"]),
                ("authentication", &["good"]),
            ],
        },
        Sample {
            what: "de-registration from home",
            packet: sign(&plain(HOME, AGENT), &leaving, address(HOME), &theirs),
            tshark: &[
                ("mip6.mhtype", &["5"]),
                ("mip6.bu.lifetime", &["0"]),
                ("mip6.mnid.subtype", &["1"]),
                ("mip6.mnid.identifier", &["bus-7@example.com"]),
                ("mip6.auth.subtype", &["1"]),
                ("mip6.auth.mobility_spi", &["256"]),
            ],
            scapy: &[
                ("class", &["MIP6MH_BU"]),
                ("mhtime", &["0"]),
                ("option", &["MIP6OptMNID", "MIP6OptReplayProtection", "MIP6OptMsgAuth"]),
                ("MIP6OptMsgAuth.subtype", &["1"]),
                ("MIP6OptMsgAuth.mspi", &["256"]),
                ("authentication", &["good"]),
            ],
        },
    ]
}

/// The messages of `interop/write.py`.
pub fn scapys() -> Vec<(&'static str, Envelope, Message)> {
    let update = |sequence, flags, lifetime, of: Vec<MobilityOption>| {
        Message::BindingUpdate(BindingUpdate {
            sequence,
            flags,
            lifetime: Lifetime(lifetime),
            options: options(of),
        })
    };
    vec![
        (
            "refresh request",
            plain(AGENT, HOME),
            Message::BindingRefreshRequest(BindingRefreshRequest::default()),
        ),
        (
            "home test init",
            plain(HOME, CORRESPONDENT),
            Message::HomeTestInit(HomeTestInit { cookie: [0xa1; 8], options: Options::new() }),
        ),
        (
            "care-of test init",
            plain(CARE_OF, CORRESPONDENT),
            Message::CareOfTestInit(CareOfTestInit { cookie: [0xb1; 8], options: Options::new() }),
        ),
        (
            "home test",
            plain(CORRESPONDENT, HOME),
            Message::HomeTest(HomeTest {
                nonce_index: 7,
                cookie: [0xa1; 8],
                token: [0xc1; 8],
                options: Options::new(),
            }),
        ),
        (
            "care-of test",
            plain(CORRESPONDENT, CARE_OF),
            Message::CareOfTest(CareOfTest {
                nonce_index: 9,
                cookie: [0xb1; 8],
                token: [0xd1; 8],
                options: Options::new(),
            }),
        ),
        (
            "registration of a router",
            away(AGENT),
            update(
                0x1234,
                BindingUpdateFlags { router: true, ..HOME_REGISTRATION },
                105,
                vec![
                    AlternateCareOfAddress { address: address(CARE_OF) }.into(),
                    prefix(),
                    MobileNodeIdentifier::nai("bus-7@example.com").into(),
                    MessageId { timestamp: NtpTime(0) }.into(),
                    Authentication { subtype: 1, spi: 0x1001, data: vec![0xee; 12] }.into(),
                ],
            ),
        ),
        (
            "registration of two care-of addresses",
            away(AGENT),
            update(
                1,
                HOME_REGISTRATION,
                105,
                vec![bid(1, 10, Some(CARE_OF)).into(), bid(2, 20, Some(SECOND_CARE_OF)).into()],
            ),
        ),
        (
            "binding at a correspondent",
            away(CORRESPONDENT),
            update(
                2,
                BindingUpdateFlags { acknowledge: true, ..Default::default() },
                105,
                vec![
                    NonceIndices { home: 7, care_of: 9 }.into(),
                    BindingAuthorizationData { authenticator: (1..=12).collect() }.into(),
                ],
            ),
        ),
        ("de-registration from home", plain(HOME, AGENT), update(3, HOME_REGISTRATION, 0, vec![])),
        (
            "acknowledgement",
            to_mobile(AGENT),
            Message::BindingAcknowledgement(BindingAcknowledgement {
                status: Status::MCOA_NOT_COMPLETE,
                key_mobility: false,
                router: true,
                sequence: 1,
                lifetime: Lifetime(100),
                options: options([
                    BindingRefreshAdvice { refresh_interval: 80 }.into(),
                    BindingIdentifier { status: Status(129), ..bid(2, 20, None) }.into(),
                ]),
            }),
        ),
        (
            "binding error",
            plain(CORRESPONDENT, CARE_OF),
            Message::BindingError(BindingError {
                status: 2,
                home_address: address(HOME),
                options: Options::new(),
            }),
        ),
    ]
}
