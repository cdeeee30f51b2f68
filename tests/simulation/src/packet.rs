//! Packets as the simulation writes them, and a reader of its own for what leaves and arrives.
//!
//! The invariants must not believe the code that they watch, so nothing here uses the data
//! plane's codec.

use std::net::Ipv6Addr;

const IPV6: u8 = 41;
const ROUTING: u8 = 43;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const TCP: u8 = 6;
const UDP: u8 = 17;
const MOBILITY_HEADER: u8 = 135;
const MARK: [u8; 4] = *b"mtun";

/// What a data packet is: a question, or the answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Which question.
    pub serial: u64,
    /// Whether this is its answer.
    pub echo: bool,
}

/// The ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub tcp: bool,
    pub ports: (u16, u16),
}

impl Flow {
    /// The way back.
    pub fn mirrored(self) -> Self {
        let (source, destination) = (self.destination, self.source);
        Self { source, destination, ports: (self.ports.1, self.ports.0), ..self }
    }
}

/// Any IPv6 packet.
pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("packets here are short");
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}

/// A tunnel packet around another.
pub fn wrapped(source: Ipv6Addr, destination: Ipv6Addr, inner: &[u8]) -> Vec<u8> {
    ipv6(source, destination, IPV6, inner)
}

/// A data packet of a flow, `filler` octets longer than it must be.
pub fn data(flow: Flow, label: Label, filler: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(40 + filler);
    payload.extend_from_slice(&flow.ports.0.to_be_bytes());
    payload.extend_from_slice(&flow.ports.1.to_be_bytes());
    if flow.tcp {
        payload.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 4, 0, 0, 0, 0, 0]);
    } else {
        let length = u16::try_from(8 + 13 + filler).expect("packets here are short");
        payload.extend_from_slice(&length.to_be_bytes());
        payload.extend_from_slice(&[0, 0]);
    }
    payload.extend_from_slice(&MARK);
    payload.push(u8::from(label.echo));
    payload.extend_from_slice(&label.serial.to_be_bytes());
    payload.resize(payload.len() + filler, 0xa5);
    ipv6(flow.source, flow.destination, if flow.tcp { TCP } else { UDP }, &payload)
}

/// A Destination Unreachable or Packet Too Big about `offending`.
pub fn icmp_error(source: Ipv6Addr, kind: u8, code: u8, value: u32, offending: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&value.to_be_bytes());
    message.extend_from_slice(&offending[..offending.len().min(1200)]);
    let destination = address(offending, 8).expect("a whole header");
    let sum = checksum(source, destination, ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv6(source, destination, ICMPV6, &message)
}

/// The checksum of an upper-layer message whose checksum field is zero (RFC 8200 §8.1).
pub fn checksum(source: Ipv6Addr, destination: Ipv6Addr, next: u8, message: &[u8]) -> u16 {
    let mut octets = Vec::with_capacity(40 + message.len());
    octets.extend_from_slice(&source.octets());
    octets.extend_from_slice(&destination.octets());
    octets.extend_from_slice(&(message.len() as u32).to_be_bytes());
    octets.extend_from_slice(&[0, 0, 0, next]);
    octets.extend_from_slice(message);
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into());
    let mut sum: u32 = octets.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// One IPv6 header and what stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    /// From the Home Address option.
    pub home_address: Option<Ipv6Addr>,
    /// From a routing header.
    pub routing_header: Option<Ipv6Addr>,
    /// What the packet carries.
    pub next: u8,
    /// Where that begins in the whole packet.
    pub payload_at: usize,
}

impl Layer {
    /// Whether it carries a Mobility Header.
    pub fn is_signalling(&self) -> bool {
        self.next == MOBILITY_HEADER
    }

    /// Whether it carries ICMPv6.
    pub fn is_icmp(&self) -> bool {
        self.next == ICMPV6
    }

    /// Whether it carries another packet.
    pub fn is_tunnel(&self) -> bool {
        self.next == IPV6
    }
}

/// The headers of a packet, the outermost first; none if it is no packet.
pub fn layers(packet: &[u8]) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut at = 0;
    while let Some(layer) = layer(packet, at) {
        at = layer.payload_at;
        let further = layer.is_tunnel();
        layers.push(layer);
        if !further {
            break;
        }
    }
    layers
}

fn layer(packet: &[u8], start: usize) -> Option<Layer> {
    let fixed = packet.get(start..start + 40)?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let mut layer = Layer {
        source: address(packet, start + 8)?,
        destination: address(packet, start + 24)?,
        home_address: None,
        routing_header: None,
        next: fixed[6],
        payload_at: start + 40,
    };
    while layer.next == DESTINATION_OPTIONS || layer.next == ROUTING {
        let at = layer.payload_at;
        let header = packet.get(at..at + 2)?;
        let length = 8 + usize::from(header[1]) * 8;
        let whole = packet.get(at..at + length)?;
        if layer.next == ROUTING {
            layer.routing_header = address(packet, at + 8);
        } else if let Some(option) = whole.windows(2).position(|two| two == [0xc9, 16]) {
            layer.home_address = address(packet, at + option + 2);
        }
        layer.next = whole[0];
        layer.payload_at = at + length;
    }
    Some(layer)
}

/// The numbers of a copy: experiment, stream, epoch and sequence.
pub type Mark = [u8; 12];

/// Where the option with the numbers of a copy begins, in the outermost destination options.
pub fn mark_at(packet: &[u8]) -> Option<usize> {
    if packet.get(6) != Some(&DESTINATION_OPTIONS) {
        return None;
    }
    let length = 8 + usize::from(*packet.get(41)?) * 8;
    let options = packet.get(40..40 + length)?;
    options.windows(4).position(|it| it == [0x1e, 12, b'm', b't']).map(|at| 40 + at)
}

/// The numbers of a copy.
pub fn mark(packet: &[u8]) -> Option<Mark> {
    packet.get(mark_at(packet)? + 2..)?.first_chunk().copied()
}

/// What a tunnel packet carries; nothing if it is none.
pub fn inner(packet: &[u8]) -> &[u8] {
    let outer = layer(packet, 0).filter(Layer::is_tunnel);
    outer.and_then(|outer| packet.get(outer.payload_at..)).unwrap_or_default()
}

/// The address at this place.
pub fn address(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?))
}

/// The flow and the label of a data packet of ours, read behind this header.
pub fn labelled(packet: &[u8], layer: &Layer) -> Option<(Flow, Label)> {
    let payload = packet.get(layer.payload_at..)?;
    let (tcp, header) = match layer.next {
        TCP => (true, 20),
        UDP => (false, 8),
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(*payload.get(at..)?.first_chunk()?));
    let mark = payload.get(header..header + 13)?;
    if mark[..4] != MARK {
        return None;
    }
    let source = layer.home_address.unwrap_or(layer.source);
    let destination = layer.routing_header.unwrap_or(layer.destination);
    let flow = Flow { source, destination, tcp, ports: (port(0)?, port(2)?) };
    let serial = u64::from_be_bytes(*mark[5..].first_chunk()?);
    Some((flow, Label { serial, echo: mark[4] != 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let [a, b, c, d]: [Ipv6Addr; 4] = [1, 2, 3, 4].map(|n| Ipv6Addr::from(n << 64 | 7));
        for tcp in [false, true] {
            let flow = Flow { source: a, destination: b, tcp, ports: (4000, 22) };
            let label = Label { serial: 77, echo: true };
            let packet = wrapped(c, d, &data(flow, label, 100));
            let layers = layers(&packet);
            assert_eq!(layers.len(), 2);
            assert_eq!((layers[0].source, layers[0].destination), (c, d));
            assert_eq!(labelled(&packet, &layers[1]), Some((flow, label)));
        }
        assert!(layers(&[0x60; 39]).is_empty());
    }
}
