//! Values: numbers, durations, addresses, ports, protocols, code points.
//!
//! Each reader takes the text of one value and gives the value or a [`Problem`]; the policy file,
//! its tests and the filters of the command line share them, so a value means the same everywhere.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use crate::diagnostic::Code;
use crate::words::nearest;

/// Why a value is refused; the caller knows the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The kind.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

impl Problem {
    /// A problem with these words.
    pub(crate) fn new(code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: help.into() }
    }

    /// The same, and if the value is out of range this is the range.
    pub(crate) fn within(self, range: &str) -> Self {
        if self.code == Code::Range { Self { help: range.to_owned(), ..self } } else { self }
    }
}

/// What a value reader gives.
pub(crate) type Read<T> = Result<T, Problem>;

/// Units of time with their length in milliseconds.
const UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// A duration with its unit: `420s`, `1h30m`, `200ms`.
pub(crate) fn duration(text: &str) -> Read<Duration> {
    let wrong = |message: String| {
        Problem::new(
            Code::Unit,
            message,
            "durations are numbers with ms, s, m, h or d: \"420s\", \"1h30m\"",
        )
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong("an empty duration".to_owned()));
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        if number.is_empty() {
            return Err(wrong(format!("`{text}` is not a duration")));
        }
        if unit.is_empty() {
            let message = format!("`{text}` has no unit");
            if number.len() < text.len() {
                return Err(wrong(message));
            }
            let help =
                format!("write \"{text}s\" if seconds are meant; the units are ms, s, m, h, d");
            return Err(Problem::new(Code::Unit, message, help));
        }
        let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let factor = factor.ok_or_else(|| wrong(format!("`{unit}` is not a unit of time")))?;
        let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= 1000 * 366 * 86_400_000)
            .ok_or_else(|| {
                Problem::new(Code::Range, format!("`{text}` is too long"), "at most 1000 years")
            })?;
        rest = behind;
    }
    Ok(Duration::from_millis(total))
}

/// Largest lifetime of a binding (RFC 6275 §6.1.7: 16 bits in units of 4 s).
pub(crate) const LONGEST_LIFETIME: Duration = Duration::from_secs(262_140);

/// A binding's lifetime.
pub(crate) fn lifetime(text: &str) -> Read<Duration> {
    let asked = duration(text)?;
    if asked > LONGEST_LIFETIME {
        return Err(Problem::new(
            Code::Range,
            format!("a lifetime of {} s cannot be asked for", asked.as_secs()),
            "at most \"262140s\", about three days (RFC 6275 §6.1.7)",
        ));
    }
    let millis = asked.as_millis();
    if millis == 0 || millis % 4000 != 0 {
        let near = (asked.as_secs() / 4 * 4).max(4);
        return Err(Problem::new(
            Code::Range,
            format!("a lifetime is a multiple of 4 s, and `{text}` is not"),
            format!("write \"{near}s\""),
        ));
    }
    Ok(asked)
}

/// An address of either family.
pub(crate) fn address(text: &str) -> Read<IpAddr> {
    text.parse().map_err(|_| match text.split_once('/') {
        Some((address, _)) if address.parse::<IpAddr>().is_ok() => Problem::new(
            Code::Value,
            format!("`{text}` is a prefix, an address is due"),
            format!("write \"{address}\""),
        ),
        _ => Problem::new(
            Code::Value,
            format!("`{text}` is not an address"),
            "an IPv6 address looks like \"2001:db8::1\"",
        ),
    })
}

/// An IPv6 address that a node can have and others can reach.
pub(crate) fn reachable_address(text: &str) -> Read<Ipv6Addr> {
    let IpAddr::V6(address) = address(text)? else {
        return Err(Problem::new(
            Code::Value,
            format!("`{text}` is an IPv4 address"),
            "an IPv6 address is due here",
        ));
    };
    let kind = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_loopback() {
        "the loopback address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if address.is_unicast_link_local() {
        "a link-local address"
    } else {
        return Ok(address);
    };
    Err(Problem::new(
        Code::Range,
        format!("`{text}` is {kind}"),
        "a global unicast address is due (RFC 6275 §5.5, §6.1.7)",
    ))
}

/// An address with the length of its prefix, `2001:db8::1/64`.
pub(crate) fn address_with_length(text: &str) -> Read<(Ipv6Addr, u8)> {
    let Some((address, length)) = text.split_once('/') else {
        reachable_address(text)?;
        return Err(Problem::new(
            Code::Missing,
            format!("`{text}` lacks the length of the home link's prefix"),
            format!("write \"{text}/64\""),
        ));
    };
    let address = reachable_address(address)?;
    match length.parse::<u8>() {
        Ok(length @ 1..=128) => Ok((address, length)),
        _ => Err(Problem::new(
            Code::Range,
            format!("`/{length}` is not a prefix length"),
            "from /1 to /128, usually /64",
        )),
    }
}

/// A prefix, or an address that stands for itself.
pub(crate) fn prefix(text: &str) -> Read<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let net: IpNet = text.parse().map_err(|_| {
        let length_only =
            text.split_once('/').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
        if length_only {
            Problem::new(
                Code::Range,
                format!("`{text}` has an impossible prefix length"),
                "at most /128 for IPv6, /32 for IPv4",
            )
        } else {
            Problem::new(
                Code::Value,
                format!("`{text}` is not a prefix"),
                "a prefix looks like \"2001:db8::/32\"",
            )
        }
    })?;
    if net.trunc() != net {
        return Err(Problem::new(
            Code::HostBits,
            format!("`{text}` has bits set beyond its length"),
            format!(
                "write \"{}\" for the prefix, or \"{}\" for the one address",
                net.trunc(),
                net.addr()
            ),
        ));
    }
    Ok(net)
}

/// An IPv6 prefix that can move or be served.
pub(crate) fn home_prefix(text: &str) -> Read<Ipv6Net> {
    match prefix(text)? {
        IpNet::V6(_) if !text.contains('/') => Err(Problem::new(
            Code::Missing,
            format!("`{text}` lacks its prefix length"),
            format!("write \"{text}/64\""),
        )),
        IpNet::V6(net) if net.prefix_len() == 0 => Err(Problem::new(
            Code::Range,
            "the prefix of everything cannot move",
            "name the network's own prefix",
        )),
        IpNet::V6(net) => {
            reachable_address(&net.addr().to_string())?;
            Ok(net)
        }
        IpNet::V4(_) => Err(Problem::new(
            Code::Value,
            format!("`{text}` is an IPv4 prefix"),
            "an IPv6 prefix is due here",
        )),
    }
}

/// A port or a range with both ends, `22`, `10000-20000`.
pub(crate) fn ports(text: &str) -> Read<RangeInclusive<u16>> {
    let number = |text: &str| {
        let text = text.trim();
        text.parse::<u16>().map_err(|_| {
            if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
                Problem::new(
                    Code::Range,
                    format!("`{text}` is not a port"),
                    "ports go from 0 to 65535",
                )
            } else {
                Problem::new(
                    Code::Value,
                    format!("`{text}` is not a port"),
                    "write numbers and ranges: \"5060,10000-20000\", or a group: \"@web\"",
                )
            }
        })
    };
    range(text, number)
}

/// One value, or a range with both ends, `first-last`.
fn range<T: Copy + PartialOrd + fmt::Display>(
    text: &str,
    number: impl Fn(&str) -> Read<T>,
) -> Read<RangeInclusive<T>> {
    let (first, last) = match text.split_once('-') {
        None => {
            let only = number(text)?;
            (only, only)
        }
        Some((first, last)) => (number(first)?, number(last)?),
    };
    if first > last {
        return Err(Problem::new(
            Code::Range,
            format!("the range `{text}` is empty"),
            format!("write \"{last}-{first}\""),
        ));
    }
    Ok(first..=last)
}

/// Upper-layer protocols by name.
const PROTOCOLS: &[(&str, u8)] = &[
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("sctp", 132),
    ("esp", 50),
    ("ah", 51),
    ("gre", 47),
    ("dccp", 33),
    ("udplite", 136),
    ("ipv6", 41),
];

/// ICMP and ICMPv6, whose packets have types.
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// ESP and AH, whose packets have an SPI.
pub(crate) const WITH_SPI: [u8; 2] = [50, 51];

/// Flow labels have 20 bits (RFC 6437 §2).
pub(crate) const LARGEST_FLOW_LABEL: u32 = 0xf_ffff;

/// Protocols whose packets have ports.
pub(crate) const WITH_PORTS: &[u8] = &[6, 17, 33, 132, 136];

/// A protocol by name or number.
pub(crate) fn protocol(text: &str) -> Read<u8> {
    let text = text.trim();
    if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| *name == text) {
        return Ok(*number);
    }
    text.parse::<u8>().map_err(|_| {
        let known = PROTOCOLS.iter().map(|(name, _)| *name);
        let help = nearest(text, known).map_or_else(
            || "tcp, udp, icmpv6, sctp, esp, or a number from 0 to 255".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        let code = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            Code::Range
        } else {
            Code::Value
        };
        Problem::new(code, format!("`{text}` is not a protocol"), help)
    })
}

/// The name of a protocol, or its number.
pub fn protocol_name(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// A differentiated services code point by name or number (RFC 2474, 2597, 3246, 5865, 8622).
pub(crate) fn dscp(text: &str) -> Read<u8> {
    let text = text.trim();
    let named = match text {
        "be" | "default" => Some(0),
        "le" => Some(1),
        "ef" => Some(46),
        "va" | "voice-admit" => Some(44),
        _ => match text.as_bytes() {
            [b'c', b's', class @ b'0'..=b'7'] => Some((class - b'0') << 3),
            [b'a', b'f', class @ b'1'..=b'4', drop @ b'1'..=b'3'] => {
                Some(((class - b'0') << 3) | ((drop - b'0') << 1))
            }
            _ => None,
        },
    };
    named.or_else(|| text.parse::<u8>().ok().filter(|number| *number < 64)).ok_or_else(|| {
        let code = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            Code::Range
        } else {
            Code::Value
        };
        Problem::new(
            code,
            format!("`{text}` is not a DSCP"),
            "ef, af11 to af43, cs0 to cs7, le, be, or a number from 0 to 63",
        )
    })
}

/// The article of a word.
pub(crate) fn article(word: &str) -> &'static str {
    // SPI and the like are spelt out.
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'I', 'S']);
    if vowel { "an" } else { "a" }
}

/// A number or a range of numbers up to `most`, `1000-1999`; hexadecimal behind `0x`.
pub(crate) fn numbers(text: &str, what: &str, most: u32) -> Read<RangeInclusive<u32>> {
    let number = |text: &str| {
        let text = text.trim();
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+')),
            None => text.parse::<u64>().ok().filter(|_| !text.starts_with('+')),
        };
        let Some(number) = parsed else {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let code = if digits { Code::Range } else { Code::Value };
            let text: String = text.chars().take(64).collect();
            return Err(Problem::new(
                code,
                format!("`{text}` is not {} {what}", article(what)),
                format!("write numbers from 0 to {most}, or ranges of them"),
            ));
        };
        u32::try_from(number).ok().filter(|number| *number <= most).ok_or_else(|| {
            Problem::new(
                Code::Range,
                format!("`{text}` is not {} {what}", article(what)),
                format!("from 0 to {most}"),
            )
        })
    };
    range(text, number)
}

/// Types of ICMPv6 messages by name (RFC 4443, 4861, 2710).
const ICMPV6_TYPES: &[(&str, u8)] = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("listener-query", 130),
    ("listener-report", 131),
    ("listener-done", 132),
    ("router-solicitation", 133),
    ("router-advertisement", 134),
    ("neighbor-solicitation", 135),
    ("neighbor-advertisement", 136),
    ("redirect", 137),
];

/// Types of ICMP messages by name (RFC 792).
const ICMP_TYPES: &[(&str, u8)] = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("redirect", 5),
    ("echo-request", 8),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
];

/// A type of ICMP or, with protocol 58, of ICMPv6 messages by name or number; ranges of numbers.
pub(crate) fn icmp_type(text: &str, protocol: u8) -> Read<RangeInclusive<u8>> {
    let text = text.trim();
    let names = if protocol == 1 { ICMP_TYPES } else { ICMPV6_TYPES };
    if let Some((_, number)) = names.iter().find(|(name, _)| *name == text) {
        return Ok(*number..=*number);
    }
    if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        let help = match nearest(text, names.iter().map(|(name, _)| *name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "echo-request, packet-too-big and so on, or a number from 0 to 255".to_owned(),
        };
        let shown: String = text.chars().take(64).collect();
        return Err(Problem::new(Code::Value, format!("`{shown}` is not an ICMP type"), help));
    }
    let range = numbers(text, "ICMP type", 255)?;
    let small = |number: &u32| u8::try_from(*number).expect("at most 255");
    Ok(small(range.start())..=small(range.end()))
}

/// A name that the kernel accepts for an interface.
pub(crate) fn interface_name(text: &str) -> Read<&str> {
    let wrong = |why: &str| {
        Problem::new(
            Code::Value,
            format!("`{text}` cannot be an interface name: {why}"),
            "a name as `ip link` shows it, such as wlan0",
        )
    };
    if text.is_empty() || text == "." || text == ".." {
        Err(wrong("the kernel has no such names"))
    } else if text.len() > 15 {
        Err(wrong("it is longer than 15 octets"))
    } else if text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        Err(wrong("it holds a space, a colon or a slash"))
    } else {
        Ok(text)
    }
}

/// A name that people give: a home, a rule, a group.
pub(crate) fn given_name(text: &str) -> Read<&str> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || !text.chars().all(fits) {
        return Err(Problem::new(
            Code::Value,
            format!("`{}` cannot be a name", text.chars().take(70).collect::<String>()),
            "names are up to 64 letters, digits, `-`, `_` and `.`",
        ));
    }
    Ok(text)
}

/// Whether a text that should be a file name looks like a key.
pub(crate) fn looks_like_key(text: &str) -> bool {
    let hex = text.strip_prefix("0x").unwrap_or(text);
    let all_hex = hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let base64 = text.len() >= 40
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
        && !text.starts_with('/')
        && text.bytes().any(|b| b.is_ascii_digit());
    all_hex || base64
}
