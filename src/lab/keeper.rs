//! Keeps the links of a left world alive: a process of its own that goes on copying.
//!
//! The TUN devices of the wires live as long as somebody holds their descriptors. `mtun demo
//! --keep` therefore starts itself once more with the descriptors inherited; `mtun demo --stop`
//! ends that process like any other of the run.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::advertiser::{Advertisement, Advertiser};
use super::last_error;
use super::namespace::{Namespace, Shell};
use super::tun::Tun;
use super::wire::{Impairment, Wire};

/// What the keeper is told, as JSON in its one argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Task {
    /// Namespace of the WLAN's access router.
    wlan: String,
    /// MTU to advertise there; 0 to advertise nothing.
    mtu: u32,
    /// Both descriptors of each wire and its delay in microseconds.
    wires: Vec<([i32; 2], u64)>,
}

/// Starts `<this program> <arguments…> <task>` with the wires' descriptors; its process id.
pub(super) fn start(
    arguments: &[&str],
    wlan: &Namespace,
    mtu: u32,
    wires: &[(&Wire, Duration)],
) -> Result<u32> {
    let task = Task {
        wlan: wlan.name().to_owned(),
        mtu,
        wires: wires
            .iter()
            .map(|(wire, delay)| (wire.descriptors(), delay.as_micros() as u64))
            .collect(),
    };
    let inherited: Vec<i32> = task.wires.iter().flat_map(|(ends, _)| *ends).collect();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).arg(serde_json::to_string(&task)?);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    // SAFETY: between fork and exec only fcntl is called, which may be called there.
    unsafe {
        command.pre_exec(move || {
            inherited.iter().try_for_each(|descriptor| {
                if libc::fcntl(*descriptor, libc::F_SETFD, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            })
        });
    }
    Ok(command.spawn().context("cannot start the keeper of the links")?.id())
}

/// What the started process does: copies and advertises until it is ended.
pub fn hold(task: &str) -> Result<()> {
    let task: Task = serde_json::from_str(task).context("not a keeper's task")?;
    let mut wires = Vec::new();
    for ([first, second], delay) in &task.wires {
        let inherit = |descriptor: i32| -> Result<Tun> {
            // SAFETY: fcntl only asks whether the number is an open descriptor.
            if descriptor < 3 || unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
                return Err(last_error("a descriptor that was not inherited"));
            }
            // SAFETY: it is open, and nothing else in this process knows of it.
            Ok(Tun::inherited(unsafe { OwnedFd::from_raw_fd(descriptor) }))
        };
        let impairment = Impairment::delayed(Duration::from_micros(*delay));
        wires.push(Wire::join(inherit(*first)?, inherit(*second)?, impairment, 1)?);
    }
    let _advertiser = if task.mtu > 0 {
        let wlan = Namespace::existing(&task.wlan, &Shell::default())?;
        Some(Advertiser::start(
            &wlan,
            "sta0",
            Advertisement::wlan(task.mtu, Duration::from_millis(200)),
        )?)
    } else {
        None
    };
    loop {
        std::thread::park();
    }
}
