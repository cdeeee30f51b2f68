//! `mtun demo`: the lab, for people.

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::Answer;
use super::screen::{Page, Screen};
use crate::control::{ControlError, ErrorCode};
use crate::lab::demo::{self, Options};
use crate::lab::report::Report;

/// What to do with the demo's world.
#[derive(Debug, Args)]
pub(super) struct Command {
    /// Leave the namespaces when done, to play in
    #[arg(long)]
    keep: bool,
    /// Remove what an earlier run left
    #[arg(long, conflicts_with = "keep")]
    stop: bool,
    /// Print every command that is run
    #[arg(long, short, conflicts_with = "stop")]
    verbose: bool,
    /// What a kept world's own process is started with.
    #[arg(long, hide = true, conflicts_with_all = ["keep", "stop"], value_name = "TASK")]
    hold: Option<String>,
}

/// What the demo found, or took away.
#[derive(Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum DemoDocument {
    /// What it found.
    Demo(Report),
    /// What `--stop` took away.
    DemoStopped {
        /// Names of namespaces and links.
        removed: Vec<String>,
    },
}

pub(super) fn run(command: &Command, screen: Screen, json: bool) -> Result<Answer, ControlError> {
    let failed = |error: anyhow::Error| {
        ControlError::new(ErrorCode::Refused, format!("{error:#}"))
            .help("the demo needs root, network namespaces and the programs ip and nft")
    };
    let mut page = Page::new(screen);
    if let Some(task) = &command.hold {
        crate::lab::keeper::hold(task).map_err(failed)?;
    }
    if command.stop {
        let removed = demo::stop().map_err(failed)?;
        match removed.as_slice() {
            [] => page.line("nothing was left to remove"),
            names => names.iter().for_each(|name| page.line(&format!("removed {name}"))),
        }
        return Ok(Answer::new(&DemoDocument::DemoStopped { removed }, page));
    }
    let options = Options {
        keep: command.keep,
        verbose: command.verbose,
        keeper: ["demo", "--hold"].map(str::to_owned).to_vec(),
    };
    let mut say = |text: &str| {
        // With --json standard output is for the one document.
        if json {
            eprintln!("{text}");
        } else {
            super::print(&format!("{text}\n"));
        }
    };
    let report = demo::run(&options, &mut say).map_err(failed)?;
    for line in report.to_string().lines() {
        page.line(line);
    }
    let error = (!report.ok).then(|| {
        let reasons = report.reasons.join("; ");
        ControlError::new(
            ErrorCode::Degraded,
            format!("not everything was as it must be: {reasons}"),
        )
    });
    let answer = Answer::new(&DemoDocument::Demo(report), page);
    Ok(match error {
        Some(error) => answer.failed(error),
        None => answer,
    })
}
