//! `mtun import`: a policy made from another program's configuration.
//!
//! What has a counterpart is translated, what has none stays as a comment at its place, and the
//! result is judged by the same checks as every policy. Nothing is guessed: a rule whose conditions
//! cannot all be said is left out whole, because with fewer of them it would speak of more packets.

mod mwan3;
mod uci;

use std::net::Ipv6Addr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::Ipv6Net;
use schemars::JsonSchema;
use serde::Serialize;

use super::Answer;
use super::screen::{Page, Screen};
use crate::control::{ControlError, ErrorCode};

/// Whose configuration it is.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// OpenWrt's mwan3: interfaces, members, policies and rules become links and rules
    Mwan3(Mwan3),
}

/// A file of mwan3, and what it does not know.
#[derive(Debug, Args)]
pub(super) struct Mwan3 {
    /// Its file, such as /etc/config/mwan3
    file: PathBuf,
    /// The kernel's name of an interface that mwan3 calls by its own, such as wan=eth1
    #[arg(long, value_name = "NAME=DEVICE", value_parser = device)]
    device: Vec<(String, String)>,
    /// The home agent's address
    #[arg(long, value_name = "ADDRESS", default_value = "2001:db8:100::1")]
    agent: Ipv6Addr,
    /// The router's home address, with the length of the home network's prefix
    #[arg(long, value_name = "ADDRESS/LENGTH", default_value = "2001:db8:100::42/64")]
    home_address: Ipv6Net,
    /// The prefix of the network behind the router
    #[arg(long, value_name = "PREFIX", default_value = "2001:db8:100:4200::/64")]
    network: Ipv6Net,
    /// The interface it is on
    #[arg(long, value_name = "INTERFACE", default_value = "br-lan")]
    on: String,
}

fn device(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, device)) if !name.is_empty() && !device.is_empty() => {
            Ok((name.to_owned(), device.to_owned()))
        }
        _ => Err("write mwan3's name and the kernel's, such as wan=eth1".to_owned()),
    }
}

/// A policy that was made from another program's file.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ImportDocument {
    kind: &'static str,
    /// The file that was read.
    file: PathBuf,
    /// The policy; it has no faults.
    policy: String,
    /// What has no counterpart, in the order of the file; it stands in the policy as comments.
    notes: Vec<String>,
}

pub(super) fn run(command: &Command, screen: Screen) -> Result<Answer, ControlError> {
    let Command::Mwan3(command) = command;
    let text = std::fs::read_to_string(&command.file).map_err(|error| {
        let message = format!("cannot read {}: {error}", command.file.display());
        ControlError::new(ErrorCode::Usage, message)
    })?;
    let usage = |message: String| {
        let message = format!("{}: {message}", command.file.display());
        ControlError::new(ErrorCode::Usage, message)
            .help("it has to be a file in the form of OpenWrt's /etc/config/mwan3")
    };
    let sections = uci::parse(&text).map_err(usage)?;
    let mwan3::Imported { text, notes } = mwan3::policy(&sections, command).map_err(usage)?;
    mtun_policy::parse("mwan3.kdl", &text, &mtun_policy::NoFiles)?;
    let policy = mtun_policy::format_text("mwan3.kdl", &text)?;
    let mut page = Page::new(screen);
    page.verbatim(&policy);
    let file = command.file.clone();
    Ok(Answer::new(&ImportDocument { kind: "import", file, policy, notes }, page))
}
