//! Verbs, when they hold, and how flows keep to their links.

use std::time::Duration;

use super::Reader;
use super::plain::{choice, quantity, text, truth, whole};
use crate::diagnostic::Code;
use crate::document::*;
use crate::effective::BlockReply;
use crate::link::Ratio;
use crate::measure;
use crate::radio::Circle;
use crate::reader::{Node, Value};
use crate::source::Spanned;
use crate::value::{self, Problem, Read};
use crate::verb::{Failback, FailbackMode, Scope, Sticky, When};
use crate::words;

/// The load at which a link is full if its rule does not say.
const FULL: Ratio = Ratio::percent(85);

/// By how much a challenger must win if its rule does not say.
const MARGIN: Ratio = Ratio::percent(10);

/// How many copies a rule makes that does not say.
const COPIES: u8 = 2;

/// The most copies of one packet; more than eight links carry nothing new.
const MOST_COPIES: i128 = 8;

/// The longest time a choice is remembered without a packet, or waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

impl Reader<'_> {
    /// The verb `word`; `arguments` are those behind it, its properties are those of the node.
    pub(super) fn verb(
        &mut self,
        word: &str,
        node: &Node,
        arguments: &[Spanned<Value>],
    ) -> Option<VerbNode> {
        if word == "balance" {
            return self.balance(node, arguments);
        }
        Some(match word {
            "prefer" => VerbNode::Prefer(self.links(arguments)),
            "overflow" => VerbNode::Overflow {
                links: self.links(arguments),
                full: self
                    .property(node, "full", |value| match quantity(value, "%", measure::share)? {
                        Ratio(0) => Err(Problem::new(
                            Code::Range,
                            "every link is fuller than that",
                            "write full=\"85%\"",
                        )),
                        full => Ok(full),
                    })
                    .map_or(FULL, |full| full.value),
            },
            "fastest" => VerbNode::Fastest {
                links: self.links(arguments),
                margin: self
                    .property(node, "margin", |value| quantity(value, "%", measure::share))
                    .map_or(MARGIN, |margin| margin.value),
            },
            "cheapest" => VerbNode::Cheapest {
                links: self.links(arguments),
                sla: self.property(node, "sla", super::plain::given),
            },
            "duplicate" => {
                let copies = self.property(node, "copies", |value| {
                    whole(value, 2..=MOST_COPIES).map_err(|problem| {
                        problem.within("from 2 to 8; one copy is what `prefer` sends")
                    })
                });
                VerbNode::Duplicate {
                    links: self.links(arguments),
                    copies: copies.map_or(COPIES, |copies| copies.value as u8),
                    cap: node.property("cap").map(|value| {
                        let read = |value: &Value| quantity(value, "MB", measure::octets);
                        let cap = self.property(node, "cap", read);
                        // What cannot be read is there all the same.
                        cap.unwrap_or_else(|| Spanned::new(1, value.span))
                    }),
                }
            }
            "breakout" => VerbNode::Breakout {
                links: self.links(arguments),
                translate: self
                    .property(node, "translate", truth)
                    .is_some_and(|translate| translate.value),
            },
            "block" => VerbNode::Block(self.reply(node)),
            _ => return None,
        })
    }

    fn balance(&mut self, node: &Node, arguments: &[Spanned<Value>]) -> Option<VerbNode> {
        for argument in arguments {
            let name = match &argument.value {
                Value::Text(name) => name.chars().take(64).collect(),
                _ => "wlan0".to_owned(),
            };
            self.sink.error(
                argument.span,
                Code::Value,
                "this link has no weight",
                format!("write balance {name}=1"),
            );
        }
        let mut links = Vec::new();
        for (name, weight) in &node.properties {
            let link = self.keep(name.span, link_or_group(&name.value));
            let weight = self.value(weight, |value| {
                whole(value, 1..=0xffff)
                    .map_err(|problem| problem.within("weights go from 1 to 65535"))
            });
            if let (Some(link), Some(weight)) = (link, weight) {
                links.push((link, weight.map(|weight| weight as u16)));
            }
        }
        if node.properties.is_empty() && arguments.is_empty() {
            self.sink.error(
                node.name.span,
                Code::Missing,
                "`balance` names no link",
                "write links with their weights: balance wlan0=3 wwan0=1",
            );
        }
        (!links.is_empty()).then_some(VerbNode::Balance(links))
    }

    fn links(&mut self, arguments: &[Spanned<Value>]) -> Terms<String> {
        let mut links: Terms<String> = Vec::new();
        for argument in arguments {
            links.extend(self.value(argument, |value| link_or_group(text(value)?)));
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

    pub(super) fn otherwise(&mut self, node: &Node) -> Option<Spanned<OtherwiseNode>> {
        let first = self.argument(node, |value| text(value).map(str::to_owned))?;
        let behind = &node.arguments[1..];
        let Some(verb) = words::verb(&first.value) else {
            let otherwise = match first.value.as_str() {
                "next-rule" => OtherwiseNode::NextRule,
                "any" => OtherwiseNode::Any,
                other => {
                    let known = ["next-rule", "any"].into_iter();
                    let known: Vec<_> =
                        known.chain(words::VERBS.iter().map(|verb| verb.name)).collect();
                    self.problem(first.span, choice(other, "way out", &known));
                    return None;
                }
            };
            self.nothing_behind(&first, behind);
            for (name, _) in &node.properties {
                let (message, help) = if name.value == "reply" {
                    ("only `block` has a reply", "remove it, or write otherwise block reply=icmp")
                } else {
                    ("only verbs have options", "remove it, or name a verb before it")
                };
                self.sink.error(name.span, Code::Conflict, message, help);
            }
            return Some(Spanned::new(otherwise, node.span()));
        };
        for (name, _) in node.properties.iter().filter(|_| !verb.free) {
            words::property_conforms(verb, name, self.sink);
        }
        match verb.arguments {
            words::Arguments::None => self.nothing_behind(&first, behind),
            words::Arguments::Some(_) if behind.is_empty() => {
                self.sink.error(
                    first.span,
                    Code::Missing,
                    format!("`otherwise {}` names no link", first.value),
                    format!("write otherwise {} wwan0", first.value),
                );
                return None;
            }
            _ => {}
        }
        let verb = self.verb(verb.name, node, behind)?;
        Some(Spanned::new(OtherwiseNode::Then(verb), node.span()))
    }

    fn nothing_behind(&mut self, first: &Spanned<String>, behind: &[Spanned<Value>]) {
        if let Some(extra) = behind.first() {
            self.sink.error(
                extra.span,
                Code::Value,
                format!("nothing goes behind `otherwise {}`", first.value),
                "remove it",
            );
        }
    }

    pub(super) fn when(&mut self, node: &Node) -> Option<Spanned<When>> {
        if node.properties.is_empty() {
            self.sink.error(
                node.name.span,
                Code::Missing,
                "this `when` says nothing",
                "write when speed=\"<5km/h\", when time=\"22:00-05:00\" or when days=\"mon-fri\"",
            );
        }
        let speed = self.property(node, "speed", |value| match value {
            Value::Integer(_) | Value::Float(_) => quantity(value, "km/h", measure::speed_bound),
            value => measure::speed_bound(text(value)?),
        });
        let time = self.property(node, "time", |value| match value {
            Value::Integer(hour) => Err(Problem::new(
                Code::Value,
                format!("{hour} is not a part of the day"),
                "write begin and end: time=\"22:00-05:00\"",
            )),
            value => measure::time_span(text(value)?),
        });
        let days = self.property(node, "days", |value| measure::days(text(value)?));
        let when = When {
            speed: speed.map(|speed| speed.value),
            time: time.map(|time| time.value),
            days: days.map(|days| days.value),
            near: self.surroundings(node),
        };
        // A line whose only condition could not be read must not hold always.
        (when != When::default()).then(|| Spanned::new(when, node.span()))
    }

    /// `near=… within=… leave=…` of a `when`.
    fn surroundings(&mut self, node: &Node) -> Option<Circle> {
        let metres = |value: &Value| quantity(value, "m", measure::distance);
        let at = self.property(node, "near", |value| measure::position(text(value)?));
        let within = self.property(node, "within", metres);
        let leave = self.property(node, "leave", metres);
        let named = ["near", "within", "leave"].map(|name| node.property(name));
        if let [None, Some(other), _] | [None, None, Some(other)] = named {
            let help = "add near=\"48.137154,11.576124\"";
            self.sink.error(other.span, Code::Missing, "this distance is from nowhere", help);
        }
        if let [Some(near), None, _] = named {
            let help = "add within=\"300m\"";
            self.sink.error(near.span, Code::Missing, "how near is not said", help);
        }
        let (at, within) = (at?.value, within?.value);
        // A receiver that stands still wavers by some metres.
        let leave_at = leave.as_ref().map_or(within + (within / 5).max(20), |leave| leave.value);
        if let Some(leave) = leave.filter(|leave| leave.value <= within) {
            self.sink.error(
                leave.span,
                Code::NoHysteresis,
                "a vehicle at this edge would be in and out by turns",
                "leave room for the receiver to waver: `leave` is more than `within`",
            );
            return None;
        }
        Some(Circle { at, enter: within, leave: leave_at })
    }

    pub(super) fn sticky(&mut self, node: &Node) -> Option<Spanned<Sticky>> {
        let scope = self.argument(node, |value| match text(value)? {
            "flow" => Ok(Scope::Flow),
            "pair" => Ok(Scope::Pair),
            "host" => Ok(Scope::Host),
            "none" => Ok(Scope::None),
            other => Err(choice(other, "scope", &["flow", "pair", "host", "none"])),
        });
        let lasts = self.property(node, "for", |value| match wait(value)? {
            Duration::ZERO => Err(Problem::new(
                Code::Range,
                "what is remembered for no time is not sticky",
                "write sticky none, or for=\"10m\"",
            )),
            lasts => Ok(lasts),
        });
        let scope = scope?.value;
        if let Some(lasts) = lasts.as_ref().filter(|_| scope == Scope::None) {
            self.sink.error(
                lasts.span,
                Code::Conflict,
                "nothing is remembered with `sticky none`",
                "remove `for`",
            );
        }
        let lasts = lasts.map_or(Sticky::default().lasts, |lasts| lasts.value);
        Some(Spanned::new(Sticky { scope, lasts }, node.span()))
    }

    pub(super) fn failback(&mut self, node: &Node) -> Option<Spanned<Failback>> {
        let mode = self.argument(node, |value| match text(value)? {
            "new" => Ok(FailbackMode::New),
            "gap" => Ok(FailbackMode::Gap),
            "now" => Ok(FailbackMode::Now),
            "never" => Ok(FailbackMode::Never),
            other => Err(choice(other, "failback", &["new", "gap", "now", "never"])),
        });
        let after = self.property(node, "after", wait);
        let mode = mode?.value;
        if let Some(after) = after.as_ref().filter(|_| mode == FailbackMode::Never) {
            self.sink.error(
                after.span,
                Code::Conflict,
                "nothing goes back with `failback never`",
                "remove `after`",
            );
        }
        let after = after.map_or(Duration::ZERO, |after| after.value);
        Some(Spanned::new(Failback { mode, after }, node.span()))
    }
}

/// A time that is waited or remembered for.
fn wait(value: &Value) -> Read<Duration> {
    match quantity(value, "s", value::duration)? {
        time if time > LONGEST_WAIT => {
            Err(Problem::new(Code::Range, "this is longer than a day", "at most \"24h\""))
        }
        time => Ok(time),
    }
}

/// A link, or a group of links behind `@`.
fn link_or_group(name: &str) -> Read<Term<String>> {
    match name.strip_prefix('@') {
        Some(group) => value::given_name(group).map(|group| Term::Group(group.to_owned())),
        None => value::interface_name(name).map(|name| Term::Literal(name.to_owned())),
    }
}
