//! The lab: the paper's figure 10 as a world of network namespaces, with real packets.
//!
//! `mtun demo`, the lab tests and the handover bench all build the same [`world::World`]: a
//! mobile router with a node behind it, two access networks whose routers drop foreign sources,
//! a home agent and a correspondent. Nothing here knows how the tunnel works; the lab starts the
//! programs a user starts, reads the answers a user reads, and looks at the packets from outside.
//!
//! - [`namespace`]: namespaces, commands and processes as guards that clean up when dropped
//! - [`record`]: what a run made, written down so that another process can remove it
//! - [`tun`], [`wire`]: links made of two TUN devices and a copier with delay, loss and rate
//! - [`advertiser`]: the Router Advertisements of the WLAN's access router
//! - [`world`]: the topology
//! - [`probe`], [`tally`]: UDP packets at a fixed rate, and the judgement of what became of them
//! - [`flows`]: TCP connections that must survive, one chatty and one bulky
//! - [`observe`]: packet taps that tell which uplink a flow uses, and what must never be seen
//! - [`policy`], [`daemons`], [`traffic`]: figure 11, the programs that carry it out, its flows
//! - [`demo`], [`report`]: the script of `mtun demo` and what it found
//! - [`keeper`]: keeps the links of a world alive that was left for playing
//!
//! The lab refuses to touch anything outside its own namespaces and its own directory.

pub mod advertiser;
pub mod daemons;
pub mod demo;
pub mod flows;
mod home_link;
pub mod keeper;
pub mod namespace;
pub mod observe;
pub mod policy;
pub mod probe;
pub mod record;
pub mod report;
pub mod tally;
pub mod traffic;
pub mod tun;
pub mod wire;
pub mod world;

/// Why this machine or user cannot run the lab, or `Ok`.
///
/// Tests call it first and skip loudly with its text.
pub fn able() -> Result<(), String> {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return Err("the lab makes network namespaces and needs root".into());
    }
    for program in ["ip", "nft"] {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|directory| directory.join(program).exists())
        });
        if !found {
            return Err(format!("the program `{program}` is not installed"));
        }
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Err("/dev/net/tun does not exist".into());
    }
    // A thread of its own, because unshare changes the thread that calls it.
    // SAFETY: unshare(CLONE_NEWNET) affects only the calling thread, which ends right after.
    let unshared = std::thread::spawn(|| unsafe { libc::unshare(libc::CLONE_NEWNET) })
        .join()
        .expect("the thread only makes one system call");
    if unshared != 0 {
        return Err("this kernel or container refuses new network namespaces".into());
    }
    Ok(())
}

/// Octets read as a struct of the kernel's, for `ioctl` and control messages.
pub(crate) fn last_error(what: &str) -> anyhow::Error {
    anyhow::Error::from(std::io::Error::last_os_error()).context(what.to_owned())
}
