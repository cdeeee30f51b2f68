//! The way down, as `mtun bindings`, `mtun status`, `mtun explain` and `mtun policy check` show it.

use super::explain;
use super::screen::{Cell, Page, Tone};
use crate::control::documents::{
    AtAgentDocument, DownlinkDocument, FlowBindingDocument, FlowBindingState, HomeDocument,
    MobileDocument, RuleDownlinkDocument,
};

/// What a mobile's agents were told of its rules; nothing where there is nothing.
pub(super) fn told(flows: &[FlowBindingDocument], page: &mut Page) {
    if flows.is_empty() {
        return;
    }
    let heads =
        ["HOME", "FID", "FID-PRI", "PACKETS TO THE MOBILE", "BY", "RULE", "STATE", "STATUS"];
    let row = |flow: &FlowBindingDocument| {
        let mut row = vec![Cell::new(&flow.home)];
        row.extend(entry(flow));
        row.push(Cell::or(flow.rule.as_ref(), "none"));
        row.push(state(flow));
        row.push(Cell::or(flow.status.as_ref(), "no answer yet"));
        row
    };
    page.table(&heads, &flows.iter().map(row).collect::<Vec<_>>(), "none");
}

/// What mobiles told their agent of their rules; nothing where none did.
pub(super) fn of_mobiles(mobiles: &[MobileDocument], page: &mut Page) {
    let heads = ["HOME", "MOBILE", "FID", "FID-PRI", "PACKETS TO THE MOBILE", "BY", "STATE"];
    let mut rows = Vec::new();
    for mobile in mobiles {
        let name = match &mobile.name {
            Some(name) => format!("{name} {}", mobile.home_address),
            None => mobile.home_address.to_string(),
        };
        rows.extend(mobile.flow_bindings.iter().map(|flow| {
            let mut row = vec![Cell::new(&mobile.home), Cell::new(&name)];
            row.extend(entry(flow));
            row.push(state(flow));
            row
        }));
    }
    if !rows.is_empty() {
        page.table(&heads, &rows, "none");
    }
}

/// What the agent of each home holds.
pub(super) fn homes(homes: &[HomeDocument], page: &mut Page) {
    let heads = ["HOME", "WAY DOWN"];
    let row = |(home, downlink): (_, &DownlinkDocument)| {
        let tone = if downlink.refused > 0 { Tone::Warning } else { Tone::Plain };
        vec![Cell::new(home), Cell::toned(summary(downlink), tone)]
    };
    let known = homes.iter().filter_map(|it| Some((&it.name, it.downlink.as_ref()?)));
    let rows: Vec<_> = known.map(row).collect();
    if !rows.is_empty() {
        page.table(&heads, &rows, "none");
    }
}

fn summary(downlink: &DownlinkDocument) -> String {
    let DownlinkDocument { held, pending, refused, .. } = downlink;
    let mut words = vec![format!("the agent holds {held} flow bindings")];
    if *held == 0 {
        words = vec![downlink.taken.to_string()];
    }
    if *pending > 0 {
        words.push(format!("{pending} wait for its answer"));
    }
    if *refused > 0 {
        words.push(format!("{refused} refused"));
    }
    if downlink.reflect {
        words.push("it follows the way up".to_owned());
    }
    if downlink.copies {
        words.push("copies are numbered".to_owned());
    }
    words.join(", ")
}

fn entry(flow: &FlowBindingDocument) -> [Cell; 4] {
    let by: Vec<_> = match flow.links.is_empty() {
        true => flow.bids.iter().map(|bid| format!("BID {bid}")).collect(),
        false => flow.links.iter().map(ToString::to_string).collect(),
    };
    [
        Cell::new(flow.fid),
        Cell::new(flow.priority),
        Cell::new(&flow.packets),
        Cell::new(by.join(" and ")),
    ]
}

fn state(flow: &FlowBindingDocument) -> Cell {
    let tone = match flow.state {
        FlowBindingState::Active => Tone::Good,
        FlowBindingState::Inactive => Tone::Plain,
        FlowBindingState::Pending => Tone::Warning,
        FlowBindingState::Refused => Tone::Bad,
    };
    Cell::toned(flow.state, tone)
}

/// One fact of an explanation: the way down beside the way up.
pub(super) fn fact(at: &AtAgentDocument) -> Cell {
    let entry = at.fid.map_or_else(|| "no flow binding".to_owned(), |fid| format!("FID {fid}"));
    let (tone, same) = match at.as_uplink {
        Some(true) => (Tone::Good, ", as the way up"),
        Some(false) => (Tone::Warning, ", not as the way up"),
        None => (Tone::Plain, ""),
    };
    Cell::toned(format!("{}, {entry}{same}", explain::way(&at.verdict)), tone)
}

/// What the agent holds for a flow and what it chooses.
pub(super) fn at_agent(at: &AtAgentDocument, page: &mut Page) {
    let mut facts = vec![
        ("at agent", Cell::new(format!("{} from {}", at.flow, at.flow.ingress))),
        ("told", Cell::new(at.taken)),
        ("digest", Cell::new(at.digest)),
        ("way down", fact(at)),
    ];
    facts.extend(at.notes.iter().map(|note| ("note", Cell::new(note))));
    page.line("");
    page.facts(&facts);
    let heads =
        ["FID", "FID-PRI", "PACKETS TO THE MOBILE", "BY", "RULE", "STATE", "STATUS", "CHOSEN"];
    let row = |flow: &FlowBindingDocument| {
        let mut row = Vec::from(entry(flow));
        row.push(Cell::or(flow.rule.as_ref(), "none"));
        row.push(state(flow));
        row.push(Cell::or(flow.status.as_ref(), "no answer yet"));
        row.push(match at.fid == Some(flow.fid) {
            true => Cell::toned("yes", Tone::Good),
            false => Cell::new("no"),
        });
        row
    };
    if !at.entries.is_empty() {
        page.table(&heads, &at.entries.iter().map(row).collect::<Vec<_>>(), "none");
    }
}

/// What the agent will do with each rule; nothing where it is told none.
pub(super) fn rules(rules: &[RuleDownlinkDocument], page: &mut Page) {
    if rules.is_empty() {
        return;
    }
    let heads = ["HOME", "RULE", "AGENT IS TOLD", "FLOW BINDINGS", "WHAT THE AGENT DOES", "WHY"];
    let row = |rule: &RuleDownlinkDocument| {
        let tone = match rule.says.as_str() {
            "expressed" | "implied" => Tone::Good,
            _ => Tone::Warning,
        };
        let does = match (rule.says.as_str(), &rule.instead) {
            (_, Some(instead)) => instead.clone(),
            ("implied", None) => "the same without being told".to_owned(),
            (_, None) => "answers take the way of the rule".to_owned(),
        };
        vec![
            Cell::new(&rule.home),
            Cell::new(&rule.rule),
            Cell::toned(&rule.says, tone),
            Cell::new(rule.entries),
            Cell::new(does),
            Cell::or(rule.reason.as_ref(), "all of it is told"),
        ]
    };
    page.table(&heads, &rules.iter().map(row).collect::<Vec<_>>(), "none");
}
