//! The one grammar in which people name flows on the command line.
//!
//! ```text
//! proto tcp and dport 22 and via wwan0
//! tcp 2001:db8::5 -> 2001:db8:c::9 dport 22
//! dport=22
//! ```
//!
//! A term is a field and its value (`dport 22` or `dport=22`), a protocol alone, or two addresses
//! with `->` between them; `and` between terms may be left out. Fields and values are those of
//! `match`. A *filter* is any number of terms, with `via` and `rule` besides; a *flow* is one
//! packet's worth: both addresses and the protocol, each exactly one.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::compile::usual_ingress;
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::key::{FlowKey, Ingress};
use crate::policy::{Ingresses, Policy};
use crate::selector::TrafficSelector;
use crate::source::{Sources, Span, diagnose};
use crate::steering::{PathFacts, StatedLink as LinkState};
use crate::terms::{Bid, RuleName};
use crate::value::{self, Problem, protocol_name};
use crate::words::{LATER_MATCH_FIELDS, MATCH_FIELDS, advice};

/// Longest text that is read, in octets.
const LONGEST: usize = 8192;

/// Which flows are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// By their packets.
    pub selector: TrafficSelector,
    /// By the binding they use.
    pub via: Option<Bid>,
    /// By the rule that decided them.
    pub rule: Option<RuleName>,
}

impl Filter {
    /// Whether a flow with this key, binding and rule is meant.
    pub fn matches(&self, key: &FlowKey, via: Option<Bid>, rule: Option<&RuleName>) -> bool {
        self.via.is_none_or(|wanted| via == Some(wanted))
            && self.rule.as_ref().is_none_or(|wanted| rule == Some(wanted))
            && self.selector.matches(key)
    }
}

/// Reads a filter; without a policy, links are BIDs and rules are not looked up.
pub fn parse_filter(text: &str, policy: Option<&Policy>) -> Result<Filter, Diagnostic> {
    let mut reader = Reader::new("filter", text, policy)?;
    let filter = reader.terms()?;
    reader.end()?;
    Ok(filter)
}

/// Reads a flow, as `mtun explain` takes it.
pub fn parse_flow(text: &str, policy: &Policy) -> Result<FlowKey, Diagnostic> {
    let mut reader = Reader::new("flow", text, Some(policy))?;
    let key = reader.flow(policy)?;
    reader.end()?;
    Ok(key)
}

/// Reads a flow and, behind `given`, the states of links: `… given wwan0=down wlan0=drained`.
pub fn parse_question(text: &str, policy: &Policy) -> Result<(FlowKey, PathFacts), Diagnostic> {
    let mut reader = Reader::new("flow", text, Some(policy))?;
    let key = reader.flow(policy)?;
    let facts = if reader.take_if("given") { reader.facts()? } else { PathFacts::new() };
    reader.end()?;
    Ok((key, facts))
}

/// Reads states of links, `wwan0=down wlan0=drained`.
pub fn parse_given(text: &str, policy: &Policy) -> Result<PathFacts, Diagnostic> {
    let mut reader = Reader::new("given", text, Some(policy))?;
    reader.take_if("given");
    let facts = reader.facts()?;
    reader.end()?;
    Ok(facts)
}

/// A selector as a filter that reads back to it.
pub fn filter_text(selector: &TrafficSelector, ingresses: &Ingresses) -> String {
    fn list<T>(values: &[T], text: impl Fn(&T) -> String) -> String {
        values.iter().map(text).collect::<Vec<_>>().join(",")
    }
    let ports = |range: &std::ops::RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let fields = [
        ("proto", list(&selector.protocols, |protocol| protocol_name(*protocol))),
        ("src", list(&selector.sources, net_text)),
        ("dst", list(&selector.destinations, net_text)),
        ("sport", list(&selector.source_ports, ports)),
        ("dport", list(&selector.destination_ports, ports)),
        ("dscp", list(&selector.dscps, u8::to_string)),
        ("in", list(&selector.ingresses, |ingress| ingresses.name(*ingress).to_owned())),
    ];
    let terms = fields.into_iter().filter(|(_, value)| !value.is_empty());
    terms.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(" and ")
}

/// A prefix as people write it: an address alone if it stands for itself.
pub(crate) fn net_text(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// A word of the text and the octet at which it begins.
#[derive(Clone, Copy, Debug)]
struct Token<'t> {
    text: &'t str,
    at: usize,
}

struct Reader<'t> {
    name: &'static str,
    text: &'t str,
    tokens: Vec<Token<'t>>,
    next: usize,
    policy: Option<&'t Policy>,
}

impl<'t> Reader<'t> {
    fn new(
        name: &'static str,
        text: &'t str,
        policy: Option<&'t Policy>,
    ) -> Result<Self, Diagnostic> {
        let reader = Self { name, text, tokens: tokens(text), next: 0, policy };
        if text.len() > LONGEST {
            let message = format!("longer than {LONGEST} octets");
            return Err(reader.fault(0, 1, Problem::new(Code::Limit, message, "name fewer flows")));
        }
        Ok(reader)
    }

    fn fault(&self, at: usize, length: usize, problem: Problem) -> Diagnostic {
        let mut sources = Sources::default();
        // Only the part that may be shown is kept, so that spans stay small.
        let text = self.text.get(..LONGEST).unwrap_or(self.text);
        let text = if text.len() > LONGEST { "" } else { text };
        let source = sources.add(self.name, text.to_owned());
        let span = Span::new(source, at.min(text.len()), length);
        diagnose(&sources, span, Severity::Error, problem.code, problem.message, problem.help)
    }

    fn fault_at(&self, token: Token<'_>, problem: Problem) -> Diagnostic {
        self.fault(token.at, token.text.len(), problem)
    }

    fn peek(&self) -> Option<Token<'t>> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self) -> Option<Token<'t>> {
        let token = self.peek()?;
        self.next += 1;
        Some(token)
    }

    fn take_if(&mut self, text: &str) -> bool {
        let here = self.peek().is_some_and(|token| token.text == text);
        self.next += usize::from(here);
        here
    }

    fn end(&mut self) -> Result<(), Diagnostic> {
        match self.peek() {
            None => Ok(()),
            Some(token) => {
                let message = format!("`{}` has no meaning here", token.text);
                Err(self.fault_at(token, Problem::new(Code::Syntax, message, "remove it")))
            }
        }
    }

    /// Terms up to the end or to `given`.
    fn terms(&mut self) -> Result<Filter, Diagnostic> {
        let mut filter = Filter::default();
        let mut seen: Vec<&'static str> = Vec::new();
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
            self.term(&mut filter, &mut seen)?;
        }
        Ok(filter)
    }

    fn term(
        &mut self,
        filter: &mut Filter,
        seen: &mut Vec<&'static str>,
    ) -> Result<(), Diagnostic> {
        let Some(token) = self.take() else { return Ok(()) };
        if self.take_if("->") {
            self.once("src", token, seen)?;
            filter.selector.sources = self.nets(token)?;
            let Some(behind) = self.take() else {
                let problem = Problem::new(
                    Code::Missing,
                    "an address is missing behind `->`",
                    "write source -> destination, or `any`",
                );
                return Err(self.fault_at(token, problem));
            };
            self.once("dst", behind, seen)?;
            filter.selector.destinations = self.nets(behind)?;
            return Ok(());
        }
        let fields =
            MATCH_FIELDS.iter().copied().filter(|field| !LATER_MATCH_FIELDS.contains(field));
        let fields = fields.chain(["via", "rule"]);
        if let Some(field) = fields.clone().find(|field| *field == token.text) {
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
            self.once(field, token, seen)?;
            return self.field(field, value, filter);
        }
        if value::protocol(token.text).is_ok()
            && !token.text.starts_with(|c: char| c.is_ascii_digit())
        {
            self.once("proto", token, seen)?;
            filter.selector.protocols = self.list(token, value::protocol)?;
            return Ok(());
        }
        let problem = match token.text {
            "or" | "not" | "(" | ")" | "||" | "&&" | "!" => Problem::new(
                Code::Syntax,
                format!("`{}` is not part of the grammar", token.text),
                "several values of a field are separated by commas: dport 22,80; terms are joined by `and`",
            ),
            later if LATER_MATCH_FIELDS.contains(&later) => Problem::new(
                Code::NotSupported,
                format!("`{later}` belongs to the language but is not carried out by this version"),
                "name the flow by other fields",
            ),
            text if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() => {
                Problem::new(
                    Code::Syntax,
                    format!("it is not said what {text} is"),
                    format!("write src {text}, dst {text}, or an arrow: {text} -> any"),
                )
            }
            text => Problem::new(
                Code::UnknownProperty,
                format!("there is no field `{}`", text.chars().take(64).collect::<String>()),
                advice(text, fields, "fields"),
            ),
        };
        Err(self.fault_at(token, problem))
    }

    fn once(
        &self,
        field: &'static str,
        token: Token<'_>,
        seen: &mut Vec<&'static str>,
    ) -> Result<(), Diagnostic> {
        if seen.contains(&field) {
            let problem = Problem::new(
                Code::Duplicate,
                format!("`{field}` is given twice"),
                "several values of a field are separated by commas: dport 22,80",
            );
            return Err(self.fault_at(token, problem));
        }
        seen.push(field);
        Ok(())
    }

    fn field(
        &mut self,
        field: &str,
        value: Token<'t>,
        filter: &mut Filter,
    ) -> Result<(), Diagnostic> {
        let selector = &mut filter.selector;
        match field {
            "proto" => selector.protocols = self.list(value, value::protocol)?,
            "src" => selector.sources = self.nets(value)?,
            "dst" => selector.destinations = self.nets(value)?,
            "sport" => selector.source_ports = self.list(value, value::ports)?,
            "dport" => selector.destination_ports = self.list(value, value::ports)?,
            "dscp" => selector.dscps = self.list(value, value::dscp)?,
            "in" => selector.ingresses = self.list(value, |name| self.ingress(name))?,
            "via" => filter.via = Some(self.link(value)?),
            _ => filter.rule = Some(self.rule(value)?),
        }
        Ok(())
    }

    /// Values separated by commas.
    fn list<T>(
        &self,
        token: Token<'_>,
        read: impl Fn(&str) -> value::Read<T>,
    ) -> Result<Vec<T>, Diagnostic> {
        let mut at = token.at;
        let mut values = Vec::new();
        for piece in token.text.split(',') {
            let value = if piece.starts_with('@') {
                Err(Problem::new(
                    Code::NotSupported,
                    "groups are known in the policy file only",
                    "name the values",
                ))
            } else {
                read(piece)
            };
            values.push(value.map_err(|problem| self.fault(at, piece.len(), problem))?);
            at += piece.len() + 1;
        }
        Ok(values)
    }

    fn nets(&self, token: Token<'_>) -> Result<Vec<IpNet>, Diagnostic> {
        if matches!(token.text, "any" | "*") {
            return Ok(Vec::new());
        }
        self.list(token, value::prefix)
    }

    fn ingress(&self, name: &str) -> value::Read<Ingress> {
        value::interface_name(name)?;
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

    fn link(&self, token: Token<'_>) -> Result<Bid, Diagnostic> {
        if let Ok(number) = token.text.parse::<u16>()
            && let Some(bid) = Bid::new(number)
        {
            return Ok(bid);
        }
        let links = self.policy.map_or(&[][..], |policy| &policy.interfaces);
        let found =
            links.iter().find(|link| link.name.as_str() == token.text).and_then(|link| link.bid);
        found.ok_or_else(|| {
            let help = if self.policy.is_some() {
                advice(token.text, links.iter().map(|link| link.name.as_str()), "interfaces")
            } else {
                "name the link by its BID; no policy is at hand".to_owned()
            };
            self.fault_at(
                token,
                Problem::new(
                    Code::UnknownRef,
                    format!("there is no interface `{}`", token.text),
                    help,
                ),
            )
        })
    }

    fn rule(&self, token: Token<'_>) -> Result<RuleName, Diagnostic> {
        if let Some(policy) = self.policy {
            let known = policy
                .homes
                .iter()
                .flat_map(|home| &home.rules.rules)
                .map(|rule| rule.name().as_str());
            let steered = token
                .text
                .strip_prefix("steer-")
                .is_some_and(|number| number.parse::<u16>().is_ok());
            if !steered && !known.clone().any(|name| name == token.text) {
                let help = advice(token.text, known, "rules");
                let message = format!("there is no rule `{}`", token.text);
                return Err(self.fault_at(token, Problem::new(Code::UnknownRef, message, help)));
            }
        }
        Ok(RuleName::new(token.text))
    }

    fn flow(&mut self, policy: &Policy) -> Result<FlowKey, Diagnostic> {
        let filter = self.terms()?;
        let missing = |what: &str| {
            let help = "a flow looks like: tcp 2001:db8::5 -> 2001:db8:c::9 dport 22";
            self.fault(
                0,
                self.text.len().min(LONGEST),
                Problem::new(Code::Missing, format!("this flow has no {what}"), help),
            )
        };
        let several = |what: &str| {
            let help = "explain follows one packet at a time";
            self.fault(
                0,
                self.text.len(),
                Problem::new(Code::Value, format!("a flow has exactly one {what}"), help),
            )
        };
        let address = |nets: &[IpNet], what: &str| match nets {
            [] => Err(missing(what)),
            [net] if net.prefix_len() == net.max_prefix_len() => Ok(net.addr()),
            _ => Err(several(what)),
        };
        let port = |ranges: &[std::ops::RangeInclusive<u16>], what: &str| match ranges {
            [] => Ok(None),
            [range] if range.start() == range.end() => Ok(Some(*range.start())),
            _ => Err(several(what)),
        };
        if filter.via.is_some() || filter.rule.is_some() {
            let help = "remove them; the answer names the link and the rule";
            let problem = Problem::new(Code::Conflict, "a flow has no `via` and no `rule`", help);
            return Err(self.fault(0, self.text.len(), problem));
        }
        let selector = &filter.selector;
        let source = address(&selector.sources, "source address")?;
        let protocol = match selector.protocols.as_slice() {
            [] => return Err(missing("protocol")),
            [protocol] => *protocol,
            _ => return Err(several("protocol")),
        };
        let ports_given =
            !selector.source_ports.is_empty() || !selector.destination_ports.is_empty();
        if ports_given && !value::WITH_PORTS.contains(&protocol) {
            let message = format!("packets of {} have no ports", protocol_name(protocol));
            return Err(self.fault(
                0,
                self.text.len(),
                Problem::new(Code::Conflict, message, "remove the ports"),
            ));
        }
        Ok(FlowKey {
            source,
            destination: address(&selector.destinations, "destination address")?,
            protocol,
            source_port: port(&selector.source_ports, "source port")?,
            destination_port: port(&selector.destination_ports, "destination port")?,
            dscp: match selector.dscps.as_slice() {
                [] => 0,
                [dscp] => *dscp,
                _ => return Err(several("DSCP")),
            },
            flow_label: 0,
            spi: None,
            icmp_type: None,
            uid: None,
            ingress: match selector.ingresses.as_slice() {
                [] => policy
                    .home_of(source)
                    .map_or(Ingress::OTHER, |home| usual_ingress(home, &policy.ingresses, source)),
                [ingress] => *ingress,
                _ => return Err(several("ingress interface")),
            },
        })
    }

    fn facts(&mut self) -> Result<PathFacts, Diagnostic> {
        let mut facts = PathFacts::new();
        while let Some(token) = self.take() {
            if token.text == "and" || token.text == "," {
                continue;
            }
            let bid = self.link(token)?;
            let state = if self.take_if("=") { self.take() } else { None };
            let Some(state) = state else {
                let problem = Problem::new(
                    Code::Missing,
                    format!("the state of {} is missing", token.text),
                    format!("write {}=down", token.text),
                );
                return Err(self.fault_at(token, problem));
            };
            let known = ["up", "down", "drained"];
            let word = LinkState::from_word(state.text).ok_or_else(|| {
                let message = format!("`{}` is not a state of a link", state.text);
                self.fault_at(
                    state,
                    Problem::new(
                        Code::Value,
                        message,
                        advice(state.text, known.into_iter(), "states"),
                    ),
                )
            })?;
            facts.set(bid, word);
        }
        Ok(facts)
    }
}

/// Words, with `=`, `->` and parentheses as words of their own.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (at, word) in words(text) {
        let mut at = at;
        let mut rest = word;
        while !rest.is_empty() {
            let own = if rest.starts_with("->") {
                2
            } else {
                usize::from(rest.starts_with(['=', '(', ')', '!']))
            };
            let ends = |(at, c): &(usize, char)| {
                matches!(c, '=' | '(' | ')') || rest[*at..].starts_with("->")
            };
            let length = match own {
                0 => rest.char_indices().find(ends).map_or(rest.len(), |(at, _)| at),
                own => own,
            };
            tokens.push(Token { text: &rest[..length], at });
            at += length;
            rest = &rest[length..];
        }
    }
    tokens
}

/// Pieces without white space and the octets at which they begin.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let base = text.as_ptr() as usize;
    text.split_whitespace().map(move |word| (word.as_ptr() as usize - base, word))
}
