//! `mtun top`: links, rules and the flows that carry most, live in a terminal.
//!
//! It asks the daemon once a second like everybody else, draws whole frames and keeps nothing but
//! the last answer, from which rates are told. `view` makes the text and is pure; `terminal` owns
//! the screen and gives it back whatever happens.

mod keys;
mod rates;
mod terminal;
mod view;

use std::time::{Duration, Instant};

use clap::Args;

use self::keys::{Action, Key};
use self::rates::Rates;
use self::terminal::Terminal;
use self::view::View;
use super::Exit;
use super::daemon::{Daemon, unexpected};
use super::duration;
use super::screen::Screen;
use crate::control::documents::{FlowsDocument, RuleDocument, StatusDocument};
use crate::control::{Client, ControlError, ErrorCode, Request, Response};

/// Flows that are asked for: more than a terminal has lines.
const FLOWS: usize = 500;

/// What to watch.
#[derive(Debug, Args)]
pub(super) struct Command {
    /// Flows to begin with, such as 'dport 22 and via wwan0'; `/` changes it
    filter: Vec<String>,
    /// How often the daemon is asked
    #[arg(long, value_parser = duration::parse, default_value = "1s", value_name = "TIME")]
    every: Duration,
}

/// One answer of the daemon.
struct Figures {
    status: StatusDocument,
    rules: Vec<RuleDocument>,
    flows: FlowsDocument,
    rates: Rates,
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    screen: Screen,
    json: bool,
) -> Result<Exit, ControlError> {
    if json {
        let error = ControlError::new(ErrorCode::Usage, "top is for eyes and has no document");
        return Err(error.help("`mtun flows --json` and `mtun status --json` have what it shows"));
    }
    // Who has no daemon is told before the screen changes.
    let mut connection = Some(daemon.connect()?);
    let mut terminal = Terminal::open().map_err(|error| {
        ControlError::new(ErrorCode::Usage, format!("top needs a terminal: {error}"))
            .help("`mtun status` and `mtun flows` print the same once")
    })?;
    let filter = command.filter.join(" ");
    let mut view = View::new(filter, screen.is_colored());
    let mut figures: Option<Figures> = None;
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next && !view.is_paused() {
            next = Instant::now() + command.every;
            match ask(&mut connection, daemon, view.filter(), figures.as_ref()) {
                Ok(answer) => {
                    figures = Some(answer);
                    view.trouble = None;
                }
                Err(error) => {
                    if error.code == ErrorCode::NoDaemon {
                        connection = None;
                    }
                    view.trouble = Some(error.message);
                }
            }
        }
        let size = terminal.size();
        let frame = view.frame(figures.as_ref(), size);
        if terminal.show(&frame).is_err() {
            return Ok(Exit::Ok);
        }
        let wait = match view.is_paused() {
            true => Duration::from_millis(500),
            false => next.saturating_duration_since(Instant::now()),
        };
        // The size is looked at four times a second, so that a window that is drawn wider fills.
        let pressed = match terminal.key(wait.min(Duration::from_millis(250))) {
            Ok(pressed) => pressed,
            Err(_) => return Ok(Exit::Ok),
        };
        match pressed.map_or(Action::Nothing, |key| view.press(key)) {
            Action::Nothing => {}
            Action::Ask => next = Instant::now(),
            Action::Quit => return Ok(Exit::Ok),
        }
        if pressed == Some(Key::End) {
            return Ok(Exit::Ok);
        }
    }
}

/// Asks everything that a frame shows.
fn ask(
    connection: &mut Option<Client>,
    daemon: &Daemon,
    filter: Option<&str>,
    last: Option<&Figures>,
) -> Result<Figures, ControlError> {
    let client = match connection {
        Some(client) => client,
        None => connection.insert(daemon.connect()?),
    };
    let answer = (|| {
        let mut ask = |request| client.ask(request).map_err(ControlError::from);
        let Response::Status(status) = ask(Request::Overview {})? else { return Err(unexpected()) };
        let Response::Policy(policy) = ask(Request::PolicyRules {})? else {
            return Err(unexpected());
        };
        let Response::Metrics(metrics) = ask(Request::Metrics {})? else {
            return Err(unexpected());
        };
        let filter = filter.map(str::to_owned);
        let request = Request::Flows { filter, limit: Some(FLOWS) };
        let Response::Flows(flows) = ask(request)? else { return Err(unexpected()) };
        let rates = Rates::new(Instant::now(), &metrics, &flows, last.map(|last| &last.rates));
        Ok(Figures { status, rules: policy.rules, flows, rates })
    })();
    if answer.as_ref().is_err_and(|error: &ControlError| error.code == ErrorCode::Internal) {
        // What was under way on this connection is not to be taken for the next answer.
        *connection = None;
    }
    answer
}
