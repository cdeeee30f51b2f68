//! `mtun flows [filter]`.

use clap::Args;

use super::Answer;
use super::daemon::{Daemon, unexpected};
use super::duration::bytes;
use super::screen::{Cell, Page, Screen};
use crate::control::{ControlError, Request, Response};

/// The flows of `mtun flows`.
#[derive(Debug, Args)]
pub(super) struct Command {
    /// Only these, such as 'dport 22 and via wwan0' or 'proto udp and rule voice'
    filter: Vec<String>,
    /// At most so many, those with the most bytes; 0 for all
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    limit: usize,
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    screen: Screen,
) -> Result<Answer, ControlError> {
    let filter = (!command.filter.is_empty()).then(|| command.filter.join(" "));
    let limit = (command.limit > 0).then_some(command.limit);
    let response = daemon.ask(Request::Flows { filter, limit })?;
    let Response::Flows(document) = &response else { return Err(unexpected()) };
    let heads = [
        "FLOW",
        "FROM",
        "TO",
        "RULE",
        "OUT BY",
        "AGENT SENDS BY",
        "IN BY",
        "BYTES OUT",
        "BYTES IN",
        "IDLE",
    ];
    let rows: Vec<_> = document
        .flows
        .iter()
        .map(|flow| {
            vec![
                Cell::new(flow.key.protocol_name()),
                Cell::new(flow.key.source_text()),
                Cell::new(flow.key.destination_text()),
                Cell::or(flow.rule.as_ref(), "no rule"),
                Cell::or(flow.outbound.as_ref(), "not yet"),
                Cell::or(flow.downlink.as_ref(), "not known"),
                Cell::or(flow.inbound.as_ref(), "not yet"),
                Cell::new(bytes(flow.bytes_out)),
                Cell::new(bytes(flow.bytes_in)),
                Cell::new(format!("{:.1} s", flow.idle_seconds)),
            ]
        })
        .collect();
    let empty = if document.filter.is_some() { "no such flows" } else { "no flows" };
    let mut page = Page::new(screen);
    page.table(&heads, &rows, empty);
    if document.matched > document.flows.len() {
        let (listed, matched) = (document.flows.len(), document.matched);
        page.line("");
        page.line(&format!("{listed} of {matched} flows; --limit 0 lists all"));
    }
    Ok(Answer::new(&response, page))
}
