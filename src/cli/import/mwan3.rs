//! mwan3's sections in the words of our policy.
//!
//! | mwan3 | here |
//! |---|---|
//! | interface | `interface`; its thresholds become `usable` |
//! | members of a policy by metric | `prefer`; by weight `balance` |
//! | `last_resort` | `otherwise` |
//! | rule | `rule`; the one without conditions becomes `default` |
//! | `sticky`, `timeout` | `sticky host for=…` |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Mwan3;
use super::uci::Section;

/// The policy, not yet in its one form.
pub(super) struct Imported {
    pub(super) text: String,
    /// What has no counterpart.
    pub(super) notes: Vec<String>,
}

/// What `use_policy` may say without naming a policy.
const LAST_RESORTS: [&str; 3] = ["unreachable", "blackhole", "default"];

/// The most of a BID-PRI.
const PRIORITY_MAX: u64 = 127;

/// Options of an interface that say how mwan3 itself looks at it.
const WATCHING: [&str; 6] =
    ["track_ip", "track_method", "reliability", "httping_ssl", "size", "max_ttl"];

/// One link of a policy.
struct Member {
    link: String,
    metric: u64,
    weight: u64,
}

struct Import<'s> {
    sections: &'s [Section],
    /// The kernel's names by mwan3's.
    devices: BTreeMap<&'s str, &'s str>,
    text: String,
    notes: Vec<String>,
}

/// Translates the sections of a file; an error says what it misses.
pub(super) fn policy(sections: &[Section], command: &Mwan3) -> Result<Imported, String> {
    let devices = command.device.iter().map(|(name, device)| (name.as_str(), device.as_str()));
    let mut import =
        Import { sections, devices: devices.collect(), text: String::new(), notes: Vec::new() };
    import.beginning();
    import.interfaces()?;
    import.home(command);
    import.rules();
    Ok(Imported { text: import.text, notes: import.notes })
}

impl<'s> Import<'s> {
    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &'s Section> + use<'s> {
        let kind = kind.to_owned();
        self.sections.iter().filter(move |section| section.kind == kind)
    }

    fn named(&self, kind: &str, name: &str) -> Option<&'s Section> {
        self.of_kind(kind).find(|section| section.name.as_deref() == Some(name))
    }

    fn device(&self, name: &'s str) -> &'s str {
        self.devices.get(name).copied().unwrap_or(name)
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Says at this place, and in the list, what has no counterpart.
    fn note(&mut self, note: String) {
        // A name of the file cannot end the comment that it stands in.
        let note: String = note.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
        self.line(&format!("// {note}"));
        self.notes.push(note);
    }

    fn beginning(&mut self) {
        self.line("/- kdl-version 2");
        self.line("// Made by `mtun import mwan3`. What has no counterpart stands as a comment.");
        self.line("policy \"mwan3\" schema=1\nrole \"mobile-router\"");
        for globals in self.of_kind("globals") {
            for (name, value) in &globals.entries {
                self.note(format!("{name} '{value}': no firewall marks are used"));
            }
        }
        let known = ["globals", "interface", "member", "policy", "rule"];
        let others = self.sections.iter().filter(|it| !known.contains(&it.kind.as_str()));
        for Section { kind, line, .. } in others {
            self.note(format!("config {kind} (line {line}) is not known"));
        }
    }

    fn interfaces(&mut self) -> Result<(), String> {
        let mut done: Vec<&str> = Vec::new();
        for section in self.of_kind("interface") {
            let Some(name) = section.name.as_deref() else {
                return Err(format!("line {}: an interface without a name", section.line));
            };
            if !section.is_on("enabled", false) {
                self.note(format!("interface {name} is not enabled"));
                continue;
            }
            let device = self.device(name);
            if done.contains(&device) {
                self.note(format!(
                    "interface {name} is {device} again: one link has both families"
                ));
                continue;
            }
            if !self.devices.contains_key(name) {
                self.line(&format!(
                    "// If the kernel calls {name} otherwise, its name belongs here: --device {name}=…"
                ));
            }
            done.push(device);
            self.interface(section, name, device, done.len());
        }
        match done.is_empty() {
            true => Err("it has no enabled interface".to_owned()),
            false => Ok(()),
        }
    }

    fn interface(&mut self, section: &Section, name: &str, device: &str, bid: usize) {
        let members = self.of_kind("member").filter(|it| it.option("interface") == Some(name));
        let metric = members.map(|member| number(member, "metric", 1)).min();
        let priority = metric.map_or(64, |metric| metric.saturating_mul(10).clamp(1, PRIORITY_MAX));
        self.line(&format!("interface {device:?} {{\nbid {bid}\npriority {priority}"));
        let usable = thresholds(section);
        if !usable.is_empty() {
            self.line(&format!("usable {{\n{usable}}}"));
        }
        let watched = |name: &str| section.items(name).map(str::to_owned).collect::<Vec<_>>();
        for name in WATCHING {
            let values = watched(name);
            if !values.is_empty() {
                let values = values.join(" ");
                self.note(format!("{name} {values}: the home agent is probed, no third party"));
            }
        }
        if section.items("flush_conntrack").next().is_some() {
            self.note("flush_conntrack: no flow is killed when a link changes".to_owned());
        }
        self.line("}");
    }

    fn home(&mut self, command: &Mwan3) {
        let Mwan3 { agent, home_address, network, on, .. } = command;
        let _ = write!(
            self.text,
            "// mwan3 has no home network: these addresses are yours to put in.\n\
             home \"home\" {{\n\
             tunnel mtun0\n\
             agent \"{agent}\"\n\
             address \"{home_address}\"\n\
             mobile-network \"{network}\" on={on:?}\n\
             security \"home-sa\"\n\
             }}\n\
             security \"home-sa\" {{\n\
             // `mtun key new --out keys/home.key` makes it; the agent needs the same one.\n\
             auth-option spi=0x1001 algorithm=hmac-sha256 key-file=\"keys/home.key\"\n\
             }}\n"
        );
    }

    fn rules(&mut self) {
        self.line("// The first rule that matches wins; with no usable link `otherwise` is asked.");
        self.line("rules home=\"home\" {");
        // Of several rules without conditions the first is reached; one of IPv4 only if alone.
        let all: Vec<&Section> = self.of_kind("rule").collect();
        let open = all.iter().copied().filter(|rule| {
            self.conditions(rule).is_ok_and(|conditions| conditions.text.is_empty())
        });
        let open: Vec<&Section> = open.collect();
        let last = open.iter().find(|rule| !only_ipv4(rule)).or(open.first()).copied();
        let mut seen: Vec<(String, String)> = Vec::new();
        let mut ended = None;
        for (index, rule) in all.iter().enumerate() {
            let name = match rule.name.as_deref() {
                Some("default") => "default-rule".to_owned(),
                Some(name) => name.to_owned(),
                None => format!("rule-{}", index + 1),
            };
            if let Some(end) = &ended {
                self.note(format!("rule {name}: never reached behind {end}"));
                continue;
            }
            if last.is_some_and(|last| std::ptr::eq(last, *rule)) {
                ended = Some(name);
                continue;
            }
            match self.conditions(rule) {
                Err(why) => self.note(format!("rule {name}: {why}; it is left out")),
                Ok(found) if found.text.is_empty() => {
                    self.note(format!("rule {name}: for IPv4, which the tunnel does not carry"));
                }
                Ok(found) => {
                    let twin = seen.iter().find(|(text, _)| *text == found.text);
                    if let Some((_, twin)) = twin {
                        self.note(format!("rule {name}: never reached, {twin} says the same"));
                        continue;
                    }
                    self.line(&format!("rule {name:?} {{"));
                    for note in found.notes {
                        self.note(note);
                    }
                    self.line(&format!("match{}", found.text));
                    self.verb(rule);
                    self.line("}");
                    seen.push((found.text, name));
                }
            }
        }
        self.line("default {");
        match last {
            Some(rule) => self.verb(rule),
            None => {
                self.note(
                    "mwan3 left the rest to the main routing table: any link here".to_owned(),
                );
                self.line("prefer @all-links");
            }
        }
        self.line("}\n}");
        if last.is_none() {
            let links: Vec<String> = self.links().iter().map(|it| format!("{it:?}")).collect();
            self.line(&format!("group \"all-links\" {{ interface {} }}", links.join(" ")));
        }
    }

    /// The enabled links, by the kernel's names.
    fn links(&self) -> Vec<&'s str> {
        let mut links = Vec::new();
        for section in self.of_kind("interface").filter(|it| it.is_on("enabled", false)) {
            let device = section.name.as_deref().map(|name| self.device(name));
            links.extend(device.filter(|device| !links.contains(device)));
        }
        links
    }

    /// The verb of a rule, what follows it, and what keeps to its link.
    fn verb(&mut self, rule: &Section) {
        let policy = rule.option("use_policy").unwrap_or("default");
        match self.named("policy", policy) {
            Some(section) => self.members(section, policy),
            None if LAST_RESORTS.contains(&policy) => self.resort(policy),
            None => {
                self.note(format!("use_policy '{policy}': there is no such policy"));
                self.line("block reply=icmp");
            }
        }
        if rule.is_on("sticky", false) {
            let seconds = number(rule, "timeout", 600).max(1);
            self.line(&format!("sticky host for=\"{seconds}s\""));
        }
        if rule.is_on("logging", false) {
            self.note(
                "logging: `mtun flows` and `mtun explain` say which rule a flow has".to_owned(),
            );
        }
    }

    /// A verb for a word in the place of a policy.
    fn resort(&mut self, word: &str) {
        match word {
            "unreachable" => self.line("block reply=icmp"),
            "blackhole" => self.line("block reply=none"),
            _ => {
                self.note(format!(
                    "'{word}' was the main routing table; what belongs in the tunnel does not leave \
                     outside it"
                ));
                let links: Vec<String> = self.links().iter().map(|it| format!("{it:?}")).collect();
                self.line(&format!("prefer {}", links.join(" ")));
            }
        }
    }

    fn members(&mut self, policy: &Section, name: &str) {
        let mut members: Vec<Member> = Vec::new();
        for used in policy.items("use_member") {
            let Some(member) = self.named("member", used) else {
                self.note(format!("use_member '{used}': there is no such member"));
                continue;
            };
            let interface = member.option("interface").unwrap_or_default();
            let on = self.named("interface", interface).filter(|it| it.is_on("enabled", false));
            let Some(interface) = on.and_then(|it| it.name.as_deref()) else {
                self.note(format!("member {used}: interface {interface} is not enabled"));
                continue;
            };
            let link = self.device(interface).to_owned();
            if members.iter().any(|known| known.link == link) {
                continue;
            }
            let (metric, weight) = (number(member, "metric", 1), number(member, "weight", 1));
            members.push(Member { link, metric, weight: weight.max(1) });
        }
        members.sort_by_key(|member| member.metric);
        let Some(best) = members.first().map(|member| member.metric) else {
            self.note(format!("policy {name} has no member that is enabled"));
            self.line("block reply=icmp");
            return;
        };
        let first = members.partition_point(|member| member.metric == best);
        let (shared, rest) = members.split_at(first);
        let names = |members: &[Member]| {
            members.iter().map(|it| format!("{:?}", it.link)).collect::<Vec<_>>().join(" ")
        };
        let resort = policy.option("last_resort").unwrap_or("unreachable");
        if rest.windows(2).any(|two| two[0].metric == two[1].metric) {
            self.note("links of one metric behind the first are tried in order, unweighted".into());
        }
        if let [_] = shared {
            self.line(&format!("prefer {}", names(&members)));
            self.last_resort(resort);
            return;
        }
        let weights = shared.iter().map(|it| format!("{:?}={}", it.link, it.weight));
        self.line(&format!("balance {}", weights.collect::<Vec<_>>().join(" ")));
        if rest.is_empty() {
            self.last_resort(resort);
        } else {
            self.note(format!(
                "last_resort '{resort}': with no link at all the next rule is asked"
            ));
            self.line(&format!("otherwise prefer {}", names(rest)));
        }
    }

    fn last_resort(&mut self, word: &str) {
        match word {
            "blackhole" => self.line("otherwise block reply=none"),
            "default" => {
                self.note("last_resort 'default' was the main routing table: any link here".into());
                self.line("otherwise any");
            }
            _ => self.line("otherwise block reply=icmp"),
        }
    }
}

fn number(section: &Section, option: &str, absent: u64) -> u64 {
    section.option(option).and_then(|value| value.parse().ok()).unwrap_or(absent)
}

/// What mwan3 asks of a link's quality, as `usable` has it.
fn thresholds(section: &Section) -> String {
    let mut text = String::new();
    let value = |name: &str| section.option(name).and_then(|value| value.parse::<u64>().ok());
    if section.is_on("check_quality", false) {
        let kinds = [("rtt", "recovery_latency", "failure_latency", "ms")];
        let kinds = kinds.into_iter().chain([("loss", "recovery_loss", "failure_loss", "%")]);
        for (kind, enter, leave, unit) in kinds {
            if let (Some(enter), Some(leave)) = (value(enter), value(leave))
                && enter < leave
            {
                let _ = writeln!(text, "{kind} enter=\"{enter}{unit}\" leave=\"{leave}{unit}\"");
            }
        }
    }
    let interval = value("interval").unwrap_or(5);
    let hold = |name: &str, word: &str, interval: u64| {
        let count = value(name).filter(|count| *count > 0)?;
        Some(format!(" {word}=\"{}s\"", count.saturating_mul(interval)))
    };
    let up = hold("up", "up", value("recovery_interval").unwrap_or(interval));
    let down = hold("down", "down", value("failure_interval").unwrap_or(interval));
    if !text.is_empty() || up.is_some() {
        let both = [up, down].into_iter().flatten().collect::<String>();
        if !both.is_empty() {
            let _ = writeln!(text, "hold{both}");
        }
    }
    text
}

/// The conditions of a rule.
struct Conditions {
    /// Properties of `match`, each with a space before it; empty for every packet.
    text: String,
    notes: Vec<String>,
}

fn is_ipv4(prefix: &str) -> bool {
    prefix.parse::<Ipv4Net>().is_ok() || prefix.parse::<Ipv4Addr>().is_ok()
}

fn only_ipv4(rule: &Section) -> bool {
    let everything = |name: &str| rule.option(name).is_some_and(is_ipv4);
    rule.option("family") == Some("ipv4") || everything("src_ip") || everything("dest_ip")
}

impl<'s> Import<'s> {
    /// What a rule asks of a packet, or why that cannot be said.
    fn conditions(&self, rule: &'s Section) -> Result<Conditions, String> {
        let (mut text, mut notes) = (String::new(), Vec::new());
        for option in ["ipset", "ipset6"] {
            if let Some(set) = rule.option(option) {
                return Err(format!(
                    "{option} '{set}': the kernel's sets are not asked; a `set` reads prefixes from a file"
                ));
            }
        }
        let proto = match rule.option("proto") {
            None | Some("all" | "any") => None,
            Some("icmp" | "ipv6-icmp") => Some("icmpv6"),
            Some(proto) => Some(proto),
        };
        let ports = [("src_port", "sport"), ("dest_port", "dport")];
        let has_ports = ports.iter().any(|(option, _)| rule.option(option).is_some());
        match proto {
            Some(proto) => {
                let _ = write!(text, " proto={proto:?}");
            }
            None if has_ports => text.push_str(" proto=\"tcp,udp\""),
            None => {}
        }
        for (option, word) in [("src_ip", "src"), ("dest_ip", "dst")] {
            match rule.option(option) {
                None | Some("0.0.0.0/0" | "::/0") => {}
                Some(prefix) if is_ipv4(prefix) => {
                    return Err(format!("{option} {prefix}: the tunnel carries IPv6"));
                }
                Some(prefix) => {
                    let _ = write!(text, " {word}={prefix:?}");
                }
            }
        }
        for (option, word) in ports {
            if let Some(list) = rule.option(option) {
                let _ = write!(text, " {word}={:?}", list.replace(':', "-").replace(' ', ","));
            }
        }
        if let Some(ingress) = rule.option("src_iface") {
            let _ = write!(text, " in={:?}", self.device(ingress));
        }
        if rule.option("family") == Some("ipv4") && !text.is_empty() {
            notes.push("it was for IPv4 alone; in the tunnel there is IPv6".to_owned());
        }
        Ok(Conditions { text, notes })
    }
}
