//! What the kernel reports becomes movements, in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mtun::edge::movement::{Attachment, DownReason, LinkEvent, Movement};
use mtun::edge::netlink::Netlink;
use mtun::edge::sysctl::Sysctls;
use mtun::edge::watch::Watch;
use mtun_dataplane::backend::{Tun, Uplink};
use tokio::time::timeout;

use crate::world::*;

async fn next(watch: &mut Watch) -> Movement {
    timeout(PATIENCE, watch.next()).await.expect("a movement in time").unwrap()
}

async fn up(watch: &mut Watch) -> Attachment {
    match next(watch).await {
        Movement::CareOfUp(attachment) => attachment,
        other => panic!("{other:?}"),
    }
}

async fn down(watch: &mut Watch) -> (String, DownReason) {
    match next(watch).await {
        Movement::CareOfDown { interface, reason } => (interface.to_string(), reason),
        other => panic!("{other:?}"),
    }
}

fn start(uplinks: &[&str]) -> Watch {
    let own = vec![NETWORK.parse().unwrap(), format!("{HOME}/128").parse().unwrap()];
    let netlink = Arc::new(Netlink::open().unwrap());
    Watch::start(netlink, uplinks.iter().map(|it| (*it).into()), own).unwrap()
}

#[test]
fn uplinks_that_are_there_and_come_and_go() {
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let mut watch = start(&["wlan0", "wwan0", "usb0"]);
        // In the order in which their routers answer.
        let mut both = [up(&mut watch).await, up(&mut watch).await];
        both.sort_by_key(|attachment| attachment.care_of);
        let [wlan0, wwan0] = both;
        assert_eq!(wlan0.care_of.to_string(), CARE_OF);
        assert_eq!(wlan0.router, Some(ACCESS.parse().unwrap()));
        let on_link = ["2001:db8:1::/64", "fe80::/64"].map(|it| it.parse().unwrap());
        assert_eq!(wlan0.on_link, on_link.into());
        assert_eq!((wlan0.index, wlan0.mtu), (world.mobile.index("wlan0"), 1500));
        assert_eq!(wwan0.care_of.to_string(), SECOND_CARE_OF);

        // Another carrier: the peer goes down.
        let start = Instant::now();
        world.access.shell("ip link set a0 down");
        assert_eq!(down(&mut watch).await, ("wlan0".to_owned(), DownReason::NoCarrier));
        println!("carrier loss seen after {:?}", start.elapsed());
        world.access.shell("ip link set a0 up");
        assert_eq!(up(&mut watch).await.care_of.to_string(), CARE_OF);

        // An uplink that appears later, without a link layer, and is renamed into place.
        world.mobile.shell("ip tuntap add dev modem mode tun");
        world.mobile.shell("ip addr add 2001:db8:3::7/64 dev modem nodad");
        world.mobile.shell("ip link set modem name usb0");
        world.mobile.shell("ip link set usb0 up");
        world.mobile.shell("ip -6 route add default dev usb0 metric 300");
        // A TUN that nobody serves has no carrier.
        let state = watch.movements().state(&"usb0".into());
        assert!(state.is_err(), "{state:?}");
        world.mobile.shell("ip link del usb0");
        let modem = Tun::open("modem", 1).unwrap();
        world.mobile.shell("ip link set modem name usb0");
        world.mobile.shell("ip link set usb0 addrgenmode none");
        world.mobile.shell("ip link set usb0 up");
        world.mobile.shell("ip addr add 2001:db8:3::7/64 dev usb0 nodad");
        world.mobile.shell("ip -6 route add default dev usb0 metric 300");
        let usb0 = up(&mut watch).await;
        assert_eq!((usb0.care_of.to_string().as_str(), usb0.router), ("2001:db8:3::7", None));
        drop(modem);
        let (interface, _) = down(&mut watch).await;
        assert_eq!(interface, "usb0");
    });
}

#[test]
fn carrier_is_seen_although_the_kernel_holds_its_report_back() {
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let mut watch = start(&["wlan0"]);
        up(&mut watch).await;
        let mut slowest = Duration::ZERO;
        // The second change within a second is the one that is held back. From the fourth on a link
        // counts as one that comes and goes, and is not up at once.
        for _ in 0..3 {
            let shell = world.access.shell("ip link set a0 down");
            let start = Instant::now();
            assert_eq!(shell, "");
            down(&mut watch).await;
            slowest = slowest.max(start.elapsed());
            world.access.shell("ip link set a0 up");
            up(&mut watch).await;
        }
        println!("slowest {slowest:?}");
        assert!(slowest < Duration::from_millis(300), "{slowest:?}");
    });
}

/// req MN-02, MN-36.
#[test]
fn an_address_counts_once_detection_has_ended() {
    let Some(world) = World::new() else { return };
    world.mobile.shell("ip addr del 2001:db8:1::7/64 dev wlan0");
    world.mobile.shell("sysctl -qw net.ipv6.neigh.wlan0.retrans_time_ms=200");
    world.mobile.shell("ip link set wlan0 addrgenmode eui64 down");
    world.mobile.shell("ip link set wlan0 up");
    world.mobile.shell("ip -6 route add default via fe80::1 dev wlan0 metric 100");
    world.mobile.block_on(async || {
        let mut watch = start(&["wlan0"]);
        assert!(timeout(Duration::from_millis(50), watch.next()).await.is_err());
        world.mobile.shell("ip addr add 2001:db8:1::8/64 dev wlan0");
        let tentative = world.mobile.shell("ip -6 -o addr show dev wlan0 to 2001:db8:1::8");
        let attachment = up(&mut watch).await;
        assert!(tentative.contains("tentative"), "{tentative}");
        let after = world.mobile.shell("ip -6 -o addr show dev wlan0 to 2001:db8:1::8");
        assert!(!after.contains("tentative"), "{after}");
        assert_eq!(attachment.care_of.to_string(), "2001:db8:1::8");
    });
    // The address of the access router is taken already, and it can say so.
    eventually("a0 is ready", || world.access.shell("ip -o link show a0").contains("state UP"));
    world.mobile.shell("ip addr del 2001:db8:1::8/64 dev wlan0");
    world.mobile.block_on(async || {
        let mut watch = start(&["wlan0"]);
        world.mobile.shell("ip addr add 2001:db8:1::1/64 dev wlan0");
        let start = Instant::now();
        let uplink = "wlan0".into();
        while watch.movements().state(&uplink) != Err(DownReason::DuplicateAddress) {
            assert!(start.elapsed() < PATIENCE, "{:?}", watch.movements().state(&uplink));
            let none = timeout(Duration::from_millis(20), watch.next()).await;
            assert!(none.is_err(), "{none:?}");
        }
    });
}

/// req MN-03.
#[test]
fn a_router_that_does_not_answer_is_given_up_and_asked_again() {
    let Some(world) = World::new() else { return };
    for setting in ["retrans_time_ms=50", "mcast_solicit=1", "ucast_solicit=1"] {
        world.mobile.shell(&format!("sysctl -qw net.ipv6.neigh.wlan0.{setting}"));
    }
    world.mobile.block_on(async || {
        let mut watch = start(&["wlan0"]);
        up(&mut watch).await;
        world.access.shell("nft add table ip6 deaf");
        world.access.shell("nft add chain ip6 deaf in '{ type filter hook input priority 0; }'");
        world.access.shell("nft add rule ip6 deaf in icmpv6 type nd-neighbor-solicit drop");
        world.mobile.shell("ip -6 neigh flush dev wlan0");
        let uplink = Uplink::open(Some(world.mobile.index("wlan0"))).unwrap();
        uplink.send(&packet(59, CARE_OF, "2001:db8:c::9", &[])).unwrap();
        assert_eq!(down(&mut watch).await, ("wlan0".to_owned(), DownReason::RouterUnreachable));
        world.access.shell("nft delete table ip6 deaf");
        assert_eq!(up(&mut watch).await.router, Some(ACCESS.parse().unwrap()));
    });
}

/// A Router Advertisement with one prefix for address configuration.
fn advertisement(prefix: &str) -> Vec<u8> {
    let mut text = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    // Prefix Information: /64, on-link and autonomous, valid and preferred for an hour.
    text.extend([3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0]);
    text.extend(prefix.parse::<std::net::Ipv6Addr>().unwrap().octets());
    let mut packet = with_checksum(58, "fe80::1", "ff02::1", 2, text);
    packet[7] = 255;
    packet
}

/// req R-MR-05.
#[test]
fn a_forwarding_router_still_listens_to_routers() {
    let Some(world) = World::new() else { return };
    world.mobile.shell("ip -6 addr flush dev wlan0 scope global");
    world.mobile.shell("sysctl -qw net.ipv6.conf.all.forwarding=0");
    world.mobile.shell("sysctl -qw net.ipv6.conf.wlan0.accept_dad=0");
    world.mobile.shell("ip link set wlan0 addrgenmode eui64 down");
    world.mobile.shell("ip link set wlan0 up");
    let index = world.access.index("a0");
    let router = world.access.run(|| Uplink::open(Some(index)).unwrap());
    world.mobile.block_on(async || {
        let mut sysctls = Sysctls::open(None);
        sysctls.listen_to_routers("wlan0").unwrap();
        sysctls.forward().unwrap();
        let mut watch = start(&["wlan0"]);
        // Behind the kernel's back an interface drops what is sent for a moment after it has come
        // up, so the router repeats itself, as routers do.
        let advertise = async {
            loop {
                router.send(&advertisement("2001:db8:7::")).unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let attachment = tokio::select! {
            attachment = up(&mut watch) => attachment,
            () = advertise => unreachable!("advertises for ever"),
        };
        assert!(attachment.care_of.to_string().starts_with("2001:db8:7:"), "{attachment:?}");
        assert_eq!(attachment.router, Some("fe80::1".parse().unwrap()));
        sysctls.restore();
    });
    assert_eq!(world.mobile.shell("sysctl -n net.ipv6.conf.all.forwarding").trim(), "0");
    assert_eq!(world.mobile.shell("sysctl -n net.ipv6.conf.wlan0.accept_ra").trim(), "1");
}

/// req MR-09, MR-10, R-MR-04: on its uplinks a mobile router is a host. It is in no group of routers
/// there, answers no solicitation of routers nor one for its home address, and forwards.
#[test]
fn a_router_is_a_host_on_its_uplinks() {
    let Some(world) = World::new() else { return };
    let in_groups = |interface: &str| {
        let groups = world.mobile.shell("cat /proc/net/igmp6");
        groups
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .any(|it| it[1] == interface && it[2] == "ff020000000000000000000000000002")
    };
    world.mobile.shell("sysctl -qw net.ipv6.conf.all.forwarding=0");
    let mut sysctls = Sysctls::open(None);
    world.mobile.run(|| {
        sysctls.forward().unwrap();
        sysctls.be_host("wlan0").unwrap();
    });
    assert!(in_groups("lan0") && in_groups("wwan0") && !in_groups("wlan0"));

    let seen = Sniffer::new(&world.access, "a0");
    let index = world.access.index("a0");
    let router = world.access.run(|| Uplink::open(Some(index)).unwrap());
    let solicit = |target: Option<&str>| {
        let mut message = vec![if target.is_some() { 135 } else { 133 }, 0, 0, 0, 0, 0, 0, 0];
        let target = target.map(|it| it.parse::<std::net::Ipv6Addr>().unwrap());
        message.extend(target.map_or(Vec::new(), |it| it.octets().to_vec()));
        let mut packet = with_checksum(58, "fe80::1", "fe80::7", 2, message);
        packet[7] = 255;
        router.send(&packet).unwrap();
    };
    solicit(None);
    solicit(Some(LAN_ROUTER));
    // The last one is answered, so those before it were not.
    solicit(Some(CARE_OF));
    let kind = |packet: &[u8]| (packet[6] == 58).then(|| packet.get(40).copied()).flatten();
    let target = |packet: &[u8]| {
        let octets = packet.get(48..64).and_then(|octets| <[u8; 16]>::try_from(octets).ok());
        octets.map(|octets| std::net::Ipv6Addr::from(octets).to_string())
    };
    let of_mobile = |packet: &[u8]| destination(packet).to_string() == "fe80::1";
    let last = |packet: &[u8]| kind(packet) == Some(136) && target(packet) == Some(CARE_OF.into());
    let answers = seen.wait_for("the answer for its own address", last);
    for answer in answers.iter().filter(|it| of_mobile(it)) {
        assert_ne!(kind(answer), Some(134), "it advertises nothing");
        if kind(answer) == Some(136) {
            assert_ne!(target(answer), Some(LAN_ROUTER.into()), "{answer:02x?}");
            assert_eq!(answer[44] & 0x80, 0, "it is no router there");
        }
    }

    world.mobile.run(|| sysctls.restore());
    assert_eq!(world.mobile.shell("sysctl -n net.ipv6.conf.wlan0.forwarding").trim(), "0");
}

#[test]
fn lost_reports_are_made_good() {
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let mut events = netlink.events_with_room(4096).unwrap();
        assert!(matches!(events.next().await.unwrap(), LinkEvent::Everything(_)));
        // Far more than the socket holds while nobody reads.
        let batch: String =
            (0..6000).map(|n| format!("address add 2001:db8:5::{n:x}/128 dev lan0 nodad\n")).collect();
        let path = std::env::temp_dir().join(format!("mtun-edge-batch-{}", std::process::id()));
        std::fs::write(&path, batch).unwrap();
        world.mobile.shell(&format!("ip -6 -batch {}", path.display()));
        std::fs::remove_file(path).unwrap();
        loop {
            let event = timeout(PATIENCE, events.next()).await.expect("all again").unwrap();
            if let LinkEvent::Everything(events) = event {
                let new = |it: &&LinkEvent| matches!(it, LinkEvent::Address { address, .. } if address.segments()[2] == 5);
                assert_eq!(events.iter().filter(new).count(), 6000);
                break;
            }
        }
    });
}

/// The addresses that somebody knows who was told of each change and of everything.
fn addresses(known: &mut std::collections::BTreeSet<(u32, std::net::Ipv6Addr)>, event: &LinkEvent) {
    match event {
        LinkEvent::Everything(events) => {
            known.clear();
            events.iter().for_each(|event| addresses(known, event));
        }
        LinkEvent::Address { index, address, .. } => {
            known.insert((*index, *address));
        }
        LinkEvent::AddressGone { index, address } => {
            known.remove(&(*index, *address));
        }
        _ => {}
    }
}

/// F-07: 10,000 changes of addresses past a buffer of 4 KiB. What is known in the end is what there
/// is, and the kernel was asked for everything once for each pause or each two seconds at most.
#[test]
fn a_storm_is_survived_and_not_answered_with_a_storm() {
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let netlink = Netlink::open().unwrap();
        let mut events = netlink.events_with_room(4096).unwrap();
        let mut known = Default::default();
        addresses(&mut known, &events.next().await.unwrap());
        // A hundred that come and go, and others in the end: many at once would cost the kernel more
        // than the storm.
        let change = |verb: &'static str, net: u16, last: &'static str| {
            (0..100)
                .map(move |n| format!("address {verb} 2001:db8:{net}::{n:x}/128 dev lan0{last}\n"))
        };
        let batch: String = (0..50)
            .flat_map(|_| change("add", 5, " nodad").chain(change("del", 5, "")))
            .chain(change("add", 6, " nodad"))
            .collect();
        let path = std::env::temp_dir().join(format!("mtun-edge-storm-{}", std::process::id()));
        std::fs::write(&path, batch).unwrap();
        let began = Instant::now();
        let mut storm =
            tokio::process::Command::new("ip").args(["-6", "-batch"]).arg(&path).spawn().unwrap();
        // Told of each change while it lasts.
        let lasting = timeout(6 * PATIENCE, async {
            loop {
                tokio::select! {
                    event = events.next() => addresses(&mut known, &event.unwrap()),
                    ended = storm.wait() => break assert!(ended.unwrap().success()),
                }
            }
        });
        lasting.await.expect("an end of the storm");
        let mut wanted = Default::default();
        addresses(&mut wanted, &netlink.events().unwrap().next().await.unwrap());
        // And of everything after it.
        let settled = timeout(PATIENCE, async {
            while known != wanted {
                addresses(&mut known, &events.next().await.unwrap());
            }
        });
        settled.await.expect("what is known is what there is");
        std::fs::remove_file(path).unwrap();
        assert!(known.len() >= 100, "{}", known.len());
        let counts = events.counts();
        println!("{counts:?} in {:?}", began.elapsed());
        assert!(counts.overruns > 0, "nothing was lost: {counts:?}");
        // The first, one every two seconds, and one for the pause at the end.
        let most = 3 + began.elapsed().as_secs() / 2;
        assert!(counts.listings <= most, "{counts:?}, at most {most}");
    });
}

/// K8: an uplink that is renamed away and back, and one that is deleted and made again with its name
/// and another index.
#[test]
fn uplinks_that_are_renamed_and_made_again() {
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let mut watch = start(&["wlan0"]);
        let first = up(&mut watch).await;
        // The kernel renames what is up, and its addresses stay.
        world.mobile.shell("ip link set wlan0 name other0");
        assert_eq!(down(&mut watch).await, ("wlan0".to_owned(), DownReason::NoInterface));
        world.mobile.shell("ip link set other0 name wlan0");
        let back = up(&mut watch).await;
        assert_eq!((back.index, back.care_of), (first.index, first.care_of));
        // Gone with its peer, and made again.
        world.mobile.shell("ip link del wlan0");
        let (gone, _) = down(&mut watch).await;
        assert_eq!(gone, "wlan0");
        while watch.movements().state(&"wlan0".into()) != Err(DownReason::NoInterface) {
            timeout(PATIENCE, watch.report()).await.expect("it goes").unwrap();
        }
        let made =
            world.mobile.shell("ip link add wlan0 type veth peer name far0 && ip link set far0 up");
        assert_eq!(made, "");
        world.mobile.shell("ip link set wlan0 arp off up");
        world.mobile.shell("ip addr add 2001:db8:1::9/64 dev wlan0 nodad");
        world.mobile.shell("ip -6 route add default dev wlan0 metric 100");
        let again = up(&mut watch).await;
        assert_ne!(again.index, first.index, "another interface of the name");
        assert_eq!(again.care_of.to_string(), "2001:db8:1::9");
    });
}
