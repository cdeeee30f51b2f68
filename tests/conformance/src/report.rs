//! What is said about the checklist: faults, a report by section, a report by RFC.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::checklist::{Checklist, Level, Row, State};
use crate::tree::{Place, Tree};

/// Every place where table and tree disagree, or the table with itself.
pub fn faults(checklist: &Checklist, tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for row in checklist.rows() {
        let Row { id, place, .. } = row;
        let mut fault = |what: String| faults.push(format!("{place}: {id}: {what}"));
        if let Some(before) = seen.insert(id, place) {
            fault(format!("is at {before} as well"));
        }
        match &row.state {
            State::Met if row.proofs.is_empty() => fault("is met and has no proof".into()),
            State::Refused | State::NeedsEsp | State::NotYet(_) if row.because.is_empty() => {
                fault("is not met and says no reason".into());
            }
            State::As(other) => match checklist.row(other) {
                None => fault(format!("is the same as {other}, which is nowhere")),
                Some(other) if matches!(other.state, State::As(_)) => {
                    fault(format!("leads to {}, which leads on", other.id));
                }
                Some(_) => {}
            },
            _ => {}
        }
        if row.what.is_empty() && !matches!(row.state, State::As(_)) {
            fault("asks for nothing".into());
        }
        for proof in &row.proofs {
            if let Some(objection) = tree.objection(proof, id) {
                fault(objection);
            }
        }
        if row.state == State::Met && tree.places(id, Place::Code).is_empty() {
            fault("is met and no code names it".into());
        }
    }
    for (id, files) in tree.named() {
        if checklist.row(id).is_none() {
            faults.push(format!("{}: {id} is in no table", files[0].display()));
        }
    }
    faults
}

/// What stands behind a state, in the words of a report.
fn name(state: &State) -> &'static str {
    match state {
        State::Met => "met",
        State::Refused => "refused",
        State::NeedsEsp => "needs ESP",
        State::NotYet(_) => "not yet",
        State::Open => "open",
        State::As(_) => "as another",
    }
}

const STATES: [&str; 5] = ["met", "refused", "needs ESP", "not yet", "open"];

fn level(level: Level) -> &'static str {
    match level {
        Level::Must => "MUST",
        Level::Should => "SHOULD",
        Level::Policy => "policy",
    }
}

/// Counts by section, and every row that is not met with its reason; with `all`, every row with
/// its proofs.
pub fn section_report(checklist: &Checklist, all: bool) -> String {
    let mut text = String::new();
    let mut total: BTreeMap<&str, usize> = BTreeMap::new();
    for section in &checklist.sections {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &section.rows {
            *counts.entry(name(&checklist.original(row).state)).or_default() += 1;
        }
        counts.iter().for_each(|(state, count)| *total.entry(state).or_default() += count);
        _ = writeln!(text, "{}\n   {}", section.title, in_words(&counts));
        for row in &section.rows {
            let original = checklist.original(row);
            if all || original.state != State::Met {
                say(&mut text, row, original);
            }
            if all {
                original.proofs.iter().for_each(|it| _ = writeln!(text, "            {it}"));
            }
        }
        text.push('\n');
    }
    _ = writeln!(text, "all sections: {}", in_words(&total));
    text
}

fn in_words(counts: &BTreeMap<&str, usize>) -> String {
    let of = |state: &&str| counts.get(*state).map(|count| format!("{count} {state}"));
    STATES.iter().filter_map(of).collect::<Vec<_>>().join(", ")
}

fn say(text: &mut String, row: &Row, original: &Row) {
    let area = match &original.state {
        State::NotYet(area) => format!(" ({area})"),
        _ => String::new(),
    };
    let state = name(&original.state);
    _ = writeln!(text, "   {:<8} {:<6} {state}{area}: {}", row.id, level(row.level), original.what);
    if !original.because.is_empty() {
        _ = writeln!(text, "            because {}", original.because);
    }
}

/// By RFC: how many requirements are named by the code that meets them and by a proof, and which
/// are excused, with the reason; with `all`, where each is named.
pub fn rfc_report(checklist: &Checklist, tree: &Tree, all: bool) -> String {
    let mut by_rfc: BTreeMap<u32, Vec<&Row>> = BTreeMap::new();
    for row in checklist.rows() {
        let mut numbers: Vec<u32> = row.standards.iter().filter_map(|it| rfc(it)).collect();
        numbers.dedup();
        for number in numbers {
            by_rfc.entry(number).or_default().push(row);
        }
    }
    let mut text = String::new();
    for (number, rows) in by_rfc {
        let mut excused: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        let (mut met, mut tested, mut open) = (0, 0, Vec::new());
        let mut lines = String::new();
        for row in &rows {
            let original = checklist.original(row);
            match &original.state {
                State::Met => {
                    let code =
                        [tree.places(&row.id, Place::Code), tree.places(&original.id, Place::Code)];
                    met += usize::from(!code.concat().is_empty());
                    tested += usize::from(!original.proofs.is_empty());
                    for file in tree.places(&original.id, Place::Code) {
                        _ = writeln!(lines, "   {:<8} {}", row.id, file.display());
                    }
                }
                State::Open => open.push(row.id.as_str()),
                state => {
                    let reason = (name(state), original.because.as_str());
                    excused.entry(reason).or_default().push(&row.id);
                }
            }
        }
        let count: usize = excused.values().map(Vec::len).sum();
        _ = writeln!(
            text,
            "RFC {number}: {} requirements, {met} met, {tested} tested, {count} excused, {} open",
            rows.len(),
            open.len()
        );
        for ((state, because), ids) in excused {
            _ = writeln!(text, "   {state}: {}: {because}", ids.join(" "));
        }
        if !open.is_empty() {
            _ = writeln!(text, "   open: {}", open.join(" "));
        }
        if all {
            text += &lines;
        }
    }
    text
}

/// The number in `RFC 6275 §9.2`.
fn rfc(standard: &str) -> Option<u32> {
    standard.strip_prefix("RFC ")?.split(' ').next()?.parse().ok()
}
