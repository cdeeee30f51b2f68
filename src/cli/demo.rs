//! `mtun demo`: the lab, for people.

use clap::Args;

use super::Answer;
use super::screen::Screen;
use crate::control::{ControlError, ErrorCode};

/// What to do with the demo's world.
#[derive(Debug, Args)]
pub(super) struct Command {
    /// Leave the namespaces when done, to play in
    #[arg(long)]
    keep: bool,
    /// Remove what an earlier run left
    #[arg(long, conflicts_with = "keep")]
    stop: bool,
}

pub(super) fn run(
    _command: &Command,
    _screen: Screen,
    _json: bool,
) -> Result<Answer, ControlError> {
    Err(ControlError::new(ErrorCode::Refused, "this build has no demo"))
}
