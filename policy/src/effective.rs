//! The rules as they stand at this moment: what the packet path reads.
//!
//! Two halves. The [`RuleTable`] says which rules speak of a packet; it is built once for a policy
//! file. What each of them says at present, [`Says`], comes from [`crate::steering`] and changes
//! with the links. Both together are an [`Effective`], frozen into a snapshot and walked here.
//! [`Effective::choose`] is the only walk over rules in the system: the data plane's `decide`, the
//! policy file's own tests and `explain` all call it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::classifier::{Classifier, Matching};
use crate::key::{FieldSet, FlowKey};
use crate::mobility::Optimize;
use crate::selector::TrafficSelector;
use crate::stickiness::bucket;
use crate::terms::{Bid, RuleId, RuleName};
use crate::verb::{FailbackMode, Scope, Sticky};

/// How a refused packet is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BlockReply {
    /// Nothing is sent.
    Silent,
    /// ICMPv6 administratively prohibited (RFC 4443 §3.1, code 1), rate limited.
    Icmp,
    /// A TCP reset for TCP, ICMPv6 otherwise; rate limited.
    Reset,
}

/// Of which packets a rule speaks: the half of a rule that only a new policy changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleHead {
    /// Its place.
    pub id: RuleId,
    /// Its name, for people; `default` for the last of a file.
    pub name: RuleName,
    /// Alternatives; an empty list matches every packet.
    pub selectors: Vec<TrafficSelector>,
    /// Packets that are taken out again.
    pub exclude: Vec<TrafficSelector>,
    /// Tells two rules apart across policies: equal for rules that mean the same for where a flow
    /// goes.
    pub identity: u64,
    /// Whether its packets may go straight to correspondents; `None` if it does not say.
    pub optimize: Option<Optimize>,
}

impl RuleHead {
    /// Whether the rule speaks of packets with this key.
    pub fn matches(&self, key: &FlowKey) -> bool {
        (self.selectors.is_empty() || self.selectors.iter().any(|s| s.matches(key)))
            && !self.exclude.iter().any(|s| s.matches(key))
    }
}

/// The heads of a rule set in the order in which they are tried, ready to be searched.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct RuleTable {
    heads: Vec<Arc<RuleHead>>,
    /// Says nothing that the heads do not say; absent where asking each of them costs less.
    #[serde(skip)]
    classifier: Option<Arc<Classifier>>,
}

impl PartialEq for RuleTable {
    fn eq(&self, other: &Self) -> bool {
        self.heads == other.heads
    }
}

impl Eq for RuleTable {}

impl RuleTable {
    /// A table of these rules.
    pub fn new(heads: Vec<Arc<RuleHead>>) -> Self {
        let classifier = Classifier::new(&heads).map(Arc::new);
        Self { heads, classifier }
    }

    /// The rules in order.
    pub fn heads(&self) -> &[Arc<RuleHead>] {
        &self.heads
    }

    /// The places of the rules that speak of packets with this key, in order, each found when it
    /// is asked for.
    pub fn matching<'t, 'k>(
        &'t self,
        key: &'k FlowKey,
    ) -> impl Iterator<Item = usize> + use<'t, 'k> {
        Matching::new(&self.heads, self.classifier.as_deref(), key)
    }

    /// The place of the rule of this number.
    pub fn place(&self, id: RuleId) -> Option<usize> {
        let usual = usize::from(id.0);
        if self.heads.get(usual).is_some_and(|head| head.id == id) {
            return Some(usual);
        }
        self.heads.iter().position(|head| head.id == id)
    }

    /// Octets of memory that searching takes, besides the heads.
    pub fn octets(&self) -> usize {
        self.classifier.as_ref().map_or(0, |classifier| classifier.octets())
    }

    /// The fields that any of the rules looks at.
    pub fn fields(&self) -> FieldSet {
        let selectors =
            self.heads.iter().flat_map(|head| head.selectors.iter().chain(&head.exclude));
        selectors.fold(FieldSet::NONE, |all, selector| all.union(selector.fields()))
    }
}

/// What a rule says at present of a packet that it matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The first of these that is usable.
    Candidates(Vec<Bid>),
    /// The binding of the sticky key's bucket.
    Balance(Buckets),
    /// A copy by each of the first `copies` that are usable.
    Copies {
        /// The bindings in order.
        links: Vec<Bid>,
        /// How many.
        copies: u8,
    },
    /// Outside the tunnel, by the first of these whose link is attached.
    Breakout {
        /// The links in order.
        links: Vec<Bid>,
        /// Whether the source becomes the link's own address.
        translate: bool,
    },
    /// By the binding that the flow's last verified packet from the mobile came on; without one,
    /// the usable binding of the lowest BID-PRI (RFC 5648 §3, RFC 6089 §5.3.6).
    Reflect,
    /// By the binding that the flow's last verified packet from the mobile came on if it is one of
    /// these and usable, else by the first of these that is: `reflect` within the bindings that a
    /// flow binding of the mobile allows.
    ReflectWithin(Vec<Bid>),
    /// Refused.
    Block(BlockReply),
    /// Its `when` is not met: what it says otherwise holds.
    Unmet,
}

impl Outcome {
    /// Whether it follows the mobile: flows leave a link that works when the mobile did.
    pub fn reflects(&self) -> bool {
        matches!(self, Self::Reflect | Self::ReflectWithin(_))
    }

    /// The links it speaks of, for those verbs that leave by a tunnel.
    pub fn links(&self) -> &[Bid] {
        match self {
            Self::Candidates(links) | Self::Copies { links, .. } | Self::ReflectWithin(links) => {
                links
            }
            Self::Balance(buckets) => &buckets.links,
            Self::Breakout { links, .. } => links,
            Self::Reflect | Self::Block(_) | Self::Unmet => &[],
        }
    }
}

/// 256 buckets, each with its link; buckets of links that went are given to the others.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Buckets {
    /// The links, in the order of the file.
    pub links: Vec<Bid>,
    /// For each bucket the place of its link in `links`.
    #[serde(skip)]
    pub places: Arc<[u8; 256]>,
    /// Which packets are in which bucket.
    pub spread: Spread,
}

/// Which packets of a `balance` are in which bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// By a hash of the sticky key.
    #[default]
    Hash,
    /// By the port of the mobile's end, so that a home agent can be told the same cut.
    Ports(PortCut),
}

/// Ports at the mobile's end cut into 256 buckets in their order, round after round.
///
/// Other ports, and packets without ports, belong to the first bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortCut {
    /// The first port.
    pub first: u16,
    /// The last port, included.
    pub last: u16,
    /// How many ports all buckets share before they come round again; at least 256.
    pub round: u16,
}

impl PortCut {
    /// Where hosts take the ports of their flows from: 32768 to 60999, or 49152 and up. Four
    /// rounds fill the former to within 212 ports, and spread the latter too.
    pub const DYNAMIC: Self = Self { first: 32_768, last: u16::MAX, round: 7168 };

    /// A cut of these ports; `None` if they are too few for 256 buckets.
    pub fn of(ports: RangeInclusive<u16>) -> Option<Self> {
        let (first, last) = ports.into_inner();
        if first <= Self::DYNAMIC.first && last == Self::DYNAMIC.last {
            return Some(Self::DYNAMIC);
        }
        let round = last.checked_sub(first)?.saturating_add(1);
        (round >= 256).then_some(Self { first, last, round })
    }

    /// The bucket of a packet whose port at the mobile's end is this.
    pub fn bucket(self, port: Option<u16>) -> u8 {
        let Some(port) = port.filter(|port| (self.first..=self.last).contains(port)) else {
            return 0;
        };
        let round = u32::from(self.round.max(1));
        (u32::from(port - self.first) % round * 256 / round) as u8
    }

    /// All ports in order, in ranges of one bucket each.
    fn ranges(self) -> impl Iterator<Item = RangeInclusive<u16>> {
        let round = u32::from(self.round.max(1));
        let (first, end) = (u32::from(self.first), u32::from(self.last) + 1);
        let rounds = end.saturating_sub(first).div_ceil(round);
        let start = move |part: u32| {
            (first + part / 256 * round + (part % 256 * round).div_ceil(256)).min(end)
        };
        let inside = (0..rounds * 256).map(move |part| (start(part), start(part + 1)));
        let outside = [(0, first), (end, 1 << 16)];
        let all = outside.into_iter().take(1).chain(inside).chain(outside.into_iter().skip(1));
        all.filter(|(from, to)| from < to).map(|(from, to)| from as u16..=(to - 1) as u16)
    }
}

impl Buckets {
    /// The bucket of an uplink packet.
    pub fn bucket(&self, scope: Scope, key: &FlowKey) -> u8 {
        match self.spread {
            Spread::Hash => bucket(scope, key),
            Spread::Ports(cut) => cut.bucket(key.source_port),
        }
    }

    /// The link of a bucket; `None` if there is none at all.
    pub fn link(&self, bucket: u8) -> Option<Bid> {
        self.links.get(usize::from(self.places[usize::from(bucket)])).copied()
    }

    /// Whether a home agent can be told which packets go by which link.
    pub fn can_be_told(&self) -> bool {
        self.links.len() < 2 || self.spread != Spread::Hash
    }

    /// The ranges of ports at the mobile's end that go by one link, in order; none if they are not
    /// cut by ports.
    pub fn cut(&self) -> Vec<(RangeInclusive<u16>, Bid)> {
        let Spread::Ports(cut) = self.spread else { return Vec::new() };
        let mut ranges: Vec<(RangeInclusive<u16>, Bid)> = Vec::new();
        for ports in cut.ranges() {
            let Some(bid) = self.link(cut.bucket(Some(*ports.start()))) else { continue };
            match ranges.last_mut() {
                Some((range, last)) if *last == bid => *range = *range.start()..=*ports.end(),
                _ => ranges.push((ports, bid)),
            }
        }
        ranges
    }

    /// The link of packets without ports, and of the ports that are not cut; where nothing is, the
    /// first link.
    pub fn remainder(&self) -> Option<Bid> {
        match self.spread {
            Spread::Hash => self.links.first().copied(),
            Spread::Ports(cut) => self.link(cut.bucket(None)),
        }
    }
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let filled = |place| self.places.iter().filter(|at| usize::from(**at) == place).count();
        f.debug_map()
            .entries(self.links.iter().enumerate().map(|(at, bid)| (bid, filled(at))))
            .finish()
    }
}

/// What happens when a rule matched but none of its candidates is usable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Otherwise {
    /// The walk goes on with the next rule.
    NextRule,
    /// The usable binding of the lowest BID-PRI.
    Any,
    /// This, and nothing after it.
    Then(Outcome),
}

/// What one rule says at present: the half of a rule that changes with the links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Says {
    /// What it says.
    pub outcome: Outcome,
    /// And when that is not possible.
    pub otherwise: Otherwise,
    /// What keeps to a link.
    pub sticky: Sticky,
    /// Rules with the same number share one choice for each sticky key (`together`).
    pub together: Option<u16>,
    /// When flows go back to a better link.
    pub failback: FailbackMode,
    /// The links that flows may go back to at present; others have not been up for long enough.
    pub ripe: Vec<Bid>,
    /// The links whose flows stay though they are not the first choice: full ones of `overflow`.
    pub settled: Vec<Bid>,
}

impl Says {
    /// A rule of overrides and agents: this, else the next rule, and what it says at present holds
    /// for every packet.
    pub fn plain(outcome: Outcome, otherwise: Otherwise) -> Self {
        let ripe = outcome.links().to_vec();
        Self {
            outcome,
            otherwise,
            sticky: Sticky { scope: Scope::None, ..Sticky::default() },
            together: None,
            failback: FailbackMode::Now,
            ripe,
            settled: Vec::new(),
        }
    }

    /// Whether the rule allows this binding at present, by its verb or its `otherwise`.
    pub fn allows(&self, bid: Bid) -> bool {
        let otherwise = match &self.otherwise {
            Otherwise::NextRule => false,
            Otherwise::Any => true,
            Otherwise::Then(outcome) => outcome.links().contains(&bid),
        };
        otherwise || self.outcome.links().contains(&bid)
    }
}

/// An ordered list of rules and what they say at present; the first that matches wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// Operators' overrides, asked before all others.
    pub overrides: Vec<(Arc<RuleHead>, Says)>,
    /// The rules of the file.
    pub table: Arc<RuleTable>,
    /// What each of them says, in the same order.
    pub says: Vec<Says>,
    /// Whether packets of rules that do not say may go straight to correspondents; `None` where
    /// no packet may.
    pub optimize: Option<Optimize>,
}

/// What the bindings allow at this moment, as far as the walk needs it.
pub trait Usable {
    /// Whether packets can be sent by this binding.
    fn usable(&self, bid: Bid) -> bool;
    /// The usable binding of the lowest BID-PRI, ties by lowest BID; `None` if there is none.
    fn preferred(&self) -> Option<Bid>;
    /// Whether packets can leave by this link outside the tunnel.
    fn attached(&self, bid: Bid) -> bool {
        self.usable(bid)
    }
}

/// Whose packet is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// One of the home network's: it has a home source, or a home destination at an agent.
    #[default]
    Home,
    /// A further source (`also from=…`): judged by the rules, never tunnelled. Rules whose verb
    /// tunnels do not speak of it.
    Also,
}

/// A rule and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling<'e> {
    /// Of which packets it speaks.
    pub head: &'e RuleHead,
    /// What it says of them.
    pub says: &'e Says,
}

/// Where the walk over the rules ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<'e> {
    /// By this binding.
    Use {
        /// The rule that said so; `None` if no rule matched and the preferred binding is used.
        rule: Option<Ruling<'e>>,
        /// The binding.
        bid: Bid,
        /// Whether the rule's `otherwise` was needed.
        otherwise: bool,
    },
    /// A copy by each of the first `copies` usable ones of `links`; at least one is usable.
    Copies {
        /// The rule that said so.
        rule: Ruling<'e>,
        /// The bindings in order.
        links: &'e [Bid],
        /// How many copies.
        copies: u8,
        /// Whether the rule's `otherwise` was needed.
        otherwise: bool,
    },
    /// Outside the tunnel, by the link of this BID.
    Breakout {
        /// The rule that said so.
        rule: Ruling<'e>,
        /// The link.
        bid: Bid,
        /// Whether the source becomes the link's own address.
        translate: bool,
        /// Whether the rule's `otherwise` was needed.
        otherwise: bool,
    },
    /// Refused by a rule.
    Block {
        /// The rule that said so.
        rule: Ruling<'e>,
        /// How to answer.
        reply: BlockReply,
        /// Whether the rule's `otherwise` was needed.
        otherwise: bool,
    },
    /// Nothing usable; holds the last rule that matched.
    Nothing(Option<Ruling<'e>>),
}

impl Effective {
    /// The rules of a home agent that was told nothing: every flow goes back the way it came.
    pub fn reflecting() -> Arc<Self> {
        let head = RuleHead {
            id: RuleId(0),
            name: RuleName::new("reflect"),
            selectors: Vec::new(),
            exclude: Vec::new(),
            identity: 0,
            optimize: None,
        };
        Arc::new(Self::new([(head, Says::plain(Outcome::Reflect, Otherwise::Any))]))
    }

    /// A list of these rules, without overrides.
    pub fn new(rules: impl IntoIterator<Item = (RuleHead, Says)>) -> Self {
        let (heads, says) = rules.into_iter().map(|(head, says)| (Arc::new(head), says)).unzip();
        let table = Arc::new(RuleTable::new(heads));
        Self { overrides: Vec::new(), table, says, optimize: None }
    }

    /// Whether packets that this rule decided may go straight to a correspondent that holds the
    /// binding they go by; `None` for packets that no rule decided.
    pub fn optimize(&self, rule: Option<RuleId>) -> Optimize {
        let Some(unsaid) = self.optimize else { return Optimize::Never };
        let said = rule.and_then(|id| self.rule(id)).and_then(|rule| rule.head.optimize);
        said.unwrap_or(unsaid)
    }

    /// The rule of this number.
    pub fn rule(&self, id: RuleId) -> Option<Ruling<'_>> {
        if id.is_override() {
            let found = self.overrides.iter().find(|(head, _)| head.id == id);
            return found.map(|(head, says)| Ruling { head, says });
        }
        let at = self.table.place(id)?;
        Some(Ruling { head: &self.table.heads()[at], says: &self.says[at] })
    }

    /// The rules in the order in which they are asked, matching or not: for people.
    pub fn rules(&self) -> impl Iterator<Item = Ruling<'_>> {
        let steered = self.overrides.iter().map(|(head, says)| Ruling { head, says });
        let written = self.table.heads().iter().zip(&self.says);
        steered.chain(written.map(|(head, says)| Ruling { head, says }))
    }

    /// The rules that speak of packets with this key, in order.
    fn matching<'e, 'k>(
        &'e self,
        key: &'k FlowKey,
    ) -> impl Iterator<Item = Ruling<'e>> + use<'e, 'k> {
        let steered = self.overrides.iter().filter(|(head, _)| head.matches(key));
        let written = self
            .table
            .matching(key)
            .map(move |at| Ruling { head: &self.table.heads()[at], says: &self.says[at] });
        steered.map(|(head, says)| Ruling { head, says }).chain(written)
    }

    /// Walks the rules for one packet.
    ///
    /// `last_verified` is the binding on which the flow's last verified packet in the other
    /// direction arrived; only outcomes that [reflect](Outcome::reflects) read it. A packet of a home that no rule
    /// matches takes the preferred binding (RFC 6089 §5.3.6).
    pub fn choose<'e>(
        &'e self,
        key: &FlowKey,
        origin: Origin,
        bindings: &impl Usable,
        last_verified: Option<Bid>,
    ) -> Choice<'e> {
        let mut last = None;
        for rule in self.matching(key) {
            last = Some(rule);
            let try_one = |outcome: &'e Outcome, otherwise| {
                rule.choose(outcome, otherwise, key, origin, bindings, last_verified)
            };
            if let Some(choice) = try_one(&rule.says.outcome, false) {
                return choice;
            }
            return match &rule.says.otherwise {
                Otherwise::NextRule => continue,
                Otherwise::Then(outcome) => match try_one(outcome, true) {
                    Some(choice) => choice,
                    // A verb that does not speak of this packet is no end of the walk.
                    None if !outcome.speaks_of(origin) => continue,
                    None => Choice::Nothing(last),
                },
                Otherwise::Any if origin == Origin::Also => continue,
                Otherwise::Any => match bindings.preferred() {
                    Some(bid) => Choice::Use { rule: Some(rule), bid, otherwise: true },
                    None => Choice::Nothing(last),
                },
            };
        }
        match (last, bindings.preferred()) {
            (None, Some(bid)) if origin == Origin::Home => {
                Choice::Use { rule: None, bid, otherwise: false }
            }
            _ => Choice::Nothing(last),
        }
    }
}

impl Outcome {
    /// Whether the verb is for packets of this origin.
    fn speaks_of(&self, origin: Origin) -> bool {
        match self {
            Self::Breakout { .. } | Self::Block(_) | Self::Unmet => true,
            Self::Candidates(_)
            | Self::Balance(_)
            | Self::Copies { .. }
            | Self::Reflect
            | Self::ReflectWithin(_) => origin == Origin::Home,
        }
    }
}

impl<'e> Ruling<'e> {
    /// What `outcome` comes to for one packet; `None` if it is not possible at present.
    fn choose(
        self,
        outcome: &'e Outcome,
        otherwise: bool,
        key: &FlowKey,
        origin: Origin,
        bindings: &impl Usable,
        last_verified: Option<Bid>,
    ) -> Option<Choice<'e>> {
        let rule = self;
        let usable = |bid: &Bid| bindings.usable(*bid);
        let by = |bid| Choice::Use { rule: Some(rule), bid, otherwise };
        if !outcome.speaks_of(origin) {
            return None;
        }
        match outcome {
            Outcome::Candidates(links) => links.iter().copied().find(usable).map(by),
            Outcome::Balance(buckets) => {
                let own = buckets.link(buckets.bucket(self.says.sticky.scope, key)).filter(usable);
                own.or_else(|| buckets.links.iter().copied().find(usable)).map(by)
            }
            Outcome::Copies { links, copies } => links
                .iter()
                .any(usable)
                .then_some(Choice::Copies { rule, links, copies: *copies, otherwise }),
            Outcome::Breakout { links, translate } => {
                let attached = links.iter().copied().find(|bid| bindings.attached(*bid));
                let translate = *translate;
                attached.map(|bid| Choice::Breakout { rule, bid, translate, otherwise })
            }
            Outcome::Reflect => last_verified.filter(usable).map(by),
            Outcome::ReflectWithin(links) => {
                let back = last_verified.filter(|bid| links.contains(bid)).filter(usable);
                back.or_else(|| links.iter().copied().find(usable)).map(by)
            }
            Outcome::Block(reply) => Some(Choice::Block { rule, reply: *reply, otherwise }),
            Outcome::Unmet => None,
        }
    }
}
