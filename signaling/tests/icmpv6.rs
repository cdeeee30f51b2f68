//! The ICMPv6 messages of Mobile IPv6: octets laid out by hand, checksums from a loop over 16-bit
//! words in Python, and any octets at all.

#[path = "support/icmpv6.rs"]
mod oracle;
mod support;

use mtun_signaling::Envelope;
use mtun_signaling::wire::icmpv6::{
    self, HomeAgentAddressDiscoveryReply, HomeAgentAddressDiscoveryRequest, IcmpError, IcmpMessage,
    MobilePrefixAdvertisement, MobilePrefixSolicitation, PrefixInformation,
};
use proptest::prelude::*;
use support::{AGENT, CARE_OF, address, away, octets, plain, to_mobile};

const ANYCAST: &str = "2001:db8:1:0:fdff:ffff:ffff:fffe";

fn prefix() -> PrefixInformation {
    PrefixInformation {
        prefix_len: 64,
        on_link: true,
        autonomous: true,
        router_address: true,
        valid: 86_400,
        preferred: 14_400,
        address: address(AGENT),
    }
}

fn whole() -> Vec<(&'static str, Envelope, IcmpMessage, &'static str)> {
    let request = |router| {
        IcmpMessage::HomeAgentAddressDiscoveryRequest(HomeAgentAddressDiscoveryRequest {
            identifier: 0x1234,
            router,
        })
    };
    vec![
        ("request", plain(CARE_OF, ANYCAST), request(false), "9000041312340000"),
        ("of a router", plain(CARE_OF, ANYCAST), request(true), "9000841212348000"),
        (
            "reply",
            plain(AGENT, CARE_OF),
            IcmpMessage::HomeAgentAddressDiscoveryReply(HomeAgentAddressDiscoveryReply {
                identifier: 0x1234,
                router: true,
                agents: vec![address(AGENT), address("2001:db8:1::fe")],
            }),
            "9100228112348000 20010db80001000000000000000000ff 20010db80001000000000000000000fe",
        ),
        (
            "solicitation, checked over the home address",
            away(AGENT),
            IcmpMessage::MobilePrefixSolicitation(MobilePrefixSolicitation { identifier: 0xabcd }),
            "9200657babcd0000",
        ),
        (
            "advertisement, checked over the home address",
            to_mobile(AGENT),
            IcmpMessage::MobilePrefixAdvertisement(MobilePrefixAdvertisement {
                identifier: 0xabcd,
                managed: true,
                other: true,
                prefixes: vec![prefix()],
            }),
            "9300a7fbabcdc000 030440e0 00015180 00003840 00000000 20010db80001000000000000000000ff",
        ),
    ]
}

#[test]
fn whole_messages() {
    // MN-27, MN-28.
    for (what, envelope, message, hex) in whole() {
        assert_eq!(icmpv6::emit(&message, &envelope), octets(hex), "{what}");
        assert_eq!(icmpv6::receive(&envelope, &octets(hex)), Ok(message), "{what}");
    }
}

#[test]
fn what_is_none_of_these_messages() {
    let cases: &[(&str, &str, IcmpError)] = &[
        ("nothing", "", IcmpError::Length(0)),
        ("cut in the fixed part", "90000000123400", IcmpError::Length(7)),
        ("an echo request", "8000000012340000", IcmpError::Type(128)),
        ("another code", "9001000012340000", IcmpError::Code(1)),
        ("half an address", "9100000012340000 20010db800010000", IcmpError::Length(16)),
        ("an option without a length", "9200000012340000 0100000000000000", IcmpError::Option(8)),
        ("an option past the end", "9300000012340000 0302000000000000", IcmpError::Option(8)),
        ("one octet of an option", "9300000012340000 03", IcmpError::Option(8)),
        (
            "a prefix option that is too short",
            "9300000012340000 0301000000000000",
            IcmpError::Option(8),
        ),
        (
            "a prefix of 129 bits",
            "9300000012340000 030481e0 00015180 00003840 00000000 20010db80001000000000000000000ff",
            IcmpError::Option(8),
        ),
    ];
    for (what, hex, error) in cases {
        assert_eq!(icmpv6::parse(&octets(hex)), Err(*error), "{what}");
    }
    let (_, envelope, _, hex) = &whole()[0];
    let mut spoiled = octets(hex);
    spoiled[7] ^= 1;
    assert_eq!(icmpv6::receive(envelope, &spoiled), Err(IcmpError::Checksum));
    let long = [&octets("9100000012340000")[..], &[0; 1_248]].concat();
    assert_eq!(icmpv6::parse(&long), Err(IcmpError::Length(1_256)));
}

#[test]
fn what_means_nothing_is_skipped() {
    // MN-28, HA-70: reserved bits, and options that nobody knows.
    let message = octets(
        "93000000abcdffff 0102000000000000 0000000000000000
         030440ff 00015180 00003840 ffffffff 20010db80001000000000000000000ff",
    );
    let Ok(IcmpMessage::MobilePrefixAdvertisement(read)) = icmpv6::parse(&message) else {
        panic!("an advertisement");
    };
    assert_eq!(read.prefixes, [prefix()]);
    assert_eq!(read.prefixes[0].prefix().to_string(), "2001:db8:1::/64");
    assert!(icmpv6::parse(&octets("9200000012340000 f801000000000000")).is_ok());
    assert!(icmpv6::parse(&octets("9000000012347fff")).is_ok());
}

#[test]
fn the_corpus_of_the_fuzz_target_holds() {
    let mut read = 0;
    for entry in std::fs::read_dir(support::file("../fuzz/corpus/icmpv6")).expect("in the tree") {
        let path = entry.expect("a readable entry").path();
        let octets = std::fs::read(&path).expect("a file of the corpus");
        let refused =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("refused"));
        assert_eq!(oracle::check(&octets), !refused, "{}", path.display());
        read += 1;
    }
    assert!(read >= 14, "only {read} files");
}

proptest! {
    /// What can be read is written and read again, and that changes nothing more.
    #[test]
    fn any_octets(kind in 143..149_u8, rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut message = vec![kind, 0, 0, 0];
        message.extend(rest);
        oracle::check(&message);
    }

    /// Options of the right shape too.
    #[test]
    fn any_options(
        flags: u8, options in prop::collection::vec((any::<u8>(), 1..6_u8, any::<u8>()), 0..8),
    ) {
        let mut message = vec![147, 0, 0, 0, 1, 2, flags, 0];
        for (kind, units, fill) in options {
            let mut option = vec![fill; usize::from(units) * 8];
            option[..2].copy_from_slice(&[if kind < 128 { 3 } else { kind }, units]);
            message.extend(option);
        }
        oracle::check(&message);
    }
}
