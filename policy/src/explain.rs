//! Why a flow goes where it goes.
//!
//! An [`Explanation`] lists the rules in the order in which they are asked, up to the one that
//! decides: which field kept a rule from matching, which links a matching rule named and what
//! became of each. The verdict is [`Effective::choose`]'s; nothing is decided here.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;

use crate::effective::{BlockReply, Choice, Effective, Origin, Otherwise, Ruling, Usable};
use crate::filter::net_text;
use crate::key::FlowKey;
use crate::policy::{Home, Ingresses, Policy};
use crate::selector::{Field, TrafficSelector};
use crate::steering::{PathFacts, StatedLink as LinkState, evaluate};
use crate::suite::{End, GivenLinks, ending};
use crate::terms::{Bid, HomeName, InterfaceName, RuleId, RuleName};
use crate::value::protocol_name;
use crate::verb::Fallback;

/// The way of one flow through the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The flow.
    pub flow: FlowText,
    /// The home network whose rules are asked.
    pub home: HomeName,
    /// Every link and what is known of it.
    pub links: Vec<LinkFact>,
    /// The rules in order, up to the one that decides.
    pub rules: Vec<RuleVerdict>,
    /// How many rules were not asked.
    pub not_asked: usize,
    /// The deciding rule; `None` if no rule matched.
    pub rule: Option<RuleName>,
    /// How it ends.
    pub end: End,
    /// The bindings it goes by: one, one for each copy, or none.
    pub bids: Vec<Bid>,
    /// Whether its source becomes the link's own address when it breaks out.
    pub translate: bool,
    /// How a refusal is answered.
    pub reply: Option<BlockReply>,
    /// Whether the deciding rule needed its `otherwise`.
    pub otherwise: bool,
}

/// A flow in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowText {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol by name or number.
    pub protocol: String,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// DSCP.
    pub dscp: u8,
    /// `local`, the ingress interface if a rule names it, or `other`.
    pub ingress: String,
}

impl FlowText {
    /// The words for a key.
    pub fn new(key: &FlowKey, ingresses: &Ingresses) -> Self {
        Self {
            source: key.source,
            destination: key.destination,
            protocol: protocol_name(key.protocol),
            source_port: key.source_port,
            destination_port: key.destination_port,
            dscp: key.dscp,
            ingress: ingresses.name(key.ingress).to_owned(),
        }
    }
}

impl fmt::Display for FlowText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.source, self.destination)?;
        if let Some(port) = self.source_port {
            write!(f, " sport {port}")?;
        }
        if let Some(port) = self.destination_port {
            write!(f, " dport {port}")?;
        }
        if self.dscp != 0 {
            write!(f, " dscp {}", self.dscp)?;
        }
        write!(f, " in {}", self.ingress)
    }
}

/// A link and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkFact {
    /// The link.
    pub interface: InterfaceName,
    /// Its BID.
    pub bid: Bid,
    /// What is stated of it.
    pub state: LinkState,
    /// Whether packets can be sent by it.
    pub usable: bool,
}

/// A rule and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleVerdict {
    /// Its place.
    pub id: RuleId,
    /// Its name.
    pub name: RuleName,
    /// Where it stands; `None` for an override.
    pub file: Option<String>,
    /// Where it stands, from 1.
    pub line: Option<usize>,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It speaks of other packets; one reason for each `match` line.
    NotMatched(Vec<Mismatch>),
    /// It matched, and an `exclude` line took the packet out again.
    Excluded,
    /// It matched, no link it names is usable, and the next rule was asked.
    PassedOn(Vec<Candidate>),
    /// It decided.
    Decided(Vec<Candidate>),
}

/// The first field that kept a `match` line from matching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The field.
    pub field: Field,
    /// What the packet has.
    pub found: String,
    /// What the line wants.
    pub wanted: String,
}

/// A link that a matching rule names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The link.
    pub interface: InterfaceName,
    /// Its BID.
    pub bid: Bid,
    /// Whether the rule names it only under `otherwise`.
    pub otherwise: bool,
    /// What became of it.
    pub verdict: CandidateVerdict,
}

/// What became of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CandidateVerdict {
    /// The flow goes by it.
    Chosen,
    /// Usable; another came first.
    NotNeeded,
    /// Usable, but it is to run empty and another could be used.
    Drained,
    /// Its link is down.
    Down,
    /// No binding is registered for it, or it cannot be sent by.
    NotUsable,
}

impl fmt::Display for CandidateVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chosen => "chosen",
            Self::NotNeeded => "not needed",
            Self::Drained => "drained",
            Self::Down => "down",
            Self::NotUsable => "not usable",
        })
    }
}

/// Explains a flow without a daemon: every link is registered, in the state `given` or up.
pub fn explain_offline(
    policy: &Policy,
    home: &Home,
    key: &FlowKey,
    given: &PathFacts,
) -> Explanation {
    let effective = evaluate(&home.rules, &[], given, Duration::ZERO);
    let links = GivenLinks { interfaces: &policy.interfaces, facts: given };
    explain(policy, home, &effective, key, &links, given)
}

/// Explains a flow over the list by which packets are judged, with the bindings there are.
///
/// `effective` was made by [`evaluate`] from this home's rules and `facts`, overrides included.
pub fn explain(
    policy: &Policy,
    home: &Home,
    effective: &Effective,
    key: &FlowKey,
    bindings: &impl Usable,
    facts: &PathFacts,
) -> Explanation {
    let choice = effective.choose(key, Origin::Home, bindings, None);
    let mut translated = false;
    let (decider, bids, reply, otherwise) = match choice {
        Choice::Use { rule, bid, otherwise } => (rule, vec![bid], None, otherwise),
        Choice::Copies { rule, links, copies, otherwise } => {
            let usable = links.iter().copied().filter(|bid| bindings.usable(*bid));
            (Some(rule), usable.take(usize::from(copies)).collect(), None, otherwise)
        }
        Choice::Breakout { rule, bid, translate, otherwise } => {
            translated = translate;
            (Some(rule), vec![bid], None, otherwise)
        }
        Choice::Block { rule, reply, otherwise } => {
            (Some(rule), Vec::new(), Some(reply), otherwise)
        }
        // The walk ran off the end if the last rule that matched only passed on.
        Choice::Nothing(rule) => {
            let last = rule.filter(|rule| rule.says.otherwise != Otherwise::NextRule);
            (last, Vec::new(), None, false)
        }
    };
    let (rule, end) = ending(policy, bindings, choice);
    let asked = match decider {
        Some(decider) => {
            let mut rules = effective.rules();
            rules.position(|rule| rule.head.id == decider.head.id).map_or(0, |at| at + 1)
        }
        None => effective.rules().count(),
    };
    let context = Context { policy, home, key, bindings, facts, bids: &bids };
    let rules = effective
        .rules()
        .take(asked)
        .map(|rule| {
            context.rule(rule, decider.is_some_and(|decider| decider.head.id == rule.head.id))
        })
        .collect();
    Explanation {
        flow: FlowText::new(key, &policy.ingresses),
        home: home.name.clone(),
        links: policy
            .interfaces
            .iter()
            .filter_map(|link| {
                let bid = link.bid?;
                let interface = link.name.clone();
                Some(LinkFact {
                    interface,
                    bid,
                    state: facts.state(bid),
                    usable: bindings.usable(bid),
                })
            })
            .collect(),
        rules,
        not_asked: effective.rules().count() - asked,
        rule,
        end,
        bids,
        translate: translated,
        reply,
        otherwise,
    }
}

struct Context<'c, U> {
    policy: &'c Policy,
    home: &'c Home,
    key: &'c FlowKey,
    bindings: &'c U,
    facts: &'c PathFacts,
    bids: &'c [Bid],
}

impl<U: Usable> Context<'_, U> {
    fn rule(&self, rule: Ruling<'_>, decides: bool) -> RuleVerdict {
        let head = rule.head;
        let written = if head.id.is_override() { None } else { self.home.rules.get(head.id) };
        let mismatches = || {
            let lines = head.selectors.iter();
            lines
                .filter_map(|line| Some(self.mismatch(line, line.first_failure(self.key)?)))
                .collect::<Vec<_>>()
        };
        let verdict = if !head.matches(self.key) {
            let mismatches = mismatches();
            if mismatches.len() < head.selectors.len() || head.selectors.is_empty() {
                Verdict::Excluded
            } else {
                Verdict::NotMatched(mismatches)
            }
        } else if decides {
            Verdict::Decided(self.candidates(rule, true))
        } else {
            Verdict::PassedOn(self.candidates(rule, false))
        };
        RuleVerdict {
            id: head.id,
            name: head.name.clone(),
            file: written.map(|written| written.file.clone()),
            line: written.map(|written| written.line),
            verdict,
        }
    }

    /// The links a rule names as it was written, those that are down included.
    fn candidates(&self, rule: Ruling<'_>, decides: bool) -> Vec<Candidate> {
        let id = rule.head.id;
        let written = if id.is_override() { None } else { self.home.rules.get(id) };
        let named = match written {
            Some(written) => written.verb.links(),
            None => rule.says.outcome.links().to_vec(),
        };
        let fallback: Vec<Bid> = match written.map(|written| &written.otherwise) {
            Some(Fallback::Then(verb)) => verb.links(),
            Some(Fallback::Any) => self
                .policy
                .interfaces
                .iter()
                .filter_map(|link| link.bid)
                .filter(|bid| !named.contains(bid))
                .collect(),
            Some(Fallback::NextRule) | None => Vec::new(),
        };
        let named = named.iter().map(|bid| (*bid, false));
        let all = named.chain(fallback.into_iter().map(|bid| (bid, true)));
        all.map(|(bid, otherwise)| self.candidate(bid, otherwise, decides)).collect()
    }

    fn candidate(&self, bid: Bid, otherwise: bool, decides: bool) -> Candidate {
        let link = self.policy.interface_of(bid).map(|link| link.name.clone());
        let verdict = if decides && self.bids.contains(&bid) {
            CandidateVerdict::Chosen
        } else if self.facts.state(bid) == LinkState::Down {
            CandidateVerdict::Down
        } else if !self.bindings.usable(bid) {
            CandidateVerdict::NotUsable
        } else if self.facts.state(bid) == LinkState::Drained {
            CandidateVerdict::Drained
        } else {
            CandidateVerdict::NotNeeded
        };
        let interface = link.unwrap_or_else(|| InterfaceName::new(format!("bid {bid}")));
        Candidate { interface, bid, otherwise, verdict }
    }

    fn mismatch(&self, line: &TrafficSelector, field: Field) -> Mismatch {
        let key = self.key;
        let ingress =
            |ingress: &crate::key::Ingress| self.policy.ingresses.name(*ingress).to_owned();
        let (found, wanted) = match field {
            Field::Source => (key.source.to_string(), few(&line.sources, net_text)),
            Field::Destination => (key.destination.to_string(), few(&line.destinations, net_text)),
            Field::Protocol => {
                (protocol_name(key.protocol), few(&line.protocols, |number| protocol_name(*number)))
            }
            Field::SourcePort => (or_none(key.source_port), few(&line.source_ports, ranges)),
            Field::DestinationPort => {
                (or_none(key.destination_port), few(&line.destination_ports, ranges))
            }
            Field::Dscp => (key.dscp.to_string(), few(&line.dscps, u8::to_string)),
            Field::Ingress => (ingress(&key.ingress), few(&line.ingresses, ingress)),
            Field::FlowLabel => (key.flow_label.to_string(), few(&line.flow_labels, ranges)),
            Field::Spi => (or_none(key.spi), few(&line.spis, ranges)),
            Field::IcmpType => (or_none(key.icmp_type), few(&line.icmp_types, ranges)),
            Field::Uid => (or_none(key.uid), few(&line.uids, ranges)),
        };
        Mismatch { field, found, wanted }
    }
}

fn or_none(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn ranges<T: fmt::Display + PartialEq>(range: &RangeInclusive<T>) -> String {
    match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

/// The first four of a list, and how many more there are.
fn few<T>(values: &[T], text: impl Fn(&T) -> String) -> String {
    let shown = values.iter().take(4).map(text).collect::<Vec<_>>().join(", ");
    match values.len().saturating_sub(4) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "flow  {}", self.flow)?;
        writeln!(f, "home  {}", self.home)?;
        for link in self.links.iter().filter(|link| link.state != LinkState::Up) {
            writeln!(f, "given {} {}", link.interface, link.state.word())?;
        }
        for rule in &self.rules {
            write!(f, "rule  {}", rule.name)?;
            if let (Some(file), Some(line)) = (&rule.file, rule.line) {
                write!(f, " ({file}:{line})")?;
            }
            let candidates = match &rule.verdict {
                Verdict::NotMatched(mismatches) => {
                    writeln!(f, ": no match")?;
                    for Mismatch { field, found, wanted } in mismatches {
                        writeln!(f, "        {} is {found}, not {wanted}", field.word())?;
                    }
                    continue;
                }
                Verdict::Excluded => {
                    writeln!(f, ": matches, but excludes it again")?;
                    continue;
                }
                Verdict::PassedOn(candidates) => {
                    writeln!(f, ": matches, no link usable, next rule")?;
                    candidates
                }
                Verdict::Decided(candidates) => {
                    writeln!(f, ": matches and decides")?;
                    candidates
                }
            };
            for candidate in candidates {
                let otherwise = if candidate.otherwise { "otherwise " } else { "" };
                writeln!(
                    f,
                    "        {otherwise}{} (bid {}): {}",
                    candidate.interface, candidate.bid, candidate.verdict
                )?;
            }
        }
        let rule =
            self.rule.as_ref().map_or_else(|| "no rule".to_owned(), |rule| format!("rule {rule}"));
        let otherwise = if self.otherwise { " by its otherwise" } else { "" };
        write!(f, "so    {}, {rule}{otherwise}", self.end)?;
        if let Some(reply) = self.reply {
            let reply = match reply {
                BlockReply::Silent => "nothing",
                BlockReply::Icmp => "ICMPv6 administratively prohibited",
                BlockReply::Reset => "a TCP reset",
            };
            write!(f, ", answered by {reply}")?;
        }
        Ok(())
    }
}
