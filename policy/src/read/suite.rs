//! `test` blocks.

use std::net::IpAddr;

use super::Reader;
use super::plain::{choice, given, interface, one, quantity, text, truth, whole};
use crate::diagnostic::Code;
use crate::document::*;
use crate::reader::Node;
use crate::source::Spanned;
use crate::suppose::{self, supposition};
use crate::value::{self, Problem};

impl Reader<'_> {
    pub(super) fn test(&mut self, node: &Node) -> Option<TestNode> {
        let name = self.argument(node, |value| match text(value)? {
            "" => Err(Problem::new(
                Code::Missing,
                "a test without a name",
                "say in a sentence what must hold",
            )),
            name => Ok(name.to_owned()),
        })?;
        let flow = node.child("flow").map(|flow| self.flow(flow));
        let expectations =
            node.each("expect").map(|expect| self.expectation(expect)).collect::<Vec<_>>();
        if flow.is_none() {
            self.sink.error(
                name.span,
                Code::Missing,
                "this test has no flow",
                "add flow src=\"…\" dst=\"…\" proto=tcp dport=22",
            );
        }
        if expectations.is_empty() {
            self.sink.error(
                name.span,
                Code::Missing,
                "this test expects nothing",
                "add expect rule=… via=…",
            );
        }
        Some(TestNode { name, flow, expectations })
    }

    fn flow(&mut self, node: &Node) -> FlowNode {
        let mut port = |name: &str| {
            self.property(node, name, |value| whole(value, 0..=65535)).map(|port| port.value as u16)
        };
        let (source_port, destination_port) = (port("sport"), port("dport"));
        let mut address = |name: &'static str| -> Option<Spanned<IpAddr>> {
            if node.property(name).is_none() {
                self.sink.error(
                    node.name.span,
                    Code::Missing,
                    format!("this flow has no `{name}`"),
                    format!("add {name}=\"2001:db8::1\""),
                );
            }
            self.property(node, name, |value| value::address(text(value)?))
        };
        let (source, destination) = (address("src"), address("dst"));
        if node.property("proto").is_none() {
            self.sink.error(
                node.name.span,
                Code::Missing,
                "this flow has no `proto`",
                "add proto=tcp",
            );
        }
        let protocol = self.property(node, "proto", |value| one(value, value::protocol));
        let family = protocol.as_ref().map_or(58, |protocol| protocol.value);
        let icmp_type = self
            .property(node, "icmp-type", |value| one(value, |text| value::icmp_type(text, family)));
        let dscp = self.property(node, "dscp", |value| one(value, value::dscp));
        let ingress = self.property(node, "in", interface);
        let mut number = |name: &str, most: u32| {
            let number = self.property(node, name, |value| whole(value, 0..=most.into()));
            number.map(|number| number.value as u32)
        };
        let flow = FlowNode {
            span: node.span(),
            source,
            destination,
            source_port,
            destination_port,
            dscp: dscp.map_or(0, |dscp| dscp.value),
            ingress,
            flow_label: number("flow-label", 0xf_ffff).unwrap_or(0),
            spi: number("spi", u32::MAX),
            uid: number("uid", u32::MAX),
            icmp_type: icmp_type.map(|kind| *kind.value.start()),
            protocol,
        };
        let ports = ["sport", "dport"].into_iter().find_map(|name| node.property(name));
        if let (Some(ports), Some(protocol)) = (ports, &flow.protocol)
            && !value::WITH_PORTS.contains(&protocol.value)
        {
            self.sink.error(
                ports.span,
                Code::Conflict,
                "packets of this protocol have no ports",
                "remove the ports",
            );
        }
        flow
    }

    fn expectation(&mut self, node: &Node) -> ExpectNode {
        let word = self.argument(node, |value| match text(value)? {
            word @ ("blocked" | "unreachable" | "breakout") => Ok(word.to_owned()),
            other => Err(choice(other, "expectation", &["blocked", "unreachable", "breakout"])),
        });
        let word = word.map(|word| word.value);
        let mut supposed = Vec::new();
        for (name, value) in node.each("given").flat_map(|given| &given.properties) {
            let read = |text: &str| supposition(&name.value, text);
            let read = self.value(value, |value| match suppose::usual_unit(&name.value) {
                Some(usual) => quantity(value, usual, read),
                None => read(text(value)?),
            });
            let read = read.map(|read| GivenNode { span: name.span, supposition: read.value });
            supposed.extend(read);
        }
        let via = self.values(node, "via", |name| value::interface_name(name).map(str::to_owned));
        let expect = ExpectNode {
            span: node.span(),
            rule: self.property(node, "rule", given),
            via,
            breakout: word.as_deref() == Some("breakout"),
            blocked: word.as_deref() == Some("blocked"),
            unreachable: word.as_deref() == Some("unreachable"),
            optimized: self.property(node, "optimized", truth),
            given: supposed,
        };
        if node.arguments.is_empty() && node.properties.is_empty() {
            self.sink.error(
                node.name.span,
                Code::Missing,
                "this `expect` says nothing",
                "write expect rule=… via=…, expect blocked or expect unreachable",
            );
        }
        let fault = match (expect.via.as_slice(), word.as_deref()) {
            ([via, ..], Some(word @ ("blocked" | "unreachable"))) => Some((
                via.span,
                format!("a flow that is {word} goes by no link"),
                "remove `via`, or the word",
            )),
            ([_, second, ..], Some("breakout")) => Some((
                second.span,
                "what breaks out leaves by one link".to_owned(),
                "name one link",
            )),
            ([], Some("breakout")) if node.property("via").is_none() => Some((
                node.span(),
                "`breakout` does not say by which link".to_owned(),
                "write expect breakout via=wlan0",
            )),
            _ => None,
        };
        if let (Some(optimized), Some(word)) = (&expect.optimized, word.as_deref()) {
            let message = match word {
                "breakout" => "what breaks out leaves without any tunnel to be spared".to_owned(),
                word => format!("a flow that is {word} goes to no correspondent"),
            };
            self.sink.error(
                optimized.span,
                Code::Conflict,
                message,
                "remove `optimized`, or the word",
            );
        }
        if let Some((span, message, help)) = fault {
            self.sink.error(span, Code::Conflict, message, help);
        }
        expect
    }
}
