//! What packets meet at a home agent, from the Binding Update to the decision: its machine, what is
//! published of it, and the one judgement. No packet is between the word that a cache changed and
//! the acknowledgement.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use mtun::publish::{self, Published};
use mtun_dataplane::{Decision, DropReason, Encapsulation, Memory, decide};
use mtun_policy::{Bid, Effective, FlowKey, HomeAddress, Ingress, NoFiles, ServedHome};
use mtun_signaling::agent::{AgentConfig, AgentMobile, HomeLink};
use mtun_signaling::time::{NtpTime, Timestamp};
use mtun_signaling::wire::option::{BindingIdentifier, MobileNetworkPrefixOption};
use mtun_signaling::wire::{
    self, BindingUpdate, BindingUpdateFlags, Lifetime, Message, Options, Status,
};
use mtun_signaling::{AgentEvent, AgentOutput, Envelope, HomeAgent, Machine};

const AGENT: &str = "2001:db8:100::1";
const HOME: &str = "2001:db8:100::42";
const PEER: &str = "2001:db8:c::9";
/// Three networks that the router may register.
const NETWORKS: [&str; 3] =
    ["2001:db8:100:4200::/64", "2001:db8:100:4300::/64", "2001:db8:100:4400::/64"];

const TEXT: &str = r#"
role "home-agent"
home acme {
    tunnel mtun0
    serve "2001:db8:100::/64" agent="2001:db8:100::1"
    allow "2001:db8:100::42" {
        mobile-network "2001:db8:100:4200::/64" "2001:db8:100:4300::/64" "2001:db8:100:4400::/64"
        security none
    }
}
"#;

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// An agent whose cache is published as the daemon publishes it.
struct Node {
    served: ServedHome,
    agent: HomeAgent,
    published: Published,
    seconds: u64,
}

impl Node {
    fn new() -> Self {
        let policy = mtun_policy::parse("agent.kdl", TEXT, &NoFiles).unwrap();
        let served = policy.served[0].clone();
        let mobile = &served.mobiles[0];
        let config = AgentConfig {
            address: served.agent,
            prefix: served.prefix,
            home_link: HomeLink::Virtual,
            max_lifetime: Duration::from_secs(3600),
            refresh_advice: None,
            refresh_requests: true,
            multiple_coa: true,
            bulk: true,
            flow_bindings: false,
            extensions: mtun_policy::Extensions::default(),
            restart_counter: 1,
            mobiles: vec![AgentMobile {
                address: mobile.address,
                prefixes: mobile.prefixes.clone(),
                protection: None,
                max_bindings: 4,
                max_flows: 0,
                max_copies: 1,
                reflect: false,
                copies: false,
                refused: false,
                refused_bids: Vec::new(),
            }],
        };
        let known = publish::mobile(&served, mobile, None, Effective::reflecting(), |_| 1500, None);
        let published = publish::initial([known], false, vec![served.agent.0]);
        Self { agent: HomeAgent::new(config), served, published, seconds: 0 }
    }

    /// Hands an update over; what is published before its answer stands when the answer is seen.
    fn update(&mut self, bids: &[(u16, &str)], networks: Option<&[&str]>, lifetime: u64) -> Status {
        self.seconds += 1;
        let mut options = Options::new();
        for network in networks.into_iter().flatten() {
            let prefix = mtun_policy::MobileNetworkPrefix::new(network.parse().unwrap());
            options.push(MobileNetworkPrefixOption::from(prefix.unwrap()));
        }
        for (bid, care_of) in bids {
            options.push(BindingIdentifier {
                care_of: Some(v6(care_of).into()),
                ..BindingIdentifier::new(Bid::new(*bid).unwrap())
            });
        }
        let update = BindingUpdate {
            sequence: self.seconds as u16,
            flags: BindingUpdateFlags {
                acknowledge: true,
                home: true,
                router: true,
                ..BindingUpdateFlags::default()
            },
            lifetime: Lifetime::from_duration(Duration::from_secs(lifetime)),
            options,
        };
        let envelope = Envelope {
            home_address: Some(HomeAddress(v6(HOME))),
            ..Envelope::plain(v6("2001:db8:1::7"), v6(AGENT))
        };
        let message = wire::emit(&Message::BindingUpdate(update), &envelope).unwrap();
        let monotonic = Duration::from_secs(self.seconds);
        let now = Timestamp { monotonic, wall: NtpTime::from_unix(monotonic) };
        self.agent.handle(now, AgentEvent::Received { envelope, message });
        let mut status = None;
        while let Some(output) = self.agent.poll() {
            match output {
                AgentOutput::Changed { home_address, .. } => {
                    assert_eq!(status, None, "published before it is acknowledged");
                    let entry = self.agent.cache().get(home_address);
                    let allowed = &self.served.mobiles[0];
                    let reflecting = Effective::reflecting();
                    let registration =
                        publish::mobile(&self.served, allowed, entry, reflecting, |_| 1500, None);
                    let own = vec![v6(AGENT)];
                    publish::publish_mobile(&self.published, registration, own, monotonic);
                }
                AgentOutput::Transmit(transmit) => {
                    match wire::receive(&transmit.envelope, &transmit.message) {
                        Ok(Message::BindingAcknowledgement(answer)) => status = Some(answer.status),
                        other => panic!("{other:?}"),
                    }
                }
                _ => {}
            }
        }
        status.expect("an answer")
    }

    /// Where a correspondent's packet to this address goes: a care-of address, or why nowhere.
    fn way(&self, destination: &str) -> Result<Ipv6Addr, Option<DropReason>> {
        let snapshot = self.published.load();
        let key = FlowKey {
            source: IpAddr::V6(v6(PEER)),
            destination: IpAddr::V6(v6(destination)),
            protocol: 17,
            source_port: Some(53),
            destination_port: Some(9),
            dscp: 0,
            ingress: Ingress::OTHER,
            flow_label: 0,
            spi: None,
            icmp_type: None,
            uid: None,
        };
        match decide(&snapshot, &key, Duration::from_secs(self.seconds), Memory::default()) {
            Decision::Forward(route) => match route.encapsulation {
                Encapsulation::Tunnel { source, destination } => {
                    assert_eq!(source, v6(AGENT));
                    Ok(destination)
                }
                other => panic!("{other:?}"),
            },
            Decision::Drop(reason) => Err(Some(reason)),
            Decision::Pass => Err(None),
            other => panic!("{other:?}"),
        }
    }

    /// Which of the three networks packets are tunnelled for.
    fn carried(&self) -> Vec<usize> {
        let inside = |network: &str| network.replace("::/64", "::7");
        let ways: BTreeMap<usize, _> =
            NETWORKS.iter().map(|it| self.way(&inside(it))).enumerate().collect();
        ways.into_iter().filter(|(_, way)| way.is_ok()).map(|(number, _)| number).collect()
    }
}

/// HA-60, NH-14: a move leaves no packet to the old care-of address from the acknowledgement on.
#[test]
fn after_a_move_the_new_care_of_address_alone() {
    let mut node = Node::new();
    assert!(node.way(HOME).is_err(), "not bound yet");
    for care_of in ["2001:db8:1::7", "2001:db8:2::7", "2001:db8:1::7"] {
        assert_eq!(node.update(&[(1, care_of)], None, 400), Status::ACCEPTED);
        assert_eq!(node.way(HOME), Ok(v6(care_of)));
        assert_eq!(node.way("2001:db8:100:4300::7"), Ok(v6(care_of)), "what is behind it too");
    }
    // By its number, while another binding stays where it is.
    assert_eq!(node.update(&[(2, "2001:db8:3::7")], None, 400), Status::ACCEPTED);
    assert_eq!(node.update(&[(1, "2001:db8:4::7")], None, 400), Status::ACCEPTED);
    assert_eq!(node.way(HOME), Ok(v6("2001:db8:4::7")));
    assert_eq!(node.update(&[(1, "2001:db8:4::7")], None, 0), Status::ACCEPTED);
    assert_eq!(node.way(HOME), Ok(v6("2001:db8:3::7")));
    assert_eq!(node.update(&[], None, 0), Status::ACCEPTED);
    assert!(node.way(HOME).is_err());
}

/// NH-14 (RFC 3963 §6.4): prefixes come, go and are exchanged with the acknowledgement, at no time
/// are both the old and the new one carried, nor one that was refused.
#[test]
fn networks_come_and_go_with_the_acknowledgement() {
    let [first, second, third] = NETWORKS;
    let one = [(1, "2001:db8:1::7")];
    let mut node = Node::new();
    assert_eq!(node.carried(), [0usize; 0], "nothing is carried for who is not bound");
    // What is asked for, how it is answered, what is carried after that.
    type Step<'a> = (&'a str, Option<&'a [&'a str]>, Status, &'a [usize]);
    let steps: [Step<'_>; 8] = [
        ("implicit: all of them", None, Status::ACCEPTED, &[0, 1, 2]),
        ("explicit, one", Some(&[first]), Status::ACCEPTED, &[0]),
        ("one is added", Some(&[first, second]), Status::ACCEPTED, &[0, 1]),
        ("one goes", Some(&[second]), Status::ACCEPTED, &[1]),
        ("one for another", Some(&[third]), Status::ACCEPTED, &[2]),
        ("all", Some(&[first, second, third]), Status::ACCEPTED, &[0, 1, 2]),
        (
            "one of another's: nothing changes",
            Some(&[first, "2001:db8:100:4500::/64"]),
            Status::NOT_AUTHORIZED_FOR_PREFIX,
            &[0, 1, 2],
        ),
        ("explicit, one again", Some(&[second]), Status::ACCEPTED, &[1]),
    ];
    for (what, networks, status, carried) in steps {
        assert_eq!(node.update(&one, networks, 400), status, "{what}");
        assert_eq!(node.carried(), carried, "{what}");
        assert_eq!(node.way(HOME), Ok(v6("2001:db8:1::7")), "{what}");
    }
    assert_eq!(node.update(&[], None, 0), Status::ACCEPTED);
    assert_eq!(node.carried(), [0usize; 0]);
}

/// HA-61, R-HA-10 (RFC 6275 §10.4.2): what has no meaning beyond the home link is never tunnelled,
/// whatever the mobile has bound; the kernel's own routes answer it.
#[test]
fn what_is_of_the_link_stays_on_the_link() {
    let mut node = Node::new();
    assert_eq!(node.update(&[(1, "2001:db8:1::7")], None, 400), Status::ACCEPTED);
    for address in ["fe80::42", "ff01::1", "ff02::1", "ff02::1:ff00:42", "ff05::2", "ff0e::1234"] {
        assert_eq!(node.way(address), Err(None), "{address} is nobody's home");
    }
    let tables = Arc::clone(&node.published.load());
    assert!(tables.cache.iter().all(|it| !it.home_address.0.is_unicast_link_local()));
}
