//! `mtun doctor`: whether this machine can do what the daemon needs, and the fix where it cannot.
//!
//! It changes nothing, needs no daemon, and says of each check what it found. What it cannot find
//! out it says too: an unknown is no fault.

mod policy;

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::daemon::Daemon;
use super::screen::{Cell, Page, Screen, Tone};
use super::{Answer, Exit};
use crate::control::documents::{HealthState, StatusDocument, TunnelDocument};
use crate::control::{ControlError, Request, Response};
use crate::tunnel_interface::Backend;

/// Numbers of capabilities (linux/capability.h).
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;

/// What a link must carry so that 1280 octets (RFC 8200 §5) fit into the tunnel: an outer header
/// more.
const LEAST_MTU: u32 = 1320;

/// What to look at.
#[derive(Debug, Args)]
pub(super) struct Command {
    /// The policy file to look at, with its keys and what it says of this machine [default:
    /// /etc/mtun/mtun.kdl if it is there]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where the machine's files are; for tests
    #[arg(long, hide = true, default_value = "/")]
    root: PathBuf,
}

/// What became of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Ok,
    Warning,
    Bad,
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Bad => "bad",
            Self::Unknown => "not known",
        })
    }
}

/// One check.
#[derive(Debug, Serialize, JsonSchema)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do about it; `null` where nothing is to be done.
    fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), fix: None }
    }

    fn not(name: &'static str, verdict: Verdict, found: impl Into<String>, fix: &str) -> Self {
        Self { name, verdict, found: found.into(), fix: Some(fix.to_owned()) }
    }
}

/// All checks.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DoctorDocument {
    kind: &'static str,
    checks: Vec<Check>,
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    screen: Screen,
) -> Result<Answer, ControlError> {
    let checks = all(&command.root, command.policy.as_deref(), daemon);
    let row = |check: &Check| {
        let tone = match check.verdict {
            Verdict::Ok => Tone::Good,
            Verdict::Warning | Verdict::Unknown => Tone::Warning,
            Verdict::Bad => Tone::Bad,
        };
        vec![
            Cell::new(check.name),
            Cell::toned(check.verdict, tone),
            Cell::new(&check.found),
            Cell::or(check.fix.as_ref(), "nothing to do"),
        ]
    };
    let mut page = Page::new(screen);
    page.table(&["CHECK", "", "FOUND", "FIX"], &checks.iter().map(row).collect::<Vec<_>>(), "");
    let bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
    let document = DoctorDocument { kind: "doctor", checks };
    Ok(Answer::new(&document, page).exit(if bad { Exit::Degraded } else { Exit::Ok }))
}

/// Every check as a document, for a report.
pub(super) fn checks(root: &Path, daemon: &Daemon) -> String {
    super::json(&DoctorDocument { kind: "doctor", checks: all(root, None, daemon) })
}

fn all(root: &Path, file: Option<&Path>, daemon: &Daemon) -> Vec<Check> {
    let status = match daemon.ask(Request::Overview {}) {
        Ok(Response::Status(status)) => Ok(status),
        Ok(_) => Err(super::daemon::unexpected()),
        Err(error) => Err(error),
    };
    let mut checks = vec![
        ipv6(root),
        tun(root),
        nft(),
        rights(root),
        forwarding(root, status.as_ref().ok()),
        clock(),
    ];
    checks.extend(policy::checks(root, file, status.is_ok()));
    match &status {
        Ok(status) => {
            checks.push(health(status));
            checks.extend(mtu(root, status));
            checks.extend(backend(status));
        }
        Err(error) => checks.push(Check::not(
            "daemon",
            Verdict::Unknown,
            error.message.clone(),
            error.help.as_deref().unwrap_or("start it: systemctl start mtund"),
        )),
    }
    checks
}

fn read(root: &Path, file: &str) -> Option<String> {
    Some(std::fs::read_to_string(root.join(file)).ok()?.trim().to_owned())
}

fn ipv6(root: &Path) -> Check {
    match read(root, "proc/sys/net/ipv6/conf/all/disable_ipv6").as_deref() {
        Some("0") => Check::ok("ipv6", "on"),
        Some(_) => Check::not(
            "ipv6",
            Verdict::Bad,
            "switched off",
            "sysctl net.ipv6.conf.all.disable_ipv6=0",
        ),
        None => Check::not(
            "ipv6",
            Verdict::Bad,
            "this kernel has none",
            "boot without ipv6.disable=1, or load the module ipv6",
        ),
    }
}

fn tun(root: &Path) -> Check {
    match root.join("dev/net/tun").exists() {
        true => Check::ok("tun", "/dev/net/tun is there"),
        false => Check::not("tun", Verdict::Bad, "/dev/net/tun is missing", "modprobe tun"),
    }
}

fn nft() -> Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let further = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(further)
        .map(|it| it.join("nft"))
        .find(|it| it.is_file());
    match found {
        Some(file) => Check::ok("nft", file.display().to_string()),
        None => {
            Check::not("nft", Verdict::Bad, "the program nft is missing", "apt install nftables")
        }
    }
}

fn rights(root: &Path) -> Check {
    let status = read(root, "proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let needed = [("CAP_NET_ADMIN", NET_ADMIN), ("CAP_NET_RAW", NET_RAW)];
    let Some(held) = held else {
        return Check::not("rights", Verdict::Unknown, "/proc does not say", "mount /proc");
    };
    let missing: Vec<&str> =
        needed.iter().filter(|(_, bit)| held & (1 << bit) == 0).map(|(name, _)| *name).collect();
    match missing.as_slice() {
        [] => Check::ok("rights", "CAP_NET_ADMIN and CAP_NET_RAW, as the daemon needs"),
        missing => Check::not(
            "rights",
            Verdict::Unknown,
            format!("this user has no {}; the daemon's may", missing.join(" and no ")),
            "run this as the daemon's user; in its unit: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW",
        ),
    }
}

fn forwarding(root: &Path, status: Option<&StatusDocument>) -> Check {
    use mtun_policy::Role::{HomeAgent, MobileRouter};
    let Some(status) = status else {
        return Check::not(
            "forwarding",
            Verdict::Unknown,
            "the role is not known without a daemon",
            "the daemon switches it on where its role needs it",
        );
    };
    if !matches!(status.role, MobileRouter | HomeAgent) {
        return Check::ok("forwarding", format!("a {} does not forward", status.role));
    }
    match read(root, "proc/sys/net/ipv6/conf/all/forwarding").as_deref() {
        Some("1") => Check::ok("forwarding", "on"),
        _ => Check::not(
            "forwarding",
            Verdict::Bad,
            "somebody switched it off",
            "sysctl net.ipv6.conf.all.forwarding=1, and find out who did",
        ),
    }
}

/// Whether something keeps this machine's clock: replays are told by timestamps (RFC 4285 §6).
fn clock() -> Check {
    // SAFETY: all octets zero is a request that changes nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is what the call reads and writes.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    let kept = result >= 0 && state.status & libc::STA_UNSYNC == 0;
    match kept {
        true => Check::ok("clock", "kept by a time service"),
        false => Check::not(
            "clock",
            Verdict::Warning,
            "nobody keeps it right",
            "run chrony or systemd-timesyncd; a clock that is 7 s wrong costs each registration one more round",
        ),
    }
}

fn health(status: &StatusDocument) -> Check {
    let reasons: Vec<_> = status.health.reasons.iter().map(ToString::to_string).collect();
    match status.health.state {
        HealthState::Ok => {
            Check::ok("daemon", format!("{}, everything is as configured", status.daemon_version))
        }
        HealthState::Degraded => {
            Check::not("daemon", Verdict::Bad, reasons.join("; "), "mtun status; mtun links")
        }
    }
}

fn mtu(root: &Path, status: &StatusDocument) -> Vec<Check> {
    let check = |name: &str| {
        let mtu: u32 = read(root, &format!("sys/class/net/{name}/mtu"))?.parse().ok()?;
        Some(match mtu {
            LEAST_MTU.. => Check::ok("mtu", format!("{name}: {mtu}")),
            _ => Check::not(
                "mtu",
                Verdict::Warning,
                format!("{name}: {mtu}, so full tunnel packets go in two fragments"),
                "raise it to 1320 or more, if the network allows",
            ),
        })
    };
    status.links.iter().filter_map(|link| check(link.interface.as_str())).collect()
}

fn backend(status: &StatusDocument) -> Vec<Check> {
    let check = |home: &crate::control::documents::HomeDocument| {
        let name = &home.tunnel.name;
        let TunnelDocument { backend, no_kmod, no_fast_path, no_shortcut, no_pins, .. } =
            &home.tunnel;
        let carries = match (backend, no_fast_path) {
            (Backend::Kmod, _) => {
                let why = "this kernel has the link kind mtun";
                return Check::ok(
                    "backend",
                    format!("{name}: kmod-mtun carries decided flows: {why}"),
                );
            }
            (Backend::Bpf, _) => {
                let shortcut = no_shortcut.as_ref();
                let shortcut =
                    shortcut.map_or_else(String::new, |why| format!("; no shortcut: {why}"));
                let pins = no_pins.as_ref();
                let pins = pins.map_or_else(String::new, |why| format!("; ends if killed: {why}"));
                format!("and the kernel's BPF carries decided flows{shortcut}{pins}")
            }
            (Backend::Daemon, why) => {
                let why = why.as_deref().unwrap_or("it does not say why");
                format!("the daemon carries every packet: {why}")
            }
        };
        let kmod =
            no_kmod.as_ref().map_or_else(String::new, |why| format!("; no kmod-mtun: {why}"));
        Check::ok("backend", format!("{name}: TUN, {carries}{kmod}"))
    };
    status.homes.iter().map(check).collect()
}
