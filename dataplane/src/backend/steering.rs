//! Tells a TUN's queues apart by where a packet came from.
//!
//! A TUN hands out bare IP packets, without the interface they were received on. The kernel still
//! knows it when it chooses the queue, so a small program chooses the queue *by* that interface,
//! and the queue then says what rules call `in=`: 0 for this machine's own sockets, 1 for any
//! interface that no rule names, from 2 on one per named interface ([`mtun_policy::Ingress`]).
//!
//! An ingress may have several queues ([`Lot`]), each with a thread of its own. Which of them is told by
//! the packet's addresses and, right behind the IPv6 header, TCP's and UDP's ports: all packets of a
//! flow take the same one and stay in order, and so do the fragments of one packet.
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
    /// An ingress that the TUN has no queue for.
    #[error("there is no queue for ingress {ingress}, but for {ingresses} of them")]
    NoSuchIngress {
        /// The number asked for.
        ingress: u16,
        /// How many there are.
        ingresses: usize,
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

/// The queues of one ingress: so many, from this one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lot {
    pub first: u16,
    pub count: u16,
}

/// Where `struct __sk_buff` keeps the index of the receiving interface; 0 for local packets.
const INGRESS_IFINDEX: i16 = 36;
const PROG_LOAD: libc::c_int = 5;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;
/// `bpf_skb_load_bytes(skb, offset, to, octets)`: 0, or less if there are not so many.
const SKB_LOAD_BYTES: i32 = 26;
/// Enough for the verifier's last words on a program that has no loop.
const LOG_SIZE: usize = 16 * 1024;

/// Offsets into an IPv6 packet.
const NEXT_HEADER: i32 = 6;
const ADDRESSES: i32 = 8;
const PORTS: i32 = 40;
/// On the stack, below the frame pointer: as much as both addresses take.
const SCRATCH: i16 = -32;
/// An odd number with its bits spread, to multiply by (2^32 over the golden ratio).
const SPREAD: i32 = 0x9e37_79b9_u32.cast_signed();

/// Registers. Those from 6 on are kept by calls; 10 points behind the stack.
const RESULT: u8 = 0;
const PACKET: u8 = 6;
const FIRST: u8 = 7;
const COUNT: u8 = 8;
const HASH: u8 = 9;
const FRAME: u8 = 10;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

/// `r<to> = value`
const fn set(to: u8, value: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, value)
}

/// `r<to> = r<from>`
const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

/// `r<to> += r<from>`
const fn add(to: u8, from: u8) -> Instruction {
    instruction(0x0f, to, from, 0, 0)
}

/// `if r<register> == value, skip so many instructions`
const fn skip_if_equal(register: u8, value: i32, skip: i16) -> Instruction {
    instruction(0x15, register, 0, skip, value)
}

/// `if r<register> != value, skip so many instructions`
const fn skip_unless_equal(register: u8, value: i32, skip: i16) -> Instruction {
    instruction(0x55, register, 0, skip, value)
}

/// `RESULT = bpf_skb_load_bytes(PACKET, offset, FRAME + SCRATCH, octets)`
const fn load_bytes(offset: i32, octets: i32) -> [Instruction; 6] {
    [
        copy(1, PACKET),
        set(2, offset),
        copy(3, FRAME),
        instruction(0x07, 3, 0, 0, SCRATCH as i32),
        set(4, octets),
        instruction(0x85, 0, 0, 0, SKB_LOAD_BYTES),
    ]
}

/// `HASH ^= *(u64 *)(FRAME + SCRATCH + at)`
const fn stir_eight(at: i16) -> [Instruction; 2] {
    [instruction(0x79, 1, FRAME, SCRATCH + at, 0), instruction(0xaf, HASH, 1, 0, 0)]
}

/// The program for these lots: of local sockets, of interfaces that no rule names, and of named ones by
/// their index.
///
/// ```text
/// r2 = skb->ingress_ifindex
/// r7, r8 = lot;    if r2 == index   goto found    (once per interface; 0 for local)
/// r7, r8 = lot of others
/// found:
/// if r8 == 1       goto end
/// hash addresses, and ports right behind the header
/// r7 += hash % r8
/// end: return r7
/// ```
pub(super) fn program_for(local: Lot, other: Lot, named: &[(u32, Lot)]) -> Vec<Instruction> {
    let lot = |it: Lot| [set(FIRST, i32::from(it.first)), set(COUNT, i32::from(it.count))];
    let choices: Vec<_> = std::iter::once((0, local))
        .chain(named.iter().map(|(index, lot)| (index.cast_signed(), *lot)))
        .collect();
    let mut program = vec![copy(PACKET, 1), instruction(0x61, 2, 1, INGRESS_IFINDEX, 0)];
    for (done, (index, chosen)) in choices.iter().enumerate() {
        // Three instructions for each choice still to come, and the two that say "other".
        let to_found = (choices.len() - 1 - done) * 3 + 2;
        program.extend(lot(*chosen));
        program.push(skip_if_equal(2, *index, to_found.try_into().unwrap_or(i16::MAX)));
    }
    program.extend(lot(other));
    let spread = spread();
    program.push(skip_if_equal(COUNT, 1, spread.len() as i16));
    program.extend(spread);
    program.push(copy(RESULT, FIRST));
    program.push(instruction(0x95, 0, 0, 0, 0));
    program
}

/// Adds to `FIRST` which queue of the lot a flow has; nothing if that is no whole IPv6 header.
fn spread() -> Vec<Instruction> {
    let mut ports = Vec::from(load_bytes(PORTS, 4));
    ports.push(skip_unless_equal(RESULT, 0, 2));
    ports.push(instruction(0x61, 1, FRAME, SCRATCH, 0));
    ports.push(instruction(0xaf, HASH, 1, 0, 0));

    let mut rest = vec![set(HASH, 0)];
    rest.extend((0..4).flat_map(|eight| stir_eight(eight * 8)));
    rest.extend(load_bytes(NEXT_HEADER, 1));
    let finish = [
        // Each bit of the hash stands for all of them: HASH ^= HASH >> 32, multiplied, its upper half.
        copy(1, HASH),
        instruction(0x77, 1, 0, 0, 32),
        instruction(0xaf, HASH, 1, 0, 0),
        instruction(0x24, HASH, 0, 0, SPREAD),
        instruction(0x77, HASH, 0, 0, 16),
        instruction(0x9f, HASH, COUNT, 0, 0),
        add(FIRST, HASH),
    ];
    rest.push(instruction(0x71, 1, FRAME, SCRATCH, 0));
    rest.push(skip_if_equal(1, 6, 1));
    rest.push(skip_unless_equal(1, 17, ports.len() as i16));
    rest.extend(ports);
    rest.extend(finish);

    let mut all = Vec::from(load_bytes(ADDRESSES, 32));
    all.push(skip_unless_equal(RESULT, 0, rest.len() as i16));
    all.extend(rest);
    all
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

    /// A packet as the program sees it, from such an interface.
    struct Seen<'p> {
        ingress: u32,
        packet: &'p [u8],
    }

    /// Runs the kinds of instruction that the generator knows.
    fn run(program: &[Instruction], seen: &Seen<'_>) -> u64 {
        let (mut r, mut stack, mut at) = ([0_u64; 11], [0_u8; 32], 0);
        loop {
            let it = program[at];
            at += 1;
            let (to, from) = (usize::from(it.registers & 15), usize::from(it.registers >> 4));
            let value = i64::from(it.immediate).cast_unsigned();
            let place = usize::try_from(it.offset - SCRATCH).unwrap_or(0);
            let skip = |taken: bool| if taken { it.offset.cast_unsigned().into() } else { 0 };
            match it.code {
                0xb7 => r[to] = value,
                0xbf => r[to] = r[from],
                0x07 => r[to] = r[to].wrapping_add(value),
                0x0f => r[to] = r[to].wrapping_add(r[from]),
                0xaf => r[to] ^= r[from],
                0x77 => r[to] >>= value,
                0x24 => r[to] = u64::from((r[to] as u32).wrapping_mul(value as u32)),
                0x9f => r[to] %= r[from],
                0x15 => at += skip(r[to] == value),
                0x55 => at += skip(r[to] != value),
                0x61 if from == 1 => r[to] = seen.ingress.into(),
                0x61 => r[to] = u32::from_le_bytes(stack[place..][..4].try_into().unwrap()).into(),
                0x71 => r[to] = stack[place].into(),
                0x79 => r[to] = u64::from_le_bytes(stack[place..][..8].try_into().unwrap()),
                0x85 => {
                    let (offset, octets) = (r[2] as usize, r[4] as usize);
                    let read = seen.packet.get(offset..offset + octets);
                    read.inspect(|it| stack[..octets].copy_from_slice(it));
                    r[0] = if read.is_some() { 0 } else { u64::MAX };
                }
                0x95 => return r[0],
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn one(first: u16) -> Lot {
        Lot { first, count: 1 }
    }

    #[test]
    fn ingress_chooses_the_queue() {
        let many: Vec<_> = (0..254).map(|i| (1000 + i, one(2 + i as u16))).collect();
        let none: &[(u32, Lot)] = &[];
        let two = [(4, one(2)), (9, one(3))];
        let cases = [
            ("local, nothing named", none, 0, 0),
            ("other, nothing named", none, 7, 1),
            ("local", &two, 0, 0),
            ("first named", &two, 4, 2),
            ("last named", &two, 9, 3),
            ("not named", &two, 5, 1),
            ("as many as a TUN has queues", &many, 1253, 255),
            ("one past them", &many, 1254, 1),
        ];
        for (what, named, ingress, want) in cases {
            let program = program_for(one(0), one(1), named);
            assert_eq!(run(&program, &Seen { ingress, packet: &[] }), want, "{what}");
        }
    }

    /// A packet of this kind between two addresses that end in these numbers.
    fn packet(next: u8, ends: (u8, u8), ports: (u16, u16)) -> Vec<u8> {
        let mut packet = vec![0; 48];
        (packet[0], packet[6], packet[7]) = (0x60, next, 64);
        (packet[23], packet[39]) = ends;
        packet[40..42].copy_from_slice(&ports.0.to_be_bytes());
        packet[42..44].copy_from_slice(&ports.1.to_be_bytes());
        packet
    }

    #[test]
    fn the_flows_of_an_ingress_are_spread_over_its_queues() {
        let lots = [Lot { first: 0, count: 4 }, Lot { first: 4, count: 4 }];
        let program = program_for(lots[0], lots[1], &[(9, Lot { first: 8, count: 3 })]);
        let queue = |ingress, packet: &[u8]| run(&program, &Seen { ingress, packet });
        for (ingress, queues) in [(0, 0..4), (7, 4..8), (9, 8..11)] {
            let mut seen = [0_u32; 12];
            for port in 0..1200 {
                let chosen = queue(ingress, &packet(17, (1, 2), (40_000 + port, 80)));
                assert!(queues.contains(&chosen), "{chosen}");
                seen[chosen as usize] += 1;
            }
            let least = seen[queues.start as usize..queues.end as usize].iter().min();
            assert!(*least.unwrap() > 200, "{seen:?}");
        }
        // What is of one flow, or may be, is of one queue.
        let flow = packet(6, (1, 2), (5, 80));
        let mut later = flow.clone();
        (later[1], later[7], later[47]) = (0xb8, 3, 9);
        assert_eq!(
            queue(0, &flow),
            queue(0, &later),
            "class, hop limit and what is behind the ports"
        );
        let fragments = [(1, 2), (3, 4)].map(|ports| queue(0, &packet(44, (1, 2), ports)));
        assert_eq!(fragments[0], fragments[1], "fragments have no ports");
        for length in [0, 39] {
            assert_eq!(queue(7, &flow[..length]), 4, "no whole header");
        }
        assert!(queue(7, &flow[..43]) >= 4, "no ports");
    }
}
