//! Flow bindings as text and from text: `fid=5 pri=40 v6 proto=17 dport=5001-5010 bids=1,2`.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use mtun_policy::{
    AddressRange, Bid, BinarySelector, FlowBinding, FlowId, FlowPriority, IpVersion,
};
use mtun_signaling::wire::FlowStatus;
use mtun_signaling::wire::option::{
    FlowExtensions, FlowIdentification, FlowSubOption, TrafficSelector,
};
use mtun_signaling::{BindingCacheEntry, FlowDigest};

use super::text::value;

fn range<T: Display + PartialEq>(name: &str, range: Option<&RangeInclusive<T>>) -> String {
    match range {
        None => String::new(),
        Some(range) if range.start() == range.end() => format!(" {name}={}", range.start()),
        Some(range) => format!(" {name}={}-{}", range.start(), range.end()),
    }
}

fn addresses(name: &str, addresses: Option<&AddressRange>) -> String {
    match addresses {
        None => String::new(),
        Some(AddressRange::V4(addresses)) => range(name, Some(addresses)),
        Some(AddressRange::V6(addresses)) => range(name, Some(addresses)),
    }
}

pub fn selector(selector: &BinarySelector) -> String {
    let version = match selector.version {
        IpVersion::V4 => " v4",
        IpVersion::V6 => " v6",
    };
    version.to_owned()
        + &addresses("src", selector.source.as_ref())
        + &addresses("dst", selector.destination.as_ref())
        + &range("spi", selector.spi.as_ref())
        + &range("label", selector.flow_label.as_ref())
        + &range("sport", selector.source_port.as_ref())
        + &range("dport", selector.destination_port.as_ref())
        + &range("dscp", selector.dscp.as_ref())
        + &range("proto", selector.protocol.as_ref())
}

fn bids(bids: &[Bid]) -> String {
    let bids: Vec<String> = bids.iter().map(Bid::to_string).collect();
    format!(" bids={}", bids.join(","))
}

/// A Flow Identification option.
pub fn option(option: &FlowIdentification) -> String {
    let mut text = format!(
        " [fid={} pri={}",
        option.flow.map_or(0, FlowId::get),
        option.priority.map_or(0, FlowPriority::get)
    );
    for sub_option in &option.sub_options {
        text += &match sub_option {
            FlowSubOption::BindingReference(of) => bids(of),
            FlowSubOption::TrafficSelector(TrafficSelector::Binary(of)) => selector(of),
            FlowSubOption::TrafficSelector(
                TrafficSelector::Malformed { format, .. } | TrafficSelector::Unknown { format, .. },
            ) => format!(" format={format}"),
            FlowSubOption::Malformed { .. } => " malformed".to_owned(),
            FlowSubOption::Unknown { kind, .. } => format!(" sub={kind}"),
            FlowSubOption::Overrun(_) => " overrun".to_owned(),
        };
    }
    if option.status != FlowStatus::SUCCESSFUL {
        text += &format!(" status={}", option.status.0);
    }
    text + "]"
}

pub fn extensions(extensions: &FlowExtensions) -> String {
    let mut text = " [flow-extensions".to_owned();
    for (set, word) in [(extensions.reflect, " reflect"), (extensions.copies, " copies")] {
        text += if set { word } else { "" };
    }
    if let Some(digest) = extensions.digest {
        let octets: String = digest.octets.iter().map(|octet| format!("{octet:02x}")).collect();
        text += &format!(" digest={}:{octets}", digest.number);
    }
    text + "]"
}

/// What an agent holds of a mobile's flow bindings.
pub fn held(entry: &BindingCacheEntry) -> String {
    let mut text = String::new();
    for flow in &entry.flows {
        text += &format!(" [fid={} pri={}", flow.id, flow.priority);
        text += &selector(&flow.selector);
        text += &bids(&flow.bids);
        text += if entry.is_active(flow) { "]" } else { " inactive]" };
    }
    for (set, word) in [(entry.reflect, " reflect"), (entry.copies, " copies")] {
        text += if set { word } else { "" };
    }
    text
}

fn parse_range<T: FromStr + Clone>(words: &[&str], name: &str) -> Option<RangeInclusive<T>> {
    let text = value(words, name)?;
    let one = |text: &str| text.parse().unwrap_or_else(|_| panic!("{name}={text}"));
    Some(match text.split_once('-') {
        Some((start, end)) => one(start)..=one(end),
        None => one(text)..=one(text),
    })
}

/// The selector among these words; none without `v4` or `v6`.
fn parse_selector(words: &[&str]) -> Option<BinarySelector> {
    let version = match (words.contains(&"v4"), words.contains(&"v6")) {
        (true, false) => IpVersion::V4,
        (false, true) => IpVersion::V6,
        _ => return None,
    };
    let addresses = |name| match version {
        IpVersion::V4 => parse_range(words, name).map(AddressRange::V4),
        IpVersion::V6 => parse_range(words, name).map(AddressRange::V6),
    };
    Some(BinarySelector {
        version,
        source: addresses("src"),
        destination: addresses("dst"),
        spi: parse_range(words, "spi"),
        flow_label: parse_range(words, "label"),
        source_port: parse_range(words, "sport"),
        destination_port: parse_range(words, "dport"),
        dscp: parse_range(words, "dscp"),
        protocol: parse_range(words, "proto"),
    })
}

fn parse_bids(text: &str) -> Vec<Bid> {
    let numbers = text.split(',').map(|bid| bid.parse().expect("a BID"));
    numbers.map(|bid| Bid::new(bid).expect("not zero")).collect()
}

fn octets(hex: &str) -> Vec<u8> {
    let octet = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(octet).collect()
}

fn number(words: &[&str], name: &str) -> u16 {
    value(words, name).map_or(0, |text| text.parse().expect("a number"))
}

/// A Flow Identification option from the words in its brackets. `twice` has the selector twice,
/// `format=N:HEX` is a selector with the octets behind Reserved, `sub=N` a sub-option of another
/// type, `half-a-bid` and `overrun` as they say; `bids=` may come more than once.
pub fn parse_option(words: &[&str]) -> FlowIdentification {
    let mut sub_options = Vec::new();
    let selector = parse_selector(words).map(TrafficSelector::Binary);
    let selector = selector.or_else(|| {
        let (format, hex) = value(words, "format")?.split_once(':').expect("format=N:HEX");
        let mut data = vec![format.parse().expect("a number"), 0];
        data.extend(octets(hex));
        TrafficSelector::parse(&data)
    });
    let times = if words.contains(&"twice") { 2 } else { 1 };
    for selector in selector.iter().flat_map(|it| std::iter::repeat_n(it, times)) {
        sub_options.push(FlowSubOption::TrafficSelector(selector.clone()));
    }
    for word in words {
        if let Some(bids) = word.strip_prefix("bids=") {
            sub_options.push(FlowSubOption::BindingReference(parse_bids(bids)));
        }
    }
    if let Some(kind) = value(words, "sub") {
        let (kind, data) = (kind.parse().expect("a number"), vec![1, 2, 3]);
        sub_options.push(FlowSubOption::Unknown { kind, data });
    }
    if words.contains(&"half-a-bid") {
        sub_options.push(FlowSubOption::Malformed { kind: 2, data: vec![0, 1, 0] });
    }
    if words.contains(&"overrun") {
        sub_options.push(FlowSubOption::Overrun(vec![3, 200, 2, 0]));
    }
    FlowIdentification {
        flow: FlowId::new(number(words, "fid")),
        priority: FlowPriority::new(number(words, "pri")),
        status: FlowStatus(value(words, "status").map_or(0, |it| it.parse().expect("a status"))),
        sub_options,
    }
}

/// A flow binding from the words in its brackets.
pub fn parse_binding(words: &[&str]) -> FlowBinding {
    FlowBinding {
        id: FlowId::new(number(words, "fid")).expect("fid="),
        priority: FlowPriority::new(number(words, "pri")).expect("pri="),
        selector: parse_selector(words).expect("v4 or v6"),
        bids: parse_bids(value(words, "bids").expect("bids=")),
    }
}

pub fn parse_extensions(words: &[&str]) -> FlowExtensions {
    let digest = value(words, "digest").map(|text| {
        let (number, hex) = text.split_once(':').expect("digest=N:HEX");
        let octets = octets(hex).try_into().expect("eight octets");
        FlowDigest { number: number.parse().expect("a number"), octets }
    });
    let (reflect, copies) = (words.contains(&"reflect"), words.contains(&"copies"));
    FlowExtensions { reflect, copies, digest }
}
