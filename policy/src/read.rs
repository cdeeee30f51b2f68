//! From nodes to a [`Document`]: every value gets its type, every fault its place.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::diagnostic::Code;
use crate::document::*;
use crate::effective::BlockReply;
use crate::policy::Algorithm;
use crate::reader::{Node, Value};
use crate::source::{Sink, Sources, Span, Spanned};
use crate::steering::LinkState;
use crate::terms::{PrefixMode, Role};
use crate::value::{self, Problem, Read};
use crate::words::{LATER_IN_RULES, advice, not_yet};

/// Reads the top-level nodes of a policy and its includes.
pub(crate) fn document(nodes: &[Node], sources: &Sources, sink: &mut Sink) -> Document {
    let mut reader = Reader { sources, sink };
    let mut document = Document::default();
    for node in nodes {
        match node.name.value.as_str() {
            "policy" if document.name.is_none() => {
                document.name = reader.argument(node, given);
                reader.schema(node);
            }
            "role" if document.role.is_none() => document.role = reader.argument(node, role),
            "interface" => document.interfaces.extend(reader.interface(node)),
            "group" => document.groups.extend(reader.group(node)),
            "home" => document.homes.extend(reader.home(node)),
            "security" => document.securities.extend(reader.security(node)),
            "rules" => document.rule_sets.push(reader.rule_set(node)),
            "test" => document.tests.extend(reader.test(node)),
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

    fn interface(&mut self, node: &Node) -> Option<InterfaceNode> {
        let bid = node.child("bid").and_then(|bid| {
            self.argument(bid, |value| {
                whole(value, 1..=0xffff).map_err(|problem| Problem {
                    help: "BIDs go from 1 to 65535; 0 is reserved (RFC 5648 §4.3)".to_owned(),
                    ..problem
                })
            })
        });
        let priority = node.child("priority").and_then(|priority| {
            self.argument(priority, |value| {
                whole(value, 1..=127).map_err(|problem| Problem {
                    help: "BID-PRI goes from 1, preferred, to 127 (RFC 6089 §4.1)".to_owned(),
                    ..problem
                })
            })
        });
        let class = node.child("class").and_then(|class| self.argument(class, given));
        let metered = node.child("metered").is_some_and(|metered| {
            metered.argument().is_none()
                || self.argument(metered, truth).is_some_and(|metered| metered.value)
        });
        Some(InterfaceNode {
            name: self.argument(node, interface)?,
            bid: bid.map(|bid| bid.map(|bid| bid as u16)),
            priority: priority.map(|priority| priority.map(|priority| priority as u8)),
            class: class.map(|class| class.value),
            metered,
        })
    }

    fn group(&mut self, node: &Node) -> Option<GroupNode> {
        let mut group = GroupNode {
            name: self.argument(node, given)?,
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
        let name = self.argument(node, given)?;
        let tunnel = node.child("tunnel").and_then(|tunnel| {
            let mtu = self.property(tunnel, "mtu", |value| match value {
                Value::Text(word) if word == "auto" => Ok(None),
                _ => whole(value, 1280..=65535).map(Some).map_err(|problem| Problem {
                    help: "auto, or octets from 1280 (RFC 8200 §5)".to_owned(),
                    ..problem
                }),
            });
            let mtu = mtu.and_then(|mtu| mtu.value).map(|mtu| mtu as u16);
            self.argument(tunnel, interface).map(|name| (name, mtu))
        });
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
            agent: node
                .child("agent")
                .and_then(|agent| self.argument(agent, |v| value::reachable_address(text(v)?))),
            address: node.child("address").and_then(|address| {
                self.argument(address, |v| value::address_with_length(text(v)?))
            }),
            mobile_networks,
            register: node.child("register").map(|register| self.register(register)),
            security: node
                .child("security")
                .and_then(|security| self.argument(security, security_choice)),
            serve: node.child("serve").map(|serve| self.serve(serve)),
            allowed: node.each("allow").map(|allow| self.allow(allow)).collect(),
        })
    }

    fn register(&mut self, node: &Node) -> RegisterNode {
        RegisterNode {
            span: node.span(),
            lifetime: self.property(node, "lifetime", lifetime),
            multiple_coa: self.property(node, "multiple-coa", truth).map(|truth| truth.value),
            bulk: self.property(node, "bulk", truth).map(|truth| truth.value),
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
            lifetime: self.property(node, "lifetime", lifetime),
            multiple_coa: self.property(node, "multiple-coa", truth).map(|truth| truth.value),
            bulk: self.property(node, "bulk", truth).map(|truth| truth.value),
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
        AllowNode {
            span: node.span(),
            address: self.argument(node, |v| value::reachable_address(text(v)?)),
            name: self.property(node, "name", given),
            mobile_networks,
            security: node
                .child("security")
                .and_then(|security| self.argument(security, security_choice)),
            bindings: bindings.map(|bindings| bindings.map(|bindings| bindings as u16)),
        }
    }

    fn security(&mut self, node: &Node) -> Option<SecurityNode> {
        let name = self.argument(node, |value| match given(value)?.as_str() {
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
        let key_file = self.property(node, "key-file", |value| match text(value)? {
            "" => Err(Problem::new(Code::Value, "an empty file name", "name the file that holds the key")),
            name if value::looks_like_key(name) => Err(Problem::new(
                Code::Secret,
                "this looks like the key itself",
                "put the key into a file of mode 0600 and write the file's name here; then make a new key, this one was seen",
            )),
            name => Ok(name.to_owned()),
        });
        let directory = |span: Span| {
            Path::new(self.sources.name(span.source)).parent().unwrap_or(Path::new("")).to_owned()
        };
        let key_file = key_file.map(|name| {
            let directory = directory(name.span);
            name.map(|name| directory.join(name))
        });
        AuthOptionNode {
            spi: spi.map(|spi| spi.map(|spi| spi as u32)),
            algorithm: self.property(node, "algorithm", |value| match text(value)? {
                "hmac-sha256" => Ok(Algorithm::HmacSha256),
                "hmac-sha1" => Ok(Algorithm::HmacSha1),
                other => Err(choice(other, "algorithm", &["hmac-sha256", "hmac-sha1"])),
            }),
            key_file,
        }
    }

    fn rule_set(&mut self, node: &Node) -> RuleSetNode {
        let mut rules = Vec::new();
        let default = node.child("default");
        for rule in node.each("rule") {
            if let Some(name) = self.argument(rule, given) {
                if name.value == "default" {
                    self.sink.error(
                        name.span,
                        Code::Conflict,
                        "`default` is the name of the last rule",
                        "choose another name, or write `default { … }`",
                    );
                }
                rules.push(self.rule(rule, name));
            }
        }
        if let Some(last) = node.children.iter().rposition(|child| child.name.value == "rule")
            && let Some(at) = node.children.iter().position(|child| child.name.value == "default")
            && at < last
        {
            self.sink.error(
                node.children[at].name.span,
                Code::Shadowed,
                "rules stand behind `default`, which decides every packet",
                "move `default` to the end of the rules",
            );
        }
        RuleSetNode {
            span: node.span(),
            home: self.property(node, "home", given),
            rules,
            default: default.map(|default| self.rule(default, default.name.clone())),
        }
    }

    fn rule(&mut self, node: &Node, name: Spanned<String>) -> RuleNode {
        let prefer = node.child("prefer").map(|prefer| {
            let links = self.links(&prefer.arguments);
            Spanned::new(VerbNode::Prefer(links), prefer.span())
        });
        let block = node
            .child("block")
            .map(|block| Spanned::new(VerbNode::Block(self.reply(block)), block.span()));
        if let (Some(prefer), Some(block)) = (&prefer, &block) {
            self.sink.error(
                prefer.span.max(block.span),
                Code::Conflict,
                format!("`{}` has two verbs", name.value),
                "keep one; what happens when it is not possible goes into `otherwise`",
            );
        }
        let is_verb = |child: &Node| LATER_IN_RULES.contains(&child.name.value.as_str());
        if prefer.is_none() && block.is_none() && !node.children.iter().any(is_verb) {
            self.sink.error(
                name.span,
                Code::Missing,
                format!("`{}` does not say what to do", name.value),
                "add a verb: `prefer wlan0` or `block reply=icmp`",
            );
        }
        RuleNode {
            name,
            matches: node.each("match").map(|line| self.match_line(line)).collect(),
            excludes: node.each("exclude").map(|line| self.match_line(line)).collect(),
            verb: prefer.or(block),
            otherwise: node.child("otherwise").and_then(|otherwise| self.otherwise(otherwise)),
        }
    }

    fn links(&mut self, arguments: &[Spanned<Value>]) -> Terms<String> {
        let mut links: Terms<String> = Vec::new();
        for argument in arguments {
            let link = self.value(argument, |value| {
                let name = text(value)?;
                match name.strip_prefix('@') {
                    Some(group) => {
                        value::given_name(group).map(|group| Term::Group(group.to_owned()))
                    }
                    None => value::interface_name(name).map(|name| Term::Literal(name.to_owned())),
                }
            });
            links.extend(link);
        }
        links
    }

    fn reply(&mut self, node: &Node) -> BlockReply {
        let reply = self.property(node, "reply", |value| match text(value)? {
            "icmp" => Ok(BlockReply::Icmp),
            "reset" => Ok(BlockReply::Reset),
            "none" => Ok(BlockReply::Silent),
            other => Err(choice(other, "reply", &["icmp", "reset", "none"])),
        });
        reply.map_or(BlockReply::Icmp, |reply| reply.value)
    }

    fn otherwise(&mut self, node: &Node) -> Option<Spanned<OtherwiseNode>> {
        let first = self.argument(node, |value| text(value).map(str::to_owned))?;
        let behind = &node.arguments[1..];
        let otherwise = match first.value.as_str() {
            "next-rule" => OtherwiseNode::NextRule,
            "any" => OtherwiseNode::Any,
            "block" => OtherwiseNode::Block(self.reply(node)),
            "prefer" if behind.is_empty() => {
                self.sink.error(
                    first.span,
                    Code::Missing,
                    "`otherwise prefer` names no link",
                    "write otherwise prefer wwan0",
                );
                return None;
            }
            "prefer" => OtherwiseNode::Prefer(self.links(behind)),
            later if LATER_IN_RULES.contains(&later) => {
                not_yet(later, first.span, self.sink);
                return None;
            }
            other => {
                self.problem(
                    first.span,
                    choice(other, "way out", &["next-rule", "any", "block", "prefer"]),
                );
                return None;
            }
        };
        if !matches!(otherwise, OtherwiseNode::Prefer(_))
            && let Some(extra) = behind.first()
        {
            self.sink.error(
                extra.span,
                Code::Value,
                format!("nothing goes behind `otherwise {}`", first.value),
                "remove it",
            );
        }
        if !matches!(otherwise, OtherwiseNode::Block(_))
            && let Some(reply) = node.property("reply")
        {
            self.sink.error(
                reply.span,
                Code::Conflict,
                "only `block` has a reply",
                "remove it, or write otherwise block reply=icmp",
            );
        }
        Some(Spanned::new(otherwise, node.span()))
    }

    /// The comma-separated pieces of a text, or a number as its one piece.
    fn pieces(&mut self, value: &Spanned<Value>) -> Vec<(String, Span)> {
        match &value.value {
            Value::Integer(number) => vec![(number.to_string(), value.span)],
            Value::Text(list) => {
                let pieces: Vec<&str> = list.split(',').map(str::trim).collect();
                let whole = &self.sources.text(value.span.source)[value.span.start as usize..];
                let whole = whole.get(..value.span.length as usize).unwrap_or_default();
                let mut from = 0;
                pieces
                    .into_iter()
                    .map(|piece| {
                        // A piece of a plain string stands there as it is; of an escaped one it may not.
                        let found = whole
                            .get(from..)
                            .and_then(|rest| rest.find(piece))
                            .filter(|_| !piece.is_empty());
                        let span = found.map_or(value.span, |at| {
                            let start = from + at;
                            from = start + piece.len();
                            Span::new(
                                value.span.source,
                                value.span.start as usize + start,
                                piece.len(),
                            )
                        });
                        (piece.to_owned(), span)
                    })
                    .collect()
            }
            other => {
                self.problem(value.span, kind(other, "text or a whole number"));
                Vec::new()
            }
        }
    }

    fn terms<T>(&mut self, node: &Node, name: &str, read: impl Fn(&str) -> Read<T>) -> Terms<T> {
        let Some(value) = node.property(name) else { return Vec::new() };
        let mut terms = Vec::new();
        for (piece, span) in self.pieces(value) {
            let term = match piece.strip_prefix('@') {
                Some(group) => value::given_name(group).map(|group| Term::Group(group.to_owned())),
                None => read(&piece).map(Term::Literal),
            };
            terms.extend(self.keep(span, term));
        }
        terms
    }

    fn numbers(
        &mut self,
        node: &Node,
        name: &str,
        read: impl Fn(&str) -> Read<u8>,
    ) -> Vec<Spanned<u8>> {
        let Some(value) = node.property(name) else { return Vec::new() };
        let mut numbers = Vec::new();
        for (piece, span) in self.pieces(value) {
            numbers.extend(self.keep(span, read(&piece)));
        }
        numbers
    }

    fn match_line(&mut self, node: &Node) -> MatchNode {
        let line = MatchNode {
            span: node.span(),
            protocols: self.numbers(node, "proto", value::protocol),
            sources: self.terms(node, "src", value::prefix),
            destinations: self.terms(node, "dst", value::prefix),
            source_ports: self.terms(node, "sport", value::ports),
            destination_ports: self.terms(node, "dport", value::ports),
            dscps: self.numbers(node, "dscp", value::dscp),
            ingresses: self
                .terms(node, "in", |name| value::interface_name(name).map(str::to_owned)),
        };
        if node.properties.is_empty() {
            self.sink.error(
                node.name.span,
                Code::Missing,
                format!("this `{}` says nothing", node.name.value),
                "name at least one field: proto, src, dst, sport, dport, dscp, in; what matches everything is `default`",
            );
        }
        let ports = ["sport", "dport"].into_iter().find_map(|name| node.property(name));
        if let Some(ports) = ports
            && !line.protocols.is_empty()
            && !line.protocols.iter().any(|protocol| value::WITH_PORTS.contains(&protocol.value))
        {
            self.sink.error(
                ports.span,
                Code::Conflict,
                "packets of this protocol have no ports",
                "remove the ports, or write proto=tcp or proto=udp",
            );
        }
        line
    }

    fn test(&mut self, node: &Node) -> Option<TestNode> {
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
        let flow = FlowNode {
            span: node.span(),
            source,
            destination,
            protocol: self.property(node, "proto", |value| one(value, value::protocol)),
            source_port,
            destination_port,
            dscp: self
                .property(node, "dscp", |value| one(value, value::dscp))
                .map_or(0, |dscp| dscp.value),
            ingress: self.property(node, "in", interface),
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
            word @ ("blocked" | "unreachable") => Ok(word.to_owned()),
            other => Err(choice(other, "expectation", &["blocked", "unreachable"])),
        });
        let word = word.map(|word| word.value);
        let mut given_links = Vec::new();
        for (name, value) in node.each("given").flat_map(|given| &given.properties) {
            let state = self.value(value, |value| {
                let word = text(value)?;
                LinkState::from_word(word).ok_or_else(|| match word {
                    "over-quota" | "degraded" | "recovering" => Problem::new(
                        Code::NotSupported,
                        format!("the state `{word}` is not carried out by this version"),
                        "up, down and drained are",
                    ),
                    _ => choice(word, "state of a link", &["up", "down", "drained"]),
                })
            });
            if let Some(state) = state {
                given_links.push((name.clone(), state.value));
            }
        }
        let expect = ExpectNode {
            span: node.span(),
            rule: self.property(node, "rule", given),
            via: self.property(node, "via", interface),
            blocked: word.as_deref() == Some("blocked"),
            unreachable: word.as_deref() == Some("unreachable"),
            given: given_links,
        };
        if node.arguments.is_empty() && node.properties.is_empty() {
            self.sink.error(
                node.name.span,
                Code::Missing,
                "this `expect` says nothing",
                "write expect rule=… via=…, expect blocked or expect unreachable",
            );
        }
        if let (Some(via), Some(word)) = (&expect.via, &word) {
            self.sink.error(
                via.span,
                Code::Conflict,
                format!("a flow that is {word} goes by no link"),
                "remove `via`, or the word",
            );
        }
        expect
    }
}

/// Text, quoted or not.
fn text(value: &Value) -> Read<&str> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(kind(other, "text")),
    }
}

fn given(value: &Value) -> Read<String> {
    value::given_name(text(value)?).map(str::to_owned)
}

fn interface(value: &Value) -> Read<String> {
    value::interface_name(text(value)?).map(str::to_owned)
}

fn truth(value: &Value) -> Read<bool> {
    match value {
        Value::Bool(truth) => Ok(*truth),
        other => Err(kind(other, "#true or #false")),
    }
}

fn whole(value: &Value, range: RangeInclusive<i128>) -> Read<i128> {
    match value {
        Value::Integer(number) if range.contains(number) => Ok(*number),
        Value::Integer(number) => Err(Problem::new(
            Code::Range,
            format!("{number} is out of range"),
            format!("from {} to {}", range.start(), range.end()),
        )),
        other => Err(kind(other, "a whole number")),
    }
}

/// One value that is a name or a number.
fn one(value: &Value, read: impl Fn(&str) -> Read<u8>) -> Read<u8> {
    match value {
        Value::Integer(number) => read(&number.to_string()),
        other => read(text(other)?),
    }
}

fn lifetime(value: &Value) -> Read<std::time::Duration> {
    match value {
        Value::Integer(number) => Err(Problem::new(
            Code::Unit,
            format!("{number} has no unit"),
            format!("write \"{number}s\" if seconds are meant; the units are ms, s, m, h, d"),
        )),
        other => value::lifetime(text(other)?),
    }
}

fn role(value: &Value) -> Read<Role> {
    match text(value)? {
        "mobile-node" => Ok(Role::MobileNode),
        "mobile-router" => Ok(Role::MobileRouter),
        "home-agent" => Ok(Role::HomeAgent),
        "correspondent" => Ok(Role::Correspondent),
        other => Err(choice(
            other,
            "role",
            &["mobile-node", "mobile-router", "home-agent", "correspondent"],
        )),
    }
}

fn security_choice(value: &Value) -> Read<Option<String>> {
    Ok(match given(value)? {
        none if none == "none" => None,
        name => Some(name),
    })
}

/// A word that is none of the few that fit.
fn choice(word: &str, what: &str, known: &[&str]) -> Problem {
    let word: String = word.chars().take(64).collect();
    let help = advice(&word, known.iter().copied(), "words");
    Problem::new(Code::Value, format!("`{word}` is not a {what}"), help)
}

/// A value of the wrong kind.
fn kind(value: &Value, wanted: &str) -> Problem {
    let (found, help) = match value {
        Value::Text(text)
            if wanted.starts_with("#true") && matches!(text.as_str(), "yes" | "on" | "true") =>
        {
            ("text".to_owned(), "write #true".to_owned())
        }
        Value::Text(text)
            if wanted.starts_with("#true") && matches!(text.as_str(), "no" | "off" | "false") =>
        {
            ("text".to_owned(), "write #false".to_owned())
        }
        Value::Text(text) if wanted.contains("number") && text.parse::<u64>().is_ok() => {
            ("text".to_owned(), format!("write {text} without quotes"))
        }
        Value::Text(_) => ("text".to_owned(), format!("write {wanted}")),
        Value::Integer(number) => (
            format!("the number {number}"),
            if wanted == "text" {
                format!("quote it: \"{number}\"")
            } else {
                format!("write {wanted}")
            },
        ),
        Value::Float(_) => ("a number with a fraction".to_owned(), format!("write {wanted}")),
        Value::Bool(_) => ("#true or #false".to_owned(), format!("write {wanted}")),
        Value::Null => ("#null".to_owned(), format!("write {wanted}, or leave the line out")),
    };
    Problem::new(Code::Value, format!("{wanted} is due here, not {found}"), help)
}
