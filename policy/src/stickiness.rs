//! Which packets share one choice of link: the sticky key and its bucket.

use std::net::IpAddr;

use crate::key::FlowKey;
use crate::verb::Scope;

/// The part of a flow key that a scope keeps together; fields outside it are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StickyKey {
    /// The inner source; at an agent the mobile's end is the destination.
    pub source: IpAddr,
    /// The other end, for pairs and flows.
    pub destination: Option<IpAddr>,
    /// Protocol and ports, for flows.
    pub flow: Option<(u8, u16, u16)>,
}

impl StickyKey {
    /// The sticky key of a packet. [`Scope::None`] keeps nothing together and hashes like a flow.
    pub fn new(scope: Scope, key: &FlowKey) -> Self {
        let ports = || (key.source_port.unwrap_or(0), key.destination_port.unwrap_or(0));
        match scope {
            Scope::Host => Self { source: key.source, destination: None, flow: None },
            Scope::Pair => {
                Self { source: key.source, destination: Some(key.destination), flow: None }
            }
            Scope::Flow | Scope::None => {
                let (source_port, destination_port) = ports();
                let flow = Some((key.protocol, source_port, destination_port));
                Self { source: key.source, destination: Some(key.destination), flow }
            }
        }
    }
}

/// The bucket of a packet, the same on every machine and in every run, so that `explain` offline
/// gives the daemon's answer. Whoever chooses ports can choose a bucket, and gains nothing by it.
pub fn bucket(scope: Scope, key: &FlowKey) -> u8 {
    let StickyKey { source, destination, flow } = StickyKey::new(scope, key);
    let mut hash = Mix(0x9e37_79b9_7f4a_7c15);
    hash.address(source);
    if let Some(destination) = destination {
        hash.address(destination);
    }
    if let Some((protocol, source_port, destination_port)) = flow {
        let ports = u64::from(source_port) << 16 | u64::from(destination_port);
        hash.word(u64::from(protocol) << 32 | ports);
    }
    (hash.0 >> 56) as u8
}

/// Multiply and fold, a word at a time.
struct Mix(u64);

impl Mix {
    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0xa076_1d64_78bd_642f_u128;
        let folded = (product as u64) ^ (product >> 64) as u64;
        self.0 = folded.rotate_left(29).wrapping_mul(0xe703_7ed1_a0b4_28db) ^ folded;
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.word(u64::from(u32::from(address))),
            IpAddr::V6(address) => {
                let bits = u128::from(address);
                self.word(bits as u64);
                self.word((bits >> 64) as u64);
            }
        }
    }
}
