//! What the daemon gives up before it does anything: rights that it never needs, the way back to
//! them, system calls that it never makes (`calls`), and the right of others to look into its memory.
//!
//! Capabilities belong to threads, so this comes before the first thread is started. Started as
//! root it keeps what reading files anywhere and talking to the kernel's network takes; the unit
//! file starts it as a user of its own with what the network and the fast path take, and then nothing
//! else is left to give up. Programs that it starts (`nft`) get no more than it has.

mod calls;

use std::io;

/// What is kept of what it was started with. By their numbers in `linux/capability.h`.
const KEPT: [Capability; 6] = [
    Capability { number: 0, why: "CHOWN: the control socket belongs to a group" },
    Capability { number: 1, why: "DAC_OVERRIDE: policies and keys of whoever starts it by hand" },
    Capability { number: 12, why: "NET_ADMIN: the tunnel, routes, rules, nftables" },
    Capability { number: 13, why: "NET_RAW: outer packets" },
    Capability { number: 38, why: "PERFMON: programs of the fast path" },
    Capability { number: 39, why: "BPF: programs of the fast path" },
];

struct Capability {
    number: u32,
    #[expect(dead_code, reason = "for who reads this list")]
    why: &'static str,
}

/// The highest capability that the kernel may know.
const LAST: u32 = 63;

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up what is not needed, for this thread and all that it will start.
///
/// # Errors
///
/// If the kernel refuses what every process may ask of it; everything before that is given up then.
pub fn give_up() -> io::Result<()> {
    // Keys are in memory: no core dump, no look into /proc by others of the same user.
    control(libc::PR_SET_DUMPABLE, 0)?;
    control(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    for number in (0..=LAST).filter(|number| kept(*number) == 0) {
        // Refused where there is no such capability, or no right to give up, which is less still.
        let _ = control(libc::PR_CAPBSET_DROP, number.into());
    }
    let mut header = Header { version: VERSION, pid: 0 };
    let mut words = [Words::default(); 2];
    // SAFETY: the header and both words are live, and of the layout that version 3 asks for.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) })?;
    for (half, words) in (0u32..).zip(&mut words) {
        let keep = (0..32).fold(0, |keep, bit| keep | (kept(half * 32 + bit) << bit));
        words.effective &= keep;
        words.permitted &= keep;
        words.inheritable &= keep;
    }
    // SAFETY: as above; the kernel only reads them.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) })?;
    calls::refuse()
}

/// 1 for what is kept.
fn kept(number: u32) -> u32 {
    u32::from(KEPT.iter().any(|kept| kept.number == number))
}

fn control(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    const NONE: libc::c_ulong = 0;
    // SAFETY: these options take one number and touch no memory of ours.
    check(unsafe { libc::prctl(option, argument, NONE, NONE, NONE) }.into())
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
