//! The way out past the tunnel: packets as they came, by one link's device.
//!
//! A raw socket bound to the device sends them, so they pass the machine's own `output` and
//! `postrouting` hooks like any local packet. Each carries a mark that says what the firewall is
//! to do with it: nothing, or to give it the link's own address. What comes back is translated
//! again by the kernel's connection tracking and routed as ever; none of it comes through here.
//!
//! A packet that was forwarded into the home-bound interface has been seen by connection tracking
//! on its way there, without translation, and the first decision of connection tracking holds. So
//! the firewall has to keep the two passes apart, by a tracking zone of its own for what carries
//! the translated mark.

use std::io;

use super::uplink::{SendError, Uplink};

/// The mark of a packet that leaves with its own address.
pub const MARK_PLAIN: u32 = 0x6d74_0001;

/// The mark of a packet whose source becomes the link's own address.
pub const MARK_TRANSLATED: u32 = 0x6d74_0002;

/// Sends packets outside the tunnel by one link.
#[derive(Debug)]
pub struct BreakoutLink {
    plain: Uplink,
    translated: Uplink,
}

impl BreakoutLink {
    /// Opens the way out by the interface of this index. Needs `CAP_NET_RAW` and, for the marks,
    /// `CAP_NET_ADMIN`.
    pub fn open(interface: u32) -> io::Result<Self> {
        Ok(Self {
            plain: Uplink::open_marked(Some(interface), Some(MARK_PLAIN))?,
            translated: Uplink::open_marked(Some(interface), Some(MARK_TRANSLATED))?,
        })
    }

    /// Sends one complete IPv6 packet to the destination in its header. Never blocks.
    pub fn send(&self, packet: &[u8], translate: bool) -> Result<(), SendError> {
        match translate {
            true => self.translated.send(packet),
            false => self.plain.send(packet),
        }
    }
}
