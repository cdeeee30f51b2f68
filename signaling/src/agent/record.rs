//! What an agent keeps of one mobile over its own restart, as octets.
//!
//! A [`MobileRecord`] is all that one accepted update left behind: the bindings with what is left
//! of their lifetimes, the prefixes, the last sequence number and the last timestamp. One mobile is
//! one record, so that a store that keeps whole records never keeps half of an update
//! (req PS-02). Times are spans, counted from the moment the record was taken; whoever stores it
//! says how much time has passed when it comes back.
//!
//! ```text
//! | format = 1 | flags | link-layer address, if flagged |
//! | sequence kind, number, left | timestamp kind, timestamp |
//! | prefixes: count, (address, length)… | bindings: count, (BID, priority, flags, care-of, left)… |
//! | extensions: (type, length, octets)… |
//! ```
//!
//! Numbers are big-endian, spans are milliseconds, rounded down: a binding never lives longer for
//! having been kept. A reader skips extensions whose type has its highest bit set and refuses a
//! record with any other, so that the next version can add what this one may lose, and cannot add
//! what it must not.
//!
//! Flow bindings are extensions of that kind, one each (`FID, FID-PRI, number of BIDs, BIDs, traffic
//! selector`), and so is what the mobile agreed on besides (`flags`): a version that does not know
//! them loses them, and its mobile hears status 132 with its next update and tells them again.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::Ipv6Net;
use mtun_policy::{
    Bid, CareOfAddress, FlowBinding, FlowId, FlowPriority, HomeAddress, MobileNetworkPrefix,
};

use super::HomeAgent;
use super::allowed::GUARDED;
use super::replay::Replay;
use crate::binding::{Binding, BindingCacheEntry};
use crate::time::{NtpTime, Timestamp};
use crate::wire::icmpv6::neighbour_discovery::LinkLayerAddress;
use crate::wire::option::{TrafficSelector, emit_binary};

/// The layout that is written; a reader of this version knows it alone.
pub const RECORD_FORMAT: u8 = 1;

/// Flags: a mobile router; its link-local address is defended too; a link-layer address follows.
const ROUTER: u8 = 1;
const LINK_LOCAL: u8 = 2;
const LINK_LAYER: u8 = 4;

/// Extensions from here on may be skipped.
const SKIPPABLE: u16 = 0x8000;

/// Extension: one flow binding.
const FLOW: u16 = SKIPPABLE | 1;

/// Extension: what is agreed on beyond RFC 6089, as flags.
const AGREED: u16 = SKIPPABLE | 2;

/// Flags of [`AGREED`].
const REFLECT: u8 = 1;
const COPIES: u8 = 2;

/// What is kept of one mobile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MobileRecord {
    /// Its home address.
    pub home_address: HomeAddress,
    /// Whether it registered as a mobile router.
    pub router: bool,
    /// Whether its link-local address at home is defended too (L flag).
    pub link_local: bool,
    /// Where it is on the home link, by its word.
    pub link_layer: Option<LinkLayerAddress>,
    /// The prefixes forwarded to it.
    pub prefixes: Vec<MobileNetworkPrefix>,
    /// Its bindings, ordered by BID; none once it has de-registered.
    pub bindings: Vec<KeptBinding>,
    /// The last accepted sequence number; with a span, remembered only that long.
    pub sequence: Option<(u16, Option<Duration>)>,
    /// The last accepted timestamp.
    pub timestamp: Option<NtpTime>,
    /// Its flow bindings, by rising FID-PRI.
    pub flows: Vec<FlowBinding>,
    /// Whether its downlink follows its uplink within a flow binding.
    pub reflect: bool,
    /// Whether copies carry a sequence.
    pub copies: bool,
}

/// One binding and what was left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptBinding {
    /// Its number; `None` for one without.
    pub bid: Option<Bid>,
    /// Where the mobile was.
    pub care_of: CareOfAddress,
    /// BID-PRI.
    pub priority: u8,
    /// What was left of its lifetime.
    pub left: Duration,
}

/// Why octets are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They end too early, or too late.
    #[error("the record has the wrong length")]
    Length,
    /// Written by another version, in a layout that this one does not know.
    #[error("the record is of format {0}, and this version knows {RECORD_FORMAT}")]
    Format(u8),
    /// Something in it that this version must not overlook.
    #[error("the record holds extension {0:#06x}, which this version does not know")]
    Extension(u16),
    /// A value that cannot be.
    #[error("the record holds {0} that cannot be")]
    Value(&'static str),
}

impl MobileRecord {
    /// Appends the record.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.router, ROUTER)
            | flag(self.link_local, LINK_LOCAL)
            | flag(self.link_layer.is_some(), LINK_LAYER);
        out.extend_from_slice(&[RECORD_FORMAT, flags]);
        out.extend(self.link_layer.into_iter().flat_map(|address| address.0));
        let (kind, number, left) = match self.sequence {
            None => (0, 0, Duration::ZERO),
            Some((number, None)) => (1, number, Duration::ZERO),
            Some((number, Some(left))) => (2, number, left),
        };
        out.push(kind);
        out.extend_from_slice(&number.to_be_bytes());
        span(left, out);
        out.push(u8::from(self.timestamp.is_some()));
        out.extend_from_slice(&self.timestamp.map_or(0, |time| time.0).to_be_bytes());
        count(self.prefixes.len(), out);
        for prefix in &self.prefixes {
            out.extend_from_slice(&prefix.net().addr().octets());
            out.push(prefix.net().prefix_len());
        }
        count(self.bindings.len(), out);
        for binding in &self.bindings {
            out.extend_from_slice(&binding.bid.map_or(0, Bid::get).to_be_bytes());
            out.push(binding.priority);
            out.push(u8::from(binding.care_of.0.is_ipv4()));
            let address = match binding.care_of.0 {
                IpAddr::V6(address) => address,
                IpAddr::V4(address) => address.to_ipv6_mapped(),
            };
            out.extend_from_slice(&address.octets());
            span(binding.left, out);
        }
        for flow in &self.flows {
            extension(FLOW, out, |out| emit_flow(flow, out));
        }
        let agreed = flag(self.reflect, REFLECT) | flag(self.copies, COPIES);
        if agreed != 0 {
            extension(AGREED, out, |out| out.push(agreed));
        }
    }

    /// Reads the record of `home_address`: all of the octets or none.
    pub fn parse(home_address: HomeAddress, octets: &[u8]) -> Result<Self, RecordError> {
        let mut rest = Reader(octets);
        match rest.octet()? {
            RECORD_FORMAT => {}
            format => return Err(RecordError::Format(format)),
        }
        let flags = rest.octet()?;
        if flags & !(ROUTER | LINK_LOCAL | LINK_LAYER) != 0 {
            return Err(RecordError::Value("a flag"));
        }
        let link_layer = match flags & LINK_LAYER {
            0 => None,
            _ => Some(LinkLayerAddress(rest.array()?)),
        };
        let (kind, number, left) = (rest.octet()?, rest.u16()?, rest.span()?);
        let sequence = match kind {
            0 => None,
            1 => Some((number, None)),
            2 => Some((number, Some(left))),
            _ => return Err(RecordError::Value("a sequence number")),
        };
        let stamped = rest.flag("a timestamp")?;
        let timestamp = Some(NtpTime(rest.u64()?)).filter(|_| stamped);
        let prefixes = (0..rest.u16()?).map(|_| rest.prefix()).collect::<Result<_, _>>()?;
        let bindings = (0..rest.u16()?).map(|_| rest.binding()).collect::<Result<_, _>>()?;
        let mut flows = Vec::new();
        let mut agreed = 0;
        while let Some((kind, octets)) = rest.extension()? {
            match kind {
                FLOW => flows.push(flow(octets)?),
                AGREED => agreed = Reader(octets).octet()?,
                kind if kind & SKIPPABLE == 0 => return Err(RecordError::Extension(kind)),
                _ => {}
            }
        }
        let (router, link_local) = (flags & ROUTER != 0, flags & LINK_LOCAL != 0);
        Ok(Self {
            home_address,
            router,
            link_local,
            link_layer,
            prefixes,
            bindings,
            sequence,
            timestamp,
            flows,
            reflect: agreed & REFLECT != 0,
            copies: agreed & COPIES != 0,
        })
    }

    /// A record of nothing.
    fn of(home_address: HomeAddress) -> Self {
        Self {
            home_address,
            router: false,
            link_local: false,
            link_layer: None,
            prefixes: Vec::new(),
            bindings: Vec::new(),
            sequence: None,
            timestamp: None,
            flows: Vec::new(),
            reflect: false,
            copies: false,
        }
    }

    /// Whether nothing is left that a later update could depend on.
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.sequence.is_none() && self.timestamp.is_none()
    }
}

/// Appends one extension, whose octets `of` appends.
fn extension(kind: u16, out: &mut Vec<u8>, of: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&kind.to_be_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0; 2]);
    of(out);
    let length = u16::try_from(out.len() - length_at - 2).expect("one flow binding is short");
    out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
}

fn emit_flow(flow: &FlowBinding, out: &mut Vec<u8>) {
    out.extend_from_slice(&flow.id.get().to_be_bytes());
    out.extend_from_slice(&flow.priority.get().to_be_bytes());
    count(flow.bids.len(), out);
    out.extend(flow.bids.iter().flat_map(|bid| bid.get().to_be_bytes()));
    emit_binary(&flow.selector, out);
}

fn flow(octets: &[u8]) -> Result<FlowBinding, RecordError> {
    const WHAT: RecordError = RecordError::Value("a flow binding");
    let mut rest = Reader(octets);
    let id = FlowId::new(rest.u16()?).ok_or(WHAT)?;
    let priority = FlowPriority::new(rest.u16()?).ok_or(WHAT)?;
    let bids = (0..rest.u16()?).map(|_| Bid::new(rest.u16()?).ok_or(WHAT));
    let bids: Vec<Bid> = bids.collect::<Result<_, _>>()?;
    match TrafficSelector::parse(rest.0) {
        Some(TrafficSelector::Binary(selector)) if !bids.is_empty() => {
            Ok(FlowBinding { id, priority, selector, bids })
        }
        _ => Err(WHAT),
    }
}

fn span(span: Duration, out: &mut Vec<u8>) {
    let milliseconds = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    out.extend_from_slice(&milliseconds.to_be_bytes());
}

/// Both lists are bounded far below by what one Mobility Header can hold.
fn count(count: usize, out: &mut Vec<u8>) {
    let count = u16::try_from(count).expect("a Mobility Header holds fewer than 65,536 options");
    out.extend_from_slice(&count.to_be_bytes());
}

struct Reader<'o>(&'o [u8]);

impl<'o> Reader<'o> {
    fn take(&mut self, length: usize) -> Result<&'o [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(RecordError::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        Ok(self.take(N)?.try_into().expect("as long as was taken"))
    }

    fn octet(&mut self) -> Result<u8, RecordError> {
        Ok(self.array::<1>()?[0])
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, RecordError> {
        match self.octet()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RecordError::Value(what)),
        }
    }

    fn u16(&mut self) -> Result<u16, RecordError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn span(&mut self) -> Result<Duration, RecordError> {
        Ok(Duration::from_millis(self.u64()?))
    }

    fn prefix(&mut self) -> Result<MobileNetworkPrefix, RecordError> {
        let (address, length) = (Ipv6Addr::from(self.array::<16>()?), self.octet()?);
        let net = Ipv6Net::new(address, length).map_err(|_| RecordError::Value("a prefix"))?;
        MobileNetworkPrefix::new(net).ok_or(RecordError::Value("a prefix"))
    }

    fn binding(&mut self) -> Result<KeptBinding, RecordError> {
        let bid = Bid::new(self.u16()?);
        let priority = self.octet()?;
        let ipv4 = self.flag("a care-of address")?;
        let address = Ipv6Addr::from(self.array::<16>()?);
        let address = match ipv4 {
            false => IpAddr::V6(address),
            true => {
                let mapped = address.to_ipv4_mapped();
                IpAddr::V4(mapped.ok_or(RecordError::Value("a care-of address"))?)
            }
        };
        Ok(KeptBinding { bid, care_of: CareOfAddress(address), priority, left: self.span()? })
    }

    /// The next extension, its type and its octets; none at the end.
    fn extension(&mut self) -> Result<Option<(u16, &'o [u8])>, RecordError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let kind = self.u16()?;
        let length = self.u16()?;
        Ok(Some((kind, self.take(usize::from(length))?)))
    }
}

impl HomeAgent {
    /// What must be kept of a mobile. Of one that is served no more it is the replay guard, for as
    /// long as an update of before could be believed; `None` after that, and of strangers.
    pub fn record(&self, now: Timestamp, home_address: HomeAddress) -> Option<MobileRecord> {
        let left = |until: Duration| until.saturating_sub(now.monotonic);
        let Some(served) = self.served.get(&home_address) else {
            let (sequence, timestamp) = self.guarded(now.monotonic, home_address)?.kept();
            let sequence = sequence.map(|(number, until)| (number, until.map(left)));
            return Some(MobileRecord { sequence, timestamp, ..MobileRecord::of(home_address) });
        };
        let entry = self.cache.get(home_address);
        let bindings = entry.map_or(&[][..], |entry| &entry.bindings).iter();
        let (sequence, timestamp) = served.replay.kept();
        Some(MobileRecord {
            home_address,
            router: entry.is_some_and(|entry| entry.router),
            link_local: served.presence.link_local,
            link_layer: served.presence.link_layer,
            prefixes: entry.map_or_else(Vec::new, |entry| entry.prefixes.clone()),
            bindings: bindings
                .map(|it| KeptBinding {
                    bid: it.bid,
                    care_of: it.care_of,
                    priority: it.priority,
                    left: left(it.expires),
                })
                .collect(),
            sequence: sequence.map(|(number, until)| (number, until.map(left))),
            timestamp,
            flows: entry.map_or_else(Vec::new, |entry| entry.flows.clone()),
            reflect: entry.is_some_and(|entry| entry.reflect),
            copies: entry.is_some_and(|entry| entry.copies),
        })
    }

    /// Takes back what was kept of a mobile `passed` ago, before any message is handled.
    ///
    /// A binding that has run out meanwhile does not return (req PS-07), nor one that the policy
    /// no longer allows. The replay guard returns whole (req PS-06, HA-33), of a mobile that is not
    /// served only while it could be of use. Says by [`AgentOutput::Changed`](super::AgentOutput::Changed) what the cache holds
    /// then.
    pub fn restore(&mut self, now: Timestamp, record: &MobileRecord, passed: Duration) {
        let until = |left: Duration| now.monotonic + left.saturating_sub(passed);
        let sequence = record.sequence.map(|(number, left)| (number, left.map(until)));
        let replay = Replay::restored(sequence, record.timestamp);
        let Some(served) = self.served.get_mut(&record.home_address) else {
            if passed < GUARDED {
                record.timestamp.into_iter().for_each(|seen| self.clock.not_before(now, seen));
                self.guard(now.monotonic, record.home_address, replay);
            }
            return;
        };
        served.replay = replay;
        served.presence.link_local = record.link_local;
        served.presence.link_layer = record.link_layer;
        if let Some(timestamp) = record.timestamp {
            self.clock.not_before(now, timestamp);
        }
        let living = record.bindings.iter().filter(|it| it.left > passed);
        let bindings: Vec<_> = living
            .map(|it| Binding {
                bid: it.bid,
                care_of: it.care_of,
                priority: it.priority,
                expires: until(it.left),
            })
            .collect();
        if bindings.is_empty() {
            return served.replay.expired(now.monotonic);
        }
        let entry = BindingCacheEntry {
            router: record.router,
            prefixes: record.prefixes.clone(),
            bindings,
            flows: record.flows.clone(),
            reflect: record.reflect,
            copies: record.copies,
            ..BindingCacheEntry::new(record.home_address)
        };
        let entry = self.permitted(entry);
        if entry.bindings.is_empty() {
            if let Some(served) = self.served.get_mut(&record.home_address) {
                served.replay.expired(now.monotonic);
            }
            return;
        }
        self.replace(now.monotonic, entry);
    }
}

#[cfg(test)]
mod tests {
    use mtun_policy::{BinarySelector, IpVersion};

    use super::*;

    fn record() -> MobileRecord {
        let prefix = |text: &str| {
            MobileNetworkPrefix::new(text.parse().expect("a prefix")).expect("no host bits")
        };
        let binding = |bid, care_of: &str, left| KeptBinding {
            bid: Bid::new(bid),
            care_of: CareOfAddress(care_of.parse().expect("an address")),
            priority: 7,
            left: Duration::from_millis(left),
        };
        let flow = |id, priority, bids: &[u16]| FlowBinding {
            id: FlowId::new(id).expect("not zero"),
            priority: FlowPriority::new(priority).expect("not zero"),
            selector: BinarySelector {
                destination_port: Some(5001..=5010),
                protocol: Some(17..=17),
                ..BinarySelector::everything(IpVersion::V6)
            },
            bids: bids.iter().map(|bid| Bid::new(*bid).expect("not zero")).collect(),
        };
        MobileRecord {
            home_address: HomeAddress("2001:db8:100::42".parse().expect("an address")),
            router: true,
            link_local: true,
            link_layer: Some(LinkLayerAddress([2, 0, 0, 0, 0, 9])),
            prefixes: vec![prefix("2001:db8:100:4200::/64"), prefix("2001:db8:100:4300::/56")],
            bindings: vec![binding(1, "2001:db8:1::5", 400_000), binding(2, "192.0.2.7", 1)],
            sequence: Some((65_535, Some(Duration::from_secs(9)))),
            timestamp: Some(NtpTime(0x1122_3344_5566_7788)),
            flows: vec![flow(3, 16, &[1, 2]), flow(1, 32, &[2])],
            reflect: true,
            copies: true,
        }
    }

    fn emitted(record: &MobileRecord) -> Vec<u8> {
        let mut out = Vec::new();
        record.emit(&mut out);
        out
    }

    #[test]
    fn a_record_reads_back_and_no_other_length_does() {
        let empty = MobileRecord {
            router: false,
            link_local: false,
            link_layer: None,
            prefixes: Vec::new(),
            bindings: Vec::new(),
            sequence: None,
            timestamp: None,
            flows: Vec::new(),
            reflect: false,
            copies: false,
            ..record()
        };
        assert!(empty.is_empty());
        // What may be lost comes last, so a record may end before any of it.
        let plain = MobileRecord { flows: Vec::new(), reflect: false, copies: false, ..record() };
        let one = MobileRecord { flows: record().flows[..1].to_vec(), ..plain.clone() };
        let two = MobileRecord { flows: record().flows, ..plain.clone() };
        let shorter: Vec<usize> =
            [plain, one, two].iter().map(|record| emitted(record).len()).collect();
        for want in [record(), empty] {
            let octets = emitted(&want);
            assert_eq!(MobileRecord::parse(want.home_address, &octets), Ok(want.clone()));
            for cut in (0..octets.len()).filter(|cut| !shorter.contains(cut)) {
                let read = MobileRecord::parse(want.home_address, &octets[..cut]);
                assert_eq!(read, Err(RecordError::Length), "cut at {cut}");
            }
        }
    }

    #[test]
    fn another_version_may_add_what_may_be_lost_and_nothing_else() {
        let want = record();
        let extended = |kind: u16| {
            let mut octets = emitted(&want);
            octets.extend_from_slice(&kind.to_be_bytes());
            octets.extend_from_slice(&[0, 3, 1, 2, 3]);
            MobileRecord::parse(want.home_address, &octets)
        };
        assert_eq!(extended(0x8003), Ok(want.clone()));
        assert_eq!(extended(0x0001), Err(RecordError::Extension(1)));
        let mut next = emitted(&want);
        next[0] = 2;
        assert_eq!(MobileRecord::parse(want.home_address, &next), Err(RecordError::Format(2)));
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let want = record();
        // Flags, the kind of sequence number, the timestamp's flag, a prefix length, the family of
        // an address.
        for (at, value) in [(1, 8), (8, 3), (19, 9), (46, 129), (69, 5)] {
            let mut octets = emitted(&want);
            octets[at] = value;
            let read = MobileRecord::parse(want.home_address, &octets);
            assert!(matches!(read, Err(RecordError::Value(_))), "octet {at}: {read:?}");
        }
    }
}
