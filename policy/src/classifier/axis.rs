//! One field of the key as a line of values, cut into intervals on which all rules agree.

use std::net::IpAddr;

use ipnet::IpNet;

use super::search_tree::SearchTree;
use super::sweep::Span;
use crate::key::FlowKey;
use crate::selector::{Field, TrafficSelector};

/// From a field of a key to the number of its class.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    field: Field,
    intervals: Intervals,
}

#[derive(Clone, Debug)]
enum Intervals {
    Address { v4: Cuts<u32>, v6: Cuts<u128> },
    Number(Cuts<u64>),
}

#[derive(Clone, Debug)]
struct Cuts<K> {
    tree: SearchTree<K>,
    /// The class of each interval.
    classes: Vec<u32>,
}

impl<K: Copy + Ord> Cuts<K> {
    /// The last interval may begin beyond the last value, where no key comes.
    fn new(intervals: &[(u128, u32)], value: impl Fn(u128) -> Option<K>) -> Self {
        let starts: Vec<K> = intervals.iter().map_while(|(start, _)| value(*start)).collect();
        let classes = intervals.iter().take(starts.len()).map(|(_, class)| *class).collect();
        Self { tree: SearchTree::new(&starts), classes }
    }

    fn octets(&self) -> usize {
        self.tree.octets() + 4 * self.classes.len()
    }

    #[inline]
    fn class(&self, value: K) -> u32 {
        self.classes[self.tree.find(value)]
    }
}

/// The two families of addresses are two lines of values; every other field is one.
pub(super) const FAMILIES: usize = 2;

impl Axis {
    /// `intervals` are the cuts of [`spans`] in the same order, each with its class.
    pub(super) fn new(field: Field, intervals: &[Vec<(u128, u32)>]) -> Self {
        let intervals = match intervals {
            [v4, v6] => Intervals::Address {
                v4: Cuts::new(v4, |start| u32::try_from(start).ok()),
                v6: Cuts::new(v6, Some),
            },
            [numbers, ..] => Intervals::Number(Cuts::new(numbers, |n| u64::try_from(n).ok())),
            [] => unreachable!("every field has a line of values"),
        };
        Self { field, intervals }
    }

    /// The class of this key.
    #[inline]
    pub(super) fn class(&self, key: &FlowKey) -> u32 {
        match &self.intervals {
            Intervals::Address { v4, v6 } => {
                let address =
                    if self.field == Field::Source { key.source } else { key.destination };
                match address {
                    IpAddr::V4(address) => v4.class(address.to_bits()),
                    IpAddr::V6(address) => v6.class(address.to_bits()),
                }
            }
            Intervals::Number(cuts) => cuts.class(number(self.field, key)),
        }
    }

    /// Octets of memory that it takes.
    pub(super) fn octets(&self) -> usize {
        match &self.intervals {
            Intervals::Address { v4, v6 } => v4.octets() + v6.octets(),
            Intervals::Number(cuts) => cuts.octets(),
        }
    }

    /// The same classes under other numbers.
    pub(super) fn renumber(&mut self, numbers: &[u32]) {
        let all = match &mut self.intervals {
            Intervals::Address { v4, v6 } => [Some(&mut v4.classes), Some(&mut v6.classes)],
            Intervals::Number(cuts) => [Some(&mut cuts.classes), None],
        };
        for class in all.into_iter().flatten().flatten() {
            *class = numbers[*class as usize];
        }
    }
}

/// What stands for a field that the packet lacks: one more than its largest value, which no range
/// of a selector reaches.
const NO_PORT: u64 = 1 << 16;
const NO_TYPE: u64 = 1 << 8;
const NO_WORD: u64 = 1 << 32;

#[inline]
fn number(field: Field, key: &FlowKey) -> u64 {
    match field {
        Field::Protocol => key.protocol.into(),
        Field::SourcePort => key.source_port.map_or(NO_PORT, u64::from),
        Field::DestinationPort => key.destination_port.map_or(NO_PORT, u64::from),
        Field::Dscp => key.dscp.into(),
        Field::Ingress => key.ingress.0.into(),
        Field::FlowLabel => key.flow_label.into(),
        Field::Spi => key.spi.map_or(NO_WORD, u64::from),
        Field::IcmpType => key.icmp_type.map_or(NO_TYPE, u64::from),
        Field::Uid => key.uid.map_or(NO_WORD, u64::from),
        Field::Source | Field::Destination => 0,
    }
}

/// Puts the values of `field` that `selector` lets pass on the field's lines of values.
pub(super) fn spans(field: Field, selector: &TrafficSelector, line: u32, lines: &mut [Vec<Span>]) {
    let mut put = |family: usize, first: u128, last: u128| {
        lines[family].push(Span { line, first, last });
    };
    fn ranges<T: Copy + PartialOrd + Into<u128>>(
        ranges: &[std::ops::RangeInclusive<T>],
        mut put: impl FnMut(usize, u128, u128),
    ) {
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            put(0, (*range.start()).into(), (*range.end()).into());
        }
    }
    match field {
        Field::Source | Field::Destination => {
            let nets = match field {
                Field::Source => &selector.sources,
                _ => &selector.destinations,
            };
            for net in nets {
                match net {
                    IpNet::V4(net) => {
                        put(0, net.network().to_bits().into(), net.broadcast().to_bits().into())
                    }
                    IpNet::V6(net) => put(1, net.network().to_bits(), net.broadcast().to_bits()),
                }
            }
        }
        Field::Protocol => selector.protocols.iter().for_each(|n| put(0, (*n).into(), (*n).into())),
        Field::SourcePort => ranges(&selector.source_ports, put),
        Field::DestinationPort => ranges(&selector.destination_ports, put),
        Field::Dscp => selector.dscps.iter().for_each(|n| put(0, (*n).into(), (*n).into())),
        Field::Ingress => selector.ingresses.iter().for_each(|n| put(0, n.0.into(), n.0.into())),
        Field::FlowLabel => ranges(&selector.flow_labels, put),
        Field::Spi => ranges(&selector.spis, put),
        Field::IcmpType => ranges(&selector.icmp_types, put),
        Field::Uid => ranges(&selector.uids, put),
    }
}
