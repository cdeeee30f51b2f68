//! Compiled rules judge as a naive reading of the file does; the fuzz target's corpus holds.

#[path = "support/kdl.rs"]
mod kdl;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use mtun_policy::document::{Document, MatchNode, OtherwiseNode, RuleNode, Term, Terms, VerbNode};
use mtun_policy::{
    Bid, BlockReply, Choice, FlowKey, Ingress, LinkState, NoFiles, Override, PathFacts, Policy,
    RuleId, TrafficSelector, Usable, evaluate, filter_text, next_expiry, parse, parse_document,
    parse_filter,
};
use proptest::prelude::*;

#[test]
fn the_corpus_of_the_fuzz_target_holds() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/kdl");
    let mut replayed = 0;
    for entry in std::fs::read_dir(directory).expect("the corpus is in the tree") {
        kdl::check(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 16, "{replayed}");
}

const LINKS: [&str; 3] = ["wlan0", "wwan0", "sat0"];
const PRIORITIES: [u8; 3] = [20, 10, 20];
const STATES: [LinkState; 3] = [LinkState::Up, LinkState::Drained, LinkState::Down];
const NETS: [&str; 5] =
    ["2001:db8:a::/48", "2001:db8:a:1::/64", "2001:db8:a:1::7", "2001:db8:b::/48", "@nets"];
const ADDRESSES: [&str; 5] =
    ["2001:db8:a::1", "2001:db8:a:1::7", "2001:db8:a:1::8", "2001:db8:b::1", "2001:db8:c::1"];
const PORTS: [&str; 5] = ["22", "80", "\"20-30\"", "\"5060,80-90\"", "@ports"];
const NUMBERS: [u16; 6] = [19, 22, 80, 85, 443, 5060];
const PROTOCOLS: [(&str, u8); 3] = [("tcp", 6), ("udp", 17), ("132", 132)];
const DOORS: [&str; 3] = ["lan0", "local", "@doors"];
const LISTS: [&str; 7] = ["wlan0", "wwan0", "sat0", "wwan0 wlan0", "@any", "@few", "sat0 @few"];

/// One `match` or `exclude` line.
fn any_line(word: &'static str) -> impl Strategy<Value = String> {
    let field = |name: &'static str, values: Vec<String>| prop_oneof![2 => Just(String::new()), 1 => prop::sample::select(values).prop_map(move |v| format!(" {name}={v}"))];
    let quoted = |values: &[&str]| values.iter().map(|v| format!("\"{v}\"")).collect::<Vec<_>>();
    let plain = |values: &[&str]| values.iter().map(|v| v.to_string()).collect::<Vec<_>>();
    (
        // Without a protocol or with one that has ports, so that ports are allowed.
        prop_oneof![
            Just(String::new()),
            Just(" proto=tcp".into()),
            Just(" proto=\"udp,132\"".into()),
            Just(" proto=17".into())
        ],
        field("src", quoted(&NETS)),
        field("dst", quoted(&NETS)),
        field("sport", plain(&PORTS)),
        field("dport", plain(&PORTS)),
        field("dscp", vec!["ef".into(), "\"0,af41\"".into()]),
        field("in", quoted(&DOORS)),
    )
        .prop_map(move |(a, b, c, d, e, f, g)| {
            let fields = [a, b, c, d, e, f, g].concat();
            let fields = if fields.is_empty() { " proto=tcp".to_owned() } else { fields };
            format!("{word}{fields}\n")
        })
}

fn any_verb() -> impl Strategy<Value = String> {
    let list = || prop::sample::select(LISTS.to_vec());
    let block =
        prop_oneof![Just("block reply=icmp\n".to_owned()), Just("block reply=none\n".to_owned())];
    let otherwise = prop_oneof![
        3 => Just(String::new()),
        1 => Just("otherwise next-rule\n".to_owned()),
        1 => Just("otherwise any\n".to_owned()),
        1 => Just("otherwise block reply=reset\n".to_owned()),
        1 => list().prop_map(|list| format!("otherwise prefer {list}\n")),
    ];
    prop_oneof![1 => block, 4 => (list(), otherwise).prop_map(|(list, otherwise)| format!("prefer {list}\n{otherwise}"))]
}

fn any_policy() -> impl Strategy<Value = String> {
    let rule = (
        prop::collection::vec(any_line("match"), 1..3),
        prop::collection::vec(any_line("exclude"), 0..2),
        any_verb(),
    );
    (prop::collection::vec(rule, 0..8), any_verb()).prop_map(|(rules, default)| {
        let mut text = String::from("role \"mobile-router\"\n");
        for (number, (link, priority)) in LINKS.iter().zip(PRIORITIES).enumerate() {
            text += &format!("interface {link} {{ bid {}; priority {priority}; }}\n", 7 - number);
        }
        text += "group any { interface wlan0 wwan0 sat0; }\ngroup few { interface sat0 wwan0; }\n\
            group doors { interface lan0 lan1; }\ngroup nets { prefix \"2001:db8:a:1::/64\" \"2001:db8:c::/48\"; }\n\
            group ports { port 443 \"5000-6000\"; }\n\
            home h { tunnel mtun0; agent \"2001:db8::1\"; address \"2001:db8::2/64\"; security none; }\nrules {\n";
        for (number, (matches, excludes, verb)) in rules.into_iter().enumerate() {
            text += &format!("rule r{number} {{\n{}{}{verb}}}\n", matches.concat(), excludes.concat());
        }
        text + &format!("default {{\n{default}}}\n}}\n")
    })
}

/// A packet in the test's own terms; the door by name.
#[derive(Clone, Debug)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: Option<(u16, u16)>,
    dscp: u8,
    door: &'static str,
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let address =
        || prop::sample::select(ADDRESSES.to_vec()).prop_map(|text| text.parse().unwrap());
    let port = || prop::sample::select(NUMBERS.to_vec());
    (
        address(),
        address(),
        prop::sample::select(vec![6, 17, 132, 58]),
        prop::option::weighted(0.8, (port(), port())),
        prop::sample::select(vec![0, 34, 46]),
        prop::sample::select(vec!["lan0", "lan1", "lan2", "local"]),
    )
        .prop_map(|(source, destination, protocol, ports, dscp, door)| {
            let ports = ports.filter(|_| protocol != 58);
            Packet { source, destination, protocol, ports, dscp, door }
        })
}

/// How a walk ends, in the file's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Link(String, &'static str),
    Block(String, BlockReply),
    Nothing(Option<String>),
}

/// Reads the file's statements from the top down, with nothing compiled.
struct Naive<'d> {
    document: &'d Document,
    states: [LinkState; 3],
}

impl Naive<'_> {
    fn end(&self, packet: &Packet) -> End {
        let rules = &self.document.rule_sets[0];
        let mut last = None;
        for rule in rules.rules.iter().chain(&rules.default) {
            if !self.speaks_of(rule, packet) {
                continue;
            }
            let name = rule.name.value.clone();
            last = Some(name.clone());
            match &rule.verb.as_ref().unwrap().value {
                VerbNode::Block(reply) => return End::Block(name, *reply),
                VerbNode::Prefer(links) => {
                    if let Some(link) = self.first(links) {
                        return End::Link(name, link);
                    }
                }
                other => panic!("no {other:?} in these policies"),
            }
            let way_out = match rule.otherwise.as_ref().map(|otherwise| &otherwise.value) {
                None | Some(OtherwiseNode::NextRule) => continue,
                Some(OtherwiseNode::Then(VerbNode::Block(reply))) => {
                    return End::Block(name, *reply);
                }
                Some(OtherwiseNode::Then(VerbNode::Prefer(links))) => self.first(links),
                Some(OtherwiseNode::Any) => self.any(),
                Some(OtherwiseNode::Then(other)) => panic!("no {other:?} in these policies"),
            };
            return way_out.map_or(End::Nothing(Some(name.clone())), |link| End::Link(name, link));
        }
        End::Nothing(last)
    }

    fn state(&self, link: &str) -> LinkState {
        self.states[LINKS.iter().position(|known| *known == link).unwrap()]
    }

    /// The first link of the list that is up, else the first that is drained.
    fn first(&self, links: &Terms<String>) -> Option<&'static str> {
        let mut all = Vec::new();
        for term in links {
            match &term.value {
                Term::Literal(link) => all.push(link.as_str()),
                Term::Group(group) => {
                    let group = self
                        .document
                        .groups
                        .iter()
                        .find(|known| known.name.value == *group)
                        .unwrap();
                    all.extend(group.interfaces.iter().map(|link| link.value.as_str()));
                }
            }
        }
        for state in [LinkState::Up, LinkState::Drained] {
            if let Some(link) = all.iter().find(|link| self.state(link) == state) {
                return LINKS.iter().copied().find(|known| known == link);
            }
        }
        None
    }

    /// The link of the best state, then the lowest priority, then the lowest BID.
    fn any(&self) -> Option<&'static str> {
        let links = LINKS.iter().zip(PRIORITIES).enumerate();
        let usable = links.filter(|(_, (link, _))| self.state(link) != LinkState::Down);
        usable
            .min_by_key(|(number, (link, priority))| (self.state(link), *priority, 7 - number))
            .map(|(_, (link, _))| *link)
    }

    fn speaks_of(&self, rule: &RuleNode, packet: &Packet) -> bool {
        (rule.matches.is_empty() || rule.matches.iter().any(|line| self.holds(line, packet)))
            && !rule.excludes.iter().any(|line| self.holds(line, packet))
    }

    fn holds(&self, line: &MatchNode, packet: &Packet) -> bool {
        let group = |name: &str| {
            self.document.groups.iter().find(|known| known.name.value == name).unwrap()
        };
        let net = |terms: &Terms<ipnet::IpNet>, address: IpAddr| {
            terms.is_empty()
                || terms.iter().any(|term| match &term.value {
                    Term::Literal(net) => net.contains(&address),
                    Term::Group(name) => {
                        group(name).prefixes.iter().any(|net| net.value.contains(&address))
                    }
                })
        };
        let port = |terms: &Terms<std::ops::RangeInclusive<u16>>, port: Option<u16>| {
            terms.is_empty()
                || port.is_some_and(|port| {
                    terms.iter().any(|term| match &term.value {
                        Term::Literal(range) => range.contains(&port),
                        Term::Group(name) => {
                            group(name).ports.iter().any(|range| range.value.contains(&port))
                        }
                    })
                })
        };
        let door = line.ingresses.is_empty()
            || line.ingresses.iter().any(|term| match &term.value {
                Term::Literal(name) => name == packet.door,
                Term::Group(name) => {
                    group(name).interfaces.iter().any(|door| door.value == packet.door)
                }
            });
        let one = |values: &[mtun_policy::Spanned<u8>], value: u8| {
            values.is_empty() || values.iter().any(|known| known.value == value)
        };
        one(&line.protocols, packet.protocol)
            && net(&line.sources, packet.source)
            && net(&line.destinations, packet.destination)
            && port(&line.source_ports, packet.ports.map(|ports| ports.0))
            && port(&line.destination_ports, packet.ports.map(|ports| ports.1))
            && one(&line.dscps, packet.dscp)
            && door
    }
}

/// Bindings of all links that are not down, as the data plane would have them.
struct Bound<'p>(&'p Policy, [LinkState; 3]);

impl Bound<'_> {
    fn state(&self, bid: Bid) -> LinkState {
        let place = self.0.interfaces.iter().position(|link| link.bid == Some(bid)).unwrap();
        self.1[place]
    }
}

impl Usable for Bound<'_> {
    fn usable(&self, bid: Bid) -> bool {
        self.state(bid) != LinkState::Down
    }

    fn preferred(&self) -> Option<Bid> {
        let links = self.0.interfaces.iter().map(|link| (link.priority, link.bid.unwrap()));
        let usable = links.filter(|(_, bid)| self.usable(*bid));
        usable.min_by_key(|(priority, bid)| (self.state(*bid), *priority, *bid)).map(|(_, bid)| bid)
    }
}

fn compiled(policy: &Policy, packet: &Packet, states: [LinkState; 3]) -> End {
    let facts: PathFacts = policy
        .interfaces
        .iter()
        .zip(states)
        .map(|(link, state)| (link.bid.unwrap(), state))
        .collect();
    let key = FlowKey {
        source: packet.source,
        destination: packet.destination,
        protocol: packet.protocol,
        source_port: packet.ports.map(|ports| ports.0),
        destination_port: packet.ports.map(|ports| ports.1),
        dscp: packet.dscp,
        ingress: policy.ingresses.number(packet.door).unwrap_or(Ingress::OTHER),
        flow_label: 0,
        spi: None,
        icmp_type: None,
        uid: None,
    };
    let effective = evaluate(&policy.homes[0].rules, &[], &facts, Duration::ZERO);
    let name = |rule: mtun_policy::Ruling<'_>| rule.head.name.as_str().to_owned();
    match effective.choose(&key, mtun_policy::Origin::Home, &Bound(policy, states), None) {
        Choice::Use { rule, bid, .. } => {
            let link = policy.interface_of(bid).unwrap().name.as_str();
            End::Link(
                name(rule.unwrap()),
                LINKS.iter().copied().find(|known| *known == link).unwrap(),
            )
        }
        Choice::Block { rule, reply, .. } => End::Block(name(rule), reply),
        Choice::Nothing(rule) => End::Nothing(rule.map(name)),
        other => panic!("no {other:?} in these policies"),
    }
}

fn any_states() -> impl Strategy<Value = [LinkState; 3]> {
    prop::array::uniform3(prop::sample::select(STATES.to_vec()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn compiled_rules_judge_as_the_file_reads(
        text in any_policy(),
        packets in prop::collection::vec((any_packet(), any_states()), 50),
    ) {
        let document = parse_document("p.kdl", &text, &NoFiles).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        // Random rules may shadow each other, which is the only fault they may have.
        let policy = match parse("p.kdl", &text, &NoFiles) {
            Ok(policy) => policy,
            Err(faults) => {
                let shadowed = faults.0.iter().all(|fault| fault.code == mtun_policy::Code::Shadowed);
                prop_assert!(shadowed, "{faults}\n{text}");
                // What is called shadowed must never decide.
                for fault in &faults.0 {
                    let name = fault.message.split('`').nth(1).unwrap();
                    for (packet, states) in &packets {
                        let naive = Naive { document: &document, states: *states };
                        let decides = match naive.end(packet) {
                            End::Link(rule, _) | End::Block(rule, _) | End::Nothing(Some(rule)) => rule == name,
                            End::Nothing(None) => false,
                        };
                        prop_assert!(!decides, "{name} decides {packet:?}\n{text}");
                    }
                }
                return Ok(());
            }
        };
        for (packet, states) in packets {
            let naive = Naive { document: &document, states };
            prop_assert_eq!(compiled(&policy, &packet, states), naive.end(&packet), "{:?} {:?}\n{}", packet, states, text);
        }
    }

    #[test]
    fn octets_of_policy_words_never_panic(words in prop::collection::vec(any_word(), 0..60)) {
        kdl::check(words.concat().as_bytes());
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,200}") {
        kdl::check(text.as_bytes());
    }

    #[test]
    fn one_changed_octet_never_panics(place in any::<prop::sample::Index>(), octet in any::<u8>(), cut in any::<bool>()) {
        let mut octets = include_bytes!("../../examples/figure-11.kdl").to_vec();
        let place = place.index(octets.len());
        if cut { octets.truncate(place) } else { octets[place] = octet }
        kdl::check(&octets);
    }

    #[test]
    fn a_selector_reads_back_from_its_text(text in any_line("match")) {
        let policy = format!(
            "role \"mobile-node\"\ninterface wlan0 {{ bid 1; }}\ngroup doors {{ interface lan0 lan1; }}\n\
             group nets {{ prefix \"2001:db8:a:1::/64\"; }}\ngroup ports {{ port 443 \"5000-6000\"; }}\n\
             home h {{ tunnel mtun0; agent \"2001:db8::1\"; address \"2001:db8::2/64\"; security none; }}\n\
             rules {{\nrule r {{\n{text}prefer wlan0\n}}\ndefault {{ block; }}\n}}\n"
        );
        let policy = parse("p.kdl", &policy, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"));
        let selector = &policy.homes[0].rules.rules[0].head.selectors[0];
        let filter = parse_filter(&filter_text(selector, &policy.ingresses), Some(&policy));
        prop_assert_eq!(&filter.unwrap_or_else(|fault| panic!("{fault}")).selector, selector);
    }
}

/// Words and marks of the language, in any order.
fn any_word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        " ",
        " ",
        "\n",
        "\n",
        "{",
        "}",
        ";",
        "=",
        "\"",
        "\\",
        "/-",
        "//",
        "/*",
        "*/",
        "#",
        "#\"",
        "\"#",
        "(",
        ")",
        ",",
        "@",
        "->",
        "role ",
        "\"mobile-router\"",
        "\"home-agent\"",
        "interface ",
        "wlan0",
        "bid ",
        "1",
        "0x1",
        "home ",
        "acme",
        "tunnel ",
        "mtun0",
        "agent ",
        "\"2001:db8::1\"",
        "address ",
        "\"2001:db8::2/64\"",
        "mobile-network ",
        "security ",
        "none",
        "auth-option ",
        "spi=",
        "rules ",
        "rule ",
        "match ",
        "proto=tcp",
        "dport=",
        "22",
        "exclude ",
        "prefer ",
        "block ",
        "otherwise ",
        "default ",
        "test ",
        "flow ",
        "expect ",
        "given ",
        "src=",
        "dst=",
        "true",
        "#true",
        "group ",
        "include ",
        "\"self.kdl\"",
        "\"*.kdl\"",
        "register ",
        "lifetime=",
        "\"420s\"",
        "420s",
        "via=",
        "serve ",
        "allow ",
        "policy ",
        "é",
        "\u{feff}",
        "\u{2028}",
        "\r",
    ])
}

#[test]
fn overrides_come_first_and_end_by_themselves() {
    let text = "role \"mobile-node\"\ninterface wlan0 { bid 1; }\ninterface wwan0 { bid 2; }\n\
        home h { tunnel mtun0; agent \"2001:db8::1\"; address \"2001:db8::2/64\"; security none; }\n\
        rules { default { prefer wlan0; }; }\n";
    let policy = parse("p.kdl", text, &NoFiles).unwrap_or_else(|faults| panic!("{faults}"));
    let (wlan, wwan) = (Bid::new(1).unwrap(), Bid::new(2).unwrap());
    let second = Duration::from_secs(1);
    let steer = |number: u16, bid, until: u32| Override {
        id: RuleId(RuleId::OVERRIDES + number),
        selector: TrafficSelector { destination_ports: vec![22..=22], ..Default::default() },
        bid,
        until: second * until,
        reason: None,
        text: "dport 22".to_owned(),
    };
    let overrides = [steer(0, wwan, 10), steer(1, wlan, 20)];
    let key = FlowKey {
        source: "2001:db8::2".parse().unwrap(),
        destination: "2001:db8:c::1".parse().unwrap(),
        protocol: 6,
        source_port: Some(40_000),
        destination_port: Some(22),
        dscp: 0,
        ingress: Ingress::LOCAL,
        flow_label: 0,
        spi: None,
        icmp_type: None,
        uid: None,
    };
    let up = [LinkState::Up; 3];
    let wwan_down: PathFacts = [(wwan, LinkState::Down)].into_iter().collect();
    let cases = [
        ("the first that is asked", 0, PathFacts::new(), "steer-0", wwan),
        ("still", 9, PathFacts::new(), "steer-0", wwan),
        ("ended to the second", 10, PathFacts::new(), "steer-1", wlan),
        ("both ended", 20, PathFacts::new(), "default", wlan),
        ("its link is down, so the next rule", 0, wwan_down, "steer-1", wlan),
    ];
    for (what, now, facts, rule, bid) in cases {
        let effective = evaluate(&policy.homes[0].rules, &overrides, &facts, second * now);
        match effective.choose(&key, mtun_policy::Origin::Home, &Bound(&policy, up), None) {
            Choice::Use { rule: Some(found), bid: used, .. } => {
                assert_eq!((found.head.name.as_str(), used), (rule, bid), "{what}")
            }
            other => panic!("{what}: {other:?}"),
        }
        let other = FlowKey { destination_port: Some(23), ..key };
        let Choice::Use { rule: Some(found), .. } =
            effective.choose(&other, mtun_policy::Origin::Home, &Bound(&policy, up), None)
        else {
            panic!("{what}")
        };
        assert_eq!(found.head.name.as_str(), "default", "{what}");
    }
    assert_eq!(next_expiry(&overrides, Duration::ZERO), Some(second * 10));
    assert_eq!(next_expiry(&overrides, second * 10), Some(second * 20));
    assert_eq!(next_expiry(&overrides, second * 20), None);
}

#[test]
fn protocols_of_the_tables_are_known() {
    for (name, number) in PROTOCOLS {
        let filter = parse_filter(&format!("proto {name}"), None).unwrap();
        assert_eq!(filter.selector.protocols, [number]);
    }
}
