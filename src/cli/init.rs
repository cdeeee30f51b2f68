//! `mtun init`: a policy file to begin with, and the key, for both ends.
//!
//! One line makes a machine a router, a node, a home agent or a correspondent, as one line of
//! SHISA's start script did. What is not said on the command line stands in the file as an address
//! of the documentation prefix, with a comment that says what belongs there.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv6Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ipnet::Ipv6Net;
use mtun_signaling::auth::Algorithm;
use schemars::JsonSchema;
use serde::Serialize;

use super::Answer;
use super::screen::{Page, Screen, Tone};
use crate::control::{ControlError, ErrorCode};
use crate::key;

/// What the home and what belongs to it are called.
const HOME: &str = "home";
/// The policy file, at both ends.
const POLICY: &str = "mtun.kdl";
/// The key file, in a directory of its own: what the service manager hands over.
const KEY: &str = "keys/home.key";
/// Where the files for the other end are put.
pub(super) const OTHER_END: &str = "other-end";
/// Where the service looks for the policy.
const SERVICE: &str = "/etc/mtun";
/// Where IPv6 routes are listed.
const ROUTES: &str = "/proc/net/ipv6_route";

/// What the machine is to be.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// A mobile router: itself and the network behind it keep their addresses (RFC 3963)
    Router(Router),
    /// A mobile node: it keeps its address wherever it is (RFC 6275)
    Node(Mobile),
    /// The home agent that mobiles register at
    Agent(Agent),
    /// A server that mobiles reach without going by way of their home agent
    Correspondent(Correspondent),
}

/// Where files go.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The directory for policy and key; what is there is never overwritten
    #[arg(long, value_name = "DIR", default_value = "/etc/mtun")]
    to: PathBuf,
}

/// What a mobile and its agent have to agree on.
#[derive(Debug, Args)]
pub(super) struct Both {
    /// The home agent's address
    #[arg(long, value_name = "ADDRESS", default_value = "2001:db8:100::1")]
    agent: Ipv6Addr,
    /// The mobile's home address, with the length of the home network's prefix
    #[arg(long, value_name = "ADDRESS/LENGTH", default_value = "2001:db8:100::42/64")]
    home_address: Ipv6Net,
}

#[derive(Debug, Args)]
pub(super) struct Mobile {
    #[command(flatten)]
    both: Both,
    /// An uplink, the most liked first; several times. Those with a default route if left out
    #[arg(long, value_name = "INTERFACE")]
    uplink: Vec<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(super) struct Router {
    #[command(flatten)]
    mobile: Mobile,
    /// The prefix of the network behind the router
    #[arg(long, value_name = "PREFIX", default_value = "2001:db8:100:4200::/64")]
    network: Ipv6Net,
    /// The interface it is on
    #[arg(long, value_name = "INTERFACE", default_value = "lan0")]
    on: String,
}

#[derive(Debug, Args)]
pub(super) struct Agent {
    #[command(flatten)]
    both: Both,
    /// The prefix of the network behind the mobile, if it is a router
    #[arg(long, value_name = "PREFIX")]
    network: Option<Ipv6Net>,
    /// The interface of the home link; none if left out: the home network is then on no link
    #[arg(long, value_name = "INTERFACE")]
    on: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(super) struct Correspondent {
    /// Its address
    #[arg(long, value_name = "ADDRESS", default_value = "2001:db8:ffff::1")]
    address: Ipv6Addr,
    #[command(flatten)]
    place: Place,
}

/// What was written.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InitDocument {
    kind: &'static str,
    role: &'static str,
    policy: PathBuf,
    key: Option<PathBuf>,
    /// The directory whose files belong to the other end.
    other_end: Option<PathBuf>,
}

/// What the files say.
struct Plan<'c> {
    role: &'static str,
    text: String,
    /// The other end's text; both ends have the key then.
    other: Option<String>,
    to: &'c Path,
}

pub(super) fn run(command: &Command, screen: Screen) -> Result<Answer, ControlError> {
    let spi = key::random_spi().map_err(|error| refused(&error))?;
    let plan = match command {
        Command::Router(Router { mobile, network, on }) => {
            let behind = Some((*network, on.as_str()));
            let text = mobile_text(&mobile.both, behind, &uplinks(&mobile.uplink)?, spi);
            let other = agent_text(&mobile.both, Some(*network), None, spi);
            Plan { role: "mobile-router", text, other: Some(other), to: &mobile.place.to }
        }
        Command::Node(mobile) => {
            let text = mobile_text(&mobile.both, None, &uplinks(&mobile.uplink)?, spi);
            let other = agent_text(&mobile.both, None, None, spi);
            Plan { role: "mobile-node", text, other: Some(other), to: &mobile.place.to }
        }
        Command::Agent(Agent { both, network, on, place }) => {
            let text = agent_text(both, *network, on.as_deref(), spi);
            let example = ["wlan0".to_owned(), "wwan0".to_owned()];
            let behind = network.map(|network| (network, "lan0"));
            let other = mobile_text(both, behind, &example, spi);
            Plan { role: "home-agent", text, other: Some(other), to: &place.to }
        }
        Command::Correspondent(Correspondent { address, place }) => {
            let text = correspondent_text(*address);
            Plan { role: "correspondent", text, other: None, to: &place.to }
        }
    };
    let document = plan.write()?;
    Ok(Answer::new(&document, page(&document, screen)))
}

impl Plan<'_> {
    /// Nothing is written unless everything can be, and what exists stays.
    fn write(&self) -> Result<InitDocument, ControlError> {
        let canonical = |text: &str| -> Result<String, ControlError> {
            mtun_policy::parse(POLICY, text, &mtun_policy::NoFiles)?;
            Ok(mtun_policy::format_text(POLICY, text)?)
        };
        let text = canonical(&self.text)?;
        let other = self.other.as_deref().map(canonical).transpose()?;
        let (policy, key) = (self.to.join(POLICY), self.to.join(KEY));
        let other_end = self.to.join(OTHER_END);
        for path in [&policy, &key, &other_end] {
            if path.symlink_metadata().is_ok() {
                let message = format!("{} exists; nothing is overwritten", path.display());
                return Err(ControlError::new(ErrorCode::Refused, message)
                    .help("move it away, or write elsewhere with --to DIR"));
            }
        }
        make_directory(self.to, OPEN)?;
        if let Some(other) = &other {
            let secret = key::generate(Algorithm::HmacSha256).map_err(|error| refused(&error))?;
            make_directory(&other_end, OPEN)?;
            for key in [&key, &other_end.join(KEY)] {
                make_directory(key.parent().expect("the key's own directory"), CLOSED)?;
                key::write_new(key, Algorithm::HmacSha256, &secret)
                    .map_err(|error| refused(&error))?;
            }
            write_new(&other_end.join(POLICY), other)?;
        }
        write_new(&policy, &text)?;
        Ok(InitDocument {
            kind: "init",
            role: self.role,
            policy,
            key: other.is_some().then_some(key),
            other_end: other.is_some().then_some(other_end),
        })
    }
}

fn page(document: &InitDocument, screen: Screen) -> Page {
    let mut page = Page::new(screen);
    let policy = document.policy.display();
    page.sentence(Tone::Good, "policy", &format!("{policy} ({})", document.role));
    if let Some(key) = &document.key {
        page.sentence(Tone::Good, "key", &format!("{} (mode 0600)", key.display()));
    }
    if let Some(other) = &document.other_end {
        let other = other.display();
        page.sentence(
            Tone::Good,
            "other end",
            &format!("{other}: carry both files there, such as"),
        );
        page.line(&format!("    scp -pr {other}/* root@OTHER:/etc/mtun/ && rm -r {other}"));
    }
    page.line("");
    page.hanging("", &format!("Put your own addresses into {policy}, then:"));
    page.line(&format!("    mtun doctor --policy {policy}"));
    page.line(&match document.policy.parent() == Some(Path::new(SERVICE)) {
        true => "    systemctl start mtund".to_owned(),
        false => format!("    mtund --policy {policy}"),
    });
    page
}

fn mobile_text(
    both: &Both,
    behind: Option<(Ipv6Net, &str)>,
    uplinks: &[String],
    spi: u32,
) -> String {
    let role = if behind.is_some() { "mobile-router" } else { "mobile-node" };
    let mut text = beginning(role, "the rules are at the end");
    for (number, uplink) in uplinks.iter().enumerate() {
        let bid = number + 1;
        let note =
            if number == 0 { "  // the lower its priority, the more it is liked" } else { "" };
        let class = if is_cellular(uplink) { "cellular; metered #true" } else { "wlan" };
        let _ = writeln!(
            text,
            "interface {uplink:?} {{ class {class}; bid {bid}; priority {bid}0 }}{note}"
        );
    }
    let Both { agent, home_address } = both;
    let _ = write!(
        text,
        "home {HOME:?} {{\n\
         tunnel mtun0\n\
         agent \"{agent}\"  // the home agent's address\n\
         address \"{home_address}\"  // this machine's, wherever it is\n"
    );
    if let Some((network, on)) = behind {
        let _ = writeln!(text, "mobile-network \"{network}\" on={on}  // what is behind it");
    }
    let _ = write!(text, "security \"{HOME}-sa\"\n}}\n{}", security(spi));
    let liked = uplinks.join(" ");
    let reliable = uplinks.iter().rev().cloned().collect::<Vec<_>>().join(" ");
    let _ = write!(
        text,
        "// The first rule that matches wins; the first of its links that is usable is taken.\n\
         rules home={HOME} {{\n"
    );
    if uplinks.len() > 1 {
        let _ = writeln!(text, "rule \"ssh\" {{ match proto=tcp dport=22; prefer {reliable} }}");
    }
    let _ = write!(text, "default {{ prefer {liked}; otherwise any }}\n}}\n");
    text
}

fn agent_text(both: &Both, network: Option<Ipv6Net>, on: Option<&str>, spi: u32) -> String {
    let mut text = beginning("home-agent", "whom it serves");
    let Both { agent, home_address } = both;
    let on = on.map(|on| format!(" on={on}")).unwrap_or_default();
    let _ = write!(
        text,
        "home {HOME:?} {{\n\
         tunnel mtun0\n\
         // The home network's prefix, and the address that mobiles register at.\n\
         serve \"{}\" agent=\"{agent}\"{on}\n\
         allow \"{}\" {{\n",
        home_address.trunc(),
        home_address.addr(),
    );
    if let Some(network) = network {
        let _ = writeln!(text, "mobile-network \"{network}\"  // what it may bring along");
    }
    let _ = write!(text, "security \"{HOME}-sa\"\n}}\n}}\n{}", security(spi));
    text
}

fn correspondent_text(address: Ipv6Addr) -> String {
    let mut text = beginning("correspondent", "no key is needed");
    let _ = write!(
        text,
        "correspondent {{\ntunnel mtun0\naddress \"{address}\"  // this machine's\n}}\n"
    );
    text
}

fn beginning(role: &str, about: &str) -> String {
    format!(
        "/- kdl-version 2\n\
         // Made by `mtun init`; {about}.\n\
         policy \"{role}\" schema=1\n\
         role \"{role}\"\n"
    )
}

fn security(spi: u32) -> String {
    format!(
        "security \"{HOME}-sa\" {{\n\
         // The other end has the same file.\n\
         auth-option spi=0x{spi:x} algorithm=hmac-sha256 key-file=\"{KEY}\"\n}}\n"
    )
}

/// Names of modems, as kernel and udev give them.
fn is_cellular(interface: &str) -> bool {
    ["ww", "usb", "ppp", "rmnet"].iter().any(|start| interface.starts_with(start))
}

/// What was said, else the interfaces that have a default route now; modems come last.
fn uplinks(said: &[String]) -> Result<Vec<String>, ControlError> {
    if !said.is_empty() {
        return Ok(said.to_vec());
    }
    let routes = fs::read_to_string(ROUTES).unwrap_or_default();
    let mut found = default_interfaces(&routes);
    found.sort_by_key(|name| is_cellular(name));
    if found.is_empty() {
        let message = "no interface has an IPv6 default route now";
        return Err(ControlError::new(ErrorCode::Usage, message)
            .help("name the uplinks, the most liked first: --uplink wlan0 --uplink wwan0"));
    }
    Ok(found)
}

/// The interfaces of the default routes in the kernel's own listing: destination, length, source,
/// length, gateway, metric, two counts, flags, interface. Modems have no gateway; a tunnel of ours has
/// none either.
pub(super) fn default_interfaces(routes: &str) -> Vec<String> {
    const UP: u32 = 0x1;
    const GATEWAY: u32 = 0x2;
    let mut found: Vec<String> = Vec::new();
    for line in routes.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "00", _, _, _, _, _, _, flags, name] = fields[..] else { continue };
        let flags = u32::from_str_radix(flags, 16).unwrap_or_default();
        let routes_on = flags & UP != 0 && (flags & GATEWAY != 0 || is_cellular(name));
        if routes_on && name != "lo" && !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
    }
    found
}

/// What everybody may look into, and what nobody else.
const OPEN: u32 = 0o755;
const CLOSED: u32 = 0o700;

fn make_directory(path: &Path, mode: u32) -> Result<(), ControlError> {
    let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|error| not_made(path, &error))
}

fn write_new(path: &Path, text: &str) -> Result<(), ControlError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    let written = made.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| not_made(path, &error))
}

fn not_made(path: &Path, error: &io::Error) -> ControlError {
    let message = format!("cannot make {}: {error}", path.display());
    ControlError::new(ErrorCode::Refused, message)
        .help("run it as root, or write elsewhere with --to DIR")
}

fn refused(error: &key::KeyFileError) -> ControlError {
    ControlError::new(ErrorCode::Refused, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uplinks_are_the_interfaces_with_a_default_route_through_a_router() {
        let zero = "0".repeat(32);
        let router = format!("fe80{}1", "0".repeat(27));
        let line = |length: &str, flags: &str, name: &str| {
            format!(
                "{zero} {length} {zero} 00 {router} 00000400 00000001 00000000 {flags} {name}\n"
            )
        };
        let routes = [
            line("00", "00450003", "wwan0"),
            line("40", "00000001", "eth7"),
            line("00", "00450003", "wlan0"),
            line("00", "00200200", "lo"),
            line("00", "00450003", "wwan0"),
            line("00", "00000001", "ppp0"),
            line("00", "00000001", "mtun0"),
        ];
        assert_eq!(default_interfaces(&routes.concat()), ["wwan0", "wlan0", "ppp0"]);
        assert!(default_interfaces("nonsense\n\n").is_empty());
    }
}
