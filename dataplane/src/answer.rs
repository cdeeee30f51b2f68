//! Answers to refused packets: what is said to their sources, and how often.

use std::net::Ipv6Addr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::reason::{DropReason, IgnoreReason};
use crate::wire::icmpv6::{IcmpError, may_answer};
use crate::wire::{Chain, Header, TCP, tcp};

/// A packet that goes no further, and what its source is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: DropReason,
    saying: Option<(Saying, Ipv6Addr)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saying {
    Error(IcmpError),
    Reset,
}

impl Refusal {
    /// Refused and told so, from this address of ours; silent if there is none.
    pub fn told(reason: DropReason, error: IcmpError, source: Option<Ipv6Addr>) -> Self {
        Self { reason, saying: source.map(|source| (Saying::Error(error), source)) }
    }

    /// Refused by a TCP reset, or as prohibited if it is not TCP.
    pub fn reset(reason: DropReason, source: Option<Ipv6Addr>) -> Self {
        Self { reason, saying: source.map(|source| (Saying::Reset, source)) }
    }
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self { reason, saying: None }
    }
}

/// Writes answers, as many as the rate allows (RFC 4443 §2.4 f).
#[derive(Debug)]
pub struct Answerer {
    per_second: u32,
    at_once: u32,
    bucket: Mutex<Bucket>,
}

/// A token bucket that counts in nanoseconds, so that nothing is lost in rounding.
#[derive(Debug, Default)]
struct Bucket {
    /// The time up to which answers are paid for.
    paid: Duration,
}

impl Answerer {
    /// At most `per_second` in the long run and `at_once` in a burst.
    pub fn new(per_second: u32, at_once: u32) -> Self {
        Self { per_second, at_once, bucket: Mutex::default() }
    }

    /// Whether one more answer may be given, and counts it.
    pub fn allow(&self, now: Duration) -> bool {
        if self.per_second == 0 || self.at_once == 0 {
            return false;
        }
        let each = Duration::from_secs(1) / self.per_second;
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let paid = bucket.paid.max(now) + each;
        if paid > now + each * self.at_once {
            return false;
        }
        bucket.paid = paid;
        true
    }

    /// Appends the answer to a refused packet; `Ok(false)` if none is due.
    pub fn write(
        &self,
        refusal: &Refusal,
        packet: &[u8],
        now: Duration,
        out: &mut Vec<u8>,
    ) -> Result<bool, IgnoreReason> {
        let Some((saying, source)) = refusal.saying else { return Ok(false) };
        let Some(header) = Header::parse(packet) else { return Ok(false) };
        let Ok(chain) = Chain::walk(packet, header.next_header) else { return Ok(false) };
        if !may_answer(packet, &header, &chain) {
            return Ok(false);
        }
        if !self.allow(now) {
            return Err(IgnoreReason::RateLimited);
        }
        Ok(match saying {
            Saying::Error(error) => error.emit(source, packet, out),
            Saying::Reset if chain.upper == TCP => {
                tcp::reset(&header, &packet[chain.upper_at..], out)
            }
            Saying::Reset => IcmpError::Prohibited.emit(source, packet, out),
        })
    }
}
