//! The home agent's side of discovery: the list of agents, replies, and prefixes for mobiles.

mod scene;

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{HomeAddress, HomeAgentAddress};
use mtun_signaling::agent::{
    AgentEvent, AgentOutput, HomeAgents, HomeAgentsConfig, HomeAgentsEvent, HomeAgentsNotice,
    HomeAgentsOutput, PrefixLifetime,
};
use mtun_signaling::wire::icmpv6::neighbour_discovery::{
    HomeAgentInformation, RouterAdvertisement,
};
use mtun_signaling::wire::icmpv6::{
    self, HomeAgentAddressDiscoveryReply, HomeAgentAddressDiscoveryRequest, IcmpMessage,
    MobilePrefixAdvertisement, MobilePrefixSolicitation, PrefixInformation,
};
use mtun_signaling::wire::{self, Message};
use mtun_signaling::{Envelope, HomeAgent, Machine, Seed, Transmit};
use scene::settings::signed_update;
use scene::{AGENT, EPOCH, HOME_ADDRESS, address, agent_config, at, home};

const ANYCAST: &str = "2001:db8:100:0:fdff:ffff:ffff:fffe";
const MOBILE: &str = "2001:db8:1::7";

fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

struct Agents {
    machine: HomeAgents,
    now: Duration,
}

impl Agents {
    fn new(preference: u16, mobile_routers: bool) -> Self {
        let config = HomeAgentsConfig {
            address: HomeAgentAddress(address(AGENT)),
            prefix: "2001:db8:100::/64".parse().unwrap(),
            preference,
            mobile_routers,
        };
        Self { machine: HomeAgents::new(config, Seed::new([7; 32])), now: Duration::ZERO }
    }

    fn tell(&mut self, event: HomeAgentsEvent) -> Vec<HomeAgentsOutput> {
        self.machine.handle(at(self.now, EPOCH), event);
        std::iter::from_fn(|| self.machine.poll()).collect()
    }

    /// A router says what it is.
    fn advertise(&mut self, router: &str, said: RouterAdvertisement) -> Vec<HomeAgentsOutput> {
        let source = address(router);
        self.tell(HomeAgentsEvent::Advertised { source, advertisement: said })
    }

    fn ask(&mut self, router: bool) -> HomeAgentAddressDiscoveryReply {
        let (_, reply) = self.asked(ANYCAST, MOBILE, router).expect("a reply");
        reply
    }

    fn asked(
        &mut self,
        destination: &str,
        source: &str,
        router: bool,
    ) -> Option<(Envelope, HomeAgentAddressDiscoveryReply)> {
        let envelope = Envelope::plain(address(source), address(destination));
        let request = HomeAgentAddressDiscoveryRequest { identifier: 77, router };
        let message =
            icmpv6::emit(&IcmpMessage::HomeAgentAddressDiscoveryRequest(request), &envelope);
        let outputs = self.tell(HomeAgentsEvent::Received { envelope, message });
        outputs.into_iter().find_map(|output| match output {
            HomeAgentsOutput::Transmit(Transmit { envelope, message, path: None }) => {
                match icmpv6::receive(&envelope, &message) {
                    Ok(IcmpMessage::HomeAgentAddressDiscoveryReply(reply)) => {
                        assert!(message.len() + 40 <= 1280, "HA-74");
                        Some((envelope, reply))
                    }
                    other => panic!("{other:?}"),
                }
            }
            _ => None,
        })
    }
}

fn prefix(address_of: &str, router_address: bool) -> PrefixInformation {
    PrefixInformation {
        prefix_len: 64,
        on_link: true,
        autonomous: true,
        router_address,
        valid: 86_400,
        preferred: 86_400,
        address: address(address_of),
    }
}

fn said(preference: Option<u16>, addresses: &[&str]) -> RouterAdvertisement {
    RouterAdvertisement {
        home_agent: true,
        lifetime: 1800,
        prefixes: addresses.iter().map(|it| prefix(it, true)).collect(),
        information: preference.map(|preference| HomeAgentInformation {
            mobile_routers: false,
            preference,
            lifetime: 600,
        }),
        ..RouterAdvertisement::default()
    }
}

fn addresses(listed: &[&str]) -> Vec<Ipv6Addr> {
    listed.iter().map(|it| address(it)).collect()
}

#[test]
fn a_request_is_answered_from_our_own_address_in_order_of_preference() {
    // HA-70 HA-71 HA-72: identifier and source; all addresses of an agent together.
    let mut agents = Agents::new(10, false);
    let (envelope, reply) = agents.asked(ANYCAST, MOBILE, false).unwrap();
    assert_eq!((envelope.source, envelope.destination), (address(AGENT), address(MOBILE)));
    assert_eq!((reply.identifier, reply.router), (77, false));
    assert_eq!(reply.agents, addresses(&[AGENT]));
    let appeared =
        agents.advertise("fe80::2", said(Some(20), &["2001:db8:100::2", "2001:db8:100::22"]));
    let notice = HomeAgentsNotice::Appeared(address("fe80::2"));
    assert_eq!(appeared, [HomeAgentsOutput::Notice(notice)]);
    // Without the option the preference is 0.
    agents.advertise("fe80::3", said(None, &["2001:db8:100::3"]));
    let order = ["2001:db8:100::2", "2001:db8:100::22", AGENT, "2001:db8:100::3"];
    assert_eq!(agents.ask(false).agents, addresses(&order));
    // Another preference applies.
    agents.advertise("fe80::3", said(Some(30), &[]));
    assert_eq!(agents.ask(false).agents[0], address("2001:db8:100::3"));
    // Among equals by lot.
    agents.advertise("fe80::2", said(Some(30), &[]));
    let mut first: Vec<_> = (0..40)
        .map(|_| {
            agents.now += seconds(1.0);
            agents.ask(false).agents[0]
        })
        .collect();
    first.sort();
    first.dedup();
    assert_eq!(first, addresses(&["2001:db8:100::2", "2001:db8:100::3"]));
}

#[test]
fn agents_leave_the_list() {
    // HA-72 HA-73: lifetime, H, lifetime 0; prefixes without R are not addresses.
    let mut agents = Agents::new(0, false);
    let listed = |agents: &Agents| agents.machine.agents().len() - 1;
    agents.advertise("fe80::2", said(Some(20), &["2001:db8:100::2"]));
    assert_eq!(agents.machine.deadline(), Some(seconds(600.0)));
    agents.advertise("fe80::3", said(None, &["2001:db8:100::3"]));
    agents.now = seconds(600.0);
    agents.machine.handle_deadline(at(agents.now, EPOCH));
    let gone = HomeAgentsNotice::Gone(address("fe80::2"));
    assert_eq!(agents.machine.poll(), Some(HomeAgentsOutput::Notice(gone)));
    assert_eq!(listed(&agents), 1, "the router's own lifetime is longer");
    for last in [
        RouterAdvertisement { home_agent: false, ..said(None, &["2001:db8:100::3"]) },
        RouterAdvertisement { lifetime: 0, ..said(None, &["2001:db8:100::3"]) },
    ] {
        agents.advertise("fe80::3", said(None, &["2001:db8:100::3"]));
        assert_eq!(listed(&agents), 1);
        agents.advertise("fe80::3", last);
        assert_eq!(listed(&agents), 0);
    }
    let mut without = said(None, &[]);
    without.prefixes = vec![prefix("2001:db8:100::4", false), prefix("fe80::4", true)];
    assert_eq!(agents.advertise("fe80::4", without), []);
    assert_eq!(listed(&agents), 0);
}

#[test]
fn mobile_routers_are_told_of_agents_that_serve_them() {
    // NH-18 R-HA-32: R in the reply, and everybody without R when there is none.
    let serving = |mobile_routers| {
        let mut said = said(Some(20), &["2001:db8:100::2"]);
        said.information.as_mut().unwrap().mobile_routers = mobile_routers;
        said
    };
    let mut agents = Agents::new(10, true);
    agents.advertise("fe80::2", serving(false));
    let reply = agents.ask(true);
    assert_eq!((reply.router, reply.agents), (true, addresses(&[AGENT])));
    agents.advertise("fe80::2", serving(true));
    let reply = agents.ask(true);
    assert_eq!((reply.router, reply.agents), (true, addresses(&["2001:db8:100::2", AGENT])));
    assert!(!agents.ask(false).router);
    let mut hosts = Agents::new(10, false);
    hosts.advertise("fe80::2", serving(false));
    let reply = hosts.ask(true);
    assert_eq!((reply.router, reply.agents.len()), (false, 2));
}

#[test]
fn lists_replies_and_rates_are_bounded() {
    // HA-74, and what strangers on the link can do.
    let mut agents = Agents::new(0, false);
    for agent in 1..=100 {
        let own: Vec<String> = (1..=20).map(|n| format!("2001:db8:100::{agent:x}:{n:x}")).collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        agents.advertise(&format!("fe80::{agent:x}"), said(Some(1), &own));
    }
    assert_eq!(agents.machine.agents().len(), 33);
    assert!(agents.machine.agents().iter().all(|agent| agent.addresses.len() <= 8));
    assert_eq!(agents.ask(false).agents.len(), 77);
    let answered = (0..1000).filter(|_| agents.asked(ANYCAST, MOBILE, false).is_some()).count();
    assert_eq!(answered, 19, "of a thousand at once");
}

#[test]
fn what_is_no_request_to_us_is_not_answered() {
    let mut agents = Agents::new(0, false);
    for (destination, source) in
        [("2001:db8:200::1", MOBILE), (ANYCAST, "fe80::9"), (ANYCAST, "::"), (ANYCAST, "ff02::1")]
    {
        assert_eq!(agents.asked(destination, source, false), None, "{source} to {destination}");
    }
    let envelope = Envelope {
        home_address: Some(home()),
        ..Envelope::plain(address(MOBILE), address(ANYCAST))
    };
    let request = HomeAgentAddressDiscoveryRequest { identifier: 1, router: false };
    let message = icmpv6::emit(&IcmpMessage::HomeAgentAddressDiscoveryRequest(request), &envelope);
    let outputs = agents.tell(HomeAgentsEvent::Received { envelope, message: message.clone() });
    assert_eq!(outputs, [HomeAgentsOutput::Notice(HomeAgentsNotice::WrongWay)]);
    for length in 0..message.len() {
        let envelope = Envelope::plain(address(MOBILE), address(ANYCAST));
        let message = message[..length].to_vec();
        let outputs = agents.tell(HomeAgentsEvent::Received { envelope, message });
        assert!(matches!(
            outputs[..],
            [HomeAgentsOutput::Notice(HomeAgentsNotice::Undecodable(_))]
        ));
    }
}

/// An agent at which the mobile of the tests is bound at [`MOBILE`].
fn bound(prefix_discovery: bool) -> HomeAgent {
    let mut config = agent_config();
    assert!(!config.extensions.prefix_discovery, "off unless somebody says otherwise");
    config.extensions.prefix_discovery = prefix_discovery;
    let mut agent = HomeAgent::new(config);
    let line = format!("BindingUpdate seq=1 A H from={MOBILE} [bid=1 {MOBILE}]");
    let words: Vec<&str> = scene::text::words(&line);
    let (envelope, message) = signed_update(&words, Duration::ZERO);
    agent.handle(at(Duration::ZERO, EPOCH), AgentEvent::Received { envelope, message });
    while agent.poll().is_some() {}
    agent
}

fn solicit(agent: &mut HomeAgent, now: f64, source: &str, home_address: &str) -> Vec<AgentOutput> {
    let envelope = Envelope {
        home_address: Some(HomeAddress(address(home_address))),
        ..Envelope::plain(address(source), address(AGENT))
    };
    let solicitation = MobilePrefixSolicitation { identifier: 0xabcd };
    let message = icmpv6::emit(&IcmpMessage::MobilePrefixSolicitation(solicitation), &envelope);
    agent.handle(at(seconds(now), EPOCH), AgentEvent::Solicited { envelope, message });
    let sent = std::iter::from_fn(|| agent.poll());
    sent.filter(|output| !matches!(output, AgentOutput::Notice(_))).collect()
}

fn advertisement(outputs: &[AgentOutput]) -> MobilePrefixAdvertisement {
    let [AgentOutput::Advertise(Transmit { envelope, path: None, message })] = outputs else {
        panic!("{outputs:?}");
    };
    assert_eq!((envelope.source, envelope.destination), (address(AGENT), address(MOBILE)));
    assert_eq!(envelope.routing_header, Some(home()), "R-HA-43");
    match icmpv6::receive(envelope, message) {
        Ok(IcmpMessage::MobilePrefixAdvertisement(read)) => read,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bound_mobile_is_told_the_home_prefix() {
    // HA-75 NH-19 R-HA-43.
    let mut agent = bound(true);
    let read = advertisement(&solicit(&mut agent, 1.0, MOBILE, HOME_ADDRESS));
    assert_eq!((read.identifier, read.managed, read.other), (0xabcd, false, false));
    let [prefix] = read.prefixes[..] else { panic!("{read:?}") };
    assert!(prefix.router_address && prefix.on_link && prefix.autonomous);
    assert_eq!((prefix.address, prefix.prefix_len), (address(AGENT), 64));
    assert_eq!(prefix.valid, PrefixInformation::INFINITE);
    // One a second.
    assert_eq!(solicit(&mut agent, 1.5, MOBILE, HOME_ADDRESS), []);
    // What is left of it.
    let lifetime = PrefixLifetime {
        preferred_until: Some(seconds(100.0)),
        valid_until: Some(seconds(1000.0)),
    };
    agent.handle(at(seconds(2.0), EPOCH), AgentEvent::HomePrefix(lifetime));
    let read = advertisement(&solicit(&mut agent, 3.0, MOBILE, HOME_ADDRESS));
    assert_eq!((read.prefixes[0].valid, read.prefixes[0].preferred), (997, 97));
}

#[test]
fn unless_it_is_switched_on_nobody_is_told_the_home_prefix() {
    // Nothing authenticates these messages; a packet with an unbound home address is one all the same.
    let mut agent = bound(false);
    assert_eq!(solicit(&mut agent, 1.0, MOBILE, HOME_ADDRESS), []);
    let changed = AgentEvent::PrefixAdvertised { valid: 9000, preferred: 300 };
    agent.handle(at(seconds(2.0), EPOCH), changed);
    assert_eq!(agent.deadline(), bound(true).deadline(), "nothing more is to come");
    assert!(std::iter::from_fn(|| agent.poll()).all(|it| !matches!(it, AgentOutput::Advertise(_))));
    assert_eq!(solicit(&mut agent, 3.0, "2001:db8:9::9", HOME_ADDRESS).len(), 1);
}

#[test]
fn who_is_not_bound_there_is_told_that() {
    // HA-75: Binding Error 1, with a rate that forgers cannot exceed.
    let mut agent = bound(true);
    let outputs = solicit(&mut agent, 1.0, "2001:db8:9::9", HOME_ADDRESS);
    let [AgentOutput::Transmit(transmit)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(transmit.envelope, Envelope::plain(address(AGENT), address("2001:db8:9::9")));
    match wire::receive(&transmit.envelope, &transmit.message) {
        Ok(Message::BindingError(error)) => {
            assert_eq!((error.status, error.home_address), (1, home().0));
        }
        other => panic!("{other:?}"),
    }
    let many = (0..1000).map(|_| solicit(&mut agent, 1.0, "2001:db8:9::9", HOME_ADDRESS).len());
    assert_eq!(many.sum::<usize>(), 9);
    // Nobody's home address.
    assert_eq!(solicit(&mut agent, 60.0, MOBILE, "2001:db8:100::66"), []);
}
