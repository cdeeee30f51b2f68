//! Our own table in the firewall.
//!
//! It does two things, and a third when it is asked to. Packets of Mobile IPv6 to our own addresses are dropped
//! once the packet sockets have seen them, because a kernel without Mobile IPv6 would answer them
//! with ICMPv6 errors; nobody else's packets are touched. And a packet with a source of the home
//! network never leaves by an uplink in the plain (req MR-14): routing already sees to that, this is the
//! second lock, and what it catches is counted.
//!
//! The table is replaced as a whole when the daemon starts; the addresses that a killed one left
//! in it are kept until ours are known, because packets to them still come. Later only what has
//! changed is exchanged, in one transaction: kernels may miss an element for a moment that is
//! taken out and put back, and one missed packet is one answer too many.
//!
//! ```text
//! table ip6 mtun {
//!     chain arriving {                    prerouting, priority raw
//!         ip6 daddr @ours iifname @uplinks goto taken
//!     }
//!     chain taken {
//!         meta l4proto { 41, 135 }        drop    tunnelled packets, Mobility Header
//!         rt type 2                       drop    type 2 routing header
//!         ip6 nexthdr 60 @nh,368,8 0xc9   drop    Home Address option in its usual place
//!         ip6 nexthdr 0 exthdr dst exists drop    the option behind hop-by-hop options
//!         frag nexthdr { 41, 43, 60, 135 } drop   fragments of these
//!     }
//!     chain passing {                     forward
//!         iifname @ingress goto behind
//!     }
//!     chain behind {
//!         ip6 saddr @own drop                      claims to be this machine
//!         oifname @ingress accept
//!         ip6 saddr != @home drop
//!     }
//!     chain leaving {                     postrouting
//!         oifname @uplinks ip6 saddr @home goto plain
//!     }
//!     chain plain {
//!         oifname . ip6 saddr @returned accept     on their home link
//!         drop
//!     }
//! }
//! ```
//!
//! Every packet that the kernel forwards walks this, so what most of them are is told by the first
//! comparison of each hook, and none looks at routes.
//!
//! Only while a rule of the policy breaks out with translation, three more chains translate what
//! the daemon sends past the tunnel, which it marks. Such a packet passes this machine twice, on
//! its way into the tunnel interface and on its way out of the uplink, so the two passes must not
//! be one connection to the kernel: the second counts in a zone of its own, for its original
//! direction only, so that answers find it. What comes from a further source (`also`) and goes
//! into the tunnel interface is not tracked at all on the first pass, or a firewall would think
//! its connections half-open.
//!
//! ```text
//!     chain untracked {                   prerouting, priority raw
//!         iifname @also ip6 daddr != @home fib daddr type unicast notrack
//!     }
//!     chain marked {                      output, priority raw
//!         meta mark 0x6d740002 oifname @uplinks ct original zone set 28020
//!     }
//!     chain translating {                 postrouting, srcnat
//!         meta mark 0x6d740002 oifname @uplinks masquerade
//!     }
//! ```
//!
//! Standards: RFC 6275 §6.1, §6.3, §6.4; RFC 2473.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use mtun_dataplane::backend::MARK_TRANSLATED;
use mtun_policy::InterfaceName;
use nftables::helper::{self, DEFAULT_ARGS, DEFAULT_NFT, NftablesError};
use serde_json::{Value, json};

const FAMILY: &str = "ip6";
/// The name of our table.
pub const TABLE: &str = "mtun";
/// `raw`: before connection tracking, so the packets leave no entries there.
const BEFORE_TRACKING: i32 = -300;
/// `filter`: where packets are forwarded.
const FORWARDING: i32 = 0;
/// After everybody else has had their say about what leaves.
const LAST: i32 = 300;
/// `srcnat`: where sources are translated.
const TRANSLATION: i32 = 100;

/// Where the connections of packets that leave translated are tracked.
const ZONE: u16 = 0x6d74;
/// The chains that exist only while something is translated.
const TRANSLATORS: [&str; 3] = ["untracked", "marked", "translating"];

/// Why the firewall could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The program `nft` could not be run or refused.
    #[error(transparent)]
    Nft(#[from] NftablesError),
    /// It answered in a way that cannot be understood.
    #[error("nft's answer cannot be understood: {0}")]
    Answer(String),
}

/// What the table is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    /// The interfaces whose packets are taken by packet sockets.
    pub uplinks: BTreeSet<InterfaceName>,
    /// Our addresses there: care-of addresses, or the agent's address.
    pub ours: BTreeSet<Ipv6Addr>,
    /// Home addresses (/128) and mobile network prefixes that must not leave in the plain.
    pub home: BTreeSet<Ipv6Net>,
    /// Which of these may leave in the plain after all, by their home link.
    pub returned: BTreeSet<(InterfaceName, Ipv6Net)>,
    /// Home addresses of this machine, and its others in its networks: nobody behind it has one as a
    /// source.
    pub own: BTreeSet<Ipv6Addr>,
    /// The interfaces of further sources that rules judge (`also`).
    pub also: BTreeSet<InterfaceName>,
    /// The interfaces of mobile networks: what comes by them has a source at home.
    pub ingress: BTreeSet<InterfaceName>,
    /// Whether marked packets have their sources translated.
    pub translates: bool,
}

/// What the table has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirewallCounters {
    /// Packets kept from the kernel because packet sockets have them.
    pub taken: u64,
    /// Packets with a home source stopped on their way out of an uplink.
    pub leaks: u64,
    /// Packets of a mobile network with a source that is not of that home, or our own.
    pub foreign: u64,
}

/// The installed table. It stays until [`Firewall::remove`], also when this value is dropped: a
/// daemon that dies must not open the second lock.
#[derive(Debug)]
pub struct Firewall {
    guarded: Guarded,
}

impl Firewall {
    /// Puts the table in place, instead of any that an earlier run left. Runs `nft`, which takes
    /// some milliseconds.
    pub fn install(mut guarded: Guarded) -> Result<Self, FirewallError> {
        let (uplinks, ours) = (elements_left("uplinks"), elements_left("ours"));
        guarded.uplinks.extend(uplinks.iter().map(|name| InterfaceName::from(name.as_str())));
        guarded.ours.extend(ours.iter().filter_map(|it| it.parse::<Ipv6Addr>().ok()));
        apply(&installation(&guarded))?;
        Ok(Self { guarded })
    }

    /// Exchanges what differs in the sets, in one transaction.
    pub fn update(&mut self, guarded: Guarded) -> Result<(), FirewallError> {
        if guarded != self.guarded {
            apply(&exchange(&self.guarded, &guarded))?;
            self.guarded = guarded;
        }
        Ok(())
    }

    /// Reads the counters.
    pub fn counters(&self) -> Result<FirewallCounters, FirewallError> {
        let list = ["list", "counters", "table", FAMILY, TABLE];
        let answer = helper::get_current_ruleset_raw(DEFAULT_NFT, list)?;
        parse_counters(&answer).ok_or(FirewallError::Answer(answer))
    }

    /// Takes the table away.
    pub fn remove(self) -> Result<(), FirewallError> {
        Self::remove_any()
    }

    /// Takes away whatever table an earlier run left.
    pub fn remove_any() -> Result<(), FirewallError> {
        apply(&[add(table()), json!({ "delete": table() })])
    }
}

fn apply(commands: &[Value]) -> Result<(), FirewallError> {
    let batch = json!({ "nftables": commands }).to_string();
    helper::apply_ruleset_raw(&batch, DEFAULT_NFT, DEFAULT_ARGS)?;
    Ok(())
}

fn chain(name: &str, kind: &str, hook: &str, priority: i32) -> Value {
    add(json!({ "chain": {
        "family": FAMILY, "table": TABLE, "name": name,
        "type": kind, "hook": hook, "prio": priority, "policy": "accept",
    }}))
}

fn rule(chain: &str, expr: Vec<Value>) -> Value {
    add(json!({ "rule": { "family": FAMILY, "table": TABLE, "chain": chain, "expr": expr }}))
}

fn is(left: Value, right: Value) -> Value {
    json!({ "match": { "op": "==", "left": left, "right": right } })
}

fn isnt(left: Value, right: Value) -> Value {
    json!({ "match": { "op": "!=", "left": left, "right": right } })
}

fn header(field: &str) -> Value {
    json!({ "payload": { "protocol": "ip6", "field": field } })
}

fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

/// The chains that translate; the sets exist already.
fn translators() -> Vec<Value> {
    let marked = || is(meta("mark"), json!(MARK_TRANSLATED));
    let by_uplink = || is(meta("oifname"), json!("@uplinks"));
    let elsewhere = isnt(header("daddr"), json!("@home"));
    let kind = json!({ "fib": { "result": "type", "flags": ["daddr"] } });
    let zone = json!({ "ct": { "key": "zone", "dir": "original" } });
    let track = json!({ "mangle": { "key": zone, "value": ZONE } });
    vec![
        chain("untracked", "filter", "prerouting", BEFORE_TRACKING),
        chain("marked", "filter", "output", BEFORE_TRACKING),
        chain("translating", "nat", "postrouting", TRANSLATION),
        rule(
            "untracked",
            vec![
                is(meta("iifname"), json!("@also")),
                elsewhere,
                is(kind, json!("unicast")),
                json!({ "notrack": null }),
            ],
        ),
        rule("marked", vec![marked(), by_uplink(), track]),
        rule("translating", vec![marked(), by_uplink(), json!({ "masquerade": null })]),
    ]
}

fn without_translators() -> impl Iterator<Item = Value> {
    TRANSLATORS.into_iter().map(|name| {
        let chain = json!({ "family": FAMILY, "table": TABLE, "name": name });
        json!({ "delete": { "chain": chain } })
    })
}

fn installation(guarded: &Guarded) -> Vec<Value> {
    let set = |name: &str, kind: &str, flags: &[&str]| {
        add(json!({ "set": {
            "family": FAMILY, "table": TABLE, "name": name, "type": kind, "flags": flags,
        }}))
    };
    let returned = json!({ "concat": [meta("oifname"), header("saddr")] });
    let counter =
        |name: &str| add(json!({ "counter": { "family": FAMILY, "table": TABLE, "name": name } }));
    let extension = |name: &str, field: &str| json!({ "exthdr": { "name": name, "field": field } });
    let of = |numbers: &[u8]| json!({ "set": numbers });
    let (taken, leaks) = (json!({ "counter": "taken" }), json!({ "counter": "leaks" }));
    let foreign = json!({ "counter": "foreign" });
    let goto = |chain: &str| json!({ "goto": { "target": chain } });
    let plain_chain =
        |name: &str| add(json!({ "chain": { "family": FAMILY, "table": TABLE, "name": name } }));
    let drop = json!({ "drop": null });
    let take = |mut matches: Vec<Value>| {
        matches.extend([taken.clone(), drop.clone()]);
        rule("taken", matches)
    };

    // Adding the table first makes the removal succeed in any case.
    let mut commands = vec![add(table()), json!({ "delete": table() }), add(table())];
    commands.extend([
        set("uplinks", "ifname", &[]),
        set("ours", "ipv6_addr", &[]),
        set("home", "ipv6_addr", &["interval"]),
        set("own", "ipv6_addr", &[]),
        set("also", "ifname", &[]),
        set("ingress", "ifname", &[]),
        add(json!({ "set": {
            "family": FAMILY, "table": TABLE, "name": "returned",
            "type": ["ifname", "ipv6_addr"], "flags": ["interval"],
        }})),
        counter("taken"),
        counter("leaks"),
        counter("foreign"),
        chain("arriving", "filter", "prerouting", BEFORE_TRACKING),
        chain("passing", "filter", "forward", FORWARDING),
        chain("leaving", "filter", "postrouting", LAST),
        plain_chain("taken"),
        plain_chain("behind"),
        plain_chain("plain"),
        rule(
            "arriving",
            vec![
                is(header("daddr"), json!("@ours")),
                is(meta("iifname"), json!("@uplinks")),
                goto("taken"),
            ],
        ),
        take(vec![is(meta("l4proto"), of(&[41, 135]))]),
        take(vec![is(extension("rt", "type"), json!(2))]),
        // Requests for home agents go to an anycast address, which would be looked for on the
        // home link.
        take(vec![is(json!({ "payload": { "protocol": "icmpv6", "field": "type" } }), json!(144))]),
        // The option type at octet 46: a destination options header right after the fixed header,
        // and the option where its alignment of 8n+6 first allows it.
        take(vec![
            is(header("nexthdr"), json!(60)),
            is(json!({ "payload": { "base": "nh", "offset": 368, "len": 8 } }), json!(0xc9)),
        ]),
        // Where it stands behind hop-by-hop options nobody can say; few packets have both headers.
        take(vec![
            is(header("nexthdr"), json!(0)),
            is(json!({ "exthdr": { "name": "dst" } }), json!(true)),
        ]),
        take(vec![is(extension("frag", "nexthdr"), of(&[41, 43, 60, 135]))]),
        // req MR-13 (RFC 3963 §9).
        rule("passing", vec![is(meta("iifname"), json!("@ingress")), goto("behind")]),
        rule("behind", vec![is(header("saddr"), json!("@own")), foreign.clone(), drop.clone()]),
        rule("behind", vec![is(meta("oifname"), json!("@ingress")), json!({ "accept": null })]),
        rule("behind", vec![isnt(header("saddr"), json!("@home")), foreign, drop.clone()]),
        rule(
            "leaving",
            vec![
                is(meta("oifname"), json!("@uplinks")),
                is(header("saddr"), json!("@home")),
                goto("plain"),
            ],
        ),
        rule("plain", vec![is(returned, json!("@returned")), json!({ "accept": null })]),
        rule("plain", vec![leaks, drop.clone()]),
    ]);
    commands.extend(elements(guarded));
    if guarded.translates {
        commands.extend(translators());
    }
    commands
}

fn exchange(before: &Guarded, after: &Guarded) -> Vec<Value> {
    let mut commands = Vec::new();
    for ((name, before), (_, after)) in told(before).into_iter().zip(told(after)) {
        let only = |of: &[Value], not_in: &[Value]| -> Vec<Value> {
            of.iter().filter(|element| !not_in.contains(element)).cloned().collect()
        };
        for (verb, elements) in [("delete", only(&before, &after)), ("add", only(&after, &before))]
        {
            commands.extend(change(verb, name, elements));
        }
    }
    match (before.translates, after.translates) {
        (false, true) => commands.extend(translators()),
        (true, false) => commands.extend(without_translators()),
        _ => {}
    }
    commands
}

/// The commands that fill empty sets.
fn elements(guarded: &Guarded) -> Vec<Value> {
    told(guarded).into_iter().filter_map(|(name, elements)| change("add", name, elements)).collect()
}

/// Each set with its elements.
fn told(guarded: &Guarded) -> [(&'static str, Vec<Value>); 7] {
    let prefix = |net: &Ipv6Net| match net.prefix_len() {
        128 => json!(net.addr()),
        length => json!({ "prefix": { "addr": net.network(), "len": length } }),
    };
    // Overlapping intervals are refused, so only the widest are told.
    let nested =
        |net: &&Ipv6Net| guarded.home.iter().any(|other| other != *net && other.contains(*net));
    let names = |of: &BTreeSet<InterfaceName>| of.iter().map(|it| json!(it.as_str())).collect();
    [
        ("uplinks", names(&guarded.uplinks)),
        ("also", names(&guarded.also)),
        ("ingress", names(&guarded.ingress)),
        ("ours", guarded.ours.iter().map(|it| json!(it)).collect()),
        ("own", guarded.own.iter().map(|it| json!(it)).collect()),
        ("home", guarded.home.iter().filter(|net| !nested(net)).map(prefix).collect()),
        (
            "returned",
            guarded
                .returned
                .iter()
                .map(|(link, net)| json!({ "concat": [link.as_str(), prefix(net)] }))
                .collect(),
        ),
    ]
}

/// Adds or deletes elements; no command for none, because an empty list is no valid one.
fn change(verb: &str, set: &str, elements: Vec<Value>) -> Option<Value> {
    let element = json!({ "family": FAMILY, "table": TABLE, "name": set, "elem": elements });
    (!elements.is_empty()).then(|| json!({ verb: { "element": element } }))
}

/// The elements of a set that an earlier run left; none if there is no such set.
fn elements_left(set: &str) -> Vec<String> {
    let list = ["list", "set", FAMILY, TABLE, set];
    let Ok(answer) = helper::get_current_ruleset_raw(DEFAULT_NFT, list) else { return Vec::new() };
    let Ok(answer) = serde_json::from_str::<Value>(&answer) else { return Vec::new() };
    let objects = answer["nftables"].as_array().into_iter().flatten();
    let elements = objects.filter_map(|it| it["set"]["elem"].as_array()).flatten();
    elements.filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

fn table() -> Value {
    json!({ "table": { "family": FAMILY, "name": TABLE } })
}

fn add(object: Value) -> Value {
    json!({ "add": object })
}

fn parse_counters(answer: &str) -> Option<FirewallCounters> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let packets = |name: &str| {
        let objects = answer["nftables"].as_array()?;
        let named = |it: &&Value| it["counter"]["name"] == name && it["counter"]["table"] == TABLE;
        objects.iter().find(named)?["counter"]["packets"].as_u64()
    };
    Some(FirewallCounters {
        taken: packets("taken")?,
        leaks: packets("leaks")?,
        foreign: packets("foreign")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let answer = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "ip6", "name": "leaks", "table": "mtun", "packets": 3, "bytes": 9}},
            {"counter": {"family": "ip6", "name": "taken", "table": "other", "packets": 8, "bytes": 9}},
            {"counter": {"family": "ip6", "name": "foreign", "table": "mtun", "packets": 7, "bytes": 9}},
            {"counter": {"family": "ip6", "name": "taken", "table": "mtun", "packets": 5, "bytes": 9}}]}"#;
        let want = FirewallCounters { taken: 5, leaks: 3, foreign: 7 };
        assert_eq!(parse_counters(answer), Some(want));
        assert_eq!(parse_counters(r#"{"nftables": []}"#), None);
        assert_eq!(parse_counters("not JSON"), None);
    }

    #[test]
    fn only_what_differs_is_exchanged() {
        let guarded = |ours: &[&str]| Guarded {
            uplinks: ["wlan0".into()].into(),
            ours: ours.iter().map(|it| it.parse().unwrap()).collect(),
            ..Guarded::default()
        };
        let (one, other) =
            (guarded(&["2001:db8::1", "2001:db8::2"]), guarded(&["2001:db8::2", "2001:db8::3"]));
        let set = |elem: &str| json!({ "element": { "family": "ip6", "table": "mtun", "name": "ours", "elem": [elem] } });
        let want = [json!({ "delete": set("2001:db8::1") }), json!({ "add": set("2001:db8::3") })];
        assert_eq!(exchange(&one, &other), want);
        assert!(exchange(&one, &one).is_empty());
    }

    #[test]
    fn nested_prefixes_and_empty_sets_are_not_told() {
        let nets = ["2001:db8:100:4200::/56", "2001:db8:100:4242::/64", "2001:db8:100::42/128"];
        let guarded = Guarded {
            home: nets.iter().map(|it| it.parse().unwrap()).collect(),
            ..Guarded::default()
        };
        let commands = elements(&guarded);
        assert_eq!(commands.len(), 1, "only one set has elements");
        assert_eq!(
            commands[0]["add"]["element"]["elem"],
            json!(["2001:db8:100::42", { "prefix": { "addr": "2001:db8:100:4200::", "len": 56 } }])
        );
    }
}
