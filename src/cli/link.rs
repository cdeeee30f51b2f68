//! `mtun link drain|hold|release LINK`: what an operator wants of a link.

use clap::{Args, Subcommand};
use mtun_policy::steering::Admin;

use super::Answer;
use super::daemon::{Daemon, unexpected};
use super::screen::{Page, Screen, Tone};
use crate::control::{ControlError, Request, Response};

/// What is wanted of which link.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Command {
    /// Let a link run empty: no new flows, and those on it leave in their pauses
    Drain(Link),
    /// Do not use a link at all, not even as the last one
    Hold(Link),
    /// Use a link again as the rules say
    Release(Link),
}

/// A link.
#[derive(Clone, Debug, Args)]
pub(super) struct Link {
    /// Its name in the policy file
    link: String,
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    screen: Screen,
) -> Result<Answer, ControlError> {
    let (Link { link }, admin) = match command {
        Command::Drain(link) => (link, Admin::Drained),
        Command::Hold(link) => (link, Admin::Held),
        Command::Release(link) => (link, Admin::Open),
    };
    let response = daemon.ask(Request::Link { link: link.clone(), admin })?;
    let Response::Link(document) = &response else { return Err(unexpected()) };
    let link = &document.link;
    let says = match document.admin {
        Admin::Drained => format!(
            "new flows take other links and those on it leave in their pauses; it stays registered \
             as the last choice until `mtun link release {link}`"
        ),
        Admin::Held => format!("nothing uses it until `mtun link release {link}`"),
        Admin::Open => "the rules decide again".to_owned(),
    };
    let mut page = Page::new(screen);
    let tone = if document.admin == Admin::Open { Tone::Good } else { Tone::Warning };
    page.sentence(tone, &format!("{link} is {}", document.admin), &says);
    Ok(Answer::new(&response, page))
}
