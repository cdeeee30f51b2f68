//! Terms: a field and its value, a protocol alone, two addresses with an arrow between them.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::tokens::Token;
use super::{Filter, Reader};
use crate::diagnostic::{Code, Diagnostic};
use crate::groups::Group;
use crate::key::Ingress;
use crate::policy::Ingresses;
use crate::terms::{Bid, RuleName};
use crate::value::{self, ICMP, ICMPV6, LARGEST_FLOW_LABEL, Problem, Read};
use crate::words::{MATCH_FIELDS, advice};

/// Fields that say which way a flow takes, not which packets it has.
const WAY_FIELDS: [&str; 2] = ["via", "rule"];

/// The terms read so far.
#[derive(Default)]
pub(super) struct Terms<'t> {
    pub filter: Filter,
    /// The fields that were given, each with the word to blame for it.
    seen: Vec<(&'static str, Token<'t>)>,
    /// Types are read when the protocol is known.
    icmp_type: Option<Token<'t>>,
}

impl<'t> Reader<'t> {
    /// Terms up to the end or to `given`.
    pub(super) fn terms(&mut self) -> Result<Filter, Diagnostic> {
        let mut terms = Terms::default();
        let mut first = true;
        while let Some(token) = self.peek() {
            if token.text == "given" {
                break;
            }
            if token.text == "and" {
                let behind = self.tokens.get(self.next + 1);
                if first || behind.is_none_or(|behind| matches!(behind.text, "and" | "given")) {
                    let problem =
                        Problem::new(Code::Syntax, "`and` stands between two terms", "remove it");
                    return Err(self.fault_at(token, problem));
                }
                self.next += 1;
                continue;
            }
            first = false;
            self.term(&mut terms)?;
        }
        self.fit_together(terms)
    }

    fn term(&mut self, terms: &mut Terms<'t>) -> Result<(), Diagnostic> {
        let Some(token) = self.take() else { return Ok(()) };
        if self.take_if("->") {
            self.end_of_flow(Side::Source, token, terms)?;
            let Some(behind) = self.take() else {
                let problem = Problem::new(
                    Code::Missing,
                    "an address is missing behind `->`",
                    "write source -> destination, or `any`",
                );
                return Err(self.fault_at(token, problem));
            };
            return self.end_of_flow(Side::Destination, behind, terms);
        }
        let mut fields = MATCH_FIELDS.iter().copied().chain(WAY_FIELDS);
        if let Some(field) = fields.find(|field| *field == token.text) {
            self.take_if("=");
            let Some(value) =
                self.take().filter(|value| !matches!(value.text, "and" | "given" | "="))
            else {
                let problem = Problem::new(
                    Code::Missing,
                    format!("`{field}` has no value"),
                    format!("write {field} and its value"),
                );
                return Err(self.fault_at(token, problem));
            };
            self.once(field, token, terms)?;
            return self.field(field, value, terms);
        }
        if value::protocol(token.text).is_ok()
            && !token.text.starts_with(|c: char| c.is_ascii_digit())
        {
            self.once("proto", token, terms)?;
            terms.filter.selector.protocols = self.list(token, value::protocol)?;
            return Ok(());
        }
        Err(self.fault_at(token, not_a_term(token.text)))
    }

    /// One side of an arrow: prefixes, or an address with its port as `mtun flows` shows it.
    fn end_of_flow(
        &self,
        side: Side,
        token: Token<'t>,
        terms: &mut Terms<'t>,
    ) -> Result<(), Diagnostic> {
        let (net, port) = match side {
            Side::Source => ("src", "sport"),
            Side::Destination => ("dst", "dport"),
        };
        self.once(net, token, terms)?;
        let (nets, ports) = match endpoint(token) {
            None => (self.nets(token)?, None),
            Some((address, behind)) => {
                self.once(port, behind, terms)?;
                (self.nets(address)?, Some(self.ports(behind)?))
            }
        };
        let selector = &mut terms.filter.selector;
        match side {
            Side::Source => {
                selector.sources = nets;
                selector.source_ports.extend(ports.into_iter().flatten());
            }
            Side::Destination => {
                selector.destinations = nets;
                selector.destination_ports.extend(ports.into_iter().flatten());
            }
        }
        Ok(())
    }

    fn once(
        &self,
        field: &'static str,
        token: Token<'t>,
        terms: &mut Terms<'t>,
    ) -> Result<(), Diagnostic> {
        if terms.seen.iter().any(|(seen, _)| *seen == field) {
            let problem = Problem::new(
                Code::Duplicate,
                format!("`{field}` is given twice"),
                "several values of a field are separated by commas: dport 22,80",
            );
            return Err(self.fault_at(token, problem));
        }
        terms.seen.push((field, token));
        Ok(())
    }

    fn field(
        &mut self,
        field: &str,
        value: Token<'t>,
        terms: &mut Terms<'t>,
    ) -> Result<(), Diagnostic> {
        let selector = &mut terms.filter.selector;
        let number = |what: &'static str, most| move |text: &str| value::numbers(text, what, most);
        match field {
            "proto" => selector.protocols = self.list(value, value::protocol)?,
            "src" => selector.sources = self.nets(value)?,
            "dst" => selector.destinations = self.nets(value)?,
            "sport" => selector.source_ports = self.ports(value)?,
            "dport" => selector.destination_ports = self.ports(value)?,
            "dscp" => selector.dscps = self.list(value, value::dscp)?,
            "in" => {
                let names = |group: &Group| group.interfaces.clone();
                let read = |name: &str| Ok(value::interface_name(name)?.to_owned());
                let names = self.members(value, "interfaces", names, read)?;
                let doors: Read<Vec<Ingress>> =
                    names.iter().map(|name| self.ingress(name)).collect();
                selector.ingresses = doors.map_err(|problem| self.fault_at(value, problem))?;
            }
            "flow-label" => {
                selector.flow_labels =
                    self.list(value, number("flow label", LARGEST_FLOW_LABEL))?;
            }
            "spi" => selector.spis = self.list(value, number("SPI", u32::MAX))?,
            "uid" => selector.uids = self.list(value, number("user id", u32::MAX))?,
            "icmp-type" => terms.icmp_type = Some(value),
            "via" => {
                let links = |group: &Group| group.links.clone();
                terms.filter.via = self.members(value, "links", links, |text| self.link(text))?;
            }
            _ => terms.filter.rule = self.list(value, |text| self.rule(text))?,
        }
        Ok(())
    }

    /// Reads what depends on other terms, and refuses what no packet has.
    fn fit_together(&self, terms: Terms<'t>) -> Result<Filter, Diagnostic> {
        let Terms { mut filter, seen, icmp_type } = terms;
        let selector = &mut filter.selector;
        let protocols = &selector.protocols;
        let only_others = |with: &[u8]| {
            !protocols.is_empty() && !protocols.iter().any(|protocol| with.contains(protocol))
        };
        let refuse = |fields: &[&str], message: &str, help: &str| {
            let token = seen.iter().find(|(field, _)| fields.contains(field));
            token.map(|(_, token)| {
                self.fault_at(*token, Problem::new(Code::Conflict, message, help))
            })
        };
        let ports = only_others(value::WITH_PORTS).then(|| {
            refuse(
                &["sport", "dport"],
                "packets of this protocol have no ports",
                "remove the ports, or write proto tcp or proto udp",
            )
        });
        let spi = only_others(&value::WITH_SPI).then(|| {
            refuse(
                &["spi"],
                "packets of this protocol have no SPI",
                "remove it, or write proto esp or proto ah",
            )
        });
        if let Some(fault) = ports.flatten().or(spi.flatten()) {
            return Err(fault);
        }
        if let Some(token) = icmp_type {
            let family = match (protocols.contains(&ICMP), protocols.contains(&ICMPV6)) {
                (true, false) => ICMP,
                (false, true) => ICMPV6,
                (both, _) => {
                    let code = if both { Code::Conflict } else { Code::Missing };
                    let message = "ICMP and ICMPv6 number their types differently";
                    let help = "write proto icmpv6 or proto icmp besides";
                    return Err(self.fault_at(token, Problem::new(code, message, help)));
                }
            };
            selector.icmp_types = self.list(token, |text| value::icmp_type(text, family))?;
        }
        let local = |doors: &[Ingress]| doors.is_empty() || doors.contains(&Ingress::LOCAL);
        if !selector.uids.is_empty() && !local(&selector.ingresses) {
            let message = "only packets of this machine's own sockets have a user";
            if let Some(fault) = refuse(&["uid"], message, "remove `in`, or write in local") {
                return Err(fault);
            }
        }
        Ok(filter)
    }

    fn nets(&self, token: Token<'_>) -> Result<Vec<IpNet>, Diagnostic> {
        if matches!(token.text, "any" | "*") {
            return Ok(Vec::new());
        }
        self.members(token, "prefixes", |group| group.prefixes.clone(), value::prefix)
    }

    fn ports(&self, token: Token<'_>) -> Result<Vec<std::ops::RangeInclusive<u16>>, Diagnostic> {
        self.members(token, "ports", |group| group.ports.clone(), value::ports)
    }

    /// Values separated by commas; this field has no groups.
    fn list<T>(
        &self,
        token: Token<'_>,
        read: impl Fn(&str) -> Read<T>,
    ) -> Result<Vec<T>, Diagnostic> {
        self.members(token, "such values", |_| Vec::new(), read)
    }

    /// Values and groups separated by commas.
    fn members<T>(
        &self,
        token: Token<'_>,
        what: &str,
        of_group: impl Fn(&Group) -> Vec<T>,
        read: impl Fn(&str) -> Read<T>,
    ) -> Result<Vec<T>, Diagnostic> {
        let mut at = token.at;
        let mut values = Vec::new();
        for piece in token.text.split(',') {
            let read = match piece.strip_prefix('@') {
                Some(name) => self.group(name, what, &of_group),
                None => read(piece).map(|value| vec![value]),
            };
            values.extend(read.map_err(|problem| self.fault(at, piece.len(), problem))?);
            at += piece.len() + 1;
        }
        Ok(values)
    }

    fn group<T>(&self, name: &str, what: &str, of: impl Fn(&Group) -> Vec<T>) -> Read<Vec<T>> {
        let Some(policy) = self.policy else {
            return Err(Problem::new(
                Code::UnknownRef,
                "no policy is at hand that would know the group",
                "name the values",
            ));
        };
        let Some(group) = policy.groups.get(name) else {
            let help = advice(name, policy.groups.names(), "groups");
            let name: String = name.chars().take(64).collect();
            return Err(Problem::new(
                Code::UnknownRef,
                format!("there is no group `{name}`"),
                help,
            ));
        };
        match of(group) {
            none if none.is_empty() => Err(Problem::new(
                Code::UnknownRef,
                format!("group `{name}` holds no {what}"),
                format!("use a group of {what} here, or name the values"),
            )),
            values => Ok(values),
        }
    }

    fn ingress(&self, name: &str) -> Read<Ingress> {
        let none = Ingresses::default();
        let ingresses = self.policy.map_or(&none, |policy| &policy.ingresses);
        ingresses.number(name).ok_or_else(|| {
            let known = ["local", "other"]
                .into_iter()
                .chain(ingresses.iter().map(|(_, name)| name.as_str()));
            Problem::new(
                Code::UnknownRef,
                format!("no rule names the ingress interface `{name}`, so it cannot be told apart"),
                advice(name, known, "interfaces"),
            )
        })
    }

    /// A link by its name or its BID.
    pub(super) fn link(&self, text: &str) -> Read<Bid> {
        if let Ok(number) = text.parse::<u16>()
            && let Some(bid) = Bid::new(number)
        {
            return Ok(bid);
        }
        let links = self.policy.map_or(&[][..], |policy| &policy.interfaces);
        let found = links.iter().find(|link| link.name.as_str() == text).and_then(|link| link.bid);
        found.ok_or_else(|| {
            let help = if self.policy.is_some() {
                advice(text, links.iter().map(|link| link.name.as_str()), "interfaces")
            } else {
                "name the link by its BID; no policy is at hand".to_owned()
            };
            let text: String = text.chars().take(64).collect();
            Problem::new(Code::UnknownRef, format!("there is no interface `{text}`"), help)
        })
    }

    fn rule(&self, text: &str) -> Read<RuleName> {
        if let Some(policy) = self.policy {
            let known = policy
                .homes
                .iter()
                .flat_map(|home| &home.rules.rules)
                .map(|rule| rule.name().as_str());
            let number = text.strip_prefix("steer-");
            let steered = number.is_some_and(|number| number.parse::<u16>().is_ok());
            if !steered && !known.clone().any(|name| name == text) {
                let help = advice(text, known, "rules");
                let text: String = text.chars().take(64).collect();
                let message = format!("there is no rule `{text}`");
                return Err(Problem::new(Code::UnknownRef, message, help));
            }
        }
        Ok(RuleName::new(text))
    }
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// The address and the port of `[2001:db8::5]:22` or `192.0.2.5:22`, if it is one.
fn endpoint(token: Token<'_>) -> Option<(Token<'_>, Token<'_>)> {
    let (begin, address, port) = match token.text.strip_prefix('[') {
        Some(inside) => {
            let (address, port) = inside.split_once("]:")?;
            (1, address, port)
        }
        None => {
            let (address, port) = token.text.split_once(':')?;
            address.parse::<Ipv4Addr>().ok()?;
            (0, address, port)
        }
    };
    let port_at = token.at + token.text.len() - port.len();
    Some((Token { text: address, at: token.at + begin }, Token { text: port, at: port_at }))
}

/// What is wrong with a word that begins no term.
fn not_a_term(text: &str) -> Problem {
    match text {
        "or" | "not" | "(" | ")" | "||" | "&&" | "!" => Problem::new(
            Code::Syntax,
            format!("`{text}` is not part of the grammar"),
            "several values of a field are separated by commas: dport 22,80; terms are joined by `and`",
        ),
        "time" | "days" | "speed" => Problem::new(
            Code::UnknownProperty,
            format!("`{text}` is no field of a packet"),
            "suppose it behind `given`: given speed=90km/h time=23:10 day=sat",
        ),
        text if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() => Problem::new(
            Code::Syntax,
            format!("it is not said what {text} is"),
            format!("write src {text}, dst {text}, or an arrow: {text} -> any"),
        ),
        text if endpoint(Token { text, at: 0 }).is_some() => Problem::new(
            Code::Syntax,
            format!("it is not said which end {text} is"),
            format!("write an arrow: {text} -> any, or any -> {text}"),
        ),
        text => Problem::new(
            Code::UnknownProperty,
            format!("there is no field `{}`", text.chars().take(64).collect::<String>()),
            advice(text, MATCH_FIELDS.iter().copied().chain(WAY_FIELDS), "fields"),
        ),
    }
}
