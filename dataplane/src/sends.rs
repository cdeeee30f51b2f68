//! The packets of one verdict that leave by several links.

use crate::registration::PathId;

/// Copies of one packet at most; a rule that asks for more gets these.
pub(crate) const MOST: usize = 8;

/// What leaves by which path: parts of the buffer that was handed to the engine, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sends {
    each: [(PathId, u32); MOST],
    count: u8,
}

impl Sends {
    /// None yet.
    pub(crate) const fn none() -> Self {
        Self { each: [(PathId::ROUTED, 0); MOST], count: 0 }
    }

    /// One more, from the end of the one before up to `end`. Beyond [`MOST`] it is left out.
    pub(crate) fn push(&mut self, path: PathId, end: usize) {
        if let (Some(slot), Ok(end)) = (self.each.get_mut(usize::from(self.count)), end.try_into())
        {
            *slot = (path, end);
            self.count += 1;
        }
    }

    /// The path of the first.
    pub(crate) fn first(&self) -> Option<PathId> {
        (self.count > 0).then_some(self.each[0].0)
    }

    /// How many.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Each path with its part of `out`: one outer packet or its fragments, see
    /// [`wire::packets`](crate::wire::packets).
    pub fn parts<'o>(&self, out: &'o [u8]) -> impl Iterator<Item = (PathId, &'o [u8])> + use<'o> {
        let mut start = 0;
        self.each.into_iter().take(self.len()).map(move |(path, end)| {
            let end = (end as usize).min(out.len());
            let part = &out[start.min(end)..end];
            start = end;
            (path, part)
        })
    }
}
