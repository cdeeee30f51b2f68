//! Finds the rules that speak of a packet at a cost that hardly grows with their number.
//!
//! Aggregated bit vectors. Each `match` line of a rule is one bit, however many prefixes and port
//! ranges it has; the bits are in the order of the rules. A *row* turns some fields of a key into
//! the set of lines that these fields let pass: source address, destination address, protocol and
//! ports together, and a fourth row of everything else if any rule looks at it. What all rows let
//! pass matches.
//!
//! ```text
//!  source ------- search tree -- record --+
//!  destination -- search tree -- record --+-- and of summaries -- and of words --> places
//!  protocol, ports -- classes -- record --+   (a bit: 64 lines)   (a bit: a line)
//!  the other fields - classes -- record --+
//! ```
//!
//! A line that does not look at a row's fields passes that row with every packet, and many others
//! pass it with most. Such *usual* bits are kept once, and a record holds only the words that
//! differ from them, so that it is short. And so that the many lines without a source do not bring
//! every word into question for every packet, a summary counts a word of 64 lines only if both
//! addresses have a line in it, or one has a line that does not look at the other (a *lone* one),
//! or protocol and ports have a line that looks at neither.
//!
//! Rule sets can be made whose exact records would not fit in memory. Then neighbouring values
//! share a record that lets pass what either does, and every candidate is compared with the rule
//! itself, as are those of rules with `exclude`. The answer is the same; only its cost grows.

mod axis;
mod row;
mod search_tree;
mod sweep;
mod walk;

use std::sync::Arc;

use crate::effective::RuleHead;
use crate::key::FieldSet;
use crate::selector::{Field, TrafficSelector};
use row::{Draft, Row};
use sweep::LineSet;
pub(crate) use walk::Matching;

/// Rule sets of fewer lines are compared one by one. Measured by the `classify` bench's rule sets,
/// ten lines cost as much either way, and 40 cost four times as much one by one.
const LINEAR_BELOW: usize = 12;

/// Words of eight octets that all records together may take, up to some 10,000 lines: 8 MiB.
/// Half of it is for the addresses, which need the most.
const WORDS: usize = 1 << 20;

/// And for each line if there are more.
const WORDS_PER_LINE: usize = 100;

const PORTS: [Field; 3] = [Field::Protocol, Field::SourcePort, Field::DestinationPort];
const OTHERS: [Field; 6] =
    [Field::Dscp, Field::Ingress, Field::FlowLabel, Field::Spi, Field::IcmpType, Field::Uid];

/// At most one for each field.
const MOST_ROWS: usize = Field::ALL.len();

/// The lines of a rule set as bit vectors.
#[derive(Clone)]
pub(crate) struct Classifier {
    /// The row of source addresses, then that of destination addresses, then the others.
    rows: Vec<Row>,
    has_source: bool,
    has_destination: bool,
    /// For each word of lines and each row, the usual ones, among them those that look at none of
    /// the row's fields.
    usual: Vec<u64>,
    /// For each block of 64 words: which of them hold lines without addresses; then, for each row
    /// that is no row of addresses, which hold lines that look at none of its fields, and which
    /// hold such lines without addresses.
    any_summary: Vec<u64>,
    /// The words of summary.
    blocks: usize,
    /// The place of each line's rule.
    rules: Vec<u32>,
    /// Lines that a candidate has to be compared for; all of them if a row is not exact.
    compared: LineSet,
}

impl Classifier {
    /// `None` if comparing rule by rule costs less: few rules, or none that looks at anything.
    pub(crate) fn new(heads: &[Arc<RuleHead>]) -> Option<Self> {
        Self::above(LINEAR_BELOW, heads)
    }

    fn above(linear_below: usize, heads: &[Arc<RuleHead>]) -> Option<Self> {
        let everything = TrafficSelector::default();
        let (mut selectors, mut rules) = (Vec::new(), Vec::new());
        for (rule, head) in (0..).zip(heads) {
            let everything = head.selectors.is_empty().then_some(&everything);
            selectors.extend(head.selectors.iter().chain(everything));
            rules.resize(selectors.len(), rule);
        }
        let fields = selectors.iter().fold(FieldSet::NONE, |all, line| all.union(line.fields()));
        if selectors.len() < linear_below || fields == FieldSet::NONE {
            return None;
        }
        let mut compared = LineSet::new(selectors.len());
        for (line, rule) in (0..).zip(&rules) {
            if !heads[*rule as usize].exclude.is_empty() {
                compared.add(line);
            }
        }
        Some(Self::of(&selectors, fields, rules, compared))
    }

    /// Octets of memory that it takes.
    pub(crate) fn octets(&self) -> usize {
        let words = self.usual.len() + self.any_summary.len() + self.compared.words.len();
        let rows = self.rows.iter().map(Row::octets).sum::<usize>();
        rows + 8 * words + 4 * self.rules.len()
    }

    fn of(
        selectors: &[&TrafficSelector],
        all: FieldSet,
        rules: Vec<u32>,
        mut compared: LineSet,
    ) -> Self {
        let words = WORDS.max(selectors.len() * WORDS_PER_LINE);
        let rows = |fields: &[Field]| {
            let fields: Vec<Field> = fields.iter().copied().filter(|f| all.contains(*f)).collect();
            let each = if fields.contains(&Field::Source) || fields.contains(&Field::Destination) {
                words / 4
            } else {
                let addresses = FieldSet::NONE.with(Field::Source).with(Field::Destination);
                words / 2 / all.iter().filter(|field| !addresses.contains(*field)).count().max(1)
            };
            Draft::rows(&fields, selectors, each)
        };
        let source = rows(&[Field::Source]);
        let destination = rows(&[Field::Destination]);
        let (has_source, has_destination) = (!source.is_empty(), !destination.is_empty());
        let mut others = rows(&PORTS);
        others.extend(rows(&OTHERS));

        let without = |field: Field| {
            let mut set = LineSet::new(selectors.len());
            for (line, selector) in (0..).zip(selectors) {
                if !selector.fields().contains(field) {
                    set.add(line);
                }
            }
            set
        };
        let (no_source, no_destination) = (without(Field::Source), without(Field::Destination));
        let mut bare = LineSet::new(selectors.len());
        bare.assign(no_source.words.iter().zip(&no_destination.words).map(|(s, d)| s & d));

        let blocks = bare.summary.len();
        let mut any_summary = Vec::new();
        for block in 0..blocks {
            any_summary.push(bare.summary[block]);
            for row in &others {
                any_summary.push(row.any.summary[block]);
                let words = row.any.words.iter().zip(&bare.words).skip(block * 64).take(64);
                let summary =
                    (0..).zip(words).map(|(at, (any, bare))| u64::from(any & bare != 0) << at);
                any_summary.push(summary.fold(0, |all, bit: u64| all | bit));
            }
        }
        let drafts: Vec<(Draft, &LineSet)> = source
            .into_iter()
            .map(|row| (row, &no_destination))
            .chain(destination.into_iter().map(|row| (row, &no_source)))
            .chain(others.into_iter().map(|row| (row, &bare)))
            .collect();
        if drafts.iter().any(|(row, _)| !row.exact) {
            (0..selectors.len() as u32).for_each(|line| compared.add(line));
        }
        let (rows, sets): (Vec<_>, Vec<_>) =
            drafts.into_iter().map(|(row, lone)| row.finish(lone)).unzip();
        let words = 0..bare.words.len();
        let usual = words.flat_map(|at| sets.iter().map(move |set| set[at])).collect();
        Self { rows, has_source, has_destination, usual, any_summary, blocks, rules, compared }
    }
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Classifier").field("lines", &self.rules.len()).finish_non_exhaustive()
    }
}
