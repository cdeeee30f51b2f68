//! The direct reading of what keeps a flow to its link: the rules of moves, one after the other.

use std::time::Duration;

use mtun_dataplane::{MoveReason, Registration, Way};
use mtun_policy::{
    Bid, FailbackMode, FlowKey, Otherwise, Outcome, RuleId, Says, Scope, TrafficSelector,
};

use crate::reader::{Wish, is_open};

const MOVE_BY: Duration = Duration::from_secs(2);
const UNKNOWN: Duration = Duration::from_millis(100);
const SILENT: Duration = Duration::from_secs(1);

/// What the flow does, as somebody who watched it would write it down.
#[derive(Clone, Debug)]
pub struct Held {
    pub way: Way,
    pub link: Option<Bid>,
    pub seen: Duration,
    pub sent: Duration,
    pub key: FlowKey,
    /// The rule it goes by: its number and identity, and the version of the rules it stood among.
    rule: Option<(RuleId, u64)>,
    rules: u64,
    lasts: Duration,
    /// A move that waits: since when, and the reason it was given.
    waits: Option<(Duration, MoveReason)>,
}

impl Held {
    /// The number of the rule it goes by.
    pub fn rule(&self) -> Option<RuleId> {
        self.rule.map(|rule| rule.0)
    }
}

/// A packet's way, and why its flow left another.
#[derive(Clone, Debug)]
pub struct Read {
    pub held: Held,
    pub left: Option<MoveReason>,
}

fn identity(wish: &Wish<'_>) -> Option<(RuleId, u64)> {
    wish.rule.map(|(head, _)| (head.id, head.identity))
}

fn fresh(wish: &Wish<'_>, key: &FlowKey, now: Duration) -> Held {
    let lasts = wish.rule.map_or(Duration::from_secs(600), |(_, says)| says.sticky.lasts);
    Held {
        way: wish.way,
        link: wish.link,
        seen: now,
        sent: now,
        key: *key,
        rule: identity(wish),
        rules: wish.home.rules,
        lasts,
        waits: None,
    }
}

/// Whether any rule looks at the DSCP.
fn looks_at_dscp(home: &Registration) -> bool {
    let marked = |selector: &TrafficSelector| !selector.dscps.is_empty();
    home.policy.rules().any(|rule| rule.head.selectors.iter().chain(&rule.head.exclude).any(marked))
}

fn allows(says: &Says, way: Way, link: Option<Bid>) -> bool {
    let names = |outcome: &Outcome| {
        let listed = link.is_some_and(|bid| outcome.links().contains(&bid));
        match (outcome, way) {
            (Outcome::Breakout { translate, .. }, Way::Breakout { translate: held }) => {
                listed && *translate == held
            }
            (Outcome::Breakout { .. }, _) | (_, Way::Breakout { .. }) => false,
            _ => listed,
        }
    };
    match &says.otherwise {
        _ if names(&says.outcome) => true,
        Otherwise::NextRule => false,
        Otherwise::Any => !matches!(way, Way::Breakout { .. }),
        Otherwise::Then(outcome) => names(outcome),
    }
}

/// The difference of the round trips and three times the jitter, from slow to fast.
fn pause_needed(home: &Registration, from: Bid, to: Bid) -> Option<Duration> {
    let of = |bid| home.bindings.iter().find(|it| it.bid == Some(bid)).expect("an open link");
    let (from, to) = (of(from), of(to));
    let (Some(slow), Some(fast)) = (from.rtt, to.rtt) else { return Some(UNKNOWN) };
    let jitter = from.jitter.max(to.jitter).unwrap_or_default();
    if slow > fast { Some(slow - fast + 3 * jitter) } else { None }
}

/// Where and when a flow's last packet from the other end came in.
pub type Heard = (Option<Bid>, Duration);

/// Which link the packet takes, given what the flow did before.
pub fn read(
    wish: Wish<'_>,
    before: Option<&Held>,
    key: &FlowKey,
    heard: Option<Heard>,
    now: Duration,
) -> Read {
    let home = wish.home;
    let new = |left| Read { held: fresh(&wish, key, now), left };
    // A flow that was silent for too long, or a packet that the rules tell from it, is new.
    let same_kind = |held: &&Held| {
        held.key.ingress == key.ingress && (!looks_at_dscp(home) || held.key.dscp == key.dscp)
    };
    let Some(held) = before.filter(|held| now - held.seen <= held.lasts).filter(same_kind) else {
        return new(None);
    };
    if (held.way, held.link) == (wish.way, wish.link) {
        return new(None);
    }
    // Dead links are left at once.
    if !is_open(home, held.way, held.link) {
        return new(Some(MoveReason::LinkDown));
    }
    let same_rule = held.rule.map(|rule| rule.1) == identity(&wish).map(|rule| rule.1);
    let same_policy = held.rules == home.rules;
    // Its mobile has not moved it yet, and is about to.
    let follows_the_mobile = wish.rule.is_some_and(|(_, says)| {
        matches!(says.outcome, Outcome::Reflect | Outcome::ReflectWithin(_))
    });
    let heard =
        heard.filter(|heard| follows_the_mobile && held.link.is_some() && heard.0 == held.link);
    let reason = why(&wish, held, same_rule, same_policy, follows_the_mobile && heard.is_none());
    if reason == MoveReason::Reflected {
        return new(Some(reason));
    }
    let going_back = reason == MoveReason::Failback;
    if held.way == (Way::Breakout { translate: true }) && going_back {
        return stays(wish, held, key, now, same_rule, same_policy, None);
    }
    let (Some((_, says)), Some(from), Some(_)) = (wish.rule, held.link, wish.link) else {
        return new(Some(reason));
    };
    // Where nothing is kept, what holds now is done now.
    let follows = says.sticky.scope == Scope::None && reason != MoveReason::Steered;
    if held.way != wish.way || wish.way == Way::Copies {
        return new(Some(reason));
    }
    if let Some((_, at)) = heard {
        let since = held.waits.map_or(home.changed_at, |waits| waits.0);
        let waits = now - at < SILENT && now.saturating_sub(since) < MOVE_BY;
        return match waits {
            true => stays(wish, held, key, now, same_rule, same_policy, Some((since, reason))),
            false => new(Some(reason)),
        };
    }
    if follows {
        return new(Some(reason));
    }
    // The best of the links that are ripe, if the first choice is not.
    let mut wish = wish;
    if let (true, false, Outcome::Candidates(links)) = (going_back, wish.otherwise, &says.outcome)
        && wish.link.is_some_and(|bid| !says.ripe.contains(&bid))
    {
        let before_it = links.iter().take_while(|bid| **bid != from);
        let good = |bid: &&Bid| says.ripe.contains(bid) && is_open(home, Way::Tunnel, Some(**bid));
        if let Some(bid) = before_it.clone().find(good) {
            wish.link = Some(*bid);
        }
    }
    let new = |left| Read { held: fresh(&wish, key, now), left };
    let to = wish.link.expect("just looked at");
    let metered = home.bindings.iter().any(|it| it.bid == Some(from) && it.metered);
    let pause = match going_back {
        true if !says.ripe.contains(&to) || says.settled.contains(&from) => {
            return stays(wish, held, key, now, same_rule, same_policy, None);
        }
        true => match says.failback {
            FailbackMode::Now => None,
            FailbackMode::New | FailbackMode::Never if !metered => {
                return stays(wish, held, key, now, same_rule, same_policy, None);
            }
            _ => pause_needed(home, from, to),
        },
        false => pause_needed(home, from, to),
    };
    let since = held.waits.map_or(home.changed_at, |waits| waits.0);
    match pause {
        Some(pause)
            if now.saturating_sub(held.sent) < pause && now.saturating_sub(since) < MOVE_BY =>
        {
            stays(wish, held, key, now, same_rule, same_policy, Some((since, reason)))
        }
        _ => new(Some(reason)),
    }
}

fn why(
    wish: &Wish<'_>,
    held: &Held,
    same_rule: bool,
    same_policy: bool,
    reflected: bool,
) -> MoveReason {
    let policy = &wish.home.policy;
    let by_override = |rule: Option<(RuleId, u64)>| rule.is_some_and(|rule| rule.0.is_override());
    if by_override(identity(wish)) && !same_rule {
        return MoveReason::Steered;
    }
    // What was true once when the move became due stays the reason.
    if let Some((_, reason)) = held.waits
        && matches!(reason, MoveReason::Ended | MoveReason::Steered | MoveReason::RuleChanged)
    {
        return reason;
    }
    let still_there =
        policy.rules().find(|rule| Some((rule.head.id, rule.head.identity)) == held.rule);
    if !same_rule && by_override(held.rule) && still_there.is_none() {
        return MoveReason::Ended;
    }
    if same_rule && reflected {
        return MoveReason::Reflected;
    }
    if !same_rule && !same_policy {
        return MoveReason::RuleChanged;
    }
    let its_rule =
        if same_rule { wish.rule.map(|rule| rule.1) } else { still_there.map(|it| it.says) };
    match its_rule {
        Some(says) if !allows(says, held.way, held.link) => MoveReason::LeftRule,
        _ => MoveReason::Failback,
    }
}

fn stays(
    wish: Wish<'_>,
    held: &Held,
    key: &FlowKey,
    now: Duration,
    same_rule: bool,
    same_policy: bool,
    waits: Option<(Duration, MoveReason)>,
) -> Read {
    let anew = fresh(&wish, key, now);
    let pending = waits.is_some_and(|(_, reason)| {
        matches!(reason, MoveReason::Ended | MoveReason::Steered | MoveReason::RuleChanged)
    });
    // Until it has moved it is known by the rule it comes from, under its present number.
    let (rule, rules) = match (same_rule, same_policy && !pending) {
        (true, _) => (anew.rule, anew.rules),
        (false, true) => (held.rule, held.rules),
        (false, false) => {
            let number = anew.rule.map(|rule| rule.0);
            (number.zip(held.rule.map(|rule| rule.1)), held.rules)
        }
    };
    let held = Held { way: held.way, link: held.link, rule, rules, waits, ..anew };
    Read { held, left: None }
}
