//! Questions: one packet's worth of a flow, and what is supposed.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::{LONGEST, Reader};
use crate::compile::usual_ingress;
use crate::diagnostic::{Code, Diagnostic};
use crate::key::{FlowKey, Ingress};
use crate::policy::Policy;
use crate::steering::Given;
use crate::suppose::{Supposition, supposition};
use crate::value::{self, Problem, protocol_name};

impl Reader<'_> {
    /// A fault of the whole text.
    fn whole(&self, code: Code, message: String, help: &str) -> Diagnostic {
        self.fault(0, self.text.len().min(LONGEST), Problem::new(code, message, help))
    }

    fn missing(&self, what: &str) -> Diagnostic {
        let help = "a flow looks like: tcp 2001:db8::5 -> 2001:db8:c::9 dport 22";
        self.whole(Code::Missing, format!("this flow has no {what}"), help)
    }

    fn several(&self, what: &str) -> Diagnostic {
        let help = "explain follows one packet at a time";
        self.whole(Code::Value, format!("a flow has exactly one {what}"), help)
    }

    fn address(&self, nets: &[IpNet], what: &str) -> Result<std::net::IpAddr, Diagnostic> {
        match nets {
            [] => Err(self.missing(what)),
            [net] if net.prefix_len() == net.max_prefix_len() => Ok(net.addr()),
            _ => Err(self.several(what)),
        }
    }

    fn one<T: Copy + PartialEq>(
        &self,
        ranges: &[RangeInclusive<T>],
        what: &str,
    ) -> Result<Option<T>, Diagnostic> {
        match ranges {
            [] => Ok(None),
            [range] if range.start() == range.end() => Ok(Some(*range.start())),
            _ => Err(self.several(what)),
        }
    }

    /// Terms that make up one packet.
    pub(super) fn flow(&mut self, policy: &Policy) -> Result<FlowKey, Diagnostic> {
        let filter = self.terms()?;
        if !filter.via.is_empty() || !filter.rule.is_empty() {
            let help = "remove them; the answer names the link and the rule";
            let message = "a flow has no `via` and no `rule`".to_owned();
            return Err(self.whole(Code::Conflict, message, help));
        }
        let selector = &filter.selector;
        let source = self.address(&selector.sources, "source address")?;
        let protocol = match selector.protocols.as_slice() {
            [] => return Err(self.missing("protocol")),
            [protocol] => *protocol,
            _ => return Err(self.several("protocol")),
        };
        let source_port = self.one(&selector.source_ports, "source port")?;
        let destination_port = self.one(&selector.destination_ports, "destination port")?;
        if (source_port.is_some() || destination_port.is_some())
            && !value::WITH_PORTS.contains(&protocol)
        {
            let message = format!("packets of {} have no ports", protocol_name(protocol));
            return Err(self.whole(Code::Conflict, message, "remove the ports"));
        }
        let uid = self.one(&selector.uids, "user id")?;
        Ok(FlowKey {
            source,
            destination: self.address(&selector.destinations, "destination address")?,
            protocol,
            source_port,
            destination_port,
            dscp: match selector.dscps.as_slice() {
                [] => 0,
                [dscp] => *dscp,
                _ => return Err(self.several("DSCP")),
            },
            flow_label: self.one(&selector.flow_labels, "flow label")?.unwrap_or(0),
            spi: self.one(&selector.spis, "SPI")?,
            icmp_type: self.one(&selector.icmp_types, "ICMP type")?,
            uid,
            ingress: match selector.ingresses.as_slice() {
                [ingress] => *ingress,
                [] if uid.is_some() => Ingress::LOCAL,
                [] => policy
                    .home_of(source)
                    .map_or(Ingress::OTHER, |home| usual_ingress(home, &policy.ingresses, source)),
                _ => return Err(self.several("ingress interface")),
            },
        })
    }

    /// Suppositions up to the end.
    pub(super) fn suppositions(&mut self, given: &mut Given) -> Result<(), Diagnostic> {
        while let Some(name) = self.take() {
            if matches!(name.text, "and" | "," | "given") {
                continue;
            }
            let value = if self.take_if("=") { self.take() } else { None };
            let Some(value) = value else {
                let problem = Problem::new(
                    Code::Missing,
                    format!("what is supposed of {} is missing", name.text),
                    format!("write {}", example(name.text)),
                );
                return Err(self.fault_at(name, problem));
            };
            let text = value.text.trim_end_matches(',');
            let read =
                supposition(name.text, text).map_err(|problem| self.fault_at(value, problem))?;
            let bid = match &read {
                Supposition::Link(link, _) => {
                    Some(self.link(link).map_err(|problem| self.fault_at(name, problem))?)
                }
                _ => None,
            };
            read.put(bid, given).map_err(|problem| self.fault_at(name, problem))?;
        }
        Ok(())
    }
}

/// A supposition of this name.
fn example(name: &str) -> String {
    let known = crate::suppose::WORDS.iter().find(|(word, _)| *word == name);
    let value = known.map_or("down", |(_, example)| *example);
    format!("{}={value}", name.chars().take(64).collect::<String>())
}
