//! What `mtun policy diff` shows.

use std::collections::BTreeMap;

use mtun_policy::{
    AllowedMobile, End, FlowsDiff, Home, HomeAddress, HomeName, Policy, RuleId, RuleName,
    diff_rules,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::explain::RuleReference;
use super::flows::FlowKeyDocument;

/// What another policy would change; nothing of it is put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyDiffDocument {
    /// Name of the present policy.
    pub from: String,
    /// Name of the other one.
    pub to: String,
    /// Rules that only the other one has, home by home.
    pub added: Vec<RuleReference>,
    /// Rules that only the present one has.
    pub removed: Vec<RuleReference>,
    /// Rules that both have by name and that mean something else, as the other one has them.
    pub changed: Vec<RuleReference>,
    /// How many rules mean the same in both.
    pub kept: usize,
    /// Mobiles that only the other one allows, at a home agent.
    #[serde(default)]
    pub mobiles_added: Vec<HomeAddress>,
    /// Mobiles that only the present one allows; what they have bound would end.
    #[serde(default)]
    pub mobiles_removed: Vec<HomeAddress>,
    /// Mobiles with another grant.
    #[serde(default)]
    pub mobiles_changed: Vec<HomeAddress>,
    /// How many of the other's mobiles and refusals would come from `mtun agent` and not from its
    /// file.
    #[serde(default)]
    pub beside_the_file: usize,
    /// How many flows were judged.
    pub flows: usize,
    /// How many of them would go another way.
    pub moving: usize,
    /// What those carry, both directions; `null` if no rate is known.
    pub moving_bytes_per_second: Option<u64>,
    /// How many stay on their way, but by another rule.
    pub other_rule: usize,
    /// The flows that would move, by home, rule and way; those that carry most first.
    pub moves: Vec<DiffMoveDocument>,
}

/// Flows that would leave the same way for the same other one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiffMoveDocument {
    /// The home network.
    pub home: HomeName,
    /// The rule that decides at present; `null` if none does.
    pub rule_before: Option<RuleName>,
    /// The rule that would decide; `null` if none would.
    pub rule: Option<RuleName>,
    /// Their way at present.
    pub from: End,
    /// Their way under the other policy.
    pub to: End,
    /// How many flows.
    pub flows: usize,
    /// What they carry, both directions; `null` if no rate is known.
    pub bytes_per_second: Option<u64>,
    /// The flow that carries most of them.
    pub example: FlowKeyDocument,
}

impl PolicyDiffDocument {
    /// What `other` would change in the rules of `present`; the flows come with
    /// [`add_flows`](Self::add_flows), home by home.
    pub fn new(present: &Policy, other: &Policy) -> Self {
        let mut document = Self {
            from: present.name.clone(),
            to: other.name.clone(),
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
            kept: 0,
            mobiles_added: Vec::new(),
            mobiles_removed: Vec::new(),
            mobiles_changed: Vec::new(),
            beside_the_file: 0,
            flows: 0,
            moving: 0,
            moving_bytes_per_second: None,
            other_rule: 0,
            moves: Vec::new(),
        };
        for home in &other.homes {
            let Some(before) = present.home(home.name.as_str()) else {
                document.added.extend(home.rules.rules.iter().map(RuleReference::from));
                continue;
            };
            let diff = diff_rules(&before.rules, &home.rules);
            document.added.extend(references(home, &diff.added));
            document.changed.extend(references(home, &diff.changed));
            document.removed.extend(references(before, &diff.removed));
            document.kept += diff.kept;
        }
        let gone = present.homes.iter().filter(|home| other.home(home.name.as_str()).is_none());
        let gone = gone.flat_map(|home| &home.rules.rules);
        document.removed.extend(gone.map(RuleReference::from));
        document.compare_mobiles(present, other);
        document
    }

    fn compare_mobiles(&mut self, present: &Policy, other: &Policy) {
        let mobiles = |policy: &Policy| -> BTreeMap<HomeAddress, AllowedMobile> {
            let all = policy.served.iter().flat_map(|home| &home.mobiles);
            all.map(|mobile| (mobile.address, mobile.clone())).collect()
        };
        let (before, after) = (mobiles(present), mobiles(other));
        for (address, mobile) in &after {
            match before.get(address) {
                None => self.mobiles_added.push(*address),
                Some(known) if known != mobile => self.mobiles_changed.push(*address),
                Some(_) => {}
            }
        }
        let gone = before.keys().filter(|address| !after.contains_key(address));
        self.mobiles_removed.extend(gone);
    }

    /// Adds what would become of a home's flows; `present` and `other` name its links.
    pub fn add_flows(
        &mut self,
        home: &HomeName,
        diff: FlowsDiff,
        present: &Policy,
        other: &Policy,
    ) {
        self.flows += diff.flows;
        self.moving += diff.moving;
        self.other_rule += diff.other_rule;
        if let Some(rate) = diff.moving_bytes_per_second {
            let sum = self.moving_bytes_per_second.unwrap_or(0).saturating_add(rate);
            self.moving_bytes_per_second = Some(sum);
        }
        self.moves.extend(diff.moves.into_iter().map(|moved| {
            let ingress = present.ingresses.name(moved.example.ingress).to_owned();
            DiffMoveDocument {
                home: home.clone(),
                rule_before: moved.rule_before,
                rule: moved.rule,
                from: moved.from.end(present),
                to: moved.to.end(other),
                flows: moved.flows,
                bytes_per_second: moved.bytes_per_second,
                example: FlowKeyDocument::new(&moved.example, ingress),
            }
        }));
        self.moves.sort_by_key(|moved| std::cmp::Reverse((moved.bytes_per_second, moved.flows)));
    }
}

fn references(home: &Home, rules: &[RuleId]) -> impl Iterator<Item = RuleReference> {
    rules.iter().filter_map(|id| home.rules.get(*id)).map(RuleReference::from)
}
