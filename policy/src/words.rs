//! Every node and property of the language, in tables.
//!
//! [`conform`] holds a text against them and names every node, property and argument that does
//! not belong. Words of the full language that this version does not carry out stand in the
//! tables too, so that they are refused by name and never ignored.

use std::collections::HashSet;

use crate::diagnostic::Code;
use crate::reader::{Node, Value};
use crate::source::{Sink, Spanned};

/// One kind of node.
pub(crate) struct Word {
    /// Its name.
    pub name: &'static str,
    /// What stands behind the name.
    pub arguments: Arguments,
    /// Properties it may have.
    pub properties: &'static [&'static str],
    /// Properties that are not carried out yet.
    pub later: &'static [&'static str],
    /// Nodes that may stand in its block.
    pub children: &'static [&'static Word],
    /// Nodes that are not carried out yet.
    pub later_children: &'static [&'static str],
    /// Whether several may stand side by side.
    pub many: bool,
    /// Whether property names are names of the file, as in `given wlan0=down`.
    pub free: bool,
}

/// What stands behind a node's name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arguments {
    /// Nothing.
    None,
    /// Whatever the reader of the node makes of it.
    Any,
    /// At most one word.
    Perhaps(&'static str),
    /// Exactly one.
    One(&'static str),
    /// At least one.
    Some(&'static str),
}

/// What a table leaves out.
const PLAIN: Word = Word {
    name: "",
    arguments: Arguments::None,
    properties: &[],
    later: &[],
    children: &[],
    later_children: &[],
    many: false,
    free: false,
};

macro_rules! words {
    ($($word:ident = $name:literal $arguments:expr $(, $field:ident: $value:expr)*;)*) => {
        $(pub(crate) static $word: Word = Word { name: $name, arguments: $arguments, $($field: $value,)* ..PLAIN };)*
    };
}

use Arguments::{None as Nothing, One, Perhaps, Some as AtLeastOne};

words! {
    POLICY = "policy" One("a name"), properties: &["schema"];
    INCLUDE = "include" AtLeastOne("a file name"), properties: &["optional"], many: true;
    ROLE = "role" One("a role");

    CLASS = "class" One("a word");
    BID = "bid" One("a number");
    PRIORITY = "priority" One("a number");
    METERED = "metered" Perhaps("#true or #false");
    COST = "cost" One("a price"), properties: &["currency", "per", "roaming"];
    QUOTA = "quota" One("an amount of data"), properties: &["per", "starts", "warn", "at-limit"];
    RATE = "rate" One("a rate");
    SIGNAL = "signal" Nothing, properties: BAND;
    RTT = "rtt" Nothing, properties: BAND;
    JITTER = "jitter" Nothing, properties: BAND;
    LOSS = "loss" Nothing, properties: BAND;
    SPEED = "speed" Nothing, properties: BAND;
    NEAR = "near" One("a position"), properties: BAND;
    ROAMING = "roaming" One("#true or #false");
    TECHNOLOGY = "technology" AtLeastOne("a technology");
    HOLD = "hold" Nothing, properties: &["up", "down"];
    USABLE = "usable" Nothing,
        children: &[&SIGNAL, &RTT, &JITTER, &LOSS, &SPEED, &NEAR, &ROAMING, &TECHNOLOGY, &HOLD];
    RADIO = "radio" Nothing, properties: &["modem", "exec", "file", "every", "lost-after"];
    INTERFACE = "interface" One("a name"), many: true,
        children: &[&CLASS, &BID, &PRIORITY, &METERED, &COST, &QUOTA, &RATE, &USABLE, &RADIO],
        later_children: &["probe", "linger"];

    VEHICLE = "vehicle" Nothing, properties: &["gpsd", "exec", "file", "every", "lost-after"];

    GROUP_INTERFACE = "interface" AtLeastOne("a name"), many: true;
    GROUP_PORT = "port" AtLeastOne("a port or a range"), many: true;
    GROUP_PREFIX = "prefix" AtLeastOne("a prefix"), many: true;
    GROUP = "group" One("a name"), many: true,
        children: &[&GROUP_INTERFACE, &GROUP_PORT, &GROUP_PREFIX];
    SET = "set" One("a name"), properties: &["file"], many: true;
    SLA = "sla" One("a name"), properties: &["rtt", "jitter", "loss"], many: true;

    TUNNEL = "tunnel" One("an interface name"), properties: &["mtu"];
    AGENT = "agent" One("an address, or discover");
    ADDRESS = "address" One("an address");
    MOBILE_NETWORK = "mobile-network" One("a prefix"), properties: &["on"], many: true;
    ALSO = "also" Nothing, properties: &["from"], many: true;
    PROBE = "probe" Nothing, properties: &["every", "active-every"];
    REGISTER = "register" Nothing,
        properties: &["lifetime", "multiple-coa", "bulk", "mode", "flow-bindings", "reflect"];
    HOME_SECURITY = "security" One("a name, or none");
    ROUTE_OPTIMIZATION = "route-optimization" One("traffic, policy or off"),
        properties: &["lifetime", "correspondents"];
    RETURNING_HOME = "returning-home" One("home, both or foreign");
    SERVE = "serve" One("a prefix"),
        properties: &[
            "agent", "on", "only-router", "preference", "lifetime", "multiple-coa", "bulk",
            "flow-bindings", "reflect", "unmatched",
        ];
    ALLOWED_NETWORK = "mobile-network" AtLeastOne("a prefix"), many: true;
    BINDINGS = "bindings" One("a number");
    FLOW_BINDINGS = "flows" One("a number");
    COPIES = "copies" One("a number");
    ALLOW = "allow" One("a home address"), properties: &["name"], many: true,
        children: &[&ALLOWED_NETWORK, &HOME_SECURITY, &BINDINGS, &FLOW_BINDINGS, &COPIES];
    REFUSE = "refuse" One("a home address"), properties: &["bid"], many: true;
    EXTENSIONS = "extensions" Nothing,
        properties: &[
            "heartbeat", "heartbeat-every", "heartbeats-missing", "agent-switch", "revocation",
            "prefix-discovery",
        ];
    HOME = "home" One("a name"), many: true,
        children: &[
            &TUNNEL, &AGENT, &ADDRESS, &MOBILE_NETWORK, &ALSO, &REGISTER, &HOME_SECURITY, &PROBE,
            &ROUTE_OPTIMIZATION, &RETURNING_HOME, &SERVE, &ALLOW, &REFUSE, &EXTENSIONS,
        ];

    CORRESPONDENT_ADDRESS = "address" AtLeastOne("an address"), many: true;
    LIFETIME = "lifetime" One("a duration");
    MULTIPLE_COA = "multiple-coa" Perhaps("#true or #false");
    MOBILES = "mobiles" One("a number");
    CORRESPONDENT = "correspondent" Perhaps("off"), properties: &["answer"],
        children: &[&TUNNEL, &CORRESPONDENT_ADDRESS, &LIFETIME, &MULTIPLE_COA, &MOBILES, &BINDINGS];

    AUTH_OPTION = "auth-option" Nothing,
        properties: &["spi", "algorithm", "key-file", "key-credential"];
    SECURITY = "security" One("a name"), many: true, children: &[&AUTH_OPTION],
        later_children: &["ipsec", "ike"];

    MATCH = "match" Nothing, properties: MATCH_FIELDS, many: true;
    EXCLUDE = "exclude" Nothing, properties: MATCH_FIELDS, many: true;
    WHEN = "when" Nothing, properties: &["speed", "time", "near", "within", "leave", "days"], many: true;
    PREFER = "prefer" AtLeastOne("a link");
    BALANCE = "balance" Arguments::Any, free: true;
    OVERFLOW = "overflow" AtLeastOne("a link"), properties: &["full"];
    FASTEST = "fastest" AtLeastOne("a link"), properties: &["margin"];
    CHEAPEST = "cheapest" AtLeastOne("a link"), properties: &["sla"];
    DUPLICATE = "duplicate" AtLeastOne("a link"), properties: &["copies", "cap"];
    BREAKOUT = "breakout" AtLeastOne("a link"), properties: &["translate"];
    BLOCK = "block" Nothing, properties: &["reply"];
    // Its properties are those of the verb that is its first argument.
    OTHERWISE = "otherwise" AtLeastOne("what to do"), free: true;
    STICKY = "sticky" One("flow, pair, host or none"), properties: &["for"];
    TOGETHER = "together" One("a word");
    FAILBACK = "failback" One("new, gap, now or never"), properties: &["after"];
    OPTIMIZE = "optimize" One("always or never");
    RULE = "rule" One("a name"), many: true,
        children: &[
            &MATCH, &EXCLUDE, &WHEN, &PREFER, &BALANCE, &OVERFLOW, &FASTEST, &CHEAPEST, &DUPLICATE,
            &BREAKOUT, &BLOCK, &OTHERWISE, &STICKY, &TOGETHER, &FAILBACK, &OPTIMIZE,
        ];
    // `when` is refused with a reason of its own where rules are read.
    DEFAULT = "default" Nothing,
        children: &[
            &WHEN, &PREFER, &BALANCE, &OVERFLOW, &FASTEST, &CHEAPEST, &DUPLICATE, &BREAKOUT,
            &BLOCK, &OTHERWISE, &STICKY, &TOGETHER, &FAILBACK, &OPTIMIZE,
        ];
    RULES = "rules" Nothing, properties: &["home"], many: true, children: &[&RULE, &DEFAULT];

    FLOW = "flow" Nothing, properties: MATCH_FIELDS;
    GIVEN = "given" Nothing, free: true, many: true;
    EXPECT = "expect" Perhaps("blocked, unreachable or breakout"), properties: &["rule", "via", "optimized"], many: true,
        children: &[&GIVEN];
    TEST = "test" One("a sentence"), many: true, children: &[&FLOW, &EXPECT];

    FLOW_BUDGET = "flow-budget" One("a number");

    FILE = "the file" Nothing,
        children: &[
            &POLICY, &INCLUDE, &ROLE, &INTERFACE, &VEHICLE, &GROUP, &SET, &HOME, &CORRESPONDENT, &SECURITY, &SLA,
            &RULES, &TEST, &FLOW_BUDGET,
        ];
}

/// Properties of `match`, `exclude` and `flow`.
pub(crate) const MATCH_FIELDS: &[&str] = &[
    "proto",
    "src",
    "dst",
    "sport",
    "dport",
    "dscp",
    "in",
    "flow-label",
    "spi",
    "icmp-type",
    "uid",
];

/// Properties of the limits under `usable`.
const BAND: &[&str] = &["enter", "leave"];

/// Every verb.
pub(crate) static VERBS: [&Word; 8] =
    [&PREFER, &BALANCE, &OVERFLOW, &FASTEST, &CHEAPEST, &DUPLICATE, &BREAKOUT, &BLOCK];

/// The verb of this name.
pub(crate) fn verb(name: &str) -> Option<&'static Word> {
    VERBS.into_iter().find(|verb| verb.name == name)
}

/// Property names under which people write keys down.
const KEY_NAMES: &[&str] = &["key", "secret", "password", "passphrase", "psk", "passwd"];

/// Names everything at the top of a file that does not belong there, and so on inwards.
pub(crate) fn conform_file(nodes: &[Node], sink: &mut Sink) {
    children_conform(&FILE, nodes, sink);
}

fn conform(word: &Word, node: &Node, sink: &mut Sink) {
    arguments_conform(word, node, sink);
    properties_conform(word, node, sink);
    if word.children.is_empty() && word.later_children.is_empty() && node.has_block {
        sink.error(
            node.name.span,
            Code::UnknownNode,
            format!("`{}` has no block", word.name),
            "remove the braces; its options are written name=value on the same line",
        );
    } else {
        children_conform(word, &node.children, sink);
    }
}

fn arguments_conform(word: &Word, node: &Node, sink: &mut Sink) {
    let (wanted, least, most) = match word.arguments {
        Arguments::None => ("nothing", 0, 0),
        Arguments::Any => ("", 0, usize::MAX),
        Arguments::Perhaps(what) => (what, 0, 1),
        Arguments::One(what) => (what, 1, 1),
        Arguments::Some(what) => (what, 1, usize::MAX),
    };
    if node.arguments.len() < least {
        sink.error(
            node.name.span,
            Code::Missing,
            format!("`{}` needs {wanted}", word.name),
            format!("write {wanted} behind `{}`", word.name),
        );
    }
    if let Some(extra) = node.arguments.get(most) {
        let options = if std::ptr::eq(word, &ROLE) {
            roles_together(node)
        } else if word.properties.is_empty() {
            "remove it".to_owned()
        } else {
            format!("options are written name=value: {}", word.properties.join(", "))
        };
        sink.error(
            extra.span,
            Code::Value,
            format!("`{}` takes {}{wanted} here", word.name, if most == 0 { "" } else { "only " }),
            options,
        );
    }
}

/// What to do about a node that is said to have several roles.
fn roles_together(node: &Node) -> String {
    let has = |role: &str| {
        node.arguments.iter().any(|it| matches!(&it.value, Value::Text(text) if text == role))
    };
    let moves = has("mobile-node") || has("mobile-router");
    let help = if moves && has("home-agent") {
        "a home agent and a mobile need a file and an mtund each, apart by network namespaces or machines"
    } else if has("correspondent") {
        "keep the other role and add correspondent { }: that makes the node a correspondent too"
    } else if has("mobile-node") && has("mobile-router") {
        "write role \"mobile-router\": in homes without mobile-network it is a mobile node"
    } else {
        "remove it"
    };
    help.to_owned()
}

fn properties_conform(word: &Word, node: &Node, sink: &mut Sink) {
    let mut seen = HashSet::new();
    for (name, _) in &node.properties {
        if !seen.insert(name.value.as_str()) {
            sink.error(
                name.span,
                Code::Duplicate,
                format!("`{}` is given twice in one `{}`", name.value, word.name),
                "keep one of them; several values go into one string, separated by commas",
            );
        }
        if word.free {
            continue;
        }
        property_conforms(word, name, sink);
    }
}

/// Names a property that the node does not have.
pub(crate) fn property_conforms(word: &Word, name: &Spanned<String>, sink: &mut Sink) {
    let text = name.value.as_str();
    if word.properties.contains(&text) {
        return;
    }
    if KEY_NAMES.contains(&text) {
        sink.error(
            name.span,
            Code::Secret,
            "a key does not belong in the policy",
            "put it into a file of mode 0600 and name that: key-file=\"name.key\"",
        );
    } else if word.later.contains(&text) {
        not_yet(text, name.span, sink);
    } else if word.children.iter().any(|child| child.name == text) {
        sink.error(
            name.span,
            Code::UnknownProperty,
            format!("`{}` has no property `{text}`", word.name),
            format!("write it inside the block: {} … {{ {text} … }}", word.name),
        );
    } else {
        let known = word.properties.iter().copied();
        sink.error(
            name.span,
            Code::UnknownProperty,
            format!("`{}` has no property `{text}`", word.name),
            advice(text, known, "properties"),
        );
    }
}

fn children_conform(word: &Word, nodes: &[Node], sink: &mut Sink) {
    let mut seen = HashSet::new();
    for node in nodes {
        let name = node.name.value.as_str();
        if let Some(child) = word.children.iter().find(|child| child.name == name) {
            if !child.many && !seen.insert(name) {
                sink.error(
                    node.name.span,
                    Code::Duplicate,
                    format!("`{name}` is given twice"),
                    format!("keep one `{name}`"),
                );
            }
            conform(child, node, sink);
        } else if word.later_children.contains(&name) {
            not_yet(name, node.name.span, sink);
        } else if word.properties.contains(&name) {
            sink.error(
                node.name.span,
                Code::UnknownNode,
                format!("`{name}` is not a node in `{}`", word.name),
                format!("write it as a property: {} … {name}=…", word.name),
            );
        } else {
            let inside = if word.name == FILE.name {
                format!("a policy has no node `{name}`")
            } else {
                format!("`{}` has no node `{name}`", word.name)
            };
            let known = word.children.iter().map(|child| child.name);
            sink.error(node.name.span, Code::UnknownNode, inside, advice(name, known, "nodes"));
        }
    }
}

/// Refuses a word of the full language.
pub(crate) fn not_yet(word: &str, span: crate::source::Span, sink: &mut Sink) {
    sink.error(
        span,
        Code::NotSupported,
        format!("`{word}` belongs to the language but is not carried out by this version"),
        "remove it; nothing in a policy is ever ignored silently",
    );
}

/// The nearest of the known words, or all of them.
pub(crate) fn advice<'w>(
    word: &str,
    known: impl Iterator<Item = &'w str> + Clone,
    what: &str,
) -> String {
    match nearest(word, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let mut all: Vec<&str> = known.take(24).collect();
            all.dedup();
            if all.is_empty() {
                format!("there are no {what} here; remove it")
            } else {
                format!("the {what} here are {}", all.join(", "))
            }
        }
    }
}

/// The word that a typist most likely meant.
pub(crate) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    if word.len() > 64 {
        return None;
    }
    let most = (word.chars().count() / 3).clamp(1, 3);
    known
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, removals, changes and swaps of neighbours that lead from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let change = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}
