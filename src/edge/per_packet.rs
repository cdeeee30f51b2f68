//! Which rules of a firewall have to see every packet of a flow.
//!
//! A packet that takes the shortcut passes no hook of the firewall between two interfaces. For rules
//! that say the same of all packets of a flow that is nothing: one packet of it asks them every
//! second, and every change of a rule is heard of. A rule that counts, limits, logs, rewrites or
//! looks at what differs from packet to packet would not be kept. So everything that is not known
//! to be of the first kind is taken to be of the second.
//!
//! Translation of addresses needs no rule here: a translated flow has other addresses on its two
//! sides, so that no packet of it is ever found to have passed.

use serde_json::Value;

/// A rule that has to see every packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rule in `{table} {chain}` needs every packet (`{word}`)")]
pub struct PerPacket {
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The statement or expression that does.
    pub word: String,
}

/// Hooks that packets of the shortcut pass all the same, or that they would never have come to.
const KEPT_HOOKS: [&str; 3] = ["input", "output", "egress"];
/// Statements that end or lead on.
const PLAIN_STATEMENTS: [&str; 11] = [
    "accept",
    "drop",
    "reject",
    "continue",
    "return",
    "jump",
    "goto",
    "notrack",
    "snat",
    "dnat",
    "masquerade",
];
/// What `meta` tells of a flow.
const FLOW_META: [&str; 13] = [
    "iif", "iifname", "iifgroup", "iiftype", "oif", "oifname", "oifgroup", "oiftype", "l4proto",
    "nfproto", "protocol", "mark", "ibrname",
];
/// What `ct` tells of a flow.
const FLOW_CT: [&str; 11] = [
    "state",
    "status",
    "direction",
    "mark",
    "zone",
    "id",
    "helper",
    "l3proto",
    "protocol",
    "label",
    "secmark",
];
/// Header fields that are the same for all packets of a flow.
const FLOW_FIELDS: [&str; 5] = ["saddr", "daddr", "sport", "dport", "nexthdr"];

/// The first rule of a ruleset, as `nft -j list ruleset` writes it, that has to see every packet.
/// Tables named `ours` are our own and are not looked at; `tunnel` is the interface that packets of the
/// shortcut go past, whose hooks they would have come to.
pub fn find(ruleset: &Value, ours: &str, tunnel: &str) -> Option<PerPacket> {
    let objects = ruleset.get("nftables").and_then(Value::as_array)?;
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    let place = |of: &Value| (text(of, "family"), text(of, "table"));
    // Chains whose packets come from a hook that is kept. Those without a hook may be jumped to.
    let kept: Vec<_> = objects
        .iter()
        .filter_map(|object| object.get("chain"))
        .filter(|chain| text(chain, "hook").is_some_and(|it| KEPT_HOOKS.contains(&&*it)))
        .filter(|chain| !is_at(chain, tunnel))
        .map(|chain| (place(chain), text(chain, "name")))
        .collect();
    objects.iter().filter_map(|object| object.get("rule")).find_map(|rule| {
        let (of, chain) = (place(rule), text(rule, "chain"));
        if of.1.as_deref() == Some(ours) || kept.contains(&(of.clone(), chain.clone())) {
            return None;
        }
        let statements = rule.get("expr").and_then(Value::as_array)?;
        let word = statements.iter().find_map(|statement| of_statement(statement).err())?;
        Some(PerPacket { table: of.1.unwrap_or_default(), chain: chain.unwrap_or_default(), word })
    })
}

/// Whether a chain stands at this interface.
fn is_at(chain: &Value, interface: &str) -> bool {
    let devices = chain.get("dev");
    devices.is_some_and(|dev| match dev.as_array() {
        Some(several) => several.iter().any(|dev| dev == interface),
        None => dev == interface,
    })
}

/// The one member of an object that has one.
fn only(value: &Value) -> Result<(&str, &Value), String> {
    let members = value.as_object().filter(|it| it.len() == 1);
    let first = members.and_then(|it| it.iter().next());
    first.map(|(name, value)| (name.as_str(), value)).ok_or_else(|| "unknown".to_owned())
}

fn of_statement(statement: &Value) -> Result<(), String> {
    let (name, value) = only(statement)?;
    let part = |name: &str| value.get(name).unwrap_or(&Value::Null);
    match name {
        "match" if turns_only(value) => Ok(()),
        "match" => of_expression(part("left")).and_then(|()| of_expression(part("right"))),
        "vmap" => of_expression(part("key")),
        // Marks of a connection; and options that only packets have that open one.
        "mangle" => match only(part("key")) {
            Ok(("ct" | "tcp option", _)) => Ok(()),
            _ => Err(name.to_owned()),
        },
        // How many connections there are is asked when one opens.
        "ct count" => Ok(()),
        plain if PLAIN_STATEMENTS.contains(&plain) => Ok(()),
        other => Err(other.to_owned()),
    }
}

/// Whether a match can hold only for packets that open or close a TCP connection: those go the
/// normal way always.
fn turns_only(of: &Value) -> bool {
    const TURNS: [&str; 3] = ["syn", "fin", "rst"];
    fn flags(of: &Value) -> Vec<&str> {
        match of {
            Value::String(flag) => vec![flag],
            Value::Array(all) => all.iter().flat_map(flags).collect(),
            Value::Object(map) => map.get("|").map(flags).unwrap_or_default(),
            _ => Vec::new(),
        }
    }
    let is_flags = |of: &Value| {
        let payload = of.get("payload");
        payload.and_then(|it| it.get("field")).and_then(Value::as_str) == Some("flags")
    };
    let left = of.get("left").unwrap_or(&Value::Null);
    let masked = left.get("&").and_then(|it| it.get(0)).is_some_and(is_flags);
    if !is_flags(left) && !masked {
        return false;
    }
    let wanted = flags(of.get("right").unwrap_or(&Value::Null));
    let is_turn = |flag: &&str| TURNS.contains(flag);
    match of.get("op").and_then(Value::as_str) {
        Some("==") => wanted.iter().any(is_turn),
        Some("in") => !wanted.is_empty() && wanted.iter().all(is_turn),
        _ => false,
    }
}

fn of_expression(expression: &Value) -> Result<(), String> {
    let known = |value: &Value, name: &str, words: &[&str]| {
        let word = value.get(name).and_then(Value::as_str).unwrap_or_default();
        words.contains(&word).then_some(()).ok_or_else(|| word.to_owned())
    };
    match expression {
        Value::Array(parts) => parts.iter().try_for_each(of_expression),
        Value::Object(_) => {
            let (name, value) = only(expression)?;
            match name {
                "meta" => known(value, "key", &FLOW_META),
                "ct" => known(value, "key", &FLOW_CT),
                "payload" => known(value, "field", &FLOW_FIELDS),
                // What packets of the shortcut do not have, and what routes say of addresses.
                "exthdr" | "fib" => Ok(()),
                "prefix" => of_expression(&value["addr"]),
                "elem" => of_expression(&value["val"]),
                "set" | "concat" | "range" | "&" | "|" | "^" | "<<" | ">>" => of_expression(value),
                other => Err(other.to_owned()),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ruleset(hook: Option<&str>, table: &str, expr: &Value) -> Value {
        let mut chain = json!({ "family": "inet", "table": table, "name": "c" });
        if let Some(hook) = hook {
            chain["hook"] = json!(hook);
        }
        json!({ "nftables": [
            { "metainfo": { "version": "1.0.6" } },
            { "table": { "family": "inet", "name": table } },
            { "chain": chain },
            { "rule": { "family": "inet", "table": table, "chain": "c", "expr": expr } },
        ]})
    }

    #[test]
    fn what_says_the_same_of_all_packets_of_a_flow_is_known() {
        let is = |left: Value, right: Value| json!({ "match": { "op": "==", "left": left, "right": right } });
        let payload = |field: &str| json!({ "payload": { "protocol": "tcp", "field": field } });
        let prefix = json!({ "prefix": { "addr": "2001:db8::", "len": 32 } });
        let flags = |op: &str, right: Value| json!({ "match": { "op": op, "left": payload("flags"), "right": right } });
        let masked = json!({ "match": {
            "op": "==", "left": { "&": [payload("flags"), ["syn", "ack"]] }, "right": "syn",
        }});
        let states = json!({ "vmap": { "key": { "ct": { "key": "state" } }, "data": { "set": [
            ["established", { "accept": null }], ["invalid", { "drop": null }],
        ]}}});
        let cases = [
            ("accept", json!({ "accept": null }), None),
            ("a port", is(payload("dport"), json!({ "set": [22, { "range": [80, 90] }] })), None),
            ("a prefix", is(payload("saddr"), prefix), None),
            ("an interface", is(json!({ "meta": { "key": "iifname" } }), json!("lan0")), None),
            ("states", states, None),
            ("a jump", json!({ "jump": { "target": "x" } }), None),
            ("translation", json!({ "masquerade": null }), None),
            ("openings", flags("in", json!("syn")), None),
            ("openings without answers", masked, None),
            (
                "everything with an acknowledgement",
                flags("in", json!(["syn", "ack"])),
                Some("flags"),
            ),
            (
                "the largest segment",
                json!({ "mangle": {
                    "key": { "tcp option": { "name": "maxseg", "field": "size" } },
                    "value": { "rt": { "key": "mtu" } },
                }}),
                None,
            ),
            ("a counter", json!({ "counter": { "packets": 0, "bytes": 0 } }), Some("counter")),
            ("a limit", json!({ "limit": { "rate": 5, "per": "second" } }), Some("limit")),
            ("a quota", json!({ "quota": { "val": 5 } }), Some("quota")),
            ("a log", json!({ "log": null }), Some("log")),
            ("a queue", json!({ "queue": { "num": 1 } }), Some("queue")),
            (
                "another DSCP",
                json!({ "mangle": { "key": payload("dscp"), "value": 8 } }),
                Some("mangle"),
            ),
            (
                "a mark",
                json!({ "mangle": { "key": { "meta": { "key": "mark" } }, "value": 8 } }),
                Some("mangle"),
            ),
            ("a length", is(json!({ "meta": { "key": "length" } }), json!(100)), Some("length")),
            ("the hour", is(json!({ "meta": { "key": "hour" } }), json!(7)), Some("hour")),
            ("octets", is(json!({ "ct": { "key": "bytes" } }), json!(7)), Some("bytes")),
            ("hops", is(payload("hoplimit"), json!(7)), Some("hoplimit")),
            ("chance", is(json!({ "numgen": { "mode": "random" } }), json!(0)), Some("numgen")),
            ("a learning set", json!({ "set": { "op": "add" } }), Some("set")),
            ("what another program wrote", json!({ "xt": null }), Some("xt")),
        ];
        for (what, statement, word) in cases {
            let expr = json!([statement]);
            for hook in
                [Some("forward"), Some("prerouting"), Some("postrouting"), Some("ingress"), None]
            {
                let found = find(&ruleset(hook, "filter", &expr), "mtun", "mtun0");
                assert_eq!(found.map(|it| it.word).as_deref(), word, "{what} at {hook:?}");
            }
            for hook in ["input", "output", "egress"] {
                let mut ruleset = ruleset(Some(hook), "filter", &expr);
                assert_eq!(find(&ruleset, "mtun", "mtun0"), None, "{what}");
                for dev in [json!("mtun0"), json!(["lan0", "mtun0"])] {
                    let chain = ruleset["nftables"].as_array_mut().unwrap();
                    let chain = chain.iter_mut().find_map(|it| it.get_mut("chain")).unwrap();
                    chain["dev"] = dev;
                    let found = find(&ruleset, "mtun", "mtun0");
                    assert_eq!(found.map(|it| it.word).as_deref(), word, "{what} past it");
                    assert_eq!(find(&ruleset, "mtun", "mtun1"), None, "{what} past another");
                }
            }
            assert_eq!(
                find(&ruleset(Some("forward"), "mtun", &expr), "mtun", "mtun0"),
                None,
                "ours"
            );
        }
    }
}
