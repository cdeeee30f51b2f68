//! What is remembered of a flow or of a group of flows, and whether it still holds.
//!
//! Tables keep it and hand it to [`decide`](crate::decide()), which alone interprets it.

use std::time::Duration;

use mtun_policy::{Bid, Field, FieldSet, FlowKey, RuleId, Sticky};

use crate::groups::GroupTable;
use crate::moves::{MoveReason, Moved};
use crate::registration::Registration;

/// What may be asked about the past of a packet's flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory<'m> {
    /// What the flow table remembers of the flow with the key's addresses, protocol and ports.
    pub flow: Option<&'m Remembered>,
    /// What groups of flows share.
    pub groups: Option<&'m GroupTable>,
}

impl<'m> Memory<'m> {
    /// Of one flow only.
    pub fn of(flow: &'m Remembered) -> Self {
        Self { flow: Some(flow), groups: None }
    }

    /// The binding on which the flow's last packet in the other direction was admitted.
    pub(crate) fn last_verified(&self) -> Option<Bid> {
        self.flow.and_then(|flow| flow.last_verified)
    }
}

/// What is remembered of one flow, or of a group. Only [`decide`](crate::decide()) interprets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The last decision to let a packet go, and what it was made for.
    pub answer: Option<Answer>,
    /// The binding on which the flow's last packet in the other direction was admitted.
    pub last_verified: Option<Bid>,
    /// When that was.
    pub verified_at: Duration,
    /// When a packet of the flow was last seen, in either direction.
    pub last_seen: Duration,
    /// When a packet of the flow last left here; `None` before the first.
    pub last_sent: Option<Duration>,
}

/// In which manner a packet leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Through the tunnel.
    #[default]
    Tunnel,
    /// A copy by each of several bindings, through the tunnel.
    Copies,
    /// Outside the tunnel.
    Breakout {
        /// With the link's own address as its source.
        translate: bool,
    },
}

/// A decision to let a packet go and everything it depends on besides the addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The registration's generation.
    pub generation: u64,
    /// The version of the rules, [`Registration::rules`].
    pub rules: u64,
    /// What the packet was besides its addresses and ports.
    pub marks: Marks,
    /// What was verified when the decision was made.
    pub last_verified: Option<Bid>,
    /// The rule.
    pub rule: Option<RuleId>,
    /// Tells the rule across policies; `None` if no rule matched.
    pub identity: Option<u64>,
    /// Whether its `otherwise` was needed.
    pub otherwise: bool,
    /// How it leaves.
    pub way: Way,
    /// The binding; of several, the first.
    pub bid: Option<Bid>,
    /// What keeps to it, and for how long.
    pub sticky: Sticky,
    /// Rules with this number share their choice.
    pub together: Option<u16>,
    /// A move off this binding that waits for its moment.
    pub due: Option<Due>,
    /// The flow's last move.
    pub moved: Option<Moved>,
}

/// A move that waits for a pause between packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Since when.
    pub since: Duration,
    /// Why it is to move.
    pub reason: MoveReason,
}

impl Remembered {
    /// The answer, unless the flow was silent for so long that the next packet is a new flow.
    pub(crate) fn answer_at(&self, now: Duration) -> Option<&Answer> {
        let answer = self.answer.as_ref()?;
        (now.saturating_sub(self.last_seen) <= answer.sticky.lasts).then_some(answer)
    }

    /// The answer, if the same question asked again would be answered alike, groups aside.
    pub(crate) fn still_valid(
        &self,
        registration: &Registration,
        key: &FlowKey,
        now: Duration,
    ) -> Option<&Answer> {
        self.answer_at(now).filter(|answer| {
            answer.generation == registration.generation
                && answer.due.is_none()
                && answer.last_verified == self.last_verified
                && answer.marks.agree(Marks::of(key), registration.consults)
        })
    }
}

/// The fields of a packet that may differ between packets with the same addresses and ports,
/// packed exactly: DSCP 6 bits, ingress 8, flow label 20, ICMP type 9, SPI 33, user 33.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks(u128);

impl Marks {
    const DSCP: u32 = 0;
    const INGRESS: u32 = 6;
    const FLOW_LABEL: u32 = 14;
    const ICMP_TYPE: u32 = 34;
    const SPI: u32 = 43;
    const UID: u32 = 76;

    /// Those of one packet.
    pub fn of(key: &FlowKey) -> Self {
        // One more than the value, so that nothing differs from zero.
        let present = |value: Option<u32>| value.map_or(0, |value| u128::from(value) + 1);
        Self(
            u128::from(key.dscp & 0x3f) << Self::DSCP
                | u128::from(key.ingress.0) << Self::INGRESS
                | u128::from(key.flow_label & 0x000f_ffff) << Self::FLOW_LABEL
                | present(key.icmp_type.map(u32::from)) << Self::ICMP_TYPE
                | present(key.spi) << Self::SPI
                | present(key.uid) << Self::UID,
        )
    }

    /// The user among them.
    pub(crate) fn uid(self) -> Option<u32> {
        ((self.0 >> Self::UID) as u64 & 0x1_ffff_ffff).checked_sub(1).map(|uid| uid as u32)
    }

    /// Whether rules that consult these fields see no difference. The ingress always counts: it
    /// also says whose packet it is.
    pub fn agree(self, other: Self, consulted: FieldSet) -> bool {
        let bits = |width: u32, at: u32| ((1_u128 << width) - 1) << at;
        let mut mask = bits(8, Self::INGRESS);
        for (field, part) in [
            (Field::Dscp, bits(6, Self::DSCP)),
            (Field::FlowLabel, bits(20, Self::FLOW_LABEL)),
            (Field::IcmpType, bits(9, Self::ICMP_TYPE)),
            (Field::Spi, bits(33, Self::SPI)),
            (Field::Uid, bits(33, Self::UID)),
        ] {
            if consulted.contains(field) {
                mask |= part;
            }
        }
        (self.0 ^ other.0) & mask == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtun_policy::Ingress;

    #[test]
    fn every_consulted_mark_tells_and_no_other() {
        let plain = FlowKey {
            source: std::net::Ipv6Addr::LOCALHOST.into(),
            destination: std::net::Ipv6Addr::LOCALHOST.into(),
            protocol: 6,
            source_port: Some(1),
            destination_port: Some(2),
            dscp: 0,
            ingress: Ingress::OTHER,
            flow_label: 0,
            spi: None,
            icmp_type: None,
            uid: None,
        };
        let cases = [
            (Field::Dscp, FlowKey { dscp: 63, ..plain }),
            (Field::FlowLabel, FlowKey { flow_label: 0x000f_ffff, ..plain }),
            (Field::IcmpType, FlowKey { icmp_type: Some(0), ..plain }),
            (Field::IcmpType, FlowKey { icmp_type: Some(255), ..plain }),
            (Field::Spi, FlowKey { spi: Some(0), ..plain }),
            (Field::Spi, FlowKey { spi: Some(u32::MAX), ..plain }),
            (Field::Uid, FlowKey { uid: Some(0), ..plain }),
            (Field::Uid, FlowKey { uid: Some(u32::MAX), ..plain }),
        ];
        for (field, other) in cases {
            let (a, b) = (Marks::of(&plain), Marks::of(&other));
            assert!(!a.agree(b, FieldSet::NONE.with(field)), "{field:?}");
            assert!(a.agree(b, FieldSet::ALL.without(field)), "{field:?} spills over");
        }
        assert_eq!(Marks::of(&plain).uid(), None);
        for uid in [0, 1000, u32::MAX] {
            assert_eq!(Marks::of(&FlowKey { uid: Some(uid), ..plain }).uid(), Some(uid));
        }
        let elsewhere = Marks::of(&FlowKey { ingress: Ingress::LOCAL, ..plain });
        assert!(!Marks::of(&plain).agree(elsewhere, FieldSet::NONE), "the ingress always counts");
    }
}
