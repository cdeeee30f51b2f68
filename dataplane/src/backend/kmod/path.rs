//! The fast path by the module: paths, generations and flows, written by generic netlink.
//!
//! The seam's numbers and the module's are not the same. Each slot is one path and one registration
//! of its own there, and what the module calls a generation is drawn here, rising for ever: another
//! one whenever the seam's generation of the slot changes, or its epoch. So flows of before are stale
//! at once, and still there to be read.

use std::collections::HashMap;
use std::io;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::sys::monotonic;
use super::contract::{Attribute, Command, KEY, PRESENT_PORTS};
use super::message::{Attributes, ECHO, Request};
use super::socket::Family;
use super::{FLOWS, Kmod, PATHS};
use crate::abi::{Course, FastFlow, FastKey, FastRoute};
use crate::fast_path::{Exit, FastPath};
use crate::hashing::RandomState;
use crate::registration::PathId;
use crate::wire::ipv6::HEADER;

/// What tells flows apart that leave: addresses, ports, protocol, DSCP and ingress.
pub const MASK_OUT: [u8; KEY] = mask(true);
/// And those that come: the same without the last two.
pub const MASK_IN: [u8; KEY] = mask(false);

/// Where `struct mtun_key` has its fields behind the two addresses.
const INGRESS: usize = 44;
const SOURCE_PORT: usize = 48;
const DESTINATION_PORT: usize = 50;
const PROTOCOL: usize = 52;
const DSCP: usize = 53;
const PRESENT: usize = 55;

/// The longest silence that can be told, in milliseconds. Flows that may be silent for longer are
/// taken out by their engine first.
const LASTS: u64 = 81_900;
/// The longest lease that can be told, in milliseconds.
const LEASE: u64 = 3_600_000;

const fn mask(leaves: bool) -> [u8; KEY] {
    let mut mask = [0; KEY];
    let mut at = 0;
    while at < KEY {
        let always = at < 32 || (at >= SOURCE_PORT && at <= PROTOCOL);
        let leaving = leaves && ((at >= INGRESS && at < SOURCE_PORT) || at == DSCP);
        if always || leaving {
            mask[at] = 0xff;
        }
        at += 1;
    }
    mask[PRESENT] = PRESENT_PORTS;
    mask
}

/// A key as the module writes it: that of a packet as it is inside the tunnel.
fn emit(key: &FastKey) -> [u8; KEY] {
    let turned = key.direction == Course::In as u8;
    let (from, to) = match turned {
        true => ((key.destination, key.destination_port), (key.source, key.source_port)),
        false => ((key.source, key.source_port), (key.destination, key.destination_port)),
    };
    let mut octets = [0; KEY];
    octets[..16].copy_from_slice(&from.0);
    octets[16..32].copy_from_slice(&to.0);
    octets[INGRESS..SOURCE_PORT].copy_from_slice(&u32::from(key.ingress).to_ne_bytes());
    octets[SOURCE_PORT..DESTINATION_PORT].copy_from_slice(&from.1);
    octets[DESTINATION_PORT..PROTOCOL].copy_from_slice(&to.1);
    octets[PROTOCOL] = key.protocol;
    octets[DSCP] = key.dscp;
    octets[PRESENT] = PRESENT_PORTS;
    octets
}

/// The inverse.
fn parse(octets: &[u8], direction: u8) -> Option<FastKey> {
    let octets: &[u8; KEY] = octets.try_into().ok()?;
    let address = |at: usize| <[u8; 16]>::try_from(&octets[at..at + 16]).ok();
    let port = |at: usize| [octets[at], octets[at + 1]];
    let ingress = u32::from_ne_bytes(octets[INGRESS..SOURCE_PORT].try_into().ok()?);
    let from = (address(0)?, port(SOURCE_PORT));
    let to = (address(16)?, port(DESTINATION_PORT));
    let (local, remote) = if direction == Course::In as u8 { (to, from) } else { (from, to) };
    Some(FastKey {
        source: local.0,
        destination: remote.0,
        source_port: local.1,
        destination_port: remote.1,
        protocol: octets[PROTOCOL],
        direction,
        dscp: octets[DSCP],
        ingress: u8::try_from(ingress).ok()?,
    })
}

/// The numbers of the paths that a device has.
pub(super) fn held(family: &mut Family, device: u32) -> io::Result<Vec<u32>> {
    let mut held = Vec::new();
    let get = Request::new(family, Command::PathGet, device);
    family.dump(get, &mut |path| held.extend(path.word(Attribute::Path)))?;
    Ok(held)
}

/// How packets of a path leave that have these outer addresses.
pub type KmodExit = dyn Fn(PathId, (Ipv6Addr, Ipv6Addr)) -> Option<Exit> + Send + Sync;

/// One slot as it was written.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    route: FastRoute,
    /// That of the module; 0 while it has no such path.
    generation: u64,
    /// Flows by it that were not taken out.
    flows: usize,
}

#[derive(Debug, Default)]
struct Written {
    epoch: u64,
    /// The last generation that was drawn.
    drawn: u64,
    slots: Vec<Slot>,
    /// By which slot each flow goes.
    flows: HashMap<FastKey, u32, RandomState>,
}

impl Written {
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }
}

/// The fast path of one device.
pub struct KmodPath {
    device: Arc<Kmod>,
    exit: Box<KmodExit>,
    written: Mutex<Written>,
}

impl std::fmt::Debug for KmodPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.device.fmt(f)
    }
}

impl KmodPath {
    /// The device and who knows how packets leave.
    pub fn new(device: Arc<Kmod>, exit: Box<KmodExit>) -> Self {
        Self { device, exit, written: Mutex::default() }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // Whoever panicked here left at worst a flow that is known as gone.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the module about this device.
    fn ask(&self, command: Command, fill: impl FnOnce(&mut Request)) -> io::Result<()> {
        let mut family = self.device.family();
        let mut request = Request::new(&family, command, self.device.index);
        fill(&mut request);
        family.ask(request)
    }

    /// Makes every flow of a slot stale.
    fn end(&self, written: &mut Written, number: usize) -> io::Result<()> {
        let generation = written.draw();
        self.ask(Command::GenerationSet, |request| {
            request.word(Attribute::Registration, number as u32 + 1);
            request.long(Attribute::Generation, generation);
        })?;
        written.slots[number].generation = generation;
        Ok(())
    }

    /// Deletes the paths of slots that lead nowhere, once their flows are read.
    fn tidy(&self, written: &mut Written) -> io::Result<()> {
        for number in 0..written.slots.len() {
            let slot = written.slots[number];
            let empty = slot.generation != 0 && slot.flows == 0;
            if empty && slot.route.form != FastRoute::TUNNEL {
                self.ask(Command::PathDelete, |request| {
                    request.word(Attribute::Path, number as u32 + 1);
                })?;
                written.slots[number].generation = 0;
            }
        }
        Ok(())
    }

    fn show(
        &self,
        written: &Written,
        flow: Attributes<'_>,
        clock: u64,
    ) -> Option<(FastKey, FastFlow)> {
        let key = parse(flow.get(Attribute::Key), flow.octet(Attribute::Direction)?)?;
        let path = flow.word(Attribute::Path)?.checked_sub(1)?;
        let idle = u64::from(flow.word(Attribute::Idle)?) * 1_000_000;
        let slot = written.slots.get(path as usize)?;
        let current = Some(slot.generation) == flow.long(Attribute::Generation);
        let (generation, epoch) =
            if current { (slot.route.generation, written.epoch) } else { (0, 0) };
        let packets = flow.long(Attribute::Packets)?;
        let octets = flow.long(Attribute::Octets)?;
        let seen_ns = clock.saturating_sub(idle);
        let flow =
            FastFlow { generation, epoch, path, seen_ns, packets, octets, ..FastFlow::default() };
        Some((key, flow))
    }
}

fn leads(request: &mut Request, route: &FastRoute) {
    request.octets(Attribute::Local, &route.source);
    request.octets(Attribute::Remote, &route.destination);
    request.word(Attribute::Link, route.interface);
    request.word(Attribute::Mtu, u32::from(route.room) + HEADER as u32);
    request.octet(Attribute::HopLimit, route.hop_limit);
    request.word(Attribute::Mark, route.mark);
}

impl FastPath for KmodPath {
    fn clock(&self) -> u64 {
        monotonic()
    }

    fn room(&self) -> (usize, u32) {
        (FLOWS as usize, PATHS)
    }

    fn configure(&self, epoch: u64, lease_ns: u64) -> io::Result<()> {
        let mut written = self.written();
        let held = lease_ns.saturating_sub(self.clock()) / 1_000_000;
        if held == 0 {
            // At once, whatever else fails.
            self.ask(Command::DeviceSet, |request| request.word(Attribute::Lease, 0))?;
        }
        if epoch != written.epoch {
            for number in 0..written.slots.len() {
                if written.slots[number].generation != 0 {
                    self.end(&mut written, number)?;
                }
            }
            written.epoch = epoch;
        }
        self.tidy(&mut written)?;
        match held {
            0 => Ok(()),
            held => self.ask(Command::DeviceSet, |request| {
                request.word(Attribute::Lease, held.min(LEASE) as u32);
            }),
        }
    }

    fn exit(&self, path: PathId, ends: (Ipv6Addr, Ipv6Addr)) -> Option<Exit> {
        (self.exit)(path, ends)
    }

    fn set_path(&self, path: u32, route: &FastRoute) -> io::Result<()> {
        let mut written = self.written();
        let number = path as usize;
        if written.slots.len() <= number {
            written.slots.resize(number + 1, Slot::default());
        }
        let slot = written.slots[number];
        if slot.generation != 0 && slot.route.generation != route.generation {
            self.end(&mut written, number)?;
        }
        written.slots[number].route = *route;
        if route.form != FastRoute::TUNNEL {
            // Its flows are still to be read; then it is deleted.
            return if slot.generation == 0 { Ok(()) } else { self.end(&mut written, number) };
        }
        if slot.generation != 0 {
            let changed = self.ask(Command::PathUpdate, |request| {
                request.word(Attribute::Path, path + 1);
                leads(request, route);
            });
            return match changed.as_ref().err().and_then(io::Error::raw_os_error) {
                // The link has just gone: what belongs to it goes up until another one is named.
                Some(libc::ENODEV) => self.end(&mut written, number),
                _ => changed,
            };
        }
        let generation = written.draw();
        self.ask(Command::PathAdd, |request| {
            request.word(Attribute::Path, path + 1);
            request.word(Attribute::Registration, path + 1);
            request.long(Attribute::Generation, generation);
            leads(request, route);
        })?;
        written.slots[number].generation = generation;
        Ok(())
    }

    fn put(&self, key: &FastKey, flow: &FastFlow) -> io::Result<()> {
        let mut written = self.written();
        let slot = written.slots.get(flow.path as usize).copied().unwrap_or_default();
        let holds = slot.generation != 0
            && slot.route.form == FastRoute::TUNNEL
            && slot.route.generation == flow.generation
            && written.epoch == flow.epoch;
        if !holds {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        // Less than a millisecond is one.
        let lasts = flow.lasts_ns.div_ceil(1_000_000);
        self.ask(Command::FlowAdd, |request| {
            request.octet(Attribute::Direction, key.direction);
            request.octets(Attribute::Key, &emit(key));
            request.word(Attribute::Path, flow.path + 1);
            request.long(Attribute::Generation, slot.generation);
            request.word(Attribute::Lasts, if lasts > LASTS { 0 } else { lasts as u32 });
            request.word(Attribute::Label, u32::from_be_bytes(flow.label) & 0xf_ffff);
        })?;
        let before = written.flows.insert(*key, flow.path);
        before.into_iter().for_each(|slot| written.slots[slot as usize].flows -= 1);
        written.slots[flow.path as usize].flows += 1;
        Ok(())
    }

    fn take(&self, key: &FastKey) -> io::Result<Option<FastFlow>> {
        let mut written = self.written();
        let Some(path) = written.flows.remove(key) else { return Ok(None) };
        written.slots[path as usize].flows -= 1;
        let clock = self.clock();
        let mut family = self.device.family();
        let mut request = Request::new(&family, Command::FlowDelete, self.device.index);
        request.flag(ECHO);
        request.octet(Attribute::Direction, key.direction);
        request.octets(Attribute::Key, &emit(key));
        request.word(Attribute::Path, path + 1);
        let mut taken = None;
        let asked = family.each(request, &mut |flow| taken = self.show(&written, flow, clock));
        match asked {
            // The module has forgotten it, or never had it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            other => other.map(|()| taken.map(|(_, flow)| flow)),
        }
    }

    fn each(&self, show: &mut dyn FnMut(&FastKey, &FastFlow)) -> io::Result<()> {
        let written = self.written();
        let clock = self.clock();
        let mut family = self.device.family();
        let get = Request::new(&family, Command::FlowGet, self.device.index);
        family.dump(get, &mut |flow| {
            if let Some((key, flow)) = self.show(&written, flow, clock) {
                show(&key, &flow);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [FastKey; 2] = [
        FastKey {
            source: [1; 16],
            destination: [2; 16],
            source_port: [3, 4],
            destination_port: [5, 6],
            protocol: 17,
            direction: Course::Out as u8,
            dscp: 46,
            ingress: 7,
        },
        FastKey {
            source: [1; 16],
            destination: [2; 16],
            source_port: [3, 4],
            destination_port: [5, 6],
            protocol: 6,
            direction: Course::In as u8,
            dscp: 0,
            ingress: 0,
        },
    ];

    #[test]
    fn keys_are_read_as_they_were_written() {
        for key in KEYS {
            assert_eq!(parse(&emit(&key), key.direction), Some(key));
        }
        let [out, back] = KEYS.map(|key| emit(&key));
        assert_eq!(out[..16], [1; 16], "a packet that leaves has our address as its source");
        assert_eq!(back[..16], [2; 16], "one that comes has its peer's");
        assert_eq!(back[SOURCE_PORT..PROTOCOL], [5, 6, 3, 4]);
        assert_eq!(parse(&out[1..], 0), None, "of another length");
    }

    /// The masks name every field that a key may have, and no other.
    #[test]
    fn masks_cover_the_keys() {
        for (key, mask) in KEYS.iter().zip([MASK_OUT, MASK_IN]) {
            let octets = emit(key);
            for (at, (octet, mask)) in octets.iter().zip(mask).enumerate() {
                assert_eq!(octet & mask, *octet, "octet {at} counts");
            }
        }
        assert_eq!(MASK_IN[INGRESS..SOURCE_PORT], [0; 4]);
        assert_eq!(MASK_OUT[32..INGRESS], [0; 12], "flow label, SPI and user are not seen");
    }
}
