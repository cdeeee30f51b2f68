//! `mtun report`: what somebody needs who is to find a fault from afar, in one archive.
//!
//! No key file and no token file is opened for it, and what looks like a key in a text is taken
//! out again: somebody may have put one into a comment. Addresses stay, for a report about routing
//! says nothing without them; the archive's first entry lists all of it.

mod redact;
mod tar;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::Answer;
use super::daemon::Daemon;
use super::duration::bytes;
use super::screen::{Cell, Page, Screen, Tone};
use crate::control::{ControlError, ErrorCode, Request};

/// Flows that are put in, those with the most bytes.
const FLOWS: usize = 1000;

/// Files of the machine, and what each tells.
const FILES: [(&str, &str); 5] = [
    ("etc/os-release", "which system this is"),
    ("proc/version", "its kernel"),
    ("proc/sys/net/ipv6/conf/all/forwarding", "whether it forwards"),
    ("proc/net/snmp6", "the kernel's counters of IPv6"),
    ("proc/net/dev", "its counters of interfaces"),
];

/// Programs that are asked, what they are called in the archive, and what each tells.
const PROGRAMS: [(&[&str], &str, &str); 5] = [
    (&["ip", "-d", "link"], "ip-link", "interfaces"),
    (&["ip", "address"], "ip-address", "addresses"),
    (&["ip", "-6", "rule"], "ip-rule", "which table is asked for which packet"),
    (&["ip", "-6", "route", "show", "table", "all"], "ip-route", "routes of all tables"),
    (&["nft", "list", "ruleset"], "nft-ruleset", "firewall"),
];

/// Where to.
#[derive(Debug, Args)]
pub(super) struct Command {
    /// The archive to make; nothing is overwritten [default: mtun-report-SECONDS.tar, here]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where the machine's files are; for tests
    #[arg(long, hide = true, default_value = "/")]
    root: PathBuf,
}

/// What was put into an archive.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ReportDocument {
    kind: &'static str,
    /// The archive, in the tar format.
    file: PathBuf,
    /// How many texts that look like keys were taken out.
    redacted: usize,
    /// What is in it.
    entries: Vec<EntryDocument>,
}

/// One file of the archive.
#[derive(Debug, Serialize, JsonSchema)]
struct EntryDocument {
    /// Its name.
    name: String,
    /// What it tells.
    about: &'static str,
    /// Its size in octets.
    octets: usize,
}

/// The files to be, without what looks like a key.
#[derive(Default)]
struct Entries {
    list: Vec<(EntryDocument, String)>,
    redacted: usize,
}

impl Entries {
    fn add(&mut self, name: impl Into<String>, about: &'static str, text: &str) {
        let (text, taken) = redact::secrets(text);
        self.redacted += taken;
        let octets = text.len();
        self.list.push((EntryDocument { name: name.into(), about, octets }, text));
    }

    /// An answer of the daemon, or why there is none.
    fn ask(&mut self, daemon: &Daemon, request: Request, about: &'static str) {
        let name = format!("{}.json", request.command());
        let text = match daemon.ask(request) {
            Ok(response) => {
                let value = serde_json::to_value(&response).unwrap_or_default();
                format!("{value:#}\n")
            }
            Err(error) => format!("{{\"error\": {:?}}}\n", error.message),
        };
        self.add(name, about, &text);
    }

    fn contents(&self) -> String {
        let mut text = format!(
            "Report of mtun {}.\n\
             In it are no keys, no tokens and no payload of packets; {} texts that look like keys\n\
             were taken out. Addresses of this machine and of whom it talks to are in it.\n\n",
            env!("CARGO_PKG_VERSION"),
            self.redacted
        );
        for (EntryDocument { name, about, octets }, _) in &self.list {
            text.push_str(&format!("{name:<32} {octets:>9}  {about}\n"));
        }
        text
    }
}

pub(super) fn run(
    command: &Command,
    daemon: &Daemon,
    screen: Screen,
) -> Result<Answer, ControlError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let file = command.out.clone().unwrap_or_else(|| format!("mtun-report-{now}.tar").into());
    let mut entries = Entries::default();
    let limit = Some(FLOWS);
    entries.ask(daemon, Request::Overview {}, "health, homes, links, bindings, overrides");
    entries.ask(daemon, Request::Mobiles { search: None, limit }, "mobiles of a home agent");
    entries.ask(daemon, Request::Flows { filter: None, limit }, "the flows with the most bytes");
    entries.ask(daemon, Request::PolicyShow {}, "the policy in force");
    entries.ask(daemon, Request::PolicyHistory { entry: None }, "the policies before it");
    entries.ask(daemon, Request::Metrics {}, "every counter");
    let checks = super::doctor::checks(&command.root, daemon);
    entries.add("doctor.json", "what this machine lacks", &format!("{checks}\n"));
    for (name, about) in FILES {
        let text = std::fs::read_to_string(command.root.join(name));
        let text = text.unwrap_or_else(|error| format!("not read: {error}\n"));
        entries.add(name.replace('/', "-"), about, &text);
    }
    for (words, name, about) in PROGRAMS {
        entries.add(format!("{name}.txt"), about, &output(words));
    }
    let contents = entries.contents();
    entries.list.insert(
        0,
        (
            EntryDocument {
                name: "contents.txt".to_owned(),
                about: "this list",
                octets: contents.len(),
            },
            contents,
        ),
    );
    let files = entries.list.iter().map(|(entry, text)| (entry.name.as_str(), text.as_bytes()));
    write(&file, &tar::archive("mtun-report", now, files))?;
    let documents: Vec<_> = entries.list.into_iter().map(|(entry, _)| entry).collect();
    let mut page = Page::new(screen);
    page.sentence(Tone::Good, "report", &format!("{} (mode 0600)", file.display()));
    let row = |entry: &EntryDocument| {
        vec![Cell::new(&entry.name), Cell::new(bytes(entry.octets as u64)), Cell::new(entry.about)]
    };
    page.table(&["ENTRY", "SIZE", "TELLS"], &documents.iter().map(row).collect::<Vec<_>>(), "");
    page.line("");
    let taken = entries.redacted;
    page.hanging(
        "",
        &format!("No key, no token; {taken} texts that look like one were taken out."),
    );
    page.hanging("", "Addresses are in it: look through it before it leaves the house.");
    let document = ReportDocument { kind: "report", file, redacted: taken, entries: documents };
    Ok(Answer::new(&document, page))
}

/// What a program says, or why it says nothing.
fn output(words: &[&str]) -> String {
    let (program, arguments) = words.split_first().expect("a program has a name");
    match Program::new(program).args(arguments).output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&said).into_owned()
        }
        Err(error) => format!("{program} was not run: {error}\n"),
    }
}

fn write(file: &Path, octets: &[u8]) -> Result<(), ControlError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    made.and_then(|mut made| made.write_all(octets)).map_err(|error| {
        let message = format!("cannot write {}: {error}", file.display());
        ControlError::new(ErrorCode::Refused, message).help("write elsewhere with --out FILE")
    })
}
