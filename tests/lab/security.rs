//! What must not get in: foreign and spoofed packets, wrong keys; and what must, a wrong clock.

use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, SystemTime};

use mtun::lab::daemons::{Side, cached, new_key, registered};
use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE, ipv6};
use crate::ground::inject;
use crate::need_lab;

const PORT: u16 = 7777;

/// A UDP packet whose payload is `mark`.
fn udp(source: Ipv6Addr, destination: Ipv6Addr, mark: u8) -> Vec<u8> {
    let length = 9u16;
    let mut datagram = [PORT.to_be_bytes(), PORT.to_be_bytes()].concat();
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0, mark]);
    let mut sum: u32 = u32::from(length) + 17;
    let octets = [source.octets().as_slice(), &destination.octets(), &datagram, &[0]].concat();
    for pair in octets.chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    datagram[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    ipv6(17, source, destination, &datagram)
}

fn listener(namespace: &Namespace) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// req TN-01, TN-02.
#[test]
fn the_agent_drops_and_counts_foreign_and_spoofed_packets() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let (cn, agent) = (address::CORRESPONDENT, address::AGENT);
    let stranger: Ipv6Addr = "2001:db8:1::66".parse().unwrap();
    let other: Ipv6Addr = "2001:db8:100::77".parse().unwrap();
    let cases = [
        ("an unregistered outer source", stranger, address::HOME, "not-care-of", 1),
        ("a spoofed inner source", address::WLAN, other, "inner-unknown", 2),
        (
            "a prefix that is not registered",
            address::WLAN,
            "2001:db8:100:4300::1".parse().unwrap(),
            "inner-unknown",
            3,
        ),
    ];
    let arrivals = listener(&lab.world.cn);
    for (what, outer, inner, reason, mark) in cases {
        let before = Lab::drops(lab.agent(), reason);
        inject(&lab.world.wlan, &ipv6(41, outer, agent, &udp(inner, cn, mark)));
        let counted = wait_for(what, PATIENCE, || {
            (Lab::drops(lab.agent(), reason) == before + 1).then_some(())
        });
        assert!(counted.is_ok(), "{what}: {:?}", Lab::metrics(lab.agent()).drops);
    }
    // The same packet with registered addresses gets through, so nothing else was wrong with it.
    inject(&lab.world.wlan, &ipv6(41, address::WLAN, agent, &udp(address::HOME, cn, 9)));
    let mut payload = [0; 16];
    let (length, from) = arrivals.recv_from(&mut payload).unwrap();
    assert_eq!((&payload[..length], from.ip()), ([9].as_slice(), address::HOME.into()));
}

/// req TN-01.
#[test]
fn the_mobile_takes_tunnelled_packets_from_its_agent_only() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let cn = address::CORRESPONDENT;
    let before = Lab::drops(lab.mobile(), "not-home-agent");
    inject(&lab.world.cn, &ipv6(41, cn, address::WLAN, &udp(cn, address::HOME, 1)));
    let counted = wait_for("the drop", PATIENCE, || {
        (Lab::drops(lab.mobile(), "not-home-agent") == before + 1).then_some(())
    });
    assert!(counted.is_ok(), "{:?}", Lab::metrics(lab.mobile()).drops);
    lab.assert_clean();
}

/// An ICMPv6 socket that hears what comes to the namespace.
fn errors(namespace: &Namespace) -> UdpSocket {
    let socket = namespace.run(|| {
        // SAFETY: socket makes a descriptor or fails.
        let raw = unsafe { libc::socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6) };
        assert!(raw >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the descriptor was just made and belongs to nobody else.
        UdpSocket::from(unsafe { OwnedFd::from_raw_fd(raw) })
    });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// req MH-01 (RFC 6275 §9.2): a Mobility Header with something behind it, to either end.
#[test]
fn the_sender_of_a_broken_message_is_told_where() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let cn = address::CORRESPONDENT;
    for ours in [address::AGENT, address::WLAN] {
        let mut message = vec![6, 1, 5, 0, 0, 0, 0, 1, 0xc0, 0, 0, 105, 1, 2, 0, 0];
        let sum = mtun_signaling::wire::checksum(cn, ours, &message);
        message[4..6].copy_from_slice(&sum.to_be_bytes());
        let packet = ipv6(135, cn, ours, &message);
        let answers = errors(&lab.world.cn);
        inject(&lab.world.cn, &packet);
        let mut answer = [0; 1500];
        loop {
            let (length, from) = answers.recv_from(&mut answer).expect("an answer");
            if answer[0] == 4 {
                assert_eq!(from.ip(), ours, "{ours}");
                assert_eq!(answer[1], 0, "{ours}: erroneous header field");
                assert_eq!(answer[4..8], 40u32.to_be_bytes(), "{ours}: Payload Proto");
                assert_eq!(answer[48..length], message, "{ours}");
                break;
            }
        }
    }
}

#[test]
fn a_wrong_key_is_answered_146_and_binds_nothing() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    new_key(&lab.world, Side::Mobile, "acme.key").unwrap();
    lab.start_mobile(&[]);
    let status = lab
        .mobile()
        .wait_until("the refusal", PATIENCE, |status| {
            status
                .bindings
                .iter()
                .any(|binding| binding.status.as_ref().is_some_and(|status| status.code == 146))
        })
        .unwrap();
    assert!(registered(&status).is_empty(), "{status:#?}");
    assert!(cached(&lab.agent().status().unwrap()).is_empty());
    lab.assert_clean();
}

#[test]
fn a_vehicle_whose_clock_says_1970_registers() {
    need_lab!();
    let mut lab = Lab::with_agent(Plan::default(), PolicyText::default());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    lab.start_mobile(&[&format!("--clock-offset=-{now}")]);
    lab.registered(&["wlan0", "wwan0"]);
    lab.traffic();
    lab.assert_clean();
}
