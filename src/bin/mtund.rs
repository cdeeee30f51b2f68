//! `mtund`, the daemon: registers, decides and carries packets until it is told to stop.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use mtun::daemon::{Gro, Options, StartError};
use mtun::dashboard::Settings;
use mtun::tunnel_interface::Choice;

/// The policy tunnel daemon for mobile nodes, mobile routers and home agents.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// The policy file
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The control socket
    #[arg(long, value_name = "PATH", default_value = mtun::control::protocol::SOCKET)]
    socket: PathBuf,
    /// Where state lives that a restart needs
    #[arg(long, value_name = "DIR", default_value = "/var/lib/mtun")]
    state: PathBuf,
    /// Where Prometheus text is served, on loopback; `none` for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "[::1]:9469")]
    metrics: String,
    /// Where the dashboard is, on loopback or `unix:/path`; `none` for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "[::1]:9470")]
    dashboard: String,
    /// A further name under which a proxy passes on requests for the dashboard
    #[arg(long, value_name = "NAME")]
    dashboard_host: Vec<String>,
    /// A file with the token that lets the dashboard steer; without it nothing can be changed there
    #[arg(long, value_name = "FILE")]
    dashboard_token: Option<PathBuf>,
    /// The group whose members may read
    #[arg(long, value_name = "GROUP")]
    read_group: Option<String>,
    /// The group whose members may everything
    #[arg(long, value_name = "GROUP")]
    write_group: Option<String>,
    /// The group whose members may also steer
    #[arg(long, value_name = "GROUP")]
    steer_group: Option<String>,
    /// The group whose members may also say that links have moved
    #[arg(long, value_name = "GROUP")]
    move_group: Option<String>,
    /// How long a stop waits for the de-registration to be acknowledged, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    stop_deadline: f64,
    /// If the store of bindings is damaged, go on with what is whole of it
    #[arg(long)]
    salvage_bindings: bool,
    /// Added to the time of day that signaling sees, in seconds; to try a wrong clock
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    clock_offset: i64,
    /// Where programs and files are that tell facts about radios and the vehicle
    #[arg(long, value_name = "DIR", default_value = "/etc/mtun/facts")]
    facts: PathBuf,
    /// The D-Bus on which ModemManager is, instead of the system's
    #[arg(long, value_name = "ADDRESS")]
    bus: Option<String>,
    /// What may carry flows that were decided
    #[arg(long, value_name = "BY", value_enum, default_value_t = Choice::Auto)]
    fast_path: Choice,
    /// A directory of the BPF file system, in which a killed daemon leaves its fast path for half a
    /// minute and the next one finds it; `none` for nowhere
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/mtun")]
    pins: PathBuf,
    /// Whether uplinks and the networks behind hand on what they receive in few large pieces
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Gro::On)]
    gro: Gro,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MTUN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,netlink_proto=error"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(std::io::stderr)
        .init();
    if asked_for_the_manual() {
        return manual();
    }
    let options = match options(Arguments::parse()) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("mtund: {message}");
            return ExitCode::from(2);
        }
    };
    // Before the first thread: rights belong to threads.
    if let Err(error) = mtun::privileges::give_up() {
        tracing::warn!(%error, "rights that are not needed could not be given up");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mtund: cannot start its threads: {error}");
            return ExitCode::from(4);
        }
    };
    match runtime.block_on(mtun::daemon::run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mtund: {error}");
            ExitCode::from(match error {
                StartError::Policy(_) | StartError::Tests(_) | StartError::NotBuilt(_) => 2,
                _ => 4,
            })
        }
    }
}

/// Whether `--man` is all that was said; whoever packs the programs says so.
fn asked_for_the_manual() -> bool {
    let mut words = std::env::args_os().skip(1);
    words.next().is_some_and(|word| word == "--man") && words.next().is_none()
}

/// Prints the manual page, made from the definition that reads the arguments.
fn manual() -> ExitCode {
    let page = clap_mangen::Man::new(Arguments::command().name("mtund"))
        .title("MTUND")
        .section("8")
        .source(concat!("mtun ", env!("CARGO_PKG_VERSION")))
        .manual("mtun");
    match page.render(&mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mtund: {error}");
            ExitCode::from(4)
        }
    }
}

fn options(arguments: Arguments) -> Result<Options, String> {
    let metrics = match arguments.metrics.as_str() {
        "none" => None,
        text => Some(text.parse::<SocketAddr>().map_err(|error| {
            format!("--metrics {text}: {error}; write an address with a port, such as [::1]:9469")
        })?),
    };
    if metrics.is_some_and(|address| !address.ip().is_loopback()) {
        return Err("--metrics: only loopback addresses; put a proxy in front for others".into());
    }
    let dashboard = match arguments.dashboard.as_str() {
        "none" => None,
        text => Some(Settings {
            place: text.parse().map_err(|error| format!("--dashboard {error}"))?,
            hosts: arguments.dashboard_host,
            token: arguments.dashboard_token,
        }),
    };
    let stop_deadline = Duration::try_from_secs_f64(arguments.stop_deadline)
        .map_err(|error| format!("--stop-deadline: {error}"))?;
    Ok(Options {
        policy: std::path::absolute(&arguments.policy)
            .map_err(|error| format!("--policy: {error}"))?,
        socket: std::path::absolute(&arguments.socket)
            .map_err(|error| format!("--socket: {error}"))?,
        state: arguments.state,
        metrics,
        dashboard,
        read_group: arguments.read_group.as_deref().map(group).transpose()?,
        write_group: arguments.write_group.as_deref().map(group).transpose()?,
        steer_group: arguments.steer_group.as_deref().map(group).transpose()?,
        move_group: arguments.move_group.as_deref().map(group).transpose()?,
        stop_deadline,
        salvage_bindings: arguments.salvage_bindings,
        clock_offset: arguments.clock_offset,
        facts: arguments.facts,
        bus: arguments.bus,
        fast_path: arguments.fast_path,
        pins: (arguments.pins.as_os_str() != "none").then_some(arguments.pins),
        gro: arguments.gro,
    })
}

/// The number of a group, by number or by its name in `/etc/group`.
fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(text)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    number.ok_or_else(|| format!("there is no group {text}; make it with `groupadd {text}`"))
}
