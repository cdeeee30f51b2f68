//! Compiled rules judge as a naive reading of the file does; the fuzz target's corpus holds.

#[path = "support/kdl.rs"]
mod kdl;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use mtun_policy::document::{Document, MatchNode, OtherwiseNode, RuleNode, Term, Terms, VerbNode};
use mtun_policy::steering::{Fact, Given, GivenState, suppose};
use mtun_policy::{
    Bid, BlockReply, Choice, FlowKey, Ingress, NoFiles, Override, Policy, RuleId, Steering,
    TrafficSelector, Usable, filter_text, parse, parse_document, parse_filter,
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
    states: [GivenState; 3],
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
            let links = match &rule.verb.as_ref().unwrap().value {
                VerbNode::Block(reply) => return End::Block(name, *reply),
                VerbNode::Prefer(links) => self.named(links),
                other => panic!("no {other:?} in these policies"),
            };
            let ordinary = self.first(&links, Use::Ordinary);
            let last_choice = self.first(&links, Use::LastChoice);
            let others = match rule.otherwise.as_ref().map(|otherwise| &otherwise.value) {
                None | Some(OtherwiseNode::NextRule) => match ordinary.or(last_choice) {
                    Some(link) => return End::Link(name, link),
                    None => continue,
                },
                Some(OtherwiseNode::Then(VerbNode::Block(reply))) => {
                    let link = ordinary.or(last_choice);
                    return link.map_or(End::Block(name.clone(), *reply), |it| End::Link(name, it));
                }
                Some(OtherwiseNode::Then(VerbNode::Prefer(links))) => self.named(links),
                Some(OtherwiseNode::Any) => self.all(),
                Some(OtherwiseNode::Then(other)) => panic!("no {other:?} in these policies"),
            };
            // Last choices come after everything that the rule names, its own before the others.
            let found = ordinary
                .or_else(|| self.first(&others, Use::Ordinary))
                .or(last_choice)
                .or_else(|| self.first(&others, Use::LastChoice));
            return found.map_or(End::Nothing(Some(name.clone())), |link| End::Link(name, link));
        }
        End::Nothing(last)
    }

    fn state(&self, link: &str) -> GivenState {
        self.states[LINKS.iter().position(|known| *known == link).unwrap()]
    }

    /// How a link may be used.
    fn used(&self, link: &str) -> Option<Use> {
        use GivenState::{Degraded, Down, Drained, Held, OverQuota, Recovering, Up};
        match self.state(link) {
            Up | Degraded => Some(Use::Ordinary),
            Drained | OverQuota => Some(Use::LastChoice),
            Down | Held => None,
            // One of them, if there is nothing else.
            Recovering => {
                let good = LINKS
                    .iter()
                    .any(|other| matches!(self.state(other), Up | Degraded | Drained | OverQuota));
                let recovering = self.by_priority(|state| state == Recovering);
                (!good && recovering.first() == Some(&link)).then_some(Use::Ordinary)
            }
        }
    }

    fn named<'s>(&'s self, links: &'s Terms<String>) -> Vec<&'s str> {
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
        all
    }

    fn first(&self, links: &[&str], wanted: Use) -> Option<&'static str> {
        let link = links.iter().find(|link| self.used(link) == Some(wanted))?;
        LINKS.iter().copied().find(|known| known == link)
    }

    /// All links for `otherwise any`: the degraded after the others.
    fn all(&self) -> Vec<&str> {
        let spoilt = |state| matches!(state, GivenState::Degraded | GivenState::Recovering);
        let mut all = self.by_priority(|state| !spoilt(state));
        all.extend(self.by_priority(spoilt));
        all
    }

    /// The links in such a state, the lowest BID-PRI first, then the lowest BID.
    fn by_priority(&self, wanted: impl Fn(GivenState) -> bool) -> Vec<&'static str> {
        let links = LINKS.iter().copied().zip(PRIORITIES).enumerate();
        let mut links: Vec<_> = links.filter(|(_, (link, _))| wanted(self.state(link))).collect();
        links.sort_by_key(|(number, (_, priority))| (*priority, 7 - number));
        links.into_iter().map(|(_, (link, _))| link).collect()
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

/// How a link may be used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Ordinary,
    LastChoice,
}

fn compiled(policy: &Policy, packet: &Packet, states: [GivenState; 3]) -> End {
    let links = policy.interfaces.iter().zip(states);
    let given =
        links.fold(Given::default(), |given, (link, state)| given.with(link.bid.unwrap(), state));
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
    let supposed = suppose(policy, &policy.homes[0], &given);
    let name = |rule: mtun_policy::Ruling<'_>| rule.head.name.as_str().to_owned();
    match supposed.effective.choose(&key, mtun_policy::Origin::Home, &supposed, None) {
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

fn any_states() -> impl Strategy<Value = [GivenState; 3]> {
    prop::array::uniform3(prop::sample::select(GivenState::ALL.to_vec()))
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
        "set ",
        "file=",
        "\"list.txt\"",
        "@cdn",
        "sla ",
        "usable ",
        "signal ",
        "rtt ",
        "enter=",
        "\"-70dBm\"",
        "hold ",
        "quota ",
        "\"20GB\"",
        "cost ",
        "4.50",
        "currency=EUR",
        "rate ",
        "\"50Mbit/s\"",
        "also ",
        "from=",
        "probe ",
        "every=",
        "when ",
        "speed=",
        "\"<5km/h\"",
        "time=",
        "\"22:00-05:00\"",
        "days=",
        "\"mon-fri\"",
        "balance ",
        "wlan0=3",
        "overflow ",
        "fastest ",
        "cheapest ",
        "duplicate ",
        "copies=2",
        "breakout ",
        "translate=#true",
        "sticky ",
        "pair",
        "together ",
        "failback ",
        "gap",
        "uid=1001",
        "icmp-type=echo-request",
        "given ",
        "wlan0.rtt=",
        "\"5ms\"",
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
    let mut steering = Steering::new(&policy, &policy.homes[0], Duration::ZERO);
    for bid in [wlan, wwan] {
        steering.handle(Duration::ZERO, Fact::Registered { bid, registered: true });
    }
    for steer in [steer(1, wlan, 20), steer(0, wwan, 10)] {
        steering.handle(Duration::ZERO, Fact::Steer(Box::new(steer)));
    }
    let mut without_wwan = steering.clone();
    without_wwan.handle(Duration::ZERO, Fact::Attached { bid: wwan, attached: false });
    let cases = [
        ("the first that is asked", 0, &steering, "steer-0", wwan),
        ("still", 9, &steering, "steer-0", wwan),
        ("ended to the second", 10, &steering, "steer-1", wlan),
        ("both ended", 20, &steering, "default", wlan),
        ("its link is down, so the next rule", 0, &without_wwan, "steer-1", wlan),
    ];
    for (what, now, steering, rule, bid) in cases {
        let mut steering = steering.clone();
        steering.handle_deadline(second * now);
        let effective = steering.effective();
        let bindings = Bound(&steering);
        match effective.choose(&key, mtun_policy::Origin::Home, &bindings, None) {
            Choice::Use { rule: Some(found), bid: used, .. } => {
                assert_eq!((found.head.name.as_str(), used), (rule, bid), "{what}")
            }
            other => panic!("{what}: {other:?}"),
        }
        let other = FlowKey { destination_port: Some(23), ..key };
        let Choice::Use { rule: Some(found), .. } =
            effective.choose(&other, mtun_policy::Origin::Home, &bindings, None)
        else {
            panic!("{what}")
        };
        assert_eq!(found.head.name.as_str(), "default", "{what}");
    }
    let deadlines = std::iter::from_fn(|| {
        let at = steering.deadline()?;
        steering.handle_deadline(at);
        Some(at)
    });
    assert_eq!(deadlines.collect::<Vec<_>>(), [second * 10, second * 20]);
}

/// Bindings as they are published.
struct Bound<'s>(&'s Steering);

impl Usable for Bound<'_> {
    fn usable(&self, bid: Bid) -> bool {
        self.0.usable(bid)
    }

    fn preferred(&self) -> Option<Bid> {
        None
    }
}

#[test]
fn protocols_of_the_tables_are_known() {
    for (name, number) in PROTOCOLS {
        let filter = parse_filter(&format!("proto {name}"), None).unwrap();
        assert_eq!(filter.selector.protocols, [number]);
    }
}
