//! Explanations for people.

use std::fmt;
use std::time::Duration;

use super::{Explanation, FlowText, Note, RuleVerdict, Verdict};
use crate::effective::BlockReply;
use crate::mobility::Optimize;
use crate::steering::LinkState;
use crate::verb::{FailbackMode, Scope};

impl fmt::Display for FlowText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.source, self.destination)?;
        let mut field = |name: &str, value: Option<u32>| match value {
            Some(value) => write!(f, " {name} {value}"),
            None => Ok(()),
        };
        field("sport", self.source_port.map(u32::from))?;
        field("dport", self.destination_port.map(u32::from))?;
        field("dscp", Some(u32::from(self.dscp)).filter(|dscp| *dscp != 0))?;
        field("flow-label", self.flow_label)?;
        field("spi", self.spi)?;
        field("icmp-type", self.icmp_type.map(u32::from))?;
        field("uid", self.uid)?;
        write!(f, " in {}", self.ingress)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sticky(sticky) => {
                let what = match sticky.scope {
                    Scope::None => "every packet is judged for itself",
                    Scope::Flow => "the flow keeps its link",
                    Scope::Pair => "all flows between these two addresses keep one link",
                    Scope::Host => "all flows of this address keep one link",
                };
                write!(f, "{what} for {} after the last packet", span(sticky.lasts))
            }
            Self::Together { word, rules } if rules.is_empty() => {
                write!(f, "no other rule goes together with it by the word `{word}`")
            }
            Self::Together { word, rules } => {
                let names: Vec<String> = rules.iter().map(|name| format!("`{name}`")).collect();
                write!(f, "shares its link with {} by the word `{word}`", names.join(", "))
            }
            Self::Failback(failback) => {
                let mode = match failback.mode {
                    FailbackMode::New => "only new flows take a better link",
                    FailbackMode::Gap => "goes back to a better link in a gap between packets",
                    FailbackMode::Now => "goes back to a better link with its next packet",
                    FailbackMode::Never => "stays on its link until that dies",
                };
                f.write_str(mode)?;
                if failback.after.is_zero() || failback.mode == FailbackMode::Never {
                    return Ok(());
                }
                write!(f, ", once that has been usable for {}", span(failback.after))
            }
            Self::MeteredGap(link) => {
                write!(
                    f,
                    "{link} is metered: flows leave it for a better link in a gap all the same"
                )
            }
            Self::Optimize { optimize, said } => f.write_str(match (optimize, said) {
                (Optimize::Always, _) => {
                    "goes straight to its correspondent by this link, once that holds its binding"
                }
                (Optimize::Allowed, _) => {
                    "may go straight to its correspondent by this link, if traffic is worth it"
                }
                (Optimize::Never, true) => "takes the tunnel always: the rule says so",
                (Optimize::Never, false) => {
                    "takes the tunnel always: neither rule nor home starts route optimization"
                }
            }),
            Self::NotHomeAddress => f.write_str(
                "takes the tunnel always: only packets of the home address itself go straight",
            ),
            Self::LastLink(link, reason) => write!(f, "{link} is {reason}"),
        }
    }
}

fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds, duration.subsec_millis()) {
        (_, 1..) => format!("{} ms", duration.as_millis()),
        (seconds, _) if seconds > 0 && seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        (seconds, _) if seconds > 0 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        (seconds, _) => format!("{seconds} s"),
    }
}

impl fmt::Display for RuleVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule  {}", self.name)?;
        if let (Some(file), Some(line)) = (&self.file, self.line) {
            write!(f, " ({file}:{line})")?;
        }
        let when = if self.unmet.is_empty() { "" } else { ", its `when` is not met" };
        let candidates = match &self.verdict {
            Verdict::NotMatched(mismatches) => {
                writeln!(f, ": no match")?;
                return mismatches.iter().try_for_each(|it| writeln!(f, "        {it}"));
            }
            Verdict::Excluded => return writeln!(f, ": matches, but excludes it again"),
            Verdict::NotForSource => {
                return writeln!(f, ": matches, but tunnels, which this source never is");
            }
            Verdict::PassedOn(candidates) => {
                let why = if when.is_empty() { ", no link usable" } else { when };
                writeln!(f, ": matches{why}, next rule")?;
                candidates
            }
            Verdict::Decided(candidates) => {
                writeln!(f, ": matches{when} and decides")?;
                candidates
            }
        };
        self.unmet.iter().try_for_each(|unmet| writeln!(f, "        {unmet}"))?;
        for candidate in candidates {
            let otherwise = if candidate.otherwise { "otherwise " } else { "" };
            let (link, bid) = (&candidate.interface, candidate.bid);
            writeln!(f, "        {otherwise}{link} (bid {bid}): {}", candidate.verdict)?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "flow  {}", self.flow)?;
        writeln!(f, "home  {}", self.home)?;
        for link in &self.links {
            match (link.bar, link.state) {
                (Some(bar), _) => writeln!(f, "link  {} {bar}", link.interface)?,
                (None, LinkState::Up) => {}
                (None, state) => {
                    writeln!(f, "link  {} {state}: {}", link.interface, link.reason)?;
                }
            }
        }
        if self.passed_over > 0 {
            writeln!(f, "rules {} earlier ones are about other packets", self.passed_over)?;
        }
        for rule in &self.rules {
            rule.fmt(f)?;
        }
        for note in &self.notes {
            writeln!(f, "note  {note}")?;
        }
        let rule =
            self.rule.as_ref().map_or_else(|| "no rule".to_owned(), |rule| format!("rule {rule}"));
        let otherwise = if self.otherwise { " by its otherwise" } else { "" };
        write!(f, "so    {}, {rule}{otherwise}", self.end)?;
        if self.translate {
            f.write_str(", with an address of that link")?;
        }
        if let Some(reply) = self.reply {
            let reply = match reply {
                BlockReply::Silent => "nothing",
                BlockReply::Icmp => "ICMPv6 administratively prohibited",
                BlockReply::Reset => "a TCP reset",
            };
            write!(f, ", answered by {reply}")?;
        }
        Ok(())
    }
}
