//! A movement detector of one's own: it, and not the daemon, says where a link is.
//!
//! usage: movement_detector [--socket PATH]
//!
//! It reads one command a line and sends it as MD_INFO:
//!
//! ```text
//! rereg wlan0 [2001:db8:1::7]   the link has this care-of address (or whichever it has)
//! dereghome wlan0 [acme]        the link is the home link (of this home)
//! deregforeign wlan0            the link leads nowhere
//! scan [wlan0]                  look for yourself again
//! ```
//!
//! A real one would read a modem, a map or a timetable instead of its standard input. The links it
//! spoke of are its own while it runs; when it ends, even by accident, the daemon looks after them
//! again. It needs the right of movement: `mtund --move-group`.

use std::io::BufRead;
use std::path::PathBuf;

use anyhow::{Context, bail};
use mtun::control::{Client, protocol};
use mtun_policy::{HomeName, InterfaceName};
use mtun_signaling::mobility_socket::{MdCommand, MdInfo, MobilityMessage};

fn main() -> anyhow::Result<()> {
    let mut socket = PathBuf::from(protocol::SOCKET);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--socket" => socket = words.next().context("--socket takes a path")?.into(),
            other => bail!("{other}: what is that? usage: movement_detector [--socket PATH]"),
        }
    }
    // One connection for everything: the links are ours for as long as it lasts.
    let mut daemon = Client::connect(&socket)?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let message = match command(&line) {
            Ok(Some(message)) => message,
            Ok(None) => continue,
            Err(error) => {
                println!("? {error}");
                continue;
            }
        };
        match daemon.send(MobilityMessage::MdInfo(message)) {
            Ok(sent) => println!("ok {}", sent.done),
            // Refused, with a reason: the daemon goes on as before.
            Err(error) => println!("no {error}"),
        }
    }
    Ok(())
}

/// What a line says; `None` for an empty one.
fn command(line: &str) -> anyhow::Result<Option<MdInfo>> {
    let mut words = line.split_whitespace();
    let Some(word) = words.next() else { return Ok(None) };
    let mut message = MdInfo::new(match word {
        "rereg" => MdCommand::ReReg,
        "dereghome" => MdCommand::DeregHome,
        "deregforeign" => MdCommand::DeregForeign,
        "scan" => MdCommand::Scan,
        other => bail!("no command {other}"),
    });
    message.link = words.next().map(InterfaceName::from);
    match (message.command, words.next()) {
        (_, None) => {}
        (MdCommand::ReReg, Some(address)) => {
            let address: std::net::Ipv6Addr = address.parse().context("no care-of address")?;
            message.care_of = Some(address.into());
        }
        (MdCommand::DeregHome, Some(home)) => message.home = Some(HomeName::from(home)),
        (_, Some(more)) => bail!("too much: {more}"),
    }
    Ok(Some(message))
}
