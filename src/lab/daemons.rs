//! The real programs in the world: `mtund` at the mobile router, at the home agent and, where it is
//! wanted, at the correspondent, and `mtun`.
//!
//! The programs are started as a person starts them and asked as a person asks them, over the
//! control socket. Nothing is awaited by time: [`Daemon::wait_until`] polls the status.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mtun_signaling::auth::Algorithm;

use super::namespace::{Namespace, Process, Shell, wait_for};
use super::policy::PolicyText;
use super::world::World;
use crate::control::documents::{BindingPhase, FlowDocument, StatusDocument};
use crate::control::{Client, Request, Response};
use crate::key;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The daemon.
    pub mtund: PathBuf,
    /// The command line.
    pub mtun: PathBuf,
}

impl Programs {
    /// Those in the directory of the program that runs now, as they are installed.
    pub fn beside_this() -> Result<Self> {
        let this = std::env::current_exe()?;
        let directory = this.parent().context("a program without directory")?;
        let found = Self { mtund: directory.join("mtund"), mtun: directory.join("mtun") };
        for program in [&found.mtund, &found.mtun] {
            if !program.exists() {
                bail!("{} is missing; build it with `cargo build --bins`", program.display());
            }
        }
        Ok(found)
    }
}

/// Which of the daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The mobile router's.
    Mobile,
    /// The home agent's.
    Agent,
    /// The correspondent's.
    Correspondent,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Mobile => "mobile",
            Self::Agent => "agent",
            Self::Correspondent => "correspondent",
        }
    }
}

/// A daemon of the world; ended, with its tidying, when dropped.
#[derive(Debug)]
pub struct Daemon {
    /// The process.
    pub process: Process,
    socket: PathBuf,
    policy: PathBuf,
    programs: Programs,
    shell: Shell,
}

/// What a daemon is started with beside its policy.
#[derive(Clone, Debug, Default)]
pub struct Arguments(pub Vec<String>);

/// Where a daemon lives.
#[derive(Clone, Copy, Debug)]
pub struct Place<'p> {
    /// Its network.
    pub namespace: &'p Namespace,
    /// Its files; the directory exists.
    pub directory: &'p Path,
    /// The name of its policy file.
    pub file: &'p str,
}

impl Daemon {
    /// Starts `mtund` on one side with the policy text and waits until it answers.
    pub fn start(
        world: &World,
        programs: &Programs,
        side: Side,
        policy: &PolicyText,
        arguments: &Arguments,
    ) -> Result<Self> {
        let directory = directory_of(world, side)?;
        let (namespace, file, text) = match side {
            Side::Mobile => (&world.mr, "figure-11.kdl", &policy.mobile),
            Side::Agent => (&world.ha, "home-agent.kdl", &policy.agent),
            Side::Correspondent => (&world.cn, "correspondent.kdl", &policy.correspondent),
        };
        Self::start_at(Place { namespace, directory: &directory, file }, programs, text, arguments)
    }

    /// The same anywhere.
    pub fn start_at(
        place: Place<'_>,
        programs: &Programs,
        text: &str,
        arguments: &Arguments,
    ) -> Result<Self> {
        let Place { namespace, directory, file } = place;
        let file = directory.join(file);
        std::fs::write(&file, text)?;
        let socket = directory.join("control.sock");
        let state = directory.join("state");
        let mut command = namespace.command(&programs.mtund);
        command.arg("--policy").arg(&file).arg("--socket").arg(&socket).arg("--state").arg(&state);
        command.args(&arguments.0);
        // The cables of the laboratory would change their ways altogether; who asks for it gets it.
        if !arguments.0.iter().any(|word| word == "--gro") {
            command.args(["--gro", "keep"]);
        }
        let log = directory.join("log");
        let process = namespace.start(command, &log)?;
        let mut daemon = Self {
            process,
            socket,
            policy: file,
            programs: programs.clone(),
            shell: namespace.shell().clone(),
        };
        // The socket exists before the daemon is ready; an answer comes only from one that is.
        wait_for("the daemon's answer", Duration::from_secs(20), || {
            let answers = daemon.status().is_ok();
            (answers || !daemon.process.is_running()).then_some(())
        })
        .with_context(|| daemon.story())?;
        if !daemon.process.is_running() {
            bail!("mtund ({}) ended at once:\n{}", namespace.name(), daemon.process.log());
        }
        Ok(daemon)
    }

    /// The control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The policy file it was started with.
    pub fn policy(&self) -> &Path {
        &self.policy
    }

    /// What the daemon printed, for messages about failures.
    pub fn story(&self) -> String {
        format!("the daemon's log:\n{}", self.process.log())
    }

    /// Asks over the control socket.
    pub fn ask(&self, request: Request) -> Result<Response> {
        Ok(Client::connect(&self.socket)?.ask(request)?)
    }

    /// Its status.
    pub fn status(&self) -> Result<StatusDocument> {
        match self.ask(Request::Status {})? {
            Response::Status(status) => Ok(status),
            other => bail!("not a status: {other:?}"),
        }
    }

    /// The flows it remembers.
    pub fn flows(&self) -> Result<Vec<FlowDocument>> {
        match self.ask(Request::Flows { filter: None, limit: None })? {
            Response::Flows(flows) => Ok(flows.flows),
            other => bail!("not flows: {other:?}"),
        }
    }

    /// Waits until its status has `what`.
    pub fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        mut holds: impl FnMut(&StatusDocument) -> bool,
    ) -> Result<StatusDocument> {
        let mut last = None;
        wait_for(what, patience, || match self.status() {
            Ok(status) if holds(&status) => Some(status),
            other => {
                last = Some(other);
                None
            }
        })
        .with_context(|| format!("last status: {last:#?}\n{}", self.story()))
    }

    /// Waits until exactly these links are registered (BID and link), and usable.
    pub fn wait_for_links(&self, links: &[&str], patience: Duration) -> Result<StatusDocument> {
        self.wait_until(&format!("registration of {links:?}"), patience, |status| {
            registered(status) == links
        })
    }

    /// Runs `mtun --socket … <words> --json`, visibly; the document and whether it says `ok`.
    pub fn mtun(&self, words: &[&str]) -> Result<serde_json::Value> {
        let mut command = Command::new(&self.programs.mtun);
        command.arg("--socket").arg(&self.socket).args(words).arg("--json");
        let quoted: Vec<String> = words
            .iter()
            .map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() })
            .collect();
        self.shell.show(&format!("mtun {}", quoted.join(" ")));
        let output = command.output().context("cannot start mtun")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let document: serde_json::Value = serde_json::from_str(text.trim()).with_context(|| {
            format!(
                "mtun {words:?} printed no document ({}): {text}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
        Ok(document)
    }

    /// The same; an error if the document says that it failed.
    pub fn mtun_ok(&self, words: &[&str]) -> Result<serde_json::Value> {
        let document = self.mtun(words)?;
        if document["ok"] != true {
            bail!("mtun {words:?} failed: {document}");
        }
        Ok(document["result"].clone())
    }
}

/// Links whose binding is registered and usable, sorted by name.
pub fn registered(status: &StatusDocument) -> Vec<&str> {
    let mut links: Vec<&str> = status
        .bindings
        .iter()
        .filter(|binding| {
            binding.usable
                && matches!(binding.phase, BindingPhase::Registered | BindingPhase::Refreshing)
        })
        .filter_map(|binding| binding.link.as_ref().map(|link| link.as_str()))
        .collect();
    links.sort_unstable();
    links
}

/// Care-of addresses that an agent holds for its mobiles, sorted.
pub fn cached(status: &StatusDocument) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = status
        .mobiles
        .iter()
        .flat_map(|mobile| &mobile.bindings)
        .filter_map(|binding| binding.care_of.map(|care_of| care_of.0))
        .collect();
    addresses.sort_unstable();
    addresses
}

/// The directory of one side's files, made if need be.
fn directory_of(world: &World, side: Side) -> Result<PathBuf> {
    let directory = world.directory().join(side.name());
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Makes the mobile's key and gives the agent a copy, and the agent a key for a mobile that is
/// not in this world.
pub fn write_keys(world: &World) -> Result<()> {
    let shared = key::generate(Algorithm::HmacSha256)?;
    for side in [Side::Mobile, Side::Agent] {
        key::write_new(
            &directory_of(world, side)?.join("acme.key"),
            Algorithm::HmacSha256,
            &shared,
        )?;
    }
    new_key(world, Side::Agent, "laptop.key")
}

/// Puts a new key, known to nobody else, into a key file of one side.
pub fn new_key(world: &World, side: Side, name: &str) -> Result<()> {
    let file = directory_of(world, side)?.join(name);
    if file.exists() {
        std::fs::remove_file(&file)?;
    }
    let secret = key::generate(Algorithm::HmacSha256)?;
    Ok(key::write_new(&file, Algorithm::HmacSha256, &secret)?)
}
