//! Tells a TUN's queues apart by where a packet came from.
//!
//! A TUN hands out bare IP packets, without the interface they were received on. The kernel still
//! knows it when it chooses the queue, so a small program chooses the queue *by* that interface,
//! and the queue number then says what rules call `in=`: 0 for this machine's own sockets, 1 for
//! any interface that no rule names, from 2 on one per named interface
//! ([`mtun_policy::Ingress`]).
//!
//! The program is a socket filter in eBPF, generated instruction by instruction, so building it
//! needs no compiler and loading it needs no library.

use std::io;
use std::os::fd::OwnedFd;

use super::sys;

/// Why queues cannot be told apart. Rules that match on ingress are then impossible.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// This kernel knows no `bpf(2)` or no steering programs for TUNs.
    #[error("this kernel has no steering programs for TUN interfaces: {0}")]
    Unsupported(io::Error),
    /// `CAP_BPF`, `CAP_NET_ADMIN` or a security policy is in the way.
    #[error("not allowed to load a steering program: {0}")]
    NotPermitted(io::Error),
    /// A queue number that the TUN does not have.
    #[error("queue {queue} does not exist, the interface has {queues}")]
    NoSuchQueue {
        /// The number asked for.
        queue: u16,
        /// How many there are.
        queues: usize,
    },
    /// The kernel's verifier refused the program; its words.
    #[error("the kernel refused the steering program: {0}")]
    Rejected(String),
    /// Anything else.
    #[error("steering program: {0}")]
    Os(io::Error),
}

impl From<io::Error> for SteeringError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EINVAL | libc::ENOTTY | libc::EOPNOTSUPP) => {
                Self::Unsupported(error)
            }
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted(error),
            _ => Self::Os(error),
        }
    }
}

/// One eBPF instruction as the kernel reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// Destination register in the low four bits, source register in the high four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Where `struct __sk_buff` keeps the index of the receiving interface; 0 for local packets.
const INGRESS_IFINDEX: i16 = 36;
const QUEUE_OF_LOCAL: i32 = 0;
const QUEUE_OF_OTHER: i32 = 1;
const PROG_LOAD: libc::c_int = 5;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;
/// Enough for the verifier's last words on a program that has no loop.
const LOG_SIZE: usize = 16 * 1024;

/// `r<register> = value`
const fn set(register: u8, value: i32) -> Instruction {
    Instruction { code: 0xb7, registers: register, offset: 0, immediate: value }
}

/// `if r<register> == value, skip so many instructions`
const fn skip_if_equal(register: u8, value: i32, skip: i16) -> Instruction {
    Instruction { code: 0x15, registers: register, offset: skip, immediate: value }
}

/// The program for these `(interface index, queue)` pairs.
///
/// ```text
/// r2 = skb->ingress_ifindex
/// r0 = 0;      if r2 == 0       goto end
/// r0 = queue;  if r2 == index   goto end      (once per pair)
/// r0 = 1
/// end: return r0
/// ```
pub(super) fn program_for(named: &[(u32, u16)]) -> Vec<Instruction> {
    let choices: Vec<(i32, i32)> = std::iter::once((0, QUEUE_OF_LOCAL))
        .chain(named.iter().map(|(index, queue)| (index.cast_signed(), i32::from(*queue))))
        .collect();
    let load = Instruction { code: 0x61, registers: 0x12, offset: INGRESS_IFINDEX, immediate: 0 };
    let mut program = vec![load];
    for (done, (index, queue)) in choices.iter().enumerate() {
        // Two instructions for each choice still to come, and the one that says "other".
        let to_end = (choices.len() - 1 - done) * 2 + 1;
        program.push(set(0, *queue));
        program.push(skip_if_equal(2, *index, to_end.try_into().unwrap_or(i16::MAX)));
    }
    program.push(set(0, QUEUE_OF_OTHER));
    program.push(Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 });
    program
}

/// Loads the program into the kernel.
pub(super) fn load(program: &[Instruction]) -> Result<OwnedFd, SteeringError> {
    /// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest as zero.
    #[repr(C)]
    struct Attributes {
        prog_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    let call = |log: &mut [u8]| {
        let attributes = Attributes {
            prog_type: PROG_TYPE_SOCKET_FILTER,
            instruction_count: program.len() as u32,
            instructions: program.as_ptr().expose_provenance() as u64,
            license: c"MIT OR Apache-2.0".as_ptr().expose_provenance() as u64,
            log_level: u32::from(!log.is_empty()),
            log_size: log.len() as u32,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
            kernel_version: 0,
            flags: 0,
            name: *b"mtun_steering\0\0\0",
        };
        // SAFETY: the addresses in `attributes` are of live memory of the lengths beside them, and
        // the kernel writes to `log` only.
        let fd = unsafe {
            libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Attributes>())
        };
        sys::check(fd as libc::c_int).map(sys::own)
    };
    call(&mut []).or_else(|error| {
        // Asked again with a log, a program that was refused says why.
        let mut log = vec![0; LOG_SIZE];
        call(&mut log).map_err(|_| {
            let text = log.split(|octet| *octet == 0).next().unwrap_or_default();
            match String::from_utf8_lossy(text).trim() {
                "" => error.into(),
                reason => SteeringError::Rejected(reason.to_owned()),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the three kinds of instruction that the generator knows.
    fn run(program: &[Instruction], ingress: u32) -> i32 {
        let (mut r0, mut r2, mut at) = (-1, 0, 0);
        loop {
            let it = program[at];
            at += 1;
            match (it.code, it.registers) {
                (0x61, 0x12) => r2 = ingress.cast_signed(),
                (0xb7, 0) => r0 = it.immediate,
                (0x15, 2) if r2 == it.immediate => at += usize::try_from(it.offset).unwrap(),
                (0x15, 2) => {}
                (0x95, 0) => return r0,
                other => panic!("unknown instruction {other:?}"),
            }
        }
    }

    #[test]
    fn ingress_chooses_the_queue() {
        let many: Vec<(u32, u16)> = (0..254).map(|i| (1000 + i, 2 + i as u16)).collect();
        let none: &[(u32, u16)] = &[];
        let cases = [
            ("local, nothing named", none, 0, 0),
            ("other, nothing named", none, 7, 1),
            ("local", &[(4, 2), (9, 3)], 0, 0),
            ("first named", &[(4, 2), (9, 3)], 4, 2),
            ("last named", &[(4, 2), (9, 3)], 9, 3),
            ("not named", &[(4, 2), (9, 3)], 5, 1),
            ("as many as a TUN has queues", &many, 1253, 255),
            ("one past them", &many, 1254, 1),
        ];
        for (what, named, ingress, want) in cases {
            assert_eq!(run(&program_for(named), ingress), want, "{what}");
        }
    }
}
