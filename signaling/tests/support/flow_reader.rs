//! A second reader and a second writer of flow options, for want of an independent program that
//! knows them: written from the drawings of RFC 6089 and RFC 6088 by index, field after field, and
//! sharing nothing with the codec, not even a table.

/// A range as it stands on the wire; without an end it is one value.
pub type Field = Option<(u128, Option<u128>)>;

/// A binary traffic selector as its octets say. Numbers as on the wire: the DS fields with their
/// two low bits, the flow labels with 32.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSelector {
    pub format: u8,
    pub source: Field,
    pub destination: Field,
    pub spi: Field,
    pub flow_label: Field,
    pub source_port: Field,
    pub destination_port: Field,
    pub ds: Field,
    pub protocol: Field,
}

/// A Flow Identification option as its octets say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadFlow {
    pub fid: u16,
    pub fid_pri: u16,
    pub status: u8,
    pub bids: Vec<u16>,
    pub selector: Option<ReadSelector>,
}

fn number(octets: &[u8], at: usize, length: usize) -> u128 {
    let mut value = 0;
    for index in 0..length {
        value = value * 256 + u128::from(octets[at + index]);
    }
    value
}

/// The selector whose TS Format is at `at` of the message.
fn read_selector(message: &[u8], at: usize, end: usize) -> ReadSelector {
    let format = message[at];
    assert_eq!(message[at + 1], 0, "Reserved");
    let f = number(message, at + 2, 4);
    let mut here = at + 6;
    let mut take = |flag: u128, length: usize| -> Option<u128> {
        if f & flag == 0 {
            return None;
        }
        // Where octets of this length belong; addresses on multiples of eight.
        assert_eq!(here % length.min(8), 0, "a field of {length} octets at offset {here}");
        let value = number(message, here, length);
        here += length;
        Some(value)
    };
    let mut read = ReadSelector { format, ..ReadSelector::default() };
    if format == 1 {
        let (a, b) = (take(0x8000_0000, 4), take(0x4000_0000, 4));
        let (c, d) = (take(0x2000_0000, 4), take(0x1000_0000, 4));
        let (e, f) = (take(0x0800_0000, 4), take(0x0400_0000, 4));
        let (g, h) = (take(0x0200_0000, 2), take(0x0100_0000, 2));
        let (i, j) = (take(0x0080_0000, 2), take(0x0040_0000, 2));
        let (k, l) = (take(0x0020_0000, 1), take(0x0010_0000, 1));
        let (m, n) = (take(0x0008_0000, 1), take(0x0004_0000, 1));
        read.source = a.map(|start| (start, b));
        read.destination = c.map(|start| (start, d));
        read.spi = e.map(|start| (start, f));
        read.source_port = g.map(|start| (start, h));
        read.destination_port = i.map(|start| (start, j));
        read.ds = k.map(|start| (start, l));
        read.protocol = m.map(|start| (start, n));
        assert_eq!(f_bits(message, at) & 0x0003_ffff, 0, "Reserved");
    } else {
        assert_eq!(format, 2);
        let (a, b) = (take(0x8000_0000, 16), take(0x4000_0000, 16));
        let (c, d) = (take(0x2000_0000, 16), take(0x1000_0000, 16));
        let (e, f) = (take(0x0800_0000, 4), take(0x0400_0000, 4));
        let (g, h) = (take(0x0200_0000, 4), take(0x0100_0000, 4));
        let (i, j) = (take(0x0080_0000, 2), take(0x0040_0000, 2));
        let (k, l) = (take(0x0020_0000, 2), take(0x0010_0000, 2));
        let (m, n) = (take(0x0008_0000, 1), take(0x0004_0000, 1));
        let (o, p) = (take(0x0002_0000, 1), take(0x0001_0000, 1));
        read.source = a.map(|start| (start, b));
        read.destination = c.map(|start| (start, d));
        read.spi = e.map(|start| (start, f));
        read.flow_label = g.map(|start| (start, h));
        read.source_port = i.map(|start| (start, j));
        read.destination_port = k.map(|start| (start, l));
        read.ds = m.map(|start| (start, n));
        read.protocol = o.map(|start| (start, p));
        assert_eq!(f_bits(message, at) & 0xffff, 0, "Reserved");
    }
    assert_eq!(here, end, "nothing behind the last field");
    read
}

fn f_bits(message: &[u8], at: usize) -> u128 {
    number(message, at + 2, 4)
}

/// The flow options of a Binding Update or Acknowledgement: the options 45, and the numbers of all
/// options 44.
pub fn read(message: &[u8]) -> (Vec<ReadFlow>, Vec<u16>) {
    let (mut flows, mut summary) = (Vec::new(), Vec::new());
    let mut at = 12;
    while at < message.len() {
        if message[at] == 0 {
            at += 1;
            continue;
        }
        let end = at + 2 + usize::from(message[at + 1]);
        if message[at] == 44 {
            assert_eq!(at % 2, 0, "2n");
            for fid in (at + 2..end).step_by(2) {
                summary.push(number(message, fid, 2) as u16);
            }
        }
        if message[at] == 45 {
            assert_eq!(at % 2, 0, "2n");
            flows.push(read_flow(message, at, end));
        }
        at = end;
    }
    (flows, summary)
}

fn read_flow(message: &[u8], at: usize, end: usize) -> ReadFlow {
    let mut read = ReadFlow {
        fid: number(message, at + 2, 2) as u16,
        fid_pri: number(message, at + 4, 2) as u16,
        status: message[at + 7],
        ..ReadFlow::default()
    };
    assert_eq!(message[at + 6], 0, "Reserved");
    let mut sub = at + 8;
    while sub < end {
        if message[sub] == 0 {
            sub += 1;
            continue;
        }
        let behind = sub + 2 + usize::from(message[sub + 1]);
        assert!(behind <= end, "a sub-option ends within its option");
        match message[sub] {
            1 => assert!(message[sub + 2..behind].iter().all(|octet| *octet == 0)),
            2 => {
                assert_eq!(sub % 2, 0, "2n");
                for bid in (sub + 2..behind).step_by(2) {
                    read.bids.push(number(message, bid, 2) as u16);
                }
            }
            3 => read.selector = Some(read_selector(message, sub + 2, behind)),
            other => panic!("sub-option {other}"),
        }
        sub = behind;
    }
    read
}

/// Writes the data of an option 45, each sub-option right behind the one before, as a sender may
/// that does not care for alignment.
pub fn write(flow: &ReadFlow) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(flow.fid.to_be_bytes());
    data.extend(flow.fid_pri.to_be_bytes());
    data.push(0);
    data.push(flow.status);
    if let Some(selector) = &flow.selector {
        let inside = write_selector(selector);
        data.push(3);
        data.push(inside.len() as u8);
        data.extend(inside);
    }
    if !flow.bids.is_empty() {
        data.push(2);
        data.push((flow.bids.len() * 2) as u8);
        for bid in &flow.bids {
            data.extend(bid.to_be_bytes());
        }
    }
    data
}

fn write_selector(selector: &ReadSelector) -> Vec<u8> {
    let mut flags = 0_u32;
    let mut fields = Vec::new();
    let mut put = |field: Field, start_flag: u32, length: usize| {
        if let Some((start, end)) = field {
            flags |= start_flag;
            fields.extend_from_slice(&start.to_be_bytes()[16 - length..]);
            if let Some(end) = end {
                flags |= start_flag >> 1;
                fields.extend_from_slice(&end.to_be_bytes()[16 - length..]);
            }
        }
    };
    if selector.format == 1 {
        put(selector.source, 0x8000_0000, 4);
        put(selector.destination, 0x2000_0000, 4);
        put(selector.spi, 0x0800_0000, 4);
        put(selector.source_port, 0x0200_0000, 2);
        put(selector.destination_port, 0x0080_0000, 2);
        put(selector.ds, 0x0020_0000, 1);
        put(selector.protocol, 0x0008_0000, 1);
    } else {
        put(selector.source, 0x8000_0000, 16);
        put(selector.destination, 0x2000_0000, 16);
        put(selector.spi, 0x0800_0000, 4);
        put(selector.flow_label, 0x0200_0000, 4);
        put(selector.source_port, 0x0080_0000, 2);
        put(selector.destination_port, 0x0020_0000, 2);
        put(selector.ds, 0x0008_0000, 1);
        put(selector.protocol, 0x0002_0000, 1);
    }
    let mut octets = vec![selector.format, 0];
    octets.extend(flags.to_be_bytes());
    octets.extend(fields);
    octets
}
