//! `mtun agent list|add|remove|revoke|permit`: the mobiles of a home agent, one by one.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::net::Ipv6Addr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use ipnet::Ipv6Net;
use mtun_policy::{Bid, HomeAddress, HomeName};

use super::Answer;
use super::daemon::{Daemon, unexpected};
use super::duration::seconds;
use super::screen::{Cell, Page, Screen, Tone};
use crate::control::documents::{
    AgentAddition, AgentChange, AgentChangedDocument, AgentMobileDocument, AgentMobileState,
    AgentSecurity,
};
use crate::control::{ControlError, ErrorCode, Request, Response};

/// What to do about the mobiles of a home agent.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Who may register, with what, and what has come of it
    List {
        /// Of this home network only
        #[arg(long, value_name = "NAME")]
        home: Option<String>,
    },
    /// Serve a mobile from now on, without a restart and without touching others
    Add(Add),
    /// Serve a mobile no more that was added; what it has bound ends
    Remove {
        /// Its home address
        home_address: Ipv6Addr,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// End what a mobile has bound and refuse it (status 129) until it is permitted again
    Revoke {
        /// Its home address
        home_address: Ipv6Addr,
        /// This binding only; the others go on
        #[arg(long, value_name = "BID", value_parser = bid)]
        bid: Option<Bid>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Send a mobile to other home agents (RFC 5142); needs `extensions agent-switch=#true`
    Switch {
        /// Its home address
        home_address: Ipv6Addr,
        /// The agents, most preferred first [default: whichever it finds]
        #[arg(long = "to", value_name = "AGENT", value_delimiter = ',')]
        agents: Vec<Ipv6Addr>,
    },
    /// Let a mobile or a binding register again that was revoked
    Permit {
        /// Its home address
        home_address: Ipv6Addr,
        /// This binding only
        #[arg(long, value_name = "BID", value_parser = bid)]
        bid: Option<Bid>,
    },
}

/// A mobile and its grant.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("protection").required(true)
    .args(["key_file", "key_credential", "security", "unprotected"]))]
#[command(after_help = "Example: mtun agent add 2001:db8:100::50 --name tram-3 \
    --mobile-network 2001:db8:100:5000::/64 --spi 0x1005 --key-file /etc/mtun/tram-3.key")]
pub(super) struct Add {
    /// Its home address
    home_address: Ipv6Addr,
    /// The home network [default: the one that has the address]
    #[arg(long, value_name = "NAME")]
    home: Option<String>,
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// A prefix that it may register; may be repeated
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    mobile_network: Vec<Ipv6Net>,
    /// How many bindings it may hold [default: 16]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    bindings: Option<u16>,
    /// The file with its key, on the agent's machine, of mode 0600
    #[arg(long, value_name = "FILE", requires = "spi")]
    key_file: Option<PathBuf>,
    /// The credential of the agent's service with its key
    #[arg(long, value_name = "NAME", requires = "spi")]
    key_credential: Option<String>,
    /// An association that the policy file names
    #[arg(long, value_name = "NAME")]
    security: Option<String>,
    /// No protection at all: for a lab
    #[arg(long)]
    unprotected: bool,
    /// The mobility SPI of its key, at least 256
    #[arg(long, value_name = "NUMBER", value_parser = spi)]
    spi: Option<u32>,
    /// What the key is for: hmac-sha256 or hmac-sha1
    #[arg(long, value_name = "WORD", default_value = "hmac-sha256")]
    algorithm: String,
    /// In place of what was added for the same address; bindings that it may keep go on
    #[arg(long)]
    replace: bool,
}

fn bid(text: &str) -> Result<Bid, String> {
    let number = text.parse().ok().and_then(Bid::new);
    number.ok_or_else(|| "a BID is a number from 1 to 65535".to_owned())
}

fn spi(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    match number {
        Ok(spi) if spi >= 256 => Ok(spi),
        Ok(_) => Err("SPIs below 256 are reserved (RFC 4285 §8)".to_owned()),
        Err(_) => Err("an SPI is a number from 256 to 0xffffffff".to_owned()),
    }
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    screen: Screen,
    json: bool,
) -> Result<Answer, ControlError> {
    let mut page = Page::new(screen);
    let request = match command {
        Command::List { home } => return list(home.as_deref(), daemon, page),
        Command::Add(add) => Request::AgentAdd { mobile: addition(add)? },
        Command::Remove { home_address, yes } => {
            let home_address = HomeAddress(*home_address);
            sure(daemon, home_address, None, *yes || json)?;
            Request::AgentRemove { home_address }
        }
        Command::Revoke { home_address, bid, yes } => {
            let home_address = HomeAddress(*home_address);
            sure(daemon, home_address, *bid, *yes || json)?;
            Request::AgentRevoke { home_address, bid: *bid }
        }
        Command::Switch { home_address, agents } => {
            let home_address = HomeAddress(*home_address);
            let request = Request::AgentSwitch { home_address, agents: agents.clone() };
            let response = daemon.ask(request)?;
            let Response::AgentSwitched(document) = &response else { return Err(unexpected()) };
            let agents: Vec<String> = document.agents.iter().map(ToString::to_string).collect();
            let to = match agents.is_empty() {
                true => "whichever agent it finds".to_owned(),
                false => agents.join(", "),
            };
            let text = format!("is sent to {to}; until it leaves, its bindings are not prolonged");
            page.sentence(Tone::Good, &home_address.to_string(), &text);
            return Ok(Answer::new(&response, page));
        }
        Command::Permit { home_address, bid } => {
            Request::AgentPermit { home_address: HomeAddress(*home_address), bid: *bid }
        }
    };
    let response = daemon.ask(request)?;
    let Response::AgentChanged(document) = &response else { return Err(unexpected()) };
    changed(document, &mut page);
    Ok(Answer::new(&response, page))
}

fn addition(add: &Add) -> Result<AgentAddition, ControlError> {
    let spi = add.spi.unwrap_or_default();
    let algorithm = add.algorithm.clone();
    let security = match (&add.key_file, &add.key_credential, &add.security) {
        (Some(file), ..) => {
            let path = std::path::absolute(file).map_err(|error| {
                let message = format!("{} is no path of a file: {error}", file.display());
                ControlError::new(ErrorCode::Usage, message)
            })?;
            AgentSecurity::KeyFile { spi, algorithm, path }
        }
        (_, Some(name), _) => AgentSecurity::KeyCredential { spi, algorithm, name: name.clone() },
        (_, _, Some(name)) => AgentSecurity::Named { name: name.clone() },
        (None, None, None) => AgentSecurity::Unprotected,
    };
    Ok(AgentAddition {
        home: add.home.as_deref().map(HomeName::new),
        home_address: add.home_address,
        name: add.name.clone(),
        mobile_networks: add.mobile_network.clone(),
        max_bindings: add.bindings,
        security,
        replace: add.replace,
    })
}

/// Asks whether bindings are to end, if there is somebody to ask.
fn sure(
    daemon: &Daemon,
    home_address: HomeAddress,
    bid: Option<Bid>,
    unasked: bool,
) -> Result<(), ControlError> {
    if unasked || !stdin().is_terminal() || !stderr().is_terminal() {
        return Ok(());
    }
    let Response::AgentList(document) = daemon.ask(Request::AgentList {})? else {
        return Err(unexpected());
    };
    let mobile = document.mobiles.iter().find(|it| it.home_address == home_address);
    let ends = |it: &AgentMobileDocument| {
        it.bindings.iter().filter(|binding| bid.is_none() || binding.bid == bid).count()
    };
    let ends = mobile.map_or(0, ends);
    if ends == 0 {
        return Ok(());
    }
    eprint!("{ends} of the bindings of {home_address} end at once. Go on? [y/N] ");
    // Nothing can be done about a standard error that is closed.
    let _ = stderr().flush();
    let mut line = String::new();
    let read = stdin().lock().read_line(&mut line);
    match read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes") {
        true => Ok(()),
        false => Err(ControlError::new(ErrorCode::Refused, "nothing was done")
            .help("--yes does it without a question")),
    }
}

fn list(home: Option<&str>, daemon: &Daemon, mut page: Page) -> Result<Answer, ControlError> {
    let mut response = daemon.ask(Request::AgentList {})?;
    let Response::AgentList(document) = &mut response else { return Err(unexpected()) };
    if let Some(home) = home {
        document.mobiles.retain(|it| it.home.as_str() == home);
    }
    let heads = [
        "MOBILE",
        "NAME",
        "STATE",
        "BINDINGS",
        "NETWORKS",
        "SECURITY",
        "LAST HEARD",
        "UPDATES",
        "ALLOWED BY",
    ];
    let rows: Vec<_> = document.mobiles.iter().map(row).collect();
    page.table(&heads, &rows, "no mobile may register here");
    Ok(Answer::new(&response, page))
}

fn row(mobile: &AgentMobileDocument) -> Vec<Cell> {
    let tone = match mobile.state {
        AgentMobileState::Bound => Tone::Good,
        AgentMobileState::Unbound => Tone::Plain,
        AgentMobileState::Refused => Tone::Warning,
    };
    let mut state = mobile.state.to_string();
    if !mobile.refused_bids.is_empty() {
        let bids: Vec<String> = mobile.refused_bids.iter().map(Bid::to_string).collect();
        state.push_str(&format!(", without BID {}", bids.join(" ")));
    }
    let networks: Vec<String> = mobile.mobile_networks.iter().map(ToString::to_string).collect();
    let counts = format!(
        "{} accepted, {} refused, {} forged",
        mobile.updates_accepted, mobile.updates_refused, mobile.updates_forged
    );
    let heard = mobile.last_heard_seconds.map(|ago| format!("{} ago", seconds(ago)));
    vec![
        Cell::new(mobile.home_address),
        Cell::or(mobile.name.as_ref(), "none"),
        Cell::toned(state, tone),
        Cell::new(format!("{} of {}", mobile.bindings.len(), mobile.max_bindings)),
        Cell::or((!networks.is_empty()).then(|| networks.join(" ")), "none"),
        mobile
            .security
            .as_ref()
            .map_or_else(|| Cell::toned("none: unprotected", Tone::Bad), Cell::new),
        Cell::or(heard, "never"),
        Cell::new(counts),
        Cell::new(mobile.allowed_by),
    ]
}

fn changed(document: &AgentChangedDocument, page: &mut Page) {
    let AgentChangedDocument { done, mobile, home_address, bid, ended, file } = document;
    let what = match (done, bid, mobile) {
        (AgentChange::Added, ..) => "may register from now on".to_owned(),
        (AgentChange::Removed, _, None) => "is served no more".to_owned(),
        (AgentChange::Removed, _, Some(_)) => {
            "is served by the word of the policy file alone".to_owned()
        }
        (AgentChange::Revoked, None, _) => {
            format!("is refused (status 129) until `mtun agent permit {home_address}`")
        }
        (AgentChange::Revoked, Some(bid), _) => format!(
            "is refused BID {bid} (status 129) until `mtun agent permit {home_address} --bid {bid}`"
        ),
        (AgentChange::Permitted, None, _) => "may register again".to_owned(),
        (AgentChange::Permitted, Some(bid), _) => format!("may register BID {bid} again"),
    };
    let bindings = match ended {
        0 => "no binding ended".to_owned(),
        1 => "one binding ended".to_owned(),
        ended => format!("{ended} bindings ended"),
    };
    page.sentence(
        Tone::Good,
        &home_address.to_string(),
        &format!("{what}; {bindings}; written down in {}", file.display()),
    );
}
