//! The walk over a classifier for one key: the places of the rules that match, in order.

use std::sync::Arc;

use super::row::HEADER;
use super::{Classifier, MOST_ROWS};
use crate::effective::RuleHead;
use crate::key::FlowKey;

/// The places of the rules that match a key, by whichever way costs less.
#[derive(Clone, Debug)]
pub(crate) enum Matching<'t, 'k> {
    /// Rule by rule.
    Linear {
        /// The rules not asked yet.
        rest: std::iter::Enumerate<std::slice::Iter<'t, Arc<RuleHead>>>,
        /// Of the packet.
        key: &'k FlowKey,
    },
    /// By the classifier.
    Vectors(Walk<'t, 'k>),
}

impl<'t, 'k> Matching<'t, 'k> {
    #[inline]
    pub(crate) fn new(
        heads: &'t [Arc<RuleHead>],
        classifier: Option<&'t Classifier>,
        key: &'k FlowKey,
    ) -> Self {
        match classifier {
            Some(classifier) => Self::Vectors(Walk::new(classifier, heads, key)),
            None => Self::Linear { rest: heads.iter().enumerate(), key },
        }
    }
}

impl Iterator for Matching<'_, '_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        match self {
            Self::Linear { rest, key } => {
                rest.find(|(_, head)| head.matches(key)).map(|(place, _)| place)
            }
            Self::Vectors(walk) => walk.next(),
        }
    }
}

/// A walk over a classifier; each place is found when it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Walk<'t, 'k> {
    classifier: &'t Classifier,
    heads: &'t [Arc<RuleHead>],
    key: &'k FlowKey,
    /// Of each row, where its record begins.
    records: [u32; MOST_ROWS],
    /// Of each row, where the words of the present block begin.
    words: [u32; MOST_ROWS],
    /// The present word of summary; its words that are still to be looked at.
    block: usize,
    candidates: u64,
    /// The present word of lines, and its lines that are still to be told.
    at: usize,
    lines: u64,
    /// The rule told or turned down last, which other lines of it need not repeat.
    last: u32,
}

impl<'t, 'k> Walk<'t, 'k> {
    #[inline]
    pub(crate) fn new(
        classifier: &'t Classifier,
        heads: &'t [Arc<RuleHead>],
        key: &'k FlowKey,
    ) -> Self {
        let mut records = [0; MOST_ROWS];
        let mut words = [0; MOST_ROWS];
        for (at, row) in classifier.rows.iter().enumerate() {
            records[at] = row.record(key);
            words[at] = records[at] + (HEADER * classifier.blocks) as u32;
        }
        let mut walk = Self {
            classifier,
            heads,
            key,
            records,
            words,
            block: 0,
            candidates: 0,
            at: 0,
            lines: 0,
            last: u32::MAX,
        };
        walk.candidates = walk.candidates();
        walk
    }

    /// Of the present block, which words hold lines that the row lets pass, and which lone ones.
    #[inline]
    fn summary(&self, row: usize) -> (u64, u64) {
        let from = self.records[row] as usize + HEADER * self.block;
        match self.classifier.rows[row].records[from..] {
            [all, alone, ..] => (all, alone),
            _ => unreachable!("every block has a header"),
        }
    }

    /// Of the present block, the words in which the row differs from its usual set.
    #[inline]
    fn differing(&self, row: usize) -> u64 {
        let from = self.records[row] as usize + HEADER * self.block;
        self.classifier.rows[row].records[from + 2]
    }

    /// The words of the present block in which a line may match.
    #[inline]
    fn candidates(&self) -> u64 {
        let classifier = self.classifier;
        let absent = (0, 0);
        let (source, source_alone) = if classifier.has_source { self.summary(0) } else { absent };
        let first = usize::from(classifier.has_source);
        let (destination, destination_alone) =
            if classifier.has_destination { self.summary(first) } else { absent };
        let first = first + usize::from(classifier.has_destination);
        let others = classifier.rows.len() - first;
        let any = &classifier.any_summary[self.block * (1 + 2 * others)..][..1 + 2 * others];

        let (mut rest, mut bare) = (!0, any[0]);
        for (row, any) in (first..).zip(any[1..].chunks_exact(2)) {
            let (all, alone) = self.summary(row);
            rest &= all | any[0];
            bare &= alone | any[1];
        }
        (source & destination | source_alone | destination_alone) & rest | bare
    }

    /// The lines of the present word that every row lets pass.
    #[inline]
    fn lines(&self) -> u64 {
        let classifier = self.classifier;
        let rows = classifier.rows.len();
        let usual = &classifier.usual[self.at * rows..][..rows];
        let bit = 1 << (self.at % 64);
        let mut lines = !0;
        for (number, (row, usual)) in classifier.rows.iter().zip(usual).enumerate() {
            let differing = self.differing(number);
            let mut pass = *usual;
            if differing & bit != 0 {
                let before = (differing & (bit - 1)).count_ones();
                pass ^= row.records[(self.words[number] + before) as usize];
            }
            lines &= pass;
        }
        lines
    }

    #[inline]
    fn next_block(&mut self) -> bool {
        if self.block + 1 >= self.classifier.blocks {
            return false;
        }
        for row in 0..self.classifier.rows.len() {
            self.words[row] += self.differing(row).count_ones();
        }
        self.block += 1;
        self.candidates = self.candidates();
        true
    }
}

impl Iterator for Walk<'_, '_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        loop {
            while self.lines == 0 {
                while self.candidates == 0 {
                    if !self.next_block() {
                        return None;
                    }
                }
                self.at = self.block * 64 + self.candidates.trailing_zeros() as usize;
                self.candidates &= self.candidates - 1;
                self.lines = self.lines();
            }
            let line = self.at * 64 + self.lines.trailing_zeros() as usize;
            let compared = self.classifier.compared.words[self.at] & self.lines;
            let compare = compared.trailing_zeros() == self.lines.trailing_zeros();
            self.lines &= self.lines - 1;
            let rule = self.classifier.rules[line];
            if rule == self.last {
                continue;
            }
            self.last = rule;
            if compare && !self.heads[rule as usize].matches(self.key) {
                continue;
            }
            return Some(rule as usize);
        }
    }
}
