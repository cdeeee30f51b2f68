//! From nodes to a [`Document`]: every value gets its type, every fault its place.

mod facts;
mod lines;
mod link;
mod mobility;
mod plain;
mod rules;
mod suite;
mod verbs;

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::diagnostic::Code;
use crate::document::*;
use crate::downlink::{MOST_FLOWS, Unmatched};
use crate::policy::{Algorithm, Extensions, KeySource, Probe};
use crate::reader::{Node, Value};
use crate::source::{Sink, Sources, Span, Spanned};
use crate::terms::PrefixMode;
use crate::value::{self, Problem, Read};
use plain::{
    choice, given, interface, lifetime, quantity, role, security_choice, text, truth, whole,
};

/// Reads the top-level nodes of a policy and its includes.
///
/// `lists` holds what stands in the files of `set` nodes, by the place of the node's name.
pub(crate) fn document(
    nodes: &[Node],
    lists: &mut HashMap<Span, Vec<IpNet>>,
    sources: &Sources,
    sink: &mut Sink,
) -> Document {
    let mut reader = Reader { sources, sink };
    let mut document = Document::default();
    for node in nodes {
        match node.name.value.as_str() {
            "policy" if document.name.is_none() => {
                document.name = reader.argument(node, given);
                reader.schema(node);
            }
            "role" if document.role.is_none() => {
                document.role = reader.argument(node, role);
                document.role_is_wrong = document.role.is_none();
            }
            "interface" => document.interfaces.extend(reader.interface(node)),
            "vehicle" if document.vehicle.is_none() => {
                document.vehicle = reader.vehicle(node);
            }
            "group" => document.groups.extend(reader.group(node)),
            "set" => document.sets.extend(reader.set(node, lists)),
            "sla" => document.slas.extend(reader.sla(node)),
            "home" => document.homes.extend(reader.home(node)),
            "correspondent" if document.correspondent.is_none() => {
                document.correspondent = Some(reader.correspondent(node));
            }
            "security" => document.securities.extend(reader.security(node)),
            "rules" => document.rule_sets.push(reader.rule_set(node)),
            "test" => document.tests.extend(reader.test(node)),
            "flow-budget" => {
                let most = i128::from(MOST_FLOWS);
                document.flow_budget = reader.argument(node, |value| {
                    whole(value, 1..=most).map(|number| u16::try_from(number).unwrap_or(MOST_FLOWS))
                });
            }
            _ => {}
        }
    }
    document
}

struct Reader<'s> {
    sources: &'s Sources,
    sink: &'s mut Sink,
}

impl Reader<'_> {
    fn problem(&mut self, span: Span, problem: Problem) {
        self.sink.error(span, problem.code, problem.message, problem.help);
    }

    fn keep<T>(&mut self, span: Span, read: Read<T>) -> Option<Spanned<T>> {
        match read {
            Ok(value) => Some(Spanned::new(value, span)),
            Err(problem) => {
                self.problem(span, problem);
                None
            }
        }
    }

    fn value<T>(
        &mut self,
        value: &Spanned<Value>,
        read: impl FnOnce(&Value) -> Read<T>,
    ) -> Option<Spanned<T>> {
        self.keep(value.span, read(&value.value))
    }

    /// The first argument; its absence was named by the tables.
    fn argument<T>(
        &mut self,
        node: &Node,
        read: impl FnOnce(&Value) -> Read<T>,
    ) -> Option<Spanned<T>> {
        self.value(node.argument()?, read)
    }

    fn property<T>(
        &mut self,
        node: &Node,
        name: &str,
        read: impl FnOnce(&Value) -> Read<T>,
    ) -> Option<Spanned<T>> {
        self.value(node.property(name)?, read)
    }

    /// The name of a node; one that cannot be a name is still kept, so that what refers to it is
    /// not named too.
    fn name(
        &mut self,
        node: &Node,
        read: impl FnOnce(&Value) -> Read<String>,
    ) -> Option<Spanned<String>> {
        let argument = node.argument()?;
        self.value(argument, read).or_else(|| match &argument.value {
            Value::Text(name) => Some(Spanned::new(name.clone(), argument.span)),
            _ => None,
        })
    }

    fn schema(&mut self, node: &Node) {
        if let Some(schema) = self.property(node, "schema", |value| whole(value, 0..=i128::MAX))
            && schema.value != 1
        {
            self.sink.error(
                schema.span,
                Code::NotSupported,
                format!("schema {} is not known", schema.value),
                "write schema=1",
            );
        }
    }

    fn group(&mut self, node: &Node) -> Option<GroupNode> {
        let mut group = GroupNode {
            name: self.name(node, given)?,
            interfaces: Vec::new(),
            ports: Vec::new(),
            prefixes: Vec::new(),
        };
        for child in &node.children {
            for argument in &child.arguments {
                match child.name.value.as_str() {
                    "interface" => group.interfaces.extend(self.value(argument, interface)),
                    "prefix" => {
                        group.prefixes.extend(self.value(argument, |v| value::prefix(text(v)?)))
                    }
                    "port" => {
                        for (piece, span) in self.pieces(argument) {
                            group.ports.extend(self.keep(span, value::ports(&piece)));
                        }
                    }
                    _ => {}
                }
            }
        }
        let kinds =
            [!group.interfaces.is_empty(), !group.ports.is_empty(), !group.prefixes.is_empty()];
        if kinds.iter().filter(|present| **present).count() > 1 {
            self.sink.error(
                group.name.span,
                Code::Conflict,
                format!("group `{}` mixes interfaces, ports and prefixes", group.name.value),
                "make one group of each kind",
            );
        } else if node.children.is_empty() {
            self.sink.error(
                group.name.span,
                Code::Missing,
                format!("group `{}` is empty", group.name.value),
                "put interface, port or prefix into its block",
            );
        }
        Some(group)
    }

    fn home(&mut self, node: &Node) -> Option<HomeNode> {
        let name = self.name(node, given)?;
        let tunnel = self.tunnel(node);
        let mut mobile_networks = Vec::new();
        for network in node.each("mobile-network") {
            let on = self.property(network, "on", interface);
            if let Some(prefix) = self.argument(network, |v| value::home_prefix(text(v)?)) {
                mobile_networks.push((prefix, on));
            }
        }
        Some(HomeNode {
            name,
            tunnel,
            agent: node.child("agent").and_then(|agent| self.argument(agent, agent_or_discover)),
            address: node.child("address").and_then(|address| {
                self.argument(address, |v| value::address_with_length(text(v)?))
            }),
            mobile_networks,
            also: node.each("also").filter_map(|also| self.also(also)).collect(),
            probe: node.child("probe").and_then(|probe| self.probe(probe)),
            register: node.child("register").map(|register| self.register(register)),
            security: node
                .child("security")
                .and_then(|security| self.argument(security, security_choice)),
            route_optimization: node
                .child("route-optimization")
                .map(|optimized| self.route_optimization(optimized)),
            returning_home: node
                .child("returning-home")
                .and_then(|returning| self.returning_home(returning)),
            serve: node.child("serve").map(|serve| self.serve(serve)),
            allowed: node.each("allow").map(|allow| self.allow(allow)).collect(),
            refused: node.each("refuse").map(|refuse| self.refuse(refuse)).collect(),
            extensions: node
                .child("extensions")
                .map_or_else(Extensions::default, |extensions| self.extensions(extensions)),
        })
    }

    fn extensions(&mut self, node: &Node) -> Extensions {
        let pace = |value: &Value| {
            let time = quantity(value, "s", value::duration)?;
            if (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&time) {
                return Ok(time);
            }
            let help = "from \"1s\" to \"1h\"; below \"30s\" only on links that cost nothing";
            Err(Problem::new(Code::Range, "this is no pace for heartbeats", help))
        };
        let usual = Extensions::default();
        let every = self.property(node, "heartbeat-every", pace);
        let missing = self.property(node, "heartbeats-missing", |value| whole(value, 1..=16));
        let mut on = |name| self.property(node, name, truth).is_some_and(|truth| truth.value);
        Extensions {
            heartbeat: on("heartbeat"),
            heartbeat_every: every.map_or(usual.heartbeat_every, |every| every.value),
            heartbeats_missing: missing
                .map_or(usual.heartbeats_missing, |missing| missing.value as u8),
            agent_switch: on("agent-switch"),
            revocation: on("revocation"),
            prefix_discovery: on("prefix-discovery"),
        }
    }

    /// The `tunnel` in the block of `node`, and its MTU if that is fixed.
    fn tunnel(&mut self, node: &Node) -> Option<(Spanned<String>, Option<u16>)> {
        let tunnel = node.child("tunnel")?;
        let mtu = self.property(tunnel, "mtu", |value| match value {
            Value::Text(word) if word == "auto" => Ok(None),
            _ => whole(value, 1280..=65535)
                .map(Some)
                .map_err(|problem| problem.within("auto, or octets from 1280 (RFC 8200 §5)")),
        });
        let mtu = mtu.and_then(|mtu| mtu.value).map(|mtu| mtu as u16);
        self.argument(tunnel, interface).map(|name| (name, mtu))
    }

    fn also(&mut self, node: &Node) -> Option<Spanned<String>> {
        if node.property("from").is_none() && node.properties.is_empty() {
            self.sink.error(
                node.name.span,
                Code::Missing,
                "`also` does not say where the packets come from",
                "write also from=br-guest",
            );
        }
        self.property(node, "from", interface)
    }

    fn probe(&mut self, node: &Node) -> Option<Spanned<Probe>> {
        let between = |value: &Value| {
            let time = quantity(value, "s", value::duration)?;
            if (Duration::from_millis(20)..=Duration::from_secs(60)).contains(&time) {
                return Ok(time);
            }
            Err(Problem::new(Code::Range, "this is no pace for probes", "from \"20ms\" to \"60s\""))
        };
        let every = self.property(node, "every", between);
        let active = self.property(node, "active-every", between);
        let usual = Probe::default();
        let every_value = every.as_ref().map_or(usual.every, |every| every.value);
        let active_value =
            active.as_ref().map_or(usual.active_every.min(every_value), |active| active.value);
        if let Some(active) = active.filter(|active| active.value > every_value) {
            self.sink.error(
                active.span,
                Code::Conflict,
                "a link that carries traffic would be probed less often than one that stands by",
                "active-every is at most as long as every",
            );
            return None;
        }
        let probe = Probe { every: every_value, active_every: active_value };
        Some(Spanned::new(probe, node.span()))
    }

    fn register(&mut self, node: &Node) -> RegisterNode {
        RegisterNode {
            span: node.span(),
            lifetime: self.property(node, "lifetime", lifetime),
            multiple_coa: self.property(node, "multiple-coa", truth).map(|truth| truth.value),
            bulk: self.property(node, "bulk", truth).map(|truth| truth.value),
            flow_bindings: self.property(node, "flow-bindings", truth).map(|truth| truth.value),
            reflect: self.property(node, "reflect", truth).map(|truth| truth.value),
            mode: self.property(node, "mode", |value| match text(value)? {
                "explicit" => Ok(PrefixMode::Explicit),
                "implicit" => Ok(PrefixMode::Implicit),
                other => Err(choice(other, "mode", &["explicit", "implicit"])),
            }),
        }
    }

    fn serve(&mut self, node: &Node) -> ServeNode {
        ServeNode {
            span: node.span(),
            prefix: self.argument(node, |v| value::home_prefix(text(v)?)),
            agent: self.property(node, "agent", |v| value::reachable_address(text(v)?)),
            on: self.property(node, "on", interface),
            only_router: self.property(node, "only-router", truth),
            preference: self
                .property(node, "preference", |value| whole(value, 0..=65_535))
                .and_then(|preference| u16::try_from(preference.value).ok()),
            lifetime: self.property(node, "lifetime", lifetime),
            multiple_coa: self.property(node, "multiple-coa", truth).map(|truth| truth.value),
            bulk: self.property(node, "bulk", truth).map(|truth| truth.value),
            flow_bindings: self.property(node, "flow-bindings", truth).map(|truth| truth.value),
            reflect: self.property(node, "reflect", truth).map(|truth| truth.value),
            unmatched: self
                .property(node, "unmatched", |value| match text(value)? {
                    "reflect" => Ok(Unmatched::Reflect),
                    "priority" => Ok(Unmatched::Preferred),
                    other => Err(choice(other, "word of `unmatched`", &["reflect", "priority"])),
                })
                .map(|unmatched| unmatched.value),
        }
    }

    fn allow(&mut self, node: &Node) -> AllowNode {
        let mut mobile_networks = Vec::new();
        for argument in node.each("mobile-network").flat_map(|network| &network.arguments) {
            mobile_networks.extend(self.value(argument, |v| value::home_prefix(text(v)?)));
        }
        let bindings = node
            .child("bindings")
            .and_then(|bindings| self.argument(bindings, |v| whole(v, 1..=1024)));
        let flows = node.child("flows").and_then(|flows| {
            self.argument(flows, |v| {
                whole(v, 0..=i128::from(MOST_FLOWS))
                    .map_err(|problem| problem.within("from 0 to 512"))
            })
        });
        let copies = node.child("copies").and_then(|copies| {
            self.argument(copies, |v| {
                whole(v, 1..=16).map_err(|problem| problem.within("from 1 to 16"))
            })
        });
        AllowNode {
            span: node.span(),
            address: self.argument(node, |v| value::reachable_address(text(v)?)),
            name: self.property(node, "name", given),
            mobile_networks,
            security: node
                .child("security")
                .and_then(|security| self.argument(security, security_choice)),
            bindings: bindings.map(|bindings| bindings.map(|bindings| bindings as u16)),
            flows: flows.map(|flows| flows.map(|flows| flows as u16)),
            copies: copies.map(|copies| copies.map(|copies| copies as u8)),
        }
    }

    fn refuse(&mut self, node: &Node) -> RefuseNode {
        let bid = self.property(node, "bid", |value| {
            whole(value, 1..=0xffff).map_err(|problem| problem.within("from 1 to 65535"))
        });
        RefuseNode {
            span: node.span(),
            address: self.argument(node, |v| value::reachable_address(text(v)?)),
            bid: bid.map(|bid| bid.map(|bid| bid as u16)),
        }
    }

    fn set(&mut self, node: &Node, lists: &mut HashMap<Span, Vec<IpNet>>) -> Option<SetNode> {
        let prefixes = lists.remove(&node.name.span).unwrap_or_default();
        Some(SetNode { name: self.name(node, given)?, prefixes })
    }

    fn security(&mut self, node: &Node) -> Option<SecurityNode> {
        let name = self.name(node, |value| match given(value)?.as_str() {
            "none" => Err(Problem::new(
                Code::Conflict,
                "`none` means no protection and cannot be a name",
                "choose another name",
            )),
            _ => given(value),
        })?;
        let auth_option = node.child("auth-option").map(|option| self.auth_option(option));
        Some(SecurityNode { name, auth_option })
    }

    fn auth_option(&mut self, node: &Node) -> AuthOptionNode {
        let spi = self.property(node, "spi", |value| {
            whole(value, 256..=0xffff_ffff).map_err(|problem| Problem {
                help: "SPIs go from 256 to 0xffffffff; those below are reserved (RFC 4285 §5)"
                    .to_owned(),
                ..problem
            })
        });
        let looks_like_key = || {
            Problem::new(
                Code::Secret,
                "this looks like the key itself",
                "put the key into a file of mode 0600 and write the file's name here; then make a new key, this one was seen",
            )
        };
        let file = self.property(node, "key-file", |value| match text(value)? {
            "" => Err(Problem::new(
                Code::Value,
                "an empty file name",
                "name the file that holds the key",
            )),
            name if value::looks_like_key(name) => Err(looks_like_key()),
            name => Ok(name.to_owned()),
        });
        let credential = self.property(node, "key-credential", |value| match text(value)? {
            name if value::looks_like_key(name) => Err(looks_like_key()),
            _ => given(value),
        });
        if let (Some(file), Some(credential)) = (&file, &credential) {
            self.sink.error(
                file.span.max(credential.span),
                Code::Conflict,
                "the key is named twice",
                "keep key-file, or key-credential if the service manager hands the key over",
            );
        }
        let directory = |span: Span| {
            Path::new(self.sources.name(span.source)).parent().unwrap_or(Path::new("")).to_owned()
        };
        let file = file.map(|name| {
            let directory = directory(name.span);
            name.map(|name| KeySource::File(directory.join(name)))
        });
        let credential = credential.map(|name| name.map(KeySource::Credential));
        AuthOptionNode {
            spi: spi.map(|spi| spi.map(|spi| spi as u32)),
            algorithm: self.property(node, "algorithm", |value| match text(value)? {
                "hmac-sha256" => Ok(Algorithm::HmacSha256),
                "hmac-sha1" => Ok(Algorithm::HmacSha1),
                other => Err(choice(other, "algorithm", &["hmac-sha256", "hmac-sha1"])),
            }),
            key: file.or(credential),
        }
    }
}

/// An agent's address; the unspecified one for `discover`.
fn agent_or_discover(value: &Value) -> Read<Ipv6Addr> {
    match text(value)? {
        "discover" => Ok(Ipv6Addr::UNSPECIFIED),
        address => value::reachable_address(address),
    }
}
