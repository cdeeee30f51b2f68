//! The module's contract as this side sees it: the mirror of `kmod-mtun/uapi/mtun.h`.

use crate::abi::FastOutcome;

/// The family's name.
pub const NAME: &[u8] = b"mtun\0";
/// The version that is spoken here.
pub const VERSION: u8 = 1;
/// `MTUN_PRESENT_PORTS`.
pub const PRESENT_PORTS: u8 = 1;
/// Octets of `struct mtun_key`.
pub const KEY: usize = 56;

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident : $repr:ty { $($variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr($repr)]
        #[allow(dead_code, reason = "the whole list, so that the numbers are right")]
        pub enum $name { $($variant,)* }

        impl $name {
            /// Every one, in the order of the header.
            #[allow(dead_code, reason = "what is compared with the header")]
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
}

numbered! {
    /// `enum mtun_command`.
    Command: u8 {
        Unspec, DeviceSet, DeviceGet, PathAdd, PathUpdate, PathDelete, PathGet, GenerationSet,
        FlowAdd, FlowDelete, FlowFlush, FlowGet, CountersGet, Listen, Miss, Execute, LinkAttach,
        LinkDetach,
    }
}

numbered! {
    /// `enum mtun_attribute`.
    Attribute: u16 {
        Unspec, Pad, Ifindex, Direction, Path, Registration, Generation, Local, Remote, Link,
        NextHop, Mtu, HopLimit, Mark, Encapsulation, Key, Mask, MaskOut, MaskIn, Lasts, Packets,
        Octets, Idle, Flows, Paths, FlowLimit, FlowIdle, MissLimit, Counters, Reason, Packet,
        Ingress, Uid, InPackets, InOctets, Label, Lease, Doors, Vnet,
    }
}

numbered! {
    /// `enum mtun_reason`.
    Reason: u32 {
        OutHit, InHit, OutExecuted, InExecuted, Miss, Stale, PathGone, Lease, Silent, Fragment,
        Version, Length, Headers, HopLimit, EncapsulationLimit, Encapsulation, Outer, NoDaemon,
        QueueFull, NoRoute, TooBig, Congestion, NoMemory, NotSent,
    }
}

impl Reason {
    /// The same in the words of every fast path; `None` for what is no fast path's doing.
    pub fn outcome(self) -> Option<FastOutcome> {
        Some(match self {
            Self::OutHit => FastOutcome::Sent,
            Self::InHit => FastOutcome::Received,
            Self::Miss => FastOutcome::Unknown,
            Self::Stale | Self::PathGone => FastOutcome::Stale,
            Self::Lease => FastOutcome::NoLease,
            Self::Silent => FastOutcome::Silent,
            Self::Fragment
            | Self::Version
            | Self::Length
            | Self::Headers
            | Self::HopLimit
            | Self::EncapsulationLimit
            | Self::Encapsulation => FastOutcome::NotPlain,
            Self::Outer => FastOutcome::OtherEnds,
            Self::TooBig => FastOutcome::TooBig,
            Self::Congestion => FastOutcome::Congestion,
            // Lost: the queue to this process was full, or the way out refused.
            Self::NoDaemon | Self::QueueFull | Self::NoRoute | Self::NoMemory | Self::NotSent => {
                FastOutcome::Broken
            }
            Self::OutExecuted | Self::InExecuted => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = include_str!("../../../../kmod-mtun/uapi/mtun.h");

    /// The names of an enumeration in the header, without their prefix, in order.
    fn stated(name: &str, prefix: &str) -> Vec<String> {
        let body = HEADER.split(&format!("enum {name} {{")).nth(1).expect("it is there");
        let body = body.split("};").next().unwrap();
        let mut names = Vec::new();
        let mut comment = false;
        for line in body.lines().map(str::trim) {
            if line.starts_with("/*") {
                comment = true;
            } else if let Some(rest) = line.strip_prefix(prefix)
                && !comment
            {
                names.push(rest.split(',').next().unwrap().to_owned());
            }
            comment = comment && !line.ends_with("*/");
        }
        names
    }

    fn mirrored<T: std::fmt::Debug>(all: &[T]) -> Vec<String> {
        let words = all.iter().map(|it| {
            let mut word = String::new();
            for letter in format!("{it:?}").chars() {
                if letter.is_uppercase() && !word.is_empty() {
                    word.push('_');
                }
                word.push(letter.to_ascii_uppercase());
            }
            word
        });
        words.collect()
    }

    #[test]
    fn both_sides_number_alike() {
        assert_eq!(stated("mtun_command", "MTUN_CMD_"), mirrored(Command::ALL));
        assert_eq!(stated("mtun_attribute", "MTUN_A_"), mirrored(Attribute::ALL));
        assert_eq!(stated("mtun_reason", "MTUN_REASON_"), mirrored(Reason::ALL));
        assert!(HEADER.contains(&format!("#define MTUN_GENL_VERSION {VERSION}\n")));
        assert!(HEADER.contains(&format!("#define MTUN_PRESENT_PORTS\t0x0{PRESENT_PORTS}\n")));
    }
}
