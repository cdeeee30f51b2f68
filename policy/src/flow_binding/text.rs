//! Binary traffic selectors as people read them: `ipv6 tcp from port 22 to 2001:db8:4200::/64`.

use std::fmt;
use std::ops::RangeInclusive;

use super::{AddressRange, BinarySelector, IpVersion};
use crate::value::protocol_name;

impl fmt::Display for BinarySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.version {
            IpVersion::V4 => "ipv4",
            IpVersion::V6 => "ipv6",
        })?;
        if let Some(protocol) = &self.protocol {
            match (protocol.start(), protocol.end()) {
                (one, last) if one == last => write!(f, " {}", protocol_name(*one))?,
                (first, last) => write!(f, " protocol {first}-{last}")?,
            }
        }
        end(f, " from", &self.source, &self.source_port)?;
        end(f, " to", &self.destination, &self.destination_port)?;
        range(f, " dscp", &self.dscp)?;
        range(f, " spi", &self.spi)?;
        range(f, " flow label", &self.flow_label)
    }
}

fn end(
    f: &mut fmt::Formatter<'_>,
    word: &str,
    addresses: &Option<AddressRange>,
    ports: &Option<RangeInclusive<u16>>,
) -> fmt::Result {
    if addresses.is_none() && ports.is_none() {
        return Ok(());
    }
    f.write_str(word)?;
    match addresses.as_ref().map(|addresses| (addresses, addresses.prefixes())) {
        Some((_, prefixes)) if prefixes.len() == 1 => match prefixes[0] {
            net if net.prefix_len() == net.max_prefix_len() => write!(f, " {}", net.addr())?,
            net => write!(f, " {net}")?,
        },
        Some((AddressRange::V4(range), _)) => write!(f, " {}-{}", range.start(), range.end())?,
        Some((AddressRange::V6(range), _)) => write!(f, " {}-{}", range.start(), range.end())?,
        None => {}
    }
    range(f, " port", ports)
}

fn range<T: PartialEq + fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    word: &str,
    range: &Option<RangeInclusive<T>>,
) -> fmt::Result {
    match range {
        Some(range) if range.start() == range.end() => write!(f, "{word} {}", range.start()),
        Some(range) => write!(f, "{word} {}-{}", range.start(), range.end()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_selector_is_one_line() {
        let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let all = BinarySelector::everything(IpVersion::V6);
        let network = v6("2001:db8:4200::")..=v6("2001:db8:4200:0:ffff:ffff:ffff:ffff");
        let host = v6("2001:db8:c::9");
        let cases = [
            (all.clone(), "ipv6"),
            (
                BinarySelector { protocol: Some(6..=6), source_port: Some(22..=22), ..all.clone() },
                "ipv6 tcp from port 22",
            ),
            (
                BinarySelector {
                    protocol: Some(17..=18),
                    source: Some(AddressRange::V6(host..=host)),
                    destination: Some(AddressRange::V6(network)),
                    destination_port: Some(5_060..=5_061),
                    dscp: Some(46..=46),
                    ..all.clone()
                },
                "ipv6 protocol 17-18 from 2001:db8:c::9 to 2001:db8:4200::/64 port 5060-5061 dscp 46",
            ),
            (
                BinarySelector {
                    source: Some(AddressRange::V4(
                        Ipv4Addr::new(192, 0, 2, 1)..=Ipv4Addr::new(192, 0, 2, 3),
                    )),
                    spi: Some(7..=7),
                    ..BinarySelector::everything(IpVersion::V4)
                },
                "ipv4 from 192.0.2.1-192.0.2.3 spi 7",
            ),
        ];
        for (selector, text) in cases {
            assert_eq!(selector.to_string(), text);
        }
    }
}
