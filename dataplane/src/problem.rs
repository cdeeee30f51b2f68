//! What the sender of a broken Mobility Header is told.

use std::time::Duration;

use crate::answer::Refusal;
use crate::engine::Engine;
use crate::reason::DropReason;
use crate::wire::icmpv6::IcmpError;
use crate::wire::{Chain, Header};

impl Engine {
    /// Appends the ICMPv6 Parameter Problem about an outer packet to us, whose upper layer is
    /// wrong at this octet of its own; false if none is due or no more are to be sent now.
    ///
    /// req MH-01, MH-02, MH-12 (RFC 6275 §9.2, RFC 4443 §3.4): from the address that the packet
    /// came to, to its IPv6 source; the pointer counts from the start of the packet.
    pub fn problem(&self, packet: &[u8], octet: usize, now: Duration, out: &mut Vec<u8>) -> bool {
        let Some(header) = Header::parse(packet) else { return false };
        let Ok(chain) = Chain::walk(packet, header.next_header) else { return false };
        let error = IcmpError::ParameterProblem { pointer: (chain.upper_at + octet) as u32 };
        let refusal = Refusal::told(DropReason::OuterMalformed, error, Some(header.destination));
        match self.answers.write(&refusal, packet, now, out) {
            Ok(told) => {
                if told {
                    self.counters.answer();
                }
                told
            }
            Err(limited) => {
                self.counters.ignore(limited);
                false
            }
        }
    }
}
