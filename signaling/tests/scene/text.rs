//! Messages and outputs as one line of text each, and messages from such lines.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mtun_policy::{Bid, CareOfAddress, HomeAddress};
use mtun_signaling::mobile::Stay;
use mtun_signaling::wire::extension::Extension;
use mtun_signaling::wire::option::{
    AlternateCareOfAddress, BindingIdentifier, BindingRefreshAdvice, FlowExtensions, FlowSummary,
    LinkLayerAddress, MobileNetworkPrefixOption, NonceIndices,
};
use mtun_signaling::wire::{
    BindingAcknowledgement, BindingError, BindingRefreshRequest, BindingUpdate, BindingUpdateFlags,
    Lifetime, Message, MobilityOption, Options, RevocationKind, Status,
};
use mtun_signaling::{AgentOutput, BindingCache, Envelope, MobileOutput, wire};

use super::{address, flow_text};

/// Seconds with three decimals.
pub fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

pub fn options(options: &Options) -> String {
    let mut text = String::new();
    for option in options {
        match option {
            MobilityOption::BindingIdentifier(option) => {
                text += &format!(" [bid={}", option.bid.map_or(0, Bid::get));
                if option.priority != 0 {
                    text += &format!(" pri={}", option.priority);
                }
                if option.home {
                    text += " H";
                }
                if option.status != Status::ACCEPTED {
                    text += &format!(" status={}", option.status.0);
                }
                if let Some(care_of) = option.care_of {
                    text += &format!(" {care_of}");
                }
                text += "]";
            }
            MobilityOption::MobileNetworkPrefix(option) => {
                text += &format!(" [prefix {}/{}]", option.address, option.prefix_len);
            }
            MobilityOption::AlternateCareOf(option) => {
                text += &format!(" [alt-coa {}]", option.address);
            }
            MobilityOption::RefreshAdvice(option) => {
                text += &format!(" [refresh={}]", u32::from(option.refresh_interval) * 4);
            }
            MobilityOption::LinkLayerAddress(option) => {
                let octets = option.address.iter().map(|octet| format!("{octet:02x}"));
                text += &format!(" [lla {}]", octets.collect::<Vec<_>>().join(":"));
            }
            MobilityOption::FlowIdentification(option) => text += &flow_text::option(option),
            MobilityOption::FlowSummary(option) => {
                let flows: Vec<String> = option.flows.iter().map(u16::to_string).collect();
                text += &format!(" [fids {}]", flows.join(" "));
            }
            MobilityOption::VendorSpecific(option) => {
                text += &match FlowExtensions::of(option) {
                    Some(extensions) => flow_text::extensions(&extensions),
                    None => format!(" [vendor {}]", option.vendor),
                };
            }
            // Every protected message has them; the transcripts say so when it has not.
            MobilityOption::Authentication(_)
            | MobilityOption::MessageId(_)
            | MobilityOption::NonceIndices(_)
            | MobilityOption::AuthorizationData(_) => {}
            MobilityOption::RestartCounter(option) => {
                text += &format!(" [restarts={}]", option.counter);
            }
            other => text += &format!(" [option {}]", other.kind()),
        }
    }
    text
}

/// A message in its packet.
pub fn message(envelope: &Envelope, octets: &[u8]) -> String {
    if wire::extension::kind_of(octets).is_some() {
        return extension(envelope, octets);
    }
    let message = wire::receive(envelope, octets).expect("a message of our own");
    let options_of = message.options();
    let protected = options_of.authentication(1).is_some() || options_of.authorization().is_some();
    let protected = if protected { "" } else { " unprotected" };
    match &message {
        Message::BindingUpdate(update) => {
            let flags = update.flags;
            let flags = [
                (flags.acknowledge, " A"),
                (flags.home, " H"),
                (flags.router, " R"),
                (flags.overwrite, " O"),
            ];
            let flags: String =
                flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
            format!(
                "BindingUpdate seq={}{flags} lifetime={}{protected} from={}{}",
                update.sequence,
                update.lifetime.duration().as_secs(),
                envelope.source,
                options(&update.options)
            )
        }
        Message::BindingAcknowledgement(acknowledgement) => format!(
            "BindingAck seq={} status={}{} lifetime={}{protected} to={}{}",
            acknowledgement.sequence,
            acknowledgement.status.0,
            if acknowledgement.router { " R" } else { "" },
            acknowledgement.lifetime.duration().as_secs(),
            envelope.destination,
            options(&acknowledgement.options)
        ),
        Message::BindingError(error) => format!(
            "BindingError status={} home={} to={}",
            error.status, error.home_address, envelope.destination
        ),
        Message::BindingRefreshRequest(request) => {
            format!(
                "BindingRefreshRequest to={}{}",
                envelope.destination,
                options(&request.options)
            )
        }
        other => format!("MH Type {}", other.mh_type()),
    }
}

/// A message beyond RFC 6275 in its packet.
fn extension(envelope: &Envelope, octets: &[u8]) -> String {
    let message = wire::extension::receive(envelope, octets).expect("a message of our own");
    let protected = message.options().authentication(1).is_some();
    let protected = if protected { "" } else { " unprotected" };
    let end = match envelope.routing_header {
        Some(_) => format!("to={}", envelope.destination),
        None => format!("from={}", envelope.source),
    };
    let options = options(message.options());
    match &message {
        Extension::Heartbeat(said) => {
            let kind = if said.response { "answer" } else { "question" };
            // The number starts anywhere.
            format!("Heartbeat {kind}{protected} {end}{options}")
        }
        Extension::HomeAgentSwitch(said) => {
            let agents: Vec<String> = said.agents.iter().map(ToString::to_string).collect();
            format!("HomeAgentSwitch agents={}{protected} {end}{options}", agents.join(","))
        }
        Extension::BindingRevocation(said) => match said.kind {
            RevocationKind::Indication(trigger) => format!(
                "BindingRevocation seq={} trigger={trigger}{protected} {end}{options}",
                said.sequence
            ),
            RevocationKind::Acknowledgement(status) => format!(
                "BindingRevocationAck seq={} status={status}{protected} {end}{options}",
                said.sequence
            ),
        },
    }
}

pub fn mobile_output(output: &MobileOutput) -> String {
    let name = |bid: &Option<Bid>| bid.map_or("plain".to_owned(), |bid| bid.to_string());
    match output {
        MobileOutput::Transmit(transmit) => {
            let path = transmit.path.expect("an update leaves by an uplink");
            format!("send by {path} {}", message(&transmit.envelope, &transmit.message))
        }
        MobileOutput::Bound { bid, care_of, expires, first } => {
            let verb = if *first { "up" } else { "refreshed" };
            format!("binding {} {verb} {care_of} until {}", name(bid), seconds(*expires))
        }
        MobileOutput::Unbound { bid, reason } => format!("binding {} down: {reason}", name(bid)),
        MobileOutput::Returning { bid } => format!("returning home by {bid}"),
        MobileOutput::AtHome { bid, stay } => {
            let stay = match stay {
                Stay::Alone { vacant: true } => "alone, address unchecked",
                Stay::Alone { vacant: false } => "alone",
                Stay::Beside { neighbours: true } => "beside foreign links",
                Stay::Beside { neighbours: false } => "beside foreign links, silent to neighbours",
            };
            format!("at home by {bid}, {stay}")
        }
        MobileOutput::Agreed { reflect, copies } => {
            let word = |agreed: &bool| if *agreed { "on" } else { "off" };
            format!("agreed: reflect {}, copies {}", word(reflect), word(copies))
        }
        MobileOutput::Switch { agents } => {
            let agents: Vec<String> = agents.iter().map(|it| it.0.to_string()).collect();
            format!("go to {}", if agents.is_empty() { "any".to_owned() } else { agents.join(",") })
        }
        MobileOutput::LeftHome => "left home".to_owned(),
        MobileOutput::Notice(notice) => format!("notice: {notice}"),
        MobileOutput::Stopped => "stopped".to_owned(),
    }
}

pub fn agent_output(output: &AgentOutput, cache: &BindingCache) -> String {
    match output {
        AgentOutput::Transmit(transmit) => {
            format!("send {}", message(&transmit.envelope, &transmit.message))
        }
        AgentOutput::Changed { home_address, effective: false } => {
            format!("cache {home_address} prolonged")
        }
        AgentOutput::Changed { home_address, effective: true } => {
            let mut text = format!("cache {home_address}");
            let Some(entry) = cache.get(*home_address) else { return text + " empty" };
            for prefix in &entry.prefixes {
                text += &format!(" [prefix {prefix}]");
            }
            for binding in &entry.bindings {
                match binding.bid {
                    Some(bid) => text += &format!(" [bid={bid} {}]", binding.care_of),
                    None => text += &format!(" [plain {}]", binding.care_of),
                }
            }
            text + &flow_text::held(entry)
        }
        AgentOutput::CheckDuplicate { home_address, link_local } => {
            let link_local = if *link_local { " and its link-local address" } else { "" };
            format!("look for {home_address}{link_local}")
        }
        AgentOutput::Defend { home_address, defence } => {
            let link_local = if defence.link_local { " and its link-local address" } else { "" };
            let router = if defence.router { " as a router" } else { "" };
            format!("defend {home_address}{link_local}{router}")
        }
        AgentOutput::Undefend { home_address } => format!("defend {home_address} no more"),
        AgentOutput::Neighbour { home_address, link_layer: Some(link_layer) } => {
            format!("neighbour {home_address} at {link_layer}")
        }
        AgentOutput::Neighbour { home_address, link_layer: None } => {
            format!("neighbour {home_address} nowhere")
        }
        AgentOutput::Advertise(transmit) => {
            format!("advertise to {}", transmit.envelope.destination)
        }
        AgentOutput::Keep { home_address } => format!("keep {home_address}"),
        AgentOutput::Notice(notice) => format!("agent notice: {notice}"),
    }
}

/// The words of a line; what stands in brackets is one word.
pub fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let end = if rest.starts_with('[') {
            rest.find(']').map_or(rest.len(), |end| end + 1)
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        words.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    words
}

/// The value of `key=value` among these words.
pub fn value<'w>(words: &[&'w str], key: &str) -> Option<&'w str> {
    words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn number<N: std::str::FromStr>(words: &[&str], key: &str, otherwise: N) -> N {
    value(words, key).map_or(otherwise, |text| {
        text.parse().unwrap_or_else(|_| panic!("{key}={text} is no number"))
    })
}

fn parse_options(words: &[&str]) -> Options {
    let mut options = Options::new();
    for word in words {
        let Some(inside) = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')) else {
            continue;
        };
        let inner: Vec<&str> = inside.split_whitespace().collect();
        match inner[0] {
            "prefix" => {
                let (address, length) = inner[1].split_once('/').expect("a prefix length");
                options.push(MobileNetworkPrefixOption {
                    prefix_len: length.parse().expect("a number"),
                    address: super::address(address),
                });
            }
            "alt-coa" => options.push(AlternateCareOfAddress { address: address(inner[1]) }),
            "unknown" => {
                options.push(MobilityOption::Unknown { kind: 200, data: vec![1, 2, 3] });
            }
            "nonce-indices" => options.push(NonceIndices { home: 1, care_of: 1 }),
            "lla" => {
                let octets = inner[1].split(':').map(|octet| u8::from_str_radix(octet, 16));
                let octets: Vec<u8> = octets.map(|octet| octet.expect("an octet")).collect();
                options.push(LinkLayerAddress::of_mobile(octets));
            }
            "malformed-bid" => {
                options
                    .push(MobilityOption::MalformedBindingIdentifier { data: vec![0, 1, 0, 0, 9] });
            }
            _ if value(&inner, "refresh").is_some() => {
                let refresh_interval = number::<u16>(&inner, "refresh", 0) / 4;
                options.push(BindingRefreshAdvice { refresh_interval });
            }
            "fids" => {
                let flows = inner[1..].iter().map(|flow| flow.parse().expect("a FID")).collect();
                options.push(FlowSummary { flows });
            }
            "flow-extensions" => options.push(flow_text::parse_extensions(&inner)),
            _ if value(&inner, "fid").is_some() => options.push(flow_text::parse_option(&inner)),
            _ => options.push(BindingIdentifier {
                bid: Bid::new(number(&inner, "bid", 0)),
                status: Status(number(&inner, "status", 0)),
                home: inner.contains(&"H"),
                priority: number(&inner, "pri", 0),
                care_of: inner
                    .iter()
                    .find_map(|word| word.parse::<IpAddr>().ok().map(CareOfAddress)),
            }),
        }
    }
    options
}

/// A Binding Update from its line, and the packet it comes in.
pub fn parse_update(words: &[&str]) -> (Envelope, BindingUpdate) {
    let source: Ipv6Addr = address(value(words, "from").expect("from="));
    let home_address = HomeAddress(address(value(words, "home").unwrap_or(super::HOME_ADDRESS)));
    let has = |word| words.contains(&word);
    let envelope = Envelope {
        home_address: (!has("without-hao")).then_some(home_address),
        ..Envelope::plain(source, address(value(words, "to").unwrap_or(super::AGENT)))
    };
    let update = BindingUpdate {
        sequence: number(words, "seq", 1),
        flags: BindingUpdateFlags {
            acknowledge: has("A"),
            home: has("H"),
            link_local: has("L"),
            key_mobility: has("K"),
            router: has("R"),
            proxy: has("P"),
            overwrite: has("O"),
        },
        lifetime: Lifetime::from_duration(Duration::from_secs(number(words, "lifetime", 420))),
        options: parse_options(words),
    };
    (envelope, update)
}

/// A Binding Acknowledgement from its line.
pub fn parse_acknowledgement(words: &[&str], sequence: u16) -> BindingAcknowledgement {
    BindingAcknowledgement {
        status: Status(number(words, "status", 0)),
        key_mobility: false,
        router: words.contains(&"R"),
        sequence: number(words, "seq", sequence),
        lifetime: Lifetime::from_duration(Duration::from_secs(number(words, "lifetime", 0))),
        options: parse_options(words),
    }
}

/// A Binding Refresh Request or a Binding Error from its line.
pub fn parse_other(words: &[&str]) -> Message {
    match words[0] {
        "BindingRefreshRequest" => {
            Message::BindingRefreshRequest(BindingRefreshRequest { options: parse_options(words) })
        }
        "BindingError" => Message::BindingError(BindingError {
            status: number(words, "status", 1),
            home_address: address(super::HOME_ADDRESS),
            options: Options::new(),
        }),
        other => panic!("no message is called {other}"),
    }
}
