//! Where inner packets enter this machine: the interface of a home network, seen from its engine.

use std::fmt::Debug;
use std::io;

use super::{TunQueue, VnetHeader};

/// Receives what came out of the tunnel, whatever kind of interface stands for the home network.
pub trait Port: Debug + Send + Sync {
    /// Hands an inner packet to the kernel, as if it had arrived on the interface. The packet may be
    /// a superpacket, or have a partial checksum, if its header says so.
    fn send_with(&self, header: VnetHeader, packet: &[u8]) -> io::Result<()>;
}

impl Port for TunQueue {
    fn send_with(&self, header: VnetHeader, packet: &[u8]) -> io::Result<()> {
        TunQueue::send_with(self, header, packet)
    }
}
