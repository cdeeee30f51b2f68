//! Whether a flow keeps its link: stickiness, planned moves and going back.
//!
//! The walk over the rules says which link a flow would get if it were new, the wish. What is
//! remembered says which link it has. When the two differ, the flow leaves its link only for a
//! [`MoveReason`], and the reason decides how: at once, in a pause between packets, or as the
//! rule's `failback` says. How long a pause has to be is for
//! [`mtun_policy::steering::moves`] to say.

use std::time::Duration;

use mtun_policy::steering::moves::{Going, PathFigures, Strayed, going_back, planned};
use mtun_policy::{Bid, FlowKey, Otherwise, Outcome, RuleId, Ruling, Says, Scope, Sticky};

use crate::decide::Side;
use crate::groups::GroupKey;
use crate::memory::{Answer, Due, Marks, Memory, Remembered, Way};
use crate::moves::{MoveReason, Moved};
use crate::registration::{Binding, Registration};

/// A flow whose packets from the mobile pause for so long has left the link by which they came, or
/// sends nothing that would say so: longer than a mobile waits for a pause, behind a satellite too.
const FALLEN_SILENT: Duration = Duration::from_secs(1);

/// What the walk says of a packet, as if its flow were new.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'s> {
    pub rule: Option<Ruling<'s>>,
    pub otherwise: bool,
    pub way: Way,
    pub binding: &'s Binding,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled<'s> {
    pub rule: Option<RuleId>,
    pub otherwise: bool,
    pub binding: &'s Binding,
    pub way: Way,
    pub moved: Option<Moved>,
    pub kept: Kept,
}

/// What has to be remembered of a decision besides what it says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    pub rules: u64,
    pub identity: Option<u64>,
    pub sticky: Sticky,
    pub together: Option<u16>,
    pub due: Option<Due>,
    /// The group whose choice this is, and what was remembered of it.
    pub group: Option<(GroupKey, Option<Remembered>)>,
}

/// One packet of a registration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'s, 'm> {
    pub registration: &'s Registration,
    pub side: Side,
    pub key: &'m FlowKey,
    pub now: Duration,
    pub memory: Memory<'m>,
}

/// What the flow does at present.
struct Past {
    answer: Answer,
    last_sent: Option<Duration>,
    /// Whether it does so because its group does.
    shared: bool,
}

impl<'s> Asked<'s, '_> {
    /// The group that shares this choice.
    pub fn group(&self, identity: u64, sticky: Sticky, together: Option<u16>) -> Option<GroupKey> {
        self.memory.groups?;
        let home = self.registration.home_address;
        GroupKey::of(home, self.side, identity, sticky, together, self.key)
    }

    /// What the flow itself was last answered, if the packet is one of the same flow and kind.
    fn own(&self) -> Option<&Answer> {
        self.memory
            .flow
            .and_then(|flow| flow.answer_at(self.now))
            .filter(|answer| answer.marks.agree(Marks::of(self.key), self.registration.consults))
    }

    /// Holds what the walk wishes against what the flow does.
    pub fn settle(&self, wish: Wish<'s>) -> Settled<'s> {
        let says = wish.rule.map(|rule| rule.says);
        let (sticky, together) = says.map_or_else(
            || (Sticky { scope: Scope::None, ..Sticky::default() }, None),
            |says| (says.sticky, says.together),
        );
        let group = wish.rule.and_then(|it| self.group(it.head.identity, sticky, together));
        let (group, past) = self.past(&wish, group);
        let fresh = Kept {
            rules: self.registration.rules,
            identity: wish.rule.map(|rule| rule.head.identity),
            sticky,
            together,
            due: None,
            group,
        };
        let goes = |wish: Wish<'s>, reason| Settled {
            rule: wish.rule.map(|rule| rule.head.id),
            otherwise: wish.otherwise,
            binding: wish.binding,
            way: wish.way,
            moved: self.left(wish.binding, wish.way, reason),
            kept: fresh,
        };
        let Some(past) = past else { return goes(wish, MoveReason::LeftRule) };
        let answer = &past.answer;
        if (answer.bid, answer.way) == (wish.binding.bid, wish.way) {
            // Nothing to leave; a flow that follows its group moves for the group's reason.
            return goes(wish, self.reason_of_group(answer));
        }
        let reason = self.why(&past, &wish);
        let wish = self.ripe(&past, wish, reason);
        let going = self.going(&past, &wish, reason);
        let since = answer.due.map_or(self.registration.changed_at, |due| due.since);
        let last = match self.mobile_leads(&past, &wish) {
            true => self.memory.flow.map(|flow| flow.verified_at),
            false => past.last_sent,
        };
        let pause = self.now.saturating_sub(last.unwrap_or_default());
        let held = self.registration.binding(answer.bid).filter(|held| is_open(held, answer.way));
        let Some(binding) = held.filter(|_| !going.due(pause, self.now.saturating_sub(since)))
        else {
            return goes(wish, reason);
        };
        let due = matches!(going, Going::InGap(_)).then_some(Due { since, reason });
        let same = answer.identity == fresh.identity || past.shared;
        let known = answer.rules == self.registration.rules && !(due.is_some() && is_final(reason));
        let (rule, rules, identity) = match (same, known) {
            (true, _) => (wish.rule.map(|rule| rule.head.id), fresh.rules, fresh.identity),
            (false, true) => (answer.rule, answer.rules, answer.identity),
            // Its own number may be another rule's by now.
            (false, false) => (wish.rule.map(|rule| rule.head.id), answer.rules, answer.identity),
        };
        Settled {
            rule,
            otherwise: answer.otherwise,
            binding,
            way: answer.way,
            moved: self.left(binding, answer.way, self.reason_of_group(answer)),
            kept: Kept { rules, identity, due, ..fresh },
        }
    }

    /// What the flow does at present, by its group's memory or by its own.
    fn past(
        &self,
        wish: &Wish<'s>,
        group: Option<GroupKey>,
    ) -> (Option<(GroupKey, Option<Remembered>)>, Option<Past>) {
        let own = || {
            let flow = self.memory.flow?;
            Some(Past { answer: *self.own()?, last_sent: flow.last_sent, shared: false })
        };
        let (Some(key), Some(groups)) = (group, self.memory.groups) else {
            return (None, own());
        };
        let known = groups.remembered(&key);
        let Some((memory, answer)) =
            known.as_ref().and_then(|memory| Some((memory, memory.answer_at(self.now)?)))
        else {
            return (Some((key, known)), own());
        };
        let together = wish.rule.is_some_and(|rule| rule.says.together.is_some());
        let can_share = wish.rule.is_some_and(|rule| {
            let open =
                self.registration.binding(answer.bid).is_some_and(|b| is_open(b, answer.way));
            !open || allows(rule.says, answer.way, answer.bid)
        });
        if together && !can_share {
            // Its rule does not name the link of the others: it goes its own way.
            return (None, own());
        }
        let past = Past { answer: *answer, last_sent: memory.last_sent, shared: together };
        (Some((key, known)), Some(past))
    }

    /// That the flow left its link, if it did.
    fn left(&self, binding: &Binding, way: Way, reason: MoveReason) -> Option<Moved> {
        let answer = self.own()?;
        let stays = answer.bid == binding.bid
            && matches!(answer.way, Way::Breakout { .. }) == matches!(way, Way::Breakout { .. });
        (!stays).then_some(Moved { from: answer.bid, reason, at: self.now })
    }

    fn reason_of_group(&self, answer: &Answer) -> MoveReason {
        answer.moved.map_or(MoveReason::LeftRule, |moved| moved.reason)
    }

    /// Why the flow is to leave its link.
    fn why(&self, past: &Past, wish: &Wish<'s>) -> MoveReason {
        let answer = &past.answer;
        let policy = &self.registration.policy;
        let held = self.registration.binding(answer.bid);
        if !held.is_some_and(|held| is_open(held, answer.way)) {
            return MoveReason::LinkDown;
        }
        let identity = wish.rule.map(|rule| rule.head.identity);
        let same = past.shared || answer.identity == identity;
        if !same && wish.rule.is_some_and(|rule| rule.head.id.is_override()) {
            return MoveReason::Steered;
        }
        if let Some(due) = answer.due.filter(|due| is_final(due.reason)) {
            return due.reason;
        }
        let before = answer.rule.and_then(|id| policy.rule(id));
        let before = before.filter(|rule| Some(rule.head.identity) == answer.identity);
        if !same && before.is_none() && answer.rule.is_some_and(RuleId::is_override) {
            return MoveReason::Ended;
        }
        let reflects = wish.rule.is_some_and(|rule| rule.says.outcome.reflects());
        if same && reflects && !self.mobile_leads(past, wish) {
            return MoveReason::Reflected;
        }
        let known = answer.rules == self.registration.rules;
        let rule = match (same, known) {
            (true, _) => wish.rule,
            (false, true) => before,
            (false, false) => return MoveReason::RuleChanged,
        };
        match rule {
            Some(rule) if !allows(rule.says, answer.way, answer.bid) => MoveReason::LeftRule,
            _ => MoveReason::Failback,
        }
    }

    /// The best link to go back to, if the first choice has not been up for long enough.
    fn ripe(&self, past: &Past, wish: Wish<'s>, reason: MoveReason) -> Wish<'s> {
        let Some(rule) = wish.rule.filter(|_| reason == MoveReason::Failback) else { return wish };
        let Outcome::Candidates(links) = &rule.says.outcome else { return wish };
        if follows(rule.says, reason) || past.answer.way != wish.way {
            return wish;
        }
        if wish.otherwise || wish.binding.bid.is_some_and(|bid| rule.says.ripe.contains(&bid)) {
            return wish;
        }
        let better = links.iter().take_while(|bid| Some(**bid) != past.answer.bid);
        let ripe = better
            .filter(|bid| rule.says.ripe.contains(bid))
            .find_map(|bid| self.registration.binding(Some(*bid)).filter(|b| b.carries()));
        ripe.map_or(wish, |binding| Wish { binding, ..wish })
    }

    /// Whether the flow still comes by the link that it is to leave, and `reflect` holds: the mobile
    /// knows the same rules and waits for a moment to move, which its next packets tell.
    fn mobile_leads(&self, past: &Past, wish: &Wish<'s>) -> bool {
        let comes_by = self.memory.last_verified();
        comes_by.is_some()
            && comes_by == past.answer.bid
            && wish.rule.is_some_and(|rule| rule.says.outcome.reflects())
    }

    /// How it leaves.
    fn going(&self, past: &Past, wish: &Wish<'s>, reason: MoveReason) -> Going {
        let answer = &past.answer;
        let translated = answer.way == Way::Breakout { translate: true };
        if matches!(reason, MoveReason::LinkDown | MoveReason::Reflected) {
            return Going::AtOnce;
        }
        // Elsewhere it would have another source address, and end.
        if translated && reason == MoveReason::Failback {
            return Going::Stays;
        }
        // Rules that go together and like different links best: the one that chose has its way
        // until something changes, or the group would go to and fro.
        let chosen_by_another = wish.rule.map(|it| it.head.identity) != answer.identity;
        let unchanged = answer.generation == self.registration.generation && answer.due.is_none();
        if past.shared && chosen_by_another && unchanged && reason == MoveReason::Failback {
            return Going::Stays;
        }
        let (Some(from), Some(to), Some(rule)) = (answer.bid, wish.binding.bid, wish.rule) else {
            return Going::AtOnce;
        };
        let Some(held) = self.registration.binding(answer.bid) else { return Going::AtOnce };
        if answer.way != wish.way || wish.way == Way::Copies {
            return Going::AtOnce;
        }
        if self.mobile_leads(past, wish) {
            return Going::InGap(FALLEN_SILENT);
        }
        if follows(rule.says, reason) {
            return Going::AtOnce;
        }
        let (from_figures, to_figures) = (figures(held), figures(wish.binding));
        if reason == MoveReason::Failback {
            let from_metered = held.metered;
            let strayed = Strayed { from, from_metered, from_figures, to, to_figures };
            return going_back(rule.says, &strayed);
        }
        planned(from_figures, to_figures)
    }
}

/// Whether the reason was true once and for all when the move became due.
fn is_final(reason: MoveReason) -> bool {
    matches!(reason, MoveReason::Ended | MoveReason::Steered | MoveReason::RuleChanged)
}

/// Whether nothing keeps the flows of a rule to a link, but for what an operator's override asks.
fn follows(says: &Says, reason: MoveReason) -> bool {
    says.sticky.scope == Scope::None && reason != MoveReason::Steered
}

/// Whether packets can leave by a binding this way.
pub(crate) fn is_open(binding: &Binding, way: Way) -> bool {
    match way {
        Way::Tunnel | Way::Copies => binding.carries(),
        Way::Breakout { .. } => binding.attached,
    }
}

/// Whether a rule allows a flow to leave this way by this link at present.
fn allows(says: &Says, way: Way, bid: Option<Bid>) -> bool {
    let names = |outcome: &Outcome| match (outcome, way) {
        (Outcome::Breakout { links, translate }, Way::Breakout { translate: translated }) => {
            *translate == translated && bid.is_some_and(|bid| links.contains(&bid))
        }
        (Outcome::Breakout { .. }, _) | (_, Way::Breakout { .. }) => false,
        (outcome, _) => bid.is_some_and(|bid| outcome.links().contains(&bid)),
    };
    names(&says.outcome)
        || match &says.otherwise {
            Otherwise::NextRule => false,
            Otherwise::Any => !matches!(way, Way::Breakout { .. }),
            Otherwise::Then(outcome) => names(outcome),
        }
}

fn figures(binding: &Binding) -> PathFigures {
    PathFigures { rtt: binding.rtt, jitter: binding.jitter }
}
