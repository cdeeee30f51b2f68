//! A TUN's queues tell where a packet came from; uplinks say why a packet did not leave.

use mtun_dataplane::backend::{
    PacketSocket, PacketSocketError, RECEIVE_BUFFER, SendError, SteeringError, Tun, TunError,
    Uplink, VnetHeader,
};

use crate::world::*;

const FAR: &str = "2001:db8:f::1";

/// The ports of the UDP packets that wait in a queue.
fn ports(tun: &Tun, queue: usize) -> Vec<u16> {
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let mut ports = Vec::new();
    while let Some(received) = tun.queues()[queue].recv(&mut buffer).unwrap() {
        let packet = &buffer[received.packet];
        if packet[6] == 17 {
            ports.push(u16::from_be_bytes([packet[42], packet[43]]));
        }
    }
    ports
}

#[test]
fn queues_tell_local_other_and_named_ingress_apart() {
    let Some(world) = World::new() else { return };
    let lan0 = world.mobile.index("lan0");
    let wlan0 = world.mobile.index("wlan0");
    let tun = world.mobile.run(|| Tun::open("mtun0", 3).unwrap());
    world.mobile.shell("ip link set mtun0 addrgenmode none");
    world.mobile.shell("ip link set mtun0 up");
    world.mobile.shell("ip -6 route add 2001:db8:f::/48 dev mtun0");
    world.access.shell("ip -6 route add 2001:db8:f::/48 via 2001:db8:1::7");

    let send_all = |port: u16| {
        world.mobile.run(|| {
            let socket = std::net::UdpSocket::bind(format!("[{CARE_OF}]:0")).unwrap();
            socket.send_to(b"local", (FAR, port)).unwrap();
        });
        for (namespace, source) in [(&world.lan, LAN_HOST), (&world.access, ACCESS)] {
            let uplink = namespace.run(|| Uplink::open(None).unwrap());
            uplink.send(&udp(source, FAR, port + u16::from(source == LAN_HOST))).unwrap();
        }
    };
    let seen = |want: [&[u16]; 3]| {
        let mut seen: [Vec<u16>; 3] = Default::default();
        eventually(&format!("packets {want:?} in {seen:?}"), || {
            for (queue, seen) in seen.iter_mut().enumerate() {
                seen.extend(ports(&tun, queue));
            }
            seen.iter().map(Vec::len).sum::<usize>() >= 3
        });
        assert_eq!(seen.each_ref().map(Vec::as_slice), want);
    };

    tun.set_steering(&[(lan0, 2)]).unwrap();
    send_all(1000);
    seen([&[1000], &[1000], &[1001]]);
    // Replaced while packets may flow.
    tun.set_steering(&[(wlan0, 2)]).unwrap();
    send_all(2000);
    seen([&[2000], &[2001], &[2000]]);
    tun.set_steering(&[]).unwrap();
    send_all(3000);
    let mut others = ports(&tun, 1);
    eventually("both others", || {
        others.extend(ports(&tun, 1));
        others.len() == 2
    });
    assert_eq!(ports(&tun, 0), [3000]);
    assert!(matches!(
        tun.set_steering(&[(lan0, 3)]),
        Err(SteeringError::NoSuchIngress { ingress: 3, ingresses: 3 })
    ));
}

/// Each kind of ingress has queues of its own, and each flow one of them.
#[test]
fn the_flows_of_an_ingress_are_spread_over_its_queues() {
    let Some(world) = World::new() else { return };
    let lan0 = world.mobile.index("lan0");
    let tun = world.mobile.run(|| Tun::open_wide("mtun0", 3, 2).unwrap());
    let of = |queue: usize| tun.queues()[queue].ingress().0;
    assert_eq!((0..6).map(of).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2]);
    world.mobile.shell("ip link set mtun0 addrgenmode none");
    world.mobile.shell("ip link set mtun0 up");
    world.mobile.shell("ip -6 route add 2001:db8:f::/48 dev mtun0");
    tun.set_steering(&[(lan0, 2)]).unwrap();
    let local = world.mobile.run(|| std::net::UdpSocket::bind(format!("[{CARE_OF}]:0")).unwrap());
    let behind = world.lan.run(|| Uplink::open(None).unwrap());
    let most = 1064;
    for port in (1000..most).chain(1000..most) {
        local.send_to(b"local", (FAR, port)).unwrap();
        behind.send(&udp(LAN_HOST, FAR, port)).unwrap();
    }
    let mut seen: [Vec<u16>; 6] = Default::default();
    eventually("every packet", || {
        for (queue, seen) in seen.iter_mut().enumerate() {
            seen.extend(ports(&tun, queue));
        }
        seen.iter().map(Vec::len).sum::<usize>() >= 256
    });
    assert_eq!((seen[2].len(), seen[3].len()), (0, 0), "nobody else");
    for pair in [[0, 1], [4, 5]] {
        let mut all: Vec<u16> = Vec::new();
        for queue in pair {
            let (first, again) = seen[queue].split_at(seen[queue].len() / 2);
            assert_eq!(first, again, "each flow by one queue, in order");
            assert!(first.len() > 10, "{seen:?}");
            all.extend(first);
        }
        all.sort_unstable();
        assert_eq!(all, (1000..most).collect::<Vec<_>>());
    }
}

/// req TN-17.
#[test]
fn a_tun_hands_out_complete_packets_and_takes_them_back() {
    let Some(world) = World::new() else { return };
    let mut tun = world.mobile.run(|| Tun::open("mtun0", 2).unwrap());
    world.mobile.run(|| tun.grow(3).unwrap());
    assert_eq!(tun.queues().len(), 3);
    assert_eq!(tun.index(), world.mobile.index("mtun0"));
    world.mobile.shell("ip link set mtun0 addrgenmode none");
    world.mobile.shell("ip link set mtun0 up");
    world.mobile.shell(&format!("ip addr add {HOME}/128 dev mtun0 nodad"));
    assert!(world.mobile.shell("ip link show mtun0").contains("qlen 4096"));
    tun.set_steering(&[]).unwrap();

    let socket = world.mobile.run(|| std::net::UdpSocket::bind(format!("[{HOME}]:7")).unwrap());
    socket.set_nonblocking(true).unwrap();
    let mut text = [0; 16];
    let mut received = None;
    // The kernel says that the address is there a moment before it takes packets for it.
    eventually("a packet out of the tunnel", || {
        tun.queues()[1].send(&udp(FAR, HOME, 7)).unwrap();
        received = socket.recv_from(&mut text).ok();
        received.is_some()
    });
    let (length, from) = received.unwrap();
    assert_eq!((&text[..length], from.to_string()), (&b"test"[..], format!("[{FAR}]:7")));

    world.mobile.shell("ip -6 route add 2001:db8:f::/48 dev mtun0");
    socket.send_to(&text[..length], from).unwrap();
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let mut received = None;
    eventually("the answer", || {
        received = tun.queues()[0].recv(&mut buffer).unwrap();
        // Group memberships are reported too: this tunnel was not made quiet.
        received.as_ref().is_some_and(|it| buffer[it.packet.clone()][6] == 17)
    });
    let received = received.unwrap();
    assert!(!received.header.has_partial_checksum() && !received.header.is_superpacket());
    // The first octets hold a flow label of the kernel's choice.
    assert_eq!(buffer[received.packet][4..], udp(HOME, FAR, 7)[4..], "with its checksum");
}

/// req TN-17.
#[test]
fn a_partial_checksum_travels_from_the_uplink_into_the_tunnel() {
    let Some(world) = World::new() else { return };
    let tun = world.mobile.run(|| Tun::open("mtun0", 1).unwrap());
    world.mobile.shell("ip link set mtun0 up");
    world.mobile.shell(&format!("ip addr add {HOME}/128 dev mtun0 nodad"));
    let socket = world.mobile.run(|| std::net::UdpSocket::bind(format!("[{HOME}]:7")).unwrap());
    socket.set_nonblocking(true).unwrap();
    let wlan0 = world.mobile.index("wlan0");
    let uplink = world.mobile.run(|| PacketSocket::open(wlan0).unwrap());
    // The other end of the tunnel hands over a checksum that hardware would finish.
    let sender = world.access.run(|| Tun::open("t0", 1).unwrap());
    world.access.shell("ip link set t0 up");
    let mut inner = udp(FAR, HOME, 7);
    let mut pseudo_header = u32::from(17u8) + 12;
    for word in inner[8..40].chunks(2) {
        pseudo_header += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    let folded = (pseudo_header & 0xffff) + (pseudo_header >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    inner[46..48].copy_from_slice(&(folded as u16).to_be_bytes());
    let outer = packet(41, "2001:db8:99::1", CARE_OF, &inner);

    let mut buffer = vec![0; RECEIVE_BUFFER];
    let mut text = [0; 16];
    eventually("the packet", || {
        sender.queues()[0].send_with(VnetHeader::partial(80, 6), &outer).unwrap();
        while let Some(received) = uplink.recv(&mut buffer).unwrap() {
            let packet = &buffer[received.packet];
            if packet[6] == 41 {
                assert!(received.header.has_partial_checksum());
                let header = received.header.without(40).unwrap();
                tun.queues()[0].send_with(header, &packet[40..]).unwrap();
            }
        }
        socket.recv(&mut text).is_ok()
    });
    assert_eq!(&text[..4], b"test");
}

#[test]
fn tun_refusals_have_names() {
    let Some(world) = World::new() else { return };
    world.mobile.run(|| {
        let first = Tun::open("mtun0", 1).unwrap();
        assert!(matches!(Tun::open("mtun0", 1), Err(TunError::Exists(_))));
        assert!(matches!(first.set_steering(&[]), Err(SteeringError::NoSuchIngress { .. })));
        assert!(matches!(Tun::open("a-name-too-long-", 1), Err(TunError::Name(_))));
        assert!(matches!(Tun::open("mtun1", 0), Err(TunError::Queues(0))));
        assert!(matches!(Tun::open("mtun1", 257), Err(TunError::Queues(257))));
    });
    // A child that another test is just starting may hold the descriptor for a moment longer.
    eventually("an interface goes with its last queue", || {
        !world.mobile.shell("ip link").contains("mtun")
    });
}

#[test]
fn an_interface_that_a_killed_process_left_is_taken_over() {
    let Some(world) = World::new() else { return };
    world.mobile.shell("ip tuntap add mtun0 mode tun multi_queue vnet_hdr");
    world.mobile.shell("ip link set mtun0 up");
    let left = world.mobile.index("mtun0");
    world.mobile.run(|| {
        let tun = Tun::open("mtun0", 2).unwrap();
        assert_eq!(tun.index(), left);
        assert!(matches!(Tun::open("mtun0", 1), Err(TunError::Exists(_))), "held again");
    });
    let links = world.mobile.shell("ip link");
    assert!(!links.contains("mtun"), "and it goes like any other: {links}");
    world.mobile.shell("ip link add mtun0 type veth peer name mtun1");
    world.mobile.run(|| {
        assert!(matches!(Tun::open("mtun0", 1), Err(TunError::Exists(_))), "of another kind");
    });
}

/// What a router forwards for others is not copied to whoever listens.
#[test]
fn a_packet_socket_hears_what_is_for_its_addresses() {
    let Some(world) = World::new() else { return };
    let socket = world.mobile.run(|| PacketSocket::open(world.mobile.index("wlan0")).unwrap());
    world.access.shell("ip -6 route add 2001:db8:f::/48 via 2001:db8:1::7");
    world.mobile.shell("ip -6 route add blackhole 2001:db8:f::/48");
    let uplink = world.access.run(|| Uplink::open(None).unwrap());
    let mut heard = Vec::new();
    let mut hear = |count: usize| {
        let mut buffer = vec![0; RECEIVE_BUFFER];
        heard.clear();
        eventually("tunnel packets", || {
            while let Some(received) = socket.recv(&mut buffer).unwrap() {
                let packet = &buffer[received.packet];
                if packet[6] == 41 {
                    heard.push((destination(packet).to_string(), packet.len()));
                }
            }
            heard.len() >= count
        });
        heard.clone()
    };
    // The last one tells that all before it were there to be heard.
    let send = |length: usize| {
        for to in [FAR, CARE_OF, "2001:db8:f::2", CARE_OF] {
            uplink.send(&packet(41, ACCESS, to, &vec![0; length])).unwrap();
        }
    };
    send(60);
    assert_eq!(hear(4).len(), 4, "to begin with, everything");
    socket.hear_only(&[CARE_OF.parse().unwrap()]).unwrap();
    send(80);
    assert_eq!(hear(2), [(CARE_OF.to_owned(), 120), (CARE_OF.to_owned(), 120)]);
    socket.hear_only(&[FAR.parse().unwrap(), CARE_OF.parse().unwrap()]).unwrap();
    send(90);
    assert_eq!(hear(3)[0], (FAR.to_owned(), 130));
}

#[test]
fn uplinks_say_why_a_packet_did_not_leave() {
    let Some(world) = World::new() else { return };
    let index = world.mobile.index("wlan0");
    let uplink = world.mobile.run(|| Uplink::open(Some(index)).unwrap());
    let sniffer = Sniffer::new(&world.access, "a0");
    let big = |length: usize| packet(59, CARE_OF, ACCESS, &vec![0; length - 40]);
    assert_eq!(uplink.send(&big(1500)), Ok(()));
    sniffer.wait_for("1500 octets", |it| it.len() == 1500 && source(it).to_string() == CARE_OF);
    assert_eq!(uplink.send(&big(1501)), Err(SendError::TooBig { mtu: Some(1500) }));
    assert_eq!(uplink.send(&big(1500)[..39]), Err(SendError::Malformed));
    world.mobile.shell("ip -6 route add unreachable 2001:db8:1::99");
    assert_eq!(uplink.send(&packet(59, CARE_OF, "2001:db8:1::99", &[])), Ok(()), "by its device");
    let any = world.mobile.run(|| Uplink::open(None).unwrap());
    let to_nowhere = packet(59, CARE_OF, "2001:db8:1::99", &[]);
    assert_eq!(any.send(&to_nowhere), Err(SendError::NoRoute));
    world.mobile.shell("ip link set wlan0 down");
    assert_eq!(uplink.send(&big(1500)), Err(SendError::NoRoute));

    world.mobile.run(|| {
        assert!(matches!(PacketSocket::open(9999), Err(PacketSocketError::NoInterface(9999))));
    });
}
