//! Speaking for addresses that this machine does not have, to a neighbour's kernel.

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun::edge::home_link::HomeLinkEdge;
use mtun::edge::neighbours::{Heard, Neighbours};
use mtun_policy::HomeAddress;
use mtun_signaling::agent::{Defence, Detection, link_local_of};
use mtun_signaling::wire::icmpv6::neighbour_discovery::{
    ALL_NODES, NeighbourAdvertisement, NeighbourMessage, solicited_node,
};
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

/// The next advertisement: the kernel may have asked once more before it heard the answer.
async fn advertised(heard: &mut mpsc::Receiver<Heard>) -> NeighbourAdvertisement {
    loop {
        if let NeighbourMessage::NeighbourAdvertisement(it) = next(heard).await.message {
            return it;
        }
    }
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
        // The kernel joins the address's group a little after it has the address.
        let groups = || world.lan.shell("ip -6 maddr show dev l0");
        let group = solicited_node(address(ABSENT)).to_string();
        eventually("its group is joined", || groups().contains(&group));
        neighbours.check_duplicate(address(ABSENT)).unwrap();
        let advertisement = advertised(&mut heard).await;
        assert_eq!(advertisement.target, address(ABSENT));
        assert!(!advertisement.solicited, "nobody asked");
        // Forgotten, it concerns us no more.
        neighbours.forget(address(ABSENT)).unwrap();
        neighbours.check_duplicate(address(ABSENT)).unwrap();
        neighbours.watch(address(LAN_HOST)).unwrap();
        neighbours.check_duplicate(address(LAN_HOST)).unwrap();
        assert_eq!(advertised(&mut heard).await.target, address(LAN_HOST));
    });
}

/// The home link of an agent at `lan0`, on which duplicates are looked for.
fn home_link(world: &World) -> (HomeLinkEdge, mpsc::Receiver<Heard>) {
    for (key, value) in [("accept_dad", "1"), ("dad_transmits", "1")] {
        world.mobile.shell(&format!("sysctl -qw net.ipv6.conf.lan0.{key}={value}"));
    }
    world.mobile.shell("sysctl -qw net.ipv6.neigh.lan0.retrans_time_ms=1000");
    let (sender, heard) = mpsc::channel(1024);
    let mut link = HomeLinkEdge::new("lan0".into(), address(LAN_ROUTER));
    link.open(Duration::ZERO, world.mobile.index("lan0"), sender);
    (link, heard)
}

fn figure(link: &HomeLinkEdge, name: &str) -> u64 {
    link.figures().iter().find(|(found, _)| *found == name).expect("a figure").1
}

#[test]
fn somebody_elses_word_does_not_end_a_defence() {
    // HA-57, HA-50: announced thrice, and set right at most once a second.
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let (mut link, mut heard) = home_link(&world);
        let at = Duration::from_secs;
        let home_address = HomeAddress(address(ABSENT));
        let defence = Defence { link_local: false, router: false };
        link.defend(at(10), home_address, defence);
        for now in [11, 12] {
            assert_eq!(link.deadline(), Some(at(now)));
            link.handle_deadline(at(now));
        }
        assert_eq!((figure(&link, "announced"), link.deadline()), (3, None));
        let forged = "02:00:00:00:00:99";
        world.lan.block_on(async || {
            let (sender, _) = mpsc::channel(1);
            let liar = Neighbours::open(world.lan.index("l0"), sender).unwrap();
            for _ in 0..3 {
                liar.announce(address(LAN_HOST), address(ABSENT), false).unwrap();
            }
        });
        for _ in 0..3 {
            let message = next(&mut heard).await;
            assert_eq!(link.heard(at(20), &message), None);
        }
        assert_eq!((figure(&link, "defended"), link.deadline()), (3, Some(at(21))));
        world
            .lan
            .shell(&format!("ip -6 neigh replace {ABSENT} dev l0 lladdr {forged} nud reachable"));
        link.handle_deadline(at(21));
        assert_eq!((figure(&link, "announced"), link.deadline()), (4, None));
        let own = world.mobile.shell("cat /sys/class/net/lan0/address");
        eventually("the agent's address again", || {
            world.lan.shell(&format!("ip -6 neigh show {ABSENT}")).contains(own.trim())
        });
        link.undefend(home_address);
        assert_eq!((link.defended(), figure(&link, "unsent")), (0, 0));
    });
}

#[test]
fn thousands_of_home_addresses_are_looked_for_at_once() {
    // HA-25: in parallel; HA-21, HA-22: a neighbour's address is found, and its companion only if
    // it was asked for.
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let (mut link, mut heard) = home_link(&world);
        let home =
            |n: u128| HomeAddress(Ipv6Addr::from(address(LAN_ROUTER).to_bits() + 0x1_0000 + n));
        for n in 0..10_000 {
            assert_eq!(link.search(Duration::ZERO, home(n), false), None);
        }
        let taken = HomeAddress(address(LAN_HOST));
        assert_eq!(link.search(Duration::ZERO, taken, false), None);
        assert!(link.handle_deadline(Duration::ZERO).is_empty());
        assert_eq!(link.deadline(), Some(Duration::from_secs(1)));
        let found = link.heard(Duration::ZERO, &next(&mut heard).await);
        assert_eq!(found, Some(taken));
        assert_eq!((link.searching(), figure(&link, "duplicates")), (10_000, 1));
        assert_eq!(link.handle_deadline(Duration::from_secs(1)).len(), 10_000);
        assert_eq!((link.searching(), link.deadline()), (0, None));
        // The neighbour's link-local address has the same end: asked for by L only.
        let other = HomeAddress(address("2001:db8:100:4201::9"));
        for (link_local, duplicate) in [(false, false), (true, true)] {
            assert_eq!(link.search(Duration::ZERO, other, link_local), None);
            link.handle_deadline(Duration::ZERO);
            if duplicate {
                let found = link.heard(Duration::ZERO, &next(&mut heard).await);
                assert_eq!(found, Some(other));
            } else {
                let over = link.handle_deadline(Duration::from_secs(1));
                assert_eq!(over, [(other, Detection::Unique)]);
            }
        }
    });
}

#[test]
fn what_could_not_be_looked_for_is_not_said_to_be_free() {
    // HA-20 (RFC 6275 §10.3.1): on a link that takes nothing, or is not there, nobody was asked.
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let (mut link, _heard) = home_link(&world);
        let home = HomeAddress(address(ABSENT));
        let looked = |link: &mut HomeLinkEdge| {
            assert_eq!(link.search(Duration::ZERO, home, false), None);
            assert!(link.handle_deadline(Duration::ZERO).is_empty());
            link.handle_deadline(Duration::from_secs(1))
        };
        assert_eq!(looked(&mut link), [(home, Detection::Unique)]);
        world.mobile.shell("ip link set lan0 down");
        assert_eq!(looked(&mut link), [(home, Detection::Undone)]);
        assert_eq!(figure(&link, "unsent"), 1);
        world.mobile.shell("ip link set lan0 up");
        assert_eq!(looked(&mut link), [(home, Detection::Unique)]);
        link.close();
        assert_eq!(link.search(Duration::ZERO, home, false), Some(Detection::Undone));
        assert_eq!((link.searching(), link.deadline()), (0, None));
    });
}

#[test]
fn the_companion_of_a_home_address_is_answered_for_if_the_mobile_wants_it() {
    // HA-53: with L asked for it is the agent's, without it is nobody's.
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let (mut link, mut heard) = home_link(&world);
        let home_address = HomeAddress(address(ABSENT));
        let companion = link_local_of(home_address.0);
        let ask = || {
            world.lan.shell("ip -6 neigh flush dev l0");
            world.lan.shell(&format!("sh -c 'ping -c 1 -w 5 {companion}%l0 >/dev/null 2>&1 &'"));
        };
        let entry = || world.lan.shell(&format!("ip -6 neigh show {companion}"));
        let own = world.mobile.shell("cat /sys/class/net/lan0/address");
        let asked_for = |message: &Heard, target: Ipv6Addr| {
            matches!(&message.message, NeighbourMessage::NeighbourSolicitation(it) if it.target == target)
        };
        link.defend(Duration::ZERO, home_address, Defence { link_local: true, router: false });
        assert_eq!(link.defended(), 2);
        ask();
        loop {
            let message = next(&mut heard).await;
            link.heard(Duration::ZERO, &message);
            if asked_for(&message, companion) {
                break;
            }
        }
        eventually("the agent's address", || entry().contains(own.trim()));
        // HA-61: what is for it is not carried on, and its sender is told so by the kernel.
        world.mobile.shell("sysctl -qw net.ipv6.conf.all.forwarding=1");
        let told = world.lan.shell(&format!(
            "sh -c 'ping -c 2 -w 5 {companion}%l0 2>&1 || true'"
        ));
        assert!(told.contains("unreachable") || told.contains("Beyond scope"), "{told}");
        // Later updates of the mobile are without L.
        link.defend(Duration::ZERO, home_address, Defence { link_local: false, router: false });
        assert_eq!(link.defended(), 1);
        let answered = figure(&link, "answered");
        ask();
        eventually("nobody", || entry().contains("FAILED"));
        while let Ok(message) = heard.try_recv() {
            link.heard(Duration::ZERO, &message);
        }
        assert_eq!(figure(&link, "answered"), answered);
    });
}

#[test]
fn who_asks_from_nobody_is_answered_before_all() {
    // HA-56: a returning mobile that looks whether its address is free is told by multicast, as an
    // answer that nobody solicited.
    let Some(world) = World::new() else { return };
    world.mobile.block_on(async || {
        let (mut link, mut heard) = home_link(&world);
        let home_address = HomeAddress(address(ABSENT));
        link.defend(Duration::ZERO, home_address, Defence { link_local: false, router: false });
        world.lan.block_on(async || {
            let (sender, mut answers) = mpsc::channel(16);
            let returning = Neighbours::open(world.lan.index("l0"), sender).unwrap();
            returning.watch(address(ABSENT)).unwrap();
            returning.check_duplicate(address(ABSENT)).unwrap();
            let asked = next(&mut heard).await;
            assert!(asked.source.is_unspecified(), "{asked:?}");
            link.heard(Duration::ZERO, &asked);
            let answer = next(&mut answers).await;
            let NeighbourMessage::NeighbourAdvertisement(said) = &answer.message else {
                panic!("{answer:?}");
            };
            assert_eq!((answer.destination, said.target), (ALL_NODES, address(ABSENT)));
            assert!(!said.solicited && said.overrides && !said.router, "{said:?}");
            assert_eq!(
                said.target_link_layer.map(|it| it.to_string()),
                Some(world.mobile.shell("cat /sys/class/net/lan0/address").trim().to_owned())
            );
        });
    });
}
