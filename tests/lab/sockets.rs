//! Which source and which way a program's socket gets, and what it learns of the path's MTU.

use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::observe::{Flow, Way};
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{Bound, Echo, INTERVAL, PORT, Probe};
use mtun::lab::world::{Plan, address};

use crate::fixture::{Lab, PATIENCE};
use crate::need_lab;

#[test]
fn unbound_sockets_use_the_home_address_and_bound_ones_their_uplink() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let echo = Echo::start(&lab.world.cn).unwrap();
    let (wlan, wwan) = (address::WLAN, address::WWAN);
    let cases = [
        ("unbound", &lab.world.mr, Bound::Nowhere, address::HOME),
        ("to the home address", &lab.world.mr, Bound::Address(address::HOME), address::HOME),
        ("to the WLAN's care-of address", &lab.world.mr, Bound::Address(wlan), wlan),
        ("to the W-CDMA care-of address", &lab.world.mr, Bound::Address(wwan), wwan),
        ("to wlan0", &lab.world.mr, Bound::Device("wlan0".into()), wlan),
        ("to wwan0", &lab.world.mr, Bound::Device("wwan0".into()), wwan),
        ("behind the router", &lab.world.mnn, Bound::Nowhere, address::NODE),
    ];
    for (what, namespace, bound, source) in cases {
        let probe = Probe::start(namespace, &echo, INTERVAL, &bound).unwrap();
        let echoed = probe.wait_for_echo_after(50, PATIENCE);
        assert!(echoed.is_ok(), "{what}: no echo; {}", lab.mobile().story());
        let sources: Vec<Ipv6Addr> = probe.sources().iter().map(|from| *from.ip()).collect();
        assert_eq!(sources, [source], "{what}");
        let flow = Flow::to_correspondent(17, (source, probe.port()), PORT);
        let tunnelled = lab.observatory.packets(&flow, Way::Out, "wlan0") > 0;
        assert_eq!(tunnelled, address::is_home(source), "{what}");
    }
    lab.assert_clean();
}

#[test]
fn hosts_behind_the_router_still_reach_it() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default());
    lab.registered(&["wlan0", "wwan0"]);
    let service = lab.world.mr.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 7000))).unwrap();
    let node = lab.world.mnn.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    for socket in [&service, &node] {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    for to in [address::LAN, address::HOME] {
        node.send_to(b"hello", (to, 7000)).unwrap();
        let mut payload = [0; 16];
        let (length, from) = service.recv_from(&mut payload).unwrap();
        assert_eq!(from.ip(), address::NODE, "to {to}");
        service.send_to(&payload[..length], from).unwrap();
        node.recv_from(&mut payload).unwrap();
    }
    lab.assert_clean();
}

/// A UDP socket that never lets its packets be fragmented on the way.
fn unfragmented(namespace: &Namespace, port: u16) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    let discover = libc::IPV6_PMTUDISC_DO;
    // SAFETY: the value is an int that outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            std::ptr::from_ref(&discover).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    assert_eq!(done, 0);
    socket.connect((address::CORRESPONDENT, port)).unwrap();
    socket
}

/// What the kernel has learned of the path's MTU.
fn path_mtu(socket: &UdpSocket) -> i32 {
    let mut mtu = 0i32;
    let mut size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes one int.
    unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU,
            std::ptr::from_mut(&mut mtu).cast(),
            &mut size,
        )
    };
    mtu
}

fn learns(wwan_mtu: u16, inner: i32) {
    let text =
        PolicyText::default().with_rule("small", "match proto=udp dport=5353\n prefer wwan0");
    let lab = Lab::start(Plan { wwan_mtu, ..Plan::default() }, text);
    let status = lab.registered(&["wlan0", "wwan0"]);
    let tunnel_mtu = status.homes[0].tunnel.mtu;
    assert!(tunnel_mtu > inner as u32, "the tunnel's own MTU fits the larger path");
    let arrivals = lab.world.cn.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 5353))).unwrap();
    arrivals.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for (what, namespace) in [("router", &lab.world.mr), ("node", &lab.world.mnn)] {
        let socket = unfragmented(namespace, 5353);
        let too_big = vec![1u8; 1400];
        let learned = wait_for("Packet Too Big", PATIENCE, || {
            // The send after the answer fails by itself, with the size that fits.
            let _ = socket.send(&too_big);
            (path_mtu(&socket) == inner).then_some(())
        });
        assert!(learned.is_ok(), "{what}: MTU {} instead of {inner}", path_mtu(&socket));
        let fits = vec![2u8; inner as usize - 48];
        // The answer that taught the size also stands as an error until it has been read.
        let _ = socket.take_error();
        socket.send(&fits).unwrap();
        let mut payload = [0; 2048];
        let (length, _) = arrivals.recv_from(&mut payload).unwrap();
        assert_eq!((length, payload[0]), (fits.len(), 2), "{what}: only what fits arrives");
    }
    let after = lab.mobile().status().unwrap().homes[0].tunnel.mtu;
    assert_eq!(after, tunnel_mtu, "the tunnel's own MTU never changes");
    lab.assert_clean();
}

#[test]
fn a_path_of_1420_octets_answers_packet_too_big_with_1380() {
    need_lab!();
    learns(1420, 1380);
}

#[test]
fn a_path_of_1280_octets_carries_inner_packets_of_1280_in_fragments() {
    need_lab!();
    learns(1280, 1280);
}
