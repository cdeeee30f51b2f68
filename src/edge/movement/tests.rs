use super::*;

const WLAN: u32 = 3;
const WWAN: u32 = 4;

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn facts(index: u32, name: &str) -> LinkFacts {
    let link_layer = index == WLAN;
    LinkFacts { index, name: name.into(), up: true, carrier: true, link_layer, mtu: 1500, falls: 0 }
}

fn link(index: u32, name: &str) -> LinkEvent {
    LinkEvent::Link(facts(index, name))
}

const GOOD: AddressFacts = AddressFacts {
    global: true,
    tentative: false,
    duplicate: false,
    deprecated: false,
    temporary: false,
};

fn has(index: u32, text: &str, facts: AddressFacts) -> LinkEvent {
    LinkEvent::Address { index, address: address(text), facts }
}

fn route(metric: u32, destination: &str, router: Option<&str>) -> RouteFacts {
    RouteFacts { metric, destination: destination.parse().unwrap(), router: router.map(address) }
}

fn default_by(index: u32, router: Option<&str>) -> LinkEvent {
    LinkEvent::Route { index, route: route(1024, "::/0", router), replaces: false }
}

/// The default route by a router of which nothing has been heard, in the place of the first.
fn default_by_other() -> LinkEvent {
    let route = route(1024, "::/0", Some("fe80::2"));
    LinkEvent::Route { index: WLAN, route, replaces: true }
}

fn neighbour(text: &str, reachable: bool) -> LinkEvent {
    LinkEvent::Neighbour { index: WLAN, address: address(text), reachable }
}

fn movements() -> Movements {
    let own = ["2001:db8:100::42/128", "2001:db8:100:4200::/56"];
    let own = own.iter().map(|it| it.parse().unwrap()).collect();
    Movements::new(["wlan0".into(), "wwan0".into()], own)
}

/// `wlan0 up 2001:db8:1::7 via fe80::1` or `wlan0 down: no carrier`.
fn text(movements: &[Movement]) -> Vec<String> {
    let router = |it: Option<Ipv6Addr>| it.map(|it| format!(" via {it}")).unwrap_or_default();
    let one = |movement: &Movement| match movement {
        Movement::CareOfUp(at) => {
            format!("{} up {}{}", at.interface, at.care_of, router(at.router))
        }
        Movement::CareOfDown { interface, reason } => format!("{interface} down: {reason}"),
    };
    movements.iter().map(one).collect()
}

fn attached() -> Movements {
    let mut movements = movements();
    movements.handle(LinkEvent::Everything(vec![
        link(WLAN, "wlan0"),
        has(WLAN, "2001:db8:1::7", GOOD),
        default_by(WLAN, Some("fe80::1")),
        neighbour("fe80::1", true),
    ]));
    assert!(movements.state(&"wlan0".into()).is_ok());
    movements
}

/// req MN-02, MN-36, MR-14.
#[test]
fn a_care_of_address_needs_all_of_it() {
    let address_is = |change: fn(&mut AddressFacts)| {
        let mut facts = GOOD;
        change(&mut facts);
        has(WLAN, "2001:db8:1::7", facts)
    };
    let link_is = |change: fn(&mut LinkFacts)| {
        let mut facts = facts(WLAN, "wlan0");
        change(&mut facts);
        LinkEvent::Link(facts)
    };
    let gone = LinkEvent::AddressGone { index: WLAN, address: address("2001:db8:1::7") };
    let no_route =
        LinkEvent::RouteGone { index: WLAN, route: route(1024, "::/0", Some("fe80::1")) };
    let cases = [
        (link_is(|it| it.up = false), DownReason::LinkDown),
        (link_is(|it| it.carrier = false), DownReason::NoCarrier),
        (link_is(|it| it.name = "wlan1".into()), DownReason::NoInterface),
        (LinkEvent::LinkGone(WLAN), DownReason::NoInterface),
        (gone, DownReason::NoAddress),
        (address_is(|it| it.global = false), DownReason::NoAddress),
        (address_is(|it| it.tentative = true), DownReason::Tentative),
        (address_is(|it| it.duplicate = true), DownReason::DuplicateAddress),
        (no_route, DownReason::NoRouter),
        (neighbour("fe80::1", false), DownReason::RouterUnreachable),
        (default_by_other(), DownReason::RouterSought),
        (LinkEvent::Everything(vec![]), DownReason::NoInterface),
    ];
    for (event, reason) in cases {
        let mut movements = attached();
        let down = Movement::CareOfDown { interface: "wlan0".into(), reason };
        assert_eq!(movements.handle(event.clone()), [down], "{event:?}");
        assert_eq!(movements.state(&"wlan0".into()), Err(reason));
        assert_eq!(movements.handle(event), [], "told once");
    }
}

/// req MN-13, MN-36: the home link is known by its prefix, and needs no address of its own.
#[test]
fn the_prefix_of_a_home_address_makes_the_home_link() {
    let on_link = |prefix: &str| {
        let route = route(256, prefix, None);
        LinkEvent::Route { index: WLAN, route, replaces: false }
    };
    let homes = |movements: &Movements| {
        let at = movements.state(&"wlan0".into()).unwrap();
        (at.home_links.into_iter().collect::<Vec<_>>(), at.care_of)
    };
    let (home, abroad) = (address("2001:db8:100::42"), address("2001:db8:1::7"));
    let mut movements = attached();
    for prefix in ["2001:db8:1::/64", "2001:db8:100:4200::/64", "2001:db8:100::42/128", "::/0"] {
        movements.handle(on_link(prefix));
        assert_eq!(homes(&movements), (vec![], abroad), "{prefix}");
    }
    movements.handle(on_link("2001:db8:100::/64"));
    assert_eq!(homes(&movements), (vec![home], abroad));
    // Its own address there is for homes whose home link this is not.
    movements.handle(LinkEvent::AddressGone { index: WLAN, address: abroad });
    assert_eq!(homes(&movements), (vec![home], home));
    movements.handle(has(WLAN, "2001:db8:100::77", GOOD));
    assert_eq!(homes(&movements), (vec![home], address("2001:db8:100::77")));
    movements
        .handle(LinkEvent::RouteGone { index: WLAN, route: route(256, "2001:db8:100::/64", None) });
    assert_eq!(homes(&movements), (vec![], address("2001:db8:100::77")));
}

/// req MN-02, MN-36.
#[test]
fn an_uplink_comes_up_when_detection_ends() {
    let mut movements = movements();
    let tentative = AddressFacts { tentative: true, ..GOOD };
    for event in [
        link(WLAN, "wlan0"),
        has(WLAN, "fe80::7", AddressFacts { global: false, ..GOOD }),
        has(WLAN, "2001:db8:1::7", tentative),
        default_by(WLAN, Some("fe80::1")),
        neighbour("fe80::1", true),
    ] {
        assert_eq!(movements.handle(event), []);
    }
    let up = movements.handle(has(WLAN, "2001:db8:1::7", GOOD));
    assert_eq!(text(&up), ["wlan0 up 2001:db8:1::7 via fe80::1"]);
}

#[test]
fn a_link_without_a_link_layer_needs_no_router() {
    let mut movements = movements();
    movements.handle(link(WWAN, "wwan0"));
    movements.handle(has(WWAN, "2001:db8:2::7", GOOD));
    assert_eq!(movements.state(&"wwan0".into()), Err(DownReason::NoRouter));
    let up = movements.handle(default_by(WWAN, None));
    assert_eq!(text(&up), ["wwan0 up 2001:db8:2::7"]);
    // An Ethernet without a router would leave the next hop open.
    movements.handle(link(WLAN, "wlan0"));
    movements.handle(has(WLAN, "2001:db8:1::7", GOOD));
    assert_eq!(movements.handle(default_by(WLAN, None)), []);
    assert_eq!(movements.state(&"wlan0".into()), Err(DownReason::NoRouter));
}

#[test]
fn the_best_address_is_taken_and_kept() {
    let deprecated = AddressFacts { deprecated: true, ..GOOD };
    let temporary = AddressFacts { temporary: true, ..GOOD };
    type Case<'a> = (&'a str, &'a [(&'a str, AddressFacts)], &'a str);
    let cases: &[Case<'_>] = &[
        ("preferred", &[("2001:db8:1::1", deprecated), ("2001:db8:1::2", GOOD)], "2001:db8:1::2"),
        ("better than none", &[("2001:db8:1::1", deprecated)], "2001:db8:1::1"),
        ("lasting", &[("2001:db8:1::1", temporary), ("2001:db8:1::2", GOOD)], "2001:db8:1::2"),
        ("worldwide", &[("2001:db8:1::1", GOOD), ("fd00::1", GOOD)], "2001:db8:1::1"),
        ("not home", &[("2001:db8:100::42", GOOD), ("2001:db8:1::9", GOOD)], "2001:db8:1::9"),
        (
            "not our net",
            &[("2001:db8:100:42ff::1", GOOD), ("2001:db8:1::9", GOOD)],
            "2001:db8:1::9",
        ),
    ];
    for (what, addresses, want) in cases {
        let mut movements = movements();
        let router = neighbour("fe80::1", true);
        let mut events = vec![link(WLAN, "wlan0"), default_by(WLAN, Some("fe80::1")), router];
        events.extend(addresses.iter().map(|(text, facts)| has(WLAN, text, *facts)));
        let up = movements.handle(LinkEvent::Everything(events));
        assert_eq!(text(&up), [format!("wlan0 up {want} via fe80::1")], "{what}");
    }
    let mut movements = attached();
    let more = movements.handle(has(WLAN, "2001:db8:1::1", GOOD));
    assert_eq!(text(&more), ["wlan0 up 2001:db8:1::7 via fe80::1"], "kept, and one more");
    let moved = movements.handle(has(WLAN, "2001:db8:1::7", deprecated));
    assert_eq!(text(&moved), ["wlan0 up 2001:db8:1::1 via fe80::1"]);
}

/// req MN-03.
#[test]
fn another_router_takes_over() {
    let mut movements = attached();
    let second = LinkEvent::Route {
        index: WLAN,
        route: route(2048, "::/0", Some("fe80::2")),
        replaces: false,
    };
    assert_eq!(movements.handle(second), []);
    assert_eq!(movements.sought_routers(), [(WLAN, address("fe80::2"))]);
    assert_eq!(movements.handle(neighbour("fe80::2", true)), []);
    let failed = movements.handle(neighbour("fe80::1", false));
    assert_eq!(text(&failed), ["wlan0 up 2001:db8:1::7 via fe80::2"]);
    assert_eq!(movements.sought_routers(), [(WLAN, address("fe80::1"))]);
    let back = movements.handle(neighbour("fe80::1", true));
    assert_eq!(text(&back), ["wlan0 up 2001:db8:1::7 via fe80::1"]);
    assert_eq!(movements.sought_routers(), []);
    // The same route by another router, put in the place of the first.
    let other = LinkEvent::Route {
        index: WLAN,
        route: route(1024, "::/0", Some("fe80::3")),
        replaces: true,
    };
    movements.handle(neighbour("fe80::3", true));
    assert_eq!(text(&movements.handle(other)), ["wlan0 up 2001:db8:1::7 via fe80::3"]);
}

#[test]
fn carrier_makes_a_router_new() {
    let mut movements = attached();
    movements.handle(LinkEvent::Link(LinkFacts { carrier: false, ..facts(WLAN, "wlan0") }));
    assert_eq!(movements.sought_routers(), [], "nobody can be asked without carrier");
    // The far end may not be ready: what is sent before its router answers is lost.
    assert_eq!(movements.handle(link(WLAN, "wlan0")), []);
    assert_eq!(movements.state(&"wlan0".into()), Err(DownReason::RouterSought));
    assert_eq!(movements.sought_routers(), [(WLAN, address("fe80::1"))]);
    let up = movements.handle(neighbour("fe80::1", true));
    assert_eq!(text(&up), ["wlan0 up 2001:db8:1::7 via fe80::1"]);
}

#[test]
fn interfaces_come_late_and_change_names() {
    let mut movements = attached();
    // Another index under the same name, as when a modem is plugged in again.
    let renamed = movements.handle(link(WLAN, "old0"));
    assert_eq!(text(&renamed), ["wlan0 down: no such interface"]);
    movements.handle(has(9, "2001:db8:9::7", GOOD));
    movements.handle(default_by(9, Some("fe80::9")));
    let answers = LinkEvent::Neighbour { index: 9, address: address("fe80::9"), reachable: true };
    movements.handle(answers);
    let up = movements.handle(link(9, "wlan0"));
    assert_eq!(text(&up), ["wlan0 up 2001:db8:9::7 via fe80::9"]);
    assert_eq!(movements.active(), [9]);
    let other = movements.reconfigure(["old0".into()], vec![]);
    assert_eq!(text(&other), ["old0 up 2001:db8:1::7 via fe80::1", "wlan0 down: not configured"]);
}

#[test]
fn lost_reports_change_only_what_has_changed() {
    let mut movements = attached();
    let same = vec![
        default_by(WLAN, Some("fe80::1")),
        link(WLAN, "wlan0"),
        has(WLAN, "2001:db8:1::7", GOOD),
    ];
    assert_eq!(movements.handle(LinkEvent::Everything(same.clone())), []);
    let more = same.into_iter().chain([
        link(WWAN, "wwan0"),
        has(WWAN, "2001:db8:2::7", GOOD),
        default_by(WWAN, None),
    ]);
    let up = movements.handle(LinkEvent::Everything(more.collect()));
    assert_eq!(text(&up), ["wwan0 up 2001:db8:2::7"]);
}

/// A8: a detector outside drives a link, and ours is silent meanwhile.
#[test]
fn what_a_detector_outside_says_counts_until_it_gives_the_link_back() {
    let wlan0 = InterfaceName::from("wlan0");
    let mut movements = attached();
    let down = movements.claim(&wlan0, Some(Said::Nothing)).unwrap();
    assert_eq!(text(&down), ["wlan0 down: its movement detector says so"]);
    assert!(movements.is_claimed(&wlan0));
    // What would bring it up changes nothing.
    assert_eq!(text(&movements.handle(neighbour("fe80::1", true))), [""; 0]);
    assert_eq!(text(&movements.handle(has(WLAN, "2001:db8:1::8", GOOD))), [""; 0]);
    let chosen = Said::CareOf(Some(address("2001:db8:1::8")));
    let up = movements.claim(&wlan0, Some(chosen)).unwrap();
    assert_eq!(text(&up), ["wlan0 up 2001:db8:1::8 via fe80::1"]);
    // A router that is given up and a carrier that is lost are for the detector to judge.
    assert_eq!(text(&movements.handle(neighbour("fe80::1", false))), [""; 0]);
    let no_carrier = LinkEvent::Link(LinkFacts { carrier: false, ..facts(WLAN, "wlan0") });
    assert_eq!(text(&movements.handle(no_carrier)), [""; 0]);
    // Given back, ours judges by what it knows.
    let back = movements.claim(&wlan0, None).unwrap();
    assert_eq!(text(&back), ["wlan0 down: no carrier"]);
}

#[test]
fn a_detector_outside_cannot_say_what_cannot_be() {
    let wlan0 = InterfaceName::from("wlan0");
    let mut movements = attached();
    let tentative = AddressFacts { tentative: true, ..GOOD };
    movements.handle(has(WLAN, "2001:db8:1::9", tentative));
    let mut say = |text| movements.claim(&wlan0, Some(Said::CareOf(Some(address(text)))));
    assert_eq!(say("2001:db8:1::99"), Err(DownReason::NoAddress));
    assert_eq!(say("2001:db8:1::9"), Err(DownReason::Tentative));
    assert_eq!(say("2001:db8:100:4200::1"), Err(DownReason::NoAddress), "one of our own");
    assert!(!movements.is_claimed(&wlan0), "what was refused claims nothing");
    let other = InterfaceName::from("wwan0");
    let any = movements.claim(&other, Some(Said::CareOf(None)));
    assert_eq!(any, Err(DownReason::NoInterface));
    // What becomes impossible ends it, and the claim stays.
    movements.claim(&wlan0, Some(Said::CareOf(None))).unwrap();
    let off = LinkEvent::Link(LinkFacts { up: false, ..facts(WLAN, "wlan0") });
    assert_eq!(text(&movements.handle(off)), ["wlan0 down: link down"]);
    assert_eq!(
        text(&movements.handle(link(WLAN, "wlan0"))),
        ["wlan0 up 2001:db8:1::7 via fe80::1"]
    );
}

#[test]
fn a_detector_outside_says_which_link_is_home() {
    let wlan0 = InterfaceName::from("wlan0");
    let mut movements = attached();
    let home = address("2001:db8:100::42");
    let at_home = movements.claim(&wlan0, Some(Said::Home(home))).unwrap();
    let [Movement::CareOfUp(attachment)] = at_home.as_slice() else { panic!("{at_home:?}") };
    assert_eq!(attachment.home_links, BTreeSet::from([home]));
    assert_eq!(attachment.care_of, address("2001:db8:1::7"));
    let abroad = movements.claim(&wlan0, Some(Said::CareOf(None))).unwrap();
    assert_eq!(text(&abroad), ["wlan0 up 2001:db8:1::7 via fe80::1"]);
}

/// F-08: a plug that is loose at 50 Hz for a minute is told of a few times, and used again within
/// two seconds of its end.
#[test]
fn a_link_that_flaps_is_watched_until_it_stays() {
    let mut movements = attached();
    let ms = Duration::from_millis;
    let carrier = |carrier| {
        let mut facts = facts(WLAN, "wlan0");
        facts.carrier = carrier;
        LinkEvent::Link(facts)
    };
    let mut told = Vec::new();
    for flap in 0..3000 {
        told.extend(movements.advance(ms(flap * 20)));
        told.extend(movements.handle(carrier(false)));
        told.extend(movements.advance(ms(flap * 20 + 10)));
        told.extend(movements.handle(carrier(true)));
        told.extend(movements.handle(neighbour("fe80::1", true)));
    }
    let up = "wlan0 up 2001:db8:1::7 via fe80::1";
    let down = "wlan0 down: no carrier";
    let watched = "wlan0 down: comes and goes: it is used once it stays";
    assert_eq!(text(&told), [down, up, down, up, down, up, down, watched]);
    assert_eq!(movements.state(&"wlan0".into()), Err(DownReason::Unsteady));
    let end = ms(2999 * 20 + 10);
    let due = movements.deadline().expect("it is watched");
    assert_eq!(due - end, ms(1600));
    assert_eq!(movements.advance(due - ms(1)), []);
    assert_eq!(text(&movements.advance(due)), [up]);
    assert!(movements.state(&"wlan0".into()).is_ok());
    assert_eq!(movements.deadline(), None);
}

/// Another care-of address each 10 ms: the one before is kept while it serves, else the link is
/// down until one stays.
#[test]
fn care_of_addresses_that_change_all_the_time_are_watched() {
    let mut movements = attached();
    let ms = Duration::from_millis;
    let address_at = |number: u64| format!("2001:db8:1::{:x}", number + 7);
    let mut told = Vec::new();
    for number in 0..100_u64 {
        told.extend(movements.advance(ms(number * 10)));
        let address = address(&address_at(number));
        told.extend(movements.handle(LinkEvent::AddressGone { index: WLAN, address }));
        told.extend(movements.handle(has(WLAN, &address_at(number + 1), GOOD)));
    }
    assert_eq!(told.len(), 8, "{:?}", text(&told));
    let last = text(&movements.advance(ms(990 + 1600)));
    assert_eq!(last, [format!("wlan0 up {} via fe80::1", address_at(100))]);

    // A better address that comes and goes: in the end the lasting one is kept while it does.
    let mut movements = attached();
    movements.handle(has(WLAN, "2001:db8:1::7", AddressFacts { deprecated: true, ..GOOD }));
    let better = address("2001:db8:1::6");
    let come_and_go = |movements: &mut Movements, from: u64| {
        let mut told = Vec::new();
        for number in 0..50 {
            told.extend(movements.advance(ms(from + number * 10)));
            told.extend(movements.handle(has(WLAN, "2001:db8:1::6", GOOD)));
            told.extend(movements.handle(LinkEvent::AddressGone { index: WLAN, address: better }));
        }
        told
    };
    let told = come_and_go(&mut movements, 0);
    assert!(told.len() <= 4, "{:?}", text(&told));
    let last = text(&movements.advance(ms(2200)));
    assert_eq!(last, ["wlan0 up 2001:db8:1::7 via fe80::1"]);
    assert_eq!(come_and_go(&mut movements, 2200), []);
    assert_eq!(movements.state(&"wlan0".into()).map(|it| it.care_of), Ok(address("2001:db8:1::7")));
}

/// Further addresses of a link are no movement, and a storm of them is told ten times a second.
#[test]
fn small_changes_are_told_a_few_times_and_the_last_one_always() {
    let mut movements = attached();
    let ms = Duration::from_millis;
    let mut told = 0;
    for number in 0..1000_u64 {
        told += movements.advance(ms(2000 + number)).len();
        let further = format!("2001:db8:1::1:{number:x}");
        told += movements.handle(has(WLAN, &further, GOOD)).len();
    }
    assert_eq!(told, 10);
    let due = movements.deadline().expect("the last ones wait");
    assert!(due <= ms(3010), "{due:?}");
    let last = movements.advance(due);
    assert!(matches!(&last[..], [Movement::CareOfUp(at)] if at.addresses.len() == 1001));
}

/// A movement detector outside answers for what it says: its link is not watched.
#[test]
fn what_a_detector_says_is_told_as_it_says_it() {
    let mut movements = attached();
    let mut told = Vec::new();
    for _ in 0..20 {
        told.extend(movements.claim(&"wlan0".into(), Some(Said::Nothing)).unwrap());
        told.extend(movements.claim(&"wlan0".into(), Some(Said::CareOf(None))).unwrap());
    }
    assert_eq!(told.len(), 40, "{:?}", text(&told));
    assert_eq!(movements.deadline(), None);
}

/// One that has to stay is asked for all of it, which tells falls that nobody saw.
#[test]
fn a_fall_between_two_reports_begins_the_stay_anew() {
    let mut movements = attached();
    let with =
        |carrier, falls| LinkEvent::Link(LinkFacts { carrier, falls, ..facts(WLAN, "wlan0") });
    let calm = Watched { calm: vec![WLAN], restless: vec![] };
    let mut falls = 0;
    for _ in 0..4 {
        assert_eq!(movements.watched(), calm, "after {falls}");
        falls += 1;
        movements.handle(with(false, falls));
        movements.handle(with(true, falls));
        movements.handle(neighbour("fe80::1", true));
    }
    let wlan0 = InterfaceName::from("wlan0");
    assert_eq!((movements.state(&wlan0), movements.falls(&wlan0)), (Err(DownReason::Unsteady), 4));
    let restless = Watched { calm: vec![], restless: vec![WLAN] };
    assert_eq!(movements.watched(), restless);
    let due = movements.deadline().expect("it is watched");
    movements.advance(due - Duration::from_millis(1));
    movements.handle(with(true, falls + 7));
    assert!(movements.deadline().is_some_and(|later| later > due + Duration::from_millis(100)));
    assert_eq!((movements.advance(due), movements.falls(&wlan0)), (vec![], 5), "however many");
    let due = movements.deadline().expect("it is watched still");
    assert_eq!(text(&movements.advance(due)), ["wlan0 up 2001:db8:1::7 via fe80::1"]);
    assert_eq!(movements.watched(), calm);
    // Whose address is used has not fallen as long as nobody has seen it.
    assert_eq!(movements.handle(with(true, falls + 8)), []);
}
