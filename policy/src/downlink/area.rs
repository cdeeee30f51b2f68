//! An area of packets: one range for each field that a binary traffic selector has.
//!
//! Areas are what rules are taken apart into. Two of them meet in one area or not at all; one
//! without another is a few areas. A field that is not looked at is a range over all values and,
//! for ports, over the packets that have none: that one range may be written as an absent field,
//! and a part of it that holds packets without ports and not all ports cannot be written at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::target::DownlinkTarget;
use crate::flow_binding::{AddressRange, BinarySelector, IpVersion};
use crate::selector::TrafficSelector;

/// The fields, in the order of [`Area::fields`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dimension {
    /// Correspondents' addresses.
    Far,
    /// The mobile's addresses.
    Own,
    /// Upper-layer protocols.
    Protocol,
    /// Correspondents' ports.
    FarPort,
    /// The mobile's ports.
    OwnPort,
    /// Differentiated services code points.
    Dscp,
}

impl Dimension {
    const ALL: [Self; 6] =
        [Self::Far, Self::Own, Self::Protocol, Self::FarPort, Self::OwnPort, Self::Dscp];
}

/// Behind the last port: packets without ports.
const NO_PORT: u128 = 65_536;

/// A range of values of one field, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Span {
    pub first: u128,
    pub last: u128,
}

impl Span {
    pub fn new(first: impl Into<u128>, last: impl Into<u128>) -> Self {
        Self { first: first.into(), last: last.into() }
    }

    fn meets(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    fn holds(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    fn common(self, other: Self) -> Option<Self> {
        let common = Self { first: self.first.max(other.first), last: self.last.min(other.last) };
        (common.first <= common.last).then_some(common)
    }

    /// Both as one, if no value lies between them.
    fn joined(self, other: Self) -> Option<Self> {
        let near = |a: Self, b: Self| a.last.checked_add(1).is_none_or(|next| b.first <= next);
        (near(self, other) && near(other, self))
            .then_some(Self { first: self.first.min(other.first), last: self.last.max(other.last) })
    }
}

/// Ranges in order, without gaps of nothing between them.
pub(super) fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.first, span.last));
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut().and_then(|last| Some((last.joined(span)?, last))) {
            Some((both, last)) => *last = both,
            None => joined.push(span),
        }
    }
    joined
}

/// One range for each field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Area {
    pub version: IpVersion,
    fields: [Span; 6],
}

impl Area {
    /// Every packet of a family.
    pub fn all(version: IpVersion) -> Self {
        Self { version, fields: Dimension::ALL.map(|field| whole(version, field)) }
    }

    pub fn get(&self, field: Dimension) -> Span {
        self.fields[field as usize]
    }

    pub fn with(mut self, field: Dimension, span: Span) -> Self {
        self.fields[field as usize] = span;
        self
    }

    pub fn meets(&self, other: &Self) -> bool {
        self.version == other.version
            && self.fields.iter().zip(&other.fields).all(|(a, b)| a.meets(*b))
    }

    /// Whether all of the other's packets are in it.
    pub fn holds(&self, other: &Self) -> bool {
        self.version == other.version
            && self.fields.iter().zip(&other.fields).all(|(a, b)| a.holds(*b))
    }

    pub fn common(&self, other: &Self) -> Option<Self> {
        if self.version != other.version {
            return None;
        }
        let mut common = self.clone();
        for (field, other) in common.fields.iter_mut().zip(&other.fields) {
            *field = field.common(*other)?;
        }
        Some(common)
    }

    /// The least area that holds both.
    pub fn hull(&self, other: &Self) -> Self {
        let mut hull = self.clone();
        for (field, other) in hull.fields.iter_mut().zip(&other.fields) {
            *field = Span { first: field.first.min(other.first), last: field.last.max(other.last) };
        }
        hull
    }

    /// What is left without the other's packets, in areas that do not meet.
    pub fn without(&self, other: &Self) -> Vec<Self> {
        let Some(common) = self.common(other) else { return vec![self.clone()] };
        let (mut left, mut inner) = (Vec::new(), self.clone());
        for at in 0..self.fields.len() {
            let (mine, cut) = (inner.fields[at], common.fields[at]);
            if mine.first < cut.first {
                let mut part = inner.clone();
                part.fields[at].last = cut.first - 1;
                left.push(part);
            }
            if cut.last < mine.last {
                let mut part = inner.clone();
                part.fields[at].first = cut.last + 1;
                left.push(part);
            }
            inner.fields[at] = cut;
        }
        left
    }

    /// The same without addresses that are not the mobile's: no agent takes those.
    pub fn clipped(self, target: &DownlinkTarget) -> Vec<Self> {
        let span = self.get(Dimension::Own);
        if span == whole(self.version, Dimension::Own) {
            return vec![self];
        }
        let own = own_spans(self.version, target).into_iter().filter_map(|own| own.common(span));
        own.map(|own| self.clone().with(Dimension::Own, own)).collect()
    }

    /// Both as one, if that is an area and can be told.
    pub fn joined(&self, other: &Self, target: &DownlinkTarget) -> Option<Self> {
        if self.holds(other) {
            return Some(self.clone());
        }
        if other.holds(self) {
            return Some(other.clone());
        }
        if self.version != other.version {
            return None;
        }
        let mut apart =
            Dimension::ALL.into_iter().filter(|field| self.get(*field) != other.get(*field));
        let field = apart.next()?;
        if apart.next().is_some() {
            return None;
        }
        let (mine, others) = (self.get(field), other.get(field));
        let span = if field == Dimension::Own {
            let own = own_spans(self.version, target);
            let covered = |own: &Span| {
                let parts = [mine, others].into_iter().filter_map(|part| part.common(*own));
                joined(parts.collect()) == [*own]
            };
            if own.iter().all(covered) {
                whole(self.version, field)
            } else {
                let both = mine.joined(others)?;
                own.iter().find(|own| own.holds(both)).map(|_| both)?
            }
        } else {
            mine.joined(others)?
        };
        let both = self.clone().with(field, span);
        both.can_be_told().then_some(both)
    }

    /// Whether a binary traffic selector can say it.
    pub fn can_be_told(&self) -> bool {
        [Dimension::FarPort, Dimension::OwnPort].into_iter().all(|field| {
            self.get(field).last != NO_PORT || self.get(field) == whole(self.version, field)
        })
    }

    /// The selector that says it; [`Area::can_be_told`] says whether it does exactly that.
    pub fn selector(&self) -> BinarySelector {
        let looked_at =
            |field| Some(self.get(field)).filter(|span| *span != whole(self.version, field));
        let addresses = |field| looked_at(field).map(|span| addresses(self.version, span));
        let ports = |field| looked_at(field).map(|span| range(span, |value| value as u16));
        let octets = |field| looked_at(field).map(|span| range(span, |value| value as u8));
        BinarySelector {
            source: addresses(Dimension::Far),
            destination: addresses(Dimension::Own),
            source_port: ports(Dimension::FarPort),
            destination_port: ports(Dimension::OwnPort),
            dscp: octets(Dimension::Dscp),
            protocol: octets(Dimension::Protocol),
            ..BinarySelector::everything(self.version)
        }
    }
}

fn range<T>(span: Span, value: impl Fn(u128) -> T) -> RangeInclusive<T> {
    value(span.first)..=value(span.last)
}

fn addresses(version: IpVersion, span: Span) -> AddressRange {
    match version {
        IpVersion::V4 => AddressRange::V4(range(span, |bits| Ipv4Addr::from(bits as u32))),
        IpVersion::V6 => AddressRange::V6(range(span, Ipv6Addr::from)),
    }
}

/// All values of a field.
pub(super) fn whole(version: IpVersion, field: Dimension) -> Span {
    let last = match (field, version) {
        (Dimension::Far | Dimension::Own, IpVersion::V4) => u128::from(u32::MAX),
        (Dimension::Far | Dimension::Own, IpVersion::V6) => u128::MAX,
        (Dimension::FarPort | Dimension::OwnPort, _) => NO_PORT,
        (Dimension::Protocol, _) => u128::from(u8::MAX),
        (Dimension::Dscp, _) => 63,
    };
    Span { first: 0, last }
}

/// The addresses of a prefix; `None` if it is of the other family.
fn net_span(version: IpVersion, net: &IpNet) -> Option<Span> {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let same =
        matches!((version, net), (IpVersion::V4, IpNet::V4(_)) | (IpVersion::V6, IpNet::V6(_)));
    same.then(|| Span { first: bits(net.network()), last: bits(net.broadcast()) })
}

/// The addresses and networks that are the mobile's, which need not touch.
fn own_spans(version: IpVersion, target: &DownlinkTarget) -> Vec<Span> {
    let spans: Vec<Span> = target.own().filter_map(|net| net_span(version, &net)).collect();
    // The home address may lie in a mobile network: what is held by another is not looked at.
    let held = |at: usize| {
        let by = |(other, span): (usize, &Span)| {
            other != at && span.holds(spans[at]) && (*span != spans[at] || other < at)
        };
        spans.iter().enumerate().any(by)
    };
    (0..spans.len()).filter(|at| !held(*at)).map(|at| spans[at]).collect()
}

/// More than there is ever room for: so many.
pub(super) struct TooMany(pub usize);

/// The packets towards the mobile that a selector of that direction means, as far as it speaks of
/// fields that can be told: the product of the ranges of its fields. No areas if none of them can
/// come.
pub(super) fn areas(
    selector: &TrafficSelector,
    target: &DownlinkTarget,
    most: usize,
) -> Result<Vec<Area>, TooMany> {
    let mut all = Vec::new();
    for version in [IpVersion::V6, IpVersion::V4] {
        let own = own_spans(version, target);
        if own.is_empty() {
            continue;
        }
        let everything = |field| vec![whole(version, field)];
        let nets = |field, nets: &[IpNet]| match nets {
            [] => everything(field),
            nets => joined(nets.iter().filter_map(|net| net_span(version, net)).collect()),
        };
        let ports = |field, ports: &[RangeInclusive<u16>]| match ports {
            [] => everything(field),
            ports => {
                let spans = ports.iter().filter(|range| !range.is_empty());
                joined(spans.map(|range| Span::new(*range.start(), *range.end())).collect())
            }
        };
        let octets = |field, octets: &[u8]| match octets {
            [] => everything(field),
            octets => joined(octets.iter().map(|octet| Span::new(*octet, *octet)).collect()),
        };
        let meant = nets(Dimension::Own, &selector.destinations);
        let clip =
            |own: &Span| meant.iter().filter_map(|part| part.common(*own)).collect::<Vec<Span>>();
        let parts: Vec<Vec<Span>> = own.iter().map(clip).collect();
        let complete = parts.iter().zip(&own).all(|(parts, own)| parts.as_slice() == [*own]);
        let mine = if complete { everything(Dimension::Own) } else { parts.concat() };
        let fields = [
            nets(Dimension::Far, &selector.sources),
            mine,
            octets(Dimension::Protocol, &selector.protocols),
            ports(Dimension::FarPort, &selector.source_ports),
            ports(Dimension::OwnPort, &selector.destination_ports),
            octets(Dimension::Dscp, &selector.dscps),
        ];
        let count =
            fields.iter().fold(1, |product: usize, spans| product.saturating_mul(spans.len()));
        if count > most {
            return Err(TooMany(count));
        }
        let mut product = vec![Area::all(version)];
        for (field, spans) in Dimension::ALL.into_iter().zip(&fields) {
            let each = |area: &Area| {
                spans.iter().map(|span| area.clone().with(field, *span)).collect::<Vec<_>>()
            };
            product = product.iter().flat_map(each).collect();
        }
        all.append(&mut product);
    }
    Ok(all)
}
