//! `mtun monitor`: one line per event.

use std::io::{ErrorKind, Write};

use super::Exit;
use super::daemon::Daemon;
use super::duration::moment;
use super::screen::{Page, Screen, Tone};
use crate::control::documents::{Event, EventDocument, Severity};
use crate::control::{ControlError, ErrorCode};

/// Prints events until the reader or the daemon leaves.
pub(super) fn run(daemon: &Daemon, screen: Screen, json: bool) -> Result<Exit, ControlError> {
    for event in daemon.monitor()? {
        let event = event?;
        let line = if json {
            let line = serde_json::to_string(&event).expect("documents have text keys only");
            format!("{line}\n")
        } else {
            line(&event, screen)
        };
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Ok),
            Err(error) => {
                let message = format!("cannot write to standard output: {error}");
                return Err(ControlError::new(ErrorCode::Refused, message));
            }
        }
    }
    Err(ControlError::new(ErrorCode::NoDaemon, "the daemon has stopped")
        .help("its log says why; `mtun monitor` again once it runs"))
}

fn line(document: &EventDocument, screen: Screen) -> String {
    let tone = match &document.event {
        Event::LinkUp { .. }
        | Event::Bound { .. }
        | Event::AtHome { .. }
        | Event::RouteOptimized { .. }
        | Event::PolicyConfirmed { .. } => Tone::Good,
        Event::LinkDown { .. } | Event::Unbound { .. } | Event::PolicyRefused { .. } => Tone::Bad,
        Event::Notice { severity: Severity::Warning, .. }
        | Event::Lost { .. }
        | Event::PolicyOnTrial { .. }
        | Event::Quota { .. }
        | Event::CapReached { .. }
        | Event::RouteTunnelled { .. }
        | Event::FlowBindings { refused: 1.., .. }
        | Event::PolicyTakenBack { .. } => Tone::Warning,
        Event::LinkState { .. }
        | Event::LeftHome { .. }
        | Event::FlowBindings { refused: 0, .. }
        | Event::MobileChanged { .. }
        | Event::CorrespondentChanged { .. }
        | Event::Published { .. }
        | Event::Steered { .. }
        | Event::SteerEnded { .. }
        | Event::PolicyApplied { .. }
        | Event::Notice { severity: Severity::Info, .. } => Tone::Plain,
    };
    let mut page = Page::new(screen);
    page.stamped(&moment(document.time_ms), tone, &document.event.to_string());
    page.into_text()
}
