//! Return routability against vectors, and against itself worked out a second time.
//!
//! The vectors were computed with `hmac` and `hashlib` of Python from the formulas of RFC 6275
//! §5.2.5 and §6.2.7; `scene::arithmetic` is a third opinion.

mod scene;
mod support;

use mtun_signaling::Envelope;
use mtun_signaling::return_routability::{
    AuthorizationFailure, BindingManagementKey, KeygenToken, NodeKey, Tested, verify,
};
use mtun_signaling::wire::option::{BindingAuthorizationData, NonceIndices};
use mtun_signaling::wire::{
    self, BindingAcknowledgement, BindingUpdate, BindingUpdateFlags, Lifetime, Message,
    MobilityOption, Options, Status,
};
use proptest::prelude::*;
use scene::arithmetic;
use support::{CARE_OF, CORRESPONDENT, HOME, address, away, bid, octets, plain, to_mobile};

const KCN: [u8; 20] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];
const NONCE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

fn tokens() -> (KeygenToken, KeygenToken) {
    let kcn = NodeKey::new(KCN);
    (
        kcn.keygen_token(address(HOME), NONCE, Tested::Home),
        kcn.keygen_token(address(CARE_OF), NONCE, Tested::CareOf),
    )
}

#[test]
fn keygen_tokens() {
    // CN-04, R-CN-02.
    let (home, care_of) = tokens();
    assert_eq!(home.octets()[..], octets("03d3d828b017a574"));
    assert_eq!(care_of.octets()[..], octets("4aec3a8ad4e875dc"));
    assert_eq!(home.octets(), arithmetic::keygen_token(&KCN, address(HOME), &NONCE, 0));
    assert_eq!(care_of.octets(), arithmetic::keygen_token(&KCN, address(CARE_OF), &NONCE, 1));
}

#[test]
fn the_second_opinion_knows_hmac_and_the_keys() {
    // RFC 2202 §3, cases 1 and 2.
    let cases: [(&[u8], &[u8], &str); 2] = [
        (&[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
        (b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
    ];
    for (key, text, want) in cases {
        assert_eq!(arithmetic::hmac_sha1(key, text)[..], octets(want));
    }
    let (home, care_of) = tokens();
    let kbm = arithmetic::registering(&home.octets(), &care_of.octets());
    assert_eq!(kbm[..], octets("40de2ebef4d9e7bdc71cf0bdcd6a116a91b67c60"));
    let kbm = arithmetic::deregistering(&home.octets());
    assert_eq!(kbm[..], octets("58909aebae61a8194dd743867cc230bb6d7d7fbb"));
}

fn update(sequence: u16, lifetime: Lifetime, options: Vec<MobilityOption>) -> Message {
    Message::BindingUpdate(BindingUpdate {
        sequence,
        flags: BindingUpdateFlags { acknowledge: true, ..Default::default() },
        lifetime,
        options: options.into(),
    })
}

#[test]
fn whole_updates() {
    // R-CN-11, MC-25.
    let (home, care_of) = tokens();
    let registering = BindingManagementKey::registering(&home, &care_of);
    let deregistering = BindingManagementKey::deregistering(&home);
    let indices = |care_of| MobilityOption::from(NonceIndices { home: 7, care_of });
    let named = MobilityOption::from(bid(1, 10, Some(CARE_OF)));
    let cases: [(&str, Envelope, Message, &str, &BindingManagementKey, &str); 3] = [
        (
            "one care-of address",
            away(CORRESPONDENT),
            update(0x1234, Lifetime(105), vec![indices(7)]),
            CARE_OF,
            &registering,
            "3b030500614f123480000069 040400070007 050cf39abd7ab79019239b0849f2",
        ),
        (
            "one of several",
            away(CORRESPONDENT),
            update(0x1235, Lifetime(105), vec![indices(7), named]),
            CARE_OF,
            &registering,
            "3b060500899e123580000069 040400070007
             23140001000a20010db8000200000000000000000002 0100 050c2ac8f793b1bd10174abbbd90",
        ),
        (
            "de-registered from home",
            plain(HOME, CORRESPONDENT),
            update(0x1236, Lifetime::ZERO, vec![indices(0)]),
            HOME,
            &deregistering,
            "3b0305009a8e123680000000 040400070000 050c77c038dd80bbd309d412557d",
        ),
    ];
    for (what, envelope, message, care_of, kbm, hex) in cases {
        let (care_of, correspondent) = (address(care_of), address(CORRESPONDENT));
        let written = wire::emit_authorized(&message, &envelope, care_of, correspondent, kbm);
        assert_eq!(written.as_deref(), Ok(&octets(hex)[..]), "{what}");
        assert_eq!(verify(&octets(hex), care_of, correspondent, kbm), Ok(()), "{what}");
    }
}

#[test]
fn an_acknowledgement_takes_the_addresses_of_its_update() {
    let (home, care_of) = tokens();
    let kbm = BindingManagementKey::registering(&home, &care_of);
    let message = Message::BindingAcknowledgement(BindingAcknowledgement {
        status: Status::ACCEPTED,
        key_mobility: false,
        router: false,
        sequence: 0x1234,
        lifetime: Lifetime(105),
        options: Options::new(),
    });
    let (care_of, correspondent) = (address(CARE_OF), address(CORRESPONDENT));
    let envelope = to_mobile(CORRESPONDENT);
    let written =
        wire::emit_authorized(&message, &envelope, care_of, correspondent, &kbm).expect("short");
    let key = octets("40de2ebef4d9e7bdc71cf0bdcd6a116a91b67c60").try_into().expect("20 octets");
    let want = arithmetic::authenticator(&key, care_of, correspondent, &written);
    assert_eq!(written[written.len() - 12..], want);
    assert_eq!(written.len() % 8, 0);
}

#[test]
fn what_is_no_authenticator() {
    // R-CN-03, CN-15, MN-24.
    let (home, care_of) = tokens();
    let kbm = BindingManagementKey::registering(&home, &care_of);
    let (care_of, correspondent) = (address(CARE_OF), address(CORRESPONDENT));
    let data = |length| BindingAuthorizationData { authenticator: vec![0; length] }.into();
    let plain = |options| wire::emit(&update(1, Lifetime(1), options), &away(CORRESPONDENT));
    let identifier = || bid(1, 0, None).into();
    let cases: [(&str, Vec<MobilityOption>, AuthorizationFailure); 5] = [
        ("none", vec![], AuthorizationFailure::Missing),
        ("wrong", vec![data(12)], AuthorizationFailure::Mismatch),
        ("an option behind it", vec![data(12), identifier()], AuthorizationFailure::NotLast),
        ("padding behind it", vec![data(11)], AuthorizationFailure::NotLast),
        ("another length", vec![data(20)], AuthorizationFailure::Length(20)),
    ];
    for (what, options, failure) in cases {
        let message = plain(options).expect("short");
        assert_eq!(verify(&message, care_of, correspondent, &kbm), Err(failure), "{what}");
    }
}

proptest! {
    /// CN-04: whatever goes in, both ways of working it out agree; and one bit more or less in
    /// message, addresses or tokens makes another authenticator.
    #[test]
    fn both_opinions_agree(
        kcn: [u8; 20], nonce: [u8; 8], home: u128, care_of: u128, correspondent: u128,
        sequence: u16, flip in 0..44_usize * 8,
    ) {
        let (home, care_of) = (home.into(), care_of.into());
        let correspondent = std::net::Ipv6Addr::from(correspondent);
        let key = NodeKey::new(kcn);
        let home_token = key.keygen_token(home, nonce, Tested::Home);
        let care_of_token = key.keygen_token(care_of, nonce, Tested::CareOf);
        prop_assert_eq!(home_token.octets(), arithmetic::keygen_token(&kcn, home, &nonce, 0));
        prop_assert_eq!(care_of_token.octets(), arithmetic::keygen_token(&kcn, care_of, &nonce, 1));
        let kbm = BindingManagementKey::registering(&home_token, &care_of_token);
        let by_hand = arithmetic::registering(&home_token.octets(), &care_of_token.octets());
        let indices = NonceIndices { home: 1, care_of: 2 };
        let named = bid(1, 0, None);
        let message = update(sequence, Lifetime(105), vec![indices.into(), named.into()]);
        let envelope = Envelope::plain(care_of, correspondent);
        let written = wire::emit_authorized(&message, &envelope, care_of, correspondent, &kbm)
            .expect("short");
        let want = arithmetic::authenticator(&by_hand, care_of, correspondent, &written);
        prop_assert_eq!(&written[written.len() - 12..], &want);
        prop_assert_eq!(verify(&written, care_of, correspondent, &kbm), Ok(()));
        let mut altered = written.clone();
        let bit = flip % (written.len() * 8);
        altered[bit / 8] ^= 1 << (bit % 8);
        // The checksum counts as zero; it has a check of its own.
        if !(4..6).contains(&(bit / 8)) {
            prop_assert!(verify(&altered, care_of, correspondent, &kbm).is_err());
        }
    }
}
