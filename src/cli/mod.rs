//! The command line: one subcommand, one file.
//!
//! Every command makes one answer, a document and the same in words; this module prints one
//! of them. With `--json` exactly one document comes out on standard output, errors included:
//! `{"version":1,"ok":true,"result":{"kind":…}}` or `{"version":1,"ok":false,"error":{…}}`, the
//! latter with a result too where that is the proof (failed tests). `monitor` prints one line per
//! event instead. Standard error is for people only.

mod agent;
mod bindings;
mod daemon;
mod demo;
mod doctor;
mod downlink;
mod duration;
mod explain;
mod flows;
mod help;
mod import;
mod init;
mod key;
mod link;
mod links;
mod monitor;
mod pages;
mod policy;
mod report;
mod schema;
mod screen;
mod status;
mod steer;
mod top;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use self::daemon::Daemon;
use self::screen::{Page, Screen, Tone};
use crate::control::documents::FaultDocument;
use crate::control::protocol::{SOCKET, VERSION};
use crate::control::{ControlError, ErrorCode};

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, and everything is well.
    Ok = 0,
    /// Done, and something is not as configured.
    Degraded = 1,
    /// The command line or the request cannot be understood.
    Usage = 2,
    /// No daemon answers.
    NoDaemon = 3,
    /// Understood, and refused.
    Refused = 4,
}

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Usage | ErrorCode::Version | ErrorCode::TooLarge => Self::Usage,
            ErrorCode::Degraded => Self::Degraded,
            ErrorCode::NoDaemon | ErrorCode::Internal => Self::NoDaemon,
            ErrorCode::TooSlow
            | ErrorCode::Busy
            | ErrorCode::Forbidden
            | ErrorCode::NotFound
            | ErrorCode::PolicyFaults
            | ErrorCode::Conflict
            | ErrorCode::Refused => Self::Refused,
        }
    }
}

/// What a command has to say.
pub(crate) struct Answer {
    /// The document in JSON, its fields in the order of their types.
    result: String,
    page: Page,
    exit: Exit,
    /// What is wrong although there is a result: a failed test, a demo that shows a fault.
    error: Option<ControlError>,
}

impl Answer {
    /// An answer with its document; `page` is the same for people.
    fn new(result: &impl Serialize, page: Page) -> Self {
        let result = json(result);
        Self { result, page, exit: Exit::Ok, error: None }
    }

    /// The same with another end than [`Exit::Ok`].
    fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same as the proof of a failure.
    fn failed(mut self, error: ControlError) -> Self {
        self.exit = error.code.into();
        self.error = Some(error);
        self
    }

    fn into_document(self) -> String {
        let Self { result, error, .. } = self;
        match error {
            None => format!("{{\"version\":{VERSION},\"ok\":true,\"result\":{result}}}\n"),
            Some(error) => {
                let error = json(&error);
                format!(
                    "{{\"version\":{VERSION},\"ok\":false,\"result\":{result},\"error\":{error}}}\n"
                )
            }
        }
    }
}

/// One home-bound tunnel over several uplinks: look, steer, explain.
///
/// Exit codes: 0 ok, 1 degraded, 2 usage, 3 no daemon, 4 refused.
#[derive(Debug, Parser)]
#[command(name = "mtun", version, propagate_version = true, infer_long_args = false)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What all commands take.
#[derive(Debug, Args)]
struct Options {
    /// The daemon's control socket [default: $MTUN_SOCKET, else /run/mtun/control.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print exactly one JSON document
    #[arg(long, global = true)]
    json: bool,
    /// Colour; `auto` heeds NO_COLOR and whether the output is a terminal
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
}

/// When to print in colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Health, links, bindings and overrides at one look
    Status,
    /// The links side by side: state, round trip, loss, signal, quota, and why
    Links,
    /// Every binding with its care-of address, phase and lifetime
    Bindings,
    /// The flows, their rule and their uplink in both directions
    Flows(flows::Command),
    /// Which rule and uplink a flow gets, and why
    Explain(explain::Command),
    /// Send flows by a link for a time, before all rules
    Steer(steer::Command),
    /// Drain, hold or release a link
    #[command(subcommand)]
    Link(link::Command),
    /// Check, format, test, compare, apply, take back or show policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// List, add, remove or refuse the mobiles of a home agent while it runs
    #[command(subcommand)]
    Agent(agent::Command),
    /// One line per event until interrupted
    Monitor(monitor::Command),
    /// Links, rules and the flows that carry most, live in a terminal
    Top(top::Command),
    /// Write a policy file to begin with, and the key, for both ends
    #[command(subcommand)]
    Init(init::Command),
    /// Whether this machine can do what the daemon needs, and the fix where it cannot
    Doctor(doctor::Command),
    /// Make an archive for whoever is to find a fault; no key is in it
    Report(report::Command),
    /// Make a policy from another program's configuration
    #[command(subcommand)]
    Import(import::Command),
    /// Make keys
    #[command(subcommand)]
    Key(key::Command),
    /// Build a small world with two uplinks and show the whole thing at work
    Demo(demo::Command),
    /// A script that completes commands and options in a shell
    Completions(pages::Completions),
    /// Write the manual pages into a directory
    Man(pages::Man),
    /// What the documents of `--json` hold: a JSON Schema of each
    Schema(schema::Command),
}

/// Runs the command line `arguments`, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return help::explain(&error, &arguments),
    };
    let Options { socket, json, color } = cli.options;
    let screen = Screen::of_stdout(color);
    let daemon = Daemon::new(socket.unwrap_or_else(default_socket));
    let answer = match cli.command {
        None | Some(Command::Status) => status::run(&daemon, screen),
        Some(Command::Links) => links::run(&daemon, screen),
        Some(Command::Doctor(command)) => doctor::run(&command, &daemon, screen),
        Some(Command::Bindings) => bindings::run(&daemon, screen),
        Some(Command::Flows(command)) => flows::run(&command, &daemon, screen),
        Some(Command::Explain(command)) => explain::run(&command, &daemon, screen),
        Some(Command::Steer(command)) => steer::run(&command, &daemon, screen),
        Some(Command::Link(command)) => link::run(&command, &daemon, screen),
        Some(Command::Policy(command)) => policy::run(&command, &daemon, screen, json),
        Some(Command::Agent(command)) => agent::run(&command, &daemon, screen, json),
        Some(Command::Monitor(command)) => {
            return end(monitor::run(&command, &daemon, screen, json), json, color);
        }
        Some(Command::Top(command)) => {
            return end(top::run(&command, &daemon, screen, json), json, color);
        }
        Some(Command::Init(command)) => init::run(&command, screen),
        Some(Command::Key(command)) => key::run(&command, screen),
        Some(Command::Demo(command)) => demo::run(&command, screen, json),
        Some(Command::Report(command)) => report::run(&command, &daemon, screen),
        Some(Command::Import(command)) => import::run(&command, screen),
        Some(Command::Completions(command)) => Ok(pages::completions(&command, screen)),
        Some(Command::Man(command)) => pages::man(&command, screen),
        Some(Command::Schema(command)) => schema::run(&command, screen),
    };
    match answer {
        Ok(answer) => {
            let exit = answer.exit as u8;
            print(&if json { answer.into_document() } else { answer.page.into_text() });
            ExitCode::from(exit)
        }
        Err(error) => end(Err(error), json, color),
    }
}

/// `$MTUN_SOCKET`, or where the daemon listens if nobody says otherwise.
fn default_socket() -> PathBuf {
    std::env::var_os("MTUN_SOCKET")
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from(SOCKET), PathBuf::from)
}

/// Prints what is left to say, an error above all, and makes the exit code.
fn end(result: Result<Exit, ControlError>, json: bool, color: Color) -> ExitCode {
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            if json {
                let error = crate::cli::json(&error);
                print(&format!("{{\"version\":{VERSION},\"ok\":false,\"error\":{error}}}\n"));
            } else {
                let mut page = Page::new(Screen::of_stderr(color));
                describe(&error, &mut page);
                // Nothing can be done about a standard error that is closed.
                let _ = std::io::stderr().write_all(page.into_text().as_bytes());
            }
            ExitCode::from(Exit::from(error.code) as u8)
        }
    }
}

fn describe(error: &ControlError, page: &mut Page) {
    for fault in &error.faults {
        describe_fault(fault, page);
    }
    if let [fault] = error.faults.as_slice()
        && fault.message == error.message
    {
        return;
    }
    page.sentence(Tone::Bad, "error", &error.message);
    if let Some(help) = &error.help {
        page.sentence(Tone::Title, "help", help);
    }
}

/// A fault with its line and carets under the place.
fn describe_fault(fault: &FaultDocument, page: &mut Page) {
    let FaultDocument { code, message, file, line, column, .. } = fault;
    page.sentence(Tone::Bad, &format!("{}[{code}]", fault.severity), message);
    let number = line.to_string();
    let gutter = " ".repeat(number.len());
    page.line(&format!("{gutter}--> {file}:{line}:{column}"));
    page.line(&format!("{number} | {}", fault.source_line.replace('\t', " ")));
    let before = column.saturating_sub(1).saturating_sub(fault.source_offset);
    let carets = "^".repeat(fault.length.max(1));
    page.line(&format!("{gutter} | {}{carets}", " ".repeat(before)));
    if let Some(help) = &fault.help {
        page.hanging(&format!("{gutter} = help: "), help);
    }
    page.line("");
}

fn json(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("documents have text keys only")
}

/// Writes to standard output; whoever closed it has seen enough.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;
    use std::path::Path;

    /// The words of a line as a shell splits them, up to what belongs to the shell.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for letter in line.chars() {
            match (quote, letter) {
                (Some(open), _) if open == letter => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(letter);
                    word.get_or_insert_default();
                }
                (None, '#' | '|' | ';' | '>' | '<' | '&') if word.is_none() => break,
                (None, ';') => break,
                (None, ' ') => words.extend(word.take()),
                _ => word.get_or_insert_default().push(letter),
            }
        }
        words.extend(word);
        words
    }

    /// Command lines of a page: in fenced blocks from the line's beginning, in a paragraph in
    /// backticks. A backslash goes on with the next line.
    fn commands(page: &str) -> Vec<String> {
        let page = page.replace("\\\n", " ");
        let (mut fenced, mut found) = (false, Vec::new());
        for line in page.lines() {
            if line.starts_with("```") {
                fenced = !fenced;
            } else if fenced {
                let line = line.trim_start().trim_start_matches("$ ");
                found.extend(line.starts_with("mtun ").then(|| line.to_owned()));
            } else {
                let spans = line.split('`').skip(1).step_by(2);
                found.extend(spans.filter(|it| it.starts_with("mtun ")).map(str::to_owned));
            }
        }
        found
    }

    /// What stands on pages for what a person fills in, and something that fits there.
    const PLACEHOLDERS: [(&str, &str); 6] = [
        ("ADDRESS", "2001:db8::1"),
        ("FILE", "new.kdl"),
        ("FLOW", "tcp 2001:db8::1 -> 2001:db8::2 dport 22"),
        ("FILTER", "dport 22"),
        ("LINK", "wlan0"),
        ("TIME", "10m"),
    ];

    /// What a line says; one that offers words by `a|b` says each of them.
    fn said(line: &str) -> Vec<Vec<String>> {
        let fill = |word: String| {
            let filled = PLACEHOLDERS.iter().find(|(name, _)| *name == word);
            filled.map_or(word, |(_, value)| (*value).to_owned())
        };
        let words: Vec<String> = words(line).into_iter().map(fill).collect();
        let Some(at) = words.iter().position(|word| word.contains('|')) else {
            return vec![words];
        };
        let with = |choice: &str| {
            let mut words = words.clone();
            choice.clone_into(&mut words[at]);
            words
        };
        words[at].split('|').map(with).collect()
    }

    /// What pages tell people to type is what the command line takes.
    #[test]
    fn every_command_of_the_pages_is_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|it| it.unwrap().path());
        let pages = pages.filter(|it| it.extension().is_some_and(|it| it == "md"));
        let mut seen = 0;
        for page in pages.chain([root.join("README.md")]) {
            let text = std::fs::read_to_string(&page).unwrap();
            for command in commands(&text).iter().filter(|it| !it.contains('…')) {
                for words in said(command) {
                    seen += 1;
                    let Err(error) = Cli::try_parse_from(words) else { continue };
                    // By its name alone a command is what the page speaks of.
                    let named = [
                        ErrorKind::DisplayHelp,
                        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                        ErrorKind::MissingSubcommand,
                        ErrorKind::MissingRequiredArgument,
                    ];
                    let known = named.contains(&error.kind());
                    assert!(known, "{}: {command}\n{error}", page.display());
                }
            }
        }
        assert!(seen >= 200, "{seen}");
    }
}
