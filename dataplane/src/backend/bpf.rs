//! The fast path's programs in this kernel: loaded, attached, their maps written and read.
//!
//! Nothing is decided here. Maps are written by key and read in batches; what a flow carried is
//! taken out together with the flow, so that no packet is counted twice or lost.
//!
//! The programs are C beside this crate (`bpf/mtun.bpf.c`), and the object is checked in, so that
//! building needs no compiler for them. They are attached by links that end with [`Bpf`],
//! and only if the process is killed after a while ([`Pins`]).

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aya::maps::{Map, MapData};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, TestRun, TestRunOptions,
};
use aya::{Ebpf, EbpfError, EbpfLoader};

use super::pins::{NoPins, Pinned, Pins};
use super::route_lookup::name_of_ethernet;
use super::sys;
use crate::abi::{FastConfig, FastFlow, FastKey, FastOutcome, FastRoute, Shortcut};
use crate::fast_path::{Exit, FastPath};
use crate::registration::PathId;

/// The object, built by `bpf/build.sh`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/mtun.bpf.o");

/// Entries of the map of paths.
pub const FAST_PATHS: u32 = 4096;

/// Flows read by one call into the kernel.
const BATCH: usize = 512;

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_GET_NEXT_KEY: libc::c_int = 4;
const MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const MAP_LOOKUP_BATCH: libc::c_int = 24;

/// Why there is no fast path.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// `CAP_BPF`, `CAP_NET_ADMIN` or a security policy is in the way.
    #[error("not allowed to load programs into the kernel")]
    NotPermitted,
    /// The kernel has no BPF, no links for tc (before 6.6), or refuses the programs.
    #[error("this kernel does not take the programs: {0}")]
    Unsupported(String),
    /// A map could not be read or written.
    #[error("{step}: {error}")]
    Os {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl BpfError {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut causes = vec![error.to_string()];
        let mut next = error.source();
        while let Some(cause) = next {
            if let Some(error) = cause.downcast_ref::<io::Error>()
                && error.raw_os_error() == Some(libc::EPERM)
            {
                return Self::NotPermitted;
            }
            causes.push(cause.to_string());
            next = cause.source();
        }
        Self::Unsupported(causes.join(": "))
    }
}

impl From<EbpfError> for BpfError {
    fn from(error: EbpfError) -> Self {
        Self::of(&error)
    }
}

impl From<ProgramError> for BpfError {
    fn from(error: ProgramError) -> Self {
        Self::of(&error)
    }
}

/// What a program did with a packet that never was on a wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The packet as it would go on, link header included.
    pub frame: Vec<u8>,
    /// Whether it went on by the fast path; otherwise it is left to the daemon.
    pub taken: bool,
    /// How long one run took.
    pub took: Duration,
}

/// Where a program stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// At the way out of the tunnel interface.
    Out,
    /// At the way in of an uplink.
    In,
    /// At the way in of an interface behind this machine: the shortcut.
    Front,
    /// At its way out: notes what has passed there.
    Behind,
}

impl Hook {
    const ALL: [Self; 4] = [Self::Out, Self::In, Self::Front, Self::Behind];

    /// Its name in files.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Front => "front",
            Self::Behind => "behind",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Out => "mtun_out",
            Self::In => "mtun_in",
            Self::Front => "mtun_front",
            Self::Behind => "mtun_behind",
        }
    }

    fn side(self) -> TcAttachType {
        match self {
            Self::Out | Self::Behind => TcAttachType::Egress,
            Self::In | Self::Front => TcAttachType::Ingress,
        }
    }
}

/// The programs and their maps.
pub struct Bpf {
    programs: Mutex<Programs>,
    /// The last one that a path was written with.
    turn: AtomicU32,
    config: Mutex<FastConfig>,
    configuration: OwnedFd,
    flows: OwnedFd,
    room: usize,
    paths: OwnedFd,
    doors: OwnedFd,
    outcomes: OwnedFd,
}

struct Programs {
    object: Ebpf,
    links: Vec<(u32, Hook, Attached)>,
    /// Where links are kept that outlive this process.
    pins: Result<Pins, NoPins>,
}

/// A program where it stands; taken off when dropped.
enum Attached {
    Pinned(#[expect(dead_code, reason = "ends when it is dropped")] Pinned),
    Own(#[expect(dead_code, reason = "ends when it is dropped")] SchedClassifierLink),
}

impl Bpf {
    /// Loads the programs for the tunnel interface of this index, with room for so many flows.
    /// `link_header` is what stands in front of packets that leave it: nothing on a TUN, 14 octets
    /// on Ethernet.
    ///
    /// Nothing is attached, and without a lease ([`Self::configure`]) nothing is taken.
    pub fn load(tunnel: u32, flows: u32, link_header: u32) -> Result<Self, BpfError> {
        let mut object = EbpfLoader::new()
            .map_max_entries("mtun_flows", flows)
            .override_global("mtun_tunnel_header", &link_header, true)
            .load(OBJECT)?;
        for hook in Hook::ALL {
            program_mut(&mut object, hook).load()?;
        }
        let mut take = |name| take_map(&mut object, name);
        Ok(Self {
            flows: take("mtun_flows")?,
            room: flows as usize,
            paths: take("mtun_paths")?,
            configuration: take("mtun_config")?,
            config: Mutex::new(FastConfig { tunnel, ..FastConfig::default() }),
            doors: take("mtun_doors")?,
            outcomes: take("mtun_outcomes")?,
            programs: Mutex::new(Programs { object, links: Vec::new(), pins: Err(NoPins::Off) }),
            turn: AtomicU32::default(),
        })
    }

    /// Lets everything that is attached from now on outlive this process if it is killed, and takes
    /// over from one that was: see [`Pins`].
    pub fn outlive(&self, pins: Result<Pins, NoPins>) {
        self.programs().pins = pins;
    }

    /// Why nothing outlives this process if it is killed; `None` if it does.
    pub fn no_pins(&self) -> Option<String> {
        self.programs().pins.as_ref().err().map(ToString::to_string)
    }

    /// Attaches the way out to the tunnel interface of this name and index.
    pub fn attach_tunnel(&self, name: &str, index: u32) -> Result<(), BpfError> {
        attach(&mut self.programs(), Hook::Out, name, index)
    }

    /// Attaches the way in to the Ethernet interface of this name and index.
    pub fn attach_uplink(&self, name: &str, index: u32) -> Result<(), BpfError> {
        attach(&mut self.programs(), Hook::In, name, index)
    }

    /// Takes the way in off the interface of this index.
    pub fn detach(&self, index: u32) {
        self.programs().links.retain(|(at, hook, _)| (*at, *hook) != (index, Hook::In));
    }

    /// Has the shortcut's programs at these interfaces and at no others. Where they cannot be (no
    /// Ethernet, gone) packets go the normal way.
    pub fn set_fronts(&self, interfaces: &BTreeSet<u32>) {
        let programs = &mut *self.programs();
        let is_front = |hook: Hook| matches!(hook, Hook::Front | Hook::Behind);
        programs.links.retain(|(at, hook, _)| !is_front(*hook) || interfaces.contains(at));
        for &index in interfaces {
            if programs.links.iter().any(|(at, hook, _)| *at == index && is_front(*hook)) {
                continue;
            }
            let Some(name) = name_of_ethernet(index) else { continue };
            for hook in [Hook::Behind, Hook::Front] {
                // Asked for again with the next sweep.
                let _ = attach(programs, hook, &name, index);
            }
        }
    }

    /// Ends what an earlier process left: see [`Pins`].
    pub fn end_former(&self) {
        if let Ok(pins) = &mut self.programs().pins {
            pins.end_former();
        }
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        // Whoever panicked under the lock has not left a link half made.
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut FastConfig)) -> io::Result<()> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut config);
        update(self.configuration.as_fd(), &0_u32, &*config)
    }

    /// How many flows and paths it holds.
    pub fn room(&self) -> (usize, u32) {
        (self.room, FAST_PATHS)
    }

    /// Says in which epoch flows have to be, and until when they hold.
    pub fn configure(&self, epoch: u64, lease_ns: u64) -> io::Result<()> {
        self.change(|config| (config.epoch, config.lease_ns) = (epoch, lease_ns))
    }

    /// Says which ingress packets have that were received on these interfaces. Those of others
    /// have 1, those of local sockets 0. What was installed before has to end first, see
    /// [`Engine::forget_fast`](crate::Engine::forget_fast).
    pub fn set_doors(&self, doors: &[(u32, u8)]) -> io::Result<()> {
        let mut held = Vec::new();
        let mut last = None;
        while let Some(interface) = next_key(self.doors.as_fd(), last)? {
            held.push(interface);
            last = Some(interface);
        }
        for interface in held {
            if doors.iter().all(|(named, _)| *named != interface) {
                delete(self.doors.as_fd(), &interface)?;
            }
        }
        for (interface, ingress) in doors {
            update(self.doors.as_fd(), interface, &u32::from(*ingress))?;
        }
        let (door, ingress) = doors.first().copied().unwrap_or_default();
        self.change(|config| {
            config.doors = doors.len() as u32;
            (config.door, config.door_ingress) = (door, ingress.into());
        })
    }

    /// Says which flows may take the shortcut. Those that did have to pass the kernel's own
    /// forwarding once more.
    pub fn set_shortcut(&self, shortcut: Shortcut) -> io::Result<()> {
        self.change(|config| {
            config.shortcut = shortcut as u32;
            config.round = config.round.wrapping_add(1);
        })
    }

    /// Has every flow pass the kernel's own forwarding once more before it takes the shortcut again.
    pub fn next_round(&self) -> io::Result<()> {
        self.change(|config| config.round = config.round.wrapping_add(1))
    }

    /// The present round.
    pub fn round(&self) -> u32 {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).round
    }

    /// What the last path was written with.
    pub fn turn(&self) -> u32 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Writes a path; all its flows follow with their next packet.
    pub fn set_path(&self, path: u32, route: &FastRoute) -> io::Result<()> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        update(self.paths.as_fd(), &path, &FastRoute { turn, ..*route })
    }

    /// Adds or replaces one direction of a flow, with what it counts.
    pub fn put(&self, key: &FastKey, flow: &FastFlow) -> io::Result<()> {
        update(self.flows.as_fd(), key, flow)
    }

    /// Nanoseconds of the clock that flows are stamped by.
    pub fn clock(&self) -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the time is written to a live `timespec`; this clock always exists.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
    }

    /// Takes one direction of a flow out, with what it carried.
    pub fn take(&self, key: &FastKey) -> io::Result<Option<FastFlow>> {
        let mut flow = FastFlow::default();
        let value = (&raw mut flow).expose_provenance() as u64;
        let element = Element { map: fd(&self.flows), key: address(key), value, ..EMPTY };
        // SAFETY: the key is live, the value has room for the map's values and is plain numbers.
        match unsafe { call(MAP_LOOKUP_AND_DELETE_ELEM, &element) } {
            Ok(()) => Ok(Some(flow)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Shows every flow with what it has carried up to now. Those that are added or taken out
    /// meanwhile may be missed or shown twice.
    pub fn each(&self, show: &mut dyn FnMut(&FastKey, &FastFlow)) -> io::Result<()> {
        let mut keys = vec![FastKey::default(); BATCH];
        let mut flows = vec![FastFlow::default(); BATCH];
        let (mut from, mut to) = (0_u32, 0_u32);
        let mut first = true;
        loop {
            let mut batch = Batch {
                from: if first { 0 } else { (&raw const from).expose_provenance() as u64 },
                to: (&raw mut to).expose_provenance() as u64,
                keys: keys.as_mut_ptr().expose_provenance() as u64,
                values: flows.as_mut_ptr().expose_provenance() as u64,
                count: BATCH as u32,
                map: fd(&self.flows),
                ..NO_BATCH
            };
            // SAFETY: keys and values have room for as many entries as `count` says, `from` and
            // `to` for the position in a hash map, four octets; all of it is plain numbers.
            let result = unsafe { call_mut(MAP_LOOKUP_BATCH, &mut batch) };
            let at_end = match result {
                Ok(()) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) => return Err(error),
            };
            let read = (batch.count as usize).min(BATCH);
            keys[..read].iter().zip(&flows[..read]).for_each(|(key, flow)| show(key, flow));
            if at_end {
                return Ok(());
            }
            (from, first) = (to, false);
        }
    }

    /// How often each outcome occurred, on all processors.
    pub fn outcomes(&self) -> io::Result<Vec<(FastOutcome, u64)>> {
        let processors = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let mut counts = vec![0_u64; processors];
        let mut sums = Vec::with_capacity(FastOutcome::ALL.len());
        for (index, outcome) in (0_u32..).zip(FastOutcome::ALL) {
            let value = counts.as_mut_ptr().expose_provenance() as u64;
            let element = Element { map: fd(&self.outcomes), key: address(&index), value, ..EMPTY };
            // SAFETY: the key is live and the value has room for one number of each processor.
            unsafe { call(MAP_LOOKUP_ELEM, &element) }?;
            sums.push((*outcome, counts.iter().sum()));
        }
        Ok(sums)
    }

    /// Runs a program on a frame that was never on a wire, as often as `repeat` says. The frame has
    /// a link header of Ethernet, and was received on the interface `ingress`, if that is not 0.
    pub fn try_out(
        &self,
        hook: Hook,
        frame: &[u8],
        ingress: u32,
        repeat: u32,
    ) -> Result<Tried, BpfError> {
        let programs = self.programs();
        let program = program(&programs.object, hook);
        let mut out = vec![0; frame.len() + 256];
        // `struct __sk_buff` up to what may be set: the index of the receiving interface.
        let mut context = [0_u8; 192];
        context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4].copy_from_slice(&ingress.to_ne_bytes());
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        options.repeat = repeat;
        let result = program.test_run(options)?;
        out.truncate(result.data_size_out as usize);
        let taken = result.return_value == REDIRECT;
        Ok(Tried { frame: out, taken, took: result.duration })
    }
}

/// Where `struct __sk_buff` keeps the index of the receiving interface.
const INGRESS_IFINDEX: usize = 36;

/// `TC_ACT_REDIRECT`.
const REDIRECT: u32 = 7;

/// The fast path of one tunnel interface, by these programs.
pub struct BpfPath {
    bpf: Arc<Bpf>,
    exit: Box<ExitOf>,
}

/// How packets of a path leave that have these outer addresses.
pub type ExitOf = dyn Fn(PathId, (Ipv6Addr, Ipv6Addr)) -> Option<Exit> + Send + Sync;

impl BpfPath {
    /// The programs and who knows how packets leave.
    pub fn new(bpf: Arc<Bpf>, exit: Box<ExitOf>) -> Self {
        Self { bpf, exit }
    }
}

impl fmt::Debug for BpfPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bpf.fmt(f)
    }
}

impl FastPath for BpfPath {
    fn clock(&self) -> u64 {
        self.bpf.clock()
    }

    fn room(&self) -> (usize, u32) {
        self.bpf.room()
    }

    fn configure(&self, epoch: u64, lease_ns: u64) -> io::Result<()> {
        self.bpf.configure(epoch, lease_ns)
    }

    fn exit(&self, path: PathId, ends: (Ipv6Addr, Ipv6Addr)) -> Option<Exit> {
        (self.exit)(path, ends)
    }

    fn set_path(&self, path: u32, route: &FastRoute) -> io::Result<()> {
        self.bpf.set_path(path, route)
    }

    fn put(&self, key: &FastKey, flow: &FastFlow) -> io::Result<()> {
        self.bpf.put(key, flow)
    }

    fn take(&self, key: &FastKey) -> io::Result<Option<FastFlow>> {
        self.bpf.take(key)
    }

    fn each(&self, show: &mut dyn FnMut(&FastKey, &FastFlow)) -> io::Result<()> {
        self.bpf.each(show)
    }

    fn fronts(&self, interfaces: &BTreeSet<u32>) {
        self.bpf.set_fronts(interfaces);
    }

    fn succeed(&self) {
        self.bpf.end_former();
    }

    fn knows_straight(&self) -> bool {
        true
    }
}

impl fmt::Debug for Bpf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let programs = self.programs();
        let at: Vec<_> = programs.links.iter().map(|(index, hook, _)| (index, hook)).collect();
        f.debug_struct("Bpf").field("attached", &at).finish_non_exhaustive()
    }
}

fn attach(programs: &mut Programs, hook: Hook, name: &str, index: u32) -> Result<(), BpfError> {
    let Programs { object, links, pins } = programs;
    let program = program_mut(object, hook);
    let former = pins.as_ref().ok().and_then(|pins| pins.former(hook, index));
    let order = match former.map(LinkOrder::before_link) {
        Some(before) => before.map_err(|error| BpfError::of(&error))?,
        None => LinkOrder::default(),
    };
    let mut attach = |order| {
        let link = program.attach_with_options(name, hook.side(), TcAttachOptions::TcxOrder(order));
        program.take_link(link?)
    };
    let mut link = attach(order)?;
    if let Ok(kept) = pins {
        match kept.pin(link, hook, index) {
            Ok(pinned) => {
                links.push((index, hook, Attached::Pinned(pinned)));
                return Ok(());
            }
            // The link is gone with the attempt.
            Err(error) => {
                let path = kept.directory().to_path_buf();
                *pins = Err(NoPins::Os { path, error });
                link = attach(LinkOrder::default())?;
            }
        }
    }
    links.push((index, hook, Attached::Own(link)));
    Ok(())
}

fn program_mut(object: &mut Ebpf, hook: Hook) -> &mut SchedClassifier {
    let program = object.program_mut(hook.program()).expect("the object has all programs");
    program.try_into().expect("all are classifiers")
}

fn program(object: &Ebpf, hook: Hook) -> &SchedClassifier {
    let program = object.program(hook.program()).expect("the object has all programs");
    program.try_into().expect("all are classifiers")
}

/// A descriptor of our own for a map: it lives as long as we do.
fn take_map(object: &mut Ebpf, name: &'static str) -> Result<OwnedFd, BpfError> {
    let map = object.take_map(name).expect("the object has this map");
    let data: MapData = match map {
        Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) => data,
        other => return Err(BpfError::Unsupported(format!("{name} is {other:?}"))),
    };
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| BpfError::Os { step: "cannot keep a map", error })
}

/// `union bpf_attr` for calls about one element.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const EMPTY: Element = Element { map: 0, padding: 0, key: 0, value: 0, flags: 0 };

/// `union bpf_attr` for calls about many elements.
#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

const NO_BATCH: Batch =
    Batch { from: 0, to: 0, keys: 0, values: 0, count: 0, map: 0, element_flags: 0, flags: 0 };

fn fd(map: &OwnedFd) -> u32 {
    map.as_raw_fd().cast_unsigned()
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value).expose_provenance() as u64
}

/// # Safety
/// Every address in `attributes` is of live memory of the size that the command needs.
unsafe fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<()> {
    let attributes = std::ptr::from_ref(attributes);
    // SAFETY: as the caller promises; the kernel reads as many octets as it is told.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    sys::check(result as libc::c_int).map(drop)
}

/// The same for a command that writes to its attributes.
///
/// # Safety
/// As for [`call`].
unsafe fn call_mut<T>(command: libc::c_int, attributes: &mut T) -> io::Result<()> {
    let attributes = std::ptr::from_mut(attributes);
    // SAFETY: as the caller promises; the kernel writes no more octets than it is told.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    sys::check(result as libc::c_int).map(drop)
}

fn update<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let map = map.as_raw_fd().cast_unsigned();
    let element = Element { map, key: address(key), value: address(value), ..EMPTY };
    // SAFETY: key and value are live and of the types that this map was made for.
    unsafe { call(MAP_UPDATE_ELEM, &element) }
}

fn delete<K>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let map = map.as_raw_fd().cast_unsigned();
    let element = Element { map, key: address(key), ..EMPTY };
    // SAFETY: the key is live and of the type that this map was made for.
    unsafe { call(MAP_DELETE_ELEM, &element) }
}

/// The interface behind this one in the map of doors; the first one behind none.
fn next_key(map: BorrowedFd<'_>, last: Option<u32>) -> io::Result<Option<u32>> {
    let mut next = 0_u32;
    let element = Element {
        map: map.as_raw_fd().cast_unsigned(),
        key: last.as_ref().map_or(0, address),
        value: (&raw mut next).expose_provenance() as u64,
        ..EMPTY
    };
    // SAFETY: the key is live or null, and the next one has the same size.
    match unsafe { call(MAP_GET_NEXT_KEY, &element) } {
        Ok(()) => Ok(Some(next)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
