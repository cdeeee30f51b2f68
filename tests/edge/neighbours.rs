//! Speaking for addresses that this machine does not have, to a neighbour's kernel.

use std::net::Ipv6Addr;

use mtun::edge::neighbours::{Heard, Neighbours};
use mtun_signaling::wire::icmpv6::neighbour_discovery::{NeighbourMessage, solicited_node};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::world::{LAN_HOST, LAN_ROUTER, PATIENCE, World, eventually};

const ABSENT: &str = "2001:db8:100:4200::77";

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

async fn next(heard: &mut mpsc::Receiver<Heard>) -> Heard {
    timeout(PATIENCE, heard.recv()).await.expect("a neighbour says something").unwrap()
}

#[test]
fn a_neighbour_learns_where_an_absent_address_is() {
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let (sender, mut heard) = mpsc::channel(16);
        let neighbours = Neighbours::open(world.mobile.index("lan0"), sender).unwrap();
        let own = world.mobile.shell("cat /sys/class/net/lan0/address");
        assert_eq!(neighbours.link_layer().to_string(), own.trim());
        neighbours.watch(address(ABSENT)).unwrap();
        // Asked for an address that nobody watches, and for the one.
        for target in ["2001:db8:100:4200::78", ABSENT] {
            world.lan.shell(&format!("sh -c 'ping -c 1 -w 5 {target} >/dev/null 2>&1 &'"));
        }
        let asked = next(&mut heard).await;
        let NeighbourMessage::NeighbourSolicitation(solicitation) = &asked.message else {
            panic!("{asked:?}");
        };
        assert_eq!(solicitation.target, address(ABSENT));
        assert_eq!(asked.destination, solicited_node(address(ABSENT)));
        assert_eq!(solicitation.source_link_layer, Some(asked.from));
        neighbours.answer(&asked, address(LAN_ROUTER), address(ABSENT), false).unwrap();
        let entry = || world.lan.shell(&format!("ip -6 neigh show {ABSENT}"));
        eventually("an entry", || entry().contains(own.trim()));
        assert!(!entry().contains("router"), "{}", entry());
        // What is announced overrides what is known.
        world.lan.shell(&format!(
            "ip -6 neigh replace {ABSENT} dev l0 lladdr 02:00:00:00:00:99 nud reachable"
        ));
        neighbours.announce(address(LAN_ROUTER), address(ABSENT), true).unwrap();
        eventually("another entry", || entry().contains(own.trim()) && entry().contains("router"));
    });
}

#[test]
fn an_address_is_defended_and_duplicates_are_found() {
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let (sender, mut heard) = mpsc::channel(16);
        let neighbours = Neighbours::open(world.mobile.index("lan0"), sender).unwrap();
        let shown = || world.lan.shell(&format!("ip -6 addr show dev l0 to {ABSENT}"));
        // Nobody has it, and then somebody wants it.
        neighbours.watch(address(ABSENT)).unwrap();
        world.lan.shell(&format!("ip -6 addr add {ABSENT}/64 dev l0"));
        let asked = next(&mut heard).await;
        assert!(asked.source.is_unspecified(), "{asked:?}");
        neighbours.answer(&asked, address(LAN_ROUTER), address(ABSENT), false).unwrap();
        eventually("given up", || shown().contains("dadfailed"));
        // Somebody has it.
        world.lan.shell(&format!("ip -6 addr del {ABSENT}/64 dev l0"));
        world.lan.shell(&format!("ip -6 addr add {ABSENT}/64 dev l0 nodad"));
        neighbours.check_duplicate(address(ABSENT)).unwrap();
        let NeighbourMessage::NeighbourAdvertisement(advertisement) =
            next(&mut heard).await.message
        else {
            panic!("not an advertisement");
        };
        assert_eq!(advertisement.target, address(ABSENT));
        assert!(!advertisement.solicited, "nobody asked");
        // Forgotten, it concerns us no more.
        neighbours.forget(address(ABSENT)).unwrap();
        neighbours.check_duplicate(address(ABSENT)).unwrap();
        neighbours.watch(address(LAN_HOST)).unwrap();
        neighbours.check_duplicate(address(LAN_HOST)).unwrap();
        let NeighbourMessage::NeighbourAdvertisement(other) = next(&mut heard).await.message else {
            panic!("not an advertisement");
        };
        assert_eq!(other.target, address(LAN_HOST));
    });
}
