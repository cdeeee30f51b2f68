//! `mtun top` in a real terminal: what tmux sees of it.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::owner::{Owner, Plan, Scratch};
use super::skip::{runs, skip};

/// How long a terminal may take to show something on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal of its own, ended when dropped.
struct Pane {
    scratch: Scratch,
}

impl Pane {
    /// Runs `mtun top` in a terminal of this size; what the shell says of its end stays below.
    fn open(socket: &Path, words: &str, environment: &str, size: (u16, u16)) -> Option<Self> {
        if !runs(Command::new("tmux").arg("-V")) {
            skip("top: needs tmux");
            return None;
        }
        let pane = Self { scratch: Scratch::new() };
        let script = format!(
            "before=$(stty -g)\n{environment} {} top --socket {} {words}\ncode=$?\n\
             [ \"$before\" = \"$(stty -g)\" ] && echo \"ended $code clean\"\nexec cat\n",
            env!("CARGO_BIN_EXE_mtun"),
            socket.display(),
        );
        let file = pane.scratch.join("script");
        std::fs::write(&file, script).unwrap();
        let (columns, lines) = (size.0.to_string(), size.1.to_string());
        let shell = format!("sh {}", file.display());
        let words = ["-x", &columns, "-y", &lines, &shell];
        let words = [&["-f", "/dev/null", "new-session", "-d"], words.as_slice()].concat();
        let made = pane.tmux(&words);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(pane)
    }

    fn tmux(&self, words: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.scratch.join("tmux")).args(words).env_remove("TMUX");
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        command.env_remove("NO_COLOR").env_remove("COLUMNS");
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn press(&self, keys: &[&str]) {
        let sent = self.tmux(&[&["send-keys"], keys].concat());
        assert!(sent.status.success(), "{keys:?}");
    }

    /// The screen, as text or with its colours.
    fn screen(&self, colors: bool) -> String {
        let words: &[&str] =
            if colors { &["capture-pane", "-p", "-e"] } else { &["capture-pane", "-p"] };
        String::from_utf8(self.tmux(words).stdout).unwrap()
    }

    /// Waits until the screen shows a word.
    fn shows(&self, word: &str) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen(false);
            if screen.contains(word) {
                return screen;
            }
            assert!(start.elapsed() < PATIENCE, "no {word:?} on\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn links_rules_and_flows_are_on_the_screen() {
    let cases = [
        ("top", super::documents::status()),
        ("top-up", super::states::up()),
        ("top-no-link", super::states::no_link()),
    ];
    for (name, status) in cases {
        let owner = Owner::start(Plan { status, ..Plan::default() });
        let Some(pane) = Pane::open(&owner.socket(), "", "", (80, 24)) else { return };
        insta::assert_snapshot!(name, pane.shows("FLOWS"));
    }
}

#[test]
fn keys_sort_filter_pause_and_help() {
    let owner = Owner::start(Plan::default());
    let Some(pane) = Pane::open(&owner.socket(), "", "", (100, 30)) else { return };
    pane.shows("by rate");
    pane.press(&["s"]);
    pane.shows("by octets");
    pane.press(&["r"]);
    pane.shows("by octets, reversed");
    pane.press(&["/", "dport 22"]);
    pane.shows("filter: dport 22");
    pane.press(&["Enter"]);
    pane.shows("of dport 22");
    pane.press(&["/", "x", "Enter"]);
    // The daemon says what is wrong with a filter, and the last figures stay.
    let screen = pane.shows("! ");
    assert!(screen.contains("LINK") && screen.contains("FLOWS"), "{screen}");
    pane.press(&["/", "BSpace", "Enter"]);
    pane.press(&["p"]);
    pane.shows("PAUSED");
    pane.press(&["p", "h"]);
    let help = pane.shows("sort the flows by rate");
    assert!(!help.contains("FLOWS"), "{help}");
    pane.press(&["h", "q"]);
    pane.shows("ended 0 clean");
}

#[test]
fn another_size_is_another_frame() {
    let owner = Owner::start(Plan::default());
    let Some(pane) = Pane::open(&owner.socket(), "", "", (120, 40)) else { return };
    pane.shows("FLOWS");
    pane.tmux(&["resize-window", "-x", "50", "-y", "16"]);
    let start = Instant::now();
    // The last line of the small screen is the line of keys again, and nothing is wrapped.
    loop {
        let screen = pane.screen(false);
        let lines: Vec<&str> = screen.lines().collect();
        let drawn = lines.first().is_some_and(|line| line.starts_with("mtun top"));
        if drawn && lines.len() == 16 && lines[15].starts_with("q quit") {
            assert!(lines.iter().all(|line| line.chars().count() <= 50), "{screen}");
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{screen}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn colour_is_for_those_who_want_it() {
    let owner = Owner::start(Plan::default());
    for (environment, words, colored) in
        [("", "", true), ("NO_COLOR=1", "", false), ("", "--color never", false)]
    {
        let Some(pane) = Pane::open(&owner.socket(), words, environment, (80, 24)) else { return };
        pane.shows("FLOWS");
        let screen = pane.screen(true);
        let colors = ["\x1b[31m", "\x1b[32m", "\x1b[1m"];
        let found = colors.iter().any(|color| screen.contains(color));
        assert_eq!(found, colored, "{environment} {words}\n{screen}");
    }
}

/// However it ends, the terminal is as it was.
#[test]
fn the_terminal_is_given_back() {
    let owner = Owner::start(Plan::default());
    let Some(pane) = Pane::open(&owner.socket(), "", "", (80, 24)) else { return };
    pane.shows("FLOWS");
    pane.press(&["C-c"]);
    pane.shows("ended 0 clean");

    let Some(pane) = Pane::open(&owner.socket(), "", "", (80, 24)) else { return };
    pane.shows("FLOWS");
    let shell = String::from_utf8(pane.tmux(&["display", "-p", "#{pane_pid}"]).stdout).unwrap();
    let shell = shell.trim();
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
    let child: i32 = children.split_whitespace().next().unwrap().parse().unwrap();
    // SAFETY: a child of our own terminal's shell.
    assert_eq!(unsafe { libc::kill(child, libc::SIGTERM) }, 0);
    pane.shows("ended 0 clean");
}

/// A daemon that goes leaves the last figures, and one that comes back is found.
#[test]
fn a_daemon_that_stops_is_told() {
    let owner = Owner::start(Plan::default());
    let Some(pane) = Pane::open(&owner.socket(), "--every 1s", "", (100, 24)) else { return };
    pane.shows("FLOWS");
    owner.stop();
    let screen = pane.shows("! ");
    assert!(screen.contains("wwan0"), "the last figures stay: {screen}");
    pane.press(&["q"]);
    pane.shows("ended 0 clean");
}

#[test]
fn without_a_terminal_or_a_daemon_it_says_so() {
    let owner = Owner::start(Plan::default());
    let top = |socket: &Path, words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mtun"));
        command.arg("top").arg("--socket").arg(socket).args(words).stdin(Stdio::null());
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), said)
    };
    let (code, said) = top(&owner.socket(), &[]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("needs a terminal"), "{said}");
    let (code, said) = top(&owner.socket(), &["--json"]);
    assert!(code == 2 && said.contains("mtun flows --json"), "{said}");
    let scratch = Scratch::new();
    let (code, said) = top(&scratch.join("none.sock"), &[]);
    assert!(code == 3 && said.contains("mtund --policy"), "{said}");
}
