//! `match` and `exclude` lines.

use super::Reader;
use crate::diagnostic::Code;
use crate::document::MatchNode;
use crate::reader::Node;
use crate::value::{self, ICMP, ICMPV6, LARGEST_FLOW_LABEL, WITH_SPI};

impl Reader<'_> {
    pub(super) fn match_line(&mut self, node: &Node) -> MatchNode {
        let protocols = self.values(node, "proto", value::protocol);
        let icmp = protocols.iter().any(|protocol| protocol.value == ICMP);
        let family = if icmp { ICMP } else { ICMPV6 };
        let line = MatchNode {
            span: node.span(),
            sources: self.terms(node, "src", value::prefix),
            destinations: self.terms(node, "dst", value::prefix),
            source_ports: self.terms(node, "sport", value::ports),
            destination_ports: self.terms(node, "dport", value::ports),
            dscps: self.values(node, "dscp", value::dscp),
            ingresses: self
                .terms(node, "in", |name| value::interface_name(name).map(str::to_owned)),
            flow_labels: self.values(node, "flow-label", |text| {
                value::numbers(text, "flow label", LARGEST_FLOW_LABEL)
            }),
            spis: self.values(node, "spi", |text| value::numbers(text, "SPI", u32::MAX)),
            icmp_types: self.values(node, "icmp-type", |text| value::icmp_type(text, family)),
            uids: self.values(node, "uid", |text| value::numbers(text, "user id", u32::MAX)),
            protocols,
        };
        if node.properties.is_empty() {
            self.sink.error(
                node.name.span,
                Code::Missing,
                format!("this `{}` says nothing", node.name.value),
                "name at least one field: proto, src, dst, sport, dport, dscp, in; what matches everything is `default`",
            );
        }
        self.fields_fit(node, &line);
        line
    }

    /// Names fields that the packets of the line's protocols do not have.
    fn fields_fit(&mut self, node: &Node, line: &MatchNode) {
        let said = node.property("proto").is_some();
        let protocols: Vec<u8> = line.protocols.iter().map(|protocol| protocol.value).collect();
        // A protocol that could not be read has a fault of its own.
        let only_others = |with: &[u8]| {
            !protocols.is_empty() && !protocols.iter().any(|protocol| with.contains(protocol))
        };
        let ports = ["sport", "dport"].into_iter().find_map(|name| node.property(name));
        if let Some(ports) = ports.filter(|_| only_others(value::WITH_PORTS)) {
            self.sink.error(
                ports.span,
                Code::Conflict,
                "packets of this protocol have no ports",
                "remove the ports, or write proto=tcp or proto=udp",
            );
        }
        if let Some(spi) = node.property("spi").filter(|_| only_others(&WITH_SPI)) {
            self.sink.error(
                spi.span,
                Code::Conflict,
                "packets of this protocol have no SPI",
                "remove it, or write proto=esp or proto=ah",
            );
        }
        if let Some(types) = node.property("icmp-type") {
            let both = protocols.contains(&ICMP) && protocols.contains(&ICMPV6);
            if !said || both {
                self.sink.error(
                    types.span,
                    if both { Code::Conflict } else { Code::Missing },
                    "ICMP and ICMPv6 number their types differently",
                    "write proto=icmpv6 or proto=icmp, each on a line of its own",
                );
            } else if only_others(&[ICMP, ICMPV6]) {
                self.sink.error(
                    types.span,
                    Code::Conflict,
                    "packets of this protocol have no ICMP type",
                    "remove it, or write proto=icmpv6",
                );
            }
        }
        let local = |ingress: &crate::source::Spanned<crate::document::Term<String>>| match &ingress
            .value
        {
            crate::document::Term::Literal(name) => name == "local",
            crate::document::Term::Group(_) => true,
        };
        if let Some(uid) = node.property("uid")
            && !line.ingresses.is_empty()
            && !line.ingresses.iter().any(local)
        {
            self.sink.error(
                uid.span,
                Code::Conflict,
                "only packets of this machine's own sockets have a user",
                "remove `in`, or write in=local",
            );
        }
    }
}
