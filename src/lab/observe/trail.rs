//! Which uplink carried which numbered packet, and when: for those who compare both directions
//! packet by packet.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};

use super::{Flow, Way};

/// A numbered packet that an uplink carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The probe's number.
    pub number: u32,
    /// The uplink.
    pub uplink: String,
    /// When the kernel saw it, in nanoseconds of its clock of the day.
    pub at: u64,
}

/// What is written down of flows that are followed.
#[derive(Debug, Default)]
pub(super) struct Trails {
    flows: HashMap<(Flow, Way), Vec<Carried>>,
    /// When Binding Updates left the mobile.
    pub updates: Vec<u64>,
}

impl Trails {
    pub fn follow(&mut self, flow: &Flow) {
        for way in [Way::Out, Way::In] {
            self.flows.entry((*flow, way)).or_default();
        }
    }

    pub fn carried(&mut self, flow: &Flow, way: Way, carried: impl FnOnce() -> Carried) {
        if let Some(trail) = self.flows.get_mut(&(*flow, way)) {
            trail.push(carried());
        }
    }

    /// What was written down of a flow one way since the last call, in the order of the taps.
    pub fn take(&mut self, flow: &Flow, way: Way) -> Vec<Carried> {
        self.flows.get_mut(&(*flow, way)).map(std::mem::take).unwrap_or_default()
    }
}

/// When the kernel saw the packet that was read last, in nanoseconds of its clock of the day.
pub(super) fn stamp(socket: &OwnedFd) -> u64 {
    /// `SIOCGSTAMPNS`, the same number on every machine.
    const STAMP: libc::c_ulong = 0x8907;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes a timespec. Without a packet read before it fails and writes none.
    unsafe { libc::ioctl(socket.as_raw_fd(), STAMP as _, std::ptr::from_mut(&mut time)) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
