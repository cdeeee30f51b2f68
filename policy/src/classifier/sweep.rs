//! From ranges of values to intervals with a set of lines each, in bounded memory.

use std::collections::HashMap;

/// The values `first` to `last` are let pass by a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) line: u32,
    pub(super) first: u128,
    pub(super) last: u128,
}

/// Some of the lines, one bit each, with a summary of which words hold any.
#[derive(Clone, Debug)]
pub(super) struct LineSet {
    pub(super) words: Vec<u64>,
    /// Bit `w` of the whole is set if `words[w]` is not zero.
    pub(super) summary: Vec<u64>,
    /// Equal for equal sets; the sum of a number for each member.
    hash: u64,
}

impl LineSet {
    pub(super) fn new(lines: usize) -> Self {
        let words = lines.div_ceil(64);
        Self { words: vec![0; words], summary: vec![0; words.div_ceil(64)], hash: 0 }
    }

    pub(super) fn contains(&self, line: u32) -> bool {
        self.words[line as usize / 64] >> (line % 64) & 1 != 0
    }

    pub(super) fn add(&mut self, line: u32) {
        if !self.contains(line) {
            self.toggle(line);
        }
    }

    fn toggle(&mut self, line: u32) {
        let at = line as usize / 64;
        self.words[at] ^= 1 << (line % 64);
        let bit = 1 << (at % 64);
        match self.words[at] {
            0 => self.summary[at / 64] &= !bit,
            _ => self.summary[at / 64] |= bit,
        }
        self.hash ^= spread(line.into());
    }

    /// The words that are not zero, with their places.
    fn filled(&self) -> impl Iterator<Item = (u32, u64)> {
        self.summary.iter().enumerate().flat_map(move |(block, summary)| {
            Bits(*summary).map(move |bit| {
                let at = block * 64 + bit as usize;
                (at as u32, self.words[at])
            })
        })
    }

    /// The set of these words and no others.
    pub(super) fn assign_filled(&mut self, filled: &[(u32, u64)]) {
        let mut filled = filled.iter().copied().peekable();
        let word = |at| filled.next_if(|(place, _)| *place as usize == at).map_or(0, |(_, w)| w);
        self.assign((0..self.words.len()).map(word));
    }

    /// The set of these words, which are as many as its own.
    pub(super) fn assign(&mut self, words: impl Iterator<Item = u64>) {
        self.summary.fill(0);
        self.hash = 0;
        for (at, word) in words.enumerate() {
            self.words[at] = word;
            self.summary[at / 64] |= u64::from(word != 0) << (at % 64);
            self.hash = spread(self.hash ^ word);
        }
    }
}

/// The places of the bits that are set, the lowest first.
pub(super) struct Bits(pub(super) u64);

impl Iterator for Bits {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let bit = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        (bit < 64).then_some(bit)
    }
}

fn spread(value: u64) -> u64 {
    let value = (value ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 29).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 32
}

/// The sets that occur on a line of values, each once, as the words that are not zero.
#[derive(Debug, Default)]
pub(super) struct Classes {
    filled: Vec<(u32, u64)>,
    /// Where each class begins in `filled`.
    from: Vec<u32>,
    known: HashMap<u64, u32>,
}

/// More words than allowed.
#[derive(Debug)]
pub(super) struct TooMany;

impl Classes {
    pub(super) fn len(&self) -> usize {
        self.from.len()
    }

    /// The words of a class that are not zero, with their places.
    pub(super) fn class(&self, class: usize) -> &[(u32, u64)] {
        let to = self.from.get(class + 1).map_or(self.filled.len(), |to| *to as usize);
        &self.filled[self.from[class] as usize..to]
    }

    /// The lines that are in more than half of the classes.
    pub(super) fn in_most(&self, lines: usize) -> LineSet {
        let mut classes = vec![0_u32; lines];
        for (at, word) in &self.filled {
            for bit in Bits(*word) {
                classes[(at * 64 + bit) as usize] += 1;
            }
        }
        let mut most = LineSet::new(lines);
        for (line, classes) in (0..).zip(classes) {
            if classes as usize > self.len() / 2 {
                most.add(line);
            }
        }
        most
    }

    /// How many words all of it takes, with `overhead` for each class.
    pub(super) fn size(&self, overhead: usize) -> usize {
        self.filled.len() + self.len() * overhead
    }

    /// The number of the class of this set.
    pub(super) fn add(&mut self, set: &LineSet) -> u32 {
        if let Some(class) = self.known.get(&set.hash) {
            // Lines are chosen by people: equal hashes prove nothing. What differs in spite of
            // them is a class of its own, whether it was seen before or not.
            if set.filled().eq(self.class(*class as usize).iter().copied()) {
                return *class;
            }
        }
        let class = self.from.len() as u32;
        self.from.push(self.filled.len() as u32);
        self.filled.extend(set.filled());
        self.known.insert(set.hash, class);
        class
    }
}

/// Bounds of one field's classes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Lines of the rule set.
    pub(super) lines: usize,
    /// Words that all classes may take together.
    pub(super) words: usize,
    /// Words that each class takes beyond its filled ones.
    pub(super) overhead: usize,
}

/// A field's intervals, for each of its lines of values, and whether they are exact.
///
/// When the exact intervals would take too much memory, neighbours are joined until they fit, and
/// a class then holds every line that holds on any part of it: a candidate has to be compared.
pub(super) fn sweep(
    mut spans: Vec<Vec<Span>>,
    bounds: Bounds,
) -> (Vec<Vec<(u128, u32)>>, Classes, bool) {
    spans.iter_mut().for_each(join_overlapping);
    let events: Vec<Vec<(u128, u32)>> = spans.iter().map(|spans| events(spans)).collect();
    let mut classes = Classes::default();
    let exact: Result<Vec<_>, TooMany> =
        events.iter().map(|events| cut(events, 1, bounds, &mut classes)).collect();
    if let Ok(intervals) = exact {
        return (intervals, classes, true);
    }
    classes = Classes::default();
    let most: usize = events.iter().map(|events| events.len() + 1).sum();
    let each = bounds.lines.div_ceil(64) + bounds.overhead;
    let fitting = (bounds.words / each).max(spans.len() + 1) - spans.len();
    let joined = most.div_ceil(fitting);
    let unbounded = Bounds { words: usize::MAX, ..bounds };
    let intervals = events.iter().map(|events| {
        cut(events, joined, unbounded, &mut classes).expect("nothing is more than that")
    });
    (intervals.collect(), classes, false)
}

/// Makes the spans of each line disjoint, so that each end of a span is a change of its set.
fn join_overlapping(spans: &mut Vec<Span>) {
    spans.sort_unstable_by_key(|span| (span.line, span.first));
    spans.dedup_by(|next, kept| {
        let touches = next.line == kept.line && next.first <= kept.last.saturating_add(1);
        if touches {
            kept.last = kept.last.max(next.last);
        }
        touches
    });
}

/// Where which line begins or ends to hold, in order.
fn events(spans: &[Span]) -> Vec<(u128, u32)> {
    let begins = spans.iter().map(|span| (span.first, span.line));
    let ends = spans.iter().filter_map(|span| Some((span.last.checked_add(1)?, span.line)));
    let mut events: Vec<_> = begins.chain(ends).collect();
    events.sort_unstable();
    events
}

/// Cuts a line of values at its events, `joined` points of change to an interval.
fn cut(
    events: &[(u128, u32)],
    joined: usize,
    bounds: Bounds,
    classes: &mut Classes,
) -> Result<Vec<(u128, u32)>, TooMany> {
    let mut holding = LineSet::new(bounds.lines);
    let mut intervals: Vec<(u128, u32)> = Vec::new();
    let mut points = events.chunk_by(|one, next| one.0 == next.0).peekable();
    // What changes at the very first value is no cut.
    while let Some(first) = points.next_if(|point| point[0].0 == 0) {
        first.iter().for_each(|(_, line)| holding.toggle(*line));
    }
    let mut start = 0;
    loop {
        // What holds anywhere between `start` and the next cut.
        let mut met = None;
        for _ in 1..joined {
            let Some(point) = points.next() else { break };
            let met = met.get_or_insert_with(|| holding.clone());
            for (_, line) in point {
                holding.toggle(*line);
                met.add(*line);
            }
        }
        let class = classes.add(met.as_ref().unwrap_or(&holding));
        if intervals.last().is_none_or(|(_, last)| *last != class) {
            intervals.push((start, class));
        }
        if classes.size(bounds.overhead) > bounds.words {
            return Err(TooMany);
        }
        let Some(point) = points.next() else { return Ok(intervals) };
        start = point[0].0;
        point.iter().for_each(|(_, line)| holding.toggle(*line));
    }
}
