//! How much fits: the inner MTU of a binding, fragments of outer packets, and what the paths told.
//!
//! The home-bound interface keeps one MTU for its whole life; what a smaller path cannot take is
//! answered by our own Packet Too Big (RFC 2473 §7.1). Only an inner packet of at most 1280
//! octets, which nobody may be asked to make smaller, travels in outer fragments (req TN-09).

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::optimized::Cut;
use crate::wire::ipv6::HEADER;
use crate::wire::{Chain, FRAGMENT};

/// Every IPv6 link takes this much (RFC 8200 §5).
pub const MIN_MTU: u16 = 1280;

/// Largest inner packet that fits an outer path of `path_mtu` octets without fragmentation.
///
/// `overhead` is what wrapping adds. A path below 1280 counts as 1280, so the result is at least
/// 1280 less the overhead.
pub fn inner_mtu(path_mtu: u16, overhead: usize) -> usize {
    usize::from(path_mtu.max(MIN_MTU)) - overhead
}

/// The MTU to tell an inner source: never below 1280 (RFC 2473 §7.1).
pub fn told_mtu(inner_mtu: usize) -> u32 {
    inner_mtu.max(usize::from(MIN_MTU)) as u32
}

/// Whether an inner packet that exceeds the inner MTU is answered instead of fragmented.
pub fn is_too_big(inner_length: usize, inner_mtu: usize) -> bool {
    inner_length > inner_mtu && inner_length > usize::from(MIN_MTU)
}

/// Cuts the one outer packet at the end of `out`, which begins at `start`, into fragments of at
/// most `path_mtu` octets (RFC 8200 §4.5). All headers before the payload of the tunnel go into
/// the first fragment; what stands before the cut goes into each. Where the cut is at a Fragment
/// header already, that fragment is cut into smaller ones of the same packet.
pub fn fragment(out: &mut Vec<u8>, start: usize, cut: Cut, path_mtu: u16, identification: u32) {
    let whole = out.split_off(start);
    let (front, rest) = whole.split_at(cut.at);
    let announced = front[cut.announced_at];
    let (next, first, last, identification, payload) = match rest.split_first_chunk::<8>() {
        Some(([next, _, a, b, identification @ ..], payload)) if announced == FRAGMENT => {
            let field = u16::from_be_bytes([*a, *b]);
            (*next, field & 0xfff8, field & 1, u32::from_be_bytes(*identification), payload)
        }
        _ => (announced, 0, 0, identification, rest),
    };
    let room = usize::from(path_mtu.max(MIN_MTU)) - cut.at - 8;
    let step = room & !7;
    let pieces = payload.len().div_ceil(step);
    for (number, piece) in payload.chunks(step).enumerate() {
        let more = if number + 1 < pieces { 1 } else { last };
        let at = out.len();
        out.extend_from_slice(front);
        out[at + cut.announced_at] = FRAGMENT;
        let length = (cut.at - HEADER + 8 + piece.len()) as u16;
        out[at + 4..at + 6].copy_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[next, 0]);
        out.extend_from_slice(&(first.wrapping_add((number * step) as u16) | more).to_be_bytes());
        out.extend_from_slice(&identification.to_be_bytes());
        out.extend_from_slice(piece);
    }
}

/// Outer paths remembered as smaller than their link. Beyond this the oldest is forgotten; it is
/// learned again by the next packet that is too big.
const MAX_LEARNED: usize = 1024;

/// How long a smaller path is believed (RFC 8201 §4: not below five minutes, ten suggested).
const BELIEVED: Duration = Duration::from_secs(600);

/// What Packet Too Big messages told about outer paths.
#[derive(Debug, Default)]
pub struct PathMtus {
    learned: RwLock<HashMap<(Ipv6Addr, Ipv6Addr), Learned, crate::hashing::RandomState>>,
    /// So that a node that learned nothing takes no lock.
    len: AtomicUsize,
}

#[derive(Clone, Copy, Debug)]
struct Learned {
    mtu: u16,
    at: Duration,
}

impl PathMtus {
    /// The MTU of a path whose link takes `link_mtu`.
    pub fn of(&self, source: Ipv6Addr, destination: Ipv6Addr, link_mtu: u16, now: Duration) -> u16 {
        let link_mtu = link_mtu.max(MIN_MTU);
        if self.len.load(Ordering::Relaxed) == 0 {
            return link_mtu;
        }
        // Every change of the map is one call; a panic elsewhere cannot leave it half done.
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        match learned.get(&(source, destination)) {
            Some(path) if path.is_believed(now) => path.mtu.min(link_mtu),
            _ => link_mtu,
        }
    }

    /// What was told of a path and is believed, and for how long it will be.
    pub fn learned(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        now: Duration,
    ) -> Option<(u16, Duration)> {
        if self.len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        let path = learned.get(&(source, destination)).filter(|path| path.is_believed(now))?;
        Some((path.mtu, (path.at + BELIEVED).saturating_sub(now)))
    }

    /// Believes a Packet Too Big: paths only shrink until the news is old, and never below 1280.
    pub fn learn(&self, source: Ipv6Addr, destination: Ipv6Addr, mtu: u32, now: Duration) {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).max(MIN_MTU);
        let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
        if learned.len() >= MAX_LEARNED && !learned.contains_key(&(source, destination)) {
            learned.retain(|_, path| path.is_believed(now));
            if learned.len() >= MAX_LEARNED {
                let oldest = learned.iter().min_by_key(|(_, path)| path.at).map(|(key, _)| *key);
                learned.remove(&oldest.expect("the map is full"));
            }
        }
        let path = learned.entry((source, destination)).or_insert(Learned { mtu, at: now });
        if !path.is_believed(now) || mtu <= path.mtu {
            *path = Learned { mtu, at: now };
        }
        self.len.store(learned.len(), Ordering::Relaxed);
    }
}

impl Learned {
    fn is_believed(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) < BELIEVED
    }
}

/// Whether a packet is a fragment that lacks the headers of its payload.
pub fn is_later_fragment(chain: &Chain) -> bool {
    chain.fragment.is_some_and(|fragment| fragment.offset != 0)
}
