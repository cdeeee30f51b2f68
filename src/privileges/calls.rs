//! System calls that nobody here makes, and that the kernel refuses from then on (seccomp).
//!
//! The unit allows a list and refuses the rest. This is for every other way to start the daemon: by
//! hand, by procd, in a container. It refuses what would be of use to somebody who has taken the
//! process over and to nobody else: to look into others, to change the machine, to enter or make
//! namespaces. What the daemon starts (`nft`, programs that tell facts) is refused the same.
//!
//! A list of what is allowed would have to follow every C library and every `nft`, and a daemon on
//! the road must not die of an update; under the service manager that list is the unit's, which a
//! test holds against what is called.
//!
//! Kernels from 5.11 know by number which calls pass, so that passing costs nothing.

use std::io;

use libc::{sock_filter, sock_fprog};

/// Refused with `EPERM`, whatever its arguments are.
const REFUSED: &[libc::c_long] = &[
    // Others' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // The kernel itself, and the machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // What is mounted where.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // Namespaces: a right in a new one reaches parts of the kernel that nobody needs.
    libc::SYS_unshare,
    libc::SYS_setns,
    // Keys of the kernel's, and ways that were used to get more out of it than was meant.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_vmsplice,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

/// Flags of `clone` that make a namespace.
const NEW_NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// `AUDIT_ARCH_*` of `linux/audit.h`: numbers mean something else in another processor's calls.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
/// Elsewhere nobody has tried it.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

/// Numbers from here on are those of x32, a second list of the same processor.
#[cfg(target_arch = "x86_64")]
const OTHER_NUMBERS: u32 = 0x4000_0000;
/// None has such a number.
#[cfg(not(target_arch = "x86_64"))]
const OTHER_NUMBERS: u32 = u32::MAX;

/// Places in `struct seccomp_data`: the call's number, the processor, the first argument's lower half
/// (both processors keep that first).
const NUMBER: u32 = 0;
const PROCESSOR: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// Has the kernel refuse them, to this thread and all that it will start. Nothing is refused on a
/// processor of which nobody knows its numbers.
///
/// # Errors
///
/// If the kernel has no such filters, or `no_new_privs` is not set.
pub(super) fn refuse() -> io::Result<()> {
    const NONE: libc::c_ulong = 0;
    const FILTER: libc::c_ulong = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
    let Some(processor) = ARCHITECTURE else { return Ok(()) };
    let mut program = program(processor);
    let length = u16::try_from(program.len()).expect("some sixty instructions");
    let filter = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the program is live, as long as it says, and the kernel copies it.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, FILTER, &raw const filter, NONE, NONE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One instruction; `yes` and `no` are how many to skip.
fn step(code: u32, operand: u32, yes: u8, no: u8) -> sock_filter {
    let code = u16::try_from(code).expect("codes of classic BPF have sixteen bits");
    sock_filter { code, jt: yes, jf: no, k: operand }
}

fn load(place: u32) -> sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, place, 0, 0)
}

fn compare(how: u32, operand: u32, yes: u8, no: u8) -> sock_filter {
    step(libc::BPF_JMP | how | libc::BPF_K, operand, yes, no)
}

fn answer(word: u32) -> sock_filter {
    step(libc::BPF_RET | libc::BPF_K, word, 0, 0)
}

fn error(number: libc::c_int) -> sock_filter {
    answer(libc::SECCOMP_RET_ERRNO | number.unsigned_abs())
}

/// The filter:
///
/// ```text
///        another processor's call?        yes: the end of the process
///        x32's?                           yes: EPERM
///        REFUSED, one after the other     yes: EPERM
///        clone3?                          yes: ENOSYS
///        clone?                           no: allowed
///        with a new namespace?            yes: EPERM, no: allowed
/// ```
///
/// The arguments of `clone3` lie in memory, where no filter looks; C libraries take `clone` if there
/// is none.
fn program(processor: u32) -> Vec<sock_filter> {
    // Behind the list: clone3, clone, its flags, their test, allowed; then EPERM.
    const TO_EPERM: usize = 5;
    let before_eperm = |left: usize| u8::try_from(left + TO_EPERM).expect("a list that short");
    let number = |call: libc::c_long| u32::try_from(call).expect("numbers of calls are small");
    let mut program = vec![
        load(PROCESSOR),
        compare(libc::BPF_JEQ, processor, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    program.push(compare(libc::BPF_JGE, OTHER_NUMBERS, before_eperm(REFUSED.len()), 0));
    for (at, call) in REFUSED.iter().enumerate() {
        let left = REFUSED.len() - 1 - at;
        program.push(compare(libc::BPF_JEQ, number(*call), before_eperm(left), 0));
    }
    program.extend([
        compare(libc::BPF_JEQ, number(libc::SYS_clone3), 5, 0),
        compare(libc::BPF_JEQ, number(libc::SYS_clone), 0, 2),
        load(FIRST_ARGUMENT),
        compare(libc::BPF_JSET, NEW_NAMESPACES.unsigned_abs(), 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        error(libc::EPERM),
        error(libc::ENOSYS),
    ]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a call whose arguments are all numbers; what it failed with, or `None`.
    fn call(number: libc::c_long, first: libc::c_int) -> Option<i32> {
        const NONE: libc::c_long = 0;
        let first = libc::c_long::from(first);
        // SAFETY: none of the calls below touches memory by these arguments.
        match unsafe { libc::syscall(number, first, NONE, NONE, NONE, NONE) } {
            -1 => io::Error::last_os_error().raw_os_error(),
            // SAFETY: a process that ought not to be there ends at once.
            0 if number == libc::SYS_clone => unsafe { libc::_exit(0) },
            _ => None,
        }
    }

    /// req T-31. A filter belongs to a thread: this one's ends with it.
    #[test]
    fn what_nobody_needs_is_refused_and_the_rest_goes_on() {
        // SAFETY: a process without flags ends at once, as above.
        assert_eq!(call(libc::SYS_unshare, 0), None, "nothing is unshared by this");
        let filtered = std::thread::spawn(|| {
            // SAFETY: takes numbers only.
            let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            assert_eq!(set, 0);
            refuse().unwrap();
            for refused in REFUSED {
                assert_eq!(call(*refused, 0), Some(libc::EPERM), "{refused}");
            }
            assert_eq!(call(libc::SYS_clone3, 0), Some(libc::ENOSYS));
            let new = libc::CLONE_NEWUSER | libc::SIGCHLD;
            assert_eq!(call(libc::SYS_clone, new), Some(libc::EPERM));
            // Threads and programs are still started.
            std::thread::spawn(|| assert_eq!(call(libc::SYS_unshare, 0), Some(libc::EPERM)))
                .join()
                .unwrap();
            let status = std::process::Command::new("cat").arg("/proc/self/status").output();
            let status = String::from_utf8(status.unwrap().stdout).unwrap();
            let line = status.lines().find(|line| line.starts_with("Seccomp:"));
            assert_eq!(line.unwrap().split_whitespace().last(), Some("2"), "{status}");
        });
        filtered.join().unwrap();
        assert_eq!(call(libc::SYS_unshare, 0), None, "only who asked for it");
    }

    /// Every way through ends, and every jump stays inside.
    #[test]
    fn every_jump_leads_where_it_should() {
        let program = program(ARCHITECTURE.unwrap_or_default());
        let returns = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap();
        let jumps = u16::try_from(libc::BPF_JMP).unwrap();
        let eperm = program.len() - 2;
        for (at, step) in program.iter().enumerate() {
            let is_jump = step.code & 0x07 == jumps;
            let next = |skip: u8| at + 1 + usize::from(skip);
            if is_jump {
                assert!(next(step.jt) < program.len() && next(step.jf) < program.len(), "{at}");
            }
            let listed = (5..5 + REFUSED.len()).contains(&at) || at == 4;
            assert!(!listed || (is_jump && next(step.jt) == eperm), "{at}");
        }
        assert_eq!(program.last().unwrap().code, returns);
        assert_eq!(program[eperm].k, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs());
    }
}
