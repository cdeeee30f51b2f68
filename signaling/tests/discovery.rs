//! Discovery of home agents and of home prefixes, in virtual time.

mod scene;

use std::net::Ipv6Addr;
use std::time::Duration;

use mtun_policy::{HomeAddress, HomeAgentAddress};
use mtun_signaling::mobile::discovery::{
    AgentDiscovery, AgentDiscoveryConfig, AgentDiscoveryEvent, AgentDiscoveryNotice,
    AgentDiscoveryOutput, PrefixDiscovery, PrefixDiscoveryConfig, PrefixDiscoveryEvent,
    PrefixDiscoveryNotice, PrefixDiscoveryOutput, home_agents_anycast,
};
use mtun_signaling::wire::icmpv6::{
    self, HomeAgentAddressDiscoveryReply, IcmpMessage, MobilePrefixAdvertisement, PrefixInformation,
};
use mtun_signaling::{Envelope, Machine, Seed, Transmit};
use scene::{AGENT, EPOCH, HOME_ADDRESS, address, agent_address, at, bid, care_of, home};

const CARE_OF: &str = "2001:db8:1::7";
const SECOND_CARE_OF: &str = "2001:db8:2::7";

fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

#[test]
fn the_anycast_address_of_home_agents() {
    // RFC 2526 §2: with and without 64-bit interface identifiers.
    let cases = [
        ("2001:db8:100::/64", "2001:db8:100:0:fdff:ffff:ffff:fffe"),
        ("2001:db8:100::/48", "2001:db8:100:ffff:ffff:ffff:ffff:fffe"),
        ("2001:db8:100::/96", "2001:db8:100::ffff:fffe"),
    ];
    for (prefix, want) in cases {
        assert_eq!(home_agents_anycast(prefix.parse().unwrap()), address(want), "{prefix}");
    }
}

/// A machine, and what came out of it.
struct Agents {
    machine: AgentDiscovery,
    now: Duration,
}

impl Agents {
    fn new(router: bool, agents: &[&str]) -> Self {
        let agents = agents.iter().map(|agent| HomeAgentAddress(address(agent))).collect();
        let home_prefix = "2001:db8:100::/64".parse().unwrap();
        let config = AgentDiscoveryConfig { home_prefix, router, agents };
        Self { machine: AgentDiscovery::new(config, Seed::new([1; 32])), now: Duration::ZERO }
    }

    fn tell(&mut self, event: AgentDiscoveryEvent) -> Vec<AgentDiscoveryOutput> {
        self.machine.handle(at(self.now, EPOCH), event);
        std::iter::from_fn(|| self.machine.poll()).collect()
    }

    fn up(&mut self, number: u16, address: &str) -> Vec<AgentDiscoveryOutput> {
        let priority = number as u8 * 10;
        let (bid, care_of) = (bid(number), care_of(address));
        self.tell(AgentDiscoveryEvent::CareOfUp { bid, priority, care_of })
    }

    fn failed(&mut self, agent: &str) -> Vec<AgentDiscoveryOutput> {
        self.tell(AgentDiscoveryEvent::Failed { agent: HomeAgentAddress(address(agent)) })
    }

    /// Jumps to the next deadline; gives the time and what came of it.
    fn next(&mut self) -> (f64, Vec<AgentDiscoveryOutput>) {
        self.now = self.machine.deadline().expect("something is due");
        self.machine.handle_deadline(at(self.now, EPOCH));
        let later = self.machine.deadline();
        assert!(later.is_none_or(|later| later > self.now), "a deadline that does not move");
        (self.now.as_secs_f64(), std::iter::from_fn(|| self.machine.poll()).collect())
    }

    fn reply(
        &mut self,
        request: &Transmit,
        router: bool,
        agents: &[&str],
    ) -> Vec<AgentDiscoveryOutput> {
        let (identifier, _) = asked(request);
        self.reply_as(identifier, request.envelope.source, router, agents)
    }

    fn reply_as(
        &mut self,
        identifier: u16,
        destination: Ipv6Addr,
        router: bool,
        agents: &[&str],
    ) -> Vec<AgentDiscoveryOutput> {
        let envelope = Envelope::plain(agent_address().0, destination);
        let agents = agents.iter().map(|agent| address(agent)).collect();
        let reply = HomeAgentAddressDiscoveryReply { identifier, router, agents };
        let message = icmpv6::emit(&IcmpMessage::HomeAgentAddressDiscoveryReply(reply), &envelope);
        self.tell(AgentDiscoveryEvent::Received { envelope, message })
    }
}

/// The request in these outputs.
fn request(outputs: &[AgentDiscoveryOutput]) -> Transmit {
    match outputs {
        [AgentDiscoveryOutput::Transmit(transmit)] => transmit.clone(),
        other => panic!("{other:?}"),
    }
}

fn asked(request: &Transmit) -> (u16, bool) {
    match icmpv6::receive(&request.envelope, &request.message) {
        Ok(IcmpMessage::HomeAgentAddressDiscoveryRequest(read)) => (read.identifier, read.router),
        other => panic!("{other:?}"),
    }
}

fn uses(agent: &str) -> AgentDiscoveryOutput {
    AgentDiscoveryOutput::Use(HomeAgentAddress(address(agent)))
}

fn notice(notice: AgentDiscoveryNotice) -> AgentDiscoveryOutput {
    AgentDiscoveryOutput::Notice(notice)
}

#[test]
fn requests_are_repeated_by_other_uplinks_and_then_pause() {
    // MN-27.
    let mut agents = Agents::new(false, &[]);
    assert_eq!(agents.up(1, CARE_OF), []);
    agents.up(2, SECOND_CARE_OF);
    let first = request(&agents.tell(AgentDiscoveryEvent::Wanted));
    assert_eq!(first.envelope.destination, address("2001:db8:100:0:fdff:ffff:ffff:fffe"));
    assert_eq!((first.path, first.envelope.source), (Some(bid(1)), address(CARE_OF)));
    assert!(!asked(&first).1);
    let mut sent = vec![(0.0, Some(bid(1)))];
    for _ in 1..4 {
        let (now, outputs) = agents.next();
        let again = request(&outputs);
        assert_eq!(asked(&again), asked(&first), "the same request");
        sent.push((now, again.path));
    }
    let want = [(0.0, 1), (3.0, 2), (9.0, 1), (21.0, 2)].map(|(at, by)| (at, Some(bid(by))));
    assert_eq!(sent, want);
    let pause = Duration::from_secs(60);
    assert_eq!(agents.next(), (45.0, vec![notice(AgentDiscoveryNotice::NoAnswer(pause))]));
    let (now, outputs) = agents.next();
    assert_eq!(now, 105.0);
    assert_ne!(asked(&request(&outputs)).0, asked(&first).0, "another search");
}

#[test]
fn agents_are_tried_in_order_and_not_too_fast() {
    // MN-09, MN-27.
    let mut agents = Agents::new(false, &[]);
    agents.up(1, CARE_OF);
    let asking = request(&agents.tell(AgentDiscoveryEvent::Wanted));
    // Of what can be no agent, nothing; of what is said twice, one.
    let (one, two) = ("2001:db8:100::1", "2001:db8:100::2");
    let list = ["fe80::1", one, "::", two, one];
    let outputs = agents.reply(&asking, false, &list);
    assert_eq!(outputs, [notice(AgentDiscoveryNotice::Found(2)), uses(one)]);
    agents.now = seconds(0.2);
    assert_eq!(agents.failed(one), [], "not before 1.5 s");
    assert_eq!(agents.next(), (1.5, vec![uses(two)]));
    // The last one fails too: a new list is asked for at once, later with a pause.
    agents.now = seconds(40.0);
    let asking = request(&agents.failed(two));
    assert_eq!(
        agents.reply(&asking, false, &[one]),
        [notice(AgentDiscoveryNotice::Found(1)), uses(one)]
    );
    agents.now = seconds(80.0);
    let pause = Duration::from_secs(120);
    assert_eq!(agents.failed(one), [notice(AgentDiscoveryNotice::AllFailed(pause))]);
    assert_eq!(agents.next(), (200.0, vec![uses(one)]));
    let event = AgentDiscoveryEvent::Registered { agent: HomeAgentAddress(address(one)) };
    assert_eq!(agents.tell(event), []);
    assert_eq!(agents.machine.deadline(), None);
    assert_eq!(agents.machine.current(), Some(HomeAgentAddress(address(one))));
}

#[test]
fn configured_agents_go_first_and_nobody_is_asked() {
    let (one, two) = ("2001:db8:100::1", "2001:db8:100::2");
    let mut agents = Agents::new(false, &[one, two]);
    assert_eq!(agents.tell(AgentDiscoveryEvent::Wanted), [uses(one)]);
    agents.now = seconds(60.0);
    assert_eq!(agents.failed(one), [uses(two)]);
    assert_eq!(agents.failed(one), [], "another one's failure changes nothing");
    // Without an uplink nobody can be asked; with one, at once.
    agents.now = seconds(120.0);
    assert_eq!(agents.failed(two), []);
    assert_eq!(agents.machine.deadline(), None);
    request(&agents.up(1, CARE_OF));
}

#[test]
fn a_mobile_router_needs_agents_for_routers() {
    // MR-11.
    let mut agents = Agents::new(true, &[]);
    agents.up(1, CARE_OF);
    let asking = request(&agents.tell(AgentDiscoveryEvent::Wanted));
    assert!(asked(&asking).1);
    let outputs = agents.reply(&asking, false, &["2001:db8:100::1"]);
    assert_eq!(outputs, [notice(AgentDiscoveryNotice::NoRouterSupport)]);
    let (now, outputs) = agents.next();
    assert_eq!(now, 60.0);
    let outputs = agents.reply(&request(&outputs), true, &["2001:db8:100::1"]);
    assert_eq!(outputs, [notice(AgentDiscoveryNotice::Found(1)), uses("2001:db8:100::1")]);
}

#[test]
fn replies_that_nobody_asked_for() {
    // MN-27.
    let mut agents = Agents::new(false, &[]);
    agents.up(1, CARE_OF);
    let unexpected = [notice(AgentDiscoveryNotice::Unexpected)];
    assert_eq!(agents.reply_as(0, address(CARE_OF), false, &["2001:db8:66::1"]), unexpected);
    let asking = request(&agents.tell(AgentDiscoveryEvent::Wanted));
    let (identifier, _) = asked(&asking);
    let other = identifier.wrapping_add(1);
    assert_eq!(agents.reply_as(other, address(CARE_OF), false, &["2001:db8:66::1"]), unexpected);
    let elsewhere = address(SECOND_CARE_OF);
    assert_eq!(agents.reply_as(identifier, elsewhere, false, &["2001:db8:66::1"]), unexpected);
    let junk = AgentDiscoveryEvent::Received {
        envelope: Envelope::plain(address(AGENT), address(CARE_OF)),
        message: vec![145; 9],
    };
    assert!(matches!(
        agents.tell(junk)[..],
        [AgentDiscoveryOutput::Notice(AgentDiscoveryNotice::Undecodable(_))]
    ));
    assert_eq!(agents.machine.agents().count(), 0);
    // The uplink that asked goes: nothing is asked until another one is there.
    agents.tell(AgentDiscoveryEvent::CareOfDown { bid: bid(1) });
    assert_eq!(agents.machine.deadline(), None);
}

/// The other machine, and what came out of it.
struct Prefixes {
    machine: PrefixDiscovery,
    now: Duration,
}

impl Prefixes {
    fn new() -> Self {
        let config = PrefixDiscoveryConfig { home_address: home(), agent: agent_address() };
        let machine = PrefixDiscovery::new(config, Seed::new([2; 32]));
        let mut prefixes = Self { machine, now: Duration::ZERO };
        let (bid, care_of) = (bid(1), care_of(CARE_OF));
        prefixes.tell(PrefixDiscoveryEvent::CareOfUp { bid, priority: 10, care_of });
        prefixes
    }

    fn tell(&mut self, event: PrefixDiscoveryEvent) -> Vec<PrefixDiscoveryOutput> {
        self.machine.handle(at(self.now, EPOCH), event);
        std::iter::from_fn(|| self.machine.poll()).collect()
    }

    fn next(&mut self) -> (f64, Vec<PrefixDiscoveryOutput>) {
        self.now = self.machine.deadline().expect("something is due");
        self.machine.handle_deadline(at(self.now, EPOCH));
        let later = self.machine.deadline();
        assert!(later.is_none_or(|later| later > self.now), "a deadline that does not move");
        (self.now.as_secs_f64(), std::iter::from_fn(|| self.machine.poll()).collect())
    }

    fn answer(&mut self, identifier: u16, valid: u32) -> Vec<PrefixDiscoveryOutput> {
        let to = Envelope {
            routing_header: Some(home()),
            ..Envelope::plain(agent_address().0, address(CARE_OF))
        };
        self.answer_by(to, identifier, valid)
    }

    fn answer_by(
        &mut self,
        envelope: Envelope,
        identifier: u16,
        valid: u32,
    ) -> Vec<PrefixDiscoveryOutput> {
        let prefix = |address: &str, valid| PrefixInformation {
            prefix_len: 64,
            on_link: true,
            autonomous: true,
            router_address: true,
            valid,
            preferred: 3_600,
            address: scene::address(address),
        };
        let prefixes = vec![prefix(AGENT, valid), prefix("fe80::1", 9_999)];
        let advertisement =
            MobilePrefixAdvertisement { identifier, managed: false, other: false, prefixes };
        let message =
            icmpv6::emit(&IcmpMessage::MobilePrefixAdvertisement(advertisement), &envelope);
        self.tell(PrefixDiscoveryEvent::Received { envelope, message })
    }

    /// Until when the home prefix is valid, in seconds.
    fn valid_until(&self) -> Option<u64> {
        let prefixes: Vec<_> = self.machine.prefixes().collect();
        match prefixes[..] {
            [] => None,
            [only] => {
                assert_eq!(only.prefix.to_string(), "2001:db8:100::/64");
                only.valid_until.map(|until| until.as_secs())
            }
            _ => panic!("{prefixes:?}"),
        }
    }
}

/// The identifier of the only solicitation in these outputs.
fn solicited(outputs: &[PrefixDiscoveryOutput]) -> u16 {
    let [PrefixDiscoveryOutput::Transmit(transmit)] = outputs else { panic!("{outputs:?}") };
    let envelope = transmit.envelope;
    // MN-28: to the agent, with the Home Address option.
    assert_eq!((envelope.source, envelope.destination), (address(CARE_OF), address(AGENT)));
    assert_eq!(envelope.home_address, Some(HomeAddress(address(HOME_ADDRESS))));
    match icmpv6::receive(&envelope, &transmit.message) {
        Ok(IcmpMessage::MobilePrefixSolicitation(read)) => read.identifier,
        other => panic!("{other:?}"),
    }
}

#[test]
fn prefixes_are_asked_for_until_an_answer_comes() {
    // MN-08, MN-28.
    let mut prefixes = Prefixes::new();
    let mut identifiers = vec![solicited(&prefixes.tell(PrefixDiscoveryEvent::Wanted))];
    let mut times = vec![0.0];
    for _ in 1..5 {
        let (now, outputs) = prefixes.next();
        times.push(now);
        identifiers.push(solicited(&outputs));
    }
    assert_eq!(times, [0.0, 3.0, 9.0, 21.0, 45.0]);
    let last = *identifiers.last().unwrap();
    identifiers.sort();
    identifiers.dedup();
    assert_eq!(identifiers.len(), 5, "random ones");
    // Only the last one counts.
    let early = *identifiers.iter().find(|identifier| **identifier != last).unwrap();
    let unsolicited = [PrefixDiscoveryOutput::Notice(PrefixDiscoveryNotice::Unsolicited)];
    assert_eq!(prefixes.answer(early, 86_400), unsolicited);
    assert_eq!(prefixes.answer(last, 86_400), [PrefixDiscoveryOutput::Changed]);
    assert_eq!(prefixes.valid_until(), Some(45 + 86_400));
    // And only once.
    assert_eq!(prefixes.answer(last, 99_999), unsolicited);
}

#[test]
fn an_agent_that_says_nothing_is_asked_again_later() {
    let mut prefixes = Prefixes::new();
    prefixes.tell(PrefixDiscoveryEvent::Wanted);
    for _ in 1..5 {
        prefixes.next();
    }
    let pause = Duration::from_secs(600);
    let silent = PrefixDiscoveryOutput::Notice(PrefixDiscoveryNotice::NoAnswer(pause));
    assert_eq!(prefixes.next(), (77.0, vec![silent]));
    let (now, outputs) = prefixes.next();
    assert_eq!(now, 677.0);
    solicited(&outputs);
}

#[test]
fn advertisements_that_are_none() {
    // MN-28, R-MN-18.
    let mut prefixes = Prefixes::new();
    let identifier = solicited(&prefixes.tell(PrefixDiscoveryEvent::Wanted));
    let good = Envelope {
        routing_header: Some(home()),
        ..Envelope::plain(agent_address().0, address(CARE_OF))
    };
    let cases = [
        ("without routing header", Envelope { routing_header: None, ..good }),
        ("from another node", Envelope { source: address("2001:db8:66::1"), ..good }),
        ("to another address", Envelope { destination: address(SECOND_CARE_OF), ..good }),
    ];
    let wrong = [PrefixDiscoveryOutput::Notice(PrefixDiscoveryNotice::WrongWay)];
    for (what, envelope) in cases {
        assert_eq!(prefixes.answer_by(envelope, identifier, 86_400), wrong, "{what}");
    }
    assert_eq!(prefixes.valid_until(), None);
    assert_eq!(prefixes.answer(identifier, 86_400), [PrefixDiscoveryOutput::Changed]);
    // An unsolicited one is thrown away and asked for, every ten seconds at most.
    prefixes.now = seconds(2.0);
    let unsolicited = PrefixDiscoveryOutput::Notice(PrefixDiscoveryNotice::Unsolicited);
    assert_eq!(prefixes.answer(identifier, 100), [unsolicited]);
    let (now, outputs) = prefixes.next();
    assert_eq!(now, 10.0);
    solicited(&outputs);
}

#[test]
fn the_home_address_is_asked_about_before_it_becomes_invalid() {
    // MN-28; and nobody shortens its life below two hours.
    let mut prefixes = Prefixes::new();
    let identifier = solicited(&prefixes.tell(PrefixDiscoveryEvent::Wanted));
    prefixes.answer(identifier, 86_400);
    let (now, outputs) = prefixes.next();
    assert_eq!(now, 86_400.0 - 3_600.0);
    // It has an hour left, and a shorter one is not believed.
    prefixes.answer(solicited(&outputs), 60);
    assert_eq!(prefixes.valid_until(), Some(86_400));
    let (now, outputs) = prefixes.next();
    assert_eq!(now, 86_400.0 - 900.0);
    // Prolonged, and then shortened to the least that is believed.
    assert_eq!(prefixes.answer(solicited(&outputs), 86_400), [PrefixDiscoveryOutput::Changed]);
    prefixes.now += Duration::from_secs(20);
    let identifier = solicited(&prefixes.tell(PrefixDiscoveryEvent::Wanted));
    assert_eq!(prefixes.answer(identifier, 0), [PrefixDiscoveryOutput::Changed]);
    assert_eq!(prefixes.valid_until(), Some(prefixes.now.as_secs() + 7_200));
    // Nobody answers any more: asked, and asked, and then it is over.
    let mut solicitations = 0;
    let end = loop {
        let (_, outputs) = prefixes.next();
        let sent =
            |output: &&PrefixDiscoveryOutput| matches!(output, PrefixDiscoveryOutput::Transmit(_));
        solicitations += outputs.iter().filter(sent).count();
        if outputs.contains(&PrefixDiscoveryOutput::Changed) {
            break outputs;
        }
    };
    let invalid = PrefixDiscoveryOutput::Notice(PrefixDiscoveryNotice::HomeAddressInvalid);
    assert!(end.contains(&invalid), "{end:?}");
    assert!((5..=30).contains(&solicitations), "{solicitations} solicitations");
    assert_eq!(prefixes.valid_until(), None);
}

#[test]
fn an_agent_sends_its_mobile_to_another() {
    // HS-04 (RFC 5142 §6.2): in their order, those of our home prefix first, never back to the one
    // that sent us and to nothing that is no address of an agent.
    let mut agents = Agents::new(false, &[AGENT]);
    agents.up(1, CARE_OF);
    assert_eq!(agents.tell(AgentDiscoveryEvent::Wanted), [uses(AGENT)]);
    agents.now = seconds(100.0);
    let named = ["2001:db8:200::2", "ff02::1", AGENT, "2001:db8:100::3", "2001:db8:100::2"];
    let named: Vec<_> = named.iter().map(|it| HomeAgentAddress(address(it))).collect();
    let sent = agents.tell(AgentDiscoveryEvent::Sent { agents: named });
    assert_eq!(sent, [uses("2001:db8:100::3")]);
    agents.failed("2001:db8:100::3");
    assert_eq!(agents.next().1, [uses("2001:db8:100::2")]);
    agents.failed("2001:db8:100::2");
    assert_eq!(agents.next().1, [uses("2001:db8:200::2")]);
    // HS-02 (RFC 5142 §4): without a name, whoever is found.
    agents.now += seconds(100.0);
    let asks = request(&agents.tell(AgentDiscoveryEvent::Sent { agents: Vec::new() }));
    assert_eq!(asks.envelope.destination, address("2001:db8:100:0:fdff:ffff:ffff:fffe"));
}
