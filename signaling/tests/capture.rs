//! Another implementation's registration, read field by field.
//!
//! `tests/fixtures/README.md` says what the capture holds.

mod support;

use std::net::Ipv6Addr;

use mtun_policy::HomeAddress;
use mtun_signaling::wire::option::{AlternateCareOfAddress, MobileNetworkPrefixOption};
use mtun_signaling::wire::{
    self, BindingAcknowledgement, BindingUpdate, BindingUpdateFlags, Lifetime, Message, Options,
    Status,
};
use mtun_signaling::{DecodeError, Envelope};
use support::{address, file, open, options, packet, read_capture};

const AGENT: &str = "2001:db8:1::1";
const HOME: &str = "2001:db8:1::100";
const CARE_OF: &str = "2001:db8:f:0:c32:73ff:fe57:a5a";

fn update(sequence: u16, lifetime: u16, of: Options) -> Message {
    let flags =
        BindingUpdateFlags { acknowledge: true, home: true, router: true, ..Default::default() };
    Message::BindingUpdate(BindingUpdate {
        sequence,
        flags,
        lifetime: Lifetime(lifetime),
        options: of,
    })
}

fn acknowledgement(sequence: u16, status: u8, router: bool, lifetime: u16) -> Message {
    Message::BindingAcknowledgement(BindingAcknowledgement {
        status: Status(status),
        key_mobility: false,
        router,
        sequence,
        lifetime: Lifetime(lifetime),
        options: Options::new(),
    })
}

#[test]
fn registration_of_another_mobile_router() {
    let capture = std::fs::read(file("../tests/fixtures/nemo-home-registration.pcap"))
        .expect("the capture is in the tree");
    let frames = read_capture(&capture);
    assert_eq!(frames.len(), 29);

    let home = Some(HomeAddress(address(HOME)));
    let out = Envelope { home_address: home, ..Envelope::plain(address(CARE_OF), address(AGENT)) };
    let back =
        Envelope { routing_header: home, ..Envelope::plain(address(AGENT), address(CARE_OF)) };
    let alternate = AlternateCareOfAddress { address: address(CARE_OF) };
    let prefix = MobileNetworkPrefixOption { prefix_len: 64, address: address("2001:db8:2::") };
    let registration = || options([alternate.into(), prefix.into()]);
    let cases = [
        (6, out, update(0xffbd, 149, registration())),
        (9, back, acknowledgement(0xffbd, 0, true, 149)),
        (10, out, update(0xffbe, 149, registration())),
        (11, back, acknowledgement(0xffbe, 0, true, 149)),
        (28, out, update(0xffbf, 0, options([alternate.into()]))),
        (29, back, acknowledgement(0xffbf, 131, false, 0)),
    ];
    for (number, want_envelope, want) in cases {
        // The Ethernet header has 14 octets.
        let (envelope, message) = open(&frames[number - 1][14..]).expect("a Mobility Header");
        assert_eq!(envelope, want_envelope, "frame {number}");
        assert_eq!(wire::receive(&envelope, message), Ok(want.clone()), "frame {number}");

        // Over the addresses of the IPv6 header alone the checksum is wrong.
        let bare = Envelope::plain(envelope.source, envelope.destination);
        assert_eq!(wire::receive(&bare, message), Err(DecodeError::Checksum), "frame {number}");

        // We align alike, so the octets are the same when we write it.
        assert_eq!(wire::emit(&want, &envelope).as_deref(), Ok(message), "frame {number}");
    }

    let others = frames.iter().filter(|frame| open(&frame[14..]).is_none()).count();
    assert_eq!(others, 29 - 6);
}

#[test]
fn packets_of_the_tests_open_to_what_went_in() {
    let message = wire::emit(&update(1, 1, Options::new()), &support::away(AGENT)).unwrap();
    let plain = Envelope::plain(Ipv6Addr::LOCALHOST, address(AGENT));
    for envelope in [plain, support::away(AGENT), support::to_mobile(AGENT)] {
        let packet = packet(&envelope, &message);
        assert_eq!(open(&packet), Some((envelope, &message[..])));
    }
}
