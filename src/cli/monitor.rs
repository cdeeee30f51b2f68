//! `mtun monitor`: one line per event, and per message of the mobility socket if asked for.

use std::io::{ErrorKind, Write};
use std::net::Ipv6Addr;

use clap::Args;
use ipnet::Ipv6Net;
use mtun_policy::{Bid, HomeName, InterfaceName, Role};
use mtun_signaling::mobility_socket::{Filter, MdCommand, MobilityKind, MobilityMessage};
use serde::Serialize;

use super::Exit;
use super::daemon::Daemon;
use super::duration::moment;
use super::screen::{Page, Screen, Tone};
use crate::control::documents::{
    Event, EventDocument, Severity, SubscriptionBody, SubscriptionLine,
};
use crate::control::{ControlError, ErrorCode, Heard};

/// What to watch; all of it if nothing is named. Options of the same name add up.
#[derive(Debug, Args)]
pub(super) struct Command {
    /// Messages of the mobility socket instead of events: `all`, or names such as BC_ADD
    #[arg(long, value_name = "MESSAGE", value_parser = messages)]
    message: Vec<Messages>,
    /// Events too, beside messages
    #[arg(long, requires = "message")]
    events: bool,
    /// Only what concerns this role: mobile-node, mobile-router, home-agent or correspondent
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Vec<Role>,
    /// Only what concerns this home
    #[arg(long, value_name = "NAME")]
    home: Vec<String>,
    /// Only what concerns this link
    #[arg(long, value_name = "LINK")]
    link: Vec<String>,
    /// Only what concerns this binding
    #[arg(long, value_name = "BID", value_parser = bid)]
    bid: Vec<Bid>,
    /// Only what concerns this home address, or those in this prefix
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    address: Vec<Ipv6Net>,
}

/// One kind, or all.
#[derive(Clone, Copy, Debug)]
enum Messages {
    All,
    One(MobilityKind),
}

fn messages(text: &str) -> Result<Messages, String> {
    match text {
        "all" => Ok(Messages::All),
        name => name.parse().map(Messages::One).map_err(|error| format!("{error}")),
    }
}

fn role(text: &str) -> Result<Role, String> {
    let roles = [Role::MobileNode, Role::MobileRouter, Role::HomeAgent, Role::Correspondent];
    let known = roles.into_iter().find(|role| role.to_string() == text);
    known.ok_or_else(|| {
        "the roles are mobile-node, mobile-router, home-agent and correspondent".to_owned()
    })
}

fn bid(text: &str) -> Result<Bid, String> {
    let number = text.parse().ok().and_then(Bid::new);
    number.ok_or_else(|| "a BID is a number from 1 to 65535".to_owned())
}

fn address(text: &str) -> Result<Ipv6Net, String> {
    let host = || text.parse::<Ipv6Addr>().ok().map(Ipv6Net::from);
    match text.parse::<Ipv6Net>().ok().or_else(host) {
        Some(net) => Ok(net.trunc()),
        None => Err("write an IPv6 address or prefix, such as 2001:db8:100::42".to_owned()),
    }
}

impl Command {
    fn filter(&self) -> Filter {
        let one = |it: &Messages| match it {
            Messages::All => None,
            Messages::One(kind) => Some(*kind),
        };
        let all = self.message.iter().any(|it| one(it).is_none());
        let messages = match all {
            true => Vec::new(),
            false => self.message.iter().filter_map(one).collect(),
        };
        Filter {
            messages,
            roles: self.role.clone(),
            homes: self.home.iter().map(|it| HomeName::from(it.as_str())).collect(),
            links: self.link.iter().map(|it| InterfaceName::from(it.as_str())).collect(),
            bids: self.bid.clone(),
            addresses: self.address.clone(),
        }
    }
}

/// Prints what is heard until the reader or the daemon leaves.
pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    screen: Screen,
    json: bool,
) -> Result<Exit, ControlError> {
    let messages = !command.message.is_empty();
    for heard in daemon.subscribe(command.filter(), messages, command.events || !messages)? {
        let line = match told(heard?, messages) {
            Heard::Event(event) if json => text(&event),
            Heard::Line(line) if json => text(&line),
            Heard::Unknown(value) if json => text(&value),
            Heard::Event(event) => event_line(&event, screen),
            Heard::Line(line) => message_line(&line, screen),
            Heard::Unknown(_) => continue,
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

/// What was heard; where there are events alone, events lost are one of them.
fn told(heard: Heard, messages: bool) -> Heard {
    match heard {
        Heard::Line(SubscriptionLine { body: SubscriptionBody::Overflow { lost }, .. })
            if !messages =>
        {
            Heard::Event(Event::Lost { count: lost }.into())
        }
        other => other,
    }
}

fn text(document: &impl Serialize) -> String {
    let line = serde_json::to_string(document).expect("documents have text keys only");
    format!("{line}\n")
}

fn message_line(line: &SubscriptionLine, screen: Screen) -> String {
    let (tone, what) = match &line.body {
        SubscriptionBody::State(message) => (Tone::Plain, format!("is: {message}")),
        SubscriptionBody::Message(message) => (message_tone(message), message.to_string()),
        SubscriptionBody::Present { facts } => {
            (Tone::Plain, format!("{facts} facts stand; what follows happens from here on"))
        }
        SubscriptionBody::Overflow { lost } => {
            (Tone::Warning, format!("{lost} messages lost: this reader was too slow; all again:"))
        }
    };
    let mut page = Page::new(screen);
    page.stamped(&moment(line.time_ms), tone, &what);
    page.into_text()
}

fn message_tone(message: &MobilityMessage) -> Tone {
    match message {
        MobilityMessage::BcAdd(_) | MobilityMessage::BulAdd(_) => Tone::Good,
        MobilityMessage::MdInfo(it) if it.command == MdCommand::DeregForeign => Tone::Bad,
        MobilityMessage::MdInfo(_) => Tone::Good,
        MobilityMessage::BcRemove(_)
        | MobilityMessage::BcFlush(_)
        | MobilityMessage::BulRemove(_)
        | MobilityMessage::BulFlush(_) => Tone::Bad,
        MobilityMessage::BeHint(_) => Tone::Warning,
        MobilityMessage::NodetypeInfo(_)
        | MobilityMessage::HomeHint(_)
        | MobilityMessage::RrHint(_)
        | MobilityMessage::Dad(_) => Tone::Plain,
    }
}

fn event_line(document: &EventDocument, screen: Screen) -> String {
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
        | Event::Radio { .. }
        | Event::PathMtu { .. }
        | Event::LeftHome { .. }
        | Event::FlowBindings { refused: 0, .. }
        | Event::MobileChanged { .. }
        | Event::CorrespondentChanged { .. }
        | Event::Published { .. }
        | Event::LinkAdministered { .. }
        | Event::Steered { .. }
        | Event::SteerEnded { .. }
        | Event::PolicyApplied { .. }
        | Event::Notice { severity: Severity::Info, .. } => Tone::Plain,
    };
    let mut page = Page::new(screen);
    page.stamped(&moment(document.time_ms), tone, &document.event.to_string());
    page.into_text()
}
