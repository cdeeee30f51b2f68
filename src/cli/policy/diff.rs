//! `mtun policy diff`: what a policy would change.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use mtun_policy::{Home, LiveFlow, Origin, Policy, Way, diff_offline};

use super::super::Answer;
use super::super::daemon::{Daemon, unexpected};
use super::super::duration::bytes;
use super::super::screen::{Cell, Page, Tone};
use super::{load, source};
use crate::control::documents::{FlowDocument, FlowsDocument, PolicyDiffDocument, RuleReference};
use crate::control::protocol::{ReplyLine, VERSION};
use crate::control::{ControlError, ErrorCode, Request, Response};

/// Largest state file, in octets: a full flow table has about half of it.
const LARGEST_STATE: u64 = 256 << 20;

/// The policy, and what it is compared with.
#[derive(Debug, Args)]
#[command(after_help = "Without --from the daemon judges the flows that it has at this moment.\n\
    Offline: mtun flows --limit 0 --json > flows.json; \
    mtun policy diff new.kdl --from old.kdl --state flows.json")]
pub(in crate::cli) struct Command {
    /// The policy file that would be applied
    file: PathBuf,
    /// Compare with this policy file instead of asking the daemon
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The flows, as `mtun flows --limit 0 --json` printed them; `-` for standard input
    #[arg(long, value_name = "FILE", requires = "from")]
    state: Option<PathBuf>,
    /// Suppose this, such as wwan0=down; may be repeated
    #[arg(long, value_name = "SUPPOSITION", value_delimiter = ',', requires = "from")]
    given: Vec<String>,
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    mut page: Page,
) -> Result<Answer, ControlError> {
    let response = match &command.from {
        Some(from) => Response::PolicyDiff(offline(command, from)?),
        None => daemon.ask(Request::PolicyDiff { source: source(&command.file)? })?,
    };
    let Response::PolicyDiff(document) = &response else { return Err(unexpected()) };
    describe(document, &mut page);
    Ok(Answer::new(&response, page))
}

/// Compares two files; of the flows in the state file those that belong to homes of both.
fn offline(command: &Command, from: &Path) -> Result<PolicyDiffDocument, ControlError> {
    let (present, other) = (load(from)?, load(&command.file)?);
    let given = mtun_policy::parse_given(&command.given.join(" "), &other)?;
    let flows = match &command.state {
        Some(state) => flows(state)?.flows,
        None => Vec::new(),
    };
    let mut document = PolicyDiffDocument::new(&present, &other);
    for home in &other.homes {
        let Some(before) = present.home(home.name.as_str()) else { continue };
        let own = flows.iter().filter(|flow| flow.home == home.name);
        let own = own.map(|flow| live(flow, before, &present));
        let diff = diff_offline((&present, before), (&other, home), &given, own);
        document.add_flows(&home.name, diff, &present, &other);
    }
    Ok(document)
}

fn live(flow: &FlowDocument, home: &Home, policy: &Policy) -> LiveFlow {
    let key = flow.key.key(&policy.ingresses);
    let origin = if home.owns(key.source) { Origin::Home } else { Origin::Also };
    let rule = flow.rule.as_ref().and_then(|name| {
        let rule = home.rules.rules.iter().find(|rule| rule.name() == name)?;
        Some(rule.id())
    });
    let way = flow.outbound.as_ref().and_then(|path| {
        let bid = path.bid?;
        Some(if path.breakout { Way::Breakout(bid) } else { Way::Tunnel(bid) })
    });
    LiveFlow { key, origin, rule, way, bytes_per_second: flow.bytes_per_second }
}

/// The flows that another command has printed.
fn flows(file: &Path) -> Result<FlowsDocument, ControlError> {
    let wrong = |error: String| {
        let message = format!("{} holds no flows: {error}", file.display());
        ControlError::new(ErrorCode::Usage, message)
            .help("`mtun flows --limit 0 --json` prints what is needed")
    };
    let mut text = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(LARGEST_STATE + 1).read_to_end(&mut text)
    } else {
        let file = std::fs::File::open(file).map_err(|error| wrong(error.to_string()))?;
        file.take(LARGEST_STATE + 1).read_to_end(&mut text)
    };
    read.map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > LARGEST_STATE {
        return Err(wrong(format!("it has more than {LARGEST_STATE} octets")));
    }
    let reply: ReplyLine =
        serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    match (reply.version, reply.result) {
        (VERSION, Some(Response::Flows(flows))) => Ok(flows),
        (VERSION, _) => Err(wrong("it is the answer to another question".to_owned())),
        (other, _) => Err(wrong(format!("it has version {other}, not {VERSION}"))),
    }
}

fn describe(document: &PolicyDiffDocument, page: &mut Page) {
    let PolicyDiffDocument { added, changed, removed, kept, .. } = document;
    page.facts(&[
        ("present", Cell::new(&document.from)),
        ("other", Cell::new(&document.to)),
        (
            "rules",
            Cell::new(format!(
                "{} added, {} changed, {} removed, {kept} the same",
                added.len(),
                changed.len(),
                removed.len()
            )),
        ),
    ]);
    let of = |what: &'static str, tone, rules: &[RuleReference]| -> Vec<Vec<Cell>> {
        rules.iter().map(|rule| vec![Cell::toned(what, tone), Cell::new(rule)]).collect()
    };
    let rules = [
        of("added", Tone::Good, added),
        of("changed", Tone::Warning, changed),
        of("removed", Tone::Bad, removed),
    ]
    .concat();
    if !rules.is_empty() {
        page.table(&["CHANGE", "RULE"], &rules, "");
    }
    mobiles(document, page);
    let rows: Vec<_> = document
        .moves
        .iter()
        .map(|moved| {
            let rule = |rule: &Option<_>| Cell::or(rule.as_ref(), "no rule");
            vec![
                Cell::new(moved.flows),
                Cell::or(moved.bytes_per_second.map(rate), "not known"),
                Cell::new(&moved.from),
                Cell::new(&moved.to),
                rule(&moved.rule_before),
                rule(&moved.rule),
                Cell::new(&moved.example),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let heads = ["FLOWS", "RATE", "FROM", "TO", "RULE BEFORE", "RULE", "SUCH AS"];
        page.table(&heads, &rows, "");
    }
    page.line("");
    page.facts(&[("summary", Cell::new(summary(document)))]);
}

/// What would become of the mobiles of a home agent.
fn mobiles(document: &PolicyDiffDocument, page: &mut Page) {
    let of = |what: &'static str, tone, mobiles: &[mtun_policy::HomeAddress]| -> Vec<Vec<Cell>> {
        mobiles.iter().map(|it| vec![Cell::toned(what, tone), Cell::new(it)]).collect()
    };
    let rows = [
        of("added", Tone::Good, &document.mobiles_added),
        of("changed", Tone::Warning, &document.mobiles_changed),
        of("removed", Tone::Bad, &document.mobiles_removed),
    ]
    .concat();
    if !rows.is_empty() {
        page.table(&["CHANGE", "MOBILE"], &rows, "");
    }
    if document.beside_the_file > 0 {
        let count = document.beside_the_file;
        page.hanging(
            "",
            &format!(
                "{count} mobiles and refusals come from `mtun agent` and stay, whatever the file says"
            ),
        );
    }
}

fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

fn summary(document: &PolicyDiffDocument) -> String {
    let PolicyDiffDocument { flows, moving, other_rule, .. } = document;
    let mut text = match (*flows, *moving) {
        (0, _) => "no flows to judge".to_owned(),
        (flows, 0) => format!("none of {flows} flows would move"),
        (flows, moving) => format!("{moving} of {flows} flows would move"),
    };
    if let Some(bytes) = document.moving_bytes_per_second.filter(|_| *moving > 0) {
        text.push_str(&format!(", {}", rate(bytes)));
    }
    if *other_rule > 0 {
        text.push_str(&format!("; {other_rule} would stay on their way by another rule"));
    }
    text
}
