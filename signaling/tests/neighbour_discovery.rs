//! Neighbour discovery: octets laid out by hand, checksums from a loop over 16-bit words in
//! Python, everything RFC 4861 §6.1 and §7.1 throw away, and any octets at all.

#[path = "support/neighbour_discovery.rs"]
mod oracle;
#[path = "../../tests/support/skip.rs"]
mod skip;
mod support;

use std::net::Ipv6Addr;
use std::process::Command;

use mtun_signaling::wire::icmpv6::neighbour_discovery::{
    self as neighbour, HomeAgentInformation, LinkLayerAddress, NeighbourAdvertisement,
    NeighbourMessage, NeighbourSolicitation, RouterAdvertisement, RouterSolicitation,
};
use mtun_signaling::wire::icmpv6::{IcmpError, PrefixInformation, checksum};
use proptest::prelude::*;
use support::{address, octets};

const HOME: &str = "2001:db8:100::42";
const GROUP: &str = "ff02::1:ff00:42";
const LINK_LAYER: LinkLayerAddress = LinkLayerAddress([2, 0, 0, 0, 0, 1]);

fn solicitation(source_link_layer: Option<LinkLayerAddress>) -> NeighbourMessage {
    let target = address(HOME);
    NeighbourMessage::NeighbourSolicitation(NeighbourSolicitation { target, source_link_layer })
}

fn advertisement(solicited: bool, overrides: bool) -> NeighbourMessage {
    NeighbourMessage::NeighbourAdvertisement(NeighbourAdvertisement {
        target: address(HOME),
        router: solicited,
        solicited,
        overrides,
        target_link_layer: Some(LINK_LAYER),
    })
}

fn router() -> NeighbourMessage {
    NeighbourMessage::RouterAdvertisement(RouterAdvertisement {
        hop_limit: 64,
        managed: true,
        other: true,
        home_agent: true,
        lifetime: 1800,
        reachable: 0,
        retransmit: 1000,
        source_link_layer: Some(LINK_LAYER),
        prefixes: vec![PrefixInformation {
            prefix_len: 64,
            on_link: true,
            autonomous: true,
            router_address: true,
            valid: 86_400,
            preferred: 14_400,
            address: address("2001:db8:100::1"),
        }],
        interval: Some(3000),
        information: Some(HomeAgentInformation {
            mobile_routers: true,
            preference: 10,
            lifetime: 900,
        }),
    })
}

/// Name, source, destination, message, octets.
fn whole() -> Vec<(&'static str, &'static str, &'static str, NeighbourMessage, &'static str)> {
    vec![
        (
            "looks for a duplicate",
            "::",
            GROUP,
            solicitation(None),
            "87004b6b00000000 20010db8010000000000000000000042",
        ),
        (
            "asks",
            "fe80::1",
            GROUP,
            solicitation(Some(LINK_LAYER)),
            "870049df00000000 20010db8010000000000000000000042 0101020000000001",
        ),
        (
            "announces",
            "2001:db8:100::1",
            "ff02::1",
            advertisement(false, true),
            "8800f6e920000000 20010db8010000000000000000000042 0201020000000001",
        ),
        (
            "answers",
            "2001:db8:100::1",
            "fe80::1",
            advertisement(true, false),
            "8800576bc0000000 20010db8010000000000000000000042 0201020000000001",
        ),
        (
            "asks routers",
            "fe80::1",
            "ff02::2",
            NeighbourMessage::RouterSolicitation(RouterSolicitation {
                source_link_layer: Some(LINK_LAYER),
            }),
            "85007a2c00000000 0101020000000001",
        ),
        (
            "a home agent says what it is",
            "fe80::1",
            "ff02::1",
            router(),
            "8600927c40e00708 00000000000003e8 0101020000000001 \
             030440e0000151800000384000000000 20010db8010000000000000000000001 \
             0701000000000bb8 08018000000a0384",
        ),
    ]
}

/// The octets with a right checksum.
fn summed(source: &str, destination: &str, hex: &str) -> Vec<u8> {
    let mut message = octets(hex);
    let sum = checksum(address(source), address(destination), &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn receive(source: &str, destination: &str, message: &[u8]) -> Result<NeighbourMessage, IcmpError> {
    neighbour::receive(address(source), address(destination), 255, message)
}

#[test]
fn messages_are_written_and_read_octet_for_octet() {
    for (name, source, destination, message, hex) in whole() {
        let written = neighbour::emit(&message, address(source), address(destination));
        assert_eq!(written, octets(hex), "{name}");
        assert_eq!(receive(source, destination, &written), Ok(message), "{name}");
    }
}

#[test]
fn what_has_crossed_a_router_is_nothing() {
    // HA-54: hop limit and checksum.
    for (name, source, destination, _, hex) in whole() {
        let (source, destination) = (address(source), address(destination));
        for hop_limit in [0, 1, 64, 254] {
            let read = neighbour::receive(source, destination, hop_limit, &octets(hex));
            assert_eq!(read, Err(IcmpError::HopLimit(hop_limit)), "{name}");
        }
        let mut spoiled = octets(hex);
        *spoiled.last_mut().unwrap() ^= 1;
        let read = neighbour::receive(source, destination, 255, &spoiled);
        assert_eq!(read, Err(IcmpError::Checksum), "{name}");
    }
}

#[test]
fn malformed_messages_are_refused_with_a_reason() {
    // HA-54 (RFC 4861 §6.1, §7.1).
    let target = "20010db8010000000000000000000042";
    let at_home = |hex: &str| format!("87000000 00000000 {target} {hex}");
    let announced = |flags: &str| format!("88000000 {flags}000000 {target}");
    let cases = [
        ("code", "fe80::1", GROUP, at_home("").replacen("8700", "8701", 1), IcmpError::Code(1)),
        ("too short", "fe80::1", GROUP, "87000000 00000000 2001".into(), IcmpError::Length(10)),
        (
            "option without length",
            "fe80::1",
            GROUP,
            at_home("0100020000000001"),
            IcmpError::Option(24),
        ),
        (
            "option past the end",
            "fe80::1",
            GROUP,
            at_home("0102020000000001"),
            IcmpError::Option(24),
        ),
        (
            "octets left over",
            "fe80::1",
            GROUP,
            at_home("0101020000000001 0101"),
            IcmpError::Option(32),
        ),
        (
            "a group as target",
            "fe80::1",
            GROUP,
            "87000000 00000000 ff020000000000000000000000000001".into(),
            IcmpError::Addresses,
        ),
        (
            "nobody asks with a link-layer address",
            "::",
            GROUP,
            at_home("0101020000000001"),
            IcmpError::Addresses,
        ),
        ("nobody asks one node", "::", HOME, at_home(""), IcmpError::Addresses),
        ("nobody asks all", "::", "ff02::1", at_home(""), IcmpError::Addresses),
        ("a group asks", "ff02::1", GROUP, at_home(""), IcmpError::Addresses),
        ("an answer to all", "fe80::1", "ff02::1", announced("40"), IcmpError::Addresses),
        ("nobody answers", "::", "ff02::1", announced("20"), IcmpError::Addresses),
        (
            "a router from afar",
            "2001:db8::1",
            "ff02::1",
            "86000000 40000708 00000000 00000000".into(),
            IcmpError::Addresses,
        ),
        (
            "half a router",
            "fe80::1",
            "ff02::1",
            "86000000 40000708 00000000".into(),
            IcmpError::Length(12),
        ),
        (
            "Home Agent Information of 16 octets",
            "fe80::1",
            "ff02::1",
            "86000000 40200708 0000000000000000 08020000000a0384 0000000000000000".into(),
            IcmpError::Option(16),
        ),
        ("an echo", "fe80::1", HOME, "80000000 00000000".into(), IcmpError::Type(128)),
    ];
    for (name, source, destination, hex, error) in cases {
        let message = summed(source, destination, &hex);
        assert_eq!(receive(source, destination, &message), Err(error), "{name}");
    }
}

#[test]
fn what_is_not_known_is_skipped() {
    // A nonce (RFC 3971), an unknown option, a second and a longer link-layer address.
    let target = "20010db8010000000000000000000042";
    let rest = "0e01010203040506 f001000000000000 0102000000000000 0000000000000000 \
                0101020000000001 0101020000000009";
    let message = summed("fe80::1", GROUP, &format!("87000000 ffffffff {target} {rest}"));
    assert_eq!(receive("fe80::1", GROUP, &message), Ok(solicitation(Some(LINK_LAYER))));
}

#[test]
fn a_message_has_a_bounded_number_of_options() {
    let rest = "0e01010203040506".repeat(65);
    let message = summed("fe80::1", "ff02::2", &format!("85000000 00000000 {rest}"));
    let length = message.len();
    assert_eq!(receive("fe80::1", "ff02::2", &message), Err(IcmpError::Length(length)));
}

#[test]
fn groups_and_their_link_layer_addresses() {
    assert_eq!(neighbour::solicited_node(address(HOME)), address(GROUP));
    let group = neighbour::solicited_node(address("2001:db8::12ab:cdef"));
    assert_eq!(group, address("ff02::1:ffab:cdef"));
    assert_eq!(LinkLayerAddress::of_group(group).to_string(), "33:33:ff:ab:cd:ef");
}

/// An independent reader finds every message whole and its checksum right.
#[test]
fn tshark_reads_every_message() {
    if !skip::runs(Command::new("tshark").arg("--version")) {
        return skip::skip("signaling neighbour discovery: tshark is not installed");
    }
    let cases = whole();
    let packets: Vec<Vec<u8>> = cases
        .iter()
        .map(|(_, source, destination, message, _)| {
            let octets = neighbour::emit(message, address(source), address(destination));
            let mut packet = support::packet_of(&support::plain(source, destination), 58, &octets);
            packet[7] = neighbour::HOP_LIMIT;
            packet
        })
        .collect();
    let capture = std::env::temp_dir().join(format!("mtun-neighbours-{}.pcap", std::process::id()));
    std::fs::write(&capture, support::write_capture(support::RAW_IPV6, &packets)).unwrap();
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&capture).args(["-n", "-T", "fields", "-E", "separator=/t"]);
    let keys = ["_ws.malformed", "_ws.expert.message", "icmpv6.type", "icmpv6.checksum.status"];
    keys.iter().for_each(|key| _ = tshark.args(["-e", key]));
    let output = tshark.output().expect("a program that was there a moment ago");
    std::fs::remove_file(&capture).unwrap();
    let text = String::from_utf8(output.stdout).expect("text");
    let want: Vec<String> = packets.iter().map(|packet| format!("\t\t{}\t1", packet[40])).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), want);
}

#[test]
fn the_corpus_of_the_fuzz_target_holds() {
    let mut read = 0;
    let folder = support::file("../fuzz/corpus/neighbour_discovery");
    for entry in std::fs::read_dir(folder).expect("in the tree") {
        let path = entry.expect("a readable entry").path();
        let octets = std::fs::read(&path).expect("a file of the corpus");
        let refused =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("refused"));
        assert_eq!(oracle::check(&octets), !refused, "{}", path.display());
        read += 1;
    }
    assert!(read >= 21, "only {read} files");
}

proptest! {
    #[test]
    fn any_octets_are_read_without_panic(
        mut message in proptest::collection::vec(any::<u8>(), 0..200),
        kind in 133_u8..=136,
        source in any::<u128>(),
        destination in any::<u128>(),
    ) {
        let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
        if message.len() >= 4 {
            message[..2].copy_from_slice(&[kind, 0]);
            message[2..4].fill(0);
            let sum = checksum(source, destination, &message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        if let Ok(read) = neighbour::receive(source, destination, 255, &message) {
            // What was understood is written again, and read as the same.
            let written = neighbour::emit(&read, source, destination);
            prop_assert_eq!(neighbour::receive(source, destination, 255, &written), Ok(read));
        }
    }
}
