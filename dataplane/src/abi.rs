//! The maps of the fast path as this side sees them: the mirror of `bpf/mtun.bpf.h`.
//!
//! Plain numbers and octets, laid out as the C compiler does. What they mean is said once, in the
//! header; a test here compares every size and offset with the numbers that the C compiler checked.

use std::net::Ipv6Addr;

use crate::wire::{home_address, ipv6, type2};

/// Which way the packets of a flow go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Course {
    /// From the tunnel interface to an uplink.
    Out = 0,
    /// From an uplink to the tunnel interface.
    In = 1,
}

/// `struct mtun_flow_key`: which packets are of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FastKey {
    /// Source of packets that leave.
    pub source: [u8; 16],
    /// Destination of packets that leave.
    pub destination: [u8; 16],
    /// In network order.
    pub source_port: [u8; 2],
    /// In network order.
    pub destination_port: [u8; 2],
    /// TCP or UDP.
    pub protocol: u8,
    /// A [`Course`].
    pub direction: u8,
    /// Of packets that leave.
    pub dscp: u8,
    /// Of packets that leave.
    pub ingress: u8,
}

/// `struct mtun_flow`: one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FastFlow {
    /// Holds while its path has the same.
    pub generation: u64,
    /// And the configuration has the same.
    pub epoch: u64,
    /// Silent for longer, in nanoseconds, it is asked anew; 0 for never.
    pub lasts_ns: u64,
    /// Which path.
    pub path: u32,
    /// In network order, 20 bits.
    pub label: [u8; 4],
    /// When a packet was last seen, on `CLOCK_MONOTONIC`.
    pub seen_ns: u64,
    /// Packets carried.
    pub packets: u64,
    /// Octets of inner packets carried.
    pub octets: u64,
    /// When a packet last passed the kernel's own forwarding, on `CLOCK_MONOTONIC`; 0 for never.
    /// This and what follows is noted by the programs, for the shortcut.
    pub passed_ns: u64,
    /// Under which round of the configuration.
    pub round: u32,
    /// Under which turn of its path; of packets that leave.
    pub turn: u32,
    /// Index of the interface on the other side; the tunnel interface's between two mobiles.
    pub front: u32,
    /// Octets of the largest packet that fits there, or into the tunnel interface if it leaves.
    pub fits: u16,
    /// The link header of packets as they go on.
    pub link: [u8; 14],
    /// Whether packets of both directions have passed.
    pub both: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// `struct mtun_path`: one binding of one registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FastRoute {
    /// That of the registration.
    pub generation: u64,
    /// Outer source of packets that leave.
    pub source: [u8; 16],
    /// Outer destination of packets that leave.
    pub destination: [u8; 16],
    /// Index of the interface by which they leave.
    pub interface: u32,
    /// The mark that they carry.
    pub mark: u32,
    /// Octets of the largest inner packet that fits.
    pub room: u16,
    /// Of the outer header.
    pub hop_limit: u8,
    /// [`FastRoute::TUNNEL`], [`FastRoute::HOME_ADDRESS`], [`FastRoute::ROUTING_HEADER`], or 0 for an
    /// unused entry.
    pub form: u8,
    /// Another one with every writing.
    pub turn: u32,
}

impl FastRoute {
    /// IPv6 in IPv6.
    pub const TUNNEL: u8 = 1;
    /// Out with a Home Address option, in with a type 2 routing header (RFC 6275 §6.3, §6.4).
    pub const HOME_ADDRESS: u8 = 2;
    /// Out with a type 2 routing header, in with a Home Address option.
    pub const ROUTING_HEADER: u8 = 3;

    /// Octets by which packets grow, in either direction.
    pub fn overhead(&self) -> u16 {
        match self.form {
            Self::HOME_ADDRESS => home_address::HEADER as u16,
            Self::ROUTING_HEADER => type2::HEADER as u16,
            _ => ipv6::HEADER as u16,
        }
    }

    /// The outer addresses of packets that leave.
    pub fn ends(&self) -> (Ipv6Addr, Ipv6Addr) {
        (self.source.into(), self.destination.into())
    }
}

/// `struct mtun_config`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FastConfig {
    /// Another one ends every flow at once.
    pub epoch: u64,
    /// Until when flows hold, on `CLOCK_MONOTONIC`.
    pub lease_ns: u64,
    /// Index of the tunnel interface.
    pub tunnel: u32,
    /// How many ingress interfaces are named.
    pub doors: u32,
    /// Another one ends every shortcut at once.
    pub round: u32,
    /// Which flows may take the shortcut: a [`Shortcut`].
    pub shortcut: u32,
    /// Index of one of the named interfaces.
    pub door: u32,
    /// And its ingress.
    pub door_ingress: u32,
}

/// Which flows may go past the tunnel interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Shortcut {
    /// None.
    #[default]
    None = 0,
    /// UDP only: a firewall follows TCP's sequence numbers.
    Udp = 1,
    /// All that have passed the kernel's own forwarding.
    All = 2,
}

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// What became of a packet that a program saw.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FastOutcome { $($(#[$doc])* $variant,)* }

        impl FastOutcome {
            /// Every outcome, in the order of its counter.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name used in metrics and by `mtun`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

outcomes! {
    /// Wrapped and sent.
    Sent = "sent",
    /// Unwrapped and received.
    Received = "received",
    /// Left to the daemon: no TCP or UDP right behind the IPv6 header, or no whole packet.
    NotPlain = "not-plain",
    /// Left to the daemon: nothing is remembered.
    Unknown = "unknown",
    /// Left to the daemon: decided under another generation.
    Stale = "stale",
    /// Left to the daemon: the flow was silent for too long.
    Silent = "silent",
    /// Left to the daemon, which has not vouched for its decisions lately.
    NoLease = "no-lease",
    /// Left to the daemon: does not fit the path.
    TooBig = "too-big",
    /// Left to the daemon: came by other addresses than the flow's last packet.
    OtherEnds = "other-ends",
    /// Left to the daemon, which drops it: congestion that the inner packet cannot say.
    Congestion = "congestion",
    /// Left to the daemon: a superpacket that is still marked as somebody else's tunnel packet.
    Nested = "nested",
    /// Left to the daemon: the kernel could not make room.
    Refused = "refused",
    /// Dropped, half rewritten, when the kernel failed.
    Broken = "broken",
    /// Wrapped and sent by the shortcut.
    ShortcutSent = "shortcut-sent",
    /// Unwrapped and received by the shortcut.
    ShortcutReceived = "shortcut-received",
    /// Sent on by the shortcut, out of one tunnel and into another.
    ShortcutRelayed = "shortcut-relayed",
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    const HEADER: &str = include_str!("../bpf/mtun.bpf.h");

    /// `(struct, field, offset)` of every `MTUN_AT` line and `(struct, "", size)` of `MTUN_SIZE`.
    fn stated() -> Vec<(&'static str, &'static str, usize)> {
        let lines = HEADER.lines().filter_map(|line| {
            let (name, rest) = line.split_once('(')?;
            let mut parts = rest.strip_suffix(");")?.split(',').map(str::trim);
            let owner = parts.next()?.strip_prefix("struct ")?;
            match name {
                "MTUN_AT" => Some((owner, parts.next()?, parts.next()?.parse().ok()?)),
                "MTUN_SIZE" => Some((owner, "", parts.next()?.parse().ok()?)),
                _ => None,
            }
        });
        lines.collect()
    }

    #[test]
    fn both_sides_lay_the_maps_out_alike() {
        macro_rules! mirror {
            ($name:literal, $type:ident { $($field:ident),* $(,)? }) => {
                vec![$(($name, stringify!($field), offset_of!($type, $field)),)*
                     ($name, "", size_of::<$type>())]
            };
        }
        let mirrored = [
            mirror!(
                "mtun_flow_key",
                FastKey {
                    source,
                    destination,
                    source_port,
                    destination_port,
                    protocol,
                    direction,
                    dscp,
                    ingress,
                }
            ),
            mirror!(
                "mtun_flow",
                FastFlow {
                    generation,
                    epoch,
                    lasts_ns,
                    path,
                    label,
                    seen_ns,
                    packets,
                    octets,
                    passed_ns,
                    round,
                    turn,
                    front,
                    fits,
                    link,
                    both,
                }
            ),
            mirror!(
                "mtun_path",
                FastRoute {
                    generation,
                    source,
                    destination,
                    interface,
                    mark,
                    room,
                    hop_limit,
                    form,
                    turn,
                }
            ),
            mirror!(
                "mtun_config",
                FastConfig { epoch, lease_ns, tunnel, doors, round, shortcut, door, door_ingress }
            ),
        ];
        assert_eq!(stated(), mirrored.concat());
    }

    #[test]
    fn forms_are_numbered_alike() {
        let forms = [
            ("TUNNEL", FastRoute::TUNNEL),
            ("HOME_ADDRESS", FastRoute::HOME_ADDRESS),
            ("ROUTING_HEADER", FastRoute::ROUTING_HEADER),
        ];
        for (name, number) in forms {
            assert!(HEADER.contains(&format!("MTUN_FORM_{name} = {number},")), "{name}");
        }
    }

    #[test]
    fn outcomes_are_numbered_alike() {
        let number = |line: &str| {
            let (name, rest) = line.trim().strip_prefix("MTUN_")?.split_once(" = ")?;
            Some((name.to_owned(), rest.split(',').next()?.parse::<usize>().ok()?))
        };
        let body = HEADER.split("enum mtun_outcome {").nth(1).unwrap().split("};").next().unwrap();
        let stated: Vec<_> = body.lines().filter_map(number).collect();
        let names = FastOutcome::ALL.iter().map(|it| it.as_str().replace('-', "_").to_uppercase());
        let mut mirrored: Vec<_> = names.zip(0..).collect();
        mirrored.push(("OUTCOMES".to_owned(), FastOutcome::ALL.len()));
        assert_eq!(stated, mirrored);
        assert_eq!(Course::In as u8, 1, "MTUN_IN");
    }
}
