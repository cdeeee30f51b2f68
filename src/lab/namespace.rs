//! Network namespaces, commands and processes as guards.
//!
//! A guard undoes what it made when it is dropped, also when a test panics. Commands are printed
//! as a person would type them when the [`Shell`] is verbose. A process is ended by its own id
//! only, and a namespace by its own name.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::record::Record;

/// How long a process may take to end after SIGTERM before it is killed.
const END_WITHIN: Duration = Duration::from_secs(8);

/// How often somebody who lets time pass looks whether it is to end.
const GLANCE: Duration = Duration::from_millis(50);

/// Runs commands, visibly if asked to.
#[derive(Clone, Debug, Default)]
pub struct Shell {
    /// Print each command to stderr before it runs.
    pub verbose: bool,
}

impl Shell {
    /// Prints `line` as a command that is about to run.
    pub fn show(&self, line: &str) {
        if self.verbose {
            eprintln!("+ {line}");
        }
    }

    /// Runs `command` with `input` on its stdin; its stdout on success, its stderr in the error.
    pub fn run(&self, command: &mut Command, input: &str) -> Result<String> {
        self.show(&spelled(command));
        if self.verbose && !input.is_empty() {
            input.lines().for_each(|line| eprintln!("|   {line}"));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", spelled(command)))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that does not read its stdin closes it; its own error tells why.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "`{}` failed ({}): {}",
                spelled(command),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The command as a person would type it.
fn spelled(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A network namespace of this run; removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
    shell: Shell,
    record: Option<Arc<Record>>,
}

impl Namespace {
    /// Makes the namespace `<run>-<role>`, with its loopback up.
    pub fn create(record: &Arc<Record>, role: &str, shell: &Shell) -> Result<Self> {
        let name = format!("{}-{role}", record.run());
        // Written down first: a namespace that nobody knows of is worse than a name without one.
        record.add_namespace(&name)?;
        shell.run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let path = Path::new("/run/netns").join(&name);
        let handle =
            File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let made = Self { name, handle, shell: shell.clone(), record: Some(record.clone()) };
        made.ip(&["link set lo up"])?;
        Ok(made)
    }

    /// A namespace that somebody else has made; it stays when this is dropped.
    pub fn existing(name: &str, shell: &Shell) -> Result<Self> {
        let path = Path::new("/run/netns").join(name);
        let handle =
            File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { name: name.to_owned(), handle, shell: shell.clone(), record: None })
    }

    /// Its name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shell its commands run in.
    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    /// Runs `work` on a thread inside the namespace and returns what it returned.
    ///
    /// A socket belongs for ever to the namespace it was opened in, so opening it here and using
    /// it elsewhere is fine.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter();
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace.
    fn enter(&self) {
        // SAFETY: the descriptor is an open namespace file; only this thread is moved.
        let entered = unsafe { libc::setns(self.handle.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "setns into {}: {}", self.name, std::io::Error::last_os_error());
    }

    /// Runs `ip -6 -n <name> <line>` for every line, in one process.
    pub fn ip(&self, lines: &[&str]) -> Result<()> {
        for line in lines {
            self.shell.show(&format!("ip -6 -n {} {line}", self.name));
        }
        let quiet = Shell::default();
        quiet
            .run(
                Command::new("ip").args(["-6", "-n", &self.name, "-batch", "-"]),
                &(lines.join("\n") + "\n"),
            )
            .with_context(|| format!("in namespace {}:\n{}", self.name, lines.join("\n")))?;
        Ok(())
    }

    /// What `ip -n <name> -json <line>` prints.
    pub fn ip_json(&self, line: &str) -> Result<serde_json::Value> {
        let quiet = Shell::default();
        let text = quiet.run(
            Command::new("ip").args(["-n", &self.name, "-json"]).args(line.split_whitespace()),
            "",
        )?;
        let text = if text.trim().is_empty() { "[]" } else { text.trim() };
        serde_json::from_str(text).with_context(|| format!("`ip -json {line}` printed {text}"))
    }

    /// A command that will run inside the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a whole command line (words split at spaces) inside; its stdout.
    pub fn exec(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command")?;
        self.shell.run(self.command(program).args(words), "")
    }

    /// Loads an nftables ruleset inside.
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.shell.run(self.command("nft").args(["-f", "-"]), rules).map(drop)
    }

    /// Writes the setting `net/<key>`.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.shell.show(&format!("ip netns exec {} sysctl -w net/{key}={value}", self.name));
        self.run(|| std::fs::write(format!("/proc/sys/net/{key}"), value))
            .with_context(|| format!("{}: net/{key} = {value}", self.name))
    }

    /// Reads the setting `net/<key>`.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        let text = self
            .run(|| std::fs::read_to_string(format!("/proc/sys/net/{key}")))
            .with_context(|| format!("{}: net/{key}", self.name))?;
        Ok(text.trim().to_owned())
    }

    /// Index of the interface `name` inside; `None` if there is none.
    pub fn interface_index(&self, name: &str) -> Option<u32> {
        let name = std::ffi::CString::new(name).ok()?;
        // SAFETY: `name` is a terminated string that outlives the call.
        let index = self.run(|| unsafe { libc::if_nametoindex(name.as_ptr()) });
        (index != 0).then_some(index)
    }

    /// Starts `command` (made by [`Namespace::command`]) with its output in `log`.
    pub fn start(&self, mut command: Command, log: &Path) -> Result<Process> {
        self.shell.show(&format!("{} >{} &", spelled(&command), log.display()));
        let file = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // Its own process group: Ctrl-C in the terminal ends the lab, and the lab ends it.
        command.process_group(0);
        let child =
            command.spawn().with_context(|| format!("cannot start `{}`", spelled(&command)))?;
        if let Some(record) = &self.record {
            record.add_process(child.id())?;
        }
        Ok(Process { child, log: log.to_owned(), kept: false })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.record.as_ref().is_none_or(|record| record.is_kept()) {
            return;
        }
        if let Err(error) =
            self.shell.run(Command::new("ip").args(["netns", "del", &self.name]), "")
        {
            eprintln!("lab: {error:#}");
        }
    }
}

/// A started program; ended when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    kept: bool,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(&self.log) {
            let mut octets = Vec::new();
            let _ = file.read_to_end(&mut octets);
            text = String::from_utf8_lossy(&octets).into_owned();
        }
        text
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the id is of our own child, which has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Ends it without letting it tidy up (SIGKILL) and waits for its end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Asks it to end (SIGTERM) and waits; kills it when it does not.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(libc::SIGTERM);
        let patience = Instant::now() + END_WITHIN;
        while Instant::now() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("lab: process {} ignored SIGTERM for {END_WITHIN:?}", self.child.id());
        self.kill()
    }

    /// Lets it live on after this guard.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.kept {
            let _ = self.stop();
        }
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes SIGINT, SIGTERM and SIGHUP end every wait of the lab with an error, so that its guards
/// clean up instead of the process being torn away from them.
pub fn end_waits_on_signals() {
    extern "C" fn note(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores an atomic, which is allowed in signal handlers.
        unsafe { libc::signal(signal, note as *const () as libc::sighandler_t) };
    }
}

/// Whether one of those signals came.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Lets `time` pass; an error at once if one of those signals comes.
pub fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while !interrupted() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(GLANCE));
    }
    bail!("interrupted")
}

/// Waits until `condition` gives a value; an error that names `what` after `patience`.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if interrupted() {
            bail!("interrupted while waiting for {what}");
        }
        if Instant::now() >= end {
            bail!("waited {patience:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
