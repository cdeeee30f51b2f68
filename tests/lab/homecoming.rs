//! A mobile router goes home and leaves again, with an idle neighbour on the home link as witness.

use std::net::Ipv6Addr;

use mtun::control::documents::{BindingPhase, StatusDocument};
use mtun::edge::neighbours::{Heard, Neighbours};
use mtun::lab::daemons::{Daemon, cached};
use mtun::lab::flows::{Kind, Services, TcpFlow};
use mtun::lab::namespace::wait_for;
use mtun::lab::policy::PolicyText;
use mtun::lab::probe::{Bound, Echo, INTERVAL, Probe};
use mtun::lab::world::{Plan, World, address};
use mtun_signaling::wire::icmpv6::neighbour_discovery::{
    LinkLayerAddress, NeighbourAdvertisement, NeighbourMessage,
};
use tokio::sync::mpsc;

use crate::fixture::{Lab, PATIENCE};
use crate::need_lab;

/// Hears all that is said on the home link about the home address, and says nothing.
struct Witness {
    heard: mpsc::Receiver<Heard>,
    _neighbours: Neighbours,
}

impl Witness {
    /// On the home link of a world whose router is plugged in there.
    fn new(world: &World) -> Self {
        let index = world.home.interface_index("br0").expect("the router is plugged in");
        let (sender, heard) = mpsc::channel(4096);
        let neighbours = world.home.run(|| Neighbours::open(index, sender)).unwrap();
        neighbours.watch(address::HOME).unwrap();
        Self { heard, _neighbours: neighbours }
    }

    /// What was heard since the last time.
    fn heard(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }

    /// Waits until `from` has advertised the home address to all nodes so often; gives all that
    /// was heard.
    fn announcements(&mut self, from: LinkLayerAddress, count: usize) -> Vec<Heard> {
        let mut all = Vec::new();
        wait_for("advertisements to all nodes", PATIENCE, || {
            all.extend(self.heard());
            (advertised(&all, from).filter(|it| !it.solicited).count() >= count).then_some(())
        })
        .unwrap();
        all
    }
}

/// The advertisements of one sender.
fn advertised(
    heard: &[Heard],
    from: LinkLayerAddress,
) -> impl Iterator<Item = &NeighbourAdvertisement> {
    heard.iter().filter(move |it| it.from == from).filter_map(|it| match &it.message {
        NeighbourMessage::NeighbourAdvertisement(message) => Some(message),
        _ => None,
    })
}

/// The link-layer address of an interface.
fn link_layer(world: &World, interface: &str) -> LinkLayerAddress {
    let links = world.mr.ip_json(&format!("link show dev {interface}")).unwrap();
    let text = links[0]["address"].as_str().unwrap();
    let octets: Vec<u8> =
        text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    LinkLayerAddress(octets.try_into().unwrap())
}

fn phase(status: &StatusDocument, link: &str) -> Option<BindingPhase> {
    let mut bindings = status.bindings.iter();
    let found = bindings.find(|it| it.link.as_ref().is_some_and(|it| it.as_str() == link));
    found.map(|it| it.phase)
}

/// Waits until the home link carries the home address.
fn at_home(lab: &Lab) -> StatusDocument {
    let is_home = |status: &StatusDocument| {
        let mut bindings = status.bindings.iter();
        bindings.any(|it| it.phase == BindingPhase::AtHome && it.usable)
    };
    lab.mobile().wait_until("the home link to be used", PATIENCE, is_home).unwrap()
}

/// Runs a probe for so many packets more.
fn let_run(probe: &Probe, count: u32) {
    let goal = probe.mark() + count;
    wait_for("probes to be sent", PATIENCE, || (probe.mark() >= goal).then_some(())).unwrap();
}

/// The link by which a program's packets leave at present.
fn leaves_by(lab: &Lab, port: u16) -> Option<String> {
    let flows = lab.mobile().flows().unwrap();
    let flow = flows.iter().find(|flow| flow.key.source_port == Some(port))?;
    Some(flow.outbound.as_ref()?.link.as_ref()?.to_string())
}

/// req MN-01, MN-13, MN-14, MR-07.
#[test]
fn home_alone_and_away_again_without_a_packet_lost_on_the_way_home() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default().with_home_uplink("home"));
    lab.registered(&["wlan0", "wwan0"]);
    let echo = Echo::start(&lab.world.cn).unwrap();
    let probe = Probe::start(&lab.world.mr, &echo, INTERVAL, &Bound::Nowhere).unwrap();
    probe.wait_for_echo_after(1, PATIENCE).unwrap();

    // Home, while two foreign links live.
    let mark = probe.mark();
    lab.world.attach_home().unwrap();
    let mut witness = Witness::new(&lab.world);
    let status = at_home(&lab);
    assert_eq!(phase(&status, "wlan0"), Some(BindingPhase::Idle), "held in reserve");
    assert_eq!(cached(&lab.agent().status().unwrap()), Vec::<std::net::IpAddr>::new());
    let_run(&probe, 500);
    let tally = probe.tally_since(mark);
    for (way, tally) in [("out", tally.outbound), ("in", tally.inbound)] {
        assert_eq!((tally.lost, tally.duplicated), (0, 0), "{way}: {}", lab.mobile().story());
    }
    assert_eq!(leaves_by(&lab, probe.port()).as_deref(), Some("eth0"));
    let own = [std::net::SocketAddrV6::new(address::HOME, probe.port(), 0, 0)];
    assert_eq!(probe.sources(), own, "one source, wherever the router is");

    // All nodes are told, three times, that the home address is the router's.
    let router = link_layer(&lab.world, "eth0");
    let heard = witness.announcements(router, 3);
    for message in advertised(&heard, router).filter(|it| !it.solicited) {
        assert_eq!(message.target, address::HOME);
        assert!(message.overrides && message.target_link_layer == Some(router), "{message:?}");
    }
    // Whoever looked for the agent did so from nobody, and nobody checked for duplicates but so.
    let asked = heard.iter().filter(|it| {
        it.from == router && matches!(it.message, NeighbourMessage::NeighbourSolicitation(_))
    });
    for it in asked {
        assert_eq!(it.source, Ipv6Addr::UNSPECIFIED, "{it:?}");
    }

    // Away: registered anew, and the home link hears nothing of the router any more.
    lab.world.home_down().unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    let mark = probe.mark();
    probe.wait_for_echo_after(mark, PATIENCE).unwrap();
    let_run(&probe, 200);
    let tally = probe.tally_since(probe.mark().saturating_sub(100));
    assert_eq!((tally.outbound.lost, tally.inbound.lost), (0, 0));
    lab.assert_clean();
}

/// req MN-36: what is not used is not spoken on.
#[test]
fn the_home_link_is_left_unused_where_the_policy_says_so() {
    need_lab!();
    let lab = Lab::start(Plan::default(), PolicyText::default().with_home_uplink("foreign"));
    lab.registered(&["wlan0", "wwan0"]);
    let echo = Echo::start(&lab.world.cn).unwrap();
    let probe = Probe::start(&lab.world.mr, &echo, INTERVAL, &Bound::Nowhere).unwrap();
    probe.wait_for_echo_after(1, PATIENCE).unwrap();
    let mark = probe.mark();
    lab.world.attach_home().unwrap();
    let mut witness = Witness::new(&lab.world);
    let is_home = |status: &StatusDocument| status.links.iter().any(|link| link.home_link);
    lab.mobile().wait_until("the home link to be known", PATIENCE, is_home).unwrap();
    let_run(&probe, 300);
    let tally = probe.tally_since(mark);
    assert_eq!((tally.outbound.lost, tally.inbound.lost), (0, 0));
    lab.registered(&["wlan0", "wwan0"]);
    assert_eq!(leaves_by(&lab, probe.port()).as_deref(), Some("wlan0"));
    let router = link_layer(&lab.world, "eth0");
    assert_eq!(advertised(&witness.heard(), router).count(), 0, "nobody hears of the router");
    lab.assert_clean();
}

/// req MN-14.
#[test]
fn killed_at_home_and_started_again() {
    need_lab!();
    let mut lab = Lab::start(Plan::default(), PolicyText::default().with_home_uplink("home"));
    lab.registered(&["wlan0", "wwan0"]);
    lab.world.attach_home().unwrap();
    at_home(&lab);
    let echo = Echo::start(&lab.world.cn).unwrap();
    let probe = Probe::start(&lab.world.mr, &echo, INTERVAL, &Bound::Nowhere).unwrap();
    probe.wait_for_echo_after(1, PATIENCE).unwrap();

    // Dead, it answers for nothing: on the home link no trace of it is left.
    lab.mobile.take().unwrap().process.kill().unwrap();
    assert!(!lab.world.has_address(address::HOME, "eth0"), "it was never there");
    lab.start_mobile(&[]);
    let status = at_home(&lab);
    assert_eq!(phase(&status, "eth0"), Some(BindingPhase::AtHome));
    let mark = probe.mark();
    probe.wait_for_echo_after(mark, PATIENCE).unwrap();

    // Stopped, it leaves nothing either, and the agent holds nothing.
    lab.mobile.take().unwrap().process.stop().unwrap();
    assert_eq!(cached(&lab.agent().status().unwrap()), Vec::<std::net::IpAddr>::new());
    lab.assert_clean();
}

/// What a daemon counts of home links.
fn counted(daemon: &Daemon, what: &str) -> u64 {
    let figures = Lab::metrics(daemon).home_links;
    figures.iter().filter(|figure| figure.what == what).map(|figure| figure.count).sum()
}

/// req MC-20, MC-21.
#[test]
fn home_and_foreign_at_once_and_the_rules_choose() {
    need_lab!();
    // Datagrams by the home link, SSH by W-CDMA as ever.
    let text = PolicyText::default()
        .with_home_uplink("both")
        .with("        prefer wlan0 wwan0\n", "        prefer eth0 wlan0 wwan0\n")
        .with("expect rule=default via=wlan0\n", "expect rule=default via=eth0\n")
        .with(
            "expect rule=default via=wwan0 { given wlan0=down }",
            "expect rule=default via=wwan0 { given wlan0=down eth0=down }",
        );
    let lab = Lab::start(Plan::default(), text);
    lab.registered(&["wlan0", "wwan0"]);
    let echo = Echo::start(&lab.world.cn).unwrap();
    let probe = Probe::start(&lab.world.mr, &echo, INTERVAL, &Bound::Nowhere).unwrap();
    probe.wait_for_echo_after(1, PATIENCE).unwrap();
    let _services = Services::start(&lab.world.cn).unwrap();
    let ssh = TcpFlow::connect(&lab.world.mr, Kind::Ssh, PATIENCE).unwrap();
    ssh.wait_for_progress(PATIENCE).unwrap();

    let mark = probe.mark();
    lab.world.attach_home().unwrap();
    let mut witness = Witness::new(&lab.world);
    lab.registered(&["eth0", "wlan0", "wwan0"]);
    let_run(&probe, 500);
    let tally = probe.tally_since(mark);
    assert_eq!((tally.outbound.lost, tally.inbound.lost), (0, 0), "{}", lab.mobile().story());
    // No flow is moved for a better link without `failback`; a new one takes it.
    assert_eq!(leaves_by(&lab, probe.port()).as_deref(), Some("wlan0"));
    let probe = Probe::start(&lab.world.mr, &echo, INTERVAL, &Bound::Nowhere).unwrap();
    probe.wait_for_echo_after(1, PATIENCE).unwrap();
    assert_eq!(leaves_by(&lab, probe.port()).as_deref(), Some("eth0"));
    assert_eq!(leaves_by(&lab, ssh.local().port()).as_deref(), Some("wwan0"));
    ssh.wait_for_progress(PATIENCE).unwrap();
    assert!(cached(&lab.agent().status().unwrap()).contains(&address::HOME.into()));

    // Status 5: the agent answers for the home address, before and after; the router never does.
    let router = link_layer(&lab.world, "eth0");
    lab.world.home.exec(&format!("ping -q -c 1 -W 5 {}", address::HOME)).unwrap();
    let heard = witness.heard();
    assert_eq!(advertised(&heard, router).count(), 0, "{heard:#?}");
    assert_eq!(counted(lab.mobile(), "announced") + counted(lab.mobile(), "answered"), 0);

    // Leaving: the others stay as they are, and the datagrams follow.
    lab.world.home_down().unwrap();
    lab.registered(&["wlan0", "wwan0"]);
    let gone = |status: &StatusDocument| !cached(status).contains(&address::HOME.into());
    lab.agent().wait_until("the home binding to end", PATIENCE, gone).unwrap();
    let mark = probe.mark();
    probe.wait_for_echo_after(mark, PATIENCE).unwrap();
    ssh.wait_for_progress(PATIENCE).unwrap();
    lab.assert_clean();
}
