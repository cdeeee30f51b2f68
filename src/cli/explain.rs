//! `mtun explain`: which rule and uplink a flow gets, and why.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use mtun_policy::steering::Given;
use mtun_policy::{Bid, BlockReply, FlowId, FlowKey, Home, Policy};

use super::Answer;
use super::daemon::{Daemon, unexpected};
use super::downlink;
use super::duration::seconds;
use super::screen::{Cell, Page, Screen, Tone};
use crate::control::documents::{
    AtAgentDocument, DigestState, ExplainDocument, ExplainVerdict, FlowBindingDocument,
    FlowBindingState, FlowBindingsTaken, FlowKeyDocument,
};
use crate::control::{ControlError, ErrorCode, Request, Response};

/// The flow and what is supposed.
#[derive(Debug, Args)]
#[command(after_help = "Example: mtun explain 'tcp 2001:db8:b::5 -> 2001:db8:c::9 dport 22 \
                        given wwan0=down speed=90km/h'")]
pub(super) struct Command {
    /// Protocol, addresses and ports
    #[arg(required = true, value_name = "FLOW")]
    flow: Vec<String>,
    /// Suppose this, such as wwan0=down, wlan0.rtt=80ms, speed=90km/h, time=23:10 or day=sat; may
    /// be repeated
    #[arg(long, value_name = "SUPPOSITION", value_delimiter = ',')]
    given: Vec<String>,
    /// Show what the other end of the tunnel does with the flow's packets to the mobile
    #[arg(long, value_name = "END")]
    at: Option<End>,
    /// Judge by this policy file instead of asking the daemon
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// An end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum End {
    /// The home agent's, by what it acknowledged.
    Agent,
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    screen: Screen,
) -> Result<Answer, ControlError> {
    let flow = command.flow.join(" ");
    let given = command.given.clone();
    let response = match &command.policy {
        Some(file) => Response::Explain(offline(file, &flow, &given, command.at)?),
        None => daemon.ask(Request::Explain { flow, given })?,
    };
    let Response::Explain(document) = &response else { return Err(unexpected()) };
    let mut page = Page::new(screen);
    show(document, &mut page);
    match (command.at, &document.at_agent) {
        (Some(End::Agent), Some(at)) => downlink::at_agent(at, &mut page),
        (Some(End::Agent), None) => {
            let message = "no home agent sends packets of this flow to a mobile of this node";
            return Err(ControlError::new(ErrorCode::Refused, message)
                .help("ask the mobile, and for a flow that goes through the tunnel"));
        }
        (None, _) => {}
    }
    Ok(Answer::new(&response, page))
}

/// Judges by the file alone: every link registered and up, except for what is given.
fn offline(
    file: &Path,
    flow: &str,
    given: &[String],
    at: Option<End>,
) -> Result<ExplainDocument, ControlError> {
    let policy = super::policy::load(file)?;
    let (key, given) = mtun_policy::parse_question_given(flow, given, &policy)?;
    if policy.homes.is_empty() {
        let message = format!("{} has no rules: it is for a {}", policy.name, policy.role);
        return Err(ControlError::new(ErrorCode::Refused, message)
            .help("ask with the mobile's policy; an agent sends flows back the way they came"));
    }
    let flow = FlowKeyDocument::new(&key, policy.ingresses.name(key.ingress));
    let Some((home, origin)) = policy.judge_of(&key) else {
        return Ok(ExplainDocument::not_ours(flow));
    };
    let explanation = mtun_policy::explain_offline(&policy, home, &key, origin, &given);
    let mut document = ExplainDocument::new(flow, &explanation, &given, &policy);
    if at == Some(End::Agent) {
        document.at_agent = at_agent(&policy, home, &key, &given, &document.verdict);
    }
    Ok(document)
}

/// What an agent does with the packets down that takes all it is told; `None` for a flow that does
/// not go up by the tunnel.
fn at_agent(
    policy: &Policy,
    home: &Home,
    key: &FlowKey,
    given: &Given,
    verdict: &ExplainVerdict,
) -> Option<AtAgentDocument> {
    let mut up: Vec<Bid> = match verdict {
        ExplainVerdict::Forward { bid, .. } => bid.iter().copied().collect(),
        ExplainVerdict::Copies { bids, .. } => bids.clone(),
        _ => return None,
    };
    let at = mtun_policy::downlink::at_agent(policy, home, key, given, up.first().copied());
    let link = |bid: Bid| policy.interface_of(bid).map(|link| link.name.clone());
    let entry = |fid: &FlowId| {
        let flow = at.plan.binding(*fid)?;
        let rule = at.plan.rules.iter().find(|rule| rule.entries.contains(fid));
        Some(FlowBindingDocument {
            home: home.name.clone(),
            fid: flow.id,
            priority: flow.priority,
            packets: flow.selector.to_string(),
            bids: flow.bids.clone(),
            links: flow.bids.iter().filter_map(|bid| link(*bid)).collect(),
            rule: rule.map(|rule| rule.name.clone()),
            state: FlowBindingState::Pending,
            status: None,
        })
    };
    let verdict = match at.bids.as_slice() {
        [] => ExplainVerdict::NoUsableBinding,
        [bid] => ExplainVerdict::Forward {
            bid: Some(*bid),
            link: link(*bid),
            care_of: None,
            peer: None,
            encapsulation: "ipv6-in-ipv6".to_owned(),
            next_hop: None,
            otherwise: false,
        },
        bids => ExplainVerdict::Copies {
            bids: bids.to_vec(),
            links: bids.iter().filter_map(|bid| link(*bid)).collect(),
            otherwise: false,
        },
    };
    let mut downs = at.bids.clone();
    up.sort_unstable();
    downs.sort_unstable();
    let told = home.register.flow_bindings && home.register.multiple_coa;
    Some(AtAgentDocument {
        flow: FlowKeyDocument::new(&key.mirrored(), "other"),
        taken: if told { FlowBindingsTaken::Unknown } else { FlowBindingsTaken::Off },
        digest: DigestState::NotCompared,
        entries: at.speaking.iter().filter_map(entry).collect(),
        fid: at.fid,
        verdict,
        as_uplink: Some(up == downs),
        notes: vec!["as an agent does that takes all it is told".to_owned()],
    })
}

fn show(document: &ExplainDocument, page: &mut Page) {
    let mut facts = vec![
        ("flow", Cell::new(format!("{} from {}", document.flow, document.flow.ingress))),
        ("home", Cell::or(document.home.as_ref(), "none: not a home address of ours")),
        ("rule", Cell::or(document.rule.as_ref(), "none matched")),
    ];
    facts.extend(
        document
            .unmet
            .iter()
            .map(|unmet| ("when", Cell::toned(format!("not met: {unmet}"), Tone::Warning))),
    );
    facts.push(("verdict", verdict(&document.verdict)));
    facts.extend(document.at_agent.as_ref().map(|at| ("way down", downlink::fact(at))));
    match document.generation {
        Some(generation) => facts.push(("generation", Cell::new(generation))),
        None => facts.push(("judged", Cell::new("offline, by the policy file alone"))),
    }
    if !document.given.is_empty() {
        facts.push(("given", Cell::new(document.given.join(", "))));
    }
    facts.extend(document.notes.iter().map(|note| ("note", Cell::new(note))));
    page.facts(&facts);
    candidates(document, page);
    passed(document, page);
    if !document.moves.is_empty() {
        let rows: Vec<_> = document
            .moves
            .iter()
            .map(|moved| {
                vec![
                    Cell::new(format!("{} ago", seconds(moved.ago_seconds as u64))),
                    Cell::new(&moved.from),
                    Cell::new(&moved.to),
                    Cell::new(&moved.reason),
                ]
            })
            .collect();
        page.table(&["MOVED", "FROM", "TO", "WHY"], &rows, "");
    }
}

fn candidates(document: &ExplainDocument, page: &mut Page) {
    if document.candidates.is_empty() {
        return;
    }
    let rows: Vec<_> = document
        .candidates
        .iter()
        .map(|candidate| {
            let (word, tone) =
                if candidate.usable { ("yes", Tone::Good) } else { ("no", Tone::Bad) };
            vec![
                Cell::or(candidate.link.as_ref(), "any"),
                Cell::new(candidate.bid),
                Cell::toned(word, tone),
                Cell::new(&candidate.why),
            ]
        })
        .collect();
    page.table(&["CANDIDATE", "BID", "USABLE", "WHY"], &rows, "");
}

fn passed(document: &ExplainDocument, page: &mut Page) {
    if !document.passed.is_empty() {
        let rows: Vec<_> = document
            .passed
            .iter()
            .map(|passed| vec![Cell::new(&passed.rule), Cell::new(&passed.why)])
            .collect();
        page.table(&["EARLIER RULE", "WHY NOT"], &rows, "");
    }
    if document.passed_over > 0 {
        page.line("");
        page.hanging(
            "",
            &format!("{} earlier rules are about other packets", document.passed_over),
        );
    }
}

fn verdict(verdict: &ExplainVerdict) -> Cell {
    match verdict {
        ExplainVerdict::Forward {
            bid,
            link,
            care_of,
            peer,
            encapsulation,
            next_hop,
            otherwise,
        } => {
            let mut text = match (link, bid) {
                (Some(link), Some(bid)) => format!("by {link} (BID {bid})"),
                (Some(link), None) => format!("by {link}"),
                (None, Some(bid)) => format!("by BID {bid}"),
                (None, None) => "by the binding without BID".to_owned(),
            };
            text.push_str(&format!(", {encapsulation}"));
            if let Some(care_of) = care_of {
                text.push_str(&format!(", care-of address {care_of}"));
            }
            if let Some(peer) = peer {
                text.push_str(&format!(", to {peer}"));
            }
            if let Some(next_hop) = next_hop {
                text.push_str(&format!(", next hop {next_hop}"));
            }
            Cell::toned(text + by_otherwise(*otherwise), Tone::Good)
        }
        ExplainVerdict::Copies { links, otherwise, .. } => {
            let links: Vec<_> = links.iter().map(ToString::to_string).collect();
            let text = format!("a copy by each of {}", links.join(" and "));
            Cell::toned(text + by_otherwise(*otherwise), Tone::Good)
        }
        ExplainVerdict::Breakout { link, translate, next_hop, otherwise, .. } => {
            let mut text = format!("outside the tunnel, by {link}");
            if *translate {
                text.push_str(", with an address of that link");
            }
            if let Some(next_hop) = next_hop {
                text.push_str(&format!(", next hop {next_hop}"));
            }
            Cell::toned(text + by_otherwise(*otherwise), Tone::Good)
        }
        ExplainVerdict::Block { reply } => {
            let told = match reply {
                BlockReply::Silent => "the sender is not told",
                BlockReply::Icmp => "the sender gets an ICMPv6 error",
                BlockReply::Reset => "the sender gets a TCP reset",
            };
            Cell::toned(format!("refused by the rule; {told}"), Tone::Bad)
        }
        ExplainVerdict::NoUsableBinding => {
            Cell::toned("refused: no usable binding; it never leaves the tunnel", Tone::Bad)
        }
        ExplainVerdict::NotOurs => Cell::new("not ours: it does not belong into the tunnel"),
    }
}

/// The way of a verdict in a few words.
pub(super) fn way(verdict: &ExplainVerdict) -> String {
    match verdict {
        ExplainVerdict::Forward { link: Some(link), bid: Some(bid), .. } => {
            format!("by {link} (BID {bid})")
        }
        ExplainVerdict::Forward { link: Some(link), .. } => format!("by {link}"),
        ExplainVerdict::Forward { bid: Some(bid), .. } => format!("by BID {bid}"),
        ExplainVerdict::Forward { .. } => "by the binding without BID".to_owned(),
        ExplainVerdict::Copies { links, bids, .. } => {
            let links: Vec<_> = links.iter().map(ToString::to_string).collect();
            let bids = bids.iter().map(|bid| format!("BID {bid}"));
            let by = if links.is_empty() { bids.collect() } else { links };
            format!("a copy by each of {}", by.join(" and "))
        }
        ExplainVerdict::Breakout { link, .. } => format!("outside the tunnel, by {link}"),
        ExplainVerdict::Block { .. } => "refused".to_owned(),
        ExplainVerdict::NoUsableBinding => "refused: no usable binding".to_owned(),
        ExplainVerdict::NotOurs => "not ours".to_owned(),
    }
}

fn by_otherwise(otherwise: bool) -> &'static str {
    if otherwise { " (the rule's otherwise)" } else { "" }
}
