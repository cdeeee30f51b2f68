//! The home link: who answers there for the home address of a mobile that is away.
//!
//! The witness is a host that stays at home and has nothing to do with mobility.

use mtun::control::documents::StatusDocument;
use mtun::lab::daemons::{Arguments, Daemon, Place, cached};
use mtun::lab::namespace::{Namespace, wait_for};
use mtun::lab::policy::PolicyText;
use mtun::lab::world::{Plan, World, address};

use crate::beyond::with_extensions;
use crate::fixture::{Lab, PATIENCE, programs};
use crate::need_lab;

/// Duplicates are looked for on the home link, quickly.
pub fn looking(world: &World) {
    for (key, value) in [
        ("ipv6/conf/home0/accept_dad", "1"),
        ("ipv6/conf/home0/dad_transmits", "1"),
        ("ipv6/neigh/home0/retrans_time_ms", "200"),
    ] {
        world.ha.set_sysctl(key, value).unwrap();
    }
}

/// How often the agent did something on its home link.
pub fn count(lab: &Lab, what: &str) -> u64 {
    let figures = Lab::metrics(lab.agent()).home_links;
    figures.iter().filter(|figure| figure.what == what).map(|figure| figure.count).sum()
}

fn defended(status: &StatusDocument) -> u64 {
    status.homes[0].home_link.as_ref().expect("a real home link").defended
}

/// The link-layer address that a host has for another's address, if it has one.
fn entry(host: &Namespace, of: std::net::Ipv6Addr) -> Option<String> {
    let entries = host.ip_json("-6 neighbour show").unwrap();
    let found = entries.as_array()?.iter().find(|it| it["dst"] == of.to_string().as_str())?;
    Some(found["lladdr"].as_str()?.to_owned())
}

fn link_layer(namespace: &Namespace, interface: &str) -> String {
    let links = namespace.ip_json(&format!("link show {interface}")).unwrap();
    links[0]["address"].as_str().expect("Ethernet").to_owned()
}

/// One echo request from the host; whether it was answered.
fn echoes(host: &Namespace, to: std::net::Ipv6Addr) -> bool {
    host.exec(&format!("ping -q -c 1 -W 2 {to}")).is_ok()
}

fn wait_for_agent(agent: &Daemon, what: &str, so: impl Fn(&StatusDocument) -> bool) {
    agent.wait_until(what, PATIENCE, so).unwrap();
}

#[test]
fn a_neighbour_finds_the_agent_while_the_mobile_is_away_and_nobody_when_it_left() {
    need_lab!();
    let mut lab = Lab::with_agent_prepared(Plan::default(), PolicyText::default(), looking);
    let status = lab.agent().status().unwrap();
    assert_eq!(defended(&status), 0, "nobody is away yet");
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    wait_for_agent(lab.agent(), "two bindings", |it| cached(it).len() == 2);
    // HA-20, HA-23: looked for once, not again for the second care-of address.
    assert_eq!((count(&lab, "looked-for"), count(&lab, "duplicates")), (1, 0));
    // HA-50, HA-51: the neighbour's packets reach the mobile by way of the agent.
    let agent = link_layer(&lab.world.ha, "home0");
    wait_for("an answer", PATIENCE, || echoes(&lab.world.home, address::HOME).then_some(()))
        .unwrap();
    assert_eq!(entry(&lab.world.home, address::HOME), Some(agent.clone()));
    // The mobile's network is behind the same address.
    wait_for("an answer", PATIENCE, || echoes(&lab.world.home, address::NODE).then_some(()))
        .unwrap();

    // HA-55: one binding goes and the proxy stays.
    lab.world.wlan_down().unwrap();
    wait_for_agent(lab.agent(), "one binding", |it| cached(it).len() == 1);
    assert_eq!(defended(&lab.agent().status().unwrap()), 1);
    lab.world.home.exec("ip -6 neighbour flush dev eth0").unwrap();
    wait_for("an answer", PATIENCE, || echoes(&lab.world.home, address::HOME).then_some(()))
        .unwrap();
    assert_eq!(entry(&lab.world.home, address::HOME), Some(agent));
    assert!(count(&lab, "answered") > 0, "the neighbour asked");

    // The last goes: nobody answers any more.
    drop(lab.mobile.take());
    wait_for_agent(lab.agent(), "no binding", |it| cached(it).is_empty());
    assert_eq!(defended(&lab.agent().status().unwrap()), 0);
    let answered = count(&lab, "answered");
    lab.world.home.exec("ip -6 neighbour flush dev eth0").unwrap();
    assert!(!echoes(&lab.world.home, address::HOME), "it is nowhere");
    assert_eq!(entry(&lab.world.home, address::HOME), None);
    assert_eq!(count(&lab, "answered"), answered);
    assert_eq!(count(&lab, "unsent"), 0);
    lab.assert_clean();
}

#[test]
fn a_home_address_that_another_node_has_is_refused() {
    need_lab!();
    let mut lab = Lab::with_agent_prepared(Plan::default(), PolicyText::default(), |world| {
        looking(world);
        let take = format!("address add {}/64 dev eth0 nodad", address::HOME);
        world.home.ip(&[&take]).unwrap();
    });
    lab.start_mobile(&[]);
    // HA-22: status 134 for the whole update, and said at both ends.
    let refused = |status: &StatusDocument| {
        let code = |it: &mtun::control::documents::BindingDocument| {
            it.status.as_ref().map(|status| status.code)
        };
        status.bindings.iter().any(|it| code(it) == Some(134))
    };
    lab.mobile().wait_until("status 134", PATIENCE, refused).unwrap();
    let status = lab.agent().status().unwrap();
    assert_eq!((cached(&status).len(), defended(&status)), (0, 0));
    assert!(count(&lab, "duplicates") > 0);
    assert_eq!(count(&lab, "announced"), 0, "nobody else's address is announced");
    let said = lab.agent().story();
    assert!(said.contains("2001:db8:100::42 is refused (status 134)"), "{said}");
    // Its owner keeps it.
    assert!(echoes(&lab.world.ha, address::HOME), "the other node is there");
}

#[test]
fn an_address_is_defended_against_a_neighbour_that_wants_it() {
    need_lab!();
    let mut lab = Lab::with_agent_prepared(Plan::default(), PolicyText::default(), |world| {
        looking(world);
        for (key, value) in [("accept_dad", "1"), ("dad_transmits", "1")] {
            world.home.set_sysctl(&format!("ipv6/conf/eth0/{key}"), value).unwrap();
        }
    });
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    // HA-52: who looks whether it is free is told that it is not. An announcement of the agent
    // that comes while the neighbour looks ends its looking as well, unasked: then it looks again.
    let address = format!("{}/64 dev eth0", address::HOME);
    wait_for("the defence to be counted", PATIENCE, || {
        lab.world.home.ip(&[&format!("address add {address}")]).unwrap();
        wait_for("the neighbour to give up", PATIENCE, || {
            let failed = lab.world.home.exec("ip -6 address show dadfailed").ok();
            failed.filter(|it| it.contains("::42"))
        })
        .unwrap();
        let defended = count(&lab, "defended") > 0;
        if !defended {
            lab.world.home.ip(&[&format!("address del {address}")]).unwrap();
        }
        defended.then_some(())
    })
    .unwrap();
    // HA-57: it changes nothing for the mobile.
    let status = lab.agent().status().unwrap();
    assert_eq!((cached(&status).len(), defended(&status)), (2, 1));
    lab.assert_clean();
}

#[test]
fn on_a_virtual_home_link_nobody_is_asked_and_nobody_answered() {
    need_lab!();
    let text = PolicyText::default().with_virtual_home_link();
    let mut lab = Lab::with_agent_prepared(Plan::default(), text, looking);
    lab.start_mobile(&[]);
    lab.registered(&["wlan0", "wwan0"]);
    // HA-24: no solicitation, no advertisement; the neighbour finds nobody on its link.
    let status = lab.agent().status().unwrap();
    assert_eq!(status.homes[0].home_link, None);
    assert!(Lab::metrics(lab.agent()).home_links.is_empty());
    assert!(!echoes(&lab.world.home, address::HOME), "it is on no link");
    assert_eq!(entry(&lab.world.home, address::HOME), None);
    // From elsewhere it is reached by routing.
    wait_for("an answer", PATIENCE, || echoes(&lab.world.cn, address::HOME).then_some(())).unwrap();
    lab.assert_clean();
}

/// One Home Agent Address Discovery Request from the WLAN's access router, and the reply.
fn discover(lab: &Lab, router: bool) -> Vec<std::net::Ipv6Addr> {
    use mtun_dataplane::backend::{PacketSocket, RECEIVE_BUFFER, Uplink};
    use mtun_dataplane::wire::{discovery_packet, ipv6};
    use mtun_signaling::Envelope;
    use mtun_signaling::wire::icmpv6::{
        self, HomeAgentAddressDiscoveryRequest, IcmpMessage, home_agents_anycast,
    };
    let anycast = home_agents_anycast("2001:db8:100::/64".parse().unwrap());
    let index = lab.world.cn.interface_index("eth0").unwrap();
    lab.world.cn.run(|| {
        let (uplink, socket) = (Uplink::open(None).unwrap(), PacketSocket::open(index).unwrap());
        let envelope = Envelope::plain(address::CORRESPONDENT, anycast);
        let request = HomeAgentAddressDiscoveryRequest { identifier: 4711, router };
        let message =
            icmpv6::emit(&IcmpMessage::HomeAgentAddressDiscoveryRequest(request), &envelope);
        let packet = discovery_packet(envelope.source, envelope.destination, None, None, &message);
        uplink.send(&packet).unwrap();
        let mut buffer = vec![0; RECEIVE_BUFFER];
        wait_for("a reply", PATIENCE, || {
            let received = socket.recv(&mut buffer).unwrap()?;
            let packet = &buffer[received.packet];
            let header = ipv6::Header::parse(packet)?;
            let envelope = Envelope::plain(header.source, header.destination);
            match icmpv6::receive(&envelope, packet.get(ipv6::HEADER..)?) {
                Ok(IcmpMessage::HomeAgentAddressDiscoveryReply(reply)) => {
                    assert_eq!((reply.identifier, reply.router), (4711, router));
                    assert_eq!(header.source, address::AGENT, "HA-70: from its own address");
                    Some(reply.agents)
                }
                _ => None,
            }
        })
        .unwrap()
    })
}

#[test]
fn a_request_to_all_home_agents_is_answered_and_goes_no_further() {
    need_lab!();
    let text = PolicyText::default().with_preference(10);
    let lab = Lab::with_agent_prepared(Plan::default(), text, looking);
    // HA-70, NH-18: alone on the link, and for mobile routers too.
    assert_eq!(discover(&lab, false), [address::AGENT]);
    assert_eq!(discover(&lab, true), [address::AGENT]);
    // It says what it is on its link, so that other agents list it.
    lab.agent()
        .wait_until("its advertisement", PATIENCE, |_| count(&lab, "advertised") > 0)
        .unwrap();
    // Nobody was looked for on the home link in its stead.
    let anycast = "2001:db8:100:0:fdff:ffff:ffff:fffe".parse().unwrap();
    assert_eq!(entry(&lab.world.ha, anycast), None);
}

/// A second agent on the home link, in the place of the host there.
fn second_agent(lab: &Lab, text: &str) -> Daemon {
    let world = &lab.world;
    let directory = world.directory().join("second");
    std::fs::create_dir_all(&directory).unwrap();
    for key in ["acme.key", "laptop.key"] {
        std::fs::copy(world.directory().join("agent").join(key), directory.join(key)).unwrap();
    }
    world.home.ip(&["address add 2001:db8:100::2/64 dev eth0 nodad"]).unwrap();
    let place = Place { namespace: &world.home, directory: &directory, file: "agent.kdl" };
    Daemon::start_at(place, &programs(), text, &Arguments::default()).unwrap()
}

/// Signaling of a daemon that was noted under this reason.
fn noted(daemon: &Daemon, reason: &str) -> u64 {
    Lab::drops(daemon, reason)
}

#[test]
fn a_mobile_finds_its_agents_and_takes_the_next_when_one_refuses() {
    need_lab!();
    let mut text = PolicyText::default()
        .with_preference(20)
        .with("agent \"2001:db8:100::1\"", "agent discover");
    for of in [&mut text.agent, &mut text.mobile] {
        *of = with_extensions(of, "prefix-discovery=#true");
    }
    let second = text.agent.replace(
        "agent=\"2001:db8:100::1\" on=home0 preference=20",
        "agent=\"2001:db8:100::2\" on=eth0 preference=10",
    );
    assert_ne!(second, text.agent);
    // The preferred one serves the mobile, but not the network behind it.
    let granted = "        mobile-network \"2001:db8:100:4200::/64\"\n";
    assert!(text.agent.contains(granted));
    text.agent = text.agent.replace(granted, "").replace(
        "name=\"laptop\" {\n",
        "name=\"laptop\" {\n        mobile-network \"2001:db8:100:4300::/64\"\n",
    );
    let mut lab = Lab::with_agent_prepared(Plan::default(), text, looking);
    let second = second_agent(&lab, &second);
    // HA-72: each agent hears of the other on the home link.
    lab.agent()
        .wait_until("the other agent", PATIENCE, |_| {
            noted(lab.agent(), "signaling-home-agent-appeared") == 1
        })
        .unwrap();
    lab.start_mobile(&[]);
    // MN-27, MR-11: asked for by anycast, the first refuses (142), the second serves.
    let status = lab.registered(&["wlan0", "wwan0"]);
    assert_eq!(status.homes[0].agent.0.to_string(), "2001:db8:100::2");
    assert!(cached(&lab.agent().status().unwrap()).is_empty());
    assert_eq!(cached(&second.status().unwrap()).len(), 2);
    assert!(noted(lab.mobile(), "signaling-home-agents-found") > 0);
    let refused = Lab::metrics(lab.mobile()).binding_updates;
    assert!(refused.iter().any(|it| it.status.starts_with("142") && it.updates > 0), "{refused:?}");
    // MN-28, HA-75: what is the home link? Nobody had said.
    lab.mobile()
        .wait_until("the home prefix", PATIENCE, |_| {
            noted(lab.mobile(), "signaling-home-prefixes") == 1
        })
        .unwrap();
    let story = lab.mobile().story();
    assert!(story.contains("the home link has 2001:db8:100::/64"), "{story}");
    // And packets find the way.
    wait_for("an answer", PATIENCE, || echoes(&lab.world.cn, address::HOME).then_some(())).unwrap();
    lab.assert_clean();
}

/// An agent that is stopped where it stands, and goes on when this is dropped.
struct Silenced<'d>(&'d Daemon);

impl<'d> Silenced<'d> {
    fn begin(daemon: &'d Daemon) -> Self {
        daemon.process.signal(libc::SIGSTOP);
        Self(daemon)
    }
}

impl Drop for Silenced<'_> {
    fn drop(&mut self) {
        self.0.process.signal(libc::SIGCONT);
    }
}

/// MN-27, RFC 6275 §11.4.1, §11.7.1: an agent that says nothing any more, not even no.
#[test]
fn a_mobile_leaves_an_agent_that_falls_silent() {
    need_lab!();
    let mut text = PolicyText::default()
        .with_preference(20)
        .with("agent \"2001:db8:100::1\"", "agent discover")
        .with("lifetime=\"420s\"", "lifetime=\"12s\"");
    let second = text.agent.replace(
        "agent=\"2001:db8:100::1\" on=home0 preference=20",
        "agent=\"2001:db8:100::2\" on=eth0 preference=10",
    );
    assert_ne!(second, text.agent);
    text.agent = text.agent.replace("lifetime=\"1h\"", "lifetime=\"12s\"");
    let mut lab = Lab::with_agent_prepared(Plan::default(), text, looking);
    let second = second_agent(&lab, &second);
    lab.agent()
        .wait_until("the other agent", PATIENCE, |_| {
            noted(lab.agent(), "signaling-home-agent-appeared") == 1
        })
        .unwrap();
    lab.start_mobile(&[]);
    let status = lab.registered(&["wlan0", "wwan0"]);
    assert_eq!(status.homes[0].agent.0, address::AGENT, "the preferred one");
    wait_for("an answer", PATIENCE, || echoes(&lab.world.cn, address::HOME).then_some(())).unwrap();
    let silenced = Silenced::begin(lab.agent());
    // Until its bindings end, and five updates after that were in vain.
    let there = |status: &StatusDocument| {
        status.homes[0].agent.0.to_string() == "2001:db8:100::2"
            && mtun::lab::daemons::registered(status) == ["wlan0", "wwan0"]
    };
    lab.mobile().wait_until("the other agent", 4 * PATIENCE, there).unwrap();
    assert_eq!(cached(&second.status().unwrap()).len(), 2);
    assert_eq!(defended(&second.status().unwrap()), 1, "it answers on the home link");
    // From there packets find the mobile; the silent agent's machine would swallow them.
    wait_for("an answer", PATIENCE, || echoes(&lab.world.home, address::HOME).then_some(()))
        .unwrap();
    drop(silenced);
    // Awake again, it holds nothing that could be in the way.
    wait_for_agent(lab.agent(), "no binding", |it| cached(it).is_empty());
    assert_eq!(lab.mobile().status().unwrap().homes[0].agent.0.to_string(), "2001:db8:100::2");
    assert_eq!(cached(&second.status().unwrap()).len(), 2);
}
