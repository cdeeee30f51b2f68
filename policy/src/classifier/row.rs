//! One row of the classifier: from some fields of a key to the lines that they let pass.

use super::axis::{Axis, FAMILIES, spans};
use super::sweep::{Bounds, Classes, LineSet, sweep};
use crate::key::FlowKey;
use crate::selector::{Field, TrafficSelector};

/// Combinations of classes of one row's fields; with more, each field is a row of its own.
const MOST_COMBINATIONS: usize = 1 << 16;

/// And the words that are looked at to find their sets.
const MOST_COMBINING: usize = 1 << 24;

/// Words that combinations of classes may take even if their fields alone would take fewer: they
/// stay in the cache, and one row asks less than two.
const SMALL: usize = 1 << 13;

/// Words that a record has for each block, before its own: see [`Row`].
pub(super) const HEADER: usize = 3;

/// From some fields of a key to a record: which lines these fields let pass.
///
/// Most lines of a row are let pass either by few of its records or by most of them. The row
/// therefore has a *usual* set, and a record holds where its own set differs from that. For each
/// block of 64 words of lines it begins with three words of 64 bits, one for each of the block's:
/// which hold a line of the record's set, which hold a *lone* line of it, and which differ from
/// the usual set. Then come those differences.
///
/// Lines that look at none of the row's fields are let pass by every record; they are usual, and
/// no header speaks of them.
#[derive(Clone, Debug)]
pub(super) struct Row {
    axes: Vec<Axis>,
    /// How many classes each axis has.
    sizes: Vec<u32>,
    /// The record of each combination of classes, if there are several axes; a single axis gives
    /// the record itself.
    combined: Vec<u32>,
    pub(super) records: Vec<u64>,
}

impl Row {
    /// Where the record of this key begins in `records`.
    #[inline]
    pub(super) fn record(&self, key: &FlowKey) -> u32 {
        if let [axis] = &self.axes[..] {
            return axis.class(key);
        }
        let axes = self.axes.iter().zip(&self.sizes);
        let combination = axes.fold(0, |so_far, (axis, size)| so_far * size + axis.class(key));
        self.combined[combination as usize]
    }
}

impl Row {
    /// Octets of memory that it takes.
    pub(super) fn octets(&self) -> usize {
        let axes = self.axes.iter().map(Axis::octets).sum::<usize>();
        axes + 4 * self.combined.len() + 8 * self.records.len()
    }
}

/// A row before its records are written, and what it says of all keys.
pub(super) struct Draft {
    axes: Vec<Axis>,
    classes: Vec<Classes>,
    /// The sets of combinations, if there are several axes.
    combinations: Option<(Vec<u32>, Classes)>,
    pub(super) exact: bool,
    /// Lines that look at none of the row's fields.
    pub(super) any: LineSet,
}

impl Draft {
    /// The rows of these fields: one, or one for each if their combinations are too many.
    pub(super) fn rows(
        fields: &[Field],
        selectors: &[&TrafficSelector],
        words_each: usize,
    ) -> Vec<Self> {
        let drafts: Vec<Self> =
            fields.iter().map(|field| Self::of(*field, selectors, words_each)).collect();
        match drafts.len() {
            0 | 1 => drafts,
            _ => Self::combine(drafts, selectors.len(), words_each),
        }
    }

    fn of(field: Field, selectors: &[&TrafficSelector], words_each: usize) -> Self {
        let address = matches!(field, Field::Source | Field::Destination);
        let mut values = vec![Vec::new(); if address { FAMILIES } else { 1 }];
        let mut any = LineSet::new(selectors.len());
        for (line, selector) in (0..).zip(selectors) {
            if selector.fields().contains(field) {
                spans(field, selector, line, &mut values);
            } else {
                any.add(line);
            }
        }
        let overhead = HEADER * any.summary.len();
        let bounds = Bounds { lines: selectors.len(), words: words_each, overhead };
        let (intervals, classes, exact) = sweep(values, bounds);
        let axes = vec![Axis::new(field, &intervals)];
        Self { axes, classes: vec![classes], combinations: None, exact, any }
    }

    fn combine(drafts: Vec<Self>, lines: usize, words_each: usize) -> Vec<Self> {
        let mut any = LineSet::new(lines);
        let words = any.words.len();
        let sizes = drafts.iter().map(|draft| draft.classes[0].len());
        let count = sizes.fold(1, usize::saturating_mul);
        if count > MOST_COMBINATIONS || count * words > MOST_COMBINING {
            return drafts;
        }
        let full: Vec<Vec<Vec<u64>>> = drafts.iter().map(|d| d.full_sets(0)).collect();
        any.assign((0..words).map(|at| drafts.iter().fold(!0, |all, d| all & d.any.words[at])));
        let (mut numbers, mut sets, mut set) =
            (Vec::new(), Classes::default(), LineSet::new(lines));
        let overhead = HEADER * set.summary.len();
        let parts = drafts.iter().map(|draft| draft.classes[0].size(overhead)).sum::<usize>();
        let most = words_each.min(parts.max(SMALL));
        for combination in 0..count {
            let mut rest = combination;
            let mut chosen = vec![0; full.len()];
            for (place, sets) in full.iter().enumerate().rev() {
                chosen[place] = rest % sets.len();
                rest /= sets.len();
            }
            set.assign((0..words).map(|at| {
                let each = full.iter().zip(&chosen);
                each.fold(!any.words[at], |all, (sets, class)| all & sets[*class][at])
            }));
            numbers.push(sets.add(&set));
            if sets.size(overhead) > most {
                return drafts;
            }
        }
        let exact = drafts.iter().all(|draft| draft.exact);
        let (axes, classes): (Vec<_>, Vec<_>) =
            drafts.into_iter().map(|draft| (draft.axes, draft.classes)).unzip();
        vec![Self {
            axes: axes.into_iter().flatten().collect(),
            classes: classes.into_iter().flatten().collect(),
            combinations: Some((numbers, sets)),
            exact,
            any,
        }]
    }

    /// Every class of an axis as all of its words, the lines that look elsewhere included.
    fn full_sets(&self, axis: usize) -> Vec<Vec<u64>> {
        let classes = &self.classes[axis];
        let set = |class| {
            let mut words = self.any.words.clone();
            for (at, word) in classes.class(class) {
                words[*at as usize] |= word;
            }
            words
        };
        (0..classes.len()).map(set).collect()
    }

    /// Writes the records; `lone` are the lines that this row alone can bring into question.
    /// Returns the row's usual set too.
    pub(super) fn finish(mut self, lone: &LineSet) -> (Row, Vec<u64>) {
        let sizes: Vec<u32> = self.classes.iter().map(|classes| classes.len() as u32).collect();
        let single = self.combinations.is_none();
        let (numbers, sets) =
            self.combinations.take().unwrap_or_else(|| (Vec::new(), self.classes.remove(0)));
        let often = sets.in_most(64 * lone.words.len());
        let mut set = often.clone();
        let mut records = Vec::new();
        let mut places = Vec::with_capacity(sets.len());
        for class in 0..sets.len() {
            places.push(records.len() as u32);
            set.assign_filled(sets.class(class));
            let from = records.len();
            records.resize(from + HEADER * set.summary.len(), 0);
            for (block, header) in set.summary.iter().enumerate() {
                records[from + HEADER * block] = *header;
                let words = block * 64..set.words.len().min(block * 64 + 64);
                for (bit, at) in words.enumerate() {
                    let loners = u64::from(set.words[at] & lone.words[at] != 0);
                    records[from + HEADER * block + 1] |= loners << bit;
                    let differs = set.words[at] ^ often.words[at];
                    records[from + HEADER * block + 2] |= u64::from(differs != 0) << bit;
                    if differs != 0 {
                        records.push(differs);
                    }
                }
            }
        }
        if single {
            self.axes[0].renumber(&places);
        }
        records.shrink_to_fit();
        let combined = numbers.iter().map(|class| places[*class as usize]).collect();
        let mut usual = self.any.words;
        for (usual, often) in usual.iter_mut().zip(&often.words) {
            *usual |= often;
        }
        (Row { axes: self.axes, sizes, combined, records }, usual)
    }
}
