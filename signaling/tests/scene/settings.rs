//! The settings of a scene, and updates as the mobile of the scene would write them.

use std::time::Duration;

use mtun_policy::{PrefixMode, ReturningHome};
use mtun_signaling::agent::HomeLink;
use mtun_signaling::wire::{self, Message};
use mtun_signaling::{AgentConfig, Envelope, MobileConfig, auth};

use super::text::{parse_update, value};
use super::{EPOCH, at, key, our_key, prefix};

fn yes(words: &[&str], key: &str, otherwise: bool) -> bool {
    match value(words, key) {
        None => otherwise,
        Some("yes") => true,
        Some("no") => false,
        Some(other) => panic!("{key}={other}: neither yes nor no"),
    }
}

fn extensions(words: &[&str], extensions: &mut mtun_policy::Extensions) {
    for name in value(words, "extensions").into_iter().flat_map(|names| names.split(',')) {
        match name {
            "heartbeat" => extensions.heartbeat = true,
            "agent-switch" => extensions.agent_switch = true,
            "revocation" => extensions.revocation = true,
            "prefix-discovery" => extensions.prefix_discovery = true,
            other => panic!("no extension is called {other}"),
        }
    }
}

/// Changes the mobile as the words of its line say.
pub fn set_mobile(config: &mut MobileConfig, epoch: &mut u64, words: &[&str]) {
    if let Some(prefixes) = value(words, "prefixes") {
        config.mobile_networks = prefixes.split(',').map(prefix).collect();
    }
    if value(words, "mode") == Some("implicit") {
        config.prefix_mode = PrefixMode::Implicit;
    }
    if let Some(lifetime) = value(words, "lifetime") {
        config.lifetime = Duration::from_secs(lifetime.parse().unwrap());
    }
    if let Some(sequence) = value(words, "sequence") {
        config.initial_sequence = sequence.parse().unwrap();
    }
    if let Some(returning) = value(words, "returning-home") {
        config.returning_home = match returning {
            "home" => ReturningHome::Home,
            "both" => ReturningHome::Both,
            "foreign" => ReturningHome::Foreign,
            other => panic!("returning-home={other}"),
        };
    }
    if let Some(clock) = value(words, "clock") {
        *epoch = clock.parse().unwrap();
    }
    if value(words, "protection") == Some("none") {
        config.protection = None;
    }
    extensions(words, &mut config.extensions);
    config.multiple_coa = yes(words, "multiple-coa", config.multiple_coa);
    config.bulk = yes(words, "bulk", config.bulk);
}

/// Changes the agent as the words of its line say.
pub fn set_agent(config: &mut AgentConfig, words: &[&str]) {
    if let Some(prefixes) = value(words, "prefixes") {
        config.mobiles[0].prefixes = prefixes.split(',').map(prefix).collect();
    }
    if let Some(lifetime) = value(words, "lifetime") {
        config.max_lifetime = Duration::from_secs(lifetime.parse().unwrap());
    }
    if let Some(network) = value(words, "home-network") {
        config.prefix = network.parse().unwrap();
    }
    if let Some(advice) = value(words, "refresh-advice") {
        config.refresh_advice = Some(Duration::from_secs(advice.parse().unwrap()));
    }
    config.refresh_requests = yes(words, "refresh-requests", config.refresh_requests);
    match value(words, "home-link") {
        None => {}
        Some("virtual") => config.home_link = HomeLink::Virtual,
        Some("shared") => config.home_link = HomeLink::Real { only_router: false },
        Some("only-router") => config.home_link = HomeLink::Real { only_router: true },
        Some(other) => panic!("home-link={other}"),
    }
    if let Some(most) = value(words, "flows") {
        config.mobiles[0].max_flows = most.parse().unwrap();
    }
    if let Some(most) = value(words, "copies-of-one") {
        config.mobiles[0].max_copies = most.parse().unwrap();
    }
    config.flow_bindings = yes(words, "flow-bindings", config.flow_bindings);
    config.mobiles[0].reflect = yes(words, "reflect", config.mobiles[0].reflect);
    config.mobiles[0].copies = yes(words, "copies", config.mobiles[0].copies);
    if let Some(most) = value(words, "bindings") {
        config.mobiles[0].max_bindings = most.parse().unwrap();
    }
    if value(words, "protection") == Some("none") {
        config.mobiles[0].protection = None;
    }
    if value(words, "key") == Some("other") {
        config.mobiles[0].protection = Some(key(256, 9));
    }
    extensions(words, &mut config.extensions);
    if let Some(counter) = value(words, "restarts") {
        config.restart_counter = counter.parse().unwrap();
    }
    config.multiple_coa = yes(words, "multiple-coa", config.multiple_coa);
    config.bulk = yes(words, "bulk", config.bulk);
}

/// A Binding Update from its line, signed at `since`.
pub fn signed_update(words: &[&str], since: Duration) -> (Envelope, Vec<u8>) {
    let (envelope, update) = parse_update(words);
    let care_of = auth::care_of_address(&update, &envelope);
    let skew: i64 = value(words, "skew").map_or(0, |skew| skew.parse().unwrap());
    let clock = EPOCH.checked_add_signed(skew).expect("a time");
    let message_id = (!words.contains(&"without-timestamp")).then_some(at(since, clock).wall);
    let association = match (words.contains(&"wrong-key"), value(words, "spi")) {
        (true, _) => key(256, 9),
        // The association of the other mobile, or one that nobody has.
        (false, Some(spi)) => key(spi.parse().unwrap(), 2),
        (false, None) => our_key(),
    };
    let message = Message::BindingUpdate(update);
    let message = if words.contains(&"unprotected") {
        wire::emit(&message, &envelope)
    } else {
        wire::emit_authenticated(&message, &envelope, care_of, &association, message_id)
    };
    (envelope, message.expect("it fits"))
}
