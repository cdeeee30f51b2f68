//! What is said of an access link, and the service levels that links are measured by.

use std::time::Duration;

use super::Reader;
use super::plain::{choice, given, interface, quantity, text, truth, whole};
use crate::diagnostic::Code;
use crate::document::{InterfaceNode, SlaNode};
use crate::link::{AtLimit, Band, Cost, Period, Quota, Ratio, Sla, UsableWhen};
use crate::measure;
use crate::radio::Circle;
use crate::reader::{Node, Value};
use crate::source::Spanned;
use crate::value::{self, Problem, Read};

impl Reader<'_> {
    pub(super) fn interface(&mut self, node: &Node) -> Option<InterfaceNode> {
        let bid = node.child("bid").and_then(|bid| {
            self.argument(bid, |value| {
                whole(value, 1..=0xffff).map_err(|problem| {
                    problem.within("BIDs go from 1 to 65535; 0 is reserved (RFC 5648 §4.3)")
                })
            })
        });
        let priority = node.child("priority").and_then(|priority| {
            self.argument(priority, |value| {
                whole(value, 1..=127).map_err(|problem| {
                    problem.within("BID-PRI goes from 1, preferred, to 127 (RFC 6089 §4.1)")
                })
            })
        });
        let class = node.child("class").and_then(|class| self.argument(class, given));
        let metered = node.child("metered").is_some_and(|metered| {
            metered.argument().is_none()
                || self.argument(metered, truth).is_some_and(|metered| metered.value)
        });
        Some(InterfaceNode {
            name: self.name(node, interface)?,
            bid: bid.map(|bid| bid.map(|bid| bid as u16)),
            priority: priority.map(|priority| priority.map(|priority| priority as u8)),
            class: class.map(|class| class.value),
            metered,
            cost: node.child("cost").map(|cost| {
                let span = cost.span();
                // One that cannot be read is kept, so that what needs a cost is not named too.
                let unread = Cost {
                    micros_per_gigabyte: 0,
                    roaming_micros_per_gigabyte: None,
                    currency: String::new(),
                };
                self.cost(cost).unwrap_or_else(|| Spanned::new(unread, span))
            }),
            quota: node.child("quota").and_then(|quota| self.quota(quota)),
            rate: node.child("rate").map(|rate| {
                let read = self.argument(rate, |value| quantity(value, "Mbit/s", measure::rate));
                read.unwrap_or_else(|| Spanned::new(1, rate.span()))
            }),
            usable: node
                .child("usable")
                .map_or_else(UsableWhen::default, |usable| self.usable(usable)),
            radio: node.child("radio").and_then(|radio| self.radio(radio)),
        })
    }

    fn cost(&mut self, node: &Node) -> Option<Spanned<Cost>> {
        let per = self.property(node, "per", |value| quantity(value, "GB", measure::octets));
        let currency = self.property(node, "currency", |value| {
            let word = text(value)?;
            if word.len() == 3 && word.bytes().all(|b| b.is_ascii_uppercase()) {
                return Ok(word.to_owned());
            }
            Err(Problem::new(
                Code::Value,
                format!("`{}` is not a currency", word.chars().take(16).collect::<String>()),
                "three capital letters: currency=EUR",
            ))
        });
        if node.property("currency").is_none() {
            self.sink.error(
                node.name.span,
                Code::Missing,
                "this cost has no currency",
                "add currency=EUR",
            );
        }
        let per = per.map_or(1_000_000_000, |per| per.value);
        let roaming = match node.property("roaming") {
            Some(value) => self.price(value, per).map(|price| price.value),
            None => None,
        };
        let price = self.price(node.argument()?, per)?;
        let currency = currency?.value;
        Some(price.map(|micros_per_gigabyte| Cost {
            micros_per_gigabyte,
            roaming_micros_per_gigabyte: roaming,
            currency,
        }))
    }

    /// A price of `per` octets in millionths for 10^9.
    fn price(&mut self, value: &Spanned<Value>, per: u64) -> Option<Spanned<u64>> {
        let place = value.span;
        // As it was written, for a floating number has forgotten its decimals.
        let written = self.sources.text(place.source).get(place.start as usize..);
        let written = written.and_then(|rest| rest.get(..place.length as usize));
        let written = written.unwrap_or_default().to_owned();
        self.value(value, |value| match value {
            Value::Integer(number) => measure::micros_per_gigabyte(&number.to_string(), per),
            Value::Float(_) => measure::micros_per_gigabyte(&written, per),
            _ => Err(Problem::new(
                Code::Value,
                "a price is due here",
                "write cost 4.50 currency=EUR per=\"1GB\"",
            )),
        })
    }

    fn quota(&mut self, node: &Node) -> Option<Spanned<Quota>> {
        let per = self.property(node, "per", |value| match text(value)? {
            "day" => Ok(Period::Day),
            "week" => Ok(Period::Week),
            "month" => Ok(Period::Month),
            other => Err(choice(other, "period", &["day", "week", "month"])),
        });
        let per = match (per, node.property("per")) {
            (Some(per), _) => Some(per.value),
            (None, Some(_)) => None,
            (None, None) => Some(Period::Month),
        };
        let last = match per {
            Some(Period::Day) => 1,
            Some(Period::Week) => 7,
            Some(Period::Month) | None => 31,
        };
        let starts = self.property(node, "starts", |value| {
            whole(value, 1..=last).map_err(|problem| {
                problem.within(match last {
                    1 => "a day starts at midnight; remove it",
                    7 => "from 1, Monday, to 7, Sunday",
                    _ => "a day of the month, from 1 to 31",
                })
            })
        });
        let warn =
            self.property(node, "warn", |value| match quantity(value, "%", measure::share)? {
                Ratio(0) => Err(Problem::new(
                    Code::Range,
                    "a warning at nothing is always due",
                    "write warn=\"80%\", or leave it out",
                )),
                ratio => Ok(ratio),
            });
        let at_limit = self.property(node, "at-limit", |value| match text(value)? {
            "last-resort" => Ok(AtLimit::LastResort),
            "stop" => Ok(AtLimit::Stop),
            other => Err(choice(other, "way at the limit", &["last-resort", "stop"])),
        });
        let octets = self.argument(node, |value| quantity(value, "GB", measure::octets))?;
        Some(octets.map(|octets| Quota {
            octets,
            per: per.unwrap_or(Period::Month),
            starts: starts.map_or(1, |starts| starts.value as u8),
            warn: warn.map_or(Ratio::percent(80), |warn| warn.value),
            at_limit: at_limit.map_or(AtLimit::LastResort, |at_limit| at_limit.value),
        }))
    }

    fn usable(&mut self, node: &Node) -> UsableWhen {
        let usual = UsableWhen::default();
        let time = |value: &Value| quantity(value, "ms", measure::measured_time);
        let share = |value: &Value| quantity(value, "%", measure::share);
        let dbm = |value: &Value| quantity(value, "dBm", measure::dbm);
        let speed = |value: &Value| quantity(value, "km/h", measure::speed);
        let hold = |name: &str, reader: &mut Self| {
            reader.property(node.child("hold")?, name, |value| {
                match quantity(value, "s", value::duration)? {
                    time if time > Duration::from_secs(3600) => Err(Problem::new(
                        Code::Range,
                        "a hold this long never ends on the road",
                        "at most \"1h\"",
                    )),
                    time => Ok(time),
                }
            })
        };
        if node.children.is_empty() {
            self.sink.error(
                node.name.span,
                Code::Missing,
                "this `usable` says nothing",
                "write limits: usable { rtt enter=\"150ms\" leave=\"400ms\"; hold up=\"10s\"; }",
            );
        }
        UsableWhen {
            signal: self.band(node, "signal", dbm, |enter, leave| enter > leave),
            rtt: self.band(node, "rtt", time, |enter, leave| enter < leave),
            jitter: self.band(node, "jitter", time, |enter, leave| enter < leave),
            loss: self.band(node, "loss", share, |enter, leave| enter < leave),
            speed: self.band(node, "speed", speed, |enter, leave| enter < leave),
            near: self.near(node),
            roaming: node
                .child("roaming")
                .and_then(|roaming| self.argument(roaming, truth))
                .is_none_or(|roaming| roaming.value),
            technologies: node.child("technology").and_then(|it| self.technologies(it)),
            hold_up: hold("up", self).map_or(usual.hold_up, |up| up.value),
            hold_down: hold("down", self).map_or(usual.hold_down, |down| down.value),
        }
    }

    /// `near "48.137154,11.576124" enter="300m" leave="400m"`.
    fn near(&mut self, usable: &Node) -> Option<Circle> {
        let at = self.argument(usable.child("near")?, |value| measure::position(text(value)?));
        let metres = |value: &Value| quantity(value, "m", measure::distance);
        let band = self.band(usable, "near", metres, |enter, leave| enter < leave)?;
        Some(Circle { at: at?.value, enter: band.enter, leave: band.leave })
    }

    /// A limit with its two ends; `better` says whether `enter` is stricter than `leave`.
    fn band<T: Copy>(
        &mut self,
        usable: &Node,
        name: &str,
        read: impl Fn(&Value) -> Read<T>,
        better: impl Fn(T, T) -> bool,
    ) -> Option<Band<T>> {
        let node = usable.child(name)?;
        let missing = |known: &str| {
            let other = if known == "enter" { "leave" } else { "enter" };
            (format!("`{name}` has no `{other}`"), other)
        };
        for known in ["enter", "leave"] {
            let (message, other) = missing(known);
            if node.property(other).is_none() {
                self.sink.error(
                    node.name.span,
                    Code::Missing,
                    message,
                    format!(
                        "add {other}=…; a link becomes usable at `enter` and unusable at `leave`, with room between them"
                    ),
                );
            }
        }
        let enter = self.property(node, "enter", &read)?;
        let leave = self.property(node, "leave", &read)?;
        if !better(enter.value, leave.value) {
            let written = |name: &str| match node.property(name).map(|value| &value.value) {
                Some(Value::Text(text)) => text.clone(),
                _ => String::new(),
            };
            let (from, to) = (written("enter"), written("leave"));
            let help = if better(leave.value, enter.value) {
                format!("swap them: {name} enter=\"{to}\" leave=\"{from}\"")
            } else if name == "signal" {
                format!(
                    "leave room for the signal to waver: enter=\"{from}\" and a `leave` some 8 dB lower"
                )
            } else {
                format!(
                    "leave room for the link to waver: enter=\"{from}\" and a `leave` of twice as much"
                )
            };
            self.sink.error(
                node.span(),
                Code::NoHysteresis,
                format!("a link with this `{name}` would flap: it becomes usable at {from} and unusable at {to}"),
                help,
            );
            return None;
        }
        Some(Band { enter: enter.value, leave: leave.value })
    }

    pub(super) fn sla(&mut self, node: &Node) -> Option<SlaNode> {
        let time = |value: &Value| quantity(value, "ms", measure::measured_time);
        let name = self.name(node, given)?;
        let rtt = self.property(node, "rtt", time).map(|rtt| rtt.value);
        let jitter = self.property(node, "jitter", time).map(|jitter| jitter.value);
        let loss = self.property(node, "loss", |value| quantity(value, "%", measure::share));
        if node.properties.is_empty() {
            self.sink.error(
                name.span,
                Code::Missing,
                format!("sla `{}` asks for nothing", name.value),
                "add rtt=\"100ms\", jitter=\"20ms\" or loss=\"1%\"",
            );
        }
        let loss = loss.map(|loss| loss.value);
        Some(SlaNode { sla: Sla { name: name.value.clone(), rtt, jitter, loss }, name })
    }
}
